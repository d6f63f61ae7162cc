//! Shapes for tests, benchmarks and the self-test.

use super::add;
use super::reference::AddTwin;
use crate::ops::{Case, CaseInput};

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
