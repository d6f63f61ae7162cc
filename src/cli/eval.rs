//! `lesion-gpu eval`

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::member::Member;
use super::progress::Progress;
use super::source::{BareArgs, PartialArgs};
use super::{DeviceArgs, LoadArgs, TuningArgs, say};
use crate::data::{Patient, Sample, age_band};
use crate::error::{Error, Kind, Result};
use crate::gpu::Gpu;
use crate::metrics::{ClassificationReport, Scored};
use crate::models::Task;
use crate::train::{
    Interrupt, ModelSource, Outputs, Precision, RunFolder, Scores, TrainConfig, Verdicts, score_in_detail,
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
    out_of_fold: bool,
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
    bare: BareArgs,
    #[command(flatten)]
    partial: PartialArgs,
    #[command(flatten)]
    pub(super) load: LoadArgs,
    #[command(flatten)]
    pub(super) tuning: TuningArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(super) fn run(args: &EvalArgs, interrupt: &Interrupt) -> Result<()> {
    let sources = match args.runs.as_slice() {
        [] | [_] => vec![args.bare.resolve(args.runs.first().cloned(), &args.partial)?],
        several if args.fit_temperature => {
            return Err(Error::new(Kind::Usage, format!("--fit-temperature is for one run, not {}", several.len()))
                .next("fit each by itself first"));
        }
        several => {
            several.iter().map(|run| args.bare.resolve(Some(run.clone()), &args.partial)).collect::<Result<_>>()?
        }
    };
    if args.out_of_fold && sources.len() == 1 {
        return Err(Error::new(Kind::Usage, "--out-of-fold needs the runs of all folds, and there is one")
            .next("name the others too"));
    }
    let gpu = args.device.open()?;
    let mut progress = Progress::new();
    let mut all: Option<Together> = None;
    for source in &sources {
        let mut member = Member::open(args, source, &gpu, &mut progress, interrupt)?;
        if member.predictor.task == Task::Segment {
            return masks_of(args, &gpu, sources.len(), &mut member, &mut progress, interrupt);
        }
        if args.fit_temperature {
            fit(&gpu, source, &mut member, &mut progress, interrupt)?;
        }
        let member = Answered::new(args, &gpu, member, &mut progress, interrupt)?;
        match &mut all {
            None => all = Some(Together::begin(args, member)?),
            Some(all) => all.join(args, member)?,
        }
    }
    progress.clear();
    all.ok_or_else(|| Error::new(Kind::Internal, "there is nothing to score"))?.report(args)
}

/// Scores masks, of a single model.
fn masks_of(
    args: &EvalArgs,
    gpu: &Gpu,
    models: usize,
    member: &mut Member,
    progress: &mut Progress,
    interrupt: &Interrupt,
) -> Result<()> {
    let refuse = |what: &str| Err(Error::new(Kind::Usage, format!("{what} is for models that classify")));
    if models > 1 {
        return refuse("scoring several runs together");
    }
    if args.fit_temperature {
        return refuse("--fit-temperature");
    }
    let indices = member.indices(args.split);
    let (head, views) = (member.head(args.split, &indices)?, member.views());
    let report = member.masks(gpu, &indices, progress, interrupt)?;
    progress.clear();
    say(format!("{head}, masks brought to the pictures' own size{views}\n{report}"));
    write_json(args, member.leak.as_deref(), &report)
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
    /// What was trained on, where that is known.
    run: Option<RunFolder>,
    config: TrainConfig,
    classes: Vec<String>,
    temperature: Option<f64>,
    views: String,
    head: String,
    /// What leaks between the parts of its split.
    leak: Option<String>,
    /// Images of the whole dataset.
    images: usize,
    samples: Vec<Sample>,
    verdicts: Verdicts,
}

impl Answered {
    fn new(
        args: &EvalArgs,
        gpu: &Gpu,
        mut member: Member,
        progress: &mut Progress,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let indices = member.indices(args.split);
        let head = member.head(args.split, &indices)?;
        let verdicts = member.verdicts(gpu, &indices, progress, interrupt)?;
        Ok(Self {
            views: member.views(),
            head,
            leak: member.leak,
            images: member.dataset.samples.len(),
            samples: indices.iter().map(|&i| member.dataset.samples[i].clone()).collect(),
            verdicts,
            name: member.name,
            run: member.run,
            temperature: member.predictor.temperature,
            config: member.predictor.config,
            classes: member.predictor.classes,
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
    /// What each said of the images of `samples`, in their order.
    verdicts: Vec<Verdicts>,
    samples: Vec<Sample>,
    trained_on: HashSet<String>,
}

impl Together {
    fn begin(args: &EvalArgs, first: Answered) -> Result<Self> {
        let (verdicts, samples) = (vec![first.verdicts.clone()], first.samples.clone());
        let mut all = Self { first, members: vec![], verdicts, samples, trained_on: HashSet::new() };
        let scores = all.alone(&all.first)?;
        all.members.push(scores);
        all.remember(args, all.first.run.clone())?;
        Ok(all)
    }

    /// Takes the answers of another member.
    fn join(&mut self, args: &EvalArgs, member: Answered) -> Result<()> {
        if member.classes != self.first.classes {
            let (one, other) = (self.first.classes.join(","), member.classes.join(","));
            return Err(Error::new(Kind::Usage, format!("the runs have different classes: {one}, and {other}"))
                .at(&member.name)
                .next("score runs together that were trained for the same classes"));
        }
        if member.config.loss.of_sigmoids() != self.first.config.loss.of_sigmoids() {
            return Err(Error::new(
                Kind::Usage,
                "some runs have a softmax over the classes, others a sigmoid for each",
            )
            .at(&member.name)
            .next("score runs together whose --loss is of one kind"));
        }
        let scores = self.alone(&member)?;
        self.members.push(scores);
        self.first.leak = self.first.leak.take().or_else(|| member.leak.clone());
        self.remember(args, member.run.clone())?;
        if args.out_of_fold { self.append(member) } else { self.add(args, member) }
    }

    /// The scores of a member by itself.
    fn alone(&self, member: &Answered) -> Result<MemberScores> {
        let labels: Vec<usize> = member.samples.iter().map(|sample| sample.label).collect();
        let report = ClassificationReport::new(&member.classes, &labels, &member.verdicts.probabilities)?;
        Ok(MemberScores {
            run: member.name.clone(),
            images: member.samples.len(),
            accuracy: report.accuracy,
            balanced_accuracy: report.balanced_accuracy,
            temperature: member.temperature,
        })
    }

    /// Remembers what a member was trained on, unless its answers are on other images than those.
    fn remember(&mut self, args: &EvalArgs, run: Option<RunFolder>) -> Result<()> {
        if let Some(run) = run.filter(|_| !args.out_of_fold) {
            self.trained_on.extend(run.trained_on()?);
        }
        Ok(())
    }

    /// Takes answers on the same images.
    fn add(&mut self, args: &EvalArgs, member: Answered) -> Result<()> {
        let at: HashMap<&str, usize> =
            member.samples.iter().enumerate().map(|(i, sample)| (sample.id.as_str(), i)).collect();
        let places: Vec<usize> = self.samples.iter().filter_map(|sample| at.get(sample.id.as_str()).copied()).collect();
        if places.len() != self.samples.len() || places.len() != member.samples.len() {
            let what = format!(
                "the runs do not have the same images in their {} split: {} of {} are among the {} of this one",
                args.split.name(),
                places.len(),
                self.samples.len(),
                member.samples.len()
            );
            let folds = "for the folds of a cross-validation use --out-of-fold; else score images that no run was trained \
                         on, with --data and --split all";
            return Err(Error::new(Kind::Usage, what).at(&member.name).next(folds));
        }
        let differ = self.samples.iter().zip(&places).filter(|(sample, i)| sample.label != member.samples[**i].label);
        match differ.count() {
            0 => self.verdicts.push(member.verdicts.select(&places, member.classes.len())),
            count => {
                return Err(Error::new(
                    Kind::Data,
                    format!("the runs' data disagree about the class of {count} images"),
                )
                .at(&member.name)
                .next("score them on one dataset, with --data"));
            }
        }
        Ok(())
    }

    /// Takes answers on other images.
    fn append(&mut self, member: Answered) -> Result<()> {
        let seen: HashSet<&str> = self.samples.iter().map(|sample| sample.id.as_str()).collect();
        let twice = member.samples.iter().filter(|sample| seen.contains(sample.id.as_str())).count();
        if twice > 0 {
            let what = format!("{twice} images are in the test split of more than one run");
            return Err(Error::new(Kind::Usage, what).at(&member.name).next(
                "--out-of-fold is for the folds of one cross-validation (train --fold 1/5 and so on, with the same seed)",
            ));
        }
        if member.images != self.first.images {
            let what = format!("the runs' data differ: {} images, and {}", self.first.images, member.images);
            return Err(Error::new(Kind::Usage, what).at(&member.name));
        }
        self.samples.extend(member.samples);
        self.verdicts[0].extend(member.verdicts);
        Ok(())
    }

    /// Refuses what would flatter the models; how many images some were trained on, where that was asked for.
    fn check(&self, args: &EvalArgs) -> Result<Option<usize>> {
        let (all, scored) = (self.first.images, self.samples.len());
        if args.out_of_fold && scored != all {
            let what = format!("{} of {all} images are in no run's test split", all - scored);
            return Err(Error::new(Kind::Usage, what).next("name the runs of all folds"));
        }
        let known = self.samples.iter().filter(|sample| self.trained_on.contains(&sample.id)).count();
        match args.split {
            _ if known == 0 || args.out_of_fold => Ok(None),
            Part::Train | Part::All => Ok(Some(known)),
            Part::Val | Part::Test => {
                let what = format!("{known} of {scored} images were trained on: such scores say nothing of new images");
                Err(Error::new(Kind::Usage, what)
                    .next("score other images, or --split all, which says how many were trained on"))
            }
        }
    }

    fn report(self, args: &EvalArgs) -> Result<()> {
        let trained_on = self.check(args)?;
        let Answered { config, classes, head, views, temperature, .. } = &self.first;
        let outputs = Outputs::of(config);
        let verdicts = Verdicts::mean(&self.verdicts, outputs)?;
        let labels: Vec<Vec<usize>> = self.samples.iter().map(Sample::all_labels).collect();
        let images: Vec<Scored<'_>> = self.samples.iter().map(scored).collect();
        let operating = operating_point(args, classes)?;
        let several = self.members.len() > 1;
        let temperature = temperature.filter(|_| !several);
        let scores = score_in_detail(config, classes, (&labels, &images), &verdicts, operating, temperature)?;
        if several {
            say(self.table(args, &scores));
        }
        let head = match args.out_of_fold {
            true => {
                let leak = self.first.leak.as_ref().map_or(String::new(), |leak| format!("{leak}\n"));
                format!("{leak}{} images, each by the run that had it in its test split", self.samples.len())
            }
            false => head.clone(),
        };
        if let Some(known) = trained_on.filter(|_| args.split == Part::All) {
            let count = self.samples.len();
            say(format!("note     {known} of {count} images were trained on: these scores flatter"));
        }
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

    /// The members and what they are together.
    fn table(&self, args: &EvalArgs, scores: &Scores) -> String {
        let together =
            if args.out_of_fold { "out of fold".to_owned() } else { format!("mean of {}", self.members.len()) };
        let names = self.members.iter().map(|member| member.run.chars().count());
        let width = names.chain([together.chars().count()]).max().unwrap_or(0);
        let mut text = format!("{:width$}  images  accuracy  balanced\n", "run");
        for MemberScores { run, images, accuracy, balanced_accuracy, .. } in &self.members {
            text += &format!("{run:width$}  {images:>6}  {accuracy:>8.4}  {balanced_accuracy:>8.4}\n");
        }
        let named = |name: &str| scores.named(name).unwrap_or(f64::NAN);
        let (accuracy, balanced) = (named("accuracy"), named("balanced_accuracy"));
        text + &format!("{together:width$}  {:>6}  {accuracy:>8.4}  {balanced:>8.4}\n", self.samples.len())
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
