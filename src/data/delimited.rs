//! Comma- or tab-separated tables with a header, read so that every bad row is named by its line.

use std::collections::HashMap;

use csv::{ReaderBuilder, StringRecord};

use super::faults::{FaultKind, Faults};
use crate::error::{Error, Kind, Result};

/// A table read into memory: its rows by column name.
pub(super) struct Delimited {
    columns: HashMap<String, usize>,
    rows: Vec<(u64, StringRecord)>,
}

/// One row: its line number and its fields.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    table: &'a Delimited,
    fields: &'a StringRecord,
    /// The line the row starts at, from 1.
    pub line: u64,
}

impl Delimited {
    /// Reads `bytes`, a table with the columns `required` and any others. `name` is named in errors. A tab in the
    /// header means tab-separated, a semicolon without a comma semicolon-separated (spreadsheets in much of Europe),
    /// else commas. Rows with another count of fields than the header become faults.
    pub fn read(bytes: &[u8], name: &str, required: &[&str], faults: &mut Faults) -> Result<Self> {
        let text = String::from_utf8_lossy(bytes);
        let text = text.strip_prefix('\u{FEFF}').unwrap_or(&text);
        let head = text.lines().next().unwrap_or_default();
        let delimiter = match (head.contains('\t'), head.contains(';') && !head.contains(',')) {
            (true, _) => b'\t',
            (_, true) => b';',
            _ => b',',
        };
        let mut reader =
            ReaderBuilder::new().delimiter(delimiter).flexible(true).trim(csv::Trim::All).from_reader(text.as_bytes());
        let malformed = |e: csv::Error| Error::new(Kind::Data, format!("the table cannot be read: {e}")).at(name);
        let header = reader.headers().map_err(malformed)?.clone();
        let columns: HashMap<String, usize> =
            header.iter().enumerate().map(|(i, column)| (column.to_ascii_lowercase(), i)).collect();
        let missing: Vec<&str> = required.iter().copied().filter(|c| !columns.contains_key(*c)).collect();
        if !missing.is_empty() {
            let found: Vec<&str> = header.iter().collect();
            return Err(Error::new(
                Kind::Data,
                format!(
                    "the table lacks the column {}; its first line holds: {}",
                    missing.join(", "),
                    found.join(", ")
                ),
            )
            .at(name)
            .next(format!("the first line must name the columns, among them {}", required.join(", "))));
        }
        let mut rows = Vec::new();
        let mut lines = Lines { text: text.as_bytes(), at: 0, line: 1 };
        for record in reader.records() {
            let record = record.map_err(malformed)?;
            let line = lines.of(record.position().map_or(0, |p| p.byte() as usize));
            if record.len() == header.len() {
                rows.push((line, record));
            } else {
                let what = format!("has {} fields where the header has {}", record.len(), header.len());
                faults.push(FaultKind::MalformedRow, format_args!("line {line}"), what);
            }
        }
        Ok(Self { columns, rows })
    }

    /// The rows, in file order.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|(line, fields)| Row { table: self, fields, line: *line })
    }

    /// Whether the table has `column`.
    pub fn has(&self, column: &str) -> bool {
        self.columns.contains_key(column)
    }
}

/// Line numbers of rows. The reader's own count is taken before the line ends it skips (blank lines, `\r\n`), so a row
/// may start lines later than it says.
struct Lines<'a> {
    text: &'a [u8],
    at: usize,
    line: u64,
}

impl Lines<'_> {
    /// The line, from 1, of the first row at or behind byte `from`. Must be asked in ascending order.
    fn of(&mut self, from: usize) -> u64 {
        while let Some(&byte) = self.text.get(self.at).filter(|b| self.at < from || matches!(b, b'\r' | b'\n')) {
            self.line += u64::from(byte == b'\n');
            self.at += 1;
        }
        self.line
    }
}

impl<'a> Row<'a> {
    /// The field in `column`, or an empty text where the table has no such column.
    pub fn get(&self, column: &str) -> &'a str {
        self.table.columns.get(column).and_then(|&i| self.fields.get(i)).unwrap_or_default()
    }

    /// Where the row is, for faults.
    pub fn place(&self) -> String {
        format!("line {}", self.line)
    }
}

/// The column of tables that marks what a leaky split was made of, or measured with.
pub const LEAK: &str = "leak";
/// How it marks that.
pub const LEAKY: &str = "LEAKY";

/// Rows of text as CSV, below their header.
///
/// # Errors
/// [`Kind::Internal`] if they cannot be encoded.
pub fn csv_of<T: AsRef<[u8]>, R: AsRef<[u8]>>(
    header: impl IntoIterator<Item = T>,
    rows: impl IntoIterator<Item: IntoIterator<Item = R>>,
) -> Result<Vec<u8>> {
    let failed = |e: &dyn std::fmt::Display| Error::new(Kind::Internal, format!("could not encode a table: {e}"));
    let mut csv = csv::Writer::from_writer(vec![]);
    csv.write_record(header).map_err(|e| failed(&e))?;
    rows.into_iter().try_for_each(|row| csv.write_record(row).map_err(|e| failed(&e)))?;
    csv.into_inner().map_err(|e| failed(&e))
}

/// [`csv_of`] rows about samples of a split. Where that is `leaky`, a last column `leak` says so in each.
///
/// # Errors
/// As [`csv_of`].
pub fn csv_of_split(
    leaky: bool,
    header: impl IntoIterator<Item = String>,
    rows: impl IntoIterator<Item: IntoIterator<Item = String>>,
) -> Result<Vec<u8>> {
    let column = |text: &str| leaky.then(|| text.to_owned());
    csv_of(header.into_iter().chain(column(LEAK)), rows.into_iter().map(|row| row.into_iter().chain(column(LEAKY))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_commas_tabs_quotes_and_a_byte_order_mark() {
        for text in ["\u{FEFF}id,dx\n\"a\",nv\n", "\"id\"\t\"dx\"\r\n\"a\"\t\"nv\"\r\n", "dx;ID\nnv;a"] {
            let mut faults = Faults::default();
            let table = Delimited::read(text.as_bytes(), "t", &["id", "dx"], &mut faults).unwrap();
            let rows: Vec<_> = table.rows().map(|r| (r.get("id"), r.get("dx"), r.get("none"), r.line)).collect();
            assert_eq!(rows, [("a", "nv", "", 2)], "{text:?}");
            assert!(faults.is_empty());
        }
    }

    #[test]
    fn names_short_rows_by_line_and_missing_columns() {
        let mut faults = Faults::default();
        let table = Delimited::read(b"a,b\n1,2\n\n3\n4,5,6\n", "t", &["a"], &mut faults).unwrap();
        assert_eq!(table.rows().count(), 1);
        let places: Vec<&str> = faults.list().iter().map(|f| f.place.as_str()).collect();
        assert_eq!(places, ["line 4", "line 5"]);
        let error = Delimited::read(b"a,b\n", "t.csv", &["path", "label"], &mut faults).err().unwrap();
        assert!(error.what().contains("path, label") && error.what().contains("a, b"), "{error}");
    }
}
