//! CPU twin, straight from the definition.

use crate::ops::{Array, Real, Twin};

pub(super) struct LayerNormTwin {
    pub eps: f32,
}

impl LayerNormTwin {
    /// A row normalised, and its deviation.
    fn normalised<T: Real>(&self, row: &[T]) -> (Vec<T>, T) {
        let n = T::of(row.len() as f64);
        let mean = row.iter().copied().sum::<T>() / n;
        let variance = row.iter().map(|&v| (v - mean) * (v - mean)).sum::<T>() / n;
        let std = (variance + T::of(f64::from(self.eps))).sqrt();
        (row.iter().map(|&v| (v - mean) / std).collect(), std)
    }
}

impl Twin for LayerNormTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let (x, gamma, beta) = (&inputs[0], &inputs[1].data, &inputs[2].data);
        let rows = x.data.chunks(gamma.len()).flat_map(|row| self.normalised(row).0);
        let data = rows.enumerate().map(|(i, v)| v * gamma[i % gamma.len()] + beta[i % beta.len()]).collect();
        vec![Array::new(x.shape.clone(), data)]
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        let (x, gamma) = (&inputs[0], &inputs[1].data);
        let c = gamma.len();
        let n = T::of(c as f64);
        let (mut d_x, mut d_gamma, mut d_beta) = (vec![], vec![T::zero(); c], vec![T::zero(); c]);
        for (row, d_y) in x.data.chunks(c).zip(d_outputs[0].data.chunks(c)) {
            let (normalised, std) = self.normalised(row);
            for i in 0..c {
                d_gamma[i] += d_y[i] * normalised[i];
                d_beta[i] += d_y[i];
            }
            let d: Vec<T> = d_y.iter().zip(gamma).map(|(&d, &g)| d * g).collect();
            let mean = d.iter().copied().sum::<T>() / n;
            let along = d.iter().zip(&normalised).map(|(&d, &v)| d * v).sum::<T>() / n;
            d_x.extend(d.iter().zip(&normalised).map(|(&d, &v)| (d - mean - v * along) / std));
        }
        let vector = |data| Some(Array::new([c], data));
        vec![Some(Array::new(x.shape.clone(), d_x)), vector(d_gamma), vector(d_beta)]
    }
}
