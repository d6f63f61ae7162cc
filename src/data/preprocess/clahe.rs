//! Contrast-limited adaptive histogram equalisation (K. Zuiderveld, "Contrast limited adaptive histogram equalization",
//! in Graphics Gems IV, 1994).
//!
//! A picture is divided into tiles. Each has a table that would make its histogram even, had the histogram not been clipped
//! first: what lies above the limit is shared out among all levels, so that no table is steep. A pixel's level is taken from the
//! tables of the four tiles around it, weighted by their distance. Where tiles do not divide the picture, it is continued on
//! the right and below by its mirror image. Tiles, sharing out and rounding are OpenCV's, so results are equal.

use image::{GrayImage, RgbImage};
use serde::{Deserialize, Serialize};

use super::colour::{lab_of_rgb, rgb_of_lab};

/// Levels of a pixel.
const LEVELS: usize = 256;

/// The constants of CLAHE.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClaheConfig {
    /// How often a level may occur in a tile: this many times what it would if all occurred equally often.
    pub clip: f64,
    /// Tiles along each side.
    pub tiles: usize,
}

impl Default for ClaheConfig {
    fn default() -> Self {
        Self { clip: 2.0, tiles: 8 }
    }
}

/// Equalises the lightness of a picture, in LAB.
pub fn equalise_lightness(picture: &RgbImage, config: ClaheConfig) -> RgbImage {
    let (width, height) = picture.dimensions();
    let mut lab = lab_of_rgb(picture);
    let mut lightness = GrayImage::new(width, height);
    lightness.pixels_mut().zip(lab.pixels()).for_each(|(lightness, pixel)| lightness[0] = pixel[0]);
    let equal = equalise(&lightness, config);
    lab.pixels_mut().zip(equal.pixels()).for_each(|(pixel, lightness)| pixel[0] = lightness[0]);
    rgb_of_lab(&lab)
}

/// Equalises a map of levels.
pub fn equalise(map: &GrayImage, config: ClaheConfig) -> GrayImage {
    let (width, height) = (map.width() as usize, map.height() as usize);
    if width == 0 || height == 0 {
        return map.clone();
    }
    let tiles = Tiles::of(width, height, config.tiles);
    let tables = tiles.tables(map, config.clip);
    let columns: Vec<Between> = (0..width).map(|x| Between::of(x, tiles.width, tiles.count)).collect();
    let mut result = map.clone();
    for (y, row) in result.as_mut().chunks_exact_mut(width).enumerate() {
        let rows = Between::of(y, tiles.height, tiles.count);
        let (above, below) = (&tables[rows.first * tiles.count..], &tables[rows.second * tiles.count..]);
        for (level, column) in row.iter_mut().zip(&columns) {
            let at = usize::from(*level);
            let along = |tables: &[Table]| {
                let (left, right) = (f32::from(tables[column.first][at]), f32::from(tables[column.second][at]));
                left * (1.0 - column.share) + right * column.share
            };
            *level = rounded(along(above) * (1.0 - rows.share) + along(below) * rows.share);
        }
    }
    result
}

/// The new level of each level.
type Table = [u8; LEVELS];

fn rounded(value: f32) -> u8 {
    value.round_ties_even() as u8
}

/// The tiles of a picture.
struct Tiles {
    /// Along each side.
    count: usize,
    /// Pixels of a tile.
    width: usize,
    height: usize,
}

impl Tiles {
    fn of(width: usize, height: usize, count: usize) -> Self {
        if width.is_multiple_of(count) && height.is_multiple_of(count) {
            return Self { count, width: width / count, height: height / count };
        }
        // A side that could be divided grows too where the other cannot.
        Self { count, width: width / count + 1, height: height / count + 1 }
    }

    /// The tables of all tiles, row by row.
    fn tables(&self, map: &GrayImage, clip: f64) -> Vec<Table> {
        let (width, height) = (map.width() as usize, map.height() as usize);
        let columns: Vec<usize> = (0..self.count * self.width).map(|x| mirrored(x, width)).collect();
        let levels = map.as_raw();
        let tile = |at: usize| {
            let mut histogram = [0_usize; LEVELS];
            for y in at / self.count * self.height..(at / self.count + 1) * self.height {
                let row = &levels[mirrored(y, height) * width..][..width];
                for &x in &columns[at % self.count * self.width..][..self.width] {
                    histogram[usize::from(row[x])] += 1;
                }
            }
            self.table(&mut histogram, clip)
        };
        (0..self.count * self.count).map(tile).collect()
    }

    fn table(&self, histogram: &mut [usize; LEVELS], clip: f64) -> Table {
        let area = self.width * self.height;
        limit(histogram, ((clip * area as f64 / LEVELS as f64) as usize).max(1));
        let scale = (LEVELS - 1) as f32 / area as f32;
        let mut sum = 0;
        histogram.map(|count| {
            sum += count;
            rounded(sum as f32 * scale)
        })
    }
}

/// Takes off what lies above `most`, and shares it out: the same for all levels, and what is left over one each, evenly spaced.
fn limit(histogram: &mut [usize; LEVELS], most: usize) {
    let over: usize = histogram.iter().map(|count| count.saturating_sub(most)).sum();
    let (each, left) = (over / LEVELS, over % LEVELS);
    histogram.iter_mut().for_each(|count| *count = (*count).min(most) + each);
    let spacing = LEVELS.checked_div(left).unwrap_or(LEVELS);
    histogram.iter_mut().step_by(spacing).take(left).for_each(|count| *count += 1);
}

/// Where a pixel lies between the centres of two tiles.
struct Between {
    first: usize,
    second: usize,
    /// How much the second counts.
    share: f32,
}

impl Between {
    fn of(at: usize, tile: usize, count: usize) -> Self {
        let place = at as f32 * (1.0 / tile as f32) - 0.5;
        let first = place.floor();
        let inside = |tile: f32| (tile.max(0.0) as usize).min(count - 1);
        Self { first: inside(first), second: inside(first + 1.0), share: place - first }
    }
}

/// The pixel of a side of `length` that stands for pixel `at` beyond it: mirrored at the last one, which is not repeated.
fn mirrored(at: usize, length: usize) -> usize {
    if length == 1 {
        return 0;
    }
    let period = 2 * (length - 1);
    (at % period).min(period - at % period)
}

#[cfg(test)]
mod tests {
    use image::{Luma, Rgb};

    use super::*;

    #[test]
    fn sides_are_mirrored_without_repeating_their_ends() {
        assert_eq!((0..8).map(|at| mirrored(at, 3)).collect::<Vec<_>>(), [0, 1, 2, 1, 0, 1, 2, 1]);
        assert_eq!((mirrored(5, 1), mirrored(5, 2)), (0, 1));
    }

    #[test]
    fn what_is_clipped_is_shared_out() {
        let mut histogram = [0; LEVELS];
        (histogram[7], histogram[9]) = (300, 10);
        limit(&mut histogram, 20);
        assert_eq!(histogram.iter().sum::<usize>(), 310);
        // 280 = 256 + 24: one each, and one more for every tenth.
        assert_eq!((histogram[0], histogram[1], histogram[7], histogram[9], histogram[10]), (2, 1, 21, 11, 2));
    }

    #[test]
    fn contrast_grows_and_constants_stay_constant() {
        let faint = GrayImage::from_fn(64, 64, |x, y| Luma([120 + ((x / 3 + y / 5) % 8) as u8]));
        let range = |map: &GrayImage| {
            let levels = map.as_raw();
            levels.iter().max().unwrap() - levels.iter().min().unwrap()
        };
        assert!(range(&equalise(&faint, ClaheConfig::default())) > 2 * range(&faint));
        for (width, height) in [(1, 1), (3, 2), (8, 8), (9, 5), (100, 1)] {
            let flat = equalise(&GrayImage::from_pixel(width, height, Luma([77])), ClaheConfig::default());
            assert!(flat.as_raw().iter().all(|level| *level == flat.as_raw()[0]), "{width}x{height}");
        }
        let empty = equalise_lightness(&RgbImage::new(0, 0), ClaheConfig::default());
        assert_eq!(empty.dimensions(), (0, 0));
        let flat = equalise_lightness(&RgbImage::from_pixel(9, 9, Rgb([200, 100, 50])), ClaheConfig::default());
        assert!(flat.pixels().all(|pixel| pixel == flat.get_pixel(0, 0)));
    }
}
