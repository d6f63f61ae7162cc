//! The symmetries of a picture's frame: four rotations, each mirrored or not, of a square; of another rectangle those that
//! keep its shape. They move pixels and change none, so nothing is lost on the way there and back.

use super::{Batch, ImageSize};

/// One of them. A pixel of the view is found by mirroring, then by going along columns in the place of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    transpose: bool,
    mirror: [bool; 2],
}

impl View {
    /// The picture as it is.
    pub const PLAIN: Self = Self { transpose: false, mirror: [false; 2] };

    /// All of a size, [`PLAIN`](Self::PLAIN) first: eight of a square, else four.
    pub fn all(size: ImageSize) -> Vec<Self> {
        let transposed: &[bool] = if size.width == size.height { &[false, true] } else { &[false] };
        let mirrors = [[false, false], [true, false], [false, true], [true, true]];
        transposed.iter().flat_map(|&transpose| mirrors.map(|mirror| Self { transpose, mirror })).collect()
    }

    /// Where the pixels of the view are in a picture of this size, row by row.
    fn sources(self, size: ImageSize) -> impl Iterator<Item = usize> {
        let ImageSize { width, height } = size;
        let [vertical, horizontal] = self.mirror;
        (0..height).flat_map(move |y| {
            (0..width).map(move |x| {
                let (y, x) = if self.transpose { (x, y) } else { (y, x) };
                let y = if vertical { height - 1 - y } else { y };
                let x = if horizontal { width - 1 - x } else { x };
                y * width + x
            })
        })
    }

    /// The view of a picture of this size.
    pub fn of<T: Copy>(self, picture: &[T], size: ImageSize) -> Vec<T> {
        self.sources(size).map(|source| picture[source]).collect()
    }

    /// The picture that this is the view of.
    pub fn back<T: Copy + Default>(self, view: &[T], size: ImageSize) -> Vec<T> {
        let mut picture = vec![T::default(); view.len()];
        self.sources(size).zip(view).for_each(|(source, &value)| picture[source] = value);
        picture
    }
}

impl Batch {
    /// The same batch, every picture of it (of this size) in a view.
    #[must_use]
    pub fn seen(&self, view: View, size: ImageSize) -> Self {
        let pixels = self.pixels.chunks_exact(size.area()).flat_map(|picture| view.of(picture, size));
        Self { pixels: pixels.collect(), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_all_symmetries_and_come_back() {
        for (size, count) in [("3x3", 8), ("3x2", 4), ("1x1", 8)] {
            let size: ImageSize = size.parse().unwrap();
            let views = View::all(size);
            assert_eq!((views.len(), views[0]), (count, View::PLAIN));
            let picture: Vec<u32> = (0..size.area() as u32).collect();
            let mut seen: Vec<Vec<u32>> = views.iter().map(|view| view.of(&picture, size)).collect();
            assert_eq!(seen[0], picture);
            for (view, seen) in views.iter().zip(&seen) {
                assert_eq!(view.back(seen, size), picture, "{view:?}");
            }
            // A view of a view is a view.
            for view in &views {
                for other in seen.clone() {
                    assert!(seen.contains(&view.of(&other, size)), "{view:?} of {other:?}");
                }
            }
            seen.sort();
            seen.dedup();
            assert_eq!(seen.len(), if size.area() == 1 { 1 } else { count });
        }
        // A quarter turn.
        let size: ImageSize = "2x2".parse().unwrap();
        assert!(View::all(size).iter().any(|view| view.of(&[1, 2, 3, 4], size) == [3, 1, 4, 2]));
    }
}
