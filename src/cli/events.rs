//! `train --json`: what happens, as JSON on standard output, an event on each line.

use serde_json::{Value, json};

use crate::train::{Event, RunSummary};

/// An event, by its name in the field `event`.
pub(super) fn of(event: &Event<'_>) -> Value {
    match event {
        Event::Note(text) => json!({ "event": "note", "text": text }),
        Event::Decoding(done, total) => json!({ "event": "decoding", "done": done, "total": total }),
        Event::Tuning(done, total) => json!({ "event": "tuning", "done": done, "total": total }),
        Event::Scoring(done, total) => json!({ "event": "scoring", "done": done, "total": total }),
        Event::Features(done, total) => json!({ "event": "features", "done": done, "total": total }),
        Event::Ready { run, dataset, split, leak, memory, steps, done, .. } => json!({
            "event": "ready",
            "run": run.path(),
            "dataset": dataset.name,
            "images": dataset.samples.len(),
            "classes": dataset.classes,
            "split": { "train": split.train.len(), "val": split.val.len(), "test": split.test.len() },
            "leak": leak.map(ToString::to_string),
            "memory": memory.total(),
            "steps": steps,
            "done": done,
        }),
        Event::Step { epoch, done, steps, step, last, loss, accuracy } => json!({
            "event": "step",
            "epoch": epoch,
            "done": done,
            "steps": steps,
            "step": step,
            "last": last,
            "loss": loss,
            "accuracy": accuracy,
        }),
        Event::Loss { step, lr, loss } => json!({ "event": "loss", "step": step, "lr": lr, "loss": loss }),
        Event::Epoch(result) => json!({
            "event": "epoch",
            "epoch": result.epoch,
            "step": result.step,
            "lr": result.lr,
            "train_loss": result.train_loss,
            "train_accuracy": result.train_accuracy,
            "val": result.val,
            "seconds": result.seconds,
            "waited_seconds": result.waited,
            "images_per_second": result.images_per_second,
            "best": result.best,
        }),
        Event::Phase { number, phases, config, memory, .. } => json!({
            "event": "phase",
            "phase": number,
            "phases": phases,
            "epochs": config.epochs,
            "lr": config.lr,
            "memory": memory.total(),
        }),
        Event::Stopped(why) => json!({ "event": "stopped", "why": why }),
    }
}

/// The end of a run.
pub(super) fn end(summary: &RunSummary) -> Value {
    json!({
        "event": "end",
        "run": summary.folder.path(),
        "best_epoch": summary.progress.best_epoch,
        "epochs": summary.progress.epoch,
        "steps": summary.progress.step,
        "leak": summary.leak.as_ref().map(ToString::to_string),
        "test": summary.test,
    })
}
