//! The program as a user runs it: train, evaluate, predict, resume, and what it says to wrong input.

mod common;

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use common::{fails, ok};
use lesion_gpu::train::{Checkpoint, Precision};

const TRAIN: &[&str] = &[
    "train",
    "--data",
    "synthetic:120",
    "--model",
    "simple-cnn",
    "--size",
    "32",
    "--batch",
    "8",
    "--schedule",
    "cosine",
    "--rotation",
    "30",
    "--zoom",
    "0.1",
    "--brightness",
    "0.1",
    "--contrast",
    "0.1",
];

fn train(folder: &Path, extra: &[&str]) -> String {
    ok(folder, &[TRAIN, extra].concat())
}

fn rows(folder: &Path, file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join(file)).expect("a table");
    text.lines().skip(1).map(str::to_owned).collect()
}

/// The records in each event file of a folder, in the order of their names.
fn event_files(folder: &Path) -> Vec<usize> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.to_string_lossy().contains("tfevents")).collect();
    files.sort();
    let records = |path: &std::path::PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        let (mut at, mut records) = (0, 0);
        while at < bytes.len() {
            // Length, its checksum, bytes, their checksum.
            at += 16 + u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
            records += 1;
        }
        assert_eq!(at, bytes.len(), "{}", path.display());
        records
    };
    files.iter().map(records).collect()
}

#[test]
fn a_run_leaves_everything_and_is_repeatable_scored_and_used() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let printed = train(dir, &["--epochs", "2", "--run", "a"]);
    assert!(printed.contains("memory") && printed.contains("epoch   2"), "{printed}");
    for file in [
        "config.toml",
        "environment.json",
        "split.csv",
        "steps.csv",
        "results.csv",
        "metrics.json",
        "weights/best.safetensors",
        "weights/last.safetensors",
    ] {
        assert!(dir.join("a").join(file).is_file(), "{file} is missing");
    }
    assert_eq!(rows(dir, "a/results.csv").len(), 2);
    let steps = rows(dir, "a/steps.csv");
    assert!(steps.len() >= 20 && steps[0].starts_with("0,1,"), "{steps:?}");

    // The same configuration gives the same run, to the last digit, also where a step is submitted in parts.
    train(dir, &["--epochs", "2", "--run", "b", "--submissions", "5"]);
    assert_eq!(rows(dir, "b/steps.csv"), steps);
    let checkpoint = |run: &str| Checkpoint::read(&dir.join(run).join("weights/best.safetensors")).unwrap();
    assert!(checkpoint("a").weights == checkpoint("b").weights, "the weights differ");

    // What happens, line by line, for programs.
    let events = train(dir, &["--epochs", "1", "--steps", "3", "--run", "events", "--json", "--tensorboard"]);
    let events: Vec<serde_json::Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |name: &str| events.iter().filter(|event| event["event"] == name).collect::<Vec<_>>();
    assert_eq!((of("ready").len(), of("step").len(), of("epoch").len(), of("end").len()), (1, 3, 1, 1), "{events:?}");
    let losses: Vec<f32> = of("loss").iter().map(|event| event["loss"].as_f64().unwrap() as f32).collect();
    let written = rows(dir, "events/steps.csv");
    let written: Vec<f32> = written.iter().map(|row| row.rsplit(',').next().unwrap().parse().unwrap()).collect();
    assert_eq!((losses.len(), losses), (3, written));
    assert_eq!((of("step")[2]["step"].as_u64(), of("step")[2]["last"].as_u64()), (Some(3), Some(3)));
    assert!(!of("scoring").is_empty());
    // The same for TensorBoard: the version, a beginning, the configuration, three steps, an epoch, the test, three pictures.
    assert_eq!(event_files(&dir.join("events")), [11]);
    assert_eq!(events.last().unwrap()["test"]["samples"], of("ready")[0]["split"]["test"]);
    assert!(of("epoch")[0]["val"]["balanced_accuracy"].is_f64() && dir.join("events/report.html").is_file());

    // A run folder is never overwritten.
    let args = [TRAIN, &["--run", "a"]].concat();
    assert!(fails(dir, 10, &args).contains("never overwritten"));

    let scores = ok(dir, &["eval", "a", "--json", "scores.json"]);
    assert!(scores.contains("balanced accuracy"), "{scores}");
    let scores: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.join("scores.json")).unwrap()).unwrap();
    let metrics: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.join("a/metrics.json")).unwrap()).unwrap();
    assert_eq!(scores["balanced_accuracy"], metrics["test"]["balanced_accuracy"]);

    lesion_gpu::data::synthetic::write(&dir.join("made"), 9, 3, 48).unwrap();
    let pictures = find_images(&dir.join("made"));
    let picture = pictures[0].to_str().unwrap();
    let json = ok(dir, &["predict", "a", picture, "--format", "json", "--top-k", "2"]);
    let answer: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(answer[0]["top"].as_array().unwrap().len(), 2, "{json}");
    let csv = ok(dir, &["predict", "a", picture, "--format", "csv", "--logits"]);
    assert!(csv.starts_with("image,label,akiec,"), "{csv}");
    // A checkpoint's weights are plain safetensors with plain names: they serve as bare weights too.
    let bare = ["predict", "--model", "simple-cnn", "--weights", "a/weights/best.safetensors", "--size", "32", picture];
    let same = [&bare[..], &["--format", "csv", "--logits"]].concat();
    assert_eq!(ok(dir, &same), csv);

    ok(dir, &["man", "manual"]);
    let page = std::fs::read_to_string(dir.join("manual/lesion-gpu-train.1")).unwrap();
    assert!(page.contains("lesion\\-gpu\\-train") && page.contains("clip\\-norm"), "{page}");
    assert!(dir.join("manual/lesion-gpu.1").is_file());
    assert!(ok(dir, &["completions", "bash"]).contains("lesion-gpu"));

    // JSON line by line; pictures from standard input, and by a pattern.
    let lines = ok(dir, &["predict", "a", picture, picture, "--format", "jsonl", "--top-k", "2"]);
    let parsed: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(parsed.len() == 2 && parsed[0] == answer[0] && parsed[1] == answer[0], "{lines}");
    let pattern = Path::new(picture).with_file_name("*.png");
    let all = ok(dir, &["predict", "a", pattern.to_str().unwrap(), "--format", "csv"]);
    let mut listing = common::command(dir, &["predict", "a", "-", "--format", "csv"]);
    let mut listing = listing.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let list: String = pictures
        .iter()
        .filter(|path| path.parent() == pictures[0].parent())
        .map(|path| format!("{}\n", path.display()))
        .collect();
    listing.stdin.take().unwrap().write_all(list.as_bytes()).unwrap();
    assert_eq!(common::text(&listing.wait_with_output().unwrap().stdout), all);
    assert_eq!(all.lines().count(), 1 + list.lines().count());
    assert!(fails(dir, 2, &["predict", "a", "nothing*.png"]).contains("no file fits"));
    // As the challenge of 2018 wants it.
    let submission = ok(dir, &["predict", "a", picture, "--isic"]);
    let rows: Vec<Vec<&str>> = submission.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows[0], ["image", "MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]);
    assert_eq!(rows[1][0], Path::new(picture).file_stem().unwrap().to_str().unwrap());
    let plain = ok(dir, &["predict", "a", picture, "--format", "csv"]);
    let plain: Vec<Vec<&str>> = plain.lines().map(|line| line.split(',').collect()).collect();
    for (name, share) in rows[0].iter().zip(&rows[1]).skip(1) {
        let column = plain[0].iter().position(|class| class.eq_ignore_ascii_case(name)).unwrap();
        assert_eq!(*share, plain[1][column], "{name}");
    }
    let other = [&bare[..], &["--classes", "a,b,c,d,e,f,g", "--isic"]].concat();
    assert!(fails(dir, 2, &other).contains("not those of an ISIC challenge"));

    std::fs::write(dir.join("broken.jpg"), b"not a picture").unwrap();
    assert!(fails(dir, 8, &["predict", "a", "broken.jpg"]).contains("broken.jpg"));
    bad_pictures_are_named_and_the_others_answered(dir, &pictures);
}

/// Three good pictures and two bad ones, two at a time: one batch is half empty, one wholly.
fn bad_pictures_are_named_and_the_others_answered(dir: &Path, pictures: &[std::path::PathBuf]) {
    let [first, second, third] = [0, 1, 2].map(|i| pictures[i].to_str().unwrap());
    let paths = [first, "broken.jpg", "broken.jpg", "missing.jpg", second, third];
    let alone = ok(dir, &["predict", "a", first, second, third, "--format", "csv"]);
    for format in ["text", "csv", "json"] {
        let args = [&["predict", "a", "--batch", "2", "--format", format], &paths[..]].concat();
        let output = common::program(dir, &args);
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!(output.status.code(), Some(8), "{err}");
        assert!(err.contains("skipped: broken.jpg: the file is no image of a known format"), "{err}");
        assert!(err.contains("skipped: missing.jpg: could not open"), "{err}");
        assert!(err.contains("error: 3 of 6 pictures could not be read"), "{err}");
        match format {
            "json" => {
                let answers: serde_json::Value = serde_json::from_str(&out).unwrap();
                let named: Vec<&str> =
                    answers.as_array().unwrap().iter().map(|a| a["image"].as_str().unwrap()).collect();
                assert_eq!(named, [first, second, third]);
            }
            "csv" => assert_eq!(out, alone),
            _ => assert_eq!(out.lines().count(), 3, "{out}"),
        }
    }
    #[cfg(target_os = "linux")]
    {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = common::command(dir, &["predict", "a", first]).stdout(full).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(11) && err.contains("could not write the answers"), "{err}");
    }
    let none = common::program(dir, &["predict", "a", "broken.jpg", "missing.jpg", "--format", "json"]);
    assert_eq!(
        (none.status.code(), String::from_utf8(none.stdout).unwrap().replace('\n', "").as_str()),
        (Some(8), "[]")
    );
}

fn find_images(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = vec![];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(find_images(&path));
        } else if path.extension().is_some_and(|e| e == "png") {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn a_resumed_run_equals_one_that_was_never_interrupted() {
    resumed_equals_whole(Precision::F32);
}

/// The same with f16 activations: the loss scale and the count of its steps are part of a run's state.
#[test]
fn a_resumed_run_of_mixed_precision_equals_one_that_was_never_interrupted() {
    resumed_equals_whole(Precision::Mixed);
}

fn resumed_equals_whole(precision: Precision) {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    // As the library runs it below: untuned.
    let args = ["--epochs", "3", "--run", "whole", "--precision", precision.name(), "--no-tune"];
    if precision == Precision::Mixed && !gpu.caps().f16 {
        println!("skipped: the adapter has no 16-bit floats; mixed precision is refused");
        assert!(fails(dir, 4, &[TRAIN, &args].concat()).contains("--precision f32"));
        return;
    }
    drop(gpu);
    let printed = train(dir, &args);
    assert_eq!(printed.contains("in f32 it would be"), precision == Precision::Mixed, "{printed}");
    // The same run, stopped as Ctrl-C would: in the middle of its second epoch, and after its very last step, when only
    // the evaluation is left.
    let total = rows(dir, "whole/steps.csv").len();
    for (run, steps) in [("middle", total / 2 - 1), ("end", total)] {
        interrupt_after(dir, run, steps, precision);
        train_resumed(dir, run);
        let file = |run: &str, name: &str| format!("{run}/{name}");
        assert_eq!(rows(dir, &file(run, "steps.csv")), rows(dir, "whole/steps.csv"));
        let without_times = |file: &str| -> Vec<String> {
            rows(dir, file).iter().map(|r| r.split(',').take(9).collect::<Vec<_>>().join(",")).collect()
        };
        assert_eq!(without_times(&file(run, "results.csv")), without_times("whole/results.csv"));
        let checkpoint = |run: &str| Checkpoint::read(&dir.join(run).join("weights/last.safetensors")).unwrap();
        let (whole, parts) = (checkpoint("whole"), checkpoint(run));
        assert!(whole.weights == parts.weights, "the weights differ");
        assert!(whole.optimizer == parts.optimizer, "the optimizer's state differs");
        let scaled = whole.optimizer.keys().any(|name| name.contains("loss_scale"));
        assert_eq!(scaled, precision == Precision::Mixed, "{:?}", whole.optimizer.keys());
    }
    if precision == Precision::Mixed {
        // A model trained in mixed precision can be used in f32 too, with nearly the same outputs.
        let score = |precision: &str| -> f64 {
            let _ = ok(dir, &["eval", "whole", "--precision", precision, "--json", "scores.json"]);
            let scores = std::fs::read(dir.join("scores.json")).unwrap();
            serde_json::from_slice::<serde_json::Value>(&scores).unwrap()["loss"].as_f64().unwrap()
        };
        let (mixed, f32) = (score("mixed"), score("f32"));
        assert!(mixed != f32 && (mixed - f32).abs() < 1e-2 * f32, "{mixed} {f32}");
    }
    // A finished run stays as it is.
    train_resumed(dir, "whole");
    assert_eq!(rows(dir, "whole/steps.csv").len(), total);
    assert!(fails(dir, 2, &["train", "--resume", "whole", "--epochs", "9"]).contains("--epochs"));
}

fn train_resumed(dir: &Path, run: &str) {
    let printed = ok(dir, &["train", "--resume", run]);
    assert!(printed.contains("run folder"), "{printed}");
}

/// Trains through the library and sets the interrupt flag after `steps` steps.
fn interrupt_after(dir: &Path, run: &str, steps: usize, precision: Precision) {
    use lesion_gpu::train::{AugmentConfig, Event, Interrupt, RunOptions, ScheduleKind, TrainConfig};
    // The configuration of `TRAIN`.
    let config = TrainConfig {
        model: "simple-cnn".into(),
        data: "synthetic:120".into(),
        size: 32.into(),
        precision,
        batch: 8,
        epochs: 3,
        schedule: ScheduleKind::Cosine,
        augment: AugmentConfig {
            hflip: true,
            vflip: true,
            rotation: 30.0,
            zoom: 0.1,
            brightness: 0.1,
            contrast: 0.1,
            ..AugmentConfig::NONE
        },
        ..TrainConfig::default()
    };
    let options = RunOptions { run: Some(dir.join(run)), no_cache: true, workers: 1, ..RunOptions::default() };
    let interrupt = Interrupt::default();
    let gpu = common::gpu().unwrap();
    let mut seen = 0;
    let result = lesion_gpu::train::run(&gpu, &config, &options, &interrupt, &mut |event| {
        if let Event::Step { .. } = event {
            seen += 1;
            if seen == steps {
                interrupt.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        }
    });
    assert_eq!(result.unwrap_err().kind(), lesion_gpu::Kind::Interrupted);
}

#[test]
fn wrong_input_gets_one_clear_error_and_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let train = |extra: &[&str], code| fails(dir, code, &[&["train"][..], extra].concat());
    // Before any device is opened.
    train(&["--data", "synthetic", "--no-such-flag"], 2);
    train(&[], 2);
    train(&["--data", "synthetic", "--batch", "0"], 2);
    train(&["--data", "synthetic", "--lr", "-1"], 2);
    train(&["--data", "synthetic", "--split", "0.5,0.5"], 2);
    train(&["--resume", "nowhere"], 10);
    let bench = |extra: &[&str], code| fails(dir, code, &[&["bench"][..], extra].concat());
    assert!(bench(&["--size", "0"], 2).contains("--size must be"));
    assert!(bench(&["--batch", "0"], 2).contains("--batch must be"));
    assert!(bench(&["--steps", "0"], 2).contains("--steps must be"));
    assert!(bench(&["--model", "resnet19"], 2).contains("resnet18"));
    assert!(bench(&["--wire", "f16"], 2).contains("--ranks"), "a wire is between ranks");
    if common::gpu().is_none() {
        return;
    }
    assert!(train(&["--data", "synthetic", "--adapter", "99"], 3).contains("no adapter matches"));
    assert!(train(&["--data", "synthetic", "--adapter", "no such device"], 3).contains("no adapter matches"));
    assert!(train(&["--data", "synthetic", "--model", "resnet19"], 2).contains("resnet18"));
    assert!(train(&["--data", "missing.zip"], 11).contains("missing.zip"));
    std::fs::write(dir.join("bad.csv"), "path,label\nmissing1.jpg,a\nmissing2.jpg,b\n").unwrap();
    let message = train(&["--data", "bad.csv"], 8);
    assert!(message.contains("missing1.jpg") && message.contains("missing2.jpg"), "every fault in one pass: {message}");
    train(&["--data", "synthetic:60", "--model", "simple-cnn", "--size", "8"], 12);
    assert!(bench(&["--adapter", "99"], 3).contains("no adapter matches"));
    bench(&["--model", "simple-cnn", "--size", "8"], 12);
    for (task, name) in [(&[][..], "a training step of 500"), (&["--infer"], "an inference of 500")] {
        let big = ["--model", "simple-cnn", "--size", "32", "--batch", "500", "--memory-limit", "30"];
        let message = bench(&[&big[..], task].concat(), 5);
        assert!(message.contains(name) && message.contains("the largest batch that fits is"), "{message}");
    }
    std::fs::write(dir.join("bad.safetensors"), b"\x08\0\0\0\0\0\0\0nonsense").unwrap();
    train(&["--data", "synthetic:60", "--weights", "bad.safetensors"], 9);
    let big =
        ["--data", "synthetic:200", "--model", "simple-cnn", "--size", "32", "--batch", "120", "--memory-limit", "30"];
    let message = train(&big, 5);
    assert!(message.contains("the largest batch that fits is") && message.contains("--micro-batch"), "{message}");
    train(&["--data", "synthetic", "--batch", "8", "--micro-batch", "3"], 2);
    let message = train(&[&big[..], &["--micro-batch", "60"]].concat(), 5);
    assert!(message.contains("the largest part that fits is"), "{message}");
    assert!(!dir.join("runs").exists(), "a refused run leaves no folder behind");
}

#[test]
fn a_benchmark_is_complete_and_adds_up() {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    if common::gpu().is_some_and(|gpu| gpu.caps().f16) {
        let mixed = ["bench", "--model", "simple-cnn", "--size", "32", "--batch", "4", "--steps", "2"];
        ok(dir, &[&mixed[..], &["--precision", "mixed"]].concat());
    }
    for size in ["77", "128"] {
        let gemm: serde_json::Value =
            serde_json::from_str(&ok(dir, &["bench", "--gemm", size, "--json", "-"])).unwrap();
        for product in gemm["products"].as_array().unwrap() {
            let (n, seconds) = (product["size"].as_f64().unwrap(), product["seconds"].as_array().unwrap());
            let median = seconds[seconds.len() / 2].as_f64().unwrap();
            let rate = product["flops_per_second"].as_f64().unwrap();
            assert!(
                n == size.parse::<f64>().unwrap() && seconds.len() >= 7 && product["share"].as_f64().unwrap() > 0.0
            );
            assert!((rate * median / (2.0 * n.powi(3)) - 1.0).abs() < 1e-9, "{product}");
        }
        assert!(ok(dir, &["bench", "--gemm", size]).contains(&format!("{size} x {size} x {size}, f32")));
    }
    let alone = ["bench", "--simulate", "ranks=4,gbps=10,latency_us=5", "--model", "simple-cnn", "--size", "32"];
    let report = ok(dir, &[&alone[..], &["--batch", "4", "--steps", "2", "--json", "-"]].concat());
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["ranks"], &report["elsewhere"]["network"]["ranks"]), (&1.into(), &4.into()));
    assert!(report["elsewhere"]["step"].as_f64() > report["alone"]["total"].as_f64(), "{report}");
    let tiny = ["bench", "--model", "simple-cnn", "--size", "32", "--batch", "2", "--steps", "1", "--warm-up", "0"];
    let printed = ok(dir, &[&tiny[..], &["--json", "train.json", "--top", "3"]].concat());
    for title in ["device", "work", "ceilings", "launches", "memory", "step", "speed", "kernels"] {
        assert!(printed.lines().any(|line| line.starts_with(title)), "no {title} in:\n{printed}");
    }
    let train: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.join("train.json")).unwrap()).unwrap();
    // With `-` there is nothing but JSON.
    let arguments = [&tiny[..], &["--infer", "--layers", "--json", "-"]].concat();
    let infer: serde_json::Value = serde_json::from_str(&ok(dir, &arguments)).unwrap();
    for (report, task) in [(&train, "train"), (&infer, "infer")] {
        let number = |path: &str| -> f64 {
            report.pointer(path).and_then(serde_json::Value::as_f64).unwrap_or_else(|| panic!("{path} in {report:#}"))
        };
        let text = |path: &str| report.pointer(path).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
        assert_eq!(text("/work/task"), task);
        assert_eq!(text("/work/model"), "simple-cnn");
        assert_eq!((number("/work/batch"), number("/work/size")), (2.0, 32.0));
        assert_eq!(text("/work/precision"), "f32");
        assert_eq!(text("/device/name"), gpu.adapter().name);
        assert!(!text("/device/driver").is_empty() && !text("/lesion_gpu").is_empty());
        let date = text("/date");
        assert!(date.len() == 20 && date.starts_with("20") && date.ends_with('Z'), "{date}");
        assert!(report.get("commit").is_some());
        assert!(report["command"].as_array().unwrap().iter().any(|word| word == "bench"));
        assert!(number("/ceilings/f32_flops") > 0.0 && number("/ceilings/copy_bytes") > 0.0);
        assert!(number("/memory/peak") == number("/memory/parameters") + number("/memory/activations"));
        assert_eq!(number("/step/count"), 1.0);
        let median = number("/step/median");
        assert!(median > 0.0 && number("/step/fastest") == median && number("/step/slowest") == median);
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs().max(b.abs());
        assert!(close(number("/step/images_per_second"), 2.0 / median));
        assert!(close(number("/step/flops_per_second"), number("/work/flops") / median));
        assert!(close(number("/step/flops_share") * number("/ceilings/f32_flops"), number("/step/flops_per_second")));
        let Some(kernels) = report["kernels"].as_array() else {
            assert!(text("/kernels_note").contains("timestamp"), "{report:#}");
            continue;
        };
        let sum = |field: &str| -> f64 { kernels.iter().map(|k| k[field].as_f64().unwrap()).sum() };
        assert_eq!(sum("launches"), number("/work/launches"));
        assert!((sum("share") - 1.0).abs() < 1e-9);
        assert!(sum("roofline") > 0.0 && sum("flops_per_second") > 0.0 && sum("bytes_per_second") > 0.0);
        assert!(kernels.iter().any(|k| k["op"] == "conv2d" && k["layer"].is_string() == (task == "infer")));
        assert_eq!(kernels.iter().any(|k| k["op"] == "adam"), task == "train");
    }
    // A forward pass is a third of a training step or so, and needs neither gradients nor the optimizer's state.
    let flops = |report: &serde_json::Value| report["work"]["flops"].as_f64().unwrap();
    assert!((2.0..4.0).contains(&(flops(&train) / flops(&infer))), "{} {}", flops(&train), flops(&infer));
    assert!(train["memory"]["parameters"].as_f64() > infer["memory"]["parameters"].as_f64());
    // Without timestamps there is one line in place of the table.
    let printed = ok(dir, &[&tiny[..], &["--without", "timestamps"]].concat());
    assert!(printed.lines().any(|line| line.starts_with("kernels    no table: ")), "{printed}");
}

#[test]
fn training_stops_early_once_validation_no_longer_improves() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    // At such a rate no weight changes, so the first epoch stays the best.
    let still = ["--lr", "1e-30", "--epochs", "9", "--patience", "2", "--monitor", "loss", "--run", "a"];
    let printed = train(dir, &still);
    assert_eq!(rows(dir, "a/results.csv").len(), 3, "{printed}");
    assert!(printed.contains("val loss has not fallen for 2 epochs; the best was"), "{printed}");
    // Resumed, it stays stopped.
    train_resumed(dir, "a");
    assert_eq!(rows(dir, "a/results.csv").len(), 3);
    let without = [TRAIN, &["--split", "0.8,0,0.2", "--patience", "2"]].concat();
    assert!(fails(dir, 2, &without).contains("--patience needs validation images"));
}

#[test]
fn training_follows_its_initial_weights() {
    let Some(gpu) = common::gpu() else { return };
    drop(gpu);
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let first = ["--epochs", "1", "--no-augment", "--no-shuffle"];
    train(dir, &[&first[..], &["--run", "a"]].concat());
    // Starting from the weights of a run continues from its loss, not from a fresh one.
    let weights = ["--weights", "a/weights/last.safetensors", "--run", "b", "--seed", "7"];
    train(dir, &[&first[..], &weights[..]].concat());
    let loss = |run: &str| -> f32 {
        rows(dir, &format!("{run}/steps.csv"))[0].split(',').next_back().unwrap().parse().unwrap()
    };
    assert_ne!(loss("a"), loss("b"));
    // A model of another shape is refused, and nothing is trained.
    let args = ["train", "--data", "synthetic:120", "--model", "simple-cnn", "--weights", "a/weights/last.safetensors"];
    assert!(fails(dir, 9, &args).contains("fc1.weight"));
}
