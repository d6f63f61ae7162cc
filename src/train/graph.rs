//! The training and evaluation graphs of a model.

use std::collections::BTreeMap;

use super::freezing::Network;
use super::objective::trace_loss;
use super::{Precision, TracedModel, TrainConfig};
use crate::autograd::{Gradients, Plan, Tape, Tensor};
use crate::data::ImageSize;
use crate::error::Result;
use crate::gpu::Caps;
use crate::models::{Model, Task};
use crate::nn::{Frozen, Mode, Net, Parameter};
use crate::ops::augment::{Augment, augment};
use crate::ops::mix::mix;
use crate::ops::{self, accumulate, cast};
use crate::optim::{LossScaling, SCOPE, Verdict, average_of};
use crate::tensor::{DType, Shape, TensorType};

/// Names of the host-uploaded tensors.
pub(super) mod input {
    /// RGBA8 pixels, the mask in alpha, u32 `[N, H, W]`.
    pub const PIXELS: &str = "pixels";
    /// In the place of the pictures: features of the backbone, f32 `[N, ..]`.
    pub const FEATURES: &str = "features";
    /// Dataset index of each row, u32 `[N]`.
    pub const SAMPLES: &str = "samples";
    /// Class of each row, u32 `[N]`; where classes are learned.
    pub const LABELS: &str = "labels";
    /// In the place of the class, where each has a sigmoid of its own or pictures are mixed: how much of it a row has, f32
    /// `[N, K]`.
    pub const TARGETS: &str = "targets";
    /// With sigmoids: the weight of each row in the loss, f32 `[N]`.
    pub const ROW_WEIGHTS: &str = "row weights";
    /// Where pictures are mixed: the partners' pixels, u32 `[N, H, W]`.
    pub const PARTNER_PIXELS: &str = "partner pixels";
    /// With them: the partners' dataset indices, u32 `[N]`.
    pub const PARTNER_SAMPLES: &str = "partner samples";
    /// With them: each picture's own share outside its box, f32 `[N]`.
    pub const MIX_SHARES: &str = "mix shares";
    /// With them: the box that is the partner's, u32 `[N, 4]`.
    pub const MIX_BOXES: &str = "mix boxes";
    /// Epoch, u32 `[1]`.
    pub const EPOCH: &str = "epoch";
    /// Learning rate, f32 `[1]`.
    pub const LR: &str = "learning rate";
    /// Weight of each class in the loss, f32 `[K]`; where classes are learned.
    pub const CLASS_WEIGHTS: &str = "class weights";
    /// With micro-batches: the part's share of the batch's loss, f32 `[1]`.
    pub const SHARE: &str = "share";
    /// With micro-batches: how many came before, over all steps, u32 `[1]`. Dropout draws by it.
    pub const COUNTER: &str = "micro-batches";
}

/// A traced and planned training step. Outputs: loss `[1]`; of classifiers logits `[N, K]`; and what tells whether numbers
/// are not finite (see [`Verdict`]).
#[derive(Debug, Clone)]
pub struct TrainGraph {
    /// What the model is for.
    pub task: Task,
    /// The plan.
    pub plan: Plan,
    /// The model's parameters.
    pub parameters: Vec<Parameter>,
    /// What it returns.
    pub(super) results: Results,
    /// Whether a batch comes in parts.
    pub(super) in_parts: bool,
}

/// The outputs of a training step, in this order: loss, logits, factor of the gradients, fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Results {
    pub logits: bool,
    pub unscale: bool,
}

impl Results {
    pub fn outputs(self, loss: Tensor, logits: Tensor, verdict: Verdict) -> Vec<Tensor> {
        let logits = self.logits.then_some(logits);
        [loss].into_iter().chain(logits).chain(verdict.unscale).chain([verdict.fault]).collect()
    }

    /// Among what was read back: the logits.
    pub fn logits(self, outputs: &[Vec<u8>]) -> Option<&[u8]> {
        self.logits.then(|| outputs[1].as_slice())
    }

    /// Whether the step was skipped for an overflow.
    pub fn skipped(self, outputs: &[Vec<u8>]) -> bool {
        self.unscale && outputs[1 + usize::from(self.logits)].iter().all(|&byte| byte == 0)
    }

    /// Whether a number is not finite.
    pub fn fault(self, outputs: &[Vec<u8>]) -> bool {
        outputs.last().is_some_and(|fault| fault.iter().any(|&byte| byte != 0))
    }
}

/// A traced and planned evaluation. Output: logits `[N, K]`, or `[N, H, W, 1]` of masks.
#[derive(Debug, Clone)]
pub struct EvalGraph {
    /// The plan.
    pub plan: Plan,
    /// The model's parameters.
    pub parameters: Vec<Parameter>,
}

/// The inputs that make pictures.
pub(super) struct Images {
    pub pixels: Tensor,
    pub samples: Tensor,
    pub epoch: Tensor,
}

impl Images {
    pub fn declare(tape: &mut Tape, batch: usize, size: ImageSize) -> Self {
        Self {
            pixels: tape.input(input::PIXELS, TensorType::u32([batch, size.height, size.width])),
            samples: tape.input(input::SAMPLES, TensorType::u32([batch])),
            epoch: tape.input(input::EPOCH, TensorType::u32([1])),
        }
    }

    pub fn augmented(&self, tape: &mut Tape, how: Augment) -> Result<Tensor> {
        augment(tape, self.pixels, self.samples, self.epoch, how)
    }

    /// Augmented pictures `own`, mixed with partners, for which it declares the inputs.
    pub fn mixed(&self, tape: &mut Tape, how: Augment, own: Tensor) -> Result<Tensor> {
        let (ty, rows) = (tape.ty(self.pixels).clone(), tape.shape(self.samples).len());
        let partner = Self {
            pixels: tape.input(input::PARTNER_PIXELS, ty),
            samples: tape.input(input::PARTNER_SAMPLES, TensorType::u32([rows])),
            epoch: self.epoch,
        };
        let other = partner.augmented(tape, how)?;
        let shares = tape.input(input::MIX_SHARES, TensorType::f32([rows]));
        let boxes = tape.input(input::MIX_BOXES, TensorType::u32([rows, 4]));
        mix(tape, own, other, shares, boxes)
    }
}

/// What the name of the sum of a parameter's gradients begins with.
pub(super) const TOTAL: &str = "total.";

/// Appends the addition of every parameter's gradient to a running total; returns parameters with totals. These are zero
/// between steps, so checkpoints need not hold them.
fn add_to_totals(tape: &mut Tape, gradients: &Gradients) -> Result<Vec<(Tensor, Tensor)>> {
    let outer = tape.set_scope("micro-batch");
    let mut totals = vec![];
    for (name, parameter) in tape.trainable() {
        if let Some(gradient) = gradients.get(parameter) {
            let total = tape.variable(&format!("{TOTAL}{name}"), tape.ty(gradient).clone(), false)?;
            accumulate::accumulate(tape, total, gradient)?;
            totals.push((parameter, total));
        }
    }
    tape.set_scope(outer);
    Ok(totals)
}

/// What a graph begins with.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Source {
    /// Pictures.
    Pictures,
    /// What the backbone made of them, `[N, ..]`: the graph is that of the head.
    Features(Shape),
}

/// The first value of a graph, with the inputs that it comes from.
enum Beginning {
    Pictures(Images, Tensor),
    Features(Tensor),
}

impl Beginning {
    fn declare(tape: &mut Tape, config: &TrainConfig, mode: Mode, source: &Source, batch: usize) -> Result<Self> {
        let (how, mixes) = match mode {
            Mode::Train => (config.train_augment(), config.augment.mixes()),
            Mode::Eval => (config.eval_augment(), false),
        };
        match source {
            Source::Pictures => {
                let images = Images::declare(tape, batch, config.size);
                let x = images.augmented(tape, how)?;
                let x = if mixes { images.mixed(tape, how, x)? } else { x };
                Ok(Self::Pictures(images, x))
            }
            Source::Features(shape) => {
                let rows = [&[batch], &shape.dims()[1..]].concat();
                let x = tape.input(input::FEATURES, TensorType::f32(rows));
                // What the backbone computed in f16 is exactly that again.
                let dtype = if how.half { DType::F16 } else { DType::F32 };
                Ok(Self::Features(cast::cast(tape, x, dtype)?))
            }
        }
    }

    fn logits(&self, model: Model, config: &TrainConfig, net: &mut Net<'_>, outputs: usize) -> Result<Tensor> {
        let features = match self {
            Self::Pictures(_, x) => model.features(net, *x)?,
            Self::Features(x) => *x,
        };
        model.classify(net, features, config.head.head().as_ref(), outputs)
    }

    fn images(&self) -> Option<&Images> {
        match self {
            Self::Pictures(images, _) => Some(images),
            Self::Features(_) => None,
        }
    }
}

impl TrainGraph {
    /// Traces and plans a training step of `batch` images for a device. With micro-batches (`config.micro_batch`) those
    /// are the images of one part: its gradients are added to running totals, and the optimizer, which closes the plan
    /// (see [`Plan::in_two`]), takes and clears the totals.
    ///
    /// # Errors
    /// [`Kind::Shape`](crate::Kind::Shape) if the images are too small for the model,
    /// [`Kind::OutOfMemory`](crate::Kind::OutOfMemory) if a tensor exceeds the device's limits.
    ///
    /// What the configuration freezes is not trained; where it has phases, `config` is that of one of them (see
    /// [`TrainConfig::by_phase`]).
    pub fn new(model: Model, config: &TrainConfig, batch: usize, outputs: usize, caps: &Caps) -> Result<Self> {
        Self::of(model, config, &Source::Pictures, batch, outputs, caps)
    }

    /// As [`new`](Self::new), from pictures or from features.
    pub(super) fn of(
        model: Model,
        config: &TrainConfig,
        source: &Source,
        batch: usize,
        outputs: usize,
        caps: &Caps,
    ) -> Result<Self> {
        let Traced { mut tape, loss, logits, gradients, scaling, parameters, anything_frozen } =
            Traced::step(model, config, source, batch, outputs)?;
        let in_parts = config.micro_batch.is_some();
        let lr = tape.input(input::LR, TensorType::f32([1]));
        let totals = if in_parts { Some(add_to_totals(&mut tape, &gradients)?) } else { None };
        let gradients = totals.as_ref().map_or(gradients, |totals| Gradients::given(totals));
        let verdict = config.append_optimizer(&mut tape, &gradients, lr, scaling.as_ref(), &parameters)?;
        if let Some(totals) = &totals {
            tape.set_scope(SCOPE);
            totals.iter().try_for_each(|&(_, total)| accumulate::clear(&mut tape, total))?;
        }
        let task = model.task();
        let results = Results { logits: task == Task::Classify, unscale: verdict.unscale.is_some() };
        let outputs = results.outputs(loss, logits, verdict);
        let closing = totals.map(|_| SCOPE);
        // What depends on frozen variables alone, such as their f16 copies, is computed once.
        let plan = Plan::of_training(&tape, &outputs, caps, closing, anything_frozen)?;
        Ok(Self { task, plan, parameters, results, in_parts })
    }
}

/// A step up to its gradients.
pub(super) struct Traced {
    pub tape: Tape,
    pub loss: Tensor,
    pub logits: Tensor,
    gradients: Gradients,
    scaling: Option<LossScaling>,
    pub parameters: Vec<Parameter>,
    anything_frozen: bool,
}

impl Traced {
    pub fn step(model: Model, config: &TrainConfig, source: &Source, batch: usize, outputs: usize) -> Result<Self> {
        let mut tape = Tape::new();
        let beginning = Beginning::declare(&mut tape, config, Mode::Train, source, batch)?;
        let in_parts = config.micro_batch.is_some();
        let counter = in_parts.then(|| tape.input(input::COUNTER, TensorType::u32([1])));
        let frozen = Network::of(model, config, outputs)?.frozen;
        let anything_frozen = frozen != Frozen::default();
        let mut net = Net::new(&mut tape, Mode::Train, config.seed).freezing(frozen);
        if let Some(counter) = counter {
            net = net.counting_by(counter);
        }
        if let (true, Some(all)) = (config.sync_bn, config.share_of) {
            net = net.sharing_norms(all, config.batch);
        }
        let logits = beginning.logits(model, config, &mut net, outputs)?;
        let parameters = net.into_parameters();
        let loss = trace_loss(&mut tape, config, beginning.images(), logits)?;
        let scaling = match config.precision {
            Precision::F32 => None,
            Precision::Mixed => Some(LossScaling::declare(&mut tape)?),
        };
        let share = in_parts.then(|| tape.input(input::SHARE, TensorType::f32([1])));
        let gradients = match (&scaling, share) {
            (None, None) => ops::backward(&mut tape, loss)?,
            (None, Some(share)) => ops::backward_from(&mut tape, &[(loss, share)])?,
            (Some(scaling), None) => ops::backward_from(&mut tape, &[(loss, scaling.seed())])?,
            (Some(scaling), Some(share)) => {
                let seed = ops::mul::mul(&mut tape, scaling.seed(), share)?;
                ops::backward_from(&mut tape, &[(loss, seed)])?
            }
        };
        Ok(Self { tape, loss, logits, gradients, scaling, parameters, anything_frozen })
    }
}

impl EvalGraph {
    /// Traces and plans an evaluation of `batch` images for a device.
    ///
    /// # Errors
    /// As [`TrainGraph::new`].
    pub fn new(model: Model, config: &TrainConfig, batch: usize, outputs: usize, caps: &Caps) -> Result<Self> {
        Self::of(model, config, &Source::Pictures, BTreeMap::new(), batch, outputs, caps)
    }

    /// The evaluation beside a training: of the averages, where the configuration wants any.
    pub(super) fn in_training(
        model: Model,
        config: &TrainConfig,
        source: &Source,
        batch: usize,
        outputs: usize,
        caps: &Caps,
    ) -> Result<Self> {
        let averaged = match config.fine_tune.ema {
            None => BTreeMap::new(),
            Some(_) => {
                let network = Network::of(model, config, outputs)?;
                let moving = network.parameters.into_iter().filter(|p| !p.frozen);
                moving.map(|p| (p.name.clone(), average_of(&p.name))).collect()
            }
        };
        Self::of(model, config, source, averaged, batch, outputs, caps)
    }

    fn of(
        model: Model,
        config: &TrainConfig,
        source: &Source,
        averaged: BTreeMap<String, String>,
        batch: usize,
        outputs: usize,
        caps: &Caps,
    ) -> Result<Self> {
        let mut tape = Tape::new();
        let beginning = Beginning::declare(&mut tape, config, Mode::Eval, source, batch)?;
        let mut net = Net::new(&mut tape, Mode::Eval, 0).reading(averaged);
        let logits = beginning.logits(model, config, &mut net, outputs)?;
        let parameters = net.into_parameters();
        let plan = Plan::preparing(&tape, &[logits], caps)?;
        Ok(Self { plan, parameters })
    }

    /// The backbone alone, of a model that classifies. Output: what the head reads, in f32.
    ///
    /// # Errors
    /// As [`TrainGraph::new`].
    pub(super) fn of_backbone(model: Model, config: &TrainConfig, batch: usize, caps: &Caps) -> Result<Self> {
        let mut tape = Tape::new();
        let x = Images::declare(&mut tape, batch, config.size).augmented(&mut tape, config.eval_augment())?;
        let mut net = Net::new(&mut tape, Mode::Eval, 0);
        let features = model.features(&mut net, x)?;
        let features = net.full_precision(features)?;
        let parameters = net.into_parameters();
        let plan = Plan::preparing(&tape, &[features], caps)?;
        Ok(Self { plan, parameters })
    }
}

impl TracedModel {
    /// Traces a model as [`EvalGraph`] has it, from the 8-bit pixels that [`EvalSession::upload`](super::EvalSession::upload)
    /// takes.
    ///
    /// # Errors
    /// [`Kind::Shape`](crate::Kind::Shape) if the model does not take images of the configuration's size.
    pub fn from_pixels(model: Model, config: &TrainConfig, batch: usize, outputs: usize) -> Result<Self> {
        let mut tape = Tape::new();
        let images = Images::declare(&mut tape, batch, config.size).augmented(&mut tape, config.eval_augment())?;
        Self::of(model, config, tape, images, outputs)
    }
}
