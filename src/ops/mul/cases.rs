//! Shapes for tests, benchmarks and the self-test.

use super::mul;
use super::reference::MulTwin;
use crate::ops::{Case, CaseInput};

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
