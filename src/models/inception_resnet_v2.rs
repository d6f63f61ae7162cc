//! Inception-ResNet-v2 (Szegedy et al., "Inception-v4, Inception-ResNet and the impact of residual connections on
//! learning", 2017, figures 3 and 15 to 20) as Keras and timm have it, which differ from the paper in the stem, with timm's
//! parameter names. Every convolution is followed by batch-norm (eps 1e-3) and ReLU, but for those that end a residual
//! branch, which have a bias instead. Layers with a stride are not padded, and average pooling does not count padding.

use crate::autograd::Tensor;
use crate::error::Result;
use crate::nn::{Conv, Net};
use crate::ops::batch_norm::BatchNorm;
use crate::ops::window::Window;

/// Features `[N, 1536]` of images `[N, H, W, 3]` of at least 75x75 pixels.
pub(super) fn features(net: &mut Net<'_>, x: Tensor) -> Result<Tensor> {
    let x = unit(net, "conv2d_1a", x, Conv::new(32, 3).stride(2))?;
    let x = unit(net, "conv2d_2a", x, Conv::new(32, 3))?;
    let x = unit(net, "conv2d_2b", x, Conv::new(64, 3).padding(1))?;
    let x = net.max_pool(x, 3, 2, 0)?;
    let x = unit(net, "conv2d_3b", x, Conv::new(80, 1))?;
    let x = unit(net, "conv2d_4a", x, Conv::new(192, 3))?;
    let x = net.max_pool(x, 3, 2, 0)?;

    let mut x = net.scope("mixed_5b", |net| {
        let pooled = net.avg_pool(x, Window::square(3, 1, 1), false)?;
        let branches = [
            unit(net, "branch0", x, Conv::new(96, 1))?,
            branch(net, "branch1", x, &[Conv::new(48, 1), Conv::new(64, 5).padding(2)])?,
            branch(net, "branch2", x, &[Conv::new(64, 1), Conv::new(96, 3).padding(1), Conv::new(96, 3).padding(1)])?,
            // The pooling is number 0.
            unit(net, "branch3.1", pooled, Conv::new(64, 1))?,
        ];
        net.concat(&branches)
    })?;
    for i in 0..10 {
        x = net.scope(format!("repeat.{i}"), |net| {
            let branches = [
                unit(net, "branch0", x, Conv::new(32, 1))?,
                branch(net, "branch1", x, &[Conv::new(32, 1), Conv::new(32, 3).padding(1)])?,
                branch(
                    net,
                    "branch2",
                    x,
                    &[Conv::new(32, 1), Conv::new(48, 3).padding(1), Conv::new(64, 3).padding(1)],
                )?,
            ];
            let sum = residual(net, x, &branches, 0.17)?;
            net.relu(sum)
        })?;
    }
    x = net.scope("mixed_6a", |net| {
        let branches = [
            unit(net, "branch0", x, Conv::new(384, 3).stride(2))?,
            branch(net, "branch1", x, &[Conv::new(256, 1), Conv::new(256, 3).padding(1), Conv::new(384, 3).stride(2)])?,
            net.max_pool(x, 3, 2, 0)?,
        ];
        net.concat(&branches)
    })?;
    for i in 0..20 {
        x = net.scope(format!("repeat_1.{i}"), |net| {
            let branches = [
                unit(net, "branch0", x, Conv::new(192, 1))?,
                branch(net, "branch1", x, &[Conv::new(128, 1), flat(160, [1, 7]), flat(192, [7, 1])])?,
            ];
            let sum = residual(net, x, &branches, 0.1)?;
            net.relu(sum)
        })?;
    }
    x = net.scope("mixed_7a", |net| {
        let branches = [
            branch(net, "branch0", x, &[Conv::new(256, 1), Conv::new(384, 3).stride(2)])?,
            branch(net, "branch1", x, &[Conv::new(256, 1), Conv::new(288, 3).stride(2)])?,
            branch(net, "branch2", x, &[Conv::new(256, 1), Conv::new(288, 3).padding(1), Conv::new(320, 3).stride(2)])?,
            net.max_pool(x, 3, 2, 0)?,
        ];
        net.concat(&branches)
    })?;
    for i in 0..9 {
        x = net.scope(format!("repeat_2.{i}"), |net| {
            let sum = block8(net, x, 0.2)?;
            net.relu(sum)
        })?;
    }
    let x = net.scope("block8", |net| block8(net, x, 1.0))?;
    let x = unit(net, "conv2d_7b", x, Conv::new(1536, 1))?;
    net.global_avg_pool(x)
}

/// Kernels of one row or one column, padded so that the map keeps its size.
fn flat(filters: usize, kernel: [usize; 2]) -> Conv {
    Conv::rectangular(filters, kernel).padding_of(kernel.map(|extent| extent / 2))
}

/// Convolution, batch-norm, ReLU.
fn unit(net: &mut Net<'_>, name: &str, x: Tensor, conv: Conv) -> Result<Tensor> {
    net.scope(name, |net| {
        let x = net.conv("conv", x, conv.default_init())?;
        let x = net.batch_norm_with("bn", x, BatchNorm { eps: 1e-3, momentum: 0.1 })?;
        net.relu(x)
    })
}

/// Units one after another.
fn branch(net: &mut Net<'_>, name: &str, x: Tensor, convs: &[Conv]) -> Result<Tensor> {
    net.scope(name, |net| {
        let mut x = x;
        for (i, &conv) in convs.iter().enumerate() {
            x = unit(net, &i.to_string(), x, conv)?;
        }
        Ok(x)
    })
}

/// `x` plus the branches, brought to its width, times `scale`.
fn residual(net: &mut Net<'_>, x: Tensor, branches: &[Tensor], scale: f32) -> Result<Tensor> {
    let width = net.shape(x).last();
    let y = net.concat(branches)?;
    let y = net.conv("conv2d", y, Conv::new(width, 1).bias())?;
    let y = if scale == 1.0 { y } else { net.scale(y, scale)? };
    net.add(x, y)
}

fn block8(net: &mut Net<'_>, x: Tensor, scale: f32) -> Result<Tensor> {
    let branches = [
        unit(net, "branch0", x, Conv::new(192, 1))?,
        branch(net, "branch1", x, &[Conv::new(192, 1), flat(224, [1, 3]), flat(256, [3, 1])])?,
    ];
    residual(net, x, &branches, scale)
}
