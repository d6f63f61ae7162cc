//! From what a configuration says is trained to the names of what is frozen, and back to words.

use std::collections::BTreeSet;

use super::TrainConfig;
use super::fine_tune::{BatchNormMode, FineTune, Pattern, Trained};
use crate::autograd::Tape;
use crate::error::{Error, Kind, Result};
use crate::models::Model;
use crate::nn::{Frozen, Mode, Net, Parameter};
use crate::tensor::TensorType;

/// A configuration's network, with what of it is frozen.
#[derive(Debug, Clone)]
pub struct Network {
    /// All parameters, in forward order.
    pub parameters: Vec<Parameter>,
    /// What of them stays as it is.
    pub frozen: Frozen,
}

impl Network {
    /// Traces the model of `config` for its parameters, and finds what it freezes.
    ///
    /// # Errors
    /// As [`frozen`]; [`Kind::Shape`] if the images are too small; [`Kind::Usage`] for a head that makes no sense.
    pub fn of(model: Model, config: &TrainConfig, outputs: usize) -> Result<Self> {
        let mut tape = Tape::new();
        let [rows, columns] = config.size.rows_columns();
        let x = tape.input("images", TensorType::f32([1, rows, columns, 3]));
        let mut net = Net::new(&mut tape, Mode::Eval, 0);
        let features = model.features(&mut net, x)?;
        model.classify(&mut net, features, config.head.head().as_ref(), outputs)?;
        let mut parameters = net.into_parameters();
        let frozen = frozen(model, &parameters, &config.fine_tune.train, &config.fine_tune)?;
        for p in &mut parameters {
            p.frozen = if p.trainable { frozen.parameters.contains(&p.name) } else { frozen.norms.contains(p.layer()) };
        }
        Ok(Self { parameters, frozen })
    }

    /// Whether training leaves the whole backbone as it is, running statistics and all.
    pub fn backbone_is_frozen(&self) -> bool {
        self.parameters.iter().all(|p| p.head || p.frozen)
    }
}

/// The layers of a network that have parameters, in forward order. A batch-norm is one, and so is a convolution.
fn layers(parameters: &[Parameter]) -> Vec<&str> {
    let mut layers: Vec<&str> = vec![];
    for layer in parameters.iter().map(Parameter::layer) {
        if !layers.contains(&layer) {
            layers.push(layer);
        }
    }
    layers
}

fn is_norm(parameters: &[Parameter], layer: &str) -> bool {
    parameters.iter().any(|p| !p.trainable && p.layer() == layer)
}

/// What of a network is frozen: `parameters` are all it has, in forward order.
///
/// # Errors
/// [`Kind::Usage`] if there is no such stage, not that many layers, if a pattern matches nothing or nothing is left to train.
pub fn frozen(model: Model, parameters: &[Parameter], train: &Trained, tune: &FineTune) -> Result<Frozen> {
    let backbone: Vec<&str> = layers(parameters).into_iter().filter(|l| !is_head(parameters, l)).collect();
    let mut parts: BTreeSet<&str> = match train {
        Trained::All => BTreeSet::new(),
        Trained::Head => backbone.iter().copied().collect(),
        Trained::Last(count) => {
            let below = backbone.len().checked_sub(*count).ok_or_else(|| too_many("last:", *count, &backbone))?;
            backbone[..below].iter().copied().collect()
        }
        Trained::From(stage) => backbone[..first_of(model, stage, &backbone)?].iter().copied().collect(),
    };
    if tune.freeze_first > backbone.len() {
        return Err(too_many("--freeze-first ", tune.freeze_first, &backbone));
    }
    parts.extend(&backbone[..tune.freeze_first]);
    for pattern in tune.freeze.iter().chain(tune.rates.iter().chain(&tune.decays).map(|rule| &rule.pattern)) {
        check_pattern(pattern, parameters)?;
    }
    let named = |p: &Parameter| tune.freeze.iter().any(|pattern| pattern.matches(&p.name));
    let still = parameters.iter().filter(|p| p.trainable && (parts.contains(p.layer()) || named(p)));
    let mut all = Frozen { parameters: still.map(|p| p.name.clone()).collect(), ..Frozen::default() };
    let norms = layers(parameters).into_iter().filter(|layer| is_norm(parameters, layer));
    for norm in norms {
        let own: Vec<&Parameter> = parameters.iter().filter(|p| p.trainable && p.layer() == norm).collect();
        let still = own.iter().all(|p| all.parameters.contains(&p.name));
        if tune.batch_norm == BatchNormMode::Frozen || (tune.batch_norm == BatchNormMode::Auto && still) {
            all.parameters.extend(own.iter().map(|p| p.name.clone()));
            all.norms.insert(norm.to_owned());
        }
    }
    if parameters.iter().filter(|p| p.trainable).all(|p| all.parameters.contains(&p.name)) {
        return Err(Error::new(Kind::Usage, "everything is frozen: there is nothing to train")
            .next("leave out a --freeze, or use a smaller --freeze-first"));
    }
    Ok(all)
}

fn is_head(parameters: &[Parameter], layer: &str) -> bool {
    parameters.iter().any(|p| p.head && p.layer() == layer)
}

fn too_many(what: &str, count: usize, backbone: &[&str]) -> Error {
    Error::new(Kind::Usage, format!("{what}{count}: the backbone has {} layers with parameters", backbone.len()))
}

/// The number of the first layer of a stage.
fn first_of(model: Model, stage: &str, backbone: &[&str]) -> Result<usize> {
    let stages = model.stages();
    let number = stage.parse::<usize>().ok().or_else(|| stages.iter().position(|(name, _)| name == stage));
    let first = number.and_then(|number| stages.get(number)).map(|(_, first)| first);
    let first = first.ok_or_else(|| {
        let names: Vec<&str> = stages.iter().map(|(name, _)| name.as_str()).collect();
        Error::new(Kind::Usage, format!("{} has no stage '{stage}'", model.name()))
            .next(format!("its stages are {}, numbered from 0", names.join(", ")))
    })?;
    let within =
        |layer: &str| layer.strip_prefix(first.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    backbone
        .iter()
        .position(|layer| within(layer))
        .ok_or_else(|| Error::new(Kind::Internal, format!("stage '{stage}' of {} has no layers", model.name())))
}

fn check_pattern(pattern: &Pattern, parameters: &[Parameter]) -> Result<()> {
    if parameters.iter().any(|p| pattern.matches(&p.name)) {
        return Ok(());
    }
    let all: Vec<&Parameter> = parameters.iter().collect();
    Err(Error::new(Kind::Usage, format!("the pattern '{}' matches nothing in this network", pattern.as_str()))
        .next(format!("its layers are {}", names(&all, parameters))))
}

/// What is trained and what is frozen, in words.
pub(super) fn describe(parameters: &[Parameter]) -> String {
    let of = |trained: bool| -> Vec<&Parameter> {
        parameters.iter().filter(|p| p.trainable && p.is_trained() == trained).collect()
    };
    let values = |some: &[&Parameter]| some.iter().map(|p| p.count()).sum::<usize>();
    let (trained, still) = (of(true), of(false));
    let statistics: Vec<&Parameter> = parameters.iter().filter(|p| !p.trainable).collect();
    let norms = match statistics.iter().filter(|p| p.frozen).count() {
        _ if statistics.is_empty() => "",
        0 if still.is_empty() => ", batch-norm by the statistics of the batch",
        0 => ", batch-norm by the statistics of the batch, frozen or not",
        n if n == statistics.len() => ", batch-norm by running statistics",
        _ => ", frozen batch-norm by running statistics",
    };
    if still.is_empty() {
        return format!("everything ({} values){norms}", values(&trained));
    }
    format!(
        "{} ({} values); frozen: {} ({} values){norms}",
        names(&trained, parameters),
        values(&trained),
        names(&still, parameters),
        values(&still)
    )
}

/// Names of `some` of `all` parameters, in as few words as say it: a layer stands for all that is in it, and numbered
/// neighbours for those between them.
fn names(some: &[&Parameter], all: &[Parameter]) -> String {
    /// Longer lists are cut.
    const MOST: usize = 16;
    let chosen: BTreeSet<&str> = some.iter().map(|p| p.name.as_str()).collect();
    let within =
        |name: &str, layer: &str| name.strip_prefix(layer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let whole = |layer: &str| {
        all.iter().filter(|p| p.trainable && within(&p.name, layer)).all(|p| chosen.contains(p.name.as_str()))
    };
    let mut found: Vec<&str> = vec![];
    for p in some {
        let ends = p.name.match_indices('.').map(|(at, _)| at).chain([p.name.len()]);
        let layer = ends.map(|end| &p.name[..end]).find(|layer| whole(layer)).unwrap_or(&p.name);
        if found.last() != Some(&layer) {
            found.push(layer);
        }
    }
    let number = |name: &str| -> Option<(String, u64)> {
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        Some((stem.to_owned(), name[stem.len()..].parse().ok()?))
    };
    let mut runs: Vec<(&str, &str)> = vec![];
    for name in found {
        let follows = |last: &str| match (number(last), number(name)) {
            (Some((a, i)), Some((b, j))) => a == b && j == i + 1,
            _ => false,
        };
        match runs.last_mut() {
            Some((_, last)) if follows(last) => *last = name,
            _ => runs.push((name, name)),
        }
    }
    let mut words: Vec<String> = (runs.iter().take(MOST))
        .map(|(first, last)| if first == last { (*first).to_owned() } else { format!("{first}-{last}") })
        .collect();
    if runs.len() > MOST {
        words.push(format!("{} more", runs.len() - MOST));
    }
    words.join(", ")
}
