//! The report of a run, from what its folder holds: how it learned, what it answers to its test images, what it was made from,
//! and what that is good for.

use std::collections::BTreeMap;

use serde_json::Value;

use super::answers::test_sections;
use super::charts::{self, Axes, Line};
use super::page::{Figure, Image, Page, Part, Section, Table};
use crate::data::LEAKY;
use crate::error::{Error, Kind, Result};
use crate::metrics::{Answers, Sheet};
use crate::train::{RunFolder, TrainConfig, read_answers};

/// What only the dataset and the device can add.
#[derive(Debug, Clone, Default)]
pub struct Additions {
    /// What there is to know of each test image by its id: `("sex", "female")`, for scores by group.
    pub groups: BTreeMap<String, Vec<(&'static str, String)>>,
    /// Training pictures as the model saw them.
    pub training: Vec<Figure>,
    /// Test pictures, with what the model makes of them.
    pub test: Vec<Part>,
    /// Why something is not there.
    pub notes: Vec<String>,
}

/// A finished run, as its folder tells it.
pub(super) struct Run<'a> {
    folder: &'a RunFolder,
    config: TrainConfig,
    pub metrics: Value,
    environment: Value,
    /// The columns of `results.csv`.
    results: Vec<(String, Vec<f64>)>,
    answers: Option<Sheet>,
}

/// The report of a finished run.
///
/// # Errors
/// [`Kind::Checkpoint`] if the run is not finished or a file in it is damaged, [`Kind::Data`] for damaged answers,
/// [`Kind::Io`], and [`Kind::Internal`] if a chart cannot be drawn.
pub fn run_report(folder: &RunFolder, additions: Additions) -> Result<Page> {
    let answers = folder.file("test.csv");
    let run = Run {
        folder,
        config: folder.config()?,
        metrics: folder.metrics()?,
        environment: folder.environment_json()?,
        results: results(folder)?,
        answers: if answers.is_file() { Some(read_answers(&answers)?) } else { None },
    };
    let Additions { groups, training, test, notes } = additions;
    let mut sections = vec![run.summary(), run.learning()?];
    match &run.answers {
        Some(sheet) => sections.extend(test_sections(&run, sheet, &groups)?),
        None => {
            let why = match run.metrics["test"].is_null() {
                true => "The split has no test images.",
                false => "The run left no answers to its test images (test.csv), only the scores above.",
            };
            sections.push(section("Test", vec![text(why)]));
        }
    }
    if !test.is_empty() {
        sections.push(section("Pictures", test));
    }
    sections.push(run.data(training)?);
    sections.push(run.time());
    sections.push(run.made_with()?);
    sections.push(run.card());
    let leak = run.metrics["leak"].as_str().map(str::to_owned);
    let warnings = leak.into_iter().chain(notes).collect();
    let name = folder.path().file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    Ok(Page { title: format!("{name}: {} on {}", run.config.model, run.dataset()), warnings, sections })
}

/// Classes that a chart has room for.
pub(super) const MANY: usize = 20;
pub(super) fn section(heading: &'static str, parts: Vec<Part>) -> Section {
    Section { heading, parts }
}

pub(super) fn text(text: impl Into<String>) -> Part {
    Part::Text(text.into())
}

pub(super) fn svg(name: &'static str, alt: impl Into<String>, caption: impl Into<String>, svg: String) -> Part {
    Part::Figure(Figure { name, alt: alt.into(), caption: caption.into(), image: Image::Svg(svg) })
}

pub(super) fn table(caption: impl Into<String>, header: &[&str], rows: Vec<Vec<String>>) -> Part {
    let header = header.iter().map(|&name| name.to_owned()).collect();
    Part::Table(Table { caption: caption.into(), header, rows })
}

/// The columns of `results.csv`; what is no number is none.
fn results(folder: &RunFolder) -> Result<Vec<(String, Vec<f64>)>> {
    let path = folder.file("results.csv");
    let bad = |e: csv::Error| {
        Error::new(Kind::Checkpoint, format!("the results of the epochs cannot be read: {e}")).at(path.display())
    };
    let mut csv = csv::Reader::from_path(&path).map_err(bad)?;
    let mut columns: Vec<(String, Vec<f64>)> =
        csv.headers().map_err(bad)?.iter().map(|name| (name.to_owned(), vec![])).collect();
    for row in csv.records() {
        let row = row.map_err(bad)?;
        for ((_, values), field) in columns.iter_mut().zip(&row) {
            values.push(field.parse().unwrap_or(f64::NAN));
        }
    }
    Ok(columns)
}

/// A number as it is shown.
pub(super) fn shown(value: f64) -> String {
    format!("{value:.4}")
}

/// A name of a score as it is written.
pub(super) fn words(name: &str) -> String {
    name.replace('_', " ").replace("auc", "AUC").replace("f1", "F1")
}

impl Run<'_> {
    fn column(&self, name: &str) -> Option<&[f64]> {
        let column = self.results.iter().find(|(column, _)| column == name)?;
        column.1.iter().any(|v| v.is_finite()).then_some(&column.1)
    }

    fn dataset(&self) -> &str {
        self.metrics["dataset"].as_str().unwrap_or("its data")
    }

    fn best_epoch(&self) -> f64 {
        self.metrics["best_epoch"].as_f64().unwrap_or(f64::NAN)
    }

    /// The scores of a part, with the intervals that answers give.
    fn summary(&self) -> Section {
        let mut parts = vec![];
        let TrainConfig { model, size, epochs, batch, lr, .. } = &self.config;
        let done = self.metrics["epochs"].as_u64().unwrap_or(0);
        let protocol = match self.metrics["leak"].as_str() {
            Some(_) => format!("image by image ({LEAKY})"),
            None => "no lesion is known to be in two parts".to_owned(),
        };
        let best = match self.metrics["val"].is_null() {
            true => format!("{:.0}, the last: there are no validation images", self.best_epoch()),
            false => format!("{:.0}, by {} of validation", self.best_epoch(), self.config.monitor),
        };
        let mut rows: Vec<Vec<String>> = [
            ("model", format!("{model} at {size} pixels")),
            ("data", self.dataset().to_owned()),
            ("split", protocol),
            ("training", format!("{done} of {epochs} epochs, batch {batch}, learning rate {lr:e}")),
            ("best epoch", best),
        ]
        .into_iter()
        .map(|(name, value)| vec![name.to_owned(), value])
        .collect();
        if let Some(recipe) = &self.config.recipe {
            rows.push(vec!["recipe".to_owned(), recipe.clone()]);
        }
        for stop in self.metrics["stopped"].as_array().into_iter().flatten() {
            rows.push(vec!["stopped".to_owned(), stop["why"].as_str().unwrap_or_default().to_owned()]);
        }
        parts.push(table("The run", &["", ""], rows));
        let intervals: BTreeMap<&str, [f64; 2]> = self
            .answers
            .iter()
            .flat_map(|sheet| sheet.intervals())
            .map(|interval| (interval.score, interval.interval))
            .collect();
        let names: Vec<&str> = ["val", "test"]
            .iter()
            .flat_map(|part| self.metrics[part].as_object().into_iter().flatten())
            .filter(|(name, value)| value.is_f64() && name.as_str() != "loss")
            .map(|(name, _)| name.as_str())
            .collect();
        let mut rows: Vec<Vec<String>> = vec![];
        for name in names {
            let name_shown = words(name);
            if rows.iter().any(|row| row[0] == name_shown) {
                continue;
            }
            let of = |part: &str| self.metrics[part][name].as_f64().map_or("-".to_owned(), shown);
            let interval = intervals.get(name).map_or("-".to_owned(), |[low, high]| format!("{low:.3} to {high:.3}"));
            rows.push(vec![name_shown, of("val"), of("test"), interval]);
        }
        let caption = "Scores of the best epoch; intervals of 95 % by bootstrap over lesions";
        parts.push(table(caption, &["score", "validation", "test", "95 % interval"], rows));
        section("Summary", parts)
    }

    /// Curves over epochs.
    fn learning(&self) -> Result<Section> {
        let epochs: Vec<f64> = self.column("epoch").unwrap_or_default().to_vec();
        let line = |column: &str, name: &str| {
            let points = self.column(column)?.iter().zip(&epochs).map(|(&y, &x)| [x, y]).collect();
            Some(Line { name: name.to_owned(), points })
        };
        let mark = Some((self.best_epoch(), "best epoch"));
        let axes = |title, y| Axes { title, x: "epoch", y, mark, whole: true, ..Axes::default() };
        let mut parts = vec![];
        let losses: Vec<Line> =
            [("train_loss", "training"), ("val_loss", "validation")].iter().filter_map(|(c, n)| line(c, n)).collect();
        let chart = charts::lines(&axes("Loss", "loss"), &losses)?;
        let alt = "Loss of training and validation pictures by epoch";
        parts.push(svg(
            "loss",
            alt,
            "The mean loss of training pictures (as augmented) and of validation pictures.",
            chart,
        ));
        let scores: Vec<Line> = self
            .results
            .iter()
            .filter_map(|(name, _)| line(name, &words(name.strip_prefix("val_")?)))
            .filter(|line| line.name != "loss")
            .collect();
        if !scores.is_empty() {
            let chart = charts::lines(&axes("Scores of validation pictures", "score"), &scores)?;
            let names: Vec<&str> = scores.iter().map(|line| line.name.as_str()).collect();
            parts.push(svg(
                "scores",
                format!("By epoch: {}", names.join(", ")),
                "Scores of validation pictures.",
                chart,
            ));
        }
        if let Some(rate) =
            line("lr", "learning rate").filter(|line| line.points.windows(2).any(|w| w[0][1] != w[1][1]))
        {
            let chart = charts::lines(&axes("Learning rate", "rate"), &[rate])?;
            parts.push(svg("rate", "Learning rate by epoch", "The rate of each epoch's last step.", chart));
        }
        Ok(section("Learning", parts))
    }

    /// How many images each class has in each part, and training pictures.
    fn data(&self, training: Vec<Figure>) -> Result<Section> {
        let path = self.folder.file("split.csv");
        let bad = |e: csv::Error| {
            Error::new(Kind::Checkpoint, format!("the split of the run cannot be read: {e}")).at(path.display())
        };
        let mut counts: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        for row in csv::Reader::from_path(&path).map_err(bad)?.into_records() {
            let row = row.map_err(bad)?;
            let field = |at: usize| row.get(at).unwrap_or_default().to_owned();
            *counts.entry(field(1)).or_default().entry(field(3)).or_default() += 1;
        }
        let kinds: Vec<&str> = ["train", "val", "test", "unused"]
            .into_iter()
            .filter(|kind| counts.values().any(|of_class| of_class.contains_key(*kind)))
            .collect();
        let of = |class: &str, kind: &str| counts.get(class).and_then(|c| c.get(kind)).copied().unwrap_or(0);
        let groups: Vec<(String, Vec<f64>)> = counts
            .keys()
            .take(MANY)
            .map(|class| (class.clone(), kinds.iter().map(|kind| of(class, kind) as f64).collect()))
            .collect();
        let chart = charts::bars("Images by class", "images", &kinds, &groups)?;
        let caption = "Images of each class in each part of the split.";
        let mut parts = vec![svg("classes", "How many images each class has in each part", caption, chart)];
        parts.extend(training.into_iter().map(Part::Figure));
        let rows = counts.keys().map(|class| {
            let numbers = kinds.iter().map(|kind| of(class, kind).to_string());
            [class.clone()].into_iter().chain(numbers).collect()
        });
        parts.push(table("Images", &[&["class"], kinds.as_slice()].concat(), rows.collect()));
        Ok(section("Data", parts))
    }

    fn time(&self) -> Section {
        let sum = |name: &str| self.column(name).map(|v| v.iter().filter(|v| v.is_finite()).sum::<f64>());
        let mean = |name: &str| {
            let finite: Vec<f64> = self.column(name)?.iter().copied().filter(|v| v.is_finite()).collect();
            Some(finite.iter().sum::<f64>() / finite.len() as f64)
        };
        let mut rows = vec![];
        let mut row = |name: &str, value: Option<String>| {
            rows.extend(value.map(|value| vec![name.to_owned(), value]));
        };
        row("training", self.metrics["training_seconds"].as_f64().map(|s| format!("{s:.1} s")));
        row("of these, steps waited for pictures", sum("waited_seconds").map(|s| format!("{s:.1} s")));
        row("images a second", mean("images_per_second").map(|n| format!("{n:.1}")));
        row("steps", self.metrics["steps"].as_u64().map(|n| n.to_string()));
        let bytes = self.environment["memory"].as_u64();
        row("memory on the device", bytes.map(|bytes| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))));
        section("Time and memory", vec![table("Training", &["", ""], rows)])
    }

    /// What is needed to make it again.
    fn made_with(&self) -> Result<Section> {
        let field = |name: &str| match &self.environment[name] {
            Value::String(text) => text.clone(),
            Value::Array(list) => list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
            Value::Null => "-".to_owned(),
            other => other.to_string(),
        };
        let names = ["lesion_gpu", "adapter", "driver", "backend", "os", "arch", "features", "command"];
        let rows = names.iter().map(|name| vec![name.replace('_', "-"), field(name)]).collect();
        let path = self.folder.file("config.toml");
        let config = std::fs::read_to_string(&path).map_err(|e| Error::io("read the configuration", &path, &e))?;
        let parts = vec![
            table("Environment", &["", ""], rows),
            text("The same configuration on the same data, device and tuning repeats the run bit for bit."),
            Part::File("config.toml".to_owned(), config),
        ];
        Ok(section("Made with", parts))
    }

    /// The model card (Mitchell et al., "Model cards for model reporting", 2019), as far as a run knows it.
    fn card(&self) -> Section {
        let (model, data) = (&self.config.model, self.dataset());
        let masks = matches!(self.answers, Some(Sheet { answers: Answers::Masks(_), .. }));
        let does = if masks {
            "marks lesions in dermoscopic pictures"
        } else {
            "classifies dermoscopic pictures of skin lesions"
        };
        let classes: Vec<&str> =
            self.metrics["classes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut parts = vec![text(format!("This {model} {does}. It was trained on {data}."))];
        if !masks {
            parts.push(text(format!("It knows these classes and no others: {}.", classes.join(", "))));
        }
        let mut lines = vec![
            "Intended use: research on such pictures, comparison with other systems, teaching.".to_owned(),
            "Not intended: any decision about a person's health. It is not a medical device, and its answers are no diagnosis."
                .to_owned(),
            format!(
                "Limits: scores hold for pictures like those of {data}. Other dermoscopes, clinical photographs, skin tones, ages \
                 and lesions that are rare there or missing may be answered wrongly and with great certainty. A picture of \
                 anything else gets one of its answers too."
            ),
        ];
        if self.metrics["leak"].is_string() {
            lines.push(
                "Its split leaks: lesions of the test images were trained on, so the scores say little of new lesions."
                    .to_owned(),
            );
        }
        if self.metrics["temperature"].is_f64() {
            lines.push("Its probabilities are calibrated by a temperature fitted to validation pictures.".to_owned());
        }
        lines.push(
            "Licences: weights may fall under those of the data and of the weights that training started from. HAM10000 and the \
             ISIC challenges' data are for non-commercial use."
                .to_owned(),
        );
        parts.extend(lines.into_iter().map(Part::Text));
        section("Model card", parts)
    }
}
