//! The scores of a set of pictures, whatever they were asked for, and the losses on the host.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::verdicts::Verdicts;
use super::{FocalConfig, LossKind, Metric, Monitor, TrainConfig};
use crate::error::{Error, Kind, Result};
use crate::metrics::{Calibration, ClassificationReport, DetailedReport, MultiLabelReport, SegmentationReport};
use crate::ops::dice_loss::Overlap;

/// The scores of a set of images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// The loss of training; of classes weighted during training, unweighted from `eval`.
    pub loss: f64,
    /// Everything else.
    #[serde(flatten)]
    pub report: Report,
    /// Where each class has a sigmoid of its own: the scores of each class by itself. The others go by the largest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multi_label: Option<MultiLabelReport>,
    /// What `eval` tells of a classifier besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detailed: Option<DetailedReport>,
    /// What temperatures do to the probabilities that were scored, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
}

/// The scores but for the loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Report {
    /// Of classes.
    Classes(ClassificationReport),
    /// Of masks.
    Masks(SegmentationReport),
}

impl From<ClassificationReport> for Report {
    fn from(report: ClassificationReport) -> Self {
        Self::Classes(report)
    }
}

impl From<SegmentationReport> for Report {
    fn from(report: SegmentationReport) -> Self {
        Self::Masks(report)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Classes(report) => report.fmt(f),
            Self::Masks(report) => report.fmt(f),
        }
    }
}

/// The names of [`Scores::named`].
const SCORES: [&str; 13] = [
    "loss",
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "weighted_f1",
    "average_precision",
    "auc",
    "exact_match",
    "dice",
    "jaccard",
    "threshold_jaccard",
    "sensitivity",
    "specificity",
];

impl Scores {
    /// The score that tables call `name`.
    pub fn named(&self, name: &str) -> Option<f64> {
        match (name, &self.report) {
            ("loss", _) => Some(self.loss),
            ("accuracy", Report::Classes(r)) => Some(r.accuracy),
            ("balanced_accuracy", Report::Classes(r)) => Some(r.balanced_accuracy),
            ("macro_f1", Report::Classes(r)) => Some(r.macro_f1),
            ("weighted_f1", Report::Classes(r)) => Some(r.weighted_f1),
            ("average_precision", Report::Classes(r)) => r.macro_average_precision,
            ("auc", Report::Classes(r)) => self.multi_label.as_ref().map_or(r.macro_auc, |m| m.macro_auc),
            ("exact_match", Report::Classes(_)) => self.multi_label.as_ref().map(|m| m.exact_match),
            ("dice", Report::Masks(r)) => Some(r.dice),
            ("jaccard", Report::Masks(r)) => Some(r.jaccard),
            ("threshold_jaccard", Report::Masks(r)) => Some(r.threshold_jaccard),
            ("sensitivity", Report::Masks(r)) => Some(r.sensitivity),
            ("specificity", Report::Masks(r)) => Some(r.specificity),
            ("accuracy", Report::Masks(r)) => Some(r.accuracy),
            _ => None,
        }
    }

    /// All scores that have a name.
    pub fn all(&self) -> BTreeMap<String, f64> {
        let named = SCORES.iter().filter_map(|name| Some(((*name).to_owned(), self.named(name)?)));
        named.collect()
    }

    /// What a monitor goes by, the higher the better.
    pub fn monitored(&self, monitor: &Monitor) -> Option<f64> {
        match (monitor, &self.report) {
            (Monitor::Of(Metric::Loss), _) => Some(-self.loss),
            (Monitor::Of(Metric::PixelAccuracy), Report::Masks(report)) => Some(report.accuracy),
            (Monitor::Of(metric), _) => self.named(&metric.name().replace('-', "_")),
            (Monitor::Recall(class), Report::Classes(report)) => {
                report.per_class.iter().find(|scores| scores.name == *class).map(|scores| scores.recall)
            }
            (Monitor::Recall(_), Report::Masks(_)) => None,
        }
    }
}

/// The error of outputs that are no numbers.
pub(crate) fn not_finite() -> Error {
    Error::new(Kind::Diverged, "the model's outputs are not finite numbers")
        .next("use a smaller --lr, or check the weight file")
}

/// The loss of a classifier.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassLoss {
    /// Which.
    pub kind: LossKind,
    /// The constants of the focal ones.
    pub focal: FocalConfig,
}

impl ClassLoss {
    /// That of a configuration.
    pub fn of(config: &TrainConfig) -> Self {
        Self { kind: config.loss, focal: config.focal }
    }

    /// The loss of one picture, without its weight. `probabilities` are those of the logits as they are.
    fn of_picture(self, logits: &[f64], probabilities: &[f64], labels: &[usize]) -> f64 {
        let FocalConfig { gamma, alpha } = self.focal;
        if !self.kind.of_sigmoids() {
            let p = probabilities[labels[0]].max(f64::MIN_POSITIVE);
            let gamma = if self.kind == LossKind::Focal { gamma } else { 0.0 };
            return -(1.0 - p).powf(gamma) * p.ln();
        }
        let of_class = |(class, (&x, &s)): (usize, (&f64, &f64))| {
            let has = labels.contains(&class);
            // log(1 + exp(x)) - t x without overflow.
            let bce = x.max(0.0) - if has { x } else { 0.0 } + (-x.abs()).exp().ln_1p();
            match (self.kind, has) {
                (LossKind::SigmoidFocal, true) => alpha * (1.0 - s).powf(gamma) * bce,
                (LossKind::SigmoidFocal, false) => (1.0 - alpha) * s.powf(gamma) * bce,
                _ => bce,
            }
        };
        logits.iter().zip(probabilities).enumerate().map(of_class).sum::<f64>() / logits.len() as f64
    }
}

/// The weight of a picture in the loss: the mean over its classes.
pub(super) fn weight_of(labels: &[usize], class_weights: &[f32]) -> f32 {
    let of = |&label: &usize| class_weights.get(label).copied().unwrap_or_default();
    labels.iter().map(of).sum::<f32>() / labels.len().max(1) as f32
}

/// Scores what was said of pictures against their classes, of each the first one first. `class_weights` weigh the loss, which
/// knows no temperature.
///
/// # Errors
/// Those of the metrics.
pub(super) fn score(
    labels: &[Vec<usize>],
    verdicts: &Verdicts,
    classes: &[String],
    class_weights: &[f32],
    loss: ClassLoss,
) -> Result<Scores> {
    let k = classes.len();
    let Verdicts { logits, plain, probabilities } = verdicts;
    let rows = logits.chunks_exact(k).zip(plain.chunks_exact(k));
    let (mut sum, mut total) = (0.0, 0.0);
    for ((logits, probabilities), labels) in rows.zip(labels) {
        let weight = f64::from(weight_of(labels, class_weights));
        sum += weight * loss.of_picture(logits, probabilities, labels);
        total += weight;
    }
    let first: Vec<usize> = labels.iter().map(|labels| labels[0]).collect();
    let report = ClassificationReport::new(classes, &first, probabilities)?;
    let multi_label = loss.kind.of_sigmoids().then(|| MultiLabelReport::new(k, labels, probabilities)).transpose()?;
    let loss = if total > 0.0 { sum / total } else { 0.0 };
    Ok(Scores { loss, report: report.into(), multi_label, detailed: None, calibration: None })
}

/// The loss of one picture's mask, in f64: what the device computes of a batch is the mean over its pictures.
///
/// # Errors
/// [`Kind::Diverged`] if a logit is not a number; [`Kind::Internal`] for a loss of classes.
pub(super) fn mask_loss(kind: LossKind, logits: &[f32], drawn: &[bool]) -> Result<f64> {
    if logits.iter().any(|v| !v.is_finite()) {
        return Err(not_finite());
    }
    let pixels = || logits.iter().zip(drawn).map(|(&x, &inside)| (f64::from(x), f64::from(u8::from(inside))));
    // log(1 + exp(x)) - t x without overflow.
    let bce =
        || pixels().map(|(x, t)| x.max(0.0) - t * x + (-x.abs()).exp().ln_1p()).sum::<f64>() / logits.len() as f64;
    let smoothing = f64::from(Overlap::default().smoothing);
    let overlap = |share: f64| {
        let (mut both, mut all) = (0.0, 0.0);
        for (x, t) in pixels() {
            let s = 1.0 / (1.0 + (-x).exp());
            both += s * t;
            all += s + t;
        }
        // Dice counts what is common twice, above and below; Jaccard once, and takes it out of the union.
        1.0 - (share * both + smoothing) / (all - (2.0 - share) * both + smoothing)
    };
    match kind {
        LossKind::Bce => Ok(bce()),
        LossKind::Dice => Ok(overlap(2.0)),
        LossKind::Jaccard => Ok(overlap(1.0)),
        LossKind::BceDice => Ok(bce() + overlap(2.0)),
        LossKind::CrossEntropy | LossKind::Focal | LossKind::SigmoidFocal => {
            Err(Error::new(Kind::Internal, format!("{} is no loss of masks", kind.name())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_of_masks_have_the_values_of_their_formulas() {
        // Probabilities 3/4 inside, 1/4 outside.
        let logits = [3.0_f32.ln(), -(3.0_f32.ln())];
        let of = |kind| mask_loss(kind, &logits, &[true, false]).unwrap();
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a} {b}");
        close(of(LossKind::Bce), -(0.75_f64).ln());
        close(of(LossKind::Dice), 1.0 - 2.5 / 3.0);
        close(of(LossKind::Jaccard), 1.0 - 1.75 / 2.25);
        close(of(LossKind::BceDice), of(LossKind::Bce) + of(LossKind::Dice));
        assert!(mask_loss(LossKind::Bce, &[1e4, -1e4], &[false, true]).unwrap() == 1e4);
        assert_eq!(mask_loss(LossKind::Bce, &[f32::NAN], &[true]).unwrap_err().kind(), Kind::Diverged);
    }
}
