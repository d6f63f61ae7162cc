//! Softmax cross-entropy of logits `[N, K]`, the mean over the batch, shape `[1]`; the semantics are those of PyTorch's
//! `CrossEntropyLoss(weight, label_smoothing)`.
//!
//! With the smoothed target `t' = t (1 - e) + e / K`: `loss = sum_n sum_k -w_k t'_nk log softmax(x_n)_k / D`, where D
//! is `sum_n w_{y_n}` for class indices y (t is one-hot) and N for target probabilities t. If D is zero the loss is
//! zero. Backward: `d_x_nk = (softmax(x_n)_k sum_j w_j t'_nj - w_k t'_nk) d_loss / D`.
//!
//! [`mixed_cross_entropy`] takes probabilities too, as shares of labels, with `D = sum_n sum_k w_k t_nk`: the sum of the
//! losses for each label times its share, over the sum of those labels' weights. With one label a row it is the loss of
//! that label.
//!
//! A row whose label is not below K is left out; the host checks labels, and padding uses this.

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Access, Dispatch, Kernel, Library, Operand, Source, Uniform, grid_for, uniform_block};
use crate::ops::WORKGROUP;
use crate::tensor::{DType, TensorType};

static SOURCE: Source = crate::wgsl!("softmax_cross_entropy.wgsl");
static HARD: Library =
    Library { file: "targets_hard.wgsl", text: include_str!("../../../shaders/lib/targets_hard.wgsl") };
static SOFT: Library =
    Library { file: "targets_soft.wgsl", text: include_str!("../../../shaders/lib/targets_soft.wgsl") };

uniform_block! {
    /// Mirrors `Params` of `softmax_cross_entropy.wgsl`.
    struct Params { n: u32, k: u32, smoothing: f32 }
}

/// How targets are taken.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spec {
    smoothing: f32,
    /// Whether the loss is divided by the weights of the targets; labels always are.
    by_weight: bool,
}

/// The mean cross-entropy of logits `[N, K]` with targets: class indices u32 `[N]` or probabilities f32 `[N, K]`.
///
/// # Errors
/// [`Kind::Shape`] if the shapes do not go together or the smoothing is not in `[0, 1]`.
pub fn softmax_cross_entropy(
    tape: &mut Tape,
    logits: Tensor,
    targets: Tensor,
    class_weights: Option<Tensor>,
    label_smoothing: f32,
) -> Result<Tensor> {
    let mut inputs = vec![logits, targets];
    inputs.extend(class_weights);
    tape.push1(Forward(Spec { smoothing: label_smoothing, by_weight: false }), &inputs)
}

/// The cross-entropy of logits `[N, K]` with several labels a row: `shares` f32 `[N, K]` says how much each class counts.
/// It is divided by the shares times their classes' weights.
///
/// # Errors
/// As [`softmax_cross_entropy`](fn@softmax_cross_entropy).
pub fn mixed_cross_entropy(
    tape: &mut Tape,
    logits: Tensor,
    shares: Tensor,
    class_weights: Option<Tensor>,
    label_smoothing: f32,
) -> Result<Tensor> {
    let mut inputs = vec![logits, shares];
    inputs.extend(class_weights);
    tape.push1(Forward(Spec { smoothing: label_smoothing, by_weight: true }), &inputs)
}

fn launch(entry: &'static str, logits: &TensorType, targets: DType, weights: bool, spec: Spec) -> Dispatch {
    let (n, k) = (logits.shape.rows(), logits.shape.last());
    let library = if targets == DType::U32 { &HARD } else { &SOFT };
    let kernel = Kernel::new(&SOURCE, entry).with_library(library).with_bool("HAS_WEIGHTS", weights);
    let kernel = if targets == DType::U32 { kernel } else { kernel.with_bool("BY_WEIGHT", spec.by_weight) };
    let grid = if entry == "total" { [1; 3] } else { grid_for(n, WORKGROUP) };
    Dispatch::new(kernel, Params { n: n as u32, k: k as u32, smoothing: spec.smoothing }.block(), grid)
        .work(6 * (n * k) as u64, 4 * (n * k) as u64)
}

#[derive(Debug)]
struct Forward(Spec);

impl Op for Forward {
    fn name(&self) -> &'static str {
        "softmax_cross_entropy"
    }

    /// loss `[1]`, log-sum of each row `[N]`, one over the divisor `[1]`.
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let fail = |why: String| Err(Error::new(Kind::Shape, why));
        let &[n, k] = inputs[0].shape.dims() else {
            return fail(format!("cross-entropy takes logits [N, K], not {}", inputs[0]));
        };
        if n * k == 0 || inputs[0].dtype != DType::F32 {
            return fail(format!("cross-entropy takes f32 logits with rows and classes, not {}", inputs[0]));
        }
        if inputs[1] != TensorType::u32([n]) && inputs[1] != TensorType::f32([n, k]) {
            return fail(format!("targets are labels {n}:u32 or probabilities {n}x{k}:f32, not {}", inputs[1]));
        }
        if self.0.by_weight && inputs[1].dtype == DType::U32 {
            return fail(format!("shares of classes are {n}x{k}:f32, not {}", inputs[1]));
        }
        if let Some(weights) = inputs.get(2).filter(|w| **w != TensorType::f32([k])) {
            return fail(format!("{weights} is not a weight for each of {k} classes"));
        }
        if !(0.0..=1.0).contains(&self.0.smoothing) {
            return fail(format!("label smoothing {} is not between 0 and 1", self.0.smoothing));
        }
        Ok(vec![TensorType::f32([1]), TensorType::f32([n]), TensorType::f32([1])])
    }

    fn backward(&self, tape: &mut Tape, node: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let mut gradients = vec![None; node.inputs.len()];
        if let (Some(d_loss), true) = (d_outputs[0], node.wanted[0]) {
            if node.wanted[1..].contains(&true) {
                return Err(Error::new(Kind::Shape, "cross-entropy has no gradient for targets or class weights"));
            }
            let mut inputs = vec![node.inputs[0], node.inputs[1], node.outputs[1], node.outputs[2], d_loss];
            inputs.extend(node.inputs.get(2));
            gradients[0] = Some(tape.push1(Grad(self.0), &inputs)?);
        }
        Ok(gradients)
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let weights = cx.inputs.len() == 3;
        let launch = |entry| launch(entry, &cx.inputs[0], cx.inputs[1].dtype, weights, self.0);
        let rows = launch("rows")
            .input(0)
            .input(1)
            .input(if weights { 2 } else { 0 })
            .bind(Operand::Scratch(0), Access::ReadWrite)
            .bind(Operand::Scratch(1), Access::ReadWrite)
            .output(1);
        let total = launch("total")
            .bind(Operand::Scratch(0), Access::Read)
            .bind(Operand::Scratch(1), Access::Read)
            .output(0)
            .output(2);
        Ok(Lowered { scratch: vec![cx.outputs[1].clone(); 2], dispatches: vec![rows, total] })
    }
}

/// `d_logits` from logits, targets, log-sums, one over the divisor, `d_loss`, and class weights.
#[derive(Debug)]
struct Grad(Spec);

impl Op for Grad {
    fn name(&self) -> &'static str {
        "softmax_cross_entropy.grad_logits"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        Ok(vec![inputs[0].clone()])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let weights = cx.inputs.len() == 6;
        let dispatch = launch("grad_logits", &cx.inputs[0], cx.inputs[1].dtype, weights, self.0);
        let dispatch = dispatch.input(0).input(1).input(if weights { 5 } else { 0 }).input(2).input(3).input(4);
        Ok(Lowered::one(dispatch.output(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::reference::CrossEntropyTwin;
    use super::*;
    use crate::ops::{Array, Twin};

    /// PyTorch: `lam * cross_entropy(x, a, weight, reduction="none") + (1 - lam) * cross_entropy(x, b, ...)`, summed over
    /// the rows and divided by the sum of `lam * weight[a] + (1 - lam) * weight[b]`.
    #[test]
    fn several_labels_a_row_are_the_weighted_sum_of_the_losses_of_each() {
        let logits = vec![0.5, -1.0, 2.0, 1.5, 0.25, -0.75, -2.0, 0.0, 1.0, 3.0, -1.0, 0.5];
        let shares = vec![0.25, 0.0, 0.75, 0.0, 0.25, 0.75, 0.0, 1.0, 0.0, 0.5, 0.5, 0.0];
        let inputs =
            [Array::<f64>::new([4, 3], logits), Array::new([4, 3], shares), Array::new([3], vec![0.5, 2.0, 4.0])];
        let first_rows = [
            (0.0, 1.6497791676236204, [0.042813415, 0.012377397, -0.055190812, 0.254637083]),
            (0.1, 1.6412851595181535, [0.040690344, 0.005246768, -0.045937112, 0.243248859]),
        ];
        for (smoothing, loss, gradient) in first_rows {
            let twin = CrossEntropyTwin { smoothing, by_weight: true };
            let close = |a: f64, b: f64| (a - b).abs() < 1e-7;
            assert!(close(twin.forward(&inputs)[0].data[0], loss));
            let found = twin.backward(&inputs, &[Array::new([1], vec![1.0])]);
            let found = found[0].as_ref().expect("a gradient");
            assert!(found.data.iter().zip(gradient).all(|(&a, b)| close(a, b)), "{:?}", found.data);
        }
    }

    #[test]
    fn labels_are_no_shares() {
        let mut tape = Tape::new();
        let logits = tape.input("logits", TensorType::f32([4, 3]));
        let labels = tape.input("labels", TensorType::u32([4]));
        assert_eq!(mixed_cross_entropy(&mut tape, logits, labels, None, 0.0).unwrap_err().kind(), Kind::Shape);
        assert!(softmax_cross_entropy(&mut tape, logits, labels, None, 0.0).is_ok());
    }
}
