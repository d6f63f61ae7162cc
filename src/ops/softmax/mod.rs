//! Softmax over the last axis: `y[.., c] = exp(x[.., c]) / sum over j of exp(x[.., j])`.
//!
//! Backward: `d_x = y (d_y - sum(y d_y))`, with the sum of each row. It reads the output, so that the input need not be
//! kept.
//!
//! Kernels (`softmax.wgsl`): `forward` and `grad_x`, up to 64 lanes a row, four elements a load where the axis is a
//! multiple of four.
//!
//! Numerics: the row's largest element is taken away first, so nothing overflows and the sum is at least one. The order
//! of summation is fixed by the shape and the class of the device. For a loss there is
//! [`softmax_cross_entropy`](mod@crate::ops::softmax_cross_entropy), which never takes the logarithm of a small result.

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Dispatch, Kernel, Source, Uniform, grid, uniform_block};
use crate::onnx;
use crate::ops::{ROWS, WORKGROUP, lanes, moved, row_lanes, same_shape};
use crate::tensor::TensorType;

static SOURCE: Source = crate::wgsl!("softmax.wgsl", ROWS);

uniform_block! {
    /// Mirrors `Params` of `softmax.wgsl`.
    struct Params { rows: u32, columns: u32 }
}

/// The softmax of each row of `x`.
///
/// # Errors
/// [`Kind::Shape`] if `x` is not a float tensor or a scalar.
pub fn softmax(tape: &mut Tape, x: Tensor) -> Result<Tensor> {
    tape.push1(Softmax, &[x])
}

fn launch(entry: &'static str, cx: &Lower<'_>) -> Dispatch {
    let x = &cx.inputs[0];
    let (rows, elements) = (x.shape.rows(), x.shape.last());
    let four = elements.is_multiple_of(4);
    let columns = elements / if four { 4 } else { 1 };
    let side_by_side = row_lanes(columns, Some(cx.caps));
    let groups = rows.div_ceil((WORKGROUP / side_by_side) as usize);
    let kernel = lanes(Kernel::new(&SOURCE, entry), four, [x.is_half(); 2]).with_u32("LANES", side_by_side);
    let params = Params { rows: rows as u32, columns: columns as u32 };
    Dispatch::new(kernel, params.block(), grid(groups as u64)).work(8 * x.shape.len() as u64, moved(cx))
}

#[derive(Debug)]
struct Softmax;

impl Op for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        if inputs[0].shape.rank() == 0 {
            return Err(Error::new(Kind::Shape, "a scalar has no rows"));
        }
        same_shape(&inputs[..1])
    }

    fn backward(&self, tape: &mut Tape, node: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None]) };
        Ok(vec![Some(tape.push1(SoftmaxGrad, &[node.outputs[0], d_y])?)])
    }

    fn onnx(&self, graph: &mut onnx::Graph, inputs: &[onnx::Value]) -> Result<onnx::Value> {
        let x = graph.rows(&inputs[0])?;
        Ok(graph.node_like("Softmax", &[&x], &[onnx::Attribute::Int("axis", -1)], &x))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        Ok(Lowered::one(launch("forward", cx).input(0).output(0)))
    }
}

/// Inputs: `y`, `d_y`.
#[derive(Debug)]
struct SoftmaxGrad;

impl Op for SoftmaxGrad {
    fn name(&self) -> &'static str {
        "softmax.grad_x"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        same_shape(inputs)
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        Ok(Lowered::one(launch("grad_x", cx).input(0).input(1).output(0)))
    }
}
