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

impl Shares {
    /// Shares out the batches of a configuration.
    ///
    /// # Errors
    /// [`Kind::Usage`] if there are not enough rows, or micro-batches, for all.
    pub fn of(team: &Team, config: &TrainConfig) -> Result<Self> {
        let (batch, ranks) = (config.batch, team.size());
        if team.is_alone() {
            let parts = batch / config.images_at_once().max(1);
            return Ok(Self { rows: 0..batch, before: 0, parts, part: config.micro_batch, all: None });
        }
        let all = config.micro_batch.map_or(batch, |part| batch / part.max(1));
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
        let own = team.share(all);
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

    fn shares(ranks: usize, batch: usize, micro_batch: Option<usize>) -> Vec<Result<Shares>> {
        std::thread::scope(|scope| {
            let one = |rank| {
                move || {
                    let team = Team::new(Arc::new(rank)).unwrap();
                    Shares::of(&team, &TrainConfig { batch, micro_batch, ..TrainConfig::default() })
                }
            };
            let running: Vec<_> = threads(ranks).into_iter().map(|rank| scope.spawn(one(rank))).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn every_row_is_one_ranks() {
        for (ranks, batch, micro) in [(1, 8, None), (2, 8, None), (3, 8, None), (2, 8, Some(2)), (3, 20, Some(4))] {
            let all: Vec<Shares> = shares(ranks, batch, micro).into_iter().map(Result::unwrap).collect();
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
        assert_eq!(shares(3, 2, None)[0].as_ref().unwrap_err().kind(), Kind::Usage);
        assert_eq!(shares(3, 8, Some(4))[2].as_ref().unwrap_err().kind(), Kind::Usage);
    }
}
