//! Shapes for tests, benchmarks and the self-test.

use super::reference::{AccumulateTwin, ClearTwin};
use super::{accumulate, clear};
use crate::autograd::{Tape, Tensor};
use crate::ops::{Case, CaseInput, Draw, Fill, Role, random::name};

/// One element, sizes that are no whole groups of four, many workgroups.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![];
    for shape in [vec![1], vec![7], vec![64, 5], vec![3, 3, 41, 60]] {
        let total = CaseInput::new(shape.clone(), Fill::Normal, Role::Updated);
        let gradient = CaseInput::new(shape.clone(), Fill::Normal, Role::Fixed);
        let name = format!("{shape:?}");
        let inputs = vec![total.clone(), gradient];
        let add = move |tape: &mut crate::autograd::Tape, x: &[crate::autograd::Tensor]| {
            accumulate(tape, x[0], x[1]).map(|()| vec![])
        };
        cases.push(Case::new("accumulate", &name, inputs, AccumulateTwin, add).not_smooth());
        let zero =
            move |tape: &mut crate::autograd::Tape, x: &[crate::autograd::Tensor]| clear(tape, x[0]).map(|()| vec![]);
        cases.push(Case::new("accumulate", format!("clear {name}"), vec![total], ClearTwin, zero).not_smooth());
    }
    cases
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(draw: &mut Draw, x: &[usize]) -> Option<Case> {
    let total = CaseInput::new(x, Fill::Normal, Role::Updated);
    let gradient = CaseInput::new(x, Fill::Normal, Role::Fixed);
    let case = if draw.one_in(3) {
        let trace = |tape: &mut Tape, x: &[Tensor]| clear(tape, x[0]).map(|()| vec![]);
        Case::new("accumulate", name(x, "clear"), vec![total], ClearTwin, trace)
    } else {
        let trace = |tape: &mut Tape, x: &[Tensor]| accumulate(tape, x[0], x[1]).map(|()| vec![]);
        Case::new("accumulate", name(x, "add"), vec![total, gradient], AccumulateTwin, trace)
    };
    Some(case.not_smooth())
}
