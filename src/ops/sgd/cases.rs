//! Shapes for tests, benchmarks and the self-test.

use super::reference::{SgdTwin, TickTwin};
use super::{SgdConfig, sgd_update, tick};
use crate::ops::{Case, CaseInput, Draw, Fill, Role, random::name};
use crate::tensor::TensorType;

/// Plain, with momentum, with weight decay, Nesterov, with a scaled loss, skipped; and the step counter.
pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = [
        (1, 0.0, 0.0, false, None),
        (130, 0.9, 0.0, false, None),
        (65, 0.9, 1e-2, false, None),
        (64, 0.9, 1e-2, true, None),
        (65, 0.9, 1e-2, false, Some(0.125)),
        (66, 0.9, 1e-2, false, Some(0.0)),
        (16_389, 0.9, 1e-2, false, None), // worth a copy to a texture
    ]
    .into_iter()
    .map(|(n, momentum, weight_decay, nesterov, unscale)| {
        let config = SgdConfig { momentum, weight_decay, nesterov };
        let mut inputs = vec![
            CaseInput::new([n], Fill::Normal, Role::Updated),
            CaseInput::new([n], Fill::Normal, Role::Fixed),
            CaseInput::new([n], Fill::Normal, Role::Updated),
            CaseInput::new([1], Fill::Constant(0.1), Role::Fixed),
        ];
        inputs.extend(unscale.map(|factor| CaseInput::new([1], Fill::Constant(factor), Role::Fixed)));
        Case::new("sgd", format!("{n} {config:?} {unscale:?}"), inputs, SgdTwin { config }, move |tape, x| {
            sgd_update(tape, x[0], x[1], x[2], x[3], x.get(4).copied(), config)?;
            Ok(vec![])
        })
    })
    .collect();
    let step = CaseInput { ty: TensorType::u32([1]), fill: Fill::Constant(41.0), role: Role::Updated };
    for unscale in [None, Some(0.5), Some(0.0)] {
        let mut inputs = vec![step.clone()];
        inputs.extend(unscale.map(|factor| CaseInput::new([1], Fill::Constant(factor), Role::Fixed)));
        cases.push(Case::new("sgd", format!("tick {unscale:?}"), inputs, TickTwin, |tape, x| {
            tick(tape, x[0], x.get(1).copied())?;
            Ok(vec![])
        }));
    }
    cases
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(draw: &mut Draw, x: &[usize]) -> Option<Case> {
    let unscale = draw.of(&[None, Some(0.5), Some(0.0)]);
    let unscale = unscale.map(|factor| CaseInput::new([1], Fill::Constant(factor), Role::Fixed));
    if draw.one_in(4) {
        let mut inputs = vec![CaseInput { role: Role::Updated, ..CaseInput::clock(draw.below(100)) }];
        inputs.extend(unscale);
        return Some(Case::new("sgd", "tick", inputs, TickTwin, |tape, x| {
            tick(tape, x[0], x.get(1).copied())?;
            Ok(vec![])
        }));
    }
    let config =
        SgdConfig { momentum: draw.of(&[0.0, 0.9]), weight_decay: draw.of(&[0.0, 1e-2]), nesterov: draw.flag() };
    let mut inputs = vec![
        CaseInput::new(x, Fill::Normal, Role::Updated),
        CaseInput::new(x, Fill::Normal, Role::Fixed),
        CaseInput::new(x, Fill::Normal, Role::Updated),
        CaseInput::new([1], Fill::Constant(0.5), Role::Fixed),
    ];
    inputs.extend(unscale);
    Some(Case::new("sgd", name(x, config), inputs, SgdTwin { config }, move |tape, x| {
        sgd_update(tape, x[0], x[1], x[2], x[3], x.get(4).copied(), config)?;
        Ok(vec![])
    }))
}
