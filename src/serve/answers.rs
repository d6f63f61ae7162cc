//! What is answered of images.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;

use super::contour::outlines;
use super::device::{About, Explains};
use super::prepared::Prepared;
use super::refusal::Refusal;
use super::upload::decode;
use crate::data::preprocess::Area;
use crate::data::{ImageSize, mask_picture, png_of, resize_rgb};
use crate::explain::{Explanation, heat_map, overlay};
use crate::metrics::{Contour, MaskView, Shape};
use crate::train::{Said, mask_maps, mask_of};

/// What every answer says.
pub(super) const NOTE: &str = "For research. Not a diagnosis.";

/// The longest side of a drawn map, in pixels.
const DRAWN: usize = 1024;

/// The answer to a request.
#[derive(Debug, Serialize)]
pub(super) struct Answer<T> {
    pub note: &'static str,
    /// What logits were divided by, where one model has probabilities that are calibrated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// How many models the answer is the mean of.
    pub models: usize,
    /// How many views of each image it is the mean of, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub views: Option<usize>,
    /// In the order of the request.
    pub images: Vec<T>,
}

#[derive(Debug, Serialize)]
pub(super) struct Picture {
    name: Option<String>,
    width: usize,
    height: usize,
}

impl Picture {
    fn of(prepared: &Prepared) -> Self {
        let ImageSize { width, height } = prepared.size;
        Self { name: prepared.upload.name.clone(), width, height }
    }
}

#[derive(Debug, Serialize)]
struct ClassProbability {
    class: String,
    probability: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Predicted {
    #[serde(flatten)]
    picture: Picture,
    /// The likeliest class.
    label: String,
    /// The likeliest first.
    classes: Vec<ClassProbability>,
}

/// The probabilities of the classes.
pub(super) fn predicted(prepared: &Prepared, said: &[Said], about: &About, title: &str) -> Result<Predicted, Refusal> {
    let said = Said::mean(said).and_then(|said| said.check().map(|()| said)).map_err(|e| Refusal::of(&e, title))?;
    let named = about.classes.iter().cloned().zip(said.probabilities);
    let mut classes: Vec<ClassProbability> =
        named.map(|(class, probability)| ClassProbability { class, probability }).collect();
    classes.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    let label = classes.first().map_or_else(String::new, |likeliest| likeliest.class.clone());
    Ok(Predicted { picture: Picture::of(prepared), label, classes })
}

#[derive(Debug, Serialize)]
pub(super) struct Explained {
    #[serde(flatten)]
    picture: Picture,
    class: String,
    probability: Option<f64>,
    method: &'static str,
    layer: Option<String>,
    /// The map's largest value, at the model's own scale. Zero says that nothing speaks for the class.
    peak: f32,
    /// Images are PNG in base64, at most [`DRAWN`] pixels a side.
    overlay: String,
    heat: String,
}

/// A map, as an answer and as the overlay alone.
pub(super) struct DrawnMap {
    pub answer: Explained,
    pub overlay: Vec<u8>,
}

/// Draws where a model looks. The image is decoded once more: at their own size, those that wait may be too large to be kept.
pub(super) fn explained(
    prepared: &Prepared,
    found: &Explanation,
    (about, explains): (&About, &Explains),
    (title, pixels): (&str, usize),
) -> Result<DrawnMap, Refusal> {
    let whole = prepared.size;
    let area = prepared.areas.first().copied().unwrap_or(Area::whole(whole));
    let picture = decode(&prepared.upload, title, pixels)?;
    let size = fitted(whole);
    let map = found.map.on(size, scaled(area, whole, size)).map_err(|e| Refusal::of(&e, title))?;
    let on_picture = overlay(&resize_rgb(picture, size), &map).map_err(|e| Refusal::of(&e, title))?;
    let heat = heat_map(&map, size).map_err(|e| Refusal::of(&e, title))?;
    let png = |picture| png_of(picture).map_err(|_| not_drawn());
    let (on_picture, heat) = (png(&on_picture)?, png(&heat)?);
    let answer = Explained {
        picture: Picture::of(prepared),
        class: about.classes.get(found.class).cloned().unwrap_or_default(),
        probability: found.probability,
        method: explains.method,
        layer: explains.layer.clone(),
        peak: found.map.peak(),
        overlay: BASE64_STANDARD.encode(&on_picture),
        heat: BASE64_STANDARD.encode(heat),
    };
    Ok(DrawnMap { answer, overlay: on_picture })
}

/// A size of the same shape whose sides are at most [`DRAWN`].
fn fitted(size: ImageSize) -> ImageSize {
    let longest = size.width.max(size.height);
    if longest <= DRAWN {
        return size;
    }
    let side = |pixels: usize| (pixels * DRAWN).div_ceil(longest).max(1);
    ImageSize { width: side(size.width), height: side(size.height) }
}

/// An area of a picture of one size, in the same picture of another; it lies inside and has pixels.
fn scaled(area: Area, from: ImageSize, to: ImageSize) -> Area {
    let span = |start: usize, length: usize, from: usize, to: usize| {
        let first = (start * to / from.max(1)).min(to.saturating_sub(1));
        let end = ((start + length) * to / from.max(1)).clamp(first + 1, to.max(first + 1));
        (first, end - first)
    };
    let (x, width) = span(area.x, area.size.width, from.width, to.width);
    let (y, height) = span(area.y, area.size.height, from.height, to.height);
    Area { x, y, size: ImageSize { width, height } }
}

#[derive(Debug, Serialize)]
pub(super) struct Segmented {
    #[serde(flatten)]
    picture: Picture,
    /// The part of the image that is inside, from 0 to 1.
    share: f64,
    /// The measures of the mask's largest part, if there is any, in pixels of the image.
    shape: Option<Shape>,
    /// Closed outlines in pixels of the image, the largest first.
    contours: Vec<Contour>,
    /// PNG in base64, as large as the image, white inside.
    mask: String,
}

/// A mask, as an answer and by itself.
pub(super) struct DrawnMask {
    pub answer: Segmented,
    pub mask: Vec<u8>,
}

/// The mask of an image, as `predict` writes it.
pub(super) fn segmented(prepared: &Prepared, said: &[Said], about: &About, title: &str) -> Result<DrawnMask, Refusal> {
    let size = prepared.size;
    let maps = mask_maps(said, &about.recipes, &prepared.areas);
    let inside = mask_of(&maps, size).map_err(|e| Refusal::of(&e, title))?;
    let tolerance = (size.width.max(size.height) as f64 / 1000.0).max(1.0);
    let view = MaskView::new(&inside, size.width).ok_or_else(not_drawn)?;
    let (share, shape, contours) = (view.share(), view.shape(), outlines(view, tolerance));
    let mask = mask_picture(&inside, size).and_then(|mask| png_of(&mask)).map_err(|_| not_drawn())?;
    let answer =
        Segmented { picture: Picture::of(prepared), share, shape, contours, mask: BASE64_STANDARD.encode(&mask) };
    Ok(DrawnMask { answer, mask })
}

fn not_drawn() -> Refusal {
    Refusal::internal("a picture could not be drawn")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(width: usize, height: usize) -> ImageSize {
        ImageSize { width, height }
    }

    #[test]
    fn drawn_maps_have_limits_and_keep_their_place() {
        assert_eq!(fitted(size(640, 480)), size(640, 480));
        assert_eq!(fitted(size(4096, 2048)), size(1024, 512));
        assert_eq!(fitted(size(20_000, 1)), size(1024, 1));
        let area = Area { x: 400, y: 0, size: size(3200, 2048) };
        assert_eq!(scaled(area, size(4096, 2048), size(1024, 512)), Area { x: 100, y: 0, size: size(800, 512) });
        // However thin, it has a pixel, and lies inside.
        let thin = Area { x: 4095, y: 2047, size: size(1, 1) };
        assert_eq!(scaled(thin, size(4096, 2048), size(1024, 512)), Area { x: 1023, y: 511, size: size(1, 1) });
    }
}
