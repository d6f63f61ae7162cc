//! `train --config FILE` and `--recipe NAME`: a run's configuration from a TOML file, under the flags that were given.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::error::{Error, Kind, Result};
use crate::models::Model;
use crate::train::{Recipe, TrainConfig, normalisation_of, preprocess_of};

/// Flags of `train`, by their clap names, and the keys of the configuration that they set.
pub(super) const KEYS: &[(&str, &[&str])] = &[
    ("data", &["data"]),
    ("masks", &["masks"]),
    ("images", &["images"]),
    ("model", &["model"]),
    ("weights", &["weights"]),
    ("allow_partial", &["allow_partial"]),
    ("size", &["size"]),
    ("precision", &["precision"]),
    ("batch", &["batch"]),
    ("micro_batch", &["micro_batch"]),
    ("sync_bn", &["sync_bn"]),
    ("wire", &["wire"]),
    ("epochs", &["epochs"]),
    ("steps", &["max_steps"]),
    ("optimizer", &["optimizer"]),
    ("lr", &["lr"]),
    ("schedule", &["schedule"]),
    ("plateau_factor", &["plateau.factor"]),
    ("plateau_patience", &["plateau.patience"]),
    ("min_lr", &["plateau.min_lr"]),
    ("step_epochs", &["step.epochs"]),
    ("step_factor", &["step.factor"]),
    ("warm_up", &["warm_up"]),
    ("weight_decay", &["weight_decay"]),
    ("momentum", &["momentum"]),
    ("loss", &["loss"]),
    ("focal_gamma", &["focal.gamma"]),
    ("focal_alpha", &["focal.alpha"]),
    ("class_weights", &["class_weights"]),
    ("sampling", &["sampling"]),
    ("label_smoothing", &["label_smoothing"]),
    ("clip_norm", &["clip_norm"]),
    ("on_divergence", &["divergence"]),
    ("patience", &["patience"]),
    ("min_delta", &["min_delta"]),
    ("monitor", &["monitor"]),
    ("keep_every", &["keep.every"]),
    ("keep_best", &["keep.best"]),
    ("no_temperature", &["temperature"]),
    ("seed", &["seed"]),
    ("split", &["split.fractions"]),
    ("split_seed", &["split.seed"]),
    ("split_file", &["split_file"]),
    ("fold", &["split.fold"]),
    ("protocol", &["split.protocol"]),
    ("balance", &["balance"]),
    ("skip_bad", &["skip_bad"]),
    ("normalize", &["normalisation"]),
    ("preprocess", &["preprocess.steps"]),
    ("no_shuffle", &["shuffle"]),
    ("no_augment", &["augment"]),
    ("no_flip", &["augment.hflip", "augment.vflip"]),
    ("rotation", &["augment.rotation"]),
    ("zoom", &["augment.zoom"]),
    ("brightness", &["augment.brightness"]),
    ("contrast", &["augment.contrast"]),
    ("shift", &["augment.shift"]),
    ("shear", &["augment.shear"]),
    ("saturation", &["augment.saturation"]),
    ("hue", &["augment.hue"]),
    ("blur", &["augment.blur"]),
    ("cutout", &["augment.cutout"]),
    ("mixup", &["augment.mixup"]),
    ("cutmix", &["augment.cutmix"]),
    ("head_hidden", &["head.hidden"]),
    ("head_dropout", &["head.dropout"]),
    ("train", &["fine_tune.train"]),
    ("freeze", &["fine_tune.freeze"]),
    ("freeze_first", &["fine_tune.freeze_first"]),
    ("batch_norm", &["fine_tune.batch_norm"]),
    ("lr_group", &["fine_tune.rates"]),
    ("decay_group", &["fine_tune.decays"]),
    ("no_decay_norm_bias", &["fine_tune.spare_vectors"]),
    ("ema", &["fine_tune.ema"]),
    ("phase", &["phase", "epochs"]),
];

/// Some keys of a configuration.
pub(super) struct Base {
    own: Table,
    /// The file it is in, or the recipe's name.
    place: PathBuf,
}

impl Base {
    /// That in a file, whose paths are relative to its folder.
    ///
    /// # Errors
    /// [`Kind::Io`] for a file that cannot be read, [`Kind::Usage`] for one that is no TOML.
    pub fn of_file(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).map_err(|e| Error::io("read the configuration", file, &e))?;
        let mut base = Self::of_text(&text, file)?;
        resolve(&mut base.own, file)?;
        Ok(base)
    }

    /// That of a recipe; the configuration will name it.
    ///
    /// # Errors
    /// [`Kind::Usage`] for one that is no TOML.
    pub fn of_recipe(recipe: &Recipe) -> Result<Self> {
        let mut base = Self::of_text(recipe.text, format!("recipe {}", recipe.name).as_ref())?;
        base.own.insert("recipe".into(), Value::String(recipe.name.to_owned()));
        Ok(base)
    }

    fn of_text(text: &str, place: &Path) -> Result<Self> {
        let mut own: Table = toml::from_str(text).map_err(|e| bad(place, &e))?;
        // What a recipe says of itself.
        if own.get("recipe").is_some_and(Value::is_table) {
            own.remove("recipe");
        }
        Ok(Self { own, place: place.to_owned() })
    }

    /// The text of a key.
    pub fn text(&self, key: &str) -> Option<String> {
        self.own.get(key).and_then(Value::as_str).map(str::to_owned)
    }

    /// Whether it has a key.
    pub fn names(&self, key: &str) -> bool {
        self.own.contains_key(key)
    }
}

/// The configuration in `base`, completed by defaults and overridden by what `flags` say where `given` is true of a flag.
///
/// # Errors
/// [`Kind::Usage`] if it is no configuration.
pub(super) fn merge(base: &Base, flags: &TrainConfig, given: &dyn Fn(&str) -> bool) -> Result<TrainConfig> {
    let Base { own, place } = base;
    let named = own.get("model").and_then(Value::as_str).filter(|_| !given("model")).unwrap_or(&flags.model);
    let mut all = table(&TrainConfig::of(Model::find(named)?))?;
    all.insert("model".into(), Value::String(named.to_owned()));
    // Phases say how many epochs there are.
    let phases = own.get("phase").and_then(Value::as_array).filter(|_| !own.contains_key("epochs") && !given("phase"));
    let epochs =
        phases.map(|phases| phases.iter().filter_map(|p| p.get("epochs")?.as_integer()).fold(0, i64::saturating_add));
    lay_over(&mut all, own.clone());
    if let Some(epochs) = epochs {
        all.insert("epochs".into(), Value::Integer(epochs));
    }
    let flags = table(flags)?;
    for path in KEYS.iter().filter(|(flag, _)| given(flag)).flat_map(|(_, paths)| *paths) {
        let keys: Vec<&str> = path.split('.').collect();
        set(&mut all, &keys, get(&flags, &keys));
    }
    let mut config: TrainConfig = Value::Table(all).try_into().map_err(|e| bad(place, &e))?;
    if !own.contains_key("normalisation") && !given("normalize") {
        config.normalisation = normalisation_of(&config.model, config.weights.as_deref().map(Path::new))?;
    }
    if !own.contains_key("preprocess") && !given("preprocess") {
        config.preprocess = preprocess_of(config.weights.as_deref().map(Path::new))?;
    }
    Ok(config)
}

fn bad(file: &Path, e: &dyn std::fmt::Display) -> Error {
    Error::new(Kind::Usage, format!("this is no configuration of a run: {}", e.to_string().trim()))
        .at(file.display())
        .next("see the config.toml of any run for the keys")
}

/// Makes the paths in a file absolute: they are relative to the folder it lies in.
fn resolve(own: &mut Table, file: &Path) -> Result<()> {
    let folder = file.parent().unwrap_or(Path::new(""));
    for key in ["data", "masks", "weights", "split_file"] {
        if let Some(Value::String(path)) = own.get_mut(key)
            && !path.is_empty()
        {
            *path = absolute(path, folder)?;
        }
    }
    let images = own.get_mut("images").and_then(Value::as_array_mut);
    for path in images.into_iter().flatten() {
        if let Value::String(path) = path {
            *path = absolute(path, folder)?;
        }
    }
    Ok(())
}

/// A path, or the name of generated data, as it can be found from any folder; `folder` is what it is relative to.
pub(super) fn absolute(path: &str, folder: &Path) -> Result<String> {
    if path == "synthetic" || path.starts_with("synthetic:") {
        return Ok(path.to_owned());
    }
    let path = folder.join(path);
    let path = std::path::absolute(&path).map_err(|e| Error::io("resolve the path", &path, &e))?;
    Ok(path.display().to_string())
}

fn table(config: &TrainConfig) -> Result<Table> {
    Table::try_from(config).map_err(|e| Error::new(Kind::Internal, format!("could not encode a configuration: {e}")))
}

/// Puts the entries of `over` on those of `under`, tables key by key.
fn lay_over(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => lay_over(under, over),
            (_, value) => drop(under.insert(key, value)),
        }
    }
}

fn get<'a>(table: &'a Table, keys: &[&str]) -> Option<&'a Value> {
    match keys {
        [] => None,
        [key] => table.get(*key),
        [key, rest @ ..] => get(table.get(*key)?.as_table()?, rest),
    }
}

/// Sets or, without a value, removes an entry: what is not written is at its default.
fn set(table: &mut Table, keys: &[&str], value: Option<&Value>) {
    match (keys, value) {
        ([key], Some(value)) => drop(table.insert((*key).to_owned(), value.clone())),
        ([key], None) => drop(table.remove(*key)),
        ([key, rest @ ..], _) => {
            if let Value::Table(inner) = table.entry(*key).or_insert_with(|| Value::Table(Table::new())) {
                set(inner, rest, value);
            }
        }
        ([], _) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Draw;
    use crate::train::{ScheduleKind, Trained};

    fn merged(text: &str, flags: &TrainConfig, given: &[&str]) -> Result<TrainConfig> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        merge(&Base::of_file(file.path())?, flags, &|flag| given.contains(&flag))
    }

    #[test]
    fn flags_override_the_file_and_defaults_complete_it() {
        let file = "model = 'simple-cnn'\nlr = 0.5\nepochs = 4\n[augment]\nrotation = 30.0\n[fine_tune]\ntrain = 'head'\nema = 0.5\n";
        let flags = TrainConfig { lr: 0.25, batch: 7, schedule: ScheduleKind::Cosine, ..TrainConfig::default() };
        let config = merged(file, &flags, &["lr", "ema"]).unwrap();
        assert_eq!((config.model.as_str(), config.lr, config.epochs, config.batch), ("simple-cnn", 0.25, 4, 32));
        assert_eq!((config.augment.rotation, config.augment.hflip), (30.0, true));
        assert_eq!((config.fine_tune.train.clone(), config.fine_tune.ema), (Trained::Head, None));
        assert_eq!(config.schedule, ScheduleKind::Constant);
        // A whole configuration comes back as it was.
        let whole = TrainConfig { data: "synthetic".into(), ..config };
        assert_eq!(merged(&toml::to_string(&whole).unwrap(), &flags, &[]).unwrap(), whole);
    }

    #[test]
    fn paths_in_a_file_are_relative_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sub.toml");
        let other = std::path::absolute("elsewhere.csv").unwrap();
        let text = format!("data = 'set.csv'\nmasks = '../masks'\nweights = {:?}\n", other.display().to_string());
        std::fs::write(&file, text).unwrap();
        let read = || Base::of_file(&file).unwrap();
        let config =
            merge(&read(), &TrainConfig::default(), &|flag| ["normalize", "preprocess"].contains(&flag)).unwrap();
        let in_folder = |name: &str| Some(folder.path().join(name).display().to_string());
        assert_eq!((Some(config.data), config.masks), (in_folder("set.csv"), in_folder("../masks")));
        assert_eq!(config.weights, Some(other.display().to_string()));
        std::fs::write(&file, "data = 'synthetic:9'").unwrap();
        assert_eq!(merge(&read(), &TrainConfig::default(), &|_| false).unwrap().data, "synthetic:9");
    }

    #[test]
    fn phases_in_a_file_say_the_epochs() {
        let phase = |train: &str, epochs| format!("[[phase]]\ntrain = '{train}'\nepochs = {epochs}\nlr = 1e-4\n");
        let config = merged(&(phase("head", 3) + &phase("all", 5)), &TrainConfig::default(), &[]).unwrap();
        assert_eq!((config.epochs, config.phases.len()), (8, 2));
        config.validate().unwrap();
        for wrong in ["learning_rate = 1", "lr = 'x'", "[fine_tune]\nema = 'no'", "not toml"] {
            let e = merged(wrong, &TrainConfig::default(), &[]).unwrap_err();
            assert_eq!(e.kind(), Kind::Usage, "{wrong}: {e}");
        }
    }

    #[test]
    fn every_recipe_is_a_configuration_that_can_be_run_and_read_again() {
        for recipe in Recipe::all().unwrap() {
            let name = recipe.name;
            let read = |base: &Base| merge(base, &TrainConfig::default(), &|_| false).unwrap();
            let config = read(&Base::of_recipe(&recipe).unwrap());
            config.validate().unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(config.recipe.as_deref(), Some(name));
            // The resolved configuration of a run is a configuration again.
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), toml::to_string(&config).unwrap()).unwrap();
            assert_eq!(read(&Base::of_file(file.path()).unwrap()), config, "{name}");
            // And so is the file as it is shown, but for its name.
            std::fs::write(file.path(), recipe.text).unwrap();
            assert_eq!(read(&Base::of_file(file.path()).unwrap()), TrainConfig { recipe: None, ..config }, "{name}");
        }
    }

    /// One to three changes of a text: lines that go, come twice or change places, and values in place of others.
    fn mutated(text: &str, draw: &mut Draw) -> String {
        const VALUES: [&str; 14] = [
            "-1",
            "0",
            "1",
            "1e999",
            "-0.0",
            "nan",
            "inf",
            "9223372036854775807",
            "''",
            "'\u{e9}'",
            "true",
            "[]",
            "{}",
            "[[1, 2], 'x']",
        ];
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        for _ in 0..draw.between(1, 3) {
            let at = draw.below(lines.len());
            match (draw.below(6), lines[at].split_once('=')) {
                (0, _) if lines.len() > 1 => drop(lines.remove(at)),
                (1, _) => lines.insert(at, lines[at].clone()),
                (2, _) => {
                    let other = draw.below(lines.len());
                    lines.swap(at, other);
                }
                (3, _) => {
                    let end = draw.below(lines[at].chars().count() + 1);
                    lines[at] = lines[at].chars().take(end).collect();
                }
                (_, Some((key, _))) => lines[at] = format!("{key}= {}", draw.of(&VALUES)),
                (_, None) => lines[at].push(*draw.of(&[&']', &'[', &'=', &'"', &'.'])),
            }
        }
        lines.join("\n")
    }

    /// Whatever stands in a file, it is refused, or a configuration that can be written and read again.
    #[test]
    fn a_configuration_with_changes_is_refused_or_one_that_can_be_read_again() {
        let mut draw = Draw::new(1, "configurations");
        let (mut refused, mut taken) = (0, 0);
        let place = Path::new("changed.toml");
        for recipe in Recipe::all().unwrap() {
            for _ in 0..100 {
                let text = mutated(recipe.text, &mut draw);
                let config = Base::of_text(&text, place)
                    .and_then(|base| merge(&base, &TrainConfig::default(), &|_| false))
                    .and_then(|config| config.validate().map(|()| config));
                match config {
                    Ok(config) => {
                        let again = Base::of_text(&toml::to_string(&config).unwrap(), place).unwrap();
                        assert_eq!(merge(&again, &TrainConfig::default(), &|_| false).unwrap(), config, "{text}");
                        taken += 1;
                    }
                    Err(e) => {
                        assert!([Kind::Usage, Kind::Io, Kind::Unsupported].contains(&e.kind()), "{e}\n{text}");
                        refused += 1;
                    }
                }
            }
        }
        assert!(taken > refused / 10 && refused > taken / 10, "{taken} taken, {refused} refused");
    }
}
