//! A trained model in host memory: for everything that needs no device.

use std::collections::BTreeMap;
use std::path::Path;

use super::objective::MASK_CLASS;
use super::starting_weights::{bare_metadata, normalisation_for, rename};
use super::{Checkpoint, LossKind, ModelSource, Normalisation, RunFolder, TrainConfig};
use crate::autograd::{Tape, Tensor};
use crate::data::{HAM10000_CLASSES, ImageSize, Preprocess};
use crate::error::{Error, Kind, Result};
use crate::models::{Model, Task};
use crate::nn::{Mode, Net, Parameter};
use crate::tensor::TensorType;
use crate::weights::{self, Tensors};

/// A size of pictures that every model takes: for parameters' names, which do not depend on it.
const NAMING_SIZE: usize = 224;

/// The key of a file's metadata that says how pictures are preprocessed.
const PREPROCESS: &str = "preprocess";

/// A trained model in host memory.
#[derive(Debug, Clone, PartialEq)]
pub struct HostModel {
    /// The configuration it was (or would have been) trained with.
    pub config: TrainConfig,
    /// Class names in the order of the outputs.
    pub classes: Vec<String>,
    /// What its logits are divided by before their softmax, if that was fitted.
    pub temperature: Option<f64>,
    /// Parameters and running statistics, in a file's layout.
    pub weights: Tensors,
    /// Whether some of them may be missing.
    pub allow_partial: bool,
    /// What there is to say of the weight file, a line each.
    pub notes: Vec<String>,
}

/// What turns a model's outputs into probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outputs {
    /// A softmax over all: the classes exclude each other.
    Softmax,
    /// A sigmoid of each.
    Sigmoid,
}

impl Outputs {
    /// Those of a model that was trained with this configuration.
    pub fn of(config: &TrainConfig) -> Self {
        let segments = Model::find(&config.model).is_ok_and(|model| model.task() == Task::Segment);
        if segments || config.loss.of_sigmoids() { Self::Sigmoid } else { Self::Softmax }
    }

    /// Its name in an exported file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Softmax => "softmax",
            Self::Sigmoid => "sigmoid",
        }
    }
}

/// A model on a tape, as it is evaluated.
#[derive(Debug)]
pub struct TracedModel {
    /// The tape.
    pub tape: Tape,
    /// The normalised images `[N, H, W, 3]`.
    pub images: Tensor,
    /// The raw outputs.
    pub logits: Tensor,
    /// The model's parameters.
    pub parameters: Vec<Parameter>,
}

impl HostModel {
    /// Reads a model.
    ///
    /// # Errors
    /// [`Kind::Checkpoint`] or [`Kind::Weights`] for files that are missing or damaged.
    pub fn read(source: &ModelSource) -> Result<Self> {
        match source {
            ModelSource::Run(path) => {
                let checkpoint = RunFolder::read_checkpoint_of(path)?;
                let Checkpoint { config, classes, weights, temperature, .. } = checkpoint;
                Ok(Self { config, classes, temperature, weights, allow_partial: false, notes: vec![] })
            }
            ModelSource::Weights { model, file, size, normalisation, preprocess, classes, allow_partial } => {
                let model = Model::find(model)?;
                let names = model.summary(NAMING_SIZE, 1)?.parameters;
                let read = rename(model, &names, weights::read(file)?).map_err(|e| e.at(file.display()))?;
                let metadata = bare_metadata(read.metadata);
                let chosen = normalisation_for(model.name(), Some(&metadata));
                let loss = loss_for(model.task(), &metadata);
                let preprocess = match preprocess {
                    Some(steps) => Preprocess::from(steps.clone()),
                    None => stated_preprocess(&metadata).map_err(|e| e.at(file.display()))?,
                };
                let stated = stated_classes(&metadata);
                let (weights, mut notes) = (read.tensors, read.notes);
                if normalisation.is_none() && chosen != Normalisation::ImageNet {
                    notes.push(chosen.note());
                }
                let normalisation = normalisation.unwrap_or(chosen);
                let classes = match (model.task(), classes) {
                    (Task::Classify, Some(classes)) => classes.clone(),
                    (Task::Classify, None) => match stated {
                        Some(stated) if count_of(&names, &weights).is_none_or(|n| n == stated.len()) => stated,
                        _ => default_classes(&names, &weights, file, &mut notes)?,
                    },
                    (Task::Segment, _) => vec![MASK_CLASS.to_owned()],
                };
                let mut config = TrainConfig { size: *size, normalisation, preprocess, ..TrainConfig::of(model) };
                config.loss = loss.unwrap_or(config.loss);
                Ok(Self { config, classes, temperature: None, weights, allow_partial: *allow_partial, notes })
            }
        }
    }

    /// What turns its outputs into probabilities.
    pub fn outputs(&self) -> Outputs {
        Outputs::of(&self.config)
    }

    /// Traces the model, with its head, as it is evaluated in f32 on `batch` images of a size.
    ///
    /// # Errors
    /// [`Kind::Usage`] for an unknown model, [`Kind::Shape`] if it does not take images of this size.
    pub fn trace(&self, batch: usize, size: ImageSize) -> Result<TracedModel> {
        let model = Model::find(&self.config.model)?;
        let mut tape = Tape::new();
        let images = tape.input("images", TensorType::f32([batch, size.height, size.width, 3]));
        TracedModel::of(model, &self.config, tape, images, model.outputs(self.classes.len()))
    }
}

impl TracedModel {
    /// Traces a model with its head, as it is evaluated, from the normalised images on a tape.
    ///
    /// # Errors
    /// [`Kind::Shape`] if it does not take images of their size.
    pub(super) fn of(
        model: Model,
        config: &TrainConfig,
        mut tape: Tape,
        images: Tensor,
        outputs: usize,
    ) -> Result<Self> {
        let mut net = Net::new(&mut tape, Mode::Eval, 0);
        let features = model.features(&mut net, images)?;
        let logits = model.classify(&mut net, features, config.head.head().as_ref(), outputs)?;
        let parameters = net.into_parameters();
        Ok(Self { tape, images, logits, parameters })
    }
}

/// What the metadata of exported weights says: how a model was configured, its classes, the size of its images, and, where pictures are preprocessed, how.
pub fn describe(config: &TrainConfig, classes: &[String], size: ImageSize) -> Vec<(&'static str, String)> {
    let mut description = vec![
        ("model", config.model.clone()),
        ("classes", serde_json::Value::from(classes).to_string()),
        ("size", size.to_string()),
        ("normalisation", config.normalisation.name().to_owned()),
        ("outputs", Outputs::of(config).name().to_owned()),
    ];
    if !config.preprocess.steps.is_empty() {
        description.push((PREPROCESS, serde_json::json!(config.preprocess).to_string()));
    }
    description
}

/// How pictures are preprocessed where the user does not choose: as a checkpoint or an exported file says, else not at all.
///
/// # Errors
/// Those of [`metadata`](crate::weights::metadata) of the weight file; [`Kind::Weights`] if what it says is not understood.
pub fn preprocess_of(weights: Option<&Path>) -> Result<Preprocess> {
    let Some(file) = weights else { return Ok(Preprocess::default()) };
    stated_preprocess(&bare_metadata(weights::metadata(file)?)).map_err(|e| e.at(file.display()))
}

/// How pictures are preprocessed, by the [description](describe); not at all if it does not say.
fn stated_preprocess(metadata: &BTreeMap<String, String>) -> Result<Preprocess> {
    let Some(text) = metadata.get(PREPROCESS) else { return Ok(Preprocess::default()) };
    serde_json::from_str(text).map_err(|e| {
        let what = format!("the file says that pictures are preprocessed, and this program cannot tell how: {e}");
        Error::new(Kind::Weights, what).next("say it with --preprocess, or `--preprocess none`")
    })
}

/// A loss of sigmoids, if the [description](describe) says that classes do not exclude each other.
fn loss_for(task: Task, metadata: &BTreeMap<String, String>) -> Option<LossKind> {
    let sigmoids = metadata.get("outputs")? == Outputs::Sigmoid.name();
    (task == Task::Classify && sigmoids).then_some(LossKind::Bce)
}

/// The class names of the [description](describe).
fn stated_classes(metadata: &BTreeMap<String, String>) -> Option<Vec<String>> {
    serde_json::from_str(metadata.get("classes")?).ok().filter(|classes: &Vec<String>| !classes.is_empty())
}

/// The classifier's bias, which comes last.
fn last_bias(names: &[Parameter]) -> &str {
    names.last().map_or("", |p| &p.name)
}

/// The number of outputs of a bare weight file.
fn count_of(names: &[Parameter], weights: &Tensors) -> Option<usize> {
    weights.get(last_bias(names)).map(|bias| bias.shape().len())
}

/// Class names from the number of outputs of a bare weight file.
fn default_classes(
    names: &[Parameter],
    weights: &Tensors,
    file: &Path,
    notes: &mut Vec<String>,
) -> Result<Vec<String>> {
    let bias = last_bias(names);
    let count = count_of(names, weights).ok_or_else(|| {
        Error::new(Kind::Weights, format!("the number of classes cannot be told from this file: it has no {bias}"))
            .at(file.display())
            .next("name the classes with --classes a,b,c")
    })?;
    Ok(if count == HAM10000_CLASSES.len() {
        let names = HAM10000_CLASSES.join(",");
        notes.push(format!(
            "the weight file does not name its {count} classes: HAM10000's are assumed ({names}); --classes names others"
        ));
        HAM10000_CLASSES.map(str::to_owned).to_vec()
    } else {
        (0..count).map(|i| i.to_string()).collect()
    })
}
