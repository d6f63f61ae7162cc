//! The interpreter: one operation after the other by the CPU twins in f64, each value in memory of its own, and a backward
//! pass that knows nothing of the tape's.

use lesion_gpu::ops::{Array, Case, Role, larger};
use lesion_gpu::rng::{Stream, threefry2x32, unit};
use lesion_gpu::tensor::DType;

use crate::graph::{Graph, Kind, Leaf, Operand, Step};

/// Everything a graph computes.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Leaves before the step.
    pub read: Vec<Array<f64>>,
    /// Leaves after the step.
    pub leaves: Vec<Array<f64>>,
    pub values: Vec<Option<Array<f64>>>,
    /// Gradients of leaves.
    pub gradients: Vec<Option<Array<f64>>>,
    /// Gradients of values.
    pub of_values: Vec<Option<Array<f64>>>,
}

/// Values of the leaves, as the device gets them.
pub fn leaf_values(graph: &Graph, seed: u32) -> Vec<Array<f32>> {
    let value = |(i, leaf): (usize, &Leaf)| leaf.input.values(Stream::named(seed, &format!("leaf {i}")));
    graph.leaves.iter().enumerate().map(value).collect()
}

/// How results are made wrong.
#[derive(Debug, Clone, Copy)]
pub struct Noise {
    pub seed: u32,
    /// Whether equal values stay equal. Else what cancels because they are is no longer zero, as where kernels round.
    pub alike: bool,
}

impl Noise {
    /// A number in [-1, 1) that depends on the value, and on where it stands unless equal ones are to stay equal.
    fn jitter(self, value: f64, at: usize) -> f64 {
        let bits = value.to_bits();
        let place = if self.alike { 0 } else { 1 + at as u32 };
        2.0 * f64::from(unit(threefry2x32([self.seed, place], [bits as u32, (bits >> 32) as u32])[0])) - 1.0
    }
}

pub fn size(a: &Array<f64>) -> f64 {
    a.data.iter().map(|v| v.abs()).fold(0.0, larger)
}

/// The array with each value that is not zero moved by up to `by`.
fn shaken(a: &Array<f64>, by: f64, noise: Noise) -> Array<f64> {
    let moved = |(at, &v): (usize, &f64)| if v == 0.0 { v } else { v + by * noise.jitter(v, at) };
    Array::new(a.shape.clone(), a.data.iter().enumerate().map(moved).collect())
}

/// Relative error of one rounding to f16, on a driver that truncates.
pub const HALF_ROUNDING: f64 = 1.0 / 1024.0;

/// An interpreter of one graph.
pub struct Interpreter<'a> {
    pub graph: &'a Graph,
    /// Each result is off by as much as a kernel's may be.
    pub noise: Option<Noise>,
}

impl Interpreter<'_> {
    /// Runs the graph. `done` says which updates are: those that the tape has too.
    pub fn run(&self, leaves: &[Array<f64>], done: &dyn Fn(&Step) -> bool) -> Ran {
        let graph = self.graph;
        let mut ran = Ran {
            read: leaves.to_vec(),
            leaves: leaves.to_vec(),
            values: vec![None; graph.values.len()],
            gradients: vec![None; leaves.len()],
            of_values: vec![None; graph.values.len()],
        };
        // What each operation read: what it reads may be changed later.
        let mut read = vec![];
        for step in &graph.steps {
            let inputs = self.inputs(step, &ran);
            self.forward(step, &inputs, &mut ran);
            read.push(inputs);
        }
        self.backward(&read, &mut ran);
        for step in graph.updates.iter().filter(|step| done(step)) {
            let has = |operand: &Operand| !matches!(*operand, Operand::Gradient(leaf) if ran.gradients[leaf].is_none());
            if !step.operands.iter().all(has) {
                continue;
            }
            let inputs = self.inputs(step, &ran);
            self.forward(step, &inputs, &mut ran);
        }
        ran
    }

    fn inputs(&self, step: &Step, ran: &Ran) -> Vec<Array<f64>> {
        let of = |operand: &Operand| match *operand {
            Operand::Leaf(leaf) => ran.leaves[leaf].clone(),
            Operand::Value(value) => ran.values[value].clone().expect("values are made before they are read"),
            Operand::Gradient(leaf) => ran.gradients[leaf].clone().expect("a gradient"),
        };
        step.operands.iter().map(of).collect()
    }

    fn forward(&self, step: &Step, inputs: &[Array<f64>], ran: &mut Ran) {
        let made = step.case.twin.forward_f64(inputs);
        let f32s = self.noise.map(|_| step.case.twin.forward_f32(&inputs.iter().map(Array::cast).collect::<Vec<_>>()));
        let updated = step.case.inputs.iter().zip(&step.operands).filter(|(input, _)| input.role == Role::Updated);
        let targets = step.makes.iter().map(|&value| Operand::Value(value)).chain(updated.map(|(_, operand)| *operand));
        for (i, (target, array)) in targets.zip(made).enumerate() {
            let dtype = match target {
                Operand::Value(value) => self.graph.values[value].dtype,
                Operand::Leaf(leaf) | Operand::Gradient(leaf) => self.graph.leaves[leaf].input.ty.dtype,
            };
            let array = self.off(&step.case, array, f32s.as_ref().map(|f32s| &f32s[i]), dtype);
            match target {
                Operand::Value(value) => ran.values[value] = Some(array),
                Operand::Leaf(leaf) | Operand::Gradient(leaf) => ran.leaves[leaf] = array,
            }
        }
    }

    /// The array as wrong as a kernel may make it.
    fn off(&self, case: &Case, array: Array<f64>, own: Option<&Array<f32>>, dtype: DType) -> Array<f64> {
        let (Some(noise), Some(own)) = (self.noise, own) else { return array };
        if dtype == DType::U32 || case.op == "view" {
            return array;
        }
        let lost = own.data.iter().zip(&array.data).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, larger);
        let half = if dtype == DType::F16 || case.needs_half() { HALF_ROUNDING } else { 0.0 };
        // Most kernels are much better than what the case lists accept at least.
        let share = if case.tolerance > 1e-5 { case.tolerance / 10.0 } else { case.tolerance / 50.0 };
        let by = (size(&array) * (share + half)).max(4.0 * lost);
        shaken(&array, by, noise)
    }

    fn backward(&self, read: &[Vec<Array<f64>>], ran: &mut Ran) {
        let graph = self.graph;
        let mut of_values: Vec<Option<Array<f64>>> = vec![None; graph.values.len()];
        let mut of_leaves: Vec<Option<Array<f64>>> = vec![None; graph.leaves.len()];
        let flows = self.flows();
        for &(value, gradient) in &graph.seeds {
            let Some(made) = &ran.values[value] else { continue };
            let start = gradient.map_or_else(|| made.map(|_| 1.0), |leaf| ran.leaves[leaf].clone());
            add(&mut of_values[value], start);
        }
        for (step, inputs) in graph.steps.iter().zip(read).rev() {
            if !step.operands.iter().any(&flows) {
                continue;
            }
            let Some(d_outputs) = step.makes.iter().map(|&v| of_values[v].clone()).collect::<Option<Vec<_>>>() else {
                continue;
            };
            let d_inputs = step.case.twin.backward_f64(inputs, &d_outputs);
            let own = self.noise.map(|_| {
                let [x, d] = [inputs, &d_outputs].map(|list| list.iter().map(Array::cast).collect::<Vec<_>>());
                step.case.twin.backward_f32(&x, &d)
            });
            for (i, (d_input, operand)) in d_inputs.into_iter().zip(&step.operands).enumerate() {
                let Some(d_input) = d_input.filter(|_| step.case.inputs[i].role == Role::Differentiable) else {
                    continue;
                };
                let own = own.as_ref().and_then(|own| own[i].as_ref());
                let d_input = self.off(&step.case, d_input, own, step.case.inputs[i].ty.dtype);
                match *operand {
                    Operand::Value(value) => add(&mut of_values[value], d_input),
                    Operand::Leaf(leaf) if flows(operand) => add(&mut of_leaves[leaf], d_input),
                    _ => {}
                }
            }
        }
        (ran.gradients, ran.of_values) = (of_leaves, of_values);
    }

    /// Whether something that gradients flow to is behind an operand.
    fn flows(&self) -> impl Fn(&Operand) -> bool {
        let only = self.graph.only_inner;
        let trainable: Vec<bool> = self.graph.leaves.iter().map(|leaf| leaf.kind == Kind::Trainable && !only).collect();
        let mut values = vec![false; self.graph.values.len()];
        for step in &self.graph.steps {
            let any = step.operands.iter().any(|operand| match *operand {
                Operand::Leaf(leaf) => trainable[leaf],
                Operand::Value(value) => values[value],
                Operand::Gradient(_) => false,
            });
            step.makes.iter().for_each(|&value| values[value] = any || only && self.graph.inner.contains(&value));
        }
        move |operand| match *operand {
            Operand::Leaf(leaf) | Operand::Gradient(leaf) => trainable[leaf],
            Operand::Value(value) => values[value],
        }
    }

    /// Whether a value lies so near a kink that a kernel may be on the other side of it. `off` is how far an operand may be
    /// from what the interpreter has for it; values that are equal are so on every device, since they are copies or zeros.
    pub fn near_a_kink(&self, ran: &Ran, off: &dyn Fn(Operand) -> f64) -> bool {
        self.graph.steps.iter().filter(|step| ["relu", "max_pool"].contains(&step.case.op)).any(|step| {
            let x = match step.operands[0] {
                Operand::Value(value) => ran.values[value].as_ref().expect("a value"),
                Operand::Leaf(leaf) | Operand::Gradient(leaf) => &ran.read[leaf],
            };
            let by = off(step.operands[0]);
            let y = &step.case.twin.forward_f64(std::slice::from_ref(x))[0];
            // Distinct, so that it shows which element a gradient goes to.
            let d_y = vec![Array::new(y.shape.clone(), (0..y.data.len()).map(|i| 1.0 + i as f64).collect())];
            let gradient = |x: &Array<f64>| step.case.twin.backward_f64(std::slice::from_ref(x), &d_y);
            let here = gradient(x);
            (0..8).any(|trial| gradient(&shaken(x, by, Noise { seed: 1000 + trial, alike: true })) != here)
        })
    }
}

fn add(total: &mut Option<Array<f64>>, more: Array<f64>) {
    *total = Some(match total.take() {
        None => more,
        Some(total) => total.zip(&more, |a, b| a + b),
    });
}
