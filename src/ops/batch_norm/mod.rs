//! Batch normalisation (Ioffe and Szegedy, 2015, algorithm 1) over the last axis: `y = (x - mean) / sqrt(var + eps) *
//! gamma + beta`. x is `[.., C]`; gamma, beta and the statistics are `[C]`; rows are everything but the last axis.
//!
//! In training, mean and (biased) variance are those of the rows, and the running statistics move towards them as in
//! PyTorch: `running = (1 - momentum) * running + momentum * batch`, with the unbiased variance. In evaluation the
//! running statistics are used.
//!
//! x, y and their gradients are f32 or f16; gamma, beta, statistics and their gradients are f32, and so is everything
//! computed.
//!
//! Backward, with `xh` the normalised x and R rows: `d_beta = sum(d_y)`, `d_gamma = sum(d_y * xh)`,
//! `d_x = gamma / std * (d_y - d_beta / R - xh * d_gamma / R)`; in evaluation the last two terms are absent.
//!
//! Kernels: runs of rows are reduced side by side, then merged in order with the formula of Chan, Golub and LeVeque;
//! sums are shifted, so a large mean costs no digits. Results repeat bit for bit.

mod cases;
mod reference;

pub use cases::cases;

use crate::autograd::{Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Access, Dispatch, Kernel, Operand, Source, Uniform, grid, grid_for, uniform_block};
use crate::ops::{WORKGROUP, float_shape};
use crate::tensor::{Shape, TensorType};

static SOURCE: Source = crate::wgsl!("batch_norm.wgsl");
static GRAD: Source = crate::wgsl!("batch_norm_grad.wgsl");

uniform_block! {
    /// Mirrors `Params` of `batch_norm.wgsl` and `batch_norm_grad.wgsl`.
    struct Params { rows: u32, channels: u32, run: u32, runs: u32, eps: f32, momentum: f32 }
}

/// The constants of batch normalisation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchNorm {
    /// Added to the variance.
    pub eps: f32,
    /// Share of the batch in the running statistics.
    pub momentum: f32,
}

/// Normalises with the batch's statistics and moves the running ones in place.
///
/// # Errors
/// [`Kind::Shape`] if the vectors are not `[C]`, or if there is a single row.
pub fn batch_norm_train(
    tape: &mut Tape,
    x: Tensor,
    gamma: Option<Tensor>,
    beta: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    spec: BatchNorm,
) -> Result<Tensor> {
    let mut inputs = vec![x, beta, running_mean, running_var];
    inputs.extend(gamma);
    tape.push1(Train { spec }, &inputs)
}

/// Normalises with the running statistics.
///
/// # Errors
/// [`Kind::Shape`] if the vectors are not `[C]`.
pub fn batch_norm_eval(
    tape: &mut Tape,
    x: Tensor,
    gamma: Option<Tensor>,
    beta: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    spec: BatchNorm,
) -> Result<Tensor> {
    let mut inputs = vec![x, beta, running_mean, running_var];
    inputs.extend(gamma);
    tape.push1(Eval { spec }, &inputs)
}

/// How the rows of a tensor are cut into runs.
#[derive(Debug, Clone, Copy)]
struct Runs {
    rows: usize,
    channels: usize,
    run: usize,
    lanes: u32,
}

/// At most this many runs are merged by one lane.
const MAX_RUNS: usize = 256;
/// Rows of a run where nothing is reduced.
const MAP_RUN: usize = 8;

impl Runs {
    fn new(shape: &Shape, run: usize) -> Self {
        let channels = shape.last();
        // As many lanes along the channels as there are channels, rounded up, at most a workgroup.
        let lanes = (channels.next_power_of_two() as u32).min(WORKGROUP);
        Self { rows: shape.rows(), channels, run, lanes }
    }

    /// For a reduction: few enough runs to merge, long enough to be worth one.
    fn reduce(shape: &Shape) -> Self {
        Self::new(shape, shape.rows().div_ceil(MAX_RUNS).max(16))
    }

    /// For an element-by-element pass.
    fn map(shape: &Shape) -> Self {
        Self::new(shape, MAP_RUN)
    }

    fn count(self) -> usize {
        self.rows.div_ceil(self.run)
    }

    fn dispatch(self, source: &'static Source, entry: &'static str, flags: [bool; 3], spec: BatchNorm) -> Dispatch {
        let kernel = Kernel::new(source, entry)
            .with_u32("LANES_C", self.lanes)
            .with_bool("HAS_GAMMA", flags[0])
            .with_bool("FROM_VARIANCE", flags[1])
            .with_half(flags[2]);
        let params = Params {
            rows: self.rows as u32,
            channels: self.channels as u32,
            run: self.run as u32,
            runs: self.count() as u32,
            eps: spec.eps,
            momentum: spec.momentum,
        };
        let workgroups = if entry == "merge" {
            grid_for(self.channels, WORKGROUP)
        } else {
            let runs_at_once = (WORKGROUP / self.lanes) as usize;
            let [x, y, _] = grid(self.count().div_ceil(runs_at_once) as u64);
            [x, y, self.channels.div_ceil(self.lanes as usize) as u32]
        };
        Dispatch::new(kernel, params.block(), workgroups)
    }
}

/// Checks that every vector has the channels of x.
fn check(inputs: &[TensorType]) -> Result<usize> {
    let channels = inputs[0].shape.last();
    float_shape(&inputs[0])?;
    if inputs[0].shape.rank() < 2 {
        return Err(Error::new(Kind::Shape, format!("batch-norm takes [.., C], not {}", inputs[0])));
    }
    match inputs[1..].iter().find(|ty| **ty != TensorType::f32([channels])) {
        None => Ok(channels),
        Some(other) => {
            Err(Error::new(Kind::Shape, format!("{other} is not a vector of the {channels} channels of {}", inputs[0])))
        }
    }
}

#[derive(Debug)]
struct Train {
    spec: BatchNorm,
}

impl Op for Train {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    /// y, mean `[C]`, inverse standard deviation `[C]`.
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let channels = check(inputs)?;
        if inputs[0].shape.rows() < 2 {
            return Err(Error::new(Kind::Shape, "batch-norm cannot train on a single value per channel")
                .next("use a larger --batch or --size"));
        }
        Ok(vec![inputs[0].clone(), TensorType::f32([channels]), TensorType::f32([channels])])
    }

    fn updates(&self) -> &'static [usize] {
        &[2, 3]
    }

    fn backward(&self, tape: &mut Tape, node: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let statistics = [node.outputs[1], node.outputs[2]];
        gradients(tape, node, d_outputs, statistics, Grad { spec: self.spec, from_variance: false })
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let shape = &cx.inputs[0].shape;
        let reduce = Runs::reduce(shape);
        let (elements, size) = (shape.len() as u64, cx.inputs[0].dtype.size() as u64);
        let partial = TensorType::f32([reduce.count(), reduce.channels]);
        let has_gamma = cx.inputs.len() == 5;
        let flags = [has_gamma, false, cx.inputs[0].is_half()];
        let statistics = reduce
            .dispatch(&SOURCE, "statistics", flags, self.spec)
            .input(0)
            .bind(Operand::Scratch(0), Access::ReadWrite)
            .bind(Operand::Scratch(1), Access::ReadWrite)
            .work(4 * elements, size * elements);
        let merge = reduce
            .dispatch(&SOURCE, "merge", flags, self.spec)
            .bind(Operand::Scratch(0), Access::Read)
            .bind(Operand::Scratch(1), Access::Read)
            .bind(Operand::Input(2), Access::ReadWrite)
            .bind(Operand::Input(3), Access::ReadWrite)
            .output(1)
            .output(2);
        let normalise = Runs::map(shape)
            .dispatch(&SOURCE, "normalise", flags, self.spec)
            .input(0)
            .bind(Operand::Output(1), Access::Read)
            .bind(Operand::Output(2), Access::Read)
            .input(if has_gamma { 4 } else { 1 })
            .input(1)
            .output(0)
            .work(3 * elements, 2 * size * elements);
        Ok(Lowered { scratch: vec![partial; 2], dispatches: vec![statistics, merge, normalise] })
    }
}

#[derive(Debug)]
struct Eval {
    spec: BatchNorm,
}

impl Op for Eval {
    fn name(&self) -> &'static str {
        "batch_norm.eval"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        check(inputs)?;
        Ok(vec![inputs[0].clone()])
    }

    fn backward(&self, tape: &mut Tape, node: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let statistics = [node.inputs[2], node.inputs[3]];
        gradients(tape, node, d_outputs, statistics, Grad { spec: self.spec, from_variance: true })
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let shape = &cx.inputs[0].shape;
        let has_gamma = cx.inputs.len() == 5;
        let (elements, size) = (shape.len() as u64, cx.inputs[0].dtype.size() as u64);
        let flags = [has_gamma, true, cx.inputs[0].is_half()];
        let dispatch = Runs::map(shape).dispatch(&SOURCE, "normalise", flags, self.spec);
        let dispatch = dispatch.input(0).input(2).input(3).input(if has_gamma { 4 } else { 1 }).input(1).output(0);
        Ok(Lowered::one(dispatch.work(3 * elements, 2 * size * elements)))
    }
}

/// The gradients of x, beta and gamma in the order of a node's inputs.
fn gradients(
    tape: &mut Tape,
    node: &NodeView,
    d_outputs: &[Option<Tensor>],
    [mean, deviation]: [Tensor; 2],
    op: Grad,
) -> Result<Vec<Option<Tensor>>> {
    let Some(d_y) = d_outputs[0] else { return Ok(vec![None; node.inputs.len()]) };
    let gamma = node.inputs.get(4).copied();
    let mut inputs = vec![node.inputs[0], d_y, mean, deviation];
    inputs.extend(gamma);
    let d = tape.push(op, &inputs)?;
    let mut gradients = vec![Some(d[0]), Some(d[2]), None, None];
    if gamma.is_some() {
        gradients.push(Some(d[1]));
    }
    Ok(gradients)
}

/// `d_x`, `d_gamma`, `d_beta` from x, `d_y`, mean, inverse standard deviation (or variance), and gamma.
#[derive(Debug)]
struct Grad {
    spec: BatchNorm,
    from_variance: bool,
}

impl Op for Grad {
    fn name(&self) -> &'static str {
        "batch_norm.grad"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        Ok(vec![inputs[0].clone(), inputs[2].clone(), inputs[2].clone()])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let shape = &cx.inputs[0].shape;
        let reduce = Runs::reduce(shape);
        let (elements, size) = (shape.len() as u64, cx.inputs[0].dtype.size() as u64);
        let has_gamma = cx.inputs.len() == 5;
        let flags = [has_gamma, self.from_variance, cx.inputs[0].is_half()];
        let sums = reduce
            .dispatch(&GRAD, "sums", flags, self.spec)
            .input(0)
            .input(1)
            .input(2)
            .input(3)
            .bind(Operand::Scratch(0), Access::ReadWrite)
            .bind(Operand::Scratch(1), Access::ReadWrite)
            .work(4 * elements, 2 * size * elements);
        let merge = reduce
            .dispatch(&GRAD, "merge", flags, self.spec)
            .bind(Operand::Scratch(0), Access::Read)
            .bind(Operand::Scratch(1), Access::Read)
            .output(1)
            .output(2);
        let grad_x = Runs::map(shape)
            .dispatch(&GRAD, "grad_x", flags, self.spec)
            .input(0)
            .input(1)
            .input(2)
            .input(3)
            .input(if has_gamma { 4 } else { 2 })
            .bind(Operand::Output(1), Access::Read)
            .bind(Operand::Output(2), Access::Read)
            .output(0)
            .work(5 * elements, 3 * size * elements);
        let partial = TensorType::f32([reduce.count(), reduce.channels]);
        Ok(Lowered { scratch: vec![partial; 2], dispatches: vec![sums, merge, grad_x] })
    }
}
