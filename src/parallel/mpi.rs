//! Ranks that are processes which `mpirun` has started.

use std::time::Duration;

use mpi::collective::CommunicatorCollectives as _;
use mpi::datatype::PartitionMut;
use mpi::topology::{Communicator as _, SimpleCommunicator};

use super::Ranks;
use crate::error::Result;

/// A rank of `MPI_COMM_WORLD`, while the library is initialised. Errors of the library end all ranks: that is its default.
#[derive(Debug)]
pub(super) struct Mpi {
    rank: usize,
    size: usize,
}

impl Mpi {
    /// This process.
    pub fn new() -> Self {
        let world = SimpleCommunicator::world();
        Self { rank: world.rank() as usize, size: world.size() as usize }
    }
}

impl Ranks for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn host(&self) -> String {
        mpi::environment::processor_name().unwrap_or_default()
    }

    fn gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let world = SimpleCommunicator::world();
        let mut lengths = vec![0_u64; self.size];
        world.all_gather_into(&(bytes.len() as u64), &mut lengths[..]);
        let mut all: Vec<Vec<u8>> = lengths.iter().map(|&length| vec![0; length as usize]).collect();
        // MPI counts in 32 bits, over all ranks: what is longer goes in pieces.
        let piece = (i32::MAX as usize / self.size).min(1 << 26);
        let longest = all.iter().map(Vec::len).max().unwrap_or_default();
        for from in (0..longest).step_by(piece) {
            let part = |length: usize| from.min(length)..(from + piece).min(length);
            let counts: Vec<i32> = all.iter().map(|bytes| part(bytes.len()).len() as i32).collect();
            let firsts: Vec<i32> = counts.iter().scan(0, |at, &n| Some(std::mem::replace(at, *at + n))).collect();
            let mut together = vec![0_u8; counts.iter().map(|&n| n as usize).sum()];
            let mut partition = PartitionMut::new(&mut together[..], counts, firsts);
            world.all_gather_varcount_into(&bytes[part(bytes.len())], &mut partition);
            let mut rest = &together[..];
            for bytes in &mut all {
                let range = part(bytes.len());
                let (own, others) = rest.split_at(range.len());
                bytes[range].copy_from_slice(own);
                rest = others;
            }
        }
        Ok(all)
    }

    fn exchange_blocks(&self, blocks: &[u8], given: &mut [u8]) -> Result<()> {
        SimpleCommunicator::world().all_to_all_into(blocks, given);
        Ok(())
    }

    fn gather_blocks(&self, block: &[u8], all: &mut [u8]) -> Result<()> {
        SimpleCommunicator::world().all_gather_into(block, all);
        Ok(())
    }

    fn rest(&self) -> Result<()> {
        let mut waiting = SimpleCommunicator::world().immediate_barrier();
        while let Err(still) = waiting.test() {
            waiting = still;
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn abort(&self, code: u8) {
        SimpleCommunicator::world().abort(code.into())
    }
}
