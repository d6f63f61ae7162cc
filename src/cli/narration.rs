//! What `train` and `reproduce` tell of a training as it goes, for people.

use std::time::Instant;

use super::bytes;
use super::pace::{Pace, duration};
use super::progress::Progress;
use super::style::{Line, LineKind};
use crate::train::{EpochResult, Event, Protocol, Report, Scores, TrainConfig};

/// Knows what is to be told besides the events themselves.
pub(super) struct Narrator<'a> {
    config: &'a TrainConfig,
    pace: Pace,
    /// Bytes on the device.
    memory: u64,
    /// What the last validation came to.
    monitored: Option<f64>,
}

/// A piece of work that is under way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Work {
    pub title: String,
    pub done: usize,
    pub total: usize,
    /// What else there is to say, the more important the earlier.
    pub about: Vec<String>,
}

impl Work {
    fn new(title: impl Into<String>, done: usize, total: usize) -> Self {
        Self { title: title.into(), done, total, about: vec![] }
    }
}

impl<'a> Narrator<'a> {
    pub fn new(config: &'a TrainConfig) -> Self {
        Self { config, pace: Pace::default(), memory: 0, monitored: None }
    }

    /// Tells of an event in lines, or as a bar.
    pub fn show(&mut self, progress: &mut Progress, event: &Event<'_>) {
        self.lines(event).iter().for_each(|line| progress.told(line));
        if let Some(work) = self.work(event) {
            progress.show(&work.title, work.done, work.total, || work.about.join(", "));
        }
    }

    /// What an event adds to the story.
    pub fn lines(&mut self, event: &Event<'_>) -> Vec<Line> {
        match event {
            Event::Note(note) => {
                let line = |(i, text)| {
                    if i == 0 { Line::note(text) } else { Line { label: String::new(), ..Line::note(text) } }
                };
                note.lines().enumerate().map(line).collect()
            }
            Event::Phase { number, phases, config, trained, memory } => {
                self.memory = memory.total();
                let TrainConfig { epochs, lr, schedule, .. } = config;
                let schedule = schedule.name();
                let phase = format!("{number} of {phases}: {epochs} epochs, learning rate {lr:e}, {schedule}");
                let memory = format!("{} on the device", bytes(memory.total()));
                vec![Line::new("phase", phase), Line::new("train", trained), Line::new("memory", memory)]
            }
            Event::Ready { memory, .. } => {
                self.memory = memory.total();
                ready(self.config, event)
            }
            Event::Epoch(result) => {
                self.monitored = result.val.as_ref().and_then(|scores| shown(self.config, scores));
                let kind = if result.best { LineKind::Best } else { LineKind::Plain };
                vec![Line { kind, ..Line::new(format!("epoch {:>3}", result.epoch), epoch_line(result)) }]
            }
            Event::Stopped(why) => vec![Line::new("stopped", why)],
            Event::Decoding(..)
            | Event::Tuning(..)
            | Event::Features(..)
            | Event::Step { .. }
            | Event::Loss { .. }
            | Event::Scoring(..) => vec![],
        }
    }

    /// What an event says of a work that is under way.
    pub fn work(&mut self, event: &Event<'_>) -> Option<Work> {
        match *event {
            Event::Decoding(done, total) => Some(Work::new("decoding", done, total)),
            Event::Tuning(done, total) => Some(Work::new("measuring kernels", done, total)),
            Event::Features(done, total) => Some(Work::new("features", done, total)),
            Event::Scoring(done, total) => {
                self.pace.pause();
                Some(Work::new("scoring", done, total))
            }
            Event::Step { epoch, done, steps, step, last, loss, accuracy } => {
                let now = Instant::now();
                self.pace.step(step, last, now);
                let mut about = vec![];
                about.extend(loss.map(|loss| format!("loss {loss:.4}")));
                about.extend(accuracy.map(|accuracy| format!("acc {accuracy:.3}")));
                about.extend(self.pace.left(now).map(|time| format!("{} left", duration(time))));
                let speed = self.pace.steps_per_second().map(|steps| steps * self.config.batch as f64);
                about.extend(speed.map(|speed| format!("{speed:.0} img/s")));
                about.extend(self.monitored.map(|value| format!("val {} {value:.4}", self.config.monitor)));
                about.push(format!("{} on the device", bytes(self.memory)));
                Some(Work { about, ..Work::new(format!("epoch {epoch}"), done, steps) })
            }
            Event::Loss { .. } => {
                self.pace.begin();
                None
            }
            _ => None,
        }
    }
}

/// A score that the best epoch is chosen by, as it is shown.
pub(super) fn shown(config: &TrainConfig, scores: &Scores) -> Option<f64> {
    // The monitor's own values are the better the higher.
    scores.monitored(&config.monitor).map(f64::abs)
}

/// What is to be trained, on what, and where.
fn ready(config: &TrainConfig, event: &Event<'_>) -> Vec<Line> {
    let Event::Ready { run, dataset, split, leak, memory, memory_f32, trained, steps, done } = event else {
        return vec![];
    };
    let (images, lesions, classes) = (dataset.samples.len(), dataset.group_count(), dataset.classes.len());
    let kind = match (split.given, config.split.protocol) {
        (true, _) => match &config.split_file {
            Some(file) => format!("as {file} says"),
            None => "given by the dataset".to_owned(),
        },
        (false, Protocol::LeakFree) if classes > 1 => "by lesion, stratified".to_owned(),
        (false, Protocol::LeakFree) => "by lesion".to_owned(),
        (false, Protocol::Published) => "by image, NOT by lesion".to_owned(),
    };
    let fold = config.split.fold.map_or(String::new(), |fold| format!(", fold {fold}"));
    let (train, val, test) = (split.train.len(), split.val.len(), split.test.len());
    let TrainConfig { model, size, batch, .. } = config;
    let what = match dataset.samples.iter().all(|s| s.mask.is_some()) {
        true => "with masks".to_owned(),
        false => format!("{classes} classes"),
    };
    let mut lines = vec![
        Line::new("data", format!("{}: {images} images of {lesions} lesions, {what}", dataset.name)),
        Line::new("split", format!("{train} train, {val} validation, {test} test ({kind}{fold})")),
    ];
    lines.extend(leak.map(|leak| Line { kind: LineKind::Note, ..Line::new("split", leak.to_string()) }));
    if !config.preprocess.steps.is_empty() {
        lines.push(Line::new("pictures", config.preprocess.steps.to_string()));
    }
    lines.push(Line::new("model", format!("{model}, {size} pixels, batch {batch}")));
    if !config.phases.is_empty() {
        lines.push(Line::new("phases", phases_line(config)));
    }
    let in_f32 = memory_f32.map_or(String::new(), |m| format!("; in f32 it would be {} in all", bytes(m.total())));
    let memory = format!(
        "{} on the device: {} parameters and optimizer, {} activations and gradients ({} without reuse{in_f32})",
        bytes(memory.total()),
        bytes(memory.variables),
        bytes(memory.slots + memory.io),
        bytes(memory.without_reuse),
    );
    let resumed = if *done > 0 { format!(", {done} done") } else { String::new() };
    lines.push(Line::new("train", trained));
    lines.push(Line::new("memory", memory));
    lines.push(Line::new("run", format!("{}, {steps} steps an epoch{resumed}", run.path().display())));
    lines
}

/// The phases of a run, in a line.
fn phases_line(config: &TrainConfig) -> String {
    let phase =
        |p: TrainConfig| format!("{} ({} epochs, {:e}, {})", p.fine_tune.train, p.epochs, p.lr, p.schedule.name());
    let phases: Vec<String> = config.by_phase().into_iter().map(phase).collect();
    format!("{}; each with a fresh optimizer and a schedule of its own", phases.join(", "))
}

fn epoch_line(r: &EpochResult) -> String {
    let val = r.val.as_ref().map_or(String::new(), |v| {
        let scores = match &v.report {
            Report::Classes(r) => {
                let auc = v.named("auc").map_or(String::new(), |auc| format!(" AUC {auc:.4}"));
                format!("acc {:.4} balanced {:.4} macro-F1 {:.4}{auc}", r.accuracy, r.balanced_accuracy, r.macro_f1)
            }
            Report::Masks(r) => {
                format!("Dice {:.4} Jaccard {:.4} threshold Jaccard {:.4}", r.dice, r.jaccard, r.threshold_jaccard)
            }
        };
        format!(" | val loss {:.4} {scores}", v.loss)
    });
    let accuracy = r.train_accuracy.map_or(String::new(), |accuracy| format!(" acc {accuracy:.4}"));
    // Loading is to go on beside training; what it takes shows where it does not.
    let waited = match r.waited > (0.02 * r.seconds).max(0.05) {
        true => format!(", {:.1} s of it waiting for pictures", r.waited),
        false => String::new(),
    };
    format!(
        "| train loss {:.4}{accuracy}{val} | {:.1} s{waited}, {:.0} img/s{}",
        r.train_loss,
        r.seconds,
        r.images_per_second,
        if r.best { " *" } else { "" }
    )
}
