//! Image bytes to 8-bit RGB, and the one resize of this program.
//!
//! Training, evaluation and prediction all go through [`decode_rgb`] and a [`Preparation`], so a picture has the same pixels
//! wherever it is used. Gray, palette, 16-bit and alpha pictures become 8-bit RGB (alpha is dropped, not
//! blended); an EXIF orientation is applied, so the model sees what a viewer shows.

use std::cell::Cell;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use image::metadata::Orientation;
use image::{
    DynamicImage, ExtendedColorType, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage, imageops,
};

use super::preprocess::Preparation;
use super::size::ImageSize;
use crate::error::{Error, Kind, Result};

/// The longest side an image may have, in pixels.
pub(super) const MAX_SIDE: u32 = 20_000;
/// The most bytes a decoder may allocate, and the longest image file that is read: a small file must not be able to
/// claim all memory.
pub(super) const MAX_BYTES: u64 = 1 << 30;
/// File name endings that are taken for images.
const EXTENSIONS: [&str; 7] = ["jpg", "jpeg", "png", "bmp", "tif", "tiff", "webp"];

/// Whether `name` (a file name or path) ends like an image and is no hidden file (macOS writes `._name.jpg` twins).
pub fn is_image_name(name: &str) -> bool {
    let file = name.rsplit(['/', '\\']).next().unwrap_or(name);
    let extension = file.rsplit_once('.').map(|(_, e)| e.to_ascii_lowercase());
    !file.starts_with('.') && extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str()))
}

/// Decodes `bytes` to RGB at the picture's own size. `name` is named in errors.
///
/// # Errors
/// [`Kind::Data`] if the bytes are empty, of no known format, truncated, corrupt, or larger than 20,000 pixels a side
/// or 1 GiB decoded.
pub fn decode_rgb(bytes: &[u8], name: &str) -> Result<RgbImage> {
    decode(bytes).map_err(|what| Error::new(Kind::Data, what).at(name).next("replace the file by an intact copy"))
}

/// The size that `bytes` say a picture has, before any EXIF orientation. Nothing is decoded but what stands before the pixels.
///
/// # Errors
/// As [`decode_rgb`].
pub fn picture_size(bytes: &[u8], name: &str) -> Result<ImageSize> {
    let size =
        open(bytes).and_then(|reader| sheltered("the image", || reader.into_dimensions().map_err(|e| in_words(&e))));
    let (width, height) =
        size.map_err(|what| Error::new(Kind::Data, what).at(name).next("replace the file by an intact copy"))?;
    Ok(ImageSize { width: width as usize, height: height as usize })
}

/// Decodes `bytes` and makes of them what the pixel store does. `name` is named in errors.
///
/// # Errors
/// As [`decode_rgb`].
pub fn decode_image_bytes(bytes: &[u8], name: &str, recipe: impl Into<Preparation>) -> Result<RgbImage> {
    Ok(recipe.into().make(decode_rgb(bytes, name)?))
}

/// Reads and decodes an image file and makes of it what the pixel store does.
///
/// # Errors
/// [`Kind::Io`] if the file cannot be read; otherwise as [`decode_rgb`].
pub fn decode_image_file(path: &Path, recipe: impl Into<Preparation>) -> Result<RgbImage> {
    decode_image_bytes(&read_limited(path)?, &path.display().to_string(), recipe)
}

/// Reads and decodes an image file to RGB at the picture's own size.
///
/// # Errors
/// As [`decode_image_file`].
pub fn decode_rgb_file(path: &Path) -> Result<RgbImage> {
    decode_rgb(&read_limited(path)?, &path.display().to_string())
}

/// The whole picture at `size`: triangle filter with antialiasing; the aspect ratio is not kept.
pub fn resize_rgb(picture: RgbImage, size: impl Into<ImageSize>) -> RgbImage {
    let (width, height) = sides(size.into());
    if picture.dimensions() == (width, height) {
        return picture;
    }
    imageops::resize(&picture, width, height, imageops::FilterType::Triangle)
}

/// A size as the image library takes it.
pub(super) fn sides(size: ImageSize) -> (u32, u32) {
    let side = |pixels: usize| u32::try_from(pixels).unwrap_or(u32::MAX);
    (side(size.width), side(size.height))
}

/// The image files directly inside `folder`, sorted by name; other files and hidden files are ignored.
///
/// # Errors
/// [`Kind::Io`] if the folder cannot be read, [`Kind::Data`] if it holds no image.
pub fn list_images(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut images = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io("read", folder, &e))? {
        let path = entry.map_err(|e| Error::io("read", folder, &e))?.path();
        if path.file_name().is_some_and(|n| is_image_name(&n.to_string_lossy())) && path.is_file() {
            images.push(path);
        }
    }
    if images.is_empty() {
        return Err(Error::new(Kind::Data, "the folder holds no images")
            .at(folder.display())
            .next(format!("give a folder with files ending in {}", EXTENSIONS.join(", "))));
    }
    images.sort();
    Ok(images)
}

/// The bytes of a file of at most 1 GiB.
pub(super) fn read_limited(path: &Path) -> Result<Vec<u8>> {
    let file = std::fs::File::open(path).map_err(|e| Error::io("open", path, &e))?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| Error::io("read", path, &e))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::new(Kind::Data, "the file is larger than 1 GiB, which no image here should be")
            .at(path.display())
            .next("give an image of at most 20,000 pixels a side"));
    }
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<RgbImage, String> {
    decode_upright(bytes).map(DynamicImage::into_rgb8)
}

/// A decoded picture, and how it was stored.
pub(super) struct Decoded {
    /// In its own colour type, turned as a viewer shows it.
    pub picture: DynamicImage,
    /// How it stores colours, in words: `RGB`, `gray`, `CMYK`, `palette`, `16-bit RGB`, ...
    pub mode: String,
    /// Whether its EXIF data say that it is to be turned or mirrored.
    pub turned: bool,
}

/// Decodes `bytes` in their own colour type, turned as a viewer shows them; else says what is wrong.
pub(super) fn decode_upright(bytes: &[u8]) -> Result<DynamicImage, String> {
    decode_described(bytes).map(|decoded| decoded.picture)
}

/// Decodes `bytes` and says how they were stored; else says what is wrong.
pub(super) fn decode_described(bytes: &[u8]) -> Result<Decoded, String> {
    let reader = open(bytes)?;
    let jpeg = match reader.format() {
        Some(ImageFormat::Jpeg) => Some(Jpeg::read(bytes)),
        _ => None,
    };
    // The JPEG decoder paints what is missing gray instead of failing, so completeness is checked here.
    if jpeg.is_some_and(|jpeg| !jpeg.complete) {
        return Err("the JPEG is truncated (no end-of-image marker)".to_owned());
    }
    if reader.format() == Some(ImageFormat::Png) && !palette_is_whole(bytes) {
        return Err("the image is damaged: its palette is no list of at most 256 colours".to_owned());
    }
    sheltered("the image", || decoded(reader, jpeg))
}

thread_local! {
    static SHELTERED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread runs a decoder whose panic is caught and becomes an error: a panic hook need not tell of it.
pub fn is_sheltered() -> bool {
    SHELTERED.get()
}

/// What a decoder makes of `what`. Decoders get files from strangers: where one panics, the file is what is damaged.
pub(super) fn sheltered<T>(what: &str, decode: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    SHELTERED.set(true);
    // Nothing is left half done: all that a decoder changes is its own.
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(decode));
    SHELTERED.set(false);
    caught.unwrap_or_else(|_| Err(format!("{what} is damaged: its decoder gave up")))
}

/// Whether the palette of a PNG, if it has one, is what its decoder takes for granted (png 0.18): whole colours, at most 256.
fn palette_is_whole(png: &[u8]) -> bool {
    let mut rest = png.get(8..).unwrap_or_default();
    while let Some((head, behind)) = rest.split_first_chunk::<8>() {
        let [a, b, c, d, kind @ ..] = *head;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        match &kind {
            b"PLTE" if !length.is_multiple_of(3) || length > 768 => return false,
            b"IDAT" => return true,
            _ => {}
        }
        // Behind each chunk stands a checksum of four bytes.
        rest = behind.get(length.saturating_add(4)..).unwrap_or_default();
    }
    true
}

fn decoded(reader: ImageReader<Cursor<&[u8]>>, jpeg: Option<Jpeg>) -> Result<Decoded, String> {
    let mut decoder = reader.into_decoder().map_err(|e| in_words(&e))?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(format!("the image has no pixels ({width}x{height})"));
    }
    if decoder.total_bytes() > MAX_BYTES {
        return Err(format!("the image is too large: {width}x{height} takes more than 1 GiB decoded"));
    }
    // An unreadable orientation is no reason to refuse intact pixels.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mode = match jpeg {
        Some(jpeg) => jpeg.mode().to_owned(),
        None => mode(decoder.original_color_type()),
    };
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|e| in_words(&e))?;
    picture.apply_orientation(orientation);
    Ok(Decoded { picture, mode, turned: orientation != Orientation::NoTransforms })
}

/// A reader of an image of a known format, within the limits.
fn open(bytes: &[u8]) -> Result<ImageReader<Cursor<&[u8]>>, String> {
    if bytes.is_empty() {
        return Err("the image is empty (0 bytes)".to_owned());
    }
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|e| format!("the image cannot be read: {e}"))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_BYTES);
    reader.limits(limits);
    match reader.format() {
        None => Err("the file is no image of a known format (JPEG, PNG, BMP, TIFF, WebP)".to_owned()),
        Some(_) => Ok(reader),
    }
}

/// A colour type in words.
fn mode(colors: ExtendedColorType) -> String {
    match colors {
        ExtendedColorType::Rgb8 | ExtendedColorType::Bgr8 => "RGB".to_owned(),
        ExtendedColorType::Rgba8 | ExtendedColorType::Bgra8 => "RGB with alpha".to_owned(),
        ExtendedColorType::L1 => "black and white".to_owned(),
        ExtendedColorType::L2 | ExtendedColorType::L4 | ExtendedColorType::L8 => "gray".to_owned(),
        ExtendedColorType::La8 => "gray with alpha".to_owned(),
        ExtendedColorType::L16 | ExtendedColorType::La16 => "16-bit gray".to_owned(),
        ExtendedColorType::Rgb16 | ExtendedColorType::Rgba16 => "16-bit RGB".to_owned(),
        ExtendedColorType::Cmyk8 | ExtendedColorType::Cmyk16 => "CMYK".to_owned(),
        other => match format!("{other:?}") {
            name if name.starts_with("Indexed") => "palette".to_owned(),
            name => name,
        },
    }
}

fn in_words(error: &ImageError) -> String {
    match error {
        ImageError::Limits(e) => format!("the image is too large (at most {MAX_SIDE} pixels a side): {e}"),
        ImageError::Unsupported(e) => format!("the image uses a feature this program does not read: {e}"),
        other => format!("the image is corrupt or truncated: {other}"),
    }
}

/// What the marker segments of a JPEG (ITU-T T.81, annex B) tell.
#[derive(Debug, Clone, Copy, Default)]
struct Jpeg {
    /// Whether its end-of-image marker is there.
    complete: bool,
    /// Colour components, as its frame header says.
    components: u8,
}

impl Jpeg {
    /// Walks the segments to the end-of-image marker.
    fn read(bytes: &[u8]) -> Self {
        let mut jpeg = Self::default();
        let mut at = 2; // behind the start-of-image marker, which the format was guessed from
        loop {
            // Entropy-coded data and padding hold no marker: 0xFF there is followed by 0x00 or a restart marker.
            let Some(skip) = bytes.get(at..).and_then(|rest| rest.iter().position(|&b| b == 0xFF)) else { return jpeg };
            at += skip + 1;
            let Some(&marker) = bytes.get(at) else { return jpeg };
            match marker {
                0xD9 => return Self { complete: true, ..jpeg },
                // 0xFF may be repeated as fill; stuffed zeros, restarts, TEM and SOI stand alone.
                0xFF => {}
                0x00 | 0x01 | 0xD0..=0xD8 => at += 1,
                _ => {
                    let Some(&[high, low]) = bytes.get(at + 1..at + 3) else { return jpeg };
                    // Frame headers: length, precision, height, width, then the number of components.
                    if matches!(marker, 0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF) {
                        jpeg.components = bytes.get(at + 8).copied().unwrap_or(0);
                    }
                    at += 1 + usize::from(u16::from_be_bytes([high, low]));
                }
            }
        }
    }

    fn mode(self) -> &'static str {
        match self.components {
            1 => "gray",
            4 => "CMYK",
            _ => "RGB",
        }
    }
}

#[cfg(test)]
mod tests {
    use image::{ColorType, ImageEncoder, Rgb};

    use super::*;

    fn encode(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Vec::new();
        picture.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
        bytes
    }

    fn gradient(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| Rgb([(x * 3 % 256) as u8, (y * 5 % 256) as u8, 128]))
    }

    #[test]
    fn every_colour_type_becomes_rgb() {
        let rgb = DynamicImage::ImageRgb8(gradient(20, 10));
        let kinds =
            [rgb.to_rgba8().into(), rgb.to_rgb16().into(), rgb.to_luma8().into(), rgb.to_luma16().into(), rgb.clone()];
        for picture in kinds {
            let picture: DynamicImage = picture;
            let decoded = decode_rgb(&encode(&picture, ImageFormat::Png), "x.png").unwrap();
            assert_eq!(decoded, picture.to_rgb8(), "{:?}", picture.color());
        }
    }

    /// A PNG of 2x1 pixels with this palette, of which they are the first two colours.
    fn of_palette(palette: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let png: &[(&[u8; 4], &[u8])] = &[
            (b"IHDR", &[0, 0, 0, 2, 0, 0, 0, 1, 8, 3, 0, 0, 0]),
            (b"PLTE", palette),
            (b"tRNS", &[7]),
            // zlib: stored block of the filter byte and two indices
            (b"IDAT", &[0x78, 0x01, 0x01, 3, 0, 0xFC, 0xFF, 0, 0, 1, 0, 5, 0, 2]),
            (b"IEND", &[]),
        ];
        bytes.extend_from_slice(b"\x89PNG\r\n\x1a\n");
        for (kind, body) in png {
            bytes.extend_from_slice(&(body.len() as u32).to_be_bytes());
            bytes.extend_from_slice(*kind);
            bytes.extend_from_slice(body);
            bytes.extend_from_slice(&crc32(&[&kind[..], body].concat()).to_be_bytes());
        }
        bytes
    }

    #[test]
    fn palette_png_becomes_rgb() {
        let decoded = decode_rgb(&of_palette(&[255, 0, 0, 0, 0, 255]), "palette.png").unwrap();
        assert_eq!(decoded.into_raw(), [255, 0, 0, 0, 0, 255]);
        assert!(decode_rgb(&of_palette(&[9; 768]), "x").is_ok());
        for length in [1, 2, 4, 5, 767, 769, 771, 3000] {
            let error = decode_rgb(&of_palette(&vec![9; length]), "x").unwrap_err();
            assert!(error.kind() == Kind::Data && error.what().contains("palette"), "{length}: {error}");
        }
    }

    #[test]
    fn a_decoder_that_panics_is_an_error() {
        assert_eq!(sheltered("x", || Ok(1)), Ok(1));
        let broken = sheltered::<()>("x", || panic!("as decoders of strange files do"));
        assert!(broken.is_err_and(|what| what.contains("damaged")));
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0_u32, |crc, &b| {
            (0..8).fold(crc ^ u32::from(b), |c, _| (c >> 1) ^ (0xEDB8_8320 & 0_u32.wrapping_sub(c & 1)))
        })
    }

    #[test]
    fn truncation_is_an_error_at_every_tenth_of_the_file() {
        let picture = DynamicImage::ImageRgb8(gradient(60, 40));
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Bmp] {
            let bytes = encode(&picture, format);
            assert!(decode_rgb(&bytes, "x").is_ok(), "{format:?}");
            for tenth in 0..10 {
                let cut = &bytes[..bytes.len() * tenth / 10];
                let error = decode_rgb(cut, "cut.img").expect_err(&format!("{format:?} cut to {tenth}/10"));
                assert!(error.kind() == Kind::Data && error.to_string().contains("cut.img"), "{error}");
            }
        }
    }

    #[test]
    fn a_decompression_bomb_is_refused_without_decoding_it() {
        // A BMP header that claims 30,000 x 30,000 pixels.
        let mut bytes = encode(&DynamicImage::ImageRgb8(gradient(4, 4)), ImageFormat::Bmp);
        bytes[18..22].copy_from_slice(&30_000_u32.to_le_bytes());
        bytes[22..26].copy_from_slice(&30_000_u32.to_le_bytes());
        let error = decode_rgb(&bytes, "bomb.bmp").unwrap_err();
        assert!(error.what().contains("too large"), "{error}");
        // And one within the side limit but above the memory limit: 19,000^2 x 3 bytes.
        bytes[18..22].copy_from_slice(&19_000_u32.to_le_bytes());
        bytes[22..26].copy_from_slice(&19_000_u32.to_le_bytes());
        let error = decode_rgb(&bytes, "bomb.bmp").unwrap_err();
        assert!(error.what().contains("too large"), "{error}");
    }

    #[test]
    fn the_size_is_told_without_the_pixels() {
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP] {
            let bytes = encode(&DynamicImage::ImageRgb8(gradient(60, 40)), format);
            let cut = &bytes[..bytes.len() * 9 / 10];
            assert_eq!(picture_size(cut, "x"), Ok(ImageSize { width: 60, height: 40 }), "{format:?}");
            assert!(decode_rgb(cut, "x").is_err(), "{format:?}");
        }
        for bytes in [&b""[..], b"no picture", b"\x89PNG\r\n\x1a\n"] {
            assert_eq!(picture_size(bytes, "x").unwrap_err().kind(), Kind::Data);
        }
    }

    #[test]
    fn exif_orientation_is_applied() {
        // Four quarters; the one that is shown on the upper left, by orientation.
        let quarters = RgbImage::from_fn(16, 8, |x, y| Rgb([(x / 8 * 100 + y / 4 * 50) as u8 + 50; 3]));
        for (orientation, level) in [(1, 50), (2, 150), (3, 200), (4, 100), (5, 50), (6, 100), (7, 200), (8, 150)] {
            let mut bytes = Vec::new();
            let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 100);
            // TIFF header, one entry: Orientation (0x0112), SHORT, count 1, value.
            let mut exif = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0".to_vec();
            exif[19] = orientation;
            encoder.set_exif_metadata(exif).unwrap();
            encoder.write_image(quarters.as_raw(), 16, 8, ColorType::Rgb8.into()).unwrap();
            let shown = decode_rgb(&bytes, "x.jpg").unwrap();
            assert_eq!(shown.dimensions(), if orientation < 5 { (16, 8) } else { (8, 16) }, "{orientation}");
            assert!(shown.get_pixel(1, 1)[0].abs_diff(level) < 8, "{orientation} {:?}", shown.get_pixel(1, 1));
        }
    }

    #[test]
    fn resizing_is_antialiased_and_keeps_a_constant() {
        let checker = RgbImage::from_fn(64, 64, |x, y| Rgb([if (x + y) % 2 == 0 { 255 } else { 0 }; 3]));
        let small = resize_rgb(checker, 8);
        assert!(small.pixels().all(|p| (120..=135).contains(&p[0])), "aliased");
        let flat = resize_rgb(RgbImage::from_pixel(37, 11, Rgb([10, 20, 30])), 16);
        assert!(flat.dimensions() == (16, 16) && flat.pixels().all(|p| p.0 == [10, 20, 30]));
    }
}
