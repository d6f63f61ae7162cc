//! Shapes for tests, benchmarks and the self-test.

use super::reference::UpsampleTwin;
use super::{Interpolation, upsample};
use crate::ops::{
    Case, CaseInput, Draw,
    random::{image, name},
};

/// Whole and broken factors, up and down, along one axis only, from and to a single pixel, not at all; odd channels and
/// fours.
pub fn cases() -> Vec<Case> {
    let modes = [
        ("nearest", Interpolation::Nearest),
        ("bilinear", Interpolation::Bilinear { align_corners: false }),
        ("bilinear, corners aligned", Interpolation::Bilinear { align_corners: true }),
    ];
    let shapes = [
        ([2, 5, 7, 3], [10, 14]),
        ([2, 6, 5, 8], [12, 10]),
        ([1, 3, 4, 5], [24, 32]),
        ([2, 4, 7, 4], [7, 9]),
        ([1, 16, 13, 3], [5, 6]),
        ([1, 9, 11, 4], [4, 30]),
        ([3, 1, 1, 12], [9, 7]),
        ([2, 6, 5, 1], [1, 1]),
        ([2, 5, 6, 7], [5, 13]),
        ([2, 5, 6, 4], [11, 6]),
        ([1, 7, 3, 2], [7, 3]),
        ([1, 2, 3, 66], [5, 4]),
        ([1, 1, 1, 1], [1, 1]),
    ];
    let mut cases = vec![];
    for (name, interpolation) in modes {
        for (shape, size) in shapes {
            let twin = UpsampleTwin { size, interpolation };
            let name = format!("{shape:?} to {}x{}, {name}", size[0], size[1]);
            cases.push(Case::new("upsample", name, vec![CaseInput::normal(shape)], twin, move |tape, x| {
                Ok(vec![upsample(tape, x[0], size, interpolation)?])
            }));
        }
    }
    cases
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(draw: &mut Draw, x: &[usize]) -> Option<Case> {
    let [_, height, width, _] = image(x)?;
    let interpolation = draw.of(&[
        Interpolation::Nearest,
        Interpolation::Bilinear { align_corners: false },
        Interpolation::Bilinear { align_corners: true },
    ]);
    let size = if draw.flag() { [2 * height, 2 * width] } else { [draw.extent(), draw.extent()] };
    let (twin, name) = (UpsampleTwin { size, interpolation }, name(x, (size, interpolation)));
    Some(Case::new("upsample", name, vec![CaseInput::normal(x)], twin, move |tape, x| {
        Ok(vec![upsample(tape, x[0], size, interpolation)?])
    }))
}
