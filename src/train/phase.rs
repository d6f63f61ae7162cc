//! A phase of a run on a device: its graphs, its variables, and where its batches come from. Phases differ in what they
//! train, so each has graphs and a store of its own; weights go from one to the next, the optimizer starts afresh.

use std::sync::Arc;

use super::checkpoint::Checkpoint;
use super::features::{Features, MOST};
use super::fitting::{Job, Planned, fitting};
use super::freezing::Network;
use super::graph::{EvalGraph, Source, TrainGraph, input};
use super::objective::Objective;
use super::session::{
    EvalSession, TrainSession, export_optimizer, export_weights, initialise, load_optimizer, load_weights,
};
use super::shared::Shared;
use super::starting_weights::start;
use super::{AugmentConfig, TrainConfig, Wire};
use crate::autograd::{Plan, Store, Tunable};
use crate::data::{Batch, LastBatch, Loader, LoaderOptions, PixelStore, Visit};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Caps, Gpu};
use crate::models::{Model, Task};
use crate::nn::Parameter;
use crate::ops::STEP;
use crate::optim::{FAULT, LossScaling, STATE_PREFIX, average_of};
use crate::parallel::Team;
use crate::tune::distinct;
use crate::weights::{Tensors, WeightFile};

/// The graphs of a phase.
pub(super) struct Graphs {
    pub network: Network,
    train: TrainGraph,
    eval: EvalGraph,
    /// Where the features of all samples are computed beforehand: what computes them.
    backbone: Option<EvalGraph>,
    /// What a user should know of it.
    pub note: Option<String>,
}

/// What the graphs of a phase depend on.
#[derive(Clone, Copy)]
pub(super) struct Plans<'a> {
    pub model: Model,
    /// The phase's own configuration.
    pub config: &'a TrainConfig,
    pub outputs: usize,
    /// Samples that are trained on and validated with.
    pub samples: usize,
    /// Bytes on the device to stay below.
    pub budget: Option<u64>,
    /// Whether features of a frozen backbone are computed once, where that is possible.
    pub cache: bool,
}

impl Plans<'_> {
    /// Plans phases for a device, which are on it one after the other: what one of them needs more than there is the run cannot
    /// do without.
    ///
    /// # Errors
    /// Those of [`fitting`](super::fitting::fitting), of the largest batch for which all do.
    pub fn fitting(phases: &[Self], gpu: &Gpu, caps: &Caps) -> Result<Vec<Graphs>> {
        let Some(Self { config, budget, .. }) = phases.first() else { return Ok(vec![]) };
        let has_features = |phase: &Self| {
            let network = Network::of(phase.model, phase.config, phase.outputs)?;
            Ok::<_, Error>(phase.backbone(&network, 1, caps)?.0.is_some())
        };
        let job = || match Job::of_training(config) {
            Job::Step if phases.iter().all(|phase| has_features(phase).unwrap_or_default()) => Job::Head,
            job => job,
        };
        let all = |batch| phases.iter().map(|phase| phase.graphs(batch, caps)).collect();
        fitting(gpu, job, config.images_at_once(), *budget, all)
    }

    /// What computes the features of `batch` images, where they are computed once; else why not, if it is worth saying.
    fn backbone(&self, network: &Network, batch: usize, caps: &Caps) -> Result<(Option<EvalGraph>, Option<String>)> {
        let Self { model, config, samples, .. } = *self;
        if !self.cache || model.task() != Task::Classify || !network.backbone_is_frozen() {
            return Ok((None, None));
        }
        let anew = "the backbone is frozen, but its features are computed anew in each step:";
        if config.augment != AugmentConfig::NONE {
            let why = format!("{anew} augmentation changes the pictures (--no-augment computes them once)");
            return Ok((None, Some(why)));
        }
        let backbone = EvalGraph::of_backbone(model, config, batch, caps)?;
        let bytes = Features::bytes(&backbone.plan.outputs[0].1, samples);
        if bytes > MOST {
            let mib = |bytes: u64| bytes >> 20;
            let why = format!("{anew} those of {samples} images take {} MiB, more than {}", mib(bytes), mib(MOST));
            return Ok((None, Some(why)));
        }
        Ok((Some(backbone), None))
    }

    /// The graphs for `batch` images at a time, whether they fit or not.
    ///
    /// # Errors
    /// As [`TrainGraph::new`].
    pub fn graphs(&self, batch: usize, caps: &Caps) -> Result<Graphs> {
        let Self { model, config, outputs, .. } = *self;
        let network = Network::of(model, config, outputs)?;
        let (backbone, note) = self.backbone(&network, batch, caps)?;
        let features = |backbone: &EvalGraph| Source::Features(backbone.plan.outputs[0].1.shape.clone());
        let source = backbone.as_ref().map_or(Source::Pictures, features);
        let train = TrainGraph::of(model, config, &source, batch, outputs, caps)?;
        let eval = EvalGraph::in_training(model, config, &source, batch, outputs, caps)?;
        Ok(Graphs { network, train, eval, backbone, note })
    }
}

impl Planned for Graphs {
    fn times(&self) -> Vec<Vec<&Plan>> {
        let backbone = self.backbone.as_ref().map(|backbone| &backbone.plan);
        vec![[&self.train.plan, &self.eval.plan].into_iter().chain(backbone).collect()]
    }
}

impl Graphs {
    /// The nodes whose kernels can be tuned.
    pub fn tunable(&self) -> Vec<Tunable> {
        let backbone = self.backbone.as_ref().map_or(&[][..], |backbone| backbone.plan.tunable.as_slice());
        distinct([self.train.plan.tunable.as_slice(), &self.eval.plan.tunable, backbone].concat())
    }
}

/// The samples of a run in the host's memory.
#[derive(Clone)]
pub(super) struct Samples {
    pub pixels: Arc<PixelStore>,
    pub labels: Arc<[u32]>,
}

/// Where the training weights lie in a checkpoint whose weights are averages.
const RAW: &str = "optimizer.raw.";

/// What a phase leaves to the next.
pub(super) struct Legacy {
    weights: Tensors,
    state: Tensors,
}

/// A phase on a device.
pub(super) struct Workplace {
    pub train: TrainSession,
    pub eval: EvalSession,
    parameters: Vec<Parameter>,
    pub store: Store,
    averaging: bool,
    /// What computes the features, until it has.
    backbone: Option<EvalSession>,
    features: Option<Arc<Features>>,
    /// What the ranks of a run exchange in each step.
    pub shared: Option<Shared>,
}

impl Workplace {
    /// Builds everything the graphs need. The weights are not there yet.
    ///
    /// # Errors
    /// Those of [`Executable::new`](crate::autograd::Executable::new).
    pub fn new(gpu: &Gpu, graphs: Graphs, objective: &Objective, config: &TrainConfig) -> Result<Self> {
        let Graphs { network, train, eval, backbone, .. } = graphs;
        let mut store = Store::new();
        let train = TrainSession::new(gpu, train, objective.class_weights(), &mut store)?;
        let train = train.with_more_labels(objective.more_labels());
        let eval = EvalSession::new(gpu, eval, &mut store)?;
        let backbone = backbone.map(|graph| EvalSession::new(gpu, graph, &mut store)).transpose()?;
        gpu.save_pipelines();
        let (parameters, averaging) = (network.parameters, config.fine_tune.ema.is_some());
        let shared = None;
        Ok(Self { train, eval, parameters, store, averaging, backbone, features: None, shared })
    }

    /// Prepares it for ranks that share its steps.
    ///
    /// # Errors
    /// As [`Shared::new`].
    pub fn sharing(mut self, gpu: &Gpu, team: &Team, wire: Wire) -> Result<Self> {
        let moving = self.parameters.iter().filter(|p| !p.trainable && !p.frozen).map(|p| p.name.as_str());
        let plan = self.train.executable().plan();
        self.shared = Some(Shared::new(gpu, plan, &self.store, moving, (team, wire))?);
        Ok(self)
    }

    /// Draws the weights, and takes those of a file in their place as far as it has them: the model, the file, and whether
    /// it may lack some. Returns what there is to say of the file, a line each.
    ///
    /// # Errors
    /// As [`start`].
    pub fn begin(&self, gpu: &Gpu, seed: u32, file: Option<(Model, WeightFile, bool)>) -> Result<Vec<String>> {
        initialise(gpu, &self.store, &self.parameters, seed)?;
        let load = |(model, file, partial)| start(gpu, &self.store, model, &self.parameters, file, partial);
        let notes = file.map(load).transpose()?.unwrap_or_default();
        self.begin_averages(gpu)?;
        Ok(notes)
    }

    /// What the next phase takes over, in the host's memory: the device has room for one phase.
    ///
    /// # Errors
    /// Device errors.
    pub fn legacy(&self, gpu: &Gpu) -> Result<Legacy> {
        let weights = export_weights(gpu, &self.store, &self.parameters)?;
        Ok(Legacy { weights, state: export_optimizer(gpu, &self.store)? })
    }

    /// Takes over from the phase before; `step` steps were done.
    ///
    /// # Errors
    /// Device errors.
    pub fn follow(&self, gpu: &Gpu, before: &Legacy, step: u64) -> Result<()> {
        let Legacy { weights, state } = before;
        load_weights(gpu, &self.store, &self.parameters, weights, false)?;
        self.begin_averages(gpu)?;
        // The loss scale and what it has skipped go on; so does the counter of steps, by which dropout draws.
        for name in LossScaling::STATE {
            if let Some(tensor) = state.get(name) {
                self.store.write(gpu, name, tensor)?;
            }
        }
        let done = step.saturating_sub(LossScaling::skipped(|name| state.get(name)));
        self.store.write_bytes(gpu, STEP, &(done as u32).to_le_bytes())
    }

    /// Goes on where a checkpoint of this phase was made.
    ///
    /// # Errors
    /// [`Kind::Checkpoint`] or [`Kind::Weights`] for one that was not.
    pub fn resume(&self, gpu: &Gpu, checkpoint: &Checkpoint) -> Result<()> {
        load_weights(gpu, &self.store, &self.parameters, &checkpoint.weights, false)?;
        self.begin_averages(gpu)?;
        for p in self.averaged() {
            let raw = checkpoint.optimizer.get(&format!("{RAW}{}", p.name)).ok_or_else(|| {
                Error::new(Kind::Checkpoint, format!("the checkpoint lacks the trained '{}'", p.name))
                    .next("resume with the configuration it was made with")
            })?;
            self.store.write(gpu, &p.name, &p.to_device(raw))?;
        }
        load_optimizer(gpu, &self.store, &checkpoint.optimizer, checkpoint.progress.step)?;
        self.store.write_bytes(gpu, FAULT, &0u32.to_le_bytes())
    }

    /// Whether a step has made a number that is not finite.
    ///
    /// # Errors
    /// Device errors.
    pub fn fault(&self, gpu: &Gpu) -> Result<bool> {
        Ok(self.store.read_bytes(gpu, FAULT)?.iter().any(|&byte| byte != 0))
    }

    /// The bytes of what a forward pass changes, statistics of batch-norm, by name.
    ///
    /// # Errors
    /// Device errors.
    pub fn statistics(&self, gpu: &Gpu) -> Result<Vec<(String, Vec<u8>)>> {
        let moving = self.parameters.iter().filter(|p| !p.trainable);
        moving.map(|p| Ok((p.name.clone(), self.store.read_bytes(gpu, &p.name)?))).collect()
    }

    /// What the graphs begin with.
    pub fn source(&self) -> Source {
        let inputs = &self.train.executable().plan().inputs;
        let features = inputs.iter().find(|(name, _)| name == input::FEATURES);
        features.map_or(Source::Pictures, |(_, ty)| Source::Features(ty.shape.clone()))
    }

    /// The parameters and statistics that have an average.
    fn averaged(&self) -> impl Iterator<Item = &Parameter> {
        self.parameters.iter().filter(|p| self.averaging && !p.frozen)
    }

    /// Averages begin with the weights.
    fn begin_averages(&self, gpu: &Gpu) -> Result<()> {
        self.averaged().try_for_each(|p| {
            let value = self.store.read(gpu, &p.name)?;
            self.store.write(gpu, &average_of(&p.name), &value)
        })
    }

    /// What a checkpoint holds: the weights as they are evaluated, and the optimizer's state with the weights that it
    /// goes on with, where these are others.
    ///
    /// # Errors
    /// Device errors.
    pub fn export(&self, gpu: &Gpu) -> Result<(Tensors, Tensors)> {
        let mut weights = export_weights(gpu, &self.store, &self.parameters)?;
        let mut state = export_optimizer(gpu, &self.store)?;
        debug_assert!(RAW.starts_with(STATE_PREFIX));
        for p in self.averaged() {
            let average = p.to_file(&self.store.read(gpu, &average_of(&p.name))?);
            if let Some(raw) = weights.insert(p.name.clone(), average) {
                state.insert(format!("{RAW}{}", p.name), raw);
            }
        }
        Ok((weights, state))
    }

    /// All parameters of the network.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Computes the features of `samples`, where this phase trains on features and does not have them yet.
    ///
    /// # Errors
    /// Those of `progress`; device errors.
    pub fn compute_features(
        &mut self,
        gpu: &Gpu,
        of: &Samples,
        samples: &[usize],
        options: LoaderOptions,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        let Some(backbone) = &mut self.backbone else { return Ok(()) };
        let options = LoaderOptions { last: LastBatch::Pad, ..options };
        let loader = Loader::new(of.pixels.clone(), of.labels.clone(), samples.to_vec(), options)?;
        self.features = Some(Arc::new(Features::compute(gpu, backbone, samples, loader, progress)?));
        self.backbone = None;
        Ok(())
    }

    /// Whether it trains on features that are still to be computed.
    pub fn lacks_features(&self) -> bool {
        self.backbone.is_some()
    }

    /// Makes the evaluation that of these weights, and of pictures: training is over.
    ///
    /// # Errors
    /// [`Kind::Weights`] if they are not the model's; device errors.
    pub fn evaluate_with(&mut self, gpu: &Gpu, caps: &Caps, plans: Plans<'_>, weights: &Tensors) -> Result<()> {
        if self.features.take().is_some() || self.backbone.take().is_some() {
            let batch = plans.config.images_at_once();
            let graph =
                EvalGraph::in_training(plans.model, plans.config, &Source::Pictures, batch, plans.outputs, caps)?;
            self.eval = EvalSession::new(gpu, graph, &mut self.store)?;
        }
        load_weights(gpu, &self.store, &self.parameters, weights, false)?;
        self.begin_averages(gpu)
    }

    /// The batches of samples in this order, of pictures or of features.
    ///
    /// # Errors
    /// As [`Loader::new`].
    pub fn batches(
        &self,
        of: &Samples,
        order: impl IntoIterator<Item = impl Into<Visit>>,
        options: LoaderOptions,
    ) -> Result<Box<dyn Iterator<Item = Result<Batch>>>> {
        match &self.features {
            Some(features) => {
                let features = Arc::clone(features);
                let order = order.into_iter().map(Into::into).collect();
                Ok(Box::new(features.batches(of.labels.clone(), order, options.batch, options.last)))
            }
            None => Ok(Box::new(Loader::new(of.pixels.clone(), of.labels.clone(), order, options)?)),
        }
    }
}
