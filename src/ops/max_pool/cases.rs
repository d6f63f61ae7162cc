//! Shapes for tests, benchmarks and the self-test.

use super::max_pool;
use super::reference::MaxPoolTwin;
use crate::ops::window::{Window, geometries};
use crate::ops::{
    Case, CaseInput, Draw, Fill, Role,
    random::{image, name},
};

/// Every window geometry; once without a gradient; ties.
pub fn cases() -> Vec<Case> {
    let case = |name: String, input: CaseInput, window: Window| {
        Case::new("max_pool", name, vec![input], MaxPoolTwin { window }, move |tape, x| {
            Ok(vec![max_pool(tape, x[0], window)?])
        })
    };
    let mut cases = vec![];
    for (name, shape, window) in geometries() {
        let input = CaseInput::new(shape, Fill::Distinct, Role::Differentiable);
        cases.push(case(format!("{name}, {shape:?}"), input, window));
        let ties = CaseInput::new(shape, Fill::Labels(3), Role::Differentiable);
        cases.push(case(format!("{name}, {shape:?}, ties"), ties, window).not_smooth());
    }
    let below_zero = CaseInput::new([2, 7, 9, 5], Fill::Uniform(-3.0, -1.0), Role::Fixed);
    let large = CaseInput::new([2, 33, 31, 9], Fill::Distinct, Role::Differentiable);
    cases.push(case("worth a copy to a texture".into(), large, Window::square(3, 1, 1)));
    cases.push(case("below zero, no gradient".into(), below_zero, Window::square(3, 2, 1)));
    cases
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(draw: &mut Draw, x: &[usize]) -> Option<Case> {
    let [_, height, width, _] = image(x)?;
    let window = draw.window([height, width]);
    let input = CaseInput::new(x, Fill::Distinct, Role::Differentiable);
    Some(Case::new("max_pool", name(x, window), vec![input], MaxPoolTwin { window }, move |tape, x| {
        Ok(vec![max_pool(tape, x[0], window)?])
    }))
}
