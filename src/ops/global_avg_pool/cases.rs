//! Shapes for tests, benchmarks and the self-test.

use super::global_avg_pool;
use super::reference::GlobalAvgPoolTwin;
use crate::ops::{
    Case, CaseInput, Draw, Fill, Role,
    random::{image, name},
};

/// One pixel, the end of a ResNet, one run and several runs of pixels, odd extents.
pub fn cases() -> Vec<Case> {
    [[1, 1, 1, 1], [3, 1, 1, 67], [2, 7, 7, 130], [1, 8, 8, 5], [2, 5, 13, 3], [3, 19, 23, 9], [1, 97, 61, 2]]
        .into_iter()
        .map(|shape| {
            let input = CaseInput::new(shape, Fill::Gaussian(0.5, 1.0), Role::Differentiable);
            Case::new("global_avg_pool", format!("{shape:?}"), vec![input], GlobalAvgPoolTwin, |tape, x| {
                Ok(vec![global_avg_pool(tape, x[0])?])
            })
        })
        .collect()
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(_: &mut Draw, x: &[usize]) -> Option<Case> {
    image(x)?;
    Some(Case::new("global_avg_pool", name(x, ""), vec![CaseInput::normal(x)], GlobalAvgPoolTwin, |tape, x| {
        Ok(vec![global_avg_pool(tape, x[0])?])
    }))
}
