//! `speedmimi-bench origin`: a lean backend that answers with bodies of the size in the path and checks what it gets.
//!
//! Owns its threads, the counts of violations and what is spoilt on purpose. Never trusts that the proxy
//! in front of it is right: a request that is malformed, or lacks what a proxy adds, is counted.

mod answers;
mod http2;
mod worker;

use crate::amount;
use crate::cert::Pair;
use crate::error::{Error, Result, Trying};
use crate::net;
use crate::tls::ServerSide;
use rustix::event::{EventfdFlags, eventfd};
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How the origin behaves.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Address to listen on; port 0 lets the system choose
    #[arg(long, default_value = "127.0.0.1:8081")]
    pub listen: SocketAddr,
    /// Threads, each with a listener of its own (SO_REUSEPORT)
    #[arg(long, short = 't', default_value_t = 1)]
    pub threads: usize,
    /// A descriptor table of its own for each thread: as many connections again as RLIMIT_NOFILE allows. What this
    /// process has open when it starts stays open until it ends
    #[arg(long)]
    pub private_tables: bool,
    /// Count a violation when X-Forwarded-For or X-Forwarded-Proto is missing, doubled or no address or scheme
    #[arg(long)]
    pub expect_forwarded: bool,
    /// Answer so much later
    #[arg(long, default_value = "0s", value_parser = amount::duration)]
    pub delay: Duration,
    /// Spoil every N-th answer; 0: none
    #[arg(long, default_value_t = 0)]
    pub fail_every: u64,
    /// How it is spoilt
    #[arg(long, value_enum, default_value_t = Spoil::Status)]
    pub fail_with: Spoil,
    /// Speak TLS, with a certificate made at start unless one is given
    #[arg(long)]
    pub tls: bool,
    /// The certificate (PEM); `speedmimi-bench cert` makes one
    #[arg(long, value_name = "FILE", requires_all = ["tls", "key"])]
    pub cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Speak HTTP/2, too: over TLS by ALPN, in the clear with prior knowledge; gRPC calls get their message back
    #[arg(long)]
    pub http2: bool,
    /// Streams of one connection of HTTP/2 at once
    #[arg(long, default_value_t = 1000)]
    pub max_streams: u32,
}

impl Default for Options {
    /// Any free port, one thread, nothing spoilt, HTTP/1.1 in the clear.
    fn default() -> Self {
        Options {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            threads: 1,
            private_tables: false,
            expect_forwarded: false,
            delay: Duration::ZERO,
            fail_every: 0,
            fail_with: Spoil::Status,
            tls: false,
            cert: None,
            key: None,
            http2: false,
            max_streams: 1000,
        }
    }
}

impl Options {
    fn server_side(&self) -> Result<Option<ServerSide>> {
        if !self.tls {
            return Ok(None);
        }
        let pair = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Pair::read(cert, key)?,
            _ => Pair::generate()?,
        };
        let protocols: &[&str] = if self.http2 { &["h2", "http/1.1"] } else { &["http/1.1"] };
        ServerSide::new(&pair, protocols).map(Some)
    }
}

/// How an answer is spoilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Spoil {
    /// A 500.
    Status,
    /// The right length, one byte of the body wrong.
    Body,
    /// The connection is closed instead.
    Close,
    /// Something that is not HTTP.
    Garbage,
}

/// What was counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Connections accepted.
    pub connections: u64,
    /// Requests for a body, well-formed ones.
    pub requests: u64,
    /// Answers spoilt on purpose.
    pub spoilt: u64,
    /// WebSocket upgrades.
    pub upgrades: u64,
    /// Requests that break RFC 9112 or are ambiguous.
    pub malformed: u64,
    /// Requests without one good `X-Forwarded-For`, when it is expected.
    pub no_forwarded_for: u64,
    /// Requests without one good `X-Forwarded-Proto`, when it is expected.
    pub no_forwarded_proto: u64,
    /// Requests that are not answered yet.
    #[serde(default)]
    pub in_flight: u64,
    /// The most of them at once so far.
    #[serde(default)]
    pub in_flight_max: u64,
    /// Requests whose delay is not over, whether somebody waits for the answer or not: what a backend that does not
    /// notice that would be working on.
    #[serde(default)]
    pub working: u64,
    /// The most of them at once so far.
    #[serde(default)]
    pub working_max: u64,
    /// Requests that were given up before they were answered: their connection ended, or their stream was reset.
    #[serde(default)]
    pub abandoned: u64,
}

impl Stats {
    /// Requests that no proxy may send, in all.
    pub fn violations(&self) -> u64 {
        self.malformed + self.no_forwarded_for + self.no_forwarded_proto
    }
}

#[derive(Default)]
struct Counters {
    connections: AtomicU64,
    requests: AtomicU64,
    spoilt: AtomicU64,
    upgrades: AtomicU64,
    malformed: AtomicU64,
    no_forwarded_for: AtomicU64,
    no_forwarded_proto: AtomicU64,
    in_flight: AtomicU64,
    in_flight_max: AtomicU64,
    working: AtomicU64,
    working_max: AtomicU64,
    abandoned: AtomicU64,
}

impl Counters {
    fn stats(&self) -> Stats {
        Stats {
            connections: self.connections.load(Relaxed),
            requests: self.requests.load(Relaxed),
            spoilt: self.spoilt.load(Relaxed),
            upgrades: self.upgrades.load(Relaxed),
            malformed: self.malformed.load(Relaxed),
            no_forwarded_for: self.no_forwarded_for.load(Relaxed),
            no_forwarded_proto: self.no_forwarded_proto.load(Relaxed),
            in_flight: self.in_flight.load(Relaxed),
            in_flight_max: self.in_flight_max.load(Relaxed),
            working: self.working.load(Relaxed),
            working_max: self.working_max.load(Relaxed),
            abandoned: self.abandoned.load(Relaxed),
        }
    }

    /// The same; the most in flight is counted anew.
    fn stats_anew(&self) -> Stats {
        let stats = self.stats();
        self.in_flight_max.store(stats.in_flight, Relaxed);
        self.working_max.store(stats.working, Relaxed);
        stats
    }

    /// A request is whole.
    fn begin(&self) {
        self.in_flight_max.fetch_max(bump(&self.in_flight), Relaxed);
    }

    /// An answer will be due.
    fn begin_work(&self) {
        self.working_max.fetch_max(bump(&self.working), Relaxed);
    }

    /// It is due, whether somebody waits for it or not.
    fn end_work(&self) {
        self.working.fetch_sub(1, Relaxed);
    }

    /// Its answer begins.
    fn end(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// Nobody waits for its answer any more.
    fn abandon(&self) {
        self.end();
        bump(&self.abandoned);
    }
}

fn bump(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Relaxed) + 1
}

/// Asks an origin in another process what it counted.
///
/// # Errors
/// When it does not answer.
pub fn ask_stats(address: SocketAddr) -> Result<Stats> {
    ask_for(address, "/stats")
}

/// The same; the most in flight is counted anew.
///
/// # Errors
/// When it does not answer.
pub fn ask_stats_anew(address: SocketAddr) -> Result<Stats> {
    ask_for(address, "/stats/anew")
}

fn ask_for(address: SocketAddr, path: &str) -> Result<Stats> {
    let ask = || -> std::io::Result<Stats> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: origin\r\nConnection: close\r\n\r\n").as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let body = crate::http::fields::head_end(&answer, 0).unwrap_or(answer.len());
        Ok(serde_json::from_slice(&answer[body..])?)
    };
    ask().trying(|| "asking the origin what it counted".into())
}

/// A running origin; it stops when this is dropped.
pub struct Origin {
    address: SocketAddr,
    scheme: &'static str,
    counters: Arc<Counters>,
    stop: Arc<AtomicBool>,
    wakers: Vec<OwnedFd>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Origin {
    /// Starts listening and serving.
    ///
    /// # Errors
    /// When the address can't be bound or the options make no sense.
    pub fn start(options: &Options) -> Result<Origin> {
        if !(1..=256).contains(&options.threads) {
            return Err(Error::Usage(format!("--threads {}: outside 1..=256", options.threads)));
        }
        let side = options.server_side()?;
        net::descriptors_max();
        let first = net::listen(options.listen, true)?;
        let address = net::local_address(&first)?;
        let mut listeners = vec![first];
        for _ in 1..options.threads {
            listeners.push(net::listen(address, true)?);
        }
        let mut origin = Origin {
            address,
            scheme: if options.tls { "https" } else { "http" },
            counters: Arc::default(),
            stop: Arc::default(),
            wakers: Vec::new(),
            threads: Vec::new(),
        };
        for listener in listeners {
            let waker = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).trying(|| "eventfd".into())?;
            origin.wakers.push(waker.try_clone().trying(|| "dup".into())?);
            let (counters, stop) = (Arc::clone(&origin.counters), Arc::clone(&origin.stop));
            let manner = (options.clone(), side.clone());
            origin.threads.push(thread::spawn(move || worker::run(manner, listener, waker, counters, &stop)));
        }
        Ok(origin)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens, as a URL.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// What was counted so far.
    pub fn stats(&self) -> Stats {
        self.counters.stats()
    }

    /// Serves until a thread fails.
    ///
    /// # Errors
    /// Why it failed.
    pub fn serve(mut self) -> Result<()> {
        for thread in std::mem::take(&mut self.threads) {
            thread.join().map_err(|_| Error::Failed("an origin thread panicked".into()))??;
        }
        Ok(())
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for waker in &self.wakers {
            // It can only be full, and then the thread wakes anyway.
            let _ = rustix::io::write(waker, &1u64.to_ne_bytes());
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
