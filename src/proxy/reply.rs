//! Answers that the proxy makes itself: errors, redirects, fixed responses.
//!
//! Owns their fields and bodies (`Proxy-Status` as in RFC 9209). Never decides that one is due.

use std::future::poll_fn;
use std::io::IoSlice;
use std::task::{Poll, ready};

use super::client::Client;
use super::exchange::{After, Exchange};
use super::log::Record;
use crate::error::{Fault, Reason};
use crate::http::write::{Edits, write_line};
use crate::http::{grpc, status};
use crate::wheel::ticks;

/// The name this proxy goes by in `Via` and `Proxy-Status`.
pub const PROXY_NAME: &str = "speedmimi";

/// What an answer of ours consists of.
struct Answer<'a> {
    status: u16,
    fault: Option<Fault>,
    location: Option<&'a [u8]>,
    body: &'a [u8],
    request_id: &'a [u8],
    keep_alive: bool,
    is_head: bool,
    edits: Edits<'a>,
}

/// Answers a request with an error.
pub async fn fault(client: &mut Client, exchange: &mut Exchange, fault: Fault) -> After {
    exchange.record.reason = Some(fault.reason);
    exchange.record.detail = fault.detail;
    let body = body_of(fault, exchange.record.request_id());
    // Where these broke a body off is not known any more: what follows must not be taken for a request.
    let lost = matches!(fault.reason, Reason::BadRequest | Reason::BodyTooLarge | Reason::HeadTooLarge);
    let keep_alive = !lost && keeps(client, exchange);
    let answer = Answer {
        status: fault.reason.status(),
        fault: Some(fault),
        location: None,
        body: body.as_bytes(),
        request_id: exchange.record.request_id(),
        keep_alive,
        is_head: exchange.request.is_head,
        edits: Edits::default(),
    };
    let head = write_head(fault, &answer, exchange.is_grpc, &client.local.date());
    exchange.record.status = answer.status;
    finish(client, exchange, head, keep_alive).await
}

/// What is known of a request that was refused, for its answer's form.
#[derive(Clone, Copy, Debug, Default)]
pub struct Refused {
    /// Answers to it have no body.
    pub is_head: bool,
    /// Its client expects errors in gRPC's form.
    pub is_grpc: bool,
}

/// Answers what is no request: its head can't be understood, or never came whole. The connection closes after.
pub async fn refuse(client: &mut Client, refused: Refused, fault: Fault) {
    let local = client.local.clone();
    let mut record = Record::default();
    record.begin_unread(&local, client.peer.ip());
    record.reason = Some(fault.reason);
    record.detail = fault.detail;
    record.status = fault.reason.status();
    let body = body_of(fault, record.request_id());
    let answer = Answer {
        status: record.status,
        fault: Some(fault),
        location: None,
        body: body.as_bytes(),
        request_id: record.request_id(),
        keep_alive: false,
        is_head: refused.is_head,
        edits: Edits::default(),
    };
    let head = write_head(fault, &answer, refused.is_grpc, &local.date());
    record.bytes_out = send(client, &head).await.bytes as u64;
    record.finish(client, None, None);
}

/// Answers a request as its route says, without a backend.
pub async fn answer(
    client: &mut Client,
    exchange: &mut Exchange,
    status: u16,
    location: Option<&[u8]>,
    body: &[u8],
) -> After {
    let keep_alive = keeps(client, exchange);
    let route = exchange.route.clone();
    let answer = Answer {
        status,
        fault: None,
        location,
        body,
        request_id: exchange.record.request_id(),
        keep_alive,
        is_head: exchange.request.is_head,
        edits: route.as_ref().map_or_else(Edits::default, |r| Edits::from(&r.conf.response_headers)),
    };
    let head = head_of(&answer, &client.local.date());
    exchange.record.status = status;
    finish(client, exchange, head, keep_alive).await
}

/// Whether the connection can serve another request after an answer now.
fn keeps(client: &mut Client, exchange: &mut Exchange) -> bool {
    // A body that came whole behind its head is read away; one that is still under way is not waited for.
    let local = client.local.clone();
    let absorbed = exchange.upload.absorb(&mut client.input, &local).is_ok();
    absorbed && exchange.upload.is_received() && exchange.request.keep_alive && !local.draining.get()
}

async fn finish(client: &mut Client, exchange: &mut Exchange, head: Vec<u8>, keep_alive: bool) -> After {
    let sent = send(client, &head).await;
    exchange.record.waited();
    exchange.record.bytes_out += sent.bytes as u64;
    match (sent.is_whole, keep_alive) {
        (true, true) => After::KeepAlive,
        (true, false) => After::Close,
        (false, _) => After::Abort,
    }
}

/// What became of an answer.
struct Sent {
    /// How many bytes the client's side took; those of a secured connection may still be with us.
    bytes: usize,
    /// Whether the socket took all of it.
    is_whole: bool,
}

/// Sends what can be sent within `write_timeout`.
async fn send(client: &mut Client, bytes: &[u8]) -> Sent {
    client.deadline.set_after(ticks(client.local.view().server.write_timeout));
    let mut sent = 0;
    let is_whole = poll_fn(|cx| {
        while sent < bytes.len() {
            match client.stream.poll_send(cx, &[IoSlice::new(&bytes[sent..])]) {
                Poll::Ready(Ok(n)) => sent += n,
                Poll::Ready(Err(_)) => return Poll::Ready(false),
                Poll::Pending => {
                    ready!(client.deadline.poll_expired(cx));
                    return Poll::Ready(false);
                }
            }
        }
        match client.stream.poll_flush(cx) {
            Poll::Ready(flushed) => Poll::Ready(flushed.is_ok()),
            Poll::Pending => client.deadline.poll_expired(cx).map(|()| false),
        }
    })
    .await;
    Sent { bytes: sent, is_whole }
}

fn body_of(fault: Fault, request_id: &[u8]) -> String {
    let phrase = status::phrase(fault.reason.status());
    format!("{phrase} ({})\nrequest id: {}\n", fault.detail, String::from_utf8_lossy(request_id))
}

fn write_head(fault: Fault, answer: &Answer<'_>, is_grpc: bool, date: &[u8; 29]) -> Vec<u8> {
    if is_grpc { grpc_head_of(fault, answer, date) } else { head_of(answer, date) }
}

fn head_of(answer: &Answer<'_>, date: &[u8; 29]) -> Vec<u8> {
    let mut out = Vec::with_capacity(512 + answer.body.len());
    let mut number = itoa::Buffer::new();
    let status = number.format(answer.status).as_bytes();
    for part in [b"HTTP/1.1 ", status, b" ", status::phrase(answer.status).as_bytes(), b"\r\n"] {
        out.extend_from_slice(part);
    }
    let mut line = |name: &str, value: &[u8]| {
        if !answer.edits.replaces(name.as_bytes()) {
            write_line(&mut out, name.as_bytes(), value);
        }
    };
    line("Date", date);
    if let Some(location) = answer.location {
        line("Location", location);
    }
    if !matches!(answer.status, 204 | 304) {
        line("Content-Type", b"text/plain; charset=utf-8");
        line("Content-Length", number.format(answer.body.len()).as_bytes());
    }
    if let Some(fault) = answer.fault {
        line("Proxy-Status", proxy_status(fault).as_bytes());
        line("Cache-Control", b"no-store");
        match fault.reason {
            Reason::QueueFull | Reason::QueueTimeout | Reason::BackendsFull => line("Retry-After", b"1"),
            Reason::MethodNotServed => line("Allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            _ => {}
        }
    }
    line("X-Request-ID", answer.request_id);
    line("Connection", if answer.keep_alive { b"keep-alive" } else { b"close" });
    answer.edits.write(&mut out);
    out.extend_from_slice(b"\r\n");
    if !answer.is_head && !matches!(answer.status, 204 | 304) {
        out.extend_from_slice(answer.body);
    }
    out
}

/// As gRPC has it: an answer of trailers only, its HTTP status always 200.
fn grpc_head_of(fault: Fault, answer: &Answer<'_>, date: &[u8; 29]) -> Vec<u8> {
    let mut out = b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\ngrpc-message: ".to_vec();
    grpc::write_message(&mut out, fault.detail);
    out.extend_from_slice(b"\r\n");
    let code = itoa::Buffer::new().format(grpc::code(fault.reason)).to_owned();
    write_line(&mut out, b"grpc-status", code.as_bytes());
    write_line(&mut out, b"Date", date);
    write_line(&mut out, b"Proxy-Status", proxy_status(fault).as_bytes());
    write_line(&mut out, b"X-Request-ID", answer.request_id);
    out.extend_from_slice(b"\r\n");
    out
}

/// A member of the list that `Proxy-Status` is, its details a string of a structured field (RFC 9651, section 3.3.3).
fn proxy_status(fault: Fault) -> String {
    let details = fault.detail.replace('\\', "\\\\").replace('"', "\\\"");
    format!("{PROXY_NAME}; error={}; details=\"{details}\"", fault.reason.proxy_status_type())
}
