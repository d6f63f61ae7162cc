//! Every fault of a dataset, collected in one pass and shown as one error, so that a user repairs once.

use std::fmt;

use serde::{Serialize, Serializer};

use super::tree::Entry;
use crate::error::{Error, Kind};

/// How many faults an error names one by one; the rest are counted.
const SHOWN: usize = 100;

/// What is wrong with a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// A row that cannot be read: wrong field count, or an empty field that must not be.
    MalformedRow,
    /// A class name the layout does not know.
    UnknownLabel,
    /// An image named by more than one row.
    DuplicateId,
    /// A row whose image is not there.
    MissingImage,
    /// An image that is empty, truncated, corrupt, unreadable or of no known format.
    BadImage,
    /// A picture whose mask is not there.
    MissingMask,
    /// A mask that is empty, corrupt, of another size than its picture, or not black and white.
    BadMask,
    /// A group with samples in more than one of the given splits.
    SplitLeak,
    /// A picture that a table of splits does not name.
    NoSplit,
}

impl FaultKind {
    /// One fault in words, and several.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::MalformedRow => ("malformed row", "malformed rows"),
            Self::UnknownLabel => ("unknown class", "unknown classes"),
            Self::DuplicateId => ("duplicate image", "duplicate images"),
            Self::MissingImage => ("row without an image", "rows without an image"),
            Self::BadImage => ("bad image", "bad images"),
            Self::MissingMask => ("picture without a mask", "pictures without a mask"),
            Self::BadMask => ("bad mask", "bad masks"),
            Self::SplitLeak => ("sample that leaks between splits", "samples that leak between splits"),
            Self::NoSplit => ("picture without a split", "pictures without a split"),
        }
    }

    /// The fault in words.
    pub fn name(self) -> &'static str {
        self.words().0
    }

    /// The fault in words, for a count of `n`.
    fn counted(self, n: usize) -> String {
        let (one, many) = self.words();
        format!("{n} {}", if n == 1 { one } else { many })
    }
}

impl Serialize for FaultKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// One fault: its kind, where it is (a line, an image), and what is wrong there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The kind, for counts.
    pub kind: FaultKind,
    /// Where: `line 12`, or an image's name.
    pub place: String,
    /// What is wrong, in words.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// The faults found so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    list: Vec<Fault>,
}

impl Faults {
    /// Adds a fault.
    pub fn push(&mut self, kind: FaultKind, place: impl fmt::Display, what: impl Into<String>) {
        self.list.push(Fault { kind, place: place.to_string(), what: what.into() });
    }

    /// Adds those of another list.
    pub fn append(&mut self, other: &Self) {
        self.list.extend_from_slice(&other.list);
    }

    /// Whether none was found.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All faults, in the order found.
    pub fn list(&self) -> &[Fault] {
        &self.list
    }

    /// The counts per kind in words: `2 malformed rows, 1 bad image`.
    pub fn summary(&self) -> String {
        summary(&self.list)
    }

    /// All faults as one [`Kind::Data`] error about `place`: the counts per kind, then the first faults by name.
    pub fn into_error(self, place: impl fmt::Display) -> Error {
        let mut what = format!("the dataset has faults: {}", self.summary());
        for fault in self.list.iter().take(SHOWN) {
            what.push_str(&format!("\n    {fault}"));
        }
        if self.list.len() > SHOWN {
            what.push_str(&format!("\n    ... and {} more", self.list.len() - SHOWN));
        }
        Error::new(Kind::Data, what).at(place).next(
            "repair or remove what is named above, or ask to skip bad samples (they are then left out and counted)",
        )
    }

    /// What a run that skips bad samples says about them, or `None` where there were none. Names the first few.
    pub fn skipped_note(&self) -> Option<String> {
        let first: Vec<String> = self.list.iter().take(3).map(Fault::to_string).collect();
        let more = if self.list.len() > first.len() { "; ..." } else { "" };
        (!self.is_empty()).then(|| format!("skipped: {} ({}{more})", self.summary(), first.join("; ")))
    }
}

/// Counts of faults per kind in words.
pub(super) fn summary(faults: &[Fault]) -> String {
    let mut kinds: Vec<FaultKind> = faults.iter().map(|f| f.kind).collect();
    kinds.sort_unstable();
    let counts: Vec<String> = kinds.chunk_by(|a, b| a == b).map(|run| run[0].counted(run.len())).collect();
    counts.join(", ")
}

/// The picture `id` of a row, if it is there and holds something; else a fault.
pub(super) fn find_picture<'a>(
    picture: Option<&'a Entry>,
    id: &str,
    place: &str,
    faults: &mut Faults,
) -> Option<&'a Entry> {
    match picture {
        None => faults.push(FaultKind::MissingImage, place, format!("there is no image {id}")),
        Some(entry) if entry.len == 0 => {
            faults.push(FaultKind::BadImage, &entry.source, "the image is empty (0 bytes)");
        }
        Some(_) => {}
    }
    picture.filter(|entry| entry.len > 0)
}

/// What is said of pictures that no table labels.
pub(super) fn unlabelled<'a>(ids: impl Iterator<Item = &'a str>, what: &str) -> Option<String> {
    let ids: Vec<&str> = ids.collect();
    let first = ids.first()?;
    Some(format!("{} image(s) have no {what} and are not used, for example {first}", ids.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_first_faults_and_counts_all_by_kind() {
        let mut faults = Faults::default();
        for line in 0..105 {
            faults.push(FaultKind::MalformedRow, format!("line {line}"), "has 3 fields where the header has 7");
        }
        faults.push(FaultKind::BadImage, "a.jpg", "is truncated");
        let text = faults.into_error("x.csv").to_string();
        assert!(
            text.starts_with("the dataset has faults: 105 malformed rows, 1 bad image\n    line 0: has 3"),
            "{text}"
        );
        assert!(text.contains("\n    line 99: ") && !text.contains("line 100"), "{text}");
        assert!(text.contains("... and 6 more\n  where: x.csv"), "{text}");
    }
}
