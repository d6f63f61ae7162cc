//! Preprocessing against OpenCV (the cases of `tests/preprocess`, or of the folder named by `LESION_PREPROCESS_DIR`), and the
//! same in training, evaluation and prediction.

mod common;

use std::path::{Path, PathBuf};

use common::ok;
use image::{DynamicImage, GrayImage, Luma, RgbImage};
use lesion_gpu::data::preprocess::Steps;
use lesion_gpu::data::preprocess::clahe::{self, ClaheConfig};
use lesion_gpu::data::preprocess::colour::{ShadesOfGrayConfig, lab_of_rgb, rgb_of_lab, shades_of_gray};
use lesion_gpu::data::preprocess::hair::{self, HairConfig};
use lesion_gpu::data::preprocess::inpaint;
use lesion_gpu::data::{
    Cache, Dataset, ImageSize, Masks, OpenOptions, PixelStore, Preparation, Preprocess, SampleReader, decode_rgb,
};
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
    let preprocess = Preprocess::from("hair,clahe".parse::<Steps>().unwrap());
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

/// Printers' inks, which JPEG files hold inverted.
#[test]
fn cmyk_has_its_colours() {
    let bytes = std::fs::read(folder().join("cmyk.jpg")).unwrap();
    let picture = decode_rgb(&bytes, "cmyk.jpg").unwrap();
    let patches = [[200, 120, 100], [250, 240, 235], [20, 10, 10], [255, 0, 0], [0, 255, 0], [0, 0, 255]];
    for (i, patch) in (0..).zip(patches) {
        let found = picture.get_pixel(i % 3 * 8 + 4, i / 3 * 8 + 4).0;
        assert!((0..3).all(|c| found[c].abs_diff(patch[c]) <= 3), "{found:?} for {patch:?}");
    }
}

fn recipe(steps: &str, size: ImageSize) -> Preparation {
    Preparation { size, preprocess: steps.parse::<Steps>().unwrap().into() }
}

/// Skin with a lesion in a round black frame, and the lesion's mask.
fn framed(folder: &Path) -> PathBuf {
    let far = |x: u32, y: u32, cx: f32, cy: f32| (x as f32 - cx).hypot(y as f32 - cy);
    std::fs::create_dir_all(folder.join("images")).unwrap();
    std::fs::create_dir_all(folder.join("masks")).unwrap();
    let picture = RgbImage::from_fn(120, 90, |x, y| {
        image::Rgb(match (far(x, y, 60.0, 45.0), far(x, y, 50.0, 40.0)) {
            (frame, _) if frame > 42.0 => [3, 4, 5],
            (_, lesion) if lesion < 12.0 => [120, 70, 60],
            _ => [220, 180, 170],
        })
    });
    let mask = GrayImage::from_fn(120, 90, |x, y| Luma([if far(x, y, 50.0, 40.0) < 12.0 { 255 } else { 0 }]));
    picture.save(folder.join("images/p.png")).unwrap();
    mask.save(folder.join("masks/p.png")).unwrap();
    folder.to_path_buf()
}

/// Pixels of the store are those of a picture alone; recipes do not share a cache; masks are cropped with their pictures, and
/// what is scored knows where.
#[test]
fn the_store_does_as_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (data, cache, size) = (framed(&dir.path().join("set")), dir.path().join("cache"), ImageSize::from(30));
    let options = OpenOptions { masks: Masks::OfDataset, ..OpenOptions::default() };
    let dataset = Dataset::open(&data, &options).unwrap();
    let prepare = |steps: &str| {
        PixelStore::prepare(&mut dataset.clone(), recipe(steps, size), Cache::Dir(&cache), &mut |_, _| Ok(())).unwrap()
    };
    let picture = image::open(data.join("images/p.png")).unwrap().into_rgb8();
    for steps in ["none", "crop", "hair,clahe", "clahe,hair", "crop,hair,resize,clahe,shades-of-gray"] {
        let store = prepare(steps);
        assert!(!store.reused() && prepare(steps).reused(), "{steps}");
        let pixels = store.pixels(0).unwrap();
        let rgb: Vec<u8> = pixels.chunks(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
        assert_eq!(rgb, recipe(steps, size).make(picture.clone()).into_raw(), "{steps}");
        // The mask is where the lesion is; without a crop, the frame is dark too.
        let (inside, outside): (Vec<&[u8]>, Vec<&[u8]>) = pixels.chunks(4).partition(|p| p[3] == 255);
        if steps == "none" || steps == "crop" {
            assert!(inside.len() > 20 && inside.iter().all(|p| p[1] < 135), "{steps}");
        }
        if steps == "crop" {
            assert!(outside.iter().all(|p| p[1] > 115), "{steps}");
        }
    }
    let (mask, area) = SampleReader::default().mask_and_area(&dataset.samples[0], &recipe("crop", size)).unwrap();
    assert_eq!(mask.dimensions(), (120, 90));
    assert!(area.x > 20 && area.y > 10 && area.size.width > 50 && area.size.height > 50, "{area:?}");
    assert_eq!(area.of(picture).dimensions(), (area.size.width as u32, area.size.height as u32));
}

#[test]
fn a_sheet_shows_the_steps() {
    let dir = tempfile::tempdir().unwrap();
    let said = ok(dir.path(), &["data", "preview", "synthetic:30", "--count", "3", "--size", "40x30"]);
    assert!(said.contains("columns original | crop | hair | clahe | shades-of-gray"), "{said}");
    let sheet = image::open(dir.path().join("sheet.png")).unwrap();
    assert_eq!((sheet.width(), sheet.height()), (5 * 44 + 4, 3 * 34 + 4));
    // A dataset of masks, and a folder of pictures that is no dataset.
    let set = framed(&dir.path().join("set"));
    let said = ok(dir.path(), &["data", "preview", set.to_str().unwrap(), "--preprocess", "none", "--size", "32"]);
    assert!(said.contains("1 pictures of 32x32"), "{said}");
    let data = set.join("images");
    let args = ["data", "preview", data.to_str().unwrap(), "--preprocess", "crop", "--out", "one.png", "--size", "32"];
    let said = ok(dir.path(), &args);
    assert!(said.contains("120x90, cropped to") && said.contains("columns original | crop"), "{said}");
    std::fs::write(dir.path().join("c.toml"), "[preprocess]\nsteps = 'hair'\n[preprocess.hair]\nkernel = 4\n").unwrap();
    for (args, what) in [
        (&["--config", "c.toml"][..], "preprocess.hair.kernel must be an odd number"),
        (&["--preprocess", "hairs"], "'hairs' is no step"),
        (&["--size", "0"], "--size must be"),
        (&["--count", "5000", "--size", "512"], "too large to be shown"),
    ] {
        let output = common::program(dir.path(), &[&["data", "preview", "synthetic:6000"], args].concat());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && text.contains(what), "{args:?}: {text}");
    }
}

/// A run carries its preprocessing: its model says of a picture what the bare weights say of the same picture preprocessed
/// before; exported weights carry it too.
#[test]
fn a_run_preprocesses_what_it_predicts() {
    if common::gpu().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &str| ok(dir.path(), &args.split(' ').collect::<Vec<_>>());
    let steps = "crop,hair,clahe";
    run(&format!(
        "train --data synthetic:60 --model simple-cnn --size 32 --batch 8 --epochs 1 --steps 3 --run r --preprocess {steps}"
    ));
    let config = std::fs::read_to_string(dir.path().join("r/config.toml")).unwrap();
    assert!(config.contains("steps = \"crop,resize,hair,clahe\"") && config.contains("threshold = 10"), "{config}");
    framed(dir.path());
    let picture = image::open(dir.path().join("images/p.png")).unwrap().into_rgb8();
    recipe(steps, 32.into()).make(picture).save(dir.path().join("p.png")).unwrap();
    let answer = |args: &str| {
        let said = run(&format!("predict {args} --logits --format csv"));
        said.lines().nth(1).unwrap().split_once(',').unwrap().1.to_owned()
    };
    let of_run = answer("r images/p.png");
    let weights = "--model simple-cnn --weights w.safetensors --size 32";
    let said = run("export r --out model.onnx");
    assert!(said.contains("preprocessed outside of the graph: crop,resize,hair,clahe"), "{said}");
    run("export r --out w.safetensors");
    assert_eq!(answer(&format!("{weights} images/p.png")), of_run);
    assert_eq!(answer(&format!("{weights} --preprocess none p.png")), of_run);
    assert_ne!(answer(&format!("{weights} --preprocess none images/p.png")), of_run);
    run("eval r");

    // What starts from such weights sees pictures as they did, unless it is told otherwise.
    let begin = |flags: &str, name: &str| {
        let data = "--data synthetic:60 --model simple-cnn --size 32 --batch 8 --steps 1 --no-temperature";
        run(&format!("train {data} --run {name} {flags}"));
        std::fs::read_to_string(dir.path().join(name).join("config.toml")).unwrap()
    };
    let same = "steps = \"crop,resize,hair,clahe\"";
    assert!(begin("--weights w.safetensors", "exported").contains(same));
    assert!(begin("--weights r/weights/best.safetensors", "checkpoint").contains(same));
    assert!(!begin("--weights w.safetensors --preprocess none", "none").contains("clahe,"));
    let file = "model = 'simple-cnn'\nweights = 'w.safetensors'\n";
    std::fs::write(dir.path().join("c.toml"), file).unwrap();
    assert!(begin("--config c.toml", "file").contains(same));
    std::fs::write(dir.path().join("c.toml"), format!("{file}preprocess.steps = 'shades-of-gray'\n")).unwrap();
    assert!(begin("--config c.toml", "other").contains("steps = \"resize,shades-of-gray\""));
}
