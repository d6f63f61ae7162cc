//! Tracing a model: layers as calls. Here are those with parameters; the rest is in the files beside.

mod conv;
mod plain;
mod tokens;

pub use conv::{Conv, ConvTranspose};

use std::collections::{BTreeMap, BTreeSet};

use super::{Init, Layout, Parameter};
use crate::autograd::{Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::ops::batch_norm::{self, BatchNorm, Shared};
use crate::ops::{cast, channel_mul, conv_transpose2d, conv2d, layer_norm};
use crate::tensor::{DType, Shape, TensorType};

/// Whether batch-norm uses the batch's statistics and dropout drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics; dropout active.
    Train,
    /// Running statistics; no dropout.
    Eval,
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
    /// Rows of the batch of all ranks that normalise together, and of this one.
    sharing: Option<[usize; 2]>,
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
            sharing: None,
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

    /// Batch-norm takes its statistics of the batches of all ranks, of `all` rows together, of which `own` are here: see
    /// [`batch_norm_shared`](batch_norm::batch_norm_shared).
    #[must_use]
    pub fn sharing_norms(mut self, all: usize, own: usize) -> Self {
        self.sharing = Some([all, own]);
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

    /// Traces what belongs to a layer without being a part of it in files, such as its activation.
    ///
    /// # Errors
    /// Those of `part`.
    pub fn beside<T>(&mut self, layer: &str, part: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let names = self.prefix.iter().map(String::as_str).chain([layer]).collect::<Vec<_>>();
        let outer = self.tape.set_scope(names.join("."));
        let result = part(self);
        self.tape.set_scope(outer);
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
            match (mode, net.sharing) {
                (Mode::Train, Some([all, own])) => {
                    let shared = Shared { spec, rows: net.shape(x).rows() * all / own };
                    batch_norm::batch_norm_shared(net.tape, x, Some(gamma), beta, mean, var, shared)
                }
                (Mode::Train, None) => batch_norm::batch_norm_train(net.tape, x, Some(gamma), beta, mean, var, spec),
                (Mode::Eval, _) => batch_norm::batch_norm_eval(net.tape, x, Some(gamma), beta, mean, var, spec),
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
