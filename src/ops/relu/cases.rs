//! Shapes for tests, benchmarks and the self-test.

use super::reference::ReluTwin;
use super::relu;
use crate::ops::{Case, CaseInput, Draw, Fill, Role, random::name};

/// One element, sizes around the workgroup, many workgroups; and exact zeros.
pub fn cases() -> Vec<Case> {
    let case = |name: String, input: CaseInput| {
        Case::new("relu", name, vec![input], ReluTwin, |tape, x| Ok(vec![relu(tape, x[0])?]))
    };
    let mut cases: Vec<Case> = [
        (vec![1], Fill::Normal),
        (vec![63], Fill::Normal),
        (vec![65], Fill::Normal),
        (vec![2, 9, 7, 5], Fill::Distinct),
        (vec![3, 20, 20, 17], Fill::Distinct),
    ]
    .into_iter()
    .map(|(shape, fill)| case(format!("{shape:?}"), CaseInput::new(shape, fill, Role::Differentiable)))
    .collect();
    cases.push(case("zeros".into(), CaseInput::new([70], Fill::Constant(0.0), Role::Differentiable)).not_smooth());
    cases
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(_: &mut Draw, x: &[usize]) -> Option<Case> {
    Some(Case::new("relu", name(x, ""), vec![CaseInput::normal(x)], ReluTwin, |tape, x| Ok(vec![relu(tape, x[0])?])))
}
