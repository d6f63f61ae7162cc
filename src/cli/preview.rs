//! `lesion-gpu data preview`: what preprocessing makes of pictures, as one picture.

use std::path::{Path, PathBuf};

use clap::Args;
use rayon::prelude::*;

use super::config_file::{Base, merge};
use super::progress::Progress;
use super::{interrupted, say};
use crate::data::preprocess::{Step, Steps};
use crate::data::{
    Dataset, ImageSize, Masks, OpenOptions, Preprocess, SampleReader, Sheet, decode_rgb_file, is_image_name,
    list_images,
};
use crate::error::{Error, Kind, Result};
use crate::rng::Stream;
use crate::train::{Interrupt, TrainConfig};
use crate::weights::write_atomically;

#[derive(Debug, Args)]
pub(super) struct PreviewArgs {
    /// A dataset as for `train --data`, a folder of pictures, or a picture
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Folder or zip of pictures that do not lie with the tables; may be repeated
    #[arg(long, value_name = "PLACE")]
    images: Vec<PathBuf>,
    /// The steps, as for `train --preprocess`
    #[arg(long, value_name = "STEPS", default_value = "crop,hair,clahe,shades-of-gray")]
    preprocess: Steps,
    /// Steps and constants from this file, such as the config.toml of a run
    #[arg(long, value_name = "FILE", conflicts_with = "preprocess")]
    config: Option<PathBuf>,
    /// Pictures, drawn at random
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Size of the pictures in pixels: N for a square, or WIDTHxHEIGHT
    #[arg(long, value_name = "SIZE", default_value = "224")]
    size: ImageSize,
    /// The PNG file to write; an existing one is replaced
    #[arg(long, value_name = "FILE", default_value = "sheet.png")]
    out: PathBuf,
    /// Which pictures are drawn
    #[arg(long, default_value_t = 42)]
    seed: u32,
}

/// Pictures that can be shown.
enum Shown {
    Samples(Dataset),
    Files(Vec<PathBuf>),
}

impl Shown {
    /// What a path holds: a picture, a dataset, or a folder of pictures that is none.
    fn at(path: &Path, images: &[PathBuf], seed: u32) -> Result<Self> {
        if path.is_file() && is_image_name(&path.to_string_lossy()) {
            return Ok(Self::Files(vec![path.to_path_buf()]));
        }
        let list = |masks| {
            let images = images.to_vec();
            Dataset::list(path, &OpenOptions { images, synthetic_seed: seed, masks, ..OpenOptions::default() })
        };
        // Without its masks, a dataset of masks would be none, or one whose masks are pictures.
        let listed = list(Masks::OfDataset).or_else(|_| list(Masks::Unused));
        match (listed, list_images(path)) {
            (Ok(dataset), _) if !dataset.samples.is_empty() => Ok(Self::Samples(dataset)),
            (_, Ok(files)) => Ok(Self::Files(files)),
            (Err(error), _) => Err(error),
            (Ok(_), _) => Err(Error::new(Kind::Data, "there are no pictures").at(path.display()).next("name others")),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Samples(dataset) => dataset.samples.len(),
            Self::Files(files) => files.len(),
        }
    }

    fn name(&self, index: usize) -> String {
        match self {
            Self::Samples(dataset) => dataset.samples[index].id.clone(),
            Self::Files(files) => files[index].display().to_string(),
        }
    }

    /// The picture, with the stages of its preprocessing.
    fn stages(&self, index: usize, preprocess: &Preprocess, size: ImageSize) -> Result<Row> {
        let picture = match self {
            Self::Samples(dataset) => SampleReader::default().picture(&dataset.samples[index], size)?,
            Self::Files(files) => decode_rgb_file(&files[index])?,
        };
        let (own, area) = (picture.dimensions(), preprocess.area(&picture));
        let stages = preprocess.stages(picture.clone(), size).into_iter().filter(|(step, _)| shows(*step));
        let cropped = match (area.size.width as u32, area.size.height as u32) == own {
            true => String::new(),
            false => format!(", cropped to {} at {},{}", area.size, area.x, area.y),
        };
        let text = format!("{}: {}x{}{cropped}", self.name(index), own.0, own.1);
        Ok(Row { text, pictures: [picture].into_iter().chain(stages.map(|(_, picture)| picture)).collect() })
    }
}

/// Whether a step has a column of its own: all pictures are shown resized.
fn shows(step: Step) -> bool {
    step != Step::Resize
}

/// A row of the sheet.
struct Row {
    text: String,
    pictures: Vec<image::RgbImage>,
}

pub(super) fn run(args: &PreviewArgs, interrupt: &Interrupt) -> Result<()> {
    if !args.size.is_valid() {
        return Err(Error::new(Kind::Usage, format!("--size must be {}", ImageSize::RANGE))
            .next("give a size such as 224 or 128x96"));
    }
    let preprocess = match &args.config {
        Some(file) => merge(&Base::of_file(file)?, &TrainConfig::default(), &|_| false)?.preprocess,
        None => args.preprocess.clone().into(),
    };
    preprocess.validate()?;
    let shown = Shown::at(&args.path, &args.images, args.seed)?;
    let mut drawn = Stream::named(args.seed, "preview").permutation(shown.len(), 0);
    drawn.truncate(args.count as usize);
    drawn.sort_unstable();
    let steps = preprocess.steps.list().iter().filter(|step| shows(**step)).map(|step| step.name());
    let columns: Vec<&str> = ["original"].into_iter().chain(steps).collect();
    let mut sheet = Sheet::new(args.size, columns.len(), drawn.len())?;
    let (mut progress, mut lines) = (Progress::new(), vec![]);
    for part in drawn.chunks(rayon::current_num_threads()) {
        interrupted(interrupt)?;
        progress.show("drawing", lines.len(), drawn.len(), String::new);
        let rows: Vec<Result<Row>> = part.par_iter().map(|&i| shown.stages(i, &preprocess, args.size)).collect();
        for row in rows {
            let Row { text, pictures } = row?;
            lines.push(format!("row {:>2}  {text}", lines.len() + 1));
            pictures.into_iter().for_each(|picture| sheet.push(picture));
        }
    }
    progress.clear();
    write_atomically(&args.out, &sheet.png()?)?;
    lines.iter().for_each(|line| say(line.clone()));
    say(format!("columns {}", columns.join(" | ")));
    say(format!("{}: {} pictures of {} pixels", args.out.display(), lines.len(), args.size));
    Ok(())
}
