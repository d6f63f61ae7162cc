//! Several ranks that train one model, as threads of this process: they end where one process ends, and together.

mod common;
#[path = "common/training.rs"]
mod training;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::number;
use lesion_gpu::autograd::{Early, Executable, Plan, Store, Tape};
use lesion_gpu::gpu::{Fault, Gpu, GpuOptions, SelfTest};
use lesion_gpu::models::Model;
use lesion_gpu::ops::batch_norm::{BatchNorm, Shared, batch_norm_shared, batch_norm_train};
use lesion_gpu::ops::relu::relu;
use lesion_gpu::ops::{Draw, backward_from, larger};
use lesion_gpu::parallel::{Team, Thread, threads};
use lesion_gpu::tensor::{HostTensor, TensorType};
use lesion_gpu::train::{
    AugmentConfig, Checkpoint, Divergence, Event, FineTune, Interrupt, LossKind, OptimizerKind, RunOptions, RunSummary,
    ScheduleKind, TrainConfig, Wire, run,
};
use lesion_gpu::weights::{WeightFile, write_safetensors};
use lesion_gpu::{Error, Kind};

use training::{assert_equal, table};

/// A small training with everything that is drawn by counters, without batch-norm.
fn config() -> TrainConfig {
    TrainConfig {
        model: "simple-cnn".into(),
        data: "synthetic:60".into(),
        size: 24.into(),
        batch: 8,
        epochs: 2,
        schedule: ScheduleKind::Cosine,
        augment: AugmentConfig { hflip: true, rotation: 30.0, mixup: 0.3, ..AugmentConfig::NONE },
        fine_tune: FineTune { ema: Some(0.9), ..FineTune::default() },
        ..TrainConfig::default()
    }
}

fn options(run: &Path) -> RunOptions {
    RunOptions { run: Some(run.to_owned()), no_cache: true, workers: 1, ..RunOptions::default() }
}

/// What is different about a rank.
#[derive(Default)]
struct Part {
    /// After so many steps it is interrupted.
    interrupted_after: Option<usize>,
    /// After so many steps it is gone.
    gone_after: Option<usize>,
    notes: Vec<String>,
}

/// One rank of a training.
fn rank(
    gpu: &Gpu,
    rank: Thread,
    config: &TrainConfig,
    options: RunOptions,
    part: &mut Part,
) -> Result<RunSummary, Error> {
    let options = RunOptions { team: Team::new(Arc::new(rank))?, ..options };
    let (interrupt, mut seen) = (Interrupt::default(), 0);
    run(gpu, config, &options, &interrupt, &mut |event| match event {
        Event::Note(note) => part.notes.push(note),
        Event::Step { .. } => {
            seen += 1;
            assert_ne!(Some(seen), part.gone_after, "as it should");
            if Some(seen) == part.interrupted_after {
                interrupt.store(true, Ordering::Relaxed);
            }
        }
        _ => {}
    })
}

/// All ranks of a training, with a configuration for each; how it ended for each, `None` for one that is gone.
fn ranks(
    gpu: &Gpu,
    configs: &[TrainConfig],
    options: &RunOptions,
    parts: &mut [Part],
) -> Vec<Option<Result<RunSummary, Error>>> {
    ranks_on(&vec![gpu; configs.len()], configs, options, parts)
}

/// The same, with a device for each.
fn ranks_on(
    gpus: &[&Gpu],
    configs: &[TrainConfig],
    options: &RunOptions,
    parts: &mut [Part],
) -> Vec<Option<Result<RunSummary, Error>>> {
    std::thread::scope(|scope| {
        let all = threads(configs.len()).into_iter().zip(gpus).zip(configs).zip(parts);
        let running: Vec<_> = all
            .map(|(((thread, gpu), config), part)| {
                scope.spawn(move || rank(gpu, thread, config, options.clone(), part))
            })
            .collect();
        running.into_iter().map(|thread| thread.join().ok()).collect()
    })
}

/// So many ranks with one configuration, none of which fails.
fn together(gpu: &Gpu, size: usize, config: &TrainConfig, options: &RunOptions) -> Vec<RunSummary> {
    let mut parts: Vec<Part> = (0..size).map(|_| Part::default()).collect();
    let ended = ranks(gpu, &vec![config.clone(); size], options, &mut parts);
    ended.into_iter().map(|ended| ended.expect("no rank is gone").unwrap()).collect()
}

fn alone(gpu: &Gpu, config: &TrainConfig, options: &RunOptions) -> RunSummary {
    run(gpu, config, options, &Interrupt::default(), &mut |_| {}).unwrap()
}

fn losses(run: &Path) -> Vec<f32> {
    table(run, "steps.csv").lines().skip(1).map(|line| line.rsplit(',').next().unwrap().parse().unwrap()).collect()
}

/// Steps that losses are compared over: `LESION_STEPS=20` compares more.
fn steps() -> u64 {
    number("LESION_STEPS", 10).max(6)
}

/// That of a model with batch-norm whose losses are to be compared.
fn with_batch_norm(model: &str) -> TrainConfig {
    TrainConfig {
        data: "synthetic:40".into(),
        size: 32.into(),
        batch: 8,
        epochs: 10,
        max_steps: Some(steps()),
        lr: 1e-3,
        augment: AugmentConfig { hflip: true, vflip: true, rotation: 20.0, ..AugmentConfig::NONE },
        ..TrainConfig::of(Model::find(model).unwrap())
    }
}

/// With batch-norm over a rank's rows as over those of a part.
fn same_losses(model: &str) {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    let config = with_batch_norm(model);
    alone(&gpu, &TrainConfig { micro_batch: Some(4), ..config.clone() }, &options(&one));
    together(&gpu, 2, &config, &options(&two));
    let (want, got) = (losses(&one), losses(&two));
    let steps = steps() as usize;
    assert_eq!((want.len(), got.len()), (steps, steps));
    let error = want.iter().zip(&got).map(|(w, g)| f64::from((w - g) / w).abs()).fold(0.0, larger);
    println!("{model}: {} of {steps} losses are equal to the bit, others within {error:.1e}", {
        want.iter().zip(&got).filter(|(w, g)| w == g).count()
    });
    assert!(error < 1e-5, "{want:?}\n{got:?}");
    assert!(want[steps - 3..].iter().sum::<f32>() < want[..3].iter().sum::<f32>(), "it learns nothing: {want:?}");
}

#[test]
fn two_ranks_have_the_losses_of_one_process_with_resnet() {
    same_losses("resnet18");
}

#[test]
fn two_ranks_have_the_losses_of_one_process_with_a_unet() {
    same_losses("unet-small");
}

/// Writes the weights that a training begins with, each moved by its last bit or not.
fn nudged(gpu: &Gpu, config: &TrainConfig, dir: &Path) -> String {
    // One step that changes no weight.
    alone(gpu, &TrainConfig { lr: 1e-30, max_steps: Some(1), ..config.clone() }, &options(&dir.join("start")));
    let mut tensors = Checkpoint::read(&dir.join("start/weights/last.safetensors")).unwrap().weights;
    let mut draw = Draw::new(1, "nudges");
    for value in tensors.values_mut().flat_map(|tensor| tensor.data_mut()).filter(|value| **value != 0.0) {
        *value = f32::from_bits(value.to_bits() + draw.below(2) as u32);
    }
    let file = dir.join("nudged.safetensors");
    write_safetensors(&file, &WeightFile { tensors, ..WeightFile::default() }).unwrap();
    file.display().to_string()
}

/// With batch-norm over the whole batch the losses of ranks are those of one process with the batch in one piece, as far as
/// rounding goes: no further from them than one process that begins with weights moved by their last bits. (A rounding that takes
/// a value across the kink of a ReLU changes a gradient by a thousandth, and Adam makes whole steps of gradients that are nothing
/// but rounding, as those of a bias in front of a norm; so it is SGD that is compared.)
fn same_losses_with_shared_norms(model: &str, size: usize, lr: f64) {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    // Norms of few numbers may divide by nearly nothing, so the maps are larger, and as steps then take longer there are fewer.
    let (pixels, max_steps) = (64.into(), Some(number("LESION_STEPS", 6).max(6)));
    let sgd = TrainConfig { optimizer: OptimizerKind::Sgd, momentum: 0.0, lr, ..with_batch_norm(model) };
    let config = TrainConfig { size: pixels, max_steps, ..sgd };
    alone(&gpu, &config, &options(&dir.join("one")));
    let want = losses(&dir.join("one"));
    let error = |run: &str, steps: usize| {
        let got = losses(&dir.join(run));
        want.iter().zip(&got).take(steps).map(|(w, g)| f64::from((w - g) / w).abs()).fold(0.0, larger)
    };
    let weights = Some(nudged(&gpu, &config, dir));
    alone(&gpu, &TrainConfig { weights, ..config.clone() }, &options(&dir.join("nudged")));
    let shared = TrainConfig { sync_bn: true, ..config.clone() };
    together(&gpu, size, &shared, &options(&dir.join("shared")));
    let (noise, off) = (error("nudged", want.len()), error("shared", want.len()));
    println!(
        "{model}, {size} ranks, norms over the batch: the first two losses within {:.1e}, {} within {off:.1e}; with nudged \
         weights within {noise:.1e}",
        error("shared", 2),
        want.len()
    );
    assert_eq!(losses(&dir.join("shared")).len(), want.len());
    assert!(error("shared", 2) < 1e-4 && off < 10.0 * noise.max(1e-5), "{off} {noise} {want:?}");
    // Alone there is nobody to wait for; and of a rank's rows alone the statistics are others, which the first loss shows: later
    // ones may have gone across a kink.
    let short = |config: &TrainConfig| TrainConfig { max_steps: Some(2), ..config.clone() };
    alone(&gpu, &short(&shared), &options(&dir.join("alone")));
    assert_eq!(losses(&dir.join("alone")), want[..2]);
    together(&gpu, size, &short(&config), &options(&dir.join("own")));
    let (own, shared) = (error("own", 1), error("shared", 1));
    assert!(own > 100.0 * shared, "norms over a rank's rows do the same: {own} {shared}");
}

#[test]
fn norms_over_the_batch_give_the_losses_of_one_process_with_resnet() {
    same_losses_with_shared_norms("resnet18", 3, 1e-4);
}

#[test]
fn norms_over_the_batch_give_the_losses_of_one_process_with_a_unet() {
    same_losses_with_shared_norms("unet-resnet18", 2, 1e-3);
}

/// A norm with a ReLU behind it, forward and backward, of rows of a map `[rows, 3, 5, 8]`: result, gradient of x, what is added to
/// the gradients of gamma and beta, running statistics.
fn norm(gpu: &Gpu, data: &[Vec<f32>; 2], rows: std::ops::Range<usize>, ranks: Option<&Team>) -> Vec<Vec<f32>> {
    let map = TensorType::f32([rows.len(), 3, 5, 8]);
    let mut tape = Tape::new();
    let inputs = ["x", "d_y"].map(|name| tape.input_with_gradient(name, map.clone()));
    let vector = |tape: &mut Tape, name, trained| tape.variable(name, TensorType::f32([8]), trained).unwrap();
    let [gamma, beta] = ["gamma", "beta"].map(|name| vector(&mut tape, name, true));
    let [mean, var] = ["mean", "var"].map(|name| vector(&mut tape, name, false));
    let spec = BatchNorm { eps: 1e-5, momentum: 0.1 };
    let y = match ranks {
        None => batch_norm_train(&mut tape, inputs[0], Some(gamma), beta, mean, var, spec),
        Some(_) => {
            let shared = Shared { spec, rows: data[0].len() / 8 };
            batch_norm_shared(&mut tape, inputs[0], Some(gamma), beta, mean, var, shared)
        }
    };
    let y = relu(&mut tape, y.unwrap()).unwrap();
    let gradients = backward_from(&mut tape, &[(y, inputs[1])]).unwrap();
    let mut outputs = vec![y];
    outputs.extend([inputs[0], gamma, beta].map(|t| gradients.get(t).unwrap()));
    let plan = Plan::new(&tape, &outputs, gpu.caps()).unwrap();
    assert_eq!(plan.exchanges.len(), if ranks.is_some() { 2 } else { 0 });
    let mut store = Store::new();
    let mut executable = Executable::new(gpu, plan, &mut store).unwrap();
    for (name, value) in [("gamma", 1.5), ("beta", 0.25), ("mean", 0.5), ("var", 2.0)] {
        store.write(gpu, name, &HostTensor::full([8], value)).unwrap();
    }
    for (name, data) in ["x", "d_y"].into_iter().zip(data) {
        let own = &data[rows.start * 120..rows.end * 120];
        executable.set_input(gpu, name, bytemuck::cast_slice(own)).unwrap();
    }
    let pending = match ranks {
        None => executable.run_and_read(gpu),
        Some(team) => executable
            .run_part_with_others(gpu, Early { groups: &[], started: &mut |_| {} }, &mut |exchange, own| {
                exchange.combined(&team.exchange(&exchange.about(), Ok(exchange.message(own)))?)
            })
            .unwrap(),
    };
    let read = executable.finish_read(gpu, pending).unwrap();
    let floats = read.iter().map(|bytes| bytemuck::pod_collect_to_vec(bytes));
    floats.chain(["mean", "var"].map(|name| store.read(gpu, name).unwrap().into_data())).collect()
}

#[test]
fn a_norm_over_ranks_is_that_of_all_their_rows() {
    let Some(gpu) = common::gpu() else { return };
    let mut draw = Draw::new(1, "norms over ranks");
    let data = [3.0, 0.0].map(|mean| (0..7 * 120).map(|_| mean + draw.below(2001) as f32 / 1000.0 - 1.0).collect());
    let want = norm(&gpu, &data, 0..7, None);
    let parts = [0..2, 2..3, 3..7];
    let got: Vec<Vec<Vec<f32>>> = std::thread::scope(|scope| {
        let (gpu, data) = (&gpu, &data);
        let one = |(rank, rows)| scope.spawn(move || norm(gpu, data, rows, Some(&Team::new(Arc::new(rank)).unwrap())));
        let running: Vec<_> = threads(3).into_iter().zip(parts).map(one).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let close = |what: &str, want: &[f32], got: &[f32]| {
        let size = want.iter().fold(0.0, |size: f32, v| size.max(v.abs()));
        let off = want.iter().zip(got).map(|(w, g)| (w - g).abs()).fold(0.0, f32::max);
        assert!(want.len() == got.len() && off < 1e-5 * size, "{what}: {off:e} of {size:e}");
    };
    for (i, what) in ["y", "d_x"].into_iter().enumerate() {
        close(what, &want[i], &got.iter().flat_map(|rank| rank[i].clone()).collect::<Vec<_>>());
    }
    for (i, what) in [(2, "d_gamma"), (3, "d_beta")] {
        close(what, &want[i], &(0..8).map(|c| got.iter().map(|rank| rank[i][c]).sum()).collect::<Vec<_>>());
    }
    for (i, what) in [(4, "running mean"), (5, "running variance")] {
        got.iter().for_each(|rank| close(what, &want[i], &rank[i]));
        assert!(got.iter().all(|rank| rank[i] == got[0][i]), "{what}: ranks differ");
    }
}

/// Gradients rounded to 16 bits on the wire: the same bits each time, other ones than in 32 bits, and losses near those.
#[test]
fn sixteen_bits_on_the_wire_are_near_thirty_two_and_the_same_each_time() {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let config = config();
    let half = TrainConfig { wire: Wire::F16, ..config.clone() };
    together(&gpu, 3, &config, &options(&dir.join("f32")));
    for run in ["f16", "again"] {
        together(&gpu, 3, &half, &options(&dir.join(run)));
    }
    assert_equal(&dir.join("f16"), &dir.join("again"));
    let (want, got) = (losses(&dir.join("f32")), losses(&dir.join("f16")));
    // The first step has no gradients behind it.
    assert!(want[0] == got[0] && want[1..] != got[1..]);
    let error = want.iter().zip(&got).map(|(w, g)| f64::from((w - g) / w).abs()).fold(0.0, larger);
    println!("gradients in f16 on the wire: {} losses within {error:.1e} of those in f32", got.len());
    assert!(error < 1e-3, "{want:?}\n{got:?}");
    // It is recorded, and a rank with another is refused.
    assert!(table(&dir.join("f16"), "config.toml").contains("wire = \"f16\""));
    let mut parts = [Part::default(), Part::default()];
    let ended = ranks(&gpu, &[config, half], &options(&dir.join("both")), &mut parts);
    for error in ended.into_iter().map(|ended| ended.unwrap().unwrap_err().to_string()) {
        assert!(error.contains("rank 1 has another configuration than rank 0"), "{error}");
    }
}

#[test]
fn ranks_end_with_the_weights_and_the_scores_of_one_process() {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let config = TrainConfig { micro_batch: Some(2), ..config() };
    let one = alone(&gpu, &config, &options(&dir.join("one")));
    // With a part for each of four, the sums are those of one process to the bit; with three, some have two.
    let four = together(&gpu, 4, &TrainConfig { micro_batch: None, ..config.clone() }, &options(&dir.join("four")));
    assert_eq!(losses(&dir.join("one")), losses(&dir.join("four")));
    let weights = |run: &str| Checkpoint::read(&dir.join(run).join("weights/last.safetensors")).unwrap().weights;
    assert!(weights("one") == weights("four"), "the weights differ");
    let scores = |summary: &RunSummary| serde_json::to_value(&summary.test).unwrap();
    assert!(four.iter().all(|rank| scores(rank) == scores(&one)));
    let three = together(&gpu, 3, &config, &options(&dir.join("three")));
    let pairs = losses(&dir.join("one")).into_iter().zip(losses(&dir.join("three")));
    pairs.for_each(|(w, g)| assert!((w - g).abs() < 1e-5 * w, "{w} {g}"));
    assert_eq!(three.iter().filter(|rank| rank.test.is_some()).count(), 3);
    // One folder, as one process leaves it.
    let names = |run: &str| {
        let entries = std::fs::read_dir(dir.join(run)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names("one"), names("four"));
    for table_of in ["split.csv", "test.csv"] {
        assert_eq!(table(&dir.join("one"), table_of), table(&dir.join("four"), table_of));
    }
}

#[test]
fn the_same_ranks_end_the_same_and_interrupted_ones_go_on_with_any_number() {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    // Batch-norm, rows that cannot be shared out evenly, and an interruption in the middle of the second epoch.
    let config =
        TrainConfig { batch: 9, fine_tune: config().fine_tune, max_steps: Some(8), ..with_batch_norm("unet-small") };
    let config = TrainConfig { size: 32.into(), epochs: 3, ..config };
    together(&gpu, 2, &config, &options(&dir.join("whole")));
    let stop = |name: &str| {
        let mut parts = [Part::default(), Part { interrupted_after: Some(4), ..Part::default() }];
        let ended = ranks(&gpu, &vec![config.clone(); 2], &options(&dir.join(name)), &mut parts);
        for ended in ended {
            let error = ended.unwrap().unwrap_err();
            assert_eq!(error.kind(), Kind::Interrupted);
            let text = error.to_string();
            // The others hear of it in the next step.
            assert!(text.contains("after step 5") && text.contains("mpirun -n 2 lesion-gpu train --resume"), "{text}");
        }
    };
    let resumed = |name: &str| RunOptions { resume: true, ..options(&dir.join(name)) };
    stop("two");
    together(&gpu, 2, &config, &resumed("two"));
    assert_equal(&dir.join("whole"), &dir.join("two"));
    stop("three");
    together(&gpu, 3, &config, &resumed("three"));
    let (whole, three) = (losses(&dir.join("whole")), losses(&dir.join("three")));
    // From there on batch-norm's statistics are those of other rows.
    assert_eq!((whole.len(), &whole[..5]), (three.len(), &three[..5]));
    assert!(three.iter().all(|loss| loss.is_finite()) && whole[5..] != three[5..]);
    stop("one");
    alone(&gpu, &config, &resumed("one"));
    assert_eq!(losses(&dir.join("one")).len(), whole.len());
}

/// Two ranks whose second is otherwise; how it ended for each.
fn with_another(
    gpu: &Gpu,
    run: &Path,
    second: TrainConfig,
    parts: &mut [Part; 2],
) -> Vec<Option<Result<RunSummary, Error>>> {
    ranks(gpu, &[config(), second], &options(run), parts)
}

#[test]
fn a_rank_that_would_do_something_else_is_refused_and_named() {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        (TrainConfig { lr: 0.5, ..config() }, Kind::Usage, "rank 1 has another configuration than rank 0"),
        (TrainConfig { data: "nowhere.zip".into(), ..config() }, Kind::Io, "rank 1: "),
        (TrainConfig { batch: 1, ..config() }, Kind::Usage, "rank 1: a batch of 1 is not enough for 2 ranks"),
    ];
    for (second, kind, text) in cases {
        let run = folder.path().join("run");
        for ended in with_another(&gpu, &run, second, &mut Default::default()) {
            let error = ended.unwrap().unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(text), "{text}: {error}");
        }
        assert!(!run.exists());
    }
    // Other pictures under the same name.
    let data = folder.path().join("data.csv");
    let picture = |name: &str, colour| {
        let path = folder.path().join(name);
        image::RgbImage::from_pixel(24, 24, image::Rgb([colour, 90, 60])).save(&path).unwrap();
        format!("{name},{}\n", if colour > 100 { "a" } else { "b" })
    };
    let rows: String = (0..40_u8).map(|i| picture(&format!("{i}.png"), 80 + i)).collect();
    std::fs::write(&data, format!("path,label\n{rows}")).unwrap();
    let config = TrainConfig { data: data.display().to_string(), ..config() };
    let changed = std::sync::Once::new();
    let run_of = folder.path().join("changed");
    let options = options(&run_of);
    let ended: Vec<Error> = std::thread::scope(|scope| {
        let (gpu, config, options, changed, picture) = (&gpu, &config, &options, &changed, &picture);
        let one = |thread: Thread| {
            scope.spawn(move || {
                let options = RunOptions { team: Team::new(Arc::new(thread)).unwrap(), ..options.clone() };
                let second = !options.team.is_first();
                run(gpu, config, &options, &Interrupt::default(), &mut |event| {
                    // The second decodes when the first has.
                    if let Event::Decoding(..) = event
                        && second
                    {
                        changed.call_once(|| drop(picture("39.png", 200)));
                    }
                })
            })
        };
        let running: Vec<_> = threads(2).into_iter().map(one).collect();
        running.into_iter().map(|thread| thread.join().unwrap().unwrap_err()).collect()
    });
    assert!(ended.iter().all(|e| e.to_string().contains("rank 1 has another dataset than rank 0")), "{ended:?}");
}

/// Ranks that score their shares of the validation images stop at the same epoch, the one that one process stops at, also when they
/// are interrupted while they wait and go on as others.
#[test]
fn ranks_stop_early_together() {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    // Nothing is so much better than the first epoch, of which there are 20.
    let config = TrainConfig { epochs: 20, patience: 2, min_delta: 10.0, micro_batch: Some(2), ..config() };
    let stopped = |ranks: &[RunSummary]| {
        for rank in ranks {
            assert_eq!((rank.progress.epoch, rank.progress.stopped.len()), (3, 1), "{:?}", rank.progress);
            assert_eq!(rank.progress.stopped, ranks[0].progress.stopped);
        }
        ranks[0].progress.stopped[0].why.clone()
    };
    let one = stopped(&[alone(&gpu, &config, &options(&dir.join("one")))]);
    assert_eq!(one, stopped(&together(&gpu, 2, &config, &options(&dir.join("two")))));
    let steps = losses(&dir.join("two")).len();
    let mut parts = [Part { interrupted_after: Some(steps * 5 / 6), ..Part::default() }, Part::default()];
    for ended in ranks(&gpu, &vec![config.clone(); 2], &options(&dir.join("three")), &mut parts) {
        assert_eq!(ended.unwrap().unwrap_err().kind(), Kind::Interrupted);
    }
    assert_eq!(one, stopped(&together(&gpu, 3, &config, &RunOptions { resume: true, ..options(&dir.join("three")) })));
}

/// A rank whose driver computes a kernel wrongly is found before anything is trained.
#[test]
fn a_rank_that_computes_wrongly_is_refused_and_named() {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let (from, to) = ("v > best.value", "v < best.value");
    let fault = Some(Fault::Shader { file: "max_pool.wgsl".into(), from: from.into(), to: to.into() });
    let wrong = GpuOptions { fault, self_test: SelfTest::On(None), ..GpuOptions::default() };
    let wrong = common::gpu_with(wrong).unwrap();
    let mut parts = [Part::default(), Part::default()];
    for ended in ranks_on(&[&gpu, &wrong], &vec![config(); 2], &options(&run), &mut parts) {
        let error = ended.expect("no rank panics").unwrap_err();
        assert_eq!(error.kind(), Kind::SelfTest, "{error}");
        assert!(error.to_string().contains("rank 1") && error.to_string().contains("max_pool"), "{error}");
    }
    assert!(!run.exists(), "a run has begun");
}

#[test]
fn a_rank_that_is_gone_ends_the_others() {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let mut parts = [Part::default(), Part { gone_after: Some(3), ..Part::default() }];
    let ended = with_another(&gpu, &run, config(), &mut parts);
    assert!(ended[1].is_none());
    let error = ended[0].as_ref().unwrap().as_ref().unwrap_err();
    assert_eq!((error.kind(), error.what()), (Kind::RankLost, "rank 1 has ended"));
    Checkpoint::read(&run.join("weights/last.safetensors")).unwrap();
}

#[test]
fn a_rank_whose_device_is_lost_ends_all_with_that() {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    for sync_bn in [false, true] {
        let config = TrainConfig { sync_bn, max_steps: Some(4), ..with_batch_norm("unet-small") };
        let mut struck = 0;
        // From when there is a device to when it has done its work, in steps above all.
        let apart = 900 / number("LESION_FAULTS", 4).clamp(4, 900);
        for at in (0..).map(|n| 30 + apart * n) {
            let faulty =
                common::gpu_with(GpuOptions { fault: Some(Fault::Lost(at)), ..GpuOptions::default() }).unwrap();
            let run = folder.path().join(format!("{sync_bn}-{at}"));
            let mut parts = [Part::default(), Part::default()];
            let ended = ranks_on(&[&gpu, &faulty], &vec![config.clone(); 2], &options(&run), &mut parts);
            let ended: Vec<_> = ended.into_iter().map(|ended| ended.expect("no rank panics")).collect();
            if ended.iter().all(Result::is_ok) {
                break;
            }
            struck += 1;
            for ended in &ended {
                let error = ended.as_ref().unwrap_err();
                assert_eq!(error.kind(), Kind::DeviceLost, "{sync_bn} {at}: {error}");
                assert!(error.to_string().contains("rank 1"), "{sync_bn} {at}: {error}");
            }
        }
        println!("{struck} losses of a device, norms over the batch: {sync_bn}");
        assert!(struck > 2);
    }
}

#[test]
fn numbers_that_are_not_finite_are_told_by_the_rank_that_saw_them_first() {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let plain = TrainConfig {
        optimizer: OptimizerKind::Sgd,
        loss: LossKind::CrossEntropy,
        schedule: ScheduleKind::Constant,
        augment: AugmentConfig::NONE,
        fine_tune: FineTune::default(),
        ..config()
    };
    let hopeless = TrainConfig { lr: 1e30, divergence: Divergence::LowerRate, ..plain.clone() };
    let run = folder.path().join("hopeless");
    let mut parts = [Part::default(), Part::default()];
    for ended in ranks(&gpu, &vec![hopeless; 2], &options(&run), &mut parts) {
        let error = ended.unwrap().unwrap_err();
        assert_eq!(error.kind(), Kind::Diverged);
        assert!(error.to_string().contains("lowered three times did not help"), "{error}");
    }
    // Both have gone the same way, and only one has written of it.
    let went_back =
        |part: &Part| part.notes.iter().filter(|note| note.contains("went back")).cloned().collect::<Vec<_>>();
    assert_eq!(went_back(&parts[0]).len(), 3);
    assert_eq!(went_back(&parts[0]), went_back(&parts[1]));
    let dumps = std::fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let dumps: Vec<String> = dumps.filter(|name| name.starts_with("diverged-")).collect();
    assert!(!dumps.is_empty());
    let dump: serde_json::Value = serde_json::from_str(&table(&run, &dumps[0])).unwrap();
    assert_eq!((&dump["rank"], dump["images"].as_array().unwrap().len()), (&0.into(), 4));
    assert_eq!(dump["again"], true);
    // With a rate that is too high once, it goes on and comes to an end.
    let config = TrainConfig { lr: 0.4, epochs: 30, max_steps: Some(30), divergence: Divergence::LowerRate, ..plain };
    let run = folder.path().join("slower");
    let ended = together(&gpu, 2, &config, &options(&run));
    assert!(ended.iter().all(|rank| rank.progress.step == 30));
    assert_eq!(losses(&run).len(), 30);
}

#[test]
fn a_step_with_norms_over_the_batch_that_went_wrong_is_done_again_by_all() {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let config = TrainConfig { optimizer: OptimizerKind::Sgd, lr: 1e30, sync_bn: true, ..with_batch_norm("resnet18") };
    let mut parts = [Part::default(), Part::default()];
    for ended in ranks(&gpu, &vec![config; 2], &options(&run), &mut parts) {
        let error = ended.unwrap().unwrap_err();
        assert_eq!(error.kind(), Kind::Diverged, "{error}");
    }
    let names = std::fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let dumps: Vec<String> = names.filter(|name| name.starts_with("diverged-")).collect();
    assert_eq!(dumps.len(), 1, "one rank writes: {dumps:?}");
    let dump: serde_json::Value = serde_json::from_str(&table(&run, &dumps[0])).unwrap();
    assert_eq!((&dump["again"], dump["images"].as_array().unwrap().len()), (&true.into(), 4), "{dump}");
    assert!(dump["first"]["layer"].is_string(), "{}", dump["first"]);
}

#[test]
fn faster_ranks_take_more_and_go_on_so() {
    let Some(gpu) = common::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let config = TrainConfig { max_steps: Some(6), micro_batch: Some(2), ..config() };
    let by_speed = |name: &str| RunOptions { speeds: Some(vec![3.0, 1.0]), ..options(&dir.join(name)) };
    let mut parts = [Part::default(), Part::default()];
    for ended in ranks(&gpu, &vec![config.clone(); 2], &by_speed("uneven"), &mut parts) {
        ended.expect("no rank is gone").unwrap();
    }
    for part in &parts {
        assert!(
            part.notes.iter().any(|note| note.contains("of the micro-batches") && note.contains("rank 0 3, rank 1 1")),
            "{:?}",
            part.notes
        );
    }
    let environment = table(&dir.join("uneven"), "environment.json");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&environment).unwrap()["shares"], serde_json::json!([3, 1]));
    // Dropout goes by the part, so who computes it does not matter.
    alone(&gpu, &config, &options(&dir.join("alone")));
    for (a, b) in losses(&dir.join("alone")).iter().zip(losses(&dir.join("uneven"))) {
        assert!((a - b).abs() < 1e-5 * a, "{a} {b}");
    }
    // A resumed run need not be told.
    let mut parts = [Part { interrupted_after: Some(3), ..Part::default() }, Part::default()];
    ranks(&gpu, &vec![config.clone(); 2], &by_speed("stopped"), &mut parts);
    together(&gpu, 2, &config, &RunOptions { resume: true, ..options(&dir.join("stopped")) });
    assert_equal(&dir.join("uneven"), &dir.join("stopped"));
}
