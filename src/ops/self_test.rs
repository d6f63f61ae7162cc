//! The self-test: before kernels are first used on a driver, each computes a small case that is compared with its CPU twin.
//! `lesion-gpu doctor` runs all cases; this runs small ones that together use the kernels of a plan.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashSet};
use std::fmt::Write as _;

use super::check::{Position, check_case_at};
use super::{Case, all_cases};
use crate::autograd::Plan;
use crate::error::{Error, Kind, Result};
use crate::gpu::{Dispatch, Gpu, Kernel};

/// Seed of the random inputs.
const SEED: u32 = 1;
/// Elements of the inputs of a case that is best for a test: the smallest cases are ends, such as windows of one element, and
/// larger ones take time.
const BEST: f64 = 2000.0;

/// What a self-test has tested.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tested {
    /// Kernels that had not passed before on this driver.
    pub kernels: usize,
    /// Of those, the ones that no case uses in that very variant, so that another variant of the same entry point stood in.
    pub by_another: usize,
    /// Of those, the ones that no case uses in any variant: they are trusted untested.
    pub by_none: usize,
    /// Cases that were computed.
    pub cases: usize,
}

/// Tests the kernels of plans that have not passed on this driver, and remembers those that pass. Does nothing on a device
/// that was opened without a self-test.
///
/// # Errors
/// [`Kind::SelfTest`] if a kernel computes wrongly, which names it, the adapter and the driver; [`Kind::Shader`] if one does
/// not build; device errors.
pub fn self_test(gpu: &Gpu, plans: &[&Plan]) -> Result<Tested> {
    let planned = plans.iter().flat_map(|plan| plan.preparation.iter().chain(&plan.dispatches));
    let kernels = gpu.untested(planned.map(|planned| &planned.dispatch));
    if kernels.is_empty() {
        return Ok(Tested::default());
    }
    let (chosen, tested) = choose(gpu, &kernels);
    let (mut right, mut wrong): (HashSet<&Kernel>, Vec<_>) = (HashSet::new(), vec![]);
    for (case, used) in &chosen {
        let report = check_case_at(gpu, gpu.caps(), case, SEED, &[Position::Alone])?;
        match report.worst().filter(|_| !report.passed()) {
            None => right.extend(used),
            Some(worst) => {
                let error =
                    format!("{}, {}: error {:.1e}, limit {:.1e}", report.label, worst.what, worst.error, worst.limit);
                wrong.push((used, error));
            }
        }
    }
    let Some((used, error)) = wrong.first() else {
        gpu.trust_kernels(kernels.iter().copied());
        return Ok(tested);
    };
    // Of the kernels of a case that failed, those are less likely that another case has shown to be right. That case may have
    // been an easier one.
    let (mut less_likely, mut suspects): (Vec<&Kernel>, Vec<_>) =
        used.iter().partition(|kernel| right.contains(kernel));
    if suspects.is_empty() {
        std::mem::swap(&mut suspects, &mut less_likely);
    }
    Err(refusal(gpu, &suspects, &less_likely, error))
}

/// Small cases that together use all of `kernels`, each with all the kernels it uses; and what they test.
fn choose(gpu: &Gpu, kernels: &[&Kernel]) -> (Vec<(Case, Vec<Kernel>)>, Tested) {
    let caps = gpu.caps();
    let elements = |case: &Case| case.inputs.iter().map(|input| input.ty.shape.len()).sum::<usize>() as f64;
    let distance = |case: &Case| (elements(case).max(1.0) / BEST).ln().abs();
    let mut cases: Vec<Case> = all_cases().into_iter().filter(|case| caps.f16 || !case.needs_half()).collect();
    cases.sort_by(|a, b| distance(a).total_cmp(&distance(b)));
    let launched: Vec<(Case, Vec<Kernel>)> = (cases.into_iter())
        .filter_map(|case| {
            let launches: Vec<Dispatch> = case.launches(caps).ok()?;
            Some((case, launches.into_iter().map(|launch| launch.kernel).collect()))
        })
        .collect();
    let (mut chosen, mut tested) = (vec![], Tested { kernels: kernels.len(), ..Tested::default() });
    for &kernel in kernels {
        let most = |used: &[Kernel]| used.iter().filter_map(|other| likeness(kernel, other)).max();
        let of_cases = launched.iter().enumerate().filter_map(|(i, (_, used))| Some((most(used)?, Reverse(i))));
        // Of those that are as much alike the first.
        let best = of_cases.max();
        let exact = best.is_some_and(|(_, Reverse(i))| launched[i].1.contains(kernel));
        tested.by_another += usize::from(best.is_some() && !exact);
        tested.by_none += usize::from(best.is_none());
        chosen.extend(best.map(|(_, Reverse(i))| i));
    }
    chosen.sort_unstable();
    chosen.dedup();
    tested.cases = chosen.len();
    (chosen.into_iter().map(|i| launched[i].clone()).collect(), tested)
}

/// How much two variants of an entry point have in common; `None` if they are of different ones.
fn likeness(kernel: &Kernel, other: &Kernel) -> Option<usize> {
    if kernel == other {
        return Some(usize::MAX);
    }
    let same = kernel.source == other.source && kernel.entry == other.entry && kernel.half == other.half;
    let constants = kernel.constants.iter().filter(|constant| other.constants.contains(constant)).count();
    let libraries = kernel.libraries.iter().filter(|library| other.libraries.contains(library)).count();
    let loads = kernel.loads.iter().filter(|load| other.loads.contains(load)).count();
    same.then_some(constants + libraries + loads)
}

fn refusal(gpu: &Gpu, suspects: &[&Kernel], less_likely: &[&Kernel], error: &str) -> Error {
    let names = |kernels: &[&Kernel]| kernels.iter().map(|kernel| kernel.label()).collect::<BTreeSet<_>>();
    let listed = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(" or ");
    let likely = names(suspects);
    let less_likely = &names(less_likely) - &likely;
    let mut next =
        "do not train with it: update the driver, or choose another adapter with --adapter; `lesion-gpu doctor` \
                    shows all that is wrong"
            .to_owned();
    if suspects.iter().all(|kernel| kernel.subgroups) {
        next += "; --without subgroups does without this kernel";
    } else if suspects.iter().all(|kernel| kernel.half) {
        next += "; --precision f32 does without this kernel";
    }
    let adapter = gpu.adapter();
    let mut what = format!("this driver computes a kernel wrongly: {} ({error})", listed(likely));
    if !less_likely.is_empty() {
        let _ = write!(what, "; less likely {}, right in another case", listed(less_likely));
    }
    Error::new(Kind::SelfTest, what).at(format!("{}, driver {}", adapter.name, adapter.driver)).next(next)
}
