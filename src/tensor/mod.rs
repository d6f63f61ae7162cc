//! Shapes, element types and host tensors.

mod host;
mod shape;

pub use host::HostTensor;
pub use shape::{DType, Shape, TensorType};
