//! Makes random graphs.

use lesion_gpu::ops::{Case, CaseInput, Draw, Role, Subject, subjects};
use lesion_gpu::tensor::{DType, TensorType};

use crate::graph::{Graph, Kind, Leaf, Operand, Step, view};

/// Ops that change variables: they come behind the backward pass.
const UPDATES: [&str; 7] = ["accumulate", "adam", "clip_norm", "ema", "loss_scale", "sgd", "summary"];
/// Ops whose results depend on no differentiable value.
const SOURCES: [&str; 3] = ["augment", "fill", "mix"];
/// What ends in one number.
const LOSSES: [&str; 6] =
    ["bce_with_logits", "dice_loss", "focal_loss", "sigmoid_focal_loss", "softmax_cross_entropy", "sum"];
/// What networks consist of, and what is fused with each other: drawn as often as all other ops together.
const CHAINS: [&[&str]; 8] = [
    &["conv2d", "batch_norm", "relu"],
    &["conv2d", "batch_norm", "add", "relu"],
    &["conv2d", "relu"],
    &["conv2d", "add", "relu"],
    &["batch_norm", "relu", "conv2d"],
    &["batch_norm", "add"],
    &["add", "relu", "conv2d"],
    &["conv2d", "batch_norm", "silu", "global_avg_pool"],
];
/// Most elements of a tensor, and products in an operation: the interpreter is slow.
const ELEMENTS: usize = 3000;
const WORK: usize = 150_000;

/// How graphs are made.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// Whether some of the values are f16.
    pub half: bool,
    /// Most operations, more or less.
    pub steps: usize,
}

/// A graph that is being made.
pub struct Maker {
    pub graph: Graph,
    pub draw: Draw,
    pub subjects: Vec<Subject>,
    /// What dropout draws by.
    pub clock: Option<usize>,
    half: bool,
    /// States that something has read: nothing may change them any more, or the backward pass would read something else than
    /// the forward pass.
    sealed: Vec<usize>,
}

/// The graph of a seed: always the same.
pub fn make(seed: u32, how: How) -> Graph {
    let mut draw = Draw::new(seed, "graph").of_few();
    let half = how.half && draw.one_in(4);
    let mut maker = Maker { graph: Graph::default(), draw, half, subjects: subjects(), clock: None, sealed: vec![] };
    let shape = maker.draw.shape(4);
    let dtype = if half { DType::F16 } else { DType::F32 };
    let kind = maker.draw.of(&[Kind::Input, Kind::Trainable, Kind::Frozen]);
    let input = CaseInput { ty: TensorType { shape: shape.into(), dtype }, ..CaseInput::normal([1]) };
    let image = maker.leaf(input, kind);
    let wanted = maker.draw.between(3, how.steps);
    while maker.graph.steps.len() < wanted {
        let chain: &[&str] = if maker.draw.flag() { maker.draw.of(&CHAINS) } else { &[] };
        let mut x = maker.pick(image);
        for op in chain {
            // What is fused need not be neighbours.
            if maker.draw.one_in(4) {
                let aside = maker.pick(image);
                let norm = maker.draw.flag();
                maker.grow(aside, norm.then_some("batch_norm"));
            }
            x = maker.grow(x, Some(op)).unwrap_or(x);
        }
        if chain.is_empty() {
            maker.grow(x, None);
        }
    }
    maker.seed();
    maker.ask_inside();
    maker.update();
    maker.read_back();
    maker.graph
}

impl Maker {
    /// A new leaf.
    pub fn leaf(&mut self, input: CaseInput, kind: Kind) -> Operand {
        self.graph.leaves.push(Leaf { input, kind });
        Operand::Leaf(self.graph.leaves.len() - 1)
    }

    fn ty(&self, operand: Operand) -> TensorType {
        match operand {
            Operand::Leaf(leaf) | Operand::Gradient(leaf) => self.graph.leaves[leaf].input.ty.clone(),
            Operand::Value(value) => self.graph.values[value].clone(),
        }
    }

    /// A value to go on from: mostly the newest.
    fn pick(&mut self, image: Operand) -> Operand {
        match self.graph.values.len() {
            0 => image,
            _ if self.draw.one_in(8) => image,
            n if self.draw.flag() => Operand::Value(n - 1),
            n => Operand::Value(self.draw.below(n)),
        }
    }

    /// Appends a random operation, of `op` if that is given, on `x`. Returns what it makes.
    fn grow(&mut self, x: Operand, op: Option<&str>) -> Option<Operand> {
        for _ in 0..10 {
            let subject = match op {
                Some(op) => *self.subjects.iter().find(|subject| subject.op == op)?,
                None => self.draw.of(&self.subjects),
            };
            if UPDATES.contains(&subject.op) {
                continue;
            }
            let case = match op {
                None if self.draw.one_in(8) => self.view(x),
                _ => self.case(&subject, x),
            };
            let Some(case) = case else { continue };
            let sizes: Vec<usize> = case.inputs.iter().map(|input| input.ty.shape.len()).collect();
            if sizes.iter().any(|&n| n > ELEMENTS) || sizes.iter().take(2).product::<usize>() > 40 * WORK {
                continue;
            }
            if let Some(value) = self.place(x, case) {
                return Some(value);
            }
        }
        None
    }

    fn case(&mut self, subject: &Subject, x: Operand) -> Option<Case> {
        let ty = self.ty(x);
        let case = (subject.random)(&mut self.draw, ty.shape.dims())?;
        if case.op == "cast" {
            return (self.half && case.inputs[0].ty.dtype == ty.dtype).then_some(case);
        }
        if !ty.is_half() || SOURCES.contains(&subject.op) {
            return Some(case);
        }
        subject.half.contains(&0).then(|| case.in_half(subject.half))
    }

    /// A view of x in another shape of the kind that models use.
    fn view(&mut self, x: Operand) -> Option<Case> {
        let ty = self.ty(x);
        let shapes = match *ty.shape.dims() {
            [n, h, w, c] => vec![vec![n, h * w, c], vec![n * h * w, c], vec![n, h * w * c], vec![n, 1, 1, h * w * c]],
            [n, t, c] if c % 2 == 0 => vec![vec![n, t, 2, c / 2], vec![n, t, 1, c], vec![n * t, c]],
            [n, t, c] => vec![vec![n, t, 1, c], vec![n, t * c]],
            [n, c] => vec![vec![n, 1, 1, c], vec![n * c]],
            [c] => vec![vec![1, c]],
            _ => return None,
        };
        Some(view(&ty, self.draw.of(&shapes)))
    }

    /// Appends a case with `x` as its first input of that type, if it has one and its result is not too large.
    fn place(&mut self, x: Operand, case: Case) -> Option<Operand> {
        let ty = self.ty(x);
        let at = case.inputs.iter().position(|input| input.ty == ty && input.role == Role::Differentiable);
        if at.is_none() && !SOURCES.contains(&case.op) {
            return None;
        }
        let leaves = self.graph.leaves.len();
        let mut operands = vec![];
        for (i, input) in case.inputs.iter().enumerate() {
            operands.push(if Some(i) == at { x } else { self.operand(input, &case, &operands) });
        }
        let step = Step { case, operands, makes: vec![self.graph.values.len()], closing: false };
        let types = self.types(&step)?;
        if types.len() != 1 || types[0].shape.len() > ELEMENTS {
            self.graph.leaves.truncate(leaves);
            return None;
        }
        self.graph.values.extend(types);
        self.graph.steps.push(step);
        Some(Operand::Value(self.graph.values.len() - 1))
    }

    /// The types that a step makes.
    fn types(&self, step: &Step) -> Option<Vec<TensorType>> {
        let mut tape = lesion_gpu::autograd::Tape::new();
        let inputs: Result<Vec<_>, _> = (step.operands.iter().enumerate())
            .map(|(i, &operand)| tape.variable(&format!("{i}"), self.ty(operand), false))
            .collect();
        let outputs =
            (step.case.trace)(&mut tape, &inputs.ok()?).unwrap_or_else(|e| panic!("{}: {e}", step.case.label()));
        Some(outputs.into_iter().map(|t| tape.ty(t).clone()).collect())
    }

    /// Something for an input that is not the one to go on from.
    fn operand(&mut self, input: &CaseInput, case: &Case, taken: &[Operand]) -> Operand {
        let is_clock = input.ty == TensorType::u32([1]) && input.role == Role::Fixed;
        let kinds: &[Kind] = match input.role {
            Role::Differentiable => {
                let values = (0..self.graph.values.len()).filter(|&v| self.graph.values[v] == input.ty);
                let values: Vec<usize> = values.collect();
                if !values.is_empty() && self.draw.flag() {
                    return Operand::Value(self.draw.of(&values));
                }
                &[Kind::Trainable, Kind::Frozen]
            }
            Role::Fixed if is_clock => {
                if let Some(leaf) = self.clock {
                    return Operand::Leaf(leaf);
                }
                &[Kind::State]
            }
            Role::Fixed => &[Kind::Frozen, Kind::Input],
            Role::Updated => &[Kind::State],
        };
        // Leaves that several operations share. Only batch-norm in training may share what it changes: its backward pass
        // does not read that.
        let shareable = input.role != Role::Updated || case.op == "batch_norm";
        let alike = (0..self.graph.leaves.len()).filter(|&leaf| {
            let have = &self.graph.leaves[leaf];
            // Batch-norm in evaluation may read what one in training has changed.
            let state = case.op == "batch_norm" && have.kind == Kind::State && have.input.fill == input.fill;
            let same = have.input == *input && kinds.contains(&have.kind) || state && have.input.ty == input.ty;
            let changeable = input.role != Role::Updated || !self.sealed.contains(&leaf);
            shareable && same && changeable && !taken.contains(&Operand::Leaf(leaf))
        });
        let alike: Vec<usize> = alike.collect();
        if !alike.is_empty() && self.draw.one_in(if case.op == "batch_norm" { 2 } else { 3 }) {
            let leaf = self.draw.of(&alike);
            if input.role == Role::Fixed && self.graph.leaves[leaf].kind == Kind::State {
                self.sealed.push(leaf);
            }
            return Operand::Leaf(leaf);
        }
        let kind = if self.draw.one_in(4) { kinds[kinds.len() - 1] } else { kinds[0] };
        let leaf = self.leaf(input.clone(), kind);
        if let (true, Operand::Leaf(number)) = (is_clock, leaf) {
            self.clock = Some(number);
        }
        leaf
    }

    /// Chooses where the backward pass starts: at most ends of the graph, and at some values that are used inside too.
    fn seed(&mut self) {
        if self.draw.one_in(3) && self.lose() {
            return;
        }
        for value in 0..self.graph.values.len() {
            let end = self.graph.readers(value) == 0;
            if if end { self.draw.one_in(8) } else { !self.draw.one_in(8) } {
                continue;
            }
            let ty = self.graph.values[value].clone();
            let gradient = self.leaf(CaseInput { ty, ..CaseInput::normal([1]) }, Kind::Frozen);
            let Operand::Leaf(gradient) = gradient else { continue };
            self.graph.seeds.push((value, Some(gradient)));
        }
    }

    /// Appends a loss, from which alone the backward pass starts; says whether it could.
    fn lose(&mut self) -> bool {
        let singles = (0..self.graph.values.len()).rev().filter(|&value| !self.graph.values[value].is_half());
        let Some(x) = singles.take(3).last() else { return false };
        let Some(loss) = (0..8).find_map(|_| {
            let op = self.draw.of(&LOSSES);
            self.grow(Operand::Value(x), Some(op))
        }) else {
            return false;
        };
        let Operand::Value(value) = loss else { return false };
        self.graph.seeds.push((value, None));
        true
    }

    /// Chooses values inside whose gradients are read back; in some graphs gradients flow to these alone.
    fn ask_inside(&mut self) {
        let Ok(traced) = self.graph.trace() else { return };
        for (value, tensor) in traced.values.iter().enumerate() {
            if self.draw.one_in(8) && tensor.is_some_and(|t| traced.tape.requires_grad(t)) {
                self.graph.inner.push(value);
            }
        }
        self.graph.only_inner = !self.graph.inner.is_empty() && self.draw.one_in(4);
    }

    /// Chooses what is read back. Most gradients are not where they are used: what is read back is not bundled. Nor is a view
    /// of a leaf, which is what the leaf has become when the host reads it.
    fn read_back(&mut self) {
        for value in 0..self.graph.values.len() {
            let seed = self.graph.seeds.iter().any(|seed| seed.0 == value);
            if self.draw.one_in(if seed { 2 } else { 4 }) && !self.graph.is_leaf(value) {
                self.graph.outputs.push(value);
            }
        }
        for leaf in 0..self.graph.leaves.len() {
            if self.graph.leaves[leaf].kind == Kind::Trainable && (self.graph.updates.is_empty() || self.draw.one_in(6))
            {
                self.graph.gradients.push(leaf);
            }
        }
    }
}
