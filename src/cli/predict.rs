//! `lesion-gpu predict`

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::answers::{Answer, Format};
use super::pictures::{self, Job};
use super::source::ModelArgs;
use super::{DeviceArgs, TuningArgs};
use crate::error::{Error, Kind, Result};
use crate::models::Task;
use crate::parallel::Team;
use crate::train::{Answering, Ensemble, Interrupt, ModelSource, Precision, Predictor, Said, is_model};

#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  lesion-gpu predict runs/resnet18-001 photo.jpg
  lesion-gpu predict runs/resnet18-001 photos/ --format csv > labels.csv
  lesion-gpu predict runs/resnet18-001 photo.jpg --tta
  find photos -name '*.jpg' | lesion-gpu predict runs/resnet18-001 - --format jsonl
  lesion-gpu predict runs/resnet18-001 ISIC2018_Task3_Test_Input/ --isic > submission.csv
  lesion-gpu predict runs/a-001 runs/b-001 runs/c-001 photos/   the mean of several runs
  lesion-gpu predict runs/unet-small-001 photos/ --out masks/
  mpirun -n 4 lesion-gpu predict runs/resnet18-001 photos/ --format csv > labels.csv
  lesion-gpu predict --model resnet18 --weights w.safetensors photo.jpg --logits --format json")]
pub(super) struct PredictArgs {
    /// A run folder or checkpoint (unless --model and --weights are given), or several, whose mean answers; then pictures,
    /// folders of pictures, patterns such as 'photos/*.jpg', and - for a list of such on standard input, one a line
    #[arg(value_name = "RUN|PICTURE", required = true)]
    paths: Vec<PathBuf>,
    /// How many classes to name, the likeliest first
    #[arg(long, default_value_t = 3, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    top_k: u32,
    /// Raw outputs of the model instead of probabilities
    #[arg(long)]
    pub(super) logits: bool,
    /// Show the model each picture in all views that keep its shape (8 of a square, else 4), and take the mean of the
    /// probabilities
    #[arg(long, conflicts_with = "logits")]
    tta: bool,
    /// Probabilities as they are, without the temperature that training fitted
    #[arg(long)]
    no_temperature: bool,
    /// Folder for the masks of a model that segments, as large as the pictures: NAME_segmentation.png for NAME.jpg.
    /// Nothing is overwritten
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// With --out: also NAME_outlined.png, the picture with the outline of its mask, and in JSON the outlines as polygons
    #[arg(long, requires = "out")]
    pub(super) contours: bool,
    /// Output format; csv has a column for every class, or what there is to say of a mask
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// A table as the ISIC challenges of 2018 (Task 3) and 2019 take it: image names without endings, and their columns of
    /// classes
    #[arg(long, conflicts_with_all = ["format", "logits"])]
    pub(super) isic: bool,
    /// Pictures at a time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: u32,
    /// f32 or mixed [default: as trained]
    #[arg(long)]
    precision: Option<Precision>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    tuning: TuningArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Debug, Serialize)]
struct ClassScore {
    class: String,
    /// Probability, or raw output with `--logits`.
    score: f64,
}

#[derive(Debug, Serialize)]
struct Classified {
    image: String,
    label: String,
    /// The likeliest first.
    top: Vec<ClassScore>,
    /// What logits were divided by, where probabilities are calibrated.
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    /// Views that probabilities are the mean of, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    views: Option<usize>,
    /// Runs that probabilities are the mean of, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    runs: Option<usize>,
    /// All raw outputs in the order of the classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    logits: Option<Vec<f32>>,
    /// Probabilities in that order.
    #[serde(skip)]
    probabilities: Vec<f64>,
    /// A row of a submission.
    #[serde(skip)]
    submission: Option<Vec<String>>,
}

impl Answer for Classified {
    fn line(&self) -> String {
        let top: Vec<String> = self.top.iter().map(|t| format!("{} {:.4}", t.class, t.score)).collect();
        format!("{}: {}", self.image, top.join(", "))
    }

    fn row(&self) -> Vec<String> {
        if let Some(row) = &self.submission {
            return row.clone();
        }
        let mut row = vec![self.image.clone(), self.label.clone()];
        match &self.logits {
            Some(logits) => row.extend(logits.iter().map(|v| format!("{v:?}"))),
            None => row.extend(self.probabilities.iter().map(|p| format!("{p:.6}"))),
        }
        row
    }
}

/// Runs `lesion-gpu predict`, alone or as one of several ranks that take batches of the pictures in turn.
pub(super) fn run(args: &PredictArgs, interrupt: &Interrupt, team: &Team) -> Result<()> {
    let (sources, paths) = sources(args)?;
    // Rank 0 speaks for all.
    let note = |text: String| {
        if team.is_first() {
            eprintln!("note: {text}");
        }
    };
    if args.logits && sources.len() > 1 {
        return Err(Error::new(Kind::Usage, "--logits is for one run: of several, probabilities are averaged")
            .next("leave --logits away, or name one run"));
    }
    let files = pictures::find(paths, team)?;
    let gpu = team.in_turn("the device", || args.device.open_at(team.local()))?;
    // Few pictures are for all ranks too.
    let batch = (args.batch as usize).min(files.len().div_ceil(team.size()));
    let tuning = args.tuning.cache(&gpu);
    let mut models = vec![];
    for source in &sources {
        let mut predictor = Predictor::load(&gpu, source, batch, args.precision, tuning.as_ref())?;
        predictor.notes.iter().chain(&predictor.difference.note()).for_each(|text| note(text.clone()));
        if args.no_temperature {
            predictor.temperature = None;
        }
        if args.tta {
            predictor.show_all_views();
        }
        models.push((source.name(), predictor));
    }
    let mut models = Ensemble::new(models)?;
    if sources.len() > 1 {
        note(format!("the mean of {} runs", sources.len()));
    }
    if args.tta {
        let list: Vec<String> = models.members().iter().map(|model| model.views().to_string()).collect();
        note(format!("the mean of {} views of each picture", list.join(", ")));
    }
    let views = models.views();
    let job = |columns| Job { files: &files, batch, format: args.format, columns, team, interrupt };
    let Answering { task, classes, .. } = models.members()[0].answering();
    if task == Task::Segment {
        return super::masks::predict(args, &gpu, &mut models, &job(&super::masks::COLUMNS));
    }
    if args.out.is_some() {
        return Err(Error::new(Kind::Usage, "--out is for models that segment").next("leave --out away"));
    }
    let temperatures: Vec<f64> =
        models.members().iter().filter_map(|model| model.temperature.filter(|_| !args.logits)).collect();
    if !temperatures.is_empty() {
        let list: Vec<String> = temperatures.iter().map(|t| format!("{t:.4}")).collect();
        note(format!("probabilities are calibrated, by a temperature of {}", list.join(", ")));
    }
    // Of several, each has its own.
    let temperature = temperatures.first().copied().filter(|_| sources.len() == 1);
    let runs = Some(sources.len()).filter(|&runs| runs > 1);
    let challenge = if args.isic { Some(challenge(&classes)?) } else { None };
    let columns: Vec<&str> = match &challenge {
        Some(columns) => ["image"].into_iter().chain(columns.iter().map(|(name, _)| *name)).collect(),
        None => ["image", "label"].into_iter().chain(classes.iter().map(String::as_str)).collect(),
    };
    let format = if args.isic { Format::Csv } else { args.format };
    Job { format, ..job(&columns) }.run(&gpu, &mut models, &mut |picture, said| {
        let file = &files[picture.index];
        let answer = classify(args, file.display().to_string(), &Said::mean(said)?, &classes)?;
        let submission = challenge.as_ref().map(|columns| {
            let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let share = |class: &Option<usize>| class.map_or(0.0, |class| answer.probabilities[class]);
            let shares = columns.iter().map(|(_, class)| format!("{:.6}", share(class)));
            [name].into_iter().chain(shares).collect()
        });
        Ok(Classified { temperature, views, runs, submission, ..answer })
    })
}

/// Classes of the challenges, as their tables name them. Nobody knows what is unknown: its probability is 0.
const CHALLENGES: [&[&str]; 2] = [
    &["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"],
    &["MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"],
];

/// The columns of the challenge with these classes, each with the number of its class.
fn challenge(classes: &[String]) -> Result<Vec<(&'static str, Option<usize>)>> {
    let named = |name: &str| classes.iter().position(|class| class.eq_ignore_ascii_case(name));
    let columns = CHALLENGES.iter().map(|names| names.iter().map(|&name| (name, named(name))).collect::<Vec<_>>());
    let complete = |columns: &Vec<(&str, Option<usize>)>| {
        let known = columns.iter().filter(|(_, class)| class.is_some()).count();
        known == classes.len() && columns.iter().all(|(name, class)| class.is_some() || *name == "UNK")
    };
    columns.into_iter().find(complete).ok_or_else(|| {
        let what = format!("the model's classes are not those of an ISIC challenge: {}", classes.join(", "));
        Error::new(Kind::Usage, what).next("use --format csv")
    })
}

/// The models that are named, and the paths behind them.
fn sources(args: &PredictArgs) -> Result<(Vec<ModelSource>, &[PathBuf])> {
    if args.model.given() {
        return Ok((args.model.sources(&[])?, &args.paths));
    }
    // What is named first has to be a model, whatever it looks like.
    let others = args.paths.iter().skip(1).take_while(|path| is_model(path)).count();
    let (runs, pictures) = args.paths.split_at(1 + others);
    Ok((args.model.sources(runs)?, pictures))
}

/// What the model's words mean.
fn classify(args: &PredictArgs, image: String, said: &Said, classes: &[String]) -> Result<Classified> {
    let Said { logits, probabilities, .. } = said;
    said.check().map_err(|e| e.at(&image).next("the weights are damaged or come from a run that diverged"))?;
    let mut order: Vec<usize> = (0..classes.len()).collect();
    order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
    let score = |i: usize| if args.logits { f64::from(logits[i]) } else { probabilities[i] };
    let top = order.iter().take(args.top_k as usize);
    Ok(Classified {
        image,
        label: classes[order[0]].clone(),
        top: top.map(|&i| ClassScore { class: classes[i].clone(), score: score(i) }).collect(),
        temperature: None,
        views: None,
        runs: None,
        logits: args.logits.then(|| logits.clone()),
        probabilities: probabilities.clone(),
        submission: None,
    })
}
