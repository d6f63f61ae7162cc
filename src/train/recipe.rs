//! Recipes: the configurations of published systems, and the best of ours, as commented TOML in the program.
//!
//! A recipe is a file that `train --config` reads, with a table `recipe` that says where it comes from and what was
//! published. Paths are never in it: the data, and weights to start from, are the user's.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// What a recipe says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// What it is, in a line.
    pub about: String,
    /// The dataset it is for, by the name that datasets have.
    pub dataset: String,
    /// Whether it starts from the model's published ImageNet weights.
    #[serde(default)]
    pub pretrained: bool,
    /// Published scores, by the names of [`Scores::named`](super::Scores::named); none for recipes of ours.
    #[serde(default)]
    pub published: BTreeMap<String, f64>,
    /// What the published scores were measured on.
    #[serde(default)]
    pub published_on: String,
    /// In what it is not what the source did, as far as that is known.
    #[serde(default)]
    pub deviates: Vec<String>,
}

/// A recipe.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// Its name.
    pub name: &'static str,
    /// The file.
    pub text: &'static str,
    /// What it says of itself.
    pub about: About,
}

/// The files by their names.
macro_rules! files {
    ($($name:literal),* $(,)?) => { &[$(($name, include_str!(concat!("recipes/", $name, ".toml")))),*] };
}

const FILES: &[(&str, &str)] = files![
    "s0-irv2-a",
    "s0-irv2-b",
    "s0-r50-a",
    "s0-r50-b",
    "s1-cnn",
    "s1-r50-frozen",
    "s1-r50-finetune",
    "s2-r50",
    "s2-r50-se",
    "s3-r18",
    "s4-r50-ml",
    "s4-r101",
    "s4-r152",
    "s4-unet",
    "s4-unet-prep",
    "best-ham10000",
    "best-masks",
];

impl Recipe {
    /// All recipes, in a fixed order.
    ///
    /// # Errors
    /// [`Kind::Internal`] for one that is not well formed: tests read them all.
    pub fn all() -> Result<Vec<Self>> {
        #[derive(Deserialize)]
        struct File {
            recipe: About,
        }
        let read = |&(name, text): &(&'static str, &'static str)| {
            let file: File = toml::from_str(text)
                .map_err(|e| Error::new(Kind::Internal, format!("the recipe {name} is damaged: {e}")))?;
            Ok(Self { name, text, about: file.recipe })
        };
        FILES.iter().map(read).collect()
    }

    /// The recipe called `name`.
    ///
    /// # Errors
    /// [`Kind::Usage`] with the names there are.
    pub fn find(name: &str) -> Result<Self> {
        Self::all()?.into_iter().find(|recipe| recipe.name.eq_ignore_ascii_case(name)).ok_or_else(|| {
            let names: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
            Error::new(Kind::Usage, format!("there is no recipe '{name}'"))
                .next(format!("choose one of: {}", names.join(", ")))
        })
    }
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.about, self.dataset)
    }
}
