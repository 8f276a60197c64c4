//! What is on the screen: the figures of now or those that are held still, the order, the place in the table.
//!
//! Owns what keys and news do to it. Never draws, never reads a clock.

use std::time::{Duration, Instant};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::feed::{News, Trouble};
use super::figures::Figures;
use super::history::History;
use super::rows::Order;

/// Without figures for so long, though connected, it is said: an event a second is promised.
const STALE_AFTER: Duration = Duration::from_secs(4);

/// Figures and what came before them.
#[derive(Clone, Debug)]
pub struct Known {
    pub figures: Box<Figures>,
    pub history: History,
}

/// How it stands with the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// Figures come; the last ones came then.
    Up(Instant),
    /// None has come so far.
    Waiting,
    /// They come no more, since then.
    Lost(Trouble, Instant),
}

/// What a key asks of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Stay,
    Quit,
}

/// Rows of the table that were drawn, and how many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub shown: usize,
    pub all: usize,
}

/// The state of the screen.
#[derive(Clone, Debug)]
pub struct View {
    target: String,
    link: Link,
    known: Option<Known>,
    /// What is shown while nothing shall move.
    held: Option<Known>,
    order: Order,
    top: usize,
    page: Page,
    has_help: bool,
}

impl View {
    /// Of whom the figures will be, in words.
    pub fn new(target: impl Into<String>) -> View {
        let (target, link, order) = (target.into(), Link::Waiting, Order::default());
        View { target, link, known: None, held: None, order, top: 0, page: Page::default(), has_help: false }
    }

    /// Takes in what happened with the figures at `now`.
    pub fn take(&mut self, news: News, now: Instant) {
        match news {
            News::Figures(figures) => {
                let mut history = self.known.take().map(|known| known.history).unwrap_or_default();
                history.add(&figures);
                self.known = Some(Known { figures, history });
                self.link = Link::Up(now);
            }
            News::Lost(trouble) => {
                // Lost since the first time, whatever further tries come to.
                let since = if let Link::Lost(_, since) = self.link { since } else { now };
                self.link = Link::Lost(trouble, since);
            }
        }
    }

    /// Does what a key says.
    pub fn press(&mut self, key: KeyEvent) -> Wish {
        if key.kind == KeyEventKind::Release {
            return Wish::Stay;
        }
        let page = self.page.shown.max(1);
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Wish::Quit,
            KeyCode::Char('q' | 'Q') => return Wish::Quit,
            KeyCode::Esc if self.has_help => self.has_help = false,
            KeyCode::Esc => return Wish::Quit,
            KeyCode::Char('?' | 'h') => self.has_help = !self.has_help,
            KeyCode::Char('p' | ' ') => self.held = if self.held.is_some() { None } else { self.known.clone() },
            KeyCode::Char('s') => self.put_in(self.order.next()),
            KeyCode::Char('S') => self.put_in(self.order.previous()),
            KeyCode::Up | KeyCode::Char('k') => self.top = self.top.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.top += 1,
            KeyCode::PageUp => self.top = self.top.saturating_sub(page),
            KeyCode::PageDown => self.top += page,
            KeyCode::Home | KeyCode::Char('g') => self.top = 0,
            KeyCode::End | KeyCode::Char('G') => self.top = usize::MAX,
            _ => {}
        }
        self.settle(self.page);
        Wish::Stay
    }

    fn put_in(&mut self, order: Order) {
        (self.order, self.top) = (order, 0);
    }

    /// Learns how much of the table could be drawn, so that no key goes past its end.
    pub fn settle(&mut self, page: Page) {
        self.page = page;
        self.top = self.top.min(page.all.saturating_sub(page.shown));
    }

    /// What is to be drawn, if anything is known.
    pub fn shown(&self) -> Option<&Known> {
        self.held.as_ref().or(self.known.as_ref())
    }

    pub fn target(&self) -> &str {
        &self.target
    }

    /// Why the figures are old, and for how many seconds; `None` while they are fresh.
    pub fn trouble(&self, now: Instant) -> Option<(String, u64)> {
        match &self.link {
            Link::Up(last) if now.duration_since(*last) < STALE_AFTER => None,
            Link::Up(last) => Some(("nothing comes".to_owned(), now.duration_since(*last).as_secs())),
            Link::Waiting => None,
            Link::Lost(trouble, since) => Some((trouble.to_string(), now.duration_since(*since).as_secs())),
        }
    }

    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    pub fn has_help(&self) -> bool {
        self.has_help
    }

    pub fn order(&self) -> Order {
        self.order
    }

    /// The first row of the table to draw, if so many follow.
    pub fn top(&self, page: Page) -> usize {
        self.top.min(page.all.saturating_sub(page.shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::figures::Server;

    fn key(code: KeyCode) -> KeyEvent {
        KeyEvent::new(code, KeyModifiers::NONE)
    }

    fn figures(timestamp: u64) -> News {
        let server = Server { timestamp, ..Server::default() };
        News::Figures(Box::new(Figures { server, ready: true, ..Figures::default() }))
    }

    fn shown_ms(view: &View) -> u64 {
        view.shown().unwrap().figures.server.timestamp
    }

    #[test]
    fn keys_that_quit() {
        let mut view = View::new("x");
        assert_eq!(view.press(key(KeyCode::Char('q'))), Wish::Quit);
        assert_eq!(view.press(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Wish::Quit);
        assert_eq!(view.press(key(KeyCode::Char('c'))), Wish::Stay);
        assert_eq!(view.press(key(KeyCode::Char('?'))), Wish::Stay);
        assert!(view.has_help());
        assert_eq!(view.press(key(KeyCode::Esc)), Wish::Stay, "the help goes first");
        assert!(!view.has_help());
        assert_eq!(view.press(key(KeyCode::Esc)), Wish::Quit);
    }

    #[test]
    fn the_table_scrolls_to_its_ends_and_no_further() {
        let mut view = View::new("x");
        let page = Page { shown: 10, all: 35 };
        view.settle(page);
        let mut pressed = |code, times| {
            (0..times).for_each(|_| assert_eq!(view.press(key(code)), Wish::Stay));
            view.top(page)
        };
        assert_eq!(pressed(KeyCode::PageDown, 1), 10);
        assert_eq!(pressed(KeyCode::PageDown, 9), 25);
        assert_eq!(pressed(KeyCode::Up, 1), 24, "no key is spent past the end");
        assert_eq!(pressed(KeyCode::Home, 1), 0);
        assert_eq!(pressed(KeyCode::Up, 3), 0);
        assert_eq!(pressed(KeyCode::Down, 3), 3);
        assert_eq!(pressed(KeyCode::End, 1), 25);
        assert_eq!(pressed(KeyCode::Char('s'), 1), 0, "another order begins at its top");
        view.press(key(KeyCode::End));
        // Backends went, or the terminal grew.
        view.settle(Page { shown: 10, all: 12 });
        assert_eq!(view.top(Page { shown: 10, all: 12 }), 2);
    }

    #[test]
    fn what_is_held_stands_still_while_figures_come() {
        let (mut view, now) = (View::new("x"), Instant::now());
        view.press(key(KeyCode::Char('p')));
        assert!(!view.is_held(), "there is nothing to hold");
        view.take(figures(1), now);
        view.press(key(KeyCode::Char('p')));
        view.take(figures(2), now);
        assert_eq!((view.is_held(), shown_ms(&view)), (true, 1));
        view.press(key(KeyCode::Char('p')));
        assert_eq!((view.is_held(), shown_ms(&view)), (false, 2));
        assert_eq!(view.shown().unwrap().history.seconds(), 0);
    }

    #[test]
    fn old_figures_are_told_with_their_age() {
        let (mut view, now) = (View::new("x"), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(view.trouble(after(9)), None);
        view.take(figures(1), now);
        assert_eq!(view.trouble(after(3)), None);
        assert_eq!(view.trouble(after(5)), Some(("nothing comes".to_owned(), 5)));
        view.take(News::Lost(Trouble::Ended), after(6));
        view.take(News::Lost(Trouble::Unreachable("refused".to_owned())), after(7));
        assert_eq!(view.trouble(after(9)), Some(("refused".to_owned(), 3)));
        assert_eq!(shown_ms(&view), 1, "the last figures stay");
        view.take(figures(2), after(10));
        assert_eq!(view.trouble(after(10)), None);
    }
}
