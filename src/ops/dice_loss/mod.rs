//! Overlap losses of masks, from logits x and targets t in `[0, 1]`, both `[N, ..]`; the loss has shape `[1]`. With
//! s = sigmoid(x) and sums over an image, or over the batch:
//!
//! - soft Dice: `1 - (2 sum(s t) + e) / (sum(s) + sum(t) + e)`
//! - soft Jaccard: `1 - (sum(s t) + e) / (sum(s) + sum(t) - sum(s t) + e)`
//!
//! Images may have weights `w: [N]`: the loss is then `sum(w loss_n) / sum(w)`, or that of sums over the batch in which
//! an image counts `w` times. Padding has weight 0. If nothing is left (no weight, or with e = 0 neither a mask nor a
//! probability), loss and gradient are zero.
//!
//! Backward: with `I = sum(s t)`, `D = sum(s (1 - t) + t (1 - s))`, `c` = 2 (Dice) or 1 (Jaccard) and `U = c I + e`
//! either loss is `D / (U + D)`, so `d_s = (U - t (2 U + c D)) / (U + D)^2` and `d_x = d_s s (1 - s)`. Targets and
//! weights have no gradient.
//!
//! Kernels (`dice_loss.wgsl`): `partial_sums`, a workgroup for a run of an image's elements; `total`, one workgroup, a
//! lane an image; `grad_logits`, an invocation an element.
//!
//! Numerics: the loss is not taken as one minus an overlap, so a good mask's keeps its digits. The order of summation
//! is fixed by the shape. A sum with binary cross-entropy is made with
//! [`bce_with_logits`](mod@crate::ops::bce_with_logits).
//!
//! Papers: F. Milletari, N. Navab, S.-A. Ahmadi, "V-Net", 3DV 2016, section 3 (there with squares in the denominator);
//! Y. Yuan, M. Chao, Y.-C. Lo, "Automatic skin lesion segmentation using deep fully convolutional networks with Jaccard
//! distance", IEEE TMI 36, 2017.

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Access, Dispatch, Kernel, Operand, Source, Uniform, grid, grid_for, uniform_block};
use crate::ops::{LANE_SUM, WORKGROUP, f32_shape, moved, same_shape};
use crate::tensor::TensorType;

static SOURCE: Source = crate::wgsl!("dice_loss.wgsl", LANE_SUM);

/// Elements summed by one workgroup.
const RUN: usize = 4096;

uniform_block! {
    /// Mirrors `Params` of `dice_loss.wgsl`.
    struct Params { images: u32, elements: u32, run: u32, runs: u32, share: f32, smoothing: f32 }
}

/// What the overlap losses have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Overlap {
    /// Added to what masks have in common and to all: an empty mask then has a loss that tends to zero.
    pub smoothing: f32,
    /// Whether the loss is the mean of the images' losses; else the batch is one large image.
    pub per_image: bool,
}

impl Default for Overlap {
    /// Smoothing 1, each image for itself.
    fn default() -> Self {
        Self { smoothing: 1.0, per_image: true }
    }
}

/// The soft Dice loss of the sigmoid of `logits` against `targets` in `[0, 1]`, shape `[1]`; `weights: [N]` of images.
///
/// # Errors
/// [`Kind::Shape`] if the shapes do not go together or are not f32, or the smoothing is negative.
pub fn dice_loss(
    tape: &mut Tape,
    logits: Tensor,
    targets: Tensor,
    weights: Option<Tensor>,
    spec: Overlap,
) -> Result<Tensor> {
    let inputs = [Some(logits), Some(targets), weights];
    tape.push1(Loss { spec, jaccard: false }, &inputs.into_iter().flatten().collect::<Vec<_>>())
}

/// The soft Jaccard loss, likewise.
///
/// # Errors
/// As [`dice_loss`].
pub fn soft_jaccard_loss(
    tape: &mut Tape,
    logits: Tensor,
    targets: Tensor,
    weights: Option<Tensor>,
    spec: Overlap,
) -> Result<Tensor> {
    let inputs = [Some(logits), Some(targets), weights];
    tape.push1(Loss { spec, jaccard: true }, &inputs.into_iter().flatten().collect::<Vec<_>>())
}

/// Inputs: logits, targets, weights if there are any.
#[derive(Debug)]
struct Loss {
    spec: Overlap,
    jaccard: bool,
}

impl Loss {
    fn params(&self, logits: &TensorType) -> Params {
        let images = logits.shape.dims()[0];
        let elements = logits.shape.len() / images;
        Params {
            images: images as u32,
            elements: elements as u32,
            run: RUN as u32,
            runs: elements.div_ceil(RUN) as u32,
            share: if self.jaccard { 1.0 } else { 2.0 },
            smoothing: self.spec.smoothing,
        }
    }
}

/// A kernel; the switches matter to `total` alone.
fn kernel(entry: &'static str, has_weights: bool, per_image: bool) -> Kernel {
    Kernel::new(&SOURCE, entry).with_bool("HAS_WEIGHTS", has_weights).with_bool("PER_IMAGE", per_image)
}

impl Op for Loss {
    fn name(&self) -> &'static str {
        if self.jaccard { "soft_jaccard_loss" } else { "dice_loss" }
    }

    /// The loss, and what the gradient takes from each image.
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        same_shape(&inputs[..2])?;
        let shape = f32_shape(&inputs[0])?;
        let Some(&images) = shape.dims().first() else {
            return Err(Error::new(Kind::Shape, "a scalar is no mask"));
        };
        if let Some(weights) = inputs.get(2).filter(|w| **w != TensorType::f32([images])) {
            return Err(Error::new(Kind::Shape, format!("{weights} is not a weight for each of {images} images")));
        }
        if !(self.spec.smoothing >= 0.0 && self.spec.smoothing.is_finite()) {
            return Err(Error::new(Kind::Shape, format!("a smoothing of {} makes no sense", self.spec.smoothing)));
        }
        Ok(vec![TensorType::f32([1]), TensorType::f32([images, 2])])
    }

    fn backward(&self, tape: &mut Tape, node: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let mut gradients = vec![None; node.inputs.len()];
        if let (Some(d_loss), true) = (d_outputs[0], node.wanted[0]) {
            let op = Grad { params: self.params(tape.ty(node.inputs[0])) };
            gradients[0] = Some(tape.push1(op, &[node.inputs[0], node.inputs[1], node.outputs[1], d_loss])?);
        }
        Ok(gradients)
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let params = self.params(&cx.inputs[0]);
        let has_weights = cx.inputs.len() == 3;
        let groups = u64::from(params.images) * u64::from(params.runs);
        let launch = |entry, grid| Dispatch::new(kernel(entry, has_weights, self.spec.per_image), params.block(), grid);
        let sums = launch("partial_sums", grid(groups))
            .input(0)
            .input(1)
            .bind(Operand::Scratch(0), Access::ReadWrite)
            .work(12 * cx.inputs[0].shape.len() as u64, moved(cx));
        let total = launch("total", [1; 3])
            .bind(Operand::Scratch(0), Access::Read)
            .input(if has_weights { 2 } else { 0 })
            .output(0)
            .output(1)
            .work(2 * groups, 8 * groups);
        Ok(Lowered { scratch: vec![TensorType::f32([groups as usize, 2])], dispatches: vec![sums, total] })
    }
}

/// Inputs: logits, targets, slopes of the images, the loss's gradient.
#[derive(Debug)]
struct Grad {
    params: Params,
}

impl Op for Grad {
    fn name(&self) -> &'static str {
        "dice_loss.grad_logits"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        same_shape(&inputs[..2])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let count = cx.outputs[0].shape.len();
        let kernel = kernel("grad_logits", false, false);
        let dispatch = Dispatch::new(kernel, self.params.block(), grid_for(count, WORKGROUP));
        let dispatch = (0..4).fold(dispatch, Dispatch::input).output(0);
        Ok(Lowered::one(dispatch.work(10 * count as u64, moved(cx))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_does_not_go_together() {
        let mut tape = Tape::new();
        let x = tape.input("x", TensorType::f32([2, 4, 4, 1]));
        let other = tape.input("other", TensorType::f32([2, 4, 4, 2]));
        let weights = tape.input("weights", TensorType::f32([4]));
        let spec = Overlap::default();
        for (targets, weights, spec) in [
            (other, None, spec),
            (x, Some(weights), spec),
            (x, None, Overlap { smoothing: -1.0, ..spec }),
            (x, None, Overlap { smoothing: f32::NAN, ..spec }),
        ] {
            assert_eq!(dice_loss(&mut tape, x, targets, weights, spec).unwrap_err().kind(), Kind::Shape);
        }
    }
}
