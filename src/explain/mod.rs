//! Where in a picture a model looks: maps of what an answer rests on.
//!
//! - [`Method::GradCam`]: R. R. Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based
//!   localization", ICCV 2017, section 3.
//! - [`Method::GradCamPlusPlus`]: A. Chattopadhay et al., "Grad-CAM++: generalized gradient-based visual explanations for
//!   deep convolutional networks", WACV 2018, section 3.
//! - [`Method::Rollout`]: S. Abnar and W. Zuidema, "Quantifying attention flow in transformers", ACL 2020, section 3.
//!
//! The model runs in evaluation mode and in f32, whatever it was trained in. Gradients come from the tape: from the logit
//! down to the layer that is looked at, and no further, so no parameter has one. What is done with them is little, and is
//! done on the host.
//!
//! A map says what raised the answer, not whether the answer is right, nor what in that place counted. Two maps are compared
//! by their shape: the scale of one is its own.
//!
//! - `explainer`: models on a device; `graph`: what they compute; `layers`: the layers by name
//! - `cam`, `rollout`: from gradients and from attention to a map
//! - `map`: maps, on pictures and in files; `draw`: in colours
//!
//! ```no_run
//! use lesion_gpu::data::{Batch, decode_rgb_file};
//! use lesion_gpu::explain::{Explainer, Look, overlay};
//! use lesion_gpu::gpu::{Gpu, GpuOptions};
//! use lesion_gpu::train::{HostModel, ModelSource};
//!
//! # fn main() -> lesion_gpu::Result<()> {
//! let gpu = Gpu::open(&GpuOptions::default())?;
//! let model = HostModel::read(&ModelSource::Run("runs/resnet18-001".into()))?;
//! let mut explainer = Explainer::new(&gpu, model, 1, &Look::default(), None)?;
//! let picture = decode_rgb_file("photo.jpg".as_ref())?;
//! let recipe = explainer.config.preparation();
//! let (size, area) = ((&picture).into(), recipe.preprocess.area(&picture));
//! let batch = Batch::of_pictures(&[recipe.make(picture.clone())], recipe.size, 1);
//! for found in explainer.explain(&gpu, &batch, &[None])? {
//!     println!("{}", explainer.classes[found.class]);
//!     let drawn = overlay(&picture, &found.map.on(size, area)?);
//! }
//! # Ok(())
//! # }
//! ```

mod cam;
mod draw;
mod explainer;
mod graph;
mod layers;
mod map;
mod rollout;

pub use draw::{heat_map, overlay};
pub use explainer::{Explainer, Explanation};
pub use map::{CamMap, share_inside};

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Kind, Result};
use crate::models::Model;
use crate::train::{TracedModel, TrainConfig};

/// How a map is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The channels of a layer, each weighted by the mean of its gradients.
    GradCam,
    /// The same with a weighted mean of the positive gradients: better where a picture shows the class more than once.
    GradCamPlusPlus,
    /// How far attention carries each patch to the class token, of transformers. It is the same for all classes.
    Rollout,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::GradCam, Self::GradCamPlusPlus, Self::Rollout];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::GradCam => "grad-cam",
            Self::GradCamPlusPlus => "grad-cam++",
            Self::Rollout => "rollout",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Method {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|method| method.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::new(Kind::Usage, format!("unknown method '{text}'")).next(format!("choose one of: {names}"))
        })
    }
}

/// The least places a side of a map that shows anything.
const LEAST: usize = 4;

impl Look {
    /// The default, but where pictures are so small that its map has less than four places a side, an earlier layer that has
    /// more, if there is one.
    ///
    /// # Errors
    /// [`Kind::Shape`] if the model does not take images of the configuration's size.
    pub fn fine(model: Model, config: &TrainConfig) -> Result<Self> {
        if model.patches(config.size.rows_columns()).is_some() {
            return Ok(Self::default());
        }
        let traced = TracedModel::from_pixels(model, config, 1, model.outputs(1))?;
        Ok(Self { layer: layers::finer(&traced.tape, model.explained_layer(), LEAST), ..Self::default() })
    }
}

/// What is looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// How; by default [`Method::Rollout`] at transformers, else [`Method::GradCam`].
    pub method: Option<Method>,
    /// The layer, by the name of a module in weight files; by default
    /// [`Model::explained_layer`](crate::models::Model::explained_layer).
    pub layer: Option<String>,
}
