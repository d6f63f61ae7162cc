//! Datasets: shape (IV.A.2.b), type (IV.A.2.d), and elements, in one piece or in chunks (IV.A.2.i, III.A.1).

use std::borrow::Cow;
use std::io::Read as _;

use flate2::read::ZlibDecoder;

use super::bytes::Bytes;
use super::group::MAX_DEPTH;
use super::header::kind;
use super::{Budget, Hdf5, Object, UNDEFINED, damaged, unsupported};
use crate::error::Result;
use crate::tensor::HostTensor;
use crate::weights::elements::{ByteOrder, Element, product};

/// Most axes a dataset may have.
const MAX_RANK: usize = 16;
/// Most filters a dataset's chunks may go through.
const MAX_FILTERS: usize = 8;

/// What was done to a chunk before it was stored (IV.A.2.l).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filter {
    Deflate,
    Shuffle,
}

/// Elements in chunks: those of a dataset, on the way to its tensor.
struct Chunks {
    shape: Vec<usize>,
    /// Extents of a chunk.
    chunk: Vec<usize>,
    element: Element,
    order: ByteOrder,
    filters: Vec<Filter>,
    /// The elements, dense.
    data: Vec<f32>,
}

impl<'a> Hdf5<'a> {
    /// The elements of a dataset of floats; `None` for another type.
    ///
    /// # Errors
    /// [`Kind::Weights`](crate::error::Kind::Weights) if it is damaged, stored in a way that is not read, or unfolds to
    /// more than the budget has left.
    pub fn floats(&self, dataset: &Object<'a>, budget: &mut Budget) -> Result<Option<HostTensor>> {
        let missing = |what: &str| damaged(format!("a dataset has no {what}"));
        let datatype = dataset.message(kind::DATATYPE)?.ok_or_else(|| missing("type"))?;
        let Some((element, order)) = float(datatype)? else { return Ok(None) };
        let dataspace = dataset.message(kind::DATASPACE)?.ok_or_else(|| missing("shape"))?;
        let shape = extents(dataspace)?;
        let count = budget.take(product(&shape), 4)?;
        let bytes = count.checked_mul(element.size()).ok_or_else(|| damaged("a dataset is too large"))?;
        let mut layout = dataset.message(kind::LAYOUT)?.ok_or_else(|| missing("elements"))?;
        let version = layout.u8()?;
        if !(3..=4).contains(&version) {
            return Err(unsupported(format!("a layout of version {version}")));
        }
        let class = layout.u8()?;
        let elements = match class {
            0 => {
                let length = layout.u16()?.into();
                layout.take(length)?
            }
            1 => {
                let (address, length) = (layout.u64()?, layout.length()?);
                // Nothing was ever written: h5py fills with zeros.
                match address {
                    UNDEFINED => return Ok(Some(HostTensor::full(shape, 0.0))),
                    _ => self.range(address, length)?,
                }
            }
            2 if version == 3 => {
                let filters = dataset.message(kind::FILTERS)?.map(filters).transpose()?.unwrap_or_default();
                let chunks = Chunks { shape, chunk: vec![], element, order, filters, data: vec![0.0; count] };
                return self.chunked(layout, chunks, budget).map(Some);
            }
            2 => return Err(unsupported("chunks with an index of a newer kind")),
            _ => return Err(unsupported(format!("a layout of class {class}"))),
        };
        let elements = elements.get(..bytes).ok_or_else(|| damaged("a dataset is shorter than its shape"))?;
        Ok(Some(HostTensor::new(shape, element.decode(elements, order))))
    }

    fn chunked(&self, mut layout: Bytes<'a>, mut chunks: Chunks, budget: &mut Budget) -> Result<HostTensor> {
        let rank = chunks.shape.len();
        // One more axis, for the bytes of an element.
        if usize::from(layout.u8()?) != rank + 1 {
            return Err(damaged("chunks have other axes than their dataset"));
        }
        let tree = layout.u64()?;
        chunks.chunk = (0..rank).map(|_| Ok(layout.u32()? as usize)).collect::<Result<_>>()?;
        if chunks.chunk.contains(&0) {
            return Err(damaged("a chunk has no elements"));
        }
        // Without chunks everything is zero.
        if tree != UNDEFINED {
            self.chunk_tree(tree, MAX_DEPTH, &mut chunks, budget)?;
        }
        Ok(HostTensor::new(chunks.shape, chunks.data))
    }

    fn chunk_tree(&self, address: u64, depth: usize, chunks: &mut Chunks, budget: &mut Budget) -> Result<()> {
        let depth = depth.checked_sub(1).ok_or_else(|| damaged("a tree is too deep"))?;
        let mut r = self.at(address)?;
        r.signature(b"TREE")?;
        if r.u8()? != 1 {
            return Err(damaged("the tree of a dataset is not one"));
        }
        let level = r.u8()?;
        let used = r.u16()?;
        r.skip(16)?;
        for _ in 0..used {
            let length = r.u32()? as usize;
            let skipped = r.u32()?;
            let origin = chunks.shape.iter().map(|_| r.length()).collect::<Result<Vec<_>>>()?;
            r.skip(8)?;
            let child = r.u64()?;
            if level > 0 {
                self.chunk_tree(child, depth, chunks, budget)?;
            } else {
                chunks.place(&origin, self.range(child, length)?, skipped, budget)?;
            }
        }
        Ok(())
    }
}

impl Chunks {
    /// Puts a stored chunk where it belongs. `skipped` has a bit for each filter that was left out.
    fn place(&mut self, origin: &[usize], stored: &[u8], skipped: u32, budget: &mut Budget) -> Result<()> {
        let size = self.element.size();
        let count = budget.take(product(&self.chunk), size)?;
        // No more than is of interest: many chunks may claim the same long piece of the file.
        let mut bytes = Cow::Borrowed(stored);
        for (i, filter) in self.filters.iter().enumerate().rev() {
            if skipped >> i & 1 == 0 {
                bytes = Cow::Owned(match filter {
                    Filter::Deflate => inflate(&bytes, count * size)?,
                    Filter::Shuffle => unshuffle(bytes.get(..count * size).unwrap_or(&bytes), size),
                });
            }
        }
        if bytes.len() < count * size {
            return Err(damaged("a chunk is shorter than its shape"));
        }
        let elements = self.element.decode(&bytes[..count * size], self.order);
        // Row by row; what is beyond the dataset's edge is left out.
        let Some(&row) = self.chunk.last() else {
            self.data.copy_from_slice(&elements[..1]);
            return Ok(());
        };
        let mut index = vec![0; self.chunk.len()];
        for source in elements.chunks_exact(row) {
            if let Some((at, length)) = self.target(origin, &index) {
                self.data[at..at + length].copy_from_slice(&source[..length]);
            }
            for axis in (0..index.len() - 1).rev() {
                index[axis] += 1;
                if index[axis] < self.chunk[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        Ok(())
    }

    /// Where a row of a chunk belongs among the elements, and how much of it; `None` if it is outside.
    fn target(&self, origin: &[usize], index: &[usize]) -> Option<(usize, usize)> {
        let mut at = 0;
        let mut room = 0;
        for ((&origin, &index), &extent) in origin.iter().zip(index).zip(&self.shape) {
            let position = origin.checked_add(index).filter(|&p| p < extent)?;
            at = at * extent + position;
            room = extent - position;
        }
        Some((at, room.min(*self.chunk.last()?)))
    }
}

/// A deflated chunk, of which no more than `limit` bytes are of interest.
fn inflate(bytes: &[u8], limit: usize) -> Result<Vec<u8>> {
    let mut out = vec![];
    let read = ZlibDecoder::new(bytes).take(limit as u64).read_to_end(&mut out);
    read.map_err(|e| damaged(format!("a chunk cannot be unpacked: {e}")))?;
    Ok(out)
}

/// Bytes that were grouped by their place in an element, put together again.
fn unshuffle(bytes: &[u8], size: usize) -> Vec<u8> {
    let count = bytes.len() / size;
    let (grouped, rest) = bytes.split_at(count * size);
    let whole = (0..count * size).map(|i| grouped[i % size * count + i / size]);
    whole.chain(rest.iter().copied()).collect()
}

/// The extents of a dataspace; none for a scalar.
pub(super) fn extents(mut r: Bytes<'_>) -> Result<Vec<usize>> {
    let version = r.u8()?;
    let rank: usize = r.u8()?.into();
    r.skip(1)?;
    match version {
        1 => r.skip(5)?,
        // 2: a dataspace without elements.
        2 => {
            if r.u8()? == 2 {
                return Ok(vec![0]);
            }
        }
        _ => return Err(unsupported(format!("a shape of version {version}"))),
    }
    if rank > MAX_RANK {
        return Err(damaged(format!("a dataset has {rank} axes")));
    }
    (0..rank).map(|_| r.length()).collect()
}

/// The float type of a datatype message; `None` if it is another type.
fn float(mut r: Bytes<'_>) -> Result<Option<(Element, ByteOrder)>> {
    let class = r.u8()? & 15;
    let bits = r.u8()?;
    r.skip(2)?;
    let size = r.u32()?;
    if class != 1 {
        return Ok(None);
    }
    // Bit offset, precision, place of the exponent.
    r.skip(2 + 2 + 1)?;
    let exponent = r.u8()?;
    let element = match (size, exponent) {
        (2, 5) => Element::F16,
        (2, 8) => Element::Bf16,
        (4, 8) => Element::F32,
        (8, 11) => Element::F64,
        _ => return Err(unsupported(format!("floats of {size} bytes with an exponent of {exponent} bits"))),
    };
    Ok(Some((element, if bits & 1 == 0 { ByteOrder::Little } else { ByteOrder::Big })))
}

/// The filters of a pipeline message, in the order they were applied.
fn filters(mut r: Bytes<'_>) -> Result<Vec<Filter>> {
    let version = r.u8()?;
    let count: usize = r.u8()?.into();
    if count > MAX_FILTERS {
        return Err(damaged(format!("a dataset has {count} filters")));
    }
    r.skip(if version == 1 { 6 } else { 0 })?;
    let mut filters = vec![];
    for _ in 0..count {
        let id = r.u16()?;
        let name = if version == 1 || id >= 256 { usize::from(r.u16()?) } else { 0 };
        r.skip(2)?;
        let values: usize = r.u16()?.into();
        r.skip(if version == 1 { name.next_multiple_of(8) } else { name })?;
        r.skip(4 * if version == 1 { values.next_multiple_of(2) } else { values })?;
        filters.push(match id {
            1 => Filter::Deflate,
            2 => Filter::Shuffle,
            _ => return Err(unsupported(format!("chunks with filter {id}"))),
        });
    }
    Ok(filters)
}
