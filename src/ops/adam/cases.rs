//! Shapes for tests, benchmarks and the self-test.

use super::reference::{AdamTwin, TickTwin};
use super::{AdamConfig, adam_tick, adam_update};
use crate::ops::{Case, CaseInput, Draw, Fill, Role, random::name};
use crate::tensor::TensorType;

/// Adam and AdamW, first and later steps, with a scaled loss, skipped, with gradients that are not finite; the bias corrections from the start.
pub fn cases() -> Vec<Case> {
    let (beta1, beta2) = (0.9, 0.999);
    let mut cases = vec![];
    let normal = Fill::Normal;
    for (n, weight_decay, decoupled, t, unscale, gradient, up) in [
        (1, 0.0, false, 1, None, normal, 0.0),
        (65, 0.0, false, 10, None, normal, 1.0),
        (2100, 0.01, true, 2, None, normal, 0.0),
        (130, 0.05, false, 3, None, normal, 0.0),
        (64, 0.05, true, 3, None, normal, 0.0),
        (1030, 0.05, true, 3, Some(0.125), normal, 0.0),
        (131, 0.05, false, 3, Some(0.0), Fill::NormalBut(f32::NAN), 0.0),
        (16_387, 0.05, true, 3, None, normal, 0.0), // worth a copy to a texture
        (67, 0.05, true, 3, None, Fill::NormalBut(f32::NAN), 0.0),
        (2101, 0.05, false, 3, None, Fill::NormalBut(f32::INFINITY), 0.0),
        (66, 0.05, true, 3, Some(0.125), Fill::NormalBut(f32::NEG_INFINITY), 1.0),
    ] {
        let config = AdamConfig { beta1, beta2, eps: 1e-8, weight_decay, decoupled };
        let correction = [1.0 - beta1.powi(t), 1.0 - beta2.powi(t)].map(|c: f64| c as f32);
        let mut inputs = vec![
            CaseInput::new([n], Fill::Normal, Role::Updated),
            CaseInput::new([n], gradient, Role::Fixed),
            CaseInput::new([n], Fill::Normal, Role::Updated),
            CaseInput::new([n], Fill::Uniform(0.1, 1.0), Role::Updated),
            CaseInput::new([1], Fill::Constant(0.01), Role::Fixed),
            CaseInput::new([2], Fill::Uniform(correction[0], correction[1]), Role::Fixed),
            CaseInput::flag(up),
        ];
        inputs.extend(unscale.map(|factor| CaseInput::new([1], Fill::Constant(factor), Role::Fixed)));
        cases.push(Case::new(
            "adam",
            format!("{n} step {t} {config:?} {unscale:?} {gradient:?} {up}"),
            inputs,
            AdamTwin { config },
            move |tape, x| {
                adam_update(tape, x[0], x[1], x[2], x[3], x[4], x[5], x[6], x.get(7).copied(), config)?;
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
        CaseInput::flag(0.0),
    ];
    inputs.extend(unscale);
    Some(Case::new("adam", name(x, config), inputs, AdamTwin { config }, move |tape, x| {
        adam_update(tape, x[0], x[1], x[2], x[3], x[4], x[5], x[6], x.get(7).copied(), config)?;
        Ok(vec![])
    }))
}
