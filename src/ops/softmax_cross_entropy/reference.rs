//! CPU twin, straight from the definition.

use crate::ops::{Array, Real, Twin};

pub(super) struct CrossEntropyTwin {
    pub smoothing: f32,
    /// Whether probabilities are shares of labels, by whose weights the loss is divided.
    pub by_weight: bool,
}

/// Inputs: logits, targets (labels `[N]` or probabilities `[N, K]`), and class weights if there are any.
impl CrossEntropyTwin {
    fn log_softmax<T: Real>(row: &[T]) -> Vec<T> {
        let top = row.iter().copied().fold(row[0], T::max);
        let log_sum = row.iter().map(|&v| (v - top).exp()).sum::<T>().ln();
        row.iter().map(|&v| (v - top) - log_sum).collect()
    }

    /// The weighted, smoothed target `w_k t'_nk` of every element, and the divisor.
    fn weighted_targets<T: Real>(&self, inputs: &[Array<T>]) -> (Vec<T>, T) {
        let (n, k) = (inputs[0].shape.rows(), inputs[0].shape.last());
        let weight = |c: usize| inputs.get(2).map_or(T::one(), |w| w.data[c]);
        let e = T::of(f64::from(self.smoothing));
        let smooth = |t: T| t * (T::one() - e) + e / T::of(k as f64);
        let mut targets = vec![T::zero(); n * k];
        let mut divisor = T::zero();
        for row in 0..n {
            let hard = inputs[1].shape.rank() == 1;
            let label = if hard { inputs[1].data[row].f64() as usize } else { usize::MAX };
            if hard && label >= k {
                continue;
            }
            divisor += match hard {
                true => weight(label),
                false if self.by_weight => (0..k).map(|c| weight(c) * inputs[1].data[row * k + c]).sum(),
                false => T::one(),
            };
            for c in 0..k {
                let t = match hard {
                    true => T::of(f64::from(u8::from(label == c))),
                    false => inputs[1].data[row * k + c],
                };
                targets[row * k + c] = weight(c) * smooth(t);
            }
        }
        (targets, divisor)
    }
}

impl Twin for CrossEntropyTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let k = inputs[0].shape.last();
        let (targets, divisor) = self.weighted_targets(inputs);
        let log_p = inputs[0].data.chunks(k).flat_map(Self::log_softmax);
        let total: T = log_p.zip(&targets).map(|(l, &t)| -l * t).sum();
        let loss = if divisor > T::zero() { total / divisor } else { T::zero() };
        vec![Array::new([1], vec![loss])]
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        let k = inputs[0].shape.last();
        let (targets, divisor) = self.weighted_targets(inputs);
        let scale = if divisor > T::zero() { d_outputs[0].data[0] / divisor } else { T::zero() };
        let mut d = Vec::with_capacity(targets.len());
        for (row, target) in inputs[0].data.chunks(k).zip(targets.chunks(k)) {
            let mass: T = target.iter().copied().sum();
            let log_p = Self::log_softmax(row);
            d.extend(log_p.iter().zip(target).map(|(&l, &t)| (l.exp() * mass - t) * scale));
        }
        let mut gradients = vec![None; inputs.len()];
        gradients[0] = Some(Array::new(inputs[0].shape.clone(), d));
        gradients
    }
}
