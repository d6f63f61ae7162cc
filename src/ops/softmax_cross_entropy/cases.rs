//! Shapes for tests, benchmarks and the self-test.

use super::reference::CrossEntropyTwin;
use super::{mixed_cross_entropy, softmax_cross_entropy};
use crate::ops::{Case, CaseInput, Draw, Fill, Role, random::name};
use crate::tensor::TensorType;

/// Class indices, probabilities and shares of labels, with and without class weights and smoothing; large logits; rows
/// that are left out, and none that counts.
pub fn cases() -> Vec<Case> {
    use Targets::{Labels, Probabilities, Shares};
    let mut cases = vec![];
    for (n, k) in [(1, 2), (5, 7), (64, 7), (130, 19), (3, 1000)] {
        for (targets, weighted, smoothing) in [
            (Labels, false, 0.0),
            (Labels, true, 0.0),
            (Labels, true, 0.1),
            (Probabilities, false, 0.0),
            (Probabilities, true, 0.2),
            (Shares, false, 0.0),
            (Shares, true, 0.0),
            (Shares, true, 0.1),
        ] {
            let name = format!(
                "{n}x{k} {}{}{}",
                format!("{targets:?}").to_lowercase(),
                if weighted { " weighted" } else { "" },
                if smoothing > 0.0 { " smoothed" } else { "" }
            );
            cases.push(case(name, n, k, targets, weighted, smoothing, Fill::Gaussian(0.0, 2.0)));
        }
    }
    cases.push(case("large logits".into(), 9, 5, Labels, false, 0.0, Fill::Uniform(-100.0, 100.0)));
    // Labels up to 9 of 5 classes: the rows from 5 on are left out.
    let mut left_out = case("left-out rows".into(), 20, 5, Labels, true, 0.1, Fill::Normal);
    left_out.inputs[1] = CaseInput::labels([20], 10);
    cases.push(left_out);
    // No share at all: the loss is zero.
    let mut nothing = case("no shares".into(), 6, 5, Shares, true, 0.1, Fill::Normal);
    nothing.inputs[1].fill = Fill::Constant(0.0);
    cases.push(nothing);
    cases
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Targets {
    Labels,
    Probabilities,
    Shares,
}

fn case(name: String, n: usize, k: usize, of: Targets, weighted: bool, smoothing: f32, fill: Fill) -> Case {
    let targets = match of {
        Targets::Labels => CaseInput { ty: TensorType::u32([n]), fill: Fill::Labels(k as u32), role: Role::Fixed },
        _ => CaseInput::new([n, k], Fill::Uniform(0.0, 2.0 / k as f32), Role::Fixed),
    };
    let mut inputs = vec![CaseInput::new([n, k], fill, Role::Differentiable), targets];
    inputs.extend(weighted.then(|| CaseInput::new([k], Fill::Uniform(0.2, 4.0), Role::Fixed)));
    let by_weight = of == Targets::Shares;
    Case::new("softmax_cross_entropy", name, inputs, CrossEntropyTwin { smoothing, by_weight }, move |tape, x| {
        let loss = if by_weight { mixed_cross_entropy } else { softmax_cross_entropy };
        Ok(vec![loss(tape, x[0], x[1], x.get(2).copied(), smoothing)?])
    })
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(draw: &mut Draw, x: &[usize]) -> Option<Case> {
    let &[n, k] = x else { return None };
    let targets = draw.of(&[Targets::Labels, Targets::Probabilities, Targets::Shares]);
    let (weighted, smoothing) = (draw.flag(), draw.of(&[0.0, 0.1]));
    let name = name(x, (targets, weighted, smoothing));
    (k > 1).then(|| case(name, n, k, targets, weighted, smoothing, Fill::Normal))
}
