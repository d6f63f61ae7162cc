//! Numbers that are not finite: the step is named in which they appear, and the layer, whichever pass it was in; the pictures
//! of that step are written down; and a run that is told to goes back and on with a lower learning rate.

mod common;

use std::path::Path;

use lesion_gpu::gpu::{Feature, Gpu};
use lesion_gpu::tensor::HostTensor;
use lesion_gpu::train::{
    AugmentConfig, Checkpoint, Divergence, Event, Interrupt, OptimizerKind, Precision, RunOptions, TrainConfig, run,
};
use lesion_gpu::weights::{Tensors, WeightFile, write_safetensors};
use lesion_gpu::{Error, Kind};
use serde_json::Value;

fn config(model: &str) -> TrainConfig {
    TrainConfig {
        model: model.into(),
        data: "synthetic:60".into(),
        size: 32.into(),
        batch: 8,
        epochs: 2,
        max_steps: Some(8),
        optimizer: OptimizerKind::Sgd,
        lr: 1e-6,
        augment: AugmentConfig::NONE,
        ..TrainConfig::default()
    }
}

fn options(run: &Path) -> RunOptions {
    RunOptions { run: Some(run.to_owned()), no_cache: true, workers: 2, ..RunOptions::default() }
}

/// A run in the folder; what it said, and how it ended.
fn trained(gpu: &Gpu, config: &TrainConfig, options: &RunOptions) -> (Vec<String>, Result<u64, Error>) {
    let mut notes = vec![];
    let ended = run(gpu, config, options, &Interrupt::default(), &mut |event| {
        if let Event::Note(note) = event {
            notes.push(note);
        }
    });
    (notes, ended.map(|summary| summary.progress.step))
}

/// The weights that a run of the configuration begins with, changed.
fn weights(gpu: &Gpu, folder: &Path, config: &TrainConfig, change: &dyn Fn(&mut Tensors)) -> Option<String> {
    let path = folder.join("first");
    let first = TrainConfig { max_steps: Some(1), weights: None, ..config.clone() };
    trained(gpu, &first, &options(&path)).1.unwrap();
    let mut tensors = Checkpoint::read(&path.join("weights/last.safetensors")).unwrap().weights;
    change(&mut tensors);
    let file = WeightFile { tensors, ..WeightFile::default() };
    let path = folder.join("changed.safetensors");
    write_safetensors(&path, &file).unwrap();
    Some(path.display().to_string())
}

fn scale(tensors: &mut Tensors, name: &str, by: f32) {
    let tensor = &tensors[name];
    let data = tensor.data().iter().map(|v| v * by).collect();
    tensors.insert(name.into(), HostTensor::new(tensor.shape().clone(), data));
}

fn fill(tensors: &mut Tensors, name: &str, value: f32) {
    let shape = tensors[name].shape().clone();
    tensors.insert(name.into(), HostTensor::full(shape, value));
}

fn dump(run: &Path, step: u64) -> Value {
    let path = run.join(format!("diverged-{step}.json"));
    serde_json::from_slice(&std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

/// The ids of the training pictures.
fn training_ids(run: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(run.join("split.csv")).unwrap();
    let rows = text.lines().filter(|line| line.split(',').nth(3) == Some("train"));
    rows.map(|line| line.split(',').next().unwrap().to_owned()).collect()
}

fn micro_batches(config: &TrainConfig) -> [TrainConfig; 2] {
    [config.clone(), TrainConfig { micro_batch: Some(4), ..config.clone() }]
}

#[test]
fn a_loss_that_is_no_number_is_traced_to_the_layer_it_began_in() {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut config = config("resnet18");
    config.weights = weights(&gpu, folder.path(), &config, &|w| scale(w, "layer2.0.conv1.weight", 1e38));
    for (i, config) in micro_batches(&config).into_iter().enumerate() {
        let path = folder.path().join(format!("run-{i}"));
        let (_, ended) = trained(&gpu, &config, &options(&path));
        let error = ended.unwrap_err();
        assert_eq!(error.kind(), Kind::Diverged);
        let text = error.to_string();
        for part in
            ["the loss of step 1 is", "'layer2.0.conv1' (conv2d) of the forward pass", "diverged-1.json", "--lr"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        let dump = dump(&path, 1);
        assert_eq!((&dump["step"], &dump["epoch"], &dump["again"]), (&1.into(), &1.into(), &true.into()));
        assert!(dump["loss"].is_null(), "{}", dump["loss"]);
        assert_eq!((&dump["first"]["pass"], &dump["first"]["layer"]), (&"forward".into(), &"layer2.0.conv1".into()));
        // The pictures of the step, as they are.
        let ids = training_ids(&path);
        let images = dump["images"].as_array().unwrap();
        let mut named: Vec<&str> = images.iter().map(|image| image["image"].as_str().unwrap()).collect();
        assert!(named.iter().all(|id| ids.iter().any(|known| known == id)), "{named:?}");
        named.sort_unstable();
        named.dedup();
        assert_eq!(named.len(), 8);
        for image in images {
            let channels = image["channels"].as_array().unwrap();
            let number = |i: usize| channels[0][i].as_f64().unwrap();
            assert!(channels.len() == 3 && number(0) < number(2) && number(2) < number(1), "{image}");
        }
        // Every weight was fine, and so was everything before the layer.
        let values = dump["values"].as_array().unwrap();
        let bad = |value: &Value| value["not_finite"].as_f64().unwrap() > 0.0;
        let of = |pass: &str| values.iter().filter(|value| value["pass"] == pass).collect::<Vec<_>>();
        assert!(of("weights").len() > 60 && !of("weights").into_iter().any(bad));
        assert!(of("forward").len() > 60 && of("backward").len() > 60 && of("update").len() > 100);
        // Statistics have moved once in the step: from a tenth of the batch's mean to 1.9 of that, not to 2.7.
        if config.micro_batch.is_none() {
            let before = &Checkpoint::read(&folder.path().join("first/weights/last.safetensors")).unwrap().weights;
            let before = before["bn1.running_mean"].data();
            let mean = f64::from(before.iter().map(|v| v.abs()).sum::<f32>()) / before.len() as f64;
            let after = of("update").into_iter().find(|value| value["layer"] == "bn1.running_mean").unwrap();
            let ratio = after["mean_magnitude"].as_f64().unwrap() / mean;
            assert!((1.7..2.1).contains(&ratio), "{ratio}");
        }
        let first = values.iter().position(bad).unwrap();
        assert_eq!(values[first]["layer"], "layer2.0.conv1");
        assert!(values[first - 1]["mean_magnitude"].as_f64().unwrap() > 0.0);
    }
}

/// No BN, so that numbers may grow: the third convolution has inputs of 1e36 and weights of 1e-38, so its result is as usual,
/// but not the gradient of its weights.
fn overflowing(tensors: &mut Tensors) {
    fill(tensors, "conv2.bias", 1e36);
    scale(tensors, "conv3.weight", 1e-36);
    scale(tensors, "fc1.weight", 100.0);
    scale(tensors, "fc2.weight", 1e6);
}

#[test]
fn a_gradient_that_is_no_number_is_noticed_in_its_step() {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut config = config("simple-cnn");
    config.weights = weights(&gpu, folder.path(), &config, &overflowing);
    for optimizer in [OptimizerKind::Sgd, OptimizerKind::AdamW] {
        for (i, config) in micro_batches(&TrainConfig { optimizer, ..config.clone() }).into_iter().enumerate() {
            let path = folder.path().join(format!("{}-{i}", optimizer.name()));
            let (_, ended) = trained(&gpu, &config, &options(&path));
            let text = ended.unwrap_err().to_string();
            for part in ["step 1 makes weights", "'conv3' (conv2d", "of the backward pass"] {
                assert!(text.contains(part), "{part}: {text}");
            }
            // The loss of the step is a number, and so is everything before.
            let steps = std::fs::read_to_string(path.join("steps.csv")).unwrap();
            let loss: f32 = steps.lines().nth(1).unwrap().split(',').nth(3).unwrap().parse().unwrap();
            assert!(loss.is_finite(), "{steps}");
            let dump = dump(&path, 1);
            assert_eq!((&dump["again"], dump["loss"].is_number()), (&true.into(), true));
            let bad = |value: &&Value| value["not_finite"].as_f64().unwrap() > 0.0;
            let values = dump["values"].as_array().unwrap();
            assert!(values.iter().filter(bad).all(|value| value["layer"].as_str().unwrap().contains("conv3")));
            assert!(values.iter().any(|value| bad(&value) && value["pass"] == "update"));
        }
    }
}

/// The step is of the second epoch, behind a checkpoint and some steps.
#[test]
fn a_step_in_the_middle_of_a_run_is_done_again_as_it_was() {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let config = TrainConfig { lr: 2.0, epochs: 30, max_steps: None, ..config("simple-cnn") };
    let (_, ended) = trained(&gpu, &config, &options(&path));
    let error = ended.unwrap_err();
    assert_eq!(error.kind(), Kind::Diverged, "{error}");
    let steps = std::fs::read_to_string(path.join("steps.csv")).unwrap();
    let last = steps.lines().last().unwrap().split(',').next().unwrap().parse::<u64>().unwrap() + 1;
    let dump = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let dumps: Vec<String> = dump.filter(|name| name.starts_with("diverged-")).collect();
    assert_eq!(dumps.len(), 1, "{dumps:?}");
    let step: u64 = dumps[0]["diverged-".len()..].strip_suffix(".json").unwrap().parse().unwrap();
    assert!(step > 1 && (step..step + 3).contains(&last), "step {step}, last {last}");
    let dump = self::dump(&path, step);
    assert_eq!(dump["again"], true, "{dump}");
}

#[test]
fn a_run_goes_back_and_on_with_a_lower_rate_until_it_has_done_so_three_times() {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig { divergence: Divergence::LowerRate, ..config("simple-cnn") };
    // Too fast for any of the four rates.
    let hopeless = folder.path().join("hopeless");
    let (notes, ended) = trained(&gpu, &TrainConfig { lr: 1e30, ..config.clone() }, &options(&hopeless));
    let text = ended.unwrap_err().to_string();
    assert!(text.contains("three times did not help"), "{text}");
    assert_eq!(notes.iter().filter(|note| note.contains("went back to step")).count(), 3, "{notes:#?}");
    // Too fast for the first. When it was stopped, and how often checkpoints were written, makes no difference.
    for lr in [0.4, 0.2] {
        let config = TrainConfig { lr, epochs: 30, max_steps: Some(60), ..config.clone() };
        let path = folder.path().join(format!("slower-{lr}"));
        let (notes, ended) = trained(&gpu, &config, &options(&path));
        assert_eq!(ended.unwrap(), 60, "{notes:#?}");
        assert!(notes.iter().any(|note| note.contains("went back to step")), "{notes:#?}");
        let setbacks = consistent(&path, lr);
        let last = |path: &Path| Checkpoint::read(&path.join("weights/last.safetensors")).unwrap();
        let same = |other: &Path, how: &str| {
            assert_eq!(consistent(other, lr), setbacks, "{how}");
            let (a, b) = (last(&path), last(other));
            assert!(a.weights == b.weights && a.optimizer == b.optimizer, "{how}");
            assert_eq!(a.progress.setbacks, b.progress.setbacks, "{how}");
        };
        let often = folder.path().join(format!("often-{lr}"));
        let every_step = RunOptions { checkpoint_every: std::time::Duration::ZERO, ..options(&often) };
        assert_eq!(trained(&gpu, &config, &every_step).1.unwrap(), 60);
        same(&often, "a checkpoint each step");
        // Just before the trouble, and behind the first setback.
        let trouble = setbacks[0]["step"].as_u64().unwrap();
        for at in [Some(trouble - 1), None] {
            let stopped = folder.path().join(format!("stopped-{lr}-{at:?}"));
            let interrupt = Interrupt::default();
            let mut back = false;
            let ended = run(&gpu, &config, &options(&stopped), &interrupt, &mut |event| match event {
                Event::Note(note) => back |= note.contains("went back to step"),
                Event::Step { step, .. } if at.map_or(back, |at| step == at) => {
                    interrupt.store(true, std::sync::atomic::Ordering::Relaxed);
                }
                _ => {}
            });
            assert_eq!(ended.unwrap_err().kind(), Kind::Interrupted);
            let (_, ended) = trained(&gpu, &config, &RunOptions { resume: true, ..options(&stopped) });
            assert_eq!(ended.unwrap(), 60);
            same(&stopped, &format!("stopped at {at:?}"));
        }
    }
}

/// Checks that the tables of a run hold each step and each epoch once, with the rate they were done with; what the run went
/// back from.
fn consistent(run: &Path, lr: f64) -> Vec<Value> {
    let metrics: Value = serde_json::from_slice(&std::fs::read(run.join("metrics.json")).unwrap()).unwrap();
    let setbacks = metrics["setbacks"].as_array().unwrap();
    assert!(!setbacks.is_empty() && setbacks.len() <= 3, "{metrics}");
    let table = std::fs::read_to_string(run.join("steps.csv")).unwrap();
    let rows: Vec<Vec<f64>> =
        table.lines().skip(1).map(|line| line.split(',').map(|field| field.parse().unwrap()).collect()).collect();
    assert!(rows.iter().enumerate().all(|(i, row)| row[0] == i as f64 && row[3].is_finite()), "{table}");
    // What was done at a rate and not undone keeps it.
    let times = |step: u64| setbacks.iter().rposition(|s| s["back_to"].as_u64() <= Some(step)).map_or(0, |at| at + 1);
    let rate = |step: u64| lr * 0.25_f64.powi(times(step) as i32);
    assert!(rows.iter().all(|row| row[2] == rate(row[0] as u64)), "{table}\n{setbacks:?}");
    let results = std::fs::read_to_string(run.join("results.csv")).unwrap();
    let epochs: Vec<&str> = results.lines().skip(1).map(|line| line.split(',').next().unwrap()).collect();
    assert_eq!(epochs.len(), 12, "{results}");
    assert!(epochs.iter().enumerate().all(|(i, epoch)| *epoch == (i + 1).to_string()), "{results}");
    setbacks.clone()
}

#[test]
fn gradients_that_overflow_at_any_scale_end_the_run() {
    let Some(gpu) = common::gpu() else { return };
    if !gpu.adapter().features.contains(&Feature::F16) {
        println!("skipped: no 16-bit floats");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let config = TrainConfig { precision: Precision::Mixed, epochs: 20, max_steps: Some(90), ..config("simple-cnn") };
    let interrupt = Interrupt::default();
    let ended = run(&gpu, &config, &options(&path), &interrupt, &mut |event| {
        if let Event::Step { step: 3, .. } = event {
            interrupt.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    });
    assert_eq!(ended.unwrap_err().kind(), Kind::Interrupted);
    let file = path.join("weights/last.safetensors");
    let mut checkpoint = Checkpoint::read(&file).unwrap();
    // So large that thirty halvings are not enough.
    fill(&mut checkpoint.optimizer, "optimizer.loss_scale", 1e30);
    checkpoint.write(&file).unwrap();
    let (_, ended) = trained(&gpu, &config, &RunOptions { resume: true, ..options(&path) });
    let text = ended.unwrap_err().to_string();
    assert!(text.contains("the gradients of step 34 and the 30 before overflow in 16 bits"), "{text}");
    assert!(text.contains("of the backward pass") && text.contains("--precision f32"), "{text}");
    assert_eq!(dump(&path, 34)["again"], true);
}

/// Gradients of 1e21 are numbers, but the sum of their squares is none.
#[test]
fn a_norm_that_is_no_number_is_noticed_in_its_step() {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut config = config("simple-cnn");
    config.weights = weights(&gpu, folder.path(), &config, &|w| {
        fill(w, "conv2.bias", 1e21);
        scale(w, "conv3.weight", 1e-21);
    });
    config.clip_norm = Some(1.0);
    let (_, ended) = trained(&gpu, &config, &options(&folder.path().join("run")));
    let text = ended.unwrap_err().to_string();
    assert!(text.contains("step 1 makes weights that are not finite") && !text.contains("--clip-norm"), "{text}");
}

/// The variance of what the first convolution makes is too large for a number. The layer behind it makes zeros of that, and the
/// losses stay numbers.
#[test]
fn statistics_that_are_no_numbers_are_traced_to_their_step() {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut config = config("resnet18");
    config.weights = weights(&gpu, folder.path(), &config, &|w| scale(w, "conv1.weight", 1e19));
    let (_, ended) = trained(&gpu, &config, &options(&folder.path().join("run")));
    let text = ended.unwrap_err().to_string();
    for part in ["statistics of the layers are not finite", "in step 1, it began in the update of 'bn1.running_var'"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(dump(&folder.path().join("run"), 1)["again"], true);
}

#[test]
fn weight_files_with_numbers_that_are_not_finite_are_refused() {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut config = config("resnet18");
    config.weights = weights(&gpu, folder.path(), &config, &|w| {
        fill(w, "layer1.0.bn2.running_var", f32::INFINITY);
    });
    let error = trained(&gpu, &config, &options(&folder.path().join("new"))).1.unwrap_err();
    assert_eq!(error.kind(), Kind::Weights);
    assert!(error.to_string().contains("'layer1.0.bn2.running_var' in the weight file holds inf"), "{error}");
}
