//! How the batches of a run are shared out over its ranks: by rows, in order, so that a batch is the rows of rank 0, then
//! those of rank 1, and so on. What a rank computes is one part of the batch, or with micro-batches some of its parts; so a
//! run over several ranks is that of one process with as many micro-batches.

use std::ops::Range;

use super::TrainConfig;
use crate::error::{Error, Kind, Result};
use crate::parallel::Team;

/// This rank's share of each batch.
#[derive(Debug, Clone)]
pub(super) struct Shares {
    /// Its rows of the batch.
    pub rows: Range<usize>,
    /// Parts of the batch before its own.
    pub before: usize,
    /// All parts of the batch.
    pub parts: usize,
    /// Rows of one of its parts; `None` for a rank that is alone with a batch in one part.
    part: Option<usize>,
    /// Rows of the batch; `None` for a rank that is alone.
    all: Option<usize>,
}

/// What is shared out of a batch: its micro-batches, or its rows.
fn pieces(config: &TrainConfig) -> usize {
    config.micro_batch.map_or(config.batch, |part| config.batch / part.max(1))
}

/// How many pieces of a batch each rank takes, so that all need about as long: in proportion to their `speeds`, at least one.
/// `None` if there are fewer than ranks.
pub(super) fn by_speed(config: &TrainConfig, speeds: &[f64]) -> Option<Vec<usize>> {
    let more = pieces(config).checked_sub(speeds.len())?;
    let speeds: Vec<f64> = speeds.iter().map(|&speed| if speed.is_finite() { speed.max(1e-9) } else { 1e-9 }).collect();
    let wanted: Vec<f64> = speeds
        .iter()
        .map(|speed| (pieces(config) as f64 * speed / speeds.iter().sum::<f64>() - 1.0).max(0.0))
        .collect();
    let all: f64 = wanted.iter().sum::<f64>().max(1e-9);
    let exact: Vec<f64> = wanted.iter().map(|wanted| more as f64 * wanted / all).collect();
    let mut taken: Vec<usize> = exact.iter().map(|exact| 1 + exact.floor() as usize).collect();
    // What is left goes to those that are furthest below what they should have.
    let mut order: Vec<usize> = (0..taken.len()).collect();
    order.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()).then(a.cmp(&b)));
    let left = pieces(config).saturating_sub(taken.iter().sum());
    order.iter().cycle().take(left).for_each(|&rank| taken[rank] += 1);
    Some(taken)
}

/// How many pieces of a batch each rank takes, in words.
pub(super) fn describe(config: &TrainConfig, taken: &[usize]) -> String {
    let list: Vec<String> = taken.iter().enumerate().map(|(rank, taken)| format!("rank {rank} {taken}")).collect();
    let what = if config.micro_batch.is_some() { "micro-batches" } else { "rows" };
    format!("of the {what} of a batch the ranks take as many as suits their speed: {}", list.join(", "))
}

impl Shares {
    /// Shares out the batches of a configuration: evenly, or so many pieces to each rank.
    ///
    /// # Errors
    /// [`Kind::Usage`] if there are not enough rows, or micro-batches, for all; [`Kind::Checkpoint`] if `taken` is not all of them.
    pub fn of(team: &Team, config: &TrainConfig, taken: Option<&[usize]>) -> Result<Self> {
        let (batch, ranks) = (config.batch, team.size());
        if team.is_alone() {
            let parts = batch / config.images_at_once().max(1);
            return Ok(Self { rows: 0..batch, before: 0, parts, part: config.micro_batch, all: None });
        }
        let all = pieces(config);
        if all < ranks {
            let what = match config.micro_batch {
                None => format!("a batch of {batch} is not enough for {ranks} ranks"),
                Some(part) => {
                    format!("a batch of {batch} has {all} micro-batches of {part}, not enough for {ranks} ranks")
                }
            };
            return Err(
                Error::new(Kind::Usage, what).next("use a larger --batch, a smaller --micro-batch or fewer ranks")
            );
        }
        let own = match taken {
            None => team.share(all),
            Some(taken)
                if taken.len() == ranks
                    && taken.iter().all(|pieces| (1..=all).contains(pieces))
                    && taken.iter().sum::<usize>() == all =>
            {
                let before = taken[..team.rank()].iter().sum();
                before..before + taken[team.rank()]
            }
            Some(_) => {
                return Err(Error::new(Kind::Checkpoint, "the shares of the ranks are not all of a batch").next(
                    "environment.json is damaged: start a new run from weights/best.safetensors with --weights",
                ));
            }
        };
        Ok(match config.micro_batch {
            None => Self { before: team.rank(), parts: ranks, part: Some(own.len()), rows: own, all: Some(batch) },
            Some(part) => {
                let rows = own.start * part..own.end * part;
                Self { before: own.start, parts: all, part: Some(part), rows, all: Some(batch) }
            }
        })
    }

    /// The configuration of this rank's graphs: their batch is its share.
    pub fn own(&self, config: TrainConfig) -> TrainConfig {
        TrainConfig { batch: self.rows.len(), micro_batch: self.part, share_of: self.all, ..config }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::parallel::threads;

    fn shares(ranks: usize, batch: usize, micro_batch: Option<usize>, taken: Option<&[usize]>) -> Vec<Result<Shares>> {
        std::thread::scope(|scope| {
            let one = |rank| {
                move || {
                    let team = Team::new(Arc::new(rank)).unwrap();
                    Shares::of(&team, &TrainConfig { batch, micro_batch, ..TrainConfig::default() }, taken)
                }
            };
            let running: Vec<_> = threads(ranks).into_iter().map(|rank| scope.spawn(one(rank))).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn every_row_is_one_ranks() {
        let even = [(1, 8, None), (2, 8, None), (3, 8, None), (2, 8, Some(2)), (3, 20, Some(4))];
        let uneven: [(_, _, _, &[usize]); 2] = [(3, 8, None, &[1, 5, 2]), (2, 20, Some(4), &[4, 1])];
        let even = even.map(|(ranks, batch, micro)| (ranks, batch, micro, None));
        let uneven = uneven.map(|(ranks, batch, micro, taken)| (ranks, batch, micro, Some(taken)));
        for (ranks, batch, micro, taken) in even.into_iter().chain(uneven) {
            let all: Vec<Shares> = shares(ranks, batch, micro, taken).into_iter().map(Result::unwrap).collect();
            if let Some(taken) = taken {
                let rows = taken.iter().map(|pieces| pieces * micro.unwrap_or(1));
                assert!(all.iter().map(|s| s.rows.len()).eq(rows), "{all:?}");
            }
            assert!(all.iter().flat_map(|s| s.rows.clone()).eq(0..batch), "{all:?}");
            let mut before = 0;
            for own in &all {
                let config = own.own(TrainConfig { batch, micro_batch: micro, ..TrainConfig::default() });
                config.validate().unwrap();
                assert_eq!((own.before, config.batch), (before, own.rows.len()));
                before += config.batch / config.images_at_once();
            }
            assert!(all.iter().all(|own| own.parts == before), "{all:?}");
        }
        assert_eq!(shares(3, 2, None, None)[0].as_ref().unwrap_err().kind(), Kind::Usage);
        assert_eq!(shares(3, 8, Some(4), None)[2].as_ref().unwrap_err().kind(), Kind::Usage);
        for bad in [&[4, 3][..], &[8, 0], &[8], &[2, 2, 4], &[usize::MAX, 9]] {
            assert_eq!(shares(2, 8, None, Some(bad))[1].as_ref().unwrap_err().kind(), Kind::Checkpoint, "{bad:?}");
        }
    }

    #[test]
    fn faster_ranks_take_more() {
        let taken = |batch, micro_batch, speeds: &[f64]| {
            by_speed(&TrainConfig { batch, micro_batch, ..TrainConfig::default() }, speeds)
        };
        assert_eq!(taken(8, None, &[1.0, 1.0]), Some(vec![4, 4]));
        assert_eq!(taken(16, None, &[3.0, 1.0]), Some(vec![12, 4]));
        assert_eq!(taken(10, None, &[1.0, 1.0, 1.0]), Some(vec![4, 3, 3]));
        assert_eq!(taken(16, Some(4), &[10.0, 1.0]), Some(vec![3, 1]), "none goes away empty");
        assert_eq!(taken(32, None, &[100.0, 0.0, f64::NAN]), Some(vec![30, 1, 1]));
        assert_eq!(taken(2, None, &[1.0, 1.0, 1.0]), None);
        // The slowest is done about when the others are.
        for speeds in [[5.0, 3.0, 2.0], [1.0, 7.0, 7.0], [30.0, 31.0, 29.0]] {
            let taken = taken(100, None, &speeds).unwrap();
            assert_eq!(taken.iter().sum::<usize>(), 100);
            let seconds: Vec<f64> = taken.iter().zip(speeds).map(|(&rows, speed)| rows as f64 / speed).collect();
            let (most, least) =
                (seconds.iter().copied().fold(0.0, f64::max), seconds.iter().copied().fold(1e9, f64::min));
            assert!(most < 1.2 * least, "{speeds:?}: {taken:?}");
        }
    }
}
