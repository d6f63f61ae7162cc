//! A trained model in host memory: for everything that needs no device.

use std::path::Path;

use super::objective::MASK_CLASS;
use super::starting_weights::{normalisation_for, rename};
use super::{Checkpoint, ModelSource, Normalisation, RunFolder, TrainConfig};
use crate::autograd::{Tape, Tensor};
use crate::data::{HAM10000_CLASSES, ImageSize};
use crate::error::{Error, Kind, Result};
use crate::models::{Model, Task};
use crate::nn::{Mode, Net, Parameter};
use crate::tensor::TensorType;
use crate::weights::{self, Tensors};

/// A size of pictures that every model takes: for parameters' names, which do not depend on it.
const NAMING_SIZE: usize = 224;

/// A trained model in host memory.
#[derive(Debug, Clone, PartialEq)]
pub struct HostModel {
    /// The configuration it was (or would have been) trained with.
    pub config: TrainConfig,
    /// Class names in the order of the outputs.
    pub classes: Vec<String>,
    /// Parameters and running statistics, in a file's layout.
    pub weights: Tensors,
    /// Whether some of them may be missing.
    pub allow_partial: bool,
    /// What there is to say of the weight file, a line each.
    pub notes: Vec<String>,
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
                let file = if path.is_dir() { RunFolder::open(path)?.best() } else { path.clone() };
                if path.is_dir() && !file.is_file() {
                    return Err(Error::new(Kind::Checkpoint, "the run has no best checkpoint yet")
                        .at(file.display())
                        .next("let it finish an epoch, or name weights/last.safetensors"));
                }
                let Checkpoint { config, classes, weights, .. } = Checkpoint::read(&file)?;
                Ok(Self { config, classes, weights, allow_partial: false, notes: vec![] })
            }
            ModelSource::Weights { model, file, size, normalisation, classes, allow_partial } => {
                let model = Model::find(model)?;
                let names = model.summary(NAMING_SIZE, 1)?.parameters;
                let read = rename(model, &names, weights::read(file)?).map_err(|e| e.at(file.display()))?;
                let chosen = normalisation_for(model.name(), Some(&read.metadata));
                let (weights, mut notes) = (read.tensors, read.notes);
                if normalisation.is_none() && chosen != Normalisation::ImageNet {
                    notes.push(chosen.note());
                }
                let normalisation = normalisation.unwrap_or(chosen);
                let classes = match (model.task(), classes) {
                    (Task::Classify, Some(classes)) => classes.clone(),
                    (Task::Classify, None) => default_classes(&names, &weights, file)?,
                    (Task::Segment, _) => vec![MASK_CLASS.to_owned()],
                };
                let config = TrainConfig { size: *size, normalisation, ..TrainConfig::of(model) };
                Ok(Self { config, classes, weights, allow_partial: *allow_partial, notes })
            }
        }
    }

    /// Traces the model, with its head, as it is evaluated in f32 on `batch` images of a size.
    ///
    /// # Errors
    /// [`Kind::Usage`] for an unknown model, [`Kind::Shape`] if it does not take images of this size.
    pub fn trace(&self, batch: usize, size: ImageSize) -> Result<TracedModel> {
        let model = Model::find(&self.config.model)?;
        let mut tape = Tape::new();
        let images = tape.input("images", TensorType::f32([batch, size.height, size.width, 3]));
        let mut net = Net::new(&mut tape, Mode::Eval, 0);
        let outputs = model.outputs(self.classes.len());
        let features = model.features(&mut net, images)?;
        let logits = model.classify(&mut net, features, self.config.head.head().as_ref(), outputs)?;
        let parameters = net.into_parameters();
        Ok(TracedModel { tape, images, logits, parameters })
    }
}

/// Class names from the number of outputs of a bare weight file.
fn default_classes(names: &[Parameter], weights: &Tensors, file: &Path) -> Result<Vec<String>> {
    // The classifier comes last.
    let bias = names.last().map_or("", |p| &p.name);
    let count = weights.get(bias).map(|bias| bias.shape().len()).ok_or_else(|| {
        Error::new(Kind::Weights, format!("the number of classes cannot be told from this file: it has no {bias}"))
            .at(file.display())
            .next("name the classes with --classes a,b,c")
    })?;
    Ok(if count == HAM10000_CLASSES.len() {
        HAM10000_CLASSES.map(str::to_owned).to_vec()
    } else {
        (0..count).map(|i| i.to_string()).collect()
    })
}
