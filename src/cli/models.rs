//! `lesion-gpu models`: what there is to train, and what it costs. Needs no GPU.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::progress::Progress;
use super::{bytes, published, say};
use crate::error::{Error, Kind, Result};
use crate::gpu::Caps;
use crate::hub::Known;
use crate::models::{Model, ModelSummary};
use crate::train::{Interrupt, TrainConfig, TrainGraph};

#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  lesion-gpu models                             all models: parameters, cost, smallest images, published weights
  lesion-gpu models --size 128 --classes 1000
  lesion-gpu models resnet50 --batch 32         one model: its parts, and the memory of a training step
  lesion-gpu models resnet50 --fetch            fetch its published weights now, and say where they are
  lesion-gpu models --json                      the same for programs")]
pub(super) struct ModelsArgs {
    /// One model in detail
    #[arg(value_name = "MODEL")]
    model: Option<String>,
    /// Side of the square images in pixels
    #[arg(long, default_value_t = 224, value_parser = clap::value_parser!(u16).range(1..=4096))]
    size: u16,
    /// Classes of the head
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    classes: u32,
    /// Images of the training step whose memory is planned
    #[arg(long, default_value_t = 32, requires = "model", value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: u32,
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Fetch the model's published weights, unless they are on this machine already, and print where they are
    #[arg(long, requires = "model", conflicts_with = "json")]
    fetch: bool,
    /// Folder for fetched files [default: lesion-gpu in the user's cache folder]
    #[arg(long, value_name = "DIR", requires = "fetch")]
    cache: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    about: &'static str,
    size: usize,
    classes: usize,
    /// Trained values and multiply-adds of one image; none where the model takes no images of this size.
    parameters: Option<usize>,
    macs: Option<u64>,
    /// Side of the smallest images.
    smallest_size: usize,
    weights: Option<Weights>,
}

#[derive(Debug, Serialize)]
struct Weights {
    sources: Vec<String>,
    normalize: &'static str,
    size: usize,
    licence: &'static str,
}

#[derive(Debug, Serialize)]
struct Detail {
    #[serde(flatten)]
    row: Row,
    parts: Vec<Part>,
    /// What a weight file holds: parameters and running statistics.
    tensors: Vec<FileTensor>,
    batch: usize,
    /// Bytes on the device of a training step with Adam, in f32.
    training_bytes: u64,
    training_bytes_without_reuse: u64,
}

#[derive(Debug, Serialize)]
struct FileTensor {
    name: String,
    shape: Vec<usize>,
}

#[derive(Debug, Serialize)]
struct Part {
    name: String,
    parameters: usize,
    macs: u64,
    output: Vec<usize>,
}

pub(super) fn run(args: &ModelsArgs, interrupt: &Interrupt) -> Result<()> {
    match &args.model {
        Some(name) if args.fetch => {
            // There is no file to name here.
            let known = published::known(Model::find(name)?.name())
                .map_err(|e| e.next(format!("choose one of: {}", published::names())))?;
            let mut progress = Progress::quiet_in_a_pipe();
            let path = published::fetch(&known, args.cache.clone(), &mut progress, interrupt)?;
            say(path.display().to_string());
            Ok(())
        }
        Some(name) => one(args, Model::find(name)?),
        None => all(args),
    }
}

impl ModelsArgs {
    fn row(&self, model: Model, summary: Option<&ModelSummary>) -> Result<Row> {
        let (size, classes) = (self.size.into(), self.classes as usize);
        let weights = Known::of(model.name()).map(|known| Weights {
            sources: known.sources.iter().map(|s| s.name()).collect(),
            normalize: known.normalize,
            size: known.size,
            licence: known.licence,
        });
        Ok(Row {
            name: model.name(),
            about: model.about(),
            size,
            classes,
            parameters: summary.map(|s| s.trainable),
            macs: summary.map(|s| s.macs),
            smallest_size: model.smallest_size(classes)?,
            weights,
        })
    }
}

fn all(args: &ModelsArgs) -> Result<()> {
    let mut rows = vec![];
    for &model in Model::all() {
        let summary = model.summary(args.size.into(), args.classes as usize);
        rows.push(args.row(model, summary.as_ref().ok())?);
    }
    if args.json {
        return json(&rows);
    }
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or_default();
    say(format!(
        "{:width$}  {:>10}  {:>9}  {:>8}  {:9}  {}",
        "model", "parameters", "GMACs", "smallest", "input", "published weights"
    ));
    for row in &rows {
        let count = row.parameters.map_or("-".to_owned(), |n| n.to_string());
        let (input, weights) = row.weights.as_ref().map_or(("", "none"), |w| (w.normalize, w.sources[0].as_str()));
        let macs = row.macs.map_or("-".to_owned(), gmacs);
        let smallest = row.smallest_size;
        say(format!("{:width$}  {count:>10}  {macs:>9}  {smallest:>8}  {input:9}  {weights}", row.name));
    }
    say(format!(
        "\nfor {0}x{0} pixels and {1} classes; GMACs: 10^9 multiply-adds of one image, of convolutions, linear layers and \
         attention;\nsmallest: side in pixels; input: the pixel statistics (--normalize) that go with the published \
         weights\nmore of one: lesion-gpu models NAME",
        args.size, args.classes
    ));
    Ok(())
}

fn one(args: &ModelsArgs, model: Model) -> Result<()> {
    let summary = model.summary(args.size.into(), args.classes as usize)?;
    let batch = args.batch as usize;
    let config = TrainConfig { size: usize::from(args.size).into(), batch, ..TrainConfig::of(model) };
    // Planned for a device that promises little; fast kernels may take some scratch memory more.
    let caps = Caps { max_binding: u64::MAX, max_buffer: u64::MAX, ..Caps::baseline() };
    let memory = TrainGraph::new(model, &config, batch, model.outputs(args.classes as usize), &caps)?.plan.memory;
    let parts = summary.layers.iter().map(|l| Part {
        name: l.name.clone(),
        parameters: l.trainable,
        macs: l.macs,
        output: l.output.dims().iter().skip(1).copied().collect(),
    });
    let tensors = summary.parameters.iter();
    let tensors = tensors.map(|p| FileTensor { name: p.name.clone(), shape: p.file_shape.dims().to_vec() });
    let detail = Detail {
        row: args.row(model, Some(&summary))?,
        parts: parts.collect(),
        tensors: tensors.collect(),
        batch,
        training_bytes: memory.total(),
        training_bytes_without_reuse: memory.without_reuse,
    };
    if args.json {
        return json(&detail);
    }
    print(&detail, &summary);
    Ok(())
}

fn print(detail: &Detail, summary: &ModelSummary) {
    let row = &detail.row;
    say(format!("{}: {}", row.name, row.about));
    let statistics: usize = summary.parameters.iter().filter(|p| !p.trainable).map(|p| p.count()).sum();
    say(format!("parameters  {} trained, and {statistics} running statistics of batch-norm", summary.trainable));
    say(format!("cost        {} GMACs for {1}x{1} pixels", gmacs(summary.macs), row.size));
    say(format!("images      at least {0}x{0} pixels", row.smallest_size));
    say(format!(
        "memory      {} for a training step of {} images with Adam in f32 ({} without reuse)",
        bytes(detail.training_bytes),
        detail.batch,
        bytes(detail.training_bytes_without_reuse)
    ));
    match &row.weights {
        Some(w) => {
            say(format!("weights     {} ({})", w.sources.join(", or "), w.licence));
            say(format!("            for images of {0}x{0} pixels with --normalize {1}", w.size, w.normalize));
        }
        None => say("weights     none published that fit"),
    }
    let width = detail.parts.iter().map(|p| p.name.len()).max().unwrap_or_default().max(4);
    say(format!("\n{:width$}  {:>10}  {:>9}  output of one image", "part", "parameters", "GMACs"));
    for part in &detail.parts {
        let output = part.output.iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
        say(format!("{:width$}  {:>10}  {:>9}  {output}", part.name, part.parameters, gmacs(part.macs)));
    }
}

fn gmacs(macs: u64) -> String {
    format!("{:.4}", macs as f64 / 1e9)
}

fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Error::new(Kind::Internal, format!("could not encode the models: {e}")))?;
    say(text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Normalisation;

    #[test]
    fn published_weights_are_of_models_there_are() {
        for known in Known::all() {
            let model = Model::find(known.model).unwrap();
            assert!(model.smallest_size(7).unwrap() <= known.size, "{}", known.model);
            let statistics = known.normalize.parse::<Normalisation>().unwrap();
            assert_eq!(statistics, Normalisation::of_published(known.model), "{}", known.model);
        }
    }
}
