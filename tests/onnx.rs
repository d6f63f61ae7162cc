//! ONNX graphs, without onnxruntime: every model has one, its nodes read only what is there, its initialisers have the
//! elements that their extents promise. That the numbers are right, `scripts/oracle/check_onnx.py` shows.

use std::collections::{BTreeMap, BTreeSet};

use lesion_gpu::Kind;
use lesion_gpu::data::ImageSize;
use lesion_gpu::export::{OnnxOptions, onnx, safetensors};
use lesion_gpu::models::Model;
use lesion_gpu::onnx::proto::{GraphProto, ModelProto, NodeProto, ValueInfoProto};
use lesion_gpu::onnx::{Batch, OPSETS};
use lesion_gpu::tensor::HostTensor;
use lesion_gpu::train::{HostModel, LossKind, ModelSource, Outputs, TrainConfig};
use lesion_gpu::weights::{Tensors, write_safetensors};
use prost::Message as _;

const NO_SIZE: ImageSize = ImageSize { width: 0, height: 0 };
const DYNAMIC: OnnxOptions = OnnxOptions { size: NO_SIZE, batch: Batch::Dynamic, opset: 18, probabilities: false };

/// A model whose weights are all alike: drawing hundreds of millions of random numbers takes its time.
fn uniform(model: Model, size: usize) -> HostModel {
    let size = ImageSize::from(size);
    let config = TrainConfig { size, ..TrainConfig::of(model) };
    let classes = ["a", "b", "c"].map(str::to_owned).to_vec();
    let mut host =
        HostModel { config, classes, temperature: None, weights: Tensors::new(), allow_partial: false, notes: vec![] };
    let parameters = host.trace(1, size).unwrap().parameters;
    host.weights = parameters.iter().map(|p| (p.name.clone(), HostTensor::full(p.file_shape.clone(), 0.5))).collect();
    host
}

/// The smallest size that a model takes and that leaves it something to do.
fn small_size(model: Model) -> usize {
    model.smallest_size(3).unwrap().next_multiple_of(16).max(32)
}

fn exported(model: Model, options: OnnxOptions) -> ModelProto {
    let size = small_size(model);
    let file = onnx(&uniform(model, size), OnnxOptions { size: size.into(), ..options }).unwrap();
    // What is checked is what another program reads.
    ModelProto::decode(file.bytes().unwrap().as_slice()).unwrap()
}

fn extents(info: &ValueInfoProto) -> Vec<String> {
    let shape = info.r#type.as_ref().unwrap().tensor_type.as_ref().unwrap().shape.as_ref().unwrap();
    let dim = |d: &lesion_gpu::onnx::proto::Dimension| {
        d.dim_param.clone().unwrap_or_else(|| d.dim_value.unwrap().to_string())
    };
    shape.dim.iter().map(dim).collect()
}

/// Names are unique, and each node reads what came before it.
fn check_order(name: &str, graph: &GraphProto) {
    let mut known: BTreeSet<&str> = graph.input.iter().map(|i| i.name.as_str()).collect();
    for tensor in &graph.initializer {
        assert!(known.insert(&tensor.name), "{name}: two values are called {}", tensor.name);
        let elements: i64 = tensor.dims.iter().product();
        let size = if tensor.data_type == lesion_gpu::onnx::proto::FLOAT { 4 } else { 8 };
        assert_eq!(tensor.raw_data.len() as i64, elements * size, "{name}: {}", tensor.name);
    }
    let mut nodes = BTreeSet::new();
    for node in &graph.node {
        assert!(nodes.insert(&node.name), "{name}: two nodes are called {}", node.name);
        for input in node.input.iter().filter(|i| !i.is_empty()) {
            assert!(known.contains(input.as_str()), "{name}: {} reads {input} too early", node.name);
        }
        for output in &node.output {
            assert!(known.insert(output), "{name}: two values are called {output}");
        }
    }
    for output in &graph.output {
        assert!(known.contains(output.name.as_str()), "{name}: nothing makes {}", output.name);
    }
    let read: BTreeSet<&String> = graph.node.iter().flat_map(|n| &n.input).collect();
    for tensor in &graph.initializer {
        assert!(read.contains(&tensor.name), "{name}: nobody reads {}", tensor.name);
    }
}

fn count(graph: &GraphProto) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    graph.node.iter().for_each(|n| *counts.entry(n.op_type.as_str()).or_default() += 1);
    counts
}

#[test]
fn every_model_has_a_graph_with_all_of_its_weights() {
    for &model in Model::all() {
        let name = model.name();
        let size = small_size(model);
        let file = exported(model, DYNAMIC);
        let graph = file.graph.as_ref().unwrap();
        check_order(name, graph);
        let side = size.to_string();
        assert_eq!(extents(&graph.input[0]), ["batch", "3", &side, &side], "{name}");
        assert_eq!(graph.output[0].name, "logits");
        assert_eq!(extents(&graph.output[0])[0], "batch");
        let summary = model.summary(size, 3).unwrap();
        for parameter in &summary.parameters {
            let tensor = graph.initializer.iter().find(|t| t.name == parameter.name);
            let tensor = tensor.unwrap_or_else(|| panic!("{name} lacks {}", parameter.name));
            let elements: i64 = tensor.dims.iter().product();
            assert_eq!(elements as usize, parameter.count(), "{name}: {}", parameter.name);
        }
        let prop = |key: &str| file.metadata_props.iter().find(|p| p.key == key).map(|p| p.value.clone());
        assert_eq!(prop("model").as_deref(), Some(name));
        assert_eq!(prop("size"), Some(format!("{side}x{side}")));
        assert!(prop("classes").unwrap().starts_with('['));
    }
}

/// A graph without detours: each layer is one operation, and maps are never turned around between convolutions.
#[test]
fn graphs_are_as_a_person_would_write_them() {
    let file = exported(Model::find("resnet18").unwrap(), DYNAMIC);
    let wanted = [
        ("Add", 8),
        ("BatchNormalization", 20),
        ("Conv", 20),
        ("Div", 1),
        ("Gemm", 1),
        ("GlobalAveragePool", 1),
        ("MaxPool", 1),
        ("Relu", 17),
        ("Reshape", 1),
        ("Sub", 1),
    ];
    assert_eq!(count(file.graph.as_ref().unwrap()), BTreeMap::from(wanted));
    let efficient = exported(Model::find("efficientnet-b0").unwrap(), DYNAMIC);
    let counts = count(efficient.graph.as_ref().unwrap());
    assert_eq!((counts.get("Transpose"), counts["Reshape"], counts["Conv"]), (None, 1, 81));
}

#[test]
fn batch_probabilities_and_operator_sets_are_as_asked_for() {
    let model = Model::find("simple-cnn").unwrap();
    let fixed = exported(model, OnnxOptions { batch: Batch::Fixed(4), probabilities: true, ..DYNAMIC });
    let graph = fixed.graph.as_ref().unwrap();
    assert_eq!(extents(&graph.input[0])[0], "4");
    assert_eq!(
        (graph.output[0].name.as_str(), extents(&graph.output[0])),
        ("probabilities", vec!["4".into(), "3".into()])
    );
    assert_eq!(graph.node.last().map(|n: &NodeProto| n.op_type.as_str()), Some("Softmax"));
    // Classes that do not exclude each other have a sigmoid each, and the file says so.
    let mut yes_or_no = uniform(model, 32);
    for (loss, node, outputs) in [
        (LossKind::Bce, "Sigmoid", "sigmoid"),
        (LossKind::SigmoidFocal, "Sigmoid", "sigmoid"),
        (LossKind::Focal, "Softmax", "softmax"),
    ] {
        yes_or_no.config.loss = loss;
        let file = onnx(&yes_or_no, OnnxOptions { size: 32.into(), probabilities: true, ..DYNAMIC }).unwrap();
        assert_eq!(file.graph.unwrap().node.last().unwrap().op_type, node, "{loss:?}");
        assert_eq!(file.metadata_props.iter().find(|p| p.key == "outputs").unwrap().value, outputs, "{loss:?}");
    }
    for opset in OPSETS {
        assert_eq!(exported(model, OnnxOptions { opset, ..DYNAMIC }).opset_import[0].version, opset);
    }
    let host = uniform(model, 32);
    for opset in [16, 22] {
        let error = onnx(&host, OnnxOptions { size: 32.into(), opset, ..DYNAMIC }).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{error}");
    }
}

#[test]
fn weights_that_do_not_fit_are_refused() {
    let mut host = uniform(Model::find("simple-cnn").unwrap(), 32);
    // Its first linear layer is as wide as the map is large.
    let error = onnx(&host, OnnxOptions { size: 64.into(), ..DYNAMIC }).unwrap_err();
    assert!(error.kind() == Kind::Weights && error.to_string().contains("fc1.weight is"), "{error}");
    let whole = safetensors(&host, 32.into()).unwrap();
    assert_eq!(whole.tensors, host.weights);
    assert_eq!(whole.metadata["classes"], r#"["a","b","c"]"#);
    host.weights.remove("fc1.bias");
    for error in [
        safetensors(&host, 32.into()).unwrap_err(),
        onnx(&host, OnnxOptions { size: 32.into(), ..DYNAMIC }).unwrap_err(),
    ] {
        assert!(error.kind() == Kind::Weights && error.to_string().contains("fc1.bias"), "{error}");
    }
}

/// What was exported is read back as it was: classes, and what turns outputs into probabilities.
#[test]
fn exported_weights_say_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("w.safetensors");
    let model = Model::find("simple-cnn").unwrap();
    let read = || {
        HostModel::read(&ModelSource::Weights {
            model: "simple-cnn".into(),
            file: file.clone(),
            size: 32.into(),
            normalisation: None,
            preprocess: None,
            classes: None,
            allow_partial: false,
        })
        .unwrap()
    };
    let mut host = uniform(model, 32);
    host.config.loss = LossKind::SigmoidFocal;
    host.classes = ["a", "b", "c", "d", "e", "f", "g"].map(str::to_owned).to_vec();
    host.weights.insert("fc2.weight".into(), HostTensor::full([7, 128], 0.5));
    host.weights.insert("fc2.bias".into(), HostTensor::full([7], 0.5));
    let mut exported = safetensors(&host, 32.into()).unwrap();
    write_safetensors(&file, &exported).unwrap();
    let back = read();
    assert_eq!((&back.classes, back.outputs()), (&host.classes, Outputs::Sigmoid));
    assert!(back.notes.is_empty(), "{:?}", back.notes);
    // A bare file of seven classes could be anything: what is assumed is said.
    exported.metadata.clear();
    write_safetensors(&file, &exported).unwrap();
    let back = read();
    assert_eq!((back.classes[0].as_str(), back.outputs()), ("akiec", Outputs::Softmax));
    assert!(back.notes.join("").contains("HAM10000's are assumed"), "{:?}", back.notes);
}

/// Masks come out as maps, of pictures that need not be square.
#[test]
fn models_that_segment_give_a_map() {
    let model = Model::find("unet-small").unwrap();
    let size = ImageSize { width: 64, height: 48 };
    let options = OnnxOptions { size, probabilities: true, ..DYNAMIC };
    let file = onnx(&uniform(model, 32), options).unwrap();
    let graph = file.graph.as_ref().unwrap();
    check_order("unet-small", graph);
    assert_eq!(extents(&graph.input[0]), ["batch", "3", "48", "64"]);
    assert_eq!(extents(&graph.output[0]), ["batch", "1", "48", "64"]);
    let counts = count(graph);
    assert_eq!((counts.get("Transpose"), counts["ConvTranspose"], counts["Concat"]), (None, 4, 4));
}
