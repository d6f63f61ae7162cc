//! What models say of the classes of pictures: raw outputs, probabilities without and with a temperature, of one model or the
//! mean of several.

use super::Outputs;
use super::scores::not_finite;
use crate::error::{Error, Kind, Result};
use crate::metrics::{Calibration, sigmoid, softmax, tempered};

/// Logits that have these probabilities.
pub(super) fn logits_of(probabilities: &[f64], outputs: Outputs) -> Vec<f64> {
    let logit = |&p: &f64| match outputs {
        Outputs::Softmax => p.max(f64::MIN_POSITIVE).ln(),
        Outputs::Sigmoid => (p.max(f64::MIN_POSITIVE) / (1.0 - p).max(f64::EPSILON)).ln(),
    };
    probabilities.iter().map(logit).collect()
}

/// What a model, or several together, say of N pictures: all `[N, K]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdicts {
    /// Raw outputs; of several views or models together what their mean probabilities would come from.
    pub logits: Vec<f64>,
    /// Probabilities without a temperature.
    pub plain: Vec<f64>,
    /// Probabilities.
    pub probabilities: Vec<f64>,
}

impl Verdicts {
    /// Those of raw outputs, by a softmax at a temperature, if there is one, or by a sigmoid each.
    ///
    /// # Errors
    /// [`Kind::Diverged`] if an output is not a number, [`Kind::Shape`] if there are no whole rows.
    pub fn of_logits(logits: &[f32], classes: usize, outputs: Outputs, temperature: Option<f64>) -> Result<Self> {
        if logits.iter().any(|v| !v.is_finite()) {
            return Err(not_finite());
        }
        let plain = match outputs {
            Outputs::Sigmoid => sigmoid(logits),
            Outputs::Softmax => softmax(logits, classes)?,
        };
        let probabilities = match (outputs, temperature) {
            (Outputs::Softmax, Some(temperature)) => tempered(logits, classes, temperature)?,
            _ => plain.clone(),
        };
        Ok(Self { logits: logits.iter().map(|&v| v.into()).collect(), plain, probabilities })
    }

    /// The mean of what several say of the same pictures; of one what it says.
    ///
    /// # Errors
    /// [`Kind::Internal`] if there are none, or of different numbers of pictures.
    pub fn mean(all: &[Self], outputs: Outputs) -> Result<Self> {
        let wrong = || Error::new(Kind::Internal, "there is nothing to take the mean of");
        let first = all.first().ok_or_else(wrong)?;
        if all.len() == 1 {
            return Ok(first.clone());
        }
        if all.iter().any(|one| one.logits.len() != first.logits.len()) {
            return Err(wrong());
        }
        let mean = |of: fn(&Self) -> &[f64]| -> Vec<f64> {
            let at = |i: usize| all.iter().map(|one| of(one)[i]).sum::<f64>() / all.len() as f64;
            (0..first.logits.len()).map(at).collect()
        };
        let (plain, probabilities) = (mean(|one| &one.plain), mean(|one| &one.probabilities));
        Ok(Self { logits: logits_of(&plain, outputs), plain, probabilities })
    }

    /// What temperatures do to them: that one, or those of several models, if there are any.
    ///
    /// # Errors
    /// [`Kind::Shape`] if there are no pictures.
    pub(super) fn calibration(
        &self,
        temperature: Option<f64>,
        labels: &[Vec<usize>],
        classes: usize,
    ) -> Result<Option<Calibration>> {
        if self.plain == self.probabilities {
            return Ok(None);
        }
        let first: Vec<usize> = labels.iter().map(|labels| labels[0]).collect();
        Calibration::new(temperature, &self.plain, &self.probabilities, classes, &first).map(Some)
    }

    /// Those of the pictures at these places.
    #[must_use]
    pub fn select(&self, places: &[usize], classes: usize) -> Self {
        let of = |all: &[f64]| places.iter().flat_map(|i| &all[i * classes..][..classes]).copied().collect();
        Self { logits: of(&self.logits), plain: of(&self.plain), probabilities: of(&self.probabilities) }
    }

    /// Of other pictures, behind these.
    pub fn extend(&mut self, other: Self) {
        self.logits.extend(other.logits);
        self.plain.extend(other.plain);
        self.probabilities.extend(other.probabilities);
    }
}
