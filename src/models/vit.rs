//! Vision transformer, small, patches of 16x16 pixels (Dosovitskiy et al., "An image is worth 16x16 words", 2021, section 3.1;
//! the small width is that of Touvron et al., "Training data-efficient image transformers", 2021) as timm has it, with its
//! parameter names.

use crate::autograd::Tensor;
use crate::error::{Error, Kind, Result};
use crate::nn::{Conv, Net};

pub(super) const PATCH: usize = 16;
const WIDTH: usize = 384;
pub(super) const BLOCKS: usize = 12;
const HEADS: usize = 6;
const EPS: f32 = 1e-6;

/// Features `[N, C]`, the class token, of images `[N, H, W, 3]` whose sides are multiples of 16; there is an embedding for each patch, so
/// weights go with one size.
pub(super) fn features(net: &mut Net<'_>, x: Tensor) -> Result<Tensor> {
    if let Some([_, h, w, _]) = net.shape(x).nhwc()
        && !(h.is_multiple_of(PATCH) && w.is_multiple_of(PATCH))
    {
        let message = format!("{h}x{w} pixels cannot be cut into patches of {PATCH}x{PATCH}");
        return Err(Error::new(Kind::Shape, message).next("use a --size that is a multiple of 16"));
    }
    let patches = Conv::new(WIDTH, PATCH).stride(PATCH).bias();
    let x = net.scope("patch_embed", |net| net.conv("proj", x, patches))?;
    let x = net.tokens(x)?;
    let x = net.class_token("cls_token", x)?;
    let mut x = net.position_embedding("pos_embed", x)?;
    for i in 0..BLOCKS {
        x = net.scope(format!("blocks.{i}"), |net| block(net, x))?;
    }
    let x = net.layer_norm("norm", x, EPS)?;
    net.token(x, 0)
}

/// Logits `[N, classes]` of features.
pub(super) fn classify(net: &mut Net<'_>, x: Tensor, classes: usize) -> Result<Tensor> {
    net.linear_timm("head", x, classes)
}

/// Attention, then two layers for each token by itself, each behind a norm and beside its input.
fn block(net: &mut Net<'_>, x: Tensor) -> Result<Tensor> {
    let y = net.layer_norm("norm1", x, EPS)?;
    let y = net.self_attention_timm("attn", y, HEADS)?;
    let x = net.add(x, y)?;
    let y = net.layer_norm("norm2", x, EPS)?;
    let y = net.scope("mlp", |net| {
        let y = net.linear_timm("fc1", y, 4 * WIDTH)?;
        let y = net.gelu(y)?;
        net.linear_timm("fc2", y, WIDTH)
    })?;
    net.add(x, y)
}
