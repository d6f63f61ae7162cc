//! Random augmentation and normalisation of a batch of pictures: pixels `[N, H, W]` (u32 words of RGBA8, R in the low
//! byte), sample ids `[N]` (u32) and the epoch `[1]` (u32) to `[N, H, W, 3]` (f32, or f16 for mixed precision). The masks
//! in the alpha bytes are a second op, [`masks`], which takes the same way: `[N, H, W, 1]` in f32.
//!
//! For a pixel of the result, in this order:
//!
//! 1. flips: with probability 1/2 each, the picture's rows are mirrored left to right, its columns top to bottom; exact
//!    permutations of pixels;
//! 2. rotation by an angle uniform in ±`rotation` and magnification by a scale uniform in `[1 - zoom, 1 + zoom]`, both
//!    about the picture's centre `((W - 1) / 2, (H - 1) / 2)`: one inverse affine map
//!    `source = centre + R(angle) (pixel - centre) / scale` and one bilinear sample. Outside, the picture is mirrored
//!    without repeating its border pixels (`d c b | a b c d | c b a`). If `rotation` and `zoom` are zero there is no
//!    resampling at all, so no resampling error;
//! 3. brightness: times a factor uniform in `1 ± brightness`;
//! 4. contrast: the distance from 0.5 (a fixed middle grey, not the picture's own mean) times a factor uniform in
//!    `1 ± contrast`;
//! 5. clamped to `[0, 1]`, then `(v - mean) / std` for each channel, and red and blue exchanged where a network wants it so.
//!
//! A mask goes through 1 and 2 only, as a value in `[0, 1]`. Where it is resampled, a pixel that the lesion covers by half
//! is one half: the losses take such targets, and a threshold would let rounding decide.
//!
//! Draw `d` of a sample (0 hflip, 1 vflip, 2 rotation, 3 zoom, 4 brightness, 5 contrast) is the first word of
//! Threefry-2x32 with key `[seed, stream]`, where stream is that of the name `augment`, and counter
//! `[sample id, 8 * epoch + d]`. It depends on nothing else: not on the batch size, the position in the batch or which
//! other augmentations are on.
//!
//! Numerics: all in f32. Sine and cosine are polynomials in the kernel, accurate to a few units of 1e-7 on every
//! driver, where the built-in functions may be off by 5e-4. There is no gradient.
//!
//! Source: bilinear resampling by the inverse map as in R. Gonzalez, R. Woods, "Digital Image Processing", section 2.6;
//! random numbers as in [`crate::rng`].

mod cases;
mod reference;

pub use cases::cases;

use crate::autograd::{Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Dispatch, Kernel, Source, Uniform, grid, uniform_block};
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
        hflip: u32,
        vflip: u32,
        rotation: f32,
        zoom: f32,
        brightness: f32,
        contrast: f32,
        mean_r: f32,
        mean_g: f32,
        mean_b: f32,
        std_r: f32,
        std_g: f32,
        std_b: f32,
        bgr: u32,
    }
}

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
    /// Largest relative change of brightness: 0 to 1.
    pub brightness: f32,
    /// Largest relative change of contrast about 0.5: 0 to 1.
    pub contrast: f32,
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
            brightness: 0.0,
            contrast: 0.0,
            mean,
            std,
            bgr: false,
            seed: 0,
            half: false,
        }
    }

    /// The stream of the draws.
    fn stream(&self) -> Stream {
        Stream::named(self.seed, "augment")
    }

    fn validate(&self) -> Result<()> {
        let fail = |why: String| Err(Error::new(Kind::Shape, why));
        let bounded = [
            ("rotation", self.rotation, 180.0),
            ("brightness", self.brightness, 1.0),
            ("contrast", self.contrast, 1.0),
        ];
        if let Some((name, value, max)) = bounded.into_iter().find(|(_, v, max)| !(0.0..=*max).contains(v)) {
            return fail(format!("the augmentation's {name} is {value}, not between 0 and {max}"));
        }
        if !(0.0..1.0).contains(&self.zoom) {
            return fail(format!("the augmentation's zoom is {}, not at least 0 and below 1", self.zoom));
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
        self.launch(cx, Kernel::new(&SOURCE, "forward").with_half(self.half), 60)
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

    /// One launch of a kernel that does about `flops` operations a pixel.
    fn launch(&self, cx: &Lower<'_>, kernel: Kernel, flops: u64) -> Result<Lowered> {
        let [n, height, width] = self.extents(cx.inputs)?;
        let area = height * width;
        let [seed, stream] = self.stream().key();
        let params = Params {
            n: n as u32,
            height: height as u32,
            width: width as u32,
            seed,
            stream,
            hflip: u32::from(self.hflip),
            vflip: u32::from(self.vflip),
            rotation: self.rotation,
            zoom: self.zoom,
            brightness: self.brightness,
            contrast: self.contrast,
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
        let dispatch = Dispatch::new(kernel, params.block(), grid(groups as u64));
        let work = (n * area) as u64;
        Ok(Lowered::one(dispatch.input(0).input(1).input(2).output(0).work(flops * work, moved(cx))))
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
        self.0.launch(cx, Kernel::new(&SOURCE, "mask"), 30)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::{Executable, Plan, Store};
    use crate::gpu::{Gpu, GpuOptions};

    const ALL: Augment = Augment {
        hflip: true,
        vflip: true,
        rotation: 36.0,
        zoom: 0.1,
        brightness: 0.2,
        contrast: 0.2,
        mean: [0.7, 0.5, 0.5],
        std: [0.2, 0.2, 0.2],
        bgr: false,
        seed: 7,
        half: false,
    };

    fn gpu() -> Option<Gpu> {
        let adapter = std::env::var("LESION_GPU_ADAPTER").ok();
        match Gpu::open(&GpuOptions { adapter, ..GpuOptions::default() }) {
            Ok(gpu) => Some(gpu),
            Err(e) if std::env::var("LESION_GPU_REQUIRE").is_ok_and(|v| v == "1") => panic!("a GPU is required: {e}"),
            Err(_) => None,
        }
    }

    /// The augmented pictures of `samples`, where a sample's pixels depend on its id alone.
    fn run(gpu: &Gpu, how: Augment, samples: &[u32], size: usize, epoch: u32) -> Vec<Vec<f32>> {
        let mut tape = Tape::new();
        let n = samples.len();
        let shapes = [("pixels", vec![n, size, size]), ("samples", vec![n]), ("epoch", vec![1])];
        let inputs = shapes.map(|(name, shape)| tape.input(name, TensorType::u32(shape)));
        let y = augment(&mut tape, inputs[0], inputs[1], inputs[2], how).unwrap();
        let plan = Plan::new(&tape, &[y], gpu.caps()).unwrap();
        let executable = Executable::new(gpu, plan, &mut Store::new()).unwrap();
        let pixels: Vec<u32> =
            samples.iter().flat_map(|&id| (0..(size * size) as u32).map(move |i| pixel(id, i))).collect();
        executable.set_input(gpu, "pixels", bytemuck::cast_slice(&pixels)).unwrap();
        executable.set_input(gpu, "samples", bytemuck::cast_slice(samples)).unwrap();
        executable.set_input(gpu, "epoch", bytemuck::bytes_of(&epoch)).unwrap();
        executable.run(gpu);
        let data = executable.read_output(gpu, 0).unwrap().into_data();
        data.chunks(size * size * 3).map(<[f32]>::to_vec).collect()
    }

    /// All four bytes random: the alpha byte must not matter to the colours.
    fn pixel(sample: u32, i: u32) -> u32 {
        Stream::named(3, "pixels").words([i, sample])[0]
    }

    #[test]
    fn a_sample_looks_the_same_wherever_it_is_in_a_batch() {
        let Some(gpu) = gpu() else { return };
        let large = run(&gpu, ALL, &[5, 900_000_000, 11, 5, 2], 19, 3);
        let small = run(&gpu, ALL, &[11, 5], 19, 3);
        assert_eq!(large[0], large[3]);
        assert_eq!(large[0], small[1]);
        assert_eq!(large[2], small[0]);
        let later = run(&gpu, ALL, &[11, 5], 19, 4);
        assert_ne!(small[0], later[0]);
        let seeded = run(&gpu, Augment { seed: 8, ..ALL }, &[11, 5], 19, 3);
        assert_ne!(small[0], seeded[0]);
    }

    #[test]
    fn flips_permute_pixels_and_occur_half_of_the_time() {
        let Some(gpu) = gpu() else { return };
        let how = Augment { hflip: true, vflip: true, ..Augment::none([0.0; 3], [1.0; 3]) };
        let size = 9_u32;
        let samples: Vec<u32> = (0..400).collect();
        let mut seen = [0; 4];
        for (picture, id) in run(&gpu, how, &samples, size as usize, 0).iter().zip(samples) {
            let bytes: Vec<u32> = picture.iter().map(|v| (v * 255.0).round() as u32).collect();
            let is = |h: bool, v: bool| {
                (0..size * size).all(|i| {
                    let (row, column) = (i / size, i % size);
                    let row = if v { size - 1 - row } else { row };
                    let column = if h { size - 1 - column } else { column };
                    let word = pixel(id, row * size + column);
                    (0..3).all(|c| bytes[(i * 3 + c) as usize] == (word >> (8 * c)) & 255)
                })
            };
            let which = (0..4).find(|k| is(k & 1 != 0, k & 2 != 0)).expect("one of the four permutations");
            seen[which] += 1;
        }
        // 100 each are expected, with a standard deviation of 8.7.
        assert!(seen.iter().all(|count| (65..=135).contains(count)), "{seen:?}");
    }

    #[test]
    fn parameters_out_of_range_are_refused() {
        let bad = [
            Augment { zoom: 1.0, ..ALL },
            Augment { zoom: -0.1, ..ALL },
            Augment { rotation: f32::NAN, ..ALL },
            Augment { rotation: f32::INFINITY, ..ALL },
            Augment { brightness: -0.5, ..ALL },
            Augment { contrast: 1.5, ..ALL },
            Augment { mean: [0.0, f32::NAN, 0.0], ..ALL },
            Augment { std: [1.0, 0.0, 1.0], ..ALL },
        ];
        let shapes = |n: usize, h: usize, w: usize, samples: usize, epochs: usize| {
            [TensorType::u32([n, h, w]), TensorType::u32([samples]), TensorType::u32([epochs])]
        };
        for how in bad {
            assert_eq!(how.infer(&shapes(2, 4, 4, 2, 1)).unwrap_err().kind(), Kind::Shape, "{how:?}");
        }
        for inputs in [shapes(2, 0, 5, 2, 1), shapes(2, 4, 4, 3, 1), shapes(2, 4, 4, 2, 2), shapes(0, 4, 4, 0, 1)] {
            assert_eq!(ALL.infer(&inputs).unwrap_err().kind(), Kind::Shape);
            assert_eq!(MaskOf(ALL).infer(&inputs).unwrap_err().kind(), Kind::Shape);
        }
        assert!(ALL.infer(&shapes(2, 4, 4, 2, 1)).is_ok() && ALL.infer(&shapes(2, 4, 5, 2, 1)).is_ok());
    }
}
