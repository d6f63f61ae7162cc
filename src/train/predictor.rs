//! A trained model on a device: from a run, a checkpoint or a bare weight file.

use std::path::PathBuf;

use super::scores::{ClassLoss, Scores, not_finite, score};
use super::session::{EvalSession, load_weights};
use super::{EvalGraph, HostModel, Normalisation, Outputs, Precision, TrainConfig};
use crate::autograd::Store;
use crate::data::preprocess::{Area, Steps};
use crate::data::{Batch, ImageSize, Sample, SampleReader, resize_probabilities};
use crate::error::Result;
use crate::gpu::{Caps, Gpu};
use crate::metrics::{DetailedReport, PixelCounts, Scored, SegmentationReport};
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
    outputs: Outputs,
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
        let host = HostModel::read(source)?;
        let outputs = host.outputs();
        let HostModel { mut config, classes, weights, allow_partial, notes } = host;
        config.validate()?;
        config.precision = precision.unwrap_or(config.precision);
        config.precision.check(gpu)?;
        let model = Model::find(&config.model)?;
        let graph = |caps: &Caps| EvalGraph::new(model, &config, batch, classes.len(), caps);
        let graph = graph(gpu.caps()).and_then(|untuned| {
            let choices = tuning.map(|cache| cache.choices(&untuned.plan.tunable, gpu.caps())).unwrap_or_default();
            if choices.is_empty() { Ok(untuned) } else { graph(&gpu.caps().with_choices(choices)) }
        })?;
        let mut store = Store::new();
        let session = EvalSession::new(gpu, graph, &mut store)?;
        super::session::initialise(gpu, &store, session.parameters(), config.seed)?;
        let difference = load_weights(gpu, &store, session.parameters(), &weights, allow_partial)?;
        gpu.save_pipelines();
        Ok(Self { config, task: model.task(), classes, difference, notes, outputs, session })
    }

    /// What turns its raw outputs into probabilities.
    pub fn outputs(&self) -> Outputs {
        self.outputs
    }

    /// Calls `take` with the number and the raw outputs of each valid picture, in order. `progress` is called with the
    /// batches done.
    ///
    /// # Errors
    /// Those of the batches, of `take` and of `progress`; device errors.
    pub fn each_picture(
        &mut self,
        gpu: &Gpu,
        batches: impl IntoIterator<Item = Result<Batch>>,
        progress: &mut dyn FnMut(usize) -> Result<()>,
        take: &mut dyn FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        self.session.each_picture(gpu, batches, progress, take)
    }

    /// Scores the classes of images, in every detail: those of each, the first one first, in order, and the images as
    /// these scores want them; batches of the same images. `operating` asks for the sensitivity of a class at a
    /// specificity. All classes weigh one in the loss.
    ///
    /// # Errors
    /// As [`each_picture`](Self::each_picture); [`Kind::Diverged`](crate::Kind::Diverged) if the outputs are not numbers.
    pub fn evaluate(
        &mut self,
        gpu: &Gpu,
        labels: &[Vec<usize>],
        images: &[Scored<'_>],
        operating: Option<(usize, f64)>,
        batches: impl IntoIterator<Item = Result<Batch>>,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Scores> {
        let logits = self.session.logits(gpu, batches, progress)?;
        let (loss, classes) = (ClassLoss::of(&self.config), &self.classes);
        let scores = score(labels, &logits, classes, &vec![1.0; classes.len()], loss)?;
        let probabilities = loss.probabilities(&logits, classes.len())?;
        let detailed = DetailedReport::new(classes, images, &probabilities, operating)?;
        Ok(Scores { detailed: Some(detailed), ..scores })
    }
}

/// What a model that segments says of a picture.
#[derive(Debug, Clone, Copy)]
pub struct MaskMap<'a> {
    /// Logits of the pixels, row by row.
    pub logits: &'a [f32],
    /// Their size.
    pub size: ImageSize,
}

impl MaskMap<'_> {
    /// The mask of a picture, row by row, where the model saw an `area` of it: the probabilities are brought to that area's
    /// size, and count as inside above one half. What was cut off is outside.
    ///
    /// # Errors
    /// [`Kind::Diverged`](crate::Kind::Diverged) if the logits are not numbers.
    pub fn on(self, picture: ImageSize, area: Area) -> Result<Vec<bool>> {
        if self.logits.iter().any(|v| !v.is_finite()) {
            return Err(not_finite());
        }
        let probabilities: Vec<f32> = self.logits.iter().map(|v| 1.0 / (1.0 + (-v).exp())).collect();
        let probabilities = resize_probabilities(&probabilities, self.size, area.size)?;
        let mut mask = vec![false; picture.area()];
        let rows = mask.chunks_exact_mut(picture.width).skip(area.y).zip(probabilities.chunks_exact(area.size.width));
        for (row, probabilities) in rows {
            row[area.x..].iter_mut().zip(probabilities).for_each(|(inside, &p)| *inside = p > 0.5);
        }
        Ok(mask)
    }
}

impl Predictor {
    /// Scores the masks of `samples` at the size these were drawn in; batches of the same pictures.
    ///
    /// # Errors
    /// As [`each_picture`](Self::each_picture); [`Kind::Data`](crate::Kind::Data) for a mask that cannot be read any more.
    pub fn evaluate_masks(
        &mut self,
        gpu: &Gpu,
        samples: &[&Sample],
        batches: impl IntoIterator<Item = Result<Batch>>,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<SegmentationReport> {
        let (mut reader, recipe) = (SampleReader::default(), self.config.recipe());
        let mut counts = vec![];
        self.each_picture(gpu, batches, progress, &mut |picture, logits| {
            let (drawn, area) = reader.mask_and_area(samples[picture], &recipe)?;
            let own = ImageSize { width: drawn.width() as usize, height: drawn.height() as usize };
            let found = MaskMap { logits, size: recipe.size }.on(own, area)?;
            counts.push(PixelCounts::of(found.into_iter().zip(drawn.pixels().map(|p| p[0] > 0))));
            Ok(())
        })?;
        SegmentationReport::new(&counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_lies_where_the_picture_was_seen() {
        let size = |width, height| ImageSize { width, height };
        let logits = [9.0, -9.0, -9.0, 9.0];
        let map = MaskMap { logits: &logits, size: size(2, 2) };
        assert_eq!(map.on(size(2, 2), Area::whole(size(2, 2))).unwrap(), [true, false, false, true]);
        let mask = map.on(size(5, 4), Area { x: 2, y: 1, size: size(2, 2) }).unwrap();
        let inside: Vec<usize> = (0..20).filter(|&at| mask[at]).collect();
        assert_eq!(inside, [5 + 2, 10 + 3]);
        let broken = MaskMap { logits: &[f32::NAN; 4], size: size(2, 2) };
        assert!(broken.on(size(2, 2), Area::whole(size(2, 2))).is_err());
    }
}
