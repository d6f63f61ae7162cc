//! The configuration of a run: everything its result depends on.

use serde::{Deserialize, Serialize};

use super::augment_config::AugmentConfig;
use super::choices::{
    ClassWeighting, Divergence, LossKind, Normalisation, OptimizerKind, Precision, Protocol, Sampling, ScheduleKind,
    Wire,
};
use super::fine_tune::{FineTune, HeadConfig, PhaseConfig};
use super::monitor::{Metric, Monitor};
use super::plateau::PlateauConfig;
use crate::data::{Fold, ImageSize, Masks, OpenOptions, Preparation, Preprocess, SplitSpec};
use crate::error::{Error, Kind, Result};
use crate::models::{Model, Task};
use crate::ops::adam::AdamConfig;
use crate::ops::augment::Augment;
use crate::optim::{Optimizer, Schedule};

/// The constants of the focal losses (Lin et al., "Focal loss for dense object detection", 2017).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FocalConfig {
    /// The exponent: how much less counts what is classified well.
    pub gamma: f64,
    /// With sigmoids: the weight of classes that a picture has, one minus that of those it has not.
    pub alpha: f64,
}

impl Default for FocalConfig {
    fn default() -> Self {
        Self { gamma: 2.0, alpha: 0.25 }
    }
}

/// How the data is divided.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitConfig {
    /// Shares of train, val and test.
    pub fractions: [f64; 3],
    /// Seed.
    pub seed: u32,
    /// Whether all pictures of a lesion stay together.
    #[serde(default)]
    pub protocol: Protocol,
    /// One fold of a cross-validation, if it is one: `2/5`.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "fold")]
    pub fold: Option<Fold>,
}

/// A fold as text.
mod fold {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::Fold;

    pub fn serialize<S: Serializer>(fold: &Option<Fold>, serializer: S) -> Result<S::Ok, S::Error> {
        match fold {
            Some(fold) => serializer.collect_str(fold),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Option<Fold>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

impl SplitConfig {
    /// As the data layer takes it.
    pub fn spec(self) -> SplitSpec {
        SplitSpec {
            fractions: self.fractions,
            seed: self.seed,
            grouped: self.protocol == Protocol::LeakFree,
            fold: self.fold,
        }
    }
}

/// The learning-rate schedule `step`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StepConfig {
    /// Epochs between two falls.
    pub epochs: u32,
    /// What the rate is multiplied by.
    pub factor: f64,
}

impl Default for StepConfig {
    fn default() -> Self {
        Self { epochs: 10, factor: 0.1 }
    }
}

/// Which epochs' weights are kept in files of their own, `weights/epoch-NNNN.safetensors`, besides best and last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct KeepConfig {
    /// Those of every so many epochs; 0 for none.
    pub every: u32,
    /// Those of the best so many.
    pub best: u32,
}

impl KeepConfig {
    /// Whether an epoch (from 1) is kept for its number.
    pub(super) fn by_number(self, epoch: u32) -> bool {
        self.every > 0 && epoch.is_multiple_of(self.every)
    }
}

/// The configuration of a training run. Two runs with equal configurations, on the same data and device, are equal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// The recipe it comes from, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
    /// Model name.
    pub model: String,
    /// Dataset: a path, or `synthetic`.
    pub data: String,
    /// Folder or archive of the lesions' masks, where these do not come with the dataset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masks: Option<String>,
    /// Folders or archives of pictures that do not lie with the dataset's tables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// Size of the images in pixels.
    pub size: ImageSize,
    /// Precision of the activations; runs from before there was a choice have f32.
    #[serde(default)]
    pub precision: Precision,
    /// Images a step.
    pub batch: usize,
    /// Compute a step's images in parts of this many and add up their gradients, if given: the memory is that of a part.
    /// Batch-norm then takes its statistics over a part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_batch: Option<usize>,
    /// Where several ranks share a batch: batch-norm takes its statistics of all of it, not of a rank's rows.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sync_bn: bool,
    /// With several ranks: in what element type gradients go from one to the other.
    #[serde(default, skip_serializing_if = "is_default")]
    pub wire: Wire,
    /// The images a step of all ranks, where `batch` is the share of one. Says nothing of a run, and is not recorded.
    #[serde(skip)]
    pub share_of: Option<usize>,
    /// Passes over the training images.
    pub epochs: u32,
    /// Stop after this many steps in all, if given.
    pub max_steps: Option<u64>,
    /// Optimizer.
    pub optimizer: OptimizerKind,
    /// Learning rate.
    pub lr: f64,
    /// Learning-rate schedule.
    pub schedule: ScheduleKind,
    /// Epochs, perhaps a part of one, in which the learning rate rises to its full height at the beginning of a phase.
    #[serde(default, skip_serializing_if = "is_default")]
    pub warm_up: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Momentum of SGD.
    pub momentum: f64,
    /// The loss; runs from before there was a choice have cross-entropy.
    #[serde(default)]
    pub loss: LossKind,
    /// The constants of the focal losses.
    #[serde(default, skip_serializing_if = "is_default")]
    pub focal: FocalConfig,
    /// Class weights in the loss.
    pub class_weights: ClassWeighting,
    /// Which training images an epoch visits.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sampling: Sampling,
    /// Label smoothing.
    pub label_smoothing: f64,
    /// The norm of all gradients together that is not exceeded, if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// What to do when numbers are not finite any more.
    #[serde(default, skip_serializing_if = "is_default")]
    pub divergence: Divergence,
    /// Stop after this many epochs without improvement; 0 for never.
    pub patience: u32,
    /// By how much more than the best so far is an improvement, where epochs without any are counted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub min_delta: f64,
    /// What improvement is measured by.
    pub monitor: Monitor,
    /// Which epochs' weights are kept.
    #[serde(default, skip_serializing_if = "is_default")]
    pub keep: KeepConfig,
    /// Whether a temperature is fitted to the validation pictures in the end.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub temperature: bool,
    /// Seed of initial weights, order, augmentation, dropout and generated pictures.
    pub seed: u32,
    /// Whether the order of the images is drawn anew each epoch.
    pub shuffle: bool,
    /// Leave bad samples out instead of failing.
    pub skip_bad: bool,
    /// Pixel statistics.
    pub normalisation: Normalisation,
    /// Weight file to start from.
    pub weights: Option<String>,
    /// Accept a weight file that lacks some of the parameters.
    pub allow_partial: bool,
    /// Table with the split of each picture, in the place of a drawn one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split_file: Option<String>,
    /// Data split.
    pub split: SplitConfig,
    /// Make as many training images of each class, if given: by leaving some out, and by changed copies. With the protocol
    /// `published` all images are balanced, before they are split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<usize>,
    /// Augmentation.
    pub augment: AugmentConfig,
    /// What is done to all pictures, of training or not.
    #[serde(default, skip_serializing_if = "is_default")]
    pub preprocess: Preprocess,
    /// The head, where it is not the model's own.
    #[serde(default, skip_serializing_if = "is_default")]
    pub head: HeadConfig,
    /// How the learning rate falls with the schedule `plateau`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub plateau: PlateauConfig,
    /// How the learning rate falls with the schedule `step`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub step: StepConfig,
    /// What is trained, and how fast.
    #[serde(default, skip_serializing_if = "is_default")]
    pub fine_tune: FineTune,
    /// Parts of the run, one after the other, that differ in what is trained. Where there are any they say the learning rate
    /// and the epochs.
    #[serde(default, rename = "phase", skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<PhaseConfig>,
}

fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "what serde asks for")]
fn is_yes(value: &bool) -> bool {
    *value
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            recipe: None,
            model: "resnet18".into(),
            data: String::new(),
            masks: None,
            images: vec![],
            size: 64.into(),
            precision: Precision::F32,
            batch: 32,
            micro_batch: None,
            sync_bn: false,
            wire: Wire::F32,
            share_of: None,
            epochs: 10,
            max_steps: None,
            optimizer: OptimizerKind::Adam,
            lr: 1e-3,
            schedule: ScheduleKind::Constant,
            warm_up: 0.0,
            weight_decay: 0.0,
            momentum: 0.9,
            loss: LossKind::CrossEntropy,
            focal: FocalConfig::default(),
            class_weights: ClassWeighting::Balanced,
            sampling: Sampling::Natural,
            label_smoothing: 0.0,
            clip_norm: None,
            divergence: Divergence::default(),
            patience: 0,
            min_delta: 0.0,
            monitor: Metric::BalancedAccuracy.into(),
            keep: KeepConfig::default(),
            temperature: true,
            seed: 42,
            shuffle: true,
            skip_bad: false,
            normalisation: Normalisation::ImageNet,
            weights: None,
            allow_partial: false,
            split_file: None,
            split: SplitConfig { fractions: [0.70, 0.15, 0.15], seed: 42, protocol: Protocol::LeakFree, fold: None },
            balance: None,
            augment: AugmentConfig { hflip: true, vflip: true, ..AugmentConfig::NONE },
            preprocess: Preprocess::default(),
            head: HeadConfig::default(),
            plateau: PlateauConfig::default(),
            step: StepConfig::default(),
            fine_tune: FineTune::default(),
            phases: vec![],
        }
    }
}

impl TrainConfig {
    /// How the dataset is opened.
    pub fn open_options(&self, masks: Masks) -> OpenOptions {
        OpenOptions {
            skip_bad: self.skip_bad,
            synthetic_seed: self.seed,
            masks,
            images: self.images.iter().map(Into::into).collect(),
            splits: self.split_file.as_ref().map(Into::into),
            leaky: self.split.protocol == Protocol::Published,
        }
    }

    /// How pictures become what the model sees.
    pub fn preparation(&self) -> Preparation {
        Preparation { size: self.size, preprocess: self.preprocess.clone() }
    }

    /// The defaults for a model: those of its task.
    pub fn of(model: Model) -> Self {
        let config = Self { model: model.name().into(), ..Self::default() };
        match model.task() {
            Task::Classify => config,
            Task::Segment => Self {
                loss: LossKind::BceDice,
                monitor: Metric::Jaccard.into(),
                class_weights: ClassWeighting::None,
                ..config
            },
        }
    }

    /// Checks every number, and that all go together with the model.
    ///
    /// # Errors
    /// [`Kind::Usage`] naming the first that makes no sense.
    pub fn validate(&self) -> Result<()> {
        self.validate_numbers()?;
        if self.sync_bn && self.micro_batch.is_some() {
            return Err(Error::new(Kind::Usage, "--sync-bn does not go together with --micro-batch")
                .next("the parts of a batch come one after the other, and ranks may have another number of them: use more ranks, or leave one of the two away"));
        }
        self.preprocess.validate()?;
        // An unknown model is named when it is looked up.
        Model::find(&self.model).map_or(Ok(()), |model| self.validate_task(model.task()))
    }

    fn validate_task(&self, task: Task) -> Result<()> {
        let segment = task == Task::Segment;
        let (loss, monitor) = (self.loss.name(), &self.monitor);
        let losses: Vec<&str> = LossKind::ALL.iter().filter(|l| l.fits(task)).map(|l| l.name()).collect();
        let monitors = Monitor::names(task);
        let classifies = "for models that classify";
        let checks = [
            (self.loss.fits(task), format!("--loss {loss}"), format!("choose one of: {}", losses.join(", "))),
            (
                self.monitor.fits(task),
                format!("--monitor {monitor}"),
                format!("choose one of: {}", monitors.join(", ")),
            ),
            (segment || self.masks.is_none(), "--masks".into(), "masks are for models that segment".into()),
            (
                !segment || self.class_weights == ClassWeighting::None,
                format!("--class-weights {}", self.class_weights.name()),
                format!("class weights are {classifies}"),
            ),
            (!segment || self.label_smoothing == 0.0, "--label-smoothing".into(), format!("it is {classifies}")),
            (!segment || self.balance.is_none(), "--balance".into(), format!("it is {classifies}")),
            (!segment || !self.augment.mixes(), self.augment.mixing_flag().into(), format!("it is {classifies}")),
            (
                !segment || self.sampling == Sampling::Natural,
                format!("--sampling {}", self.sampling.name()),
                format!("it is {classifies}"),
            ),
        ];
        if self.sampling == Sampling::Balanced && !self.shuffle {
            return Err(Error::new(Kind::Usage, "--sampling balanced does not go together with --no-shuffle")
                .next("leave one of them away"));
        }
        if self.monitor == Metric::ExactMatch.into() && !self.loss.of_sigmoids() {
            let what = format!("--monitor exact-match does not go together with --loss {loss}");
            return Err(Error::new(Kind::Usage, what).next("it is for --loss bce or sigmoid-focal"));
        }
        if self.loss == LossKind::Focal && self.augment.mixes() {
            let what = format!("{} does not go together with --loss focal", self.augment.mixing_flag());
            return Err(Error::new(Kind::Usage, what).next("use --loss cross-entropy, bce or sigmoid-focal"));
        }
        if !segment && self.loss != LossKind::CrossEntropy && self.label_smoothing != 0.0 {
            let what = format!("--label-smoothing does not go together with --loss {loss}");
            return Err(Error::new(Kind::Usage, what).next("it is for cross-entropy"));
        }
        match checks.into_iter().find(|(ok, ..)| !ok) {
            None => Ok(()),
            Some((_, flag, next)) => {
                Err(Error::new(Kind::Usage, format!("{flag} does not go together with {}", self.model)).next(next))
            }
        }
    }

    fn validate_numbers(&self) -> Result<()> {
        let checks = [
            ("--size", self.size.is_valid(), ImageSize::RANGE),
            ("--batch", (1..=65_536).contains(&self.batch), "between 1 and 65536"),
            (
                "--micro-batch",
                self.micro_batch.is_none_or(|n| n > 0 && self.batch.is_multiple_of(n)),
                "a number that divides --batch",
            ),
            ("--epochs", self.epochs >= 1, "at least 1"),
            ("--balance", self.balance.is_none_or(|n| (1..=1_000_000).contains(&n)), "between 1 and 1000000"),
            ("--steps", self.max_steps != Some(0), "at least 1"),
            ("--lr", self.lr.is_finite() && self.lr > 0.0, "a positive number"),
            ("--warm-up", (0.0..=1000.0).contains(&self.warm_up), "between 0 and 1000 epochs"),
            ("--step-epochs", self.step.epochs >= 1, "at least 1"),
            ("--step-factor", self.step.factor > 0.0 && self.step.factor <= 1.0, "above 0 and at most 1"),
            ("--weight-decay", (0.0..=1.0).contains(&self.weight_decay), "between 0 and 1"),
            ("--momentum", (0.0..1.0).contains(&self.momentum), "at least 0 and below 1"),
            (
                "--clip-norm",
                self.clip_norm.is_none_or(|norm| norm as f32 > 0.0 && (norm as f32).is_finite()),
                "a positive number",
            ),
            ("--min-delta", self.min_delta >= 0.0 && self.min_delta.is_finite(), "at least 0"),
            ("--label-smoothing", (0.0..1.0).contains(&self.label_smoothing), "at least 0 and below 1"),
            ("--focal-gamma", self.focal.gamma >= 0.0 && self.focal.gamma.is_finite(), "at least 0"),
            ("--focal-alpha", (0.0..=1.0).contains(&self.focal.alpha), "between 0 and 1"),
            ("--split", self.split.fractions[0] > 0.0, "three shares with some training"),
            ("--split", self.split.fractions.iter().all(|f| (0.0..=1.0).contains(f)), "three shares between 0 and 1"),
            ("--split", (self.split.fractions.iter().sum::<f64>() - 1.0).abs() < 1e-6, "three shares that sum to 1"),
        ];
        match checks.iter().chain(&self.augment.checks()).find(|(_, ok, _)| !ok) {
            None => self.validate_fine_tuning(),
            Some((flag, _, must)) => Err(Error::new(Kind::Usage, format!("{flag} must be {must}"))),
        }
    }

    /// Images that are on the device at a time.
    pub fn images_at_once(&self) -> usize {
        self.micro_batch.unwrap_or(self.batch)
    }

    /// The optimizer it describes.
    pub fn optimizer(&self) -> Optimizer {
        let weight_decay = self.weight_decay as f32;
        let adam =
            |decoupled| Optimizer::Adam(AdamConfig { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay, decoupled });
        match self.optimizer {
            OptimizerKind::Adam => adam(false),
            OptimizerKind::AdamW => adam(true),
            OptimizerKind::Sgd => Optimizer::Sgd { momentum: self.momentum as f32, weight_decay, nesterov: false },
        }
    }

    /// The schedule it describes, with so many steps an epoch.
    pub fn schedule(&self, epoch: u64) -> Schedule {
        match self.schedule {
            // A plateau's falls come on top.
            ScheduleKind::Constant | ScheduleKind::Plateau => Schedule::Constant,
            ScheduleKind::Cosine => Schedule::Cosine,
            ScheduleKind::Step => {
                Schedule::Step { every: epoch * u64::from(self.step.epochs), factor: self.step.factor }
            }
        }
    }

    /// What happens to training pictures.
    pub fn train_augment(&self) -> Augment {
        self.augment.applied(Augment { seed: self.seed, ..self.eval_augment() })
    }

    /// What happens to evaluation pictures: normalisation only.
    pub fn eval_augment(&self) -> Augment {
        let (mean, std) = self.normalisation.mean_std();
        let bgr = self.normalisation.is_bgr();
        Augment { half: self.precision == Precision::Mixed, bgr, ..Augment::none(mean, std) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_model_has_defaults_that_fit_it() {
        for model in Model::all() {
            TrainConfig::of(*model).validate().unwrap();
        }
        let config = TrainConfig::of(Model::find("unet-small").unwrap());
        let config = TrainConfig { size: "128x96".parse().unwrap(), masks: Some("m.zip".into()), ..config };
        config.validate().unwrap();
        assert_eq!(toml::from_str::<TrainConfig>(&toml::to_string(&config).unwrap()).unwrap(), config);
        let error = TrainConfig { loss: LossKind::CrossEntropy, ..config }.validate().unwrap_err().to_string();
        assert!(error.contains("--loss cross-entropy does not go together with unet-small"), "{error}");
        assert!(error.contains("choose one of: bce, bce-dice, dice, jaccard"), "{error}");
    }

    #[test]
    fn round_trips_through_toml_and_rejects_nonsense() {
        let config = TrainConfig { max_steps: Some(3), weights: Some("w".into()), ..TrainConfig::default() };
        let text = toml::to_string(&config).unwrap();
        // A configuration from before there was a choice of precision.
        let older = text.replace("precision = \"f32\"\n", "").replace("loss = \"cross-entropy\"\n", "");
        assert!(older.len() < text.len());
        assert_eq!(toml::from_str::<TrainConfig>(&older).unwrap(), config);
        assert_eq!(toml::from_str::<TrainConfig>(&text).unwrap(), config);
        config.validate().unwrap();
        for bad in [
            TrainConfig { batch: 0, ..config.clone() },
            TrainConfig { lr: f64::NAN, ..config.clone() },
            TrainConfig { epochs: 0, ..config.clone() },
            TrainConfig { size: 0.into(), ..config.clone() },
            TrainConfig { masks: Some("masks".into()), ..config.clone() },
            TrainConfig { monitor: Metric::Dice.into(), ..config.clone() },
            TrainConfig { monitor: Metric::ExactMatch.into(), ..config.clone() },
            TrainConfig { clip_norm: Some(0.0), ..config.clone() },
            TrainConfig { sync_bn: true, micro_batch: Some(4), ..config.clone() },
            TrainConfig { min_delta: -1.0, ..config.clone() },
            TrainConfig { model: "unet".into(), ..config.clone() },
        ] {
            assert_eq!(bad.validate().unwrap_err().kind(), Kind::Usage);
        }
    }
}
