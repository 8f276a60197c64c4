//! A client's TLS handshake: from a socket to a secured connection.
//!
//! Owns its turn, its deadline and what requests are told of it. Never chooses a certificate and never reads a request.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::UnixTime;

use super::client::Client;
use super::local::Local;
use super::turns::Wait;
use crate::stream::{Secured, SessionFacts, Shaken, Stream};

/// Makes a client's socket the server's side of a session; `None` where that can't be, and the connection is closed.
/// `read` is what of the client's first flight came already.
pub fn begin(stream: Stream, read: Vec<u8>, local: &Local) -> Option<Stream> {
    let view = local.view();
    let acceptor = view.tls.as_ref()?;
    let Stream::Socket(socket) = stream else { return None };
    match Secured::accept(socket, acceptor.config().clone(), acceptor.asks(), &local.room, read) {
        Ok(secured) => Some(Stream::Secured(secured)),
        Err(error) => {
            tracing::error!(%error, "no TLS session can be begun");
            None
        }
    }
}

/// Shakes hands within `read_timeout` from accept on, one step a turn; whether that came to a session.
pub async fn finish(client: &mut Client) -> bool {
    let local = client.local.clone();
    let mut turn = Wait::default();
    let shaken = poll_fn(|cx| {
        let Stream::Secured(secured) = &client.stream else { return Poll::Ready(Ok(())) };
        let poll_turn = |cx: &mut Context<'_>| local.handshakes.poll_take(cx, &mut turn);
        if let Poll::Ready(shaken) = secured.poll_handshake(cx, poll_turn) {
            return Poll::Ready(shaken);
        }
        client.deadline.set(client.head_due());
        if !local.ending.get() {
            ready!(client.deadline.poll_expired(cx));
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    })
    .await;
    match shaken.and_then(|()| admit(client)) {
        Ok(()) => {
            note(client);
            true
        }
        Err(error) => {
            local.stats.handshakes_failed.inc();
            tracing::debug!(peer = %client.peer.ip(), %error, "TLS handshake failed");
            false
        }
    }
}

/// Holds the certificate of a session that was taken up again against the rules and the time of now: it may have expired
/// since. The client learns of it by the end of the connection only, as rustls sends no alerts of ours.
fn admit(client: &Client) -> io::Result<()> {
    let Stream::Secured(secured) = &client.stream else { return Ok(()) };
    secured.with_shaken(|shaken| {
        if !shaken.is_resumed || shaken.peer_certificates.is_empty() {
            return Ok(());
        }
        let refused = |error| io::Error::new(io::ErrorKind::PermissionDenied, error);
        let view = client.local.view();
        let acceptor = view.tls.as_ref().ok_or(io::ErrorKind::PermissionDenied)?;
        acceptor.admits(shaken.peer_certificates, UnixTime::now()).map_err(refused)
    })
}

/// Notes what requests have to know of the session.
fn note(client: &mut Client) {
    let Stream::Secured(secured) = &client.stream else { return };
    let facts = secured.with_shaken(|shaken| {
        let stats = &client.local.stats;
        if shaken.is_resumed {
            stats.handshakes_resumed.inc()
        } else {
            stats.handshakes_full.inc()
        }
        facts(&shaken)
    });
    let facts = Rc::new(SessionFacts { hello: secured.take_hello(), ..facts });
    secured.note(facts.clone());
    client.session = Some(facts);
}

fn facts(shaken: &Shaken<'_>) -> SessionFacts {
    let certificate = shaken.peer_certificates.first().map(|der| format!(":{}:", BASE64_STANDARD.encode(der)));
    SessionFacts {
        version: shaken.version,
        is_http2: shaken.protocol == Some(b"h2"),
        client_certificate: certificate.map(|text| text.into_bytes().into()),
        hello: None,
    }
}
