//! The decoded pixels of a dataset at one size: decoded once, kept in a cache file, read on demand.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::cache::{self, Footer, Opened, Writer};
use super::dataset::Dataset;
use super::decode::{decode_rgb, resize_rgb};
use super::faults::FaultKind;
use super::tree::{ReaderPool, Source, SourceReader};
use super::{content, synthetic};
use crate::error::{Error, Kind, Result};

/// Names how pictures become pixels; changes whenever that does, so that no stale pixels are used.
const RECIPE: &str = "rgb8 exif-oriented triangle v1";
/// The largest side of pictures, in pixels.
const MAX_SIZE: usize = 4096;
/// How many pictures are decoded between two calls of the progress callback.
const AT_ONCE: usize = 128;

/// Where decoded pixels are kept between runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cache<'a> {
    /// In the folder `lesion-gpu` of the platform's cache location (`~/.cache`, `~/Library/Caches`, `%LOCALAPPDATA%`).
    Default,
    /// In this folder, which is made if need be.
    Dir(&'a Path),
    /// Nowhere: the pixels live in memory.
    Off,
}

impl Cache<'_> {
    /// The folder, or `None` where there is none.
    pub fn dir(&self) -> Option<PathBuf> {
        match self {
            Self::Default => dirs::cache_dir().map(|dir| dir.join("lesion-gpu")),
            Self::Dir(dir) => Some(dir.to_path_buf()),
            Self::Off => None,
        }
    }
}

#[derive(Debug)]
enum Pixels {
    /// One handle for all threads: a read is a copy from the page cache, far shorter than what is done with it.
    File(Mutex<File>),
    Memory(Vec<u8>),
}

/// The pixels of each sample of a dataset: RGB8, `size` x `size`.
#[derive(Debug)]
pub struct PixelStore {
    size: usize,
    pixels: Pixels,
    /// The number of each sample's picture among the pixels.
    slots: Vec<usize>,
    path: Option<PathBuf>,
    reused: bool,
    notes: Vec<String>,
}

impl PixelStore {
    /// Decodes and resizes every picture of `dataset` to `size` x `size`, or finds that done in the cache.
    ///
    /// `progress(done, total)` is called now and then, first with 0; an error it returns (an interruption, say) stops
    /// the work and is returned. With [`Dataset::skip_bad`], samples whose picture is bad are removed from `dataset`,
    /// with a note; so split AFTER preparing.
    ///
    /// The cache file is known by the contents of the source images. It is safe to delete at any time; a damaged one
    /// is rebuilt; where the folder cannot be written, the pixels live in memory and a note says so.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a size outside 1..=4096; [`Kind::Data`] naming every picture that cannot be read or
    /// decoded, and every fault of the listing; [`Kind::OutOfMemory`] if the pixels must live in memory and do not fit.
    pub fn prepare(
        dataset: &mut Dataset,
        size: usize,
        cache: Cache<'_>,
        progress: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<Self> {
        if !(1..=MAX_SIZE).contains(&size) {
            return Err(Error::new(Kind::Usage, format!("pictures of {size}x{size} pixels cannot be made"))
                .next(format!("choose a size from 1 to {MAX_SIZE}")));
        }
        let total = dataset.samples.len();
        let mut notes = Vec::new();
        let dir = usable_dir(cache, &mut notes);
        let sources: Vec<&Source> = dataset.samples.iter().map(|s| &s.source).collect();
        let keys = content::keys(&sources, dir.as_deref(), &mut || progress(0, total))?;

        // Unreadable sources have no content, so the pixels and their key are those of the readable ones.
        let mut bad: Vec<(usize, String)> = Vec::new();
        let mut readable = Vec::with_capacity(total);
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{RECIPE} {size}\0").as_bytes());
        for (sample, key) in keys.into_iter().enumerate() {
            match key {
                Ok(key) => {
                    hasher.update(key.as_bytes()).update(&[0]);
                    readable.push(sample);
                }
                Err(error) => bad.push((sample, error.what().to_owned())),
            }
        }
        let job = Job {
            sources: readable.iter().map(|&i| sources[i]).collect(),
            size,
            key: hasher.finalize().to_hex().to_string(),
        };
        let made = job.run(dir.as_deref(), &mut notes, progress)?;
        bad.extend(made.bad.iter().map(|(slot, what)| (readable[*slot], what.clone())));
        bad.sort_unstable();

        for (sample, what) in &bad {
            dataset.faults.push(FaultKind::BadImage, &dataset.samples[*sample].source, what.as_str());
        }
        let is_bad = |sample: usize| bad.binary_search_by_key(&sample, |(i, _)| *i).is_ok();
        if dataset.skip_bad {
            let mut sample = 0..;
            dataset.samples.retain(|_| sample.next().is_some_and(|i| !is_bad(i)));
        }
        dataset.settle()?;
        let slots = (0..readable.len()).filter(|&slot| !is_bad(readable[slot])).collect();
        progress(total, total)?;
        Ok(Self { size, pixels: made.pixels, slots, path: made.path, reused: made.reused, notes })
    }

    /// How many pictures there are: as many as the dataset has samples, in the same order.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no picture.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The side of each picture in pixels.
    pub fn size(&self) -> usize {
        self.size
    }

    /// What a user should know: an unusable cache folder, a damaged cache file.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The cache file, if the pixels are in one.
    pub fn cache_path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Whether the pixels were found in the cache, so that nothing was decoded.
    pub fn reused(&self) -> bool {
        self.reused
    }

    /// The pixels of sample `index`, shape `[size, size, 3]`.
    ///
    /// # Errors
    /// As [`Self::read_rgb`].
    pub fn rgb(&self, index: usize) -> Result<Vec<u8>> {
        let mut out = vec![0; self.size * self.size * 3];
        self.read_rgb(index, &mut out)?;
        Ok(out)
    }

    /// Reads the pixels of sample `index` into `out`, shape `[size, size, 3]`.
    ///
    /// # Errors
    /// [`Kind::Io`] if the cache file can no longer be read; [`Kind::Internal`] for an index or a length that does not
    /// fit.
    pub fn read_rgb(&self, index: usize, out: &mut [u8]) -> Result<()> {
        let length = self.size * self.size * 3;
        let slot = self.slots.get(index).filter(|_| out.len() == length).ok_or_else(|| {
            let what = format!("picture {index} of {} asked for in {} bytes of {length}", self.len(), out.len());
            Error::new(Kind::Internal, what)
        })?;
        match &self.pixels {
            Pixels::Memory(bytes) => out.copy_from_slice(&bytes[slot * length..][..length]),
            Pixels::File(file) => {
                // Each read seeks first, so a thread that panicked in between left nothing half done.
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                cache::read_picture(&mut file, *slot, out).map_err(|e| {
                    Error::io("read the pixel cache", self.path.as_deref().unwrap_or(Path::new("(temporary)")), &e)
                })?;
            }
        }
        Ok(())
    }
}

/// The cache folder, made and found writable; else a note says why the pixels live in memory.
fn usable_dir(cache: Cache<'_>, notes: &mut Vec<String>) -> Option<PathBuf> {
    if cache == Cache::Off {
        return None;
    }
    let Some(dir) = cache.dir() else {
        notes.push("this system names no cache folder: decoded pixels are kept in memory".to_owned());
        return None;
    };
    match std::fs::create_dir_all(&dir) {
        Ok(()) => Some(dir),
        Err(e) => {
            notes.push(in_memory(&dir, &e));
            None
        }
    }
}

fn in_memory(dir: &Path, why: &io::Error) -> String {
    format!("the cache folder {} cannot be written ({why}): decoded pixels are kept in memory", dir.display())
}

/// Pictures to decode.
struct Job<'a> {
    sources: Vec<&'a Source>,
    size: usize,
    key: String,
}

/// Pictures decoded.
struct Made {
    pixels: Pixels,
    bad: Vec<(usize, String)>,
    path: Option<PathBuf>,
    reused: bool,
}

/// Why decoding stopped early.
enum Stop {
    /// The progress callback said so, or memory ran out.
    Error(Error),
    /// The cache file cannot be written.
    Write(io::Error),
}

impl Job<'_> {
    fn run(
        &self,
        dir: Option<&Path>,
        notes: &mut Vec<String>,
        progress: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<Made> {
        if let Some(dir) = dir {
            let path = dir.join(format!("{}-{}.pixels", &self.key[..32], self.size));
            match cache::open(&path, &self.key, self.size, self.sources.len()) {
                Opened::Intact(file, footer) => {
                    let pixels = Pixels::File(Mutex::new(file));
                    return Ok(Made { pixels, bad: footer.bad, path: Some(path), reused: true });
                }
                Opened::Damaged => notes.push(format!("the cache file {} was damaged and is rebuilt", path.display())),
                Opened::Absent => {}
            }
            match self.build_file(dir, &path, progress) {
                Ok(made) => return Ok(made),
                Err(Stop::Error(error)) => return Err(error),
                Err(Stop::Write(why)) => notes.push(in_memory(dir, &why)),
            }
        }
        self.build_in_memory(progress)
    }

    fn build_file(
        &self,
        dir: &Path,
        path: &Path,
        progress: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<Made, Stop> {
        let mut writer = Writer::create(dir).map_err(Stop::Write)?;
        let errors = self.decode(progress, &mut |pixels| writer.push(pixels))?;
        // The key does not tell a damaged archive from its repaired twin, nor a bad disk from a good one, so an
        // outcome with unreadable pictures must not be found again.
        let lasting = errors.iter().all(|(_, bad)| bad.lasting);
        let bad = in_words(errors);
        if !lasting {
            let pixels = Pixels::File(Mutex::new(writer.finish_unnamed().map_err(Stop::Write)?));
            return Ok(Made { pixels, bad, path: None, reused: false });
        }
        let footer = Footer { key: self.key.clone(), size: self.size, count: self.sources.len(), bad };
        let (file, named) = writer.finish(path, &footer).map_err(Stop::Write)?;
        let path = named.then(|| path.to_path_buf());
        Ok(Made { pixels: Pixels::File(Mutex::new(file)), bad: footer.bad, path, reused: false })
    }

    fn build_in_memory(&self, progress: &mut dyn FnMut(usize, usize) -> Result<()>) -> Result<Made> {
        let needed = self.sources.len() * self.size * self.size * 3;
        let mut bytes: Vec<u8> = Vec::new();
        bytes.try_reserve_exact(needed).map_err(|_| {
            let what = format!("the decoded pixels take {} MiB, and no cache folder can hold them", needed >> 20);
            Error::new(Kind::OutOfMemory, what).next("name a cache folder on a disk with space, or a smaller size")
        })?;
        let outcome = self.decode(progress, &mut |pixels| {
            bytes.extend_from_slice(pixels);
            Ok(())
        });
        match outcome {
            Ok(errors) => Ok(Made { pixels: Pixels::Memory(bytes), bad: in_words(errors), path: None, reused: false }),
            Err(Stop::Error(error)) => Err(error),
            Err(Stop::Write(error)) => Err(Error::new(Kind::Internal, format!("memory refused a write: {error}"))),
        }
    }

    /// Decodes all pictures in parallel and hands their pixels to `push` in order: zeros for those it returns as bad.
    fn decode(
        &self,
        progress: &mut dyn FnMut(usize, usize) -> Result<()>,
        push: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<Vec<(usize, Bad)>, Stop> {
        let readers = ReaderPool::default();
        let zeros = vec![0; self.size * self.size * 3];
        let mut bad = Vec::new();
        for (part, sources) in self.sources.chunks(AT_ONCE).enumerate() {
            progress(part * AT_ONCE, self.sources.len()).map_err(Stop::Error)?;
            let load = |source: &&Source| readers.with(|reader| load(reader, source, self.size));
            let pictures: Vec<Result<Vec<u8>, Bad>> = sources.par_iter().map(load).collect();
            for (i, picture) in pictures.into_iter().enumerate() {
                match picture {
                    Ok(pixels) => push(&pixels),
                    Err(error) => {
                        bad.push((part * AT_ONCE + i, error));
                        push(&zeros)
                    }
                }
                .map_err(Stop::Write)?;
            }
        }
        Ok(bad)
    }
}

/// Why a picture has no pixels.
struct Bad {
    error: Error,
    /// Whether the same content must fail again: it was read, but does not decode.
    lasting: bool,
}

fn in_words(bad: Vec<(usize, Bad)>) -> Vec<(usize, String)> {
    bad.into_iter().map(|(slot, bad)| (slot, bad.error.what().to_owned())).collect()
}

/// The pixels of one source, shape `[size, size, 3]`.
fn load(reader: &mut SourceReader, source: &Source, size: usize) -> Result<Vec<u8>, Bad> {
    if let Source::Synthetic { seed, index } = source {
        return Ok(synthetic::render(*seed, *index, size).0.into_raw());
    }
    let bytes = reader.read(source).map_err(|error| Bad { error, lasting: false })?;
    let picture = decode_rgb(&bytes, &source.to_string()).map_err(|error| Bad { error, lasting: true })?;
    Ok(resize_rgb(picture, size).into_raw())
}
