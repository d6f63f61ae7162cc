//! Every op on random shapes and parameters: kernels against the CPU twin, the twin against finite differences.
//!
//! `LESION_CASES=N` runs N cases an op (default 5), `LESION_SEED=S` others, `LESION_OP=NAME` those of one op.

mod common;

use std::collections::BTreeSet;

use common::number;
use lesion_gpu::autograd::{Tape, Tensor};
use lesion_gpu::gpu::GpuOptions;
use lesion_gpu::ops::{Case, Draw, Role, Subject, all_cases, backward_from, check_case, finite_differences, subjects};

/// Up to `count` random cases of an op; some in f16, where the op takes it, and some with a gradient for one input alone.
fn random_cases(subject: &Subject, count: usize, seed: u32) -> Vec<Case> {
    let mut draw = Draw::new(seed, &format!("random case of {}", subject.op));
    let mut cases: Vec<Case> = vec![];
    // Not every shape goes with every op.
    for _ in 0..100 * count {
        if cases.len() == count {
            break;
        }
        let rank = draw.of(&[1, 2, 2, 3, 4, 4, 4]);
        let shape = draw.shape(rank);
        let Some(mut case) = (subject.random)(&mut draw, &shape) else { continue };
        if case.inputs.iter().map(|input| input.ty.shape.len()).sum::<usize>() > 60_000 {
            continue;
        }
        if cases.len() % 5 == 1 {
            let differentiable = case.inputs.iter_mut().filter(|input| input.role == Role::Differentiable);
            differentiable.skip(1).for_each(|input| input.role = Role::Fixed);
        }
        let half = cases.len() % 4 == 3 && !subject.half.is_empty() && case.op != "fill";
        cases.push(if half { case.in_half(subject.half) } else { case });
    }
    cases
}

/// The names of the operations that a case's tape consists of, its backward pass included.
fn operations(case: &Case) -> BTreeSet<&'static str> {
    let mut tape = Tape::new();
    let inputs: Vec<Tensor> = (case.inputs.iter().enumerate())
        .map(|(i, input)| {
            tape.variable(&format!("input {i}"), input.ty.clone(), input.role == Role::Differentiable).unwrap()
        })
        .collect();
    let outputs = (case.trace)(&mut tape, &inputs).unwrap_or_else(|e| panic!("{}: {e}", case.label()));
    if case.inputs.iter().any(|input| input.role == Role::Differentiable) {
        let seeds: Vec<(Tensor, Tensor)> =
            outputs.iter().map(|&y| (y, tape.input("gradient", tape.ty(y).clone()))).collect();
        backward_from(&mut tape, &seeds).unwrap_or_else(|e| panic!("{}: {e}", case.label()));
    }
    tape.nodes().iter().map(|node| node.op.name()).collect()
}

#[test]
fn random_cases_reach_every_operation() {
    let listed: BTreeSet<&str> = all_cases().iter().flat_map(operations).collect();
    let mut reached = BTreeSet::new();
    for subject in subjects() {
        let cases = random_cases(&subject, 60, 1);
        assert!(cases.len() == 60, "'{}' drew {} cases only", subject.op, cases.len());
        reached.extend(cases.iter().flat_map(operations));
    }
    let missing: Vec<&&str> = listed.difference(&reached).collect();
    assert!(missing.is_empty(), "no random case reaches {missing:?}");
}

#[test]
fn every_folder_of_an_op_is_a_subject() {
    let ops: BTreeSet<String> = subjects().iter().map(|subject| subject.op.to_owned()).collect();
    let folders = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/ops")).unwrap().map(Result::unwrap);
    let folders = folders.filter(|entry| entry.file_type().unwrap().is_dir());
    let folders: BTreeSet<String> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert_eq!(ops, folders);
}

/// The twin has no gradient that is far from zero only by cancellation, so the bound of the case lists holds but for ops
/// whose gradients nearly vanish.
#[test]
fn twins_agree_with_finite_differences_on_random_shapes() {
    let (count, seed) = (number("LESION_CASES", 10).max(10) as usize, number("LESION_SEED", 1) as u32);
    let mut failures = vec![];
    let mut checked = 0;
    for subject in subjects() {
        let small = |case: &Case| case.inputs.iter().map(|input| input.ty.shape.len()).sum::<usize>() < 3000;
        for case in random_cases(&subject, count, seed).iter().filter(|case| case.smooth && small(case)) {
            let (error, limit) = (finite_differences(case, seed), case.tolerance.max(2e-5));
            checked += 1;
            if error.is_nan() || error > limit {
                failures.push(format!("{}: {error:.2e} > {limit:.0e}", case.label()));
            }
        }
    }
    println!("{checked} cases");
    assert!(checked > 100);
    assert!(failures.is_empty(), "seed {seed}: {} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn kernels_agree_with_twins_on_random_shapes() {
    let Some(gpu) = common::gpu_with(GpuOptions { guards: true, ..GpuOptions::default() }) else { return };
    let (count, seed) = (number("LESION_CASES", 5) as usize, number("LESION_SEED", 1) as u32);
    let only = std::env::var("LESION_OP").ok();
    let mut failures = vec![];
    let (mut compared, mut skipped) = (0, 0);
    for subject in subjects().iter().filter(|subject| only.as_ref().is_none_or(|only| only == subject.op)) {
        for case in random_cases(subject, count, seed) {
            if case.needs_half() && !gpu.caps().f16 {
                skipped += 1;
                continue;
            }
            compared += 1;
            match check_case(&gpu, &case, seed).and_then(|report| gpu.check_guards().map(|_| report)) {
                Err(e) => failures.push(format!("{}: {e}", case.label())),
                Ok(report) if report.passed() => {}
                Ok(report) => {
                    let worst = report.worst().map(|m| format!("{}: {:.2e} > {:.2e}", m.what, m.error, m.limit));
                    failures.push(format!("{}: {}", case.label(), worst.unwrap_or("compared nothing".into())));
                }
            }
        }
    }
    println!("{compared} cases compared, {skipped} skipped: they need 16-bit floats");
    assert!(compared > 0);
    assert!(failures.is_empty(), "seed {seed}: {} failures:\n{}", failures.len(), failures.join("\n"));
}
