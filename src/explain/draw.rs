//! Maps in colours.

use image::{Rgb, RgbImage};

use crate::data::ImageSize;
use crate::error::{Error, Kind, Result};

/// Sixteen colours of viridis at equal distances, from 0 to 1 (N. Smith and S. van der Walt, 2015, public domain): equal steps
/// look equal, it gets lighter throughout, also in gray, and the colour-blind see the same.
const VIRIDIS: [[u8; 3]; 16] = [
    [68, 1, 84],
    [72, 26, 108],
    [71, 47, 125],
    [65, 68, 135],
    [57, 86, 140],
    [49, 104, 142],
    [42, 120, 142],
    [35, 136, 142],
    [31, 152, 139],
    [34, 168, 132],
    [53, 183, 121],
    [84, 197, 104],
    [122, 209, 81],
    [165, 219, 54],
    [210, 226, 27],
    [253, 231, 37],
];

/// The share of colour in an overlay where the map is 1. Where it is 0 the picture is as it was.
const OPACITY: f32 = 0.65;

/// The colour of a value in [0, 1]: between two of the table.
fn colour(value: f32) -> [f32; 3] {
    let place = value.clamp(0.0, 1.0) * (VIRIDIS.len() - 1) as f32;
    let below = (place as usize).min(VIRIDIS.len() - 2);
    std::array::from_fn(|c| {
        let [low, high] = [VIRIDIS[below][c], VIRIDIS[below + 1][c]].map(f32::from);
        low + (high - low) * (place - below as f32)
    })
}

/// A map of a picture of this size in colours, from dark blue for 0 to yellow for 1.
///
/// # Errors
/// [`Kind::Internal`] if the map has another size.
pub fn heat_map(map: &[f32], size: ImageSize) -> Result<RgbImage> {
    check(map, size)?;
    let pixels = map.iter().flat_map(|&value| colour(value).map(|c| c.round() as u8)).collect();
    RgbImage::from_raw(size.width as u32, size.height as u32, pixels).ok_or_else(|| wrong(map, size))
}

/// A picture with a map of it laid over: the larger the value, the more of its colour.
///
/// # Errors
/// [`Kind::Internal`] if the map has another size.
pub fn overlay(picture: &RgbImage, map: &[f32]) -> Result<RgbImage> {
    check(map, picture.into())?;
    let mut drawn = picture.clone();
    for (Rgb(pixel), &value) in drawn.pixels_mut().zip(map) {
        let share = OPACITY * value.clamp(0.0, 1.0);
        let colour = colour(value);
        *pixel = std::array::from_fn(|c| (f32::from(pixel[c]) * (1.0 - share) + colour[c] * share).round() as u8);
    }
    Ok(drawn)
}

fn check(map: &[f32], size: ImageSize) -> Result<()> {
    if map.len() == size.area() { Ok(()) } else { Err(wrong(map, size)) }
}

fn wrong(map: &[f32], size: ImageSize) -> Error {
    Error::new(Kind::Internal, format!("a map of {} values for a picture of {size}", map.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_get_lighter_throughout() {
        let light = |value: f32| {
            let [r, g, b] = colour(value);
            0.2126 * r + 0.7152 * g + 0.0722 * b
        };
        let steps: Vec<f32> = (0..=255).map(|i| light(i as f32 / 255.0)).collect();
        assert!(steps.windows(2).all(|pair| pair[1] > pair[0]));
        assert_eq!((colour(-1.0), colour(2.0)), (VIRIDIS[0].map(f32::from), VIRIDIS[15].map(f32::from)));
        assert_eq!(colour(0.5 / 15.0), [70.0, 13.5, 96.0]);
    }

    #[test]
    fn maps_are_drawn_at_their_place() {
        let size = ImageSize { width: 3, height: 1 };
        let map = [0.0, 1.0, 0.0];
        let heat = heat_map(&map, size).unwrap();
        assert_eq!([0, 1, 2].map(|x| heat.get_pixel(x, 0).0), [VIRIDIS[0], VIRIDIS[15], VIRIDIS[0]]);
        let gray = RgbImage::from_pixel(3, 1, Rgb([100; 3]));
        let over = overlay(&gray, &map).unwrap();
        assert_eq!(over.get_pixel(1, 0).0, [199, 185, 59]);
        assert_eq!(over.get_pixel(0, 0).0, [100; 3]);
        assert!(heat_map(&map, 3.into()).is_err() && overlay(&gray, &map[1..]).is_err());
    }
}
