//! ONNX: the format in which other programs take a network. A graph is built here node by node; what an op is in ONNX, the
//! op itself says (`Op::onnx`).
//!
//! Our maps are `[N, H, W, C]`, ONNX's operators want `[N, C, H, W]`. So a [`Value`] knows its shape on the tape, and how
//! the tensor behind it lies in the ONNX graph; [`Graph::map`] and [`Graph::rows`] give it the one way or the other and
//! insert a transposition only where it lies otherwise. A view costs nothing until somebody needs its shape.
//!
//! Source: the ONNX specification, `docs/Operators.md` and `docs/IR.md` of github.com/onnx/onnx.

mod graph;
pub mod proto;

pub use graph::{Attribute, Batch, Graph, OPSETS, Value};
