//! Whole models against PyTorch: logits, loss, every gradient, every running statistic and ten steps of Adam, stored by
//! `tests/goldens/make.py`. Weights and batches are drawn here by the rules at the top of that script.
//!
//! `LESION_GOLDEN_DIR` names another folder of goldens, made with another seed.

mod common;
#[path = "goldens/explain.rs"]
mod explain;
#[path = "goldens/fine_tune.rs"]
mod fine_tune;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use lesion_gpu::autograd::{Executable, Plan, Store, Tape, Tensor};
use lesion_gpu::gpu::Gpu;
use lesion_gpu::models::{Model, Task};
use lesion_gpu::nn::{Mode, Net, Parameter};
use lesion_gpu::ops::adam::AdamConfig;
use lesion_gpu::ops::add::add;
use lesion_gpu::ops::bce_with_logits::bce_with_logits;
use lesion_gpu::ops::dice_loss::{Overlap, dice_loss};
use lesion_gpu::ops::{backward, softmax_cross_entropy::softmax_cross_entropy};
use lesion_gpu::optim::Optimizer;
use lesion_gpu::rng::Stream;
use lesion_gpu::tensor::{HostTensor, TensorType};
use serde::Deserialize;

const LOGITS: f64 = 1e-4;
const LOSS: f64 = 1e-5;
/// Normalised L2 distance of a gradient, and of its norm.
const GRADIENT: f64 = 1e-3;
/// Distance of one element of a gradient, in root mean squares of the gradient.
const GRADIENT_SAMPLE: f64 = 5e-3;
const RUNNING: f64 = 1e-4;
const RUNNING_SAMPLE: f64 = 5e-4;
const LOSSES: f64 = 1e-3;

/// Declares a test for each golden, called as the file is.
macro_rules! goldens {
    ($($test:ident: $stem:literal),* $(,)?) => {
        const STEMS: &[&str] = &[$($stem),*];
        $(#[test] fn $test() { check($stem); })*
    };
}

goldens! {
    simple_cnn: "simple-cnn",
    resnet18: "resnet18",
    resnet18_75x61: "resnet18-75x61",
    resnet34: "resnet34",
    resnet50: "resnet50",
    resnet101: "resnet101",
    resnet152: "resnet152",
    resnet50_se: "resnet50-se",
    seresnet50: "seresnet50",
    inception_resnet_v2: "inception-resnet-v2",
    efficientnet_b0: "efficientnet-b0",
    vit_small_16: "vit-small-16",
    unet_small: "unet-small",
    unet: "unet",
    unet_resnet18: "unet-resnet18",
}

// ---------------------------------------------------------------------------------------------------------------
// Files

#[derive(Deserialize)]
struct Golden {
    model: String,
    seed: u32,
    height: usize,
    width: usize,
    batch: usize,
    classes: usize,
    parameters: usize,
    learning_rate: f32,
    moved: Vec<Moved>,
    eval: Vec<f32>,
    train: Vec<f32>,
    loss: f64,
    losses: Vec<f64>,
    gradients: Vec<Summary>,
    running: Vec<Summary>,
}

impl Golden {
    fn task(&self) -> Task {
        Model::find(&self.model).unwrap().task()
    }
}

/// Elements of a weight that are not as drawn.
#[derive(Deserialize)]
struct Moved {
    name: String,
    indices: Vec<usize>,
    values: Vec<f32>,
}

/// What is stored of a tensor.
#[derive(Deserialize)]
struct Summary {
    name: String,
    shape: Vec<usize>,
    norm: f64,
    projections: Vec<f64>,
    indices: Vec<usize>,
    samples: Vec<f32>,
    /// Zero but for rounding.
    #[serde(default)]
    vanishes: bool,
}

#[derive(Deserialize)]
struct Generator {
    seed: u32,
    streams: Vec<KnownStream>,
}

#[derive(Deserialize)]
struct KnownStream {
    name: String,
    key: [u32; 2],
    at: Vec<u64>,
    words: Vec<[u32; 2]>,
    uniform: Vec<f32>,
}

fn given_folder() -> Option<PathBuf> {
    std::env::var_os("LESION_GOLDEN_DIR").map(PathBuf::from)
}

fn folder() -> PathBuf {
    given_folder().unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens"))
}

fn read<T: for<'a> Deserialize<'a>>(name: &str) -> T {
    let path = folder().join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The stems of the model goldens in the folder.
fn stems() -> BTreeSet<String> {
    let folder = folder();
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let files = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let stems = files.filter_map(|file| file.strip_suffix(".json").map(str::to_owned));
    stems.filter(|stem| read::<serde_json::Value>(&format!("{stem}.json")).get("model").is_some()).collect()
}

#[test]
fn every_golden_has_a_test() {
    let stems = stems();
    assert!(!stems.is_empty(), "there is no golden of a model in {}", folder().display());
    let tested: BTreeSet<String> = STEMS.iter().map(|&s| s.to_owned()).collect();
    let untested: Vec<_> = stems.difference(&tested).collect();
    assert!(untested.is_empty(), "no test reads {untested:?}");
    // Another folder may hold fewer (`make.py --only`); the repository's holds all.
    assert!(given_folder().is_some() || stems == tested, "goldens are missing: there are only {stems:?}");
}

#[test]
fn generator_equals_the_scripts() {
    let known: Generator = read("generator.json");
    assert!(!known.streams.is_empty());
    for stream in known.streams {
        let ours = Stream::named(known.seed, &stream.name);
        assert_eq!(ours.key(), stream.key, "{:?}", stream.name);
        assert!(!stream.at.is_empty() && stream.words.len() == stream.at.len());
        assert_eq!(stream.uniform.len(), stream.at.len());
        for ((&i, &words), &uniform) in stream.at.iter().zip(&stream.words).zip(&stream.uniform) {
            assert_eq!(ours.words([i as u32, (i >> 32) as u32]), words, "{:?} at {i}", stream.name);
            assert_eq!(ours.uniform(i), uniform, "{:?} at {i}", stream.name);
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Weights and batches

/// `value(u)` of the first `count` uniform numbers of a stream, rounded to f32 once.
fn drawn(seed: u32, name: &str, count: usize, value: impl Fn(f64) -> f64) -> Vec<f32> {
    let stream = Stream::named(seed, name);
    (0..count as u64).map(|i| value(f64::from(stream.uniform(i))) as f32).collect()
}

/// A weight of a golden: as drawn, but for the elements that it names.
fn weight(golden: &Golden, parameter: &Parameter) -> HostTensor {
    let mut data = drawn_weight(&golden.model, golden.seed, parameter);
    for moved in golden.moved.iter().filter(|moved| moved.name == parameter.name) {
        for (&i, &value) in moved.indices.iter().zip(&moved.values) {
            data[i] = value;
        }
    }
    HostTensor::new(parameter.file_shape.clone(), data)
}

/// A weight as `make.py` draws it: the table at the top of the script.
fn drawn_weight(model: &str, seed: u32, parameter: &Parameter) -> Vec<f32> {
    let key = parameter.name.as_str();
    let dims = parameter.file_shape.dims();
    let (module, kind) = key.rsplit_once('.').unwrap_or(("", key));
    let own_name = module.rsplit('.').next().unwrap();
    let batch_norm =
        own_name.starts_with("bn") || module.ends_with("downsample.1") || (kind == "weight" && dims.len() == 1);
    let last_of_block = match model {
        "resnet18" | "resnet34" | "unet-resnet18" => key.ends_with(".bn2.weight"),
        "resnet50" | "resnet101" | "resnet152" | "resnet50-se" | "seresnet50" => key.ends_with(".bn3.weight"),
        _ => false,
    };
    let scale = if last_of_block { 0.3 } else { 1.0 };
    let fan_in = dims[1..].iter().product::<usize>() as f64;
    let bound = if dims.len() == 4 { (6.0 / fan_in).sqrt() } else { 1.0 / fan_in.sqrt() };
    drawn(seed, &format!("weights/{key}"), parameter.count(), |u| match (kind, batch_norm) {
        ("running_mean", _) => 0.1 * (2.0 * u - 1.0),
        ("running_var", _) => 0.75 + 0.5 * u,
        ("weight", true) => scale * (1.0 + 0.2 * (2.0 * u - 1.0)),
        ("bias", true) => 0.2 * (2.0 * u - 1.0),
        ("bias", false) => (2.0 * u - 1.0) * 0.1,
        _ => (2.0 * u - 1.0) * bound,
    })
}

// ---------------------------------------------------------------------------------------------------------------
// Distances. What is not a number is infinitely far away.

fn distance(error: f64, scale: f64) -> f64 {
    let d = if error == 0.0 { 0.0 } else { error / scale };
    if d.is_nan() { f64::INFINITY } else { d }
}

fn sum_of_squares(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|v| v * v).sum()
}

/// Normalised L2 distance, or the largest difference relative to the largest element if that is more.
fn apart(ours: &[f32], theirs: &[f32]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let pairs = || ours.iter().zip(theirs).map(|(&a, &b)| f64::from(a) - f64::from(b));
    let of = || theirs.iter().map(|&b| f64::from(b));
    let l2 = distance(sum_of_squares(pairs()).sqrt(), sum_of_squares(of()).sqrt());
    let greatest = |values: &mut dyn Iterator<Item = f64>| values.map(f64::abs).fold(0.0, f64::max);
    l2.max(distance(greatest(&mut pairs()), greatest(&mut of())))
}

fn relative(ours: f64, theirs: f64) -> f64 {
    distance((ours - theirs).abs(), theirs.abs())
}

/// Dot products with the random tensors `projection/<j>/<name>`, of unit variance.
fn projections(seed: u32, name: &str, count: usize, data: &[f32]) -> Vec<f64> {
    let project = |j| {
        let stream = Stream::named(seed, &format!("projection/{j}/{name}"));
        let mut dot = 0.0;
        for (i, &v) in data.iter().enumerate() {
            dot += f64::from(v) * (2.0 * f64::from(stream.uniform(i as u64)) - 1.0);
        }
        dot * 3.0_f64.sqrt()
    };
    (0..count).map(project).collect()
}

/// Estimate of the L2 distance of two tensors from their projections.
fn estimated_distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    (sum_of_squares(a.iter().zip(b).map(|(p, q)| p - q)) / a.len() as f64).sqrt()
}

/// How far a tensor (in the file's layout) is from what is stored of it: by projections and norm, and by samples.
fn from_summary(seed: u32, data: &[f32], theirs: &Summary) -> (f64, f64) {
    assert_eq!(data.len(), theirs.shape.iter().product::<usize>(), "{}", theirs.name);
    assert!(theirs.projections.len() >= 8 && theirs.samples.len() >= 16 && theirs.norm > 0.0, "{}", theirs.name);
    let indices = Stream::named(seed, &format!("sample/{}", theirs.name));
    let ours = projections(seed, &theirs.name, theirs.projections.len(), data);
    let l2 = distance(estimated_distance(&ours, &theirs.projections), theirs.norm);
    let norm = relative(sum_of_squares(data.iter().map(|&v| f64::from(v))).sqrt(), theirs.norm);
    let rms = theirs.norm / (data.len() as f64).sqrt();
    let sample = |(n, (&i, &want)): (usize, (&usize, &f32))| {
        assert_eq!(indices.words([n as u32, 0])[0] as usize % data.len(), i, "{}", theirs.name);
        distance((f64::from(data[i]) - f64::from(want)).abs(), rms)
    };
    let samples = theirs.indices.iter().zip(&theirs.samples).enumerate().map(sample).fold(0.0, f64::max);
    (l2.max(norm), samples)
}

/// The estimate from eight projections is right within a factor of two, so that [`GRADIENT`] means what it says.
#[test]
fn projections_measure_distance() {
    for (seed, count) in [(1, 50), (2, 1000), (3, 100_000)] {
        let a = drawn(seed, "a", count, |u| 2.0 * u - 1.0);
        let noise = drawn(seed, "noise", count, |u| 0.01 * (2.0 * u - 1.0));
        let b: Vec<f32> = a.iter().zip(&noise).map(|(x, e)| x + e).collect();
        let estimate = estimated_distance(&projections(seed, "x", 8, &a), &projections(seed, "x", 8, &b));
        let exact = sum_of_squares(noise.iter().map(|&e| f64::from(e))).sqrt();
        assert!(estimate > 0.5 * exact && estimate < 2.0 * exact, "{count}: {estimate} for {exact}");
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Running

/// A traced model.
struct Traced {
    tape: Tape,
    logits: Tensor,
    parameters: Vec<Parameter>,
}

const IMAGES: &str = "images";
const LABELS: &str = "labels";
const MASKS: &str = "masks";
const RATE: &str = "learning rate";

fn trace(golden: &Golden, mode: Mode) -> Traced {
    let mut tape = Tape::new();
    let images = tape.input(IMAGES, TensorType::f32([golden.batch, golden.height, golden.width, 3]));
    let mut net = Net::new(&mut tape, mode, golden.seed).without_dropout();
    let logits = Model::find(&golden.model).unwrap().forward(&mut net, images, golden.classes).unwrap();
    let parameters = net.into_parameters();
    Traced { tape, logits, parameters }
}

/// The mean cross-entropy of the traced logits; of masks binary cross-entropy plus soft Dice.
fn loss(golden: &Golden, traced: &mut Traced) -> Tensor {
    if golden.task() == Task::Segment {
        let (tape, logits) = (&mut traced.tape, traced.logits);
        let masks = tape.input(MASKS, TensorType::f32([golden.batch, golden.height, golden.width, 1]));
        let bce = bce_with_logits(tape, logits, masks).unwrap();
        let dice = dice_loss(tape, logits, masks, None, Overlap::default()).unwrap();
        return add(tape, bce, dice).unwrap();
    }
    let labels = traced.tape.input(LABELS, TensorType::u32([golden.batch]));
    softmax_cross_entropy(&mut traced.tape, traced.logits, labels, None, 0.0).unwrap()
}

struct Session<'a> {
    gpu: &'a Gpu,
    golden: &'a Golden,
    store: Store,
}

impl Session<'_> {
    fn build(&mut self, tape: &Tape, outputs: &[Tensor]) -> Executable {
        let plan = Plan::new(tape, outputs, self.gpu.caps()).unwrap();
        Executable::new(self.gpu, plan, &mut self.store).unwrap()
    }

    fn load(&self, weights: &[(&Parameter, HostTensor)]) {
        for (parameter, value) in weights {
            self.store.write(self.gpu, &parameter.name, value).unwrap();
        }
    }

    /// Uploads batch number `b`.
    fn feed(&self, executable: &Executable, b: usize, with_labels: bool) {
        let Golden { seed, height, width, batch, classes, .. } = *self.golden;
        let images = drawn(seed, &format!("batch/{b}/images"), batch * height * width * 3, |u| 2.0 * u - 1.0);
        executable.set_input(self.gpu, IMAGES, bytemuck::cast_slice(&images)).unwrap();
        if with_labels && self.golden.task() == Task::Segment {
            let inside = |u: f64| if u < 0.4 { 1.0 } else { 0.0 };
            let masks = drawn(seed, &format!("batch/{b}/masks"), batch * height * width, inside);
            executable.set_input(self.gpu, MASKS, bytemuck::cast_slice(&masks)).unwrap();
        } else if with_labels {
            let stream = Stream::named(seed, &format!("batch/{b}/labels"));
            let labels: Vec<u32> = (0..batch as u32).map(|n| stream.words([n, 0])[0] % classes as u32).collect();
            executable.set_input(self.gpu, LABELS, bytemuck::cast_slice(&labels)).unwrap();
        }
    }

    fn output(&self, executable: &Executable, i: usize) -> HostTensor {
        executable.read_output(self.gpu, i).unwrap()
    }
}

/// The largest of some distances, with what it belongs to, and what exceeds its limit.
struct Worst {
    what: &'static str,
    limit: f64,
    error: f64,
    name: String,
}

impl Worst {
    fn new(what: &'static str, limit: f64) -> Self {
        Self { what, limit, error: 0.0, name: String::new() }
    }

    fn add(&mut self, failures: &mut Vec<String>, name: &str, error: f64) {
        if error.is_nan() || error > self.limit {
            failures.push(format!("{} {name}: {error:.2e} > {:.0e}", self.what, self.limit));
        }
        if error.is_nan() || error >= self.error {
            (self.error, self.name) = (error, name.to_owned());
        }
    }

    fn row(&self) -> String {
        let row = format!("    {:<16} {:8.1e}  of {:.0e}  {}", self.what, self.error, self.limit, self.name);
        format!("{}\n", row.trim_end())
    }
}

/// The model has exactly PyTorch's parameters and running statistics, by name and shape.
fn check_parameters(stem: &str, golden: &Golden, parameters: &[Parameter]) {
    let ours = |trainable| -> BTreeMap<&str, &[usize]> {
        let some = parameters.iter().filter(|p| p.trainable == trainable);
        some.map(|p| (p.name.as_str(), p.file_shape.dims())).collect()
    };
    let theirs = |of: &'static str, summaries: &[Summary]| -> BTreeMap<String, Vec<usize>> {
        let map: BTreeMap<_, _> = summaries.iter().map(|s| (s.name.clone(), s.shape.clone())).collect();
        assert_eq!(map.len(), summaries.len(), "{stem}: {of} listed twice");
        map
    };
    let same = |ours: BTreeMap<&str, &[usize]>, theirs: BTreeMap<String, Vec<usize>>| {
        let ours: BTreeMap<String, Vec<usize>> = ours.into_iter().map(|(k, v)| (k.to_owned(), v.to_vec())).collect();
        assert_eq!(ours, theirs, "{stem}");
    };
    same(ours(true), theirs("gradients", &golden.gradients));
    same(ours(false), theirs("running statistics", &golden.running));
    let count: usize = parameters.iter().filter(|p| p.trainable).map(Parameter::count).sum();
    assert_eq!(count, golden.parameters, "{stem}");
    for moved in &golden.moved {
        assert!(parameters.iter().any(|p| p.name == moved.name), "{stem}: {}", moved.name);
        assert_eq!(moved.indices.len(), moved.values.len(), "{stem}: {}", moved.name);
    }
}

fn check(stem: &str) {
    let file = format!("{stem}.json");
    if given_folder().is_some() && !folder().join(&file).exists() {
        eprintln!("skipped: there is no {file} in the given folder");
        return;
    }
    let golden: Golden = read(&file);
    let mut traced = trace(&golden, Mode::Train);
    check_parameters(stem, &golden, &traced.parameters);
    let Some(gpu) = common::gpu() else { return };
    let mut session = Session { gpu: &gpu, golden: &golden, store: Store::new() };
    let parameters = traced.parameters.clone();
    let weights: Vec<(&Parameter, HostTensor)> =
        parameters.iter().map(|p| (p, p.to_device(&weight(&golden, p)))).collect();
    let mut failures = vec![];

    let mut eval = Worst::new("eval logits", LOGITS);
    {
        let traced = trace(&golden, Mode::Eval);
        assert_eq!(traced.parameters, parameters, "{stem}: training and evaluation declare different parameters");
        let executable = session.build(&traced.tape, &[traced.logits]);
        session.load(&weights);
        session.feed(&executable, 0, false);
        executable.run(&gpu);
        eval.add(&mut failures, "", apart(session.output(&executable, 0).data(), &golden.eval));
    }

    let mut train = Worst::new("train logits", LOGITS);
    let mut first = Worst::new("loss", LOSS);
    let mut gradient = Worst::new("gradients", GRADIENT);
    let mut gradient_sample = Worst::new("gradient samples", GRADIENT_SAMPLE);
    let mut running = Worst::new("running", RUNNING);
    let mut running_sample = Worst::new("running samples", RUNNING_SAMPLE);
    {
        let loss = loss(&golden, &mut traced);
        let gradients = backward(&mut traced.tape, loss).unwrap();
        let mut outputs = vec![traced.logits, loss];
        let trainable: Vec<(String, Tensor)> = traced.tape.trainable();
        outputs.extend(
            trainable
                .iter()
                .map(|(name, t)| gradients.get(*t).unwrap_or_else(|| panic!("{stem}: no gradient reaches {name}"))),
        );
        let executable = session.build(&traced.tape, &outputs);
        session.load(&weights);
        session.feed(&executable, 0, true);
        executable.run(&gpu);
        train.add(&mut failures, "", apart(session.output(&executable, 0).data(), &golden.train));
        let loss = f64::from(session.output(&executable, 1).data()[0]);
        first.add(&mut failures, &format!("{loss:.4}"), relative(loss, golden.loss));
        let place: BTreeMap<&str, usize> =
            trainable.iter().enumerate().map(|(i, (n, _))| (n.as_str(), i + 2)).collect();
        let parameter = |name: &str| parameters.iter().find(|p| p.name == name).unwrap();
        let largest = golden.gradients.iter().map(|g| g.norm).fold(0.0, f64::max);
        for want in &golden.gradients {
            let device = session.output(&executable, place[want.name.as_str()]);
            if want.vanishes {
                let norm = sum_of_squares(device.data().iter().map(|&v| f64::from(v))).sqrt();
                gradient.add(&mut failures, &want.name, norm / largest);
                continue;
            }
            let (l2, samples) = from_summary(golden.seed, parameter(&want.name).to_file(&device).data(), want);
            gradient.add(&mut failures, &want.name, l2);
            gradient_sample.add(&mut failures, &want.name, samples);
        }
        for want in &golden.running {
            let device = session.store.read(&gpu, &want.name).unwrap();
            let (l2, samples) = from_summary(golden.seed, parameter(&want.name).to_file(&device).data(), want);
            running.add(&mut failures, &want.name, l2);
            running_sample.add(&mut failures, &want.name, samples);
        }
    }

    let mut losses = Worst::new("ten Adam losses", LOSSES);
    {
        let mut traced = trace(&golden, Mode::Train);
        let loss = loss(&golden, &mut traced);
        let gradients = backward(&mut traced.tape, loss).unwrap();
        let rate = traced.tape.input(RATE, TensorType::f32([1]));
        let adam = AdamConfig { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, decoupled: false };
        Optimizer::Adam(adam).append(&mut traced.tape, &gradients, rate, None).unwrap();
        // Here the updates are bundled: their variables lie side by side, and not one by one as so far.
        session.store = Store::new();
        let executable = session.build(&traced.tape, &[loss]);
        session.load(&weights);
        executable.set_input(&gpu, RATE, bytemuck::bytes_of(&golden.learning_rate)).unwrap();
        assert_eq!(golden.losses.len(), 10, "{stem}");
        for (step, &want) in golden.losses.iter().enumerate() {
            session.feed(&executable, step, true);
            executable.run(&gpu);
            let loss = f64::from(session.output(&executable, 0).data()[0]);
            losses.add(&mut failures, &format!("step {}: {loss:.4}", step + 1), relative(loss, want));
        }
    }
    let rows = [&eval, &train, &first, &gradient, &gradient_sample, &running, &running_sample, &losses];
    eprintln!("{stem}, seed {}:\n{}", golden.seed, rows.map(Worst::row).concat());
    assert!(failures.is_empty(), "{stem}: {} failures:\n{}", failures.len(), failures.join("\n"));
}
