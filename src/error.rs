//! The one error type: what happened, to what, and what to do next.
//!
//! Every error carries a [`Kind`], and every kind has its own process exit code, so a script can tell a bad
//! flag from a full disk. Messages are complete sentences a user can act on; nothing reachable from user
//! input panics.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of thing went wrong. The discriminant is the process exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Kind {
    /// A bug in this program: an invariant of the engine does not hold.
    Internal = 1,
    /// A wrong flag or value on the command line.
    Usage = 2,
    /// No GPU adapter, or none that matches what was asked for.
    NoAdapter = 3,
    /// The adapter lacks a feature or limit that was asked for.
    Unsupported = 4,
    /// The device or the host has too little memory.
    OutOfMemory = 5,
    /// The driver reset or removed the device while it was in use.
    DeviceLost = 6,
    /// A shader did not compile, link or validate on this driver.
    Shader = 7,
    /// A dataset, image or CSV is missing or malformed.
    Data = 8,
    /// A weight file is missing, malformed or does not fit the model.
    Weights = 9,
    /// A run folder or checkpoint is missing, malformed or does not fit the request.
    Checkpoint = 10,
    /// The operating system refused to read or write a file.
    Io = 11,
    /// Shapes or hyper-parameters that do not go together.
    Shape = 12,
    /// The self-test found a kernel that disagrees with its CPU reference.
    SelfTest = 13,
    /// Training produced a loss, a gradient or a weight that is not a finite number.
    Diverged = 14,
    /// Another process of a training over several has ended.
    RankLost = 15,
    /// The user interrupted the program (Ctrl-C); 128 + SIGINT, as shells expect.
    Interrupted = 130,
}

/// An error: what happened, optionally where, and optionally what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    kind: Kind,
    what: String,
    at: Option<String>,
    next: Option<String>,
}

impl Error {
    /// A new error of `kind`; `what` is a sentence without a full stop.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), at: None, next: None }
    }

    /// Names the thing it happened to: a file, a tensor, a kernel.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.at = Some(place.to_string());
        self
    }

    /// Says what the user can do about it.
    #[must_use]
    pub fn next(mut self, hint: impl Into<String>) -> Self {
        self.next = Some(hint.into());
        self
    }

    /// The same, where nothing was said so far.
    #[must_use]
    pub fn or_next(mut self, hint: impl Into<String>) -> Self {
        self.next.get_or_insert_with(|| hint.into());
        self
    }

    /// The same, with what to do after what was said so far.
    #[must_use]
    pub fn and_next(mut self, hint: &str) -> Self {
        self.next = Some(self.next.map_or_else(|| hint.to_owned(), |next| format!("{next}; {hint}")));
        self
    }

    /// An operating-system error on `path` while doing `doing` ("read", "create", ...).
    pub fn io(doing: &str, path: &Path, error: &std::io::Error) -> Self {
        let hint = match error.kind() {
            std::io::ErrorKind::NotFound => "check the path",
            std::io::ErrorKind::PermissionDenied => "check the permissions, or choose another place",
            std::io::ErrorKind::StorageFull => "free some space, or choose another disk",
            _ => "check that the disk is mounted and healthy",
        };
        Self::new(Kind::Io, format!("could not {doing}: {error}")).at(path.display()).next(hint)
    }

    /// The same, said of rank `rank` of several that train together.
    #[must_use]
    pub fn of_rank(mut self, rank: usize) -> Self {
        self.what = format!("rank {rank}: {}", self.what);
        self
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The sentence that says what happened.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// The process exit code that belongs to this error's kind.
    pub fn exit_code(&self) -> u8 {
        self.kind as u8
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(at) = &self.at {
            write!(f, "\n  where: {at}")?;
        }
        if let Some(next) = &self.next {
            write!(f, "\n  next:  {next}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_where_and_next() {
        let e = Error::new(Kind::Data, "no images found").at("x.zip").next("give a folder of JPEG files");
        assert_eq!(e.to_string(), "no images found\n  where: x.zip\n  next:  give a folder of JPEG files");
        assert_eq!(e.exit_code(), 8);
    }
}
