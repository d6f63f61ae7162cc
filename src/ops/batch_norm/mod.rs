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
//! `d_x = gamma / std * (d_y - d_beta / R - xh * d_gamma / R)`; in evaluation the last two terms are absent. So there,
//! where neither beta nor gamma is trained, nothing is summed up and x is not read.
//!
//! The planner fuses what follows and precedes: a residual added and a ReLU in the forward pass, the gradient of that
//! ReLU in the backward pass (not that of a frozen layer where the shortcut reads it too). The result is the same to the bit in f32; in f16 a residual saves one rounding.
//!
//! Behind a convolution the statistics of runs of rows come from its kernel, which sums them up as it stores its
//! result; where these are more than a few hundred, several are merged to one at first.
//!
//! Where ranks normalise together, the statistics of a rank's rows and, backward, its two sums become one run, which the host
//! replaces by that of all ranks before it is merged; fusion is as without.
//!
//! Kernels: a lane takes four channels where C is a multiple of four; runs of rows are reduced side by side, then merged
//! in order with the formula of Chan, Golub and LeVeque; sums are shifted, so a large mean costs no digits. Results
//! repeat bit for bit.

mod cases;
mod grad;
mod reference;

pub use cases::{cases, random};
pub(crate) use reference::BatchNormTwin;

use std::sync::Arc;

use self::grad::{Basis, gradients};
use crate::autograd::{Combine, Exchange, Finish, Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::gpu::{
    Access, Caps, Dispatch, Kernel, Library, Operand, Reading, Source, Uniform, grid, grid_for, uniform_block,
};
use crate::onnx;
use crate::ops::{Tail, WORKGROUP, float_shape, reading};
use crate::tensor::{HostTensor, Shape, TensorType};

static SOURCE: Source = crate::wgsl!("batch_norm.wgsl");
static MERGE: Source = crate::wgsl!("batch_norm_merge.wgsl");
static FOLD: Source = crate::wgsl!("batch_norm_fold.wgsl");

crate::library!(CHANNELS_VEC4, "channels_vec4.wgsl");
crate::library!(CHANNELS_SCALAR, "channels_scalar.wgsl");

uniform_block! {
    /// Mirrors `Params` of `batch_norm.wgsl` and `batch_norm_grad.wgsl`.
    struct Params { rows: u32, channels: u32, run: u32, runs: u32, eps: f32 }
}

uniform_block! {
    /// Mirrors `Params` of `batch_norm_merge.wgsl`.
    struct MergeParams { rows: u32, channels: u32, run: u32, runs: u32, group: u32, eps: f32, momentum: f32 }
}

uniform_block! {
    /// Mirrors `Params` of `batch_norm_fold.wgsl`.
    struct FoldParams { count: u32, channels: u32, eps: f32 }
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
    train(tape, [x, beta, running_mean, running_var], gamma, spec, None)
}

/// Batch normalisation over the rows of several ranks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shared {
    /// The constants.
    pub spec: BatchNorm,
    /// The rows of all ranks together.
    pub rows: usize,
}

/// As [`batch_norm_train`], with the statistics of the rows of all ranks: the plan stops twice, in the forward and in the
/// backward pass, for ranks to put theirs together (see [`Exchange`]). Without other ranks the rows are those of x.
///
/// # Errors
/// As [`batch_norm_train`], for a single row of all ranks.
pub fn batch_norm_shared(
    tape: &mut Tape,
    x: Tensor,
    gamma: Option<Tensor>,
    beta: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    Shared { spec, rows }: Shared,
) -> Result<Tensor> {
    train(tape, [x, beta, running_mean, running_var], gamma, spec, Some(rows))
}

fn train(
    tape: &mut Tape,
    inputs: [Tensor; 4],
    gamma: Option<Tensor>,
    spec: BatchNorm,
    all_rows: Option<usize>,
) -> Result<Tensor> {
    let inputs: Vec<Tensor> = inputs.into_iter().chain(gamma).collect();
    tape.push1(Train { spec, has_gamma: gamma.is_some(), tail: Tail::default(), given: None, all_rows }, &inputs)
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
    tape.push1(Eval { spec, has_gamma: gamma.is_some(), tail: Tail::default() }, &inputs)
}

/// How the rows of a tensor are cut into runs. Channels are counted in vectors of one or four.
#[derive(Debug, Clone, Copy)]
struct Runs {
    rows: usize,
    channels: usize,
    vector: usize,
    run: usize,
    lanes: u32,
}

/// At most this many runs are merged by one lane.
const MAX_RUNS: usize = 256;
/// Rows of a run where nothing is reduced.
const MAP_RUN: usize = 8;

impl Runs {
    fn new(shape: &Shape, run: usize) -> Self {
        let vector = if shape.last().is_multiple_of(4) { 4 } else { 1 };
        let channels = shape.last() / vector;
        // As many lanes along the channels as there are channels, rounded up, at most a workgroup.
        let lanes = (channels.next_power_of_two() as u32).min(WORKGROUP);
        Self { rows: shape.rows(), channels, vector, run, lanes }
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

    /// A vector of statistics for each run.
    fn partial(self) -> TensorType {
        TensorType::f32([self.count(), self.channels * self.vector])
    }

    /// A launch with the switches `flags` of its source.
    fn dispatch(
        self,
        source: &'static Source,
        entry: &'static str,
        flags: &[(&'static str, bool)],
        half: bool,
        spec: BatchNorm,
    ) -> Dispatch {
        let kernel =
            Kernel::new(source, entry).with_half(half).with_u32("LANES_C", self.lanes).with_library(self.library());
        let kernel = flags.iter().fold(kernel, |kernel, &(name, value)| kernel.with_bool(name, value));
        let params = Params {
            rows: self.rows as u32,
            channels: self.channels as u32,
            run: self.run as u32,
            runs: self.count() as u32,
            eps: spec.eps,
        };
        let workgroups = if matches!(entry, "merge" | "total") {
            grid_for(self.channels, WORKGROUP)
        } else {
            let runs_at_once = (WORKGROUP / self.lanes) as usize;
            let [x, y, _] = grid(self.count().div_ceil(runs_at_once) as u64);
            [x, y, self.channels.div_ceil(self.lanes as usize) as u32]
        };
        Dispatch::new(kernel, params.block(), workgroups)
    }

    /// A launch that merges the moments of these runs: `group` of them to one, or with `None` all.
    fn merge(self, group: Option<usize>, moments: [Operand; 2], half: bool, spec: BatchNorm) -> Dispatch {
        let (entry, merged) = group.map_or(("merge", 1), |group| ("merge_runs", self.count().div_ceil(group)));
        let kernel = Kernel::new(&MERGE, entry).with_half(half).with_library(self.library());
        let params = MergeParams {
            rows: self.rows as u32,
            channels: self.channels as u32,
            run: self.run as u32,
            runs: self.count() as u32,
            group: group.unwrap_or(1) as u32,
            eps: spec.eps,
            momentum: spec.momentum,
        };
        Dispatch::new(kernel, params.block(), grid_for(merged * self.channels, WORKGROUP))
            .bind(moments[0], Access::Read)
            .bind(moments[1], Access::Read)
    }

    /// How a map of the type of x is read, or bound if nothing reads it.
    fn reading(self, x: &TensorType, read: bool, caps: &Caps) -> Reading {
        let reading = reading(x, self.is_in_fours(), caps);
        Reading { copied: reading.copied.filter(|_| read), ..reading }
    }

    fn is_in_fours(self) -> bool {
        self.vector == 4
    }

    fn library(self) -> &'static Library {
        if self.is_in_fours() { &CHANNELS_VEC4 } else { &CHANNELS_SCALAR }
    }
}

/// The exchange of the last two tensors of scratch before the last two launches, which take them as those of all ranks.
fn meeting(how: Combine, x: &TensorType, lowered: &Lowered) -> Exchange {
    let (launches, scratch) = (lowered.dispatches.len(), lowered.scratch.len());
    let operands = vec![Operand::Scratch(scratch - 2), Operand::Scratch(scratch - 1)];
    Exchange { before: launches - 2, how, rows: x.shape.rows(), operands }
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

/// A forward kernel's launch over all elements: y from x, mean, deviation.
fn normalise(
    cx: &Lower<'_>,
    statistics: [Operand; 2],
    from_variance: bool,
    has_gamma: bool,
    tail: Tail,
    spec: BatchNorm,
) -> Dispatch {
    let flags =
        [("HAS_GAMMA", has_gamma), ("FROM_VARIANCE", from_variance), ("RESIDUAL", tail.residual), ("RELU", tail.relu)];
    let x = &cx.inputs[0];
    let (elements, size) = (x.shape.len() as u64, x.dtype.size() as u64);
    let residual = if tail.residual { 4 + usize::from(has_gamma) } else { 0 };
    let runs = Runs::map(&x.shape);
    runs.dispatch(&SOURCE, "normalise", &flags, x.is_half(), spec)
        .load("x", Operand::Input(0), runs.reading(x, true, cx.caps))
        .bind(statistics[0], Access::Read)
        .bind(statistics[1], Access::Read)
        .input(if has_gamma { 4 } else { 1 })
        .input(1)
        .load("residual", Operand::Input(residual), runs.reading(x, tail.residual, cx.caps))
        .output(0)
        .work(3 * elements, size * (2 + u64::from(tail.residual)) * elements)
}

/// Inputs: x, beta, running mean, running variance, gamma if there is one, the residual if there is one, the statistics of
/// runs if they are `given`.
#[derive(Debug, Clone, Copy)]
struct Train {
    spec: BatchNorm,
    has_gamma: bool,
    tail: Tail,
    /// Rows of a run whose mean and sum of squared deviations come from the kernel that makes x.
    given: Option<usize>,
    /// The rows of all ranks, where the statistics are those of all of them.
    all_rows: Option<usize>,
}

impl Op for Train {
    fn name(&self) -> &'static str {
        match (self.tail.residual, self.tail.relu) {
            (false, false) => "batch_norm",
            (false, true) => "batch_norm+relu",
            (true, false) => "batch_norm+add",
            (true, true) => "batch_norm+add+relu",
        }
    }

    /// y, mean `[C]`, inverse standard deviation `[C]`.
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let channels = check(inputs)?;
        if self.all_rows.unwrap_or(inputs[0].shape.rows()) < 2 {
            return Err(Error::new(Kind::Shape, "batch-norm cannot train on a single value per channel")
                .next("use a larger --batch or --size"));
        }
        Ok(vec![inputs[0].clone(), TensorType::f32([channels]), TensorType::f32([channels])])
    }

    fn updates(&self) -> &'static [usize] {
        &[2, 3]
    }

    fn with_finish(&self, step: Finish) -> Option<Arc<dyn Op>> {
        let tail = self.tail.then(step).filter(|_| self.given.is_none());
        tail.map(|tail| Arc::new(Self { tail, ..*self }) as Arc<dyn Op>)
    }

    fn given_statistics(&self, run: usize) -> Option<Arc<dyn Op>> {
        self.given.is_none().then(|| Arc::new(Self { given: Some(run), ..*self }) as Arc<dyn Op>)
    }

    fn backward(&self, tape: &mut Tape, node: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let statistics = [node.outputs[1], node.outputs[2]];
        gradients(tape, node, d_outputs, statistics, self.all_rows.map_or(Basis::Rows, Basis::AllRanks), self.spec)
    }

    fn exchange(&self, cx: &Lower<'_>, lowered: &Lowered) -> Option<Exchange> {
        self.all_rows.map(|_| meeting(Combine::Moments, &cx.inputs[0], lowered))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let shape = &cx.inputs[0].shape;
        let half = cx.inputs[0].is_half();
        let flags = [("HAS_GAMMA", false), ("FROM_VARIANCE", false), ("RESIDUAL", false), ("RELU", false)];
        let given = cx.inputs.len() - 2;
        let mut lowered = Lowered::default();
        // Runs to merge, and where their statistics are.
        let (mut runs, mut moments) = match self.given {
            Some(run) => (Runs::new(shape, run), [given, given + 1].map(Operand::Input)),
            None => (Runs::reduce(shape), [0, 1].map(Operand::Scratch)),
        };
        if self.given.is_none() {
            let (elements, size) = (shape.len() as u64, cx.inputs[0].dtype.size() as u64);
            let statistics = runs
                .dispatch(&SOURCE, "statistics", &flags, half, self.spec)
                .load("x", Operand::Input(0), runs.reading(&cx.inputs[0], true, cx.caps))
                .unread(&["residual"], runs.is_in_fours())
                .bind(moments[0], Access::ReadWrite)
                .bind(moments[1], Access::ReadWrite)
                .work(4 * elements, size * elements);
            lowered.scratch = vec![runs.partial(); 2];
            lowered.dispatches.push(statistics);
        } else if runs.count() > MAX_RUNS {
            let group = runs.count().div_ceil(MAX_RUNS);
            let longer = Runs { run: group * runs.run, ..runs };
            let merge_runs = runs
                .merge(Some(group), moments, half, self.spec)
                .bind(Operand::Scratch(0), Access::ReadWrite)
                .bind(Operand::Scratch(1), Access::ReadWrite);
            lowered.scratch = vec![longer.partial(); 2];
            lowered.dispatches.push(merge_runs);
            (runs, moments) = (longer, [0, 1].map(Operand::Scratch));
        }
        if let Some(rows) = self.all_rows {
            // The rows of this rank become one run, which then is that of all ranks.
            let (one, first) = (Runs { run: runs.rows, ..runs }, lowered.scratch.len());
            let own = [first, first + 1].map(Operand::Scratch);
            let merge_runs = runs
                .merge(Some(runs.count()), moments, half, self.spec)
                .bind(own[0], Access::ReadWrite)
                .bind(own[1], Access::ReadWrite);
            lowered.scratch.extend(vec![one.partial(); 2]);
            lowered.dispatches.push(merge_runs);
            (runs, moments) = (Runs { rows, run: rows, ..runs }, own);
        }
        let merge = runs
            .merge(None, moments, half, self.spec)
            .bind(Operand::Input(2), Access::ReadWrite)
            .bind(Operand::Input(3), Access::ReadWrite)
            .output(1)
            .output(2);
        let statistics = [Operand::Output(1), Operand::Output(2)];
        lowered.dispatches.push(merge);
        lowered.dispatches.push(normalise(cx, statistics, false, self.has_gamma, self.tail, self.spec));
        Ok(lowered)
    }
}

/// Inputs as those of [`Train`].
#[derive(Debug)]
struct Eval {
    spec: BatchNorm,
    has_gamma: bool,
    tail: Tail,
}

impl Op for Eval {
    fn name(&self) -> &'static str {
        "batch_norm.eval"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        check(inputs)?;
        Ok(vec![inputs[0].clone()])
    }

    fn fold(&self, has_bias: bool) -> Option<Arc<dyn Op>> {
        let fold = Fold { spec: self.spec, has_gamma: self.has_gamma, has_bias };
        (self.tail == Tail::default()).then(|| Arc::new(fold) as Arc<dyn Op>)
    }

    fn with_finish(&self, step: Finish) -> Option<Arc<dyn Op>> {
        let (spec, has_gamma) = (self.spec, self.has_gamma);
        self.tail.then(step).map(|tail| Arc::new(Self { spec, has_gamma, tail }) as Arc<dyn Op>)
    }

    fn backward(&self, tape: &mut Tape, node: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        gradients(tape, node, d_outputs, [node.inputs[2], node.inputs[3]], Basis::Running, self.spec)
    }

    fn onnx(&self, graph: &mut onnx::Graph, inputs: &[onnx::Value]) -> Result<onnx::Value> {
        let x = &inputs[0];
        let (rows, c) = (x.shape().rows(), x.shape().last());
        let map = x.shape().rank() == 4;
        let data = if map { graph.map(x)? } else { graph.rows(&x.view([rows, c]))? };
        let gamma = match inputs.get(4) {
            Some(gamma) => graph.rows(gamma)?,
            None => graph.constant("gamma", &HostTensor::full([c], 1.0)),
        };
        let [beta, mean, var] = [graph.rows(&inputs[1])?, graph.rows(&inputs[2])?, graph.rows(&inputs[3])?];
        let epsilon = [onnx::Attribute::Float("epsilon", self.spec.eps)];
        let y = graph.node_like("BatchNormalization", &[&data, &gamma, &beta, &mean, &var], &epsilon, &data);
        Ok(y.view(x.shape().clone()))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let statistics = [Operand::Input(2), Operand::Input(3)];
        Ok(Lowered::one(normalise(cx, statistics, true, self.has_gamma, self.tail, self.spec)))
    }
}

/// Folds batch-norm with running statistics into the convolution before it. Inputs: the weight `[.., C]`, its bias if
/// there is one, beta, mean, variance, gamma if there is one. Outputs: weight and bias.
#[derive(Debug)]
struct Fold {
    spec: BatchNorm,
    has_gamma: bool,
    has_bias: bool,
}

impl Op for Fold {
    fn name(&self) -> &'static str {
        "batch_norm.fold"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        check(inputs)?;
        Ok(vec![inputs[0].clone(), inputs[1].clone()])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let shape = &cx.inputs[0].shape;
        let (count, channels) = (shape.len(), shape.last());
        let params = FoldParams { count: count as u32, channels: channels as u32, eps: self.spec.eps };
        let kernel = |entry| {
            Kernel::new(&FOLD, entry)
                .with_half(cx.inputs[0].is_half())
                .with_bool("HAS_GAMMA", self.has_gamma)
                .with_bool("HAS_BIAS", self.has_bias)
        };
        let [beta, mean, variance, gamma] = std::array::from_fn(|i| 1 + usize::from(self.has_bias) + i);
        let gamma = if self.has_gamma { gamma } else { variance };
        let weight = Dispatch::new(kernel("weight"), params.block(), grid_for(count, WORKGROUP))
            .input(variance)
            .input(gamma)
            .input(0)
            .output(0);
        let bias = Dispatch::new(kernel("bias"), params.block(), grid_for(channels, WORKGROUP))
            .input(variance)
            .input(gamma)
            .input(mean)
            .input(beta)
            .input(if self.has_bias { 1 } else { mean })
            .output(1);
        Ok(Lowered { scratch: vec![], dispatches: vec![weight, bias] })
    }
}
