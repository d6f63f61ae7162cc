//! CPU twin.

use crate::ops::{Array, Real, Twin};

pub(super) struct SummaryTwin;

/// Inputs: record, tensor.
impl Twin for SummaryTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let before: Vec<f64> = inputs[0].data.iter().map(|v| v.f64()).collect();
        let finite: Vec<f64> = inputs[1].data.iter().map(|v| v.f64()).filter(|v| v.is_finite()).collect();
        let elements = inputs[1].data.len() as f64;
        let had_some = before[0] != before[1];
        let kept = |i: usize| had_some.then(|| before[i]).into_iter();
        let (old, new) = (if had_some { before[0] - before[1] } else { 0.0 }, finite.len() as f64);
        let sum = kept(4).sum::<f64>() * old + finite.iter().map(|v| v.abs()).sum::<f64>();
        let mean = if old + new == 0.0 { 0.0 } else { sum / (old + new) };
        let record = [
            before[0] + elements,
            before[1] + elements - finite.len() as f64,
            kept(2).chain(finite.iter().copied()).reduce(f64::min).unwrap_or(0.0),
            kept(3).chain(finite.iter().copied()).reduce(f64::max).unwrap_or(0.0),
            mean,
        ];
        vec![Array::new([record.len()], record.map(T::of).to_vec())]
    }

    fn backward<T: Real>(&self, _: &[Array<T>], _: &[Array<T>]) -> Vec<Option<Array<T>>> {
        vec![]
    }
}
