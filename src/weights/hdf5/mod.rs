//! A reader of HDF5 for what Keras and h5py write: groups, float datasets, text attributes. The format is described in
//! "HDF5 File Format Specification Version 3.0" (The HDF Group); section numbers in this folder are its.
//!
//! - `bytes`: positions in the file, and integers
//! - `header`: object headers, the messages that describe an object
//! - `group`: the members of a group
//! - `dataset`: elements, contiguous, compact or in chunks
//! - `attribute`: texts
//!
//! Left out, with an error that says so: what only `libver="latest"` writes (groups and attributes in fractal heaps, chunks
//! indexed by anything but a version 1 B-tree), external files, and filters other than deflate and shuffle.
//!
//! A damaged file may have structures that contain themselves, or claim any size. So each structure that is looked at is
//! counted, with a limit that follows from the file's length, as does the limit on unpacked elements ([`Budget`]).

mod attribute;
mod bytes;
mod dataset;
mod group;
mod header;

use std::cell::Cell;

use self::bytes::Bytes;
pub(super) use self::header::Object;
use super::elements::Budget;
use crate::error::{Error, Kind, Result};

/// What an HDF5 file begins with (II.A).
const SIGNATURE: &[u8; 8] = b"\x89HDF\r\n\x1a\n";
/// An address that is none.
const UNDEFINED: u64 = u64::MAX;
/// Longest name and text that are of interest, in bytes.
const MAX_TEXT: usize = 1024;

/// An HDF5 file in memory.
pub(super) struct Hdf5<'a> {
    /// From the superblock on: addresses count from there.
    bytes: &'a [u8],
    /// Address of the root group's object header.
    root: u64,
    /// Structures that may still be looked at.
    left: Cell<usize>,
}

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::new(Kind::Weights, format!("the HDF5 file is damaged: {what}"))
        .next("check that the file is complete; get it from its source again")
}

fn unsupported(what: impl std::fmt::Display) -> Error {
    Error::new(Kind::Weights, format!("the HDF5 file has {what}, which this program does not read"))
        .next("save it again with Keras (model.save_weights), or with h5py without libver='latest'")
}

/// Where the superblock is: at 0, 512, 1024, 2048 and so on, since a program may put a block of its own before it.
fn superblock(file: &[u8]) -> Option<usize> {
    let places = std::iter::successors(Some(0_usize), |&at| if at == 0 { Some(512) } else { at.checked_mul(2) });
    places.take_while(|&at| at < file.len()).find(|&at| file[at..].starts_with(SIGNATURE))
}

/// Whether a file is HDF5.
pub(super) fn is_hdf5(file: &[u8]) -> bool {
    superblock(file).is_some()
}

impl<'a> Hdf5<'a> {
    /// Opens a file.
    ///
    /// # Errors
    /// [`Kind::Weights`] if it is no HDF5 file, damaged, or of a version that is not read.
    pub fn open(file: &'a [u8]) -> Result<Self> {
        let at = superblock(file).ok_or_else(|| damaged("it does not begin as one"))?;
        let bytes = &file[at..];
        let mut r = Bytes::new(&bytes[SIGNATURE.len()..]);
        let version = r.u8()?;
        let wide = |[offset, length]: [u8; 2]| match (offset, length) {
            (8, 8) => Ok(()),
            _ => Err(unsupported(format!("addresses of {offset} and lengths of {length} bytes"))),
        };
        let root = match version {
            0 | 1 => {
                r.skip(4)?;
                wide([r.u8()?, r.u8()?])?;
                r.skip(if version == 0 { 9 } else { 13 })?;
                // Base, free space, end of file, driver; then the root group's entry: name, header.
                r.skip(4 * 8 + 8)?;
                r.u64()?
            }
            2 | 3 => {
                wide([r.u8()?, r.u8()?])?;
                // Flags; base, extension, end of file.
                r.skip(1 + 3 * 8)?;
                r.u64()?
            }
            _ => return Err(unsupported(format!("a superblock of version {version}"))),
        };
        Ok(Self { bytes, root, left: Cell::new(bytes.len() / 4 + 1000) })
    }

    /// The root group.
    ///
    /// # Errors
    /// [`Kind::Weights`] if its header is damaged.
    pub fn root(&self) -> Result<Object<'a>> {
        self.object(self.root)
    }

    /// The file from an address on; a step towards the limit of what may be looked at.
    fn at(&self, address: u64) -> Result<Bytes<'a>> {
        self.step()?;
        let start = usize::try_from(address).ok().filter(|&start| start < self.bytes.len());
        let start = start.ok_or_else(|| damaged("an address is beyond its end"))?;
        Ok(Bytes::new(&self.bytes[start..]))
    }

    /// So many bytes at an address.
    fn range(&self, address: u64, length: usize) -> Result<&'a [u8]> {
        self.at(address)?.take(length)
    }

    /// Counts a structure.
    fn step(&self) -> Result<()> {
        let left = self.left.get().checked_sub(1);
        self.left.set(left.ok_or_else(|| damaged("its structures go round in circles"))?);
        Ok(())
    }
}
