//! `train --tui`: a training on the whole screen, with its curves. One thread draws it, one hears the keys, and the training never
//! waits for either: a terminal may stop taking what is drawn, or go away. Where it has gone, the run is stopped and saved.

mod draw;
mod view;

use std::io::{IsTerminal as _, Stdout};
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::event::{self, Event as Input, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};

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

/// How long the end of a training waits for what is being drawn.
const PATIENCE: Duration = Duration::from_secs(2);

/// Gives the screen back, if it is ours. A terminal that has gone needs none.
pub(super) fn close() {
    if OPEN.swap(false, Ordering::Relaxed) {
        let _ = execute!(std::io::stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

/// Takes the screen.
fn open() -> std::io::Result<Terminal<CrosstermBackend<Stdout>>> {
    enable_raw_mode()?;
    OPEN.store(true, Ordering::Relaxed);
    execute!(std::io::stdout(), EnterAlternateScreen, Hide)?;
    // A training that panics, which is a bug, says so on the screen that was there before. What a decoder panics on is caught.
    let (training, before) = (std::thread::current().id(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().id() == training {
            close();
        }
        before(info);
    }));
    Terminal::new(CrosstermBackend::new(std::io::stdout()))
}

/// The whole screen.
pub(super) struct Screen<'a> {
    narrator: Narrator<'a>,
    view: Arc<Mutex<View>>,
    over: Arc<AtomicBool>,
    drawing: Option<JoinHandle<()>>,
    told: Vec<Line>,
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
        let terminal = open().inspect_err(|_| close()).map_err(unusable)?;
        let view = Arc::new(Mutex::new(View::new(config, head.clone())));
        let over = Arc::new(AtomicBool::new(false));
        let shared = || (Arc::clone(&view), Arc::clone(&over), Arc::clone(interrupt));
        let (of_keys, of_drawing) = (shared(), shared());
        // Nobody waits for this one: what reads keys from a terminal that has gone may never return.
        drop(std::thread::spawn(move || hear(&of_keys.0, &of_keys.1, &of_keys.2)));
        let drawing = std::thread::spawn(move || keep_drawing(terminal, &of_drawing.0, &of_drawing.1, &of_drawing.2));
        Ok(Self { narrator: Narrator::new(config), view, over, drawing: Some(drawing), told: head })
    }

    /// Shows an event.
    pub fn show(&mut self, event: &Event<'_>) {
        let (lines, work) = (self.narrator.lines(event), self.narrator.work(event));
        let mut view = locked(&self.view);
        view.see(event);
        lines.iter().for_each(|line| view.tell(line));
        if work.is_some() {
            view.work = work;
        }
        drop(view);
        self.told.extend(lines);
    }

    /// Gives the screen back; what was told.
    pub fn close(&mut self) -> Vec<Line> {
        self.over.store(true, Ordering::Relaxed);
        if let Some(drawing) = self.drawing.take() {
            let asked = Instant::now();
            while !drawing.is_finished() && asked.elapsed() < PATIENCE {
                std::thread::sleep(EVERY / 10);
            }
        }
        close();
        std::mem::take(&mut self.told)
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

/// Draws until the training is over. A terminal that has gone stops it, as the signal does that comes with it.
fn keep_drawing(
    terminal: Terminal<CrosstermBackend<Stdout>>,
    view: &Mutex<View>,
    over: &AtomicBool,
    interrupt: &Interrupt,
) {
    // Dropped it would show the cursor, which `close` does, and complain where it cannot.
    let mut terminal = ManuallyDrop::new(terminal);
    let palette = Palette::of_environment();
    while !over.load(Ordering::Relaxed) {
        // A copy, so that nobody waits while it is drawn.
        let mut shown = locked(view).clone();
        shown.stopping = interrupt.load(Ordering::Relaxed);
        if terminal.draw(|frame| draw::draw(frame, &shown, palette)).is_err() {
            interrupt.store(true, Ordering::Relaxed);
            return;
        }
        std::thread::sleep(EVERY);
    }
}

/// Hears the keys until the training is over.
fn hear(view: &Mutex<View>, over: &AtomicBool, interrupt: &Interrupt) {
    while !over.load(Ordering::Relaxed) {
        let Ok(ready) = event::poll(EVERY) else { return };
        if !ready || over.load(Ordering::Relaxed) {
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
