//! The black frame of dermoscopes: the round edge of their view, or bars, cut off.
//!
//! The frame is what is dark and hangs together with a corner of the picture, in a copy of at most 256 pixels a side. So a
//! dark lesion is none, not even at the edge, unless it lies in a corner. What is kept is the largest upright rectangle without
//! any of it, or the smallest one around all that is not frame.

use image::{GrayImage, ImageBuffer, Pixel, RgbImage, imageops};
use serde::{Deserialize, Serialize};

use super::hair::gray;
use crate::data::ImageSize;
use crate::data::decode::sides;

/// The longest side of the copy in which the frame is looked for.
const SIDE: u32 = 256;
/// Less than this share of a picture is no view of anything: the picture is dark as a whole.
const LEAST: f64 = 0.05;

/// What is kept of a picture with a black frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// The largest rectangle without any of it.
    Inside,
    /// The smallest rectangle around the view; the corners of a round view stay black.
    Around,
}

/// The constants of the crop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CropConfig {
    /// Gray levels up to this are black.
    pub dark: u8,
    /// What is kept.
    pub keep: Keep,
}

impl Default for CropConfig {
    fn default() -> Self {
        Self { dark: 30, keep: Keep::Inside }
    }
}

/// An upright rectangle of a picture, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// Columns left of it.
    pub x: usize,
    /// Rows above it.
    pub y: usize,
    /// Its size.
    pub size: ImageSize,
}

impl Area {
    /// All of a picture.
    pub fn whole(size: ImageSize) -> Self {
        Self { x: 0, y: 0, size }
    }

    /// This part of a picture or mask.
    pub fn of<P: Pixel<Subpixel = u8> + 'static>(self, picture: ImageBuffer<P, Vec<u8>>) -> ImageBuffer<P, Vec<u8>> {
        let (width, height) = sides(self.size);
        if picture.dimensions() == (width, height) {
            return picture;
        }
        imageops::crop_imm(&picture, self.x as u32, self.y as u32, width, height).to_image()
    }

    fn pixels(self) -> usize {
        self.size.area()
    }
}

/// The part of a picture that is kept.
pub fn view(picture: &RgbImage, config: CropConfig) -> Area {
    let (width, height) = picture.dimensions();
    let whole = Area::whole(ImageSize { width: width as usize, height: height as usize });
    let longest = width.max(height);
    if whole.pixels() == 0 {
        return whole;
    }
    let side = |side: u32| (side * SIDE / longest).max(1);
    let gray = gray(picture);
    let small = if longest > SIDE { imageops::thumbnail(&gray, side(width), side(height)) } else { gray };
    let frame = frame(&small, config.dark);
    let kept = match config.keep {
        Keep::Inside => largest_without(&frame, small.width() as usize),
        Keep::Around => around_others(&frame, small.width() as usize),
    };
    if kept.pixels() as f64 >= LEAST * frame.len() as f64 { enlarged(kept, &small, whole) } else { whole }
}

/// Which pixels are dark and hang together with a corner, row by row.
fn frame(map: &GrayImage, dark: u8) -> Vec<bool> {
    let (width, height) = (map.width() as usize, map.height() as usize);
    let levels = map.as_raw();
    let mut frame = vec![false; levels.len()];
    let mut next = vec![0, width - 1, (height - 1) * width, height * width - 1];
    while let Some(at) = next.pop() {
        if frame[at] || levels[at] > dark {
            continue;
        }
        frame[at] = true;
        let (x, y) = (at % width, at / width);
        next.extend([(x > 0).then(|| at - 1), (x + 1 < width).then_some(at + 1)].into_iter().flatten());
        next.extend([(y > 0).then(|| at - width), (y + 1 < height).then_some(at + width)].into_iter().flatten());
    }
    frame
}

/// The largest rectangle without any frame. Row by row, each column has so many free pixels above; a rectangle that ends in the
/// row is as high as the lowest of its columns, so going along them with the open ones on a stack finds the largest.
fn largest_without(frame: &[bool], width: usize) -> Area {
    let mut free = vec![0; width];
    let mut best = Area::whole(ImageSize { width: 0, height: 0 });
    for (y, row) in frame.chunks_exact(width).enumerate() {
        free.iter_mut().zip(row).for_each(|(free, &frame)| *free = if frame { 0 } else { *free + 1 });
        // Where each open rectangle begins, and its height.
        let mut open: Vec<(usize, usize)> = vec![];
        for x in 0..=width {
            let height = free.get(x).copied().unwrap_or(0);
            let mut begin = x;
            while let Some((start, tall)) = open.pop_if(|(_, tall)| *tall >= height) {
                let found = Area { x: start, y: y + 1 - tall, size: ImageSize { width: x - start, height: tall } };
                if found.pixels() > best.pixels() {
                    best = found;
                }
                begin = start;
            }
            open.push((begin, height));
        }
    }
    best
}

/// The smallest rectangle around all that is no frame.
fn around_others(frame: &[bool], width: usize) -> Area {
    let bounds = |places: &mut dyn Iterator<Item = usize>| {
        places.fold(None, |found: Option<(usize, usize)>, at| {
            found.map_or(Some((at, at)), |(a, b)| Some((a.min(at), b.max(at))))
        })
    };
    let others = || (0..frame.len()).filter(|&at| !frame[at]);
    match (bounds(&mut others().map(|at| at % width)), bounds(&mut others().map(|at| at / width))) {
        (Some((left, right)), Some((top, bottom))) => {
            Area { x: left, y: top, size: ImageSize { width: right - left + 1, height: bottom - top + 1 } }
        }
        _ => Area::whole(ImageSize { width: 0, height: 0 }),
    }
}

/// An area of a small copy in the picture itself. On the sides where there was a frame it is one pixel of the copy smaller: that
/// may still be half dark.
fn enlarged(area: Area, small: &GrayImage, whole: Area) -> Area {
    let side = |from: usize, length: usize, small: usize, large: usize| {
        let inset = |cut: bool| usize::from(cut && length > 2);
        let (begin, end) = (from + inset(from > 0), from + length - inset(from + length < small));
        let (begin, end) = ((begin * large).div_ceil(small), end * large / small);
        (begin, end.saturating_sub(begin).max(1))
    };
    let (x, width) = side(area.x, area.size.width, small.width() as usize, whole.size.width);
    let (y, height) = side(area.y, area.size.height, small.height() as usize, whole.size.height);
    Area { x, y, size: ImageSize { width, height } }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    /// A round view in black; `radius` in parts of half the height.
    fn round(width: u32, height: u32, radius: f32) -> RgbImage {
        let half = height as f32 / 2.0;
        RgbImage::from_fn(width, height, |x, y| {
            let far = (x as f32 + 0.5 - width as f32 / 2.0).hypot(y as f32 + 0.5 - half);
            Rgb(if far < radius * half { [200, 150, 140] } else { [8, 6, 7] })
        })
    }

    fn kept(picture: &RgbImage, keep: Keep) -> Area {
        view(picture, CropConfig { keep, ..CropConfig::default() })
    }

    #[test]
    fn of_a_round_view_the_square_inside_or_around_is_kept() {
        for (width, height) in [(600, 450), (200, 200), (90, 120)] {
            let picture = round(width, height, 0.9 * (width.min(height) as f32 / height as f32));
            let wide = 0.9 * f64::from(width.min(height));
            let (inside, around) = (kept(&picture, Keep::Inside), kept(&picture, Keep::Around));
            let slack = 0.04 * f64::from(width.max(height)) + 3.0;
            let square = (inside.pixels() as f64).sqrt();
            assert!((square - wide / 2.0_f64.sqrt()).abs() < slack, "{width}x{height} {inside:?}");
            assert!((around.size.width as f64 - wide).abs() < slack, "{width}x{height} {around:?}");
            // Not one pixel of the frame is inside.
            let (x, y, size) = (inside.x as u32, inside.y as u32, inside.size);
            let cut = imageops::crop_imm(&picture, x, y, size.width as u32, size.height as u32).to_image();
            assert!(cut.pixels().all(|pixel| pixel[0] == 200), "{inside:?}");
        }
    }

    #[test]
    fn pictures_without_a_frame_stay_whole() {
        let mut lesion = RgbImage::from_pixel(300, 200, Rgb([210, 170, 150]));
        let whole = Area::whole(ImageSize { width: 300, height: 200 });
        assert_eq!(kept(&lesion, Keep::Inside), whole);
        // Dark, and at the edge.
        lesion
            .enumerate_pixels_mut()
            .filter(|(x, y, _)| *x > 200 && (50..150).contains(y))
            .for_each(|p| p.2.0 = [9; 3]);
        assert_eq!((kept(&lesion, Keep::Inside), kept(&lesion, Keep::Around)), (whole, whole));
        // All of it dark.
        let black = RgbImage::new(300, 200);
        assert_eq!((kept(&black, Keep::Inside), kept(&black, Keep::Around)), (whole, whole));
        for (width, height) in [(0, 0), (1, 1), (1, 5), (2, 3), (9000, 1)] {
            let size = ImageSize { width: width as usize, height: height as usize };
            for level in [0, 200] {
                let flat = RgbImage::from_pixel(width, height, Rgb([level; 3]));
                assert_eq!(kept(&flat, Keep::Inside), Area::whole(size), "{width}x{height}");
            }
        }
    }

    #[test]
    fn bars_are_cut_off() {
        let barred = RgbImage::from_fn(100, 80, |_, y| Rgb([if (10..70).contains(&y) { 180 } else { 3 }; 3]));
        let expected = Area { x: 0, y: 11, size: ImageSize { width: 100, height: 58 } };
        assert_eq!((kept(&barred, Keep::Inside), kept(&barred, Keep::Around)), (expected, expected));
    }

    #[test]
    fn the_largest_rectangle_is_found() {
        // Against all rectangles, on small random maps.
        let stream = crate::rng::Stream::named(3, "frames");
        for map in 0..50 {
            let (width, height) = (1 + map as usize % 7, 1 + map as usize / 7);
            let frame: Vec<bool> = (0..width * height).map(|i| stream.uniform(map * 64 + i as u64) < 0.3).collect();
            let mut most = 0;
            for (x0, y0) in (0..width).flat_map(|x| (0..height).map(move |y| (x, y))) {
                for (x1, y1) in (x0..width).flat_map(|x| (y0..height).map(move |y| (x, y))) {
                    let free = (y0..=y1).all(|y| (x0..=x1).all(|x| !frame[y * width + x]));
                    most = most.max(if free { (x1 - x0 + 1) * (y1 - y0 + 1) } else { 0 });
                }
            }
            let found = largest_without(&frame, width);
            assert_eq!(found.pixels(), most, "{width}x{height} {frame:?}");
        }
    }
}
