//! `lesion-gpu`: a hand-written GPU compute engine on wgpu, and on it the networks and training loops that
//! classify skin lesions.
#![warn(missing_docs)]
#![deny(unsafe_code)]

pub mod autograd;
pub mod bench;
pub mod cli;
pub mod data;
pub mod error;
pub mod explain;
pub mod export;
pub mod gpu;
pub mod hub;
pub mod metrics;
pub mod models;
pub mod nn;
pub mod onnx;
pub mod ops;
pub mod optim;
pub mod parallel;
pub mod report;
pub mod rng;
pub mod serve;
pub mod tensor;
pub mod train;
pub mod tune;
pub mod weights;

pub use error::{Error, Kind, Result};
