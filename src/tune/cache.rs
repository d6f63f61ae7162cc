//! What tuning has found, kept on disk: one JSON file for each adapter, driver, version of this program and way the device
//! was opened.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Family, Outcome};
use crate::autograd::{Candidates, Tunable};
use crate::error::{Error, Kind, Result};
use crate::gpu::{AdapterSummary, Caps, Choices};
use crate::weights::write_atomically;

/// Version of the file.
const FORMAT: u32 = 4;

/// What a file must have been made on to be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    format: u32,
    program: String,
    /// A hash of all sources of the program, kernels among them.
    sources: String,
    adapter: String,
    backend: String,
    driver: String,
    /// What the device can do as it was opened: without one of its features, or with smaller limits, other kernels are
    /// candidates, and what is best of those is no answer for the whole device.
    device: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    /// The shape class of the node.
    class: String,
    /// Floating-point operations.
    flops: u64,
    /// None where the node goes by the built-in rule.
    choice: Option<String>,
    /// Of the choice; none if it was taken unmeasured.
    microseconds: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Contents {
    place: Place,
    entries: BTreeMap<String, Entry>,
}

/// The tuned choices of an adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct TuningCache {
    path: Option<PathBuf>,
    contents: Contents,
    /// Whether the file is written at all.
    keeps: bool,
    /// What the file had when it was last read or written.
    on_disk: BTreeMap<String, Entry>,
    /// Why there is a file and it is not used.
    unusable: Option<String>,
    /// What is known of adapters like this one.
    shipped: Choices,
}

impl TuningCache {
    /// The choices kept in `folder` for an adapter that was opened with `caps`. A file of another build of the program counts as
    /// empty; so does one that cannot be read or is damaged, which [`Self::unusable`] says. Nothing is kept without a folder, nor
    /// what is found with run-time checks, where it holds for nobody else. What is not in it is chosen as in [`Family::shipped`].
    pub fn open(folder: Option<&Path>, adapter: &AdapterSummary, caps: &Caps) -> Self {
        let place = Place {
            format: FORMAT,
            program: env!("CARGO_PKG_VERSION").into(),
            sources: env!("LESION_GPU_SOURCES").into(),
            adapter: adapter.name.clone(),
            backend: adapter.backend.clone(),
            driver: adapter.driver.clone(),
            device: caps.kind(),
        };
        let Place { program, adapter: name, backend, driver, device, .. } = &place;
        let name = [program, name, backend, driver, device].map(String::as_str).join("\n");
        let path = folder.map(|f| f.join(format!("{}.json", &blake3::hash(name.as_bytes()).to_hex()[..16])));
        let (entries, unusable) = match path.as_deref().map(|path| (path, read(path, &place))) {
            None => (BTreeMap::new(), None),
            Some((_, Ok(entries))) => (entries, None),
            Some((path, Err(e))) => (BTreeMap::new(), Some(format!("{} cannot be used: {}", path.display(), e.what()))),
        };
        let (on_disk, shipped, keeps) = (entries.clone(), Choices::new(), !caps.checked);
        let cache = Self { path, contents: Contents { place, entries }, keeps, on_disk, unusable, shipped };
        cache.with_families(Family::shipped(), adapter)
    }

    /// Why a file that is there is not used: it cannot be read, or is damaged. The next [`save`](Self::save) replaces one that is
    /// damaged.
    pub fn unusable(&self) -> Option<&str> {
        self.unusable.as_deref()
    }

    /// With the choices of those of `families` that `adapter` is one of, where it was not measured itself.
    #[must_use]
    pub fn with_families(mut self, families: &[Family], adapter: &AdapterSummary) -> Self {
        let like = families.iter().filter(|family| family.has(adapter));
        self.shipped = like.flat_map(|family| family.choices.clone()).collect();
        self
    }

    /// The file, if there is one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// What is kept of the very shape of a node; nothing if it is not among the node's candidates any more.
    fn entry(&self, node: &Tunable) -> Option<&Entry> {
        let Candidates { key, choices, .. } = &node.candidates;
        let known = |entry: &&Entry| entry.choice.as_ref().is_none_or(|choice| choices.contains(choice));
        self.contents.entries.get(key).filter(known)
    }

    /// The choices for nodes: what is kept of the very shape, else what was measured for another of its class, else what
    /// adapters like this one take. None for those that go by the built-in rule.
    pub fn choices(&self, nodes: &[Tunable]) -> Choices {
        let choice = |node: &Tunable| match self.entry(node) {
            Some(entry) => entry.choice.clone(),
            None => self.by_class(node).cloned(),
        };
        nodes.iter().filter_map(|node| Some((node.candidates.key.clone(), choice(node)?))).collect()
    }

    /// What was measured here for the largest shape of a node's class that has a candidate of the node for its choice; else
    /// what adapters like this one take for the class. Whatever the kernels have become since, a candidate is right.
    fn by_class(&self, node: &Tunable) -> Option<&String> {
        let Candidates { class, choices, .. } = &node.candidates;
        let measured = |entry: &&Entry| entry.class == *class && entry.microseconds.is_some();
        let here = self.contents.entries.values().filter(measured);
        let here = here.filter_map(|entry| Some((entry.flops, entry.choice.as_ref()?)));
        let here = here.filter(|(_, choice)| choices.contains(choice)).max_by_key(|(flops, _)| *flops);
        here.map(|(_, choice)| choice).or_else(|| self.shipped.get(class).filter(|choice| choices.contains(choice)))
    }

    /// The nodes there is nothing about, neither about their shape nor about its class.
    pub fn missing(&self, nodes: &[Tunable]) -> Vec<Tunable> {
        let is_missing = |node: &&Tunable| self.entry(node).is_none() && self.by_class(node).is_none();
        nodes.iter().filter(is_missing).cloned().collect()
    }

    /// Takes over what tuning found for those of `nodes` it is about.
    pub fn record(&mut self, nodes: &[Tunable], outcomes: &[Outcome]) {
        for outcome in outcomes {
            if nodes.iter().any(|node| node.candidates.key == outcome.key) {
                let Outcome { key, class, flops, best, .. } = outcome.clone();
                let entry = Entry { class, flops, choice: Some(best.choice), microseconds: Some(best.seconds * 1e6) };
                self.contents.entries.insert(key, entry);
            }
        }
    }

    /// Settles those of `nodes` that nothing is kept of on what their class takes or else on the built-in rule, so that the
    /// next run does the same as this one, whatever is measured for other shapes in between. `lesion-gpu tune` still measures
    /// them. Whether there were such nodes.
    pub fn settle(&mut self, nodes: &[Tunable]) -> bool {
        let new: Vec<(String, Entry)> = (nodes.iter().filter(|node| self.entry(node).is_none()))
            .map(|node| {
                let Candidates { key, class, .. } = node.candidates.clone();
                (key, Entry { class, flops: 0, choice: self.by_class(node).cloned(), microseconds: None })
            })
            .collect();
        let any = !new.is_empty();
        self.contents.entries.extend(new);
        any
    }

    /// Writes the file, whole or not at all. What other programs have written there since it was read stays, and holds from
    /// now on here too: whoever comes second takes what the first one took.
    ///
    /// # Errors
    /// [`Kind::Io`], also where there is a file that cannot be read: it is left as it is.
    pub fn save(&mut self) -> Result<()> {
        let Some(path) = self.path.as_ref().filter(|_| self.keeps) else { return Ok(()) };
        let lock = path.with_extension("lock");
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| Error::io("create the folder", folder, &e))?;
        }
        let file = File::create(&lock).map_err(|e| Error::io("write", &lock, &e))?;
        // File systems without locks are taken at their word.
        let _ = file.lock();
        let now = match read(path, &self.contents.place) {
            Err(e) if e.kind() == Kind::Io => return Err(e),
            entries => entries.unwrap_or_default(),
        };
        let others = now.into_iter().filter(|(key, entry)| self.on_disk.get(key) != Some(entry));
        self.contents.entries.extend(others);
        let text = serde_json::to_string_pretty(&self.contents)
            .map_err(|e| Error::new(Kind::Internal, format!("could not encode the tuned choices: {e}")))?;
        write_atomically(path, (text + "\n").as_bytes())?;
        self.on_disk = self.contents.entries.clone();
        Ok(())
    }
}

/// What a file keeps for a place: nothing if there is none, or it is of another place.
///
/// # Errors
/// [`Kind::Io`]; [`Kind::Data`] for a file that is damaged.
fn read(path: &Path, place: &Place) -> Result<BTreeMap<String, Entry>> {
    let bytes = match std::fs::read(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        bytes => bytes.map_err(|e| Error::io("read what tuning has found", path, &e))?,
    };
    let contents: Contents = serde_json::from_slice(&bytes)
        .map_err(|e| Error::new(Kind::Data, format!("it is damaged: {e}")).at(path.display()))?;
    Ok(if contents.place == *place { contents.entries } else { BTreeMap::new() })
}
