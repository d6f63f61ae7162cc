//! Tuning: what is wrong is rejected, what is kept is read back, and tuned kernels still compute the same.

mod common;

use std::path::Path;
use std::time::Duration;

use common::{ok, program};
use lesion_gpu::Kind;
use lesion_gpu::autograd::{Candidates, Executable, Lower, Lowered, Op, Plan, Store, Tape, Tunable};
use lesion_gpu::data::Batch;
use lesion_gpu::gpu::{
    AdapterSummary, Caps, Choices, DeviceClass, Dispatch, Gpu, Kernel, Source, SubgroupSizes, TextureLoads, Uniform,
    grid_for, uniform_block,
};
use lesion_gpu::models::Model;
use lesion_gpu::ops::all_cases;
use lesion_gpu::rng::Stream;
use lesion_gpu::tensor::TensorType;
use lesion_gpu::train::{TrainConfig, TrainGraph, TrainSession};
use lesion_gpu::tune::{Family, Measured, Outcome, TuningCache, tune};

uniform_block! {
    struct Params { count: u32 }
}

/// Doubles its input, by one of several kernels.
static DOUBLE: Source = Source {
    file: "double.wgsl",
    text: "
struct Params { count: u32 }
@group(0) @binding(1) var<storage, read> x: array<f32>; // [count]
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // [count]
@compute @workgroup_size(64)
fn right(@builtin(global_invocation_id) id: vec3u) { if id.x < p.count { y[id.x] = 2.0 * x[id.x]; } }
@compute @workgroup_size(64)
fn slow(@builtin(global_invocation_id) id: vec3u) {
    if id.x < p.count {
        var total = x[id.x];
        for (var i = 0u; i < 20000u; i++) { total += select(0.0, x[id.x], i == 777u); }
        y[id.x] = total;
    }
}
// One element is off.
@compute @workgroup_size(64)
fn wrong(@builtin(global_invocation_id) id: vec3u) {
    if id.x < p.count { y[id.x] = 2.0 * x[id.x] + select(0.0, 0.1, id.x == 77u); }
}
// One element is never written.
@compute @workgroup_size(64)
fn forgetful(@builtin(global_invocation_id) id: vec3u) { if id.x + 1u < p.count { y[id.x] = 2.0 * x[id.x]; } }
",
    libraries: &[],
};

#[derive(Debug)]
struct Double {
    choices: Vec<&'static str>,
}

impl Op for Double {
    fn name(&self) -> &'static str {
        "double"
    }

    fn infer(&self, inputs: &[TensorType]) -> lesion_gpu::Result<Vec<TensorType>> {
        Ok(inputs.to_vec())
    }

    fn lower(&self, cx: &Lower<'_>) -> lesion_gpu::Result<Lowered> {
        let chosen = cx.caps.choices.get(&key(cx.inputs[0].shape.len())).map_or(self.choices[0], String::as_str);
        let entry = ["right", "slow", "wrong", "forgetful", "missing"].into_iter().find(|e| *e == chosen);
        let count = cx.inputs[0].shape.len();
        let params = Params { count: count as u32 };
        let kernel = Kernel::new(&DOUBLE, entry.expect("a known choice"));
        let dispatch = Dispatch::new(kernel, params.block(), grid_for(count, 64)).input(0).output(0);
        Ok(Lowered::one(dispatch.work(count as u64, 8 * count as u64)))
    }

    fn candidates(&self, cx: &Lower<'_>) -> Option<Candidates> {
        Some(Candidates {
            key: key(cx.inputs[0].shape.len()),
            class: "double".into(),
            reference: "right".into(),
            choices: self.choices.iter().map(|c| (*c).to_owned()).collect(),
            tolerance: 1e-4,
        })
    }
}

fn key(count: usize) -> String {
    format!("double {count}")
}

fn doubles(choices: &[&'static str]) -> Vec<Tunable> {
    doubles_of(1000, choices)
}

fn doubles_of(count: usize, choices: &[&'static str]) -> Vec<Tunable> {
    let mut tape = Tape::new();
    let x = tape.input("x", TensorType::f32([count]));
    let y = tape.push1(Double { choices: choices.to_vec() }, &[x]).unwrap();
    // The same shape again is the same to tune.
    let z = tape.push1(Double { choices: choices.to_vec() }, &[y]).unwrap();
    let nodes = Plan::new(&tape, &[z], &Caps::baseline()).unwrap().tunable;
    assert_eq!(nodes.len(), 1);
    nodes
}

fn tuned(gpu: &Gpu, nodes: &[Tunable]) -> lesion_gpu::tune::Tuned {
    tune(gpu, nodes, Duration::from_secs(600), &mut |_, _| Ok(())).unwrap()
}

#[test]
fn wrong_kernels_are_rejected_and_the_fastest_right_one_wins() {
    let Some(gpu) = common::gpu() else { return };
    let found = tuned(&gpu, &doubles(&["slow", "wrong", "forgetful", "missing", "right"]));
    let outcome = &found.outcomes[0];
    assert_eq!((outcome.best.choice.as_str(), outcome.tried, outcome.flops), ("right", 2, 1000), "{found:?}");
    assert_eq!(outcome.default.as_ref().unwrap().choice, "slow");
    let rejected: Vec<&str> = outcome.rejected.iter().map(|r| r.choice.as_str()).collect();
    assert_eq!(rejected, ["wrong", "forgetful", "missing"], "{found:?}");
    assert!(outcome.rejected[0].why.contains("relative error"), "{found:?}");
    assert!(outcome.rejected[1].why.contains("not finite"), "{found:?}");

    // A default that is wrong is replaced however slow the others are.
    let found = tuned(&gpu, &doubles(&["wrong", "slow"]));
    assert_eq!((found.outcomes[0].best.choice.as_str(), &found.outcomes[0].default), ("slow", &None));
    // Where nothing is right there is no choice.
    let found = tuned(&gpu, &doubles(&["wrong"]));
    assert!(found.outcomes.is_empty() && found.left[0].1.contains("no candidate agreed"), "{found:?}");
}

#[test]
fn no_time_means_no_change_and_an_interruption_stops() {
    let Some(gpu) = common::gpu() else { return };
    let nodes = doubles(&["slow", "right"]);
    let found = tune(&gpu, &nodes, Duration::ZERO, &mut |_, _| Ok(())).unwrap();
    assert!(found.outcomes.is_empty() && found.left[0].1.contains("time"), "{found:?}");
    let stop = lesion_gpu::Error::new(lesion_gpu::Kind::Interrupted, "interrupted");
    let stopped = tune(&gpu, &nodes, Duration::from_secs(600), &mut |_, _| Err(stop.clone()));
    assert_eq!(stopped.unwrap_err().kind(), lesion_gpu::Kind::Interrupted);
}

fn adapter(driver: &str) -> AdapterSummary {
    AdapterSummary {
        index: 0,
        name: "a card".into(),
        class: DeviceClass::Discrete,
        backend: "vulkan".into(),
        driver: driver.into(),
        features: vec![],
        matrices: None,
        caps: Caps::baseline(),
    }
}

#[test]
fn the_cache_round_trips_and_takes_nothing_foreign_or_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let open = |driver: &str| TuningCache::open(Some(folder.path()), &adapter(driver), &Caps::baseline());
    let nodes = doubles(&["slow", "right"]);
    let expected = Choices::from([(key(1000), "slow".to_owned())]);

    let mut cache = open("1.0");
    assert_eq!(cache.missing(&nodes).len(), 1);
    cache.record(&nodes, &[outcome(1000, "slow", 1e-3)]);
    cache.save().unwrap();
    assert_eq!(open("1.0"), cache);
    assert_eq!(open("1.0").choices(&nodes), expected);
    assert!(open("1.0").missing(&nodes).is_empty());
    // Another driver, other candidates.
    assert!(open("1.1").choices(&nodes).is_empty());
    assert!(open("1.0").choices(&doubles(&["right", "wrong"])).is_empty());

    let file = cache.path().unwrap().to_owned();
    let text = std::fs::read_to_string(&file).unwrap();
    for damaged in [
        text[..text.len() / 2].to_owned(),
        String::new(),
        text.replace("\"1.0\"", "\"0.9\""),
        text.replace("a card", "another"),
        text.replace("\"format\": 4", "\"format\": 99"),
        text.replace("\"choice\": \"slow\"", "\"choice\": \"wrong\""),
        text.replace("\"sources\": \"", "\"sources\": \"0"),
    ] {
        assert_ne!(damaged, text);
        std::fs::write(&file, &damaged).unwrap();
        let mut again = open("1.0");
        assert!(again.choices(&nodes).is_empty());
        let whole = damaged.ends_with("}\n");
        assert_eq!(again.unusable().is_none(), whole, "{:?} of {damaged}", again.unusable());
        // And it is rebuilt.
        again.record(&nodes, &[outcome(1000, "slow", 1e-3)]);
        again.save().unwrap();
        assert_eq!(open("1.0").choices(&nodes), expected);
    }
    // Two programs at a time: what one has measured is not lost to the other, and who comes second takes what the first took.
    let (mut one, mut other) = (open("1.0"), open("1.0"));
    let (shared, own) = (doubles_of(1200, &["slow", "right"]), doubles_of(1400, &["slow", "right"]));
    one.record(&shared, &[outcome(1200, "right", 1e-3)]);
    one.save().unwrap();
    other.record(&shared, &[outcome(1200, "slow", 1e-3)]);
    other.settle(&own);
    other.save().unwrap();
    let right = Choices::from([(key(1200), "right".to_owned())]);
    assert_eq!(other.choices(&shared), right);
    assert_eq!(open("1.0").choices(&shared), right);
    assert_eq!(open("1.0").choices(&nodes), expected);
    // What is measured once more, with nobody else writing, replaces what was there.
    other.record(&shared, &[outcome(1200, "slow", 1e-3)]);
    other.save().unwrap();
    assert_eq!(open("1.0").choices(&shared).into_values().collect::<Vec<_>>(), ["slow"]);
    // The device opened with less of it: other choices, which leave those of the whole device alone.
    let reduced = || {
        let caps = Caps { max_storage_buffers: 4, ..Caps::baseline() };
        TuningCache::open(Some(folder.path()), &adapter("1.0"), &caps)
    };
    let before = open("1.0");
    let mut less = reduced();
    assert!(less.choices(&nodes).is_empty());
    less.record(&nodes, &[outcome(1000, "right", 1e-3)]);
    less.save().unwrap();
    assert_eq!(open("1.0"), before);
    assert_ne!(reduced().choices(&nodes), before.choices(&nodes));
    // With run-time checks it is read and never written, since what was settled so holds for nobody else.
    let checked = Caps { checked: true, ..Caps::baseline() };
    let mut with_checks = TuningCache::open(Some(folder.path()), &adapter("1.0"), &checked);
    assert_eq!(with_checks.choices(&nodes), expected);
    with_checks.settle(&doubles_of(1600, &["slow", "right"]));
    with_checks.save().unwrap();
    assert_eq!(open("1.0"), before);
    // What cannot be read may be whole: it is left alone.
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    let mut unread = open("1.0");
    assert!(unread.unusable().unwrap().contains("could not read what tuning has found"), "{:?}", unread.unusable());
    assert_eq!(unread.save().unwrap_err().kind(), Kind::Io);
    std::fs::remove_dir(&file).unwrap();
    unread.save().unwrap();
    // Without a folder nothing is kept, and nothing fails.
    TuningCache::open(None, &adapter("1.0"), &Caps::baseline()).save().unwrap();
}

/// Without a lock what others wrote between the reading and the writing would be lost.
#[test]
fn many_that_write_at_a_time_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let choices = ["slow", "right"];
    let open = || TuningCache::open(Some(folder.path()), &adapter("1.0"), &Caps::baseline());
    let sizes = |writer: usize| (0..16).map(move |i| 10 * (16 * writer + i + 1));
    std::thread::scope(|scope| {
        for writer in 0..4 {
            scope.spawn(move || {
                for size in sizes(writer) {
                    let mut cache = open();
                    cache.record(&doubles_of(size, &choices), &[outcome(size, "right", 1e-3)]);
                    cache.save().unwrap();
                }
            });
        }
    });
    // What is missing would get the choice of its class: it is counted in the file.
    let bytes = std::fs::read(open().path().unwrap()).unwrap();
    let file: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(file["entries"].as_object().unwrap().len(), 64);
}

/// Whether loads from textures are faster is measured each time a device is opened: what was tuned must not hang on it.
#[test]
fn loads_that_are_measured_otherwise_void_nothing() {
    let eight = Some(SubgroupSizes { min: 8, max: 8 });
    let caps = |textures| Caps { class: DeviceClass::Software, subgroups: eight, textures, ..Caps::baseline() };
    let nodes = |caps: &Caps| {
        let mut found = vec![];
        for label in ["conv2d/3x3 more than one tile auto", "conv2d/depthwise in fours, more than a workgroup auto"] {
            let case = all_cases().into_iter().find(|c| c.label() == label).unwrap();
            let mut tape = Tape::new();
            let inputs = case.inputs.iter().enumerate();
            let leaves: Vec<_> =
                inputs.map(|(i, x)| tape.variable(&format!("input {i}"), x.ty.clone(), true).unwrap()).collect();
            let y = (case.trace)(&mut tape, &leaves).unwrap();
            found.extend(Plan::new(&tape, &y, caps).unwrap().tunable);
        }
        found
    };
    let all = [TextureLoads::Slow, TextureLoads::Faster, TextureLoads::MuchFaster].map(caps);
    for measured in &all {
        let mut cache = TuningCache::open(None, &adapter("1.0"), &Caps::baseline());
        let found = nodes(measured);
        let first = |node: &Tunable| {
            let Candidates { key, class, choices, .. } = node.candidates.clone();
            Outcome { key, class, ..outcome(1, &choices[0], 1e-3) }
        };
        cache.record(&found, &found.iter().map(first).collect::<Vec<_>>());
        for later in &all {
            let nodes = nodes(later);
            assert_eq!(nodes.len(), 2);
            assert_eq!(cache.choices(&nodes).len(), 2, "{:?}, then {:?}", measured.textures, later.textures);
        }
    }
}

/// Choices that come with the program stand in until the adapter itself is measured.
#[test]
fn shipped_choices_hold_until_something_was_measured() {
    let nodes = doubles(&["slow", "right"]);
    let family = |name: &str, driver: &str, choice: &str| Family {
        adapter: name.into(),
        driver: driver.into(),
        choices: Choices::from([("double".to_owned(), choice.to_owned())]),
    };
    let cache = |families: &[Family]| {
        TuningCache::open(None, &adapter("1.0"), &Caps::baseline()).with_families(families, &adapter("1.0"))
    };
    let chosen = |cache: &TuningCache| cache.choices(&nodes).get(&key(1000)).cloned();

    let like = cache(&[family("another", "", "right"), family("a card", "1.", "right")]);
    assert_eq!(chosen(&like).as_deref(), Some("right"));
    assert!(like.missing(&nodes).is_empty());
    // Another adapter, another driver, a choice that is none.
    for other in [family("another", "", "right"), family("a card", "2.", "right"), family("a card", "", "wrong")] {
        assert_eq!(chosen(&cache(std::slice::from_ref(&other))), None, "{other:?}");
        assert_eq!(cache(std::slice::from_ref(&other)).missing(&nodes).len(), 1);
    }
    let mut measured = cache(&[family("a card", "", "right")]);
    measured.record(&nodes, &[outcome(1000, "slow", 1e-3)]);
    assert_eq!(chosen(&measured).as_deref(), Some("slow"));
    // A table is of classes: the largest shape, which tuning measures first, stands for the others.
    let table = Family::of(&adapter("1.0"), &[outcome(1200, "right", 1e-3), outcome(1000, "slow", 5e-4)]);
    assert_eq!(table.choices, Choices::from([("double".to_owned(), "right".to_owned())]));
}

/// What `tune --gemm` finds is what `bench --gemm` takes.
#[test]
fn a_matrix_product_is_tuned_and_then_timed_with_what_was_found() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let table = dir.join("table.json");
    let said = ok(dir, &["tune", "--gemm", "96", "--budget", "20", "--table", table.to_str().unwrap()]);
    assert!(said.contains("product of 96x96 matrices") && said.contains("kept in"), "{said}");
    let kept = said.lines().find_map(|line| line.strip_prefix("kept in ")).unwrap();
    // Whatever was the fastest: another choice in its place is what is taken.
    let mut cache: serde_json::Value = serde_json::from_slice(&std::fs::read(kept).unwrap()).unwrap();
    let entries = cache["entries"].as_object_mut().unwrap();
    assert!(!entries.is_empty());
    entries.values_mut().for_each(|entry| entry["choice"] = "direct".into());
    std::fs::write(kept, cache.to_string()).unwrap();
    let timed: serde_json::Value = serde_json::from_str(&ok(dir, &["bench", "--gemm", "96", "--json", "-"])).unwrap();
    for product in timed["products"].as_array().unwrap() {
        assert_eq!(product["choice"], "direct");
    }
    for wrong in [["tune", "--gemm", "0"], ["bench", "--gemm", "46341"]] {
        assert_eq!(program(dir, &wrong).status.code(), Some(2));
    }
}

fn outcome(count: usize, choice: &str, seconds: f64) -> Outcome {
    let best = Measured { choice: choice.into(), seconds };
    Outcome {
        key: key(count),
        class: "double".into(),
        flops: count as u64,
        default: None,
        best,
        tried: 1,
        rejected: vec![],
    }
}

/// What was measured for a shape serves others of its class until they are measured, or something was settled for them.
#[test]
fn shapes_of_a_class_share_what_was_measured() {
    let choices = ["slow", "right"];
    let (first, second, third) = (doubles(&choices), doubles_of(1200, &choices), doubles_of(1400, &choices));
    let mut cache = TuningCache::open(None, &adapter("1.0"), &Caps::baseline());
    let chosen = |cache: &TuningCache, nodes: &[Tunable]| cache.choices(nodes).into_values().next();
    // There is nothing about the class: the built-in rule, for good.
    assert!(cache.settle(&first) && !cache.settle(&first));
    assert_eq!((chosen(&cache, &first), cache.missing(&first).len(), cache.missing(&second).len()), (None, 0, 1));
    cache.record(&second, &[outcome(1200, "right", 1e-3)]);
    let now = |cache: &TuningCache| [&first, &second, &third].map(|nodes| chosen(cache, nodes));
    assert_eq!(now(&cache), [None, Some("right".into()), Some("right".into())]);
    assert!(cache.missing(&third).is_empty());
    // What a class took is settled too: a larger shape that is measured later changes nothing for it.
    let mut settled = cache.clone();
    assert!(settled.settle(&third));
    let larger = doubles_of(2000, &choices);
    for cache in [&mut cache, &mut settled] {
        cache.record(&larger, &[outcome(2000, "slow", 2e-3)]);
    }
    assert_eq!((chosen(&cache, &third).as_deref(), chosen(&settled, &third).as_deref()), (Some("slow"), Some("right")));
    cache.record(&first, &[outcome(1000, "right", 1e-3)]);
    assert_eq!(chosen(&cache, &first).as_deref(), Some("right"));
    // Where the one that serves the class is no candidate, there is nothing about the shape.
    let others = doubles_of(1600, &["forgetful"]);
    assert_eq!((chosen(&cache, &others), cache.missing(&others).len()), (None, 1));
}

/// Every candidate of a small convolution and of its gradients runs and agrees; with the choices in force, the graph
/// computes what the CPU twin does.
#[test]
fn a_tuned_convolution_equals_its_twin() {
    let Some(gpu) = common::gpu() else { return };
    let case = all_cases().into_iter().find(|c| c.label() == "conv2d/3x3 more than one tile auto").unwrap();
    let mut tape = Tape::new();
    let leaves: Vec<_> = (case.inputs.iter().enumerate())
        .map(|(i, input)| tape.variable(&format!("input {i}"), input.ty.clone(), true).unwrap())
        .collect();
    let y = (case.trace)(&mut tape, &leaves).unwrap()[0];
    let d_y = tape.variable("d_y", tape.ty(y).clone(), false).unwrap();
    let gradients = lesion_gpu::ops::backward_from(&mut tape, &[(y, d_y)]).unwrap();
    let wanted: Vec<_> = std::iter::once(y).chain(leaves.iter().filter_map(|&leaf| gradients.get(leaf))).collect();
    let nodes = Plan::new(&tape, &wanted, gpu.caps()).unwrap().tunable;
    let keys: Vec<&str> = nodes.iter().map(|n| n.candidates.key.split(' ').next().unwrap()).collect();
    assert_eq!(keys, ["conv2d.forward", "conv2d.grad_input", "conv2d.grad_weight"]);

    let found = tuned(&gpu, &nodes);
    assert_eq!(found.outcomes.len(), 3, "{found:?}");
    for outcome in &found.outcomes {
        assert!(outcome.rejected.is_empty() && outcome.tried >= 3, "{outcome:?}");
        assert!(outcome.best.seconds > 0.0 && outcome.best.seconds.is_finite() && outcome.flops > 0, "{outcome:?}");
    }

    // Not only the fastest: each candidate in force, as a run would have it.
    let values: Vec<_> =
        case.inputs.iter().enumerate().map(|(i, input)| input.values(Stream::new(5, i as u32))).collect();
    let d = lesion_gpu::ops::CaseInput::normal(tape.shape(y).clone()).values(Stream::new(5, 99));
    let in_f64: Vec<_> = values.iter().map(lesion_gpu::ops::Array::cast).collect();
    let mut want = case.twin.forward_f64(&in_f64);
    want.extend(case.twin.backward_f64(&in_f64, &[d.cast()]).into_iter().flatten());
    let most = nodes.iter().map(|n| n.candidates.choices.len()).max().unwrap();
    for i in 0..most {
        let choice =
            |n: &Tunable| (n.candidates.key.clone(), n.candidates.choices[i % n.candidates.choices.len()].clone());
        let choices: Choices = nodes.iter().map(choice).collect();
        let plan = Plan::new(&tape, &wanted, &gpu.caps().with_choices(choices.clone())).unwrap();
        let mut store = Store::new();
        let executable = Executable::new(&gpu, plan, &mut store).unwrap();
        for (i, values) in values.iter().enumerate() {
            store.write_bytes(&gpu, &format!("input {i}"), bytemuck::cast_slice(&values.data)).unwrap();
        }
        store.write_bytes(&gpu, "d_y", bytemuck::cast_slice(&d.data)).unwrap();
        executable.run(&gpu);
        for (j, want) in want.iter().enumerate() {
            let got = executable.read_output(&gpu, j).unwrap();
            let largest = want.data.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            for (g, w) in got.data().iter().zip(&want.data) {
                assert!((f64::from(*g) - w).abs() <= 1e-5 * largest, "output {j} with {choices:?}: {g}, not {w}");
            }
        }
    }
}

/// The kernels that GPUs of each class get without tuning train a model as those of this machine do.
#[test]
fn the_choices_for_other_devices_train_alike() {
    let Some(gpu) = common::gpu() else { return };
    let model = Model::find("simple-cnn").unwrap();
    let config = TrainConfig { model: "simple-cnn".into(), size: 30.into(), batch: 6, ..TrainConfig::default() };
    let stream = Stream::new(1, 2);
    let images = Batch {
        pixels: (0..6 * 30 * 30).map(|i| stream.words([i, 0])[0]).collect(),
        labels: (0..6).collect(),
        samples: (0..6).collect(),
        keys: (0..6).collect(),
        valid: 6,
    };
    let step = |class: DeviceClass| {
        let caps = Caps { class, ..gpu.caps().clone() };
        let graph = TrainGraph::new(model, &config, 6, 7, &caps).unwrap();
        let kernels: Vec<_> = graph.plan.dispatches.iter().map(|d| d.dispatch.kernel.label()).collect();
        let mut store = Store::new();
        let mut session = TrainSession::new(&gpu, graph, &[1.0; 7], &mut store).unwrap();
        for p in session.parameters() {
            store.write(&gpu, &p.name, &p.to_device(&p.initial(1))).unwrap();
        }
        // The loss of the second step depends on all gradients of the first.
        session.step(&gpu, &images, 0, 0, 1e-3).unwrap();
        session.step(&gpu, &images, 1, 0, 1e-3).unwrap();
        let losses = [session.collect(&gpu).unwrap().unwrap().loss, session.collect(&gpu).unwrap().unwrap().loss];
        (losses, kernels.iter().filter(|k| k.contains("conv2d_tile")).count())
    };
    let (want, tiled) = step(DeviceClass::Software);
    assert_eq!(tiled, 0, "software drivers keep away from workgroup memory");
    for class in [DeviceClass::Integrated, DeviceClass::Discrete] {
        let (losses, tiled) = step(class);
        // Three convolutions and two linear layers; the first has no gradient of its input.
        assert_eq!(tiled, 14, "{class:?}");
        for (a, b) in losses.iter().zip(want) {
            assert!((a - b).abs() < 1e-4 * b.abs(), "{class:?}: {losses:?}, not {want:?}");
        }
    }
}

/// Choices that this program or this device does not know are not followed.
#[test]
fn unknown_choices_fall_back() {
    let case = all_cases().into_iter().find(|c| c.label() == "conv2d/1x1 auto").unwrap();
    let mut tape = Tape::new();
    let leaves: Vec<_> =
        case.inputs.iter().enumerate().map(|(i, input)| tape.input(format!("{i}"), input.ty.clone())).collect();
    let y = (case.trace)(&mut tape, &leaves).unwrap();
    let caps = Caps::baseline();
    let kernels = |caps: &Caps| -> Vec<Kernel> {
        let plan = Plan::new(&tape, &y, caps).unwrap();
        plan.dispatches.into_iter().map(|d| d.dispatch.kernel).collect()
    };
    let key = Plan::new(&tape, &y, &caps).unwrap().tunable[0].candidates.key.clone();
    let with = |choice: &str, caps: &Caps| kernels(&caps.with_choices(Choices::from([(key.clone(), choice.into())])));
    assert_ne!(with("plain", &caps), kernels(&caps), "a known choice is followed");
    assert_eq!(with("nonsense", &caps), kernels(&caps));
    // 16 KiB of workgroup memory do not fit here: the direct tiles need none.
    let small = Caps { max_workgroup_memory: 8 << 10, ..caps.clone() };
    assert_eq!(with("128x128x16:8x8", &small), with("direct", &small));
}

#[test]
fn runs_use_and_record_what_was_tuned_and_keep_it_when_resumed() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let model = ["--model", "simple-cnn", "--size", "32", "--batch", "8"];
    let train = |extra: &[&str]| {
        let data = ["train", "--data", "synthetic:120", "--epochs", "1"];
        ok(dir, &[&data[..], &model, extra].concat())
    };
    let choices = |run: &str| choices(dir, run);
    let printed = ok(dir, &[&["tune"], &model[..], &["--budget", "6"]].concat());
    // How many products the time is enough for depends on the machine and on what else it does.
    let measured = printed.lines().filter(|line| line.contains(" conv2d.") && line.contains("x  ")).count();
    assert!(printed.contains("GFLOP/s") && printed.contains("kept in") && !printed.contains("rejected"), "{printed}");

    train(&["--run", "tuned"]);
    assert!(measured > 0 && choices("tuned").len() >= measured, "{printed}");
    train(&["--run", "untuned", "--no-tune"]);
    assert!(choices("untuned").is_empty());
    ok(dir, &["eval", "tuned"]);
    ok(dir, &["eval", "tuned", "--no-tune"]);

    // A resumed run goes on with its own choices: a wish for the plain kernel, say, although the cache says otherwise.
    let mut wish = choices("tuned");
    let key = wish.keys().next().unwrap().clone();
    wish.insert(key, "plain".into());
    let file = dir.join("tuned/environment.json");
    let mut environment: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    environment["tuning"] = serde_json::to_value(&wish).unwrap();
    std::fs::write(&file, environment.to_string()).unwrap();
    let said = ok(dir, &["train", "--resume", "tuned"]);
    assert!(!said.contains("the run began"), "{said}");
    assert_eq!(choices("tuned"), wish);
    // What else decides about kernels is another now, which is said.
    for (key, other, what) in [
        ("sources", serde_json::json!("0123"), "the run began with another build of this program"),
        ("capabilities", "fewer".into(), "the run began with other features or limits of the device"),
        ("driver", "of old".into(), "(driver of old) and goes on on "),
    ] {
        environment[key] = other;
        std::fs::write(&file, environment.to_string()).unwrap();
        let said = ok(dir, &["train", "--resume", "tuned"]);
        assert!(said.contains(what) && said.contains("may not end equal to the bit"), "{said}");
    }
    environment["tuning"] = "nonsense".into();
    std::fs::write(&file, environment.to_string()).unwrap();
    assert_eq!(program(dir, &["train", "--resume", "tuned"]).status.code(), Some(10));
}

/// The same run twice takes the same kernels, whatever was tuned for other shapes of their classes in between.
#[test]
fn what_is_tuned_for_others_changes_no_run_that_was() {
    let Some(gpu) = common::gpu() else { return };
    if gpu.caps().checked {
        println!("skipped: runs with checks in their shaders keep no choices");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let train = |run: &str, batch: &str| {
        let flags = ["train", "--data", "synthetic:40", "--model", "simple-cnn", "--size", "32", "--batch", batch];
        ok(dir, &[&flags[..], &["--epochs", "1", "--no-report", "--run", run]].concat());
        (choices(dir, run), std::fs::read_to_string(dir.join(run).join("steps.csv")).unwrap())
    };
    let first = train("first", "8");
    // Where a user's cache is, and this test can give a user another.
    let mut folders = ["cache", "Library/Caches"].iter().map(|place| dir.join(place).join("lesion-gpu/tuning"));
    let found = folders.find(|folder| folder.is_dir());
    assert!(found.is_some() || cfg!(windows), "no cache folder where there should be one");
    let Some(cache) = found else { return };
    let file = TuningCache::open(Some(&cache), gpu.adapter(), gpu.caps()).path().unwrap().to_owned();
    let mut cache: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let entries = cache["entries"].as_object_mut().unwrap();
    assert!(entries.len() > 5, "{entries:?}");
    // For all of them, another batch whose pixels are nearly as many.
    let measured = |(key, entry): (&String, &serde_json::Value)| {
        let found = serde_json::json!({
            "class": entry["class"], "flops": 1_000_000_000, "choice": "direct", "microseconds": 1.5
        });
        (key.replace(" x 8x", " x 9x"), found)
    };
    let others: Vec<_> = entries.iter().map(measured).collect();
    let count = others.len();
    entries.extend(others);
    std::fs::write(&file, cache.to_string()).unwrap();
    assert_eq!(train("second", "8"), first);
    assert_eq!(train("third", "9").0.values().filter(|choice| *choice == "direct").count(), count);
}

/// The choices that a run was made with.
fn choices(dir: &Path, run: &str) -> Choices {
    let text = std::fs::read(dir.join(run).join("environment.json")).unwrap();
    let environment: serde_json::Value = serde_json::from_slice(&text).unwrap();
    serde_json::from_value(environment["tuning"].clone()).unwrap()
}

#[test]
fn wrong_arguments_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let code = |args: &[&str]| program(folder.path(), args).status.code();
    assert_eq!(code(&["tune", "--model", "resnet19"]), Some(2));
    assert_eq!(code(&["tune", "--size", "0"]), Some(2));
    assert_eq!(code(&["tune", "--batch", "0"]), Some(2));
    assert_eq!(code(&["tune", "--budget", "0"]), Some(2));
    assert_eq!(code(&["tune", "--classes", "0"]), Some(2));
    assert_eq!(code(&["tune", "--checked"]), Some(2));
    assert_eq!(code(&["train", "--resume", "nowhere", "--no-tune"]), Some(2));
}
