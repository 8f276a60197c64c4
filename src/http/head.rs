//! A message head as values that borrow from the bytes it came in.
//!
//! Owns what a head means: method, target, fields by kind, framing, persistence, upgrade. Never scans raw bytes for the
//! structure of a head (that is `parse`) and never writes one (that is `write`).

use crate::error::Fault;
use crate::http::authority::Authority;
use crate::http::framing::{BodyFraming, ConnectionOptions, ResponseFraming, list_members, trim};
use crate::http::target::canonical_path;

/// The version a peer speaks. A minor version above 1 is processed as 1.1 (RFC 9110, section 2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Http10,
    Http11,
}

/// A request's method; case matters (RFC 9110, section 9.1). `CONNECT` and `TRACE` are never parsed into a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Patch,
    /// Any other token; [`RequestHead::method_name`] has it.
    Other,
}

impl Method {
    /// Whether a request may be sent again after it was sent once (RFC 9110, section 9.2.2).
    pub const fn is_idempotent(self) -> bool {
        matches!(self, Method::Get | Method::Head | Method::Put | Method::Delete | Method::Options)
    }
}

/// How the target was written (RFC 9112, section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetForm {
    /// `/path?query`.
    Origin,
    /// `http://authority/path?query`.
    Absolute,
    /// `*`, only with `OPTIONS`.
    Asterisk,
}

/// The field names that the proxy knows. Everything else is [`FieldKind::Other`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FieldKind {
    Other,
    Accept,
    /// `Client-Cert` and `Client-Cert-Chain` (RFC 9440).
    ClientCert,
    Connection,
    ContentLength,
    ContentType,
    Cookie,
    Date,
    Expect,
    Forwarded,
    Host,
    Http2Settings,
    KeepAlive,
    MaxForwards,
    ProxyAuthenticate,
    ProxyAuthenticationInfo,
    ProxyAuthorization,
    ProxyConnection,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    Via,
    XBackendLoad,
    XForwardedFor,
    XForwardedHost,
    /// `X-Forwarded-` and anything else.
    XForwardedOther,
    XForwardedProto,
    XRealIp,
    XRequestId,
    /// One of the others with an underscore in the place of a dash: the same name to every CGI-like backend.
    LookAlike,
}

impl FieldKind {
    /// The kind of a field by its name, which has to be a token (RFC 9110, section 5.6.2).
    #[inline]
    pub fn of(name: &[u8]) -> FieldKind {
        let Some(first) = name.first() else { return FieldKind::Other };
        match (name.len(), first | 0x20) {
            (2, b't') => named(name, b"te", FieldKind::Te),
            (3, b'v') => named(name, b"via", FieldKind::Via),
            (4, b'h') => named(name, b"host", FieldKind::Host),
            (4, b'd') => named(name, b"date", FieldKind::Date),
            (6, b'a') => named(name, b"accept", FieldKind::Accept),
            (6, b'c') => named(name, b"cookie", FieldKind::Cookie),
            (6, b'e') => named(name, b"expect", FieldKind::Expect),
            (7, b't') => named(name, b"trailer", FieldKind::Trailer),
            (7, b'u') => named(name, b"upgrade", FieldKind::Upgrade),
            (9, b'f') => named(name, b"forwarded", FieldKind::Forwarded),
            (9, b'x') => named(name, b"x-real-ip", FieldKind::XRealIp),
            (10, b'c') => named(name, b"connection", FieldKind::Connection),
            (10, b'k') => named(name, b"keep-alive", FieldKind::KeepAlive),
            (11, b'c') => named(name, b"client-cert", FieldKind::ClientCert),
            (12, b'm') => named(name, b"max-forwards", FieldKind::MaxForwards),
            (12, b'c') => named(name, b"content-type", FieldKind::ContentType),
            (12, b'x') => named(name, b"x-request-id", FieldKind::XRequestId),
            (14, b'c') => named(name, b"content-length", FieldKind::ContentLength),
            (14, b'h') => named(name, b"http2-settings", FieldKind::Http2Settings),
            (14, b'x') => match named(name, b"x-backend-load", FieldKind::XBackendLoad) {
                FieldKind::Other => forwarded(name),
                kind => kind,
            },
            (16, b'p') => named(name, b"proxy-connection", FieldKind::ProxyConnection),
            (17, b'c') => named(name, b"client-cert-chain", FieldKind::ClientCert),
            (17, b't') => named(name, b"transfer-encoding", FieldKind::TransferEncoding),
            (18, b'p') => named(name, b"proxy-authenticate", FieldKind::ProxyAuthenticate),
            (19, b'p') => named(name, b"proxy-authorization", FieldKind::ProxyAuthorization),
            (25, b'p') => named(name, b"proxy-authentication-info", FieldKind::ProxyAuthenticationInfo),
            (13.., b'x') => forwarded(name),
            _ => FieldKind::Other,
        }
    }
}

/// `kind` when `name` is `lower` in any case, [`FieldKind::LookAlike`] when only underscores tell them apart.
#[inline]
fn named<const N: usize>(name: &[u8], lower: &[u8; N], kind: FieldKind) -> FieldKind {
    let Some(name) = name.first_chunk::<N>() else { return FieldKind::Other };
    // Among token bytes, setting bit 5 maps only the two cases of a letter onto the letter, and only `-` onto `-`.
    let mut differs = 0;
    for (a, b) in name.iter().zip(lower) {
        differs |= (a | 0x20) ^ b;
    }
    if differs == 0 {
        kind
    } else if same_name(name, lower) {
        FieldKind::LookAlike
    } else {
        FieldKind::Other
    }
}

/// The kind of a name of 13 bytes or more that begins with `x`.
fn forwarded(name: &[u8]) -> FieldKind {
    const PREFIX: &[u8; 12] = b"x-forwarded-";
    match named(name, PREFIX, FieldKind::XForwardedOther) {
        FieldKind::XForwardedOther => {}
        kind => return kind,
    }
    match &name[PREFIX.len()..] {
        rest if rest.eq_ignore_ascii_case(b"for") => FieldKind::XForwardedFor,
        rest if rest.eq_ignore_ascii_case(b"host") => FieldKind::XForwardedHost,
        rest if rest.eq_ignore_ascii_case(b"proto") => FieldKind::XForwardedProto,
        _ => FieldKind::XForwardedOther,
    }
}

/// Whether two field names are the same to somebody who reads `_` as `-` (CGI and its heirs), in any case.
pub fn same_name(a: &[u8], b: &[u8]) -> bool {
    fn fold(byte: u8) -> u8 {
        if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }
    }
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| fold(*a) == fold(*b))
}

/// One field line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'b> {
    /// As written; a token.
    pub name: &'b [u8],
    /// Without whitespace around it; holds no control character but HTAB.
    pub value: &'b [u8],
    pub kind: FieldKind,
}

/// Where one field line is in its head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub name_start: u32,
    pub value_start: u32,
    pub value_len: u32,
    pub name_len: u16,
    pub kind: FieldKind,
    /// The line reads `name ": " value CRLF`, so it can be copied as it is.
    pub is_canonical: bool,
}

impl Entry {
    /// The offset behind a canonical line.
    pub fn line_end(&self) -> usize {
        (self.value_start + self.value_len) as usize + 2
    }
}

/// Room for the fields of one head, used again for the next one. Owned by a worker.
#[derive(Debug, Default)]
pub struct FieldTable {
    pub(super) entries: Vec<Entry>,
}

impl FieldTable {
    /// Room for `fields` fields without another allocation.
    pub fn with_capacity(fields: usize) -> FieldTable {
        FieldTable { entries: Vec::with_capacity(fields) }
    }
}

/// The fields of a head, in order.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'b> {
    pub(super) head: &'b [u8],
    pub(super) entries: &'b [Entry],
}

impl<'b> Fields<'b> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All of them; can be walked from either end.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Field<'b>> + ExactSizeIterator + use<'b> {
        let head = self.head;
        self.entries.iter().map(move |entry| field(head, entry))
    }

    /// The values of all fields of that name, in any case.
    pub fn all<'n>(&self, name: &'n str) -> impl DoubleEndedIterator<Item = &'b [u8]> + use<'n, 'b> {
        self.iter().filter(move |field| field.name.eq_ignore_ascii_case(name.as_bytes())).map(|field| field.value)
    }

    /// The value of the first field of that name, in any case.
    pub fn get(&self, name: &str) -> Option<&'b [u8]> {
        self.all(name).next()
    }

    /// The values of all fields of that kind.
    pub fn of_kind(&self, kind: FieldKind) -> impl DoubleEndedIterator<Item = &'b [u8]> + use<'b> {
        let head = self.head;
        self.entries.iter().filter(move |entry| entry.kind == kind).map(move |entry| field(head, entry).value)
    }

    /// The value of the first cookie of that name (RFC 6265, section 4.2.1), quotes included; names are case-sensitive.
    pub fn cookie(&self, name: &str) -> Option<&'b [u8]> {
        self.of_kind(FieldKind::Cookie).flat_map(|value| value.split(|&b| b == b';')).find_map(|pair| {
            let at = memchr::memchr(b'=', pair)?;
            (trim(&pair[..at]) == name.as_bytes()).then(|| trim(&pair[at + 1..]))
        })
    }

    /// Whether a `Connection` field names this one (RFC 9110, section 7.6.1).
    pub fn connection_names(&self, name: &[u8]) -> bool {
        self.of_kind(FieldKind::Connection)
            .any(|value| list_members(value).any(|option| option.eq_ignore_ascii_case(name)))
    }
}

#[inline]
pub(super) fn field<'b>(head: &'b [u8], entry: &Entry) -> Field<'b> {
    let name_start = entry.name_start as usize;
    let value_start = entry.value_start as usize;
    Field {
        name: &head[name_start..name_start + usize::from(entry.name_len)],
        value: &head[value_start..value_start + entry.value_len as usize],
        kind: entry.kind,
    }
}

/// A request head that passed every check of `parse`.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'b> {
    pub(super) fields: Fields<'b>,
    pub(super) method_name: &'b [u8],
    pub(super) target: &'b [u8],
    pub(super) path: &'b [u8],
    pub(super) query: &'b [u8],
    pub(super) path_is_suspect: bool,
    pub(super) authority: Option<Authority<'b>>,
    pub(super) upgrade: Option<&'b [u8]>,
    pub(super) framing: BodyFraming,
    pub(super) method: Method,
    pub(super) form: TargetForm,
    pub(super) version: Version,
    pub(super) connection: ConnectionOptions,
    pub(super) max_forwards: Option<u64>,
    pub(super) expect_continue: bool,
    pub(super) wants_trailers: bool,
    pub(super) accepts_event_stream: bool,
    pub(super) is_grpc: bool,
}

impl<'b> RequestHead<'b> {
    pub fn method(&self) -> Method {
        self.method
    }

    /// The method as written.
    pub fn method_name(&self) -> &'b [u8] {
        self.method_name
    }

    /// The target as written; visible ASCII without `#`.
    pub fn target(&self) -> &'b [u8] {
        self.target
    }

    pub fn form(&self) -> TargetForm {
        self.form
    }

    /// The path as written, without the query; begins with `/`, or is `*` when the target stands for the whole server
    /// (also `OPTIONS http://host`, RFC 9112, section 3.2.4).
    pub fn path(&self) -> &'b [u8] {
        self.path
    }

    /// The path in its one canonical form; see [`canonical_path`]. Costs nothing when it is canonical already.
    pub fn canonical_path<'a>(&self, room: &'a mut Vec<u8>) -> Result<&'a [u8], Fault>
    where
        'b: 'a,
    {
        if self.path_is_suspect { canonical_path(self.path, room) } else { Ok(self.path) }
    }

    /// The query without its question mark; `None` when there is no question mark.
    pub fn query(&self) -> Option<&'b [u8]> {
        self.query.split_first().map(|(_, query)| query)
    }

    /// The query with its question mark, empty when there is none: what to append to a path.
    pub fn query_suffix(&self) -> &'b [u8] {
        self.query
    }

    /// Host and port as the client wrote them. Those of an absolute-form target replace `Host` (RFC 9112, section
    /// 3.2.2). `None` only in HTTP/1.0.
    pub fn authority(&self) -> Option<Authority<'b>> {
        self.authority
    }

    /// The host as written, without port; empty when there is none (only HTTP/1.0).
    pub fn host(&self) -> &'b [u8] {
        self.authority.map_or(&[], |authority| authority.host())
    }

    pub fn version(&self) -> Version {
        self.version
    }

    pub fn fields(&self) -> Fields<'b> {
        self.fields
    }

    pub fn framing(&self) -> BodyFraming {
        self.framing
    }

    /// Whether the client would send another request on this connection (RFC 9112, section 9.3).
    pub fn keep_alive(&self) -> bool {
        self.connection.persists(self.version)
    }

    /// Whether the client waits for a 100 before it sends the body. Never in HTTP/1.0 and never without a body
    /// (RFC 9110, section 10.1.1).
    pub fn expect_continue(&self) -> bool {
        self.expect_continue
    }

    /// How many more proxies an `OPTIONS` request may pass; always `None` with other methods. At 0 it must not be
    /// forwarded: the proxy is the final recipient (RFC 9110, section 7.6.2).
    pub fn max_forwards(&self) -> Option<u64> {
        self.max_forwards
    }

    /// The `Upgrade` value when the client asks to switch protocols in a way that is passed on.
    ///
    /// `None`, as if it had not asked (RFC 9110, section 7.8 lets a server ignore it), in HTTP/1.0, with a body, with
    /// more than one `Upgrade` field or protocol, for `websocket` with another method than `GET` (RFC 6455, section
    /// 4.1), and for `h2c`, `HTTP/…` and `TLS/…`, which would take later requests past every rule of the proxy.
    pub fn upgrade(&self) -> Option<&'b [u8]> {
        self.upgrade
    }

    /// Whether [`RequestHead::upgrade`] asks for `websocket`.
    pub fn is_websocket(&self) -> bool {
        self.upgrade.is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
    }

    /// Whether `TE` says `trailers` (RFC 9110, section 10.1.4); never in HTTP/1.0, which has no chunked bodies.
    pub fn wants_trailers(&self) -> bool {
        self.wants_trailers
    }

    /// Whether `Accept` has `text/event-stream`.
    pub fn accepts_event_stream(&self) -> bool {
        self.accepts_event_stream
    }

    /// Whether `Content-Type` begins with `application/grpc`.
    pub fn is_grpc(&self) -> bool {
        self.is_grpc
    }

    /// The one `X-Request-ID` that came with the request when it is sane: 1..=[`REQUEST_ID_BYTES_MAX`] visible ASCII
    /// characters. To be believed from trusted peers only.
    pub fn request_id(&self) -> Option<&'b [u8]> {
        let mut ids = self.fields.of_kind(FieldKind::XRequestId);
        let id = ids.next()?;
        let is_sane = (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic);
        (is_sane && ids.next().is_none()).then_some(id)
    }
}

/// Longest `X-Request-ID` that is kept, in bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 128;

/// A response head that passed every check of `parse`.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'b> {
    pub(super) fields: Fields<'b>,
    pub(super) reason: &'b [u8],
    pub(super) upgrade: Option<&'b [u8]>,
    pub(super) backend_load: Option<&'b [u8]>,
    pub(super) framing: ResponseFraming,
    /// The body's length when `Content-Length` is written as we would write it.
    pub(super) plain_length: Option<u64>,
    pub(super) status: u16,
    pub(super) version: Version,
    pub(super) connection: ConnectionOptions,
    pub(super) has_date: bool,
    pub(super) may_persist: bool,
    pub(super) is_event_stream: bool,
    pub(super) is_grpc: bool,
}

impl<'b> ResponseHead<'b> {
    /// 100..=599.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether another head follows on the same exchange: 1xx but not 101.
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// The reason phrase as written; may be empty.
    pub fn reason(&self) -> &'b [u8] {
        self.reason
    }

    pub fn version(&self) -> Version {
        self.version
    }

    pub fn fields(&self) -> Fields<'b> {
        self.fields
    }

    pub fn framing(&self) -> ResponseFraming {
        self.framing
    }

    /// Whether the backend's connection can carry another exchange once this body is read.
    pub fn keep_alive(&self) -> bool {
        self.may_persist && self.connection.persists(self.version)
    }

    /// The `Upgrade` value; with status 101 there is always one.
    pub fn upgrade(&self) -> Option<&'b [u8]> {
        self.upgrade
    }

    pub fn has_date(&self) -> bool {
        self.has_date
    }

    /// The value of `X-Backend-Load`.
    pub fn backend_load(&self) -> Option<&'b [u8]> {
        self.backend_load
    }

    /// Whether `Content-Type` is `text/event-stream`.
    pub fn is_event_stream(&self) -> bool {
        self.is_event_stream
    }

    /// Whether `Content-Type` begins with `application/grpc`.
    pub fn is_grpc(&self) -> bool {
        self.is_grpc
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_are_found_in_any_case() {
        let cases = [
            ("host", FieldKind::Host),
            ("HOST", FieldKind::Host),
            ("Transfer-Encoding", FieldKind::TransferEncoding),
            ("content-LENGTH", FieldKind::ContentLength),
            ("X-Forwarded-For", FieldKind::XForwardedFor),
            ("x-forwarded-host", FieldKind::XForwardedHost),
            ("x-forwarded-PROTO", FieldKind::XForwardedProto),
            ("x-forwarded-p", FieldKind::XForwardedOther),
            ("X-Forwarded-Port", FieldKind::XForwardedOther),
            ("X-Forwarded-Server", FieldKind::XForwardedOther),
            ("x-forwarded-ab", FieldKind::XForwardedOther),
            ("X-Backend-Load", FieldKind::XBackendLoad),
            ("Proxy-Authentication-Info", FieldKind::ProxyAuthenticationInfo),
            ("TE", FieldKind::Te),
        ];
        for (name, kind) in cases {
            assert_eq!(FieldKind::of(name.as_bytes()), kind, "{name}");
        }
        for name in ["x-forwarded-", "hos", "hostt", "x-real-iq", "Content^Length", "~", "x", "x-forwarded", "dave"] {
            assert_eq!(FieldKind::of(name.as_bytes()), FieldKind::Other, "{name}");
        }
    }

    #[test]
    fn underscores_make_look_alikes() {
        for name in [
            "X_Forwarded_For",
            "x_forwarded-port",
            "X-Forwarded_ab",
            "Content_Length",
            "TRANSFER_ENCODING",
            "X_Real_IP",
            "x-request_id",
            "HTTP2_Settings",
            "X_Backend-Load",
        ] {
            assert_eq!(FieldKind::of(name.as_bytes()), FieldKind::LookAlike, "{name}");
        }
        assert_eq!(FieldKind::of(b"x_custom_name"), FieldKind::Other);
    }
}
