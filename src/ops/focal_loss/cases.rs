//! Shapes for tests, benchmarks and the self-test.

use super::reference::FocalTwin;
use super::{Focal, focal_loss};
use crate::ops::{Case, CaseInput, Draw, Fill, Role, random::name};

/// Exponents from none to large, with both divisors and weights or without; one row, more than a workgroup, a map of
/// them; large logits; left-out rows, some and all.
pub fn cases() -> Vec<Case> {
    let case = |name: &str, shape: &[usize], fill: Fill, bound: u32, weighted: bool, spec: Focal| {
        let (&k, rows) = shape.split_last().expect("an axis");
        let mut inputs =
            vec![CaseInput::new(shape.to_vec(), fill, Role::Differentiable), CaseInput::labels(rows.to_vec(), bound)];
        inputs.extend(weighted.then(|| CaseInput::new([k], Fill::Uniform(0.2, 4.0), Role::Fixed)));
        let name = format!(
            "{name}{shape:?} gamma {}{}{}",
            spec.gamma,
            if weighted { " weighted" } else { "" },
            if spec.by_weight { " by weight" } else { "" }
        );
        Case::new("focal_loss", name, inputs, FocalTwin { spec }, move |tape, x| {
            Ok(vec![focal_loss(tape, x[0], x[1], x.get(2).copied(), spec)?])
        })
    };
    let mut cases = vec![];
    let normal = Fill::Gaussian(0.0, 2.0);
    for shape in [&[1, 2][..], &[5, 7], &[130, 9], &[2, 17, 11, 3]] {
        let k = shape[shape.len() - 1] as u32;
        for (gamma, weighted, by_weight) in
            [(2.0, false, false), (2.0, true, false), (0.0, true, true), (0.5, false, false), (5.0, true, true)]
        {
            cases.push(case("", shape, normal, k, weighted, Focal { gamma, by_weight }));
        }
    }
    let spec = Focal::default();
    cases.push(case("large logits ", &[40, 5], Fill::Uniform(-50.0, 50.0), 5, false, spec));
    cases.push(case("left-out rows ", &[20, 5], Fill::Normal, 10, true, Focal { by_weight: true, ..spec }));
    let mut none = case("no row counts ", &[6, 3], Fill::Normal, 3, false, spec);
    none.inputs[1].fill = Fill::Constant(3.0);
    cases.push(none);
    cases
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(draw: &mut Draw, x: &[usize]) -> Option<Case> {
    let (&k, rows) = x.split_last().filter(|(k, rows)| **k > 1 && !rows.is_empty())?;
    let spec = Focal { gamma: draw.of(&[0.0, 0.5, 2.0, 5.0]), by_weight: draw.flag() };
    let mut inputs = vec![CaseInput::normal(x), CaseInput::labels(rows, k as u32)];
    inputs.extend(draw.flag().then(|| CaseInput::new([k], Fill::Uniform(0.2, 4.0), Role::Fixed)));
    Some(Case::new("focal_loss", name(x, spec), inputs, FocalTwin { spec }, move |tape, x| {
        Ok(vec![focal_loss(tape, x[0], x[1], x.get(2).copied(), spec)?])
    }))
}
