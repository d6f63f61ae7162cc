//! Residual networks (He et al., "Deep residual learning for image recognition", 2016, table 1), exactly as
//! torchvision has them: stride on the 3x3 convolution of a bottleneck ("v1.5"), batch-norm eps 1e-5, the same
//! parameter names. Those that Keras has, which are other networks: stride on the first 1x1 convolution, as in the
//! paper, a bias in every convolution, batch-norm eps 1.001e-5 and momentum .99. And two relatives with
//! squeeze-and-excitation (Hu et al., "Squeeze-and-excitation networks", 2018).

use crate::autograd::Tensor;
use crate::error::Result;
use crate::nn::{Conv, Net};
use crate::ops::batch_norm::BatchNorm;

/// Batch-norm of Keras's ResNets: its momentum of .99 is the share of the old statistics, ours of the new.
const KERAS_NORM: BatchNorm = BatchNorm { eps: 1.001e-5, momentum: 0.01 };

/// The residual branch of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Block {
    /// Two 3x3 convolutions.
    Basic,
    /// 1x1, 3x3, and a 1x1 that widens four times.
    Bottleneck,
}

impl Block {
    fn expansion(self) -> usize {
        match self {
            Self::Basic => 1,
            Self::Bottleneck => 4,
        }
    }
}

/// Where squeeze-and-excitation sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SqueezeExcite {
    /// Nowhere.
    None,
    /// In every block, after its last batch-norm.
    EveryBlock,
    /// Once, on the final map.
    FinalMap,
}

/// Whose details it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variant {
    /// torchvision's.
    Torch,
    /// Keras's.
    Keras,
}

/// A member of the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ResNet {
    pub block: Block,
    pub layers: [usize; 4],
    pub squeeze_excite: SqueezeExcite,
    pub variant: Variant,
}

/// The ratio by which squeeze-and-excitation narrows: the paper's default.
const REDUCTION: usize = 16;

impl ResNet {
    /// Features `[N, C]` of images `[N, H, W, 3]`; with squeeze-and-excitation on the final map that map, `[N, H, W, C]`.
    pub fn features(self, net: &mut Net<'_>, x: Tensor) -> Result<Tensor> {
        let [.., x] = self.maps(net, x)?;
        if self.squeeze_excite == SqueezeExcite::FinalMap { Ok(x) } else { net.global_avg_pool(x) }
    }

    /// What comes between features and classifier, `[N, C]`: a part of the head, since no pretrained network has it.
    pub fn neck(self, net: &mut Net<'_>, features: Tensor) -> Result<Tensor> {
        if self.squeeze_excite != SqueezeExcite::FinalMap {
            return Ok(features);
        }
        let x = net.squeeze_excite("se", features, REDUCTION)?;
        net.global_avg_pool(x)
    }

    /// The maps of images `[N, H, W, 3]`, each half as large as the one before: of the first convolution, and of the four
    /// stages.
    pub fn maps(self, net: &mut Net<'_>, x: Tensor) -> Result<[Tensor; 5]> {
        let x = self.conv_norm(net, ["conv1", "bn1"], x, Conv::new(64, 7).stride(2).padding(3))?;
        let stem = net.relu(x)?;
        let mut x = net.max_pool(stem, 3, 2, 1)?;
        let mut maps = [stem; 5];
        for (stage, blocks) in self.layers.into_iter().enumerate() {
            for i in 0..blocks {
                let stride = if stage > 0 && i == 0 { 2 } else { 1 };
                x = net.scope(format!("layer{}.{i}", stage + 1), |net| self.block(net, x, 64 << stage, stride))?;
            }
            maps[stage + 1] = x;
        }
        Ok(maps)
    }

    fn block(self, net: &mut Net<'_>, x: Tensor, planes: usize, stride: usize) -> Result<Tensor> {
        let width = planes * self.block.expansion();
        let [first, second] = match self.variant {
            Variant::Torch => [1, stride],
            Variant::Keras => [stride, 1],
        };
        let mut y = match self.block {
            Block::Basic => {
                let y = self.conv_norm(net, ["conv1", "bn1"], x, Conv::new(planes, 3).stride(stride).padding(1))?;
                let y = net.relu(y)?;
                self.conv_norm(net, ["conv2", "bn2"], y, Conv::new(planes, 3).padding(1))?
            }
            Block::Bottleneck => {
                let y = self.conv_norm(net, ["conv1", "bn1"], x, Conv::new(planes, 1).stride(first))?;
                let y = net.relu(y)?;
                let y = self.conv_norm(net, ["conv2", "bn2"], y, Conv::new(planes, 3).stride(second).padding(1))?;
                let y = net.relu(y)?;
                self.conv_norm(net, ["conv3", "bn3"], y, Conv::new(width, 1))?
            }
        };
        if self.squeeze_excite == SqueezeExcite::EveryBlock {
            y = net.squeeze_excite("se", y, REDUCTION)?;
        }
        let shortcut = if stride != 1 || net.shape(x).last() != width {
            net.scope("downsample", |net| self.conv_norm(net, ["0", "1"], x, Conv::new(width, 1).stride(stride)))?
        } else {
            x
        };
        let y = net.add(y, shortcut)?;
        net.relu(y)
    }

    /// A convolution and its batch-norm.
    fn conv_norm(self, net: &mut Net<'_>, [conv, norm]: [&str; 2], x: Tensor, layer: Conv) -> Result<Tensor> {
        match self.variant {
            Variant::Torch => {
                let x = net.conv(conv, x, layer)?;
                net.batch_norm(norm, x)
            }
            Variant::Keras => {
                let x = net.conv(conv, x, layer.bias())?;
                net.batch_norm_with(norm, x, KERAS_NORM)
            }
        }
    }
}
