//! The proxy in-process, on a port of its own: the one file that knows how it is configured and started.
//!
//! Owns the keys that every test wants and the end of the proxy. Never looks inside it.

use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use speedmimi::config::ConfigFault;
use speedmimi::config::document::Document;
use speedmimi::control::board::Board;
use speedmimi::control::watch::Watch;
use speedmimi::server::{self, Handle, Start, StartError};
use speedmimi::shared::stats::Totals;

use crate::client::Client;
use crate::origin::{Origin, WATCHDOG};

/// What tests want where they don't say otherwise: one worker, so that pools and rotations are predictable; hardly
/// a wait for clients at the end.
const SERVER: &[(&str, &str)] = &[
    ("host", "127.0.0.1"),
    ("port", "0"),
    ("workers", "1"),
    ("max_conn", "4096"),
    ("fd_tables", "shared"),
    ("shutdown_timeout", "1s"),
];

/// A running proxy; dropping it ends it.
pub struct Proxy {
    handle: Option<Handle>,
}

impl Proxy {
    /// Starts with lines of the `server` section (they replace the harness's own) and all other sections as they are.
    pub fn start(server: &[(&str, &str)], sections: &str) -> Proxy {
        Proxy::try_start(server, sections).unwrap_or_else(|e| panic!("starting the proxy: {e}"))
    }

    /// As [`Proxy::start`], where starting may fail.
    pub fn try_start(server: &[(&str, &str)], sections: &str) -> Result<Proxy, StartError> {
        Ok(Proxy { handle: Some(server::start(document(server, sections))?) })
    }

    /// By a file, in which management has to be on; changes are written to it.
    pub fn from_file(path: &Path) -> Proxy {
        let text = std::fs::read_to_string(path).expect("a configuration file");
        let document = checked(&text);
        let start = Start { file: Some((path.to_owned(), text)), ..Start::from(document) };
        let handle = server::start(start).unwrap_or_else(|e| panic!("starting the proxy: {e}"));
        Proxy { handle: Some(handle) }
    }

    /// Where management is served.
    pub fn management(&self) -> SocketAddr {
        self.handle().management().expect("management that is on")
    }

    /// As SIGHUP does.
    pub fn reload_file(&self) {
        self.handle().reload_file();
    }

    /// What management looks at.
    pub fn board(&self) -> &Board {
        self.handle().board()
    }

    /// One route to one origin.
    pub fn before(origin: &Origin) -> Proxy {
        Proxy::start(&[], &sections(origin, "", ""))
    }

    fn handle(&self) -> &Handle {
        self.handle.as_ref().expect("a proxy that runs")
    }

    /// Client connections open at each worker.
    pub fn connections_by_worker(&self) -> Vec<u64> {
        self.handle().worker_stats().iter().map(|stats| stats.connections_active.get()).collect()
    }

    /// Where the first listener listens.
    pub fn addr(&self) -> SocketAddr {
        self.handle().addr(0).expect("a TCP listener")
    }

    /// A new connection to it.
    pub fn client(&self) -> Client {
        Client::connect(self.addr())
    }

    /// Puts another plan in place; the keys that keep their old values until a restart.
    pub fn reload(&mut self, server: &[(&str, &str)], sections: &str) -> Vec<&'static str> {
        let handle = self.handle.as_ref().expect("a proxy that runs");
        handle.reload(document(server, sections)).unwrap_or_else(|e| panic!("reloading: {e}")).restart_required
    }

    /// Its figures of the last seconds.
    pub fn watch(&self) -> &Watch {
        &self.handle().board().watch
    }

    /// What it has counted so far.
    pub fn stats(&self) -> Totals {
        self.handle().stats()
    }

    /// Waits until its counts are so; fails after [`WATCHDOG`] with what they are.
    pub fn wait_until(&self, what: &str, done: impl Fn(&Totals) -> bool) {
        let since = Instant::now();
        loop {
            let totals = self.stats();
            if done(&totals) {
                return;
            }
            let open = self.handle().open();
            assert!(since.elapsed() < WATCHDOG, "waited {WATCHDOG:?} for {what}; {open} open; counts: {totals:?}");
            // Counts can only be asked for; on a busy machine the proxy's threads need the turn more than this one.
            thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// Waits until so many client connections are open.
    pub fn wait_for_open(&self, n: u64) {
        self.wait_until(&format!("{n} open connections"), |_| self.handle().open() == n);
    }

    /// Stops accepting and lets what runs finish.
    pub fn drain(&self) {
        self.handle().drain();
    }

    /// Drains and ends it; returns when it is over.
    pub fn shutdown(mut self) {
        if let Some(handle) = self.handle.take() {
            handle.shutdown();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            handle.stop();
        }
    }
}

/// Sections `backends`, `upstreams` and `routing` for one origin; `backend` and `upstream` are further keys of each, in
/// YAML's flow form, e.g. `max_conn: 1`.
pub fn sections(origin: &Origin, backend: &str, upstream: &str) -> String {
    let port = origin.port();
    format!(
        "backends: {{default: [{{host: 127.0.0.1, port: {port}, {backend}}}]}}\n\
         upstreams: {{default: {{{upstream}}}}}\n\
         routing: {{default: {{upstream: default}}}}\n"
    )
}

/// As [`sections`] for several origins, named `b0`, `b1` and so on, with further keys of each; `route` is keys of the
/// route.
pub fn balanced(origins: &[(&Origin, &str)], upstream: &str, route: &str) -> String {
    let backend = |(at, (origin, keys)): (usize, &(&Origin, &str))| {
        format!("{{id: b{at}, host: 127.0.0.1, port: {}, {keys}}}", origin.port())
    };
    let backends: Vec<String> = origins.iter().enumerate().map(backend).collect();
    format!(
        "backends: {{default: [{}]}}\nupstreams: {{default: {{{upstream}}}}}\n\
         routing: {{default: {{upstream: default, {route}}}}}\n",
        backends.join(", ")
    )
}

fn document(server: &[(&str, &str)], sections: &str) -> Document {
    let own = SERVER.iter().filter(|(key, _)| !server.iter().any(|(other, _)| other == key));
    let lines: String = own.chain(server).map(|(key, value)| format!("  {key}: {value}\n")).collect();
    // Management has a fixed port by default.
    let is_given = sections.lines().any(|line| line.starts_with("grpc:"));
    let management = if is_given { "" } else { "grpc: {enabled: false}\n" };
    let text = format!("server:\n{lines}{management}{sections}");
    checked(&text)
}

fn checked(text: &str) -> Document {
    let faults = |faults: Vec<ConfigFault>| {
        let list: Vec<String> = faults.iter().map(ToString::to_string).collect();
        panic!("{text}\n{}", list.join("\n"))
    };
    Document::from_text(text, "test.yaml", |_| None).unwrap_or_else(faults)
}
