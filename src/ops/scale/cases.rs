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
    let fill = |name: &str, ty: TensorType| {
        let twin = FillTwin { shape: ty.shape.dims().to_vec(), value: 1.5 };
        Case::new("fill", name, vec![], twin, move |tape, _| Ok(vec![fill(tape, ty.clone(), 1.5)?]))
    };
    cases.push(fill("[3, 5, 7]", TensorType::f32([3, 5, 7])));
    cases.push(fill("[3, 5, 7] f16", TensorType::f16([3, 5, 7])).half());
    cases
}
