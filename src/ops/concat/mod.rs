//! Concatenation on channels (the last axis): inputs `[.., C_i]` with equal leading axes to `y: [.., C_1 + C_2 + ...]`.
//!
//! Backward: the gradient of each input is its [slice](crate::ops::slice) of `d_y`.
//!
//! Kernel (`concat.wgsl`): `forward`, one launch an input, which writes its channels of the output; exact.

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Dispatch, Kernel, Source, Uniform, grid_for, uniform_block};
use crate::onnx;
use crate::ops::slice::slice;
use crate::ops::{WORKGROUP, float_shape};
use crate::tensor::TensorType;

static SOURCE: Source = crate::wgsl!("concat.wgsl");

uniform_block! {
    /// Mirrors `Params` of `concat.wgsl`.
    struct Params { count: u32, channels: u32, first: u32, out_channels: u32 }
}

/// The inputs one after the other along the last axis.
///
/// # Errors
/// [`Kind::Shape`] without inputs, for scalars, or if the leading axes differ.
pub fn concat(tape: &mut Tape, inputs: &[Tensor]) -> Result<Tensor> {
    tape.push1(Concat, inputs)
}

#[derive(Debug)]
struct Concat;

impl Op for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let refuse = |message: String| Err(Error::new(Kind::Shape, message));
        let Some(first) = inputs.first() else { return refuse("nothing to concatenate".into()) };
        let Some((_, leading)) = first.shape.dims().split_last() else {
            return refuse("a scalar has no channels".into());
        };
        let mut channels = 0_usize;
        for ty in inputs {
            match float_shape(ty)?.dims().split_last() {
                Some((c, rest)) if rest == leading && ty.dtype == first.dtype => channels = channels.saturating_add(*c),
                _ => return refuse(format!("{first} and {ty} differ in more than their channels")),
            }
        }
        let y = first.with_shape([leading, &[channels]].concat());
        float_shape(&y)?;
        Ok(vec![y])
    }

    fn backward(&self, tape: &mut Tape, node: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None; node.inputs.len()]) };
        let mut first = 0;
        let mut gradients = vec![];
        for (&input, &wanted) in node.inputs.iter().zip(&node.wanted) {
            let channels = tape.shape(input).last();
            gradients.push(if wanted { Some(slice(tape, d_y, first, channels)?) } else { None });
            first += channels;
        }
        Ok(gradients)
    }

    fn onnx(&self, graph: &mut onnx::Graph, inputs: &[onnx::Value]) -> Result<onnx::Value> {
        let (values, maps) = graph.alike(inputs)?;
        let types: Vec<_> = values.iter().map(|v| TensorType::f32(v.shape().clone())).collect();
        let shape = self.infer(&types)?.remove(0).shape;
        let values: Vec<_> = values.iter().collect();
        Ok(match (maps, shape.nhwc()) {
            (true, Some(nhwc)) => graph.map_node("Concat", &values, &[onnx::Attribute::Int("axis", 1)], nhwc),
            _ => graph.row_node("Concat", &values, &[onnx::Attribute::Int("axis", -1)], shape),
        })
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let mut first = 0;
        let mut lowered = Lowered::default();
        for (i, ty) in cx.inputs.iter().enumerate() {
            let (count, channels) = (ty.shape.len(), ty.shape.last());
            let params = Params {
                count: count as u32,
                channels: channels as u32,
                first: first as u32,
                out_channels: cx.outputs[0].shape.last() as u32,
            };
            let dispatch = Dispatch::new(
                Kernel::new(&SOURCE, "forward").with_half(ty.is_half()),
                params.block(),
                grid_for(count, WORKGROUP),
            );
            lowered.dispatches.push(dispatch.input(i).output(0).work(0, 2 * ty.bytes()));
            first += channels;
        }
        Ok(lowered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_does_not_go_together() {
        let mut tape = Tape::new();
        let a = tape.input("a", TensorType::f32([2, 3, 4]));
        let b = tape.input("b", TensorType::f32([2, 4, 4]));
        let labels = tape.input("labels", TensorType::u32([2, 3, 4]));
        let half = tape.input("half", TensorType::f16([2, 3, 4]));
        for inputs in [vec![], vec![a, b], vec![a, labels], vec![labels], vec![a, half]] {
            assert_eq!(concat(&mut tape, &inputs).unwrap_err().kind(), Kind::Shape, "{inputs:?}");
        }
    }
}
