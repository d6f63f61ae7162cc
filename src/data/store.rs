//! The decoded pixels of a dataset at one size: decoded once, kept in a cache file, read on demand.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::cache::{self, BadPicture, Footer, Opened, Writer};
use super::dataset::Dataset;
use super::decode::decode_rgb;
use super::faults::FaultKind;
use super::near::{self, Thumbnail};
use super::preprocess::Preparation;
use super::size::ImageSize;
use super::tree::{ReaderPool, Source, SourceReader};
use super::{content, masks, synthetic};
use crate::error::{Error, Kind, Result};

/// Names how pictures become pixels; changes whenever that does, so that no stale pixels are used.
const RECIPE: &str = "rgb8 exif-oriented triangle v3";
/// The same for masks.
const MASK_RECIPE: &str = "above 128, triangle, at least half";
/// Up to how many pictures are compared with each other: the time grows with the square.
const COMPARED: usize = 60_000;
/// How many pictures are decoded between two calls of the progress callback.
pub(super) const AT_ONCE: usize = 128;

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

/// The pixels of each sample of a dataset: RGB8, or RGBA8 with the mask in the alpha byte.
#[derive(Debug)]
pub struct PixelStore {
    size: ImageSize,
    /// Bytes of a pixel.
    channels: usize,
    pixels: Pixels,
    /// The number of each sample's picture among the pixels.
    slots: Vec<usize>,
    path: Option<PathBuf>,
    reused: bool,
    contents: String,
    notes: Vec<String>,
}

impl PixelStore {
    /// Decodes every picture of `dataset` and makes of it what `recipe` says, or finds that done in the cache. If the samples
    /// have masks, these are decoded too.
    ///
    /// `progress(done, total)` is called now and then, first with 0; an error it returns (an interruption, say) stops
    /// the work and is returned. With [`Dataset::skip_bad`], samples whose picture is bad are removed from `dataset`,
    /// with a note; and samples of different groups whose pictures look the same become one group. So split AFTER
    /// preparing.
    ///
    /// The cache file is known by the contents of the source images. It is safe to delete at any time; a damaged one
    /// is rebuilt; where the folder cannot be written, the pixels live in memory and a note says so.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a side outside 1..=4096; [`Kind::Data`] naming every picture and mask that cannot be read or
    /// decoded, and every fault of the listing; [`Kind::OutOfMemory`] if the pixels must live in memory and do not fit.
    pub fn prepare(
        dataset: &mut Dataset,
        recipe: impl Into<Preparation>,
        cache: Cache<'_>,
        progress: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<Self> {
        let recipe = recipe.into();
        let size = recipe.size;
        if !size.is_valid() {
            return Err(Error::new(Kind::Usage, format!("pictures of {size} pixels cannot be made"))
                .next(format!("choose a size {}", ImageSize::RANGE)));
        }
        let total = dataset.samples.len();
        let mut notes = Vec::new();
        let dir = usable_dir(cache, &mut notes);
        let sources: Vec<&Source> = dataset.samples.iter().map(|s| &s.source).collect();
        let masks: Vec<&Source> = dataset.samples.iter().filter_map(|s| s.mask.as_ref()).collect();
        let masked = !masks.is_empty();
        if masked && masks.len() != total {
            return Err(Error::new(Kind::Internal, format!("only {} of {total} pictures have a mask", masks.len())));
        }
        let keys = content::keys(&sources, dir.as_deref(), &mut || progress(0, total))?;
        let mask_keys = content::keys(&masks, dir.as_deref(), &mut || progress(0, total))?;

        // Unreadable sources have no content, so the pixels and their key are those of the readable ones.
        let mut bad: Vec<BadPicture> = Vec::new();
        let mut readable = Vec::with_capacity(total);
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{RECIPE} {size}{}\0", recipe.preprocess.key()).as_bytes());
        if masked {
            hasher.update(MASK_RECIPE.as_bytes()).update(&[0]);
        }
        let mut contents = blake3::Hasher::new();
        let mut wanted = Vec::with_capacity(total);
        let mut mask_keys = mask_keys.into_iter();
        for (sample, key) in keys.into_iter().enumerate() {
            let key = key.map_err(|error| BadPicture { slot: sample, mask: false, what: error.what().to_owned() });
            let mask = mask_keys.next().transpose().map_err(|error| BadPicture {
                slot: sample,
                mask: true,
                what: format!("the mask: {}", error.what()),
            });
            match key.and_then(|key| mask.map(|mask| (key, mask))) {
                Ok((key, mask)) => {
                    for key in [&key].into_iter().chain(&mask) {
                        hasher.update(key.as_bytes()).update(&[0]);
                        contents.update(key.as_bytes()).update(&[0]);
                    }
                    readable.push(sample);
                    wanted.push((key, mask));
                }
                Err(fault) => bad.push(fault),
            }
        }
        let job = Job {
            sources: readable.iter().map(|&i| (sources[i], masks.get(i).copied())).collect(),
            wanted,
            recipe,
            channels: if masked { 4 } else { 3 },
            key: hasher.finalize().to_hex().to_string(),
        };
        let made = job.run(dir.as_deref(), &mut notes, progress)?;
        let channels = job.channels;
        bad.extend(made.bad.iter().map(|fault| BadPicture { slot: readable[fault.slot], ..fault.clone() }));
        bad.sort_unstable();

        for fault in &bad {
            let sample = &dataset.samples[fault.slot];
            let (kind, place) = match &sample.mask {
                Some(mask) if fault.mask => (FaultKind::BadMask, mask),
                _ => (FaultKind::BadImage, &sample.source),
            };
            dataset.faults.push(kind, place, fault.what.as_str());
        }
        let is_bad = |sample: usize| bad.binary_search_by_key(&sample, |fault| fault.slot).is_ok();
        if dataset.skip_bad {
            let mut sample = 0..;
            dataset.samples.retain(|_| sample.next().is_some_and(|i| !is_bad(i)));
        }
        dataset.settle()?;
        let slots: Vec<usize> = (0..readable.len()).filter(|&slot| !is_bad(readable[slot])).collect();
        let sample_of = |slot: usize| slots.binary_search(&slot).ok();
        let twins = made.twins.iter().filter_map(|&(a, b)| sample_of(a).zip(sample_of(b)));
        dataset.unite(&twins.collect::<Vec<_>>());
        if readable.len() > COMPARED {
            notes.push(format!("images that look the same were not searched for among more than {COMPARED}"));
        }
        progress(total, total)?;
        let contents = contents.finalize().to_hex()[..32].to_owned();
        Ok(Self { size, channels, pixels: made.pixels, slots, path: made.path, reused: made.reused, contents, notes })
    }

    /// How many pictures there are: as many as the dataset has samples, in the same order.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no picture.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The size of each picture.
    pub fn size(&self) -> ImageSize {
        self.size
    }

    /// Bytes of a pixel: 3 for red, green, blue; 4 with the mask (255 inside, 0 outside).
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Bytes of a picture.
    fn picture(&self) -> usize {
        self.size.area() * self.channels
    }

    /// What a user should know: an unusable cache folder, a damaged cache file.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The cache file, if the pixels are in one.
    pub fn cache_path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// A hash of the contents of all pictures and masks that could be read, however they are decoded.
    pub fn contents(&self) -> &str {
        &self.contents
    }

    /// Whether the pixels were found in the cache, so that nothing was decoded.
    pub fn reused(&self) -> bool {
        self.reused
    }

    /// The pixels of sample `index`, shape `[height, width, channels]`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn pixels(&self, index: usize) -> Result<Vec<u8>> {
        let mut out = vec![0; self.picture()];
        self.read(index, &mut out)?;
        Ok(out)
    }

    /// Reads the pixels of sample `index` into `out`, shape `[height, width, channels]`.
    ///
    /// # Errors
    /// [`Kind::Io`] if the cache file can no longer be read; [`Kind::Internal`] for an index or a length that does not
    /// fit.
    pub fn read(&self, index: usize, out: &mut [u8]) -> Result<()> {
        let length = self.picture();
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
    /// Each with its mask, if there is one.
    sources: Vec<(&'a Source, Option<&'a Source>)>,
    /// The content keys of those.
    wanted: Vec<(String, Option<String>)>,
    recipe: Preparation,
    channels: usize,
    key: String,
}

/// Pictures decoded.
struct Made {
    pixels: Pixels,
    bad: Vec<BadPicture>,
    /// Pairs of pictures that look the same, by their numbers.
    twins: Vec<(usize, usize)>,
    path: Option<PathBuf>,
    reused: bool,
}

/// What decoding leaves beside the pixels.
struct Outcome {
    bad: Vec<BadPicture>,
    /// Whether the same contents must fail again.
    lasting: bool,
    /// How many pictures had other contents than those they are known by.
    changed: usize,
    twins: Vec<(usize, usize)>,
}

/// Why decoding stopped early.
enum Stop {
    /// The progress callback said so, or memory ran out.
    Error(Error),
    /// The cache file cannot be written.
    Write(io::Error),
}

impl Job<'_> {
    /// Bytes of a picture.
    fn picture(&self) -> usize {
        self.recipe.size.area() * self.channels
    }

    fn run(
        &self,
        dir: Option<&Path>,
        notes: &mut Vec<String>,
        progress: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<Made> {
        if let Some(dir) = dir {
            let path = dir.join(format!("{}-{}.pixels", &self.key[..32], self.recipe.size));
            match cache::open(&path, &self.key, self.picture(), self.sources.len()) {
                Opened::Intact(file, footer) => {
                    let pixels = Pixels::File(Mutex::new(file));
                    let Footer { bad, twins, .. } = footer;
                    return Ok(Made { pixels, bad, twins, path: Some(path), reused: true });
                }
                Opened::Damaged => notes.push(format!("the cache file {} was damaged and is rebuilt", path.display())),
                Opened::Absent => {}
            }
            match self.build_file(dir, &path, notes, progress) {
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
        notes: &mut Vec<String>,
        progress: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<Made, Stop> {
        let mut writer = Writer::create(dir).map_err(Stop::Write)?;
        let Outcome { bad, lasting, changed, twins } = self.decode(progress, &mut |pixels| writer.push(pixels))?;
        if changed > 0 {
            notes.push(format!("{changed} image(s) changed while they were read: the decoded pixels are not kept"));
        }
        // The key does not tell a damaged archive from its repaired twin, nor a bad disk from a good one, so an
        // outcome with unreadable pictures must not be found again.
        if !lasting || changed > 0 {
            let pixels = Pixels::File(Mutex::new(writer.finish_unnamed().map_err(Stop::Write)?));
            return Ok(Made { pixels, bad, twins, path: None, reused: false });
        }
        let footer = Footer { key: self.key.clone(), picture: self.picture(), count: self.sources.len(), bad, twins };
        let (file, named) = writer.finish(path, &footer).map_err(Stop::Write)?;
        let path = named.then(|| path.to_path_buf());
        let Footer { bad, twins, .. } = footer;
        Ok(Made { pixels: Pixels::File(Mutex::new(file)), bad, twins, path, reused: false })
    }

    fn build_in_memory(&self, progress: &mut dyn FnMut(usize, usize) -> Result<()>) -> Result<Made> {
        let needed = self.sources.len() * self.picture();
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
            Ok(Outcome { bad, twins, .. }) => {
                Ok(Made { pixels: Pixels::Memory(bytes), bad, twins, path: None, reused: false })
            }
            Err(Stop::Error(error)) => Err(error),
            Err(Stop::Write(error)) => Err(Error::new(Kind::Internal, format!("memory refused a write: {error}"))),
        }
    }

    /// Decodes all pictures in parallel and hands their pixels to `push` in order: zeros for those it returns as bad.
    fn decode(
        &self,
        progress: &mut dyn FnMut(usize, usize) -> Result<()>,
        push: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<Outcome, Stop> {
        let readers = ReaderPool::default();
        let zeros = vec![0; self.picture()];
        let compared = self.sources.len() <= COMPARED;
        let (mut bad, mut lasting, mut changed, mut thumbnails) = (Vec::new(), true, 0, Vec::new());
        for (part, sources) in self.sources.chunks(AT_ONCE).enumerate() {
            progress(part * AT_ONCE, self.sources.len()).map_err(Stop::Error)?;
            let load = |(i, (source, mask)): (usize, &(&Source, Option<&Source>))| {
                let slot = part * AT_ONCE + i;
                let wanted = &self.wanted[slot];
                readers.with(|reader| load(reader, source, *mask, wanted, &self.recipe)).map_err(|e| e.of(slot))
            };
            let pictures: Vec<Result<Loaded, Bad>> = sources.par_iter().enumerate().map(load).collect();
            for (i, picture) in pictures.into_iter().enumerate() {
                match picture {
                    Ok(Loaded { pixels, thumbnail, known }) => {
                        changed += usize::from(!known);
                        let thumbnail = thumbnail.filter(|_| compared);
                        thumbnails.extend(thumbnail.map(|thumbnail| (part * AT_ONCE + i, thumbnail)));
                        push(&pixels)
                    }
                    Err(error) => {
                        lasting &= error.lasting;
                        bad.push(error.fault);
                        push(&zeros)
                    }
                }
                .map_err(Stop::Write)?;
            }
        }
        let all: Vec<&Thumbnail> = thumbnails.iter().map(|(_, thumbnail)| thumbnail).collect();
        let total = self.sources.len();
        let pairs = near::pairs(&all, &mut |_| progress(total, total)).map_err(Stop::Error)?;
        let twins = pairs.iter().map(|pair| (thumbnails[pair.first].0, thumbnails[pair.second].0)).collect();
        Ok(Outcome { bad, lasting, changed, twins })
    }
}

/// Why a picture has no pixels.
struct Bad {
    fault: BadPicture,
    /// Whether the same content must fail again: it was read, but does not decode.
    lasting: bool,
}

impl Bad {
    fn new(mask: bool, lasting: bool, what: impl Into<String>) -> Self {
        Self { fault: BadPicture { slot: 0, mask, what: what.into() }, lasting }
    }

    /// Of the picture numbered `slot`.
    fn of(mut self, slot: usize) -> Self {
        self.fault.slot = slot;
        self
    }
}

/// A picture that was decoded.
struct Loaded {
    /// Shape `[height, width, channels]`, with the mask as the last channel if there is one.
    pixels: Vec<u8>,
    /// To find others that look the same, if there can be any.
    thumbnail: Option<Thumbnail>,
    /// Whether the files had the contents that they are known by.
    known: bool,
}

/// The pixels of one source, with its mask if there is one. `wanted` are their content keys.
fn load(
    reader: &mut SourceReader,
    source: &Source,
    mask: Option<&Source>,
    wanted: &(String, Option<String>),
    recipe: &Preparation,
) -> Result<Loaded, Bad> {
    let (origin, change) = source.origin();
    let mut known = true;
    let (picture, mask) = match origin {
        Source::Synthetic { seed, index } => {
            let (picture, drawn) = synthetic::render(*seed, *index, synthetic::side_for(recipe.size));
            (picture, mask.map(|_| drawn))
        }
        _ => {
            let bytes = reader.read(origin).map_err(|e| Bad::new(false, false, e.what()))?;
            known &= content::is_of(&wanted.0, origin, &bytes);
            let picture = decode_rgb(&bytes, &origin.to_string()).map_err(|e| Bad::new(false, true, e.what()))?;
            let decoded = mask.map(|mask| {
                let bytes = reader.read(mask).map_err(|e| Bad::new(true, false, format!("the mask: {}", e.what())))?;
                known &= wanted.1.as_ref().is_none_or(|key| content::is_of(key, mask, &bytes));
                masks::decode(&bytes, Some(picture.dimensions())).map_err(|what| Bad::new(true, true, what))
            });
            (picture, decoded.transpose()?)
        }
    };
    // Generated pictures are known to differ, and changed copies are of their original's lesion.
    let compared = change.is_none() && !matches!(origin, Source::Synthetic { .. });
    let thumbnail = compared.then(|| Thumbnail::of(&picture));
    let picture = match change {
        Some(change) => change.apply(picture),
        None => picture,
    };
    let mask = mask.map(|mask| masks::resize(recipe.preprocess.area(&picture).of(mask), recipe.size));
    let rgb = recipe.make(picture).into_raw();
    let pixels = match mask {
        None => rgb,
        Some(mask) => rgb.chunks_exact(3).zip(mask.as_raw()).flat_map(|(p, &a)| [p[0], p[1], p[2], a]).collect(),
    };
    Ok(Loaded { pixels, thumbnail, known })
}
