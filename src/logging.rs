//! The proxy's own log: what level, what format, and that writing it never holds a worker up.
//!
//! Owns the subscriber. Lines go through a bounded channel to a thread that writes them to standard error; when it can't
//! keep up, lines are dropped and their number is told with the next that is written.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry};

use crate::config::plan::{Log, LogFormat, LogLevel};

/// Lines that may wait.
const LINES_MAX: usize = 4096;
/// How long the end of the program waits for the writer.
const PATIENCE: Duration = Duration::from_millis(500);

static LEVEL: AtomicU8 = AtomicU8::new(2);
/// Lines handed over and lines written, so that the last ones are not lost at the end.
static HANDED: AtomicU64 = AtomicU64::new(0);
static WRITTEN: AtomicU64 = AtomicU64::new(0);

/// Starts logging as `log` says. Later calls change only the level.
pub fn start(log: &Log) {
    set_level(log.level);
    let (sender, lines) = sync_channel(LINES_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    let lost = dropped.clone();
    let thread = std::thread::Builder::new().name("log".into()).spawn(move || write(&lines, &lost));
    if thread.is_err() {
        return;
    }
    let writer = Channel { sender, dropped };
    // Asked once for each place in the code, and again when the level changes. Asked each time, the spans that the HTTP/2
    // codec opens by the dozen for a request would cost as much as the request.
    let is_enabled = tracing_subscriber::filter::filter_fn(|metadata| *metadata.level() <= level());
    let layer = match log.format {
        LogFormat::Text => {
            tracing_subscriber::fmt::layer().with_target(false).with_ansi(false).with_writer(writer).boxed()
        }
        LogFormat::Json => {
            tracing_subscriber::fmt::layer().json().flatten_event(true).with_target(false).with_writer(writer).boxed()
        }
    };
    // A second start in one process (tests) keeps the first subscriber.
    let _ = tracing::subscriber::set_global_default(Registry::default().with(layer.with_filter(is_enabled)));
}

/// Waits until what was logged is written, for half a second at most.
pub fn finish() {
    let began = Instant::now();
    while WRITTEN.load(Ordering::Acquire) < HANDED.load(Ordering::Acquire) && began.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Changes the level while running.
pub fn set_level(level: LogLevel) {
    LEVEL.store(level as u8, Ordering::Relaxed);
    tracing::callsite::rebuild_interest_cache();
}

fn level() -> LevelFilter {
    match LEVEL.load(Ordering::Relaxed) {
        0 => LevelFilter::ERROR,
        1 => LevelFilter::WARN,
        2 => LevelFilter::INFO,
        3 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    }
}

fn write(lines: &Receiver<Vec<u8>>, dropped: &AtomicU64) {
    while let Ok(line) = lines.recv() {
        let mut out = io::stderr().lock();
        // Nobody is left to tell when standard error is gone.
        let _ = out.write_all(&line);
        WRITTEN.fetch_add(1, Ordering::Release);
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(out, "{lost} lines of log were dropped: standard error was not read fast enough");
        }
    }
}

#[derive(Clone)]
struct Channel {
    sender: SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

impl<'a> MakeWriter<'a> for Channel {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { bytes: Vec::new(), channel: self.clone() }
    }
}

/// One line, sent when it is complete.
struct Line {
    bytes: Vec<u8>,
    channel: Channel,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        HANDED.fetch_add(1, Ordering::Release);
        if self.channel.sender.try_send(std::mem::take(&mut self.bytes)).is_err() {
            HANDED.fetch_sub(1, Ordering::Release);
            self.channel.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}
