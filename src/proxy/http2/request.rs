//! One request of an HTTP/2 connection, as a task of its own.
//!
//! Owns the order: a turn, the translation of the head, the exchange. Never drives the connection.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, ready};

use h2::ext::Protocol;
use http::Method;
use http::header::CONTENT_TYPE;
use http::request::Parts;

use crate::error::Reason;
use crate::http::authority::Authority;
use crate::http::grpc;
use crate::http::parse::HeadEnd;
use crate::http::translate::{KEY_BYTES, RequestIn};
use crate::proxy::client::{Client, Facts};
use crate::proxy::exchange::{self, After, Verdict};
use crate::proxy::intake::{self, Intake};
use crate::proxy::reply::{self, Refused};
use crate::proxy::tunnel;
use crate::proxy::turns::Wait;
use crate::stream::Stream;

/// Serves the request whose head `parts` is.
pub(super) async fn serve(mut client: Client, facts: Rc<Facts>, parts: Parts) {
    let local = client.local.clone();
    let mut turn = Wait::default();
    let is_cut = poll_fn(|cx| {
        ready!(local.turns.poll_take(cx, &mut turn));
        Poll::Ready(client.stream.poll_cut(cx).is_ready())
    })
    .await;
    if is_cut {
        // Given up before it began: no backend hears of it.
        return client.close();
    }
    match take(&client, &parts) {
        Intake::Request(mut exchange, _) => {
            if !is_served(&facts, &parts) {
                exchange.verdict = Some(Verdict::Fault(Reason::Misdirected.into()));
            }
            drop((parts, facts));
            client.ends_at = exchange.ends_at.unwrap_or(u32::MAX);
            let after = exchange::run(&mut client, &mut exchange).await;
            local.give_exchange(exchange);
            if let After::Tunnel(tunnel) = after {
                return tunnel::spawn(client, *tunnel);
            }
        }
        Intake::Refused(fault) => reply::refuse(&mut client, refused(&parts), fault).await,
        // What was translated is always whole.
        Intake::Partial => reply::refuse(&mut client, refused(&parts), Reason::BadRequest.into()).await,
    }
    client.close();
}

/// Translates the head, and takes it in like any other.
fn take(client: &Client, parts: &Parts) -> Intake {
    let Stream::Incoming(incoming) = &client.stream else { return Intake::Refused(Reason::BadRequest.into()) };
    let local = &client.local;
    let request = RequestIn {
        parts,
        protocol: parts.extensions.get::<Protocol>().map(Protocol::as_str),
        is_end: incoming.is_end(),
        fields_max: local.view().server.max_headers,
        list_bytes_max: local.view().server.max_header_bytes,
        luck: luck(client),
    };
    let mut bytes = local.take_buffer();
    let before = bytes.capacity();
    let written = request.write_head(&mut bytes);
    local.buffer_grew(before, &bytes);
    let taken = match written {
        Ok(opening) => {
            incoming.open(opening);
            intake::take(client, &bytes, &mut HeadEnd::default())
        }
        Err(fault) => {
            incoming.refuse(parts.method == Method::HEAD);
            Intake::Refused(fault)
        }
    };
    local.give_buffer(bytes);
    taken
}

/// The form that errors have to have.
fn refused(parts: &Parts) -> Refused {
    let content_type = parts.headers.get(CONTENT_TYPE);
    Refused {
        is_head: parts.method == Method::HEAD,
        is_grpc: content_type.is_some_and(|value| grpc::is_grpc(value.as_bytes())),
    }
}

/// Whether the connection is for that host (RFC 9110, section 15.5.20).
fn is_served(facts: &Facts, parts: &Parts) -> bool {
    let Some(hello) = facts.session.as_ref().and_then(|session| session.hello.as_ref()) else { return true };
    let host = match parts.uri.authority() {
        Some(authority) => authority.as_str().as_bytes(),
        None => parts.headers.get(http::header::HOST).map_or(&[][..], |host| host.as_bytes()),
    };
    let host = Authority::parse(host).ok().and_then(|authority| std::str::from_utf8(authority.host()).ok());
    host.is_some_and(|host| hello.serves(host))
}

fn luck(client: &Client) -> [u8; KEY_BYTES] {
    let mut rng = client.local.rng.borrow_mut();
    let mut luck = [0; KEY_BYTES];
    luck.chunks_exact_mut(8).for_each(|half| half.copy_from_slice(&rng.next_u64().to_ne_bytes()));
    luck
}
