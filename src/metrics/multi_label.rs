//! Scores where a picture may have several classes: each class is a yes or no of its own, yes above a probability of one
//! half.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::roc_auc;
use crate::error::{Error, Kind, Result};

/// The probability above which a class counts as found.
pub const THRESHOLD: f64 = 0.5;

/// Scores of several yes or no answers about each picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MultiLabelReport {
    /// Share of pictures for which all answers are right.
    pub exact_match: f64,
    /// Mean over the classes of F1, which is 0 for a class that is neither there nor found.
    pub macro_f1: f64,
    /// Mean area under the ROC curve over the classes that have one.
    pub macro_auc: Option<f64>,
    /// Of each class, in order: area under the ROC curve, where there are pictures with and without it.
    pub auc: Vec<Option<f64>>,
}

impl MultiLabelReport {
    /// Scores probabilities `[N, K]` against the classes that each picture has.
    ///
    /// # Errors
    /// [`Kind::Shape`] if there are not N rows of K.
    pub fn new(classes: usize, truth: &[Vec<usize>], probabilities: &[f64]) -> Result<Self> {
        if classes == 0 || probabilities.len() != classes * truth.len() {
            let message = format!("{} probabilities are not {} rows of {classes}", probabilities.len(), truth.len());
            return Err(Error::new(Kind::Shape, message));
        }
        let rows = || probabilities.chunks_exact(classes).zip(truth);
        let right = |(row, truth): &(&[f64], &Vec<usize>)| {
            row.iter().enumerate().all(|(class, &p)| (p > THRESHOLD) == truth.contains(&class))
        };
        let (mut auc, mut f1) = (vec![], 0.0);
        for class in 0..classes {
            let positive: Vec<bool> = truth.iter().map(|truth| truth.contains(&class)).collect();
            let scores: Vec<f64> = rows().map(|(row, _)| row[class]).collect();
            let both = scores.iter().zip(&positive).filter(|(p, is)| **p > THRESHOLD && **is).count();
            let found = scores.iter().filter(|p| **p > THRESHOLD).count();
            let there = positive.iter().filter(|is| **is).count();
            f1 += if both == 0 { 0.0 } else { 2.0 * both as f64 / (found + there) as f64 };
            auc.push(roc_auc(&positive, &scores)?);
        }
        let known: Vec<f64> = auc.iter().copied().flatten().collect();
        Ok(Self {
            exact_match: rows().filter(right).count() as f64 / truth.len().max(1) as f64,
            macro_f1: f1 / classes as f64,
            macro_auc: (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64),
            auc,
        })
    }
}

impl fmt::Display for MultiLabelReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let auc = self.macro_auc.map_or("-".to_owned(), |auc| format!("{auc:.4}"));
        write!(
            f,
            "each class by itself, found above {THRESHOLD}: exact match {:.4}, macro F1 {:.4}, macro AUC {auc}",
            self.exact_match, self.macro_f1
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_class_by_class() {
        let truth = [vec![0], vec![1, 0], vec![], vec![1]];
        let probabilities = [0.9, 0.1, 0.8, 0.5, 0.2, 0.6, 0.4, 0.7];
        let report = MultiLabelReport::new(2, &truth, &probabilities).unwrap();
        // The first and the last picture are right; one half is not above it.
        assert_eq!(report.exact_match, 0.5);
        // Class 0: two of two found, none wrongly. Class 1: one of two, and one wrongly.
        assert_eq!(report.macro_f1, (1.0 + 2.0 / 4.0) / 2.0);
        // Class 1: 0.5 and 0.7 against 0.1 and 0.6: three of four pairs in order.
        assert_eq!(report.auc, [Some(1.0), Some(0.75)]);
        assert_eq!(report.macro_auc, Some(0.875));
        let all = MultiLabelReport::new(1, &[vec![0], vec![0]], &[0.9, 0.1]).unwrap();
        assert_eq!((all.auc[0], all.macro_auc), (None, None));
        assert_eq!(MultiLabelReport::new(2, &truth, &[0.5]).unwrap_err().kind(), Kind::Shape);
    }
}
