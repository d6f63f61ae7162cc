//! Runs beside each other: the scores of each with its interval, and how each differs from the first.

use serde::Serialize;

use super::text::{columns, markdown, p, score};
use crate::error::{Error, Kind, Result};
use crate::metrics::compare::Interval;
use crate::metrics::{Comparison, Sheet, compare};

/// Several runs compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunComparison {
    runs: Vec<Run>,
    /// Of each run but the first with the first.
    against_first: Vec<Comparison>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Run {
    name: String,
    images: usize,
    /// What leaks between the parts of its split, if anything does.
    leak: Option<String>,
    scores: Vec<Interval>,
}

impl RunComparison {
    /// Compares runs by their names, answers, and what leaks in them.
    ///
    /// # Errors
    /// Those of [`compare()`]; [`Kind::Usage`] for fewer than two runs.
    pub fn new(runs: &[(String, Sheet, Option<String>)]) -> Result<Self> {
        let Some(((_, first, _), others)) = runs.split_first().filter(|(_, others)| !others.is_empty()) else {
            return Err(Error::new(Kind::Usage, "one run has nothing to be compared with").next("name two or more"));
        };
        let against_first = others.iter().map(|(name, sheet, _)| compare(first, sheet).map_err(|e| e.at(name)));
        let against_first = against_first.collect::<Result<_>>()?;
        let run = |(name, sheet, leak): &(String, Sheet, Option<String>)| Run {
            name: name.clone(),
            images: sheet.images.len(),
            leak: leak.clone(),
            scores: sheet.intervals(),
        };
        Ok(Self { runs: runs.iter().map(run).collect(), against_first })
    }

    /// The runs' scores, then the differences from the first.
    fn tables(&self) -> [(Vec<&str>, Vec<Vec<String>>); 2] {
        let names = |scores: &[Interval]| scores.iter().map(|s| s.score).collect::<Vec<_>>();
        let mut header = vec!["run", "images"];
        header.extend(self.runs.first().map(|run| names(&run.scores)).unwrap_or_default());
        let row = |run: &Run| {
            let name = if run.leak.is_some() { format!("{} LEAKY", run.name) } else { run.name.clone() };
            let scores = run.scores.iter().map(|s| score(s.value, Some(s.interval)));
            [name, run.images.to_string()].into_iter().chain(scores).collect()
        };
        let of_runs = (header, self.runs.iter().map(row).collect());
        let mut rows = vec![];
        for (run, found) in self.runs.iter().skip(1).zip(&self.against_first) {
            for s in &found.scores {
                let change = s.second - s.first;
                let interval = format!("{:+.3} to {:+.3}", s.interval[0], s.interval[1]);
                rows.push(vec![run.name.clone(), s.score.to_owned(), format!("{change:+.3}"), interval, p(s.p)]);
            }
            if let Some(test) = found.mcnemar {
                let only = format!("{} against {}", test.only_second, test.only_first);
                rows.push(vec![run.name.clone(), "right alone (McNemar)".into(), only, String::new(), p(test.p)]);
            }
        }
        [of_runs, (vec!["against the first", "score", "difference", "interval of 95 %", "p"], rows)]
    }

    fn notes(&self) -> String {
        let mut notes = String::new();
        for run in &self.runs {
            if let Some(leak) = &run.leak {
                notes += &format!("\n{}: {leak}", run.name);
            }
        }
        let common = self.against_first.iter().zip(self.runs.iter().skip(1)).map(|(c, run)| {
            let first = self.runs.first().map_or(0, |first| first.images);
            let few = if 2 * c.images < first.max(run.images) { ", FEW: the runs were split differently" } else { "" };
            format!("{} images of {} lesions (of {first} and {}{few})", c.images, c.lesions, run.images)
        });
        let common = common.collect::<Vec<_>>().join("; ");
        format!(
            "differences on the test images that both runs have: {common}; intervals and p by bootstrap over lesions{notes}"
        )
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        let [runs, differences] = self.tables();
        format!("{}\n\n{}\n\n{}", columns(&runs.0, &runs.1), columns(&differences.0, &differences.1), self.notes())
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let [runs, differences] = self.tables();
        format!("{}\n{}\n{}\n", markdown(&runs.0, &runs.1), markdown(&differences.0, &differences.1), self.notes())
    }
}
