//! CPU twin.

use crate::ops::{Array, Real, Twin};

pub(super) struct ConcatTwin;

impl Twin for ConcatTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let mut shape = inputs[0].shape.dims().to_vec();
        let channels = shape.pop().expect("at least one axis");
        let rows: usize = shape.iter().product();
        assert_eq!(rows * channels, inputs[0].data.len());
        shape.push(inputs.iter().map(|x| x.shape.last()).sum());
        let row = |r: usize| inputs.iter().flat_map(move |x| x.data.chunks(x.shape.last()).nth(r).unwrap_or(&[]));
        vec![Array::new(shape, (0..rows).flat_map(row).copied().collect())]
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        let width = d_outputs[0].shape.last();
        let mut gradients: Vec<Array<T>> = inputs.iter().map(|x| x.map(|_| T::zero())).collect();
        for (i, &d) in d_outputs[0].data.iter().enumerate() {
            let (row, mut c) = (i / width, i % width);
            for gradient in &mut gradients {
                let channels = gradient.shape.last();
                if c < channels {
                    gradient.data[row * channels + c] = d;
                    break;
                }
                c -= channels;
            }
        }
        gradients.into_iter().map(Some).collect()
    }
}
