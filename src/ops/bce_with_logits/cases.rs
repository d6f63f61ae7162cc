//! Shapes for tests, benchmarks and the self-test.

use super::bce_with_logits;
use super::reference::BceWithLogitsTwin;
use crate::ops::{Case, CaseInput, Draw, Fill, Role, random::name};

/// One element, sizes around the workgroup and the run, many workgroups; large logits, soft targets, and elements
/// classified so well that only an accurate logarithm sees their loss.
pub fn cases() -> Vec<Case> {
    let list = [
        ("one element", vec![1], Fill::Normal, Fill::Labels(2)),
        ("small", vec![3, 7], Fill::Normal, Fill::Labels(2)),
        ("one workgroup and one more", vec![65], Fill::Gaussian(0.0, 3.0), Fill::Uniform(0.0, 1.0)),
        ("one run", vec![4096], Fill::Gaussian(0.0, 3.0), Fill::Labels(2)),
        ("many runs", vec![2, 113, 97, 1], Fill::Gaussian(0.0, 3.0), Fill::Labels(2)),
        ("many runs, soft targets", vec![3, 101, 67], Fill::Normal, Fill::Uniform(0.0, 1.0)),
        ("logits to 50", vec![33, 31], Fill::Uniform(-50.0, 50.0), Fill::Labels(2)),
        ("surely negative", vec![301], Fill::Uniform(-50.0, -9.0), Fill::Constant(0.0)),
        ("surely positive", vec![301], Fill::Uniform(9.0, 50.0), Fill::Constant(1.0)),
    ];
    list.into_iter()
        .map(|(name, shape, logits, targets)| {
            let inputs = vec![
                CaseInput::new(shape.clone(), logits, Role::Differentiable),
                CaseInput::new(shape, targets, Role::Fixed),
            ];
            Case::new("bce_with_logits", name, inputs, BceWithLogitsTwin, |tape, x| {
                Ok(vec![bce_with_logits(tape, x[0], x[1])?])
            })
        })
        .collect()
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(draw: &mut Draw, x: &[usize]) -> Option<Case> {
    let targets = CaseInput::new(x, draw.of(&[Fill::Labels(2), Fill::Uniform(0.0, 1.0)]), Role::Fixed);
    let inputs = vec![CaseInput::normal(x), targets];
    Some(Case::new("bce_with_logits", name(x, ""), inputs, BceWithLogitsTwin, |tape, x| {
        Ok(vec![bce_with_logits(tape, x[0], x[1])?])
    }))
}
