//! Ten steps of fine-tuning, part of the network frozen, against PyTorch: `tests/goldens/make_fine_tune.py`.

use std::collections::BTreeMap;

use lesion_gpu::autograd::{Executable, Plan, Store, Tape};
use lesion_gpu::gpu::Gpu;
use lesion_gpu::models::Model;
use lesion_gpu::nn::{Mode, Net, Parameter};
use lesion_gpu::ops::backward;
use lesion_gpu::ops::softmax_cross_entropy::softmax_cross_entropy;
use lesion_gpu::optim::{append_averages, average_of};
use lesion_gpu::rng::Stream;
use lesion_gpu::tensor::{HostTensor, TensorType};
use lesion_gpu::train::{FineTune, OptimizerKind, TrainConfig, frozen};
use serde::Deserialize;

use super::{IMAGES, LABELS, LOSSES, RATE, Summary, Worst, drawn, drawn_weight, folder, from_summary, read, relative};
use crate::common;

const MODEL: &str = "resnet18";
const CLASSES: usize = 7;
/// Distance of what ten steps have moved, relative to that: Adam makes much of gradients that are hardly more than
/// rounding, and PyTorch's own f32 is up to 6e-3 away from its f64.
const MOVES: f64 = 3e-2;

#[derive(Deserialize)]
struct Golden {
    seed: u32,
    height: usize,
    width: usize,
    batch: usize,
    decay: f64,
    recipes: Vec<Recipe>,
}

#[derive(Deserialize)]
struct Recipe {
    name: String,
    train: String,
    lr: f32,
    batch_norm: String,
    rates: Vec<String>,
    ema: Option<f64>,
    losses: Vec<f64>,
    moves: Vec<Summary>,
    averages: Vec<Summary>,
}

#[test]
fn fine_tuning_equals_pytorch() {
    if !folder().join("fine-tune.json").exists() {
        eprintln!("skipped: there is no fine-tune.json in the given folder");
        return;
    }
    let golden: Golden = read("fine-tune.json");
    assert_eq!(golden.recipes.len(), 3);
    let Some(gpu) = common::gpu() else { return };
    let mut failures = vec![];
    for recipe in &golden.recipes {
        check(&gpu, &golden, recipe, &mut failures);
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

fn check(gpu: &Gpu, golden: &Golden, recipe: &Recipe, failures: &mut Vec<String>) {
    let config = TrainConfig {
        optimizer: OptimizerKind::AdamW,
        weight_decay: golden.decay,
        fine_tune: FineTune {
            train: recipe.train.parse().unwrap(),
            batch_norm: recipe.batch_norm.parse().unwrap(),
            rates: recipe.rates.iter().map(|rule| rule.parse().unwrap()).collect(),
            spare_vectors: true,
            ..FineTune::default()
        },
        ..TrainConfig::default()
    };
    let model = Model::find(MODEL).unwrap();
    let all = model.summary(golden.height, CLASSES).unwrap().parameters;
    let still = frozen(model, &all, &config.fine_tune.train, &config.fine_tune).unwrap();

    let mut tape = Tape::new();
    let images = tape.input(IMAGES, TensorType::f32([golden.batch, golden.height, golden.width, 3]));
    let mut net = Net::new(&mut tape, Mode::Train, golden.seed).freezing(still);
    let logits = model.forward(&mut net, images, CLASSES).unwrap();
    let parameters = net.into_parameters();
    let labels = tape.input(LABELS, TensorType::u32([golden.batch]));
    let loss = softmax_cross_entropy(&mut tape, logits, labels, None, 0.0).unwrap();
    let gradients = backward(&mut tape, loss).unwrap();
    let rate = tape.input(RATE, TensorType::f32([1]));
    let optimizer = config.optimizer();
    let vectors: BTreeMap<&str, bool> =
        parameters.iter().map(|p| (p.name.as_str(), p.file_shape.rank() == 1)).collect();
    let group = |name: &str| config.fine_tune.group(&optimizer, name, vectors[name]);
    optimizer.append_in_groups(&mut tape, &gradients, rate, None, None, &group).unwrap();
    let moved: Vec<&Parameter> = parameters.iter().filter(|p| !p.frozen).collect();
    if let Some(decay) = recipe.ema {
        let moved: Vec<&str> = moved.iter().map(|p| p.name.as_str()).collect();
        append_averages(&mut tape, &moved, decay).unwrap();
    }
    let plan = Plan::new(&tape, &[loss], gpu.caps()).unwrap();
    let mut store = Store::new();
    let executable = Executable::new(gpu, plan, &mut store).unwrap();
    let init = |p: &Parameter| HostTensor::new(p.file_shape.clone(), drawn_weight(MODEL, golden.seed, p));
    for p in &parameters {
        store.write(gpu, &p.name, &p.to_device(&init(p))).unwrap();
    }
    if recipe.ema.is_some() {
        moved.iter().for_each(|p| store.write(gpu, &average_of(&p.name), &p.to_device(&init(p))).unwrap());
    }
    executable.set_input(gpu, RATE, bytemuck::bytes_of(&recipe.lr)).unwrap();

    let mut losses = Worst::new("ten losses", LOSSES);
    assert_eq!(recipe.losses.len(), 10);
    for (step, &want) in recipe.losses.iter().enumerate() {
        let count = golden.batch * golden.height * golden.width * 3;
        let pixels = drawn(golden.seed, &format!("batch/{step}/images"), count, |u| 2.0 * u - 1.0);
        executable.set_input(gpu, IMAGES, bytemuck::cast_slice(&pixels)).unwrap();
        let stream = Stream::named(golden.seed, &format!("batch/{step}/labels"));
        let labels: Vec<u32> = (0..golden.batch as u32).map(|n| stream.words([n, 0])[0] % CLASSES as u32).collect();
        executable.set_input(gpu, LABELS, bytemuck::cast_slice(&labels)).unwrap();
        executable.run(gpu);
        let loss = f64::from(executable.read_output(gpu, 0).unwrap().data()[0]);
        losses.add(failures, &format!("step {}: {loss:.4}", step + 1), relative(loss, want));
    }
    let (mut moves, mut averages) = (Worst::new("moves", MOVES), Worst::new("averages", MOVES));
    assert!(!recipe.moves.is_empty() && recipe.averages.is_empty() == recipe.ema.is_none());
    let mut compare = |worst: &mut Worst, want: &Summary, variable: &str| {
        let p = parameters.iter().find(|p| p.name == want.name).unwrap();
        let after = p.to_file(&store.read(gpu, variable).unwrap());
        let before = init(p);
        let change: Vec<f32> = after.data().iter().zip(before.data()).map(|(a, b)| a - b).collect();
        worst.add(failures, &format!("{} {}", recipe.name, want.name), from_summary(golden.seed, &change, want).0);
    };
    recipe.moves.iter().for_each(|want| compare(&mut moves, want, &want.name));
    recipe.averages.iter().for_each(|want| compare(&mut averages, want, &average_of(&want.name)));
    eprintln!("fine-tune {}:\n{}", recipe.name, [&losses, &moves, &averages].map(Worst::row).concat());
}
