//! Shapes for tests, benchmarks and the self-test.

use super::reference::{BatchNormTwin, FollowedTwin};
use super::{BatchNorm, Shared, batch_norm_eval, batch_norm_shared, batch_norm_train};
use crate::autograd::{Tape, Tensor};
use crate::error::Result;
use crate::ops::{Case, CaseInput, Draw, Fill, Role, add, cast, random::name, relu};

/// Training and evaluation, with and without gamma: few and many rows, few, odd and many channels, a large mean.
pub fn cases() -> Vec<Case> {
    let spec = BatchNorm { eps: 1e-5, momentum: 0.1 };
    let shapes: [(&str, Vec<usize>, f32); 7] = [
        ("two rows", vec![2, 1, 1, 5], 0.0),
        ("one channel", vec![3, 5, 4, 1], 0.5),
        ("odd channels", vec![2, 7, 5, 13], -1.0),
        ("matrix", vec![37, 70], 0.0),
        ("many rows", vec![4, 40, 33, 8], 0.3),
        ("many channels", vec![2, 3, 2, 515], 0.0),
        ("mean 1000", vec![4, 16, 16, 9], 1000.0),
    ];
    let mut cases = vec![];
    for (name, shape, mean) in shapes {
        for train in [true, false] {
            for has_gamma in [true, false] {
                let c = shape[shape.len() - 1];
                let running = if train { Role::Updated } else { Role::Fixed };
                let mut inputs = vec![
                    CaseInput::new(shape.clone(), Fill::Gaussian(mean, 1.0), Role::Differentiable),
                    CaseInput::normal([c]),
                    CaseInput::new([c], Fill::Gaussian(mean, 0.3), running),
                    CaseInput::new([c], Fill::Uniform(0.5, 2.0), running),
                ];
                inputs.extend(has_gamma.then(|| CaseInput::normal([c])));
                let label = format!(
                    "{} {name}{}",
                    if train { "train" } else { "eval" },
                    if has_gamma { "" } else { " without gamma" }
                );
                let case = Case::new("batch_norm", label, inputs, BatchNormTwin { spec, train }, move |tape, x| {
                    let gamma = x.get(4).copied();
                    let norm = if train { batch_norm_train } else { batch_norm_eval };
                    Ok(vec![norm(tape, x[0], gamma, x[1], x[2], x[3], spec)?])
                });
                // With two rows the gradient of x is nearly zero: a difference of nearly equal numbers.
                // At a mean of 1000 a rounding of the mean in f32 is 3e-5 deviations; the twin's sums happen to be exact
                // where x is f16, so that they do not show it.
                let tolerance = match name {
                    "two rows" => 1e-3,
                    "mean 1000" => 5e-4,
                    _ => case.tolerance,
                };
                cases.push(case.tolerance(tolerance));
            }
        }
    }
    cases.extend(fused_cases(spec));
    cases.extend(frozen_cases(spec));
    cases.extend(shared_cases(spec));
    cases
}

/// With the statistics of all ranks, of which there is one: what each does before and behind the exchanges.
fn shared_cases(spec: BatchNorm) -> Vec<Case> {
    let mut cases = vec![];
    // The second has more rows than one run, the last is worth copying to textures, where a device prefers those.
    let shapes = [[3, 5, 4, 8], [4, 40, 33, 8], [2, 4, 3, 7], [3, 27, 26, 8]];
    for (shape, has_gamma, rectified) in shapes.map(|shape| (shape, shape[1] != 4, shape[1] != 40)) {
        let c = shape[3];
        let mut inputs = vec![
            CaseInput::new(shape, Fill::Gaussian(0.5, 1.0), Role::Differentiable),
            CaseInput::normal([c]),
            CaseInput::new([c], Fill::Gaussian(0.0, 0.3), Role::Updated),
            CaseInput::new([c], Fill::Uniform(0.5, 2.0), Role::Updated),
        ];
        inputs.extend(has_gamma.then(|| CaseInput::normal([c])));
        let twin = FollowedTwin { norm: BatchNormTwin { spec, train: true }, residual: false, rectified };
        let label = format!("shared {shape:?}{}", if rectified { " and ReLU" } else { "" });
        cases.push(Case::new("batch_norm", label, inputs, twin, move |tape, x| {
            let shared = Shared { spec, rows: shape[..3].iter().product() };
            let y = batch_norm_shared(tape, x[0], x.get(4).copied(), x[1], x[2], x[3], shared)?;
            followed(tape, y, None, rectified)
        }));
    }
    cases
}

/// Evaluation with constant gamma and beta: only the gradient of x is wanted. A ReLU's gradient is fused into it, unless
/// the residual reads that too.
fn frozen_cases(spec: BatchNorm) -> Vec<Case> {
    let mut cases = vec![];
    // The last is worth copying to textures, where a device prefers those.
    let shapes = [([3, 5, 4, 8], true), ([3, 5, 4, 8], false), ([2, 4, 3, 7], true), ([3, 27, 26, 8], true)];
    for (shape, has_gamma) in shapes {
        for tail in [None, Some("ReLU"), Some("residual and ReLU")] {
            // Of so many sums in f16 one lies so near zero that another order of roundings moves it across.
            let f32_only = shape[1] == 27 && tail == Some("residual and ReLU");
            let (c, residual) = (shape[3], tail == Some("residual and ReLU"));
            let fixed = |shape: [usize; 1], fill| CaseInput::new(shape, fill, Role::Fixed);
            let mut inputs = vec![
                CaseInput::new(shape, Fill::Gaussian(0.5, 1.0), Role::Differentiable),
                fixed([c], Fill::Gaussian(0.0, 1.0)),
                fixed([c], Fill::Gaussian(0.0, 0.3)),
                fixed([c], Fill::Uniform(0.5, 2.0)),
            ];
            inputs.extend(has_gamma.then(|| fixed([c], Fill::Gaussian(0.0, 1.0))));
            inputs.extend(residual.then(|| CaseInput::normal(shape)));
            let (gamma, tailed) = (if has_gamma { "" } else { " without gamma" }, tail.is_some());
            let label = format!("frozen {shape:?}{gamma}{}", tail.map(|t| format!(" and {t}")).unwrap_or_default());
            let twin = FollowedTwin { norm: BatchNormTwin { spec, train: false }, residual, rectified: tailed };
            let case = Case::new("batch_norm", label, inputs, twin, move |tape, x| {
                let gamma = has_gamma.then(|| x[4]);
                let y = batch_norm_eval(tape, x[0], gamma, x[1], x[2], x[3], spec)?;
                followed(tape, y, residual.then(|| x[x.len() - 1]), tailed)
            });
            cases.push(case.f32_only(f32_only));
        }
    }
    cases
}

/// y plus the residual, if there is one, then perhaps a ReLU.
fn followed(tape: &mut Tape, mut y: Tensor, residual: Option<Tensor>, rectified: bool) -> Result<Vec<Tensor>> {
    if let Some(residual) = residual {
        let dtype = tape.ty(y).dtype;
        let residual = cast::cast(tape, residual, dtype)?;
        y = add::add(tape, residual, y)?;
    }
    Ok(vec![if rectified { relu::relu(tape, y)? } else { y }])
}

/// Followed by a residual and a ReLU: the planner fuses these, forward and backward.
fn fused_cases(spec: BatchNorm) -> Vec<Case> {
    let mut cases = vec![];
    // The last two are worth copying to textures, where a device prefers those.
    let shapes = [
        (vec![3, 5, 4, 8], true),
        (vec![2, 4, 3, 7], true),
        (vec![3, 5, 4, 8], false),
        (vec![3, 27, 26, 8], true),
        (vec![2, 37, 33, 7], true),
    ];
    for (shape, train) in shapes {
        for (residual, rectified) in [(false, true), (true, false), (true, true)] {
            // As above.
            let f32_only = shape[1] == 37 && residual && rectified;
            let c = shape[3];
            let running = if train { Role::Updated } else { Role::Fixed };
            let mut inputs = vec![
                CaseInput::new(shape.clone(), Fill::Gaussian(0.5, 1.0), Role::Differentiable),
                CaseInput::normal([c]),
                CaseInput::new([c], Fill::Gaussian(0.0, 0.3), running),
                CaseInput::new([c], Fill::Uniform(0.5, 2.0), running),
                CaseInput::normal([c]),
            ];
            inputs.extend(residual.then(|| CaseInput::normal(shape.clone())));
            let mode = if train { "train" } else { "eval" };
            let tail = [residual.then_some(" and residual"), rectified.then_some(" and ReLU")];
            let label = format!("{mode} {shape:?}{}", tail.into_iter().flatten().collect::<String>());
            let twin = FollowedTwin { norm: BatchNormTwin { spec, train }, residual, rectified };
            let case = Case::new("batch_norm", label, inputs, twin, move |tape, x| {
                let norm = if train { batch_norm_train } else { batch_norm_eval };
                let y = norm(tape, x[0], Some(x[4]), x[1], x[2], x[3], spec)?;
                followed(tape, y, residual.then(|| x[5]), rectified)
            });
            cases.push(case.f32_only(f32_only));
        }
    }
    cases
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(draw: &mut Draw, x: &[usize]) -> Option<Case> {
    let (&c, rows) = x.split_last().filter(|(_, rows)| !rows.is_empty())?;
    let rows: usize = rows.iter().product();
    let (train, has_gamma) = (draw.flag(), draw.flag());
    if train && rows < 2 {
        return None;
    }
    let spec = BatchNorm { eps: draw.of(&[1e-5, 1e-3]), momentum: draw.of(&[0.1, 0.01]) };
    let running = if train { Role::Updated } else { Role::Fixed };
    let vector = |mean, deviation| CaseInput::new([c], Fill::Gaussian(mean, deviation), Role::Differentiable);
    let mut inputs = vec![
        CaseInput::normal(x),
        vector(0.0, 0.5),
        CaseInput::new([c], Fill::Gaussian(0.0, 0.3), running),
        CaseInput::new([c], Fill::Uniform(0.5, 2.0), running),
    ];
    inputs.extend(has_gamma.then(|| vector(1.0, 0.5)));
    let name = name(x, (if train { "train" } else { "eval" }, has_gamma, spec));
    let case = Case::new("batch_norm", name, inputs, BatchNormTwin { spec, train }, move |tape, x| {
        let norm = if train { batch_norm_train } else { batch_norm_eval };
        Ok(vec![norm(tape, x[0], x.get(4).copied(), x[1], x[2], x[3], spec)?])
    });
    // Of few rows the gradient of x is nearly zero: a difference of nearly equal numbers.
    Some(if train && rows < 8 { case.tolerance(1e-3) } else { case })
}
