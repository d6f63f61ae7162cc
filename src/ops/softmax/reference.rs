//! CPU twin, straight from the definition.

use crate::ops::{Array, Real, Twin};

pub(super) struct SoftmaxTwin;

impl Twin for SoftmaxTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let x = &inputs[0];
        let mut y = vec![];
        for row in x.data.chunks(x.shape.last()) {
            let top = row.iter().copied().fold(row[0], T::max);
            let total: T = row.iter().map(|&v| (v - top).exp()).sum();
            y.extend(row.iter().map(|&v| (v - top).exp() / total));
        }
        vec![Array::new(x.shape.clone(), y)]
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        let y = self.forward(inputs).remove(0);
        let c = y.shape.last();
        let mut d_x = vec![];
        for (y, d) in y.data.chunks(c).zip(d_outputs[0].data.chunks(c)) {
            // The Jacobian, row by row: dy_j / dx_i = y_j ([i = j] - y_i).
            for i in 0..c {
                let delta = |j: usize| if i == j { T::one() } else { T::zero() };
                d_x.push((0..c).map(|j| d[j] * y[j] * (delta(j) - y[i])).sum());
            }
        }
        vec![Some(Array::new(y.shape, d_x))]
    }
}
