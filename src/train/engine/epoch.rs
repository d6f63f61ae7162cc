//! An epoch of training: its steps, what is written down of them, and its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Engine;
use super::trouble::{MOST_SKIPPED, What};
use crate::data::{LEAKY, Visit, balanced_order, epoch_order};
use crate::error::{Error, Kind, Result};
use crate::train::diagnosis::Lesson;
use crate::train::events::{EpochResult, Event};
use crate::train::mixing::Mixing;
use crate::train::session::StepResult;
use crate::train::{Divergence, Sampling};

impl Engine<'_> {
    /// One epoch, or the rest of one that was interrupted.
    pub(super) fn epoch(&mut self) -> Result<EpochResult> {
        let config = self.config;
        let epoch = self.progress.epoch;
        let begin = self.progress.step - self.steps as u64 * u64::from(epoch);
        self.compute_features()?;
        let mut lessons = self.lessons()?.enumerate();
        // The time that is not counted yet: since when, and what of it steps waited for pictures.
        let mut since = (Instant::now(), Duration::ZERO);
        loop {
            let asked = Instant::now();
            let Some((i, lesson)) = lessons.next() else { break };
            let lesson = lesson?;
            since.1 += asked.elapsed();
            let rate = self.rate(self.progress.step);
            let finished = self.learn(&lesson, rate, Some(since.0))?;
            self.progress.step += 1;
            if let Some(result) = finished {
                self.record(epoch, result)?;
            }
            let done = begin as usize + i + 1;
            let [loss, correct, images] = self.progress.epoch_sums;
            let mean = |sum: f64| (images > 0.0).then(|| sum / images);
            let (last, accuracy) = (self.all_steps(), mean(correct).filter(|_| self.objective.counts_correct()));
            (self.notify)(Event::Step {
                epoch: epoch + 1,
                done,
                steps: self.steps,
                step: self.progress.step,
                last,
                loss: mean(loss),
                accuracy,
            });
            let stopped = self.stops();
            if stopped || self.is_due(since.0) {
                self.drain(epoch)?;
                self.spend(&mut since);
                self.keep()?;
            }
            if stopped {
                return Err(self.stopped_here());
            }
        }
        self.drain(epoch)?;
        self.spend(&mut since);
        // Kept with the epoch still open: an evaluation that is interrupted is done again, not the training.
        let mut checkpoint = self.checkpoint()?;
        self.steps_table.sync()?;
        self.folder.keep_last(&checkpoint)?;
        let val = match self.split.val.is_empty() {
            true => None,
            false => Some(self.scores(&self.split.val.clone()).map_err(|e| self.of_answers(e))?.0),
        };
        let [loss, correct, images] = std::mem::take(&mut self.progress.epoch_sums);
        let [seconds, waited] = std::mem::take(&mut self.progress.epoch_seconds);
        self.progress.epoch += 1;
        // Without validation images the last epoch is the best.
        let monitored = val.as_ref().and_then(|scores| scores.monitored(&config.monitor));
        let value = monitored.unwrap_or(f64::from(self.progress.epoch));
        let lr = self.rate(self.progress.step.saturating_sub(1));
        self.progress.plateau.see(value, config.min_delta, &config.plateau);
        let best = self.progress.best.is_none_or(|b| value > b);
        if best {
            self.progress.best = Some(value);
            self.progress.best_epoch = self.progress.epoch;
        }
        if self.progress.best_of_phase.is_none_or(|(b, _)| value > b + config.min_delta) {
            self.progress.best_of_phase = Some((value, self.progress.epoch));
        }
        let result = EpochResult {
            epoch: self.progress.epoch,
            step: self.progress.step,
            lr,
            train_loss: loss / images.max(1.0),
            train_accuracy: self.objective.counts_correct().then(|| correct / images.max(1.0)),
            val,
            seconds,
            waited,
            images_per_second: images / seconds.max(1e-9),
            best,
        };
        let before = [
            result.epoch.to_string(),
            result.step.to_string(),
            format!("{:e}", result.lr),
            format!("{:.6}", result.train_loss),
        ];
        let behind = [
            format!("{:.3}", result.seconds),
            format!("{:.3}", result.waited),
            format!("{:.1}", result.images_per_second),
        ];
        let behind = behind.into_iter().chain(self.leak.as_ref().map(|_| LEAKY.to_owned()));
        let fields = self.objective.result_fields(result.train_accuracy, result.val.as_ref());
        self.results.row(&before.into_iter().chain(fields).chain(behind).collect::<Vec<_>>())?;
        self.progress.rank(value, config.keep.best);
        self.progress.fallen.retain(|&epoch| !config.keep.by_number(epoch));
        let kept =
            config.keep.by_number(result.epoch) || self.progress.kept.iter().any(|&(_, epoch)| epoch == result.epoch);
        // After the row, on the disk: a resumed run drops rows beyond its checkpoint, but cannot make up for one that is missing.
        // The weights are those of before the evaluation.
        checkpoint.progress = self.progress.clone();
        if config.divergence == Divergence::LowerRate && self.team.is_first() {
            checkpoint.write(&self.folder.start_of_epoch())?;
        }
        self.results.sync()?;
        self.folder.keep(&checkpoint, best, kept)?;
        Ok(result)
    }

    /// The error of a validation.
    fn of_answers(&mut self, error: Error) -> Error {
        match error.kind() {
            Kind::Diverged => self.in_trouble(self.progress.step.saturating_sub(1), What::Answers),
            _ => error,
        }
    }

    /// What the steps that are left of the running epoch learn from, in order.
    pub(super) fn lessons(&self) -> Result<impl Iterator<Item = Result<Lesson>> + use<>> {
        let (config, epoch) = (self.config, self.progress.epoch);
        let begin = self.progress.step - self.steps as u64 * u64::from(epoch);
        let left = self.end().saturating_sub(self.progress.step);
        let order = match config.sampling {
            Sampling::Natural => epoch_order(&self.split.train, config.seed, epoch, config.shuffle),
            Sampling::Balanced => balanced_order(&self.split.train, &self.samples.labels, config.seed, epoch),
        };
        let first = begin as usize * config.batch;
        let count = (self.steps - begin as usize).min(left as usize);
        let batches = order[first..first + count * config.batch].chunks_exact(config.batch);
        let order: Vec<Visit> = batches.flat_map(|batch| &batch[self.shares.rows.clone()]).copied().collect();
        let of = (Arc::clone(&self.samples.pixels), Arc::clone(&self.samples.labels));
        let mixing = Mixing::of(config, &self.split.train);
        let mut partners = mixing.map(|m| m.partners(of, &order, epoch, self.loader)).transpose()?;
        let batches = self.place.batches(&self.samples, order, self.loader)?;
        Ok(batches.map(move |batch| Ok((batch?, partners.as_mut().and_then(Iterator::next).transpose()?))))
    }

    /// Counts and writes down a step whose result has arrived.
    fn record(&mut self, epoch: u32, result: StepResult) -> Result<()> {
        let rate = self.rate(result.step);
        let row = [result.step.to_string(), (epoch + 1).to_string(), format!("{rate:e}"), format!("{:?}", result.loss)];
        self.steps_table.row(&row)?;
        (self.notify)(Event::Loss { step: result.step + 1, lr: rate, loss: result.loss });
        self.skipped = if result.skipped { self.skipped + 1 } else { 0 };
        let what = match result.fault {
            Some(step) if step < result.step => Some((step, What::Update)),
            _ if !result.loss.is_finite() => Some((result.step, What::Loss(result.loss))),
            Some(step) => Some((step, What::Update)),
            None if self.skipped > MOST_SKIPPED => Some((result.step, What::Overflow)),
            None => None,
        };
        if let Some((step, what)) = what {
            return Err(self.in_trouble(step, what));
        }
        let images = result.images as f64;
        let sums = &mut self.progress.epoch_sums;
        sums[0] += f64::from(result.loss) * images;
        sums[1] += result.correct as f64;
        sums[2] += images;
        Ok(())
    }

    /// Waits for all steps under way.
    fn drain(&mut self, epoch: u32) -> Result<()> {
        while let Some(result) = self.place.train.collect(self.gpu)? {
            self.record(epoch, result)?;
        }
        // Micro-batches do not see what closes the last step.
        match self.place.fault(self.gpu)? {
            true => Err(self.in_trouble(self.progress.step.saturating_sub(1), What::Update)),
            false => Ok(()),
        }
    }

    /// Counts the time since it was last counted.
    fn spend(&mut self, since: &mut (Instant, Duration)) {
        let (from, waited) = std::mem::replace(since, (Instant::now(), Duration::ZERO));
        let seconds = from.elapsed().as_secs_f64();
        self.progress.seconds += seconds;
        self.progress.epoch_seconds[0] += seconds;
        self.progress.epoch_seconds[1] += waited.as_secs_f64();
    }
}
