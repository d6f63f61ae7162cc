//! Drivers that fail: a device that is lost or has no memory in the middle of the work, shaders that do not build, kernels
//! that compute something else. `--fault` makes each happen at a place of the test's choosing.

mod common;
#[path = "common/training.rs"]
mod training;

use std::path::Path;
use std::time::Instant;

use common::{fails, number, ok, program, text};
use lesion_gpu::gpu::{Fault, GpuOptions, SelfTest};
use lesion_gpu::models::Model;
use lesion_gpu::ops::{Draw, Tested, self_test};
use lesion_gpu::train::{Checkpoint, EvalGraph, TrainConfig, TrainGraph};
use training::{TRAIN, assert_equal, table};

/// The device is lost, or is so for want of memory: how `--fault` calls it, the exit code, and what is said.
const FAULTS: [(&str, i32, &str); 2] =
    [("lost", 6, "the device was lost"), ("out-of-memory", 5, "the device is out of memory")];

/// Runs a command with a fault at a submission. `None` if it ends well before; else what it says of the fault.
fn struck(dir: &Path, args: &[&str], (name, code, said): (&str, i32, &str), at: u64) -> Option<String> {
    let fault = format!("{name}@{at}");
    // Of an attempt before: what `explain` drew is not overwritten.
    let _ = std::fs::remove_dir_all(dir.join("maps"));
    let output = program(dir, &[args, &["--fault", &fault]].concat());
    if output.status.success() {
        return None;
    }
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?} {fault}: {stderr}");
    assert!(stderr.contains(said) && !stderr.contains("panicked"), "{args:?} {fault}: {stderr}");
    assert!(stderr.contains("where:") && stderr.contains("next:"), "{args:?} {fault}: {stderr}");
    Some(stderr)
}

/// Some submission after which a command would have ended well: a power of two. Each before it is struck on the way.
fn end(dir: &Path, args: &[&str]) -> u64 {
    let ends = (0..20).map(|power| 1 << power).find(|&at| struck(dir, args, FAULTS[0], at).is_none());
    ends.expect("the command ends within a million submissions")
}

#[test]
fn a_run_whose_device_fails_keeps_its_checkpoint_and_ends_as_if_it_had_not() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let train = [TRAIN, &["--epochs", "2"]].concat();
    ok(dir, &[&train[..], &["--run", "whole"]].concat());
    // With a checkpoint a step much of the work is reading them back, else it is steps.
    let (mut places, least) = (Draw::new(number("LESION_SEED", 1) as u32, "faults"), number("LESION_FAULTS", 12));
    let (mut tried, mut resumed) = (0, 0);
    for i in 0.. {
        // However few are asked for, some must have come to a checkpoint.
        if tried >= least && resumed > 1 {
            break;
        }
        assert!(tried < least + 30, "hardly a run had begun when its device failed: {resumed} of {tried}");
        let (fault, every) = (FAULTS[i % 2], ["0", "600"][i / 2 % 2]);
        let run = format!("{}-{i}", fault.0);
        // Early ones as often as late ones.
        let scale = 1 << (3 + places.below(8));
        let at = (scale + places.below(scale)) as u64;
        let args = [&train[..], &["--checkpoint-every", every, "--run", &run]].concat();
        let Some(said) = struck(dir, &args, fault, at) else { continue };
        tried += 1;
        let last = dir.join(&run).join("weights/last.safetensors");
        if !last.exists() {
            assert!(!said.contains("--resume"), "there is nothing to be resumed: {said}");
            continue;
        }
        resumed += 1;
        Checkpoint::read(&last).unwrap();
        assert!(said.contains(&format!("`lesion-gpu train --resume {run}`")), "{said}");
        ok(dir, &["train", "--resume", &run, "--no-report"]);
        assert_equal(&dir.join("whole"), &dir.join(&run));
    }
    println!("{tried} faults at random submissions, {resumed} of them with a checkpoint to go on from");
}

/// There is nothing to go on from, and nothing to lose in its folder.
#[test]
fn a_run_that_never_came_to_a_checkpoint_is_begun_again_in_its_folder() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let train = [TRAIN, &["--epochs", "1"]].concat();
    ok(dir, &[&train[..], &["--run", "whole"]].concat());
    let again = [&train[..], &["--run", "struck"]].concat();
    let run = dir.join("struck");
    for at in 1.. {
        struck(dir, &again, FAULTS[0], at).expect("the folder is made before the run has ended");
        if run.exists() {
            break;
        }
    }
    assert!(!run.join("weights/last.safetensors").exists(), "the first checkpoint needs the device once more");
    let said = fails(dir, 10, &["train", "--resume", "struck"]);
    assert!(said.contains("before its first checkpoint") && said.contains("--run may name this folder"), "{said}");
    // Whatever is not the run's own is not touched.
    std::fs::write(run.join("notes.txt"), "mine").unwrap();
    assert!(fails(dir, 10, &again).contains("runs are never overwritten"));
    std::fs::remove_file(run.join("notes.txt")).unwrap();
    std::fs::write(run.join("skipped.csv"), "fault,place,what\n").unwrap();
    ok(dir, &again);
    assert_equal(&dir.join("whole"), &run);
    assert!(!run.join("skipped.csv").exists(), "no picture was left out");
    assert!(fails(dir, 10, &again).contains("runs are never overwritten"));
}

#[test]
fn every_command_says_that_its_device_is_lost() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    ok(dir, &[TRAIN, &["--epochs", "1", "--run", "run"]].concat());
    let pictures = ["p0.png", "p1.png", "p2.png", "p3.png", "p4.png", "p5.png"];
    for (i, name) in pictures.iter().enumerate() {
        let pixel = |x, y| image::Rgb([(x * 6) as u8, (y * 6) as u8, 40 * i as u8]);
        image::RgbImage::from_fn(40, 40, pixel).save(dir.join(name)).unwrap();
    }
    for (command, flags) in [
        ("eval", &["--batch", "2"][..]),
        ("predict", &["--batch", "2"]),
        ("explain", &["--batch", "2", "--out", "maps"]),
    ] {
        let pictures = if command == "eval" { &[][..] } else { &pictures[..] };
        let args = [&[command, "run"], pictures, flags].concat();
        let submissions = end(dir, &args);
        println!("{command}: lost at submissions 1 to {}", submissions / 2);
        assert!(submissions >= 4, "{command} submits hardly anything");
        assert!(struck(dir, &args, FAULTS[1], 2).is_some());
    }
    // The test of kernels before their first use, the trial of the memory, tuning.
    std::fs::remove_dir_all(dir.join("cache")).unwrap();
    // Its own, so that nothing has passed.
    std::fs::create_dir_all(dir.join("cache/lesion-gpu/kernels")).unwrap();
    for (what, args) in [("self-test", &["eval", "run"][..]), ("doctor", &["doctor", "relu"])] {
        assert!(struck(dir, args, FAULTS[0], 1).is_some(), "{what}");
    }
    let tune = ["tune", "--model", "simple-cnn", "--size", "24", "--batch", "2", "--budget", "30"];
    for at in [1, 2, 6] {
        assert!(struck(dir, &tune, FAULTS[0], at).is_some(), "tune at {at}");
    }
}

/// A shader file of the small training, an edit of it, and the entry point that the edit is in.
const WRONG: [(&str, &str, &str); 4] = [
    ("adam.wgsl", "w -= step => w += step", "adam:update"),
    ("softmax_cross_entropy.wgsl", "exp( => exp(0.5 * ", "softmax_cross_entropy:"),
    ("max_pool.wgsl", "v > best.value => v < best.value", "max_pool:"),
    ("augment.wgsl", "/ 255.0 => / 256.0", "augment:"),
];

fn fault((file, edit, _): (&str, &str, &str)) -> String {
    let (from, to) = edit.split_once(" => ").unwrap();
    let source = std::fs::read_to_string(Path::new("shaders").join(file)).unwrap();
    assert!(source.contains(from), "{file} does not say '{from}'");
    format!("{file}:{from}=>{to}")
}

#[test]
fn a_driver_that_computes_a_kernel_wrongly_is_refused() {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    // Without tuning, which chooses among kernels as far as its time goes: the same are used each time.
    let train = [TRAIN, &["--epochs", "1", "--no-tune"]].concat();
    // Its own, and not what all tests share.
    let kernels = dir.join("cache/lesion-gpu/kernels");
    std::fs::create_dir_all(&kernels).unwrap();
    for (i, wrong) in WRONG.into_iter().enumerate() {
        let (fault, run) = (fault(wrong), format!("run-{i}"));
        let said = fails(dir, 13, &[&train[..], &["--run", &run, "--fault", &fault]].concat());
        let adapter = gpu.adapter();
        let (first, _) = said.split_once("; less likely").unwrap_or((&said, ""));
        assert!(first.contains(wrong.2), "'{}' is not what it says first: {said}", wrong.2);
        for part in ["computes a kernel wrongly", &adapter.name, &adapter.driver, "doctor"] {
            assert!(said.contains(part), "no '{part}': {said}");
        }
        assert!(!dir.join(run).exists(), "a run has begun");
    }
    // It is the test that sees it, and what failed is not remembered as right.
    let fault = fault(WRONG[0]);
    ok(dir, &[&train[..], &["--run", "trusting", "--no-self-test", "--fault", &fault]].concat());
    fails(dir, 13, &["doctor", "adam", "--fault", &fault]);
    ok(dir, &[&train[..], &["--run", "right"]].concat());
    assert_ne!(table(&dir.join("trusting"), "steps.csv"), table(&dir.join("right"), "steps.csv"));
    // What has passed is not tested again: a driver that has changed has another version, and so another list.
    let lists: Vec<_> = std::fs::read_dir(&kernels).unwrap().map(|e| e.unwrap().path()).collect();
    let list = std::fs::read_to_string(&lists[0]).unwrap();
    assert!(lists.len() == 1 && list.lines().count() > 10 && list.lines().all(|line| line.len() == 64), "{list}");
    let written = || std::fs::metadata(&lists[0]).unwrap().modified().unwrap();
    // Whether kernels read from textures is measured at each start, so one may use others; then all have passed.
    let changes = |run: &str| {
        let before = written();
        ok(dir, &[&train[..], &["--run", run]].concat());
        written() != before
    };
    assert!(!["again", "once more", "a last time"].into_iter().all(changes), "kernels are tested each time");
    // Nor is it taken for what shaders do that read otherwise.
    fails(dir, 13, &[&train[..], &["--run", "wrong", "--fault", &fault]].concat());
    // A list that is damaged, or that cannot be written, costs a test.
    std::fs::write(&lists[0], b"\xff\x00nonsense").unwrap();
    ok(dir, &["eval", "right"]);
    let list = std::fs::read_to_string(&lists[0]).unwrap();
    assert!(!list.is_empty() && list.lines().all(|line| line.len() == 64), "{list}");
    std::fs::remove_dir_all(&kernels).unwrap();
    std::fs::write(&kernels, b"a file, and no folder").unwrap();
    ok(dir, &["eval", "right"]);
}

/// Batch-norm whose variance would be that of a sample, also where it reads 16-bit floats, its gradient, and a convolution, by
/// whichever kernel the driver has it.
#[test]
fn a_driver_that_computes_norms_or_convolutions_wrongly_is_refused() {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    std::fs::create_dir_all(dir.join("cache/lesion-gpu/kernels")).unwrap();
    let train = |(file, edit): (&str, &str), precision| {
        let fault = fault((file, edit, ""));
        let args =
            ["--model", "unet-small", "--size", "32", "--batch", "4", "--steps", "1", "--no-tune", "--no-report"];
        let args = [
            &["train", "--data", "synthetic:20", "--run", file, "--precision", precision, "--fault", &fault],
            &args[..],
        ];
        let output = program(dir, &args.concat());
        let said = text(&output.stderr);
        match output.status.code() {
            Some(13) => Some(said),
            Some(0) => None,
            _ => panic!("{said}"),
        }
    };
    let half = if gpu.caps().f16 { "mixed" } else { "f32" };
    let said = train(("batch_norm_merge.wgsl", "m.m2 / m.count + => m.m2 / (m.count - 1.0) + "), half);
    assert!(said.expect("it is refused").contains("batch_norm"));
    let said = train(("batch_norm_grad.wgsl", "plain += d => plain += 1.01 * d"), "f32");
    assert!(said.expect("it is refused").contains("batch_norm_grad:sums"));
    let convolutions = [
        ("conv2d_grad_weight.wgsl", "o * p.stride_h + tap_h[j] => o * p.stride_h + tap_w[j]"),
        ("conv2d_tile_forward.wgsl", "sums[i][j] + load_bias => 1.01 * sums[i][j] + load_bias"),
    ];
    let said = convolutions.into_iter().find_map(|wrong| train(wrong, "f32"));
    assert!(said.expect("it is refused").contains("conv2d"));
}

/// Every kernel of every kind of model is tested by some case, and once.
#[test]
fn the_self_test_reaches_the_kernels_of_all_models() {
    let Some(gpu) = common::gpu_with(GpuOptions { self_test: SelfTest::On(None), ..GpuOptions::default() }) else {
        return;
    };
    for (name, size) in
        [("simple-cnn", 32), ("unet-small", 32), ("resnet18", 32), ("efficientnet-b0", 32), ("vit-small-16", 32)]
    {
        let model = Model::find(name).unwrap();
        let config = TrainConfig { size: size.into(), ..TrainConfig::of(model) };
        let train = TrainGraph::new(model, &config, 4, model.outputs(7), gpu.caps()).unwrap();
        let eval = EvalGraph::new(model, &config, 4, model.outputs(7), gpu.caps()).unwrap();
        let started = Instant::now();
        let tested = self_test(&gpu, &[&train.plan, &eval.plan]).unwrap();
        println!("{name}: {tested:?} in {:.2} s", started.elapsed().as_secs_f64());
        assert_eq!(tested.by_none, 0, "{name}");
        assert!(tested.by_another < tested.kernels || tested.kernels == 0, "{name}: {tested:?}");
        assert_eq!(self_test(&gpu, &[&train.plan, &eval.plan]).unwrap(), Tested::default());
    }
    // Who asks for none has none.
    let trusting = common::gpu().unwrap();
    let model = Model::find("simple-cnn").unwrap();
    let train = TrainGraph::new(model, &TrainConfig::of(model), 4, 7, trusting.caps()).unwrap();
    assert_eq!(self_test(&trusting, &[&train.plan]).unwrap(), Tested::default());
}

#[test]
fn a_shader_that_does_not_build_is_named() {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let train = [TRAIN, &["--epochs", "1", "--run", "run"]].concat();
    // One that is no WGSL, and one that lacks what the pipeline asks for.
    for edit in ["parameter[i] = w=>parameter[i] = = w", "fn update(=>fn date("] {
        for trust in [&[][..], &["--no-self-test"]] {
            let said = fails(dir, 7, &[&train[..], trust, &["--fault", &format!("adam.wgsl:{edit}")]].concat());
            let place = format!("shaders/adam.wgsl on {}", gpu.adapter().name);
            assert!(said.contains("did not build on this driver") && said.contains(&place), "{said}");
            assert!(!dir.join("run").exists(), "a run has begun");
        }
    }
}

/// Kernels are tuned by trying: one that is broken or wrong loses, and the rest goes on.
#[test]
fn tuning_rejects_what_is_broken_or_wrong() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let tune = ["tune", "--model", "simple-cnn", "--size", "24", "--batch", "2", "--budget", "30"];
    for (edit, why) in [
        ("fn forward(=>fn backward(", "a shader did not build"),
        ("sums[i][j] + load_bias=>1.01 * sums[i][j] + load_bias", "it differs"),
    ] {
        let said = ok(dir, &[&tune[..], &["--fault", &format!("conv2d_tile_forward.wgsl:{edit}")]].concat());
        let rejected: Vec<&str> = said.lines().filter(|line| line.starts_with("rejected")).collect();
        assert!(!rejected.is_empty() && rejected.iter().all(|line| line.contains(" for conv2d.forward ")), "{said}");
        assert!(rejected.iter().any(|line| line.contains(why)), "{said}");
        assert!(said.contains("kept in"), "{said}");
    }
    // With what was kept, a training takes a kernel that was right.
    ok(dir, &[TRAIN, &["--epochs", "1", "--run", "run"]].concat());
}

/// Cooperative matrices are compared with plain convolutions whenever a device is opened.
#[test]
fn wrong_cooperative_matrices_are_refused() {
    const PRODUCT: &str = "coopMultiplyAdd(a, b[j], sums[i][j])";
    let wrong = || Fault::Shader { file: "conv2d_coop.wgsl".into(), from: PRODUCT.into(), to: "sums[i][j]".into() };
    let Some(gpu) = common::gpu() else { return };
    if gpu.adapter().matrices.is_none() {
        println!("skipped: {} has no cooperative matrices", gpu.adapter().name);
        return;
    }
    assert!(gpu.caps().matrices.is_some(), "they are refused though nothing is wrong");
    let faulty = common::gpu_with(GpuOptions { fault: Some(wrong()), ..GpuOptions::default() }).unwrap();
    assert!(faulty.adapter().matrices.is_some() && faulty.caps().matrices.is_none());
}
