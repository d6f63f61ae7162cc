//! Scores of a model's answers: host arithmetic in f64 on labels and scores, with no knowledge of the GPU.

pub mod calibration;
pub mod classification;
pub mod compare;
pub mod curves;
pub mod detailed;
pub mod multi_label;
pub mod segmentation;
pub mod shape;

pub use calibration::{Calibration, CalibrationBin, calibration_error, fit_temperature, nll, tempered};
pub use classification::{
    ClassScores, ClassificationReport, ConfusionMatrix, argmax, average_precision, roc_auc, sigmoid, softmax,
};
pub use compare::{Answers, Comparison, Sheet, compare};
pub use curves::{precision_recall_curve, roc_curve};
pub use detailed::{DetailedReport, Scored};
pub use multi_label::MultiLabelReport;
pub use segmentation::{PixelCounts, SegmentationReport};
pub use shape::{Contour, MaskView, Shape};
