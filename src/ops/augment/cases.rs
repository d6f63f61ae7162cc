//! Shapes for tests, benchmarks and the self-test.

use super::reference::AugmentTwin;
use super::{Augment, augment};
use crate::ops::{Case, CaseInput};

/// Nothing but the normalisation, each augmentation alone, all together; one pixel, two pixels a side (where the mirror
/// turns at once), odd sizes, a picture's last workgroup partly filled.
pub fn cases() -> Vec<Case> {
    let none = Augment::none([0.763, 0.546, 0.57], [0.141, 0.153, 0.17]);
    let flips = Augment { hflip: true, vflip: true, seed: 1, ..none };
    let all = Augment { rotation: 36.0, zoom: 0.1, brightness: 0.2, contrast: 0.3, seed: 2, ..flips };
    // Resampling moves by the rounding of positions: pictures of pure noise show that most.
    let (exact, resampled) = (1e-6, 2e-4);
    let list = [
        ("none", [2, 9], none, exact),
        ("none, one pixel", [1, 1], none, exact),
        ("hflip", [5, 7], Augment { hflip: true, ..none }, exact),
        ("vflip", [5, 8], Augment { vflip: true, ..none }, exact),
        ("flips", [8, 17], flips, exact),
        ("brightness", [5, 6], Augment { brightness: 0.4, seed: 3, ..none }, 1e-5),
        ("contrast", [5, 6], Augment { contrast: 1.0, seed: 4, ..none }, 1e-5),
        ("rotation", [4, 21], Augment { rotation: 180.0, seed: 5, ..none }, resampled),
        ("zoom", [4, 16], Augment { zoom: 0.75, seed: 6, ..none }, resampled),
        ("all", [7, 33], all, resampled),
        ("all, one pixel", [3, 1], all, resampled),
        ("all, two pixels", [6, 2], all, resampled),
        ("all, many", [3, 112], all, resampled),
    ];
    let f32s = list.into_iter().map(|(name, shape, how, tolerance)| (name.to_owned(), shape, how, tolerance));
    let halves = list.into_iter().filter(|(name, ..)| ["none", "all"].contains(name));
    let halves = halves
        .map(|(name, shape, how, tolerance)| (format!("{name} f16"), shape, Augment { half: true, ..how }, tolerance));
    f32s.chain(halves)
        .map(|(name, [n, size], how, tolerance)| {
            let inputs = vec![
                // Words that f32 holds exactly: alpha is zero.
                CaseInput::labels([n, size, size], 1 << 24),
                CaseInput::labels([n], 1 << 24),
                CaseInput::labels([1], 1000),
            ];
            let name = format!("{name} {n}x{size}");
            let case = Case::new("augment", name, inputs, AugmentTwin { how }, move |tape, x| {
                Ok(vec![augment(tape, x[0], x[1], x[2], how)?])
            });
            let case = case.tolerance(tolerance).not_smooth();
            if how.half { case.half() } else { case }
        })
        .collect()
}
