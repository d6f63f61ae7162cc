//! Tables and charts of runs. Host types only.
//!
//! - `reproduction`: published scores beside ours, under the published protocol and under a leak-free one
//! - `comparison`: runs beside each other, with tests of their differences
//! - `text`: columns for a terminal, Markdown

mod comparison;
mod reproduction;
mod text;

pub use comparison::RunComparison;
pub use reproduction::{Reproduced, Reproduction};
