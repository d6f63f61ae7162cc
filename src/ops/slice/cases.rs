//! Shapes for tests, benchmarks and the self-test.

use super::reference::SliceTwin;
use super::slice;
use crate::autograd::{Tape, Tensor};
use crate::ops::{Case, CaseInput, Draw, random::name};

/// All channels, the first, the last, some in the middle; ranks 1, 2 and 4.
pub fn cases() -> Vec<Case> {
    [
        (vec![1, 1, 1, 1], 0, 1),
        (vec![2, 3, 5, 7], 0, 7),
        (vec![2, 3, 5, 7], 0, 1),
        (vec![2, 3, 5, 7], 6, 1),
        (vec![3, 9, 7, 130], 33, 65),
        (vec![5, 20], 3, 11),
        (vec![200], 70, 99),
    ]
    .into_iter()
    .map(|(shape, first, length)| {
        let name = format!("{shape:?} from {first}, {length}");
        Case::new("slice", name, vec![CaseInput::normal(shape)], SliceTwin { first, length }, move |tape, x| {
            Ok(vec![slice(tape, x[0], first, length)?])
        })
    })
    .collect()
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(draw: &mut Draw, x: &[usize]) -> Option<Case> {
    let (&c, _) = x.split_last()?;
    let first = draw.below(c);
    let length = draw.between(1, c - first);
    let trace = move |tape: &mut Tape, x: &[Tensor]| Ok(vec![slice(tape, x[0], first, length)?]);
    Some(Case::new("slice", name(x, (first, length)), vec![CaseInput::normal(x)], SliceTwin { first, length }, trace))
}
