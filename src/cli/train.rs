//! `lesion-gpu train`

mod running;

use std::path::PathBuf;

use clap::Args;

use super::config_file::{Base, absolute, merge};
use super::fine_tune::FineTuneArgs;
use super::progress::Progress;
use super::style::Line;
use super::{DeviceArgs, LoadArgs, published};
use crate::data::preprocess::Steps;
use crate::data::{Fold, ImageSize};
use crate::error::{Error, Kind, Result};
use crate::models::Model;
use crate::train::{
    AugmentConfig, ClassWeighting, Divergence, FocalConfig, Interrupt, KeepConfig, LossKind, Monitor, Normalisation,
    OptimizerKind, PlateauConfig, Precision, Protocol, Recipe, RunFolder, Sampling, ScheduleKind, SplitConfig,
    StepConfig, TrainConfig, Wire, normalisation_of, preprocess_of,
};

pub(super) use running::{first_tuning, run};

/// The flags that make up a run's configuration: a resumed run has its own.
const CONFIGURATION: [&str; 80] = [
    "data",
    "masks",
    "images",
    "recipe",
    "from_scratch",
    "run",
    "model",
    "weights",
    "pretrained",
    "allow_partial",
    "size",
    "precision",
    "batch",
    "micro_batch",
    "sync_bn",
    "wire",
    "epochs",
    "steps",
    "optimizer",
    "lr",
    "schedule",
    "weight_decay",
    "momentum",
    "loss",
    "class_weights",
    "sampling",
    "label_smoothing",
    "clip_norm",
    "on_divergence",
    "patience",
    "min_delta",
    "monitor",
    "keep_every",
    "keep_best",
    "no_temperature",
    "seed",
    "split",
    "split_seed",
    "split_file",
    "fold",
    "protocol",
    "balance",
    "skip_bad",
    "normalize",
    "preprocess",
    "no_shuffle",
    "no_augment",
    "no_flip",
    "rotation",
    "zoom",
    "brightness",
    "contrast",
    "shift",
    "shear",
    "saturation",
    "hue",
    "blur",
    "cutout",
    "mixup",
    "cutmix",
    "no_tune",
    "head_hidden",
    "head_dropout",
    "train",
    "freeze",
    "freeze_first",
    "batch_norm",
    "lr_group",
    "decay_group",
    "no_decay_norm_bias",
    "ema",
    "phase",
    "plateau_factor",
    "plateau_patience",
    "min_lr",
    "step_epochs",
    "step_factor",
    "warm_up",
    "focal_gamma",
    "focal_alpha",
];

#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  lesion-gpu train --data synthetic --model simple-cnn --epochs 5
  lesion-gpu train --data HAM10000.zip --model resnet18 --size 128 --epochs 30 --schedule cosine
  lesion-gpu train --data my.csv --model resnet50 --weights resnet50.pth
  lesion-gpu train --data HAM10000.zip --masks HAM10000_segmentations_lesion_tschandl.zip --model unet-small --size 128x96
  lesion-gpu train --data HAM10000.zip --model resnet50 --pretrained --size 224
  lesion-gpu train --recipe s1-cnn --data HAM10000.zip
  lesion-gpu train --resume runs/resnet18-001")]
pub(super) struct TrainArgs {
    /// Folder or zip of HAM10000, ISIC 2018, ISIC 2019, PH2 or with a folder for each class; a CSV with columns
    /// path,label[,group][,split]; or `synthetic[:COUNT]`. For models that segment also folders of images and masks, and a
    /// CSV with columns path,mask[,group][,split]
    #[arg(long, value_name = "DATA", required_unless_present_any = ["resume", "config", "recipe"])]
    data: Option<String>,
    /// Take the configuration from this file: the config.toml of a run, or one with some of its keys. Flags override it
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    config: Option<PathBuf>,
    /// Take the configuration from this recipe: see `lesion-gpu recipe list`. Flags override it
    #[arg(long, value_name = "NAME", conflicts_with_all = ["resume", "config"])]
    recipe: Option<String>,
    /// Folder or zip of the lesions' masks, where these do not come with the data
    #[arg(long, value_name = "MASKS")]
    masks: Option<String>,
    /// Folder or zip of pictures that do not lie with the tables of the data; may be repeated
    #[arg(long, value_name = "PLACE")]
    images: Vec<String>,
    /// Continue the run in this folder, with its own configuration
    #[arg(long, value_name = "RUN", conflicts_with_all = CONFIGURATION)]
    resume: Option<PathBuf>,
    /// Where `mpirun` starts several ranks: measure how fast each is, and let faster ones take more of each batch. Without, all
    /// take as much
    #[arg(long, conflicts_with = "resume")]
    balance_ranks: bool,
    /// Write a checkpoint this often within an epoch, and one after each in any case
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    checkpoint_every: u32,
    /// Folder of this run; it must be new [default: the next runs/MODEL-NNN]
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Print nothing but the final scores
    #[arg(long, short)]
    quiet: bool,
    /// Print what happens as JSON, an event on each line: ready, step, epoch, note, stopped, end and others
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// Show the training on the whole screen, with its curves
    #[arg(long, conflicts_with_all = ["quiet", "json"])]
    tui: bool,
    /// Write an event file for TensorBoard into the run's folder: `tensorboard --logdir runs` shows it
    #[arg(long)]
    tensorboard: bool,
    /// Make no report.html in the end (`lesion-gpu report` makes it later)
    #[arg(long)]
    no_report: bool,

    /// simple-cnn, resnet18, resnet34, resnet50, resnet101, resnet152, resnet50-se, seresnet50,
    /// resnet50-keras, resnet101-keras, resnet152-keras, inception-resnet-v2, efficientnet-b0, vit-small-16; to segment:
    /// unet-small, unet, unet-resnet18, unet-resnet34, unet-resnet50
    #[arg(long, default_value = "resnet18", help_heading = "Model")]
    model: String,
    /// Start from this file: safetensors, PyTorch's .pth, Keras's .h5 or .keras. A classifier for other classes is replaced
    #[arg(long, value_name = "FILE", help_heading = "Model")]
    weights: Option<PathBuf>,
    /// Start from the model's published weights (see `lesion-gpu models`): found on this machine, or fetched. Their pixel
    /// statistics are used unless --normalize or --config names others
    #[arg(long, conflicts_with = "weights", help_heading = "Model")]
    pretrained: bool,
    /// Start from random weights where the recipe starts from published ones
    #[arg(long, requires = "recipe", conflicts_with_all = ["weights", "pretrained"], help_heading = "Model")]
    from_scratch: bool,
    /// Accept a weight file that lacks some parameters, and say which
    #[arg(long, help_heading = "Model")]
    allow_partial: bool,
    /// Size of the images in pixels: N for a square, or WIDTHxHEIGHT
    #[arg(long, default_value = "64", value_name = "SIZE", help_heading = "Model")]
    size: ImageSize,
    /// f32, or mixed: activations and their gradients in f16, parameters and sums in f32
    #[arg(long, default_value = "f32", help_heading = "Model")]
    precision: Precision,

    /// Images a step
    #[arg(long, default_value_t = 32, help_heading = "Optimisation")]
    batch: usize,
    /// Compute a batch in parts of this many images and add up their gradients: takes the memory of a part. Batch-norm's
    /// statistics are then those of a part, and its running ones move once a part
    #[arg(long, value_name = "N", help_heading = "Optimisation")]
    micro_batch: Option<usize>,
    /// Where several processes share a batch (mpirun): take batch-norm's statistics of the whole batch, so that the run is that
    /// of one process. The ranks then wait for each other twice for each such layer
    #[arg(long, conflicts_with = "micro_batch", help_heading = "Optimisation")]
    sync_bn: bool,
    /// Where several processes share a batch: gradients go from one to the other in f32, or rounded to f16, half the bytes
    #[arg(long, default_value = "f32", value_name = "TYPE", help_heading = "Optimisation")]
    wire: Wire,
    /// Passes over the training images
    #[arg(long, default_value_t = 10, help_heading = "Optimisation")]
    epochs: u32,
    /// Stop after this many steps in all
    #[arg(long, value_name = "N", help_heading = "Optimisation")]
    steps: Option<u64>,
    /// adam, adamw or sgd
    #[arg(long, default_value = "adam", help_heading = "Optimisation")]
    optimizer: OptimizerKind,
    /// Learning rate
    #[arg(long, default_value_t = 1e-3, help_heading = "Optimisation")]
    lr: f64,
    /// constant, cosine (down to zero), step (falls every so many epochs) or plateau (falls when what is monitored stops
    /// getting better); with phases each has its own, from its first step to its last
    #[arg(long, default_value = "constant", help_heading = "Optimisation")]
    schedule: ScheduleKind,
    /// With --schedule plateau: what the rate is multiplied by
    #[arg(long, value_name = "F", default_value_t = 0.5, help_heading = "Optimisation")]
    plateau_factor: f64,
    /// With --schedule plateau: epochs without improvement before the rate falls
    #[arg(long, value_name = "N", default_value_t = 3, help_heading = "Optimisation")]
    plateau_patience: u32,
    /// With --schedule plateau: the rate never falls below this
    #[arg(long, value_name = "LR", default_value_t = 0.0, help_heading = "Optimisation")]
    min_lr: f64,
    /// With --schedule step: epochs between two falls
    #[arg(long, value_name = "N", default_value_t = 10, help_heading = "Optimisation")]
    step_epochs: u32,
    /// With --schedule step: what the rate is multiplied by
    #[arg(long, value_name = "F", default_value_t = 0.1, help_heading = "Optimisation")]
    step_factor: f64,
    /// Epochs (or a part of one) in which the rate rises to its full height, at the beginning of each phase
    #[arg(long, value_name = "EPOCHS", default_value_t = 0.0, help_heading = "Optimisation")]
    warm_up: f64,
    /// Weight decay
    #[arg(long, default_value_t = 0.0, help_heading = "Optimisation")]
    weight_decay: f64,
    /// Momentum of sgd
    #[arg(long, default_value_t = 0.9, help_heading = "Optimisation")]
    momentum: f64,
    /// cross-entropy or focal, of a softmax; bce or sigmoid-focal, where each class has a sigmoid of its own and a picture
    /// may have several; to segment: bce-dice, dice, jaccard or bce [default: cross-entropy, to segment bce-dice]
    #[arg(long, help_heading = "Optimisation")]
    loss: Option<LossKind>,
    /// Focal losses: the exponent, how much less counts what is classified well
    #[arg(long, value_name = "G", default_value_t = 2.0, help_heading = "Optimisation")]
    focal_gamma: f64,
    /// sigmoid-focal: the weight of classes that a picture has; one minus that of those it has not
    #[arg(long, value_name = "A", default_value_t = 0.25, help_heading = "Optimisation")]
    focal_alpha: f64,
    /// Weights of the classes in the loss: balanced, median, inverse, effective (number of samples) or none [default:
    /// balanced; none to segment, and with --sampling balanced]
    #[arg(long, help_heading = "Optimisation")]
    class_weights: Option<ClassWeighting>,
    /// Training images of an epoch: natural, each once; or balanced, as many of each class, so that those of rare classes
    /// come several times (each time with other random changes) and not all of frequent ones
    #[arg(long, default_value = "natural", help_heading = "Optimisation")]
    sampling: Sampling,
    /// Label smoothing
    #[arg(long, default_value_t = 0.0, help_heading = "Optimisation")]
    label_smoothing: f64,
    /// Bring the norm of all gradients together down to this where it is larger
    #[arg(long, value_name = "NORM", help_heading = "Optimisation")]
    clip_norm: Option<f64>,
    /// When the loss, a gradient or a weight is not a finite number: stop; or lower-lr, go back to a checkpoint and on with
    /// a quarter of the learning rate, three times at most
    #[arg(long, default_value = "stop", help_heading = "Optimisation")]
    on_divergence: Divergence,
    /// Stop after this many epochs without improvement; 0 for never
    #[arg(long, default_value_t = 0, help_heading = "Optimisation")]
    patience: u32,
    /// By how much more than the best so far counts as improvement, for --patience and --schedule plateau
    #[arg(long, value_name = "D", default_value_t = 0.0, help_heading = "Optimisation")]
    min_delta: f64,
    /// What decides the best epoch, of the validation images: balanced-accuracy, accuracy, macro-f1, weighted-f1, auc,
    /// average-precision, recall:CLASS, exact-match (losses of sigmoids) or loss; to segment: jaccard, threshold-jaccard, dice,
    /// pixel-accuracy or loss [default: balanced-accuracy, to segment jaccard]
    #[arg(long, value_name = "SCORE", help_heading = "Optimisation")]
    monitor: Option<Monitor>,
    /// Keep the weights of every so many epochs, weights/epoch-NNNN.safetensors; 0 for none
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Optimisation")]
    keep_every: u32,
    /// Keep the weights of the best so many epochs, likewise
    #[arg(long, value_name = "K", default_value_t = 0, help_heading = "Optimisation")]
    keep_best: u32,
    /// Fit no temperature to the validation images in the end (one is for models that classify with a softmax)
    #[arg(long, help_heading = "Optimisation")]
    no_temperature: bool,
    /// Seed of everything random
    #[arg(long, default_value_t = 42, help_heading = "Optimisation")]
    seed: u32,

    /// Shares of train, validation and test
    #[arg(
        long,
        value_name = "A,B,C",
        value_delimiter = ',',
        num_args = 1,
        default_value = "0.70,0.15,0.15",
        help_heading = "Data"
    )]
    split: Vec<f64>,
    /// Seed of the split
    #[arg(long, default_value_t = 42, help_heading = "Data")]
    split_seed: u32,
    /// Split as this table says (columns image_id and split, as in a run's split.csv)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["split", "fold"], help_heading = "Data")]
    split_file: Option<String>,
    /// One fold of a cross-validation, such as 2/5: the second of five parts is the test split, the rest is shared out
    /// between train and val as --split says
    #[arg(long, value_name = "I/K", help_heading = "Data")]
    fold: Option<Fold>,
    /// leak-free: all images of a lesion are in one part of the split. published: image by image, as many published tables
    /// did, only to compare with them; every result is then marked LEAKY
    #[arg(long, default_value = "leak-free", help_heading = "Data")]
    protocol: Protocol,
    /// As many training images of each class: a draw of frequent classes, and of rare ones copies that are changed in seven
    /// ways, as `data balance` writes them. With --protocol published before the split, so that copies leak
    #[arg(long, value_name = "N", help_heading = "Data")]
    balance: Option<usize>,
    /// Leave faulty samples out instead of failing, and list them in skipped.csv
    #[arg(long, help_heading = "Data")]
    skip_bad: bool,
    /// Pixel statistics: imagenet, ham10000, isic2019, unit, caffe (BGR) or tf ([-1, 1]) [default: what goes with the
    /// weights, else imagenet]
    #[arg(long, help_heading = "Data")]
    normalize: Option<Normalisation>,
    /// What is done to all pictures, in this order: some of crop (the black frame of a dermoscope), resize (to --size; unless
    /// named, right behind the crop), hair, clahe, shades-of-gray; or none. Constants are keys of --config. See `lesion-gpu data
    /// preview` [default: what the weights were trained with, else none]
    #[arg(long, value_name = "STEPS", help_heading = "Data")]
    preprocess: Option<Steps>,
    /// Visit the images in file order
    #[arg(long, help_heading = "Data")]
    no_shuffle: bool,

    /// No augmentation at all, whatever the other flags say
    #[arg(long, help_heading = "Augmentation")]
    no_augment: bool,
    /// No mirroring
    #[arg(long, help_heading = "Augmentation")]
    no_flip: bool,
    /// Rotate by up to this many degrees
    #[arg(long, default_value_t = 0.0, value_name = "DEGREES", help_heading = "Augmentation")]
    rotation: f32,
    /// Scale by up to this share, such as 0.1
    #[arg(long, default_value_t = 0.0, value_name = "SHARE", help_heading = "Augmentation")]
    zoom: f32,
    /// Change the brightness by up to this share
    #[arg(long, default_value_t = 0.0, value_name = "SHARE", help_heading = "Augmentation")]
    brightness: f32,
    /// Change the contrast by up to this share
    #[arg(long, default_value_t = 0.0, value_name = "SHARE", help_heading = "Augmentation")]
    contrast: f32,
    /// Shift by up to this share of width and height, either way
    #[arg(long, default_value_t = 0.0, value_name = "SHARE", help_heading = "Augmentation")]
    shift: f32,
    /// Shear by up to this many degrees
    #[arg(long, default_value_t = 0.0, value_name = "DEGREES", help_heading = "Augmentation")]
    shear: f32,
    /// Change the saturation by up to this share
    #[arg(long, default_value_t = 0.0, value_name = "SHARE", help_heading = "Augmentation")]
    saturation: f32,
    /// Turn the hue by up to this share of the circle, such as 0.02
    #[arg(long, default_value_t = 0.0, value_name = "SHARE", help_heading = "Augmentation")]
    hue: f32,
    /// Blur by a Gaussian of up to this many pixels (its standard deviation)
    #[arg(long, default_value_t = 0.0, value_name = "PIXELS", help_heading = "Augmentation")]
    blur: f32,
    /// Cover a square whose side is this share of the shorter side with the mean colour
    #[arg(long, default_value_t = 0.0, value_name = "SHARE", help_heading = "Augmentation")]
    cutout: f32,
    /// Mix each image, and its label, with another training image by a share from Beta(A, A), such as 0.2. The accuracy of
    /// training is then that of the images' own labels
    #[arg(long, default_value_t = 0.0, value_name = "A", help_heading = "Augmentation")]
    mixup: f32,
    /// Put a box of another training image into each image, of a share from Beta(A, A), such as 1. With --mixup each image
    /// takes one of the two, by chance
    #[arg(long, default_value_t = 0.0, value_name = "A", help_heading = "Augmentation")]
    cutmix: f32,

    #[command(flatten)]
    fine_tune: FineTuneArgs,

    /// MiB on the device to stay below [default: on software drivers what is free, else what the device gives]
    #[arg(long, value_name = "MIB", help_heading = "Device")]
    memory_limit: Option<u64>,
    /// Choose kernels by the built-in rule, not by measurement. Without this flag a first run of a model, size and batch
    /// measures its largest products for at most about 5 seconds and keeps the result for later runs; on software drivers
    /// `train` never measures, but uses what `lesion-gpu tune` has found. A resumed run keeps the kernels it began with
    #[arg(long, help_heading = "Device")]
    no_tune: bool,
    /// Where the backbone is frozen, compute its features anew in each step. Without this flag they are computed once and
    /// kept in memory, if augmentation changes nothing and they take less than 1 GiB
    #[arg(long, help_heading = "Device")]
    no_feature_cache: bool,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    load: LoadArgs,
}

impl TrainArgs {
    /// The configuration; `given` says which flags are on the command line.
    fn config(&self, given: &dyn Fn(&str) -> bool) -> Result<TrainConfig> {
        if let Some(run) = &self.resume {
            return Ok(RunFolder::open(run)?.checkpoint()?.0.config);
        }
        let fractions = self.split.as_slice().try_into().map_err(|_| {
            Error::new(Kind::Usage, "--split takes three shares").next("for example --split 0.7,0.15,0.15")
        })?;
        let augment = match self.no_augment {
            true => AugmentConfig::NONE,
            false => AugmentConfig {
                hflip: !self.no_flip,
                vflip: !self.no_flip,
                rotation: self.rotation,
                zoom: self.zoom,
                brightness: self.brightness,
                contrast: self.contrast,
                shift: self.shift,
                shear: self.shear,
                saturation: self.saturation,
                hue: self.hue,
                blur: self.blur,
                cutout: self.cutout,
                mixup: self.mixup,
                cutmix: self.cutmix,
            },
        };
        let defaults = TrainConfig::of(Model::find(&self.model)?);
        let here = |path: &str| absolute(path, "".as_ref());
        let config = TrainConfig {
            model: self.model.clone(),
            data: self.data.as_deref().map_or(Ok(String::new()), here)?,
            masks: self.masks.as_deref().map(here).transpose()?,
            images: self.images.iter().map(|place| here(place)).collect::<Result<_>>()?,
            size: self.size,
            precision: self.precision,
            batch: self.batch,
            micro_batch: self.micro_batch,
            sync_bn: self.sync_bn,
            wire: self.wire,
            epochs: self.epochs,
            max_steps: self.steps,
            optimizer: self.optimizer,
            lr: self.lr,
            schedule: self.schedule,
            step: StepConfig { epochs: self.step_epochs, factor: self.step_factor },
            warm_up: self.warm_up,
            plateau: PlateauConfig {
                factor: self.plateau_factor,
                patience: self.plateau_patience,
                min_lr: self.min_lr,
            },
            weight_decay: self.weight_decay,
            momentum: self.momentum,
            loss: self.loss.unwrap_or(defaults.loss),
            focal: FocalConfig { gamma: self.focal_gamma, alpha: self.focal_alpha },
            class_weights: match (self.class_weights, self.sampling) {
                (Some(weights), _) => weights,
                // What is drawn evenly needs no weights.
                (None, Sampling::Balanced) => ClassWeighting::None,
                (None, Sampling::Natural) => defaults.class_weights,
            },
            sampling: self.sampling,
            label_smoothing: self.label_smoothing,
            clip_norm: self.clip_norm,
            divergence: self.on_divergence,
            patience: self.patience,
            min_delta: self.min_delta,
            monitor: self.monitor.clone().unwrap_or(defaults.monitor),
            keep: KeepConfig { every: self.keep_every, best: self.keep_best },
            temperature: !self.no_temperature,
            seed: self.seed,
            shuffle: !self.no_shuffle,
            balance: self.balance,
            skip_bad: self.skip_bad,
            normalisation: match self.normalize {
                Some(chosen) => chosen,
                None => normalisation_of(&self.model, self.weights.as_deref())?,
            },
            weights: self.weights.as_ref().map(|p| here(&p.display().to_string())).transpose()?,
            allow_partial: self.allow_partial,
            split_file: self.split_file.as_deref().map(here).transpose()?,
            split: SplitConfig { fractions, seed: self.split_seed, protocol: self.protocol, fold: self.fold },
            augment,
            preprocess: match &self.preprocess {
                Some(steps) => steps.clone().into(),
                None => preprocess_of(self.weights.as_deref())?,
            },
            ..TrainConfig::default()
        };
        let config = self.fine_tune.apply(config);
        let config = self.base()?.map_or(Ok(config.clone()), |base| merge(&base, &config, given))?;
        if config.weights.is_none() && config.allow_partial && !self.pretrained {
            return Err(Error::new(Kind::Usage, "--allow-partial is for a weight file, and none is named")
                .next("name it with --weights"));
        }
        if config.weights.is_some() && self.pretrained {
            return Err(Error::new(Kind::Usage, "the configuration names weights, and --pretrained others")
                .next("leave --pretrained away, or take the weights out of the configuration"));
        }
        if config.data.is_empty() {
            return Err(Error::new(Kind::Usage, "the configuration names no data").next("name it with --data"));
        }
        Ok(config)
    }
}

impl TrainArgs {
    /// The file or recipe that the configuration begins with.
    fn base(&self) -> Result<Option<Base>> {
        match (&self.config, &self.recipe) {
            (Some(file), _) => Base::of_file(file).map(Some),
            (None, Some(name)) => Base::of_recipe(&Recipe::find(name)?).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// Whether the published weights are to be found or fetched.
    fn wants_published(&self, config: &TrainConfig) -> Result<bool> {
        let recipe = self.recipe.as_deref().filter(|_| config.weights.is_none() && !self.from_scratch);
        Ok(self.pretrained || recipe.map_or(Ok(false), |name| Recipe::find(name).map(|r| r.about.pretrained))?)
    }

    /// Makes the configuration start from the model's published weights; a line that says so.
    fn published(&self, config: &mut TrainConfig, given: &dyn Fn(&str) -> bool, interrupt: &Interrupt) -> Result<Line> {
        let known = published::known(&config.model)?;
        let path = published::fetch(&known, self.load.cache.clone(), &mut Progress::new(), interrupt)?;
        let named = self.base()?.is_some_and(|base| base.names("normalisation"));
        if !given("normalize") && !named {
            config.normalisation = known.normalize.parse()?;
        }
        let statistics = config.normalisation.name();
        let other = match statistics == known.normalize {
            true => String::new(),
            false => format!(", as you chose: the weights expect {}", known.normalize),
        };
        let line = format!("{} ({}), pixel statistics {statistics}{other}", path.display(), known.licence);
        config.weights = Some(path.display().to_string());
        // What is around a backbone is no part of them.
        config.allow_partial |= published::backbone_of(&config.model).is_some();
        Ok(Line::new("weights", line))
    }
}

#[cfg(test)]
mod tests {
    use super::super::config_file::KEYS;
    use super::CONFIGURATION;

    #[test]
    fn every_flag_of_a_configuration_overrides_a_file() {
        for flag in CONFIGURATION
            .iter()
            .filter(|flag| !["run", "no_tune", "pretrained", "recipe", "from_scratch"].contains(flag))
        {
            assert!(KEYS.iter().any(|(name, _)| name == flag), "--{flag} sets no key");
        }
    }
}
