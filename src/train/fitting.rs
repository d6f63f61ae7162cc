//! Whether the graphs for a batch fit a device, and the largest batch whose graphs do.

use super::TrainConfig;
use super::graph::{EvalGraph, TrainGraph};
use crate::autograd::{Memory, Plan};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Caps, Gpu};
use crate::models::Model;

/// What is to lie on a device as a whole.
pub(super) trait Planned: Sized {
    /// Its plans, which share a store, in the order in which they are built.
    fn plans(&self) -> Vec<&Plan>;

    /// Everything that is on the device at a time.
    fn memory(&self) -> Memory {
        Memory::in_turns(&self.plans())
    }
}

impl Planned for TrainGraph {
    fn plans(&self) -> Vec<&Plan> {
        vec![&self.plan]
    }
}

impl Planned for EvalGraph {
    fn plans(&self) -> Vec<&Plan> {
        vec![&self.plan]
    }
}

/// What is refused when it does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Job {
    /// A training step.
    Step,
    /// The same with micro-batches.
    Part,
    /// The same where the features of a frozen backbone are computed once.
    Head,
    Inference,
}

impl Job {
    pub fn of_training(config: &TrainConfig) -> Self {
        if config.micro_batch.is_some() { Self::Part } else { Self::Step }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Step => "a training step",
            Self::Part => "a part of a training step",
            Self::Head => "a training step of the head",
            Self::Inference => "an inference",
        }
    }
}

/// What `new` makes of a batch, or an error that names the largest batch for which there is the memory.
///
/// # Errors
/// [`Kind::OutOfMemory`] if it takes more than `budget` bytes or than the device has; those of `new`.
pub(super) fn fitting<P: Planned>(
    gpu: &Gpu,
    job: Job,
    batch: usize,
    budget: Option<u64>,
    new: impl Fn(usize) -> Result<P>,
) -> Result<P> {
    let fit = |batch| match new(batch) {
        Ok(planned) => {
            let needs = planned.memory().total();
            let fits = budget.is_none_or(|budget| needs <= budget) && Plan::fit(gpu, &planned.plans())?;
            Ok(if fits { Ok(planned) } else { Err(Refused::Memory(needs)) })
        }
        Err(e) if matches!(e.kind(), Kind::OutOfMemory | Kind::Unsupported) => Ok(Err(Refused::Plan(e))),
        Err(e) => Err(e),
    };
    let refused = match fit(batch)? {
        Ok(planned) => return Ok(planned),
        Err(refused) => refused,
    };
    let largest = largest(batch, |batch| match fit(batch) {
        Ok(found) => Ok(found.is_ok()),
        // Batch-norm cannot train on a single value per channel: too small a batch is no answer either.
        Err(e) if e.kind() == Kind::Shape => Ok(false),
        Err(e) => Err(e),
    })?;
    match (refused, largest) {
        // It is no matter of how many there are.
        (Refused::Plan(e), None) => Err(e),
        (Refused::Plan(_), Some(_)) => Err(refuse(job, batch, None, None, largest)),
        (Refused::Memory(needs), _) => Err(refuse(job, batch, Some(needs), budget.filter(|b| needs > *b), largest)),
    }
}

/// Why a batch does not fit.
enum Refused {
    /// It needs this many bytes.
    Memory(u64),
    /// It cannot even be planned for the device.
    Plan(Error),
}

/// The largest batch below `batch` for which `fits` holds; `None` if not even a single image does.
fn largest(batch: usize, mut fits: impl FnMut(usize) -> Result<bool>) -> Result<Option<usize>> {
    let (mut low, mut high) = (0, batch);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if fits(middle)? {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok((low > 0).then_some(low))
}

/// The error for a batch that does not fit, with the largest that does. It `needs` so many bytes; none are known where a
/// single tensor is too large.
fn refuse(job: Job, batch: usize, needs: Option<u64>, budget: Option<u64>, largest: Option<usize>) -> Error {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let work = format!("{} of {batch} images needs", job.name());
    let what = match (needs, budget) {
        (Some(needs), Some(budget)) => format!("{work} {:.0} MiB and there are {:.0} MiB", mib(needs), mib(budget)),
        (Some(needs), None) => format!("{work} {:.0} MiB, which the device refused", mib(needs)),
        (None, _) => format!("{work} a tensor larger than the device can bind"),
    };
    let next = match (largest, job) {
        (Some(fits), Job::Part) => {
            format!("the largest part that fits is {fits}: use a --micro-batch up to it, or a smaller --size")
        }
        (Some(fits), Job::Step) => format!(
            "the largest batch that fits is {fits}: use --batch {fits}, a smaller --size, or --micro-batch to compute the \
             batch in parts"
        ),
        (Some(fits), Job::Head | Job::Inference) => {
            format!("the largest batch that fits is {fits}: use --batch {fits}, or a smaller --size")
        }
        (None, Job::Head) => {
            "not even a single image fits: use narrower layers in --head-hidden, or another model".to_owned()
        }
        (None, Job::Step | Job::Part | Job::Inference) => {
            "not even a single image fits: use a smaller --size or another model".to_owned()
        }
    };
    Error::new(Kind::OutOfMemory, what).next(next)
}

/// The training graph of the configured batch, or an error that names the largest batch that fits.
///
/// # Errors
/// [`Kind::OutOfMemory`] if it takes more than `budget` bytes or than the device has; those of [`TrainGraph::new`].
pub fn fitting_graph(
    gpu: &Gpu,
    caps: &Caps,
    model: Model,
    config: &TrainConfig,
    outputs: usize,
    budget: Option<u64>,
) -> Result<TrainGraph> {
    let new = |batch| TrainGraph::new(model, config, batch, outputs, caps);
    fitting(gpu, Job::of_training(config), config.images_at_once(), budget, new)
}

/// The evaluation graph of the configured batch, or an error that names the largest batch that fits.
///
/// # Errors
/// [`Kind::OutOfMemory`] if it takes more than `budget` bytes or than the device has; those of [`EvalGraph::new`].
pub fn fitting_eval_graph(
    gpu: &Gpu,
    caps: &Caps,
    model: Model,
    config: &TrainConfig,
    outputs: usize,
    budget: Option<u64>,
) -> Result<EvalGraph> {
    fitting(gpu, Job::Inference, config.batch, budget, |batch| EvalGraph::new(model, config, batch, outputs, caps))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_batch_is_found_and_really_the_largest() {
        let caps = Caps::baseline();
        let config = TrainConfig { model: "simple-cnn".into(), size: 32.into(), ..TrainConfig::default() };
        let model = Model::find("simple-cnn").unwrap();
        let needs = |batch| Ok(TrainGraph::new(model, &config, batch, 7, &caps)?.memory().total());
        let budget = needs(21).unwrap();
        assert_eq!(largest(64, |batch| Ok(needs(batch)? <= budget)).unwrap(), Some(21));
        assert!(needs(22).unwrap() > budget);
        assert_eq!(largest(64, |_| Ok(false)).unwrap(), None);
    }
}
