//! CPU twin: every pixel of x spreads over the result.

use super::ConvTranspose2d;
use crate::ops::{Array, Real, Twin};

pub(super) struct ConvTransposeTwin {
    pub spec: ConvTranspose2d,
}

impl ConvTransposeTwin {
    /// The extents `[N, P, Q, K]` of the result.
    fn result<T: Real>(&self, x: &Array<T>, weight: &Array<T>) -> [usize; 4] {
        let ([n, h, w, _], [r, s, k, _]) = (x.nhwc(), weight.nhwc());
        let ConvTranspose2d { stride, padding, output_padding, dilation, .. } = self.spec;
        let p = (h - 1) * stride[0] + dilation[0] * (r - 1) + output_padding[0] + 1 - padding.top - padding.bottom;
        let q = (w - 1) * stride[1] + dilation[1] * (s - 1) + output_padding[1] + 1 - padding.left - padding.right;
        [n, p, q, k]
    }

    /// Calls `visit(x offset, weight offset, y offset)` for every product.
    fn for_each<T: Real>(&self, x: &Array<T>, weight: &Array<T>, mut visit: impl FnMut(usize, usize, usize)) {
        let y = Array::<T>::zeros(self.result(x, weight));
        let ([nn, hh, ww, cc], [rr, ss, kk, _]) = (x.nhwc(), weight.nhwc());
        let [_, pp, qq, _] = y.nhwc();
        let ConvTranspose2d { stride, padding, dilation, .. } = self.spec;
        for n in 0..nn {
            for h in 0..hh {
                for w in 0..ww {
                    for r in 0..rr {
                        for s in 0..ss {
                            let p = (h * stride[0] + r * dilation[0]).checked_sub(padding.top).filter(|&p| p < pp);
                            let q = (w * stride[1] + s * dilation[1]).checked_sub(padding.left).filter(|&q| q < qq);
                            let (Some(p), Some(q)) = (p, q) else { continue };
                            for k in 0..kk {
                                for c in 0..cc {
                                    visit(x.at(n, h, w, c), weight.at(r, s, k, c), y.at(n, p, q, k));
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

impl Twin for ConvTransposeTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let (x, weight) = (&inputs[0], &inputs[1]);
        let mut y = Array::zeros(self.result(x, weight));
        self.for_each(x, weight, |from, by, to| y.data[to] += x.data[from] * weight.data[by]);
        if let Some(bias) = inputs.get(2) {
            y.data.iter_mut().enumerate().for_each(|(i, v)| *v += bias.data[i % bias.data.len()]);
        }
        vec![y]
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        let (x, weight, d_y) = (&inputs[0], &inputs[1], &d_outputs[0]);
        let mut d_x = Array::zeros(x.shape.clone());
        let mut d_weight = Array::zeros(weight.shape.clone());
        self.for_each(x, weight, |from, by, to| {
            d_x.data[from] += weight.data[by] * d_y.data[to];
            d_weight.data[by] += x.data[from] * d_y.data[to];
        });
        let mut gradients = vec![Some(d_x), Some(d_weight)];
        if let Some(bias) = inputs.get(2) {
            let mut d_bias = bias.map(|_| T::zero());
            let k = d_bias.data.len();
            d_y.data.iter().enumerate().for_each(|(i, &d)| d_bias.data[i % k] += d);
            gradients.push(Some(d_bias));
        }
        gradients
    }
}
