//! Shapes for tests, benchmarks and the self-test.

use super::mix;
use super::reference::MixTwin;
use crate::ops::{
    Case, CaseInput, Draw, Fill, Role,
    random::{image, name},
};

/// One pixel, less and more than a workgroup, wide and high pictures; boxes that are empty, inside, and reach outside.
pub fn cases() -> Vec<Case> {
    let shapes = [[1, 1, 1, 1], [3, 1, 7, 3], [5, 9, 3, 3], [4, 16, 16, 3], [7, 13, 11, 5]];
    let cases = shapes.into_iter().flat_map(|shape @ [n, height, width, _]| {
        [(Fill::Uniform(0.0, 1.0), height.max(width)), (Fill::Constant(1.0), 2 * height), (Fill::Uniform(0.0, 1.0), 1)]
            .map(|(shares, edges)| {
                let inputs = vec![
                    CaseInput::new(shape, Fill::Normal, Role::Fixed),
                    CaseInput::new(shape, Fill::Normal, Role::Fixed),
                    CaseInput::new([n], shares, Role::Fixed),
                    CaseInput::labels([n, 4], edges as u32 + 1),
                ];
                let name = format!("{} {shares:?}, edges to {edges}", shape.map(|e| e.to_string()).join("x"));
                let trace = |tape: &mut _, x: &[_]| Ok(vec![mix(tape, x[0], x[1], x[2], x[3])?]);
                Case::new("mix", name, inputs, MixTwin, trace).not_smooth()
            })
    });
    cases.collect()
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(draw: &mut Draw, x: &[usize]) -> Option<Case> {
    let [n, height, width, _] = image(x)?;
    let picture = CaseInput::new(x, Fill::Normal, Role::Fixed);
    let shares = draw.of(&[Fill::Uniform(0.0, 1.0), Fill::Constant(1.0)]);
    let boxes = CaseInput::labels([n, 4], height.max(width) as u32 + 1);
    let inputs = vec![picture.clone(), picture, CaseInput::new([n], shares, Role::Fixed), boxes];
    let case =
        Case::new("mix", name(x, shares), inputs, MixTwin, |tape, x| Ok(vec![mix(tape, x[0], x[1], x[2], x[3])?]));
    Some(case.not_smooth())
}
