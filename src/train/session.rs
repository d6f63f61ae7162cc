//! A training or evaluation graph on a device, step by step.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use super::graph::{EvalGraph, Results, TrainGraph, input};
use super::mixing::{Blend, Partners};
use super::targets::{Learned, Takes, Targets};
use crate::autograd::{Early, Executable, Memory, PendingOutputs, Plan, Store};
use crate::data::Batch;
use crate::error::{Error, Kind, Result};
use crate::gpu::Gpu;
use crate::metrics::argmax;
use crate::models::Task;
use crate::nn::Parameter;
use crate::ops::{STEP, self_test};
use crate::optim::{LossScaling, STATE_PREFIX};
use crate::parallel::Team;
use crate::tensor::{DType, HostTensor};
use crate::weights::{Difference, Tensors};

/// What a step returns, some steps after it was submitted.
#[derive(Debug, Clone, PartialEq)]
pub struct StepResult {
    /// The step, from 0.
    pub step: u64,
    /// Its loss.
    pub loss: f32,
    /// Images whose largest logit was that of their class; of masks none.
    pub correct: usize,
    /// Images.
    pub images: usize,
    /// The step that made a weight, or a number of the optimizer, that is not finite: this one, or with micro-batches the one
    /// before.
    pub fault: Option<u64>,
    /// Whether nothing was updated since gradients in f16 overflowed: in this step, or with micro-batches in the one before.
    pub skipped: bool,
}

/// Which part of a step's batch is computed here, as one of several ranks.
#[derive(Debug, Clone)]
pub(super) struct Portion {
    /// The ranks.
    pub team: Team,
    /// Images of the step.
    pub images: usize,
    /// Micro-batches of the step before the first of these.
    pub before: usize,
    /// Micro-batches of the step.
    pub parts: usize,
    /// The weights of all rows of the step.
    pub whole: f32,
}

/// What the words of a batch are to a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reads {
    /// Pixels.
    Pictures,
    /// Features of the backbone: the bits of f32.
    Features,
}

impl Reads {
    fn of(plan: &Plan) -> Self {
        let features = plan.inputs.iter().any(|(name, _)| name == input::FEATURES);
        if features { Self::Features } else { Self::Pictures }
    }

    fn input(self) -> &'static str {
        match self {
            Self::Pictures => input::PIXELS,
            Self::Features => input::FEATURES,
        }
    }
}

/// A training graph on a device.
pub struct TrainSession {
    executable: Executable,
    parameters: Vec<Parameter>,
    targets: Targets,
    reads: Reads,
    /// Whether pictures are mixed with partners.
    mixes: bool,
    /// Images of a run of the graph: a batch, or one part of it.
    rows: usize,
    in_parts: bool,
    results: Results,
    in_flight: VecDeque<Part>,
    /// What is known of a step whose last part is still under way.
    unfinished: Option<StepResult>,
}

/// A part of a batch under way: all of it, without micro-batches.
struct Part {
    step: u64,
    labels: Vec<u32>,
    /// Of the batch's loss.
    share: f32,
    last: bool,
    pending: PendingOutputs,
}

impl TrainSession {
    /// Builds everything the graph needs; persistent tensors live in `store`. `class_weights`, `[K]`, weigh the loss of
    /// classifiers; other models have none.
    ///
    /// # Errors
    /// Those of [`self_test`] and of [`Executable::new`].
    pub fn new(gpu: &Gpu, graph: TrainGraph, class_weights: &[f32], store: &mut Store) -> Result<Self> {
        self_test(gpu, &[&graph.plan])?;
        let session = Self::beside(gpu, graph, class_weights, store)?;
        LossScaling::initialise(gpu, store)?;
        Ok(session)
    }

    /// As [`new`](Self::new), in a store whose variables have their values.
    pub(super) fn beside(gpu: &Gpu, graph: TrainGraph, class_weights: &[f32], store: &mut Store) -> Result<Self> {
        let executable = Executable::new(gpu, graph.plan, store)?;
        let has = |name: &str| executable.plan().inputs.iter().any(|(n, _)| n == name);
        let takes = match graph.task {
            Task::Segment => Takes::Mask,
            Task::Classify if has(input::ROW_WEIGHTS) => Takes::Sigmoids,
            Task::Classify if has(input::TARGETS) => Takes::Shares,
            Task::Classify => Takes::Label,
        };
        let mixes = has(input::PARTNER_PIXELS);
        if has(input::CLASS_WEIGHTS) {
            executable.set_input(gpu, input::CLASS_WEIGHTS, bytemuck::cast_slice(class_weights))?;
        }
        let reads = Reads::of(executable.plan());
        let rows = executable.plan().inputs.iter().find(|(name, _)| name == reads.input());
        let rows = rows.and_then(|(_, ty)| ty.shape.dims().first().copied()).unwrap_or_default();
        let targets = Targets { takes, class_weights: class_weights.to_vec(), more: Arc::default() };
        let TrainGraph { parameters, in_parts, results, .. } = graph;
        let in_flight = VecDeque::new();
        let unfinished = None;
        Ok(Self { executable, parameters, targets, reads, mixes, rows, in_parts, results, in_flight, unfinished })
    }

    /// Learns further classes of some pictures, by their number in the dataset, where each class has a sigmoid of its own.
    #[must_use]
    pub fn with_more_labels(mut self, more: Arc<HashMap<u32, Vec<u32>>>) -> Self {
        self.targets.more = more;
        self
    }

    /// The model's parameters.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The memory the graph takes alone: see [`Memory::in_turns`].
    pub fn memory(&self) -> Memory {
        self.executable.memory()
    }

    /// The executable, for benchmarks and profiles.
    pub fn executable(&self) -> &Executable {
        &self.executable
    }

    /// Submits a step and returns the result of an earlier one that has had time to finish. The batch may be several
    /// times as large as the graph's, if that was made with micro-batches.
    ///
    /// # Errors
    /// [`Kind::Shape`] for a batch of another size; device errors.
    pub fn step(&mut self, gpu: &Gpu, batch: &Batch, step: u64, epoch: u32, lr: f64) -> Result<Option<StepResult>> {
        self.step_mixed(gpu, (batch, None), step, epoch, lr)
    }

    /// As [`step`](Self::step), where pictures are mixed: with the partners of the batch. What counts as correct is then
    /// a picture's own class, however small its share.
    ///
    /// # Errors
    /// As [`step`](Self::step); [`Kind::Shape`] unless each picture has a partner, or none where they are not mixed.
    pub fn step_mixed(
        &mut self,
        gpu: &Gpu,
        (batch, partners): (&Batch, Option<&Partners>),
        step: u64,
        epoch: u32,
        lr: f64,
    ) -> Result<Option<StepResult>> {
        let finished = self.run_parts(gpu, (batch, partners), (step, epoch, lr), None)?;
        if self.in_parts {
            self.executable.run_closing(gpu);
        }
        gpu.check()?;
        // Without parts there is nothing to gain from one more under way.
        if finished.is_none() && self.in_flight.len() == Executable::IN_FLIGHT {
            return self.collect_part(gpu);
        }
        Ok(finished)
    }

    /// Closes a step whose parts have run: the optimizer.
    pub(super) fn close(&self, gpu: &Gpu) -> Result<()> {
        self.executable.run_closing(gpu);
        gpu.check()
    }

    /// The weight of each row in the loss of its batch.
    pub(super) fn row_weights(&self, batch: &Batch, partners: Option<&Partners>) -> Vec<f32> {
        self.targets.learned(batch, partners).weights
    }

    /// Submits the parts of a step, without what closes it: all of its batch, or this portion of it, with groups of variables that
    /// start on their way to the host as soon as the last part is through with them (see [`Executable::run_part_with_others`]). As
    /// [`step_mixed`](Self::step_mixed) else.
    pub(super) fn run_parts(
        &mut self,
        gpu: &Gpu,
        (batch, partners): (&Batch, Option<&Partners>),
        (step, epoch, lr): (u64, u32, f64),
        mut portion: Option<(&Portion, Early<'_>)>,
    ) -> Result<Option<StepResult>> {
        let in_parts = self.in_parts;
        let images = batch.labels.len();
        let parts = images / self.rows.max(1);
        if parts * self.rows != images || (parts != 1 && !in_parts) {
            let rows = self.rows;
            return Err(Error::new(Kind::Shape, format!("a batch of {images} images for a graph of {rows}")));
        }
        let paired = match partners {
            Some(Partners { batch, blends }) => self.mixes && batch.labels.len() == images && blends.len() == images,
            None => !self.mixes,
        };
        if !paired {
            return Err(Error::new(Kind::Shape, "each picture is mixed with one partner, or none with any"));
        }
        let e = &self.executable;
        if self.reads == Reads::Pictures {
            e.set_input(gpu, input::EPOCH, &epoch.to_le_bytes())?;
        }
        e.set_input(gpu, input::LR, &(lr as f32).to_le_bytes())?;
        // The loss is the mean over its images, by the weights of their classes.
        let Learned { weights, classes } = self.targets.learned(batch, partners);
        let (before, of_step, whole) = match &portion {
            None => (0, parts, weights.iter().sum()),
            Some((portion, _)) => (portion.before, portion.parts, portion.whole),
        };
        let mut finished = None;
        for part in 0..parts {
            let of = |elements: usize| part * elements / parts..(part + 1) * elements / parts;
            let labels = &batch.labels[of(images)];
            let own: f32 = weights[of(images)].iter().sum();
            let share = if of_step == 1 || whole <= 0.0 { 1.0 } else { own / whole };
            let e = &self.executable;
            e.set_input(gpu, self.reads.input(), bytemuck::cast_slice(&batch.pixels[of(batch.pixels.len())]))?;
            if self.reads == Reads::Pictures {
                e.set_input(gpu, input::SAMPLES, bytemuck::cast_slice(&batch.keys[of(images)]))?;
            }
            match self.targets.takes {
                Takes::Mask => {}
                Takes::Label => e.set_input(gpu, input::LABELS, bytemuck::cast_slice(labels))?,
                Takes::Shares | Takes::Sigmoids => {
                    e.set_input(gpu, input::TARGETS, bytemuck::cast_slice(&classes[of(classes.len())]))?;
                }
            }
            if self.targets.takes == Takes::Sigmoids {
                e.set_input(gpu, input::ROW_WEIGHTS, bytemuck::cast_slice(&weights[of(images)]))?;
            }
            if let Some(Partners { batch, blends }) = partners {
                let pixels = &batch.pixels[of(batch.pixels.len())];
                e.set_input(gpu, input::PARTNER_PIXELS, bytemuck::cast_slice(pixels))?;
                e.set_input(gpu, input::PARTNER_SAMPLES, bytemuck::cast_slice(&batch.keys[of(images)]))?;
                Blend::upload(&blends[of(images)], self.rows, |name, bytes| e.set_input(gpu, name, bytes))?;
            }
            if in_parts {
                let before = (step * of_step as u64 + (before + part) as u64) as u32;
                e.set_input(gpu, input::SHARE, &share.to_le_bytes())?;
                e.set_input(gpu, input::COUNTER, &before.to_le_bytes())?;
            }
            let labels = labels.to_vec();
            if self.in_flight.len() == Executable::IN_FLIGHT {
                finished = self.collect_part(gpu)?.or(finished);
            }
            let e = &mut self.executable;
            let pending = match &mut portion {
                // Behind an exchange nothing fails that the others do not hear of at the next.
                Some((Portion { team, .. }, early)) => {
                    let groups = if part + 1 == parts { early.groups } else { &[] };
                    let early = Early { groups, started: &mut *early.started };
                    e.run_part_with_others(gpu, early, &mut |exchange, own| {
                        exchange.combined(&team.exchange(&exchange.about(), Ok(exchange.message(own)))?)
                    })?
                }
                None if in_parts => e.run_part_and_read(gpu),
                None => e.run_and_read(gpu),
            };
            self.in_flight.push_back(Part { step, labels, share, last: part + 1 == parts, pending });
        }
        Ok(finished)
    }

    /// Waits for the oldest step under way; `None` if there is none.
    ///
    /// # Errors
    /// Device errors.
    pub fn collect(&mut self, gpu: &Gpu) -> Result<Option<StepResult>> {
        while !self.in_flight.is_empty() {
            if let Some(finished) = self.collect_part(gpu)? {
                return Ok(Some(finished));
            }
        }
        Ok(None)
    }

    /// Waits for the oldest part under way; the step's result if it was the last of its step.
    fn collect_part(&mut self, gpu: &Gpu) -> Result<Option<StepResult>> {
        let Some(Part { step, labels, share, last, pending }) = self.in_flight.pop_front() else { return Ok(None) };
        let outputs = self.executable.finish_read(gpu, pending)?;
        let loss: Vec<f32> = bytemuck::pod_collect_to_vec(&outputs[0]);
        let correct = self.results.logits(&outputs).map_or(0, |logits| {
            let logits: Vec<f32> = bytemuck::pod_collect_to_vec(logits);
            let rows = logits.chunks_exact(self.targets.class_weights.len()).zip(&labels);
            rows.filter(|(row, label)| argmax(row) == **label as usize).count()
        });
        // What closes a step comes behind its parts, and is seen with those of the next.
        let fault = self.results.fault(&outputs).then(|| step.saturating_sub(u64::from(self.in_parts)));
        let skipped = self.results.skipped(&outputs);
        let start = StepResult { step, loss: 0.0, correct: 0, images: 0, fault, skipped };
        let before = self.unfinished.take().unwrap_or(start);
        let result = StepResult {
            loss: before.loss + share * loss[0],
            correct: before.correct + correct,
            images: before.images + labels.len(),
            ..before
        };
        if last {
            return Ok(Some(result));
        }
        self.unfinished = Some(result);
        Ok(None)
    }
}

/// An evaluation graph on a device.
pub struct EvalSession {
    executable: Executable,
    parameters: Vec<Parameter>,
    reads: Reads,
    /// Pictures of a run.
    pictures: usize,
    /// Logits of a picture.
    outputs: usize,
    in_flight: VecDeque<(usize, PendingOutputs)>,
}

impl EvalSession {
    /// Builds everything the graph needs; persistent tensors live in `store`.
    ///
    /// # Errors
    /// Those of [`self_test`] and of [`Executable::new`].
    pub fn new(gpu: &Gpu, graph: EvalGraph, store: &mut Store) -> Result<Self> {
        self_test(gpu, &[&graph.plan])?;
        let executable = Executable::new(gpu, graph.plan, store)?;
        let logits = &executable.plan().outputs[0].1.shape;
        let pictures = logits.dims().first().copied().unwrap_or_default();
        let (reads, outputs) = (Reads::of(executable.plan()), logits.len() / pictures.max(1));
        Ok(Self { executable, parameters: graph.parameters, reads, pictures, outputs, in_flight: VecDeque::new() })
    }

    /// The model's parameters.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The executable, for benchmarks and profiles.
    pub fn executable(&self) -> &Executable {
        &self.executable
    }

    /// Uploads a batch without running it.
    ///
    /// # Errors
    /// [`Kind::Shape`] for a batch of another size.
    pub fn upload(&self, gpu: &Gpu, batch: &Batch) -> Result<()> {
        let e = &self.executable;
        e.set_input(gpu, self.reads.input(), bytemuck::cast_slice(&batch.pixels))?;
        if self.reads == Reads::Features {
            return Ok(());
        }
        e.set_input(gpu, input::SAMPLES, bytemuck::cast_slice(&batch.keys))?;
        e.set_input(gpu, input::EPOCH, &0u32.to_le_bytes())
    }

    /// Submits a run of the uploaded batch, all of whose rows count, and returns the logits of an earlier run that has
    /// had time to finish: for benchmarks.
    ///
    /// # Errors
    /// Device errors.
    pub fn step(&mut self, gpu: &Gpu) -> Result<Option<Vec<f32>>> {
        self.submit(gpu, self.pictures);
        gpu.check()?;
        if self.in_flight.len() < Executable::IN_FLIGHT { Ok(None) } else { self.collect(gpu) }
    }

    fn submit(&mut self, gpu: &Gpu, valid: usize) {
        let pending = self.executable.run_and_read(gpu);
        self.in_flight.push_back((valid, pending));
    }

    /// The logits of the valid pictures of all batches, one after the other. `progress` is called with the batches done.
    ///
    /// # Errors
    /// Those of the batches and of `progress`; device errors.
    pub fn logits(
        &mut self,
        gpu: &Gpu,
        batches: impl IntoIterator<Item = Result<Batch>>,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Vec<f32>> {
        let mut logits = vec![];
        self.each_picture(gpu, batches, progress, &mut |_, of_picture| {
            logits.extend_from_slice(of_picture);
            Ok(())
        })?;
        Ok(logits)
    }

    /// Calls `take` with the number and the logits of every valid picture of all batches, in order: for outputs that are
    /// too large to be kept. `progress` is called with the batches done.
    ///
    /// # Errors
    /// Those of the batches, of `take` and of `progress`; device errors.
    pub fn each_picture(
        &mut self,
        gpu: &Gpu,
        batches: impl IntoIterator<Item = Result<Batch>>,
        progress: &mut dyn FnMut(usize) -> Result<()>,
        take: &mut dyn FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let (outputs, mut pictures) = (self.outputs, 0);
        let mut hand_on = |logits: Vec<f32>| {
            logits.chunks_exact(outputs).try_for_each(|of_picture| {
                pictures += 1;
                take(pictures - 1, of_picture)
            })
        };
        // What an earlier call that failed has left under way.
        while self.collect(gpu)?.is_some() {}
        self.executable.variables_changed();
        let mut done = 0;
        for batch in batches {
            let batch = batch?;
            self.upload(gpu, &batch)?;
            self.submit(gpu, batch.valid);
            if self.in_flight.len() == Executable::IN_FLIGHT {
                hand_on(self.collect(gpu)?.unwrap_or_default())?;
            }
            done += 1;
            progress(done)?;
        }
        while let Some(logits) = self.collect(gpu)? {
            hand_on(logits)?;
        }
        Ok(())
    }

    /// Waits for the oldest run under way and returns the logits of its valid pictures; `None` if there is none.
    ///
    /// # Errors
    /// Device errors.
    pub fn collect(&mut self, gpu: &Gpu) -> Result<Option<Vec<f32>>> {
        let Some((valid, pending)) = self.in_flight.pop_front() else { return Ok(None) };
        let outputs = self.executable.finish_read(gpu, pending)?;
        let mut logits: Vec<f32> = bytemuck::pod_collect_to_vec(&outputs[0]);
        logits.truncate(valid * self.outputs);
        Ok(Some(logits))
    }
}

/// Writes initial values for all parameters.
///
/// # Errors
/// [`Kind::Internal`] if the store lacks one.
pub(super) fn initialise(gpu: &Gpu, store: &Store, parameters: &[Parameter], seed: u32) -> Result<()> {
    parameters.iter().try_for_each(|p| store.write(gpu, &p.name, &p.to_device(&p.initial(seed))))
}

/// Writes the parameters that `tensors` hold, in the file's layout. Returns what was missing or unexpected.
///
/// # Errors
/// [`Kind::Weights`] unless file and model agree, or `allow_partial` is set and at least one parameter is there; and for
/// numbers that are not finite.
pub(super) fn load_weights(
    gpu: &Gpu,
    store: &Store,
    parameters: &[Parameter],
    tensors: &Tensors,
    allow_partial: bool,
) -> Result<Difference> {
    let tensors = &*of_encoder(parameters, tensors);
    let difference = compare(parameters, tensors);
    let refuse = |what: &str| {
        Err(Error::new(Kind::Weights, format!("{what}\n  {}", difference.describe()))
            .next("check --model and the number of classes, or load what fits with --allow-partial"))
    };
    if !difference.is_empty() && !allow_partial {
        return refuse("the weight file does not fit the model");
    }
    let mut loaded = 0;
    for p in parameters {
        if let Some(tensor) = tensors.get(&p.name).filter(|t| *t.shape() == p.file_shape) {
            if let Some(bad) = tensor.data().iter().find(|v| !v.is_finite()) {
                return Err(Error::new(Kind::Weights, format!("'{}' in the weight file holds {bad}", p.name))
                    .next("the file is damaged, or its training had diverged: use another"));
            }
            store.write(gpu, &p.name, &p.to_device(tensor))?;
            loaded += 1;
        }
    }
    if loaded == 0 { refuse("the weight file has nothing in common with the model") } else { Ok(difference) }
}

/// The tensors by the model's names. The file of a backbone that the model has as its encoder lacks that prefix.
fn of_encoder<'a>(parameters: &[Parameter], tensors: &'a Tensors) -> Cow<'a, Tensors> {
    const PREFIX: &str = "encoder.";
    let inner: BTreeSet<&str> = parameters.iter().filter_map(|p| p.name.strip_prefix(PREFIX)).collect();
    let bare = tensors.keys().any(|name| inner.contains(name.as_str()));
    if !bare || tensors.keys().any(|name| name.starts_with(PREFIX)) {
        return Cow::Borrowed(tensors);
    }
    let named = |name: &String| if inner.contains(name.as_str()) { format!("{PREFIX}{name}") } else { name.clone() };
    Cow::Owned(tensors.iter().map(|(name, tensor)| (named(name), tensor.clone())).collect())
}

/// What differs between a model and a file; optimizer state in a checkpoint is not unexpected.
pub(super) fn compare(parameters: &[Parameter], tensors: &Tensors) -> Difference {
    let mut difference = Difference::of(tensors, parameters.iter().map(|p| (p.name.as_str(), &p.file_shape)));
    difference.unexpected.retain(|name| !name.starts_with(STATE_PREFIX));
    difference
}

/// Reads all parameters back, in the file's layout.
///
/// # Errors
/// Device errors.
pub(super) fn export_weights(gpu: &Gpu, store: &Store, parameters: &[Parameter]) -> Result<Tensors> {
    parameters.iter().map(|p| Ok((p.name.clone(), p.to_file(&store.read(gpu, &p.name)?)))).collect()
}

/// Reads the optimizer's float state back, in the device's layout.
///
/// # Errors
/// Device errors.
pub(super) fn export_optimizer(gpu: &Gpu, store: &Store) -> Result<Tensors> {
    let names = store.types().filter(|(name, ty)| name.starts_with(STATE_PREFIX) && ty.dtype == DType::F32);
    names.map(|(name, _)| Ok((name.to_owned(), store.read(gpu, name)?))).collect()
}

/// Writes the optimizer's state: its float tensors and its step counter, which did not count steps that were skipped.
///
/// # Errors
/// [`Kind::Checkpoint`] if a tensor is missing or has another shape.
pub(super) fn load_optimizer(gpu: &Gpu, store: &Store, tensors: &Tensors, step: u64) -> Result<()> {
    let state: Vec<(String, HostTensor)> = store
        .types()
        .filter(|(name, ty)| name.starts_with(STATE_PREFIX) && ty.dtype == DType::F32)
        .map(|(name, ty)| {
            let tensor = tensors.get(name).filter(|t| *t.shape() == ty.shape).cloned();
            tensor.map(|t| (name.to_owned(), t)).ok_or_else(|| {
                Error::new(Kind::Checkpoint, format!("the checkpoint lacks the optimizer's '{name}'"))
                    .next("resume with the configuration it was made with")
            })
        })
        .collect::<Result<_>>()?;
    state.iter().try_for_each(|(name, tensor)| store.write(gpu, name, tensor))?;
    let done = step.saturating_sub(LossScaling::skipped(|name| tensors.get(name)));
    store.write_bytes(gpu, STEP, &(done as u32).to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Model;

    #[test]
    fn weights_of_a_bare_backbone_become_those_of_an_encoder() {
        let parameters = Model::find("unet-resnet18").unwrap().summary(32, 1).unwrap().parameters;
        let of = |names: &[&str]| -> Tensors {
            names.iter().map(|name| ((*name).to_owned(), HostTensor::full([1], 1.0))).collect()
        };
        let names = |names: &[&str]| of_encoder(&parameters, &of(names)).keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&["conv1.weight", "fc.bias"]), ["encoder.conv1.weight", "fc.bias"]);
        let whole = ["decoder.blocks.0.conv1.0.weight", "encoder.conv1.weight"];
        assert_eq!(names(&whole), whole);
        let small = Model::find("unet-small").unwrap().summary(32, 1).unwrap().parameters;
        assert_eq!(of_encoder(&small, &of(&["conv1.weight"])).keys().next().unwrap(), "conv1.weight");
    }
}
