//! Focal loss of sigmoids, for labels that do not exclude each other: logits x and targets t in `[0, 1]` of the same
//! shape, the mean over all elements, shape `[1]`. With `s = sigmoid(x)` and `q = s t + (1 - s) (1 - t)`, the
//! probability of being right, an element's loss is `a (1 - q)^gamma BCE(x, t)`, where `a = alpha t + (1 - alpha) (1 -
//! t)`, or 1 without alpha. As torchvision's `sigmoid_focal_loss(reduction="mean")`.
//!
//! Weights, one for each element or for each index of the first axes, make it `sum(w loss) / sum(w)`; padding has
//! weight 0. If there is no weight at all, loss and gradient are zero.
//!
//! Backward: `d_x = a (1 - q)^gamma ((s - t) - gamma BCE (2 t - 1) s (1 - s) / (1 - q))`, times weight over divisor.
//!
//! Kernels (`sigmoid_focal_loss.wgsl`): `partial_sums`, a workgroup for a run of elements; `total`, one workgroup;
//! `grad_logits`, an invocation an element.
//!
//! Numerics: as [`bce_with_logits`](mod@crate::ops::bce_with_logits); `1 - s` and `1 - q` are not subtracted either.
//! The order of summation is fixed by the shape.
//!
//! Paper: T.-Y. Lin, P. Goyal, R. Girshick, K. He, P. Dollar, "Focal loss for dense object detection", ICCV 2017.

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Access, Dispatch, Kernel, Operand, Source, Uniform, grid, grid_for, uniform_block};
use crate::ops::{LANE_SUM, LOG_1P, WORKGROUP, f32_shape, moved, same_shape};
use crate::tensor::TensorType;

static SOURCE: Source = crate::wgsl!("sigmoid_focal_loss.wgsl", LOG_1P, LANE_SUM);

/// Elements summed by one workgroup.
const RUN: usize = 4096;

uniform_block! {
    /// Mirrors `Params` of `sigmoid_focal_loss.wgsl`.
    struct Params { count: u32, span: u32, run: u32, runs: u32, gamma: f32, alpha: f32 }
}

/// The paper's two constants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SigmoidFocal {
    /// The exponent: how much less elements count that are classified well.
    pub gamma: f32,
    /// The weight of positive elements, one minus that of negative ones.
    pub alpha: Option<f32>,
}

impl Default for SigmoidFocal {
    /// The paper's and torchvision's: gamma 2, alpha 1/4.
    fn default() -> Self {
        Self { gamma: 2.0, alpha: Some(0.25) }
    }
}

/// The mean focal loss of the sigmoids of `logits` against `targets` in `[0, 1]`; the shape of `weights` is that of the
/// first axes of `logits`, of all of them or fewer.
///
/// # Errors
/// [`Kind::Shape`] if the shapes do not go together or are not f32, gamma is negative or alpha not in `[0, 1]`.
pub fn sigmoid_focal_loss(
    tape: &mut Tape,
    logits: Tensor,
    targets: Tensor,
    weights: Option<Tensor>,
    spec: SigmoidFocal,
) -> Result<Tensor> {
    let mut inputs = vec![logits, targets];
    inputs.extend(weights);
    tape.push1(Loss { spec }, &inputs)
}

/// Inputs: logits, targets, weights if there are any.
#[derive(Debug)]
struct Loss {
    spec: SigmoidFocal,
}

/// A launch without bindings.
fn launch(
    entry: &'static str,
    count: usize,
    weights: Option<&TensorType>,
    spec: SigmoidFocal,
    grid: [u32; 3],
) -> Dispatch {
    let kernel = Kernel::new(&SOURCE, entry)
        .with_bool("HAS_WEIGHTS", weights.is_some())
        .with_bool("HAS_ALPHA", spec.alpha.is_some());
    let params = Params {
        count: count as u32,
        span: weights.map_or(1, |w| count / w.shape.len()) as u32,
        run: RUN as u32,
        runs: count.div_ceil(RUN) as u32,
        gamma: spec.gamma,
        alpha: spec.alpha.unwrap_or(0.0),
    };
    Dispatch::new(kernel, params.block(), grid)
}

impl Op for Loss {
    fn name(&self) -> &'static str {
        "sigmoid_focal_loss"
    }

    /// The loss, and one over the divisor.
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let fail = |why: String| Err(Error::new(Kind::Shape, why));
        same_shape(&inputs[..2])?;
        let shape = f32_shape(&inputs[0])?;
        if let Some(weights) = inputs.get(2)
            && !shape.dims().starts_with(f32_shape(weights)?.dims())
        {
            return fail(format!("{weights} are not weights of {shape}"));
        }
        let SigmoidFocal { gamma, alpha } = self.spec;
        if !(gamma >= 0.0 && gamma.is_finite() && alpha.is_none_or(|a| (0.0..=1.0).contains(&a))) {
            return fail(format!("gamma {gamma} and alpha {alpha:?} make no sense"));
        }
        Ok(vec![TensorType::f32([1]); 2])
    }

    fn backward(&self, tape: &mut Tape, node: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let mut gradients = vec![None; node.inputs.len()];
        if let (Some(d_loss), true) = (d_outputs[0], node.wanted[0]) {
            let mut inputs = vec![node.inputs[0], node.inputs[1], node.outputs[1], d_loss];
            inputs.extend(node.inputs.get(2));
            gradients[0] = Some(tape.push1(Grad { spec: self.spec }, &inputs)?);
        }
        Ok(gradients)
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let count = cx.inputs[0].shape.len();
        let runs = count.div_ceil(RUN);
        let launch = |entry, grid| launch(entry, count, cx.inputs.get(2), self.spec, grid);
        let sums = launch("partial_sums", grid(runs as u64))
            .input(0)
            .input(1)
            .input(if cx.inputs.len() == 3 { 2 } else { 0 })
            .bind(Operand::Scratch(0), Access::ReadWrite)
            .work(40 * count as u64, moved(cx));
        let total = launch("total", [1; 3])
            .bind(Operand::Scratch(0), Access::Read)
            .output(0)
            .output(1)
            .work(2 * runs as u64, 8 * runs as u64);
        Ok(Lowered { scratch: vec![TensorType::f32([runs, 2])], dispatches: vec![sums, total] })
    }
}

/// Inputs: logits, targets, one over the divisor, the loss's gradient, weights if there are any.
#[derive(Debug)]
struct Grad {
    spec: SigmoidFocal,
}

impl Op for Grad {
    fn name(&self) -> &'static str {
        "sigmoid_focal_loss.grad_logits"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        same_shape(&inputs[..2])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let count = cx.outputs[0].shape.len();
        let weights = cx.inputs.get(4);
        let dispatch = launch("grad_logits", count, weights, self.spec, grid_for(count, WORKGROUP));
        let dispatch = dispatch.input(0).input(1).input(if weights.is_some() { 4 } else { 0 }).input(2).input(3);
        Ok(Lowered::one(dispatch.output(0).work(40 * count as u64, moved(cx))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_does_not_go_together() {
        let mut tape = Tape::new();
        let x = tape.input("x", TensorType::f32([4, 5]));
        let (few, last) = (tape.input("few", TensorType::f32([4])), tape.input("last", TensorType::f32([5])));
        let spec = SigmoidFocal::default();
        for (targets, weights, spec) in [
            (few, None, spec),
            (x, Some(last), spec),
            (x, None, SigmoidFocal { gamma: -1.0, ..spec }),
            (x, None, SigmoidFocal { alpha: Some(1.5), ..spec }),
        ] {
            assert_eq!(sigmoid_focal_loss(&mut tape, x, targets, weights, spec).unwrap_err().kind(), Kind::Shape);
        }
        assert!(sigmoid_focal_loss(&mut tape, x, x, Some(few), spec).is_ok());
    }
}
