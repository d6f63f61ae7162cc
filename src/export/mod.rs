//! Trained models for other programs: bare weights, and ONNX graphs.

use crate::data::ImageSize;
use crate::error::{Error, Kind, Result};
use crate::models::{Model, Task};
use crate::nn::Parameter;
use crate::onnx::proto::ModelProto;
use crate::onnx::{Attribute, Batch, Graph, Value};
use crate::tensor::HostTensor;
use crate::train::{HostModel, Outputs, TracedModel, describe};
use crate::weights::{Difference, WeightFile};

/// The name of an ONNX graph's input.
pub const IMAGES: &str = "images";

/// How an ONNX graph is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnnxOptions {
    /// Size of the images in pixels.
    pub size: ImageSize,
    /// Images at a time.
    pub batch: Batch,
    /// Version of the operators.
    pub opset: i64,
    /// Whether the outputs are probabilities instead of logits.
    pub probabilities: bool,
}

/// The weights by themselves, without an optimizer's state, with what they are of in the metadata.
///
/// # Errors
/// [`Kind::Weights`] if they are not those of the model at this size.
pub fn safetensors(model: &HostModel, size: ImageSize) -> Result<WeightFile> {
    let traced = trace(model, 1, size)?;
    let tensors = traced.parameters.iter().map(|p| Ok((p.name.clone(), tensor(model, p)?.clone())));
    let tensors = tensors.collect::<Result<_>>()?;
    // The format is what PyTorch's loaders look for.
    let metadata = describe(&model.config, &model.classes, size).into_iter().chain([("format", "pt".to_owned())]);
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value)).collect();
    Ok(WeightFile { tensors, metadata, ..WeightFile::default() })
}

/// The model as an ONNX graph, from RGB images in `[0, 1]`, `[N, 3, H, W]`, to logits or probabilities: `[N, classes]`, or
/// `[N, 1, H, W]` of a model that segments.
///
/// # Errors
/// [`Kind::Weights`] if the weights are not those of the model at this size; [`Kind::Shape`] if the model does not take
/// images of this size; [`Kind::Usage`] for operators that we do not write.
pub fn onnx(model: &HostModel, options: OnnxOptions) -> Result<ModelProto> {
    let mut graph = Graph::new(options.opset, options.batch)?;
    let TracedModel { tape, images, logits, parameters } = trace(model, options.batch.traced(), options.size)?;
    let given = graph.images(IMAGES, tape.shape(images).nhwc().unwrap_or_default());
    let given = normalised(model, &mut graph, &given);
    let variable = |name: &str| {
        let parameter = parameters.iter().find(|p| p.name == name);
        let parameter = parameter.ok_or_else(|| Error::new(Kind::Internal, format!("'{name}' is no parameter")))?;
        Ok(parameter.to_device(tensor(model, parameter)?))
    };
    let mut output = tape.append_onnx(&mut graph, &[(images, given)], logits, &variable)?;
    if options.probabilities {
        output = probabilities(model, &mut graph, &output)?;
    }
    let name = if options.probabilities { "probabilities" } else { "logits" };
    graph.output(&output, name)?;
    let (network, size) = (&model.config.model, options.size);
    let outside = match &model.config.preprocess.steps {
        steps if steps.is_empty() => String::new(),
        steps => format!(" Pictures are to be preprocessed before ({steps}), as the metadata 'preprocess' says."),
    };
    let doc = format!(
        "{network} for skin lesions. Input '{IMAGES}': RGB in [0, 1], [N, 3, {}, {}]; it is normalised inside.{outside} \
         Output '{name}'. For research only: not a medical device.",
        size.height, size.width
    );
    Ok(graph.finish(network, &doc, &describe(&model.config, &model.classes, size)))
}

/// The model on a tape, if its weights fit.
fn trace(model: &HostModel, batch: usize, size: ImageSize) -> Result<TracedModel> {
    let traced = model.trace(batch, size)?;
    let names = traced.parameters.iter().map(|p| (p.name.as_str(), &p.file_shape));
    let difference = Difference::of(&model.weights, names);
    if difference.missing.is_empty() && difference.mismatched.is_empty() {
        return Ok(traced);
    }
    let what = format!("the weights are not those of {} at {size} pixels", model.config.model);
    Err(Error::new(Kind::Weights, format!("{what}:\n  {}", difference.describe()))
        .next("name the model, the classes and the size that the weights were made with"))
}

fn tensor<'a>(model: &'a HostModel, parameter: &Parameter) -> Result<&'a HostTensor> {
    let missing = || Error::new(Kind::Weights, format!("the weights lack '{}'", parameter.name));
    model.weights.get(&parameter.name).ok_or_else(missing)
}

/// Takes mean and standard deviation off the pixels, and exchanges red and blue where the network wants it so.
fn normalised(model: &HostModel, graph: &mut Graph, images: &Value) -> Value {
    graph.set_scope("normalise");
    let (mean, std) = model.config.normalisation.mean_std();
    let channels = |values: [f32; 3]| HostTensor::new([1, 3, 1, 1], values.to_vec());
    let (mean, std) = (graph.constant("mean", &channels(mean)), graph.constant("std", &channels(std)));
    let centred = graph.node_like("Sub", &[images, &mean], &[], images);
    let scaled = graph.node_like("Div", &[&centred, &std], &[], images);
    if !model.config.normalisation.is_bgr() {
        return scaled;
    }
    let order = graph.integers("bgr", &[2, 1, 0]);
    graph.node_like("Gather", &[&scaled, &order], &[Attribute::Int("axis", 1)], images)
}

/// Of the classes, which exclude each other or not as in training, or of each pixel.
fn probabilities(model: &HostModel, graph: &mut Graph, logits: &Value) -> Result<Value> {
    let task = Model::find(&model.config.model)?.task();
    graph.set_scope("probabilities");
    if task == Task::Segment {
        return Ok(graph.node_like("Sigmoid", &[logits], &[], logits));
    }
    let rows = graph.rows(logits)?;
    Ok(match model.outputs() {
        Outputs::Softmax => graph.node_like("Softmax", &[&rows], &[Attribute::Int("axis", -1)], &rows),
        Outputs::Sigmoid => graph.node_like("Sigmoid", &[&rows], &[], &rows),
    })
}
