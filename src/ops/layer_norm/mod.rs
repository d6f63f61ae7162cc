//! Layer normalisation over the last axis: `x: [.., C]`, `y = (x - mean) / sqrt(var + eps) * gamma + beta`, with mean
//! and (biased) variance of each row; gamma and beta are `[C]`. As PyTorch's `LayerNorm(C, eps)`.
//!
//! Backward, with `xh` the normalised x and `g = d_y gamma`: `d_x = (g - mean(g) - xh mean(g xh)) / std` with the means
//! of each row; `d_gamma` and `d_beta` sum `d_y xh` and `d_y` over the rows.
//!
//! x, y and their gradients are f32 or f16; gamma, beta and their gradients are f32, and so is everything computed.
//!
//! Kernels (`layer_norm.wgsl`): `forward` and `grad_x`, up to 64 lanes a row, four elements a load where C is a
//! multiple of four; `grad_parameters`, a lane for one or four columns and a run of rows, whose sums a second launch
//! adds in order (`sum_splits.wgsl`).
//!
//! Numerics: the mean is taken of differences to the row's first element and then the variance of differences to the
//! mean, so a mean that is large compared to the deviation costs no digits; it is kept for the backward pass relative
//! to that element. The order of summation is fixed by the shape and the class of the device.
//!
//! Paper: J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer normalization", 2016.

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Access, Dispatch, Kernel, Operand, Source, Uniform, grid, grid_for, uniform_block};
use crate::onnx;
use crate::ops::{ROWS, WORKGROUP, float_shape, lanes, moved, row_lanes, same_shape};
use crate::tensor::TensorType;

static SOURCE: Source = crate::wgsl!("layer_norm.wgsl", ROWS);
static SUM_SPLITS: Source = crate::wgsl!("sum_splits.wgsl");

uniform_block! {
    /// Mirrors `Params` of `layer_norm.wgsl`.
    struct Params { rows: u32, columns: u32, elements: u32, run: u32, runs: u32, eps: f32 }
}

uniform_block! {
    /// Mirrors `Params` of `sum_splits.wgsl`.
    struct SplitParams { count: u32, splits: u32 }
}

/// At most this many runs of rows are added by one lane.
const MAX_RUNS: usize = 256;
/// Rows of a run at least.
const MIN_RUN: usize = 16;

/// `x` with each row normalised, scaled by `gamma` and shifted by `beta`, f32 vectors of a row's length.
///
/// # Errors
/// [`Kind::Shape`] if the vectors do not have the length of the last axis of `x`.
pub fn layer_norm(tape: &mut Tape, x: Tensor, gamma: Tensor, beta: Tensor, eps: f32) -> Result<Tensor> {
    tape.push1(LayerNorm { eps }, &[x, gamma, beta])
}

/// A launch without bindings; gradients of parameters cut the rows into `runs` of `run`, zero otherwise.
fn launch(entry: &'static str, x: &TensorType, [run, runs]: [usize; 2], eps: f32, cx: &Lower<'_>) -> Dispatch {
    let (rows, elements) = (x.shape.rows(), x.shape.last());
    let four = elements.is_multiple_of(4);
    let columns = elements / if four { 4 } else { 1 };
    let params = Params {
        rows: rows as u32,
        columns: columns as u32,
        elements: elements as u32,
        run: run as u32,
        runs: runs as u32,
        eps,
    };
    let over_rows = runs == 0;
    let side_by_side = row_lanes(columns, if over_rows { Some(cx.caps) } else { None });
    let at_once = (WORKGROUP / side_by_side) as usize;
    let [gx, gy, _] = grid(if over_rows { rows } else { runs }.div_ceil(at_once) as u64);
    let gz = if over_rows { 1 } else { columns.div_ceil(side_by_side as usize) as u32 };
    let kernel = lanes(Kernel::new(&SOURCE, entry), four, [x.is_half(); 2]).with_u32("LANES", side_by_side);
    Dispatch::new(kernel, params.block(), [gx, gy, gz])
}

#[derive(Debug)]
struct LayerNorm {
    eps: f32,
}

impl Op for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    /// y, the mean of each row relative to its first element, one over the deviation of each row.
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let shape = float_shape(&inputs[0])?;
        let vector = TensorType::f32([shape.last()]);
        if shape.rank() == 0 || inputs[1..].iter().any(|ty| *ty != vector) {
            let message = format!("{} and {} are not vectors of the rows of {}", inputs[1], inputs[2], inputs[0]);
            return Err(Error::new(Kind::Shape, message));
        }
        let rows = TensorType::f32([shape.rows()]);
        Ok(vec![inputs[0].clone(), rows.clone(), rows])
    }

    fn backward(&self, tape: &mut Tape, node: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None; 3]) };
        let (x, gamma) = (node.inputs[0], node.inputs[1]);
        let (mean, inverse_std) = (node.outputs[1], node.outputs[2]);
        let mut gradients = vec![None; 3];
        if node.wanted[0] {
            gradients[0] = Some(tape.push1(GradX, &[x, d_y, mean, inverse_std, gamma])?);
        }
        if node.wanted[1] || node.wanted[2] {
            let vectors = tape.push(GradParameters, &[x, d_y, mean, inverse_std])?;
            gradients[1] = Some(vectors[0]);
            gradients[2] = Some(vectors[1]);
        }
        Ok(gradients)
    }

    fn onnx(&self, graph: &mut onnx::Graph, inputs: &[onnx::Value]) -> Result<onnx::Value> {
        let x = graph.rows(&inputs[0])?;
        let (gamma, beta) = (graph.rows(&inputs[1])?, graph.rows(&inputs[2])?);
        let attributes = [onnx::Attribute::Int("axis", -1), onnx::Attribute::Float("epsilon", self.eps)];
        Ok(graph.node_like("LayerNormalization", &[&x, &gamma, &beta], &attributes, &x))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let dispatch = launch("forward", &cx.inputs[0], [0, 0], self.eps, cx).input(0).input(1).input(2);
        let dispatch = dispatch.output(0).output(1).output(2);
        Ok(Lowered::one(dispatch.work(8 * cx.inputs[0].shape.len() as u64, moved(cx))))
    }
}

/// Inputs: `x`, `d_y`, means, inverse deviations, gamma.
#[derive(Debug)]
struct GradX;

impl Op for GradX {
    fn name(&self) -> &'static str {
        "layer_norm.grad_x"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        same_shape(&inputs[..2])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let dispatch = launch("grad_x", &cx.inputs[0], [0, 0], 0.0, cx);
        let dispatch = (0..5).fold(dispatch, Dispatch::input).output(0);
        Ok(Lowered::one(dispatch.work(12 * cx.inputs[0].shape.len() as u64, moved(cx))))
    }
}

/// Inputs: `x`, `d_y`, means, inverse deviations; outputs: `d_gamma`, `d_beta`.
#[derive(Debug)]
struct GradParameters;

impl Op for GradParameters {
    fn name(&self) -> &'static str {
        "layer_norm.grad_parameters"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        same_shape(&inputs[..2])?;
        Ok(vec![TensorType::f32([inputs[0].shape.last()]); 2])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let x = &cx.inputs[0];
        let (rows, columns) = (x.shape.rows(), x.shape.last());
        let run = rows.div_ceil(MAX_RUNS).max(MIN_RUN);
        let runs = rows.div_ceil(run);
        let sums = launch("grad_parameters", x, [run, runs], 0.0, cx);
        let sums = (0..4).fold(sums, Dispatch::input).work(5 * x.shape.len() as u64, moved(cx));
        if runs == 1 {
            return Ok(Lowered::one(sums.output(0).output(1)));
        }
        let merge = |i: usize| {
            let params = SplitParams { count: columns as u32, splits: runs as u32 };
            Dispatch::new(Kernel::new(&SUM_SPLITS, "forward"), params.block(), grid_for(columns, WORKGROUP))
                .bind(Operand::Scratch(i), Access::Read)
                .output(i)
                .work((runs * columns) as u64, 4 * ((runs + 1) * columns) as u64)
        };
        let sums = sums.bind(Operand::Scratch(0), Access::ReadWrite).bind(Operand::Scratch(1), Access::ReadWrite);
        Ok(Lowered { scratch: vec![TensorType::f32([runs, columns]); 2], dispatches: vec![sums, merge(0), merge(1)] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_vectors_of_another_length() {
        let mut tape = Tape::new();
        let x = tape.input("x", TensorType::f32([2, 5]));
        let (right, wrong) = (tape.input("a", TensorType::f32([5])), tape.input("b", TensorType::f32([2])));
        for (gamma, beta) in [(right, wrong), (wrong, right)] {
            assert_eq!(layer_norm(&mut tape, x, gamma, beta, 1e-5).unwrap_err().kind(), Kind::Shape);
        }
        assert!(layer_norm(&mut tape, x, right, right, 1e-5).is_ok());
    }
}
