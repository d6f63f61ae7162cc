//! Shapes for tests, benchmarks and the self-test.

use super::reference::{SgdTwin, TickTwin};
use super::{SgdConfig, sgd_update, tick};
use crate::ops::{Case, CaseInput, Fill, Role};
use crate::tensor::TensorType;

/// Plain, with momentum, with weight decay, Nesterov; and the step counter.
pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> =
        [(1, 0.0, 0.0, false), (130, 0.9, 0.0, false), (65, 0.9, 1e-2, false), (64, 0.9, 1e-2, true)]
            .into_iter()
            .map(|(n, momentum, weight_decay, nesterov)| {
                let config = SgdConfig { momentum, weight_decay, nesterov };
                let inputs = vec![
                    CaseInput::new([n], Fill::Normal, Role::Updated),
                    CaseInput::new([n], Fill::Normal, Role::Fixed),
                    CaseInput::new([n], Fill::Normal, Role::Updated),
                    CaseInput::new([1], Fill::Constant(0.1), Role::Fixed),
                ];
                Case::new("sgd", format!("{n} {config:?}"), inputs, SgdTwin { config }, move |tape, x| {
                    sgd_update(tape, x[0], x[1], x[2], x[3], config)?;
                    Ok(vec![])
                })
            })
            .collect();
    let step = CaseInput { ty: TensorType::u32([1]), fill: Fill::Constant(41.0), role: Role::Updated };
    cases.push(Case::new("sgd", "tick", vec![step], TickTwin, |tape, x| {
        tick(tape, x[0])?;
        Ok(vec![])
    }));
    cases
}
