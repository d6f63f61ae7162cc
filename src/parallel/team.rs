//! Ranks that learn of each other's failures.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use super::{Alone, Ranks};
use crate::error::{Error, Kind, Result};

/// The ranks of a run, so that what fails on one of them fails on all.
///
/// The rule: a rank that fails returns its error up to whoever calls [`conclude`](Self::conclude), which tells the others at
/// their next [`exchange`](Self::exchange), whatever that is about. So between an exchange and anything else that ranks do
/// together nothing may fail.
#[derive(Debug, Clone)]
pub struct Team {
    ranks: Arc<dyn Ranks>,
    /// Whether a failure was told to all.
    failed: Arc<AtomicBool>,
    /// The number of this rank among those of its machine, and how many these are.
    local: (usize, usize),
}

impl Default for Team {
    fn default() -> Self {
        Self { ranks: Arc::new(Alone), failed: Arc::default(), local: (0, 1) }
    }
}

/// What a rank says in an exchange.
#[derive(Serialize, Deserialize)]
struct Said {
    /// What it is about.
    about: String,
    failure: Option<Error>,
}

impl Team {
    /// Takes these ranks together.
    ///
    /// # Errors
    /// Those of [`Ranks::gather`].
    pub fn new(ranks: Arc<dyn Ranks>) -> Result<Self> {
        let hosts = ranks.gather(ranks.host().as_bytes())?;
        let (before, rest) = hosts.split_at(ranks.rank());
        let mine = |hosts: &[Vec<u8>]| hosts.iter().filter(|host| **host == rest[0]).count();
        let local = (mine(before), mine(&hosts));
        Ok(Self { ranks, failed: Arc::default(), local })
    }

    /// The ranks.
    pub fn ranks(&self) -> &dyn Ranks {
        &*self.ranks
    }

    /// The number of this rank, from 0.
    pub fn rank(&self) -> usize {
        self.ranks.rank()
    }

    /// How many there are.
    pub fn size(&self) -> usize {
        self.ranks.size()
    }

    /// Whether this is the only rank.
    pub fn is_alone(&self) -> bool {
        self.size() == 1
    }

    /// Whether this is rank 0: the one that writes and speaks for all.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// The number of this rank among those of its machine, and how many these are.
    pub fn local(&self) -> (usize, usize) {
        self.local
    }

    /// Whether all ranks have been told of a failure: then rank 0 tells the user.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Goes on after a failure that all ranks know of.
    pub fn forgive(&self) {
        self.failed.store(false, Ordering::Relaxed);
    }

    /// This rank's share of `count` things in a row.
    pub fn share(&self, count: usize) -> std::ops::Range<usize> {
        let (rank, size) = (self.rank(), self.size());
        count * rank / size..count * (rank + 1) / size
    }

    /// What all ranks have, in their order; or the failure of the first rank that failed, on all of them. All of them say what
    /// it is `about`, so that ranks that are not at the same point notice it.
    ///
    /// # Errors
    /// That of any rank; [`Kind::Internal`] if others are about something else; those of [`Ranks::gather`].
    pub fn exchange(&self, about: &str, own: Result<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
        if self.is_alone() {
            return Ok(vec![own?]);
        }
        if self.has_failed() {
            // Nobody listens any more.
            return Err(own
                .err()
                .unwrap_or_else(|| Error::new(Kind::Internal, format!("{about}: the run has failed"))));
        }
        let said = Said { about: about.to_owned(), failure: own.as_ref().err().cloned() };
        let bad = |e: serde_json::Error| Error::new(Kind::Internal, format!("ranks do not understand each other: {e}"));
        let head = serde_json::to_vec(&said).map_err(bad)?;
        let message = [&(head.len() as u64).to_le_bytes()[..], &head, own.as_deref().unwrap_or_default()].concat();
        let mut failures: Vec<Option<Error>> = vec![];
        let (mut places, mut contents) = (vec![], vec![]);
        for (rank, message) in self.ranks.gather(&message)?.into_iter().enumerate() {
            let garbled = || Error::new(Kind::Internal, format!("rank {rank} is not understood"));
            let (length, rest) = message.split_first_chunk::<8>().ok_or_else(garbled)?;
            let (head, content) = rest.split_at_checked(u64::from_le_bytes(*length) as usize).ok_or_else(garbled)?;
            let other: Said = serde_json::from_slice(head).map_err(bad)?;
            failures.push(other.failure);
            places.push(other.about);
            contents.push(content.to_vec());
        }
        if failures.iter().all(Option::is_none) && places.iter().any(|place| place != about) {
            self.failed.store(true, Ordering::Relaxed);
            let what = format!("ranks are not at the same point: {}", places.join(", "));
            return Err(Error::new(Kind::Internal, what));
        }
        let Some((rank, first)) = failures.iter().enumerate().find_map(|(rank, e)| Some((rank, e.clone()?))) else {
            return Ok(contents);
        };
        self.failed.store(true, Ordering::Relaxed);
        // What all have found need not be said of one.
        let of_all = failures.iter().all(|failure| failure.as_ref() == Some(&first));
        Err(if of_all || first.kind() == Kind::Interrupted { first } else { first.of_rank(rank) })
    }

    /// `own`, if no rank has failed.
    ///
    /// # Errors
    /// As [`exchange`](Self::exchange).
    pub fn agreed<T>(&self, about: &str, own: Result<T>) -> Result<T> {
        if self.is_alone() || self.has_failed() {
            return own;
        }
        let (value, told) = match own {
            Ok(value) => (Some(value), Ok(vec![])),
            Err(e) => (None, Err(e)),
        };
        self.exchange(about, told)?;
        value.ok_or_else(|| Error::new(Kind::Internal, format!("{about}: a failure got lost")))
    }

    /// Waits until all ranks are here, and leaves the machine to them meanwhile. Nothing may fail before it that the others do not
    /// know of.
    ///
    /// # Errors
    /// As [`Ranks::gather`].
    pub fn rest(&self) -> Result<()> {
        self.ranks.rest()
    }

    /// What rank 0 makes, on all ranks.
    ///
    /// # Errors
    /// As [`exchange`](Self::exchange).
    pub fn of_first(&self, about: &str, make: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
        let own = if self.is_first() { make() } else { Ok(vec![]) };
        Ok(self.exchange(about, own)?.swap_remove(0))
    }

    /// Makes something first on one rank of each machine, then on the others, which may find what the first has left there.
    ///
    /// # Errors
    /// As [`exchange`](Self::exchange); those of `make`.
    pub fn in_turn<T>(&self, about: &str, make: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.is_alone() {
            return make();
        }
        let mut make = Some(make);
        let early = if self.local.0 == 0 { make.take().map(|make| make()).transpose() } else { Ok(None) };
        let early = self.agreed(about, early)?;
        match (early, make) {
            (Some(made), _) => Ok(made),
            (None, Some(make)) => make(),
            (None, None) => Err(Error::new(Kind::Internal, format!("{about}: nothing was made"))),
        }
    }

    /// Ends what ranks do together: tells the others of a failure that they do not know of, or waits until all are here.
    ///
    /// # Errors
    /// That of any rank.
    pub fn conclude<T>(&self, result: Result<T>) -> Result<T> {
        self.agreed("the end", result)
    }
}

#[cfg(test)]
mod tests {
    use super::super::threads;
    use super::*;

    fn on_each<T: Send>(size: usize, work: impl Fn(&Team) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let work = &work;
            let run = |rank| move || work(&Team::new(Arc::new(rank)).unwrap());
            let running: Vec<_> = threads(size).into_iter().map(|rank| scope.spawn(run(rank))).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn a_failure_of_one_is_told_to_all_wherever_they_are() {
        let told = on_each(3, |team| {
            let work = || {
                if team.rank() == 1 {
                    return Err(Error::new(Kind::Data, "a picture is broken").at("x.jpg"));
                }
                team.exchange("something", Ok(vec![1]))
            };
            let error = team.conclude(work()).unwrap_err();
            assert!(team.has_failed());
            error.to_string()
        });
        assert!(told.iter().all(|said| said == "rank 1: a picture is broken\n  where: x.jpg"), "{told:?}");
    }

    #[test]
    fn what_all_have_found_is_said_of_none() {
        let told =
            on_each(2, |team| team.agreed::<()>("it", Err(Error::new(Kind::Usage, "no"))).unwrap_err().to_string());
        assert_eq!(told, ["no", "no"]);
    }

    #[test]
    fn ranks_that_are_not_at_the_same_point_notice_it() {
        let told = on_each(2, |team| {
            let about = if team.rank() == 0 { "a" } else { "b" };
            team.exchange(about, Ok(vec![])).unwrap_err().kind()
        });
        assert_eq!(told, [Kind::Internal, Kind::Internal]);
    }

    #[test]
    fn things_are_shared_out_each_to_one_rank() {
        for (size, count) in [(1, 5), (2, 5), (3, 7), (3, 2), (4, 0)] {
            let shares = on_each(size, |team| team.share(count));
            assert!(shares.iter().flat_map(Clone::clone).eq(0..count), "{size} {count}: {shares:?}");
        }
        assert_eq!(on_each(3, Team::local), [(0, 3), (1, 3), (2, 3)]);
    }
}
