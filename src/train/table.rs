//! The tables of a run: CSV files of numbers that grow row by row.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::weights::write_atomically;

/// A file that rows are appended to; without one, where another rank writes it, rows go nowhere.
#[derive(Debug, Default)]
pub(super) struct Table {
    file: Option<(PathBuf, File)>,
}

impl Table {
    /// Opens a file for appending rows; `header` starts a new one. With `keep`, the rows whose first field is in that range stay
    /// (a resumed run writes the others again), with empty fields in columns that they do not have. Where rows of the range are
    /// missing, there is also a sentence that says so: nothing can make up for them.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io).
    pub fn open(path: &Path, header: &str, keep: Option<Range<u64>>) -> Result<(Self, Option<String>)> {
        let (mut rows, mut note) = (BTreeMap::new(), None);
        if let Some(range) = keep {
            let bytes = match std::fs::read(path) {
                Err(e) if e.kind() == ErrorKind::NotFound => vec![],
                bytes => bytes.map_err(|e| Error::io("read", path, &e))?,
            };
            rows = rows_in(&String::from_utf8_lossy(&bytes), header, &range);
            let mut missing = range.filter(|number| !rows.contains_key(number));
            if let Some(first) = missing.next() {
                let (path, missing) = (path.display(), 1 + missing.count());
                note = Some(format!(
                    "{path} has lost {missing} of its rows, from {first} on: the run goes on without them"
                ));
            }
        }
        let lines = [header.to_owned()].into_iter().chain(rows.into_values());
        write_atomically(path, lines.map(|line| line + "\n").collect::<String>().as_bytes())?;
        let file = OpenOptions::new().append(true).open(path).map_err(|e| Error::io("write", path, &e))?;
        Ok((Self { file: Some((path.to_owned(), file)) }, note))
    }

    /// Appends a row.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io).
    pub fn row(&mut self, fields: &[String]) -> Result<()> {
        let Some((path, file)) = &mut self.file else { return Ok(()) };
        writeln!(file, "{}", fields.join(",")).map_err(|e| Error::io("write", path, &e))
    }

    /// Sees to it that the rows so far outlast a loss of power, as a checkpoint does that comes after them.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io).
    pub fn sync(&self) -> Result<()> {
        let Some((path, file)) = &self.file else { return Ok(()) };
        file.sync_data().map_err(|e| Error::io("write", path, &e))
    }
}

/// The rows of a table whose first field is in `range`, by that field, with the columns of `header`.
fn rows_in(text: &str, header: &str, range: &Range<u64>) -> BTreeMap<u64, String> {
    let fields = |line: &str| line.split(',').map(str::to_owned).collect::<Vec<_>>();
    let names = text.lines().next().map(fields).unwrap_or_default();
    let columns = |row: &[String]| {
        let field = |name: &str| names.iter().position(|n| n == name).and_then(|at| row.get(at)).cloned();
        header.split(',').map(|name| field(name).unwrap_or_default()).collect::<Vec<_>>().join(",")
    };
    let row = |fields: Vec<String>| Some((fields[0].parse().ok().filter(|n| range.contains(n))?, columns(&fields)));
    // What was being written when the power failed has no end.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().skip(1).map(fields).filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_table_keeps_the_rows_that_stay_valid_and_says_which_are_missing() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("t.csv");
        let (mut table, note) = Table::open(&path, "step,x", None).unwrap();
        assert_eq!(note, None);
        for step in 0..5 {
            table.row(&[step.to_string(), "1".into()]).unwrap();
        }
        table.sync().unwrap();
        let resumed = |header: &str, keep: Range<u64>| {
            let (_, note) = Table::open(&path, header, Some(keep)).unwrap();
            (std::fs::read_to_string(&path).unwrap(), note)
        };
        assert_eq!(resumed("step,x", 0..3), ("step,x\n0,1\n1,1\n2,1\n".into(), None));
        // Of an older version, whose columns were others.
        assert_eq!(resumed("step,new,x", 0..2), ("step,new,x\n0,,1\n1,,1\n".into(), None));
        // The power failed: some rows never came to the disk, and one did in part.
        std::fs::write(&path, "step,x\n0,1\n2,1\nnonsense\n4,").unwrap();
        let (text, note) = resumed("step,x", 0..6);
        assert_eq!(text, "step,x\n0,1\n2,1\n");
        let note = note.unwrap();
        assert!(note.contains("t.csv has lost 4 of its rows, from 1 on"), "{note}");
        std::fs::remove_file(&path).unwrap();
        assert!(resumed("epoch,x", 1..3).1.unwrap().contains("2 of its rows, from 1 on"));
        assert_eq!(resumed("epoch,x", 1..1), ("epoch,x\n".into(), None));
    }
}
