//! What of a network is trained, how fast, and in which order: the part of a configuration that fine-tuning needs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{ScheduleKind, TrainConfig};
use crate::autograd::{Gradients, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::models::Head;
use crate::nn::Parameter;
use crate::optim::{Group, LossScaling, Optimizer, Verdict, append_averages};

/// The part of a network that is trained, as it is written: `all`, `head`, `last:20` (the last 20 layers of the backbone, and
/// the head) or `stage:layer3..` (the backbone from that stage on, and the head).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Trained {
    /// Everything.
    #[default]
    All,
    /// The head alone.
    Head,
    /// The last layers of the backbone, as many as given, and the head.
    Last(usize),
    /// The stages of the backbone from this one on, by name or number, and the head.
    From(String),
}

impl FromStr for Trained {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::new(Kind::Usage, format!("'{text}' does not say what to train"))
                .next("write all, head, last:K (layers) or stage:NAME.. (the stages from NAME on)")
        };
        match (text, text.split_once(':')) {
            ("all", _) => Ok(Self::All),
            ("head", _) => Ok(Self::Head),
            (_, Some(("last", count))) => count.parse().map(Self::Last).map_err(|_| bad()),
            (_, Some(("stage", stage))) => {
                let stage = stage.strip_suffix("..").filter(|stage| !stage.is_empty()).ok_or_else(bad)?;
                Ok(Self::From(stage.to_owned()))
            }
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Trained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Head => f.write_str("head"),
            Self::Last(count) => write!(f, "last:{count}"),
            Self::From(stage) => write!(f, "stage:{stage}.."),
        }
    }
}

impl TryFrom<String> for Trained {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Trained> for String {
    fn from(trained: Trained) -> Self {
        trained.to_string()
    }
}

/// Names of parameters or layers: `*` stands for any characters, `?` for one. A pattern that matches a layer matches
/// everything in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pattern(String);

impl Pattern {
    /// Whether it matches a parameter's name or one of the layers it is in.
    pub fn matches(&self, name: &str) -> bool {
        let ends = name.match_indices('.').map(|(at, _)| at).chain([name.len()]);
        ends.into_iter().any(|end| glob(self.0.as_bytes(), &name.as_bytes()[..end]))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Pattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.trim() {
            "" => {
                Err(Error::new(Kind::Usage, "a pattern of names is empty").next("for example 'layer1.*' or '*.bias'"))
            }
            text => Ok(Self(text.to_owned())),
        }
    }
}

/// Whether all of `text` is what `pattern` describes.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    // Where the last star stood, and up to where it has been taken to reach.
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, reach)) => {
                    star = Some((at, reach + 1));
                    (p, t) = (at + 1, reach + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

/// A number for the parameters that a pattern matches, written `PATTERN=NUMBER`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rule {
    /// Which parameters.
    pub pattern: Pattern,
    /// The number.
    pub value: f64,
}

impl FromStr for Rule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.rsplit_once('=').and_then(|(pattern, value)| Some((pattern, value.trim().parse().ok()?)));
        let (pattern, value) =
            parts.filter(|(_, value): &(_, f64)| value.is_finite() && *value >= 0.0).ok_or_else(|| {
                Error::new(Kind::Usage, format!("'{text}' is not PATTERN=NUMBER")).next("for example 'layer4.*=0.1'")
            })?;
        Ok(Self { pattern: pattern.parse()?, value })
    }
}

impl TryFrom<String> for Rule {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Rule> for String {
    fn from(rule: Rule) -> Self {
        format!("{}={}", rule.pattern.0, rule.value)
    }
}

/// The head of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeadConfig {
    /// Widths of hidden layers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hidden: Vec<usize>,
    /// Rates of dropout: see [`Head::dropout`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dropout: Vec<f32>,
}

impl HeadConfig {
    /// The head it describes; `None` for the model's own.
    pub fn head(&self) -> Option<Head> {
        let own = self.hidden.is_empty() && self.dropout.is_empty();
        (!own).then(|| Head { hidden: self.hidden.clone(), dropout: self.dropout.clone() })
    }
}

/// What is trained and how fast.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FineTune {
    /// The part that is trained, where there are no phases.
    pub train: Trained,
    /// Names that are frozen in any case.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub freeze: Vec<Pattern>,
    /// The first layers, as many as given, are frozen in any case.
    #[serde(skip_serializing_if = "is_zero")]
    pub freeze_first: usize,
    /// What batch-norm does.
    pub batch_norm: BatchNormMode,
    /// Factors of the learning rate; of several that match the last counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rates: Vec<Rule>,
    /// Weight decays that differ from the optimizer's; of several that match the last counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub decays: Vec<Rule>,
    /// No weight decay for vectors: biases, and scales and shifts of norms.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub spare_vectors: bool,
    /// Decay of the averages of weights that are evaluated and kept, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ema: Option<f64>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(n: &usize) -> bool {
    *n == 0
}

super::choices::named! {
    /// What batch-norm does in training.
    #[derive(Default)]
    BatchNormMode {
        /// Layers that are frozen normalise with their running statistics and leave them; the others train.
        #[default]
        Auto = "auto",
        /// Every layer normalises with the statistics of the batch and moves the running ones, also if it is frozen.
        Train = "train",
        /// Every layer is frozen: running statistics, and neither scale nor shift is trained.
        Frozen = "frozen",
    }
}

impl FineTune {
    /// The group of the parameter `name`; `vector` says whether it has a single axis.
    pub fn group(&self, optimizer: &Optimizer, name: &str, vector: bool) -> Group {
        let last = |rules: &[Rule]| rules.iter().rev().find(|rule| rule.pattern.matches(name)).map(|rule| rule.value);
        let spared = self.spare_vectors && vector;
        let otherwise = if spared { 0.0 } else { optimizer.weight_decay() };
        Group {
            rate: last(&self.rates).map_or(1.0, |rate| rate as f32),
            weight_decay: last(&self.decays).map_or(otherwise, |decay| decay as f32),
        }
    }

    /// Checks every number.
    ///
    /// # Errors
    /// [`Kind::Usage`] naming the first that makes no sense.
    pub fn validate(&self) -> Result<()> {
        let refuse = |flag: &str, must: &str| Err(Error::new(Kind::Usage, format!("{flag} must be {must}")));
        if self.ema.is_some_and(|decay| !(decay > 0.0 && decay < 1.0)) {
            return refuse("--ema", "above 0 and below 1");
        }
        if self.decays.iter().any(|rule| rule.value > 1.0) {
            return refuse("--decay-group", "PATTERN=DECAY with a decay between 0 and 1");
        }
        Ok(())
    }
}

/// A part of a run with a learning rate and a choice of what is trained of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseConfig {
    /// What is trained.
    pub train: Trained,
    /// Passes over the training images.
    pub epochs: u32,
    /// Learning rate.
    pub lr: f64,
    /// Learning-rate schedule, from the phase's first step to its last; by default the run's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleKind>,
}

impl FromStr for PhaseConfig {
    type Err = Error;

    /// `TRAIN:EPOCHS:LR`.
    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::new(Kind::Usage, format!("'{text}' is not a phase TRAIN:EPOCHS:LR"))
                .next("for example head:3:1e-4, last:20:5:1e-5 or all:10:1e-5")
        };
        let (rest, lr) = text.rsplit_once(':').ok_or_else(bad)?;
        let (train, epochs) = rest.rsplit_once(':').ok_or_else(bad)?;
        let (epochs, lr) = (epochs.parse().map_err(|_| bad())?, lr.parse().map_err(|_| bad())?);
        Ok(Self { train: train.parse()?, epochs, lr, schedule: None })
    }
}

impl TrainConfig {
    /// The configuration of each phase, itself without phases; of a run without any, its own.
    pub fn by_phase(&self) -> Vec<Self> {
        let of = |phase: &PhaseConfig| Self {
            epochs: phase.epochs,
            lr: phase.lr,
            schedule: phase.schedule.unwrap_or(self.schedule),
            fine_tune: FineTune { train: phase.train.clone(), ..self.fine_tune.clone() },
            phases: vec![],
            ..self.clone()
        };
        if self.phases.is_empty() { vec![self.clone()] } else { self.phases.iter().map(of).collect() }
    }

    /// Appends the updates of all trained parameters, each by the rules of its group, and the averages if there are any.
    ///
    /// # Errors
    /// As [`Optimizer::append`].
    pub(super) fn append_optimizer(
        &self,
        tape: &mut Tape,
        gradients: &Gradients,
        lr: Tensor,
        scaling: Option<&LossScaling>,
        parameters: &[Parameter],
    ) -> Result<Verdict> {
        let optimizer = self.optimizer();
        let vector = |name: &str| parameters.iter().any(|p| p.name == name && p.file_shape.rank() == 1);
        let group = |name: &str| self.fine_tune.group(&optimizer, name, vector(name));
        let verdict = optimizer.append_in_groups(tape, gradients, lr, scaling, self.clip_norm, &group)?;
        if let Some(decay) = self.fine_tune.ema {
            let moving = parameters.iter().filter(|p| !p.frozen).map(|p| p.name.as_str()).collect::<Vec<_>>();
            append_averages(tape, &moving, decay)?;
        }
        Ok(verdict)
    }

    /// Checks head, freezing and phases.
    pub(super) fn validate_fine_tuning(&self) -> Result<()> {
        if let Some(head) = self.head.head() {
            head.rates()?;
        }
        self.fine_tune.validate()?;
        let refuse = |what: &str| Err(Error::new(Kind::Usage, what));
        let fall = &self.plateau;
        if !(fall.factor > 0.0 && fall.factor < 1.0)
            || fall.patience == 0
            || !(fall.min_lr >= 0.0 && fall.min_lr.is_finite())
        {
            return refuse(
                "a plateau needs a factor above 0 and below 1, a patience of at least 1 and a rate that is not negative",
            );
        }
        if self.phases.iter().any(|phase| phase.epochs == 0 || !(phase.lr.is_finite() && phase.lr > 0.0)) {
            return refuse("a phase must have at least one epoch and a positive learning rate");
        }
        if !self.phases.is_empty()
            && u64::from(self.epochs) != self.phases.iter().map(|p| u64::from(p.epochs)).sum::<u64>()
        {
            return refuse("the epochs of the phases must add up to those of the run");
        }
        if !self.phases.is_empty() && self.fine_tune.train != Trained::All {
            return refuse("where there are phases, each says what it trains: leave out --train");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::OptimizerKind;

    #[test]
    fn what_is_trained_reads_as_it_is_written() {
        for text in ["all", "head", "last:20", "stage:layer3..", "stage:2.."] {
            assert_eq!(text.parse::<Trained>().unwrap().to_string(), text);
        }
        for text in ["", "none", "last", "last:x", "last:-1", "stage:..", "stage:layer3", "all:1"] {
            assert_eq!(text.parse::<Trained>().unwrap_err().kind(), Kind::Usage, "{text}");
        }
        let phase: PhaseConfig = "stage:layer4..:5:1e-5".parse().unwrap();
        let want = PhaseConfig { train: Trained::From("layer4".into()), epochs: 5, lr: 1e-5, schedule: None };
        assert_eq!(phase, want);
        for text in ["head", "head:3", "head:x:1", "head:3:y", "3:1e-4", "none:3:1e-4"] {
            assert_eq!(text.parse::<PhaseConfig>().unwrap_err().kind(), Kind::Usage, "{text}");
        }
    }

    #[test]
    fn patterns_match_names_and_the_layers_they_are_in() {
        let matches = |pattern: &str, name: &str| pattern.parse::<Pattern>().unwrap().matches(name);
        for pattern in
            ["layer1", "layer1.*", "layer?", "*", "*.bn1", "layer1.0.bn1.weight", "*weight", "l*1.0", "*.bn?*"]
        {
            assert!(matches(pattern, "layer1.0.bn1.weight"), "{pattern}");
        }
        for pattern in ["layer", "layer2", "*.bias", "bn1", "layer1.0.bn1.weights", "?", "layer1."] {
            assert!(!matches(pattern, "layer1.0.bn1.weight"), "{pattern}");
        }
    }

    #[test]
    fn the_last_rule_counts_and_vectors_may_be_spared() {
        let rules = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Rule>>();
        let config = TrainConfig { optimizer: OptimizerKind::AdamW, weight_decay: 0.05, ..TrainConfig::default() };
        let tune = FineTune {
            rates: rules(&["*=0.1", "fc=1", "layer4=0.5"]),
            decays: rules(&["fc=0.001"]),
            spare_vectors: true,
            ..FineTune::default()
        };
        let group = |name: &str, vector| {
            let group = tune.group(&config.optimizer(), name, vector);
            (group.rate, group.weight_decay)
        };
        assert_eq!(group("conv1.weight", false), (0.1, 0.05));
        assert_eq!(group("layer4.0.bn1.weight", true), (0.5, 0.0));
        assert_eq!(group("fc.bias", true), (1.0, 0.001));
        for bad in ["fc", "fc=", "=1", "fc=-1", "fc=inf"] {
            assert_eq!(bad.parse::<Rule>().unwrap_err().kind(), Kind::Usage, "{bad}");
        }
    }
}
