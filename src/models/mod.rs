//! The networks. A model file reads like its paper; the registry knows them by name.

mod efficientnet;
mod inception_resnet_v2;
mod registry;
mod resnet;
mod simple_cnn;
mod vit;

pub use registry::{Model, ModelSummary};
