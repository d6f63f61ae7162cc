//! `lesion-gpu data`: looking at datasets. Needs no GPU.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::preview::{self, PreviewArgs};
use super::progress::Progress;
use super::{interrupted, say};
use crate::data::{Dataset, Masks, OpenOptions, check};
use crate::error::{Error, Kind, Result};
use crate::train::Interrupt;

#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  lesion-gpu data check HAM10000.zip                        counts, faults, duplicates
  lesion-gpu data check ISIC_2019 --json > report.json      the same for programs
  lesion-gpu data check HAM10000 --masks masks.zip          masks too
  lesion-gpu data check isic2019-labels.zip --images HAM10000.zip    tables here, pictures there
  lesion-gpu data preview HAM10000.zip --preprocess crop,hair,clahe  a sheet of pictures before and after")]
pub(super) struct DataArgs {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Debug, Subcommand)]
enum DataCommand {
    /// Read every picture of a dataset once and tell what is in it: counts, faults, odd pictures, duplicates
    Check(CheckArgs),
    /// Draw a sheet of pictures, as they are and after each step of preprocessing
    Preview(PreviewArgs),
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// The dataset, as for `train --data`
    #[arg(value_name = "DATA")]
    data: PathBuf,
    /// Folder or zip of pictures that do not lie with the tables; may be repeated
    #[arg(long, value_name = "PLACE")]
    images: Vec<PathBuf>,
    /// Folder or zip of the lesions' masks, to be checked too; `own` for those that come with the data
    #[arg(long, value_name = "MASKS")]
    masks: Option<PathBuf>,
    /// JSON instead of text
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &DataArgs, interrupt: &Interrupt) -> Result<()> {
    match &args.command {
        DataCommand::Check(args) => run_check(args, interrupt),
        DataCommand::Preview(args) => preview::run(args, interrupt),
    }
}

fn run_check(args: &CheckArgs, interrupt: &Interrupt) -> Result<()> {
    let masks = match &args.masks {
        None => Masks::Unused,
        Some(place) if place.as_os_str() == "own" => Masks::OfDataset,
        Some(place) => Masks::In(place.clone()),
    };
    let options = OpenOptions { masks, images: args.images.clone(), ..OpenOptions::default() };
    let dataset = Dataset::list(&args.data, &options)?;
    let mut progress = Progress::new();
    let report = check(&dataset, &mut |what, done, total| {
        progress.show(what, done, total, String::new);
        interrupted(interrupt)
    });
    progress.clear();
    let report = report?;
    if args.json {
        let json = serde_json::to_string_pretty(&report)
            .map_err(|e| Error::new(Kind::Internal, format!("the report could not be written as JSON: {e}")))?;
        say(json);
    } else {
        say(report.to_string());
    }
    if report.faulty() { Err(report.error()) } else { Ok(()) }
}
