//! Content keys: what a source image holds, told without decoding it.
//!
//! A zip entry is known by its name, CRC-32 and length; a file by the BLAKE3 hash of its bytes. An index of (path,
//! length, modification time) in the cache folder saves reading unchanged files again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::cache;
use super::decode::read_limited;
use super::synthetic;
use super::tree::Source;
use crate::error::{Error, Result};

/// How many files are hashed between two calls of the progress callback.
const AT_ONCE: usize = 256;
/// A file as young as this when hashed is hashed again next time: it may change without its time stamp changing.
const YOUNG: Duration = Duration::from_secs(3);

/// What a file looked like when it was hashed.
#[derive(Clone, Serialize, Deserialize)]
struct Stamp {
    len: u64,
    /// Modification time in nanoseconds since 1970.
    modified: u64,
    hash: String,
}

/// The content key of each source, or why its bytes cannot be read. `tick` is called now and then; its error stops.
pub(super) fn keys(
    sources: &[&Source],
    dir: Option<&Path>,
    tick: &mut dyn FnMut() -> Result<()>,
) -> Result<Vec<Result<String>>> {
    let origins = sources.iter().map(|source| source.origin().0);
    let files: Vec<&PathBuf> = origins.filter_map(|s| if let Source::File(p) = s { Some(p) } else { None }).collect();
    let index = dir.filter(|_| !files.is_empty()).map(|dir| index_path(dir, &files));
    let known: HashMap<PathBuf, Stamp> = index
        .as_ref()
        .and_then(|path| std::fs::read(path).ok())
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let mut keys = Vec::with_capacity(sources.len());
    let mut stamps: HashMap<&PathBuf, Stamp> = HashMap::new();
    let mut changed = false;
    for part in sources.chunks(AT_ONCE) {
        tick()?;
        let found: Vec<_> = part.par_iter().map(|source| key(source, &known)).collect();
        for (source, found) in part.iter().zip(found) {
            keys.push(found.map(|found| {
                if let ((Source::File(path), _), Some(stamp)) = (source.origin(), found.stamp) {
                    stamps.insert(path, stamp);
                }
                changed |= found.fresh;
                found.key
            }));
        }
    }
    if let Some(path) = index.filter(|_| changed) {
        // Without the index the files are only read again.
        let _ = serde_json::to_vec(&stamps).map(|json| cache::write_whole(&path, &json));
    }
    Ok(keys)
}

struct Found {
    key: String,
    /// The stamp to remember, if the file is old enough to be known by it.
    stamp: Option<Stamp>,
    /// Whether the file was read.
    fresh: bool,
}

fn key(source: &Source, known: &HashMap<PathBuf, Stamp>) -> Result<Found> {
    match source {
        Source::ZipEntry { name, crc32, len, .. } => {
            Ok(Found { key: format!("zip:{name}:{crc32:08x}:{len}"), stamp: None, fresh: false })
        }
        Source::Changed { of, change } => {
            let found = key(of, known)?;
            Ok(Found { key: format!("{} {}", found.key, change.key()), ..found })
        }
        Source::Synthetic { seed, index } => {
            let key = format!("synthetic:{}:{seed}:{index}", synthetic::VERSION);
            Ok(Found { key, stamp: None, fresh: false })
        }
        Source::File(path) => {
            let meta = std::fs::metadata(path).map_err(|e| Error::io("read", path, &e))?;
            let time = meta.modified().ok();
            let modified =
                time.and_then(|t| t.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_nanos() as u64);
            if let Some(stamp) = known.get(path).filter(|s| s.len == meta.len() && s.modified == modified) {
                return Ok(Found { key: file_key(&stamp.hash), stamp: Some(stamp.clone()), fresh: false });
            }
            let hash = blake3::hash(&read_limited(path)?).to_hex().to_string();
            let settled = time.is_some_and(|t| SystemTime::now().duration_since(t).is_ok_and(|age| age > YOUNG));
            let key = file_key(&hash);
            Ok(Found { key, stamp: settled.then_some(Stamp { len: meta.len(), modified, hash }), fresh: true })
        }
    }
}

/// Whether `bytes` of `source`, which is no changed copy, are what `key` says, or its beginning for one of a changed copy. Where
/// a file is hashed first and decoded then, it may be another in between; archives have their own checksums.
pub(super) fn is_of(key: &str, source: &Source, bytes: &[u8]) -> bool {
    !matches!(source, Source::File(_)) || key.starts_with(&file_key(blake3::hash(bytes).to_hex().as_str()))
}

fn file_key(hash: &str) -> String {
    format!("file:{hash}")
}

/// The index of a dataset: named by the list of its files, so datasets do not overwrite each other's.
fn index_path(dir: &Path, files: &[&PathBuf]) -> PathBuf {
    let mut hasher = blake3::Hasher::new();
    // Relative paths name other files when the program runs elsewhere.
    let here = std::env::current_dir().unwrap_or_default();
    hasher.update(here.as_os_str().as_encoded_bytes()).update(&[0]);
    for file in files {
        hasher.update(file.as_os_str().as_encoded_bytes()).update(&[0]);
    }
    dir.join(format!("{}.files.json", &hasher.finalize().to_hex()[..32]))
}
