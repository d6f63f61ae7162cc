//! Layers without parameters.

use super::{Mode, Net};
use crate::autograd::Tensor;
use crate::error::Result;
use crate::ops::gelu::{self, Gelu};
use crate::ops::upsample::{self, Interpolation};
use crate::ops::window::Window;
use crate::ops::{
    STEP, add, avg_pool, concat, drop_path, dropout, global_avg_pool, max_pool, relu, scale, sigmoid, silu,
};
use crate::rng::Stream;
use crate::tensor::TensorType;

impl Net<'_> {
    /// `max(x, 0)`.
    ///
    /// # Errors
    /// None for float tensors.
    pub fn relu(&mut self, x: Tensor) -> Result<Tensor> {
        relu::relu(self.tape, x)
    }

    /// `1 / (1 + exp(-x))`.
    ///
    /// # Errors
    /// None for float tensors.
    pub fn sigmoid(&mut self, x: Tensor) -> Result<Tensor> {
        sigmoid::sigmoid(self.tape, x)
    }

    /// `x sigmoid(x)`.
    ///
    /// # Errors
    /// None for float tensors.
    pub fn silu(&mut self, x: Tensor) -> Result<Tensor> {
        silu::silu(self.tape, x)
    }

    /// `x Phi(x)` with the exact normal distribution, PyTorch's default.
    ///
    /// # Errors
    /// None for float tensors.
    pub fn gelu(&mut self, x: Tensor) -> Result<Tensor> {
        gelu::gelu(self.tape, x, Gelu::Exact)
    }

    /// `a + b`.
    ///
    /// # Errors
    /// [`Kind::Shape`](crate::Kind::Shape) if the shapes differ.
    pub fn add(&mut self, a: Tensor, b: Tensor) -> Result<Tensor> {
        add::add(self.tape, a, b)
    }

    /// Max-pooling with a square window.
    ///
    /// # Errors
    /// [`Kind::Shape`](crate::Kind::Shape) if the window does not fit.
    pub fn max_pool(&mut self, x: Tensor, window: usize, stride: usize, padding: usize) -> Result<Tensor> {
        max_pool::max_pool(self.tape, x, Window::square(window, stride, padding))
    }

    /// Average pooling; `padding_counts` says whether padding counts as pixels.
    ///
    /// # Errors
    /// [`Kind::Shape`](crate::Kind::Shape) if the window does not fit.
    pub fn avg_pool(&mut self, x: Tensor, window: Window, padding_counts: bool) -> Result<Tensor> {
        avg_pool::avg_pool(self.tape, x, window, padding_counts)
    }

    /// The maps at another size, rows by columns.
    ///
    /// # Errors
    /// [`Kind::Shape`](crate::Kind::Shape) if x is not a map or an extent is 0.
    pub fn upsample(&mut self, x: Tensor, size: [usize; 2], interpolation: Interpolation) -> Result<Tensor> {
        upsample::upsample(self.tape, x, size, interpolation)
    }

    /// The values one after the other along the last axis.
    ///
    /// # Errors
    /// [`Kind::Shape`](crate::Kind::Shape) without values, or if the other axes differ.
    pub fn concat(&mut self, values: &[Tensor]) -> Result<Tensor> {
        concat::concat(self.tape, values)
    }

    /// `factor * x`.
    ///
    /// # Errors
    /// None for float tensors.
    pub fn scale(&mut self, x: Tensor, factor: f32) -> Result<Tensor> {
        scale::scale(self.tape, x, factor)
    }

    /// The mean over the map: `[N, H, W, C]` to `[N, C]`.
    ///
    /// # Errors
    /// [`Kind::Shape`](crate::Kind::Shape) if x is not a map.
    pub fn global_avg_pool(&mut self, x: Tensor) -> Result<Tensor> {
        global_avg_pool::global_avg_pool(self.tape, x)
    }

    /// The map as a row, in the order H, W, C: `[N, H, W, C]` to `[N, H * W * C]`.
    ///
    /// # Errors
    /// [`Kind::Shape`](crate::Kind::Shape) for a scalar.
    pub fn flatten(&mut self, x: Tensor) -> Result<Tensor> {
        let shape = self.shape(x);
        let n = shape.dims().first().copied().unwrap_or(1);
        let features = shape.len() / n.max(1);
        self.tape.view(x, [n, features])
    }

    /// Inverted dropout in training mode; nothing in evaluation mode or [without dropout](Self::without_dropout). The
    /// mask is drawn from the seed, the layer and the optimizer's step counter, which lives on the device.
    ///
    /// # Errors
    /// [`Kind::Shape`](crate::Kind::Shape) if the rate is not in `[0, 1)`.
    pub fn dropout(&mut self, x: Tensor, rate: f32) -> Result<Tensor> {
        match self.draws("dropout", x, rate)? {
            Some((key, step)) => dropout::dropout(self.tape, x, rate, key, step),
            None => Ok(x),
        }
    }

    /// Stochastic depth: of the branch of a residual block, `[N, ..]`, a share of the samples is dropped. As
    /// [`dropout`](Self::dropout) otherwise.
    ///
    /// # Errors
    /// [`Kind::Shape`](crate::Kind::Shape) if the rate is not in `[0, 1)`.
    pub fn drop_path(&mut self, x: Tensor, rate: f32) -> Result<Tensor> {
        match self.draws("drop_path", x, rate)? {
            Some((key, step)) => drop_path::drop_path(self.tape, x, rate, key, step),
            None => Ok(x),
        }
    }

    /// The key and the counter of a layer that drops from x; none where nothing is dropped.
    fn draws(&mut self, what: &str, x: Tensor, rate: f32) -> Result<Option<([u32; 2], Tensor)>> {
        if self.mode == Mode::Eval || !self.dropout || rate == 0.0 {
            return Ok(None);
        }
        if !self.frozen.parameters.is_empty() && !self.in_head && !self.tape.requires_grad(x) {
            return Ok(None);
        }
        let key = Stream::named(self.seed, &format!("{what}/{}/{}", self.prefix.join("."), self.dropouts)).key();
        self.dropouts += 1;
        let step = match self.counter {
            Some(counter) => counter,
            None => self.tape.variable(STEP, TensorType::u32([1]), false)?,
        };
        Ok(Some((key, step)))
    }
}
