//! CPU twin: the definition, with positions as floats.

use super::Interpolation;
use crate::ops::window::reference::each_output;
use crate::ops::{Array, Real, Twin};

pub(super) struct UpsampleTwin {
    pub size: [usize; 2],
    pub interpolation: Interpolation,
}

impl UpsampleTwin {
    /// The pixels that result `o` of `results` is made of along an axis of `size` pixels, with their weights.
    fn pixels(&self, o: usize, size: usize, results: usize) -> [(usize, f64); 2] {
        let (o, extent, results) = (o as f64, size as f64, results as f64);
        let position = match self.interpolation {
            Interpolation::Nearest => (o * extent / results).floor(),
            Interpolation::Bilinear { align_corners: false } => ((o + 0.5) * extent / results - 0.5).max(0.0),
            Interpolation::Bilinear { align_corners: true } if results == 1.0 => 0.0,
            Interpolation::Bilinear { align_corners: true } => o * (extent - 1.0) / (results - 1.0),
        };
        let first = (position as usize).min(size - 1);
        let share = position - first as f64;
        [(first, 1.0 - share), ((first + 1).min(size - 1), share)]
    }

    /// Calls `f(x offset, y offset, weight)` for every pixel of every result.
    fn each<T: Real>(&self, x: &Array<T>, mut f: impl FnMut(usize, usize, T)) {
        let [n, h, w, c] = x.nhwc();
        let [p, q] = self.size;
        let y = Array::<T>::zeros([n, p, q, c]);
        each_output([n, p, q, c], |n, o, v, c| {
            for (i, row) in self.pixels(o, h, p) {
                for (j, column) in self.pixels(v, w, q) {
                    f(x.at(n, i, j, c), y.at(n, o, v, c), T::of(row) * T::of(column));
                }
            }
        });
    }
}

impl Twin for UpsampleTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let [n, _, _, c] = inputs[0].nhwc();
        let mut y = Array::zeros([n, self.size[0], self.size[1], c]);
        self.each(&inputs[0], |from, to, weight| y.data[to] += weight * inputs[0].data[from]);
        vec![y]
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        let mut d_x = inputs[0].map(|_| T::zero());
        self.each(&inputs[0], |from, to, weight| d_x.data[from] += weight * d_outputs[0].data[to]);
        vec![Some(d_x)]
    }
}
