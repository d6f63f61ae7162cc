//! Many pictures in one, to be looked at: a grid of equally large cells with white between them.

use image::{Rgb, RgbImage, imageops};

use super::decode::{MAX_SIDE, resize_rgb, sides};
use super::letters;
use super::png::png_of;
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

    /// The same with the whole picture at its own aspect, in the middle of the cell.
    pub fn push_whole(&mut self, picture: RgbImage) {
        let own = ImageSize::from(&picture);
        let ImageSize { width, height } = self.cell;
        let fitted = match own.width * height > width * own.height {
            true => ImageSize { width, height: (own.height * width / own.width).max(1) },
            false => ImageSize { width: (own.width * height / own.height.max(1)).max(1), height },
        };
        let mut cell = self.blank();
        let at = |cell: usize, fitted: usize| ((cell - fitted) / 2) as i64;
        let (x, y) = (at(width, fitted.width), at(height, fitted.height));
        imageops::replace(&mut cell, &resize_rgb(picture, fitted), x, y);
        self.push(cell);
    }

    /// Writes lines into the next cell.
    pub fn push_text(&mut self, lines: &[String]) {
        let mut cell = self.blank();
        letters::write(&mut cell, 2, lines);
        self.push(cell);
    }

    /// An empty cell.
    fn blank(&self) -> RgbImage {
        let (width, height) = sides(self.cell);
        RgbImage::from_pixel(width, height, Rgb([255; 3]))
    }

    /// Whether nothing was put there.
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Cuts off the rows that nothing was put into.
    #[must_use]
    pub fn trimmed(mut self) -> Self {
        let rows = self.filled.div_ceil(self.columns);
        let height = (GAP + rows * (sides(self.cell).1 + GAP)).min(self.picture.height());
        self.picture = imageops::crop_imm(&self.picture, 0, 0, self.picture.width(), height).to_image();
        self
    }

    /// The sheet as a PNG file.
    ///
    /// # Errors
    /// [`Kind::Internal`] if it cannot be encoded.
    pub fn png(&self) -> Result<Vec<u8>> {
        png_of(&self.picture)
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

    #[test]
    fn whole_pictures_keep_their_aspect_and_empty_rows_are_cut_off() {
        let mut sheet = Sheet::new(ImageSize { width: 20, height: 16 }, 3, 4).unwrap();
        for (width, height) in [(40, 12), (12, 40), (10, 6)] {
            sheet.push_whole(RgbImage::from_pixel(width, height, Rgb([7; 3])));
        }
        sheet.push_text(&["-".to_owned()]);
        let picture = image::load_from_memory(&sheet.trimmed().png().unwrap()).unwrap().to_rgb8();
        assert_eq!(picture.dimensions(), (76, 44));
        // Inside of a cell 20x16: 20x6, then 4x16, then 20x12.
        let filled = |cell: u32| {
            let within = |x: u32| (4 + cell * 24..24 + cell * 24).contains(&x);
            picture.enumerate_pixels().filter(|(x, y, p)| within(*x) && *y < 20 && p[0] == 7).count()
        };
        assert_eq!([filled(0), filled(1), filled(2)], [20 * 6, 4 * 16, 20 * 12]);
        assert_eq!(picture.get_pixel(4, 4)[0], 255);
        assert!(picture.enumerate_pixels().any(|(_, y, p)| y >= 24 && p[0] == 0));
    }
}
