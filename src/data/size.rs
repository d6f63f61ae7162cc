//! The size of pictures in pixels.

use std::fmt;
use std::str::FromStr;

use image::{ImageBuffer, Pixel};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Kind, Result};

/// The largest side of pictures, in pixels.
const MAX_SIDE: usize = 4096;

/// Width and height of pictures in pixels. Written `WxH`, or `N` for a square; in files a square is the number N.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ImageSize {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl ImageSize {
    /// What [`Self::is_valid`] asks for, in words.
    pub const RANGE: &'static str = "between 1 and 4096, as N or WIDTHxHEIGHT";

    /// Pixels of a picture.
    pub fn area(self) -> usize {
        self.width * self.height
    }

    /// Rows and columns, in the order of shapes.
    pub fn rows_columns(self) -> [usize; 2] {
        [self.height, self.width]
    }

    /// Whether pictures of this size are made: sides from 1 to 4096.
    pub fn is_valid(self) -> bool {
        let side = 1..=MAX_SIDE;
        side.contains(&self.width) && side.contains(&self.height)
    }
}

impl From<usize> for ImageSize {
    /// A square.
    fn from(side: usize) -> Self {
        Self { width: side, height: side }
    }
}

impl<P: Pixel> From<&ImageBuffer<P, Vec<P::Subpixel>>> for ImageSize {
    /// That of a picture.
    fn from(picture: &ImageBuffer<P, Vec<P::Subpixel>>) -> Self {
        Self { width: picture.width() as usize, height: picture.height() as usize }
    }
}

impl fmt::Display for ImageSize {
    /// `WxH`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

impl FromStr for ImageSize {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let side = |text: &str| text.parse::<usize>().ok();
        let size = match text.split_once(['x', 'X']) {
            Some((width, height)) => side(width).zip(side(height)).map(|(width, height)| Self { width, height }),
            None => side(text).map(Self::from),
        };
        size.ok_or_else(|| {
            Error::new(Kind::Usage, format!("'{text}' is no size of pictures"))
                .next("write 128 for a square, or WIDTHxHEIGHT such as 128x96")
        })
    }
}

impl Serialize for ImageSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self.width == self.height {
            true => serializer.serialize_u64(self.width as u64),
            false => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for ImageSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOrText)
    }
}

struct NumberOrText;

impl Visitor<'_> for NumberOrText {
    type Value = ImageSize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a side in pixels, or a text such as \"128x96\"")
    }

    fn visit_u64<E: de::Error>(self, side: u64) -> std::result::Result<ImageSize, E> {
        usize::try_from(side).map(ImageSize::from).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, side: i64) -> std::result::Result<ImageSize, E> {
        usize::try_from(side).map(ImageSize::from).map_err(E::custom)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<ImageSize, E> {
        text.parse().map_err(|e: Error| E::custom(e.what()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_squares_and_rectangles() {
        let wide = ImageSize { width: 128, height: 96 };
        assert_eq!("128x96".parse::<ImageSize>().unwrap(), wide);
        assert_eq!("64".parse::<ImageSize>().unwrap(), ImageSize::from(64));
        assert_eq!((wide.to_string().as_str(), wide.area(), wide.rows_columns()), ("128x96", 12_288, [96, 128]));
        for bad in ["", "x", "12x", "x12", "1x2x3", "-1", "12.5"] {
            assert_eq!(bad.parse::<ImageSize>().unwrap_err().kind(), Kind::Usage, "{bad}");
        }
        assert!(wide.is_valid() && !ImageSize::from(0).is_valid());
        assert!(!ImageSize { width: 8, height: 5000 }.is_valid());
    }

    #[test]
    fn a_square_is_a_number_in_files() {
        for (size, text) in [(ImageSize::from(64), "64"), (ImageSize { width: 128, height: 96 }, "\"128x96\"")] {
            assert_eq!(serde_json::to_string(&size).unwrap(), text);
            assert_eq!(serde_json::from_str::<ImageSize>(text).unwrap(), size);
        }
        assert!(
            serde_json::from_str::<ImageSize>("\"wide\"").is_err() && serde_json::from_str::<ImageSize>("-3").is_err()
        );
    }
}
