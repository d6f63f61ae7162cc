//! The training loop.

mod epoch;
mod scoring;
mod start;
mod together;
mod trouble;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use self::start::{Resumed, accepted_leak, prepare, tables, tuned, workplace};
use self::together::{compare, how_to_go_on, share_choices, share_folder, share_resumed};
use self::trouble::{LOWER, Trouble};
use super::checkpoint::{Checkpoint, PhaseStart, Progress, Stop};
use super::events::{Event, Interrupt, RunOptions, RunSummary};
use super::fitting::Planned as _;
use super::freezing::describe;
use super::material::Material;
use super::monitor::{check_monitor, why_stopped};
use super::objective::{Objective, masks_of};
use super::phase::{Graphs, Plans, Samples, Workplace};
use super::plateau::Plateau;
use super::run_folder::RunFolder;
use super::shared::Signals;
use super::shares::{self, Shares, by_speed};
use super::table::Table;
use super::{Precision, ScheduleKind, TrainConfig};
use crate::data::{Dataset, LastBatch, Leak, LoaderOptions, SplitAssignment};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Caps, Choices, Gpu};
use crate::models::Model;
use crate::parallel::Team;
use crate::tune::distinct;
use crate::weights;

/// Runs a training from start to end.
///
/// # Errors
/// Any kind; [`Kind::Interrupted`] after Ctrl-C, when the run can be resumed, and [`Kind::Diverged`] if the loss is not
/// finite any more. Where several ranks train together (`options.team`), what fails on one fails on all of them.
pub fn run(
    gpu: &Gpu,
    config: &TrainConfig,
    options: &RunOptions,
    interrupt: &Interrupt,
    notify: &mut dyn FnMut(Event<'_>),
) -> Result<RunSummary> {
    options.team.conclude(run_rank(gpu, config, options, interrupt, notify))
}

/// What one rank does of a training.
fn run_rank(
    gpu: &Gpu,
    config: &TrainConfig,
    options: &RunOptions,
    interrupt: &Interrupt,
    notify: &mut dyn FnMut(Event<'_>),
) -> Result<RunSummary> {
    config.validate()?;
    config.precision.check(gpu)?;
    let model = Model::find(&config.model)?;
    let team = &options.team;
    let resumed = match (&options.run, options.resume) {
        (Some(path), true) => Some(share_resumed(team, || Resumed::find(gpu, path, notify))?),
        (None, true) => return Err(Error::new(Kind::Usage, "--resume needs the folder of a run")),
        (_, false) if !team.is_first() => None,
        (path, false) => {
            path.as_ref().map_or(Ok(()), |path| RunFolder::check_free(path))?;
            RunFolder::check_writable(path.as_ref().unwrap_or(&options.runs_root))?;
            None
        }
    };
    let taken = match &resumed {
        Some(resumed) => resumed.taken.clone().filter(|taken| taken.len() == team.size()),
        None => options.speeds.as_ref().and_then(|speeds| by_speed(config, speeds)),
    };
    let taken = taken.filter(|_| !team.is_alone());
    let shares = Shares::of(team, config, taken.as_deref())?;
    if let Some(taken) = &taken {
        notify(Event::Note(shares::describe(config, taken)));
    }
    let weights = match (&config.weights, &resumed) {
        (Some(path), None) => Some(weights::read(path.as_ref())?),
        _ => None,
    };

    let phases: Vec<TrainConfig> = config.by_phase().into_iter().map(|phase| shares.own(phase)).collect();
    let check = || interrupted(interrupt);
    let masks = masks_of(model.task(), config);
    // One rank of a machine after the other, so that the others find what the first has decoded.
    let Material { dataset, pixels, split } =
        team.in_turn("preparing the data", || prepare(config, masks, options, &check, notify))?;
    compare(team, config, &dataset, &split, pixels.contents())?;
    let leak = accepted_leak(config, &dataset, &split)?;
    let labels: Arc<[u32]> = dataset.labels().into();
    let steps = split.train.len() / config.batch;
    if steps == 0 {
        return Err(Error::new(
            Kind::Usage,
            format!("a batch of {} is more than the {} training images", config.batch, split.train.len()),
        )
        .next(format!("use --batch {} or less", split.train.len().max(1))));
    }
    if split.val.is_empty() && config.patience > 0 {
        return Err(Error::new(Kind::Usage, "--patience needs validation images, and the split has none")
            .next("leave --patience away, or give validation a share with --split"));
    }
    if split.val.is_empty() && phases.iter().any(|phase| phase.schedule == ScheduleKind::Plateau) {
        return Err(Error::new(Kind::Usage, "--schedule plateau needs validation images, and the split has none")
            .next("use another --schedule, or give validation a share with --split"));
    }
    check_monitor(&config.monitor, &dataset, &split)?;
    let (objective, notes) = Objective::new(model, config, &dataset, &split)?;
    notes.into_iter().for_each(|note| notify(Event::Note(note)));
    let outputs = objective.classes().len();

    let samples = split.train.len() + split.val.len();
    let features_each_step = match &resumed {
        Some(resumed) => resumed.features_each_step,
        None => options.features_each_step,
    };
    let plans = |phase| Plans {
        model,
        config: phase,
        outputs,
        samples,
        budget: options.memory_limit,
        cache: !features_each_step,
    };
    let start = resumed.as_ref().map_or(PhaseStart::default(), |resumed| resumed.checkpoint.progress.phase);
    // Of all phases to come, so that one which does not fit is known before the first step.
    let plans_of_all: Vec<Plans<'_>> = phases.iter().skip(start.number).map(plans).collect();
    let planned = |choices: &Choices| {
        let caps = gpu.caps().with_choices(choices.clone());
        Ok::<_, Error>((VecDeque::from(Plans::fitting(&plans_of_all, gpu, &caps)?), caps))
    };
    let recorded = resumed.as_ref().map(|resumed| resumed.choices.clone());
    let mut choices = recorded.unwrap_or_default();
    let (mut graphs, mut caps) = planned(&choices)?;
    if resumed.is_none() {
        let nodes = distinct(graphs.iter().flat_map(Graphs::tunable).collect());
        choices = share_choices(team, || tuned(gpu, &nodes, &options.tuning, &check, notify))?;
        if !choices.is_empty() {
            (graphs, caps) = planned(&choices)?;
        }
    }
    let (Some(first), Some(phase)) = (graphs.pop_front(), phases.get(start.number)) else {
        return Err(Error::new(Kind::Checkpoint, "the checkpoint is of a phase that its configuration does not have")
            .next("the file is damaged: start a new run from weights/best.safetensors with --weights"));
    };
    first.note.iter().for_each(|note| notify(Event::Note(note.clone())));
    let memory = first.memory();
    let most = graphs.iter().map(|graphs| graphs.memory().total()).fold(memory.total(), u64::max);
    let memory_f32 = match config.precision {
        Precision::F32 => None,
        // For comparison only: where f32 does not fit, there is nothing to show.
        Precision::Mixed => {
            let phase = TrainConfig { precision: Precision::F32, ..phase.clone() };
            plans(&phase).graphs(phase.images_at_once(), gpu.caps()).ok().map(|graphs| graphs.memory())
        }
    };
    let place = workplace(gpu, first, &objective, phase, team)?;
    check()?;

    let (folder, _lock, progress) = match resumed {
        Some(Resumed { folder, lock, checkpoint, is_older, .. }) => {
            if team.is_first() {
                folder.check_split(&dataset, &split)?;
                folder.check_contents(pixels.contents())?;
            }
            let progress = &checkpoint.progress;
            let done = steps as u64 * u64::from(progress.epoch);
            if progress.step < done.min(config.max_steps.unwrap_or(u64::MAX)) || progress.step > done + steps as u64 {
                return Err(Error::new(Kind::Checkpoint, "the checkpoint's step and epoch do not go together")
                    .at(folder.last().display())
                    .next("the file is damaged: start a new run from weights/best.safetensors with --weights"));
            }
            place.resume(gpu, &checkpoint)?;
            if is_older {
                // In place of the damaged one, which else would become the one before the last.
                checkpoint.write(&folder.last())?;
            }
            folder.drop_epochs(&progress.fallen)?;
            (folder, lock, checkpoint.progress)
        }
        None => {
            let file = weights.map(|file| (model, file, config.allow_partial));
            let notes = place.begin(gpu, config.seed, file).map_err(|e| match &config.weights {
                Some(path) if e.kind() == Kind::Weights => e.at(path),
                _ => e,
            })?;
            notes.into_iter().for_each(|note| notify(Event::Note(note)));
            let (folder, lock) = share_folder(team, || {
                let folder = RunFolder::create(options.run.as_deref(), &options.runs_root, &config.model)?;
                let lock = folder.lock()?;
                folder.write_config(config)?;
                folder.write_environment(
                    gpu,
                    &choices,
                    features_each_step,
                    taken.as_deref(),
                    most,
                    pixels.contents(),
                )?;
                folder.write_split(&dataset, &split)?;
                folder.write_skipped(&dataset)?;
                Ok((folder, lock))
            })?;
            (folder, lock, Progress::default())
        }
    };
    notify(Event::Ready {
        run: &folder,
        dataset: &dataset,
        split: &split,
        leak: leak.as_ref(),
        memory,
        memory_f32,
        trained: describe(place.parameters()),
        steps,
        done: progress.step,
    });

    let going_on = options.resume.then_some(&progress);
    let (steps_table, results) = tables(&folder, &objective, leak.is_some(), going_on, notify)?;
    let loader =
        LoaderOptions { batch: shares.rows.len(), workers: options.workers.max(1), prefetch: 2, last: LastBatch::Drop };
    let mut engine = Engine {
        gpu,
        config,
        dataset,
        split,
        leak,
        samples: Samples { pixels, labels },
        objective,
        model,
        caps,
        phases: &phases,
        later: graphs,
        place,
        folder,
        progress,
        steps,
        loader,
        steps_table,
        results,
        checkpoint_every: options.checkpoint_every,
        skipped: 0,
        trouble: None,
        team: team.clone(),
        shares,
        signals: Signals::default(),
        interrupt,
        notify,
    };
    if !options.resume {
        // A run that is killed in its first epoch can be resumed.
        engine.keep_start()?;
    }
    let go_on = how_to_go_on(team, engine.folder.path());
    let stopped = |e: Error| match e.kind() {
        // What the run is not to blame for, and what may be gone the next time. It keeps its batch.
        Kind::DeviceLost => e.next(format!("the driver reset it, perhaps for another program's sake: {go_on}")),
        Kind::OutOfMemory => e.next(format!("close other programs that use this device, then {go_on}")),
        Kind::Io | Kind::Data => e.and_next(&format!("then {go_on}")),
        _ => e,
    };
    let mut engine = engine.train().map_err(stopped)?;
    let test = engine.test().map_err(stopped)?;
    engine.folder.finish()?;
    let Engine { folder, progress, leak, dataset, split, samples, .. } = engine;
    let material = Material { dataset, pixels: samples.pixels, split };
    Ok(RunSummary { folder, progress, test, leak, material })
}

fn interrupted(interrupt: &Interrupt) -> Result<()> {
    if interrupt.load(Ordering::Relaxed) { Err(Error::new(Kind::Interrupted, "interrupted")) } else { Ok(()) }
}

struct Engine<'a> {
    gpu: &'a Gpu,
    config: &'a TrainConfig,
    dataset: Dataset,
    split: SplitAssignment,
    leak: Option<Leak>,
    samples: Samples,
    objective: Objective,
    model: Model,
    /// With the choices of tuning.
    caps: Caps,
    /// The configuration of each phase.
    phases: &'a [TrainConfig],
    /// The graphs of the phases to come.
    later: VecDeque<Graphs>,
    place: Workplace,
    folder: RunFolder,
    progress: Progress,
    steps: usize,
    loader: LoaderOptions,
    steps_table: Table,
    results: Table,
    /// How long a run that is killed has trained in vain at most.
    checkpoint_every: Duration,
    /// Steps in a row that were skipped since gradients overflowed.
    skipped: u32,
    /// What was wrong with a step, until it is dealt with.
    trouble: Option<Trouble>,
    /// Who trains.
    team: Team,
    /// What of a batch is this rank's.
    shares: Shares,
    /// What the ranks agreed on in the last step.
    signals: Signals,
    interrupt: &'a Interrupt,
    notify: &'a mut dyn FnMut(Event<'_>),
}

impl<'a> Engine<'a> {
    /// The configuration of the running phase.
    fn phase(&self) -> &'a TrainConfig {
        &self.phases[self.progress.phase.number]
    }

    /// The step, from the run's first, that the running phase ends with.
    fn end(&self) -> u64 {
        self.end_of(1)
    }

    /// The last step of the run, should no phase end early.
    fn all_steps(&self) -> u64 {
        self.end_of(self.phases.len())
    }

    /// The step that so many phases, from the running one on, end with.
    fn end_of(&self, phases: usize) -> u64 {
        let start = self.progress.phase;
        let epochs: u64 = self.phases[start.number..].iter().take(phases).map(|phase| u64::from(phase.epochs)).sum();
        let end = start.step + self.steps as u64 * epochs;
        self.config.max_steps.map_or(end, |limit| limit.min(end))
    }

    /// All phases, or what is left of them.
    fn train(mut self) -> Result<Self> {
        loop {
            self.train_phase()?;
            let limited = self.config.max_steps.is_some_and(|limit| self.progress.step >= limit);
            match self.later.pop_front() {
                Some(graphs) if !limited => self = self.next_phase(graphs)?,
                _ => return Ok(self),
            }
        }
    }

    fn train_phase(&mut self) -> Result<()> {
        let start = self.progress.phase;
        while self.progress.epoch < start.epoch + self.phase().epochs
            && (self.progress.step < self.end() || self.epoch_is_open())
        {
            // Asked before the epoch, so that a run that was stopped here stays stopped when it is resumed.
            let best_epoch = self.progress.best_of_phase.map_or(start.epoch, |(_, epoch)| epoch);
            let since_best = self.progress.epoch.saturating_sub(best_epoch);
            let patience = self.config.patience;
            if patience > 0 && since_best >= patience && !self.epoch_is_open() {
                let why = why_stopped(self.config, self.progress.best_of_phase);
                (self.notify)(Event::Stopped(why.clone()));
                let (phase, epoch) = (start.number + 1, self.progress.epoch);
                self.progress.stopped.push(Stop { phase, epoch, why });
                break;
            }
            match self.epoch() {
                Ok(result) => (self.notify)(Event::Epoch(&result)),
                Err(e) => self.recover(e)?,
            }
        }
        Ok(())
    }

    /// Goes on to the next phase: with the weights as they are, a fresh optimizer, and averages that begin with the weights.
    /// The phase before leaves the device before this one is built.
    fn next_phase(mut self, graphs: Graphs) -> Result<Self> {
        let (epoch, step) = (self.progress.epoch, self.progress.step);
        self.progress.plateau = Plateau::default();
        self.progress.best_of_phase = None;
        self.progress.phase = PhaseStart { number: self.progress.phase.number + 1, epoch, step };
        graphs.note.iter().for_each(|note| (self.notify)(Event::Note(note.clone())));
        let memory = graphs.memory();
        let config = self.phase();
        let legacy = self.place.legacy(self.gpu)?;
        drop(self.place);
        self.gpu.poll()?;
        let place = workplace(self.gpu, graphs, &self.objective, config, &self.team)?;
        place.follow(self.gpu, &legacy, step)?;
        let mut engine = Self { place, ..self };
        // A step that goes wrong goes back to one of its own phase.
        engine.keep_start()?;
        (engine.notify)(Event::Phase {
            number: engine.progress.phase.number + 1,
            phases: engine.phases.len(),
            config,
            trained: describe(engine.place.parameters()),
            memory,
        });
        Ok(engine)
    }

    /// Whether steps of an epoch are done that is not: it was interrupted, perhaps in its evaluation.
    fn epoch_is_open(&self) -> bool {
        self.progress.step > self.steps as u64 * u64::from(self.progress.epoch)
    }

    fn rate(&self, step: u64) -> f64 {
        let (phase, start) = (self.phase(), self.progress.phase.step);
        let base = match phase.schedule {
            ScheduleKind::Plateau => self.progress.plateau.rate(phase.lr, &phase.plateau),
            ScheduleKind::Constant | ScheduleKind::Cosine | ScheduleKind::Step => phase.lr,
        };
        let epoch = self.steps as u64;
        let warm_up = (phase.warm_up * epoch as f64).round() as u64;
        let rate = phase.schedule(epoch).rate_after(warm_up, base, step - start, self.end() - start);
        let setbacks = &self.progress.setbacks;
        let times = setbacks.iter().filter(|setback| setback.phase == self.progress.phase.number).count();
        rate * LOWER.powi(times as i32)
    }

    /// The error of an interruption, which says how to go on.
    fn stopped_here(&self) -> Error {
        let folder = self.folder.path().display().to_string();
        Error::new(Kind::Interrupted, format!("interrupted after step {}", self.progress.step))
            .at(&folder)
            .next(how_to_go_on(&self.team, self.folder.path()))
    }

    /// Writes a checkpoint.
    fn keep(&mut self) -> Result<()> {
        let checkpoint = self.checkpoint()?;
        self.steps_table.sync()?;
        self.folder.keep_last(&checkpoint)
    }

    fn checkpoint(&mut self) -> Result<Checkpoint> {
        let (weights, optimizer) = self.place.export(self.gpu)?;
        self.check_finite(&weights, &optimizer)?;
        self.check_equal(&weights, &optimizer)?;
        let (config, classes) = (self.config.clone(), self.objective.classes());
        Ok(Checkpoint { config, classes, progress: self.progress.clone(), temperature: None, weights, optimizer })
    }

    /// The features of training and validation pictures, if the phase trains on them and they are not there yet.
    fn compute_features(&mut self) -> Result<()> {
        if !self.place.lacks_features() {
            return Ok(());
        }
        let all = [self.split.train.as_slice(), &self.split.val].concat();
        let options = LoaderOptions { batch: self.phase().images_at_once(), ..self.loader };
        let batches = all.len().div_ceil(options.batch);
        let (interrupt, notify) = (self.interrupt, &mut *self.notify);
        let started = Instant::now();
        let computed = self.place.compute_features(self.gpu, &self.samples, &all, options, &mut |done| {
            notify(Event::Features(done, batches));
            interrupted(interrupt)
        });
        if let Err(e) = self.team.agreed("features", computed) {
            self.team.forgive();
            if e.kind() != Kind::Interrupted {
                return Err(e);
            }
            self.keep()?;
            return Err(self.stopped_here());
        }
        let seconds = started.elapsed().as_secs_f64();
        self.progress.seconds += seconds;
        let count = all.len();
        (self.notify)(Event::Note(format!("computed the features of {count} images once, in {seconds:.1} s")));
        Ok(())
    }
}
