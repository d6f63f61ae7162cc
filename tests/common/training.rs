//! What tests of interrupted runs share.

#![allow(dead_code, reason = "not every test file uses every helper")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use lesion_gpu::train::{Checkpoint, Progress};

/// A small training in which everything is drawn by counters.
pub const TRAIN: &[&str] = &[
    "train",
    "--data",
    "synthetic:100",
    "--model",
    "simple-cnn",
    "--size",
    "24",
    "--batch",
    "8",
    "--schedule",
    "cosine",
    "--rotation",
    "30",
    "--head-dropout",
    "0.2",
    "--ema",
    "0.9",
    "--no-report",
];

/// The least of a training.
pub const SMALL: &[&str] =
    &["train", "--data", "synthetic:60", "--model", "simple-cnn", "--size", "24", "--batch", "8", "--no-report"];

/// Starts a training that tells events as JSON, and reads what it prints until `steps` steps were submitted; `None` if it ended well
/// before.
pub fn until(training: &mut Command, steps: u64) -> Option<(Child, impl std::io::Read + use<>)> {
    let mut child = training.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let (mut line, mut seen) = (String::new(), 0);
    while seen < steps {
        line.clear();
        if lines.read_line(&mut line).unwrap() == 0 {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{training:?}: {}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        seen += u64::from(line.contains(r#""event":"step""#));
    }
    Some((child, lines))
}

/// A file of a run.
pub fn table(run: &Path, name: &str) -> String {
    std::fs::read_to_string(run.join(name)).unwrap()
}

/// The epochs of a run, without the last columns, which are times.
pub fn epochs(run: &Path) -> Vec<String> {
    let text = table(run, "results.csv");
    let times = text.lines().next().unwrap().split(',').position(|name| name == "seconds").expect("a column of times");
    text.lines().map(|line| line.split(',').take(times).collect::<Vec<_>>().join(",")).collect()
}

/// What two runs that are equal to the bit have in common: losses, scores, weights, optimizer, and how far they came.
pub fn assert_equal(one: &Path, other: &Path) {
    assert_eq!(table(one, "steps.csv"), table(other, "steps.csv"));
    assert_eq!(epochs(one), epochs(other));
    for file in ["best", "last"] {
        let read = |run: &Path| Checkpoint::read(&run.join(format!("weights/{file}.safetensors"))).unwrap();
        let (a, b) = (read(one), read(other));
        assert!(a.weights == b.weights && a.optimizer == b.optimizer, "{file}: the weights differ");
        let timeless = |progress| Progress { seconds: 0.0, epoch_seconds: [0.0; 2], ..progress };
        assert_eq!(timeless(a.progress), timeless(b.progress), "{file}");
    }
    let scores = |run: &Path| -> serde_json::Value {
        let metrics: serde_json::Value = serde_json::from_str(&table(run, "metrics.json")).unwrap();
        metrics["test"].clone()
    };
    assert_eq!(scores(one), scores(other));
}
