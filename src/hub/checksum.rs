//! SHA-256 of files.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::error::{Error, Kind, Result};

/// What a file's SHA-256 must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Checksum {
    /// All of it, in hexadecimal.
    Whole(String),
    /// How it begins.
    Begins(String),
}

impl Checksum {
    /// The checksum, if the text is one.
    pub fn whole(text: &str) -> Option<Self> {
        let is_hash = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        is_hash.then(|| Self::Whole(text.to_lowercase()))
    }

    /// Compares it with what a file has.
    pub fn fits(&self, found: &str) -> bool {
        match self {
            Self::Whole(hash) => hash == found,
            Self::Begins(hash) => found.starts_with(&hash.to_lowercase()),
        }
    }

    /// As many digits as are known.
    pub fn digits(&self) -> &str {
        match self {
            Self::Whole(hash) | Self::Begins(hash) => hash,
        }
    }
}

/// A running SHA-256.
#[derive(Clone, Default)]
pub(super) struct Hasher(Sha256);

impl Hasher {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The result, in hexadecimal.
    pub fn hex(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Adds all that is left of an open file, called `path`, and returns how many bytes that were.
    ///
    /// # Errors
    /// [`Kind::Io`]; those of `check`, which is called now and then.
    pub fn read(&mut self, file: &mut File, path: &Path, check: &mut dyn FnMut() -> Result<()>) -> Result<u64> {
        let fail = |e: &std::io::Error| Error::io("read", path, e);
        let (mut buffer, mut count) = (vec![0; 1 << 20], 0);
        loop {
            check()?;
            match file.read(&mut buffer).map_err(|e| fail(&e))? {
                0 => return Ok(count),
                n => {
                    self.update(&buffer[..n]);
                    count += n as u64;
                }
            }
        }
    }
}

/// Checks that a file is what it should be.
///
/// # Errors
/// [`Kind::Weights`] if not, [`Kind::Io`] if it cannot be read.
pub(super) fn verify(path: &Path, checksum: &Checksum, check: &mut dyn FnMut() -> Result<()>) -> Result<String> {
    let mut hasher = Hasher::default();
    let mut file = File::open(path).map_err(|e| Error::io("read", path, &e))?;
    hasher.read(&mut file, path, check)?;
    let found = hasher.hex();
    if checksum.fits(&found) {
        return Ok(found);
    }
    let (found, wanted) = (&found[..16], &checksum.digits()[..checksum.digits().len().min(16)]);
    Err(Error::new(Kind::Weights, format!("the file's SHA-256 begins with {found} and not with {wanted}"))
        .at(path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of FIPS 180-2, appendix B.1.
    #[test]
    fn hashes_are_compared_as_far_as_they_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let mut go_on = || Ok(());
        assert_eq!(verify(&path, &Checksum::whole(&abc.to_uppercase()).unwrap(), &mut go_on).unwrap(), abc);
        verify(&path, &Checksum::Begins("BA7816BF".into()), &mut go_on).unwrap();
        let wrong = Checksum::Begins("ba7816be".into());
        assert_eq!(verify(&path, &wrong, &mut go_on).unwrap_err().kind(), Kind::Weights);
        assert_eq!(Checksum::whole("abc"), None);
    }
}
