//! Several processes that train one model together: what a training needs of them, and nothing of what it does with it.
//!
//! A *rank* is one of them, by its number from 0. [`Ranks`] is how it reaches the others: implemented by a process that is
//! alone ([`Alone`]), by threads of one process ([`threads`]), and, with the feature `mpi`, by processes that `mpirun` has
//! started (`mpi`). A [`Team`] is what training code holds: with it every rank learns of the failure of any other.
//!
//! Sums do not depend on who comes first: a rank adds up its share of all numbers in the order of the ranks, and then the
//! shares are put together. So all ranks hold the same bits, and another run does too.

mod alone;
mod launch;
#[cfg(feature = "mpi")]
mod mpi;
mod peers;
mod reduce;
mod team;
mod threads;

use std::fmt;

pub use alone::Alone;
pub use launch::{Launch, launched_ranks};
pub use peers::Peers;
pub use reduce::{Transit, all_reduce_f16, all_reduce_f32, all_reduce_f64, largest_magnitude};
pub use team::Team;
pub use threads::{Thread, threads};

use crate::error::Result;

/// The ranks of a run, seen from one of them. All ranks call the same functions in the same order.
pub trait Ranks: fmt::Debug + Send + Sync {
    /// The number of this rank, from 0.
    fn rank(&self) -> usize;

    /// How many ranks there are, at least 1.
    fn size(&self) -> usize;

    /// The name of the machine it runs on.
    fn host(&self) -> String;

    /// The bytes of every rank, in the order of the ranks; those of each rank may have another length.
    ///
    /// # Errors
    /// [`Kind::RankLost`](crate::Kind::RankLost) if a rank is gone and that does not end this process anyway.
    fn gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// Sends block `i` of `blocks`, of which there are as many as ranks and all of one length, to rank `i`; writes to `given`, as
    /// long as `blocks`, the block that each rank has sent here, in the order of the ranks, one behind the other.
    ///
    /// # Errors
    /// As [`gather`](Self::gather).
    fn exchange_blocks(&self, blocks: &[u8], given: &mut [u8]) -> Result<()>;

    /// Writes the block of every rank, all of one length, to `all`, in the order of the ranks, one behind the other.
    ///
    /// # Errors
    /// As [`gather`](Self::gather).
    fn gather_blocks(&self, block: &[u8], all: &mut [u8]) -> Result<()>;

    /// The bytes of rank 0, on all ranks; what the others pass does not matter.
    ///
    /// # Errors
    /// As [`gather`](Self::gather).
    fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let own = if self.rank() == 0 { bytes } else { vec![] };
        Ok(self.gather(&own)?.swap_remove(0))
    }

    /// Waits until all ranks are here.
    ///
    /// # Errors
    /// As [`gather`](Self::gather).
    fn barrier(&self) -> Result<()> {
        self.gather(&[]).map(drop)
    }

    /// As [`barrier`](Self::barrier), for ranks that leave the machine to others meanwhile: they look only now and then.
    ///
    /// # Errors
    /// As [`gather`](Self::gather).
    fn rest(&self) -> Result<()> {
        self.barrier()
    }

    /// Ends all ranks at once with this exit code. Returns only where ranks are threads: they then fail at what they share.
    fn abort(&self, code: u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each rank makes, in the order of the ranks.
    pub(super) fn on_each<T: Send>(size: usize, work: impl Fn(&dyn Ranks) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let work = &work;
            let running: Vec<_> = threads(size).into_iter().map(|rank| scope.spawn(move || work(&rank))).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn bytes_of_any_length_come_in_the_order_of_the_ranks() {
        for (rank, (all, first)) in on_each(4, |ranks| {
            let own = vec![ranks.rank() as u8; ranks.rank()];
            ranks.barrier().unwrap();
            (ranks.gather(&own).unwrap(), ranks.broadcast(vec![9 + ranks.rank() as u8]).unwrap())
        })
        .into_iter()
        .enumerate()
        {
            assert_eq!(all, [vec![], vec![1], vec![2, 2], vec![3, 3, 3]], "rank {rank}");
            assert_eq!(first, [9]);
        }
    }

    #[test]
    fn a_rank_that_gives_up_leaves_nobody_waiting() {
        let kinds = on_each(3, |ranks| match ranks.rank() {
            1 => {
                ranks.abort(14);
                None
            }
            _ => ranks.gather(b"x").err().map(|e| e.kind()),
        });
        assert_eq!(kinds, [Some(crate::Kind::RankLost), None, Some(crate::Kind::RankLost)]);
    }
}
