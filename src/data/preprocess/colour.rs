//! Colours: CIE L*a*b* in bytes, and colour constancy.
//!
//! The definitions are those of CIE with sRGB (IEC 61966-2-1) and the white of D65. In bytes L* has 255 levels for 100, and a*
//! and b* 128 for zero. Both ways are computed in whole numbers with OpenCV's precisions, so that L is the same for all
//! colours, and the rest within one level.

use std::sync::LazyLock;

use image::RgbImage;
use serde::{Deserialize, Serialize};

/// Linear sRGB to XYZ, rows X, Y, Z.
const XYZ_OF_RGB: [[f64; 3]; 3] =
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]];
/// XYZ to linear sRGB.
const RGB_OF_XYZ: [[f64; 3]; 3] =
    [[3.240479, -1.53715, -0.498535], [-0.969256, 1.875991, 0.041556], [0.055648, -0.204043, 1.057311]];
/// X, Y, Z of D65's white.
const WHITE: [f64; 3] = [0.950456, 1.0, 1.088754];

/// Bits of a factor of the matrices.
const FACTOR_BITS: i32 = 12;
/// Linear levels that a byte has.
const LINEAR: i32 = 255 << 3;
/// Bits of a root, on the way to LAB.
const ROOT_BITS: i32 = 15;
/// Bits of roots and of XYZ, on the way back.
const BACK_BITS: i32 = 14;
/// Linear levels on the way back.
const BACK_LEVELS: usize = 1 << 12;

fn rounded(value: f64) -> i32 {
    value.round_ties_even() as i32
}

/// `value / 2^bits`, rounded.
fn shifted(value: i32, bits: i32) -> i32 {
    (value + (1 << (bits - 1))) >> bits
}

/// The factors of a matrix after `scale` of row and column.
fn factors(matrix: &[[f64; 3]; 3], scale: impl Fn(usize, usize) -> f64) -> [[i32; 3]; 3] {
    std::array::from_fn(|row| {
        std::array::from_fn(|column| rounded(f64::from(1 << FACTOR_BITS) * matrix[row][column] * scale(row, column)))
    })
}

fn dot(row: [i32; 3], values: [i32; 3]) -> i32 {
    row[0] * values[0] + row[1] * values[1] + row[2] * values[2]
}

/// The tables on the way to LAB.
struct ToLab {
    /// Linear levels of a byte.
    linear: [i32; 256],
    /// The root of CIE of each linear level.
    root: Vec<i32>,
    /// RGB to XYZ by the white.
    xyz: [[i32; 3]; 3],
}

static TO_LAB: LazyLock<ToLab> = LazyLock::new(|| ToLab {
    linear: std::array::from_fn(|byte| {
        let x = byte as f64 / 255.0;
        let linear = if x <= 0.04045 { x / 12.92 } else { ((x + 0.055) / 1.055).powf(2.4) };
        rounded(f64::from(LINEAR) * linear)
    }),
    root: (0..=LINEAR)
        .map(|level| {
            let t = f64::from(level) / f64::from(LINEAR);
            let root = if t < 216.0 / 24_389.0 { t * 841.0 / 108.0 + 16.0 / 116.0 } else { t.cbrt() };
            rounded(f64::from(1 << ROOT_BITS) * root)
        })
        .collect(),
    xyz: factors(&XYZ_OF_RGB, |row, _| 1.0 / WHITE[row]),
});

/// L, a and b of red, green and blue.
pub fn lab_of_rgb(picture: &RgbImage) -> RgbImage {
    let tables = &*TO_LAB;
    let zero = 128 << ROOT_BITS;
    let mut lab = picture.clone();
    for pixel in lab.pixels_mut() {
        let rgb = pixel.0.map(|byte| tables.linear[usize::from(byte)]);
        let [x, y, z] =
            tables.xyz.map(|row| tables.root[shifted(dot(row, rgb), FACTOR_BITS).clamp(0, LINEAR) as usize]);
        // 116 f(Y) - 16, in parts of 255 for 100.
        let lightness = (116 * 255 + 50) / 100 * y - (((16 * 255) << ROOT_BITS) + 50) / 100;
        let values = [lightness, 500 * (x - y) + zero, 200 * (y - z) + zero];
        pixel.0 = values.map(|value| shifted(value, ROOT_BITS).clamp(0, 255) as u8);
    }
    lab
}

/// The tables on the way back.
struct ToRgb {
    /// Y and its root, for each L.
    lightness: [(i32, i32); 256],
    /// The byte of each linear level.
    byte: Vec<u8>,
    /// XYZ by the white to RGB.
    rgb: [[i32; 3]; 3],
}

static TO_RGB: LazyLock<ToRgb> = LazyLock::new(|| ToRgb {
    lightness: std::array::from_fn(|byte| {
        let lightness = byte as f64 * 100.0 / 255.0;
        let (y, root) = match lightness <= 8.0 {
            true => (lightness / 903.3, 7.787 * lightness / 903.3 + 16.0 / 116.0),
            false => (((lightness + 16.0) / 116.0).powi(3), (lightness + 16.0) / 116.0),
        };
        let scale = f64::from(1 << BACK_BITS);
        (rounded(y * scale), rounded(root * scale))
    }),
    byte: (0..BACK_LEVELS)
        .map(|level| {
            let x = level as f64 / BACK_LEVELS as f64;
            let curved = if x <= 0.0031308 { 12.92 * x } else { 1.055 * x.powf(1.0 / 2.4) - 0.055 };
            rounded(255.0 * curved) as u8
        })
        .collect(),
    rgb: factors(&RGB_OF_XYZ, |_, column| WHITE[column]),
});

/// What has this root of CIE.
fn unrooted(root: i32) -> i32 {
    let one = 1 << BACK_BITS;
    // Up to 6/29 it is a line.
    if root <= one * 6 / 29 {
        return (f64::from(root) * 108.0 / 841.0 - f64::from(one) * 16.0 / 116.0 * 108.0 / 841.0).floor() as i32;
    }
    (((root * root) >> BACK_BITS) * root) >> BACK_BITS
}

/// Red, green and blue of L, a and b; colours outside sRGB are brought to its ends.
pub fn rgb_of_lab(lab: &RgbImage) -> RgbImage {
    let tables = &*TO_RGB;
    let bits = FACTOR_BITS + BACK_BITS - BACK_LEVELS.ilog2() as i32;
    let mut picture = lab.clone();
    for pixel in picture.pixels_mut() {
        let (y, root) = tables.lightness[usize::from(pixel[0])];
        // OpenCV's rounding: the second is one more than the difference of what is rounded down.
        let (a, b) = (parts(pixel[1], 500) - parts(128, 500), parts(pixel[2], 200) - parts(128, 200) + 1);
        let xyz = [unrooted(root + a), y, unrooted(root - b)];
        pixel.0 = tables.rgb.map(|row| {
            let level = shifted(dot(row, xyz), bits).clamp(0, BACK_LEVELS as i32 - 1);
            tables.byte[level as usize]
        });
    }
    picture
}

/// A byte by `by`, rounded down.
fn parts(byte: u8, by: i32) -> i32 {
    (i32::from(byte) << BACK_BITS) / by
}

/// The constants of shades of gray.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShadesOfGrayConfig {
    /// The Minkowski norm: 1 for the mean (gray world), large numbers for the brightest (white patch).
    pub norm: f64,
}

impl Default for ShadesOfGrayConfig {
    fn default() -> Self {
        Self { norm: 6.0 }
    }
}

/// Colour constancy by shades of gray (G. Finlayson and E. Trezzi, "Shades of gray and colour constancy", Color Imaging
/// Conference, 2004): the light's colour is taken to be the Minkowski mean of the pixels, and channels are scaled so that it
/// becomes gray of the same length. A channel without any light stays.
pub fn shades_of_gray(mut picture: RgbImage, config: ShadesOfGrayConfig) -> RgbImage {
    let mut counts = [[0_u32; 256]; 3];
    for pixel in picture.pixels() {
        counts.iter_mut().zip(pixel.0).for_each(|(counts, byte)| counts[usize::from(byte)] += 1);
    }
    let pixels = picture.pixels().len().max(1) as f64;
    let light = counts.map(|counts| {
        let powers = counts.iter().enumerate().map(|(byte, &n)| (byte as f64 / 255.0).powf(config.norm) * f64::from(n));
        (powers.sum::<f64>() / pixels).powf(1.0 / config.norm)
    });
    let length = light.iter().map(|channel| channel * channel).sum::<f64>().sqrt();
    let tables = light.map(|channel| {
        let gain = if channel > 0.0 { length / (channel * 3.0_f64.sqrt()) } else { 1.0 };
        std::array::from_fn::<u8, 256, _>(|byte| (byte as f64 * gain).round() as u8)
    });
    for pixel in picture.pixels_mut() {
        pixel.0 = std::array::from_fn(|channel| tables[channel][usize::from(pixel[channel])]);
    }
    picture
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    fn lab(rgb: [u8; 3]) -> [u8; 3] {
        lab_of_rgb(&RgbImage::from_pixel(1, 1, Rgb(rgb))).get_pixel(0, 0).0
    }

    #[test]
    fn colours_that_everybody_knows() {
        assert_eq!([[0; 3], [255; 3], [119; 3]].map(lab), [[0, 128, 128], [255, 128, 128], [128, 128, 128]]);
        // sRGB red is L* 53.2, a* 80.1, b* 67.2; blue L* 32.3, a* 79.2, b* -107.9.
        assert_eq!([[255, 0, 0], [0, 0, 255]].map(lab), [[136, 208, 195], [82, 207, 20]]);
    }

    #[test]
    fn grays_and_skin_come_back() {
        let colours = (0..=255).flat_map(|i| [[i, i, i], [i, i / 2, i / 3]]);
        for rgb in colours {
            let back = rgb_of_lab(&RgbImage::from_pixel(1, 1, Rgb(lab(rgb)))).get_pixel(0, 0).0;
            assert!((0..3).all(|c| back[c].abs_diff(rgb[c]) <= 4), "{rgb:?} {back:?}");
        }
    }

    #[test]
    fn the_light_becomes_gray() {
        let shades = |picture| shades_of_gray(picture, ShadesOfGrayConfig::default());
        let tinted = RgbImage::from_fn(30, 20, |x, y| Rgb([(x * 8) as u8, (y * 4) as u8, (x + y) as u8]));
        let brightest = |p: &RgbImage| [0, 1, 2].map(|c| p.pixels().map(|pixel| pixel[c]).max().unwrap());
        let spread = |[r, g, b]: [u8; 3]| r.max(g).max(b) - r.min(g).min(b);
        assert!(spread(brightest(&shades(tinted.clone()))) < spread(brightest(&tinted)) / 3);
        // A single colour becomes gray, of the same length: (60^2 + 120^2 + 40^2) / 3 = 80.8^2.
        assert_eq!(shades(RgbImage::from_pixel(2, 2, Rgb([60, 120, 40]))).get_pixel(0, 0).0, [81; 3]);
        for rgb in [[0; 3], [90; 3], [255; 3]] {
            assert_eq!(shades(RgbImage::from_pixel(3, 1, Rgb(rgb))).get_pixel(2, 0).0, rgb);
        }
        assert_eq!(shades(RgbImage::from_pixel(1, 1, Rgb([100, 0, 0]))).get_pixel(0, 0).0, [58, 0, 0]);
        assert_eq!(shades(RgbImage::new(0, 0)).dimensions(), (0, 0));
    }
}
