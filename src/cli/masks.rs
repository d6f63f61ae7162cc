//! `lesion-gpu predict` with a model that segments: a mask for each picture, as large as the picture.

use std::io::Cursor;
use std::path::Path;

use image::{GrayImage, ImageFormat};
use serde::Serialize;

use super::answers::Answer;
use super::pictures::{Job, targets};
use super::predict::PredictArgs;
use crate::data::ImageSize;
use crate::data::preprocess::Area;
use crate::error::{Error, Kind, Result};
use crate::gpu::Gpu;
use crate::train::{Ensemble, MaskMap, mask_of};
use crate::weights::write_atomically;

/// The columns of a table of answers.
pub(super) const COLUMNS: [&str; 5] = ["image", "mask", "width", "height", "share"];

/// What there is to say of a mask.
#[derive(Debug, Serialize)]
struct Mask {
    image: String,
    mask: String,
    width: usize,
    height: usize,
    /// Share of the picture inside the mask.
    share: f64,
}

impl Answer for Mask {
    fn line(&self) -> String {
        let percent = 100.0 * self.share;
        format!("{}: {} ({}x{}, {percent:.1} % inside)", self.image, self.mask, self.width, self.height)
    }

    fn row(&self) -> Vec<String> {
        let numbers = [self.width.to_string(), self.height.to_string(), format!("{:?}", self.share)];
        [self.image.clone(), self.mask.clone()].into_iter().chain(numbers).collect()
    }
}

/// Writes the masks of a job's pictures, and prints an answer each.
pub(super) fn predict(args: &PredictArgs, gpu: &Gpu, models: &mut Ensemble, job: &Job<'_>) -> Result<()> {
    if args.logits {
        return Err(Error::new(Kind::Usage, "--logits is for models that classify").next("leave --logits away"));
    }
    let Some(folder) = &args.out else {
        return Err(Error::new(Kind::Usage, "this model draws masks, and where they go is not clear")
            .next("name a folder with --out"));
    };
    let targets = targets(job.files, folder, ["_segmentation.png"], "mask")?;
    std::fs::create_dir_all(folder).map_err(|e| Error::io("create the folder of masks", folder, &e))?;
    let recipes = models.preparations();
    job.run(gpu, models, &mut |picture, said| {
        let maps = said.iter().zip(&recipes).map(|(said, recipe)| MaskMap { said, size: recipe.size });
        let maps: Vec<(MaskMap<'_>, Area)> = maps.zip(picture.areas.iter().copied()).collect();
        let mask = mask_of(&maps, picture.own)?;
        save(&job.files[picture.index], &targets[picture.index][0], picture.own, &mask)
    })
}

/// Writes a mask, 255 inside and 0 outside.
fn save(file: &Path, target: &Path, size: ImageSize, mask: &[bool]) -> Result<Mask> {
    let pixels: Vec<u8> = mask.iter().map(|&inside| if inside { 255 } else { 0 }).collect();
    let failed = || Error::new(Kind::Internal, "a mask could not be encoded").at(target.display());
    let picture = GrayImage::from_raw(size.width as u32, size.height as u32, pixels).ok_or_else(failed)?;
    let mut png = Cursor::new(vec![]);
    picture.write_to(&mut png, ImageFormat::Png).map_err(|_| failed())?;
    write_atomically(target, png.get_ref())?;
    let inside = mask.iter().filter(|&&inside| inside).count();
    Ok(Mask {
        image: file.display().to_string(),
        mask: target.display().to_string(),
        width: size.width,
        height: size.height,
        share: inside as f64 / size.area() as f64,
    })
}
