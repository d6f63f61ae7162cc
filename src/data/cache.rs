//! The cache file: decoded pixels on disk, checked from end to end when opened.
//!
//! Layout: [`MAGIC`], the pixels of `count` pictures (`picture` bytes each), a footer in JSON, its length
//! (u64, little endian), and a BLAKE3 checksum of the footer and of each picture's own BLAKE3 hash. The footer comes
//! last because what could not be decoded is known only then. A file is written under a temporary name and renamed
//! when complete, so a reader never meets half a file, and two processes may build the same one.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

/// Tells the file's kind and the version of its format.
const MAGIC: [u8; 8] = *b"LGPIXEL3";
/// Where the pixels start.
pub(super) const PIXELS_AT: u64 = MAGIC.len() as u64;
/// How file names of unfinished files start.
const UNFINISHED: &str = ".building-";
/// Age at which an unfinished file is surely left over from a process that was killed.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);
/// How many bytes of pixels are checked at a time.
const CHECK_BYTES: usize = 32 << 20;

/// What the pixels are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Footer {
    /// Hash of the contents of all source images, and of how they were decoded and resized.
    pub key: String,
    /// Bytes of a picture.
    pub picture: usize,
    /// How many pictures.
    pub count: usize,
    /// Pictures that could not be decoded (their pixels are zero).
    pub bad: Vec<BadPicture>,
    /// Pairs of pictures that look the same, by their numbers.
    pub twins: Vec<(usize, usize)>,
}

/// A picture without pixels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct BadPicture {
    /// Its number.
    pub slot: usize,
    /// Whether the fault is its mask's.
    pub mask: bool,
    /// What is wrong.
    pub what: String,
}

/// What became of opening a cache file.
pub(super) enum Opened {
    /// Intact.
    Intact(File, Footer),
    /// There is none.
    Absent,
    /// It is truncated, altered or unreadable.
    Damaged,
}

/// Opens and checks the file at `path`, which should hold `count` pictures of `picture` bytes under `key`.
pub(super) fn open(path: &Path, key: &str, picture: usize, count: usize) -> Opened {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Opened::Absent,
        Err(_) => return Opened::Damaged,
    };
    match check(&mut file, picture, count) {
        Ok(Some(footer)) if footer.key == key && footer.picture == picture && footer.count == count => {
            Opened::Intact(file, footer)
        }
        _ => Opened::Damaged,
    }
}

/// The footer, if the whole file agrees with its checksum.
fn check(file: &mut File, picture: usize, count: usize) -> io::Result<Option<Footer>> {
    let tail = (8 + blake3::OUT_LEN) as u64;
    let pixels = (picture * count) as u64;
    let Some(footer_len) = file.metadata()?.len().checked_sub(PIXELS_AT + pixels + tail) else { return Ok(None) };
    let mut magic = MAGIC;
    file.read_exact(&mut magic)?;
    if magic != MAGIC {
        return Ok(None);
    }
    let mut digests = Vec::with_capacity(count);
    let at_once = (CHECK_BYTES / picture).max(1);
    let mut buffer = vec![0; picture * at_once.min(count)];
    while digests.len() < count {
        let part = &mut buffer[..picture * at_once.min(count - digests.len())];
        file.read_exact(part)?;
        digests.par_extend(part.par_chunks(picture).map(blake3::hash));
    }
    let mut footer = Vec::new();
    file.take(footer_len).read_to_end(&mut footer)?;
    let (mut length, mut stated) = ([0; 8], [0; blake3::OUT_LEN]);
    file.read_exact(&mut length)?;
    file.read_exact(&mut stated)?;
    if u64::from_le_bytes(length) != footer_len || checksum(&footer, &digests) != blake3::Hash::from_bytes(stated) {
        return Ok(None);
    }
    Ok(serde_json::from_slice(&footer).ok())
}

fn checksum(footer: &[u8], digests: &[blake3::Hash]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(footer);
    digests.iter().for_each(|digest| {
        hasher.update(digest.as_bytes());
    });
    hasher.finalize()
}

/// A cache file being written.
pub(super) struct Writer {
    file: NamedTempFile,
    digests: Vec<blake3::Hash>,
}

impl Writer {
    /// Starts a file in `dir`, and removes what killed processes left there.
    pub fn create(dir: &Path) -> io::Result<Self> {
        remove_stale(dir);
        let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(dir)?;
        file.write_all(&MAGIC)?;
        Ok(Self { file, digests: Vec::new() })
    }

    /// Appends the pixels of one picture.
    pub fn push(&mut self, pixels: &[u8]) -> io::Result<()> {
        self.digests.push(blake3::hash(pixels));
        self.file.write_all(pixels)
    }

    /// Completes the file and gives it its name; returns it open for reading, and whether it has the name. Where
    /// another process holds a file of that name open (Windows), the pixels are used from the temporary file.
    pub fn finish(mut self, path: &Path, footer: &Footer) -> io::Result<(File, bool)> {
        let json = serde_json::to_vec(footer)?;
        self.file.write_all(&json)?;
        self.file.write_all(&(json.len() as u64).to_le_bytes())?;
        self.file.write_all(checksum(&json, &self.digests).as_bytes())?;
        self.file.flush()?;
        match self.file.persist(path) {
            Ok(file) => Ok((file, true)),
            Err(refused) => Ok((unnamed(refused.file)?, false)),
        }
    }

    /// The pixels without a name: the file is gone once it is closed.
    pub fn finish_unnamed(self) -> io::Result<File> {
        unnamed(self.file)
    }
}

/// A handle on the contents of a temporary file whose name is removed (where the system allows it while it is open).
fn unnamed(file: NamedTempFile) -> io::Result<File> {
    file.reopen()
}

/// Reads picture number `slot` into `out`, which has a picture's length.
pub(super) fn read_picture(file: &mut File, slot: usize, out: &mut [u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(PIXELS_AT + (slot * out.len()) as u64))?;
    file.read_exact(out)
}

/// Writes `bytes` to `path` at once: under a temporary name, then renamed.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

/// Removes unfinished files that are a day old. Failing to is harmless.
fn remove_stale(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let unfinished = entry.file_name().to_string_lossy().starts_with(UNFINISHED);
        let modified = entry.metadata().and_then(|m| m.modified()).unwrap_or_else(|_| SystemTime::now());
        if unfinished && modified.elapsed().is_ok_and(|age| age > STALE) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
