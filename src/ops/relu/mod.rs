//! ReLU: `y = max(x, 0)`, any shape.
//!
//! Backward: `d_x = d_y` where `y > 0`, else 0. It reads the output, so that the input need not be kept. At exactly
//! zero the gradient is 0. NaN stays NaN in the forward pass.
//!
//! Kernels (`relu.wgsl`): `forward` and `grad_x`, four elements at a time; exact.
//!
//! Paper: V. Nair, G. Hinton, "Rectified linear units improve restricted Boltzmann machines", ICML 2010.

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Finish, Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::Result;
use crate::gpu::{Dispatch, Kernel, Source, Uniform, uniform_block};
use crate::onnx;
use crate::ops::{fours, load_inputs, moved, same_shape};
use crate::tensor::TensorType;

static SOURCE: Source = crate::wgsl!("relu.wgsl", crate::ops::FOURS);

uniform_block! {
    /// Mirrors `Params` of `relu.wgsl`.
    struct Params { fours: u32 }
}

/// `max(x, 0)`.
///
/// # Errors
/// [`Kind::Shape`](crate::Kind::Shape) if `x` is not a float tensor.
pub fn relu(tape: &mut Tape, x: Tensor) -> Result<Tensor> {
    tape.push1(Relu, &[x])
}

#[derive(Debug)]
struct Relu;

impl Op for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        same_shape(&inputs[..1])
    }

    fn finish(&self) -> Option<Finish> {
        Some(Finish::Relu)
    }

    fn backward(&self, tape: &mut Tape, node: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None]) };
        Ok(vec![Some(tape.push1(ReluGrad, &[node.outputs[0], d_y])?)])
    }

    fn onnx(&self, graph: &mut onnx::Graph, inputs: &[onnx::Value]) -> Result<onnx::Value> {
        Ok(graph.node_like("Relu", &[&inputs[0]], &[], &inputs[0]))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let count = cx.outputs[0].shape.len();
        let (fours, grid) = fours(count);
        let params = Params { fours };
        let dispatch =
            Dispatch::new(Kernel::new(&SOURCE, "forward").with_half(cx.inputs[0].is_half()), params.block(), grid);
        let dispatch = load_inputs(dispatch, &["x"], true, cx).unread(&["y_saved", "d_y"], true);
        Ok(Lowered::one(dispatch.output(0).work(count as u64, moved(cx))))
    }
}

/// Inputs: `y`, `d_y`.
#[derive(Debug)]
struct ReluGrad;

impl Op for ReluGrad {
    fn name(&self) -> &'static str {
        "relu.grad_x"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        same_shape(inputs)
    }

    fn is_relu_gradient(&self) -> bool {
        true
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let count = cx.outputs[0].shape.len();
        let (fours, grid) = fours(count);
        let params = Params { fours };
        let dispatch =
            Dispatch::new(Kernel::new(&SOURCE, "grad_x").with_half(cx.inputs[0].is_half()), params.block(), grid);
        let dispatch = load_inputs(dispatch, &["y_saved", "d_y"], true, cx);
        Ok(Lowered::one(dispatch.unread(&["x"], true).output(0).work(count as u64, moved(cx))))
    }
}
