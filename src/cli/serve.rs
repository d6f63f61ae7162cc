//! `lesion-gpu serve`

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, value_parser};

use super::source::ModelArgs;
use super::{DeviceArgs, TuningArgs, say};
use crate::error::{Error, Kind, Result};
use crate::explain::{Look, Method};
use crate::serve::{Event, Limits, Options, serve};
use crate::train::{Interrupt, Precision};

#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  lesion-gpu serve runs/resnet18-001
  lesion-gpu serve runs/resnet18-001 runs/unet-small-001         with the outline of the lesion
  lesion-gpu serve runs/fold-1 runs/fold-2 runs/fold-3           the mean of several runs
  lesion-gpu serve --model resnet18 --weights w.safetensors      bare weights
  lesion-gpu serve runs/resnet18-001 --listen 0.0.0.0:8080       for other machines; prints a token")]
pub(super) struct ServeArgs {
    /// Run folders or checkpoints: those that classify answer together, and so do those that segment. Where --model and --weights
    /// are given there may be none
    #[arg(value_name = "RUN", required_unless_present = "weights")]
    runs: Vec<PathBuf>,
    /// Address and port; port 0 is any that is free. Other addresses than this machine's own want a token
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// What requests are to show (Authorization: Bearer TOKEN) [default: none on this machine's own addresses, else one is
    /// made and printed]
    #[arg(long, env = "LESION_GPU_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Pictures that the device takes at a time, at most
    #[arg(long, default_value_t = 8, value_parser = value_parser!(u32).range(1..=1024))]
    batch: u32,
    /// Milliseconds that a picture waits for others to share its batch
    #[arg(long, value_name = "MS", default_value_t = 5, value_parser = value_parser!(u64).range(..=10_000))]
    max_wait: u64,
    /// Show the models each picture in all views that keep its shape (8 of a square, else 4), and take the mean of the
    /// probabilities, of classes and masks, as predict does. What is explained is the picture as it is
    #[arg(long)]
    tta: bool,
    /// grad-cam, grad-cam++, or of transformers rollout [default: rollout of transformers, else grad-cam]
    #[arg(long)]
    method: Option<Method>,
    /// The layer to look at, as weight files name it [default: the last one with a map]
    #[arg(long, value_name = "NAME")]
    layer: Option<String>,
    /// f32 or mixed [default: as trained]
    #[arg(long)]
    precision: Option<Precision>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    tuning: TuningArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

/// What is taken of requests.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Size of a request, MiB
    #[arg(long, value_name = "MIB", default_value_t = 20, value_parser = value_parser!(u32).range(1..=1024))]
    max_body: u32,
    /// Pixels of a picture, millions
    #[arg(long, value_name = "MILLIONS", default_value_t = 40, value_parser = value_parser!(u32).range(1..=400))]
    max_pixels: u32,
    /// Pictures of a request
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = value_parser!(u32).range(1..=1024))]
    max_files: u32,
    /// Pictures that wait for the device; where there is no place, a request is refused with 503
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = value_parser!(u32).range(1..=65536))]
    queue: u32,
    /// Requests in progress; further ones are refused with 503
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = value_parser!(u32).range(1..=65536))]
    max_requests: u32,
    /// Those of one client, told by its address; further ones are refused with 429
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = value_parser!(u32).range(1..=65536))]
    max_requests_of_client: u32,
    /// Open connections; further ones wait
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = value_parser!(u32).range(1..=65536))]
    max_connections: u32,
    /// Seconds that a request may take in all
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// Seconds that a request may take to arrive; a connection on which nothing is asked for so long is closed
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = value_parser!(u64).range(1..=3600))]
    read_timeout: u64,
    /// Seconds that an answer may take to be read; then the connection is closed
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = value_parser!(u64).range(1..=3600))]
    write_timeout: u64,
}

impl From<&LimitArgs> for Limits {
    fn from(args: &LimitArgs) -> Self {
        Self {
            body: (args.max_body as usize) << 20,
            pixels: args.max_pixels as usize * 1_000_000,
            files: args.max_files as usize,
            queue: args.queue as usize,
            requests: args.max_requests as usize,
            requests_of_client: args.max_requests_of_client as usize,
            connections: args.max_connections as usize,
            timeout: Duration::from_secs(args.timeout),
            read_timeout: Duration::from_secs(args.read_timeout),
            write_timeout: Duration::from_secs(args.write_timeout),
        }
    }
}

pub(super) fn run(args: &ServeArgs, interrupt: &Interrupt) -> Result<()> {
    if args.token.as_ref().is_some_and(String::is_empty) {
        return Err(Error::new(Kind::Usage, "the token is empty").next("give one of at least 16 characters, or none"));
    }
    let models = args.model.sources(&args.runs)?;
    let gpu = args.device.open()?;
    let options = Options {
        listen: args.listen,
        token: args.token.clone(),
        models,
        batch: args.batch as usize,
        max_wait: Duration::from_millis(args.max_wait),
        all_views: args.tta,
        look: Look { method: args.method, layer: args.layer.clone() },
        precision: args.precision,
        tuning: args.tuning.cache(&gpu),
        limits: Limits::from(&args.limits),
    };
    let tell = |event: &Event<'_>| match event {
        Event::Listening { .. } => {
            say(event.to_string());
            say("for research, not a diagnosis; Ctrl-C stops it");
        }
        _ => {
            let _ = writeln!(std::io::stderr(), "{event}");
        }
    };
    serve(gpu, options, interrupt, Arc::new(tell))
}
