//! The thread that owns the device: it takes images from the queue in batches, and answers each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use image::RgbImage;
use tokio::sync::oneshot;

use super::measure::Measures;
use super::queue::{Queue, Waiting};
use crate::data::{Batch, ImageSize, Preparation};
use crate::error::{Error, Kind, Result};
use crate::explain::{Explainer, Explanation, Look};
use crate::gpu::Gpu;
use crate::models::Task;
use crate::train::{Ensemble, HostModel, ModelSource, Outputs, Precision, Predictor, Said};
use crate::tune::TuningCache;

/// What is asked of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// The probabilities of the classes.
    Predict,
    /// Where the model looks, for this class or the predicted one.
    Explain(Option<usize>),
    /// The mask of the lesion.
    Segment,
}

impl Work {
    /// Its name in routes and counters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Predict => "predict",
            Self::Explain(_) => "explain",
            Self::Segment => "segment",
        }
    }
}

/// What comes of it.
pub(super) enum Outcome {
    /// What each model says.
    Said(Vec<Said>),
    Explained(Explanation),
}

/// An image that waits for the device.
pub(super) struct Job {
    pub work: Work,
    /// As each model wants it.
    pub made: Vec<RgbImage>,
    pub since: Instant,
    pub reply: oneshot::Sender<Result<Outcome>>,
}

impl Waiting for Job {
    fn since(&self) -> Instant {
        self.since
    }

    fn alike(&self, other: &Self) -> bool {
        self.work.name() == other.work.name()
    }
}

/// What is known of models that answer together.
#[derive(Debug, Clone)]
pub(super) struct About {
    pub recipes: Vec<Preparation>,
    /// Name, width, height and precision of each.
    pub models: Vec<(String, usize, usize, &'static str)>,
    pub classes: Vec<String>,
    pub temperatures: Vec<Option<f64>>,
    /// In how many views each sees an image.
    pub views: Vec<usize>,
    /// The same where it is several, and as many for all.
    pub common_views: Option<usize>,
    pub outputs: Outputs,
}

/// How the class of an image is explained.
#[derive(Debug, Clone)]
pub(super) struct Explains {
    pub recipe: Preparation,
    pub method: &'static str,
    pub layer: Option<String>,
}

/// What is known of everything that is served.
#[derive(Debug, Clone)]
pub(super) struct Served {
    pub classifier: Option<About>,
    pub explainer: Option<Explains>,
    pub segmenter: Option<About>,
    pub device: String,
    pub notes: Vec<String>,
}

/// How models are brought to the device.
pub(super) struct Loading {
    /// Images of a batch, at most.
    pub batch: usize,
    pub all_views: bool,
    pub look: Look,
    pub precision: Option<Precision>,
    pub tuning: Option<TuningCache>,
}

/// The same model for batches of several sizes, the smallest first: one image does not pay for a whole batch.
struct Sizes<T>(Vec<(usize, T)>);

impl<T> Sizes<T> {
    fn new(batch: usize, mut make: impl FnMut(usize) -> Result<T>) -> Result<Self> {
        let sizes = std::iter::successors(Some(1), |n| Some(n * 4)).take_while(|&n| n < batch).chain([batch]);
        sizes.map(|n| Ok((n, make(n)?))).collect::<Result<_>>().map(Self)
    }

    /// The one for so many images.
    fn of(&mut self, images: usize) -> Result<(usize, &mut T)> {
        let fits = self.0.iter_mut().find(|(n, _)| *n >= images);
        fits.map(|(n, model)| (*n, model)).ok_or_else(|| Error::new(Kind::Internal, "a batch is larger than any graph"))
    }
}

/// The models on the device.
pub(super) struct Models {
    classifier: Option<Sizes<Ensemble>>,
    explainer: Option<Sizes<Explainer>>,
    segmenter: Option<Sizes<Ensemble>>,
}

impl Models {
    /// Brings models to the device: those that classify answer together, and so do those that segment. The first that classifies
    /// is explained.
    ///
    /// # Errors
    /// Those of [`HostModel::read`], [`Predictor::of`], [`Explainer::new`] and [`Ensemble::new`].
    pub fn load(gpu: &Gpu, sources: &[ModelSource], loading: &Loading) -> Result<(Self, Served)> {
        let (mut classify, mut segment) = (vec![], vec![]);
        for source in sources {
            let host = HostModel::read(source)?;
            let task = crate::models::Model::find(&host.config.model)?.task();
            if task == Task::Classify { &mut classify } else { &mut segment }.push((source.name(), host));
        }
        let mut notes = vec![];
        let mut together = |hosts: &[(String, HostModel)]| -> Result<Option<(Sizes<Ensemble>, About)>> {
            if hosts.is_empty() {
                return Ok(None);
            }
            let mut about = None;
            let sizes = Sizes::new(loading.batch, |rows| {
                let tuning = loading.tuning.as_ref();
                let load = |(name, host): &(String, HostModel)| {
                    let mut predictor = Predictor::of(gpu, host.clone(), rows, loading.precision, tuning)?;
                    if loading.all_views {
                        predictor.show_all_views();
                    }
                    Ok((name.clone(), predictor))
                };
                let ensemble = Ensemble::new(hosts.iter().map(load).collect::<Result<_>>()?)?;
                if about.is_none() {
                    about = About::of(&ensemble);
                    let of =
                        |member: &Predictor| [member.notes.clone(), Vec::from_iter(member.difference.note())].concat();
                    notes.extend(ensemble.members().iter().flat_map(of));
                }
                Ok(ensemble)
            })?;
            Ok(about.map(|about| (sizes, about)))
        };
        let (classifier, about_classifier) = together(&classify)?.unzip();
        let (segmenter, about_segmenter) = together(&segment)?.unzip();
        let mut explains = None;
        let explainer = match classify.first() {
            None => None,
            Some((_, host)) => Some(Sizes::new(loading.batch, |rows| {
                let tuning = loading.tuning.as_ref();
                let explainer = Explainer::new(gpu, host.clone(), rows, &loading.look, tuning)?;
                explains = Some(Explains {
                    recipe: explainer.config.preparation(),
                    method: explainer.method().name(),
                    layer: explainer.layer().map(str::to_owned),
                });
                Ok(explainer)
            })?),
        };
        let served = Served {
            classifier: about_classifier,
            explainer: explains,
            segmenter: about_segmenter,
            device: gpu.adapter().name.clone(),
            notes,
        };
        let mut models = Self { classifier, explainer, segmenter };
        models.warm_up(gpu)?;
        Ok((models, served))
    }

    /// Runs everything once on black images: drivers finish compiling when a kernel first runs, and nobody is to wait for that.
    fn warm_up(&mut self, gpu: &Gpu) -> Result<()> {
        let black = |size: ImageSize| RgbImage::new(size.width as u32, size.height as u32);
        for (rows, ensemble) in [&mut self.classifier, &mut self.segmenter].into_iter().flatten().flat_map(|s| &mut s.0)
        {
            let recipes = ensemble.preparations();
            let batches = recipes.iter().map(|r| Batch::of_pictures(&[black(r.size)], r.size, *rows)).collect();
            ensemble.each_picture(gpu, [Ok(batches)], &mut |_| Ok(()), &mut |_, _| Ok(()))?;
        }
        for (rows, explainer) in self.explainer.iter_mut().flat_map(|sizes| &mut sizes.0) {
            let size = explainer.config.size;
            explainer.explain(gpu, &Batch::of_pictures(&[black(size)], size, *rows), &[None])?;
        }
        Ok(())
    }

    /// Does a batch of jobs of the same work.
    fn run(&mut self, gpu: &Gpu, jobs: &[Job]) -> Result<Vec<Outcome>> {
        let missing = || Error::new(Kind::Internal, "there is no model for this work");
        let work = jobs.first().map_or(Work::Predict, |job| job.work);
        let made =
            |member: usize| -> Vec<RgbImage> { jobs.iter().filter_map(|j| j.made.get(member).cloned()).collect() };
        let ensemble = match work {
            Work::Predict => self.classifier.as_mut(),
            Work::Segment => self.segmenter.as_mut(),
            Work::Explain(_) => {
                let (rows, explainer) = self.explainer.as_mut().ok_or_else(missing)?.of(jobs.len())?;
                let batch = Batch::of_pictures(&made(0), explainer.config.size, rows);
                let class = |job: &Job| match job.work {
                    Work::Explain(class) => class,
                    Work::Predict | Work::Segment => None,
                };
                let classes: Vec<Option<usize>> = jobs.iter().map(class).collect();
                let explained = explainer.explain(gpu, &batch, &classes)?;
                return Ok(explained.into_iter().map(Outcome::Explained).collect());
            }
        };
        let (rows, ensemble) = ensemble.ok_or_else(missing)?.of(jobs.len())?;
        let recipes = ensemble.preparations();
        let batches = recipes.iter().enumerate().map(|(i, r)| Batch::of_pictures(&made(i), r.size, rows)).collect();
        let mut outcomes = vec![];
        ensemble.each_picture(gpu, [Ok(batches)], &mut |_| Ok(()), &mut |_, said| {
            outcomes.push(Outcome::Said(said.to_vec()));
            Ok(())
        })?;
        Ok(outcomes)
    }
}

impl About {
    fn of(ensemble: &Ensemble) -> Option<Self> {
        let members = ensemble.members();
        let first = members.first()?;
        let configs = || members.iter().map(|member| &member.config);
        Some(Self {
            recipes: configs().map(crate::train::TrainConfig::preparation).collect(),
            models: configs().map(|c| (c.model.clone(), c.size.width, c.size.height, c.precision.name())).collect(),
            classes: first.classes.clone(),
            temperatures: members.iter().map(|member| member.temperature).collect(),
            views: members.iter().map(Predictor::views).collect(),
            common_views: ensemble.views(),
            outputs: first.outputs(),
        })
    }
}

/// Takes from a queue, does the work, answers.
pub(super) struct Worker {
    pub gpu: Gpu,
    pub models: Models,
    pub queue: Arc<Queue<Job>>,
    pub measures: Arc<Measures>,
    pub batch: usize,
    /// How long an image waits for others.
    pub max_wait: Duration,
    /// An image that waited for longer is dropped.
    pub timeout: Duration,
    /// Is told what went wrong.
    pub complain: Box<dyn Fn(&Error) + Send>,
}

/// Closes a queue when it goes, so that nobody waits for a thread that has ended, however it did.
struct Closing(Arc<Queue<Job>>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
        // Who waits is told by the end of these.
        while self.0.take(usize::MAX, Duration::ZERO).is_some() {}
    }
}

impl Worker {
    /// Works until the queue is closed and empty.
    ///
    /// # Errors
    /// [`Kind::DeviceLost`], or what cost the device, once it is gone.
    pub fn run(mut self) -> Result<()> {
        let _closing = Closing(Arc::clone(&self.queue));
        while let Some(mut jobs) = self.queue.take(self.batch, self.max_wait) {
            // Nobody waits any more for what is too old, nor where the client has gone.
            jobs.retain(|job| !job.reply.is_closed() && job.since.elapsed() < self.timeout);
            let Some(work) = jobs.first().map(|job| job.work.name()) else { continue };
            let start = Instant::now();
            let outcome = self.models.run(&self.gpu, &jobs);
            match outcome {
                Ok(outcomes) => {
                    self.measures.batch(work, jobs.len(), start.elapsed());
                    for (job, outcome) in jobs.into_iter().zip(outcomes) {
                        // An error says that nobody waits any more.
                        let _ = job.reply.send(Ok(outcome));
                    }
                }
                // One image must not spoil the others' answers.
                Err(error) if error.kind() == Kind::Diverged && jobs.len() > 1 => self.one_by_one(jobs),
                Err(error) => {
                    (self.complain)(&error);
                    jobs.into_iter().for_each(|job| drop(job.reply.send(Err(error.clone()))));
                    if self.gpu.is_lost() {
                        return Err(error.next("start the server again"));
                    }
                }
            }
        }
        Ok(())
    }

    fn one_by_one(&mut self, jobs: Vec<Job>) {
        for job in jobs {
            let alone = [job];
            let outcome = self.models.run(&self.gpu, &alone).and_then(|mut outcomes| {
                outcomes.pop().ok_or_else(|| Error::new(Kind::Internal, "a model says nothing"))
            });
            let [job] = alone;
            let _ = job.reply.send(outcome);
        }
    }
}
