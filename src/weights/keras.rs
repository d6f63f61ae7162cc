//! Keras's weight files, both HDF5 inside. `.h5` (Keras 1 and 2, and 3 on request) has a group for each layer and in it datasets
//! such as `conv1_conv/kernel:0`. `.keras` is a zip archive whose `model.weights.h5`, like a file of `save_weights` of Keras
//! 3, numbers each layer's variables: `layers/conv2d_3/vars/0`, where `conv2d_3` counts layers of a class, and the layer's
//! own name is an attribute or, in older files, has to be found in `config.json`.
//!
//! Either way tensors are named `LAYER/VARIABLE`, as in `conv1_conv/kernel`, and have Keras's layout.

use std::collections::BTreeMap;

use super::archive::Archive;
use super::elements::Budget;
use super::hdf5::{Hdf5, Object};
use super::{Convention, Tensors, WeightFile};
use crate::error::{Error, Kind, Result};
use crate::tensor::HostTensor;

/// Most groups within groups.
const MAX_DEPTH: usize = 16;
/// The entries of a `.keras` archive.
const WEIGHTS: &str = "model.weights.h5";
const CONFIG: &str = "config.json";

/// Whether an archive is a `.keras` file.
pub(super) fn is_keras(archive: &Archive<'_>) -> bool {
    archive.names().any(|name| name == WEIGHTS)
}

/// Reads a `.keras` file.
///
/// # Errors
/// [`Kind::Weights`] if it is damaged.
pub(super) fn parse_archive(mut archive: Archive<'_>, mut budget: Budget) -> Result<WeightFile> {
    let configured = archive.names().any(|name| name == CONFIG);
    let config = match configured {
        true => serde_json::from_slice(&archive.read(CONFIG, &mut budget)?).map_err(|e| {
            Error::new(Kind::Weights, format!("the Keras file is damaged: {CONFIG}: {e}"))
                .next("get the file from its source again")
        })?,
        false => serde_json::Value::Null,
    };
    let bytes = archive.read(WEIGHTS, &mut budget)?;
    read(&bytes, &config, budget)
}

/// Reads an HDF5 file of Keras.
///
/// # Errors
/// [`Kind::Weights`] if it is damaged or has no weights.
pub(super) fn parse_hdf5(bytes: &[u8], budget: Budget) -> Result<WeightFile> {
    read(bytes, &serde_json::Value::Null, budget)
}

fn read(bytes: &[u8], config: &serde_json::Value, budget: Budget) -> Result<WeightFile> {
    let file = Hdf5::open(bytes)?;
    let mut walk = Walk { file, budget, tensors: Tensors::new(), left_out: vec![] };
    let root = walk.file.root()?;
    walk.group(&root, &mut vec![], config, MAX_DEPTH)?;
    if walk.tensors.is_empty() {
        return Err(Error::new(Kind::Weights, "the HDF5 file holds no float tensors")
            .next("give a file that Keras saved with model.save or model.save_weights"));
    }
    let Walk { tensors, left_out, .. } = walk;
    Ok(WeightFile { tensors, left_out, convention: Convention::Keras, ..WeightFile::default() })
}

/// The tensors found so far.
struct Walk<'a> {
    file: Hdf5<'a>,
    budget: Budget,
    tensors: Tensors,
    left_out: Vec<String>,
}

impl<'a> Walk<'a> {
    /// Reads all datasets of a group at `path`, but for an optimizer's. `config` describes the layer or model that the group
    /// belongs to, if it is known.
    fn group(
        &mut self,
        group: &Object<'a>,
        path: &mut Vec<&'a str>,
        config: &serde_json::Value,
        depth: usize,
    ) -> Result<()> {
        let depth = depth.checked_sub(1).ok_or_else(|| {
            Error::new(Kind::Weights, "the HDF5 file has groups in groups in groups, too many for weights")
                .next("get the file from its source again")
        })?;
        let names = if path.last() == Some(&"layers") { layer_names(config) } else { BTreeMap::new() };
        for (name, address) in self.file.members(group)? {
            if path.is_empty() && name.starts_with("optimizer") {
                continue;
            }
            let member = self.file.object(address)?;
            if member.is_dataset() {
                let Some(tensor) = self.file.floats(&member, &mut self.budget)? else {
                    let name = format!("{}/{name}", path.join("/"));
                    self.budget.take(Some(name.len()), 1)?;
                    self.left_out.push(name);
                    continue;
                };
                let layer = path.last().copied().unwrap_or("model");
                self.insert(path, layer, name, tensor)?;
            } else if name == "vars" {
                let known = config.pointer("/config/name").and_then(serde_json::Value::as_str);
                let own = self.file.text(&member, "name")?.or(known);
                let layer = own.or(path.last().copied()).unwrap_or("model").to_owned();
                self.variables(&member, path, &layer)?;
            } else {
                path.push(name);
                let config = names.get(name).copied().unwrap_or(config);
                self.group(&member, path, config, depth)?;
                path.pop();
            }
        }
        Ok(())
    }

    /// A dataset by name: what remains of its path are the layer and the variable. Layers of an inner model may be called
    /// like those of the outer one, and then the later one has its whole path.
    fn insert(&mut self, path: &[&str], layer: &str, name: &str, tensor: HostTensor) -> Result<()> {
        let variable = name.split_once(':').map_or(name, |(variable, _)| variable);
        let whole = path.join("/");
        let names = [format!("{layer}/{variable}"), format!("{whole}/{variable}"), format!("{whole}/{name}")];
        let free = names.into_iter().find(|key| !self.tensors.contains_key(key));
        let key = free.ok_or_else(|| {
            let key = format!("{whole}/{name}");
            Error::new(Kind::Weights, format!("the HDF5 file has two tensors called {}", key.escape_debug()))
                .next("give every layer a name of its own and save the model again")
        })?;
        // Where groups go round in circles, names come again under ever longer paths.
        self.budget.take(Some(key.len()), 1)?;
        self.tensors.insert(key, tensor);
        Ok(())
    }

    /// The numbered variables of a layer. What they are follows from their number and shapes: layers declare the kernel
    /// before the bias, and batch-norm gamma (if it has one), beta, mean and variance.
    fn variables(&mut self, group: &Object<'a>, path: &[&str], layer: &str) -> Result<()> {
        let mut variables = BTreeMap::new();
        for (name, address) in self.file.members(group)? {
            let member = self.file.object(address)?;
            if let (Ok(number), true) = (name.parse::<u32>(), member.is_dataset())
                && let Some(tensor) = self.file.floats(&member, &mut self.budget)?
            {
                variables.insert(number, tensor);
            }
        }
        let ranks: Vec<usize> = variables.values().map(|t| t.shape().rank()).collect();
        let names: &[&str] = match ranks.as_slice() {
            [1, 1, 1, 1] => &["gamma", "beta", "moving_mean", "moving_variance"],
            [1, 1, 1] => &["beta", "moving_mean", "moving_variance"],
            [1, 1] => &["gamma", "beta"],
            [(2..), 1] | [(2..)] => &["kernel", "bias"],
            _ => &[],
        };
        for (i, (number, tensor)) in variables.into_iter().enumerate() {
            let number = number.to_string();
            self.insert(path, layer, names.get(i).copied().unwrap_or(&number), tensor)?;
        }
        Ok(())
    }
}

/// The layers of a model's configuration by the names of their groups: the class in snake case, numbered.
fn layer_names(config: &serde_json::Value) -> BTreeMap<String, &serde_json::Value> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut names = BTreeMap::new();
    let layers = config.pointer("/config/layers").and_then(serde_json::Value::as_array);
    for layer in layers.into_iter().flatten() {
        let Some(class) = layer.get("class_name").and_then(serde_json::Value::as_str) else { continue };
        let class = snake_case(class);
        let count = counts.entry(class.clone()).or_default();
        let name = if *count == 0 { class } else { format!("{class}_{count}") };
        *count += 1;
        names.insert(name, layer);
    }
    names
}

/// A class's name as Keras writes it in snake case: `BatchNormalization` is `batch_normalization`, `Conv2D` is `conv2d`.
fn snake_case(class: &str) -> String {
    let chars: Vec<char> = class.chars().filter(|c| c.is_alphanumeric() || *c == '_').collect();
    let mut name = String::new();
    for (i, &c) in chars.iter().enumerate() {
        let before = i.checked_sub(1).map(|i| chars[i]);
        let word_begins = c.is_ascii_uppercase()
            && before.is_some_and(|b| {
                b.is_ascii_lowercase() || chars.get(i + 1).is_some_and(|after| after.is_ascii_lowercase())
            });
        if word_begins {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_in_snake_case() {
        for (class, name) in [
            ("Conv2D", "conv2d"),
            ("BatchNormalization", "batch_normalization"),
            ("DepthwiseConv2D", "depthwise_conv2d"),
            ("ReLU", "re_lu"),
            ("GlobalAveragePooling2D", "global_average_pooling2d"),
        ] {
            assert_eq!(snake_case(class), name);
        }
    }
}
