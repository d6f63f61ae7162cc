//! PyTorch's files, as `torch.save` writes them: since version 1.6 a zip archive with the pickle `data.pkl` and an entry
//! `data/KEY` for each storage; before that five pickles one after another (a magic number, a version, the writer's
//! byte order, the object, the keys of the storages), then the storages. `torch/serialization.py` is the reference.
//!
//! The object must be a `state_dict`, or a dict that has one under a usual name, such as a training checkpoint.

use std::collections::BTreeMap;

use super::archive::Archive;
use super::elements::{Budget, ByteOrder, Element, product};
use super::pickle::{self, Object, Scalar, TensorRef, Value};
use super::{Convention, Tensors, WeightFile};
use crate::error::{Error, Kind, Result};
use crate::tensor::HostTensor;

/// The number that old files begin with, as bytes of a pickled integer.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// Larger pickles are not read. Names and shapes of a hundred thousand tensors take less.
const MAX_PICKLE: u64 = 64 << 20;
/// Where checkpoints keep their `state_dict`.
const WRAPPERS: [&str; 6] = ["state_dict", "model_state_dict", "model", "net", "network", "weights"];
/// What wrappers of modules put before every name.
const PREFIXES: [&str; 2] = ["module.", "_orig_mod."];
/// Most of them in each other.
const MAX_WRAPPERS: usize = 8;

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::new(Kind::Weights, format!("the PyTorch file is damaged: {what}"))
        .next("check that the file is complete; get it from its source again")
}

/// The name of the pickle in an archive of `torch.save`.
pub(super) fn pickle_name(archive: &Archive<'_>) -> Option<String> {
    archive.names().find(|name| *name == "data.pkl" || name.ends_with("/data.pkl")).map(str::to_owned)
}

/// Reads an archive of `torch.save` with the pickle `name`.
///
/// # Errors
/// [`Kind::Weights`] if it is damaged or no `state_dict`.
pub(super) fn parse_archive(mut archive: Archive<'_>, name: &str, mut budget: Budget) -> Result<WeightFile> {
    let folder = name.strip_suffix("data.pkl").unwrap_or_default().to_owned();
    let order = format!("{folder}byteorder");
    let stated = archive.names().any(|n| n == order);
    let order = match stated {
        true => match archive.read(&order, &mut budget)?.as_slice() {
            b"little" => ByteOrder::Little,
            b"big" => ByteOrder::Big,
            _ => return Err(damaged("its byte order is neither little nor big")),
        },
        false => ByteOrder::Little,
    };
    if archive.size(name)? > MAX_PICKLE {
        return Err(damaged(format!("the description of its tensors has more than {} MiB", MAX_PICKLE >> 20)));
    }
    let pickle = archive.read(name, &mut budget)?;
    let (object, _) = pickle::load(&pickle, &mut budget)?;
    let state = StateDict::find(&object)?;
    let mut tensors = Tensors::new();
    // Storage by storage, so that the bytes of only one are in memory.
    for (key, views) in state.by_storage(&object) {
        let bytes = archive.read(&format!("{folder}data/{key}"), &mut budget)?;
        for view in views {
            tensors.insert(view.name.to_owned(), view.read(&bytes, order, &mut budget)?);
        }
    }
    Ok(state.finish(tensors))
}

/// Whether a file begins as an old file of `torch.save` does.
pub(super) fn is_pickle(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0x80)
}

/// Reads a file of PyTorch before 1.6.
///
/// # Errors
/// [`Kind::Weights`] if it is damaged, no `state_dict`, or not PyTorch's at all.
pub(super) fn parse_legacy(bytes: &[u8], mut budget: Budget) -> Result<WeightFile> {
    let mut rest = bytes;
    let mut next = || -> Result<Object<'_>> {
        let (object, length) = pickle::load(rest, &mut budget)?;
        rest = rest.get(length..).unwrap_or_default();
        Ok(object)
    };
    if next()?.root != Value::Long(&MAGIC) {
        return Err(Error::new(Kind::Weights, "this is a Python pickle, but not one that torch.save made")
            .next("save the weights in PyTorch: torch.save(model.state_dict(), 'weights.pth')"));
    }
    let version = next()?.root;
    if version != Value::Int(1001) {
        return Err(damaged(format!("its protocol is {version:?}, not 1001")));
    }
    let system = next()?;
    let little = system.dict(system.root).unwrap_or_default().iter().find(|(k, _)| *k == Value::Text("little_endian"));
    let order = match little {
        Some((_, Value::Bool(false))) => ByteOrder::Big,
        _ => ByteOrder::Little,
    };
    let (object, keys) = (next()?, next()?);
    let keys = keys.list(keys.root).ok_or_else(|| damaged("the list of its storages is none"))?;
    let sizes: BTreeMap<&str, usize> = object.storages.iter().map(|s| (s.key, s.scalar.size())).collect();
    let mut storages = BTreeMap::new();
    for key in keys {
        let Value::Text(key) = *key else { return Err(damaged("a storage's name is no text")) };
        let size = sizes.get(key).ok_or_else(|| damaged("a storage has no use"))?;
        let too_short = || damaged("it ends too early");
        let (count, after) = rest.split_first_chunk::<8>().ok_or_else(too_short)?;
        let count = match order {
            ByteOrder::Little => u64::from_le_bytes(*count),
            ByteOrder::Big => u64::from_be_bytes(*count),
        };
        let length = usize::try_from(count).ok().and_then(|n| n.checked_mul(*size)).ok_or_else(too_short)?;
        let (elements, after) = after.split_at_checked(length).ok_or_else(too_short)?;
        storages.insert(key, elements);
        rest = after;
    }
    let state = StateDict::find(&object)?;
    let mut tensors = Tensors::new();
    for (key, views) in state.by_storage(&object) {
        let bytes = storages.get(key).ok_or_else(|| damaged(format!("storage {key} is missing")))?;
        for view in views {
            tensors.insert(view.name.to_owned(), view.read(bytes, order, &mut budget)?);
        }
    }
    Ok(state.finish(tensors))
}

/// A tensor of floats in a storage.
struct View<'a> {
    name: &'a str,
    element: Element,
    tensor: &'a TensorRef,
    /// Where the storage begins among the bytes, in elements.
    base: usize,
}

impl View<'_> {
    /// Its elements among `bytes`.
    fn read(&self, bytes: &[u8], order: ByteOrder, budget: &mut Budget) -> Result<HostTensor> {
        let TensorRef { shape, strides, .. } = self.tensor;
        let count = budget.take(product(shape), 4)?;
        if count == 0 {
            return Ok(HostTensor::new(shape.clone(), vec![]));
        }
        let outside = || damaged(format!("tensor {} lies outside its storage", self.name.escape_debug()));
        let first = self.base.checked_add(self.tensor.offset).ok_or_else(outside)?;
        let reach = |at: usize, (&extent, &stride): (&usize, &usize)| (extent - 1).checked_mul(stride)?.checked_add(at);
        let last = shape.iter().zip(strides).try_fold(first, reach).ok_or_else(outside)?;
        let size = self.element.size();
        let end = last.checked_add(1).and_then(|n| n.checked_mul(size)).filter(|&end| end <= bytes.len());
        let within = &bytes[first * size..end.ok_or_else(outside)?];
        if last - first == count - 1 && dense(shape, strides) {
            return Ok(HostTensor::new(shape.clone(), self.element.decode(within, order)));
        }
        let mut data = Vec::with_capacity(count);
        let (mut index, mut at) = (vec![0; shape.len()], 0);
        for _ in 0..count {
            data.extend(self.element.decode(&within[at * size..(at + 1) * size], order));
            for axis in (0..shape.len()).rev() {
                index[axis] += 1;
                // Wrapping: the stride of an axis of one element may be any number.
                at = usize::wrapping_add(at, strides[axis]);
                if index[axis] < shape[axis] {
                    break;
                }
                at = at.wrapping_sub(strides[axis].wrapping_mul(shape[axis]));
                index[axis] = 0;
            }
        }
        Ok(HostTensor::new(shape.clone(), data))
    }
}

/// Whether elements lie one after another in the order of the indices.
fn dense(shape: &[usize], strides: &[usize]) -> bool {
    let mut step = 1;
    for (&extent, &stride) in shape.iter().zip(strides).rev() {
        if extent != 1 && stride != step {
            return false;
        }
        step *= extent;
    }
    true
}

/// The tensors of an object, by name.
struct StateDict<'a> {
    tensors: BTreeMap<&'a str, &'a TensorRef>,
    notes: Vec<String>,
}

impl<'a> StateDict<'a> {
    fn find(object: &'a Object<'_>) -> Result<Self> {
        let none = |what: &str| {
            Error::new(Kind::Weights, format!("this PyTorch file holds no state_dict: {what}"))
                .next("save the weights alone, in PyTorch: torch.save(model.state_dict(), 'weights.pth')")
        };
        let mut items = object.dict(object.root).ok_or_else(|| none("it is not a dict"))?;
        let mut notes = vec![];
        // A wrapper in a wrapper is the most anybody has.
        for _ in 0..2 {
            let inner = WRAPPERS.iter().find_map(|name| {
                let (_, value) = items.iter().find(|(key, _)| *key == Value::Text(name))?;
                object.dict(*value).map(|inner| (name, inner))
            });
            let Some((name, inner)) = inner else { break };
            notes.push(format!("the weights are those under '{name}' in the file"));
            items = inner;
        }
        let mut tensors = BTreeMap::new();
        for (key, value) in items {
            if let (Value::Text(name), Some(tensor)) = (key, object.tensor(*value)) {
                tensors.insert(*name, tensor);
            }
        }
        if tensors.is_empty() {
            let keys = items.iter().filter_map(|(key, _)| match key {
                Value::Text(name) => Some(name.escape_debug().to_string()),
                _ => None,
            });
            let keys: Vec<String> = keys.take(8).collect();
            return Err(none(&format!(
                "its keys are {}",
                if keys.is_empty() { "none".into() } else { keys.join(", ") }
            )));
        }
        // Wrappers may lie in each other, in any order.
        let mut before = String::new();
        for _ in 0..MAX_WRAPPERS {
            let common = PREFIXES.iter().find(|prefix| tensors.keys().all(|name| name.starts_with(**prefix)));
            let Some(prefix) = common else { break };
            tensors = tensors.into_iter().map(|(name, tensor)| (&name[prefix.len()..], tensor)).collect();
            before += prefix;
        }
        if !before.is_empty() {
            notes.push(format!("every name in the file begins with '{before}', which was left out"));
        }
        Ok(Self { tensors, notes })
    }

    /// The tensors of floats, by the key of the storage they lie in.
    fn by_storage(&self, object: &'a Object<'_>) -> BTreeMap<&'a str, Vec<View<'a>>> {
        let mut views: BTreeMap<&str, Vec<View<'_>>> = BTreeMap::new();
        for (&name, &tensor) in &self.tensors {
            if let Some(storage) = object.storages.get(tensor.storage)
                && let Scalar::Float(element) = storage.scalar
            {
                views.entry(storage.key).or_default().push(View { name, element, tensor, base: storage.offset });
            }
        }
        views
    }

    fn finish(self, tensors: Tensors) -> WeightFile {
        let left_out = self.tensors.keys().filter(|name| !tensors.contains_key(**name));
        let left_out = left_out.map(|name| (*name).to_owned()).collect();
        WeightFile { tensors, left_out, convention: Convention::Torch, notes: self.notes, ..WeightFile::default() }
    }
}
