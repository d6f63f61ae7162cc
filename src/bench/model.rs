//! A model's step, timed: as the training loop runs it, and once more kernel by kernel.

use std::time::{Duration, Instant};

use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};

use crate::autograd::{Executable, KernelProfile, Memory, Store};
use crate::data::Batch;
use crate::error::{Error, Kind, Result};
use crate::gpu::{Caps, Gpu, Work};
use crate::models::Model;
use crate::nn::Parameter;
use crate::parallel::Team;
use crate::rng::Stream;
use crate::train::{
    EvalGraph, EvalSession, Mixing, Partners, RankSession, TrainConfig, TrainGraph, TrainSession, fitting_eval_graph,
    fitting_graph,
};
use crate::tune::TuningCache;

/// Classes of a classifier: those of HAM10000.
const CLASSES: usize = 7;
/// Without a number of steps they are timed for this long,
const TIMED: Duration = Duration::from_secs(5);
/// but at least and at most so many.
const STEPS: std::ops::RangeInclusive<usize> = 7..=500;
/// Steps by whose median a device's speed is told.
const SPEED_STEPS: usize = 3;
/// Steps timed kernel by kernel, of which each launch's median counts; fewer where they take long.
const PROFILES: usize = 5;
const PROFILED: Duration = Duration::from_secs(10);

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// A training step: upload of the pixels, augmentation, forward, loss, backward, Adam; loss and logits read back.
    Train,
    /// The evaluation graph on a batch that stays on the device: normalisation, forward; logits read back.
    Infer,
}

impl Task {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Infer => "infer",
        }
    }
}

/// A benchmark of a model.
#[derive(Debug, Clone)]
pub struct ModelBench {
    /// Model, size, batch; the step limit is the number of timed steps.
    pub config: TrainConfig,
    /// What is timed.
    pub task: Task,
    /// Steps before the clock starts; at least one is run.
    pub warm_up: usize,
    /// Bytes on the device to stay below.
    pub memory_limit: Option<u64>,
    /// What was measured on the adapter, which then chooses the kernels.
    pub tuning: Option<TuningCache>,
}

/// What was measured.
#[derive(Debug, Clone)]
pub struct ModelTiming {
    /// Launches of a step.
    pub launches: usize,
    /// Cost of a step in principle.
    pub work: Work,
    /// Whether any launch multiplies cooperative matrices.
    pub matrices: bool,
    /// Memory on the device: planned, so known exactly, and all of it is taken.
    pub memory: Memory,
    /// Seconds until the first step was done: tracing, pipelines, that step.
    pub ready: f64,
    /// Seconds of each timed step, from the end of one to the end of the next, three being under way at a time.
    pub steps: Vec<f64>,
    /// Processor seconds of this program in a step, where the system tells: of the kernels too on a software driver.
    pub cpu: Option<f64>,
    /// Every launch of a step with its time on the device.
    pub kernels: Result<Vec<KernelProfile>>,
}

/// A session with its batch, and the partners of its pictures where these are mixed.
enum Session {
    Train(Box<TrainSession>, Box<(Batch, Option<Partners>)>, u64),
    Infer(Box<EvalSession>),
}

impl Session {
    /// Submits a step; once three are under way, waits for the oldest.
    fn step(&mut self, gpu: &Gpu) -> Result<()> {
        match self {
            Self::Train(session, batch, step) => {
                let result = session.step_mixed(gpu, (&batch.0, batch.1.as_ref()), *step, 0, 1e-3)?;
                *step += 1;
                finite(&[result.map_or(0.0, |r| r.loss)])
            }
            Self::Infer(session) => finite(&session.step(gpu)?.unwrap_or_default()),
        }
    }

    /// Waits for all steps under way.
    fn finish(&mut self, gpu: &Gpu) -> Result<()> {
        match self {
            Self::Train(session, ..) => {
                while let Some(result) = session.collect(gpu)? {
                    finite(&[result.loss])?;
                }
            }
            Self::Infer(session) => {
                while let Some(logits) = session.collect(gpu)? {
                    finite(&logits)?;
                }
            }
        }
        Ok(())
    }

    fn executable(&self) -> &Executable {
        match self {
            Self::Train(session, ..) => session.executable(),
            Self::Infer(session) => session.executable(),
        }
    }
}

/// Numbers that are not finite were computed by another path than those a user gets.
pub(super) fn finite(values: &[f32]) -> Result<()> {
    match values.iter().all(|v| v.is_finite()) {
        true => Ok(()),
        false => Err(Error::new(Kind::Diverged, "the timed step computed numbers that are not finite")
            .next("run `lesion-gpu doctor` to check the driver")),
    }
}

/// Processor seconds this process has used so far.
fn cpu_seconds() -> Option<f64> {
    let id = sysinfo::get_current_pid().ok()?;
    let mut system = System::new();
    let kind = ProcessRefreshKind::nothing().with_cpu();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[id]), false, kind);
    system.process(id).map(|p| p.accumulated_cpu_time() as f64 / 1e3)
}

impl ModelBench {
    /// Builds the graph and times it. `check` is called between steps and may end the benchmark.
    ///
    /// # Errors
    /// [`Kind::Usage`] for numbers that make no sense or an unknown model, [`Kind::Shape`] for images too small for
    /// it, [`Kind::OutOfMemory`] naming the largest batch that fits; those of `check`; device errors.
    pub fn run(&self, gpu: &Gpu, check: &dyn Fn() -> Result<()>) -> Result<ModelTiming> {
        let mut store = Store::new();
        let (session, timing) = self.timed(gpu, &mut store, check)?;
        let kernels = profile(gpu, session.executable(), self.parts(), check);
        if let Err(e) = &kernels
            && e.kind() != Kind::Unsupported
        {
            return Err(e.clone());
        }
        Ok(ModelTiming { kernels, ..timing })
    }

    /// The seconds of each timed step, as [`run`](Self::run) has them.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub(super) fn steps(&self, gpu: &Gpu, check: &dyn Fn() -> Result<()>) -> Result<Vec<f64>> {
        let mut store = Store::new();
        Ok(self.timed(gpu, &mut store, check)?.1.steps)
    }

    /// The timed session, and what was measured, but for the kernels.
    fn timed(&self, gpu: &Gpu, store: &mut Store, check: &dyn Fn() -> Result<()>) -> Result<(Session, ModelTiming)> {
        self.config.validate()?;
        let started = Instant::now();
        let mut session = self.session(gpu, store)?;
        gpu.save_pipelines();
        let plan = session.executable().plan();
        let parts = self.parts();
        let each = whole_step(&plan.dispatches, plan.closing, parts);
        let (launches, memory) = (each.len(), plan.memory);
        let sum = |of: fn(&Work) -> u64| each.iter().map(|d| of(&d.dispatch.work)).sum();
        let work = Work { flops: sum(|w| w.flops), bytes: sum(|w| w.bytes) };
        let matrices = each.iter().any(|d| d.dispatch.kernel.matrices.is_some());
        check()?;
        session.step(gpu)?;
        session.finish(gpu)?;
        let ready = started.elapsed().as_secs_f64();
        // As many more as fill the queue, so that every timed step begins with others under way.
        for _ in 0..self.warm_up.max(1) + Executable::IN_FLIGHT - 1 {
            check()?;
            session.step(gpu)?;
        }
        let wanted = self.config.max_steps.map(|n| n as usize);
        let (begun, cpu) = (Instant::now(), cpu_seconds());
        let (mut steps, mut last) = (vec![], begun);
        let enough = |done: usize| match wanted {
            Some(n) => done >= n,
            None => done >= *STEPS.end() || (done >= *STEPS.start() && begun.elapsed() >= TIMED),
        };
        while !enough(steps.len()) {
            check()?;
            session.step(gpu)?;
            steps.push((last.elapsed()).as_secs_f64());
            last = Instant::now();
        }
        let cpu = cpu.zip(cpu_seconds()).map(|(before, after)| (after - before) / steps.len() as f64);
        session.finish(gpu)?;
        Ok((session, ModelTiming { launches, work, matrices, memory, ready, steps, cpu, kernels: Ok(vec![]) }))
    }

    /// The share of a rank of the same step. All ranks call it together.
    ///
    /// # Errors
    /// As [`run`](Self::run); those of other ranks.
    pub(super) fn rank_session(&self, gpu: &Gpu, team: &Team, store: &mut Store) -> Result<RankSession> {
        let own = Self { config: RankSession::share(team, &self.config)?, ..self.clone() };
        let model = Model::find(&own.config.model)?;
        let caps = own.caps(gpu, model);
        let graph = fitting_graph(gpu, &caps, model, &own.config, model.outputs(CLASSES), self.memory_limit);
        let graph = team.agreed("the graph", graph)?;
        let session = RankSession::new(gpu, graph, &[1.0; CLASSES], store, (team, &self.config))?;
        initialise(gpu, store, session.parameters(), own.config.seed)?;
        Ok(session)
    }

    /// A batch of so many pictures of noise.
    pub(super) fn images(&self, batch: usize) -> Batch {
        let stream = Stream::named(self.config.seed, "benchmark");
        let pixels = (0..(batch * self.config.size.area()) as u32).map(|i| stream.words([i, 0])[0]).collect();
        let labels = (0..batch as u32).map(|i| i % CLASSES as u32).collect();
        let samples: Vec<u32> = (0..batch as u32).collect();
        Batch { pixels, labels, keys: samples.clone(), samples, valid: batch }
    }

    /// Images a second in some steps, each waited for, after a first one. Before they are timed `together` is called: several
    /// processes that wait for each other there are timed at the same time.
    ///
    /// # Errors
    /// As [`run`](Self::run); those of `together`.
    pub fn images_per_second(
        &self,
        gpu: &Gpu,
        check: &dyn Fn() -> Result<()>,
        together: &dyn Fn() -> Result<()>,
    ) -> Result<f64> {
        self.config.validate()?;
        let mut store = Store::new();
        let step = |session: &mut Session| -> Result<f64> {
            check()?;
            let begun = Instant::now();
            session.step(gpu)?;
            session.finish(gpu)?;
            Ok(begun.elapsed().as_secs_f64())
        };
        let session = self.session(gpu, &mut store).and_then(|mut session| step(&mut session).map(|_| session));
        // One that fails must not keep the others waiting.
        let session = together().and(session);
        let mut session = session?;
        let mut seconds = (0..SPEED_STEPS).map(|_| step(&mut session)).collect::<Result<Vec<_>>>()?;
        seconds.sort_by(f64::total_cmp);
        Ok(self.config.batch as f64 / seconds[SPEED_STEPS / 2].max(1e-9))
    }

    /// The parts that a step's batch is computed in.
    fn parts(&self) -> usize {
        self.config.batch / self.config.images_at_once()
    }

    /// What the device can do, with the kernels that tuning has found.
    fn caps(&self, gpu: &Gpu, model: Model) -> Caps {
        let TrainConfig { batch, .. } = self.config;
        let outputs = model.outputs(CLASSES);
        let nodes = match self.task {
            Task::Train => {
                let at_once = self.config.images_at_once();
                TrainGraph::new(model, &self.config, at_once, outputs, gpu.caps()).map(|g| g.plan.tunable)
            }
            Task::Infer => EvalGraph::new(model, &self.config, batch, outputs, gpu.caps()).map(|g| g.plan.tunable),
        };
        match (&self.tuning, nodes) {
            (Some(cache), Ok(nodes)) => gpu.caps().with_choices(cache.choices(&nodes)),
            // A graph that cannot be planned is refused, with its reason, when the session is made.
            _ => gpu.caps().clone(),
        }
    }

    fn session(&self, gpu: &Gpu, store: &mut Store) -> Result<Session> {
        let TrainConfig { batch, seed, .. } = self.config;
        let model = Model::find(&self.config.model)?;
        let caps = self.caps(gpu, model);
        let outputs = model.outputs(CLASSES);
        // Made only once the graph was found to fit: then the host can hold the pictures as well.
        let images = || self.images(batch);
        let (session, parameters) = match self.task {
            Task::Train => {
                let graph = fitting_graph(gpu, &caps, model, &self.config, outputs, self.memory_limit)?;
                let session = TrainSession::new(gpu, graph, &[1.0; CLASSES], store)?;
                let parameters = session.parameters().to_vec();
                let samples: Vec<usize> = (0..batch).collect();
                let partners = Mixing::of(&self.config, &samples).map(|mixing| Partners {
                    blends: samples.iter().map(|&sample| mixing.blend(sample.into(), 0)).collect(),
                    batch: images(),
                });
                (Session::Train(Box::new(session), Box::new((images(), partners)), 0), parameters)
            }
            Task::Infer => {
                let graph = fitting_eval_graph(gpu, &caps, model, &self.config, outputs, self.memory_limit)?;
                let session = EvalSession::new(gpu, graph, store)?;
                session.upload(gpu, &images())?;
                let parameters = session.parameters().to_vec();
                (Session::Infer(Box::new(session)), parameters)
            }
        };
        initialise(gpu, store, &parameters, seed)?;
        Ok(session)
    }
}

fn initialise(gpu: &Gpu, store: &Store, parameters: &[Parameter], seed: u32) -> Result<()> {
    parameters.iter().try_for_each(|p| store.write(gpu, &p.name, &p.to_device(&p.initial(seed))))
}

/// What a step does in all, from what a plan lists once: everything before `closing` comes for each of the parts.
fn whole_step<T: Clone>(listed: &[T], closing: usize, parts: usize) -> Vec<T> {
    let (part, close) = listed.split_at(closing);
    std::iter::repeat_n(part, parts).flatten().chain(close).cloned().collect()
}

/// The median time of every launch of a step over some runs of the plan.
fn profile(
    gpu: &Gpu,
    executable: &Executable,
    parts: usize,
    check: &dyn Fn() -> Result<()>,
) -> Result<Vec<KernelProfile>> {
    let started = Instant::now();
    let mut runs = vec![];
    while runs.is_empty() || (runs.len() < PROFILES && started.elapsed() < PROFILED) {
        check()?;
        runs.push(executable.run_timed(gpu)?);
    }
    let mut launches = runs[0].clone();
    for (i, launch) in launches.iter_mut().enumerate() {
        let mut times: Vec<f64> = runs.iter().map(|run| run[i].seconds).collect();
        times.sort_by(f64::total_cmp);
        launch.seconds = times[times.len() / 2];
    }
    Ok(whole_step(&launches, executable.plan().closing, parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_in_parts_closes_once() {
        assert_eq!(
            whole_step(&["forward", "backward", "update"], 2, 2).join(" "),
            "forward backward forward backward update"
        );
        assert_eq!(whole_step(&["forward", "update"], 2, 1).join(" "), "forward update");
        assert!(whole_step::<u8>(&[], 0, 1).is_empty());
    }
}
