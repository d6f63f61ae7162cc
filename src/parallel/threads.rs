//! Ranks that are threads of one process: for tests, and for whoever has several devices and no MPI.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::Ranks;
use crate::error::{Error, Kind, Result};

/// What the ranks of a process share.
#[derive(Debug)]
struct Table {
    round: Mutex<Round>,
    changed: Condvar,
}

/// One exchange: all put something down, then all take, then the next may begin.
#[derive(Debug)]
struct Round {
    put: Vec<Option<Vec<u8>>>,
    /// How many have taken what all have put down.
    taken: usize,
    /// The rank that gave up.
    lost: Option<usize>,
}

/// A rank that is a thread.
#[derive(Debug)]
pub struct Thread {
    rank: usize,
    table: Arc<Table>,
}

/// So many ranks, one for each thread; a rank whose thread panics, or that is dropped before the others are through, fails what
/// they share from then on.
pub fn threads(size: usize) -> Vec<Thread> {
    let round = Round { put: vec![None; size], taken: 0, lost: None };
    let table = Arc::new(Table { round: Mutex::new(round), changed: Condvar::new() });
    (0..size).map(|rank| Thread { rank, table: Arc::clone(&table) }).collect()
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, Round> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, round: MutexGuard<'a, Round>) -> MutexGuard<'a, Round> {
        self.changed.wait(round).unwrap_or_else(PoisonError::into_inner)
    }
}

impl Round {
    fn check(&self) -> Result<()> {
        match self.lost {
            None => Ok(()),
            Some(rank) => Err(Error::new(Kind::RankLost, format!("rank {rank} has ended"))),
        }
    }
}

impl Thread {
    /// Puts `bytes` down, waits for the others, and looks at what all have put down, in the order of the ranks.
    fn share<T>(&self, bytes: &[u8], look: impl FnOnce(&[Option<Vec<u8>>]) -> T) -> Result<T> {
        let size = self.size();
        let mut round = self.table.lock();
        // Others may still be taking what this rank put down before.
        while round.put[self.rank].is_some() {
            round.check()?;
            round = self.table.wait(round);
        }
        round.put[self.rank] = Some(bytes.to_vec());
        self.table.changed.notify_all();
        while round.put.iter().any(Option::is_none) {
            round.check()?;
            round = self.table.wait(round);
        }
        let seen = look(&round.put);
        round.taken += 1;
        if round.taken == size {
            round.taken = 0;
            round.put.fill(None);
            self.table.changed.notify_all();
        }
        Ok(seen)
    }
}

impl Ranks for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.table.lock().put.len()
    }

    fn host(&self) -> String {
        "this process".to_owned()
    }

    fn gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.share(bytes, |all| all.iter().map(|bytes| bytes.clone().unwrap_or_default()).collect())
    }

    fn exchange_blocks(&self, blocks: &[u8], given: &mut [u8]) -> Result<()> {
        let block = blocks.len() / self.size();
        let mine = self.rank * block..(self.rank + 1) * block;
        self.share(blocks, |all| {
            for (of, given) in all.iter().flatten().zip(given.chunks_exact_mut(block.max(1))) {
                given.copy_from_slice(&of[mine.clone()]);
            }
        })
    }

    fn gather_blocks(&self, block: &[u8], all: &mut [u8]) -> Result<()> {
        self.share(block, |of_all| {
            for (of, all) in of_all.iter().flatten().zip(all.chunks_exact_mut(block.len().max(1))) {
                all.copy_from_slice(of);
            }
        })
    }

    fn abort(&self, _: u8) {
        self.table.lock().lost.get_or_insert(self.rank);
        self.table.changed.notify_all();
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.abort(0);
    }
}
