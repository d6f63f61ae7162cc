//! What `train` and `reproduce` tell of a training as it goes, for people.

use super::bytes;
use super::progress::Progress;
use crate::train::{EpochResult, Event, Protocol, Report, TrainConfig};

/// Tells of an event.
pub(super) fn show(progress: &mut Progress, config: &TrainConfig, event: Event<'_>) {
    match event {
        Event::Note(note) => progress.line(&format!("note     {note}")),
        Event::Decoding(done, total) => progress.show("decoding", done, total, String::new),
        Event::Tuning(done, total) => progress.show("measuring kernels", done, total, String::new),
        Event::Features(done, total) => progress.show("features", done, total, String::new),
        Event::Phase { number, phases, config, trained, memory } => {
            let TrainConfig { epochs, lr, schedule, .. } = config;
            let schedule = schedule.name();
            progress.line(&format!("phase    {number} of {phases}: {epochs} epochs, learning rate {lr:e}, {schedule}"));
            progress.line(&format!("train    {trained}"));
            progress.line(&format!("memory   {} on the device", bytes(memory.total())));
        }
        Event::Ready { run, dataset, split, leak, memory, memory_f32, trained, steps } => {
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
            progress.line(&format!("data     {}: {images} images of {lesions} lesions, {what}", dataset.name));
            progress.line(&format!("split    {train} train, {val} validation, {test} test ({kind}{fold})"));
            if let Some(leak) = leak {
                progress.line(&format!("split    {leak}"));
            }
            if !config.preprocess.steps.is_empty() {
                progress.line(&format!("pictures {}", config.preprocess.steps));
            }
            progress.line(&format!("model    {model}, {size} pixels, batch {batch}"));
            if !config.phases.is_empty() {
                progress.line(&phases_line(config));
            }
            progress.line(&format!("train    {trained}"));
            progress.line(&format!(
                "memory   {} on the device: {} parameters and optimizer, {} activations and gradients ({} without reuse{})",
                bytes(memory.total()),
                bytes(memory.variables),
                bytes(memory.slots + memory.io),
                bytes(memory.without_reuse),
                memory_f32.map_or(String::new(), |m| format!("; in f32 it would be {} in all", bytes(m.total())))
            ));
            progress.line(&format!("run      {}, {steps} steps an epoch", run.path().display()));
        }
        Event::Step { epoch, done, steps, loss } => {
            let loss = || loss.map_or(String::new(), |loss| format!("loss {loss:.4}"));
            progress.show(&format!("epoch {epoch}"), done, steps, loss);
        }
        Event::Epoch(result) => progress.line(&epoch_line(result)),
        Event::Stopped(why) => progress.line(&format!("stopped  {why}")),
    }
}

/// The phases of a run, in a line.
fn phases_line(config: &TrainConfig) -> String {
    let phase =
        |p: TrainConfig| format!("{} ({} epochs, {:e}, {})", p.fine_tune.train, p.epochs, p.lr, p.schedule.name());
    let phases: Vec<String> = config.by_phase().into_iter().map(phase).collect();
    format!("phases   {}; each with a fresh optimizer and a schedule of its own", phases.join(", "))
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
    let waited = match r.waited > 0.02 * r.seconds {
        true => format!(", {:.1} s of it waiting for pictures", r.waited),
        false => String::new(),
    };
    format!(
        "epoch {:>3} | train loss {:.4}{accuracy}{val} | {:.1} s{waited}, {:.0} img/s{}",
        r.epoch,
        r.train_loss,
        r.seconds,
        r.images_per_second,
        if r.best { " *" } else { "" }
    )
}
