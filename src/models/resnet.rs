//! Residual networks (He et al., "Deep residual learning for image recognition", 2016, table 1), exactly as
//! torchvision has them: stride on the 3x3 convolution of a bottleneck ("v1.5"), batch-norm eps 1e-5, the same
//! parameter names. And two relatives with squeeze-and-excitation (Hu et al., "Squeeze-and-excitation networks",
//! 2018).

use crate::autograd::Tensor;
use crate::error::Result;
use crate::nn::{Conv, Net};

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

/// A member of the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ResNet {
    pub block: Block,
    pub layers: [usize; 4],
    pub squeeze_excite: SqueezeExcite,
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
        let x = net.conv("conv1", x, Conv::new(64, 7).stride(2).padding(3))?;
        let x = net.batch_norm("bn1", x)?;
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
        let mut y = match self.block {
            Block::Basic => {
                let y = net.conv("conv1", x, Conv::new(planes, 3).stride(stride).padding(1))?;
                let y = net.batch_norm("bn1", y)?;
                let y = net.relu(y)?;
                let y = net.conv("conv2", y, Conv::new(planes, 3).padding(1))?;
                net.batch_norm("bn2", y)?
            }
            Block::Bottleneck => {
                let y = net.conv("conv1", x, Conv::new(planes, 1))?;
                let y = net.batch_norm("bn1", y)?;
                let y = net.relu(y)?;
                let y = net.conv("conv2", y, Conv::new(planes, 3).stride(stride).padding(1))?;
                let y = net.batch_norm("bn2", y)?;
                let y = net.relu(y)?;
                let y = net.conv("conv3", y, Conv::new(width, 1))?;
                net.batch_norm("bn3", y)?
            }
        };
        if self.squeeze_excite == SqueezeExcite::EveryBlock {
            y = net.squeeze_excite("se", y, REDUCTION)?;
        }
        let shortcut = if stride != 1 || net.shape(x).last() != width {
            net.scope("downsample", |net| {
                let x = net.conv("0", x, Conv::new(width, 1).stride(stride))?;
                net.batch_norm("1", x)
            })?
        } else {
            x
        };
        let y = net.add(y, shortcut)?;
        net.relu(y)
    }
}
