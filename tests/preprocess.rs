//! Preprocessing against OpenCV: the cases of `tests/preprocess`, or of the folder named by `LESION_PREPROCESS_DIR`.

use std::path::PathBuf;

use image::{DynamicImage, GrayImage, Luma, RgbImage};
use lesion_gpu::data::preprocess::clahe::{self, ClaheConfig};
use lesion_gpu::data::preprocess::colour::{ShadesOfGrayConfig, lab_of_rgb, rgb_of_lab, shades_of_gray};
use lesion_gpu::data::preprocess::hair::{self, HairConfig};
use lesion_gpu::data::preprocess::inpaint;
use lesion_gpu::data::{ImageSize, Preprocess};
use sha2::{Digest, Sha256};

const CASES: [&str; 7] = ["even", "odd", "one-side", "dense", "tiny", "pixel", "narrow"];

fn folder() -> PathBuf {
    std::env::var_os("LESION_PREPROCESS_DIR").map_or("tests/preprocess".into(), PathBuf::from)
}

fn stored(name: &str) -> DynamicImage {
    let path = folder().join(format!("{name}.png"));
    image::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn picture(case: &str) -> RgbImage {
    stored(case).into_rgb8()
}

/// How far bytes are from the stored ones.
#[derive(Default)]
struct Distance {
    largest: u8,
    equal: usize,
    all: usize,
}

impl Distance {
    fn add(&mut self, ours: &[u8], case: &str, kind: &str) {
        let stored = stored(&format!("{case}-{kind}"));
        let theirs = if ours.len() == stored.width() as usize * stored.height() as usize {
            stored.into_luma8().into_raw()
        } else {
            stored.into_rgb8().into_raw()
        };
        assert_eq!(ours.len(), theirs.len(), "{case} {kind}");
        for (a, b) in ours.iter().zip(theirs) {
            self.largest = self.largest.max(a.abs_diff(b));
            self.equal += usize::from(*a == b);
            self.all += 1;
        }
    }

    fn share(&self) -> f64 {
        self.equal as f64 / self.all as f64
    }
}

/// How far results of all cases are from the stored ones of this kind.
fn distance(kind: &str, result: impl Fn(&str) -> Vec<u8>) -> Distance {
    let mut distance = Distance::default();
    CASES.iter().for_each(|case| distance.add(&result(case), case, kind));
    println!("{kind}: largest difference {}, equal {:.4}", distance.largest, distance.share());
    distance
}

fn lightness(lab: &RgbImage) -> GrayImage {
    GrayImage::from_fn(lab.width(), lab.height(), |x, y| Luma([lab.get_pixel(x, y)[0]]))
}

/// Gray and lightness of all colours there are, and whether they go to LAB and back, are those of OpenCV.
#[test]
fn every_colour() {
    let facts = std::fs::read_to_string(folder().join("colours.json")).unwrap();
    let facts: serde_json::Value = serde_json::from_str(&facts).unwrap();
    let (mut gray, mut light) = (Sha256::new(), Sha256::new());
    for red in 0..=255 {
        let slice = RgbImage::from_fn(256, 256, |blue, green| image::Rgb([red, green as u8, blue as u8]));
        gray.update(hair::gray(&slice).as_raw());
        light.update(lightness(&lab_of_rgb(&slice)).as_raw());
    }
    let hex = |hasher: Sha256| hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(Some(hex(gray).as_str()), facts["gray"].as_str());
    assert_eq!(Some(hex(light).as_str()), facts["lightness"].as_str());
}

/// LAB within a level, both ways.
#[test]
fn lab() {
    let there = distance("lab", |case| lab_of_rgb(&picture(case)).into_raw());
    assert!(there.largest <= 1 && there.share() > 0.999, "{} {}", there.largest, there.share());
    let back = distance("back", |case| rgb_of_lab(&picture(&format!("{case}-lab"))).into_raw());
    assert!(back.largest <= 1 && back.share() > 0.99, "{} {}", back.largest, back.share());
}

/// The hairs that are found are the same.
#[test]
fn hairs() {
    let gray = distance("gray", |case| hair::gray(&picture(case)).into_raw());
    let hat = distance("hat", |case| hair::black_hat(&hair::gray(&picture(case)), 17).into_raw());
    let mask = distance("mask", |case| hair::mask(&picture(case), HairConfig::default()).into_raw());
    assert_eq!((gray.largest, hat.largest, mask.largest), (0, 0, 0));
}

/// What is filled in is the same, but for sums in single precision that round the other way.
#[test]
fn inpainting() {
    for (kind, radius) in [("filled", 1), ("filled5", 5)] {
        let filled = distance(kind, |case| {
            let mut picture = picture(case);
            inpaint::fill(&mut picture, &stored(&format!("{case}-mask")).into_luma8(), radius);
            picture.into_raw()
        });
        assert!(filled.largest <= 1 && filled.share() > 0.999, "{kind} {} {}", filled.largest, filled.share());
    }
}

#[test]
fn clahe_of_lightness() {
    let equalised = distance("clahe", |case| {
        clahe::equalise(&lightness(&picture(&format!("{case}-lab"))), ClaheConfig::default()).into_raw()
    });
    assert!(equalised.largest <= 1 && equalised.share() > 0.999, "{} {}", equalised.largest, equalised.share());
}

/// All steps of the recipe, one after the other: a level for each that rounds.
#[test]
fn hair_removal_and_clahe() {
    let preprocess = Preprocess::from("hair,clahe".parse::<lesion_gpu::data::preprocess::Steps>().unwrap());
    let prepared = distance("prep", |case| {
        let picture = picture(case);
        let own = ImageSize { width: picture.width() as usize, height: picture.height() as usize };
        preprocess.run(picture, own).into_raw()
    });
    assert!(prepared.largest <= 2 && prepared.share() > 0.99, "{} {}", prepared.largest, prepared.share());
}

#[test]
fn shades() {
    let shades = distance("shades", |case| shades_of_gray(picture(case), ShadesOfGrayConfig::default()).into_raw());
    assert!(shades.largest <= 1 && shades.share() > 0.999, "{} {}", shades.largest, shades.share());
}
