//! CPU twin.

use crate::ops::{Array, Real, Twin};

pub(super) struct ScaleTwin {
    pub factor: f32,
}

impl Twin for ScaleTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        vec![inputs[0].map(|x| T::of(f64::from(self.factor)) * x)]
    }

    fn backward<T: Real>(&self, _: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        vec![Some(d_outputs[0].map(|d| T::of(f64::from(self.factor)) * d))]
    }
}

pub(super) struct FillTwin {
    pub shape: Vec<usize>,
    pub value: f32,
}

impl Twin for FillTwin {
    fn forward<T: Real>(&self, _: &[Array<T>]) -> Vec<Array<T>> {
        vec![Array::<T>::zeros(self.shape.clone()).map(|_| T::of(f64::from(self.value)))]
    }

    fn backward<T: Real>(&self, _: &[Array<T>], _: &[Array<T>]) -> Vec<Option<Array<T>>> {
        vec![]
    }
}
