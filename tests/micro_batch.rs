//! A batch computed in parts: the same loss and the same update as from the parts one by one.

mod common;

use lesion_gpu::autograd::Store;
use lesion_gpu::data::Batch;
use lesion_gpu::gpu::Gpu;
use lesion_gpu::models::Model;
use lesion_gpu::nn::Parameter;
use lesion_gpu::rng::Stream;
use lesion_gpu::train::{
    AugmentConfig, Blend, LossKind, OptimizerKind, Partners, StepResult, TrainConfig, TrainGraph, TrainSession,
};

const SIZE: usize = 32;
const CLASSES: usize = 7;
const WEIGHTS: [f32; CLASSES] = [0.5, 2.0, 1.0, 4.0, 0.25, 1.5, 3.0];

fn images(range: std::ops::Range<u32>) -> Batch {
    let stream = Stream::new(8, 9);
    let pixels = (SIZE * SIZE) as u32;
    Batch {
        pixels: (range.start * pixels..range.end * pixels).map(|i| stream.words([i, 0])[0]).collect(),
        labels: range.clone().map(|i| i * i % CLASSES as u32).collect(),
        samples: range.clone().collect(),
        keys: range.clone().collect(),
        valid: range.len(),
    }
}

struct Run {
    session: TrainSession,
    store: Store,
    parameters: Vec<Parameter>,
    mixes: bool,
}

/// Partners of as many images: those from 20 on, mixed more and more, one in two by a box.
fn partners(range: std::ops::Range<u32>) -> Partners {
    let blend = |i: u32| {
        let label = 1.0 - i as f32 / 16.0;
        match i % 2 {
            0 => Blend { partner: 20 + i as usize, share: label, patch: [0; 4], label },
            _ => Blend { partner: 20 + i as usize, share: 1.0, patch: [i, 3, i + 9, 20], label },
        }
    };
    Partners { batch: images(20 + range.start..20 + range.end), blends: range.map(blend).collect() }
}

/// Plain gradient descent from the same weights, so that an update shows the gradient.
fn run(gpu: &Gpu, batch: usize, micro_batch: Option<usize>) -> Run {
    run_of(gpu, batch, micro_batch, LossKind::CrossEntropy, false)
}

fn run_of(gpu: &Gpu, batch: usize, micro_batch: Option<usize>, loss: LossKind, mixes: bool) -> Run {
    let config = TrainConfig {
        loss,
        augment: AugmentConfig { mixup: if mixes { 0.3 } else { 0.0 }, ..AugmentConfig::NONE },
        model: "simple-cnn".into(),
        size: SIZE.into(),
        batch,
        micro_batch,
        optimizer: OptimizerKind::Sgd,
        momentum: 0.0,
        ..TrainConfig::default()
    };
    config.validate().unwrap();
    let model = Model::find(&config.model).unwrap();
    let graph = TrainGraph::new(model, &config, config.images_at_once(), CLASSES, gpu.caps()).unwrap();
    let parameters = graph.parameters.clone();
    let mut store = Store::new();
    let session = TrainSession::new(gpu, graph, &WEIGHTS, &mut store).unwrap();
    for p in &parameters {
        store.write(gpu, &p.name, &p.to_device(&p.initial(5))).unwrap();
    }
    Run { session, store, parameters, mixes }
}

impl Run {
    fn step(&mut self, gpu: &Gpu, range: std::ops::Range<u32>, step: u64, lr: f64) -> StepResult {
        let partners = self.mixes.then(|| partners(range.clone()));
        let early = self.session.step_mixed(gpu, (&images(range), partners.as_ref()), step, 0, lr).unwrap();
        let late = self.session.collect(gpu).unwrap();
        early.or(late).expect("a result")
    }

    fn weights(&self, gpu: &Gpu) -> Vec<Vec<f32>> {
        self.parameters.iter().map(|p| self.store.read(gpu, &p.name).unwrap().into_data()).collect()
    }
}

#[test]
fn parts_add_up_to_the_batch() {
    add_up(LossKind::CrossEntropy, false);
}

#[test]
fn parts_of_mixed_images_add_up_to_the_batch() {
    for loss in [LossKind::CrossEntropy, LossKind::Bce] {
        add_up(loss, true);
    }
}

fn add_up(loss: LossKind, mixes: bool) {
    let Some(gpu) = common::gpu() else { return };
    let (whole, part, rate) = (12, 4, 0.5);
    let run = |batch, part| run_of(&gpu, batch, part, loss, mixes);
    let mut in_parts = run(whole, Some(part));
    let start = in_parts.weights(&gpu);
    let result = in_parts.step(&gpu, 0..12, 0, rate);
    let got = in_parts.weights(&gpu);

    // Each part alone, as a step of its own from the same weights; dropout draws by the number of the part.
    let (mut loss, mut correct, mut want) = (0.0, 0, start.clone());
    let weight = |range: std::ops::Range<u32>| -> f32 {
        let of = |batch: Batch| batch.labels.into_iter().map(|label| WEIGHTS[label as usize]);
        match mixes {
            false => of(images(range)).sum(),
            true => {
                let Partners { batch, blends } = partners(range.clone());
                let both = of(images(range)).zip(of(batch)).zip(blends);
                both.map(|((own, other), blend)| blend.label * own + (1.0 - blend.label) * other).sum()
            }
        }
    };
    let all = weight(0..12);
    for i in 0..3_u32 {
        let mut alone = run(part, None);
        alone.store.write_bytes(&gpu, "optimizer.step", &i.to_le_bytes()).unwrap();
        let range = 4 * i..4 * (i + 1);
        let share = weight(range.clone()) / all;
        let result = alone.step(&gpu, range, u64::from(i), rate);
        (loss, correct) = (loss + share * result.loss, correct + result.correct);
        for ((want, after), before) in want.iter_mut().zip(alone.weights(&gpu)).zip(&start) {
            want.iter_mut().zip(after.iter().zip(before)).for_each(|(w, (a, b))| *w += share * (a - b));
        }
    }
    assert_eq!((result.images, result.correct, result.step), (12, correct, 0));
    assert!((result.loss - loss).abs() <= 1e-5 * loss.abs(), "{} {loss}", result.loss);
    for ((got, want), (before, p)) in got.iter().zip(&want).zip(start.iter().zip(&in_parts.parameters)) {
        let moved = want.iter().zip(before).map(|(w, b)| (w - b).powi(2)).sum::<f32>().sqrt();
        let error = want.iter().zip(got).map(|(w, g)| (w - g).powi(2)).sum::<f32>().sqrt();
        assert!(moved > 0.0 && error <= 1e-4 * moved, "{}: moved {moved:.2e}, error {error:.2e}", p.name);
    }
    // The totals were cleared: a step without a rate changes nothing, and the next is not larger than it should be.
    in_parts.step(&gpu, 0..12, 1, 0.0);
    assert_eq!(in_parts.weights(&gpu), got);
}

#[test]
fn a_single_part_is_the_batch_itself() {
    let Some(gpu) = common::gpu() else { return };
    let (mut plain, mut single) = (run(&gpu, 8, None), run(&gpu, 8, Some(8)));
    for step in 0..3 {
        let range = 8 * step..8 * (step + 1);
        let step = u64::from(step);
        assert_eq!(plain.step(&gpu, range.clone(), step, 0.1), single.step(&gpu, range, step, 0.1));
    }
    assert_eq!(plain.weights(&gpu), single.weights(&gpu));
}

#[test]
fn parts_take_less_memory_and_must_divide_the_batch() {
    let Some(gpu) = common::gpu() else { return };
    let memory = |micro| run(&gpu, 32, micro).session.memory();
    assert!(memory(Some(4)).total() < memory(None).total() / 2);
    let odd = TrainConfig { batch: 32, micro_batch: Some(5), ..TrainConfig::default() };
    assert!(odd.validate().unwrap_err().to_string().contains("--micro-batch"));
}
