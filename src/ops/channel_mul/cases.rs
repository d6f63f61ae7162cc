//! Shapes for tests, benchmarks and the self-test.

use super::channel_mul;
use super::reference::ChannelMulTwin;
use crate::autograd::{Tape, Tensor};
use crate::ops::{
    Case, CaseInput, Draw, Fill, Role,
    random::{image, name},
};

/// One pixel, one run and several runs of pixels, odd extents; and each gradient alone.
pub fn cases() -> Vec<Case> {
    let case = |name: String, inputs: Vec<CaseInput>| {
        Case::new("channel_mul", name, inputs, ChannelMulTwin, |tape, x| Ok(vec![channel_mul(tape, x[0], x[1])?]))
    };
    let mut cases: Vec<Case> =
        [[1, 1, 1, 1], [3, 1, 1, 67], [2, 7, 7, 130], [1, 8, 8, 5], [2, 5, 13, 3], [3, 19, 23, 9]]
            .into_iter()
            .map(|[n, h, w, c]| {
                case(format!("{:?}", [n, h, w, c]), vec![CaseInput::normal([n, h, w, c]), CaseInput::normal([n, c])])
            })
            .collect();
    let fixed = |shape: Vec<usize>| CaseInput::new(shape, Fill::Normal, Role::Fixed);
    cases.push(case("scales fixed".into(), vec![CaseInput::normal([2, 3, 5, 7]), fixed(vec![2, 7])]));
    cases.push(case("image fixed".into(), vec![fixed(vec![2, 3, 5, 7]), CaseInput::normal([2, 7])]));
    cases
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(_: &mut Draw, x: &[usize]) -> Option<Case> {
    let [n, _, _, c] = image(x)?;
    let inputs = vec![CaseInput::normal(x), CaseInput::normal([n, c])];
    let trace = |tape: &mut Tape, x: &[Tensor]| Ok(vec![channel_mul(tape, x[0], x[1])?]);
    Some(Case::new("channel_mul", name(x, ""), inputs, ChannelMulTwin, trace))
}
