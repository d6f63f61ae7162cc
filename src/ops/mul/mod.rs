//! Multiply: `y = a * b`, two tensors of the same shape. Backward: `d_a = d_y * b`, `d_b = d_y * a`.

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::Result;
use crate::gpu::{Dispatch, Kernel, Source, Uniform, uniform_block};
use crate::onnx;
use crate::ops::{fours, moved, same_shape};
use crate::tensor::TensorType;

static SOURCE: Source = crate::wgsl!("mul.wgsl", crate::ops::FOURS);

uniform_block! {
    /// Mirrors `Params` of `mul.wgsl`.
    struct Params { fours: u32 }
}

/// `a * b`, element by element.
///
/// # Errors
/// [`Kind::Shape`](crate::Kind::Shape) if the shapes differ.
pub fn mul(tape: &mut Tape, a: Tensor, b: Tensor) -> Result<Tensor> {
    tape.push1(Mul, &[a, b])
}

#[derive(Debug)]
struct Mul;

impl Op for Mul {
    fn name(&self) -> &'static str {
        "mul"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        same_shape(inputs)
    }

    fn backward(&self, tape: &mut Tape, node: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None, None]) };
        let d_a = if node.wanted[0] { Some(mul(tape, d_y, node.inputs[1])?) } else { None };
        let d_b = if node.wanted[1] { Some(mul(tape, d_y, node.inputs[0])?) } else { None };
        Ok(vec![d_a, d_b])
    }

    fn onnx(&self, graph: &mut onnx::Graph, inputs: &[onnx::Value]) -> Result<onnx::Value> {
        let (both, _) = graph.alike(inputs)?;
        Ok(graph.node_like("Mul", &[&both[0], &both[1]], &[], &both[0]))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let count = cx.outputs[0].shape.len();
        let (fours, grid) = fours(count);
        let params = Params { fours };
        let dispatch =
            Dispatch::new(Kernel::new(&SOURCE, "forward").with_half(cx.inputs[0].is_half()), params.block(), grid);
        Ok(Lowered::one(dispatch.input(0).input(1).output(0).work(count as u64, moved(cx))))
    }
}
