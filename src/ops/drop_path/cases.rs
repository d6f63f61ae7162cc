//! Shapes for tests, benchmarks and the self-test.

use super::drop_path;
use super::reference::DropPathTwin;
use crate::ops::{Case, CaseInput, Draw, Fill, Role, random::name};
use crate::tensor::TensorType;

/// One element, maps and tokens, odd samples and fours, many samples; rates from none to large.
pub fn cases() -> Vec<Case> {
    [
        (vec![1], 0.5, 0),
        (vec![7, 3], 0.3, 1),
        (vec![9, 5, 6, 7], 0.5, 2),
        (vec![12, 9, 8], 0.2, 3),
        (vec![5, 16, 16, 8], 0.0, 4),
        (vec![300, 4], 0.9, 1_000_000),
    ]
    .into_iter()
    .map(|(shape, rate, step)| {
        let (key, name) = ([7, step], format!("{shape:?} rate {rate}"));
        let clock = CaseInput { ty: TensorType::u32([1]), fill: Fill::Constant(step as f32), role: Role::Fixed };
        let inputs = vec![CaseInput::normal(shape), clock];
        Case::new("drop_path", name, inputs, DropPathTwin { rate, key }, move |tape, x| {
            Ok(vec![drop_path(tape, x[0], rate, key, x[1])?])
        })
    })
    .collect()
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(draw: &mut Draw, x: &[usize]) -> Option<Case> {
    let (rate, key) = (draw.of(&[0.0, 0.2, 0.5]), draw.key());
    let inputs = vec![CaseInput::normal(x), CaseInput::clock(draw.below(1000))];
    Some(Case::new("drop_path", name(x, (rate, key)), inputs, DropPathTwin { rate, key }, move |tape, x| {
        Ok(vec![drop_path(tape, x[0], rate, key, x[1])?])
    }))
}
