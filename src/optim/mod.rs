//! Optimizers and learning-rate schedules. The update kernels are ops (`ops::sgd`, `ops::adam`); here they are
//! appended to a tape, one for each parameter, with their state as variables called `optimizer.…`.

use crate::autograd::{Gradients, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::ops::{STEP, adam, sgd};
use crate::tensor::TensorType;

/// The prefix of every variable that belongs to the optimizer rather than to the model.
pub const STATE_PREFIX: &str = "optimizer.";

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
    /// Appends the updates of every trainable variable that a gradient reached. `lr` is the learning rate, `[1]`.
    ///
    /// # Errors
    /// [`Kind::Internal`] if no parameter has a gradient.
    pub fn append(&self, tape: &mut Tape, gradients: &Gradients, lr: Tensor) -> Result<()> {
        let outer = tape.set_scope("optimizer");
        let step = tape.variable(STEP, TensorType::u32([1]), false)?;
        let pairs: Vec<(String, Tensor, Tensor)> = tape
            .trainable()
            .into_iter()
            .filter_map(|(name, parameter)| gradients.get(parameter).map(|g| (name, parameter, g)))
            .collect();
        if pairs.is_empty() {
            return Err(Error::new(Kind::Internal, "no parameter has a gradient"));
        }
        let bias = match self {
            Self::Adam(config) => {
                let bias = tape.variable(&format!("{STATE_PREFIX}bias_correction"), TensorType::f32([2]), false)?;
                adam::adam_tick(tape, step, bias, config.beta1, config.beta2)?;
                Some(bias)
            }
            Self::Sgd { .. } => {
                sgd::tick(tape, step)?;
                None
            }
        };
        for (name, parameter, gradient) in pairs {
            let ty = tape.ty(parameter).clone();
            let mut state = |what: &str| tape.variable(&format!("{STATE_PREFIX}{what}.{name}"), ty.clone(), false);
            match (self, bias) {
                (Self::Adam(config), Some(bias)) => {
                    let (m, v) = (state("m")?, state("v")?);
                    adam::adam_update(tape, parameter, gradient, m, v, lr, bias, *config)?;
                }
                (Self::Sgd { momentum, weight_decay, nesterov }, _) => {
                    let velocity = state("velocity")?;
                    let config =
                        sgd::SgdConfig { momentum: *momentum, weight_decay: *weight_decay, nesterov: *nesterov };
                    sgd::sgd_update(tape, parameter, gradient, velocity, lr, config)?;
                }
                (Self::Adam(_), None) => return Err(Error::new(Kind::Internal, "Adam without its bias correction")),
            }
        }
        tape.set_scope(outer);
        Ok(())
    }
}

/// How the learning rate changes from step to step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// Always the same.
    Constant,
    /// Half a cosine from the full rate to zero over all steps (Loshchilov and Hutter, "SGDR", 2017, equation 5,
    /// without restarts).
    Cosine,
}

impl Schedule {
    /// The learning rate of step `step` (from 0) of `steps`.
    pub fn rate(self, base: f64, step: u64, steps: u64) -> f64 {
        match self {
            Self::Constant => base,
            Self::Cosine => {
                let progress = (step as f64 / steps.max(1) as f64).min(1.0);
                base * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosine_starts_full_halves_midway_and_ends_at_zero() {
        let rate = |step| Schedule::Cosine.rate(0.1, step, 100);
        assert_eq!(rate(0), 0.1);
        assert!((rate(50) - 0.05).abs() < 1e-12 && rate(100).abs() < 1e-12 && rate(1000).abs() < 1e-12);
        assert_eq!(Schedule::Constant.rate(0.1, 99, 100), 0.1);
    }
}
