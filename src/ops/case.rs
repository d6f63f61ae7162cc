//! Cases: one list an op, which serves forward tests, gradient tests, benchmarks and the self-test.

use std::sync::Arc;

use half::f16;

use super::{AnyTwin, Array, Twin, backward_from};
use crate::autograd::{Plan, Tape, Tensor};
use crate::error::Result;
use crate::gpu::{Caps, Dispatch};
use crate::rng::Stream;
use crate::tensor::{DType, TensorType};

/// How an input is filled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fill {
    /// Standard normal.
    Normal,
    /// Normal with a mean and a standard deviation.
    Gaussian(f32, f32),
    /// Uniform between two bounds.
    Uniform(f32, f32),
    /// A shuffled arithmetic sequence around zero without ties, and without zero for an even count: for ops that are
    /// not smooth, so that finite differences do not step over a kink.
    Distinct,
    /// Whole numbers below a bound: labels.
    Labels(u32),
    /// One value everywhere.
    Constant(f32),
    /// Standard normal but for the last value.
    NormalBut(f32),
}

/// What an input is to the op.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Gradients flow to it and are checked.
    Differentiable,
    /// Data without a gradient.
    Fixed,
    /// Changed in place; its new value is checked.
    Updated,
}

/// One input of a case.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseInput {
    /// Shape and element type.
    pub ty: TensorType,
    /// Its values.
    pub fill: Fill,
    /// Its part.
    pub role: Role,
}

impl CaseInput {
    /// A differentiable float tensor of standard normal values.
    pub fn normal(shape: impl Into<crate::tensor::Shape>) -> Self {
        Self { ty: TensorType::f32(shape), fill: Fill::Normal, role: Role::Differentiable }
    }

    /// A float tensor filled in another way.
    pub fn new(shape: impl Into<crate::tensor::Shape>, fill: Fill, role: Role) -> Self {
        Self { ty: TensorType::f32(shape), fill, role }
    }

    /// Labels below `classes`.
    pub fn labels(shape: impl Into<crate::tensor::Shape>, classes: u32) -> Self {
        Self { ty: TensorType::u32(shape), fill: Fill::Labels(classes), role: Role::Fixed }
    }

    /// A flag that ops raise: 1 if it is `up`, else 0.
    pub fn flag(up: f32) -> Self {
        Self { ty: TensorType::u32([1]), fill: Fill::Constant(up), role: Role::Updated }
    }

    /// The values: the same for the same stream. Those of an f16 tensor are rounded already, so that the CPU twin and
    /// the device start from the same numbers.
    pub fn values(&self, stream: Stream) -> Array<f32> {
        let n = self.ty.shape.len();
        let data = match self.fill {
            Fill::Normal => (0..n as u64).map(|i| stream.normal(i)).collect(),
            Fill::Gaussian(mean, std) => (0..n as u64).map(|i| mean + std * stream.normal(i)).collect(),
            Fill::Uniform(lo, hi) => (0..n as u64).map(|i| lo + (hi - lo) * stream.uniform(i)).collect(),
            Fill::Distinct => {
                let step = 4.0 / n as f32;
                stream.permutation(n, 0).into_iter().map(|i| (i as f32 + 0.5) * step - 2.0).collect()
            }
            Fill::Labels(bound) => (0..n as u32).map(|i| (stream.words([i, 0])[0] % bound) as f32).collect(),
            Fill::Constant(value) => vec![value; n],
            Fill::NormalBut(last) => (1..n as u64).map(|i| stream.normal(i)).chain([last]).collect(),
        };
        let data = if self.ty.is_half() { data.into_iter().map(|v| f16::from_f32(v).to_f32()).collect() } else { data };
        Array::new(self.ty.shape.clone(), data)
    }

    /// Values as the bytes the device expects.
    pub fn bytes(&self, values: &Array<f32>) -> Vec<u8> {
        match self.ty.dtype {
            dtype @ (DType::F32 | DType::F16) => dtype.encode(&values.data),
            DType::U32 => values.data.iter().flat_map(|&v| (v as u32).to_le_bytes()).collect(),
        }
    }
}

/// How a case is traced: from its inputs to the outputs that are compared.
pub type Trace = Arc<dyn Fn(&mut Tape, &[Tensor]) -> Result<Vec<Tensor>> + Send + Sync>;

/// One shape of one op, with its CPU twin.
#[derive(Clone)]
pub struct Case {
    /// The op.
    pub op: &'static str,
    /// What is particular about the shape.
    pub name: String,
    /// Inputs.
    pub inputs: Vec<CaseInput>,
    /// How it is traced.
    pub trace: Trace,
    /// The CPU twin.
    pub twin: Arc<dyn AnyTwin>,
    /// Largest error accepted, relative to the size of the result; by default 1e-5, or what the twin itself
    /// loses in f32 if that is more.
    pub tolerance: f64,
    /// Whether the twin's gradient can be checked by finite differences (not for a random or piecewise-constant op).
    pub smooth: bool,
    /// Whether it computes in f16 though none of its inputs is.
    pub half: bool,
    /// Whether it says nothing in f16.
    pub f32_only: bool,
}

/// A plan of what is traced from variables of these types, and of the gradients of those that take one.
///
/// # Errors
/// Those of tracing and planning.
pub fn plan_with_gradients(inputs: &[CaseInput], trace: &Trace, caps: &Caps) -> Result<Plan> {
    let mut tape = Tape::new();
    let mut variables = vec![];
    for (i, input) in inputs.iter().enumerate() {
        let differentiable = input.role == Role::Differentiable;
        variables.push(tape.variable(&format!("input {i}"), input.ty.clone(), differentiable)?);
    }
    let outputs = trace(&mut tape, &variables)?;
    let mut wanted = outputs.clone();
    if inputs.iter().any(|input| input.role == Role::Differentiable) {
        let mut seeds: Vec<(Tensor, Tensor)> = vec![];
        for (j, &y) in outputs.iter().enumerate() {
            seeds.push((y, tape.variable(&format!("seed {j}"), tape.ty(y).clone(), false)?));
        }
        let gradients = backward_from(&mut tape, &seeds)?;
        wanted.extend(variables.iter().filter_map(|&x| gradients.get(x)));
    }
    Plan::new(&tape, &wanted, caps)
}

/// The cases, and all again with the inputs numbered `inputs` in f16.
pub(crate) fn and_half(mut cases: Vec<Case>, inputs: &[usize]) -> Vec<Case> {
    let takes = |case: &&Case| !case.needs_half() && !case.f32_only && inputs.iter().any(|&i| i < case.inputs.len());
    let halves: Vec<Case> = cases.iter().filter(takes).map(|case| case.in_half(inputs)).collect();
    cases.extend(halves);
    cases
}

impl Case {
    /// A case with the default tolerance.
    pub fn new(
        op: &'static str,
        name: impl Into<String>,
        inputs: Vec<CaseInput>,
        twin: impl Twin + 'static,
        trace: impl Fn(&mut Tape, &[Tensor]) -> Result<Vec<Tensor>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            op,
            name: name.into(),
            inputs,
            trace: Arc::new(trace),
            twin: Arc::new(twin),
            tolerance: 1e-5,
            smooth: true,
            half: false,
            f32_only: false,
        }
    }

    /// A larger tolerance, for ops whose kernels cannot do better.
    #[must_use]
    pub fn tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Excludes the case from finite differences.
    #[must_use]
    pub fn not_smooth(mut self) -> Self {
        self.smooth = false;
        self
    }

    /// The same case with the inputs numbered `inputs` in f16. Finite differences would show nothing new.
    #[must_use]
    pub fn in_half(&self, inputs: &[usize]) -> Self {
        let mut case = self.clone().not_smooth();
        case.name += " f16";
        for &i in inputs {
            if let Some(input) = case.inputs.get_mut(i) {
                input.ty.dtype = DType::F16;
            }
        }
        case
    }

    /// Whether it needs a device with 16-bit floats.
    pub fn needs_half(&self) -> bool {
        self.half || self.inputs.iter().any(|input| input.ty.is_half())
    }

    /// Marks a case that needs 16-bit floats though none of its inputs is f16.
    #[must_use]
    pub fn half(mut self) -> Self {
        self.half = true;
        self
    }

    /// Marks a case that has no copy in f16.
    #[must_use]
    pub fn f32_only(mut self, only: bool) -> Self {
        self.f32_only = only;
        self
    }

    /// Its launches on a device, forward and backward.
    ///
    /// # Errors
    /// Those of tracing and planning.
    pub fn launches(&self, caps: &Caps) -> Result<Vec<Dispatch>> {
        let plan = plan_with_gradients(&self.inputs, &self.trace, caps)?;
        Ok(plan.dispatches.into_iter().map(|planned| planned.dispatch).collect())
    }

    /// `op/name`.
    pub fn label(&self) -> String {
        format!("{}/{}", self.op, self.name)
    }
}
