//! Nothing reads or writes behind its tensors, and no result depends on what was in memory before: whole training steps between
//! guard zones, and in memory that begins as NaN, are equal to the bit to those without.

mod common;

use common::number;
use lesion_gpu::Kind;
use lesion_gpu::autograd::Store;
use lesion_gpu::data::Batch;
use lesion_gpu::gpu::{Access, Dispatch, Gpu, GpuOptions, Kernel, Operand, Source, Textures, Uniform, Usage};
use lesion_gpu::models::Model;
use lesion_gpu::rng::Stream;
use lesion_gpu::tensor::DType;
use lesion_gpu::train::{EvalGraph, EvalSession, OptimizerKind, Precision, TrainConfig, TrainGraph, TrainSession};

fn guarded() -> Option<Gpu> {
    common::gpu_with(GpuOptions { guards: true, ..GpuOptions::default() })
}

lesion_gpu::gpu::uniform_block! {
    struct Params { source_at: u32, stored_at: u32 }
}

/// A kernel that has no place in the library.
static COPY: Source = Source {
    file: "copy.wgsl",
    text: "struct Params {\n    source_at: u32,\n    stored_at: u32,\n}\n
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(1)
fn copy() {
    y[p.stored_at] = x[p.source_at];
}
",
    libraries: &[],
};

#[test]
fn guards_find_a_kernel_that_reads_or_writes_behind_its_tensors() {
    let Some(gpu) = guarded() else { return };
    // Those of the probes that a device is opened with.
    gpu.check_guards().unwrap();
    let copy = |from: u32, to: u32| {
        let x = gpu.allocate("x", 32, Usage::Storage).unwrap();
        let y = gpu.allocate("y", 32, Usage::Storage).unwrap();
        gpu.upload(&x, bytemuck::cast_slice(&[1.0f32; 8]));
        let kernel = Kernel::new(&COPY, "copy");
        let dispatch = Dispatch::new(kernel, Params { source_at: from, stored_at: to }.block(), [1; 3]);
        let dispatch = dispatch.bind(Operand::Input(0), Access::Read).bind(Operand::Input(1), Access::ReadWrite);
        let recorded = gpu.record(&dispatch, &[&x, &y], &Textures::default()).unwrap();
        gpu.submit(&[recorded]);
        let y: Vec<f32> = bytemuck::pod_collect_to_vec(&gpu.download(&y).unwrap());
        (y, gpu.check_guards())
    };
    let (y, guards) = copy(7, 0);
    assert_eq!((y[0], guards.unwrap()), (1.0, 2));
    // Behind x, and far behind it.
    for from in [8, 4000] {
        let (y, guards) = copy(from, 0);
        assert!(y[0].is_nan() && guards.is_ok(), "{from}: {y:?}");
    }
    // Behind y.
    for to in [8, 4000] {
        let error = copy(7, to).1.unwrap_err();
        assert_eq!(error.kind(), Kind::Internal);
        assert!(error.to_string().contains(&format!("behind 'y', at byte {}", 4 * (to - 8))), "{error}");
    }
    // Memory that nobody wrote to.
    let scratch: Vec<f32> =
        bytemuck::pod_collect_to_vec(&gpu.download(&gpu.allocate("z", 8, Usage::Scratch).unwrap()).unwrap());
    assert!(scratch.iter().all(|v| v.is_nan()), "{scratch:?}");
}

/// All variables and the losses after two training steps, and the logits of an evaluation then.
fn trained(gpu: &Gpu, config: &TrainConfig) -> Vec<(String, Vec<u8>)> {
    let model = Model::find(&config.model).unwrap();
    let outputs = model.outputs(7);
    let (rows, area) = (config.batch, config.size.area());
    let stream = Stream::named(1, "guards");
    // Masks in alpha: every third pixel.
    let pixel = |i: u32| (stream.words([i, 0])[0] & 0x00ff_ffff) | if i.is_multiple_of(3) { 0xff00_0000 } else { 0 };
    let pixels = (0..(rows * area) as u32).map(pixel).collect();
    let ids: Vec<u32> = (0..rows as u32).collect();
    let labels = ids.iter().map(|id| id % 7).collect();
    let batch = Batch { pixels, labels, samples: ids.clone(), keys: ids, valid: rows };
    let mut store = Store::new();
    let graph = TrainGraph::new(model, config, config.images_at_once(), outputs, gpu.caps()).unwrap();
    let mut session = TrainSession::new(gpu, graph, &[1.0; 7], &mut store).unwrap();
    for p in session.parameters() {
        store.write(gpu, &p.name, &p.to_device(&p.initial(1))).unwrap();
    }
    let mut all = vec![];
    for step in 0..2 {
        session.step(gpu, &batch, step, 0, 1e-3).unwrap();
    }
    while let Some(result) = session.collect(gpu).unwrap() {
        assert!(result.loss.is_finite() && result.fault.is_none(), "{}: {result:?}", config.model);
        all.push((format!("loss {}", result.step), result.loss.to_le_bytes().to_vec()));
    }
    for (name, ty) in store.types() {
        let bytes = store.read_bytes(gpu, name).unwrap();
        assert!(ty.dtype == DType::U32 || ty.dtype.decode(&bytes).iter().all(|v| v.is_finite()), "{name}");
        all.push((name.to_owned(), bytes));
    }
    let graph = EvalGraph::new(model, config, rows, outputs, gpu.caps()).unwrap();
    let mut eval = EvalSession::new(gpu, graph, &mut store).unwrap();
    let logits = eval.logits(gpu, [Ok(batch)], &mut |_| Ok(())).unwrap();
    all.push(("logits".into(), bytemuck::cast_slice(&logits).to_vec()));
    all
}

#[test]
fn training_steps_between_guards_are_equal_to_those_without() {
    let (Some(plain), Some(guarded)) = (common::gpu(), guarded()) else { return };
    let config = |model: &str, size: usize| TrainConfig {
        model: model.into(),
        size: size.into(),
        batch: 4,
        optimizer: OptimizerKind::AdamW,
        ..TrainConfig::of(Model::find(model).unwrap())
    };
    let mixed = if plain.caps().f16 { Precision::Mixed } else { Precision::F32 };
    let configs = [
        // Odd sizes, parts of a batch, clipping and averages.
        TrainConfig { micro_batch: Some(2), clip_norm: Some(1.0), ..config("simple-cnn", 31) },
        TrainConfig { precision: mixed, ..config("resnet18", 33) },
        config("unet-small", 32),
        config("vit-small-16", 32),
        config("efficientnet-b0", 32),
        config("inception-resnet-v2", 80),
    ];
    // The larger ones take minutes.
    for config in configs.into_iter().take(number("LESION_GUARDED", 3) as usize) {
        let (want, got) = (trained(&plain, &config), trained(&guarded, &config));
        let buffers = guarded.check_guards().unwrap();
        assert!(buffers > 40 && want.len() > 20, "{}: {buffers} buffers, {} results", config.model, want.len());
        for ((name, want), (_, got)) in want.iter().zip(&got) {
            assert!(want == got, "{}: {name} depends on what lies around it", config.model);
        }
        assert_eq!(want.len(), got.len());
    }
}
