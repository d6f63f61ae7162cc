//! Random graphs through tape, fusion, bundling and planner, compared with an interpreter that does none of that, and with the
//! same graph on the device operation by operation, each result in memory of its own.
//!
//! `LESION_GRAPHS=N` runs N graphs, `LESION_SEED=S` those from seed S on. A graph that fails is printed as it
//! is and as small as it can be made; `LESION_GRAPHS=1 LESION_SEED=S` runs it alone.

#[path = "../common/mod.rs"]
mod common;
mod found;
mod graph;
mod interpret;
mod make;
mod run;
mod shrink;
mod update;

use std::collections::{BTreeMap, BTreeSet};

use lesion_gpu::autograd::Plan;
use lesion_gpu::gpu::{Caps, GpuOptions, SubgroupSizes};
use lesion_gpu::ops::subjects;

use crate::common::number;
use crate::graph::{Graph, Kind, Operand};
use crate::make::{How, make};
use crate::run::{Counts, Gpus, Outcome, Skip, Way, check, outputs, shares};
use crate::shrink::shrink;

/// As many as a continuous integration of two slow cores has time for.
const GRAPHS: u64 = 120;
/// Failures after which the rest is left out.
const ENOUGH: usize = 5;

#[test]
fn random_graphs_agree_with_the_interpreter() {
    let Some(guarded) = common::gpu_with(GpuOptions { guards: true, ..GpuOptions::default() }) else { return };
    let Some(bare) = common::gpu() else { return };
    let gpus = Gpus { guarded, bare };
    let (count, first) = (number("LESION_GRAPHS", GRAPHS) as u32, number("LESION_SEED", 1) as u32);
    let mut total = Counts::default();
    let (mut agree, mut exact, mut shared, mut kinks, mut sizes, mut halves) = (0, 0, 0, 0, 0, 0);
    let mut failures = vec![];
    for seed in first..first + count {
        let graph = make(seed, How { half: gpus.guarded.caps().f16, steps: 12 });
        let way = Way::of(seed);
        match check(&gpus, &graph, way) {
            Outcome::Agrees(counts) => {
                agree += 1;
                exact += usize::from(counts.exact);
                shared += usize::from(counts.shared);
                halves += usize::from(graph.is_half());
                total.tensors += counts.tensors;
                total.loose += counts.loose;
                total.zeros += counts.zeros;
                total.cancelled += counts.cancelled;
                total.worst = total.worst.max(counts.worst);
            }
            Outcome::Skipped(Skip::Kink) => kinks += 1,
            Outcome::Skipped(Skip::Size) => sizes += 1,
            Outcome::Differs(what) => {
                let differs = |graph: &Graph| matches!(check(&gpus, graph, way), Outcome::Differs(_));
                let small = shrink(&graph, &mut |graph| differs(graph));
                let found = check(&gpus, &small, way);
                let text = format!("seed {seed}, {way:?}:\n{graph}  {what}\nmade smaller:\n{small}  {found}\n");
                println!("{text}");
                failures.push(text);
                // More would say little more, and shrinking takes its time.
                if failures.len() == ENOUGH {
                    break;
                }
            }
        }
    }
    println!(
        "{agree} of {count} graphs agree ({halves} with f16), {exact} of them fused and unfused to the bit, {shared} in \
         memory shared with another plan; {} tensors, {} of them too small to say anything, {} nothing but zeros, {} \
         that cancel to zero; the largest error is {:.2} of its limit; skipped: {kinks} near a kink, {sizes} with too \
         large numbers",
        total.tensors, total.loose, total.zeros, total.cancelled, total.worst
    );
    assert!(failures.is_empty(), "{} graphs from seed {first} on differ:\n{}", failures.len(), failures.join("\n"));
    assert!(agree * 4 > 3 * count as usize, "too few were compared");
    assert!((total.loose + total.cancelled) * 4 < total.tensors, "too little was said");
}

/// What the graphs are for: without it they would test less than they seem to.
#[test]
fn random_graphs_have_everything() {
    let caps = Caps { f16: true, subgroups: Some(SubgroupSizes { min: 8, max: 8 }), ..Caps::baseline() };
    let mut ops = BTreeSet::new();
    let mut launches = BTreeSet::new();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in 1..400 {
        let graph = make(seed, How { half: true, steps: 12 });
        let traced = graph.trace().unwrap_or_else(|e| panic!("seed {seed}: {e}\n{graph}"));
        ops.extend(
            graph
                .steps
                .iter()
                .chain(&graph.updates)
                .map(|step| step.case.label().split('/').next().unwrap().to_owned()),
        );
        let named = outputs(&graph, &traced);
        let tensors: Vec<_> = named.iter().map(|(_, tensor)| *tensor).collect();
        let plan = Plan::preparing(&traced.tape, &tensors, &caps).unwrap();
        launches.extend(plan.dispatches.iter().chain(&plan.preparation).map(|d| d.op));
        let uses = |leaf: usize| {
            graph.steps.iter().flat_map(|step| &step.operands).filter(|o| **o == Operand::Leaf(leaf)).count()
        };
        let leaves = || graph.leaves.iter().enumerate();
        let mut saw = |what, is: bool| *seen.entry(what).or_default() += usize::from(is);
        saw("f16", graph.is_half());
        saw("a parameter that two operations share", leaves().any(|(i, l)| l.kind == Kind::Trainable && uses(i) > 1));
        saw("a state that two operations change", leaves().any(|(i, l)| l.kind == Kind::State && uses(i) > 1));
        saw("a frozen parameter", leaves().any(|(i, l)| l.kind == Kind::Frozen && uses(i) > 0));
        saw("a value that several operations read", (0..graph.values.len()).any(|v| graph.readers(v) > 2));
        saw("a value read back and used", graph.outputs.iter().any(|&v| graph.readers(v) > 0));
        saw("an operation nobody needs", {
            let mut pruned = graph.clone();
            pruned.prune();
            pruned.steps.len() < graph.steps.len()
        });
        saw("several starts of the backward pass", graph.seeds.len() > 1);
        saw("a loss", graph.seeds.iter().any(|seed| seed.1.is_none()));
        saw("gradients that flow to values inside alone", graph.only_inner);
        saw("a state that is changed and then read", {
            let reads = |i: usize| {
                graph.steps.iter().any(|s| s.operands.contains(&Operand::Leaf(i)) && !s.changes().any(|c| c == i))
            };
            let changed: BTreeSet<usize> =
                graph.steps.iter().flat_map(|step| step.changes().collect::<Vec<_>>()).collect();
            changed.into_iter().any(reads)
        });
        saw("an optimizer behind all parts of a batch", graph.updates.iter().any(|step| step.closing));
        saw("arenas", !plan.arenas.is_empty());
        saw("preparation", !plan.preparation.is_empty());
        saw("slots that are used again", plan.memory.slots < plan.memory.without_reuse);
        let way = Way::of(seed);
        if let Some(second) = way.second(&graph, &traced, &named, &caps).unwrap() {
            let first = way.plan(&graph, &traced, &tensors, &caps).unwrap();
            let is_kept = |plan: &Plan| plan.slots.iter().any(|slot| slot.kept);
            let both = shares(&first, &second.plan);
            saw("a second plan that shares memory", both);
            saw("the same beside what is prepared", both && is_kept(&first));
            saw("the same with what it has prepared itself", both && is_kept(&second.plan));
        }
        saw("a batch of one", graph.leaves[0].input.ty.shape.dims()[0] == 1);
    }
    println!("{seen:?}\n{launches:?}");
    // Nothing follows from a summary.
    for subject in subjects().into_iter().filter(|subject| subject.op != "summary") {
        assert!(ops.contains(subject.op), "no graph has '{}'", subject.op);
    }
    for fused in ["relu+batch_norm.grad", "batch_norm.fold", "conv2d+statistics", "batch_norm.grad_frozen"] {
        assert!(launches.contains(fused), "no graph has '{fused}': {launches:?}");
    }
    for (what, times) in seen {
        assert!(times >= 4, "{times} graphs have {what}");
    }
}

/// Graphs shrink to what makes them fail.
#[test]
fn graphs_shrink() {
    let has = |graph: &Graph, op: &str| graph.steps.iter().any(|step| step.case.op == op);
    let mut shrunk = 0;
    for seed in 1..100 {
        let mut graph = make(seed, How { half: false, steps: 12 });
        graph.prune();
        if has(&graph, "relu") && has(&graph, "conv2d") {
            let small = shrink(&graph, &mut |graph| has(graph, "relu") && has(graph, "conv2d"));
            assert!(
                small.steps.len() == 2 && small.updates.is_empty() && small.gradients.is_empty(),
                "seed {seed}:\n{small}"
            );
            small.trace().unwrap();
            shrunk += 1;
        }
    }
    assert!(shrunk > 10);
}
