//! Many pictures in one, to be looked at: a grid of equally large cells with white between them.

use std::io::Cursor;

use image::{ImageFormat, Rgb, RgbImage, imageops};

use super::decode::{MAX_SIDE, resize_rgb, sides};
use super::size::ImageSize;
use crate::error::{Error, Kind, Result};

/// White pixels around each cell.
const GAP: u32 = 4;

/// A grid of pictures, filled row by row.
#[derive(Debug)]
pub struct Sheet {
    cell: ImageSize,
    columns: u32,
    picture: RgbImage,
    filled: u32,
}

impl Sheet {
    /// A white sheet for `columns` times `rows` pictures, each shown at the size of a `cell`.
    ///
    /// # Errors
    /// [`Kind::Usage`] if it would be larger than a picture may be.
    pub fn new(cell: ImageSize, columns: usize, rows: usize) -> Result<Self> {
        let (width, height) = sides(cell);
        let side = |cell: u32, count: usize| {
            let side = u32::try_from(count).ok()?.checked_mul(cell.checked_add(GAP)?)?.checked_add(GAP)?;
            (side <= MAX_SIDE).then_some(side)
        };
        match (side(width, columns), side(height, rows)) {
            (Some(width), Some(height)) => {
                let picture = RgbImage::from_pixel(width, height, Rgb([255; 3]));
                Ok(Self { cell, columns: columns as u32, picture, filled: 0 })
            }
            _ => Err(Error::new(
                Kind::Usage,
                format!("a sheet of {columns} times {rows} pictures of {cell} pixels would be too large to be shown"),
            )
            .next(format!("ask for fewer or smaller pictures: a sheet has at most {MAX_SIDE} pixels a side"))),
        }
    }

    /// Puts a picture into the next cell; there is no cell behind the last.
    pub fn push(&mut self, picture: RgbImage) {
        let (width, height) = sides(self.cell);
        let (column, row) = (self.filled % self.columns, self.filled / self.columns);
        let at = |place: u32, cell: u32| i64::from(GAP + place * (cell + GAP));
        imageops::replace(&mut self.picture, &resize_rgb(picture, self.cell), at(column, width), at(row, height));
        self.filled += 1;
    }

    /// The sheet as a PNG file.
    ///
    /// # Errors
    /// [`Kind::Internal`] if it cannot be encoded.
    pub fn png(&self) -> Result<Vec<u8>> {
        let mut png = Cursor::new(vec![]);
        let failed = |e| Error::new(Kind::Internal, format!("a sheet could not be encoded: {e}"));
        self.picture.write_to(&mut png, ImageFormat::Png).map_err(failed)?;
        Ok(png.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_lie_row_by_row() {
        let mut sheet = Sheet::new(ImageSize { width: 10, height: 6 }, 2, 2).unwrap();
        (1..=3).for_each(|level| sheet.push(RgbImage::from_pixel(20, 20, Rgb([level; 3]))));
        let picture = image::load_from_memory(&sheet.png().unwrap()).unwrap().to_rgb8();
        assert_eq!(picture.dimensions(), (32, 24));
        let levels = [(4, 4), (27, 9), (4, 14), (18, 14), (3, 4), (15, 4)].map(|(x, y)| picture.get_pixel(x, y)[0]);
        assert_eq!(levels, [1, 2, 3, 255, 255, 255]);
        for (columns, rows) in [(2000, 1), (1, 2000), (usize::MAX, 1)] {
            assert_eq!(Sheet::new(64.into(), columns, rows).unwrap_err().kind(), Kind::Usage);
        }
    }
}
