//! Tables, charts and pages of runs. Host types only.
//!
//! - `run`: the report of a run; `answers`: what it says of the answers to test images
//! - `reproduction`: published scores beside ours, under the published protocol and under a leak-free one
//! - `comparison`: runs beside each other, with tests of their differences
//! - `tensorboard`: event files
//! - `page`: sections, figures and tables as one HTML file; `charts`: figures; `text`: columns for a terminal, Markdown

mod answers;
mod charts;
mod comparison;
mod page;
mod reproduction;
mod run;
mod tensorboard;
mod text;

pub use comparison::RunComparison;
pub use page::{Figure, Image, Page, Part, Section, Table};
pub use reproduction::{Reproduced, Reproduction};
pub use run::{Additions, run_report};
pub use tensorboard::EventFile;
