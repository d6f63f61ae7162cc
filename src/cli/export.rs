//! `lesion-gpu export`: a trained model for other programs. Needs no GPU.

use std::path::PathBuf;

use clap::Args;

use super::source::BareArgs;
use super::{bytes, say};
use crate::data::ImageSize;
use crate::error::{Error, Kind, Result};
use crate::export::{self, OnnxOptions};
use crate::models::{Model, Task};
use crate::onnx::Batch;
use crate::train::HostModel;
use crate::weights::{write_atomically, write_safetensors};

/// The version of ONNX's operators unless another is asked for.
const OPSET: i64 = 18;
/// Most classes that are named.
const SHOWN: usize = 10;

#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  lesion-gpu export runs/resnet18-001 --out model.onnx            any number of images at a time
  lesion-gpu export runs/resnet18-001 --out model.onnx --probabilities --batch 1
  lesion-gpu export runs/resnet18-001 --out model.safetensors     bare weights, with PyTorch's names and layout
  lesion-gpu export --model resnet50 --weights w.pth --out model.onnx --size 224

An ONNX graph takes RGB images in [0, 1], [N, 3, H, W], under the name 'images', and gives 'logits' (or 'probabilities').
The pixel statistics are taken off inside; preprocessing (hairs, CLAHE, ...) is not part of the graph. Class names, model, size
and preprocessing are in its metadata.")]
pub(super) struct ExportArgs {
    /// Run folder or checkpoint file
    #[arg(value_name = "RUN", required_unless_present = "weights")]
    run: Option<PathBuf>,
    /// The file to write: .onnx or .safetensors
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Write over an existing file
    #[arg(long)]
    overwrite: bool,
    /// ONNX: images at a time, a number or `dynamic` [default: dynamic]
    #[arg(long, value_name = "N", value_parser = batch)]
    batch: Option<Batch>,
    /// ONNX: version of the operators, 17 to 21 [default: 18]
    #[arg(long, value_name = "N")]
    opset: Option<i64>,
    /// ONNX: probabilities instead of logits
    #[arg(long)]
    probabilities: bool,
    #[command(flatten)]
    bare: BareArgs,
}

fn batch(text: &str) -> std::result::Result<Batch, String> {
    match text.parse() {
        Ok(n @ 1..=65_536) => Ok(Batch::Fixed(n)),
        _ if text == "dynamic" => Ok(Batch::Dynamic),
        _ => Err("give a number from 1 to 65536, or `dynamic`".into()),
    }
}

pub(super) fn run(args: &ExportArgs) -> Result<()> {
    let out = args.out.display();
    if args.out.exists() && !args.overwrite {
        return Err(Error::new(Kind::Usage, "the file exists")
            .at(out)
            .next("choose another --out, or add --overwrite"));
    }
    let size = args.bare.size();
    if size.is_some_and(|size| !size.is_valid()) {
        return Err(args.bare.wrong_size());
    }
    let format = Format::of(args)?;
    let source = args.bare.resolve_at_any_size(args.run.clone())?;
    let model = HostModel::read(&source)?;
    model.notes.iter().for_each(|note| eprintln!("note: {note}"));
    let size = size.unwrap_or(model.config.size);
    let options = OnnxOptions {
        size,
        batch: args.batch.unwrap_or(Batch::Dynamic),
        opset: args.opset.unwrap_or(OPSET),
        probabilities: args.probabilities,
    };
    match format {
        Format::Onnx => write_atomically(&args.out, &export::onnx(&model, options)?.bytes()?)?,
        Format::Safetensors => write_safetensors(&args.out, &export::safetensors(&model, size)?)?,
    }
    let length = std::fs::metadata(&args.out).map_err(|e| Error::io("read", &args.out, &e))?.len();
    let (name, classes) = (&model.config.model, shortened(&model.classes));
    say(format!("{out}: {name} for {size} pixels, {classes}, {}", bytes(length)));
    match format {
        Format::Onnx => describe(&model, options),
        Format::Safetensors => Ok(()),
    }
}

/// What is written.
#[derive(Debug, Clone, Copy)]
enum Format {
    Onnx,
    Safetensors,
}

impl Format {
    /// By the file's extension. Flags for the other format are an error.
    fn of(args: &ExportArgs) -> Result<Self> {
        let out = args.out.display();
        let extension = args.out.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
        let onnx = [
            ("--probabilities", args.probabilities),
            ("--batch", args.batch.is_some()),
            ("--opset", args.opset.is_some()),
        ];
        match (extension.as_str(), onnx.iter().find(|(_, given)| *given)) {
            ("onnx", _) => Ok(Self::Onnx),
            ("safetensors", None) => Ok(Self::Safetensors),
            ("safetensors", Some((flag, _))) => {
                Err(Error::new(Kind::Usage, format!("{flag} is for ONNX graphs alone"))
                    .at(out)
                    .next("name the file .onnx, or leave the flag away"))
            }
            _ => Err(Error::new(Kind::Usage, "the format is told by the file's extension, and this one is unknown")
                .at(out)
                .next("name the file .onnx or .safetensors")),
        }
    }
}

/// The classes, or how many there are and the first of them.
fn shortened(classes: &[String]) -> String {
    match classes.get(..SHOWN) {
        Some(first) if classes.len() > SHOWN => format!("{} classes ({}, ...)", classes.len(), first.join(",")),
        _ => format!("classes {}", classes.join(",")),
    }
}

/// What goes into an ONNX graph, and what comes out.
fn describe(model: &HostModel, options: OnnxOptions) -> Result<()> {
    let OnnxOptions { size, batch, probabilities, .. } = options;
    let batch = match batch {
        Batch::Fixed(n) => n.to_string(),
        Batch::Dynamic => "batch".into(),
    };
    let (ImageSize { width, height }, statistics) = (size, model.config.normalisation.name());
    say(format!("input  images [{batch}, 3, {height}, {width}]: RGB in [0, 1]; normalised inside ({statistics})"));
    let steps = &model.config.preprocess.steps;
    if !steps.is_empty() {
        say(format!("       to be preprocessed outside of the graph: {steps} (see 'preprocess' of the metadata)"));
    }
    let output = if probabilities { "probabilities" } else { "logits" };
    match Model::find(&model.config.model)?.task() {
        Task::Classify => say(format!("output {output} [{batch}, {}]", model.classes.len())),
        Task::Segment => say(format!("output {output} [{batch}, 1, {height}, {width}]: of each pixel")),
    }
    Ok(())
}
