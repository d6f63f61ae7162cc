//! Addition of one tensor to every row of another: `x: [.., L..]`, `b: [L..]`, `y[r, ..] = x[r, ..] + b[..]`, where the
//! axes of b are the last axes of x: a bias of the channels, a position embedding of all samples.
//!
//! Backward: `d_x = d_y`, `d_b` sums `d_y` over the rows, in runs that a second launch adds in order.
//!
//! Kernels: `forward` (`add_rows.wgsl`), four elements a load where a row is a multiple of four; the sums are those of
//! a convolution's bias (`sum_rows.wgsl`).
//!
//! x, y and their gradients are f32 or f16; b and its gradient are f32, as parameters are.

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Dispatch, Kernel, Source, Uniform, uniform_block};
use crate::onnx;
use crate::ops::conv2d::GradBias;
use crate::ops::{f32_shape, float_shape, fours, lanes, moved};
use crate::tensor::TensorType;

static SOURCE: Source = crate::wgsl!("add_rows.wgsl", crate::ops::FOURS);

uniform_block! {
    /// Mirrors `Params` of `add_rows.wgsl`.
    struct Params { count: u32, length: u32 }
}

/// Longest row: the columns that one launch of the gradient's sums covers.
const MAX_ROW: usize = 65_535 * 64;

/// `x` with the f32 tensor `b` added to each of its rows; the shape of b is that of the last axes of x.
///
/// # Errors
/// [`Kind::Shape`] if the shapes do not go together, b is not f32 or has more than four million elements.
pub fn add_rows(tape: &mut Tape, x: Tensor, b: Tensor) -> Result<Tensor> {
    tape.push1(AddRows, &[x, b])
}

#[derive(Debug)]
struct AddRows;

impl Op for AddRows {
    fn name(&self) -> &'static str {
        "add_rows"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let (x, b) = (float_shape(&inputs[0])?, f32_shape(&inputs[1])?);
        if !x.dims().ends_with(b.dims()) || b.len() > MAX_ROW {
            let message = format!("{} cannot be added to the rows of {}", inputs[1], inputs[0]);
            return Err(Error::new(Kind::Shape, message));
        }
        Ok(vec![inputs[0].clone()])
    }

    fn backward(&self, tape: &mut Tape, node: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None, None]) };
        let d_b = if node.wanted[1] {
            let shape = tape.shape(node.inputs[1]).clone();
            let (count, length) = (tape.shape(d_y).len(), shape.len());
            let rows = tape.view(d_y, [count / length, length])?;
            let sums = tape.push1(GradBias, &[rows])?;
            Some(tape.view(sums, shape)?)
        } else {
            None
        };
        Ok(vec![Some(d_y), d_b])
    }

    fn onnx(&self, graph: &mut onnx::Graph, inputs: &[onnx::Value]) -> Result<onnx::Value> {
        let (x, b) = (&inputs[0], &inputs[1]);
        if let (true, &[c]) = (x.is_map(), b.shape().dims()) {
            let b = graph.laid_out(b, &[0], &[c, 1, 1])?;
            return Ok(graph.node_like("Add", &[x, &b], &[], x));
        }
        let (x, b) = (graph.rows(x)?, graph.rows(b)?);
        Ok(graph.node_like("Add", &[&x, &b], &[], &x))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let (count, length) = (cx.inputs[0].shape.len(), cx.inputs[1].shape.len());
        let four = length.is_multiple_of(4);
        let vector = if four { 4 } else { 1 };
        // A grid for groups of four takes any other groups as well.
        let (_, grid) = fours(count / vector * 4);
        let params = Params { count: (count / vector) as u32, length: (length / vector) as u32 };
        let kernel = lanes(Kernel::new(&SOURCE, "forward"), four, [cx.inputs[0].is_half(); 2]);
        let dispatch = Dispatch::new(kernel, params.block(), grid);
        Ok(Lowered::one(dispatch.input(0).input(1).output(0).work(count as u64, moved(cx))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_not_a_row() {
        let mut tape = Tape::new();
        let x = tape.input("x", TensorType::f32([2, 3, 4]));
        for (i, b) in [TensorType::f32([3]), TensorType::f32([4, 3]), TensorType::f16([4]), TensorType::u32([4])]
            .into_iter()
            .enumerate()
        {
            let b = tape.input(format!("b{i}"), b);
            assert_eq!(add_rows(&mut tape, x, b).unwrap_err().kind(), Kind::Shape, "{i}");
        }
    }
}
