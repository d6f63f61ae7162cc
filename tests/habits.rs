//! What good training and scoring are made of: stopping by any score, epochs that are kept, temperature, views, and runs
//! scored together; all through the program, as a user has them.

mod common;

use std::path::Path;

use common::{fails, ok};
use lesion_gpu::metrics::PixelCounts;
use lesion_gpu::ops::larger;
use lesion_gpu::train::Checkpoint;

const TRAIN: &[&str] = &["train", "--data", "synthetic:120", "--model", "simple-cnn", "--batch", "8", "--no-tune"];

fn train(dir: &Path, extra: &[&str]) -> String {
    let size: &[&str] = if extra.contains(&"--size") { &[] } else { &["--size", "32"] };
    ok(dir, &[TRAIN, size, extra].concat())
}

fn json(dir: &Path, file: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(dir.join(file)).unwrap()).unwrap()
}

/// The scores that `eval` writes.
fn scores(dir: &Path, args: &[&str]) -> serde_json::Value {
    ok(dir, &[&["eval"], args, &["--json", "scores.json"]].concat());
    json(dir, "scores.json")
}

fn close(a: &serde_json::Value, b: &serde_json::Value) -> bool {
    (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-9
}

/// The epochs whose weights are kept in a run.
fn kept(dir: &Path, run: &str) -> Vec<u32> {
    let files = std::fs::read_dir(dir.join(run).join("weights")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut epochs: Vec<u32> =
        names.filter_map(|name| name.strip_prefix("epoch-")?.strip_suffix(".safetensors")?.parse().ok()).collect();
    epochs.sort_unstable();
    epochs
}

/// A column of `results.csv`.
fn column(dir: &Path, run: &str, name: &str) -> Vec<f64> {
    let text = std::fs::read_to_string(dir.join(run).join("results.csv")).unwrap();
    let at = text.lines().next().unwrap().split(',').position(|column| column == name).unwrap();
    text.lines().skip(1).map(|row| row.split(',').nth(at).unwrap().parse().unwrap()).collect()
}

#[test]
fn any_score_stops_a_run_and_says_why() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    // At such a rate no weight changes, so the first epoch stays the best.
    for (score, delta) in [("macro-f1", ""), ("average-precision", ""), ("recall:nv", "0.01")] {
        let run = score.replace(':', "-");
        let mut args = vec!["--lr", "1e-30", "--epochs", "5", "--patience", "2", "--monitor", score, "--run", &run];
        if !delta.is_empty() {
            args.extend(["--min-delta", delta]);
        }
        let printed = train(dir, &args);
        let by = if delta.is_empty() { String::new() } else { format!(" by more than {delta}") };
        let why = format!("val {score} has not risen{by} for 2 epochs; ");
        assert!(printed.contains(&why) && printed.contains("in epoch 1\n"), "{printed}");
        let stopped = &json(dir, &format!("{run}/metrics.json"))["stopped"][0];
        assert!(stopped["why"].as_str().unwrap().starts_with(&why), "{stopped}");
        assert_eq!((stopped["epoch"].as_u64(), stopped["phase"].as_u64()), (Some(3), Some(1)));
    }
    // What improves by less than asked for is no improvement.
    let learning = ["--lr", "1e-3", "--epochs", "4", "--patience", "1", "--monitor", "loss", "--run"];
    train(dir, &[&learning[..], &["free"]].concat());
    train(dir, &[&learning[..], &["strict", "--min-delta", "100"]].concat());
    assert!(column(dir, "free", "epoch").len() > column(dir, "strict", "epoch").len());
    assert_eq!(column(dir, "strict", "epoch"), [1.0, 2.0]);

    let refused = |extra: &[&str], what: &str| {
        let message = fails(dir, 2, &[TRAIN, extra].concat());
        assert!(message.contains(what), "{message}");
    };
    refused(&["--monitor", "recall:wart"], "there is no such class");
    refused(&["--monitor", "exact-match"], "--loss bce or sigmoid-focal");
    refused(&["--monitor", "pixel-accuracy"], "choose one of: balanced-accuracy, accuracy, macro-f1");
    refused(&["--monitor", "beauty"], "unknown score 'beauty'");
    refused(&["--clip-norm", "0"], "--clip-norm must be a positive number");
}

#[test]
fn epochs_are_kept_by_number_and_by_score_and_a_resumed_run_keeps_the_same() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let keep = ["--epochs", "6", "--clip-norm", "1", "--monitor", "loss", "--keep-every", "4", "--keep-best", "2"];
    train(dir, &[&keep[..], &["--run", "a"]].concat());
    let mut order: Vec<(f64, u32)> = column(dir, "a", "val_loss").into_iter().zip(1..).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut want = vec![order[0].1, order[1].1, 4];
    want.sort_unstable();
    want.dedup();
    assert_eq!(kept(dir, "a"), want);
    // They are checkpoints that can be used, without the state of the optimizer.
    let best = format!("a/weights/epoch-{:04}.safetensors", order[0].1);
    let (of_epoch, of_run) =
        (Checkpoint::read(&dir.join(&best)), Checkpoint::read(&dir.join("a/weights/best.safetensors")));
    let (of_epoch, of_run) = (of_epoch.unwrap(), of_run.unwrap());
    assert!(of_epoch.weights == of_run.weights && of_epoch.optimizer.is_empty() && !of_run.optimizer.is_empty());
    let all = scores(dir, &["a", "--no-temperature"]);
    assert!(close(&scores(dir, &[&best])["loss"], &all["loss"]));

    // The same run, killed after its last epoch but one, when the file of an epoch was not deleted yet.
    let mut early = Checkpoint::read(&dir.join("a/weights/last.safetensors")).unwrap();
    assert_eq!(early.progress.epoch, 6);
    early.progress.fallen = vec![1];
    early.write(&dir.join("a/weights/last.safetensors")).unwrap();
    std::fs::write(dir.join("a/weights/epoch-0001.safetensors"), b"an older one").unwrap();
    ok(dir, &["train", "--resume", "a"]);
    want.retain(|epoch| *epoch != 1);
    assert_eq!(kept(dir, "a"), want);
}

#[test]
fn a_temperature_is_fitted_kept_used_and_can_be_left_away() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let short = ["--epochs", "2", "--lr", "3e-3"];
    train(dir, &[&short[..], &["--run", "with"]].concat());
    train(dir, &[&short[..], &["--run", "without", "--no-temperature"]].concat());
    let temperature =
        |run: &str| Checkpoint::read(&dir.join(run).join("weights/best.safetensors")).unwrap().temperature;
    let fitted = temperature("with").expect("a temperature");
    assert!(fitted > 0.05 && fitted < 20.0 && fitted != 1.0 && temperature("without").is_none(), "{fitted}");
    assert!(close(&json(dir, "with/metrics.json")["temperature"], &fitted.into()));

    // On the pictures it was fitted to it can only help. It moves no picture to another class, and not the loss.
    let val = scores(dir, &["with", "--split", "val"]);
    let plain = scores(dir, &["with", "--split", "val", "--no-temperature"]);
    let calibration = &val["calibration"];
    assert!(calibration["nll"].as_f64() <= calibration["nll_before"].as_f64(), "{calibration}");
    assert!(close(&calibration["nll_before"], &plain["loss"]) && close(&val["loss"], &plain["loss"]));
    assert!(val["confusion"] == plain["confusion"] && plain["calibration"].is_null());
    assert!(val["detailed"]["calibration_error"] == calibration["calibration_error"]);
    // The run and `eval` say the same of the test pictures.
    let (test, metrics) = (scores(dir, &["with"]), json(dir, "with/metrics.json"));
    let nll = |scores: &serde_json::Value| scores["calibration"]["nll"].as_f64().unwrap();
    assert!((nll(&test) - nll(&metrics["test"])).abs() < 1e-4, "{} {}", nll(&test), nll(&metrics["test"]));

    // Later, for a run that has none: the same.
    let printed = ok(dir, &["eval", "without", "--fit-temperature"]);
    assert!(printed.contains("NLL"), "{printed}");
    // In batches of another size, so logits differ in their last digits.
    assert!((temperature("without").unwrap() / fitted - 1.0).abs() < 1e-4);
    for (args, what) in [
        (&["with", "without", "--fit-temperature"][..], "for one run"),
        (&["with", "--fit-temperature", "--no-temperature"], "cannot be used with"),
        (&["with", "--fit-temperature", "--data", "synthetic:50"], "cannot be used with"),
    ] {
        let message = fails(dir, 2, &[&["eval"], args].concat());
        assert!(message.contains(what), "{message}");
    }

    // Answers are calibrated, and say so.
    lesion_gpu::data::synthetic::write(&dir.join("made"), 3, 3, 48).unwrap();
    let picture = first_picture(&dir.join("made"));
    let answer = |args: &[&str]| -> serde_json::Value {
        let all = ["predict", "with", picture.to_str().unwrap(), "--format", "json", "--top-k", "7"];
        serde_json::from_str::<serde_json::Value>(&ok(dir, &[&all[..], args].concat())).unwrap()[0].clone()
    };
    let (warm, plain, raw) = (answer(&[]), answer(&["--no-temperature"]), answer(&["--logits"]));
    assert!(close(&warm["temperature"], &fitted.into()) && plain["temperature"].is_null());
    let logits: Vec<f64> = raw["logits"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    for (answer, temperature) in [(&warm, fitted), (&plain, 1.0)] {
        let sum: f64 = logits.iter().map(|z| (z / temperature).exp()).sum();
        let top = logits.iter().map(|z| (z / temperature).exp() / sum).fold(0.0, f64::max);
        assert!((answer["top"][0]["score"].as_f64().unwrap() - top).abs() < 1e-6, "{answer}");
    }
}

fn first_picture(folder: &Path) -> std::path::PathBuf {
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    let folders = entries.iter().filter(|path| path.is_dir()).map(|path| first_picture(path));
    let files = entries.iter().filter(|path| path.extension().is_some_and(|e| e == "png")).cloned();
    files.chain(folders).next().expect("a picture")
}

/// Probabilities by picture, from a table of answers.
fn table(text: &str) -> Vec<Vec<f64>> {
    text.lines().skip(1).map(|row| row.split(',').skip(2).map(|p| p.parse().unwrap()).collect()).collect()
}

#[test]
fn views_make_answers_that_do_not_depend_on_how_a_picture_lies() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    train(dir, &["--epochs", "1", "--run", "square"]);
    train(dir, &["--epochs", "1", "--run", "wide", "--size", "40x32"]);
    lesion_gpu::data::synthetic::write(&dir.join("made"), 3, 3, 48).unwrap();
    let picture = image::open(first_picture(&dir.join("made"))).unwrap().to_rgb8();
    // Of the model's size, so that resizing has no part in it.
    for (run, size, turned, views) in [("square", (32, 32), true, 8), ("wide", (40, 32), false, 4)] {
        let picture = image::imageops::thumbnail(&picture, size.0, size.1);
        picture.save(dir.join("0.png")).unwrap();
        image::imageops::flip_horizontal(&picture).save(dir.join("1.png")).unwrap();
        image::imageops::rotate180(&picture).save(dir.join("2.png")).unwrap();
        let mut names = vec!["0.png", "1.png", "2.png"];
        if turned {
            image::imageops::rotate90(&picture).save(dir.join("3.png")).unwrap();
            names.push("3.png");
        }
        // Two at a time, so that the last batch is not full.
        let args = [&["predict", run, "--format", "csv", "--batch", "2"], &names[..]].concat();
        let (plain, shown) = (table(&ok(dir, &args)), table(&ok(dir, &[&args[..], &["--tta"]].concat())));
        assert_eq!(shown.len(), names.len());
        let apart = |rows: &[Vec<f64>]| {
            let far = |row: &Vec<f64>| row.iter().zip(&rows[0]).map(|(a, b)| (a - b).abs()).fold(0.0, larger);
            rows.iter().map(far).fold(0.0, larger)
        };
        assert!(apart(&shown) < 1.5e-6 && apart(&plain) > 1e-5, "{run}: {} {}", apart(&shown), apart(&plain));
        // And they are the mean of what is said of each view.
        if turned {
            let all = [("0", 0), ("90", 1), ("180", 2), ("270", 3)];
            let mut names = vec![];
            for (name, turns) in all {
                let mut turned = picture.clone();
                (0..turns).for_each(|_| turned = image::imageops::rotate90(&turned));
                turned.save(dir.join(format!("r{name}.png"))).unwrap();
                image::imageops::flip_vertical(&turned).save(dir.join(format!("f{name}.png"))).unwrap();
                names.extend([format!("r{name}.png"), format!("f{name}.png")]);
            }
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let each = table(&ok(dir, &[&["predict", run, "--format", "csv"], &names[..]].concat()));
            for class in 0..7 {
                let mean = each.iter().map(|row| row[class]).sum::<f64>() / 8.0;
                assert!((mean - shown[0][class]).abs() < 2e-6, "{mean} {}", shown[0][class]);
            }
        }
        let printed = ok(dir, &["eval", run, "--tta"]);
        assert!(printed.contains(&format!("mean of {views} views (x{views})")), "{printed}");
    }
    assert!(fails(dir, 2, &["predict", "square", "0.png", "--tta", "--logits"]).contains("cannot be used with"));
}

#[test]
fn masks_turn_with_their_pictures() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let args =
        ["train", "--data", "synthetic:60", "--model", "unet-small", "--size", "32", "--batch", "8", "--no-tune"];
    ok(dir, &[&args[..], &["--epochs", "1", "--monitor", "threshold-jaccard", "--run", "u"]].concat());
    lesion_gpu::data::synthetic::write(&dir.join("made"), 3, 3, 48).unwrap();
    let picture = image::open(first_picture(&dir.join("made"))).unwrap().to_rgb8();
    let picture = image::imageops::thumbnail(&picture, 32, 32);
    picture.save(dir.join("a.png")).unwrap();
    image::imageops::rotate90(&picture).save(dir.join("b.png")).unwrap();
    ok(dir, &["predict", "u", "a.png", "b.png", "--tta", "--out", "masks"]);
    let mask = |name: &str| image::open(dir.join("masks").join(name)).unwrap().to_luma8();
    let (a, b) = (mask("a_segmentation.png"), mask("b_segmentation.png"));
    // A pixel whose probability is one half to the last digit may go either way.
    let differ = image::imageops::rotate90(&a).pixels().zip(b.pixels()).filter(|(a, b)| a != b).count();
    assert!(differ <= 1, "{differ} pixels differ");
    let printed = ok(dir, &["eval", "u", "--tta"]);
    assert!(printed.contains("views (x8)") && printed.contains("threshold Jaccard"), "{printed}");
    assert!(fails(dir, 2, &["eval", "u", "--fit-temperature"]).contains("models with a softmax"));
}

#[test]
fn masks_of_several_runs_are_drawn_and_scored_together() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    lesion_gpu::data::synthetic::write(&dir.join("made"), 5, 60, 48).unwrap();
    let (images, masks) =
        (dir.join("made/HAM10000_images_part_1"), dir.join("made/HAM10000_segmentations_lesion_tschandl"));
    let train = |extra: &[&str]| {
        let args = ["train", "--data", "made", "--model", "unet-small", "--batch", "4", "--epochs", "1", "--no-tune"];
        ok(dir, &[&args[..], extra].concat())
    };
    train(&["--size", "32", "--run", "one"]);
    train(&["--size", "48x32", "--seed", "7", "--normalize", "unit", "--preprocess", "clahe", "--run", "two"]);
    let printed = ok(dir, &["eval", "one", "two"]);
    assert!(printed.contains("mean of 2") && printed.contains("     Dice   Jaccard"), "{printed}");
    let both = scores(dir, &["one", "two"]);
    for (number, run) in ["one", "two"].into_iter().enumerate() {
        assert!(close(&both["members"][number]["dice"], &scores(dir, &[run])["dice"]), "{both}");
    }
    // One run twice is that run.
    assert!(close(&scores(dir, &["two", "two"])["jaccard"], &scores(dir, &["two"])["jaccard"]));

    // `predict` draws what `eval` has scored.
    std::fs::create_dir(dir.join("test")).unwrap();
    let split = std::fs::read_to_string(dir.join("one/split.csv")).unwrap();
    let ids = split.lines().filter(|row| row.ends_with(",test")).map(|row| row.split(',').next().unwrap());
    let ids: Vec<&str> = ids.collect();
    for id in &ids {
        let file = format!("{id}.png");
        std::fs::copy(images.join(&file), dir.join("test").join(&file)).unwrap();
    }
    ok(dir, &["predict", "one", "two", "test", "--out", "drawn", "--batch", "3"]);
    let dice = ids.iter().map(|id| {
        let mask = |folder: &Path| image::open(folder.join(format!("{id}_segmentation.png"))).unwrap().to_luma8();
        let (ours, truth) = (mask(&dir.join("drawn")), mask(&masks));
        PixelCounts::of(ours.pixels().zip(truth.pixels()).map(|(a, b)| (a[0] > 0, b[0] > 0))).dice()
    });
    let dice = dice.sum::<f64>() / ids.len() as f64;
    assert!((dice - both["dice"].as_f64().unwrap()).abs() < 1e-9, "{dice} {both}");

    // Folds, each by the run that was not trained on it.
    for fold in ["1", "2"] {
        train(&["--size", "32", "--fold", &format!("{fold}/2"), "--run", &format!("fold{fold}")]);
    }
    let all = scores(dir, &["fold1", "fold2", "--out-of-fold"]);
    let images: u64 = all["members"].as_array().unwrap().iter().map(|m| m["images"].as_u64().unwrap()).sum();
    assert_eq!((images, all["members"].as_array().unwrap().len()), (60, 2));
    assert!(fails(dir, 2, &["eval", "fold1", "fold2"]).contains("--out-of-fold"));
    self::train(dir, &["--steps", "1", "--run", "classes"]);
    assert!(fails(dir, 2, &["eval", "one", "classes"]).contains("some runs classify, and others segment"));
}

#[test]
fn a_balanced_split_can_be_taken_over() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    train(dir, &["--steps", "1", "--balance", "12", "--run", "balanced"]);
    let split = |run: &str| std::fs::read_to_string(dir.join(run).join("split.csv")).unwrap();
    let rows = |text: &str, part: &str, copies: bool| {
        let rows = text.lines().filter(|row| row.ends_with(part) && row.contains('~') == copies);
        rows.map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
    };
    let balanced = split("balanced");
    assert!(rows(&balanced, ",unused", false).len() > 10 && rows(&balanced, ",train", true).len() > 10, "{balanced}");
    // The same pictures, without the copies and with them again.
    let printed = train(dir, &["--steps", "1", "--split-file", "balanced/split.csv", "--run", "again"]);
    assert!(printed.contains("image(s) are unused, as "), "{printed}");
    for part in [",train", ",val", ",test"] {
        assert_eq!(rows(&split("again"), part, false), rows(&balanced, part, false), "{part}");
    }
    train(dir, &["--steps", "1", "--split-file", "balanced/split.csv", "--balance", "12", "--run", "copies"]);
    assert_eq!(rows(&split("copies"), ",train", true), rows(&balanced, ",train", true));
}

#[test]
fn runs_are_scored_together_and_never_on_what_one_was_trained_on() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let short = ["--epochs", "1", "--lr", "3e-3", "--run"];
    // Two seeds, the second at another size and with other pixel statistics. Three folds.
    train(dir, &[&short[..], &["a"]].concat());
    train(dir, &[&short[..], &["b", "--seed", "7", "--size", "40", "--normalize", "unit"]].concat());
    let message = fails(dir, 2, &["eval", "a", "b"]);
    // Generated pictures follow the seed: so the two have different test pictures of the same names, or others.
    assert!(message.contains("the same images") || message.contains("disagree"), "{message}");
    lesion_gpu::data::synthetic::write(&dir.join("made"), 5, 120, 48).unwrap();
    let on_disk = |extra: &[&str]| {
        let args = ["train", "--data", "made", "--model", "simple-cnn", "--batch", "8", "--no-tune"];
        ok(dir, &[&args[..], &short[..4], extra].concat())
    };
    on_disk(&["--size", "32", "--run", "one"]);
    on_disk(&["--size", "40", "--normalize", "unit", "--seed", "7", "--run", "two"]);
    let printed = ok(dir, &["eval", "one", "two", "--tta"]);
    assert!(printed.contains("mean of 2") && printed.contains("views (x8)"), "{printed}");
    let (one, two) = (scores(dir, &["one"]), scores(dir, &["two"]));
    let both = scores(dir, &["one", "two"]);
    let members = both["members"].as_array().unwrap();
    for (member, alone) in members.iter().zip([&one, &two]) {
        assert!(close(&member["balanced_accuracy"], &alone["balanced_accuracy"]), "{member}");
    }
    assert_eq!(members.len(), 2);
    // `predict` says the mean of what each says.
    let picture = first_picture(&dir.join("made"));
    let picture = picture.to_str().unwrap();
    let said = |runs: &[&str]| {
        let printed = ok(dir, &[&["predict", "--format", "csv", "--batch", "2"], runs, &[picture, picture]].concat());
        let row = |line: &str| line.split(',').skip(2).map(|p| p.parse::<f64>().unwrap()).collect::<Vec<_>>();
        printed.lines().skip(1).map(row).collect::<Vec<_>>()
    };
    let (alone, other, mean) = (said(&["one"]), said(&["two"]), said(&["one", "two"]));
    assert_eq!(mean.len(), 2);
    for class in 0..7 {
        let expected = (alone[0][class] + other[0][class]) / 2.0;
        assert!((mean[0][class] - expected).abs() < 2e-6 && mean[0] == mean[1], "{mean:?}");
    }
    let json = ok(dir, &["predict", "one", "two", picture, "--format", "json"]);
    assert!(json.contains("\"runs\": 2") && !json.contains("temperature"), "{json}");
    assert!(fails(dir, 2, &["predict", "one", "two", picture, "--logits"]).contains("for one run"));

    // A run with itself is that run.
    let twice = scores(dir, &["one", "one"]);
    assert!(twice["confusion"] == one["confusion"] && close(&twice["macro_auc"], &one["macro_auc"]));

    for fold in ["1", "2", "3"] {
        let (fold, run) = (format!("{fold}/3"), format!("fold{fold}"));
        on_disk(&["--size", "32", "--fold", &fold, "--run", &run]);
    }
    let folds = ["fold1", "fold2", "fold3"];
    let message = fails(dir, 2, &[&["eval"], &folds[..]].concat());
    assert!(message.contains("do not have the same images") && message.contains("--out-of-fold"), "{message}");
    let all = scores(dir, &[&folds[..], &["--out-of-fold"]].concat());
    let images = |value: &serde_json::Value| value["images"].as_u64().unwrap();
    let members = all["members"].as_array().unwrap();
    assert_eq!(all["samples"].as_u64(), Some(members.iter().map(images).sum()));
    assert_eq!(all["samples"].as_u64(), Some(120));
    let message = fails(dir, 2, &["eval", "fold1", "fold2", "--out-of-fold"]);
    assert!(message.contains("are in no run's test split"), "{message}");
    let message = fails(dir, 2, &["eval", "fold1", "fold1", "fold2", "--out-of-fold"]);
    assert!(message.contains("more than one run"), "{message}");
    assert!(fails(dir, 2, &["eval", "fold1", "--out-of-fold"]).contains("all folds"));

    // Everything, and how much of that was trained on.
    let all = scores(dir, &[&folds[..], &["--split", "all"]].concat());
    assert!((60..=120).contains(&all["trained_on"].as_u64().unwrap()), "{}", all["trained_on"]);
    // More pictures split in another way, so that what was trained on before is among the test pictures.
    lesion_gpu::data::synthetic::write(&dir.join("more"), 5, 150, 48).unwrap();
    let message = fails(dir, 2, &["eval", "one", "--data", "more"]);
    assert!(message.contains("images were trained on"), "{message}");
    assert!(scores(dir, &["one", "--data", "more", "--split", "all"])["trained_on"].as_u64() > Some(60));
    ok(dir, &["eval", "one", "--data", "made"]);
}
