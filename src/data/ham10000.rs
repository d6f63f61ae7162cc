//! The layout of HAM10000 (Tschandl, Rosendahl, Kittler 2018) as it is distributed: a metadata table and images.
//!
//! One distribution holds every image twice (`HAM10000_images_part_1` and `ham10000_images_part_1`): images are found
//! by their id, wherever they lie, and the first by path is used. Another names its table `HAM10000_metadata` without
//! an ending, or separates it by tabs, or has an eighth column.

use std::collections::BTreeMap;
use std::path::Path;

use super::dataset::{Dataset, Layout, Patient, Sample};
use super::delimited::Delimited;
use super::faults::{FaultKind, Faults, find_picture, unlabelled};
use super::synthetic;
use super::tree::{Entry, SourceReader, Tree};
use crate::error::{Error, Kind, Result};

/// The seven diagnoses, in the order of a model's outputs.
pub const CLASSES: [&str; 7] = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"];

/// Names the metadata table goes by, in lower case.
const TABLES: [&str; 5] = [
    "ham10000_metadata.csv",
    "ham10000_metadata",
    "ham10000_metadata.tab",
    "ham10000_metadata.tsv",
    "ham10000_metadata.txt",
];

/// Reads the listing of `root`. Rows that have faults are not among the samples.
pub(super) fn open(tree: &Tree, root: &Path) -> Result<Dataset> {
    // The table nearest to the root.
    let table = tree.entries.iter().filter(|e| is_table(e)).min_by_key(|e| e.path.matches('/').count());
    let table = table.ok_or_else(|| Error::new(Kind::Internal, "there is no metadata").at(root.display()))?;
    let mut faults = Faults::default();
    let mut notes = Vec::new();
    let bytes = SourceReader::default().read(&table.source)?;
    let rows = Delimited::read(&bytes, &table.source.to_string(), &["lesion_id", "image_id", "dx"], &mut faults)?;
    let images = tree.pictures_by_id(&mut notes);

    let mut samples: Vec<Sample> = Vec::new();
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for row in rows.rows() {
        let (id, lesion, dx) = (row.get("image_id"), row.get("lesion_id"), row.get("dx"));
        if id.is_empty() || dx.is_empty() {
            faults.push(FaultKind::MalformedRow, row.place(), "has an empty image_id or dx");
            continue;
        }
        if let Some(first) = seen.get(id) {
            faults.push(FaultKind::DuplicateId, row.place(), format!("names {id}, as line {first} does"));
            continue;
        }
        seen.insert(id, row.line);
        let label = CLASSES.iter().position(|c| c.eq_ignore_ascii_case(dx));
        let image = images.get(id);
        if label.is_none() {
            let what = format!("has the unknown dx `{dx}` (known: {})", CLASSES.join(", "));
            faults.push(FaultKind::UnknownLabel, row.place(), what);
        }
        let image = find_picture(image.copied(), id, &row.place(), &mut faults);
        if let (Some(label), Some(image)) = (label, image) {
            // A blank lesion id says nothing about other images, so the image is a group of its own.
            let patient = Patient::read(row.get("age"), row.get("sex"), row.get("localization"));
            samples.push(Sample { patient, ..Sample::new(id, image.source.clone(), label, lesion) });
        }
    }

    notes.extend(unlabelled(images.keys().copied().filter(|id| !seen.contains_key(id)), "row in the metadata"));
    let generated = !samples.is_empty() && samples.iter().all(|s| s.id.starts_with(synthetic::ID_PREFIX));
    if generated {
        notes.push(synthetic::NOTE.to_owned());
    }
    let name = if generated { synthetic::NAME } else { "HAM10000" };
    Ok(Dataset { notes, faults, ..Dataset::new(name, root.display(), Layout::Ham10000, CLASSES, samples) })
}

fn is_table(entry: &Entry) -> bool {
    TABLES.contains(&entry.file_name().to_ascii_lowercase().as_str())
}

/// Whether there is a metadata table.
pub(super) fn is_layout(tree: &Tree) -> bool {
    tree.entries.iter().any(is_table)
}
