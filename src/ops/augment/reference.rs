//! CPU twin.

use super::Augment;
use crate::ops::{Array, Real, Twin};
use crate::rng::unit;

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

impl Twin for AugmentTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let how = self.how;
        let &[n, height, width] = inputs[0].shape.dims() else { panic!("pictures have three extents") };
        let epoch = inputs[2].data[0].f64() as u32;
        let channels = if self.masks { 1 } else { 3 };
        let mut y = Array::zeros([n, height, width, channels]);
        for image in 0..n {
            let sample = inputs[1].data[image].f64() as u32;
            let draw = |d: u32| f64::from(unit(how.stream().words([sample, epoch.wrapping_mul(8).wrapping_add(d)])[0]));
            let symmetric = |d: u32| 2.0 * draw(d) - 1.0;
            let (hflip, vflip) = (how.hflip && draw(0) < 0.5, how.vflip && draw(1) < 0.5);
            let angle = (f64::from(how.rotation) * symmetric(2)).to_radians();
            let scale = 1.0 + f64::from(how.zoom) * symmetric(3);
            let (along, across) = (T::of(angle.cos() / scale), T::of(angle.sin() / scale));
            let brightness = T::of(1.0 + f64::from(how.brightness) * symmetric(4));
            let contrast = T::of(1.0 + f64::from(how.contrast) * symmetric(5));
            let [centre_x, centre_y] = [width, height].map(|extent| T::of(0.5 * (extent as f64 - 1.0)));
            let colour = |row: i64, column: i64, channel: usize| {
                let (row, column) = (mirror(row, height as i64), mirror(column, width as i64));
                let row = if vflip { height - 1 - row } else { row };
                let column = if hflip { width - 1 - column } else { column };
                let word = inputs[0].data[(image * height + row) * width + column].f64() as u32;
                T::of(f64::from(word.to_le_bytes()[channel]) / 255.0)
            };
            for row in 0..height {
                for column in 0..width {
                    let (dx, dy) = (T::of(column as f64) - centre_x, T::of(row as f64) - centre_y);
                    let x = along * dx - across * dy + centre_x;
                    let y_ = across * dx + along * dy + centre_y;
                    let (x0, y0) = (x.f64().floor(), y_.f64().floor());
                    let (fx, fy) = (x - T::of(x0), y_ - T::of(y0));
                    for channel in 0..channels {
                        let byte = if self.masks { 3 } else { channel };
                        let tap = |down: i64, right: i64| colour(y0 as i64 + down, x0 as i64 + right, byte);
                        let top = tap(0, 0) * (T::one() - fx) + tap(0, 1) * fx;
                        let bottom = tap(1, 0) * (T::one() - fx) + tap(1, 1) * fx;
                        let swapped = how.bgr && !self.masks;
                        let at = y.at(image, row, column, if swapped { 2 - channel } else { channel });
                        let v = top * (T::one() - fy) + bottom * fy;
                        if self.masks {
                            y.data[at] = v;
                            continue;
                        }
                        let v = v * brightness;
                        let half = T::of(0.5);
                        let v = ((v - half) * contrast + half).max(T::zero());
                        let v = if v > T::one() { T::one() } else { v };
                        y.data[at] = (v - T::of(how.mean[channel].into())) / T::of(how.std[channel].into());
                    }
                }
            }
        }
        vec![y]
    }

    fn backward<T: Real>(&self, _: &[Array<T>], _: &[Array<T>]) -> Vec<Option<Array<T>>> {
        vec![None; 3]
    }
}
