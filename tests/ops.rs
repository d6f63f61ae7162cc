//! Every op's case list: CPU twins against finite differences, and kernels against CPU twins on this machine's adapter.

mod common;

use lesion_gpu::gpu::{Gpu, GpuOptions};
use lesion_gpu::ops::{all_cases, check_case, finite_differences};

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
    for case in all_cases() {
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
