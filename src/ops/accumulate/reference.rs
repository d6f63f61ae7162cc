//! CPU twins, straight from the definition.

use crate::ops::{Array, Real, Twin};

pub(super) struct AccumulateTwin;

impl Twin for AccumulateTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        vec![inputs[0].zip(&inputs[1], |total, gradient| total + gradient)]
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], _: &[Array<T>]) -> Vec<Option<Array<T>>> {
        vec![None; inputs.len()]
    }
}

pub(super) struct ClearTwin;

impl Twin for ClearTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        vec![inputs[0].map(|_| T::zero())]
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], _: &[Array<T>]) -> Vec<Option<Array<T>>> {
        vec![None; inputs.len()]
    }
}
