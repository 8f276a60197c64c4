//! One request's life, told once: admit, lease, relay, and again with another backend where that is safe.
//!
//! Owns the ladder and what an exchange holds while it lasts. Never parses, never writes a head, never chooses a
//! backend, never opens a connection: each step is a function of its own.

use std::rc::Rc;

use super::client::Client;
use super::lease::{self, Lease};
use super::local::Local;
use super::log::Record;
use super::outflow::Outflow;
use super::relay::{Broken, Ended, Relay};
use super::reply;
use super::select::{self, Admitted};
use super::tunnel::Tunnel;
use super::upload::Upload;
use crate::balance::Algorithm;
use crate::error::{Blame, Fault, Reason};
use crate::http::class::Protocol;
use crate::http::head::Version;
use crate::stream::{LEFT_OUT, RESET, Stream};
use crate::upstream::view::{RouteView, UpstreamView};

/// What one exchange holds; reused from request to request.
#[derive(Debug, Default)]
pub struct Exchange {
    /// The rule that matched; `None` when none did.
    pub route: Option<Rc<RouteView>>,
    /// The kind of traffic.
    pub protocol: Option<Protocol>,
    /// What the hash rules hash.
    pub key: u64,
    /// The backend that the sticky cookie names, by hash.
    pub sticky: Option<u64>,
    /// What is known of the request after its head is gone.
    pub request: RequestFacts,
    /// What goes to the backend.
    pub upload: Upload,
    /// By HTTP/2, from a client that expects errors in gRPC's form.
    pub is_grpc: bool,
    /// When the client gives up, as it said, in ticks; `None`: it did not.
    pub ends_at: Option<u32>,
    /// For the log.
    pub record: Record,
    /// Found wanting before any backend was asked; or to be answered by the proxy itself.
    pub verdict: Option<Verdict>,
}

/// How a request is answered without a backend.
#[derive(Debug)]
pub enum Verdict {
    /// An error of the proxy's own.
    Fault(Fault),
    /// `redirect` or `respond` of the route; the whole answer but its connection fields.
    Answer { status: u16, location: Option<Vec<u8>>, body: Vec<u8> },
}

/// What the relay has to know of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts {
    /// Decides what the client may be sent.
    pub version: Version,
    /// Answers to it have no body.
    pub is_head: bool,
    /// Sent again when a backend closed before the first byte of its answer.
    pub is_idempotent: bool,
    /// The client wants the connection kept.
    pub keep_alive: bool,
    /// It asks for another protocol.
    pub wants_upgrade: bool,
}

impl Default for RequestFacts {
    fn default() -> Self {
        RequestFacts {
            version: Version::Http11,
            is_head: false,
            is_idempotent: false,
            keep_alive: false,
            wants_upgrade: false,
        }
    }
}

impl Exchange {
    /// Lets go of everything it held, keeping only its own room.
    pub fn clear(&mut self, local: &Local) {
        self.upload.clear(local);
        self.record.clear();
        self.route = None;
        self.verdict = None;
        self.sticky = None;
        self.is_grpc = false;
        self.ends_at = None;
    }

    /// The balancing rule for this request.
    pub fn algorithm(&self) -> Algorithm {
        let protocol = self.protocol.unwrap_or(Protocol::Http);
        self.route.as_ref().map_or(Algorithm::LeastConnectionsWeight, |r| r.conf.algorithms[protocol as usize])
    }
}

/// What becomes of the client's connection.
#[derive(Debug)]
pub enum After {
    /// The next request is welcome.
    KeepAlive,
    /// Close, after lingering.
    Close,
    /// Close at once.
    Abort,
    /// It is a tunnel now.
    Tunnel(Box<Tunnel>),
}

/// Serves one request whose head was taken in.
pub async fn run(client: &mut Client, exchange: &mut Exchange) -> After {
    client.local.stats.exchanges_active.inc();
    let after = match exchange.verdict.take() {
        Some(Verdict::Fault(fault)) => reply::fault(client, exchange, fault).await,
        Some(Verdict::Answer { status, location, body }) => {
            reply::answer(client, exchange, status, location.as_deref(), &body).await
        }
        None => match forward(client, exchange).await {
            Ok(after) => after,
            Err(fault) if fault.reason.is_answered() => reply::fault(client, exchange, fault).await,
            Err(fault) => {
                exchange.record.reason = Some(fault.reason);
                After::Abort
            }
        },
    };
    client.local.stats.exchanges_active.dec();
    if matches!(after, After::Tunnel(_)) {
        // The record went along; it is told when the tunnel ends.
        return after;
    }
    exchange.record.bytes_in = exchange.upload.received;
    exchange.record.finish(client, exchange.route.as_deref(), exchange.protocol);
    after
}

/// Asks backends until one has answered.
async fn forward(client: &mut Client, exchange: &mut Exchange) -> Result<After, Fault> {
    let upstream = exchange.route.as_ref().and_then(|r| r.upstream.clone()).ok_or(Reason::NoRoute)?;
    upstream.count_request();
    let mut tries = Tries { left: upstream.conf.retries, met_stale: false, tried: Vec::new() };
    let mut held = None;
    loop {
        let admitted = match held.take() {
            Some(admitted) => admitted,
            None => select::admit(client, exchange, &upstream, &tries.tried).await?,
        };
        let backend = admitted.slot.backend();
        backend.stats.requests.inc();
        if exchange.record.retries > 0 {
            backend.stats.retries.inc();
        }
        exchange.record.backend = Some(backend.clone());
        let lease = lease::take(client, exchange, &upstream, &admitted, tries.met_stale).await;
        match attempt(lease, client, exchange, &upstream, &admitted).await {
            Ok(Passed::Answer(after)) => return Ok(after),
            Ok(Passed::Switch(ends)) => {
                return Ok(After::Tunnel(Box::new(Tunnel::new(*ends, admitted.slot, exchange))));
            }
            Err(failed) => held = tries.weigh(failed, client, &upstream, admitted)?,
        }
        exchange.record.retries += 1;
        exchange.record.begin_try();
    }
}

/// How a try ended well.
enum Passed {
    /// The answer was passed on, or as much of it as could be.
    Answer(After),
    /// The protocol was switched: these are the ends of a tunnel. In a box, as every other answer would carry the room.
    Switch(Box<(Stream, Outflow)>),
}

/// How a try failed.
enum Failed {
    /// The client left, or the descriptors are used up: it tells nothing of the backend, nor can another help.
    Elsewhere(Fault),
    /// By the backend's fault.
    Backend {
        fault: Fault,
        /// Nothing has happened yet that must not happen twice.
        may_repeat: bool,
        leave: Leave,
    },
}

/// What the first repeat is by, beyond the rules of retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    /// None: it failed.
    None,
    /// A kept connection had been closed by the other side, or was about to be.
    Stale,
    /// The backend said that it had not begun with the request. One that says so of many is not asked twice as much: these
    /// repeats are retries, though no failures.
    Refused,
}

impl Leave {
    /// After `fault`, on a connection that others had used before (`reused`).
    fn after(fault: Fault, reused: bool) -> Leave {
        match fault.reason {
            _ if fault == LEFT_OUT => Leave::Stale,
            Reason::BackendRefused => Leave::Refused,
            Reason::BackendClosed if reused && fault != RESET => Leave::Stale,
            _ => Leave::None,
        }
    }
}

/// One try: the request over a connection to the backend, if there is one.
async fn attempt(
    lease: Result<Lease, Fault>,
    client: &mut Client,
    exchange: &mut Exchange,
    upstream: &UpstreamView,
    admitted: &Admitted,
) -> Result<Passed, Failed> {
    let Lease { stream, reused, taken_at } = lease.map_err(Failed::without_connection)?;
    let mut relay = Relay::new(client, exchange, stream, upstream, admitted);
    match relay.run().await {
        Ok(Ended::Switched) => Ok(Passed::Switch(Box::new(relay.into_tunnel()))),
        Ok(Ended::Complete { keep_client, keep_backend }) => {
            let stream = relay.into_stream();
            if keep_backend {
                lease::give_back(stream, taken_at, client, upstream, admitted);
            }
            Ok(Passed::Answer(if keep_client { After::KeepAlive } else { After::Close }))
        }
        Err(Broken::Answered) => Ok(Passed::Answer(After::Abort)),
        Err(Broken::Client(fault)) => Err(Failed::Elsewhere(fault)),
        Err(Broken::Backend { fault, .. }) if fault.reason.blame() != Blame::Backend => Err(Failed::Elsewhere(fault)),
        Err(Broken::Backend { fault, sent, got_bytes }) => {
            drop(relay);
            let closed = fault.reason == Reason::BackendClosed;
            // Whatever was sent, it was not begun with.
            let refused = fault.reason == Reason::BackendRefused;
            let is_safe = !sent || refused || (closed && exchange.request.is_idempotent);
            let may_repeat = !got_bytes && is_safe && exchange.upload.rewind();
            Err(Failed::Backend { fault, may_repeat, leave: Leave::after(fault, reused) })
        }
    }
}

impl Failed {
    fn without_connection(fault: Fault) -> Failed {
        match fault.reason.blame() {
            Blame::Backend => Failed::Backend { fault, may_repeat: true, leave: Leave::None },
            _ => Failed::Elsewhere(fault),
        }
    }
}

/// Which backends were tried, and how often still.
struct Tries {
    left: u32,
    /// A kept connection turned out to be stale, or refused the request: the next is a new one, as its neighbours may be
    /// stale too.
    met_stale: bool,
    tried: Vec<usize>,
}

impl Tries {
    /// What a failed try leads to: another one, or the fault that the client is told. After a stale connection, or a refusal,
    /// the slot is held for the next try: given back, the request could find itself behind everybody else.
    fn weigh(
        &mut self,
        failed: Failed,
        client: &Client,
        upstream: &UpstreamView,
        admitted: Admitted,
    ) -> Result<Option<Admitted>, Fault> {
        let (fault, may_repeat, leave) = match failed {
            Failed::Elsewhere(fault) => return Err(fault),
            Failed::Backend { fault, may_repeat, leave } => (fault, may_repeat, leave),
        };
        let now = client.local.now_ms();
        let has_leave = match leave {
            Leave::None => false,
            _ if !may_repeat || self.met_stale => false,
            Leave::Stale => true,
            Leave::Refused => upstream.try_retry(now),
        };
        if has_leave {
            self.met_stale = true;
            return Ok(Some(admitted));
        }
        admitted.failed(now);
        if !may_repeat || self.left == 0 || !upstream.try_retry(now) {
            return Err(fault);
        }
        self.left -= 1;
        self.tried.push(admitted.index);
        client.local.stats.retries.add(1);
        Ok(None)
    }
}
