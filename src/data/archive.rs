//! Zip archives, also such that lie in another: read in place where they are stored as they are.

use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use tempfile::TempPath;
use zip::{CompressionMethod, ZipArchive};

use super::tree::Source;
use crate::error::{Error, Kind, Result};

/// An opened archive.
pub(super) type Zip = ZipArchive<BufReader<Section>>;

/// Where a zip archive lies.
#[derive(Debug)]
pub struct Archive {
    /// As it is shown, and known by: the path, or `outer.zip!inner.zip`.
    place: String,
    /// The file that holds it.
    file: PathBuf,
    /// First byte and length, where it lies in an archive of its own.
    range: Option<(u64, u64)>,
    /// The file, if it had to be unpacked; it is removed with this.
    _unpacked: Option<TempPath>,
}

impl Archive {
    /// The archive at `path`.
    pub(super) fn at(path: &Path) -> Self {
        Self { place: path.display().to_string(), file: path.to_owned(), range: None, _unpacked: None }
    }

    /// The archive that `source` is. One that lies compressed in another archive is unpacked to a temporary file.
    pub(super) fn of(source: &Source) -> Result<Self> {
        let (outer, index) = match source {
            Source::File(path) => return Ok(Self::at(path)),
            Source::ZipEntry { archive, index, .. } => (archive, *index),
            Source::Synthetic { .. } | Source::Changed { .. } => {
                return Err(Error::new(Kind::Internal, "a generated picture is no archive").at(source));
            }
        };
        let place = source.to_string();
        let mut zip = outer.open()?;
        let entry = zip.by_index(index).map_err(|e| outer.error(&e))?;
        let start = entry.data_start().filter(|_| entry.compression() == CompressionMethod::Stored);
        if let Some(start) = start {
            let range = Some((outer.range.map_or(0, |(first, _)| first) + start, entry.size()));
            return Ok(Self { place, file: outer.file.clone(), range, _unpacked: None });
        }
        let failed = |e: &io::Error| {
            Error::new(Kind::Io, format!("the archive in the archive could not be unpacked: {e}"))
                .at(&place)
                .next("unpack the outer archive, and give its folder")
        };
        let mut unpacked = tempfile::Builder::new().prefix("lesion-gpu-").tempfile().map_err(|e| failed(&e))?;
        // No more than the archive states: it may lie.
        let stated = entry.size();
        io::copy(&mut entry.take(stated), &mut unpacked).map_err(|e| failed(&e))?;
        let unpacked = unpacked.into_temp_path();
        Ok(Self { place, file: unpacked.to_path_buf(), range: None, _unpacked: Some(unpacked) })
    }

    /// Opens it and reads its directory.
    pub(super) fn open(&self) -> Result<Zip> {
        let file = File::open(&self.file).map_err(|e| Error::io("open", Path::new(&self.place), &e))?;
        let whole = || file.metadata().map(|meta| (0, meta.len()));
        let range = self.range.map_or_else(whole, Ok).map_err(|e| Error::io("read", Path::new(&self.place), &e))?;
        let mut section = Section { file, range, at: 0 };
        section.rewind().map_err(|e| Error::io("read", Path::new(&self.place), &e))?;
        ZipArchive::new(BufReader::new(section)).map_err(|e| self.error(&e))
    }

    /// What is wrong with it, in words.
    pub(super) fn error(&self, error: &zip::result::ZipError) -> Error {
        let (what, next) = match error {
            zip::result::ZipError::InvalidArchive(why) => {
                (format!("the zip archive is damaged or incomplete: {why}"), "download it again")
            }
            zip::result::ZipError::Io(e) => (format!("the zip archive cannot be read: {e}"), "download it again"),
            other => (format!("the zip archive cannot be read: {other}"), "unpack it, and give the folder"),
        };
        Error::new(Kind::Data, what).at(self).next(next)
    }
}

impl std::fmt::Display for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.place)
    }
}

impl PartialEq for Archive {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl Eq for Archive {}

impl Hash for Archive {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.place.hash(state);
    }
}

/// A part of a file, read as if it were all of it.
pub(super) struct Section {
    file: File,
    /// First byte and length.
    range: (u64, u64),
    at: u64,
}

impl Read for Section {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.range.1.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let wanted = left.min(out.len());
        let read = self.file.read(&mut out[..wanted])?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Section {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.range.1.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        let absolute = target.and_then(|at| self.range.0.checked_add(at));
        let (Some(target), Some(absolute)) = (target, absolute) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a place before the archive's beginning"));
        };
        self.file.seek(SeekFrom::Start(absolute))?;
        self.at = target;
        Ok(target)
    }
}
