//! How far probabilities can be taken at their word, and temperature scaling (Guo et al., "On calibration of modern neural
//! networks", 2017, section 4.2): logits are divided by one number before their softmax. That changes no picture's likeliest
//! class.
//!
//! - negative log-likelihood (NLL): the mean of `-ln p` of the pictures' classes
//! - expected calibration error: 15 equal bins of the largest probability, the mean distance of confidence and accuracy

use std::fmt;

use serde::{Deserialize, Serialize};

use super::classification::check_rows;
use super::{argmax, softmax};
use crate::error::{Error, Kind, Result};

/// Bins of the calibration error.
const BINS: usize = 15;
/// Where a temperature is looked for.
pub const TEMPERATURES: [f64; 2] = [0.05, 20.0];

/// Why none was found.
pub const NO_TEMPERATURE: &str =
    "the likelihood of the validation images has no peak between 0.05 and 20, perhaps because all are answered right";

/// A bin of the largest probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CalibrationBin {
    /// Pictures in it.
    pub images: u64,
    /// The mean of their largest probabilities.
    pub confidence: f64,
    /// The share that is right.
    pub accuracy: f64,
}

/// The expected calibration error of probabilities `[N, K]`, and its bins from 0 to 1.
///
/// # Errors
/// [`Kind::Shape`] if there are not N rows of `classes`, or none.
pub fn calibration_error(
    probabilities: &[f64],
    classes: usize,
    labels: &[usize],
) -> Result<(f64, Vec<CalibrationBin>)> {
    check(probabilities, classes, labels)?;
    // Pictures, right ones, sum of the largest probabilities.
    let mut bins = [(0_u64, 0_u64, 0.0); BINS];
    for (row, &label) in probabilities.chunks_exact(classes).zip(labels) {
        let top = argmax(row);
        // Bins are open below and closed above.
        let bin = (row[top] * BINS as f64).ceil() as usize;
        let bin = &mut bins[bin.clamp(1, BINS) - 1];
        *bin = (bin.0 + 1, bin.1 + u64::from(top == label), bin.2 + row[top]);
    }
    let of = |(images, right, sum): (u64, u64, f64)| {
        let all = images.max(1) as f64;
        CalibrationBin { images, confidence: sum / all, accuracy: right as f64 / all }
    };
    let bins: Vec<CalibrationBin> = bins.into_iter().map(of).collect();
    let off = |bin: &CalibrationBin| bin.images as f64 * (bin.accuracy - bin.confidence).abs();
    Ok((bins.iter().map(off).sum::<f64>() / labels.len() as f64, bins))
}

/// The mean negative log-likelihood of probabilities `[N, K]`.
///
/// # Errors
/// As [`calibration_error`].
pub fn nll(probabilities: &[f64], classes: usize, labels: &[usize]) -> Result<f64> {
    check(probabilities, classes, labels)?;
    let rows = probabilities.chunks_exact(classes).zip(labels);
    Ok(rows.map(|(row, &label)| -row[label].max(f64::MIN_POSITIVE).ln()).sum::<f64>() / labels.len() as f64)
}

/// The softmax of logits `[N, K]` divided by a temperature.
///
/// # Errors
/// [`Kind::Shape`] if they are no whole rows of `classes`.
pub fn tempered(logits: &[f32], classes: usize, temperature: f64) -> Result<Vec<f64>> {
    let scaled: Vec<f64> = logits.iter().map(|&v| f64::from(v) / temperature).collect();
    softmax(&scaled, classes)
}

/// The temperature at which logits `[N, K]` have the least NLL; none if there is no least one within [`TEMPERATURES`], as
/// where the likeliest class is always right.
///
/// The NLL is convex in one over the temperature, and its slope the mean of what the softmax expects of the logits, less the
/// logit of the class: so the least is where the slope changes its sign, and halving finds it.
///
/// # Errors
/// [`Kind::Shape`] if there are not N rows of `classes`, or none; [`Kind::Diverged`] if a logit is no finite number.
pub fn fit_temperature(logits: &[f32], classes: usize, labels: &[usize]) -> Result<Option<f64>> {
    if logits.iter().any(|v| !v.is_finite()) {
        return Err(Error::new(Kind::Diverged, "a logit is not a finite number"));
    }
    let slope = |temperature: f64| -> Result<f64> {
        let probabilities = tempered(logits, classes, temperature)?;
        check(&probabilities, classes, labels)?;
        let rows = logits.chunks_exact(classes).zip(probabilities.chunks_exact(classes)).zip(labels);
        let of_row = |((logits, probabilities), &label): ((&[f32], &[f64]), &usize)| {
            let expected: f64 = logits.iter().zip(probabilities).map(|(&z, p)| f64::from(z) * p).sum();
            expected - f64::from(logits[label])
        };
        Ok(rows.map(of_row).sum::<f64>() / labels.len() as f64)
    };
    let [mut cold, mut hot] = TEMPERATURES;
    // Below the best temperature the softmax is too sure, and the slope is positive.
    if slope(cold)? <= 0.0 || slope(hot)? >= 0.0 {
        return Ok(None);
    }
    for _ in 0..64 {
        let middle = (cold * hot).sqrt();
        if slope(middle)? > 0.0 {
            cold = middle;
        } else {
            hot = middle;
        }
    }
    Ok(Some((cold * hot).sqrt()))
}

fn check(probabilities: &[f64], classes: usize, labels: &[usize]) -> Result<()> {
    check_rows(probabilities, classes)?;
    if labels.is_empty() || probabilities.len() != classes * labels.len() {
        let what = format!("{} probabilities of {} pictures and {classes} classes", probabilities.len(), labels.len());
        return Err(Error::new(Kind::Shape, what));
    }
    match labels.iter().all(|&label| label < classes) {
        true => Ok(()),
        false => Err(Error::new(Kind::Shape, format!("a class is out of range for {classes} classes"))),
    }
}

/// What a temperature does to the probabilities of pictures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// The temperature; none of several models together, which have one each.
    pub temperature: Option<f64>,
    /// Without it.
    pub nll_before: f64,
    /// With it.
    pub nll: f64,
    /// Without it.
    pub calibration_error_before: f64,
    /// With it.
    pub calibration_error: f64,
}

impl Calibration {
    /// Compares probabilities `[N, K]` without and with a temperature.
    ///
    /// # Errors
    /// As [`calibration_error`].
    pub fn new(
        temperature: Option<f64>,
        before: &[f64],
        after: &[f64],
        classes: usize,
        labels: &[usize],
    ) -> Result<Self> {
        Ok(Self {
            temperature,
            nll_before: nll(before, classes, labels)?,
            nll: nll(after, classes, labels)?,
            calibration_error_before: calibration_error(before, classes, labels)?.0,
            calibration_error: calibration_error(after, classes, labels)?.0,
        })
    }
}

impl fmt::Display for Calibration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.temperature {
            Some(temperature) => write!(f, "temperature {temperature:.4}")?,
            None => write!(f, "temperatures")?,
        }
        let Self { nll_before, nll, calibration_error_before, calibration_error, .. } = self;
        write!(f, ": NLL {nll_before:.4} -> {nll:.4}, ")?;
        write!(f, "calibration error {calibration_error_before:.4} -> {calibration_error:.4}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits of three classes with their classes. scipy 1.17, `minimize_scalar` of the mean of `-log_softmax(z / t)`, finds
    /// the temperature and the least NLL below.
    const LOGITS: [f32; 24] = [
        4.0, 1.0, -2.0, 0.5, 3.5, 0.0, -1.0, 2.0, 2.5, 6.0, -3.0, 1.0, 0.0, 0.25, 5.0, 2.0, 1.5, -4.0, 3.0, 3.25, -1.0,
        -2.0, 0.5, 4.5,
    ];
    const LABELS: [usize; 8] = [0, 1, 1, 2, 2, 0, 1, 0];

    #[test]
    fn the_temperature_is_that_of_a_general_minimiser() {
        let temperature = fit_temperature(&LOGITS, 3, &LABELS).unwrap().unwrap();
        assert!((temperature - 4.597_565_753_8).abs() < 1e-6, "{temperature}");
        let after = nll(&tempered(&LOGITS, 3, temperature).unwrap(), 3, &LABELS).unwrap();
        assert!((after - 0.973_979_159_055).abs() < 1e-9, "{after}");
        let before = nll(&tempered(&LOGITS, 3, 1.0).unwrap(), 3, &LABELS).unwrap();
        assert!((before - 1.715_234_039_896).abs() < 1e-9, "{before}");
    }

    #[test]
    fn where_there_is_no_least_there_is_no_temperature() {
        // Always right: the surer the better. Always wrong: the less sure the better.
        assert_eq!(fit_temperature(&[1.0, 0.0, 0.0, 2.0], 2, &[0, 1]).unwrap(), None);
        assert_eq!(fit_temperature(&[1.0, 0.0, 0.0, 2.0], 2, &[1, 0]).unwrap(), None);
        assert_eq!(fit_temperature(&[1.0, 0.0], 2, &[]).unwrap_err().kind(), Kind::Shape);
        assert_eq!(fit_temperature(&[1.0, 0.0], 2, &[2]).unwrap_err().kind(), Kind::Shape);
        assert_eq!(fit_temperature(&[1.0, f32::NAN], 2, &[0]).unwrap_err().kind(), Kind::Diverged);
    }
}
