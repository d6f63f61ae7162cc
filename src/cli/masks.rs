//! `lesion-gpu predict` with a model that segments: a mask for each picture, as large as the picture.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::{GrayImage, ImageFormat};
use serde::Serialize;

use super::predict::{Format, PredictArgs};
use super::progress::Progress;
use super::{interrupted, say};
use crate::data::{Batch, ImageSize, decode_rgb_file, resize_rgb};
use crate::error::{Error, Kind, Result};
use crate::gpu::Gpu;
use crate::train::{Interrupt, Predictor};
use crate::weights::write_atomically;

/// What there is to say of a mask.
#[derive(Debug, Serialize)]
struct Answer {
    image: String,
    mask: String,
    width: usize,
    height: usize,
    /// Share of the picture inside the mask.
    share: f64,
}

/// Writes the masks of `files`, and prints a line each.
pub(super) fn predict(
    args: &PredictArgs,
    gpu: &Gpu,
    predictor: &mut Predictor,
    files: &[PathBuf],
    batch: usize,
    interrupt: &Interrupt,
) -> Result<()> {
    if args.logits {
        return Err(Error::new(Kind::Usage, "--logits is for models that classify").next("leave --logits away"));
    }
    let Some(folder) = &args.out else {
        return Err(Error::new(Kind::Usage, "this model draws masks, and where they go is not clear")
            .next("name a folder with --out"));
    };
    let targets = targets(files, folder)?;
    std::fs::create_dir_all(folder).map_err(|e| Error::io("create the folder of masks", folder, &e))?;
    let size = predictor.config.size;
    // The pictures' own sizes, of those loaded so far.
    let sizes = RefCell::new(vec![]);
    let load = |chunk: &[PathBuf]| {
        let pictures = chunk.iter().map(|file| {
            let picture = decode_rgb_file(file)?;
            sizes.borrow_mut().push(ImageSize { width: picture.width() as usize, height: picture.height() as usize });
            Ok(resize_rgb(picture, size))
        });
        Ok(Batch::of_pictures(&pictures.collect::<Result<Vec<_>>>()?, size, batch))
    };
    let mut progress = Progress::quiet_in_a_pipe();
    let total = files.len().div_ceil(batch);
    let mut show = |done: usize| {
        progress.show("predicting", done, total, String::new);
        interrupted(interrupt)
    };
    let mut answers = vec![];
    predictor.each_mask(gpu, files.chunks(batch).map(load), &mut show, &mut |picture, map| {
        let own = sizes.borrow()[picture];
        answers.push(save(&files[picture], &targets[picture], own, &map.at(own)?)?);
        Ok(())
    })?;
    progress.clear();
    show_answers(args.format, &answers)
}

/// The file of each picture's mask. None is there yet, and no two are the same.
fn targets(files: &[PathBuf], folder: &Path) -> Result<Vec<PathBuf>> {
    let mut seen: HashMap<PathBuf, &Path> = HashMap::new();
    let mut targets = vec![];
    for file in files {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let target = folder.join(format!("{stem}_segmentation.png"));
        if target.exists() {
            return Err(Error::new(Kind::Io, "the mask is there already, and nothing is overwritten")
                .at(target.display())
                .next("choose another --out"));
        }
        if let Some(other) = seen.insert(target.clone(), file) {
            let (one, two) = (other.display(), file.display());
            return Err(Error::new(Kind::Usage, format!("{one} and {two} would have one and the same mask"))
                .at(target.display())
                .next("label pictures of the same name one after the other, each with an --out of its own"));
        }
        targets.push(target);
    }
    Ok(targets)
}

/// Writes a mask, 255 inside and 0 outside.
fn save(file: &Path, target: &Path, size: ImageSize, mask: &[bool]) -> Result<Answer> {
    let pixels: Vec<u8> = mask.iter().map(|&inside| if inside { 255 } else { 0 }).collect();
    let failed = || Error::new(Kind::Internal, "a mask could not be encoded").at(target.display());
    let picture = GrayImage::from_raw(size.width as u32, size.height as u32, pixels).ok_or_else(failed)?;
    let mut png = Cursor::new(vec![]);
    picture.write_to(&mut png, ImageFormat::Png).map_err(|_| failed())?;
    write_atomically(target, png.get_ref())?;
    let inside = mask.iter().filter(|&&inside| inside).count();
    Ok(Answer {
        image: file.display().to_string(),
        mask: target.display().to_string(),
        width: size.width,
        height: size.height,
        share: inside as f64 / size.area() as f64,
    })
}

fn show_answers(format: Format, answers: &[Answer]) -> Result<()> {
    let failed = |e: String| Error::new(Kind::Internal, format!("could not encode the answers: {e}"));
    match format {
        Format::Json => say(serde_json::to_string_pretty(answers).map_err(|e| failed(e.to_string()))?),
        Format::Text => {
            for a in answers {
                let percent = 100.0 * a.share;
                say(format!("{}: {} ({}x{}, {percent:.1} % inside)", a.image, a.mask, a.width, a.height));
            }
        }
        Format::Csv => {
            let mut csv = csv::Writer::from_writer(vec![]);
            answers.iter().try_for_each(|answer| csv.serialize(answer)).map_err(|e| failed(e.to_string()))?;
            let text = csv.into_inner().map_err(|e| failed(e.to_string()))?;
            say(String::from_utf8_lossy(&text).trim_end());
        }
    }
    Ok(())
}
