//! U-Nets whose encoder is a ResNet, so that weights trained on ImageNet can be used: the encoder's five maps, each half
//! as large as the one before, go up again by nearest-neighbour interpolation, concatenation and two 3x3 convolutions
//! of 256, 128, 64, 32 and 16 filters, as in Iakubovskii's segmentation_models_pytorch, whose parameter names these are.
//! The encoder's are torchvision's behind `encoder.`.
//!
//! Each map is brought to the size of the one it is joined with, so pictures of any size can be used.

use super::resnet::ResNet;
use crate::autograd::Tensor;
use crate::error::Result;
use crate::nn::{Conv, Net};
use crate::ops::upsample::Interpolation;

/// Filters of the decoder's blocks, from the deepest up.
const FILTERS: [usize; 5] = [256, 128, 64, 32, 16];

/// Features `[N, H, W, 16]` of images `[N, H, W, 3]`.
pub(super) fn features(encoder: ResNet, net: &mut Net<'_>, x: Tensor) -> Result<Tensor> {
    let size = extents(net, x);
    let [stem, first, second, third, mut y] = net.scope("encoder", |net| encoder.maps(net, x))?;
    let skips = [Some(third), Some(second), Some(first), Some(stem), None];
    for (i, (skip, filters)) in skips.into_iter().zip(FILTERS).enumerate() {
        y = net.scope(format!("decoder.blocks.{i}"), |net| {
            let to = skip.map_or(size, |skip| extents(net, skip));
            let mut y = net.upsample(y, to, Interpolation::Nearest)?;
            if let Some(skip) = skip {
                y = net.concat(&[y, skip])?;
            }
            for name in ["conv1", "conv2"] {
                y = net.scope(name, |net| {
                    let y = net.conv("0", y, Conv::new(filters, 3).padding(1))?;
                    let y = net.batch_norm("1", y)?;
                    net.relu(y)
                })?;
            }
            Ok(y)
        })?;
    }
    Ok(y)
}

/// Logits `[N, H, W, outputs]` of features.
pub(super) fn classify(net: &mut Net<'_>, x: Tensor, outputs: usize) -> Result<Tensor> {
    net.conv("segmentation_head.0", x, Conv::new(outputs, 3).padding(1).bias())
}

/// Rows and columns of a map.
fn extents(net: &Net<'_>, x: Tensor) -> [usize; 2] {
    net.shape(x).nhwc().map_or([0; 2], |[_, h, w, _]| [h, w])
}
