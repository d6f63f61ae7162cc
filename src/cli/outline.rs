//! Masks as outlines on their pictures.

use image::{GrayImage, Rgb, RgbImage};

/// The colour of what was drawn by hand.
pub(super) const DRAWN: Rgb<u8> = Rgb([255, 255, 255]);
/// The colour of what a model marks.
pub(super) const FOUND: Rgb<u8> = Rgb([230, 30, 30]);
/// Outlines are a pixel wide for each so many pixels of the picture's longer side.
const SHARP: u32 = 160;

/// A picture with the outlines of masks of its size, as wide as can be seen.
pub(super) fn outlined(mut picture: RgbImage, masks: &[(&GrayImage, Rgb<u8>)]) -> RgbImage {
    let (width, height) = picture.dimensions();
    let reach = (width.max(height) / SHARP).max(1);
    for (mask, colour) in masks {
        let inside = |x: u32, y: u32| mask.get_pixel(x, y)[0] > 127;
        for (x, y) in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))) {
            // The inner edge: what is inside and has something outside within reach.
            let near = [(reach, 0), (0, reach)].into_iter().any(|(dx, dy)| {
                let before = x >= dx && y >= dy && !inside(x - dx, y - dy);
                let behind = x + dx < width && y + dy < height && !inside(x + dx, y + dy);
                before || behind
            });
            if near && inside(x, y) {
                picture.put_pixel(x, y, *colour);
            }
        }
    }
    picture
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outline_is_the_inner_edge_of_a_mask() {
        let mask = GrayImage::from_fn(9, 7, |x, y| {
            image::Luma([if (2..7).contains(&x) && (1..6).contains(&y) { 255 } else { 0 }])
        });
        let picture = outlined(RgbImage::new(9, 7), &[(&mask, FOUND)]);
        let marked = picture.pixels().filter(|&&p| p == FOUND).count();
        assert_eq!(marked, 16);
        assert!(
            *picture.get_pixel(2, 1) == FOUND && *picture.get_pixel(3, 2) != FOUND && *picture.get_pixel(1, 1) != FOUND
        );
    }
}
