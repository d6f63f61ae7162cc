//! CPU twin.

use super::SgdConfig;
use crate::ops::{Array, Real, Twin};

pub(super) struct SgdTwin {
    pub config: SgdConfig,
}

/// Inputs: parameter, gradient, velocity, learning rate.
impl Twin for SgdTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let [momentum, decay] = [self.config.momentum, self.config.weight_decay].map(|v| T::of(f64::from(v)));
        let lr = inputs[3].data[0];
        let g = inputs[1].zip(&inputs[0], |g, w| g + decay * w);
        let velocity = inputs[2].zip(&g, |v, g| momentum * v + g);
        let direction = if self.config.nesterov { g.zip(&velocity, |g, v| g + momentum * v) } else { velocity.clone() };
        vec![inputs[0].zip(&direction, |w, d| w - lr * d), velocity]
    }

    fn backward<T: Real>(&self, _: &[Array<T>], _: &[Array<T>]) -> Vec<Option<Array<T>>> {
        vec![]
    }
}

pub(super) struct TickTwin;

impl Twin for TickTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        vec![inputs[0].map(|step| step + T::one())]
    }

    fn backward<T: Real>(&self, _: &[Array<T>], _: &[Array<T>]) -> Vec<Option<Array<T>>> {
        vec![]
    }
}
