//! Shapes for tests, benchmarks and the self-test.

use super::concat;
use super::reference::ConcatTwin;
use crate::ops::{Case, CaseInput, Draw, Fill, Role, random::name};

/// One input, two, many; ranks 1, 2 and 4; and one input without a gradient.
pub fn cases() -> Vec<Case> {
    let case = |name: String, inputs: Vec<CaseInput>| {
        Case::new("concat", name, inputs, ConcatTwin, |tape, x| Ok(vec![concat(tape, x)?]))
    };
    let images = |[n, h, w]: [usize; 3], channels: &[usize]| -> Vec<CaseInput> {
        channels.iter().map(|&c| CaseInput::normal([n, h, w, c])).collect()
    };
    let mut with_fixed = images([2, 3, 5], &[3, 1, 7]);
    with_fixed[1] = CaseInput::new([2, 3, 5, 1], Fill::Normal, Role::Fixed);
    vec![
        case("one input".into(), images([2, 3, 5], &[7])),
        case("one pixel".into(), images([1, 1, 1], &[1, 1])),
        case("two inputs".into(), images([2, 9, 7], &[5, 12])),
        case("an inception block".into(), images([2, 5, 5], &[96, 65, 3, 64])),
        case("ten inputs".into(), images([1, 3, 2], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10])),
        case("vectors".into(), vec![CaseInput::normal([70]), CaseInput::normal([3])]),
        case("rows".into(), vec![CaseInput::normal([5, 3]), CaseInput::normal([5, 66])]),
        case("one input fixed".into(), with_fixed),
    ]
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(draw: &mut Draw, x: &[usize]) -> Option<Case> {
    let (_, rows) = x.split_last()?;
    let mut inputs = vec![CaseInput::normal(x)];
    for _ in 0..draw.below(4) {
        inputs.push(CaseInput::normal([rows, &[draw.channels()]].concat()));
    }
    let at = draw.below(inputs.len());
    inputs.swap(0, at);
    let channels: Vec<usize> = inputs.iter().map(|input| input.ty.shape.last()).collect();
    Some(Case::new("concat", name(x, channels), inputs, ConcatTwin, |tape, x| Ok(vec![concat(tape, x)?])))
}
