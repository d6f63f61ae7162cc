//! Bundles: updates element by element (optimizer steps and the like) whose tensors lie side by side are one launch.
//!
//! A tensor takes part if it is f32 and a whole number of fours. The bundled parameters share one buffer, an *arena*, and
//! so do their gradients, and each tensor of the optimizer's state: at equal places, so that one launch over the arenas
//! does what a launch a parameter would have done. Gradients in an arena all wait for that launch; so a tensor is bundled
//! only if it is small or if all gradients together are small beside what the step takes anyway.
//!
//! Arenas start as zeros and nothing but the bundled launches ever sees the gaps between their members, so gaps hold
//! whatever the update makes of zeros.

use std::collections::{HashMap, HashSet};

use super::{Origin, Tape, Tensor};
use crate::gpu::Caps;
use crate::tensor::{DType, TensorType};

/// A buffer that several tensors share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arena {
    /// Where each member begins, and its bytes.
    pub members: Vec<(u64, u64)>,
    /// The members' variable numbers, if they are variables; else it belongs to the plan.
    pub variables: Option<Vec<usize>>,
    /// Bytes in all.
    pub bytes: u64,
}

/// Nodes that run as one: where the last of them stood.
#[derive(Debug, Clone)]
pub(super) struct Bundle {
    pub nodes: Vec<usize>,
    /// Which inputs have an element each, and the arenas these lie in.
    pub arenas: Vec<(usize, usize)>,
}

/// The bundles of a tape.
#[derive(Debug, Default)]
pub(super) struct Bundles {
    pub arenas: Vec<Arena>,
    /// Arena and member number of the tensors that lie in one.
    pub place: HashMap<Tensor, (usize, usize)>,
    pub bundles: Vec<Bundle>,
}

/// Members begin at multiples of this: no device asks for more of a binding.
const ALIGNMENT: u64 = 256;
/// Tensors of up to this many elements are bundled in any case.
const SMALL: usize = 1 << 16;
/// Larger ones are if all bundled gradients together take at most this share of what the step computes.
const SHARE: u64 = 32;

impl Bundles {
    /// Finds the bundles among the nodes in `order`. `kept` are values with a place of their own.
    pub fn find(tape: &Tape, order: &[usize], kept: &[Tensor], caps: &Caps, closes: &dyn Fn(usize) -> bool) -> Self {
        let mut found = Self::default();
        let computed: u64 =
            order.iter().flat_map(|&n| &tape.nodes()[n].outputs).map(|&t| tape.ty(t).bytes()).sum::<u64>();
        for group in groups(tape, order, closes) {
            if group.elementwise.len() < 2 {
                found.reuse(tape, order, group);
                continue;
            }
            let nodes = found.follow(tape, order, group.nodes, &group.elementwise);
            let mut nodes: Vec<usize> =
                nodes.into_iter().filter(|&n| fits(tape, n, &group.elementwise, kept)).collect();
            let large = nodes.iter().map(|&n| made_bytes(tape, n, &group.elementwise)).sum::<u64>() * SHARE > computed;
            nodes.retain(|&n| !large || tape.shape(tape.nodes()[n].inputs[group.elementwise[0]]).len() <= SMALL);
            let limit = caps.max_binding.min(caps.max_buffer);
            for nodes in chunks(tape, nodes, group.elementwise[0], limit) {
                found.lay_out(tape, order, nodes, &group.elementwise);
            }
        }
        found
    }

    /// Gives the operands of `nodes` arenas.
    fn lay_out(&mut self, tape: &Tape, order: &[usize], mut nodes: Vec<usize>, elementwise: &[usize]) {
        let operand = |n: usize, i: usize| tape.root(tape.nodes()[n].inputs[i]);
        let mut seen = HashSet::new();
        nodes.retain(|&n| {
            let operands: Vec<Tensor> = elementwise.iter().map(|&i| operand(n, i)).collect();
            operands.iter().all(|t| !self.place.contains_key(t) && seen.insert(*t))
        });
        if nodes.len() < 2 || Self::passed_by(tape, order, &nodes) {
            return;
        }
        let mut columns = vec![];
        for &i in elementwise {
            let roots: Vec<Tensor> = nodes.iter().map(|&n| operand(n, i)).collect();
            let variables = roots.iter().filter_map(|&t| match tape.origin(t) {
                Origin::Variable(v) => Some(*v),
                _ => None,
            });
            let variables: Vec<usize> = variables.collect();
            // All are variables, or none; and no other launch reads from the buffer that it writes to.
            if ![0, roots.len()].contains(&variables.len()) || copies_within(tape, order, &nodes, &roots) {
                return;
            }
            columns.push((i, roots, (!variables.is_empty()).then_some(variables)));
        }
        let mut arenas = vec![];
        for (i, roots, variables) in columns {
            let mut arena = Arena { members: vec![], variables, bytes: 0 };
            for (m, &t) in roots.iter().enumerate() {
                let bytes = tape.ty(t).bytes();
                arena.members.push((arena.bytes, bytes));
                arena.bytes += bytes.next_multiple_of(ALIGNMENT);
                self.place.insert(t, (self.arenas.len(), m));
            }
            arenas.push((i, self.arenas.len()));
            self.arenas.push(arena);
        }
        self.bundles.push(Bundle { nodes, arenas });
    }

    /// Whether a node between the first and the last of `nodes` sees whether they are done: it changes what they read, or reads
    /// behind one of them what that changes.
    fn passed_by(tape: &Tape, order: &[usize], nodes: &[usize]) -> bool {
        let reads = |n: usize| tape.nodes()[n].inputs.iter().map(|&t| tape.root(t)).collect::<Vec<_>>();
        let raised = |n: usize| tape.nodes()[n].raised().map(|t| tape.root(t)).collect::<Vec<_>>();
        let flags = nodes.first().map(|&n| raised(n)).unwrap_or_default();
        let touched: HashSet<Tensor> = nodes.iter().flat_map(|&n| reads(n)).collect();
        let mut done: HashSet<Tensor> = HashSet::new();
        let mut left = nodes.len();
        for &n in order {
            if nodes.contains(&n) {
                done.extend(changed(tape, n));
                left -= 1;
            } else if left < nodes.len() && left > 0 {
                let own = raised(n);
                let counts = |t: &Tensor| !(own.contains(t) && flags.contains(t));
                let mut changes = changed(tape, n).filter(counts);
                if changes.any(|t| touched.contains(&t))
                    || reads(n).iter().filter(|t| counts(t)).any(|t| done.contains(t))
                {
                    return true;
                }
            }
        }
        false
    }

    /// A group with one operand becomes a bundle where that lies in an arena which it fills.
    fn reuse(&mut self, tape: &Tape, order: &[usize], group: Group) {
        let [i] = group.elementwise[..] else { return };
        let place = |n: usize| self.place.get(&tape.root(tape.nodes()[n].inputs[i])).copied();
        for (a, arena) in self.arenas.iter().enumerate() {
            let members: Vec<usize> =
                group.nodes.iter().copied().filter(|&n| place(n).is_some_and(|p| p.0 == a)).collect();
            let mut covered: Vec<usize> = members.iter().filter_map(|&n| place(n)).map(|p| p.1).collect();
            covered.sort_unstable();
            let whole = covered == (0..arena.members.len()).collect::<Vec<_>>();
            if members.len() > 1 && whole && !Self::passed_by(tape, order, &members) {
                self.bundles.push(Bundle { nodes: members, arenas: vec![(i, a)] });
            }
        }
    }

    /// Nodes with an operand each in one arena of variables, all of whose members they take, become a bundle where their
    /// other operands are variables without a place: these get arenas laid out alike. Returns the nodes that are left.
    fn follow(&mut self, tape: &Tape, order: &[usize], mut left: Vec<usize>, elementwise: &[usize]) -> Vec<usize> {
        let operand = |n: usize, i: usize| tape.root(tape.nodes()[n].inputs[i]);
        let variable = |t: Tensor| match tape.origin(t) {
            Origin::Variable(v) => Some(*v),
            _ => None,
        };
        for a in 0..self.arenas.len() {
            for &led in elementwise {
                let others: Vec<usize> = elementwise.iter().copied().filter(|&i| i != led).collect();
                let free = |n: usize| {
                    let mut operands = others.iter().map(|&i| operand(n, i));
                    operands.all(|t| !self.place.contains_key(&t) && variable(t).is_some())
                };
                let member = |n: usize| self.place.get(&operand(n, led)).filter(|p| p.0 == a).map(|p| p.1);
                let mut nodes: Vec<(usize, usize)> =
                    left.iter().filter(|&&n| free(n)).filter_map(|&n| member(n).map(|m| (m, n))).collect();
                nodes.sort_unstable();
                let whole = nodes.iter().map(|&(m, _)| m).eq(0..self.arenas[a].members.len());
                let nodes: Vec<usize> = nodes.into_iter().map(|(_, n)| n).collect();
                let columns: Vec<Vec<Tensor>> =
                    others.iter().map(|&i| nodes.iter().map(|&n| operand(n, i)).collect()).collect();
                let distinct = columns.concat().iter().collect::<HashSet<_>>().len() == nodes.len() * others.len();
                let apart = columns.iter().all(|roots| !copies_within(tape, order, &nodes, roots));
                if !whole || !distinct || !apart || Self::passed_by(tape, order, &nodes) {
                    continue;
                }
                let mut arenas = vec![(led, a)];
                for (&i, roots) in others.iter().zip(&columns) {
                    let variables = roots.iter().filter_map(|&t| variable(t)).collect();
                    self.place.extend(roots.iter().enumerate().map(|(m, &t)| (t, (self.arenas.len(), m))));
                    arenas.push((i, self.arenas.len()));
                    self.arenas.push(Arena { variables: Some(variables), ..self.arenas[a].clone() });
                }
                left.retain(|n| !nodes.contains(n));
                self.bundles.push(Bundle { nodes, arenas });
            }
        }
        left
    }

    /// The nodes in order, those of a bundle where the last of them stood.
    pub fn steps(&self, order: &[usize]) -> Vec<Step> {
        let of: HashMap<usize, usize> =
            self.bundles.iter().enumerate().flat_map(|(b, bundle)| bundle.nodes.iter().map(move |&n| (n, b))).collect();
        let mut left: Vec<usize> = self.bundles.iter().map(|bundle| bundle.nodes.len()).collect();
        let mut steps = vec![];
        for &n in order {
            match of.get(&n) {
                None => steps.push(Step { nodes: vec![n], bundle: None }),
                Some(&b) => {
                    left[b] -= 1;
                    if left[b] == 0 {
                        steps.push(Step { nodes: self.bundles[b].nodes.clone(), bundle: Some(b) });
                    }
                }
            }
        }
        steps
    }

    /// The types of a step's inputs: whole arenas for what its nodes do not share.
    pub fn input_types(&self, tape: &Tape, step: &Step) -> Vec<TensorType> {
        let node = &tape.nodes()[step.nodes[0]];
        let ty = |(i, &t): (usize, &Tensor)| match step.arena_of(self, i) {
            Some(arena) => TensorType::f32([(self.arenas[arena].bytes / 4) as usize]),
            None => tape.ty(t).clone(),
        };
        node.inputs.iter().enumerate().map(ty).collect()
    }
}

/// What is lowered at once.
#[derive(Debug)]
pub(super) struct Step {
    /// A node, or those of a bundle.
    pub nodes: Vec<usize>,
    pub bundle: Option<usize>,
}

impl Step {
    /// The arena that the step takes as input `i`, if it takes one.
    pub fn arena_of(&self, bundles: &Bundles, i: usize) -> Option<usize> {
        let bundle = &bundles.bundles[self.bundle?];
        bundle.arenas.iter().find(|&&(input, _)| input == i).map(|&(_, arena)| arena)
    }
}

/// Nodes of equal ops that differ in nothing but the tensors that have an element each.
struct Group {
    elementwise: Vec<usize>,
    nodes: Vec<usize>,
}

fn groups(tape: &Tape, order: &[usize], closes: &dyn Fn(usize) -> bool) -> Vec<Group> {
    type Key = (String, Vec<Tensor>, bool);
    let mut groups: Vec<(Key, Group)> = vec![];
    for &n in order {
        let node = &tape.nodes()[n];
        let Some(elementwise) = node.op.side_by_side() else { continue };
        let elementwise: Vec<usize> = elementwise.to_vec();
        let shared = (0..node.inputs.len()).filter(|i| !elementwise.contains(i)).map(|i| tape.root(node.inputs[i]));
        let key = (format!("{:?}", node.op), shared.collect(), closes(n));
        match groups.iter_mut().find(|(k, _)| *k == key) {
            Some((_, group)) => group.nodes.push(n),
            None => groups.push((key, Group { elementwise, nodes: vec![n] })),
        }
    }
    let mut groups: Vec<Group> = groups.into_iter().map(|(_, group)| group).collect();
    // Those that lay arenas out come first.
    groups.sort_by_key(|group| std::cmp::Reverse(group.elementwise.len()));
    groups
}

/// What a node changes in place.
fn changed(tape: &Tape, n: usize) -> impl Iterator<Item = Tensor> {
    let node = &tape.nodes()[n];
    node.op.updates().iter().map(move |&u| tape.root(node.inputs[u]))
}

/// Whether a node other than `nodes` reads some of `members` and writes others.
fn copies_within(tape: &Tape, order: &[usize], nodes: &[usize], members: &[Tensor]) -> bool {
    let members: HashSet<Tensor> = members.iter().copied().collect();
    order.iter().filter(|n| !nodes.contains(n)).any(|&n| {
        let node = &tape.nodes()[n];
        let updates = node.op.updates();
        let writes = node.outputs.iter().copied().chain(changed(tape, n)).any(|t| members.contains(&t));
        let mut read = (0..node.inputs.len()).filter(|u| !updates.contains(u)).map(|u| tape.root(node.inputs[u]));
        writes && read.any(|t| members.contains(&t))
    })
}

/// Whether the tensors of a node can lie in arenas.
fn fits(tape: &Tape, n: usize, elementwise: &[usize], kept: &[Tensor]) -> bool {
    let node = &tape.nodes()[n];
    elementwise.iter().all(|&i| {
        let t = tape.root(node.inputs[i]);
        let ty = tape.ty(t);
        let origin = tape.origin(t);
        ty.dtype == DType::F32
            && ty.shape.len().is_multiple_of(4)
            && matches!(origin, Origin::Variable(_) | Origin::Node { .. })
            && !kept.contains(&t)
    })
}

/// Bytes of the tensors of a node that are no variables: they would have to wait.
fn made_bytes(tape: &Tape, n: usize, elementwise: &[usize]) -> u64 {
    let roots = elementwise.iter().map(|&i| tape.root(tape.nodes()[n].inputs[i]));
    roots.filter(|&t| matches!(tape.origin(t), Origin::Node { .. })).map(|t| tape.ty(t).bytes()).sum()
}

/// Cuts nodes into parts whose arenas a device can bind.
fn chunks(tape: &Tape, nodes: Vec<usize>, operand: usize, limit: u64) -> Vec<Vec<usize>> {
    let mut parts: Vec<(u64, Vec<usize>)> = vec![];
    for n in nodes {
        let bytes = tape.ty(tape.nodes()[n].inputs[operand]).bytes().next_multiple_of(ALIGNMENT);
        match parts.last_mut() {
            Some((total, part)) if *total + bytes <= limit => {
                *total += bytes;
                part.push(n);
            }
            _ => parts.push((bytes, vec![n])),
        }
    }
    parts.into_iter().map(|(_, part)| part).collect()
}
