//! Colours of what is printed for people. They are left out where output is no terminal, or where `NO_COLOR` is set: the
//! streams that print them see to it.

use std::fmt;

use anstyle::{AnsiColor, Effects, Style};

/// A fault.
pub(super) const ERROR: Style = AnsiColor::Red.on_default().effects(Effects::BOLD);
/// What should be known.
const NOTE: Style = AnsiColor::Yellow.on_default();
/// What a line is about.
const LABEL: Style = AnsiColor::Cyan.on_default();
/// The best so far.
const BEST: Style = AnsiColor::Green.on_default();

/// A line of what is told of a training: what it is about, and the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub label: String,
    pub text: String,
    pub kind: LineKind,
}

/// How a line is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LineKind {
    Plain,
    /// Something that should be known.
    Note,
    /// The end of an epoch that is the best so far.
    Best,
}

impl Line {
    pub fn new(label: impl Into<String>, text: impl Into<String>) -> Self {
        Self { label: label.into(), text: text.into(), kind: LineKind::Plain }
    }

    pub fn note(text: impl Into<String>) -> Self {
        Self { kind: LineKind::Note, ..Self::new("note", text) }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let style = match self.kind {
            LineKind::Plain => LABEL,
            LineKind::Note => NOTE,
            LineKind::Best => BEST,
        };
        write!(f, "{style}{:<8}{style:#} {}", self.label, self.text)
    }
}
