//! From the bytes of a request head to an exchange that is ready to go: parsed, routed, allowed, rewritten.
//!
//! Owns the order of these checks, all of them in one synchronous step, so that the head can be borrowed from the shared
//! scratch. Never sends and never waits.

use std::net::IpAddr;

use super::client::Client;
use super::exchange::{Exchange, RequestFacts, Verdict};
use crate::balance::ip_hash::client_key;
use crate::balance::{Algorithm, key};
use crate::config::plan::{self, HashOn, Server, Target};
use crate::error::{Fault, Reason};
use crate::http::body::Source;
use crate::http::class::classify;
use crate::http::framing::BodyFraming;
use crate::http::grpc;
use crate::http::head::{Method, RequestHead, TargetForm};
use crate::http::parse::{HeadEnd, HeadLimits, parse_request};
use crate::http::peer::client_address;
use crate::http::trailers::Passing;
use crate::http::write::{Edits, Forward, write_request};
use crate::upstream::view::{RouteView, UpstreamView, View};
use crate::wheel::ticks;

/// What came of looking at the bytes.
#[derive(Debug)]
pub enum Intake {
    /// A request, and how many bytes its head took.
    Request(Box<Exchange>, usize),
    /// More bytes are needed.
    Partial,
    /// No request; the connection closes after the answer.
    Refused(Fault),
}

/// Takes one request head off the start of `bytes`. `end` remembers how far an earlier look came.
pub fn take(client: &Client, bytes: &[u8], end: &mut HeadEnd) -> Intake {
    let local = &client.local;
    let view = local.view();
    let limits = HeadLimits { head_bytes: view.server.max_header_bytes, fields: view.server.max_headers };
    let mut fields = local.fields.borrow_mut();
    match parse_request(bytes, end, &limits, &mut fields) {
        Ok(Some((head, used))) => {
            // The body is counted when the exchange ends.
            local.stats.client_bytes_in.add(used as u64);
            let mut exchange = local.take_exchange();
            prepare(client, &view, &head, &mut exchange);
            Intake::Request(exchange, used)
        }
        Ok(None) => Intake::Partial,
        Err(fault) => Intake::Refused(fault),
    }
}

fn prepare(client: &Client, view: &View, head: &RequestHead<'_>, exchange: &mut Exchange) {
    let server = &view.server;
    let from =
        client_address(client.peer.ip(), head.fields(), &server.trusted_proxies, server.client_ip_header.as_deref());
    let kept_id = if from.peer_is_trusted { head.request_id() } else { None };
    exchange.record.begin(&client.local, kept_id, from.address, head, client.is_http2);
    if client.is_http2 && head.is_grpc() {
        begin_grpc(client, head, exchange);
    }
    exchange.protocol = Some(classify(head, client.tls));
    exchange.request = facts(head);
    exchange.verdict = match route(client, view, head, exchange, from.address) {
        Ok(verdict) => verdict,
        Err(fault) => Some(Verdict::Fault(fault)),
    };
    if exchange.verdict.is_some() {
        // The body is not forwarded, but it has to be got past for the next request.
        let source = Source::new(head.framing(), Passing::Http);
        exchange.upload.begin(&client.local, source, crate::limits::SCRATCH_BYTES, 0, |_| ());
        return;
    }
    let Some(route) = exchange.route.clone() else { return };
    let Some(upstream) = route.upstream.as_deref() else { return };
    exchange.key = hash_key(exchange.algorithm(), &upstream.conf.hash_on, head, from.address);
    exchange.sticky = upstream.sticky.as_ref().and_then(|s| s.read(head.fields().cookie(s.cookie())?));
    forward(client, server, &route, upstream, head, exchange, (from.address, from.peer_is_trusted));
}

/// What a gRPC call has that no other request has.
fn begin_grpc(client: &Client, head: &RequestHead<'_>, exchange: &mut Exchange) {
    exchange.is_grpc = head.fields().get("Content-Type").is_some_and(grpc::is_grpc);
    let timeout = head.fields().get("grpc-timeout").and_then(grpc::timeout);
    exchange.ends_at = timeout.map(|timeout| client.local.wheel.now().saturating_add(ticks(timeout)).saturating_add(1));
}

fn facts(head: &RequestHead<'_>) -> RequestFacts {
    RequestFacts {
        version: head.version(),
        is_head: head.method() == Method::Head,
        is_idempotent: head.method().is_idempotent(),
        keep_alive: head.keep_alive(),
        wants_upgrade: head.upgrade().is_some(),
    }
}

/// Finds the route and holds the request against it. `Some`: the proxy answers by itself.
fn route(
    client: &Client,
    view: &View,
    head: &RequestHead<'_>,
    exchange: &mut Exchange,
    address: IpAddr,
) -> Result<Option<Verdict>, Fault> {
    if let Some(port) = view.tls.as_ref().and_then(|tls| tls.redirect_port()).filter(|_| !client.tls) {
        let location = https_location(head, port)?;
        return Ok(Some(Verdict::Answer { status: 308, location: Some(location), body: Vec::new() }));
    }
    let mut room = client.local.path.borrow_mut();
    let path = matched_path(head, &mut room)?;
    let id = view.table.find(head.host(), path).ok_or(Reason::NoRoute)?;
    let route = view.routes.get(id.0 as usize).ok_or(Reason::NoRoute)?;
    exchange.route = Some(route.clone());
    if route.access.as_ref().is_some_and(|access| !access.allows(address)) {
        return Err(Reason::Denied.into());
    }
    let max = route.conf.max_body_bytes;
    if max > 0 && matches!(head.framing(), BodyFraming::Length(n) if n > max) {
        return Err(Reason::BodyTooLarge.into());
    }
    if head.method() == Method::Options && head.max_forwards() == Some(0) {
        // RFC 9110, section 7.6.2: the final recipient is here.
        return Ok(Some(Verdict::Answer { status: 204, location: None, body: Vec::new() }));
    }
    Ok(match &route.conf.target {
        Target::Upstream(_) => None,
        Target::Redirect { status, location } => {
            let location = expand(location, head, path);
            Some(Verdict::Answer { status: *status, location: Some(location), body: Vec::new() })
        }
        Target::Respond { status, body } => {
            Some(Verdict::Answer { status: *status, location: None, body: body.clone().into_bytes() })
        }
    })
}

/// Where the same is to be had over TLS.
fn https_location(head: &RequestHead<'_>, port: u16) -> Result<Vec<u8>, Fault> {
    if head.host().is_empty() {
        return Err(Fault::new(
            Reason::BadRequest,
            "only HTTPS is served, and without a host there is no place to send to",
        ));
    }
    let mut out = [b"https://", head.host()].concat();
    if port != 443 {
        out.extend_from_slice(format!(":{port}").as_bytes());
    }
    out.extend_from_slice(if head.form() == TargetForm::Asterisk { b"/" } else { head.path() });
    out.extend_from_slice(head.query_suffix());
    Ok(out)
}

/// The path that routes are matched with: always the canonical one, whatever is forwarded.
///
/// # Errors
/// [`Reason::BadRequest`] for a path that climbs above its root or has broken escapes.
pub fn matched_path<'a>(head: &RequestHead<'a>, room: &'a mut Vec<u8>) -> Result<&'a [u8], Fault> {
    if head.form() == TargetForm::Asterisk {
        return Ok(b"/");
    }
    // Also with `normalize: off`, where what is forwarded is not what was matched: a rule must not be got round by
    // writing its path in another way.
    head.canonical_path(room)
}

/// Writes the request as the backend gets it.
fn forward(
    client: &Client,
    server: &Server,
    route: &RouteView,
    upstream: &UpstreamView,
    head: &RequestHead<'_>,
    exchange: &mut Exchange,
    (address, peer_is_trusted): (IpAddr, bool),
) {
    let local = &client.local;
    let mut room = local.path.borrow_mut();
    let path = match head.form() {
        TargetForm::Asterisk => b"*".as_slice(),
        _ if server.normalize => head.canonical_path(&mut room).unwrap_or(head.path()),
        _ => head.path(),
    };
    let path = if route.conf.strip_prefix { strip(path, route.conf.path.as_bytes()) } else { path };
    let Exchange { upload, record, .. } = exchange;
    let forward = Forward {
        path,
        framing: head.framing(),
        peer: client.peer.ip(),
        client: address,
        peer_is_trusted,
        over_tls: client.tls,
        client_certificate: client.session.as_ref().and_then(|session| session.client_certificate.as_deref()),
        over_http2: client.is_http2,
        real_ip_header: &server.real_ip_header,
        client_ip_header: server.client_ip_header.as_deref(),
        request_id: record.request_id(),
        backend_host: &upstream.default_host,
        close: false,
        edits: Edits::from(&route.conf.request_headers),
    };
    let retry_bytes = if upstream.conf.retries > 0 { upstream.conf.retry_buffer } else { 0 };
    let source = Source::new(head.framing(), Passing::of(head.is_grpc()));
    upload.begin(local, source, retry_bytes, route.conf.max_body_bytes, |out| {
        write_request(out, head, &forward);
    });
}

/// The path without the route's own; never empty.
fn strip<'a>(path: &'a [u8], prefix: &[u8]) -> &'a [u8] {
    let prefix = prefix.strip_suffix(b"/").unwrap_or(prefix);
    match path.strip_prefix(prefix) {
        Some(rest) if rest.starts_with(b"/") => rest,
        Some([]) => b"/",
        _ => path,
    }
}

/// What the hash rules hash; 0 for the others.
pub fn hash_key(algorithm: Algorithm, hash_on: &HashOn, head: &RequestHead<'_>, client: IpAddr) -> u64 {
    match (algorithm, hash_on) {
        (Algorithm::Hash, HashOn::Header(name)) => head.fields().get(name).map_or(0, key::of_bytes),
        (Algorithm::Hash, HashOn::Cookie(name)) => head.fields().cookie(name).map_or(0, key::of_bytes),
        (Algorithm::Hash, HashOn::Uri) => key::of_bytes(head.target()),
        (Algorithm::IpHash, _) | (Algorithm::Hash, HashOn::ClientIp) => client_key(client),
        _ => 0,
    }
}

/// `${host}`, `${path}` and `${query}` (with its question mark) of a redirect's location.
fn expand(location: &str, head: &RequestHead<'_>, path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(location.len() + path.len());
    let mut rest = location;
    while let Some(at) = rest.find("${") {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at..];
        let (value, len): (&[u8], usize) = if rest.starts_with("${host}") {
            (head.authority().map_or(b"", |a| a.as_bytes()), 7)
        } else if rest.starts_with("${path}") {
            // At the front, two slashes would name another host (RFC 3986, section 4.2).
            let doubled = path.iter().take_while(|&&byte| byte == b'/').count().saturating_sub(1);
            (if out.is_empty() { &path[doubled..] } else { path }, 7)
        } else if rest.starts_with("${query}") {
            (head.query_suffix(), 8)
        } else {
            (b"${", 2)
        };
        out.extend_from_slice(value);
        rest = &rest[len..];
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

impl<'a> From<&'a plan::HeaderEdits> for Edits<'a> {
    fn from(edits: &'a plan::HeaderEdits) -> Self {
        Edits { set: &edits.set, add: &edits.add, remove: &edits.remove }
    }
}
