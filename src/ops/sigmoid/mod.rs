//! Sigmoid: `y = 1 / (1 + exp(-x))`, any shape.
//!
//! Backward: `d_x = d_y * y * (1 - y)`. It reads the output, so that the input need not be kept.
//!
//! Kernels (`sigmoid.wgsl`): `forward` and `grad_x`, four elements at a time.
//!
//! Numerics: with `e = exp(-|x|) <= 1` the result is `1 / (1 + e)` or `e / (1 + e)`, so nothing overflows and small
//! results keep their relative precision. The gradient is precise relative to its largest value, 1/4, only: `1 - y`
//! loses digits as `y` approaches 1, and for x > 17 it is 0 in f32.

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::Result;
use crate::gpu::{Dispatch, Kernel, Source, Uniform, uniform_block};
use crate::onnx;
use crate::ops::{fours, moved, same_shape};
use crate::tensor::TensorType;

static SOURCE: Source = crate::wgsl!("sigmoid.wgsl", crate::ops::FOURS);

uniform_block! {
    /// Mirrors `Params` of `sigmoid.wgsl`.
    struct Params { fours: u32 }
}

/// `1 / (1 + exp(-x))`.
///
/// # Errors
/// [`Kind::Shape`](crate::Kind::Shape) if `x` is not a float tensor.
pub fn sigmoid(tape: &mut Tape, x: Tensor) -> Result<Tensor> {
    tape.push1(Sigmoid, &[x])
}

#[derive(Debug)]
struct Sigmoid;

impl Op for Sigmoid {
    fn name(&self) -> &'static str {
        "sigmoid"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        same_shape(&inputs[..1])
    }

    fn backward(&self, tape: &mut Tape, node: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None]) };
        Ok(vec![Some(tape.push1(SigmoidGrad, &[node.outputs[0], d_y])?)])
    }

    fn onnx(&self, graph: &mut onnx::Graph, inputs: &[onnx::Value]) -> Result<onnx::Value> {
        Ok(graph.node_like("Sigmoid", &[&inputs[0]], &[], &inputs[0]))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let count = cx.outputs[0].shape.len();
        let (fours, grid) = fours(count);
        let params = Params { fours };
        let dispatch =
            Dispatch::new(Kernel::new(&SOURCE, "forward").with_half(cx.inputs[0].is_half()), params.block(), grid);
        Ok(Lowered::one(dispatch.input(0).output(0).work(4 * count as u64, moved(cx))))
    }
}

/// Inputs: `y`, `d_y`.
#[derive(Debug)]
struct SigmoidGrad;

impl Op for SigmoidGrad {
    fn name(&self) -> &'static str {
        "sigmoid.grad_x"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        same_shape(inputs)
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let count = cx.outputs[0].shape.len();
        let (fours, grid) = fours(count);
        let params = Params { fours };
        let dispatch =
            Dispatch::new(Kernel::new(&SOURCE, "grad_x").with_half(cx.inputs[0].is_half()), params.block(), grid);
        Ok(Lowered::one(dispatch.input(0).input(1).output(0).work(3 * count as u64, moved(cx))))
    }
}
