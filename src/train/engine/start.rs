//! What a training begins with: its data, its kernels, its folder.

use std::path::Path;
use std::time::Instant;

use crate::autograd::Tunable;
use crate::data::{Cache, Dataset, LEAK, Leak, Masks, SplitAssignment};
use crate::error::Result;
use crate::gpu::{Choices, Gpu};
use crate::parallel::Team;
use crate::train::checkpoint::{Checkpoint, Progress};
use crate::train::claim::Claim;
use crate::train::events::{Event, RunOptions, Tuning};
use crate::train::material::Material;
use crate::train::objective::Objective;
use crate::train::phase::{Graphs, Workplace};
use crate::train::run_folder::RunFolder;
use crate::train::table::Table;
use crate::train::{Protocol, TrainConfig};
use crate::tune::{Tuned, tune};

/// A phase on a device, for one rank or for several.
pub(super) fn workplace(
    gpu: &Gpu,
    graphs: Graphs,
    objective: &Objective,
    config: &TrainConfig,
    team: &Team,
) -> Result<Workplace> {
    let place = Workplace::new(gpu, graphs, objective, config)?;
    if team.is_alone() { Ok(place) } else { place.sharing(gpu, team, config.wire) }
}

/// A run that goes on.
pub(super) struct Resumed {
    pub folder: RunFolder,
    /// None where another rank writes the folder.
    pub lock: Option<Claim>,
    pub checkpoint: Checkpoint,
    /// Whether it is not the last one that was written, which is damaged.
    pub is_older: bool,
    /// The tuned choices it was made with.
    pub choices: Choices,
    pub features_each_step: bool,
    /// How its batches were shared out, if not evenly.
    pub taken: Option<Vec<usize>>,
}

impl Resumed {
    pub(super) fn find(gpu: &Gpu, path: &Path, notify: &mut dyn FnMut(Event<'_>)) -> Result<Self> {
        let folder = RunFolder::open(path)?;
        let lock = folder.lock()?;
        let (checkpoint, note) = folder.checkpoint()?;
        let is_older = note.is_some();
        note.into_iter().for_each(|note| notify(Event::Note(note)));
        folder.another_device(gpu)?.into_iter().for_each(|note| notify(Event::Note(note)));
        let (choices, features_each_step, taken) = (folder.choices()?, folder.features_each_step()?, folder.taken()?);
        Ok(Self { folder, lock: Some(lock), checkpoint, is_older, choices, features_each_step, taken })
    }
}

/// The tables of steps and of epochs: new ones, or those of a run that goes on from `progress`, with what should be known of them.
pub(super) fn tables(
    folder: &RunFolder,
    objective: &Objective,
    leaky: bool,
    progress: Option<&Progress>,
    notify: &mut dyn FnMut(Event<'_>),
) -> Result<(Table, Table)> {
    let keep = progress.map(|progress| 0..progress.step);
    let (steps, lost) = folder.table("steps.csv", "step,epoch,lr,loss", keep)?;
    let columns = objective.result_columns().join(",");
    let marked = if leaky { format!(",{LEAK}") } else { String::new() };
    let header = format!("epoch,steps,lr,train_loss,{columns},seconds,waited_seconds,images_per_second{marked}");
    let keep = progress.map(|progress| 1..u64::from(progress.epoch) + 1);
    let (results, lost_results) = folder.table("results.csv", &header, keep)?;
    lost.into_iter().chain(lost_results).for_each(|note| notify(Event::Note(note)));
    Ok((steps, results))
}

/// The leak between the parts of a split, if there is one.
///
/// # Errors
/// [`Kind::Data`](crate::Kind::Data) unless the protocol accepts it.
pub(super) fn accepted_leak(config: &TrainConfig, dataset: &Dataset, split: &SplitAssignment) -> Result<Option<Leak>> {
    match split.leak(dataset) {
        Some(leak) if config.split.protocol == Protocol::LeakFree => Err(leak.into_error(dataset)),
        leak => Ok(leak),
    }
}

/// The data of a run, decoded and split.
pub(super) fn prepare(
    config: &TrainConfig,
    masks: Masks,
    options: &RunOptions,
    check: &dyn Fn() -> Result<()>,
    notify: &mut dyn FnMut(Event<'_>),
) -> Result<Material> {
    let cache = match &options.cache {
        _ if options.no_cache => Cache::Off,
        Some(folder) => Cache::Dir(folder),
        None => Cache::Default,
    };
    let dataset = Dataset::open(&config.data, &config.open_options(masks))?;
    let material = Material::prepare(dataset, config, cache, &mut |done, total| {
        notify(Event::Decoding(done, total));
        check()
    })?;
    material.dataset.notes.iter().for_each(|note| notify(Event::Note(note.clone())));
    Ok(material)
}

/// The choices for the nodes of a run: from the cache, and measured now as far as the time goes.
pub(super) fn tuned(
    gpu: &Gpu,
    nodes: &[Tunable],
    tuning: &Tuning,
    check: &dyn Fn() -> Result<()>,
    notify: &mut dyn FnMut(Event<'_>),
) -> Result<Choices> {
    let Tuning::On(cache, budget) = tuning else { return Ok(Choices::new()) };
    let mut cache = cache.clone();
    if let Some(why) = cache.unusable() {
        notify(Event::Note(format!("kernels are chosen anew, and may be others than in a run before: {why}")));
    }
    let missing = cache.missing(nodes);
    let mut found = Tuned::default();
    if !missing.is_empty() && !budget.is_zero() {
        let started = Instant::now();
        found = tune(gpu, &missing, *budget, &mut |done, all| {
            notify(Event::Tuning(done, all));
            check()
        })?;
        cache.record(&missing, &found.outcomes);
        let (measured, all) = (found.outcomes.len(), missing.len());
        let mut note = format!("measured {measured} of {all} products in {:.1} s", started.elapsed().as_secs_f64());
        if measured < all {
            note += "; the others go by those or by the built-in rule (`lesion-gpu tune` takes more time)";
        }
        notify(Event::Note(note));
    }
    // Also what a run of before has measured for others of a class: this run's next of the same shapes is to be the same.
    let settled = cache.settle(nodes);
    if (settled || !found.outcomes.is_empty())
        && let Err(e) = cache.save()
    {
        let what = "which kernels this run takes could not be kept for the next";
        notify(Event::Note(format!("{what}: {}", e.what())));
    }
    for outcome in &found.outcomes {
        for r in &outcome.rejected {
            notify(Event::Note(format!("{}: kernel {} rejected: {}", outcome.key, r.choice, r.why)));
        }
    }
    Ok(cache.choices(nodes))
}
