//! `lesion-gpu reproduce`: recipes run under both protocols, and their scores beside the published ones.

use std::path::{Path, PathBuf};

use clap::Args;

use super::config_file::{Base, absolute, merge};
use super::narration::Narrator;
use super::progress::Progress;
use super::train::first_tuning;
use super::{DeviceArgs, LoadArgs, memory_budget_of, published, say, tuning_cache};
use crate::data::{Dataset, ImageSize, Masks, OpenOptions};
use crate::error::{Error, Kind, Result};
use crate::gpu::Gpu;
use crate::models::{Model, Task};
use crate::parallel::Team;
use crate::report::{Reproduced, Reproduction};
use crate::train::{
    Claim, Interrupt, Precision, Protocol, Recipe, RunFolder, RunOptions, Scores, TrainConfig, Trained, Tuning,
    normalisation_of, read_answers, run as train,
};
use crate::weights::{self, write_atomically};

#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  lesion-gpu reproduce --data HAM10000.zip                            every recipe for this data
  lesion-gpu reproduce s1-cnn s3-r18 --data HAM10000.zip --size 64 --max-epochs 5
  lesion-gpu reproduce s3-r18 --data HAM10000.zip --weights resnet18=resnet18.safetensors
  lesion-gpu reproduce s4-unet --data ISIC2018 --protocol leak-free
  mpirun -n 4 lesion-gpu reproduce --data HAM10000.zip                four runs at a time")]
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

/// The files that the table is in.
const TABLES: [&str; 3] = ["table.md", "table.csv", "chart.svg"];

/// A recipe under a protocol, ready to run.
struct Row {
    recipe: Recipe,
    config: TrainConfig,
    folder: PathBuf,
}

/// Runs `lesion-gpu reproduce`, alone or as one of several ranks, each of which does the next run that none has begun.
pub(super) fn run(args: &ReproduceArgs, interrupt: &Interrupt, team: &Team) -> Result<()> {
    let dataset = dataset(args)?;
    // Published weights are fetched by one, and found by the others.
    let rows = team.in_turn("what is to be run", || rows(args, &dataset, interrupt))?;
    team.agreed("the folder", check_out(&args.out))?;
    let gpu = team.in_turn("the device", || args.device.open_at(team.local()))?;
    let made = std::fs::create_dir_all(&args.out).map_err(|e| Error::io("create the folder of runs", &args.out, &e));
    team.agreed("the folder of runs", made)?;
    if !has_lesions(&dataset) && team.is_first() {
        say(
            "note     the data names no lesions with several images: split by lesion and by image are the same, so one is run",
        );
    }
    let failed = run_rows(args, &gpu, &rows, &dataset.name, interrupt, team);
    // The others may have runs to do for hours: they need the processor.
    team.rest()?;
    let failed = team.agreed("the runs", failed)?;
    let bad = |e: serde_json::Error| Error::new(Kind::Internal, format!("a failure cannot be sent: {e}"));
    let all = team.exchange("the runs", serde_json::to_vec(&failed).map_err(bad))?;
    let failures: Vec<Option<Error>> =
        all.iter().map(|failed| serde_json::from_slice(failed)).collect::<Result<_, _>>().map_err(bad)?;
    let failed = failures.into_iter().flatten().next();
    if !team.is_first() {
        return failed.map_or(Ok(()), Err);
    }
    let table = table(&args.out)?;
    write(&args.out, &table)?;
    say(format!("\n{}", table.text()));
    let out = args.out.display();
    say(format!("written: {}", TABLES.map(|name| format!("{out}/{name}")).join(", ")));
    failed.map_or(Ok(()), Err)
}

/// Does the runs that are not finished and that no other process does; the failure of the first that failed.
fn run_rows(
    args: &ReproduceArgs,
    gpu: &Gpu,
    rows: &[Row],
    dataset: &str,
    interrupt: &Interrupt,
    team: &Team,
) -> Result<Option<Error>> {
    // Several speak at once, so each says who it is, and no more than what it does.
    let who = if team.is_alone() { "\n".to_owned() } else { format!("rank {}: ", team.rank()) };
    let mut failed = None;
    for Row { recipe, config, folder } in rows {
        let is_finished = || RunFolder::open(folder).is_ok_and(|run| run.file("metrics.json").is_file());
        if is_finished() {
            continue;
        }
        // Before the data are prepared, which is long before there is a folder.
        let Some(_claim) = Claim::take(&folder.with_added_extension("lock"))?.filter(|_| !is_finished()) else {
            continue;
        };
        let row = format!("{who}{} under the protocol {}", recipe.name, config.split.protocol.name());
        say(format!("{row}: {}", recipe.about));
        let deviations = deviations(recipe, config, dataset)?;
        if team.is_alone() {
            deviations.iter().for_each(|what| say(format!("differs  {what}")));
        }
        // After each run, so that one that is stopped leaves what there is.
        let ended =
            run_one(args, gpu, config, folder, interrupt, team).and_then(|()| write(&args.out, &table(&args.out)?));
        // One that fails is told at once, and the others are run.
        if let Err(e) = ended {
            if e.kind() == Kind::Interrupted || (gpu.is_lost() && team.is_alone()) {
                return Err(e);
            }
            say(if team.is_alone() { format!("failed   {e}") } else { format!("{row} failed: {e}") });
            if gpu.is_lost() {
                return Err(e);
            }
            failed.get_or_insert(e);
        }
    }
    Ok(failed)
}

/// The dataset as it is listed: of classes, or of images and masks.
fn dataset(args: &ReproduceArgs) -> Result<Dataset> {
    let open =
        OpenOptions { images: args.images.iter().map(Into::into).collect(), leaky: true, ..OpenOptions::default() };
    let masks = args.masks.as_ref().map_or(Masks::OfDataset, |place| Masks::In(place.into()));
    let as_masks = || Dataset::list(&args.data, &OpenOptions { masks, ..open.clone() });
    Dataset::list(&args.data, &open).or_else(|e| as_masks().map_err(|_| e))
}

/// Whether some lesion has several images.
fn has_lesions(dataset: &Dataset) -> bool {
    dataset.group_count() < dataset.samples.len()
}

/// All that is asked for, checked before the first is run.
fn rows(args: &ReproduceArgs, dataset: &Dataset, interrupt: &Interrupt) -> Result<Vec<Row>> {
    let recipes = recipes(args, dataset)?;
    let given = args.weights.iter().map(|text| of_model(text)).collect::<Result<Vec<_>>>()?;
    for (model, file) in &given {
        if !recipes.iter().any(|recipe| starts_from(recipe).as_deref() == Some(model)) {
            return Err(Error::new(
                Kind::Usage,
                format!("--weights {model}=...: none of the recipes starts from weights of it"),
            )
            .next("see `lesion-gpu recipe show NAME` for a recipe's model"));
        }
        weights::read(file).map_err(|e| e.at(file.display()))?;
    }
    let protocols = match args.protocol {
        Some(protocol) => vec![protocol],
        None if has_lesions(dataset) => vec![Protocol::Published, Protocol::LeakFree],
        None => vec![Protocol::LeakFree],
    };
    let mut rows = vec![];
    for recipe in recipes {
        let mut fetched = None;
        for &protocol in &protocols {
            let folder = args.out.join(format!("{}-{}", recipe.name, protocol.name()));
            let mut config = configuration(args, &recipe, protocol)?;
            let before = begun(&folder)?;
            match (&before, starts_from(&recipe)) {
                // What it began with may no longer be at hand, and is not needed.
                (Some(before), Some(model)) if !given.iter().any(|(name, _)| *name == model) => {
                    config.weights.clone_from(&before.weights);
                }
                (_, Some(model)) if !args.from_scratch => {
                    let file = match given.iter().find(|(name, _)| *name == model) {
                        Some((_, file)) => file.clone(),
                        None => match &fetched {
                            Some(file) => PathBuf::clone(file),
                            None => fetched.insert(fetch(args, &model, interrupt)?).clone(),
                        },
                    };
                    config.weights = Some(file.display().to_string());
                }
                _ => {}
            }
            config.allow_partial = config.weights.is_some();
            if starts_from(&recipe).is_some() && !Base::of_recipe(&recipe)?.names("normalisation") {
                let file = config.weights.as_deref().map(Path::new);
                config.normalisation = match &before {
                    Some(before) => before.normalisation,
                    None => normalisation_of(&config.model, file)?,
                };
            }
            check_frozen(&recipe, &config)?;
            if before.is_some_and(|before| before != config) {
                return Err(Error::new(Kind::Checkpoint, "the run that is there has another configuration")
                    .at(folder.display())
                    .next("name another folder with --out, or ask for what it was made with"));
            }
            rows.push(Row { recipe: recipe.clone(), config, folder });
        }
    }
    Ok(rows)
}

/// The recipes that are asked for, each once.
fn recipes(args: &ReproduceArgs, dataset: &Dataset) -> Result<Vec<Recipe>> {
    if args.rows.is_empty() {
        let known: Vec<Recipe> = Recipe::all()?.into_iter().filter(|r| r.about.dataset == dataset.name).collect();
        return match known.is_empty() {
            false => Ok(known),
            true => Err(Error::new(Kind::Usage, format!("no recipe is for the data of {}", dataset.name))
                .at(&args.data)
                .next("name the recipes to run on it: see `lesion-gpu recipe list`")),
        };
    }
    let mut recipes: Vec<Recipe> = vec![];
    for name in &args.rows {
        let recipe = Recipe::find(name)?;
        if !recipes.iter().any(|known| known.name == recipe.name) {
            recipes.push(recipe);
        }
    }
    Ok(recipes)
}

/// A model and a file that it starts from.
fn of_model(text: &str) -> Result<(String, PathBuf)> {
    let wrong = || Error::new(Kind::Usage, format!("'{text}' is not MODEL=FILE")).next("for example resnet18=w.pth");
    let (model, file) = text.split_once('=').ok_or_else(wrong)?;
    Model::find(model)?;
    Ok((model.to_owned(), absolute(file, Path::new(""))?.into()))
}

/// The model of a recipe that starts from published weights.
fn starts_from(recipe: &Recipe) -> Option<String> {
    let base = Base::of_recipe(recipe).ok().filter(|_| recipe.about.pretrained)?;
    base.text("model")
}

/// The published weights of a model.
fn fetch(args: &ReproduceArgs, model: &str, interrupt: &Interrupt) -> Result<PathBuf> {
    let known = published::known(model)?;
    published::fetch(&known, args.load.cache.clone(), &mut Progress::new(), interrupt).map_err(|e| match e.kind() {
        Kind::Interrupted => e,
        _ => {
            e.next(format!("name a file with --weights {model}=FILE, or start from random weights with --from-scratch"))
        }
    })
}

/// A head on frozen random weights learns next to nothing, and says nothing of the system.
fn check_frozen(recipe: &Recipe, config: &TrainConfig) -> Result<()> {
    let frozen = config.fine_tune.train == Trained::Head || !config.fine_tune.freeze.is_empty();
    match starts_from(recipe) {
        Some(model) if frozen && config.weights.is_none() => {
            let what = format!("{} trains only the head, and would do so on frozen random weights", recipe.name);
            Err(Error::new(Kind::Usage, what).next(format!("name a file with --weights {model}=FILE")))
        }
        _ => Ok(()),
    }
}

/// The configuration of the run in a folder, if one has begun there.
fn begun(folder: &Path) -> Result<Option<TrainConfig>> {
    match RunFolder::open(folder) {
        Ok(run) if run.has_begun() => run.config().map(Some),
        _ if RunFolder::check_free(folder).is_err() => {
            Err(Error::new(Kind::Checkpoint, "there is no run here that can be continued")
                .at(folder.display())
                .next("remove this folder, or name another --out"))
        }
        _ => Ok(None),
    }
}

/// Checks that tables which are there are ours.
fn check_out(out: &Path) -> Result<()> {
    let table = TABLES.map(|name| out.join(name)).into_iter().find(|path| path.is_file());
    match table {
        Some(table) if finished(out)?.is_empty() => {
            Err(Error::new(Kind::Usage, "this file would be overwritten, and there are no runs beside it")
                .at(table.display())
                .next("name another folder with --out"))
        }
        _ => Ok(()),
    }
}

/// A recipe's configuration as it is run, but for the weights.
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

/// In what a run is not as its recipe says, and the recipe not as the source.
fn deviations(recipe: &Recipe, config: &TrainConfig, dataset: &str) -> Result<Vec<String>> {
    let own = merge(&Base::of_recipe(recipe)?, &TrainConfig::default(), &|_| false)?;
    let mut all = vec![];
    if dataset != recipe.about.dataset {
        all.push(format!("OTHER DATA: {dataset} instead of {}", recipe.about.dataset));
    }
    if own.size != config.size {
        all.push(format!("{} pixels instead of {}", config.size, own.size));
    }
    if own.epochs != config.epochs {
        all.push(format!("{} epochs instead of {}", config.epochs, own.epochs));
    }
    if let Some(steps) = config.max_steps {
        all.push(format!("at most {steps} steps"));
    }
    if own.batch != config.batch {
        all.push(format!("batch {} instead of {}", config.batch, own.batch));
    }
    if config.precision == Precision::Mixed {
        all.push("mixed precision".into());
    }
    if recipe.about.pretrained {
        let name = |file: &String| Path::new(file).file_name().unwrap_or_default().to_string_lossy().into_owned();
        all.push(config.weights.as_ref().map(name).map_or("from random weights".into(), |name| format!("from {name}")));
    }
    all.extend_from_slice(&recipe.about.deviates);
    Ok(all)
}

/// Runs a configuration in a folder, from its beginning or from where it was stopped.
fn run_one(
    args: &ReproduceArgs,
    gpu: &Gpu,
    config: &TrainConfig,
    folder: &Path,
    interrupt: &Interrupt,
    team: &Team,
) -> Result<()> {
    let options = RunOptions {
        run: Some(folder.to_owned()),
        resume: RunFolder::open(folder).is_ok_and(|run| run.has_begun()),
        cache: args.load.cache.clone(),
        no_cache: args.load.no_cache,
        memory_limit: memory_budget_of(team, None, gpu),
        workers: args.load.workers.into(),
        tuning: Tuning::On(Box::new(tuning_cache(gpu)), first_tuning(gpu, args.device.checked)),
        ..RunOptions::default()
    };
    let (mut progress, mut narrator) = (Progress::new(), Narrator::new(config));
    let result = train(gpu, config, &options, interrupt, &mut |event| {
        if team.is_alone() {
            narrator.show(&mut progress, &event);
        }
    });
    progress.clear();
    result.map(drop).map_err(|e| match e.kind() {
        Kind::Interrupted => e.next("the same `reproduce` command continues it"),
        _ => e,
    })
}

/// The finished runs of recipes in a folder.
fn finished(out: &Path) -> Result<Vec<(Recipe, Protocol, RunFolder)>> {
    let mut found = vec![];
    for recipe in Recipe::all()? {
        for protocol in [Protocol::Published, Protocol::LeakFree] {
            let run = RunFolder::open(&out.join(format!("{}-{}", recipe.name, protocol.name())));
            if let Some(run) = run.ok().filter(|run| run.file("metrics.json").is_file()) {
                found.push((recipe.clone(), protocol, run));
            }
        }
    }
    Ok(found)
}

/// All finished runs in a folder beside what was published.
fn table(out: &Path) -> Result<Reproduction> {
    let runs = finished(out)?.into_iter().map(|(recipe, protocol, run)| reproduced(recipe, protocol, &run));
    runs.collect::<Result<_>>().map(Reproduction::new)
}

/// What a finished run has come to.
fn reproduced(recipe: Recipe, protocol: Protocol, run: &RunFolder) -> Result<Reproduced> {
    let metrics = run.metrics()?;
    let damaged = |what: &str| {
        Error::new(Kind::Checkpoint, format!("metrics.json {what}"))
            .at(run.path().display())
            .next("remove this run's folder, and it is done again")
    };
    let text = |key: &str| metrics.get(key).and_then(|value| value.as_str()).map(str::to_owned);
    let test = metrics.get("test").filter(|test| !test.is_null());
    let test = test.ok_or_else(|| damaged("has no scores of test images"))?;
    let scores: Scores = serde_json::from_value(test.clone()).map_err(|e| damaged(&format!("is damaged: {e}")))?;
    let sheet = read_answers(&run.file("test.csv"))?;
    let dataset = text("dataset").unwrap_or_else(|| recipe.about.dataset.clone());
    Ok(Reproduced {
        protocol,
        images: sheet.images.len(),
        scores: scores.all(),
        intervals: sheet.intervals(),
        leak: text("leak"),
        deviations: deviations(&recipe, &run.config()?, &dataset)?,
        recipe,
    })
}

fn write(out: &Path, table: &Reproduction) -> Result<()> {
    let [text, csv, chart] = TABLES.map(|name| out.join(name));
    write_atomically(&text, table.markdown().as_bytes())?;
    write_atomically(&csv, &table.csv()?)?;
    write_atomically(&chart, table.chart()?.as_bytes())
}
