//! Two layouts that need no table: a folder for each class, and a folder of pictures beside a folder of masks. Either may
//! lie in folders `train`, `val` and `test`.

use std::collections::BTreeSet;
use std::path::Path;

use super::dataset::{Dataset, Layout, Masks, Sample, Split, one_part_is_none};
use super::decode::is_image_name;
use super::faults::{FaultKind, Faults};
use super::masks::{self, Found};
use super::tree::{Entry, Tree};
use crate::error::Result;

/// Names, in lower case, of folders that hold pictures, and of such that hold masks.
const IMAGES: [&str; 6] = ["image", "images", "img", "imgs", "input", "inputs"];
const MASKS: [&str; 7] = ["mask", "masks", "groundtruth", "ground_truth", "gt", "segmentation", "segmentations"];
/// What no class is called, but folders of pictures are.
const NO_CLASS: [&str; 6] = ["image", "img", "input", "mask", "groundtruth", "_part_"];

fn folders(entry: &Entry) -> Vec<&str> {
    let mut folders: Vec<&str> = entry.path.split('/').collect();
    folders.pop();
    folders
}

/// The pictures of a tree with a folder for each class: each with its class and part.
pub(super) struct Classified<'a>(Vec<(&'a Entry, &'a str, Option<Split>)>);

/// Reads a tree as such, if it is one: below the folders that all pictures share there are folders of at least two
/// classes, or first folders of parts.
pub(super) fn classes(tree: &Tree) -> Option<Classified<'_>> {
    let pictures: Vec<&Entry> = tree.pictures().collect();
    let paths: Vec<Vec<&str>> = pictures.iter().map(|entry| folders(entry)).collect();
    let first = paths.first()?;
    let shared = (0..first.len()).take_while(|&i| paths.iter().all(|path| path.get(i) == first.get(i))).count();
    let part = |path: &Vec<&str>| path.get(shared).and_then(|folder| Split::named(folder));
    let parts = paths.iter().all(|path| part(path).is_some());
    let class = |path: &Vec<&'_ str>| path.get(shared + usize::from(parts)).is_some();
    if !paths.iter().all(class) {
        return None;
    }
    let classified: Vec<_> = pictures
        .into_iter()
        .zip(&paths)
        .map(|(entry, path)| (entry, path[shared + usize::from(parts)], part(path).filter(|_| parts)))
        .collect();
    let names: BTreeSet<&str> = classified.iter().map(|(_, class, _)| *class).collect();
    let odd = |name: &&str| NO_CLASS.iter().any(|word| name.to_ascii_lowercase().contains(word));
    (names.len() > 1 && !names.iter().any(odd)).then_some(Classified(classified))
}

/// The dataset of [`classes`].
pub(super) fn open_classes(tree: &Tree, root: &Path, Classified(pictures): Classified<'_>) -> Dataset {
    let names: BTreeSet<&str> = pictures.iter().map(|(_, class, _)| *class).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let mut faults = Faults::default();
    let mut samples = Vec::new();
    for (entry, class, split) in pictures {
        if entry.len == 0 {
            faults.push(FaultKind::BadImage, &entry.source, "the image is empty (0 bytes)");
            continue;
        }
        // Copies of an ISIC picture show one lesion, wherever they lie.
        let stem = entry.stem();
        let group = if stem.starts_with("ISIC_") { format!("image:{stem}") } else { String::new() };
        let label = names.partition_point(|name| *name < class);
        samples.push(Sample { split, ..Sample::new(&*entry.path, entry.source.clone(), label, &group) });
    }
    one_part_is_none(&mut samples);
    let others = tree.entries.len() - samples.len() - faults.list().len();
    let mut notes = vec!["the folders name no lesions: each image counts as a lesion of its own".to_owned()];
    if others > 0 {
        notes.push(format!("{others} other file(s) are not used"));
    }
    let dataset = Dataset::new(name_of(root), root.display(), Layout::ClassFolders, names, samples);
    Dataset { notes, faults, ..dataset }
}

/// What a folder or archive is called.
fn name_of(root: &Path) -> String {
    root.file_stem().map_or_else(|| "images".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// A path without the last folder of one of these names, if there is one.
fn without(entry: &Entry, names: &[&str]) -> Option<String> {
    let mut parts: Vec<&str> = entry.path.split('/').collect();
    let last = parts.len() - 1;
    let at = parts[..last].iter().rposition(|part| names.contains(&part.to_ascii_lowercase().as_str()))?;
    parts.remove(at);
    Some(parts.join("/"))
}

/// Whether there are folders of masks beside folders of pictures.
pub(super) fn has_masks(tree: &Tree) -> bool {
    let any = |names: &[&str]| tree.entries.iter().any(|e| is_image_name(&e.path) && without(e, names).is_some());
    any(&IMAGES) && any(&MASKS)
}

/// The dataset of a tree that [`has_masks`].
pub(super) fn open_masks(tree: &Tree, root: &Path, wanted: &Masks) -> Result<Dataset> {
    let mut found = Found::new();
    let mut samples = Vec::new();
    for entry in tree.entries.iter().filter(|e| is_image_name(&e.path)) {
        if let Some(path) = without(entry, &MASKS) {
            masks::add(&mut found, &path, entry);
        } else if let Some(path) = without(entry, &IMAGES) {
            let split = folders(entry).iter().rev().find_map(|folder| Split::named(folder));
            samples.push(Sample { split, ..Sample::new(path, entry.source.clone(), 0, "") });
        }
    }
    if samples.iter().any(|s| s.split.is_none()) {
        samples.iter_mut().for_each(|s| s.split = None);
    }
    one_part_is_none(&mut samples);
    let mut dataset = Dataset::new(name_of(root), root.display(), Layout::MaskFolders, [masks::CLASS], samples);
    dataset.notes.push("the folders name no lesions: each image counts as a lesion of its own".to_owned());
    if *wanted == Masks::OfDataset {
        masks::attach(&mut dataset, found);
    }
    Ok(dataset)
}
