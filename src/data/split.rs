//! Splits that are stratified by class and keep every lesion in one split.
//!
//! Several pictures show one lesion. A split by picture puts the same lesion into training and test and so measures
//! memory; that protocol exists here only to compare with published tables that used it, and must be asked for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::dataset::{Dataset, Split};
use super::decode::read_limited;
use super::delimited::{Delimited, LEAKY};
use super::faults::{FaultKind, Faults};
use crate::error::{Error, Kind, Result};
use crate::rng::Stream;

/// How to split a dataset that does not come split.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SplitSpec {
    /// The shares of train, val and test; they sum to 1. Val or test may be 0.
    pub fractions: [f64; 3],
    /// The seed: the same seed gives the same split of the same dataset.
    pub seed: u32,
    /// Keep each group in one split (leak-free). False splits picture by picture, as many published tables did.
    pub grouped: bool,
    /// One fold of a cross-validation: its part is the test split, and the rest is shared out between train and val in
    /// the ratio of their fractions.
    pub fold: Option<Fold>,
}

/// One of several parts that take turns as test split: `2/5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fold {
    /// Which, from 1.
    pub number: u16,
    /// Of how many.
    pub of: u16,
}

impl fmt::Display for Fold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

impl FromStr for Fold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(number, of)| {
            let fold = Self { number: number.trim().parse().ok()?, of: of.trim().parse().ok()? };
            ((2..=100).contains(&fold.of) && (1..=fold.of).contains(&fold.number)).then_some(fold)
        });
        parsed.ok_or_else(|| format!("`{text}` is no fold: write 1/5 for the first of five, of 2 to 100"))
    }
}

impl Default for SplitSpec {
    /// 70/15/15, seed 42, leak-free.
    fn default() -> Self {
        Self { fractions: [0.70, 0.15, 0.15], seed: 42, grouped: true, fold: None }
    }
}

/// The sample indices of each split, ascending. Every sample is in exactly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitAssignment {
    /// Indices of the training samples.
    pub train: Vec<usize>,
    /// Indices of the validation samples.
    pub val: Vec<usize>,
    /// Indices of the test samples.
    pub test: Vec<usize>,
    /// Whether the dataset itself gave the split (then the [`SplitSpec`] was not used).
    pub given: bool,
}

impl SplitAssignment {
    /// The indices of one split.
    pub fn indices(&self, split: Split) -> &[usize] {
        match split {
            Split::Train => &self.train,
            Split::Val => &self.val,
            Split::Test => &self.test,
        }
    }

    /// The leak check: what it finds if a group has samples in more than one split.
    pub fn leak(&self, dataset: &Dataset) -> Option<Leak> {
        let mut home: HashMap<&str, Split> = HashMap::new();
        let mut torn: BTreeSet<&str> = BTreeSet::new();
        for split in [Split::Train, Split::Val, Split::Test] {
            for group in self.indices(split).iter().map(|&i| dataset.samples[i].group.as_str()) {
                if *home.entry(group).or_insert(split) != split {
                    torn.insert(group);
                }
            }
        }
        let example = (*torn.first()?).to_owned();
        Some(Leak { torn: torn.len(), groups: home.len(), example })
    }

    /// From the split number of each sample: 0 train, 1 val, 2 test.
    fn collect(parts: impl Iterator<Item = usize>, given: bool) -> Self {
        let mut lists = [Vec::new(), Vec::new(), Vec::new()];
        for (index, part) in parts.enumerate() {
            lists[part].push(index);
        }
        let [train, val, test] = lists;
        Self { train, val, test, given }
    }
}

/// Groups that are torn apart: what is measured on one part of them was learned from the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leak {
    /// How many groups have samples in more than one split.
    pub torn: usize,
    /// Of how many.
    pub groups: usize,
    /// One of them.
    pub example: String,
}

impl Leak {
    /// The error of a split of `dataset` that must not leak.
    pub fn into_error(self, dataset: &Dataset) -> Error {
        Error::new(Kind::Data, self.to_string())
            .at(&dataset.origin)
            .next("give each lesion to one part; or accept the leak with --protocol published, which marks the results")
    }
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { torn, groups, example } = self;
        write!(f, "{LEAKY}: {torn} of {groups} lesions are in more than one part of the split, for example {example}")
    }
}

/// Splits `dataset`: by its own splits where it gives them, else stratified by class as `spec` says.
///
/// Each class's share of each split is as near to the fractions as whole groups allow, and a class with as many groups
/// as there are splits is in every split.
///
/// # Errors
/// [`Kind::Usage`] if the fractions are not shares that sum to 1 with some training, or if a fold is asked for of a dataset
/// that gives its split; [`Kind::Data`] if only some samples give a split.
pub fn split(dataset: &Dataset, spec: &SplitSpec) -> Result<SplitAssignment> {
    let given: Vec<usize> = dataset.samples.iter().filter_map(|s| s.split.map(|split| split as usize)).collect();
    if let (Some(fold), false) = (spec.fold, given.is_empty()) {
        return Err(Error::new(Kind::Usage, format!("fold {fold} is asked for, but the dataset gives its own split"))
            .at(&dataset.origin)
            .next("leave --fold away, or remove the split from the dataset"));
    }
    if given.len() == dataset.samples.len() && !given.is_empty() {
        return Ok(SplitAssignment::collect(given.into_iter(), true));
    }
    if !given.is_empty() {
        let total = dataset.samples.len();
        return Err(Error::new(Kind::Data, format!("only {} of {total} samples give a split", given.len()))
            .at(&dataset.origin)
            .next("fill the column `split` in every row, or remove it"));
    }
    let fractions = spec.fractions;
    let shares =
        fractions.iter().all(|f| (0.0..=1.0).contains(f)) && (fractions.iter().sum::<f64>() - 1.0).abs() < 1e-6;
    if !shares || fractions[0] <= 0.0 {
        return Err(Error::new(Kind::Usage, format!("the split fractions {fractions:?} are not shares that sum to 1"))
            .next("give train, val and test shares such as 0.7,0.15,0.15, with some training"));
    }

    let groups = collect_groups(dataset, spec.grouped);
    let stream = Stream::named(spec.seed, "split");
    let mut parts = vec![0_usize; dataset.samples.len()];
    for label in 0..dataset.classes.len() {
        let members: Vec<&Vec<usize>> = groups.iter().filter(|g| g.label == label).map(|g| &g.members).collect();
        let order = stream.permutation(members.len(), label as u32);
        let mut shuffled: Vec<&Vec<usize>> = order.into_iter().map(|i| members[i]).collect();
        let mut shares = fractions;
        if let Some(fold) = spec.fold {
            let folds = assign(shuffled, &vec![1.0 / f64::from(fold.of); usize::from(fold.of)]);
            let (test, rest): (Vec<_>, Vec<_>) =
                folds.into_iter().partition(|(_, n)| *n + 1 == usize::from(fold.number));
            test.iter().flat_map(|(group, _)| *group).for_each(|&sample| parts[sample] = Split::Test as usize);
            shuffled = rest.into_iter().map(|(group, _)| group).collect();
            let [train, val, _] = fractions;
            shares = [train / (train + val), val / (train + val), 0.0];
        }
        for (group, part) in assign(shuffled, &shares) {
            group.iter().for_each(|&sample| parts[sample] = part);
        }
    }
    Ok(SplitAssignment::collect(parts.into_iter(), false))
}

/// The part, in a run's `split.csv`, of samples that balancing left out.
pub const UNUSED: &str = "unused";

/// Gives each sample the split that a table says: columns `image_id` (or `image`, or `path`) and `split`, as in the
/// `split.csv` of a run. Samples that are [`UNUSED`] are left out; those that the table does not name become faults.
///
/// # Errors
/// [`Kind::Io`] and [`Kind::Data`] for a table that cannot be read.
pub(super) fn take_splits(dataset: &mut Dataset, file: &Path) -> Result<()> {
    let (place, mut faults) = (file.display().to_string(), Faults::default());
    let bytes = read_limited(file)?;
    let table = Delimited::read(&bytes, &place, &["split"], &mut faults)?;
    let column = ["image_id", "image", "path"].into_iter().find(|column| table.has(column)).ok_or_else(|| {
        Error::new(Kind::Data, "the table has no column `image_id`").at(&place).next("name the images by their ids")
    })?;
    let mut splits: HashMap<&str, Option<Split>> = HashMap::new();
    for row in table.rows() {
        match Split::named(row.get("split")) {
            Some(split) => drop(splits.insert(row.get(column), Some(split))),
            None if row.get("split") == UNUSED => drop(splits.insert(row.get(column), None)),
            None => {
                let what = format!("has the unknown split `{}` (known: train, val, test)", row.get("split"));
                faults.push(FaultKind::MalformedRow, format!("{place}, {}", row.place()), what);
            }
        }
    }
    let Dataset { samples, notes, unused, .. } = dataset;
    let before = unused.len();
    samples.retain_mut(|sample| {
        let part = splits.remove(&*sample.id);
        match part {
            Some(Some(_)) => {}
            Some(None) => unused.push(sample.clone()),
            None => faults.push(FaultKind::NoSplit, &sample.id, format!("is not in {place}")),
        }
        sample.split = part.flatten();
        sample.split.is_some()
    });
    if unused.len() > before {
        notes.push(format!("{} image(s) are {UNUSED}, as {place} says", unused.len() - before));
    }
    if let Some(first) = splits.keys().min() {
        notes.push(format!("{} image(s) of {place} are not in the dataset, for example {first}", splits.len()));
    }
    dataset.faults.append(&faults);
    Ok(())
}

/// Samples that stay together, and the class they are stratified by.
struct Group {
    label: usize,
    members: Vec<usize>,
}

/// The groups in order of their first sample. A group of several classes counts for its most frequent one.
fn collect_groups(dataset: &Dataset, grouped: bool) -> Vec<Group> {
    let samples = &dataset.samples;
    if !grouped {
        return (0..samples.len()).map(|i| Group { label: samples[i].label, members: vec![i] }).collect();
    }
    let mut number: HashMap<&str, usize> = HashMap::new();
    let mut members: Vec<Vec<usize>> = Vec::new();
    for (i, sample) in samples.iter().enumerate() {
        let n = *number.entry(&sample.group).or_insert(members.len());
        if n == members.len() {
            members.push(Vec::new());
        }
        members[n].push(i);
    }
    let label = |members: &[usize]| {
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        members.iter().for_each(|&i| *counts.entry(samples[i].label).or_default() += 1);
        // The lowest class wins a tie; a group has at least one member.
        counts.into_iter().max_by_key(|&(label, n)| (n, std::cmp::Reverse(label))).map_or(0, |(label, _)| label)
    };
    members.into_iter().map(|members| Group { label: label(&members), members }).collect()
}

/// Assigns the groups of one class, already shuffled, to splits.
///
/// Large groups go first, each to the split that is furthest behind its share (Webster's method of apportionment), so
/// large groups spread over the splits in proportion and the single pictures at the end even out the counts.
fn assign<'a>(mut groups: Vec<&'a Vec<usize>>, fractions: &[f64]) -> Vec<(&'a Vec<usize>, usize)> {
    groups.sort_by_key(|g| std::cmp::Reverse(g.len())); // stable: groups of one size stay shuffled
    let all = fractions.len();
    let mut filled = vec![0.0_f64; all];
    let mut assigned: Vec<(&Vec<usize>, usize)> = Vec::with_capacity(groups.len());
    for group in groups {
        let size = group.len() as f64;
        let claim = |part: usize| fractions[part] / (filled[part] + size / 2.0);
        let part = (1..all).fold(0, |best, part| if claim(part) > claim(best) { part } else { best });
        filled[part] += size;
        assigned.push((group, part));
    }
    // A rare class can leave a small split without it: the split with most groups gives its smallest group.
    for part in (0..all).filter(|&p| fractions[p] > 0.0) {
        let count = |p: usize| assigned.iter().filter(|(_, q)| *q == p).count();
        let donor = (1..all).fold(0, |best, p| if count(p) > count(best) { p } else { best });
        if count(part) == 0 && count(donor) > 1 {
            // The groups are sorted by size, so the donor's last is its smallest.
            if let Some(last) = assigned.iter_mut().rev().find(|(_, q)| *q == donor) {
                last.1 = part;
            }
        }
    }
    assigned
}
