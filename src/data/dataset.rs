//! The dataset type, and which layout a path holds.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use super::faults::{FaultKind, Faults};
use super::sets::Sets;
use super::split::take_splits;
use super::tree::{Source, Tree};
use super::{balance, challenge, folders, ham10000, isic2018, masks, ph2, synthetic, table};
use crate::error::{Error, Kind, Result};

/// How many pictures `synthetic` means where no count is given.
const SYNTHETIC_DEFAULT: usize = 2000;
/// The most generated pictures that are asked for in earnest.
const SYNTHETIC_MAX: usize = 10_000_000;

/// How a dataset lies on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `HAM10000_metadata` and image folders, as a folder or a zip archive.
    Ham10000,
    /// Pictures and masks of ISIC 2018 Task 1, as a folder or a zip archive.
    Isic2018Task1,
    /// Pictures and ground truth of ISIC 2018 Task 3, as a folder or a zip archive.
    Isic2018Task3,
    /// Pictures, ground truth and metadata of ISIC 2019, as a folder or a zip archive.
    Isic2019,
    /// `PH2_dataset.txt` or `.xlsx`, and a folder for each case, as a folder or a zip archive.
    Ph2,
    /// A folder for each class, also in folders for each part.
    ClassFolders,
    /// A folder of pictures and one of masks, also in folders for each part.
    MaskFolders,
    /// A CSV file that names image files and their classes or masks.
    Table,
    /// Pictures made by the built-in generator.
    Synthetic,
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ham10000 => "HAM10000 folder or archive",
            Self::Isic2018Task1 => "ISIC 2018 Task 1 folder or archive",
            Self::Isic2018Task3 => "ISIC 2018 Task 3 folder or archive",
            Self::Isic2019 => "ISIC 2019 folder or archive",
            Self::Ph2 => "PH2 folder or archive",
            Self::ClassFolders => "a folder for each class",
            Self::MaskFolders => "a folder of images and a folder of masks",
            Self::Table => "CSV file of images and labels or masks",
            Self::Synthetic => "generated pictures",
        })
    }
}

/// A part of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Split {
    /// The samples a model learns from.
    Train,
    /// The samples that choose the model and stop the training.
    Val,
    /// The samples that are scored once, at the end.
    Test,
}

impl Split {
    /// The part that a word names, as people call their parts.
    pub(super) fn named(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "train" | "training" => Some(Self::Train),
            "val" | "valid" | "validation" => Some(Self::Val),
            "test" | "testing" => Some(Self::Test),
            _ => None,
        }
    }

    /// The part whose name a file or folder name contains; training where there is none.
    pub(super) fn mentioned(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        let named = [("validation", Self::Val), ("test", Self::Test)];
        named.into_iter().find(|(word, _)| name.contains(word)).map_or(Self::Train, |(_, split)| split)
    }
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        })
    }
}

/// Who shows a lesion, and where, as far as the dataset tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patient {
    /// Age in years.
    pub age: Option<u16>,
    /// Sex as the dataset spells it, in lower case; empty if unknown.
    pub sex: String,
    /// Part of the body as the dataset spells it, in lower case; empty if unknown.
    pub site: String,
}

impl Patient {
    /// From a table's fields, of which any may be blank or say that nothing is known.
    pub(super) fn read(age: &str, sex: &str, site: &str) -> Self {
        let known = |field: &str| match field.to_ascii_lowercase() {
            field if ["unknown", "nan", "na", "n/a", "none"].contains(&field.as_str()) => String::new(),
            field => field,
        };
        let age = age.parse::<f32>().ok().filter(|age| (0.0..=150.0).contains(age)).map(|age| age.round() as u16);
        Self { age, sex: known(sex), site: known(site) }
    }
}

/// One picture with its label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The image id, unique in the dataset: `ISIC_0024306`, or the path as the CSV file spells it.
    pub id: String,
    /// Where the pixels come from.
    pub source: Source,
    /// Where its lesion's mask comes from, if masks were asked for.
    pub mask: Option<Source>,
    /// Index into [`Dataset::classes`].
    pub label: usize,
    /// Its other classes, where a picture may have several.
    pub more: Vec<usize>,
    /// What must not be spread over splits: the lesion (or patient) the picture shows.
    pub group: String,
    /// The split the dataset itself assigns, if it does.
    pub split: Option<Split>,
    /// Who shows it, and where.
    pub patient: Patient,
}

impl Sample {
    /// A picture that shows the lesion `group`; an empty name is a lesion that no other picture shows. There is no mask
    /// and no split, and nothing is known of the patient.
    pub fn new(id: impl Into<String>, source: Source, label: usize, group: &str) -> Self {
        let id = id.into();
        let group = if group.is_empty() { format!("image:{id}") } else { group.to_owned() };
        Self { id, source, mask: None, label, more: vec![], group, split: None, patient: Patient::default() }
    }

    /// All its classes, the first one first.
    pub fn all_labels(&self) -> Vec<usize> {
        [self.label].into_iter().chain(self.more.iter().copied()).collect()
    }
}

/// Whether the masks of lesions are opened with the pictures, for segmentation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Masks {
    /// No.
    #[default]
    Unused,
    /// Those that come with the dataset.
    OfDataset,
    /// Those in this folder or zip archive, named like the pictures, with or without `_segmentation` or `_mask` behind.
    In(PathBuf),
}

/// How a dataset is opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// Leave faulty samples out and say so in the notes, instead of failing.
    pub skip_bad: bool,
    /// The seed of generated pictures.
    pub synthetic_seed: u32,
    /// Whether the masks are opened too.
    pub masks: Masks,
    /// Folders or zip archives with pictures that do not lie with the tables.
    pub images: Vec<PathBuf>,
    /// A table with the split of each picture, as a run leaves one, in the place of the dataset's own.
    pub splits: Option<PathBuf>,
    /// Accept given splits that tear groups apart.
    pub leaky: bool,
}

/// A labelled set of pictures. Opening lists and verifies it; no pixel is read yet.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// What to call it in reports.
    pub name: String,
    /// The path or spec it was opened from.
    pub origin: String,
    /// How it lies on disk.
    pub layout: Layout,
    /// Class names; their order is the order of a classifier's outputs. A dataset of masks without classes has one.
    pub classes: Vec<String>,
    /// The samples, in a fixed order.
    pub samples: Vec<Sample>,
    /// Samples that balancing left out.
    pub unused: Vec<Sample>,
    /// What a user should know: images without labels, samples left out, generated pictures.
    pub notes: Vec<String>,
    /// Whether bad samples are left out (with a note) where they are found, as asked at opening.
    pub skip_bad: bool,
    /// What is wrong with the listing and has not been reported: see [`Self::settle`].
    pub faults: Faults,
    /// The faults that were reported and whose samples are left out.
    pub skipped: Faults,
}

impl Dataset {
    /// A dataset of these samples, without notes and faults.
    pub fn new(
        name: impl Into<String>,
        origin: impl fmt::Display,
        layout: Layout,
        classes: impl IntoIterator<Item = impl Into<String>>,
        samples: Vec<Sample>,
    ) -> Self {
        Self {
            name: name.into(),
            origin: origin.to_string(),
            layout,
            classes: classes.into_iter().map(Into::into).collect(),
            samples,
            unused: vec![],
            notes: vec![],
            skip_bad: false,
            faults: Faults::default(),
            skipped: Faults::default(),
        }
    }

    /// Opens a dataset and verifies its listing.
    ///
    /// Faulty rows do not fail here but in [`PixelStore::prepare`](super::PixelStore::prepare), which adds those of
    /// the pictures, so that one error names every fault. Who needs no pixels calls [`Self::settle`] instead.
    ///
    /// `spec` is one of
    /// - `synthetic` or `synthetic:COUNT`: generated pictures (2,000 by default; a folder of that name is
    ///   `./synthetic`)
    /// - a folder or zip archive in the layout of HAM10000: its metadata table, and images in folders of any name,
    ///   or (in a folder) still in the archives `HAM10000_images_part_1.zip` and `_2.zip`
    /// - one in the layout of ISIC 2018 Task 3 or ISIC 2019: tables whose names end in `GroundTruth.csv`, and images
    /// - one in the layout of PH2: `PH2_dataset.txt` or `PH2_dataset.xlsx`, and a folder for each case
    /// - one with a folder for each class, also in folders `train`, `val` and `test`
    /// - with masks, one in the layout of ISIC 2018 Task 1, or with folders `images` and `masks`
    /// - a CSV file with the columns `path,label` (with masks `path,mask`) and optionally `group` and `split` (train, val,
    ///   test), in any order; relative paths are relative to the CSV file's folder
    ///
    /// # Errors
    /// [`Kind::Usage`] for a malformed count, [`Kind::Io`] if `spec` cannot be read, [`Kind::Data`] if it holds no
    /// known layout or no usable sample.
    pub fn open(spec: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let mut dataset = Self::list(spec, options)?;
        if dataset.skip_bad || dataset.samples.is_empty() {
            dataset.settle()?;
        }
        Ok(dataset)
    }

    /// Lists a dataset as [`Self::open`] does, and reports no fault of a row or a picture: all are in
    /// [`faults`](Self::faults).
    ///
    /// # Errors
    /// As [`Self::open`], but for the last.
    pub fn list(spec: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let path = spec.as_ref();
        let own_masks = options.masks == Masks::OfDataset;
        if let Some(count) = synthetic_count(path)? {
            return match &options.masks {
                Masks::In(_) => {
                    Err(Error::new(Kind::Usage, "generated pictures have masks of their own")
                        .next("leave --masks away"))
                }
                _ => {
                    let mut dataset = synthetic::dataset(options.synthetic_seed, count, own_masks);
                    if let Some(file) = &options.splits {
                        take_splits(&mut dataset, file)?;
                    }
                    Ok(dataset)
                }
            };
        }
        let meta = std::fs::metadata(path).map_err(|e| Error::io("open the dataset", path, &e))?;
        let ending = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        let opened = match ending.as_str() {
            "zip" => open_tree(path, options),
            _ if meta.is_dir() && path.join(balance::TABLE).is_file() => {
                table::open(&path.join(balance::TABLE), &options.masks)
            }
            _ if meta.is_dir() => open_tree(path, options),
            "csv" | "tsv" | "txt" => table::open(path, &options.masks),
            _ => Err(Error::new(
                Kind::Data,
                "the file is no dataset: looked for a folder, a .zip archive or a .csv file",
            )
            .at(path.display())
            .next("give a dataset's folder or zip, a CSV file with the columns path,label, or `synthetic`")),
        };
        let mut dataset = opened?;
        if let Masks::In(place) = &options.masks {
            masks::attach(&mut dataset, masks::of_place(place)?);
        }
        dataset.skip_bad = options.skip_bad;
        if let Some(file) = &options.splits {
            take_splits(&mut dataset, file)?;
        }
        if !options.leaky {
            dataset.find_split_leaks();
        }
        dataset.note_mixed_groups();
        Ok(dataset)
    }

    /// The label of each sample, shape `[samples]`.
    pub fn labels(&self) -> Vec<u32> {
        self.samples.iter().map(|s| s.label as u32).collect()
    }

    /// How many samples each class has, shape `[classes]`.
    pub fn class_counts(&self) -> Vec<usize> {
        self.class_counts_of(0..self.samples.len())
    }

    /// How many of the samples `indices` each class has, shape `[classes]`. Indices without a sample are ignored.
    pub fn class_counts_of(&self, indices: impl IntoIterator<Item = usize>) -> Vec<usize> {
        let mut counts = vec![0; self.classes.len()];
        for sample in indices.into_iter().filter_map(|i| self.samples.get(i)) {
            counts[sample.label] += 1;
        }
        counts
    }

    /// How many different groups (lesions) there are.
    pub fn group_count(&self) -> usize {
        self.samples.iter().map(|s| s.group.as_str()).collect::<HashSet<_>>().len()
    }

    /// Reports the faults found so far: in an error, or in a note where bad samples are skipped.
    ///
    /// # Errors
    /// [`Kind::Data`] naming every fault (unless bad samples are skipped), or if no sample is left.
    pub fn settle(&mut self) -> Result<()> {
        let faults = std::mem::take(&mut self.faults);
        if !self.skip_bad && !faults.is_empty() {
            return Err(faults.into_error(&self.origin));
        }
        if self.samples.is_empty() {
            let why = if faults.is_empty() { "the tables are empty".to_owned() } else { faults.summary() };
            return Err(Error::new(Kind::Data, format!("the dataset has no usable sample: {why}"))
                .at(&self.origin)
                .next("check that the table and the images belong together"));
        }
        self.notes.extend(faults.skipped_note());
        self.skipped.append(&faults);
        Ok(())
    }

    /// Makes one group of those that `pairs` of samples connect, with a note where there are any: pictures that look the
    /// same show one lesion, whatever the tables say. It has the name of the first of them.
    pub(super) fn unite(&mut self, pairs: &[(usize, usize)]) {
        let samples = &self.samples;
        let apart = |&&(a, b): &&(usize, usize)| samples[a].group != samples[b].group;
        let apart: Vec<(usize, usize)> = pairs.iter().filter(apart).copied().collect();
        let Some(&(first, second)) = apart.first() else { return };
        let (count, one, other) = (apart.len(), &samples[first].id, &samples[second].id);
        let more = if count > 1 { ", ... (see `lesion-gpu data check`)" } else { "" };
        let what = "of images of different lesions look the same: each counts as one lesion";
        let note = format!("{count} pair(s) {what}: {one}, {other}{more}");
        let mut first_of: HashMap<&str, usize> = HashMap::new();
        let homes: Vec<usize> =
            samples.iter().enumerate().map(|(i, s)| *first_of.entry(&s.group).or_insert(i)).collect();
        let mut sets = Sets::new(samples.len());
        homes.iter().enumerate().for_each(|(i, &home)| sets.unite(i, home));
        apart.iter().for_each(|&(a, b)| sets.unite(a, b));
        let names: Vec<String> = (0..samples.len()).map(|i| samples[sets.root(i)].group.clone()).collect();
        self.samples.iter_mut().zip(names).for_each(|(sample, name)| sample.group = name);
        self.notes.push(note);
    }

    /// Groups that the given splits tear apart. With `skip_bad`, a group stays in the split it is first seen in.
    fn find_split_leaks(&mut self) {
        let mut homes: BTreeMap<String, Split> = BTreeMap::new();
        let (skip_bad, faults) = (self.skip_bad, &mut self.faults);
        self.samples.retain(|sample| {
            let Some(split) = sample.split else { return true };
            let home = *homes.entry(sample.group.clone()).or_insert(split);
            if home != split {
                let what = format!("is in {split}, but its group {} is already in {home}", sample.group);
                faults.push(FaultKind::SplitLeak, &sample.id, what);
            }
            home == split || !skip_bad
        });
    }

    /// A lesion with several diagnoses is odd but usable: it is noted.
    fn note_mixed_groups(&mut self) {
        let mut labels: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
        for sample in &self.samples {
            labels.entry(&sample.group).or_default().insert(sample.label);
        }
        let mixed: Vec<&str> = labels.iter().filter(|(_, l)| l.len() > 1).map(|(group, _)| *group).collect();
        if let Some(first) = mixed.first() {
            let note = format!("{} group(s) hold samples of different classes, for example {first}", mixed.len());
            self.notes.push(note);
        }
    }
}

/// A folder or archive in one of the layouts that are told by their files.
fn open_tree(root: &Path, options: &OpenOptions) -> Result<Dataset> {
    let own_masks = options.masks == Masks::OfDataset;
    let look_into = |name: &str| {
        let known = ["ham10000_images_part_", "isic", "ph2"].iter().any(|start| name.starts_with(start));
        if masks::is_archive(name) { own_masks } else { known }
    };
    let mut tree = Tree::list(root, look_into)?;
    for place in &options.images {
        std::fs::metadata(place).map_err(|e| Error::io("open the images", place, &e))?;
        // Its tables, if there are any, are those of another dataset.
        tree = tree.and(Tree::list(place, look_into)?.pictures_only());
    }
    let tree = &tree;
    let mut dataset = if ham10000::is_layout(tree) {
        ham10000::open(tree, root)?
    } else if let Some(tables) = challenge::tables(tree)? {
        challenge::open(tree, root, tables)?
    } else if isic2018::is_layout(tree) {
        return isic2018::open(tree, root, &options.masks);
    } else if ph2::is_layout(tree) {
        return ph2::open(tree, root, &options.masks);
    } else if folders::has_masks(tree) && options.masks != Masks::Unused {
        return folders::open_masks(tree, root, &options.masks);
    } else if let Some(classes) = folders::classes(tree) {
        folders::open_classes(tree, root, classes)
    } else {
        return Err(unknown(tree, root));
    };
    if own_masks {
        let found = masks::of_tree(tree);
        if found.is_empty() {
            return Err(masks::none_found(root));
        }
        masks::attach(&mut dataset, found);
    }
    Ok(dataset)
}

/// Where there is one part only, it is split like any other dataset.
pub(super) fn one_part_is_none(samples: &mut [Sample]) {
    if let Some(first) = samples.first().map(|s| s.split)
        && samples.iter().all(|s| s.split == first)
    {
        samples.iter_mut().for_each(|s| s.split = None);
    }
}

/// The error for a folder or archive that is in no known layout.
fn unknown(tree: &Tree, root: &Path) -> Error {
    let found = tree.describe();
    let what = "no known dataset layout: looked for HAM10000_metadata (.csv, .tab or no ending), ISIC ground truth \
        (..._GroundTruth.csv), PH2_dataset.txt, and a folder for each class; found";
    let next = match folders::has_masks(tree) {
        true => "there are folders of images and masks: train a model for segmentation on them, such as unet-small",
        false => "add the metadata file to the images, or list them in a CSV file with the columns path,label,group",
    };
    Error::new(Kind::Data, format!("{what} {found}")).at(root.display()).next(next)
}

/// The count in `synthetic` or `synthetic:COUNT`, or `None` for any other spec.
fn synthetic_count(spec: &Path) -> Result<Option<usize>> {
    let Some(rest) = spec.to_str().and_then(|s| s.strip_prefix("synthetic")) else { return Ok(None) };
    if rest.is_empty() {
        return Ok(Some(SYNTHETIC_DEFAULT));
    }
    let Some(count) = rest.strip_prefix(':') else { return Ok(None) };
    match count.parse() {
        Ok(count) if (1..=SYNTHETIC_MAX).contains(&count) => Ok(Some(count)),
        _ => Err(Error::new(Kind::Usage, format!("`{count}` is no count of generated pictures"))
            .at(spec.display())
            .next(format!("write `synthetic:COUNT` with a count from 1 to {SYNTHETIC_MAX}"))),
    }
}
