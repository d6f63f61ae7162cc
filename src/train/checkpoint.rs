//! Checkpoints: weights, optimizer state, progress and configuration in one safetensors file.
//!
//! Parameters have torchvision's names and layout, so other tools can read them; optimizer state is called
//! `optimizer.…`; the rest is JSON in the file's metadata.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::TrainConfig;
use super::plateau::Plateau;
use crate::error::{Error, Kind, Result};
use crate::optim::STATE_PREFIX;
use crate::weights::{Tensors, WeightFile, parse_safetensors, read_safetensors, sealed_bytes, write_atomically};

/// The metadata key.
pub(super) const KEY: &str = "lesion-gpu.checkpoint";
/// Version of the metadata.
const FORMAT: u32 = 1;

/// How far a run has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Epochs done.
    pub epoch: u32,
    /// The best monitored value so far, the higher the better.
    pub best: Option<f64>,
    /// The epoch it was reached in, from 1.
    pub best_epoch: u32,
    /// The monitored value of the running phase that --patience waits to be bettered, and its epoch.
    #[serde(default)]
    pub best_of_phase: Option<(f64, u32)>,
    /// Sum over the steps of the running epoch: loss times images, correct images, images.
    pub epoch_sums: [f64; 3],
    /// Seconds of the running epoch, over all sessions, and how many of them steps waited for their pictures.
    #[serde(default)]
    pub epoch_seconds: [f64; 2],
    /// Seconds spent training, over all sessions.
    pub seconds: f64,
    /// The phase, from 0, with the epochs and steps that were done before it.
    #[serde(default)]
    pub phase: PhaseStart,
    /// How the phase has come along with a learning rate that falls on plateaus.
    #[serde(default)]
    pub plateau: Plateau,
    /// The epochs whose weights are kept for being the best: monitored value and epoch, the best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<(f64, u32)>,
    /// Epochs that are not kept any more: their files are deleted once this is written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallen: Vec<u32>,
    /// Why phases ended early.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stopped: Vec<Stop>,
    /// When numbers were not finite any more, and the run went back to go on with a lower learning rate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub setbacks: Vec<Setback>,
}

/// A step that a run went back from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setback {
    /// The step, from 1.
    pub step: u64,
    /// The last step before, which it went on from.
    pub back_to: u64,
    /// The phase, from 0: the rates of others are not lowered.
    #[serde(default)]
    pub phase: usize,
    /// What was wrong.
    pub why: String,
}

/// Why a phase of a run ended before its last epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stop {
    /// The phase, from 1.
    pub phase: usize,
    /// The epoch after which it ended, from 1.
    pub epoch: u32,
    /// Why.
    pub why: String,
}

impl Progress {
    /// Takes the value of the latest epoch, the higher the better, among the best `count`: which then are kept, and which is
    /// not any more. Of equals the earlier stays.
    pub(super) fn rank(&mut self, value: f64, count: u32) {
        let at = self.kept.iter().position(|(kept, _)| value > *kept).unwrap_or(self.kept.len());
        self.kept.insert(at, (value, self.epoch));
        let fallen = self.kept.split_off(self.kept.len().min(count as usize));
        self.fallen = fallen.into_iter().map(|(_, epoch)| epoch).filter(|epoch| *epoch != self.epoch).collect();
    }
}

/// Where a phase of a run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct PhaseStart {
    /// Its number, from 0.
    pub number: usize,
    /// Epochs done before.
    pub epoch: u32,
    /// Steps done before.
    pub step: u64,
}

/// What every version's description has, however much else of it this one does not know.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

#[derive(Serialize, Deserialize)]
struct Metadata {
    format: u32,
    config: TrainConfig,
    classes: Vec<String>,
    progress: Progress,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
}

/// The configuration and the class names of the run that a weight file with this metadata is a checkpoint of, if it is one.
pub(super) fn run_in(metadata: &BTreeMap<String, String>) -> Option<(TrainConfig, Vec<String>)> {
    let metadata: Metadata = serde_json::from_str(metadata.get(KEY)?).ok()?;
    Some((metadata.config, metadata.classes))
}

/// The contents of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// The configuration of the run.
    pub config: TrainConfig,
    /// Class names in the order of the logits.
    pub classes: Vec<String>,
    /// How far the run had come.
    pub progress: Progress,
    /// What logits are divided by before their softmax, if it was fitted.
    pub temperature: Option<f64>,
    /// Parameters and running statistics, in torchvision's layout.
    pub weights: Tensors,
    /// Optimizer state, in the device's layout.
    pub optimizer: Tensors,
}

impl Checkpoint {
    /// Writes it atomically.
    ///
    /// # Errors
    /// [`Kind::Io`]; an older file is then still whole.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_atomically(path, &self.bytes()?)
    }

    /// The bytes of its file.
    pub(super) fn bytes(&self) -> Result<Vec<u8>> {
        let metadata = Metadata {
            format: FORMAT,
            config: self.config.clone(),
            classes: self.classes.clone(),
            progress: self.progress.clone(),
            temperature: self.temperature,
        };
        let json = serde_json::to_string(&metadata)
            .map_err(|e| Error::new(Kind::Internal, format!("could not encode a checkpoint: {e}")))?;
        let mut file = WeightFile::default();
        file.metadata.insert(KEY.into(), json);
        file.tensors.extend(self.weights.clone());
        file.tensors.extend(self.optimizer.clone());
        sealed_bytes(&file)
    }

    /// What is left of it where it is kept for its weights.
    pub(super) fn without_optimizer(&self) -> Self {
        Self { optimizer: Tensors::new(), ..self.clone() }
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`Kind::Io`], [`Kind::Weights`] for a damaged file, [`Kind::Checkpoint`] for one that is not a checkpoint or has the
    /// format of another version.
    pub fn read(path: &Path) -> Result<Self> {
        Self::of_file(read_safetensors(path)?).map_err(|e| e.at(path.display()))
    }

    /// That of the bytes of a file: see [`bytes`](Self::bytes).
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        Self::of_file(parse_safetensors(bytes)?)
    }

    fn of_file(file: WeightFile) -> Result<Self> {
        let bad = |what: String| Error::new(Kind::Checkpoint, what);
        let json = file.metadata.get(KEY).ok_or_else(|| {
            bad("this weight file is not a checkpoint of lesion-gpu".into())
                .next("for bare weights say what they are: --model NAME --weights FILE")
        })?;
        let damaged =
            |e: serde_json::Error| Error::new(Kind::Weights, format!("the checkpoint's description is damaged: {e}"));
        let Version { format } = serde_json::from_str(json).map_err(damaged)?;
        if format != FORMAT {
            return Err(bad(format!("the checkpoint has format {format}, and this version reads {FORMAT}"))
                .next("use the version of lesion-gpu that made it"));
        }
        let metadata: Metadata = serde_json::from_str(json).map_err(damaged)?;
        let (optimizer, weights) = file.tensors.into_iter().partition(|(name, _)| name.starts_with(STATE_PREFIX));
        let Metadata { config, classes, progress, temperature, .. } = metadata;
        Ok(Self { config, classes, progress, temperature, weights, optimizer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::HostTensor;

    #[test]
    fn the_best_epochs_are_kept_and_the_others_fall() {
        let mut progress = Progress::default();
        let mut see = |value| {
            progress.epoch += 1;
            progress.rank(value, 2);
            (progress.kept.iter().map(|(_, epoch)| *epoch).collect::<Vec<_>>(), progress.fallen.clone())
        };
        assert_eq!(see(0.5), (vec![1], vec![]));
        assert_eq!(see(0.4), (vec![1, 2], vec![]));
        assert_eq!(see(0.4), (vec![1, 2], vec![]), "of equals the earlier stays");
        assert_eq!(see(0.6), (vec![4, 1], vec![2]));
        assert_eq!(see(0.55), (vec![4, 5], vec![1]));
        assert_eq!(see(0.1), (vec![4, 5], vec![]));
    }

    #[test]
    fn round_trips_to_the_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last.safetensors");
        let weights = Tensors::from([("fc.weight".into(), HostTensor::new([2], vec![0.1, f32::MIN_POSITIVE]))]);
        let optimizer = Tensors::from([("optimizer.m.fc.weight".into(), HostTensor::full([2], 1e-30))]);
        let progress =
            Progress { step: 7, best: Some(0.1 + 0.2), epoch_sums: [1.0 / 3.0, 2.0, 3.0], ..Progress::default() };
        let checkpoint = Checkpoint {
            config: TrainConfig::default(),
            classes: vec!["a".into(), "b".into()],
            progress,
            temperature: Some(1.0 / 3.0),
            weights,
            optimizer,
        };
        checkpoint.write(&path).unwrap();
        assert_eq!(Checkpoint::read(&path).unwrap(), checkpoint);
        std::fs::write(&path, b"nonsense").unwrap();
        assert_eq!(Checkpoint::read(&path).unwrap_err().kind(), Kind::Weights);
    }
}
