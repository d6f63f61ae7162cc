//! Random augmentation and normalisation of a batch of pictures: pixels `[N, H, W]` (u32 words of RGBA8, R in the low
//! byte), sample ids `[N]` (u32) and the epoch `[1]` (u32) to `[N, H, W, 3]` (f32, or f16 for mixed precision). The masks
//! in the alpha bytes are a second op, [`masks`], which takes the same way: `[N, H, W, 1]` in f32.
//!
//! For a pixel of the result, in this order:
//!
//! 1. flips: with probability 1/2 each, the picture's rows are mirrored left to right, its columns top to bottom; exact
//!    permutations of pixels;
//! 2. rotation by an angle uniform in ±`rotation` and shear along the rows by one in ±`shear`, magnification by a scale
//!    uniform in `[1 - zoom, 1 + zoom]`, all about the picture's centre `((W - 1) / 2, (H - 1) / 2)`, and a shift uniform
//!    in ±`shift` times width and height: one inverse affine map
//!    `source = centre + R(angle) S(-shear) (pixel - centre - shift) / scale`, where S takes x to `x + tan(shear) y`, and
//!    one bilinear sample. Outside, the picture is mirrored without repeating its border pixels (`d c b | a b c d | c b a`).
//!    If all four are zero there is no resampling at all, so no resampling error;
//! 3. blur: a Gaussian of standard deviation uniform in `[0, blur]` pixels of the result, cut off at three of them (at
//!    least 0.3 pixels, rounded up); the same mirrored border. It comes behind the warp, so zoom does not change it;
//! 4. saturation and hue: in YIQ, luma is kept, and I and Q are multiplied by a factor uniform in `1 ± saturation` and
//!    turned by an angle uniform in ±`hue` of the circle. Greys stay what they are. The factor is torchvision's
//!    `adjust_saturation`, a blend with the luma; the angle is another than its `adjust_hue`, which turns HSV and has kinks;
//! 5. brightness: times a factor uniform in `1 ± brightness`;
//! 6. contrast: the distance from 0.5 (a fixed middle grey, not the picture's own mean) times a factor uniform in
//!    `1 ± contrast`;
//! 7. clamped to `[0, 1]`, then `(v - mean) / std` for each channel, and red and blue exchanged where a network wants it so;
//! 8. cutout: zero, so the mean colour, in a square whose side is the share `cutout` of the picture's shorter side, rounded,
//!    with its centre at a pixel uniform over the picture; it may stick out.
//!
//! A mask goes through 1 and 2 only, as a value in `[0, 1]`: it tells where the lesion is, blurred or hidden as may be. Where
//! it is resampled, a pixel that the lesion covers by half is one half: the losses take such targets, and a threshold would
//! let rounding decide.
//!
//! Draw `d` of a sample (0 hflip, 1 vflip, 2 rotation, 3 zoom, 4 brightness, 5 contrast) is the first word of
//! Threefry-2x32 with key `[seed, stream]`, where stream is that of the name `augment`, and counter
//! `[sample id, 8 * epoch + d]`. Further draws (0 and 1 shift along the rows and columns, 2 shear, 3 saturation, 4 hue,
//! 5 blur, 6 and 7 column and row of the cutout) come from the stream `augment more` with `[sample id, 16 * epoch + d]`.
//! A draw depends on nothing else: not on the batch size, the position in the batch or which other augmentations are on.
//!
//! Kernels (`augment.wgsl`): `forward`, an invocation a pixel; with blur `warp`, `blur_rows` and `blur_columns` in its
//! place, which hand on colours in f32. Of the masks `mask`.
//!
//! Numerics: all in f32. Sine and cosine are polynomials in the kernel, accurate to a few units of 1e-7 on every
//! driver, where the built-in functions may be off by 5e-4. There is no gradient.
//!
//! Sources: bilinear resampling by the inverse map as in R. Gonzalez, R. Woods, "Digital Image Processing", section 2.6;
//! YIQ as in the NTSC standard of 1953; T. DeVries, G. Taylor, "Improved regularization of convolutional neural networks
//! with cutout", 2017; random numbers as in [`crate::rng`].

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Access, Dispatch, Kernel, Operand, Source, Uniform, grid, uniform_block};
use crate::ops::{RANDOM, WORKGROUP, moved};
use crate::rng::Stream;
use crate::tensor::{DType, TensorType};

static SOURCE: Source = crate::wgsl!("augment.wgsl", RANDOM);

uniform_block! {
    /// Mirrors `Params` of `augment.wgsl`.
    struct Params {
        n: u32,
        height: u32,
        width: u32,
        seed: u32,
        stream: u32,
        more: u32,
        hflip: u32,
        vflip: u32,
        rotation: f32,
        zoom: f32,
        shift: f32,
        shear: f32,
        brightness: f32,
        contrast: f32,
        saturation: f32,
        hue: f32,
        blur: f32,
        cutout: u32,
        mean_r: f32,
        mean_g: f32,
        mean_b: f32,
        std_r: f32,
        std_g: f32,
        std_b: f32,
        bgr: u32,
    }
}

/// The largest blur: its weights, up to three standard deviations, fill a workgroup's lanes.
pub const MAX_BLUR: f32 = 20.0;

/// The largest shear in degrees: a picture is then drawn out to nearly three times its width.
pub const MAX_SHEAR: f32 = 60.0;

/// What is changed at random, and the normalisation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Augment {
    /// Mirror left to right with probability 1/2.
    pub hflip: bool,
    /// Mirror top to bottom with probability 1/2.
    pub vflip: bool,
    /// Largest rotation in degrees, either way: 0 to 180.
    pub rotation: f32,
    /// Largest relative change of size: the scale is uniform in `[1 - zoom, 1 + zoom]`; from 0, below 1.
    pub zoom: f32,
    /// Largest shift, as a share of the width and of the height: from 0, below 1.
    pub shift: f32,
    /// Largest shear in degrees, either way: 0 to 60.
    pub shear: f32,
    /// Largest relative change of brightness: 0 to 1.
    pub brightness: f32,
    /// Largest relative change of contrast about 0.5: 0 to 1.
    pub contrast: f32,
    /// Largest relative change of saturation: 0 to 1.
    pub saturation: f32,
    /// Largest turn of the hue, as a share of the circle: 0 to 0.5.
    pub hue: f32,
    /// Largest standard deviation of the blur in pixels: 0 to [`MAX_BLUR`].
    pub blur: f32,
    /// Side of the square that is cut out, as a share of the shorter side: 0 to 1.
    pub cutout: f32,
    /// Subtracted from each channel, on the scale of `[0, 1]`.
    pub mean: [f32; 3],
    /// Divides each channel.
    pub std: [f32; 3],
    /// Whether the result's channels are blue, green, red. Mean and standard deviation are always those of red, green, blue.
    pub bgr: bool,
    /// Seed of the draws.
    pub seed: u32,
    /// Whether the result is f16.
    pub half: bool,
}

impl Augment {
    /// Only the normalisation: what evaluation uses.
    pub fn none(mean: [f32; 3], std: [f32; 3]) -> Self {
        Self {
            hflip: false,
            vflip: false,
            rotation: 0.0,
            zoom: 0.0,
            shift: 0.0,
            shear: 0.0,
            brightness: 0.0,
            contrast: 0.0,
            saturation: 0.0,
            hue: 0.0,
            blur: 0.0,
            cutout: 0.0,
            mean,
            std,
            bgr: false,
            seed: 0,
            half: false,
        }
    }

    /// The streams of the draws.
    fn streams(&self) -> [Stream; 2] {
        ["augment", "augment more"].map(|name| Stream::named(self.seed, name))
    }

    /// Side of the square that is cut out, in pixels.
    fn cutout_side(&self, height: usize, width: usize) -> u32 {
        (self.cutout * height.min(width) as f32).round() as u32
    }

    fn validate(&self) -> Result<()> {
        let fail = |why: String| Err(Error::new(Kind::Shape, why));
        let bounded = [
            ("rotation", self.rotation, 180.0),
            ("shear", self.shear, MAX_SHEAR),
            ("brightness", self.brightness, 1.0),
            ("contrast", self.contrast, 1.0),
            ("saturation", self.saturation, 1.0),
            ("hue", self.hue, 0.5),
            ("blur", self.blur, MAX_BLUR),
            ("cutout", self.cutout, 1.0),
        ];
        if let Some((name, value, max)) = bounded.into_iter().find(|(_, v, max)| !(0.0..=*max).contains(v)) {
            return fail(format!("the augmentation's {name} is {value}, not between 0 and {max}"));
        }
        let below_one = [("zoom", self.zoom), ("shift", self.shift)];
        if let Some((name, value)) = below_one.into_iter().find(|(_, v)| !(0.0..1.0).contains(v)) {
            return fail(format!("the augmentation's {name} is {value}, not at least 0 and below 1"));
        }
        if !self.mean.iter().all(|m| m.is_finite()) {
            return fail(format!("the mean {:?} is not finite", self.mean));
        }
        if !self.std.iter().all(|s| s.is_finite() && *s > 0.0) {
            return fail(format!("the standard deviation {:?} is not positive and finite", self.std));
        }
        Ok(())
    }
}

/// Augmented, normalised pictures `[N, H, W, 3]` from packed pixels `[N, H, W]`, sample ids `[N]` and the epoch `[1]`.
///
/// # Errors
/// [`Kind::Shape`] if the shapes do not go together or a parameter of `how` is out of range.
pub fn augment(tape: &mut Tape, pixels: Tensor, samples: Tensor, epoch: Tensor, how: Augment) -> Result<Tensor> {
    tape.push1(how, &[pixels, samples, epoch])
}

/// The masks `[N, H, W, 1]` in `[0, 1]` that belong to the pictures of [`augment`] with the same arguments.
///
/// # Errors
/// As [`augment`].
pub fn masks(tape: &mut Tape, pixels: Tensor, samples: Tensor, epoch: Tensor, how: Augment) -> Result<Tensor> {
    tape.push1(MaskOf(how), &[pixels, samples, epoch])
}

impl Op for Augment {
    fn name(&self) -> &'static str {
        "augment"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [n, height, width] = self.extents(inputs)?;
        let dtype = if self.half { DType::F16 } else { DType::F32 };
        Ok(vec![TensorType { shape: [n, height, width, 3].into(), dtype }])
    }

    fn backward(&self, _: &mut Tape, _: &NodeView, _: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![None; 3])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let [n, height, width] = self.extents(cx.inputs)?;
        let kernel = |entry| Kernel::new(&SOURCE, entry);
        let finishing = |entry| kernel(entry).with_half(self.half);
        let launch = |kernel, first| Ok(self.launch(cx, kernel)?.bind(first, Access::Read).input(1).input(2));
        let pixels = (n * height * width) as u64;
        if self.blur == 0.0 {
            let forward = launch(finishing("forward"), Operand::Input(0))?.output(0);
            return Ok(Lowered::one(forward.work(100 * pixels, moved(cx))));
        }
        let [sharp, half_blurred] = [0, 1].map(Operand::Scratch);
        let colours = TensorType::f32([n, height, width, 3]);
        let (bytes, taps) = (colours.bytes(), 6 * (3.0 * self.blur).ceil() as u64);
        let warp = launch(kernel("warp"), Operand::Input(0))?.bind(sharp, Access::ReadWrite);
        let rows = launch(kernel("blur_rows"), sharp)?.bind(half_blurred, Access::ReadWrite);
        let columns = launch(finishing("blur_columns"), half_blurred)?.output(0);
        let dispatches = vec![
            warp.work(60 * pixels, cx.inputs[0].bytes() + bytes),
            rows.work(taps * pixels, 2 * bytes),
            columns.work((taps + 40) * pixels, bytes + cx.outputs[0].bytes()),
        ];
        Ok(Lowered { scratch: vec![colours; 2], dispatches })
    }
}

/// What both ops have in common.
impl Augment {
    /// Extents `[N, H, W]` of the pictures, if the inputs go together.
    fn extents(&self, inputs: &[TensorType]) -> Result<[usize; 3]> {
        self.validate()?;
        let fail = |why: &str| Err(Error::new(Kind::Shape, why));
        if inputs.iter().any(|ty| ty.dtype != DType::U32) {
            return fail("augmentation takes pixels, sample ids and the epoch as u32");
        }
        let &[n, height, width] = inputs[0].shape.dims() else {
            return fail("augmentation takes packed pixels [N, H, W]");
        };
        if n * height * width == 0 {
            return fail("augmentation takes pictures, at least one, of at least one pixel");
        }
        if inputs[1].shape.dims() != [n] || inputs[2].shape.dims() != [1] {
            return fail("augmentation takes one sample id a picture and one epoch");
        }
        Ok([n, height, width])
    }

    /// One launch of a kernel, without bindings.
    fn launch(&self, cx: &Lower<'_>, kernel: Kernel) -> Result<Dispatch> {
        let [n, height, width] = self.extents(cx.inputs)?;
        let area = height * width;
        let [[seed, stream], [_, more]] = self.streams().map(|stream| stream.key());
        let params = Params {
            n: n as u32,
            height: height as u32,
            width: width as u32,
            seed,
            stream,
            more,
            hflip: u32::from(self.hflip),
            vflip: u32::from(self.vflip),
            rotation: self.rotation,
            zoom: self.zoom,
            shift: self.shift,
            shear: self.shear,
            brightness: self.brightness,
            contrast: self.contrast,
            saturation: self.saturation,
            hue: self.hue,
            blur: self.blur,
            cutout: self.cutout_side(height, width),
            mean_r: self.mean[0],
            mean_g: self.mean[1],
            mean_b: self.mean[2],
            std_r: self.std[0],
            std_g: self.std[1],
            std_b: self.std[2],
            bgr: u32::from(self.bgr),
        };
        // A workgroup never straddles two pictures.
        let groups = n * area.div_ceil(WORKGROUP as usize);
        Ok(Dispatch::new(kernel, params.block(), grid(groups as u64)))
    }
}

/// The op of [`masks`].
#[derive(Debug)]
struct MaskOf(Augment);

impl Op for MaskOf {
    fn name(&self) -> &'static str {
        "augment.masks"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [n, height, width] = self.0.extents(inputs)?;
        Ok(vec![TensorType::f32([n, height, width, 1])])
    }

    fn backward(&self, _: &mut Tape, _: &NodeView, _: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![None; 3])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let dispatch = self.0.launch(cx, Kernel::new(&SOURCE, "mask"))?.input(0).input(1).input(2).output(0);
        Ok(Lowered::one(dispatch.work(60 * cx.outputs[0].shape.len() as u64, moved(cx))))
    }
}

#[cfg(test)]
mod tests;
