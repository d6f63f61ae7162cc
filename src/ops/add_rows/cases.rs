//! Shapes for tests, benchmarks and the self-test.

use super::add_rows;
use super::reference::AddRowsTwin;
use crate::ops::{Case, CaseInput, Draw, random::name};

/// A bias, a position embedding, a single row; odd rows and fours; sums of more than one run.
pub fn cases() -> Vec<Case> {
    [
        (vec![1], 1),
        (vec![63], 1),
        (vec![5, 4], 1),
        (vec![2, 9, 7, 5], 1),
        (vec![3, 20, 20, 16], 1),
        (vec![3, 5, 8], 2),
        (vec![4, 9, 7], 2),
        (vec![2, 3, 5], 3),
        (vec![700, 3], 1),
    ]
    .into_iter()
    .map(|(shape, axes): (Vec<usize>, usize)| {
        let row = shape[shape.len() - axes..].to_vec();
        let name = format!("{shape:?} + {row:?}");
        let inputs = vec![CaseInput::normal(shape), CaseInput::normal(row)];
        Case::new("add_rows", name, inputs, AddRowsTwin, |tape, x| Ok(vec![add_rows(tape, x[0], x[1])?]))
    })
    .collect()
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(draw: &mut Draw, x: &[usize]) -> Option<Case> {
    let row = &x[x.len() - draw.between(1, x.len())..];
    let inputs = vec![CaseInput::normal(x), CaseInput::normal(row)];
    Some(Case::new("add_rows", name(x, row), inputs, AddRowsTwin, |tape, x| Ok(vec![add_rows(tape, x[0], x[1])?])))
}
