//! Published scores beside ours: one row a recipe and score, as text, Markdown, CSV and a chart (SVG).

use std::collections::{BTreeMap, BTreeSet};

use plotters::prelude::*;

use super::text::{columns, markdown, score};
use crate::data::csv_of;
use crate::error::{Error, Kind, Result};
use crate::metrics::compare::Interval;
use crate::train::{Protocol, Recipe};

/// A finished run of a recipe.
#[derive(Debug, Clone)]
pub struct Reproduced {
    /// The recipe.
    pub recipe: Recipe,
    /// Under which protocol.
    pub protocol: Protocol,
    /// Test images.
    pub images: usize,
    /// Scores by name.
    pub scores: BTreeMap<String, f64>,
    /// The intervals of some of them.
    pub intervals: Vec<Interval>,
    /// What leaks between the parts of its split, if anything does.
    pub leak: Option<String>,
    /// In what it is not as the recipe says.
    pub deviations: Vec<String>,
}

/// Runs of recipes under both protocols.
#[derive(Debug, Clone)]
pub struct Reproduction {
    runs: Vec<Reproduced>,
}

const HEADER: [&str; 6] =
    ["recipe", "score", "published", "ours, published protocol (LEAKY)", "ours, leak-free", "what differs"];
/// Scores that are shown although they were not published.
const ALWAYS: [&str; 3] = ["balanced_accuracy", "macro_f1", "jaccard"];

impl Reproduction {
    /// Of runs in any order.
    pub fn new(runs: Vec<Reproduced>) -> Self {
        Self { runs }
    }

    fn recipes(&self) -> Vec<&Recipe> {
        let mut recipes: Vec<&Recipe> = vec![];
        for run in &self.runs {
            if !recipes.iter().any(|recipe| recipe.name == run.recipe.name) {
                recipes.push(&run.recipe);
            }
        }
        recipes
    }

    fn run(&self, recipe: &Recipe, protocol: Protocol) -> Option<&Reproduced> {
        self.runs.iter().find(|run| run.recipe.name == recipe.name && run.protocol == protocol)
    }

    /// The scores to show of a recipe.
    fn scores_of(&self, recipe: &Recipe) -> Vec<String> {
        let ours = self.runs.iter().filter(|run| run.recipe.name == recipe.name);
        let found: BTreeSet<&str> = ours.flat_map(|run| run.scores.keys().map(String::as_str)).collect();
        let always = ALWAYS.into_iter().filter(|name| found.contains(name));
        let all: BTreeSet<&str> = recipe.about.published.keys().map(String::as_str).chain(always).collect();
        all.into_iter().map(str::to_owned).collect()
    }

    /// A score of a run, with its interval.
    fn cell(run: Option<&Reproduced>, name: &str) -> Option<Cell> {
        let run = run?;
        let interval = run.intervals.iter().find(|interval| interval.score == name);
        Some((*run.scores.get(name)?, interval.map(|i| i.interval)))
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let mut rows = vec![];
        for recipe in self.recipes() {
            for (number, name) in self.scores_of(recipe).iter().enumerate() {
                let cell = |protocol| {
                    Self::cell(self.run(recipe, protocol), name).map_or("-".to_owned(), |(v, i)| score(v, i))
                };
                let published = recipe.about.published.get(name).map_or("-".to_owned(), |v| format!("{v:.3}"));
                let about = if number == 0 { self.deviations(recipe) } else { String::new() };
                let ours = [cell(Protocol::Published), cell(Protocol::LeakFree)];
                rows.push([[recipe.name.to_owned(), name.clone(), published].as_slice(), &ours, &[about]].concat());
            }
        }
        rows
    }

    fn deviations(&self, recipe: &Recipe) -> String {
        let ours = self.runs.iter().filter(|run| run.recipe.name == recipe.name);
        let all: BTreeSet<&str> = ours.flat_map(|run| run.deviations.iter().map(String::as_str)).collect();
        all.into_iter().collect::<Vec<_>>().join("; ")
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = vec!["intervals of 95 % by bootstrap over lesions, of the test images".to_owned()];
        for recipe in self.recipes() {
            if !recipe.about.published_on.is_empty() {
                notes.push(format!("{}: published of {}", recipe.name, recipe.about.published_on));
            }
            for run in self.runs.iter().filter(|run| run.recipe.name == recipe.name) {
                let leak = run.leak.as_ref().map_or(String::new(), |leak| format!("; {leak}"));
                notes.push(format!("{}, {}: {} test images{leak}", recipe.name, run.protocol.name(), run.images));
            }
        }
        notes
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        format!("{}\n\n{}", columns(&HEADER, &self.rows()), self.notes().join("\n"))
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let notes: String = self.notes().iter().map(|note| format!("- {note}\n")).collect();
        format!("{}\n{notes}", markdown(&HEADER, &self.rows()))
    }

    /// As CSV: a score of a run in each row.
    ///
    /// # Errors
    /// [`Kind::Internal`] if it cannot be encoded.
    pub fn csv(&self) -> Result<Vec<u8>> {
        let header = ["recipe", "protocol", "score", "published", "ours", "low", "high", "images", "leaky", "differs"];
        let mut rows = vec![];
        for run in &self.runs {
            for name in self.scores_of(&run.recipe) {
                let number = |value: Option<f64>| value.map_or(String::new(), |v| format!("{v:.6}"));
                let cell = Self::cell(Some(run), &name);
                let bounds = cell.and_then(|(_, interval)| interval);
                rows.push([
                    run.recipe.name.to_owned(),
                    run.protocol.name().to_owned(),
                    name.clone(),
                    number(run.recipe.about.published.get(&name).copied()),
                    number(cell.map(|(value, _)| value)),
                    number(bounds.map(|[low, _]| low)),
                    number(bounds.map(|[_, high]| high)),
                    run.images.to_string(),
                    run.leak.is_some().to_string(),
                    run.deviations.join("; "),
                ]);
            }
        }
        csv_of(header, rows)
    }

    /// As a chart: three bars a score, ours with their intervals; SVG.
    ///
    /// # Errors
    /// [`Kind::Internal`] if it cannot be drawn.
    pub fn chart(&self) -> Result<String> {
        let bars: Vec<Bars> = self
            .recipes()
            .into_iter()
            .flat_map(|recipe| self.scores_of(recipe).into_iter().map(move |name| (recipe, name)))
            .map(|(recipe, name)| {
                let published = recipe.about.published.get(&name).map(|&value| (value, None));
                let of = |protocol| Self::cell(self.run(recipe, protocol), &name);
                (format!("{} {name}", recipe.name), [published, of(Protocol::Published), of(Protocol::LeakFree)])
            })
            .collect();
        let mut svg = String::new();
        draw(&bars, &mut svg).map_err(|e| Error::new(Kind::Internal, format!("the chart could not be drawn: {e}")))?;
        Ok(svg)
    }
}

/// A score, and its interval if it has one.
type Cell = (f64, Option<[f64; 2]>);
/// A score by name: as published, ours under the published protocol, ours leak-free.
type Bars = (String, [Option<Cell>; 3]);

/// Bars from left to right, one group below the other.
fn draw(groups: &[Bars], svg: &mut String) -> std::result::Result<(), Box<dyn std::error::Error>> {
    const COLOURS: [(&str, RGBColor); 3] = [
        ("published", RGBColor(150, 150, 150)),
        ("ours, published protocol (leaky)", RGBColor(230, 140, 60)),
        ("ours, leak-free", RGBColor(40, 110, 180)),
    ];
    let height = 120 + 44 * groups.len() as u32;
    let root = SVGBackend::with_string(svg, (900, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let rows = groups.len() as f64;
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .caption("Published scores and ours", ("sans-serif", 18))
        .x_label_area_size(36)
        .y_label_area_size(230)
        .build_cartesian_2d(0.0..1.0, -1.2..rows)?;
    // Labels of groups are drawn below: those of the axis would stand at whole numbers.
    chart.configure_mesh().disable_y_mesh().y_labels(0).x_labels(11).x_desc("score").draw()?;
    for (kind, (name, colour)) in COLOURS.into_iter().enumerate() {
        let place = |group: usize| rows - 1.0 - group as f64 + 0.75 - 0.25 * (kind as f64 + 1.0);
        let values = || groups.iter().enumerate().filter_map(|(g, (_, bars))| Some((place(g), bars[kind]?)));
        chart
            .draw_series(
                values().map(|(y, (v, _))| Rectangle::new([(0.0, y), (v.clamp(0.0, 1.0), y + 0.22)], colour.filled())),
            )?
            .label(name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], colour.filled()));
        let spans = values().filter_map(|(y, (_, interval))| Some((y + 0.11, interval?)));
        chart.draw_series(spans.map(|(y, [low, high])| PathElement::new(vec![(low, y), (high, y)], BLACK)))?;
    }
    chart.configure_series_labels().position(SeriesLabelPosition::LowerRight).border_style(BLACK).draw()?;
    for (group, (name, _)) in groups.iter().enumerate() {
        let (_, y) = chart.backend_coord(&(0.0, rows - 0.6 - group as f64));
        root.draw(&Text::new(name.clone(), (16, y), ("sans-serif", 13)))?;
    }
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(recipe: &str, protocol: Protocol, accuracy: f64) -> Reproduced {
        let leak = (protocol == Protocol::Published).then(|| "LEAKY: 3 of 9 lesions".to_owned());
        Reproduced {
            recipe: Recipe::find(recipe).unwrap(),
            protocol,
            images: 100,
            scores: [("accuracy", accuracy), ("macro_f1", 0.25), ("loss", 1.0)].map(|(n, v)| (n.to_owned(), v)).into(),
            intervals: vec![Interval {
                score: "accuracy",
                value: accuracy,
                interval: [accuracy - 0.05, accuracy + 0.05],
            }],
            leak,
            deviations: vec!["32x32 pixels instead of 128x128".into()],
        }
    }

    #[test]
    fn published_and_own_scores_stand_side_by_side() {
        let all = Reproduction::new(vec![
            run("s1-cnn", Protocol::Published, 0.5),
            run("s1-cnn", Protocol::LeakFree, 0.4),
            run("s3-r18", Protocol::LeakFree, 0.7),
        ]);
        let table = all.markdown();
        let row = "| s1-cnn | accuracy | 0.480 | 0.500 (0.450 to 0.550) | 0.400 (0.350 to 0.450) | 32x32 pixels instead of \
            128x128 |";
        assert!(table.contains(row), "{table}");
        assert!(table.contains("| s1-cnn | weighted_f1 | 0.540 | - | - |  |"), "{table}");
        assert!(table.contains("| s3-r18 | accuracy | 0.830 | - | 0.700 (0.650 to 0.750) |"), "{table}");
        assert!(table.contains("- s1-cnn, published: 100 test images; LEAKY: 3 of 9 lesions"), "{table}");
        assert!(!table.contains("loss"), "{table}");
        let csv = String::from_utf8(all.csv().unwrap()).unwrap();
        assert!(csv.contains("s1-cnn,leak-free,accuracy,0.480000,0.400000,0.350000,0.450000,100,false,"), "{csv}");
        let svg = all.chart().unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("s3-r18 accuracy") && svg.matches("<rect").count() > 9);
        assert!(Reproduction::new(vec![]).chart().is_ok());
    }
}
