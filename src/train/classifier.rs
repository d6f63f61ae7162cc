//! A trained classifier on a device: from a run, a checkpoint or a bare weight file.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::session::{EvalSession, load_weights};
use super::{Checkpoint, EvalGraph, Normalisation, Precision, RunFolder, TrainConfig};
use crate::autograd::Store;
use crate::data::{Batch, HAM10000_CLASSES};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Caps, Gpu};
use crate::metrics::{ClassificationReport, softmax};
use crate::models::Model;
use crate::tune::TuningCache;
use crate::weights::{self, Difference, Tensors};

/// The scores of a set of images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Cross-entropy: weighted by class during training, unweighted from `eval`.
    pub loss: f64,
    /// Everything else.
    #[serde(flatten)]
    pub report: ClassificationReport,
}

/// Scores logits `[N, K]` against labels. `class_weights` weigh the loss.
///
/// # Errors
/// [`Kind::Diverged`] if a logit is not a number; those of the metrics.
pub(super) fn score(labels: &[usize], logits: &[f32], classes: &[String], class_weights: &[f32]) -> Result<Scores> {
    if logits.iter().any(|v| !v.is_finite()) {
        return Err(Error::new(Kind::Diverged, "the model's outputs are not finite numbers")
            .next("use a smaller --lr, or check the weight file"));
    }
    let probabilities = softmax(logits, classes.len())?;
    let rows = probabilities.chunks_exact(classes.len());
    let (mut loss, mut total) = (0.0, 0.0);
    for (row, &label) in rows.zip(labels) {
        let weight = f64::from(class_weights[label]);
        loss -= weight * row[label].max(f64::MIN_POSITIVE).ln();
        total += weight;
    }
    let report = ClassificationReport::new(classes, labels, &probabilities)?;
    Ok(Scores { loss: if total > 0.0 { loss / total } else { 0.0 }, report })
}

/// Where a classifier comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// A run folder (its best checkpoint) or a checkpoint file.
    Run(PathBuf),
    /// A bare weight file and what it is.
    Weights {
        /// Model name.
        model: String,
        /// The file.
        file: PathBuf,
        /// Image side in pixels.
        size: usize,
        /// Pixel statistics.
        normalisation: Normalisation,
        /// Class names; by default the HAM10000 classes if the file has seven outputs, else numbers.
        classes: Option<Vec<String>>,
        /// Accept a file that lacks some of the parameters.
        allow_partial: bool,
    },
}

/// A classifier ready to run on a device.
pub struct Classifier {
    /// The configuration it was (or would have been) trained with.
    pub config: TrainConfig,
    /// Class names in the order of the logits.
    pub classes: Vec<String>,
    /// What the weight file lacked or had too much; empty unless it was accepted partially.
    pub difference: Difference,
    session: EvalSession,
}

impl Classifier {
    /// Loads a classifier and builds its graph for batches of `batch` images, in the given precision or that of its
    /// training (bare weights are in f32 unless another is given), with the kernels that tuning has chosen.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] for a precision the device lacks; [`Kind::Checkpoint`] or [`Kind::Weights`] for files that
    /// do not fit; device errors.
    pub fn load(
        gpu: &Gpu,
        source: &ModelSource,
        batch: usize,
        precision: Option<Precision>,
        tuning: Option<&TuningCache>,
    ) -> Result<Self> {
        let (mut config, classes, weights, allow_partial) = match source {
            ModelSource::Run(path) => {
                let file = if path.is_dir() { RunFolder::open(path)?.best() } else { path.clone() };
                if path.is_dir() && !file.is_file() {
                    return Err(Error::new(Kind::Checkpoint, "the run has no best checkpoint yet")
                        .at(file.display())
                        .next("let it finish an epoch, or name weights/last.safetensors"));
                }
                let checkpoint = Checkpoint::read(&file)?;
                (checkpoint.config, checkpoint.classes, checkpoint.weights, false)
            }
            ModelSource::Weights { model, file, size, normalisation, classes, allow_partial } => {
                let weights = weights::read(file)?.tensors;
                let classes = match classes {
                    Some(classes) => classes.clone(),
                    None => default_classes(&weights, file)?,
                };
                let config = TrainConfig {
                    model: model.clone(),
                    size: *size,
                    normalisation: *normalisation,
                    ..TrainConfig::default()
                };
                (config, classes, weights, *allow_partial)
            }
        };
        config.validate()?;
        config.precision = precision.unwrap_or(config.precision);
        config.precision.check(gpu)?;
        let model = Model::find(&config.model)?;
        let graph = |caps: &Caps| EvalGraph::new(model, config.eval_augment(), config.size, batch, classes.len(), caps);
        let graph = graph(gpu.caps()).and_then(|untuned| {
            let choices = tuning.map(|cache| cache.choices(&untuned.plan.tunable, gpu.caps())).unwrap_or_default();
            if choices.is_empty() { Ok(untuned) } else { graph(&gpu.caps().with_choices(choices)) }
        })?;
        let mut store = Store::new();
        let session = EvalSession::new(gpu, graph, classes.len(), &mut store)?;
        super::session::initialise(gpu, &store, session.parameters(), config.seed)?;
        let difference = load_weights(gpu, &store, session.parameters(), &weights, allow_partial)?;
        gpu.save_pipelines();
        Ok(Self { config, classes, difference, session })
    }

    /// Logits `[rows, classes]` of all valid rows. `progress` is called with the batches done.
    ///
    /// # Errors
    /// Those of the batches and of `progress`; device errors.
    pub fn logits(
        &mut self,
        gpu: &Gpu,
        batches: impl IntoIterator<Item = Result<Batch>>,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Vec<f32>> {
        self.session.logits(gpu, batches, progress)
    }

    /// Scores images: labels in order, batches of the same images. The loss is weighted by `class_weights`, `[K]`.
    ///
    /// # Errors
    /// As [`logits`](Self::logits); [`Kind::Diverged`] if the outputs are not numbers.
    pub fn evaluate(
        &mut self,
        gpu: &Gpu,
        labels: &[usize],
        class_weights: &[f32],
        batches: impl IntoIterator<Item = Result<Batch>>,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Scores> {
        let logits = self.logits(gpu, batches, progress)?;
        score(labels, &logits, &self.classes, class_weights)
    }
}

/// Class names from the number of outputs of a bare weight file.
fn default_classes(weights: &Tensors, file: &Path) -> Result<Vec<String>> {
    let last = ["fc.bias", "fc2.bias"].iter().find_map(|name| weights.get(*name));
    let count = last.map(|bias| bias.shape().len()).ok_or_else(|| {
        Error::new(Kind::Weights, "the number of classes cannot be told from this file: it has no fc.bias")
            .at(file.display())
            .next("name the classes with --classes a,b,c")
    })?;
    Ok(if count == HAM10000_CLASSES.len() {
        HAM10000_CLASSES.map(str::to_owned).to_vec()
    } else {
        (0..count).map(|i| i.to_string()).collect()
    })
}
