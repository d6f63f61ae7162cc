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
        let deep = eroded(mask, reach as usize);
        for ((pixel, inside), deep) in picture.pixels_mut().zip(mask.pixels()).zip(deep) {
            if inside[0] > 127 && !deep {
                *pixel = *colour;
            }
        }
    }
    picture
}

/// Which pixels of a mask have nothing outside it within so many pixels, along rows, columns and diagonals. Beyond the picture's
/// edge nothing is outside.
fn eroded(mask: &GrayImage, reach: usize) -> Vec<bool> {
    let (width, height) = (mask.width() as usize, mask.height() as usize);
    let inside: Vec<bool> = mask.pixels().map(|p| p[0] > 127).collect();
    // Along lines: how many pixels since the last one outside, from both ends. At the ends there is none near.
    let along = |inside: &[bool], lines: usize, length: usize, at: &dyn Fn(usize, usize) -> usize| {
        let mut near = vec![false; inside.len()];
        for line in 0..lines {
            for order in [&mut (0..length) as &mut dyn Iterator<Item = usize>, &mut (0..length).rev()] {
                let mut since = reach;
                for place in order {
                    since = if inside[at(line, place)] { since + 1 } else { 0 };
                    near[at(line, place)] |= since <= reach;
                }
            }
        }
        near
    };
    let rows = along(&inside, height, width, &|line, place| line * width + place);
    let rows: Vec<bool> = rows.into_iter().map(|near| !near).collect();
    let columns = along(&rows, width, height, &|line, place| place * width + line);
    columns.into_iter().map(|near| !near).collect()
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
        // As wide as asked for, at corners too, and nothing of what lies deeper; the picture's edge is no border.
        let inside = |x: u32, y: u32| (3..20).contains(&x) && y < 15;
        let mask = GrayImage::from_fn(24, 20, |x, y| image::Luma([if inside(x, y) { 255 } else { 0 }]));
        let deep = eroded(&mask, 2);
        for (pixel, deep) in deep.into_iter().enumerate() {
            let (x, y) = (pixel as u32 % 24, pixel as u32 / 24);
            assert_eq!(deep, (5..18).contains(&x) && y < 13, "{x} {y}");
        }
        assert!(
            *picture.get_pixel(2, 1) == FOUND && *picture.get_pixel(3, 2) != FOUND && *picture.get_pixel(1, 1) != FOUND
        );
    }
}
