//! Shapes for tests, benchmarks and the self-test.

use super::reference::{SgdTwin, TickTwin};
use super::{SgdConfig, sgd_update, tick};
use crate::ops::{Case, CaseInput, Draw, Fill, Role, random::name};
use crate::tensor::TensorType;

/// Plain, with momentum, with weight decay, Nesterov, with a scaled loss, skipped, with gradients that are not finite; and the step counter.
pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = [
        (1, 0.0, 0.0, false, None, Fill::Normal, 0.0),
        (130, 0.9, 0.0, false, None, Fill::Normal, 1.0),
        (65, 0.9, 1e-2, false, None, Fill::Normal, 0.0),
        (64, 0.9, 1e-2, true, None, Fill::Normal, 0.0),
        (65, 0.9, 1e-2, false, Some(0.125), Fill::Normal, 0.0),
        (66, 0.9, 1e-2, false, Some(0.0), Fill::NormalBut(f32::INFINITY), 0.0),
        (16_389, 0.9, 1e-2, false, None, Fill::Normal, 0.0), // worth a copy to a texture
        (67, 0.9, 1e-2, true, None, Fill::NormalBut(f32::NAN), 0.0),
        (1030, 0.0, 0.0, false, Some(0.125), Fill::NormalBut(f32::NEG_INFINITY), 0.0),
    ]
    .into_iter()
    .map(|(n, momentum, weight_decay, nesterov, unscale, gradient, up)| {
        let config = SgdConfig { momentum, weight_decay, nesterov };
        let mut inputs = vec![
            CaseInput::new([n], Fill::Normal, Role::Updated),
            CaseInput::new([n], gradient, Role::Fixed),
            CaseInput::new([n], Fill::Normal, Role::Updated),
            CaseInput::new([1], Fill::Constant(0.1), Role::Fixed),
            CaseInput::flag(up),
        ];
        inputs.extend(unscale.map(|factor| CaseInput::new([1], Fill::Constant(factor), Role::Fixed)));
        Case::new(
            "sgd",
            format!("{n} {config:?} {unscale:?} {gradient:?} {up}"),
            inputs,
            SgdTwin { config },
            move |tape, x| {
                sgd_update(tape, x[0], x[1], x[2], x[3], x[4], x.get(5).copied(), config)?;
                Ok(vec![])
            },
        )
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
        CaseInput::flag(0.0),
    ];
    inputs.extend(unscale);
    Some(Case::new("sgd", name(x, config), inputs, SgdTwin { config }, move |tape, x| {
        sgd_update(tape, x[0], x[1], x[2], x[3], x[4], x.get(5).copied(), config)?;
        Ok(vec![])
    }))
}
