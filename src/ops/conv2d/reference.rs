//! CPU twin: seven nested loops.

use super::{Conv2d, Geometry};
use crate::ops::batch_norm::BatchNormTwin;
use crate::ops::{Array, Real, Twin};
use crate::tensor::TensorType;

pub(super) struct Conv2dTwin {
    pub conv: Conv2d,
}

impl Conv2dTwin {
    /// Calls `visit(x offset, weight offset, y offset)` for every product of the convolution.
    fn for_each<T: Real>(
        &self,
        x: &Array<T>,
        weight: &Array<T>,
        mut visit: impl FnMut(usize, usize, usize),
    ) -> Geometry {
        let ty = |a: &Array<T>| TensorType::f32(a.shape.clone());
        let g = Geometry::of(self.conv, &ty(x), &ty(weight)).expect("a valid case");
        let (group_c, group_k) = (g.c / self.conv.groups, g.k / self.conv.groups);
        for n in 0..g.n {
            for p in 0..g.out_h {
                for q in 0..g.out_w {
                    for r in 0..g.r {
                        for s in 0..g.s {
                            let h = (p * self.conv.stride[0] + r * self.conv.dilation[0])
                                .wrapping_sub(self.conv.padding.top);
                            let w = (q * self.conv.stride[1] + s * self.conv.dilation[1])
                                .wrapping_sub(self.conv.padding.left);
                            if h >= g.h || w >= g.w {
                                continue;
                            }
                            for c in 0..group_c {
                                for k in 0..g.k {
                                    let from = x.at(n, h, w, k / group_k * group_c + c);
                                    let by = ((r * g.s + s) * group_c + c) * g.k + k;
                                    visit(from, by, ((n * g.out_h + p) * g.out_w + q) * g.k + k);
                                }
                            }
                        }
                    }
                }
            }
        }
        g
    }
}

impl Twin for Conv2dTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let (x, weight) = (&inputs[0], &inputs[1]);
        let g = self.for_each(x, weight, |_, _, _| {});
        let mut y = Array::zeros(g.y().shape);
        self.for_each(x, weight, |from, by, to| y.data[to] += x.data[from] * weight.data[by]);
        if let Some(bias) = inputs.get(2) {
            y.data.iter_mut().enumerate().for_each(|(i, v)| *v += bias.data[i % g.k]);
        }
        vec![y]
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        let (x, weight, d_y) = (&inputs[0], &inputs[1], &d_outputs[0]);
        let mut d_x = Array::zeros(x.shape.clone());
        let mut d_weight = Array::zeros(weight.shape.clone());
        let g = self.for_each(x, weight, |from, by, to| {
            d_x.data[from] += weight.data[by] * d_y.data[to];
            d_weight.data[by] += x.data[from] * d_y.data[to];
        });
        let mut gradients = vec![Some(d_x), Some(d_weight)];
        if inputs.len() == 3 {
            let mut d_bias = Array::zeros([g.k]);
            d_y.data.iter().enumerate().for_each(|(i, &d)| d_bias.data[i % g.k] += d);
            gradients.push(Some(d_bias));
        }
        gradients
    }
}

/// A convolution and what the planner fuses with it: perhaps batch-norm with running statistics, perhaps a residual, and
/// ReLU. Inputs: those of the convolution, then gamma, beta, mean and variance if there is a norm, then the residual.
pub(super) struct FusedTwin {
    pub conv: Conv2dTwin,
    pub bias: bool,
    pub norm_eps: Option<f64>,
    pub residual: bool,
}

impl FusedTwin {
    fn own(&self) -> usize {
        2 + usize::from(self.bias)
    }

    /// What goes into the ReLU.
    fn before<T: Real>(&self, inputs: &[Array<T>]) -> Array<T> {
        let (own, rest) = inputs.split_at(self.own());
        let mut y = self.conv.forward(own).swap_remove(0);
        if let Some(eps) = self.norm_eps {
            let k = y.shape.last();
            for (i, v) in y.data.iter_mut().enumerate() {
                let [gamma, beta, mean, variance] = std::array::from_fn(|j| rest[j].data[i % k]);
                *v = (*v - mean) / (variance + T::of(eps)).sqrt() * gamma + beta;
            }
        }
        if self.residual { y.zip(&inputs[inputs.len() - 1], |y, r| y + r) } else { y }
    }
}

impl Twin for FusedTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        vec![self.before(inputs).map(|v| v.max(T::zero()))]
    }

    /// Without a norm: with one, its gradient needs the convolution's result, and nothing is folded.
    fn backward<T: Real>(&self, inputs: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        let d = self.before(inputs).zip(&d_outputs[0], |v, d| if v > T::zero() { d } else { T::zero() });
        let mut gradients = self.conv.backward(&inputs[..self.own()], std::slice::from_ref(&d));
        gradients.extend(self.residual.then_some(Some(d)));
        gradients
    }
}

/// A convolution and batch-norm with the statistics of the batch, which the convolution's kernel gathers. Inputs: x, the
/// weight, beta, running mean, running variance, gamma.
pub(super) struct NormedTwin {
    pub conv: Conv2dTwin,
    pub norm: BatchNormTwin,
}

impl NormedTwin {
    fn between<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let y = self.conv.forward(&inputs[..2]);
        y.into_iter().chain(inputs[2..].iter().cloned()).collect()
    }
}

impl Twin for NormedTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        self.norm.forward(&self.between(inputs))
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        let mut d_norm = self.norm.backward(&self.between(inputs), d_outputs);
        let d_y: Vec<Array<T>> = d_norm.remove(0).into_iter().collect();
        let mut gradients = self.conv.backward(&inputs[..2], &d_y);
        gradients.extend(d_norm);
        gradients
    }
}
