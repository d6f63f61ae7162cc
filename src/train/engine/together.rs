//! What the ranks of a run do together: they check that they are to do the same, share the steps and what is scored, and
//! agree on what they saw. A process that is alone does nothing of it.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::Engine;
use super::start::Resumed;
use crate::data::{Dataset, SplitAssignment};
use crate::error::{Error, Kind, Result};
use crate::gpu::Choices;
use crate::parallel::Team;
use crate::train::TrainConfig;
use crate::train::checkpoint::Checkpoint;
use crate::train::claim::Claim;
use crate::train::diagnosis::Lesson;
use crate::train::phase::Workplace;
use crate::train::run_folder::RunFolder;
use crate::train::session::{Portion, StepResult};
use crate::train::shared::{Signals, garbled, portion};
use crate::weights::Tensors;

/// What a rank is about to train on, as it compares it with the others.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
struct Plan {
    program: String,
    configuration: String,
    dataset: String,
    split: String,
}

fn hash_of(value: &impl Serialize) -> Result<String> {
    Ok(blake3::hash(&serde_json::to_vec(value).map_err(garbled)?).to_hex().to_string())
}

/// Refuses ranks that are about to do something else than rank 0.
///
/// # Errors
/// [`Kind::Usage`], which says which rank differs, and in what.
pub(super) fn compare(
    team: &Team,
    config: &TrainConfig,
    dataset: &Dataset,
    split: &SplitAssignment,
    contents: &str,
) -> Result<()> {
    if team.is_alone() {
        return Ok(());
    }
    let samples: Vec<_> = dataset.samples.iter().map(|s| (&s.id, s.label, &s.group, &s.more)).collect();
    let plan = Plan {
        program: [env!("CARGO_PKG_VERSION"), env!("LESION_GPU_SOURCES")].join(" of sources "),
        configuration: hash_of(config)?,
        dataset: hash_of(&(&dataset.classes, samples, contents))?,
        split: hash_of(&(&split.train, &split.val, &split.test))?,
    };
    let plans = team.exchange("what is trained", serde_json::to_vec(&plan).map_err(garbled))?;
    let plans = plans.iter().map(|plan| serde_json::from_slice(plan)).collect::<Result<Vec<Plan>, _>>();
    let plans = plans.map_err(garbled)?;
    match difference(&plans) {
        None => Ok(()),
        Some((rank, what)) => Err(Error::new(Kind::Usage, format!("rank {rank} has another {what} than rank 0"))
            .next("start all ranks with the same program, flags and data")),
    }
}

/// The first rank that would do something else than rank 0, and what of it is another.
fn difference(plans: &[Plan]) -> Option<(usize, &'static str)> {
    let (first, others) = plans.split_first()?;
    others.iter().zip(1..).find_map(|(plan, rank)| {
        let pairs = [
            ("build of lesion-gpu", &plan.program, &first.program),
            ("configuration", &plan.configuration, &first.configuration),
            ("dataset", &plan.dataset, &first.dataset),
            ("split", &plan.split, &first.split),
        ];
        pairs.into_iter().find(|(_, own, first)| own != first).map(|(what, ..)| (rank, what))
    })
}

/// The choices of rank 0 for all: the same products with the same kernels. What another device cannot do counts as none.
pub(super) fn share_choices(team: &Team, make: impl FnOnce() -> Result<Choices>) -> Result<Choices> {
    if team.is_alone() {
        return make();
    }
    let sent = team.of_first("the choice of kernels", || serde_json::to_vec(&make()?).map_err(garbled))?;
    serde_json::from_slice(&sent).map_err(garbled)
}

/// The folder that rank 0 makes, on all ranks; its lock on rank 0.
pub(super) fn share_folder(
    team: &Team,
    make: impl FnOnce() -> Result<(RunFolder, Claim)>,
) -> Result<(RunFolder, Option<Claim>)> {
    let mut made = None;
    let path = team.of_first("the run folder", || {
        let (folder, lock) = make()?;
        let path = serde_json::to_vec(folder.path()).map_err(garbled)?;
        made = Some((folder, Some(lock)));
        Ok(path)
    })?;
    match made {
        Some(made) => Ok(made),
        None => Ok((RunFolder::of_another(&serde_json::from_slice::<PathBuf>(&path).map_err(garbled)?), None)),
    }
}

/// How a user goes on with a run.
pub(super) fn how_to_go_on(team: &Team, folder: &Path) -> String {
    let command = format!("lesion-gpu train --resume {}", folder.display());
    match team.size() {
        1 => format!("continue with `{command}`"),
        ranks => format!("continue with `mpirun -n {ranks} {command}`"),
    }
}

/// What rank 0 knows of the run that goes on, on all ranks: they need not see its folder.
pub(super) fn share_resumed(team: &Team, find: impl FnOnce() -> Result<Resumed>) -> Result<Resumed> {
    if team.is_alone() {
        return find();
    }
    let mut found = None;
    let sent = team.of_first("the run that goes on", || {
        let resumed = find()?;
        let head = (resumed.folder.path(), &resumed.choices, resumed.features_each_step, &resumed.taken);
        let head = serde_json::to_vec(&head).map_err(garbled)?;
        let bytes = [&(head.len() as u64).to_le_bytes()[..], &head, &resumed.checkpoint.bytes()?].concat();
        found = Some(resumed);
        Ok(bytes)
    })?;
    if let Some(resumed) = found {
        return Ok(resumed);
    }
    let cut = || Error::new(Kind::Internal, "rank 0 is not understood");
    let (length, rest) = sent.split_first_chunk::<8>().ok_or_else(cut)?;
    let (head, checkpoint) = rest.split_at_checked(u64::from_le_bytes(*length) as usize).ok_or_else(cut)?;
    let (path, choices, features_each_step, taken): (PathBuf, _, _, _) =
        serde_json::from_slice(head).map_err(garbled)?;
    let (folder, checkpoint) = (RunFolder::of_another(&path), Checkpoint::parse(checkpoint)?);
    Ok(Resumed { folder, lock: None, checkpoint, is_older: false, choices, features_each_step, taken })
}

impl Engine<'_> {
    /// One step on a lesson, at this learning rate; returns the result of this or of an earlier one. `since` is when the last
    /// checkpoint was written.
    pub(super) fn learn(&mut self, lesson: &Lesson, rate: f64, since: Option<Instant>) -> Result<Option<StepResult>> {
        let at = (self.progress.step, self.progress.epoch, rate);
        let rows = (&lesson.0, lesson.1.as_ref());
        let Some(portion) = self.portion(lesson)? else {
            return self.place.train.step_mixed(self.gpu, rows, at.0, at.1, at.2);
        };
        let wants = Signals {
            stop: self.interrupt.load(Ordering::Relaxed),
            checkpoint: since.is_some_and(|since| since.elapsed() >= self.checkpoint_every) && self.team.is_first(),
        };
        let Workplace { train, shared, .. } = &mut self.place;
        let shared = shared.as_mut();
        let shared = shared.ok_or_else(|| Error::new(Kind::Internal, "the ranks share no gradients"))?;
        let done = shared.step(self.gpu, train, rows, at, &portion, wants)?;
        self.signals = done.signals;
        Ok(Some(done.result))
    }

    /// Which part of the step this rank's lesson is; `None` for all of it.
    pub(super) fn portion(&self, (batch, partners): &Lesson) -> Result<Option<Portion>> {
        if self.team.is_alone() {
            return Ok(None);
        }
        let own = self.place.train.row_weights(batch, partners.as_ref());
        Ok(Some(portion(&self.team, &self.shares, self.config.batch, &own)?.0))
    }

    /// Whether the run is to stop behind this step.
    pub(super) fn stops(&self) -> bool {
        if self.team.is_alone() { self.interrupt.load(Ordering::Relaxed) } else { self.signals.stop }
    }

    /// Whether a checkpoint is due behind this step: the last was written at `since`.
    pub(super) fn is_due(&self, since: Instant) -> bool {
        if self.team.is_alone() { since.elapsed() >= self.checkpoint_every } else { self.signals.checkpoint }
    }

    /// A checkpoint that rank 0 reads.
    pub(super) fn read(&self, read: impl FnOnce(&RunFolder) -> Result<Checkpoint>) -> Result<Checkpoint> {
        if self.team.is_alone() {
            return read(&self.folder);
        }
        Checkpoint::parse(&self.team.of_first("a checkpoint", || read(&self.folder)?.bytes())?)
    }

    /// Checks that all ranks have come to the same weights: what they did with them was the same to the bit.
    pub(super) fn check_equal(&self, weights: &Tensors, optimizer: &Tensors) -> Result<()> {
        if self.team.is_alone() {
            return Ok(());
        }
        let mut hash = blake3::Hasher::new();
        for (name, tensor) in weights.iter().chain(optimizer) {
            hash.update(name.as_bytes());
            hash.update(bytemuck::cast_slice(tensor.data()));
        }
        let hashes = self.team.exchange("the weights", Ok(hash.finalize().as_bytes().to_vec()))?;
        match hashes.iter().position(|other| *other != hashes[0]) {
            None => Ok(()),
            Some(rank) => {
                let what =
                    format!("the weights of rank {rank} are not those of rank 0 after step {}", self.progress.step);
                Err(Error::new(Kind::Internal, what).at(self.folder.path().display()).next(
                    "its device computes otherwise in the optimizer: use ranks whose devices and drivers are alike",
                ))
            }
        }
    }

    /// What every rank has of its share of some samples, one behind the other.
    pub(super) fn put_together<T: bytemuck::Pod>(&self, own: Result<Vec<T>>) -> Result<Vec<T>> {
        if self.team.is_alone() {
            return own;
        }
        let all = self.team.exchange("what was scored", own.map(|own| bytemuck::cast_slice(&own).to_vec()))?;
        Ok(all.iter().flat_map(|rank| bytemuck::pod_collect_to_vec::<u8, T>(rank)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_of_a_rank_is_another_is_named() {
        let plan = |parts: [&str; 4]| {
            let [program, configuration, dataset, split] = parts.map(str::to_owned);
            Plan { program, configuration, dataset, split }
        };
        let same = plan(["a", "b", "c", "d"]);
        assert_eq!(difference(&[same.clone(), same.clone(), same.clone()]), None);
        for (i, what) in ["build of lesion-gpu", "configuration", "dataset", "split"].into_iter().enumerate() {
            let mut parts = ["a", "b", "c", "d"];
            parts[i] = "other";
            assert_eq!(difference(&[same.clone(), same.clone(), plan(parts), same.clone()]), Some((2, what)));
        }
    }
}
