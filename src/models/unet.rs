//! U-Nets (Ronneberger, Fischer, Brox, "U-Net: convolutional networks for biomedical image segmentation", 2015,
//! figure 1) as practice has them: convolutions keep the size, and each is followed by batch-norm. So the mask is as
//! large as the picture, whose sides must be multiples of 16.
//!
//! Two sizes: the paper's widths of 64 to 1024, and a small one of 16 to 256 that is widely used for skin lesions, with
//! biases, 3x3 transposed convolutions and dropout behind pooling and concatenation. The small one has 2,164,593
//! parameters, of which 2,161,649 are trained.

use crate::autograd::Tensor;
use crate::error::{Error, Kind, Result};
use crate::nn::{Conv, ConvTranspose, Net};

/// How often the picture is halved.
const LEVELS: usize = 4;

/// A member of the family.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct UNet {
    /// Filters of the first level; each level has twice as many.
    width: usize,
    /// Side of the transposed convolutions' kernels.
    up: usize,
    /// Whether convolutions have a bias, though batch-norm takes it away again.
    bias: bool,
    dropout: f32,
}

/// The paper's widths.
pub(super) const CLASSIC: UNet = UNet { width: 64, up: 2, bias: false, dropout: 0.0 };
/// The small one.
pub(super) const SMALL: UNet = UNet { width: 16, up: 3, bias: true, dropout: 0.1 };

impl UNet {
    /// Features `[N, H, W, width]` of images `[N, H, W, 3]`.
    pub fn features(self, net: &mut Net<'_>, x: Tensor) -> Result<Tensor> {
        check_size(net, x)?;
        let mut x = x;
        let mut skips = vec![];
        for level in 0..LEVELS {
            let map = net.scope(format!("encoder{}", level + 1), |net| self.double(net, x, self.width << level))?;
            skips.push(map);
            x = net.max_pool(map, 2, 2, 0)?;
            x = net.dropout(x, self.dropout)?;
        }
        x = net.scope("bottleneck", |net| self.double(net, x, self.width << LEVELS))?;
        for (level, skip) in skips.into_iter().enumerate().rev() {
            let filters = self.width << level;
            let up = ConvTranspose::new(filters, self.up).stride(2).same().bias();
            x = net.conv_transpose(&format!("up{}", level + 1), x, up)?;
            x = net.concat(&[x, skip])?;
            x = net.dropout(x, self.dropout)?;
            x = net.scope(format!("decoder{}", level + 1), |net| self.double(net, x, filters))?;
        }
        Ok(x)
    }

    /// Twice a 3x3 convolution, batch-norm and ReLU.
    fn double(self, net: &mut Net<'_>, x: Tensor, filters: usize) -> Result<Tensor> {
        let mut x = x;
        for i in 1..=2 {
            let conv = Conv::new(filters, 3).padding(1);
            x = net.conv(&format!("conv{i}"), x, if self.bias { conv.bias() } else { conv })?;
            x = net.batch_norm(&format!("bn{i}"), x)?;
            x = net.relu(x)?;
        }
        Ok(x)
    }
}

/// Logits `[N, H, W, outputs]` of features.
pub(super) fn classify(net: &mut Net<'_>, x: Tensor, outputs: usize) -> Result<Tensor> {
    net.conv("head", x, Conv::new(outputs, 1).bias())
}

/// Refuses pictures that do not halve evenly.
fn check_size(net: &Net<'_>, x: Tensor) -> Result<()> {
    let unit = 1 << LEVELS;
    let Some([_, height, width, _]) = net.shape(x).nhwc() else {
        return Err(Error::new(Kind::Shape, "a U-Net takes pictures [N, H, W, 3]"));
    };
    if height.is_multiple_of(unit) && width.is_multiple_of(unit) {
        return Ok(());
    }
    let nearest = |side: usize| ((side + unit / 2) / unit).max(1) * unit;
    Err(Error::new(
        Kind::Shape,
        format!("a U-Net halves pictures {LEVELS} times: the sides of {width}x{height} are not multiples of {unit}"),
    )
    .next(format!("use --size {}x{}", nearest(width), nearest(height))))
}
