//! `lesion-gpu convert`: a weight file in the format that we write. Needs no GPU.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;

use super::{bytes, say};
use crate::error::{Error, Kind, Result};
use crate::models::Model;
use crate::train::{bare_metadata, rename};
use crate::weights::{self, Convention, Difference, WeightFile, write_safetensors};

#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  lesion-gpu convert resnet18-f37072fd.pth resnet18.safetensors
  lesion-gpu convert resnet50.h5 resnet50.safetensors --model resnet50-keras    with the model's names and PyTorch's layout

Reads safetensors, PyTorch's .pth and .pt and Keras's .h5 and .keras, told apart by content. f64, f16 and bf16 become f32.")]
pub(super) struct ConvertArgs {
    /// The file to read
    #[arg(value_name = "IN")]
    from: PathBuf,
    /// The file to write: .safetensors
    #[arg(value_name = "OUT")]
    to: PathBuf,
    /// Give the tensors the names and layout of this model's parameters, and say what does not fit
    #[arg(long)]
    model: Option<String>,
    /// Side of the images in pixels, for a model whose parameters depend on it
    #[arg(long, default_value_t = 224, requires = "model", value_parser = clap::value_parser!(u16).range(1..=4096))]
    size: u16,
    /// Write over an existing file
    #[arg(long)]
    overwrite: bool,
}

pub(super) fn run(args: &ConvertArgs) -> Result<()> {
    let out = args.to.display();
    if args.to.extension().is_none_or(|e| !e.eq_ignore_ascii_case("safetensors")) {
        return Err(Error::new(Kind::Usage, "this command writes safetensors only")
            .at(out)
            .next("name the file .safetensors; for an ONNX graph use `lesion-gpu export`"));
    }
    // The original is never touched, under whatever name.
    if let (Ok(from), Ok(to)) = (args.from.canonicalize(), args.to.canonicalize())
        && from == to
    {
        return Err(Error::new(Kind::Usage, "IN and OUT are the same file")
            .at(out)
            .next("choose another name for OUT"));
    }
    if args.to.exists() && !args.overwrite {
        return Err(Error::new(Kind::Usage, "the file exists").at(out).next("choose another name, or add --overwrite"));
    }
    let model = args.model.as_deref().map(Model::find).transpose()?;
    let read = weights::read(&args.from)?;
    let before: BTreeSet<String> = read.tensors.keys().cloned().collect();
    let mut file = match model {
        Some(model) => named(args, model, read)?,
        None if read.convention == Convention::Keras => {
            return Err(Error::new(
                Kind::Usage,
                "a Keras file has Keras's names and layout, which safetensors cannot tell",
            )
            .at(args.from.display())
            .next("add --model NAME for PyTorch's names and layout (see `lesion-gpu models`)"));
        }
        None => read,
    };
    let notes = std::mem::take(&mut file.notes);
    notes.iter().for_each(|note| say(format!("note   {note}")));
    let renamed = file.tensors.keys().filter(|name| !before.contains(*name)).count();
    if renamed > 0 {
        say(format!("note   {renamed} of {} tensors were renamed", file.tensors.len()));
    }
    if file.tensors.is_empty() {
        return Err(Error::new(Kind::Weights, "the file holds no float tensors, so there is nothing to convert")
            .at(args.from.display())
            .next("check that this is the weight file"));
    }
    if let [first, rest @ ..] = file.left_out.as_slice() {
        let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
        say(format!(
            "note   left out, because of other types than f64, f32, f16 and bf16: {}{more}",
            first.escape_debug()
        ));
    }
    file.metadata.insert("format".into(), "pt".into());
    write_safetensors(&args.to, &file)?;
    let values: usize = file.tensors.values().map(|t| t.shape().len()).sum();
    let length = std::fs::metadata(&args.to).map_err(|e| Error::io("read", &args.to, &e))?.len();
    say(format!("{out}: {} tensors, {values} values, {}", file.tensors.len(), bytes(length)));
    Ok(())
}

/// The tensors that belong to a model, under its names. What it lacks and what it has no use for is said; the number of
/// classes is the file's own.
fn named(args: &ConvertArgs, model: Model, file: WeightFile) -> Result<WeightFile> {
    let parameters = model.summary(args.size.into(), 2)?.parameters;
    let mut file = rename(model, &parameters, file).map_err(|e| e.at(args.from.display()))?;
    // An optimizer's state does not belong to the model, and without it the file is no checkpoint.
    file.metadata = bare_metadata(file.metadata);
    let names = parameters.iter().map(|p| (p.name.as_str(), &p.file_shape));
    let mut difference = Difference::of(&file.tensors, names);
    let head = parameters.last().and_then(|p| p.name.rsplit_once('.')).map_or("", |(head, _)| head);
    let head = format!("{head}.");
    difference.mismatched.retain(|(name, theirs, own)| {
        !(name.starts_with(&head) && theirs.rank() == own.rank() && theirs.dims()[1..] == own.dims()[1..])
    });
    let unfit = |name: &String| difference.mismatched.iter().any(|(other, ..)| other == name);
    file.tensors.retain(|name, _| !difference.unexpected.contains(name) && !unfit(name));
    if file.tensors.is_empty() {
        return Err(Error::new(Kind::Weights, format!("no tensor of this file belongs to {}", model.name()))
            .at(args.from.display())
            .next("choose another --model (see `lesion-gpu models`), or leave --model away to keep the names"));
    }
    if !difference.is_empty() {
        file.notes.push(format!("what does not fit {} is left out:\n  {}", model.name(), difference.describe()));
    }
    Ok(file)
}
