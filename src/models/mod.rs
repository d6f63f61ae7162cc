//! The networks. A model file reads like its paper; the registry knows them by name.

mod efficientnet;
mod head;
mod inception_resnet_v2;
mod keras;
mod registry;
mod resnet;
mod simple_cnn;
mod summary;
mod timm;
mod unet;
mod unet_resnet;
mod vit;

pub use head::Head;
pub use keras::FromKeras;
pub use registry::{Model, Task};
pub use summary::{LayerSummary, ModelSummary};
