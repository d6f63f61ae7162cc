//! Mixup and CutMix: which pictures are mixed with which, how, and what is then learned of them.
//!
//! Each visit of a sample draws a partner, uniformly among the other training samples, and a share from Beta(a, a). In
//! mixup (Zhang et al., 2018) the picture is `share own + (1 - share) partner`; in CutMix (Yun et al., 2019) a box of
//! about `1 - share` of the area, with its centre anywhere and cut off at the borders, is the partner's, and the share is
//! what is left. Where both are wanted, each visit takes one or the other with probability 1/2. The partner looks as it
//! does in its own first visit of the epoch.
//!
//! The loss is the sum of the losses for both labels, each times its share and the weight of its class, over the sum of
//! those weights in the batch.
//!
//! The draws of a visit are a stream of their own, keyed by two words of the stream `mix` at `[key, epoch]`: so they
//! depend on seed, epoch and visit alone. Number 0 chooses mixup or CutMix, 1 the partner, 2 and 3 the centre of the box;
//! from 16 on they go into the share.

use std::sync::Arc;

use super::TrainConfig;
use super::graph::input;
use crate::data::{Batch, ImageSize, Loader, LoaderOptions, PixelStore, Visit};
use crate::error::Result;
use crate::rng::Stream;

/// How one picture is mixed with another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Blend {
    /// The other: a number in the dataset.
    pub partner: usize,
    /// The picture's own share outside the box.
    pub share: f32,
    /// The box that is the partner's: top, left, bottom and right in pixels, the last two just outside.
    pub patch: [u32; 4],
    /// The share of the picture's own label.
    pub label: f32,
}

impl Blend {
    /// Hands the inputs of `rows` rows of a graph to `set`; rows beyond the blends stay what they are.
    pub(super) fn upload(blends: &[Self], rows: usize, set: impl Fn(&str, &[u8]) -> Result<()>) -> Result<()> {
        let mut shares: Vec<f32> = blends.iter().map(|blend| blend.share).collect();
        let mut patches: Vec<[u32; 4]> = blends.iter().map(|blend| blend.patch).collect();
        shares.resize(rows, 1.0);
        patches.resize(rows, [0; 4]);
        set(input::MIX_SHARES, bytemuck::cast_slice(&shares))?;
        set(input::MIX_BOXES, bytemuck::cast_slice(&patches))
    }
}

/// The partners of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Partners {
    /// Their pictures and labels, row by row.
    pub batch: Batch,
    /// How each row is mixed with its partner.
    pub blends: Vec<Blend>,
}

/// What is mixed in a run.
#[derive(Debug, Clone)]
pub struct Mixing {
    mixup: f32,
    cutmix: f32,
    seed: u32,
    size: ImageSize,
    pool: Arc<[usize]>,
}

impl Mixing {
    /// That of a configuration, among the samples of `pool`; `None` if there is none.
    pub fn of(config: &TrainConfig, pool: &[usize]) -> Option<Self> {
        let (augment, seed, size) = (config.augment, config.seed, config.size);
        let own = || Self { mixup: augment.mixup, cutmix: augment.cutmix, seed, size, pool: pool.into() };
        augment.mixes().then(own)
    }

    /// How the picture of a visit is mixed.
    pub fn blend(&self, visit: Visit, epoch: u32) -> Blend {
        let [a, b] = Stream::named(self.seed, "mix").words([visit.key(), epoch]);
        let draws = Stream::new(a, b);
        let alone = Blend { partner: visit.sample, share: 1.0, patch: [0; 4], label: 1.0 };
        let others = self.pool.len().saturating_sub(1);
        if others == 0 {
            return alone;
        }
        let cuts = self.mixup == 0.0 || (self.cutmix > 0.0 && draws.uniform(0) >= 0.5);
        let partner = self.partner(visit.sample, others, draws.words([1, 0])[0]);
        if !cuts {
            let share = beta(&draws, self.mixup) as f32;
            return Blend { partner, share, label: share, ..alone };
        }
        let share = beta(&draws, self.cutmix);
        let ImageSize { width, height } = self.size;
        let span = |extent: usize, draw: u64| {
            let length = (extent as f64 * (1.0 - share).sqrt()).round() as i64;
            let first = (f64::from(draws.uniform(draw)) * extent as f64) as i64 - length / 2;
            [first.max(0) as u32, (first + length).min(extent as i64) as u32]
        };
        let ([top, bottom], [left, right]) = (span(height, 2), span(width, 3));
        let covered = f64::from((bottom - top) * (right - left)) / (width * height) as f64;
        Blend { partner, patch: [top, left, bottom, right], label: (1.0 - covered) as f32, ..alone }
    }

    /// One of the `others` of a sample, by a random word.
    fn partner(&self, sample: usize, others: usize, word: u32) -> usize {
        let number = ((u64::from(word) * others as u64) >> 32) as usize;
        // The place of the sample is taken by the last.
        match self.pool[number] {
            own if own == sample => self.pool[self.pool.len() - 1],
            other => other,
        }
    }

    /// The partners of the batches that a loader makes of `order`.
    ///
    /// # Errors
    /// As [`Loader::new`].
    pub fn partners(
        &self,
        (pixels, labels): (Arc<PixelStore>, Arc<[u32]>),
        order: &[Visit],
        epoch: u32,
        options: LoaderOptions,
    ) -> Result<impl Iterator<Item = Result<Partners>> + use<>> {
        let blends: Vec<Blend> = order.iter().map(|&visit| self.blend(visit, epoch)).collect();
        let loader =
            Loader::new(pixels, labels, blends.iter().map(|blend| blend.partner).collect::<Vec<_>>(), options)?;
        let rows = options.batch;
        Ok(loader.enumerate().map(move |(i, batch)| {
            let blends = blends[i * rows..blends.len().min((i + 1) * rows)].to_vec();
            Ok(Partners { batch: batch?, blends })
        }))
    }
}

/// A draw of Beta(a, a), from number 16 of `draws` on: a gamma variate over the sum of two, by their logarithms, for with
/// a small `a` both may be too small for a float.
fn beta(draws: &Stream, a: f32) -> f64 {
    let [own, other] = [0, 1].map(|which| log_gamma_variate(draws, f64::from(a), which));
    1.0 / (1.0 + (other - own).exp())
}

/// The logarithm of a draw of Gamma(a, 1). G. Marsaglia, W. Tsang, "A simple method for generating gamma variables", ACM
/// Trans. Math. Softw. 26, 2000, with the power of section 6 so that `a` may lie below 1.
fn log_gamma_variate(draws: &Stream, a: f64, which: u64) -> f64 {
    let d = a + 1.0 - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    let uniform = |i: u64| (f64::from(draws.uniform(i)) + 0.5 / 16_777_216.0).ln();
    // Three draws a round for each of two variates, and one for the power. A round fails with a probability below 5 %.
    let number = |i: u64| 16 + 2 * i + which;
    let accepted = (0..1000).find_map(|round| {
        let x = f64::from(draws.normal(number(3 * round + 1)));
        let v = (1.0 + c * x).powi(3);
        let accepted = v > 0.0 && uniform(number(3 * round + 2)) < 0.5 * x * x + d - d * v + d * v.ln();
        accepted.then(|| (d * v).ln())
    });
    accepted.unwrap_or(d.ln()) + uniform(number(0)) / a
}

#[cfg(test)]
mod tests {
    use super::super::AugmentConfig;
    use super::*;

    fn of_pool(mixup: f32, cutmix: f32, pool: &[usize]) -> Mixing {
        let augment = AugmentConfig { mixup, cutmix, ..AugmentConfig::NONE };
        let config = TrainConfig { augment, size: "20x30".parse().unwrap(), ..TrainConfig::default() };
        Mixing::of(&config, pool).expect("something is mixed")
    }

    #[test]
    fn shares_are_those_of_a_beta_distribution() {
        for a in [0.01_f32, 0.2, 1.0, 5.0, 100.0] {
            let n = 4000;
            let draw = |i: i32| beta(&Stream::new(3, 4 + i as u32), a);
            let shares: Vec<f64> = (0..n).map(draw).collect();
            assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)), "{a}");
            let mean = shares.iter().sum::<f64>() / f64::from(n);
            let variance = shares.iter().map(|share| (share - 0.5).powi(2)).sum::<f64>() / f64::from(n);
            let want = 1.0 / (4.0 * (2.0 * f64::from(a) + 1.0));
            // Five standard errors.
            assert!((mean - 0.5).abs() < 5.0 * (want / f64::from(n)).sqrt(), "{a}: {mean}");
            assert!((variance / want - 1.0).abs() < 0.12, "{a}: {variance} {want}");
            // The quarter below which a fourth of them lie, where that is known in closed form.
            if a == 1.0 {
                let low = shares.iter().filter(|share| **share < 0.25).count();
                assert!((860..1140).contains(&low), "{low}");
            }
        }
    }

    #[test]
    fn partners_are_all_others_alike_and_never_the_sample_itself() {
        let pool = [3, 4, 7, 9, 10];
        let mixing = of_pool(0.4, 0.0, &pool);
        for &sample in &pool {
            let mut seen = std::collections::BTreeMap::new();
            for epoch in 0..1000 {
                *seen.entry(mixing.blend(sample.into(), epoch).partner).or_insert(0) += 1;
            }
            assert!(seen.keys().copied().eq(pool.into_iter().filter(|&other| other != sample)), "{seen:?}");
            // 250 each, with a standard deviation of 14.
            assert!(seen.values().all(|count| (180..320).contains(count)), "{seen:?}");
        }
        let alone = of_pool(0.4, 1.0, &[6]).blend(6.into(), 0);
        assert_eq!((alone.partner, alone.share, alone.patch, alone.label), (6, 1.0, [0; 4], 1.0));
    }

    #[test]
    fn both_kinds_occur_and_the_label_has_the_share_of_the_picture() {
        let pool: Vec<usize> = (0..50).collect();
        let mixing = of_pool(1.0, 1.0, &pool);
        let (mut cuts, mut covered) = (0, 0.0);
        for epoch in 0..2000 {
            let Blend { share, patch: [top, left, bottom, right], label, .. } = mixing.blend(8.into(), epoch);
            assert!(top <= bottom && bottom <= 30 && left <= right && right <= 20 && (0.0..=1.0).contains(&label));
            let area = f64::from((bottom - top) * (right - left)) / 600.0;
            assert!((f64::from(share) * (1.0 - area) - f64::from(label)).abs() < 1e-6);
            if share == 1.0 {
                (cuts, covered) = (cuts + 1, covered + area);
            }
        }
        assert!((880..1120).contains(&cuts), "{cuts}");
        // Of a side r of 1, with its centre anywhere, r - r^2 / 4 lies inside; r^2 is uniform. So the mean of the area is
        // that of (r - r^2 / 4)^2, which is 1/2 - 1/5 + 1/48.
        let mean = covered / f64::from(cuts);
        assert!((mean - (0.5 - 0.2 + 1.0 / 48.0)).abs() < 0.04, "{mean}");
        // Another visit of the same epoch is mixed in another way, the same visit in the same.
        let [first, again] = [0, 1].map(|again| mixing.blend(Visit { sample: 8, again }, 3));
        assert_ne!(first, again);
        assert_eq!(first, of_pool(1.0, 1.0, &pool).blend(8.into(), 3));
    }
}
