//! `train --tui`: a training on the whole screen, with its curves. A thread draws it and hears the keys; the training tells it
//! what happens.

mod draw;
mod view;

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event as Input, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::narration::Narrator;
use super::style::Line;
use crate::error::{Error, Kind, Result};
use crate::train::{Event, Interrupt, TrainConfig};
use draw::Palette;
use view::View;

/// How often the screen is drawn and keys are heard.
const EVERY: Duration = Duration::from_millis(100);

/// Whether the screen is ours, and is to be given back.
static OPEN: AtomicBool = AtomicBool::new(false);

/// Whether the whole screen shows a training.
pub(super) fn is_open() -> bool {
    OPEN.load(Ordering::Relaxed)
}

/// Gives the screen back, if it is ours.
pub(super) fn close() {
    if OPEN.swap(false, Ordering::Relaxed) {
        ratatui::restore();
    }
}

/// The whole screen.
pub(super) struct Screen<'a> {
    narrator: Narrator<'a>,
    view: Arc<Mutex<View>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<'a> Screen<'a> {
    /// Whether there is a screen.
    ///
    /// # Errors
    /// [`Kind::Usage`] if not.
    pub fn check() -> Result<()> {
        let terminals = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
        match terminals {
            true => Ok(()),
            false => Err(Error::new(Kind::Usage, "--tui needs a terminal, and this is none")
                .next("leave --tui away, or use --json for programs")),
        }
    }

    /// Takes the screen; `head` is what was said before.
    ///
    /// # Errors
    /// [`Kind::Io`] if the terminal cannot be used.
    pub fn open(config: &'a TrainConfig, head: Vec<Line>, interrupt: &Interrupt) -> Result<Self> {
        let unusable = |e: std::io::Error| {
            Error::new(Kind::Io, format!("the terminal cannot show a screen: {e}")).next("leave --tui away")
        };
        let terminal = ratatui::try_init().map_err(unusable)?;
        OPEN.store(true, Ordering::Relaxed);
        let view = Arc::new(Mutex::new(View::new(config, head)));
        let over = Arc::new(AtomicBool::new(false));
        let thread = {
            let (view, over, interrupt) = (Arc::clone(&view), Arc::clone(&over), Arc::clone(interrupt));
            std::thread::spawn(move || keep_drawing(terminal, &view, &over, &interrupt))
        };
        Ok(Self { narrator: Narrator::new(config), view, over, thread: Some(thread) })
    }

    /// Shows an event.
    pub fn show(&mut self, event: &Event<'_>) {
        let (lines, work) = (self.narrator.lines(event), self.narrator.work(event));
        let mut view = locked(&self.view);
        view.see(event);
        view.lines.extend(lines);
        if work.is_some() {
            view.work = work;
        }
    }

    /// Gives the screen back; what was told.
    pub fn close(&mut self) -> Vec<Line> {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has drawn what it could.
            let _ = thread.join();
        }
        close();
        std::mem::take(&mut locked(&self.view).lines)
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        self.close();
    }
}

/// The view. Half a change to it is as good to look at as any.
fn locked(view: &Mutex<View>) -> MutexGuard<'_, View> {
    view.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Draws until the training is over, or the terminal is gone.
fn keep_drawing(mut terminal: DefaultTerminal, view: &Mutex<View>, over: &AtomicBool, interrupt: &Interrupt) {
    let palette = Palette::of_environment();
    while !over.load(Ordering::Relaxed) {
        {
            let mut view = locked(view);
            view.stopping = interrupt.load(Ordering::Relaxed);
            if terminal.draw(|frame| draw::draw(frame, &view, palette)).is_err() {
                return;
            }
        }
        let Ok(ready) = event::poll(EVERY) else { return };
        if !ready {
            continue;
        }
        if let Ok(Input::Key(key)) = event::read() {
            match meaning(key) {
                Some(Command::Stop) if interrupt.swap(true, Ordering::Relaxed) => super::leave(),
                Some(Command::Stop) | None => {}
                Some(Command::Logarithm) => locked(view).logarithmic ^= true,
                Some(Command::Other) => locked(view).other ^= true,
            }
        }
    }
}

/// What keys ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    /// Stop after this step; once more, at once.
    Stop,
    /// The loss as its logarithm, or not.
    Logarithm,
    /// The other curves, where there is room for one chart only.
    Other,
}

fn meaning(key: KeyEvent) -> Option<Command> {
    if key.kind != KeyEventKind::Press {
        return None;
    }
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Command::Stop),
        KeyCode::Char('q') => Some(Command::Stop),
        KeyCode::Char('l') => Some(Command::Logarithm),
        KeyCode::Tab => Some(Command::Other),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_from_the_keyboard_stops_as_the_key_does() {
        let key = |code, modifiers| meaning(KeyEvent::new(code, modifiers));
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::NONE), Some(Command::Stop));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Command::Stop));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), None);
    }
}
