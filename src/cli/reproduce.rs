//! `lesion-gpu reproduce`: recipes run under both protocols, and their scores beside the published ones.

use std::path::{Path, PathBuf};

use clap::Args;

use super::config_file::{Base, absolute, merge};
use super::progress::Progress;
use super::train::{first_tuning, show};
use super::{DeviceArgs, LoadArgs, memory_budget, published, say, tuning_cache};
use crate::data::{Dataset, ImageSize, Masks, OpenOptions};
use crate::error::{Error, Kind, Result};
use crate::gpu::Gpu;
use crate::models::{Model, Task};
use crate::report::{Reproduced, Reproduction};
use crate::train::{
    Interrupt, Precision, Protocol, Recipe, RunFolder, RunOptions, Scores, TrainConfig, Tuning, read_answers,
    run as train,
};
use crate::weights::write_atomically;

#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  lesion-gpu reproduce --data HAM10000.zip                            every recipe for this data
  lesion-gpu reproduce s1-cnn s3-r18 --data HAM10000.zip --size 64 --max-epochs 5
  lesion-gpu reproduce s3-r18 --data HAM10000.zip --weights resnet18=resnet18.safetensors
  lesion-gpu reproduce s4-unet --data ISIC2018 --protocol leak-free")]
pub(super) struct ReproduceArgs {
    /// Recipes, as `lesion-gpu recipe list` names them [default: all that are for this data]
    #[arg(value_name = "ROW")]
    rows: Vec<String>,
    /// The dataset, as for `train --data`
    #[arg(long, value_name = "DATA")]
    data: String,
    /// Folder or zip of the lesions' masks, where these do not come with the data
    #[arg(long, value_name = "MASKS")]
    masks: Option<String>,
    /// Folder or zip of pictures that do not lie with the tables of the data; may be repeated
    #[arg(long, value_name = "PLACE")]
    images: Vec<String>,
    /// Folder of the runs and the table. Runs in it that are finished are not done again, others are continued
    #[arg(long, value_name = "DIR", default_value = "reproduction")]
    out: PathBuf,
    /// Only this protocol: leak-free or published [default: both]
    #[arg(long)]
    protocol: Option<Protocol>,
    /// Another size of the images than the recipes'; told in the table, as are all that follow
    #[arg(long, value_name = "SIZE", help_heading = "What the device can do")]
    size: Option<ImageSize>,
    /// At most so many epochs, in each phase of a recipe that has phases
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "What the device can do")]
    max_epochs: Option<u32>,
    /// At most so many steps
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "What the device can do")]
    max_steps: Option<u64>,
    /// Other images a step
    #[arg(long, value_name = "N", help_heading = "What the device can do")]
    batch: Option<usize>,
    /// f32 or mixed
    #[arg(long, default_value = "f32", help_heading = "What the device can do")]
    precision: Precision,
    /// Weights that recipes with this model start from, MODEL=FILE; what the file lacks starts at random. May be repeated
    #[arg(long, value_name = "MODEL=FILE", help_heading = "What the device can do")]
    weights: Vec<String>,
    /// Start from random weights
    #[arg(long, conflicts_with = "weights", help_heading = "What the device can do")]
    from_scratch: bool,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    load: LoadArgs,
}

pub(super) fn run(args: &ReproduceArgs, interrupt: &Interrupt) -> Result<()> {
    let weights = args.weights.iter().map(|text| of_model(text)).collect::<Result<Vec<_>>>()?;
    let recipes = recipes(args)?;
    let protocols: Vec<Protocol> = args.protocol.map_or(vec![Protocol::Published, Protocol::LeakFree], |p| vec![p]);
    let gpu = args.device.open()?;
    std::fs::create_dir_all(&args.out).map_err(|e| Error::io("create the folder of runs", &args.out, &e))?;
    let mut runs = vec![];
    for recipe in recipes {
        // Once for both protocols: fetching may fail, and takes its time.
        let (start, why) = starting_weights(args, &recipe, &weights, interrupt);
        for &protocol in &protocols {
            let mut config = configuration(args, &recipe, protocol)?;
            let mut deviations = deviations(args, &recipe, &config)?;
            deviations.extend(why.clone());
            if let Some(file) = &start {
                config.weights = Some(file.display().to_string());
                config.allow_partial = true;
            }
            let folder = args.out.join(format!("{}-{}", recipe.name, protocol.name()));
            if !finished(&folder, &config)? {
                say(format!("\n{} under the protocol {}: {}", recipe.name, protocol.name(), recipe.about));
                run_one(args, &gpu, &config, &folder, interrupt)?;
            }
            runs.push(reproduced(recipe.clone(), protocol, &folder, deviations)?);
            // After each run, so that one that is stopped leaves what there is.
            write(&args.out, &Reproduction::new(runs.clone()))?;
        }
    }
    let table = Reproduction::new(runs);
    say(format!("\n{}", table.text()));
    let out = args.out.display();
    say(format!("written: {out}/table.md, {out}/table.csv, {out}/chart.svg"));
    Ok(())
}

/// A model and a file that it starts from.
fn of_model(text: &str) -> Result<(String, PathBuf)> {
    let wrong = || Error::new(Kind::Usage, format!("'{text}' is not MODEL=FILE")).next("for example resnet18=w.pth");
    let (model, file) = text.split_once('=').ok_or_else(wrong)?;
    Model::find(model)?;
    let file = absolute(file, Path::new(""))?;
    if !Path::new(&file).is_file() {
        return Err(Error::new(Kind::Weights, "there is no such weight file").at(file));
    }
    Ok((model.to_owned(), file.into()))
}

/// The recipes that are asked for.
fn recipes(args: &ReproduceArgs) -> Result<Vec<Recipe>> {
    if !args.rows.is_empty() {
        return args.rows.iter().map(|name| Recipe::find(name)).collect();
    }
    let open =
        OpenOptions { images: args.images.iter().map(Into::into).collect(), leaky: true, ..OpenOptions::default() };
    let as_classes = Dataset::list(&args.data, &open);
    let dataset = match as_classes {
        Ok(dataset) => dataset,
        // Of images and masks.
        Err(_) => Dataset::list(&args.data, &OpenOptions { masks: Masks::OfDataset, ..open })?,
    };
    let known: Vec<Recipe> = Recipe::all()?.into_iter().filter(|r| r.about.dataset == dataset.name).collect();
    if known.is_empty() {
        return Err(Error::new(Kind::Usage, format!("no recipe is for the data of {}", dataset.name))
            .at(&args.data)
            .next("name the recipes to run on it: see `lesion-gpu recipe list`"));
    }
    Ok(known)
}

/// The file that a recipe starts from, if it starts from one, and in what that is not what it asks for.
fn starting_weights(
    args: &ReproduceArgs,
    recipe: &Recipe,
    weights: &[(String, PathBuf)],
    interrupt: &Interrupt,
) -> (Option<PathBuf>, Option<String>) {
    if !recipe.about.pretrained {
        return (None, None);
    }
    let scratch = |why: &str| (None, Some(format!("from random weights, not ImageNet's{why}")));
    if args.from_scratch {
        return scratch("");
    }
    let model = Base::of_recipe(recipe).ok().and_then(|base| base.text("model")).unwrap_or_default();
    if let Some((_, file)) = weights.iter().find(|(name, _)| *name == model) {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        return (Some(file.clone()), Some(format!("from {name}")));
    }
    let found = published::known(&model)
        .and_then(|known| published::fetch(&known, args.load.cache.clone(), &mut Progress::new(), interrupt));
    match found {
        Ok(file) => (Some(file), None),
        Err(e) => scratch(&format!(", which could not be had ({})", e.what())),
    }
}

/// A recipe's configuration as it is run.
fn configuration(args: &ReproduceArgs, recipe: &Recipe, protocol: Protocol) -> Result<TrainConfig> {
    let here = |path: &String| absolute(path, Path::new(""));
    let mut config = merge(&Base::of_recipe(recipe)?, &TrainConfig::default(), &|_| false)?;
    config.data = here(&args.data)?;
    if Model::find(&config.model)?.task() == Task::Segment {
        config.masks = args.masks.as_ref().map(here).transpose()?;
    }
    config.images = args.images.iter().map(here).collect::<Result<_>>()?;
    config.split.protocol = protocol;
    config.size = args.size.unwrap_or(config.size);
    config.batch = args.batch.unwrap_or(config.batch);
    config.max_steps = args.max_steps;
    config.precision = args.precision;
    if let Some(most) = args.max_epochs {
        config.epochs = config.epochs.min(most);
        config.phases.iter_mut().for_each(|phase| phase.epochs = phase.epochs.min(most));
        if !config.phases.is_empty() {
            config.epochs = config.phases.iter().map(|phase| phase.epochs).sum();
        }
    }
    config.validate()?;
    Ok(config)
}

/// In what a configuration is not as its recipe says.
fn deviations(args: &ReproduceArgs, recipe: &Recipe, config: &TrainConfig) -> Result<Vec<String>> {
    let own = merge(&Base::of_recipe(recipe)?, &TrainConfig::default(), &|_| false)?;
    let mut all = vec![];
    if own.size != config.size {
        all.push(format!("{} pixels instead of {}", config.size, own.size));
    }
    if own.epochs != config.epochs {
        all.push(format!("at most {} epochs instead of {}", config.epochs, own.epochs));
    }
    if let Some(steps) = args.max_steps {
        all.push(format!("at most {steps} steps"));
    }
    if own.batch != config.batch {
        all.push(format!("batch {} instead of {}", config.batch, own.batch));
    }
    if config.precision == Precision::Mixed {
        all.push("mixed precision".into());
    }
    Ok(all)
}

/// Whether a run is there and finished.
///
/// # Errors
/// [`Kind::Checkpoint`] if it has another configuration.
fn finished(folder: &Path, config: &TrainConfig) -> Result<bool> {
    let Ok(run) = RunFolder::open(folder) else { return Ok(false) };
    if run.config()? != *config {
        return Err(Error::new(Kind::Checkpoint, "the run that is there has another configuration")
            .at(folder.display())
            .next("name another folder with --out, or ask for what it was made with"));
    }
    Ok(run.file("metrics.json").is_file())
}

/// Runs a configuration in a folder, from its beginning or from where it was stopped.
fn run_one(args: &ReproduceArgs, gpu: &Gpu, config: &TrainConfig, folder: &Path, interrupt: &Interrupt) -> Result<()> {
    let options = RunOptions {
        run: Some(folder.to_owned()),
        resume: RunFolder::open(folder).is_ok(),
        cache: args.load.cache.clone(),
        no_cache: args.load.no_cache,
        memory_limit: memory_budget(None, gpu),
        workers: args.load.workers.into(),
        tuning: Tuning::On(tuning_cache(gpu), first_tuning(gpu, args.device.checked)),
        ..RunOptions::default()
    };
    let mut progress = Progress::new();
    let result = train(gpu, config, &options, interrupt, &mut |event| show(&mut progress, config, event));
    progress.clear();
    result.map(drop).map_err(|e| match e.kind() {
        Kind::Interrupted => e.next("the same `reproduce` command continues it"),
        _ => e,
    })
}

/// What a finished run has come to.
fn reproduced(recipe: Recipe, protocol: Protocol, folder: &Path, deviations: Vec<String>) -> Result<Reproduced> {
    let run = RunFolder::open(folder)?;
    let metrics = run.metrics()?;
    let damaged = |what: &str| {
        Error::new(Kind::Checkpoint, format!("metrics.json {what}"))
            .at(folder.display())
            .next("remove this run's folder, and it is done again")
    };
    let test = metrics.get("test").filter(|test| !test.is_null());
    let test = test.ok_or_else(|| damaged("has no scores of test images"))?;
    let scores: Scores = serde_json::from_value(test.clone()).map_err(|e| damaged(&format!("is damaged: {e}")))?;
    let sheet = read_answers(&run.file("test.csv"))?;
    Ok(Reproduced {
        recipe,
        protocol,
        images: sheet.images.len(),
        scores: scores.all(),
        intervals: sheet.intervals(),
        leak: metrics.get("leak").and_then(|leak| leak.as_str()).map(str::to_owned),
        deviations,
    })
}

fn write(out: &Path, table: &Reproduction) -> Result<()> {
    write_atomically(&out.join("table.md"), table.markdown().as_bytes())?;
    write_atomically(&out.join("table.csv"), &table.csv()?)?;
    write_atomically(&out.join("chart.svg"), table.chart()?.as_bytes())
}
