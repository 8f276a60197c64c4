//! A new connection to a backend, within `connect_timeout`.
//!
//! Owns which of a backend's addresses is taken and what a failed connect is called. Never retries with another
//! backend.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Poll};

use super::client::Client;
use super::turns::Wait;
use crate::config::plan::{BackendAddr, Scheme};
use crate::error::{Fault, Reason};
use crate::stream::{Secured, Stream};
use crate::upstream::connect::{Peer, connect};
use crate::upstream::view::{BackendView, UpstreamView};

/// Connects to the next address of `backend`.
///
/// # Errors
/// [`Reason::ConnectFailed`], [`Reason::ConnectTimeout`], [`Reason::BackendUnresolved`], [`Reason::BackendTls`],
/// [`Reason::BackendCertificate`], [`Reason::NoDescriptor`], or what [`Client::poll_gone`] says when the client went
/// away meanwhile.
pub async fn open(client: &mut Client, upstream: &UpstreamView, backend: &BackendView) -> Result<Stream, Fault> {
    backend.stats.connects.inc();
    let opened = match try_open(client, upstream, backend).await {
        // Room is made by closing what is idle: backends can always be reached.
        Err(fault) if fault.reason == Reason::NoDescriptor && client.local.make_room(16) => {
            try_open(client, upstream, backend).await
        }
        opened => opened,
    };
    if opened.is_err() {
        backend.stats.connect_failures.inc();
    }
    opened
}

/// Waits a tick for a descriptor to come free.
///
/// # Errors
/// What [`Client::poll_gone`] says when the client went away meanwhile.
pub async fn wait_for_room(client: &mut Client) -> Result<(), Fault> {
    client.deadline.set_after(1);
    poll_fn(|cx| {
        if let Poll::Ready(reason) = client.poll_gone(cx) {
            return Poll::Ready(Err(reason.into()));
        }
        client.deadline.poll_expired(cx).map(Ok)
    })
    .await
}

async fn try_open(client: &mut Client, upstream: &UpstreamView, backend: &BackendView) -> Result<Stream, Fault> {
    client.set_deadline_after(upstream.conf.connect_timeout);
    match &backend.conf.addr {
        BackendAddr::Unix(path) => reach(client, upstream, backend, Peer::Unix(path)).await,
        BackendAddr::Ip(addr) => reach(client, upstream, backend, Peer::Tcp(*addr)).await,
        BackendAddr::Name(..) => reach_any(client, upstream, backend).await,
    }
}

/// Connects to the next address of a name, or to the first behind it that doesn't refuse: a server may listen on one of
/// its addresses only (`localhost`), and is reached then.
async fn reach_any(client: &mut Client, upstream: &UpstreamView, backend: &BackendView) -> Result<Stream, Fault> {
    let first = backend.next_address.get();
    backend.next_address.set(first.wrapping_add(1));
    let mut fault = Fault::from(Reason::BackendUnresolved);
    for step in 0..backend.state.addresses().len() {
        let Some(addr) = nth_address(backend, first.wrapping_add(step)) else { break };
        match reach(client, upstream, backend, Peer::Tcp(addr)).await {
            Err(refused) if refused.reason == Reason::ConnectFailed => fault = refused,
            done => return done,
        }
    }
    Err(fault)
}

/// In rotation; looked up anew each time, as the addresses may have changed meanwhile.
fn nth_address(backend: &BackendView, n: usize) -> Option<SocketAddr> {
    let addresses = backend.state.addresses();
    addresses.get(n.checked_rem(addresses.len())?).copied()
}

/// Connects to one address, and shakes hands where the backend speaks TLS, before the client's deadline.
async fn reach(
    client: &mut Client,
    upstream: &UpstreamView,
    backend: &BackendView,
    peer: Peer<'_>,
) -> Result<Stream, Fault> {
    let stream = in_time(client, connect(peer, upstream.local_address())).await?;
    match backend.conf.scheme {
        Scheme::Http | Scheme::H2c => Ok(stream),
        Scheme::Https | Scheme::H2 => secure(client, upstream, backend, stream).await,
    }
}

/// Makes a connection the client's side of a TLS session.
async fn secure(
    client: &mut Client,
    upstream: &UpstreamView,
    backend: &BackendView,
    stream: Stream,
) -> Result<Stream, Fault> {
    let (Some(connector), Stream::Socket(socket)) = (&upstream.connector, stream) else {
        return Err(Reason::BackendTls.into());
    };
    let local = client.local.clone();
    let name = connector.server_name(&backend.conf.addr).ok_or(Reason::BackendCertificate)?;
    let config = connector.config(backend.conf.scheme).clone();
    let secured = Secured::connect(socket, config, name, &local.room).map_err(|_| Fault::from(Reason::BackendTls))?;
    let mut turn = Wait::default();
    let mut poll_turn = |cx: &mut Context<'_>| local.backend_handshakes.poll_take(cx, &mut turn);
    let shaken = in_time(client, poll_fn(|cx| secured.poll_handshake(cx, &mut poll_turn).map(Ok))).await?;
    shaken.map_err(|error| handshake_fault(&error))?;
    let speaks_http2 = secured.with_shaken(|shaken| shaken.protocol == Some(b"h2"));
    if backend.conf.scheme == Scheme::H2 && !speaks_http2 {
        return Err(Fault::new(Reason::BackendTls, "the backend did not agree on HTTP/2 (ALPN)"));
    }
    Ok(Stream::Secured(secured))
}

fn handshake_fault(error: &io::Error) -> Fault {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(_)) => Reason::BackendCertificate.into(),
        _ => Reason::BackendTls.into(),
    }
}

/// What comes of `opening` before the client's deadline.
///
/// # Errors
/// Those of [`open`].
pub async fn in_time<T>(client: &mut Client, opening: impl Future<Output = io::Result<T>>) -> Result<T, Fault> {
    let mut opening = pin!(opening);
    poll_fn(|cx| {
        if let Poll::Ready(done) = opening.as_mut().poll(cx) {
            return Poll::Ready(done.map_err(|e| fault_of(&e)));
        }
        if let Poll::Ready(reason) = client.poll_gone(cx) {
            return Poll::Ready(Err(reason.into()));
        }
        client.deadline.poll_expired(cx).map(|()| Err(client.overdue(Reason::ConnectTimeout)))
    })
    .await
}

fn fault_of(error: &io::Error) -> Fault {
    use rustix::io::Errno;
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => Reason::NoDescriptor.into(),
        Some(Errno::ADDRNOTAVAIL) => Reason::NoLocalPort.into(),
        Some(Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::NETDOWN) => {
            Fault::new(Reason::ConnectFailed, "the backend's network can't be reached")
        }
        Some(Errno::TIMEDOUT) => Reason::ConnectTimeout.into(),
        Some(Errno::NOENT) => Fault::new(Reason::ConnectFailed, "the backend's socket file does not exist"),
        _ => Reason::ConnectFailed.into(),
    }
}
