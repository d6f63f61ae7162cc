//! Pictures and masks as PNG files.

use std::io::Cursor;

use image::{EncodableLayout, GrayImage, ImageBuffer, ImageFormat, Pixel, PixelWithColorType};

use super::size::ImageSize;
use crate::error::{Error, Kind, Result};

/// The bytes of a picture's PNG file.
///
/// # Errors
/// [`Kind::Internal`] if it cannot be encoded.
pub fn png_of<P>(picture: &ImageBuffer<P, Vec<P::Subpixel>>) -> Result<Vec<u8>>
where
    P: Pixel + PixelWithColorType,
    [P::Subpixel]: EncodableLayout,
{
    let mut png = Cursor::new(vec![]);
    let failed = |e| Error::new(Kind::Internal, format!("a picture could not be encoded: {e}"));
    picture.write_to(&mut png, ImageFormat::Png).map_err(failed)?;
    Ok(png.into_inner())
}

/// A mask, row by row, as a picture: 255 inside and 0 outside.
///
/// # Errors
/// [`Kind::Internal`] if it has not as many pixels as `size`.
pub fn mask_picture(inside: &[bool], size: ImageSize) -> Result<GrayImage> {
    let pixels: Vec<u8> = inside.iter().map(|&inside| if inside { 255 } else { 0 }).collect();
    let wrong = || Error::new(Kind::Internal, format!("a mask of {} pixels for a picture of {size}", inside.len()));
    let picture = GrayImage::from_raw(size.width as u32, size.height as u32, pixels);
    picture.filter(|_| inside.len() == size.area()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_is_a_file_of_its_size() {
        let size = ImageSize { width: 3, height: 2 };
        let mask = mask_picture(&[true, false, false, false, false, true], size).unwrap();
        let read = image::load_from_memory(&png_of(&mask).unwrap()).unwrap().into_luma8();
        assert_eq!((read.dimensions(), read.as_raw().as_slice()), ((3, 2), [255, 0, 0, 0, 0, 255].as_slice()));
        assert!(mask_picture(&[true; 5], size).is_err() && mask_picture(&[true; 7], size).is_err());
    }
}
