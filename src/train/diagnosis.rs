//! Where a step went wrong: the same step again, operation by operation, with a look at all weights, at every result of the
//! forward and the backward pass, and at its pictures.

use serde::Serialize;

use super::TrainConfig;
use super::graph::{Results, Source, Traced, TrainGraph, input};
use super::mixing::Partners;
use super::objective::Objective;
use super::session::{Portion, TrainSession};
use crate::autograd::{Early, Plan, Store, Tape, Tensor};
use crate::data::Batch;
use crate::error::Result;
use crate::gpu::{Caps, Gpu};
use crate::models::{Model, Task};
use crate::ops::summary::{NUMBERS, Summary, summarise};
use crate::optim::{FAULT, Verdict};
use crate::tensor::{DType, HostTensor, TensorType};

/// A batch with the pictures that it is mixed with.
pub(super) type Lesson = (Batch, Option<Partners>);

/// When a value is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Pass {
    /// It is there before the step.
    Weights,
    /// From the pictures to the loss.
    Forward,
    /// From the loss to the gradients.
    Backward,
    /// It is there behind the step.
    Update,
}

/// A value of a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Value {
    pub pass: Pass,
    /// The layer, or the weight.
    pub layer: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub op: &'static str,
    pub shape: Vec<usize>,
    #[serde(flatten)]
    pub holds: Summary,
}

impl Value {
    /// Of a tensor that is on the host.
    pub fn of(pass: Pass, layer: &str, tensor: &HostTensor) -> Self {
        let shape = tensor.shape().dims().to_vec();
        Self { pass, layer: layer.into(), op: "", shape, holds: Summary::of_values(tensor.data().iter().copied()) }
    }

    /// In words.
    pub fn describe(&self) -> String {
        let Self { layer, op, holds, .. } = self;
        let numbers = format!("{} of {} numbers are not finite", holds.not_finite, holds.elements);
        match self.pass {
            Pass::Weights => format!("the weights '{layer}' were bad before the step: {numbers}"),
            Pass::Forward => format!("it began in layer '{layer}' ({op}) of the forward pass: {numbers}"),
            Pass::Backward => format!("it began in layer '{layer}' ({op}) of the backward pass: {numbers}"),
            Pass::Update => format!("it began in the update of '{layer}': {numbers}"),
        }
    }
}

/// A value that is looked at, and the variable that holds its [`Summary`].
struct Watched {
    pass: Pass,
    layer: String,
    op: &'static str,
    shape: Vec<usize>,
    record: String,
}

/// A training step without its optimizer that looks at what it computes.
pub(super) struct Watch {
    graph: TrainGraph,
    watched: Vec<Watched>,
}

impl Watch {
    /// Traces and plans it, without fusion: so that every operation has a result.
    ///
    /// # Errors
    /// As [`TrainGraph::new`].
    pub fn new(model: Model, config: &TrainConfig, source: &Source, outputs: usize, caps: &Caps) -> Result<Self> {
        let batch = config.images_at_once();
        let Traced { mut tape, loss, logits, parameters, .. } = Traced::step(model, config, source, batch, outputs)?;
        let mut found: Vec<(Watched, Tensor)> = vec![];
        let mut watch = |pass, layer: &str, op, tape: &Tape, t: Tensor| {
            let (record, shape) = (format!("watched.{}", found.len()), tape.shape(t).dims().to_vec());
            if tape.ty(t).dtype != DType::U32 {
                found.push((Watched { pass, layer: layer.into(), op, shape, record }, t));
            }
        };
        for (name, t) in tape.trainable() {
            watch(Pass::Weights, &name, "", &tape, t);
        }
        let last = tape.nodes().iter().position(|node| node.outputs.contains(&loss)).unwrap_or_default();
        for (n, node) in tape.nodes().iter().enumerate() {
            let pass = if n <= last { Pass::Forward } else { Pass::Backward };
            node.outputs.iter().for_each(|&t| watch(pass, &node.scope, node.op.name(), &tape, t));
        }
        for (Watched { record, .. }, t) in &found {
            let record = tape.variable(record, TensorType::f32([NUMBERS]), false)?;
            summarise(&mut tape, record, *t)?;
        }
        // As in every training step.
        tape.input(input::LR, TensorType::f32([1]));
        let fault = tape.variable(FAULT, TensorType::u32([1]), false)?;
        let results = Results { logits: model.task() == Task::Classify, unscale: false };
        let outputs = results.outputs(loss, logits, Verdict { fault, unscale: None });
        let plan = Plan::unfused(&tape, &outputs, caps)?;
        let (task, in_parts) = (model.task(), config.micro_batch.is_some());
        let graph = TrainGraph { task, plan, parameters, results, in_parts };
        Ok(Self { graph, watched: found.into_iter().map(|(watched, _)| watched).collect() })
    }

    /// Runs it on a batch, with the weights and the counters in `store` as they are before the step; returns what was seen, in
    /// the order of its operations.
    ///
    /// # Errors
    /// [`Kind::OutOfMemory`](crate::Kind::OutOfMemory) where there is no room for it; device errors.
    pub fn run(
        self,
        gpu: &Gpu,
        objective: &Objective,
        store: &mut Store,
        (batch, partners): &Lesson,
        at: (u64, u32, f64),
        portion: Option<&Portion>,
    ) -> Result<Vec<Value>> {
        let Self { graph, watched } = self;
        let session = TrainSession::beside(gpu, graph, objective.class_weights(), store)?;
        let mut session = session.with_more_labels(objective.more_labels());
        let empty = HostTensor::full([NUMBERS], 0.0);
        watched.iter().try_for_each(|watched| store.write(gpu, &watched.record, &empty))?;
        let mut nothing = |_| {};
        let portion = portion.map(|portion| (portion, Early { groups: &[], started: &mut nothing }));
        session.run_parts(gpu, (batch, partners.as_ref()), at, portion)?;
        gpu.check()?;
        while session.collect(gpu)?.is_some() {}
        let read = |Watched { pass, layer, op, shape, record }: Watched| {
            let mut numbers = [0.0; NUMBERS];
            numbers.copy_from_slice(store.read(gpu, &record)?.data());
            Ok(Value { pass, layer, op, shape, holds: Summary::of(numbers) })
        };
        watched.into_iter().map(read).collect()
    }
}

/// A picture of the batch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Picture {
    pub image: String,
    pub class: String,
    /// What it is mixed with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partner: Option<String>,
    /// Least, greatest and mean value of red, green and blue, 0 to 255, before augmentation; of features nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<[(u8, u8, f64); 3]>,
}

/// The ranges of the channels of a picture's pixels.
pub(super) fn channels(pixels: &[u32]) -> [(u8, u8, f64); 3] {
    [0, 1, 2].map(|channel| {
        let values = || pixels.iter().map(move |pixel| pixel.to_le_bytes()[channel]);
        let mean = values().map(f64::from).sum::<f64>() / pixels.len().max(1) as f64;
        (values().min().unwrap_or_default(), values().max().unwrap_or_default(), mean)
    })
}
