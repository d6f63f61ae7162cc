//! Stochastic gradient descent with momentum, in place, as PyTorch defines it: `g = d_w + weight_decay * w`,
//! `v = momentum * v + g`, `w -= lr * v` (with Nesterov `w -= lr * (g + momentum * v)`). And the step counter.
//!
//! The velocity starts at zero, which makes the first step a plain gradient step. No gradient.

mod cases;
mod reference;

pub use cases::{cases, random};
pub(super) use reference::raised;

use crate::autograd::{Lower, Lowered, Op, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Access, Dispatch, Kernel, Operand, Source, Uniform, uniform_block};
use crate::ops::loss_scale::unscaled;
use crate::ops::{f32_shape, fours, reading, same_shape};
use crate::tensor::TensorType;

static SOURCE: Source = crate::wgsl!("sgd.wgsl", crate::ops::FOURS, crate::ops::FINITE);
pub(super) static TICK: Source = crate::wgsl!("tick.wgsl");

uniform_block! {
    /// Mirrors `Params` of `sgd.wgsl`.
    struct Params { fours: u32, momentum: f32, weight_decay: f32, nesterov: u32, count: u32 }
}

uniform_block! {
    /// Mirrors `Params` of `tick.wgsl`.
    pub(super) struct TickParams { beta1: f32, beta2: f32, rest1: f32, rest2: f32 }
}

/// The constants of SGD.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdConfig {
    /// Share of the former velocity that is kept.
    pub momentum: f32,
    /// Added to the gradient, times the parameter.
    pub weight_decay: f32,
    /// Look ahead along the velocity.
    pub nesterov: bool,
}

/// Appends an update of `parameter` and `velocity` (variables of one shape); `lr` is `[1]`; `fault`, a u32 variable
/// `[1]`, becomes 1 if a new parameter is not finite. Where the loss is scaled, `unscale` `[1]` multiplies the gradient;
/// nothing changes if it is 0 (see [`loss_scale`](crate::ops::loss_scale)).
///
/// # Errors
/// [`Kind::Shape`] if the shapes differ.
#[allow(clippy::too_many_arguments, reason = "the tensors of the algorithm, one each")]
pub fn sgd_update(
    tape: &mut Tape,
    parameter: Tensor,
    gradient: Tensor,
    velocity: Tensor,
    lr: Tensor,
    fault: Tensor,
    unscale: Option<Tensor>,
    config: SgdConfig,
) -> Result<()> {
    let mut inputs = vec![parameter, gradient, velocity, lr, fault];
    inputs.extend(unscale);
    tape.push(Update { config }, &inputs).map(drop)
}

/// Appends an increment of the step counter, a u32 variable `[1]`, unless `unscale` is 0.
///
/// # Errors
/// [`Kind::Shape`] if it is of another type.
pub fn tick(tape: &mut Tape, step: Tensor, unscale: Option<Tensor>) -> Result<()> {
    let mut inputs = vec![step];
    inputs.extend(unscale);
    tape.push(Tick, &inputs).map(drop)
}

/// Checks that the optimizer's tensors are alike and that what follows them has the given types, with or without a
/// factor of the gradient in the end.
pub(super) fn check_update(alike: &[TensorType], rest: &[TensorType], want: &[TensorType]) -> Result<Vec<TensorType>> {
    if let Some(first) = alike.first() {
        f32_shape(first)?;
        same_shape(alike)?;
    }
    let scaled = [want, &[TensorType::f32([1])]].concat();
    if rest == want || rest == scaled {
        return Ok(vec![]);
    }
    Err(Error::new(Kind::Shape, format!("an optimizer takes {want:?} after its tensors, not {rest:?}")))
}

#[derive(Debug)]
struct Update {
    config: SgdConfig,
}

impl Op for Update {
    fn name(&self) -> &'static str {
        "sgd"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        check_update(&inputs[..3], &inputs[3..], &[TensorType::f32([1]), TensorType::u32([1])])
    }

    fn updates(&self) -> &'static [usize] {
        &[0, 2, 4]
    }

    fn raises(&self) -> &'static [usize] {
        &[4]
    }

    fn side_by_side(&self) -> Option<&'static [usize]> {
        Some(&[0, 1, 2])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let count = cx.inputs[0].shape.len();
        let SgdConfig { momentum, weight_decay, nesterov } = self.config;
        let (fours, grid) = fours(count);
        let params = Params { fours, momentum, weight_decay, nesterov: nesterov.into(), count: count as u32 };
        let scaled = (cx.inputs.len() == 6).then_some(6);
        let kernel = unscaled(Kernel::new(&SOURCE, "update"), scaled);
        let read = |i: usize| reading(&cx.inputs[i], true, cx.caps);
        let dispatch = Dispatch::new(kernel, params.block(), grid)
            .bind(Operand::Input(0), Access::ReadWrite)
            .load("gradient", Operand::Input(1), read(1))
            .bind(Operand::Input(2), Access::ReadWrite)
            .input(3)
            .bind(Operand::Input(4), Access::ReadWrite);
        let dispatch = (5..cx.inputs.len()).fold(dispatch, Dispatch::input);
        let dispatch = [("parameter", 0), ("velocity", 2)]
            .into_iter()
            .fold(dispatch, |dispatch, (name, i)| dispatch.load_written(name, Operand::Input(i), read(i)));
        Ok(Lowered::one(dispatch.work(6 * count as u64, 20 * count as u64)))
    }
}

#[derive(Debug)]
struct Tick;

impl Op for Tick {
    fn name(&self) -> &'static str {
        "tick"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        check_update(&[], inputs, &[TensorType::u32([1])])
    }

    fn updates(&self) -> &'static [usize] {
        &[0]
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let params = TickParams { beta1: 0.0, beta2: 0.0, rest1: 0.0, rest2: 0.0 };
        let scaled = cx.inputs.len() == 2;
        let kernel = unscaled(Kernel::new(&TICK, "plain"), scaled.then_some(2));
        let kernel = kernel.with_u32("CORRECTION", if scaled { 3 } else { 2 });
        let dispatch = Dispatch::new(kernel, params.block(), [1; 3]).bind(Operand::Input(0), Access::ReadWrite);
        Ok(Lowered::one((1..cx.inputs.len()).fold(dispatch, Dispatch::input)))
    }
}
