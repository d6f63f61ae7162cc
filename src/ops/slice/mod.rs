//! Slice of channels (the last axis): `x: [.., C]` to `y: [.., L]`, `y[.., c] = x[.., first + c]`.
//!
//! Backward: `d_x` is `d_y` inside the range and zero outside.
//!
//! Kernels (`slice.wgsl`): `forward` and `grad_x`, one invocation an element written; exact.

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Dispatch, Kernel, Source, Uniform, grid_for, uniform_block};
use crate::onnx;
use crate::ops::{WORKGROUP, float_shape};
use crate::tensor::{Shape, TensorType};

static SOURCE: Source = crate::wgsl!("slice.wgsl");

uniform_block! {
    /// Mirrors `Params` of `slice.wgsl`.
    struct Params { count: u32, channels: u32, first: u32, length: u32 }
}

/// Channels `first .. first + length` of `x`.
///
/// # Errors
/// [`Kind::Shape`] if the range is empty or reaches past the last channel.
pub fn slice(tape: &mut Tape, x: Tensor, first: usize, length: usize) -> Result<Tensor> {
    tape.push1(Slice { first, length }, &[x])
}

fn launch(entry: &'static str, written: &TensorType, y: &TensorType, channels: usize, first: usize) -> Dispatch {
    let count = written.shape.len();
    let params =
        Params { count: count as u32, channels: channels as u32, first: first as u32, length: y.shape.last() as u32 };
    Dispatch::new(Kernel::new(&SOURCE, entry).with_half(y.is_half()), params.block(), grid_for(count, WORKGROUP))
        .input(0)
        .output(0)
        .work(0, y.bytes() + written.bytes())
}

#[derive(Debug)]
struct Slice {
    first: usize,
    length: usize,
}

impl Op for Slice {
    fn name(&self) -> &'static str {
        "slice"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let refuse = |message: String| Err(Error::new(Kind::Shape, message));
        let Some((&channels, leading)) = float_shape(&inputs[0])?.dims().split_last() else {
            return refuse("a scalar has no channels".into());
        };
        let (first, length) = (self.first, self.length);
        if length == 0 || first.checked_add(length).is_none_or(|end| end > channels) {
            return refuse(format!("{length} channels from {first} do not lie within {channels}"));
        }
        Ok(vec![inputs[0].with_shape([leading, &[length]].concat())])
    }

    fn backward(&self, tape: &mut Tape, node: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None]) };
        let shape = tape.shape(node.inputs[0]).clone();
        Ok(vec![Some(tape.push1(SliceGrad { first: self.first, shape }, &[d_y])?)])
    }

    fn onnx(&self, graph: &mut onnx::Graph, inputs: &[onnx::Value]) -> Result<onnx::Value> {
        let (values, map) = graph.alike(inputs)?;
        let shape = self.infer(&[TensorType::f32(values[0].shape().clone())])?.remove(0).shape;
        let (first, end) = (self.first as i64, (self.first + self.length) as i64);
        let (first, end) = (graph.integers("starts", &[first]), graph.integers("ends", &[end]));
        let axes = graph.integers("axes", &[if map { 1 } else { -1 }]);
        let values = [&values[0], &first, &end, &axes];
        Ok(match (map, shape.nhwc()) {
            (true, Some(nhwc)) => graph.map_node("Slice", &values, &[], nhwc),
            _ => graph.row_node("Slice", &values, &[], shape),
        })
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let (x, y) = (&cx.inputs[0], &cx.outputs[0]);
        Ok(Lowered::one(launch("forward", y, y, x.shape.last(), self.first)))
    }
}

/// Input: `d_y`; output of the given shape.
#[derive(Debug)]
struct SliceGrad {
    first: usize,
    shape: Shape,
}

impl Op for SliceGrad {
    fn name(&self) -> &'static str {
        "slice.grad_x"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        Ok(vec![inputs[0].with_shape(self.shape.clone())])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let (d_y, d_x) = (&cx.inputs[0], &cx.outputs[0]);
        Ok(Lowered::one(launch("grad_x", d_x, d_y, d_x.shape.last(), self.first)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_ranges_that_do_not_fit() {
        let mut tape = Tape::new();
        let x = tape.input("x", TensorType::f32([2, 5]));
        for (first, length) in [(0, 0), (0, 6), (5, 1), (4, 2), (usize::MAX, 2)] {
            assert_eq!(slice(&mut tape, x, first, length).unwrap_err().kind(), Kind::Shape, "{first} {length}");
        }
    }
}
