//! Fusion: neighbouring operations become one where a kernel can do both. The tape is not touched; a new one with the same
//! values and fewer operations is planned instead. Autograd knows no op by name: it asks the ops (see [`Op`](super::Op)).
//!
//! 1. What scales and shifts the channels of a product by variables (batch-norm in evaluation) is folded into the
//!    product's weight and bias: the one fusion that rounds otherwise. The folding is an operation of its own, which the
//!    planner may do once and for all (see [`Plan::preparing`](super::Plan::preparing)).
//! 2. An element-by-element step (plus a residual, ReLU) is done by the kernel that makes its input, as it stores it.
//! 3. The gradient of a ReLU is taken by the first kernel that reads it, as it loads it.
//!
//! 4. The statistics that batch-norm begins with are gathered by the product before it, as it stores its result: summed in
//!    another order.
//!
//! In each case a tensor is read once less; by 2 and 3 it is also written once less, and in f16 rounded once less.

use std::sync::Arc;

use super::{Finish, Lower, Node, Origin, Tape, Tensor};
use crate::gpu::Caps;
use crate::tensor::TensorType;

/// The operations that an output or an update depends on.
pub(super) fn live(tape: &Tape, outputs: &[Tensor]) -> Vec<bool> {
    let nodes = tape.nodes();
    let mut live = vec![false; nodes.len()];
    let mut needed = vec![false; tape.len()];
    outputs.iter().for_each(|&t| needed[tape.root(t).index()] = true);
    for n in (0..nodes.len()).rev() {
        let node = &nodes[n];
        live[n] = !node.op.updates().is_empty() || node.outputs.iter().any(|t| needed[t.index()]);
        if live[n] {
            node.inputs.iter().for_each(|&t| needed[tape.root(t).index()] = true);
        }
    }
    live
}

/// The tape without dead operations and with what can be fused as one.
pub(super) fn fuse(tape: &Tape, outputs: &[Tensor], caps: &Caps) -> Tape {
    let live = live(tape, outputs);
    let nodes = tape.nodes().iter().zip(&live).map(|(node, &live)| live.then(|| node.clone())).collect();
    let mut graph = Graph { tape: tape.clone(), outputs, nodes };
    graph.fold();
    graph.finish();
    graph.mask();
    graph.statistics(caps);
    graph.tape.with_nodes(graph.nodes.into_iter().flatten().collect())
}

struct Graph<'a> {
    tape: Tape,
    outputs: &'a [Tensor],
    /// Operations in order; `None` where one was fused into another.
    nodes: Vec<Option<Node>>,
}

impl Graph<'_> {
    /// The operations that read a value or a view of it, in order, once for each use.
    fn consumers(&self, t: Tensor) -> Vec<usize> {
        let uses = |node: &Node| node.inputs.iter().filter(|&&i| self.tape.root(i) == t).count();
        let live = self.nodes.iter().enumerate().filter_map(|(n, node)| node.as_ref().map(|node| (n, node)));
        live.flat_map(|(n, node)| std::iter::repeat_n(n, uses(node))).collect()
    }

    /// Whether the host reads a value after the step.
    fn is_output(&self, t: Tensor) -> bool {
        self.outputs.iter().any(|&o| self.tape.root(o) == t)
    }

    /// What an operation changes in place.
    fn changes(&self, node: &Node) -> Vec<Tensor> {
        node.op.updates().iter().map(|&i| self.tape.root(node.inputs[i])).collect()
    }

    /// Whether an operation between two others changes one of these values.
    fn changed_between(&self, values: &[Tensor], from: usize, to: usize) -> bool {
        let is = |t: &Tensor| values.iter().any(|&value| self.tape.root(value) == *t);
        self.nodes[from + 1..to].iter().flatten().any(|node| self.changes(node).iter().any(is))
    }

    /// Whether operation `from` may run as late as just before `to`: nothing in between reads what it makes or
    /// changes, or changes what it reads.
    fn may_wait(&self, from: usize, to: usize) -> bool {
        let root = |t: &Tensor| self.tape.root(*t);
        let Some(node) = &self.nodes[from] else { return false };
        let makes: Vec<Tensor> = node.outputs.iter().map(root).chain(self.changes(node)).collect();
        let reads: Vec<Tensor> = node.inputs.iter().map(root).collect();
        self.nodes[from + 1..to].iter().flatten().all(|other| {
            !other.inputs.iter().any(|t| makes.contains(&root(t)))
                && !self.changes(other).iter().any(|t| reads.contains(t))
        })
    }

    /// The operation that makes `t` as its first output for operation `n` alone, and could as well run just before it.
    fn maker_for(&self, t: Tensor, n: usize) -> Option<usize> {
        let makes = |m: &Option<Node>| m.as_ref().is_some_and(|m| m.outputs.first() == Some(&t));
        let maker = self.nodes[..n].iter().position(makes)?;
        (self.consumers(t) == [n] && !self.is_output(t) && self.may_wait(maker, n)).then_some(maker)
    }

    /// Scales and shifts of channels move into the weights and biases of the products before them.
    fn fold(&mut self) {
        for n in 0..self.nodes.len() {
            let Some(scaling) = self.nodes[n].clone() else { continue };
            let Some(maker) = scaling.inputs.first().and_then(|&x| self.maker_for(x, n)) else { continue };
            let Some(product) = self.nodes[maker].clone() else { continue };
            let Some((at, op)) = product.op.takes_scale() else { continue };
            let Some(fold) = scaling.op.fold(product.inputs.len() > at + 1) else { continue };
            let vectors = &scaling.inputs[1..];
            if !vectors.iter().all(|&t| matches!(self.tape.origin(self.tape.root(t)), Origin::Variable(_))) {
                continue;
            }
            // The folding stands where the product stood: it would read what is not there yet.
            if self.changed_between(vectors, maker, n) {
                continue;
            }
            let inputs = product.inputs[at..].iter().chain(vectors).copied().collect();
            let types = [product.inputs[at], vectors[0]].map(|t| self.tape.ty(t).clone());
            let folded = types.map(|ty| self.tape.detached(ty)).to_vec();
            let product_inputs = product.inputs[..at].iter().chain(&folded).copied().collect();
            self.nodes[maker] = Some(Node { op: fold, inputs, outputs: folded, scope: scaling.scope });
            self.nodes[n] = Some(Node { op, inputs: product_inputs, outputs: scaling.outputs, scope: product.scope });
        }
    }

    /// Steps on every element move into the kernels that make what they work on.
    fn finish(&mut self) {
        for n in 0..self.nodes.len() {
            let Some(step) = self.nodes[n].as_ref().and_then(|node| node.op.finish()) else { continue };
            let inputs = self.nodes[n].as_ref().map_or(vec![], |node| node.inputs.clone());
            for (i, &input) in inputs.iter().enumerate() {
                if self.finish_one(n, step, input, inputs.get(1 - i).copied()) {
                    break;
                }
            }
        }
    }

    /// Lets the maker of `input` do `step`, that of operation `n`; says whether it could.
    fn finish_one(&mut self, n: usize, step: Finish, input: Tensor, other: Option<Tensor>) -> bool {
        let Some(maker) = self.maker_for(input, n) else { return false };
        let Some(op) = self.nodes[maker].as_ref().and_then(|m| m.op.with_finish(step)) else { return false };
        let (Some(made), Some(finished)) = (self.nodes[maker].take(), self.nodes[n].take()) else { return false };
        let mut inputs = made.inputs;
        inputs.extend(other.filter(|_| step == Finish::Add));
        let outputs = finished.outputs.into_iter().chain(made.outputs.into_iter().skip(1)).collect();
        self.nodes[n] = Some(Node { op, inputs, outputs, scope: made.scope });
        true
    }

    /// What batch-norm begins with moves into the products before it.
    fn statistics(&mut self, caps: &Caps) {
        for n in 0..self.nodes.len() {
            let Some(x) = self.nodes[n].as_ref().and_then(|norm| norm.inputs.first().copied()) else { continue };
            let made = self.nodes[..n].iter().position(|m| m.as_ref().is_some_and(|m| m.outputs == [x]));
            let Some((maker, product)) = made.and_then(|m| self.nodes[m].clone().map(|node| (m, node))) else {
                continue;
            };
            let types = |ts: &[Tensor]| ts.iter().map(|&t| self.tape.ty(t).clone()).collect::<Vec<_>>();
            let (inputs, outputs) = (types(&product.inputs), types(&product.outputs));
            let cx = Lower { inputs: &inputs, outputs: &outputs, caps };
            let Some((run, with)) = product.op.with_statistics(&cx) else { continue };
            let Some(given) = self.nodes[n].as_ref().and_then(|norm| norm.op.given_statistics(run)) else { continue };
            let shape = &outputs[0].shape;
            let ty = TensorType::f32([shape.rows().div_ceil(run), shape.last()]);
            let moments = [ty.clone(), ty].map(|ty| self.tape.detached(ty));
            let outputs = [x].into_iter().chain(moments).collect();
            self.nodes[maker] = Some(Node { op: with, outputs, ..product });
            if let Some(norm) = self.nodes[n].as_mut() {
                norm.op = given;
                norm.inputs.extend(moments);
            }
        }
    }

    /// Gradients of ReLUs move into the kernels that read them.
    fn mask(&mut self) {
        for n in 0..self.nodes.len() {
            let Some(node) = self.nodes[n].as_ref().filter(|node| node.op.is_relu_gradient()) else { continue };
            let (&[relu_y, d_y], &[masked]) = (&node.inputs[..], &node.outputs[..]) else { continue };
            let viewed = self.tape.tensors().any(|t| *self.tape.origin(t) == Origin::View(masked));
            let consumers = self.consumers(masked);
            let Some(&first) = consumers.first().filter(|_| !viewed) else { continue };
            let kept = self.is_output(masked) || consumers.iter().any(|&c| c != first);
            let Some(reader) = &self.nodes[first] else { continue };
            let Some((input, op)) = reader.op.with_relu_gradient(kept) else { continue };
            if reader.inputs.iter().filter(|&&t| t == masked).count() != 1 || reader.inputs[input] != masked {
                continue;
            }
            let mut fused = Node { op: Arc::clone(&op), ..reader.clone() };
            fused.inputs[input] = d_y;
            fused.inputs.push(relu_y);
            fused.outputs.extend(kept.then_some(masked));
            self.nodes[first] = Some(fused);
            self.nodes[n] = None;
        }
    }
}
