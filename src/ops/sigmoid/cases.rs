//! Shapes for tests, benchmarks and the self-test.

use super::reference::SigmoidTwin;
use super::sigmoid;
use crate::ops::{Case, CaseInput, Draw, Fill, Role, random::name};

/// One element, sizes around the workgroup, many workgroups; and inputs far from zero.
pub fn cases() -> Vec<Case> {
    let case = |name: String, input: CaseInput| {
        Case::new("sigmoid", name, vec![input], SigmoidTwin, |tape, x| Ok(vec![sigmoid(tape, x[0])?]))
    };
    let far = |fill: Fill| CaseInput::new([3, 29], fill, Role::Differentiable);
    let mut cases: Vec<Case> = [vec![1], vec![63], vec![65], vec![2, 9, 7, 5], vec![3, 20, 20, 17]]
        .into_iter()
        .map(|shape| case(format!("{shape:?}"), CaseInput::normal(shape)))
        .collect();
    cases.push(case("up to 50".into(), far(Fill::Uniform(-50.0, 50.0))));
    // No gradient: nearly all are zero, and the rest have the absolute precision of 1 - y only.
    let overflows = CaseInput::new([3, 29], Fill::Uniform(-1000.0, 1000.0), Role::Fixed);
    cases.push(case("up to 1000".into(), overflows));
    // Results near 1e-22, compared with each other: WGSL allows exp(x) an error of 3 + 2|x| units in the last place.
    cases.push(case("near -50".into(), far(Fill::Gaussian(-50.0, 0.5))).tolerance(2e-5));
    cases
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(_: &mut Draw, x: &[usize]) -> Option<Case> {
    let input = CaseInput::normal(x);
    Some(Case::new("sigmoid", name(x, ""), vec![input], SigmoidTwin, |tape, x| Ok(vec![sigmoid(tape, x[0])?])))
}
