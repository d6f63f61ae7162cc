//! How fast a training goes, and how long it still takes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The span that the speed is the mean of.
const WINDOW: Duration = Duration::from_secs(10);

/// Watches the steps of a training.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Whether a step is done, with all that the first one waits for, as the making of shaders.
    begun: bool,
    /// The step that was seen first after that, and when.
    first: Option<(u64, Instant)>,
    /// The latest steps.
    recent: VecDeque<(u64, Instant)>,
    last: u64,
}

impl Pace {
    /// A step is done.
    pub fn begin(&mut self) {
        self.begun = true;
    }

    /// A step was submitted; `last` is the last one of the run.
    pub fn step(&mut self, step: u64, last: u64, now: Instant) {
        if !self.begun {
            return;
        }
        self.first.get_or_insert((step, now));
        self.recent.push_back((step, now));
        while self.recent.len() > 2 && self.recent[0].1 + WINDOW < now {
            self.recent.pop_front();
        }
        self.last = last;
    }

    /// Something else begins, such as an evaluation: its time is none of the next steps'.
    pub fn pause(&mut self) {
        self.recent.clear();
    }

    /// Steps a second at present.
    pub fn steps_per_second(&self) -> Option<f64> {
        let (&(from, since), &(to, until)) = (self.recent.front()?, self.recent.back()?);
        let seconds = until.duration_since(since).as_secs_f64();
        (to > from && seconds > 0.0).then(|| (to - from) as f64 / seconds)
    }

    /// The time to the end of the run as it has gone so far, with its evaluations.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        let ((from, since), &(to, _)) = (self.first?, self.recent.back()?);
        let seconds = now.duration_since(since).as_secs_f64();
        (to > from).then(|| Duration::from_secs_f64(seconds / (to - from) as f64 * self.last.saturating_sub(to) as f64))
    }
}

/// A time for people: two units at most.
pub(super) fn duration(time: Duration) -> String {
    match time.as_secs() {
        s @ 0..60 => format!("{s} s"),
        s @ 60..3600 => format!("{}:{:02} min", s / 60, s % 60),
        s => format!("{}:{:02} h", s / 3600, s / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_counts_evaluations_and_the_speed_does_not() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pace = Pace::default();
        assert_eq!((pace.steps_per_second(), pace.left(start)), (None, None));
        // What is submitted before a step is done says nothing.
        pace.step(0, 21, start);
        pace.begin();
        (1..=5).for_each(|step| pace.step(step, 21, at(2 * step)));
        assert_eq!(pace.steps_per_second(), Some(0.5));
        assert_eq!(pace.left(at(10)), Some(Duration::from_secs(32)));
        pace.pause();
        assert_eq!(pace.steps_per_second(), None);
        // Eight seconds of evaluation; then two steps.
        pace.step(6, 21, at(20));
        pace.step(7, 21, at(26));
        assert_eq!(pace.steps_per_second(), Some(1.0 / 6.0));
        assert_eq!(pace.left(at(26)), Some(Duration::from_secs(56)));
    }

    #[test]
    fn times_are_short() {
        let shown = [5, 65, 3_599, 7_260].map(|s| duration(Duration::from_secs(s)));
        assert_eq!(shown, ["5 s", "1:05 min", "59:59 min", "2:01 h"]);
    }
}
