//! CPU twin.

use super::Augment;
use crate::ops::{Array, Real, Twin};
use crate::rng::{Stream, unit};

pub(super) struct AugmentTwin {
    pub how: Augment,
    /// The masks instead of the colours.
    pub masks: bool,
}

/// An index mirrored into `0..size`, one reflection at a time.
fn mirror(mut i: i64, size: i64) -> usize {
    if size == 1 {
        return 0;
    }
    while !(0..size).contains(&i) {
        i = if i < 0 { -i } else { 2 * (size - 1) - i };
    }
    i as usize
}

/// Luma and the two axes of colour of YIQ, as rows of a matrix that takes red, green and blue.
const YIQ: [[f64; 3]; 3] = [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]];

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

/// A colour with I and Q scaled and turned, by way of YIQ and back.
fn coloured(rgb: [f64; 3], saturation: f64, angle: f64) -> [f64; 3] {
    let [y, i, q] = YIQ.map(|row| dot(row, rgb));
    let (sin, cos) = angle.sin_cos();
    let yiq = [y, saturation * (i * cos - q * sin), saturation * (i * sin + q * cos)];
    let [a, b, c] = YIQ;
    let columns = [cross(b, c), cross(c, a), cross(a, b)];
    std::array::from_fn(|channel| dot(columns.map(|column| column[channel]), yiq) / dot(a, cross(b, c)))
}

/// A picture's draws, by number.
struct Draws {
    first: Stream,
    more: Stream,
    sample: u32,
    epoch: u32,
}

impl Draws {
    fn first(&self, d: u32) -> f64 {
        f64::from(unit(self.first.words([self.sample, self.epoch.wrapping_mul(8).wrapping_add(d)])[0]))
    }

    fn more(&self, d: u32) -> f64 {
        f64::from(unit(self.more.words([self.sample, self.epoch.wrapping_mul(16).wrapping_add(d)])[0]))
    }
}

/// A draw of `[0, 1)` spread over `[-1, 1)`.
fn symmetric(draw: f64) -> f64 {
    2.0 * draw - 1.0
}

impl AugmentTwin {
    /// The warped bytes `[height, width, channels]` of a picture's words, each in `[0, 1]`.
    fn warped<T: Real>(&self, words: &[T], [height, width]: [usize; 2], draws: &Draws) -> Vec<T> {
        let how = self.how;
        let (hflip, vflip) = (how.hflip && draws.first(0) < 0.5, how.vflip && draws.first(1) < 0.5);
        let angle = (f64::from(how.rotation) * symmetric(draws.first(2))).to_radians();
        let scale = 1.0 + f64::from(how.zoom) * symmetric(draws.first(3));
        let (along, across) = (T::of(angle.cos() / scale), T::of(angle.sin() / scale));
        let [right, down] = [(0, width), (1, height)]
            .map(|(d, extent)| T::of(f64::from(how.shift) * extent as f64 * symmetric(draws.more(d))));
        let lean = T::of((f64::from(how.shear) * symmetric(draws.more(2))).to_radians().tan());
        let [centre_x, centre_y] = [width, height].map(|extent| T::of(0.5 * (extent as f64 - 1.0)));
        let value = |row: i64, column: i64, byte: usize| {
            let (row, column) = (mirror(row, height as i64), mirror(column, width as i64));
            let row = if vflip { height - 1 - row } else { row };
            let column = if hflip { width - 1 - column } else { column };
            let word = words[row * width + column].f64() as u32;
            T::of(f64::from(word.to_le_bytes()[byte]) / 255.0)
        };
        let bytes = if self.masks { 3..4 } else { 0..3 };
        let mut picture = vec![];
        for row in 0..height {
            for column in 0..width {
                let dy = T::of(row as f64) - centre_y - down;
                let dx = T::of(column as f64) - centre_x - right - lean * dy;
                let (x, y) = (along * dx - across * dy + centre_x, across * dx + along * dy + centre_y);
                let (x0, y0) = (x.f64().floor(), y.f64().floor());
                let (fx, fy) = (x - T::of(x0), y - T::of(y0));
                for byte in bytes.clone() {
                    let tap = |down: i64, right: i64| value(y0 as i64 + down, x0 as i64 + right, byte);
                    let top = tap(0, 0) * (T::one() - fx) + tap(0, 1) * fx;
                    let bottom = tap(1, 0) * (T::one() - fx) + tap(1, 1) * fx;
                    picture.push(top * (T::one() - fy) + bottom * fy);
                }
            }
        }
        picture
    }

    /// A picture with each pixel the mean of the square around it, weighted by a bell in two dimensions.
    fn blurred<T: Real>(&self, picture: Vec<T>, [height, width]: [usize; 2], draws: &Draws) -> Vec<T> {
        let sigma = (self.how.blur * draws.more(5) as f32).max(0.1);
        if self.how.blur == 0.0 {
            return picture;
        }
        let radius = (3.0 * sigma).ceil() as i64;
        let bell = |i: i64, j: i64| (-0.5 * (i * i + j * j) as f64 / f64::from(sigma * sigma)).exp();
        let mut result = vec![T::zero(); picture.len()];
        for (at, value) in result.iter_mut().enumerate() {
            let (row, column, channel) = ((at / 3 / width) as i64, (at / 3 % width) as i64, at % 3);
            let mut weight = 0.0;
            for i in -radius..=radius {
                for j in -radius..=radius {
                    let from = mirror(row + i, height as i64) * width + mirror(column + j, width as i64);
                    *value += T::of(bell(i, j)) * picture[3 * from + channel];
                    weight += bell(i, j);
                }
            }
            *value = *value / T::of(weight);
        }
        result
    }

    /// The first pixel of the square that is cut out, as column and row, perhaps outside, and its side.
    fn square(&self, [height, width]: [usize; 2], draws: &Draws) -> ([i64; 2], i64) {
        let side = i64::from(self.how.cutout_side(height, width));
        let first =
            [(6, width), (7, height)].map(|(d, extent)| (draws.more(d) as f32 * extent as f32) as i64 - side / 2);
        (first, side)
    }
}

impl Twin for AugmentTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let how = self.how;
        let &[n, height, width] = inputs[0].shape.dims() else { panic!("pictures have three extents") };
        let (size, area) = ([height, width], height * width);
        let epoch = inputs[2].data[0].f64() as u32;
        let channels = if self.masks { 1 } else { 3 };
        let mut y = Array::zeros([n, height, width, channels]);
        for image in 0..n {
            let [first, more] = how.streams();
            let draws = Draws { first, more, sample: inputs[1].data[image].f64() as u32, epoch };
            let warped = self.warped(&inputs[0].data[image * area..(image + 1) * area], size, &draws);
            let result = &mut y.data[image * area * channels..(image + 1) * area * channels];
            if self.masks {
                result.copy_from_slice(&warped);
                continue;
            }
            let blurred = self.blurred(warped, size, &draws);
            let saturation = 1.0 + f64::from(how.saturation) * symmetric(draws.more(3));
            let angle = std::f64::consts::TAU * f64::from(how.hue) * symmetric(draws.more(4));
            let brightness = 1.0 + f64::from(how.brightness) * symmetric(draws.first(4));
            let contrast = 1.0 + f64::from(how.contrast) * symmetric(draws.first(5));
            let ([left, top], side) = self.square(size, &draws);
            for (at, (to, from)) in result.chunks_exact_mut(3).zip(blurred.chunks_exact(3)).enumerate() {
                let (row, column) = ((at / width) as i64, (at % width) as i64);
                if (top..top + side).contains(&row) && (left..left + side).contains(&column) {
                    continue;
                }
                let colour = coloured([from[0].f64(), from[1].f64(), from[2].f64()], saturation, angle);
                for (channel, v) in colour.into_iter().enumerate() {
                    let v = ((v * brightness - 0.5) * contrast + 0.5).clamp(0.0, 1.0);
                    let v = (v - f64::from(how.mean[channel])) / f64::from(how.std[channel]);
                    to[if how.bgr { 2 - channel } else { channel }] = T::of(v);
                }
            }
        }
        vec![y]
    }

    fn backward<T: Real>(&self, _: &[Array<T>], _: &[Array<T>]) -> Vec<Option<Array<T>>> {
        vec![None; 3]
    }
}
