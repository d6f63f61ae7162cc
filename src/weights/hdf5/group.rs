//! Groups: members by name, in a symbol table (III.A to III.D) or as link messages (IV.A.2.g).

use super::bytes::Bytes;
use super::header::kind;
use super::{Hdf5, MAX_TEXT, Object, UNDEFINED, damaged, unsupported};
use crate::error::Result;

/// Most levels a B-tree may have.
pub(super) const MAX_DEPTH: usize = 16;

impl<'a> Hdf5<'a> {
    /// The members of a group: names, and addresses of their object headers. Soft and external links are left out.
    ///
    /// # Errors
    /// [`Kind::Weights`](crate::error::Kind::Weights) if it is damaged, or stored in a way that is not read.
    pub fn members(&self, group: &Object<'a>) -> Result<Vec<(&'a str, u64)>> {
        let mut members = vec![];
        if let Some(mut r) = group.message(kind::SYMBOL_TABLE)? {
            let (tree, heap) = (r.u64()?, r.u64()?);
            let names = self.local_heap(heap)?;
            self.symbols(tree, names, MAX_DEPTH, &mut members)?;
        }
        if let Some(mut r) = group.message(kind::LINK_INFO)? {
            r.skip(1)?;
            let ordered = r.u8()? & 1 != 0;
            r.skip(if ordered { 8 } else { 0 })?;
            if r.u64()? != UNDEFINED {
                return Err(unsupported("groups in fractal heaps"));
            }
        }
        for message in group.messages(kind::LINK) {
            members.extend(link(message?)?);
        }
        Ok(members)
    }

    /// The text of a local heap.
    fn local_heap(&self, address: u64) -> Result<&'a [u8]> {
        let mut r = self.at(address)?;
        r.signature(b"HEAP")?;
        r.skip(4)?;
        let length = r.length()?;
        r.skip(8)?;
        self.range(r.u64()?, length)
    }

    /// The entries below a node of a group's B-tree (III.A.1).
    fn symbols(&self, address: u64, names: &'a [u8], depth: usize, members: &mut Vec<(&'a str, u64)>) -> Result<()> {
        let depth = depth.checked_sub(1).ok_or_else(|| damaged("a tree is too deep"))?;
        let mut r = self.at(address)?;
        r.signature(b"TREE")?;
        if r.u8()? != 0 {
            return Err(damaged("the tree of a group is not one"));
        }
        let level = r.u8()?;
        let used = r.u16()?;
        r.skip(16)?;
        for _ in 0..used {
            r.skip(8)?;
            let child = r.u64()?;
            if level > 0 {
                self.symbols(child, names, depth, members)?;
            } else {
                self.symbol_node(child, names, members)?;
            }
        }
        Ok(())
    }

    /// The entries of a symbol table node (III.B, III.C).
    fn symbol_node(&self, address: u64, names: &'a [u8], members: &mut Vec<(&'a str, u64)>) -> Result<()> {
        let mut r = self.at(address)?;
        r.signature(b"SNOD")?;
        r.skip(2)?;
        for _ in 0..r.u16()? {
            self.step()?;
            let (name, header) = (r.length()?, r.u64()?);
            let cache = r.u32()?;
            r.skip(4 + 16)?;
            // 2: a soft link.
            if cache != 2 {
                let name = names.get(name..).ok_or_else(|| damaged("a name is outside its heap"))?;
                let end = name.iter().take(MAX_TEXT).position(|&b| b == 0);
                let end = end.ok_or_else(|| damaged("a name is too long"))?;
                members.push((text(&name[..end])?, header));
            }
        }
        Ok(())
    }
}

/// A link message; `None` for anything but a hard link.
fn link(mut r: Bytes<'_>) -> Result<Option<(&str, u64)>> {
    r.skip(1)?;
    let flags = r.u8()?;
    let soft = flags & 8 != 0 && r.u8()? != 0;
    // Creation order; character set.
    r.skip(if flags & 4 != 0 { 8 } else { 0 } + if flags & 16 != 0 { 1 } else { 0 })?;
    let length = match flags & 3 {
        0 => r.u8()?.into(),
        1 => r.u16()?.into(),
        2 => r.u32()? as usize,
        _ => r.length()?,
    };
    if length > MAX_TEXT {
        return Err(damaged("a name is too long"));
    }
    let name = text(r.take(length)?)?;
    if soft { Ok(None) } else { Ok(Some((name, r.u64()?))) }
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| damaged("a name is not UTF-8"))
}
