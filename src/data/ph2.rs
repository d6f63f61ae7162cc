//! The layout of PH2 (Mendonça et al., "PH2 - a dermoscopic image database for research and benchmarking", 2013): a
//! folder for each of 200 cases, with the picture in `IMDnnn_Dermoscopic_Image` and its mask in `IMDnnn_lesion`, and the
//! diagnoses twice. In `PH2_dataset.txt` they are a table drawn with bars:
//!
//! ```text
//! || IMD003 ||                        ||        0          ||    0    ||  T  ...
//! ```
//!
//! The third column is the clinical diagnosis: 0 common nevus, 1 atypical nevus, 2 melanoma. In `PH2_dataset.xlsx`, which is
//! read where the text is not there, each diagnosis has a column of its own, with an `X` in that of the case.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

use calamine::{Data, Reader, Xlsx};

use super::dataset::{Dataset, Layout, Masks, Sample};
use super::decode::{is_image_name, sheltered};
use super::faults::{FaultKind, Faults, find_picture, unlabelled};
use super::tree::{Entry, SourceReader, Tree};
use crate::error::{Error, Kind, Result};

/// Diagnoses by their number.
const CLASSES: [&str; 3] = ["common_nevus", "atypical_nevus", "melanoma"];
/// The columns of the sheet that stand for them.
const COLUMNS: [&str; 3] = ["Common Nevus", "Atypical Nevus", "Melanoma"];
/// The column of the cases' ids.
const NAME: &str = "Image Name";
const TEXT: &str = "ph2_dataset.txt";
const SHEET: &str = "ph2_dataset.xlsx";

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
    !pictures(tree).is_empty() || [TEXT, SHEET].iter().any(|name| find(tree, name).is_some())
}

fn find<'a>(tree: &'a Tree, name: &str) -> Option<&'a Entry> {
    tree.entries.iter().find(|entry| entry.file_name().eq_ignore_ascii_case(name))
}

/// What a table says of a case.
struct Row {
    /// Its line or row, from 1.
    number: usize,
    id: String,
    /// The number of its class; else what is there instead.
    label: Result<usize, String>,
}

/// The rows of a table drawn with bars.
fn rows_of_text(bytes: &[u8]) -> Vec<Row> {
    let row = |(number, line): (usize, &str)| {
        let cells: Vec<&str> = line.split("||").map(str::trim).collect();
        // Legends stand below the table, and its head above it.
        let [_, id, _, diagnosis, ..] = cells[..] else { return None };
        let label = diagnosis.parse::<usize>().ok().filter(|&label| label < CLASSES.len());
        let label = label.ok_or_else(|| format!("has the clinical diagnosis `{diagnosis}`, not 0, 1 or 2"));
        let is_case = !id.is_empty() && !id.eq_ignore_ascii_case("name");
        is_case.then(|| Row { number: number + 1, id: id.to_owned(), label })
    };
    String::from_utf8_lossy(bytes).lines().enumerate().filter_map(row).collect()
}

/// The longest workbook that is read. That of PH2 has 30 KiB; what is packed in a longer one could fill the memory.
const MAX_WORKBOOK: usize = 1 << 20;
/// The most cells of it.
const MAX_CELLS: usize = 1 << 20;

/// The texts of a sheet by row and column, from 0, without empty ones.
type Cells = BTreeMap<u32, BTreeMap<u32, String>>;

/// The first sheet of a workbook; else what is wrong with it.
fn first_sheet(bytes: Vec<u8>) -> Result<Cells, String> {
    if bytes.len() > MAX_WORKBOOK {
        return Err(format!("the workbook has {} bytes, far more than that of PH2", bytes.len()));
    }
    let damaged = |e: calamine::XlsxError| format!("this is no workbook that can be read: {e}");
    // Cell by cell: as a rectangle, a sheet with a cell in each of two corners would take hundreds of gigabytes.
    let mut book = Xlsx::new(Cursor::new(bytes)).map_err(damaged)?;
    let name = book.sheet_names().first().cloned().ok_or("the workbook has no sheet")?;
    let mut reader = book.worksheet_cells_reader(&name).map_err(damaged)?;
    let (mut cells, mut count) = (Cells::new(), 0);
    while let Some(cell) = reader.next_cell().map_err(damaged)? {
        count += 1;
        if count > MAX_CELLS {
            return Err(format!("the first sheet has more than {MAX_CELLS} cells, far more than that of PH2"));
        }
        let (row, column) = cell.get_position();
        let text = Data::from(cell.get_value().clone()).to_string().trim().to_owned();
        if !text.is_empty() {
            cells.entry(row).or_default().insert(column, text);
        }
    }
    Ok(cells)
}

/// The rows of the first sheet of a workbook, below those of legends and the head.
fn rows_of_sheet(bytes: Vec<u8>, place: &str) -> Result<Vec<Row>> {
    let bad = |what: String| {
        Error::new(Kind::Data, what)
            .at(place)
            .next("take the file as it comes with PH2, or put PH2_dataset.txt beside it")
    };
    let cells = sheltered("the workbook", || first_sheet(bytes)).map_err(bad)?;
    let mut rows = cells.into_iter();
    let head = rows.find(|(_, row)| row.values().any(|text| text == NAME)).map(|(_, row)| row).unwrap_or_default();
    let column = |name: &str| {
        let at = head.iter().find(|(_, text)| *text == name).map(|(&column, _)| column);
        at.ok_or_else(|| bad(format!("the first sheet has no column `{name}`")))
    };
    let name = column(NAME)?;
    let marks = COLUMNS.map(column).into_iter().collect::<Result<Vec<_>>>()?;
    let row = |(number, row): (u32, BTreeMap<u32, String>)| {
        let marked: Vec<usize> = (0..marks.len()).filter(|&class| row.contains_key(&marks[class])).collect();
        let label = match marked[..] {
            [label] => Ok(label),
            _ => Err(format!("marks {} of the columns {}, not one", marked.len(), COLUMNS.join(", "))),
        };
        let id = row.get(&name)?.clone();
        Some(Row { number: number as usize + 1, id, label })
    };
    Ok(rows.filter_map(row).collect())
}

/// Reads the listing of `root`.
pub(super) fn open(tree: &Tree, root: &Path, wanted: &Masks) -> Result<Dataset> {
    let (mut faults, mut notes, mut samples) = (Faults::default(), Vec::new(), Vec::new());
    let images = pictures(tree);
    let mut reader = SourceReader::default();
    let (table, rows) = match (find(tree, TEXT), find(tree, SHEET)) {
        (Some(table), _) => (table, rows_of_text(&reader.read(&table.source)?)),
        (None, Some(table)) => (table, rows_of_sheet(reader.read(&table.source)?, &table.path)?),
        (None, None) => {
            return Err(Error::new(
                Kind::Data,
                "this looks like PH2, but there is no PH2_dataset.txt and no PH2_dataset.xlsx",
            )
            .at(root.display())
            .next("put one of the files beside the folder of images: they tell the diagnoses"));
        }
    };
    let unit = if table.file_name().eq_ignore_ascii_case(TEXT) { "line" } else { "row" };
    let drawn = if *wanted == Masks::OfDataset { cases(tree, "_lesion") } else { BTreeMap::new() };
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for Row { number, id, label } in &rows {
        let (place, id) = (format!("{unit} {number}"), id.as_str());
        if let Some(first) = seen.insert(id, *number) {
            faults.push(FaultKind::DuplicateId, place, format!("names {id}, as {unit} {first} does"));
            continue;
        }
        if let Err(what) = label {
            faults.push(FaultKind::UnknownLabel, &place, what);
        }
        let image = find_picture(images.get(id).copied(), id, &place, &mut faults);
        let mask = drawn.get(id).map(|entry| entry.source.clone());
        if *wanted == Masks::OfDataset && mask.is_none() {
            faults.push(FaultKind::MissingMask, &place, format!("there is no {id}_lesion"));
            continue;
        }
        if let (Ok(label), Some(image)) = (label, image) {
            samples.push(Sample { mask, ..Sample::new(id, image.source.clone(), *label, "") });
        }
    }
    notes.extend(unlabelled(images.keys().copied().filter(|id| !seen.contains_key(id)), "row in the table"));
    notes.push("the dataset names no lesions: each image counts as a lesion of its own".to_owned());
    Ok(Dataset { notes, faults, ..Dataset::new("PH2", root.display(), Layout::Ph2, CLASSES, samples) })
}
