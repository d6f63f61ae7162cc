//! A trained model on a device: from a run, a checkpoint or a bare weight file.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::PathBuf;

use super::ensemble::Answering;
use super::scores::{ClassLoss, Scores, not_finite, score};
use super::session::EvalSession;
use super::verdicts::{Verdicts, logits_of};
use super::{EvalGraph, HostModel, Normalisation, Outputs, Precision, TrainConfig};
use crate::data::preprocess::Steps;
use crate::data::{Batch, ImageSize, View};
use crate::error::{Error, Kind, Result};
use crate::gpu::Gpu;
use crate::metrics::{DetailedReport, Scored, fit_temperature, sigmoid, tempered};
use crate::models::{Model, Task};
use crate::tune::TuningCache;
use crate::weights::Difference;

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// A run folder (its best checkpoint) or a checkpoint file.
    Run(PathBuf),
    /// A bare weight file and what it is.
    Weights {
        /// Model name.
        model: String,
        /// The file.
        file: PathBuf,
        /// Size of the images in pixels.
        size: ImageSize,
        /// Pixel statistics; by default those that go with the file.
        normalisation: Option<Normalisation>,
        /// What is done to pictures before they are normalised; by default what the file says, else nothing.
        preprocess: Option<Steps>,
        /// Class names of a classifier; by default those of HAM10000 if the file has seven outputs, else numbers.
        classes: Option<Vec<String>>,
        /// Accept a file that lacks some of the parameters.
        allow_partial: bool,
    },
}

impl ModelSource {
    /// What it is called: the run, or the file.
    pub fn name(&self) -> String {
        match self {
            Self::Run(path) => path.display().to_string(),
            Self::Weights { file, .. } => file.display().to_string(),
        }
    }
}

/// A model ready to run on a device.
pub struct Predictor {
    /// The configuration it was (or would have been) trained with.
    pub config: TrainConfig,
    /// What it is for.
    pub task: Task,
    /// Class names in the order of the logits.
    pub classes: Vec<String>,
    /// What the weight file lacked or had too much; empty unless it was accepted partially.
    pub difference: Difference,
    /// What else there is to say of the weight file, a line each.
    pub notes: Vec<String>,
    /// What logits are divided by before their softmax, if that was fitted.
    pub temperature: Option<f64>,
    outputs: Outputs,
    /// In which views pictures are shown to the model.
    views: Vec<View>,
    session: EvalSession,
}

impl Predictor {
    /// Loads a model and builds its graph for batches of `batch` images, in the given precision or that of its
    /// training (bare weights are in f32 unless another is given), with the kernels that tuning has chosen.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) for a precision the device lacks; those of
    /// [`HostModel::read`]; [`Kind::Weights`](crate::Kind::Weights) for weights that do not fit; device errors.
    pub fn load(
        gpu: &Gpu,
        source: &ModelSource,
        batch: usize,
        precision: Option<Precision>,
        tuning: Option<&TuningCache>,
    ) -> Result<Self> {
        Self::of(gpu, HostModel::read(source)?, batch, precision, tuning)
    }

    /// The same of a model that was read already.
    ///
    /// # Errors
    /// As [`load`](Self::load), but for those of reading.
    pub fn of(
        gpu: &Gpu,
        model: HostModel,
        batch: usize,
        precision: Option<Precision>,
        tuning: Option<&TuningCache>,
    ) -> Result<Self> {
        let mut host = model;
        host.config.validate()?;
        host.config.precision = precision.unwrap_or(host.config.precision);
        host.config.precision.check(gpu)?;
        let model = Model::find(&host.config.model)?;
        let outputs = host.outputs();
        let (session, difference) =
            host.on_device(gpu, tuning, &|caps| EvalGraph::new(model, &host.config, batch, host.classes.len(), caps))?;
        let HostModel { config, classes, temperature, notes, .. } = host;
        let (task, views) = (model.task(), vec![View::PLAIN]);
        Ok(Self { config, task, classes, difference, notes, temperature, outputs, views, session })
    }

    /// What it answers.
    pub fn answering(&self) -> Answering {
        Answering { task: self.task, classes: self.classes.clone(), outputs: self.outputs }
    }

    /// What turns its raw outputs into probabilities.
    pub fn outputs(&self) -> Outputs {
        self.outputs
    }

    /// From now on shows each picture in all its views, and takes the mean of the probabilities: test-time augmentation.
    /// Returns how many views there are.
    pub fn show_all_views(&mut self) -> usize {
        self.views = View::all(self.config.size);
        self.views.len()
    }

    /// In how many views it sees each picture.
    pub fn views(&self) -> usize {
        self.views.len()
    }

    /// Calls `take` with the number of each valid picture, in order, and what the model says of it. `progress` is called
    /// with the batches done.
    ///
    /// # Errors
    /// Those of the batches, of `take` and of `progress`; device errors.
    pub fn each_picture(
        &mut self,
        gpu: &Gpu,
        batches: impl IntoIterator<Item = Result<Batch>>,
        progress: &mut dyn FnMut(usize) -> Result<()>,
        take: &mut dyn FnMut(usize, &Said) -> Result<()>,
    ) -> Result<()> {
        let Self { session, views, .. } = self;
        let (views, size, task, classes) = (&*views, self.config.size, self.task, self.classes.len());
        let (outputs, temperature) = (self.outputs, self.temperature);
        // The valid pictures of the batches under way.
        let rows: RefCell<VecDeque<usize>> = RefCell::default();
        let shown = batches.into_iter().flat_map(|batch| -> Box<dyn Iterator<Item = Result<Batch>> + '_> {
            match batch {
                Ok(batch) if batch.valid > 0 => {
                    rows.borrow_mut().push_back(batch.valid);
                    Box::new(views.iter().map(move |&view| match view == View::PLAIN {
                        true => Ok(batch.clone()),
                        false => Ok(batch.seen(view, size)),
                    }))
                }
                Ok(_) => Box::new(std::iter::empty()),
                Err(e) => Box::new(std::iter::once(Err(e))),
            }
        });
        // What was said of the batch's pictures so far, how often, and how many pictures came before.
        let (mut batch, mut said, mut before): (Vec<Said>, usize, usize) = (vec![], 0, 0);
        let mut gather = |_: usize, logits: &[f32]| {
            let valid = rows.borrow().front().copied().unwrap_or(1);
            let (view, row) = (said / valid, said % valid);
            let probabilities = |temperature: Option<f64>| -> Result<Vec<f64>> {
                match (task, outputs) {
                    (Task::Segment, _) => Ok(views[view].back(&sigmoid(logits), size)),
                    (Task::Classify, Outputs::Sigmoid) => Ok(sigmoid(logits)),
                    (Task::Classify, Outputs::Softmax) => tempered(logits, classes, temperature.unwrap_or(1.0)),
                }
            };
            let finite = logits.iter().all(|v| v.is_finite());
            let plain = match temperature {
                Some(_) => probabilities(None)?,
                None => vec![],
            };
            let new = Said { logits: logits.to_vec(), plain, probabilities: probabilities(temperature)?, finite };
            match batch.get_mut(row) {
                Some(seen) => seen.add(&new),
                None => batch.push(new),
            }
            said += 1;
            if said < valid * views.len() {
                return Ok(());
            }
            rows.borrow_mut().pop_front();
            said = 0;
            for mut picture in batch.drain(..) {
                picture.divide(views.len());
                before += 1;
                take(before - 1, &picture)?;
            }
            Ok(())
        };
        session.each_picture(gpu, shown, &mut |done| progress(done.div_ceil(views.len())), &mut gather)
    }

    /// What is said of the classes of all pictures.
    ///
    /// # Errors
    /// As [`each_picture`](Self::each_picture); [`Kind::Diverged`](crate::Kind::Diverged) if the outputs are not numbers.
    pub fn verdicts(
        &mut self,
        gpu: &Gpu,
        batches: impl IntoIterator<Item = Result<Batch>>,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Verdicts> {
        let (outputs, alone) = (self.outputs, self.views.len() == 1);
        let mut all = Verdicts { logits: vec![], plain: vec![], probabilities: vec![] };
        self.each_picture(gpu, batches, progress, &mut |_, said| {
            all.extend(said.verdict(outputs, alone)?);
            Ok(())
        })?;
        Ok(all)
    }

    /// Fits the temperature to pictures of these classes, which must not be any that the model was trained on or is tested
    /// with; none if there is no best one.
    ///
    /// # Errors
    /// As [`each_picture`](Self::each_picture); [`Kind::Diverged`](crate::Kind::Diverged) if the outputs are not numbers.
    pub fn fit_temperature(
        &mut self,
        gpu: &Gpu,
        labels: &[usize],
        batches: impl IntoIterator<Item = Result<Batch>>,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Option<f64>> {
        let logits = self.session.logits(gpu, batches, progress)?;
        self.temperature = fit_temperature(&logits, self.classes.len(), labels)?;
        Ok(self.temperature)
    }
}

/// Scores what was said of the classes of images, in every detail: `labels` are those of each, the first one first, in order,
/// and the images are as these scores want them. `operating` asks for the sensitivity of a class at a specificity. All
/// classes weigh one in the loss, which is that of the configuration. `temperature` is that of the only model.
///
/// # Errors
/// Those of the metrics.
pub fn score_in_detail(
    config: &TrainConfig,
    classes: &[String],
    (labels, images): (&[Vec<usize>], &[Scored<'_>]),
    verdicts: &Verdicts,
    operating: Option<(usize, f64)>,
    temperature: Option<f64>,
) -> Result<Scores> {
    let scores = score(labels, verdicts, classes, &vec![1.0; classes.len()], ClassLoss::of(config))?;
    let detailed = DetailedReport::new(classes, images, &verdicts.probabilities, operating)?;
    let calibration = verdicts.calibration(temperature, labels, classes.len())?;
    Ok(Scores { detailed: Some(detailed), calibration, ..scores })
}

/// What a model says of a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// Its raw outputs of the picture as it is.
    pub logits: Vec<f32>,
    /// Probabilities without a temperature, if there is one.
    plain: Vec<f64>,
    /// Probabilities, the mean over all views: of the classes, or of the pixels of a mask, row by row.
    pub probabilities: Vec<f64>,
    finite: bool,
}

impl Said {
    /// Of these raw outputs and probabilities.
    #[cfg(test)]
    pub(super) fn of(logits: Vec<f32>, probabilities: Vec<f64>) -> Self {
        let finite = logits.iter().all(|v| v.is_finite());
        Self { logits, plain: vec![], probabilities, finite }
    }

    /// The mean of what several models say; the raw outputs are those of the first.
    ///
    /// # Errors
    /// [`Kind::Internal`](crate::Kind::Internal) if there are none.
    pub fn mean(all: &[Self]) -> Result<Self> {
        let (first, others) = all.split_first().ok_or_else(|| Error::new(Kind::Internal, "nobody says anything"))?;
        // A model with a temperature has probabilities without it besides, one without has one kind only.
        let both = |said: &Self| match said.plain.is_empty() {
            true => Self { plain: said.probabilities.clone(), ..said.clone() },
            false => said.clone(),
        };
        let mut sum = both(first);
        others.iter().for_each(|said| sum.add(&both(said)));
        sum.divide(all.len());
        Ok(sum)
    }

    /// Checks that the outputs are numbers.
    ///
    /// # Errors
    /// [`Kind::Diverged`](crate::Kind::Diverged) if not.
    pub fn check(&self) -> Result<()> {
        if self.finite { Ok(()) } else { Err(not_finite()) }
    }

    fn add(&mut self, view: &Self) {
        let sum = |to: &mut [f64], from: &[f64]| to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        sum(&mut self.plain, &view.plain);
        sum(&mut self.probabilities, &view.probabilities);
        self.finite &= view.finite;
    }

    fn divide(&mut self, views: usize) {
        self.plain.iter_mut().chain(&mut self.probabilities).for_each(|p| *p /= views as f64);
    }

    /// As what scores want, of a model with classes; `alone` says that there was one view.
    fn verdict(&self, outputs: Outputs, alone: bool) -> Result<Verdicts> {
        self.check()?;
        let plain = if self.plain.is_empty() { self.probabilities.clone() } else { self.plain.clone() };
        let logits = match alone {
            true => self.logits.iter().map(|&v| v.into()).collect(),
            false => logits_of(&plain, outputs),
        };
        Ok(Verdicts { logits, plain, probabilities: self.probabilities.clone() })
    }
}
