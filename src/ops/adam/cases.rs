//! Shapes for tests, benchmarks and the self-test.

use super::reference::{AdamTwin, TickTwin};
use super::{AdamConfig, adam_tick, adam_update};
use crate::ops::{Case, CaseInput, Draw, Fill, Role, random::name};
use crate::tensor::TensorType;

/// Adam and AdamW, first and later steps, with a scaled loss, skipped; the bias corrections from the start.
pub fn cases() -> Vec<Case> {
    let (beta1, beta2) = (0.9, 0.999);
    let mut cases = vec![];
    for (n, weight_decay, decoupled, t, unscale) in [
        (1, 0.0, false, 1, None),
        (65, 0.0, false, 10, None),
        (2100, 0.01, true, 2, None),
        (130, 0.05, false, 3, None),
        (64, 0.05, true, 3, None),
        (1030, 0.05, true, 3, Some(0.125)),
        (131, 0.05, false, 3, Some(0.0)),
        (16_387, 0.05, true, 3, None), // worth a copy to a texture
    ] {
        let config = AdamConfig { beta1, beta2, eps: 1e-8, weight_decay, decoupled };
        let correction = [1.0 - beta1.powi(t), 1.0 - beta2.powi(t)].map(|c: f64| c as f32);
        let mut inputs = vec![
            CaseInput::new([n], Fill::Normal, Role::Updated),
            CaseInput::new([n], Fill::Normal, Role::Fixed),
            CaseInput::new([n], Fill::Normal, Role::Updated),
            CaseInput::new([n], Fill::Uniform(0.1, 1.0), Role::Updated),
            CaseInput::new([1], Fill::Constant(0.01), Role::Fixed),
            CaseInput::new([2], Fill::Uniform(correction[0], correction[1]), Role::Fixed),
        ];
        inputs.extend(unscale.map(|factor| CaseInput::new([1], Fill::Constant(factor), Role::Fixed)));
        cases.push(Case::new(
            "adam",
            format!("{n} step {t} {config:?} {unscale:?}"),
            inputs,
            AdamTwin { config },
            move |tape, x| {
                adam_update(tape, x[0], x[1], x[2], x[3], x[4], x[5], x.get(6).copied(), config)?;
                Ok(vec![])
            },
        ));
    }
    // From zero, the recurrence must give the closed form.
    let step = CaseInput { ty: TensorType::u32([1]), fill: Fill::Constant(0.0), role: Role::Updated };
    let correction = CaseInput::new([2], Fill::Constant(0.0), Role::Updated);
    for unscale in [None, Some(0.5), Some(0.0)] {
        let mut inputs = vec![step.clone(), correction.clone()];
        inputs.extend(unscale.map(|factor| CaseInput::new([1], Fill::Constant(factor), Role::Fixed)));
        let twin = TickTwin { betas: [beta1, beta2] };
        cases.push(Case::new("adam", format!("tick {unscale:?}"), inputs, twin, move |tape, x| {
            adam_tick(tape, x[0], x[1], x.get(2).copied(), beta1, beta2)?;
            Ok(vec![])
        }));
    }
    cases
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(draw: &mut Draw, x: &[usize]) -> Option<Case> {
    let (beta1, beta2) = draw.of(&[(0.9, 0.999), (0.5, 0.9)]);
    let unscale = draw.of(&[None, Some(0.5), Some(0.0)]);
    let unscale = unscale.map(|factor| CaseInput::new([1], Fill::Constant(factor), Role::Fixed));
    if draw.one_in(4) {
        let mut inputs = vec![
            CaseInput { role: Role::Updated, ..CaseInput::clock(0) },
            CaseInput::new([2], Fill::Constant(0.0), Role::Updated),
        ];
        inputs.extend(unscale);
        let twin = TickTwin { betas: [beta1, beta2] };
        return Some(Case::new("adam", format!("tick {beta1} {beta2}"), inputs, twin, move |tape, x| {
            adam_tick(tape, x[0], x[1], x.get(2).copied(), beta1, beta2)?;
            Ok(vec![])
        }));
    }
    let (weight_decay, decoupled, t) = (draw.of(&[0.0, 0.05]), draw.flag(), draw.between(1, 9) as i32);
    let config = AdamConfig { beta1, beta2, eps: 1e-8, weight_decay, decoupled };
    let correction = [1.0 - beta1.powi(t), 1.0 - beta2.powi(t)].map(|c: f64| c as f32);
    let mut inputs = vec![
        CaseInput::new(x, Fill::Normal, Role::Updated),
        CaseInput::new(x, Fill::Normal, Role::Fixed),
        CaseInput::new(x, Fill::Normal, Role::Updated),
        CaseInput::new(x, Fill::Uniform(0.1, 1.0), Role::Updated),
        CaseInput::new([1], Fill::Constant(0.1), Role::Fixed),
        CaseInput::new([2], Fill::Uniform(correction[0], correction[1]), Role::Fixed),
    ];
    inputs.extend(unscale);
    Some(Case::new("adam", name(x, config), inputs, AdamTwin { config }, move |tape, x| {
        adam_update(tape, x[0], x[1], x[2], x[3], x[4], x[5], x.get(6).copied(), config)?;
        Ok(vec![])
    }))
}
