//! Shapes for tests, benchmarks and the self-test.

use super::dropout;
use super::reference::DropoutTwin;
use crate::ops::{Case, CaseInput, Draw, Fill, Role, random::name};
use crate::tensor::TensorType;

/// Several rates, steps and keys; one element, sizes around the workgroup, many workgroups.
pub fn cases() -> Vec<Case> {
    [
        (vec![1], 0.5, [1, 2], 1.0),
        (vec![63], 0.0, [1, 2], 7.0),
        (vec![65], 0.2, [0, u32::MAX], 8.0),
        (vec![2, 9, 7, 5], 0.5, [7, 9], 0.0),
        (vec![3, 20, 20, 17], 0.8, [0x1234_5678, 0x9abc_def0], 1_000_000.0),
    ]
    .into_iter()
    .map(|(shape, rate, key, step)| {
        let name = format!("{shape:?} rate {rate} step {step}");
        let clock = CaseInput { ty: TensorType::u32([1]), fill: Fill::Constant(step), role: Role::Fixed };
        let inputs = vec![CaseInput::normal(shape), clock];
        Case::new("dropout", name, inputs, DropoutTwin { rate, key }, move |tape, x| {
            Ok(vec![dropout(tape, x[0], rate, key, x[1])?])
        })
    })
    .collect()
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(draw: &mut Draw, x: &[usize]) -> Option<Case> {
    let (rate, key) = (draw.of(&[0.0, 0.2, 0.5]), draw.key());
    let inputs = vec![CaseInput::normal(x), CaseInput::clock(draw.below(1000))];
    Some(Case::new("dropout", name(x, (rate, key)), inputs, DropoutTwin { rate, key }, move |tape, x| {
        Ok(vec![dropout(tape, x[0], rate, key, x[1])?])
    }))
}
