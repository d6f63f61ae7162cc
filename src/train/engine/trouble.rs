//! Numbers that are not finite: where they came from, and going back behind them.

use std::path::Path;

use serde::Serialize;

use super::Engine;
use super::start::tables;
use crate::data::Batch;
use crate::error::{Error, Kind, Result};
use crate::tensor::HostTensor;
use crate::train::checkpoint::{Checkpoint, Setback};
use crate::train::diagnosis::{Lesson, Pass, Picture, Value, Watch, channels};
use crate::train::events::Event;
use crate::train::mixing::Partners;
use crate::train::run_folder::json_of;
use crate::train::session::StepResult;
use crate::train::{Divergence, Precision};
use crate::weights::Tensors;

/// What the learning rate is multiplied by each time a run goes back.
pub(super) const LOWER: f64 = 0.25;
/// How often a run goes back.
const SETBACKS: usize = 3;
/// Steps in a row that are skipped at most, each with half the loss scale of the one before: from 65536 down to 6e-5.
pub(super) const MOST_SKIPPED: u32 = 30;

/// What is not finite in a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum What {
    /// The loss.
    Loss(f32),
    /// What the optimizer made of weights and gradients.
    Update,
    /// The gradients of this and many steps before, whatever the loss scale.
    Overflow,
    /// Something else that a checkpoint would have held, at the latest.
    State,
    /// What the model says of validation pictures, behind the last step of an epoch.
    Answers,
}

/// A step that went wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Trouble {
    /// The step, from 0.
    step: u64,
    what: What,
}

impl Trouble {
    fn describe(self) -> String {
        let step = self.step + 1;
        match self.what {
            What::Loss(loss) => format!("the loss of step {step} is {loss}"),
            What::Update => format!("step {step} makes weights that are not finite numbers"),
            What::Answers => format!("outputs for validation pictures are not finite numbers after step {step}"),
            What::State => format!("statistics of the layers are not finite numbers after step {step} or before"),
            What::Overflow => format!("the gradients of step {step} and the {MOST_SKIPPED} before overflow in 16 bits"),
        }
    }
}

/// What is written down of such a step.
#[derive(Serialize)]
struct Dump<'a> {
    /// Where several train together: whose rows of the batch these are.
    #[serde(skip_serializing_if = "Option::is_none")]
    rank: Option<usize>,
    /// From 1.
    step: u64,
    epoch: u32,
    learning_rate: f64,
    what: String,
    /// The loss when the step was done again; `null` if it is not finite.
    loss: Option<f32>,
    /// Whether the same was wrong again.
    again: bool,
    /// Where it began.
    first: Option<&'a Value>,
    images: Vec<Picture>,
    /// All weights before the step, then every result of the forward and of the backward pass in order; and what the
    /// optimizer made of it.
    values: &'a [Value],
}

fn all_finite(weights: &Tensors, optimizer: &Tensors) -> bool {
    weights.values().chain(optimizer.values()).all(|tensor| tensor.data().iter().all(|v| v.is_finite()))
}

impl Engine<'_> {
    /// Remembers what was wrong; the error that ends the epoch.
    pub(super) fn in_trouble(&mut self, step: u64, what: What) -> Error {
        let trouble = Trouble { step, what };
        self.trouble = Some(trouble);
        Error::new(Kind::Diverged, trouble.describe()).at(self.folder.path().display())
    }

    /// Refuses to keep what is not finite: what no step notices, as statistics of batch-norm.
    pub(super) fn check_finite(&mut self, weights: &Tensors, optimizer: &Tensors) -> Result<()> {
        match all_finite(weights, optimizer) {
            true => Ok(()),
            false => Err(self.in_trouble(self.progress.step.saturating_sub(1), What::State)),
        }
    }

    /// After an epoch that ended in `error`: looks where it came from, if a step went wrong, and goes back to the last
    /// checkpoint where that is wanted. Else returns the error, with what was found.
    pub(super) fn recover(&mut self, error: Error) -> Result<()> {
        let Some(trouble) = self.trouble.take() else { return Err(error) };
        // All ranks know of it.
        self.team.forgive();
        let what = trouble.describe();
        let found = match trouble.what {
            What::Answers => Ok("the weights are, but what is computed from them is not".to_owned()),
            _ => {
                let found = self.diagnose(trouble);
                let found = self.team.agreed("where it comes from", found);
                self.team.forgive();
                found
            }
        };
        let found = match found {
            Ok(found) => found,
            Err(e) if e.kind() == Kind::Interrupted => {
                let folder = self.folder.path().display().to_string();
                return Err(Error::new(Kind::Interrupted, format!("interrupted while looking for why {what}"))
                    .at(&folder)
                    .next(format!("`lesion-gpu train --resume {folder}` goes on from the last checkpoint")));
            }
            Err(e) if e.kind() == Kind::DeviceLost || self.gpu.is_lost() => return Err(e),
            Err(e) => format!("where it comes from was not found: {}", e.what()),
        };
        let times = self.progress.setbacks.len();
        if self.config.divergence == Divergence::LowerRate && times < SETBACKS {
            self.set_back(trouble, &what)?;
            let (lower, back_to) = (1.0 / LOWER, self.progress.step);
            (self.notify)(Event::Note(format!(
                "{what}; {found}; went back to step {back_to}, and on with a learning rate {lower} times lower ({} of \
                 {SETBACKS} times)",
                times + 1
            )));
            return Ok(());
        }
        let mut next = format!("{found}; start a new run with a smaller --lr");
        if self.config.clip_norm.is_none() {
            next += ", with --clip-norm";
        }
        next += match self.config.divergence {
            Divergence::Stop => ", or with --on-divergence lower-lr, which goes back and on more slowly",
            Divergence::LowerRate => ": one that was lowered three times did not help",
        };
        if self.config.precision == Precision::Mixed {
            next += ", or in --precision f32";
        }
        let best = self.folder.best();
        if best.is_file() {
            next += &format!("; it may begin with --weights {}", best.display());
        }
        Err(Error::new(Kind::Diverged, what).at(self.folder.path().display()).next(next))
    }

    /// Goes back to where the epoch began; the second time in a phase, or where nothing would be done again, to the best epoch
    /// of the phase. Where a run was stopped and resumed in between does not matter.
    fn set_back(&mut self, trouble: Trouble, why: &str) -> Result<()> {
        let (phase, mut setbacks) = (self.progress.phase, self.progress.setbacks.clone());
        let within =
            |checkpoint: &Checkpoint| checkpoint.progress.phase == phase && checkpoint.progress.step <= trouble.step;
        let read = |path: &Path| Checkpoint::read(path).ok().filter(within);
        let again = setbacks.iter().any(|setback| setback.phase == phase.number);
        let goal = self.read(|folder| {
            let start = read(&folder.start_of_epoch());
            let in_vain = start.as_ref().is_none_or(|start| start.progress.step == trouble.step);
            let best = if in_vain || again { read(&folder.best()) } else { None };
            best.or(start).map_or_else(|| folder.checkpoint().map(|(last, _)| last), Ok)
        })?;
        let undone = goal.progress.epoch + 1..=self.progress.epoch + 1;
        self.go_back(goal)?;
        // None is forgotten by going back behind it.
        setbacks.push(Setback {
            step: trouble.step + 1,
            back_to: self.progress.step,
            phase: phase.number,
            why: why.to_owned(),
        });
        self.progress.setbacks = setbacks;
        self.folder.drop_epochs(&undone.collect::<Vec<_>>())?;
        let folder = &self.folder;
        self.progress.kept.retain(|&(_, epoch)| folder.epoch(epoch).is_file());
        let leaky = self.leak.is_some();
        (self.steps_table, self.results) =
            tables(&self.folder, &self.objective, leaky, Some(&self.progress), &mut *self.notify)?;
        self.keep_start()
    }

    /// Writes a checkpoint where an epoch begins: runs that may go back go back there.
    pub(super) fn keep_start(&mut self) -> Result<()> {
        let checkpoint = self.checkpoint()?;
        if self.config.divergence == Divergence::LowerRate && self.team.is_first() {
            checkpoint.write(&self.folder.start_of_epoch())?;
        }
        self.folder.keep_last(&checkpoint)
    }

    /// Takes weights, optimizer and progress back to a checkpoint.
    fn go_back(&mut self, checkpoint: Checkpoint) -> Result<()> {
        // What is still under way belongs to steps that are done again.
        while self.place.train.collect(self.gpu)?.is_some() {}
        self.place.resume(self.gpu, &checkpoint)?;
        // What is undone took its time.
        let spent = self.progress.seconds;
        self.progress = checkpoint.progress;
        self.progress.seconds = self.progress.seconds.max(spent);
        self.skipped = 0;
        Ok(())
    }

    /// Goes back to the last checkpoint, does the steps up to this one again, which are the same to the bit, and then this one
    /// operation by operation. Writes down what it saw, and returns it in words.
    fn diagnose(&mut self, trouble: Trouble) -> Result<String> {
        let what = trouble.describe();
        (self.notify)(Event::Note(format!("{what}: doing it again to see where that comes from")));
        let setbacks = self.progress.setbacks.clone();
        let before = self.read(|folder| Ok(folder.checkpoint()?.0))?;
        let trouble = match trouble.what {
            What::State => Trouble { step: self.first_bad(before.clone(), &setbacks, trouble.step)?, ..trouble },
            _ => trouble,
        };
        let (lesson, rate) = self.replay(before, &setbacks, trouble.step)?;
        let epoch = self.progress.epoch;
        let at = (trouble.step, epoch, rate);
        let (gpu, config) = (self.gpu, self.phase());
        let source = self.place.source();
        let watch = Watch::new(self.model, config, &source, self.objective.classes().len(), &self.caps)?;
        let portion = self.portion(&lesson)?;
        // It moves the statistics of batch-norm, as the step itself will.
        let statistics = self.place.statistics(gpu)?;
        let mut values = watch.run(gpu, &self.objective, &mut self.place.store, &lesson, at, portion.as_ref())?;
        statistics.iter().try_for_each(|(name, bytes)| self.place.store.write_bytes(gpu, name, bytes))?;
        let (batch, partners) = &lesson;
        let result = self.learn(&lesson, rate, None)?;
        let result = match result {
            Some(result) => Some(result),
            None => self.place.train.collect(gpu)?,
        };
        let (weights, optimizer) = self.place.export(gpu)?;
        let update = |(name, tensor): (&String, &HostTensor)| Value::of(Pass::Update, name, tensor);
        values.extend(weights.iter().chain(&optimizer).map(update));
        let first = values.iter().find(|value| value.holds.is_bad());
        let (speaker, bad) = self.speaker(first.is_some())?;
        let again = self.again(trouble, result.as_ref(), bad)?;
        let dump = Dump {
            rank: (!self.team.is_alone()).then_some(speaker),
            step: trouble.step + 1,
            epoch: epoch + 1,
            learning_rate: rate,
            what,
            loss: result.map(|result| result.loss).filter(|loss| loss.is_finite()),
            again,
            first,
            images: self.pictures(batch, partners.as_ref()),
            values: &values,
        };
        // After a setback it may be the same step once more.
        let name = match setbacks.len() {
            0 => format!("diverged-{}.json", trouble.step + 1),
            times => format!("diverged-{}-{}.json", trouble.step + 1, times + 1),
        };
        let text = json_of(&name, &dump)?;
        let found = first.map_or_else(|| "every number was finite when it was done again".to_owned(), Value::describe);
        let found =
            if again { found } else { format!("{found} (done again, the step did not go wrong in the same way)") };
        let found = if trouble.what == What::State { format!("in step {}, {found}", trouble.step + 1) } else { found };
        let (found, text) = self.as_it_says(speaker, (found, text))?;
        self.folder.write(&name, text.as_bytes())?;
        Ok(format!("{found}; pictures and numbers of the step are in {}", self.folder.file(&name).display()))
    }

    /// Which rank tells of a step: the first that saw something bad, and whether any did.
    fn speaker(&self, bad: bool) -> Result<(usize, bool)> {
        let all = self.team.exchange("who saw it", Ok(vec![bad.into()]))?;
        let first = all.iter().position(|bad| bad == &[1]);
        Ok((first.unwrap_or_default(), first.is_some()))
    }

    /// What a rank says and writes of a step, on all ranks.
    fn as_it_says(&self, speaker: usize, own: (String, String)) -> Result<(String, String)> {
        if self.team.is_alone() {
            return Ok(own);
        }
        let bad = |e: serde_json::Error| Error::new(Kind::Internal, format!("a diagnosis cannot be sent: {e}"));
        let own = if self.team.rank() == speaker { serde_json::to_vec(&own).map_err(bad) } else { Ok(vec![]) };
        serde_json::from_slice(&self.team.exchange("what was seen", own)?[speaker]).map_err(bad)
    }

    /// Whether a step that was done again went wrong as before.
    fn again(&self, trouble: Trouble, result: Option<&StepResult>, bad: bool) -> Result<bool> {
        Ok(match trouble.what {
            What::Loss(_) => result.is_some_and(|result| !result.loss.is_finite()),
            What::Update => self.place.fault(self.gpu)?,
            What::Overflow => result.is_some_and(|result| result.skipped),
            What::State | What::Answers => bad,
        })
    }

    /// Goes back to a checkpoint, and from there with the rates that were lowered so often.
    fn rewind(&mut self, before: Checkpoint, setbacks: &[Setback]) -> Result<()> {
        self.go_back(before)?;
        self.progress.setbacks = setbacks.to_vec();
        Ok(())
    }

    /// Does the steps from a checkpoint to `step` again; returns what that one learns from, and its learning rate.
    fn replay(&mut self, before: Checkpoint, setbacks: &[Setback], step: u64) -> Result<(Lesson, f64)> {
        self.rewind(before, setbacks)?;
        for lesson in self.lessons()? {
            let lesson = lesson?;
            if self.progress.step == step {
                while self.place.train.collect(self.gpu)?.is_some() {}
                return Ok((lesson, self.rate(step)));
            }
            self.repeat(&lesson)?;
        }
        Err(Error::new(Kind::Internal, format!("step {step} is not of the epoch of the last checkpoint")))
    }

    /// Does the steps from a checkpoint again, one by one, until something that a checkpoint holds is not finite; `last` at the
    /// latest.
    fn first_bad(&mut self, before: Checkpoint, setbacks: &[Setback], last: u64) -> Result<u64> {
        self.rewind(before, setbacks)?;
        for lesson in self.lessons()? {
            self.repeat(&lesson?)?;
            let done = self.progress.step - 1;
            let (weights, optimizer) = self.place.export(self.gpu)?;
            if done >= last || !all_finite(&weights, &optimizer) {
                return Ok(done);
            }
        }
        Ok(last)
    }

    fn repeat(&mut self, lesson: &Lesson) -> Result<()> {
        let rate = self.rate(self.progress.step);
        self.learn(lesson, rate, None)?;
        self.progress.step += 1;
        if self.stops() { Err(Error::new(Kind::Interrupted, "interrupted")) } else { Ok(()) }
    }

    /// The pictures of a batch.
    fn pictures(&self, batch: &Batch, partners: Option<&Partners>) -> Vec<Picture> {
        let id = |sample: u32| self.dataset.samples.get(sample as usize).map_or(String::new(), |s| s.id.clone());
        let area = self.config.size.area();
        let pictures = batch.pixels.len() == area * batch.samples.len();
        let picture = |(row, &sample): (usize, &u32)| Picture {
            image: id(sample),
            class: self
                .dataset
                .samples
                .get(sample as usize)
                .map_or(String::new(), |s| self.dataset.classes[s.label].clone()),
            partner: partners.and_then(|partners| partners.batch.samples.get(row)).map(|&partner| id(partner)),
            channels: pictures.then(|| channels(&batch.pixels[row * area..(row + 1) * area])),
        };
        batch.samples.iter().enumerate().map(picture).collect()
    }
}
