//! A model and the images it is scored on.

use std::path::Path;
use std::sync::Arc;

use super::eval::{EvalArgs, Part};
use super::interrupted;
use super::progress::Progress;
use crate::data::{Dataset, LastBatch, Loader, LoaderOptions, Masks, PixelStore, Sample, Split, SplitAssignment};
use crate::error::{Error, Kind, Result};
use crate::gpu::Gpu;
use crate::metrics::calibration::NO_TEMPERATURE;
use crate::models::Task;
use crate::train::{
    Checkpoint, Ensemble, Interrupt, MaskCounts, Material, ModelSource, Outputs, Predictor, Protocol, RunFolder,
    TrainConfig, Verdicts, masks_of,
};

/// What is said of other data than a leaky run's own.
const TRAINED_LEAKY: &str =
    "LEAKY if these images, or others of their lesions, are among those the run was split from image by image";

/// A model with the data it is scored on.
pub(super) struct Member {
    /// What it is called: the run, or the weight file.
    pub name: String,
    /// The run it is of, where that is known.
    pub run: Option<RunFolder>,
    pub predictor: Predictor,
    pub dataset: Dataset,
    /// What leaks between the parts of the run's split.
    pub leak: Option<String>,
    spec: String,
    parts: SplitAssignment,
    pixels: Arc<PixelStore>,
    views: usize,
    options: LoaderOptions,
}

impl Member {
    /// Loads the model, and the data that it was trained with or that is named.
    pub fn open(
        args: &EvalArgs,
        source: &ModelSource,
        gpu: &Gpu,
        progress: &mut Progress,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let batch = args.batch as usize;
        let tuning = args.tuning.cache(gpu);
        let mut predictor = Predictor::load(gpu, source, batch, args.precision, tuning.as_ref())?;
        predictor.notes.iter().for_each(|note| progress.line(&format!("note     {note}")));
        predictor.difference.note().iter().for_each(|note| progress.line(&format!("note     {note}")));
        if args.no_temperature {
            predictor.temperature = None;
        }
        let views = if args.tta { predictor.show_all_views() } else { 1 };
        let config = predictor.config.clone();
        let spec = args.data.clone().unwrap_or_else(|| config.data.clone());
        if spec.is_empty() {
            return Err(Error::new(Kind::Usage, "which images to score is not clear").next("give --data"));
        }
        let mut open = config.open_options(masks(args, predictor.task, &config)?);
        // What a run leaves out of its own data says nothing of others.
        open.skip_bad = args.skip_bad || (open.skip_bad && args.data.is_none());
        if args.data.is_some() {
            (open.images, open.splits) = (args.images.clone(), None);
        }
        let dataset = Dataset::open(&spec, &open)?;
        if predictor.task == Task::Classify && dataset.classes != predictor.classes {
            let (data, model) = (dataset.classes.join(","), predictor.classes.join(","));
            return Err(Error::new(Kind::Data, format!("the data has classes {data}, the model {model}"))
                .at(&spec)
                .next("score a model on data with the same classes; for bare weights name them with --classes"));
        }
        let mut as_trained = config.clone();
        if args.data.is_some() {
            (as_trained.balance, as_trained.split.fold) = (None, None);
        }
        let mut decoding = |done, total| {
            progress.show("decoding", done, total, String::new);
            interrupted(interrupt)
        };
        let Material { dataset, pixels, split: parts } =
            Material::prepare(dataset, &as_trained, args.load.cache(), &mut decoding)?;
        dataset.notes.iter().for_each(|note| progress.line(&format!("note     {note}")));
        let run = match source {
            ModelSource::Run(path) => RunFolder::around(path),
            ModelSource::Weights { .. } => None,
        };
        // Scoring what a model was trained on would flatter it: the split must be the one of the run.
        if let (Some(run), None) = (&run, &args.data) {
            run.check_split(&dataset, &parts)?;
        }
        let leak = match (&args.data, source, config.split.protocol) {
            (None, ModelSource::Run(_), _) => parts.leak(&dataset).map(|leak| leak.to_string()),
            (Some(_), _, Protocol::Published) => Some(TRAINED_LEAKY.to_owned()),
            _ => None,
        };
        let options = LoaderOptions { batch, workers: args.load.workers.into(), prefetch: 2, last: LastBatch::Pad };
        Ok(Self { name: source.name(), run, predictor, dataset, leak, spec, parts, pixels, views, options })
    }

    /// The images of a part.
    pub fn indices(&self, part: Part) -> Vec<usize> {
        match part {
            Part::Train => self.parts.indices(Split::Train).to_vec(),
            Part::Val => self.parts.indices(Split::Val).to_vec(),
            Part::Test => self.parts.indices(Split::Test).to_vec(),
            Part::All => (0..self.dataset.samples.len()).collect(),
        }
    }

    /// What is scored, in words.
    pub fn head(&self, part: Part, indices: &[usize]) -> Result<String> {
        if indices.is_empty() {
            return Err(Error::new(Kind::Data, "there are no images in this split")
                .at(&self.spec)
                .next("choose another --split"));
        }
        let leak = self.leak.as_ref().map_or(String::new(), |leak| format!("{leak}\n"));
        Ok(format!("{leak}{} images ({}) of {}", indices.len(), part.name(), self.dataset.name))
    }

    /// In how many views images are shown, in words.
    pub fn views(&self) -> String {
        if self.views > 1 { format!(", mean of {} views (x{0})", self.views) } else { String::new() }
    }

    fn batches(&self, indices: &[usize]) -> Result<Loader> {
        Loader::new(Arc::clone(&self.pixels), self.dataset.labels(), indices.to_vec(), self.options)
    }

    /// What the model says of the classes of images.
    pub fn verdicts(
        &mut self,
        gpu: &Gpu,
        indices: &[usize],
        progress: &mut Progress,
        interrupt: &Interrupt,
    ) -> Result<Verdicts> {
        let loader = self.batches(indices)?;
        let total = loader.batches();
        self.predictor.verdicts(gpu, loader, &mut |done| {
            progress.show("evaluating", done, total, String::new);
            interrupted(interrupt)
        })
    }

    /// Fits the temperature to the validation images of the run at `path`, and keeps it in its checkpoint.
    pub fn fit_temperature(
        &mut self,
        gpu: &Gpu,
        path: &Path,
        progress: &mut Progress,
        interrupt: &Interrupt,
    ) -> Result<f64> {
        let refuse = |what: &str| Error::new(Kind::Usage, format!("--fit-temperature: {what}")).at(path.display());
        if self.run.is_none() {
            return Err(refuse("this checkpoint does not lie in its run, so its validation images are not known"));
        }
        if self.predictor.outputs() != Outputs::Softmax {
            return Err(refuse("a temperature is for models with a softmax over their classes"));
        }
        let indices = self.indices(Part::Val);
        if indices.is_empty() {
            return Err(refuse("the run has no validation images"));
        }
        let loader = self.batches(&indices)?;
        let total = loader.batches();
        let labels: Vec<usize> = indices.iter().map(|&i| self.dataset.samples[i].label).collect();
        let fitted = self.predictor.fit_temperature(gpu, &labels, loader, &mut |done| {
            progress.show("fitting", done, total, String::new);
            interrupted(interrupt)
        })?;
        let temperature = fitted.ok_or_else(|| refuse(NO_TEMPERATURE).next("leave --fit-temperature away"))?;
        let file = RunFolder::checkpoint_of(path)?;
        let checkpoint = Checkpoint { temperature: fitted, ..RunFolder::read_checkpoint_of(path)? };
        checkpoint.write(&file)?;
        Ok(temperature)
    }
}

/// Compares the masks that models draw of the same images, the numbers of which are those in the data of each, with those that
/// come with the first one's data.
pub(super) fn mask_counts(
    gpu: &Gpu,
    members: Vec<(Member, Vec<usize>)>,
    progress: &mut Progress,
    interrupt: &Interrupt,
) -> Result<MaskCounts> {
    let mut loaders = members.iter().map(|(member, indices)| member.batches(indices)).collect::<Result<Vec<_>>>()?;
    let total = loaders.first().map_or(0, Loader::batches);
    let samples = members.first().map_or(vec![], |(member, indices)| {
        indices.iter().map(|&i| member.dataset.samples[i].clone()).collect::<Vec<_>>()
    });
    let samples: Vec<&Sample> = samples.iter().collect();
    let models = members.into_iter().map(|(member, _)| (member.name, member.predictor)).collect();
    // A batch of each; all loaders have as many.
    let batches = std::iter::from_fn(|| loaders.iter_mut().map(Iterator::next).collect::<Option<Result<Vec<_>>>>());
    Ensemble::new(models)?.mask_counts(gpu, &samples, batches, &mut |done| {
        progress.show("evaluating", done, total, String::new);
        interrupted(interrupt)
    })
}

/// Which masks are opened: those of the run, unless there is other data.
fn masks(args: &EvalArgs, task: Task, config: &TrainConfig) -> Result<Masks> {
    match (&args.masks, &args.data) {
        (Some(_), _) if task == Task::Classify => {
            Err(Error::new(Kind::Usage, "--masks is for models that segment").next("leave --masks away"))
        }
        (Some(place), _) => Ok(Masks::In(place.clone())),
        (None, Some(_)) if task == Task::Segment => Ok(Masks::OfDataset),
        (None, _) => Ok(masks_of(task, config)),
    }
}
