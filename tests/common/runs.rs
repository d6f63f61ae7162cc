//! What a fuzz target does with the bytes of files in run folders, and of the tuning cache. A test of the quick suite takes this
//! file too.
//!
//! People keep run folders for years, move them between machines and edit what is in them.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a promise that is broken is what is looked for")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use lesion_gpu::autograd::Tunable;
use lesion_gpu::gpu::{AdapterSummary, Caps, DeviceClass};
use lesion_gpu::models::Model;
use lesion_gpu::report::{Additions, run_report};
use lesion_gpu::train::{Checkpoint, Progress, RunFolder, TrainConfig, TrainGraph, read_answers};
use lesion_gpu::tune::{Measured, Outcome, TuningCache};
use lesion_gpu::weights::{WeightFile, write_safetensors};
use lesion_gpu::{Error, Kind, Result};
use tempfile::TempDir;

/// The files of a run folder that are replaced. Of the checkpoint also its description alone, which else has a checksum.
pub const FILES: [&str; 8] = [
    "environment.json",
    "metrics.json",
    "results.csv",
    "split.csv",
    "test.csv",
    "config.toml",
    "weights/last.safetensors",
    "weights/best.safetensors",
];
/// The tuning cache is replaced by what has this number.
pub const TUNING: usize = FILES.len();
const DESCRIPTION: usize = FILES.len() - 1;

/// A finished run.
pub struct Run {
    dir: TempDir,
    folder: RunFolder,
    intact: Vec<Vec<u8>>,
    tuning: PathBuf,
    /// What the tuning cache is asked about.
    nodes: Vec<Tunable>,
}

fn adapter() -> AdapterSummary {
    AdapterSummary {
        index: 0,
        name: "an adapter".into(),
        class: DeviceClass::Other,
        backend: "vulkan".into(),
        driver: "a driver".into(),
        features: vec![],
        caps: Caps::baseline(),
        matrices: None,
    }
}

impl Run {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let folder = RunFolder::create(Some(&path), dir.path(), "simple-cnn").unwrap();
        let config = TrainConfig { model: "simple-cnn".into(), data: "synthetic:60".into(), ..TrainConfig::default() };
        let model = Model::find(&config.model).unwrap();
        let nodes = TrainGraph::new(model, &config, 8, 7, &Caps::baseline()).unwrap().plan.tunable;
        folder.write_config(&config).unwrap();
        let texts = [
            include_str!("run/environment.json"),
            include_str!("run/metrics.json"),
            include_str!("run/results.csv"),
            include_str!("run/split.csv"),
            include_str!("run/test.csv"),
        ];
        for (name, text) in FILES.iter().zip(texts) {
            std::fs::write(path.join(name), text).unwrap();
        }
        let classes = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"].map(str::to_owned).to_vec();
        let progress = Progress { step: 10, epoch: 2, best: Some(0.5), best_epoch: 1, ..Progress::default() };
        let none = BTreeMap::new();
        let checkpoint =
            Checkpoint { config, classes, progress, temperature: Some(0.5), weights: none.clone(), optimizer: none };
        checkpoint.write(&folder.last()).unwrap();
        checkpoint.write(&folder.best()).unwrap();
        let tuning = TuningCache::open(Some(dir.path()), &adapter(), &Caps::baseline()).path().unwrap().to_owned();
        let intact = FILES.iter().map(|name| std::fs::read(path.join(name)).unwrap()).collect();
        Self { dir, folder, intact, tuning, nodes }
    }

    /// Intact files behind their numbers.
    pub fn seeds(&self) -> Vec<Vec<u8>> {
        let description = lesion_gpu::weights::read_safetensors(&self.folder.best()).unwrap().metadata;
        let mut cache = TuningCache::open(Some(self.dir.path()), &adapter(), &Caps::baseline());
        cache.record(&self.nodes, &self.nodes.iter().map(outcome).collect::<Vec<_>>());
        cache.save().unwrap();
        let tuning = std::fs::read(&self.tuning).unwrap();
        let mut files = self.intact.clone();
        files[DESCRIPTION] = description[KEY].clone().into_bytes();
        files.push(tuning);
        files.iter().enumerate().map(|(kind, bytes)| [&[kind as u8][..], bytes].concat()).collect()
    }

    /// Reads everything there is of a run in which `bytes` are file number `kind`. Whether nothing was refused.
    pub fn replaced(&self, kind: usize, bytes: &[u8]) -> bool {
        let kind = kind % (FILES.len() + 1);
        if kind == TUNING {
            std::fs::write(&self.tuning, bytes).unwrap();
            return self.tuned();
        }
        let file = self.folder.file(FILES[kind]);
        match kind {
            DESCRIPTION => {
                let metadata = [(KEY.to_owned(), String::from_utf8_lossy(bytes).into_owned())].into();
                write_safetensors(&file, &WeightFile { metadata, ..WeightFile::default() }).unwrap();
            }
            _ => std::fs::write(&file, bytes).unwrap(),
        }
        let refused = self.read_all();
        std::fs::write(&file, &self.intact[kind]).unwrap();
        refused.iter().for_each(named);
        refused.is_empty()
    }

    /// Asks the tuning cache about nodes, which it must have candidates of for answers, and keeps what it says. Whether it
    /// had something to say about each.
    fn tuned(&self) -> bool {
        let open = || TuningCache::open(Some(self.dir.path()), &adapter(), &Caps::baseline());
        let mut cache = open();
        let known = cache.missing(&self.nodes).is_empty();
        let before = cache.choices(&self.nodes);
        for node in &self.nodes {
            let choice = before.get(&node.candidates.key);
            assert!(choice.is_none_or(|choice| node.candidates.choices.contains(choice)), "{choice:?}");
        }
        cache.settle(&self.nodes);
        assert!(cache.missing(&self.nodes).is_empty() && cache.choices(&self.nodes) == before);
        cache.save().unwrap();
        assert_eq!(open().choices(&self.nodes), before);
        known
    }

    /// What is refused of it.
    fn read_all(&self) -> Vec<Error> {
        let folder = &self.folder;
        let mut refused = vec![];
        let mut note = |outcome: Result<()>| refused.extend(outcome.err());
        note(RunFolder::open(folder.path()).map(drop));
        note(folder.config().and_then(|config| config.validate()));
        note(folder.metrics().map(drop));
        note(folder.choices().map(drop));
        note(folder.features_each_step().map(drop));
        note(folder.check_contents("ebe7049cda82098344db423b28f679d3"));
        note(folder.trained_on().map(drop));
        note(folder.checkpoint().and_then(|(checkpoint, _)| checkpoint.config.validate()));
        note(RunFolder::read_checkpoint_of(folder.path()).map(drop));
        note(read_answers(&folder.file("test.csv")).map(|sheet| drop(sheet.intervals())));
        note(run_report(folder, Additions::default()).map(drop));
        refused
    }
}

/// What tuning may find for a node.
fn outcome(node: &Tunable) -> Outcome {
    let candidates = node.candidates.clone();
    let best = Measured { choice: candidates.choices.last().unwrap().clone(), seconds: 1e-3 };
    let (key, class) = (candidates.key, candidates.class);
    Outcome { key, class, flops: 1, default: None, best, tried: 1, rejected: vec![] }
}

/// The name of the description in a checkpoint.
const KEY: &str = "lesion-gpu.checkpoint";

/// What is wrong with a file is no bug of the program's.
fn named(e: &Error) {
    let kinds = [Kind::Checkpoint, Kind::Data, Kind::Io, Kind::Usage, Kind::Weights];
    assert!(kinds.contains(&e.kind()), "{e}");
}
