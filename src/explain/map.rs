//! Maps: at the resolution of a layer, on pictures, and in files.

use crate::data::preprocess::Area;
use crate::data::{ImageSize, resize_probabilities};
use crate::error::{Error, Kind, Result};

/// What speaks for an answer, at the resolution of the layer that was looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct CamMap {
    /// Columns and rows.
    pub size: ImageSize,
    /// The values, row by row; none is negative. Their scale is the model's own.
    pub values: Vec<f32>,
}

impl CamMap {
    /// The largest value. Zero says that nothing in this layer speaks for the answer.
    pub fn peak(&self) -> f32 {
        self.values.iter().copied().fold(0.0, f32::max)
    }

    /// The values, with one as the largest; all zero where the [peak](Self::peak) is zero.
    pub fn normalised(&self) -> Vec<f32> {
        let peak = self.peak();
        self.values.iter().map(|v| if peak > 0.0 { v / peak } else { 0.0 }).collect()
    }

    pub(super) fn is_finite(&self) -> bool {
        self.values.iter().all(|v| v.is_finite())
    }

    /// The normalised map on a picture, row by row, where the model saw an `area` of it: bilinearly interpolated to that
    /// area's size. What was cut off is zero.
    ///
    /// # Errors
    /// [`Kind::Internal`] if the area does not lie in the picture.
    pub fn on(&self, picture: ImageSize, area: Area) -> Result<Vec<f32>> {
        let inside = area.x + area.size.width <= picture.width && area.y + area.size.height <= picture.height;
        if !inside || area.size.area() == 0 {
            let what =
                format!("an area of {} at {},{} does not lie in a picture of {picture}", area.size, area.x, area.y);
            return Err(Error::new(Kind::Internal, what));
        }
        let seen = resize_probabilities(&self.normalised(), self.size, area.size)?;
        let mut whole = vec![0.0; picture.area()];
        let rows = whole.chunks_exact_mut(picture.width).skip(area.y).zip(seen.chunks_exact(area.size.width));
        rows.for_each(|(row, seen)| row[area.x..][..seen.len()].copy_from_slice(seen));
        Ok(whole)
    }

    /// The values as a file of NumPy: `float32`, of shape (rows, columns), in C order, version 1.0 of the format.
    pub fn npy(&self) -> Vec<u8> {
        let (rows, columns) = (self.size.height, self.size.width);
        let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
        // Magic, version and length are 10 bytes; the header ends with a line feed, at a multiple of 64.
        let length = (10 + header.len() + 1).next_multiple_of(64) - 10;
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend((length as u16).to_le_bytes());
        file.extend(format!("{header:<0$}\n", length - 1).into_bytes());
        file.extend(self.values.iter().flat_map(|v| v.to_le_bytes()));
        file
    }
}

/// The share of a map's sum that lies inside a mask of the same pixels; none of a map that is zero everywhere.
pub fn share_inside(map: &[f32], mask: impl IntoIterator<Item = bool>) -> Option<f64> {
    let whole: f64 = map.iter().map(|&v| f64::from(v)).sum();
    let inside = map.iter().zip(mask).filter(|(_, inside)| *inside).map(|(&v, _)| f64::from(v));
    (whole > 0.0).then(|| inside.sum::<f64>() / whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(width: usize, height: usize) -> ImageSize {
        ImageSize { width, height }
    }

    #[test]
    fn a_map_lies_where_the_picture_was_seen() {
        let map = CamMap { size: size(2, 1), values: vec![1.0, 4.0] };
        assert_eq!((map.peak(), map.normalised()), (4.0, vec![0.25, 1.0]));
        let on = map.on(size(6, 4), Area { x: 1, y: 2, size: size(4, 2) }).unwrap();
        // Between the centres of two pixels that became four.
        let row = [0.0, 0.25, 0.25 + 0.75 / 4.0, 1.0 - 0.75 / 4.0, 1.0, 0.0];
        for (i, (a, b)) in on.iter().zip([[0.0; 6], [0.0; 6], row, row].concat()).enumerate() {
            assert!((a - b).abs() < 1e-6, "{i}: {a} {b}");
        }
        assert!(map.on(size(4, 4), Area { x: 1, y: 0, size: size(4, 4) }).is_err());
    }

    #[test]
    fn nothing_stays_nothing() {
        let map = CamMap { size: size(2, 2), values: vec![0.0; 4] };
        assert_eq!(map.on(size(3, 3), Area::whole(size(3, 3))).unwrap(), [0.0; 9]);
        assert_eq!(share_inside(&map.values, [true; 4]), None);
    }

    #[test]
    fn shares_of_the_sum() {
        let map = [0.5, 0.0, 1.0, 0.5];
        assert_eq!(share_inside(&map, [true, true, true, false]), Some(0.75));
        assert_eq!(share_inside(&map, [false; 4]), Some(0.0));
    }

    /// The bytes that `numpy.save` writes.
    #[test]
    fn a_file_of_numpy() {
        let file = CamMap { size: size(3, 2), values: vec![0.0, 1.0, 2.0, 3.0, 4.0, 0.5] }.npy();
        assert_eq!(file.len(), 128 + 24);
        assert_eq!(&file[..10], b"\x93NUMPY\x01\x00\x76\x00");
        let header = std::str::from_utf8(&file[10..128]).unwrap();
        assert!(header.starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }  "), "{header}");
        assert!(header.ends_with(" \n"));
        assert_eq!(file[128 + 20..], 0.5f32.to_le_bytes());
    }
}
