//! A backend's response head, turned into what the client gets.
//!
//! Owns the decision how the answer is framed towards the client and which connection can be kept. Never sends.

use super::client::Client;
use super::exchange::Exchange;
use super::relay::Download;
use crate::balance::score::{Report, Score};
use crate::error::{Fault, Reason};
use crate::http::body::{Sink, Source};
use crate::http::framing::{ResponseFraming, Sender};
use crate::http::head::{ResponseHead, Version};
use crate::http::parse::{Asked, HeadEnd, HeadLimits, parse_response};
use crate::http::trailers::Passing;
use crate::http::write::{self, Answer, AnswerFraming, Edits, Persistence};
use crate::stream::Stream;
use crate::upstream::view::BackendView;

/// What came of looking for a head; but for `Partial` the head to send is in the worker's head buffer and so many bytes
/// were used.
#[derive(Clone, Copy, Debug)]
pub enum HeadTaken {
    /// More bytes are needed.
    Partial,
    /// An interim answer (not a 101).
    Interim(usize),
    /// The protocol was switched.
    Switched(usize),
    /// The final answer; its body follows.
    Final(usize),
}

/// Takes one head off the start of `bytes`. `end` remembers how far an earlier look came; `set_cookie` binds the client
/// to the backend.
///
/// # Errors
/// When the head is malformed, a 101 nobody asked for, or one without proof for a client that can't check it.
pub fn take_head(
    bytes: &[u8],
    end: &mut HeadEnd,
    client: &Client,
    exchange: &mut Exchange,
    down: &mut Download,
    view: &BackendView,
    set_cookie: Option<&str>,
) -> Result<HeadTaken, Fault> {
    let local = &client.local;
    let mut fields = local.fields.borrow_mut();
    let asked = Asked { head: exchange.request.is_head, upgrade: exchange.request.wants_upgrade };
    let Some((head, used)) = parse_response(bytes, end, asked, &HeadLimits::RESPONSE, &mut fields)? else {
        return Ok(HeadTaken::Partial);
    };
    if head.status() == 101 {
        check_proof(client, &head)?;
    }
    let mut out = local.head.borrow_mut();
    out.clear();
    view.stats.statuses.count(head.status());
    if head.is_interim() {
        // An HTTP/1.0 client knows no interim answers (RFC 9110, section 15.2).
        if exchange.request.version == Version::Http11 {
            write::write_interim(&mut out, &head);
        }
        return Ok(HeadTaken::Interim(used));
    }
    if let Some(load) = head.backend_load() {
        report(view, load, local.now_ms());
    }
    exchange.record.status = head.status();
    exchange.record.answered();
    let date = local.date();
    let edits = exchange.route.as_ref().map_or_else(Edits::default, |r| Edits::from(&r.conf.response_headers));
    if head.status() == 101 {
        let (framing, persistence) = (AnswerFraming::None, Persistence::Default);
        write::write_switching(&mut out, &head, &Answer { framing, persistence, date: &date, set_cookie, edits });
        return Ok(HeadTaken::Switched(used));
    }
    let framing = frame(&head, exchange, down);
    down.keep_backend = head.keep_alive();
    // What is still to come of a body could not be told from the next request.
    down.keep_client &= exchange.request.keep_alive && exchange.upload.is_received() && !local.draining.get();
    down.may_be_silent = head.is_event_stream() || head.is_grpc();
    if head.is_event_stream() {
        exchange.record.begin_event_stream(local);
    }
    let persistence = persistence(down.keep_client, exchange.request.version);
    write::write_response(&mut out, &head, &Answer { framing, persistence, date: &date, set_cookie, edits });
    Ok(HeadTaken::Final(used))
}

/// A client of HTTP/2 can't see whether its WebSocket was understood, as the key is ours: a 101 has to prove it here.
fn check_proof(client: &Client, head: &ResponseHead<'_>) -> Result<(), Fault> {
    let Stream::Incoming(incoming) = &client.stream else { return Ok(()) };
    match head.fields().get("Sec-WebSocket-Accept") {
        Some(accept) if incoming.is_proven_by(accept) => Ok(()),
        _ => Err(Fault::new(Reason::BackendUpgrade, "a 101 without the right Sec-WebSocket-Accept (RFC 6455 4.1)")),
    }
}

/// What a client of that version has to be told of its connection.
fn persistence(is_kept: bool, version: Version) -> Persistence {
    match (is_kept, version) {
        (true, Version::Http11) => Persistence::Default,
        (true, Version::Http10) => Persistence::KeepAlive,
        (false, _) => Persistence::Close,
    }
}

/// How the body comes from the backend and goes to the client.
fn frame(head: &ResponseHead<'_>, exchange: &Exchange, down: &mut Download) -> AnswerFraming {
    down.keep_client = true;
    down.sink = Sink::Identity;
    down.source = match head.framing() {
        ResponseFraming::None | ResponseFraming::Length(0) => Source::Done,
        ResponseFraming::Length(n) => Source::Length(n),
        ResponseFraming::Chunked => Source::chunked(Sender::Backend, Passing::of(head.is_grpc())),
        ResponseFraming::UntilClose => Source::UntilClose,
    };
    match head.framing() {
        ResponseFraming::None => AnswerFraming::None,
        ResponseFraming::Length(n) => AnswerFraming::Length(n),
        ResponseFraming::Chunked | ResponseFraming::UntilClose => match exchange.request.version {
            // Chunks tell a whole answer from a cut one, and the connection can be kept.
            Version::Http11 => {
                down.sink = Sink::Chunked;
                AnswerFraming::Chunked
            }
            Version::Http10 => {
                down.ends_with_close = true;
                down.keep_client = false;
                AnswerFraming::Close
            }
        },
    }
}

/// `X-Backend-Load`; what makes no sense is ignored, as it must not cost the client its answer.
fn report(view: &BackendView, field: &[u8], now_ms: u64) {
    if let Some(report) = std::str::from_utf8(field).ok().and_then(Report::parse) {
        view.state.update_load(|last| Score::after(last.map(Into::into), now_ms, report).into());
    }
}
