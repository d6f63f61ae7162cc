//! CPU twin.

use super::SgdConfig;
use crate::ops::{Array, Real, Twin};

pub(super) struct SgdTwin {
    pub config: SgdConfig,
}

/// Inputs: parameter, gradient, velocity, learning rate, and the gradient's factor if the loss is scaled.
impl Twin for SgdTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let [momentum, decay] = [self.config.momentum, self.config.weight_decay].map(|v| T::of(f64::from(v)));
        let lr = inputs[3].data[0];
        let factor = inputs.get(4).map_or(T::one(), |unscale| unscale.data[0]);
        if factor == T::zero() {
            return vec![inputs[0].clone(), inputs[2].clone()];
        }
        let g = inputs[1].map(|g| factor * g).zip(&inputs[0], |g, w| g + decay * w);
        let velocity = inputs[2].zip(&g, |v, g| momentum * v + g);
        let direction = if self.config.nesterov { g.zip(&velocity, |g, v| g + momentum * v) } else { velocity.clone() };
        vec![inputs[0].zip(&direction, |w, d| w - lr * d), velocity]
    }

    fn backward<T: Real>(&self, _: &[Array<T>], _: &[Array<T>]) -> Vec<Option<Array<T>>> {
        vec![]
    }
}

pub(super) struct TickTwin;

/// Inputs: the step, and the gradient's factor if the loss is scaled.
impl Twin for TickTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let skipped = inputs.get(1).is_some_and(|unscale| unscale.data[0] == T::zero());
        vec![inputs[0].map(|step| if skipped { step } else { step + T::one() })]
    }

    fn backward<T: Real>(&self, _: &[Array<T>], _: &[Array<T>]) -> Vec<Option<Array<T>>> {
        vec![]
    }
}
