//! What a device can do, and what a model's step gets out of it: `lesion-gpu bench`.
//!
//! - `probes`: the device's own ceilings, measured by kernels that do nothing else
//! - `gemm`: the product of two square matrices
//! - `model`: a training step or an inference, timed as a whole and kernel by kernel
//! - `ranks`, `simulate`: a step that several ranks share; what it would be on other networks
//! - `report`: the numbers put together, as text and as JSON

mod gemm;
mod model;
mod probes;
mod ranks;
mod report;
mod simulate;

pub use gemm::{GemmBench, GemmTiming};
pub use model::{ModelBench, ModelTiming, Task};
pub use probes::{AluProbe, Ceilings, CopyProbe, MatrixProbe, probe_dispatches};
pub use ranks::{RanksBench, RanksReport};
pub use report::{GemmReport, KernelRow, Report, commit};
pub use simulate::{Network, Own, Prediction, simulate};
