//! Models on a device that say where they look.

use super::cam::{grad_cam, grad_cam_plus_plus};
use super::graph::{Graph, SCORE, Seen};
use super::rollout::rollout;
use super::{CamMap, Look, Method};
use crate::data::{Batch, ImageSize};
use crate::error::{Error, Kind, Result};
use crate::gpu::Gpu;
use crate::metrics::{argmax, sigmoid, tempered};
use crate::models::{Model, Task};
use crate::train::{EvalSession, HostModel, Outputs, Precision, TrainConfig, not_finite};
use crate::tune::TuningCache;
use crate::weights::Difference;

/// A model ready to be explained on a device.
pub struct Explainer {
    /// The configuration it was (or would have been) trained with, but in f32.
    pub config: TrainConfig,
    /// What it is for.
    pub task: Task,
    /// Class names in the order of the logits.
    pub classes: Vec<String>,
    /// What the weight file lacked or had too much; empty unless it was accepted partially.
    pub difference: Difference,
    /// What else there is to say of the weight file, a line each.
    pub notes: Vec<String>,
    /// What logits are divided by before their softmax, if that was fitted. It changes no map.
    pub temperature: Option<f64>,
    method: Method,
    seen: Seen,
    outputs: Outputs,
    session: EvalSession,
}

/// What there is to say of a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// The class whose score is explained: the predicted one, if no other was asked for.
    pub class: usize,
    /// The model's probability of that class; none of a model that segments.
    pub probability: Option<f64>,
    /// What speaks for it, as the model sees the picture.
    pub map: CamMap,
}

impl Explainer {
    /// Brings a model to the device for batches of `batch` pictures, with the kernels that tuning has chosen.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a layer the model does not have, or a method it cannot be looked at with; [`Kind::Weights`] for
    /// weights that do not fit; device errors.
    pub fn new(gpu: &Gpu, model: HostModel, batch: usize, look: &Look, tuning: Option<&TuningCache>) -> Result<Self> {
        let mut host = model;
        host.config.validate()?;
        host.config.precision = Precision::F32;
        let model = Model::find(&host.config.model)?;
        let graph = Graph::new(model, &host.config, batch, host.classes.len(), look)?;
        let (session, difference) = host.on_device(gpu, tuning, &|caps| graph.plan(caps))?;
        let (task, outputs) = (model.task(), host.outputs());
        let Graph { method, seen, .. } = graph;
        let HostModel { config, classes, temperature, notes, .. } = host;
        Ok(Self { config, task, classes, difference, notes, temperature, method, seen, outputs, session })
    }

    /// How maps are made.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The layer that is looked at; none with [`Method::Rollout`].
    pub fn layer(&self) -> Option<&str> {
        match &self.seen {
            Seen::Layer(layer) => Some(&layer.name),
            Seen::Attention { .. } => None,
        }
    }

    /// The number of the class called `name`.
    ///
    /// # Errors
    /// [`Kind::Usage`] if there is none, with those there are; or if maps are the same for all classes.
    pub fn class(&self, name: &str) -> Result<usize> {
        if self.method == Method::Rollout {
            return Err(Error::new(Kind::Usage, "attention rollout is the same for all classes")
                .next("leave --class away, or use --method grad-cam or grad-cam++"));
        }
        self.classes.iter().position(|class| class == name).ok_or_else(|| {
            let names = self.classes.join(", ");
            Error::new(Kind::Usage, format!("the model has no class '{name}'")).next(format!("choose one of: {names}"))
        })
    }

    /// Explains the valid pictures of a batch, prepared as the [configuration](Self::config) says. `classes` has for each of
    /// them the number of the class to be explained, or none for the predicted one. A picture's map does not depend on the
    /// others. Of a model that segments, what is explained is the mask it draws: the score is the sum of the logits of the pixels
    /// inside, or of all where none is (K. Vinogradova, A. Dibrov and G. Myers, "Towards interpretable semantic segmentation via
    /// gradient-weighted class activation mapping", AAAI 2020).
    ///
    /// # Errors
    /// [`Kind::Usage`] for a class there is not; [`Kind::Shape`] unless the batch has the rows and size the explainer was
    /// made for, and `classes` as many as it has pictures; [`Kind::Diverged`] if the outputs are not numbers; device errors.
    pub fn explain(&mut self, gpu: &Gpu, batch: &Batch, classes: &[Option<usize>]) -> Result<Vec<Explanation>> {
        let (asked, pictures, rows) = (classes.len(), batch.valid, self.rows());
        if asked != pictures || pictures > rows {
            let what = format!("{asked} classes of {pictures} pictures are to be explained, {rows} at a time");
            return Err(Error::new(Kind::Shape, what));
        }
        if let Some(class) = classes.iter().flatten().find(|class| **class >= self.classes.len()) {
            return Err(Error::new(Kind::Usage, format!("the model has no class number {class}")));
        }
        self.session.upload(gpu, batch)?;
        if let Seen::Layer(_) = self.seen {
            // What is predicted is not known before the first run.
            let logits = match self.task == Task::Classify && !classes.contains(&None) {
                true => vec![0.0; self.logits()],
                false => {
                    self.set_score(gpu, &vec![0.0; self.logits()])?;
                    self.run(gpu)?
                }
            };
            self.set_score(gpu, &self.score(&logits, classes))?;
        }
        let logits = self.run(gpu)?;
        let maps = self.maps(gpu, batch.valid)?;
        let said = logits.chunks_exact(self.logits() / self.rows()).zip(classes).zip(maps);
        said.map(|((logits, class), map)| {
            if !logits.iter().all(|v| v.is_finite()) || !map.is_finite() {
                return Err(not_finite().next("the weights are damaged or come from a run that diverged"));
            }
            let (class, probability) = match self.task {
                Task::Segment => (0, None),
                Task::Classify => {
                    let class = class.unwrap_or(argmax(logits));
                    (class, self.probabilities(logits)?.get(class).copied())
                }
            };
            Ok(Explanation { class, probability, map })
        })
        .collect()
    }

    /// Pictures of a run.
    fn rows(&self) -> usize {
        let (_, logits) = &self.session.executable().plan().outputs[0];
        logits.shape.dims().first().copied().unwrap_or_default().max(1)
    }

    /// Logits of a run.
    fn logits(&self) -> usize {
        self.session.executable().plan().outputs[0].1.shape.len()
    }

    /// Runs the uploaded batch, and waits for its logits.
    fn run(&self, gpu: &Gpu) -> Result<Vec<f32>> {
        self.session.executable().run(gpu);
        gpu.check()?;
        self.output(gpu, 0)
    }

    fn output(&self, gpu: &Gpu, i: usize) -> Result<Vec<f32>> {
        Ok(self.session.executable().read_output(gpu, i)?.into_data())
    }

    fn set_score(&self, gpu: &Gpu, score: &[f32]) -> Result<()> {
        self.session.executable().set_input(gpu, SCORE, bytemuck::cast_slice(score))
    }

    /// How much of each logit is in the score, by the logits where something predicted is explained.
    fn score(&self, logits: &[f32], classes: &[Option<usize>]) -> Vec<f32> {
        let mut score = vec![0.0; logits.len()];
        let own = logits.len() / self.rows();
        for ((score, logits), class) in score.chunks_exact_mut(own).zip(logits.chunks_exact(own)).zip(classes) {
            match self.task {
                Task::Classify => score[class.unwrap_or_else(|| argmax(logits))] = 1.0,
                Task::Segment => {
                    let none = logits.iter().all(|&v| v <= 0.0);
                    score.iter_mut().zip(logits).for_each(|(s, &v)| *s = if none || v > 0.0 { 1.0 } else { 0.0 });
                }
            }
        }
        score
    }

    fn probabilities(&self, logits: &[f32]) -> Result<Vec<f64>> {
        match self.outputs {
            Outputs::Sigmoid => Ok(sigmoid(logits)),
            Outputs::Softmax => tempered(logits, self.classes.len(), self.temperature.unwrap_or(1.0)),
        }
    }

    /// The maps of the first pictures of the last run.
    fn maps(&self, gpu: &Gpu, pictures: usize) -> Result<Vec<CamMap>> {
        let rows = self.rows();
        let map = |[height, width]: [usize; 2], values| CamMap { size: ImageSize { width, height }, values };
        match &self.seen {
            Seen::Attention { heads, tokens, grid } => {
                let blocks = self.session.executable().plan().outputs.len();
                let blocks = (1..blocks).map(|i| self.output(gpu, i)).collect::<Result<Vec<_>>>()?;
                let of_picture = heads * tokens * tokens;
                Ok((0..pictures)
                    .map(|n| {
                        let own: Vec<&[f32]> = blocks.iter().map(|a| &a[n * of_picture..][..of_picture]).collect();
                        map(*grid, rollout(&own, *heads, *tokens))
                    })
                    .collect())
            }
            Seen::Layer(layer) => {
                let (activations, gradients) = (self.output(gpu, 1)?, self.output(gpu, 2)?);
                let of_picture = activations.len() / rows;
                let channels = of_picture / (layer.grid[0] * layer.grid[1] + layer.before);
                let cam = if self.method == Method::GradCam { grad_cam } else { grad_cam_plus_plus };
                let own = |all: &[f32], n: usize| all[n * of_picture..][layer.before * channels..of_picture].to_vec();
                Ok((0..pictures)
                    .map(|n| map(layer.grid, cam(&own(&activations, n), &own(&gradients, n), channels)))
                    .collect())
            }
        }
    }
}
