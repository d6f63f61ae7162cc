//! Times a training step (forward, cross-entropy, backward, Adam) or an inference of a torchvision ResNet in burn, and prints
//! one line of JSON. The images stay on the device.
//!
//!     cargo run --release -- --model resnet18 --batch 8 --size 128
//!
//! burn is told to use Vulkan, with its own compiler to SPIR-V and with fusion.

use std::time::Instant;

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Device, DeviceKind, Distribution, Int, Tensor, activation::relu};
use clap::Parser;

#[derive(Parser)]
struct Args {
    /// resnet18 or resnet50
    #[arg(long, default_value = "resnet18")]
    model: String,
    #[arg(long, default_value_t = 8)]
    batch: usize,
    #[arg(long, default_value_t = 128)]
    size: usize,
    #[arg(long, default_value_t = 7)]
    classes: usize,
    /// Inference instead of a training step
    #[arg(long)]
    infer: bool,
    /// Steps before the clock starts
    #[arg(long, default_value_t = 3)]
    warm_up: usize,
    /// Timed steps
    #[arg(long, default_value_t = 10)]
    steps: usize,
}

/// A convolution without bias, and batch-norm.
#[derive(Module, Debug)]
struct Unit {
    conv: Conv2d,
    norm: BatchNorm,
}

impl Unit {
    fn new(from: usize, to: usize, kernel: usize, stride: usize, device: &Device) -> Self {
        let pad = kernel / 2;
        let conv = Conv2dConfig::new([from, to], [kernel, kernel])
            .with_stride([stride, stride])
            .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
            .with_bias(false)
            .init(device);
        Self { conv, norm: BatchNormConfig::new(to).init(device) }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.norm.forward(self.conv.forward(x))
    }
}

/// A residual block: two units, or three with the stride on the second (torchvision's "v1.5").
#[derive(Module, Debug)]
struct Block {
    units: Vec<Unit>,
    shortcut: Option<Unit>,
}

impl Block {
    fn new(from: usize, planes: usize, stride: usize, bottleneck: bool, device: &Device) -> Self {
        let unit = |from, to, kernel, stride| Unit::new(from, to, kernel, stride, device);
        let (units, width) = match bottleneck {
            false => (vec![unit(from, planes, 3, stride), unit(planes, planes, 3, 1)], planes),
            true => {
                let width = 4 * planes;
                (vec![unit(from, planes, 1, 1), unit(planes, planes, 3, stride), unit(planes, width, 1, 1)], width)
            }
        };
        let shortcut = (stride != 1 || from != width).then(|| unit(from, width, 1, stride));
        Self { units, shortcut }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let last = self.units.len() - 1;
        let mut y = x.clone();
        for (i, unit) in self.units.iter().enumerate() {
            y = unit.forward(y);
            if i < last {
                y = relu(y);
            }
        }
        let shortcut = match &self.shortcut {
            Some(unit) => unit.forward(x),
            None => x,
        };
        relu(y + shortcut)
    }
}

#[derive(Module, Debug)]
struct ResNet {
    stem: Unit,
    pool: MaxPool2d,
    blocks: Vec<Block>,
    mean: AdaptiveAvgPool2d,
    fc: Linear,
}

impl ResNet {
    fn new(blocks: [usize; 4], bottleneck: bool, classes: usize, device: &Device) -> Self {
        let pool = MaxPool2dConfig::new([3, 3])
            .with_strides([2, 2])
            .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
            .init();
        let (mut list, mut from) = (vec![], 64);
        for (stage, count) in blocks.into_iter().enumerate() {
            let planes = 64 << stage;
            for i in 0..count {
                let stride = if stage > 0 && i == 0 { 2 } else { 1 };
                list.push(Block::new(from, planes, stride, bottleneck, device));
                from = planes * if bottleneck { 4 } else { 1 };
            }
        }
        Self {
            stem: Unit::new(3, 64, 7, 2, device),
            pool,
            blocks: list,
            mean: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
            fc: LinearConfig::new(from, classes).init(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let mut x = self.pool.forward(relu(self.stem.forward(x)));
        for block in &self.blocks {
            x = block.forward(x);
        }
        self.fc.forward(self.mean.forward(x).flatten(1, 3))
    }
}

fn main() {
    let args = Args::parse();
    assert!(args.batch > 0 && args.size > 0 && args.classes > 0 && args.steps > 0, "numbers must be at least 1");
    // torchvision's numbers of trained values without the last layer.
    let (blocks, bottleneck, body) = match args.model.as_str() {
        "resnet18" => ([2, 2, 2, 2], false, 11_176_512),
        "resnet50" => ([3, 4, 6, 3], true, 23_508_032),
        other => panic!("unknown model {other}: resnet18 or resnet50"),
    };
    let started = Instant::now();
    let plain = Device::vulkan(DeviceKind::DefaultDevice);
    let device = if args.infer { plain.clone() } else { plain.clone().autodiff() };
    let mut model = ResNet::new(blocks, bottleneck, args.classes, &device);
    let trained = body + (if bottleneck { 2048 } else { 512 } + 1) * args.classes;
    // burn counts running statistics too: as many again as gammas and betas.
    println!("{} values, of which torchvision trains {trained}", model.num_params());
    let images = Tensor::<4>::random([args.batch, 3, args.size, args.size], Distribution::Default, &device);
    let labels: Vec<i32> = (0..args.batch).map(|i| (i % args.classes) as i32).collect();
    let labels = Tensor::<1, Int>::from_ints(labels.as_slice(), &device);
    let loss_of = CrossEntropyLossConfig::new().init(&device);
    let mut adam = AdamConfig::new().init();
    let mut step = || -> f32 {
        let logits = model.forward(images.clone());
        if args.infer {
            return logits.sum().into_scalar::<f32>();
        }
        let loss = loss_of.forward(logits, labels.clone());
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = adam.step(1e-3, model.clone(), gradients);
        let loss = loss.into_scalar::<f32>();
        device.sync().expect("the device goes on");
        loss
    };
    let check = |value: f32| assert!(value.is_finite(), "the step computed {value}");
    check(step());
    let ready = started.elapsed().as_secs_f64();
    for _ in 0..args.warm_up {
        check(step());
    }
    let seconds: Vec<f64> = (0..args.steps)
        .map(|_| {
            let started = Instant::now();
            check(step());
            started.elapsed().as_secs_f64()
        })
        .collect();
    println!(
        "{}",
        serde_json::json!({
            "peer": "burn",
            "version": "0.22.1",
            "mode": "vulkan, fusion",
            "model": args.model,
            "task": if args.infer { "infer" } else { "train" },
            "batch": args.batch,
            "size": args.size,
            "device": format!("{plain:?}"),
            "ready": ready,
            "seconds": seconds,
        })
    );
}
