//! Scaled dot-product attention of several heads: with q `[N, T, heads, D]`, k and v `[N, S, heads, D]`, for each
//! sample and head `y = softmax(q k^T / sqrt(D)) v`, `[N, T, heads, D]`. As PyTorch's `scaled_dot_product_attention`,
//! but with the heads behind the tokens, where linear layers leave and want them.
//!
//! It is made of [`matmul`](mod@crate::ops::matmul) and [`softmax`](mod@crate::ops::softmax), and so is its gradient.
//! The scores of all heads are kept for the backward pass, `N * heads * T * S` numbers. In f16 they are rounded to f16,
//! as PyTorch's autocast has them.
//!
//! Paper: A. Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3.2.

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::ops::matmul::{Matmul, matmul};
use crate::ops::softmax::softmax;

/// What each token of `q` makes of the tokens of `k` and `v`.
///
/// # Errors
/// [`Kind::Shape`] if the shapes do not go together.
pub fn attention(tape: &mut Tape, q: Tensor, k: Tensor, v: Tensor) -> Result<Tensor> {
    let Some([_, _, _, d]) = tape.shape(q).nhwc() else {
        let message = format!("attention takes [N, T, heads, D], not {}", tape.ty(q));
        return Err(Error::new(Kind::Shape, message).at(tape.scope()));
    };
    let scale = (1.0 / (d as f64).sqrt()) as f32;
    let scores = Matmul { transposed: [false, true], interleaved: [true, true, false], scale };
    let scores = matmul(tape, q, k, scores)?;
    let shares = softmax(tape, scores)?;
    matmul(tape, shares, v, Matmul { interleaved: [false, true, true], ..Matmul::default() })
}
