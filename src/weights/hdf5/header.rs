//! Object headers (IV.A.1): lists of messages, in version 1 or 2, perhaps in several blocks.

use super::bytes::Bytes;
use super::{Hdf5, damaged, unsupported};
use crate::error::Result;

/// Types of messages (IV.A.2).
pub(super) mod kind {
    pub const DATASPACE: u16 = 0x01;
    pub const LINK_INFO: u16 = 0x02;
    pub const DATATYPE: u16 = 0x03;
    pub const LINK: u16 = 0x06;
    pub const LAYOUT: u16 = 0x08;
    pub const FILTERS: u16 = 0x0b;
    pub const ATTRIBUTE: u16 = 0x0c;
    pub const CONTINUATION: u16 = 0x10;
    pub const SYMBOL_TABLE: u16 = 0x11;
}

/// A message of an object header.
#[derive(Debug, Clone, Copy)]
struct Message<'a> {
    kind: u16,
    flags: u8,
    body: &'a [u8],
}

/// An object: a group or a dataset.
#[derive(Debug)]
pub(in crate::weights) struct Object<'a> {
    messages: Vec<Message<'a>>,
}

impl<'a> Object<'a> {
    /// The first message of a kind.
    pub(super) fn message(&self, kind: u16) -> Result<Option<Bytes<'a>>> {
        self.messages(kind).next().transpose()
    }

    /// All messages of a kind.
    pub(super) fn messages(&self, kind: u16) -> impl Iterator<Item = Result<Bytes<'a>>> {
        self.messages.iter().filter(move |m| m.kind == kind).map(|m| match m.flags & 2 {
            0 => Ok(Bytes::new(m.body)),
            _ => Err(unsupported("messages shared by several objects")),
        })
    }

    /// Whether it is a dataset.
    pub fn is_dataset(&self) -> bool {
        self.messages.iter().any(|m| m.kind == kind::LAYOUT)
    }
}

impl<'a> Hdf5<'a> {
    /// The object whose header is at an address.
    ///
    /// # Errors
    /// [`Kind::Weights`](crate::error::Kind::Weights) if it is damaged.
    pub fn object(&self, address: u64) -> Result<Object<'a>> {
        let mut r = self.at(address)?;
        let mut messages = vec![];
        if r.rest().starts_with(b"OHDR") {
            self.header_2(r, &mut messages)?;
        } else {
            self.header_1(&mut r, &mut messages)?;
        }
        Ok(Object { messages })
    }

    fn header_1(&self, r: &mut Bytes<'a>, messages: &mut Vec<Message<'a>>) -> Result<()> {
        let version = r.u8()?;
        if version != 1 {
            return Err(damaged(format!("an object header has version {version}")));
        }
        // Reserved, number of messages, references.
        r.skip(1 + 2 + 4)?;
        let length = r.u32()? as usize;
        r.skip(4)?;
        let mut blocks = vec![r.take(length)?];
        while let Some(block) = blocks.pop() {
            let mut r = Bytes::new(block);
            while r.rest().len() >= 8 {
                self.step()?;
                let kind = r.u16()?;
                let length = r.u16()?.into();
                let flags = r.u8()?;
                r.skip(3)?;
                let body = r.take(length)?;
                if kind == kind::CONTINUATION {
                    let mut r = Bytes::new(body);
                    blocks.push(self.range(r.u64()?, r.length()?)?);
                } else {
                    messages.push(Message { kind, flags, body });
                }
            }
        }
        Ok(())
    }

    fn header_2(&self, mut r: Bytes<'a>, messages: &mut Vec<Message<'a>>) -> Result<()> {
        r.signature(b"OHDR")?;
        let version = r.u8()?;
        if version != 2 {
            return Err(damaged(format!("an object header has version {version}")));
        }
        let flags = r.u8()?;
        // Four times, where stored; two limits of the storage of attributes, where they are not the usual ones.
        r.skip(if flags & 0x20 != 0 { 16 } else { 0 } + if flags & 0x10 != 0 { 4 } else { 0 })?;
        let length = match flags & 3 {
            0 => r.u8()?.into(),
            1 => r.u16()?.into(),
            2 => r.u32()? as usize,
            _ => r.length()?,
        };
        let ordered = flags & 4 != 0;
        let mut blocks = vec![r.take(length)?];
        while let Some(block) = blocks.pop() {
            let mut r = Bytes::new(block);
            let head = if ordered { 6 } else { 4 };
            while r.rest().len() >= head {
                self.step()?;
                let kind = r.u8()?.into();
                let length = r.u16()?.into();
                let flags = r.u8()?;
                r.skip(head - 4)?;
                let body = r.take(length)?;
                if kind == kind::CONTINUATION {
                    let mut r = Bytes::new(body);
                    let mut next = Bytes::new(self.range(r.u64()?, r.length()?)?);
                    next.signature(b"OCHK")?;
                    // Without the checksum.
                    let length = next.rest().len().checked_sub(4).ok_or_else(|| damaged("it ends too early"))?;
                    blocks.push(next.take(length)?);
                } else {
                    messages.push(Message { kind, flags, body });
                }
            }
        }
        Ok(())
    }
}
