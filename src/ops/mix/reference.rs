//! CPU twin.

use crate::ops::{Array, Real, Twin};

pub(super) struct MixTwin;

impl Twin for MixTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let [own, other, shares, boxes] = inputs else { panic!("mixing has four inputs") };
        let &[n, height, width, channels] = own.shape.dims() else { panic!("pictures have four extents") };
        let mut y = other.clone();
        for image in 0..n {
            let share = shares.data[image];
            let edge = |i: usize| boxes.data[4 * image + i].f64() as usize;
            for row in 0..height {
                for column in 0..width {
                    if (edge(0)..edge(2)).contains(&row) && (edge(1)..edge(3)).contains(&column) {
                        continue;
                    }
                    for channel in 0..channels {
                        let at = own.at(image, row, column, channel);
                        y.data[at] = share * own.data[at] + (T::one() - share) * other.data[at];
                    }
                }
            }
        }
        vec![y]
    }

    fn backward<T: Real>(&self, _: &[Array<T>], _: &[Array<T>]) -> Vec<Option<Array<T>>> {
        vec![None; 4]
    }
}
