//! Shapes for tests, benchmarks and the self-test.

use super::reference::AugmentTwin;
use super::{Augment, augment, masks};
use crate::ops::{Case, CaseInput};

/// Nothing but the normalisation, each augmentation alone, all together; one pixel, two pixels a side (where the mirror
/// turns at once), odd sizes, wide and high pictures, a picture's last workgroup partly filled; and masks.
pub fn cases() -> Vec<Case> {
    let none = Augment::none([0.763, 0.546, 0.57], [0.141, 0.153, 0.17]);
    let flips = Augment { hflip: true, vflip: true, seed: 1, ..none };
    let all = Augment { rotation: 36.0, zoom: 0.1, brightness: 0.2, contrast: 0.3, seed: 2, ..flips };
    // Resampling moves by the rounding of positions: pictures of pure noise show that most.
    let (exact, resampled) = (1e-6, 2e-4);
    let list = [
        ("none", [2, 9, 9], none, exact),
        ("bgr", [3, 5, 5], Augment { bgr: true, ..none }, exact),
        ("none, one pixel", [1, 1, 1], none, exact),
        ("hflip", [5, 7, 7], Augment { hflip: true, ..none }, exact),
        ("vflip", [5, 8, 8], Augment { vflip: true, ..none }, exact),
        ("flips", [8, 17, 17], flips, exact),
        ("brightness", [5, 6, 6], Augment { brightness: 0.4, seed: 3, ..none }, 1e-5),
        ("contrast", [5, 6, 6], Augment { contrast: 1.0, seed: 4, ..none }, 1e-5),
        ("rotation", [4, 21, 21], Augment { rotation: 180.0, seed: 5, ..none }, resampled),
        ("zoom", [4, 16, 16], Augment { zoom: 0.75, seed: 6, ..none }, resampled),
        ("all", [7, 33, 33], all, resampled),
        ("all, one pixel", [3, 1, 1], all, resampled),
        ("all, two pixels", [6, 2, 2], all, resampled),
        ("all, many", [3, 112, 112], all, resampled),
        ("flips, wide", [6, 5, 9], flips, exact),
        ("all, wide", [4, 12, 16], all, resampled),
        ("all, high", [3, 65, 2], all, resampled),
    ];
    let f32s = list.into_iter().map(|(name, shape, how, tolerance)| (name.to_owned(), shape, how, tolerance));
    let halves = list.into_iter().filter(|(name, ..)| ["none", "all"].contains(name));
    let halves = halves
        .map(|(name, shape, how, tolerance)| (format!("{name} f16"), shape, Augment { half: true, ..how }, tolerance));
    let pictures = f32s.chain(halves).map(|(name, shape @ [n, ..], how, tolerance)| {
        let inputs = vec![
            // Words that f32 holds exactly: alpha is zero.
            CaseInput::labels(shape, 1 << 24),
            CaseInput::labels([n], 1 << 24),
            CaseInput::labels([1], 1000),
        ];
        let name = format!("{name} {}", shape.map(|extent| extent.to_string()).join("x"));
        let case = Case::new("augment", name, inputs, AugmentTwin { how, masks: false }, move |tape, x| {
            Ok(vec![augment(tape, x[0], x[1], x[2], how)?])
        });
        let case = case.tolerance(tolerance).not_smooth();
        if how.half { case.half() } else { case }
    });
    let masked = list.into_iter().filter(|(name, ..)| !["brightness", "contrast"].contains(name));
    let masked = masked.map(|(name, shape @ [n, ..], how, tolerance)| {
        // The largest bound: f32 rounds the words, and kernel and twin get what it makes of them.
        let inputs =
            vec![CaseInput::labels(shape, u32::MAX), CaseInput::labels([n], 1 << 24), CaseInput::labels([1], 1000)];
        let name = format!("masks {name} {}", shape.map(|extent| extent.to_string()).join("x"));
        let twin = AugmentTwin { how, masks: true };
        let case =
            Case::new("augment", name, inputs, twin, move |tape, x| Ok(vec![masks(tape, x[0], x[1], x[2], how)?]));
        case.tolerance(tolerance).not_smooth()
    });
    pictures.chain(masked).collect()
}
