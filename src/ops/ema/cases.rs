//! Shapes for tests, benchmarks and the self-test.

use super::ema;
use super::reference::EmaTwin;
use crate::autograd::{Tape, Tensor};
use crate::ops::{Case, CaseInput, Draw, Fill, Role, random::name};

/// One element, sizes that are no whole groups of four, many workgroups; no memory, and a very long one.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![];
    for (shape, decay) in
        [(vec![1], 0.5), (vec![7], 0.0), (vec![63], 0.9), (vec![64, 65], 0.999), (vec![3, 3, 41, 60], 0.9999)]
    {
        let average = CaseInput::new(shape.clone(), Fill::Normal, Role::Updated);
        let value = CaseInput::new(shape.clone(), Fill::Normal, Role::Fixed);
        let trace = move |tape: &mut Tape, x: &[Tensor]| ema(tape, x[0], x[1], decay).map(|()| vec![]);
        let name = format!("{shape:?}, decay {decay}");
        cases.push(Case::new("ema", &name, vec![average, value], EmaTwin { decay }, trace).not_smooth());
    }
    cases
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(draw: &mut Draw, x: &[usize]) -> Option<Case> {
    let decay = draw.of(&[0.0, 0.5, 0.9]);
    let inputs = vec![CaseInput::new(x, Fill::Normal, Role::Updated), CaseInput::new(x, Fill::Normal, Role::Fixed)];
    let trace = move |tape: &mut Tape, x: &[Tensor]| ema(tape, x[0], x[1], decay).map(|()| vec![]);
    Some(Case::new("ema", name(x, decay), inputs, EmaTwin { decay }, trace).not_smooth())
}
