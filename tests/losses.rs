//! The losses of classifiers: what the device computes in training is what the host computes in validation, also where pictures
//! have several classes.

mod common;

use std::path::{Path, PathBuf};

use lesion_gpu::Kind;
use lesion_gpu::train::{
    AugmentConfig, FocalConfig, HeadConfig, Interrupt, LossKind, Metric, Protocol, RunOptions, SplitConfig,
    TrainConfig, run,
};

const PICTURES: usize = 8;

/// The same pictures twice, for training and for validation, with these labels; returns the table.
fn dataset(folder: &Path, labels: [&str; PICTURES]) -> PathBuf {
    lesion_gpu::data::synthetic::write(&folder.join("made"), 9, PICTURES, 40).unwrap();
    let mut pictures = vec![];
    find(&folder.join("made"), &mut pictures);
    assert!(pictures.len() >= PICTURES);
    pictures.sort();
    let mut table = "path,label,split\n".to_owned();
    for (i, (picture, label)) in pictures.iter().zip(labels).enumerate() {
        for split in ["train", "val"] {
            let name = format!("{split}-{i}.png");
            std::fs::copy(picture, folder.join(&name)).unwrap();
            table += &format!("{name},{label},{split}\n");
        }
    }
    let path = folder.join("table.csv");
    std::fs::write(&path, table).unwrap();
    path
}

fn find(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, found);
        } else if path.extension().is_some_and(|e| e == "png") {
            found.push(path);
        }
    }
}

fn config(data: &Path, loss: LossKind) -> TrainConfig {
    TrainConfig {
        model: "simple-cnn".into(),
        data: data.display().to_string(),
        size: 32.into(),
        batch: PICTURES,
        epochs: 1,
        // One step that changes nothing to speak of, and no dropout: the losses before and after it are the same.
        lr: 1e-9,
        head: HeadConfig { hidden: vec![8], dropout: vec![] },
        augment: AugmentConfig::NONE,
        loss,
        focal: FocalConfig { gamma: 1.5, alpha: 0.3 },
        // Validation has the training pictures on purpose.
        split: SplitConfig { protocol: Protocol::Published, ..TrainConfig::default().split },
        ..TrainConfig::default()
    }
}

#[test]
fn training_and_validation_agree_on_every_loss() {
    let Some(gpu) = common::gpu() else { return };
    let one = ["a", "a", "a", "b", "b", "c", "a", "b"];
    let several = ["a", "a|b", "a", "b|c", "b", "c | a", "a|b|c", "b"];
    let cases = [
        (LossKind::CrossEntropy, one, None),
        (LossKind::Focal, one, None),
        (LossKind::Bce, one, None),
        (LossKind::SigmoidFocal, several, None),
        (LossKind::Bce, several, Some(4)),
    ];
    let mut losses = vec![];
    for (i, (loss, labels, micro_batch)) in cases.into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let data = dataset(folder.path(), labels);
        let config = TrainConfig { micro_batch, monitor: Metric::Auc.into(), ..config(&data, loss) };
        let path = folder.path().join("run");
        let options = RunOptions { run: Some(path.clone()), no_cache: true, workers: 1, ..RunOptions::default() };
        run(&gpu, &config, &options, &Interrupt::default(), &mut |_| {}).unwrap();
        let table = std::fs::read_to_string(path.join("results.csv")).unwrap();
        let mut rows = table.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let (names, values) = (rows.next().unwrap(), rows.next().unwrap());
        let value = |name: &str| -> f64 {
            let column = names.iter().position(|n| *n == name).unwrap_or_else(|| panic!("no {name} in {names:?}"));
            values[column].parse().unwrap()
        };
        let (train, val) = (value("train_loss"), value("val_loss"));
        assert!(train > 0.0 && (train - val).abs() <= 2e-5 * train, "case {i}, {loss:?}: {train} {val}");
        let metrics: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path.join("metrics.json")).unwrap()).unwrap();
        let exact = metrics["val"]["multi_label"]["exact_match"].as_f64();
        assert_eq!(exact.is_some(), loss.of_sigmoids(), "{metrics}");
        if let Some(exact) = exact {
            assert!((value("val_exact_match") - exact).abs() < 1e-6);
        }
        losses.push(train);
    }
    // They are different losses, and further classes count.
    for (i, a) in losses.iter().enumerate() {
        assert!(losses[..i].iter().all(|b| (a - b).abs() > 1e-3), "{losses:?}");
    }
}

#[test]
fn several_classes_need_sigmoids() {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = dataset(folder.path(), ["a", "a|b", "a", "b", "b", "a", "a", "b"]);
    let options = RunOptions { no_cache: true, workers: 1, ..RunOptions::default() };
    let config = config(&data, LossKind::Focal);
    let e = run(&gpu, &config, &options, &Interrupt::default(), &mut |_| {}).unwrap_err();
    assert_eq!(e.kind(), Kind::Usage);
    assert!(e.to_string().contains("--loss bce"), "{e}");
    let smooth = TrainConfig { label_smoothing: 0.1, ..config };
    assert!(smooth.validate().unwrap_err().to_string().contains("--label-smoothing"));
}
