//! ReLU: `y = max(x, 0)`, any shape.
//!
//! Backward: `d_x = d_y` where `y > 0`, else 0. It reads the output, so that the input need not be kept. At exactly
//! zero the gradient is 0. NaN stays NaN in the forward pass.
//!
//! Kernels (`relu.wgsl`): `forward` and `grad_x`, one invocation an element; exact.
//!
//! Paper: V. Nair, G. Hinton, "Rectified linear units improve restricted Boltzmann machines", ICML 2010.

mod cases;
mod reference;

pub use cases::cases;

use crate::autograd::{Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::Result;
use crate::gpu::{Dispatch, Kernel, Source, Uniform, grid_for, uniform_block};
use crate::ops::{WORKGROUP, moved, same_shape};
use crate::tensor::TensorType;

static SOURCE: Source = crate::wgsl!("relu.wgsl");

uniform_block! {
    /// Mirrors `Params` of `relu.wgsl`.
    struct Params { count: u32 }
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

    fn backward(&self, tape: &mut Tape, node: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None]) };
        Ok(vec![Some(tape.push1(ReluGrad, &[node.outputs[0], d_y])?)])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let count = cx.outputs[0].shape.len();
        let params = Params { count: count as u32 };
        let dispatch = Dispatch::new(
            Kernel::new(&SOURCE, "forward").with_half(cx.inputs[0].is_half()),
            params.block(),
            grid_for(count, WORKGROUP),
        );
        Ok(Lowered::one(dispatch.input(0).output(0).work(count as u64, moved(cx))))
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

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let count = cx.outputs[0].shape.len();
        let params = Params { count: count as u32 };
        let dispatch = Dispatch::new(
            Kernel::new(&SOURCE, "grad_x").with_half(cx.inputs[0].is_half()),
            params.block(),
            grid_for(count, WORKGROUP),
        );
        Ok(Lowered::one(dispatch.input(0).input(1).output(0).work(count as u64, moved(cx))))
    }
}
