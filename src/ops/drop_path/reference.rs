//! CPU twin.

use crate::ops::{Array, Real, Twin};
use crate::rng::{threefry2x32, unit};

pub(super) struct DropPathTwin {
    pub rate: f32,
    pub key: [u32; 2],
}

impl DropPathTwin {
    fn apply<T: Real>(&self, x: &Array<T>, step: u32) -> Array<T> {
        let samples = x.shape.dims()[0];
        let scale = T::of(f64::from(super::scale(self.rate)));
        let mut y = x.clone();
        for (n, sample) in y.data.chunks_mut(x.data.len() / samples).enumerate() {
            let kept = unit(threefry2x32(self.key, [n as u32, step])[0]) >= self.rate;
            sample.iter_mut().for_each(|v| *v = if kept { scale * *v } else { T::zero() });
        }
        y
    }
}

impl Twin for DropPathTwin {
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
    fn samples_live_or_die_as_a_whole_and_the_right_share_of_them() {
        let (samples, length) = (20_000, 3);
        let ones = Array::new([samples, length], vec![1.0_f64; samples * length]);
        for rate in [0.0, 0.1, 0.5] {
            let y = DropPathTwin { rate, key: [3, 4] }.apply(&ones, 5);
            assert!(y.data.chunks(length).all(|s| s.iter().all(|v| *v == s[0])));
            let share = y.data.iter().filter(|v| **v != 0.0).count() as f64 / y.data.len() as f64;
            assert!((share - (1.0 - f64::from(rate))).abs() < 0.012, "rate {rate}: kept {share}");
        }
    }
}
