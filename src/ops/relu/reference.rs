//! CPU twin.

use crate::ops::{Array, Real, Twin};

pub(super) struct ReluTwin;

impl Twin for ReluTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        vec![inputs[0].map(|x| if x <= T::zero() { T::zero() } else { x })]
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        vec![Some(inputs[0].zip(&d_outputs[0], |x, d| if x > T::zero() { d } else { T::zero() }))]
    }
}
