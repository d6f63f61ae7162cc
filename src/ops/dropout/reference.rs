//! CPU twin.

use crate::ops::{Array, Real, Twin};
use crate::rng::{threefry2x32, unit};

pub(super) struct DropoutTwin {
    pub rate: f32,
    pub key: [u32; 2],
}

impl DropoutTwin {
    fn apply<T: Real>(&self, x: &Array<T>, step: u32) -> Array<T> {
        let kept = |i: usize| unit(threefry2x32(self.key, [i as u32, step])[0]) >= self.rate;
        let scale = T::of(f64::from(super::scale(self.rate)));
        let data = x.data.iter().enumerate().map(|(i, &v)| if kept(i) { scale * v } else { T::zero() }).collect();
        Array::new(x.shape.clone(), data)
    }
}

impl Twin for DropoutTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        vec![self.apply(&inputs[0], inputs[1].data[0].f64() as u32)]
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        vec![Some(self.apply(&d_outputs[0], inputs[1].data[0].f64() as u32)), None]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_right_share_and_changes_from_step_to_step_and_key_to_key() {
        let n = 100_000;
        let ones = Array::new([n], vec![1.0_f64; n]);
        let kept = |y: &Array<f64>| y.data.iter().filter(|v| **v != 0.0).count() as f64;
        for rate in [0.0, 0.1, 0.5, 0.9] {
            let first = DropoutTwin { rate, key: [3, 4] }.apply(&ones, 0);
            let share = kept(&first) / n as f64;
            assert!((share - (1.0 - f64::from(rate))).abs() < 0.006, "rate {rate}: kept {share}");
            let mean = first.data.iter().sum::<f64>() / n as f64;
            assert!((mean - 1.0).abs() < 0.03, "rate {rate}: mean {mean}");
            for other in
                [DropoutTwin { rate, key: [3, 4] }.apply(&ones, 1), DropoutTwin { rate, key: [3, 5] }.apply(&ones, 0)]
            {
                // Independent masks agree on an element with probability r^2 + (1 - r)^2.
                let same = first.data.iter().zip(&other.data).filter(|(a, b)| (**a == 0.0) == (**b == 0.0)).count();
                let expected = f64::from(rate).powi(2) + (1.0 - f64::from(rate)).powi(2);
                assert!((same as f64 / n as f64 - expected).abs() < 0.006, "rate {rate}: {same} alike");
            }
        }
    }
}
