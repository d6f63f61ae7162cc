//! What the screen shows of a training.

use std::collections::VecDeque;

use crate::cli::narration::{Work, shown};
use crate::cli::style::Line;
use crate::train::{Event, Metric, Monitor, RunFolder, TrainConfig};

/// Losses that are kept; beyond, two neighbours become their mean.
const LOSSES: usize = 4096;

/// Lines that are kept: as many as a tall screen shows.
const LINES: usize = 32;

/// A training so far.
#[derive(Clone)]
pub(super) struct View {
    pub config: TrainConfig,
    /// What was told last.
    pub lines: VecDeque<Line>,
    /// What is going on.
    pub work: Option<Work>,
    /// The latest step and the last one of the run.
    pub step: (u64, u64),
    /// Steps of an epoch.
    pub steps: usize,
    /// Steps, and the losses of their batches.
    pub losses: Vec<(f64, f64)>,
    /// At the ends of epochs.
    pub train_accuracy: Vec<(f64, f64)>,
    pub val_loss: Vec<(f64, f64)>,
    pub val_score: Vec<(f64, f64)>,
    pub stopping: bool,
    /// What the keys have chosen.
    pub logarithmic: bool,
    pub other: bool,
}

impl View {
    pub fn new(config: &TrainConfig, head: Vec<Line>) -> Self {
        Self {
            config: config.clone(),
            lines: head.into(),
            work: None,
            step: (0, 0),
            steps: 1,
            losses: vec![],
            train_accuracy: vec![],
            val_loss: vec![],
            val_score: vec![],
            stopping: false,
            logarithmic: false,
            other: false,
        }
    }

    /// Takes a line.
    pub fn tell(&mut self, line: &Line) {
        self.lines.push_back(line.clone());
        if self.lines.len() > LINES {
            self.lines.pop_front();
        }
    }

    /// Takes from an event what is drawn.
    pub fn see(&mut self, event: &Event<'_>) {
        match event {
            Event::Ready { run, steps, done, .. } => {
                self.steps = (*steps).max(1);
                if *done > 0 {
                    self.remember(run, *done);
                }
            }
            Event::Step { step, last, .. } => self.step = (*step, *last),
            Event::Loss { step, loss, .. } => self.loss(*step as f64, f64::from(*loss)),
            Event::Epoch(result) => {
                let at = result.step as f64;
                self.train_accuracy.extend(result.train_accuracy.map(|value| (at, value)));
                if let Some(val) = &result.val {
                    self.val_loss.push((at, val.loss));
                    self.val_score.extend(shown(&self.config, val).map(|value| (at, value)));
                }
            }
            _ => {}
        }
    }

    fn loss(&mut self, step: f64, loss: f64) {
        self.losses.push((step, loss));
        if self.losses.len() >= LOSSES {
            self.losses = self.losses.chunks(2).map(mean).collect();
        }
    }

    /// What a resumed run has been through. Tables that cannot be read, and monitors that have no column in them, leave gaps in
    /// the curves, no more.
    fn remember(&mut self, run: &RunFolder, done: u64) {
        for row in rows(run, "steps.csv", ["step", "loss", "loss"]) {
            if let [Some(step), Some(loss), _] = row
                && (step as u64) < done
            {
                self.loss(step + 1.0, loss);
            }
        }
        let score = match &self.config.monitor {
            Monitor::Of(Metric::PixelAccuracy) => "val_accuracy".to_owned(),
            Monitor::Of(metric) => format!("val_{}", metric.name().replace('-', "_")),
            Monitor::Recall(_) => String::new(),
        };
        for [at, loss, value] in rows(run, "results.csv", ["steps", "val_loss", &score]) {
            let Some(at) = at.filter(|&at| at as u64 <= done) else { continue };
            self.val_loss.extend(loss.map(|loss| (at, loss)));
            self.val_score.extend(value.map(|value| (at, value)));
        }
        for [at, accuracy, _] in rows(run, "results.csv", ["steps", "train_accuracy", ""]) {
            self.train_accuracy.extend(at.filter(|&at| at as u64 <= done).zip(accuracy));
        }
    }
}

/// The mean of points that lie beside each other.
pub(super) fn mean(points: &[(f64, f64)]) -> (f64, f64) {
    let n = points.len() as f64;
    (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n)
}

/// The numbers in three columns of a table of a run.
fn rows(run: &RunFolder, table: &str, columns: [&str; 3]) -> Vec<[Option<f64>; 3]> {
    let Ok(mut table) = csv::Reader::from_path(run.file(table)) else { return vec![] };
    let Ok(header) = table.headers().cloned() else { return vec![] };
    let places = columns.map(|column| header.iter().position(|name| name == column));
    let number = |row: &csv::StringRecord, place: Option<usize>| row.get(place?)?.parse::<f64>().ok();
    table.records().flatten().map(|row| places.map(|place| number(&row, place))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_trainings_keep_a_bounded_number_of_losses() {
        let mut view = View::new(&TrainConfig::default(), vec![]);
        for step in 0..40_000 {
            view.loss(f64::from(step), f64::from(step));
        }
        assert!(view.losses.len() < LOSSES && view.losses.len() >= LOSSES / 2, "{}", view.losses.len());
        // Means of neighbours: each still lies where its steps were.
        assert!(view.losses.iter().all(|(step, loss)| (step - loss).abs() < 1e-6));
        assert!(view.losses.is_sorted_by(|a, b| a.0 < b.0));
    }
}
