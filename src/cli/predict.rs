//! `lesion-gpu predict`

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::progress::Progress;
use super::source::BareArgs;
use super::{DeviceArgs, TuningArgs, interrupted, say};
use crate::data::{Batch, ImageSize, decode_image_file, list_images};
use crate::error::{Error, Kind, Result};
use crate::metrics::{sigmoid, softmax};
use crate::models::Task;
use crate::train::{Interrupt, Precision, Predictor};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Text,
    Json,
    Csv,
}

#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  lesion-gpu predict runs/resnet18-001 photo.jpg
  lesion-gpu predict runs/resnet18-001 photos/ --format csv > labels.csv
  lesion-gpu predict runs/unet-small-001 photos/ --out masks/
  lesion-gpu predict --model resnet18 --weights w.safetensors photo.jpg --logits --format json")]
pub(super) struct PredictArgs {
    /// A run folder or checkpoint (unless --model and --weights are given), then pictures and folders of pictures
    #[arg(value_name = "RUN|PICTURE", required = true)]
    paths: Vec<PathBuf>,
    /// How many classes to name, the likeliest first
    #[arg(long, default_value_t = 3, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    top_k: u32,
    /// Raw outputs of the model instead of probabilities
    #[arg(long)]
    pub(super) logits: bool,
    /// Folder for the masks of a model that segments, as large as the pictures: NAME_segmentation.png for NAME.jpg.
    /// Nothing is overwritten
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Output format; csv has a column for every class, or what there is to say of a mask
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) format: Format,
    /// Pictures at a time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: u32,
    /// f32 or mixed [default: as trained]
    #[arg(long)]
    precision: Option<Precision>,
    #[command(flatten)]
    bare: BareArgs,
    #[command(flatten)]
    tuning: TuningArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Debug, Serialize)]
struct ClassScore<'a> {
    class: &'a str,
    /// Probability, or raw output with `--logits`.
    score: f64,
}

#[derive(Debug, Serialize)]
struct Answer<'a> {
    image: String,
    label: &'a str,
    /// The likeliest first.
    top: Vec<ClassScore<'a>>,
    /// All raw outputs in the order of the classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    logits: Option<&'a [f32]>,
}

pub(super) fn run(args: &PredictArgs, interrupt: &Interrupt) -> Result<()> {
    let (run, pictures) = match args.bare.given() {
        true => (None, args.paths.as_slice()),
        false => (args.paths.first().cloned(), &args.paths[1..]),
    };
    let source = args.bare.resolve(run)?;
    let mut files = vec![];
    for path in pictures {
        if path.is_dir() {
            files.extend(list_images(path)?);
        } else {
            files.push(path.clone());
        }
    }
    if files.is_empty() {
        return Err(Error::new(Kind::Usage, "no pictures to label").next("name pictures or folders after the run"));
    }
    let gpu = args.device.open()?;
    let batch = (args.batch as usize).min(files.len());
    let tuning = args.tuning.cache(&gpu);
    let mut predictor = Predictor::load(&gpu, &source, batch, args.precision, tuning.as_ref())?;
    predictor.notes.iter().for_each(|note| eprintln!("note: {note}"));
    if !predictor.difference.is_empty() {
        eprintln!("note: loaded what fits of the weights:\n  {}", predictor.difference.describe());
    }
    if predictor.task == Task::Segment {
        return super::masks::predict(args, &gpu, &mut predictor, &files, batch, interrupt);
    }
    if args.out.is_some() {
        return Err(Error::new(Kind::Usage, "--out is for models that segment").next("leave --out away"));
    }
    let size = predictor.config.size;
    let mut progress = Progress::quiet_in_a_pipe();
    let total = files.len().div_ceil(batch);
    let batches = files.chunks(batch).map(|chunk| load(chunk, size, batch));
    let logits = predictor.logits(&gpu, batches, &mut |done| {
        progress.show("predicting", done, total, String::new);
        interrupted(interrupt)
    })?;
    progress.clear();
    let sigmoids = predictor.config.loss.of_sigmoids();
    print(args, &files, &logits, &predictor.classes, sigmoids)
}

/// Decodes pictures exactly as training did.
fn load(files: &[PathBuf], size: ImageSize, rows: usize) -> Result<Batch> {
    let pictures = files.iter().map(|file| decode_image_file(file, size)).collect::<Result<Vec<_>>>()?;
    Ok(Batch::of_pictures(&pictures, size, rows))
}

/// Prints the answers; `sigmoids` says whether each class is a yes or no of its own.
fn print(args: &PredictArgs, files: &[PathBuf], logits: &[f32], classes: &[String], sigmoids: bool) -> Result<()> {
    let k = classes.len();
    if logits.iter().any(|v| !v.is_finite()) {
        return Err(Error::new(Kind::Diverged, "the model's outputs are not finite numbers")
            .next("the weights are damaged or come from a run that diverged"));
    }
    let probabilities = if sigmoids { sigmoid(logits) } else { softmax(logits, k)? };
    let mut answers = vec![];
    for ((file, raw), p) in files.iter().zip(logits.chunks_exact(k)).zip(probabilities.chunks_exact(k)) {
        let mut order: Vec<usize> = (0..k).collect();
        order.sort_by(|&a, &b| p[b].total_cmp(&p[a]));
        let score = |i: usize| if args.logits { f64::from(raw[i]) } else { p[i] };
        let top = order.iter().take(args.top_k as usize).map(|&i| ClassScore { class: &classes[i], score: score(i) });
        answers.push(Answer {
            image: file.display().to_string(),
            label: &classes[order[0]],
            top: top.collect(),
            logits: args.logits.then_some(raw),
        });
    }
    let failed = |e: String| Error::new(Kind::Internal, format!("could not encode the answers: {e}"));
    match args.format {
        Format::Json => say(serde_json::to_string_pretty(&answers).map_err(|e| failed(e.to_string()))?),
        Format::Text => {
            for a in &answers {
                let top: Vec<String> = a.top.iter().map(|t| format!("{} {:.4}", t.class, t.score)).collect();
                say(format!("{}: {}", a.image, top.join(", ")));
            }
        }
        Format::Csv => {
            let mut csv = csv::Writer::from_writer(vec![]);
            let header = ["image", "label"].into_iter().chain(classes.iter().map(String::as_str));
            csv.write_record(header).map_err(|e| failed(e.to_string()))?;
            for ((answer, raw), p) in answers.iter().zip(logits.chunks_exact(k)).zip(probabilities.chunks_exact(k)) {
                let values = (0..k).map(|i| if args.logits { format!("{:?}", raw[i]) } else { format!("{:.6}", p[i]) });
                let row = [answer.image.clone(), answer.label.to_owned()].into_iter().chain(values);
                csv.write_record(row).map_err(|e| failed(e.to_string()))?;
            }
            let text = csv.into_inner().map_err(|e| failed(e.to_string()))?;
            say(String::from_utf8_lossy(&text).trim_end());
        }
    }
    Ok(())
}
