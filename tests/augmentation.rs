//! Augmentation in training: what the model sees, pictures that are mixed, and runs that do not depend on how they are run.

mod common;

use std::path::Path;
use std::sync::atomic::Ordering;

use lesion_gpu::Kind;
use lesion_gpu::data::{Cache, Dataset, Masks, PixelStore, Visit};
use lesion_gpu::train::{
    AugmentConfig, Blend, Checkpoint, Event, Interrupt, LossKind, Normalisation, Precision, RunOptions, Seen,
    TrainConfig, augmented, run,
};

/// Everything that does not mix.
const ALL: AugmentConfig = AugmentConfig {
    hflip: true,
    vflip: true,
    rotation: 180.0,
    zoom: 0.2,
    shift: 0.1,
    shear: 10.0,
    brightness: 0.2,
    contrast: 0.2,
    saturation: 0.3,
    hue: 0.05,
    blur: 1.0,
    cutout: 0.25,
    ..AugmentConfig::NONE
};

fn config(augment: AugmentConfig) -> TrainConfig {
    let data = "synthetic:60".into();
    TrainConfig {
        model: "simple-cnn".into(),
        data,
        size: 32.into(),
        batch: 8,
        epochs: 2,
        augment,
        ..TrainConfig::default()
    }
}

fn store(config: &TrainConfig, masks: Masks) -> PixelStore {
    let mut dataset = Dataset::open(&config.data, &config.open_options(masks)).unwrap();
    PixelStore::prepare(&mut dataset, config.size, Cache::Off, &mut |_, _| Ok(())).unwrap()
}

fn visits(samples: &[usize]) -> Vec<Visit> {
    samples.iter().map(|&sample| sample.into()).collect()
}

#[test]
fn a_sample_looks_the_same_whatever_is_seen_with_it() {
    let Some(gpu) = common::gpu() else { return };
    let training: Vec<usize> = (0..40).collect();
    for augment in [ALL, AugmentConfig { mixup: 0.4, cutmix: 1.0, ..ALL }] {
        let config = config(augment);
        let pixels = store(&config, Masks::Unused);
        let see = |samples: &[usize], epoch| -> Vec<Seen> {
            augmented(&gpu, &config, &pixels, &training, &visits(samples), epoch).unwrap()
        };
        let many = see(&[3, 9, 30, 5, 12, 7, 8, 1, 2, 39, 11], 1);
        assert_eq!(see(&[39, 3], 1), [many[9].clone(), many[0].clone()]);
        assert_ne!(see(&[3], 2)[0].picture, many[0].picture);
        assert!(many.iter().all(|seen| seen.mask.is_none() && seen.blend.is_some() == augment.mixes()));
    }
}

#[test]
fn mixed_pictures_are_made_of_both_as_they_look_alone() {
    let Some(gpu) = common::gpu() else { return };
    let training: Vec<usize> = (10..60).collect();
    let samples: Vec<usize> = (20..44).collect();
    let unit = |augment| TrainConfig { normalisation: Normalisation::Unit, ..config(augment) };
    let pixels = store(&unit(ALL), Masks::Unused);
    let see =
        |augment, samples: &[usize]| augmented(&gpu, &unit(augment), &pixels, &training, &visits(samples), 4).unwrap();
    let mixed = see(AugmentConfig { mixup: 1.0, cutmix: 1.0, ..ALL }, &samples);
    let partners: Vec<usize> = mixed.iter().map(|seen| seen.blend.expect("a blend").partner).collect();
    assert!(partners.iter().all(|partner| training.contains(partner)));
    let (mut boxes, mut blends) = (0, 0);
    for ((mixed, own), other) in mixed.iter().zip(see(ALL, &samples)).zip(see(ALL, &partners)) {
        let Blend { share, patch: [top, left, bottom, right], .. } = mixed.blend.expect("a blend");
        if share < 1.0 {
            blends += 1
        } else {
            boxes += 1
        }
        for (x, y, pixel) in mixed.picture.enumerate_pixels() {
            let inside = (top..bottom).contains(&y) && (left..right).contains(&x);
            let share = if inside { 0.0 } else { share };
            for channel in 0..3 {
                let [own, other] = [&own, &other].map(|seen| f32::from(seen.picture.get_pixel(x, y)[channel]));
                let want = share * own + (1.0 - share) * other;
                // All three are rounded to bytes.
                assert!((f32::from(pixel[channel]) - want).abs() <= 1.01, "{x},{y}: {} {want}", pixel[channel]);
            }
        }
    }
    assert!(boxes > 3 && blends > 3, "{boxes} {blends}");
}

#[test]
fn pictures_come_back_in_their_colours_with_their_masks() {
    let Some(gpu) = common::gpu() else { return };
    for normalisation in [Normalisation::ImageNet, Normalisation::Caffe] {
        let plain = TrainConfig { normalisation, ..config(AugmentConfig::NONE) };
        let pixels = store(&plain, Masks::OfDataset);
        let see = |config: &TrainConfig| augmented(&gpu, config, &pixels, &[0, 1], &visits(&[0, 1, 2]), 0).unwrap();
        for (sample, seen) in see(&plain).iter().enumerate() {
            let bytes = pixels.pixels(sample).unwrap();
            let want: Vec<u8> = bytes.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
            assert_eq!(*seen.picture.as_raw(), want);
            let mask: Vec<u8> = bytes.chunks_exact(4).map(|p| p[3]).collect();
            assert_eq!(seen.mask.as_ref().expect("a mask").as_raw(), &mask);
        }
        let changed = see(&TrainConfig { augment: ALL, ..plain.clone() });
        assert!(changed.iter().zip(see(&plain)).all(|(a, b)| a.picture != b.picture && a.mask != b.mask));
    }
}

/// Trains in a new folder, interrupted after `steps` steps and resumed if given; returns the steps and the weights.
fn trained(
    folder: &Path,
    config: &TrainConfig,
    workers: usize,
    steps: Option<usize>,
) -> (String, lesion_gpu::weights::Tensors) {
    let gpu = common::gpu().expect("a device");
    let options = RunOptions { run: Some(folder.to_owned()), no_cache: true, workers, ..RunOptions::default() };
    let (interrupt, mut seen) = (Interrupt::default(), 0);
    let result = run(&gpu, config, &options, &interrupt, &mut |event| {
        if let Event::Step { .. } = event {
            seen += 1;
            interrupt.store(steps == Some(seen), Ordering::Relaxed);
        }
    });
    match steps {
        None => drop(result.unwrap()),
        Some(_) => {
            assert_eq!(result.unwrap_err().kind(), Kind::Interrupted);
            let options = RunOptions { resume: true, ..options };
            run(&gpu, config, &options, &Interrupt::default(), &mut |_| {}).unwrap();
        }
    }
    let steps = std::fs::read_to_string(folder.join("steps.csv")).unwrap();
    (steps, Checkpoint::read(&folder.join("weights/last.safetensors")).unwrap().weights)
}

#[test]
fn a_run_with_all_augmentations_does_not_depend_on_workers_or_interruptions() {
    let Some(gpu) = common::gpu() else { return };
    let mixing = AugmentConfig { mixup: 0.2, cutmix: 1.0, ..ALL };
    let precision = if gpu.caps().f16 { Precision::Mixed } else { Precision::F32 };
    drop(gpu);
    for config in [config(mixing), TrainConfig { loss: LossKind::Bce, precision, ..config(mixing) }] {
        let folder = tempfile::tempdir().unwrap();
        let run = |name: &str, workers, steps| trained(&folder.path().join(name), &config, workers, steps);
        let whole = run("whole", 1, None);
        assert!(whole == run("workers", 3, None), "the number of workers made a difference");
        assert!(whole == run("resumed", 2, Some(7)), "the interruption made a difference");
        let other = TrainConfig { augment: ALL, ..config.clone() };
        assert!(whole != trained(&folder.path().join("unmixed"), &other, 1, None), "mixing made none");
    }
}

#[test]
fn what_cannot_be_mixed_is_refused() {
    let refused = |config: TrainConfig, words: &[&str]| {
        let e = config.validate().unwrap_err();
        assert_eq!(e.kind(), Kind::Usage);
        assert!(words.iter().all(|word| e.to_string().contains(word)), "{e}");
    };
    let mixup = AugmentConfig { mixup: 0.2, ..AugmentConfig::NONE };
    let cutmix = AugmentConfig { cutmix: 1.0, ..AugmentConfig::NONE };
    refused(TrainConfig { loss: LossKind::Focal, ..config(mixup) }, &["--mixup", "--loss focal", "bce"]);
    let unet = TrainConfig::of(lesion_gpu::models::Model::find("unet-small").unwrap());
    refused(TrainConfig { augment: cutmix, ..unet }, &["--cutmix does not go together with unet-small"]);
    let wrong = [
        (AugmentConfig { shift: 1.0, ..ALL }, "--shift"),
        (AugmentConfig { shear: 70.0, ..ALL }, "--shear"),
        (AugmentConfig { saturation: -0.1, ..ALL }, "--saturation"),
        (AugmentConfig { hue: 0.6, ..ALL }, "--hue"),
        (AugmentConfig { blur: f32::NAN, ..ALL }, "--blur"),
        (AugmentConfig { cutout: 1.1, ..ALL }, "--cutout"),
        (AugmentConfig { mixup: f32::INFINITY, ..ALL }, "--mixup"),
        (AugmentConfig { cutmix: -1.0, ..ALL }, "--cutmix"),
    ];
    for (augment, flag) in wrong {
        refused(config(augment), &[flag]);
    }
    config(AugmentConfig { mixup: 0.2, cutmix: 1.0, ..ALL }).validate().unwrap();
}

#[test]
fn configurations_from_before_these_augmentations_are_read() {
    let before = config(AugmentConfig { rotation: 30.0, ..AugmentConfig::NONE });
    let text = toml::to_string(&before).unwrap();
    assert!(["shift", "shear", "hue", "blur", "cutout", "mixup"].iter().all(|key| !text.contains(key)), "{text}");
    assert_eq!(toml::from_str::<TrainConfig>(&text).unwrap(), before);
    let now = config(AugmentConfig { mixup: 0.2, ..ALL });
    assert_eq!(toml::from_str::<TrainConfig>(&toml::to_string(&now).unwrap()).unwrap(), now);
}
