//! Resampling of images to another size: `x: [N, H, W, C]` to `y: [N, P, Q, C]`, larger or smaller. The semantics are
//! those of PyTorch's `interpolate(size=(P, Q))` without antialiasing. Along each axis a result `o` of `P` lies at
//!
//! - bilinear: `(o + 1/2) H / P - 1/2`, not before the first pixel; with `align_corners`: `o (H - 1) / (P - 1)`, 0 for a
//!   single result. It is the mean of the two pixels around, weighted by nearness; behind the last pixel, that pixel.
//! - nearest: the pixel `floor(o H / P)`.
//!
//! Backward: `d_x` gathers `d_y`, with the same weights, from the results that a pixel is part of: first along the
//! columns, then along the rows.
//!
//! Kernels (`upsample.wgsl`): `forward`, one invocation a result, or four channels of it where C is a multiple of four;
//! `grad_x`, the same along one axis, so that a pixel that feeds `f` by `f` results takes `4 f` loads and not `4 f^2`.
//!
//! Numerics: positions are fractions of whole numbers, so no rounding moves a result to another pixel, and the gradient
//! visits exactly the results that used a pixel. (PyTorch computes positions in f32, and its "nearest" is off by a pixel
//! where `o H / P` is whole but rounded down.)

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Access, Dispatch, Kernel, Operand, Source, Uniform, grid_for, uniform_block};
use crate::onnx::{self, Attribute};
use crate::ops::{WORKGROUP, float_shape, image_batch, lanes};
use crate::tensor::{HostTensor, Shape, TensorType};

static SOURCE: Source = crate::wgsl!("upsample.wgsl");

uniform_block! {
    /// Mirrors `Params` of `upsample.wgsl`.
    struct Params { count: u32, inner: u32, height: u32, width: u32, out_height: u32, out_width: u32 }
}

/// Largest extent of an image: positions are products of two extents and a small factor, in 32 bits.
const MAX_EXTENT: usize = 1 << 15;

/// How a result is made of the pixels around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Interpolation {
    /// One pixel.
    Nearest,
    /// Two pixels along each axis.
    Bilinear {
        /// Whether the centres of the corner pixels stay where they are; else the image's corners do.
        align_corners: bool,
    },
}

/// The images at `size`, rows by columns.
///
/// # Errors
/// [`Kind::Shape`] if `x` is not a float image batch, or for an extent of 0 or of more than 32767.
pub fn upsample(tape: &mut Tape, x: Tensor, size: [usize; 2], interpolation: Interpolation) -> Result<Tensor> {
    tape.push1(Upsample { size, interpolation }, &[x])
}

/// A kernel whose loads are f16 if `half[0]` and whose stores are if `half[1]`.
fn kernel(entry: &'static str, interpolation: Interpolation, four: bool, half: [bool; 2]) -> Kernel {
    let align = interpolation == Interpolation::Bilinear { align_corners: true };
    lanes(Kernel::new(&SOURCE, entry), four, half)
        .with_bool("NEAREST", interpolation == Interpolation::Nearest)
        .with_bool("ALIGN_CORNERS", align)
}

/// The factor that makes `to` of `from` pixels where the result is rounded down.
fn factor(from: usize, to: usize) -> f32 {
    let factor = to as f32 / from as f32;
    if ((factor * from as f32).floor() as usize) < to { factor.next_up() } else { factor }
}

#[derive(Debug)]
struct Upsample {
    size: [usize; 2],
    interpolation: Interpolation,
}

impl Op for Upsample {
    fn name(&self) -> &'static str {
        "upsample"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [n, h, w, c] = image_batch(&inputs[0])?;
        let [p, q] = self.size;
        if [h, w, p, q].iter().any(|e| !(1..MAX_EXTENT).contains(e)) {
            return Err(Error::new(Kind::Shape, format!("images of {h}x{w} cannot be resampled to {p}x{q}")));
        }
        let y = inputs[0].with_shape([n, p, q, c]);
        float_shape(&y)?;
        Ok(vec![y])
    }

    fn backward(&self, tape: &mut Tape, node: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None]) };
        let shape = tape.shape(node.inputs[0]).clone();
        Ok(vec![Some(tape.push1(UpsampleGrad { shape, interpolation: self.interpolation }, &[d_y])?)])
    }

    fn onnx(&self, graph: &mut onnx::Graph, inputs: &[onnx::Value]) -> Result<onnx::Value> {
        let x = graph.map(&inputs[0])?;
        let [n, h, w, c] = image_batch(&TensorType::f32(x.shape().clone()))?;
        let [p, q] = self.size;
        let (mode, position) = match self.interpolation {
            Interpolation::Nearest => ("nearest", "asymmetric"),
            Interpolation::Bilinear { align_corners: true } => ("linear", "align_corners"),
            Interpolation::Bilinear { align_corners: false } => ("linear", "half_pixel"),
        };
        let mut attributes = vec![
            Attribute::Text("mode", mode),
            Attribute::Text("coordinate_transformation_mode", position),
            Attribute::Text("nearest_mode", "floor"),
        ];
        let none = onnx::Value::none();
        // Sizes of some axes only came with operator set 18; factors for all there have always been.
        let size = if graph.opset() >= 18 {
            attributes.push(Attribute::Ints("axes", vec![2, 3]));
            [none.clone(), none, graph.integers("sizes", &[p as i64, q as i64])]
        } else {
            let factors = vec![1.0, 1.0, factor(h, p), factor(w, q)];
            [none.clone(), graph.constant("scales", &HostTensor::new([4], factors)), none]
        };
        let operands: Vec<_> = std::iter::once(&x).chain(&size).collect();
        Ok(graph.map_node("Resize", &operands, &attributes, [n, p, q, c]))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let (x, y) = (&cx.inputs[0], &cx.outputs[0]);
        let [_, h, w, c] = image_batch(x)?;
        let four = c.is_multiple_of(4);
        let vector = if four { 4 } else { 1 };
        let count = y.shape.len() / vector;
        let params = Params {
            count: count as u32,
            inner: (c / vector) as u32,
            height: h as u32,
            width: w as u32,
            out_height: self.size[0] as u32,
            out_width: self.size[1] as u32,
        };
        let kernel = kernel("forward", self.interpolation, four, [x.is_half(); 2]);
        let dispatch = Dispatch::new(kernel, params.block(), grid_for(count, WORKGROUP)).specialised();
        Ok(Lowered::one(dispatch.input(0).output(0).work(8 * y.shape.len() as u64, x.bytes() + y.bytes())))
    }
}

/// Input: `d_y`; output of the given image-batch shape.
#[derive(Debug)]
struct UpsampleGrad {
    shape: Shape,
    interpolation: Interpolation,
}

impl Op for UpsampleGrad {
    fn name(&self) -> &'static str {
        "upsample.grad_x"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        image_batch(&inputs[0])?;
        Ok(vec![inputs[0].with_shape(self.shape.clone())])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let [n, p, q, c] = image_batch(&cx.inputs[0])?;
        let [_, h, w, _] = image_batch(&cx.outputs[0])?;
        let half = cx.inputs[0].is_half();
        let four = c.is_multiple_of(4);
        let vector = if four { 4 } else { 1 };
        // `results` positions become `size` of them; what lies further in is `inner` elements.
        let along = |outer: usize, [results, size]: [usize; 2], inner: usize, half: [bool; 2]| {
            let count = outer * size * inner / vector;
            let params = Params {
                count: count as u32,
                inner: (inner / vector) as u32,
                height: size as u32,
                width: 1,
                out_height: results as u32,
                out_width: 1,
            };
            let bytes = |half: bool, count: usize| (if half { 2 } else { 4 } * count) as u64;
            let moved = bytes(half[0], outer * results * inner) + bytes(half[1], outer * size * inner);
            let kernel = kernel("grad_x", self.interpolation, four, half);
            let dispatch = Dispatch::new(kernel, params.block(), grid_for(count, WORKGROUP)).specialised();
            dispatch.work(2 * (outer * inner * (results + size)) as u64, moved)
        };
        let columns = |half| along(n * p, [q, w], c, half);
        let rows = |half| along(n, [p, h], w * c, half);
        if p == h || q == w {
            // At equal extents every weight is zero or one.
            let only = if q == w { rows([half; 2]) } else { columns([half; 2]) };
            return Ok(Lowered::one(only.input(0).output(0)));
        }
        let between = Operand::Scratch(0);
        Ok(Lowered {
            scratch: vec![TensorType::f32([n, p, w, c])],
            dispatches: vec![
                columns([half, false]).input(0).bind(between, Access::ReadWrite),
                rows([false, half]).bind(between, Access::Read).output(0),
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_cannot_be_resampled() {
        let mut tape = Tape::new();
        let x = tape.input("x", TensorType::f32([1, 4, 5, 3]));
        let labels = tape.input("labels", TensorType::u32([1, 4, 5, 3]));
        for (x, size) in [(x, [0, 5]), (x, [4, 1 << 15]), (labels, [8, 8])] {
            let e = upsample(&mut tape, x, size, Interpolation::Nearest).unwrap_err();
            assert_eq!(e.kind(), Kind::Shape, "{size:?}");
        }
    }
}
