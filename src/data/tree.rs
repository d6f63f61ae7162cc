//! One listing for a folder and a zip archive, and how the bytes of a source are read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::archive::{Archive, Zip};
use super::balance::Change;
use super::decode::{MAX_BYTES, is_image_name, read_limited};
use super::masks;
use crate::error::{Error, Kind, Result};

/// How deep folders are searched: archives are often unpacked into a folder or two of their own.
const MAX_DEPTH: usize = 6;
/// How deep archives in archives are looked into.
const MAX_NESTING: usize = 2;

/// Where a sample's picture comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An image file.
    File(PathBuf),
    /// An entry of a zip archive, read without unpacking the archive.
    ZipEntry {
        /// The archive; shared by all its entries.
        archive: Arc<Archive>,
        /// The entry's index in the archive's directory.
        index: usize,
        /// The entry's name, as the archive spells it.
        name: String,
        /// CRC-32 of the unpacked bytes, as the archive states it.
        crc32: u32,
        /// Length of the unpacked bytes, as the archive states it.
        len: u64,
    },
    /// A generated picture: number `index` of the generator's `seed`.
    Synthetic {
        /// The generator's seed.
        seed: u32,
        /// The picture's number.
        index: u64,
    },
    /// A changed copy of another picture.
    Changed {
        /// The other picture.
        of: Box<Source>,
        /// The change.
        change: Change,
    },
}

impl Source {
    /// The picture that it is, or is a changed copy of, and the change.
    pub(super) fn origin(&self) -> (&Self, Option<Change>) {
        match self {
            Self::Changed { of, change } => (of.origin().0, Some(*change)),
            _ => (self, None),
        }
    }
}

impl std::fmt::Display for Source {
    /// The file's path, `archive!entry`, or `synthetic picture N`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::ZipEntry { archive, name, .. } => write!(f, "{archive}!{name}"),
            Self::Synthetic { index, .. } => write!(f, "synthetic picture {index}"),
            Self::Changed { of, change } => write!(f, "{of} ({change})"),
        }
    }
}

/// One file of a [`Tree`].
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Path below the root with forward slashes.
    pub path: String,
    /// Length in bytes.
    pub len: u64,
    pub source: Source,
}

impl Entry {
    /// The file name without its folders.
    pub fn file_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// The file name without folders and last extension.
    pub fn stem(&self) -> &str {
        let name = self.file_name();
        name.rsplit_once('.').map_or(name, |(stem, _)| stem)
    }
}

/// The files below a folder or in a zip archive, sorted by path. Hidden files and `__MACOSX` twins are left out.
pub(super) struct Tree {
    pub entries: Vec<Entry>,
}

impl Tree {
    /// Lists `root`: a folder, or a zip archive. Archives in it for which `look_into` holds (asked with the lower case
    /// file name) are listed as if they were folders, and all archives if there is no picture outside of them.
    pub fn list(root: &Path, look_into: impl Fn(&str) -> bool) -> Result<Self> {
        let mut entries = Vec::new();
        if root.is_dir() {
            list_folder(root, "", &mut vec![], &mut entries)?;
        } else {
            list_zip(&Arc::new(Archive::at(root)), "", &mut entries)?;
        }
        for _ in 0..MAX_NESTING {
            let no_picture = !entries.iter().any(|e| is_image_name(&e.path));
            let wanted = |e: &Entry| {
                let name = e.file_name().to_ascii_lowercase();
                name.ends_with(".zip") && (no_picture || look_into(&name))
            };
            let (archives, files) = entries.into_iter().partition::<Vec<_>, _>(wanted);
            entries = files;
            for inner in &archives {
                list_zip(&Arc::new(Archive::of(&inner.source)?), &format!("{}/", inner.path), &mut entries)?;
            }
        }
        Ok(Self { entries }.sorted())
    }

    /// Without what is no picture.
    pub fn pictures_only(mut self) -> Self {
        self.entries.retain(|e| is_image_name(&e.path));
        self
    }

    /// With the files of another tree.
    pub fn and(mut self, other: Self) -> Self {
        self.entries.extend(other.entries);
        self.sorted()
    }

    fn sorted(mut self) -> Self {
        self.entries.sort_by(|a, b| a.path.cmp(&b.path));
        self
    }

    /// The files that are pictures and no masks by their names.
    pub fn pictures(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|e| is_image_name(&e.path) && masks::id_of(e.stem()).is_none())
    }

    /// The pictures by their file names without endings. Of two with one name the first by path counts.
    pub fn pictures_by_id(&self, notes: &mut Vec<String>) -> BTreeMap<&str, &Entry> {
        let mut images: BTreeMap<&str, &Entry> = BTreeMap::new();
        let mut unlike = BTreeSet::new();
        for entry in self.pictures() {
            let first = *images.entry(entry.stem()).or_insert(entry);
            if !same_content(first, entry) {
                unlike.insert(entry.stem());
            }
        }
        if let Some(first) = unlike.first() {
            notes.push(format!(
                "{} image id(s) occur with different contents, for example {first}; the first by path is used",
                unlike.len()
            ));
        }
        images
    }

    /// What the tree holds in a few words, for an error that says what was found.
    pub fn describe(&self) -> String {
        let mut endings: HashMap<String, usize> = HashMap::new();
        for entry in &self.entries {
            let ending = entry.file_name().rsplit_once('.').map_or("(no ending)".to_owned(), |(_, e)| format!(".{e}"));
            *endings.entry(ending).or_default() += 1;
        }
        let mut endings: Vec<(String, usize)> = endings.into_iter().collect();
        endings.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let shown: Vec<String> = endings.iter().take(5).map(|(ending, n)| format!("{n} {ending}")).collect();
        match self.entries.len() {
            0 => "no files".to_owned(),
            n => format!("{n} files ({})", shown.join(", ")),
        }
    }
}

fn hidden(path: &str) -> bool {
    path.split('/').any(|part| part.starts_with('.') || part == "__MACOSX")
}

/// `above` are the folders that it lies in, the outermost first, without links.
fn list_folder(folder: &Path, prefix: &str, above: &mut Vec<PathBuf>, entries: &mut Vec<Entry>) -> Result<()> {
    let here = std::fs::canonicalize(folder).map_err(|e| Error::io("read", folder, &e))?;
    // A link to a folder that it lies in would show each picture again in every turn.
    if above.contains(&here) {
        return Ok(());
    }
    above.push(here);
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io("read", folder, &e))? {
        let entry = entry.map_err(|e| Error::io("read", folder, &e))?;
        let name = in_unicode(&entry.file_name());
        if hidden(&name) {
            continue;
        }
        let path = entry.path();
        let relative = format!("{prefix}{name}");
        // Follows links; one that leads nowhere is no file.
        match std::fs::metadata(&path) {
            Ok(meta) if meta.is_dir() && above.len() <= MAX_DEPTH => {
                list_folder(&path, &format!("{relative}/"), above, entries)?;
            }
            Ok(meta) if meta.is_file() => {
                entries.push(Entry { path: relative, len: meta.len(), source: Source::File(path) });
            }
            _ => {}
        }
    }
    above.pop();
    Ok(())
}

/// A file name as text. Bytes that are no UTF-8 are spelled `%E9`, so that two names do not become one.
fn in_unicode(name: &OsStr) -> String {
    let mut text = String::new();
    for part in name.as_encoded_bytes().utf8_chunks() {
        text += part.valid();
        part.invalid().iter().for_each(|byte| text += &format!("%{byte:02X}"));
    }
    text
}

/// Whether two entries hold the same bytes, as far as the listing tells.
fn same_content(a: &Entry, b: &Entry) -> bool {
    match (&a.source, &b.source) {
        (Source::ZipEntry { crc32: x, .. }, Source::ZipEntry { crc32: y, .. }) => a.len == b.len && x == y,
        _ => a.len == b.len,
    }
}

fn list_zip(archive: &Arc<Archive>, prefix: &str, entries: &mut Vec<Entry>) -> Result<()> {
    let zip = archive.open()?;
    for index in 0..zip.len() {
        // From the directory alone: opening the entries would seek through the whole archive.
        let entry = zip.by_index_data(index).map_err(|e| archive.error(&e))?;
        let name = String::from_utf8_lossy(entry.name_raw()).replace('\\', "/");
        if entry.is_file() && !hidden(&name) {
            let (crc32, len) = (entry.crc32(), entry.size());
            let source = Source::ZipEntry { archive: archive.clone(), index, name: name.clone(), crc32, len };
            entries.push(Entry { path: format!("{prefix}{name}"), len, source });
        }
    }
    Ok(())
}

/// Reads the bytes of sources. It keeps archives open, so each worker thread should have one of its own.
#[derive(Default)]
pub(super) struct SourceReader {
    archives: HashMap<Arc<Archive>, Zip>,
}

impl SourceReader {
    /// The bytes of `source`; a zip entry must have the length and CRC-32 the archive states.
    pub fn read(&mut self, source: &Source) -> Result<Vec<u8>> {
        match source {
            Source::File(path) => read_limited(path),
            Source::ZipEntry { archive, index, len, .. } => {
                let zip = match self.archives.entry(archive.clone()) {
                    std::collections::hash_map::Entry::Occupied(open) => open.into_mut(),
                    std::collections::hash_map::Entry::Vacant(slot) => slot.insert(archive.open()?),
                };
                let corrupt = |what: String| {
                    Error::new(Kind::Data, what).at(source).next("download the archive again, or repair it")
                };
                if *len > MAX_BYTES {
                    return Err(corrupt(format!("the entry claims {len} bytes, more than any image here should have")));
                }
                let entry = zip.by_index(*index).map_err(|e| archive.error(&e))?;
                // One byte more than stated: an entry that unpacks to more is caught, and no more of it is unpacked.
                // The capacity is no promise of the archive's, which may lie.
                let mut bytes = Vec::with_capacity((*len).min(1 << 20) as usize);
                let outcome = entry.take(len + 1).read_to_end(&mut bytes);
                outcome.map_err(|e| corrupt(format!("the entry is corrupt or truncated: {e}")))?;
                if bytes.len() as u64 != *len {
                    return Err(corrupt(format!("the entry does not unpack to the {len} bytes the archive states")));
                }
                Ok(bytes)
            }
            Source::Synthetic { .. } | Source::Changed { .. } => {
                Err(Error::new(Kind::Internal, "a generated picture has no bytes to read").at(source))
            }
        }
    }
}

/// Readers that worker threads borrow, so that an archive is opened once a thread and not once a picture.
#[derive(Default)]
pub(super) struct ReaderPool {
    idle: Mutex<Vec<SourceReader>>,
}

impl ReaderPool {
    /// Runs `work` with an idle reader, or a new one.
    pub fn with<T>(&self, work: impl FnOnce(&mut SourceReader) -> T) -> T {
        // A poisoned list is still a list: pushing and popping cannot leave it half done.
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut reader = idle.unwrap_or_default();
        let result = work(&mut reader);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
        result
    }
}
