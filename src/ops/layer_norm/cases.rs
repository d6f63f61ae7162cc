//! Shapes for tests, benchmarks and the self-test.

use super::layer_norm;
use super::reference::LayerNormTwin;
use crate::ops::{Case, CaseInput, Draw, Fill, Role, random::name};

/// Rows shorter and longer than a workgroup, odd and of fours; one row, many, more than one run of them; a large mean;
/// a row of equal values.
pub fn cases() -> Vec<Case> {
    let case = |name: String, shape: &[usize], fill: Fill, eps: f32| {
        let c = *shape.last().expect("an axis");
        let vector = |mean, deviation| CaseInput::new([c], Fill::Gaussian(mean, deviation), Role::Differentiable);
        let inputs =
            vec![CaseInput::new(shape.to_vec(), fill, Role::Differentiable), vector(1.0, 0.5), vector(0.0, 1.0)];
        Case::new("layer_norm", name, inputs, LayerNormTwin { eps }, move |tape, x| {
            Ok(vec![layer_norm(tape, x[0], x[1], x[2], eps)?])
        })
    };
    let shapes: [&[usize]; 11] = [
        &[7],
        &[1, 3],
        &[3, 4],
        &[2, 5, 3],
        &[4, 7, 32],
        &[5, 63],
        &[3, 65],
        &[2, 3, 5, 96],
        &[2, 9, 260],
        &[3, 1027],
        &[700, 12],
    ];
    let mut cases: Vec<Case> =
        shapes.into_iter().map(|shape| case(format!("{shape:?}"), shape, Fill::Gaussian(0.5, 2.0), 1e-5)).collect();
    cases.push(case("more than one tile of columns".into(), &[40, 130], Fill::Normal, 1e-6));
    // f16 leaves such rows two bits of deviation: there they test nothing but that no sum overflows.
    cases.push(case("mean 1000".into(), &[6, 96], Fill::Gaussian(1000.0, 1.0), 1e-6));
    cases.push(case("mean 1000, odd".into(), &[6, 37], Fill::Gaussian(-1000.0, 1.0), 1e-6));
    cases.push(case("equal values".into(), &[3, 20], Fill::Constant(3.0), 1e-5));
    cases
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(draw: &mut Draw, x: &[usize]) -> Option<Case> {
    let (&c, _) = x.split_last().filter(|(c, _)| **c > 1)?;
    let eps = draw.of(&[1e-5, 1e-3]);
    let vector = |mean, deviation| CaseInput::new([c], Fill::Gaussian(mean, deviation), Role::Differentiable);
    let inputs = vec![CaseInput::normal(x), vector(1.0, 0.5), vector(0.0, 0.5)];
    let case = Case::new("layer_norm", name(x, eps), inputs, LayerNormTwin { eps }, move |tape, x| {
        Ok(vec![layer_norm(tape, x[0], x[1], x[2], eps)?])
    });
    // Of short rows the gradient of x is nearly zero: a difference of nearly equal numbers.
    Some(if c < 8 { case.tolerance(1e-3) } else { case })
}
