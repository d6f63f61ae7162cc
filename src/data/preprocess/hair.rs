//! Hair removal: what is narrow and darker than its surroundings is found and filled in from around it (T. Lee et al.,
//! "DullRazor: a software approach to hair removal from images", 1997, in the form that has become usual: black-hat of the
//! gray picture, a threshold, inpainting by Telea's method).

use image::{GrayImage, RgbImage};
use serde::{Deserialize, Serialize};

use super::inpaint;

/// The constants of hair removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HairConfig {
    /// The side of the cross in pixels, an odd number: what is wider than this is no hair.
    pub kernel: usize,
    /// A pixel counts as hair if it is darker than its surroundings by more levels than this.
    pub threshold: u8,
    /// How far around a pixel is looked for what it is filled in with.
    pub radius: usize,
}

impl Default for HairConfig {
    fn default() -> Self {
        Self { kernel: 17, threshold: 10, radius: 1 }
    }
}

/// Fills in the hairs of a picture.
pub fn remove(mut picture: RgbImage, config: HairConfig) -> RgbImage {
    let hairs = mask(&picture, config);
    inpaint::fill(&mut picture, &hairs, config.radius);
    picture
}

/// Where the hairs of a picture are: 255 there, 0 elsewhere.
pub fn mask(picture: &RgbImage, config: HairConfig) -> GrayImage {
    let mut mask = black_hat(&gray(picture), config.kernel);
    mask.pixels_mut().for_each(|level| level[0] = if level[0] > config.threshold { 255 } else { 0 });
    mask
}

/// Luma of ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B, in parts of 2^15 as OpenCV rounds it.
pub fn gray(picture: &RgbImage) -> GrayImage {
    let mut gray = GrayImage::new(picture.width(), picture.height());
    for (luma, rgb) in gray.pixels_mut().zip(picture.pixels()) {
        let [r, g, b] = rgb.0.map(u32::from);
        luma[0] = ((9798 * r + 19_235 * g + 3735 * b + (1 << 14)) >> 15) as u8;
    }
    gray
}

/// The closing of a map by a cross with sides of `kernel` pixels, less the map itself. What lies outside the map does not
/// count.
pub fn black_hat(map: &GrayImage, kernel: usize) -> GrayImage {
    let reach = kernel / 2;
    let mut closed = cross(&cross(map, reach, u8::max), reach, u8::min);
    closed.as_mut().iter_mut().zip(map.as_raw()).for_each(|(closed, level)| *closed -= level);
    closed
}

/// What `pick` leaves of each pixel and those up to `reach` left, right, above and below.
fn cross(map: &GrayImage, reach: usize, pick: impl Fn(u8, u8) -> u8) -> GrayImage {
    let (width, levels) = (map.width() as usize, map.as_raw());
    let mut result = map.clone();
    let merge = |into: &mut [u8], from: &[u8]| into.iter_mut().zip(from).for_each(|(a, &b)| *a = pick(*a, b));
    for (into, from) in result.chunks_exact_mut(width.max(1)).zip(levels.chunks_exact(width.max(1))) {
        for by in 1..=reach.min(width - 1) {
            merge(&mut into[by..], from);
            merge(into, &from[by..]);
        }
    }
    for by in (1..=reach).map(|rows| rows * width).take_while(|&by| by < levels.len()) {
        merge(&mut result.as_mut()[by..], levels);
        merge(result.as_mut(), &levels[by..]);
    }
    result
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    /// Skin with a dark line of three pixels and a dark block of thirty.
    fn hairy() -> RgbImage {
        RgbImage::from_fn(80, 60, |x, y| match (x, y) {
            (10..=12, 5..55) => Rgb([40, 30, 20]),
            (30..60, 15..45) => Rgb([90, 50, 40]),
            _ => Rgb([220, 180, 160]),
        })
    }

    #[test]
    fn lines_go_and_lesions_stay() {
        let before = hairy();
        let mask = mask(&before, HairConfig::default());
        assert!((5..55).all(|y| (10..=12).all(|x| mask.get_pixel(x, y)[0] == 255)));
        // A cross takes the corners of a block for hair.
        assert!((24..36).all(|y| (30..60).all(|x| mask.get_pixel(x, y)[0] == 0)));
        let after = remove(before.clone(), HairConfig::default());
        assert!((5..55).all(|y| (10..=12).all(|x| after.get_pixel(x, y)[0] >= 219)));
        assert!((24..36).all(|y| (30..60).all(|x| after.get_pixel(x, y) == before.get_pixel(x, y))));
    }

    #[test]
    fn a_black_hat_ignores_what_lies_outside() {
        let map = GrayImage::from_raw(5, 1, vec![9, 3, 7, 7, 1]).unwrap();
        assert_eq!(black_hat(&map, 3).into_raw(), [0, 4, 0, 0, 6]);
        let turned = GrayImage::from_raw(1, 5, vec![9, 3, 7, 7, 1]).unwrap();
        assert_eq!(black_hat(&turned, 3).into_raw(), [0, 4, 0, 0, 6]);
    }

    #[test]
    fn every_picture_has_a_result() {
        for (width, height) in [(0, 0), (1, 1), (1, 40), (40, 1), (2, 2), (5, 7)] {
            let flat = RgbImage::from_pixel(width, height, Rgb([10, 200, 90]));
            assert_eq!(remove(flat.clone(), HairConfig::default()), flat);
            let checked = RgbImage::from_fn(width, height, |x, y| Rgb([((x + y) % 2 * 255) as u8; 3]));
            for (kernel, radius) in [(3, 1), (17, 3), (99, 20)] {
                remove(checked.clone(), HairConfig { kernel, threshold: 0, radius });
            }
        }
    }
}
