//! Times single ops on this machine's GPU: `cargo bench --bench ops`.
//!
//! Two lists: `layers`, what ResNet-18 and ResNet-50 are made of on eight pictures of 128x128 (and depthwise
//! convolutions of EfficientNet-B0), and `cases`, the shapes the ops are tested with. An op's forward pass and each of its
//! gradients are timed by themselves, under the op's name: `conv2d`, `conv2d.grad_input`, `conv2d.grad_weight`. Arguments choose:
//!
//!     cargo bench --bench ops -- layers                       # the realistic ones
//!     cargo bench --bench ops -- 'conv2d.grad_weight'         # whatever has this in its name (a regular expression)
//!     cargo bench --bench ops -- layers --sample-count 1      # short: one sample of each
//!     LESION_GPU_ADAPTER=1 cargo bench --bench ops -- layers
//!
//! In the output `Gitem/s` is GFLOP/s, as the kernels state their work, and the bytes are those that must be moved at
//! least. An iteration is a submission and a wait: of the op once on a software driver, and sixteen times on any other
//! device, where submitting and waiting would be a good part of the time. Both rates count all sixteen.

use std::fmt;
use std::sync::{Arc, OnceLock};

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, Divan};
use lesion_gpu::autograd::{Executable, Plan, Store};
use lesion_gpu::gpu::{Caps, DeviceClass, Gpu, GpuOptions, Recorded};
use lesion_gpu::ops::batch_norm::{BatchNorm, batch_norm_train};
use lesion_gpu::ops::conv2d::{Conv2d, conv2d};
use lesion_gpu::ops::global_avg_pool::global_avg_pool;
use lesion_gpu::ops::max_pool::max_pool;
use lesion_gpu::ops::relu::relu;
use lesion_gpu::ops::window::{Padding, Window};
use lesion_gpu::ops::{CaseInput, Fill, Role, Trace, add, all_cases, plan_with_gradients};
use lesion_gpu::rng::Stream;

fn main() {
    let divan = Divan::from_args();
    // Said before the table begins; only to list the names no device is needed.
    if !std::env::args().any(|a| a == "--list") {
        let adapter = gpu().adapter();
        println!("{} ({}, {})", adapter.name, adapter.class.name(), adapter.driver);
    }
    divan.main();
}

#[divan::bench(args = entries(&layer_subjects()), sample_count = 25, max_time = 1)]
fn layers(bencher: Bencher, entry: &Entry) {
    entry.time(bencher);
}

#[divan::bench(args = entries(&case_subjects()), sample_count = 10, max_time = 0.2)]
fn cases(bencher: Bencher, entry: &Entry) {
    entry.time(bencher);
}

/// An op on a shape, forward and backward.
#[derive(Clone)]
struct Subject {
    name: String,
    inputs: Vec<CaseInput>,
    trace: Trace,
}

fn case_subjects() -> Vec<Subject> {
    let subjects = all_cases().into_iter();
    subjects
        .map(|case| Subject { name: case.label(), inputs: case.inputs.clone(), trace: case.trace.clone() })
        .collect()
}

fn layer_subjects() -> Vec<Subject> {
    const BATCH: usize = 8;
    let conv = |side: usize, c: usize, kernel: usize, k: usize, stride: usize, groups: usize| {
        let padding = Padding::all(kernel / 2);
        let spec = Conv2d { stride: [stride; 2], padding, groups, ..Conv2d::default() };
        let kind = if groups > 1 { " depthwise" } else { "" };
        let stride = if stride > 1 { format!(" stride {stride}") } else { String::new() };
        Subject {
            name: format!("{kernel}x{kernel}{stride}{kind} {c} to {k} at {side}x{side}"),
            inputs: vec![CaseInput::normal([BATCH, side, side, c]), CaseInput::normal([kernel, kernel, c / groups, k])],
            trace: Arc::new(move |tape, x| Ok(vec![conv2d(tape, x[0], x[1], None, spec)?])),
        }
    };
    let linear = |c: usize, k: usize| Subject {
        name: format!("linear {c} to {k}"),
        inputs: vec![CaseInput::normal([BATCH, 1, 1, c]), CaseInput::normal([1, 1, c, k]), CaseInput::normal([k])],
        trace: Arc::new(|tape, x| Ok(vec![conv2d(tape, x[0], x[1], Some(x[2]), Conv2d::default())?])),
    };
    let norm = |side: usize, c: usize| Subject {
        name: format!("batch-norm {c} at {side}x{side}"),
        inputs: vec![
            CaseInput::normal([BATCH, side, side, c]),
            CaseInput::normal([c]),
            CaseInput::new([c], Fill::Constant(0.0), Role::Updated),
            CaseInput::new([c], Fill::Constant(1.0), Role::Updated),
            CaseInput::normal([c]),
        ],
        trace: Arc::new(|tape, x| {
            let spec = BatchNorm { eps: 1e-5, momentum: 0.1 };
            Ok(vec![batch_norm_train(tape, x[0], Some(x[4]), x[1], x[2], x[3], spec)?])
        }),
    };
    let map = |name: &str, side: usize, c: usize, inputs: usize, trace: Trace| Subject {
        name: format!("{name} {c} at {side}x{side}"),
        inputs: vec![CaseInput::normal([BATCH, side, side, c]); inputs],
        trace,
    };
    vec![
        conv(128, 3, 7, 64, 2, 1),
        conv(32, 64, 3, 64, 1, 1),
        conv(16, 128, 3, 128, 1, 1),
        conv(8, 256, 3, 256, 1, 1),
        conv(4, 512, 3, 512, 1, 1),
        conv(32, 64, 3, 128, 2, 1),
        conv(16, 128, 3, 256, 2, 1),
        conv(8, 256, 3, 512, 2, 1),
        conv(32, 64, 1, 128, 2, 1),
        conv(32, 64, 1, 256, 1, 1),
        conv(32, 256, 1, 64, 1, 1),
        conv(16, 512, 1, 128, 1, 1),
        conv(16, 128, 1, 512, 1, 1),
        conv(8, 1024, 1, 256, 1, 1),
        conv(4, 512, 1, 2048, 1, 1),
        conv(8, 1024, 1, 2048, 2, 1),
        conv(32, 64, 3, 64, 1, 64),
        conv(56, 96, 3, 96, 2, 96),
        conv(14, 480, 5, 480, 1, 480),
        linear(512, 7),
        linear(2048, 7),
        norm(64, 64),
        norm(32, 256),
        norm(4, 2048),
        map("max-pool 3x3 stride 2", 64, 64, 1, Arc::new(|t, x| Ok(vec![max_pool(t, x[0], Window::square(3, 2, 1))?]))),
        map("average of the map", 4, 512, 1, Arc::new(|t, x| Ok(vec![global_avg_pool(t, x[0])?]))),
        map("relu", 64, 64, 1, Arc::new(|t, x| Ok(vec![relu(t, x[0])?]))),
        // Next to nothing to compute: what a launch takes.
        map("relu", 1, 4, 1, Arc::new(|t, x| Ok(vec![relu(t, x[0])?]))),
        map("residual addition", 32, 64, 2, Arc::new(|t, x| Ok(vec![add::add(t, x[0], x[1])?]))),
    ]
}

impl Subject {
    /// The plan of the forward pass and all gradients.
    fn plan(&self, caps: &Caps) -> lesion_gpu::Result<Plan> {
        plan_with_gradients(&self.inputs, &self.trace, caps)
    }
}

/// One op of a subject: its forward pass, or one of its gradients.
struct Entry {
    subject: Subject,
    op: &'static str,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject.name, self.op)
    }
}

/// The ops of all subjects. Which there are depends on no device.
fn entries(subjects: &[Subject]) -> Vec<Entry> {
    let mut entries = vec![];
    for subject in subjects {
        let caps = Caps { f16: true, ..Caps::baseline() };
        let plan = subject.plan(&caps).unwrap_or_else(|e| fail(&e));
        let mut ops: Vec<&'static str> = plan.dispatches.iter().map(|d| d.op).collect();
        ops.dedup();
        entries.extend(ops.into_iter().map(|op| Entry { subject: subject.clone(), op }));
    }
    entries
}

fn fail(error: &lesion_gpu::Error) -> ! {
    eprintln!("error: {error}");
    std::process::exit(error.exit_code().into())
}

/// The device, opened at first use.
fn gpu() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| {
        let adapter = std::env::var("LESION_GPU_ADAPTER").ok();
        Gpu::open(&GpuOptions { adapter, ..GpuOptions::default() }).unwrap_or_else(|e| fail(&e))
    })
}

impl Entry {
    fn time(&self, bencher: Bencher) {
        let gpu = gpu();
        let (executable, _variables) = match self.prepare(gpu) {
            Ok(prepared) => prepared,
            // A case in f16 on a device without: its row stays empty.
            Err(e) if e.kind() == lesion_gpu::Kind::Unsupported => return,
            Err(e) => fail(&e),
        };
        let repeat = if gpu.adapter().class == DeviceClass::Software { 1 } else { 16 };
        let planned = executable.plan().dispatches.iter().zip(executable.recorded());
        let chosen: Vec<_> = planned.filter(|(d, _)| d.op == self.op).collect();
        let sum = |of: fn(&lesion_gpu::gpu::Work) -> u64| -> u64 {
            repeat as u64 * chosen.iter().map(|(d, _)| of(&d.dispatch.work)).sum::<u64>()
        };
        let (flops, bytes) = (sum(|w| w.flops), sum(|w| w.bytes));
        let once: Vec<Recorded> = chosen.iter().map(|(_, recorded)| (*recorded).clone()).collect();
        let launches = std::iter::repeat_n(once, repeat).flatten().collect::<Vec<_>>();
        let bencher = bencher.counter(ItemsCount::new(flops)).counter(BytesCount::new(bytes));
        bencher.bench_local(|| {
            gpu.submit(&launches);
            gpu.wait().unwrap_or_else(|e| fail(&e));
        });
    }

    /// Everything on the device, and one run of the whole plan, so that a gradient finds what the forward pass left.
    fn prepare(&self, gpu: &Gpu) -> lesion_gpu::Result<(Executable, Store)> {
        let mut store = Store::new();
        let executable = Executable::new(gpu, self.subject.plan(gpu.caps())?, &mut store)?;
        let names: Vec<(String, usize)> = store.types().map(|(name, ty)| (name.to_owned(), ty.shape.len())).collect();
        for (name, length) in names {
            let stream = Stream::named(1, &name);
            let bytes = match name.strip_prefix("input ").and_then(|i| i.parse::<usize>().ok()) {
                Some(i) => self.subject.inputs[i].bytes(&self.subject.inputs[i].values(stream)),
                None => {
                    let normal: Vec<f32> = (0..length as u64).map(|i| stream.normal(i)).collect();
                    bytemuck::cast_slice(&normal).to_vec()
                }
            };
            store.write_bytes(gpu, &name, &bytes)?;
        }
        executable.run(gpu);
        gpu.wait()?;
        Ok((executable, store))
    }
}
