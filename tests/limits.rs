//! Devices with less than this machine's: `--limit` and `--without` open such a one here, and wgpu enforces what they say.

mod common;
#[path = "common/training.rs"]
mod training;

use std::path::Path;

use common::{fails, ok, program};
use lesion_gpu::gpu::{Caps, Feature, GpuOptions, Limits};
use lesion_gpu::ops::{all_cases, check_case};
use training::table;

const LEAST: [&str; 4] =
    ["--limit", "baseline", "--without", "f16,subgroups,timestamps,pipeline-cache,immediates,cooperative-matrix"];

/// A device that has nothing but what every WebGPU device has.
fn least() -> GpuOptions {
    GpuOptions { limits: Limits::baseline(), without: Feature::ALL.to_vec(), ..GpuOptions::default() }
}

/// The losses of a run's steps.
fn losses(run: &Path) -> Vec<f64> {
    table(run, "steps.csv").lines().skip(1).map(|line| line.rsplit(',').next().unwrap().parse().unwrap()).collect()
}

/// The largest difference of two lists, relative to the second.
fn difference(one: &[f64], other: &[f64]) -> f64 {
    assert!(one.len() == other.len() && !one.is_empty(), "{one:?} {other:?}");
    one.iter().zip(other).map(|(a, b)| (a - b).abs() / b.abs().max(1e-6)).fold(0.0, f64::max)
}

#[test]
fn models_train_and_are_scored_on_a_device_with_the_least() {
    let Some(gpu) = common::gpu_with(least()) else { return };
    let Caps { class, textures, checked, .. } = *gpu.caps();
    let least = Caps { class, textures, checked, ..Caps::baseline() };
    assert_eq!(gpu.caps(), &least, "the device has more than the least");
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    // Kernels differ, so sums are rounded otherwise, and Adam's first steps are as large for a small gradient as for a
    // large one: losses drift apart.
    for (model, flags, scored) in [
        ("simple-cnn", &["--data", "synthetic:60", "--size", "32", "--batch", "8", "--epochs", "2"][..], "loss"),
        ("unet-small", &["--data", "synthetic:20", "--size", "32", "--batch", "4", "--epochs", "2"], "accuracy"),
    ] {
        let train = [&["train", "--model", model, "--no-report"], flags].concat();
        let (full, poor) = (format!("{model}-full"), format!("{model}-least"));
        ok(dir, &[&train[..], &["--run", &full]].concat());
        ok(dir, &[&train[..], &LEAST, &["--run", &poor]].concat());
        let (full, poor) = (dir.join(full), dir.join(poor));
        let (of_poor, of_full) = (losses(&poor), losses(&full));
        let (first, all) = (difference(&of_poor[..1], &of_full[..1]), difference(&of_poor, &of_full));
        println!("{model}: the first loss differs by {first:.1e}, those of {} steps by {all:.1e}", of_poor.len());
        assert!(first < 1e-5 && all < 5e-3, "{model}: {first} {all}");
        let environment: serde_json::Value = serde_json::from_str(&table(&poor, "environment.json")).unwrap();
        assert_eq!((&environment["limits"], &environment["features"]), (&"baseline".into(), &serde_json::json!([])));

        // The same weights, evaluated on both.
        let score = |flags: &[&str], file: &str| -> f64 {
            let run = full.display().to_string();
            ok(dir, &[&["eval", &run, "--batch", "4", "--json", file], flags].concat());
            let scores: serde_json::Value = serde_json::from_str(&table(dir, file)).unwrap();
            scores[scored].as_f64().unwrap_or_else(|| panic!("no {scored}: {scores}"))
        };
        let error = difference(&[score(&LEAST, "least.json")], &[score(&[], "full.json")]);
        println!("{model}: the {scored} of its evaluation differs by {error:.1e}");
        assert!(error < 1e-4, "{model}: {error}");
    }
}

/// Some cases of each op; `doctor --limit baseline` runs all.
#[test]
fn ops_agree_with_their_twins_on_a_device_with_the_least() {
    let Some(gpu) = common::gpu_with(least()) else { return };
    let (mut before, mut of_op, mut run, mut failed) = ("", 0, 0, vec![]);
    for case in all_cases().into_iter().filter(|case| !case.needs_half()) {
        of_op = if case.op == before { of_op + 1 } else { 0 };
        before = case.op;
        if of_op % 8 != 0 {
            continue;
        }
        run += 1;
        match check_case(&gpu, &case, 1) {
            Ok(report) if report.passed() => {}
            Ok(report) => failed.push(format!("{}: {:?}", report.label, report.worst())),
            Err(e) => failed.push(format!("{}: {e}", case.label())),
        }
    }
    println!("{run} cases");
    assert!(failed.is_empty() && run > 60, "{run} cases, failed: {failed:#?}");
}

#[test]
fn what_a_device_cannot_do_is_refused_before_the_first_step() {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let train =
        ["train", "--data", "synthetic:300", "--model", "simple-cnn", "--size", "64", "--no-report", "--no-augment"];
    let once = ["--epochs", "1"];

    // Without 16-bit floats.
    let mixed = [&train[..], &once, &["--precision", "mixed", "--batch", "8", "--run", "mixed"]].concat();
    let said = fails(dir, 4, &[&mixed[..], &["--without", "f16"]].concat());
    assert!(said.contains("--precision f32") && !dir.join("mixed").exists(), "{said}");

    // A tensor larger than a binding, or more memory than there may be: the batch that is named fits, and no larger one.
    let memory = |mib: &str| ["--memory-limit".to_owned(), mib.to_owned()];
    let binding = ["--limit".to_owned(), "binding=4MiB".to_owned()];
    let in_one_piece = "MiB in one piece, and this device binds at most 4.0 MiB";
    // The first phase, whose backbone is only evaluated, would do with less than the second.
    let phases = ["--phase", "head:1:1e-3", "--phase", "all:1:1e-3"];
    for (name, limit, flags, why) in [
        ("binding", &binding, &once[..], in_one_piece),
        ("frozen", &binding, &["--train", "head", "--epochs", "1"], in_one_piece),
        ("memory", &memory("200"), &once, "there are 200 MiB"),
        ("phases", &memory("200"), &phases, "there are 200 MiB"),
    ] {
        let of = |batch: usize, run: &str| -> Vec<String> {
            let args = train.iter().chain(flags).map(|arg| (*arg).to_owned()).chain(limit.clone());
            args.chain(["--batch".into(), batch.to_string(), "--run".into(), run.into()]).collect()
        };
        fn run(args: &[String]) -> Vec<&str> {
            args.iter().map(String::as_str).collect()
        }
        let said = fails(dir, 5, &run(&of(200, name)));
        assert!(said.contains(why) && !dir.join(name).exists(), "{said}");
        let fits = said.split("the largest batch that fits is ").nth(1).expect("a batch that fits");
        let fits: usize = fits.split(':').next().unwrap().parse().unwrap();
        println!("{name}: batches of up to {fits} fit");
        assert!((1..200).contains(&fits), "{said}");
        // Copies in textures take memory, and a software driver that is busy with other things may be measured to be better
        // without them or with them, from one start to the next.
        let args = of(fits, &format!("{name}-fits"));
        assert!((0..3).any(|_| program(dir, &run(&args)).status.success()), "{name}: {fits} do not fit");
        let said = fails(dir, 5, &run(&of(fits + fits.div_ceil(2), name)));
        assert!(said.contains("the largest batch that fits is"), "{said}");
        if limit == &binding {
            fails(dir, 5, &run(&of(fits + 1, name)));
        }
    }

    // More elements than indices reach: it is no matter of the device, and of the batch all the same.
    let said = fails(dir, 4, &["bench", "--model", "simple-cnn", "--size", "256", "--batch", "4096"]);
    assert!(said.contains("has more elements than 32-bit indices reach"), "{said}");
    assert!(said.contains("the largest batch that fits is"), "{said}");

    // Limits that cannot be had.
    let most = gpu.caps().max_binding;
    for (limit, code, why) in [
        (format!("binding={}", most + 1), 4, most.to_string()),
        ("storage-buffers=2".to_owned(), 2, "the smallest is 8".to_owned()),
        ("binding=many".to_owned(), 2, "no number".to_owned()),
        ("shaders=1".to_owned(), 2, "known: baseline, storage-buffers".to_owned()),
    ] {
        let said = fails(dir, code, &["doctor", "relu", "--limit", &limit]);
        assert!(said.contains(&why), "{limit}: {said}");
    }
}

/// Where the operating system has no more memory for a process, its software driver refuses to allocate.
#[cfg(target_os = "linux")]
#[test]
fn a_driver_that_refuses_memory_is_believed() {
    let Some(gpu) = common::gpu() else { return };
    if gpu.adapter().class != lesion_gpu::gpu::DeviceClass::Software {
        println!("skipped: the memory of {} is not the process's", gpu.adapter().name);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    // KiB of address space: the program takes half of it, and the training would take nearly a GiB.
    let script = format!(
        "ulimit -v 1500000; exec {} train --data synthetic:40 --model unet-small --size 256 --batch 8 --epochs 1 --no-report \
         --no-cache --no-self-test --memory-limit 1000000 --run run",
        env!("CARGO_BIN_EXE_lesion-gpu")
    );
    let settings = common::command(dir, &[]);
    let output = std::process::Command::new("sh")
        .args(["-c", &script])
        .current_dir(dir)
        .envs(settings.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))))
        .output()
        .unwrap();
    let said = common::text(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("which the device refused") && said.contains("the largest batch that fits is"), "{said}");
    assert!(!dir.join("run").exists());
}
