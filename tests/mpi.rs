//! Several processes that train one model, as `mpirun` starts them. Needs the feature `mpi`, and Open MPI.
#![cfg(all(feature = "mpi", target_os = "linux"))]

mod common;
#[path = "common/training.rs"]
mod training;

use std::path::Path;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use common::{number, ok, program, text};
use lesion_gpu::models::Model;
use lesion_gpu::ops::Draw;
use lesion_gpu::train::Checkpoint;
use training::{TRAIN, assert_equal, table, until};

/// `mpirun` with what it needs in a container of two cores, in `folder`, with the program's caches there too.
fn mpirun(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("mpirun");
    command.args(["--oversubscribe", "--bind-to", "none"]).args(args).current_dir(folder);
    let like_alone = common::command(folder, &[]);
    command.envs(like_alone.get_envs().map(|(name, value)| (name, value.unwrap_or_default())));
    command
        .envs([("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")])
        // Containers often forbid it.
        .env("OMPI_MCA_btl_vader_single_copy_mechanism", "none");
    command
}

fn ranks(number: &str, train: &[&str]) -> Vec<String> {
    let start = ["-n", number, env!("CARGO_BIN_EXE_lesion-gpu")];
    start.iter().chain(train).map(|arg| (*arg).to_owned()).collect()
}

fn run(folder: &Path, number: &str, train: &[&str]) -> Output {
    let args = ranks(number, train);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    mpirun(folder, &args).output().expect("mpirun is there")
}

fn runs(folder: &Path, number: &str, train: &[&str]) -> String {
    let output = run(folder, number, train);
    assert!(output.status.success(), "{train:?}: {}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// The processes of the ranks that `mpirun` has started, by their numbers.
fn processes(mpirun: &Child) -> Vec<(usize, u32)> {
    let mut found = vec![];
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let read = |name: &str| std::fs::read(entry.path().join(name)).map(|bytes| text(&bytes)).unwrap_or_default();
        let Ok(process) = entry.file_name().to_string_lossy().parse() else { continue };
        // Behind the name, which may hold anything: state and parent.
        let parent =
            read("stat").rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        if parent == Some(mpirun.id()) {
            let rank = read("environ").split('\0').find_map(|v| v.strip_prefix("OMPI_COMM_WORLD_RANK=")?.parse().ok());
            found.extend(rank.map(|rank: usize| (rank, process)));
        }
    }
    found.sort_unstable();
    found
}

fn signal(process: u32, name: &str) {
    assert!(Command::new("kill").args([name, &process.to_string()]).status().unwrap().success());
}

/// Starts a training of so many ranks and reads what it prints until `steps` steps are done; `None` if it ended before.
fn started(folder: &Path, number: &str, train: &[&str], steps: u64) -> Option<(Child, impl std::io::Read + use<>)> {
    let args = ranks(number, &[train, &["--json", "--checkpoint-every", "0"]].concat());
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    until(&mut mpirun(folder, &args), steps)
}

#[test]
fn processes_end_where_one_ends() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let train = [TRAIN, &["--epochs", "2"]].concat();
    ok(dir, &[&train[..], &["--run", "alone"]].concat());
    runs(dir, "1", &[&train[..], &["--run", "single"]].concat());
    assert_equal(&dir.join("alone"), &dir.join("single"));
    ok(dir, &[&train[..], &["--run", "parts", "--micro-batch", "4"]].concat());
    let printed = runs(dir, "2", &[&train[..], &["--run", "two"]].concat());
    assert!(printed.contains("2 ranks share each batch, 2 of them on this machine"), "{printed}");
    assert_eq!(printed.matches("run folder:").count(), 1, "{printed}");
    assert_equal(&dir.join("parts"), &dir.join("two"));
    runs(dir, "2", &[&train[..], &["--run", "again"]].concat());
    assert_equal(&dir.join("two"), &dir.join("again"));
    // Three, of rows that do not divide, and masks.
    let segment = ["train", "--data", "synthetic:30", "--model", "unet-small", "--size", "32", "--batch", "4"];
    let printed = runs(dir, "3", &[&segment[..], &["--epochs", "1", "--run", "masks"]].concat());
    assert!(printed.contains("report: "), "{printed}");
    assert_eq!(table(&dir.join("masks"), "results.csv").lines().count(), 2);
}

/// What the ranks of `tests/parallel` do as threads, by processes: four of them, norms over the batch, 16 bits on the wire, shares by
/// speed.
#[test]
fn four_processes_train_in_every_way() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let losses = |run: &str| -> Vec<f32> {
        let rows = table(&dir.join(run), "steps.csv");
        rows.lines().skip(1).map(|line| line.rsplit(',').next().unwrap().parse().unwrap()).collect()
    };
    // A part for each of four: the sums are those of one process.
    let train = [TRAIN, &["--epochs", "2"]].concat();
    ok(dir, &[&train[..], &["--run", "parts", "--micro-batch", "2"]].concat());
    runs(dir, "4", &[&train[..], &["--run", "four"]].concat());
    assert_equal(&dir.join("parts"), &dir.join("four"));
    // 16 bits on the wire: the same each time, and near 32.
    let short = [TRAIN, &["--epochs", "1"]].concat();
    for (run, wire) in [("wide", "f32"), ("narrow", "f16"), ("again", "f16")] {
        runs(dir, "2", &[&short[..], &["--run", run, "--wire", wire]].concat());
    }
    assert_equal(&dir.join("narrow"), &dir.join("again"));
    let (wide, narrow) = (losses("wide"), losses("narrow"));
    assert!(wide[0] == narrow[0] && wide[1..] != narrow[1..]);
    wide.iter().zip(&narrow).for_each(|(w, n)| assert!((w - n).abs() < 1e-2 * w, "{wide:?} {narrow:?}"));
    // Norms over the batch: the losses of one process with the batch in one piece; of a rank's rows they are others.
    let norms = [
        "train",
        "--data",
        "synthetic:40",
        "--model",
        "unet-resnet18",
        "--size",
        "64",
        "--batch",
        "8",
        "--optimizer",
        "sgd",
        "--momentum",
        "0",
        "--epochs",
        "9",
        "--steps",
        "2",
        "--no-report",
    ];
    ok(dir, &[&norms[..], &["--run", "one"]].concat());
    runs(dir, "4", &[&norms[..], &["--run", "shared", "--sync-bn"]].concat());
    runs(dir, "4", &[&norms[..], &["--run", "own"]].concat());
    let off = |run: &str| losses("one").iter().zip(losses(run)).map(|(o, r)| (o - r).abs() / o).fold(0.0, f32::max);
    assert_eq!((losses("one").len(), losses("shared").len()), (2, 2));
    assert!(off("shared") < 1e-4 && off("own") > 10.0 * off("shared"), "{} {}", off("shared"), off("own"));
    // Shares by speed, which are written down for those who go on.
    let printed = runs(dir, "2", &[&short[..], &["--run", "speed", "--balance-ranks", "--micro-batch", "1"]].concat());
    assert!(printed.contains("of the micro-batches"), "{printed}");
    let environment: serde_json::Value = serde_json::from_str(&table(&dir.join("speed"), "environment.json")).unwrap();
    let shares: Vec<u64> = serde_json::from_value(environment["shares"].clone()).unwrap();
    assert_eq!((shares.len(), shares.iter().sum::<u64>()), (2, 8), "{shares:?}");
    ok(dir, &[&short[..], &["--run", "ones", "--micro-batch", "1"]].concat());
    // Dropout goes by the part, so who computes it does not matter.
    losses("ones").iter().zip(losses("speed")).for_each(|(o, s)| assert!((o - s).abs() < 1e-4 * o, "{o} {s}"));
}

#[test]
fn a_benchmark_of_ranks_says_what_exchanges_cost() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let bench = ["bench", "--model", "simple-cnn", "--size", "24", "--batch", "9", "--steps", "3", "--no-tune"];
    let elsewhere = ["--ranks", "--simulate", "ranks=64,gbps=100,latency_us=2", "--wire", "f16", "--json", "-"];
    let printed = runs(folder.path(), "2", &[&bench[..], &elsewhere].concat());
    let report: serde_json::Value = serde_json::from_str(&printed).expect(&printed);
    assert_eq!((&report["ranks"], &report["rows"]), (&2.into(), &serde_json::json!([4, 5])));
    let number = |path: &str| report.pointer(path).and_then(serde_json::Value::as_f64).expect(path);
    let buckets: f64 = report["buckets"].as_array().unwrap().iter().map(|bytes| bytes.as_f64().unwrap()).sum();
    let parameters = Model::find("simple-cnn").unwrap().summary(24, 7).unwrap().parameters;
    let trained = parameters.iter().filter(|p| p.trainable).map(|p| p.file_shape.len()).sum::<usize>();
    assert_eq!(buckets, 2.0 * trained as f64);
    // With others it speaks, by itself it does not.
    assert!(number("/shared/communication") > 10.0 * number("/alone/communication"));
    assert!(number("/shared/communication") < number("/shared/total"));
    for path in [
        "/one",
        "/together/total",
        "/without_overlap",
        "/network/bytes_per_second",
        "/network/latency",
        "/predicted/step",
    ] {
        assert!(number(path) > 0.0, "{path}: {report}");
    }
    assert_eq!(number("/elsewhere/network/ranks"), 64.0);
    assert!(number("/elsewhere/step") > number("/alone/total"));
    let text = runs(folder.path(), "2", &[&bench[..], &["--ranks"]].concat());
    assert_eq!(text.matches("efficiency").count(), 1, "{text}");
}

#[test]
fn ranks_that_are_started_otherwise_are_refused_once() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let first = ranks("1", &[TRAIN, &["--lr", "0.1"]].concat());
    let second = ranks("1", &[TRAIN, &["--lr", "0.2"]].concat());
    let args: Vec<&str> =
        first.iter().map(String::as_str).chain([":"]).chain(second.iter().map(String::as_str)).collect();
    let output = mpirun(dir, &args).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_eq!(said.matches("rank 1 has another configuration than rank 0").count(), 1, "{said}");
    assert!(!dir.join("runs").exists());
    // What is wrong with all is said once.
    let output = run(dir, "2", &[TRAIN, &["--adapter", "99"]].concat());
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), said.matches("no adapter matches").count()), (Some(3), 1), "{said}");
}

#[test]
fn an_interrupted_rank_stops_all_and_any_number_goes_on() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let train = [TRAIN, &["--epochs", "3"]].concat();
    runs(dir, "2", &[&train[..], &["--run", "whole"]].concat());
    for (run, resumed_by) in [("two", Some("2")), ("three", Some("3")), ("one", None)] {
        let (child, lines) = started(dir, "2", &[&train[..], &["--run", run]].concat(), 5).expect("it still runs");
        // Steps go on while its output waits to be read.
        let ranks = processes(&child);
        assert_eq!(ranks.len(), 2, "{ranks:?}");
        signal(ranks[1].1, "-INT");
        let output = child.wait_with_output().unwrap();
        drop(lines);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{said}");
        assert_eq!(said.matches("interrupted after step").count(), 1, "{said}");
        assert!(said.contains(&format!("mpirun -n 2 lesion-gpu train --resume {run}")), "{said}");
        let resume = ["train", "--resume", run, "--no-report"];
        match resumed_by {
            Some(number) => drop(runs(dir, number, &resume)),
            None => drop(ok(dir, &resume)),
        }
        if run == "two" {
            assert_equal(&dir.join("whole"), &dir.join(run));
        }
        let losses = |run: &str| -> Vec<f32> {
            let rows = table(&dir.join(run), "steps.csv");
            rows.lines().skip(1).map(|line| line.rsplit(',').next().unwrap().parse().unwrap()).collect()
        };
        let (whole, other) = (losses("whole"), losses(run));
        assert_eq!(whole.len(), other.len());
        // Dropout draws by the number of the part, so other ranks drop other elements.
        whole.iter().zip(&other).for_each(|(w, o)| assert!((w - o).abs() < 0.2 * w, "{run}: {w} {o}"));
        assert_eq!(whole[..5], other[..5]);
    }
}

#[test]
fn a_rank_that_is_killed_ends_the_run_and_nothing_is_lost() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let train = [TRAIN, &["--epochs", "3"]].concat();
    runs(dir, "2", &[&train[..], &["--run", "whole"]].concat());
    let least = number("LESION_KILLS", 3);
    let (mut moments, mut kills, mut slowest) =
        (Draw::new(number("LESION_SEED", 1) as u32, "kills"), 0, Duration::ZERO);
    for run in 0.. {
        let run = format!("killed-{run}");
        let first = [&train[..], &["--run", &run]].concat();
        let again = ["train", "--resume", &run, "--no-report"];
        let mut args = &first[..];
        while let Some((mut child, lines)) = started(dir, "2", args, 1 + moments.below(9) as u64) {
            std::thread::sleep(Duration::from_micros(moments.below(20_000) as u64));
            let ranks = processes(&child);
            let Some(&(rank, process)) = ranks.get(moments.below(2)) else {
                // It has come to its end.
                child.wait().unwrap();
                break;
            };
            signal(process, "-KILL");
            let killed = Instant::now();
            // What it printed must not be what holds it.
            let reader = std::thread::spawn(move || drop(std::io::read_to_string(lines)));
            let output = child.wait_with_output().unwrap();
            reader.join().unwrap();
            kills += 1;
            let said = text(&output.stderr);
            assert!(!output.status.success(), "{said}");
            for part in
                [format!("rank {rank} (process {process} on "), format!("mpirun -n 2 lesion-gpu train --resume {run}")]
            {
                assert!(said.contains(&part), "{part}: {said}");
            }
            // None of them is left, not even one that never heard of it.
            while ranks.iter().any(|(_, process)| Path::new(&format!("/proc/{process}")).exists()) {
                assert!(killed.elapsed() < Duration::from_secs(10), "{said}");
                std::thread::sleep(Duration::from_millis(20));
            }
            slowest = slowest.max(killed.elapsed());
            // The last, or where it was just being replaced the one before.
            let read = |name: &&str| Checkpoint::read(&dir.join(&run).join("weights").join(name)).ok();
            assert!(["last.safetensors", "previous.safetensors"].iter().find_map(read).is_some(), "{said}");
            args = &again;
        }
        assert_equal(&dir.join("whole"), &dir.join(&run));
        if kills >= least {
            break;
        }
    }
    println!("{kills} ranks killed; the run was over {slowest:?} later at most");
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    // A finished run is none that could lose a rank.
    assert!(program(dir, &["eval", "killed-0", "--no-cache"]).status.success());
}

#[test]
fn ranks_answer_to_pictures_as_one_process_does() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    ok(dir, &[TRAIN, &["--epochs", "1", "--run", "classes"]].concat());
    let masks = ["train", "--data", "synthetic:30", "--model", "unet-small", "--size", "32", "--batch", "4"];
    ok(dir, &[&masks[..], &["--epochs", "1", "--run", "masks", "--no-report"]].concat());
    std::fs::create_dir(dir.join("photos")).unwrap();
    for i in 0..23_u32 {
        let colour = |x: u32, y: u32| image::Rgb([(x * 5 + i * 11) as u8, (y * 7) as u8, (i * 10) as u8]);
        let picture = image::RgbImage::from_fn(30 + i, 25, colour);
        picture.save(dir.join(format!("photos/{i:02}.png"))).unwrap();
    }
    let predict = |ranks: Option<&str>, args: &[&str]| {
        let args = [&["predict", "classes", "photos", "--batch", "4"], args].concat();
        match ranks {
            None => program(dir, &args),
            Some(number) => run(dir, number, &args),
        }
    };
    // Six batches: for four ranks not as many each.
    for format in ["csv", "json", "jsonl", "text"] {
        let alone = predict(None, &["--format", format]);
        assert!(alone.status.success());
        for ranks in ["2", "4"] {
            let several = predict(Some(ranks), &["--format", format]);
            assert_eq!(text(&alone.stdout), text(&several.stdout), "{format}, {ranks} ranks");
        }
    }
    // What cannot be read is said once, and is no reason to wait: a whole batch is not.
    for i in [1, 8, 9, 10, 11, 22] {
        std::fs::write(dir.join(format!("photos/{i:02}.png")), "no picture").unwrap();
    }
    let (alone, several) = (predict(None, &["--format", "csv"]), predict(Some("3"), &["--format", "csv"]));
    assert_eq!((text(&alone.stdout), alone.status.code()), (text(&several.stdout), Some(8)));
    let complaints = |output: &Output| -> Vec<String> {
        let said = text(&output.stderr);
        said.lines().filter(|line| line.starts_with("skipped: ")).map(str::to_owned).collect()
    };
    assert_eq!(complaints(&several), complaints(&alone));
    let said = text(&several.stderr);
    assert_eq!((several.status.code(), complaints(&several).len()), (Some(8), 6), "{said}");
    assert_eq!(said.matches("6 of 23 pictures could not be read").count(), 1, "{said}");
    // Fewer pictures than ranks.
    assert_eq!(
        runs(dir, "3", &["predict", "classes", "photos/00.png"]),
        ok(dir, &["predict", "classes", "photos/00.png"])
    );
    // Each rank draws its masks; none is written over.
    let draw =
        |out: &'static str| ["predict", "masks", "photos/0[2-7].png", "--batch", "2", "--format", "csv", "--out", out];
    let (one, two) = (ok(dir, &draw("one")), runs(dir, "2", &draw("two")));
    assert_eq!(one.replace("one/", "two/"), two);
    for i in 2..8 {
        let read = |out: &str| std::fs::read(dir.join(out).join(format!("{i:02}_segmentation.png"))).unwrap();
        assert!(read("one") == read("two"), "{i}");
    }
    let said = text(&run(dir, "2", &draw("two")).stderr);
    assert_eq!(said.matches("nothing is overwritten").count(), 1, "{said}");
}

#[test]
fn ranks_reproduce_what_one_process_does() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let rows =
        ["reproduce", "s1-cnn", "s3-r18", "--from-scratch", "--data", "synthetic:60", "--size", "32", "--batch", "8"];
    let rows = |out: &'static str| [&rows[..], &["--max-steps", "2", "--out", out]].concat();
    // What a rank that was killed has left.
    std::fs::create_dir(dir.join("two")).unwrap();
    std::fs::write(dir.join("two/s1-cnn-published.lock"), "").unwrap();
    let (alone, several) = (ok(dir, &rows("one")), runs(dir, "2", &rows("two")));
    let table = |out: &str| std::fs::read_to_string(dir.join(out).join("table.csv")).unwrap();
    assert_eq!(table("one"), table("two"));
    assert!(table("one").lines().count() > 4, "{alone}");
    // Each run once, and each rank had some; the table once.
    for (row, protocol) in
        [("s1-cnn", "published"), ("s1-cnn", "leak-free"), ("s3-r18", "published"), ("s3-r18", "leak-free")]
    {
        let begun = format!("{row} under the protocol {protocol}: ");
        assert_eq!((alone.matches(&begun).count(), several.matches(&begun).count()), (1, 1), "{several}");
    }
    assert!(several.contains("rank 0: ") && several.contains("rank 1: "), "{several}");
    assert_eq!(several.matches("written: ").count(), 1, "{several}");
    let left = std::fs::read_dir(dir.join("two")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().ends_with(".lock")));
    // Nothing is left to do.
    let again = runs(dir, "2", &rows("two"));
    assert!(!again.contains("under the protocol"), "{again}");
}
