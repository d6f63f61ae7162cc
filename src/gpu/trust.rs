//! Which kernels have computed what they should on this driver: a list, kept on disk for the next start.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{AdapterSummary, Dispatch, Gpu, Kernel};

/// Whether kernels are tested before they are first used: see [`ops::self_test`](crate::ops::self_test).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SelfTest {
    /// They are trusted.
    #[default]
    Off,
    /// They are tested, and which have passed is kept in this folder, if there is one.
    On(Option<PathBuf>),
}

/// The kernels that have passed.
pub(super) struct Trust {
    on: bool,
    checked: bool,
    file: Option<PathBuf>,
    passed: Mutex<BTreeSet<String>>,
}

impl Trust {
    pub fn open(self_test: &SelfTest, adapter: &AdapterSummary, checked: bool) -> Self {
        let (on, folder) = match self_test {
            SelfTest::Off => (false, None),
            SelfTest::On(folder) => (true, folder.as_deref()),
        };
        // Another driver, another compiler, other tests: it starts a new list.
        let place = [env!("LESION_GPU_SOURCES"), &adapter.name, &adapter.backend, &adapter.driver].join("\n");
        let file = folder.map(|f| f.join(format!("{}.txt", &blake3::hash(place.as_bytes()).to_hex()[..16])));
        let passed = file.as_deref().map(Self::read).unwrap_or_default();
        Self { on, checked, file, passed: Mutex::new(passed) }
    }

    /// A damaged line is no kernel's hash, so its kernel is tested again.
    fn read(file: &Path) -> BTreeSet<String> {
        std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    fn passed(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self, kernel: &Kernel) -> String {
        let mut hash = blake3::Hasher::new();
        hash.update(kernel.link(None, false).as_bytes());
        hash.update(kernel.entry.as_bytes());
        hash.update(&[u8::from(self.checked)]);
        hash.finalize().to_hex().to_string()
    }

    /// Failing to write costs only time at the next start, so it is silent.
    fn save(file: &Path, passed: &BTreeSet<String>) {
        let write = |folder: &Path| -> std::io::Result<()> {
            std::fs::create_dir_all(folder)?;
            let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
            for name in passed {
                std::io::Write::write_all(&mut temporary, format!("{name}\n").as_bytes())?;
            }
            temporary.persist(file)?;
            Ok(())
        };
        let _ = file.parent().map(write);
    }
}

impl Gpu {
    /// Of the kernels that launches use, those that are to be tested and have not passed on this driver; each once.
    pub fn untested<'a>(&self, dispatches: impl IntoIterator<Item = &'a Dispatch>) -> Vec<&'a Kernel> {
        if !self.trust.on {
            return vec![];
        }
        let mut seen = HashSet::new();
        let kernels = dispatches.into_iter().map(|dispatch| &dispatch.kernel).filter(|kernel| seen.insert(*kernel));
        let kernels: Vec<&Kernel> = kernels.collect();
        let passed = self.trust.passed();
        kernels.into_iter().filter(|kernel| !passed.contains(&self.trust.name(kernel))).collect()
    }

    /// Remembers that kernels have passed, here and for later starts.
    pub fn trust_kernels<'a>(&self, kernels: impl IntoIterator<Item = &'a Kernel>) {
        let mut passed = self.trust.passed();
        passed.extend(kernels.into_iter().map(|kernel| self.trust.name(kernel)));
        if let Some(file) = &self.trust.file {
            // Another process may have written meanwhile.
            passed.extend(Trust::read(file));
            Trust::save(file, &passed);
        }
    }
}
