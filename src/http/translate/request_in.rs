//! A request as it came over HTTP/2, as the bytes of an HTTP/1.1 request (RFC 9113, section 8.3.1).
//!
//! Owns the checks that HTTP/1.1 does not know: pseudo-header fields, `Host` beside `:authority`, fields that HTTP/2
//! forbids. Never repeats those of the HTTP/1.1 parser, which reads the bytes that are written here.

use ::http::header::{self, HeaderMap, HeaderName};
use ::http::{Method, Uri, request};

use super::websocket::{Accept, KEY_BYTES};
use super::{field_bytes, list_bytes};
use crate::error::{Fault, Reason};
use crate::http::framing::decimal;
use crate::http::grpc;
use crate::http::write::write_line;

/// How the body goes on in HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    None,
    /// As it comes, up to the announced length; or what goes through a tunnel.
    Identity,
    /// In chunks, as nobody knows its length.
    Chunked,
}

/// What was written of a request, and what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    pub body: Body,
    /// It was a `HEAD`: its answer has no body.
    pub is_head: bool,
    /// An extended CONNECT (RFC 8441): what the backend's 101 has to prove.
    pub websocket: Option<Accept>,
}

/// What comes with a request's parts.
#[derive(Clone, Copy, Debug)]
pub struct RequestIn<'a> {
    pub parts: &'a request::Parts,
    /// The value of `:protocol`.
    pub protocol: Option<&'a str>,
    /// Whether the stream ends with the head.
    pub is_end: bool,
    /// Field lines taken at most, cookie crumbs counted.
    pub fields_max: usize,
    /// Bytes of the list of fields taken at most, 32 added a field (RFC 9113, section 6.5.2).
    pub list_bytes_max: usize,
    /// For the key of a WebSocket handshake.
    pub luck: [u8; KEY_BYTES],
}

impl RequestIn<'_> {
    /// Appends the head of the request as HTTP/1.1 has it.
    ///
    /// # Errors
    /// [`Reason::BadRequest`] for what is malformed by RFC 9113, sections 8.2 and 8.3; [`Reason::MethodNotServed`] for
    /// `CONNECT`; [`Reason::HeadTooLarge`] for too many fields. What was appended by then means nothing.
    pub fn write_head(&self, out: &mut Vec<u8>) -> Result<Opening, Fault> {
        let parts = self.parts;
        if parts.headers.len() > self.fields_max {
            return Err(Fault::new(Reason::HeadTooLarge, "more fields than max_headers (RFC 6585 5)"));
        }
        if self.list_bytes() > self.list_bytes_max {
            return Err(Fault::new(
                Reason::HeadTooLarge,
                "the field list is larger than max_header_bytes (RFC 6585 5)",
            ));
        }
        let websocket = self.extended_connect()?;
        let method = if websocket { &Method::GET } else { &parts.method };
        write_request_line(out, method, &parts.uri)?;
        let authority = authority(&parts.uri, &parts.headers)?;
        write_line(out, b"Host", authority);
        let body = self.body(websocket)?;
        write_fields(out, &parts.headers, websocket, body)?;
        let accept = websocket.then(|| {
            let (key, accept) = Accept::for_key(self.luck);
            out.extend_from_slice(b"connection: Upgrade\r\nupgrade: websocket\r\n");
            write_line(out, b"sec-websocket-key", key.as_bytes());
            accept
        });
        if body == Body::Chunked {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        out.extend_from_slice(b"\r\n");
        Ok(Opening { body, is_head: *method == Method::HEAD, websocket: accept })
    }

    /// The size of the list of fields, those included that HTTP/1.1 has in its first line.
    fn list_bytes(&self) -> usize {
        let uri = &self.parts.uri;
        let pseudo = [
            (":method", Some(self.parts.method.as_str())),
            (":scheme", uri.scheme_str()),
            (":authority", uri.authority().map(|authority| authority.as_str())),
            (":path", uri.path_and_query().map(|path| path.as_str())),
            (":protocol", self.protocol),
        ];
        let pseudo = pseudo.iter().filter_map(|(name, value)| Some(field_bytes(name, (*value)?.as_bytes())));
        list_bytes(&self.parts.headers) + pseudo.sum::<usize>()
    }

    /// Whether this opens a WebSocket.
    fn extended_connect(&self) -> Result<bool, Fault> {
        match (&self.parts.method, self.protocol) {
            (&Method::CONNECT, Some(protocol)) if protocol.eq_ignore_ascii_case("websocket") => Ok(true),
            (&Method::CONNECT, Some(_)) => {
                Err(Fault::new(Reason::MethodNotServed, "of extended CONNECT only websocket is served (RFC 8441)"))
            }
            (&Method::CONNECT, None) => {
                Err(Fault::new(Reason::MethodNotServed, "CONNECT is not served (RFC 9110 9.3.6)"))
            }
            _ => Ok(false),
        }
    }

    fn may_have_trailers(&self) -> bool {
        let content_type = self.parts.headers.get(header::CONTENT_TYPE);
        self.parts.headers.contains_key(header::TRAILER)
            || content_type.is_some_and(|value| grpc::is_grpc(value.as_bytes()))
    }

    fn body(&self, websocket: bool) -> Result<Body, Fault> {
        let mut lengths = self.parts.headers.get_all(header::CONTENT_LENGTH).iter();
        let length = lengths.next().map(|value| decimal(value.as_bytes()));
        match (length, self.is_end) {
            (Some(_), _) if websocket => Err(malformed("a Content-Length in an extended CONNECT (RFC 8441 4)")),
            (None, true) => Ok(Body::None),
            (None, false) if websocket => Ok(Body::Identity),
            (None, false) => Ok(Body::Chunked),
            // Its trailers have no place behind a body of known length.
            (Some(Some(_)), false) if lengths.next().is_none() && self.may_have_trailers() => Ok(Body::Chunked),
            // Malformed ones are the parser's to name.
            (Some(Some(0) | None), true) => Ok(Body::None),
            (Some(Some(_)), true) => Err(malformed("a Content-Length above zero and no body (RFC 9113 8.1.1)")),
            (Some(_), false) => Ok(Body::Identity),
        }
    }
}

const fn malformed(detail: &'static str) -> Fault {
    Fault::new(Reason::BadRequest, detail)
}

fn write_request_line(out: &mut Vec<u8>, method: &Method, uri: &Uri) -> Result<(), Fault> {
    if !matches!(uri.scheme_str(), None | Some("http" | "https")) {
        return Err(malformed("a :scheme that is neither http nor https (RFC 9113 8.3.1)"));
    }
    let target = uri.path_and_query().map_or("", |target| target.as_str()).as_bytes();
    // Anything else would be read as another form of target, with an authority of its own.
    let is_path = target.first() == Some(&b'/') || (target == b"*" && method == Method::OPTIONS);
    if !is_path || target.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) {
        return Err(malformed("a :path that is none (RFC 9113 8.3.1)"));
    }
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    Ok(())
}

/// `:authority`, or `Host` where there is none; they must not differ where there are both (RFC 9113, section 8.3.1).
fn authority<'a>(uri: &'a Uri, fields: &'a HeaderMap) -> Result<&'a [u8], Fault> {
    let mut hosts = fields.get_all(header::HOST).iter();
    let host = hosts.next().map(|value| value.as_bytes());
    if hosts.next().is_some() {
        return Err(malformed("Host comes twice (RFC 9110 7.2)"));
    }
    match (uri.authority().map(|authority| authority.as_str().as_bytes()), host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            Err(malformed("Host and :authority differ (RFC 9113 8.3.1)"))
        }
        (Some(authority), _) => Ok(authority),
        (None, Some(host)) => Ok(host),
        (None, None) => Err(malformed("neither :authority nor Host (RFC 9113 8.3.1)")),
    }
}

fn write_fields(out: &mut Vec<u8>, fields: &HeaderMap, websocket: bool, body: Body) -> Result<(), Fault> {
    for (name, value) in fields {
        if is_of_connection(name) {
            return Err(malformed("a field of the connection (RFC 9113 8.2.2)"));
        }
        let value = value.as_bytes();
        if matches!(value, [b' ' | b'\t', ..] | [.., b' ' | b'\t']) {
            return Err(malformed("whitespace around a field value (RFC 9113 8.2.1)"));
        }
        match *name {
            header::TE if !value.eq_ignore_ascii_case(b"trailers") => {
                return Err(malformed("a TE other than trailers (RFC 9113 8.2.2)"));
            }
            header::HOST | header::COOKIE => {}
            // The codec holds the body to it.
            header::CONTENT_LENGTH if body == Body::Chunked => {}
            // Ours, for the backend.
            header::SEC_WEBSOCKET_KEY if websocket => {}
            _ => write_line(out, name.as_str().as_bytes(), value),
        }
    }
    write_cookies(out, fields);
    Ok(())
}

/// Crumbs are joined to one field (RFC 9113, section 8.2.3).
fn write_cookies(out: &mut Vec<u8>, fields: &HeaderMap) {
    let mut before: &[u8] = b"cookie: ";
    for crumb in fields.get_all(header::COOKIE) {
        out.extend_from_slice(before);
        out.extend_from_slice(crumb.as_bytes());
        before = b"; ";
    }
    if before == b"; " {
        out.extend_from_slice(b"\r\n");
    }
}

/// Fields that mean something between two HTTP/1.1 neighbours only, and are malformed here.
fn is_of_connection(name: &HeaderName) -> bool {
    matches!(*name, header::CONNECTION | header::TRANSFER_ENCODING | header::UPGRADE)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// Appends the end of a body in chunks, trailer fields in it; which of them go on is the chunk decoder's to say.
pub fn write_trailers(out: &mut Vec<u8>, trailers: Option<&HeaderMap>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        write_line(out, name.as_str().as_bytes(), value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::FieldTable;
    use crate::http::parse::{HeadEnd, HeadLimits, parse_request};
    use ::http::{HeaderValue, Request};
    use proptest::prelude::*;

    fn parts(method: &str, uri: &str, fields: &[(&str, &str)]) -> request::Parts {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn written(parts: &request::Parts, protocol: Option<&str>, is_end: bool) -> Result<(String, Opening), Fault> {
        let mut out = Vec::new();
        let request =
            RequestIn { parts, protocol, is_end, fields_max: 8, list_bytes_max: 1024, luck: *b"the sample nonce" };
        let opening = request.write_head(&mut out)?;
        let mut table = FieldTable::default();
        let limits = HeadLimits { head_bytes: 16 * 1024, fields: 100 };
        let (_, used) = parse_request(&out, &mut HeadEnd::default(), &limits, &mut table)?.unwrap();
        assert_eq!(used, out.len(), "one head and nothing behind it");
        Ok((String::from_utf8_lossy(&out).into_owned(), opening))
    }

    fn of(method: &str, uri: &str, fields: &[(&str, &str)], is_end: bool) -> Result<(String, Opening), Fault> {
        written(&parts(method, uri, fields), None, is_end)
    }

    fn refused(method: &str, uri: &str, fields: &[(&str, &str)]) -> Option<Reason> {
        of(method, uri, fields, true).err().map(|fault| fault.reason)
    }

    #[test]
    fn a_request_becomes_one_of_http_1() {
        let fields = [("cookie", "a=b"), ("x-a", "1"), ("te", "trailers"), ("cookie", "c=d")];
        let (text, opening) = of("GET", "https://a.test:81/p?q", &fields, true).unwrap();
        assert_eq!(text, "GET /p?q HTTP/1.1\r\nHost: a.test:81\r\nx-a: 1\r\nte: trailers\r\ncookie: a=b; c=d\r\n\r\n");
        assert_eq!(opening, Opening { body: Body::None, is_head: false, websocket: None });
        assert!(of("HEAD", "https://a/", &[], true).unwrap().1.is_head);
    }

    #[test]
    fn a_body_goes_by_its_length_or_in_chunks() {
        let body = |fields: &[(&str, &str)], is_end| of("POST", "http://a/", fields, is_end).map(|(_, o)| o.body);
        assert_eq!(body(&[], false), Ok(Body::Chunked));
        assert_eq!(body(&[("content-length", "5")], false), Ok(Body::Identity));
        assert_eq!(body(&[("content-length", "0")], true), Ok(Body::None));
        for announces in [("trailer", "x-sum"), ("content-type", "application/grpc+proto")] {
            assert_eq!(body(&[("content-length", "5"), announces], false), Ok(Body::Chunked));
            assert_eq!(body(&[("content-length", "0"), announces], true), Ok(Body::None));
            assert!(body(&[("content-length", "+5"), announces], false).is_err());
        }
        assert!(body(&[("content-length", "5")], true).is_err());
        for odd in ["-1", "+1", "1, 2", "0x1", ""] {
            assert!(body(&[("content-length", odd)], false).is_err(), "{odd}");
        }
        assert!(body(&[("content-length", "1"), ("content-length", "2")], false).is_err());
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let bad = Some(Reason::BadRequest);
        for field in [
            ("connection", "close"),
            ("keep-alive", "5"),
            ("proxy-connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "gzip"),
            ("te", "trailers, gzip"),
            ("x", " a"),
            ("x", "a\t"),
            ("host", "b.test"),
            ("content_length", "3"),
        ] {
            assert_eq!(refused("GET", "http://a.test/", &[field]), bad, "{field:?}");
        }
        assert_eq!(refused("GET", "http://a.test/", &[("host", "A.TEST")]), None);
        assert_eq!(refused("GET", "http://a.test/", &[("host", "a.test"), ("host", "a.test")]), bad);
        assert_eq!(refused("GET", "/", &[]), bad);
        assert_eq!(refused("GET", "/", &[("host", "a")]), None);
        assert_eq!(refused("GET", "http://u@a.test/", &[]), bad);
        assert_eq!(refused("GET", "ftp://a.test/", &[]), bad);
        assert_eq!(refused("GET", "http://a.test/\"\\", &[]), bad);
        assert_eq!(refused("CONNECT", "a.test:443", &[]), Some(Reason::MethodNotServed));
        assert_eq!(refused("TRACE", "http://a.test/", &[]), Some(Reason::MethodNotServed));
        let crumbs = [("cookie", "a"); 9];
        assert_eq!(refused("GET", "http://a.test/", &crumbs), Some(Reason::HeadTooLarge));
        // 42 + 43 + 48 + 38 for the pseudo-header fields, 32 and the name for the other.
        let (fits, large) = ("v".repeat(1024 - 171 - 33), "v".repeat(1024 - 171 - 32));
        assert_eq!(refused("GET", "http://a.test/", &[("x", &fits)]), None);
        assert_eq!(refused("GET", "http://a.test/", &[("x", &large)]), Some(Reason::HeadTooLarge));
    }

    /// Names that mean something, and some that don't.
    fn names() -> impl Strategy<Value = HeaderName> {
        let known = ["host", "cookie", "te", "content-length", "expect", "x-a", "content_length", "upgrade"];
        prop_oneof![
            proptest::sample::select(known.to_vec()).prop_map(HeaderName::from_static),
            "[a-z0-9!#$%&'*+.^_`|~-]{1,12}".prop_filter_map("a name", |name| name.parse().ok()),
        ]
    }

    fn values() -> impl Strategy<Value = HeaderValue> {
        let bytes =
            prop_oneof![Just(b"5".to_vec()), Just(b"trailers".to_vec()), proptest::collection::vec(any::<u8>(), 0..12)];
        bytes.prop_filter_map("a value", |bytes| HeaderValue::from_bytes(&bytes).ok())
    }

    proptest! {
        /// Whatever the codec lets through: what is written is one head and nothing behind it, or it is refused.
        #[test]
        fn a_request_is_never_two(
            method in "[A-Z]{1,8}|GET|OPTIONS|CONNECT|get|G!",
            path in proptest::collection::vec(any::<u8>(), 0..24),
            fields in proptest::collection::vec((names(), values()), 0..6),
            is_end: bool,
            protocol in proptest::option::of(Just("websocket")),
        ) {
            let path = [b"/".as_slice(), &path].concat();
            let uri = Uri::builder().scheme("http").authority("a.test").path_and_query(path).build();
            let Ok(uri) = uri else { return Ok(()) };
            let mut request = Request::builder().method(method.as_str()).uri(uri);
            for (name, value) in fields {
                request = request.header(name, value);
            }
            let parts = request.body(()).unwrap().into_parts().0;
            // The check is in here.
            let _ = written(&parts, protocol, is_end);
        }
    }

    #[test]
    fn the_star_is_for_options_alone() {
        let mut star = parts("OPTIONS", "*", &[("host", "a")]);
        assert!(written(&star, None, true).unwrap().0.starts_with("OPTIONS * HTTP/1.1\r\n"));
        star.method = Method::GET;
        assert!(written(&star, None, true).is_err());
    }

    #[test]
    fn an_extended_connect_becomes_an_upgrade() {
        let fields = [("sec-websocket-version", "13"), ("sec-websocket-key", "forged")];
        let (text, opening) = written(&parts("CONNECT", "http://a/ws", &fields), Some("websocket"), false).unwrap();
        assert_eq!(
            text,
            "GET /ws HTTP/1.1\r\nHost: a\r\nsec-websocket-version: 13\r\nconnection: Upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        assert_eq!(opening.body, Body::Identity);
        assert!(opening.websocket.unwrap().fits(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        let other = parts("CONNECT", "http://a/ws", &[]);
        assert_eq!(written(&other, Some("connect-udp"), false).unwrap_err().reason, Reason::MethodNotServed);
    }
}
