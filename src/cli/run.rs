//! `speedmimi run`: the proxy by a configuration file, until a signal ends it.
//!
//! Owns signals and what is printed at the start. Never touches a connection.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::report::Reporter;
use super::{ExitStatus, check};
use crate::config::load;
use crate::control::change::ChangeError;
use crate::error::Reason;
use crate::logging;
use crate::park::shelf::Size;
use crate::server::{self, Handle, Start, StartError};
use crate::service::Service;

/// Runs by the named file, or the one that is found.
///
/// # Errors
/// Those of writing to `out`.
pub fn run(path: Option<&Path>, out: &mut impl Write) -> io::Result<ExitStatus> {
    let mut service = Service::take();
    let loaded = load::find(path).and_then(|path| load::load(&path).map(|loaded| (path, loaded)));
    let (path, (text, document)) = match loaded {
        Ok(loaded) => loaded,
        Err(faults) => {
            check::print_faults(&faults, out)?;
            return Ok(ExitStatus::BadConfig);
        }
    };
    logging::start(&document.plan().log);
    document.notices().iter().for_each(|notice| tracing::warn!("{notice}"));
    service.notices.iter().for_each(|notice| tracing::warn!("{notice}"));
    let given = match std::mem::take(&mut service.given).look() {
        Ok(given) => given,
        Err(fault) => {
            tracing::error!("{fault}");
            return Ok(ExitStatus::BadConfig);
        }
    };
    serve(Start { document, file: Some((path, text)), given }, service, |_| Ok(()))
}

/// Starts, tells `service`, calls `started`, and serves until a signal ends it.
///
/// # Errors
/// Those of `started`.
pub fn serve(
    start: Start,
    service: Service,
    started: impl FnOnce(&Handle) -> io::Result<()>,
) -> io::Result<ExitStatus> {
    // The kernel's collapsing of small pages into huge ones fills in again what was given back after a burst: measured,
    // an idle process grew from 31 to 66 MB by itself. What is hot here is small, huge pages would not speed it up.
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "transparent huge pages stay on");
    }
    // Before the server starts: the signal pipe has to have its place in every descriptor table.
    let signals = runtime().and_then(|runtime| Ok((Signals::new(&runtime)?, runtime)));
    let (signals, runtime) = match signals {
        Ok(signals) => signals,
        Err(error) => return failed(&error),
    };
    let handle = match server::start(start) {
        Ok(handle) => handle,
        Err(StartError::Change(ChangeError::Tls(faults))) => {
            faults.iter().for_each(|fault| tracing::error!("{fault}"));
            return Ok(ExitStatus::BadConfig);
        }
        Err(StartError::Given(faults)) => {
            faults.iter().for_each(|fault| tracing::error!("{fault}"));
            return Ok(ExitStatus::BadConfig);
        }
        Err(error) => return failed(&error),
    };
    tell(&handle);
    started(&handle)?;
    let reporter = Reporter::begin(service, &handle);
    runtime.block_on(signals.obey(handle, reporter));
    Ok(ExitStatus::Fine)
}

fn failed(error: &dyn std::fmt::Display) -> io::Result<ExitStatus> {
    tracing::error!("{error}");
    Ok(ExitStatus::Failed)
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

fn tell(handle: &Handle) {
    let d = handle.descriptors();
    let listen: Vec<String> = handle.addresses().iter().map(ToString::to_string).collect();
    let tables = match (d.is_private, d.shelf == Size::NONE) {
        (false, _) => "one table",
        (true, true) => "one table a worker",
        (true, false) => "one table a worker, idle connections beside it",
    };
    tracing::info!(
        listen = listen.join(" "),
        workers = handle.workers(),
        descriptors = d.limit,
        tables,
        max_conn = d.clients_max,
        management = handle.management().map(|addr| format!("http://{addr}/")).unwrap_or_else(|| "off".to_owned()),
        "speedmimi {} is running",
        super::VERSION
    );
}

struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
    user1: Signal,
}

impl Signals {
    fn new(runtime: &Runtime) -> io::Result<Signals> {
        let _inside = runtime.enter();
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            user1: signal(SignalKind::user_defined1())?,
        })
    }

    async fn obey(mut self, handle: Handle, mut reporter: Reporter) {
        loop {
            tokio::select! {
                _ = self.hangup.recv() => {
                    reporter.reload();
                    handle.reload_file();
                }
                () = reporter.due() => reporter.beat(&handle),
                _ = self.user1.recv() => handle.reopen_logs(),
                _ = self.interrupt.recv() => break,
                _ = self.terminate.recv() => break,
            }
        }
        self.finish(handle, reporter).await;
    }

    /// Drains; a second signal ends at once.
    async fn finish(mut self, handle: Handle, mut reporter: Reporter) {
        let delay = handle.shutdown_delay();
        handle.retire();
        reporter.stop(&handle);
        tracing::info!(?delay, "stopping: running requests may finish; a second signal ends at once");
        let drain_at = tokio::time::Instant::now() + delay;
        let mut is_hurried = false;
        let mut is_draining = false;
        while !is_hurried && !is_draining {
            tokio::select! {
                () = tokio::time::sleep_until(drain_at) => is_draining = true,
                () = reporter.due() => reporter.beat(&handle),
                _ = self.interrupt.recv() => is_hurried = true,
                _ = self.terminate.recv() => is_hurried = true,
            }
        }
        if is_draining {
            handle.drain();
        }
        let began = Instant::now();
        while !is_hurried && !handle.is_finished() {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
                () = reporter.due() => reporter.beat(&handle),
                _ = self.interrupt.recv() => break,
                _ = self.terminate.recv() => break,
            }
        }
        let cut = handle.stop().reasons.of(Reason::Shutdown);
        tracing::info!(after = ?began.elapsed(), cut, "stopped");
    }
}
