//! Binary cross-entropy of logits: `loss = mean(max(x, 0) - x t + log(1 + exp(-|x|)))`, the mean over all elements of
//! `-t log(sigmoid(x)) - (1 - t) log(1 - sigmoid(x))`. Logits x and targets t in `[0, 1]` have the same shape; the loss
//! has shape `[1]`.
//!
//! Backward: `d_x = d_loss (sigmoid(x) - t) / count`. Targets have no gradient.
//!
//! Numerics: the exponent is never positive, so nothing overflows; `log(1 + e)` is a series that keeps its relative
//! accuracy for small `e` (WGSL has no `log1p`); loss and gradient of a well-classified element do not cancel. The
//! order of summation is fixed, as in [`sum`](crate::ops::sum).

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Access, Dispatch, Kernel, Operand, Source, Uniform, grid, grid_for, uniform_block};
use crate::ops::{LANE_SUM, LOG_1P, WORKGROUP, same_shape};
use crate::tensor::{DType, TensorType};

static SOURCE: Source = crate::wgsl!("bce_with_logits.wgsl", LOG_1P, LANE_SUM);

/// Elements summed by one workgroup.
const RUN: usize = 4096;

uniform_block! {
    /// Mirrors `Params` of `bce_with_logits.wgsl`.
    struct Params { count: u32, run: u32, factor: f32 }
}

/// The mean binary cross-entropy of `logits` against `targets` in `[0, 1]`, shape `[1]`.
///
/// # Errors
/// [`Kind::Shape`] if the shapes differ, are empty or are not f32.
pub fn bce_with_logits(tape: &mut Tape, logits: Tensor, targets: Tensor) -> Result<Tensor> {
    tape.push1(BceWithLogits, &[logits, targets])
}

/// The shape rule of the operands, for the loss and its gradient.
fn operands(inputs: &[TensorType]) -> Result<TensorType> {
    let ty = same_shape(inputs)?.remove(0);
    if ty.dtype != DType::F32 || ty.shape.is_empty() {
        return Err(Error::new(
            Kind::Shape,
            format!("binary cross-entropy takes f32 elements, at least one, not {ty}"),
        ));
    }
    Ok(ty)
}

fn one_over(count: usize) -> f32 {
    (1.0 / count as f64) as f32
}

#[derive(Debug)]
struct BceWithLogits;

impl Op for BceWithLogits {
    fn name(&self) -> &'static str {
        "bce_with_logits"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        operands(inputs).map(|_| vec![TensorType::f32([1])])
    }

    fn backward(&self, tape: &mut Tape, node: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let (Some(d_loss), true) = (d_outputs[0], node.wanted[0]) else { return Ok(vec![None, None]) };
        let d_x = tape.push1(BceWithLogitsGrad, &[node.inputs[0], node.inputs[1], d_loss])?;
        Ok(vec![Some(d_x), None])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let count = cx.inputs[0].shape.len();
        let runs = count.div_ceil(RUN);
        let launch = |entry: &'static str, count: usize, factor: f32, groups: usize| {
            let params = Params { count: count as u32, run: RUN as u32, factor };
            Dispatch::new(Kernel::new(&SOURCE, entry), params.block(), grid(groups as u64))
        };
        let (flops, bytes) = (30 * count as u64, 8 * count as u64);
        if runs == 1 {
            let only = launch("partial_sums", count, one_over(count), 1);
            return Ok(Lowered::one(only.input(0).input(1).output(0).work(flops, bytes)));
        }
        let first =
            launch("partial_sums", count, 1.0, runs).input(0).input(1).bind(Operand::Scratch(0), Access::ReadWrite);
        let second = launch("total", runs, one_over(count), 1).bind(Operand::Scratch(0), Access::Read).output(0);
        Ok(Lowered {
            scratch: vec![TensorType::f32([runs])],
            dispatches: vec![first.work(flops, bytes), second.work(runs as u64, 4 * runs as u64)],
        })
    }
}

/// The gradient for the logits, of logits, targets and the loss's gradient.
#[derive(Debug)]
struct BceWithLogitsGrad;

impl Op for BceWithLogitsGrad {
    fn name(&self) -> &'static str {
        "bce_with_logits.grad"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        operands(&inputs[..2]).map(|ty| vec![ty])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let count = cx.outputs[0].shape.len();
        let params = Params { count: count as u32, run: 0, factor: one_over(count) };
        let dispatch = Dispatch::new(Kernel::new(&SOURCE, "grad"), params.block(), grid_for(count, WORKGROUP));
        Ok(Lowered::one(dispatch.input(0).input(1).input(2).output(0).work(10 * count as u64, 12 * count as u64)))
    }
}
