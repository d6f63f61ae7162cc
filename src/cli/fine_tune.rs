//! The flags of `train` that say what is trained: head, freezing, groups, phases.

use clap::Args;

use crate::train::{BatchNormMode, FineTune, HeadConfig, Pattern, PhaseConfig, Rule, TrainConfig, Trained};

#[derive(Debug, Args)]
pub(super) struct FineTuneArgs {
    /// Widths of hidden layers of the head, such as 512,512: dense layers with ReLU between the averaged features and the
    /// classes [default: the model's own head]
    #[arg(long, value_name = "N,N", value_delimiter = ',', num_args = 1, help_heading = "Head")]
    head_hidden: Vec<usize>,
    /// Dropout of the head: a rate behind each hidden layer, one more to have the first in front of them, or a single one
    #[arg(long, value_name = "R,R", value_delimiter = ',', num_args = 1, help_heading = "Head")]
    head_dropout: Vec<f32>,

    /// What is trained: all, head, last:K (the last K layers with parameters, and the head) or stage:NAME.. (the stages
    /// from NAME on, and the head; of ResNets stem, layer1, ..., layer4). The rest is frozen
    #[arg(long, default_value = "all", value_name = "WHAT", help_heading = "Fine-tuning")]
    train: Trained,
    /// Freeze the parameters whose names, or layers, match: layer1, 'layer*.0.*', '*.bias'. May be repeated
    #[arg(long, value_name = "PATTERN", help_heading = "Fine-tuning")]
    freeze: Vec<Pattern>,
    /// Freeze the first N layers with parameters; a convolution and its batch-norm are two
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, help_heading = "Fine-tuning")]
    freeze_first: usize,
    /// Batch-norm: auto (in frozen layers by running statistics, which stay; else it trains), train (by the batch's
    /// statistics everywhere, the running ones move) or frozen (everywhere by running statistics, its parameters frozen)
    #[arg(long = "bn", value_name = "MODE", default_value = "auto", help_heading = "Fine-tuning")]
    batch_norm: BatchNormMode,
    /// Learning rate of some parameters, as a factor: 'layer4=0.1'. May be repeated; the last that matches counts
    #[arg(long, value_name = "PATTERN=FACTOR", help_heading = "Fine-tuning")]
    lr_group: Vec<Rule>,
    /// Weight decay of some parameters: 'fc.0=0.001'. May be repeated; the last that matches counts
    #[arg(long, value_name = "PATTERN=DECAY", help_heading = "Fine-tuning")]
    decay_group: Vec<Rule>,
    /// No weight decay for biases, nor for scales and shifts of norm layers
    #[arg(long, help_heading = "Fine-tuning")]
    no_decay_norm_bias: bool,
    /// Keep an exponential moving average of the weights, such as 0.999: it is what is evaluated and kept as the best
    #[arg(long, value_name = "DECAY", help_heading = "Fine-tuning")]
    ema: Option<f64>,
    /// A phase TRAIN:EPOCHS:LR, such as head:3:1e-4. Repeated, one after the other, each with a fresh optimizer and its own
    /// learning-rate schedule; instead of --train, --epochs and --lr
    #[arg(long, value_name = "PHASE", conflicts_with_all = ["train", "epochs", "lr"], help_heading = "Fine-tuning")]
    phase: Vec<PhaseConfig>,
}

impl FineTuneArgs {
    /// The configuration with what the flags say.
    pub(super) fn apply(&self, config: TrainConfig) -> TrainConfig {
        let epochs = match self.phase.as_slice() {
            [] => config.epochs,
            phases => phases.iter().map(|phase| phase.epochs).fold(0, u32::saturating_add),
        };
        TrainConfig {
            epochs,
            head: HeadConfig { hidden: self.head_hidden.clone(), dropout: self.head_dropout.clone() },
            fine_tune: FineTune {
                train: self.train.clone(),
                freeze: self.freeze.clone(),
                freeze_first: self.freeze_first,
                batch_norm: self.batch_norm,
                rates: self.lr_group.clone(),
                decays: self.decay_group.clone(),
                spare_vectors: self.no_decay_norm_bias,
                ema: self.ema,
            },
            phases: self.phase.clone(),
            ..config
        }
    }
}
