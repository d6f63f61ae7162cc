//! The layout of HAM10000 (Tschandl, Rosendahl, Kittler 2018) as it is distributed: a metadata table and images.
//!
//! One distribution holds every image twice (`HAM10000_images_part_1` and `ham10000_images_part_1`): images are found
//! by their id, wherever they lie, and the first by path is used. Another names its table `HAM10000_metadata` without
//! an ending, or separates it by tabs, or has an eighth column.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::dataset::{Dataset, Layout, Sample};
use super::decode::is_image_name;
use super::delimited::Delimited;
use super::faults::{FaultKind, Faults};
use super::tree::{Entry, Source, SourceReader, Tree};
use super::{masks, synthetic};
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

/// Whether a file (name in lower case) is an archive of HAM10000 images, to be read in place.
pub(super) fn is_image_archive(name: &str) -> bool {
    name.starts_with("ham10000_images_part_") && name.ends_with(".zip")
}

/// Reads the listing of `root`. Rows that have faults are not among the samples.
pub(super) fn open(tree: &Tree, root: &Path) -> Result<Dataset> {
    let table = find_table(tree, root)?;
    let mut faults = Faults::default();
    let mut notes = Vec::new();
    let bytes = SourceReader::default().read(&table.source)?;
    let rows = Delimited::read(&bytes, &table.source.to_string(), &["lesion_id", "image_id", "dx"], &mut faults)?;
    let images = find_images(tree, &mut notes);

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
        match image {
            None => faults.push(FaultKind::MissingImage, row.place(), format!("there is no image {id}")),
            Some(entry) if entry.len == 0 => {
                faults.push(FaultKind::BadImage, &entry.source, "the image is empty (0 bytes)");
            }
            _ => {}
        }
        if let (Some(label), Some(image)) = (label, image.filter(|e| e.len > 0)) {
            // A blank lesion id says nothing about other images, so the image is a group of its own.
            let group = if lesion.is_empty() { format!("image:{id}") } else { lesion.to_owned() };
            let source = image.source.clone();
            samples.push(Sample { id: id.to_owned(), source, mask: None, label, more: vec![], group, split: None });
        }
    }

    let unlabelled: Vec<&&str> = images.keys().filter(|id| !seen.contains_key(**id)).collect();
    if let Some(first) = unlabelled.first() {
        notes.push(format!(
            "{} image(s) have no row in the metadata and are not used, for example {first}",
            unlabelled.len()
        ));
    }
    let generated = !samples.is_empty() && samples.iter().all(|s| s.id.starts_with(synthetic::ID_PREFIX));
    if generated {
        notes.push(synthetic::NOTE.to_owned());
    }
    Ok(Dataset {
        name: if generated { synthetic::NAME } else { "HAM10000" }.to_owned(),
        origin: root.display().to_string(),
        layout: Layout::Ham10000,
        classes: CLASSES.map(str::to_owned).to_vec(),
        samples,
        notes,
        skip_bad: false,
        faults,
    })
}

fn is_table(entry: &Entry) -> bool {
    TABLES.contains(&entry.file_name().to_ascii_lowercase().as_str())
}

/// Whether there is a metadata table.
pub(super) fn has_table(tree: &Tree) -> bool {
    tree.entries.iter().any(is_table)
}

/// The metadata table nearest to the root.
fn find_table<'a>(tree: &'a Tree, root: &Path) -> Result<&'a Entry> {
    let tables = tree.entries.iter().filter(|e| is_table(e));
    tables.min_by_key(|e| e.path.matches('/').count()).ok_or_else(|| {
        let found = tree.describe();
        Error::new(
            Kind::Data,
            format!("no known dataset layout: looked for HAM10000_metadata (.csv, .tab or no ending), found {found}"),
        )
        .at(root.display())
        .next("add the metadata file to the images, or list them in a CSV file with the columns path,label,group")
    })
}

/// The images by id. Masks are no images; of two images with one id the first by path counts.
fn find_images<'a>(tree: &'a Tree, notes: &mut Vec<String>) -> BTreeMap<&'a str, &'a Entry> {
    let mut images: BTreeMap<&str, &Entry> = BTreeMap::new();
    let mut unlike = BTreeSet::new();
    for entry in tree.entries.iter().filter(|e| is_image_name(&e.path)) {
        if masks::id_of(entry.stem()).is_some() {
            continue;
        }
        let first = *images.entry(entry.stem()).or_insert(entry);
        if !same_content(first, entry) {
            unlike.insert(entry.stem());
        }
    }
    if let Some(first) = unlike.first() {
        notes.push(format!(
            "{} image id(s) occur with different contents, for example {first}; the first by path is used",
            unlike.len()
        ));
    }
    images
}

/// Whether two entries hold the same bytes, as far as the listing tells.
fn same_content(a: &Entry, b: &Entry) -> bool {
    match (&a.source, &b.source) {
        (Source::ZipEntry { crc32: x, .. }, Source::ZipEntry { crc32: y, .. }) => a.len == b.len && x == y,
        _ => a.len == b.len,
    }
}
