//! What the GPU tests share.

use std::path::Path;
use std::process::{Command, Output};

use lesion_gpu::gpu::{Gpu, GpuOptions};
use lesion_gpu::ops::conv2d::prove;

/// The adapter to test on, chosen by `LESION_GPU_ADAPTER` or the default. Without any adapter the tests that need one
/// pass without running, unless `LESION_GPU_REQUIRE=1` makes that a failure.
#[allow(dead_code, reason = "not every test file uses every helper")]
pub fn gpu() -> Option<Gpu> {
    gpu_with(GpuOptions::default())
}

/// [`gpu`] with other options.
pub fn gpu_with(options: GpuOptions) -> Option<Gpu> {
    let adapter = std::env::var("LESION_GPU_ADAPTER").ok().or(options.adapter.clone());
    match Gpu::open(&GpuOptions { adapter, checked: options.checked || checked(), ..options }) {
        Ok(mut gpu) => {
            if let Some(note) = prove(&mut gpu).expect("the device survives") {
                println!("{note}");
            }
            Some(gpu)
        }
        Err(e) if std::env::var("LESION_GPU_REQUIRE").is_ok_and(|v| v == "1") => panic!("a GPU is required: {e}"),
        Err(e) => {
            eprintln!("skipped: {e}");
            None
        }
    }
}

/// Whether shaders are to be built with their checks: LESION_GPU_CHECKED=1.
fn checked() -> bool {
    std::env::var("LESION_GPU_CHECKED").is_ok_and(|v| v == "1")
}

/// A number that a test may be told by the environment.
#[allow(dead_code, reason = "not every test file uses every helper")]
pub fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|e| panic!("{variable}={text} is no number: {e}")),
        Err(_) => default,
    }
}

/// What decides about the hub. Empty is as good as unset.
const HUB: [&str; 10] = [
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN",
    "HF_HUB_OFFLINE",
    "HF_TOKEN",
    "HF_TOKEN_PATH",
    "HUGGINGFACE_HUB_CACHE",
    "TORCH_HOME",
    "TRANSFORMERS_OFFLINE",
];

/// Runs the program in `folder` with its caches there too.
#[allow(dead_code, reason = "not every test file uses every helper")]
pub fn program(folder: &Path, args: &[&str]) -> Output {
    program_with(folder, args, &[])
}

/// The same with environment variables. Those that concern the hub are as if unset unless they are given.
#[allow(dead_code, reason = "not every test file uses every helper")]
pub fn program_with(folder: &Path, args: &[&str], variables: &[(&str, &str)]) -> Output {
    command(folder, args).envs(variables.iter().copied()).output().expect("the program runs")
}

/// The program, ready to run.
#[allow(dead_code, reason = "not every test file uses every helper")]
pub fn command(folder: &Path, args: &[&str]) -> Command {
    let cache = folder.join("cache");
    share_self_tests(&cache);
    let mut command = Command::new(env!("CARGO_BIN_EXE_lesion-gpu"));
    let on_a_device = args.first().is_some_and(|name| ["train", "eval", "predict", "explain"].contains(name));
    if on_a_device && checked() {
        command.args([args[0], "--checked"]).args(&args[1..]);
    } else {
        command.args(args);
    }
    command
        .current_dir(folder)
        .env("XDG_CACHE_HOME", &cache)
        .env("HOME", folder)
        .env("LOCALAPPDATA", &cache)
        .envs(HUB.map(|name| (name, "")));
    // What Mesa's drivers have compiled is shared with all tests, else most of their time goes into compiling it again.
    if let (None, Some(cache)) = (std::env::var_os(MESA_CACHE), dirs::cache_dir()) {
        command.env(MESA_CACHE, cache);
    }
    command
}

/// Where Mesa's drivers keep compiled shaders, in a folder of their own.
const MESA_CACHE: &str = "MESA_SHADER_CACHE_DIR";

/// Which kernels have passed their self-test is known to all tests: else each program would test them again.
fn share_self_tests(cache: &Path) {
    #[cfg(unix)]
    {
        let (own, shared) = (cache.join("lesion-gpu"), Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernels"));
        std::fs::create_dir_all(&own).and_then(|()| std::fs::create_dir_all(&shared)).expect("folders for tests");
        // It is there where the folder runs a second program.
        let _ = std::os::unix::fs::symlink(shared, own.join("kernels"));
    }
    #[cfg(not(unix))]
    let _ = cache;
}

/// Text that a program printed.
#[allow(dead_code, reason = "not every test file uses every helper")]
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs and expects success; returns standard output.
#[allow(dead_code, reason = "not every test file uses every helper")]
pub fn ok(folder: &Path, args: &[&str]) -> String {
    let output = program(folder, args);
    assert!(output.status.success(), "{args:?}: {}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Runs and expects an exit code; returns standard error.
#[allow(dead_code, reason = "not every test file uses every helper")]
pub fn fails(folder: &Path, code: i32, args: &[&str]) -> String {
    let output = program(folder, args);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    stderr
}
