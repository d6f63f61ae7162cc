//! Shapes for tests, benchmarks and the self-test.

use super::reference::AugmentTwin;
use super::{Augment, augment, masks};
use crate::ops::{
    Case, CaseInput, Draw,
    random::{image, name},
};

/// Nothing but the normalisation, each augmentation alone, those of the first stream and all together; one pixel, two
/// pixels a side (where the mirror turns at once, and a blur reaches far beyond), odd sizes, wide and high pictures, a
/// picture's last workgroup partly filled; and masks.
pub fn cases() -> Vec<Case> {
    let none = Augment::none([0.763, 0.546, 0.57], [0.141, 0.153, 0.17]);
    let flips = Augment { hflip: true, vflip: true, seed: 1, ..none };
    let all = Augment { rotation: 36.0, zoom: 0.1, brightness: 0.2, contrast: 0.3, seed: 2, ..flips };
    let warps = Augment { shift: 0.2, shear: 15.0, ..all };
    let colours = Augment { saturation: 0.5, hue: 0.1, ..none };
    let every = Augment { saturation: 0.5, hue: 0.1, blur: 1.5, cutout: 0.4, ..warps };
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
        ("shift", [4, 15, 15], Augment { shift: 0.5, seed: 7, ..none }, resampled),
        ("shear", [4, 14, 14], Augment { shear: 60.0, seed: 8, ..none }, resampled),
        ("saturation", [5, 6, 6], Augment { saturation: 1.0, seed: 9, ..none }, 1e-5),
        ("hue", [5, 6, 6], Augment { hue: 0.5, seed: 10, ..none }, 1e-5),
        ("saturation, hue, bgr", [5, 6, 6], Augment { bgr: true, seed: 11, ..colours }, 1e-5),
        ("blur", [6, 13, 13], Augment { blur: 3.0, seed: 12, ..none }, 1e-5),
        ("blur, one pixel", [3, 1, 1], Augment { blur: 20.0, seed: 13, ..none }, 1e-5),
        ("blur, far", [3, 3, 5], Augment { blur: 20.0, seed: 14, ..none }, 1e-5),
        ("blur, wide", [4, 2, 40], Augment { blur: 2.0, seed: 15, ..none }, 1e-5),
        ("cutout", [6, 16, 16], Augment { cutout: 0.5, seed: 16, ..none }, exact),
        ("cutout, odd", [6, 7, 12], Augment { cutout: 0.7, seed: 17, ..none }, exact),
        ("cutout, whole", [6, 5, 5], Augment { cutout: 1.0, seed: 18, ..none }, exact),
        ("every", [7, 21, 21], every, resampled),
        ("every, one pixel", [3, 1, 1], every, resampled),
        ("every, wide", [4, 12, 17], Augment { bgr: true, ..every }, resampled),
        ("warps, wide", [4, 12, 17], warps, resampled),
        ("flips, wide", [6, 5, 9], flips, exact),
        ("all, wide", [4, 12, 16], all, resampled),
        ("all, high", [3, 65, 2], all, resampled),
    ];
    let f32s = list.into_iter().map(|(name, shape, how, tolerance)| (name.to_owned(), shape, how, tolerance));
    let halves = list.into_iter().filter(|(name, ..)| ["none", "all", "every"].contains(name));
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
    // What changes no mask is there with all the others, so that it is seen to change none.
    let unmasked = ["brightness", "contrast", "saturation", "hue", "blur", "cutout"];
    let masked = list.into_iter().filter(|(name, ..)| !unmasked.iter().any(|alone| name.starts_with(alone)));
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

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(draw: &mut Draw, x: &[usize]) -> Option<Case> {
    let [n, height, width, _] = image(x)?;
    let mut one = |value: f32| if draw.flag() { value } else { 0.0 };
    let how = Augment {
        hflip: one(1.0) > 0.0,
        vflip: one(1.0) > 0.0,
        rotation: one(36.0),
        zoom: one(0.1),
        shift: one(0.2),
        shear: one(15.0),
        brightness: one(0.2),
        contrast: one(0.3),
        saturation: one(0.5),
        hue: one(0.1),
        blur: one(1.5),
        cutout: one(0.4),
        bgr: one(1.0) > 0.0,
        ..Augment::none([0.763, 0.546, 0.57], [0.141, 0.153, 0.17])
    };
    let how = Augment { seed: draw.word(), ..how };
    let masked = draw.one_in(4);
    let bound = if masked { u32::MAX } else { 1 << 24 };
    let inputs = vec![
        CaseInput::labels([n, height, width], bound),
        CaseInput::labels([n], 1 << 24),
        CaseInput::clock(draw.below(1000)),
    ];
    let twin = AugmentTwin { how, masks: masked };
    let case = Case::new("augment", name(x, how), inputs, twin, move |tape, x| {
        Ok(vec![(if masked { masks } else { augment })(tape, x[0], x[1], x[2], how)?])
    });
    Some(case.tolerance(2e-4).not_smooth())
}
