//! A training as `train` runs it, and whom it is told to.

use std::path::PathBuf;
use std::time::Duration;

use super::TrainArgs;
use crate::bench::{ModelBench, Task};
use crate::cli::narration::Narrator;
use crate::cli::progress::Progress;
use crate::cli::style::Line;
use crate::cli::tensorboard::Watcher;
use crate::cli::tui::Screen;
use crate::cli::{events, interrupted, memory_budget_of, report, say, tuning_cache};
use crate::error::{Error, Kind, Result};
use crate::gpu::{DeviceClass, Gpu};
use crate::parallel::{Peers, Team};
use crate::train::{
    Event, Interrupt, Normalisation, Report, RunOptions, RunSummary, TrainConfig, Tuning, run as train,
};

/// Whom a training is told to.
enum Audience<'a> {
    Nobody,
    /// Programs, as JSON.
    Programs,
    /// People, line by line.
    Lines(Box<(Progress, Narrator<'a>)>),
    /// People, on the whole screen.
    Screen(Screen<'a>),
}

impl<'a> Audience<'a> {
    /// Those that the flags name; `head` is said first.
    fn new(args: &TrainArgs, config: &'a TrainConfig, head: Vec<Line>, interrupt: &Interrupt) -> Result<Self> {
        Ok(match args {
            TrainArgs { quiet: true, .. } => Self::Nobody,
            TrainArgs { json: true, .. } => Self::Programs,
            TrainArgs { tui: true, .. } => Self::Screen(Screen::open(config, head, interrupt)?),
            _ => {
                let mut progress = Progress::new();
                head.iter().for_each(|line| progress.told(line));
                Self::Lines(Box::new((progress, Narrator::new(config))))
            }
        })
    }

    fn tell(&mut self, event: &Event<'_>) {
        match self {
            Self::Nobody => {}
            Self::Programs => say(events::of(event).to_string()),
            Self::Lines(both) => both.1.show(&mut both.0, event),
            Self::Screen(screen) => screen.show(event),
        }
    }

    /// Training is over: what was on the whole screen is told in lines.
    fn close(&mut self) {
        let lines = match self {
            Self::Lines(both) => return both.0.clear(),
            Self::Screen(screen) => screen.close(),
            Self::Nobody | Self::Programs => return,
        };
        let mut progress = Progress::new();
        lines.iter().for_each(|line| progress.told(line));
        progress.clear();
    }
}

/// What is there before a training begins.
struct Ready {
    config: TrainConfig,
    /// A line about the published weights it starts from.
    published: Option<Line>,
    gpu: Gpu,
}

/// Gets everything ready; `given` says which flags are on the command line.
fn get_ready(args: &TrainArgs, given: &dyn Fn(&str) -> bool, interrupt: &Interrupt, team: &Team) -> Result<Ready> {
    let mut config = if args.resume.is_some() && !team.is_alone() {
        // The others need not see the folder.
        let bad = |e: serde_json::Error| Error::new(Kind::Internal, format!("a configuration cannot be sent: {e}"));
        let sent = team.of_first("the configuration", || serde_json::to_vec(&args.config(given)?).map_err(bad))?;
        serde_json::from_slice(&sent).map_err(bad)?
    } else {
        args.config(given)?
    };
    config.validate()?;
    if args.tui && team.is_first() {
        Screen::check()?;
    }
    let published = match args.wants_published(&config)? {
        true => Some(team.in_turn("published weights", || args.published(&mut config, given, interrupt))?),
        false => None,
    };
    let gpu = team.in_turn("the device", || args.device.open_at(team.local()))?;
    Ok(Ready { config, published, gpu })
}

/// Runs `lesion-gpu train`, alone or as one of several ranks; `given` says which flags are on the command line. `peers` are the
/// other ranks.
pub(in crate::cli) fn run(
    args: &TrainArgs,
    given: &dyn Fn(&str) -> bool,
    interrupt: &Interrupt,
    team: &Team,
    peers: Option<&Peers>,
) -> Result<()> {
    let ready = team.agreed("the start", get_ready(args, given, interrupt, team));
    let Ready { config, published, gpu } = ready.inspect_err(|_| peers.into_iter().for_each(Peers::end))?;
    let (_, on_machine) = team.local();
    let memory_limit = memory_budget_of(team, args.memory_limit, &gpu);
    let speeds = match args.balance_ranks && !team.is_alone() {
        true => Some(speeds(team, &gpu, &config, memory_limit, interrupt)?),
        false => None,
    };
    let options = RunOptions {
        run: args.resume.clone().or_else(|| args.run.clone()),
        runs_root: PathBuf::from("runs"),
        resume: args.resume.is_some(),
        cache: args.load.cache.clone(),
        no_cache: args.load.no_cache,
        memory_limit,
        workers: args.load.workers.into(),
        tuning: match args.no_tune {
            true => Tuning::Off,
            false => Tuning::On(Box::new(tuning_cache(&gpu)), first_tuning(&gpu, args.device.checked)),
        },
        features_each_step: args.no_feature_cache,
        checkpoint_every: Duration::from_secs(args.checkpoint_every.into()),
        team: team.clone(),
        speeds,
    };
    let adapter = gpu.adapter();
    let mut head =
        vec![Line::new("device", format!("{} ({}, {})", adapter.name, adapter.class.name(), adapter.driver))];
    head.extend(published);
    if !team.is_alone() {
        let machine = format!("{} ranks share each batch, {on_machine} of them on this machine", team.size());
        head.push(Line::new("ranks", machine));
    }
    if args.resume.is_none() && args.normalize.is_none() && config.normalisation != Normalisation::ImageNet {
        head.push(Line::note(config.normalisation.note()));
    }
    let audience = match team.is_first() {
        true => Audience::new(args, &config, head, interrupt),
        false => Ok(Audience::Nobody),
    };
    let mut audience = team.agreed("whom it is told to", audience)?;
    let mut watcher = (args.tensorboard && team.is_first()).then(Watcher::default);
    let result = train(&gpu, &config, &options, interrupt, &mut |event| {
        if let (Some(peers), Event::Ready { run, .. }) = (peers, &event) {
            peers.belong_to(run.path().to_owned());
        }
        audience.tell(&event);
        let complaint = watcher.as_mut().and_then(|watcher| watcher.see(&event));
        complaint.into_iter().for_each(|note| audience.tell(&Event::Note(note)));
    });
    peers.into_iter().for_each(Peers::end);
    audience.close();
    let summary = result?;
    if team.is_first() {
        finish(args, &config, &gpu, &summary, watcher, interrupt);
    }
    // The report needs the processor that ranks would take while they wait.
    team.rest()
}

/// Makes what is made of a finished run, and says what came of it.
fn finish(
    args: &TrainArgs,
    config: &TrainConfig,
    gpu: &Gpu,
    summary: &RunSummary,
    mut watcher: Option<Watcher>,
    interrupt: &Interrupt,
) {
    let mut make = || -> Vec<String> {
        let missing = (!args.no_report).then(|| {
            let mut progress = Progress::quiet_in_a_pipe();
            let missing = report::after_training(gpu, &summary.folder, &summary.material, &mut progress, interrupt);
            progress.clear();
            missing
        });
        let unwritten = watcher.as_mut().and_then(|watcher| watcher.end(summary));
        missing.flatten().into_iter().chain(unwritten).collect()
    };
    if args.json {
        make().into_iter().for_each(|note| say(events::of(&Event::Note(note)).to_string()));
        say(events::end(summary).to_string());
        return;
    }
    tell_scores(config, summary);
    let mut progress = Progress::new();
    make().into_iter().for_each(|note| progress.told(&Line::note(note)));
    let folder = summary.folder.path().display();
    if summary.test.as_ref().is_some_and(|test| matches!(test.report, Report::Masks(_))) {
        say(format!("at the pictures' own size: lesion-gpu eval {folder}"));
    }
    say(format!("run folder: {folder}"));
    let page = summary.folder.file("report.html");
    if !args.no_report && page.is_file() {
        say(format!("report: {}", page.display()));
    }
}

/// What the test images came to.
fn tell_scores(config: &TrainConfig, summary: &RunSummary) {
    let Some(test) = &summary.test else { return };
    let size = match &test.report {
        Report::Classes(_) => String::new(),
        Report::Masks(_) => format!(" at {} pixels", config.size),
    };
    let epoch = summary.progress.best_epoch;
    say(format!("\ntest images{size}, best checkpoint (epoch {epoch}):\n{}", test.report));
    if let Some(leak) = &summary.leak {
        say(leak.to_string());
    }
    if let Some(calibration) = &test.calibration {
        say(format!("\nprobabilities are calibrated: {calibration}"));
    }
}

/// Images a second of each rank in training steps that all do at the same time, as they will.
fn speeds(
    team: &Team,
    gpu: &Gpu,
    config: &TrainConfig,
    memory_limit: Option<u64>,
    interrupt: &Interrupt,
) -> Result<Vec<f64>> {
    // What a step costs does not depend on what is in a batch, and an image hardly on how many there are; batch-norm wants two.
    let batch = config.batch.div_ceil(team.size()).clamp(2, MEASURED);
    let config = TrainConfig { batch, micro_batch: None, ..config.clone() };
    let bench = ModelBench { config, task: Task::Train, warm_up: 1, memory_limit, tuning: None };
    let own = bench.images_per_second(gpu, &|| interrupted(interrupt), &|| team.agreed("the speed of ranks", Ok(())));
    let all = team.exchange("the speed of ranks", own.map(|speed| speed.to_le_bytes().to_vec()))?;
    let speed = |bytes: &Vec<u8>| bytes.first_chunk().map_or(0.0, |bytes| f64::from_le_bytes(*bytes));
    Ok(all.iter().map(speed).collect())
}

/// Images in a step by which a rank's speed is measured, at most.
const MEASURED: usize = 16;

/// How long a first run may measure. On software drivers the built-in rule was measured, and measuring is slow;
/// checks slow some kernels more than others.
pub(in crate::cli) fn first_tuning(gpu: &Gpu, checked: bool) -> Duration {
    match gpu.adapter().class {
        DeviceClass::Software => Duration::ZERO,
        _ if checked => Duration::ZERO,
        _ => Duration::from_secs(5),
    }
}
