//! CPU twin.

use crate::ops::{Array, Real, Twin};

pub(super) struct SliceTwin {
    pub first: usize,
    pub length: usize,
}

impl Twin for SliceTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let x = &inputs[0];
        let mut shape = x.shape.dims().to_vec();
        *shape.last_mut().expect("at least one axis") = self.length;
        let rows = x.data.chunks(x.shape.last());
        let data = rows.flat_map(|row| &row[self.first..self.first + self.length]).copied().collect();
        vec![Array::new(shape, data)]
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        let mut d_x = inputs[0].map(|_| T::zero());
        let channels = d_x.shape.last();
        for (row, d) in d_x.data.chunks_mut(channels).zip(d_outputs[0].data.chunks(self.length)) {
            row[self.first..self.first + self.length].copy_from_slice(d);
        }
        vec![Some(d_x)]
    }
}
