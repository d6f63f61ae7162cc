//! Shapes for tests, benchmarks and the self-test.

use super::reference::GeluTwin;
use super::{Gelu, gelu};
use crate::autograd::{Tape, Tensor};
use crate::ops::{Case, CaseInput, Draw, Fill, Role, random::name};

/// One element, sizes around the workgroup, many workgroups; both sides of where one formula takes over from the other;
/// and inputs far from zero, whose cubes overflow in f16.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![];
    for kind in [Gelu::Exact, Gelu::Tanh] {
        let mut push = |name: String, input: CaseInput| {
            let name = format!("{name} {}", format!("{kind:?}").to_lowercase());
            let case = Case::new("gelu", name, vec![input], GeluTwin { kind }, move |tape, x| {
                Ok(vec![gelu(tape, x[0], kind)?])
            });
            cases.push(case);
        };
        for shape in [vec![1], vec![63], vec![65], vec![2, 9, 7, 5], vec![3, 20, 20, 17]] {
            push(format!("{shape:?}"), CaseInput::normal(shape));
        }
        let with = |fill: Fill| CaseInput::new([3, 129], fill, Role::Differentiable);
        push("near zero".into(), with(Fill::Gaussian(0.0, 1e-3)));
        push("-2 to -1".into(), with(Fill::Uniform(-2.0, -1.0)));
        push("-4 to -2".into(), with(Fill::Uniform(-4.0, -2.0)));
        push("up to 8".into(), with(Fill::Uniform(-8.0, 8.0)));
        push("up to 1000".into(), with(Fill::Uniform(-1000.0, 1000.0)));
    }
    cases
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(draw: &mut Draw, x: &[usize]) -> Option<Case> {
    let kind = draw.of(&[Gelu::Exact, Gelu::Tanh]);
    let trace = move |tape: &mut Tape, x: &[Tensor]| Ok(vec![gelu(tape, x[0], kind)?]);
    Some(Case::new("gelu", name(x, kind), vec![CaseInput::normal(x)], GeluTwin { kind }, trace))
}
