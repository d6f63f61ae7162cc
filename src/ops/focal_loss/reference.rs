//! CPU twin, straight from the definition.

use super::Focal;
use crate::ops::{Array, Real, Twin};

pub(super) struct FocalTwin {
    pub spec: Focal,
}

impl FocalTwin {
    /// For each row that counts: its number, its label, the shares of all classes, the share of all but the label, and
    /// its weight over the divisor.
    fn rows<T: Real>(&self, inputs: &[Array<T>]) -> Vec<(usize, usize, Vec<T>, T, T)> {
        let k = inputs[0].shape.last();
        let weight = |label: usize| inputs.get(2).map_or(T::one(), |w| w.data[label]);
        let mut rows = vec![];
        let mut divisor = T::zero();
        for (row, logits) in inputs[0].data.chunks(k).enumerate() {
            let label = inputs[1].data[row].f64() as usize;
            if label >= k {
                continue;
            }
            let top = logits.iter().copied().fold(logits[0], T::max);
            let total: T = logits.iter().map(|&v| (v - top).exp()).sum();
            let shares: Vec<T> = logits.iter().map(|&v| (v - top).exp() / total).collect();
            let rest = (0..k).filter(|&c| c != label).map(|c| shares[c]).sum();
            divisor += if self.spec.by_weight { weight(label) } else { T::one() };
            rows.push((row, label, shares, rest, weight(label)));
        }
        rows.iter_mut().for_each(|row| row.4 = if divisor > T::zero() { row.4 / divisor } else { T::zero() });
        rows
    }

    fn power<T: Real>(&self, rest: T) -> T {
        let gamma = T::of(f64::from(self.spec.gamma));
        if self.spec.gamma == 0.0 { T::one() } else { (gamma * rest.ln()).exp() }
    }
}

/// log(1 - rest), by whichever of both is known better.
fn log_share<T: Real>(share: T, rest: T) -> T {
    if rest < T::of(0.5) { (-rest).ln_1p() } else { share.ln() }
}

impl Twin for FocalTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let rows = self.rows(inputs).into_iter();
        let loss =
            rows.map(|(_, y, shares, rest, weight)| -weight * self.power(rest) * log_share(shares[y], rest)).sum();
        vec![Array::new([1], vec![loss])]
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        let k = inputs[0].shape.last();
        let gamma = T::of(f64::from(self.spec.gamma));
        let mut d_x = inputs[0].map(|_| T::zero());
        for (row, y, shares, rest, weight) in self.rows(inputs) {
            // d loss / d p times p, and p's own derivative over p.
            let share = shares[y];
            let bend = if rest > T::zero() { gamma * share * log_share(share, rest) / rest } else { -gamma };
            let slope = weight * self.power(rest) * (bend - T::one());
            for (c, &other) in shares.iter().enumerate() {
                let along = if c == y { rest } else { -other };
                d_x.data[row * k + c] = d_outputs[0].data[0] * slope * along;
            }
        }
        let mut gradients = vec![None; inputs.len()];
        gradients[0] = Some(d_x);
        gradients
    }
}
