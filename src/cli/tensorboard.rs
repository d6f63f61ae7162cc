//! `train --tensorboard`: what happens, in an event file in the run's folder.

use crate::error::{Error, Result};
use crate::report::EventFile;
use crate::train::{Event, RunFolder, RunSummary};

/// Writes events down. That they cannot be written is no fault of the training: it is said once, and it goes on without.
#[derive(Default)]
pub(super) struct Watcher {
    file: Option<EventFile>,
}

impl Watcher {
    /// Writes an event down; what to tell of it, if anything.
    pub fn see(&mut self, event: &Event<'_>) -> Option<String> {
        let written = match event {
            Event::Ready { run, done, .. } => EventFile::create(run.path(), done + 1).and_then(|mut file| {
                file.text(*done, "configuration", &configuration(run)?)?;
                self.file = Some(file);
                Ok(())
            }),
            _ => self.file.as_mut().map_or(Ok(()), |file| write(file, event)),
        };
        self.complaint(written)
    }

    /// The end of a run: the scores of its test images, and the pictures of its report.
    pub fn end(&mut self, summary: &RunSummary) -> Option<String> {
        let written = self.file.as_mut().map_or(Ok(()), |file| {
            let step = summary.progress.step;
            if let Some(test) = &summary.test {
                let scores: Vec<(String, f64)> =
                    test.all().into_iter().map(|(name, value)| (format!("test/{name}"), value)).collect();
                scalars(file, step, &scores)?;
            }
            for (name, png) in pictures(summary) {
                file.picture(step, &format!("report/{name}"), png)?;
            }
            Ok(())
        });
        self.complaint(written)
    }

    fn complaint(&mut self, written: Result<()>) -> Option<String> {
        let e = written.err()?;
        self.file = None;
        Some(format!("the event file for TensorBoard ends here: {}", e.what()))
    }
}

fn write(file: &mut EventFile, event: &Event<'_>) -> Result<()> {
    match event {
        Event::Loss { step, lr, loss } => {
            file.scalars(*step, &[("train/loss", f64::from(*loss)), ("train/learning_rate", *lr)])
        }
        Event::Epoch(result) => {
            let mut all = vec![
                ("epoch/loss".to_owned(), result.train_loss),
                ("epoch/number".to_owned(), f64::from(result.epoch)),
                ("time/seconds".to_owned(), result.seconds),
                ("time/waited_seconds".to_owned(), result.waited),
                ("time/images_per_second".to_owned(), result.images_per_second),
            ];
            all.extend(result.train_accuracy.map(|accuracy| ("epoch/accuracy".to_owned(), accuracy)));
            let val = result.val.iter().flat_map(|scores| scores.all());
            all.extend(val.map(|(name, value)| (format!("val/{name}"), value)));
            scalars(file, result.step, &all)
        }
        _ => Ok(()),
    }
}

fn scalars(file: &mut EventFile, step: u64, values: &[(String, f64)]) -> Result<()> {
    let values: Vec<(&str, f64)> = values.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    file.scalars(step, &values)
}

/// The configuration of a run as Markdown: a block of code.
fn configuration(run: &RunFolder) -> Result<String> {
    let path = run.file("config.toml");
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, &e))?;
    Ok(text.lines().map(|line| format!("    {line}\n")).collect())
}

/// The pictures that the report of a run has left, by name.
fn pictures(summary: &RunSummary) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = std::fs::read_dir(summary.folder.file("report")) else { return vec![] };
    let png = |entry: std::fs::DirEntry| {
        let path = entry.path();
        let name = path.file_stem()?.to_string_lossy().into_owned();
        path.extension().is_some_and(|end| end == "png").then_some(())?;
        Some((name, std::fs::read(&path).ok()?))
    };
    let mut found: Vec<(String, Vec<u8>)> = entries.flatten().filter_map(png).collect();
    found.sort();
    found
}
