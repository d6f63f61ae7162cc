//! Runs a graph on the device in two ways and compares both with the interpreter, and with each other.

use std::cell::LazyCell;
use std::fmt;

use lesion_gpu::Result;
use lesion_gpu::autograd::{Executable, Memory, Origin, Plan, PlannedDispatch, Storage, Store, Tensor};
use lesion_gpu::gpu::{Caps, DeviceClass, Gpu, TextureLoads};
use lesion_gpu::ops::{Array, Draw, larger};
use lesion_gpu::tensor::{DType, TensorType};

use crate::graph::{CLOSING, Graph, Kind, Operand, Step, Traced};
use crate::interpret::{HALF_ROUNDING, Interpreter, Noise, Ran, leaf_values, size};

/// Which kernels are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernels {
    /// Those for the device.
    Own,
    /// Those of a device without subgroups: none of them gathers statistics.
    NoSubgroups,
    /// As of a GPU proper.
    Tiles,
    /// From copies in textures wherever that is possible.
    Textures,
}

/// A second plan of the same variables, in memory that it shares with the first: they run in turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// The same graph once more.
    Same,
    /// What an evaluation has of it.
    Evaluation,
}

/// How a graph is planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    pub kernels: Kernels,
    /// Whether what depends on variables alone is done beforehand.
    pub prepare: bool,
    /// Steps, each beginning with the variables that the one before left behind.
    pub steps: usize,
    pub beside: Option<Beside>,
}

impl Way {
    /// The way of a seed.
    pub fn of(seed: u32) -> Self {
        let mut draw = Draw::new(seed, "way");
        let kernels = draw.of(&[Kernels::Own, Kernels::Own, Kernels::NoSubgroups, Kernels::Tiles, Kernels::Textures]);
        let (prepare, steps) = (draw.one_in(3), draw.between(1, 2));
        let beside = draw.of(&[None, None, None, None, Some(Beside::Same), Some(Beside::Evaluation)]);
        match beside {
            None => Self { kernels, prepare, steps, beside },
            // What is prepared must be there in the second step too.
            Some(_) => Self { kernels, prepare: prepare || draw.flag(), steps: 2, beside },
        }
    }

    pub fn caps(self, caps: &Caps) -> Caps {
        let caps = caps.clone();
        match self.kernels {
            Kernels::Own => caps,
            Kernels::NoSubgroups => Caps { subgroups: None, ..caps },
            Kernels::Tiles => Caps { subgroups: None, class: DeviceClass::Discrete, ..caps },
            Kernels::Textures => Caps { textures: TextureLoads::MuchFaster, ..caps },
        }
    }

    /// As a training plans it.
    pub fn plan(self, graph: &Graph, traced: &Traced, outputs: &[Tensor], caps: &Caps) -> Result<Plan> {
        let closing = graph.updates.iter().any(|step| step.closing).then_some(CLOSING);
        Plan::of_training(&traced.tape, outputs, &self.caps(caps), closing, self.prepare)
    }

    /// The second plan, if there is one, with its graph and the names of its outputs: `outputs` are those of the first.
    pub fn second(self, graph: &Graph, traced: &Traced, outputs: &[Named], caps: &Caps) -> Result<Option<Second>> {
        Ok(match self.beside {
            None => None,
            Some(Beside::Same) => {
                let (names, tensors): (Vec<String>, Vec<Tensor>) = outputs.iter().cloned().unzip();
                let plan = self.plan(graph, traced, &tensors, caps)?;
                Some(Second { graph: graph.clone(), plan, names })
            }
            Some(Beside::Evaluation) => {
                let graph = graph.evaluation();
                let traced = graph.trace()?;
                let (names, tensors): (Vec<String>, Vec<Tensor>) = values(&graph, &traced).unzip();
                let plan = Plan::preparing(&traced.tape, &tensors, &self.caps(caps))?;
                Some(Second { graph, plan, names })
            }
        })
    }
}

/// An output and what it is called.
pub type Named = (String, Tensor);

/// A second plan.
pub struct Second {
    graph: Graph,
    pub plan: Plan,
    names: Vec<String>,
}

/// The devices that graphs run on.
pub struct Gpus {
    /// With guard zones.
    pub guarded: Gpu,
    /// Without: between them plans share no memory.
    pub bare: Gpu,
}

/// What came of a graph.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Agrees(Counts),
    /// Nothing could be compared, and why.
    Skipped(Skip),
    /// What differs.
    Differs(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    /// Whatever the leaves were, something lay near a kink.
    Kink,
    /// Numbers became too large or too small to say anything.
    Size,
}

/// What was compared.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Counts {
    pub tensors: usize,
    /// Tensors whose numbers are as small as what roundings change: nothing is said about them.
    pub loose: usize,
    /// Tensors of nothing but zeros that stay zeros whatever operations round.
    pub zeros: usize,
    /// Tensors that cancel to nothing but zeros, which roundings change.
    pub cancelled: usize,
    /// Whether another plan ran in turns with the graph, in memory that both shared.
    pub shared: bool,
    /// Whether fused and unfused had to be equal to the bit.
    pub exact: bool,
    /// Largest error as a share of its limit.
    pub worst: f64,
}

/// What the device computes, where the plan keeps it.
struct Results {
    outputs: Vec<Vec<f64>>,
    leaves: Vec<Vec<f64>>,
    /// The outputs of a second plan, with their names.
    beside: Vec<(String, Vec<f64>)>,
}

/// Error beyond what the interpreter's noise shows that is accepted, relative to the largest value.
const FLOOR: f64 = 4e-6;
/// How much further than the interpreter with noise a kernel may be from the interpreter without.
const MARGIN: f64 = 10.0;
/// From this limit on a comparison says little.
const LOOSE: f64 = 0.3;

pub fn check(gpus: &Gpus, graph: &Graph, way: Way) -> Outcome {
    match compare(gpus, graph, way) {
        Ok(outcome) => outcome,
        Err(e) => Outcome::Differs(format!("an error: {e}")),
    }
}

/// The values that are read back.
fn values<'a>(graph: &'a Graph, traced: &'a Traced) -> impl Iterator<Item = Named> + 'a {
    graph.outputs.iter().filter_map(|&value| Some((format!("v{value}"), traced.values[value]?)))
}

/// All that is read back.
pub fn outputs(graph: &Graph, traced: &Traced) -> Vec<Named> {
    let gradients = graph.gradients.iter().filter_map(|&leaf| Some((format!("d_l{leaf}"), traced.gradients[leaf]?)));
    let inner = graph.inner.iter().zip(&traced.inner);
    let inner = inner.filter_map(|(value, gradient)| Some((format!("d_v{value}"), (*gradient)?)));
    values(graph, traced).chain(gradients).chain(inner).collect()
}

/// What a run of the interpreter has for a name: `v3` is a value, `l3` a leaf after the step, `d_` stands for a gradient.
fn named<'a>(ran: &'a Ran, name: &str) -> Option<&'a Array<f64>> {
    let number = |prefix: &str| name.strip_prefix(prefix).and_then(|number| number.parse::<usize>().ok());
    match (number("d_l"), number("d_v"), number("v"), number("l")) {
        (Some(leaf), ..) => ran.gradients[leaf].as_ref(),
        (_, Some(value), ..) => ran.of_values[value].as_ref(),
        (_, _, Some(value), _) => ran.values[value].as_ref(),
        (.., leaf) => Some(&ran.leaves[leaf?]),
    }
}

fn compare(gpus: &Gpus, graph: &Graph, way: Way) -> Result<Outcome> {
    let traced = graph.trace()?;
    let done = |step: &Step| graph.has_gradients(step, &traced);
    // All steps of the interpreter, one after the other.
    let interpret = |leaves: &[Array<f32>], noise| {
        let mut leaves: Vec<Array<f64>> = leaves.iter().map(Array::cast).collect();
        let step = |_| {
            let ran = Interpreter { graph, noise }.run(&leaves, &done);
            leaves.clone_from(&ran.leaves);
            ran
        };
        (0..way.steps).map(step).collect::<Vec<Ran>>()
    };
    let mut chosen = None;
    let mut skip = Skip::Size;
    for attempt in 0..8 {
        let leaves = leaf_values(graph, attempt);
        let want = interpret(&leaves, None);
        if !want.iter().all(reasonable) {
            continue;
        }
        let noisy = [1, 2, 3].map(|seed| interpret(&leaves, Some(Noise { seed, alike: true })));
        let kink = (0..way.steps).any(|step| {
            let noisy = noisy.iter().map(|steps| &steps[step]).collect::<Vec<_>>();
            near_a_kink(graph, &want[step], &noisy)
        });
        if kink {
            skip = Skip::Kink;
            continue;
        }
        chosen = Some((leaves, want, noisy));
        break;
    }
    let floor = if graph.is_half() { HALF_ROUNDING } else { FLOOR };
    let Some((leaves, want, noisy)) = chosen else { return Ok(Outcome::Skipped(skip)) };
    for (leaf, gradient) in traced.gradients.iter().enumerate() {
        let has = want[0].gradients[leaf].is_some();
        if gradient.is_some() != has && graph.leaves[leaf].kind == Kind::Trainable {
            return Ok(Outcome::Differs(format!("l{leaf}: the tape has a gradient: {}, it should: {has}", !has)));
        }
    }

    let gpu = if way.beside.is_some() { &gpus.bare } else { &gpus.guarded };
    let outputs = outputs(graph, &traced);
    let (names, wanted): (Vec<String>, Vec<Tensor>) = outputs.iter().cloned().unzip();
    // Every result is an output of the unfused plan, so it has memory of its own.
    let is_made = |t: &Tensor| matches!(traced.tape.origin(*t), Origin::Node { .. });
    let made = traced.tape.tensors().filter(is_made);
    let all: Vec<Tensor> = made.chain(wanted.iter().map(|&t| traced.tape.root(t)).filter(|t| !is_made(t))).collect();
    let fused = way.plan(graph, &traced, &wanted, gpu.caps())?;
    let half = traced.tape.tensors().any(|t| traced.tape.ty(t).is_half());
    let exact = !half && !fused.preparation.iter().chain(&fused.dispatches).any(rounds_otherwise);
    let plain = Plan::unfused(&traced.tape, &all, &way.caps(gpu.caps()))?;
    let second = way.second(graph, &traced, &outputs, gpu.caps())?;
    let shared = second.as_ref().is_some_and(|second| shares(&fused, &second.plan));
    let fused = run(gpu, graph, fused, second.as_ref(), &leaves, way.steps)?;
    // What shares its memory cannot have guard zones: it has them by itself.
    let guarded = match second {
        Some(_) => {
            let plan = way.plan(graph, &traced, &wanted, gpus.guarded.caps())?;
            Some(run(&gpus.guarded, graph, plan, None, &leaves, way.steps)?)
        }
        None => None,
    };
    let mut plain = run(&gpus.guarded, graph, plain, None, &leaves, way.steps)?;
    let place = |t: &Tensor| all.iter().position(|a| *a == traced.tape.root(*t));
    plain.outputs = wanted.iter().map(|t| place(t).map_or(vec![], |at| plain.outputs[at].clone())).collect();

    let mut counts = Counts { exact, shared, ..Counts::default() };
    let mut wrong = vec![];
    // Noise that moves equal numbers apart shows which zeros are there only because they cancel, such as the gradient of a norm's
    // mean, and how far roundings leave them from zero.
    let apart = LazyCell::new(|| [4, 5, 6].map(|seed| interpret(&leaves, Some(Noise { seed, alike: false }))));
    let mut look = |which: &str, step: usize, name: &str, got: &[f64]| {
        let Some(result) = named(&want[step], name) else { return };
        let off = |runs: &[Vec<Ran>]| distance(Some(result), runs.iter().map(|steps| named(&steps[step], name)));
        let (noise, largest) = (off(&noisy), size(result));
        let is_zero = noise == 0.0 && largest == 0.0;
        // The twins round as well: what is lost next to one in f64, such as the tail of a GELU, is zero to them.
        let limit = if is_zero {
            MARGIN * off(&*apart) + f64::EPSILON * magnitude(&want[step])
        } else {
            MARGIN * noise + floor * largest
        };
        let error = got.iter().zip(&result.data).fold(0.0, |m: f64, (a, b)| larger(m, (a - b).abs()));
        counts.tensors += 1;
        if is_zero {
            *(if off(&*apart) > 0.0 { &mut counts.cancelled } else { &mut counts.zeros }) += 1;
        }
        // What is no number is within no limit, and a limit that is none lets nothing pass.
        let sound = got.len() == result.data.len() && error.is_finite() && limit.is_finite();
        if sound && !is_zero && limit > LOOSE * largest && limit > 0.0 {
            counts.loose += 1;
            return;
        }
        if !sound || error > limit {
            wrong.push(format!("{which}: {name}: off by {error:.2e}, more than {limit:.2e}; largest {largest:.2e}"));
        }
        counts.worst = if limit > 0.0 { counts.worst.max(error / limit) } else { counts.worst };
    };
    let alone = guarded.iter().map(|got| ("fused, between guard zones", got));
    for (which, got) in [("fused and planned", &fused), ("operation by operation", &plain)].into_iter().chain(alone) {
        names.iter().zip(&got.outputs).for_each(|(name, got)| look(which, way.steps - 1, name, got));
        for (leaf, got) in got.leaves.iter().enumerate().filter(|(leaf, _)| graph.leaves[*leaf].kind != Kind::Input) {
            look(which, way.steps - 1, &format!("l{leaf}"), got);
        }
    }
    fused.beside.iter().for_each(|(name, got)| look("the second plan", 0, name, got));
    if exact {
        let pairs = names.iter().cloned().zip(fused.outputs.iter().zip(&plain.outputs));
        let leaves = (0..leaves.len()).map(|leaf| (format!("l{leaf}"), (&fused.leaves[leaf], &plain.leaves[leaf])));
        for (name, (a, b)) in pairs.chain(leaves) {
            if a.iter().zip(b).any(|(a, b)| a != b && !(a.is_nan() && b.is_nan())) {
                wrong.push(format!("{name}: fused and unfused are not equal to the bit"));
            }
        }
    }
    Ok(if wrong.is_empty() { Outcome::Agrees(counts) } else { Outcome::Differs(wrong.join("\n  ")) })
}

/// Whether two plans of a store have slots in common.
pub fn shares(first: &Plan, second: &Plan) -> bool {
    Memory::in_turns(&[first, second]).slots < first.memory.slots + second.memory.slots
}

/// Whether a launch may sum in another order than without fusion and bundling.
fn rounds_otherwise(launch: &PlannedDispatch) -> bool {
    let arena = launch.storage.iter().any(|storage| matches!(storage, Storage::Arena(_)));
    ["conv2d+statistics", "batch_norm.fold"].contains(&launch.op) || launch.op == "clip_norm.add_squares" && arena
}

/// Whether a kernel may be on the other side of a kink than the interpreter.
fn near_a_kink(graph: &Graph, want: &Ran, noisy: &[&Ran]) -> bool {
    let off = |want: Option<&Array<f64>>, noisy: Vec<Option<&Array<f64>>>| {
        MARGIN * distance(want, noisy.into_iter()) + want.map_or(0.0, |v| FLOOR * size(v))
    };
    let interpreter = Interpreter { graph, noise: None };
    interpreter.near_a_kink(want, &|operand| match operand {
        Operand::Value(value) => {
            let noisy = noisy.iter().map(|ran| ran.values[value].as_ref()).collect();
            off(want.values[value].as_ref(), noisy)
        }
        Operand::Leaf(leaf) | Operand::Gradient(leaf) => {
            off(Some(&want.read[leaf]), noisy.iter().map(|ran| Some(&ran.read[leaf])).collect())
        }
    })
}

/// The largest distance of an element of one of `b` from that of `a`.
fn distance<'a>(a: Option<&Array<f64>>, b: impl Iterator<Item = Option<&'a Array<f64>>>) -> f64 {
    let Some(a) = a else { return 0.0 };
    let of = |b: &Array<f64>| a.data.iter().zip(&b.data).fold(0.0, |m, (a, b)| larger(m, (a - b).abs()));
    b.flatten().map(of).fold(0.0, larger)
}

/// Whether all results are such that f16 holds them, and what is made of them in f32.
fn reasonable(ran: &Ran) -> bool {
    magnitude(ran) < 1e4
}

/// The largest number of all results.
fn magnitude(ran: &Ran) -> f64 {
    ran.values.iter().chain(&ran.gradients).chain(&ran.of_values).flatten().map(size).fold(0.0, larger)
}

/// A plan on a device.
struct Ready<'a> {
    gpu: &'a Gpu,
    graph: &'a Graph,
    /// The leaves that are given their values.
    given: Vec<usize>,
    executable: Executable,
}

impl Ready<'_> {
    /// Gives leaves their values; those in floats NaN where they are to be poisoned.
    fn give(&self, store: &Store, leaves: &[Array<f32>], poisoned: bool) -> Result<()> {
        for &i in &self.given {
            let (leaf, values) = (&self.graph.leaves[i], &leaves[i]);
            let mut bytes = leaf.input.bytes(values);
            // Rates and the like are finite in every step: they would stay in the gaps between bundled variables.
            let rate = leaf.kind == Kind::Input
                && self.graph.updates.iter().any(|update| update.operands.contains(&Operand::Leaf(i)));
            if poisoned && leaf.input.ty.dtype != DType::U32 && !rate {
                bytes.fill(0xff);
            }
            match leaf.kind {
                Kind::Input => self.executable.set_input(self.gpu, &Graph::name(i), &bytes)?,
                _ => store.write_bytes(self.gpu, &Graph::name(i), &bytes)?,
            }
        }
        Ok(())
    }

    /// A run between those of another plan, which finds its variables as it left them. What was prepared is so again where the
    /// leaves are not those of the last time.
    fn in_between(&self, store: &Store, leaves: &[Array<f32>], poisoned: bool, changed: bool) -> Result<()> {
        let held = self.given.iter().filter(|i| self.graph.leaves[**i].kind != Kind::Input).map(|&i| Graph::name(i));
        let held = held.map(|name| Ok((store.read_bytes(self.gpu, &name)?, name))).collect::<Result<Vec<_>>>()?;
        self.give(store, leaves, poisoned)?;
        if changed {
            self.executable.variables_changed();
        }
        self.executable.run(self.gpu);
        held.iter().try_for_each(|(bytes, name)| store.write_bytes(self.gpu, name, bytes))
    }

    fn outputs(&self) -> Result<Vec<Vec<f64>>> {
        let read = |(i, (_, ty)): (usize, &(Tensor, TensorType))| {
            let raw = self.executable.read_output(self.gpu, i)?.into_data();
            let is_float = ty.dtype != DType::U32;
            Ok(raw.iter().map(|&v| if is_float { f64::from(v) } else { f64::from(v.to_bits()) }).collect())
        };
        self.executable.plan().outputs.iter().enumerate().map(read).collect()
    }
}

/// Runs a plan's steps, after all of them with NaN in all float leaves: what is left in memory must not matter. So must not what a
/// second plan does in between, mostly with NaN; nor what the first does to its outputs and to what it has prepared.
fn run(
    gpu: &Gpu,
    graph: &Graph,
    plan: Plan,
    second: Option<&Second>,
    leaves: &[Array<f32>],
    steps: usize,
) -> Result<Results> {
    let mut store = Store::new();
    let all = (0..leaves.len()).collect();
    let first = Ready { gpu, graph, given: all, executable: Executable::new(gpu, plan, &mut store)? };
    let second = match second {
        None => None,
        Some(Second { graph, plan, names }) => {
            let given = (0..leaves.len()).filter(|&leaf| graph.uses(leaf)).collect();
            Some((Ready { gpu, graph, given, executable: Executable::new(gpu, plan.clone(), &mut store)? }, names))
        }
    };
    let between = |poisoned, changed| {
        second.iter().try_for_each(|(second, _)| second.in_between(&store, leaves, poisoned, changed))
    };
    first.give(&store, leaves, true)?;
    let poisoned_steps = if second.is_some() { 3 } else { steps };
    for (poisoned, changed) in [(true, true), (false, true), (false, false)].into_iter().take(poisoned_steps) {
        between(poisoned, changed)?;
        first.executable.run(gpu);
    }
    first.give(&store, leaves, false)?;
    first.executable.variables_changed();
    // A gradient may be a variable, which is back in its place.
    let beside = match &second {
        None => vec![],
        Some((second, names)) => names.iter().cloned().zip(second.outputs()?).collect(),
    };
    for _ in 0..steps {
        between(true, true)?;
        first.executable.run(gpu);
    }
    between(true, true)?;
    gpu.check_guards()?;
    let mut results = Results { outputs: first.outputs()?, leaves: vec![], beside };
    for (i, leaf) in graph.leaves.iter().enumerate() {
        results.leaves.push(match (leaf.kind, leaf.input.ty.dtype) {
            (Kind::Input, _) => vec![],
            (_, DType::U32) => {
                let words: Vec<u32> = bytemuck::pod_collect_to_vec(&store.read_bytes(gpu, &Graph::name(i))?);
                words.into_iter().map(f64::from).collect()
            }
            _ => store.read(gpu, &Graph::name(i))?.into_data().into_iter().map(f64::from).collect(),
        });
    }
    Ok(results)
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agrees(counts) => write!(f, "{} tensors agree", counts.tensors),
            Self::Skipped(skip) => write!(f, "skipped: {skip:?}"),
            Self::Differs(what) => write!(f, "{what}"),
        }
    }
}
