//! What a random graph is: cases of ops whose inputs are leaves and each other's results.

use std::fmt;

use lesion_gpu::autograd::{Gradients, Tape, Tensor};
use lesion_gpu::ops::{Array, Case, CaseInput, Real, Role, Twin, backward, backward_from};
use lesion_gpu::tensor::TensorType;
use lesion_gpu::{Kind as ErrorKind, Result};

/// What the host gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A variable that gradients flow to.
    Trainable,
    /// A variable that they do not flow to.
    Frozen,
    /// A variable that an operation changes in place.
    State,
    /// Uploaded before the step.
    Input,
}

#[derive(Debug, Clone)]
pub struct Leaf {
    pub input: CaseInput,
    pub kind: Kind,
}

/// What an operation reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operand {
    Leaf(usize),
    Value(usize),
    /// The gradient of a leaf; only after the backward pass.
    Gradient(usize),
}

/// One operation.
#[derive(Clone)]
pub struct Step {
    pub case: Case,
    pub operands: Vec<Operand>,
    /// Numbers of the values it makes.
    pub makes: Vec<usize>,
    /// Whether it comes once for all parts of a batch, behind all that comes for each.
    pub closing: bool,
}

/// The scope of the operations that close a step.
pub const CLOSING: &str = "closing";

impl Step {
    /// The inputs that it changes in place, as leaves.
    pub fn changes(&self) -> impl Iterator<Item = usize> + '_ {
        self.case.inputs.iter().zip(&self.operands).filter_map(|(input, operand)| match operand {
            Operand::Leaf(leaf) if input.role == Role::Updated => Some(*leaf),
            _ => None,
        })
    }
}

/// A graph: operations, the gradients that its backward pass starts from, and updates of variables behind it.
#[derive(Clone, Default)]
pub struct Graph {
    pub leaves: Vec<Leaf>,
    pub values: Vec<TensorType>,
    pub steps: Vec<Step>,
    /// Values, and the leaves that hold their gradients; where there is none the gradient is one.
    pub seeds: Vec<(usize, Option<usize>)>,
    pub updates: Vec<Step>,
    /// Values that are read back.
    pub outputs: Vec<usize>,
    /// Leaves whose gradients are read back.
    pub gradients: Vec<usize>,
    /// Values whose gradients are read back.
    pub inner: Vec<usize>,
    /// Whether gradients flow to those values alone.
    pub only_inner: bool,
}

/// A graph on a tape.
pub struct Traced {
    pub tape: Tape,
    pub leaves: Vec<Tensor>,
    pub values: Vec<Option<Tensor>>,
    /// The gradients of leaves.
    pub gradients: Vec<Option<Tensor>>,
    /// The gradients of the values that are asked for.
    pub inner: Vec<Option<Tensor>>,
}

impl Graph {
    /// The name of a leaf on the tape and in the store.
    pub fn name(leaf: usize) -> String {
        format!("leaf {leaf}")
    }

    pub fn trace(&self) -> Result<Traced> {
        let mut tape = Tape::new();
        let mut leaves = vec![];
        for (i, leaf) in self.leaves.iter().enumerate() {
            let (name, ty) = (Self::name(i), leaf.input.ty.clone());
            leaves.push(match leaf.kind {
                Kind::Input => tape.input(name, ty),
                kind => tape.variable(&name, ty, kind == Kind::Trainable)?,
            });
        }
        let (gradients, values) = (vec![None; leaves.len()], vec![None; self.values.len()]);
        let mut traced = Traced { tape, leaves, values, gradients, inner: vec![] };
        for step in &self.steps {
            traced.push(step)?;
        }
        if self.only_inner {
            let inner: Vec<Tensor> = self.inner.iter().filter_map(|&value| traced.values[value]).collect();
            traced.tape.flow_only_to(&inner);
        }
        let values: Vec<(Tensor, Option<usize>)> =
            self.seeds.iter().filter_map(|&(value, gradient)| Some((traced.values[value]?, gradient))).collect();
        let gradients: Gradients = match values[..] {
            [(loss, None)] => backward(&mut traced.tape, loss)?,
            _ => {
                let seeds = values.iter().filter_map(|&(value, gradient)| Some((value, traced.leaves[gradient?])));
                backward_from(&mut traced.tape, &seeds.collect::<Vec<_>>())?
            }
        };
        traced.inner = self.inner.iter().map(|&value| traced.values[value].and_then(|t| gradients.get(t))).collect();
        let trainable = |leaf: &Leaf| leaf.kind == Kind::Trainable;
        traced.gradients = (self.leaves.iter().zip(&traced.leaves))
            .map(|(leaf, &tensor)| gradients.get(tensor).filter(|_| trainable(leaf)))
            .collect();
        for step in &self.updates {
            if self.has_gradients(step, &traced) {
                traced.push(step)?;
            }
        }
        Ok(traced)
    }

    /// Whether the gradients that an update reads exist.
    pub fn has_gradients(&self, step: &Step, traced: &Traced) -> bool {
        step.operands.iter().all(|operand| match *operand {
            Operand::Gradient(leaf) => traced.gradients[leaf].is_some(),
            _ => true,
        })
    }

    /// The graph as an evaluation has it: without a backward pass and what comes behind it. Where that began is read back too.
    pub fn evaluation(&self) -> Self {
        let mut graph = Self { leaves: self.leaves.clone(), values: self.values.clone(), ..Self::default() };
        graph.steps.clone_from(&self.steps);
        let ends = self.seeds.iter().map(|seed| seed.0).filter(|value| !self.outputs.contains(value));
        graph.outputs = self.outputs.iter().copied().chain(ends).filter(|&value| !self.is_leaf(value)).collect();
        graph.prune();
        graph
    }

    /// Whether an operation or the start of the backward pass reads a leaf, or changes it.
    pub fn uses(&self, leaf: usize) -> bool {
        let mut steps = self.steps.iter().chain(&self.updates);
        self.seeds.iter().any(|seed| seed.1 == Some(leaf))
            || steps.any(|step| step.operands.contains(&Operand::Leaf(leaf)))
    }

    /// Whether a value is a view of a leaf.
    pub fn is_leaf(&self, value: usize) -> bool {
        let maker = self.steps.iter().find(|step| step.makes.contains(&value));
        maker.is_some_and(|step| match step.operands[..] {
            _ if step.case.op != "view" => false,
            [Operand::Value(source)] => self.is_leaf(source),
            _ => true,
        })
    }

    /// Whether some of the values are f16.
    pub fn is_half(&self) -> bool {
        self.values.iter().chain(self.leaves.iter().map(|leaf| &leaf.input.ty)).any(TensorType::is_half)
    }

    /// How many operations, the updates among them, read a value.
    pub fn readers(&self, value: usize) -> usize {
        let steps = self.steps.iter().chain(&self.updates);
        steps.filter(|step| step.operands.contains(&Operand::Value(value))).count()
    }

    /// Without operations whose results nobody reads.
    pub fn prune(&mut self) {
        loop {
            let needed = |step: &Step| {
                step.changes().next().is_some()
                    || step.makes.iter().any(|value| {
                        self.readers(*value) > 0
                            || self.outputs.contains(value)
                            || self.inner.contains(value)
                            || self.seeds.iter().any(|seed| seed.0 == *value)
                    })
            };
            let kept: Vec<Step> = self.steps.iter().filter(|step| needed(step)).cloned().collect();
            if kept.len() == self.steps.len() {
                return;
            }
            self.steps = kept;
        }
    }
}

impl Traced {
    fn push(&mut self, step: &Step) -> Result<()> {
        let mut inputs = vec![];
        for operand in &step.operands {
            let tensor = match *operand {
                Operand::Leaf(leaf) => Some(self.leaves[leaf]),
                Operand::Value(value) => self.values[value],
                Operand::Gradient(leaf) => self.gradients[leaf],
            };
            inputs.push(tensor.ok_or_else(|| lesion_gpu::Error::new(ErrorKind::Internal, "an operand is missing"))?);
        }
        let made = step.makes.first().map(|value| format!("v{value}"));
        self.tape.set_scope(if step.closing { CLOSING.into() } else { made.unwrap_or("update".into()) });
        let outputs = (step.case.trace)(&mut self.tape, &inputs)?;
        step.makes.iter().zip(outputs).for_each(|(&value, tensor)| self.values[value] = Some(tensor));
        Ok(())
    }
}

impl fmt::Display for Graph {
    /// A line for each leaf that is used and for each operation.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reads = |leaf: usize, step: &Step| {
            step.operands.iter().any(|o| [Operand::Leaf(leaf), Operand::Gradient(leaf)].contains(o))
        };
        for (i, leaf) in self.leaves.iter().enumerate() {
            let seeds = self.seeds.iter().any(|seed| seed.1 == Some(i));
            if seeds || self.steps.iter().chain(&self.updates).any(|step| reads(i, step)) {
                writeln!(f, "  l{i}: {} {:?}, {:?}", leaf.input.ty, leaf.kind, leaf.input.fill)?;
            }
        }
        let step = |f: &mut fmt::Formatter<'_>, step: &Step| {
            let operands = step.operands.iter().map(|operand| match operand {
                Operand::Leaf(leaf) => format!("l{leaf}"),
                Operand::Value(value) => format!("v{value}"),
                Operand::Gradient(leaf) => format!("d_l{leaf}"),
            });
            let operands = operands.collect::<Vec<_>>().join(", ");
            let made = step.makes.iter().map(|value| format!("v{value}: {} = ", self.values[*value]));
            let closing = if step.closing { "closing: " } else { "" };
            writeln!(f, "  {closing}{}{}({operands})   {}", made.collect::<String>(), step.case.op, step.case.name)
        };
        self.steps.iter().try_for_each(|s| step(f, s))?;
        for (value, gradient) in &self.seeds {
            writeln!(f, "  d_v{value} += {}", gradient.map_or("1".into(), |leaf| format!("l{leaf}")))?;
        }
        self.updates.iter().try_for_each(|s| step(f, s))?;
        let only = if self.only_inner { " alone" } else { "" };
        writeln!(f, "  read back: values {:?}, gradients of leaves {:?}", self.outputs, self.gradients)?;
        writeln!(f, "  and gradients of values {:?}{only}", self.inner)
    }
}

/// Another shape of the same elements: no operation, but a value of its own.
struct ViewTwin {
    shape: Vec<usize>,
}

impl Twin for ViewTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        vec![Array::new(self.shape.clone(), inputs[0].data.clone())]
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        vec![Some(Array::new(inputs[0].shape.clone(), d_outputs[0].data.clone()))]
    }
}

/// A case of [`Tape::view`].
pub fn view(ty: &TensorType, shape: Vec<usize>) -> Case {
    let input = CaseInput { ty: ty.clone(), ..CaseInput::normal(ty.shape.clone()) };
    let twin = ViewTwin { shape: shape.clone() };
    Case::new("view", format!("{shape:?}"), vec![input], twin, move |tape, x| Ok(vec![tape.view(x[0], shape.clone())?]))
}
