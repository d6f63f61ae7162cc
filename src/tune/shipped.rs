//! The choices that come with the program, for GPUs that somebody has measured: `shipped.json`, a list of families. They
//! stand in where the user's own GPU was not measured yet, so that a first run is good. `lesion-gpu tune --table` writes
//! such a list. There is none yet: on the software drivers that were measured the built-in rule won everywhere.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::Outcome;
use crate::gpu::{AdapterSummary, Choices};

/// The choices for adapters whose name and driver contain these words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Family {
    /// In the adapter's name, such as `RTX 4070`.
    pub adapter: String,
    /// In the driver's name and version, such as `NVIDIA 570`. Empty for all.
    pub driver: String,
    /// From shape class to choice.
    pub choices: Choices,
}

static TABLE: LazyLock<Vec<Family>> =
    LazyLock::new(|| serde_json::from_str(include_str!("shipped.json")).unwrap_or_default());

impl Family {
    /// The families that come with the program.
    pub fn shipped() -> &'static [Self] {
        &TABLE
    }

    /// What was found on an adapter, by tuning, whose outcomes begin with the largest.
    pub fn of(adapter: &AdapterSummary, outcomes: &[Outcome]) -> Self {
        // Of the shapes of a class the largest, which come first.
        let choices = outcomes.iter().rev().map(|o| (o.class.clone(), o.best.choice.clone())).collect();
        Self { adapter: adapter.name.clone(), driver: adapter.driver.clone(), choices }
    }

    /// Whether an adapter is one of them.
    pub fn has(&self, adapter: &AdapterSummary) -> bool {
        adapter.name.contains(&self.adapter) && adapter.driver.contains(&self.driver)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `TABLE` itself is empty if it cannot be read.
    #[test]
    fn the_table_is_valid() {
        let families: Vec<Family> = serde_json::from_str(include_str!("shipped.json")).unwrap();
        assert_eq!(families, Family::shipped());
        for family in families {
            assert!(!family.adapter.is_empty() && !family.choices.is_empty());
        }
    }
}
