//! One request's life, told once: admit, lease, relay, and again with another backend where that is safe.
//!
//! Owns the ladder and what an exchange holds while it lasts. Never parses, never writes a head, never chooses a
//! backend: each step is a function of its own.

use std::rc::Rc;

use super::client::Client;
use super::dial;
use super::local::Local;
use super::log::Record;
use super::relay::{Broken, Ended, Relay};
use super::reply;
use super::select::{self, Admitted};
use super::tunnel::Tunnel;
use super::upload::Upload;
use crate::balance::Algorithm;
use crate::error::{Blame, Fault, Reason};
use crate::http::class::Protocol;
use crate::http::head::Version;
use crate::stream::Stream;
use crate::upstream::view::{BackendView, RouteView, UpstreamView};

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

/// Which backends were tried, and how often still.
struct Tries {
    left: u32,
    /// A kept connection turned out to be stale: the next is a new one, as its neighbours may be stale too.
    met_stale: bool,
    tried: Vec<usize>,
}

async fn forward(client: &mut Client, exchange: &mut Exchange) -> Result<After, Fault> {
    let upstream = exchange.route.as_ref().and_then(|r| r.upstream.clone()).ok_or(Reason::NoRoute)?;
    upstream.count_request();
    let mut tries = Tries { left: upstream.conf.retries, met_stale: false, tried: Vec::new() };
    loop {
        let admitted = select::admit(client, exchange, &upstream, &tries.tried).await?;
        let backend = admitted.slot.backend();
        backend.stats.requests.inc();
        if exchange.record.retries > 0 {
            backend.stats.retries.inc();
        }
        exchange.record.backend = Some(backend.clone());
        let lease = match lease(client, exchange, &upstream, &admitted, tries.met_stale).await {
            Ok(lease) => lease,
            // The client left, or the descriptors are used up: neither tells of the backend, nor can another help.
            Err(fault) if fault.reason.blame() != Blame::Backend => return Err(fault),
            Err(fault) => {
                admitted.failed(client.local.now_ms());
                if tries.next(client, &upstream, admitted.index) {
                    exchange.record.retries += 1;
                    exchange.record.begin_try();
                    continue;
                }
                return Err(fault);
            }
        };
        let reused = lease.reused;
        let mut relay = Relay::new(client, exchange, lease.stream, &upstream, &admitted);
        match relay.run().await {
            Ok(Ended::Switched) => {
                let ends = relay.into_tunnel();
                return Ok(After::Tunnel(Box::new(Tunnel::new(ends, admitted.slot, exchange))));
            }
            Ok(Ended::Complete { keep_client, keep_backend }) => {
                let stream = relay.into_stream();
                if keep_backend && !client.local.draining.get() {
                    let now = client.local.wheel.now();
                    admitted.slot.backend().pool.put(stream, now, upstream.keepalive);
                }
                return Ok(if keep_client { After::KeepAlive } else { After::Close });
            }
            Err(Broken::Answered) => return Ok(After::Abort),
            Err(Broken::Client(fault)) => return Err(fault),
            Err(Broken::Backend { fault, sent, got_bytes }) => {
                drop(relay);
                let closed = fault.reason == Reason::BackendClosed;
                let is_safe = !sent || (closed && exchange.request.is_idempotent);
                let may_repeat = !got_bytes && is_safe && exchange.upload.rewind();
                if reused && closed && may_repeat && !tries.met_stale {
                    tries.met_stale = true;
                    exchange.record.retries += 1;
                    exchange.record.begin_try();
                    continue;
                }
                admitted.failed(client.local.now_ms());
                if may_repeat && tries.next(client, &upstream, admitted.index) {
                    exchange.record.retries += 1;
                    exchange.record.begin_try();
                    continue;
                }
                return Err(fault);
            }
        }
    }
}

impl Tries {
    /// Whether another try is allowed after `index` failed.
    fn next(&mut self, client: &Client, upstream: &UpstreamView, index: usize) -> bool {
        if self.left == 0 || !upstream.try_retry(client.local.now_ms()) {
            return false;
        }
        self.left -= 1;
        self.tried.push(index);
        client.local.stats.retries.add(1);
        true
    }
}

/// A connection to a backend for one exchange.
struct Lease {
    stream: Stream,
    reused: bool,
}

/// A kept connection if there is a fit one (and a new one isn't wanted), else a new one.
async fn lease(
    client: &mut Client,
    exchange: &mut Exchange,
    upstream: &UpstreamView,
    admitted: &Admitted,
    wants_new: bool,
) -> Result<Lease, Fault> {
    let local = client.local.clone();
    let backend = admitted.slot.backend();
    let keep = crate::wheel::ticks(upstream.conf.keepalive_timeout);
    // A connection that is about to time out at the other side is no place for a request that can't be repeated.
    let keep = if exchange.request.is_idempotent { keep } else { keep / 2 };
    // While descriptors are used up: so long for one that comes free, or for a connection that somebody gives back.
    let until = local.wheel.now().saturating_add(crate::wheel::ticks(upstream.conf.connect_timeout));
    let from_us = if exchange.record.is_told() { crate::clock::stamp_us() } else { 0 };
    let opened = loop {
        if let Some(stream) = kept(client, backend, keep, wants_new) {
            return Ok(Lease { stream, reused: true });
        }
        match dial::open(client, upstream, backend).await {
            Err(fault) if fault.reason == Reason::NoDescriptor && local.wheel.now() < until => {
                dial::wait_for_room(client).await?;
            }
            opened => break opened,
        }
    };
    backend.stats.pool_misses.inc();
    local.stats.pool_misses.inc();
    let stream = opened?;
    exchange.record.connected(from_us);
    Ok(Lease { stream, reused: false })
}

/// The kept connection used last, if it is fit for this request.
fn kept(client: &Client, backend: &BackendView, keep: u32, wants_new: bool) -> Option<Stream> {
    if wants_new {
        return None;
    }
    let stream = backend.pool.take(client.local.wheel.now().saturating_sub(keep))?;
    backend.stats.pool_hits.inc();
    client.local.stats.pool_hits.inc();
    Some(stream)
}
