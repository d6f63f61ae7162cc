//! Layers: what a model file is written in.
//!
//! A model is a function that traces itself onto a tape through a [`Net`]. Parameters are declared where they are
//! used, by the name they have in torchvision's `state_dict`; shapes follow from the input, so nothing is said twice.

mod net;
mod parameter;

pub use net::{Conv, ConvTranspose, Frozen, Mode, Net};
pub use parameter::{Init, Layout, Parameter};
