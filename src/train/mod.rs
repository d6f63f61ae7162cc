//! Training, evaluation and prediction: the model, the data and the device together.
//!
//! - `config`, `augment_config`, `choices`: everything a run depends on, resolved and serialisable; what it chooses among
//!   by name
//! - `fine_tune`, `freezing`: what is trained, how fast, in which phases; the names of what is frozen
//! - `graph`: the training and evaluation graphs; `fitting`: whether they fit the device, and the largest batch that does
//! - `session`: a graph on a device, step by step
//! - `checkpoint`, `run_folder`, `table`, `answers`: what is kept on disk; `claim`: what one process has for itself
//! - `phase`, `features`: what a part of a run trains on a device, and what a frozen backbone computes once for it
//! - `monitor`, `plateau`: what decides which epoch was best; a learning rate that falls when nothing gets better
//! - `material`: the dataset, decoded, split and balanced; `recipe`: configurations of published systems
//! - `mixing`, `targets`: pictures that are mixed with others, and what a step learns of a batch
//! - `augmented`: training pictures as the model sees them
//! - `engine`: the training loop; `events`: what it is asked for and what it tells
//! - `diagnosis`: where numbers were not finite any more
//! - `objective`, `scores`: what is learned, the one place where tasks differ, and how well; `verdicts`: what models say
//! - `shares`, `shared`: what of a batch is whose, where several ranks train together, and the step they take together;
//!   `rank_session`: such steps without a run
//! - `starting_weights`: a weight file on its way into a model; `loading`: a model on its way to a device
//! - `predictor`: evaluation and prediction from a checkpoint or a bare weight file

mod answers;
mod augment_config;
mod augmented;
mod checkpoint;
mod choices;
mod claim;
mod config;
mod diagnosis;
mod engine;
mod ensemble;
mod events;
mod features;
mod fine_tune;
mod fitting;
mod freezing;
mod graph;
mod host_model;
mod loading;
mod material;
mod mixing;
mod monitor;
mod objective;
mod phase;
mod plateau;
mod predictor;
mod rank_session;
mod recipe;
mod run_folder;
mod scores;
mod session;
mod shared;
mod shares;
mod starting_weights;
mod table;
mod targets;
mod verdicts;

pub use answers::{Given, read_answers};
pub use augment_config::AugmentConfig;
pub use augmented::{Seen, augmented};
pub use checkpoint::{Checkpoint, PhaseStart, Progress, Setback, Stop};
pub use choices::{
    ClassWeighting, Divergence, LossKind, Normalisation, OptimizerKind, Precision, Protocol, Sampling, ScheduleKind,
    Wire,
};
pub use claim::Claim;
pub use config::{FocalConfig, KeepConfig, SplitConfig, StepConfig, TrainConfig};
pub use engine::run;
pub use ensemble::{Answering, Ensemble, MaskCounts, MaskMap, is_model, mask_maps, mask_of};
pub use events::{EpochResult, Event, Interrupt, RunOptions, RunSummary, Tuning};
pub use fine_tune::{BatchNormMode, FineTune, HeadConfig, Pattern, PhaseConfig, Rule, Trained};
pub use fitting::{fitting_eval_graph, fitting_graph};
pub use freezing::{Network, frozen};
pub use graph::{EvalGraph, TrainGraph};
pub use host_model::{HostModel, Outputs, TracedModel, describe, preprocess_of};
pub use material::Material;
pub use mixing::{Blend, Mixing, Partners};
pub use monitor::{Metric, Monitor};
pub use objective::{Objective, masks_of};
pub use plateau::PlateauConfig;
pub use predictor::{ModelSource, Predictor, Said, score_in_detail};
pub use rank_session::RankSession;
pub use recipe::{About, Recipe};
pub use run_folder::RunFolder;
pub(crate) use scores::not_finite;
pub use scores::{ClassLoss, Report, Scores};
pub use session::{EvalSession, StepResult, TrainSession};
pub use shared::Timeline;
pub use starting_weights::{bare_metadata, normalisation_of, rename};
pub use verdicts::Verdicts;
