//! CPU twin.

use crate::ops::{Array, Real, Twin};

pub(super) struct AddRowsTwin;

impl Twin for AddRowsTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let (x, b) = (&inputs[0], &inputs[1]);
        let mut y = x.clone();
        y.data.iter_mut().enumerate().for_each(|(i, v)| *v += b.data[i % b.data.len()]);
        vec![y]
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        let mut d_b = inputs[1].map(|_| T::zero());
        let length = d_b.data.len();
        d_outputs[0].data.iter().enumerate().for_each(|(i, &d)| d_b.data[i % length] += d);
        vec![Some(d_outputs[0].clone()), Some(d_b)]
    }
}
