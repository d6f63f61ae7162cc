//! The numbers of a benchmark put together: as text for people, as JSON for programs.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::{Ceilings, GemmTiming, ModelBench, ModelTiming};
use crate::data::ImageSize;
use crate::gpu::{AdapterSummary, Gpu};

/// The commit this program was built from, where the build said so by the environment variable `LESION_GPU_COMMIT`.
pub fn commit() -> Option<&'static str> {
    option_env!("LESION_GPU_COMMIT").filter(|c| !c.is_empty())
}

/// The adapter that was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Device {
    /// The device's name.
    pub name: String,
    /// Discrete, integrated, virtual, software or other.
    pub class: &'static str,
    /// The graphics API.
    pub backend: String,
    /// Driver name and version.
    pub driver: String,
    /// Features in use.
    pub features: Vec<&'static str>,
}

impl Device {
    pub(super) fn of(adapter: &AdapterSummary) -> Self {
        Self {
            name: adapter.name.clone(),
            class: adapter.class.name(),
            backend: adapter.backend.clone(),
            driver: adapter.driver.clone(),
            features: adapter.features.iter().map(|f| f.name()).collect(),
        }
    }
}

/// What was timed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Workload {
    /// Model name.
    pub model: String,
    /// `train` or `infer`.
    pub task: &'static str,
    /// Images a step.
    pub batch: usize,
    /// Images of the parts it is computed in, if it is.
    pub micro_batch: Option<usize>,
    /// Size of the images in pixels.
    pub size: ImageSize,
    /// Element type of activations and products.
    pub precision: &'static str,
    /// Launches of a step.
    pub launches: usize,
    /// Floating-point operations of a step, as its launches state them.
    pub flops: u64,
    /// Bytes a step moves at least: what every launch reads and writes, once.
    pub bytes: u64,
}

/// Bytes on the device.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemoryUse {
    /// All of it at the peak.
    pub peak: u64,
    /// Parameters, running statistics, optimizer state.
    pub parameters: u64,
    /// Activations, gradients, scratch, inputs and outputs.
    pub activations: u64,
    /// What activations, gradients and scratch would be without reuse.
    pub without_reuse: u64,
}

/// The time of a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepTimes {
    /// Seconds until the first step was done: tracing, pipelines, that step.
    pub ready: f64,
    /// Timed steps.
    pub count: usize,
    /// Median in seconds.
    pub median: f64,
    /// Fastest.
    pub fastest: f64,
    /// Slowest.
    pub slowest: f64,
    /// First and third quartile.
    pub quartiles: [f64; 2],
    /// Processor seconds of the program a step, where the system tells.
    pub cpu: Option<f64>,
    /// Images a second.
    pub images_per_second: f64,
    /// Operations a second.
    pub flops_per_second: f64,
    /// Their share of the ceiling.
    pub flops_share: f64,
    /// Which one: `matrices` if any launch multiplies cooperative matrices, else `f32`.
    pub flops_ceiling: &'static str,
    /// Bytes a second.
    pub bytes_per_second: f64,
    /// Their share of the copy ceiling.
    pub bytes_share: f64,
    /// Every timed step in order.
    pub seconds: Vec<f64>,
}

/// The launches of one kernel, or of one kernel in one layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KernelRow {
    /// The op.
    pub op: String,
    /// Shader and entry point.
    pub kernel: String,
    /// The layer, where the table is split by layer.
    pub layer: Option<String>,
    /// Launches in a step.
    pub launches: usize,
    /// Seconds of all of them on the device.
    pub seconds: f64,
    /// Share of the seconds of all kernels.
    pub share: f64,
    /// Operations a second.
    pub flops_per_second: f64,
    /// Bytes a second.
    pub bytes_per_second: f64,
    /// Time its work takes at the ceilings, by the time it took: 1 is as fast as the device gets.
    pub roofline: f64,
}

/// A whole benchmark.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Version of the program.
    pub lesion_gpu: &'static str,
    /// Commit it was built from, if known.
    pub commit: Option<&'static str>,
    /// When, UTC, such as `2026-11-21T05:06:07Z`.
    pub date: String,
    /// The command line.
    pub command: Vec<String>,
    /// Where.
    pub device: Device,
    /// What.
    pub work: Workload,
    /// Memory.
    pub memory: MemoryUse,
    /// What the device does at best.
    pub ceilings: Ceilings,
    /// The time of a step.
    pub step: StepTimes,
    /// Kernels by time, longest first; nothing without timestamp queries.
    pub kernels: Option<Vec<KernelRow>>,
    /// Why there are no kernels.
    pub kernels_note: Option<String>,
}

/// A benchmark of matrix products.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GemmReport {
    /// Version of the program.
    pub lesion_gpu: &'static str,
    /// Commit it was built from, if known.
    pub commit: Option<&'static str>,
    /// When, UTC.
    pub date: String,
    /// The command line.
    pub command: Vec<String>,
    /// Where.
    pub device: Device,
    /// What the device does at best.
    pub ceilings: Ceilings,
    /// One for each element type.
    pub products: Vec<GemmTiming>,
}

impl GemmReport {
    /// Puts timings and the device's ceilings together.
    pub fn new(gpu: &Gpu, ceilings: Ceilings, products: Vec<GemmTiming>) -> Self {
        Self {
            lesion_gpu: env!("CARGO_PKG_VERSION"),
            commit: commit(),
            date: now(),
            command: std::env::args().collect(),
            device: Device::of(gpu.adapter()),
            ceilings,
            products,
        }
    }

    /// The report as text.
    pub fn text(&self) -> String {
        let mut out = format!("{:<10} {}\n{:<10} {}\n", "device", self.device, "ceilings", self.ceilings);
        for p in &self.products {
            let choice = p.choice.as_ref().map_or(String::new(), |choice| format!(", {choice}"));
            let _ = writeln!(
                out,
                "{:<10} {n} x {n} x {n}, {}: {} ms median of {}, {} to {}; {} ({:.1} % of the {} ceiling) [{}{choice}]",
                "gemm",
                p.precision,
                milliseconds(p.seconds[p.seconds.len() / 2]),
                p.seconds.len(),
                milliseconds(p.seconds[0]),
                milliseconds(p.seconds[p.seconds.len() - 1]),
                Flops(p.flops_per_second),
                100.0 * p.share,
                p.ceiling,
                p.kernel,
                n = p.size,
            );
        }
        out
    }
}

impl Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {}, {})", self.name, self.class, self.backend, self.driver)
    }
}

impl Display for Ceilings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "f32 {}", Flops(self.f32_flops))?;
        self.f16_flops.map_or(Ok(()), |rate| write!(f, ", f16 {}", Flops(rate)))?;
        self.matrices_flops.map_or(Ok(()), |rate| write!(f, ", matrices {}", Flops(rate)))?;
        let buffer = self.copy_buffer as f64 / f64::from(1 << 20);
        write!(
            f,
            ", copy {} ({buffer:.1} MiB buffer): measured here, by kernels that do nothing else",
            Bytes(self.copy_bytes)
        )
    }
}

/// The value a share `q` of the sorted `values` lies below, between two of them in proportion.
fn quantile(values: &[f64], q: f64) -> f64 {
    let at = q * (values.len() - 1) as f64;
    let (low, part) = (at.floor() as usize, at.fract());
    values[low] + part * (values[(low + 1).min(values.len() - 1)] - values[low])
}

impl Report {
    /// Puts a timing (of at least one step) and the device's ceilings together. `by_layer` splits the kernels by layer.
    pub fn new(gpu: &Gpu, bench: &ModelBench, timing: ModelTiming, ceilings: Ceilings, by_layer: bool) -> Self {
        let mut sorted = timing.steps.clone();
        sorted.sort_by(f64::total_cmp);
        let median = quantile(&sorted, 0.5);
        let (flops, bytes) = (timing.work.flops as f64 / median, timing.work.bytes as f64 / median);
        let kernels = timing.kernels.as_ref().ok().map(|launches| {
            let mut rows: BTreeMap<(&str, &str, Option<&str>), KernelRow> = BTreeMap::new();
            let mut least: BTreeMap<(&str, &str, Option<&str>), [f64; 3]> = BTreeMap::new();
            let total: f64 = launches.iter().map(|k| k.seconds).sum();
            for k in launches {
                let key = (k.op, k.kernel.as_str(), by_layer.then_some(k.scope.as_str()));
                let row = rows.entry(key).or_insert_with(|| KernelRow {
                    op: k.op.to_owned(),
                    kernel: k.kernel.clone(),
                    layer: key.2.map(str::to_owned),
                    launches: 0,
                    seconds: 0.0,
                    share: 0.0,
                    flops_per_second: 0.0,
                    bytes_per_second: 0.0,
                    roofline: 0.0,
                });
                row.launches += 1;
                row.seconds += k.seconds;
                let (flops, bytes) = (k.work.flops as f64, k.work.bytes as f64);
                let sums = least.entry(key).or_default();
                let add = [flops, bytes, ceilings.least_seconds(flops, k.matrices, bytes)];
                sums.iter_mut().zip(add).for_each(|(sum, add)| *sum += add);
            }
            for (key, row) in &mut rows {
                // A launch shorter than a tick of the device's clock has no measurable rate.
                let rate = |amount: f64| if row.seconds > 0.0 { amount / row.seconds } else { 0.0 };
                let [flops, bytes, seconds] = least.get(key).copied().unwrap_or_default();
                (row.flops_per_second, row.bytes_per_second, row.roofline) = (rate(flops), rate(bytes), rate(seconds));
                row.share = if total > 0.0 { row.seconds / total } else { 0.0 };
            }
            let mut rows: Vec<KernelRow> = rows.into_values().collect();
            rows.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
            rows
        });
        let config = &bench.config;
        let memory = timing.memory;
        Self {
            lesion_gpu: env!("CARGO_PKG_VERSION"),
            commit: commit(),
            date: now(),
            command: std::env::args().collect(),
            device: Device::of(gpu.adapter()),
            work: Workload {
                model: config.model.clone(),
                task: bench.task.name(),
                batch: config.batch,
                micro_batch: config.micro_batch,
                size: config.size,
                precision: bench.config.precision.name(),
                launches: timing.launches,
                flops: timing.work.flops,
                bytes: timing.work.bytes,
            },
            memory: MemoryUse {
                peak: memory.total(),
                parameters: memory.variables,
                activations: memory.slots + memory.io,
                without_reuse: memory.without_reuse,
            },
            ceilings,
            step: StepTimes {
                ready: timing.ready,
                count: sorted.len(),
                median,
                fastest: sorted[0],
                slowest: sorted[sorted.len() - 1],
                quartiles: [quantile(&sorted, 0.25), quantile(&sorted, 0.75)],
                cpu: timing.cpu,
                images_per_second: config.batch as f64 / median,
                flops_per_second: flops,
                flops_share: flops / ceilings.flops(timing.matrices),
                flops_ceiling: if timing.matrices { "matrices" } else { "f32" },
                bytes_per_second: bytes,
                bytes_share: bytes / ceilings.copy_bytes,
                seconds: timing.steps,
            },
            kernels,
            kernels_note: timing.kernels.err().map(|e| e.what().to_owned()),
        }
    }

    /// The report as text, with the first `top` kernels.
    pub fn text(&self, top: usize) -> String {
        let mut out = String::new();
        let mut line = |title: &str, text: String| {
            let _ = writeln!(out, "{title:<10} {text}");
        };
        let Self { device, work, memory, ceilings, step, .. } = self;
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let task = if work.task == "train" { "training step" } else { "inference" };
        line("device", device.to_string());
        let Workload { model, batch, micro_batch, size, precision, .. } = work;
        let parts = micro_batch.map_or(String::new(), |images| format!(" in parts of {images}"));
        line("work", format!("{model} {task}, batch {batch}{parts}, {size}, {precision}"));
        line("ceilings", ceilings.to_string());
        line("launches", format!("{}; first step done after {:.1} s", work.launches, step.ready));
        line(
            "memory",
            format!(
                "{} at the peak: {} parameters{}, {} activations{} ({} without reuse)",
                mib(memory.peak),
                mib(memory.parameters),
                if work.task == "train" { " and optimizer" } else { "" },
                mib(memory.activations),
                if work.task == "train" { " and gradients" } else { "" },
                mib(memory.without_reuse)
            ),
        );
        let [low, high] = step.quartiles.map(milliseconds);
        line(
            "step",
            format!(
                "{} ms median of {}, fastest {}, slowest {}, half of them {low} to {high}",
                milliseconds(step.median),
                step.count,
                milliseconds(step.fastest),
                milliseconds(step.slowest)
            ),
        );
        if let Some(cpu) = step.cpu {
            line("processor", format!("{} ms a step, all threads of this program together", milliseconds(cpu)));
        }
        line(
            "speed",
            format!(
                "{:.1} images/s, {} ({} of the {} ceiling), {} ({} of the copy ceiling)",
                step.images_per_second,
                Flops(step.flops_per_second),
                percent(step.flops_share),
                step.flops_ceiling,
                Bytes(step.bytes_per_second),
                percent(step.bytes_share)
            ),
        );
        match (&self.kernels, &self.kernels_note) {
            (Some(rows), _) => out += &table(rows, top),
            (None, note) => {
                line("kernels", format!("no table: {}", note.as_deref().unwrap_or("no kernel was timed")));
            }
        }
        out
    }
}

/// Kernels by time.
fn table(rows: &[KernelRow], top: usize) -> String {
    let total: f64 = rows.iter().map(|r| r.seconds).sum();
    let mut out = format!(
        "\nkernels, {} ms in all, each in a pass of its own; roofline: time at the ceilings by time taken\n\
         {:>7} {:>10} {:>9} {:>9} {:>8} {:>9}  op [kernel]\n",
        milliseconds(total),
        "share",
        "ms",
        "launches",
        "GFLOP/s",
        "GB/s",
        "roofline"
    );
    for r in rows.iter().take(top) {
        let layer = r.layer.as_deref().map_or(String::new(), |layer| format!(" {layer}"));
        let _ = writeln!(
            out,
            "{:>6.1}% {:>10.3} {:>9} {:>9.2} {:>8.2} {:>8.1}%  {} [{}]{layer}",
            100.0 * r.share,
            1e3 * r.seconds,
            r.launches,
            r.flops_per_second / 1e9,
            r.bytes_per_second / 1e9,
            100.0 * r.roofline,
            r.op,
            r.kernel
        );
    }
    if rows.len() > top {
        let rest: f64 = rows[top..].iter().map(|r| r.seconds).sum();
        let _ = writeln!(out, "{:>6.1}% {:>10.3} in {} more", 100.0 * rest / total, 1e3 * rest, rows.len() - top);
    }
    out
}

/// Milliseconds with three significant digits or so.
fn milliseconds(seconds: f64) -> String {
    let ms = 1e3 * seconds;
    let digits = if ms >= 100.0 { 1 } else { 3 };
    format!("{ms:.digits$}")
}

/// Operations a second in their unit.
struct Flops(f64);

impl Display for Flops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            rate if rate >= 1e12 => write!(f, "{:.2} TFLOP/s", rate / 1e12),
            rate => write!(f, "{:.2} GFLOP/s", rate / 1e9),
        }
    }
}

/// Bytes a second in their unit.
struct Bytes(f64);

impl Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} GB/s", self.0 / 1e9)
    }
}

/// Now, as ISO 8601, UTC.
pub(super) fn now() -> String {
    utc(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()))
}

/// A time in seconds since 1970 as ISO 8601, UTC.
fn utc(seconds: u64) -> String {
    let (mut day, time) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 0;
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    while day >= lengths[month] {
        day -= lengths[month];
        month += 1;
    }
    format!("{year}-{:02}-{:02}T{:02}:{:02}:{:02}Z", month + 1, day + 1, time / 3600, time / 60 % 60, time % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_219_200, "2026-11-21T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(seconds), date);
        }
    }

    #[test]
    fn quantiles_lie_between_the_values() {
        assert_eq!(quantile(&[3.0], 0.25), 3.0);
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0], 0.5), 2.5);
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0, 5.0], 0.25), 2.0);
        assert_eq!(quantile(&[1.0, 2.0], 1.0), 2.0);
    }
}
