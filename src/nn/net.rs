//! Tracing a model: layers as calls.

use super::{Init, Layout, Parameter};
use crate::autograd::{Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::ops::STEP;
use crate::ops::conv2d::{self, Conv2d, Padding};
use crate::ops::window::Window;
use crate::ops::{
    add, avg_pool, batch_norm, cast, channel_mul, concat, dropout, global_avg_pool, max_pool, relu, scale, sigmoid,
};
use crate::rng::Stream;
use crate::tensor::{DType, Shape, TensorType};

/// Whether batch-norm uses the batch's statistics and dropout drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics; dropout active.
    Train,
    /// Running statistics; no dropout.
    Eval,
}

/// A convolution layer: filters, kernel size, and what differs from stride 1 without padding or bias.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conv {
    filters: usize,
    kernel: [usize; 2],
    conv: Conv2d,
    bias: bool,
    init: Option<Init>,
}

impl Conv {
    /// `filters` square kernels of side `kernel`.
    pub fn new(filters: usize, kernel: usize) -> Self {
        Self {
            filters,
            kernel: [kernel; 2],
            conv: Conv2d::default(),
            bias: false,
            init: Some(Init::KaimingNormalFanOut),
        }
    }

    /// The same stride along both axes.
    #[must_use]
    pub fn stride(mut self, stride: usize) -> Self {
        self.conv.stride = [stride; 2];
        self
    }

    /// The same zero padding on all sides.
    #[must_use]
    pub fn padding(mut self, pixels: usize) -> Self {
        self.conv.padding = Padding::all(pixels);
        self
    }

    /// Kernels of `rows` by `columns`, padded so that a stride of 1 keeps the map's size; both are odd.
    #[must_use]
    pub fn kernel(mut self, rows: usize, columns: usize) -> Self {
        let (h, w) = (rows / 2, columns / 2);
        self.kernel = [rows, columns];
        self.conv.padding = Padding { top: h, bottom: h, left: w, right: w };
        self
    }

    /// With PyTorch's default initialisation.
    #[must_use]
    pub fn default_init(mut self) -> Self {
        self.init = None;
        self
    }

    /// With a bias, and PyTorch's default initialisation for both.
    #[must_use]
    pub fn bias(self) -> Self {
        Self { bias: true, ..self.default_init() }
    }
}

/// The state of tracing a model.
#[derive(Debug)]
pub struct Net<'a> {
    tape: &'a mut Tape,
    parameters: Vec<Parameter>,
    mode: Mode,
    dropout: bool,
    counter: Option<Tensor>,
    /// Dropout layers so far.
    dropouts: usize,
    seed: u32,
    prefix: Vec<String>,
}

impl<'a> Net<'a> {
    /// Traces onto `tape`. `seed` keys dropout.
    pub fn new(tape: &'a mut Tape, mode: Mode, seed: u32) -> Self {
        Self { tape, parameters: vec![], mode, dropout: true, counter: None, dropouts: 0, seed, prefix: vec![] }
    }

    /// Draws dropout by this counter (u32 `[1]`) instead of the optimizer's steps.
    #[must_use]
    pub fn counting_by(mut self, counter: Tensor) -> Self {
        self.counter = Some(counter);
        self
    }

    /// Leaves dropout out even in training mode: what is then trained does not depend on a random mask, so that it can
    /// be compared with another program.
    #[must_use]
    pub fn without_dropout(mut self) -> Self {
        self.dropout = false;
        self
    }

    /// The parameters declared so far, in order of declaration.
    pub fn into_parameters(self) -> Vec<Parameter> {
        self.parameters
    }

    /// The shape of a value.
    pub fn shape(&self, x: Tensor) -> &Shape {
        self.tape.shape(x)
    }

    /// Traces a part whose parameters are called `name.…`.
    ///
    /// # Errors
    /// Those of `part`.
    pub fn scope<T>(&mut self, name: impl Into<String>, part: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.prefix.push(name.into());
        let outer = self.tape.set_scope(self.prefix.join("."));
        let result = part(self);
        self.tape.set_scope(outer);
        self.prefix.pop();
        result
    }

    fn parameter(
        &mut self,
        name: &str,
        file_shape: Shape,
        layout: Layout,
        init: Init,
        trainable: bool,
    ) -> Result<Tensor> {
        let full: String = self.prefix.iter().map(|part| format!("{part}.")).collect::<String>() + name;
        let d = file_shape.dims();
        let device_shape = match layout {
            Layout::Same => file_shape.clone(),
            Layout::Conv => [d[2], d[3], d[1], d[0]].into(),
            Layout::Linear => [d[1], d[0]].into(),
        };
        if self.parameters.iter().any(|p| p.name == full) {
            return Err(Error::new(Kind::Internal, format!("the model declares '{full}' twice")));
        }
        let variable = self.tape.variable(&full, TensorType::f32(device_shape), trainable)?;
        self.parameters.push(Parameter { name: full, file_shape, layout, init, trainable });
        Ok(variable)
    }

    /// A weight in the element type of the activations it meets: in mixed precision, f32 weights are rounded to f16.
    fn as_operand(&mut self, weight: Tensor, x: Tensor) -> Result<Tensor> {
        let dtype = self.tape.ty(x).dtype;
        cast::cast(self.tape, weight, dtype)
    }

    /// The values in f32: what a loss is computed from.
    ///
    /// # Errors
    /// [`Kind::Shape`] if x is not a float tensor.
    pub fn full_precision(&mut self, x: Tensor) -> Result<Tensor> {
        cast::cast(self.tape, x, DType::F32)
    }

    /// A convolution. Parameters `name.weight` `[K, C, R, S]`, `name.bias` `[K]`.
    ///
    /// # Errors
    /// [`Kind::Shape`] if the kernel does not fit.
    pub fn conv(&mut self, name: &str, x: Tensor, layer: Conv) -> Result<Tensor> {
        self.scope(name, |net| {
            let c = net.shape(x).last();
            let [r, s] = layer.kernel;
            let default = Init::UniformFanIn { fan_in: (c * r * s).max(1) };
            let init = layer.init.unwrap_or(default);
            let weight = net.parameter("weight", [layer.filters, c, r, s].into(), Layout::Conv, init, true)?;
            let bias = match layer.bias {
                true => Some(net.parameter("bias", [layer.filters].into(), Layout::Same, default, true)?),
                false => None,
            };
            let weight = net.as_operand(weight, x)?;
            conv2d::conv2d(net.tape, x, weight, bias, layer.conv)
        })
    }

    /// Batch normalisation with PyTorch's defaults (eps 1e-5, momentum 0.1).
    /// Parameters `name.{weight, bias, running_mean, running_var}` `[C]`.
    ///
    /// # Errors
    /// [`Kind::Shape`] in training mode if there is a single value per channel.
    pub fn batch_norm(&mut self, name: &str, x: Tensor) -> Result<Tensor> {
        self.batch_norm_eps(name, x, 1e-5)
    }

    /// The same with another `eps`.
    ///
    /// # Errors
    /// As [`batch_norm`](Self::batch_norm).
    pub fn batch_norm_eps(&mut self, name: &str, x: Tensor, eps: f32) -> Result<Tensor> {
        self.scope(name, |net| {
            let c = net.shape(x).last();
            let mut vector = |name, value, trainable| {
                net.parameter(name, [c].into(), Layout::Same, Init::Constant(value), trainable)
            };
            let gamma = vector("weight", 1.0, true)?;
            let beta = vector("bias", 0.0, true)?;
            let mean = vector("running_mean", 0.0, false)?;
            let var = vector("running_var", 1.0, false)?;
            let spec = batch_norm::BatchNorm { eps, momentum: 0.1 };
            match net.mode {
                Mode::Train => batch_norm::batch_norm_train(net.tape, x, Some(gamma), beta, mean, var, spec),
                Mode::Eval => batch_norm::batch_norm_eval(net.tape, x, Some(gamma), beta, mean, var, spec),
            }
        })
    }

    /// A linear layer on `[N, C]`. Parameters `name.weight` `[out, C]`, `name.bias` `[out]`.
    ///
    /// # Errors
    /// [`Kind::Shape`] if x is not a matrix.
    pub fn linear(&mut self, name: &str, x: Tensor, out: usize) -> Result<Tensor> {
        self.scope(name, |net| {
            let c = net.shape(x).last();
            let init = Init::UniformFanIn { fan_in: c.max(1) };
            let weight = net.parameter("weight", [out, c].into(), Layout::Linear, init, true)?;
            let bias = net.parameter("bias", [out].into(), Layout::Same, init, true)?;
            let weight = net.as_operand(weight, x)?;
            conv2d::linear(net.tape, x, weight, Some(bias))
        })
    }

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

    /// `a + b`.
    ///
    /// # Errors
    /// [`Kind::Shape`] if the shapes differ.
    pub fn add(&mut self, a: Tensor, b: Tensor) -> Result<Tensor> {
        add::add(self.tape, a, b)
    }

    /// Max-pooling with a square window.
    ///
    /// # Errors
    /// [`Kind::Shape`] if the window does not fit.
    pub fn max_pool(&mut self, x: Tensor, window: usize, stride: usize, padding: usize) -> Result<Tensor> {
        max_pool::max_pool(self.tape, x, Window::square(window, stride, padding))
    }

    /// Average pooling with a square window; what is padded does not count.
    ///
    /// # Errors
    /// [`Kind::Shape`] if the window does not fit.
    pub fn avg_pool(&mut self, x: Tensor, window: usize, stride: usize, padding: usize) -> Result<Tensor> {
        avg_pool::avg_pool(self.tape, x, Window::square(window, stride, padding), false)
    }

    /// Maps side by side along the channels.
    ///
    /// # Errors
    /// [`Kind::Shape`] if they differ in anything but the channels.
    pub fn concat(&mut self, parts: &[Tensor]) -> Result<Tensor> {
        concat::concat(self.tape, parts)
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
    /// [`Kind::Shape`] if x is not a map.
    pub fn global_avg_pool(&mut self, x: Tensor) -> Result<Tensor> {
        global_avg_pool::global_avg_pool(self.tape, x)
    }

    /// The map as a row, in the order H, W, C: `[N, H, W, C]` to `[N, H * W * C]`.
    ///
    /// # Errors
    /// [`Kind::Shape`] for a scalar.
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
    /// [`Kind::Shape`] if the rate is not in `[0, 1)`.
    pub fn dropout(&mut self, x: Tensor, rate: f32) -> Result<Tensor> {
        if self.mode == Mode::Eval || !self.dropout || rate == 0.0 {
            return Ok(x);
        }
        let key = Stream::named(self.seed, &format!("dropout/{}/{}", self.prefix.join("."), self.dropouts)).key();
        self.dropouts += 1;
        let step = match self.counter {
            Some(counter) => counter,
            None => self.tape.variable(STEP, TensorType::u32([1]), false)?,
        };
        dropout::dropout(self.tape, x, rate, key, step)
    }

    /// A squeeze-and-excitation block (Hu et al., 2018, section 3): the map's mean through two linear layers, the
    /// second as wide as the map, gates the channels. Parameters `name.fc1`, `name.fc2`.
    ///
    /// # Errors
    /// [`Kind::Shape`] if x is not a map or has fewer than `reduction` channels.
    pub fn squeeze_excite(&mut self, name: &str, x: Tensor, reduction: usize) -> Result<Tensor> {
        self.scope(name, |net| {
            let c = net.shape(x).last();
            let s = net.global_avg_pool(x)?;
            let s = net.linear("fc1", s, c / reduction)?;
            let s = net.relu(s)?;
            let s = net.linear("fc2", s, c)?;
            let s = net.sigmoid(s)?;
            channel_mul::channel_mul(net.tape, x, s)
        })
    }
}
