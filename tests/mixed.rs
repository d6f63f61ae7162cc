//! Mixed precision as a whole: gradients against f32, loss scaling in a training step, and what happens without 16-bit
//! floats. The ops have their own cases.

mod common;

use lesion_gpu::Kind;
use lesion_gpu::autograd::{Executable, Gradients, Node, Plan, Store, Tape, Tensor};
use lesion_gpu::gpu::{Caps, DeviceClass, Feature, Gpu, GpuOptions};
use lesion_gpu::models::Model;
use lesion_gpu::nn::{Conv, Mode, Net, Parameter};
use lesion_gpu::ops::adam::AdamConfig;
use lesion_gpu::ops::softmax_cross_entropy::softmax_cross_entropy;
use lesion_gpu::ops::{STEP, backward, backward_from};
use lesion_gpu::optim::{LossScaling, Optimizer};
use lesion_gpu::rng::Stream;
use lesion_gpu::tensor::{DType, TensorType};
use lesion_gpu::train::{Precision, TrainConfig, TrainGraph};

const BATCH: usize = 8;
const SIZE: usize = 32;
const CLASSES: usize = 7;

/// A device with 16-bit floats.
fn half_gpu() -> Option<Gpu> {
    let gpu = common::gpu()?;
    if !gpu.caps().f16 {
        println!("skipped: {} has no 16-bit floats", gpu.adapter().name);
        return None;
    }
    Some(gpu)
}

/// A small residual network whose loss is a smooth function of its weights: sigmoids and no max-pooling.
fn smooth(net: &mut Net<'_>, x: Tensor) -> lesion_gpu::Result<Tensor> {
    let x = net.conv("conv1", x, Conv::new(16, 3).padding(1))?;
    let x = net.batch_norm("bn1", x)?;
    let mut x = net.sigmoid(x)?;
    for (name, filters, stride) in [("a", 16, 1), ("b", 32, 2), ("c", 32, 1), ("d", 64, 2), ("e", 64, 1)] {
        x = net.scope(name, |net| {
            let y = net.conv("conv1", x, Conv::new(filters, 3).stride(stride).padding(1))?;
            let y = net.batch_norm("bn1", y)?;
            let y = net.sigmoid(y)?;
            let y = net.conv("conv2", y, Conv::new(filters, 3).padding(1))?;
            let y = net.batch_norm("bn2", y)?;
            let short = if stride == 1 { x } else { net.conv("short", x, Conv::new(filters, 1).stride(stride))? };
            let y = net.add(y, short)?;
            net.sigmoid(y)
        })?;
    }
    let x = net.squeeze_excite("se", x, 16)?;
    let x = net.global_avg_pool(x)?;
    let logits = net.linear("fc", x, CLASSES)?;
    net.full_precision(logits)
}

/// A classifier and its loss on one batch.
struct Traced {
    tape: Tape,
    loss: Tensor,
    parameters: Vec<Parameter>,
}

fn trace(model: &str, dtype: DType) -> Traced {
    let mut tape = Tape::new();
    let images = tape.input("images", TensorType { shape: [BATCH, SIZE, SIZE, 3].into(), dtype });
    let mut net = Net::new(&mut tape, Mode::Train, 1).without_dropout();
    let logits = match model {
        "smooth" => smooth(&mut net, images).unwrap(),
        name => Model::find(name).unwrap().forward(&mut net, images, CLASSES).unwrap(),
    };
    let parameters = net.into_parameters();
    let labels = tape.input("labels", TensorType::u32([BATCH]));
    assert_eq!(tape.ty(logits).dtype, DType::F32, "logits reach the loss in f32");
    let loss = softmax_cross_entropy(&mut tape, logits, labels, None, 0.0).unwrap();
    Traced { tape, loss, parameters }
}

fn feed(gpu: &Gpu, executable: &Executable, dtype: DType) {
    let stream = Stream::named(5, "images");
    let images: Vec<f32> = (0..(BATCH * SIZE * SIZE * 3) as u64).map(|i| stream.normal(i)).collect();
    executable.set_input(gpu, "images", &dtype.encode(&images)).unwrap();
    let labels: Vec<u32> = (0..BATCH as u32).map(|n| n % CLASSES as u32).collect();
    executable.set_input(gpu, "labels", bytemuck::cast_slice(&labels)).unwrap();
}

fn initialise(gpu: &Gpu, store: &Store, parameters: &[Parameter]) {
    for p in parameters {
        store.write(gpu, &p.name, &p.to_device(&p.initial(3))).unwrap();
    }
}

/// The loss and the gradients of all parameters by name, planned for `caps`, in f32 or in f16 with a loss scale.
fn gradients(gpu: &Gpu, caps: &Caps, model: &str, precision: Precision) -> (f64, Vec<(String, Vec<f64>)>) {
    let mixed = precision == Precision::Mixed;
    let dtype = if mixed { DType::F16 } else { DType::F32 };
    let Traced { mut tape, loss, parameters } = trace(model, dtype);
    let (found, scale): (Gradients, f64) = if mixed {
        let seed = tape.variable("seed", TensorType::f32([1]), false).unwrap();
        (backward_from(&mut tape, &[(loss, seed)]).unwrap(), 1024.0)
    } else {
        (backward(&mut tape, loss).unwrap(), 1.0)
    };
    let trainable = tape.trainable();
    let of: Vec<Tensor> = trainable.iter().map(|(_, t)| found.get(*t).unwrap()).collect();
    assert!(of.iter().all(|&t| tape.ty(t).dtype == DType::F32), "gradients of parameters are f32");
    let plan = Plan::new(&tape, &[&[loss][..], &of].concat(), caps).unwrap();
    let mut store = Store::new();
    let executable = Executable::new(gpu, plan, &mut store).unwrap();
    initialise(gpu, &store, &parameters);
    if mixed {
        store.write_bytes(gpu, "seed", &(scale as f32).to_le_bytes()).unwrap();
    }
    feed(gpu, &executable, dtype);
    executable.run(gpu);
    let output = |i: usize| -> Vec<f64> {
        executable.read_output(gpu, i).unwrap().into_data().into_iter().map(f64::from).collect()
    };
    let named = trainable.into_iter().enumerate();
    let named = named.map(|(i, (name, _))| (name, output(i + 1).into_iter().map(|g| g / scale).collect()));
    (output(0)[0], named.collect())
}

fn squares(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|v| v * v).sum()
}

/// Normalised L2 error of the whole gradient and the largest of a parameter's. Activations are rounded to 11 bits, so a
/// smooth network's gradient has an error of a few units of 2^-11. ReLU and max-pooling have kinks: where two pixels
/// are equal but for the rounding, or an activation is nearly zero, a gradient takes another way as a whole, and a few
/// such places in ten thousand are an error of several per cent. That is the number format, not the kernels: PyTorch's
/// f16 autocast of a ResNet-18 on as many images of noise has an error of 0.13 to its f32.
#[test]
fn gradients_in_mixed_precision_are_those_in_f32() {
    let Some(gpu) = half_gpu() else { return };
    for (model, whole, each) in [("smooth", 5e-3, 2e-2), ("simple-cnn", 0.2, 0.3), ("resnet18", 0.3, 0.4)] {
        let (loss, full) = gradients(&gpu, gpu.caps(), model, Precision::F32);
        let (half_loss, half) = gradients(&gpu, gpu.caps(), model, Precision::Mixed);
        let (mut error, mut size, mut worst) = (0.0, 0.0, (0.0, ""));
        for ((name, want), (same, got)) in full.iter().zip(&half) {
            assert_eq!(name, same);
            let (e, s) = (squares(want.iter().zip(got).map(|(a, b)| a - b)), squares(want.iter().copied()));
            assert!(s > 0.0 && e.is_finite(), "{model} {name}: {e} of {s}");
            let relative = (e / s).sqrt();
            if relative > worst.0 {
                worst = (relative, name);
            }
            error += e;
            size += s;
        }
        let (error, loss_error) = ((error / size).sqrt(), (half_loss - loss).abs() / loss);
        println!("{model}: loss {loss_error:.1e}, gradient {error:.1e}, worst {:.1e} of {}", worst.0, worst.1);
        assert!(error > 0.0, "{model}: mixed precision computes something else than f32");
        assert!(loss_error < 5e-3 && error < whole && worst.0 < each, "{model}: {loss_error} {error} {worst:?}");
    }
}

/// A whole network by cooperative matrices, planned as for a device that chooses them by itself: the same gradients.
#[test]
fn cooperative_matrices_serve_a_whole_network() {
    let Some(gpu) = half_gpu() else { return };
    if gpu.caps().matrices.is_none() {
        println!("skipped: {} has no cooperative matrices", gpu.adapter().name);
        return;
    }
    let without = Caps { matrices: None, ..gpu.caps().clone() };
    let with = Caps { class: DeviceClass::Discrete, ..gpu.caps().clone() };
    let config = TrainConfig { precision: Precision::Mixed, ..TrainConfig::default() };
    let graph = TrainGraph::new(Model::find("resnet18").unwrap(), &config, BATCH, CLASSES, &with).unwrap();
    let kernels = graph.plan.dispatches.iter().map(|d| &d.dispatch.kernel);
    let products = kernels.filter(|kernel| kernel.matrices.is_some()).count();
    // 20 convolutions and a linear layer, forward and backward; the pictures have no gradient.
    assert_eq!(products, 3 * 21 - 1);
    let (loss, plain) = gradients(&gpu, &without, "smooth", Precision::Mixed);
    let (coop_loss, coop) = gradients(&gpu, &with, "smooth", Precision::Mixed);
    let difference = plain.iter().zip(&coop).map(|((_, a), (_, b))| squares(a.iter().zip(b).map(|(a, b)| a - b)));
    let error = (difference.sum::<f64>() / plain.iter().map(|(_, a)| squares(a.iter().copied())).sum::<f64>()).sqrt();
    println!("by cooperative matrices: loss {coop_loss} and {loss}, gradient {error:.1e}");
    assert!((coop_loss - loss).abs() < 1e-3 * loss && error > 0.0 && error < 5e-3, "{coop_loss} {loss} {error}");
}

/// A training step with loss scaling on a device.
struct Step {
    executable: Executable,
    store: Store,
    names: Vec<String>,
}

fn step(gpu: &Gpu, optimizer: Optimizer) -> Step {
    let Traced { mut tape, loss, parameters } = trace("simple-cnn", DType::F16);
    let scaling = LossScaling::declare(&mut tape).unwrap();
    let gradients = backward_from(&mut tape, &[(loss, scaling.seed())]).unwrap();
    let rate = tape.input("rate", TensorType::f32([1]));
    optimizer.append(&mut tape, &gradients, rate, Some(&scaling)).unwrap();
    let mut store = Store::new();
    let executable = Executable::new(gpu, Plan::new(&tape, &[loss], gpu.caps()).unwrap(), &mut store).unwrap();
    initialise(gpu, &store, &parameters);
    LossScaling::initialise(gpu, &store).unwrap();
    executable.set_input(gpu, "rate", &1e-3f32.to_le_bytes()).unwrap();
    feed(gpu, &executable, DType::F16);
    let names = store.types().map(|(name, _)| name.to_owned()).collect();
    Step { executable, store, names }
}

impl Step {
    /// Everything that persists but the scale and its counts.
    fn state(&self, gpu: &Gpu) -> Vec<Vec<u8>> {
        let names = self.names.iter().filter(|name| !name.starts_with("optimizer.loss_scale"));
        names.map(|name| self.store.read_bytes(gpu, name).unwrap()).collect()
    }

    fn floats(&self, gpu: &Gpu, name: &str) -> Vec<f32> {
        self.store.read(gpu, name).unwrap().into_data()
    }

    fn count(&self, gpu: &Gpu) -> u32 {
        u32::from_le_bytes(self.store.read_bytes(gpu, STEP).unwrap().try_into().unwrap())
    }

    fn write(&self, gpu: &Gpu, name: &str, values: &[f32]) {
        self.store.write_bytes(gpu, name, bytemuck::cast_slice(values)).unwrap();
    }
}

const SCALE: &str = "optimizer.loss_scale";
const STEPS: &str = "optimizer.loss_scale_steps";

#[test]
fn an_overflow_skips_the_whole_update_and_halves_the_scale() {
    let Some(gpu) = half_gpu() else { return };
    let adam = AdamConfig { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, decoupled: true };
    let sgd = Optimizer::Sgd { momentum: 0.9, weight_decay: 0.01, nesterov: false };
    for optimizer in [Optimizer::Adam(adam), sgd] {
        let step = step(&gpu, optimizer);
        assert_eq!(step.floats(&gpu, SCALE), [65_536.0]);
        step.write(&gpu, SCALE, &[1024.0]);
        step.executable.run(&gpu);
        assert_eq!((step.floats(&gpu, SCALE), step.floats(&gpu, STEPS)), (vec![1024.0], vec![1.0, 0.0]));
        assert_eq!(step.count(&gpu), 1);
        let before = step.state(&gpu);
        // So large that the gradients of the activations are beyond f16.
        step.write(&gpu, SCALE, &[2f32.powi(40)]);
        for skipped in 1..4 {
            step.executable.run(&gpu);
            assert!(step.state(&gpu) == before, "{optimizer:?}: a skipped step changed something");
            assert_eq!(step.floats(&gpu, SCALE), [2f32.powi(40 - skipped)]);
            assert_eq!(step.floats(&gpu, STEPS), [0.0, skipped as f32]);
        }
        // The next step without an overflow is the 2000th since the last change.
        step.write(&gpu, SCALE, &[1024.0]);
        step.write(&gpu, STEPS, &[1999.0, 3.0]);
        step.executable.run(&gpu);
        assert!(step.state(&gpu) != before, "{optimizer:?}: the step after an overflow was skipped");
        assert_eq!((step.floats(&gpu, SCALE), step.floats(&gpu, STEPS)), (vec![2048.0], vec![0.0, 3.0]));
        assert_eq!(step.count(&gpu), 2);
    }
}

/// What is added to the weights depends on the scale by rounding only: gradients are divided by it.
#[test]
fn the_scale_does_not_change_the_update() {
    let Some(gpu) = half_gpu() else { return };
    let moved = |scale: f32| -> Vec<f32> {
        let step = step(&gpu, Optimizer::Sgd { momentum: 0.0, weight_decay: 0.0, nesterov: false });
        let before = step.floats(&gpu, "conv2.weight");
        step.write(&gpu, SCALE, &[scale]);
        step.executable.run(&gpu);
        step.floats(&gpu, "conv2.weight").iter().zip(before).map(|(a, b)| a - b).collect()
    };
    let (small, large) = (moved(256.0), moved(4096.0));
    let error = squares(small.iter().zip(&large).map(|(a, b)| f64::from(a - b)));
    let size = squares(large.iter().map(|&v| f64::from(v)));
    assert!(size > 0.0 && (error / size).sqrt() < 2e-2, "{error} {size}");
}

#[test]
fn without_16_bit_floats_mixed_precision_is_refused_clearly() {
    let Some(gpu) = common::gpu_with(GpuOptions { without: vec![Feature::F16], ..GpuOptions::default() }) else {
        return;
    };
    assert!(!gpu.caps().f16);
    let config = TrainConfig { model: "simple-cnn".into(), precision: Precision::Mixed, ..TrainConfig::default() };
    let model = Model::find(&config.model).unwrap();
    let planned = TrainGraph::new(model, &config, 8, CLASSES, gpu.caps()).unwrap_err();
    for error in [config.precision.check(&gpu).unwrap_err(), planned] {
        assert_eq!(error.kind(), Kind::Unsupported);
        assert!(error.to_string().contains("--precision f32"), "{error}");
    }
    assert!(Precision::F32.check(&gpu).is_ok());
}

/// Activations and their gradients take half the memory. Parameters and optimizer state take what they took, and all their
/// gradients are alive together until the last was looked at for overflows, so small pictures save nothing.
#[test]
fn mixed_precision_takes_less_memory() {
    let caps = Caps { f16: true, max_binding: 2 << 30, max_buffer: 4 << 30, ..Caps::baseline() };
    let memory = |precision| {
        let config = TrainConfig { precision, size: 224.into(), ..TrainConfig::default() };
        TrainGraph::new(Model::find("resnet18").unwrap(), &config, 32, CLASSES, &caps).unwrap().plan.memory
    };
    let (full, mixed) = (memory(Precision::F32), memory(Precision::Mixed));
    println!("resnet18, 32 images of 224x224: {full:?} and {mixed:?}");
    assert_eq!(mixed.variables - full.variables, 16, "the scale, two counts and the flag");
    let share = mixed.slots as f64 / full.slots as f64;
    assert!(share < 0.65, "activations and gradients take {share} of f32's memory");
}

/// Kernels read values and gradients at one precision, so what is wider is narrowed first, by one cast.
#[test]
fn a_gradient_wider_than_its_value_is_narrowed_where_kernels_cannot_read_it() {
    for layer in ["conv", "batch_norm", "channel_mul"] {
        for wide in [false, true] {
            let mut tape = Tape::new();
            let half = |dims: &[usize]| TensorType { shape: dims.into(), dtype: DType::F16 };
            let images = tape.input("images", half(&[2, 8, 8, 4]));
            let d_y = half(&[2, 8, 8, 4]);
            let d_y = tape.input("d_y", if wide { TensorType { dtype: DType::F32, ..d_y } } else { d_y });
            let mut net = Net::new(&mut tape, Mode::Train, 1);
            let x = net.conv("first", images, Conv::new(4, 3).padding(1)).unwrap();
            let y = match layer {
                "conv" => net.conv("second", x, Conv::new(4, 3).padding(1)),
                "batch_norm" => net.batch_norm("bn", x),
                _ => net.squeeze_excite("se", x, 2),
            };
            let forward = tape.nodes().len();
            backward_from(&mut tape, &[(y.unwrap(), d_y)]).unwrap();
            let narrowed = |node: &&Node| node.op.name() == "cast" && node.inputs == [d_y];
            assert_eq!(tape.nodes()[forward..].iter().filter(narrowed).count(), usize::from(wide), "{layer}");
        }
    }
}
