//! Adam (Kingma and Ba, 2015, algorithm 1) and AdamW (Loshchilov and Hutter, 2019, algorithm 2), in place, as PyTorch
//! defines them: `m = b1 m + (1 - b1) g`, `v = b2 v + (1 - b2) g^2`, `w -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 -
//! b2^t) + eps)`; weight decay is added to the gradient, or, decoupled, shrinks w by `1 - lr * weight_decay` first. No
//! gradient.
//!
//! The step counter and the bias corrections `1 - b^t` live on the device and are moved by [`adam_tick`].

mod cases;
mod reference;

pub use cases::{cases, random};

use super::loss_scale::unscaled;
use super::sgd::{TICK, TickParams, check_update};
use crate::autograd::{Lower, Lowered, Op, Tape, Tensor};
use crate::error::Result;
use crate::gpu::{Access, Dispatch, Kernel, Operand, Source, Uniform, uniform_block};
use crate::ops::{fours, reading};
use crate::tensor::TensorType;

static SOURCE: Source = crate::wgsl!("adam.wgsl", crate::ops::FOURS, crate::ops::FINITE);

uniform_block! {
    /// Mirrors `Params` of `adam.wgsl`.
    struct Params {
        fours: u32,
        beta1: f32,
        beta2: f32,
        rest1: f32,
        rest2: f32,
        eps: f32,
        weight_decay: f32,
        decoupled: u32,
        count: u32,
    }
}

/// The constants of Adam.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub eps: f32,
    /// Weight decay.
    pub weight_decay: f32,
    /// Whether the decay acts on the parameter itself (AdamW) rather than through the gradient.
    pub decoupled: bool,
}

/// Appends an update of `parameter`, `m` and `v` (variables of one shape). `lr` is `[1]`; `correction` `[2]` is what
/// [`adam_tick`] moves; `fault`, a u32 variable `[1]`, becomes 1 if a new parameter or second moment is not finite. Where the
/// loss is scaled, `unscale` `[1]` multiplies the gradient; nothing changes if it is 0 (see
/// [`loss_scale`](crate::ops::loss_scale)).
///
/// # Errors
/// [`Kind::Shape`](crate::Kind::Shape) if the shapes do not go together.
#[allow(clippy::too_many_arguments, reason = "the tensors of the algorithm, one each")]
pub fn adam_update(
    tape: &mut Tape,
    parameter: Tensor,
    gradient: Tensor,
    m: Tensor,
    v: Tensor,
    lr: Tensor,
    correction: Tensor,
    fault: Tensor,
    unscale: Option<Tensor>,
    config: AdamConfig,
) -> Result<()> {
    let mut inputs = vec![parameter, gradient, m, v, lr, correction, fault];
    inputs.extend(unscale);
    tape.push(Update { config }, &inputs).map(drop)
}

/// Appends a count of the step `[1]` (u32) and a move of the bias corrections `[2]`, both of which start at zero;
/// neither where `unscale` is 0.
///
/// # Errors
/// [`Kind::Shape`](crate::Kind::Shape) if they are of other types.
pub fn adam_tick(
    tape: &mut Tape,
    step: Tensor,
    correction: Tensor,
    unscale: Option<Tensor>,
    beta1: f64,
    beta2: f64,
) -> Result<()> {
    let mut inputs = vec![step, correction];
    inputs.extend(unscale);
    tape.push(Tick { beta1, beta2 }, &inputs).map(drop)
}

#[derive(Debug)]
struct Update {
    config: AdamConfig,
}

impl Op for Update {
    fn name(&self) -> &'static str {
        "adam"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        check_update(&inputs[..4], &inputs[4..], &[TensorType::f32([1]), TensorType::f32([2]), TensorType::u32([1])])
    }

    fn updates(&self) -> &'static [usize] {
        &[0, 2, 3, 6]
    }

    fn raises(&self) -> &'static [usize] {
        &[6]
    }

    fn side_by_side(&self) -> Option<&'static [usize]> {
        Some(&[0, 1, 2, 3])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let count = cx.inputs[0].shape.len();
        let (fours, grid) = fours(count);
        let AdamConfig { beta1, beta2, eps, weight_decay, decoupled } = self.config;
        let params = Params {
            fours,
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            rest1: (1.0 - beta1) as f32,
            rest2: (1.0 - beta2) as f32,
            eps,
            weight_decay,
            decoupled: decoupled.into(),
            count: count as u32,
        };
        let kernel = unscaled(Kernel::new(&SOURCE, "update"), (cx.inputs.len() == 8).then_some(8));
        let read = |i: usize| reading(&cx.inputs[i], true, cx.caps);
        let dispatch = Dispatch::new(kernel, params.block(), grid)
            .bind(Operand::Input(0), Access::ReadWrite)
            .load("gradient", Operand::Input(1), read(1))
            .bind(Operand::Input(2), Access::ReadWrite)
            .bind(Operand::Input(3), Access::ReadWrite)
            .input(4)
            .input(5)
            .bind(Operand::Input(6), Access::ReadWrite);
        let dispatch = (7..cx.inputs.len()).fold(dispatch, Dispatch::input);
        let dispatch = [("parameter", 0), ("m", 2), ("v", 3)]
            .into_iter()
            .fold(dispatch, |dispatch, (name, i)| dispatch.load_written(name, Operand::Input(i), read(i)));
        Ok(Lowered::one(dispatch.work(14 * count as u64, 28 * count as u64)))
    }
}

#[derive(Debug)]
struct Tick {
    beta1: f64,
    beta2: f64,
}

impl Op for Tick {
    fn name(&self) -> &'static str {
        "adam.tick"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        check_update(&[], inputs, &[TensorType::u32([1]), TensorType::f32([2])])
    }

    fn updates(&self) -> &'static [usize] {
        &[0, 1]
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let params = TickParams {
            beta1: self.beta1 as f32,
            beta2: self.beta2 as f32,
            rest1: (1.0 - self.beta1) as f32,
            rest2: (1.0 - self.beta2) as f32,
        };
        let scaled = cx.inputs.len() == 3;
        let kernel = unscaled(Kernel::new(&TICK, "adam"), scaled.then_some(2));
        let kernel = kernel.with_u32("CORRECTION", if scaled { 3 } else { 2 });
        let dispatch = Dispatch::new(kernel, params.block(), [1; 3]).bind(Operand::Input(0), Access::ReadWrite);
        let dispatch = (2..cx.inputs.len()).fold(dispatch, Dispatch::input);
        Ok(Lowered::one(dispatch.bind(Operand::Input(1), Access::ReadWrite)))
    }
}
