//! The layouts of ISIC 2018 Task 3 (Codella et al. 2019) and ISIC 2019 (Tschandl et al. 2018, Codella et al. 2018,
//! Combalia et al. 2019): tables of ground truth with a row a picture and a column a class, pictures by their ids
//! wherever they lie, and tables that tell lesions and patients.
//!
//! ISIC 2019 contains HAM10000, its class UNK is empty in the training data, and some of its ids end in `_downsampled`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::dataset::{Dataset, Layout, Patient, Sample, Split, one_part_is_none};
use super::delimited::{Delimited, Row};
use super::faults::{FaultKind, Faults, find_picture, unlabelled};
use super::tree::{Entry, SourceReader, Tree};
use crate::error::Result;

/// The columns that are classes, in the order of a model's outputs.
const CLASSES: [&str; 10] = ["ak", "akiec", "bcc", "bkl", "df", "mel", "nv", "scc", "unk", "vasc"];
/// The class of what is none of the others.
const UNKNOWN: &str = "unk";

/// A table of ground truth.
pub(super) struct Truth {
    place: String,
    part: Split,
    table: Delimited,
    classes: Vec<&'static str>,
    /// Rows that could not be read.
    faults: Faults,
}

/// What is known of a picture besides its class.
struct About {
    lesion: String,
    patient: Patient,
}

fn is_table(entry: &Entry, what: &str) -> bool {
    let name = entry.file_name().to_ascii_lowercase();
    name.ends_with(".csv") && name.contains(what)
}

/// The tables of ground truth, if there are any.
pub(super) fn tables(tree: &Tree) -> Result<Option<Vec<Truth>>> {
    let mut found = Vec::new();
    for entry in tree.entries.iter().filter(|e| is_table(e, "groundtruth")) {
        let mut faults = Faults::default();
        let place = entry.source.to_string();
        let bytes = SourceReader::default().read(&entry.source)?;
        // Other tasks have other tables of ground truth.
        let Ok(table) = Delimited::read(&bytes, &place, &["image"], &mut faults) else { continue };
        let classes: Vec<&str> = CLASSES.into_iter().filter(|class| table.has(class)).collect();
        if classes.len() > 1 {
            found.push(Truth { place, part: Split::mentioned(entry.file_name()), table, classes, faults });
        }
    }
    Ok((!found.is_empty()).then_some(found))
}

/// Reads the listing of `root`. Rows that have faults are not among the samples.
pub(super) fn open(tree: &Tree, root: &Path, tables: Vec<Truth>) -> Result<Dataset> {
    let (mut faults, mut notes) = (Faults::default(), Vec::new());
    let about = about(tree)?;
    let images = tree.pictures_by_id(&mut notes);
    let several = tables.len() > 1;

    // What each row says: its picture, its class, its part.
    let mut rows: Vec<(String, &str, &str, Split)> = Vec::new();
    let mut seen: BTreeMap<&str, String> = BTreeMap::new();
    for truth in &tables {
        faults.append(&truth.faults);
        for row in truth.table.rows() {
            let id = row.get("image");
            let place = if several { format!("{}, {}", truth.place, row.place()) } else { row.place() };
            if id.is_empty() {
                faults.push(FaultKind::MalformedRow, place, "has an empty image");
            } else if let Some(first) = seen.get(id) {
                faults.push(FaultKind::DuplicateId, place, format!("names {id}, as {first} does"));
            } else {
                seen.insert(id, place.clone());
                match class(row, &truth.classes) {
                    Ok(class) => rows.push((place, id, class, truth.part)),
                    Err(what) => faults.push(FaultKind::UnknownLabel, place, what),
                }
            }
        }
    }
    let used: BTreeSet<&str> = rows.iter().map(|(_, _, class, _)| *class).collect();
    let named = |class: &str| tables.iter().any(|truth| truth.classes.contains(&class));
    let classes: Vec<&str> = CLASSES.into_iter().filter(|c| named(c) && (*c != UNKNOWN || used.contains(c))).collect();

    let mut samples = Vec::new();
    for (place, id, class, part) in rows {
        let label = classes.iter().position(|c| *c == class);
        let image = find_picture(images.get(id).copied(), id, &place, &mut faults);
        let (Some(label), Some(image)) = (label, image) else { continue };
        let known = about.get(id);
        let sample = Sample::new(id, image.source.clone(), label, known.map_or("", |about| &about.lesion));
        let patient = known.map_or_else(Patient::default, |about| about.patient.clone());
        samples.push(Sample { split: Some(part), patient, ..sample });
    }
    one_part_is_none(&mut samples);
    notes.extend(unlabelled(images.keys().copied().filter(|id| !seen.contains_key(id)), "row in the ground truth"));
    let alone = samples.iter().filter(|s| s.group.starts_with("image:")).count();
    if alone > 0 {
        notes.push(format!("{alone} image(s) have no lesion id: each counts as a lesion of its own"));
    }
    let y2019 = named("ak") || named("scc");
    let (name, layout) = match y2019 {
        true => ("ISIC 2019", Layout::Isic2019),
        false => ("ISIC 2018 Task 3", Layout::Isic2018Task3),
    };
    Ok(Dataset { notes, faults, ..Dataset::new(name, root.display(), layout, classes, samples) })
}

/// The one class of a row.
fn class(row: Row<'_>, classes: &[&'static str]) -> std::result::Result<&'static str, String> {
    let mut found = Vec::new();
    for class in classes {
        match row.get(class).parse::<f32>() {
            Ok(value) if value >= 0.5 => found.push(*class),
            Ok(_) => {}
            Err(_) => return Err(format!("has `{}` in the column of {class}, which is no number", row.get(class))),
        }
    }
    match found[..] {
        [class] => Ok(class),
        [] => Err("has no class".to_owned()),
        _ => Err(format!("has several classes: {}", found.join(", "))),
    }
}

/// Lesions and patients by picture, from the tables of metadata and of lesion groups.
fn about(tree: &Tree) -> Result<BTreeMap<String, About>> {
    let mut known = BTreeMap::new();
    for entry in tree.entries.iter().filter(|e| is_table(e, "metadata") || is_table(e, "lesiongroupings")) {
        let bytes = SourceReader::default().read(&entry.source)?;
        let mut faults = Faults::default();
        let table = Delimited::read(&bytes, &entry.source.to_string(), &["image"], &mut faults)?;
        if !faults.is_empty() {
            // Without these rows lesions would be torn apart in silence.
            return Err(faults.into_error(&entry.source));
        }
        for row in table.rows() {
            let patient = Patient::read(row.get("age_approx"), row.get("sex"), row.get("anatom_site_general"));
            let lesion = row.get("lesion_id").to_owned();
            let merged = match known.remove(row.get("image")) {
                Some(About { lesion: other, patient: who }) => About {
                    lesion: if other.is_empty() { lesion } else { other },
                    patient: if who == Patient::default() { patient } else { who },
                },
                None => About { lesion, patient },
            };
            known.insert(row.get("image").to_owned(), merged);
        }
    }
    Ok(known)
}
