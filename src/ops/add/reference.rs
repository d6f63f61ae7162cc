//! CPU twin.

use crate::ops::{Array, Real, Twin};

pub(super) struct AddTwin;

impl Twin for AddTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        vec![inputs[0].zip(&inputs[1], |a, b| a + b)]
    }

    fn backward<T: Real>(&self, _: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        vec![Some(d_outputs[0].clone()), Some(d_outputs[0].clone())]
    }
}
