//! The tape: values, nodes and variables.

use std::fmt;
use std::sync::Arc;

use super::Exchange;
use crate::error::{Error, Kind, Result};
use crate::gpu::{Caps, Dispatch};
use crate::onnx;
use crate::tensor::{Shape, TensorType};

/// A value on a tape: cheap to copy, meaningful only together with the tape that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tensor(pub(super) usize);

impl Tensor {
    /// The value's number on its tape.
    pub fn index(self) -> usize {
        self.0
    }
}

/// What the lowering of a node sees.
#[derive(Debug, Clone, Copy)]
pub struct Lower<'a> {
    /// Types of the inputs.
    pub inputs: &'a [TensorType],
    /// Types of the outputs.
    pub outputs: &'a [TensorType],
    /// What the device can do.
    pub caps: &'a Caps,
}

/// The kernels of a node: launches in order, and the scratch tensors they share.
#[derive(Debug, Clone, Default)]
pub struct Lowered {
    /// Scratch tensors, alive only during this node.
    pub scratch: Vec<TensorType>,
    /// Launches in order.
    pub dispatches: Vec<Dispatch>,
}

impl Lowered {
    /// One launch and no scratch.
    pub fn one(dispatch: Dispatch) -> Self {
        Self { scratch: vec![], dispatches: vec![dispatch] }
    }
}

/// What tuning may choose from for a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidates {
    /// The very shape: under this name the choice is looked up in [`Caps::choices`].
    pub key: String,
    /// Its shape class: what holds for one shape most likely holds for others of the class, which have about as much to do.
    pub class: String,
    /// The choice that the others must agree with.
    pub reference: String,
    /// The choices, the one without tuning first.
    pub choices: Vec<String>,
    /// Largest error of a right choice, relative to the size of the result.
    pub tolerance: f64,
}

/// What a backward rule sees of the node it belongs to.
#[derive(Debug, Clone)]
pub struct NodeView {
    /// The node's inputs.
    pub inputs: Vec<Tensor>,
    /// The node's outputs.
    pub outputs: Vec<Tensor>,
    /// For each input, whether its gradient is wanted.
    pub wanted: Vec<bool>,
}

/// A step on every element of a result that a kernel can do before it stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Finish {
    /// Plus another tensor of the same type, which becomes the kernel's last input.
    Add,
    /// `max(x, 0)`.
    Relu,
}

/// An operation: its shape rule, its kernels and its backward rule.
pub trait Op: fmt::Debug + Send + Sync {
    /// Name for messages and profiles, such as `conv2d` or `conv2d.grad_input`.
    fn name(&self) -> &'static str;

    /// The shape rule: types of the outputs for types of the inputs.
    ///
    /// # Errors
    /// [`Kind::Shape`] for inputs that do not go together.
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>>;

    /// The kernels, for types that passed the shape rule.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] where the device cannot do it.
    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered>;

    /// Multiply-adds of a product (convolution, matrix product): what papers give as the cost of a network. None for
    /// other ops.
    fn macs(&self, inputs: &[TensorType]) -> u64 {
        let _ = inputs;
        0
    }

    /// The op in an ONNX graph: appends nodes there, and returns its first output.
    ///
    /// # Errors
    /// By default: it has no such form.
    fn onnx(&self, graph: &mut onnx::Graph, inputs: &[onnx::Value]) -> Result<onnx::Value> {
        let _ = (graph, inputs);
        Err(Error::new(Kind::Unsupported, format!("'{}' has no ONNX form", self.name())))
    }

    /// What tuning may choose from, where there is more than one way to lower the node.
    fn candidates(&self, cx: &Lower<'_>) -> Option<Candidates> {
        let _ = cx;
        None
    }

    /// Appends nodes that compute the gradients of the wanted inputs from `d_outputs` (`None` where no gradient
    /// reached an output; at least one is there).
    ///
    /// # Errors
    /// By default: there is no backward rule.
    fn backward(&self, tape: &mut Tape, node: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let _ = (tape, node, d_outputs);
        Err(Error::new(Kind::Internal, format!("'{}' has no backward rule", self.name())))
    }

    /// Whether the backward rule of an op with results in f16 takes gradients of them in f32.
    fn takes_wide_gradients(&self) -> bool {
        false
    }

    /// The inputs (variables) that the op changes in place.
    fn updates(&self) -> &'static [usize] {
        &[]
    }

    /// Of the inputs that the op changes in place, flags that it raises and neither reads nor takes down: ops that raise the
    /// same flag may run in any order.
    fn raises(&self) -> &'static [usize] {
        &[]
    }

    /// For an update element by element: which inputs have an element each. Equal ops (by their `Debug` text) on tensors that
    /// lie side by side may then be one, of all those elements. What the ops make of zeros must be finite.
    fn side_by_side(&self) -> Option<&'static [usize]> {
        None
    }

    /// The step this op is, if a kernel before it may do it instead.
    fn finish(&self) -> Option<Finish> {
        None
    }

    /// This op with one more step on its first output, if its kernel can do that.
    fn with_finish(&self, step: Finish) -> Option<Arc<dyn Op>> {
        let _ = step;
        None
    }

    /// For a product whose last axis is its weight's: which input the weight is, and the op with a bias (again, if it
    /// has one) as the input behind the weight. What scales and shifts the last axis can then be folded into both.
    fn takes_scale(&self) -> Option<(usize, Arc<dyn Op>)> {
        None
    }

    /// For an op that scales and shifts the last axis of its first input by vectors that are its other inputs: the op
    /// that folds them into the weight and the bias of the product before it. Its inputs are the weight, the bias if
    /// `has_bias`, then those vectors; its outputs are the folded weight and bias.
    fn fold(&self, has_bias: bool) -> Option<Arc<dyn Op>> {
        let _ = has_bias;
        None
    }

    /// For a product whose kernel can sum up its result as it stores it: the op with two more outputs, which are mean and
    /// sum of squared deviations `[runs, C]` of runs of rows of its first output `[.., C]`; and the rows of a run.
    fn with_statistics(&self, cx: &Lower<'_>) -> Option<(usize, Arc<dyn Op>)> {
        let _ = cx;
        None
    }

    /// The op that [`with_statistics`](Self::with_statistics) was asked of, if this is what it gave.
    fn without_statistics(&self) -> Option<Arc<dyn Op>> {
        None
    }

    /// For an op that would begin with such statistics of its first input: the op that takes them, of runs of `run` rows,
    /// as its last two inputs.
    fn given_statistics(&self, run: usize) -> Option<Arc<dyn Op>> {
        let _ = run;
        None
    }

    /// Where in the middle of the launches that [`lower`](Self::lower) has given ranks put their numbers together.
    fn exchange(&self, cx: &Lower<'_>, lowered: &Lowered) -> Option<Exchange> {
        let _ = (cx, lowered);
        None
    }

    /// Whether the op is the gradient of a ReLU, from the ReLU's output and the gradient that arrives.
    fn is_relu_gradient(&self) -> bool {
        false
    }

    /// This op with a ReLU's gradient done on an input (whose number is returned) as it is loaded, the ReLU's output
    /// being one more input; with the result as one more output if it is to be `kept`. `None` if its kernel cannot.
    fn with_relu_gradient(&self, kept: bool) -> Option<(usize, Arc<dyn Op>)> {
        let _ = kept;
        None
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Output of a node.
    Node {
        /// The node.
        node: usize,
        /// Which of its outputs.
        output: usize,
    },
    /// A persistent tensor, by number.
    Variable(usize),
    /// Uploaded by the host before each step.
    Input(String),
    /// The same elements as another value, in another shape.
    View(Tensor),
}

/// A persistent tensor: parameters, running statistics, optimizer state. Bound by name, so several tapes share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Unique name.
    pub name: String,
    /// Type.
    pub ty: TensorType,
    /// Whether gradients flow to it.
    pub trainable: bool,
}

/// One operation on the tape.
#[derive(Debug, Clone)]
pub struct Node {
    /// What is computed.
    pub op: Arc<dyn Op>,
    /// From what.
    pub inputs: Vec<Tensor>,
    /// Into what.
    pub outputs: Vec<Tensor>,
    /// The layer it was traced in, for profiles and messages.
    pub scope: String,
}

impl Node {
    /// The flags it raises: see [`Op::raises`].
    pub(super) fn raised(&self) -> impl Iterator<Item = Tensor> {
        self.op.raises().iter().map(|&i| self.inputs[i])
    }
}

#[derive(Debug, Clone)]
struct Value {
    ty: TensorType,
    origin: Origin,
    requires_grad: bool,
}

/// A flat list of operations.
#[derive(Debug, Default, Clone)]
pub struct Tape {
    values: Vec<Value>,
    nodes: Vec<Node>,
    variables: Vec<Variable>,
    variable_values: Vec<Tensor>,
    scope: String,
}

impl Tape {
    /// An empty tape.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the layer that the following nodes belong to; returns the former name.
    pub fn set_scope(&mut self, scope: impl Into<String>) -> String {
        std::mem::replace(&mut self.scope, scope.into())
    }

    /// The current layer name.
    pub fn scope(&self) -> &str {
        &self.scope
    }

    fn value(&mut self, ty: TensorType, origin: Origin, requires_grad: bool) -> Tensor {
        self.values.push(Value { ty, origin, requires_grad });
        Tensor(self.values.len() - 1)
    }

    /// A tensor that the host uploads before each step.
    pub fn input(&mut self, name: impl Into<String>, ty: TensorType) -> Tensor {
        self.value(ty, Origin::Input(name.into()), false)
    }

    /// An input that gradients flow to: for tests of single operations.
    pub fn input_with_gradient(&mut self, name: impl Into<String>, ty: TensorType) -> Tensor {
        self.value(ty, Origin::Input(name.into()), true)
    }

    /// The variable called `name`, declared at its first use.
    ///
    /// # Errors
    /// [`Kind::Shape`] if it was declared with another type before.
    pub fn variable(&mut self, name: &str, ty: TensorType, trainable: bool) -> Result<Tensor> {
        if let Some(i) = self.variables.iter().position(|v| v.name == name) {
            if self.variables[i].ty != ty {
                return Err(Error::new(
                    Kind::Shape,
                    format!("variable '{name}' is {} here and {ty} elsewhere", self.variables[i].ty),
                ));
            }
            return Ok(self.variable_values[i]);
        }
        self.variables.push(Variable { name: name.to_owned(), ty: ty.clone(), trainable });
        let value = self.value(ty, Origin::Variable(self.variables.len() - 1), trainable);
        self.variable_values.push(value);
        Ok(value)
    }

    /// Appends an operation and returns its outputs.
    ///
    /// # Errors
    /// The op's shape rule, with the layer it happened in.
    pub fn push(&mut self, op: impl Op + 'static, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let types: Vec<TensorType> = inputs.iter().map(|&t| self.ty(t).clone()).collect();
        let outputs = op.infer(&types).map_err(|e| {
            let shapes = types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            e.at(format!("{} '{}' on {shapes}", op.name(), self.scope))
        })?;
        let changed = op.updates().iter().filter_map(|&i| inputs.get(i));
        if changed.into_iter().any(|&t| !matches!(self.values[self.root(t).0].origin, Origin::Variable(_))) {
            return Err(Error::new(Kind::Internal, format!("{} changes a value that is no variable", op.name()))
                .at(&self.scope));
        }
        let requires_grad = inputs.iter().any(|&t| self.values[t.0].requires_grad);
        let node = self.nodes.len();
        let outputs: Vec<Tensor> = outputs
            .into_iter()
            .enumerate()
            .map(|(output, ty)| self.value(ty, Origin::Node { node, output }, requires_grad))
            .collect();
        self.nodes.push(Node {
            op: Arc::new(op),
            inputs: inputs.to_vec(),
            outputs: outputs.clone(),
            scope: self.scope.clone(),
        });
        Ok(outputs)
    }

    /// Appends an operation with one output.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push1(&mut self, op: impl Op + 'static, inputs: &[Tensor]) -> Result<Tensor> {
        let outputs = self.push(op, inputs)?;
        outputs
            .first()
            .copied()
            .ok_or_else(|| Error::new(Kind::Internal, "an op without an output was used as a value"))
    }

    /// The same elements in another shape; costs nothing.
    ///
    /// # Errors
    /// [`Kind::Shape`] if the element counts differ.
    pub fn view(&mut self, x: Tensor, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        let ty = self.ty(x).clone();
        if ty.shape.len() != shape.len() {
            return Err(Error::new(Kind::Shape, format!("cannot view {} as {shape}", ty.shape)).at(&self.scope));
        }
        let requires_grad = self.values[x.0].requires_grad;
        Ok(self.value(TensorType { shape, dtype: ty.dtype }, Origin::View(x), requires_grad))
    }

    /// The type of a value.
    pub fn ty(&self, t: Tensor) -> &TensorType {
        &self.values[t.0].ty
    }

    /// The shape of a value.
    pub fn shape(&self, t: Tensor) -> &Shape {
        &self.values[t.0].ty.shape
    }

    /// Where a value comes from.
    pub fn origin(&self, t: Tensor) -> &Origin {
        &self.values[t.0].origin
    }

    /// Whether a gradient can flow to the value.
    pub fn requires_grad(&self, t: Tensor) -> bool {
        self.values[t.0].requires_grad
    }

    /// From now on gradients flow to these values and to what was made of them, and to nothing else, no variable either:
    /// for derivatives by values inside of a network.
    pub fn flow_only_to(&mut self, values: &[Tensor]) {
        // What a value was made of was numbered before it.
        for index in 0..self.values.len() {
            let flows = |t: Tensor| self.values[t.0].requires_grad;
            let made_of = match self.values[index].origin {
                Origin::View(source) => flows(source),
                Origin::Node { node, .. } => self.nodes[node].inputs.iter().any(|&t| flows(t)),
                Origin::Variable(_) | Origin::Input(_) => false,
            };
            self.values[index].requires_grad = made_of || values.contains(&Tensor(index));
        }
    }

    /// The value that holds the elements: `t` itself unless it is a view.
    pub fn root(&self, mut t: Tensor) -> Tensor {
        while let Origin::View(of) = self.values[t.0].origin {
            t = of;
        }
        t
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether nothing has been traced.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// All values in the order they were made.
    pub fn tensors(&self) -> impl DoubleEndedIterator<Item = Tensor> + use<> {
        (0..self.values.len()).map(Tensor)
    }

    /// The operations in order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A new value that no operation makes yet.
    pub(super) fn detached(&mut self, ty: TensorType) -> Tensor {
        self.value(ty, Origin::Node { node: usize::MAX, output: 0 }, false)
    }

    /// The same values computed by other operations.
    pub(super) fn with_nodes(&self, nodes: Vec<Node>) -> Self {
        let mut tape = Self { nodes, ..self.clone() };
        for (node, n) in tape.nodes.iter().enumerate() {
            for (output, t) in n.outputs.iter().enumerate() {
                tape.values[t.0].origin = Origin::Node { node, output };
            }
        }
        tape
    }

    /// The declared variables.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// The variable called `name`, if it has been declared.
    pub fn find_variable(&self, name: &str) -> Option<Tensor> {
        self.variables.iter().position(|v| v.name == name).map(|i| self.variable_values[i])
    }

    /// The variables that gradients flow to, as values.
    pub fn trainable(&self) -> Vec<(String, Tensor)> {
        let pairs = self.variables.iter().zip(&self.variable_values);
        pairs.filter(|(v, _)| v.trainable).map(|(v, &t)| (v.name.clone(), t)).collect()
    }
}
