//! The benchmark's probes compute what they claim to: a probe whose work a compiler left out would measure nothing.

mod common;

use lesion_gpu::Kind;
use lesion_gpu::bench::{AluProbe, Ceilings, CopyProbe, MatrixProbe};
use lesion_gpu::error::Error;
use lesion_gpu::ops::conv2d::prove;

#[test]
fn multiply_adds_agree_with_the_host() {
    let Some(gpu) = common::gpu() else { return };
    // Just beyond a workgroup; a factor near one, so that every step leaves its mark on the result.
    let x: Vec<f32> = (0..129).map(|i| i as f32 / 64.0 - 1.0).collect();
    let (factor, addend) = (0.996, 0.011);
    for half in [false, true] {
        if half && !gpu.caps().f16 {
            continue;
        }
        for probe in AluProbe::variants(half) {
            let rounds = 3;
            let (y, seconds) = probe.run(&gpu, &x, factor, addend, rounds).unwrap();
            // f16 rounds the factor and every step.
            let tolerance = if half { 0.1 } else { 1e-4 };
            for (i, (got, want)) in y.iter().zip(probe.expected(&x, factor, addend, rounds)).enumerate() {
                let scale = f64::from(4 * probe.vectors);
                assert!((f64::from(*got) - want).abs() <= tolerance * scale, "{probe:?} at {i}: {got} for {want}");
            }
            assert!(seconds > 0.0, "{probe:?}");
            // One round fewer is another result: the tolerance would not hide that a round was left out.
            let fewer = probe.expected(&x, factor, addend, rounds - 1);
            let same = y.iter().zip(&fewer).all(|(y, f)| (f64::from(*y) - f).abs() <= tolerance * 4.0);
            assert!(!same, "{probe:?}");
        }
    }
}

#[test]
fn products_of_matrices_agree_with_the_host() {
    let Some(mut gpu) = common::gpu() else { return };
    prove(&mut gpu).unwrap();
    for probe in MatrixProbe::variants(gpu.caps()) {
        let (sums, seconds) = probe.run(&gpu, 3, 5).unwrap();
        let entries = 3 * 4 * probe.chains * probe.side * probe.side;
        assert_eq!(sums.len(), entries as usize, "{probe:?}");
        assert!(probe.agrees(&sums, 5) && !probe.agrees(&sums, 4) && seconds > 0.0, "{probe:?}");
        assert!(probe.measure(&gpu, &|| Ok(())).unwrap() > 1e6, "{probe:?}");
    }
}

#[test]
fn copies_agree_with_the_host() {
    let Some(gpu) = common::gpu() else { return };
    for each in CopyProbe::EACH {
        // No multiple of a workgroup: every vector is read back.
        let probe = CopyProbe { vectors: 5003, each };
        let (copied, seconds) = probe.run(&gpu, 7, probe.vectors, 1).unwrap();
        assert_eq!(copied, probe.expected(7, probe.vectors), "{probe:?}");
        assert_eq!(copied[4 * 5002 + 3], 20_011_u32.wrapping_mul(2_654_435_761).wrapping_add(7));
        assert!(seconds > 0.0 && seconds.is_finite());
        assert_ne!(copied, probe.expected(8, probe.vectors), "the seed counts");
    }
}

#[test]
fn ceilings_are_positive_and_can_be_interrupted() {
    let Some(gpu) = common::gpu() else { return };
    let ceilings = Ceilings::measure(&gpu, &|| Ok(())).unwrap();
    assert!(ceilings.f32_flops > 1e6 && ceilings.copy_bytes > 1e6, "{ceilings:?}");
    assert_eq!(ceilings.f16_flops.is_some(), gpu.caps().f16);
    // The roof is the slower of the two.
    assert_eq!(ceilings.matrices_flops.is_some(), gpu.caps().matrices.is_some());
    assert_eq!(ceilings.least_seconds(ceilings.f32_flops, false, 0.0), 1.0);
    assert_eq!(ceilings.least_seconds(ceilings.f32_flops, false, 2.0 * ceilings.copy_bytes), 2.0);
    let stop = || Err(Error::new(Kind::Interrupted, "interrupted"));
    assert_eq!(Ceilings::measure(&gpu, &stop).unwrap_err().kind(), Kind::Interrupted);
}
