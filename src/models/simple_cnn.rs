//! The small convolutional network that several published skin-lesion studies use as their baseline: three valid 3x3
//! convolutions of 32, 64 and 128 filters, each with ReLU and 2x2 max-pooling, then 128 hidden units with dropout 0.5.
//! At 128x128 with 7 classes it has 3,305,543 parameters.

use crate::autograd::Tensor;
use crate::error::Result;
use crate::nn::{Conv, Net};

/// Features `[N, F]` of images `[N, H, W, 3]`: the last map as a row.
pub(super) fn features(net: &mut Net<'_>, x: Tensor) -> Result<Tensor> {
    let mut x = x;
    for (name, filters) in [("conv1", 32), ("conv2", 64), ("conv3", 128)] {
        x = net.conv(name, x, Conv::new(filters, 3).bias())?;
        x = net.beside(name, |net| net.relu(x))?;
        x = net.max_pool(x, 2, 2, 0)?;
    }
    net.flatten(x)
}

/// Logits `[N, classes]` of features.
pub(super) fn classify(net: &mut Net<'_>, x: Tensor, classes: usize) -> Result<Tensor> {
    let x = net.linear("fc1", x, 128)?;
    let x = net.relu(x)?;
    let x = net.dropout(x, 0.5)?;
    net.linear("fc2", x, classes)
}
