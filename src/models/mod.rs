//! The networks. A model file reads like its paper; the registry knows them by name.

mod registry;
mod resnet;
mod simple_cnn;

pub use registry::{Model, ModelSummary};
