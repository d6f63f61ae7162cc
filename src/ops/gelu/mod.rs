//! GELU: `y = x Phi(x)`, any shape, where Phi is the standard normal distribution's, `(1 + erf(x / sqrt(2))) / 2`. With
//! [`Gelu::Tanh`] Phi is `(1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2`. As PyTorch's `GELU(approximate)`.
//!
//! Backward: `d_x = d_y (Phi(x) + x Phi'(x))`; the exact Phi' is the density `exp(-x^2 / 2) / sqrt(2 pi)`.
//!
//! Kernels (`gelu.wgsl`): `forward` and `grad_x`, four elements at a time.
//!
//! Numerics: WGSL has no erf. For |x| < 1.5 Phi is `1/2 + x P(x^2)` with P of degree 7, beyond that it is
//! `exp(-x^2 / 2) t Q(t)`, `t = 1 / (1 + 0.3 |x|)`, with Q of degree 6, or one minus that. The coefficients are
//! least-squares fits in Chebyshev polynomials to values of 40 digits. In f32 Phi is off by at most 9e-8, and for x down
//! to -5 by 7e-7 of its size, as far as the device's exp is exact.
//!
//! Paper: D. Hendrycks, K. Gimpel, "Gaussian error linear units", 2016.

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::Result;
use crate::gpu::{Dispatch, Kernel, Source, Uniform, uniform_block};
use crate::onnx;
use crate::ops::{fours, moved, same_shape};
use crate::tensor::{HostTensor, TensorType};

static SOURCE: Source = crate::wgsl!("gelu.wgsl", crate::ops::FOURS);

uniform_block! {
    /// Mirrors `Params` of `gelu.wgsl`.
    struct Params { fours: u32 }
}

/// Which Phi.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Gelu {
    /// The normal distribution's.
    #[default]
    Exact,
    /// Its approximation by a hyperbolic tangent.
    Tanh,
}

/// `x Phi(x)`.
///
/// # Errors
/// [`Kind::Shape`](crate::Kind::Shape) if `x` is not a float tensor.
pub fn gelu(tape: &mut Tape, x: Tensor, kind: Gelu) -> Result<Tensor> {
    tape.push1(Forward { kind }, &[x])
}

fn launch(entry: &'static str, kind: Gelu, cx: &Lower<'_>) -> Dispatch {
    let count = cx.outputs[0].shape.len();
    let (fours, grid) = fours(count);
    let kernel = Kernel::new(&SOURCE, entry).with_half(cx.inputs[0].is_half()).with_bool("TANH", kind == Gelu::Tanh);
    Dispatch::new(kernel, Params { fours }.block(), grid).input(0).work(30 * count as u64, moved(cx))
}

#[derive(Debug)]
struct Forward {
    kind: Gelu,
}

impl Op for Forward {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        same_shape(&inputs[..1])
    }

    fn backward(&self, tape: &mut Tape, node: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None]) };
        Ok(vec![Some(tape.push1(GeluGrad { kind: self.kind }, &[node.inputs[0], d_y])?)])
    }

    /// By its formula: the operator `Gelu` is younger than the operator sets we write.
    fn onnx(&self, graph: &mut onnx::Graph, inputs: &[onnx::Value]) -> Result<onnx::Value> {
        let x = &inputs[0];
        let scalar = |graph: &mut onnx::Graph, v: f64| graph.constant("factor", &HostTensor::full([1], v as f32));
        let (half, one) = (scalar(graph, 0.5), scalar(graph, 1.0));
        let bent = match self.kind {
            Gelu::Exact => {
                let factor = scalar(graph, std::f64::consts::FRAC_1_SQRT_2);
                let t = graph.node_like("Mul", &[x, &factor], &[], x);
                graph.node_like("Erf", &[&t], &[], x)
            }
            Gelu::Tanh => {
                let (a, b) = (scalar(graph, 0.044715), scalar(graph, (2.0 / std::f64::consts::PI).sqrt()));
                let square = graph.node_like("Mul", &[x, x], &[], x);
                let t = graph.node_like("Mul", &[&square, &a], &[], x);
                let t = graph.node_like("Add", &[&t, &one], &[], x);
                let t = graph.node_like("Mul", &[x, &t], &[], x);
                let t = graph.node_like("Mul", &[&t, &b], &[], x);
                graph.node_like("Tanh", &[&t], &[], x)
            }
        };
        let phi = graph.node_like("Add", &[&bent, &one], &[], x);
        let y = graph.node_like("Mul", &[x, &phi], &[], x);
        Ok(graph.node_like("Mul", &[&y, &half], &[], x))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        Ok(Lowered::one(launch("forward", self.kind, cx).output(0)))
    }
}

/// Inputs: `x`, `d_y`.
#[derive(Debug)]
struct GeluGrad {
    kind: Gelu,
}

impl Op for GeluGrad {
    fn name(&self) -> &'static str {
        "gelu.grad_x"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        same_shape(inputs)
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        Ok(Lowered::one(launch("grad_x", self.kind, cx).input(1).output(0)))
    }
}
