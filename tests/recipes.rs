//! Recipes, reproduced and compared, and what leaks marked as such; all through the program, as a user has them.

mod common;

use common::{fails, ok};

const SMALL: &[&str] = &["--data", "synthetic:150", "--size", "32", "--max-epochs", "1", "--batch", "8"];

#[test]
fn a_recipe_is_reproduced_under_both_protocols_and_its_runs_are_compared() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let again = [&["reproduce", "S1-CNN", "s1-cnn", "--out", "out"], SMALL].concat();
    let printed = ok(dir, &again);
    for part in ["split    LEAKY: ", "differs  32x32 pixels instead of 128x128", "OTHER DATA: synthetic"] {
        assert!(printed.contains(part), "no `{part}` in {printed}");
    }
    let table = std::fs::read_to_string(dir.join("out/table.md")).unwrap();
    let row = table.lines().find(|line| line.starts_with("| s1-cnn | accuracy | 0.480 | ")).unwrap();
    assert_eq!(row.matches(" to ").count(), 2, "two intervals in {row}");
    assert!(row.contains("1 epochs instead of 10") && row.contains("batch 8 instead of 32"), "{row}");
    assert!(table.contains(" test images; LEAKY: "), "{table}");
    assert!(std::fs::read_to_string(dir.join("out/chart.svg")).unwrap().contains("s1-cnn accuracy"));
    // What is finished is not done again, and stays in the table whatever is asked for.
    let stamp = || std::fs::metadata(dir.join("out/s1-cnn-published/metrics.json")).unwrap().modified().unwrap();
    let before = stamp();
    let printed = ok(dir, &[&again[..], &["--protocol", "leak-free"]].concat());
    assert!(!printed.contains("epoch   1") && stamp() == before, "{printed}");
    assert_eq!(std::fs::read_to_string(dir.join("out/table.md")).unwrap(), table);

    // The leak is told in each table of the run, and wherever it is scored; the leak-free one has none.
    for table in ["split.csv", "results.csv", "test.csv"] {
        let read = |run: &str| std::fs::read_to_string(dir.join("out").join(run).join(table)).unwrap();
        let (leaky, free) = (read("s1-cnn-published"), read("s1-cnn-leak-free"));
        let (header, rows) = leaky.split_once('\n').unwrap();
        assert!(header.ends_with(",leak") && rows.lines().all(|row| row.ends_with(",LEAKY")), "{table}: {header}");
        assert!(!free.contains("leak"), "{table}");
    }
    let leaky = ok(dir, &["eval", "out/s1-cnn-published", "--json", "leaky.json"]);
    assert!(leaky.starts_with("LEAKY: ") || leaky.contains("\nLEAKY: "), "{leaky}");
    assert!(std::fs::read_to_string(dir.join("leaky.json")).unwrap().contains("\"leak\": \"LEAKY: "));
    assert!(!ok(dir, &["eval", "out/s1-cnn-leak-free"]).contains("LEAKY"));
    let compared = ok(dir, &["compare", "out/s1-cnn-leak-free", "out/s1-cnn-published", "--json", "both.json"]);
    assert!(
        compared.contains("out/s1-cnn-published LEAKY") && compared.contains("right alone (McNemar)"),
        "{compared}"
    );
    assert!(compared.contains("FEW"), "split differently: {compared}");
    let same = ok(dir, &["compare", "out/s1-cnn-leak-free", "out/s1-cnn-leak-free", "--markdown"]);
    assert!(same.contains("| accuracy | +0.000 | +0.000 to +0.000 | 1.000 |"), "{same}");

    // Nothing is run where a row cannot be, and nothing of others is overwritten.
    let e = fails(dir, 10, &[&again[..], &["--max-steps", "2"]].concat());
    assert!(e.contains("another configuration"), "{e}");
    std::fs::create_dir(dir.join("mine")).unwrap();
    std::fs::write(dir.join("mine/table.md"), "mine").unwrap();
    let e = fails(dir, 2, &[&["reproduce", "s1-cnn", "--out", "mine"], SMALL].concat());
    assert!(e.contains("would be overwritten"), "{e}");
    assert_eq!(std::fs::read_to_string(dir.join("mine/table.md")).unwrap(), "mine");
}

#[test]
fn what_cannot_be_reproduced_or_compared_is_said_before_anything_runs() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let reproduce = |extra: &[&'static str]| [&["reproduce"], extra, SMALL].concat();
    let e = fails(dir, 2, &reproduce(&["s9"]));
    assert!(e.contains("choose one of: s0-irv2-a"), "{e}");
    let e = fails(dir, 2, &reproduce(&[]));
    assert!(e.contains("no recipe is for the data of synthetic"), "{e}");
    // A frozen backbone of random weights would be no such system.
    let e = fails(dir, 2, &reproduce(&["s1-cnn", "s2-r50", "--from-scratch"]));
    assert!(e.contains("frozen random weights"), "{e}");
    let e = fails(dir, 2, &reproduce(&["s1-cnn", "--weights", "resnet18=none.pth"]));
    assert!(e.contains("none of the recipes"), "{e}");
    fails(dir, 11, &reproduce(&["s3-r18", "--weights", "resnet18=none.pth"]));
    assert!(!dir.join("reproduction").exists());
    fails(dir, 10, &["compare", "a", "b"]);
    let shown = ok(dir, &["recipe", "show", "s1-cnn"]);
    assert!(shown.contains("simple-cnn") && ok(dir, &["recipe", "list"]).contains("s4-unet"));
    std::fs::write(dir.join("mine.toml"), shown).unwrap();
    let run =
        ["train", "--config", "mine.toml", "--data", "synthetic:60", "--size", "32", "--batch", "8", "--steps", "2"];
    ok(dir, &[&run[..], &["--run", "one"]].concat());
    let e = fails(dir, 2, &["train", "--recipe", "s2-r50", "--from-scratch", "--pretrained", "--data", "synthetic:60"]);
    assert!(e.contains("cannot be used with"), "{e}");
}
