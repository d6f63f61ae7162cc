//! Random cases: each op draws parameters that go with the shape of its first input. Tests run them alone, against the CPU
//! twin, and put graphs together of them.

use std::fmt::Debug;

use super::window::{Padding, Window};
use super::{Case, CaseInput, Fill, Role};
use crate::rng::Stream;
use crate::tensor::{Shape, TensorType};

/// Draws one after the other from a stream.
#[derive(Debug, Clone)]
pub struct Draw {
    stream: Stream,
    next: u32,
    few: bool,
}

impl Draw {
    /// The draws of a seed for a purpose.
    pub fn new(seed: u32, purpose: &str) -> Self {
        Self { stream: Stream::named(seed, purpose), next: 0, few: false }
    }

    /// Draws extents and windows from short lists: for many graphs on a device that takes long to compile a kernel, since many
    /// kernels have their shape compiled in.
    #[must_use]
    pub fn of_few(mut self) -> Self {
        self.few = true;
        self
    }

    /// A random word.
    pub fn word(&mut self) -> u32 {
        self.next += 1;
        self.stream.words([self.next, 0])[0]
    }

    /// Below `n`, which is at least 1.
    pub fn below(&mut self, n: usize) -> usize {
        ((u64::from(self.word()) * n as u64) >> 32) as usize
    }

    /// From `lo` to `hi`, both included.
    pub fn between(&mut self, lo: usize, hi: usize) -> usize {
        lo + self.below(hi + 1 - lo)
    }

    /// True once in `n` draws.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// True or false.
    pub fn flag(&mut self) -> bool {
        self.one_in(2)
    }

    /// One of several, which are not none.
    pub fn of<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }

    /// A number of channels.
    pub fn channels(&mut self) -> usize {
        if self.few { self.of(&[1, 3, 4, 4, 8]) } else { self.of(&[1, 2, 3, 4, 5, 7, 8, 12, 16, 20, 33, 68]) }
    }

    /// A number of rows, columns, tokens.
    pub fn extent(&mut self) -> usize {
        if self.few { self.of(&[1, 5, 6]) } else { self.of(&[1, 1, 2, 3, 4, 5, 7, 8, 9, 12, 17]) }
    }

    /// A shape of this rank.
    pub fn shape(&mut self, rank: usize) -> Vec<usize> {
        let batch = if self.few { self.of(&[1, 2]) } else { self.of(&[1, 1, 2, 3, 5]) };
        let inner = (1..rank.max(1) - 1).map(|_| self.extent()).collect::<Vec<_>>();
        let last = (rank > 1).then(|| self.channels());
        [batch].into_iter().chain(inner).chain(last).collect()
    }

    /// The extents of a window along an axis: size, step, padding before and behind, all such that they fit.
    fn axis(&mut self, extent: usize) -> [usize; 4] {
        let (size, step) = if self.few {
            self.of(&[(1, 1), (3, 1), (3, 1), (3, 2), (2, 2)])
        } else {
            (self.between(1, 5), self.between(1, 3))
        };
        let mut pads = [0, 0];
        if self.few {
            pads = [size / 2, (size - 1) / 2];
        } else if size > 1 {
            pads = pads.map(|_| self.below(size));
        }
        // Where it does not fit, the padding is what it takes.
        let missing = size.saturating_sub(extent + pads[0] + pads[1]);
        pads[0] = (pads[0] + missing).min(size - 1);
        [size, step, pads[0], (size.saturating_sub(extent + pads[0])).max(pads[1])]
    }

    /// A window that fits into an image.
    pub fn window(&mut self, [height, width]: [usize; 2]) -> Window {
        let square = self.flag();
        let rows = self.axis(height);
        let columns = if square && height == width { rows } else { self.axis(width) };
        Window {
            size: [rows[0], columns[0]],
            stride: [rows[1], columns[1]],
            padding: Padding { top: rows[2], bottom: rows[3], left: columns[2], right: columns[3] },
        }
    }

    /// Two words for a key.
    pub fn key(&mut self) -> [u32; 2] {
        [self.word(), self.word()]
    }
}

/// What draws a case of an op for an x, its first input, of a given shape; `None` if the op takes no such x, or for this once
/// had no luck. Ops without a first float input make what they like of the shape.
pub type Random = fn(&mut Draw, &[usize]) -> Option<Case>;

/// An op as the tests see it.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    /// The op.
    pub op: &'static str,
    /// Its case list, without copies in f16.
    pub cases: fn() -> Vec<Case>,
    /// Its random cases.
    pub random: Random,
    /// The inputs that may be f16.
    pub half: &'static [usize],
}

impl CaseInput {
    /// The weight of a sum of `terms`: scaled such that the sum of normal values is normal.
    pub fn weight(shape: impl Into<Shape>, terms: usize) -> Self {
        Self::new(shape, Fill::Gaussian(0.0, 1.0 / (terms.max(1) as f32).sqrt()), Role::Differentiable)
    }

    /// What a dropout draws by.
    pub fn clock(step: usize) -> Self {
        Self { ty: TensorType::u32([1]), fill: Fill::Constant(step as f32), role: Role::Fixed }
    }
}

/// The extents of an image batch, if it is one.
pub(crate) fn image(x: &[usize]) -> Option<[usize; 4]> {
    x.try_into().ok()
}

/// The name of a random case.
pub(crate) fn name(x: &[usize], parameters: impl Debug) -> String {
    format!("{x:?} {parameters:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_fit() {
        let mut draw = Draw::new(1, "windows");
        for _ in 0..2000 {
            let [height, width] = [draw.between(1, 6), draw.between(1, 6)];
            let window = draw.window([height, width]);
            window.outputs(height, width).unwrap();
        }
    }
}
