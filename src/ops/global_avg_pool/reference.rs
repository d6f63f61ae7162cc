//! CPU twin.

use crate::ops::{Array, Real, Twin};

pub(super) struct GlobalAvgPoolTwin;

impl Twin for GlobalAvgPoolTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let x = &inputs[0];
        let [nn, hh, ww, cc] = x.nhwc();
        let mut y = Array::zeros([nn, cc]);
        for n in 0..nn {
            for c in 0..cc {
                let pixels = (0..hh).flat_map(|h| (0..ww).map(move |w| (h, w)));
                let total: T = pixels.map(|(h, w)| x.data[x.at(n, h, w, c)]).sum();
                y.data[n * cc + c] = total / T::of((hh * ww) as f64);
            }
        }
        vec![y]
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        let [nn, hh, ww, cc] = inputs[0].nhwc();
        let mut d_x = Array::zeros([nn, hh, ww, cc]);
        for n in 0..nn {
            for h in 0..hh {
                for w in 0..ww {
                    for c in 0..cc {
                        let at = d_x.at(n, h, w, c);
                        d_x.data[at] = d_outputs[0].data[n * cc + c] / T::of((hh * ww) as f64);
                    }
                }
            }
        }
        vec![Some(d_x)]
    }
}
