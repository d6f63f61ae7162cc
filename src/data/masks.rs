//! Masks of lesions: found beside their pictures or in a place of their own, and decoded.
//!
//! A mask is a picture of its own, black outside the lesion and white inside. It counts as inside where its value is
//! above 128, the rule of ISIC 2018 Task 1. A mask of another size than its picture, or one that is not black and white,
//! is a fault: it would train a model to something that nobody has drawn.
//!
//! A picture is turned as its EXIF data say, and so is a mask as its own data say, which most have none of: a mask is drawn
//! on what a viewer shows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image::{GrayImage, ImageBuffer, Luma, RgbImage, imageops};

use super::dataset::{Dataset, Sample};
use super::decode::{decode_rgb, decode_upright, is_image_name, sides};
use super::faults::FaultKind;
use super::preprocess::{Area, Preparation};
use super::size::ImageSize;
use super::synthetic;
use super::tree::{Entry, Source, SourceReader, Tree};
use crate::error::{Error, Kind, Result};

/// The one class of a dataset that has masks and no classes.
pub(super) const CLASS: &str = "lesion";
/// A mask's values above this are inside.
const THRESHOLD: u8 = 128;
/// Values from here to 255 minus it are neither black nor white. An edge that was smoothed has some.
const GRAY: u8 = 32;
/// The largest share of such values in a mask.
const GRAY_SHARE: f64 = 0.1;
/// What the file names of masks add to those of the pictures.
const ENDINGS: [&str; 2] = ["_segmentation", "_mask"];

/// Whether a file (name in lower case) is an archive of HAM10000's masks, to be read in place.
pub(super) fn is_archive(name: &str) -> bool {
    name.starts_with("ham10000_segmentations") && name.ends_with(".zip")
}

/// The image id in the file name of a mask as ISIC names it, without its ending; `None` for any other name.
pub(super) fn id_of(stem: &str) -> Option<&str> {
    let at = stem.len().checked_sub(ENDINGS[0].len())?;
    (stem.is_char_boundary(at) && stem[at..].eq_ignore_ascii_case(ENDINGS[0])).then(|| &stem[..at])
}

/// A mask that was found.
pub(super) struct FoundMask {
    /// Its path below the place it was found in, without the ending.
    path: String,
    pub source: Source,
}

/// Masks by the name of their picture, without folders and ending.
pub(super) type Found = BTreeMap<String, Vec<FoundMask>>;

/// The masks among the files of a dataset: those named as ISIC does. Of two with one id the first by path counts.
pub(super) fn of_tree(tree: &Tree) -> Found {
    let mut found = Found::new();
    for entry in tree.entries.iter().filter(|e| is_image_name(&e.path)) {
        if id_of(entry.stem()).is_some_and(|id| !found.contains_key(id)) {
            add(&mut found, &entry.path, entry);
        }
    }
    found
}

/// The name of a mask's picture: its own, without one of [`ENDINGS`].
fn name_of(stem: &str) -> &str {
    stem.strip_suffix(ENDINGS[1]).or_else(|| id_of(stem)).unwrap_or(stem)
}

/// Adds a mask that is to be known by `path`, a file's path.
pub(super) fn add(found: &mut Found, path: &str, mask: &Entry) {
    let name = name_of(mask.stem());
    let path = path.rsplit_once('/').map_or(name.to_owned(), |(folders, _)| format!("{folders}/{name}"));
    found.entry(name.to_owned()).or_default().push(FoundMask { path, source: mask.source.clone() });
}

/// The masks in a folder or zip archive of masks, named like the pictures, with one of [`ENDINGS`] or without. A file
/// without counts where none with that name has one: it may be the picture.
pub(super) fn of_place(place: &Path) -> Result<Found> {
    std::fs::metadata(place).map_err(|e| Error::io("open the masks", place, &e))?;
    let tree = Tree::list(place, is_archive)?;
    let (mut found, mut bare) = (Found::new(), Found::new());
    for entry in tree.entries.iter().filter(|e| is_image_name(&e.path)) {
        let among = if name_of(entry.stem()) == entry.stem() { &mut bare } else { &mut found };
        add(among, &entry.path, entry);
    }
    for (name, masks) in bare {
        found.entry(name).or_insert(masks);
    }
    match found.is_empty() {
        true => Err(none_found(place)),
        false => Ok(found),
    }
}

/// The error where masks are needed and there are none.
pub(super) fn none_found(place: &Path) -> Error {
    Error::new(Kind::Data, "there are no masks: looked for pictures such as ISIC_0024306_segmentation.png")
        .at(place.display())
        .next("name the folder or archive that holds them with --masks")
}

/// Gives each sample its mask. Samples without one, or with a doubtful one, become faults.
pub(super) fn attach(dataset: &mut Dataset, mut found: Found) {
    let Dataset { samples, faults, notes, .. } = dataset;
    let ids: Vec<&str> = samples.iter().map(|sample| sample.id.as_str()).collect();
    let masks = take(&mut found, &ids);
    let mut why: Vec<Option<String>> = vec![];
    for (sample, mask) in samples.iter_mut().zip(masks) {
        why.push(match mask {
            Ok(mask) => {
                sample.mask = Some(mask);
                None
            }
            Err(what) => Some(what),
        });
    }
    let mut why = why.into_iter();
    samples.retain(|sample| {
        let fault = why.next().flatten();
        fault.iter().for_each(|what| faults.push(FaultKind::MissingMask, &sample.source, what.as_str()));
        fault.is_none()
    });
    let unused: usize = found.values().map(Vec::len).sum();
    if let Some(first) = found.keys().next() {
        notes.push(format!("{unused} mask(s) belong to no picture and are not used, for example of {first}"));
    }
}

/// The mask of each picture by its id, or why it has none. Masks of the names of pictures are taken out of those that were
/// found.
fn take(found: &mut Found, ids: &[&str]) -> Vec<Result<Source, String>> {
    let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, id) in ids.iter().enumerate() {
        by_name.entry(stem(id)).or_default().push(i);
    }
    let mut taken: Vec<Result<Source, String>> = vec![Err(String::new()); ids.len()];
    for (name, pictures) in by_name {
        let masks = found.remove(name).unwrap_or_default();
        let ids: Vec<&str> = pictures.iter().map(|&i| ids[i]).collect();
        let paths: Vec<&str> = masks.iter().map(|mask| mask.path.as_str()).collect();
        for (i, pair) in pictures.into_iter().zip(pair(&ids, &paths)) {
            taken[i] = pair.map(|mask| masks[mask].source.clone());
        }
    }
    taken
}

/// The masks of pictures that are files: in a folder or zip archive of masks by the names of the pictures, or a single file
/// for a single picture. For each the mask, or why it has none.
///
/// # Errors
/// [`Kind::Data`] if there are no masks at all; [`Kind::Usage`] for one mask of several pictures; [`Kind::Io`].
pub fn masks_of_files(place: &Path, pictures: &[PathBuf]) -> Result<Vec<Result<Source, String>>> {
    if place.is_file() && is_image_name(&place.to_string_lossy()) {
        return match pictures {
            [_] => Ok(vec![Ok(Source::File(place.to_path_buf()))]),
            _ => Err(Error::new(Kind::Usage, format!("one mask is no mask of {} pictures", pictures.len()))
                .at(place.display())
                .next("name the folder or archive of all masks, or a single picture")),
        };
    }
    let names: Vec<String> = pictures.iter().map(|picture| picture.display().to_string()).collect();
    Ok(take(&mut of_place(place)?, &names.iter().map(String::as_str).collect::<Vec<_>>()))
}

/// The mask of each picture, or why it has none, among pictures and masks of one name. A mask with which a picture shares
/// its folder is its own; else there must be one of each.
fn pair(pictures: &[&str], masks: &[&str]) -> Vec<Result<usize, String>> {
    let by_path: Vec<Option<usize>> = pictures.iter().map(|picture| nearest(picture, masks)).collect();
    let taken = |mask| by_path.iter().filter(|&&own| own == Some(mask)).count();
    let left: Vec<usize> = (0..masks.len()).filter(|&mask| taken(mask) == 0).collect();
    let undecided: Vec<usize> = (0..pictures.len()).filter(|&i| by_path[i].is_none()).collect();
    let decide = |(i, own): (usize, &Option<usize>)| match (own, undecided.as_slice(), left.as_slice()) {
        (Some(mask), ..) if taken(*mask) == 1 => Ok(*mask),
        (Some(mask), ..) => {
            let other = (0..pictures.len()).find(|&k| k != i && by_path[k] == *own).map_or("", |k| pictures[k]);
            Err(format!("{} may be the mask of this picture or of {other}: they have the same name", masks[*mask]))
        }
        (None, _, []) => Err("there is no mask of it".to_owned()),
        (None, [_], [mask]) => Ok(*mask),
        (None, [_], [one, two, ..]) => {
            Err(format!("{} and {} may both be its mask, and no folder tells which", masks[*one], masks[*two]))
        }
        (None, all, [mask, ..]) => {
            let other = all.iter().find(|&&k| k != i).map_or("", |&k| pictures[k]);
            let what = format!("{} may be the mask of this picture or of {other}", masks[*mask]);
            Err(what + ": they have the same name, and no folder tells which")
        }
    };
    by_path.iter().enumerate().map(decide).collect()
}

/// The mask whose path ends with more of a picture's folders than that of any other.
fn nearest(picture: &str, masks: &[&str]) -> Option<usize> {
    let parts = |path: &str| -> Vec<String> { path.rsplit(['/', '\\']).skip(1).map(str::to_owned).collect() };
    let own = parts(picture);
    let shared = |mask: &&str| own.iter().zip(parts(mask)).take_while(|(a, b)| *a == b).count();
    let counts: Vec<usize> = masks.iter().map(shared).collect();
    let most = counts.iter().copied().max().filter(|&most| most > 0)?;
    let mut nearest = (0..masks.len()).filter(|&i| counts[i] == most);
    nearest.next().filter(|_| nearest.next().is_none())
}

/// An image id, which may be a path, as masks are named: without folders and ending.
fn stem(id: &str) -> &str {
    let name = id.rsplit(['/', '\\']).next().unwrap_or(id);
    if is_image_name(name) { name.rsplit_once('.').map_or(name, |(stem, _)| stem) } else { name }
}

/// Decodes a mask: 255 inside, 0 outside. It must have the size of its picture, where that is given.
pub(super) fn decode(bytes: &[u8], picture: Option<(u32, u32)>) -> Result<GrayImage, String> {
    let mut mask = decode_upright(bytes).map_err(|what| format!("the mask: {what}"))?.into_luma8();
    let ((width, height), wanted) = (mask.dimensions(), picture.unwrap_or(mask.dimensions()));
    if (width, height) != wanted {
        let what = format!("the mask has {width}x{height} pixels, its picture {}x{}", wanted.0, wanted.1);
        return Err(match (height, width) == wanted {
            false => what,
            true => what + ": if EXIF data turn the picture, the mask has to be drawn as a viewer shows it",
        });
    }
    let gray = mask.pixels().filter(|p| (GRAY..=255 - GRAY).contains(&p[0])).count();
    let brightest = mask.pixels().map(|p| p[0]).max().unwrap_or(0);
    if gray as f64 > GRAY_SHARE * f64::from(width) * f64::from(height) {
        return Err("the mask is not black and white: it has many gray pixels".to_owned());
    }
    if (1..=THRESHOLD).contains(&brightest) {
        return Err(format!("the mask is not black and white: its brightest value is {brightest}, white is 255"));
    }
    mask.pixels_mut().for_each(|p| p[0] = if p[0] > THRESHOLD { 255 } else { 0 });
    Ok(mask)
}

/// A mask at another size: a pixel is inside if at least half of it was.
pub(super) fn resize(mask: GrayImage, size: ImageSize) -> GrayImage {
    let (width, height) = sides(size);
    if mask.dimensions() == (width, height) {
        return mask;
    }
    let mut resized = imageops::resize(&mask, width, height, imageops::FilterType::Triangle);
    resized.pixels_mut().for_each(|p| p[0] = if p[0] >= THRESHOLD { 255 } else { 0 });
    resized
}

/// A map of probabilities `[from.height, from.width]` at another size: bilinear, with antialiasing where it gets smaller.
///
/// # Errors
/// [`Kind::Internal`] if the map has another length.
pub fn resize_probabilities(map: &[f32], from: ImageSize, to: ImageSize) -> Result<Vec<f32>> {
    let ((width, height), (columns, rows)) = (sides(from), sides(to));
    let map = ImageBuffer::<Luma<f32>, _>::from_raw(width, height, map.to_vec())
        .filter(|_| map.len() == from.area())
        .ok_or_else(|| Error::new(Kind::Internal, format!("{} probabilities for {from} pixels", map.len())))?;
    Ok(imageops::resize(&map, columns, rows, imageops::FilterType::Triangle).into_raw())
}

/// Reads pictures and masks at their own size. Generated ones have none: theirs is a square as wide as the longer side of the
/// `size` that is asked for, from which pictures of that size are made.
#[derive(Default)]
pub struct SampleReader {
    reader: SourceReader,
}

impl SampleReader {
    /// The picture of a sample.
    ///
    /// # Errors
    /// [`Kind::Data`] if it cannot be read or decoded.
    pub fn picture(&mut self, sample: &Sample, size: ImageSize) -> Result<RgbImage> {
        match &sample.source {
            Source::Synthetic { seed, index } => Ok(synthetic::render(*seed, *index, synthetic::side_for(size)).0),
            source => decode_rgb(&self.reader.read(source)?, &source.to_string()),
        }
    }

    /// The mask of a sample, 255 inside and 0 outside, and the part of it that models see of the picture.
    ///
    /// # Errors
    /// As [`Self::picture`] and [`Self::mask`].
    pub fn mask_and_area(&mut self, sample: &Sample, recipe: &Preparation) -> Result<(GrayImage, Area)> {
        let mask = self.mask(sample, recipe.size)?;
        let area = match recipe.preprocess.crops() {
            true => recipe.preprocess.area(&self.picture(sample, recipe.size)?),
            false => Area::whole((&mask).into()),
        };
        Ok((mask, area))
    }

    /// A mask of a picture of this size, 255 inside and 0 outside.
    ///
    /// # Errors
    /// [`Kind::Data`] if it cannot be read or decoded, or has another size.
    pub fn mask_at(&mut self, source: &Source, picture: ImageSize) -> Result<GrayImage> {
        let bytes = self.reader.read(source)?;
        decode(&bytes, Some(sides(picture))).map_err(|what| Error::new(Kind::Data, what).at(source))
    }

    /// The mask of a sample, 255 inside and 0 outside.
    ///
    /// # Errors
    /// [`Kind::Data`] if it cannot be read or decoded; [`Kind::Internal`] for a sample without a mask.
    pub fn mask(&mut self, sample: &Sample, size: ImageSize) -> Result<GrayImage> {
        match &sample.mask {
            None => Err(Error::new(Kind::Internal, "a mask is asked for where there is none").at(&sample.id)),
            Some(Source::Synthetic { seed, index }) => {
                Ok(synthetic::render(*seed, *index, synthetic::side_for(size)).1)
            }
            Some(source) => {
                let bytes = self.reader.read(source)?;
                decode(&bytes, None).map_err(|what| Error::new(Kind::Data, what).at(source))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::ImageFormat;

    use super::*;

    fn png(mask: &GrayImage) -> Vec<u8> {
        let mut bytes = Vec::new();
        mask.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).unwrap();
        bytes
    }

    #[test]
    fn names_of_masks_give_the_pictures() {
        assert_eq!(id_of("ISIC_0024306_segmentation"), Some("ISIC_0024306"));
        assert_eq!(id_of("ISIC_0000001_Segmentation"), Some("ISIC_0000001"));
        assert!(id_of("ISIC_0024306").is_none() && id_of("é").is_none());
        assert_eq!((stem("img/a.b.jpg"), stem("ISIC_1"), stem("a.b")), ("a.b", "ISIC_1", "a.b"));
    }

    #[test]
    fn folders_tell_whose_mask_it_is() {
        let pairs = |pictures: &[&str], masks: &[&str]| pair(pictures, masks);
        let none = || Err("there is no mask of it".to_owned());
        assert_eq!(pairs(&["a/p.png", "b/p.png"], &["b/p"]), [none(), Ok(0)]);
        assert_eq!(pairs(&["a/p.png", "b/p.png"], &["m/b/p", "m/a/p"]), [Ok(1), Ok(0)]);
        assert_eq!(pairs(&["images/p.png"], &["masks/p"]), [Ok(0)]);
        assert_eq!(pairs(&["p"], &[]), [none()]);
        let [Err(one), Err(two)] = &pairs(&["a/p.png", "b/p.png"], &["p"])[..] else {
            panic!("one mask, two pictures")
        };
        assert!(one.contains("b/p.png") && two.contains("a/p.png") && one.contains("no folder tells"), "{one} {two}");
        let [Err(both)] = &pairs(&["p.png"], &["x/p", "y/p"])[..] else { panic!("two masks, one picture") };
        assert!(both.contains("x/p and y/p"), "{both}");
        let [Err(one), Err(_)] = &pairs(&["x/a/p", "y/a/p"], &["a/p"])[..] else { panic!("one mask, two pictures") };
        assert!(one.contains("y/a/p"), "{one}");
    }

    #[test]
    fn only_what_is_brighter_than_128_is_inside() {
        let values = [0, 1, 128, 129, 255];
        // Wide black and white margins keep the few gray values below the share that is refused.
        let mask = GrayImage::from_fn(50, 5, |x, y| Luma([if x == 0 { values[y as usize] } else { 255 }]));
        let decoded = decode(&png(&mask), Some((50, 5))).unwrap();
        let column: Vec<u8> = (0..5).map(|y| decoded.get_pixel(0, y)[0]).collect();
        assert_eq!(column, [0, 0, 0, 255, 255]);
        assert!(decode(&png(&mask), Some((50, 6))).unwrap_err().contains("50x5 pixels, its picture 50x6"));
        assert!(decode(b"nonsense", None).unwrap_err().starts_with("the mask: "));
    }

    #[test]
    fn what_is_not_black_and_white_is_refused() {
        for (value, what) in [(1, "brightest value is 1"), (128, "gray pixels"), (100, "gray pixels")] {
            let mask = GrayImage::from_pixel(8, 8, Luma([value]));
            assert!(decode(&png(&mask), None).unwrap_err().contains(what), "{value}");
        }
        let empty = GrayImage::new(8, 8);
        assert_eq!(decode(&png(&empty), None).unwrap(), empty);
    }

    #[test]
    fn probabilities_are_interpolated_between_the_centres_of_pixels() {
        let (from, to) = (ImageSize { width: 2, height: 1 }, ImageSize { width: 4, height: 2 });
        let map = resize_probabilities(&[0.2, 0.6], from, to).unwrap();
        for (i, want) in [0.2, 0.3, 0.5, 0.6, 0.2, 0.3, 0.5, 0.6].into_iter().enumerate() {
            assert!((map[i] - want).abs() < 1e-6, "{map:?}");
        }
        assert_eq!(resize_probabilities(&map, to, to).unwrap(), map);
        assert_eq!(resize_probabilities(&map, from, to).unwrap_err().kind(), Kind::Internal);
    }

    #[test]
    fn a_smaller_mask_is_still_black_and_white() {
        let mask = GrayImage::from_fn(64, 48, |x, y| Luma([if x > 20 && y < 30 { 255 } else { 0 }]));
        let small = resize(mask, ImageSize { width: 16, height: 12 });
        assert!(small.dimensions() == (16, 12) && small.pixels().all(|p| p[0] == 0 || p[0] == 255));
        let inside = small.pixels().filter(|p| p[0] == 255).count();
        assert!((76..=90).contains(&inside), "{inside}"); // 43 * 30 / 16 = 80.6
    }
}
