//! CPU twin, straight from the definition.

use super::BatchNorm;
use crate::ops::{Array, Real, Twin};

pub(crate) struct BatchNormTwin {
    pub spec: BatchNorm,
    pub train: bool,
}

/// Inputs: x, beta, running mean, running variance, and gamma if there is one.
impl BatchNormTwin {
    /// Mean and biased variance of each channel.
    fn statistics<T: Real>(&self, inputs: &[Array<T>]) -> (Vec<T>, Vec<T>) {
        if !self.train {
            return (inputs[2].data.clone(), inputs[3].data.clone());
        }
        let x = &inputs[0];
        let channels = x.shape.last();
        let rows = T::of(x.shape.rows() as f64);
        let column = |c: usize| x.data.iter().skip(c).step_by(channels).copied();
        let mean: Vec<T> = (0..channels).map(|c| column(c).sum::<T>() / rows).collect();
        let var = (0..channels).map(|c| column(c).map(|v| (v - mean[c]) * (v - mean[c])).sum::<T>() / rows).collect();
        (mean, var)
    }

    fn normalised<T: Real>(&self, inputs: &[Array<T>]) -> (Array<T>, Vec<T>) {
        let (mean, var) = self.statistics(inputs);
        let std: Vec<T> = var.iter().map(|&v| (v + T::of(f64::from(self.spec.eps))).sqrt()).collect();
        let mut xh = inputs[0].clone();
        let channels = xh.shape.last();
        xh.data.iter_mut().enumerate().for_each(|(i, v)| *v = (*v - mean[i % channels]) / std[i % channels]);
        (xh, std)
    }
}

impl Twin for BatchNormTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let channels = inputs[0].shape.last();
        let (mut y, _) = self.normalised(inputs);
        for (i, v) in y.data.iter_mut().enumerate() {
            let gamma = inputs.get(4).map_or(T::one(), |g| g.data[i % channels]);
            *v = *v * gamma + inputs[1].data[i % channels];
        }
        if !self.train {
            return vec![y];
        }
        let (mean, var) = self.statistics(inputs);
        let rows = inputs[0].shape.rows() as f64;
        let momentum = T::of(f64::from(self.spec.momentum));
        let moved = |running: &Array<T>, batch: Vec<T>| {
            running.zip(&Array::new([channels], batch), |r, b| r * (T::one() - momentum) + b * momentum)
        };
        let unbiased = var.into_iter().map(|v| v * T::of(rows / (rows - 1.0))).collect();
        vec![y, moved(&inputs[2], mean), moved(&inputs[3], unbiased)]
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        let d_y = &d_outputs[0];
        let channels = d_y.shape.last();
        let rows = T::of(d_y.shape.rows() as f64);
        let (xh, std) = self.normalised(inputs);
        let mut d_beta = Array::zeros([channels]);
        let mut d_gamma = Array::zeros([channels]);
        for (i, (&d, &v)) in d_y.data.iter().zip(&xh.data).enumerate() {
            d_beta.data[i % channels] += d;
            d_gamma.data[i % channels] += d * v;
        }
        let mut d_x = d_y.clone();
        for (i, d) in d_x.data.iter_mut().enumerate() {
            let c = i % channels;
            let gamma = inputs.get(4).map_or(T::one(), |g| g.data[c]);
            if self.train {
                *d = *d - d_beta.data[c] / rows - xh.data[i] * d_gamma.data[c] / rows;
            }
            *d = *d * gamma / std[c];
        }
        let mut gradients = vec![Some(d_x), Some(d_beta), None, None];
        if inputs.len() == 5 {
            gradients.push(Some(d_gamma));
        }
        gradients
    }
}

/// Batch-norm, then perhaps a residual (the last input), then perhaps a ReLU.
pub(super) struct FollowedTwin {
    pub norm: BatchNormTwin,
    pub residual: bool,
    pub rectified: bool,
}

impl FollowedTwin {
    /// The inputs of batch-norm: all but the residual.
    fn of_norm<'a, T>(&self, inputs: &'a [Array<T>]) -> &'a [Array<T>] {
        &inputs[..inputs.len() - usize::from(self.residual)]
    }

    /// What goes into the ReLU, and the running statistics.
    fn before<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let mut outputs = self.norm.forward(self.of_norm(inputs));
        if let Some(residual) = inputs.last().filter(|_| self.residual) {
            outputs[0] = outputs[0].zip(residual, |y, r| y + r);
        }
        outputs
    }
}

impl Twin for FollowedTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let mut outputs = self.before(inputs);
        if self.rectified {
            outputs[0] = outputs[0].map(|v| if v > T::zero() { v } else { T::zero() });
        }
        outputs
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        let mut d = d_outputs[0].clone();
        if self.rectified {
            d = self.before(inputs)[0].zip(&d, |v, d| if v > T::zero() { d } else { T::zero() });
        }
        let mut gradients = self.norm.backward(self.of_norm(inputs), std::slice::from_ref(&d));
        gradients.extend(self.residual.then_some(Some(d)));
        gradients
    }
}
