//! `lesion-gpu doctor`: the adapter, then every kernel against its CPU twin on this driver.

use clap::Args;

use super::{DeviceArgs, bytes, interrupted, say};
use crate::error::{Error, Kind, Result};
use crate::gpu::TextureLoads;
use crate::ops::{Case, CaseReport, all_cases, check_case};
use crate::train::{Interrupt, Precision};

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Only cases whose name contains this text
    #[arg(value_name = "FILTER")]
    filter: Option<String>,
    /// Show every case, not one line an op
    #[arg(long)]
    verbose: bool,
    /// Only what this precision uses: without 16-bit floats (f32) or with them (mixed) [default: what the adapter can do]
    #[arg(long)]
    precision: Option<Precision>,
    /// Seed of the random inputs
    #[arg(long, default_value_t = 1)]
    seed: u32,
    #[command(flatten)]
    device: DeviceArgs,
}

/// The results of an op's cases.
#[derive(Default)]
struct Tally {
    cases: usize,
    failed: Vec<String>,
    worst: f64,
}

impl Tally {
    fn add(&mut self, report: &CaseReport) -> String {
        let Some(worst) = report.worst() else {
            self.failed.push(format!("{}: nothing was compared", report.label));
            return format!("FAIL  {}", report.label);
        };
        self.worst = report.measured.iter().map(|m| m.error).fold(self.worst, f64::max);
        let text = format!("{}: {} has error {:.1e}, limit {:.1e}", report.label, worst.what, worst.error, worst.limit);
        if report.passed() {
            return format!("ok    {text}");
        }
        self.failed.push(text.clone());
        format!("FAIL  {text}")
    }
}

pub(super) fn run(args: &DoctorArgs, interrupt: &Interrupt) -> Result<()> {
    let gpu = args.device.open()?;
    let adapter = gpu.adapter();
    say(format!("adapter   {} ({}, {})", adapter.name, adapter.class.name(), adapter.backend));
    say(format!("driver    {}", adapter.driver));
    say(format!("features  {}", adapter.features.iter().map(|f| f.name()).collect::<Vec<_>>().join(", ")));
    let caps = gpu.caps();
    say(format!(
        "limits    binding {}, buffer {}, {} invocations, {} of workgroup memory, {} storage buffers",
        bytes(caps.max_binding),
        bytes(caps.max_buffer),
        caps.max_invocations,
        bytes(u64::from(caps.max_workgroup_memory)),
        caps.max_storage_buffers
    ));
    let matrices = match (adapter.matrices, caps.matrices) {
        (None, _) => "none".to_owned(),
        (Some(n), Some(_)) => format!("{n}x{n}, f16 factors and f32 sums; they agree with plain convolutions"),
        (Some(n), None) => format!("{n}x{n}, refused: they do not agree with plain convolutions"),
    };
    say(format!("matrices  {matrices}"));
    let loads = match caps.textures {
        TextureLoads::Slow => "from buffers",
        TextureLoads::Faster => {
            "from buffers; of what is read many times from copies in textures, measured to be faster here"
        }
        TextureLoads::MuchFaster => "from copies in textures, measured to be much faster here",
    };
    say(format!("loads     {loads}"));
    say("kernels   every case against the CPU twin in f64, forward and backward, alone and mid-graph");

    args.precision.map_or(Ok(()), |precision| precision.check(&gpu))?;
    let half = caps.f16 && args.precision != Some(Precision::F32);
    let named = |c: &Case| args.filter.as_ref().is_none_or(|f| c.label().contains(f));
    let (cases, skipped): (Vec<_>, Vec<_>) =
        all_cases().into_iter().filter(named).partition(|c| half || !c.needs_half());
    if !skipped.is_empty() {
        let why = if caps.f16 { "--precision f32" } else { "the adapter has no 16-bit floats" };
        say(format!("  skipped {} cases of mixed precision: {why}", skipped.len()));
    }
    if cases.is_empty() {
        return Err(Error::new(Kind::Usage, "no case matches the filter").next("leave it out to run all"));
    }
    let mut ops: Vec<&str> = vec![];
    for case in &cases {
        if !ops.contains(&case.op) {
            ops.push(case.op);
        }
    }
    let (mut total, mut failed) = (0, 0);
    for op in ops {
        let mut tally = Tally::default();
        for case in cases.iter().filter(|c| c.op == op) {
            interrupted(interrupt)?;
            let line = match check_case(&gpu, case, args.seed) {
                Ok(report) => tally.add(&report),
                // A lost device cannot run what is left; other failures belong to their case.
                Err(e) if gpu.is_lost() => return Err(e),
                Err(e) => {
                    tally.failed.push(format!("{}: {e}", case.label()));
                    format!("FAIL  {}: {}", case.label(), e.what())
                }
            };
            tally.cases += 1;
            if args.verbose {
                say(format!("  {line}"));
            }
        }
        let verdict = if tally.failed.is_empty() { "ok  " } else { "FAIL" };
        say(format!("  {verdict}  {op:<22} {:>3} cases, worst error {:.1e}", tally.cases, tally.worst));
        for failure in &tally.failed {
            say(format!("        {failure}"));
        }
        total += tally.cases;
        failed += tally.failed.len();
    }
    if failed > 0 {
        return Err(Error::new(Kind::SelfTest, format!("{failed} of {total} cases disagree with the CPU reference"))
            .at(&adapter.name)
            .next(
                "do not trust results from this driver: update it or use another --adapter, and report this output",
            ));
    }
    say(format!("all {total} cases agree"));
    Ok(())
}
