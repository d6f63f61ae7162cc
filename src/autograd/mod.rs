//! The tape, backward as appended nodes, and the planner.
//!
//! A model is traced once into a [`Tape`]: a flat list of [`Node`]s. [`Tape::backward`] appends gradient nodes to
//! the same list. [`Plan`] removes dead nodes, fuses neighbours that one kernel can do, moves updates forward and assigns tensors to a few reusable buffers by
//! liveness; it is plain data and needs no device. [`Executable`] builds every pipeline and bind group and then only
//! re-encodes the same dispatches every step.
//!
//! Autograd knows no op by name: ops implement [`Op`] and bring their own shape rule, kernels and backward rule.

mod backward;
mod bundle;
mod exchange;
mod execute;
mod fuse;
mod group;
mod onnx;
mod plan;
mod tape;

pub use backward::{Arithmetic, Gradients};
pub use bundle::Arena;
pub use exchange::{Combine, Exchange, PlannedExchange};
pub use execute::{Early, Executable, KernelProfile, Meet, PendingOutputs, Store};
pub use group::{Group, PendingGroup};
pub use plan::{Memory, Plan, PlannedDispatch, Slot, Storage, Tunable};
pub use tape::{Candidates, Finish, Lower, Lowered, Node, NodeView, Op, Origin, Tape, Tensor, Variable};
