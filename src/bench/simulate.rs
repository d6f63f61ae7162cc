//! What a step would take on other networks and with other numbers of ranks, from what it takes here.
//!
//! A rank's step is a line of events, as [`Timeline`] has it: buckets of gradients come to the host, one after the other, while
//! the device goes on; each goes round when it is there and the one before has gone round, and its sums go back to the device;
//! behind the last the loss goes round, and the optimizer runs. How long a bucket goes round follows from how it does that
//! (`parallel::reduce`): a word of each rank to all, a block of each to each, then the sums of each block to all.

use serde::Serialize;

use crate::error::{Error, Kind, Result};
use crate::train::Timeline;

/// Ranks and what lies between them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Network {
    /// Ranks.
    pub ranks: usize,
    /// Bytes a second that a rank sends while it receives as many.
    pub bytes_per_second: f64,
    /// Seconds until the first byte of a message is there.
    pub latency: f64,
}

impl std::str::FromStr for Network {
    type Err = Error;

    /// Of `ranks=64,gbps=100,latency_us=2`: gigabits a second, microseconds.
    fn from_str(text: &str) -> Result<Self> {
        let bad = |what: String| {
            Err(Error::new(Kind::Usage, what).next("for example --simulate ranks=64,gbps=100,latency_us=2"))
        };
        let (mut ranks, mut gbps, mut latency) = (None, None, None);
        for part in text.split(',') {
            let Some((key, value)) = part.split_once('=') else { return bad(format!("'{part}' is no KEY=VALUE")) };
            let number = value.trim().parse::<f64>().ok().filter(|v| v.is_finite());
            let Some(number) = number else { return bad(format!("{key}: '{value}' is no number")) };
            match key.trim() {
                "ranks" if number >= 1.0 && number.fract() == 0.0 && number <= 1e6 => ranks = Some(number as usize),
                "ranks" => return bad(format!("ranks: {value} is not a number from 1 to 1000000")),
                "gbps" if number > 0.0 => gbps = Some(number),
                "gbps" => return bad(format!("gbps: {value} is not above 0")),
                "latency_us" if number >= 0.0 => latency = Some(number),
                "latency_us" => return bad(format!("latency_us: {value} is below 0")),
                other => return bad(format!("unknown key '{other}': there are ranks, gbps and latency_us")),
            }
        }
        match (ranks, gbps, latency) {
            (Some(ranks), Some(gbps), Some(latency)) => {
                Ok(Self { ranks, bytes_per_second: gbps * 1e9 / 8.0, latency: latency * 1e-6 })
            }
            _ => bad("ranks, gbps and latency_us are all needed".to_owned()),
        }
    }
}

impl Network {
    /// Messages one after the other until a word of each rank is on all.
    fn rounds(&self) -> f64 {
        f64::from(self.ranks.next_power_of_two().trailing_zeros())
    }

    /// Seconds until a few bytes of each rank are on all ranks: their lengths, then they themselves.
    pub fn word(&self) -> f64 {
        2.0 * self.rounds() * self.latency
    }

    /// Seconds in which so many bytes are added up over all ranks, without the adding.
    pub fn sum(&self, bytes: f64) -> f64 {
        let others = self.ranks as f64 - 1.0;
        let block = bytes / self.ranks as f64;
        // A block to each other rank; the sums, from rank to rank.
        2.0 * others * (self.latency + block / self.bytes_per_second)
    }
}

/// What a rank does by itself in a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Own {
    /// Seconds from the step's beginning until each bucket of gradients is on the host.
    pub ready: Vec<f64>,
    /// Until the loss is.
    pub computed: f64,
    /// Until the step is over.
    pub total: f64,
    /// Bytes of each bucket on the wire.
    pub bytes: Vec<f64>,
    /// Seconds that the host copies and adds up for each of these bytes, and writes the sums to the device.
    pub host: f64,
}

impl Own {
    /// From the time line of a rank that exchanges nothing, and the seconds in which it copies and adds up a byte.
    pub fn new(timeline: &Timeline, bytes: Vec<f64>, host: f64) -> Self {
        let Timeline { ready, computed, total, writing, .. } = timeline.clone();
        let all: f64 = bytes.iter().sum();
        let host = host + if all > 0.0 { writing / all } else { 0.0 };
        Self { ready, computed, total, bytes, host }
    }
}

/// A step as it would be.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// On what.
    pub network: Network,
    /// Seconds of a step.
    pub step: f64,
    /// Of it, seconds that a rank by itself would take.
    pub own: f64,
    /// Seconds that exchanges take, hidden behind the device's work or not.
    pub communication: f64,
    /// The share of the exchanges that is hidden.
    pub hidden: f64,
    /// Of the time of a rank by itself and that of a step: what each rank is worth with as many rows.
    pub efficiency: f64,
}

/// Predicts a step.
pub fn simulate(own: &Own, network: Network) -> Prediction {
    let of_bucket = |bytes: f64| match network.ranks {
        1 => 0.0,
        _ => network.word() + network.sum(bytes) + own.host * bytes,
    };
    // The weights of all rows, before anything runs; the loss.
    let (before, loss) = (network.word(), network.word());
    let (mut free, mut communication) = (before, before + loss);
    for (&ready, &bytes) in own.ready.iter().zip(&own.bytes) {
        let seconds = of_bucket(bytes);
        free = (before + ready).max(free) + seconds;
        communication += seconds;
    }
    let step = free.max(before + own.computed) + loss + (own.total - own.computed);
    let hidden = if communication > 0.0 { 1.0 - (step - own.total) / communication } else { 0.0 };
    Prediction { network, step, own: own.total, communication, hidden, efficiency: own.total / step }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Own {
        Own { ready: vec![0.06, 0.08, 0.1], computed: 0.1, total: 0.12, bytes: vec![4e6; 3], host: 0.0 }
    }

    #[test]
    fn networks_are_read_and_nonsense_is_refused() {
        let network: Network = "ranks=64,gbps=100,latency_us=2".parse().unwrap();
        assert_eq!(network, Network { ranks: 64, bytes_per_second: 12.5e9, latency: 2e-6 });
        for bad in [
            "",
            "ranks=64",
            "ranks=0,gbps=1,latency_us=1",
            "ranks=2,gbps=0,latency_us=1",
            "ranks=2,gbps=x,latency_us=1",
        ] {
            assert_eq!(bad.parse::<Network>().unwrap_err().kind(), Kind::Usage, "{bad}");
        }
    }

    #[test]
    fn a_rank_alone_takes_its_own_time() {
        let alone = simulate(&own(), Network { ranks: 1, bytes_per_second: 1.0, latency: 1.0 });
        assert_eq!((alone.step, alone.communication, alone.efficiency), (0.12, 0.0, 1.0));
    }

    #[test]
    fn what_comes_early_is_hidden_and_what_comes_last_is_not() {
        // 4 MB each way in 10 ms for two ranks: half of it twice.
        let network = Network { ranks: 2, bytes_per_second: 4e8, latency: 0.0 };
        let got = simulate(&own(), network);
        assert!((got.communication - 0.03).abs() < 1e-9 && (got.step - 0.13).abs() < 1e-9, "{got:?}");
        assert!((got.hidden - 2.0 / 3.0).abs() < 1e-6, "{got:?}");
        // Ten times slower the wire is what counts: from the first bucket on.
        let slow = simulate(&own(), Network { bytes_per_second: 4e7, ..network });
        assert!((slow.step - (0.06 + 0.3 + 0.02)).abs() < 1e-9, "{slow:?}");
        // Each message costs its latency: those of 4 exchanges of words, and of the blocks.
        let far = simulate(
            &Own { bytes: vec![0.0; 3], ..own() },
            Network { ranks: 4, bytes_per_second: 1e12, latency: 1e-3 },
        );
        let bucket = 2.0 * 2e-3 + 2.0 * 3e-3;
        assert!((far.communication - (2.0 * 4e-3 + 3.0 * bucket)).abs() < 1e-9, "{far:?}");
    }

    #[test]
    fn sums_are_written_before_the_next_bucket_goes_round() {
        let line = Timeline { ready: own().ready, computed: 0.1, total: 0.12, writing: 0.012, ..Timeline::default() };
        assert!((Own::new(&line, own().bytes, 1e-9).host - 2e-9).abs() < 1e-15);
        assert_eq!(Own::new(&line, vec![], 1e-9).host, 1e-9);
    }

    #[test]
    fn the_host_works_on_every_byte() {
        let network = Network { ranks: 4, bytes_per_second: f64::INFINITY, latency: 0.0 };
        let got = simulate(&Own { host: 1e-9, ..own() }, network);
        assert!((got.communication - 3.0 * 4e-3).abs() < 1e-9, "{got:?}");
    }
}
