//! The layout that fits any dataset: a CSV file with a row an image, and its class or the file of its mask.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::dataset::{Dataset, Layout, Masks, Patient, Sample, Split};
use super::decode::read_limited;
use super::delimited::{Delimited, Row};
use super::faults::{FaultKind, Faults};
use super::masks;
use super::tree::Source;
use crate::error::{Error, Kind, Result};

/// Reads the table at `path`. Rows that have faults are not among the samples.
pub(super) fn open(path: &Path, masks: &Masks) -> Result<Dataset> {
    let place = path.display().to_string();
    let mut faults = Faults::default();
    let table = Delimited::read(&read_limited(path)?, &place, required(masks), &mut faults)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    // Masks need no classes; where there are some, splits are still stratified by them.
    let labelled = *masks == Masks::Unused || table.has("label");

    let classes: BTreeSet<&str> = table.rows().flat_map(|r| labels(r.get("label"))).collect();
    let mut classes: Vec<String> = classes.into_iter().map(str::to_owned).collect();
    if !labelled {
        classes = vec![masks::CLASS.to_owned()];
    } else if classes.len() < 2 && *masks == Masks::Unused {
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
        let label = if labels(label).next().is_none() { "" } else { label };
        let mask = (*masks == Masks::OfDataset).then(|| row.get("mask"));
        let fields = [("path", Some(image)), ("label", labelled.then_some(label)), ("mask", mask)];
        let empty: Vec<&str> = fields.iter().filter(|(_, field)| *field == Some("")).map(|(name, _)| *name).collect();
        if !empty.is_empty() {
            faults.push(FaultKind::MalformedRow, row.place(), format!("has an empty {}", empty.join(" and ")));
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
        let mask = mask.map(|mask| folder.join(mask));
        let found = [(Some(&file), FaultKind::MissingImage, FaultKind::BadImage)]
            .into_iter()
            .chain([(mask.as_ref(), FaultKind::MissingMask, FaultKind::BadMask)])
            .filter_map(|(file, missing, bad)| check_file(file?, missing, bad).err());
        let before = faults.list().len();
        found.for_each(|(kind, what)| faults.push(kind, row.place(), what));
        if faults.list().len() > before {
            continue;
        }
        // The class list was made from these very rows, sorted.
        let numbers: Vec<usize> = labels(label).map(|label| classes.partition_point(|c| c.as_str() < label)).collect();
        let label = numbers.first().copied().filter(|_| labelled).unwrap_or(0);
        let more: BTreeSet<usize> = numbers.into_iter().filter(|&class| labelled && class != label).collect();
        let more = more.into_iter().collect();
        let mask = mask.map(Source::File);
        let patient = Patient::read(row.get("age"), row.get("sex"), row.get("site"));
        let sample = Sample::new(image, Source::File(file), label, row.get("group"));
        samples.push(Sample { mask, more, split, patient, ..sample });
    }
    let name = path.file_stem().map_or_else(|| place.clone(), |s| s.to_string_lossy().into_owned());
    let mut notes = Vec::new();
    if !table.has("group") {
        notes.push("the table has no column `group`: each image counts as a lesion of its own".to_owned());
    }
    Ok(Dataset { notes, faults, ..Dataset::new(name, place, Layout::Table, classes, samples) })
}

/// The classes that a field names, several with bars between them.
fn labels(field: &str) -> impl Iterator<Item = &str> {
    field.split('|').map(str::trim).filter(|label| !label.is_empty())
}

/// The columns that must be there.
fn required(masks: &Masks) -> &'static [&'static str] {
    match masks {
        Masks::Unused => &["path", "label"],
        Masks::OfDataset => &["path", "mask"],
        Masks::In(_) => &["path"],
    }
}

/// Whether a file is there and holds something; else the fault.
fn check_file(file: &Path, missing: FaultKind, bad: FaultKind) -> Result<(), (FaultKind, String)> {
    match std::fs::metadata(file) {
        Ok(meta) if !meta.is_file() => Err((missing, format!("{} is no file", file.display()))),
        Ok(meta) if meta.len() == 0 => Err((bad, format!("{} is empty (0 bytes)", file.display()))),
        Ok(_) => Ok(()),
        Err(e) => Err((missing, format!("{}: {e}", file.display()))),
    }
}

/// The split a row gives: `Ok(None)` where the table has no such column or the field is blank.
fn read_split(table: &Delimited, row: Row<'_>) -> Result<Option<Split>, ()> {
    if !table.has("split") {
        return Ok(None);
    }
    match row.get("split") {
        "" => Ok(None),
        word => Split::named(word).map(Some).ok_or(()),
    }
}
