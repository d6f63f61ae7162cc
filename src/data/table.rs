//! The layout that fits any dataset: a CSV file with a row an image.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::dataset::{Dataset, Layout, Sample, Split};
use super::decode::read_limited;
use super::delimited::{Delimited, Row};
use super::faults::{FaultKind, Faults};
use super::tree::Source;
use crate::error::{Error, Kind, Result};

/// Reads the table at `path`. Rows that have faults are not among the samples.
pub(super) fn open(path: &Path) -> Result<Dataset> {
    let place = path.display().to_string();
    let mut faults = Faults::default();
    let table = Delimited::read(&read_limited(path)?, &place, &["path", "label"], &mut faults)?;
    let folder = path.parent().unwrap_or(Path::new(""));

    let classes: BTreeSet<&str> = table.rows().map(|r| r.get("label")).filter(|l| !l.is_empty()).collect();
    let classes: Vec<String> = classes.into_iter().map(str::to_owned).collect();
    if classes.len() < 2 {
        return Err(Error::new(
            Kind::Data,
            format!("the table names {} class(es); a classifier needs two", classes.len()),
        )
        .at(place)
        .next("check the column `label`: it holds a class name in each row"));
    }
    let mut samples = Vec::new();
    let mut seen: HashMap<PathBuf, u64> = HashMap::new();
    for row in table.rows() {
        let split = read_split(&table, row);
        let (image, label) = (row.get("path"), row.get("label"));
        if image.is_empty() || label.is_empty() {
            faults.push(FaultKind::MalformedRow, row.place(), "has an empty path or label");
            continue;
        }
        let Ok(split) = split else {
            let what = format!("has the unknown split `{}` (known: train, val, test)", row.get("split"));
            faults.push(FaultKind::MalformedRow, row.place(), what);
            continue;
        };
        let file = folder.join(image);
        // One file may be spelled in several ways; where it does not exist, its absence is the fault to name.
        let identity = std::fs::canonicalize(&file).unwrap_or_else(|_| file.clone());
        if let Some(first) = seen.insert(identity, row.line) {
            faults.push(FaultKind::DuplicateId, row.place(), format!("names {image}, as line {first} does"));
            continue;
        }
        match std::fs::metadata(&file) {
            Ok(meta) if !meta.is_file() => {
                faults.push(FaultKind::MissingImage, row.place(), format!("{} is no file", file.display()));
                continue;
            }
            Ok(meta) if meta.len() == 0 => {
                faults.push(FaultKind::BadImage, row.place(), format!("{} is empty (0 bytes)", file.display()));
                continue;
            }
            Ok(_) => {}
            Err(e) => {
                faults.push(FaultKind::MissingImage, row.place(), format!("{}: {e}", file.display()));
                continue;
            }
        }
        let group = match row.get("group") {
            "" => format!("image:{image}"),
            group => group.to_owned(),
        };
        // The class list was made from these very rows, sorted.
        let label = classes.partition_point(|c| c.as_str() < label);
        samples.push(Sample { id: image.to_owned(), source: Source::File(file), label, group, split });
    }
    let name = path.file_stem().map_or_else(|| place.clone(), |s| s.to_string_lossy().into_owned());
    let mut notes = Vec::new();
    if !table.has("group") {
        notes.push("the table has no column `group`: each image counts as a lesion of its own".to_owned());
    }
    Ok(Dataset { name, origin: place, layout: Layout::Table, classes, samples, notes, skip_bad: false, faults })
}

/// The split a row gives: `Ok(None)` where the table has no such column or the field is blank.
fn read_split(table: &Delimited, row: Row<'_>) -> Result<Option<Split>, ()> {
    if !table.has("split") {
        return Ok(None);
    }
    match row.get("split").to_ascii_lowercase().as_str() {
        "" => Ok(None),
        "train" | "training" => Ok(Some(Split::Train)),
        "val" | "valid" | "validation" => Ok(Some(Split::Val)),
        "test" | "testing" => Ok(Some(Split::Test)),
        _ => Err(()),
    }
}
