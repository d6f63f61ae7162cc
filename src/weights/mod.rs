//! Weight files: safetensors, and whatever else people have, read into tensors by name.
//!
//! [`read`] tells the format by content, not by the file's name:
//!
//! - `safetensors`: what this program writes, and timm's and the hub's usual format
//! - `torch`, by `pickle`: PyTorch's .pth and .pt
//! - `keras`, by `hdf5`: Keras's .h5 and .keras
//! - `archive`, `elements`: zip archives; raw elements, and a bound on what a file may unfold to
//! - `difference`: what a file lacks or has too much for a model

mod archive;
mod difference;
mod elements;
mod hdf5;
mod keras;
mod pickle;
mod safetensors;
mod torch;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::path::Path;

use self::archive::Archive;
pub use self::difference::Difference;
use self::elements::Budget;
pub use self::safetensors::{parse_safetensors, read_safetensors, sealed_bytes, write_safetensors};
use crate::error::{Error, Kind, Result};
use crate::tensor::HostTensor;

/// Larger files are not read. The largest model here, in f64 and with two moments of an optimizer, has 1.4 GiB.
const MAX_BYTES: u64 = 4 << 30;

/// Longer headers of safetensors are not read; the format's own reader has the same bound.
const MAX_HEADER: u64 = 100_000_000;

/// Tensors by name, in the file's layout.
pub type Tensors = BTreeMap<String, HostTensor>;

/// Whose names and layouts the tensors of a file have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Convention {
    /// PyTorch's: `layer1.0.conv1.weight`, kernels `[K, C, R, S]`, linear weights `[out, in]`.
    #[default]
    Torch,
    /// Keras's: `conv2_block1_1_conv/kernel`, kernels `[R, S, C, K]`, dense weights `[in, out]`.
    Keras,
}

/// A weight file in memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WeightFile {
    /// Float tensors by name. Other element types (PyTorch's `num_batches_tracked`) are left out.
    pub tensors: Tensors,
    /// The names of the tensors that were left out.
    pub left_out: Vec<String>,
    /// Free text by key.
    pub metadata: BTreeMap<String, String>,
    /// Whose names and layouts these are.
    pub convention: Convention,
    /// What reading changed or left out and the user should know, a line each.
    pub notes: Vec<String>,
}

/// Reads a weight file of any known format, told by its content. f64, f16 and bf16 become f32.
///
/// # Errors
/// [`Kind::Io`] if it cannot be read, [`Kind::Weights`] if it is of no known format or damaged.
pub fn read(path: &Path) -> Result<WeightFile> {
    let bytes = bytes_of(path)?;
    parse(&bytes).map_err(|e| e.at(path.display()))
}

/// All bytes of a file that is not absurdly large.
fn bytes_of(path: &Path) -> Result<Vec<u8>> {
    let fail = |e: std::io::Error| Error::io("read the weight file", path, &e);
    let file = std::fs::File::open(path).map_err(fail)?;
    let mut bytes = vec![];
    let too_large = file.metadata().map_err(fail)?.len() > MAX_BYTES;
    if !too_large {
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(fail)?;
    }
    if too_large || bytes.len() as u64 > MAX_BYTES {
        let limit = MAX_BYTES >> 30;
        return Err(Error::new(
            Kind::Weights,
            format!("the file has more than {limit} GiB, more than any weights here"),
        )
        .at(path.display())
        .next("check that this is the weight file"));
    }
    Ok(bytes)
}

/// The free text of a weight file, without reading its tensors; none in formats that have no such text.
///
/// # Errors
/// [`Kind::Io`] if it cannot be read, [`Kind::Weights`] if it is damaged.
pub fn metadata(path: &Path) -> Result<BTreeMap<String, String>> {
    let fail = |e: std::io::Error| Error::io("read the weight file", path, &e);
    let file = std::fs::File::open(path).map_err(fail)?;
    let size = file.metadata().map_err(fail)?.len();
    let mut start = vec![];
    (&file).take(9).read_to_end(&mut start).map_err(fail)?;
    let (Some(length), Some(b'{')) = (start.first_chunk(), start.get(8)) else { return Ok(BTreeMap::new()) };
    // Beyond the file's end the header is damaged, and that will be said.
    let length = u64::from_le_bytes(*length).min(size);
    if length > MAX_HEADER {
        let message = format!("not a valid safetensors file: its header has {length} bytes, more than 100 MB");
        return Err(Error::new(Kind::Weights, message).at(path.display()).next("check that this is the weight file"));
    }
    let rest = length.saturating_sub(1);
    (&file).take(rest).read_to_end(&mut start).map_err(fail)?;
    safetensors::metadata(&start[8..]).map_err(|e| e.at(path.display()))
}

/// Parses the bytes of a weight file, as [`read`].
///
/// # Errors
/// [`Kind::Weights`] if they are of no known format or damaged.
pub fn parse(bytes: &[u8]) -> Result<WeightFile> {
    let unknown = || {
        Error::new(Kind::Weights, "this is no weight file of a known format")
            .next("give safetensors, PyTorch's .pth or .pt, or Keras's .h5 or .keras, and check that it is complete")
    };
    let budget = Budget::of_file(bytes.len());
    // The length of the header in eight bytes, then the header, in JSON. The length may begin as any other format does, but
    // no other has this in its ninth byte.
    if bytes.get(8) == Some(&b'{') {
        parse_safetensors(bytes)
    } else if bytes.starts_with(b"PK\x03\x04") {
        let archive = Archive::open(bytes)?;
        if keras::is_keras(&archive) {
            return keras::parse_archive(archive, budget);
        }
        let name = torch::pickle_name(&archive).ok_or_else(unknown)?;
        torch::parse_archive(archive, &name, budget)
    } else if torch::is_pickle(bytes) {
        torch::parse_legacy(bytes, budget)
    } else if hdf5::is_hdf5(bytes) {
        keras::parse_hdf5(bytes, budget)
    } else {
        Err(unknown())
    }
}

/// Writes a file so that it is either the old or the new one, whole, whatever happens.
///
/// # Errors
/// [`Kind::Io`].
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, None, bytes)
}

/// As [`write_atomically`], but the file that was there is kept under the name `previous`, in the same folder. If that one was
/// whole, one of the two is, wherever the program is killed.
///
/// # Errors
/// [`Kind::Io`].
pub fn write_keeping(path: &Path, previous: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, Some(previous), bytes)
}

/// How the names of files begin that are being written. A program that is killed leaves them behind.
const TEMPORARY: &str = ".lesion-gpu-";

/// Deletes what a program that was killed was writing in `folder`. No other may be writing there.
///
/// # Errors
/// [`Kind::Io`].
pub fn sweep(folder: &Path) -> Result<()> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io("read the folder", folder, &e))?;
    let left = entries.flatten().filter(|entry| is_unfinished(&entry.file_name()));
    left.map(|entry| entry.path()).try_for_each(|path| remove_if_there(&path, "delete an unfinished file"))
}

/// Whether a file of that name was being written when its program ended.
pub fn is_unfinished(name: &OsStr) -> bool {
    name.to_string_lossy().starts_with(TEMPORARY)
}

/// Deletes a file, if it is there; `what` says so in an error.
///
/// # Errors
/// [`Kind::Io`].
pub fn remove_if_there(path: &Path, what: &str) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(what, path, &e)),
        _ => Ok(()),
    }
}

fn replace(path: &Path, previous: Option<&Path>, bytes: &[u8]) -> Result<()> {
    let fail = |e: &std::io::Error| Error::io("write", path, e);
    let folder = path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|e| fail(&e))?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY);
    // As any new file: the umask takes off what others may not do. Temporary files are the owner's alone by default.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut temporary = builder.tempfile_in(folder).map_err(|e| fail(&e))?;
    temporary.as_file_mut().write_all(bytes).map_err(|e| fail(&e))?;
    temporary.as_file().sync_all().map_err(|e| fail(&e))?;
    if let Some(previous) = previous {
        match std::fs::rename(path, previous) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("rename", path, &e)),
            _ => {}
        }
    }
    temporary.persist(path).map_err(|e| fail(&e.error))?;
    // The names too are to outlast a power cut. Where folders cannot be opened (Windows), the system sees to it.
    if let Ok(folder) = std::fs::File::open(folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}
