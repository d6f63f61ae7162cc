//! Max pooling: `x: [N, H, W, C]` to `y: [N, P, Q, C]` with `P = (H + top + bottom - R) / stride + 1`, rounded down,
//! and `Q` likewise: `y[n, p, q, c] = max over r < R, s < S of x[n, p * stride + r - top, q * stride + s - left, c]`.
//! Padding is minus infinity, so it is never the maximum.
//!
//! Backward: `d_y` goes to the place of the maximum, the first in row-major order where several are equal; places that
//! several windows chose add up.
//!
//! Kernels (`max_pool.wgsl`): `forward_argmax` also saves where each maximum was, as the offset `r * S + s`;
//! `forward`, without that, runs where no gradient is needed. `grad_x` is gathered: each pixel asks the windows that
//! cover it, so no two invocations write the same place and the order of addition is fixed.
//!
//! Numerics: exact forward. A NaN in the window is its maximum, as in PyTorch.
//!
//! The shape is compiled in as constants: integer division by a variable would cost more than everything else.

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::Result;
use crate::gpu::{Dispatch, Kernel, Operand, Source, Uniform, grid_for};
use crate::onnx;
use crate::ops::window::{WINDOW, Window};
use crate::ops::{WORKGROUP, float_shape, image_batch, reading};
use crate::tensor::TensorType;

static SOURCE: Source = crate::wgsl!("max_pool.wgsl", WINDOW);

/// The maximum over each window of each channel.
///
/// # Errors
/// [`Kind::Shape`](crate::Kind::Shape) if `x` is not a float image batch or the window does not fit it (see
/// [`Window::outputs`]).
pub fn max_pool(tape: &mut Tape, x: Tensor, window: Window) -> Result<Tensor> {
    let argmax = tape.requires_grad(x);
    tape.push1(MaxPool { window, argmax }, &[x])
}

#[derive(Debug)]
struct MaxPool {
    window: Window,
    /// Whether there is a second output: where each maximum was.
    argmax: bool,
}

impl Op for MaxPool {
    fn name(&self) -> &'static str {
        "max_pool"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [n, h, w, c] = image_batch(&inputs[0])?;
        let [p, q] = self.window.outputs(h, w)?;
        let y = inputs[0].with_shape([n, p, q, c]);
        float_shape(&y)?;
        let argmax = TensorType::u32(y.shape.clone());
        Ok(if self.argmax { vec![y, argmax] } else { vec![y] })
    }

    fn backward(&self, tape: &mut Tape, node: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None]) };
        let image = tape.ty(node.inputs[0]).clone();
        Ok(vec![Some(tape.push1(MaxPoolGrad { window: self.window, image }, &[d_y, node.outputs[1]])?)])
    }

    fn onnx(&self, graph: &mut onnx::Graph, inputs: &[onnx::Value]) -> Result<onnx::Value> {
        let x = graph.map(&inputs[0])?;
        let shape = self.infer(&[TensorType::f32(x.shape().clone())])?.remove(0).shape;
        let y = image_batch(&TensorType::f32(shape))?;
        Ok(graph.map_node("MaxPool", &[&x], &self.window.onnx(), y))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let image = image_batch(&cx.inputs[0])?;
        let count = cx.outputs[0].shape.len();
        let params = self.window.params(count, image, self.window.outputs(image[1], image[2])?);
        let entry = if self.argmax { "forward_argmax" } else { "forward" };
        let dispatch = Dispatch::new(
            Kernel::new(&SOURCE, entry).with_half(cx.inputs[0].is_half()),
            params.block(),
            grid_for(count, WORKGROUP),
        )
        .specialised()
        .load("x", Operand::Input(0), reading(&cx.inputs[0], false, cx.caps))
        .unread(&["d_y"], false);
        let dispatch = (0..cx.outputs.len()).fold(dispatch, Dispatch::output);
        let area = self.window.size[0] * self.window.size[1];
        let moved = cx.inputs[0].bytes() + cx.outputs.iter().map(TensorType::bytes).sum::<u64>();
        Ok(Lowered::one(dispatch.work(count as u64 * area as u64, moved)))
    }
}

/// Inputs: `d_y`, `argmax`; output of type `image`.
#[derive(Debug)]
struct MaxPoolGrad {
    window: Window,
    image: TensorType,
}

impl Op for MaxPoolGrad {
    fn name(&self) -> &'static str {
        "max_pool.grad_x"
    }

    fn infer(&self, _: &[TensorType]) -> Result<Vec<TensorType>> {
        Ok(vec![self.image.clone()])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let image = image_batch(&self.image)?;
        let count = self.image.shape.len();
        let params = self.window.params(count, image, self.window.outputs(image[1], image[2])?);
        let dispatch = Dispatch::new(
            Kernel::new(&SOURCE, "grad_x").with_half(cx.inputs[0].is_half()),
            params.block(),
            grid_for(count, WORKGROUP),
        )
        .specialised()
        .load("d_y", Operand::Input(0), reading(&cx.inputs[0], false, cx.caps))
        .unread(&["x"], false);
        let moved = cx.inputs.iter().map(TensorType::bytes).sum::<u64>() + self.image.bytes();
        Ok(Lowered::one(dispatch.input(1).output(0).work(cx.inputs[0].shape.len() as u64, moved)))
    }
}
