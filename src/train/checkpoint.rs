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
use crate::weights::{Tensors, WeightFile, read_safetensors, write_safetensors};

/// The metadata key.
pub(super) const KEY: &str = "lesion-gpu.checkpoint";
/// Version of the metadata.
const FORMAT: u32 = 1;

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, Default)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Epochs done.
    pub epoch: u32,
    /// The best monitored value so far, the higher the better.
    pub best: Option<f64>,
    /// The epoch it was reached in, from 1.
    pub best_epoch: u32,
    /// The best monitored value of the running phase, which --patience waits for, and its epoch.
    #[serde(default)]
    pub best_of_phase: Option<(f64, u32)>,
    /// Sum over the steps of the running epoch: loss times images, correct images, images.
    pub epoch_sums: [f64; 3],
    /// Seconds spent training, over all sessions.
    pub seconds: f64,
    /// The phase, from 0, with the epochs and steps that were done before it.
    #[serde(default)]
    pub phase: PhaseStart,
    /// How the phase has come along with a learning rate that falls on plateaus.
    #[serde(default)]
    pub plateau: Plateau,
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

#[derive(Serialize, Deserialize)]
struct Metadata {
    format: u32,
    config: TrainConfig,
    classes: Vec<String>,
    progress: Progress,
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
        let metadata = Metadata {
            format: FORMAT,
            config: self.config.clone(),
            classes: self.classes.clone(),
            progress: self.progress,
        };
        let json = serde_json::to_string(&metadata)
            .map_err(|e| Error::new(Kind::Internal, format!("could not encode a checkpoint: {e}")))?;
        let mut file = WeightFile::default();
        file.metadata.insert(KEY.into(), json);
        file.tensors.extend(self.weights.clone());
        file.tensors.extend(self.optimizer.clone());
        write_safetensors(path, &file)
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`Kind::Io`], [`Kind::Weights`] for a file that is not safetensors, [`Kind::Checkpoint`] for one that is not a
    /// checkpoint or was made by a newer version.
    pub fn read(path: &Path) -> Result<Self> {
        let file = read_safetensors(path)?;
        let bad = |what: String| Error::new(Kind::Checkpoint, what).at(path.display());
        let json = file.metadata.get(KEY).ok_or_else(|| {
            bad("this weight file is not a checkpoint of lesion-gpu".into())
                .next("for bare weights say what they are: --model NAME --weights FILE")
        })?;
        let metadata: Metadata =
            serde_json::from_str(json).map_err(|e| bad(format!("the checkpoint's description is damaged: {e}")))?;
        if metadata.format != FORMAT {
            return Err(bad(format!("the checkpoint has format {}, and this version reads {FORMAT}", metadata.format))
                .next("use the version of lesion-gpu that made it"));
        }
        let (optimizer, weights) = file.tensors.into_iter().partition(|(name, _)| name.starts_with(STATE_PREFIX));
        let Metadata { config, classes, progress, .. } = metadata;
        Ok(Self { config, classes, progress, weights, optimizer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::HostTensor;

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
            weights,
            optimizer,
        };
        checkpoint.write(&path).unwrap();
        assert_eq!(Checkpoint::read(&path).unwrap(), checkpoint);
        std::fs::write(&path, b"nonsense").unwrap();
        assert_eq!(Checkpoint::read(&path).unwrap_err().kind(), Kind::Weights);
    }
}
