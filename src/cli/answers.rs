//! What `predict` says of pictures, printed as it is found: lines, a JSON array, JSON line by line, or a CSV table.

use std::path::Path;

use clap::ValueEnum;
use serde::Serialize;

use super::progress::Progress;
use crate::error::{Error, Kind, Result};

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Text,
    Json,
    /// JSON, an answer on each line
    Jsonl,
    Csv,
}

impl Format {
    /// What is printed of an answer.
    ///
    /// # Errors
    /// [`Kind::Internal`] if it cannot be encoded.
    pub fn text(self, answer: &impl Answer) -> Result<String> {
        match self {
            Self::Text => Ok(answer.line()),
            Self::Jsonl => serde_json::to_string(answer).map_err(failed),
            Self::Json => {
                let text = serde_json::to_string_pretty(answer).map_err(failed)?;
                Ok(format!("  {}", text.replace('\n', "\n  ")))
            }
            Self::Csv => record(&answer.row()),
        }
    }
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
    /// Whether nobody reads on: the pipe is closed.
    pub closed: bool,
}

impl Answers {
    /// Begins, with the header of a table whose columns are called `columns`.
    ///
    /// # Errors
    /// As [`print`](Self::print), and [`Kind::Internal`] for columns that cannot be encoded.
    pub fn begin(format: Format, columns: &[&str], progress: &mut Progress) -> Result<Self> {
        let mut answers = Self { format, held: None, closed: false };
        match format {
            Format::Text | Format::Jsonl => {}
            Format::Json => answers.put("[", progress)?,
            Format::Csv => answers.put(&record(columns)?, progress)?,
        }
        Ok(answers)
    }

    /// Prints an answer, of which [`Format::text`] has made this text, above the bar.
    ///
    /// # Errors
    /// [`Kind::Io`] if it cannot be written.
    pub fn print(&mut self, text: String, progress: &mut Progress) -> Result<()> {
        if self.format != Format::Json {
            return self.put(&text, progress);
        }
        match self.held.replace(text) {
            Some(before) => self.put(&format!("{before},"), progress),
            None => Ok(()),
        }
    }

    /// Ends the array of JSON. One that is not ended is no JSON, so what was cut short is not taken for all there is.
    ///
    /// # Errors
    /// As [`print`](Self::print).
    pub fn end(&mut self, progress: &mut Progress) -> Result<()> {
        if let Some(last) = self.held.take() {
            self.put(&last, progress)?;
        }
        if self.format == Format::Json { self.put("]", progress) } else { Ok(()) }
    }

    fn put(&mut self, text: &str, progress: &mut Progress) -> Result<()> {
        progress.data(text).map_err(|e| {
            self.closed = e.kind() == std::io::ErrorKind::BrokenPipe;
            Error::io("write the answers", Path::new("standard output"), &e)
        })
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
