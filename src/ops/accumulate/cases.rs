//! Shapes for tests, benchmarks and the self-test.

use super::reference::{AccumulateTwin, ClearTwin};
use super::{accumulate, clear};
use crate::ops::{Case, CaseInput, Fill, Role};

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
