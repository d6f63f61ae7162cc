//! Average pooling: `x: [N, H, W, C]` to `y: [N, P, Q, C]` with `P = (H + top + bottom - R) / stride + 1`, rounded
//! down, and `Q` likewise: `y[n, p, q, c] = sum over r < R, s < S of x[n, p * stride + r - top, q * stride + s - left,
//! c] / d(p, q)`. Padding counts as zeros: with `count_include_pad` the divisor `d` is always `R * S`, without it is
//! the number of pixels of the image under the window.
//!
//! Backward: `d_x[n, h, w, c] = sum of d_y[n, p, q, c] / d(p, q)` over the windows that cover the pixel.
//!
//! Kernels (`avg_pool.wgsl`): `forward`, one invocation an output; `grad_x`, one invocation a pixel, which gathers
//! from the windows that cover it in a fixed order. The divisor rule is a compile-time constant.

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::Result;
use crate::gpu::{Dispatch, Kernel, Source, Uniform, grid_for};
use crate::onnx;
use crate::ops::window::{WINDOW, Window};
use crate::ops::{WORKGROUP, float_shape, image_batch};
use crate::tensor::TensorType;

static SOURCE: Source = crate::wgsl!("avg_pool.wgsl", WINDOW);

/// The mean over each window of each channel.
///
/// # Errors
/// [`Kind::Shape`](crate::Kind::Shape) if `x` is not a float image batch or the window does not fit it (see
/// [`Window::outputs`]).
pub fn avg_pool(tape: &mut Tape, x: Tensor, window: Window, count_include_pad: bool) -> Result<Tensor> {
    tape.push1(AvgPool { window, count_include_pad }, &[x])
}

fn launch(
    entry: &'static str,
    window: &Window,
    count_include_pad: bool,
    image: &TensorType,
    y: &TensorType,
    count: usize,
) -> Result<Dispatch> {
    let image_shape = image_batch(image)?;
    let params = window.params(count, image_shape, window.outputs(image_shape[1], image_shape[2])?);
    let kernel = Kernel::new(&SOURCE, entry).with_half(y.is_half()).with_bool("COUNT_INCLUDE_PAD", count_include_pad);
    let area = window.size[0] as u64 * window.size[1] as u64;
    Ok(Dispatch::new(kernel, params.block(), grid_for(count, WORKGROUP))
        .specialised()
        .input(0)
        .output(0)
        .work(y.shape.len() as u64 * area, image.bytes() + y.bytes()))
}

#[derive(Debug)]
struct AvgPool {
    window: Window,
    count_include_pad: bool,
}

impl Op for AvgPool {
    fn name(&self) -> &'static str {
        "avg_pool"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [n, h, w, c] = image_batch(&inputs[0])?;
        let [p, q] = self.window.outputs(h, w)?;
        let y = inputs[0].with_shape([n, p, q, c]);
        float_shape(&y)?;
        Ok(vec![y])
    }

    fn backward(&self, tape: &mut Tape, node: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None]) };
        let image = tape.ty(node.inputs[0]).clone();
        let op = AvgPoolGrad { window: self.window, count_include_pad: self.count_include_pad, image };
        Ok(vec![Some(tape.push1(op, &[d_y])?)])
    }

    fn onnx(&self, graph: &mut onnx::Graph, inputs: &[onnx::Value]) -> Result<onnx::Value> {
        let x = graph.map(&inputs[0])?;
        let shape = self.infer(&[TensorType::f32(x.shape().clone())])?.remove(0).shape;
        let y = image_batch(&TensorType::f32(shape))?;
        let counts = onnx::Attribute::Int("count_include_pad", self.count_include_pad.into());
        let attributes = [self.window.onnx().as_slice(), &[counts]].concat();
        Ok(graph.map_node("AveragePool", &[&x], &attributes, y))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let (x, y) = (&cx.inputs[0], &cx.outputs[0]);
        Ok(Lowered::one(launch("forward", &self.window, self.count_include_pad, x, y, y.shape.len())?))
    }
}

/// Input: `d_y`; output of type `image`.
#[derive(Debug)]
struct AvgPoolGrad {
    window: Window,
    count_include_pad: bool,
    image: TensorType,
}

impl Op for AvgPoolGrad {
    fn name(&self) -> &'static str {
        "avg_pool.grad_x"
    }

    fn infer(&self, _: &[TensorType]) -> Result<Vec<TensorType>> {
        Ok(vec![self.image.clone()])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let (d_y, d_x) = (&cx.inputs[0], &cx.outputs[0]);
        Ok(Lowered::one(launch("grad_x", &self.window, self.count_include_pad, d_x, d_y, d_x.shape.len())?))
    }
}
