//! Classification metrics: confusion matrix, precision, recall, F1, balanced accuracy, area under the ROC curve.
//!
//! Notation: N samples, K classes, `scores` row-major `[N, K]` (probabilities or anything that ranks a class's
//! samples the same way). Every score is a fraction in [0, 1]. The definitions are those of scikit-learn
//! (`sklearn.metrics`), and the tests compare the two. A ratio whose denominator is zero counts as 0
//! (`zero_division=0`), so a class that is never predicted lowers the macro averages instead of leaving them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// Counts of `[true class][predicted class]`, K x K.
///
/// Serialised as a list of rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Vec<u64>>", into = "Vec<Vec<u64>>")]
pub struct ConfusionMatrix {
    classes: usize,
    /// Row-major `[K, K]`.
    counts: Vec<u64>,
}

impl ConfusionMatrix {
    /// An empty matrix of `classes` classes.
    pub fn new(classes: usize) -> Self {
        Self { classes, counts: vec![0; classes * classes] }
    }

    /// Counts N pairs of a true class and a predicted class.
    ///
    /// # Errors
    /// [`Kind::Shape`] if the slices differ in length or hold a class that is not below `classes`.
    pub fn from_predictions(classes: usize, labels: &[usize], predictions: &[usize]) -> Result<Self> {
        if labels.len() != predictions.len() {
            return Err(Error::new(
                Kind::Shape,
                format!("{} labels but {} predictions", labels.len(), predictions.len()),
            ));
        }
        let mut matrix = Self::new(classes);
        for (&label, &prediction) in labels.iter().zip(predictions) {
            matrix.add(label, prediction)?;
        }
        Ok(matrix)
    }

    /// Counts pairs of a true class and a predicted class, each as often as its weight says. Classes must be below
    /// `classes`.
    pub(super) fn weighted(classes: usize, labels: &[usize], predictions: &[usize], weights: &[u32]) -> Self {
        let mut matrix = Self::new(classes);
        for ((&label, &prediction), &weight) in labels.iter().zip(predictions).zip(weights) {
            matrix.counts[label * classes + prediction] += u64::from(weight);
        }
        matrix
    }

    /// Counts one sample.
    ///
    /// # Errors
    /// [`Kind::Shape`] if either class is not below [`classes`](Self::classes).
    pub fn add(&mut self, label: usize, prediction: usize) -> Result<()> {
        for (what, class) in [("label", label), ("prediction", prediction)] {
            if class >= self.classes {
                return Err(Error::new(
                    Kind::Shape,
                    format!("{what} {class} is out of range for {} classes", self.classes),
                )
                .next("check that the model has as many outputs as the data has classes"));
            }
        }
        self.counts[label * self.classes + prediction] += 1;
        Ok(())
    }

    /// The number of classes, K.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The number of samples counted, N.
    pub fn samples(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How many samples of class `label` were predicted as `prediction`; `None` if either is out of range.
    pub fn get(&self, label: usize, prediction: usize) -> Option<u64> {
        (label < self.classes && prediction < self.classes).then(|| self.counts[label * self.classes + prediction])
    }

    /// The rows: one per true class, each with K counts by predicted class.
    pub fn rows(&self) -> impl Iterator<Item = &[u64]> {
        // A matrix without classes has no counts, so the chunk length is irrelevant there; it must only not be 0.
        self.counts.chunks(self.classes.max(1))
    }

    /// True positives of `class`.
    fn hits(&self, class: usize) -> u64 {
        self.counts[class * self.classes + class]
    }

    /// Samples of true class `class`.
    ///
    /// # Panics
    /// If `class` is not below [`classes`](Self::classes), as for every method that takes a class.
    pub fn support(&self, class: usize) -> u64 {
        self.counts[class * self.classes..][..self.classes].iter().sum()
    }

    /// Samples predicted as `class`.
    pub fn predicted(&self, class: usize) -> u64 {
        self.counts.iter().skip(class).step_by(self.classes).sum()
    }

    /// Of the samples predicted as `class`, the share that is; 0 if it was never predicted.
    pub fn precision(&self, class: usize) -> f64 {
        ratio(self.hits(class), self.predicted(class))
    }

    /// Of the samples of `class`, the share that was found (sensitivity); 0 if there are none.
    pub fn recall(&self, class: usize) -> f64 {
        ratio(self.hits(class), self.support(class))
    }

    /// Harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN); 0 if the class neither occurs nor is predicted.
    pub fn f1(&self, class: usize) -> f64 {
        ratio(2 * self.hits(class), self.support(class) + self.predicted(class))
    }

    /// Share of samples predicted correctly; 0 without samples.
    pub fn accuracy(&self) -> f64 {
        ratio((0..self.classes).map(|k| self.hits(k)).sum(), self.samples())
    }

    /// Mean recall over the classes that occur among the labels (`balanced_accuracy_score`); 0 without samples.
    pub fn balanced_accuracy(&self) -> f64 {
        mean((0..self.classes).filter(|&k| self.support(k) > 0).map(|k| self.recall(k))).unwrap_or(0.0)
    }

    /// Mean F1 over all K classes, those without samples included
    /// (`f1_score(average="macro", labels=range(K), zero_division=0)`).
    pub fn macro_f1(&self) -> f64 {
        mean((0..self.classes).map(|k| self.f1(k))).unwrap_or(0.0)
    }

    /// Mean F1 weighted by support (`f1_score(average="weighted")`); 0 without samples.
    pub fn weighted_f1(&self) -> f64 {
        let samples = self.samples();
        (0..self.classes).map(|k| self.f1(k) * ratio(self.support(k), samples)).sum()
    }
}

impl From<ConfusionMatrix> for Vec<Vec<u64>> {
    fn from(matrix: ConfusionMatrix) -> Self {
        matrix.rows().map(<[u64]>::to_vec).collect()
    }
}

impl TryFrom<Vec<Vec<u64>>> for ConfusionMatrix {
    type Error = Error;

    /// # Errors
    /// [`Kind::Shape`] if the rows do not make a square.
    fn try_from(rows: Vec<Vec<u64>>) -> Result<Self> {
        let classes = rows.len();
        if let Some(row) = rows.iter().find(|row| row.len() != classes) {
            return Err(Error::new(
                Kind::Shape,
                format!("a confusion matrix of {classes} rows has a row of {} columns", row.len()),
            ));
        }
        Ok(Self { classes, counts: rows.concat() })
    }
}

/// The scores of one class against the rest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassScores {
    /// The class's name.
    pub name: String,
    /// See [`ConfusionMatrix::precision`].
    pub precision: f64,
    /// See [`ConfusionMatrix::recall`].
    pub recall: f64,
    /// See [`ConfusionMatrix::f1`].
    pub f1: f64,
    /// Area under the one-vs-rest ROC curve ([`roc_auc`]); `None` if no sample, or every sample, is of this class.
    pub auc: Option<f64>,
    /// Average precision ([`average_precision`]), where there is an AUC.
    #[serde(default)]
    pub average_precision: Option<f64>,
    /// Samples of this class.
    pub support: u64,
}

/// How well a model classified N samples. Its [`Display`](fmt::Display) is a table for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassificationReport {
    /// N.
    pub samples: u64,
    /// See [`ConfusionMatrix::accuracy`].
    pub accuracy: f64,
    /// See [`ConfusionMatrix::balanced_accuracy`].
    pub balanced_accuracy: f64,
    /// See [`ConfusionMatrix::macro_f1`].
    pub macro_f1: f64,
    /// See [`ConfusionMatrix::weighted_f1`].
    pub weighted_f1: f64,
    /// Plain mean of the classes' AUCs, over the classes that have one; `None` if none has.
    pub macro_auc: Option<f64>,
    /// The same of their average precisions.
    #[serde(default)]
    pub macro_average_precision: Option<f64>,
    /// One entry a class, in the order of the scores' columns.
    pub per_class: Vec<ClassScores>,
    /// Counts `[true][predicted]`; the predicted class is the [`argmax`] of the scores.
    pub confusion: ConfusionMatrix,
}

impl ClassificationReport {
    /// Scores N samples: `labels` `[N]` are their true classes, `scores` `[N, K]` row-major the model's answers, and
    /// `names` `[K]` the names of the classes in the order of the columns.
    ///
    /// # Errors
    /// [`Kind::Shape`] without samples or classes, if the lengths do not go together or a label is not below K;
    /// [`Kind::Diverged`] if a score is not a finite number.
    pub fn new<S: Copy + Into<f64>>(names: &[impl AsRef<str>], labels: &[usize], scores: &[S]) -> Result<Self> {
        let classes = names.len();
        let scores: Vec<f64> = scores.iter().map(|&s| s.into()).collect();
        check_rows(&scores, classes)?;
        if labels.is_empty() {
            return Err(Error::new(Kind::Shape, "there are no samples to score")
                .next("check that this part of the split is not empty"));
        }
        if scores.len() != labels.len() * classes {
            return Err(Error::new(
                Kind::Shape,
                format!("{} scores do not make {} samples of {classes} classes", scores.len(), labels.len()),
            ));
        }
        if let Some(i) = scores.iter().position(|s| !s.is_finite()) {
            return Err(Error::new(
                Kind::Diverged,
                format!("the score of class {} is not a finite number", names[i % classes].as_ref()),
            )
            .at(format!("sample {}", i / classes))
            .next("the model has diverged: train again with a smaller learning rate"));
        }
        let predictions: Vec<usize> = scores.chunks_exact(classes).map(argmax::<f64>).collect();
        let confusion = ConfusionMatrix::from_predictions(classes, labels, &predictions)?;
        let per_class: Vec<ClassScores> = names
            .iter()
            .enumerate()
            .map(|(k, name)| {
                let column: Vec<f64> = scores.iter().skip(k).step_by(classes).copied().collect();
                let positive: Vec<bool> = labels.iter().map(|&label| label == k).collect();
                Ok(ClassScores {
                    name: name.as_ref().to_owned(),
                    precision: confusion.precision(k),
                    recall: confusion.recall(k),
                    f1: confusion.f1(k),
                    auc: roc_auc(&positive, &column)?,
                    average_precision: average_precision(&positive, &column)?,
                    support: confusion.support(k),
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            samples: confusion.samples(),
            accuracy: confusion.accuracy(),
            balanced_accuracy: confusion.balanced_accuracy(),
            macro_f1: confusion.macro_f1(),
            weighted_f1: confusion.weighted_f1(),
            macro_auc: mean(per_class.iter().filter_map(|class| class.auc)),
            macro_average_precision: mean(per_class.iter().filter_map(|class| class.average_precision)),
            per_class,
            confusion,
        })
    }
}

impl fmt::Display for ClassificationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let auc = |auc: Option<f64>| auc.map_or_else(|| "-".to_owned(), |a| format!("{a:.4}"));
        let name_width =
            self.per_class.iter().map(|class| class.name.chars().count()).max().unwrap_or(0).max("weighted".len());
        writeln!(f, "{:name_width$}  precision  recall      F1     AUC  support", "class")?;
        for class in &self.per_class {
            writeln!(
                f,
                "{:name_width$}  {:>9.4}  {:>6.4}  {:>6.4}  {:>6}  {:>7}",
                class.name,
                class.precision,
                class.recall,
                class.f1,
                auc(class.auc),
                class.support
            )?;
        }
        writeln!(
            f,
            "{:name_width$}  {:>9}  {:>6}  {:>6.4}  {:>6}  {:>7}",
            "macro",
            "",
            "",
            self.macro_f1,
            auc(self.macro_auc),
            self.samples
        )?;
        writeln!(f, "{:name_width$}  {:>9}  {:>6}  {:>6.4}", "weighted", "", "", self.weighted_f1)?;
        writeln!(f, "\naccuracy {:.4}, balanced accuracy {:.4}", self.accuracy, self.balanced_accuracy)?;

        writeln!(f, "\nconfusion matrix: a row per true class, a column per predicted class")?;
        let widest_count = self.confusion.counts.iter().max().map_or(1, |n| n.to_string().len());
        let names = || self.per_class.iter().map(|class| class.name.as_str());
        let widths: Vec<usize> = names().map(|name| name.chars().count().max(widest_count)).collect();
        write!(f, "{:name_width$}", "")?;
        for (name, width) in names().zip(&widths) {
            write!(f, "  {name:>width$}")?;
        }
        for (name, row) in names().zip(self.confusion.rows()) {
            write!(f, "\n{name:name_width$}")?;
            for (count, width) in row.iter().zip(&widths) {
                write!(f, "  {count:>width$}")?;
            }
        }
        Ok(())
    }
}

/// Area under the ROC curve of `scores` `[N]` for telling `positive` `[N]` samples from the others: the probability
/// that a positive sample scores higher than a negative one, a tie counting half. `None` if there is no positive or
/// no negative sample.
///
/// Computed from the average ranks (Mann-Whitney U), which equals the trapezoidal area under the curve
/// (`sklearn.metrics.roc_auc_score`).
///
/// # Errors
/// [`Kind::Shape`] if the lengths differ; [`Kind::Diverged`] if a score is NaN.
pub fn roc_auc(positive: &[bool], scores: &[f64]) -> Result<Option<f64>> {
    let Some((positives, negatives)) = both(positive, scores)? else { return Ok(None) };
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let mut rank_sum = 0.0; // of the positive samples, ranks counted from 1
    let mut below = 0;
    // Equality of numbers, not of bits: 0.0 and -0.0 tie, and `total_cmp` puts them side by side.
    for group in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let average_rank = below as f64 + (group.len() as f64 + 1.0) / 2.0;
        rank_sum += average_rank * group.iter().filter(|&&i| positive[i]).count() as f64;
        below += group.len();
    }
    let (positives, negatives) = (positives as f64, negatives as f64);
    Ok(Some((rank_sum - positives * (positives + 1.0) / 2.0) / (positives * negatives)))
}

/// The mean of the precisions at each threshold, weighted by what the recall gains there
/// (`sklearn.metrics.average_precision_score`). `None` if there is no positive or no negative sample.
///
/// # Errors
/// As [`roc_auc`].
pub fn average_precision(positive: &[bool], scores: &[f64]) -> Result<Option<f64>> {
    let Some((positives, _)) = both(positive, scores)? else { return Ok(None) };
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let (mut hits, mut found, mut sum) = (0, 0, 0.0);
    for group in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let gained = group.iter().filter(|&&i| positive[i]).count();
        (hits, found) = (hits + gained, found + group.len());
        sum += gained as f64 / positives as f64 * hits as f64 / found as f64;
    }
    Ok(Some(sum))
}

/// How many samples are positive and how many negative, if there are both.
pub(super) fn both(positive: &[bool], scores: &[f64]) -> Result<Option<(usize, usize)>> {
    if positive.len() != scores.len() {
        return Err(Error::new(Kind::Shape, format!("{} labels but {} scores", positive.len(), scores.len())));
    }
    if scores.iter().any(|s| s.is_nan()) {
        return Err(Error::new(Kind::Diverged, "a score is not a number"));
    }
    let positives = positive.iter().filter(|&&p| p).count();
    let negatives = positive.len() - positives;
    Ok((positives > 0 && negatives > 0).then_some((positives, negatives)))
}

/// The index of the largest value, the first of several equal ones (as in NumPy); 0 for an empty slice.
pub fn argmax<T: PartialOrd + Copy>(values: &[T]) -> usize {
    let mut best = 0;
    for (i, &value) in values.iter().enumerate() {
        if value > values[best] {
            best = i;
        }
    }
    best
}

/// The sigmoid of each logit, in f64.
pub fn sigmoid<S: Copy + Into<f64>>(logits: &[S]) -> Vec<f64> {
    logits.iter().map(|&v| 1.0 / (1.0 + (-v.into()).exp())).collect()
}

/// Row-wise softmax of `logits` `[N, K]`, row-major: probabilities `[N, K]` in f64.
///
/// # Errors
/// [`Kind::Shape`] if the logits are not whole rows of `classes`.
pub fn softmax<S: Copy + Into<f64>>(logits: &[S], classes: usize) -> Result<Vec<f64>> {
    let mut out: Vec<f64> = logits.iter().map(|&s| s.into()).collect();
    check_rows(&out, classes)?;
    for row in out.chunks_exact_mut(classes) {
        // Shifting a row changes nothing, and keeps the exponentials from overflowing.
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        row.iter_mut().for_each(|x| *x = (*x - max).exp());
        let sum: f64 = row.iter().sum();
        row.iter_mut().for_each(|x| *x /= sum);
    }
    Ok(out)
}

pub(super) fn check_rows(values: &[f64], classes: usize) -> Result<()> {
    if classes == 0 {
        return Err(Error::new(Kind::Shape, "there are no classes"));
    }
    if !values.len().is_multiple_of(classes) {
        return Err(Error::new(Kind::Shape, format!("{} values do not make rows of {classes} classes", values.len())));
    }
    Ok(())
}

/// `a / b`, and 0 where `b` is 0.
fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values.fold((0.0, 0u64), |(sum, n), value| (sum + value, n + 1));
    (n > 0).then(|| sum / n as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    #[test]
    fn auc_is_the_share_of_ordered_pairs() {
        for seed in 0..20 {
            let s = Stream::new(seed, 0);
            // Few distinct scores, so that there are many ties.
            let scores: Vec<f64> = (0..50).map(|i| (s.uniform(i) * 8.0).floor().into()).collect();
            let positive: Vec<bool> = (50..100).map(|i| s.uniform(i) < 0.3).collect();
            let (mut pairs, mut won) = (0.0, 0.0);
            for i in (0..50).filter(|&i| positive[i]) {
                for j in (0..50).filter(|&j| !positive[j]) {
                    pairs += 1.0;
                    won += if scores[i] == scores[j] { 0.5 } else { f64::from(u8::from(scores[i] > scores[j])) };
                }
            }
            let auc = roc_auc(&positive, &scores).unwrap().unwrap();
            assert!((auc - won / pairs).abs() < 1e-12, "{auc} {}", won / pairs);
        }
    }

    #[test]
    fn signed_zeros_tie() {
        assert_eq!(roc_auc(&[true, false], &[0.0, -0.0]).unwrap(), Some(0.5));
    }

    #[test]
    fn bad_input_is_an_error() {
        let names = ["a", "b"];
        let kind = |labels: &[usize], scores: &[f32]| {
            ClassificationReport::new(&names, labels, scores).map_err(|e| e.kind()).unwrap_err()
        };
        assert_eq!(kind(&[], &[]), Kind::Shape);
        assert_eq!(kind(&[0], &[]), Kind::Shape);
        assert_eq!(kind(&[0], &[0.1, 0.9, 0.3, 0.7]), Kind::Shape);
        assert_eq!(kind(&[0], &[0.1, 0.9, 0.3]), Kind::Shape);
        assert_eq!(kind(&[2], &[0.1, 0.9]), Kind::Shape);
        assert_eq!(kind(&[0], &[0.1, f32::NAN]), Kind::Diverged);
        assert_eq!(kind(&[0], &[f32::INFINITY, 0.0]), Kind::Diverged);
        let no_names: [&str; 0] = [];
        assert_eq!(ClassificationReport::new(&no_names, &[0], &[0.5f32]).unwrap_err().kind(), Kind::Shape);
        assert_eq!(ConfusionMatrix::from_predictions(2, &[0, 1], &[0]).unwrap_err().kind(), Kind::Shape);
        assert_eq!(ConfusionMatrix::new(2).add(0, 2).unwrap_err().kind(), Kind::Shape);
        assert_eq!(softmax(&[1.0f32; 3], 2).unwrap_err().kind(), Kind::Shape);
        assert_eq!(roc_auc(&[true], &[]).unwrap_err().kind(), Kind::Shape);
        assert_eq!(roc_auc(&[true, false], &[0.0, f64::NAN]).unwrap_err().kind(), Kind::Diverged);
        assert!(serde_json::from_str::<ConfusionMatrix>("[[1,2],[3]]").is_err());
    }

    #[test]
    fn softmax_of_large_logits_is_finite() {
        let p = softmax(&[1000.0f32, 1000.0, 0.0, -1000.0], 2).unwrap();
        assert_eq!(p, [0.5, 0.5, 1.0, 0.0]);
    }

    #[test]
    fn an_empty_matrix_scores_zero() {
        for classes in [0, 3] {
            let m = ConfusionMatrix::new(classes);
            assert_eq!([m.accuracy(), m.balanced_accuracy(), m.macro_f1(), m.weighted_f1()], [0.0; 4]);
            assert_eq!(m.rows().count(), classes);
        }
    }

    #[test]
    fn reads_as_a_table() {
        let scores = [0.9f32, 0.1, 0.0, 0.2, 0.8, 0.0, 0.6, 0.4, 0.0];
        let report = ClassificationReport::new(&["nv", "melanoma", "df"], &[0, 1, 1], &scores).unwrap();
        let expected = "\
class     precision  recall      F1     AUC  support
nv           0.5000  1.0000  0.6667  1.0000        1
melanoma     1.0000  0.5000  0.6667  1.0000        2
df           0.0000  0.0000  0.0000       -        0
macro                        0.4444  1.0000        3
weighted                     0.6667

accuracy 0.6667, balanced accuracy 0.7500

confusion matrix: a row per true class, a column per predicted class
          nv  melanoma  df
nv         1         0   0
melanoma   1         1   0
df         0         0   0";
        assert_eq!(report.to_string(), expected);
    }
}
