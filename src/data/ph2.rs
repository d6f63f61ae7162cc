//! The layout of PH2 (Mendonça et al., "PH2 - a dermoscopic image database for research and benchmarking", 2013): a
//! folder for each of 200 cases, with the picture in `IMDnnn_Dermoscopic_Image` and its mask in `IMDnnn_lesion`, and
//! `PH2_dataset.txt`, a table drawn with bars:
//!
//! ```text
//! || IMD003 ||                        ||        0          ||    0    ||  T  ...
//! ```
//!
//! The third column is the clinical diagnosis: 0 common nevus, 1 atypical nevus, 2 melanoma.

use std::collections::BTreeMap;
use std::path::Path;

use super::dataset::{Dataset, Layout, Masks, Sample};
use super::decode::is_image_name;
use super::faults::{FaultKind, Faults, find_picture, unlabelled};
use super::tree::{Entry, SourceReader, Tree};
use crate::error::{Error, Kind, Result};

/// Diagnoses by their number.
const CLASSES: [&str; 3] = ["common_nevus", "atypical_nevus", "melanoma"];
const TABLE: &str = "ph2_dataset.txt";

/// The files that lie in a folder whose name ends like this, by case: `IMD003`.
fn cases<'a>(tree: &'a Tree, folder: &str) -> BTreeMap<&'a str, &'a Entry> {
    let inside = |entry: &&Entry| {
        let folders = entry.path.rsplit_once('/').map_or("", |(folders, _)| folders);
        is_image_name(&entry.path) && folders.to_ascii_lowercase().ends_with(folder)
    };
    let id = |entry: &'a Entry| (entry.stem().split('_').next().unwrap_or_default(), entry);
    tree.entries.iter().filter(inside).map(id).collect()
}

fn pictures(tree: &Tree) -> BTreeMap<&str, &Entry> {
    cases(tree, "_dermoscopic_image")
}

/// Whether a tree is in this layout.
pub(super) fn is_layout(tree: &Tree) -> bool {
    !pictures(tree).is_empty() || tree.entries.iter().any(is_table)
}

fn is_table(entry: &Entry) -> bool {
    entry.file_name().eq_ignore_ascii_case(TABLE)
}

/// Reads the listing of `root`.
pub(super) fn open(tree: &Tree, root: &Path, wanted: &Masks) -> Result<Dataset> {
    let (mut faults, mut notes, mut samples) = (Faults::default(), Vec::new(), Vec::new());
    let images = pictures(tree);
    let table = tree.entries.iter().find(|e| is_table(e)).ok_or_else(|| {
        Error::new(Kind::Data, "this looks like PH2, but there is no PH2_dataset.txt")
            .at(root.display())
            .next("put the file beside the folder of images: it tells the diagnoses (PH2_dataset.xlsx is not read)")
    })?;
    let text = SourceReader::default().read(&table.source)?;
    let text = String::from_utf8_lossy(&text);
    let drawn = if *wanted == Masks::OfDataset { cases(tree, "_lesion") } else { BTreeMap::new() };
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let cells: Vec<&str> = line.split("||").map(str::trim).collect();
        // Legends stand below the table, and its head above it.
        let [_, id, _, diagnosis, ..] = cells[..] else { continue };
        if id.is_empty() || id.eq_ignore_ascii_case("name") {
            continue;
        }
        let place = format!("line {}", number + 1);
        if let Some(first) = seen.insert(id, number + 1) {
            faults.push(FaultKind::DuplicateId, place, format!("names {id}, as line {first} does"));
            continue;
        }
        let label = diagnosis.parse::<usize>().ok().filter(|&label| label < CLASSES.len());
        if label.is_none() {
            faults.push(
                FaultKind::UnknownLabel,
                &place,
                format!("has the clinical diagnosis `{diagnosis}`, not 0, 1 or 2"),
            );
        }
        let image = find_picture(images.get(id).copied(), id, &place, &mut faults);
        let mask = drawn.get(id).map(|entry| entry.source.clone());
        if *wanted == Masks::OfDataset && mask.is_none() {
            faults.push(FaultKind::MissingMask, &place, format!("there is no {id}_lesion"));
            continue;
        }
        if let (Some(label), Some(image)) = (label, image) {
            samples.push(Sample { mask, ..Sample::new(id, image.source.clone(), label, "") });
        }
    }
    notes.extend(unlabelled(images.keys().copied().filter(|id| !seen.contains_key(id)), "row in the table"));
    notes.push("the dataset names no lesions: each image counts as a lesion of its own".to_owned());
    Ok(Dataset { notes, faults, ..Dataset::new("PH2", root.display(), Layout::Ph2, CLASSES, samples) })
}
