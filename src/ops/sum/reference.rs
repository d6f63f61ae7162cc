//! CPU twin.

use crate::ops::{Array, Real, Twin};

pub(super) struct SumTwin {
    pub mean: bool,
}

impl SumTwin {
    fn factor<T: Real>(&self, x: &Array<T>) -> T {
        T::of(if self.mean { 1.0 / x.data.len() as f64 } else { 1.0 })
    }
}

impl Twin for SumTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let total: T = inputs[0].data.iter().copied().sum();
        vec![Array::new([1], vec![total * self.factor(&inputs[0])])]
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        let d = d_outputs[0].data[0] * self.factor(&inputs[0]);
        vec![Some(inputs[0].map(|_| d))]
    }
}
