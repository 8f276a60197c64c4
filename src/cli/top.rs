//! `speedmimi top`: the figures of a running proxy in a terminal, live.
//!
//! Owns the options and what keys, news and signals lead to. Only looks: nothing here changes a proxy.

pub mod events;
pub mod feed;
pub mod figures;
pub mod history;
pub mod picture;
pub mod rows;
pub mod say;
pub mod target;
pub mod terminal;
pub mod view;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::Event;
use ratatui::layout::Rect;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{self, Receiver};

use self::feed::{News, Trouble};
use self::picture::Ink;
use self::target::Target;
use self::terminal::Screen;
use self::view::{Page, View, Wish};
use super::{ExitStatus, check};
use crate::config::file::TOKEN_VARIABLE;
use crate::config::load;
use crate::config::plan::Secret;

/// Columns of a picture that goes to no terminal.
const TEXT_COLUMNS: u16 = 80;
/// Between two pictures, where nothing happens: the age of old figures goes on.
const TICK: Duration = Duration::from_secs(1);

/// Its part of the command line.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Where management listens
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9091")]
    url: String,
    /// Take address and token from this configuration instead
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    config: Option<PathBuf>,
    /// File whose first line is the token; without it SPEEDMIMI_TOKEN is used
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// The token itself; other users of this machine can see it in the list of processes: --token-file is better
    #[arg(long, value_name = "TOKEN", value_parser = secret, hide_default_value = true)]
    token: Option<Secret>,
    /// Print the figures once, as text, and end; needs no terminal
    #[arg(long)]
    once: bool,
    /// With --once: print them as JSON, as they came
    #[arg(long, requires = "once")]
    json: bool,
}

fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text))
}

/// Shows the figures until a key or a signal ends it, or once.
///
/// Ends with [`ExitStatus::Usage`] without a terminal or with a URL that makes no sense, with [`ExitStatus::BadConfig`]
/// for a configuration with faults, with [`ExitStatus::Failed`] when management turns it away, and, with `--once`, when
/// it can't be reached.
///
/// # Errors
/// Those of the terminal and of writing to `out`.
pub fn run(options: &Options, out: &mut impl Write) -> io::Result<ExitStatus> {
    let target = match target(options) {
        Ok(target) => target,
        Err((status, told)) => return refuse(&told, status),
    };
    if options.once {
        return once(&target, options.json, out);
    }
    if !terminal::is_there() {
        let told = "top needs a terminal; `speedmimi top --once` prints the figures without one (--json: for programs)";
        return refuse(told, ExitStatus::Usage);
    }
    live(target)
}

/// Tells why it goes no further.
fn refuse(told: &str, status: ExitStatus) -> io::Result<ExitStatus> {
    writeln!(io::stderr(), "speedmimi: {}", told.trim_end())?;
    Ok(status)
}

/// Whom to ask, by the options, the configuration and the environment.
fn target(options: &Options) -> Result<Target, (ExitStatus, String)> {
    let usage = |told: String| (ExitStatus::Usage, told);
    let (target, configured) = match &options.config {
        Some(path) => configured(path)?,
        None => {
            let token = load::variable(TOKEN_VARIABLE).filter(|token| !token.is_empty()).map(Secret::new);
            (Target::from_url(&options.url).map_err(usage)?, token)
        }
    };
    let token = match (&options.token, &options.token_file) {
        (Some(token), _) => Some(token.clone()),
        (None, Some(path)) => Some(target::read_token(path, "--token-file").map_err(usage)?),
        (None, None) => configured,
    };
    match token {
        Some(token) => target.with_token(&token).map_err(usage),
        None => Ok(target),
    }
}

fn configured(path: &std::path::Path) -> Result<(Target, Option<Secret>), (ExitStatus, String)> {
    let (_, document) = load::load(path).map_err(|faults| {
        let mut told = Vec::new();
        // Writing to memory doesn't fail.
        let _ = check::print_faults(&faults, &mut told);
        (ExitStatus::BadConfig, String::from_utf8_lossy(&told).into_owned())
    })?;
    let failed = |told: String| (ExitStatus::Failed, told);
    let off = || failed(format!("{}: grpc.enabled is false: there is nothing to ask", path.display()));
    let conf = document.plan().management.as_ref().ok_or_else(off)?;
    Ok((Target::from_configuration(conf).map_err(failed)?, target::token_of(conf).map_err(failed)?))
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Ends the runtime without waiting for a name that is still being resolved.
fn block_on<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let runtime = runtime()?;
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    Ok(done)
}

fn once(target: &Target, is_json: bool, out: &mut impl Write) -> io::Result<ExitStatus> {
    let told = block_on(feed::first(target))?.and_then(|event| Ok((feed::figures(&event)?, event)));
    let (figures, event) = match told {
        Ok(told) => told,
        Err(trouble) => return refuse(&turned_away(target, &trouble), ExitStatus::Failed),
    };
    if is_json {
        out.write_all(&event)?;
        writeln!(out)?;
    } else {
        let mut view = View::new(target.to_string());
        view.take(News::Figures(figures), Instant::now());
        out.write_all(picture::text(&view, TEXT_COLUMNS).as_bytes())?;
    }
    out.flush()?;
    Ok(ExitStatus::Fine)
}

fn turned_away(target: &Target, trouble: &Trouble) -> String {
    format!("{target}: {trouble}")
}

fn live(target: Target) -> io::Result<ExitStatus> {
    let end = block_on(async {
        let signals = Signals::new()?;
        let (sender, news) = mpsc::channel(1);
        let view = View::new(target.to_string());
        let follower = tokio::spawn(feed::follow(target.clone(), sender));
        let end = watch(view, news, signals).await;
        follower.abort();
        end
    })??;
    // By now the terminal is as it was.
    match end {
        End::Wished => Ok(ExitStatus::Fine),
        End::TurnedAway(trouble) => refuse(&turned_away(&target, &trouble), ExitStatus::Failed),
        End::Gone => Ok(ExitStatus::Failed),
    }
}

/// Why it ends.
enum End {
    /// By a key or a signal.
    Wished,
    /// Trying again can't help.
    TurnedAway(Trouble),
    /// There is no terminal any more.
    Gone,
}

/// Draws whenever something happened.
async fn watch(mut view: View, mut news: Receiver<News>, mut signals: Signals) -> io::Result<End> {
    let ink = Ink::from_environment();
    let mut screen = Screen::open()?;
    let mut inputs = terminal::inputs()?;
    let mut tick = tokio::time::interval(TICK);
    loop {
        let now = Instant::now();
        let drawn = screen.draw(|area: Rect, buf| picture::draw(&view, ink, now, area, buf))?;
        view.settle(drawn.unwrap_or(Page::default()));
        tokio::select! {
            told = news.recv() => match told {
                Some(News::Lost(trouble)) if !trouble.may_pass() => return Ok(End::TurnedAway(trouble)),
                Some(told) => view.take(told, Instant::now()),
                None => return Ok(End::Gone),
            },
            input = inputs.recv() => match input {
                Some(Event::Key(key)) if view.press(key) == Wish::Quit => return Ok(End::Wished),
                Some(_) => {}
                None => return Ok(End::Gone),
            },
            _ = tick.tick() => if terminal::is_gone() {
                return Ok(End::Gone);
            },
            () = signals.any() => return Ok(End::Wished),
        }
    }
}

/// Those that end it in order.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
