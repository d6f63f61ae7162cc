//! Shapes for tests, benchmarks and the self-test.

use super::add;
use super::reference::AddTwin;
use crate::ops::{Case, CaseInput, Draw, random::name};

/// One element, sizes around the workgroup, many workgroups.
pub fn cases() -> Vec<Case> {
    [vec![1], vec![63], vec![65], vec![2, 9, 7, 5], vec![4, 32, 32, 64]]
        .into_iter()
        .map(|shape| {
            let inputs = vec![CaseInput::normal(shape.clone()); 2];
            Case::new("add", format!("{shape:?}"), inputs, AddTwin, |tape, x| Ok(vec![add(tape, x[0], x[1])?]))
        })
        .collect()
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(_: &mut Draw, x: &[usize]) -> Option<Case> {
    let inputs = vec![CaseInput::normal(x); 2];
    Some(Case::new("add", name(x, ""), inputs, AddTwin, |tape, x| Ok(vec![add(tape, x[0], x[1])?])))
}
