//! Layers of transformers: tokens, positions, attention.

use super::Net;
use crate::autograd::Tensor;
use crate::error::{Error, Kind, Result};
use crate::nn::{Init, Layout};
use crate::ops::{add_rows, attention, concat, scale, slice};

impl Net<'_> {
    /// The pixels of a map as tokens: `[N, H, W, C]` to `[N, H * W, C]`.
    ///
    /// # Errors
    /// [`Kind::Shape`] if x is not a map.
    pub fn tokens(&mut self, x: Tensor) -> Result<Tensor> {
        let Some([n, h, w, c]) = self.shape(x).nhwc() else {
            return Err(Error::new(Kind::Shape, format!("{} is not a map", self.tape.ty(x))));
        };
        self.tape.view(x, [n, h * w, c])
    }

    /// Extents `[N, T, C]` of tokens.
    fn token_extents(&self, x: Tensor) -> Result<[usize; 3]> {
        let refuse = |_| Error::new(Kind::Shape, format!("{} are not tokens [N, T, C]", self.tape.ty(x)));
        self.shape(x).dims().try_into().map_err(refuse)
    }

    /// A learned token in front of each sample's: `[N, T, C]` to `[N, T + 1, C]`. Parameter `name` `[1, 1, C]`.
    ///
    /// # Errors
    /// [`Kind::Shape`] if x are not tokens.
    pub fn class_token(&mut self, name: &str, x: Tensor) -> Result<Tensor> {
        let [n, t, c] = self.token_extents(x)?;
        let token = self.parameter(name, [1, 1, c].into(), Layout::Same, Init::Constant(0.0), true)?;
        let token = self.tape.view(token, [c])?;
        let rows = self.tape.ty(x).with_shape([n, c]);
        let nothing = scale::fill(self.tape, rows, 0.0)?;
        let first = add_rows::add_rows(self.tape, nothing, token)?;
        let rest = self.tape.view(x, [n, t * c])?;
        let all = concat::concat(self.tape, &[first, rest])?;
        self.tape.view(all, [n, t + 1, c])
    }

    /// One token of each sample: `[N, T, C]` to `[N, C]`.
    ///
    /// # Errors
    /// [`Kind::Shape`] if x are not tokens or there are no more than `token`.
    pub fn token(&mut self, x: Tensor, token: usize) -> Result<Tensor> {
        let [n, t, c] = self.token_extents(x)?;
        let rows = self.tape.view(x, [n, t * c])?;
        slice::slice(self.tape, rows, token * c, c)
    }

    /// A learned embedding of each position, added. Parameter `name` `[1, T, C]`.
    ///
    /// # Errors
    /// [`Kind::Shape`] if x are not tokens.
    pub fn position_embedding(&mut self, name: &str, x: Tensor) -> Result<Tensor> {
        let [_, t, c] = self.token_extents(x)?;
        let positions = self.parameter(name, [1, t, c].into(), Layout::Same, Init::Normal(0.02), true)?;
        let positions = self.tape.view(positions, [t, c])?;
        add_rows::add_rows(self.tape, x, positions)
    }

    /// Self-attention of tokens `[N, T, C]` with `heads` heads (Vaswani et al., 2017, section 3.2). Parameters as those
    /// of PyTorch's `MultiheadAttention`: `name.in_proj_weight` `[3 C, C]`, `name.in_proj_bias` `[3 C]`,
    /// `name.out_proj`.
    ///
    /// # Errors
    /// [`Kind::Shape`] if x are not tokens, or C is no multiple of `heads`.
    pub fn self_attention(&mut self, name: &str, x: Tensor, heads: usize) -> Result<Tensor> {
        self.scope(name, |net| {
            let [_, _, c] = net.token_extents(x)?;
            let glorot = Init::Uniform((6.0 / (4 * c) as f32).sqrt());
            let all = net.product(["in_proj_weight", "in_proj_bias"], x, 3 * c, [glorot, Init::Constant(0.0)])?;
            let y = net.attend(all, heads)?;
            net.scope("out_proj", |net| {
                net.product(["weight", "bias"], y, c, [Init::UniformFanIn { fan_in: c }, Init::Constant(0.0)])
            })
        })
    }

    /// The same with timm's names and initial values: `name.qkv`, `name.proj`.
    ///
    /// # Errors
    /// As [`self_attention`](Self::self_attention).
    pub fn self_attention_timm(&mut self, name: &str, x: Tensor, heads: usize) -> Result<Tensor> {
        self.scope(name, |net| {
            let [_, _, c] = net.token_extents(x)?;
            let all = net.linear_timm("qkv", x, 3 * c)?;
            let y = net.attend(all, heads)?;
            net.linear_timm("proj", y, c)
        })
    }

    /// A [linear](Self::linear) layer whose weight starts normal with a standard deviation of 0.02 and its bias at zero, as
    /// in timm's transformers.
    ///
    /// # Errors
    /// As [`linear`](Self::linear).
    pub fn linear_timm(&mut self, name: &str, x: Tensor, out: usize) -> Result<Tensor> {
        self.scope(name, |net| net.product(["weight", "bias"], x, out, [Init::Normal(0.02), Init::Constant(0.0)]))
    }

    /// Attention among tokens whose queries, keys and values lie side by side: `[N, T, 3 C]` to `[N, T, C]`.
    fn attend(&mut self, all: Tensor, heads: usize) -> Result<Tensor> {
        let [n, t, wide] = self.token_extents(all)?;
        let c = wide / 3;
        if heads == 0 || !c.is_multiple_of(heads) {
            return Err(Error::new(Kind::Shape, format!("{c} channels do not make {heads} heads")));
        }
        let mut parts = [all; 3];
        for (i, part) in parts.iter_mut().enumerate() {
            let columns = slice::slice(self.tape, all, i * c, c)?;
            *part = self.tape.view(columns, [n, t, heads, c / heads])?;
        }
        let y = attention::attention(self.tape, parts[0], parts[1], parts[2])?;
        self.tape.view(y, [n, t, c])
    }
}
