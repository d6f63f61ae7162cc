//! Makes a graph that fails smaller while it still fails.

use lesion_gpu::ops::CaseInput;
use lesion_gpu::tensor::TensorType;

use crate::graph::{Graph, Kind, Leaf, Operand};

/// The smallest graph found by leaving parts out, one after the other, for which `fails` is still true.
pub fn shrink(graph: &Graph, fails: &mut dyn FnMut(&Graph) -> bool) -> Graph {
    let mut best = graph.clone();
    loop {
        let smaller = candidates(&best).into_iter().find(|smaller| fails(smaller));
        match smaller {
            Some(smaller) => best = smaller,
            None => return best,
        }
    }
}

/// Graphs with one part less, those with the most left out first.
fn candidates(graph: &Graph) -> Vec<Graph> {
    let with = |change: &dyn Fn(&mut Graph)| {
        let mut smaller = graph.clone();
        change(&mut smaller);
        smaller
    };
    let mut list = vec![with(&|g| g.prune())];
    list.retain(|pruned| pruned.steps.len() < graph.steps.len());
    if !graph.updates.is_empty() {
        list.push(with(&|g| g.updates.clear()));
    }
    for at in 0..graph.seeds.len() {
        list.push(with(&|g| {
            g.seeds.remove(at);
        }));
    }
    for at in (0..graph.steps.len()).rev() {
        list.push(with(&|g| without(g, at)));
    }
    for at in 0..graph.updates.len() {
        let makes = &graph.updates[at].makes;
        if makes.iter().all(|&value| graph.readers(value) == 0) {
            list.push(with(&|g| {
                g.updates.remove(at);
            }));
        }
    }
    for at in 0..graph.outputs.len() {
        list.push(with(&|g| {
            g.outputs.remove(at);
        }));
    }
    for at in 0..graph.inner.len() {
        list.push(with(&|g| {
            g.inner.remove(at);
        }));
    }
    for at in 0..graph.gradients.len() {
        list.push(with(&|g| {
            g.gradients.remove(at);
        }));
    }
    list
}

/// Leaves an operation out: its results become leaves. If they were read back, or the backward pass began there, then so it is
/// for the values that it was made of.
fn without(graph: &mut Graph, at: usize) {
    let step = graph.steps.remove(at);
    let normal = |ty: &TensorType| CaseInput { ty: ty.clone(), ..CaseInput::normal([1]) };
    for &value in &step.makes {
        let is_seed = graph.seeds.iter().any(|seed| seed.0 == value);
        // What nobody reads was there for what it changes.
        let is_output = graph.outputs.contains(&value) || graph.readers(value) == 0 && step.changes().next().is_some();
        graph.outputs.retain(|output| *output != value);
        graph.inner.retain(|inner| *inner != value);
        graph.seeds.retain(|seed| seed.0 != value);
        for operand in &step.operands {
            let Operand::Value(source) = *operand else { continue };
            if is_output && !graph.outputs.contains(&source) {
                graph.outputs.push(source);
            }
            if is_seed && graph.seeds.iter().all(|seed| seed.0 != source) {
                graph.leaves.push(Leaf { input: normal(&graph.values[source]), kind: Kind::Frozen });
                graph.seeds.push((source, Some(graph.leaves.len() - 1)));
            }
        }
        graph.leaves.push(Leaf { input: normal(&graph.values[value]), kind: Kind::Trainable });
        let leaf = Operand::Leaf(graph.leaves.len() - 1);
        let steps = graph.steps.iter_mut().chain(&mut graph.updates);
        steps.flat_map(|step| &mut step.operands).filter(|o| **o == Operand::Value(value)).for_each(|o| *o = leaf);
    }
}
