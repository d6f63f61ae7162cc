//! Channel-wise scaling, the last step of squeeze-and-excitation: `x: [N, H, W, C]`, `s: [N, C]`,
//! `y[n, h, w, c] = x[n, h, w, c] * s[n, c]`.
//!
//! Backward: `d_x = d_y * s` (the op itself), `d_s[n, c] = sum over h, w of d_y * x`.
//!
//! Kernels (`channel_mul.wgsl`): `forward`, one invocation an element. `grad_s`, one invocation a channel and a run of
//! pixels, so that neighbouring invocations read neighbouring channels; images of more than one run need a second
//! launch, which adds the runs' sums with the kernel of [`global_avg_pool`](crate::ops::global_avg_pool).
//!
//! Numerics: the order of summation is fixed by the shape alone.
//!
//! Paper: J. Hu, L. Shen, G. Sun, "Squeeze-and-excitation networks", CVPR 2018, equation 4.

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Access, Dispatch, Kernel, Operand, Source, Uniform, grid_for, uniform_block};
use crate::onnx;
use crate::ops::global_avg_pool::{runs, sum_pixels};
use crate::ops::{WORKGROUP, float_shape, image_batch, moved, same_shape};
use crate::tensor::TensorType;

static SOURCE: Source = crate::wgsl!("channel_mul.wgsl");

uniform_block! {
    /// Mirrors `Params` of `channel_mul.wgsl`.
    struct Params { count: u32, pixels: u32, channels: u32, run: u32, runs: u32 }
}

/// `x: [N, H, W, C]` with every channel of every image multiplied by its entry of `s: [N, C]`.
///
/// # Errors
/// [`Kind::Shape`] if the shapes do not go together.
pub fn channel_mul(tape: &mut Tape, x: Tensor, s: Tensor) -> Result<Tensor> {
    tape.push1(ChannelMul, &[x, s])
}

#[derive(Debug)]
struct ChannelMul;

impl Op for ChannelMul {
    fn name(&self) -> &'static str {
        "channel_mul"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [n, _, _, c] = image_batch(&inputs[0])?;
        if float_shape(&inputs[1])?.dims() != [n, c] || inputs[1].dtype != inputs[0].dtype {
            let message = format!("{} needs scales of shape {n}x{c}, not {}", inputs[0], inputs[1]);
            return Err(Error::new(Kind::Shape, message));
        }
        Ok(vec![inputs[0].clone()])
    }

    fn backward(&self, tape: &mut Tape, node: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None, None]) };
        let (x, s) = (node.inputs[0], node.inputs[1]);
        let d_x = if node.wanted[0] { Some(channel_mul(tape, d_y, s)?) } else { None };
        let d_s = if node.wanted[1] { Some(tape.push1(ChannelMulGradS, &[d_y, x])?) } else { None };
        Ok(vec![d_x, d_s])
    }

    fn onnx(&self, graph: &mut onnx::Graph, inputs: &[onnx::Value]) -> Result<onnx::Value> {
        let x = graph.map(&inputs[0])?;
        let [n, _, _, c] = image_batch(&TensorType::f32(x.shape().clone()))?;
        let s = graph.map(&inputs[1].view([n, 1, 1, c]))?;
        Ok(graph.node_like("Mul", &[&x, &s], &[], &x))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let [n, h, w, c] = image_batch(&cx.inputs[0])?;
        let count = n * h * w * c;
        let params =
            Params { count: count as u32, pixels: (h * w) as u32, channels: c as u32, run: (h * w) as u32, runs: 1 };
        let half = cx.inputs[0].is_half();
        let kernel = Kernel::new(&SOURCE, "forward").with_half(half).with_element("D", half);
        let dispatch = Dispatch::new(kernel, params.block(), grid_for(count, WORKGROUP));
        Ok(Lowered::one(dispatch.input(0).input(1).output(0).work(count as u64, moved(cx))))
    }
}

/// Inputs: `d_y`, `x`.
#[derive(Debug)]
struct ChannelMulGradS;

impl Op for ChannelMulGradS {
    fn name(&self) -> &'static str {
        "channel_mul.grad_s"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [n, _, _, c] = image_batch(&inputs[0])?;
        same_shape(&inputs[..2])?;
        Ok(vec![inputs[0].with_shape([n, c])])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let [n, h, w, c] = image_batch(&cx.inputs[0])?;
        let (run, runs) = runs(h * w);
        let (read, count) = (n * h * w * c, n * runs * c);
        let params = Params {
            count: count as u32,
            pixels: (h * w) as u32,
            channels: c as u32,
            run: run as u32,
            runs: runs as u32,
        };
        let half = cx.inputs[0].is_half();
        let kernel = Kernel::new(&SOURCE, "grad_s").with_half(half).with_element("D", half && runs == 1);
        let products = Dispatch::new(kernel, params.block(), grid_for(count, WORKGROUP))
            .input(0)
            .input(1)
            .work(2 * read as u64, moved(cx));
        if runs == 1 {
            return Ok(Lowered::one(products.output(0)));
        }
        let partial = Operand::Scratch(0);
        Ok(Lowered {
            scratch: vec![TensorType::f32([n, runs, c])],
            dispatches: vec![
                products.bind(partial, Access::ReadWrite),
                sum_pixels([n, runs, c], runs, 1.0, [false, half]).bind(partial, Access::Read).output(0),
            ],
        })
    }
}
