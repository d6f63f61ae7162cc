//! What a training is asked for besides its configuration, and what it tells as it goes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::TrainConfig;
use super::checkpoint::Progress;
use super::material::Material;
use super::run_folder::RunFolder;
use super::scores::Scores;
use crate::autograd::Memory;
use crate::data::{Dataset, Leak, SplitAssignment};
use crate::parallel::Team;
use crate::tune::TuningCache;

/// Set (by Ctrl-C) to stop at the next step.
pub type Interrupt = Arc<AtomicBool>;

/// Which kernels a new run uses where there is a choice. Another kernel adds in another order, so a run writes its choices
/// down, and a resumed run takes those.
#[derive(Debug, Clone, Default)]
pub enum Tuning {
    /// The built-in rule.
    #[default]
    Off,
    /// What was measured on this device before; what was not is measured now, as far as this time goes, and kept.
    On(Box<TuningCache>, Duration),
}

/// What a run depends on besides its configuration: nothing here changes a result by more than the order of sums.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The folder of this run; by default a new one under `runs_root`.
    pub run: Option<PathBuf>,
    /// Where runs without a name go.
    pub runs_root: PathBuf,
    /// Continue the run in `run`.
    pub resume: bool,
    /// Where decoded images are kept.
    pub cache: Option<PathBuf>,
    /// Do not keep decoded images.
    pub no_cache: bool,
    /// Bytes on the device to stay below.
    pub memory_limit: Option<u64>,
    /// Threads that prepare batches.
    pub workers: usize,
    /// Which kernels a new run uses.
    pub tuning: Tuning,
    /// Compute the features of a frozen backbone in each step, even where once would do. A resumed run goes on as it began.
    pub features_each_step: bool,
    /// Within an epoch, a checkpoint is written this often.
    pub checkpoint_every: Duration,
    /// Who trains: this process alone, or one of several that share each batch.
    pub team: Team,
    /// Images a second of each rank, by which the batches of a new run are shared out; evenly without. A resumed run goes on as
    /// it began, or evenly if the ranks are not as many.
    pub speeds: Option<Vec<f64>>,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            run: None,
            runs_root: PathBuf::new(),
            resume: false,
            cache: None,
            no_cache: false,
            memory_limit: None,
            workers: 0,
            tuning: Tuning::Off,
            features_each_step: false,
            checkpoint_every: Duration::from_secs(600),
            team: Team::default(),
            speeds: None,
        }
    }
}

/// The result of an epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct EpochResult {
    /// From 1.
    pub epoch: u32,
    /// Steps of the run, up to its end.
    pub step: u64,
    /// Learning rate of its last step.
    pub lr: f64,
    /// Mean loss over the training images, as they were trained on.
    pub train_loss: f64,
    /// Accuracy on the training images, as they were trained on; of masks there is none.
    pub train_accuracy: Option<f64>,
    /// Scores on the validation images, if there are any.
    pub val: Option<Scores>,
    /// Seconds of training, without the evaluation.
    pub seconds: f64,
    /// Of these, how many steps waited for their pictures: from the cache, and where these are mixed for their partners.
    pub waited: f64,
    /// Training images a second.
    pub images_per_second: f64,
    /// Whether it is the best so far.
    pub best: bool,
}

/// What happens during a run, for whoever shows it.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// Something to know.
    Note(String),
    /// Images are being decoded: done, total.
    Decoding(usize, usize),
    /// Kernels are being measured: products done, all of them.
    Tuning(usize, usize),
    /// Everything is ready: the run folder, the data, the memory it will take.
    Ready {
        /// The run folder.
        run: &'a RunFolder,
        /// The data.
        dataset: &'a Dataset,
        /// Its split.
        split: &'a SplitAssignment,
        /// What leaks between its parts, where that is accepted.
        leak: Option<&'a Leak>,
        /// The memory of training and evaluation together.
        memory: Memory,
        /// What it would be in f32, for a run of mixed precision.
        memory_f32: Option<Memory>,
        /// What is trained and what is frozen, in words.
        trained: String,
        /// Steps of an epoch.
        steps: usize,
        /// Steps of the run that are done, where it is resumed.
        done: u64,
    },
    /// A step was submitted; `done` of `steps` in this epoch.
    Step {
        /// The epoch, from 1.
        epoch: u32,
        /// Steps submitted.
        done: usize,
        /// Steps of the epoch.
        steps: usize,
        /// Steps of the run that were submitted.
        step: u64,
        /// The last step of the run, should nothing end it early.
        last: u64,
        /// Mean training loss of the epoch so far; `None` until the first was read back.
        loss: Option<f64>,
        /// Training accuracy of the epoch so far, likewise; of masks there is none.
        accuracy: Option<f64>,
    },
    /// The loss of a step was read back: some steps after its submission.
    Loss {
        /// The step of the run, from 1.
        step: u64,
        /// Its learning rate.
        lr: f64,
        /// The loss of its batch.
        loss: f32,
    },
    /// Pictures are being scored: batches done, all of them.
    Scoring(usize, usize),
    /// An epoch ended.
    Epoch(&'a EpochResult),
    /// The features of pictures are being computed: batches done, all of them.
    Features(usize, usize),
    /// Another phase begins.
    Phase {
        /// Its number, from 1.
        number: usize,
        /// All phases.
        phases: usize,
        /// Its configuration.
        config: &'a TrainConfig,
        /// What is trained and what is frozen, in words.
        trained: String,
        /// The memory of training and evaluation together.
        memory: Memory,
    },
    /// Training, or a phase of it, ended before the last epoch, and why.
    Stopped(String),
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct RunSummary {
    /// Its folder.
    pub folder: RunFolder,
    /// How far it came.
    pub progress: Progress,
    /// Scores of the best checkpoint on the test images, if there are any.
    pub test: Option<Scores>,
    /// What leaks between the parts of the split, where that is accepted: the scores are too good.
    pub leak: Option<Leak>,
    /// What it was made from.
    pub material: Material,
}
