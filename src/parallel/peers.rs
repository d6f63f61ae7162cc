//! Watching over the other ranks of a machine: one that is killed says nothing, and the others would wait for it.
//!
//! `mpirun` ends all ranks of a run when one dies, and says so in its own words. What it does not say is how to go on, so the
//! ranks look for each other by the numbers of their processes.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sysinfo::{Pid, ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System};

use super::Ranks;
use crate::error::{Error, Kind, Result};

/// How often they look.
const EVERY: Duration = Duration::from_millis(200);
/// How long one that has nothing to say waits for `mpirun` to end it.
const GRACE: Duration = Duration::from_secs(3);

/// Another rank of this machine.
#[derive(Debug)]
struct Peer {
    rank: usize,
    process: Pid,
}

#[derive(Debug)]
struct Watch {
    rank: usize,
    ranks: usize,
    host: String,
    peers: Vec<Peer>,
    system: Mutex<System>,
    run: Mutex<Option<PathBuf>>,
    over: AtomicBool,
}

/// The other ranks of a run on this machine.
#[derive(Debug, Clone)]
pub struct Peers(Arc<Watch>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Peers {
    /// Finds them, and looks for them in the background until [`end`](Self::end): when one has died, [`look`](Self::look) ends
    /// this process. All ranks call this together.
    ///
    /// # Errors
    /// Those of [`Ranks::gather`]; [`Kind::Internal`] if there is no thread for it.
    pub fn watch(ranks: &dyn Ranks) -> Result<Self> {
        let host = ranks.host();
        let all = ranks.gather(format!("{} {host}", std::process::id()).as_bytes())?;
        let peer = |(rank, said): (usize, &Vec<u8>)| {
            let said = String::from_utf8_lossy(said);
            let (process, place) = said.split_once(' ')?;
            (rank != ranks.rank() && place == host).then_some(Peer { rank, process: process.parse().ok()? })
        };
        let peers = all.iter().enumerate().filter_map(peer).collect();
        let (rank, ranks) = (ranks.rank(), ranks.size());
        let (system, run, over) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        let watch = Self(Arc::new(Watch { rank, ranks, host, peers, system, run, over }));
        let own = watch.clone();
        let watching = move || {
            while !own.0.over.load(Ordering::Relaxed) {
                own.look();
                std::thread::sleep(EVERY);
            }
        };
        let thread = std::thread::Builder::new().name("peers".to_owned()).spawn(watching);
        thread.map_err(|e| Error::new(Kind::Internal, format!("no thread could be started: {e}")))?;
        Ok(watch)
    }

    /// Says which run is to be continued if a rank dies.
    pub fn belong_to(&self, run: PathBuf) {
        *lock(&self.0.run) = Some(run);
    }

    /// How the run is continued where it was ended by something that cannot say so, such as `mpirun` for a rank that died on
    /// another machine.
    pub fn how_to_go_on(&self) -> Option<String> {
        self.0.how_to_go_on()
    }

    /// From here on ranks may end: the run is over.
    pub fn end(&self) {
        self.0.over.store(true, Ordering::Relaxed);
    }

    /// Ends this process if another has died: the first that is left on the machine says which, and how to go on.
    pub fn look(&self) {
        let watch = &*self.0;
        let dead = watch.dead();
        if dead.is_empty() || watch.over.load(Ordering::Relaxed) {
            return;
        }
        let alive = watch.peers.iter().map(|peer| peer.rank).filter(|rank| !dead.iter().any(|peer| peer.rank == *rank));
        if alive.min().is_none_or(|other| watch.rank < other) {
            let text = watch.obituary(&dead).to_string();
            // In one piece, for others write to the same place.
            eprintln!("\nerror: {text}");
        } else {
            std::thread::sleep(GRACE);
        }
        std::process::exit(i32::from(Kind::RankLost as u8));
    }
}

impl Watch {
    /// The ranks whose processes have ended.
    fn dead(&self) -> Vec<&Peer> {
        let mut system = lock(&self.system);
        let processes: Vec<Pid> = self.peers.iter().map(|peer| peer.process).collect();
        let (of, what) = (ProcessesToUpdate::Some(&processes), ProcessRefreshKind::nothing());
        system.refresh_processes_specifics(of, true, what);
        let alive = |process| {
            let process = system.process(process);
            process.is_some_and(|p| !matches!(p.status(), ProcessStatus::Zombie | ProcessStatus::Dead))
        };
        self.peers.iter().filter(|peer| !alive(peer.process)).collect()
    }

    fn obituary(&self, dead: &[&Peer]) -> Error {
        let who: Vec<String> =
            dead.iter().map(|peer| format!("rank {} (process {} on {})", peer.rank, peer.process, self.host)).collect();
        let have = if who.len() == 1 { "has" } else { "have" };
        let error = Error::new(Kind::RankLost, format!("{} {have} ended, and with it the run", who.join(", ")));
        error.next(self.how_to_go_on().unwrap_or_else(|| "start the run again".to_owned()))
    }

    fn how_to_go_on(&self) -> Option<String> {
        let run = lock(&self.run);
        let run = run.as_ref()?.display();
        Some(format!("continue with `mpirun -n {} lesion-gpu train --resume {run}`", self.ranks))
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_that_was_killed_is_missed_and_named() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let peers = vec![Peer { rank: 2, process: Pid::from_u32(child.id()) }];
        let run = Mutex::new(Some("runs/x".into()));
        let (host, system, over) = ("here".to_owned(), Mutex::default(), AtomicBool::new(false));
        let watch = Watch { rank: 0, ranks: 3, host, peers, system, run, over };
        assert!(watch.dead().is_empty());
        child.kill().unwrap();
        // Before and after somebody asks what it ended with.
        while watch.dead().is_empty() {}
        child.wait().unwrap();
        let dead = watch.dead();
        assert_eq!(dead.len(), 1);
        let said = watch.obituary(&dead).to_string();
        assert!(said.contains(&format!("rank 2 (process {} on here) has ended", child.id())), "{said}");
        assert!(said.contains("mpirun -n 3 lesion-gpu train --resume runs/x"), "{said}");
    }
}
