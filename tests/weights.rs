//! Weight files as other programs write them: small ones made by PyTorch, Keras and h5py (`tests/weights/make_files.py`), and
//! the names and shapes of published models (`tests/weights/make_keys.py`) against our own.

mod common;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use lesion_gpu::autograd::{Executable, Plan, Store, Tape};
use lesion_gpu::error::Kind;
use lesion_gpu::gpu::Gpu;
use lesion_gpu::models::Model;
use lesion_gpu::nn::{Mode, Net, Parameter};
use lesion_gpu::ops::larger;
use lesion_gpu::rng::Stream;
use lesion_gpu::tensor::{HostTensor, TensorType};
use lesion_gpu::weights::{self, Convention, Difference, Tensors, WeightFile};
use serde::Deserialize;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/weights")
}

fn read(name: &str) -> WeightFile {
    weights::read(&folder().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The message of the error that reading a file gives.
fn refused(name: &str) -> String {
    let error = weights::read(&folder().join(name)).expect_err(name);
    assert_eq!(error.kind(), Kind::Weights, "{name}");
    error.to_string()
}

/// What `make_files.py` fills a tensor with.
fn filled(shape: &[usize]) -> HostTensor {
    let n = shape.iter().product::<usize>();
    HostTensor::new(shape, (0..n).map(|i| n as f32 + i as f32 / 4.0).collect())
}

fn filled_all(shapes: &[(&str, &[usize])]) -> Tensors {
    shapes.iter().map(|(name, shape)| ((*name).to_owned(), filled(shape))).collect()
}

#[test]
fn a_state_dict_of_pytorch_is_read_in_every_container() {
    let vector: &[usize] = &[2];
    let want = filled_all(&[
        ("0.weight", &[2, 3, 3, 3]),
        ("0.bias", vector),
        ("1.weight", vector),
        ("1.bias", vector),
        ("1.running_mean", vector),
        ("1.running_var", vector),
        ("3.weight", &[3, 8]),
        ("3.bias", &[3]),
    ]);
    for name in ["state.pth", "state-legacy.pth", "state-protocol-4.pth", "checkpoint.pth"] {
        let file = read(name);
        assert_eq!(file.tensors, want, "{name}");
        assert_eq!(file.convention, Convention::Torch);
        assert_eq!(file.notes.is_empty(), name != "checkpoint.pth", "{name}: {:?}", file.notes);
    }
    let notes = read("checkpoint.pth").notes.join("\n");
    assert!(notes.contains("'state_dict'") && notes.contains("'module.'"), "{notes}");
}

#[test]
fn views_and_all_types_of_floats_are_read() {
    let t = filled(&[2, 3, 4]);
    let mut want = Tensors::from(["t", "f16", "bf16", "f64"].map(|name| (name.to_owned(), t.clone())));
    // 24 + i/4 has six bits before the point and two behind it, which bf16's eight hold.
    want.insert("permuted".into(), t.permute(&[2, 0, 1]));
    let at = |i: usize, j: usize, k: usize| t.data()[(i * 3 + j) * 4 + k];
    let sliced = (0..8).map(|n| at(n / 4, 1 + n / 2 % 2, 2 * (n % 2))).collect();
    want.insert("sliced".into(), HostTensor::new([2, 2, 2], sliced));
    want.insert("expanded".into(), HostTensor::full([5], 1.0));
    want.insert("scalar".into(), HostTensor::new(Vec::new(), vec![2.5]));
    want.insert("empty".into(), HostTensor::new([0, 3], vec![]));
    want.insert("parameter".into(), HostTensor::new([3, 4], t.data()[12..].to_vec()));
    for name in ["views.pth", "views-legacy.pth"] {
        let file = read(name);
        assert_eq!(file.tensors, want, "{name}");
    }
}

#[test]
fn pickles_that_need_code_are_refused_and_nothing_is_run() {
    for name in ["hostile.pth", "hostile-legacy.pth"] {
        let message = refused(name);
        assert!(message.contains("posix.system") && message.contains("state_dict()"), "{message}");
    }
    assert!(!Path::new("hostile-code-was-run").exists());
    let message = refused("module.pth");
    assert!(message.contains("torch.nn.modules.container.Sequential"), "{message}");
}

#[test]
fn keras_files_are_read_by_layer_and_variable() {
    let vector: &[usize] = &[2];
    let want = filled_all(&[
        ("first_conv/kernel", &[3, 3, 3, 2]),
        ("first_conv/bias", vector),
        ("batch_normalization/gamma", vector),
        ("batch_normalization/beta", vector),
        ("batch_normalization/moving_mean", vector),
        ("batch_normalization/moving_variance", vector),
        ("batch_normalization_1/beta", vector),
        ("batch_normalization_1/moving_mean", vector),
        ("batch_normalization_1/moving_variance", vector),
        ("predictions/kernel", &[8, 3]),
        ("predictions/bias", &[3]),
    ]);
    for name in ["nested.h5", "nested.weights.h5", "nested.keras", "nested-3.0.keras"] {
        let file = read(name);
        assert_eq!(file.tensors, want, "{name}");
        assert_eq!(file.convention, Convention::Keras);
    }
}

#[test]
fn keras_layers_of_the_same_name_are_both_kept() {
    let want = [("dense/kernel", &[2, 3][..]), ("layers/functional/layers/dense/kernel", &[3, 5])];
    assert_eq!(read("twins.weights.h5").tensors, filled_all(&want));
}

/// The length of the header comes first, and may be any number: 0x80 begins a pickle, too.
#[test]
fn safetensors_are_told_by_their_header_whatever_its_length() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let mut seen = [false; 256];
    for padding in (0..2048).step_by(8) {
        let mut file = WeightFile { tensors: filled_all(&[("a", &[2])]), ..WeightFile::default() };
        file.metadata.insert("padding".into(), "x".repeat(padding));
        weights::write_safetensors(&path, &file).unwrap();
        seen[usize::from(std::fs::read(&path).unwrap()[0])] = true;
        assert_eq!(weights::read(&path).unwrap(), file, "{padding}");
    }
    assert!(seen[0x80]);
}

/// Told by its first bytes alone, a file would decide how much memory its metadata takes.
#[test]
fn a_header_of_absurd_length_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    std::fs::write(&path, [&150_000_000_u64.to_le_bytes()[..], b"{"].concat()).unwrap();
    // Sparse: it takes no room on the disk.
    std::fs::File::options().write(true).open(&path).unwrap().set_len(200_000_000).unwrap();
    let error = weights::metadata(&path).unwrap_err();
    assert!(error.kind() == Kind::Weights && error.to_string().contains("more than 100 MB"), "{error}");
}

#[cfg(unix)]
#[test]
fn files_are_written_with_the_permissions_of_any_new_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let mode = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
    std::fs::write(folder.path().join("plain"), b"").unwrap();
    weights::write_atomically(&folder.path().join("ours"), b"x").unwrap();
    assert_eq!(format!("{:o}", mode("ours")), format!("{:o}", mode("plain")));
}

#[test]
fn hdf5_chunks_filters_and_element_types_are_read() {
    let names = ["layer/deflated", "layer/chunks", "layer/big_endian"];
    let mut want = Tensors::from(names.map(|name| (name.to_owned(), filled(&[10, 9]))));
    want.insert("model/scalar".into(), HostTensor::new(Vec::new(), vec![1.0]));
    assert_eq!(read("chunked.h5").tensors, want);
    assert_eq!(read("latest.h5").tensors, filled_all(&[("layer/kernel", &[10, 9])]));
    let message = refused("latest-chunks.h5");
    assert!(message.contains("does not read") && message.contains("libver"), "{message}");
}

/// The small files of all formats.
fn corpus() -> Vec<(String, Vec<u8>)> {
    let mut files = vec![];
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| ["pth", "h5", "keras"].iter().any(|known| e == *known)) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            files.push((name, std::fs::read(&path).unwrap()));
        }
    }
    assert!(files.len() > 10, "{files:?}");
    files
}

#[test]
fn truncated_files_are_errors() {
    for (name, bytes) in corpus() {
        let whole = weights::parse(&bytes).is_ok();
        for part in 0..64 {
            let cut = bytes.len() * part / 64;
            match weights::parse(&bytes[..cut]) {
                Err(error) => assert_eq!(error.kind(), Kind::Weights, "{name} cut to {cut}"),
                // The end of an HDF5 file may be padding that nothing points to.
                Ok(file) => assert!(whole && name.ends_with("h5") && !file.tensors.is_empty(), "{name} cut to {cut}"),
            }
        }
    }
}

#[test]
fn flipped_bits_never_panic() {
    for (name, bytes) in corpus() {
        let step = (bytes.len() / 500).max(1);
        for (i, at) in (0..bytes.len()).step_by(step).enumerate() {
            let mut damaged = bytes.clone();
            damaged[at] ^= [0x01, 0x80, 0xff][i % 3];
            if let Err(error) = weights::parse(&damaged) {
                assert_eq!(error.kind(), Kind::Weights, "{name} at {at}");
            }
        }
    }
}

/// A file of PyTorch before 1.6 around the pickle of its object, with one storage, `0`, of one float.
fn legacy(object: &[u8]) -> Vec<u8> {
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    let (version, system, keys) = (b"\x80\x02M\xe9\x03.", b"\x80\x02}.", b"\x80\x02](X\x01\0\0\x000e.");
    [&magic[..], version, system, object, keys, &1_u64.to_le_bytes(), &1_f32.to_le_bytes()].concat()
}

/// The pickle of a dict with a tensor of `extent` elements, all of them the same one.
fn expanded(extent: u32) -> Vec<u8> {
    called("a", extent)
}

/// The same under another name.
fn called(name: &str, extent: u32) -> Vec<u8> {
    let storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQ";
    let key = [&b"\x80\x02}X"[..], &(name.len() as u32).to_le_bytes(), name.as_bytes()].concat();
    let call = b"ctorch._utils\n_rebuild_tensor_v2\n(";
    let end = b"\x85K\0\x85\x89ccollections\nOrderedDict\n)RtRs.";
    [&key[..], call, storage, b"K\0J", &extent.to_le_bytes(), end].concat()
}

#[test]
fn what_wrappers_put_before_names_is_left_out_in_any_order() {
    for before in ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."] {
        let file = weights::parse(&legacy(&called(&format!("{before}a"), 3))).unwrap();
        assert_eq!(file.tensors.keys().collect::<Vec<_>>(), ["a"], "{before}");
        assert!(file.notes.join("").contains(&format!("'{before}'")), "{:?}", file.notes);
    }
}

#[test]
fn claims_beyond_the_files_size_are_errors() {
    let small = weights::parse(&legacy(&expanded(3))).unwrap();
    assert_eq!(small.tensors["a"], HostTensor::full([3], 1.0));
    let error = weights::parse(&legacy(&expanded(1 << 30))).unwrap_err();
    assert!(error.to_string().contains("far more"), "{error}");
    // A million tuples in each other: nothing may walk down them by recursion, not even to free them.
    let nested = [&b"\x80\x02)"[..], &[0x85; 1_000_000], b"."].concat();
    assert_eq!(weights::parse(&nested).unwrap_err().kind(), Kind::Weights);
    assert_eq!(weights::parse(&legacy(&nested)).unwrap_err().kind(), Kind::Weights);
    // Instructions of a byte whose values take many: slots of the stack, tuples, lists, dicts, memo.
    for instructions in [&b")"[..], b"N", b"]", b"}", b"N\x94", b"N\x85", b"](NNe0"] {
        let pickle = [b"\x80\x04N", &instructions.repeat(2_000_000 / instructions.len())[..], b"N."].concat();
        let error = weights::parse(&pickle).unwrap_err();
        assert!(error.to_string().contains("far more"), "{instructions:?}: {error}");
    }
    // An archive packs such a pickle to almost nothing.
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(vec![]));
    archive.start_file("x/data.pkl", zip::write::SimpleFileOptions::default()).unwrap();
    archive.write_all(&[&b"\x80\x02"[..], &[b'N'; 65 << 20], b"."].concat()).unwrap();
    let error = weights::parse(&archive.finish().unwrap().into_inner()).unwrap_err();
    assert!(error.to_string().contains("more than 64 MiB"), "{error}");
}

#[test]
fn other_files_are_refused_with_what_to_give_instead() {
    let long = [b"GIF89a".to_vec(), vec![7; 4096]].concat();
    for bytes in [&b""[..], b"{}", b"PK\x05\x06", b"\x80\x02}.", &long] {
        let error = weights::parse(bytes).unwrap_err();
        assert_eq!(error.kind(), Kind::Weights);
        assert!(error.to_string().contains("next:"), "{error}");
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Names and shapes of published models

/// Libraries, in them our names of models, in them a tree of names with shapes as leaves.
type Keys = BTreeMap<String, BTreeMap<String, serde_json::Value>>;

fn keys() -> Keys {
    let path = folder().join("keys.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Tensors of zeros for the leaves of a tree.
fn zeros(tree: &serde_json::Value, separator: &str, prefix: &str, tensors: &mut Tensors) {
    for (part, node) in tree.as_object().unwrap() {
        let name = if prefix.is_empty() { part.clone() } else { format!("{prefix}{separator}{part}") };
        match node.as_array() {
            Some(shape) => {
                let shape: Vec<usize> = shape.iter().map(|n| n.as_u64().unwrap() as usize).collect();
                tensors.insert(name, HostTensor::full(shape, 0.0));
            }
            None => zeros(node, separator, &name, tensors),
        }
    }
}

fn parameters(model: Model) -> Vec<Parameter> {
    let size = if model.name() == "inception-resnet-v2" { 75 } else { 224 };
    model.summary(size, 1000).unwrap().parameters
}

fn values(tensors: &Tensors) -> usize {
    tensors.values().map(|t| t.shape().len()).sum()
}

#[test]
fn every_key_of_torchvision_and_timm_is_a_parameter_of_the_same_shape() {
    let keys = keys();
    for library in ["torchvision", "timm"] {
        for (name, tree) in &keys[library] {
            let model = Model::find(name).unwrap();
            let parameters = parameters(model);
            let mut tensors = Tensors::new();
            zeros(tree, ".", "", &mut tensors);
            let tensors = model.from_torch(&parameters, tensors);
            let difference = Difference::of(&tensors, parameters.iter().map(|p| (p.name.as_str(), &p.file_shape)));
            assert!(difference.is_empty(), "{library} {name}:\n{}", difference.describe());
        }
    }
}

#[test]
fn a_resnet_of_torchvision_is_the_encoder_of_a_unet() {
    let model = Model::find("unet-resnet18").unwrap();
    let parameters = model.summary(64, 1).unwrap().parameters;
    let mut tensors = Tensors::new();
    zeros(&keys()["torchvision"]["resnet18"], ".", "", &mut tensors);
    let tensors = model.from_torch(&parameters, tensors);
    let difference = Difference::of(&tensors, parameters.iter().map(|p| (p.name.as_str(), &p.file_shape)));
    assert!(difference.unexpected.is_empty() && difference.mismatched.is_empty(), "{}", difference.describe());
    assert!(difference.missing.iter().all(|name| !name.starts_with("encoder.")), "{}", difference.describe());
}

#[test]
fn every_variable_of_keras_is_a_parameter_of_the_same_shape() {
    // All variables, as Keras's `summary()` counts them.
    let counts = BTreeMap::from([
        ("resnet50-keras", 25_636_712),
        ("resnet101-keras", 44_707_176),
        ("resnet152-keras", 60_419_944),
        ("inception-resnet-v2", 55_873_736),
    ]);
    let models = &keys()["keras"];
    assert_eq!(models.keys().collect::<Vec<_>>(), counts.keys().collect::<Vec<_>>());
    for (name, tree) in models {
        let model = Model::find(name).unwrap();
        let parameters = parameters(model);
        let mut tensors = Tensors::new();
        zeros(tree, "/", "", &mut tensors);
        assert_eq!(values(&tensors), counts[name.as_str()], "{name}");
        let found = model.from_keras(&parameters, tensors).unwrap();
        let difference = Difference::of(&found.tensors, parameters.iter().map(|p| (p.name.as_str(), &p.file_shape)));
        assert!(difference.is_empty(), "{name}:\n{}", difference.describe());
        // Keras's Inception-ResNet-v2 has no gamma, and so as many values less as there are channels to normalise.
        let without_gamma = found.notes.join("\n").contains("gamma");
        assert_eq!(without_gamma, name == "inception-resnet-v2", "{:?}", found.notes);
        assert_eq!(values(&found.tensors) > counts[name.as_str()], without_gamma, "{name}");
    }
}

#[test]
fn keras_files_of_other_models_are_refused_by_name() {
    let mut tensors = Tensors::new();
    zeros(&keys()["keras"]["resnet50-keras"], "/", "", &mut tensors);
    for (name, hint) in
        [("resnet50", "resnet50-keras"), ("vit-small-16", "PyTorch"), ("inception-resnet-v2", "layers called")]
    {
        let model = Model::find(name).unwrap();
        let error = model.from_keras(&parameters(model), tensors.clone()).unwrap_err();
        assert_eq!(error.kind(), Kind::Weights);
        assert!(error.to_string().contains(hint), "{error}");
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Keras's models against Keras

/// What `make_logits.py` writes.
#[derive(Deserialize)]
struct KerasGolden {
    seed: u32,
    models: Vec<KerasLogits>,
}

#[derive(Deserialize)]
struct KerasLogits {
    model: String,
    size: usize,
    batch: usize,
    classes: usize,
    logits: Vec<f32>,
}

/// `value(u)` of the first `count` uniform numbers of a stream, rounded to f32 once.
fn drawn(seed: u32, name: &str, count: usize, value: impl Fn(f64) -> f64) -> Vec<f32> {
    let stream = Stream::named(seed, name);
    (0..count as u64).map(|i| value(f64::from(stream.uniform(i))) as f32).collect()
}

/// A Keras tensor as `make_logits.py` draws it: the table at the top of the script.
fn keras_weight(seed: u32, key: &str, shape: &[usize]) -> HostTensor {
    let (layer, variable) = key.split_once('/').unwrap();
    let count = shape.iter().product::<usize>();
    let fan_in = shape[..shape.len() - 1].iter().product::<usize>() as f64;
    let scale = if layer.ends_with("_3_bn") { 0.3 } else { 1.0 };
    let data = drawn(seed, &format!("weights/{key}"), count, |u| {
        let s = 2.0 * u - 1.0;
        match variable {
            "kernel" if shape.len() == 4 => s * (6.0 / fan_in).sqrt(),
            "kernel" => s / fan_in.sqrt(),
            "bias" => 0.1 * s,
            "gamma" => scale * (1.0 + 0.2 * s),
            "beta" => 0.2 * s,
            "moving_mean" => 0.1 * s,
            "moving_variance" => 0.75 + 0.5 * u,
            _ => panic!("no rule for {key}"),
        }
    });
    HostTensor::new(shape, data)
}

/// The logits of a model in evaluation mode.
fn logits(gpu: &Gpu, golden: &KerasLogits, parameters: &[Parameter], tensors: &Tensors, images: &[f32]) -> Vec<f32> {
    let mut tape = Tape::new();
    let x = tape.input("images", TensorType::f32([golden.batch, golden.size, golden.size, 3]));
    let mut net = Net::new(&mut tape, Mode::Eval, 0);
    let y = Model::find(&golden.model).unwrap().forward(&mut net, x, golden.classes).unwrap();
    let plan = Plan::preparing(&tape, &[y], gpu.caps()).unwrap();
    let mut store = Store::new();
    let executable = Executable::new(gpu, plan, &mut store).unwrap();
    for p in parameters {
        store.write(gpu, &p.name, &p.to_device(&tensors[&p.name])).unwrap();
    }
    executable.set_input(gpu, "images", bytemuck::cast_slice(images)).unwrap();
    executable.run(gpu);
    executable.read_output(gpu, 0).unwrap().into_data()
}

/// Tensors named and laid out as Keras's give, by way of our key map, Keras's logits.
#[test]
fn keras_models_give_kerass_logits() {
    let Some(gpu) = common::gpu() else { return };
    let golden: KerasGolden =
        serde_json::from_str(&std::fs::read_to_string(folder().join("keras-logits.json")).unwrap()).unwrap();
    assert_eq!(golden.models.len(), 2);
    let keys = keys();
    for known in &golden.models {
        let model = Model::find(&known.model).unwrap();
        let parameters = model.summary(known.size, known.classes).unwrap().parameters;
        let mut shapes = Tensors::new();
        zeros(&keys["keras"][&known.model], "/", "", &mut shapes);
        let tensors: Tensors = shapes
            .into_iter()
            .map(|(key, tensor)| {
                let mut shape = tensor.shape().dims().to_vec();
                if key.starts_with("predictions/") {
                    *shape.last_mut().unwrap() = known.classes;
                }
                let drawn = keras_weight(golden.seed, &key, &shape);
                (key, drawn)
            })
            .collect();
        let found = model.from_keras(&parameters, tensors).unwrap();
        let count = known.batch * known.size * known.size * 3;
        let images = drawn(golden.seed, "batch/0/images", count, |u| 2.0 * u - 1.0);
        let ours = logits(&gpu, known, &parameters, &found.tensors, &images);
        let largest = known.logits.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        let error =
            ours.iter().zip(&known.logits).map(|(a, b)| f64::from(a - b).abs()).fold(0.0, larger) / f64::from(largest);
        println!("{}: largest error {error:e} of the largest logit", known.model);
        assert_eq!(ours.len(), known.logits.len());
        assert!(error < 1e-4, "{}: {error:e}\n{ours:?}\n{:?}", known.model, known.logits);
    }
}

// ---------------------------------------------------------------------------------------------------------------
// The program

const SIZE: usize = 32;

/// A file of simple-cnn with its initial weights, changed by `change`.
fn simple_cnn(folder: &Path, name: &str, classes: usize, change: impl FnOnce(&mut Tensors)) -> PathBuf {
    let parameters = Model::find("simple-cnn").unwrap().summary(SIZE, classes).unwrap().parameters;
    let tensors = parameters.iter().map(|p| (p.name.clone(), p.initial(3))).collect();
    let mut file = WeightFile { tensors, ..WeightFile::default() };
    change(&mut file.tensors);
    let path = folder.join(name);
    weights::write_safetensors(&path, &file).unwrap();
    path
}

/// What the program prints, and its exit code.
fn program(folder: &Path, args: &[&str]) -> (String, i32) {
    let output = common::program(folder, args);
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (text, output.status.code().unwrap())
}

#[test]
fn training_replaces_a_classifier_and_nothing_else() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let train = |file: &Path, more: &[&str]| {
        let size = SIZE.to_string();
        let mut args =
            vec!["train", "--data", "synthetic:60", "--model", "simple-cnn", "--size", &size, "--batch", "8"];
        args.extend(["--steps", "1", "--epochs", "1", "--weights", file.to_str().unwrap()]);
        args.extend(more);
        program(folder.path(), &args)
    };
    let other = simple_cnn(folder.path(), "ten.safetensors", 10, |_| {});
    let (text, code) = train(&other, &[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("classifier has 10 classes and the data 7: fc2 starts from random values"), "{text}");

    let partial = simple_cnn(folder.path(), "partial.safetensors", 7, |tensors| {
        tensors.remove("conv2.weight").unwrap();
    });
    let (text, code) = train(&partial, &[]);
    assert_eq!(code, 9, "{text}");
    assert!(text.contains("missing (1): conv2.weight") && text.contains("--allow-partial"), "{text}");
    let (text, code) = train(&partial, &["--allow-partial"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("missing (1): conv2.weight"), "{text}");

    // Prediction replaces nothing.
    image::RgbImage::from_pixel(8, 8, image::Rgb([120, 90, 60])).save(folder.path().join("p.png")).unwrap();
    let file = other.to_str().unwrap();
    let args = ["predict", "--model", "simple-cnn", "--weights", file, "--size", "32", "--classes", "a,b", "p.png"];
    let (text, code) = program(folder.path(), &args);
    assert_eq!(code, 9, "{text}");
    assert!(text.contains("fc2.weight is 10x128, not 2x128"), "{text}");
}

/// Caffe's pictures are blue, green and red from 0 to 255 less a mean. The same network on red, green and blue from 0 to 1
/// has the first kernel turned around and scaled, and the means in its bias.
#[test]
fn caffe_pixels_are_bgr_without_scale() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let picture = |x: u32, y: u32| image::Rgb([(x * 7) as u8, (y * 5 + x) as u8, (200 - 3 * y) as u8]);
    image::RgbImage::from_fn(32, 32, picture).save(folder.path().join("p.png")).unwrap();
    // Kernels for pixels of ten rather than one.
    let scale = |tensors: &mut Tensors| {
        tensors.get_mut("conv1.weight").unwrap().data_mut().iter_mut().for_each(|w| *w /= 10.0);
    };
    let caffe = simple_cnn(folder.path(), "caffe.safetensors", 7, scale);
    let unit = simple_cnn(folder.path(), "unit.safetensors", 7, |tensors| {
        scale(tensors);
        let kernel = tensors["conv1.weight"].clone();
        let [filters, taps] = [32, 9];
        for k in 0..filters {
            for (c, mean) in [103.939, 116.779, 123.68].into_iter().enumerate() {
                for tap in 0..taps {
                    let w = kernel.data()[(k * 3 + c) * taps + tap];
                    tensors.get_mut("conv1.weight").unwrap().data_mut()[(k * 3 + 2 - c) * taps + tap] = 255.0 * w;
                    tensors.get_mut("conv1.bias").unwrap().data_mut()[k] -= mean * w;
                }
            }
        }
    });
    let logits = |file: &Path, normalize: &str| -> Vec<f32> {
        let mut args = vec!["predict", "--model", "simple-cnn", "--size", "32", "--weights", file.to_str().unwrap()];
        args.extend(["--normalize", normalize, "--logits", "--format", "json", "p.png"]);
        let output = common::program(folder.path(), &args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let answers: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        serde_json::from_value(answers[0]["logits"].clone()).unwrap()
    };
    let (ours, want, swapped) = (logits(&caffe, "caffe"), logits(&unit, "unit"), logits(&caffe, "unit"));
    let apart = |a: &[f32], b: &[f32]| a.iter().zip(b).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(apart(&ours, &want) < 1e-4, "{ours:?}\n{want:?}");
    assert!(apart(&ours, &swapped) > 1e-3, "the normalisation makes no difference: {ours:?}");
}
