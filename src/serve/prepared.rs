//! Images as the models want them.

use std::time::Instant;

use image::RgbImage;
use tokio::sync::oneshot;

use super::device::{Job, Outcome, Work};
use super::refusal::Refusal;
use super::upload::{Upload, decode, title};
use crate::data::preprocess::Area;
use crate::data::{ImageSize, Preparation};
use crate::error::Result as CrateResult;

/// An image that was decoded for the models.
pub(super) struct Prepared {
    pub upload: Upload,
    /// Its own size.
    pub size: ImageSize,
    /// The part of it that each model sees.
    pub areas: Vec<Area>,
    made: Vec<RgbImage>,
}

/// Decodes images and makes of each what every recipe says.
///
/// # Errors
/// As [`decode`], of the first that cannot be.
pub(super) fn prepare(uploads: Vec<Upload>, recipes: &[Preparation], pixels: usize) -> Result<Vec<Prepared>, Refusal> {
    let all = uploads.len();
    let one = |(place, upload): (usize, Upload)| {
        let picture = decode(&upload, &title(&upload, place, all), pixels)?;
        let size = (&picture).into();
        let (made, areas) = Preparation::make_each(recipes, picture).into_iter().unzip();
        Ok(Prepared { upload, size, areas, made })
    };
    uploads.into_iter().enumerate().map(one).collect()
}

impl Prepared {
    /// Asks for work on it, and gives away what was made for the models.
    pub fn job(&mut self, work: Work) -> (Job, oneshot::Receiver<CrateResult<Outcome>>) {
        let (reply, answer) = oneshot::channel();
        (Job { work, made: std::mem::take(&mut self.made), since: Instant::now(), reply }, answer)
    }
}
