//! Attributes (IV.A.2.m) that are one text: of fixed length, or in a global heap (III.E).

use super::bytes::Bytes;
use super::header::kind;
use super::{Hdf5, MAX_TEXT, Object, damaged};
use crate::error::Result;

/// Classes of datatypes.
const STRING: u8 = 3;
const VARIABLE: u8 = 9;

impl<'a> Hdf5<'a> {
    /// The text of an attribute; `None` if there is none of that name, or it is no text.
    ///
    /// # Errors
    /// [`Kind::Weights`](crate::error::Kind::Weights) if it is damaged.
    pub fn text(&self, object: &Object<'a>, name: &str) -> Result<Option<&'a str>> {
        for message in object.messages(kind::ATTRIBUTE) {
            let mut r = message?;
            self.step()?;
            let version = r.u8()?;
            // Whether its type is stored elsewhere: then it is none that is of interest.
            let shared = r.u8()? & 1 != 0 && version > 1;
            let [name_length, type_length, space_length] = [r.u16()?, r.u16()?, r.u16()?].map(usize::from);
            r.skip(if version == 3 { 1 } else { 0 })?;
            // Version 1 pads each part to eight bytes.
            let padded = |length: usize| if version == 1 { length.next_multiple_of(8) } else { length };
            let own = r.take(padded(name_length))?;
            let mut datatype = Bytes::new(r.take(padded(type_length))?);
            r.skip(padded(space_length))?;
            if until_zero(own.get(..name_length).unwrap_or(own)) != name.as_bytes() || shared {
                continue;
            }
            let class = datatype.u8()? & 15;
            let variable_text = datatype.u8()? & 15 == 1;
            datatype.skip(2)?;
            let length = datatype.u32()? as usize;
            let bytes = match class {
                STRING => r.take(length)?,
                VARIABLE if variable_text => {
                    let length = r.u32()? as usize;
                    let object = self.heap_object(r.u64()?, r.u32()?)?;
                    object.get(..length).ok_or_else(|| damaged("a text is shorter than it states"))?
                }
                _ => return Ok(None),
            };
            let bytes = bytes.get(..MAX_TEXT).unwrap_or(bytes);
            return std::str::from_utf8(until_zero(bytes)).map(Some).map_err(|_| damaged("a text is not UTF-8"));
        }
        Ok(None)
    }

    /// An object of a global heap collection.
    fn heap_object(&self, address: u64, index: u32) -> Result<&'a [u8]> {
        let mut r = self.at(address)?;
        r.signature(b"GCOL")?;
        r.skip(4)?;
        let length = r.length()?;
        let mut r = Bytes::new(r.take(length.saturating_sub(16))?);
        loop {
            self.step()?;
            let own = r.u16()?;
            r.skip(6)?;
            let length = r.length()?;
            if own == 0 {
                return Err(damaged("a text is not where it should be"));
            }
            let object = r.take(length)?;
            if u32::from(own) == index {
                return Ok(object);
            }
            r.skip(length.next_multiple_of(8) - length)?;
        }
    }
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    &bytes[..end]
}
