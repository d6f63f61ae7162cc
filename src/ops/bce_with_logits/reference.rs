//! CPU twin.

use crate::ops::{Array, Real, Twin};

pub(super) struct BceWithLogitsTwin;

impl Twin for BceWithLogitsTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let losses = inputs[0].zip(&inputs[1], |x, t| {
            // -t log(sigmoid(x)) - (1 - t) log(sigmoid(-x)), with -log(sigmoid(v)) = max(-v, 0) + log(1 + exp(-|v|)).
            let minus_log_sigmoid = |v: T| (-v).max(T::zero()) + (-v.abs()).exp().ln_1p();
            t * minus_log_sigmoid(x) + (T::one() - t) * minus_log_sigmoid(-x)
        });
        let total: T = losses.data.iter().copied().sum();
        vec![Array::new([1], vec![total / T::of(losses.data.len() as f64)])]
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        let factor = d_outputs[0].data[0] / T::of(inputs[0].data.len() as f64);
        let sigmoid = |v: T| T::one() / (T::one() + (-v).exp());
        // t (sigmoid(x) - 1) + (1 - t) sigmoid(x), where sigmoid(x) - 1 = -sigmoid(-x).
        let d_x = inputs[0].zip(&inputs[1], |x, t| factor * ((T::one() - t) * sigmoid(x) - t * sigmoid(-x)));
        vec![Some(d_x), None]
    }
}
