//! `lesion-gpu compare`: runs beside each other. Needs no GPU.

use std::path::{Path, PathBuf};

use clap::Args;

use super::say;
use crate::error::{Error, Kind, Result};
use crate::metrics::Sheet;
use crate::report::RunComparison;
use crate::train::{RunFolder, read_answers};
use crate::weights::write_atomically;

#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  lesion-gpu compare runs/resnet18-001 runs/resnet18-002
  lesion-gpu compare runs/a runs/b runs/c --markdown > table.md")]
pub(super) struct CompareArgs {
    /// Runs; the others are compared with the first
    #[arg(value_name = "RUN", num_args = 2..)]
    runs: Vec<PathBuf>,
    /// Markdown instead of plain text
    #[arg(long)]
    markdown: bool,
    /// Write everything to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn run(args: &CompareArgs) -> Result<()> {
    let runs = args.runs.iter().map(|path| finished(path)).collect::<Result<Vec<_>>>()?;
    let comparison = RunComparison::new(&runs)?;
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&comparison)
            .map_err(|e| Error::new(Kind::Internal, format!("could not encode the comparison: {e}")))?;
        write_atomically(path, (text + "\n").as_bytes())?;
    }
    say(if args.markdown { comparison.markdown() } else { comparison.text() });
    Ok(())
}

/// The name of a run, its answers to its test images, and what leaks in it.
fn finished(path: &Path) -> Result<(String, Sheet, Option<String>)> {
    let run = RunFolder::open(path)?;
    let (answers, metrics) = (run.file("test.csv"), run.metrics()?);
    if !answers.is_file() {
        return Err(Error::new(Kind::Checkpoint, "the run has no answers to test images (test.csv)")
            .at(path.display())
            .next("runs have them when they are finished and their split has test images"));
    }
    let leak = metrics.get("leak").and_then(|leak| leak.as_str()).map(str::to_owned);
    Ok((path.display().to_string(), read_answers(&answers)?, leak))
}
