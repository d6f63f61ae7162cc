//! `explain` as a user runs it: what it writes and says, and what it refuses.

mod common;

use std::path::Path;

use common::{fails, ok, program, text};
use image::{Rgb, RgbImage, imageops};
use lesion_gpu::data::synthetic;
use lesion_gpu::models::Model;
use lesion_gpu::tensor::HostTensor;
use lesion_gpu::weights::{Tensors, WeightFile, write_safetensors};

/// The side of the pictures that the model below sees, and of its last map.
const SIDE: usize = 32;
const GRID: usize = 4;

const MODEL: [&str; 11] = [
    "explain",
    "--model",
    "simple-cnn",
    "--weights",
    "red.safetensors",
    "--size",
    "32",
    "--normalize",
    "unit",
    "--classes",
    "red,other",
];

fn explain<'a>(extra: &[&'a str]) -> Vec<&'a str> {
    [&MODEL, extra].concat()
}

/// Weights of `simple-cnn` that see red: the first channel of each convolution hands on the red in the middle of its window,
/// and the sum of what comes out speaks for the first class and against the second. All else is zero.
fn red(folder: &Path) {
    let parameters = Model::find("simple-cnn").unwrap().summary(SIDE, 2).unwrap().parameters;
    let weights: Tensors = parameters
        .iter()
        .map(|p| {
            let mut data = vec![0.0; p.count()];
            match p.name.as_str() {
                "conv1.weight" | "conv2.weight" | "conv3.weight" => data[4] = 1.0,
                // One unit, of the 2x2 last places in the order H, W, C.
                "fc1.weight" => (0..4).for_each(|place| data[place * 128] = 1.0),
                "fc2.weight" => (data[0], data[128]) = (1.0, -1.0),
                _ => {}
            }
            (p.name.clone(), HostTensor::new(p.file_shape.clone(), data))
        })
        .collect();
    write_safetensors(&folder.join("red.safetensors"), &WeightFile { tensors: weights, ..WeightFile::default() })
        .unwrap();
}

/// What the last convolution of such a model makes of a picture: without a margin of one, then halved, thrice over but for the
/// last halving.
fn last_map(picture: &RgbImage) -> Vec<f32> {
    let mut side = SIDE;
    let mut map: Vec<f32> = picture.pixels().map(|p| f32::from(p[0]) / 255.0).collect();
    for halve in [true, true, false] {
        let at = |y: usize, x: usize| map[(y + 1) * side + x + 1];
        let inner = side - 2;
        let step = if halve { 2 } else { 1 };
        let small = inner / step;
        let window = |y: usize, x: usize| -> f32 {
            let places = (0..step * step).map(|i| at(y * step + i / step, x * step + i % step));
            places.fold(0.0, f32::max)
        };
        map = (0..small * small).map(|i| window(i / small, i % small)).collect();
        side = small;
    }
    assert_eq!(map.len(), GRID * GRID);
    map
}

/// A dark picture with a red box, brighter to the right.
fn boxed(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let inside = 2 * x >= width && 4 * y >= height;
        Rgb([if inside { 100 + (150 * x / width) as u8 } else { 10 }, 60, 20])
    })
}

/// The values of a file of NumPy, and its header.
fn npy(path: &Path) -> (String, Vec<f32>) {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert!(end % 64 == 0 && bytes[end - 1] == b'\n');
    let values = bytes[end..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    (String::from_utf8(bytes[10..end].to_vec()).unwrap(), values)
}

fn json(printed: &str) -> Vec<serde_json::Value> {
    serde_json::from_str(printed).unwrap_or_else(|e| panic!("{e}: {printed}"))
}

fn picture(path: &Path) -> RgbImage {
    image::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).into_rgb8()
}

#[test]
fn a_map_that_is_known_by_hand() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    red(dir);
    let drawn = boxed(SIDE as u32, SIDE as u32);
    drawn.save(dir.join("box.png")).unwrap();
    let mask = image::GrayImage::from_fn(32, 32, |x, _| image::Luma([if x >= 16 { 255 } else { 0 }]));
    mask.save(dir.join("box_segmentation.png")).unwrap();
    let args = ["box.png", "--raw", "--format", "json", "--masks", "box_segmentation.png", "--sheet", "sheets/one.png"];
    let answer = &json(&ok(dir, &explain(&args)))[0];

    // In each 2x2 of the last map one place has a gradient of one: a quarter of the mean weight.
    let want: Vec<f32> = last_map(&drawn).iter().map(|a| a / 4.0).collect();
    let (header, found) = npy(&dir.join("explained/box_cam.npy"));
    assert!(header.contains("'shape': (4, 4)"), "{header}");
    assert!(want.iter().any(|&v| v > 0.1) && want.iter().any(|&v| v < 0.05), "{want:?}");
    for (a, b) in found.iter().zip(&want) {
        assert!((a - b).abs() < 1e-6, "{found:?} {want:?}");
    }
    let peak = want.iter().copied().fold(0.0, f32::max);
    assert!((answer["peak"].as_f64().unwrap() - f64::from(peak)).abs() < 1e-6, "{answer}");
    assert_eq!((answer["class"].as_str(), answer["layer"].as_str()), (Some("red"), Some("conv3")));
    assert_eq!((answer["method"].as_str(), answer["image"].as_str()), (Some("grad-cam"), Some("box.png")));
    assert!(answer["probability"].as_f64().unwrap() > 0.5, "{answer}");

    // Between the centres of its places the map is bilinear, and it ends with the outermost centres.
    let at = |place: f64| -> [(usize, f64); 2] {
        let place = ((place + 0.5) * GRID as f64 / SIDE as f64 - 0.5).clamp(0.0, GRID as f64 - 1.0);
        let low = (place as usize).min(GRID - 2);
        [(low, 1.0 - (place - low as f64)), (low + 1, place - low as f64)]
    };
    let value = |y: usize, x: usize| -> f64 {
        let pairs = at(y as f64).into_iter().flat_map(|v| at(x as f64).map(|u| (v, u)));
        pairs.map(|((row, a), (column, b))| a * b * f64::from(want[row * GRID + column])).sum()
    };
    let sum =
        |from: usize| (0..SIDE * SIDE).filter(|i| i % SIDE >= from).map(|i| value(i / SIDE, i % SIDE)).sum::<f64>();
    let inside = sum(SIDE / 2) / sum(0);
    assert!((answer["inside"].as_f64().unwrap() - inside).abs() < 1e-5, "{answer} {inside}");
    assert!(inside > 0.7 && inside < 0.99, "{inside}");
    assert_eq!(answer["lesion"].as_f64(), Some(0.5));

    // Drawn where it is: yellow in the box, dark blue far from it.
    let heat = picture(&dir.join("explained/box_heat.png"));
    let (hot, cold) = (heat.get_pixel(31, 20).0, heat.get_pixel(0, 0).0);
    assert!(hot[0] > 200 && hot[2] < 80 && cold[0] < 80 && cold[2] > 80, "{hot:?} {cold:?}");
    let overlay = picture(&dir.join("explained/box_overlay.png"));
    assert!(overlay.dimensions() == (32, 32) && overlay != heat && overlay != drawn);
    // Four cells of 256x192 with gaps of 4.
    assert_eq!(picture(&dir.join("sheets/one.png")).dimensions(), (4 + 4 * 260, 200));

    // The second class has the same weights with a minus.
    let printed = ok(dir, &explain(&["box.png", "--class", "other", "--out", "against"]));
    assert!(printed.contains("box.png: other 0.") && printed.contains("nothing speaks for it"), "{printed}");
    assert!(!dir.join("against/box_cam.npy").exists());
    let zero = picture(&dir.join("against/box_heat.png"));
    assert!(zero.pixels().all(|p| *p == *zero.get_pixel(0, 0)));

    // Grad-CAM++ weighs each place by 1 / (2 + the sum of the map), and there is one channel: the same shape.
    ok(dir, &explain(&["box.png", "--method", "grad-cam++", "--raw", "--out", "plus"]));
    let sum: f32 = last_map(&drawn).iter().sum();
    let (_, plus) = npy(&dir.join("plus/box_cam.npy"));
    for (a, b) in plus.iter().zip(&want) {
        assert!((a - 16.0 * b / (2.0 + sum)).abs() < 1e-5, "{plus:?} {want:?}");
    }
}

#[test]
fn many_pictures_are_explained_as_each_by_itself_and_nothing_is_overwritten() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    red(dir);
    std::fs::create_dir_all(dir.join("photos")).unwrap();
    std::fs::create_dir_all(dir.join("masks")).unwrap();
    let sizes = [("a", 70, 50), ("b", 31, 64), ("c", 32, 32)];
    for (name, width, height) in sizes {
        let (drawn, mask) = synthetic::render(3, width.into(), 64);
        imageops::thumbnail(&drawn, width, height).save(dir.join(format!("photos/{name}.png"))).unwrap();
        let mut mask = imageops::thumbnail(&mask, width, height);
        mask.pixels_mut().for_each(|p| p[0] = if p[0] > 127 { 255 } else { 0 });
        if name != "c" {
            mask.save(dir.join(format!("masks/{name}_segmentation.png"))).unwrap();
        }
    }
    let together = ["photos", "--raw", "--masks", "masks", "--format", "json", "--batch", "2", "--sheet", "sheet.png"];
    let output = program(dir, &explain(&together));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("c.png: there is no mask of it"), "{}", text(&output.stderr));
    let answers = json(&text(&output.stdout));
    assert_eq!(answers.len(), 3);
    for (answer, (name, width, height)) in answers.iter().zip(sizes) {
        for key in ["overlay", "heat"] {
            let file = answer[key].as_str().unwrap();
            assert_eq!(picture(&dir.join(file)).dimensions(), (width, height), "{file}");
        }
        let file = format!("photos/{name}.png");
        let own = ok(dir, &explain(&[&file, "--raw", "--out", "alone", "--format", "csv"]));
        let (a, b) =
            (npy(&dir.join(format!("explained/{name}_cam.npy"))), npy(&dir.join(format!("alone/{name}_cam.npy"))));
        assert!(a.0 == b.0 && a.1.iter().zip(&b.1).all(|(a, b)| (a - b).abs() < 1e-6), "{a:?} {b:?}");
        let row: Vec<&str> = own.lines().nth(1).unwrap().split(',').collect();
        let heads: Vec<&str> = own.lines().next().unwrap().split(',').collect();
        assert_eq!(heads, ["image", "class", "probability", "inside", "lesion", "overlay", "heat", "raw"]);
        assert_eq!((row[0], row[1], row[3]), (file.as_str(), answer["class"].as_str().unwrap(), ""));
        assert_eq!(answer["inside"].is_null(), name == "c", "{answer}");
    }
    assert_eq!(picture(&dir.join("sheet.png")).dimensions(), (4 + 4 * 260, 4 + 3 * 196));

    let before = std::fs::read(dir.join("explained/a_overlay.png")).unwrap();
    assert!(fails(dir, 11, &explain(&["photos"])).contains("nothing is overwritten"));
    assert!(
        fails(dir, 11, &explain(&["photos", "--out", "new", "--sheet", "sheet.png"]))
            .contains("choose another --sheet")
    );
    assert!(!dir.join("new").exists());
    assert_eq!(std::fs::read(dir.join("explained/a_overlay.png")).unwrap(), before);
    std::fs::create_dir_all(dir.join("more")).unwrap();
    std::fs::copy(dir.join("photos/a.png"), dir.join("more/a.png")).unwrap();
    let same = fails(dir, 2, &explain(&["photos/a.png", "more/a.png", "--out", "new"]));
    assert!(same.contains("would have one and the same map"), "{same}");
}

#[test]
fn what_there_is_not_is_refused_with_what_there_is() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    red(dir);
    boxed(40, 30).save(dir.join("a.png")).unwrap();
    boxed(40, 30).save(dir.join("b.png")).unwrap();
    let refused = |code: i32, extra: &[&str], says: &[&str]| {
        let message = fails(dir, code, &explain(extra));
        for part in says {
            assert!(message.contains(part), "{extra:?}: no '{part}' in: {message}");
        }
    };
    refused(2, &["a.png", "--layer", "layer4"], &["no layer 'layer4'", "conv1, conv2, conv3"]);
    refused(2, &["a.png", "--layer", "fc2"], &["'fc2' has no map"]);
    refused(2, &["a.png", "--class", "blue"], &["no class 'blue'", "red, other"]);
    refused(2, &["a.png", "--method", "rollout"], &["simple-cnn is none", "grad-cam"]);
    refused(2, &["a.png", "--method", "lime"], &["unknown method 'lime'", "grad-cam, grad-cam++, rollout"]);
    refused(2, &["a.png", "b.png", "--masks", "a.png"], &["no mask of 2 pictures"]);
    refused(11, &["a.png", "--masks", "nowhere"], &["nowhere"]);
    refused(11, &["c.png"], &["c.png"]);
    assert!(!dir.join("explained/a_heat.png").exists());

    // What cannot be read is named, the rest is done.
    std::fs::write(dir.join("broken.png"), b"no picture").unwrap();
    let output = program(dir, &explain(&["a.png", "broken.png", "b.png", "--sheet", "sheet.png", "--format", "json"]));
    assert_eq!((output.status.code(), json(&text(&output.stdout)).len()), (Some(8), 2));
    let message = text(&output.stderr);
    assert!(message.contains("skipped: broken.png") && message.contains("1 of 3 pictures"), "{message}");
    assert!(dir.join("explained/b_heat.png").exists() && !dir.join("explained/broken_heat.png").exists());
    assert_eq!(picture(&dir.join("sheet.png")).height(), 4 + 2 * 196);

    // A mask of another size says nothing, and is an error at the end.
    image::GrayImage::new(30, 30).save(dir.join("wrong.png")).unwrap();
    let output = program(dir, &explain(&["a.png", "--out", "masked", "--masks", "wrong.png", "--format", "json"]));
    assert_eq!(output.status.code(), Some(8));
    assert!(text(&output.stderr).contains("30x30 pixels, its picture 40x30"), "{}", text(&output.stderr));
    assert!(json(&text(&output.stdout))[0]["inside"].is_null() && dir.join("masked/a_heat.png").exists());
}

#[test]
fn what_was_cropped_is_put_back() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    red(dir);
    // A bright disc in a black frame, wide to the left.
    let framed = RgbImage::from_fn(120, 80, |x, y| {
        let (dx, dy) = (f64::from(x) - 80.0, f64::from(y) - 40.0);
        Rgb(if dx * dx + dy * dy < 38.0 * 38.0 { [220, 180, 160] } else { [0; 3] })
    });
    framed.save(dir.join("framed.png")).unwrap();
    ok(dir, &explain(&["framed.png"]));
    ok(dir, &explain(&["framed.png", "--preprocess", "crop", "--out", "cropped"]));
    let [whole, cropped] = ["explained", "cropped"].map(|out| picture(&dir.join(out).join("framed_heat.png")));
    assert_eq!(cropped.dimensions(), (120, 80));
    // What the model did not see is zero throughout; what it saw begins where the frame ends.
    let nothing = Rgb([68, 1, 84]);
    assert!((0..80).all(|y| *cropped.get_pixel(10, y) == nothing));
    assert!((0..80).any(|y| *whole.get_pixel(38, y) != nothing));
    assert!(cropped.get_pixel(80, 40)[0] > 200 && *cropped.get_pixel(80, 40) != nothing);
}

#[test]
fn runs_of_both_tasks_are_explained() {
    let Some(gpu) = common::gpu() else { return };
    // Whatever it was trained in, a run is explained in f32.
    let precision = if gpu.caps().f16 { "mixed" } else { "f32" };
    drop(gpu);
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let (drawn, _) = synthetic::render(5, 2, 64);
    drawn.save(dir.join("spot.png")).unwrap();
    let train = |model: &str, run: &str, precision: &str| {
        let args = ["train", "--data", "synthetic:48", "--size", "32", "--batch", "8", "--steps", "3", "--no-tune"];
        ok(dir, &[&args[..], &["--model", model, "--run", run, "--precision", precision]].concat());
    };
    train("simple-cnn", "classes", precision);
    let predicted = &json(&ok(dir, &["predict", "classes", "spot.png", "--format", "json", "--precision", "f32"]))[0];
    let explained = &json(&ok(dir, &["explain", "classes", "spot.png", "--format", "json"]))[0];
    assert_eq!(explained["class"], predicted["label"]);
    let difference = explained["probability"].as_f64().unwrap() - predicted["top"][0]["score"].as_f64().unwrap();
    assert!(difference.abs() < 1e-5, "{explained} {predicted}");
    train("unet-small", "masks", "f32");
    let printed =
        ok(dir, &["explain", "masks", "spot.png", "--layer", "decoder1", "--out", "drawn", "--format", "json"]);
    let explained = &json(&printed)[0];
    assert_eq!((explained["class"].as_str(), explained["layer"].as_str()), (Some("lesion"), Some("decoder1")));
    assert!(explained["probability"].is_null() && dir.join("drawn/spot_overlay.png").exists());
}
