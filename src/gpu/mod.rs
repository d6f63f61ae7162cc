//! The only place that knows wgpu: adapters, devices, kernels, pipelines, buffers, textures, recording and timing.
//!
//! Everything above this module describes work as plain data ([`Dispatch`]) and never names a wgpu type.

mod adapter;
mod buffer;
mod device;
mod fault;
mod guard;
mod kernel;
mod limits;
mod pipeline;
mod record;
mod texture;
mod timing;
mod trust;

pub use adapter::{
    AdapterSummary, Caps, Choices, DeviceClass, Feature, NO_ADAPTER_HINT, SubgroupSizes, TextureLoads, list_adapters,
};
pub use buffer::{Buffer, PendingRead, Usage};
pub use device::{Gpu, GpuOptions};
pub use fault::Fault;
pub use kernel::{
    Constant, Field, Kernel, Library, Load, ReadFrom, Scalar, Source, Uniform, UniformBlock, uniform_block,
};
pub use limits::{Limit, Limits};
pub use pipeline::Pipeline;
pub use record::{Access, Binding, Dispatch, Operand, Reading, Recorded, Texel, Texture, Work, grid, grid_for};
pub use texture::{TextureSizes, Textures, load_probes};
pub use timing::KernelTime;
pub use trust::SelfTest;
