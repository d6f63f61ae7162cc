//! EfficientNet-B0 (Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural networks", 2019, table 1)
//! as torchvision has it, with its parameter names: inverted bottlenecks whose depthwise convolution is gated by
//! squeeze-and-excitation, SiLU throughout, stochastic depth that grows to 0.2 and a dropout of 0.2.

use crate::autograd::Tensor;
use crate::error::Result;
use crate::nn::{Conv, Net};

/// A row of the paper's table: blocks, the widening inside of them, the kernel, the first one's stride, output channels.
struct Stage {
    blocks: usize,
    expansion: usize,
    kernel: usize,
    stride: usize,
    channels: usize,
}

const fn stage(expansion: usize, kernel: usize, stride: usize, channels: usize, blocks: usize) -> Stage {
    Stage { blocks, expansion, kernel, stride, channels }
}

const STAGES: [Stage; 7] = [
    stage(1, 3, 1, 16, 1),
    stage(6, 3, 2, 24, 2),
    stage(6, 5, 2, 40, 2),
    stage(6, 3, 2, 80, 3),
    stage(6, 5, 1, 112, 3),
    stage(6, 5, 2, 192, 4),
    stage(6, 3, 1, 320, 1),
];

/// Largest share of samples that stochastic depth takes out of a block.
const DROP: f32 = 0.2;

/// Features `[N, 1280]` of images `[N, H, W, 3]`.
pub(super) fn features(net: &mut Net<'_>, x: Tensor) -> Result<Tensor> {
    let mut x = net.scope("features.0", |net| {
        let x = net.conv("0", x, Conv::new(32, 3).stride(2).padding(1))?;
        let x = net.batch_norm("1", x)?;
        net.silu(x)
    })?;
    let all: usize = STAGES.iter().map(|stage| stage.blocks).sum();
    let mut number = 0;
    for (i, stage) in STAGES.iter().enumerate() {
        for j in 0..stage.blocks {
            let drop = DROP * number as f32 / all as f32;
            number += 1;
            x = net.scope(format!("features.{}.{j}.block", i + 1), |net| block(net, x, stage, j == 0, drop))?;
        }
    }
    let x = net.scope("features.8", |net| {
        let x = net.conv("0", x, Conv::new(1280, 1))?;
        let x = net.batch_norm("1", x)?;
        net.silu(x)
    })?;
    net.global_avg_pool(x)
}

/// Logits `[N, classes]` of features.
pub(super) fn classify(net: &mut Net<'_>, x: Tensor, classes: usize) -> Result<Tensor> {
    let x = net.dropout(x, 0.2)?;
    net.linear("classifier.1", x, classes)
}

/// Widen, convolve each channel by itself, gate, narrow; plus the input where the shapes are alike.
fn block(net: &mut Net<'_>, x: Tensor, stage: &Stage, first: bool, drop: f32) -> Result<Tensor> {
    let channels = net.shape(x).last();
    let (wide, stride) = (channels * stage.expansion, if first { stage.stride } else { 1 });
    let mut layer = 0;
    let mut next = || {
        layer += 1;
        (layer - 1).to_string()
    };
    let mut y = x;
    if stage.expansion > 1 {
        y = net.scope(next(), |net| {
            let y = net.conv("0", y, Conv::new(wide, 1))?;
            let y = net.batch_norm("1", y)?;
            net.silu(y)
        })?;
    }
    let depthwise = Conv::new(wide, stage.kernel).stride(stride).padding(stage.kernel / 2).groups(wide);
    y = net.scope(next(), |net| {
        let y = net.conv("0", y, depthwise)?;
        let y = net.batch_norm("1", y)?;
        net.silu(y)
    })?;
    y = net.squeeze_excite_silu(&next(), y, (channels / 4).max(1))?;
    y = net.scope(next(), |net| {
        let y = net.conv("0", y, Conv::new(stage.channels, 1))?;
        net.batch_norm("1", y)
    })?;
    if stride != 1 || channels != stage.channels {
        return Ok(y);
    }
    let y = net.drop_path(y, drop)?;
    net.add(y, x)
}
