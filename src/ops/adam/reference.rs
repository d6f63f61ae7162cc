//! CPU twin.

use super::AdamConfig;
use crate::ops::sgd::raised;
use crate::ops::{Array, Real, Twin};

pub(super) struct AdamTwin {
    pub config: AdamConfig,
}

/// Inputs: parameter, gradient, m, v, learning rate, bias corrections, fault, and the gradient's factor if the loss is scaled.
impl Twin for AdamTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let c = self.config;
        let [b1, b2, eps, decay] = [c.beta1, c.beta2, f64::from(c.eps), f64::from(c.weight_decay)].map(T::of);
        let lr = inputs[4].data[0];
        let (c1, c2) = (inputs[5].data[0], inputs[5].data[1]);
        let w = if c.decoupled { inputs[0].map(|w| w * (T::one() - lr * decay)) } else { inputs[0].clone() };
        let factor = inputs.get(7).map_or(T::one(), |unscale| unscale.data[0]);
        if factor == T::zero() {
            return [0, 2, 3, 6].map(|i| inputs[i].clone()).to_vec();
        }
        let g = inputs[1].map(|g| factor * g);
        let g = if c.decoupled { g } else { g.zip(&inputs[0], |g, w| g + decay * w) };
        let m = inputs[2].zip(&g, |m, g| b1 * m + (T::one() - b1) * g);
        let v = inputs[3].zip(&g, |v, g| b2 * v + (T::one() - b2) * g * g);
        let step = m.zip(&v, |m, v| m / c1 / ((v / c2).sqrt() + eps));
        let w = w.zip(&step, |w, s| w - lr * s);
        let fault = raised(&inputs[6], &[&w, &v]);
        vec![w, m, v, fault]
    }

    fn backward<T: Real>(&self, _: &[Array<T>], _: &[Array<T>]) -> Vec<Option<Array<T>>> {
        vec![]
    }
}

pub(super) struct TickTwin {
    pub betas: [f64; 2],
}

/// Inputs: the step, the bias corrections of that step, which the closed form does not need, and the gradient's factor if
/// the loss is scaled.
impl Twin for TickTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        if inputs.get(2).is_some_and(|unscale| unscale.data[0] == T::zero()) {
            return inputs[..2].to_vec();
        }
        let step = inputs[0].map(|s| s + T::one());
        let t = step.data[0].f64() as i32;
        let corrections = self.betas.map(|b| T::of(1.0 - b.powi(t))).to_vec();
        vec![step, Array::new([2], corrections)]
    }

    fn backward<T: Real>(&self, _: &[Array<T>], _: &[Array<T>]) -> Vec<Option<Array<T>>> {
        vec![]
    }
}
