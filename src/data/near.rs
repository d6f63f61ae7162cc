//! Near duplicates: pictures that show the same thing up to scale, compression, brightness, turning and mirroring.
//!
//! A picture is compared by a thumbnail. Two thumbnails are first compared coarsely, 8x8 in gray, in all eight positions
//! of the square; what passes is compared at 32x32, in colour and by its detail: what is left of it in gray when what is
//! around each pixel is taken away. All compare by Pearson's correlation, which brightness and contrast leave alone.
//!
//! The detail is what counts. A dark spot in the middle of bright skin looks like any other: of HAM10000's pictures, those
//! of different lesions correlate by up to 0.985, their details by up to 0.91; two that are one picture by 0.999 and 0.99.

use image::{RgbImage, imageops};
use rayon::prelude::*;

/// Side of a thumbnail.
const SIDE: usize = 32;
/// Side of the coarse one.
const COARSE: usize = 8;
/// Correlations above which pictures are taken for one: all three must be.
const COARSE_LIMIT: f32 = 0.97;
const COLOUR_LIMIT: f32 = 0.98;
const DETAIL_LIMIT: f32 = 0.93;
/// Pixels on each side that are around a pixel, for its detail.
const AROUND: usize = 2;

/// A small copy of a picture.
#[derive(Debug, Clone)]
pub(super) struct Thumbnail {
    /// Shape `[SIDE, SIDE, 3]`.
    pixels: Vec<u8>,
}

/// Two pictures that look the same.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pair {
    pub first: usize,
    pub second: usize,
    /// The correlation of their thumbnails in colour.
    pub likeness: f32,
}

impl Thumbnail {
    /// Of a picture of any size.
    pub fn of(picture: &RgbImage) -> Self {
        let side = SIDE as u32;
        // A picture many times as large is first reduced by plain means, which is faster.
        let (width, height) = picture.dimensions();
        let small = match width.min(height) > 8 * side {
            true => imageops::resize(&imageops::thumbnail(picture, 4 * side, 4 * side), side, side, FILTER),
            false => imageops::resize(picture, side, side, FILTER),
        };
        Self { pixels: small.into_raw() }
    }

    /// 8x8 in gray, of mean 0 and length 1; zeros if it is flat.
    fn coarse(&self) -> [f32; COARSE * COARSE] {
        let step = SIDE / COARSE;
        let mut out = [0.0; COARSE * COARSE];
        for (i, pixel) in self.pixels.chunks_exact(3).enumerate() {
            let (y, x) = (i / SIDE / step, i % SIDE / step);
            out[y * COARSE + x] += pixel.iter().map(|&v| f32::from(v)).sum::<f32>();
        }
        normalise(&mut out);
        out
    }

    /// A colour in a position.
    fn plane(&self, channel: usize, position: usize) -> Vec<f32> {
        (0..SIDE * SIDE).map(|i| f32::from(self.pixels[3 * place(i, SIDE, position) + channel])).collect()
    }

    /// The correlation in colour with another one in a position, the mean of three, if both look the same.
    fn likeness(&self, other: &Self, position: usize) -> Option<f32> {
        let (mut likeness, mut grays) = (0.0, [vec![0.0; SIDE * SIDE], vec![0.0; SIDE * SIDE]]);
        for channel in 0..3 {
            let mut planes = [self.plane(channel, 0), other.plane(channel, position)];
            for (gray, plane) in grays.iter_mut().zip(&mut planes) {
                gray.iter_mut().zip(&*plane).for_each(|(gray, value)| *gray += value);
                normalise(plane);
            }
            likeness += dot(&planes[0], &planes[1]) / 3.0;
        }
        let [a, b] = grays.map(|gray| detail(&gray));
        (likeness > COLOUR_LIMIT && dot(&a, &b) > DETAIL_LIMIT).then_some(likeness)
    }
}

/// A plane less the mean of what is around each pixel, of mean 0 and length 1.
fn detail(plane: &[f32]) -> Vec<f32> {
    let mut out = Vec::with_capacity(plane.len());
    for i in 0..plane.len() {
        let (y, x) = (i / SIDE, i % SIDE);
        let near = |at: usize| at.saturating_sub(AROUND)..(at + AROUND + 1).min(SIDE);
        let sum: f32 = near(y).map(|y| plane[y * SIDE..][near(x)].iter().sum::<f32>()).sum();
        out.push(plane[i] - sum / (near(y).len() * near(x).len()) as f32);
    }
    normalise(&mut out);
    out
}

const FILTER: imageops::FilterType = imageops::FilterType::Triangle;

/// Where element `i` of a square comes from in one of its eight positions: bit 0 mirrors, bits 1 and 2 turn.
fn place(i: usize, side: usize, position: usize) -> usize {
    let (mut y, mut x) = (i / side, i % side);
    if position & 1 == 1 {
        x = side - 1 - x;
    }
    for _ in 0..position >> 1 {
        (y, x) = (x, side - 1 - y);
    }
    y * side + x
}

fn normalise(values: &mut [f32]) {
    let mean = values.iter().sum::<f32>() / values.len() as f32;
    values.iter_mut().for_each(|v| *v -= mean);
    let length = dot(values, values).sqrt();
    // Below one step of 255 in each value there is nothing to compare.
    let scale = if length < (values.len() as f32).sqrt() { 0.0 } else { 1.0 / length };
    values.iter_mut().for_each(|v| *v *= scale);
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// All pairs that look the same, in ascending order. `tick` is called now and then; its error stops.
pub(super) fn pairs<E>(
    thumbnails: &[&Thumbnail],
    tick: &mut dyn FnMut(usize) -> Result<(), E>,
) -> Result<Vec<Pair>, E> {
    const AT_ONCE: usize = 256;
    let coarse: Vec<_> = thumbnails.iter().map(|thumbnail| thumbnail.coarse()).collect();
    let mut found = Vec::new();
    for start in (0..thumbnails.len()).step_by(AT_ONCE) {
        tick(start)?;
        let rows = start..(start + AT_ONCE).min(thumbnails.len());
        let of_row = |first: usize| {
            let turned: Vec<[f32; COARSE * COARSE]> =
                (0..8).map(|p| std::array::from_fn(|i| coarse[first][place(i, COARSE, p)])).collect();
            let pair = |second: usize| {
                let like = |p: &usize| dot(&turned[*p], &coarse[second]) > COARSE_LIMIT;
                let likeness = (0..8).filter(like).filter_map(|p| thumbnails[second].likeness(thumbnails[first], p));
                let likeness = likeness.max_by(f32::total_cmp)?;
                Some(Pair { first, second, likeness })
            };
            (first + 1..thumbnails.len()).filter_map(pair).collect::<Vec<_>>()
        };
        found.extend(rows.into_par_iter().flat_map_iter(of_row).collect::<Vec<_>>());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use image::Rgb;

    use super::*;
    use crate::rng::Stream;

    /// A picture of waves of its own for each seed, a few across it: with some detail.
    fn picture(seed: u32, width: u32, height: u32) -> RgbImage {
        let stream = Stream::new(seed, 3);
        let wave = |c: u64, k: u64| f64::from(stream.uniform(20 * c + k));
        RgbImage::from_fn(width, height, |x, y| {
            let (x, y) = (f64::from(x) / f64::from(width), f64::from(y) / f64::from(height));
            Rgb(std::array::from_fn(|c| {
                let value: f64 = (0..4)
                    .map(|k| {
                        let w = |i: u64| wave(c as u64, 4 * k + i);
                        (40.0 * (w(0) * x + w(1) * y) + 6.3 * w(2)).sin() * w(3)
                    })
                    .sum();
                (128.0 + 40.0 * value) as u8
            }))
        })
    }

    fn found(pictures: &[RgbImage]) -> Vec<(usize, usize)> {
        let thumbnails: Vec<Thumbnail> = pictures.iter().map(Thumbnail::of).collect();
        let pairs = pairs::<Infallible>(&thumbnails.iter().collect::<Vec<_>>(), &mut |_| Ok(())).unwrap();
        pairs.into_iter().map(|pair| (pair.first, pair.second)).collect()
    }

    #[test]
    fn a_picture_is_found_again_turned_mirrored_smaller_and_darker() {
        let one = picture(1, 120, 90);
        let smaller = imageops::resize(&one, 60, 45, imageops::FilterType::CatmullRom);
        let mut darker = one.clone();
        darker.iter_mut().for_each(|v| *v = (f32::from(*v) * 0.8) as u8);
        let turned = [
            imageops::rotate90(&one),
            imageops::flip_vertical(&one),
            imageops::flip_horizontal(&imageops::rotate270(&one)),
        ];
        let mut pictures = vec![one, picture(2, 120, 90), smaller, darker];
        pictures.extend(turned);
        let same = [0, 2, 3, 4, 5, 6];
        let all: Vec<(usize, usize)> =
            same.iter().flat_map(|&a| same.iter().filter(move |&&b| b > a).map(move |&b| (a, b))).collect();
        assert_eq!(found(&pictures), all);
    }

    #[test]
    fn other_pictures_and_flat_ones_are_not_taken_for_one() {
        let mut pictures: Vec<RgbImage> = (10..30).map(|seed| picture(seed, 64, 64)).collect();
        pictures.extend([RgbImage::from_pixel(9, 9, Rgb([7; 3])), RgbImage::from_pixel(9, 9, Rgb([9; 3]))]);
        assert_eq!(found(&pictures), []);
    }

    #[test]
    fn the_eight_positions_are_different_and_leave_nothing_out() {
        let mut all: Vec<Vec<usize>> = (0..8).map(|p| (0..16).map(|i| place(i, 4, p)).collect()).collect();
        for position in &all {
            let mut sorted = position.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..16).collect::<Vec<_>>());
        }
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 8);
    }
}
