//! `lesion-gpu eval`

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::member::Member;
use super::progress::Progress;
use super::source::ModelArgs;
use super::together::Images;
use super::{DeviceArgs, LoadArgs, TuningArgs, say};
use crate::data::{Patient, Sample, age_band};
use crate::error::{Error, Kind, Result};
use crate::gpu::Gpu;
use crate::metrics::{ClassificationReport, Scored, SegmentationReport};
use crate::models::Task;
use crate::train::{
    Answering, Interrupt, MaskCounts, ModelSource, Outputs, Precision, RunFolder, Scores, TrainConfig, Verdicts,
    score_in_detail,
};
use crate::weights::write_atomically;

/// Which images are scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    Train,
    Val,
    Test,
    All,
}

impl Part {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
            Self::All => "all",
        }
    }
}

#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  lesion-gpu eval runs/resnet18-001                         the test images of the run, its best checkpoint
  lesion-gpu eval runs/resnet18-001 --split val --json val.json
  lesion-gpu eval runs/resnet18-001 --data other.csv --split all
  lesion-gpu eval runs/resnet18-001 --tta                   the mean of eight views of each image
  lesion-gpu eval runs/a-001 runs/b-001 runs/c-001          the mean of several runs, on the images that all were tested with
  lesion-gpu eval runs/fold-1 runs/fold-2 runs/fold-3 --out-of-fold    each image by the run that was not trained on it
  lesion-gpu eval runs/unet-small-001                       masks, at the pictures' own size
  lesion-gpu eval --model resnet18 --weights w.safetensors --data HAM10000.zip --split test")]
pub(super) struct EvalArgs {
    /// Run folder or checkpoint file; several are scored together, by the mean of their probabilities
    #[arg(value_name = "RUN", required_unless_present = "weights")]
    runs: Vec<PathBuf>,
    /// Other data than the run's
    #[arg(long, value_name = "DATA")]
    pub(super) data: Option<String>,
    /// Folder or zip of masks, with other data that does not bring its own
    #[arg(long, value_name = "MASKS", requires = "data")]
    pub(super) masks: Option<PathBuf>,
    /// Folder or zip of pictures, with other data whose tables do not lie with them; may be repeated
    #[arg(long, value_name = "PLACE", requires = "data")]
    pub(super) images: Vec<PathBuf>,
    /// Which images
    #[arg(long, value_enum, default_value_t = Part::Test)]
    pub(super) split: Part,
    /// Score every image of the data by the run that had it in its test split: of the folds of a cross-validation
    #[arg(long, conflicts_with_all = ["data", "split", "weights", "fit_temperature"])]
    pub(super) out_of_fold: bool,
    /// Show each model each image in all views that keep its shape (8 of a square, else 4), and take the mean of the
    /// probabilities
    #[arg(long)]
    pub(super) tta: bool,
    /// Probabilities as they are, without the temperature that training fitted
    #[arg(long, conflicts_with = "fit_temperature")]
    pub(super) no_temperature: bool,
    /// First fit the temperature to the run's validation images, and keep it in its checkpoint: for runs from before
    /// training did so, and for checkpoints of other epochs
    #[arg(long, conflicts_with_all = ["data", "weights"])]
    fit_temperature: bool,
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
    pub(super) skip_bad: bool,
    /// Images at a time
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(super) batch: u32,
    /// f32 or mixed [default: as trained]
    #[arg(long)]
    pub(super) precision: Option<Precision>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    pub(super) load: LoadArgs,
    #[command(flatten)]
    pub(super) tuning: TuningArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(super) fn run(args: &EvalArgs, interrupt: &Interrupt) -> Result<()> {
    let sources = match args.runs.as_slice() {
        [] | [_] => vec![args.model.source(args.runs.first().cloned())?],
        several if args.fit_temperature => {
            return Err(Error::new(Kind::Usage, format!("--fit-temperature is for one run, not {}", several.len()))
                .next("fit each by itself first"));
        }
        several => several.iter().map(|run| args.model.source(Some(run.clone()))).collect::<Result<_>>()?,
    };
    if args.out_of_fold && sources.len() == 1 {
        return Err(Error::new(Kind::Usage, "--out-of-fold needs the runs of all folds, and there is one")
            .next("name the others too"));
    }
    let gpu = args.device.open()?;
    let mut progress = Progress::new();
    let mut images = Images::new(args);
    let (mut all, mut masks): (Option<Together>, Vec<(Member, Vec<usize>)>) = (None, vec![]);
    let mut answering = None;
    for source in &sources {
        let mut member = Member::open(args, source, &gpu, &mut progress, interrupt)?;
        let first: &Answering = answering.get_or_insert_with(|| member.predictor.answering());
        first.check(&member.predictor.answering(), &member.name)?;
        if args.fit_temperature {
            fit(&gpu, source, &mut member, &mut progress, interrupt)?;
        }
        let indices = images.join(&member)?;
        if member.predictor.task == Task::Segment {
            masks.push((member, indices));
            continue;
        }
        // One model at a time is on the device.
        let member = Answered::new(args, &gpu, member, &indices, &mut progress, interrupt)?;
        match &mut all {
            None => all = Some(Together::begin(member)?),
            Some(all) => all.join(args, member)?,
        }
    }
    let Some(all) = all else { return masks_of(args, &gpu, &images, masks, &mut progress, interrupt) };
    progress.clear();
    all.report(args, &images)
}

/// What is told of each of several models that segment.
#[derive(Debug, Serialize)]
struct MaskScores {
    run: String,
    images: usize,
    dice: f64,
    jaccard: f64,
}

/// The scores of masks, and those of the members where there are several.
#[derive(Debug, Serialize)]
struct MaskOutput {
    #[serde(flatten)]
    report: SegmentationReport,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    members: Vec<MaskScores>,
    /// How many scored images some member was trained on.
    #[serde(skip_serializing_if = "Option::is_none")]
    trained_on: Option<usize>,
}

/// Scores masks: those of one model, of several together, or of the folds of a cross-validation.
fn masks_of(
    args: &EvalArgs,
    gpu: &Gpu,
    images: &Images,
    masks: Vec<(Member, Vec<usize>)>,
    progress: &mut Progress,
    interrupt: &Interrupt,
) -> Result<()> {
    let trained_on = images.check()?;
    let (first, indices) = masks.first().ok_or_else(nothing)?;
    let (head, views) = (first.head(args.split, indices)?, first.views());
    let leak = masks.iter().find_map(|(member, _)| member.leak.clone());
    let names: Vec<String> = masks.iter().map(|(member, _)| member.name.clone()).collect();
    let counts = match args.out_of_fold {
        true => {
            let mut all = MaskCounts { together: vec![], each: vec![] };
            for of_fold in masks {
                let counts = super::member::mask_counts(gpu, vec![of_fold], progress, interrupt)?;
                all.together.extend(counts.together);
                all.each.extend(counts.each);
            }
            all
        }
        false => super::member::mask_counts(gpu, masks, progress, interrupt)?,
    };
    progress.clear();
    let report = SegmentationReport::new(&counts.together)?;
    let alone = names.into_iter().zip(&counts.each).map(|(run, counts)| {
        let report = SegmentationReport::new(counts)?;
        Ok(MaskScores { run, images: counts.len(), dice: report.dice, jaccard: report.jaccard })
    });
    let mut members = alone.collect::<Result<Vec<MaskScores>>>()?;
    if members.len() > 1 {
        let rows: Vec<_> = members.iter().map(|m| (m.run.as_str(), m.images, [m.dice, m.jaccard])).collect();
        say(images.table(["Dice", "Jaccard"], &rows, [report.dice, report.jaccard]));
    } else {
        members.clear();
    }
    images.note(trained_on).iter().for_each(say);
    let head = images.head(head, leak.as_ref());
    say(format!("{head}, masks brought to the pictures' own size{views}\n{report}"));
    write_json(args, leak.as_deref(), &MaskOutput { report, members, trained_on })
}

fn nothing() -> Error {
    Error::new(Kind::Internal, "there is nothing to score")
}

/// Fits the temperature of a run to its validation images, and keeps it.
fn fit(
    gpu: &Gpu,
    source: &ModelSource,
    member: &mut Member,
    progress: &mut Progress,
    interrupt: &Interrupt,
) -> Result<()> {
    let ModelSource::Run(path) = source else {
        return Err(Error::new(Kind::Usage, "--fit-temperature is for runs, whose validation images are known"));
    };
    let temperature = member.fit_temperature(gpu, path, progress, interrupt)?;
    let file = RunFolder::checkpoint_of(path)?;
    progress.line(&format!("note     temperature {temperature:.4}, kept in {}", file.display()));
    Ok(())
}

/// What a model said of its images.
struct Answered {
    name: String,
    config: TrainConfig,
    classes: Vec<String>,
    temperature: Option<f64>,
    views: String,
    head: String,
    /// What leaks between the parts of its split.
    leak: Option<String>,
    samples: Vec<Sample>,
    verdicts: Verdicts,
}

impl Answered {
    fn new(
        args: &EvalArgs,
        gpu: &Gpu,
        mut member: Member,
        indices: &[usize],
        progress: &mut Progress,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let head = member.head(args.split, indices)?;
        let verdicts = member.verdicts(gpu, indices, progress, interrupt)?;
        Ok(Self {
            views: member.views(),
            head,
            leak: member.leak,
            samples: indices.iter().map(|&i| member.dataset.samples[i].clone()).collect(),
            verdicts,
            name: member.name,
            temperature: member.predictor.temperature,
            config: member.predictor.config,
            classes: member.predictor.classes,
        })
    }

    /// Its scores by itself.
    fn alone(&self) -> Result<MemberScores> {
        let labels: Vec<usize> = self.samples.iter().map(|sample| sample.label).collect();
        let report = ClassificationReport::new(&self.classes, &labels, &self.verdicts.probabilities)?;
        Ok(MemberScores {
            run: self.name.clone(),
            images: self.samples.len(),
            accuracy: report.accuracy,
            balanced_accuracy: report.balanced_accuracy,
            temperature: self.temperature,
        })
    }
}

/// What is told of each of several models.
#[derive(Debug, Serialize)]
struct MemberScores {
    run: String,
    images: usize,
    accuracy: f64,
    balanced_accuracy: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
}

/// The scores, and those of the members where there are several.
#[derive(Debug, Serialize)]
struct Output<'a> {
    #[serde(flatten)]
    scores: &'a Scores,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    members: Vec<MemberScores>,
    /// How many scored images some member was trained on.
    #[serde(skip_serializing_if = "Option::is_none")]
    trained_on: Option<usize>,
}

/// One model's answers, or those of several on the same images or each on its own.
struct Together {
    first: Answered,
    members: Vec<MemberScores>,
    /// What each said of the images, in their order; out of fold, what all said one after the other.
    verdicts: Vec<Verdicts>,
}

impl Together {
    fn begin(first: Answered) -> Result<Self> {
        let (members, verdicts) = (vec![first.alone()?], vec![first.verdicts.clone()]);
        Ok(Self { first, members, verdicts })
    }

    /// Takes the answers of another member.
    fn join(&mut self, args: &EvalArgs, member: Answered) -> Result<()> {
        self.members.push(member.alone()?);
        self.first.leak = self.first.leak.take().or(member.leak);
        match args.out_of_fold {
            true => self.verdicts[0].extend(member.verdicts),
            false => self.verdicts.push(member.verdicts),
        }
        Ok(())
    }

    fn report(self, args: &EvalArgs, images: &Images) -> Result<()> {
        let trained_on = images.check()?;
        let Answered { config, classes, head, views, temperature, .. } = &self.first;
        let outputs = Outputs::of(config);
        let verdicts = Verdicts::mean(&self.verdicts, outputs)?;
        let labels: Vec<Vec<usize>> = images.samples().iter().map(Sample::all_labels).collect();
        let asked: Vec<Scored<'_>> = images.samples().iter().map(scored).collect();
        let operating = operating_point(args, classes)?;
        let several = self.members.len() > 1;
        let temperature = temperature.filter(|_| !several);
        let scores = score_in_detail(config, classes, (&labels, &asked), &verdicts, operating, temperature)?;
        if several {
            let rows: Vec<_> =
                self.members.iter().map(|m| (m.run.as_str(), m.images, [m.accuracy, m.balanced_accuracy])).collect();
            let together = ["accuracy", "balanced_accuracy"].map(|name| scores.named(name).unwrap_or(f64::NAN));
            say(images.table(["accuracy", "balanced"], &rows, together));
        }
        images.note(trained_on).iter().for_each(say);
        let head = images.head(head.clone(), self.first.leak.as_ref());
        say(format!("{head}{views}, unweighted {} {:.4}\n{}", config.loss.name(), scores.loss, scores.report));
        if let Some(each) = &scores.multi_label {
            say(each.to_string());
        }
        if let Some(detailed) = &scores.detailed {
            say(format!("\n{detailed}"));
        }
        if let Some(calibration) = &scores.calibration {
            say(format!("\n{calibration}"));
        }
        let members = if several { self.members } else { vec![] };
        write_json(args, self.first.leak.as_deref(), &Output { scores: &scores, members, trained_on })
    }
}

/// A picture as detailed scores want it.
fn scored(sample: &Sample) -> Scored<'_> {
    Scored { label: sample.label, lesion: &sample.group, groups: groups_of(sample) }
}

/// The groups of patients that a picture belongs to, as far as they are known.
pub(super) fn groups_of(sample: &Sample) -> Vec<(&'static str, String)> {
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
    groups
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

/// Writes scores where that is asked for.
fn write_json(args: &EvalArgs, leak: Option<&str>, scores: &impl Serialize) -> Result<()> {
    #[derive(Serialize)]
    struct Marked<'a, T> {
        #[serde(skip_serializing_if = "Option::is_none")]
        leak: Option<&'a str>,
        #[serde(flatten)]
        scores: &'a T,
    }
    let Some(path) = &args.json else { return Ok(()) };
    let text = serde_json::to_string_pretty(&Marked { leak, scores })
        .map_err(|e| Error::new(Kind::Internal, format!("could not encode the scores: {e}")))?;
    write_atomically(path, (text + "\n").as_bytes())
}
