//! Shapes for tests, benchmarks and the self-test.

use super::reference::{FillTwin, ScaleTwin};
use super::{fill, scale};
use crate::ops::{Case, CaseInput};
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
    let shape = vec![3, 5, 7];
    cases.push(Case::new(
        "fill",
        "[3, 5, 7]",
        vec![],
        FillTwin { shape: shape.clone(), value: 1.5 },
        move |tape, _| Ok(vec![fill(tape, TensorType::f32(shape.clone()), 1.5)?]),
    ));
    cases
}
