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
use lesion_gpu::rng::Stream;
use lesion_gpu::tensor::HostTensor;
use lesion_gpu::train::{AugmentConfig, OptimizerKind, TrainConfig, TrainGraph, TrainSession};
use lesion_gpu::weights::{WeightFile, read_safetensors, write_safetensors};

/// Relative differences of losses, and in L2 of all gradients together: of another driver, and of other kernels on this one. Kernels
/// add in different orders. Behind a ReLU or a max-pool whose inputs nearly tie, a difference in the last digit sends a gradient
/// another way, and the deeper a network, the more of those it has: what `goldens` compares has no such ties, and is closer.
const OF_DRIVERS: (f64, f64) = (1e-3, 2e-1);
const OF_KERNELS: (f64, f64) = (1e-5, 2e-2);

/// The loss of a step, and the gradients of all parameters: what plain gradient descent at a rate of one takes from them.
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
    file.tensors.insert("loss".into(), HostTensor::new([1], vec![result.loss]));
    for (p, before) in parameters.iter().zip(&before) {
        let after = store.read(gpu, &p.name).unwrap();
        let moved = before.data().iter().zip(after.data()).map(|(a, b)| a - b).collect();
        file.tensors.insert(p.name.clone(), HostTensor::new(before.shape().clone(), moved));
    }
    file
}

/// How far the losses and all that a step changes are apart.
fn apart(a: &WeightFile, b: &WeightFile) -> (f64, f64) {
    assert!(a.tensors.keys().eq(b.tensors.keys()));
    let (mut difference, mut size) = (0.0, 0.0);
    for (name, x) in a.tensors.iter().filter(|(name, _)| *name != "loss") {
        for (x, y) in x.data().iter().zip(b.tensors[name].data()) {
            difference += f64::from(x - y).powi(2);
            size += f64::from(*y).powi(2);
        }
    }
    let [x, y] = [a, b].map(|file| f64::from(file.tensors["loss"].data()[0]));
    ((x - y).abs() / y.abs(), (difference / size).sqrt())
}

fn check(name: &str, a: &WeightFile, b: &WeightFile, limits: (f64, f64)) -> Option<String> {
    let (loss, gradient) = apart(a, b);
    let line = format!("{name}: loss apart by {loss:.1e}, gradients by {gradient:.1e}");
    println!("{line}");
    // What is no number is not within a bound.
    (!(loss <= limits.0 && gradient <= limits.1)).then_some(line)
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
            wrong.extend(check(model.name(), &step(&gpu, model, gpu.caps()), &theirs, OF_DRIVERS));
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
            wrong.extend(check(model.name(), &ours, &theirs, OF_KERNELS));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
