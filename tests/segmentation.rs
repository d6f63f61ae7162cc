//! Segmentation as a user runs it: a U-Net is trained, resumed, scored and used on pictures of another size.

mod common;

use std::path::Path;
use std::sync::atomic::Ordering;

use image::GrayImage;
use lesion_gpu::Kind;
use lesion_gpu::data::synthetic;
use lesion_gpu::gpu::Gpu;
use lesion_gpu::models::Model;
use lesion_gpu::train::{
    AugmentConfig, Checkpoint, Event, Interrupt, LossKind, Precision, Report, RunOptions, RunSummary, ScheduleKind,
    TrainConfig, run,
};

fn config() -> TrainConfig {
    TrainConfig {
        data: "synthetic:36".into(),
        size: "48x32".parse().unwrap(),
        batch: 4,
        epochs: 2,
        schedule: ScheduleKind::Cosine,
        augment: AugmentConfig { hflip: true, vflip: true, rotation: 30.0, zoom: 0.1, ..AugmentConfig::NONE },
        ..TrainConfig::of(Model::find("unet-small").unwrap())
    }
}

/// Trains into `dir/name`, and interrupts after `steps` steps if given. On one device pipelines are built once.
fn train(
    gpu: &Gpu,
    dir: &Path,
    name: &str,
    config: &TrainConfig,
    resume: bool,
    steps: Option<usize>,
) -> lesion_gpu::Result<RunSummary> {
    let options = RunOptions { run: Some(dir.join(name)), resume, no_cache: true, workers: 1, ..RunOptions::default() };
    let (interrupt, mut seen) = (Interrupt::default(), 0);
    run(gpu, config, &options, &interrupt, &mut |event| {
        if let Event::Step { .. } = event {
            seen += 1;
            if Some(seen) == steps {
                interrupt.store(true, Ordering::Relaxed);
            }
        }
    })
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn a_resumed_run_equals_one_that_was_not_interrupted_and_its_model_is_used() {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let config = config();
    let whole = train(&gpu, dir, "whole", &config, false, None).unwrap();
    // Six or seven steps an epoch: within the second.
    let stopped = train(&gpu, dir, "parts", &config, false, Some(8)).unwrap_err();
    assert_eq!(stopped.kind(), Kind::Interrupted);
    train(&gpu, dir, "parts", &config, true, None).unwrap();
    for file in ["steps.csv", "split.csv", "config.toml"] {
        assert_eq!(read(&dir.join("whole").join(file)), read(&dir.join("parts").join(file)), "{file}");
    }
    let checkpoint = |run: &str| Checkpoint::read(&dir.join(run).join("weights/last.safetensors")).unwrap();
    let (a, b) = (checkpoint("whole"), checkpoint("parts"));
    assert!(a.weights == b.weights && a.optimizer == b.optimizer && a.classes == ["lesion"]);
    let scores = |run: &str| -> Vec<String> {
        read(&dir.join(run).join("results.csv"))
            .lines()
            .map(|l| l.split(',').take(11).collect::<Vec<_>>().join(","))
            .collect()
    };
    assert_eq!(scores("whole"), scores("parts"));
    assert_eq!(
        scores("whole")[0],
        "epoch,steps,lr,train_loss,val_loss,val_dice,val_jaccard,val_threshold_jaccard,val_sensitivity,val_specificity,\
         val_accuracy"
    );
    let losses: Vec<f64> = read(&dir.join("whole/steps.csv"))
        .lines()
        .skip(1)
        .map(|l| l.rsplit(',').next().unwrap().parse().unwrap())
        .collect();
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(mean(&losses[losses.len() - 3..]) < mean(&losses[..3]), "{losses:?}");
    let Some(Report::Masks(test)) = whole.test.map(|scores| scores.report) else { panic!("scores of masks") };
    assert!(test.images > 0 && test.specificity > 0.0);
    used(dir);
}

/// `eval` and `predict` with the run in `dir/whole`.
fn used(dir: &Path) {
    let ok = |args: &[&str]| {
        let output = common::program(dir, args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let printed = ok(&["eval", "whole", "--no-cache", "--batch", "4", "--json", "scores.json"]);
    assert!(printed.contains("masks brought to the pictures' own size") && printed.contains("threshold Jaccard"));
    let scores: serde_json::Value = serde_json::from_str(&read(&dir.join("scores.json"))).unwrap();
    for name in ["dice", "jaccard", "threshold_jaccard", "sensitivity", "specificity", "accuracy"] {
        assert!((0.0..=1.0).contains(&scores[name].as_f64().unwrap()), "{scores}");
    }
    // Pictures of other sizes than the model's, each with a mask of its own size.
    std::fs::create_dir(dir.join("photos")).unwrap();
    std::fs::create_dir(dir.join("drawn")).unwrap();
    for (name, width, height) in [("a", 70, 50), ("b", 31, 64)] {
        let (picture, mask) = synthetic::render(3, 1, 64);
        let picture = image::imageops::thumbnail(&picture, width, height);
        picture.save(dir.join(format!("photos/{name}.png"))).unwrap();
        let mut mask = image::imageops::thumbnail(&mask, width, height);
        mask.pixels_mut().for_each(|p| p[0] = if p[0] > 127 { 255 } else { 0 });
        mask.save(dir.join(format!("drawn/{name}_segmentation.png"))).unwrap();
    }
    let predict = ["predict", "whole", "photos", "--out", "masks", "--format", "json"];
    let answers: serde_json::Value = serde_json::from_str(&ok(&predict)).unwrap();
    let (mut dice, mut jaccard) = (0.0, 0.0);
    for (answer, (name, width, height)) in answers.as_array().unwrap().iter().zip([("a", 70, 50), ("b", 31, 64)]) {
        let mask: GrayImage = image::open(dir.join(format!("masks/{name}_segmentation.png"))).unwrap().into_luma8();
        assert_eq!(mask.dimensions(), (width, height));
        assert!(mask.pixels().all(|p| p[0] == 0 || p[0] == 255));
        let share = mask.pixels().filter(|p| p[0] == 255).count() as f64 / f64::from(width * height);
        assert!((answer["share"].as_f64().unwrap() - share).abs() < 1e-12, "{answer}");
        let drawn = image::open(dir.join(format!("drawn/{name}_segmentation.png"))).unwrap().into_luma8();
        let both = mask.pixels().zip(drawn.pixels()).filter(|(a, b)| a[0] == 255 && b[0] == 255).count() as f64;
        let either = mask.pixels().zip(drawn.pixels()).filter(|(a, b)| a[0] == 255 || b[0] == 255).count() as f64;
        jaccard += both / either / 2.0;
        dice += 2.0 * both / (both + either) / 2.0;
    }
    // Outlines as polygons around the white pixels, and on the picture; measures of the shape.
    let outlined = ["predict", "whole", "photos", "--out", "outlined", "--contours", "--format", "json"];
    let outlined: serde_json::Value = serde_json::from_str(&ok(&outlined)).unwrap();
    for (answer, (width, height)) in outlined.as_array().unwrap().iter().zip([(70, 50), (31, 64)]) {
        let inside = (answer["share"].as_f64().unwrap() * f64::from(width * height)).round();
        let area = |polygon: &serde_json::Value| {
            let at = |i: usize, axis: usize| polygon[i][axis].as_i64().unwrap();
            let count = polygon.as_array().unwrap().len();
            (0..count)
                .map(|i| (i, (i + 1) % count))
                .map(|(i, j)| at(i, 0) * at(j, 1) - at(j, 0) * at(i, 1))
                .sum::<i64>()
        };
        let doubled: i64 = answer["contours"].as_array().unwrap().iter().map(area).sum();
        assert_eq!(doubled as f64 / 2.0, inside, "{answer}");
        let shape = &answer["shape"];
        assert!(shape["area"].as_f64().unwrap() <= inside && shape["diameter"].as_f64().unwrap() > 1.0, "{shape}");
        let drawn = image::open(dir.join(answer["outlined"].as_str().unwrap())).unwrap();
        assert_eq!((drawn.width(), drawn.height()), (width, height));
    }
    // What `eval` says of those pictures are the means over the masks that `predict` has written.
    let rows = ["path,mask", "photos/a.png,drawn/a_segmentation.png", "photos/b.png,drawn/b_segmentation.png"];
    std::fs::write(dir.join("own.csv"), rows.join("\n")).unwrap();
    ok(&["eval", "whole", "--data", "own.csv", "--split", "all", "--no-cache", "--json", "own.json"]);
    let scores: serde_json::Value = serde_json::from_str(&read(&dir.join("own.json"))).unwrap();
    assert!(dice > 0.0 && jaccard < 1.0, "{dice} {jaccard}");
    for (name, by_hand) in [("dice", dice), ("jaccard", jaccard)] {
        assert!((scores[name].as_f64().unwrap() - by_hand).abs() < 1e-12, "{name} {by_hand}: {scores}");
    }
    let fails = |code: i32, args: &[&str]| {
        let output = common::program(dir, args);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        stderr
    };
    assert!(fails(11, &predict).contains("nothing is overwritten"));
    assert!(fails(2, &["predict", "whole", "photos"]).contains("--out"));
}

#[test]
fn each_loss_trains_in_parts_and_in_f16() {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let losses = |name: &str, config: &TrainConfig| -> Vec<f64> {
        train(&gpu, folder.path(), name, config, false, None).unwrap();
        let table = read(&folder.path().join(name).join("steps.csv"));
        table.lines().skip(1).map(|l| l.rsplit(',').next().unwrap().parse().unwrap()).collect()
    };
    let short = TrainConfig { max_steps: Some(1), epochs: 1, augment: AugmentConfig::NONE, ..config() };
    let [both, dice, jaccard, bce] = [LossKind::BceDice, LossKind::Dice, LossKind::Jaccard, LossKind::Bce]
        .map(|loss| losses(loss.name(), &TrainConfig { loss, ..short.clone() })[0]);
    assert!((both - dice - bce).abs() < 1e-5 && jaccard > dice, "{both} {dice} {jaccard} {bce}");
    // The first part is the batch of before, the second one like it.
    let parts = losses("parts", &TrainConfig { batch: 8, micro_batch: Some(4), ..short.clone() })[0];
    assert!(parts != both && (parts - both).abs() < 0.2 * both, "{parts} {both}");
    if gpu.caps().f16 {
        let mixed = losses("mixed", &TrainConfig { precision: Precision::Mixed, ..short })[0];
        assert!((mixed - both).abs() < 1e-2 * both, "{mixed} {both}");
    }
}

#[test]
fn what_does_not_go_together_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let fails = |code: i32, extra: &[&str]| {
        let args = [&["train", "--data", "synthetic:12", "--model", "unet-small"], extra].concat();
        let output = common::program(folder.path(), &args);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        stderr
    };
    assert!(fails(2, &["--loss", "cross-entropy"]).contains("bce, bce-dice, dice, jaccard"));
    assert!(
        fails(2, &["--monitor", "balanced-accuracy"])
            .contains("jaccard, threshold-jaccard, dice, pixel-accuracy, loss")
    );
    assert!(fails(2, &["--class-weights", "balanced"]).contains("models that classify"));
    assert!(fails(2, &["--size", "12by8"]).contains("no size of pictures"));
    assert!(fails(2, &["--size", "64x0"]).contains("--size must be"));
    if common::gpu().is_some() {
        assert!(fails(12, &["--size", "100x75", "--batch", "4"]).contains("--size 96x80"));
        assert!(fails(2, &["--masks", "somewhere"]).contains("masks of their own"));
    }
}
