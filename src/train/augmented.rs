//! Training pictures as the model sees them: by the kernels that augment them in training, and back to colours.

use image::{GrayImage, RgbImage};

use super::TrainConfig;
use super::graph::{Images, input};
use super::mixing::{Blend, Mixing};
use crate::autograd::{Executable, Plan, Store, Tape};
use crate::data::{Batch, PixelStore, Visit};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::ops::augment::{Augment, masks};

/// Pictures that are on the device at a time.
const ROWS: usize = 8;

/// A picture as the model sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// The picture, its normalisation undone. Cutout shows as the mean colour.
    pub picture: RgbImage,
    /// Its own mask, where there are masks: from 0 outside to 255 inside. Mixing leaves it alone.
    pub mask: Option<GrayImage>,
    /// How it is mixed with another, where it is.
    pub blend: Option<Blend>,
}

/// The pictures of `visits` as an epoch (the first is 0) shows them to a model that is trained by `config` on the samples
/// `training` of `pixels`, among which mixing finds its partners.
///
/// # Errors
/// Those of reading pixels; [`Kind::OutOfMemory`](crate::Kind::OutOfMemory) if a few pictures do not fit; device errors.
pub fn augmented(
    gpu: &Gpu,
    config: &TrainConfig,
    pixels: &PixelStore,
    training: &[usize],
    visits: &[Visit],
    epoch: u32,
) -> Result<Vec<Seen>> {
    let how = Augment { half: false, ..config.train_augment() };
    let (size, mixing) = (pixels.size(), Mixing::of(config, training));
    let mut tape = Tape::new();
    let images = Images::declare(&mut tape, ROWS, size);
    let own = images.augmented(&mut tape, how)?;
    let picture = if mixing.is_some() { images.mixed(&mut tape, how, own)? } else { own };
    let mut outputs = vec![picture];
    if pixels.channels() == 4 {
        outputs.push(masks(&mut tape, images.pixels, images.samples, images.epoch, how)?);
    }
    let plan = Plan::new(&tape, &outputs, gpu.caps())?;
    let executable = Executable::new(gpu, plan, &mut Store::new())?;
    executable.set_input(gpu, input::EPOCH, &epoch.to_le_bytes())?;
    let labels = vec![0; pixels.len()];
    let upload = |names: [&str; 2], visits: &[Visit]| {
        let batch = Batch::assemble(pixels, &labels, visits, ROWS)?;
        executable.set_input(gpu, names[0], bytemuck::cast_slice(&batch.pixels))?;
        executable.set_input(gpu, names[1], bytemuck::cast_slice(&batch.keys))
    };
    let colour = |picture: &[f32]| {
        let undone = |i: usize, v: f32| {
            let channel = if how.bgr { 2 - i % 3 } else { i % 3 };
            byte(v * how.std[channel] + how.mean[channel])
        };
        let bytes: Vec<u8> = picture.iter().enumerate().map(|(i, &v)| undone(i, v)).collect();
        match how.bgr {
            true => bytes.chunks_exact(3).flat_map(|p| [p[2], p[1], p[0]]).collect(),
            false => bytes,
        }
    };
    let mut seen = vec![];
    for visits in visits.chunks(ROWS) {
        upload([input::PIXELS, input::SAMPLES], visits)?;
        let blends: Vec<Blend> =
            mixing.iter().flat_map(|mixing| visits.iter().map(|&visit| mixing.blend(visit, epoch))).collect();
        if mixing.is_some() {
            let partners: Vec<Visit> = blends.iter().map(|blend| blend.partner.into()).collect();
            upload([input::PARTNER_PIXELS, input::PARTNER_SAMPLES], &partners)?;
            Blend::upload(&blends, ROWS, |name, bytes| executable.set_input(gpu, name, bytes))?;
        }
        executable.run(gpu);
        let pictures = executable.read_output(gpu, 0)?.into_data();
        let drawn = (outputs.len() > 1).then(|| executable.read_output(gpu, 1)).transpose()?.map(|m| m.into_data());
        let extents = [size.width, size.height].map(|extent| extent as u32);
        for row in 0..visits.len() {
            let of = |values: usize| row * values * size.area()..(row + 1) * values * size.area();
            let picture = RgbImage::from_raw(extents[0], extents[1], colour(&pictures[of(3)])).unwrap_or_default();
            let gray = |m: &Vec<f32>| m[of(1)].iter().map(|&v| byte(v)).collect();
            let mask = drawn.as_ref().and_then(|m| GrayImage::from_raw(extents[0], extents[1], gray(m)));
            seen.push(Seen { picture, mask, blend: blends.get(row).copied() });
        }
    }
    Ok(seen)
}

/// A share as a byte.
fn byte(share: f32) -> u8 {
    (share * 255.0).round().clamp(0.0, 255.0) as u8
}
