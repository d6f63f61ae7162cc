//! Shapes for tests, benchmarks and the self-test.

use super::reference::SumTwin;
use super::{mean, sum};
use crate::ops::{Case, CaseInput, Draw, Fill, Role, random::name};

/// One element, less than a run, exactly one run, several runs.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![];
    for shape in [vec![1], vec![7, 9], vec![16_384], vec![3, 101, 67, 5]] {
        // A mean away from zero keeps the relative error of the total meaningful.
        let input = CaseInput::new(shape.clone(), Fill::Gaussian(1.0, 1.0), Role::Differentiable);
        let name = format!("{shape:?}");
        cases.push(Case::new("sum", &name, vec![input.clone()], SumTwin { mean: false }, |tape, x| {
            Ok(vec![sum(tape, x[0])?])
        }));
        cases
            .push(Case::new("mean", &name, vec![input], SumTwin { mean: true }, |tape, x| Ok(vec![mean(tape, x[0])?])));
    }
    cases
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(draw: &mut Draw, x: &[usize]) -> Option<Case> {
    let by_count = draw.flag();
    let input = CaseInput::new(x, Fill::Gaussian(1.0, 1.0), Role::Differentiable);
    let (label, name) = (if by_count { "mean" } else { "sum" }, name(x, ""));
    Some(Case::new(label, name, vec![input], SumTwin { mean: by_count }, move |tape, x| {
        Ok(vec![(if by_count { mean } else { sum })(tape, x[0])?])
    }))
}
