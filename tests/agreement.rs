//! One training step of every model in f32, compared between drivers. The first writes what it computed to a folder, the others
//! compare theirs with it:
//!
//!     LESION_STEPS_TO=/tmp/steps cargo test --release --test agreement -- --nocapture
//!     LESION_STEPS_FROM=/tmp/steps VK_ICD_FILENAMES=... cargo test --release --test agreement -- --nocapture
//!
//! `LESION_MODELS=vit-small-16,unet` does so with these alone. Without a folder, small models are compared between kernels for a
//! device with subgroups and textures, and those for one without.

mod common;

use std::path::PathBuf;

use lesion_gpu::autograd::Store;
use lesion_gpu::data::Batch;
use lesion_gpu::gpu::{Caps, Gpu, TextureLoads};
use lesion_gpu::models::Model;
use lesion_gpu::optim::STATE_PREFIX;
use lesion_gpu::rng::Stream;
use lesion_gpu::tensor::HostTensor;
use lesion_gpu::train::{AugmentConfig, OptimizerKind, TrainConfig, TrainGraph, TrainSession};
use lesion_gpu::weights::{WeightFile, read_safetensors, write_safetensors};

/// Relative differences that are accepted, in L2.
struct Limits {
    loss: f64,
    /// Of each statistic of a batch-norm: the forward pass alone decides about it.
    statistic: f64,
    /// Of all gradients together.
    gradients: f64,
    /// Of each gradient: one that is zero is off by 1, one with the wrong sign by 2.
    gradient: f64,
}

/// Of another driver, and of other kernels on this one. Kernels add in different orders. Behind a ReLU or a max-pool whose inputs
/// nearly tie, a difference in the last digit sends a gradient another way, and the deeper a network, the more of those it has:
/// what `goldens` compares has no such ties, and is closer.
const OF_DRIVERS: Limits = Limits { loss: 1e-4, statistic: 1e-3, gradients: 6e-2, gradient: 1e-1 };
/// The same, of networks of a hundred layers and more.
const OF_DRIVERS_IF_DEEP: Limits = Limits { loss: 1e-3, statistic: 3e-3, gradients: 2e-1, gradient: 3e-1 };
const OF_KERNELS: Limits = Limits { loss: 1e-5, statistic: 1e-5, gradients: 2e-2, gradient: 1e-1 };

/// The size of a tensor for its relative difference is at least this share of its layer's root mean square. The gradient of a bias
/// in front of a batch-norm is zero but for rounding, which is some millionths of its layer; no other is below a tenth. So is the
/// mean of what a product makes of the results of a batch-norm.
const FLOOR: f64 = 1e-2;

/// What the names of a step's tensors begin with: gradients of parameters, and how far the statistics of batch-norm moved.
const GRADIENT: &str = "gradient of ";
const STATISTIC: &str = "statistic ";
/// Where the file says on which adapter and driver it was made.
const DRIVER: &str = "driver";

/// The loss of a step, the gradients of all parameters, as the velocity of plain gradient descent has them after one step, and the
/// statistics of batch-norm.
fn step(gpu: &Gpu, model: Model, caps: &Caps) -> WeightFile {
    // So large that batch-norm has more than a row a picture, else it multiplies differences.
    let size = model.smallest_size(3).unwrap_or(32).next_multiple_of(32).max(64);
    let config = TrainConfig {
        size: size.into(),
        batch: 4,
        optimizer: OptimizerKind::Sgd,
        momentum: 0.0,
        weight_decay: 0.0,
        augment: AugmentConfig::NONE,
        ..TrainConfig::of(model)
    };
    let (rows, area, outputs) = (config.batch, config.size.area(), model.outputs(7));
    let stream = Stream::named(1, "agreement");
    // Masks in alpha: a half of each picture.
    let mask = |i: u32| if i as usize % area > area / 2 { 0xff00_0000 } else { 0 };
    let pixel = |i: u32| (stream.words([i, 0])[0] & 0x00ff_ffff) | mask(i);
    let pixels = (0..(rows * area) as u32).map(pixel).collect();
    let ids: Vec<u32> = (0..rows as u32).collect();
    let batch =
        Batch { pixels, labels: ids.iter().map(|id| id % 7).collect(), samples: ids.clone(), keys: ids, valid: rows };
    let mut store = Store::new();
    let graph = TrainGraph::new(model, &config, rows, outputs, caps).unwrap();
    let mut session = TrainSession::new(gpu, graph, &[1.0; 7], &mut store).unwrap();
    let parameters = session.parameters().to_vec();
    let before: Vec<HostTensor> = parameters.iter().map(|p| p.to_device(&p.initial(1))).collect();
    parameters.iter().zip(&before).for_each(|(p, value)| store.write(gpu, &p.name, value).unwrap());
    session.step(gpu, &batch, 0, 0, 1.0).unwrap();
    let result = session.collect(gpu).unwrap().unwrap();
    assert!(result.loss.is_finite() && result.fault.is_none(), "{}: {result:?}", model.name());
    let mut file = WeightFile::default();
    file.metadata.insert(DRIVER.into(), format!("{} ({})", gpu.adapter().name, gpu.adapter().driver));
    file.tensors.insert("loss".into(), HostTensor::new([1], vec![result.loss]));
    for (p, before) in parameters.iter().zip(&before) {
        let read = |name: &str| store.read(gpu, name).unwrap();
        let (kind, tensor) = if p.trainable {
            (GRADIENT, read(&format!("{STATE_PREFIX}velocity.{}", p.name)))
        } else {
            let moved = before.data().iter().zip(read(&p.name).data()).map(|(a, b)| b - a).collect();
            (STATISTIC, HostTensor::new(before.shape().clone(), moved))
        };
        file.tensors.insert(format!("{kind}{}", p.name), tensor);
    }
    file
}

/// How far two tensors are apart, in squares.
struct Apart<'a> {
    name: &'a str,
    elements: usize,
    difference: f64,
    size: f64,
}

/// How far those tensors are apart whose names begin with `kind`, without which they are named.
fn apart<'a>(a: &WeightFile, b: &'a WeightFile, kind: &str) -> Vec<Apart<'a>> {
    let of = |(full, b): (&'a String, &'a HostTensor)| {
        let name = full.strip_prefix(kind)?;
        let pairs = || a.tensors[full].data().iter().zip(b.data()).map(|(a, b)| (f64::from(*a), f64::from(*b)));
        let difference = pairs().map(|(a, b)| (a - b).powi(2)).sum();
        let size = pairs().map(|(_, b)| b.powi(2)).sum();
        Some(Apart { name, elements: b.data().len(), difference, size })
    };
    b.tensors.iter().filter_map(of).collect()
}

fn layer_of(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(layer, _)| layer)
}

/// The relative difference of all tensors together.
fn together(all: &[Apart<'_>]) -> f64 {
    (all.iter().map(|t| t.difference).sum::<f64>() / all.iter().map(|t| t.size).sum::<f64>()).sqrt()
}

/// The largest relative difference of a tensor, and which it is; what is no number is larger than all else.
fn worst<'a>(all: &[Apart<'a>]) -> (f64, &'a str) {
    let relative = all.iter().map(|t| {
        let layer = || all.iter().filter(|other| layer_of(other.name) == layer_of(t.name));
        let mean_square = layer().map(|t| t.size).sum::<f64>() / layer().map(|t| t.elements as f64).sum::<f64>();
        let size = t.size.max(FLOOR.powi(2) * mean_square * t.elements as f64);
        ((t.difference / size).sqrt().abs(), t.name)
    });
    relative.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((0.0, "none"))
}

fn check(model: &str, a: &WeightFile, b: &WeightFile, limits: &Limits) -> Option<String> {
    assert!(a.tensors.keys().eq(b.tensors.keys()));
    let [x, y] = [a, b].map(|file| f64::from(file.tensors["loss"].data()[0]));
    let loss = (x - y).abs() / y.abs();
    let (statistics, gradients) = (apart(a, b, STATISTIC), apart(a, b, GRADIENT));
    let ((statistic, moved), (gradient, of)) = (worst(&statistics), worst(&gradients));
    let together = together(&gradients);
    let line = format!(
        "{model}: loss apart by {loss:.1e}, statistics by {statistic:.1e} ({moved}), gradients together by {together:.1e}, \
         each by {gradient:.1e} ({of})"
    );
    println!("{line}");
    // What is no number is not within a bound.
    let within = loss <= limits.loss
        && statistic <= limits.statistic
        && together <= limits.gradients
        && gradient <= limits.gradient;
    (!within).then_some(line)
}

#[test]
fn a_training_step_of_every_model_agrees_between_drivers() {
    let Some(gpu) = common::gpu() else { return };
    println!("{} ({})", gpu.adapter().name, gpu.adapter().driver);
    let folder = |variable: &str| std::env::var_os(variable).map(PathBuf::from);
    let (to, from) = (folder("LESION_STEPS_TO"), folder("LESION_STEPS_FROM"));
    let named = std::env::var("LESION_MODELS").ok();
    let known = |name: &&str| Model::find(name).is_ok();
    let unknown: Vec<&str> = named.iter().flat_map(|list| list.split(',')).filter(|name| !known(name)).collect();
    assert!(unknown.is_empty(), "LESION_MODELS: no models: {unknown:?}");
    let is_named = |model: &Model| named.as_ref().is_none_or(|list| list.split(',').any(|name| name == model.name()));
    let mut wrong = vec![];
    for &model in Model::all().iter().filter(|model| is_named(model)) {
        let small = ["resnet18", "unet-small"].contains(&model.name());
        let name = format!("{}.safetensors", model.name());
        if let Some(from) = &from {
            let theirs = read_safetensors(&from.join(name)).unwrap();
            let ours = step(&gpu, model, gpu.caps());
            assert_ne!(ours.metadata[DRIVER], theirs.metadata[DRIVER], "a driver is compared with itself");
            let deep = ["101", "152", "inception"].iter().any(|mark| model.name().contains(mark));
            let limits = if deep { OF_DRIVERS_IF_DEEP } else { OF_DRIVERS };
            wrong.extend(check(model.name(), &ours, &theirs, &limits));
        } else if let Some(to) = &to {
            std::fs::create_dir_all(to).unwrap();
            write_safetensors(&to.join(name), &step(&gpu, model, gpu.caps())).unwrap();
        } else if small {
            let plain = Caps { subgroups: None, textures: TextureLoads::Slow, ..gpu.caps().clone() };
            if &plain == gpu.caps() {
                println!("skipped: this adapter has neither subgroups nor textures that are worth a copy");
                continue;
            }
            let [ours, theirs] = [gpu.caps(), &plain].map(|caps| step(&gpu, model, caps));
            wrong.extend(check(model.name(), &ours, &theirs, &OF_KERNELS));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
