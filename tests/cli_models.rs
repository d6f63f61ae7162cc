//! The commands around weight files as a user runs them: `models`, `convert`, `export`, `train --pretrained`. What is
//! published comes from a server on the loopback.

mod common;
#[path = "common/server.rs"]
mod server;

use std::path::{Path, PathBuf};

use common::{program, program_with};
use lesion_gpu::models::Model;
use lesion_gpu::tensor::HostTensor;
use lesion_gpu::train::{Checkpoint, LossKind, Progress, TrainConfig};
use lesion_gpu::weights::{self, Tensors, WeightFile, write_safetensors};
use safetensors::tensor::{Dtype, TensorView};
use server::{Reply, Server, serve, sha256};

/// Exit code, standard output and standard error.
fn run(folder: &Path, args: &[&str]) -> (i32, String, String) {
    outcome(program(folder, args))
}

fn outcome(output: std::process::Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (code, out, err) = (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr));
    assert!(!err.contains("panicked"), "{err}");
    (code, out, err)
}

/// Runs and expects success; returns standard output.
fn ok(folder: &Path, args: &[&str]) -> String {
    let (code, out, err) = run(folder, args);
    assert_eq!(code, 0, "{args:?}: {out}{err}");
    out
}

/// Runs and expects an exit code, and an error that says all of `parts` and what to do next.
fn fails(folder: &Path, code: i32, args: &[&str], parts: &[&str]) {
    let (found, _, err) = run(folder, args);
    assert_eq!(found, code, "{args:?}: {err}");
    for part in parts.iter().chain(&["next:"]) {
        assert!(err.contains(part), "{args:?}: no '{part}' in: {err}");
    }
}

/// Weights of a model, all alike.
fn uniform(model: &str, size: usize, classes: usize) -> Tensors {
    let parameters = Model::find(model).unwrap().summary(size, classes).unwrap().parameters;
    parameters.iter().map(|p| (p.name.clone(), HostTensor::full(p.file_shape.clone(), 0.5))).collect()
}

fn write(folder: &Path, name: &str, tensors: Tensors) -> PathBuf {
    let path = folder.join(name);
    write_safetensors(&path, &WeightFile { tensors, ..WeightFile::default() }).unwrap();
    path
}

/// A checkpoint of simple-cnn on images of 32 pixels, with an optimizer's state.
fn checkpoint(folder: &Path, name: &str, loss: LossKind, classes: &[&str]) {
    let model = Model::find("simple-cnn").unwrap();
    let checkpoint = Checkpoint {
        config: TrainConfig { size: 32.into(), loss, ..TrainConfig::of(model) },
        classes: classes.iter().map(|&class| class.to_owned()).collect(),
        temperature: None,
        progress: Progress::default(),
        weights: uniform("simple-cnn", 32, classes.len()),
        optimizer: Tensors::from([("optimizer.m.fc2.bias".into(), HostTensor::full([classes.len()], 0.0))]),
    };
    checkpoint.write(&folder.join(name)).unwrap();
}

#[test]
fn models_are_listed_and_described() {
    let folder = tempfile::tempdir().unwrap();
    let all = ok(folder.path(), &["models"]);
    for model in Model::all() {
        assert!(all.lines().any(|line| line.starts_with(model.name())), "{} is not in: {all}", model.name());
    }
    assert!(all.contains("timm/resnet18.tv_in1k"), "{all}");
    let one = ok(folder.path(), &["models", "resnet18", "--size", "64", "--batch", "4"]);
    for part in ["11180103 trained", "layer4.1", "--normalize imagenet", "training step of 4 images"] {
        assert!(one.contains(part), "no '{part}' in: {one}");
    }
    let json: serde_json::Value = serde_json::from_str(&ok(folder.path(), &["models", "resnet18", "--json"])).unwrap();
    assert_eq!(json["parameters"], 11_180_103);
    fails(folder.path(), 2, &["models", "resnet19"], &["resnet19"]);
    fails(folder.path(), 12, &["models", "vit-small-16", "--size", "225"], &["multiple of 16"]);
    fails(folder.path(), 12, &["models", "inception-resnet-v2", "--size", "64"], &["from 75 pixels"]);
    let (code, _, err) = run(folder.path(), &["models", "unet", "--fetch"]);
    assert!(code == 2 && err.contains("choose one of: resnet18") && !err.contains("--weights"), "{err}");
}

#[test]
fn weights_are_converted_or_it_is_said_why_not() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    // A file with a tensor of integers, as PyTorch's batch-norm has them.
    let view = |dtype, bytes| TensorView::new(dtype, vec![2], bytes).unwrap();
    let (floats, integers) = ([0_u8; 8], [0_u8; 16]);
    let both = [("a", view(Dtype::F32, &floats)), ("steps", view(Dtype::I64, &integers))];
    std::fs::write(at.join("both.safetensors"), safetensors::serialize(both, None).unwrap()).unwrap();
    let none = [("steps", view(Dtype::I64, &integers))];
    std::fs::write(at.join("none.safetensors"), safetensors::serialize(none, None).unwrap()).unwrap();

    let out = ok(at, &["convert", "both.safetensors", "out.safetensors"]);
    assert!(out.contains("left out") && out.contains("steps") && out.contains("1 tensors, 2 values"), "{out}");
    fails(at, 2, &["convert", "both.safetensors", "out.safetensors"], &["the file exists", "out.safetensors"]);
    ok(at, &["convert", "both.safetensors", "out.safetensors", "--overwrite"]);
    fails(at, 9, &["convert", "none.safetensors", "new.safetensors"], &["no float tensors", "none.safetensors"]);
    assert!(!at.join("new.safetensors").exists());
    fails(at, 2, &["convert", "both.safetensors", "out.pth"], &["safetensors only"]);
    fails(at, 11, &["convert", "absent.pth", "new.safetensors"], &["absent.pth"]);

    // The original stays as it is, whatever it is called.
    let before = std::fs::read(at.join("both.safetensors")).unwrap();
    fails(at, 2, &["convert", "both.safetensors", "./both.safetensors", "--overwrite"], &["the same file"]);
    assert_eq!(std::fs::read(at.join("both.safetensors")).unwrap(), before);

    // Keras's names say nothing without a model, and an error of the renaming names the file.
    let keras = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/weights/nested.h5");
    let keras = keras.to_str().unwrap();
    fails(at, 2, &["convert", keras, "new.safetensors"], &["nested.h5", "--model"]);
    fails(at, 9, &["convert", keras, "new.safetensors", "--model", "vit-small-16"], &["nested.h5", "PyTorch"]);

    // Without its optimizer a checkpoint is none, and says what export would.
    checkpoint(at, "last.safetensors", LossKind::Bce, &["x", "y"]);
    ok(at, &["convert", "last.safetensors", "bare.safetensors", "--model", "simple-cnn", "--size", "32"]);
    let bare = weights::read(&at.join("bare.safetensors")).unwrap();
    assert_eq!(bare.tensors, uniform("simple-cnn", 32, 2));
    assert_eq!((bare.metadata["classes"].as_str(), bare.metadata["outputs"].as_str()), (r#"["x","y"]"#, "sigmoid"));
    assert!(!bare.metadata.keys().any(|key| key.starts_with("lesion-gpu")), "{:?}", bare.metadata);
}

#[test]
fn models_are_exported_or_it_is_said_why_not() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    checkpoint(at, "best.safetensors", LossKind::SigmoidFocal, &["x", "y"]);
    let out = ok(at, &["export", "best.safetensors", "--out", "m.onnx", "--probabilities", "--batch", "3"]);
    for part in ["m.onnx: simple-cnn for 32x32 pixels, classes x,y", "[3, 3, 32, 32]", "output probabilities [3, 2]"] {
        assert!(out.contains(part), "no '{part}' in: {out}");
    }
    ok(at, &["export", "best.safetensors", "--out", "m.safetensors"]);
    let metadata = weights::metadata(&at.join("m.safetensors")).unwrap();
    assert_eq!(metadata["outputs"], "sigmoid");
    fails(at, 2, &["export", "best.safetensors", "--out", "m.onnx"], &["the file exists", "m.onnx"]);
    fails(at, 2, &["export", "best.safetensors", "--out", "m.pth"], &["extension", "m.pth"]);
    for flag in [&["--probabilities"][..], &["--opset", "18"], &["--batch", "dynamic"]] {
        let args = [&["export", "best.safetensors", "--out", "n.safetensors"], flag].concat();
        fails(at, 2, &args, &[flag[0], "ONNX"]);
    }
    fails(at, 2, &["export", "best.safetensors", "--out", "n.onnx", "--size", "0"], &["--size must be", "where:"]);

    let bare = write(at, "bare.safetensors", uniform("simple-cnn", 32, 1000));
    let bare = ["export", "--model", "simple-cnn", "--weights", bare.to_str().unwrap(), "--size", "32"];
    let out = ok(at, &[&bare[..], &["--out", "n.onnx"]].concat());
    assert!(out.contains("1000 classes (0,1,2") && out.lines().all(|line| line.len() < 200), "{out}");
    let partial = [&bare[..], &["--out", "o.onnx", "--allow-partial"]].concat();
    let (code, _, err) = outcome(program_with(at, &partial, &[]));
    assert!(code == 2 && err.contains("unexpected argument '--allow-partial'") && !at.join("o.onnx").exists(), "{err}");
}

#[test]
fn published_weights_are_fetched_and_trained_from() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    // Small ones: nothing may overflow on its way through the layers.
    let mut tensors = uniform("resnet18", 64, 1000);
    tensors.values_mut().for_each(|tensor| tensor.data_mut().fill(0.01));
    let file = write(at, "published.safetensors", tensors);
    let bytes = std::fs::read(&file).unwrap();
    let hash = sha256(&bytes);
    let server = Server::new({
        let bytes = bytes.clone();
        move |request, _| match request.path.as_str() {
            "/timm/resnet18.tv_in1k/resolve/main/model.safetensors" => {
                serve(&bytes, request).with("x-linked-etag", format!("\"{hash}\""))
            }
            _ => Reply::new(404),
        }
    });
    let online = [("HF_ENDPOINT", server.address.as_str())];
    let offline = [online[0], ("HF_HUB_OFFLINE", "1")];
    let fetch = ["models", "resnet18", "--fetch"];
    let (code, _, err) = outcome(program_with(at, &fetch, &offline));
    assert!(code == 11 && err.contains("HF_HUB_OFFLINE forbids it") && err.contains("--weights"), "{err}");
    assert!(server.requests().is_empty());
    let (code, out, err) = outcome(program_with(at, &fetch, &online));
    assert_eq!(code, 0, "{err}");
    assert_eq!(std::fs::read(out.trim()).unwrap(), bytes);
    let refused = [online[0], ("HF_TOKEN", "a\nb")];
    let (code, _, err) = outcome(program_with(at, &["models", "seresnet50", "--fetch"], &refused));
    assert!(code == 2 && err.contains("the token for the hub is invalid"), "{err}");

    if common::gpu().is_none() {
        return;
    }
    let train = ["train", "--data", "synthetic:60", "--model", "resnet18", "--pretrained", "--size", "32"];
    // The head alone: what matters is where the rest came from.
    let short = ["--batch", "8", "--steps", "1", "--epochs", "1", "--train", "head", "--no-augment"];
    let train = [&train[..], &short].concat();
    // What was fetched is there already.
    let (code, out, err) = outcome(program_with(at, &train, &offline));
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("fc starts from random values"), "{out}");
    assert_eq!(server.gets().len(), 1);
}
