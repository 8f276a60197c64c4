//! Heads to bytes: what goes to a backend and what goes back to the client.
//!
//! Owns which fields end here, which are made anew and which are added. Never decides framing, routing or trust: those
//! come in as values. Appends to a buffer that the caller uses again and again; with room in it nothing allocates.
//!
//! Fields that end here: hop-by-hop ones (RFC 9110, section 7.6.1), those that a `Connection` field names, unless the
//! proxy sets them itself or the message would lose its host, framing or provenance, and look-alikes with underscores
//! of every name the proxy knows.

use std::net::IpAddr;

use crate::http::framing::{BodyFraming, ConnectionOptions};
use crate::http::head::{
    Entry, Field, FieldKind, Fields, RequestHead, ResponseHead, TargetForm, Version, field, same_name,
};

/// What routes change in the fields of a head, applied last. Names are tokens, values hold no control characters.
///
/// What a route sets or removes is removed under its look-alikes with underscores too. Fields of framing and of the
/// connection are never touched.
#[derive(Clone, Copy, Debug, Default)]
pub struct Edits<'a> {
    /// Replaces all fields of that name.
    pub set: &'a [(String, String)],
    /// Appended beside what is there.
    pub add: &'a [(String, String)],
    /// Removed.
    pub remove: &'a [String],
}

impl Edits<'_> {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    /// Whether fields of that name go because they are set anew or removed.
    pub fn replaces(&self, name: &[u8]) -> bool {
        self.set.iter().any(|(set, _)| same_name(set.as_bytes(), name))
            || self.remove.iter().any(|removed| same_name(removed.as_bytes(), name))
    }

    fn host(&self) -> Option<&str> {
        self.set.iter().find(|(name, _)| name.eq_ignore_ascii_case("host")).map(|(_, value)| value.as_str())
    }

    /// Appends the lines of what is set and added.
    pub fn write(&self, out: &mut Vec<u8>) {
        for (name, value) in self.set.iter().chain(self.add) {
            if !is_reserved(FieldKind::of(name.as_bytes())) {
                write_line(out, name.as_bytes(), value.as_bytes());
            }
        }
    }
}

/// Whether edits can't touch fields of that kind: the message would lose its host, its framing or its connection.
fn is_reserved(kind: FieldKind) -> bool {
    matches!(
        kind,
        FieldKind::Host
            | FieldKind::ContentLength
            | FieldKind::TransferEncoding
            | FieldKind::Connection
            | FieldKind::KeepAlive
            | FieldKind::ProxyConnection
            | FieldKind::Te
            | FieldKind::Trailer
            | FieldKind::Upgrade
    )
}

/// What [`write_request`] has to know beside the head.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'a> {
    /// The path to ask the backend for, without query; `*` stays `*`. Empty means `/`.
    pub path: &'a [u8],
    /// What `Host` says when the request has none (HTTP/1.0): the backend's `host:port`.
    pub backend_host: &'a str,
    /// How the body will be sent.
    pub framing: BodyFraming,
    /// The connection's peer: the last hop of `X-Forwarded-For`.
    pub peer: IpAddr,
    /// The client as [`crate::http::peer::client_address`] found it: the value of `real_ip_header`.
    pub client: IpAddr,
    /// Whether the forwarding fields that came with the request are kept.
    pub peer_is_trusted: bool,
    /// Whether the client's connection is TLS.
    pub over_tls: bool,
    /// The header that tells backends the client's address; a token. Left out when it means something else already.
    pub real_ip_header: &'a str,
    /// The header that only trusted peers may send.
    pub client_ip_header: Option<&'a str>,
    /// Visible ASCII: [`RequestHead::request_id`] of a trusted peer, else a made one.
    pub request_id: &'a [u8],
    /// Ask the backend to close after its answer.
    pub close: bool,
    pub edits: Edits<'a>,
}

/// Bytes that a written head may be longer than the one that came in, edits apart.
const GROWTH_BYTES: usize = 768;

/// Appends the head of the request as the backend gets it.
///
/// The target is in origin-form or `*`; `Host` is the client's, the authority of an absolute-form target, or what the
/// edits set; where there is none (HTTP/1.0) it is `backend_host`. The version is 1.1. `TE: trailers` is passed on
/// (RFC 9110, section 10.1.4), `Expect` too, but not from HTTP/1.0 clients.
pub fn write_request(out: &mut Vec<u8>, head: &RequestHead<'_>, forward: &Forward<'_>) {
    out.reserve(head.fields.head.len() + GROWTH_BYTES);
    write_request_line(out, head, forward);
    let keeps_host_line = write_host(out, head, forward);
    let rules = RequestRules::new(head, forward, keeps_host_line);
    copy_fields(out, head.fields, |field| rules.keeps(field));
    if let Some(left) = head.max_forwards {
        write_number(out, b"Max-Forwards", left.saturating_sub(1));
    }
    write_forwarding_fields(out, head, forward, rules.real_ip_kind);
    match forward.framing {
        BodyFraming::None => {}
        BodyFraming::Length(_) if rules.keeps_length => {}
        BodyFraming::Length(len) => write_content_length(out, len),
        BodyFraming::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
    }
    write_request_connection(out, head, forward);
    forward.edits.write(out);
    out.extend_from_slice(b"\r\n");
}

fn write_request_line(out: &mut Vec<u8>, head: &RequestHead<'_>, forward: &Forward<'_>) {
    out.extend_from_slice(head.method_name);
    out.push(b' ');
    out.extend_from_slice(if forward.path.is_empty() { b"/" } else { forward.path });
    out.extend_from_slice(head.query);
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// Writes `Host` first when it isn't the client's own line; whether that line is kept instead.
fn write_host(out: &mut Vec<u8>, head: &RequestHead<'_>, forward: &Forward<'_>) -> bool {
    let host = match (forward.edits.host(), head.authority) {
        (Some(host), _) => host.as_bytes(),
        (None, Some(_)) if head.form != TargetForm::Absolute => return true,
        (None, Some(authority)) => authority.as_bytes(),
        (None, None) => forward.backend_host.as_bytes(),
    };
    write_line(out, b"Host", host);
    false
}

/// Which fields of a request go on to the backend as they came.
struct RequestRules<'a, 'b> {
    head: &'a RequestHead<'b>,
    forward: &'a Forward<'a>,
    keeps_host: bool,
    keeps_length: bool,
    keeps_trailer: bool,
    /// Fields have to be looked at by name: an edit, a `Connection` option or a configured header may take them.
    by_name: bool,
    real_ip_kind: FieldKind,
}

impl<'a, 'b> RequestRules<'a, 'b> {
    fn new(head: &'a RequestHead<'b>, forward: &'a Forward<'a>, keeps_host: bool) -> RequestRules<'a, 'b> {
        let real_ip_kind = FieldKind::of(forward.real_ip_header.as_bytes());
        RequestRules {
            head,
            forward,
            keeps_host,
            keeps_length: forward.framing == head.framing && matches!(head.framing, BodyFraming::Length(_)),
            keeps_trailer: forward.framing == BodyFraming::Chunked,
            by_name: real_ip_kind != FieldKind::XRealIp
                || (forward.client_ip_header.is_some() && !forward.peer_is_trusted)
                || head.connection.names_fields
                || !forward.edits.is_empty(),
            real_ip_kind,
        }
    }

    #[inline]
    fn keeps(&self, field: Field<'_>) -> bool {
        let trusted = self.forward.peer_is_trusted;
        let keeps = match field.kind {
            FieldKind::Host => return self.keeps_host,
            FieldKind::ContentLength => return self.keeps_length,
            FieldKind::Trailer => return self.keeps_trailer,
            FieldKind::Connection
            | FieldKind::KeepAlive
            | FieldKind::ProxyConnection
            | FieldKind::ProxyAuthenticate
            | FieldKind::ProxyAuthenticationInfo
            | FieldKind::ProxyAuthorization
            | FieldKind::Te
            | FieldKind::TransferEncoding
            | FieldKind::Upgrade
            | FieldKind::Http2Settings
            | FieldKind::XForwardedFor
            | FieldKind::XRequestId
            | FieldKind::LookAlike => return false,
            FieldKind::XRealIp => trusted && self.real_ip_kind != FieldKind::XRealIp,
            FieldKind::ClientCert
            | FieldKind::Forwarded
            | FieldKind::XForwardedHost
            | FieldKind::XForwardedOther
            | FieldKind::XForwardedProto => trusted,
            FieldKind::MaxForwards => self.head.max_forwards.is_none(),
            FieldKind::Expect => self.head.version == Version::Http11,
            FieldKind::Other
            | FieldKind::Accept
            | FieldKind::ContentType
            | FieldKind::Cookie
            | FieldKind::Date
            | FieldKind::Via
            | FieldKind::XBackendLoad => true,
        };
        keeps && (!self.by_name || self.keeps_name(field))
    }

    fn keeps_name(&self, field: Field<'_>) -> bool {
        let Forward { real_ip_header, client_ip_header, peer_is_trusted, edits, .. } = self.forward;
        let forged = client_ip_header.filter(|_| !peer_is_trusted);
        let is_made_anew = same_name(field.name, real_ip_header.as_bytes())
            || forged.is_some_and(|name| same_name(field.name, name.as_bytes()))
            || edits.replaces(field.name);
        !is_made_anew && !ends_here(self.head.fields, self.head.connection, field)
    }
}

/// Whether a `Connection` field names this one and is heeded.
fn ends_here(fields: Fields<'_>, connection: ConnectionOptions, field: Field<'_>) -> bool {
    connection.names_fields && !is_provenance(field.kind) && fields.connection_names(field.name)
}

/// Whether fields of that kind tell the way of a message; a `Connection` option can't take them off.
fn is_provenance(kind: FieldKind) -> bool {
    matches!(
        kind,
        FieldKind::ClientCert
            | FieldKind::Date
            | FieldKind::Forwarded
            | FieldKind::Via
            | FieldKind::XForwardedHost
            | FieldKind::XForwardedOther
            | FieldKind::XForwardedProto
            | FieldKind::XRealIp
    )
}

/// Writes what tells the backend where the request comes from.
fn write_forwarding_fields(out: &mut Vec<u8>, head: &RequestHead<'_>, forward: &Forward<'_>, real_ip_kind: FieldKind) {
    let edits = &forward.edits;
    let writes = |name: &str| edits.is_empty() || !edits.replaces(name.as_bytes());
    let keeps = |kind| forward.peer_is_trusted && head.fields.of_kind(kind).next().is_some();
    if writes("X-Forwarded-For") {
        write_forwarded_for(out, head, forward);
    }
    if writes("X-Forwarded-Proto") && !keeps(FieldKind::XForwardedProto) {
        out.extend_from_slice(match forward.over_tls {
            true => b"X-Forwarded-Proto: https\r\n" as &[u8],
            false => b"X-Forwarded-Proto: http\r\n",
        });
    }
    if writes("X-Forwarded-Host")
        && !keeps(FieldKind::XForwardedHost)
        && let Some(authority) = head.authority
    {
        write_line(out, b"X-Forwarded-Host", authority.as_bytes());
    }
    if may_tell_the_address(real_ip_kind) && writes(forward.real_ip_header) {
        out.extend_from_slice(forward.real_ip_header.as_bytes());
        out.extend_from_slice(b": ");
        write_address(out, forward.client);
        out.extend_from_slice(b"\r\n");
    }
    if writes("X-Request-ID") {
        write_line(out, b"X-Request-ID", forward.request_id);
    }
    if writes("Via") {
        write_via(out, head.version);
    }
}

/// Whether a field of that kind can carry the client's address; `X-Forwarded-For` does so already.
fn may_tell_the_address(kind: FieldKind) -> bool {
    matches!(kind, FieldKind::Other | FieldKind::XRealIp | FieldKind::XForwardedOther)
}

fn write_forwarded_for(out: &mut Vec<u8>, head: &RequestHead<'_>, forward: &Forward<'_>) {
    out.extend_from_slice(b"X-Forwarded-For: ");
    if forward.peer_is_trusted {
        for value in head.fields.of_kind(FieldKind::XForwardedFor).filter(|value| !value.is_empty()) {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
    }
    write_address(out, forward.peer);
    out.extend_from_slice(b"\r\n");
}

/// A field line of its own: the same list as one more member at the end (RFC 9110, sections 5.3 and 7.6.3).
fn write_via(out: &mut Vec<u8>, received: Version) {
    out.extend_from_slice(match received {
        Version::Http10 => b"Via: 1.0 speedmimi\r\n",
        Version::Http11 => b"Via: 1.1 speedmimi\r\n",
    });
}

/// Writes the fields of the connection to the backend.
fn write_request_connection(out: &mut Vec<u8>, head: &RequestHead<'_>, forward: &Forward<'_>) {
    if let Some(protocol) = head.upgrade {
        out.extend_from_slice(b"Connection: Upgrade\r\n");
        write_line(out, b"Upgrade", protocol);
        return;
    }
    match (head.wants_trailers, forward.close) {
        (false, false) => {}
        (false, true) => out.extend_from_slice(b"Connection: close\r\n"),
        (true, false) => out.extend_from_slice(b"TE: trailers\r\nConnection: TE\r\n"),
        (true, true) => out.extend_from_slice(b"TE: trailers\r\nConnection: TE, close\r\n"),
    }
}

/// How the body of an answer is sent to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerFraming {
    /// None; a `Content-Length` that tells what `GET` would have got stays (answers to `HEAD`, 304).
    None,
    Length(u64),
    Chunked,
    /// The end of the connection ends it; goes with [`Persistence::Close`].
    Close,
}

/// What the `Connection` field of an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// Nothing: the connection persists by the rules of HTTP/1.1.
    Default,
    /// `close`.
    Close,
    /// `keep-alive`, for HTTP/1.0 clients that asked for it.
    KeepAlive,
}

/// What [`write_response`] has to know beside the head.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    pub framing: AnswerFraming,
    pub persistence: Persistence,
    /// Now as an IMF-fixdate (RFC 9110, section 5.6.7), for answers without `Date`.
    pub date: &'a [u8; 29],
    /// Value of a `Set-Cookie` field to add.
    pub set_cookie: Option<&'a str>,
    pub edits: Edits<'a>,
}

/// Appends the head of a final answer as the client gets it; the version is 1.1, the reason phrase the backend's.
pub fn write_response(out: &mut Vec<u8>, head: &ResponseHead<'_>, answer: &Answer<'_>) {
    let keeps_length = match answer.framing {
        AnswerFraming::None => head.status != 204,
        AnswerFraming::Length(len) => head.plain_length == Some(len),
        AnswerFraming::Chunked | AnswerFraming::Close => false,
    };
    let keeps_trailer = answer.framing == AnswerFraming::Chunked;
    write_answer(out, head, answer, keeps_length, keeps_trailer);
    match answer.framing {
        AnswerFraming::None | AnswerFraming::Close => {}
        AnswerFraming::Length(_) if keeps_length => {}
        AnswerFraming::Length(len) => write_content_length(out, len),
        AnswerFraming::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
    }
    // 426 has to say which protocol to upgrade to (RFC 9110, section 15.5.22).
    let wanted = head.upgrade.filter(|_| head.status == 426);
    if let Some(protocol) = wanted {
        write_line(out, b"Upgrade", protocol);
    }
    out.extend_from_slice(match (answer.persistence, wanted.is_some()) {
        (Persistence::Default, false) => b"",
        (Persistence::Default, true) => b"Connection: Upgrade\r\n",
        (Persistence::Close, false) => b"Connection: close\r\n" as &[u8],
        (Persistence::Close, true) => b"Connection: Upgrade, close\r\n",
        (Persistence::KeepAlive, false) => b"Connection: keep-alive\r\n",
        (Persistence::KeepAlive, true) => b"Connection: Upgrade, keep-alive\r\n",
    });
    out.extend_from_slice(b"\r\n");
}

/// Appends the head of the 101 that begins a tunnel; of `answer` only `date`, `set_cookie` and `edits` count.
pub fn write_switching(out: &mut Vec<u8>, head: &ResponseHead<'_>, answer: &Answer<'_>) {
    write_answer(out, head, answer, false, false);
    out.extend_from_slice(b"Connection: Upgrade\r\n");
    write_line(out, b"Upgrade", head.upgrade.unwrap_or(b""));
    out.extend_from_slice(b"\r\n");
}

/// Appends the head of an interim answer (1xx but 101): its status and its end-to-end fields.
pub fn write_interim(out: &mut Vec<u8>, head: &ResponseHead<'_>) {
    out.reserve(head.fields.head.len() + GROWTH_BYTES);
    write_status_line(out, head);
    let rules = ResponseRules { head, edits: Edits::default(), keeps_length: false, keeps_trailer: false };
    copy_fields(out, head.fields, |field| rules.keeps(field));
    out.extend_from_slice(b"\r\n");
}

/// Status line and all fields but those of framing and connection.
fn write_answer(
    out: &mut Vec<u8>,
    head: &ResponseHead<'_>,
    answer: &Answer<'_>,
    keeps_length: bool,
    keeps_trailer: bool,
) {
    let edits = answer.edits;
    out.reserve(head.fields.head.len() + GROWTH_BYTES);
    write_status_line(out, head);
    let rules = ResponseRules { head, edits, keeps_length, keeps_trailer };
    copy_fields(out, head.fields, |field| rules.keeps(field));
    let writes = |name: &[u8]| edits.is_empty() || !edits.replaces(name);
    if !head.has_date && writes(b"date") {
        write_line(out, b"Date", answer.date);
    }
    if writes(b"via") {
        write_via(out, head.version);
    }
    if let Some(cookie) = answer.set_cookie {
        write_line(out, b"Set-Cookie", cookie.as_bytes());
    }
    edits.write(out);
}

fn write_status_line(out: &mut Vec<u8>, head: &ResponseHead<'_>) {
    let [a, b, c] = [head.status / 100, head.status / 10 % 10, head.status % 10].map(|digit| b'0' + digit as u8);
    out.extend_from_slice(&[b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1', b' ', a, b, c, b' ']);
    out.extend_from_slice(head.reason);
    out.extend_from_slice(b"\r\n");
}

/// Which fields of a response go on to the client as they came.
struct ResponseRules<'a, 'b> {
    head: &'a ResponseHead<'b>,
    edits: Edits<'a>,
    keeps_length: bool,
    keeps_trailer: bool,
}

impl ResponseRules<'_, '_> {
    #[inline]
    fn keeps(&self, field: Field<'_>) -> bool {
        match field.kind {
            FieldKind::ContentLength => return self.keeps_length,
            FieldKind::Trailer => return self.keeps_trailer,
            FieldKind::Connection
            | FieldKind::KeepAlive
            | FieldKind::ProxyConnection
            | FieldKind::ProxyAuthenticate
            | FieldKind::ProxyAuthenticationInfo
            | FieldKind::ProxyAuthorization
            | FieldKind::Te
            | FieldKind::TransferEncoding
            | FieldKind::Upgrade
            | FieldKind::Http2Settings
            | FieldKind::XBackendLoad
            | FieldKind::LookAlike => return false,
            _ => {}
        }
        !ends_here(self.head.fields, self.head.connection, field)
            && (self.edits.is_empty() || !self.edits.replaces(field.name))
    }
}

/// Copies the fields that `keeps` lets through, neighbouring canonical lines in one go.
#[inline]
fn copy_fields(out: &mut Vec<u8>, fields: Fields<'_>, keeps: impl Fn(Field<'_>) -> bool) {
    let mut run = 0..0;
    for entry in fields.entries {
        let field = field(fields.head, entry);
        if !keeps(field) {
            continue;
        }
        if is_next_line(entry, run.end) {
            run.end = entry.line_end();
            continue;
        }
        out.extend_from_slice(&fields.head[run]);
        run = 0..0;
        if entry.is_canonical {
            run = entry.name_start as usize..entry.line_end();
        } else {
            write_line(out, field.name, field.value);
        }
    }
    out.extend_from_slice(&fields.head[run]);
}

#[inline]
fn is_next_line(entry: &Entry, run_end: usize) -> bool {
    entry.is_canonical && entry.name_start as usize == run_end
}

/// Appends one field line.
#[inline]
pub fn write_line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn write_content_length(out: &mut Vec<u8>, len: u64) {
    write_number(out, b"Content-Length", len);
}

fn write_number(out: &mut Vec<u8>, name: &[u8], number: u64) {
    write_line(out, name, itoa::Buffer::new().format(number).as_bytes());
}

/// Writes an address as text, an IPv4-mapped one as IPv4.
pub fn write_address(out: &mut Vec<u8>, address: IpAddr) {
    use std::io::Write;
    match address.to_canonical() {
        IpAddr::V4(v4) => write_v4(out, v4.octets()),
        // Writing to a vector cannot fail.
        IpAddr::V6(v6) => drop(write!(out, "{v6}")),
    }
}

/// From a table, because the formatter of the standard library costs several times as much, twice a request.
fn write_v4(out: &mut Vec<u8>, octets: [u8; 4]) {
    let mut text = [0u8; 16];
    let mut len = 0;
    for octet in octets {
        let Octet { digits, width } = OCTETS[usize::from(octet)];
        text[len..len + 4].copy_from_slice(&digits);
        len += usize::from(width);
    }
    out.extend_from_slice(&text[..len - 1]);
}

/// An octet in decimal with a dot behind it.
#[derive(Clone, Copy)]
struct Octet {
    digits: [u8; 4],
    /// Bytes of `digits` that count, the dot among them.
    width: u8,
}

static OCTETS: [Octet; 256] = {
    let mut table = [Octet { digits: [0; 4], width: 0 }; 256];
    let mut n = 0;
    while n < 256 {
        let (a, b, c) = (b'0' + (n / 100) as u8, b'0' + (n / 10 % 10) as u8, b'0' + (n % 10) as u8);
        table[n] = match n {
            0..10 => Octet { digits: [c, b'.', 0, 0], width: 2 },
            10..100 => Octet { digits: [b, c, b'.', 0], width: 3 },
            _ => Octet { digits: [a, b, c, b'.'], width: 4 },
        };
        n += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::framing::ResponseFraming;
    use crate::http::head::FieldTable;
    use crate::http::parse::{Asked, HeadEnd, HeadLimits, parse_request, parse_response};
    use proptest::prelude::*;

    const FORWARD: Forward<'static> = Forward {
        path: b"/p",
        backend_host: "backend:81",
        framing: BodyFraming::None,
        peer: IpAddr::V4(std::net::Ipv4Addr::new(9, 8, 7, 6)),
        client: IpAddr::V4(std::net::Ipv4Addr::new(1, 2, 3, 4)),
        peer_is_trusted: false,
        over_tls: false,
        real_ip_header: "X-Real-IP",
        client_ip_header: None,
        request_id: b"id-1",
        close: false,
        edits: Edits { set: &[], add: &[], remove: &[] },
    };
    const TRUSTED: Forward<'static> = Forward { peer_is_trusted: true, ..FORWARD };

    /// The lines that a request with these lines is forwarded as, framing as it came.
    fn forwarded(text: &str, forward: &Forward<'_>) -> Vec<String> {
        let mut table = FieldTable::default();
        let end = &mut HeadEnd::default();
        let (head, _) = parse_request(text.as_bytes(), end, &HeadLimits::RESPONSE, &mut table).unwrap().unwrap();
        let mut out = b"before ".to_vec();
        write_request(&mut out, &head, &Forward { framing: head.framing(), ..*forward });
        lines(&out, "before ")
    }

    fn lines(out: &[u8], before: &str) -> Vec<String> {
        let text = std::str::from_utf8(out).unwrap();
        let text = text.strip_prefix(before).unwrap().strip_suffix("\r\n\r\n").unwrap();
        text.split("\r\n").map(str::to_owned).collect()
    }

    fn get(lines: &str, forward: &Forward<'_>) -> Vec<String> {
        forwarded(&format!("GET /x?q HTTP/1.1\r\nHost: a\r\n{lines}\r\n"), forward)
    }

    /// What the proxy adds for an untrusted peer.
    const ADDED: [&str; 6] = [
        "X-Forwarded-For: 9.8.7.6",
        "X-Forwarded-Proto: http",
        "X-Forwarded-Host: a",
        "X-Real-IP: 1.2.3.4",
        "X-Request-ID: id-1",
        "Via: 1.1 speedmimi",
    ];

    /// Start line, host, `between`, what is added, `after`.
    fn expected(between: &[&str], after: &[&str]) -> Vec<String> {
        [&["GET /p?q HTTP/1.1", "Host: a"], between, &ADDED, after].concat().into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn a_request_goes_on_as_it_came() {
        let lines = "Accept: */*\r\nA:b\r\nB: c \r\nCookie: d=e\r\nCookie: f=g\r\nX-Empty:\r\nVia: 1.0 x\r\nExpect: 100-continue\r\n";
        let between = [
            "Accept: */*",
            "A: b",
            "B: c",
            "Cookie: d=e",
            "Cookie: f=g",
            "X-Empty: ",
            "Via: 1.0 x",
            "Expect: 100-continue",
        ];
        assert_eq!(get(lines, &FORWARD), expected(&between, &[]));
    }

    #[test]
    fn fields_of_the_connection_end_here() {
        let lines = "Connection: keep-alive, X-Secret\r\nKeep-Alive: timeout=5\r\nProxy-Connection: close\r\nTrailer: A\r\n\
                     Upgrade: websocket\r\nHTTP2-Settings: A\r\nProxy-Authorization: A\r\nx-secret: 1\r\nX-Other: 2\r\nTE: gzip\r\n";
        assert_eq!(get(lines, &FORWARD), expected(&["X-Other: 2"], &[]));
    }

    #[test]
    fn naming_vital_fields_in_connection_removes_nothing() {
        let lines = "Connection: close, Host, Via, Content-Length, Transfer-Encoding, X-Forwarded-For, X-Real-IP, X-Request-ID\r\n\
                     Content-Length: 3\r\nVia: 1.1 x\r\n";
        assert_eq!(get(lines, &FORWARD), expected(&["Content-Length: 3", "Via: 1.1 x"], &[]));
    }

    #[test]
    fn an_untrusted_peer_cannot_forge_where_it_comes_from() {
        let lines = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\n\
                     Forwarded: for=6\r\nX-Real-IP: 6\r\nX-Request-ID: 6\r\nX_Forwarded_For: 6\r\nX_Real-IP: 6\r\nx_request_id: 6\r\n";
        assert_eq!(get(lines, &FORWARD), expected(&[], &[]));
        let named = Forward { client_ip_header: Some("CF-IP"), ..FORWARD };
        assert_eq!(get("CF-IP: 6\r\ncf_ip: 6\r\nCF-IP2: 7\r\n", &named), expected(&["CF-IP2: 7"], &[]));
    }

    #[test]
    fn a_trusted_peer_is_believed() {
        let lines = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 5.5.5.5\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: h\r\n\
                     X-Forwarded-Port: 1\r\nForwarded: for=6\r\nX-Real-IP: 6\r\nX_Forwarded_For: 6\r\n";
        let got = get(lines, &TRUSTED);
        let wanted = [
            "GET /p?q HTTP/1.1",
            "Host: a",
            "X-Forwarded-Proto: https",
            "X-Forwarded-Host: h",
            "X-Forwarded-Port: 1",
            "Forwarded: for=6",
            "X-Forwarded-For: 6.6.6.6, 5.5.5.5, 9.8.7.6",
            "X-Real-IP: 1.2.3.4",
            "X-Request-ID: id-1",
            "Via: 1.1 speedmimi",
        ];
        assert_eq!(got, wanted);
    }

    #[test]
    fn forwards_are_counted_down_and_certificates_are_not_forged() {
        let got = forwarded("OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 010\r\n\r\n", &FORWARD);
        assert_eq!(got[2], "Max-Forwards: 9");
        assert_eq!(get("Max-Forwards: 0\r\n", &FORWARD), expected(&["Max-Forwards: 0"], &[]));
        assert_eq!(
            get("Client-Cert: :AA==:\r\nclient_cert: x\r\nClient-Cert-Chain: x\r\n", &FORWARD),
            expected(&[], &[])
        );
        assert!(get("Client-Cert: x\r\n", &TRUSTED).contains(&"Client-Cert: x".into()));
    }

    #[test]
    fn the_real_ip_header_can_have_another_name() {
        let forward = Forward { real_ip_header: "True-Client-IP", ..FORWARD };
        let got = get("True-Client-IP: 6\r\ntrue_client_ip: 6\r\nX-Real-IP: 6\r\n", &forward);
        assert!(
            got.contains(&"True-Client-IP: 1.2.3.4".into()) && got.iter().all(|line| !line.ends_with(": 6")),
            "{got:?}"
        );
        for name in ["X-Forwarded-For", "Content-Length", "Host", "Transfer-Encoding"] {
            let got = get("", &Forward { real_ip_header: name, ..FORWARD });
            assert!(got.iter().filter(|line| line.starts_with(name)).count() <= 1, "{name}");
            assert!(!got.contains(&format!("{name}: 1.2.3.4")), "{name}");
        }
    }

    #[test]
    fn host_is_the_clients_the_targets_or_the_routes() {
        let host = |text: &str, forward: &Forward<'_>| {
            let mut got = forwarded(text, forward);
            got.retain(|line| line.to_ascii_lowercase().starts_with("host:"));
            got
        };
        assert_eq!(host("GET / HTTP/1.1\r\nhost:a:1\r\n\r\n", &FORWARD), ["host: a:1"]);
        assert_eq!(host("GET http://b:2/ HTTP/1.1\r\nHost: a\r\n\r\n", &FORWARD), ["Host: b:2"]);
        assert_eq!(host("GET http://b/ HTTP/1.0\r\n\r\n", &FORWARD), ["Host: b"]);
        assert_eq!(host("GET / HTTP/1.0\r\n\r\n", &FORWARD), ["Host: backend:81"]);
        assert_eq!(forwarded("GET / HTTP/1.0\r\n\r\n", &FORWARD).iter().filter(|line| line.ends_with(": ")).count(), 0);
        let set = [("host".to_owned(), "c".to_owned())];
        let forward = Forward { edits: Edits { set: &set, ..Edits::default() }, ..FORWARD };
        assert_eq!(host("GET / HTTP/1.1\r\nHost: a\r\n\r\n", &forward), ["Host: c"]);
    }

    #[test]
    fn edits_come_last_and_spare_the_framing() {
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let set =
            pairs(&[("X-User", "op"), ("X-Forwarded-Proto", "https"), ("Content-Length", "9"), ("Connection", "x")]);
        let add = pairs(&[("A", "2")]);
        let remove = ["via".to_owned(), "b".to_owned(), "content-length".to_owned(), "host".to_owned()];
        let forward = Forward { edits: Edits { set: &set, add: &add, remove: &remove }, ..FORWARD };
        let got = get("A: 1\r\nB: 1\r\nX-User: evil\r\nX_User: evil\r\nContent-Length: 3\r\n", &forward);
        let wanted = [
            "GET /p?q HTTP/1.1",
            "Host: a",
            "A: 1",
            "Content-Length: 3",
            "X-Forwarded-For: 9.8.7.6",
            "X-Forwarded-Host: a",
            "X-Real-IP: 1.2.3.4",
            "X-Request-ID: id-1",
            "X-User: op",
            "X-Forwarded-Proto: https",
            "A: 2",
        ];
        assert_eq!(got, wanted);
    }

    #[test]
    fn framing_is_made_anew() {
        let chunked = expected(&["Trailer: A"], &["Transfer-Encoding: chunked"]);
        assert_eq!(get("transfer-encoding: CHUNKED\r\nTrailer: A\r\n", &FORWARD), chunked);
        assert_eq!(get("Content-Length:0\r\n", &FORWARD), expected(&["Content-Length: 0"], &[]));
        let mut table = FieldTable::default();
        let text = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let end = &mut HeadEnd::default();
        let (head, _) = parse_request(text, end, &HeadLimits::RESPONSE, &mut table).unwrap().unwrap();
        let mut out = Vec::new();
        write_request(&mut out, &head, &Forward { framing: BodyFraming::Length(12), ..FORWARD });
        let got = lines(&out, "");
        assert!(got.contains(&"Content-Length: 12".into()) && !got.iter().any(|line| line.contains("chunked")));
    }

    #[test]
    fn what_the_connection_does_next_is_said_anew() {
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\nTE: trailers\r\n";
        let close = Forward { close: true, ..FORWARD };
        assert_eq!(
            get(upgrade, &FORWARD),
            expected(&["Sec-WebSocket-Key: k"], &["Connection: Upgrade", "Upgrade: websocket"])
        );
        assert_eq!(
            get("TE: trailers\r\nConnection: te\r\n", &FORWARD),
            expected(&[], &["TE: trailers", "Connection: TE"])
        );
        assert_eq!(get("TE: trailers\r\n", &close), expected(&[], &["TE: trailers", "Connection: TE, close"]));
        assert_eq!(get("Connection: keep-alive\r\n", &close), expected(&[], &["Connection: close"]));
    }

    #[test]
    fn an_http_1_0_request_is_forwarded_as_1_1() {
        let got = forwarded("GET / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n", &FORWARD);
        assert_eq!(got[0], "GET /p HTTP/1.1");
        assert!(got.contains(&"Via: 1.0 speedmimi".into()) && !got.iter().any(|line| line.starts_with("Expect")));
    }

    const DATE: &[u8; 29] = b"Sun, 22 Nov 2026 11:00:00 GMT";

    fn answer(framing: AnswerFraming) -> Answer<'static> {
        Answer { framing, persistence: Persistence::Default, date: DATE, set_cookie: None, edits: Edits::default() }
    }

    fn answered(text: &str, write: impl Fn(&mut Vec<u8>, &ResponseHead<'_>)) -> Vec<String> {
        let mut table = FieldTable::default();
        let asked = Asked { head: false, upgrade: true };
        let end = &mut HeadEnd::default();
        let (head, _) =
            parse_response(text.as_bytes(), end, asked, &HeadLimits::RESPONSE, &mut table).unwrap().unwrap();
        let mut out = Vec::new();
        write(&mut out, &head);
        lines(&out, "")
    }

    #[test]
    fn a_response_goes_back_as_it_came() {
        let text = "HTTP/1.0 200 Very well\r\nServer: x\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nContent-Length: 3\r\nConnection: keep-alive, X-Hop\r\n\
                    X-Hop: 1\r\nKeep-Alive: 5\r\nX-Backend-Load: cpu=1\r\nUpgrade: h2c\r\n\r\n";
        let got = answered(text, |out, head| write_response(out, head, &answer(AnswerFraming::Length(3))));
        let wanted = [
            "HTTP/1.1 200 Very well",
            "Server: x",
            "Set-Cookie: a=b",
            "Set-Cookie: c=d",
            "Content-Length: 3",
            "Date: Sun, 22 Nov 2026 11:00:00 GMT",
            "Via: 1.0 speedmimi",
        ];
        assert_eq!(got, wanted);
    }

    #[test]
    fn the_caller_says_how_an_answer_ends() {
        let text = "HTTP/1.1 200 OK\r\nDate: now\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\n";
        let of = |framing, persistence| {
            let answer = Answer { persistence, set_cookie: Some("s=1"), ..answer(framing) };
            answered(text, |out, head| write_response(out, head, &answer))
        };
        let start = ["HTTP/1.1 200 OK", "Date: now"];
        let added = ["Via: 1.1 speedmimi", "Set-Cookie: s=1"];
        let chunked = [&start[..], &["Trailer: A"], &added, &["Transfer-Encoding: chunked"]].concat();
        assert_eq!(of(AnswerFraming::Chunked, Persistence::Default), chunked);
        let close = [&start[..], &added, &["Connection: close"]].concat();
        assert_eq!(of(AnswerFraming::Close, Persistence::Close), close);
        let kept = [&start[..], &added, &["Content-Length: 0", "Connection: keep-alive"]].concat();
        assert_eq!(of(AnswerFraming::Length(0), Persistence::KeepAlive), kept);
    }

    #[test]
    fn an_answer_without_body_keeps_the_length_it_tells_of() {
        let of = |status: u16| {
            let text = format!("HTTP/1.1 {status} X\r\nDate: now\r\nContent-Length: 3\r\n\r\n");
            answered(&text, |out, head| write_response(out, head, &answer(AnswerFraming::None)))
        };
        assert!(of(304).contains(&"Content-Length: 3".into()) && of(200).contains(&"Content-Length: 3".into()));
        assert!(!of(204).contains(&"Content-Length: 3".into()));
    }

    #[test]
    fn interim_and_switching_answers_are_relayed() {
        let text = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 0\r\nX-Backend-Load: cpu=1\r\n\r\n";
        assert_eq!(answered(text, write_interim), ["HTTP/1.1 103 Early Hints", "Link: </a>"]);
        let text = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: k\r\n\r\n";
        let got = answered(text, |out, head| write_switching(out, head, &answer(AnswerFraming::None)));
        let wanted = [
            "HTTP/1.1 101 Switching Protocols",
            "Sec-WebSocket-Accept: k",
            "Date: Sun, 22 Nov 2026 11:00:00 GMT",
            "Via: 1.1 speedmimi",
            "Connection: Upgrade",
            "Upgrade: websocket",
        ];
        assert_eq!(got, wanted);
        let text = "HTTP/1.1 426 Upgrade Required\r\nDate: now\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n";
        let got = answered(text, |out, head| write_response(out, head, &answer(AnswerFraming::Length(0))));
        assert!(got.ends_with(&["Upgrade: websocket".into(), "Connection: Upgrade".into()]));
    }

    #[test]
    fn addresses_are_written_in_their_usual_form() {
        for (address, text) in [
            ("0.0.0.0", "0.0.0.0"),
            ("255.10.0.9", "255.10.0.9"),
            ("::ffff:1.2.3.4", "1.2.3.4"),
            ("2001:DB8::1", "2001:db8::1"),
        ] {
            let mut out = Vec::new();
            write_address(&mut out, address.parse().unwrap());
            assert_eq!(out, text.as_bytes());
        }
    }

    fn any_line() -> impl Strategy<Value = String> {
        let name = prop_oneof![
            2 => "[A-Za-z_-]{1,8}",
            3 => prop::sample::select(vec![
                "Connection", "Content-Length", "Transfer-Encoding", "TE", "Upgrade", "X-Forwarded-For", "X_Forwarded_For", "Via", "Forwarded",
                "Content-Length ", "Keep-Alive", "Expect", "Trailer", "X-Real-IP", "Cookie", "Host",
            ]).prop_map(str::to_owned),
        ];
        let value = prop_oneof![
            "[ -~\t]{0,12}",
            "[\u{0}-\u{ff}]{0,4}",
            prop::sample::select(vec![
                "chunked",
                "5",
                "5, 5",
                "close, host",
                "x-a, via",
                "upgrade",
                "websocket",
                "trailers",
                "1.1.1.1",
                "a\r\nB: c",
                "a\nB: c"
            ])
            .prop_map(str::to_owned),
        ];
        (name, prop_oneof![Just(":"), Just(": "), Just(":\t ")], value)
            .prop_map(|(name, colon, value)| format!("{name}{colon}{value}\r\n"))
    }

    fn any_request() -> impl Strategy<Value = String> {
        let start = prop_oneof![
            3 => Just("GET /a?b HTTP/1.1"),
            1 => Just("POST http://h:1/a/../b HTTP/1.1"),
            1 => Just("OPTIONS * HTTP/1.1"),
            1 => Just("WHAT /%41 HTTP/1.0"),
        ];
        (start, prop::collection::vec(any_line(), 0..6))
            .prop_map(|(start, lines)| format!("{start}\r\nHost: a\r\n{}\r\n", lines.concat()))
    }

    proptest! {
        #[test]
        fn a_written_request_reads_back_with_the_same_meaning(text in any_request(), trusted in any::<bool>()) {
            let mut table = FieldTable::default();
            let parsed = parse_request(text.as_bytes(), &mut HeadEnd::default(), &HeadLimits::RESPONSE, &mut table);
            if let Ok(Some((head, _))) = parsed {
                let mut out = Vec::new();
                let base = if trusted { TRUSTED } else { FORWARD };
                write_request(&mut out, &head, &Forward { path: head.path(), framing: head.framing(), ..base });
                prop_assert!(out.iter().zip(&out[1..]).all(|(a, b)| (*a == b'\r') == (*b == b'\n')));
                let mut table = FieldTable::default();
                let reread = parse_request(&out, &mut HeadEnd::default(), &HeadLimits::RESPONSE, &mut table);
                let (again, len) = reread.unwrap().unwrap();
                prop_assert_eq!(len, out.len());
                prop_assert_eq!(again.method_name(), head.method_name());
                prop_assert_eq!((again.path(), again.query()), (head.path(), head.query()));
                prop_assert_eq!(again.framing(), head.framing());
                let host = head.authority().map_or(&b"backend"[..], |authority| authority.host());
                prop_assert_eq!(again.host(), host);
                prop_assert_eq!(again.upgrade(), head.upgrade());
                prop_assert_eq!(again.fields().of_kind(FieldKind::XForwardedFor).count(), 1);
                prop_assert_eq!(again.fields().of_kind(FieldKind::LookAlike).count(), 0);
                prop_assert!(again.keep_alive());
            }
        }

        #[test]
        fn a_written_response_reads_back_with_the_same_meaning(
            status in 200u16..600, lines in prop::collection::vec(any_line(), 0..6),
        ) {
            let text = format!("HTTP/1.1 {status} R\r\n{}\r\n", lines.concat());
            let asked = Asked { head: false, upgrade: false };
            let mut table = FieldTable::default();
            let parsed = parse_response(text.as_bytes(), &mut HeadEnd::default(), asked, &HeadLimits::RESPONSE, &mut table);
            if let Ok(Some((head, _))) = parsed {
                let framing = match head.framing() {
                    ResponseFraming::None => AnswerFraming::None,
                    ResponseFraming::Length(len) => AnswerFraming::Length(len),
                    ResponseFraming::Chunked => AnswerFraming::Chunked,
                    ResponseFraming::UntilClose => AnswerFraming::Close,
                };
                let mut out = Vec::new();
                write_response(&mut out, &head, &answer(framing));
                prop_assert!(out.iter().zip(&out[1..]).all(|(a, b)| (*a == b'\r') == (*b == b'\n')));
                let mut table = FieldTable::default();
                let (again, len) =
                    parse_response(&out, &mut HeadEnd::default(), asked, &HeadLimits::RESPONSE, &mut table).unwrap().unwrap();
                prop_assert_eq!(len, out.len());
                prop_assert_eq!((again.status(), again.reason(), again.framing()), (status, head.reason(), head.framing()));
                prop_assert!(again.has_date() && again.backend_load().is_none());
            }
        }
    }
}
