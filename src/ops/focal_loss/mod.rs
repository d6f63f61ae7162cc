//! Focal loss of softmax for one class of several: logits `[.., K]`, labels u32 `[..]`; the mean over the rows, shape
//! `[1]`. Of a row with label y and `p = softmax(x)_y`: `-w_y (1 - p)^gamma log p`. With gamma = 0 it is
//! [cross-entropy](mod@crate::ops::softmax_cross_entropy).
//!
//! The sum is divided by the number of rows, so that the weights w are the paper's alpha, or by the sum of `w_y`, as
//! cross-entropy does ([`Focal::by_weight`]). A row whose label is not below K is left out; padding uses this. If no
//! row is left, loss and gradient are zero.
//!
//! Backward: `d_x_k = w_y (1 - p)^gamma (gamma p log(p) / (1 - p) - 1) ([k = y] - softmax(x)_k)`, over the divisor.
//!
//! Kernels (`focal_loss.wgsl`): `rows`, an invocation a row, whose losses each workgroup sums; `total`, one workgroup;
//! `grad_logits`, an invocation a row.
//!
//! Numerics: `1 - p` is the sum of the other classes' shares, and log p is taken from it where p is large, so a row
//! that is classified well keeps its digits. The order of summation is fixed by the shape.
//!
//! Paper: T.-Y. Lin, P. Goyal, R. Girshick, K. He, P. Dollar, "Focal loss for dense object detection", ICCV 2017.

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Access, Dispatch, Kernel, Operand, Source, Uniform, grid, uniform_block};
use crate::ops::{LANE_SUM, LOG_1P, WORKGROUP, f32_shape, moved};
use crate::tensor::{DType, TensorType};

static SOURCE: Source = crate::wgsl!("focal_loss.wgsl", LOG_1P, LANE_SUM);

uniform_block! {
    /// Mirrors `Params` of `focal_loss.wgsl`.
    struct Params { rows: u32, k: u32, groups: u32, gamma: f32 }
}

/// How much, and how the mean is taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Focal {
    /// The exponent: how much less rows count that are classified well.
    pub gamma: f32,
    /// Whether the sum is divided by the rows' weights; else by their number.
    pub by_weight: bool,
}

impl Default for Focal {
    /// The paper's: gamma 2, divided by the number.
    fn default() -> Self {
        Self { gamma: 2.0, by_weight: false }
    }
}

/// The mean focal loss of logits `[.., K]` with class indices u32 `[..]`; `class_weights: [K]` f32.
///
/// # Errors
/// [`Kind::Shape`] if the shapes do not go together, or gamma is negative.
pub fn focal_loss(
    tape: &mut Tape,
    logits: Tensor,
    labels: Tensor,
    class_weights: Option<Tensor>,
    spec: Focal,
) -> Result<Tensor> {
    let mut inputs = vec![logits, labels];
    inputs.extend(class_weights);
    tape.push1(Loss { spec }, &inputs)
}

/// Inputs: logits, labels, class weights if there are any.
#[derive(Debug)]
struct Loss {
    spec: Focal,
}

/// A launch over the rows, or of one workgroup.
fn launch(entry: &'static str, logits: &TensorType, weights: bool, spec: Focal) -> Dispatch {
    let (rows, k) = (logits.shape.rows(), logits.shape.last());
    let groups = rows.div_ceil(WORKGROUP as usize);
    let kernel = Kernel::new(&SOURCE, entry).with_bool("HAS_WEIGHTS", weights).with_bool("BY_WEIGHT", spec.by_weight);
    let grid = if entry == "total" { [1; 3] } else { grid(groups as u64) };
    let params = Params { rows: rows as u32, k: k as u32, groups: groups as u32, gamma: spec.gamma };
    Dispatch::new(kernel, params.block(), grid)
}

impl Op for Loss {
    fn name(&self) -> &'static str {
        "focal_loss"
    }

    /// The loss, and one over the divisor.
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let fail = |why: String| Err(Error::new(Kind::Shape, why));
        let Some((&k, rows)) = f32_shape(&inputs[0])?.dims().split_last() else {
            return fail("a scalar has no classes".into());
        };
        if inputs[1].dtype != DType::U32 || inputs[1].shape.dims() != rows {
            return fail(format!("{} is not a label for each row of {}", inputs[1], inputs[0]));
        }
        if let Some(weights) = inputs.get(2).filter(|w| **w != TensorType::f32([k])) {
            return fail(format!("{weights} is not a weight for each of {k} classes"));
        }
        if !(self.spec.gamma >= 0.0 && self.spec.gamma.is_finite()) {
            return fail(format!("a gamma of {} makes no sense", self.spec.gamma));
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
        let logits = &cx.inputs[0];
        let weights = cx.inputs.len() == 3;
        let groups = logits.shape.rows().div_ceil(WORKGROUP as usize);
        let rows = launch("rows", logits, weights, self.spec)
            .input(0)
            .input(1)
            .input(if weights { 2 } else { 0 })
            .bind(Operand::Scratch(0), Access::ReadWrite)
            .work(6 * logits.shape.len() as u64, moved(cx));
        let total = launch("total", logits, weights, self.spec)
            .bind(Operand::Scratch(0), Access::Read)
            .output(0)
            .output(1)
            .work(2 * groups as u64, 8 * groups as u64);
        Ok(Lowered { scratch: vec![TensorType::f32([groups, 2])], dispatches: vec![rows, total] })
    }
}

/// Inputs: logits, labels, one over the divisor, the loss's gradient, class weights if there are any.
#[derive(Debug)]
struct Grad {
    spec: Focal,
}

impl Op for Grad {
    fn name(&self) -> &'static str {
        "focal_loss.grad_logits"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        Ok(vec![inputs[0].clone()])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let weights = cx.inputs.len() == 5;
        let dispatch = launch("grad_logits", &cx.inputs[0], weights, self.spec);
        let dispatch = dispatch.input(0).input(1).input(if weights { 4 } else { 0 }).input(2).input(3).output(0);
        Ok(Lowered::one(dispatch.work(8 * cx.outputs[0].shape.len() as u64, moved(cx))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_does_not_go_together() {
        let mut tape = Tape::new();
        let logits = tape.input("logits", TensorType::f32([4, 5, 3]));
        let labels = tape.input("labels", TensorType::u32([4, 5]));
        let few = tape.input("few", TensorType::u32([4]));
        let weights = tape.input("weights", TensorType::f32([4]));
        let spec = Focal::default();
        for (labels, weights, gamma) in
            [(few, None, 2.0), (logits, None, 2.0), (labels, Some(weights), 2.0), (labels, None, -1.0)]
        {
            let e = focal_loss(&mut tape, logits, labels, weights, Focal { gamma, ..spec }).unwrap_err();
            assert_eq!(e.kind(), Kind::Shape);
        }
        assert!(focal_loss(&mut tape, logits, labels, None, spec).is_ok());
    }
}
