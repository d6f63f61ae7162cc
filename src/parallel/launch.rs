//! How this process was started: alone, or as one of several.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Alone, Ranks};
use crate::error::{Error, Kind, Result};

/// Where the starters of MPI programs say how many they have started: Open MPI's, those that speak PMI, MVAPICH's.
const SIZES: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"];
/// Set by those that say it to the library alone, such as `srun --mpi=pmix`.
#[cfg(feature = "mpi")]
const RANK_ALONE: &str = "PMIX_RANK";

/// How many processes `mpirun` has started, this one among them; `None` if it does not say so.
pub fn launched_ranks() -> Option<usize> {
    SIZES.iter().find_map(|name| std::env::var(name).ok()?.parse().ok())
}

/// The processes that this one was started with, until it is dropped.
pub struct Launch {
    ranks: Arc<dyn Ranks>,
    silent: AtomicBool,
    #[cfg(feature = "mpi")]
    _universe: Option<::mpi::environment::Universe>,
}

impl Launch {
    /// A process that is alone, however it was started.
    pub fn alone() -> Self {
        let silent = AtomicBool::new(false);
        Self {
            ranks: Arc::new(Alone),
            silent,
            #[cfg(feature = "mpi")]
            _universe: None,
        }
    }

    /// Joins the other processes, if there are any.
    ///
    /// # Errors
    /// [`Kind::Usage`] if there are, and this program was built without MPI.
    #[cfg(feature = "mpi")]
    pub fn begin() -> Result<Self> {
        let several = launched_ranks().map_or_else(|| std::env::var_os(RANK_ALONE).is_some(), |n| n > 1);
        if !several {
            return Ok(Self::alone());
        }
        let (universe, _) = ::mpi::initialize_with_threading(::mpi::Threading::Serialized).ok_or_else(|| {
            Error::new(Kind::Internal, "MPI was initialised before").next("start lesion-gpu itself with mpirun")
        })?;
        Ok(Self { ranks: Arc::new(super::mpi::Mpi::new()), _universe: Some(universe), ..Self::alone() })
    }

    /// Joins the other processes, if there are any.
    ///
    /// # Errors
    /// [`Kind::Usage`] if there are, and this program was built without MPI.
    #[cfg(not(feature = "mpi"))]
    pub fn begin() -> Result<Self> {
        match launched_ranks() {
            Some(n) if n > 1 => {
                let what =
                    format!("this is one of {n} processes that mpirun has started, and this program knows no MPI");
                Err(Error::new(Kind::Usage, what)
                    .next("build it with `cargo build --release --features mpi`, or start it without mpirun"))
            }
            _ => Ok(Self::alone()),
        }
    }

    /// Another rank tells the user how this run ends.
    pub fn keep_silent(&self) {
        self.silent.store(true, Ordering::Relaxed);
    }

    /// Whether another rank tells the user how this run ends.
    pub fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    /// The ranks of this run.
    pub fn ranks(&self) -> Arc<dyn Ranks> {
        Arc::clone(&self.ranks)
    }
}
