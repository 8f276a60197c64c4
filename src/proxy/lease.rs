//! A connection to a backend for one exchange: a kept one, or a new one.
//!
//! Owns which of the two it is and what is kept afterwards. Never sends and never retries with another backend.

use super::client::Client;
use super::dial;
use super::exchange::Exchange;
use super::select::Admitted;
use super::shared;
use crate::config::plan::Scheme;
use crate::error::{Fault, Reason};
use crate::stream::Stream;
use crate::upstream::view::{BackendView, UpstreamView};
use crate::wheel::ticks;

/// A connection that is this exchange's alone.
#[derive(Debug)]
pub struct Lease {
    /// The connection.
    pub stream: Stream,
    /// Whether it served another exchange before, so that it may turn out to be closed.
    pub reused: bool,
    /// The tick at which it was asked for.
    pub taken_at: u32,
}

/// A kept connection if there is a fit one (and a new one isn't wanted), else a new one. Of HTTP/2 connections a stream.
///
/// # Errors
/// Those of [`dial::open`] and [`shared::take`]; [`Reason::NoDescriptor`] only after `connect_timeout`.
pub async fn take(
    client: &mut Client,
    exchange: &mut Exchange,
    upstream: &UpstreamView,
    admitted: &Admitted,
    wants_new: bool,
) -> Result<Lease, Fault> {
    let local = client.local.clone();
    let taken_at = local.wheel.now();
    let backend = admitted.slot.backend();
    if matches!(backend.conf.scheme, Scheme::H2c | Scheme::H2) {
        return shared::take(client, exchange, upstream, backend, wants_new).await;
    }
    let keep = ticks(upstream.conf.keepalive_timeout);
    // A connection that is about to time out at the other side is no place for a request that can't be repeated.
    let keep = if exchange.request.is_idempotent { keep } else { keep / 2 };
    // While descriptors are used up: so long for one that comes free, or for a connection that somebody gives back.
    let until = taken_at.saturating_add(ticks(upstream.conf.connect_timeout));
    let from_us = if exchange.record.is_told() { crate::clock::stamp_us() } else { 0 };
    let opened = loop {
        if let Some(stream) = kept(client, backend, keep, wants_new) {
            return Ok(Lease { stream, reused: true, taken_at });
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
    Ok(Lease { stream, reused: false, taken_at })
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

/// Keeps a connection of a lease of tick `taken_at` that can carry another exchange, unless this worker is about to end.
pub fn give_back(stream: Stream, taken_at: u32, client: &Client, upstream: &UpstreamView, admitted: &Admitted) {
    if !stream.is_spent() && !client.local.draining.get() {
        admitted.slot.backend().pool.put(stream, taken_at, client.local.wheel.now(), upstream.keepalive);
    }
}
