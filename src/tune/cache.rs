//! What tuning has found, kept on disk: one JSON file for each adapter, driver and version of this program.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Family, Outcome, lower};
use crate::autograd::Tunable;
use crate::error::{Error, Kind, Result};
use crate::gpu::{AdapterSummary, Caps, Choices, TextureLoads};
use crate::weights::write_atomically;

/// Version of the file.
const FORMAT: u32 = 1;

/// What a file must have been made on to be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    format: u32,
    program: String,
    adapter: String,
    backend: String,
    driver: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    /// Hash of the linked sources of all candidates: another kernel, another list, another result.
    kernels: String,
    choice: String,
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
    /// What is known of adapters like this one.
    shipped: Choices,
}

impl TuningCache {
    /// The choices kept in `folder` for an adapter. A file that is damaged or of another adapter, driver or version
    /// counts as empty. Nothing is kept without a folder. What is not in it is chosen as in [`Family::shipped`].
    pub fn open(folder: Option<&Path>, adapter: &AdapterSummary) -> Self {
        let place = Place {
            format: FORMAT,
            program: env!("CARGO_PKG_VERSION").into(),
            adapter: adapter.name.clone(),
            backend: adapter.backend.clone(),
            driver: adapter.driver.clone(),
        };
        let name = [&place.program, &place.adapter, &place.backend, &place.driver].map(String::as_str).join("\n");
        let path = folder.map(|f| f.join(format!("{}.json", &blake3::hash(name.as_bytes()).to_hex()[..16])));
        let read = path.as_ref().and_then(|path| std::fs::read(path).ok());
        let entries = read
            .and_then(|bytes| serde_json::from_slice::<Contents>(&bytes).ok())
            .filter(|contents| contents.place == place)
            .map_or_else(BTreeMap::new, |contents| contents.entries);
        let cache = Self { path, contents: Contents { place, entries }, shipped: Choices::new() };
        cache.with_families(Family::shipped(), adapter)
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

    fn entry(&self, node: &Tunable, caps: &Caps) -> Option<&Entry> {
        let entry = self.contents.entries.get(&node.candidates.key)?;
        let valid = node.candidates.choices.contains(&entry.choice) && entry.kernels == fingerprint(node, caps);
        valid.then_some(entry)
    }

    /// The choices for the nodes that have been tuned with the kernels as they are now.
    pub fn choices(&self, nodes: &[Tunable], caps: &Caps) -> Choices {
        let choice = |node: &Tunable| {
            let own = self.entry(node, caps).map(|e| &e.choice);
            Some((node.candidates.key.clone(), own.or_else(|| self.shipped(node))?.clone()))
        };
        nodes.iter().filter_map(choice).collect()
    }

    /// What adapters like this one take. Whatever the kernels have become, a candidate is right.
    fn shipped(&self, node: &Tunable) -> Option<&String> {
        self.shipped.get(&node.candidates.key).filter(|choice| node.candidates.choices.contains(choice))
    }

    /// The nodes there is nothing about.
    pub fn missing(&self, nodes: &[Tunable], caps: &Caps) -> Vec<Tunable> {
        let unknown = |node: &&Tunable| self.entry(node, caps).is_none() && self.shipped(node).is_none();
        nodes.iter().filter(unknown).cloned().collect()
    }

    /// Takes over what tuning found for those of `nodes` it is about.
    pub fn record(&mut self, nodes: &[Tunable], outcomes: &[Outcome], caps: &Caps) {
        for outcome in outcomes {
            if let Some(node) = nodes.iter().find(|node| node.candidates.key == outcome.key) {
                self.set(node, outcome.best.choice.clone(), Some(outcome.best.seconds * 1e6), caps);
            }
        }
    }

    /// Settles on the choice without tuning for those of `nodes` there is nothing about, so that the next run does the
    /// same as this one. `lesion-gpu tune` still measures them.
    pub fn settle(&mut self, nodes: &[Tunable], caps: &Caps) {
        for node in self.missing(nodes, caps) {
            if let Some(choice) = node.candidates.choices.first() {
                self.set(&node, choice.clone(), None, caps);
            }
        }
    }

    fn set(&mut self, node: &Tunable, choice: String, microseconds: Option<f64>, caps: &Caps) {
        let entry = Entry { kernels: fingerprint(node, caps), choice, microseconds };
        self.contents.entries.insert(node.candidates.key.clone(), entry);
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn save(&self) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let text = serde_json::to_string_pretty(&self.contents)
            .map_err(|e| Error::new(Kind::Internal, format!("could not encode the tuned choices: {e}")))?;
        write_atomically(path, (text + "\n").as_bytes())
    }
}

/// A hash of everything the candidates of a node would run. What a device was measured to load faster from, which may
/// turn out otherwise the next time, is no part of it: neither which candidate comes first, nor where the others read.
fn fingerprint(node: &Tunable, caps: &Caps) -> String {
    let caps = &Caps { textures: TextureLoads::Slow, ..caps.clone() };
    let mut hash = blake3::Hasher::new();
    let all = std::iter::once(&node.candidates.reference).chain(&node.candidates.choices);
    for choice in all.collect::<BTreeSet<_>>() {
        hash.update(choice.as_bytes());
        for dispatch in lower(node, choice, caps).map(|l| l.dispatches).unwrap_or_default() {
            hash.update(dispatch.kernel.link(Some(&dispatch.parameters), dispatch.specialised).as_bytes());
            hash.update(dispatch.kernel.entry.as_bytes());
        }
    }
    hash.finalize().to_hex()[..16].to_owned()
}
