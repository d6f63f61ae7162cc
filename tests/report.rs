//! The report that a run leaves, through the program, as a user has it.

mod common;

use std::path::Path;

use common::{fails, ok};

fn page(dir: &Path, run: &str) -> String {
    std::fs::read_to_string(dir.join(run).join("report.html")).unwrap()
}

/// What the page must have: one file, whose figures are there by themselves too.
fn check(dir: &Path, run: &str, figures: &[&str], words: &[&str]) {
    let page = page(dir, run);
    for word in words {
        assert!(page.contains(word), "no `{word}` in the report of {run}");
    }
    assert!(!page.contains("src=\"http") && !page.contains("<script") && !page.contains("<link"), "{run}");
    assert_eq!(page.matches("<img ").count(), figures.len(), "{run}");
    for figure in figures {
        let bytes = std::fs::read(dir.join(run).join("report").join(figure)).unwrap();
        match figure.ends_with(".png") {
            true => assert!(image::load_from_memory(&bytes).unwrap().width() > 100, "{figure}"),
            false => assert!(String::from_utf8(bytes).unwrap().starts_with("<svg"), "{figure}"),
        }
    }
}

const CLASSES: &[&str] = &[
    "loss.svg",
    "scores.svg",
    "confusion.svg",
    "confusion-shares.svg",
    "class-scores.svg",
    "roc.svg",
    "precision-recall.svg",
    "calibration.svg",
    "classes.svg",
];

#[test]
fn a_run_that_classifies_leaves_a_report_that_can_be_made_again() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    lesion_gpu::data::synthetic::write(&dir.join("made"), 5, 120, 48).unwrap();
    let train = ["train", "--data", "made", "--model", "simple-cnn", "--size", "32", "--batch", "8", "--no-tune"];
    let printed = ok(dir, &[&train[..], &["--epochs", "2", "--run", "a", "--protocol", "published"]].concat());
    assert!(printed.contains("report: a/report.html") || printed.contains("report: a\\report.html"), "{printed}");
    let metrics: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.join("a/metrics.json")).unwrap()).unwrap();
    let accuracy = format!("{:.4}", metrics["test"]["accuracy"].as_f64().unwrap());
    let leak = metrics["leak"].as_str().unwrap();
    let words = [": simple-cnn on ", &accuracy, leak, "site: synthetic", "wrong answers", "no diagnosis"];
    let pictures = [CLASSES, &["training.png", "mistakes.png", "looked.png"]].concat();
    check(dir, "a", &pictures, &words);
    // Made again it is the same; without pictures it needs neither the data nor a device.
    let before = page(dir, "a");
    std::fs::remove_file(dir.join("a/report.html")).unwrap();
    ok(dir, &["report", "a"]);
    assert_eq!(page(dir, "a"), before);
    ok(dir, &["report", "a", "--no-pictures"]);
    check(dir, "a", CLASSES, &words[..3]);
    // So it is where the data are gone, and then it says so.
    std::fs::rename(dir.join("made"), dir.join("moved")).unwrap();
    ok(dir, &["report", "a"]);
    check(dir, "a", CLASSES, &["Without pictures: "]);

    ok(dir, &["train", "--data", "synthetic:60", "--model", "simple-cnn", "--steps", "1", "--run", "b", "--no-report"]);
    assert!(!dir.join("b/report.html").exists());
    std::fs::remove_file(dir.join("b/metrics.json")).unwrap();
    assert!(fails(dir, 10, &["report", "b"]).contains("not finished"));
    assert!(fails(dir, 10, &["report", "moved"]).contains("not a run folder"));
}

#[test]
fn a_report_says_what_it_does_not_know() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    lesion_gpu::data::synthetic::write(&dir.join("made"), 5, 40, 48).unwrap();
    let label = |i: usize| ["a", "b", "a|b", "<c>"][i % 4];
    let rows = (0..40).map(|i| format!("made/HAM10000_images_part_1/SYN_{i:07}.png,{}\n", label(i)));
    std::fs::write(dir.join("set.csv"), "path,label\n".to_owned() + &rows.collect::<String>()).unwrap();
    let train = |extra: &[&str]| {
        let args = ["train", "--data", "set.csv", "--model", "simple-cnn", "--size", "32", "--batch", "8", "--no-tune"];
        ok(dir, &[&args[..], &["--epochs", "1", "--loss", "bce"], extra].concat())
    };
    // Of several classes, what is true of each by itself is not in the table of answers.
    train(&["--run", "several"]);
    let several = page(dir, "several");
    assert!(several.contains("a picture may have several") && several.contains("exact match"), "{several}");
    assert!(!several.contains("ROC curve") && !several.contains("<c>") && several.contains("&lt;c&gt;"));
    // Without validation images the last epoch is scored, without test images nothing is.
    train(&["--run", "no-val", "--split", "0.8,0,0.2"]);
    assert!(page(dir, "no-val").contains("the last: there are no validation images"));
    train(&["--run", "no-test", "--split", "0.8,0.2,0"]);
    assert!(page(dir, "no-test").contains("The split has no test images"));
    // What one picture lacks does not cost the page.
    std::fs::remove_file(dir.join("several/weights/best.safetensors")).unwrap();
    ok(dir, &["report", "several"]);
    assert!(
        page(dir, "several").contains("Where the model looked is not shown: ")
            && page(dir, "several").contains("Model card")
    );
}

#[test]
fn a_run_that_segments_shows_its_masks() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let args = ["train", "--data", "synthetic:60", "--model", "unet-small", "--size", "48x32", "--batch", "4"];
    ok(dir, &[&args[..], &["--epochs", "1", "--no-tune", "--run", "u"]].concat());
    let figures = ["loss.svg", "scores.svg", "jaccard.svg", "overlays.png", "classes.svg", "training.png"];
    check(dir, "u", &figures, &["marks lesions", "smallest overlap", "threshold jaccard", "Their masks are outlined"]);
}
