//! Shapes for tests, benchmarks and the self-test.

use super::mul;
use super::reference::MulTwin;
use crate::ops::{Case, CaseInput, Draw, random::name};

/// One element, sizes around the workgroup, many workgroups.
pub fn cases() -> Vec<Case> {
    [vec![1], vec![63], vec![65], vec![2, 9, 7, 5], vec![4, 32, 32, 64]]
        .into_iter()
        .map(|shape| {
            let inputs = vec![CaseInput::normal(shape.clone()); 2];
            Case::new("mul", format!("{shape:?}"), inputs, MulTwin, |tape, x| Ok(vec![mul(tape, x[0], x[1])?]))
        })
        .collect()
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(_: &mut Draw, x: &[usize]) -> Option<Case> {
    let inputs = vec![CaseInput::normal(x); 2];
    Some(Case::new("mul", name(x, ""), inputs, MulTwin, |tape, x| Ok(vec![mul(tape, x[0], x[1])?])))
}
