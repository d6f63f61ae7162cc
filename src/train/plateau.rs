//! A learning rate that falls when what is monitored stops getting better: Keras' `ReduceLROnPlateau`.

use serde::{Deserialize, Serialize};

/// How the fall goes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlateauConfig {
    /// What the rate is multiplied by.
    pub factor: f64,
    /// Epochs without improvement before it is.
    pub patience: u32,
    /// It never falls below this.
    pub min_lr: f64,
}

impl Default for PlateauConfig {
    fn default() -> Self {
        Self { factor: 0.5, patience: 3, min_lr: 0.0 }
    }
}

/// How far a phase has come with it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, Default)]
pub struct Plateau {
    /// The best value of the phase so far, the higher the better.
    best: Option<f64>,
    /// Epochs since then, or since the last fall.
    since: u32,
    /// How often the rate has fallen.
    falls: u32,
}

impl Plateau {
    /// Takes the value of an epoch, the higher the better; an improvement is more than `delta`.
    pub(super) fn see(&mut self, value: f64, delta: f64, config: &PlateauConfig) {
        if self.best.is_none_or(|best| value > best + delta) {
            (self.best, self.since) = (Some(value), 0);
            return;
        }
        self.since += 1;
        if self.since >= config.patience {
            (self.since, self.falls) = (0, self.falls + 1);
        }
    }

    /// The rate, where it began with `base`.
    pub(super) fn rate(&self, base: f64, config: &PlateauConfig) -> f64 {
        (base * config.factor.powi(self.falls as i32)).max(config.min_lr.min(base))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_falls_after_epochs_without_improvement() {
        let config = PlateauConfig { factor: 0.5, patience: 2, min_lr: 0.2 };
        let mut plateau = Plateau::default();
        let mut rate = |value| {
            plateau.see(value, 0.0, &config);
            plateau.rate(1.0, &config)
        };
        let rates: Vec<f64> =
            [-1.0, -1.0, -2.0, -0.5, -0.6, -0.7, -0.6, -0.5, -0.4].into_iter().map(&mut rate).collect();
        assert_eq!(rates, [1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2]);
        let mut plateau = Plateau::default();
        [0.5, 0.55, 0.59].into_iter().for_each(|value| plateau.see(value, 0.1, &config));
        assert_eq!(plateau.rate(1.0, &config), 0.5, "small steps are no improvement");
        assert_eq!(
            Plateau { falls: 3, ..Plateau::default() }.rate(0.1, &config),
            0.1,
            "never above what it began with"
        );
    }
}
