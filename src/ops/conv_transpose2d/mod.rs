//! Transposed 2-D convolution, NHWC, as PyTorch's `ConvTranspose2d`: every pixel of x adds its multiple of the kernel to
//! the result. `y[n, i*sh + r*dh - top, j*sw + s*dw - left, k] += x[n, i, j, c] * w[r, s, k, c]`, plus `b[k]`. Shapes: x
//! `[N, H, W, C]`, weight `[R, S, K, C]`, bias `[K]`, y `[N, P, Q, K]` with
//! `P = (H - 1) * sh - top - bottom + dh * (R - 1) + output_padding + 1`, likewise Q.
//!
//! Padding takes rows and columns away from the result; `output_padding` adds some at the bottom and at the right, where
//! the shape of the convolution that this one turns around is ambiguous. A kernel of 3 with stride 2 that doubles
//! extents is `padding` 1 with `output_padding` 1 in PyTorch, and bottom and right padding 1 alone in Keras ("same").
//!
//! It is the data gradient of a convolution with the same weight from y to x, and its gradients are that convolution
//! and its weight gradient: `d_x = conv2d(d_y, w)`, `d_w[r, s, k, c] = sum of d_y * x`. So all kernels are those of
//! [`conv2d`](crate::ops::conv2d), with their choice and tuning; the bias is added by [`add_rows`](mod@crate::ops::add_rows).
//!
//! A file holds the weight as `[C, K, R, S]`, which is that convolution's layout.
//!
//! Paper: V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning", 2016, chapter 4.

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Candidates, Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::onnx::{self, Attribute};
use crate::ops::add_rows::add_rows;
use crate::ops::conv2d::{Backend, Conv2d, Geometry, GradInput, GradWeight, Padding, conv2d};
use crate::ops::{float_shape, image_batch};
use crate::tensor::TensorType;

/// How a transposed convolution moves over its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConvTranspose2d {
    /// Step along H and W.
    pub stride: [usize; 2],
    /// What is taken away from the result.
    pub padding: Padding,
    /// Rows and columns added at the end of the result; fewer than the stride.
    pub output_padding: [usize; 2],
    /// Distance between taps along H and W.
    pub dilation: [usize; 2],
    /// Which kernels to use.
    pub backend: Backend,
}

impl Default for ConvTranspose2d {
    /// Stride 1, no padding, no dilation, kernels chosen for the device.
    fn default() -> Self {
        Self {
            stride: [1, 1],
            padding: Padding::default(),
            output_padding: [0, 0],
            dilation: [1, 1],
            backend: Backend::Auto,
        }
    }
}

impl ConvTranspose2d {
    /// The convolution from y to x.
    fn conv(&self) -> Conv2d {
        Conv2d { stride: self.stride, padding: self.padding, dilation: self.dilation, groups: 1, backend: self.backend }
    }

    /// The type of y, and the convolution from y to x.
    fn geometry(&self, x: &TensorType, weight: &TensorType) -> Result<(TensorType, Geometry)> {
        let fail = |why: String| Error::new(Kind::Shape, why);
        float_shape(x)?;
        float_shape(weight)?;
        let (Some([n, h, w, c]), Some([r, s, k, weight_c])) = (x.shape.nhwc(), weight.shape.nhwc()) else {
            return Err(fail("a transposed convolution takes x as [N, H, W, C], the weight as [R, S, K, C]".into()));
        };
        if c != weight_c {
            return Err(fail(format!("{c} channels do not go with weight {}", weight.shape)));
        }
        let Padding { top, bottom, left, right } = self.padding;
        let axis = |axis: usize, size: usize, kernel: usize, trimmed: [usize; 2]| {
            let (stride, more) = (self.stride[axis], self.output_padding[axis]);
            if stride == 0 || self.dilation[axis] == 0 || more >= stride {
                return Err(fail(format!("an output padding of {more} must be smaller than the stride {stride}")));
            }
            let full = (size - 1).checked_mul(stride).zip((kernel - 1).checked_mul(self.dilation[axis]));
            let full = full.and_then(|(a, b)| a.checked_add(b)?.checked_add(more + 1));
            let trimmed = trimmed[0].saturating_add(trimmed[1]);
            match full.and_then(|full| full.checked_sub(trimmed)) {
                Some(extent) if extent > 0 => Ok(extent),
                _ => Err(fail(format!("a padding of {trimmed} leaves nothing of the result, or it is too large"))),
            }
        };
        let y = x.with_shape([n, axis(0, h, r, [top, bottom])?, axis(1, w, s, [left, right])?, k]);
        float_shape(&y)?;
        let geometry = Geometry::of(self.conv(), &y, weight)?;
        Ok((y, geometry))
    }
}

/// Transposed convolution of x `[N, H, W, C]` with weight `[R, S, K, C]` and an optional bias `[K]`.
///
/// # Errors
/// [`Kind::Shape`] if the extents do not go together.
pub fn conv_transpose2d(
    tape: &mut Tape,
    x: Tensor,
    weight: Tensor,
    bias: Option<Tensor>,
    spec: ConvTranspose2d,
) -> Result<Tensor> {
    let y = tape.push1(Forward { spec }, &[x, weight])?;
    match bias {
        Some(bias) if tape.shape(bias).rank() == 1 => add_rows(tape, y, bias),
        Some(bias) => {
            let message = format!("a bias of {} does not go with {}", tape.ty(bias), tape.ty(y));
            Err(Error::new(Kind::Shape, message).at(tape.scope()))
        }
        None => Ok(y),
    }
}

/// Inputs: x and the weight.
#[derive(Debug)]
struct Forward {
    spec: ConvTranspose2d,
}

impl Forward {
    /// As the gradient that it is.
    fn gradient(&self, cx: &Lower<'_>) -> Result<GradInput> {
        let (_, geometry) = self.spec.geometry(&cx.inputs[0], &cx.inputs[1])?;
        Ok(GradInput { geometry })
    }
}

impl Op for Forward {
    fn name(&self) -> &'static str {
        "conv_transpose2d"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        Ok(vec![self.spec.geometry(&inputs[0], &inputs[1])?.0])
    }

    fn backward(&self, tape: &mut Tape, node: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None; 2]) };
        let (x, weight) = (node.inputs[0], node.inputs[1]);
        let (_, geometry) = self.spec.geometry(tape.ty(x), tape.ty(weight))?;
        let conv = self.spec.conv();
        let d_x = if node.wanted[0] { Some(conv2d(tape, d_y, weight, None, conv)?) } else { None };
        let d_weight = if node.wanted[1] { Some(tape.push1(GradWeight { geometry }, &[d_y, x])?) } else { None };
        Ok(vec![d_x, d_weight])
    }

    fn onnx(&self, graph: &mut onnx::Graph, inputs: &[onnx::Value]) -> Result<onnx::Value> {
        let (x, weight) = (&inputs[0], &inputs[1]);
        let types = [x, weight].map(|v| TensorType::f32(v.shape().clone()));
        let (y, _) = self.spec.geometry(&types[0], &types[1])?;
        let (y, [r, s, k, c]) = (image_batch(&y)?, image_batch(&types[1])?);
        let x = graph.map(x)?;
        let weight = graph.laid_out(weight, &[3, 2, 0, 1], &[c, k, r, s])?;
        let attributes = [
            Attribute::extents("kernel_shape", &[r, s]),
            Attribute::extents("strides", &self.spec.stride),
            Attribute::extents("dilations", &self.spec.dilation),
            Attribute::extents("output_padding", &self.spec.output_padding),
            self.spec.padding.onnx(),
        ];
        Ok(graph.map_node("ConvTranspose", &[&x, &weight], &attributes, y))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        self.gradient(cx)?.lower(cx)
    }

    fn macs(&self, inputs: &[TensorType]) -> u64 {
        self.spec.geometry(&inputs[0], &inputs[1]).map_or(0, |(_, geometry)| geometry.macs())
    }

    fn candidates(&self, cx: &Lower<'_>) -> Option<Candidates> {
        self.gradient(cx).ok()?.candidates(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_are_those_of_the_formula_and_what_does_not_fit_is_refused() {
        let mut tape = Tape::new();
        let x = tape.input("x", TensorType::f32([1, 4, 5, 3]));
        let w = tape.input("w", TensorType::f32([3, 2, 7, 3]));
        let spec = ConvTranspose2d { stride: [2, 3], output_padding: [1, 2], ..ConvTranspose2d::default() };
        let y = conv_transpose2d(&mut tape, x, w, None, spec).unwrap();
        assert_eq!(tape.shape(y).dims(), [1, 10, 16, 7]);
        for bad in [
            ConvTranspose2d { output_padding: [2, 0], ..spec },
            ConvTranspose2d { stride: [0, 1], output_padding: [0, 0], ..spec },
            ConvTranspose2d { padding: Padding::all(9), ..spec },
            ConvTranspose2d { stride: [usize::MAX, 1], output_padding: [0, 0], ..spec },
        ] {
            let e = conv_transpose2d(&mut tape, x, w, None, bad).unwrap_err();
            assert_eq!(e.kind(), Kind::Shape, "{bad:?}");
        }
        let bias = tape.input("bias", TensorType::f32([5]));
        assert_eq!(conv_transpose2d(&mut tape, x, w, Some(bias), spec).unwrap_err().kind(), Kind::Shape);
    }
}
