//! Balanced training sets: as many pictures of each class, by leaving some of frequent classes out and by adding changed
//! copies of those of rare ones.
//!
//! The first seven copies of a picture show one of seven named changes each: rotation (by up to 180 degrees either way),
//! mirroring left to right and top to bottom, zoom (0.8 to 1.2), shift (by up to a tenth of the sides), brightness and
//! contrast (times 0.8 to 1.2, contrast about middle grey). Further copies are turned as well, so that no two are equal.
//! What a turn or shift leaves open is filled with the mirrored picture.

use std::fmt;
use std::path::Path;

use image::{RgbImage, imageops};
use rayon::prelude::*;
use serde::Serialize;

use super::dataset::{Dataset, Sample, Split};
use super::decode::decode_rgb;
use super::delimited::csv_of;
use super::split::SplitAssignment;
use super::store::AT_ONCE;
use super::synthetic;
use super::tree::{ReaderPool, Source, SourceReader};
use crate::error::{Error, Kind, Result};
use crate::rng::{Stream, unit};

/// The name of the table in the folder that [`write_set`] makes.
pub(super) const TABLE: &str = "balanced.csv";
/// The side of generated pictures in pixels.
const SYNTHETIC_SIDE: usize = 224;
/// The quality of the JPEG files of changed pictures.
const QUALITY: u8 = 95;

/// One of the seven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    Rotation,
    HorizontalFlip,
    VerticalFlip,
    Zoom,
    Shift,
    Brightness,
    Contrast,
}

const NAMED: [Named; 7] = [
    Named::Rotation,
    Named::HorizontalFlip,
    Named::VerticalFlip,
    Named::Zoom,
    Named::Shift,
    Named::Brightness,
    Named::Contrast,
];

/// A change of a picture, with all that it draws at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    named: Named,
    /// Whether the picture is turned as well.
    turned: bool,
    /// Where its random numbers come from.
    seed: u32,
    counter: [u32; 2],
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.named {
            Named::Rotation => "rotation",
            Named::HorizontalFlip => "hflip",
            Named::VerticalFlip => "vflip",
            Named::Zoom => "zoom",
            Named::Shift => "shift",
            Named::Brightness => "brightness",
            Named::Contrast => "contrast",
        })?;
        if self.turned { f.write_str("-turned") } else { Ok(()) }
    }
}

impl Change {
    /// All that the result depends on but for the picture.
    pub(super) fn key(&self) -> String {
        format!("{self}:v1:{}:{}:{}", self.seed, self.counter[0], self.counter[1])
    }

    /// The changed picture, of the same size.
    pub(super) fn apply(&self, mut picture: RgbImage) -> RgbImage {
        let words = Stream::named(self.seed, "balance.change").words(self.counter);
        // Uniform in ±1.
        let [a, b] = words.map(|word| 2.0 * unit(word) - 1.0);
        let factor = 1.0 + 0.2 * a;
        let turn = if self.turned { std::f32::consts::PI * b } else { 0.0 };
        let still = Warp { angle: turn, scale: 1.0, shift: [0.0; 2] };
        let warp = match self.named {
            Named::Rotation => Warp { angle: std::f32::consts::PI * a, ..still },
            Named::Zoom => Warp { scale: factor, ..still },
            Named::Shift => Warp { shift: [0.1 * a, 0.1 * b], ..still },
            Named::HorizontalFlip | Named::VerticalFlip | Named::Brightness | Named::Contrast => still,
        };
        match self.named {
            Named::HorizontalFlip => imageops::flip_horizontal_in_place(&mut picture),
            Named::VerticalFlip => imageops::flip_vertical_in_place(&mut picture),
            Named::Brightness => picture.iter_mut().for_each(|v| *v = (f32::from(*v) * factor).round() as u8),
            Named::Contrast => {
                picture.iter_mut().for_each(|v| *v = ((f32::from(*v) - 127.5) * factor + 127.5).round() as u8);
            }
            Named::Rotation | Named::Zoom | Named::Shift => {}
        }
        if warp == (Warp { angle: 0.0, scale: 1.0, shift: [0.0; 2] }) { picture } else { warp.of(&picture) }
    }
}

/// An affine map about the picture's centre.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Warp {
    /// In radians.
    angle: f32,
    scale: f32,
    /// In shares of width and height.
    shift: [f32; 2],
}

impl Warp {
    /// The mapped picture: each pixel is sampled bilinearly where it comes from; outside, the picture is mirrored.
    fn of(self, picture: &RgbImage) -> RgbImage {
        let (width, height) = picture.dimensions();
        let centre = [(width - 1) as f32 / 2.0, (height - 1) as f32 / 2.0];
        let (sin, cos) = self.angle.sin_cos();
        RgbImage::from_fn(width, height, |x, y| {
            let dx = x as f32 - centre[0] - self.shift[0] * width as f32;
            let dy = y as f32 - centre[1] - self.shift[1] * height as f32;
            let sx = centre[0] + (cos * dx + sin * dy) / self.scale;
            let sy = centre[1] + (cos * dy - sin * dx) / self.scale;
            let (x0, y0) = (sx.floor(), sy.floor());
            let (fx, fy) = (sx - x0, sy - y0);
            let at = |dx: i64, dy: i64| {
                picture.get_pixel(mirrored(x0 as i64 + dx, width), mirrored(y0 as i64 + dy, height)).0.map(f32::from)
            };
            let [a, b, c, d] = [at(0, 0), at(1, 0), at(0, 1), at(1, 1)];
            image::Rgb(std::array::from_fn(|k| {
                let (top, bottom) = (a[k] + fx * (b[k] - a[k]), c[k] + fx * (d[k] - c[k]));
                (top + fy * (bottom - top)).round() as u8
            }))
        })
    }
}

/// A coordinate inside, by mirroring without repeating the border: `c b | a b c | b a`.
fn mirrored(at: i64, size: u32) -> u32 {
    let last = i64::from(size) - 1;
    if last == 0 {
        return 0;
    }
    let at = at.rem_euclid(2 * last);
    at.min(2 * last - at) as u32
}

/// Of the samples `indices`, `per_class` of each class that has any: of frequent ones a draw, of rare ones all of them and
/// changed copies of them in turn. Also those that the draw left out.
fn balanced(dataset: &Dataset, indices: &[usize], per_class: usize, seed: u32) -> [Vec<Sample>; 2] {
    let stream = Stream::named(seed, "balance");
    let (mut samples, mut unused) = (Vec::new(), Vec::new());
    for class in 0..dataset.classes.len() {
        let members: Vec<usize> = indices.iter().copied().filter(|&i| dataset.samples[i].label == class).collect();
        let order = stream.permutation(members.len(), class as u32);
        let mut drawn: Vec<usize> = order.iter().map(|&at| members[at]).collect();
        let (kept, left) = drawn.split_at_mut(per_class.min(members.len()));
        for (list, indices) in [(&mut samples, kept), (&mut unused, left)] {
            indices.sort_unstable();
            list.extend(indices.iter().map(|&i| dataset.samples[i].clone()));
        }
        if members.is_empty() {
            continue;
        }
        for copy in 0..per_class.saturating_sub(members.len()) {
            let (round, turn) = (copy / members.len(), order[copy % members.len()]);
            let sample = &dataset.samples[members[turn]];
            let change = Change {
                named: NAMED[(turn + round) % NAMED.len()],
                turned: round >= NAMED.len(),
                seed,
                counter: [copy as u32, class as u32],
            };
            let id = format!("{}~{}-{change}", sample.id, round + 1);
            let source = Source::Changed { of: Box::new(sample.source.clone()), change };
            samples.push(Sample { id, source, ..sample.clone() });
        }
    }
    [samples, unused]
}

/// Balances a dataset as a whole, so that a split that is drawn afterwards has copies of one picture in several parts.
pub fn balance_all(dataset: &mut Dataset, per_class: usize, seed: u32) {
    let all: Vec<usize> = (0..dataset.samples.len()).collect();
    let [samples, unused] = balanced(dataset, &all, per_class, seed);
    dataset.samples = samples;
    dataset.unused.extend(unused);
}

/// Balances the training samples of a dataset that is split already; the others stay as they are.
pub fn balance_train(dataset: &mut Dataset, split: &mut SplitAssignment, per_class: usize, seed: u32) {
    let [train, unused] = balanced(dataset, &split.train, per_class, seed);
    let of = |indices: &[usize]| indices.iter().map(|&i| dataset.samples[i].clone()).collect::<Vec<_>>();
    let (val, test) = (of(&split.val), of(&split.test));
    let ends = [train.len(), train.len() + val.len(), train.len() + val.len() + test.len()];
    dataset.samples = [train, val, test].into_iter().flatten().collect();
    dataset.unused.extend(unused);
    (split.train, split.val) = ((0..ends[0]).collect(), (ends[0]..ends[1]).collect());
    split.test = (ends[1]..ends[2]).collect();
}

/// Writes the pictures of a dataset that is split into the new folder `out`: `train/CLASS/`, `val/CLASS/`, `test/CLASS/`,
/// and a table `balanced.csv` that a training reads. Pictures that are not changed are copied as they are.
///
/// # Errors
/// [`Kind::Usage`] if `out` holds anything, [`Kind::Data`] for a picture that cannot be read, [`Kind::Io`], and those of
/// `progress`. Then nothing is left behind.
pub fn write_set(
    dataset: &Dataset,
    split: &SplitAssignment,
    out: &Path,
    progress: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<()> {
    if std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) || out.is_file() {
        return Err(Error::new(Kind::Usage, "the output exists, and is not overwritten")
            .at(out.display())
            .next("name another folder with --out"));
    }
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |e: &std::io::Error| Error::io("write the balanced set", out, e);
    std::fs::create_dir_all(parent).map_err(|e| failed(&e))?;
    let folder = tempfile::Builder::new().prefix(".balancing-").tempdir_in(parent).map_err(|e| failed(&e))?;
    let mut rows: Vec<(usize, Split)> = Vec::with_capacity(dataset.samples.len());
    for part in [Split::Train, Split::Val, Split::Test] {
        for class in &dataset.classes {
            let place = folder.path().join(part.to_string()).join(file_name(class));
            std::fs::create_dir_all(place).map_err(|e| failed(&e))?;
        }
        rows.extend(split.indices(part).iter().map(|&i| (i, part)));
    }
    let readers = ReaderPool::default();
    let mut table = Vec::with_capacity(rows.len());
    for (done, rows_at_once) in rows.chunks(AT_ONCE).enumerate() {
        progress(done * AT_ONCE, rows.len())?;
        let written: Vec<Result<String>> = rows_at_once
            .par_iter()
            .map(|&(i, part)| {
                let sample = &dataset.samples[i];
                let (bytes, ending) = readers.with(|reader| file_of(reader, &sample.source))?;
                let name = format!("{part}/{}/{}", file_name(&dataset.classes[sample.label]), file_name(&sample.id));
                let name = if name.ends_with(&format!(".{ending}")) { name } else { format!("{name}.{ending}") };
                std::fs::write(folder.path().join(&name), bytes).map_err(|e| failed(&e))?;
                Ok(name)
            })
            .collect();
        for (&(i, part), name) in rows_at_once.iter().zip(written) {
            let sample = &dataset.samples[i];
            let classes: Vec<&str> = sample.all_labels().iter().map(|&c| dataset.classes[c].as_str()).collect();
            let age = sample.patient.age.map_or(String::new(), |age| age.to_string());
            let row = [name?, classes.join("|"), sample.group.clone(), part.to_string(), age];
            let patient = [sample.patient.sex.clone(), sample.patient.site.clone()];
            table.push(row.into_iter().chain(patient));
        }
    }
    let table = csv_of(["path", "label", "group", "split", "age", "sex", "site"], table)?;
    std::fs::write(folder.path().join(TABLE), table).map_err(|e| failed(&e))?;
    progress(rows.len(), rows.len())?;
    // An empty folder may stand in the way.
    let _ = std::fs::remove_dir(out);
    std::fs::rename(folder.path(), out).map_err(|e| failed(&e))?;
    // It has another name now.
    let _ = folder.keep();
    Ok(())
}

/// A name as a file may have it.
fn file_name(name: &str) -> String {
    let safe = |c: char| if c.is_alphanumeric() || "-_.~ ".contains(c) { c } else { '_' };
    name.chars().map(safe).collect()
}

/// The bytes of a picture's file, and its ending.
fn file_of(reader: &mut SourceReader, source: &Source) -> Result<(Vec<u8>, String)> {
    let (origin, change) = source.origin();
    let picture = match origin {
        Source::Synthetic { seed, index } => synthetic::render(*seed, *index, SYNTHETIC_SIDE).0,
        _ => {
            let bytes = reader.read(origin)?;
            if change.is_none() {
                let format = image::guess_format(&bytes).ok();
                let ending = format.and_then(|f| f.extensions_str().first()).copied().unwrap_or("jpg");
                return Ok((bytes, ending.to_owned()));
            }
            decode_rgb(&bytes, &origin.to_string())?
        }
    };
    let picture = change.map_or_else(|| picture.clone(), |change| change.apply(picture.clone()));
    let mut bytes = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, QUALITY);
    picture
        .write_with_encoder(encoder)
        .map_err(|e| Error::new(Kind::Internal, format!("could not encode a picture: {e}")))?;
    Ok((bytes, "jpg".to_owned()))
}

/// What a balanced set holds, for reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// Class name.
    pub class: String,
    /// Pictures as they are.
    pub originals: usize,
    /// Changed copies.
    pub copies: usize,
}

/// How many originals and copies each class has among the samples `indices`.
pub fn balance_of(dataset: &Dataset, indices: &[usize]) -> Vec<Balance> {
    let count = |class: usize, changed: bool| {
        let is = |&&i: &&usize| {
            let sample = &dataset.samples[i];
            sample.label == class && matches!(sample.source, Source::Changed { .. }) == changed
        };
        indices.iter().filter(is).count()
    };
    let of = |(class, name): (usize, &String)| Balance {
        class: name.clone(),
        originals: count(class, false),
        copies: count(class, true),
    };
    dataset.classes.iter().enumerate().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> RgbImage {
        RgbImage::from_fn(31, 21, |x, y| image::Rgb([(x * 8) as u8, (y * 12) as u8, ((x + y) * 4) as u8]))
    }

    fn change(named: Named, turned: bool, number: u32) -> Change {
        Change { named, turned, seed: 1, counter: [number, 0] }
    }

    #[test]
    fn every_change_changes_the_picture_and_keeps_its_size() {
        for named in NAMED {
            for turned in [false, true] {
                let one = change(named, turned, 3);
                let changed = one.apply(picture());
                assert_eq!(changed.dimensions(), (31, 21));
                assert_ne!(changed, picture(), "{one}");
                assert_eq!(changed, one.apply(picture()), "{one} is not the same each time");
                let other = change(named, turned, 4).apply(picture());
                let fixed = !turned && matches!(named, Named::HorizontalFlip | Named::VerticalFlip);
                assert_eq!(other == changed, fixed, "{one}");
                assert_eq!(one.apply(RgbImage::new(1, 1)).dimensions(), (1, 1));
            }
        }
    }

    #[test]
    fn a_turn_by_half_a_circle_is_both_flips_and_a_mirror_fills_what_is_open() {
        let half = Warp { angle: std::f32::consts::PI, scale: 1.0, shift: [0.0; 2] }.of(&picture());
        let both = imageops::rotate180(&picture());
        let differ = half.iter().zip(both.iter()).filter(|(a, b)| a.abs_diff(**b) > 1).count();
        assert_eq!(differ, 0);
        assert_eq!([-2, -1, 0, 1, 2, 3, 4, 5].map(|at| mirrored(at, 4)), [2, 1, 0, 1, 2, 3, 2, 1]);
    }
}
