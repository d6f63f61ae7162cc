//! Every op's case list: CPU twins against finite differences, and kernels against CPU twins on this machine's adapter.

mod common;

use lesion_gpu::Kind;
use lesion_gpu::autograd::{Plan, Tape};
use lesion_gpu::gpu::{Caps, Gpu, GpuOptions};
use lesion_gpu::ops::{all_cases, check_case, finite_differences, scale};
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

#[test]
fn kernels_agree_with_twins() {
    let Some(gpu) = common::gpu() else { return };
    compare(&gpu);
}

/// Once more with the driver-independent bounds and loop checks, which turn an access out of range into a wrong number.
#[test]
fn kernels_agree_with_twins_under_runtime_checks() {
    let Some(gpu) = common::gpu_with(GpuOptions { checked: true, ..GpuOptions::default() }) else { return };
    compare(&gpu);
}

fn compare(gpu: &Gpu) {
    let mut failures = vec![];
    let (cases, skipped): (Vec<_>, Vec<_>) = all_cases().into_iter().partition(|c| gpu.caps().f16 || !c.needs_half());
    if !skipped.is_empty() {
        println!("skipped: {} cases need 16-bit floats, which {} lacks", skipped.len(), gpu.adapter().name);
    }
    for case in cases {
        match check_case(gpu, &case, 1) {
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
