//! Optimizers, learning-rate schedules and averages of weights. The update kernels are ops (`ops::sgd`, `ops::adam`,
//! `ops::ema`); here they are appended to a tape, one for each parameter, with their state as variables called
//! `optimizer.…`.

mod average;

pub use average::{append_averages, average_of};

use crate::autograd::{Gradients, Store, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::gpu::Gpu;
use crate::ops::loss_scale::{self, INITIAL_SCALE};
use crate::ops::{STEP, adam, clip_norm, scale, sgd};
use crate::tensor::{HostTensor, TensorType};

/// The prefix of every variable that belongs to the optimizer rather than to the model.
pub const STATE_PREFIX: &str = "optimizer.";

/// The scope of what optimizers append to a tape.
pub const SCOPE: &str = "optimizer";

/// How parameters follow their gradients.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Optimizer {
    /// Stochastic gradient descent with momentum, as PyTorch defines it.
    Sgd {
        /// Share of the former velocity that is kept.
        momentum: f32,
        /// Added to the gradient, times the parameter.
        weight_decay: f32,
        /// Look ahead along the velocity (Nesterov).
        nesterov: bool,
    },
    /// Adam (Kingma and Ba, 2015, algorithm 1), or AdamW (Loshchilov and Hutter, 2019, algorithm 2) if `decoupled`.
    Adam(adam::AdamConfig),
}

impl Optimizer {
    /// Appends the updates of every trainable variable that a gradient reached. `lr` is the learning rate, `[1]`. With
    /// `scaling` the gradients are those of the scaled loss, and if one of them is not finite nothing is updated. Returns
    /// what tells whether something was wrong.
    ///
    /// # Errors
    /// [`Kind::Internal`] if no parameter has a gradient.
    pub fn append(
        &self,
        tape: &mut Tape,
        gradients: &Gradients,
        lr: Tensor,
        scaling: Option<&LossScaling>,
    ) -> Result<Verdict> {
        let all = Group { rate: 1.0, weight_decay: self.weight_decay() };
        self.append_in_groups(tape, gradients, lr, scaling, None, &|_| all)
    }

    /// As [`append`](Self::append), with the group that each variable, by its name, is in. With `clip`, the norm of all
    /// gradients together, without the loss's scale, is brought down to this where it is larger.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn append_in_groups(
        &self,
        tape: &mut Tape,
        gradients: &Gradients,
        lr: Tensor,
        scaling: Option<&LossScaling>,
        clip: Option<f64>,
        group_of: &dyn Fn(&str) -> Group,
    ) -> Result<Verdict> {
        let outer = tape.set_scope(SCOPE);
        let step = tape.variable(STEP, TensorType::u32([1]), false)?;
        let pairs: Vec<(String, Tensor, Tensor)> = tape
            .trainable()
            .into_iter()
            .filter_map(|(name, parameter)| gradients.get(parameter).map(|g| (name, parameter, g)))
            .collect();
        if pairs.is_empty() {
            return Err(Error::new(Kind::Internal, "no parameter has a gradient"));
        }
        let unscale = match scaling {
            None => None,
            Some(scaling) => {
                pairs.iter().try_for_each(|(_, _, gradient)| loss_scale::check(tape, scaling.flag, *gradient))?;
                Some(loss_scale::decide(tape, scaling.flag, scaling.scale, scaling.steps)?)
            }
        };
        let multiply = match clip {
            None => unscale,
            Some(most) => {
                let total = tape.variable(SQUARES, TensorType::f32([1]), false)?;
                pairs.iter().try_for_each(|(_, _, gradient)| clip_norm::add_squares(tape, total, *gradient))?;
                Some(clip_norm::factor(tape, total, unscale, most)?)
            }
        };
        let bias = match self {
            Self::Adam(config) => {
                let bias = tape.variable(&format!("{STATE_PREFIX}bias_correction"), TensorType::f32([2]), false)?;
                adam::adam_tick(tape, step, bias, unscale, config.beta1, config.beta2)?;
                Some(bias)
            }
            Self::Sgd { .. } => {
                sgd::tick(tape, step, unscale)?;
                None
            }
        };
        let fault = tape.variable(FAULT, TensorType::u32([1]), false)?;
        // The learning rate times each factor, computed once.
        let mut rates: Vec<(f32, Tensor)> = vec![(1.0, lr)];
        for (name, parameter, gradient) in pairs {
            let group = group_of(&name);
            let lr = match rates.iter().find(|(factor, _)| *factor == group.rate) {
                Some(&(_, rate)) => rate,
                None => {
                    let rate = scale::scale(tape, lr, group.rate)?;
                    rates.push((group.rate, rate));
                    rate
                }
            };
            let ty = tape.ty(parameter).clone();
            let mut state = |what: &str| tape.variable(&format!("{STATE_PREFIX}{what}.{name}"), ty.clone(), false);
            match (self, bias) {
                (Self::Adam(config), Some(bias)) => {
                    let (m, v) = (state("m")?, state("v")?);
                    let config = adam::AdamConfig { weight_decay: group.weight_decay, ..*config };
                    adam::adam_update(tape, parameter, gradient, m, v, lr, bias, fault, multiply, config)?;
                }
                (&Self::Sgd { momentum, nesterov, .. }, _) => {
                    let velocity = state("velocity")?;
                    let config = sgd::SgdConfig { momentum, weight_decay: group.weight_decay, nesterov };
                    sgd::sgd_update(tape, parameter, gradient, velocity, lr, fault, multiply, config)?;
                }
                (Self::Adam(_), None) => return Err(Error::new(Kind::Internal, "Adam without its bias correction")),
            }
        }
        tape.set_scope(outer);
        Ok(Verdict { fault, unscale })
    }

    /// The weight decay of variables without one of their own.
    pub fn weight_decay(&self) -> f32 {
        match self {
            Self::Sgd { weight_decay, .. } => *weight_decay,
            Self::Adam(config) => config.weight_decay,
        }
    }
}

/// What there is to tell of a step besides the parameters.
#[derive(Debug, Clone, Copy)]
pub struct Verdict {
    /// Whether this or an earlier step made a number that is not finite, u32 `[1]`: see [`FAULT`].
    pub fault: Tensor,
    /// With a scaled loss: one over its scale, or 0 if a gradient overflowed and nothing was updated, `[1]`.
    pub unscale: Option<Tensor>,
}

/// What an optimizer does to some parameters but not to others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Group {
    /// The learning rate is multiplied by it.
    pub rate: f32,
    /// Weight decay.
    pub weight_decay: f32,
}

/// The loss scale, `[1]`.
const LOSS_SCALE: &str = "optimizer.loss_scale";
/// Steps since the loss scale changed, and steps that were skipped in all: f32 `[2]`, so that checkpoints hold it.
const LOSS_SCALE_STEPS: &str = "optimizer.loss_scale_steps";
/// Whether a gradient of the running step overflowed, u32 `[1]`; always 0 between steps.
const OVERFLOW: &str = "optimizer.overflow";

/// The sum of squares of the running step's gradients, `[1]`; always 0 between steps, so it is no part of the state.
const SQUARES: &str = "squares of gradients";

/// Whether an optimizer step so far made a number that is not finite, u32 `[1]`: it stays 1, so it is no part of a
/// checkpoint's state, which has none.
pub const FAULT: &str = "fault";

/// Dynamic loss scaling, for gradients in f16: see [`loss_scale`]. Its state is in variables.
#[derive(Debug, Clone, Copy)]
pub struct LossScaling {
    scale: Tensor,
    steps: Tensor,
    flag: Tensor,
}

impl LossScaling {
    /// The names of its float state.
    pub const STATE: [&'static str; 2] = [LOSS_SCALE, LOSS_SCALE_STEPS];

    /// Declares its variables, before the backward pass.
    ///
    /// # Errors
    /// [`Kind::Shape`] if variables of these names exist with another type.
    pub fn declare(tape: &mut Tape) -> Result<Self> {
        Ok(Self {
            scale: tape.variable(LOSS_SCALE, TensorType::f32([1]), false)?,
            steps: tape.variable(LOSS_SCALE_STEPS, TensorType::f32([2]), false)?,
            flag: tape.variable(OVERFLOW, TensorType::u32([1]), false)?,
        })
    }

    /// The gradient that the backward pass starts from, `[1]`.
    pub fn seed(&self) -> Tensor {
        self.scale
    }

    /// Writes the first step's scale, if `store` has it.
    ///
    /// # Errors
    /// None but of a store with a variable of that name and another shape.
    pub fn initialise(gpu: &Gpu, store: &Store) -> Result<()> {
        match store.types().any(|(name, _)| name == LOSS_SCALE) {
            true => store.write(gpu, LOSS_SCALE, &HostTensor::full([1], INITIAL_SCALE)),
            false => Ok(()),
        }
    }

    /// How many steps the state of an optimizer says were skipped; `get` finds its tensors by name.
    pub fn skipped<'a>(get: impl FnOnce(&str) -> Option<&'a HostTensor>) -> u64 {
        get(LOSS_SCALE_STEPS).and_then(|steps| steps.data().get(1)).map_or(0, |&skipped| skipped as u64)
    }
}

/// How the learning rate changes from step to step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Schedule {
    /// Always the same.
    Constant,
    /// Half a cosine from the full rate to zero over all steps (Loshchilov and Hutter, "SGDR", 2017, equation 5,
    /// without restarts).
    Cosine,
    /// The rate is multiplied by `factor` after each `every` steps.
    Step {
        /// Steps between two falls, at least 1.
        every: u64,
        /// What the rate is multiplied by.
        factor: f64,
    },
}

impl Schedule {
    /// The learning rate of step `step` (from 0) of `steps`, of which the first `warm_up` rise to the full rate in equal
    /// parts (Goyal et al., "Accurate, large minibatch SGD", 2017, section 2.2). The schedule begins behind them.
    pub fn rate_after(self, warm_up: u64, base: f64, step: u64, steps: u64) -> f64 {
        match step.checked_sub(warm_up) {
            None => base * (step + 1) as f64 / warm_up as f64,
            Some(step) => self.rate(base, step, steps.saturating_sub(warm_up)),
        }
    }

    /// The learning rate of step `step` (from 0) of `steps`.
    pub fn rate(self, base: f64, step: u64, steps: u64) -> f64 {
        match self {
            Self::Constant => base,
            Self::Cosine => {
                let progress = (step as f64 / steps.max(1) as f64).min(1.0);
                base * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
            Self::Step { every, factor } => base * factor.powi(i32::try_from(step / every.max(1)).unwrap_or(i32::MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use approx::assert_abs_diff_eq;

    use super::*;

    #[test]
    fn cosine_starts_full_halves_midway_and_ends_at_zero() {
        let rate = |step| Schedule::Cosine.rate(0.1, step, 100);
        assert_eq!(rate(0), 0.1);
        for (step, want) in [(50, 0.05), (100, 0.0), (1000, 0.0)] {
            assert_abs_diff_eq!(rate(step), want, epsilon = 1e-12);
        }
        assert_eq!(Schedule::Constant.rate(0.1, 99, 100), 0.1);
    }

    #[test]
    fn steps_fall_and_warm_ups_rise() {
        let falls = Schedule::Step { every: 10, factor: 0.1 };
        let close = |a: f64, b: f64| assert_abs_diff_eq!(a, b, epsilon = 1e-12);
        for (step, rate) in [(0, 1.0), (9, 1.0), (10, 0.1), (25, 0.01)] {
            close(falls.rate(1.0, step, 100), rate);
        }
        for (step, rate) in [(0, 0.25), (2, 0.75), (3, 1.0), (4, 1.0), (13, 1.0), (14, 0.1)] {
            close(falls.rate_after(4, 1.0, step, 100), rate);
        }
        let cosine = |step| Schedule::Cosine.rate_after(20, 1.0, step, 120);
        close(cosine(20), 1.0);
        close(cosine(70), 0.5);
        close(cosine(120), 0.0);
        close(Schedule::Constant.rate_after(0, 0.3, 0, 10), 0.3);
        close(Schedule::Constant.rate_after(20, 1.0, 5, 10), 0.3);
    }

    /// A resumed run's step counter does not count them.
    #[test]
    fn skipped_steps_are_read_from_the_state() {
        let state = HostTensor::new([2], vec![17.0, 3.0]);
        assert_eq!(LossScaling::skipped(|name| (name == "optimizer.loss_scale_steps").then_some(&state)), 3);
        assert_eq!(LossScaling::skipped(|_| None), 0);
    }
}
