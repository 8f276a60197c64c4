//! The clients of one thread, of whichever protocol, and what they are to ask.
//!
//! Owns the choice between HTTP/1.1 and HTTP/2. Never knows more of either than their making.

use crate::conns::{self, Connections, Expect, Handshakes, Script};
use crate::error::{Error, Result};
use crate::h2;
use crate::h2::hpack::Blocks;
use crate::streams::Streams;
use crate::target::Target;
use crate::tls::{self, ClientSide};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How to speak to a target.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub struct Speech {
    /// HTTP/2: over TLS by ALPN, in the clear with prior knowledge
    #[arg(long)]
    pub http2: bool,
    /// What has to do with TLS.
    #[command(flatten)]
    pub tls: tls::Options,
}

impl Speech {
    /// What all connections to a target have in common, when they have TLS.
    ///
    /// # Errors
    /// When there is nothing to trust.
    pub fn client_side(&self, target: &Target) -> Result<Option<ClientSide>> {
        let protocol = if self.http2 { "h2" } else { "http/1.1" };
        target.tls.then(|| ClientSide::new(&self.tls, &target.name(), &[protocol])).transpose()
    }
}

/// One request and its good answer.
#[derive(Clone, Debug)]
pub enum Ask {
    /// `GET`, answered with 200 and these bytes.
    Get {
        /// The path.
        path: String,
        /// The expected body.
        expect: Vec<u8>,
        /// Whether the connection ends with the answer.
        last: bool,
    },
    /// A unary gRPC call whose message comes back. HTTP/2 only.
    Call {
        /// The message.
        message: Vec<u8>,
    },
}

impl Ask {
    fn http1(&self, target: &Target) -> Result<conns::Job> {
        let Ask::Get { path, expect, last } = self else {
            return Err(Error::Usage("gRPC needs --http2".into()));
        };
        let close = if *last { "Connection: close\r\n" } else { "" };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: speedmimi-bench\r\nAccept: */*\r\n{close}\r\n",
            target.host
        );
        let expect = Expect::Answer { status: 200, body: expect.clone() };
        Ok(conns::Job { request: request.into_bytes(), expect })
    }

    fn http2(&self, target: &Target) -> h2::client::Job {
        let head = |method: &str, path: &str, rest: &[(&str, &str)]| {
            let first =
                [(":method", method), (":scheme", target.scheme()), (":path", path), (":authority", &target.host)];
            let all = first.iter().chain([&("user-agent", "speedmimi-bench")]).chain(rest);
            Blocks::new(&all.map(|&(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>())
        };
        match self {
            Ask::Get { path, expect, .. } => h2::client::Job {
                blocks: head("GET", path, &[("accept", "*/*")]),
                body: Vec::new(),
                status: 200,
                expect: expect.clone(),
                grpc: false,
            },
            Ask::Call { message } => {
                // Not compressed, then its length.
                let mut body = vec![0];
                body.extend_from_slice(&(message.len() as u32).to_be_bytes());
                body.extend_from_slice(message);
                let fields = [("content-type", "application/grpc"), ("te", "trailers")];
                h2::client::Job {
                    blocks: head("POST", "/speedmimi.bench.Echo/Unary", &fields),
                    expect: body.clone(),
                    body,
                    status: 200,
                    grpc: true,
                }
            }
        }
    }
}

/// The clients of one thread.
pub enum Clients {
    /// A slot is a connection.
    Http1(Connections),
    /// A slot is a stream.
    Http2(Streams),
}

/// How many of them.
#[derive(Clone, Copy, Debug)]
pub struct Count {
    /// Connections.
    pub conns: usize,
    /// Streams of each; 1 with HTTP/1.1.
    pub streams: usize,
}

impl Clients {
    /// Closed ones.
    ///
    /// # Errors
    /// When no descriptor is left, or the protocol can't ask this.
    pub fn new(
        target: &Target,
        speech: &Speech,
        side: Option<ClientSide>,
        count: Count,
        asks: &[Ask],
        timeout: Duration,
    ) -> Result<Clients> {
        if speech.http2 {
            let jobs = asks.iter().map(|ask| ask.http2(target)).collect();
            let count = (count.conns, count.streams);
            return Ok(Clients::Http2(Streams::new(target.address, side, count, jobs, timeout)?));
        }
        let jobs = asks.iter().map(|ask| ask.http1(target)).collect::<Result<_>>()?;
        Ok(Clients::Http1(Connections::new(target.address, side, count.conns, jobs, timeout)?))
    }

    /// Starts to open a closed slot.
    pub fn open<S: Script>(&mut self, slot: usize, source: Option<IpAddr>, script: &mut S) {
        match self {
            Clients::Http1(conns) => conns.open(slot, source, script),
            Clients::Http2(streams) => streams.open(slot, source, script),
        }
    }

    /// Asks on an open slot that has no request under way.
    pub fn ask<S: Script>(&mut self, slot: usize, job: usize, script: &mut S) {
        match self {
            Clients::Http1(conns) => conns.ask(slot, job, script),
            Clients::Http2(streams) => streams.ask(slot, job),
        }
    }

    /// Waits for events, at most so long, and tells the script.
    ///
    /// # Errors
    /// When waiting fails.
    pub fn poll<S: Script>(&mut self, wait: Duration, script: &mut S) -> Result<()> {
        match self {
            Clients::Http1(conns) => conns.poll(wait, script),
            Clients::Http2(streams) => streams.poll(wait, script),
        }
    }

    /// Ends what has been under way for longer than the timeout.
    pub fn expire<S: Script>(&mut self, now: Instant, script: &mut S) {
        match self {
            Clients::Http1(conns) => conns.expire(now, script),
            Clients::Http2(streams) => streams.expire(now, script),
        }
    }

    /// The handshakes so far.
    pub fn handshakes(&self) -> Handshakes {
        match self {
            Clients::Http1(conns) => conns.handshakes(),
            Clients::Http2(streams) => streams.handshakes(),
        }
    }
}
