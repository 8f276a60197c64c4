//! The clients of one thread, of whichever protocol, and what they are to ask.
//!
//! Owns the choice between HTTP/1.1, HTTP/2 and event streams. Never knows more of them than their making.

use crate::conns::{self, Connections, Expect, Handshakes, Script};
use crate::error::{Error, Result};
use crate::events::Subscriptions;
use crate::h2;
use crate::h2::hpack::Blocks;
use crate::streams::Streams;
use crate::target::Target;
use crate::tls::{self, ClientSide};
use crate::websocket;
use std::fmt::Write as _;
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

/// The `Sec-WebSocket-Key` of every upgrade; nothing here depends on its being new each time.
const WEBSOCKET_KEY: &str = "c3BlZWRtaW1pLWJlbmNoIQ==";
/// The mask of every frame.
const MASK: [u8; 4] = [0x21, 0x43, 0x65, 0x87];

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
    /// Any request.
    Order(Order),
    /// An upgrade to WebSocket, answered with 101. HTTP/1.1 only.
    Upgrade {
        /// The path.
        path: String,
        /// Further fields.
        headers: Vec<(String, String)>,
    },
    /// A frame, after an upgrade, that comes back.
    Echo {
        /// What is in it.
        payload: Vec<u8>,
    },
    /// A unary gRPC call whose message comes back. HTTP/2 only.
    Call {
        /// The message.
        message: Vec<u8>,
    },
}

/// A request in full.
#[derive(Clone, Debug)]
pub struct Order {
    /// Its method; not HEAD or CONNECT.
    pub method: String,
    /// Its path.
    pub path: String,
    /// Further fields; one of the name of a usual one replaces that.
    pub headers: Vec<(String, String)>,
    /// Its body; none of no bytes.
    pub body: Vec<u8>,
    /// The expected status.
    pub status: u16,
    /// The expected body; any when there is none.
    pub expect: Option<Vec<u8>>,
    /// Whether the connection ends with the answer.
    pub last: bool,
}

impl Order {
    /// Its fields: the usual ones unless replaced, `host` first, then the further ones.
    fn fields(&self, host: &str) -> Vec<(String, String)> {
        let replaced = |name: &str| self.headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
        let usual = [("Host", host), ("User-Agent", "speedmimi-bench"), ("Accept", "*/*")];
        let kept = usual.into_iter().filter(|(name, _)| !replaced(name));
        let mut all: Vec<_> = kept.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        all.extend(self.headers.iter().cloned());
        all
    }

    fn http1(&self, target: &Target) -> conns::Job {
        let mut request = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        for (name, value) in self.fields(&target.host) {
            let _ = write!(request, "{name}: {value}\r\n");
        }
        if !self.body.is_empty() {
            let _ = write!(request, "Content-Length: {}\r\n", self.body.len());
        }
        request.push_str(if self.last { "Connection: close\r\n\r\n" } else { "\r\n" });
        let mut request = request.into_bytes();
        request.extend_from_slice(&self.body);
        let expect = match &self.expect {
            Some(body) => Expect::Answer { status: self.status, body: body.clone() },
            None => Expect::Status(self.status),
        };
        conns::Job { request, expect }
    }

    fn http2(&self, target: &Target) -> h2::client::Job {
        let fields = self.fields(&target.host);
        let is_host = |name: &str| name.eq_ignore_ascii_case("host");
        let host = fields.iter().find(|(name, _)| is_host(name)).map_or(target.host.as_str(), |(_, value)| value);
        let pseudo =
            [(":method", &*self.method), (":scheme", target.scheme()), (":path", &self.path), (":authority", host)];
        let mut all: Vec<_> = pseudo.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let rest = fields.iter().filter(|(name, _)| !is_host(name));
        all.extend(rest.map(|(name, value)| (name.to_ascii_lowercase(), value.clone())));
        if !self.body.is_empty() {
            all.push(("content-length".into(), self.body.len().to_string()));
        }
        h2::client::Job {
            blocks: Blocks::new(&all),
            body: self.body.clone(),
            status: self.status,
            expect: self.expect.clone(),
            grpc: false,
        }
    }
}

impl Ask {
    /// The upgrade to a WebSocket, and then a frame that has to come back as often as it is sent.
    pub fn websocket() -> [Ask; 2] {
        let upgrade = Ask::Upgrade { path: "/websocket".into(), headers: Vec::new() };
        [upgrade, Ask::Echo { payload: b"sixteen bytes !!".to_vec() }]
    }

    /// A plain `GET` in full.
    fn get(path: &str, expect: &[u8], last: bool) -> Order {
        Order {
            method: "GET".into(),
            path: path.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            status: 200,
            expect: Some(expect.to_owned()),
            last,
        }
    }

    /// As HTTP/1.1.
    ///
    /// # Errors
    /// When that can't ask it.
    pub fn http1(&self, target: &Target) -> Result<conns::Job> {
        match self {
            Ask::Get { path, expect, last } => Ok(Ask::get(path, expect, *last).http1(target)),
            Ask::Order(order) => Ok(order.http1(target)),
            Ask::Upgrade { path, headers } => {
                let mut request = Ask::get(path, &[], false);
                request.headers.clone_from(headers);
                let fixed = [
                    ("Connection", "Upgrade"),
                    ("Upgrade", "websocket"),
                    ("Sec-WebSocket-Version", "13"),
                    ("Sec-WebSocket-Key", WEBSOCKET_KEY),
                ];
                let given = |name: &str| headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
                let usual = fixed.into_iter().filter(|(name, _)| !given(name));
                request.headers.extend(usual.map(|(name, value)| (name.to_owned(), value.to_owned())));
                request.status = 101;
                Ok(request.http1(target))
            }
            Ask::Echo { payload } => Ok(conns::Job {
                request: websocket::client_frame(payload, MASK),
                expect: Expect::Bytes(websocket::server_frame(payload)),
            }),
            Ask::Call { .. } => Err(Error::Usage("gRPC needs --http2".into())),
        }
    }

    fn http2(&self, target: &Target) -> Result<h2::client::Job> {
        match self {
            Ask::Get { path, expect, last } => Ok(Ask::get(path, expect, *last).http2(target)),
            Ask::Order(order) => Ok(order.http2(target)),
            Ask::Upgrade { .. } | Ask::Echo { .. } => Err(Error::Usage("--websocket is over HTTP/1.1 only".into())),
            Ask::Call { message } => {
                // Not compressed, then its length.
                let mut body = vec![0];
                body.extend_from_slice(&(message.len() as u32).to_be_bytes());
                body.extend_from_slice(message);
                let mut call = Ask::get("/speedmimi.bench.Echo/Unary", &body, false);
                call.method = "POST".into();
                let fields = [("content-type", "application/grpc"), ("te", "trailers")];
                call.headers = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
                Ok(h2::client::Job { body, grpc: true, ..call.http2(target) })
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
    /// A slot is a connection that reads an event stream.
    Events(Subscriptions),
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
            let jobs = asks.iter().map(|ask| ask.http2(target)).collect::<Result<_>>()?;
            let count = (count.conns, count.streams);
            return Ok(Clients::Http2(Streams::new(target.address, side, count, jobs, timeout)?));
        }
        let jobs = asks.iter().map(|ask| ask.http1(target)).collect::<Result<_>>()?;
        Ok(Clients::Http1(Connections::new(target.address, side, count.conns, jobs, timeout)?))
    }

    /// Closed ones that each read an event stream once they are open.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn subscribing(
        target: &Target,
        side: Option<ClientSide>,
        conns: usize,
        ask: &Ask,
        timeout: Duration,
    ) -> Result<Clients> {
        let request = ask.http1(target)?.request;
        Ok(Clients::Events(Subscriptions::new(target.address, side, conns, request, timeout)?))
    }

    /// Starts to open a closed slot.
    pub fn open<S: Script>(&mut self, slot: usize, source: Option<IpAddr>, script: &mut S) {
        match self {
            Clients::Http1(conns) => conns.open(slot, source, script),
            Clients::Http2(streams) => streams.open(slot, source, script),
            Clients::Events(streams) => streams.open(slot, source, script),
        }
    }

    /// Asks on an open slot that has no request under way.
    pub fn ask<S: Script>(&mut self, slot: usize, job: usize, script: &mut S) {
        match self {
            Clients::Http1(conns) => conns.ask(slot, job, script),
            Clients::Http2(streams) => streams.ask(slot, job),
            Clients::Events(_) => {} // A stream is asked for once, when its connection is open.
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
            Clients::Events(streams) => streams.poll(wait, script),
        }
    }

    /// Ends what has been under way for longer than the timeout.
    pub fn expire<S: Script>(&mut self, now: Instant, script: &mut S) {
        match self {
            Clients::Http1(conns) => conns.expire(now, script),
            Clients::Http2(streams) => streams.expire(now, script),
            Clients::Events(streams) => streams.expire(now, script),
        }
    }

    /// The handshakes so far.
    pub fn handshakes(&self) -> Handshakes {
        match self {
            Clients::Http1(conns) => conns.handshakes(),
            Clients::Http2(streams) => streams.handshakes(),
            Clients::Events(streams) => streams.handshakes(),
        }
    }
}
