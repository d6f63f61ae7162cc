//! The augmentation of a run.

use serde::{Deserialize, Serialize};

use super::config::is_default;
use crate::ops::augment::{Augment, MAX_BLUR, MAX_SHEAR};

/// Random changes of training pictures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AugmentConfig {
    /// Mirror left and right, half of the time.
    pub hflip: bool,
    /// Mirror up and down, half of the time.
    pub vflip: bool,
    /// Rotate by up to this many degrees either way.
    pub rotation: f32,
    /// Scale by up to this share either way.
    pub zoom: f32,
    /// Scale the brightness by up to this share either way.
    pub brightness: f32,
    /// Scale the contrast by up to this share either way.
    pub contrast: f32,
    /// Shift by up to this share of width and height either way.
    #[serde(default, skip_serializing_if = "is_default")]
    pub shift: f32,
    /// Shear by up to this many degrees either way.
    #[serde(default, skip_serializing_if = "is_default")]
    pub shear: f32,
    /// Scale the saturation by up to this share either way.
    #[serde(default, skip_serializing_if = "is_default")]
    pub saturation: f32,
    /// Turn the hue by up to this share of the circle either way.
    #[serde(default, skip_serializing_if = "is_default")]
    pub hue: f32,
    /// Blur by a Gaussian of up to this standard deviation in pixels.
    #[serde(default, skip_serializing_if = "is_default")]
    pub blur: f32,
    /// Cut out a square whose side is this share of the shorter side.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cutout: f32,
    /// Mix pictures, and labels, by shares from Beta(a, a) with this a; zero for not at all.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mixup: f32,
    /// Put a piece of another picture into each, by shares from Beta(a, a) with this a; zero for not at all.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cutmix: f32,
}

impl AugmentConfig {
    /// No change at all.
    pub const NONE: Self = Self {
        hflip: false,
        vflip: false,
        rotation: 0.0,
        zoom: 0.0,
        brightness: 0.0,
        contrast: 0.0,
        shift: 0.0,
        shear: 0.0,
        saturation: 0.0,
        hue: 0.0,
        blur: 0.0,
        cutout: 0.0,
        mixup: 0.0,
        cutmix: 0.0,
    };

    /// Whether pictures are mixed with others.
    pub fn mixes(&self) -> bool {
        self.mixup > 0.0 || self.cutmix > 0.0
    }

    /// What the command line calls the mixing.
    pub(super) fn mixing_flag(&self) -> &'static str {
        if self.mixup > 0.0 { "--mixup" } else { "--cutmix" }
    }

    /// Each number, by its flag: whether it makes sense, and what it must be.
    pub(super) fn checks(&self) -> [(&'static str, bool, &'static str); 12] {
        const BELOW_ONE: &str = "at least 0 and below 1";
        let below_one = |value| (0.0..1.0).contains(&value);
        let beta = |a| (0.0..=100.0).contains(&a);
        [
            ("--rotation", (0.0..=180.0).contains(&self.rotation), "between 0 and 180 degrees"),
            ("--zoom", below_one(self.zoom), BELOW_ONE),
            ("--shift", below_one(self.shift), BELOW_ONE),
            ("--shear", (0.0..=MAX_SHEAR).contains(&self.shear), "between 0 and 60 degrees"),
            ("--brightness", below_one(self.brightness), BELOW_ONE),
            ("--contrast", below_one(self.contrast), BELOW_ONE),
            ("--saturation", (0.0..=1.0).contains(&self.saturation), "between 0 and 1"),
            ("--hue", (0.0..=0.5).contains(&self.hue), "between 0 and 0.5, half of the circle"),
            ("--blur", (0.0..=MAX_BLUR).contains(&self.blur), "between 0 and 20 pixels"),
            ("--cutout", (0.0..=1.0).contains(&self.cutout), "between 0 and 1"),
            ("--mixup", beta(self.mixup), "between 0 and 100"),
            ("--cutmix", beta(self.cutmix), "between 0 and 100"),
        ]
    }

    /// These changes, with the normalisation and the seed of `rest`.
    pub(super) fn applied(&self, rest: Augment) -> Augment {
        Augment {
            hflip: self.hflip,
            vflip: self.vflip,
            rotation: self.rotation,
            zoom: self.zoom,
            shift: self.shift,
            shear: self.shear,
            brightness: self.brightness,
            contrast: self.contrast,
            saturation: self.saturation,
            hue: self.hue,
            blur: self.blur,
            cutout: self.cutout,
            ..rest
        }
    }
}
