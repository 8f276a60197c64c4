//! What the service manager hears of a running proxy: when it is ready, reloads, stops, that it lives, and how it stands.
//!
//! Owns when which word is due. Never waits for the proxy and never changes it.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::top::say;
use crate::clock;
use crate::control::figures::State;
use crate::server::Handle;
use crate::service::Service;
use crate::service::life::Life;
use crate::service::notify::{Notifier, Word};
use crate::sys;

/// Between two status lines.
const STATUS_PERIOD: Duration = Duration::from_secs(10);
/// Between two words on the way out, and how much longer each asks for.
const DRAIN_PERIOD: Duration = Duration::from_secs(5);
const DRAIN_EXTENSION: Duration = Duration::from_secs(15);
/// Between two looks for the end of a reload.
const RELOAD_LOOK: Duration = Duration::from_millis(20);
/// Who has not moved for so long may be stuck; less says nothing of a busy machine.
const STUCK_MIN: Duration = Duration::from_secs(2);

/// Where it is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// A reload that a signal asked for is not over.
    Reloading,
    Stopping,
}

/// Tells the service manager; does nothing where there is none.
#[derive(Debug)]
pub struct Reporter {
    notifier: Option<Notifier>,
    is_watched: bool,
    period: Duration,
    next_beat: Instant,
    phase: Phase,
    life: Life,
    stuck: Vec<usize>,
    status: Status,
}

impl Reporter {
    /// Tells whom `service` names that the proxy is ready.
    pub fn begin(service: Service, handle: &Handle) -> Reporter {
        let half = service.watchdog.map(|watchdog| watchdog / 2);
        let patience = half.unwrap_or_default().max(STUCK_MIN);
        let period = half.unwrap_or(STATUS_PERIOD).clamp(Duration::from_millis(1), STATUS_PERIOD);
        let mut reporter = Reporter {
            notifier: service.notifier,
            is_watched: half.is_some(),
            period,
            next_beat: Instant::now() + period,
            phase: Phase::Serving,
            life: Life::new(patience.as_millis() as u64),
            stuck: Vec::new(),
            status: Status::default(),
        };
        let line = reporter.status.line(handle, Phase::Serving);
        reporter.look(handle);
        reporter.tell(&[Word::Ready, Word::Status(&line)]);
        reporter
    }

    /// A signal has asked for a reload. To be called before it begins.
    pub fn reload(&mut self) {
        self.phase = Phase::Reloading;
        self.tell(&[Word::Reloading(sys::monotonic_us()), Word::Status("reloading")]);
    }

    /// The proxy is on its way out.
    pub fn stop(&mut self, handle: &Handle) {
        self.phase = Phase::Stopping;
        self.period = self.period.min(DRAIN_PERIOD);
        self.tell(&[Word::Stopping]);
        self.next_beat = Instant::now();
        self.beat(handle);
    }

    /// Waits until there is something to tell; for ever, where nobody listens. May be dropped and called again.
    pub async fn due(&self) {
        match (&self.notifier, self.phase) {
            (None, _) => std::future::pending().await,
            (_, Phase::Reloading) => sleep_until(self.next_beat.min(Instant::now() + RELOAD_LOOK)).await,
            _ => sleep_until(self.next_beat).await,
        }
    }

    /// Tells what is due.
    pub fn beat(&mut self, handle: &Handle) {
        if self.phase == Phase::Reloading && !handle.board().is_reloading() {
            self.phase = Phase::Serving;
            let line = self.status.line(handle, self.phase);
            self.tell(&[Word::Ready, Word::Status(&line)]);
        }
        if Instant::now() < self.next_beat {
            return;
        }
        self.next_beat = Instant::now() + self.period;
        self.look(handle);
        let line = self.status.line_if_due(handle, self.phase);
        let mut words = Vec::new();
        if self.stuck.is_empty() && self.is_watched {
            words.push(Word::Alive);
        }
        if self.stuck.is_empty() && self.phase == Phase::Stopping {
            words.push(Word::Extend(DRAIN_EXTENSION));
        }
        words.extend(line.as_deref().map(Word::Status));
        if !words.is_empty() {
            self.tell(&words);
        }
    }

    fn tell(&self, words: &[Word<'_>]) {
        if let Some(notifier) = &self.notifier {
            notifier.tell(words);
        }
    }

    /// Looks whether every thread goes on, and logs who no longer does or does again.
    fn look(&mut self, handle: &Handle) {
        let stuck = self.life.stuck(clock::now_ms(), &handle.pulses());
        if stuck != self.stuck {
            let threads: Vec<String> = stuck.iter().map(|place| name(*place)).collect();
            match threads.is_empty() {
                true => tracing::info!("every thread goes on again"),
                false => tracing::error!(threads = threads.join(" "), "stuck: no sign of life is given for them"),
            }
            self.stuck = stuck;
        }
    }
}

/// Of a thread, by its place in [`Handle::pulses`].
fn name(place: usize) -> String {
    place.checked_sub(1).map_or("control".to_owned(), |worker| format!("worker-{worker}"))
}

/// The line for people, and what it was made of the last time.
#[derive(Debug, Default)]
struct Status {
    told: String,
    /// When, and how many requests there were then.
    last: Option<(Instant, u64)>,
}

impl Status {
    /// A line that says something new, not more often than every [`STATUS_PERIOD`] while it serves.
    fn line_if_due(&mut self, handle: &Handle, phase: Phase) -> Option<String> {
        let is_early = self.last.is_some_and(|(at, _)| at.elapsed() < STATUS_PERIOD);
        if is_early && phase != Phase::Stopping {
            return None;
        }
        let before = self.told.clone();
        Some(self.line(handle, phase)).filter(|line| *line != before)
    }

    fn line(&mut self, handle: &Handle, phase: Phase) -> String {
        let totals = handle.stats();
        let open = say::whole(handle.open());
        let now = Instant::now();
        let before = self.last.replace((now, totals.requests));
        self.told = match phase {
            Phase::Stopping => {
                format!("stopping: {open} connections, {} requests under way", say::whole(totals.exchanges_active))
            }
            Phase::Serving | Phase::Reloading => {
                let rate = before.map(|(at, requests)| {
                    let seconds = now.duration_since(at).as_secs_f64().max(1e-3);
                    totals.requests.saturating_sub(requests) as f64 / seconds
                });
                let parked = say::whole(totals.connections_parked);
                let rate = rate.map_or(String::new(), |rate| format!(", {} requests/s", say::rate(Some(rate))));
                format!("{open} connections ({parked} parked){rate}{}{}", backends(handle), troubles(handle))
            }
        };
        self.told.clone()
    }
}

fn backends(handle: &Handle) -> String {
    let shown = handle.board().shown();
    let now_ms = clock::now_ms();
    let all = shown.published.upstreams.iter().flat_map(|upstream| &upstream.backends);
    let (up, count) = all
        .fold((0, 0), |(up, count), backend| (up + u64::from(State::of(backend, now_ms) == State::Active), count + 1));
    if count == 0 { String::new() } else { format!(", {up} of {count} backends active") }
}

fn troubles(handle: &Handle) -> String {
    let board = handle.board();
    let refused = if board.trouble().is_some() { "; configuration file refused" } else { "" };
    let restart = if board.shown().restart_required.is_empty() { "" } else { "; restart required" };
    format!("{refused}{restart}")
}
