//! Work that waits for the device: a bounded queue that is taken from in batches.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What can wait in a [`Queue`].
pub(super) trait Waiting {
    /// Since when it waits.
    fn since(&self) -> Instant;
    /// Whether the two can be done in one batch.
    fn alike(&self, other: &Self) -> bool;
}

/// Why nothing could be put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// There are too few free places.
    Full,
    /// Nothing is taken from it any more.
    Closed,
}

/// A queue with a limited number of places.
#[derive(Debug)]
pub(super) struct Queue<T> {
    places: usize,
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    open: bool,
}

impl<T: Waiting> Queue<T> {
    /// An empty one.
    pub fn new(places: usize) -> Self {
        let state = Mutex::new(State { waiting: VecDeque::new(), open: true });
        Self { places, state, changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Puts all of these in, or none.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn push(&self, new: Vec<T>) -> Result<(), Refused> {
        let mut state = self.lock();
        if !state.open {
            return Err(Refused::Closed);
        }
        if state.waiting.len() + new.len() > self.places {
            return Err(Refused::Full);
        }
        state.waiting.extend(new);
        self.changed.notify_all();
        Ok(())
    }

    /// From now on nothing can be put in. What is there can be taken.
    pub fn close(&self) {
        self.lock().open = false;
        self.changed.notify_all();
    }

    /// Waits for something, then until there are `most` that go together with the oldest or it has waited for `patience`, and
    /// takes these, in order. None once the queue is closed and empty.
    pub fn take(&self, most: usize, patience: Duration) -> Option<Vec<T>> {
        let mut state = self.lock();
        loop {
            let Some(oldest) = state.waiting.front() else {
                if !state.open {
                    return None;
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let together = state.waiting.iter().filter(|other| other.alike(oldest)).take(most).count();
            let left = patience.saturating_sub(oldest.since().elapsed());
            if together >= most || left.is_zero() || !state.open {
                return Some(state.split(most));
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl<T: Waiting> State<T> {
    /// Takes the oldest, and at most `most` in all that go together with it.
    fn split(&mut self, most: usize) -> Vec<T> {
        let (mut taken, mut left): (Vec<T>, VecDeque<T>) = (vec![], VecDeque::new());
        for one in self.waiting.drain(..) {
            let fits = taken.first().is_none_or(|first| first.alike(&one)) && taken.len() < most;
            if fits { taken.push(one) } else { left.push_back(one) }
        }
        self.waiting = left;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    struct Item(char, u32, Instant);

    impl Waiting for Item {
        fn since(&self) -> Instant {
            self.2
        }

        fn alike(&self, other: &Self) -> bool {
            self.0 == other.0
        }
    }

    fn items(names: &str) -> Vec<Item> {
        names.chars().enumerate().map(|(i, c)| Item(c, i as u32, Instant::now())).collect()
    }

    fn taken(queue: &Queue<Item>, most: usize) -> Option<String> {
        queue.take(most, Duration::ZERO).map(|items| items.iter().map(|i| format!("{}{}", i.0, i.1)).collect())
    }

    #[test]
    fn what_goes_together_is_taken_together_and_in_order() {
        let queue = Queue::new(8);
        queue.push(items("abaabb")).unwrap();
        assert_eq!(taken(&queue, 2).as_deref(), Some("a0a2"));
        assert_eq!(taken(&queue, 8).as_deref(), Some("b1b4b5"));
        assert_eq!(taken(&queue, 8).as_deref(), Some("a3"));
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn all_or_none_are_put_in() {
        let queue = Queue::new(3);
        queue.push(items("aa")).unwrap();
        assert_eq!(queue.push(items("aa")), Err(Refused::Full));
        assert_eq!(queue.len(), 2);
        queue.push(items("a")).unwrap();
        queue.close();
        assert_eq!(queue.push(vec![]), Err(Refused::Closed));
        assert_eq!(taken(&queue, 9).map(|t| t.len()), Some(6));
        assert_eq!(taken(&queue, 9), None);
    }

    #[test]
    fn a_batch_is_waited_for_but_not_for_long() {
        let queue = Queue::new(8);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                queue.push(items("a")).unwrap();
                std::thread::sleep(Duration::from_millis(20));
                queue.push(items("a")).unwrap();
            });
            assert_eq!(queue.take(2, Duration::from_secs(60)).map(|t| t.len()), Some(2));
        });
        queue.push(items("a")).unwrap();
        let start = Instant::now();
        assert_eq!(queue.take(2, Duration::from_millis(30)).map(|t| t.len()), Some(1));
        assert!(start.elapsed() >= Duration::from_millis(25), "{:?}", start.elapsed());
    }

    #[test]
    fn closing_wakes_who_waits() {
        let queue = Queue::<Item>::new(1);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| queue.take(1, Duration::ZERO));
            std::thread::sleep(Duration::from_millis(20));
            queue.close();
            assert_eq!(waits.join().unwrap(), None);
        });
    }
}
