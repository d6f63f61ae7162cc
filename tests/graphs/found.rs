//! What random graphs have found, each as small as it became.

use lesion_gpu::autograd::{Executable, Plan, Store, Tape, Tensor};
use lesion_gpu::gpu::Gpu;
use lesion_gpu::ops::accumulate::clear;
use lesion_gpu::ops::batch_norm::{BatchNorm, batch_norm_eval, batch_norm_train};
use lesion_gpu::ops::conv2d::{Conv2d, conv2d};
use lesion_gpu::ops::ema::ema;
use lesion_gpu::ops::sgd::{SgdConfig, sgd_update};
use lesion_gpu::ops::{Draw, backward_from};
use lesion_gpu::tensor::{HostTensor, TensorType};

use crate::common;

/// The outputs and all variables after a step that begins with positive values.
fn run(gpu: &Gpu, plan: Plan) -> Vec<Vec<f32>> {
    let mut store = Store::new();
    let outputs = plan.outputs.len();
    let executable = Executable::new(gpu, plan, &mut store).unwrap();
    let variables: Vec<(String, TensorType)> = store.types().map(|(name, ty)| (name.to_owned(), ty.clone())).collect();
    for (name, ty) in &variables {
        let mut draw = Draw::new(1, name);
        let values = (0..ty.shape.len()).map(|_| 0.5 + draw.below(1000) as f32 / 1000.0).collect();
        store.write(gpu, name, &HostTensor::new(ty.shape.clone(), values)).unwrap();
    }
    executable.run(gpu);
    let outputs = (0..outputs).map(|i| executable.read_output(gpu, i).unwrap().into_data());
    outputs.chain(variables.iter().map(|(name, _)| store.read(gpu, name).unwrap().into_data())).collect()
}

/// Planned and operation by operation: the same but for roundings.
fn compare(tape: &Tape, outputs: &[Tensor]) {
    let Some(gpu) = common::gpu() else { return };
    let planned = run(&gpu, Plan::new(tape, outputs, gpu.caps()).unwrap());
    let plain = run(&gpu, Plan::unfused(tape, outputs, gpu.caps()).unwrap());
    for (i, (a, b)) in planned.iter().zip(&plain).enumerate() {
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-5 * b.abs().max(1.0)), "{i}: {a:?} is not {b:?}");
    }
}

/// A view passed gradients on to what takes none.
#[test]
fn views_of_what_takes_no_gradient_have_none() {
    let mut tape = Tape::new();
    let frozen = tape.variable("frozen", TensorType::f32([2, 3]), false).unwrap();
    let trained = tape.variable("trained", TensorType::f32([2, 3]), true).unwrap();
    let views = [frozen, trained].map(|t| tape.view(t, [6]).unwrap());
    let seed = tape.input("seed", TensorType::f32([6]));
    let gradients = backward_from(&mut tape, &views.map(|view| (view, seed))).unwrap();
    assert!(gradients.get(frozen).is_none() && gradients.get(trained).is_some());
}

/// Batch-norm in evaluation was folded into the convolution before it with the statistics from before they changed.
#[test]
fn folding_reads_statistics_that_have_changed() {
    let mut tape = Tape::new();
    let mut variable = |name: &str, shape: &[usize]| tape.variable(name, TensorType::f32(shape), false).unwrap();
    let (x, weight, other) =
        (variable("x", &[1, 3, 3, 4]), variable("weight", &[1, 1, 4, 4]), variable("other", &[5, 4]));
    let [beta, mean, var] = ["beta", "mean", "var"].map(|name| variable(name, &[4]));
    let spec = BatchNorm { eps: 1e-5, momentum: 0.5 };
    let y = conv2d(&mut tape, x, weight, None, Conv2d::default()).unwrap();
    let trained = batch_norm_train(&mut tape, other, None, beta, mean, var, spec).unwrap();
    let evaluated = batch_norm_eval(&mut tape, y, None, beta, mean, var, spec).unwrap();
    compare(&tape, &[trained, evaluated]);
}

/// Variables that lie side by side were cleared together, though the first was read before the last was to be cleared.
#[test]
fn bundles_in_arenas_of_others_wait_for_nobody() {
    let mut tape = Tape::new();
    let mut variable = |name: String, length| tape.variable(&name, TensorType::f32([length]), false).unwrap();
    let rate = variable("rate".into(), 1);
    let fault = tape.variable("fault", TensorType::u32([1]), false).unwrap();
    let mut variable = |name: String, length| tape.variable(&name, TensorType::f32([length]), false).unwrap();
    let each = [0, 1]
        .map(|i| ["parameter", "total", "velocity", "average"].map(|name| variable(format!("{name} {i}"), 4 + 4 * i)));
    let config = SgdConfig { momentum: 0.9, weight_decay: 0.0, nesterov: false };
    for [parameter, total, velocity, _] in each {
        sgd_update(&mut tape, parameter, total, velocity, rate, fault, None, config).unwrap();
    }
    for [_, total, _, average] in each {
        clear(&mut tape, total).unwrap();
        ema(&mut tape, average, total, 0.5).unwrap();
    }
    compare(&tape, &[]);
}
