//! CPU twin.

use crate::ops::{Array, Real, Twin};

pub(super) struct MulTwin;

impl Twin for MulTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        vec![inputs[0].zip(&inputs[1], |a, b| a * b)]
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        vec![Some(d_outputs[0].zip(&inputs[1], |d, b| d * b)), Some(d_outputs[0].zip(&inputs[0], |d, a| d * a))]
    }
}
