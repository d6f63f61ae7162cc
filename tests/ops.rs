//! Every op's case list: CPU twins against finite differences, and kernels against CPU twins on this machine's adapter.

mod common;

use lesion_gpu::Kind;
use lesion_gpu::autograd::{Plan, Tape};
use lesion_gpu::gpu::{Caps, Gpu, GpuOptions, TextureLoads};
use lesion_gpu::ops::{Case, all_cases, check_case_as, finite_differences, scale};
use lesion_gpu::tensor::TensorType;

#[test]
fn twins_agree_with_finite_differences() {
    let mut checked = 0;
    for case in all_cases().iter().filter(|c| c.smooth) {
        let error = finite_differences(case, 1);
        assert!(error < 1e-5, "{}: relative error {error:.2e}", case.label());
        checked += 1;
    }
    assert!(checked > 0);
}

/// Without checks in the shaders, but with guards around all tensors: a kernel that reads or writes behind one is found.
#[test]
fn kernels_agree_with_twins() {
    let Some(gpu) = common::gpu_with(GpuOptions { guards: true, ..GpuOptions::default() }) else { return };
    compare(&gpu, &Caps { textures: TextureLoads::MuchFaster, ..gpu.caps().clone() });
}

/// Once more with the driver-independent bounds and loop checks, which turn an access out of range into a wrong number.
#[test]
fn kernels_agree_with_twins_under_runtime_checks() {
    let Some(gpu) = common::gpu_with(GpuOptions { checked: true, ..GpuOptions::default() }) else { return };
    compare(&gpu, gpu.caps());
}

/// Shapes of convolutions that between them reach every way in which 16-bit values are loaded and stored.
const HALF_SHAPES: [&str; 10] = [
    "3x3 more than one tile",
    "more than one tile, odd channels, stride",
    "stem",
    "two channels, uneven padding",
    "lanes of eight columns",
    "linear 33 to 7",
    "long reduction",
    "two groups",
    "depthwise in fours, more than a workgroup",
    "fused",
];

/// A driver in software compiles a kernel in half a second, and each shape has its own: in 16 bits these are fewer here.
/// `lesion-gpu doctor` leaves none out.
fn worth_compiling(case: &Case, matrices: bool) -> bool {
    let label = case.label();
    let Some(shape) = label.strip_prefix("conv2d/") else { return true };
    // Without matrices the tiles of them are all the same other kernel, so one will do: the only one that loads nothing ahead.
    if !matrices && shape.contains(" ahead") {
        return false;
    }
    !case.needs_half()
        || shape.starts_with("normed")
        || matrices && shape.contains(" matrices")
        || HALF_SHAPES.iter().any(|s| shape.starts_with(s))
}

/// Whether a case may be computed from copies in textures only where these are much faster than buffers, so that most
/// drivers would never show whether it is right.
fn seldom_from_textures(case: &Case) -> bool {
    let large = case.inputs.iter().any(|input| input.ty.shape.len() >= 1 << 14);
    large && ["adam", "add", "batch_norm", "max_pool", "relu", "sgd"].contains(&case.op)
        || case.label().starts_with("conv2d/depthwise")
}

/// Every case with the kernels for the device, and where `copying` differs from it some once more with those for that.
fn compare(gpu: &Gpu, copying: &Caps) {
    let mut failures = vec![];
    let cases = all_cases().into_iter().filter(|c| worth_compiling(c, gpu.caps().matrices.is_some()));
    let (cases, skipped): (Vec<_>, Vec<_>) = cases.partition(|c| gpu.caps().f16 || !c.needs_half());
    if !skipped.is_empty() {
        println!("skipped: {} cases need 16-bit floats, which {} lacks", skipped.len(), gpu.adapter().name);
    }
    let again = cases.iter().filter(|case| gpu.caps() != copying && seldom_from_textures(case));
    let again: Vec<(&Case, &Caps)> = again.map(|case| (case, copying)).collect();
    assert!(gpu.caps() == copying || again.len() > 10, "{} cases from textures", again.len());
    println!("{} cases, {} of them once more from textures", cases.len(), again.len());
    for (case, caps) in cases.iter().map(|case| (case, gpu.caps())).chain(again) {
        let checked = check_case_as(gpu, caps, case, 1).and_then(|report| gpu.check_guards().map(|_| report));
        match checked {
            Err(e) => failures.push(format!("{}: {e}", case.label())),
            Ok(report) => {
                for m in report.measured.iter().filter(|m| m.error.is_nan() || m.error > m.limit) {
                    failures.push(format!("{}: {}: {:.2e} > {:.2e}", case.label(), m.what, m.error, m.limit));
                }
                assert!(!report.measured.is_empty(), "{} compared nothing", case.label());
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// A tensor that a weak device cannot bind in one piece is refused when the graph is planned, never cut.
#[test]
fn tensors_beyond_a_binding_are_refused() {
    let caps = Caps::baseline();
    let plan = |height: usize| {
        let mut tape = Tape::new();
        let x = tape.input("x", TensorType::f32([1, height, 1024, 32]));
        let y = scale::scale(&mut tape, x, 2.0)?;
        let z = scale::scale(&mut tape, y, 0.5)?;
        Plan::new(&tape, &[z], &caps)
    };
    // 128 MiB exactly, and one row more.
    assert!(plan(1024).is_ok());
    let error = plan(1025).unwrap_err();
    assert_eq!(error.kind(), Kind::OutOfMemory);
    assert!(error.to_string().contains("128.0 MiB"), "{error}");
}
