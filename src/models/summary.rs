//! What tracing a model tells about it, without a device: parameters, cost, layers, smallest images.

use super::Model;
use crate::autograd::{Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::nn::{Mode, Net, Parameter};
use crate::tensor::{Shape, TensorType};

/// Largest side that [`Model::smallest_size`] tries.
const LARGEST_MINIMUM: usize = 1024;

/// What tracing a model tells about it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSummary {
    /// Trained parameters and running statistics, in the order of the model.
    pub parameters: Vec<Parameter>,
    /// The number of trained values.
    pub trainable: usize,
    /// Multiply-adds for one image: those of convolutions, linear layers and the matrix products of attention.
    pub macs: u64,
    /// The parts of the model, in order.
    pub layers: Vec<LayerSummary>,
}

/// A part of a model: a block such as `layer1.0`, or a layer by itself such as `fc`.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSummary {
    /// What the names of its parameters begin with.
    pub name: String,
    /// Trained values in it.
    pub trainable: usize,
    /// Multiply-adds for one image.
    pub macs: u64,
    /// What it makes of one image.
    pub output: Shape,
}

/// The part that a layer or parameter with the parts `name` belongs to: its first word, and its second if that is a number.
fn part_of(name: &str) -> String {
    let mut words = name.split('.');
    let first = words.next().unwrap_or_default();
    match words.next() {
        Some(number) if number.bytes().all(|b| b.is_ascii_digit()) => format!("{first}.{number}"),
        _ => first.to_owned(),
    }
}

/// The parts of a traced model. What belongs to no part, such as a pooling between two, is left out.
fn layers(tape: &Tape, parameters: &[Parameter]) -> Vec<LayerSummary> {
    let mut layers: Vec<LayerSummary> = vec![];
    for node in tape.nodes().iter().filter(|node| !node.scope.is_empty()) {
        let name = part_of(&node.scope);
        let at = layers.iter().position(|l| l.name == name).unwrap_or_else(|| {
            layers.push(LayerSummary { name, trainable: 0, macs: 0, output: Shape::from([0; 0]) });
            layers.len() - 1
        });
        layers[at].macs += macs(tape, &node.inputs, |inputs| node.op.macs(inputs));
        layers[at].output = tape.shape(node.outputs[0]).clone();
    }
    for parameter in parameters.iter().filter(|p| p.trainable) {
        let (name, trainable) = (part_of(&parameter.name), parameter.count());
        match layers.iter_mut().find(|l| l.name == name) {
            Some(layer) => layer.trainable += trainable,
            // A parameter by itself, such as an embedding.
            None => layers.push(LayerSummary { name, trainable, macs: 0, output: parameter.file_shape.clone() }),
        }
    }
    layers
}

fn macs(tape: &Tape, inputs: &[Tensor], of: impl Fn(&[TensorType]) -> u64) -> u64 {
    of(&inputs.iter().map(|&t| tape.ty(t).clone()).collect::<Vec<_>>())
}

impl Model {
    /// What the model is for images of `size` x `size` pixels.
    ///
    /// # Errors
    /// [`Kind::Shape`] if the images are too small, or no multiples of what the model needs.
    pub fn summary(&self, size: usize, classes: usize) -> Result<ModelSummary> {
        self.traced(size, classes).map_err(|e| match self.smallest_size(classes) {
            Ok(smallest) if size < smallest => {
                e.next(format!("{} takes images from {smallest} pixels: use a larger --size", self.name()))
            }
            _ => e,
        })
    }

    fn traced(&self, size: usize, classes: usize) -> Result<ModelSummary> {
        let mut tape = Tape::new();
        let x = tape.input("images", TensorType::f32([1, size, size, 3]));
        let mut net = Net::new(&mut tape, Mode::Eval, 0);
        self.forward(&mut net, x, self.outputs(classes))?;
        let parameters = net.into_parameters();
        let trainable = parameters.iter().filter(|p| p.trainable).map(Parameter::count).sum();
        let macs = tape.nodes().iter().map(|node| macs(&tape, &node.inputs, |inputs| node.op.macs(inputs))).sum();
        let layers = layers(&tape, &parameters);
        Ok(ModelSummary { parameters, trainable, macs, layers })
    }

    /// The side of the smallest square images it takes.
    ///
    /// # Errors
    /// [`Kind::Internal`] if there is none of at most 1024 pixels.
    pub fn smallest_size(&self, classes: usize) -> Result<usize> {
        let fits = |&size: &usize| self.traced(size, classes).is_ok();
        (1..=LARGEST_MINIMUM).find(fits).ok_or_else(|| {
            let message = format!("{} takes no images of at most {LARGEST_MINIMUM} pixels", self.name());
            Error::new(Kind::Internal, message)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Published with torchvision's weights (ResNets, EfficientNet) and with timm's (the others); the latter's count for the
    /// vision transformer, 4.25e9, leaves the products of attention out: 12 blocks of 2 * 197 * 197 * 384.
    #[test]
    fn costs_are_the_published_ones() {
        let attention = 12.0 * 2.0 * 197.0 * 197.0 * 384.0 / 1e9;
        let published = [
            ("resnet18", 224, 1.814),
            ("resnet34", 224, 3.664),
            ("resnet50", 224, 4.089),
            ("resnet101", 224, 7.801),
            ("resnet152", 224, 11.514),
            ("seresnet50", 224, 4.11),
            ("efficientnet-b0", 224, 0.386),
            ("inception-resnet-v2", 299, 13.18),
            ("vit-small-16", 224, 4.25 + attention),
        ];
        for (name, size, want) in published {
            let macs = Model::find(name).unwrap().summary(size, 1000).unwrap().macs as f64 / 1e9;
            assert!((macs / want - 1.0).abs() < 5e-3, "{name}: {macs} instead of {want}");
        }
    }

    #[test]
    fn the_parts_of_every_model_add_up() {
        for model in Model::all() {
            let smallest = model.smallest_size(7).unwrap();
            let summary = model.summary(smallest.max(32).next_multiple_of(16), 7);
            let Ok(summary) = summary.or_else(|_| model.summary(smallest, 7)) else {
                panic!("{} cannot be traced at its smallest size", model.name());
            };
            let sum = |of: fn(&LayerSummary) -> u64| summary.layers.iter().map(of).sum::<u64>();
            assert_eq!(sum(|l| l.macs), summary.macs, "{}", model.name());
            assert_eq!(sum(|l| l.trainable as u64), summary.trainable as u64, "{}", model.name());
            assert!(summary.layers.iter().all(|l| l.output.rank() > 0), "{:?}", summary.layers);
        }
    }

    #[test]
    fn smallest_sizes() {
        for (name, side) in [("simple-cnn", 22), ("inception-resnet-v2", 75), ("vit-small-16", 16)] {
            assert_eq!(Model::find(name).unwrap().smallest_size(7).unwrap(), side, "{name}");
        }
    }

    #[test]
    fn only_images_that_are_too_small_are_called_so() {
        let advice = |name: &str, size| Model::find(name).unwrap().summary(size, 7).unwrap_err().to_string();
        assert!(advice("vit-small-16", 225).contains("multiple of 16"), "{}", advice("vit-small-16", 225));
        assert!(advice("inception-resnet-v2", 64).contains("from 75 pixels"), "{}", advice("inception-resnet-v2", 64));
        assert!(advice("unet-small", 72).contains("multiples of 16"), "{}", advice("unet-small", 72));
    }

    #[test]
    fn parts_are_blocks_and_layers() {
        let names = ["layer1.0.conv1.weight", "fc.weight", "features.8.0", "cls_token", "blocks.11.attn.qkv"];
        assert_eq!(names.map(part_of), ["layer1.0", "fc", "features.8", "cls_token", "blocks.11"]);
    }
}
