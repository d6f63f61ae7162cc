//! The scores of a set of pictures, whatever they were asked for, and the losses on the host.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::config::{LossKind, Monitor};
use crate::error::{Error, Kind, Result};
use crate::metrics::{ClassificationReport, SegmentationReport, softmax};
use crate::ops::dice_loss::Overlap;

/// The scores of a set of images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// The loss of training; of classes weighted during training, unweighted from `eval`.
    pub loss: f64,
    /// Everything else.
    #[serde(flatten)]
    pub report: Report,
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

impl Scores {
    /// The score that tables call `name`.
    pub fn named(&self, name: &str) -> Option<f64> {
        match (name, &self.report) {
            ("loss", _) => Some(self.loss),
            ("accuracy", Report::Classes(r)) => Some(r.accuracy),
            ("balanced_accuracy", Report::Classes(r)) => Some(r.balanced_accuracy),
            ("macro_f1", Report::Classes(r)) => Some(r.macro_f1),
            ("dice", Report::Masks(r)) => Some(r.dice),
            ("jaccard", Report::Masks(r)) => Some(r.jaccard),
            ("threshold_jaccard", Report::Masks(r)) => Some(r.threshold_jaccard),
            ("sensitivity", Report::Masks(r)) => Some(r.sensitivity),
            ("specificity", Report::Masks(r)) => Some(r.specificity),
            ("accuracy", Report::Masks(r)) => Some(r.accuracy),
            _ => None,
        }
    }

    /// What a monitor goes by, the higher the better.
    pub fn monitored(&self, monitor: Monitor) -> Option<f64> {
        match monitor {
            Monitor::BalancedAccuracy => self.named("balanced_accuracy"),
            Monitor::Jaccard => self.named("jaccard"),
            Monitor::Dice => self.named("dice"),
            Monitor::Loss => Some(-self.loss),
        }
    }
}

/// The error of outputs that are no numbers.
pub(super) fn not_finite() -> Error {
    Error::new(Kind::Diverged, "the model's outputs are not finite numbers")
        .next("use a smaller --lr, or check the weight file")
}

/// Scores logits `[N, K]` against labels. `class_weights` weigh the loss.
///
/// # Errors
/// [`Kind::Diverged`] if a logit is not a number; those of the metrics.
pub(super) fn score(labels: &[usize], logits: &[f32], classes: &[String], class_weights: &[f32]) -> Result<Scores> {
    if logits.iter().any(|v| !v.is_finite()) {
        return Err(not_finite());
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
    Ok(Scores { loss: if total > 0.0 { loss / total } else { 0.0 }, report: report.into() })
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
        LossKind::CrossEntropy => Err(Error::new(Kind::Internal, "cross-entropy is no loss of masks")),
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
