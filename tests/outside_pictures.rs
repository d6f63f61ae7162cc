//! Pictures as cameras, scanners and print shops leave them: the right colours, the right way round, or an error.

#[path = "common/files.rs"]
mod files;
#[path = "common/pictures.rs"]
mod pictures;

use std::io::Cursor;

use files::put;
use image::{DynamicImage, GrayImage, ImageEncoder as _, ImageFormat, Luma, Rgb, RgbImage};
use lesion_gpu::Kind;
use lesion_gpu::data::{Cache, Dataset, Masks, OpenOptions, PixelStore, check, decode_rgb, picture_size};
use pictures::{PngKind, colour_of, flat_jpeg, png_that_claims};

/// The full-range conversion of JFIF (ITU-T T.871).
fn rgb_of([y, cb, cr]: [u8; 3]) -> [f64; 3] {
    let [y, cb, cr] = [f64::from(y), f64::from(cb) - 128.0, f64::from(cr) - 128.0];
    [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb].map(|v| v.clamp(0.0, 255.0))
}

/// In the middle of each block of a flat JPEG the colour that is expected of it.
fn assert_blocks(what: &str, blocks: &[&[u8]], adobe: Option<u8>, wanted: &dyn Fn(&[u8]) -> [f64; 3]) {
    let picture = decode_rgb(&flat_jpeg(blocks, adobe), "x.jpg").unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(picture.dimensions(), (8 * blocks.len() as u32, 8), "{what}");
    for (i, block) in blocks.iter().enumerate() {
        let (found, wanted) = (picture.get_pixel(8 * i as u32 + 4, 4).0, wanted(block));
        let near = found.iter().zip(wanted).all(|(&found, wanted)| (f64::from(found) - wanted).abs() < 3.0);
        assert!(near, "{what}: {block:?} is shown as {found:?}, not {wanted:?}");
    }
}

#[test]
fn jpegs_show_their_colours_however_they_store_them() {
    assert_blocks("gray", &[&[0], &[77], &[255]], None, &|block| [f64::from(block[0]); 3]);
    let three: [&[u8]; 4] = [&[130, 90, 200], &[60, 128, 128], &[200, 160, 140], &[90, 100, 110]];
    let of_three = |block: &[u8]| rgb_of([block[0], block[1], block[2]]);
    assert_blocks("YCbCr", &three, None, &of_three);
    assert_blocks("YCbCr of Adobe", &three, Some(1), &of_three);
    assert_blocks("RGB of Adobe", &three, Some(0), &|block| [block[0], block[1], block[2]].map(f64::from));
    // Adobe stores inks inverted, 255 for none: what is left of the light of each ink, and of black.
    let four: [&[u8]; 5] =
        [&[255, 255, 255, 255], &[255, 40, 60, 200], &[30, 200, 90, 255], &[140, 140, 140, 90], &[9, 9, 9, 0]];
    let light = |ink: f64, black: u8| ink * f64::from(black) / 255.0;
    let of_cmyk = |block: &[u8]| [block[0], block[1], block[2]].map(|ink| light(f64::from(ink), block[3]));
    assert_blocks("CMYK", &four, Some(0), &of_cmyk);
    let ycck: [&[u8]; 4] = [&[0, 128, 128, 255], &[100, 120, 140, 255], &[50, 140, 120, 128], &[200, 128, 128, 30]];
    let of_ycck = |block: &[u8]| rgb_of([block[0], block[1], block[2]]).map(|v| light(255.0 - v, block[3]));
    assert_blocks("YCCK", &ycck, Some(2), &of_ycck);
}

#[test]
fn pngs_show_their_colours_in_every_depth_and_order() {
    // Every kind that the format has: its colour type, its depths, and the samples of a pixel.
    let kinds: [(u8, &[u8], usize); 5] =
        [(0, &[1, 2, 4, 8, 16], 1), (2, &[8, 16], 3), (3, &[1, 2, 4, 8], 1), (4, &[8, 16], 2), (6, &[8, 16], 4)];
    for (colour, depth, samples) in kinds.iter().flat_map(|(c, depths, n)| depths.iter().map(move |d| (*c, *d, *n))) {
        for interlaced in [false, true] {
            let most = ((1_u32 << depth) - 1) as u16;
            let value =
                |x: u32, y: u32, channel: u32| ((x * 7919 + y * 104_729 + channel * 31) % (u32::from(most) + 1)) as u16;
            let sample = |x, y| (0..samples as u32).map(|channel| value(x, y, channel)).collect::<Vec<_>>();
            let png = PngKind { colour, depth, interlaced }.png(19, 11, sample);
            let picture = decode_rgb(&png, "x.png").unwrap();
            assert_eq!(picture.dimensions(), (19, 11));
            for (x, y, pixel) in picture.enumerate_pixels() {
                let level = |sample: u16| (f64::from(sample) * 255.0 / f64::from(most)).round() as u8;
                let samples = sample(x, y);
                let wanted = match colour {
                    3 => colour_of(samples[0]),
                    0 | 4 => [level(samples[0]); 3],
                    _ => [level(samples[0]), level(samples[1]), level(samples[2])],
                };
                assert_eq!(pixel.0, wanted, "colour type {colour}, {depth} bits, interlaced {interlaced}, at {x}, {y}");
            }
        }
    }
}

fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    picture.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
    bytes
}

#[test]
fn tiffs_of_each_depth_and_a_wrong_ending() {
    let rgb: DynamicImage = RgbImage::from_fn(20, 10, |x, y| Rgb([x as u8 * 12, y as u8 * 25, 77])).into();
    let kinds =
        [rgb.clone(), rgb.to_rgba8().into(), rgb.to_luma8().into(), rgb.to_rgb16().into(), rgb.to_luma16().into()];
    for picture in &kinds as &[DynamicImage] {
        let bytes = encoded(picture, ImageFormat::Tiff);
        assert_eq!(decode_rgb(&bytes, "x.tif").unwrap(), picture.to_rgb8(), "{:?}", picture.color());
        for tenth in 0..10 {
            let cut = decode_rgb(&bytes[..bytes.len() * tenth / 10], "cut.tif");
            assert!(cut.is_err_and(|e| e.kind() == Kind::Data && e.to_string().contains("cut.tif")), "{tenth}/10");
        }
    }
    // What a file is, its first bytes say.
    for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::WebP] {
        assert_eq!(decode_rgb(&encoded(&rgb, format), "called.jpg").unwrap(), rgb.to_rgb8(), "{format:?}");
    }
}

/// The file's few bytes claim gigabytes. The limits hold before anything is allocated: `data check` of such files is run in
/// little memory in `outside_files`.
#[test]
fn sizes_beyond_reason_are_refused() {
    for (width, height) in
        [(60_000, 60_000), (20_001, 1), (1, 20_001), (20_000, 20_000), (u32::MAX >> 1, 1), (0, 5), (5, 0)]
    {
        let png = png_that_claims(width, height);
        let e = decode_rgb(&png, "bomb.png").unwrap_err();
        assert!(e.kind() == Kind::Data && e.to_string().contains("bomb.png"), "{width}x{height}: {e}");
        if width.max(height) > 20_000 {
            assert!(e.what().contains("too large"), "{width}x{height}: {e}");
            assert!(picture_size(&png, "bomb.png").is_err_and(|e| e.kind() == Kind::Data), "{width}x{height}");
        }
    }
}

/// A JPEG with this EXIF orientation.
fn oriented(stored: &RgbImage, orientation: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 95);
    // TIFF header, one entry: Orientation (0x0112), SHORT, count 1, value.
    let mut exif = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\0\0\0\0\0\0\0".to_vec();
    exif[19] = orientation;
    encoder.set_exif_metadata(exif).unwrap();
    encoder.write_image(stored, stored.width(), stored.height(), image::ColorType::Rgb8.into()).unwrap();
    bytes
}

/// A bright lesion in the upper left of what a viewer shows, and the mask that was drawn on that.
#[test]
fn a_turned_picture_and_its_mask_lie_alike() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = "path,mask\n".to_owned();
    let inside = |x: u32, y: u32| x < 16 && y < 8;
    let shown = RgbImage::from_fn(32, 24, |x, y| Rgb([if inside(x, y) { 220 } else { 30 }; 3]));
    let mask = GrayImage::from_fn(32, 24, |x, y| Luma([if inside(x, y) { 255 } else { 0 }]));
    for orientation in 1..=8 {
        // As stored, such that the orientation makes it what is shown.
        use image::imageops::{flip_horizontal, flip_vertical, rotate90, rotate180, rotate270};
        let stored = match orientation {
            1 => shown.clone(),
            2 => flip_horizontal(&shown),
            3 => rotate180(&shown),
            4 => flip_vertical(&shown),
            5 => flip_horizontal(&rotate90(&shown)),
            6 => rotate270(&shown),
            7 => flip_horizontal(&rotate270(&shown)),
            _ => rotate90(&shown),
        };
        put(dir.path(), &format!("{orientation}.jpg"), oriented(&stored, orientation));
        put(dir.path(), &format!("{orientation}.png"), encoded(&mask.clone().into(), ImageFormat::Png));
        rows += &format!("{orientation}.jpg,{orientation}.png\n");
    }
    let table = dir.path().join("set.csv");
    std::fs::write(&table, rows).unwrap();
    let options = OpenOptions { masks: Masks::OfDataset, ..OpenOptions::default() };
    let mut dataset = Dataset::open(&table, &options).unwrap();
    let store = PixelStore::prepare(&mut dataset, 16, Cache::Off, &mut |_, _| Ok(())).unwrap();
    for i in 0..8 {
        let pixels = store.pixels(i).unwrap();
        let alike = pixels.chunks_exact(4).filter(|p| (p[0] > 125) == (p[3] > 125)).count();
        assert!(alike > 240, "orientation {}: picture and mask agree in {alike} of 256 pixels", i + 1);
    }
    let report = check(&dataset, &mut |_, _, _| Ok(())).unwrap();
    assert_eq!((report.turned, report.faulty()), (7, false));
    assert!(report.to_string().contains("drawn as a viewer shows them"), "{report}");

    // A mask that was drawn on the picture as it is stored does not fit.
    let sideways = image::imageops::rotate270(&mask);
    put(dir.path(), "6.png", encoded(&sideways.into(), ImageFormat::Png));
    let mut dataset = Dataset::open(&table, &options).unwrap();
    let e = PixelStore::prepare(&mut dataset, 16, Cache::Off, &mut |_, _| Ok(())).unwrap_err();
    assert!(e.to_string().contains("6.png: the mask has 24x32 pixels, its picture 32x24: if EXIF"), "{e}");
    let said = check(&Dataset::list(&table, &options).unwrap(), &mut |_, _, _| Ok(())).unwrap();
    assert_eq!(said.faults.len(), 1);
}
