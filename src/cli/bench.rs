//! `lesion-gpu bench`: a model's step against what the device can do.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use serde::Serialize;

use super::{DeviceArgs, TuningArgs, interrupted, memory_budget, memory_budget_of, say};
use crate::bench::{Ceilings, GemmBench, GemmReport, ModelBench, Network, RanksBench, RanksReport, Report, Task};
use crate::data::ImageSize;
use crate::error::{Error, Kind, Result};
use crate::models::Model;
use crate::parallel::Team;
use crate::tensor::DType;
use crate::train::{Interrupt, Precision, TrainConfig, Wire};
use crate::weights::write_atomically;

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("step of ranks").args(["ranks", "simulate"]).multiple(true)))]
#[command(before_help = "\
Examples:
  lesion-gpu bench --model resnet18 --size 128 --batch 8      a training step, and its kernels by time
  lesion-gpu bench --model resnet50 --size 224 --infer        inference
  lesion-gpu bench --layers --top 60                          the kernels of each layer
  mpirun -n 4 lesion-gpu bench --ranks --batch 128            a training step that four processes share
  lesion-gpu bench --simulate ranks=64,gbps=100,latency_us=2  what 64 of them would take
  lesion-gpu bench --gemm 4096                                a matrix product instead, in f32 and f16
  lesion-gpu bench --json -                                   everything as JSON, nothing else")]
pub(super) struct BenchArgs {
    /// simple-cnn, resnet18, resnet34, resnet50, resnet101, resnet152, resnet50-se, seresnet50,
    /// inception-resnet-v2, efficientnet-b0, vit-small-16, unet-small, unet, unet-resnet18, unet-resnet34, unet-resnet50
    #[arg(long, default_value = "resnet18", help_heading = "Work")]
    model: String,
    /// Size of the images in pixels: N for a square, or WIDTHxHEIGHT
    #[arg(long, default_value = "64", value_name = "SIZE", help_heading = "Work")]
    size: ImageSize,
    /// Images a step
    #[arg(long, default_value_t = 32, help_heading = "Work")]
    batch: usize,
    /// Compute a training step in parts of this many images, as `train --micro-batch` does
    #[arg(long, value_name = "N", conflicts_with = "infer", help_heading = "Work")]
    micro_batch: Option<usize>,
    /// Precision of the activations: f32 or mixed
    #[arg(long, default_value = "f32", help_heading = "Work")]
    precision: Precision,
    /// Time inference, with a batch that stays on the device, instead of a training step
    #[arg(long, help_heading = "Work")]
    infer: bool,
    /// Timed steps [default: those of five seconds, from 7 to 500]
    #[arg(long, value_name = "N", help_heading = "Work")]
    steps: Option<u64>,
    /// Time the product of two matrices of N rows and columns instead of a model, in f32 and, where the device has it, f16
    #[arg(long, value_name = "N", help_heading = "Work", conflicts_with_all = [
        "model", "size", "batch", "micro_batch", "precision", "infer", "steps", "warm_up", "top", "layers", "memory_limit",
        "ranks", "simulate",
    ], value_parser = clap::value_parser!(u16).range(1..=46_340))]
    gemm: Option<u16>,
    /// Time a training step that the processes share which mpirun has started, against one process, and say what of it is
    /// exchanges. --batch is that of all of them; 10 steps are timed unless --steps says otherwise
    #[arg(long, conflicts_with_all = ["gemm", "infer", "top", "layers"], help_heading = "Ranks")]
    ranks: bool,
    /// Predict the step of so many ranks, each with as many images as a rank has here, on another network: ranks, gigabits a
    /// second, microseconds to the first byte, such as ranks=64,gbps=100,latency_us=2
    #[arg(long, value_name = "NETWORK", conflicts_with_all = ["gemm", "infer", "top", "layers"], help_heading = "Ranks")]
    simulate: Option<Network>,
    /// With --ranks or --simulate: element type of gradients on the wire, f32 or f16
    #[arg(long, value_name = "TYPE", default_value = "f32", requires = "step of ranks", help_heading = "Ranks")]
    wire: Wire,
    /// Steps before the clock starts
    #[arg(long, value_name = "N", default_value_t = 3, help_heading = "Work")]
    warm_up: usize,

    /// Kernels listed
    #[arg(long, value_name = "N", default_value_t = 25, help_heading = "Output")]
    top: usize,
    /// Split the kernels by layer
    #[arg(long, help_heading = "Output")]
    layers: bool,
    /// Write all numbers to this file; `-` for standard output, and nothing else there
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    json: Option<PathBuf>,

    /// MiB on the device to stay below [default: on software drivers what is free, else what the device gives]
    #[arg(long, value_name = "MIB", help_heading = "Device")]
    memory_limit: Option<u64>,
    #[command(flatten)]
    tuning: TuningArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

impl BenchArgs {
    /// Whether it is about steps that several processes share.
    pub(super) fn with_ranks(&self) -> bool {
        self.ranks || self.simulate.is_some()
    }

    fn config(&self) -> Result<TrainConfig> {
        let config = TrainConfig {
            size: self.size,
            batch: self.batch,
            micro_batch: self.micro_batch,
            wire: self.wire,
            precision: self.precision,
            max_steps: self.steps,
            ..TrainConfig::of(Model::find(&self.model)?)
        };
        config.validate()?;
        Ok(config)
    }
}

/// As one of the ranks that `launch` has found, all of which call it.
fn measure_ranks(args: &BenchArgs, interrupt: &Interrupt, team: &Team) -> Result<RanksReport> {
    let config = args.config()?;
    let gpu = team.in_turn("the device", || args.device.open_at(team.local()))?;
    args.precision.check(&gpu)?;
    let memory_limit = memory_budget_of(team, args.memory_limit, &gpu);
    let tuning = args.tuning.cache(&gpu);
    let model = ModelBench { config, task: Task::Train, warm_up: args.warm_up, memory_limit, tuning };
    let memory_limit_alone = memory_budget(args.memory_limit, &gpu);
    RanksBench { model, team: team.clone(), memory_limit_alone, elsewhere: args.simulate }
        .run(&gpu, &|| interrupted(interrupt))
}

pub(super) fn run(args: &BenchArgs, interrupt: &Interrupt, team: &Team) -> Result<()> {
    let check = || interrupted(interrupt);
    if args.with_ranks() {
        let report = team.agreed("the benchmark", measure_ranks(args, interrupt, team))?;
        return if team.is_first() { print(&report.to_string(), &report, args.json.as_deref()) } else { Ok(()) };
    }
    if let Some(size) = args.gemm.map(usize::from) {
        let gpu = args.device.open()?;
        let bench = GemmBench { size, tuning: args.tuning.cache(&gpu) };
        let ceilings = Ceilings::measure(&gpu, &check)?;
        let mut products = vec![bench.run(&gpu, DType::F32, &ceilings, &check)?];
        if gpu.caps().f16 {
            products.push(bench.run(&gpu, DType::F16, &ceilings, &check)?);
        }
        let report = GemmReport::new(&gpu, ceilings, products);
        return print(&report.text(), &report, args.json.as_deref());
    }
    let config = args.config()?;
    let gpu = args.device.open()?;
    args.precision.check(&gpu)?;
    let task = if args.infer { Task::Infer } else { Task::Train };
    let memory_limit = memory_budget(args.memory_limit, &gpu);
    let bench = ModelBench { config, task, warm_up: args.warm_up, memory_limit, tuning: args.tuning.cache(&gpu) };
    let timing = bench.run(&gpu, &check)?;
    let ceilings = Ceilings::measure(&gpu, &check)?;
    let report = Report::new(&gpu, &bench, timing, ceilings, args.layers);
    print(&report.text(args.top), &report, args.json.as_deref())
}

/// The report as text, and as JSON where that is asked for.
fn print(text: &str, report: &impl Serialize, json: Option<&Path>) -> Result<()> {
    let alone = json.is_some_and(|path| path.as_os_str() == "-");
    if !alone {
        say(text.trim_end());
    }
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(report)
            .map_err(|e| Error::new(Kind::Internal, format!("could not encode the benchmark: {e}")))?;
        match alone {
            true => say(text),
            false => write_atomically(path, (text + "\n").as_bytes())?,
        }
    }
    Ok(())
}
