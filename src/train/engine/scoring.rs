//! What is scored in training, and at its end: validation after each epoch; then the best checkpoint, which gets its
//! temperature.

use super::{Engine, interrupted};
use crate::data::{Batch, LastBatch, Leak, LoaderOptions};
use crate::error::{Kind, Result};
use crate::metrics::calibration::{NO_TEMPERATURE, fit_temperature};
use crate::train::Outputs;
use crate::train::answers::Given;
use crate::train::events::Event;
use crate::train::objective::{Objective, score_drawn};
use crate::train::phase::Plans;
use crate::train::scores::Scores;

impl Engine<'_> {
    /// The samples of an evaluation that are this rank's to look at.
    fn own<'s>(&self, indices: &'s [usize]) -> &'s [usize] {
        &indices[self.team.share(indices.len())]
    }

    /// The batches of an evaluation.
    fn batches(&self, indices: &[usize]) -> Result<Box<dyn Iterator<Item = Result<Batch>>>> {
        let options = LoaderOptions { batch: self.phase().images_at_once(), last: LastBatch::Pad, ..self.loader };
        self.place.batches(&self.samples, indices.to_vec(), options)
    }

    /// How many these are.
    fn batches_of(&self, indices: &[usize]) -> usize {
        indices.len().div_ceil(self.phase().images_at_once())
    }

    /// The logits of samples, of a model that classifies.
    fn class_logits(&mut self, indices: &[usize]) -> Result<Option<Vec<f32>>> {
        if indices.is_empty() || !matches!(self.objective, Objective::Classify { .. }) {
            return Ok(None);
        }
        let own = self.own(indices);
        let batches = self.batches(own)?;
        let (all, interrupt, notify) = (self.batches_of(own), self.interrupt, &mut *self.notify);
        let logits = self.place.eval.logits(self.gpu, batches, &mut |done| {
            notify(Event::Scoring(done, all));
            interrupted(interrupt)
        });
        let logits = self.put_together(logits);
        logits.map(Some).map_err(|e| if e.kind() == Kind::Interrupted { self.stopped_here() } else { e })
    }

    /// The temperature of the validation pictures' logits, if the classes have a softmax.
    fn fit_temperature(&mut self, val: &[usize], logits: &[f32]) -> Result<Option<f64>> {
        if self.objective.outputs() != Outputs::Softmax {
            return Ok(None);
        }
        let labels: Vec<usize> = val.iter().map(|&i| self.dataset.samples[i].label).collect();
        let temperature = fit_temperature(logits, self.objective.classes().len(), &labels)?;
        if temperature.is_none() {
            (self.notify)(Event::Note(format!("no temperature was kept: {NO_TEMPERATURE}")));
        }
        Ok(temperature)
    }

    /// The scores of samples, whose logits are given where there are classes, at a temperature.
    fn scores_at(
        &mut self,
        indices: &[usize],
        logits: Option<Vec<f32>>,
        temperature: Option<f64>,
    ) -> Result<Option<(Scores, Given)>> {
        match logits {
            _ if indices.is_empty() => Ok(None),
            None => self.scores(indices).map(Some),
            Some(logits) => self.objective.score_logits((&self.dataset, indices), &logits, temperature).map(Some),
        }
    }

    pub(super) fn scores(&mut self, indices: &[usize]) -> Result<(Scores, Given)> {
        if let Some(logits) = self.class_logits(indices)? {
            return self.objective.score_logits((&self.dataset, indices), &logits, None);
        }
        let own = self.own(indices);
        let batches = self.batches(own)?;
        let (all, interrupt, notify) = (self.batches_of(own), self.interrupt, &mut *self.notify);
        let of = (&*self.samples.pixels, own);
        let eval = &mut self.place.eval;
        let drawn = self.objective.draw(self.gpu, eval, of, batches, &mut |done| {
            notify(Event::Scoring(done, all));
            interrupted(interrupt)
        });
        let scores = self.put_together(drawn).and_then(|drawn| score_drawn(&drawn));
        scores.map_err(|e| if e.kind() == Kind::Interrupted { self.stopped_here() } else { e })
    }

    /// Fits a temperature to the validation images and keeps it in the best checkpoint, scores that on the test images, and
    /// writes `metrics.json`.
    pub(super) fn test(&mut self) -> Result<Option<Scores>> {
        let mut note = None;
        let mut best = self.read(|folder| {
            let (best, other) = folder.read_best(&self.progress)?;
            note = other;
            Ok(best)
        })?;
        let replaced = note.is_some();
        note.into_iter().for_each(|note| (self.notify)(Event::Note(note)));
        let (config, outputs) = (self.phase(), self.objective.classes().len());
        let plans = Plans { model: self.model, config, outputs, samples: 0, budget: None, cache: false };
        self.place.evaluate_with(self.gpu, &self.caps, plans, &best.weights)?;
        let (val, test) = (self.split.val.clone(), self.split.test.clone());
        let logits = self.class_logits(&val)?;
        let temperature = match &logits {
            Some(logits) if self.config.temperature => self.fit_temperature(&val, logits)?,
            _ => None,
        };
        let as_written = best.temperature == temperature && !replaced;
        best.temperature = temperature;
        // Only the first rank knows whether it was replaced.
        if !as_written && self.team.is_first() {
            best.write(&self.folder.best())?;
        }
        let val = self.scores_at(&val, logits, temperature)?.map(|(scores, _)| scores);
        let logits = self.class_logits(&test)?;
        let answered = self.scores_at(&test, logits, temperature)?;
        if let Some((_, given)) = &answered {
            let table = self.objective.answers(self.leak.is_some(), &self.dataset, &test, given)?;
            self.folder.write("test.csv", &table)?;
        }
        let test = answered.map(|(scores, _)| scores);
        self.folder.write_json(
            "metrics.json",
            &serde_json::json!({
                "best_epoch": best.progress.best_epoch,
                "steps": self.progress.step,
                "epochs": self.progress.epoch,
                "training_seconds": self.progress.seconds,
                "stopped": self.progress.stopped,
                "setbacks": self.progress.setbacks,
                "classes": self.objective.classes(),
                "temperature": temperature,
                "dataset": self.dataset.name,
                "leak": self.leak.as_ref().map(Leak::to_string),
                "val": val,
                "test": test,
            }),
        )?;
        Ok(test)
    }
}
