//! What `predict` says of pictures, printed as it is found: lines, a JSON array or a CSV table.

use clap::ValueEnum;
use serde::Serialize;

use super::progress::Progress;
use crate::error::{Error, Kind, Result};

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Text,
    Json,
    Csv,
}

/// What there is to say of a picture. As JSON it is what it serialises to.
pub(super) trait Answer: Serialize {
    /// As a line.
    fn line(&self) -> String;
    /// As a row of a table.
    fn row(&self) -> Vec<String>;
}

/// Prints answers one by one.
pub(super) struct Answers {
    format: Format,
    /// The last one, in JSON: whether a comma follows is not known yet.
    held: Option<String>,
}

impl Answers {
    /// Begins, with the header of a table whose columns are called `columns`.
    ///
    /// # Errors
    /// As [`print`](Self::print).
    pub fn begin(format: Format, columns: &[&str], progress: &mut Progress) -> Result<Self> {
        match format {
            Format::Text => {}
            Format::Json => progress.line("["),
            Format::Csv => progress.line(&record(columns)?),
        }
        Ok(Self { format, held: None })
    }

    /// Prints an answer, above the bar.
    ///
    /// # Errors
    /// [`Kind::Internal`] for what cannot be encoded.
    pub fn print(&mut self, answer: &impl Answer, progress: &mut Progress) -> Result<()> {
        match self.format {
            Format::Text => progress.line(&answer.line()),
            Format::Json => {
                let text = serde_json::to_string_pretty(answer).map_err(failed)?;
                let indented = format!("  {}", text.replace('\n', "\n  "));
                if let Some(before) = self.held.replace(indented) {
                    progress.line(&format!("{before},"));
                }
            }
            Format::Csv => progress.line(&record(&answer.row())?),
        }
        Ok(())
    }

    /// Ends the array of JSON.
    pub fn end(self, progress: &mut Progress) {
        if let Some(last) = self.held {
            progress.line(&last);
        }
        if self.format == Format::Json {
            progress.line("]");
        }
    }
}

/// A line of a CSV table.
fn record<T: AsRef<[u8]>>(fields: &[T]) -> Result<String> {
    let mut csv = csv::Writer::from_writer(vec![]);
    csv.write_record(fields).map_err(failed)?;
    let text = csv.into_inner().map_err(failed)?;
    Ok(String::from_utf8_lossy(&text).trim_end_matches(['\r', '\n']).to_owned())
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::new(Kind::Internal, format!("could not encode an answer: {error}"))
}
