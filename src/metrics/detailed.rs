//! What a paper reports of a classifier besides [`ClassificationReport`](super::ClassificationReport): each class as a test
//! for that class, curves, confidence intervals, calibration, and scores of groups of patients.
//!
//! - each class by itself, found where its probability is above one half, as the ISIC challenges score it (package
//!   `isic-challenge-scoring`): accuracy, sensitivity, specificity, Dice, positive and negative predictive value, where a
//!   ratio of nothing to nothing is 1; area under the ROC curve, that part of it above a sensitivity of 0.80, average
//!   precision (`sklearn.metrics.average_precision_score`)
//! - balanced accuracy as those challenges count it: a picture with two largest probabilities is wrong
//! - intervals of 95 %, by the percentiles of 1000 bootstrap samples. What is drawn with replacement are lesions, with all
//!   their pictures, class by class: pictures of one lesion are no independent observations, and a sample without a rare
//!   class would say nothing of it
//! - expected calibration error (Naeini et al. 2015; Guo et al. 2017): 15 equal bins of the largest probability
//! - sensitivity at a chosen specificity: the highest of all thresholds that reach it

use std::collections::BTreeMap;
use std::fmt;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{CalibrationBin, ConfusionMatrix, argmax, average_precision, calibration_error};
use crate::error::{Error, Kind, Result};
use crate::rng::Stream;

/// Bootstrap samples of an interval.
const RESAMPLES: usize = 1000;
/// The sensitivity above which an area under the ROC curve is given of its own.
const SENSITIVE: f64 = 0.8;

/// One class as a test for that class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassDetail {
    /// The class.
    pub name: String,
    /// Pictures of it.
    pub support: u64,
    /// Share of right answers.
    pub accuracy: f64,
    /// Share found of those that are.
    pub sensitivity: f64,
    /// Share left of those that are not.
    pub specificity: f64,
    /// `2 TP / (2 TP + FP + FN)`.
    pub dice: f64,
    /// Share that are, of those found.
    pub ppv: f64,
    /// Share that are not, of those left.
    pub npv: f64,
    /// Area under the ROC curve; none without pictures of the class, or without others. So are all that follow.
    pub auc: Option<f64>,
    /// Its interval.
    pub auc_interval: Option<[f64; 2]>,
    /// Area under the ROC curve right of where the sensitivity reaches 0.80.
    pub auc_above_sensitivity_80: Option<f64>,
    /// Average precision.
    pub average_precision: Option<f64>,
}

/// Scores of the pictures of some patients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupScores {
    /// What groups them: `sex`, `age`, `site`.
    pub by: String,
    /// Which group.
    pub name: String,
    /// Pictures.
    pub images: u64,
    /// Share of right answers.
    pub accuracy: f64,
    /// Mean recall over the classes that occur among them.
    pub balanced_accuracy: f64,
}

/// What one class is found with where others are left alone in a chosen share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperatingPoint {
    /// The class.
    pub class: String,
    /// The specificity that was asked for.
    pub specificity: f64,
    /// The highest sensitivity that goes with it.
    pub sensitivity: f64,
    /// The probability from which on a picture counts as found there; infinite where none does.
    pub threshold: f64,
}

/// See the [module](self).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DetailedReport {
    /// Each class, in order.
    pub classes: Vec<ClassDetail>,
    /// Balanced accuracy, ties counting as wrong.
    pub balanced_accuracy: f64,
    /// Its interval.
    pub balanced_accuracy_interval: [f64; 2],
    /// The interval of the accuracy.
    pub accuracy_interval: [f64; 2],
    /// Expected calibration error.
    pub calibration_error: f64,
    /// Its bins, from 0 to 1.
    pub calibration: Vec<CalibrationBin>,
    /// Groups of patients.
    pub groups: Vec<GroupScores>,
    /// The class that was asked for, at the specificity that was asked for.
    pub operating_point: Option<OperatingPoint>,
}

/// A picture that is scored.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored<'a> {
    /// Its class.
    pub label: usize,
    /// What it shows, with other pictures.
    pub lesion: &'a str,
    /// The groups it belongs to: `("sex", "female")`.
    pub groups: Vec<(&'static str, String)>,
}

impl DetailedReport {
    /// Scores probabilities `[N, K]` of N pictures; `operating` asks for the sensitivity of a class at a specificity.
    ///
    /// # Errors
    /// [`Kind::Shape`] if there are no pictures, the lengths do not go together or a class is out of range;
    /// [`Kind::Diverged`] if a probability is no number.
    pub fn new(
        names: &[String],
        pictures: &[Scored<'_>],
        probabilities: &[f64],
        operating: Option<(usize, f64)>,
    ) -> Result<Self> {
        let k = names.len();
        let in_range = |class: usize| class < k;
        let wanted = operating.is_none_or(|(class, _)| in_range(class));
        if pictures.is_empty() || probabilities.len() != k * pictures.len() || !wanted {
            let what = format!("{} probabilities of {} pictures and {k} classes", probabilities.len(), pictures.len());
            return Err(Error::new(Kind::Shape, what));
        }
        if !pictures.iter().all(|picture| in_range(picture.label)) {
            return Err(Error::new(Kind::Shape, format!("a class is out of range for {k} classes")));
        }
        if probabilities.iter().any(|p| !p.is_finite()) {
            return Err(Error::new(Kind::Diverged, "a probability is not a number"));
        }
        let rows: Vec<&[f64]> = probabilities.chunks_exact(k).collect();
        let right: Vec<bool> = rows.iter().zip(pictures).map(|(row, picture)| is_right(row, picture.label)).collect();
        let curves: Vec<Curve> = (0..k).map(|class| Curve::new(&rows, pictures, class)).collect();
        let all = vec![1; pictures.len()];

        let lesions: Vec<&str> = pictures.iter().map(|picture| picture.lesion).collect();
        let labels: Vec<usize> = pictures.iter().map(|picture| picture.label).collect();
        let resamples = resamples(&lesions, &labels);
        let intervals: Vec<(f64, f64, Vec<Option<f64>>)> = resamples
            .par_iter()
            .map(|weights| {
                let aucs = curves.iter().map(|curve| curve.auc(weights)).collect();
                (accuracy(&right, weights), balanced(pictures, &right, weights, k), aucs)
            })
            .collect();
        let auc_interval = |class: usize| {
            let values: Vec<f64> = intervals.iter().filter_map(|(.., aucs)| aucs[class]).collect();
            (!values.is_empty()).then(|| interval(values))
        };

        let classes = (0..k).map(|class| {
            let positive: Vec<bool> = pictures.iter().map(|picture| picture.label == class).collect();
            let column: Vec<f64> = rows.iter().map(|row| row[class]).collect();
            let counts = Counts::new(&rows, pictures, class);
            let curve = &curves[class];
            let auc = curve.auc(&all);
            Ok(ClassDetail {
                name: names[class].clone(),
                support: counts.there(),
                accuracy: share(counts.hits + counts.left, pictures.len() as u64),
                sensitivity: share(counts.hits, counts.there()),
                specificity: share(counts.left, counts.left + counts.alarms),
                dice: share(2 * counts.hits, 2 * counts.hits + counts.alarms + counts.misses),
                ppv: share(counts.hits, counts.hits + counts.alarms),
                npv: share(counts.left, counts.left + counts.misses),
                auc,
                auc_interval: auc.and_then(|_| auc_interval(class)),
                auc_above_sensitivity_80: auc.map(|_| curve.auc_above(SENSITIVE)),
                average_precision: average_precision(&positive, &column)?,
            })
        });
        let labels: Vec<usize> = pictures.iter().map(|picture| picture.label).collect();
        let (calibration_error, calibration) = calibration_error(probabilities, k, &labels)?;
        Ok(Self {
            classes: classes.collect::<Result<_>>()?,
            balanced_accuracy: balanced(pictures, &right, &all, k),
            balanced_accuracy_interval: interval(intervals.iter().map(|(_, balanced, _)| *balanced).collect()),
            accuracy_interval: interval(intervals.iter().map(|(accuracy, ..)| *accuracy).collect()),
            calibration_error,
            calibration,
            groups: groups(&rows, pictures, k)?,
            operating_point: operating.and_then(|(class, specificity)| {
                let (sensitivity, threshold) = curves[class].at_specificity(specificity)?;
                Some(OperatingPoint { class: names[class].clone(), specificity, sensitivity, threshold })
            }),
        })
    }
}

/// Whether the largest probability is that of the class, and of no other.
fn is_right(row: &[f64], label: usize) -> bool {
    row.iter().enumerate().all(|(class, &p)| class == label || p < row[label])
}

/// `a / b`, and 1 where both are nothing.
fn share(a: u64, b: u64) -> f64 {
    if b == 0 { 1.0 } else { a as f64 / b as f64 }
}

/// Answers at a threshold of one half.
#[derive(Default)]
struct Counts {
    hits: u64,
    misses: u64,
    alarms: u64,
    left: u64,
}

impl Counts {
    fn new(rows: &[&[f64]], pictures: &[Scored<'_>], class: usize) -> Self {
        let mut counts = Self::default();
        for (row, picture) in rows.iter().zip(pictures) {
            *match (picture.label == class, row[class] > 0.5) {
                (true, true) => &mut counts.hits,
                (true, false) => &mut counts.misses,
                (false, true) => &mut counts.alarms,
                (false, false) => &mut counts.left,
            } += 1;
        }
        counts
    }

    /// Pictures of the class.
    fn there(&self) -> u64 {
        self.hits + self.misses
    }
}

/// The pictures in falling order of a class's probability.
struct Curve {
    /// Which picture, whether it is of the class, and whether its probability is that of the one before.
    order: Vec<(usize, bool, bool)>,
    thresholds: Vec<f64>,
}

impl Curve {
    fn new(rows: &[&[f64]], pictures: &[Scored<'_>], class: usize) -> Self {
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by(|&a, &b| rows[b][class].total_cmp(&rows[a][class]));
        let thresholds: Vec<f64> = order.iter().map(|&i| rows[i][class]).collect();
        let entry =
            |(at, &i): (usize, &usize)| (i, pictures[i].label == class, at > 0 && thresholds[at] == thresholds[at - 1]);
        Self { order: order.iter().enumerate().map(entry).collect(), thresholds }
    }

    /// True and false positives, counted by `weights`, from nothing on at each threshold downwards; with the threshold.
    fn points(&self, weights: &[u32]) -> Vec<(f64, f64, f64)> {
        let (mut points, mut hits, mut alarms) = (vec![(0.0, 0.0, f64::INFINITY)], 0.0, 0.0);
        for (at, &(picture, positive, _)) in self.order.iter().enumerate() {
            *(if positive { &mut hits } else { &mut alarms }) += f64::from(weights[picture]);
            if self.order.get(at + 1).is_none_or(|next| !next.2) {
                points.push((hits, alarms, self.thresholds[at]));
            }
        }
        points
    }

    /// Area under the ROC curve, if there are pictures of the class and others.
    fn auc(&self, weights: &[u32]) -> Option<f64> {
        let points = self.points(weights);
        let &(positives, negatives, _) = points.last()?;
        let area: f64 = points.windows(2).map(|w| (w[1].1 - w[0].1) * (w[0].0 + w[1].0) / 2.0).sum();
        (positives > 0.0 && negatives > 0.0).then(|| area / (positives * negatives))
    }

    /// Rates of true and false positives, and thresholds.
    fn rates(&self) -> Vec<(f64, f64, f64)> {
        let points = self.points(&vec![1; self.order.len()]);
        let (positives, negatives) = points.last().map_or((1.0, 1.0), |&(p, n, _)| (p.max(1.0), n.max(1.0)));
        points.into_iter().map(|(hits, alarms, at)| (hits / positives, alarms / negatives, at)).collect()
    }

    /// Area under the ROC curve right of the point where the rate of true positives is `least`, which is interpolated.
    fn auc_above(&self, least: f64) -> f64 {
        let rates = self.rates();
        let Some(first) = rates.iter().position(|&(hits, ..)| hits >= least).filter(|&first| first > 0) else {
            return 0.0;
        };
        let ((y0, x0, _), (y1, x1, _)) = (rates[first - 1], rates[first]);
        let start = (least, x0 + (x1 - x0) * (least - y0) / (y1 - y0));
        let segment: Vec<(f64, f64)> =
            std::iter::once(start).chain(rates[first..].iter().map(|&(hits, alarms, _)| (hits, alarms))).collect();
        segment.windows(2).map(|w| (w[1].1 - w[0].1) * (w[0].0 + w[1].0) / 2.0).sum()
    }

    /// The highest sensitivity of a threshold with at least this specificity, and that threshold.
    fn at_specificity(&self, specificity: f64) -> Option<(f64, f64)> {
        self.auc(&vec![1; self.order.len()])?;
        // Rates are fractions of counts: a rounding must not decide.
        let fine = |&&(_, alarms, _): &&(f64, f64, f64)| 1.0 - alarms >= specificity - 1e-12;
        self.rates().iter().filter(fine).map(|&(hits, _, at)| (hits, at)).max_by(|a, b| a.0.total_cmp(&b.0))
    }
}

/// How often each picture is in each bootstrap sample: lesions are drawn with replacement.
///
/// Lesions are drawn class by class, each as often as it has lesions, so that no sample lacks a rare class (a stratified
/// bootstrap). A lesion has the class of its first picture.
pub(super) fn resamples<T: AsRef<str> + Sync>(lesion_of: &[T], classes: &[usize]) -> Vec<Vec<u32>> {
    let mut lesions: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, lesion) in lesion_of.iter().enumerate() {
        lesions.entry(lesion.as_ref()).or_default().push(i);
    }
    let mut strata: BTreeMap<usize, Vec<Vec<usize>>> = BTreeMap::new();
    for pictures in lesions.into_values() {
        let class = pictures.first().and_then(|&first| classes.get(first)).copied().unwrap_or_default();
        strata.entry(class).or_default().push(pictures);
    }
    let draw = |round: usize| {
        let stream = Stream::new(round as u32, 0x0b00_7574);
        let mut weights = vec![0; lesion_of.len()];
        let mut draws = 0..;
        for lesions in strata.values() {
            for i in draws.by_ref().take(lesions.len()) {
                let lesion = (f64::from(stream.uniform(i)) * lesions.len() as f64) as usize;
                lesions[lesion.min(lesions.len() - 1)].iter().for_each(|&picture| weights[picture] += 1);
            }
        }
        weights
    };
    (0..RESAMPLES).into_par_iter().map(draw).collect()
}

/// The percentiles 2.5 and 97.5, linearly interpolated (as `numpy.percentile`).
pub(super) fn interval(mut values: Vec<f64>) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    [0.025, 0.975].map(|q| {
        let at = q * (values.len().max(1) - 1) as f64;
        let (low, high) = (at.floor() as usize, at.ceil() as usize);
        let value = |i: usize| values.get(i).copied().unwrap_or(f64::NAN);
        value(low) + (value(high) - value(low)) * at.fract()
    })
}

fn accuracy(right: &[bool], weights: &[u32]) -> f64 {
    let hits = right.iter().zip(weights).filter(|(right, _)| **right).map(|(_, &weight)| u64::from(weight));
    share(hits.sum(), weights.iter().map(|&weight| u64::from(weight)).sum())
}

/// Mean recall over the classes that occur.
fn balanced(pictures: &[Scored<'_>], right: &[bool], weights: &[u32], classes: usize) -> f64 {
    let mut counts = vec![(0, 0); classes];
    for ((picture, &right), &weight) in pictures.iter().zip(right).zip(weights) {
        counts[picture.label].0 += u64::from(weight) * u64::from(right);
        counts[picture.label].1 += u64::from(weight);
    }
    let recalls: Vec<f64> =
        counts.into_iter().filter(|(_, all)| *all > 0).map(|(hits, all)| share(hits, all)).collect();
    recalls.iter().sum::<f64>() / recalls.len().max(1) as f64
}

fn groups(rows: &[&[f64]], pictures: &[Scored<'_>], classes: usize) -> Result<Vec<GroupScores>> {
    let mut found: BTreeMap<(&str, &str), ConfusionMatrix> = BTreeMap::new();
    for (row, picture) in rows.iter().zip(pictures) {
        for (by, name) in &picture.groups {
            let matrix = found.entry((by, name)).or_insert_with(|| ConfusionMatrix::new(classes));
            matrix.add(picture.label, argmax(row))?;
        }
    }
    let scores = |((by, name), matrix): ((&str, &str), ConfusionMatrix)| GroupScores {
        by: by.to_owned(),
        name: name.to_owned(),
        images: matrix.samples(),
        accuracy: matrix.accuracy(),
        balanced_accuracy: matrix.balanced_accuracy(),
    };
    Ok(found.into_iter().map(scores).collect())
}

impl fmt::Display for DetailedReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.classes.iter().map(|class| class.name.chars().count()).max().unwrap_or(0).max("class".len());
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.4}"));
        let range = |range: [f64; 2]| format!("{:.4} to {:.4}", range[0], range[1]);
        writeln!(f, "each class by itself, found above a probability of one half")?;
        writeln!(
            f,
            "{:width$}  sensitivity  specificity     PPV     NPV     AUC  95 % interval     AUC80      AP",
            "class"
        )?;
        for class in &self.classes {
            let interval = class.auc_interval.map_or_else(|| "-".to_owned(), range);
            writeln!(
                f,
                "{:width$}  {:>11.4}  {:>11.4}  {:>6.4}  {:>6.4}  {:>6}  {interval:<16}  {:>6}  {:>6}",
                class.name,
                class.sensitivity,
                class.specificity,
                class.ppv,
                class.npv,
                number(class.auc),
                number(class.auc_above_sensitivity_80),
                number(class.average_precision),
            )?;
        }
        writeln!(
            f,
            "\n95 % intervals: accuracy {}, balanced accuracy {}",
            range(self.accuracy_interval),
            range(self.balanced_accuracy_interval)
        )?;
        write!(f, "calibration error {:.4}", self.calibration_error)?;
        if let Some(point) = &self.operating_point {
            let OperatingPoint { class, specificity, sensitivity, threshold } = point;
            write!(
                f,
                "\n{class} at a specificity of {specificity}: sensitivity {sensitivity:.4}, from {threshold:.4} on"
            )?;
        }
        let mut by = "";
        for group in &self.groups {
            if group.by != by {
                by = &group.by;
                write!(f, "\n\n{by:<16}  images  accuracy  balanced")?;
            }
            let GroupScores { name, images, accuracy, balanced_accuracy, .. } = group;
            write!(f, "\n{name:<16}  {images:>6}  {accuracy:>8.4}  {balanced_accuracy:>8.4}")?;
        }
        Ok(())
    }
}
