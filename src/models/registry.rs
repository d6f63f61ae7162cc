//! The models by name.

use super::resnet::{Block, ResNet, SqueezeExcite, Variant};
use super::unet::{self, UNet};
use super::{Head, efficientnet, inception_resnet_v2, simple_cnn, unet_resnet, vit};
use crate::autograd::Tensor;
use crate::error::{Error, Kind, Result};
use crate::nn::Net;

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// A class for each picture: logits `[N, classes]`.
    Classify,
    /// A mask for each picture: logits `[N, H, W, 1]` of its pixels.
    Segment,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Architecture {
    SimpleCnn,
    ResNet(ResNet),
    InceptionResNetV2,
    EfficientNetB0,
    VitSmall16,
    UNet(UNet),
    UNetResNet(ResNet),
}

/// A model of the registry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Model {
    name: &'static str,
    about: &'static str,
    pub(super) architecture: Architecture,
}

const fn resnet(
    name: &'static str,
    about: &'static str,
    block: Block,
    layers: [usize; 4],
    squeeze_excite: SqueezeExcite,
) -> Model {
    let variant = Variant::Torch;
    Model { name, about, architecture: Architecture::ResNet(ResNet { block, layers, squeeze_excite, variant }) }
}

const fn keras_resnet(name: &'static str, about: &'static str, layers: [usize; 4]) -> Model {
    let (block, squeeze_excite, variant) = (Block::Bottleneck, SqueezeExcite::None, Variant::Keras);
    Model { name, about, architecture: Architecture::ResNet(ResNet { block, layers, squeeze_excite, variant }) }
}

const fn unet_resnet(name: &'static str, about: &'static str, block: Block, layers: [usize; 4]) -> Model {
    let encoder = ResNet { block, layers, squeeze_excite: SqueezeExcite::None, variant: Variant::Torch };
    Model { name, about, architecture: Architecture::UNetResNet(encoder) }
}

const MODELS: &[Model] = &[
    Model {
        name: "simple-cnn",
        about: "three convolutions and two linear layers: the usual baseline",
        architecture: Architecture::SimpleCnn,
    },
    resnet("resnet18", "ResNet-18", Block::Basic, [2, 2, 2, 2], SqueezeExcite::None),
    resnet("resnet34", "ResNet-34", Block::Basic, [3, 4, 6, 3], SqueezeExcite::None),
    resnet("resnet50", "ResNet-50 v1.5", Block::Bottleneck, [3, 4, 6, 3], SqueezeExcite::None),
    resnet("resnet101", "ResNet-101 v1.5", Block::Bottleneck, [3, 4, 23, 3], SqueezeExcite::None),
    resnet("resnet152", "ResNet-152 v1.5", Block::Bottleneck, [3, 8, 36, 3], SqueezeExcite::None),
    resnet(
        "resnet50-se",
        "ResNet-50 with one squeeze-excite block on the final map",
        Block::Bottleneck,
        [3, 4, 6, 3],
        SqueezeExcite::FinalMap,
    ),
    resnet(
        "seresnet50",
        "SE-ResNet-50: squeeze-excite in every block",
        Block::Bottleneck,
        [3, 4, 6, 3],
        SqueezeExcite::EveryBlock,
    ),
    keras_resnet("resnet50-keras", "ResNet-50 as Keras has it", [3, 4, 6, 3]),
    keras_resnet("resnet101-keras", "ResNet-101 as Keras has it", [3, 4, 23, 3]),
    keras_resnet("resnet152-keras", "ResNet-152 as Keras has it", [3, 8, 36, 3]),
    Model { name: "inception-resnet-v2", about: "Inception-ResNet-v2", architecture: Architecture::InceptionResNetV2 },
    Model { name: "efficientnet-b0", about: "EfficientNet-B0", architecture: Architecture::EfficientNetB0 },
    Model {
        name: "vit-small-16",
        about: "vision transformer, small, patches of 16x16 pixels",
        architecture: Architecture::VitSmall16,
    },
    Model { name: "unet-small", about: "U-Net of 16 to 256 filters", architecture: Architecture::UNet(unet::SMALL) },
    Model { name: "unet", about: "U-Net of 64 to 1024 filters", architecture: Architecture::UNet(unet::CLASSIC) },
    unet_resnet("unet-resnet18", "U-Net with a ResNet-18 as its encoder", Block::Basic, [2, 2, 2, 2]),
    unet_resnet("unet-resnet34", "U-Net with a ResNet-34 as its encoder", Block::Basic, [3, 4, 6, 3]),
    unet_resnet("unet-resnet50", "U-Net with a ResNet-50 as its encoder", Block::Bottleneck, [3, 4, 6, 3]),
];

impl Model {
    /// All models.
    pub fn all() -> &'static [Self] {
        MODELS
    }

    /// The model called `name`.
    ///
    /// # Errors
    /// [`Kind::Usage`] with the names there are.
    pub fn find(name: &str) -> Result<Self> {
        MODELS.iter().find(|m| m.name == name).copied().ok_or_else(|| {
            let names = MODELS.iter().map(|m| m.name).collect::<Vec<_>>().join(", ");
            Error::new(Kind::Usage, format!("unknown model '{name}'")).next(format!("choose one of: {names}"))
        })
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it is, in a few words.
    pub fn about(&self) -> &'static str {
        self.about
    }

    /// What it is for.
    pub fn task(&self) -> Task {
        match self.architecture {
            Architecture::UNet(_) | Architecture::UNetResNet(_) => Task::Segment,
            _ => Task::Classify,
        }
    }

    /// The outputs of a picture, or of each of its pixels, for data of so many classes.
    pub fn outputs(&self, classes: usize) -> usize {
        match self.task() {
            Task::Classify => classes,
            Task::Segment => 1,
        }
    }

    /// Traces the model: logits `[N, outputs]` or, to segment, `[N, H, W, outputs]` (f32) of images `x` `[N, H, W, 3]`.
    /// Images in f16 make a network of mixed precision: activations in f16, parameters in f32.
    ///
    /// # Errors
    /// [`Kind::Shape`] if the images are too small, or no multiples of what a model needs.
    pub fn forward(&self, net: &mut Net<'_>, x: Tensor, outputs: usize) -> Result<Tensor> {
        let features = self.features(net, x)?;
        self.classify(net, features, None, outputs)
    }

    /// Traces the backbone: what the head reads, `[N, F]` or a map `[N, H, W, C]`, of images `x` `[N, H, W, 3]`. Of a model
    /// that segments it is all but the last convolution.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn features(&self, net: &mut Net<'_>, x: Tensor) -> Result<Tensor> {
        let features = match self.architecture {
            Architecture::SimpleCnn => simple_cnn::features(net, x),
            Architecture::ResNet(resnet) => resnet.features(net, x),
            Architecture::InceptionResNetV2 => inception_resnet_v2::features(net, x),
            Architecture::EfficientNetB0 => efficientnet::features(net, x),
            Architecture::VitSmall16 => vit::features(net, x),
            Architecture::UNet(unet) => unet.features(net, x),
            Architecture::UNetResNet(encoder) => unet_resnet::features(encoder, net, x),
        };
        features.map_err(|e| match e.kind() {
            Kind::Shape => e.or_next("use a larger --size: `lesion-gpu models` lists the smallest of each model"),
            _ => e,
        })
    }

    /// Traces the head: logits (f32) of features, as many as `outputs` for each picture, or for each pixel of a model that
    /// segments. `None` for the model's own.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a head that makes no sense.
    pub fn classify(&self, net: &mut Net<'_>, features: Tensor, head: Option<&Head>, outputs: usize) -> Result<Tensor> {
        net.head(|net| {
            let x = match self.architecture {
                Architecture::ResNet(resnet) => resnet.neck(net, features)?,
                _ => features,
            };
            let logits = match (head, self.architecture) {
                (Some(_), Architecture::UNet(_) | Architecture::UNetResNet(_)) => Err(Error::new(
                    Kind::Usage,
                    format!("{} segments: a head of dense layers is for classes", self.name),
                )
                .next("leave the head away")),
                (Some(head), _) => head.forward(net, x, self.classifier(), outputs),
                (None, Architecture::SimpleCnn) => simple_cnn::classify(net, x, outputs),
                (None, Architecture::ResNet(_) | Architecture::InceptionResNetV2) => {
                    net.linear(self.classifier()[1], x, outputs)
                }
                (None, Architecture::EfficientNetB0) => efficientnet::classify(net, x, outputs),
                (None, Architecture::VitSmall16) => vit::classify(net, x, outputs),
                (None, Architecture::UNet(_)) => unet::classify(net, x, outputs),
                (None, Architecture::UNetResNet(_)) => unet_resnet::classify(net, x, outputs),
            }?;
            net.full_precision(logits)
        })
    }

    /// The name of the model's classifier, and that of its dense layer where it is the only one.
    fn classifier(&self) -> [&'static str; 2] {
        match self.architecture {
            Architecture::SimpleCnn | Architecture::ResNet(_) => ["fc", "fc"],
            Architecture::InceptionResNetV2 => ["classif", "classif"],
            Architecture::EfficientNetB0 => ["classifier", "classifier.1"],
            Architecture::VitSmall16 | Architecture::UNet(_) => ["head", "head"],
            Architecture::UNetResNet(_) => ["segmentation_head", "segmentation_head.0"],
        }
    }

    /// The layer that an answer is explained by where no other is named: of a model that classifies the last one with a map,
    /// of one that segments the one with the smallest map. In a transformer's last block only what goes into its attention
    /// reaches the class token from everywhere, so there it is the norm before it.
    pub fn explained_layer(&self) -> &'static str {
        match self.architecture {
            Architecture::SimpleCnn => "conv3",
            Architecture::ResNet(_) => "layer4",
            Architecture::InceptionResNetV2 => "conv2d_7b",
            Architecture::EfficientNetB0 => "features.8",
            Architecture::VitSmall16 => "blocks.11.norm1",
            Architecture::UNet(_) => "bottleneck",
            Architecture::UNetResNet(_) => "encoder.layer4",
        }
    }

    /// Rows and columns of the patches that a transformer cuts pictures of `[height, width]` pixels into; its tokens are the
    /// class token and these, row by row. None for other models.
    pub fn patches(&self, size: [usize; 2]) -> Option<[usize; 2]> {
        matches!(self.architecture, Architecture::VitSmall16).then(|| size.map(|side| side / vit::PATCH))
    }

    /// The parts of the backbone that are frozen and trained as a whole, in forward order: a name, and the layer that the
    /// part begins with.
    pub fn stages(&self) -> Vec<(String, String)> {
        let numbered = |layer: &str, count: usize| -> Vec<(String, String)> {
            (0..count).map(|i| (format!("{layer}.{i}"), format!("{layer}.{i}"))).collect()
        };
        let named = |stages: &[(&str, &str)]| -> Vec<(String, String)> {
            stages.iter().map(|&(name, first)| (name.to_owned(), first.to_owned())).collect()
        };
        match self.architecture {
            Architecture::SimpleCnn => named(&[("conv1", "conv1"), ("conv2", "conv2"), ("conv3", "conv3")]),
            Architecture::ResNet(_) => named(&[
                ("stem", "conv1"),
                ("layer1", "layer1"),
                ("layer2", "layer2"),
                ("layer3", "layer3"),
                ("layer4", "layer4"),
            ]),
            // Where the map shrinks.
            Architecture::InceptionResNetV2 => named(&[
                ("stem", "conv2d_1a"),
                ("block35", "mixed_5b"),
                ("block17", "mixed_6a"),
                ("block8", "mixed_7a"),
            ]),
            Architecture::EfficientNetB0 => numbered("features", 9),
            Architecture::VitSmall16 => [named(&[("stem", "patch_embed")]), numbered("blocks", vit::BLOCKS)].concat(),
            Architecture::UNet(_) => named(&[
                ("encoder1", "encoder1"),
                ("encoder2", "encoder2"),
                ("encoder3", "encoder3"),
                ("encoder4", "encoder4"),
                ("bottleneck", "bottleneck"),
                ("decoder", "up4"),
            ]),
            Architecture::UNetResNet(_) => named(&[
                ("stem", "encoder.conv1"),
                ("layer1", "encoder.layer1"),
                ("layer2", "encoder.layer2"),
                ("layer3", "encoder.layer3"),
                ("layer4", "encoder.layer4"),
                ("decoder", "decoder"),
            ]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::{Plan, Tape};
    use crate::gpu::Caps;
    use crate::nn::{Mode, Parameter};
    use crate::tensor::TensorType;

    /// The share of a batch in the running statistics: torchvision's .1, and 1 - .99 in Keras.
    #[test]
    fn batch_norm_moves_as_in_the_framework() {
        for (name, want) in [("resnet50", 0.1), ("resnet50-keras", 0.01)] {
            let mut tape = Tape::new();
            let x = tape.input("images", TensorType::f32([2, 32, 32, 3]));
            let mut net = Net::new(&mut tape, Mode::Train, 1);
            let y = Model::find(name).unwrap().forward(&mut net, x, 7).unwrap();
            let plan = Plan::new(&tape, &[y], &Caps::baseline()).unwrap();
            let merges = plan.dispatches.iter().map(|d| &d.dispatch).filter(|d| d.kernel.entry == "merge");
            // The momentum is the last parameter of a merge of statistics.
            let found: Vec<f32> = merges.map(|d| bytemuck::pod_read_unaligned(&d.parameters.bytes[24..28])).collect();
            assert_eq!(found, vec![want; 53], "{name}");
        }
    }

    /// Counts published with torchvision, with the paper (SE-ResNet-50), by Keras's `summary()`, and for the baseline at
    /// 128x128.
    #[test]
    fn parameter_counts() {
        let counts = [
            ("simple-cnn", 128, 7, 3_305_543),
            ("resnet18", 64, 1000, 11_689_512),
            ("resnet34", 64, 1000, 21_797_672),
            ("resnet50", 64, 1000, 25_557_032),
            ("resnet101", 64, 1000, 44_549_160),
            ("resnet152", 64, 1000, 60_192_808),
            ("seresnet50", 64, 1000, 28_088_024),
            ("resnet50-keras", 64, 1000, 25_583_592),
            ("resnet101-keras", 64, 1000, 44_601_832),
            ("resnet152-keras", 64, 1000, 60_268_520),
            ("inception-resnet-v2", 75, 1000, 55_843_464),
            ("efficientnet-b0", 64, 1000, 5_288_548),
            ("vit-small-16", 224, 1000, 22_050_664),
        ];
        for (name, size, classes, want) in counts {
            let summary = Model::find(name).unwrap().summary(size, classes).unwrap();
            assert_eq!(summary.trainable, want, "{name}");
        }
    }

    /// The published count of the small U-Net; of the others those of segmentation_models_pytorch, and of the paper's
    /// widths in PyTorch.
    #[test]
    fn parameter_counts_of_unets() {
        let counts = [
            ("unet-small", 2_164_593, 2_161_649),
            ("unet", 31_049_409, 31_037_633),
            ("unet-resnet18", 14_339_793, 14_328_209),
            ("unet-resnet34", 24_455_377, 24_436_369),
            ("unet-resnet50", 32_576_209, 32_521_105),
        ];
        for (name, all, trained) in counts {
            let summary = Model::find(name).unwrap().summary(64, 7).unwrap();
            assert_eq!(summary.trainable, trained, "{name}");
            assert_eq!(summary.parameters.iter().map(Parameter::count).sum::<usize>(), all, "{name}");
        }
    }

    #[test]
    fn unets_give_a_logit_for_each_pixel() {
        for (name, [height, width]) in [("unet-small", [48, 64]), ("unet-resnet18", [50, 61])] {
            let mut tape = Tape::new();
            let x = tape.input("images", TensorType::f32([2, height, width, 3]));
            let mut net = Net::new(&mut tape, Mode::Eval, 0);
            let y = Model::find(name).unwrap().forward(&mut net, x, 1).unwrap();
            assert_eq!(net.shape(y).dims(), [2, height, width, 1], "{name}");
        }
        let error = Model::find("unet").unwrap().summary(100, 1).unwrap_err();
        assert!(error.kind() == Kind::Shape && error.to_string().contains("--size 96x96"), "{error}");
    }

    #[test]
    fn too_small_images_and_unknown_names_are_errors() {
        assert_eq!(Model::find("simple-cnn").unwrap().summary(8, 7).unwrap_err().kind(), Kind::Shape);
        assert_eq!(Model::find("inception-resnet-v2").unwrap().summary(74, 7).unwrap_err().kind(), Kind::Shape);
        assert_eq!(Model::find("resnet19").unwrap_err().kind(), Kind::Usage);
    }
}
