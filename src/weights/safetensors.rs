//! Safetensors: a JSON header with names, shapes and offsets, then the raw elements. The format that runs are kept in.

use std::collections::BTreeMap;
use std::path::Path;

use ::safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::Deserialize;

use super::elements::{ByteOrder, Element};
use super::{Tensors, WeightFile, write_atomically};
use crate::error::{Error, Kind, Result};
use crate::tensor::HostTensor;

/// Reads a safetensors file. f64, f16 and bf16 become f32.
///
/// # Errors
/// [`Kind::Io`] if it cannot be read, [`Kind::Weights`] if it is not a valid safetensors file.
pub fn read_safetensors(path: &Path) -> Result<WeightFile> {
    let bytes = super::bytes_of(path)?;
    parse_safetensors(&bytes).map_err(|e| e.at(path.display()))
}

/// Where files keep the checksum of everything else in them that are written by [`sealed_bytes`]: BLAKE3, in hexadecimal.
const CHECKSUM: &str = "lesion-gpu.blake3";

/// The checksum of a file's texts and tensors, whatever their order in the file.
fn checksum<'a>(
    metadata: &BTreeMap<String, String>,
    tensors: impl Iterator<Item = (&'a str, &'a TensorView<'a>)>,
) -> String {
    let mut hash = blake3::Hasher::new();
    // Each part with its length before it, so that nothing can move from one to the next.
    let mut add = |part: &[u8]| {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    for (key, value) in metadata.iter().filter(|(key, _)| *key != CHECKSUM) {
        add(key.as_bytes());
        add(value.as_bytes());
    }
    let mut tensors: Vec<_> = tensors.collect();
    tensors.sort_by_key(|(name, _)| *name);
    for (name, view) in tensors {
        add(name.as_bytes());
        add(format!("{:?} {:?}", view.dtype(), view.shape()).as_bytes());
        add(view.data());
    }
    hash.finalize().to_hex().to_string()
}

/// What is of interest in a header without the tensors.
#[derive(Deserialize)]
struct Header {
    #[serde(rename = "__metadata__", default)]
    metadata: BTreeMap<String, String>,
}

/// The free text in a header, which is JSON.
pub(super) fn metadata(header: &[u8]) -> Result<BTreeMap<String, String>> {
    let header: Header = serde_json::from_slice(header).map_err(|e| {
        Error::new(Kind::Weights, format!("not a valid safetensors file: {e}")).next("check that the file is complete")
    })?;
    Ok(header.metadata)
}

fn invalid(e: ::safetensors::SafeTensorError) -> Error {
    Error::new(Kind::Weights, format!("not a valid safetensors file: {e}")).next("check that the file is complete")
}

/// Parses the bytes of a safetensors file, as [`read_safetensors`].
///
/// # Errors
/// [`Kind::Weights`] if they are not valid, or hold a checksum of something else.
pub fn parse_safetensors(bytes: &[u8]) -> Result<WeightFile> {
    let file = SafeTensors::deserialize(bytes).map_err(invalid)?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(invalid)?;
    let mut metadata: BTreeMap<String, String> = header.metadata().clone().unwrap_or_default().into_iter().collect();
    if let Some(written) = metadata.remove(CHECKSUM) {
        let views = file.tensors();
        if written != checksum(&metadata, views.iter().map(|(name, view)| (name.as_str(), view))) {
            let what =
                "the file does not hold what was written into it: it is damaged, or another program has changed it";
            return Err(Error::new(Kind::Weights, what).next(format!(
                "use another copy of it; if the change is meant, save it without the text {CHECKSUM} in its header"
            )));
        }
    }
    let (mut tensors, mut left_out) = (Tensors::new(), vec![]);
    for (name, view) in file.tensors() {
        match floats(&view) {
            Some(data) => drop(tensors.insert(name, HostTensor::new(view.shape(), data))),
            None => left_out.push(name),
        }
    }
    Ok(WeightFile { tensors, left_out, metadata, ..WeightFile::default() })
}

/// The elements as f32; `None` for integers, and for floats of eight bits and less.
fn floats(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let element = match view.dtype() {
        Dtype::F16 => Element::F16,
        Dtype::BF16 => Element::Bf16,
        Dtype::F32 => Element::F32,
        Dtype::F64 => Element::F64,
        _ => return None,
    };
    Some(element.decode(view.data(), ByteOrder::Little))
}

/// Writes a safetensors file atomically: under a temporary name in the same folder, synced, then renamed.
///
/// # Errors
/// [`Kind::Io`] if that fails; an older file of that name is then still whole.
pub fn write_safetensors(path: &Path, file: &WeightFile) -> Result<()> {
    write_atomically(path, &bytes(file, false)?)
}

/// The bytes of a safetensors file with their checksum, by which damage is told when it is read: for what is read by this program
/// alone, since another would keep the checksum and change the rest.
///
/// # Errors
/// [`Kind::Internal`] if they cannot be encoded.
pub fn sealed_bytes(file: &WeightFile) -> Result<Vec<u8>> {
    bytes(file, true)
}

fn bytes(file: &WeightFile, sealed: bool) -> Result<Vec<u8>> {
    let views = file.tensors.iter().map(|(name, tensor)| {
        let view = TensorView::new(Dtype::F32, tensor.shape().dims().to_vec(), bytemuck::cast_slice(tensor.data()));
        view.map(|view| (name.as_str(), view))
    });
    let internal =
        |e: ::safetensors::SafeTensorError| Error::new(Kind::Internal, format!("could not encode weights: {e}"));
    let views = views.collect::<Result<Vec<_>, _>>().map_err(internal)?;
    let mut metadata = file.metadata.clone();
    if sealed {
        let checksum = checksum(&metadata, views.iter().map(|(name, view)| (*name, view)));
        metadata.insert(CHECKSUM.to_owned(), checksum);
    }
    let metadata = (!metadata.is_empty()).then(|| metadata.into_iter().collect());
    ::safetensors::serialize(views, metadata).map_err(internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let mut file = WeightFile::default();
        file.tensors.insert("a".into(), HostTensor::new([2, 3], (0..6).map(|i| i as f32).collect()));
        file.tensors.insert("b".into(), HostTensor::full([4], 1.5));
        file.metadata.insert("k".into(), "v".into());
        write_safetensors(&path, &file).unwrap();
        assert_eq!(read_safetensors(&path).unwrap(), file);
    }

    #[test]
    fn damaged_files_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let mut file = WeightFile::default();
        file.tensors.insert("a".into(), HostTensor::full([100], 1.0));
        file.metadata.insert("k".into(), "v".into());
        std::fs::write(&path, sealed_bytes(&file).unwrap()).unwrap();
        assert_eq!(read_safetensors(&path).unwrap(), file);
        let bytes = std::fs::read(&path).unwrap();
        for cut in [0, 4, 8, 20, bytes.len() - 1] {
            assert_eq!(parse_safetensors(&bytes[..cut]).unwrap_err().kind(), Kind::Weights, "{cut}");
        }
        // Any bit of the header or of the elements: an error, or the same contents.
        let mut found = 0;
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match parse_safetensors(&flipped) {
                Err(e) => found += usize::from(e.kind() == Kind::Weights),
                // In the checksum's own name: then there is none, and one text more.
                Ok(read) => {
                    assert_eq!((&read.tensors, read.metadata.get("k")), (&file.tensors, file.metadata.get("k")));
                    assert!(read.metadata.keys().all(|key| key == "k" || key.len() == CHECKSUM.len()), "bit {bit}");
                }
            }
        }
        assert!(found >= bytes.len() * 8 - 200, "{found} of {}", bytes.len() * 8);
    }
}
