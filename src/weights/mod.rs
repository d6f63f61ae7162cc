//! Weight files: safetensors with torchvision's key names.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::error::{Error, Kind, Result};
use crate::tensor::{HostTensor, Shape};

/// Tensors by name, in the file's layout.
pub type Tensors = BTreeMap<String, HostTensor>;

/// A weight file in memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WeightFile {
    /// Float tensors by name. Other element types (PyTorch's `num_batches_tracked`) are left out.
    pub tensors: Tensors,
    /// Free text by key.
    pub metadata: BTreeMap<String, String>,
}

/// Reads a safetensors file. f64, f16 and bf16 become f32.
///
/// # Errors
/// [`Kind::Io`] if it cannot be read, [`Kind::Weights`] if it is not a valid safetensors file.
pub fn read_safetensors(path: &Path) -> Result<WeightFile> {
    let bytes = std::fs::read(path).map_err(|e| Error::io("read the weight file", path, &e))?;
    parse_safetensors(&bytes).map_err(|e| e.at(path.display()))
}

/// Parses the bytes of a safetensors file, as [`read_safetensors`].
///
/// # Errors
/// [`Kind::Weights`] if they are not valid.
pub fn parse_safetensors(bytes: &[u8]) -> Result<WeightFile> {
    let invalid = |e: safetensors::SafeTensorError| {
        Error::new(Kind::Weights, format!("not a valid safetensors file: {e}"))
            .next("check that the file is complete and that it is .safetensors, not .pth")
    };
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(invalid)?;
    let file = SafeTensors::deserialize(bytes).map_err(invalid)?;
    let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
    let mut tensors = Tensors::new();
    for (name, view) in file.tensors() {
        if let Some(data) = floats(&view) {
            tensors.insert(name, HostTensor::new(view.shape(), data));
        }
    }
    Ok(WeightFile { tensors, metadata })
}

/// The elements as f32; `None` for an integer tensor.
fn floats(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let data = view.data();
    match view.dtype() {
        Dtype::F32 => Some(bytemuck::pod_collect_to_vec(data)),
        Dtype::F64 => Some(bytemuck::pod_collect_to_vec::<u8, f64>(data).into_iter().map(|v| v as f32).collect()),
        Dtype::F16 => Some(bytemuck::pod_collect_to_vec::<u8, half::f16>(data).into_iter().map(f32::from).collect()),
        Dtype::BF16 => Some(bytemuck::pod_collect_to_vec::<u8, half::bf16>(data).into_iter().map(f32::from).collect()),
        _ => None,
    }
}

/// Writes a safetensors file atomically: under a temporary name in the same folder, synced, then renamed.
///
/// # Errors
/// [`Kind::Io`] if that fails; an older file of that name is then still whole.
pub fn write_safetensors(path: &Path, file: &WeightFile) -> Result<()> {
    let views = file.tensors.iter().map(|(name, tensor)| {
        let view = TensorView::new(Dtype::F32, tensor.shape().dims().to_vec(), bytemuck::cast_slice(tensor.data()));
        view.map(|view| (name.as_str(), view))
    });
    let internal =
        |e: safetensors::SafeTensorError| Error::new(Kind::Internal, format!("could not encode weights: {e}"));
    let views = views.collect::<Result<Vec<_>, _>>().map_err(internal)?;
    let metadata = (!file.metadata.is_empty()).then(|| file.metadata.clone().into_iter().collect());
    let bytes = safetensors::serialize(views, metadata).map_err(internal)?;
    write_atomically(path, &bytes)
}

/// Writes a file so that it is either the old or the new one, whole, whatever happens.
///
/// # Errors
/// [`Kind::Io`].
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let fail = |e: &std::io::Error| Error::io("write", path, e);
    let folder = path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|e| fail(&e))?;
    let mut temporary = tempfile::NamedTempFile::new_in(folder).map_err(|e| fail(&e))?;
    temporary.write_all(bytes).map_err(|e| fail(&e))?;
    temporary.as_file().sync_all().map_err(|e| fail(&e))?;
    temporary.persist(path).map_err(|e| fail(&e.error))?;
    Ok(())
}

/// How a file's tensors and a model's parameters differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// In the model, not in the file.
    pub missing: Vec<String>,
    /// In the file, not in the model.
    pub unexpected: Vec<String>,
    /// In both, with other shapes: name, the file's shape, the model's shape.
    pub mismatched: Vec<(String, Shape, Shape)>,
}

impl Difference {
    /// Compares a file with the names and shapes that a model has.
    pub fn of<'a>(file: &Tensors, model: impl IntoIterator<Item = (&'a str, &'a Shape)>) -> Self {
        let model: BTreeMap<&str, &Shape> = model.into_iter().collect();
        let mut difference = Self::default();
        for (&name, &shape) in &model {
            match file.get(name) {
                None => difference.missing.push(name.to_owned()),
                Some(t) if t.shape() != shape => {
                    difference.mismatched.push((name.to_owned(), t.shape().clone(), shape.clone()));
                }
                Some(_) => {}
            }
        }
        difference.unexpected = file.keys().filter(|k| !model.contains_key(k.as_str())).cloned().collect();
        difference
    }

    /// Whether file and model agree.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.mismatched.is_empty()
    }

    /// One line for each kind of difference, with the first few names.
    pub fn describe(&self) -> String {
        let mut lines = vec![];
        let mut list = |what: &str, names: Vec<String>| {
            if !names.is_empty() {
                let more = names.len().saturating_sub(6);
                let shown = names.into_iter().take(6).collect::<Vec<_>>();
                let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
                lines.push(format!("{what} ({}): {}{rest}", shown.len() + more, shown.join(", ")));
            }
        };
        list("missing", self.missing.clone());
        list("unexpected", self.unexpected.clone());
        list(
            "of another shape",
            self.mismatched.iter().map(|(n, file, model)| format!("{n} is {file}, not {model}")).collect(),
        );
        lines.join("\n  ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_round_trip_and_differences_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let mut file = WeightFile::default();
        file.tensors.insert("a".into(), HostTensor::new([2, 3], (0..6).map(|i| i as f32).collect()));
        file.tensors.insert("b".into(), HostTensor::full([4], 1.5));
        file.metadata.insert("k".into(), "v".into());
        write_safetensors(&path, &file).unwrap();
        assert_eq!(read_safetensors(&path).unwrap(), file);
        let (a, c) = (Shape::from([3, 2]), Shape::from([1]));
        let difference = Difference::of(&file.tensors, [("a", &a), ("c", &c)]);
        assert_eq!(difference.missing, ["c"]);
        assert_eq!(difference.unexpected, ["b"]);
        assert_eq!(difference.mismatched.len(), 1);
        assert!(difference.describe().contains("a is 2x3, not 3x2"), "{}", difference.describe());
    }

    #[test]
    fn damaged_files_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let mut file = WeightFile::default();
        file.tensors.insert("a".into(), HostTensor::full([100], 1.0));
        write_safetensors(&path, &file).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for cut in [0, 4, 8, 20, bytes.len() - 1] {
            assert_eq!(parse_safetensors(&bytes[..cut]).unwrap_err().kind(), Kind::Weights, "{cut}");
        }
    }
}
