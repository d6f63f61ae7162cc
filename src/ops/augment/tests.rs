//! Tests of what cases cannot show.

use super::*;
use crate::autograd::{Executable, Plan, Store};
use crate::gpu::{Gpu, GpuOptions};

const ALL: Augment = Augment {
    hflip: true,
    vflip: true,
    rotation: 36.0,
    zoom: 0.1,
    shift: 0.0,
    shear: 0.0,
    brightness: 0.2,
    contrast: 0.2,
    saturation: 0.0,
    hue: 0.0,
    blur: 0.0,
    cutout: 0.0,
    mean: [0.7, 0.5, 0.5],
    std: [0.2, 0.2, 0.2],
    bgr: false,
    seed: 7,
    half: false,
};

const EVERY: Augment = Augment { shift: 0.1, shear: 10.0, saturation: 0.3, hue: 0.1, blur: 1.5, cutout: 0.3, ..ALL };

fn gpu() -> Option<Gpu> {
    let adapter = std::env::var("LESION_GPU_ADAPTER").ok();
    match Gpu::open(&GpuOptions { adapter, ..GpuOptions::default() }) {
        Ok(gpu) => Some(gpu),
        Err(e) if std::env::var("LESION_GPU_REQUIRE").is_ok_and(|v| v == "1") => panic!("a GPU is required: {e}"),
        Err(_) => None,
    }
}

/// The augmented pictures, or masks, of `samples`; `word` makes a pixel of a sample's number and the pixel's.
fn run_on(
    gpu: &Gpu,
    op: fn(&mut Tape, Tensor, Tensor, Tensor, Augment) -> Result<Tensor>,
    how: Augment,
    (samples, size, epoch): (&[u32], usize, u32),
    word: &dyn Fn(u32, u32) -> u32,
) -> Vec<Vec<f32>> {
    let mut tape = Tape::new();
    let n = samples.len();
    let shapes = [("pixels", vec![n, size, size]), ("samples", vec![n]), ("epoch", vec![1])];
    let inputs = shapes.map(|(name, shape)| tape.input(name, TensorType::u32(shape)));
    let y = op(&mut tape, inputs[0], inputs[1], inputs[2], how).unwrap();
    let plan = Plan::new(&tape, &[y], gpu.caps()).unwrap();
    let executable = Executable::new(gpu, plan, &mut Store::new()).unwrap();
    let pixels: Vec<u32> = samples.iter().flat_map(|&id| (0..(size * size) as u32).map(move |i| word(id, i))).collect();
    executable.set_input(gpu, "pixels", bytemuck::cast_slice(&pixels)).unwrap();
    executable.set_input(gpu, "samples", bytemuck::cast_slice(samples)).unwrap();
    executable.set_input(gpu, "epoch", bytemuck::bytes_of(&epoch)).unwrap();
    executable.run(gpu);
    let data = executable.read_output(gpu, 0).unwrap().into_data();
    data.chunks(data.len() / n).map(<[f32]>::to_vec).collect()
}

/// The augmented pictures of `samples`, where a sample's pixels depend on its id alone.
fn run(gpu: &Gpu, how: Augment, samples: &[u32], size: usize, epoch: u32) -> Vec<Vec<f32>> {
    run_on(gpu, augment, how, (samples, size, epoch), &pixel)
}

/// All four bytes random: the alpha byte must not matter to the colours.
fn pixel(sample: u32, i: u32) -> u32 {
    Stream::named(3, "pixels").words([i, sample])[0]
}

#[test]
fn a_sample_looks_the_same_wherever_it_is_in_a_batch() {
    let Some(gpu) = gpu() else { return };
    let large = run(&gpu, EVERY, &[5, 900_000_000, 11, 5, 2], 19, 3);
    let small = run(&gpu, EVERY, &[11, 5], 19, 3);
    assert_eq!(large[0], large[3]);
    assert_eq!(large[0], small[1]);
    assert_eq!(large[2], small[0]);
    let later = run(&gpu, EVERY, &[11, 5], 19, 4);
    assert_ne!(small[0], later[0]);
    let seeded = run(&gpu, Augment { seed: 8, ..EVERY }, &[11, 5], 19, 3);
    assert_ne!(small[0], seeded[0]);
}

#[test]
fn the_first_draws_are_what_they_were() {
    let Some(gpu) = gpu() else { return };
    // Computed before there was a second stream: the pixels in the middle.
    let then = [[0.470727, -2.375103, -1.668726], [-0.562263, -0.64253, -2.5]];
    for (picture, then) in run(&gpu, ALL, &[5, 900_000_000], 19, 3).iter().zip(then) {
        let middle = &picture[3 * (9 * 19 + 9)..][..3];
        assert!(middle.iter().zip(then).all(|(now, then): (&f32, f32)| (now - then).abs() < 2e-4), "{middle:?}");
    }
}

#[test]
fn masks_go_where_their_pictures_go() {
    let Some(gpu) = gpu() else { return };
    let warps = Augment { shift: 0.3, shear: 20.0, brightness: 0.0, contrast: 0.0, ..EVERY };
    let plain = Augment { saturation: 0.0, hue: 0.0, blur: 0.0, cutout: 0.0, ..warps };
    let plain = Augment { mean: [0.0; 3], std: [1.0; 3], ..plain };
    // Red is the mask.
    let word = |id, i| if pixel(id, i) & 4 == 0 { 0xFF00_00FF } else { 0 };
    let batch: (&[u32], usize, u32) = (&[5, 11, 900_000_000], 23, 2);
    let red = |pictures: Vec<Vec<f32>>| -> Vec<Vec<f32>> {
        pictures.iter().map(|picture| picture.iter().step_by(3).copied().collect()).collect()
    };
    let found = run_on(&gpu, masks, warps, batch, &word);
    assert_eq!(found, red(run_on(&gpu, augment, plain, batch, &word)));
    assert_ne!(found, run_on(&gpu, masks, Augment { shift: 0.0, ..warps }, batch, &word));
}

/// Samples of the test below.
const MANY: usize = 600;

#[test]
fn the_further_draws_are_uniform_and_do_not_depend_on_each_other() {
    let Some(gpu) = gpu() else { return };
    let none = Augment { seed: 21, ..Augment::none([0.0; 3], [1.0; 3]) };
    let samples: Vec<u32> = (0..MANY as u32).collect();
    let seen = |how: Augment, size: usize, word: &dyn Fn(u32, u32) -> u32, read: &dyn Fn(&[f32]) -> f32| {
        let pictures = samples.chunks(50).flat_map(|some| run_on(&gpu, augment, how, (some, size, 1), word));
        pictures.map(|picture| f64::from(read(&picture))).collect::<Vec<f64>>()
    };
    // What one augmentation did to a picture of which that can be read, as a number in [0, 1].
    let ramp = |_, i: u32| ((i % 33) * 7) | ((i / 33 * 7) << 8);
    let middle = |channel: usize| move |p: &[f32]| p[3 * (16 * 33 + 16) + channel] * 255.0 / 7.0;
    let shift = Augment { shift: 8.0 / 33.0, ..none };
    let shear = Augment { shear: 40.0, ..none };
    let lean = |p: &[f32]| {
        let [top, bottom] = [6, 26].map(|row| p[3 * (33 * row + 16)] * 255.0 / 7.0);
        0.5 + ((top - bottom) / 20.0).atan().to_degrees() / 80.0
    };
    let colour = |_, _| 120 | 90 << 8 | 100 << 16;
    let saturation = Augment { saturation: 0.5, ..none };
    let hue = Augment { hue: 0.25, ..none };
    let dot = |p: &[f32], row: [f32; 3]| p.iter().zip(row).map(|(a, b)| a * b).sum::<f32>();
    let angle = |p: &[f32]| dot(p, [0.2115, -0.5227, 0.3112]).atan2(dot(p, [0.5959, -0.2746, -0.3213]));
    let turned = |p: &[f32]| 0.5 + (angle(p) - angle(&[120.0, 90.0, 100.0])) / std::f32::consts::PI;
    let dot_there = |_, i: u32| if i == 16 * 33 + 16 { 255 } else { 0 };
    let blur = Augment { blur: 4.0, ..none };
    let width = |p: &[f32]| {
        let distance = |i: usize| (i as f32 / 3.0 % 33.0).floor() - 16.0;
        let moment = |power: i32| (0..p.len()).step_by(3).map(|i| distance(i).powi(power) * p[i]).sum::<f32>();
        (moment(2) / moment(0)).sqrt() / 4.0
    };
    let cutout = Augment { cutout: 1.0 / 33.0, ..none };
    let hole = |p: &[f32]| (0..33 * 33).position(|i| p[3 * i] == 0.0).expect("a hole");
    let white = |_, _| 255;
    let found = [
        seen(shift, 33, &ramp, &|p| 0.5 + (16.0 - middle(0)(p)) / 16.0),
        seen(shift, 33, &ramp, &|p| 0.5 + (16.0 - middle(1)(p)) / 16.0),
        seen(shear, 33, &ramp, &lean),
        seen(saturation, 1, &colour, &|p| ((p[0] - p[1]) * 255.0 / 30.0) - 0.5),
        seen(hue, 1, &colour, &turned),
        seen(blur, 33, &dot_there, &width),
        seen(cutout, 33, &white, &|p| (hole(p) % 33) as f32 / 33.0),
        seen(cutout, 33, &white, &|p| (hole(p) / 33) as f32 / 33.0),
    ];
    for (i, values) in found.iter().enumerate() {
        let mut bins = [0; 5];
        values.iter().for_each(|v| bins[(v * 5.0).clamp(0.0, 4.0) as usize] += 1);
        // 120 are expected in each, with a standard deviation of 9.8.
        assert!(bins.iter().all(|count| (75..=165).contains(count)), "{i}: {bins:?}");
        assert!(values.iter().all(|v| (-0.01..=1.01).contains(v)), "{i}: {values:?}");
        for (j, others) in found[..i].iter().enumerate() {
            let mean = |v: &[f64]| v.iter().sum::<f64>() / MANY as f64;
            let (a, b) = (mean(values), mean(others));
            let covariance = values.iter().zip(others).map(|(v, w)| (v - a) * (w - b)).sum::<f64>() / MANY as f64;
            // One over twelve is what they would have if they were the same.
            assert!((covariance * 12.0).abs() < 0.2, "{i} and {j}: {covariance}");
        }
    }
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
        Augment { shift: 1.0, ..ALL },
        Augment { shear: 61.0, ..ALL },
        Augment { saturation: -0.1, ..ALL },
        Augment { hue: 0.6, ..ALL },
        Augment { blur: 21.0, ..ALL },
        Augment { cutout: f32::NAN, ..ALL },
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
