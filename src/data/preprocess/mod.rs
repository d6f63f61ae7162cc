//! What is made of pictures before any model sees them: the same in training, evaluation and prediction.
//!
//! [`Steps`] are written as a list, `crop,resize,hair,clahe,shades-of-gray`, and done in that order. `resize`, to the size of
//! the model's pictures, is one of them: what comes before works on the picture's own pixels, what follows on few, which is
//! faster, and what is meant where lengths are in pixels (hair). Where the list does not name it, it is put right behind the
//! crop. Masks are cropped and resized alike.
//!
//! - `crop`: cuts off the black frame of a dermoscope
//! - `hair`: finds hairs and fills them in from around them, with `inpaint`
//! - `clahe`: evens out the lightness, region by region
//! - `colour`: LAB, and colour constancy (shades of gray)

pub mod clahe;
pub mod colour;
pub mod crop;
pub mod hair;
pub mod inpaint;

use std::fmt;
use std::str::FromStr;

use image::RgbImage;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use clahe::ClaheConfig;
pub use colour::ShadesOfGrayConfig;
pub use crop::{Area, CropConfig, Keep};
pub use hair::HairConfig;

use super::decode::resize_rgb;
use super::size::ImageSize;
use crate::error::{Error, Kind, Result};

/// Version of what the steps do, part of cache keys: changes whenever a result does.
const VERSION: u32 = 1;

/// A step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Cut off the black frame of a dermoscope.
    Crop,
    /// Bring to the size of the model's pictures.
    Resize,
    /// Remove hairs.
    Hair,
    /// Even out the lightness, region by region.
    Clahe,
    /// Make the light gray.
    ShadesOfGray,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Crop, Self::Resize, Self::Hair, Self::Clahe, Self::ShadesOfGray];

    /// Its name in lists.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crop => "crop",
            Self::Resize => "resize",
            Self::Hair => "hair",
            Self::Clahe => "clahe",
            Self::ShadesOfGray => "shades-of-gray",
        }
    }
}

/// Steps in order: none, or several with one [`Step::Resize`] among them. Written `crop,resize,hair`, or `none`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Steps(Vec<Step>);

impl Steps {
    /// Whether there are none: pictures are only brought to size.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// They, in order.
    pub fn list(&self) -> &[Step] {
        &self.0
    }

    /// Whether there is this one.
    pub fn contains(&self, step: Step) -> bool {
        self.0.contains(&step)
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(|step| step.name()).collect();
        f.write_str(if names.is_empty() { "none" } else { "" })?;
        f.write_str(&names.join(","))
    }
}

impl FromStr for Steps {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "none" {
            return Ok(Self::default());
        }
        let wrong = |what: String| {
            let names = Step::ALL.map(Step::name).join(", ");
            Err(Error::new(Kind::Usage, what).next(format!("list some of: {names}; or write none")))
        };
        let mut steps = vec![];
        for name in text.split(',').map(str::trim) {
            match Step::ALL.into_iter().find(|step| step.name() == name) {
                None => return wrong(format!("'{name}' is no step of preprocessing")),
                Some(step) if steps.contains(&step) => return wrong(format!("the step '{name}' is named twice")),
                Some(step) => steps.push(step),
            }
        }
        if steps.iter().skip(1).any(|step| *step == Step::Crop) {
            return wrong("the step 'crop' can only be the first".to_owned());
        }
        if !steps.contains(&Step::Resize) {
            steps.insert(usize::from(steps[0] == Step::Crop), Step::Resize);
        }
        Ok(Self(steps))
    }
}

impl Serialize for Steps {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Steps {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(|e: Error| de::Error::custom(e.what()))
    }
}

/// How a picture becomes what a model sees.
#[derive(Debug, Clone, PartialEq)]
pub struct Preparation {
    /// The size it is brought to.
    pub size: ImageSize,
    /// What else is done.
    pub preprocess: Preprocess,
}

impl<S: Into<ImageSize>> From<S> for Preparation {
    /// Nothing but the size.
    fn from(size: S) -> Self {
        Self { size: size.into(), preprocess: Preprocess::default() }
    }
}

impl Preparation {
    /// What becomes of a picture.
    pub fn make(&self, picture: RgbImage) -> RgbImage {
        self.preprocess.run(picture, self.size)
    }

    /// What becomes of a picture for each of several models, and the part of it that each sees. What models see alike is made
    /// once.
    pub fn make_each(recipes: &[Self], mut picture: RgbImage) -> Vec<(RgbImage, Area)> {
        let first_alike = |i: usize| recipes.iter().position(|other| *other == recipes[i]).unwrap_or(i);
        let last = (0..recipes.len()).rfind(|&i| first_alike(i) == i);
        let mut made: Vec<(RgbImage, Area)> = Vec::with_capacity(recipes.len());
        for (i, recipe) in recipes.iter().enumerate() {
            let alike = first_alike(i);
            if alike < i {
                made.push(made[alike].clone());
                continue;
            }
            let area = recipe.preprocess.area(&picture);
            // Pictures may be large: what is not needed once more is not copied.
            let own = if Some(i) == last { std::mem::take(&mut picture) } else { picture.clone() };
            made.push((recipe.make(own), area));
        }
        made
    }
}

/// Steps with their constants.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Preprocess {
    /// What is done, in order.
    pub steps: Steps,
    /// The crop's constants.
    pub crop: CropConfig,
    /// Hair removal's constants.
    pub hair: HairConfig,
    /// CLAHE's constants.
    pub clahe: ClaheConfig,
    /// The constants of shades of gray.
    pub shades_of_gray: ShadesOfGrayConfig,
}

impl From<Steps> for Preprocess {
    /// With the default constants.
    fn from(steps: Steps) -> Self {
        Self { steps, ..Self::default() }
    }
}

impl Preprocess {
    /// Checks every constant.
    ///
    /// # Errors
    /// [`Kind::Usage`] naming the first that makes no sense.
    pub fn validate(&self) -> Result<()> {
        let Self { crop, hair, clahe, shades_of_gray, .. } = self;
        let checks = [
            ("crop.dark", crop.dark < 255, "below 255"),
            ("hair.kernel", (3..=255).contains(&hair.kernel) && hair.kernel % 2 == 1, "an odd number from 3 to 255"),
            ("hair.threshold", hair.threshold < 255, "below 255"),
            ("hair.radius", (1..=20).contains(&hair.radius), "between 1 and 20 pixels"),
            ("clahe.clip", clahe.clip > 0.0 && clahe.clip <= 256.0, "above 0 and at most 256"),
            ("clahe.tiles", (1..=64).contains(&clahe.tiles), "between 1 and 64"),
            ("shades_of_gray.norm", (1.0..=100.0).contains(&shades_of_gray.norm), "between 1 and 100"),
        ];
        match checks.iter().find(|(_, ok, _)| !ok) {
            None => Ok(()),
            Some((key, _, range)) => Err(Error::new(Kind::Usage, format!("preprocess.{key} must be {range}"))
                .next(format!("mend [preprocess] of the configuration: {key}"))),
        }
    }

    /// What the pixels depend on, as text for cache keys: the steps, with the constants of these alone.
    pub(super) fn key(&self) -> String {
        let constants = |step: &Step| match step {
            Step::Crop => format!("{:?}", self.crop),
            Step::Resize => String::new(),
            Step::Hair => format!("{:?}", self.hair),
            Step::Clahe => format!("{:?}", self.clahe),
            Step::ShadesOfGray => format!("{:?}", self.shades_of_gray),
        };
        let steps = self.steps.0.iter().map(|step| format!(" {} {}", step.name(), constants(step)));
        if self.steps.is_empty() { String::new() } else { format!("v{VERSION}") + &steps.collect::<String>() }
    }

    /// Whether a part of a picture may be cut off.
    pub fn crops(&self) -> bool {
        self.steps.contains(Step::Crop)
    }

    /// The part of a picture that is kept.
    pub fn area(&self, picture: &RgbImage) -> Area {
        match self.crops() {
            true => crop::view(picture, self.crop),
            false => Area::whole(picture.into()),
        }
    }

    /// The picture after each step; without any, after the resize.
    pub fn stages(&self, mut picture: RgbImage, size: ImageSize) -> Vec<(Step, RgbImage)> {
        let steps = if self.steps.is_empty() { &[Step::Resize][..] } else { &self.steps.0 };
        let stage = |step: &Step| {
            picture = self.step(*step, std::mem::take(&mut picture), size);
            (*step, picture.clone())
        };
        steps.iter().map(stage).collect()
    }

    /// The picture after all steps, at `size`.
    pub fn run(&self, picture: RgbImage, size: ImageSize) -> RgbImage {
        if self.steps.is_empty() {
            return resize_rgb(picture, size);
        }
        self.steps.0.iter().fold(picture, |picture, step| self.step(*step, picture, size))
    }

    fn step(&self, step: Step, picture: RgbImage, size: ImageSize) -> RgbImage {
        match step {
            Step::Crop => {
                let area = crop::view(&picture, self.crop);
                area.of(picture)
            }
            Step::Resize => resize_rgb(picture, size),
            Step::Hair => hair::remove(picture, self.hair),
            Step::Clahe => clahe::equalise_lightness(&picture, self.clahe),
            Step::ShadesOfGray => colour::shades_of_gray(picture, self.shades_of_gray),
        }
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn lists_say_where_the_resize_is() {
        let read = |text: &str| text.parse::<Steps>().unwrap().to_string();
        for (text, steps) in [
            ("none", "none"),
            ("crop", "crop,resize"),
            ("hair, clahe", "resize,hair,clahe"),
            ("crop,hair,resize,clahe", "crop,hair,resize,clahe"),
            ("resize", "resize"),
        ] {
            assert_eq!((read(text), read(steps)), (steps.to_owned(), steps.to_owned()));
        }
        for (text, what) in [
            ("", "'' is no step"),
            ("hair,none", "'none' is no step"),
            ("hair,hair", "named twice"),
            ("hair,crop", "only be the first"),
            ("Hair", "no step"),
        ] {
            let error = text.parse::<Steps>().unwrap_err();
            assert!(error.kind() == Kind::Usage && error.to_string().contains(what), "{text}: {error}");
        }
    }

    #[test]
    fn constants_are_read_checked_and_part_of_the_key() {
        let read = |text: &str| toml::from_str::<Preprocess>(text);
        let chosen = read("steps = 'hair'\n[hair]\nthreshold = 25\n[clahe]\ntiles = 4").unwrap();
        assert_eq!(chosen.hair, HairConfig { threshold: 25, ..HairConfig::default() });
        assert_eq!(read(&toml::to_string(&chosen).unwrap()).unwrap(), chosen);
        // Only what is done counts.
        let other = Preprocess { clahe: ClaheConfig::default(), ..chosen.clone() };
        assert_eq!(chosen.key(), other.key());
        assert_ne!(chosen.key(), Preprocess { hair: HairConfig::default(), ..chosen.clone() }.key());
        assert_ne!(chosen.key(), Preprocess { steps: "hair,resize".parse().unwrap(), ..chosen.clone() }.key());
        assert_eq!(Preprocess { steps: Steps::default(), ..chosen }.key(), "");
        for wrong in ["steps = 'x'", "steps = 1", "[hair]\nsize = 3", "[crop]\nkeep = 'all'"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        for (text, key) in [
            ("[crop]\ndark = 255", "crop.dark"),
            ("[hair]\nkernel = 16", "hair.kernel"),
            ("[hair]\nkernel = 257", "hair.kernel"),
            ("[hair]\nradius = 0", "hair.radius"),
            ("[clahe]\nclip = nan", "clahe.clip"),
            ("[clahe]\ntiles = 0", "clahe.tiles"),
            ("[shades_of_gray]\nnorm = inf", "shades_of_gray.norm"),
        ] {
            let error = read(text).unwrap().validate().unwrap_err();
            assert!(error.kind() == Kind::Usage && error.to_string().contains(key), "{text}: {error}");
        }
        Preprocess::default().validate().unwrap();
    }

    #[test]
    fn each_model_sees_a_picture_as_it_does_alone() {
        let picture = RgbImage::from_fn(40, 30, |x, y| image::Rgb([(x * 6) as u8, (y * 8) as u8, 90]));
        let plain = Preparation::from(16);
        let clahe: Preprocess = "clahe".parse::<Steps>().unwrap().into();
        let other = Preparation { size: 24.into(), preprocess: clahe };
        let recipes = [plain.clone(), other.clone(), plain, other];
        let made = Preparation::make_each(&recipes, picture.clone());
        let alone = recipes.each_ref().map(|recipe| (recipe.make(picture.clone()), recipe.preprocess.area(&picture)));
        assert_eq!(made, alone);
        assert!(Preparation::make_each(&[], picture).is_empty());
    }

    #[test]
    fn every_picture_has_the_size_that_is_asked_for() {
        let all = Preprocess::from("crop,hair,resize,clahe,shades-of-gray".parse::<Steps>().unwrap());
        for (width, height) in [(1, 1), (2, 9), (40, 30), (300, 7)] {
            for level in [0, 30, 255] {
                let picture = RgbImage::from_fn(width, height, |x, y| Rgb([level, (x * y) as u8, (x + y) as u8]));
                let size = ImageSize { width: 17, height: 5 };
                let stages = all.stages(picture.clone(), size);
                assert_eq!(stages.iter().map(|(step, _)| *step).collect::<Vec<_>>(), all.steps.list());
                let made = all.run(picture, size);
                assert!(made.dimensions() == (17, 5) && stages.last().unwrap().1 == made, "{width}x{height} {level}");
            }
        }
    }
}
