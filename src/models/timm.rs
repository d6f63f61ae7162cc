//! Tensors of PyTorch files under our parameter names. Those are torchvision's or, for what torchvision lacks, timm's; a few
//! of timm's models have other names or shapes for the same parameters.

use std::collections::BTreeMap;

use super::registry::{Architecture, Model};
use crate::nn::{Layout, Parameter};
use crate::tensor::HostTensor;

impl Model {
    /// The tensors of a PyTorch file under the names, and in the shapes, of this model's parameters, if they are known by
    /// others; all others stay as they are.
    pub fn from_torch(
        &self,
        parameters: &[Parameter],
        mut tensors: BTreeMap<String, HostTensor>,
    ) -> BTreeMap<String, HostTensor> {
        if self.architecture == Architecture::EfficientNetB0 && tensors.contains_key("conv_stem.weight") {
            for p in parameters {
                if let Some(tensor) = efficientnet_name(&p.name).and_then(|name| tensors.remove(&name)) {
                    tensors.insert(p.name.clone(), tensor);
                }
            }
        }
        // A ResNet's weights are those of an encoder; it has no use for a classifier.
        if matches!(self.architecture, Architecture::UNetResNet(_)) && tensors.contains_key("conv1.weight") {
            tensors.retain(|name, _| !name.starts_with("fc."));
            for p in parameters {
                if let Some(tensor) = p.name.strip_prefix("encoder.").and_then(|name| tensors.remove(name)) {
                    tensors.insert(p.name.clone(), tensor);
                }
            }
        }
        for p in parameters.iter().filter(|p| p.layout == Layout::Linear) {
            // A linear layer written as a convolution of a map of one pixel, as squeeze-and-excitation often is.
            if let Some(tensor) = tensors.get_mut(&p.name)
                && let [out, into, 1, 1] = *tensor.shape().dims()
                && p.file_shape.dims() == [out, into]
            {
                *tensor =
                    HostTensor::new([out, into], std::mem::replace(tensor, HostTensor::full([0], 0.0)).into_data());
            }
        }
        tensors
    }
}

/// timm's name for a parameter of EfficientNet: `blocks.1.0.conv_dw.weight` for `features.2.0.block.1.0.weight`.
fn efficientnet_name(name: &str) -> Option<String> {
    let (module, kind) = name.rsplit_once('.')?;
    let module = match module {
        "features.0.0" => "conv_stem".into(),
        "features.0.1" => "bn1".into(),
        "features.8.0" => "conv_head".into(),
        "features.8.1" => "bn2".into(),
        "classifier.1" => "classifier".into(),
        _ => {
            let (place, layer) = module.strip_prefix("features.")?.split_once(".block.")?;
            let (stage, block) = place.split_once('.')?;
            let stage = stage.parse::<usize>().ok()?.checked_sub(1)?;
            let layer = match (stage, layer) {
                // Nothing is widened in the first stage.
                (0, "0.0") | (1.., "1.0") => "conv_dw",
                (0, "0.1") | (1.., "0.1") => "bn1",
                (0, "1.fc1") | (1.., "2.fc1") => "se.conv_reduce",
                (0, "1.fc2") | (1.., "2.fc2") => "se.conv_expand",
                (0, "2.0") | (1.., "0.0") => "conv_pw",
                (0, "2.1") | (1.., "1.1") => "bn2",
                (1.., "3.0") => "conv_pwl",
                (1.., "3.1") => "bn3",
                _ => return None,
            };
            format!("blocks.{stage}.{block}.{layer}")
        }
    };
    Some(format!("{module}.{kind}"))
}
