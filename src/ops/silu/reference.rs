//! CPU twin.

use crate::ops::{Array, Real, Twin};

pub(super) struct SiluTwin;

fn sigmoid<T: Real>(x: T) -> T {
    T::one() / (T::one() + (-x).exp())
}

impl Twin for SiluTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        vec![inputs[0].map(|x| x * sigmoid(x))]
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        // The product rule.
        vec![Some(inputs[0].zip(&d_outputs[0], |x, d| d * (sigmoid(x) + x * sigmoid(x) * sigmoid(-x))))]
    }
}
