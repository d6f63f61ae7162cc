//! CPU twin, straight from the definition.

use crate::ops::{Array, Real, Twin};

pub(super) struct EmaTwin {
    pub decay: f64,
}

impl Twin for EmaTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let (decay, rest) = (T::of(self.decay), T::of(1.0 - self.decay));
        vec![inputs[0].zip(&inputs[1], |average, value| decay * average + rest * value)]
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], _: &[Array<T>]) -> Vec<Option<Array<T>>> {
        vec![None; inputs.len()]
    }
}
