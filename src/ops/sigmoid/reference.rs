//! CPU twin.

use crate::ops::{Array, Real, Twin};

pub(super) struct SigmoidTwin;

fn sigmoid<T: Real>(x: T) -> T {
    if x < T::zero() { x.exp() / (T::one() + x.exp()) } else { T::one() / (T::one() + (-x).exp()) }
}

impl Twin for SigmoidTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        vec![inputs[0].map(sigmoid)]
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        // 1 - sigmoid(x) = sigmoid(-x), without cancellation.
        vec![Some(inputs[0].zip(&d_outputs[0], |x, d| d * sigmoid(x) * sigmoid(-x)))]
    }
}
