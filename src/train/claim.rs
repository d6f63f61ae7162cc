//! Work that one process has for itself.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A locked file, until this is dropped: then it is unlocked and deleted.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    _file: File,
}

impl Claim {
    /// Makes and locks a file. `None` if another process has it locked. File systems without locks are taken at their word.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io).
    pub fn take(path: &Path) -> Result<Option<Self>> {
        loop {
            let file = File::create(path).map_err(|e| Error::io("write", path, &e))?;
            if let Err(TryLockError::WouldBlock) = file.try_lock() {
                return Ok(None);
            }
            // The one before may have deleted the file between the two: then another could make and lock one too.
            if same_file(path, &file) {
                return Ok(Some(Self { path: path.to_owned(), _file: file }));
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // A file that stays behind locks nothing.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether `path` still names this file.
#[cfg(unix)]
fn same_file(path: &Path, file: &File) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let number = |of: std::io::Result<std::fs::Metadata>| of.map(|of| (of.dev(), of.ino())).ok();
    number(std::fs::metadata(path)) == number(file.metadata())
}

/// Whether `path` still names this file: elsewhere a file that is open keeps its name.
#[cfg(not(unix))]
fn same_file(_: &Path, _: &File) -> bool {
    true
}
