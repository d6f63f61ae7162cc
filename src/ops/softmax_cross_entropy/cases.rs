//! Shapes for tests, benchmarks and the self-test.

use super::reference::CrossEntropyTwin;
use super::softmax_cross_entropy;
use crate::ops::{Case, CaseInput, Fill, Role};
use crate::tensor::TensorType;

/// Class indices and probabilities, with and without class weights and smoothing; large logits; left-out rows.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![];
    for (n, k) in [(1, 2), (5, 7), (64, 7), (130, 19), (3, 1000)] {
        for (hard, weighted, smoothing) in
            [(true, false, 0.0), (true, true, 0.0), (true, true, 0.1), (false, false, 0.0), (false, true, 0.2)]
        {
            let name = format!(
                "{n}x{k} {}{}{}",
                if hard { "labels" } else { "probabilities" },
                if weighted { " weighted" } else { "" },
                if smoothing > 0.0 { " smoothed" } else { "" }
            );
            cases.push(case(name, n, k, hard, weighted, smoothing, Fill::Gaussian(0.0, 2.0)));
        }
    }
    cases.push(case("large logits".into(), 9, 5, true, false, 0.0, Fill::Uniform(-100.0, 100.0)));
    // Labels up to 9 of 5 classes: the rows from 5 on are left out.
    let mut left_out = case("left-out rows".into(), 20, 5, true, true, 0.1, Fill::Normal);
    left_out.inputs[1] = CaseInput::labels([20], 10);
    cases.push(left_out);
    cases
}

fn case(name: String, n: usize, k: usize, hard: bool, weighted: bool, smoothing: f32, fill: Fill) -> Case {
    let targets = if hard {
        CaseInput { ty: TensorType::u32([n]), fill: Fill::Labels(k as u32), role: Role::Fixed }
    } else {
        CaseInput::new([n, k], Fill::Uniform(0.0, 2.0 / k as f32), Role::Fixed)
    };
    let mut inputs = vec![CaseInput::new([n, k], fill, Role::Differentiable), targets];
    inputs.extend(weighted.then(|| CaseInput::new([k], Fill::Uniform(0.2, 4.0), Role::Fixed)));
    Case::new("softmax_cross_entropy", name, inputs, CrossEntropyTwin { smoothing }, move |tape, x| {
        Ok(vec![softmax_cross_entropy(tape, x[0], x[1], x.get(2).copied(), smoothing)?])
    })
}
