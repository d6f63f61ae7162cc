//! What decides which epoch was best, and when nothing gets better any more.

use serde::{Deserialize, Serialize};

use super::TrainConfig;
use super::choices::named;
use crate::data::{Dataset, SplitAssignment};
use crate::error::{Error, Kind, Result};
use crate::models::Task;

named! {
    /// A score of the validation pictures. All but the loss are the better the higher they are.
    Metric {
        /// Mean recall of the classes.
        BalancedAccuracy = "balanced-accuracy",
        /// Share of right answers.
        Accuracy = "accuracy",
        /// Mean F1 of the classes.
        MacroF1 = "macro-f1",
        /// Mean F1 of the classes, weighted by their pictures.
        WeightedF1 = "weighted-f1",
        /// Area under the ROC curve, the mean over the classes.
        Auc = "auc",
        /// Average precision, the mean over the classes.
        AveragePrecision = "average-precision",
        /// Where each class has a sigmoid of its own: share of pictures with all answers right.
        ExactMatch = "exact-match",
        /// Jaccard index of masks.
        Jaccard = "jaccard",
        /// Jaccard index of masks, 0 where it is below 0.65.
        ThresholdJaccard = "threshold-jaccard",
        /// Dice coefficient of masks.
        Dice = "dice",
        /// Share of right pixels of masks.
        PixelAccuracy = "pixel-accuracy",
        /// The loss.
        Loss = "loss",
    }
}

/// What decides which epoch was best: a score of the validation pictures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Monitor {
    /// A score of all.
    Of(Metric),
    /// The recall (sensitivity) of the class of this name: `recall:mel`.
    Recall(String),
}

/// How the recall of a class is written, before the class.
const RECALL: &str = "recall:";

impl From<Metric> for Monitor {
    fn from(metric: Metric) -> Self {
        Self::Of(metric)
    }
}

impl From<Monitor> for String {
    fn from(monitor: Monitor) -> Self {
        monitor.to_string()
    }
}

impl std::fmt::Display for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Of(metric) => f.write_str(metric.name()),
            Self::Recall(class) => write!(f, "{RECALL}{class}"),
        }
    }
}

impl std::str::FromStr for Monitor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.strip_prefix(RECALL) {
            Some("") => Err(Error::new(Kind::Usage, "the recall of which class?").next("for example recall:mel")),
            Some(class) => Ok(Self::Recall(class.to_owned())),
            None => text.parse().map(Self::Of).map_err(|_| {
                Error::new(Kind::Usage, format!("unknown score '{text}'"))
                    .next(format!("choose one of: {}, recall:CLASS", Metric::NAMES.join(", ")))
            }),
        }
    }
}

impl TryFrom<String> for Monitor {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl Monitor {
    /// Whether it can be had from a model for `task`.
    pub(super) fn fits(&self, task: Task) -> bool {
        match self {
            Self::Of(Metric::Loss) => true,
            Self::Of(Metric::Jaccard | Metric::ThresholdJaccard | Metric::Dice | Metric::PixelAccuracy) => {
                task == Task::Segment
            }
            Self::Of(_) | Self::Recall(_) => task == Task::Classify,
        }
    }

    /// The names of those that models for `task` have.
    pub(super) fn names(task: Task) -> Vec<&'static str> {
        let metrics = Metric::ALL.iter().filter(|metric| Self::Of(**metric).fits(task)).map(|metric| metric.name());
        metrics.chain((task == Task::Classify).then_some("recall:CLASS")).collect()
    }

    /// Which way it goes when it gets better, in words.
    pub(super) fn improves(&self) -> &'static str {
        if *self == Self::Of(Metric::Loss) { "fallen" } else { "risen" }
    }

    /// The value that is the better the higher it is as people know it.
    pub(super) fn shown(&self, value: f64) -> f64 {
        if *self == Self::Of(Metric::Loss) { -value } else { value }
    }
}

/// Checks that what is monitored can be had from these pictures.
///
/// # Errors
/// [`Kind::Usage`] for the recall of a class that there is not.
pub(super) fn check_monitor(monitor: &Monitor, dataset: &Dataset, split: &SplitAssignment) -> Result<()> {
    let Monitor::Recall(name) = monitor else { return Ok(()) };
    let Some(class) = dataset.classes.iter().position(|class| class == name) else {
        return Err(Error::new(Kind::Usage, format!("--monitor {monitor}: there is no such class"))
            .next(format!("choose one of: {}", dataset.classes.join(", "))));
    };
    if split.val.is_empty() || split.val.iter().any(|&i| dataset.samples[i].label == class) {
        return Ok(());
    }
    Err(Error::new(Kind::Usage, format!("--monitor {monitor}: no validation picture is of this class"))
        .next("use another --monitor, or another --split-seed"))
}

/// What was waited for, and how long; `best` is the value that was to be bettered, and its epoch.
pub(super) fn why_stopped(config: &TrainConfig, best: Option<(f64, u32)>) -> String {
    let TrainConfig { monitor, min_delta, patience, .. } = config;
    let delta = if *min_delta > 0.0 { format!(" by more than {min_delta}") } else { String::new() };
    let best = best.map_or(String::new(), |(value, epoch)| {
        format!(
            "; {} was {:.4} in epoch {epoch}",
            if delta.is_empty() { "the best" } else { "it" },
            monitor.shown(value)
        )
    });
    let (improved, epochs) = (monitor.improves(), if *patience == 1 { "epoch" } else { "epochs" });
    format!("val {monitor} has not {improved}{delta} for {patience} {epochs}{best}")
}
