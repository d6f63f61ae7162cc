//! CPU twins.

use super::{BACKOFF, GROWTH, GROWTH_INTERVAL};
use crate::ops::{Array, Real, Twin};

pub(super) struct CheckTwin;

/// Inputs: flag, gradient.
impl Twin for CheckTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let overflow = inputs[1].data.iter().any(|g| !g.f64().is_finite());
        vec![inputs[0].map(|flag| if overflow { T::one() } else { flag })]
    }

    fn backward<T: Real>(&self, _: &[Array<T>], _: &[Array<T>]) -> Vec<Option<Array<T>>> {
        vec![]
    }
}

pub(super) struct DecideTwin;

/// Inputs: flag, scale, steps.
impl Twin for DecideTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let (flag, scale, since, skipped) =
            (inputs[0].data[0].f64(), inputs[1].data[0].f64(), inputs[2].data[0].f64(), inputs[2].data[1].f64());
        let (unscale, scale, since, skipped) = match (flag != 0.0, since + 1.0 == f64::from(GROWTH_INTERVAL)) {
            (true, _) => (0.0, (scale * f64::from(BACKOFF)).max(1e-30), 0.0, skipped + 1.0),
            (false, true) => (1.0 / scale, scale * f64::from(GROWTH), 0.0, skipped),
            (false, false) => (1.0 / scale, scale, since + 1.0, skipped),
        };
        let array = |values: &[f64]| Array::new(vec![values.len()], values.iter().map(|&v| T::of(v)).collect());
        vec![array(&[unscale]), array(&[0.0]), array(&[scale]), array(&[since, skipped])]
    }

    fn backward<T: Real>(&self, _: &[Array<T>], _: &[Array<T>]) -> Vec<Option<Array<T>>> {
        vec![]
    }
}
