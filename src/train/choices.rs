//! What a configuration chooses among, by the names of the command line and of files.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::gpu::Gpu;
use crate::models::Task;

/// Declares an enum whose variants have the names used on the command line and in files.
macro_rules! named {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $name { $($(#[$vmeta])* #[serde(rename = $text)] $variant),* }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The names, in order.
            pub const NAMES: &'static [&'static str] = &[$($text),*];

            /// The name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }

        impl std::str::FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                match text {
                    $($text => Ok(Self::$variant),)*
                    _ => Err(Error::new(Kind::Usage, format!("unknown choice '{text}'"))
                        .next(format!("choose one of: {}", Self::NAMES.join(", ")))),
                }
            }
        }
    };
}

pub(super) use named;

named! {
    /// What becomes of a run whose numbers are not finite any more.
    #[derive(Default)]
    Divergence {
        /// It ends.
        #[default]
        Stop = "stop",
        /// It goes back to a checkpoint and on from there with a lower learning rate, three times at most.
        LowerRate = "lower-lr",
    }
}

named! {
    /// The optimizer.
    OptimizerKind {
        /// Adam, weight decay added to the gradient.
        Adam = "adam",
        /// Adam with decoupled weight decay.
        AdamW = "adamw",
        /// Stochastic gradient descent with momentum.
        Sgd = "sgd",
    }
}

named! {
    /// The learning-rate schedule.
    ScheduleKind {
        /// Always the same.
        Constant = "constant",
        /// Half a cosine down to zero.
        Cosine = "cosine",
        /// A fall every so many epochs.
        Step = "step",
        /// A fall whenever what is monitored stops getting better.
        Plateau = "plateau",
    }
}

named! {
    /// The weights of the classes in the loss.
    ClassWeighting {
        /// `N / (K * n_c)`.
        Balanced = "balanced",
        /// `median(n) / n_c`.
        Median = "median",
        /// `1 / n_c`, with mean one.
        Inverse = "inverse",
        /// One over the effective number of samples, with mean one.
        Effective = "effective",
        /// All one.
        None = "none",
    }
}

named! {
    /// In what element type gradients go from rank to rank.
    #[derive(Default)]
    Wire {
        /// As they are.
        #[default]
        F32 = "f32",
        /// Rounded to 16 bits.
        F16 = "f16",
    }
}

named! {
    /// Which training images an epoch visits.
    #[derive(Default)]
    Sampling {
        /// Each once.
        #[default]
        Natural = "natural",
        /// As many of each class, those of rare ones several times.
        Balanced = "balanced",
    }
}

named! {
    /// How pictures are shared out between training, validation and test.
    #[derive(Default)]
    Protocol {
        /// All pictures of a lesion in one part.
        #[default]
        LeakFree = "leak-free",
        /// Picture by picture, as many published tables did: scores are too good.
        Published = "published",
    }
}

named! {
    /// The loss.
    #[derive(Default)]
    LossKind {
        /// Cross-entropy of the softmax: for classes.
        #[default]
        CrossEntropy = "cross-entropy",
        /// Focal loss of the softmax: for classes.
        Focal = "focal",
        /// Focal loss of a sigmoid for each class, which do not exclude each other.
        SigmoidFocal = "sigmoid-focal",
        /// Binary cross-entropy: of a sigmoid for each class, or of the pixels of a mask.
        Bce = "bce",
        /// Binary cross-entropy of the pixels and soft Dice, added: for masks, as all that follow.
        BceDice = "bce-dice",
        /// Soft Dice of each picture.
        Dice = "dice",
        /// Soft Jaccard of each picture.
        Jaccard = "jaccard",
    }
}

impl LossKind {
    /// Whether it is one of models for `task`.
    pub fn fits(self, task: Task) -> bool {
        match self {
            Self::CrossEntropy | Self::Focal | Self::SigmoidFocal => task == Task::Classify,
            Self::BceDice | Self::Dice | Self::Jaccard => task == Task::Segment,
            Self::Bce => true,
        }
    }

    /// Of classes: whether each has a sigmoid of its own, so that a picture may have several.
    pub fn of_sigmoids(self) -> bool {
        matches!(self, Self::Bce | Self::SigmoidFocal)
    }
}

named! {
    /// Mean and standard deviation taken from the pixels.
    Normalisation {
        /// Those of ImageNet, which pretrained weights expect.
        ImageNet = "imagenet",
        /// Those of HAM10000.
        Ham10000 = "ham10000",
        /// Those of ISIC 2019.
        Isic2019 = "isic2019",
        /// None: pixels in `[0, 1]`.
        Unit = "unit",
        /// Blue, green, red, less the means of ImageNet and not scaled, as in Caffe: what Keras's ResNets expect.
        Caffe = "caffe",
        /// Pixels in `[-1, 1]`, as in TensorFlow: what Inception-ResNet-v2 and timm's vision transformer expect.
        Tf = "tf",
    }
}

named! {
    /// The precision of a network's activations.
    #[derive(Default)]
    Precision {
        /// Everything in f32.
        #[default]
        F32 = "f32",
        /// Activations, their gradients and the inputs of convolutions in f16; parameters, statistics, sums and the
        /// loss in f32.
        Mixed = "mixed",
    }
}

impl Precision {
    /// Checks that a device can do it.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] for mixed precision without 16-bit floats.
    pub fn check(self, gpu: &Gpu) -> Result<()> {
        if self == Self::F32 || gpu.caps().f16 {
            return Ok(());
        }
        Err(Error::new(Kind::Unsupported, "mixed precision needs 16-bit floats in shaders, which this adapter lacks")
            .at(&gpu.adapter().name)
            .next("use --precision f32, or choose an adapter with the feature f16 (see `lesion-gpu devices`)"))
    }
}

impl Normalisation {
    /// Mean and standard deviation of red, green, blue, for pixels in `[0, 1]`.
    pub fn mean_std(self) -> ([f32; 3], [f32; 3]) {
        match self {
            Self::ImageNet => ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            Self::Ham10000 => ([0.7630, 0.5456, 0.5700], [0.1409, 0.1526, 0.1700]),
            Self::Isic2019 => ([0.6685, 0.5296, 0.5244], [0.2247, 0.2043, 0.2158]),
            Self::Unit => ([0.0; 3], [1.0; 3]),
            Self::Caffe => ([123.68, 116.779, 103.939].map(|mean| mean / 255.0), [1.0 / 255.0; 3]),
            Self::Tf => ([0.5; 3], [0.5; 3]),
        }
    }

    /// Whether the network gets blue, green and red in this order.
    pub fn is_bgr(self) -> bool {
        self == Self::Caffe
    }

    /// A line that says that it was chosen by the program, and how to choose another.
    pub fn note(self) -> String {
        format!("pictures are normalised as '{}' (--normalize takes another)", self.name())
    }

    /// What published weights of a model expect.
    pub fn of_published(model: &str) -> Self {
        match model {
            "inception-resnet-v2" | "vit-small-16" => Self::Tf,
            keras if keras.ends_with("-keras") => Self::Caffe,
            _ => Self::ImageNet,
        }
    }
}
