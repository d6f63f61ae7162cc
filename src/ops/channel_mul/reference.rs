//! CPU twin.

use crate::ops::{Array, Real, Twin};

pub(super) struct ChannelMulTwin;

/// Calls `f` with the offset of every element of `x` and the offset of its scale.
fn each<T: Real>(x: &Array<T>, mut f: impl FnMut(usize, usize)) {
    let [nn, hh, ww, cc] = x.nhwc();
    for n in 0..nn {
        for h in 0..hh {
            for w in 0..ww {
                (0..cc).for_each(|c| f(x.at(n, h, w, c), n * cc + c));
            }
        }
    }
}

impl Twin for ChannelMulTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let (x, s) = (&inputs[0], &inputs[1]);
        let mut y = x.clone();
        each(x, |i, j| y.data[i] = x.data[i] * s.data[j]);
        vec![y]
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        let (x, s, d_y) = (&inputs[0], &inputs[1], &d_outputs[0]);
        let mut d_x = x.map(|_| T::zero());
        let mut d_s = s.map(|_| T::zero());
        each(x, |i, j| {
            d_x.data[i] = d_y.data[i] * s.data[j];
            d_s.data[j] += d_y.data[i] * x.data[i];
        });
        vec![Some(d_x), Some(d_s)]
    }
}
