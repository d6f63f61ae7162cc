//! Is one system better than another? Answers of two systems to the same pictures, compared picture by picture.
//!
//! - intervals of 95 % of a score and of a difference of scores: percentiles of 1000 bootstrap samples, in which lesions are
//!   drawn with replacement, class by class, with all their pictures, the same for both systems
//! - of a difference also the bootstrap's two-sided p: twice the share of samples in which it has the other sign (or is
//!   zero), the whole set counted as one more, at most 1 (Davison, Hinkley, "Bootstrap methods and their application", 1997,
//!   section 4.2): never below 0.002
//! - McNemar's exact test of two classifiers (McNemar, 1947): of the pictures that only one of them answers rightly, as many
//!   should be the first one's as the second one's; p is two-sided, from the binomial distribution. It takes pictures for
//!   independent, which those of one lesion are not: the bootstrap does not

use std::collections::HashMap;

use rayon::prelude::*;
use serde::Serialize;

use super::ConfusionMatrix;
use super::detailed::{interval, resamples};
use crate::error::{Error, Kind, Result};

/// What a system answered to pictures.
#[derive(Debug, Clone, PartialEq)]
pub struct Sheet {
    /// The pictures' ids.
    pub images: Vec<String>,
    /// The lesions they show.
    pub lesions: Vec<String>,
    /// The answers.
    pub answers: Answers,
}

/// The answers to pictures, in their order.
#[derive(Debug, Clone, PartialEq)]
pub enum Answers {
    /// Classes.
    Classes {
        /// Their names.
        names: Vec<String>,
        /// What is right.
        labels: Vec<usize>,
        /// What was answered.
        predictions: Vec<usize>,
        /// The probabilities of the classes, `[N, K]`.
        probabilities: Vec<f64>,
    },
    /// Masks: the scores of each, by name.
    Masks(Vec<[f64; MASK_SCORES.len()]>),
}

/// The scores of a mask, in order.
pub const MASK_SCORES: [&str; 6] = ["dice", "jaccard", "threshold_jaccard", "sensitivity", "specificity", "accuracy"];
/// The scores of classifiers, in order.
const CLASS_SCORES: [&str; 4] = ["accuracy", "balanced_accuracy", "macro_f1", "weighted_f1"];

/// A score with its interval.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Interval {
    /// Which score.
    pub score: &'static str,
    /// Its value.
    pub value: f64,
    /// The bounds.
    pub interval: [f64; 2],
}

/// How a score differs between two systems.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScoreDifference {
    /// Which score.
    pub score: &'static str,
    /// The first system's.
    pub first: f64,
    /// The second system's.
    pub second: f64,
    /// Bounds of the second less the first.
    pub interval: [f64; 2],
    /// The bootstrap's p.
    pub p: f64,
}

/// McNemar's test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct McNemar {
    /// Pictures that only the first system answers rightly.
    pub only_first: u64,
    /// Pictures that only the second one answers rightly.
    pub only_second: u64,
    /// How likely at least such a difference is if the systems are equally good.
    pub p: f64,
}

impl McNemar {
    /// The exact test.
    pub fn new(only_first: u64, only_second: u64) -> Self {
        let (n, least) = (only_first + only_second, only_first.min(only_second));
        // Binomial terms by their ratio, as logarithms: 0.5^n alone would be zero.
        let mut log = -(n as f64) * std::f64::consts::LN_2;
        let mut tail = log.exp();
        for k in 1..=least {
            log += ((n - k + 1) as f64).ln() - (k as f64).ln();
            tail += log.exp();
        }
        Self { only_first, only_second, p: (2.0 * tail).min(1.0) }
    }
}

/// A comparison of two systems.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Pictures that both answered.
    pub images: usize,
    /// The lesions these show.
    pub lesions: usize,
    /// The scores.
    pub scores: Vec<ScoreDifference>,
    /// Of classifiers.
    pub mcnemar: Option<McNemar>,
}

impl Sheet {
    fn names(&self) -> &'static [&'static str] {
        match self.answers {
            Answers::Classes { .. } => &CLASS_SCORES,
            Answers::Masks(_) => &MASK_SCORES,
        }
    }

    /// The classes of the pictures; of masks none are known.
    fn strata(&self) -> &[usize] {
        match &self.answers {
            Answers::Classes { labels, .. } => labels,
            Answers::Masks(_) => &[],
        }
    }

    /// The scores of pictures that count as often as `weights` say.
    fn scores(&self, weights: &[u32]) -> Vec<f64> {
        match &self.answers {
            Answers::Classes { names, labels, predictions, .. } => {
                let matrix = ConfusionMatrix::weighted(names.len(), labels, predictions, weights);
                vec![matrix.accuracy(), matrix.balanced_accuracy(), matrix.macro_f1(), matrix.weighted_f1()]
            }
            Answers::Masks(masks) => {
                let total = weights.iter().map(|&w| f64::from(w)).sum::<f64>().max(1.0);
                let sum = |score: usize| masks.iter().zip(weights).map(|(m, &w)| m[score] * f64::from(w)).sum::<f64>();
                (0..MASK_SCORES.len()).map(|score| sum(score) / total).collect()
            }
        }
    }

    /// All scores with their intervals.
    pub fn intervals(&self) -> Vec<Interval> {
        let whole = self.scores(&vec![1; self.images.len()]);
        let drawn: Vec<Vec<f64>> =
            resamples(&self.lesions, self.strata()).par_iter().map(|weights| self.scores(weights)).collect();
        let of = |(i, &score): (usize, &&'static str)| Interval {
            score,
            value: whole[i],
            interval: interval(drawn.iter().map(|scores| scores[i]).collect()),
        };
        self.names().iter().enumerate().map(of).collect()
    }

    /// The rows of `images`, which must be there.
    fn rows(&self, rows: &[usize]) -> Self {
        let pick = |values: &[usize]| rows.iter().map(|&i| values[i]).collect();
        Self {
            images: rows.iter().map(|&i| self.images[i].clone()).collect(),
            lesions: rows.iter().map(|&i| self.lesions[i].clone()).collect(),
            answers: match &self.answers {
                Answers::Classes { names, labels, predictions, probabilities } => Answers::Classes {
                    names: names.clone(),
                    labels: pick(labels),
                    predictions: pick(predictions),
                    probabilities: rows
                        .iter()
                        .flat_map(|&i| &probabilities[i * names.len()..][..names.len()])
                        .copied()
                        .collect(),
                },
                Answers::Masks(masks) => Answers::Masks(rows.iter().map(|&i| masks[i]).collect()),
            },
        }
    }
}

/// Compares two systems on the pictures that both answered.
///
/// # Errors
/// [`Kind::Data`] if there are none, if the systems answer other questions, or if a picture has another label.
pub fn compare(first: &Sheet, second: &Sheet) -> Result<Comparison> {
    let refuse = |what: String| {
        Error::new(Kind::Data, what)
            .next("compare runs on the same data with the same split, such as --split-file gives")
    };
    let place: HashMap<&str, usize> = second.images.iter().enumerate().map(|(i, id)| (id.as_str(), i)).collect();
    let common = first.images.iter().enumerate().filter_map(|(i, id)| Some((i, *place.get(id.as_str())?)));
    let (ours, theirs): (Vec<usize>, Vec<usize>) = common.unzip();
    if ours.is_empty() {
        return Err(refuse("the runs have no test image in common".into()));
    }
    let (first, second) = (first.rows(&ours), second.rows(&theirs));
    let mcnemar = match (&first.answers, &second.answers) {
        (Answers::Masks(_), Answers::Masks(_)) => None,
        (
            Answers::Classes { names, labels, predictions, .. },
            Answers::Classes { names: others, labels: same, predictions: answers, .. },
        ) => {
            if names != others {
                return Err(refuse(format!("one has the classes {}, the other {}", names.join(","), others.join(","))));
            }
            if let Some(at) = (0..labels.len()).find(|&i| labels[i] != same[i]) {
                return Err(refuse(format!("{} has another class in each", first.images[at])));
            }
            let only = |a: &[usize], b: &[usize]| {
                (0..labels.len()).filter(|&i| a[i] == labels[i] && b[i] != labels[i]).count() as u64
            };
            Some(McNemar::new(only(predictions, answers), only(answers, predictions)))
        }
        _ => return Err(refuse("one finds classes, the other masks".into())),
    };
    let whole = vec![1; first.images.len()];
    let (a, b) = (first.scores(&whole), second.scores(&whole));
    let drawn: Vec<Vec<f64>> = resamples(&first.lesions, first.strata())
        .par_iter()
        .map(|weights| first.scores(weights).iter().zip(second.scores(weights)).map(|(a, b)| b - a).collect())
        .collect();
    let of = |(i, &score): (usize, &&'static str)| {
        let differences: Vec<f64> = drawn.iter().map(|scores| scores[i]).collect();
        let share = |other: &dyn Fn(f64) -> bool| {
            (differences.iter().filter(|d| other(**d)).count() + 1) as f64 / (differences.len() + 1) as f64
        };
        let p = (2.0 * share(&|d| d <= 0.0).min(share(&|d| d >= 0.0))).min(1.0);
        ScoreDifference { score, first: a[i], second: b[i], interval: interval(differences), p }
    };
    let lesions = first.lesions.iter().collect::<std::collections::HashSet<_>>().len();
    let scores = first.names().iter().enumerate().map(of).collect();
    Ok(Comparison { images: ours.len(), lesions, scores, mcnemar })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A system that is right on every picture but those that `wrong` says, two pictures a lesion.
    fn sheet(count: usize, wrong: impl Fn(usize) -> bool) -> Sheet {
        let labels: Vec<usize> = (0..count).map(|i| i % 3).collect();
        let predictions = (0..count).map(|i| if wrong(i) { (labels[i] + 1) % 3 } else { labels[i] }).collect();
        Sheet {
            images: (0..count).map(|i| format!("i{i}")).collect(),
            lesions: (0..count).map(|i| format!("l{}", i / 2)).collect(),
            answers: Answers::Classes {
                names: ["a", "b", "c"].map(str::to_owned).to_vec(),
                probabilities: vec![0.0; 3 * labels.len()],
                labels,
                predictions,
            },
        }
    }

    #[test]
    fn mcnemar_has_the_values_of_the_binomial_test() {
        // scipy.stats.binomtest(min, n, 0.5).pvalue
        for (a, b, p) in [(0, 0, 1.0), (5, 5, 1.0), (1, 9, 0.021_484_375), (0, 6, 0.031_25), (121, 59, 4.434_449e-6)] {
            let found = McNemar::new(a, b).p;
            assert!((found - p).abs() <= 1e-6 * p.max(1e-3), "{a} {b}: {found}");
            assert_eq!(found, McNemar::new(b, a).p);
        }
        assert!(McNemar::new(3000, 3000).p == 1.0 && McNemar::new(0, 5000).p == 0.0);
    }

    #[test]
    fn a_better_system_is_told_from_an_equal_one() {
        let (good, bad) = (sheet(600, |i| i % 10 == 0), sheet(600, |i| i % 4 == 0));
        let found = compare(&bad, &good).unwrap();
        assert_eq!((found.images, found.lesions), (600, 300));
        let accuracy = &found.scores[0];
        assert!((accuracy.first - 0.75).abs() < 1e-12 && (accuracy.second - 0.9).abs() < 1e-12);
        assert!(accuracy.interval[0] > 0.1 && accuracy.interval[1] < 0.2 && accuracy.p < 0.01, "{accuracy:?}");
        assert!(found.mcnemar.unwrap().p < 1e-6);
        let same = compare(&good, &good).unwrap();
        assert!(same.scores.iter().all(|s| s.p == 1.0 && s.interval == [0.0, 0.0]));
        let value = good.intervals().remove(1);
        assert!(
            value.score == "balanced_accuracy" && value.interval[0] < value.value && value.value < value.interval[1]
        );
    }

    #[test]
    fn only_what_both_answered_counts_and_other_questions_are_refused() {
        let (whole, part) = (sheet(60, |_| false), sheet(60, |_| true).rows(&[7, 3, 59]));
        let found = compare(&part, &whole).unwrap();
        assert_eq!((found.images, found.mcnemar.unwrap().only_second), (3, 3));
        let mut other = sheet(60, |_| false);
        if let Answers::Classes { labels, .. } = &mut other.answers {
            labels[4] = 2;
        }
        assert!(compare(&whole, &other).unwrap_err().what().contains("i4"));
        let masks = Sheet { answers: Answers::Masks(vec![[1.0; 6]; 60]), ..whole.clone() };
        assert_eq!(compare(&whole, &masks).unwrap_err().kind(), Kind::Data);
        assert_eq!(compare(&masks, &masks).unwrap().mcnemar, None);
        let elsewhere = Sheet { images: vec!["x".into(); 60], ..whole.clone() };
        assert_eq!(compare(&whole, &elsewhere).unwrap_err().kind(), Kind::Data);
    }
}
