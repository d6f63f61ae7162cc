//! What a run survives: being killed at any moment, damaged files, a disk that is full, a second process, signals.

mod common;
#[cfg(target_os = "linux")]
#[path = "common/disk.rs"]
mod disk;
#[path = "common/training.rs"]
mod training;

use std::path::Path;
use std::process::Child;
use std::time::Duration;

use common::{command, fails, number, ok};
use lesion_gpu::Kind;
use lesion_gpu::ops::Draw;
use lesion_gpu::train::Checkpoint;
use lesion_gpu::weights::{read_safetensors, write_safetensors};
use training::{SMALL, TRAIN, assert_equal, table, until};

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
    let least = number("LESION_KILLS", 4);
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
            // By which one that is older is taken in its place.
            Err(e) => assert_eq!(e.kind(), Kind::Weights, "round {round}: {e}"),
            // White space of the header, say: then it is the same checkpoint.
            Ok(read) => {
                std::fs::write(&last, &whole).unwrap();
                assert!(read == Checkpoint::read(&last).unwrap(), "round {round}: other contents went unnoticed");
            }
        }
    }

    // Of another version, and whole: nothing older is taken for it or put in its place, though there is.
    let newer = [(r#""format":1"#, r#""format":2,"shape":"round""#), (r#""seed":"#, r#""seed_of_seeds":1,"seed":"#)];
    for changes in [&newer[..], &newer[..1], &[(newer[0].0, r#""format":0"#)]] {
        std::fs::write(&last, &whole).unwrap();
        let mut file = read_safetensors(&last).unwrap();
        let about = file.metadata.get_mut("lesion-gpu.checkpoint").unwrap();
        for (from, to) in changes {
            assert!(about.contains(from), "{about}");
            *about = about.replacen(from, to, 1);
        }
        write_safetensors(&last, &file).unwrap();
        let (bytes, steps) = (std::fs::read(&last).unwrap(), table(&dir.join("run"), "steps.csv"));
        let said = fails(dir, 10, &resume);
        assert!(said.contains("has format ") && said.contains("use the version of lesion-gpu that made it"), "{said}");
        assert!(std::fs::read(&last).unwrap() == bytes && table(&dir.join("run"), "steps.csv") == steps);
    }

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

/// Trains an epoch as a whole, and once more with a signal in the middle of it, from which another process goes on. Nothing is saved
/// there but on the signal: the next checkpoint would be due in ten minutes, or at the end of the epoch.
#[cfg(unix)]
fn goes_on_after(signals: &[&str], folder: &Path, train: &[&str], whole: &str) {
    let train = [train, &["--epochs", "1", "--no-report", "--run"]].concat();
    ok(folder, &[&train[..], &[whole]].concat());
    let steps = |run: &str| table(&folder.join(run), "steps.csv").lines().count() as u64 - 1;
    for signal in signals {
        let run = format!("{whole}-{signal}");
        let args = [&train[..], &[&run, "--json", "--checkpoint-every", "600"]].concat();
        let (child, mut lines) = until(&mut command(folder, &args), 1).expect("it runs");
        let sent = std::process::Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status();
        assert!(sent.unwrap().success());
        std::io::read_to_string(&mut lines).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = common::text(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{said}");
        assert!(said.contains(&format!("continue with `lesion-gpu train --resume {run}`")), "{said}");
        let (done, of) = (steps(&run), steps(whole));
        assert!(said.contains(&format!("interrupted after step {done}")), "{done} losses are written down: {said}");
        assert!(0 < done && done < of, "at the end of an epoch it is saved anyway: {done} of {of} steps");
        let last = Checkpoint::read(&folder.join(&run).join("weights/last.safetensors")).unwrap();
        assert_eq!(last.progress.step, done, "the last step is not saved");
        println!("{run}: stopped after step {done} of {of}");
        ok(folder, &["train", "--resume", &run, "--no-report"]);
        assert_equal(&folder.join(whole), &folder.join(&run));
    }
}

/// Training is over when the best checkpoint is read, and nobody has another copy of it.
#[test]
fn a_damaged_best_checkpoint_is_made_up_for_by_another_of_its_epoch() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    // Without validation pictures the last epoch is the best.
    ok(dir, &[SMALL, &["--epochs", "2", "--split", "0.8,0,0.2", "--run", "run"]].concat());
    let (run, best) = (dir.join("run"), dir.join("run/weights/best.safetensors"));
    let (whole, scores) = (std::fs::read(&best).unwrap(), std::fs::read(run.join("metrics.json")).unwrap());
    let checkpoint = Checkpoint::read(&best).unwrap();
    let resume = ["train", "--resume", "run", "--no-report"];
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    for file in [Some(damaged), None] {
        std::fs::remove_file(run.join("metrics.json")).unwrap();
        std::fs::remove_file(&best).unwrap();
        file.iter().for_each(|bytes| std::fs::write(&best, bytes).unwrap());
        let said = ok(dir, &resume);
        assert!(said.contains("last.safetensors is of the same epoch, and taken"), "{said}");
        assert!(
            Checkpoint::read(&best).unwrap() == checkpoint
                && std::fs::read(run.join("metrics.json")).unwrap() == scores
        );
    }
}

/// The first signal saves.
#[cfg(unix)]
#[test]
fn signals_stop_a_run_so_that_it_can_go_on() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // So many pictures that the signal arrives before the epoch ends.
    let train = ["train", "--data", "synthetic:400", "--model", "simple-cnn", "--size", "24", "--batch", "8"];
    let changes = ["--schedule", "cosine", "--rotation", "30", "--head-dropout", "0.2", "--ema", "0.9"];
    goes_on_after(&["INT", "TERM"], folder.path(), &[&train[..], &changes].concat(), "run");
}

/// With norms another process needs their running statistics too, and with mixed precision the scale of the loss and its counts.
#[cfg(unix)]
#[test]
fn networks_with_norms_go_on_in_another_process() {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let precision = if gpu.caps().f16 { "mixed" } else { "f32" };
    let small = ["train", "--data", "synthetic:60", "--split", "0.8,0.1,0.1", "--size", "32", "--rotation", "30"];
    let parts = ["--batch", "8", "--micro-batch", "4", "--ema", "0.9", "--precision", precision, "--model"];
    for model in [&["resnet18", "--head-dropout", "0.2"][..], &["unet-small"]] {
        goes_on_after(&["TERM"], folder.path(), &[&small[..], &parts, model].concat(), model[0]);
    }
}

/// The first signal waits for the step, which here takes a second or more; the second does not, and so nothing is saved.
#[cfg(unix)]
#[test]
fn a_second_signal_leaves_at_once() {
    use std::io::{BufRead as _, BufReader, Read as _};

    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    for signal in ["INT", "TERM"] {
        let slow =
            ["--data", "synthetic:100", "--model", "simple-cnn", "--size", "160", "--batch", "32", "--epochs", "1000"];
        let args = [&["train", "--no-report", "--run", signal], &slow[..]].concat();
        let (mut child, lines) = started(dir, &args, 1).expect("it runs");
        let id = child.id().to_string();
        let send = || {
            let sent = std::process::Command::new("kill").args([&format!("-{signal}"), &id]).status();
            assert!(sent.unwrap().success());
        };
        send();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("stopping after this step; once more to stop at once") {
            line.clear();
            assert_ne!(said.read_line(&mut line).unwrap(), 0, "it ended before");
        }
        send();
        let code = child.wait().unwrap().code();
        let mut rest = String::new();
        said.read_to_string(&mut rest).unwrap();
        drop(lines);
        assert_eq!(code, Some(130), "{rest}");
        assert!(!rest.contains("continue with"), "it saved before it left: {rest}");
        let saved = Checkpoint::read(&dir.join(signal).join("weights/last.safetensors")).unwrap().progress.step;
        assert!(saved <= 2, "{saved} steps were saved");
    }
    let said = fails(dir, 2, &["train", "--resume", "INT", "--epochs", "2"]);
    assert!(said.contains("--epochs"), "a resumed run has its own configuration: {said}");
}

/// What a run waits for, and what it remembers of the epochs before, is part of its state: killed while it counts epochs without
/// improvement, after its learning rate fell and when it is about to stop early.
#[test]
fn a_run_that_waits_for_improvement_goes_on_waiting() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    // Nothing is so much better than the first epoch: the rate falls after epochs 3, 5 and 7, and the run ends after 7 of 20.
    let waits = ["--schedule", "plateau", "--plateau-patience", "2", "--min-delta", "10", "--patience", "6"];
    let more = ["--ema", "0.9", "--precision", "mixed", "--keep-best", "2", "--epochs", "20"];
    let train = [SMALL, &waits, &more].concat();
    ok(dir, &[&train[..], &["--run", "whole"]].concat());
    let epochs = training::epochs(&dir.join("whole"));
    assert_eq!(epochs.len(), 1 + 7, "{epochs:?}");
    let rates: Vec<&str> = epochs[1..].iter().map(|row| row.split(',').nth(2).unwrap()).collect();
    assert_eq!(rates, ["1e-3", "1e-3", "1e-3", "5e-4", "5e-4", "2.5e-4", "2.5e-4"]);
    let steps = table(&dir.join("whole"), "steps.csv").lines().count() as u64 - 1;
    // In the middle of epochs 2, 4 and 7, and after the last step.
    for (killed, step) in [steps * 3 / 14, steps / 2, steps * 13 / 14, steps].into_iter().enumerate() {
        let run = format!("killed-{killed}");
        killed_after(dir, &[&train[..], &["--run", &run]].concat(), step);
        let said = ok(dir, &["train", "--resume", &run, "--no-report"]);
        assert!(said.contains("has not risen by more than 10 for 6 epochs"), "{said}");
        assert_equal(&dir.join("whole"), &dir.join(&run));
    }
}

/// Everything that a run changes on the disk, one after the other: there the program is killed, or from there on the disk is full or
/// takes no more at all.
#[cfg(target_os = "linux")]
#[test]
fn whatever_it_was_writing_a_run_can_go_on() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let library = disk::library(dir);
    let train = [TRAIN, &["--epochs", "2"]].concat();
    let on = |run: &str, variables: &[(&str, &str)]| {
        let disk = [("LD_PRELOAD", library.as_str()), ("DISK_PART", run)];
        common::program_with(dir, &[&train[..], &["--run", run]].concat(), &[&disk, variables].concat())
    };
    let output = on("whole", &[("DISK_LOG", "log")]);
    assert!(output.status.success(), "{}", common::text(&output.stderr));
    let log = table(dir, "log");
    let all: Vec<&str> = log.lines().collect();
    let after = |first: usize, what: &str| {
        let found = all[first..].iter().position(|line| line.starts_with(what) && line.contains("/weights"));
        1 + first + found.unwrap_or_else(|| panic!("no {what} in {log}"))
    };
    // The first checkpoint is there from the last of these on, a sync of its folder; the ones at the end of the first epoch follow.
    let begun = after(after(after(0, "write"), "rename"), "fsync");
    let renamed = after(begun, "rename");
    let written =
        (begun..renamed).rev().find(|at| all[*at - 1].starts_with("open")).expect("a file that is renamed is opened")
            + 1;
    let mut trials: Vec<(&str, usize)> = (written - 1..=renamed + 1).map(|at| ("killed", at)).collect();
    trials.extend([("full", written), ("closed", written - 1), ("closed", renamed)]);
    let mut places = Draw::new(number("LESION_SEED", 1) as u32, "places");
    for then in ["killed", "full", "closed"] {
        let mut left: Vec<usize> = (1..=all.len()).collect();
        for _ in 0..number("LESION_PLACES", 2).min(all.len() as u64) {
            let one = (then, left.swap_remove(places.below(left.len())));
            if !trials.contains(&one) {
                trials.push(one);
            }
        }
    }
    let again = |run: &str| common::program(dir, &["train", "--resume", run, "--no-report"]);
    for (then, at) in &trials {
        let (then, run, what) = (*then, format!("{then}-{at}."), all[at - 1]);
        let output = on(&run, &[("DISK_AT", &at.to_string()), ("DISK_THEN", then)]);
        let said = common::text(&output.stderr);
        let place = format!("{then} at {at} of {}, {what}: {said}", all.len());
        match output.status.code() {
            None => assert_eq!(then, "killed", "{place}"),
            // What was left to do was to clear up.
            Some(0) => assert!(then != "killed" && dir.join(&run).join("metrics.json").is_file(), "{place}"),
            Some(code) => assert!(code == 11 && !said.contains("panicked"), "{place}"),
        }
        let resumed = again(&run);
        if !resumed.status.success() {
            // There was nothing to go on from: then the folder may be taken again.
            assert!(*at < begun && resumed.status.code() == Some(10), "{place}\n{}", common::text(&resumed.stderr));
            ok(dir, &[&train[..], &["--run", &run]].concat());
        }
        assert_equal(&dir.join("whole"), &dir.join(&run));
        let left: Vec<_> = std::fs::read_dir(dir.join(&run).join("weights")).unwrap().flatten().collect();
        assert_eq!(left.len(), 2, "{place}: {left:?}");
    }
    println!("{} places of {} at which something is written", trials.len(), all.len());
}
