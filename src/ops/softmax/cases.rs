//! Shapes for tests, benchmarks and the self-test.

use super::reference::SoftmaxTwin;
use super::softmax;
use crate::autograd::{Tape, Tensor};
use crate::ops::{Case, CaseInput, Draw, Fill, Role, random::name};

/// Rows shorter and longer than a workgroup, odd and of fours; one row and many; and large logits.
pub fn cases() -> Vec<Case> {
    let case = |name: String, shape: Vec<usize>, fill: Fill| {
        let input = CaseInput::new(shape, fill, Role::Differentiable);
        Case::new("softmax", name, vec![input], SoftmaxTwin, |tape, x| Ok(vec![softmax(tape, x[0])?]))
    };
    let shapes = [
        vec![1],
        vec![7],
        vec![3, 4],
        vec![2, 3, 5, 2],
        vec![70, 3],
        vec![5, 63],
        vec![3, 65],
        vec![2, 9, 68],
        vec![2, 2, 5, 197],
        vec![3, 1028],
    ];
    let mut cases: Vec<Case> =
        shapes.into_iter().map(|shape| case(format!("{shape:?}"), shape, Fill::Gaussian(0.0, 2.0))).collect();
    cases.push(case("up to 1000".into(), vec![5, 37], Fill::Uniform(-1000.0, 1000.0)));
    cases.push(case("equal logits".into(), vec![5, 36], Fill::Constant(-60.0)));
    cases
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(_: &mut Draw, x: &[usize]) -> Option<Case> {
    (*x.last()? > 1).then(|| {
        let trace = |tape: &mut Tape, x: &[Tensor]| Ok(vec![softmax(tape, x[0])?]);
        Case::new("softmax", name(x, ""), vec![CaseInput::normal(x)], SoftmaxTwin, trace)
    })
}
