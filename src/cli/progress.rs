//! Progress: a bar on a terminal, plain lines in a pipe.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::pace::duration;
use super::say;
use super::style::Line;

/// Shows how far a piece of work has come.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    lines: bool,
    title: String,
    last: Instant,
}

/// In a pipe, a line at most this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

impl Progress {
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{prefix:>12} [{bar:20}] {pos}/{len} {wide_msg}") {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        Self { bar, lines: true, title: String::new(), last: Instant::now() }
    }

    /// For work whose output is the data itself: no lines among it.
    pub fn quiet_in_a_pipe() -> Self {
        Self { lines: false, ..Self::new() }
    }

    /// Shows `done` of `total` of the work called `title`, with a message or else the time that is left.
    pub fn show(&mut self, title: &str, done: usize, total: usize, message: impl FnOnce() -> String) {
        match &self.bar {
            Some(bar) => {
                let other = self.title != title;
                if other {
                    // Drawn once all of it is there.
                    bar.set_draw_target(ProgressDrawTarget::hidden());
                    bar.reset();
                    bar.set_prefix(title.to_owned());
                    title.clone_into(&mut self.title);
                }
                bar.set_length(total as u64);
                bar.set_position(done as u64);
                if other || self.last.elapsed() > Duration::from_millis(100) {
                    let message = message();
                    let left = || format!("{} left", duration(bar.eta()));
                    bar.set_message(if message.is_empty() { left() } else { message });
                    self.last = Instant::now();
                }
                if other {
                    bar.set_draw_target(ProgressDrawTarget::stderr());
                    bar.tick();
                }
            }
            None if self.lines && self.last.elapsed() >= LINE_EVERY => {
                say(format!("{title}: {done}/{total} {}", message()).trim_end());
                self.last = Instant::now();
            }
            None => {}
        }
    }

    /// Prints a line of what is told of a training, above the bar, in colours where standard output shows them.
    pub fn told(&mut self, line: &Line) {
        self.last = Instant::now();
        let _ = self.above(|| writeln!(anstream::stdout().lock(), "{line}"));
    }

    /// Prints a line above the bar. As with [`say`], a closed pipe costs the rest of the output and nothing else.
    pub fn line(&mut self, text: &str) {
        let _ = self.data(text);
    }

    /// Prints a line of what the program was asked for, above the bar: a line that is not written is an error.
    pub fn data(&mut self, text: &str) -> std::io::Result<()> {
        self.last = Instant::now();
        self.above(|| writeln!(std::io::stdout().lock(), "{text}"))
    }

    /// Prints a line to standard error, above the bar.
    pub fn complain(&self, text: &str) {
        let _ = self.above(|| writeln!(std::io::stderr(), "{text}"));
    }

    fn above<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) if !self.title.is_empty() => bar.suspend(print),
            _ => print(),
        }
    }

    /// Removes the bar.
    pub fn clear(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            self.title.clear();
        }
    }
}
