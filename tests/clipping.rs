//! Clipping by the norm of all gradients: steps equal PyTorch's, whatever the loss is scaled by, and with batches in parts
//! the norm is that of the whole batch.

mod common;

use lesion_gpu::autograd::{Executable, Plan, Store, Tape};
use lesion_gpu::data::Batch;
use lesion_gpu::gpu::Gpu;
use lesion_gpu::models::Model;
use lesion_gpu::ops::adam::AdamConfig;
use lesion_gpu::ops::{add::add, backward_from, mul::mul, scale::scale, sum::sum};
use lesion_gpu::optim::{Group, LossScaling, Optimizer};
use lesion_gpu::rng::Stream;
use lesion_gpu::tensor::{HostTensor, TensorType};
use lesion_gpu::train::{OptimizerKind, TrainConfig, TrainGraph, TrainSession};

/// What PyTorch 2.15 computes in f64 for the parameters `a[i] = 0.3 + 0.1 i` and `b[i] = -1 + 0.3 i`, the loss
/// `sum(a^2) + 3 sum(b^2)`, and six times `clip_grad_norm_([a, b], 4.0)` and a step of the optimizer at a rate of 0.1 for a
/// and 0.025 for b, weight decay 0.01, momentum 0.9. The norms before clipping were 11.5603, 10.8947, 9.634, 7.8464, 5.6052
/// and 3.0236, so that the last step was not clipped.
const SGD: ([f64; 12], [f64; 7]) = (
    [
        -0.0423510849,
        -0.0564681133,
        -0.0705851416,
        -0.0847021699,
        -0.0988191982,
        -0.112936227,
        -0.127053255,
        -0.141170283,
        -0.155287311,
        -0.16940434,
        -0.183521368,
        -0.197638396,
    ],
    [-0.0593702368, -0.0415591657, -0.0237480947, -0.00593702368, 0.0118740474, 0.0296851184, 0.0474961894],
);
/// The same with AdamW.
const ADAMW: ([f64; 12], [f64; 7]) = (
    [
        -0.139284005,
        -0.119904755,
        -0.0569475616,
        0.0251282979,
        0.11534329,
        0.209349728,
        0.305314828,
        0.402385517,
        0.500126569,
        0.598298152,
        0.696759448,
        0.795423328,
    ],
    [-0.848110904, -0.548731809, -0.249782908, 0.0299032992, 0.0529147041, 0.349318477, 0.648506324],
);

struct Small {
    executable: Executable,
    store: Store,
}

/// The step of that loss, with or without a scale.
fn small(gpu: &Gpu, optimizer: Optimizer, clip: f64, loss_scale: Option<f32>) -> Small {
    let mut tape = Tape::new();
    let mut squares = |name: &str, n: usize, factor: f32| {
        let w = tape.variable(name, TensorType::f32([n]), true).unwrap();
        let squares = mul(&mut tape, w, w).unwrap();
        let squares = sum(&mut tape, squares).unwrap();
        scale(&mut tape, squares, factor).unwrap()
    };
    let (a, b) = (squares("a", 12, 1.0), squares("b", 7, 3.0));
    let loss = add(&mut tape, a, b).unwrap();
    let scaling = loss_scale.map(|_| LossScaling::declare(&mut tape).unwrap());
    let one = tape.input("one", TensorType::f32([1]));
    let seed = scaling.as_ref().map_or(one, LossScaling::seed);
    let gradients = backward_from(&mut tape, &[(loss, seed)]).unwrap();
    let lr = tape.input("lr", TensorType::f32([1]));
    let group = |name: &str| Group { rate: if name == "a" { 1.0 } else { 0.25 }, weight_decay: 0.01 };
    optimizer.append_in_groups(&mut tape, &gradients, lr, scaling.as_ref(), Some(clip), &group).unwrap();
    let mut store = Store::new();
    let executable = Executable::new(gpu, Plan::new(&tape, &[loss], gpu.caps()).unwrap(), &mut store).unwrap();
    let start = |n: usize, first: f32, step: f32| (0..n).map(|i| first + step * i as f32).collect();
    store.write(gpu, "a", &HostTensor::new([12], start(12, 0.3, 0.1))).unwrap();
    store.write(gpu, "b", &HostTensor::new([7], start(7, -1.0, 0.3))).unwrap();
    if let Some(scale) = loss_scale {
        store.write(gpu, "optimizer.loss_scale", &HostTensor::full([1], scale)).unwrap();
    } else {
        executable.set_input(gpu, "one", &1.0_f32.to_le_bytes()).unwrap();
    }
    executable.set_input(gpu, "lr", &0.1_f32.to_le_bytes()).unwrap();
    Small { executable, store }
}

impl Small {
    fn values(&self, gpu: &Gpu, name: &str) -> Vec<f32> {
        self.store.read(gpu, name).unwrap().into_data()
    }
}

const ADAM: AdamConfig = AdamConfig { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, decoupled: true };

#[test]
fn clipped_steps_equal_pytorch() {
    let Some(gpu) = common::gpu() else { return };
    let sgd = Optimizer::Sgd { momentum: 0.9, weight_decay: 0.0, nesterov: false };
    for (optimizer, (a, b)) in [(sgd, SGD), (Optimizer::Adam(ADAM), ADAMW)] {
        for scale in [None, Some(65_536.0)] {
            let step = small(&gpu, optimizer, 4.0, scale);
            (0..6).for_each(|_| step.executable.run(&gpu));
            for (name, want) in [("a", &a[..]), ("b", &b[..])] {
                for (got, want) in step.values(&gpu, name).iter().zip(want) {
                    assert!((f64::from(*got) - want).abs() < 2e-6, "{optimizer:?} {scale:?} {name}: {got} {want}");
                }
            }
        }
    }
}

#[test]
fn an_overflow_of_a_scaled_loss_still_skips_the_step() {
    let Some(gpu) = common::gpu() else { return };
    let step = small(&gpu, Optimizer::Adam(ADAM), 4.0, Some(3e38));
    let before = step.values(&gpu, "a");
    step.executable.run(&gpu);
    assert_eq!(step.values(&gpu, "a"), before);
    assert_eq!(step.values(&gpu, "optimizer.loss_scale"), [1.5e38]);
    // The total has begun anew: the next step is that of a fresh start.
    step.store.write(&gpu, "optimizer.loss_scale", &HostTensor::full([1], 1024.0)).unwrap();
    step.executable.run(&gpu);
    let fresh = small(&gpu, Optimizer::Adam(ADAM), 4.0, None);
    fresh.executable.run(&gpu);
    for (a, b) in step.values(&gpu, "a").iter().zip(fresh.values(&gpu, "a")) {
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
}

/// Gradients that are no numbers are not hidden.
#[test]
fn a_norm_that_is_no_number_shows() {
    let Some(gpu) = common::gpu() else { return };
    let step = small(&gpu, Optimizer::Adam(ADAM), 4.0, None);
    step.executable.set_input(&gpu, "one", &f32::INFINITY.to_le_bytes()).unwrap();
    step.executable.run(&gpu);
    assert!(step.values(&gpu, "a").iter().all(|v| !v.is_finite()));
}

/// What one step of plain gradient descent at a rate of one moves, of a network with a batch in parts or as a whole.
fn moved(gpu: &Gpu, micro_batch: Option<usize>, clip_norm: Option<f64>) -> Vec<f64> {
    let config = TrainConfig {
        model: "simple-cnn".into(),
        size: 32.into(),
        batch: 8,
        micro_batch,
        optimizer: OptimizerKind::Sgd,
        momentum: 0.0,
        clip_norm,
        ..TrainConfig::default()
    };
    config.validate().unwrap();
    let model = Model::find(&config.model).unwrap();
    let graph = TrainGraph::new(model, &config, config.images_at_once(), 7, gpu.caps()).unwrap();
    let parameters = graph.parameters.clone();
    let mut store = Store::new();
    let mut session = TrainSession::new(gpu, graph, &[1.0; 7], &mut store).unwrap();
    let initial: Vec<HostTensor> = parameters.iter().map(|p| p.initial(5)).collect();
    for (p, value) in parameters.iter().zip(&initial) {
        store.write(gpu, &p.name, &p.to_device(value)).unwrap();
    }
    let stream = Stream::new(8, 9);
    let batch = Batch {
        pixels: (0..8 * 32 * 32).map(|i| stream.words([i, 0])[0]).collect(),
        labels: (0..8).map(|i| i % 7).collect(),
        samples: (0..8).collect(),
        keys: (0..8).collect(),
        valid: 8,
    };
    let _ = session.step(gpu, &batch, 0, 0, 1.0).unwrap();
    let _ = session.collect(gpu).unwrap();
    let after = parameters.iter().map(|p| p.to_file(&store.read(gpu, &p.name).unwrap()));
    let change = |(after, before): (HostTensor, &HostTensor)| -> Vec<f64> {
        after.data().iter().zip(before.data()).map(|(a, b)| f64::from(a - b)).collect()
    };
    after.zip(&initial).flat_map(change).collect()
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

#[test]
fn the_norm_is_that_of_the_whole_batch() {
    let Some(gpu) = common::gpu() else { return };
    for micro_batch in [None, Some(4)] {
        let free = moved(&gpu, micro_batch, None);
        let size = norm(&free);
        let half = moved(&gpu, micro_batch, Some(size / 2.0));
        assert!((norm(&half) / size - 0.5).abs() < 1e-4, "{micro_batch:?}: {} of {size}", norm(&half));
        let error: Vec<f64> = free.iter().zip(&half).map(|(free, half)| half - 0.5 * free).collect();
        assert!(norm(&error) < 1e-4 * size, "{micro_batch:?}: the direction differs by {}", norm(&error));
        // A norm that is not exceeded changes nothing but the last digit.
        let loose = moved(&gpu, micro_batch, Some(2.0 * size));
        let error: Vec<f64> = free.iter().zip(&loose).map(|(free, loose)| loose - free).collect();
        assert!(norm(&error) < 1e-6 * size, "{micro_batch:?}: {}", norm(&error));
    }
}
