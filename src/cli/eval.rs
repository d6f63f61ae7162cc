//! `lesion-gpu eval`

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::progress::Progress;
use super::source::{BareArgs, PartialArgs};
use super::{DeviceArgs, LoadArgs, TuningArgs, interrupted, say};
use crate::data::{
    Dataset, LastBatch, Loader, LoaderOptions, Masks, Patient, PixelStore, Sample, Split, age_band, split,
};
use crate::error::{Error, Kind, Result};
use crate::metrics::Scored;
use crate::models::Task;
use crate::train::{Interrupt, ModelSource, Precision, Predictor, RunFolder, TrainConfig, masks_of};
use crate::weights::write_atomically;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Part {
    Train,
    Val,
    Test,
    All,
}

#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  lesion-gpu eval runs/resnet18-001                         the test images of the run, its best checkpoint
  lesion-gpu eval runs/resnet18-001 --split val --json val.json
  lesion-gpu eval runs/resnet18-001 --data other.csv --split all
  lesion-gpu eval runs/unet-small-001                       masks, at the pictures' own size
  lesion-gpu eval --model resnet18 --weights w.safetensors --data HAM10000.zip --split test")]
pub(super) struct EvalArgs {
    /// Run folder or checkpoint file
    #[arg(value_name = "RUN", required_unless_present = "weights")]
    run: Option<PathBuf>,
    /// Other data than the run's
    #[arg(long, value_name = "DATA")]
    data: Option<String>,
    /// Folder or zip of masks, with other data that does not bring its own
    #[arg(long, value_name = "MASKS", requires = "data")]
    masks: Option<PathBuf>,
    /// Folder or zip of pictures, with other data whose tables do not lie with them; may be repeated
    #[arg(long, value_name = "PLACE", requires = "data")]
    images: Vec<PathBuf>,
    /// Which images
    #[arg(long, value_enum, default_value_t = Part::Test)]
    split: Part,
    /// The class whose sensitivity is told at --specificity [default: mel or melanoma, if there is one]
    #[arg(long, value_name = "CLASS")]
    target: Option<String>,
    /// The specificity that the target's sensitivity is told at
    #[arg(long, value_name = "S", default_value_t = 0.9)]
    specificity: f64,
    /// Write the scores to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Leave faulty samples out instead of failing
    #[arg(long)]
    skip_bad: bool,
    /// Images at a time
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: u32,
    /// f32 or mixed [default: as trained]
    #[arg(long)]
    precision: Option<Precision>,
    #[command(flatten)]
    bare: BareArgs,
    #[command(flatten)]
    partial: PartialArgs,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    tuning: TuningArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(super) fn run(args: &EvalArgs, interrupt: &Interrupt) -> Result<()> {
    let source = args.bare.resolve(args.run.clone(), &args.partial)?;
    let gpu = args.device.open()?;
    let batch = args.batch as usize;
    let tuning = args.tuning.cache(&gpu);
    let mut predictor = Predictor::load(&gpu, &source, batch, args.precision, tuning.as_ref())?;
    let mut progress = Progress::new();
    predictor.notes.iter().for_each(|note| progress.line(&format!("note     {note}")));
    if !predictor.difference.is_empty() {
        progress.line(&format!("note     loaded what fits of the weights:\n  {}", predictor.difference.describe()));
    }
    let config = predictor.config.clone();
    let spec = args.data.clone().unwrap_or_else(|| config.data.clone());
    if spec.is_empty() {
        return Err(Error::new(Kind::Usage, "which images to score is not clear").next("give --data"));
    }
    let masks = masks(args, predictor.task, &config)?;
    let mut open = config.open_options(masks);
    open.skip_bad |= args.skip_bad;
    if args.data.is_some() {
        (open.images, open.splits) = (args.images.clone(), None);
    }
    let mut dataset = Dataset::open(&spec, &open)?;
    if predictor.task == Task::Classify && dataset.classes != predictor.classes {
        let (data, model) = (dataset.classes.join(","), predictor.classes.join(","));
        return Err(Error::new(Kind::Data, format!("the data has classes {data}, the model {model}"))
            .at(&spec)
            .next("score a model on data with the same classes; for bare weights name them with --classes"));
    }
    let pixels = PixelStore::prepare(&mut dataset, config.recipe(), args.load.cache(), &mut |done, total| {
        progress.show("decoding", done, total, String::new);
        interrupted(interrupt)
    })?;
    for note in dataset.notes.iter().chain(pixels.notes()) {
        progress.line(&format!("note     {note}"));
    }
    let parts = split(&dataset, &config.split.spec())?;
    // Scoring what a model was trained on would flatter it: the split must be the one of the run.
    if let (ModelSource::Run(path), None) = (&source, &args.data)
        && let Some(run) = RunFolder::around(path)
    {
        run.check_split(&dataset, &parts)?;
    }
    let indices: Vec<usize> = match args.split {
        Part::Train => parts.indices(Split::Train).to_vec(),
        Part::Val => parts.indices(Split::Val).to_vec(),
        Part::Test => parts.indices(Split::Test).to_vec(),
        Part::All => (0..dataset.samples.len()).collect(),
    };
    if indices.is_empty() {
        return Err(Error::new(Kind::Data, "there are no images in this split")
            .at(&spec)
            .next("choose another --split"));
    }
    let options = LoaderOptions { batch, workers: args.load.workers.into(), prefetch: 2, last: LastBatch::Pad };
    let loader = Loader::new(Arc::new(pixels), dataset.labels(), indices.clone(), options)?;
    let total = loader.batches();
    let mut show = |done| {
        progress.show("evaluating", done, total, String::new);
        interrupted(interrupt)
    };
    let part = format!("{:?}", args.split).to_lowercase();
    let head = format!("{} images ({part}) of {}", indices.len(), dataset.name);
    match predictor.task {
        Task::Classify => {
            let labels: Vec<Vec<usize>> = indices.iter().map(|&i| dataset.samples[i].all_labels()).collect();
            let images: Vec<Scored<'_>> = indices.iter().map(|&i| scored(&dataset.samples[i])).collect();
            let operating = operating_point(args, &dataset.classes)?;
            let scores = predictor.evaluate(&gpu, &labels, &images, operating, loader, &mut show)?;
            progress.clear();
            say(format!("{head}, unweighted {} {:.4}\n{}", config.loss.name(), scores.loss, scores.report));
            if let Some(each) = &scores.multi_label {
                say(each.to_string());
            }
            if let Some(detailed) = &scores.detailed {
                say(format!("\n{detailed}"));
            }
            write_json(args, &scores)
        }
        Task::Segment => {
            let samples = indices.iter().map(|&i| &dataset.samples[i]).collect::<Vec<_>>();
            let report = predictor.evaluate_masks(&gpu, &samples, loader, &mut show)?;
            progress.clear();
            say(format!("{head}, masks brought to the pictures' own size\n{report}"));
            write_json(args, &report)
        }
    }
}

/// A picture as detailed scores want it.
fn scored(sample: &Sample) -> Scored<'_> {
    let Patient { age, sex, site } = &sample.patient;
    let mut groups = vec![];
    if let Some(age) = age {
        groups.push(("age", age_band(*age)));
    }
    for (by, name) in [("sex", sex), ("site", site)] {
        if !name.is_empty() {
            groups.push((by, name.clone()));
        }
    }
    Scored { label: sample.label, lesion: &sample.group, groups }
}

/// The class and specificity that an operating point is asked for, if there is such a class.
fn operating_point(args: &EvalArgs, classes: &[String]) -> Result<Option<(usize, f64)>> {
    if !(0.0..=1.0).contains(&args.specificity) {
        return Err(Error::new(Kind::Usage, "--specificity must be between 0 and 1").next("for example 0.95"));
    }
    let named = |name: &str| classes.iter().position(|class| class.eq_ignore_ascii_case(name));
    let class = match &args.target {
        Some(name) => Some(named(name).ok_or_else(|| {
            Error::new(Kind::Usage, format!("--target {name}: there is no such class"))
                .next(format!("choose one of: {}", classes.join(", ")))
        })?),
        None => named("mel").or_else(|| named("melanoma")),
    };
    Ok(class.map(|class| (class, args.specificity)))
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

/// Writes scores where that is asked for.
fn write_json(args: &EvalArgs, scores: &impl Serialize) -> Result<()> {
    let Some(path) = &args.json else { return Ok(()) };
    let text = serde_json::to_string_pretty(scores)
        .map_err(|e| Error::new(Kind::Internal, format!("could not encode the scores: {e}")))?;
    write_atomically(path, (text + "\n").as_bytes())
}
