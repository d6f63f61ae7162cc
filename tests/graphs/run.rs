//! Runs a graph on the device in two ways and compares both with the interpreter, and with each other.

use std::fmt;

use lesion_gpu::Result;
use lesion_gpu::autograd::{Executable, Origin, Plan, PlannedDispatch, Storage, Store, Tape, Tensor};
use lesion_gpu::gpu::{Caps, DeviceClass, Gpu, TextureLoads};
use lesion_gpu::ops::{Array, Draw, larger};
use lesion_gpu::tensor::DType;

use crate::graph::{CLOSING, Graph, Kind, Operand, Step, Traced};
use crate::interpret::{HALF_ROUNDING, Interpreter, Ran, leaf_values, size};

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

/// How a graph is planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    pub kernels: Kernels,
    /// Whether what depends on variables alone is done beforehand.
    pub prepare: bool,
    /// Steps, each beginning with the variables that the one before left behind.
    pub steps: usize,
}

impl Way {
    /// The way of a seed.
    pub fn of(seed: u32) -> Self {
        let mut draw = Draw::new(seed, "way");
        let kernels = draw.of(&[Kernels::Own, Kernels::Own, Kernels::NoSubgroups, Kernels::Tiles, Kernels::Textures]);
        Self { kernels, prepare: draw.one_in(3), steps: draw.between(1, 2) }
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
    /// Whether fused and unfused had to be equal to the bit.
    pub exact: bool,
    /// Largest error as a share of its limit.
    pub worst: f64,
}

/// What the device computes, where the plan keeps it.
struct Results {
    outputs: Vec<Vec<f64>>,
    leaves: Vec<Vec<f64>>,
}

/// Error beyond what the interpreter's noise shows that is accepted, relative to the largest value.
const FLOOR: f64 = 4e-6;
/// How much further than the interpreter with noise a kernel may be from the interpreter without.
const MARGIN: f64 = 10.0;
/// From this limit on a comparison says little.
const LOOSE: f64 = 0.3;

pub fn check(gpu: &Gpu, graph: &Graph, way: Way) -> Outcome {
    match compare(gpu, graph, way) {
        Ok(outcome) => outcome,
        Err(e) => Outcome::Differs(format!("an error: {e}")),
    }
}

fn compare(gpu: &Gpu, graph: &Graph, way: Way) -> Result<Outcome> {
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
        let noisy = [1, 2, 3].map(|seed| interpret(&leaves, Some(seed)));
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
    let Some((leaves, mut want, noisy)) = chosen else { return Ok(Outcome::Skipped(skip)) };
    let want = want.remove(way.steps - 1);
    let noisy = noisy.map(|mut steps| steps.remove(way.steps - 1));
    for (leaf, gradient) in traced.gradients.iter().enumerate() {
        let has = want.gradients[leaf].is_some();
        if gradient.is_some() != has && graph.leaves[leaf].kind == Kind::Trainable {
            return Ok(Outcome::Differs(format!("l{leaf}: the tape has a gradient: {}, it should: {has}", !has)));
        }
    }

    let values = graph.outputs.iter().filter_map(|&value| Some((format!("v{value}"), traced.values[value]?)));
    let gradients = graph.gradients.iter().filter_map(|&leaf| Some((format!("d_l{leaf}"), traced.gradients[leaf]?)));
    let inner = graph.inner.iter().zip(&traced.inner);
    let inner = inner.filter_map(|(value, gradient)| Some((format!("d_v{value}"), (*gradient)?)));
    let (names, wanted): (Vec<String>, Vec<Tensor>) = values.chain(gradients).chain(inner).unzip();
    let of = |ran: &Ran, name: &str| -> Option<Array<f64>> {
        let (list, number) = match (name.strip_prefix("d_l"), name.strip_prefix("d_v")) {
            (Some(leaf), _) => (&ran.gradients, leaf),
            (_, Some(value)) => (&ran.of_values, value),
            _ => (&ran.values, name.strip_prefix('v')?),
        };
        list[number.parse::<usize>().ok()?].clone()
    };
    // Every result is an output of the unfused plan, so it has memory of its own.
    let is_made = |t: &Tensor| matches!(traced.tape.origin(*t), Origin::Node { .. });
    let made = traced.tape.tensors().filter(is_made);
    let all: Vec<Tensor> = made.chain(wanted.iter().map(|&t| traced.tape.root(t)).filter(|t| !is_made(t))).collect();
    let fused = way.plan(graph, &traced, &wanted, gpu.caps())?;
    let half = traced.tape.tensors().any(|t| traced.tape.ty(t).is_half());
    let exact = !half && !fused.preparation.iter().chain(&fused.dispatches).any(rounds_otherwise);
    let plain = Plan::unfused(&traced.tape, &all, &way.caps(gpu.caps()))?;
    let fused = run(gpu, graph, &traced.tape, (fused, &wanted), &leaves, way.steps)?;
    let mut plain = run(gpu, graph, &traced.tape, (plain, &all), &leaves, way.steps)?;
    let place = |t: &Tensor| all.iter().position(|a| *a == traced.tape.root(*t));
    let outputs = wanted.iter().map(|t| place(t).map_or(vec![], |at| plain.outputs[at].clone())).collect();
    plain.outputs = outputs;

    let largest =
        want.values.iter().chain(&want.gradients).chain(&want.of_values).flatten().map(size).fold(0.0, larger);
    let mut counts = Counts { exact, ..Counts::default() };
    let mut wrong = vec![];
    for (which, got) in [("fused and planned", &fused), ("operation by operation", &plain)] {
        let outputs = names.iter().zip(&got.outputs).map(|(name, got)| {
            (name.clone(), got, of(&want, name), noisy.iter().map(|ran| of(ran, name)).collect::<Vec<_>>())
        });
        let changed = (0..leaves.len()).filter(|&leaf| graph.leaves[leaf].kind != Kind::Input).map(|leaf| {
            let noisy = noisy.iter().map(|ran| Some(ran.leaves[leaf].clone())).collect::<Vec<_>>();
            (format!("l{leaf} after the step"), &got.leaves[leaf], Some(want.leaves[leaf].clone()), noisy)
        });
        for (name, got, want, noisy) in outputs.chain(changed) {
            let Some(want) = want else { continue };
            let noise = distance(Some(&want), noisy.iter().map(Option::as_ref));
            // Zeros that noise leaves zeros are what cancels, such as the gradient of a norm's mean: to a kernel as far as
            // rounding goes.
            let cancels = noise == 0.0 && size(&want) == 0.0;
            let limit = if cancels { floor * largest } else { MARGIN * noise + floor * size(&want) };
            let error = got.iter().zip(&want.data).fold(0.0, |m: f64, (a, b)| larger(m, (a - b).abs()));
            counts.tensors += 1;
            // What is no number is within no limit, and a limit that is none lets nothing pass.
            let sound = got.len() == want.data.len() && error.is_finite() && limit.is_finite();
            if sound && !cancels && limit > LOOSE * size(&want) && limit > 0.0 {
                counts.loose += 1;
                continue;
            }
            if !sound || error > limit {
                wrong.push(format!(
                    "{which}: {name}: off by {error:.2e}, more than {limit:.2e}; largest {:.2e}",
                    size(&want)
                ));
            }
            counts.worst = if limit > 0.0 { counts.worst.max(error / limit) } else { counts.worst };
        }
    }
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
    ran.values.iter().chain(&ran.gradients).chain(&ran.of_values).flatten().map(size).all(|size| size < 1e4)
}

/// Runs a plan's steps, after all of them with NaN in all float leaves: what is left in memory must not matter.
fn run(
    gpu: &Gpu,
    graph: &Graph,
    tape: &Tape,
    (plan, outputs): (Plan, &[Tensor]),
    leaves: &[Array<f32>],
    steps: usize,
) -> Result<Results> {
    let mut store = Store::new();
    let executable = Executable::new(gpu, plan, &mut store)?;
    for poisoned in [true, false] {
        for (i, (leaf, values)) in graph.leaves.iter().zip(leaves).enumerate() {
            let mut bytes = leaf.input.bytes(values);
            // Rates and the like are finite in every step: they would stay in the gaps between bundled variables.
            let rate = leaf.kind == Kind::Input
                && graph.updates.iter().any(|update| update.operands.contains(&Operand::Leaf(i)));
            if poisoned && leaf.input.ty.dtype != DType::U32 && !rate {
                bytes.fill(0xff);
            }
            match leaf.kind {
                Kind::Input => executable.set_input(gpu, &Graph::name(i), &bytes)?,
                _ => store.write_bytes(gpu, &Graph::name(i), &bytes)?,
            }
        }
        executable.variables_changed();
        (0..steps).for_each(|_| executable.run(gpu));
    }
    gpu.check_guards()?;
    let mut results = Results { outputs: vec![], leaves: vec![] };
    for (i, &t) in outputs.iter().enumerate() {
        let raw = executable.read_output(gpu, i)?.into_data();
        let is_float = tape.ty(t).dtype != DType::U32;
        results
            .outputs
            .push(raw.iter().map(|&v| if is_float { f64::from(v) } else { f64::from(v.to_bits()) }).collect());
    }
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
