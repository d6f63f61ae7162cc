//! Zip archives in memory, which PyTorch and Keras use as containers.

use std::io::{Cursor, Read as _};

use zip::ZipArchive;

use super::elements::Budget;
use crate::error::{Error, Kind, Result};

/// An archive.
pub(super) struct Archive<'a> {
    zip: ZipArchive<Cursor<&'a [u8]>>,
}

impl<'a> Archive<'a> {
    /// Opens the archive in `bytes`.
    ///
    /// # Errors
    /// [`Kind::Weights`] if it is damaged.
    pub fn open(bytes: &'a [u8]) -> Result<Self> {
        ZipArchive::new(Cursor::new(bytes)).map(|zip| Self { zip }).map_err(|e| damaged(&e))
    }

    /// The names of all entries that are UTF-8.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.zip.file_names_raw().filter_map(|name| std::str::from_utf8(name).ok())
    }

    /// The length that an entry states, unpacked.
    ///
    /// # Errors
    /// [`Kind::Weights`] if it is not there.
    pub fn size(&mut self, name: &str) -> Result<u64> {
        Ok(self.zip.by_name(name).map_err(|e| damaged(&e).at(name))?.size())
    }

    /// The bytes of an entry, whose length and checksum must be as stated.
    ///
    /// # Errors
    /// [`Kind::Weights`] if it is not there, damaged, or unpacks to more than the budget has left.
    pub fn read(&mut self, name: &str, budget: &mut Budget) -> Result<Vec<u8>> {
        let entry = self.zip.by_name(name).map_err(|e| damaged(&e).at(name))?;
        let length = budget.take(usize::try_from(entry.size()).ok(), 1)?;
        let mut bytes = vec![];
        entry.take(length as u64 + 1).read_to_end(&mut bytes).map_err(|e| damaged(&e).at(name))?;
        if bytes.len() != length {
            return Err(damaged(&"an entry has another length than it states").at(name));
        }
        Ok(bytes)
    }
}

fn damaged(why: &dyn std::fmt::Display) -> Error {
    Error::new(Kind::Weights, format!("the archive is damaged or incomplete: {why}"))
        .next("get the file from its source again")
}
