//! A new connection to a backend, within `connect_timeout`.
//!
//! Owns which of a backend's addresses is taken and what a failed connect is called. Never retries with another
//! backend.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;

use super::client::Client;
use crate::config::plan::BackendAddr;
use crate::error::{Fault, Reason};
use crate::stream::Stream;
use crate::upstream::connect::{Peer, connect};
use crate::upstream::view::{BackendView, UpstreamView};
use crate::wheel::ticks;

/// Connects to the next address of `backend`.
///
/// # Errors
/// [`Reason::ConnectFailed`], [`Reason::ConnectTimeout`], [`Reason::BackendUnresolved`], [`Reason::NoDescriptor`], or
/// [`Reason::ClientClosed`] when the client went away meanwhile.
pub async fn open(
    client: &mut Client,
    upstream: &UpstreamView,
    backend: &BackendView,
    watch_client: bool,
) -> Result<Stream, Fault> {
    backend.stats.connects.inc();
    let opened = match try_open(client, upstream, backend, watch_client).await {
        // Room is made by closing what is idle: backends can always be reached.
        Err(fault) if fault.reason == Reason::NoDescriptor && client.local.make_room(16) => {
            try_open(client, upstream, backend, watch_client).await
        }
        opened => opened,
    };
    if opened.is_err() {
        backend.stats.connect_failures.inc();
    }
    opened
}

async fn try_open(
    client: &mut Client,
    upstream: &UpstreamView,
    backend: &BackendView,
    watch_client: bool,
) -> Result<Stream, Fault> {
    let addresses = backend.state.addresses();
    let peer = match &backend.conf.addr {
        BackendAddr::Unix(path) => Peer::Unix(path),
        BackendAddr::Ip(addr) => Peer::Tcp(*addr),
        BackendAddr::Name(..) => {
            let next = backend.next_address.get();
            backend.next_address.set(next.wrapping_add(1));
            let index = next.checked_rem(addresses.len()).ok_or(Reason::BackendUnresolved)?;
            Peer::Tcp(addresses[index])
        }
    };
    client.deadline.set_after(ticks(upstream.conf.connect_timeout));
    let mut connecting = pin!(connect(peer, upstream.local_address()));
    poll_fn(|cx| {
        if let Poll::Ready(done) = connecting.as_mut().poll(cx) {
            return Poll::Ready(done.map_err(|e| fault_of(&e)));
        }
        if watch_client && client.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(Reason::ClientClosed.into()));
        }
        client.deadline.poll_expired(cx).map(|()| Err(Reason::ConnectTimeout.into()))
    })
    .await
}

fn fault_of(error: &io::Error) -> Fault {
    use rustix::io::Errno;
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => Reason::NoDescriptor.into(),
        Some(Errno::ADDRNOTAVAIL) => Fault::new(
            Reason::ConnectFailed,
            "no local port is left to reach the backend; add addresses to upstreams.NAME.local_addresses",
        ),
        Some(Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::NETDOWN) => {
            Fault::new(Reason::ConnectFailed, "the backend's network can't be reached")
        }
        Some(Errno::TIMEDOUT) => Reason::ConnectTimeout.into(),
        Some(Errno::NOENT) => Fault::new(Reason::ConnectFailed, "the backend's socket file does not exist"),
        _ => Reason::ConnectFailed.into(),
    }
}
