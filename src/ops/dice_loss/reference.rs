//! CPU twin, straight from the definitions.

use super::Overlap;
use crate::ops::{Array, Real, Twin};

pub(super) struct OverlapTwin {
    pub spec: Overlap,
    pub jaccard: bool,
}

fn sigmoid<T: Real>(x: T) -> T {
    T::one() / (T::one() + (-x).exp())
}

impl OverlapTwin {
    /// Numerator and denominator of the overlap, of the sums of `s t`, `s` and `t`.
    fn fraction<T: Real>(&self, [both, s, t]: [T; 3]) -> (T, T) {
        let e = T::of(f64::from(self.spec.smoothing));
        if self.jaccard { (both + e, s + t - both + e) } else { (T::of(2.0) * both + e, s + t + e) }
    }

    /// The images as groups: offsets and a weight of each element, and the weight of the group's loss.
    fn groups<T: Real>(&self, inputs: &[Array<T>]) -> Vec<(Vec<(usize, T)>, T)> {
        let images = inputs[0].shape.dims()[0];
        let elements = inputs[0].data.len() / images;
        let weight = |n: usize| inputs.get(2).map_or(T::one(), |w| w.data[n]);
        let image = |n: usize, w: T| (n * elements..(n + 1) * elements).map(move |i| (i, w));
        if !self.spec.per_image {
            return vec![((0..images).flat_map(|n| image(n, weight(n))).collect(), T::one())];
        }
        let total: T = (0..images).map(weight).sum();
        let share = |n| if total > T::zero() { weight(n) / total } else { T::zero() };
        (0..images).map(|n| (image(n, T::one()).collect(), share(n))).collect()
    }

    fn sums<T: Real>(inputs: &[Array<T>], group: &[(usize, T)]) -> [T; 3] {
        let s = |i: usize| sigmoid(inputs[0].data[i]);
        let t = |i: usize| inputs[1].data[i];
        let sum = |f: &dyn Fn(usize) -> T| group.iter().map(|&(i, w)| w * f(i)).sum();
        [sum(&|i| s(i) * t(i)), sum(&s), sum(&t)]
    }
}

impl Twin for OverlapTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let mut loss = T::zero();
        for (group, share) in self.groups(inputs) {
            let (numerator, denominator) = self.fraction(Self::sums(inputs, &group));
            if denominator > T::zero() {
                loss += share * (T::one() - numerator / denominator);
            }
        }
        vec![Array::new([1], vec![loss])]
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        let mut d_x = inputs[0].map(|_| T::zero());
        for (group, share) in self.groups(inputs) {
            let (numerator, denominator) = self.fraction(Self::sums(inputs, &group));
            if denominator <= T::zero() {
                continue;
            }
            for &(i, w) in &group {
                let (x, t) = (inputs[0].data[i], inputs[1].data[i]);
                let (up, down) = if self.jaccard { (t, T::one() - t) } else { (T::of(2.0) * t, T::one()) };
                // The quotient rule for one minus the overlap.
                let slope = (numerator * down - up * denominator) / (denominator * denominator);
                d_x.data[i] = d_outputs[0].data[0] * share * w * slope * sigmoid(x) * sigmoid(-x);
            }
        }
        let mut gradients = vec![None; inputs.len()];
        gradients[0] = Some(d_x);
        gradients
    }
}
