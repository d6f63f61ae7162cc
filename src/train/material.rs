//! What a run works on: its dataset, decoded, split and perhaps balanced.

use std::sync::Arc;

use super::{Protocol, TrainConfig};
use crate::data::{Cache, Dataset, PixelStore, SplitAssignment, balance_all, balance_train, split};
use crate::error::Result;

/// A dataset with its pixels and its split.
#[derive(Debug, Clone)]
pub struct Material {
    /// The dataset.
    pub dataset: Dataset,
    /// Its pixels, in the order of its samples.
    pub pixels: Arc<PixelStore>,
    /// Its split.
    pub split: SplitAssignment,
}

impl Material {
    /// Decodes a dataset at the configuration's size, and splits and balances it as the configuration says. `progress` is
    /// that of [`PixelStore::prepare`].
    ///
    /// # Errors
    /// Those of [`PixelStore::prepare`] and [`split()`].
    pub fn prepare(
        mut dataset: Dataset,
        config: &TrainConfig,
        cache: Cache<'_>,
        progress: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<Self> {
        if config.balance.is_some() && dataset.samples.iter().any(|sample| !sample.more.is_empty()) {
            dataset.notes.push("classes are balanced by the first class of each image".to_owned());
        }
        let (seed, first) = (config.split.seed, config.split.protocol == Protocol::Published);
        if let Some(per_class) = config.balance.filter(|_| first) {
            dataset.settle()?;
            balance_all(&mut dataset, per_class, seed);
        }
        let mut pixels = PixelStore::prepare(&mut dataset, config.preparation(), cache, progress)?;
        let mut split = split(&dataset, &config.split.spec())?;
        if let Some(per_class) = config.balance.filter(|_| !first) {
            balance_train(&mut dataset, &mut split, per_class, seed);
            pixels = PixelStore::prepare(&mut dataset, config.preparation(), cache, progress)?;
        }
        dataset.notes.extend_from_slice(pixels.notes());
        Ok(Self { dataset, pixels: Arc::new(pixels), split })
    }
}
