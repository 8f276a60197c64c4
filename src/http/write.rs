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
    fn replaces(&self, name: &[u8]) -> bool {
        self.set.iter().any(|(set, _)| same_name(set.as_bytes(), name))
            || self.remove.iter().any(|removed| same_name(removed.as_bytes(), name))
    }

    fn host(&self) -> Option<&str> {
        self.set.iter().find(|(name, _)| name.eq_ignore_ascii_case("host")).map(|(_, value)| value.as_str())
    }

    fn write(&self, out: &mut Vec<u8>) {
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
    /// The header that tells backends the client's address; a token.
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
/// edits set; a request without one (HTTP/1.0) gets an empty one (RFC 9112, section 3.2). The version is 1.1. `TE: trailers` is passed on
/// (RFC 9110, section 10.1.4), `Expect` too, but not from HTTP/1.0 clients.
pub fn write_request(out: &mut Vec<u8>, head: &RequestHead<'_>, forward: &Forward<'_>) {
    out.reserve(head.fields.head.len() + GROWTH_BYTES);
    write_request_line(out, head, forward);
    let keeps_host_line = write_host(out, head, &forward.edits);
    let rules = RequestRules::new(head, forward, keeps_host_line);
    copy_fields(out, head.fields, |field| rules.keeps(field));
    write_forwarding_fields(out, head, forward);
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
fn write_host(out: &mut Vec<u8>, head: &RequestHead<'_>, edits: &Edits<'_>) -> bool {
    let authority = head.authority.map_or(&[] as &[u8], |authority| authority.as_bytes());
    match edits.host() {
        Some(host) => write_line(out, b"Host", host.as_bytes()),
        None if head.form != TargetForm::Absolute && head.authority.is_some() => return true,
        None => write_line(out, b"Host", authority),
    }
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
    real_ip_is_default: bool,
}

impl<'a, 'b> RequestRules<'a, 'b> {
    fn new(head: &'a RequestHead<'b>, forward: &'a Forward<'a>, keeps_host: bool) -> RequestRules<'a, 'b> {
        let real_ip_is_default = forward.real_ip_header.eq_ignore_ascii_case("X-Real-IP");
        RequestRules {
            head,
            forward,
            keeps_host,
            keeps_length: forward.framing == head.framing && matches!(head.framing, BodyFraming::Length(_)),
            keeps_trailer: forward.framing == BodyFraming::Chunked,
            by_name: !real_ip_is_default
                || (forward.client_ip_header.is_some() && !forward.peer_is_trusted)
                || head.connection.names_fields
                || !forward.edits.is_empty(),
            real_ip_is_default,
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
            FieldKind::XRealIp => trusted && !self.real_ip_is_default,
            FieldKind::Forwarded
            | FieldKind::XForwardedHost
            | FieldKind::XForwardedOther
            | FieldKind::XForwardedProto => trusted,
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
        FieldKind::Forwarded
            | FieldKind::Via
            | FieldKind::Date
            | FieldKind::XForwardedHost
            | FieldKind::XForwardedOther
            | FieldKind::XForwardedProto
            | FieldKind::XRealIp
    )
}

/// Writes what tells the backend where the request comes from.
fn write_forwarding_fields(out: &mut Vec<u8>, head: &RequestHead<'_>, forward: &Forward<'_>) {
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
    let real_ip_is_sent = forward.real_ip_header.eq_ignore_ascii_case("X-Forwarded-For");
    if !real_ip_is_sent && writes(forward.real_ip_header) {
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
    let keeps_length = answer.framing == AnswerFraming::None && head.status != 204;
    let keeps_trailer = answer.framing == AnswerFraming::Chunked;
    write_answer(out, head, answer, keeps_length, keeps_trailer);
    match answer.framing {
        AnswerFraming::None | AnswerFraming::Close => {}
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

fn write_line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn write_content_length(out: &mut Vec<u8>, len: u64) {
    write_line(out, b"Content-Length", itoa::Buffer::new().format(len).as_bytes());
}

/// Writes an address as text, an IPv4-mapped one as IPv4.
pub fn write_address(out: &mut Vec<u8>, address: IpAddr) {
    use std::io::Write;
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let mut digits = itoa::Buffer::new();
            for (i, octet) in v4.octets().into_iter().enumerate() {
                if i > 0 {
                    out.push(b'.');
                }
                out.extend_from_slice(digits.format(octet).as_bytes());
            }
        }
        // Writing to a vector cannot fail.
        IpAddr::V6(v6) => drop(write!(out, "{v6}")),
    }
}
