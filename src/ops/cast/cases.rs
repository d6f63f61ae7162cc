//! Shapes for tests, benchmarks and the self-test.

use super::cast;
use super::reference::CastTwin;
use crate::autograd::{Tape, Tensor};
use crate::ops::{Case, CaseInput, Draw, Fill, Role, random::name};
use crate::tensor::{DType, TensorType};

/// Both ways: one element, sizes around the workgroup (odd counts of 16-bit elements too), many workgroups; small, large
/// and f16's largest numbers.
pub fn cases() -> Vec<Case> {
    let fills = [
        (vec![1], Fill::Normal),
        (vec![63], Fill::Normal),
        // Small, but halves of them are still normal numbers: mid-graph, leaves hold halves.
        (vec![65], Fill::Uniform(5e-4, 2e-3)),
        (vec![3, 5, 7], Fill::Gaussian(0.0, 1e4)),
        (vec![2, 40, 33, 9], Fill::Normal),
        (vec![70], Fill::Constant(65504.0)),
        (vec![70], Fill::Constant(0.0)),
    ];
    let mut cases = vec![];
    for (shape, fill) in fills {
        for (dtype, to) in [(DType::F32, DType::F16), (DType::F16, DType::F32)] {
            let ty = TensorType { shape: shape.clone().into(), dtype };
            let input = CaseInput { ty, fill, role: Role::Differentiable };
            let name = format!("{shape:?} {fill:?} to {}", to.name());
            let case = Case::new("cast", name, vec![input], CastTwin, move |tape, x| Ok(vec![cast(tape, x[0], to)?]));
            // Beside numbers so large the small steps of finite differences vanish.
            let case = if fill == Fill::Constant(65504.0) { case.not_smooth() } else { case };
            cases.push(case.half());
        }
    }
    cases
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(draw: &mut Draw, x: &[usize]) -> Option<Case> {
    let (dtype, to) = draw.of(&[(DType::F32, DType::F16), (DType::F16, DType::F32)]);
    let input = CaseInput { ty: TensorType { shape: x.into(), dtype }, ..CaseInput::normal(x) };
    let trace = move |tape: &mut Tape, x: &[Tensor]| Ok(vec![cast(tape, x[0], to)?]);
    Some(Case::new("cast", name(x, to), vec![input], CastTwin, trace).not_smooth().half())
}
