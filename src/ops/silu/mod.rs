//! SiLU, also called swish: `y = x sigmoid(x)`, any shape.
//!
//! Backward: `d_x = d_y (s + x s (1 - s))` with `s = sigmoid(x)`.
//!
//! Kernels (`silu.wgsl`): `forward` and `grad_x`, four elements at a time.
//!
//! Numerics: the sigmoids of x and of -x are taken from `exp(-|x|)`, so nothing overflows and `1 - s` does not cancel.
//!
//! Paper: S. Elfwing, E. Uchibe, K. Doya, "Sigmoid-weighted linear units for neural network function approximation in
//! reinforcement learning", Neural Networks 107, 2018; P. Ramachandran, B. Zoph, Q. Le, "Searching for activation
//! functions", 2017.

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::Result;
use crate::gpu::{Dispatch, Kernel, Source, Uniform, uniform_block};
use crate::onnx;
use crate::ops::{fours, moved, same_shape};
use crate::tensor::TensorType;

static SOURCE: Source = crate::wgsl!("silu.wgsl", crate::ops::FOURS);

uniform_block! {
    /// Mirrors `Params` of `silu.wgsl`.
    struct Params { fours: u32 }
}

/// `x sigmoid(x)`.
///
/// # Errors
/// [`Kind::Shape`](crate::Kind::Shape) if `x` is not a float tensor.
pub fn silu(tape: &mut Tape, x: Tensor) -> Result<Tensor> {
    tape.push1(Silu, &[x])
}

fn launch(entry: &'static str, cx: &Lower<'_>) -> Dispatch {
    let count = cx.outputs[0].shape.len();
    let (fours, grid) = fours(count);
    let kernel = Kernel::new(&SOURCE, entry).with_half(cx.inputs[0].is_half());
    Dispatch::new(kernel, Params { fours }.block(), grid).input(0).work(6 * count as u64, moved(cx))
}

#[derive(Debug)]
struct Silu;

impl Op for Silu {
    fn name(&self) -> &'static str {
        "silu"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        same_shape(&inputs[..1])
    }

    fn backward(&self, tape: &mut Tape, node: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None]) };
        Ok(vec![Some(tape.push1(SiluGrad, &[node.inputs[0], d_y])?)])
    }

    fn onnx(&self, graph: &mut onnx::Graph, inputs: &[onnx::Value]) -> Result<onnx::Value> {
        let x = &inputs[0];
        let gate = graph.node_like("Sigmoid", &[x], &[], x);
        Ok(graph.node_like("Mul", &[x, &gate], &[], x))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        Ok(Lowered::one(launch("forward", cx).output(0)))
    }
}

/// Inputs: `x`, `d_y`.
#[derive(Debug)]
struct SiluGrad;

impl Op for SiluGrad {
    fn name(&self) -> &'static str {
        "silu.grad_x"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        same_shape(inputs)
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        Ok(Lowered::one(launch("grad_x", cx).input(1).output(0)))
    }
}
