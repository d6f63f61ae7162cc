//! Shapes for tests, benchmarks and the self-test.

use super::reference::SummaryTwin;
use super::{NUMBERS, summarise};
use crate::ops::{Case, CaseInput, Draw, Fill, Role, random::name};

fn case(shape: &[usize], fill: Fill, before: Fill) -> Case {
    let inputs = vec![CaseInput::new([NUMBERS], before, Role::Updated), CaseInput::new(shape, fill, Role::Fixed)];
    Case::new("summary", name(shape, (fill, before)), inputs, SummaryTwin, |tape, x| {
        summarise(tape, x[0], x[1])?;
        Ok(vec![])
    })
}

/// One run and several, all on one side of zero, some or all not finite; into an empty record and one that is not.
pub fn cases() -> Vec<Case> {
    let (empty, some) = (Fill::Constant(0.0), Fill::Uniform(1.0, 2.0));
    vec![
        case(&[1], Fill::Normal, empty),
        case(&[3, 21], Fill::Uniform(2.0, 3.0), empty),
        case(&[65], Fill::Uniform(-3.0, -2.0), empty),
        case(&[1], Fill::Constant(f32::NAN), empty),
        case(&[70], Fill::Constant(f32::INFINITY), some),
        case(&[16_385], Fill::NormalBut(f32::NEG_INFINITY), empty),
        case(&[5, 10_000], Fill::NormalBut(f32::NAN), some),
        case(&[32_768], Fill::Normal, empty),
        case(&[40_000], Fill::Uniform(1e38, 3e38), empty),
    ]
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(draw: &mut Draw, x: &[usize]) -> Option<Case> {
    let fill = draw.of(&[Fill::Normal, Fill::NormalBut(f32::NAN), Fill::NormalBut(f32::INFINITY)]);
    Some(case(x, fill, Fill::Constant(0.0)))
}
