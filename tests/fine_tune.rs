//! Fine-tuning: what is frozen stays to the last bit and all else moves, nothing is computed for what is frozen, groups and
//! averages are those of the formulas, and phases and cached features change nothing that they should not.

mod common;

use std::path::Path;
use std::time::Duration;

use lesion_gpu::Kind;
use lesion_gpu::autograd::{Executable, Plan, Store, Tape};
use lesion_gpu::data::Batch;
use lesion_gpu::gpu::{Caps, Gpu};
use lesion_gpu::models::Model;
use lesion_gpu::nn::Parameter;
use lesion_gpu::ops::adam::AdamConfig;
use lesion_gpu::ops::{backward, larger, mul, sum};
use lesion_gpu::optim::{Group, Optimizer, average_of};
use lesion_gpu::rng::Stream;
use lesion_gpu::tensor::{HostTensor, TensorType};
use lesion_gpu::train::{
    AugmentConfig, BatchNormMode, Checkpoint, Event, FineTune, Interrupt, Network, OptimizerKind, Pattern, Precision,
    RunOptions, TrainConfig, TrainGraph, TrainSession, run,
};

const SIZE: usize = 32;
const CLASSES: usize = 7;

fn images(range: std::ops::Range<u32>) -> Batch {
    let stream = Stream::new(8, 9);
    let pixels = (SIZE * SIZE) as u32;
    Batch {
        pixels: (range.start * pixels..range.end * pixels).map(|i| stream.words([i, 0])[0]).collect(),
        labels: range.clone().map(|i| i * i % CLASSES as u32).collect(),
        samples: range.clone().collect(),
        keys: range.clone().collect(),
        valid: range.len(),
    }
}

fn config(model: &str, fine_tune: FineTune) -> TrainConfig {
    TrainConfig {
        model: model.into(),
        size: SIZE.into(),
        batch: 4,
        optimizer: OptimizerKind::AdamW,
        fine_tune,
        ..TrainConfig::default()
    }
}

fn training(train: &str) -> FineTune {
    FineTune { train: train.parse().unwrap(), ..FineTune::default() }
}

struct Session {
    session: TrainSession,
    store: Store,
    parameters: Vec<Parameter>,
}

impl Session {
    fn new(gpu: &Gpu, config: &TrainConfig) -> Self {
        config.validate().unwrap();
        let model = Model::find(&config.model).unwrap();
        let graph = TrainGraph::new(model, config, config.images_at_once(), CLASSES, gpu.caps()).unwrap();
        let parameters = graph.parameters.clone();
        let mut store = Store::new();
        let session = TrainSession::new(gpu, graph, &[1.0; CLASSES], &mut store).unwrap();
        for p in &parameters {
            let initial = p.to_device(&p.initial(5));
            store.write(gpu, &p.name, &initial).unwrap();
            if config.fine_tune.ema.is_some() && !p.frozen {
                store.write(gpu, &average_of(&p.name), &initial).unwrap();
            }
        }
        Self { session, store, parameters }
    }

    fn steps(&mut self, gpu: &Gpu, steps: std::ops::Range<u32>, batch: u32) {
        for step in steps {
            self.session.step(gpu, &images(batch * step..batch * (step + 1)), step.into(), 0, 1e-2).unwrap();
        }
        while self.session.collect(gpu).unwrap().is_some() {}
    }

    fn bytes(&self, gpu: &Gpu) -> Vec<Vec<u8>> {
        self.parameters.iter().map(|p| self.store.read_bytes(gpu, &p.name).unwrap()).collect()
    }
}

/// Trains some steps; what is frozen must have kept every bit, and all else must have moved. Returns the numbers of both.
fn check_frozen(gpu: &Gpu, config: &TrainConfig) -> (usize, usize) {
    let mut session = Session::new(gpu, config);
    let before = session.bytes(gpu);
    session.steps(gpu, 0..3, config.batch as u32);
    let after = session.bytes(gpu);
    for ((before, after), p) in before.iter().zip(&after).zip(&session.parameters) {
        assert_eq!(before == after, p.frozen, "{} ({:?})", p.name, config.fine_tune);
    }
    let state = |name: &str| session.store.types().any(|(n, _)| n == format!("optimizer.m.{name}"));
    session.parameters.iter().for_each(|p| assert_eq!(state(&p.name), p.is_trained(), "{}", p.name));
    let frozen = session.parameters.iter().filter(|p| p.frozen).count();
    (frozen, session.parameters.len() - frozen)
}

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Every way of freezing, with the number of tensors that stay. ResNet-18 has 20 convolutions, 20 batch-norms of four tensors
/// each, and two tensors in its classifier; the small network has five layers of two.
fn ways_of_freezing() -> Vec<(&'static str, FineTune, usize)> {
    let all = 20 + 80 + 2;
    vec![
        ("simple-cnn", training("all"), 0),
        ("simple-cnn", training("head"), 6),
        ("simple-cnn", training("last:1"), 4),
        ("simple-cnn", FineTune { freeze_first: 2, ..FineTune::default() }, 4),
        ("resnet18", training("all"), 0),
        ("resnet18", training("head"), 100),
        // The last batch-norm, convolution and batch-norm: nine tensors, and the head's two.
        ("resnet18", training("last:3"), all - 9 - 2),
        ("resnet18", training("stage:layer4.."), all - 5 * 5 - 2),
        (
            "resnet18",
            FineTune { freeze: patterns(&["layer1", "*.downsample.0", "fc.bias"]), ..FineTune::default() },
            4 * 5 + 3 + 1,
        ),
        ("resnet18", FineTune { freeze_first: 3, ..FineTune::default() }, 1 + 4 + 1),
        // Statistics move in frozen layers too.
        ("resnet18", FineTune { batch_norm: BatchNormMode::Train, ..training("head") }, 20 + 40),
        ("resnet18", FineTune { batch_norm: BatchNormMode::Frozen, ..FineTune::default() }, 80),
    ]
}

#[test]
fn every_way_of_freezing_freezes_what_it_says() {
    for (model, fine_tune, frozen) in ways_of_freezing() {
        let network = Network::of(Model::find(model).unwrap(), &config(model, fine_tune.clone()), CLASSES).unwrap();
        assert_eq!(network.parameters.iter().filter(|p| p.frozen).count(), frozen, "{model} {fine_tune:?}");
    }
}

#[test]
fn what_is_frozen_keeps_every_bit_and_all_else_moves() {
    let Some(gpu) = common::gpu() else { return };
    // Of the large network those that differ in what batch-norm does.
    let large = [7, 8, 10, 11];
    for (i, (model, fine_tune, frozen)) in ways_of_freezing().into_iter().enumerate() {
        if model == "simple-cnn" || large.contains(&i) {
            assert_eq!(check_frozen(&gpu, &config(model, fine_tune.clone())).0, frozen, "{model} {fine_tune:?}");
        }
    }
}

/// Parts of batches, averages and 16-bit floats go together with freezing.
#[test]
fn freezing_goes_with_everything_else() {
    let Some(gpu) = common::gpu() else { return };
    let mut precisions = vec![Precision::F32];
    if gpu.caps().f16 {
        precisions.push(Precision::Mixed);
    }
    for precision in precisions {
        let fine_tune = FineTune { ema: Some(0.9), ..training("stage:conv3..") };
        let config = TrainConfig { precision, batch: 8, micro_batch: Some(4), ..config("simple-cnn", fine_tune) };
        assert_eq!(check_frozen(&gpu, &config), (4, 6), "{precision:?}");
    }
}

#[test]
fn nothing_is_computed_below_the_lowest_trained_layer() {
    let caps = Caps::baseline();
    let graph = |train: &str| {
        let config = config("resnet18", training(train));
        TrainGraph::new(Model::find("resnet18").unwrap(), &config, 4, CLASSES, &caps).unwrap()
    };
    let gradients = |graph: &TrainGraph| -> Vec<String> {
        let of = graph.plan.dispatches.iter().filter(|d| d.op.contains("grad"));
        of.map(|d| format!("{} {}", d.scope, d.op)).collect()
    };
    let (all, last, head) = (graph("all"), graph("stage:layer4.."), graph("head"));
    assert!(gradients(&all).iter().any(|g| g.starts_with("conv1 conv2d.grad_weight")), "{:?}", gradients(&all));
    for gradient in gradients(&last) {
        assert!(
            gradient.starts_with("layer4.") || gradient.starts_with("fc ") || gradient.starts_with(' '),
            "{gradient}"
        );
        for first in ["layer4.0.conv1", "layer4.0.downsample.0"] {
            assert!(gradient != format!("{first} conv2d.grad_input"), "{gradient}");
        }
    }
    for gradient in gradients(&head) {
        assert!(gradient.starts_with("fc ") || gradient.starts_with(' '), "{gradient}");
        assert!(!gradient.contains("grad_input"), "{gradient}");
    }
    // A frozen backbone has its batch-norm folded into its convolutions, once.
    let norms = |graph: &TrainGraph| graph.plan.dispatches.iter().filter(|d| d.op.contains("batch_norm")).count();
    assert!(norms(&all) > 0 && norms(&head) == 0 && !head.plan.preparation.is_empty());
    // And what is not trained has no optimizer state.
    let [all, last, head] = [&all, &last, &head].map(|graph| graph.plan.memory);
    assert!(all.variables > last.variables && last.variables > head.variables, "{all:?} {last:?} {head:?}");
    assert!(head.variables < all.variables * 2 / 5 && head.total() < all.total() * 2 / 3, "{all:?} {head:?}");
}

/// AdamW by its formula, in f64 (Loshchilov and Hutter, 2019, algorithm 2).
fn adamw(weights: &mut [f64], gradient: impl Fn(f64, usize) -> f64, steps: usize, rate: f64, decay: f64) {
    for (i, w) in weights.iter_mut().enumerate() {
        let (mut m, mut v) = (0.0, 0.0);
        for step in 1..=steps {
            let g = gradient(*w, i);
            *w -= rate * decay * *w;
            m = 0.9 * m + 0.1 * g;
            v = 0.999 * v + 0.001 * g * g;
            let (m, v) = (m / (1.0 - 0.9_f64.powi(step as i32)), v / (1.0 - 0.999_f64.powi(step as i32)));
            *w -= rate * m / (v.sqrt() + 1e-8);
        }
    }
}

#[test]
fn groups_have_their_own_rates_and_decays() {
    let Some(gpu) = common::gpu() else { return };
    const N: usize = 12;
    let groups = [("a", 1.0, 0.1), ("b", 0.25, 0.1), ("c", 0.25, 0.0), ("d", 0.0, 0.1)];
    // The loss is the sum of squares, so a gradient is twice the weight.
    let mut tape = Tape::new();
    let mut losses = vec![];
    for (name, ..) in groups {
        let w = tape.variable(name, TensorType::f32([N]), true).unwrap();
        let squares = mul::mul(&mut tape, w, w).unwrap();
        losses.push(sum::sum(&mut tape, squares).unwrap());
    }
    let loss = losses.into_iter().reduce(|a, b| lesion_gpu::ops::add::add(&mut tape, a, b).unwrap()).unwrap();
    let gradients = backward(&mut tape, loss).unwrap();
    let lr = tape.input("lr", TensorType::f32([1]));
    let adam = AdamConfig { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.5, decoupled: true };
    let group = |name: &str| {
        let (_, rate, weight_decay) = groups.into_iter().find(|(n, ..)| *n == name).unwrap();
        Group { rate, weight_decay }
    };
    Optimizer::Adam(adam).append_in_groups(&mut tape, &gradients, lr, None, None, &group).unwrap();
    let plan = Plan::new(&tape, &[loss], gpu.caps()).unwrap();
    let mut store = Store::new();
    let executable = Executable::new(&gpu, plan, &mut store).unwrap();
    let start: Vec<f32> = (0..N).map(|i| 0.3 + 0.1 * i as f32).collect();
    for (name, ..) in groups {
        store.write(&gpu, name, &HostTensor::new([N], start.clone())).unwrap();
    }
    executable.set_input(&gpu, "lr", &0.05_f32.to_le_bytes()).unwrap();
    (0..5).for_each(|_| executable.run(&gpu));
    for (name, rate, decay) in groups {
        let mut want: Vec<f64> = start.iter().map(|&w| w.into()).collect();
        adamw(&mut want, |w, _| 2.0 * w, 5, 0.05 * f64::from(rate), decay.into());
        let got = store.read(&gpu, name).unwrap();
        for (got, want) in got.data().iter().zip(&want) {
            assert!((f64::from(*got) - want).abs() < 2e-6, "{name}: {got} {want}");
        }
    }
}

#[test]
fn averages_follow_the_weights_after_every_step() {
    let Some(gpu) = common::gpu() else { return };
    let decay = 0.75;
    let mut session =
        Session::new(&gpu, &config("resnet18", FineTune { ema: Some(decay), ..training("stage:layer4..") }));
    let read = |session: &Session, name: &str| session.store.read(&gpu, name).unwrap().into_data();
    let moving: Vec<String> = session.parameters.iter().filter(|p| !p.frozen).map(|p| p.name.clone()).collect();
    let mut want: Vec<Vec<f64>> =
        moving.iter().map(|name| read(&session, name).iter().map(|&v| v.into()).collect()).collect();
    for step in 0..4 {
        session.steps(&gpu, step..step + 1, 4);
        for (want, name) in want.iter_mut().zip(&moving) {
            let now = read(&session, name);
            want.iter_mut().zip(now).for_each(|(a, v)| *a = decay * *a + (1.0 - decay) * f64::from(v));
        }
    }
    for (want, name) in want.iter().zip(&moving) {
        let (got, raw) = (read(&session, &average_of(name)), read(&session, name));
        let scale = want.iter().fold(1e-3_f64, |m, v| m.max(v.abs()));
        assert!(got.iter().zip(want).all(|(g, w)| (f64::from(*g) - w).abs() <= 1e-6 * scale), "{name}");
        assert!(got != raw, "{name} does not lag behind");
    }
    let frozen = session.parameters.iter().find(|p| p.frozen).unwrap();
    assert!(session.store.types().all(|(name, _)| name != average_of(&frozen.name)));
}

#[test]
fn what_makes_no_sense_is_refused_with_what_there_is() {
    let refused = |fine_tune: FineTune| {
        let config = config("resnet18", fine_tune);
        let e = Network::of(Model::find("resnet18").unwrap(), &config, CLASSES).unwrap_err();
        assert_eq!(e.kind(), Kind::Usage, "{e}");
        e.to_string()
    };
    assert!(refused(training("stage:layer5..")).contains("stem, layer1, layer2, layer3, layer4"));
    assert!(refused(training("last:41")).contains("40 layers"));
    assert!(refused(FineTune { freeze_first: 41, ..FineTune::default() }).contains("40 layers"));
    let message = refused(FineTune { freeze: patterns(&["layer7"]), ..FineTune::default() });
    assert!(message.contains("conv1, bn1, layer1-layer4, fc"), "{message}");
    assert!(refused(FineTune { rates: vec!["conv9=1".parse().unwrap()], ..FineTune::default() }).contains("conv9"));
    assert!(refused(FineTune { freeze: patterns(&["*"]), ..FineTune::default() }).contains("nothing to train"));
}

/// A run of the library in `dir/name`, stopped after `stop` steps if given. Returns the notes and lines it gave.
fn train(
    gpu: &Gpu,
    dir: &Path,
    name: &str,
    config: &TrainConfig,
    options: RunOptions,
    stop: Option<usize>,
) -> Vec<String> {
    let options = RunOptions { run: Some(dir.join(name)), no_cache: true, workers: 1, ..options };
    let (interrupt, mut seen, mut said) = (Interrupt::default(), 0, vec![]);
    let result = run(gpu, config, &options, &interrupt, &mut |event| match event {
        Event::Step { .. } => {
            seen += 1;
            if Some(seen) == stop {
                interrupt.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        }
        Event::Note(note) => said.push(note),
        Event::Ready { trained, .. } | Event::Phase { trained, .. } => said.push(trained),
        _ => {}
    });
    match stop {
        None => drop(result.unwrap()),
        Some(_) => assert_eq!(result.unwrap_err().kind(), Kind::Interrupted),
    }
    said
}

fn small_run() -> TrainConfig {
    TrainConfig {
        data: "synthetic:60".into(),
        batch: 8,
        augment: AugmentConfig::NONE,
        ..config("simple-cnn", FineTune::default())
    }
}

fn rows(dir: &Path, file: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(dir.join(file)).unwrap();
    text.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

fn last(dir: &Path, name: &str) -> Checkpoint {
    Checkpoint::read(&dir.join(name).join("weights/last.safetensors")).unwrap()
}

#[test]
fn phases_resume_wherever_they_were_interrupted() {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let config = TrainConfig {
        epochs: 3,
        schedule: lesion_gpu::train::ScheduleKind::Cosine,
        phases: ["head:1:1e-3", "last:1:1:1e-3", "all:1:5e-4"].map(|text| text.parse().unwrap()).to_vec(),
        fine_tune: FineTune { ema: Some(0.5), ..FineTune::default() },
        ..small_run()
    };
    let said = train(&gpu, dir, "whole", &config, RunOptions::default(), None).join("\n");
    assert!(said.contains("fc1-fc2 (") && said.contains("frozen: conv1-conv3"), "{said}");
    assert!(said.contains("conv3, fc1-fc2 (") && said.contains("everything"), "{said}");
    assert!(said.contains("computed the features of"), "{said}");
    let steps = rows(dir, "whole/steps.csv");
    let each = steps.len() / 3;
    // Each phase begins with its own rate, and the cosine ends with it.
    let rate = |step: usize| steps[step][2].parse::<f64>().unwrap();
    assert_eq!([rate(0), rate(each), rate(2 * each)], [1e-3, 1e-3, 5e-4]);
    assert!(rate(each - 1) < 5e-4 && rate(3 * each - 1) < 2.5e-4);
    for stop in [2, each, each + 2, 2 * each + 1] {
        let name = format!("stopped-{stop}");
        train(&gpu, dir, &name, &config, RunOptions::default(), Some(stop));
        train(&gpu, dir, &name, &config, RunOptions { resume: true, ..RunOptions::default() }, None);
        assert_eq!(rows(dir, &format!("{name}/steps.csv")), steps, "{stop}");
        let (whole, parts) = (last(dir, "whole"), last(dir, &name));
        assert!(whole.weights == parts.weights && whole.optimizer == parts.optimizer, "{stop}");
    }
    // The averages are what is evaluated; the weights that training goes on with lie beside them.
    let whole = last(dir, "whole");
    assert!(whole.weights["fc2.bias"] != whole.optimizer["optimizer.raw.fc2.bias"]);
}

#[test]
fn a_killed_run_goes_on_from_its_last_checkpoint_with_its_own_choices() {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let config = TrainConfig { epochs: 1, fine_tune: training("head"), ..small_run() };
    // Killed, not stopped: the run ends inside a step, without a chance to write anything.
    let killed_after = |name: &str, steps: usize, checkpoint_every: Duration| {
        let options = RunOptions {
            run: Some(dir.join(name)),
            no_cache: true,
            workers: 1,
            features_each_step: true,
            checkpoint_every,
            ..RunOptions::default()
        };
        let mut seen = 0;
        let run = std::panic::AssertUnwindSafe(|| {
            run(&gpu, &config, &options, &Interrupt::default(), &mut |event| {
                seen += usize::from(matches!(event, Event::Step { .. }));
                assert!(seen < steps, "killed");
            })
        });
        assert!(std::panic::catch_unwind(run).is_err());
    };
    let each_step = RunOptions { features_each_step: true, ..RunOptions::default() };
    train(&gpu, dir, "whole", &config, each_step, None);
    for (name, every, kept) in [("first", Duration::from_secs(600), 0), ("often", Duration::ZERO, 2)] {
        killed_after(name, 3, every);
        assert_eq!(last(dir, name).progress.step, kept, "{name}");
        let said = train(&gpu, dir, name, &config, RunOptions { resume: true, ..RunOptions::default() }, None);
        // It began without cached features, and goes on without.
        assert!(!said.iter().any(|said| said.contains("features")), "{said:?}");
        assert_eq!(rows(dir, &format!("{name}/steps.csv")), rows(dir, "whole/steps.csv"), "{name}");
        let (whole, resumed) = (last(dir, "whole"), last(dir, name));
        assert!(whole.weights == resumed.weights && whole.optimizer == resumed.optimizer, "{name}");
    }
    std::fs::remove_file(dir.join("first/weights/last.safetensors")).unwrap();
    let said = common::fails(dir, 10, &["train", "--resume", "first"]);
    assert!(said.contains("the run is finished, and its last checkpoint is gone"), "{said}");
    for file in ["metrics.json", "weights/best.safetensors"] {
        std::fs::remove_file(dir.join("first").join(file)).unwrap();
    }
    let said = common::fails(dir, 10, &["train", "--resume", "first"]);
    assert!(said.contains("before its first checkpoint"), "{said}");
}

#[test]
fn each_phase_waits_for_its_own_best() {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    // No weight changes in the second phase: its first epoch is its best, and two more end it, though none of them is better
    // than the phase before.
    let config = TrainConfig {
        epochs: 6,
        patience: 2,
        monitor: lesion_gpu::train::Metric::Loss.into(),
        phases: ["all:2:1e-3", "all:4:1e-30"].map(|text| text.parse().unwrap()).to_vec(),
        ..small_run()
    };
    train(&gpu, folder.path(), "run", &config, RunOptions::default(), None);
    assert_eq!(rows(folder.path(), "run/results.csv").len(), 5);
    let (value, epoch) = last(folder.path(), "run").progress.best_of_phase.unwrap();
    assert!(epoch == 3 && value.is_finite(), "{value} {epoch}");
}

#[test]
fn cached_features_give_the_same_training() {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let config = TrainConfig { epochs: 2, lr: 1e-3, ..small_run() };
    let config = TrainConfig { fine_tune: training("head"), ..config };
    let cached = train(&gpu, dir, "cached", &config, RunOptions::default(), None);
    assert!(cached.iter().any(|said| said.starts_with("computed the features of")), "{cached:?}");
    let anew = RunOptions { features_each_step: true, ..RunOptions::default() };
    let anew = train(&gpu, dir, "anew", &config, anew, None);
    assert!(!anew.iter().any(|said| said.contains("features")), "{anew:?}");
    let (a, b) = (rows(dir, "cached/steps.csv"), rows(dir, "anew/steps.csv"));
    assert!(a.len() > 6 && a.len() == b.len());
    for (a, b) in a.iter().zip(&b) {
        let [x, y] = [a, b].map(|row| row[3].parse::<f64>().unwrap());
        assert!((x - y).abs() <= 1e-4 * y, "step {}: {x} {y}", a[0]);
    }
    // Validation, and the scores of the test pictures, too.
    for (a, b) in rows(dir, "cached/results.csv").iter().zip(rows(dir, "anew/results.csv")) {
        let [x, y] = [&a[5], &b[5]].map(|loss| loss.parse::<f64>().unwrap());
        assert!((x - y).abs() <= 1e-3 * y, "{x} {y}");
    }
    let (a, b) = (last(dir, "cached"), last(dir, "anew"));
    assert!(a.weights["conv1.weight"] == b.weights["conv1.weight"]);
    for name in ["fc1.weight", "fc2.weight"] {
        let apart = a.weights[name].data().iter().zip(b.weights[name].data()).map(|(a, b)| f64::from(a - b).abs());
        assert!(apart.fold(0.0, larger) < 1e-3, "{name}");
    }
    // Pictures that change have no features to keep.
    let augmented = TrainConfig { augment: AugmentConfig { hflip: true, ..AugmentConfig::NONE }, ..config };
    let said = train(&gpu, dir, "augmented", &TrainConfig { epochs: 1, ..augmented }, RunOptions::default(), None);
    assert!(said.iter().any(|said| said.contains("--no-augment computes them once")), "{said:?}");
}

#[test]
fn heads_of_any_widths_are_trained_kept_and_used() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let train = |extra: &[&str]| {
        let args = ["train", "--data", "synthetic:60", "--model", "simple-cnn", "--size", "32", "--batch", "8"];
        common::program(dir, &[&args[..], extra].concat())
    };
    let head = ["--head-hidden", "16,8", "--head-dropout", "0.5", "--train", "head", "--epochs", "1", "--run", "run"];
    let output = train(&head);
    let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("train    fc (") && text.contains("frozen: conv1-conv3"),
        "{text}"
    );
    let weights = last(dir, "run").weights;
    assert_eq!(weights["fc.0.weight"].shape().dims(), [16, 512]);
    assert_eq!(weights["fc.6.weight"].shape().dims(), [CLASSES, 8]);
    let eval = common::program(dir, &["eval", "run"]);
    assert!(eval.status.success(), "{}", String::from_utf8_lossy(&eval.stderr));
    let refuses = |code: i32, extra: &[&str], what: &str| {
        let output = train(extra);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && stderr.contains(what), "{extra:?}: {stderr}");
    };
    let refused = |extra: &[&str], what: &str| refuses(2, extra, what);
    // The memory of a head that is trained on kept features is that of all its graphs.
    let wide = ["--no-augment", "--train", "head", "--head-hidden", "4096,4096", "--memory-limit", "20"];
    refuses(5, &wide, "a training step of the head");
    refused(&["--head-hidden", "0"], "at least one value");
    refused(&["--head-dropout", "0.1,0.2,0.3"], "dropout rates");
    refused(&["--train", "tail"], "does not say what to train");
    refused(&["--train", "stage:conv9.."], "conv1, conv2, conv3");
    refused(&["--phase", "head:3"], "TRAIN:EPOCHS:LR");
    refused(&["--phase", "head:3:1e-4", "--epochs", "3"], "--epochs");
    refused(&["--ema", "1"], "--ema");
    refused(&["--freeze", "conv7"], "matches nothing");
    refused(&["--lr-group", "fc1"], "PATTERN=NUMBER");
}
