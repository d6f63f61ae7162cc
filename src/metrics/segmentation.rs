//! Scores of masks: overlap of what was found with what was drawn, picture by picture, as ISIC 2018 Task 1 defines them
//! (Codella et al., 2019).
//!
//! With the pixels of a picture counted as true and false positives and negatives:
//!
//! - Jaccard index `tp / (tp + fp + fn)`, Dice coefficient `2 tp / (2 tp + fp + fn)`
//! - threshold Jaccard: the Jaccard index, but 0 where it is below 0.65: such a mask has to be drawn anew
//! - sensitivity `tp / (tp + fn)`, specificity `tn / (tn + fp)`, accuracy `(tp + tn) / all`
//!
//! A score of a set is the mean over its pictures, so a small lesion counts as much as a large one. A ratio of nothing to
//! nothing is 1: of an empty mask nothing was missed, and an empty mask that was left empty is right.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// Below this a Jaccard index counts as failure.
pub const JACCARD_THRESHOLD: f64 = 0.65;

/// The pixels of one picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PixelCounts {
    /// Inside, and found.
    pub true_positives: u64,
    /// Outside, but found.
    pub false_positives: u64,
    /// Inside, and missed.
    pub false_negatives: u64,
    /// Outside, and not found.
    pub true_negatives: u64,
}

/// `part / whole`, and 1 if there is nothing.
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}

impl PixelCounts {
    /// Counts pairs of (found, drawn).
    pub fn of(pixels: impl IntoIterator<Item = (bool, bool)>) -> Self {
        let mut counts = Self::default();
        for (found, drawn) in pixels {
            *match (found, drawn) {
                (true, true) => &mut counts.true_positives,
                (true, false) => &mut counts.false_positives,
                (false, true) => &mut counts.false_negatives,
                (false, false) => &mut counts.true_negatives,
            } += 1;
        }
        counts
    }

    /// Dice coefficient.
    pub fn dice(self) -> f64 {
        let twice = 2 * self.true_positives;
        ratio(twice, twice + self.false_positives + self.false_negatives)
    }

    /// Jaccard index.
    pub fn jaccard(self) -> f64 {
        ratio(self.true_positives, self.true_positives + self.false_positives + self.false_negatives)
    }

    /// Jaccard index, or 0 below [`JACCARD_THRESHOLD`].
    pub fn threshold_jaccard(self) -> f64 {
        Some(self.jaccard()).filter(|j| *j >= JACCARD_THRESHOLD).unwrap_or(0.0)
    }

    /// Share of the inside that was found.
    pub fn sensitivity(self) -> f64 {
        ratio(self.true_positives, self.true_positives + self.false_negatives)
    }

    /// Share of the outside that was left.
    pub fn specificity(self) -> f64 {
        ratio(self.true_negatives, self.true_negatives + self.false_positives)
    }

    /// Share of the pixels that are right.
    pub fn accuracy(self) -> f64 {
        let right = self.true_positives + self.true_negatives;
        ratio(right, right + self.false_positives + self.false_negatives)
    }
}

/// The scores of a set of pictures: means over them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SegmentationReport {
    /// Pictures.
    pub images: usize,
    /// Mean Dice coefficient.
    pub dice: f64,
    /// Mean Jaccard index.
    pub jaccard: f64,
    /// Mean threshold Jaccard index.
    pub threshold_jaccard: f64,
    /// Mean sensitivity.
    pub sensitivity: f64,
    /// Mean specificity.
    pub specificity: f64,
    /// Mean share of right pixels.
    pub accuracy: f64,
    /// Pictures whose Jaccard index is below [`JACCARD_THRESHOLD`].
    pub failures: usize,
}

impl SegmentationReport {
    /// The scores of pictures.
    ///
    /// # Errors
    /// [`Kind::Data`] if there are none.
    pub fn new(pictures: &[PixelCounts]) -> Result<Self> {
        if pictures.is_empty() {
            return Err(Error::new(Kind::Data, "there are no masks to score"));
        }
        let mean = |score: fn(PixelCounts) -> f64| {
            pictures.iter().map(|&counts| score(counts)).sum::<f64>() / pictures.len() as f64
        };
        Ok(Self {
            images: pictures.len(),
            dice: mean(PixelCounts::dice),
            jaccard: mean(PixelCounts::jaccard),
            threshold_jaccard: mean(PixelCounts::threshold_jaccard),
            sensitivity: mean(PixelCounts::sensitivity),
            specificity: mean(PixelCounts::specificity),
            accuracy: mean(PixelCounts::accuracy),
            failures: pictures.iter().filter(|counts| counts.jaccard() < JACCARD_THRESHOLD).count(),
        })
    }
}

impl fmt::Display for SegmentationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            ("Dice", self.dice),
            ("Jaccard", self.jaccard),
            ("threshold Jaccard", self.threshold_jaccard),
            ("sensitivity", self.sensitivity),
            ("specificity", self.specificity),
            ("pixel accuracy", self.accuracy),
        ];
        for (name, value) in rows {
            writeln!(f, "{name:<18} {value:.4}")?;
        }
        let Self { failures, images, .. } = self;
        write!(f, "{failures} of {images} pictures have a Jaccard index below {JACCARD_THRESHOLD}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts of two rows of `#` (inside) and `.` (outside): found and drawn.
    fn counts(found: &str, drawn: &str) -> PixelCounts {
        assert_eq!(found.len(), drawn.len());
        PixelCounts::of(found.chars().zip(drawn.chars()).map(|(f, d)| (f == '#', d == '#')))
    }

    #[test]
    fn hand_made_masks_have_the_scores_of_their_definitions() {
        let c = counts("####....##", "##.###....");
        assert_eq!(c, PixelCounts { true_positives: 3, false_positives: 3, false_negatives: 2, true_negatives: 2 });
        assert_eq!((c.dice(), c.jaccard(), c.threshold_jaccard()), (6.0 / 11.0, 3.0 / 8.0, 0.0));
        assert_eq!((c.sensitivity(), c.specificity(), c.accuracy()), (3.0 / 5.0, 2.0 / 5.0, 5.0 / 10.0));
        // 13 / 20 is just good enough.
        let just = PixelCounts { true_positives: 13, false_positives: 3, false_negatives: 4, true_negatives: 0 };
        assert_eq!(just.threshold_jaccard(), 0.65);
        let perfect = counts("##..", "##..");
        assert_eq!((perfect.dice(), perfect.jaccard(), perfect.accuracy()), (1.0, 1.0, 1.0));
    }

    #[test]
    fn nothing_of_nothing_is_right() {
        let empty = counts("....", "....");
        assert_eq!(
            (empty.dice(), empty.threshold_jaccard(), empty.sensitivity(), empty.specificity()),
            (1.0, 1.0, 1.0, 1.0)
        );
        let invented = counts("#...", "....");
        assert_eq!((invented.dice(), invented.jaccard(), invented.sensitivity()), (0.0, 0.0, 1.0));
        assert_eq!(invented.specificity(), 0.75);
        let full = counts("###.", "####");
        assert_eq!((full.specificity(), full.sensitivity(), full.dice()), (1.0, 0.75, 6.0 / 7.0));
    }

    #[test]
    fn a_report_is_the_mean_over_pictures_not_over_pixels() {
        let large = PixelCounts { true_positives: 1000, ..PixelCounts::default() };
        let small = PixelCounts { true_positives: 1, false_negatives: 1, ..PixelCounts::default() };
        let report = SegmentationReport::new(&[large, small]).unwrap();
        assert_eq!((report.images, report.failures), (2, 1));
        assert_eq!((report.jaccard, report.threshold_jaccard, report.sensitivity), (0.75, 0.5, 0.75));
        assert!((report.dice - (1.0 + 2.0 / 3.0) / 2.0).abs() < 1e-15);
        assert!(report.to_string().contains("threshold Jaccard  0.5000\n"), "{report}");
        assert_eq!(SegmentationReport::new(&[]).unwrap_err().kind(), Kind::Data);
    }
}
