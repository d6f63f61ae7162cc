//! Datasets: what is on disk, how it is split, decoded, cached and handed out in batches. Host types only.
//!
//! The order of a run is: [`Dataset::open`] lists and verifies, [`PixelStore::prepare`] decodes and resizes once,
//! [`split()`] assigns samples without leaking a lesion between splits, [`epoch_order`] shuffles (or [`balanced_order`]), and [`Loader`]
//! prefetches batches. Class weights come from the training labels alone ([`class_weights()`]).
//!
//! - `dataset`: the dataset type, and which layout a path holds; `ham10000`, `challenge`, `isic2018`, `ph2`, `folders` and
//!   `table` read the layouts
//! - `tree`: one listing for a folder and a zip archive, and how the bytes of a source are read; `archive`: zip archives
//! - `faults`: every fault of a dataset, collected and shown as one error
//! - `decode`: bytes to 8-bit RGB, and the one resize of this program; `size`: width and height
//! - `preprocess`: what else is done to pictures before any model sees them
//! - `masks`: the masks of lesions, found and decoded
//! - `store`, `cache`: the decoded pixels, kept on disk between runs
//! - `balance`: as many pictures of each class
//! - `split`, `class_weights`, `loader`: what training draws from them
//! - `sheet`: many pictures in one; `letters`: what is written there
//! - `check`: all that can be told of a dataset; `near`, `sets`: pictures that look the same
//! - `synthetic`: generated pictures, for trying the program out without any download

mod archive;
mod balance;
mod cache;
mod challenge;
mod check;
mod class_weights;
mod content;
mod dataset;
mod decode;
mod delimited;
mod faults;
mod folders;
mod ham10000;
mod isic2018;
mod letters;
mod loader;
mod masks;
mod near;
mod ph2;
mod png;
pub mod preprocess;
mod sets;
mod sheet;
mod size;
mod split;
mod store;
pub mod synthetic;
mod table;
mod tree;
mod views;

pub use balance::{Balance, Change, balance_all, balance_of, balance_train, write_set};
pub use check::{Count, DataReport, Duplicates, age_band, check};
pub use class_weights::{ClassWeights, Weighting, class_weights};
pub use dataset::{Dataset, Layout, Masks, OpenOptions, Patient, Sample, Split};
pub use decode::{
    decode_image_bytes, decode_image_file, decode_rgb, decode_rgb_file, is_image_name, is_sheltered, list_images,
    picture_size, resize_rgb,
};
pub use delimited::{LEAK, LEAKY, csv_of, csv_of_split};
pub use faults::{Fault, FaultKind, Faults};
pub use ham10000::CLASSES as HAM10000_CLASSES;
pub use loader::{Batch, LastBatch, Loader, LoaderOptions, Visit, balanced_order, epoch_order};
pub use masks::{SampleReader, masks_of_files, resize_probabilities};
pub use png::{mask_picture, png_of};
pub use preprocess::{Preparation, Preprocess};
pub use sheet::Sheet;
pub use size::ImageSize;
pub use split::{Fold, Leak, SplitAssignment, SplitSpec, UNUSED, split};
pub use store::{Cache, PixelStore};
pub use tree::Source;
pub use views::View;
