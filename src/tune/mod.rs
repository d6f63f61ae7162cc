//! Tuning: which of the kernels an op could use is the fastest on this device, found by trying.
//!
//! A node that has a choice says so ([`Op::candidates`](crate::autograd::Op::candidates)): names for its shape and the
//! class of shapes it is of, a list of choices and one that the others must agree with. Tuning runs each on random data
//! of that very shape. What does not agree with the reference is rejected and never timed; the rest is timed, and the
//! fastest wins if it beats the choice that would be made without tuning by more than timing noise. Tuning stops when its
//! time is used up, the largest products come first, and what was not reached stays as it was.
//!
//! The result is kept on disk ([`TuningCache`]), serves other shapes of the class until they are measured themselves, and
//! lowering finds it in [`Caps::choices`]. Another kernel adds in another order, so a run records the choices it was made
//! with, and keeps them when it is resumed.
//!
//! - `measure`: checking and timing the candidates of one node
//! - `cache`: the file
//! - `shipped`: the choices that come with the program

mod cache;
mod measure;
mod shipped;

use std::time::{Duration, Instant};

pub use cache::TuningCache;
pub use measure::{Measured, Rejected};
pub use shipped::Family;

use crate::autograd::{Candidates, Lower, Lowered, Tunable};
use crate::error::Result;
use crate::gpu::{Caps, Choices, Gpu};

/// A choice must be faster than the one without tuning by this factor to replace it: less is noise.
const WORTH_IT: f64 = 1.03;

/// What tuning found for one node.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The shape.
    pub key: String,
    /// The class it is of.
    pub class: String,
    /// Floating-point operations.
    pub flops: u64,
    /// The choice without tuning; `None` if it was rejected.
    pub default: Option<Measured>,
    /// The choice to use.
    pub best: Measured,
    /// Candidates that agreed with the reference.
    pub tried: usize,
    /// Candidates that did not, or that the driver would not run.
    pub rejected: Vec<Rejected>,
}

/// What a tuning came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tuned {
    /// Nodes whose choices were measured, the largest first.
    pub outcomes: Vec<Outcome>,
    /// Nodes that were left as they were, and why.
    pub left: Vec<(String, String)>,
}

/// The nodes without those of a key that came before: the graphs of a run share products.
pub fn distinct(mut nodes: Vec<Tunable>) -> Vec<Tunable> {
    let mut seen = std::collections::HashSet::new();
    nodes.retain(|node| seen.insert(node.candidates.key.clone()));
    nodes
}

/// Measures `nodes`, the largest first, for about as long as `budget`; a node that was begun is finished with the
/// candidates tried so far. `progress` is called before each node with the nodes done and all of them, and stops the
/// tuning by an error.
///
/// # Errors
/// Those of `progress`; what cost the device. A node that cannot be measured otherwise is left as it was.
pub fn tune(
    gpu: &Gpu,
    nodes: &[Tunable],
    budget: Duration,
    progress: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<Tuned> {
    let deadline = Instant::now() + budget;
    let mut sized: Vec<(u64, &Tunable)> = nodes.iter().map(|node| (flops(node, gpu.caps()), node)).collect();
    sized.sort_by_key(|(flops, _)| std::cmp::Reverse(*flops));
    let mut tuned = Tuned::default();
    for (done, (flops, node)) in sized.into_iter().enumerate() {
        progress(done, nodes.len())?;
        let key = node.candidates.key.clone();
        if Instant::now() >= deadline {
            tuned.left.push((key, "the time was used up".into()));
            continue;
        }
        match measure::measure(gpu, node, deadline) {
            Ok(trial) => match decide(&node.candidates, flops, trial) {
                Some(outcome) => tuned.outcomes.push(outcome),
                None => tuned.left.push((key, "no candidate agreed with the reference".into())),
            },
            Err(e) if gpu.is_lost() => return Err(e),
            Err(e) => tuned.left.push((key, e.what().to_owned())),
        }
    }
    Ok(tuned)
}

/// The fastest candidate, or the one without tuning if that is as fast.
fn decide(candidates: &Candidates, flops: u64, trial: measure::Trial) -> Option<Outcome> {
    let fastest = trial.measured.iter().min_by(|a, b| a.seconds.total_cmp(&b.seconds))?.clone();
    let default = trial.measured.iter().find(|m| m.choice == trial.default).cloned();
    let best = match &default {
        Some(default) if default.seconds < WORTH_IT * fastest.seconds => default.clone(),
        _ => fastest,
    };
    let Candidates { key, class, .. } = candidates.clone();
    Some(Outcome { key, class, flops, default, best, tried: trial.measured.len(), rejected: trial.rejected })
}

/// Lowers a node by one of its choices.
fn lower(node: &Tunable, choice: &str, caps: &Caps) -> Result<Lowered> {
    let caps = caps.with_choices(Choices::from([(node.candidates.key.clone(), choice.to_owned())]));
    node.op.lower(&Lower { inputs: &node.inputs, outputs: &node.outputs, caps: &caps })
}

/// Floating-point operations of a node; none if it cannot be lowered.
fn flops(node: &Tunable, caps: &Caps) -> u64 {
    let lowered = node.candidates.choices.first().and_then(|choice| lower(node, choice, caps).ok());
    // The largest launch is the product; what adds up its parts is no work of the node.
    lowered.and_then(|l| l.dispatches.iter().map(|d| d.work.flops).max()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::measure::Trial;
    use super::*;

    #[test]
    fn only_a_clear_gain_replaces_the_default() {
        let measured = |choice: &str, seconds: f64| Measured { choice: choice.into(), seconds };
        let decided = |times: &[(&str, f64)]| {
            let measured = times.iter().map(|&(choice, seconds)| measured(choice, seconds)).collect();
            let candidates = Candidates {
                key: "k".into(),
                class: "c".into(),
                reference: "a".into(),
                choices: vec![],
                tolerance: 0.0,
            };
            decide(&candidates, 1, Trial { default: "a".into(), measured, rejected: vec![] }).map(|o| o.best.choice)
        };
        assert_eq!(decided(&[("a", 1.0), ("b", 0.99)]).as_deref(), Some("a"));
        assert_eq!(decided(&[("a", 1.0), ("b", 0.9), ("c", 0.8)]).as_deref(), Some("c"));
        // The default itself was rejected: anything right is better.
        assert_eq!(decided(&[("b", 2.0), ("c", 3.0)]).as_deref(), Some("b"));
        assert_eq!(decided(&[]), None);
    }
}
