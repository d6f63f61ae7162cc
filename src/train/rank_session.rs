//! A rank's share of training steps, without a run around them: for benchmarks.

use super::session::TrainSession;
use super::shared::{Shared, Timeline, portion};
use super::shares::Shares;
use super::{StepResult, TrainConfig, TrainGraph};
use crate::autograd::Store;
use crate::data::Batch;
use crate::error::Result;
use crate::gpu::Gpu;
use crate::nn::Parameter;
use crate::parallel::Team;

/// The training graph of one of several ranks on a device, and what it exchanges with the others.
pub struct RankSession {
    train: TrainSession,
    shared: Shared,
    shares: Shares,
    /// Of all ranks.
    images: usize,
}

impl RankSession {
    /// The configuration of the graph that belongs to a rank, where `config` is that of a run over all of them. A rank that is
    /// alone has one as if there were others.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::Kind::Usage) if there are not enough rows for all.
    pub fn share(team: &Team, config: &TrainConfig) -> Result<TrainConfig> {
        let own = Shares::of(team, config, None)?.own(config.clone());
        Ok(TrainConfig { micro_batch: Some(own.images_at_once()), ..own })
    }

    /// Builds everything that the graph of [`share`](Self::share) needs; persistent tensors live in `store`. All ranks call it
    /// together.
    ///
    /// # Errors
    /// As [`TrainSession::new`]; those of other ranks.
    pub fn new(
        gpu: &Gpu,
        graph: TrainGraph,
        class_weights: &[f32],
        store: &mut Store,
        (team, config): (&Team, &TrainConfig),
    ) -> Result<Self> {
        let shares = Shares::of(team, config, None)?;
        let train = TrainSession::new(gpu, graph, class_weights, store)?;
        let moving = train.parameters().iter().filter(|p| !p.trainable && !p.frozen).map(|p| p.name.as_str());
        let shared = Shared::new(gpu, train.executable().plan(), store, moving, (team, config.wire))?;
        Ok(Self { train, shared, shares, images: config.batch })
    }

    /// The model's parameters.
    pub fn parameters(&self) -> &[Parameter] {
        self.train.parameters()
    }

    /// Images of a step that are this rank's.
    pub fn rows(&self) -> usize {
        self.shares.rows.len()
    }

    /// The numbers in each bucket of gradients.
    pub fn buckets(&self) -> impl Iterator<Item = usize> {
        self.shared.buckets()
    }

    /// From now on, exchanges begin when the backward pass is over.
    pub fn without_overlap(&mut self) {
        self.shared.without_overlap(self.train.executable().plan());
    }

    /// A step on this rank's images with the ranks of `team`: all of them, or this one alone, which then exchanges nothing.
    ///
    /// # Errors
    /// As [`TrainSession::step`]; those of other ranks.
    pub fn step(&mut self, gpu: &Gpu, team: &Team, batch: &Batch, step: u64) -> Result<(StepResult, Timeline)> {
        let images = if team.is_alone() { self.rows() } else { self.images };
        let (portion, told) = portion(team, &self.shares, images, &self.train.row_weights(batch, None))?;
        let mut done =
            self.shared.step(gpu, &mut self.train, (batch, None), (step, 0, 1e-3), &portion, Default::default())?;
        // The line begins with the weights of the rows.
        let Timeline { ready, computed, total, communication, writing: _ } = &mut done.timeline;
        ready.iter_mut().chain([computed, total, communication]).for_each(|event| *event += told);
        Ok((done.result, done.timeline))
    }
}
