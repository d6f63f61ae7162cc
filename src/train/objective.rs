//! What a run is trained for: what the loss is, what the outputs mean, how they are scored. One engine serves all tasks;
//! where they differ is here, in [`super::scores`], and in what a session uploads with a batch.

use std::collections::HashMap;
use std::sync::Arc;

use super::answers::{Asked, Given, class_table, mask_table};
use super::graph::{Images, input};
use super::scores::{ClassLoss, Scores, mask_loss, score};
use super::session::EvalSession;
use super::verdicts::Verdicts;
use super::{ClassWeighting, LossKind, Outputs, Sampling, TrainConfig};
use crate::autograd::{Tape, Tensor};
use crate::data::{Batch, Dataset, Masks, PixelStore, SplitAssignment, Weighting, class_weights};
use crate::error::{Error, Kind, Result};
use crate::gpu::Gpu;
use crate::metrics::{PixelCounts, SegmentationReport};
use crate::models::{Model, Task};
use crate::ops::augment::masks;
use crate::ops::dice_loss::{Overlap, dice_loss, soft_jaccard_loss};
use crate::ops::focal_loss::{Focal, focal_loss};
use crate::ops::sigmoid_focal_loss::{SigmoidFocal, sigmoid_focal_loss};
use crate::ops::softmax_cross_entropy::{mixed_cross_entropy, softmax_cross_entropy};
use crate::ops::{add, bce_with_logits::bce_with_logits};
use crate::tensor::TensorType;

/// The one class of a model that segments.
pub(super) const MASK_CLASS: &str = "lesion";

/// What a model's outputs mean.
#[derive(Debug, Clone, PartialEq)]
pub enum Objective {
    /// The classes of pictures.
    Classify {
        /// Their names, in the order of the logits.
        classes: Vec<String>,
        /// Their weights in the loss.
        weights: Vec<f32>,
        /// The loss.
        loss: ClassLoss,
        /// Further classes of pictures that have several, by their number in the dataset.
        more: Arc<HashMap<u32, Vec<u32>>>,
    },
    /// The masks of lesions.
    Segment {
        /// The loss.
        loss: LossKind,
    },
}

impl Objective {
    /// That of a run: class weights come from its training pictures. Also returns what a user should know.
    ///
    /// # Errors
    /// [`Kind::Internal`] for masks that were not opened.
    pub fn new(
        model: Model,
        config: &TrainConfig,
        dataset: &Dataset,
        split: &SplitAssignment,
    ) -> Result<(Self, Vec<String>)> {
        if model.task() == Task::Segment {
            return match dataset.samples.iter().all(|s| s.mask.is_some()) {
                true => Ok((Self::Segment { loss: config.loss }, vec![])),
                false => Err(Error::new(Kind::Internal, "the dataset was opened without masks").at(&dataset.origin)),
            };
        }
        let classes = dataset.classes.clone();
        let loss = ClassLoss::of(config);
        let several = dataset.samples.iter().enumerate().filter(|(_, sample)| !sample.more.is_empty());
        let more: HashMap<u32, Vec<u32>> =
            several.map(|(i, sample)| (i as u32, sample.more.iter().map(|&class| class as u32).collect())).collect();
        if !more.is_empty() && !loss.kind.of_sigmoids() {
            let what =
                format!("{} pictures have several classes, and --loss {} knows one", more.len(), loss.kind.name());
            return Err(Error::new(Kind::Usage, what).next("use --loss bce or sigmoid-focal"));
        }
        let more = Arc::new(more);
        let weighting = match config.class_weights {
            ClassWeighting::Balanced => Some(Weighting::Balanced),
            ClassWeighting::Median => Some(Weighting::MedianFrequency),
            ClassWeighting::Inverse => Some(Weighting::Inverse),
            ClassWeighting::Effective => Some(Weighting::EffectiveNumber),
            ClassWeighting::None => None,
        };
        let Some(weighting) = weighting else {
            let weights = vec![1.0; classes.len()];
            return Ok((Self::Classify { classes, weights, loss, more }, vec![]));
        };
        let train_labels = split.train.iter().map(|&i| dataset.samples[i].label);
        let mut found = class_weights(train_labels, &classes, weighting);
        if config.sampling == Sampling::Balanced {
            found.notes.push("rare classes are drawn more often, and weigh more in the loss as well".to_owned());
        }
        Ok((Self::Classify { classes, weights: found.weights, loss, more }, found.notes))
    }

    /// The names of the outputs.
    pub fn classes(&self) -> Vec<String> {
        match self {
            Self::Classify { classes, .. } => classes.clone(),
            Self::Segment { .. } => vec![MASK_CLASS.to_owned()],
        }
    }

    /// The weights of the classes in the loss; none where there are no classes.
    pub fn class_weights(&self) -> &[f32] {
        match self {
            Self::Classify { weights, .. } => weights,
            Self::Segment { .. } => &[],
        }
    }

    /// Further classes of pictures that have several, by their number in the dataset.
    pub(super) fn more_labels(&self) -> Arc<HashMap<u32, Vec<u32>>> {
        match self {
            Self::Classify { more, .. } => Arc::clone(more),
            Self::Segment { .. } => Arc::default(),
        }
    }

    /// Whether pictures are right or wrong, so that they can be counted.
    pub fn counts_correct(&self) -> bool {
        matches!(self, Self::Classify { .. })
    }

    /// The columns of `results.csv` between the training loss and the seconds.
    pub fn result_columns(&self) -> &'static [&'static str] {
        match self {
            Self::Classify { loss, .. } if loss.kind.of_sigmoids() => &[
                "train_accuracy",
                "val_loss",
                "val_accuracy",
                "val_balanced_accuracy",
                "val_macro_f1",
                "val_auc",
                "val_exact_match",
            ],
            Self::Classify { .. } => {
                &["train_accuracy", "val_loss", "val_accuracy", "val_balanced_accuracy", "val_macro_f1", "val_auc"]
            }
            Self::Segment { .. } => &[
                "val_loss",
                "val_dice",
                "val_jaccard",
                "val_threshold_jaccard",
                "val_sensitivity",
                "val_specificity",
                "val_accuracy",
            ],
        }
    }

    /// The fields of those columns.
    pub fn result_fields(&self, train_accuracy: Option<f64>, val: Option<&Scores>) -> Vec<String> {
        let value = |name: &str| match name.strip_prefix("val_") {
            Some(name) => val.and_then(|scores| scores.named(name)),
            None => train_accuracy,
        };
        let text = |value: Option<f64>| value.map_or(String::new(), |v| format!("{v:.6}"));
        self.result_columns().iter().map(|name| text(value(name))).collect()
    }

    /// The table of answers to the samples `indices` of `dataset`, of a split that may be `leaky`.
    ///
    /// # Errors
    /// [`Kind::Internal`] if it cannot be encoded.
    pub(super) fn answers(&self, leaky: bool, dataset: &Dataset, indices: &[usize], given: &Given) -> Result<Vec<u8>> {
        let samples = || indices.iter().map(|&i| &dataset.samples[i]);
        let asked: Vec<Asked<'_>> = samples().map(|s| Asked { image: &s.id, lesion: &s.group }).collect();
        let labels: Vec<usize> = samples().map(|s| s.label).collect();
        match given {
            Given::Probabilities(p) => class_table(leaky, &dataset.classes, &asked, &labels, p),
            Given::Masks(counts) => mask_table(leaky, &asked, counts),
        }
    }

    /// Draws the masks of `batches`, which hold the samples `indices` in order, and compares each with that of `pixels`, at the
    /// size of these.
    ///
    /// # Errors
    /// Those of the batches and of `progress`; [`Kind::Diverged`] if the outputs are not numbers; [`Kind::Internal`] where
    /// classes are learned; device errors.
    pub(super) fn draw(
        &self,
        gpu: &Gpu,
        session: &mut EvalSession,
        (pixels, indices): (&PixelStore, &[usize]),
        batches: impl IntoIterator<Item = Result<Batch>>,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Vec<Drawn>> {
        let Self::Segment { loss } = self else {
            return Err(Error::new(Kind::Internal, "no masks are learned"));
        };
        let mut all = vec![];
        session.each_picture(gpu, batches, progress, &mut |picture, logits| {
            let drawn: Vec<bool> = pixels.pixels(indices[picture])?.chunks_exact(4).map(|p| p[3] > 0).collect();
            let loss = mask_loss(*loss, logits, &drawn)?;
            let counts = PixelCounts::of(logits.iter().map(|&v| v > 0.0).zip(drawn));
            let PixelCounts { true_positives, false_positives, false_negatives, true_negatives } = counts;
            all.push(Drawn { loss, counts: [true_positives, false_positives, false_negatives, true_negatives] });
            Ok(())
        })?;
        Ok(all)
    }
}

/// How well the mask of a picture was drawn.
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Drawn {
    loss: f64,
    /// Those of [`PixelCounts`], in their order.
    counts: [u64; 4],
}

/// The scores of masks, in the order of their pictures.
///
/// # Errors
/// Those of [`SegmentationReport::new`].
pub(super) fn score_drawn(drawn: &[Drawn]) -> Result<(Scores, Given)> {
    let counts: Vec<PixelCounts> = drawn
        .iter()
        .map(|of| {
            let [true_positives, false_positives, false_negatives, true_negatives] = of.counts;
            PixelCounts { true_positives, false_positives, false_negatives, true_negatives }
        })
        .collect();
    let report = SegmentationReport::new(&counts)?;
    let loss = drawn.iter().map(|of| of.loss).sum::<f64>() / counts.len() as f64;
    let scores = Scores { loss, report: report.into(), multi_label: None, detailed: None, calibration: None };
    Ok((scores, Given::Masks(counts)))
}

impl Objective {
    /// What turns outputs into probabilities.
    pub fn outputs(&self) -> Outputs {
        match self {
            Self::Classify { loss, .. } if !loss.kind.of_sigmoids() => Outputs::Softmax,
            _ => Outputs::Sigmoid,
        }
    }

    /// Scores the logits `[N, K]` of the samples `indices` of `dataset`, at a temperature if there is one.
    ///
    /// # Errors
    /// [`Kind::Diverged`] if they are not numbers; [`Kind::Internal`] for masks, which are scored one by one.
    pub(super) fn score_logits(
        &self,
        (dataset, indices): (&Dataset, &[usize]),
        logits: &[f32],
        temperature: Option<f64>,
    ) -> Result<(Scores, Given)> {
        let Self::Classify { classes, weights, loss, .. } = self else {
            return Err(Error::new(Kind::Internal, "masks are scored one by one"));
        };
        let verdicts = Verdicts::of_logits(logits, classes.len(), self.outputs(), temperature)?;
        let labels: Vec<Vec<usize>> = indices.iter().map(|&i| dataset.samples[i].all_labels()).collect();
        let scores = score(&labels, &verdicts, classes, weights, *loss)?;
        let calibration = verdicts.calibration(temperature, &labels, classes.len())?;
        Ok((Scores { calibration, ..scores }, Given::Probabilities(verdicts.probabilities)))
    }
}

/// Which masks a run opens.
pub fn masks_of(task: Task, config: &TrainConfig) -> Masks {
    match (task, &config.masks) {
        (Task::Classify, _) => Masks::Unused,
        (Task::Segment, None) => Masks::OfDataset,
        (Task::Segment, Some(place)) => Masks::In(place.into()),
    }
}

/// Appends the loss of `logits`, shape `[1]`. Declares the inputs it needs; masks come with the pictures.
pub(super) fn trace_loss(
    tape: &mut Tape,
    config: &TrainConfig,
    images: Option<&Images>,
    logits: Tensor,
) -> Result<Tensor> {
    let (batch, last) = (tape.shape(logits).dims()[0], tape.shape(logits).last());
    if tape.shape(logits).rank() == 2 {
        let gamma = config.focal.gamma as f32;
        if config.loss.of_sigmoids() {
            let targets = tape.input(input::TARGETS, TensorType::f32([batch, last]));
            let weights = tape.input(input::ROW_WEIGHTS, TensorType::f32([batch]));
            let spec = match config.loss {
                LossKind::SigmoidFocal => SigmoidFocal { gamma, alpha: Some(config.focal.alpha as f32) },
                // Without its two constants the focal loss is binary cross-entropy.
                _ => SigmoidFocal { gamma: 0.0, alpha: None },
            };
            return sigmoid_focal_loss(tape, logits, targets, Some(weights), spec);
        }
        let weights = tape.input(input::CLASS_WEIGHTS, TensorType::f32([last]));
        if config.augment.mixes() {
            let shares = tape.input(input::TARGETS, TensorType::f32([batch, last]));
            return mixed_cross_entropy(tape, logits, shares, Some(weights), config.label_smoothing as f32);
        }
        let labels = tape.input(input::LABELS, TensorType::u32([batch]));
        return match config.loss {
            LossKind::Focal => focal_loss(tape, logits, labels, Some(weights), Focal { gamma, by_weight: true }),
            _ => softmax_cross_entropy(tape, logits, labels, Some(weights), config.label_smoothing as f32),
        };
    }
    let images = images.ok_or_else(|| Error::new(Kind::Internal, "masks are learned from pictures alone"))?;
    let targets = masks(tape, images.pixels, images.samples, images.epoch, config.train_augment())?;
    let overlap = Overlap::default();
    match config.loss {
        LossKind::Dice => dice_loss(tape, logits, targets, None, overlap),
        LossKind::Jaccard => soft_jaccard_loss(tape, logits, targets, None, overlap),
        LossKind::Bce => bce_with_logits(tape, logits, targets),
        LossKind::BceDice => {
            let bce = bce_with_logits(tape, logits, targets)?;
            let dice = dice_loss(tape, logits, targets, None, overlap)?;
            add::add(tape, bce, dice)
        }
        LossKind::CrossEntropy | LossKind::Focal | LossKind::SigmoidFocal => {
            Err(Error::new(Kind::Internal, format!("{} is no loss of masks", config.loss.name())))
        }
    }
}
