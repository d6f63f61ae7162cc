//! Memory over thousands of steps and over many runs. On a software driver what is on the device is in the process too.

mod common;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use common::{command, gpu_with, number, text};
use lesion_gpu::gpu::{Gpu, GpuOptions};
use lesion_gpu::train::{Event, Interrupt, RunOptions, TrainConfig, run};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// What may come and go, in MiB: the allocator's habits, not what grows with the work.
const SLACK: u64 = 12;
/// What an allocator keeps of what runs have freed, in MiB: glibc's little, since it is told so.
const KEPT: u64 = if cfg!(all(target_os = "linux", target_env = "gnu")) { 2 * SLACK } else { 300 };

/// Memory that a process has in use, in MiB.
fn resident(process: u32) -> u64 {
    let pid = Pid::from_u32(process);
    let mut system = System::new();
    system.refresh_processes_specifics(
        ProcessesToUpdate::Some(&[pid]),
        true,
        ProcessRefreshKind::nothing().with_memory(),
    );
    system.process(pid).map_or(0, |process| process.memory() >> 20)
}

/// Threads and open files of this process, where the system lists them, once they are no more than `before`; a thread that was
/// told to end gets a few seconds.
fn held(before: Option<[usize; 2]>) -> Option<[usize; 2]> {
    let count = |folder: &str| std::fs::read_dir(folder).map(Iterator::count);
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let now = [count("/proc/self/task").ok()?, count("/proc/self/fd").ok()?];
        let more = before.is_some_and(|before| now[0] > before[0] || now[1] > before[1]);
        if !more || Instant::now() > deadline {
            return Some(now);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a test of this file in a process of its own, and there returns `true`. glibc keeps hundreds of MiB of what is freed, now more
/// and now less, unless it is told before a process begins what to give back at once.
fn in_a_process_that_gives_back(test: &str) -> bool {
    if std::env::var_os("LESION_GIVES_BACK").is_some() {
        return true;
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", test, "--nocapture"]).env("LESION_GIVES_BACK", "1");
    let output = again.envs([("MALLOC_MMAP_THRESHOLD_", "65536"), ("MALLOC_TRIM_THRESHOLD_", "0")]).output().unwrap();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    println!("{said}");
    false
}

/// Tests of one process run side by side, and the other's threads and files are not this one's.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn thousands_of_steps_take_the_memory_of_the_first_ones() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let steps = number("LESION_STEPS", 1_500).max(100);
    let count = steps.to_string();
    let args = [
        "train",
        "--data",
        "synthetic:100",
        "--model",
        "simple-cnn",
        "--size",
        "24",
        "--batch",
        "8",
        "--epochs",
        "1000000",
        "--steps",
        &count,
        "--rotation",
        "30",
        "--keep-best",
        "2",
        "--tensorboard",
        "--no-report",
        "--json",
    ];
    let mut child = command(folder.path(), &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut done, mut seen) = (0, vec![]);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        done += u64::from(line.unwrap().contains(r#""event":"step""#));
        if done > 0 && done.is_multiple_of(steps / 20) && done / (steps / 20) > seen.len() as u64 {
            seen.push(resident(child.id()));
        }
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!((done, seen.len()), (steps, 20));
    println!("{steps} steps: {seen:?} MiB");
    let (first, last) = (seen[1], *seen[2..].iter().max().unwrap());
    assert!(first > 0 && last <= first + SLACK, "from {first} to {last} MiB: {seen:?}");
}

/// Memory of the process does not show what a graphics card holds.
#[test]
fn steps_leave_no_object_on_the_device() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let steps = number("LESION_STEPS", 300).max(100);
    let config = TrainConfig {
        model: "simple-cnn".into(),
        data: "synthetic:100".into(),
        size: 24.into(),
        batch: 8,
        epochs: 1_000_000,
        max_steps: Some(steps),
        ..TrainConfig::default()
    };
    let options = RunOptions { run: Some(folder.path().join("run")), no_cache: true, workers: 2, ..Default::default() };
    let mut seen = vec![];
    let mut see = |event: Event<'_>| match event {
        Event::Step { step, .. } if step.is_multiple_of(steps / 20) => seen.push(gpu.objects()),
        _ => {}
    };
    run(&gpu, &config, &options, &Interrupt::default(), &mut see).unwrap();
    println!("{steps} steps: objects {seen:?}");
    assert!(seen.len() >= 20 && seen[0] > Some(20) && seen.iter().all(|&now| now == seen[0]), "{seen:?}");
}

#[test]
fn runs_and_devices_leave_nothing_behind_in_their_process() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if common::gpu().is_none()
        || !in_a_process_that_gives_back("runs_and_devices_leave_nothing_behind_in_their_process")
    {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig {
        model: "resnet18".into(),
        data: "synthetic:60".into(),
        size: 32.into(),
        batch: 8,
        epochs: 1,
        max_steps: Some(3),
        ..TrainConfig::default()
    };
    let runs = number("LESION_RUNS", 5).max(3);
    let (mut resident_after, mut objects_after, mut held_after) = (vec![], vec![], vec![]);
    let one = |gpu: &Gpu, name: String| {
        let path = folder.path().join(name);
        let options = RunOptions { run: Some(path.clone()), no_cache: true, workers: 2, ..RunOptions::default() };
        let mut during = None;
        run(gpu, &config, &options, &Interrupt::default(), &mut |_| during = during.max(gpu.objects())).unwrap();
        assert!(during > Some(100), "the device counts its objects: {during:?}");
        std::fs::remove_dir_all(path).unwrap();
        gpu.poll().unwrap();
    };
    // Many runs on a device.
    let gpu = gpu_with(GpuOptions::default()).unwrap();
    let before = gpu.objects();
    for number in 0..runs {
        one(&gpu, format!("run-{number}"));
        objects_after.push(gpu.objects());
        resident_after.push(resident(std::process::id()));
        held_after.push(held(held_after.get(1).copied().flatten()));
    }
    drop(gpu);
    // A run on each of many devices.
    for number in 0..runs {
        one(&gpu_with(GpuOptions::default()).unwrap(), format!("device-{number}"));
        resident_after.push(resident(std::process::id()));
        held_after.push(held(held_after.get(runs as usize + 1).copied().flatten()));
    }
    println!("{runs} runs, then {runs} devices: {resident_after:?} MiB; objects: {before:?}, then {objects_after:?}");
    println!("threads and open files after each: {held_after:?}");
    assert!(
        before.is_some() && objects_after.iter().all(|&after| after == before),
        "{before:?}, then {objects_after:?}"
    );
    // Drivers start their threads with the first device, pools with the first run; behind the second nothing comes on top.
    assert!(cfg!(not(target_os = "linux")) || held_after[0].is_some());
    for of_one_kind in held_after.chunks(runs as usize) {
        let first = of_one_kind[1].unwrap_or_default();
        for after in of_one_kind[2..].iter().map(|after| after.unwrap_or_default()) {
            assert!(after[0] <= first[0] && after[1] <= first[1], "threads and open files: {held_after:?}");
        }
    }
    // What each run leaves behind adds up, so the more runs, the less of it shows: then the last ones hold the most.
    let (first, later) = resident_after.split_at(2);
    let (first, last) = (first.iter().max().unwrap(), later[later.len() - 3..].iter().min().unwrap());
    assert!(*first > 0 && *last <= first + KEPT, "{resident_after:?}");
}
