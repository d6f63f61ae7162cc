//! `lesion-gpu tune`: which kernels are the fastest for a model on this GPU.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use super::progress::Progress;
use super::{DeviceArgs, interrupted, say, tuning_cache};
use crate::autograd::Tunable;
use crate::bench::GemmBench;
use crate::data::ImageSize;
use crate::error::{Error, Kind, Result};
use crate::gpu::Gpu;
use crate::models::Model;
use crate::train::{EvalGraph, Interrupt, Precision, TrainConfig, TrainGraph};
use crate::tune::{Family, Outcome, distinct, tune};
use crate::weights::write_atomically;

#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  lesion-gpu tune --model resnet18 --size 128 --batch 32
  lesion-gpu tune --model resnet50 --size 224 --batch 64 --budget 120 --adapter 1
  lesion-gpu tune --gemm 4096                                   for `bench --gemm 4096`

Every candidate is first compared with the plain kernel (for very large products, with the direct tiles) on random data of
the same shape, then timed. The result is kept in the user's cache folder and used by train, eval and predict of the same
model, size, precision and batch (with micro-batches: the part), and for convolutions of others with about as many pixels,
unless --no-tune is given. Another driver or build of this program makes it void.")]
pub(super) struct TuneArgs {
    /// Model, as for `lesion-gpu train`
    #[arg(long, default_value = "resnet18")]
    model: String,
    /// Size of the images in pixels: N for a square, or WIDTHxHEIGHT
    #[arg(long, default_value = "64", value_name = "SIZE")]
    size: ImageSize,
    /// Images a step
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// Classes, of a model that classifies
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    classes: u16,
    /// Precision of the activations: f32 or mixed
    #[arg(long, default_value = "f32")]
    precision: Precision,
    /// Try the product of two matrices of N rows and columns instead of a model, in f32 and, where the device has it, f16
    #[arg(long, value_name = "N", conflicts_with_all = ["model", "size", "batch", "classes", "precision"], value_parser = clap::value_parser!(u16).range(1..=46_340))]
    gemm: Option<u16>,
    /// Seconds to spend; the largest products come first
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    budget: u32,
    /// Also write what was found to this file, as a table that can come with the program: see CONTRIBUTING.md
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

impl TuneArgs {
    /// The model and its configuration, unless it is about a product of matrices.
    fn config(&self) -> Result<Option<(Model, TrainConfig)>> {
        if self.gemm.is_some() {
            return Ok(None);
        }
        let Self { size, batch, precision, .. } = *self;
        let model = Model::find(&self.model)?;
        let config = TrainConfig { size, batch, precision, ..TrainConfig::of(model) };
        config.validate()?;
        Ok(Some((model, config)))
    }

    /// What there is to tune on a device, and its name.
    fn nodes(&self, config: Option<(Model, TrainConfig)>, gpu: &Gpu) -> Result<(Vec<Tunable>, String)> {
        let caps = gpu.caps();
        let Some((model, config)) = config else {
            let size = self.gemm.unwrap_or_default().into();
            return Ok((GemmBench { size, tuning: None }.tunable(caps)?, format!("product of {size}x{size} matrices")));
        };
        config.precision.check(gpu)?;
        let outputs = model.outputs(self.classes.into());
        let train = TrainGraph::new(model, &config, config.batch, outputs, caps)?;
        let eval = EvalGraph::new(model, &config, config.batch, outputs, caps)?;
        let TrainConfig { model, size, batch, precision, .. } = &config;
        let name = format!("{model}, {size} pixels, batch {batch}, {}", precision.name());
        Ok((distinct([train.plan.tunable, eval.plan.tunable].concat()), name))
    }
}

pub(super) fn run(args: &TuneArgs, interrupt: &Interrupt) -> Result<()> {
    let config = args.config()?;
    if args.device.checked {
        return Err(Error::new(
            Kind::Usage,
            "--checked slows some kernels more than others: there is nothing to learn",
        )
        .next("leave --checked away"));
    }
    let gpu = args.device.open()?;
    let (nodes, work) = args.nodes(config, &gpu)?;
    let mut progress = Progress::new();
    let started = Instant::now();
    let found = tune(&gpu, &nodes, Duration::from_secs(args.budget.into()), &mut |done, all| {
        progress.show("measuring kernels", done, all, String::new);
        interrupted(interrupt)
    });
    progress.clear();
    let found = found?;
    gpu.save_pipelines();
    let mut cache = tuning_cache(&gpu);
    cache.unusable().into_iter().for_each(|why| eprintln!("note: {why}"));
    cache.record(&nodes, &found.outcomes);
    cache.save()?;
    if let Some(path) = &args.table {
        let table = serde_json::to_string_pretty(&[Family::of(gpu.adapter(), &found.outcomes)])
            .map_err(|e| Error::new(Kind::Internal, format!("could not encode the table: {e}")))?;
        write_atomically(path, (table + "\n").as_bytes())?;
    }

    let a = gpu.adapter();
    say(format!("device  {} ({}, {})", a.name, a.class.name(), a.driver));
    let seconds = started.elapsed().as_secs_f64();
    say(format!("work    {work}: {seconds:.1} s"));
    say(format!(
        "{:>10}  {:>10}  {:>6}  {:>9}  {:<30} product (N x H x W x C, R x S x C x K)",
        "default ms", "best ms", "gain", "GFLOP/s", "best"
    ));
    found.outcomes.iter().for_each(|outcome| say(row(outcome)));
    for outcome in &found.outcomes {
        for r in &outcome.rejected {
            say(format!("rejected  {} for {}: {}", r.choice, outcome.key, r.why));
        }
    }
    // By reason: when the time is used up, all that is left has the same.
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    found.left.iter().for_each(|(key, why)| reasons.entry(why).or_default().push(key));
    for (why, keys) in reasons {
        let more = if keys.len() > 1 { format!(" and {} more", keys.len() - 1) } else { String::new() };
        say(format!("left as it was: {}{more}: {why}", keys[0]));
    }
    say(match cache.path() {
        Some(path) => format!("kept in {}", path.display()),
        None => "not kept: this user has no cache folder".to_owned(),
    });
    Ok(())
}

fn row(o: &Outcome) -> String {
    let default = o.default.as_ref().map(|d| d.seconds);
    let text = |ms: Option<f64>| ms.map_or("rejected".to_owned(), |s| format!("{:.3}", s * 1e3));
    let gain = default.map_or(String::new(), |d| format!("{:.2}x", d / o.best.seconds.max(1e-12)));
    let rate = o.flops as f64 / o.best.seconds.max(1e-12) / 1e9;
    let (default, best) = (text(default), text(Some(o.best.seconds)));
    format!("{default:>10}  {best:>10}  {gain:>6}  {rate:>9.1}  {:<30} {}", o.best.choice, o.key)
}
