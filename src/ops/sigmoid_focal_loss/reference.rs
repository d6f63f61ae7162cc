//! CPU twin, straight from the definition.

use super::SigmoidFocal;
use crate::ops::{Array, Real, Twin};

pub(super) struct SigmoidFocalTwin {
    pub spec: SigmoidFocal,
}

impl SigmoidFocalTwin {
    fn alpha<T: Real>(&self, t: T) -> T {
        let blend = |a: f32| T::of(f64::from(a)) * t + T::of(f64::from(1.0 - a)) * (T::one() - t);
        self.spec.alpha.map_or(T::one(), blend)
    }

    fn power<T: Real>(&self, base: T, exponent: f32) -> T {
        if exponent == 0.0 { T::one() } else { (T::of(f64::from(exponent)) * base.ln()).exp() }
    }

    /// Each element's weight over the divisor.
    fn shares<T: Real>(inputs: &[Array<T>]) -> Vec<T> {
        let count = inputs[0].data.len();
        let weight = |i: usize| inputs.get(2).map_or(T::one(), |w| w.data[i / (count / w.data.len())]);
        let total: T = (0..count).map(weight).sum();
        (0..count).map(|i| if total > T::zero() { weight(i) / total } else { T::zero() }).collect()
    }
}

fn sigmoid<T: Real>(x: T) -> T {
    T::one() / (T::one() + (-x).exp())
}

/// The probability of being wrong, and binary cross-entropy.
fn parts<T: Real>(x: T, t: T) -> (T, T) {
    let minus_log_sigmoid = |v: T| (-v).max(T::zero()) + (-v.abs()).exp().ln_1p();
    let wrong = sigmoid(x) * (T::one() - t) + sigmoid(-x) * t;
    (wrong, t * minus_log_sigmoid(x) + (T::one() - t) * minus_log_sigmoid(-x))
}

impl Twin for SigmoidFocalTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let losses = inputs[0].zip(&inputs[1], |x, t| {
            let (wrong, cross_entropy) = parts(x, t);
            self.alpha(t) * self.power(wrong, self.spec.gamma) * cross_entropy
        });
        let loss = losses.data.iter().zip(Self::shares(inputs)).map(|(&l, w)| w * l).sum();
        vec![Array::new([1], vec![loss])]
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        let gamma = T::of(f64::from(self.spec.gamma));
        let mut d_x = inputs[0].zip(&inputs[1], |x, t| {
            let (wrong, cross_entropy) = parts(x, t);
            let (s, not_s) = (sigmoid(x), sigmoid(-x));
            // The product rule; sigmoid(x) - t = (1 - t) s - t (1 - s).
            let outer = self.power(wrong, self.spec.gamma) * ((T::one() - t) * s - t * not_s);
            let inner = (T::one() - t - t) * s * not_s;
            let bent = if self.spec.gamma == 0.0 {
                T::zero()
            } else {
                gamma * self.power(wrong, self.spec.gamma - 1.0) * inner * cross_entropy
            };
            self.alpha(t) * (outer + bent)
        });
        for (d, share) in d_x.data.iter_mut().zip(Self::shares(inputs)) {
            *d = *d * share * d_outputs[0].data[0];
        }
        let mut gradients = vec![None; inputs.len()];
        gradients[0] = Some(d_x);
        gradients
    }
}
