//! Shapes for tests, benchmarks and the self-test.

use super::reference::{FillTwin, ScaleTwin};
use super::{fill, scale};
use crate::autograd::{Tape, Tensor};
use crate::ops::{Case, CaseInput, Draw, random::name};
use crate::tensor::TensorType;

/// One element, sizes around the workgroup, many workgroups.
pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> =
        [(vec![1], 2.0), (vec![64], -0.5), (vec![2, 5, 7, 3], 0.17), (vec![3, 40, 40, 17], 1.25)]
            .into_iter()
            .map(|(shape, factor)| {
                Case::new(
                    "scale",
                    format!("{shape:?} by {factor}"),
                    vec![CaseInput::normal(shape)],
                    ScaleTwin { factor },
                    move |tape, x| Ok(vec![scale(tape, x[0], factor)?]),
                )
            })
            .collect();
    let fill = |name: &str, ty: TensorType| {
        let twin = FillTwin { shape: ty.shape.dims().to_vec(), value: 1.5 };
        Case::new("fill", name, vec![], twin, move |tape, _| Ok(vec![fill(tape, ty.clone(), 1.5)?]))
    };
    cases.push(fill("[3, 5, 7]", TensorType::f32([3, 5, 7])));
    cases.push(fill("[3, 5, 7] f16", TensorType::f16([3, 5, 7])).half());
    cases
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(draw: &mut Draw, x: &[usize]) -> Option<Case> {
    if draw.one_in(4) {
        let (ty, value) = (TensorType::f32(x), draw.of(&[0.0, 1.5, -2.0]));
        let twin = FillTwin { shape: x.to_vec(), value };
        let trace = move |tape: &mut Tape, _: &[Tensor]| Ok(vec![fill(tape, ty.clone(), value)?]);
        return Some(Case::new("fill", name(x, value), vec![], twin, trace));
    }
    let factor = draw.of(&[-1.0, 0.5, 1.25, 2.0]);
    let trace = move |tape: &mut Tape, x: &[Tensor]| Ok(vec![scale(tape, x[0], factor)?]);
    Some(Case::new("scale", name(x, factor), vec![CaseInput::normal(x)], ScaleTwin { factor }, trace))
}
