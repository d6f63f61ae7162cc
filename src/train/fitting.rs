//! Whether the graphs for a batch fit a device, and the largest batch whose graphs do.

use super::TrainConfig;
use super::graph::{EvalGraph, TrainGraph};
use crate::autograd::{Memory, Plan};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Caps, Gpu};
use crate::models::Model;

/// What is to be on a device, at one time or at several.
pub(super) trait Planned: Sized {
    /// The plans of each time: they share a store, in the order in which they are built.
    fn times(&self) -> Vec<Vec<&Plan>>;

    /// What is on the device at the time when it is most.
    fn memory(&self) -> Memory {
        let all = self.times().into_iter().map(|plans| Memory::in_turns(&plans));
        all.max_by_key(Memory::total).unwrap_or_default()
    }
}

impl Planned for TrainGraph {
    fn times(&self) -> Vec<Vec<&Plan>> {
        vec![vec![&self.plan]]
    }
}

impl Planned for EvalGraph {
    fn times(&self) -> Vec<Vec<&Plan>> {
        vec![vec![&self.plan]]
    }
}

/// One after the other.
impl<P: Planned> Planned for Vec<P> {
    fn times(&self) -> Vec<Vec<&Plan>> {
        self.iter().flat_map(Planned::times).collect()
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

    /// What to do where a batch does not fit, with the largest that does.
    fn instead(self, largest: Option<usize>) -> String {
        match (largest, self) {
            (Some(fits), Self::Part) => {
                format!("the largest part that fits is {fits}: use a --micro-batch up to it, or a smaller --size")
            }
            (Some(fits), Self::Step) => format!(
                "the largest batch that fits is {fits}: use --batch {fits}, a smaller --size, or --micro-batch to compute \
                 the batch in parts"
            ),
            (Some(fits), Self::Head | Self::Inference) => {
                format!("the largest batch that fits is {fits}: use --batch {fits}, or a smaller --size")
            }
            (None, Self::Head) => {
                "not even a single image fits: use narrower layers in --head-hidden, or another model".to_owned()
            }
            (None, Self::Step | Self::Part | Self::Inference) => {
                "not even a single image fits: use a smaller --size or another model".to_owned()
            }
        }
    }
}

/// What `new` makes of a batch, or an error that names the largest batch for which there is the memory.
///
/// # Errors
/// [`Kind::OutOfMemory`] if it takes more than `budget` bytes or than the device has; those of `new`, which name that batch too if
/// they are of how many images there are.
pub(super) fn fitting<P: Planned>(
    gpu: &Gpu,
    job: impl FnOnce() -> Job,
    batch: usize,
    budget: Option<u64>,
    new: impl Fn(usize) -> Result<P>,
) -> Result<P> {
    let fit = |batch| match new(batch) {
        Ok(planned) => {
            let needs = planned.memory().total();
            let given = |plans: Vec<&Plan>| Ok(Plan::fit(gpu, &plans)?.then_some(()));
            let fits = budget.is_none_or(|budget| needs <= budget)
                && planned.times().into_iter().map(given).collect::<Result<Option<()>>>()?.is_some();
            Ok(if fits { Ok(planned) } else { Err(Refused::Memory(needs)) })
        }
        Err(e) if matches!(e.kind(), Kind::OutOfMemory | Kind::Unsupported) => Ok(Err(Refused::Plan(e))),
        Err(e) => Err(e),
    };
    let refused = match fit(batch)? {
        Ok(planned) => return Ok(planned),
        Err(refused) => refused,
    };
    let mut too_few = None;
    let largest = largest(batch, |batch| match fit(batch) {
        Ok(Ok(_)) => Ok(Fit::Fits),
        Ok(Err(_)) => Ok(Fit::TooMuch),
        // Batch-norm cannot train on a single value per channel: too small a batch is no answer either.
        Err(e) if e.kind() == Kind::Shape => {
            too_few = Some(e);
            Ok(Fit::TooFew)
        }
        Err(e) => Err(e),
    })?;
    let job = job();
    let next = match (largest, too_few) {
        (None, Some(e)) => {
            format!("those that fit are too few to be trained on ({}): use a smaller --size or another model", e.what())
        }
        _ => job.instead(largest),
    };
    Err(match (refused, largest) {
        // It is no matter of how many there are.
        (Refused::Plan(e), None) => e,
        (Refused::Plan(e), Some(_)) => {
            let what = format!("{} of {batch} images cannot be planned for this device: {}", job.name(), e.what());
            Error::new(e.kind(), what).next(next)
        }
        (Refused::Memory(needs), _) => refuse(job, batch, needs, budget.filter(|b| needs > *b)).next(next),
    })
}

/// Why a batch does not fit.
enum Refused {
    /// It needs this many bytes.
    Memory(u64),
    /// It cannot even be planned for the device.
    Plan(Error),
}

/// How a batch fits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fit {
    Fits,
    TooMuch,
    /// It would, and is too small to be trained on.
    TooFew,
}

/// The largest batch below `batch` that `fit` says fits; `None` if none does.
fn largest(batch: usize, mut fit: impl FnMut(usize) -> Result<Fit>) -> Result<Option<usize>> {
    let (mut low, mut high, mut found) = (0, batch, None);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        match fit(middle)? {
            Fit::TooMuch => high = middle,
            Fit::TooFew => low = middle,
            Fit::Fits => {
                low = middle;
                found = Some(middle);
            }
        }
    }
    Ok(found)
}

/// The error for a batch that needs so many bytes.
fn refuse(job: Job, batch: usize, needs: u64, budget: Option<u64>) -> Error {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let work = format!("{} of {batch} images needs", job.name());
    let what = match budget {
        Some(budget) => format!("{work} {:.0} MiB and there are {:.0} MiB", mib(needs), mib(budget)),
        None => format!("{work} {:.0} MiB, which the device refused", mib(needs)),
    };
    Error::new(Kind::OutOfMemory, what)
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
    fitting(gpu, || Job::of_training(config), config.images_at_once(), budget, new)
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
    fitting(gpu, || Job::Inference, config.batch, budget, |batch| EvalGraph::new(model, config, batch, outputs, caps))
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
        let up_to = |most: u64, needs: u64| if needs <= most { Fit::Fits } else { Fit::TooMuch };
        assert_eq!(largest(64, |batch| Ok(up_to(budget, needs(batch)?))).unwrap(), Some(21));
        assert!(needs(22).unwrap() > budget);
        assert_eq!(largest(64, |_| Ok(Fit::TooMuch)).unwrap(), None);
        // A single image is too few, and no less.
        for (batch, most, found) in [(6, 2, Some(2)), (64, 2, Some(2)), (6, 1, None), (2, 5, None), (6, 9, Some(5))] {
            let fit = |batch: usize| if batch < 2 { Fit::TooFew } else { up_to(most, batch as u64) };
            assert_eq!(largest(batch, |batch| Ok(fit(batch))).unwrap(), found, "{batch}, {most}");
        }
    }
}
