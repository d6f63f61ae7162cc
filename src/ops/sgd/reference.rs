//! CPU twin.

use super::SgdConfig;
use crate::ops::{Array, Real, Twin};

/// The flag, up if it was or if one of `results` is not finite.
pub(in crate::ops) fn raised<T: Real>(flag: &Array<T>, results: &[&Array<T>]) -> Array<T> {
    // As the device has them.
    let finite = |v: &T| (v.f64() as f32).is_finite();
    let fault = results.iter().any(|result| !result.data.iter().all(finite));
    flag.map(|up| if fault { T::one() } else { up })
}

pub(super) struct SgdTwin {
    pub config: SgdConfig,
}

/// Inputs: parameter, gradient, velocity, learning rate, fault, and the gradient's factor if the loss is scaled.
impl Twin for SgdTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let [momentum, decay] = [self.config.momentum, self.config.weight_decay].map(|v| T::of(f64::from(v)));
        let lr = inputs[3].data[0];
        let factor = inputs.get(5).map_or(T::one(), |unscale| unscale.data[0]);
        if factor == T::zero() {
            return [0, 2, 4].map(|i| inputs[i].clone()).to_vec();
        }
        let g = inputs[1].map(|g| factor * g).zip(&inputs[0], |g, w| g + decay * w);
        let velocity = inputs[2].zip(&g, |v, g| momentum * v + g);
        let direction = if self.config.nesterov { g.zip(&velocity, |g, v| g + momentum * v) } else { velocity.clone() };
        let w = inputs[0].zip(&direction, |w, d| w - lr * d);
        let fault = raised(&inputs[4], &[&w]);
        vec![w, velocity, fault]
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
