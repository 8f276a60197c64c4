//! The terminal: taken over for a picture that fills it, and given back as it was.
//!
//! Owns raw mode, the alternate screen and the cursor, and what happens to them when the program panics. Never decides
//! what is drawn.

use std::io::{self, IsTerminal, Stdout};
use std::panic;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::layout::Rect;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc::{self, Receiver};

/// Keys and sizes that wait to be looked at, at most.
const INPUTS_COUNT_MAX: usize = 64;

/// Whether somebody sits there who can see a picture and press keys.
pub fn is_there() -> bool {
    let is_dumb = std::env::var_os("TERM").is_some_and(|name| name == "dumb");
    io::stdin().is_terminal() && io::stdout().is_terminal() && !is_dumb
}

/// The terminal while it is ours; given back on drop.
#[derive(Debug)]
pub struct Screen(Terminal<CrosstermBackend<Stdout>>);

impl Screen {
    /// Takes the terminal over. From then on a panic gives it back before it says anything: in a release build nothing
    /// is dropped on the way out.
    ///
    /// # Errors
    /// Those of the terminal, which then is as it was.
    pub fn open() -> io::Result<Screen> {
        let say = panic::take_hook();
        panic::set_hook(Box::new(move |panicked| {
            give_back();
            say(panicked);
        }));
        Screen::take_over().inspect_err(|_| give_back())
    }

    fn take_over() -> io::Result<Screen> {
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen)?;
        Terminal::new(CrosstermBackend::new(io::stdout())).map(Screen)
    }

    /// Draws a picture of the whole; only what differs is written.
    ///
    /// # Errors
    /// Those of the terminal.
    pub fn draw<T>(&mut self, picture: impl FnOnce(Rect, &mut Buffer) -> T) -> io::Result<Option<T>> {
        let mut told = None;
        self.0.draw(|frame| {
            let area = frame.area();
            told = Some(picture(area, frame.buffer_mut()));
        })?;
        Ok(told)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Puts the terminal back, as far as it is still there. May be called more than once.
fn give_back() {
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
}

/// Whether nobody sits there any more. The library that reads keys doesn't tell.
pub fn is_gone() -> bool {
    let stdin = io::stdin();
    let mut looked = [PollFd::new(&stdin, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut looked, Some(&at_once)).is_ok_and(|found| found > 0)
}

/// Keys and new sizes, read by a thread of their own; they end with the terminal.
///
/// # Errors
/// When there can't be another thread.
pub fn inputs() -> io::Result<Receiver<Event>> {
    let (sender, receiver) = mpsc::channel(INPUTS_COUNT_MAX);
    std::thread::Builder::new().name("keys".to_owned()).spawn(move || {
        while let Ok(input) = event::read() {
            if sender.blocking_send(input).is_err() {
                break;
            }
        }
    })?;
    Ok(receiver)
}
