//! The run folder: everything a run leaves behind. It is never overwritten.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::TrainConfig;
use super::checkpoint::{Checkpoint, Progress};
use super::claim::Claim;
use super::table::Table;
use crate::data::{Dataset, Sample, Split, SplitAssignment, UNUSED, csv_of, csv_of_split};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Choices, Gpu};
use crate::weights::{is_unfinished, remove_if_there, sweep, write_atomically, write_keeping};

/// What a run writes before its first checkpoint.
const FIRST_FILES: [&str; 8] = [
    "training.lock",
    "config.toml",
    "environment.json",
    "split.csv",
    "skipped.csv",
    "steps.csv",
    "results.csv",
    "weights",
];

/// A folder with `config.toml`, `environment.json`, `split.csv`, `steps.csv`, `results.csv`, `metrics.json`, `test.csv` and
/// `weights/{best,last}.safetensors`, and weights of epochs that were to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFolder {
    path: PathBuf,
    /// Whether it is that of another rank, which alone writes there: then nothing is.
    anothers: bool,
}

impl RunFolder {
    /// Checks that a folder for a new run is free. That of a run which never came to a checkpoint is: there is nothing to lose
    /// in it.
    ///
    /// # Errors
    /// [`Kind::Checkpoint`] if it exists and holds anything else.
    pub fn check_free(path: &Path) -> Result<()> {
        let occupied = std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
        if (!occupied && !path.is_file()) || Self::is_still_born(path) {
            return Ok(());
        }
        Err(Error::new(Kind::Checkpoint, "the run folder exists, and runs are never overwritten")
            .at(path.display())
            .next("choose another --run, or continue this one with --resume"))
    }

    /// Whether a folder holds what a run writes before its first checkpoint and nothing else. A configuration that nothing of a
    /// run lies beside is somebody's own.
    fn is_still_born(path: &Path) -> bool {
        let has = |name: &str| path.join(name).exists();
        if has("config.toml") && !has("environment.json") && !has("training.lock") {
            return false;
        }
        let all = |folder: &Path, known: &dyn Fn(&OsStr) -> bool| {
            std::fs::read_dir(folder)
                .is_ok_and(|mut entries| entries.all(|entry| entry.is_ok_and(|entry| known(&entry.file_name()))))
        };
        all(path, &|name| FIRST_FILES.iter().any(|first| name == *first) || is_unfinished(name))
            && all(&path.join("weights"), &is_unfinished)
    }

    /// Checks that a new folder can be made at `path`, before data are prepared for it.
    ///
    /// # Errors
    /// [`Kind::Io`] if nothing can be written there.
    pub fn check_writable(path: &Path) -> Result<()> {
        let there = path.ancestors().find(|place| place.as_os_str().is_empty() || place.exists());
        let there = there.filter(|place| !place.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // A file without a name, which is gone with its handle.
        let written = tempfile::tempfile_in(there).map(drop);
        written.map_err(|e| Error::io("write to the folder of the run", path, &e))
    }

    /// Makes a new folder: `path`, or the next free `runs/MODEL-NNN` under `root`.
    ///
    /// # Errors
    /// [`Kind::Checkpoint`] unless [`Self::check_free`], [`Kind::Io`].
    pub fn create(path: Option<&Path>, root: &Path, model: &str) -> Result<Self> {
        let path = match path {
            Some(path) => {
                Self::check_free(path)?;
                std::fs::create_dir_all(path).map_err(|e| Error::io("create the run folder", path, &e))?;
                path.to_owned()
            }
            None => {
                std::fs::create_dir_all(root).map_err(|e| Error::io("create the folder of runs", root, &e))?;
                let mut number = 1;
                loop {
                    let path = root.join(format!("{model}-{number:03}"));
                    // Making a folder fails if another process was first: then the next number is tried.
                    match std::fs::create_dir(&path) {
                        Ok(()) => break path,
                        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
                        Err(e) => return Err(Error::io("create the run folder", &path, &e)),
                    }
                }
            }
        };
        let weights = path.join("weights");
        std::fs::create_dir_all(&weights).map_err(|e| Error::io("create a folder", &weights, &e))?;
        Ok(Self { path, anothers: false })
    }

    /// The folder that rank 0 of a run writes: nothing is written there, nor need it be there.
    pub(super) fn of_another(path: &Path) -> Self {
        Self { path: path.to_owned(), anothers: true }
    }

    /// An existing run.
    ///
    /// # Errors
    /// [`Kind::Checkpoint`] if there is no configuration in it.
    pub fn open(path: &Path) -> Result<Self> {
        if path.join("config.toml").is_file() {
            return Ok(Self { path: path.to_owned(), anothers: false });
        }
        Err(Error::new(Kind::Checkpoint, "this is not a run folder: there is no config.toml in it")
            .at(path.display())
            .next("give a folder made by `lesion-gpu train`"))
    }

    /// The run that `path` is or, as a checkpoint in its folder of weights, belongs to.
    pub fn around(path: &Path) -> Option<Self> {
        let path = std::fs::canonicalize(path).ok()?;
        let checkpoint = || path.parent().filter(|folder| folder.ends_with("weights")).and_then(Path::parent);
        let folder = if path.is_dir() { Some(path.as_path()) } else { checkpoint() };
        folder.and_then(|folder| Self::open(folder).ok())
    }

    /// The checkpoint that `path` stands for: that file, or the best of that run.
    ///
    /// # Errors
    /// [`Kind::Checkpoint`] for a folder that is no run, or has no best checkpoint yet.
    pub fn checkpoint_of(path: &Path) -> Result<PathBuf> {
        if !path.is_dir() {
            return Ok(path.to_owned());
        }
        let file = Self::open(path)?.best();
        if file.is_file() {
            return Ok(file);
        }
        Err(Error::new(Kind::Checkpoint, "the run has no best checkpoint yet")
            .at(file.display())
            .next("let it finish an epoch, or name weights/last.safetensors"))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The checkpoint of the best epoch.
    pub fn best(&self) -> PathBuf {
        self.path.join("weights").join("best.safetensors")
    }

    /// The checkpoint of the last epoch.
    pub fn last(&self) -> PathBuf {
        self.path.join("weights").join("last.safetensors")
    }

    /// The weights of an epoch, from 1, if they were kept.
    pub fn epoch(&self, epoch: u32) -> PathBuf {
        self.path.join("weights").join(format!("epoch-{epoch:04}.safetensors"))
    }

    /// The checkpoint that the running epoch began with, of a run that may go back to it.
    pub fn start_of_epoch(&self) -> PathBuf {
        self.path.join("weights").join("epoch.safetensors")
    }

    /// Whether there is a checkpoint to go on from, if it is whole.
    pub fn has_begun(&self) -> bool {
        is_there(&self.last()) || is_there(&self.previous())
    }

    /// The checkpoint before the last, while the run goes on.
    pub fn previous(&self) -> PathBuf {
        self.path.join("weights").join("previous.safetensors")
    }

    /// Where the run has come to: its last checkpoint that is whole. Where that is not the last one that was written, also a
    /// sentence that says so. One that is not damaged, but of another version or on a disk that does not give it, is an error:
    /// what is older is no substitute for it.
    ///
    /// # Errors
    /// [`Kind::Checkpoint`] if it stopped before its first checkpoint, is finished and the last one is gone, or was written by
    /// another version; [`Kind::Io`], which names one that can be read; where none is whole, the last one's of
    /// [`Checkpoint::read`].
    pub fn checkpoint(&self) -> Result<(Checkpoint, Option<String>)> {
        let mut damaged: Option<Error> = None;
        // What came after the best is not done again where it is done.
        let finished = self.file("metrics.json").is_file();
        let others = if finished { vec![] } else { vec![self.previous(), self.best()] };
        for path in [self.last()].into_iter().chain(others).filter(|path| is_there(path)) {
            match Checkpoint::read(&path) {
                Ok(checkpoint) if path == self.last() => return Ok((checkpoint, None)),
                Ok(checkpoint) => {
                    let why = damaged.map_or("is missing".to_owned(), |e| format!("cannot be used ({})", e.what()));
                    let last = self.last();
                    let note = format!(
                        "{} {why}: going on from {}, of step {}",
                        last.display(),
                        path.display(),
                        checkpoint.progress.step
                    );
                    return Ok((checkpoint, Some(note)));
                }
                Err(e) if e.kind() == Kind::Weights => {
                    damaged.get_or_insert(e);
                }
                Err(e) if e.kind() == Kind::Io => {
                    let other = self.whole([self.previous(), self.best()]).filter(|_| !finished);
                    return Err(match other {
                        Some((at, other)) => e.next(format!(
                            "see to it that it can be read; or delete it, and the run goes on from {}, of step {}",
                            other.display(),
                            at.step
                        )),
                        None => e,
                    });
                }
                Err(e) => return Err(e),
            }
        }
        Err(damaged.unwrap_or_else(|| match finished {
            true => Error::new(Kind::Checkpoint, "the run is finished, and its last checkpoint is gone")
                .at(self.last().display())
                .next("start a new run from weights/best.safetensors with --weights"),
            false => Error::new(Kind::Checkpoint, "the run stopped before its first checkpoint")
                .at(self.path.display())
                .next("start it again: --run may name this folder"),
        }))
    }

    /// The checkpoint of the best epoch of a run that has come to the end of its training. Where that is damaged or gone, another
    /// with the same weights, and a sentence that says so.
    ///
    /// # Errors
    /// Where there is no other, [`Kind::Checkpoint`] if it is gone, and those of [`Checkpoint::read`].
    pub(super) fn read_best(&self, progress: &Progress) -> Result<(Checkpoint, Option<String>)> {
        let best = self.best();
        let error = match Checkpoint::read(&best) {
            Ok(checkpoint) => return Ok((checkpoint, None)),
            Err(_) if !is_there(&best) => {
                Error::new(Kind::Checkpoint, "the checkpoint of the best epoch is gone").at(best.display())
            }
            Err(e) if e.kind() == Kind::Weights => e,
            Err(e) => return Err(e),
        };
        let epoch = progress.best_epoch;
        let same = |checkpoint: &Checkpoint| checkpoint.progress.epoch == epoch;
        // The last one is of the end of the last epoch, as the training is.
        let candidates = [self.last(), self.epoch(epoch)].into_iter();
        let mut others = candidates.filter_map(|path| Some((Checkpoint::read(&path).ok().filter(same)?, path)));
        match others.next() {
            Some((checkpoint, path)) => {
                let (best, path, why) = (best.display(), path.display(), error.what());
                Ok((checkpoint, Some(format!("{best} cannot be used ({why}): {path} is of the same epoch, and taken"))))
            }
            None => Err(error.next(format!(
                "the training is done: `lesion-gpu eval {}` scores its last checkpoint",
                self.last().display()
            ))),
        }
    }

    /// Reads the checkpoint that `path` stands for, as [`Self::checkpoint_of`].
    ///
    /// # Errors
    /// Those of [`Self::checkpoint_of`] and of [`Checkpoint::read`]; of one that is damaged or cannot be read, the error names
    /// another of the run that is whole.
    pub fn read_checkpoint_of(path: &Path) -> Result<Checkpoint> {
        let file = Self::checkpoint_of(path)?;
        Checkpoint::read(&file).map_err(|e| {
            let whole = Self::around(&file).and_then(|run| run.whole([run.best(), run.last(), run.previous()]));
            match whole {
                Some((at, other)) if matches!(e.kind(), Kind::Weights | Kind::Io) => {
                    e.next(format!("{} is whole, after epoch {}: name it instead", other.display(), at.epoch))
                }
                _ => e,
            }
        })
    }

    /// The first of checkpoints that is whole, with where the run was.
    fn whole<const N: usize>(&self, checkpoints: [PathBuf; N]) -> Option<(Progress, PathBuf)> {
        checkpoints.into_iter().find_map(|path| Some((Checkpoint::read(&path).ok()?.progress, path)))
    }

    /// Writes the checkpoint of the last step; the one before is kept until the run is finished.
    pub(super) fn keep_last(&self, checkpoint: &Checkpoint) -> Result<()> {
        if self.anothers {
            return Ok(());
        }
        write_keeping(&self.last(), &self.previous(), &checkpoint.bytes()?)
    }

    /// Writes a checkpoint of the last epoch, of the best if it is that, and the weights of the epoch alone if these are to
    /// be `kept`. The last comes last: if it is never written, a resumed run does the epoch again. Then the files of epochs
    /// that this one has driven out are deleted.
    pub(super) fn keep(&self, checkpoint: &Checkpoint, best: bool, kept: bool) -> Result<()> {
        if self.anothers {
            return Ok(());
        }
        if kept {
            checkpoint.without_optimizer().write(&self.epoch(checkpoint.progress.epoch))?;
        }
        let bytes = checkpoint.bytes()?;
        if best {
            write_atomically(&self.best(), &bytes)?;
        }
        write_keeping(&self.last(), &self.previous(), &bytes)?;
        self.drop_epochs(&checkpoint.progress.fallen)
    }

    /// Deletes what is of use only while the run goes on.
    pub(super) fn finish(&self) -> Result<()> {
        if self.anothers {
            return Ok(());
        }
        [self.previous(), self.start_of_epoch()]
            .iter()
            .try_for_each(|path| remove_if_there(path, "delete a checkpoint that is of no use any more"))
    }

    /// Takes the run for this process, so that no other continues it at the same time, and deletes what a killed one was
    /// writing.
    ///
    /// # Errors
    /// [`Kind::Checkpoint`] if another process has it; [`Kind::Io`].
    pub(super) fn lock(&self) -> Result<Claim> {
        let claim = Claim::take(&self.file("training.lock"))?.ok_or_else(|| {
            Error::new(Kind::Checkpoint, "another process is training this run")
                .at(self.path.display())
                .next("wait until it is finished, or stop it")
        })?;
        sweep(&self.path)?;
        sweep(&self.path.join("weights"))?;
        Ok(claim)
    }

    /// Deletes the weights of epochs that are not kept any more.
    pub(super) fn drop_epochs(&self, epochs: &[u32]) -> Result<()> {
        if self.anothers {
            return Ok(());
        }
        epochs.iter().try_for_each(|&epoch| remove_if_there(&self.epoch(epoch), "delete the weights of an epoch"))
    }

    /// Writes the resolved configuration.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn write_config(&self, config: &TrainConfig) -> Result<()> {
        let text = toml::to_string(config)
            .map_err(|e| Error::new(Kind::Internal, format!("could not encode the configuration: {e}")))?;
        write_atomically(&self.file("config.toml"), text.as_bytes())
    }

    /// The resolved configuration.
    ///
    /// # Errors
    /// [`Kind::Io`], [`Kind::Checkpoint`] if it is damaged.
    pub fn config(&self) -> Result<TrainConfig> {
        let path = self.file("config.toml");
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read the configuration", &path, &e))?;
        toml::from_str(&text).map_err(|e| {
            Error::new(Kind::Checkpoint, format!("the run's configuration is damaged: {e}")).at(path.display())
        })
    }

    /// The scores of a finished run.
    ///
    /// # Errors
    /// [`Kind::Checkpoint`] if it is not finished or the file is damaged.
    pub fn metrics(&self) -> Result<Value> {
        let path = self.file("metrics.json");
        let bytes = std::fs::read(&path).map_err(|_| {
            Error::new(Kind::Checkpoint, "the run is not finished: there is no metrics.json in it")
                .at(self.path.display())
                .next(format!("finish it with `lesion-gpu train --resume {}`", self.path.display()))
        })?;
        serde_json::from_slice(&bytes)
            .map_err(|e| Error::new(Kind::Checkpoint, format!("the run's scores are damaged: {e}")).at(path.display()))
    }

    /// Writes what the run ran on, the tuned choices it was made with, whether it computes the features of a frozen backbone in
    /// each step, the most bytes that a phase takes on the device, and the hash of the pictures' `contents`.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn write_environment(
        &self,
        gpu: &Gpu,
        choices: &Choices,
        features_each_step: bool,
        taken: Option<&[usize]>,
        memory: u64,
        contents: &str,
    ) -> Result<()> {
        let mut all = device_of(gpu);
        all.extend(named([
            ("command", json!(std::env::args().collect::<Vec<_>>())),
            ("tuning", json!(choices)),
            ("features_each_step", json!(features_each_step)),
            ("shares", json!(taken)),
            ("memory", json!(memory)),
            ("contents", json!(contents)),
        ]));
        self.write_json("environment.json", &all)
    }

    /// What to say where a run goes on on another device than it began on, or opened otherwise, or with another build of this
    /// program: then its kernels may be others.
    ///
    /// # Errors
    /// [`Kind::Checkpoint`] if `environment.json` is damaged, [`Kind::Io`].
    pub fn another_device(&self, gpu: &Gpu) -> Result<Option<String>> {
        let (before, now) = (self.environment_json()?, device_of(gpu));
        // What an older version did not write down is not known to be another.
        let other = |keys: &[&str]| keys.iter().any(|key| before.get(key).is_some_and(|then| *then != now[*key]));
        let (was, is) = (|key: &str| before[key].as_str().unwrap_or_default(), gpu.adapter());
        let what = if other(&["adapter", "backend", "driver"]) {
            let device = |name: &str, driver: &str| format!("{name} (driver {driver})");
            format!("on {} and goes on on {}", device(was("adapter"), was("driver")), device(&is.name, &is.driver))
        } else if other(&["capabilities", "checked"]) {
            "with other features or limits of the device, or other checks in shaders".to_owned()
        } else if other(&["sources"]) {
            "with another build of this program".to_owned()
        } else {
            return Ok(None);
        };
        Ok(Some(format!("the run began {what}: it may not end equal to the bit to a run that nothing stopped")))
    }

    /// The tuned choices that the run was made with: none if it was made without.
    ///
    /// # Errors
    /// [`Kind::Checkpoint`] if `environment.json` is damaged, [`Kind::Io`].
    pub fn choices(&self) -> Result<Choices> {
        self.environment("tuning")
    }

    /// Whether the run began with the features of a frozen backbone computed in each step.
    ///
    /// # Errors
    /// As [`choices`](Self::choices).
    pub fn features_each_step(&self) -> Result<bool> {
        self.environment("features_each_step")
    }

    /// How many pieces of a batch each rank took, if not evenly many.
    ///
    /// # Errors
    /// As [`choices`](Self::choices).
    pub fn taken(&self) -> Result<Option<Vec<usize>>> {
        self.environment("shares")
    }

    /// What the run ran on.
    ///
    /// # Errors
    /// [`Kind::Checkpoint`] if `environment.json` is damaged, [`Kind::Io`].
    pub fn environment_json(&self) -> Result<Value> {
        let path = self.file("environment.json");
        let text = std::fs::read(&path).map_err(|e| Error::io("read what the run ran on", &path, &e))?;
        serde_json::from_slice(&text).map_err(|e| self.damaged_environment(&e))
    }

    /// An entry of `environment.json`; its default where there is none.
    fn environment<T: DeserializeOwned + Default>(&self, key: &str) -> Result<T> {
        let all = self.environment_json()?;
        let value = all.get(key).map_or(Ok(T::default()), |value| serde_json::from_value(value.clone()));
        value.map_err(|e| self.damaged_environment(&e))
    }

    fn damaged_environment(&self, e: &serde_json::Error) -> Error {
        Error::new(Kind::Checkpoint, format!("the run's environment is damaged: {e}"))
            .at(self.file("environment.json").display())
            .next("put \"tuning\": {} there to go on with the built-in choice of kernels")
    }

    /// Writes a JSON file.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn write_json(&self, name: &str, value: &impl Serialize) -> Result<()> {
        self.write(name, json_of(name, value)?.as_bytes())
    }

    /// Writes a file.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        if self.anothers {
            return Ok(());
        }
        write_atomically(&self.file(name), bytes)
    }

    /// The split as CSV, one line for each sample: `image_id,label,group,split`. Samples that balancing left out are in the
    /// part `unused`, and a leaky split is marked.
    ///
    /// # Errors
    /// [`Kind::Internal`] if it cannot be encoded.
    fn split_csv(dataset: &Dataset, split: &SplitAssignment) -> Result<Vec<u8>> {
        let parts = [(Split::Train, "train"), (Split::Val, "val"), (Split::Test, "test")];
        let used = parts.iter().flat_map(|&(part, name)| split.indices(part).iter().map(move |&i| (i, name)));
        let used = used.map(|(i, part)| (&dataset.samples[i], part));
        let rows = used.chain(dataset.unused.iter().map(|sample| (sample, UNUSED)));
        let row = |(sample, part): (&Sample, &str)| {
            [sample.id.as_str(), &dataset.classes[sample.label], &sample.group, part].map(str::to_owned)
        };
        let header = ["image_id", "label", "group", "split"].map(str::to_owned);
        csv_of_split(split.leak(dataset).is_some(), header, rows.map(row))
    }

    /// Writes the split.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn write_split(&self, dataset: &Dataset, split: &SplitAssignment) -> Result<()> {
        write_atomically(&self.file("split.csv"), &Self::split_csv(dataset, split)?)
    }

    /// Writes the faults whose samples were left out, `fault,place,what`, where there are any.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn write_skipped(&self, dataset: &Dataset) -> Result<()> {
        let faults = dataset.skipped.list();
        let rows = faults.iter().map(|fault| [fault.kind.name(), &fault.place, &fault.what]);
        match faults.is_empty() {
            // There may be one of a run that never came to a checkpoint.
            true => remove_if_there(&self.file("skipped.csv"), "delete an older list"),
            false => write_atomically(&self.file("skipped.csv"), &csv_of(["fault", "place", "what"], rows)?),
        }
    }

    /// Checks that the data still splits as it did when the run began.
    ///
    /// # Errors
    /// [`Kind::Checkpoint`] if not, [`Kind::Io`].
    pub fn check_split(&self, dataset: &Dataset, split: &SplitAssignment) -> Result<()> {
        let path = self.file("split.csv");
        let before = std::fs::read(&path).map_err(|e| Error::io("read the split of the run", &path, &e))?;
        // Runs from before there was a mark of leaks and a part of what is unused are as good.
        let used = |bytes: &[u8]| -> Vec<Vec<String>> {
            let rows = csv::Reader::from_reader(bytes).into_records().flatten();
            let row = |row: csv::StringRecord| row.iter().take(4).map(str::to_owned).collect::<Vec<_>>();
            rows.map(row).filter(|row| row.last().is_none_or(|part| part != UNUSED)).collect()
        };
        if used(&before) == used(&Self::split_csv(dataset, split)?) {
            return Ok(());
        }
        Err(Error::new(Kind::Checkpoint, "the dataset has changed since the run began: its split is not the same")
            .at(path.display())
            .next("restore the dataset, or start a new run from these weights with --weights"))
    }

    /// Checks that the pictures have the `contents` that they had when the run began, where that is known.
    ///
    /// # Errors
    /// [`Kind::Checkpoint`] if not, or if `environment.json` is damaged; [`Kind::Io`].
    pub fn check_contents(&self, contents: &str) -> Result<()> {
        let before: Option<String> = self.environment("contents")?;
        if before.is_none_or(|before| before == contents) {
            return Ok(());
        }
        Err(Error::new(Kind::Checkpoint, "the pictures or masks of the dataset are not those that the run began with")
            .at(self.path.display())
            .next("restore the dataset, or start a new run from these weights with --weights"))
    }

    /// The pictures that the run was trained on, by their ids.
    ///
    /// # Errors
    /// [`Kind::Checkpoint`] if `split.csv` is damaged, [`Kind::Io`].
    pub fn trained_on(&self) -> Result<HashSet<String>> {
        let path = self.file("split.csv");
        let bad = |e: csv::Error| {
            Error::new(Kind::Checkpoint, format!("the split of the run cannot be read: {e}")).at(path.display())
        };
        let mut ids = HashSet::new();
        for row in csv::Reader::from_path(&path).map_err(bad)?.into_records() {
            let row = row.map_err(bad)?;
            if row.get(3) == Some(&Split::Train.to_string()) {
                ids.extend(row.get(0).map(str::to_owned));
            }
        }
        Ok(ids)
    }

    /// Opens a [table](Table::open) of the run.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub(super) fn table(&self, name: &str, header: &str, keep: Option<Range<u64>>) -> Result<(Table, Option<String>)> {
        if self.anothers {
            return Ok((Table::default(), None));
        }
        Table::open(&self.file(name), header, keep)
    }
}

/// Whether there is something of that name, be it that it cannot be read.
fn is_there(path: &Path) -> bool {
    !matches!(std::fs::symlink_metadata(path), Err(e) if e.kind() == std::io::ErrorKind::NotFound)
}

/// What decides which kernels a run takes, but for the choices of tuning: the program, and the device as it was opened.
fn device_of(gpu: &Gpu) -> Map<String, Value> {
    let adapter = gpu.adapter();
    named([
        ("lesion_gpu", json!(env!("CARGO_PKG_VERSION"))),
        ("sources", json!(env!("LESION_GPU_SOURCES"))),
        ("os", json!(std::env::consts::OS)),
        ("arch", json!(std::env::consts::ARCH)),
        ("adapter", json!(adapter.name)),
        ("class", json!(adapter.class.name())),
        ("backend", json!(adapter.backend)),
        ("driver", json!(adapter.driver)),
        ("features", json!(adapter.features.iter().map(|f| f.name()).collect::<Vec<_>>())),
        ("limits", json!(gpu.limits().to_string())),
        ("proven_matrices", json!(gpu.caps().matrices)),
        ("capabilities", json!(gpu.caps().kind())),
        ("checked", json!(gpu.caps().checked)),
        ("texture_loads", json!(gpu.caps().textures.name())),
    ])
}

fn named<const N: usize>(entries: [(&str, Value); N]) -> Map<String, Value> {
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The text of a JSON file of this name.
///
/// # Errors
/// [`Kind::Internal`] if it cannot be encoded.
pub(super) fn json_of(name: &str, value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value);
    Ok(text.map_err(|e| Error::new(Kind::Internal, format!("could not encode {name}: {e}")))? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_numbered_and_never_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let first = RunFolder::create(None, root.path(), "m").unwrap();
        let second = RunFolder::create(None, root.path(), "m").unwrap();
        assert!(first.path().ends_with("m-001") && second.path().ends_with("m-002"));
        let named = root.path().join("mine");
        let run = RunFolder::create(Some(&named), root.path(), "m").unwrap();
        assert_eq!(RunFolder::open(&named).unwrap_err().kind(), Kind::Checkpoint);
        let again = || RunFolder::create(Some(&named), root.path(), "m").map_err(|e| e.kind());
        // Before its first checkpoint there is nothing to lose; who is about to write one has the lock.
        std::fs::write(run.file("config.toml"), "").unwrap();
        assert_eq!(again(), Err(Kind::Checkpoint), "somebody's own configuration");
        std::fs::write(run.file("environment.json"), "").unwrap();
        assert_eq!(again(), Ok(run.clone()));
        let _lock = run.lock().unwrap();
        assert_eq!(again().unwrap().lock().map(drop).unwrap_err().kind(), Kind::Checkpoint);
        std::fs::write(run.last(), "").unwrap();
        assert_eq!(again(), Err(Kind::Checkpoint));
    }

    /// A checkpoint without weights.
    fn checkpoint(step: u64, epoch: u32) -> Checkpoint {
        let progress = Progress { step, epoch, ..Progress::default() };
        let (config, none) = (TrainConfig::default(), std::collections::BTreeMap::new());
        Checkpoint { config, classes: vec![], progress, temperature: None, weights: none.clone(), optimizer: none }
    }

    /// A disk that gives an error may give the file another time: nothing is written over it.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_checkpoint_that_cannot_be_read_is_not_passed_over() {
        let root = tempfile::tempdir().unwrap();
        let run = RunFolder::create(None, root.path(), "m").unwrap();
        checkpoint(7, 0).write(&run.previous()).unwrap();
        // On a disk that is not mounted, say.
        std::os::unix::fs::symlink("/nowhere/last.safetensors", run.last()).unwrap();
        assert_eq!(run.checkpoint().unwrap_err().kind(), Kind::Io);
        std::fs::remove_file(run.last()).unwrap();
        // Nothing can be read at the beginning of a process's memory.
        std::os::unix::fs::symlink("/proc/self/mem", run.last()).unwrap();
        let error = run.checkpoint().unwrap_err();
        assert_eq!(error.kind(), Kind::Io);
        let said = error.to_string();
        assert!(said.contains("last.safetensors") && said.contains("previous.safetensors, of step 7"), "{said}");
        std::fs::remove_file(run.last()).unwrap();
        assert_eq!(run.checkpoint().unwrap().0.progress.step, 7);
    }

    #[test]
    fn only_a_checkpoint_of_the_best_epoch_is_as_good_as_the_best() {
        let root = tempfile::tempdir().unwrap();
        let run = RunFolder::create(None, root.path(), "m").unwrap();
        let best_of = |epoch| Progress { best_epoch: epoch, ..checkpoint(30, 3).progress };
        checkpoint(30, 3).write(&run.last()).unwrap();
        checkpoint(20, 2).write(&run.epoch(2)).unwrap();
        std::fs::write(run.best(), b"nonsense").unwrap();
        let step = |epoch| run.read_best(&best_of(epoch)).map(|(best, note)| (best.progress.step, note.is_some()));
        assert_eq!(step(3).unwrap(), (30, true));
        assert_eq!(step(2).unwrap(), (20, true));
        let error = step(1).unwrap_err();
        assert_eq!(error.kind(), Kind::Weights);
        assert!(
            error.to_string().contains("`lesion-gpu eval ") && error.to_string().contains("last.safetensors` scores")
        );
        checkpoint(10, 1).write(&run.best()).unwrap();
        assert_eq!(step(1).unwrap(), (10, false));
    }
}
