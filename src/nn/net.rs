//! Tracing a model: layers as calls.

use std::collections::{BTreeMap, BTreeSet};

use super::{Init, Layout, Parameter};
use crate::autograd::{Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::ops::STEP;
use crate::ops::batch_norm::BatchNorm;
use crate::ops::conv_transpose2d::{self, ConvTranspose2d};
use crate::ops::conv2d::{self, Conv2d, Padding};
use crate::ops::gelu::{self, Gelu};
use crate::ops::upsample::{self, Interpolation};
use crate::ops::window::Window;
use crate::ops::{
    add, add_rows, attention, avg_pool, batch_norm, cast, channel_mul, concat, drop_path, dropout, global_avg_pool,
    layer_norm, max_pool, relu, scale, sigmoid, silu, slice,
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

    /// `filters` kernels of `rows` by `columns`.
    pub fn rectangular(filters: usize, [rows, columns]: [usize; 2]) -> Self {
        Self { kernel: [rows, columns], ..Self::new(filters, 0) }
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

    /// Zero padding of `rows` above and below and of `columns` to the left and right.
    #[must_use]
    pub fn padding_of(mut self, [rows, columns]: [usize; 2]) -> Self {
        self.conv.padding = Padding { top: rows, bottom: rows, left: columns, right: columns };
        self
    }

    /// The same distance between taps along both axes.
    #[must_use]
    pub fn dilation(mut self, pixels: usize) -> Self {
        self.conv.dilation = [pixels; 2];
        self
    }

    /// Channels in groups that do not mix; as many as channels for a depthwise convolution.
    #[must_use]
    pub fn groups(mut self, groups: usize) -> Self {
        self.conv.groups = groups;
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

/// A transposed convolution layer: filters, kernel size, and what differs from stride 1 without padding or bias.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConvTranspose {
    filters: usize,
    kernel: usize,
    spec: ConvTranspose2d,
    bias: bool,
}

impl ConvTranspose {
    /// `filters` square kernels of side `kernel`.
    pub fn new(filters: usize, kernel: usize) -> Self {
        Self { filters, kernel, spec: ConvTranspose2d::default(), bias: false }
    }

    /// The same stride along both axes.
    #[must_use]
    pub fn stride(mut self, stride: usize) -> Self {
        self.spec.stride = [stride; 2];
        self
    }

    /// As many pixels taken away on all sides of the result.
    #[must_use]
    pub fn padding(mut self, pixels: usize) -> Self {
        self.spec.padding = Padding::all(pixels);
        self
    }

    /// As many rows and columns added at the end of the result.
    #[must_use]
    pub fn output_padding(mut self, pixels: usize) -> Self {
        self.spec.output_padding = [pixels; 2];
        self
    }

    /// A result of exactly `stride` times the extents, cut as Keras does ("same"), for kernels no smaller than the
    /// stride. Comes after the stride.
    #[must_use]
    pub fn same(mut self) -> Self {
        let cut = |stride: usize| self.kernel.saturating_sub(stride);
        let [rows, columns] = self.spec.stride.map(cut);
        let (top, left) = (rows / 2, columns / 2);
        self.spec.padding = Padding { top, bottom: rows - top, left, right: columns - left };
        self
    }

    /// With a bias.
    #[must_use]
    pub fn bias(mut self) -> Self {
        self.bias = true;
        self
    }
}

/// What of a network stays as it is while the rest is trained.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frozen {
    /// Names of parameters.
    pub parameters: BTreeSet<String>,
    /// Names of batch-norm layers that normalise with their running statistics, and do not move them.
    pub norms: BTreeSet<String>,
}

/// The state of tracing a model.
#[derive(Debug)]
pub struct Net<'a> {
    tape: &'a mut Tape,
    parameters: Vec<Parameter>,
    frozen: Frozen,
    /// Parameters that are read from another variable: the name of each.
    stand_ins: BTreeMap<String, String>,
    in_head: bool,
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
        Self {
            tape,
            parameters: vec![],
            frozen: Frozen::default(),
            stand_ins: BTreeMap::new(),
            in_head: false,
            mode,
            dropout: true,
            counter: None,
            dropouts: 0,
            seed,
            prefix: vec![],
        }
    }

    /// Leaves parameters and statistics as they are. What lies below all that is trained is in evaluation mode: nothing is
    /// dropped there either.
    #[must_use]
    pub fn freezing(mut self, frozen: Frozen) -> Self {
        self.frozen = frozen;
        self
    }

    /// Reads parameters from other variables: pairs of a parameter's name and the variable's.
    #[must_use]
    pub fn reading(mut self, stand_ins: BTreeMap<String, String>) -> Self {
        self.stand_ins = stand_ins;
        self
    }

    /// Traces the head.
    ///
    /// # Errors
    /// Those of `part`.
    pub fn head<T>(&mut self, part: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.in_head = true;
        let result = part(self);
        self.in_head = false;
        result
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
        let frozen = match trainable {
            true => self.frozen.parameters.contains(&full),
            false => self.frozen.norms.contains(&self.prefix.join(".")),
        };
        let variable = self.stand_ins.get(&full).unwrap_or(&full);
        let variable = self.tape.variable(variable, TensorType::f32(device_shape), trainable && !frozen)?;
        let head = self.in_head;
        self.parameters.push(Parameter { name: full, file_shape, layout, init, trainable, frozen, head });
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

    /// A convolution. Parameters `name.weight` `[K, C/groups, R, S]`, `name.bias` `[K]`.
    ///
    /// # Errors
    /// [`Kind::Shape`] if the kernel does not fit.
    pub fn conv(&mut self, name: &str, x: Tensor, layer: Conv) -> Result<Tensor> {
        self.scope(name, |net| {
            let c = net.shape(x).last();
            let [r, s] = layer.kernel;
            let group = c / layer.conv.groups.max(1);
            let default = Init::UniformFanIn { fan_in: (group * r * s).max(1) };
            let init = layer.init.unwrap_or(default);
            let weight = net.parameter("weight", [layer.filters, group, r, s].into(), Layout::Conv, init, true)?;
            let bias = match layer.bias {
                true => Some(net.parameter("bias", [layer.filters].into(), Layout::Same, default, true)?),
                false => None,
            };
            let weight = net.as_operand(weight, x)?;
            conv2d::conv2d(net.tape, x, weight, bias, layer.conv)
        })
    }

    /// A transposed convolution with PyTorch's default initialisation. Parameters `name.weight` `[C, K, R, S]`,
    /// `name.bias` `[K]`.
    ///
    /// # Errors
    /// [`Kind::Shape`] if the padding leaves nothing of the result.
    pub fn conv_transpose(&mut self, name: &str, x: Tensor, layer: ConvTranspose) -> Result<Tensor> {
        self.scope(name, |net| {
            let (c, k, side) = (net.shape(x).last(), layer.filters, layer.kernel);
            let init = Init::UniformFanIn { fan_in: (k * side * side).max(1) };
            let weight = net.parameter("weight", [c, k, side, side].into(), Layout::Conv, init, true)?;
            let bias = match layer.bias {
                true => Some(net.parameter("bias", [k].into(), Layout::Same, init, true)?),
                false => None,
            };
            let weight = net.as_operand(weight, x)?;
            conv_transpose2d::conv_transpose2d(net.tape, x, weight, bias, layer.spec)
        })
    }

    /// Batch normalisation with PyTorch's defaults (eps 1e-5, momentum 0.1).
    /// Parameters `name.{weight, bias, running_mean, running_var}` `[C]`.
    ///
    /// # Errors
    /// [`Kind::Shape`] in training mode if there is a single value per channel.
    pub fn batch_norm(&mut self, name: &str, x: Tensor) -> Result<Tensor> {
        self.batch_norm_with(name, x, BatchNorm { eps: 1e-5, momentum: 0.1 })
    }

    /// The same with other constants.
    ///
    /// # Errors
    /// As [`batch_norm`](Self::batch_norm).
    pub fn batch_norm_with(&mut self, name: &str, x: Tensor, spec: BatchNorm) -> Result<Tensor> {
        self.scope(name, |net| {
            let c = net.shape(x).last();
            let mut vector = |name, value, trainable| {
                net.parameter(name, [c].into(), Layout::Same, Init::Constant(value), trainable)
            };
            let gamma = vector("weight", 1.0, true)?;
            let beta = vector("bias", 0.0, true)?;
            let mean = vector("running_mean", 0.0, false)?;
            let var = vector("running_var", 1.0, false)?;
            let mode = if net.frozen.norms.contains(&net.prefix.join(".")) { Mode::Eval } else { net.mode };
            match mode {
                Mode::Train => batch_norm::batch_norm_train(net.tape, x, Some(gamma), beta, mean, var, spec),
                Mode::Eval => batch_norm::batch_norm_eval(net.tape, x, Some(gamma), beta, mean, var, spec),
            }
        })
    }

    /// Layer normalisation of the last axis. Parameters `name.{weight, bias}` `[C]`.
    ///
    /// # Errors
    /// [`Kind::Shape`] for a scalar.
    pub fn layer_norm(&mut self, name: &str, x: Tensor, eps: f32) -> Result<Tensor> {
        self.scope(name, |net| {
            let c = net.shape(x).last();
            let gamma = net.parameter("weight", [c].into(), Layout::Same, Init::Constant(1.0), true)?;
            let beta = net.parameter("bias", [c].into(), Layout::Same, Init::Constant(0.0), true)?;
            layer_norm::layer_norm(net.tape, x, gamma, beta, eps)
        })
    }

    /// A linear layer on the last axis of `[.., C]`. Parameters `name.weight` `[out, C]`, `name.bias` `[out]`.
    ///
    /// # Errors
    /// [`Kind::Shape`] for a scalar.
    pub fn linear(&mut self, name: &str, x: Tensor, out: usize) -> Result<Tensor> {
        self.scope(name, |net| {
            let init = Init::UniformFanIn { fan_in: net.shape(x).last().max(1) };
            net.product(["weight", "bias"], x, out, [init; 2])
        })
    }

    /// The linear layer itself, with the names and initial values of its weight and bias.
    fn product(&mut self, names: [&str; 2], x: Tensor, out: usize, init: [Init; 2]) -> Result<Tensor> {
        let shape = self.shape(x).clone();
        let (rows, c) = (shape.rows(), shape.last());
        let weight = self.parameter(names[0], [out, c].into(), Layout::Linear, init[0], true)?;
        let bias = self.parameter(names[1], [out].into(), Layout::Same, init[1], true)?;
        let weight = self.as_operand(weight, x)?;
        let x = self.tape.view(x, [rows, c])?;
        let y = conv2d::linear(self.tape, x, weight, Some(bias))?;
        let leading = &shape.dims()[..shape.rank().saturating_sub(1)];
        self.tape.view(y, [leading, &[out]].concat())
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

    /// Average pooling; `padding_counts` says whether padding counts as pixels.
    ///
    /// # Errors
    /// [`Kind::Shape`] if the window does not fit.
    pub fn avg_pool(&mut self, x: Tensor, window: Window, padding_counts: bool) -> Result<Tensor> {
        avg_pool::avg_pool(self.tape, x, window, padding_counts)
    }

    /// The maps at another size, rows by columns.
    ///
    /// # Errors
    /// [`Kind::Shape`] if x is not a map or an extent is 0.
    pub fn upsample(&mut self, x: Tensor, size: [usize; 2], interpolation: Interpolation) -> Result<Tensor> {
        upsample::upsample(self.tape, x, size, interpolation)
    }

    /// The values one after the other along the last axis.
    ///
    /// # Errors
    /// [`Kind::Shape`] without values, or if the other axes differ.
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
        match self.draws("dropout", x, rate)? {
            Some((key, step)) => dropout::dropout(self.tape, x, rate, key, step),
            None => Ok(x),
        }
    }

    /// Stochastic depth: of the branch of a residual block, `[N, ..]`, a share of the samples is dropped. As
    /// [`dropout`](Self::dropout) otherwise.
    ///
    /// # Errors
    /// [`Kind::Shape`] if the rate is not in `[0, 1)`.
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

    /// A squeeze-and-excitation block as EfficientNet has it: `squeezed` channels, SiLU between, and the layers are
    /// convolutions of a 1x1 map in files. Parameters `name.fc1`, `name.fc2`.
    ///
    /// # Errors
    /// [`Kind::Shape`] if x is not a map.
    pub fn squeeze_excite_silu(&mut self, name: &str, x: Tensor, squeezed: usize) -> Result<Tensor> {
        self.scope(name, |net| {
            let c = net.shape(x).last();
            let s = net.global_avg_pool(x)?;
            let n = net.shape(s).rows();
            let s = net.tape.view(s, [n, 1, 1, c])?;
            let s = net.conv("fc1", s, Conv::new(squeezed, 1).bias())?;
            let s = net.silu(s)?;
            let s = net.conv("fc2", s, Conv::new(c, 1).bias())?;
            let s = net.sigmoid(s)?;
            let s = net.tape.view(s, [n, c])?;
            channel_mul::channel_mul(net.tape, x, s)
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts that no model in this crate may use, traced to shapes and parameter names.
    #[test]
    fn layers_name_their_parameters_and_give_the_shapes_they_promise() {
        let mut tape = Tape::new();
        let image = tape.input("image", TensorType::f32([2, 8, 8, 6]));
        let mut net = Net::new(&mut tape, Mode::Train, 1);
        let wide = net.conv("wide", image, Conv::rectangular(4, [1, 7]).padding_of([0, 3])).unwrap();
        assert_eq!(net.shape(wide).dims(), [2, 8, 8, 4]);
        let depthwise = net.conv("depthwise", image, Conv::new(6, 3).padding(1).groups(6)).unwrap();
        assert_eq!(net.shape(depthwise).dims(), [2, 8, 8, 6]);
        for layer in
            [ConvTranspose::new(5, 3).stride(2).padding(1).output_padding(1), ConvTranspose::new(5, 3).stride(2).same()]
        {
            let name = if layer.spec.output_padding[0] > 0 { "up" } else { "up_same" };
            let up = net.conv_transpose(name, image, layer.bias()).unwrap();
            assert_eq!(net.shape(up).dims(), [2, 16, 16, 5]);
        }
        let x = net.tokens(image).unwrap();
        let x = net.class_token("class_token", x).unwrap();
        let x = net.position_embedding("pos_embedding", x).unwrap();
        let x = net.layer_norm("ln", x, 1e-6).unwrap();
        let x = net.self_attention("self_attention", x, 3).unwrap();
        let x = net.drop_path(x, 0.1).unwrap();
        assert_eq!(net.shape(x).dims(), [2, 65, 6]);
        let y = net.linear("head", x, 7).unwrap();
        assert_eq!(net.shape(y).dims(), [2, 65, 7]);
        let first = net.token(y, 0).unwrap();
        assert_eq!(net.shape(first).dims(), [2, 7]);
        assert!(net.self_attention("four", x, 4).is_err() && net.token(y, 65).is_err());
        let parameters = net.into_parameters();
        let shape = |name: &str| {
            let found = parameters.iter().find(|p| p.name == name);
            found.unwrap_or_else(|| panic!("no {name}")).file_shape.dims().to_vec()
        };
        assert_eq!(shape("depthwise.weight"), [6, 1, 3, 3]);
        assert_eq!(shape("up.weight"), [6, 5, 3, 3]);
        assert_eq!(shape("self_attention.in_proj_weight"), [18, 6]);
        assert_eq!(shape("self_attention.out_proj.bias"), [6]);
        assert_eq!(shape("pos_embedding"), [1, 65, 6]);
    }
}
