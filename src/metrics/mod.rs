//! Scores of a model's answers: host arithmetic in f64 on labels and scores, with no knowledge of the GPU.

pub mod classification;
pub mod segmentation;

pub use classification::{ClassScores, ClassificationReport, ConfusionMatrix, argmax, roc_auc, softmax};
pub use segmentation::{PixelCounts, SegmentationReport};
