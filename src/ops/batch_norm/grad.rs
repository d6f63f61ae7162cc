//! The gradients of batch-norm.

use std::sync::Arc;

use super::{BatchNorm, Runs, meeting};
use crate::autograd::{Combine, Exchange, Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::Result;
use crate::gpu::{Access, Operand, Source};
use crate::ops::same_shape;
use crate::tensor::TensorType;

static GRAD: Source = crate::wgsl!("batch_norm_grad.wgsl");

crate::library!(KEEP_MASKED, "keep_masked.wgsl");
crate::library!(KEEP_NOTHING, "keep_nothing.wgsl");

/// Where the statistics of a normalisation come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Basis {
    /// From the rows: with the inverse standard deviation.
    Rows,
    /// From so many rows, those of other ranks among them.
    AllRanks(usize),
    /// They are constants: with the variance.
    Running,
}

/// The gradients of x, beta and gamma in the order of a node's inputs.
pub(super) fn gradients(
    tape: &mut Tape,
    node: &NodeView,
    d_outputs: &[Option<Tensor>],
    [mean, deviation]: [Tensor; 2],
    basis: Basis,
    spec: BatchNorm,
) -> Result<Vec<Option<Tensor>>> {
    let Some(d_y) = d_outputs[0] else { return Ok(vec![None; node.inputs.len()]) };
    let gamma = node.inputs.get(4).copied();
    let has_gamma = gamma.is_some();
    if basis == Basis::Running && !node.wanted[1] && node.wanted.get(4) != Some(&true) {
        let inputs: Vec<Tensor> = [d_y, deviation].into_iter().chain(gamma).collect();
        let d_x = tape.push1(FrozenGrad { spec, has_gamma, masked: false }, &inputs)?;
        let mut gradients = vec![None; node.inputs.len()];
        gradients[0] = Some(d_x);
        return Ok(gradients);
    }
    let inputs: Vec<Tensor> = [node.inputs[0], d_y, mean, deviation].into_iter().chain(gamma).collect();
    let d = tape.push(Grad { spec, basis, has_gamma, mask: Mask::None }, &inputs)?;
    let mut gradients = vec![Some(d[0]), Some(d[2]), None, None];
    gradients.extend(has_gamma.then_some(Some(d[1])));
    Ok(gradients)
}

/// What is done to the gradient that arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mask {
    /// Nothing.
    None,
    /// It counts where a ReLU's output, the last input, is positive.
    Relu,
    /// So too, and the result is the last output.
    ReluKept,
}

/// `d_x`, `d_gamma`, `d_beta` from x, `d_y`, mean, inverse standard deviation (or variance), and gamma. Where the statistics are
/// those of all ranks, so are the sums that `d_x` takes; `d_gamma` and `d_beta` are what this rank adds to theirs.
#[derive(Debug, Clone, Copy)]
struct Grad {
    spec: BatchNorm,
    basis: Basis,
    has_gamma: bool,
    mask: Mask,
}

impl Op for Grad {
    fn name(&self) -> &'static str {
        if self.mask == Mask::None { "batch_norm.grad" } else { "relu+batch_norm.grad" }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        same_shape(&inputs[..2])?;
        Ok(vec![inputs[0].clone(), inputs[2].clone(), inputs[2].clone()])
    }

    fn with_relu_gradient(&self, kept: bool) -> Option<(usize, Arc<dyn Op>)> {
        let mask = if kept { Mask::ReluKept } else { Mask::Relu };
        (self.mask == Mask::None).then(|| (1, Arc::new(Self { mask, ..*self }) as Arc<dyn Op>))
    }

    fn exchange(&self, cx: &Lower<'_>, lowered: &Lowered) -> Option<Exchange> {
        matches!(self.basis, Basis::AllRanks(_)).then(|| meeting(Combine::Sums, &cx.inputs[0], lowered))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let shape = &cx.inputs[0].shape;
        let reduce = Runs::reduce(shape);
        let (half, elements) = (cx.inputs[0].is_half(), shape.len() as u64);
        let size = cx.inputs[0].dtype.size() as u64;
        let from_variance = self.basis == Basis::Running;
        let flags =
            |masked: bool| [("HAS_GAMMA", self.has_gamma), ("FROM_VARIANCE", from_variance), ("MASKED", masked)];
        let masked = self.mask != Mask::None;
        let kept = self.mask == Mask::ReluKept;
        let relu_y = if masked { 4 + usize::from(self.has_gamma) } else { 0 };
        // All of them are of one type.
        let read = |read: bool| reduce.reading(&cx.inputs[0], read, cx.caps);
        let mut sums = reduce
            .dispatch(&GRAD, "sums", &flags(masked), half, self.spec)
            .load("d_y", Operand::Input(1), read(true))
            .load("relu_y", Operand::Input(relu_y), read(masked))
            .load("x", Operand::Input(0), read(true))
            .input(2)
            .bind(Operand::Scratch(0), Access::ReadWrite)
            .bind(Operand::Scratch(1), Access::ReadWrite)
            .work(4 * elements, size * (2 + u64::from(masked) + u64::from(kept)) * elements);
        if kept {
            sums = sums.output(3);
        }
        sums.kernel = sums.kernel.with_library(if kept { &KEEP_MASKED } else { &KEEP_NOTHING });
        // A launch that reads the sums of some runs.
        let of_runs = |entry, runs: Runs, sums: [usize; 2]| {
            let mut launch = runs
                .dispatch(&GRAD, entry, &flags(false), half, self.spec)
                .unread(&["d_y", "relu_y", "x"], reduce.is_in_fours())
                .bind(Operand::Scratch(sums[0]), Access::Read)
                .bind(Operand::Scratch(sums[1]), Access::Read);
            launch.kernel = launch.kernel.with_library(&KEEP_NOTHING);
            launch
        };
        let merge = |runs, sums, gradients: [Operand; 2]| {
            of_runs("merge", runs, sums)
                .input(2)
                .input(3)
                .input(if self.has_gamma { 4 } else { 2 })
                .bind(gradients[0], Access::ReadWrite)
                .bind(gradients[1], Access::ReadWrite)
                .bind(Operand::Scratch(2), Access::ReadWrite)
        };
        let again = masked && !kept;
        let grad_x = Runs::map(shape).dispatch(&GRAD, "grad_x", &flags(again), half, self.spec);
        let mut grad_x = grad_x
            .load("d_y", if kept { Operand::Output(3) } else { Operand::Input(1) }, read(true))
            .load("relu_y", Operand::Input(if again { relu_y } else { 0 }), read(again))
            .load("x", Operand::Input(0), read(true))
            .bind(Operand::Scratch(2), Access::Read)
            .output(0)
            .work(5 * elements, size * (3 + u64::from(again)) * elements);
        grad_x.kernel = grad_x.kernel.with_library(&KEEP_NOTHING);
        let mut scratch = vec![reduce.partial(), reduce.partial(), TensorType::f32([4, shape.last()])];
        let own = [Operand::Output(1), Operand::Output(2)];
        let dispatches = match self.basis {
            Basis::Rows | Basis::Running => vec![sums, merge(reduce, [0, 1], own), grad_x],
            Basis::AllRanks(rows) => {
                let one = Runs { run: reduce.rows, ..reduce };
                let all = Runs { rows, run: rows, ..reduce };
                // Gradients of all ranks, which nobody needs here; then the sums of this rank, soon those of all.
                scratch.extend(vec![one.partial(); 4]);
                let total = of_runs("total", reduce, [0, 1])
                    .bind(Operand::Scratch(5), Access::ReadWrite)
                    .bind(Operand::Scratch(6), Access::ReadWrite);
                let unused = [Operand::Scratch(3), Operand::Scratch(4)];
                vec![sums, total, merge(one, [5, 6], own), merge(all, [5, 6], unused), grad_x]
            }
        };
        Ok(Lowered { scratch, dispatches })
    }
}

/// `d_x` of batch-norm whose statistics and parameters are all constants, from `d_y`, variance and gamma. Behind a ReLU,
/// whose output is then the last input, `d_y` counts where that is positive.
#[derive(Debug)]
struct FrozenGrad {
    spec: BatchNorm,
    has_gamma: bool,
    masked: bool,
}

impl Op for FrozenGrad {
    fn name(&self) -> &'static str {
        if self.masked { "relu+batch_norm.grad_frozen" } else { "batch_norm.grad_frozen" }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        if let (true, [d_y, .., relu_y]) = (self.masked, inputs) {
            same_shape(&[d_y.clone(), relu_y.clone()])?;
        }
        Ok(vec![inputs[0].clone()])
    }

    /// The gradient behind the ReLU is not stored: where the shortcut reads it too, the ReLU stays an op of its own.
    fn with_relu_gradient(&self, kept: bool) -> Option<(usize, Arc<dyn Op>)> {
        let (spec, has_gamma) = (self.spec, self.has_gamma);
        (!self.masked && !kept).then(|| (0, Arc::new(Self { spec, has_gamma, masked: true }) as Arc<dyn Op>))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let (shape, elements) = (&cx.inputs[0].shape, cx.inputs[0].shape.len() as u64);
        let flags = [("HAS_GAMMA", self.has_gamma), ("FROM_VARIANCE", true), ("MASKED", self.masked)];
        let relu_y = if self.masked { 2 + usize::from(self.has_gamma) } else { 0 };
        let runs = Runs::map(shape);
        let read = |read: bool| runs.reading(&cx.inputs[0], read, cx.caps);
        let mut launch = runs
            .dispatch(&GRAD, "grad_x_frozen", &flags, cx.inputs[0].is_half(), self.spec)
            .load("d_y", Operand::Input(0), read(true))
            .load("relu_y", Operand::Input(relu_y), read(self.masked))
            .unread(&["x"], runs.is_in_fours())
            .input(1)
            .input(if self.has_gamma { 2 } else { 1 })
            .output(0)
            .work(elements, cx.inputs[0].dtype.size() as u64 * (2 + u64::from(self.masked)) * elements);
        launch.kernel = launch.kernel.with_library(&KEEP_NOTHING);
        Ok(Lowered::one(launch))
    }
}

#[cfg(test)]
mod tests {
    use crate::autograd::{Plan, Tape};
    use crate::gpu::Caps;
    use crate::ops::batch_norm::{BatchNorm, batch_norm_eval};
    use crate::ops::{add, backward_from, relu};
    use crate::tensor::TensorType;

    /// The ops of the plan of a frozen layer with a ReLU, and perhaps a residual in front of that.
    fn ops(trained: bool, residual: bool) -> Vec<&'static str> {
        let mut tape = Tape::new();
        let map = TensorType::f32([2, 4, 4, 8]);
        let x = tape.variable("x", map.clone(), true).unwrap();
        let [beta, mean, var, gamma] = ["beta", "mean", "var", "gamma"].map(|name| {
            let wanted = trained && matches!(name, "beta" | "gamma");
            tape.variable(name, TensorType::f32([8]), wanted).unwrap()
        });
        let spec = BatchNorm { eps: 1e-5, momentum: 0.1 };
        let mut y = batch_norm_eval(&mut tape, x, Some(gamma), beta, mean, var, spec).unwrap();
        let mut wanted = vec![x];
        if residual {
            let r = tape.variable("r", map.clone(), true).unwrap();
            y = add::add(&mut tape, r, y).unwrap();
            wanted.push(r);
        }
        let y = relu::relu(&mut tape, y).unwrap();
        let d_y = tape.variable("d_y", map, false).unwrap();
        let gradients = backward_from(&mut tape, &[(y, d_y)]).unwrap();
        let outputs: Vec<_> = [y].into_iter().chain(wanted.iter().filter_map(|&v| gradients.get(v))).collect();
        Plan::new(&tape, &outputs, &Caps::baseline()).unwrap().dispatches.iter().map(|d| d.op).collect()
    }

    #[test]
    fn a_frozen_layer_takes_one_launch_and_sums_nothing() {
        assert_eq!(ops(false, false), ["batch_norm.eval", "relu+batch_norm.grad_frozen"]);
        assert_eq!(ops(false, true), ["batch_norm.eval", "relu.grad_x", "batch_norm.grad_frozen"]);
        assert_eq!(ops(true, false)[1..], ["relu+batch_norm.grad"; 3]);
    }
}
