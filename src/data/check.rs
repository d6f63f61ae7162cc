//! Everything that can be told of a dataset in one pass over its pictures: counts, faults, sizes, how colours are stored,
//! and pictures that occur more than once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use image::DynamicImage;
use rayon::prelude::*;
use serde::Serialize;

use super::dataset::{Dataset, Sample};
use super::decode::{Decoded, decode_described};
use super::faults::{Fault, FaultKind, summary};
use super::masks;
use super::near::{self, Thumbnail};
use super::sets::Sets;
use super::synthetic;
use super::tree::{ReaderPool, Source, SourceReader};
use crate::error::{Error, Kind, Result};

/// How many pictures are decoded between two calls of the progress callback.
const AT_ONCE: usize = 64;
/// The side that generated pictures are drawn at.
const SYNTHETIC_SIDE: usize = 128;
/// Years of an age band.
const BAND: u16 = 20;

/// How many pictures and lesions something has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// What is counted: a class, a sex, a size.
    pub name: String,
    /// Pictures.
    pub images: usize,
    /// Lesions.
    pub lesions: usize,
}

/// Pictures that are one, or look like one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Duplicates {
    /// Their ids, in the dataset's order.
    pub images: Vec<String>,
    /// Their files.
    pub files: Vec<String>,
    /// The correlation of the least similar two that were compared; 1 if they are equal byte for byte.
    pub likeness: f32,
    /// Whether all bytes are equal.
    pub exact: bool,
    /// Their lesions, if there are several.
    pub lesions: Vec<String>,
    /// Their classes, if there are several.
    pub classes: Vec<String>,
    /// Their splits, if the dataset gives some and there are several.
    pub splits: Vec<String>,
}

impl Duplicates {
    /// Whether they tear apart what must stay together: a lesion, a class or a split.
    pub fn conflict(&self) -> bool {
        !(self.lesions.is_empty() && self.classes.is_empty() && self.splits.is_empty())
    }
}

/// What was found in a dataset.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DataReport {
    /// The dataset's name.
    pub name: String,
    /// Where it is.
    pub path: String,
    /// How it lies there.
    pub layout: String,
    /// Pictures that can be used.
    pub images: usize,
    /// Lesions they show.
    pub lesions: usize,
    /// Pictures with a mask.
    pub masks: usize,
    /// By class, in the order of a model's outputs.
    pub classes: Vec<Count>,
    /// By split, where the dataset gives one.
    pub splits: Vec<Count>,
    /// By sex.
    pub sexes: Vec<Count>,
    /// By age.
    pub ages: Vec<Count>,
    /// By part of the body.
    pub sites: Vec<Count>,
    /// By size in pixels, the most frequent first.
    pub sizes: Vec<Count>,
    /// By the way colours are stored, the most frequent first.
    pub modes: Vec<Count>,
    /// Pictures that are turned or mirrored as their EXIF data say.
    pub turned: usize,
    /// How many faults there are of each kind.
    pub fault_counts: BTreeMap<String, usize>,
    /// Every fault.
    pub faults: Vec<Fault>,
    /// Pictures that occur more than once.
    pub duplicates: Vec<Duplicates>,
    /// What else a user should know.
    pub notes: Vec<String>,
}

/// What is kept of a picture.
struct Seen {
    hash: blake3::Hash,
    thumbnail: Thumbnail,
    size: (u32, u32),
    mode: String,
    turned: bool,
}

/// Reads every picture and mask of `dataset` and tells what was found. The dataset is not changed; its faults are among
/// the report's.
///
/// `progress(what, done, total)` is called now and then, with what is being done; an error it returns stops the work and
/// is returned.
///
/// # Errors
/// Those of `progress`.
pub fn check(dataset: &Dataset, progress: &mut dyn FnMut(&str, usize, usize) -> Result<()>) -> Result<DataReport> {
    let mut faults = dataset.faults.clone();
    let pool = ReaderPool::default();
    let total = dataset.samples.len();
    let mut seen: Vec<(&Sample, Seen)> = Vec::with_capacity(total);
    for (part, samples) in dataset.samples.chunks(AT_ONCE).enumerate() {
        progress("reading", part * AT_ONCE, total)?;
        let looked: Vec<_> = samples.par_iter().map(|sample| pool.with(|reader| look(sample, reader))).collect();
        for (sample, looked) in samples.iter().zip(looked) {
            match looked {
                Ok(found) => seen.push((sample, found)),
                Err((kind, what)) => {
                    let place = sample.mask.as_ref().filter(|_| kind == FaultKind::BadMask).unwrap_or(&sample.source);
                    faults.push(kind, place, what);
                }
            }
        }
    }
    progress("reading", total, total)?;
    let thumbnails: Vec<&Thumbnail> = seen.iter().map(|(_, found)| &found.thumbnail).collect();
    let pairs = near::pairs(&thumbnails, &mut |done| progress("comparing", done, thumbnails.len()))?;
    progress("comparing", thumbnails.len(), thumbnails.len())?;

    let samples: Vec<&Sample> = seen.iter().map(|(sample, _)| *sample).collect();
    let by = |name: &dyn Fn(&Sample) -> String| count(samples.iter().map(|s| (name(s), s.group.as_str())));
    let blank = |text: &str| if text.is_empty() { "unknown".to_owned() } else { text.to_owned() };
    let mut classes: Vec<Count> = by(&|s| dataset.classes[s.label].clone());
    for name in &dataset.classes {
        if !classes.iter().any(|class| class.name == *name) {
            classes.push(Count { name: name.clone(), ..Count::default() });
        }
    }
    classes.sort_by_key(|class| dataset.classes.iter().position(|name| *name == class.name));
    let given = samples.iter().any(|s| s.split.is_some());
    let known = |of: &dyn Fn(&Sample) -> bool| samples.iter().any(|s| of(s));
    let looks = |name: &dyn Fn(&Seen) -> String| {
        let mut counts = count(seen.iter().map(|(sample, found)| (name(found), sample.group.as_str())));
        counts.sort_by_key(|count| std::cmp::Reverse(count.images));
        counts
    };
    let mut fault_counts: BTreeMap<String, usize> = BTreeMap::new();
    for fault in faults.list() {
        *fault_counts.entry(fault.kind.name().to_owned()).or_default() += 1;
    }
    Ok(DataReport {
        name: dataset.name.clone(),
        path: dataset.origin.clone(),
        layout: dataset.layout.to_string(),
        images: samples.len(),
        lesions: samples.iter().map(|s| s.group.as_str()).collect::<BTreeSet<_>>().len(),
        masks: samples.iter().filter(|s| s.mask.is_some()).count(),
        classes,
        splits: if given { by(&|s| s.split.map_or("none".to_owned(), |split| split.to_string())) } else { vec![] },
        sexes: if known(&|s| !s.patient.sex.is_empty()) { by(&|s| blank(&s.patient.sex)) } else { vec![] },
        ages: if known(&|s| s.patient.age.is_some()) {
            by(&|s| s.patient.age.map_or("unknown".to_owned(), age_band))
        } else {
            vec![]
        },
        sites: if known(&|s| !s.patient.site.is_empty()) { by(&|s| blank(&s.patient.site)) } else { vec![] },
        sizes: looks(&|found| format!("{}x{}", found.size.0, found.size.1)),
        modes: looks(&|found| found.mode.clone()),
        turned: seen.iter().filter(|(_, found)| found.turned).count(),
        fault_counts,
        faults: faults.list().to_vec(),
        duplicates: duplicates(dataset, &seen, &pairs),
        notes: dataset.notes.clone(),
    })
}

/// Reads and decodes a picture, and its mask if there is one.
fn look(sample: &Sample, reader: &mut SourceReader) -> std::result::Result<Seen, (FaultKind, String)> {
    let bad = |what: String| (FaultKind::BadImage, what);
    let unread = |e: Error| bad(e.what().to_owned());
    let (hash, decoded) = match sample.source.origin().0 {
        Source::Synthetic { seed, index } => {
            let picture = DynamicImage::from(synthetic::render(*seed, *index, SYNTHETIC_SIDE).0);
            let hash = blake3::hash(picture.as_bytes());
            (hash, Decoded { picture, mode: "RGB".to_owned(), turned: false })
        }
        source => {
            let bytes = reader.read(source).map_err(unread)?;
            (blake3::hash(&bytes), decode_described(&bytes).map_err(bad)?)
        }
    };
    let picture = decoded.picture.into_rgb8();
    let size = picture.dimensions();
    if let Some(mask) = sample.mask.as_ref().filter(|mask| !matches!(mask, Source::Synthetic { .. })) {
        let bad = |what: String| (FaultKind::BadMask, what);
        let bytes = reader.read(mask).map_err(|e| bad(format!("the mask: {}", e.what())))?;
        masks::decode(&bytes, Some(size)).map_err(bad)?;
    }
    Ok(Seen { hash, thumbnail: Thumbnail::of(&picture), size, mode: decoded.mode, turned: decoded.turned })
}

/// Pictures and lesions by name, in the order of the names.
fn count<'a>(items: impl Iterator<Item = (String, &'a str)>) -> Vec<Count> {
    let mut counts: BTreeMap<String, (usize, BTreeSet<&str>)> = BTreeMap::new();
    for (name, lesion) in items {
        let (images, lesions) = counts.entry(name).or_default();
        *images += 1;
        lesions.insert(lesion);
    }
    let count =
        |(name, (images, lesions)): (String, (usize, BTreeSet<&str>))| Count { name, images, lesions: lesions.len() };
    counts.into_iter().map(count).collect()
}

/// The band of an age in years, named so that bands sort by age: `40-59`.
pub fn age_band(age: u16) -> String {
    let first = age / BAND * BAND;
    format!("{first:02}-{}", first + BAND - 1)
}

/// Sets of pictures that are connected by pairs, or equal.
fn duplicates(dataset: &Dataset, seen: &[(&Sample, Seen)], pairs: &[near::Pair]) -> Vec<Duplicates> {
    let mut sets = Sets::new(seen.len());
    let mut first_with: HashMap<blake3::Hash, usize> = HashMap::new();
    for (i, (_, found)) in seen.iter().enumerate() {
        let first = *first_with.entry(found.hash).or_insert(i);
        sets.unite(first, i);
    }
    pairs.iter().for_each(|pair| sets.unite(pair.first, pair.second));
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for i in 0..seen.len() {
        members.entry(sets.root(i)).or_default().push(i);
    }
    let mut likeness: HashMap<usize, f32> = HashMap::new();
    for pair in pairs {
        let least = likeness.entry(sets.root(pair.first)).or_insert(1.0);
        *least = least.min(pair.likeness);
    }
    let several = |names: BTreeSet<String>| if names.len() > 1 { names.into_iter().collect() } else { vec![] };
    let of = |(root, members): (usize, Vec<usize>)| {
        let all = || members.iter().map(|&i| &seen[i]);
        Duplicates {
            images: all().map(|(sample, _)| sample.id.clone()).collect(),
            files: all().map(|(sample, _)| sample.source.to_string()).collect(),
            exact: all().all(|(_, found)| found.hash == seen[root].1.hash),
            likeness: likeness.get(&root).copied().unwrap_or(1.0),
            lesions: several(all().map(|(sample, _)| sample.group.clone()).collect()),
            classes: several(all().map(|(sample, _)| dataset.classes[sample.label].clone()).collect()),
            splits: several(all().filter_map(|(sample, _)| Some(sample.split?.to_string())).collect()),
        }
    };
    members.into_iter().filter(|(_, members)| members.len() > 1).map(of).collect()
}

impl DataReport {
    /// Whether a training run would refuse the dataset.
    pub fn faulty(&self) -> bool {
        !self.faults.is_empty()
    }

    /// The error of a dataset that has faults: for the exit code, the report names them.
    pub fn error(&self) -> Error {
        Error::new(Kind::Data, format!("the dataset has faults: {}", summary(&self.faults)))
            .at(&self.path)
            .next("repair or remove what is named above; training leaves it out with --skip-bad")
    }
}

/// How many entries of a list are shown.
const SHOWN: usize = 20;

/// The first of some names, and how many more there are.
fn first_of(names: &[String]) -> String {
    const NAMED: usize = 6;
    match names.len().checked_sub(NAMED) {
        Some(more @ 1..) => format!("{} and {more} more", names[..NAMED].join(", ")),
        _ => names.join(", "),
    }
}

impl fmt::Display for DataReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "data      {} ({})", self.name, self.layout)?;
        writeln!(
            f,
            "images    {} of {} lesions{}",
            self.images,
            self.lesions,
            match self.masks {
                0 => String::new(),
                n => format!(", {n} with a mask"),
            }
        )?;
        let table = |f: &mut fmt::Formatter<'_>, title: &str, counts: &[Count]| -> fmt::Result {
            if counts.is_empty() {
                return Ok(());
            }
            let width = counts.iter().take(SHOWN).map(|c| c.name.chars().count()).max().unwrap_or(0).max(8);
            writeln!(f, "\n{title:<width$}   images          lesions")?;
            for count in counts.iter().take(SHOWN) {
                let share = 100.0 * count.images as f64 / self.images.max(1) as f64;
                let Count { name, images, lesions } = count;
                writeln!(f, "{name:<width$} {images:>8} {share:>5.1} % {lesions:>8}")?;
            }
            match counts.len().checked_sub(SHOWN) {
                Some(more @ 1..) => writeln!(f, "... and {more} more"),
                _ => Ok(()),
            }
        };
        table(f, "class", &self.classes)?;
        table(f, "split", &self.splits)?;
        table(f, "sex", &self.sexes)?;
        table(f, "age", &self.ages)?;
        table(f, "site", &self.sites)?;
        table(f, "size", &self.sizes)?;
        table(f, "colours", &self.modes)?;
        if self.turned > 0 {
            let masks = if self.masks > 0 { "; their masks have to be drawn as a viewer shows them" } else { "" };
            writeln!(f, "\n{} image(s) are turned or mirrored as their EXIF data say{masks}", self.turned)?;
        }
        self.show_duplicates(f)?;
        for note in &self.notes {
            writeln!(f, "\nnote: {note}")?;
        }
        if self.faults.is_empty() {
            return write!(f, "\nno faults");
        }
        write!(f, "\nfaults")?;
        for fault in self.faults.iter().take(SHOWN) {
            write!(f, "\n  {}: {fault}", fault.kind.name())?;
        }
        match self.faults.len().checked_sub(SHOWN) {
            Some(more @ 1..) => write!(f, "\n  ... and {more} more: --json names them all"),
            _ => Ok(()),
        }
    }
}

impl DataReport {
    fn show_duplicates(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (exact, near): (Vec<_>, Vec<_>) = self.duplicates.iter().partition(|d| d.exact);
        for (what, sets) in [("the same file", exact), ("near duplicates", near)] {
            if sets.is_empty() {
                continue;
            }
            let images: usize = sets.iter().map(|d| d.images.len()).sum();
            writeln!(f, "\n{what}: {} set(s) of {images} images", sets.len())?;
            let across = |name: &str, of: &dyn Fn(&Duplicates) -> bool, f: &mut fmt::Formatter<'_>| {
                let count = sets.iter().filter(|d| of(d)).count();
                if count == 0 { Ok(()) } else { writeln!(f, "  {count} across {name}") }
            };
            across("lesions", &|d| !d.lesions.is_empty(), f)?;
            across("classes", &|d| !d.classes.is_empty(), f)?;
            across("splits", &|d| !d.splits.is_empty(), f)?;
            for set in sets.iter().filter(|d| d.conflict()).take(SHOWN) {
                let named = |what: &str, names: &[String]| match names.is_empty() {
                    true => String::new(),
                    false => format!("; {what} {}", first_of(names)),
                };
                writeln!(
                    f,
                    "  {} ({:.3}){}{}{}",
                    first_of(&set.images),
                    set.likeness,
                    named("lesions", &set.lesions),
                    named("classes", &set.classes),
                    named("splits", &set.splits),
                )?;
            }
        }
        Ok(())
    }
}
