//! A stream of an HTTP/2 connection to a backend for one exchange: on a connection that has room, or on a new one.
//!
//! Owns the wait for room, and who opens the next connection. Never sends and never retries with another backend.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Poll, ready};

use super::client::Client;
use super::dial;
use super::exchange::Exchange;
use super::lease::Lease;
use crate::config::plan::Scheme;
use crate::error::{Fault, Reason};
use crate::stream::{Outgoing, Place, Stream, Trunk};
use crate::upstream::trunks::{Opening, Trunks};
use crate::upstream::view::{BackendView, UpstreamView};
use crate::wheel::ticks;

/// What a request does next to get a stream.
enum Next {
    /// It goes on.
    Place(Place),
    /// It opens a connection.
    Open(Opening),
}

/// A stream within `connect_timeout`; a new connection has so long again until its settings are there. With `wants_new` it is
/// on a connection that was opened since, unless there can be no more.
///
/// # Errors
/// Those of [`dial::open`]; [`Reason::BackendsFull`] when all connections stayed full.
pub async fn take(
    client: &mut Client,
    exchange: &mut Exchange,
    upstream: &UpstreamView,
    backend: &BackendView,
    wants_new: bool,
) -> Result<Lease, Fault> {
    let local = client.local.clone();
    let patience = ticks(upstream.conf.connect_timeout);
    let taken_at = local.wheel.now();
    let until = taken_at.saturating_add(patience);
    let keep = ticks(upstream.conf.keepalive_timeout);
    // As with other kept connections: what may not be repeated keeps away from those that are about to time out.
    let keep = if exchange.request.is_idempotent { keep } else { keep / 2 };
    let but = if wants_new { backend.trunks.count() } else { 0 };
    let from_us = if exchange.record.is_told() { crate::clock::stamp_us() } else { 0 };
    loop {
        client.set_deadline_after(upstream.conf.connect_timeout);
        let opening = match next(client, &backend.trunks, keep, but).await? {
            Next::Place(place) => {
                backend.stats.pool_hits.inc();
                local.stats.pool_hits.inc();
                return Ok(lease(place, backend, true, taken_at));
            }
            Next::Open(opening) => opening,
        };
        backend.stats.pool_misses.inc();
        local.stats.pool_misses.inc();
        match open(client, upstream, backend, opening).await {
            Err(fault) if fault.reason == Reason::NoDescriptor && local.wheel.now() < until => {
                dial::wait_for_room(client).await?;
            }
            opened => {
                let place = opened?;
                exchange.record.connected(from_us);
                return Ok(lease(place, backend, false, taken_at));
            }
        }
    }
}

fn lease(place: Place, backend: &BackendView, reused: bool, taken_at: u32) -> Lease {
    let over_tls = backend.conf.scheme == Scheme::H2;
    Lease { stream: Stream::Outgoing(Box::new(Outgoing::new(place, over_tls))), reused, taken_at }
}

/// Waits for a place on a connection that is idle for no longer than `keep` ticks and none of the first `but`, or for leave to
/// open one, before the client's deadline.
async fn next(client: &mut Client, trunks: &Rc<Trunks>, keep: u32, but: u64) -> Result<Next, Fault> {
    let mut waiting = trunks.waiters().join();
    let next = poll_fn(|cx| {
        if let Some(place) = trunks.place(client.local.wheel.now().saturating_sub(keep), but) {
            return Poll::Ready(Ok(Next::Place(place)));
        }
        if let Some(opening) = trunks.opening() {
            return Poll::Ready(Ok(Next::Open(opening)));
        }
        waiting.wait(cx);
        if let Poll::Ready(reason) = client.poll_gone(cx) {
            return Poll::Ready(Err(reason.into()));
        }
        ready!(client.deadline.poll_expired(cx));
        let overdue = client.overdue(Reason::ConnectTimeout);
        // While one is being opened, it is the backend that takes its time.
        let is_full = overdue.reason == Reason::ConnectTimeout && !trunks.is_opening();
        Poll::Ready(Err(if is_full { FULL } else { overdue }))
    })
    .await?;
    waiting.serve();
    Ok(next)
}

/// More is asked of the backend than its connections may carry: no fault of its own.
const FULL: Fault = Fault::new(Reason::BackendsFull, "all HTTP/2 connections to the backend are full");

/// Connects and speaks HTTP/2 up to the backend's settings.
async fn open(
    client: &mut Client,
    upstream: &UpstreamView,
    backend: &BackendView,
    opening: Opening,
) -> Result<Place, Fault> {
    let stream = dial::open(client, upstream, backend).await?;
    let wheel = client.local.wheel.clone();
    let opened = dial::in_time(client, async {
        match Trunk::open(stream, &wheel, backend.trunks.waiters()).await {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Err(NO_HTTP2)),
            opened => opened.map(Ok),
        }
    });
    let trunk = opened.await.and_then(|opened| opened).inspect_err(|_| backend.stats.connect_failures.inc())?;
    opening.done(trunk).ok_or_else(|| Reason::BackendRefused.into())
}

const NO_HTTP2: Fault = Fault::new(Reason::BackendProtocol, "the backend doesn't speak HTTP/2");
