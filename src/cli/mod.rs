//! The command line. One file a subcommand.

mod answers;
mod bench;
mod compare;
mod config_file;
mod convert;
mod data;
mod devices;
mod doctor;
mod eval;
mod events;
mod explain;
mod export;
mod fine_tune;
mod masks;
mod member;
mod models;
mod narration;
mod outline;
mod pace;
mod pictures;
mod predict;
mod preview;
mod progress;
mod published;
mod recipe;
mod report;
mod reproduce;
mod serve;
mod shell;
mod source;
mod style;
mod tensorboard;
mod together;
mod train;
mod tui;
mod tune;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use clap::parser::ValueSource;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use crate::data::Cache;
use crate::error::{Error, Kind, Result};
use crate::gpu::{DeviceClass, Fault, Feature, Gpu, GpuOptions, Limits, SelfTest, list_adapters};
use crate::ops::conv2d::prove;
use crate::parallel::{Launch, Peers, Team};
use crate::train::Interrupt;
use crate::tune::TuningCache;
use style::ERROR;

const EXAMPLES: &str = "\
Examples:
  lesion-gpu train --data synthetic --model simple-cnn     train on generated pictures, no download needed
  lesion-gpu train --data HAM10000.zip --model resnet18    train on HAM10000, straight from the Kaggle archive
  lesion-gpu eval runs/resnet18-001                        score the best checkpoint on the test images
  lesion-gpu predict runs/resnet18-001 photo.jpg           label a picture
  lesion-gpu predict runs/unet-small-001 photo.jpg --out masks    draw the mask of its lesion
  lesion-gpu explain runs/resnet18-001 photo.jpg           show where the model looks
  lesion-gpu serve runs/resnet18-001                       a web page and an HTTP API on this machine
  lesion-gpu data check HAM10000.zip                       what is in a dataset, and what is wrong with it
  lesion-gpu export runs/resnet18-001 --out model.onnx     write a model for other programs
  lesion-gpu models                                        list the models: parameters, cost, published weights
  lesion-gpu devices                                       list the GPUs of this machine
  lesion-gpu bench --model resnet18                        time a training step, kernel by kernel
  lesion-gpu tune --model resnet18 --size 128 --batch 32   find the fastest kernels for this GPU, and keep the result
  lesion-gpu doctor                                        check every kernel on this driver";

const EXIT_CODES: &str = "\
Exit codes: 0 success, 1 internal error, 2 usage, 3 no adapter, 4 unsupported by the adapter, 5 out of memory,
6 device lost, 7 shader, 8 data, 9 weights, 10 checkpoint or run folder, 11 input/output, 12 shapes,
13 self-test failed, 14 diverged, 15 another rank has ended, 130 interrupted.

Not a medical device: for research only.";

/// Train, evaluate and run models that classify or segment skin lesions on any GPU, with hand-written kernels.
#[derive(Debug, Parser)]
#[command(name = "lesion-gpu", version, before_help = EXAMPLES, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the GPUs of this machine
    Devices,
    /// Train a model
    Train(Box<train::TrainArgs>),
    /// Score a trained model on labelled images
    Eval(eval::EvalArgs),
    /// Label pictures, or draw their lesions' masks
    Predict(predict::PredictArgs),
    /// Show where in pictures a model looks: Grad-CAM, Grad-CAM++, attention rollout
    Explain(explain::ExplainArgs),
    /// Answer pictures in the browser and over HTTP, on this machine
    Serve(serve::ServeArgs),
    /// Look at a dataset
    Data(data::DataArgs),
    /// List and show recipes: published systems as configurations
    Recipe(recipe::RecipeArgs),
    /// Run recipes under their own protocol and leak-free, and put their scores beside the published ones
    Reproduce(reproduce::ReproduceArgs),
    /// Put runs beside each other, with tests of their differences
    Compare(compare::CompareArgs),
    /// Make a run's report again: charts, tables and pictures on one page
    Report(report::ReportArgs),
    /// Write a weight file of any known format as safetensors
    Convert(convert::ConvertArgs),
    /// Write a trained model for other programs: ONNX, or bare weights
    Export(export::ExportArgs),
    /// List the models: parameters, cost, smallest images, published weights
    Models(models::ModelsArgs),
    /// Time a model's step, and each kernel against what the device can do
    Bench(bench::BenchArgs),
    /// Measure which kernels are the fastest for a model on this GPU
    Tune(tune::TuneArgs),
    /// Check the adapter, then every kernel against its CPU reference
    Doctor(doctor::DoctorArgs),
    /// Print a script that completes commands in a shell
    Completions(shell::CompletionsArgs),
    /// Write the pages of the manual
    Man(shell::ManArgs),
}

/// Which GPU to use, and how.
#[derive(Debug, Args)]
#[command(next_help_heading = "Device")]
struct DeviceArgs {
    /// GPU by index or part of its name (see `lesion-gpu devices`) [default: discrete, integrated, virtual, software]. Where
    /// `mpirun` starts several processes on a machine, a list of them, one for each, separated by commas
    #[arg(long, env = "LESION_GPU_ADAPTER", value_name = "GPU")]
    adapter: Option<String>,
    /// Fail unless the adapter has this feature (f16, subgroups, timestamps, pipeline-cache, immediates,
    /// cooperative-matrix)
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    require: Vec<Feature>,
    /// Do not use this feature even if the adapter has it
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    without: Vec<Feature>,
    /// Set limits below the adapter's own, to reproduce another machine: `baseline` for those of every WebGPU device, or
    /// any of storage-buffers, binding, buffer, workgroup-memory, invocations, such as storage-buffers=8,binding=128MiB
    #[arg(long, value_name = "LIMITS")]
    limit: Option<Limits>,
    /// Use kernels without the test that each passes before its first use on a driver
    #[arg(long)]
    no_self_test: bool,
    /// Fail on purpose: lost@N or out-of-memory@N at a submission, FILE:FROM=>TO in a shader
    #[arg(long, hide = true)]
    fault: Option<Fault>,
    /// Build shaders with bounds and loop checks (slower)
    #[arg(long)]
    checked: bool,
    /// Cut a step into this many submissions, so that the GPU begins before all of it is encoded
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    submissions: u16,
}

impl DeviceArgs {
    fn open(&self) -> Result<Gpu> {
        self.open_named(self.adapter.clone())
    }

    /// The device of a process that is number `local.0` of `local.1` on its machine: one of those that are listed, or each
    /// another GPU where there are several.
    fn open_at(&self, local: (usize, usize)) -> Result<Gpu> {
        match (local, &self.adapter) {
            ((_, 1), _) => self.open(),
            ((number, _), Some(list)) => {
                let names: Vec<&str> = list.split(',').map(str::trim).collect();
                self.open_named(names.get(number % names.len()).map(|name| (*name).to_owned()))
            }
            ((number, _), None) => {
                let adapters = list_adapters();
                let kinds: Vec<_> = adapters.iter().map(|a| (a.class, a.backend.as_str())).collect();
                self.open_named(spread(&kinds, number).map(|index| index.to_string()))
            }
        }
    }

    fn open_named(&self, adapter: Option<String>) -> Result<Gpu> {
        let mut gpu = Gpu::open(&GpuOptions {
            adapter,
            require: self.require.clone(),
            without: self.without.clone(),
            checked: self.checked,
            guards: false,
            submissions: self.submissions.into(),
            pipeline_cache: Cache::Default.dir().map(|d| d.join("pipelines")),
            limits: self.limit.clone().unwrap_or_default(),
            self_test: match self.no_self_test {
                true => SelfTest::Off,
                false => SelfTest::On(Cache::Default.dir().map(|d| d.join("kernels"))),
            },
            fault: self.fault.clone(),
        })?;
        if let Some(note) = prove(&mut gpu)? {
            let _ = writeln!(std::io::stderr(), "note: {note}");
        }
        Ok(gpu)
    }
}

/// The adapter, among those of these kinds in their order, of process `number` of a machine: GPUs of the best class, each in its
/// turn, by the graphics API that comes first.
fn spread(adapters: &[(DeviceClass, &str)], number: usize) -> Option<usize> {
    let best = adapters.first()?;
    let alike: Vec<usize> = (0..adapters.len()).filter(|&i| adapters[i] == *best).collect();
    Some(alike[number % alike.len()])
}

/// Whether to use what tuning has found.
#[derive(Debug, Args)]
#[command(next_help_heading = "Device")]
struct TuningArgs {
    /// Choose kernels by the built-in rule, not by what was measured on this GPU
    #[arg(long)]
    no_tune: bool,
}

impl TuningArgs {
    fn cache(&self, gpu: &Gpu) -> Option<TuningCache> {
        let cache = (!self.no_tune).then(|| tuning_cache(gpu))?;
        cache.unusable().into_iter().for_each(|why| eprintln!("note: {why}"));
        Some(cache)
    }
}

/// What was measured on an adapter, in the user's cache folder.
fn tuning_cache(gpu: &Gpu) -> TuningCache {
    let folder = Cache::Default.dir().map(|d| d.join("tuning"));
    TuningCache::open(folder.as_deref(), gpu.adapter(), gpu.caps())
}

/// Where decoded images are kept, and how they are loaded.
#[derive(Debug, Args)]
#[command(next_help_heading = "Loading")]
struct LoadArgs {
    /// Folder for decoded images [default: lesion-gpu in the user's cache folder]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Do not keep decoded images on disk
    #[arg(long, conflicts_with = "cache")]
    no_cache: bool,
    /// Threads that prepare batches
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
}

impl LoadArgs {
    fn cache(&self) -> Cache<'_> {
        match &self.cache {
            _ if self.no_cache => Cache::Off,
            Some(folder) => Cache::Dir(folder),
            None => Cache::Default,
        }
    }
}

/// Runs the program and returns its exit code.
pub fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    // The flags of the subcommand that are on the command line, and not at their defaults.
    let flags = matches.subcommand().map(|(_, flags)| flags);
    let given = |flag: &str| flags.is_some_and(|m| m.value_source(flag) == Some(ValueSource::CommandLine));
    // Of all commands only these know other processes.
    let launch = match &cli.command {
        Command::Train(_) | Command::Predict(_) | Command::Reproduce(_) => Launch::begin(),
        Command::Bench(args) if args.with_ranks() => Launch::begin(),
        _ => Ok(Launch::alone()),
    };
    let launch = match launch {
        Ok(launch) => launch,
        Err(e) => return fail(&e),
    };
    let ranks = launch.ranks();
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // What a decoder panics on is told as an error of its file.
        if !crate::data::is_sheltered() {
            before(info);
            // Others would wait for this one for ever.
            if ranks.size() > 1 && std::thread::current().name() == Some("main") {
                ranks.abort(Kind::Internal as u8);
            }
        }
    }));
    let peers = Arc::new(OnceLock::<Peers>::new());
    let (others, rank) = (Arc::clone(&peers), launch.ranks().rank());
    let interrupt = Interrupt::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupt);
    // A server says itself what it does when it stops.
    let serves = matches!(cli.command, Command::Serve(_));
    // The first signal asks the work to stop at the next step and save; the second one stops at once.
    let handler = ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            leave();
        }
        // Or the end of another rank was the reason.
        others.get().into_iter().for_each(Peers::look);
        if rank > 0 {
            return;
        }
        // The full-screen view says it itself.
        if serves || tui::is_open() {
            return;
        }
        // `mpirun` sends a signal also where a rank of another machine has died, and leaves no time for more.
        let next = others
            .get()
            .and_then(Peers::how_to_go_on)
            .map_or(String::new(), |next| format!("; if a rank is gone, {next}"));
        let _ = writeln!(std::io::stderr(), "\nstopping after this step; once more to stop at once{next}");
    });
    let result = handler
        .map_err(|e| Error::new(Kind::Internal, format!("could not install the signal handler: {e}")))
        .and_then(|()| match cli.command {
            Command::Devices => devices::run(),
            Command::Train(args) => {
                as_rank(&launch, &peers, |team, peers| train::run(&args, &given, &interrupt, team, peers))
            }
            Command::Eval(args) => eval::run(&args, &interrupt),
            Command::Predict(args) => as_rank(&launch, &peers, |team, _| predict::run(&args, &interrupt, team)),
            Command::Explain(args) => explain::run(&args, &interrupt),
            Command::Serve(args) => serve::run(&args, &interrupt),
            Command::Data(args) => data::run(&args, &interrupt),
            Command::Recipe(args) => recipe::run(&args),
            Command::Reproduce(args) => as_rank(&launch, &peers, |team, _| reproduce::run(&args, &interrupt, team)),
            Command::Compare(args) => compare::run(&args),
            Command::Report(args) => report::run(&args, &interrupt),
            Command::Convert(args) => convert::run(&args),
            Command::Export(args) => export::run(&args),
            Command::Models(args) => models::run(&args, &interrupt),
            Command::Bench(args) => as_rank(&launch, &peers, |team, _| bench::run(&args, &interrupt, team)),
            Command::Tune(args) => tune::run(&args, &interrupt),
            Command::Doctor(args) => doctor::run(&args, &interrupt),
            Command::Completions(args) => shell::completions(&args, Cli::command()),
            Command::Man(args) => shell::man(&args, Cli::command()),
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if launch.is_silent() => ExitCode::from(e.exit_code()),
        Err(e) => fail(&e),
    }
}

/// Does work alone, or as one of the ranks that `launch` has found. `peers` gets the others, so that a signal can look for them.
fn as_rank(
    launch: &Launch,
    peers: &OnceLock<Peers>,
    work: impl FnOnce(&Team, Option<&Peers>) -> Result<()>,
) -> Result<()> {
    let team = Team::new(launch.ranks())?;
    if !team.is_alone() {
        let _ = peers.set(Peers::watch(team.ranks())?);
    }
    let result = team.conclude(work(&team, peers.get()));
    peers.get().into_iter().for_each(Peers::end);
    // Rank 0 says it once for all.
    if !team.is_first() && team.has_failed() {
        launch.keep_silent();
    }
    result
}

/// Says what went wrong; the exit code that belongs to it.
fn fail(e: &Error) -> ExitCode {
    let _ = writeln!(anstream::stderr(), "{ERROR}error:{ERROR:#} {e}");
    ExitCode::from(e.exit_code())
}

/// Ends the program at once, as a second signal asks.
fn leave() -> ! {
    tui::close();
    std::process::exit(i32::from(Kind::Interrupted as u8));
}

/// Prints a line. A closed pipe (`lesion-gpu train … | head`) costs the rest of the output and nothing else.
fn say(text: impl AsRef<str>) {
    let _ = writeln!(std::io::stdout().lock(), "{}", text.as_ref());
}

fn interrupted(interrupt: &Interrupt) -> Result<()> {
    match interrupt.load(Ordering::Relaxed) {
        true => Err(Error::new(Kind::Interrupted, "interrupted")),
        false => Ok(()),
    }
}

/// The bytes on the device to stay below: what the user says, or what a software driver can take of the memory.
fn memory_budget(limit_mib: Option<u64>, gpu: &Gpu) -> Option<u64> {
    let free = || {
        let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
        System::new_with_specifics(memory).available_memory()
    };
    let software = gpu.adapter().class == DeviceClass::Software;
    limit_mib.map(|mib| mib.saturating_mul(1 << 20)).or_else(|| software.then(free))
}

/// As [`memory_budget`], for a rank: what is free is for all ranks of its machine.
fn memory_budget_of(team: &Team, limit_mib: Option<u64>, gpu: &Gpu) -> Option<u64> {
    let sharing = if limit_mib.is_some() { 1 } else { team.local().1 as u64 };
    memory_budget(limit_mib, gpu).map(|bytes| bytes / sharing)
}

/// Bytes in the unit that suits them.
fn bytes(n: u64) -> String {
    let n = n as f64;
    match n {
        _ if n >= f64::from(1 << 30) => format!("{:.2} GiB", n / f64::from(1 << 30)),
        _ if n >= f64::from(1 << 20) => format!("{:.1} MiB", n / f64::from(1 << 20)),
        _ => format!("{:.1} KiB", n / 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        let command = Cli::command();
        command.clone().debug_assert();
        let train = command.find_subcommand("train").unwrap();
        for (flag, _) in config_file::KEYS {
            assert!(train.get_arguments().any(|a| a.get_id() == flag), "{flag} is no flag of train");
        }
    }

    #[test]
    fn processes_of_a_machine_take_its_gpus_in_turn() {
        use DeviceClass::{Discrete, Integrated, Software};
        let all = [
            (Discrete, "vulkan"),
            (Discrete, "vulkan"),
            (Discrete, "dx12"),
            (Integrated, "vulkan"),
            (Software, "vulkan"),
        ];
        assert_eq!([0, 1, 2].map(|number| spread(&all, number)), [Some(0), Some(1), Some(0)]);
        assert_eq!(spread(&all[4..], 1), Some(0));
        assert_eq!(spread(&[], 0), None);
    }

    #[test]
    fn help_opens_with_examples() {
        assert!(Cli::command().render_help().to_string().starts_with("Examples:\n  lesion-gpu train"));
    }
}
