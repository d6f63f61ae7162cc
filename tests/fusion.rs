//! What the planner fuses computes the same numbers, in f32 to the bit unless it sums in another order, in fewer launches.

mod common;

use lesion_gpu::autograd::{Executable, Gradients, Memory, Plan, Store, Tape, Tensor};
use lesion_gpu::gpu::{Caps, DeviceClass, Gpu, TextureLoads};
use lesion_gpu::models::Model;
use lesion_gpu::nn::{Mode, Net, Parameter};
use lesion_gpu::ops::adam::AdamConfig;
use lesion_gpu::ops::add::add;
use lesion_gpu::ops::conv2d::{Backend, Conv2d, STRIPS, WORKGROUP_TILES, WorkgroupTile, conv2d};
use lesion_gpu::ops::{backward, softmax_cross_entropy::softmax_cross_entropy};
use lesion_gpu::optim::Optimizer;
use lesion_gpu::rng::Stream;
use lesion_gpu::tensor::TensorType;

const BATCH: usize = 3;
const SIZE: usize = 40;
const SMALLEST_TILE: WorkgroupTile = WORKGROUP_TILES[WORKGROUP_TILES.len() - 1];

struct Traced {
    tape: Tape,
    outputs: Vec<Tensor>,
    parameters: Vec<Parameter>,
}

/// Loss, logits and all gradients of a training step; in evaluation mode only the logits.
fn trace(model: &str, mode: Mode) -> Traced {
    let mut tape = Tape::new();
    let x = tape.input("x", TensorType::f32([BATCH, SIZE, SIZE, 3]));
    let mut net = Net::new(&mut tape, mode, 0);
    let logits = Model::find(model).unwrap().forward(&mut net, x, 7).unwrap();
    let parameters = net.into_parameters();
    let mut outputs = vec![logits];
    if mode == Mode::Train {
        let labels = tape.input("labels", TensorType::u32([BATCH]));
        let loss = softmax_cross_entropy(&mut tape, logits, labels, None, 0.0).unwrap();
        let gradients = backward(&mut tape, loss).unwrap();
        outputs.push(loss);
        outputs.extend(tape.trainable().into_iter().filter_map(|(_, parameter)| gradients.get(parameter)));
    }
    Traced { tape, outputs, parameters }
}

/// A plan of what was traced, with the parameters and inputs of these tests.
fn ready(gpu: &Gpu, traced: &Traced, plan: Plan, store: &mut Store) -> Executable {
    let executable = Executable::new(gpu, plan, store).unwrap();
    for p in &traced.parameters {
        store.write(gpu, &p.name, &p.to_device(&p.initial(5))).unwrap();
    }
    let stream = Stream::new(3, 4);
    let pixels: Vec<f32> = (0..(BATCH * SIZE * SIZE * 3) as u64).map(|i| stream.normal(i)).collect();
    executable.set_input(gpu, "x", bytemuck::cast_slice(&pixels)).unwrap();
    if traced.outputs.len() > 1 {
        executable.set_input(gpu, "labels", bytemuck::cast_slice(&[0_u32, 3, 6])).unwrap();
    }
    executable
}

fn computed(gpu: &Gpu, traced: &Traced, executable: &Executable) -> Vec<Vec<f32>> {
    executable.run(gpu);
    (0..traced.outputs.len()).map(|i| executable.read_output(gpu, i).unwrap().into_data()).collect()
}

fn run(gpu: &Gpu, traced: &Traced, plan: Plan) -> Vec<Vec<f32>> {
    computed(gpu, traced, &ready(gpu, traced, plan, &mut Store::new()))
}

#[test]
fn fused_plans_compute_the_same_bits() {
    let Some(gpu) = common::gpu() else { return };
    // The convolutions of a device without subgroups have too few rows an invocation to gather statistics.
    let caps = Caps { subgroups: None, ..gpu.caps().clone() };
    for model in ["resnet18", "simple-cnn"] {
        let traced = trace(model, Mode::Train);
        let fused = Plan::new(&traced.tape, &traced.outputs, &caps).unwrap();
        let plain = Plan::unfused(&traced.tape, &traced.outputs, &caps).unwrap();
        let (fused, plain) = (run(&gpu, &traced, fused), run(&gpu, &traced, plain));
        let differing = fused.iter().zip(&plain).filter(|(a, b)| a != b).count();
        assert_eq!(differing, 0, "{model}: {differing} of {} tensors differ", plain.len());
        assert!(plain.iter().flatten().any(|v| *v != 0.0));
    }
}

/// A compiler that sees all terms of a short sum may add what follows to one of them: Mesa 22.3's does with two.
#[test]
fn residuals_are_added_to_whole_sums() {
    let Some(gpu) = common::gpu() else { return };
    let dense =
        [Backend::Plain, Backend::Direct, Backend::Subgroup, Backend::Texture, Backend::Workgroup(SMALLEST_TILE)];
    let mut cases = vec![];
    for terms in 1..=4 {
        for (backend, width) in dense.map(|backend| (backend, 8)).into_iter().chain([(Backend::Direct, 7)]) {
            cases.push((backend, [2, 6, 6, terms], [1, 1, terms, width], 1));
        }
        for backend in [Backend::Depthwise, Backend::Strip(STRIPS[0])] {
            cases.push((backend, [2, 6, 6, 8], [1, terms, 1, 8], 8));
        }
    }
    let mut differing = vec![];
    for (backend, x, weight, groups) in cases {
        let mut tape = Tape::new();
        let inputs = [("x", x), ("weight", weight)].map(|(name, shape)| tape.input(name, TensorType::f32(shape)));
        let conv = Conv2d { groups, backend, ..Conv2d::default() };
        let y = conv2d(&mut tape, inputs[0], inputs[1], None, conv).unwrap();
        let residual = tape.input("residual", tape.ty(y).clone());
        let sum = add(&mut tape, y, residual).unwrap();
        let run = |plan: Plan| {
            let executable = Executable::new(&gpu, plan, &mut Store::new()).unwrap();
            for (number, (name, t)) in (0..).zip([("x", inputs[0]), ("weight", inputs[1]), ("residual", residual)]) {
                let stream = Stream::new(7, number);
                let values: Vec<f32> = (0..tape.ty(t).shape.len() as u64).map(|i| stream.normal(i)).collect();
                executable.set_input(&gpu, name, bytemuck::cast_slice(&values)).unwrap();
            }
            executable.run(&gpu);
            executable.read_output(&gpu, 0).unwrap().into_data()
        };
        let fused = Plan::new(&tape, &[sum], gpu.caps()).unwrap();
        assert_eq!(fused.dispatches.len(), 1);
        if run(fused) != run(Plan::unfused(&tape, &[sum], gpu.caps()).unwrap()) {
            differing.push((backend, weight));
        }
    }
    assert!(differing.is_empty(), "{differing:?}");
}

#[test]
fn reading_from_textures_changes_no_bit() {
    let Some(gpu) = common::gpu() else { return };
    let traced = trace("resnet18", Mode::Train);
    let plan = |textures| {
        // The kernels of a driver in software, on any device.
        let caps = Caps { class: DeviceClass::Software, textures, ..gpu.caps().clone() };
        Plan::new(&traced.tape, &traced.outputs, &caps).unwrap()
    };
    let (buffers, textures) = (plan(TextureLoads::Slow), plan(TextureLoads::MuchFaster));
    assert_eq!(buffers.textures.bytes(), 0);
    let copies = textures.textures.bytes();
    assert!(copies > 0 && textures.memory.total() == buffers.memory.total() + copies);
    let (buffers, textures) = (run(&gpu, &traced, buffers), run(&gpu, &traced, textures));
    let differing = buffers.iter().zip(&textures).filter(|(a, b)| a != b).count();
    assert_eq!(differing, 0, "{differing} of {} tensors differ", buffers.len());
    assert!(buffers.iter().flatten().any(|v| *v != 0.0));
}

#[test]
fn convolutions_gather_the_statistics_of_batch_norm() {
    let Some(gpu) = common::gpu() else { return };
    let passes = |plan: &Plan| plan.dispatches.iter().filter(|d| d.dispatch.kernel.entry == "statistics").count();
    let traced = trace("resnet18", Mode::Train);
    let fused = Plan::new(&traced.tape, &traced.outputs, gpu.caps()).unwrap();
    let plain = Plan::unfused(&traced.tape, &traced.outputs, gpu.caps()).unwrap();
    assert_eq!(passes(&plain), 20);
    // Whether a kernel can depends on the device. The last four maps of three small images have less than sixteen rows.
    if fused.dispatches.iter().all(|d| d.op != "conv2d+statistics") {
        return;
    }
    assert!(passes(&fused) <= 5, "{} of 20 are left", passes(&fused));
    let (fused, plain) = (run(&gpu, &traced, fused), run(&gpu, &traced, plain));
    let distance = |a: &[f32], b: &[f32]| {
        let norm = |v: &mut dyn Iterator<Item = f32>| v.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied()).max(1e-12)
    };
    // Logits and loss; then gradients, which a ReLU that opens or closes changes a little.
    for (i, (a, b)) in fused.iter().zip(&plain).enumerate() {
        let limit = if i < 2 { 1e-5 } else { 1e-2 };
        assert!(distance(a, b) <= limit, "output {i}: {:e}", distance(a, b));
    }
}

#[test]
fn every_relu_and_residual_of_a_resnet_is_fused() {
    let caps = Caps::baseline();
    let count = |plan: &Plan, op: &str| plan.dispatches.iter().filter(|d| d.op == op).count();
    let traced = trace("resnet50", Mode::Train);
    let plain = Plan::unfused(&traced.tape, &traced.outputs, &caps).unwrap();
    let fused = Plan::new(&traced.tape, &traced.outputs, &caps).unwrap();
    // One ReLU behind the stem and three in each of sixteen blocks; a residual in each block.
    assert_eq!((count(&plain, "relu"), count(&plain, "relu.grad_x")), (49, 49));
    assert_eq!((count(&fused, "relu"), count(&fused, "relu.grad_x")), (0, 0));
    // What is left of the additions are the sums of two gradients.
    assert_eq!(count(&plain, "add") - count(&fused, "add"), 16);
    let (fused, plain) = (fused.memory, plain.memory);
    assert!(fused.slots <= plain.slots * 21 / 20 && fused.without_reuse < plain.without_reuse, "{fused:?} {plain:?}");
}

/// A training step with its optimizer: parameters after two steps, by name.
fn two_steps(gpu: &Gpu, optimizer: &Optimizer, plan: impl Fn(&Tape, &[Tensor]) -> Plan) -> Vec<(String, Vec<u8>)> {
    let mut traced = trace("resnet18", Mode::Train);
    let tape = &mut traced.tape;
    let pairs: Vec<(Tensor, Tensor)> =
        tape.trainable().into_iter().map(|(_, parameter)| parameter).zip(traced.outputs[2..].iter().copied()).collect();
    let lr = tape.input("lr", TensorType::f32([1]));
    optimizer.append(tape, &Gradients::given(&pairs), lr, None).unwrap();
    let plan = plan(tape, &traced.outputs[..2]);
    let mut store = Store::new();
    let executable = Executable::new(gpu, plan, &mut store).unwrap();
    for p in &traced.parameters {
        store.write(gpu, &p.name, &p.to_device(&p.initial(5))).unwrap();
    }
    let stream = Stream::new(3, 4);
    let pixels: Vec<f32> = (0..(BATCH * SIZE * SIZE * 3) as u64).map(|i| stream.normal(i)).collect();
    executable.set_input(gpu, "x", bytemuck::cast_slice(&pixels)).unwrap();
    executable.set_input(gpu, "labels", bytemuck::cast_slice(&[0_u32, 3, 6])).unwrap();
    executable.set_input(gpu, "lr", bytemuck::cast_slice(&[1e-2_f32])).unwrap();
    executable.run(gpu);
    executable.run(gpu);
    let names: Vec<String> = store.types().map(|(name, _)| name.to_owned()).collect();
    names.into_iter().map(|name| (name.clone(), store.read_bytes(gpu, &name).unwrap())).collect()
}

#[test]
fn bundled_updates_change_the_same_bits() {
    let Some(gpu) = common::gpu() else { return };
    // Where batch-norm's statistics are not summed in another order.
    let caps = Caps { subgroups: None, ..gpu.caps().clone() };
    let adam = AdamConfig { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 1e-2, decoupled: true };
    let sgd = Optimizer::Sgd { momentum: 0.9, weight_decay: 1e-2, nesterov: true };
    for optimizer in [Optimizer::Adam(adam), sgd] {
        let bundled = |tape: &Tape, outputs: &[Tensor]| {
            let plan = Plan::new(tape, outputs, &caps).unwrap();
            assert!(!plan.arenas.is_empty());
            plan
        };
        let bundled = two_steps(&gpu, &optimizer, bundled);
        let single = two_steps(&gpu, &optimizer, |tape, outputs| Plan::unfused(tape, outputs, &caps).unwrap());
        assert_eq!(bundled.len(), single.len());
        for ((name, a), (other, b)) in bundled.iter().zip(&single) {
            assert!(name == other && a == b, "{name}");
        }
    }
}

#[test]
fn updates_are_few_launches_where_gradients_are_small_beside_the_rest() {
    let gradients_of = |size: usize, batch: usize, caps: &Caps| {
        let mut tape = Tape::new();
        let x = tape.input("x", TensorType::f32([batch, size, size, 3]));
        let mut net = Net::new(&mut tape, Mode::Train, 0);
        let logits = Model::find("resnet50").unwrap().forward(&mut net, x, 7).unwrap();
        let labels = tape.input("labels", TensorType::u32([batch]));
        let loss = softmax_cross_entropy(&mut tape, logits, labels, None, 0.0).unwrap();
        let gradients = backward(&mut tape, loss).unwrap();
        let lr = tape.input("lr", TensorType::f32([1]));
        let sgd = Optimizer::Sgd { momentum: 0.9, weight_decay: 0.0, nesterov: false };
        sgd.append(&mut tape, &gradients, lr, None).unwrap();
        let plan = Plan::new(&tape, &[loss], caps).unwrap();
        let launches = plan.dispatches.iter().filter(|d| d.op == "sgd").count();
        let own: u64 = plan.arenas.iter().filter(|a| a.variables.is_none()).map(|a| a.bytes).sum();
        (launches, own)
    };
    let large = Caps { max_binding: 2 << 30, max_buffer: 2 << 30, ..Caps::baseline() };
    // All but the seven biases of the last layer.
    assert_eq!(gradients_of(224, 64, &large).0, 2);
    // Else the large ones stay beside their gradients, which then need not wait.
    let (launches, own) = gradients_of(64, 2, &large);
    assert!((30..60).contains(&launches) && own < 4 << 20, "{launches} {own}");
}

#[test]
fn inference_folds_batch_norm_once_for_all() {
    let Some(gpu) = common::gpu() else { return };
    let traced = trace("resnet18", Mode::Eval);
    let plain = Plan::unfused(&traced.tape, &traced.outputs, gpu.caps()).unwrap();
    let folded = Plan::preparing(&traced.tape, &traced.outputs, gpu.caps()).unwrap();
    let left = |op: &str| folded.dispatches.iter().filter(|d| d.op.contains(op)).count();
    assert_eq!((left("batch_norm"), left("fold"), left("relu") - left("conv2d+")), (0, 0, 0));
    assert_eq!(folded.preparation.iter().filter(|d| d.op == "batch_norm.fold").count(), 2 * 20);
    let plain = run(&gpu, &traced, plain);

    let mut store = Store::new();
    let executable = Executable::new(&gpu, folded, &mut store).unwrap();
    let pixels: Vec<f32> = {
        let stream = Stream::new(3, 4);
        (0..(BATCH * SIZE * SIZE * 3) as u64).map(|i| stream.normal(i)).collect()
    };
    executable.set_input(&gpu, "x", bytemuck::cast_slice(&pixels)).unwrap();
    let logits = |seed| {
        for p in &traced.parameters {
            store.write(&gpu, &p.name, &p.to_device(&p.initial(seed))).unwrap();
        }
        executable.run(&gpu);
        executable.read_output(&gpu, 0).unwrap().into_data()
    };
    let close = |a: &[f32], b: &[f32]| {
        let scale = b.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-5 * scale)
    };
    assert!(close(&logits(5), &plain[0]));
    // The folded weights are those of the preparation until the variables are said to have changed.
    assert!(logits(6) != plain[0]);
    executable.variables_changed();
    assert!(close(&logits(5), &plain[0]));
}

#[test]
fn plans_of_a_session_share_slots_and_disturb_nothing() {
    let Some(gpu) = common::gpu() else { return };
    let (training, inference) = (trace("resnet18", Mode::Train), trace("resnet18", Mode::Eval));
    let train = || Plan::new(&training.tape, &training.outputs, gpu.caps()).unwrap();
    let infer = || Plan::preparing(&inference.tape, &inference.outputs, gpu.caps()).unwrap();
    // Folded weights stay; everything else of the inference finds room in the step's memory.
    let (train_alone, infer_alone) = (train(), infer());
    let kept: u64 = infer_alone.slots.iter().filter(|slot| slot.kept).map(|slot| slot.bytes).sum();
    let together = Memory::in_turns(&[&train_alone, &infer_alone]);
    let textures = infer_alone.textures.bytes();
    assert!(kept > 0 && together.slots <= train_alone.memory.slots + kept + textures, "{together:?}");

    let shared = infer_alone.slots.iter().filter(|slot| !slot.kept).count();
    let variables = infer_alone.variables.len();
    let mut store = Store::new();
    let step = ready(&gpu, &training, train_alone, &mut store);
    let buffers = |store: &mut Store| {
        let before = gpu.objects().unwrap();
        let made = ready(&gpu, &inference, infer(), store);
        (gpu.objects().unwrap() - before, made)
    };
    let (beside, inference_beside) = buffers(&mut store);
    assert_eq!(buffers(&mut Store::new()).0, beside + shared + variables);
    let (want_step, want_logits) = (run(&gpu, &training, train()), run(&gpu, &inference, infer()));
    for turn in 0..2 {
        // Running statistics move with each step, and are folded into weights once.
        let logits = computed(&gpu, &inference, &inference_beside);
        assert_eq!(logits, want_logits, "turn {turn}");
        assert_eq!(computed(&gpu, &training, &step), want_step, "turn {turn}");
    }
}
