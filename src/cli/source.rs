//! Where a model comes from: a run or checkpoint, or a bare weight file and what it is.

use std::path::PathBuf;

use clap::Args;

use crate::data::ImageSize;
use crate::data::preprocess::Steps;
use crate::error::{Error, Kind, Result};
use crate::train::{ModelSource, Normalisation};

/// What a bare weight file is.
#[derive(Debug, Args)]
#[command(next_help_heading = "Bare weights instead of a run")]
pub(super) struct BareArgs {
    /// The model
    #[arg(long, requires = "weights")]
    model: Option<String>,
    /// Its weights: safetensors, PyTorch's .pth, Keras's .h5 or .keras
    #[arg(long, value_name = "FILE", requires = "model")]
    weights: Option<PathBuf>,
    /// Class names in the order of the outputs [default: what the file says, else HAM10000's if there are seven]
    #[arg(long, value_name = "A,B,..", value_delimiter = ',', requires = "weights")]
    classes: Option<Vec<String>>,
    /// Size of the images in pixels: N for a square, or WIDTHxHEIGHT [default: 224]
    #[arg(long)]
    size: Option<ImageSize>,
    /// Pixel statistics: imagenet, ham10000, isic2019, unit, caffe (BGR) or tf ([-1, 1]) [default: what goes with the weights]
    #[arg(long, requires = "weights")]
    normalize: Option<Normalisation>,
    /// What is done to pictures first, such as crop,hair,clahe, or none [default: what the file says, else none]
    #[arg(long, value_name = "STEPS", requires = "weights")]
    preprocess: Option<Steps>,
}

/// What a model is that pictures are shown to: a bare weight file, some of whose parameters may be missing, or else a run.
#[derive(Debug, Args)]
#[command(next_help_heading = "Bare weights instead of a run")]
pub(super) struct ModelArgs {
    #[command(flatten)]
    bare: BareArgs,
    /// Accept a file that lacks some parameters, which then have random values
    #[arg(long, requires = "weights")]
    allow_partial: bool,
}

impl ModelArgs {
    /// Whether a bare weight file is named.
    pub fn given(&self) -> bool {
        self.bare.weights.is_some()
    }

    /// The model's source: the bare weight file if one is named, else `run`, which has a size of its own.
    pub fn source(&self, run: Option<PathBuf>) -> Result<ModelSource> {
        if !self.given() && self.bare.size.is_some() {
            return Err(Error::new(Kind::Usage, "--size is for bare weights: a run has its own")
                .next("leave --size away, or give --model NAME --weights FILE"));
        }
        self.bare.source(run, self.allow_partial)
    }

    /// The sources of several models: the bare weight file if one is named, then the runs.
    pub fn sources(&self, runs: &[PathBuf]) -> Result<Vec<ModelSource>> {
        let bare = self.given().then(|| self.source(None));
        let run = |run: &PathBuf| match self.given() {
            true => Ok(ModelSource::Run(run.clone())),
            false => self.source(Some(run.clone())),
        };
        bare.into_iter().chain(runs.iter().map(run)).collect()
    }
}

impl BareArgs {
    /// What is said of a size that no model takes.
    pub fn wrong_size(&self) -> Error {
        let given = self.size.map_or(String::new(), |size| size.to_string());
        Error::new(Kind::Usage, format!("--size must be {}", ImageSize::RANGE))
            .at(format!("--size {given}"))
            .next("give the size that the weights were trained at, such as 224 or 128x96")
    }

    /// The size that was asked for.
    pub fn size(&self) -> Option<ImageSize> {
        self.size
    }

    /// The model's source: the bare weight file if one is named, of which nothing may be missing, else `run`, at any size.
    pub fn resolve_at_any_size(&self, run: Option<PathBuf>) -> Result<ModelSource> {
        self.source(run, false)
    }

    fn source(&self, run: Option<PathBuf>, allow_partial: bool) -> Result<ModelSource> {
        match (&self.weights, &self.model, run) {
            (Some(file), Some(model), None) => {
                let size = self.size.unwrap_or(224.into());
                if !size.is_valid() {
                    return Err(self.wrong_size());
                }
                Ok(ModelSource::Weights {
                    model: model.clone(),
                    file: file.clone(),
                    size,
                    normalisation: self.normalize,
                    preprocess: self.preprocess.clone(),
                    classes: self.classes.clone(),
                    allow_partial,
                })
            }
            (None, None, Some(run)) => Ok(ModelSource::Run(run)),
            _ => Err(Error::new(Kind::Usage, "which model is not clear")
                .next("give either the folder of a run, or --model NAME --weights FILE")),
        }
    }
}
