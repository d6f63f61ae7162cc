//! `lesion-gpu predict` with a model that segments: a mask for each picture, as large as the picture.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::answers::Answer;
use super::outline::{FOUND, outlined};
use super::pictures::{Job, targets};
use super::predict::PredictArgs;
use crate::data::{ImageSize, decode_rgb_file, mask_picture, png_of};
use crate::error::{Error, Kind, Result};
use crate::gpu::Gpu;
use crate::metrics::{Contour, MaskView, Shape};
use crate::train::{Ensemble, mask_maps, mask_of};
use crate::weights::write_atomically;

/// The columns of a table of answers.
pub(super) const COLUMNS: [&str; 12] = [
    "image",
    "mask",
    "width",
    "height",
    "share",
    "parts",
    "area",
    "perimeter",
    "border",
    "asymmetry_long",
    "asymmetry_short",
    "diameter",
];

/// What there is to say of a mask.
#[derive(Debug, Serialize)]
struct Mask {
    image: String,
    mask: String,
    width: usize,
    height: usize,
    /// Share of the picture inside the mask.
    share: f64,
    /// The measures of its largest part, if there is any.
    shape: Option<Shape>,
    /// The picture with the outline.
    #[serde(skip_serializing_if = "Option::is_none")]
    outlined: Option<String>,
    /// The borders of parts and holes, in corners of pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    contours: Option<Vec<Contour>>,
}

impl Answer for Mask {
    fn line(&self) -> String {
        let percent = 100.0 * self.share;
        let shape = self.shape.map_or(String::new(), |shape| {
            let Shape { parts, asymmetry: [long, short], border, diameter, .. } = shape;
            let parts = if parts > 1 { format!(" in {parts} parts") } else { String::new() };
            format!("{parts}; asymmetry {long:.2} and {short:.2}, border {border:.2}, diameter {diameter:.0}")
        });
        format!("{}: {} ({}x{}, {percent:.1} % inside{shape})", self.image, self.mask, self.width, self.height)
    }

    fn row(&self) -> Vec<String> {
        let numbers = [self.width.to_string(), self.height.to_string(), format!("{:?}", self.share)];
        let shape = self.shape.map_or(vec![String::new(); 7], |shape| {
            let Shape { parts, area, perimeter, border, asymmetry: [long, short], diameter } = shape;
            let measures = [perimeter, border, long, short, diameter].map(|v| format!("{v:.4}"));
            [parts.to_string(), area.to_string()].into_iter().chain(measures).collect()
        });
        [self.image.clone(), self.mask.clone()].into_iter().chain(numbers).chain(shape).collect()
    }
}

/// Writes the masks of a job's pictures, and prints an answer each.
pub(super) fn predict(args: &PredictArgs, gpu: &Gpu, models: &mut Ensemble, job: &Job<'_>) -> Result<()> {
    if args.logits {
        return Err(Error::new(Kind::Usage, "--logits is for models that classify").next("leave --logits away"));
    }
    if args.isic {
        return Err(
            Error::new(Kind::Usage, "--isic is for models that classify").next("leave --isic away, and name --out")
        );
    }
    let Some(folder) = &args.out else {
        return Err(Error::new(Kind::Usage, "this model draws masks, and where they go is not clear")
            .next("name a folder with --out"));
    };
    let targets = targets(job.files, folder, ["_segmentation.png", "_outlined.png"], "mask");
    // Before another rank writes one.
    let targets = job.team.agreed("where masks go", targets)?;
    std::fs::create_dir_all(folder).map_err(|e| Error::io("create the folder of masks", folder, &e))?;
    let recipes = models.preparations();
    job.run(gpu, models, &mut |picture, said| {
        let mask = mask_of(&mask_maps(said, &recipes, &picture.areas), picture.own)?;
        save(&job.files[picture.index], &targets[picture.index], picture.own, &mask, args.contours)
    })
}

/// Writes a mask, 255 inside and 0 outside, and where `contours` are asked for the picture with its outline.
fn save(
    file: &Path,
    [target, on_picture]: &[PathBuf; 2],
    size: ImageSize,
    mask: &[bool],
    contours: bool,
) -> Result<Mask> {
    let picture = mask_picture(mask, size)?;
    write_atomically(target, &png_of(&picture)?)?;
    let view = MaskView::new(mask, size.width);
    if contours {
        // Decoded once more: at their own size, the pictures of a batch may be too large to be kept.
        let outlined = outlined(decode_rgb_file(file)?, &[(&picture, FOUND)]);
        write_atomically(on_picture, &png_of(&outlined)?)?;
    }
    Ok(Mask {
        image: file.display().to_string(),
        mask: target.display().to_string(),
        width: size.width,
        height: size.height,
        share: view.map_or(0.0, MaskView::share),
        shape: view.and_then(MaskView::shape),
        outlined: contours.then(|| on_picture.display().to_string()),
        contours: view.filter(|_| contours).map(MaskView::contours),
    })
}
