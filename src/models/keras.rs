//! Tensors of Keras files under our parameter names. A Keras file names its layers, and lays kernels out as the device does:
//! `[R, S, C, K]` and `[in, out]`.
//!
//! Layers that Keras names by itself (`conv2d_17`) are numbered in the order they were made, from a number that depends on
//! what was made before in the same program. So only the order counts: it is the order in which our models declare their
//! parameters.

use std::collections::{BTreeMap, BTreeSet};

use super::registry::{Architecture, Model};
use super::resnet::Variant;
use crate::error::{Error, Kind, Result};
use crate::nn::{Layout, Parameter};
use crate::tensor::HostTensor;

/// What a Keras file holds for a model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FromKeras {
    /// Tensors under the model's names in its files' layout; those that the model has no use for keep Keras's names.
    pub tensors: BTreeMap<String, HostTensor>,
    /// What the user should know, a line each.
    pub notes: Vec<String>,
}

impl Model {
    /// The tensors of a Keras file, `LAYER/VARIABLE`, under the names of this model's parameters. A batch-norm without
    /// gamma gets one of ones.
    ///
    /// # Errors
    /// [`Kind::Weights`] if Keras has no such model, or the file has another number of unnamed layers.
    pub fn from_keras(&self, parameters: &[Parameter], mut tensors: BTreeMap<String, HostTensor>) -> Result<FromKeras> {
        let layers = self.keras_layers(parameters, &tensors)?;
        let mut found = FromKeras::default();
        let norms: BTreeSet<&str> = parameters.iter().filter_map(|p| p.name.strip_suffix(".running_mean")).collect();
        let mut without_gamma = 0;
        for p in parameters {
            let Some((module, kind)) = p.name.rsplit_once('.') else { continue };
            let Some(layer) = layers.get(module) else { continue };
            let variable = match (kind, norms.contains(module)) {
                ("weight", true) => "gamma",
                ("weight", false) => "kernel",
                ("bias", true) => "beta",
                ("running_mean", _) => "moving_mean",
                ("running_var", _) => "moving_variance",
                (other, _) => other,
            };
            if let Some(tensor) = tensors.remove(&format!("{layer}/{variable}")) {
                found.tensors.insert(p.name.clone(), to_file(p, tensor));
            } else if variable == "gamma" && tensors.contains_key(&format!("{layer}/beta")) {
                found.tensors.insert(p.name.clone(), HostTensor::full(p.file_shape.clone(), 1.0));
                without_gamma += 1;
            }
        }
        if without_gamma > 0 {
            found.notes.push(format!(
                "{without_gamma} batch-norm layers have no gamma in the Keras file: it is one, and trained like any other"
            ));
        }
        found.tensors.append(&mut tensors);
        Ok(found)
    }

    /// The Keras layer of each of our layers.
    fn keras_layers(
        &self,
        parameters: &[Parameter],
        tensors: &BTreeMap<String, HostTensor>,
    ) -> Result<BTreeMap<String, String>> {
        let refuse = |what: String, next: &str| Err(Error::new(Kind::Weights, what).next(next));
        let name: fn(&str) -> Option<String> = match self.architecture {
            Architecture::ResNet(resnet) if resnet.variant == Variant::Keras => resnet_layer,
            Architecture::InceptionResNetV2 => inception_layer,
            Architecture::SimpleCnn => |_| None,
            Architecture::ResNet(_) => {
                let what = format!("this is a file of Keras, whose ResNets are other networks than {}", self.name());
                return refuse(what, "use --model resnet50-keras, resnet101-keras or resnet152-keras");
            }
            _ => {
                let what = format!("this is a file of Keras, and {} is known in PyTorch's layout only", self.name());
                return refuse(what, "give a safetensors or .pth file of the model");
            }
        };
        let mut layers = BTreeMap::new();
        let mut unnamed: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for p in parameters {
            let Some((module, kind)) = p.name.rsplit_once('.') else { continue };
            match (name(module), kind) {
                (Some(layer), _) => {
                    layers.insert(module.to_owned(), classifier(layer, tensors));
                }
                (None, "running_mean") => unnamed.entry("batch_normalization").or_default().push(module),
                (None, "weight") if p.layout == Layout::Conv => unnamed.entry("conv2d").or_default().push(module),
                (None, "weight") if p.layout == Layout::Linear => unnamed.entry("dense").or_default().push(module),
                _ => {}
            }
        }
        for (class, modules) in unnamed {
            let numbered = numbered(class, tensors);
            if numbered.len() != modules.len() {
                let what = format!(
                    "the Keras file has {} layers called {class}, and {} has {} of them",
                    numbered.len(),
                    self.name(),
                    modules.len()
                );
                return refuse(what, "check --model, and that the layers have the names Keras gives them");
            }
            layers.extend(modules.into_iter().map(str::to_owned).zip(numbered));
        }
        Ok(layers)
    }
}

/// A Keras tensor, laid out as on the device, in the layout of files.
fn to_file(parameter: &Parameter, tensor: HostTensor) -> HostTensor {
    let rank = tensor.shape().rank();
    match parameter.layout {
        // Of another rank, it is of another shape, and that will be said.
        Layout::Conv if rank != 4 => tensor,
        Layout::Linear if rank != 2 => tensor,
        _ => parameter.to_file(&tensor),
    }
}

/// The layers of a class that Keras named itself, in the order they were made: `conv2d`, `conv2d_1` and so on.
fn numbered(class: &str, tensors: &BTreeMap<String, HostTensor>) -> Vec<String> {
    let number = |key: &String| -> Option<u64> {
        let (layer, _) = key.split_once('/')?;
        match layer.strip_prefix(class)? {
            "" => Some(0),
            suffix => suffix.strip_prefix('_')?.parse().ok(),
        }
    };
    let numbers: BTreeSet<u64> = tensors.keys().filter_map(number).collect();
    let layer = |n| if n == 0 { class.to_owned() } else { format!("{class}_{n}") };
    numbers.into_iter().map(layer).collect()
}

/// The classifier is called `predictions`, unless it is somebody's own and the file's only dense layer; other layers are
/// called what they are called.
fn classifier(layer: String, tensors: &BTreeMap<String, HostTensor>) -> String {
    if layer == "predictions"
        && !tensors.contains_key("predictions/kernel")
        && let [own] = numbered("dense", tensors).as_slice()
    {
        return own.clone();
    }
    layer
}

/// `conv2_block1_0_conv` for `layer1.0.downsample.0`.
fn resnet_layer(module: &str) -> Option<String> {
    match module {
        "conv1" => return Some("conv1_conv".into()),
        "bn1" => return Some("conv1_bn".into()),
        "fc" => return Some("predictions".into()),
        _ => {}
    }
    let mut parts = module.strip_prefix("layer")?.splitn(3, '.');
    let (stage, block) = (parts.next()?.parse::<usize>().ok()?, parts.next()?.parse::<usize>().ok()?);
    let part = match parts.next()? {
        "downsample.0" => "0_conv".into(),
        "downsample.1" => "0_bn".into(),
        part => match (part.strip_prefix("conv"), part.strip_prefix("bn")) {
            (Some(n), _) => format!("{n}_conv"),
            (_, Some(n)) => format!("{n}_bn"),
            _ => return None,
        },
    };
    Some(format!("conv{}_block{}_{part}", stage + 1, block + 1))
}

/// The layers of Inception-ResNet-v2 that have names of their own: those that end a residual branch, and the last.
fn inception_layer(module: &str) -> Option<String> {
    match module {
        "conv2d_7b.conv" => return Some("conv_7b".into()),
        "conv2d_7b.bn" => return Some("conv_7b_bn".into()),
        "block8.conv2d" => return Some("block8_10_conv".into()),
        "classif" => return Some("predictions".into()),
        _ => {}
    }
    let (repeat, block) = module.strip_suffix(".conv2d")?.split_once('.')?;
    let kind = match repeat {
        "repeat" => "block35",
        "repeat_1" => "block17",
        "repeat_2" => "block8",
        _ => return None,
    };
    Some(format!("{kind}_{}_conv", block.parse::<usize>().ok()? + 1))
}
