//! Shapes for tests, benchmarks and the self-test.

use super::attention;
use super::reference::AttentionTwin;
use crate::autograd::{Tape, Tensor};
use crate::ops::{
    Case, CaseInput, Draw, Fill, Role,
    random::{image, name},
};

/// One token, one head, odd numbers of tokens, as many keys as queries or not, the smallest vision transformer's heads;
/// scores so large that one key takes it all.
pub fn cases() -> Vec<Case> {
    let case = |name: String, [n, t, s, heads, d]: [usize; 5], deviation: f32| {
        let input =
            |tokens| CaseInput::new([n, tokens, heads, d], Fill::Gaussian(0.0, deviation), Role::Differentiable);
        let inputs = vec![input(t), input(s), input(s)];
        Case::new("attention", name, inputs, AttentionTwin, |tape, x| Ok(vec![attention(tape, x[0], x[1], x[2])?]))
    };
    let shapes =
        [[1, 1, 1, 1, 1], [2, 5, 5, 1, 3], [2, 8, 8, 3, 16], [3, 9, 4, 2, 8], [1, 4, 33, 2, 5], [2, 65, 65, 3, 64]];
    let mut cases: Vec<Case> =
        shapes.into_iter().map(|shape| case(format!("{shape:?} (N, T, S, heads, D)"), shape, 1.0)).collect();
    cases.push(case("large scores".into(), [2, 7, 7, 2, 8], 2.0));
    // In f16 scores and shares are rounded on the way: to a thousandth of a score of up to ten.
    let halves: Vec<Case> = cases.iter().map(|case| case.in_half(&[0, 1, 2]).tolerance(4e-3)).collect();
    cases.extend(halves);
    cases
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(draw: &mut Draw, x: &[usize]) -> Option<Case> {
    let [n, tokens, heads, length] = image(x)?;
    let keys = if draw.flag() { tokens } else { draw.extent() };
    let inputs = [CaseInput::normal(x), CaseInput::normal([n, keys, heads, length])];
    let inputs = [&inputs[..], &inputs[1..]].concat();
    let trace = |tape: &mut Tape, x: &[Tensor]| Ok(vec![attention(tape, x[0], x[1], x[2])?]);
    Some(Case::new("attention", name(x, keys), inputs, AttentionTwin, trace))
}
