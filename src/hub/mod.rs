//! Published weights: which files there are (`known.rs`), and how to get them.
//!
//! A file is looked for where it may lie already: in the folders of Hugging Face's and PyTorch's own tools, then in ours.
//! Else it is fetched, from the hub by its documented protocol: a `HEAD` of
//! `{endpoint}/{repository}/resolve/{revision}/{file}` names the SHA-256 in `X-Linked-ETag`, a `GET` redirects to
//! the bytes. What is fetched gets its name only after its checksum was compared. What is found is compared wherever its
//! checksum is known: from its name, from a blob's name in Hugging Face's cache, or from our note beside it.

mod checksum;
mod known;
mod settings;
mod transfer;

use std::path::{Path, PathBuf};

pub use known::{Known, Source};
pub use settings::Settings;

use self::checksum::{Checksum, verify};
use self::known::{file_name, hash_in_name};
use self::transfer::{Failure, Transfer, header, look_up};
use crate::error::{Error, Kind, Result};

/// The revision that is fetched.
const REVISION: &str = "main";

/// What is going on, for those who wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'a> {
    /// So many bytes of a file are here, of so many where that is known.
    Fetching(&'a str, u64, Option<u64>),
    /// A file's checksum is computed.
    Checking(&'a Path),
    /// A file that was found is not the published one, by its checksum, and is not used.
    Wrong(&'a Path),
}

/// Told what is going on; may put an end to it.
pub type Report<'a> = dyn FnMut(Progress<'_>) -> Result<()> + 'a;

impl Settings {
    /// A file with a model's published weights: one that is there already, or fetched now.
    ///
    /// # Errors
    /// [`Kind::Io`] if no source can be reached, [`Kind::Weights`] if a file is not what it should be; both say what to
    /// do by hand. [`Kind::Io`] for what this machine refuses, [`Kind::Usage`] for an invalid token. Those of `report`.
    pub fn weights(&self, known: &Known, report: &mut Report<'_>) -> Result<PathBuf> {
        for source in known.sources {
            if let Some(path) = self.present(source, report)? {
                return Ok(path);
            }
        }
        let mut failure = None;
        for source in known.sources {
            match self.fetch(source, report) {
                Ok(path) => return Ok(path),
                // No other source would help.
                Err(Failure::Local(e)) => return Err(e),
                // The first source's is the one that people know how to deal with.
                Err(Failure::Again(e) | Failure::Final(e)) => failure = failure.or(Some(e)),
            }
        }
        let failure = failure.unwrap_or_else(|| Error::new(Kind::Internal, "weights without a source"));
        Err(self.by_hand(known, &failure))
    }

    /// What happened, and how the file gets here without us.
    fn by_hand(&self, known: &Known, failure: &Error) -> Error {
        let source = &known.sources[0];
        let url = self.url(source);
        let name = file_name(&url).to_owned();
        let (model, normalize, kept) = (known.model, known.normalize, self.kept(source));
        Error::new(failure.kind(), format!("the published weights of {model} could not be fetched: {}", failure.what()))
            .at(&url)
            .next(format!(
                "download that file where there is a network; then either put it at {} and use --pretrained again, or put \
                 it anywhere and use `--weights {name} --normalize {normalize}` instead of --pretrained",
                kept.display()
            ))
    }

    fn url(&self, source: &Source) -> String {
        match source {
            Source::Hub { repository, file } => format!("{}/{repository}/resolve/{REVISION}/{file}", self.endpoint),
            Source::Url(url) => (*url).to_owned(),
        }
    }

    /// Where we keep the file.
    fn kept(&self, source: &Source) -> PathBuf {
        match source {
            Source::Hub { repository, file } => self.folder.join(folder_name(repository)).join(file),
            Source::Url(url) => self.folder.join("torchvision").join(file_name(url)),
        }
    }

    /// The file, if it is on this machine and whole.
    fn present(&self, source: &Source, report: &mut Report<'_>) -> Result<Option<PathBuf>> {
        let theirs = match source {
            Source::Hub { repository, file } => self.in_hub_cache(repository, file),
            Source::Url(url) => self.torch_cache.as_ref().map(|c| c.join(file_name(url))).filter(|p| p.is_file()),
        };
        let checksum_in_name = match source {
            Source::Hub { .. } => None,
            Source::Url(url) => hash_in_name(file_name(url)).map(|hash| Checksum::Begins(hash.into())),
        };
        if let Some(path) = theirs {
            let checksum = checksum_in_name.clone().or_else(|| checksum_of_link(&path));
            // What other programs keep is theirs: where it is damaged or not for us to read, we fetch our own.
            let readable = std::fs::File::open(&path).is_ok();
            match self.is_whole(&path, checksum, report) {
                Ok(true) if readable => return Ok(Some(path)),
                Err(e) if e.kind() != Kind::Io => return Err(e),
                _ => {}
            }
        }
        let ours = self.kept(source);
        if !ours.is_file() {
            return Ok(None);
        }
        let noted = std::fs::read_to_string(noted_at(&ours)).ok().and_then(|text| Checksum::whole(text.trim()));
        // One that is wrong stays, as somebody may have put it there, until the right one takes its place.
        Ok(self.is_whole(&ours, checksum_in_name.or(noted), report)?.then_some(ours))
    }

    /// Whether a file has its checksum. One without a checksum is taken as it is: the user or another program put it there.
    fn is_whole(&self, path: &Path, checksum: Option<Checksum>, report: &mut Report<'_>) -> Result<bool> {
        let Some(checksum) = checksum else { return Ok(true) };
        match verify(path, &checksum, &mut || report(Progress::Checking(path))) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == Kind::Weights => report(Progress::Wrong(path)).map(|()| false),
            Err(e) => Err(e),
        }
    }

    /// A file that Hugging Face's tools have fetched: in the snapshot that the revision points to.
    fn in_hub_cache(&self, repository: &str, file: &str) -> Option<PathBuf> {
        let folder = self.hub_cache.as_ref()?.join(folder_name(repository));
        let commit = std::fs::read_to_string(folder.join("refs").join(REVISION)).ok()?;
        let path = folder.join("snapshots").join(commit.trim()).join(file);
        path.is_file().then_some(path)
    }

    fn fetch(&self, source: &Source, report: &mut Report<'_>) -> Result<PathBuf, Failure> {
        if let Some(variable) = self.offline {
            return Err(Failure::Final(Error::new(Kind::Io, format!("{variable} forbids it"))));
        }
        let (url, to) = (self.url(source), self.kept(source));
        let checksum = match source {
            Source::Hub { .. } => self.checksum_on_hub(&url)?,
            Source::Url(url) => hash_in_name(file_name(url))
                .map(|hash| Checksum::Begins(hash.into()))
                .ok_or_else(|| Error::new(Kind::Internal, "the file's name holds no checksum").at(url))?,
        };
        let name = source.name();
        let transfer = Transfer { settings: self, url, checksum, to: to.clone(), note: noted_at(&to) };
        transfer.run(&mut |done, total| report(Progress::Fetching(&name, done, total)))?;
        Ok(to)
    }

    /// The SHA-256 that the hub says a file has.
    fn checksum_on_hub(&self, url: &str) -> Result<Checksum, Failure> {
        let mut checksum = None;
        look_up(self, url, &mut |headers| {
            let tag = ["x-linked-etag", "etag"].into_iter().find_map(|name| header(headers, name));
            let tag = tag.map(|tag| tag.trim_start_matches("W/").trim_matches('"'));
            checksum = tag.and_then(Checksum::whole).or(checksum.take());
            checksum.is_some()
        })?;
        checksum.ok_or_else(|| {
            Failure::Final(
                Error::new(Kind::Io, "the server names no SHA-256 that the file could be checked by").at(url),
            )
        })
    }
}

/// A repository's folder, as in Hugging Face's cache.
fn folder_name(repository: &str) -> String {
    format!("models--{}", repository.replace('/', "--"))
}

/// Where the checksum of a file of ours is noted.
fn noted_at(path: &Path) -> PathBuf {
    path.with_added_extension("sha256")
}

/// In Hugging Face's cache a large file is a link to a blob called by its SHA-256.
fn checksum_of_link(path: &Path) -> Option<Checksum> {
    let target = std::fs::canonicalize(path).ok()?;
    Checksum::whole(&target.file_name()?.to_string_lossy())
}
