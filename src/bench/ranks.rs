//! A training step that several ranks take together: how fast, what of it are exchanges, and what it would be elsewhere.

use std::fmt::{self, Display};
use std::time::Instant;

use serde::Serialize;

use super::model::finite;
use super::report::{Device, now};
use super::simulate::{Network, Own, Prediction, simulate};
use super::{ModelBench, Task, commit};
use crate::autograd::Store;
use crate::error::Result;
use crate::gpu::Gpu;
use crate::parallel::{Ranks, Team, Transit, all_reduce_f16, all_reduce_f32};
use crate::train::{RankSession, Timeline, TrainConfig, Wire};

/// Timed steps where no number is given.
const STEPS: u64 = 10;
/// Numbers in the sum that the network is measured with.
const PROBE: usize = 1 << 20;
/// How often it is.
const PROBES: usize = 9;

/// A benchmark of ranks.
#[derive(Debug, Clone)]
pub struct RanksBench {
    /// The step of a model, as one process would take it; its batch is that of all ranks.
    pub model: ModelBench,
    /// The ranks: this process among them.
    pub team: Team,
    /// Bytes on the device to stay below in the step of one process, for which the other ranks make room.
    pub memory_limit_alone: Option<u64>,
    /// Networks and numbers of ranks to predict the step for, with the rows that a rank has here.
    pub elsewhere: Option<Network>,
}

/// What was measured, on all ranks the same.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RanksReport {
    /// Version of the program.
    pub lesion_gpu: &'static str,
    /// Commit it was built from, if known.
    pub commit: Option<&'static str>,
    /// When, UTC.
    pub date: String,
    /// The command line.
    pub command: Vec<String>,
    /// Where: that of the first rank.
    pub device: Device,
    /// Ranks.
    pub ranks: usize,
    /// Of them on the machine of the first.
    pub on_machine: usize,
    /// Processors of that machine.
    pub processors: usize,
    /// Model name.
    pub model: String,
    /// Images a step.
    pub batch: usize,
    /// Of them on each rank.
    pub rows: Vec<usize>,
    /// Size of the images.
    pub size: String,
    /// Element type of activations.
    pub precision: &'static str,
    /// Element type of gradients on the wire.
    pub wire: &'static str,
    /// Bytes of each bucket of gradients on the wire.
    pub buckets: Vec<f64>,
    /// Seconds of a step of one process that has the whole batch, while the other ranks rest.
    pub one: f64,
    /// The time line of the first rank with its share and no exchanges, while the others rest.
    pub alone: Timeline,
    /// The same while all ranks do so: that of the slowest.
    pub together: Timeline,
    /// The time line of a step that the ranks share: that of the slowest.
    pub shared: Timeline,
    /// Seconds of that step if its exchanges begin when the backward pass is over.
    pub without_overlap: f64,
    /// Images a second.
    pub images_per_second: f64,
    /// Seconds of one process over those of a step times ranks.
    pub efficiency: f64,
    /// The network between the ranks, as it was measured.
    pub network: Network,
    /// Seconds of the host for a byte of a bucket.
    pub host: f64,
    /// The step as predicted from `together` and `network`.
    pub predicted: Prediction,
    /// The step elsewhere, predicted from `alone`.
    pub elsewhere: Option<Prediction>,
}

/// Ranks of which every one sends what this one does, at once: what is left is the host's work.
#[derive(Debug)]
struct Echo(usize);

impl Ranks for Echo {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        self.0
    }

    fn host(&self) -> String {
        String::new()
    }

    fn gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        Ok(vec![bytes.to_vec(); self.0])
    }

    fn exchange_blocks(&self, blocks: &[u8], given: &mut [u8]) -> Result<()> {
        given.copy_from_slice(blocks);
        Ok(())
    }

    fn gather_blocks(&self, block: &[u8], all: &mut [u8]) -> Result<()> {
        all.chunks_exact_mut(block.len().max(1)).for_each(|of| of.copy_from_slice(block));
        Ok(())
    }

    fn abort(&self, _: u8) {}
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// The median of each event.
fn median_of(lines: &[Timeline]) -> Timeline {
    let of = |event: &dyn Fn(&Timeline) -> f64| median(lines.iter().map(event).collect());
    let buckets = lines.first().map_or(0, |line| line.ready.len());
    Timeline {
        ready: (0..buckets).map(|i| of(&|line| line.ready[i])).collect(),
        computed: of(&|line| line.computed),
        total: of(&|line| line.total),
        communication: of(&|line| line.communication),
        writing: of(&|line| line.writing),
    }
}

/// Seconds in which the numbers of a bucket are added up over ranks.
fn sum_seconds(ranks: &dyn Ranks, wire: Wire) -> Result<f64> {
    let (mut values, mut transit) = (vec![1.0; PROBE], Transit::default());
    let mut seconds = vec![];
    for _ in 0..PROBES {
        values.fill(1.0);
        let begun = Instant::now();
        match wire {
            Wire::F32 => all_reduce_f32(ranks, &mut values, &mut transit)?,
            Wire::F16 => all_reduce_f16(ranks, &mut values, 1.0, &mut transit)?,
        }
        seconds.push(begun.elapsed().as_secs_f64());
    }
    Ok(median(seconds))
}

/// Bytes of a number on the wire.
fn bytes_of(wire: Wire) -> f64 {
    match wire {
        Wire::F32 => 4.0,
        Wire::F16 => 2.0,
    }
}

/// Seconds of the host for a byte of a bucket that goes round among so many ranks.
fn host_seconds(ranks: usize, wire: Wire) -> Result<f64> {
    Ok(sum_seconds(&Echo(ranks), wire)? / (PROBE as f64 * bytes_of(wire)))
}

/// The network between the ranks of a team, all of which are here.
fn measure(team: &Team, wire: Wire, host: f64) -> Result<Network> {
    let ranks = team.size();
    let mut words = vec![];
    for _ in 0..50 {
        let begun = Instant::now();
        team.exchange("a word", Ok(vec![0; 4]))?;
        words.push(begun.elapsed().as_secs_f64());
    }
    let sum = sum_seconds(team.ranks(), wire)?;
    let bytes = PROBE as f64 * bytes_of(wire);
    let one = Network { ranks, bytes_per_second: 1.0, latency: 0.0 };
    let latency = if ranks == 1 { 0.0 } else { median(words) / Network { latency: 1.0, ..one }.word() };
    let none = Network { bytes_per_second: f64::INFINITY, latency, ..one };
    // What is left once the host's work and the latencies are taken off; at least a tenth of it all.
    let moving = (sum - none.sum(bytes) - host * bytes).max(sum / 10.0);
    Ok(Network { bytes_per_second: if ranks == 1 { f64::INFINITY } else { one.sum(bytes) / moving }, ..none })
}

impl RanksBench {
    /// Measures. All ranks call it together, and get the same.
    ///
    /// # Errors
    /// As [`ModelBench::run`]; those of other ranks.
    pub fn run(&self, gpu: &Gpu, check: &dyn Fn() -> Result<()>) -> Result<RanksReport> {
        let (team, config) = (&self.team, &self.model.config);
        let one = self.one(gpu, check);
        team.rest()?;
        let one = team.agreed("one process", one)?;
        let mut store = Store::new();
        let mut session = team.agreed("the session", self.model.rank_session(gpu, team, &mut store))?;
        let alone = Team::default();
        let apart =
            if team.is_first() { self.steps(gpu, &mut session, &alone, check) } else { Ok(Timeline::default()) };
        team.rest()?;
        let apart = team.agreed("a rank alone", apart)?;
        let own = self.steps(gpu, &mut session, &alone, check);
        team.rest()?;
        let own = team.agreed("all ranks apart", own)?;
        let shared = team.agreed("all ranks together", self.steps(gpu, &mut session, team, check))?;
        session.without_overlap();
        let behind = team.agreed("all ranks without overlap", self.steps(gpu, &mut session, team, check))?;
        let host = host_seconds(team.size(), config.wire);
        let host = team.agreed("the host", host)?;
        let network = measure(team, config.wire, host)?;

        let (together, shared, behind) = (self.slowest(own)?, self.slowest(shared)?, self.slowest(behind)?);
        let rows = team.exchange("rows", Ok((session.rows() as u64).to_le_bytes().to_vec()))?;
        let rows = rows.iter().flat_map(|of| bytemuck::pod_collect_to_vec::<u8, u64>(of)).map(|n| n as usize);
        let buckets: Vec<f64> = session.buckets().map(|n| n as f64 * bytes_of(config.wire)).collect();
        let predicted = simulate(&Own::new(&together, buckets.clone(), host), network);
        let elsewhere = self.elsewhere.map(|network| -> Result<Prediction> {
            let host = host_seconds(network.ranks, config.wire)?;
            Ok(simulate(&Own::new(&apart, buckets.clone(), host), network))
        });
        let elsewhere = team.agreed("elsewhere", elsewhere.transpose())?;
        let step = shared.total;
        Ok(RanksReport {
            lesion_gpu: env!("CARGO_PKG_VERSION"),
            commit: commit(),
            date: now(),
            command: std::env::args().collect(),
            device: Device::of(gpu.adapter()),
            ranks: team.size(),
            on_machine: team.local().1,
            processors: std::thread::available_parallelism().map_or(1, Into::into),
            model: config.model.clone(),
            batch: config.batch,
            rows: rows.collect(),
            size: config.size.to_string(),
            precision: config.precision.name(),
            wire: config.wire.name(),
            buckets,
            one,
            alone: apart,
            together,
            images_per_second: config.batch as f64 / step,
            efficiency: one / (step * team.size() as f64),
            shared,
            without_overlap: behind.total,
            network,
            host,
            predicted,
            elsewhere,
        })
    }

    /// The step of one process, on the first rank.
    fn one(&self, gpu: &Gpu, check: &dyn Fn() -> Result<()>) -> Result<f64> {
        if !self.team.is_first() {
            return Ok(0.0);
        }
        let steps = Some(self.model.config.max_steps.unwrap_or(STEPS));
        let config = TrainConfig { max_steps: steps, ..self.model.config.clone() };
        let memory_limit = self.memory_limit_alone;
        Ok(median(ModelBench { config, task: Task::Train, memory_limit, ..self.model.clone() }.steps(gpu, check)?))
    }

    /// The time line of a rank's step with these ranks.
    fn steps(
        &self,
        gpu: &Gpu,
        session: &mut RankSession,
        team: &Team,
        check: &dyn Fn() -> Result<()>,
    ) -> Result<Timeline> {
        let batch = self.model.images(session.rows());
        let timed = self.model.config.max_steps.unwrap_or(STEPS) as usize;
        let mut lines = vec![];
        for step in 0..self.model.warm_up.max(1) + timed {
            check()?;
            let (result, line) = session.step(gpu, team, &batch, step as u64)?;
            finite(&[result.loss])?;
            lines.push(line);
        }
        gpu.wait()?;
        Ok(median_of(&lines[lines.len() - timed..]))
    }

    /// The line of the rank whose step takes the longest, on all ranks.
    fn slowest(&self, own: Timeline) -> Result<Timeline> {
        let Timeline { ready, computed, total, communication, writing } = own;
        let numbers = [&[computed, total, communication, writing], &ready[..]].concat();
        let all = self.team.exchange("time lines", Ok(bytemuck::cast_slice(&numbers).to_vec()))?;
        let all = all.iter().map(|line| bytemuck::pod_collect_to_vec::<u8, f64>(line));
        let line = all.max_by(|a, b| a[1].total_cmp(&b[1])).unwrap_or(numbers);
        let [computed, total, communication, writing] = [0, 1, 2, 3].map(|event| line[event]);
        Ok(Timeline { ready: line[4..].to_vec(), computed, total, communication, writing })
    }
}

fn ms(seconds: f64) -> String {
    format!("{:.1} ms", 1e3 * seconds)
}

impl Display for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { network, step, communication, hidden, efficiency, .. } = self;
        let (ranks, latency) = (network.ranks, 1e6 * network.latency);
        let gbps = network.bytes_per_second * 8e-9;
        write!(
            f,
            "{} a step of {ranks} ranks at {gbps:.1} Gbit/s and {latency:.1} us; exchanges {}, {:.0} % of them hidden; \
             {:.0} % of the speed without them",
            ms(*step),
            ms(*communication),
            100.0 * hidden,
            100.0 * efficiency
        )
    }
}

impl Display for RanksReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ranks, on_machine, processors, model, batch, size, precision, wire, shared, .. } = self;
        let mut line = |title: &str, text: String| writeln!(f, "{title:<10} {text}");
        line("device", self.device.to_string())?;
        line("ranks", format!("{ranks}, {on_machine} of them on this machine with {processors} processors"))?;
        let rows: Vec<String> = self.rows.iter().map(ToString::to_string).collect();
        line("work", format!("{model} training step, batch {batch} ({}), {size}, {precision}", rows.join(" + ")))?;
        let all: f64 = self.buckets.iter().sum();
        let mib = |bytes: f64| format!("{:.1}", bytes / f64::from(1 << 20));
        let buckets: Vec<String> = self.buckets.iter().map(|&bytes| mib(bytes)).collect();
        let (count, list) = (self.buckets.len(), buckets.join(", "));
        line("buckets", format!("{count}, {} MiB in all in {wire} on the wire: {list}", mib(all)))?;
        line("one rank", format!("{} a step with the whole batch, the others at rest", ms(self.one)))?;
        line(
            "own share",
            format!("{} with the others at rest, {} while all compute", ms(self.alone.total), ms(self.together.total)),
        )?;
        line(
            "step",
            format!(
                "{}: {:.1} images/s, {:.2} times one rank, efficiency {:.0} %",
                ms(shared.total),
                self.images_per_second,
                self.one / shared.total,
                100.0 * self.efficiency
            ),
        )?;
        let share = 100.0 * shared.communication / shared.total;
        let more = 100.0 * (shared.total / self.together.total - 1.0);
        line(
            "exchanges",
            format!("{share:.0} % of the step's time on the host; the step is {more:.0} % longer than without them"),
        )?;
        let longer = 100.0 * (self.without_overlap / shared.total - 1.0);
        line("overlap", format!("{} a step without it, {longer:+.0} %", ms(self.without_overlap)))?;
        let off = 100.0 * (self.predicted.step / shared.total - 1.0);
        line("predicted", format!("{}: {off:+.0} % off", self.predicted))?;
        if let Some(elsewhere) = &self.elsewhere {
            line("simulated", elsewhere.to_string())?;
        }
        Ok(())
    }
}
