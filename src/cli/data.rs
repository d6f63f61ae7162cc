//! `lesion-gpu data`: looking at datasets. Needs no GPU.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::preview::{self, PreviewArgs};
use super::progress::Progress;
use super::{interrupted, say};
use crate::data::{
    Balance, Cache, Dataset, Masks, OpenOptions, PixelStore, SplitSpec, balance_all, balance_of, balance_train, check,
    split, write_set,
};
use crate::error::{Error, Kind, Result};
use crate::train::{Interrupt, Protocol};

#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  lesion-gpu data check HAM10000.zip                        counts, faults, duplicates
  lesion-gpu data check ISIC_2019 --json > report.json      the same for programs
  lesion-gpu data check HAM10000 --masks masks.zip          masks too
  lesion-gpu data check isic2019-labels.zip --images HAM10000.zip    tables here, pictures there
  lesion-gpu data balance HAM10000.zip --per-class 2000 --out balanced
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
    /// Split a dataset and write it with as many training images of each class: a draw of frequent classes, and of rare ones
    /// copies changed in seven ways (rotation, both flips, zoom, shift, brightness, contrast). `train` reads the folder
    Balance(BalanceArgs),
}

#[derive(Debug, Args)]
struct BalanceArgs {
    /// The dataset, as for `train --data`
    #[arg(value_name = "DATA")]
    data: PathBuf,
    /// Images of each class
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    per_class: u32,
    /// The new folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Folder or zip of pictures that do not lie with the tables; may be repeated
    #[arg(long, value_name = "PLACE")]
    images: Vec<PathBuf>,
    /// Shares of train, validation and test
    #[arg(long, value_name = "A,B,C", value_delimiter = ',', num_args = 1, default_value = "0.70,0.15,0.15")]
    split: Vec<f64>,
    /// Seed of the split and of the changes
    #[arg(long, default_value_t = 42)]
    seed: u32,
    /// leak-free: the images of a lesion, and their copies, are in one part, and only the training part is balanced.
    /// published: all is balanced first and then split image by image, as some published tables did; copies leak
    #[arg(long, default_value = "leak-free")]
    protocol: Protocol,
    /// Leave faulty samples out instead of failing
    #[arg(long)]
    skip_bad: bool,
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
        DataCommand::Balance(args) => run_balance(args, interrupt),
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

fn run_balance(args: &BalanceArgs, interrupt: &Interrupt) -> Result<()> {
    let fractions =
        args.split.as_slice().try_into().map_err(|_| {
            Error::new(Kind::Usage, "--split takes three shares").next("for example --split 0.7,0.15,0.15")
        })?;
    let published = args.protocol == Protocol::Published;
    let (per_class, seed) = (args.per_class as usize, args.seed);
    let spec = SplitSpec { fractions, seed, grouped: !published, fold: None };
    let options = OpenOptions {
        images: args.images.clone(),
        skip_bad: args.skip_bad,
        leaky: published,
        ..OpenOptions::default()
    };
    let mut dataset = Dataset::open(&args.data, &options)?;
    let mut progress = Progress::new();
    // Decoding finds bad pictures, and those that look the same. Its pixels are not needed.
    PixelStore::prepare(&mut dataset, 8, Cache::Off, &mut |done, total| {
        progress.show("decoding", done, total, String::new);
        interrupted(interrupt)
    })?;
    if published {
        balance_all(&mut dataset, per_class, seed);
    }
    let mut parts = split(&dataset, &spec)?;
    if !published {
        if let Some(leak) = parts.leak(&dataset) {
            return Err(leak.into_error(&dataset));
        }
        balance_train(&mut dataset, &mut parts, per_class, seed);
    }
    let written = write_set(&dataset, &parts, &args.out, &mut |done, total| {
        progress.show("writing", done, total, String::new);
        interrupted(interrupt)
    });
    progress.clear();
    written?;
    dataset.notes.iter().for_each(|note| say(format!("note     {note}")));
    let (train, val, test) = (parts.train.len(), parts.val.len(), parts.test.len());
    say(format!("split    {train} train, {val} validation, {test} test"));
    if let Some(leak) = parts.leak(&dataset) {
        say(format!("split    {leak}"));
    }
    for Balance { class, originals, copies } in balance_of(&dataset, &parts.train) {
        say(format!("train    {class}: {originals} as they are, {copies} changed copies"));
    }
    let leaky = if published { " --protocol published" } else { "" };
    say(format!("written  {out}: lesion-gpu train --data {out}{leaky}", out = args.out.display()));
    Ok(())
}
