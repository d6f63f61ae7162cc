//! Filling in pixels from their surroundings (A. Telea, "An image inpainting technique based on the fast marching method",
//! Journal of Graphics Tools 9(1), 2004).
//!
//! The border of what is to be filled moves inwards at unit speed (the eikonal equation, solved by fast marching), and each
//! pixel it reaches becomes a weighted mean of the known ones within a radius: those along the border's normal, near the pixel
//! and on its level line of arrival times count most. The same march outwards gives the known side its (negative) times.
//!
//! Results are OpenCV's, of which programs that are compared with this one were made; so where it departs from the paper, this
//! does too: the gradient's contribution is divided by its length, a difference over two pixels counts double instead of half,
//! one half is added before rounding, what lies outside the picture is known and infinitely late, and the gradient on the
//! outermost rows and columns is read one pixel further in.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use image::{GrayImage, RgbImage};

/// A time that never comes.
const NEVER: f32 = 1e6;
/// What a direction across the normal counts for.
const ACROSS: f32 = 1e-6;
/// Directions count as across up to this.
const NEARLY_ACROSS: f32 = 0.01;
/// Keeps a division defined.
const TINY: f32 = 1e-20;

/// Fills in the pixels of `picture` at which `mask`, of the same size, is not zero. If there are no others nothing is done.
pub fn fill(picture: &mut RgbImage, mask: &GrayImage, radius: usize) {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    if mask.dimensions() != picture.dimensions() || mask.as_raw().iter().all(|&inside| inside == 0) {
        return;
    }
    let mut front = Front::of(mask);
    let band = front.band();
    front.march_outwards(&band, radius);
    let mut pixels = Pixels { picture: picture.as_mut(), width, height, radius };
    front.march(&band, &mut |front, x, y| pixels.fill(front, x, y));
}

/// A front on its way, over a picture with a rim of one pixel around it.
struct Front {
    /// Pixels of a row, with the rim.
    width: usize,
    /// Where it has not arrived and is to.
    unknown: Vec<bool>,
    /// When it has arrived elsewhere.
    time: Vec<f32>,
}

impl Front {
    fn of(mask: &GrayImage) -> Self {
        let (columns, width) = (mask.width() as usize, mask.width() as usize + 2);
        let mut unknown = vec![false; width * (mask.height() as usize + 2)];
        for (row, levels) in unknown.chunks_exact_mut(width).skip(1).zip(mask.as_raw().chunks_exact(columns)) {
            row[1..].iter_mut().zip(levels).for_each(|(unknown, &level)| *unknown = level != 0);
        }
        Self { width, time: vec![NEVER; unknown.len()], unknown }
    }

    /// The places right, left, below and above.
    fn beside(&self, at: usize) -> [usize; 4] {
        [at - self.width, at - 1, at + self.width, at + 1]
    }

    /// Whether a place belongs to the picture.
    fn within(&self, at: usize) -> bool {
        let (x, y) = (at % self.width, at / self.width);
        x > 0 && y > 0 && x < self.width - 1 && y < self.unknown.len() / self.width - 1
    }

    /// The known places beside unknown ones, where the front begins.
    fn band(&mut self) -> Vec<usize> {
        let inside = (0..self.unknown.len()).filter(|&at| self.within(at) && !self.unknown[at]);
        let band: Vec<usize> = inside.filter(|&at| self.beside(at).iter().any(|&next| self.unknown[next])).collect();
        band.iter().for_each(|&at| self.time[at] = 0.0);
        band
    }

    /// Gives the known places up to `radius` away from unknown ones their times, which are negative.
    fn march_outwards(&mut self, band: &[usize], radius: usize) {
        let mut ring = vec![false; self.unknown.len()];
        let rows = self.unknown.len() / self.width;
        for at in (0..self.unknown.len()).filter(|&at| self.unknown[at]) {
            let (x, y) = (at % self.width, at / self.width);
            for y in y.saturating_sub(radius)..=(y + radius).min(rows - 1) {
                ring[y * self.width..][x.saturating_sub(radius)..=(x + radius).min(self.width - 1)].fill(true);
            }
        }
        let outside = |at: usize| ring[at] && self.within(at) && !self.unknown[at] && self.time[at] == NEVER;
        let unknown = (0..ring.len()).map(outside).collect();
        let mut outwards = Self { width: self.width, unknown, time: std::mem::take(&mut self.time) };
        let mut reached = vec![];
        outwards.march(band, &mut |front, x, y| reached.push(y * front.width + x));
        self.time = outwards.time;
        reached.into_iter().for_each(|at| self.time[at] = -self.time[at]);
    }

    /// Moves the front on from `band`, nearest first and of equals those that were reached first. `arrive` is called for each
    /// place when its time is known and it is not yet counted as known.
    fn march(&mut self, band: &[usize], arrive: &mut dyn FnMut(&Self, usize, usize)) {
        // Times that are not negative are ordered as their bits are.
        let mut waiting: BinaryHeap<_> = band.iter().enumerate().map(|(n, &at)| Reverse((0, n, at))).collect();
        let mut number = band.len();
        while let Some(Reverse((_, _, at))) = waiting.pop() {
            for next in self.beside(at) {
                if !self.unknown[next] {
                    continue;
                }
                let time = self.arrival(next);
                self.time[next] = time;
                arrive(self, next % self.width, next / self.width);
                self.unknown[next] = false;
                waiting.push(Reverse((time.to_bits(), number, next)));
                number += 1;
            }
        }
    }

    /// When the front arrives at a place: the earliest of what the four pairs of neighbours say.
    fn arrival(&self, at: usize) -> f32 {
        let [above, left, below, right] = self.beside(at);
        let pairs = [(above, left), (below, left), (above, right), (below, right)];
        pairs.into_iter().map(|(one, two)| self.solve(one, two)).fold(f32::INFINITY, f32::min)
    }

    /// The solution of |grad T| = 1 from a neighbour above or below and one at the side.
    fn solve(&self, one: usize, two: usize) -> f32 {
        let (a, b) = (f64::from(self.time[one]), f64::from(self.time[two]));
        let time = match (self.unknown[one], self.unknown[two]) {
            (false, false) if (a - b).abs() < 1.0 => (a + b + (2.0 - (a - b) * (a - b)).sqrt()) * 0.5,
            (false, true) => 1.0 + a,
            (true, false) => 1.0 + b,
            _ => 1.0 + a.min(b),
        };
        time as f32
    }

    /// The time at a place, if it is known.
    fn known_time(&self, at: usize) -> Option<f32> {
        (!self.unknown[at]).then(|| self.time[at])
    }

    /// The gradient of the times along a step of `step` places.
    fn slope(&self, at: usize, step: usize) -> f32 {
        slope(self.known_time(at - step), (self.time[at], self.time[at]), self.known_time(at + step), 0.5)
    }
}

/// A difference along a line, from the sides that are known: `both` times that of the neighbours if both are, else the one to
/// the place itself, as seen from `(behind it, before it)`.
fn slope(before: Option<f32>, here: (f32, f32), behind: Option<f32>, both: f32) -> f32 {
    match (before, behind) {
        (Some(before), Some(behind)) => (behind - before) * both,
        (None, Some(behind)) => behind - here.0,
        (Some(before), None) => here.1 - before,
        (None, None) => 0.0,
    }
}

/// The picture that is filled in.
struct Pixels<'a> {
    /// Red, green, blue; without a rim.
    picture: &'a mut [u8],
    width: usize,
    height: usize,
    radius: usize,
}

/// Where the neighbours of a coordinate, which counts the rim, are read from in a picture of `length`: next to the first of
/// these the one before it, next to the second the one behind it. Neither is outside.
fn places(at: usize, length: usize) -> (usize, usize) {
    (if at == 1 { 1 } else { at - 1 }, if at == length { length.max(2) - 2 } else { at - 1 })
}

impl Pixels<'_> {
    fn level(&self, x: usize, y: usize, channel: usize) -> f32 {
        f32::from(self.picture[(y * self.width + x) * 3 + channel])
    }

    /// Fills in the pixel that the front has reached; coordinates count the rim.
    fn fill(&mut self, front: &Front, x: usize, y: usize) {
        let at = y * front.width + x;
        let normal = [front.slope(at, 1), front.slope(at, front.width)];
        // Value, gradient along x and y, each times its weight, and the weights.
        let mut sums = [[0.0, 0.0, 0.0, TINY]; 3];
        let reach = |at: usize, length: usize| at.saturating_sub(self.radius).max(1)..=(at + self.radius).min(length);
        for v in reach(y, self.height) {
            for u in reach(x, self.width) {
                let far = (u.abs_diff(x).pow(2) + v.abs_diff(y).pow(2)) as f32;
                let source = v * front.width + u;
                if front.unknown[source] || far > (self.radius * self.radius) as f32 {
                    continue;
                }
                let towards = [x as f32 - u as f32, y as f32 - v as f32];
                let along = towards[0] * normal[0] + towards[1] * normal[1];
                let along = if along.abs() <= NEARLY_ACROSS { ACROSS } else { along };
                let near = (1.0 / (f64::from(far) * f64::from(far).sqrt())) as f32;
                let apart = f64::from((front.time[source] - front.time[at]).abs());
                let level_line = (1.0 / (1.0 + apart)) as f32;
                let weight = (near * level_line * along).abs();
                for (channel, [value, gx, gy, weights]) in sums.iter_mut().enumerate() {
                    let [level, dx, dy] = self.local(front, u, v, channel);
                    *value += weight * level;
                    *gx -= weight * (dx * towards[0]);
                    *gy -= weight * (dy * towards[1]);
                    *weights += weight;
                }
            }
        }
        for (channel, [value, gx, gy, weights]) in sums.into_iter().enumerate() {
            let level = value / weights + (gx + gy) / ((gx * gx + gy * gy).sqrt() + TINY) + 0.5;
            self.picture[((y - 1) * self.width + x - 1) * 3 + channel] = level.round_ties_even() as u8;
        }
    }

    /// Level and gradient of a known pixel.
    fn local(&self, front: &Front, u: usize, v: usize, channel: usize) -> [f32; 3] {
        let at = v * front.width + u;
        let level = |x: usize, y: usize| self.level(x.min(self.width - 1), y.min(self.height - 1), channel);
        let known = |at: usize, level: f32| (!front.unknown[at]).then_some(level);
        let ((x, later_x), (y, later_y)) = (places(u, self.width), places(v, self.height));
        let (left, right) = (known(at - 1, level(x - 1.min(x), y)), known(at + 1, level(later_x + 1, y)));
        let dx = slope(left, (level(x, y), level(later_x, y)), right, 2.0);
        let above = known(at - front.width, level(x, y - 1.min(y)));
        let below = known(at + front.width, level(x, later_y + 1));
        let dy = slope(above, (level(x, y), level(x, later_y)), below, 2.0);
        [level(u - 1, v - 1), dx, dy]
    }
}

#[cfg(test)]
mod tests {
    use image::{Luma, Rgb};

    use super::*;

    #[test]
    fn a_hole_in_a_slope_is_filled_with_the_slope() {
        let slope = RgbImage::from_fn(40, 30, |x, y| Rgb([(4 * x) as u8, (5 * y) as u8, 90]));
        let hole = |x: u32, y: u32| (15..20).contains(&x) && (10..16).contains(&y);
        let mut holed = slope.clone();
        holed.enumerate_pixels_mut().filter(|(x, y, _)| hole(*x, *y)).for_each(|(_, _, pixel)| *pixel = Rgb([0; 3]));
        let mask = GrayImage::from_fn(40, 30, |x, y| Luma([u8::from(hole(x, y))]));
        fill(&mut holed, &mask, 3);
        for (x, y, pixel) in holed.enumerate_pixels() {
            let far = (0..3).map(|c| pixel[c].abs_diff(slope.get_pixel(x, y)[c])).max().unwrap();
            assert!(far <= if hole(x, y) { 8 } else { 0 }, "{x} {y} {far}");
        }
    }

    #[test]
    fn nothing_is_filled_from_nothing() {
        let picture = RgbImage::from_fn(9, 7, |x, y| Rgb([(x * y) as u8; 3]));
        for level in [0, 1] {
            let mut filled = picture.clone();
            fill(&mut filled, &GrayImage::from_pixel(9, 7, Luma([level])), 2);
            assert_eq!(filled, picture, "mask {level}");
        }
        let mut other = picture.clone();
        fill(&mut other, &GrayImage::from_pixel(3, 3, Luma([1])), 2);
        assert_eq!(other, picture);
    }

    #[test]
    fn a_constant_stays_nearly() {
        // Half a level is added before rounding, and a gradient that is nothing but rounding counts a whole one.
        for radius in [1, 3, 8] {
            let mut flat = RgbImage::from_pixel(20, 20, Rgb([50, 100, 150]));
            fill(&mut flat, &GrayImage::from_fn(20, 20, |x, y| Luma([u8::from(x % 5 > 1 && y % 7 > 2)])), radius);
            assert!(flat.pixels().all(|p| (0..3).all(|c| p[c].abs_diff([50, 100, 150][c]) <= 3)), "{radius}");
        }
    }
}
