//! What a run survives: being killed at any moment, damaged files, a disk that is full, a second process, signals.

mod common;
#[path = "common/training.rs"]
mod training;

use std::path::Path;
use std::process::Child;
use std::time::Duration;

use common::{command, fails, number, ok};
use lesion_gpu::ops::Draw;
use lesion_gpu::train::Checkpoint;
use lesion_gpu::weights::{read_safetensors, write_safetensors};
use training::{TRAIN, assert_equal, table, until};

/// Starts a training and reads what it prints until `steps` steps were submitted; `None` if it ended before.
fn started(folder: &Path, args: &[&str], steps: u64) -> Option<(Child, impl std::io::Read + use<>)> {
    let args = [args, &["--json", "--checkpoint-every", "0"]].concat();
    until(&mut command(folder, &args), steps)
}

/// Kills a training that [`started`] has started.
fn killed(mut child: Child, lines: impl std::io::Read) {
    child.kill().unwrap();
    child.wait().unwrap();
    drop(lines);
}

/// Starts a training and kills it after so many steps, before which it may not end.
fn killed_after(folder: &Path, args: &[&str], steps: u64) {
    let (child, lines) = started(folder, args, steps).expect("it still runs");
    killed(child, lines);
}

#[test]
fn a_run_that_is_killed_again_and_again_ends_as_if_it_never_was() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let train = [TRAIN, &["--epochs", "3"]].concat();
    ok(dir, &[&train[..], &["--run", "whole"]].concat());
    let least = number("LESION_KILLS", 6);
    let (mut moments, mut kills, mut inside) = (Draw::new(number("LESION_SEED", 1) as u32, "kills"), 0, 0);
    for run in 0.. {
        let run = format!("killed-{run}");
        let first = [&train[..], &["--run", &run]].concat();
        let again = ["train", "--resume", &run, "--no-report"];
        let mut args = &first[..];
        // A step takes some milliseconds, and a part of them goes into its checkpoint: some kills fall into its writing.
        while let Some((child, lines)) = started(dir, args, 1 + moments.below(9) as u64) {
            std::thread::sleep(Duration::from_micros(moments.below(20_000) as u64));
            killed(child, lines);
            kills += 1;
            let weights = dir.join(&run).join("weights");
            let names: Vec<String> = std::fs::read_dir(&weights)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
                .collect();
            inside += u64::from(
                names.iter().any(|name| name.starts_with(".lesion-gpu-"))
                    || !names.iter().any(|name| name == "last.safetensors"),
            );
            args = &again;
        }
        assert_equal(&dir.join("whole"), &dir.join(&run));
        let left: Vec<_> = std::fs::read_dir(dir.join(&run).join("weights")).unwrap().flatten().collect();
        assert_eq!(left.len(), 2, "a finished run keeps two checkpoints, and nothing half written: {left:?}");
        assert!(!dir.join(&run).join("training.lock").exists());
        if kills >= least {
            break;
        }
    }
    assert!(kills < 40 || inside > 0, "no kill of {kills} fell into the writing of a checkpoint");
    println!("{kills} kills, {inside} of them while a checkpoint was being written");
}

#[test]
fn damaged_checkpoints_are_recognised_and_the_one_before_is_found() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let train = [TRAIN, &["--epochs", "2"]].concat();
    ok(dir, &[&train[..], &["--run", "whole"]].concat());
    let stop = |run: &str| {
        let args = [&train[..], &["--run", run]].concat();
        killed_after(dir, &args, 12);
    };
    stop("run");
    let weights = dir.join("run/weights");
    let [last, previous, best] = ["last", "previous", "best"].map(|name| weights.join(format!("{name}.safetensors")));
    assert!(previous.is_file() && best.is_file());
    let (whole, before) = (std::fs::read(&last).unwrap(), std::fs::read(&previous).unwrap());
    let step = |path: &Path| Checkpoint::read(path).unwrap().progress.step;
    let resume = ["train", "--resume", "run", "--no-report"];

    // Bits that flip and ends that are missing, anywhere in the file.
    let mut places = Draw::new(7, "damages");
    for round in 0..number("LESION_DAMAGES", 200) {
        let mut bytes = whole.clone();
        if round % 4 == 0 {
            bytes.truncate(places.below(whole.len()));
        } else {
            let bit = places.below(whole.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        std::fs::write(&last, &bytes).unwrap();
        match Checkpoint::read(&last) {
            Err(e) => assert!(!e.what().is_empty()),
            // White space of the header, say: then it is the same checkpoint.
            Ok(read) => {
                std::fs::write(&last, &whole).unwrap();
                assert!(read == Checkpoint::read(&last).unwrap(), "round {round}: other contents went unnoticed");
            }
        }
    }

    // Of a newer version, and whole: nothing older is taken for it.
    for path in [&last, &previous, &best] {
        std::fs::write(path, if path == &previous { &before } else { &whole }).unwrap();
        let mut file = read_safetensors(path).unwrap();
        let about = file.metadata.get_mut("lesion-gpu.checkpoint").unwrap();
        *about = about.replace(r#""format":1"#, r#""format":2"#);
        write_safetensors(path, &file).unwrap();
    }
    let said = fails(dir, 10, &resume);
    assert!(said.contains("has format 2") && said.contains("use the version of lesion-gpu that made it"), "{said}");
    std::fs::write(&best, &whole).unwrap();

    // The last is cut short: the one before is named, and the run ends as if nothing had happened.
    std::fs::write(&last, &whole[..whole.len() / 2]).unwrap();
    std::fs::write(&previous, &before).unwrap();
    let named = format!("going on from {}, of step {}", "run/weights/previous.safetensors", step(&previous));
    let said = fails(dir, 9, &["predict", "run/weights/last.safetensors", "none.png"]);
    assert!(said.contains("best.safetensors is whole"), "{said}");
    let said = ok(dir, &resume);
    assert!(said.contains(&named) && said.contains("last.safetensors cannot be used"), "{said}");
    assert_equal(&dir.join("whole"), &dir.join("run"));

    // A finished run is not trained again for want of its last checkpoint.
    std::fs::rename(&last, dir.join("last")).unwrap();
    let before = table(&dir.join("run"), "results.csv");
    let said = fails(dir, 10, &resume);
    assert!(said.contains("the run is finished") && before == table(&dir.join("run"), "results.csv"), "{said}");

    // Neither of the two is left: the best one will do.
    stop("lost");
    let weights = dir.join("lost/weights");
    std::fs::remove_file(weights.join("last.safetensors")).unwrap();
    std::fs::write(weights.join("previous.safetensors"), b"nonsense").unwrap();
    let said = ok(dir, &["train", "--resume", "lost", "--no-report"]);
    assert!(said.contains("best.safetensors, of step"), "{said}");
    assert_equal(&dir.join("whole"), &dir.join("lost"));
}

#[test]
fn a_run_belongs_to_one_process() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let args = [TRAIN, &["--epochs", "1000", "--run", "run"]].concat();
    let (child, lines) = started(dir, &args, 3).expect("it runs");
    let said = fails(dir, 10, &["train", "--resume", "run", "--no-report"]);
    assert!(said.contains("another process is training this run"), "{said}");
    killed(child, lines);
    // Its lock file is still there, and stops nobody.
    assert!(dir.join("run/training.lock").is_file());
    killed_after(dir, &["train", "--resume", "run", "--no-report"], 1);
}

/// A disk that is full shows as a write that fails, here at a limit of the size of files.
#[cfg(unix)]
#[test]
fn a_full_disk_costs_nothing_that_was_written() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let train = [TRAIN, &["--epochs", "2"]].concat();
    ok(dir, &[&train[..], &["--run", "whole"]].concat());
    let args = [&train[..], &["--run", "run"]].concat();
    killed_after(dir, &args, 9);
    let last = dir.join("run/weights/last.safetensors");
    let (before, size) = (std::fs::read(&last).unwrap(), std::fs::metadata(&last).unwrap().len());
    // In blocks of 512 bytes; the signal is ignored, so that the write fails.
    let blocks = size / 512 / 2;
    let program = env!("CARGO_BIN_EXE_lesion-gpu");
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec {program} train --resume run --no-report --no-cache");
    let output = std::process::Command::new("sh")
        .args(["-c", &script])
        .current_dir(dir)
        .env("XDG_CACHE_HOME", dir.join("cache"))
        .output()
        .unwrap();
    let said = common::text(&output.stderr);
    assert_eq!(output.status.code(), Some(11), "{said}");
    assert!(said.contains("could not write") && said.contains("train --resume run"), "{said}");
    assert_eq!(std::fs::read(&last).unwrap(), before, "the checkpoint is another");
    ok(dir, &["train", "--resume", "run", "--no-report"]);
    assert_equal(&dir.join("whole"), &dir.join("run"));
    let said = fails(dir, 11, &[&train[..], &["--run", "/dev/null/run"]].concat());
    assert!(said.contains("/dev/null/run"), "{said}");
}

/// The first signal saves, a second one leaves at once.
#[cfg(unix)]
#[test]
fn signals_stop_a_run_so_that_it_can_go_on() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let train = [TRAIN, &["--epochs", "3"]].concat();
    ok(dir, &[&train[..], &["--run", "whole"]].concat());
    for signal in ["INT", "TERM"] {
        let args = [&train[..], &["--run", signal]].concat();
        let (child, mut lines) = started(dir, &args, 10).expect("it runs");
        let send = || {
            let sent = std::process::Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status();
            assert!(sent.unwrap().success());
        };
        send();
        std::io::read_to_string(&mut lines).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = common::text(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{said}");
        assert!(said.contains(&format!("continue with `lesion-gpu train --resume {signal}`")), "{said}");
        ok(dir, &["train", "--resume", signal, "--no-report"]);
        assert_equal(&dir.join("whole"), &dir.join(signal));
    }
    // Two at once, while a slow epoch would go on for long.
    let args = [TRAIN, &["--epochs", "1000", "--run", "twice"]].concat();
    let (child, lines) = started(dir, &args, 3).expect("it runs");
    let asked = std::time::Instant::now();
    for _ in 0..2 {
        let _ = std::process::Command::new("kill").args(["-INT".to_owned(), child.id().to_string()]).status();
    }
    drop(lines);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", common::text(&output.stderr));
    assert!(asked.elapsed() < Duration::from_secs(60));
    let state = common::program(dir, &["train", "--resume", "twice", "--epochs", "2"]);
    assert_eq!(state.status.code(), Some(2), "a resumed run has its own configuration");
}
