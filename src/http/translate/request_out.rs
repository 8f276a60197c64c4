//! The head of a request as our own writer made it, turned into what an HTTP/2 backend is sent (RFC 9113, section 8.3.1).
//!
//! Owns which field lines become pseudo-header fields and which end here. Never checks what `http::parse` has checked
//! before the head was written, and never sees a body.

use ::http::header::{CONTENT_LENGTH, EXPECT, HeaderName, HeaderValue, SEC_WEBSOCKET_KEY, TE};
use ::http::uri::{Authority, PathAndQuery, Scheme, Uri};
use ::http::{HeaderMap, Method, Request, Version, uri};
use bytes::Bytes;
use h2::ext::Protocol;

use crate::error::{Fault, Reason};
use crate::http::body::Source;
use crate::http::framing::Sender;
use crate::http::head::FieldKind;
use crate::http::trailers::Passing;

/// A request for an HTTP/2 backend, and what its answer depends on.
#[derive(Debug)]
pub struct Outbound {
    /// The head.
    pub request: Request<()>,
    /// What follows the head.
    pub content: Content,
    /// Answers to it have no body.
    pub is_head: bool,
}

/// What follows the head of a request.
#[derive(Debug)]
pub enum Content {
    /// A body in the framing of HTTP/1.1; [`Source::Done`] when there is none.
    Body(Source),
    /// Whatever both sides say once the backend has agreed: an extended CONNECT (RFC 8441). Holds the client's
    /// `Sec-WebSocket-Key`, which HTTP/2 has no use for and the answer to the client needs.
    Tunnel {
        /// As the client sent it.
        key: Vec<u8>,
    },
}

/// What is known of the connection that a request goes out on.
#[derive(Clone, Copy, Debug)]
pub struct Carriage {
    /// Whether it is TLS.
    pub over_tls: bool,
    /// Whether the backend takes extended CONNECT (`SETTINGS_ENABLE_CONNECT_PROTOCOL`, RFC 8441, section 3).
    pub has_extended_connect: bool,
}

/// Takes apart a whole head, to its empty line. `None` when it is not whole yet; else the request, and how long the head
/// was in bytes.
///
/// # Errors
/// [`Reason::UpgradeUnsupported`] when a WebSocket is asked for and the backend doesn't take extended CONNECT, and
/// [`Reason::BadRequest`] for what HTTP/2 can't say.
pub fn take(bytes: &[u8], carriage: Carriage) -> Result<Option<(Outbound, usize)>, Fault> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let (line, fields) = split_once(&bytes[..end + 2], b"\r\n").ok_or(UNSAYABLE)?;
    let mut line = line.split(|&byte| byte == b' ');
    let (Some(method), Some(target)) = (line.next(), line.next()) else { return Err(UNSAYABLE) };
    let facts = Facts::collect(fields)?;
    let outbound = facts.into_request(method, target, carriage)?;
    Ok(Some((outbound, end + 4)))
}

const UNSAYABLE: Fault = Fault::new(Reason::BadRequest, "the request can't be said in HTTP/2 (RFC 9113 8.3)");

fn split_once<'a>(bytes: &'a [u8], at: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let found = memchr::memmem::find(bytes, at)?;
    Some((&bytes[..found], &bytes[found + at.len()..]))
}

/// What the field lines say.
#[derive(Default)]
struct Facts<'a> {
    headers: HeaderMap,
    host: Option<&'a [u8]>,
    length: u64,
    is_chunked: bool,
    is_websocket: bool,
    websocket_key: &'a [u8],
    wants_trailers: bool,
}

impl<'a> Facts<'a> {
    fn collect(mut lines: &'a [u8]) -> Result<Facts<'a>, Fault> {
        let mut facts = Facts::default();
        while !lines.is_empty() {
            let (line, rest) = split_once(lines, b"\r\n").ok_or(UNSAYABLE)?;
            let (name, value) = split_once(line, b":").ok_or(UNSAYABLE)?;
            facts.add(name, value.trim_ascii_start())?;
            lines = rest;
        }
        Ok(facts)
    }

    /// Fields that are about the connection end here (RFC 9113, section 8.2.2).
    fn add(&mut self, name: &'a [u8], value: &'a [u8]) -> Result<(), Fault> {
        match FieldKind::of(name) {
            FieldKind::Connection | FieldKind::KeepAlive | FieldKind::ProxyConnection | FieldKind::Http2Settings => {
                return Ok(());
            }
            FieldKind::Host => {
                self.host = Some(value);
                return Ok(());
            }
            FieldKind::TransferEncoding => {
                self.is_chunked = true;
                return Ok(());
            }
            FieldKind::Upgrade => {
                self.is_websocket = value.eq_ignore_ascii_case(b"websocket");
                return Ok(());
            }
            FieldKind::Te => {
                self.wants_trailers = true;
                return Ok(());
            }
            FieldKind::ContentLength => {
                let digits = std::str::from_utf8(value).map_err(|_| UNSAYABLE)?;
                self.length = digits.parse().map_err(|_| UNSAYABLE)?;
            }
            // Every gRPC call ends in trailers, and servers refuse callers that don't say so.
            FieldKind::ContentType => self.wants_trailers |= begins_with(value, b"application/grpc"),
            FieldKind::Other if name.eq_ignore_ascii_case(b"sec-websocket-key") => self.websocket_key = value,
            _ => {}
        }
        let name = HeaderName::from_bytes(name).map_err(|_| UNSAYABLE)?;
        self.headers.append(name, HeaderValue::from_bytes(value).map_err(|_| UNSAYABLE)?);
        Ok(())
    }

    fn into_request(mut self, method: &[u8], target: &[u8], carriage: Carriage) -> Result<Outbound, Fault> {
        if self.is_websocket && !carriage.has_extended_connect {
            return Err(Reason::UpgradeUnsupported.into());
        }
        if self.wants_trailers {
            self.headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        let content = match (self.is_websocket, self.is_chunked) {
            (true, _) => {
                // They were about the handshake, and would be about the tunnel.
                [SEC_WEBSOCKET_KEY, CONTENT_LENGTH, EXPECT].iter().for_each(|name| drop(self.headers.remove(name)));
                Content::Tunnel { key: self.websocket_key.to_vec() }
            }
            (false, true) => Content::Body(Source::chunked(Sender::Client, Passing::Ours)),
            (false, false) if self.length > 0 => Content::Body(Source::Length(self.length)),
            (false, false) => Content::Body(Source::Done),
        };
        let mut request = Request::new(());
        *request.method_mut() = match &content {
            Content::Tunnel { .. } => Method::CONNECT,
            Content::Body(_) => Method::from_bytes(method).map_err(|_| UNSAYABLE)?,
        };
        if self.is_websocket {
            request.extensions_mut().insert(Protocol::from_static("websocket"));
        }
        *request.uri_mut() = self.uri(target, carriage.over_tls)?;
        // Without an authority there is no `Uri` with a scheme: by this version the scheme is made up for us.
        *request.version_mut() = if request.uri().authority().is_some() { Version::HTTP_2 } else { Version::HTTP_11 };
        *request.headers_mut() = self.headers;
        Ok(Outbound { is_head: method == b"HEAD", request, content })
    }

    /// `:scheme`, `:authority` and `:path`. A `Host` that is no authority stays what it is, but not over TLS: without an
    /// authority the codec says `http` for the scheme.
    fn uri(&mut self, target: &[u8], over_tls: bool) -> Result<Uri, Fault> {
        let mut parts = uri::Parts::default();
        parts.path_and_query = Some(path_and_query(target)?);
        if let Some(host) = self.host {
            match Authority::try_from(host) {
                Ok(authority) => {
                    parts.scheme = Some(if over_tls { Scheme::HTTPS } else { Scheme::HTTP });
                    parts.authority = Some(authority);
                }
                Err(_) if over_tls => {
                    return Err(Fault::new(Reason::BadRequest, "a Host that can't be said in HTTP/2 (RFC 9113 8.3.1)"));
                }
                Err(_) => {
                    let value = HeaderValue::from_bytes(host).map_err(|_| UNSAYABLE)?;
                    self.headers.insert(::http::header::HOST, value);
                }
            }
        }
        Uri::from_parts(parts).map_err(|_| UNSAYABLE)
    }
}

fn begins_with(value: &[u8], prefix: &[u8]) -> bool {
    value.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// The target as a type that some visible characters don't fit, though HTTP/1 clients send them: they are escaped, which
/// means the same (RFC 3986, section 2.1).
fn path_and_query(target: &[u8]) -> Result<PathAndQuery, Fault> {
    PathAndQuery::try_from(target).or_else(|_| {
        let mut escaped = Vec::with_capacity(target.len() + 16);
        for &byte in target {
            match byte {
                b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | b'#' | 0..=0x20 | 0x7f.. => {
                    escaped.push(b'%');
                    escaped.extend([byte >> 4, byte & 15].map(|digit| b"0123456789ABCDEF"[usize::from(digit)]));
                }
                _ => escaped.push(byte),
            }
        }
        PathAndQuery::from_maybe_shared(Bytes::from(escaped)).map_err(|_| UNSAYABLE)
    })
}

/// The lines of a trailer section as fields.
///
/// # Errors
/// [`Reason::BadRequest`] for what HTTP/2 can't say.
pub fn trailers(mut lines: &[u8]) -> Result<HeaderMap, Fault> {
    let mut fields = HeaderMap::new();
    while !lines.is_empty() {
        let (line, rest) = split_once(lines, b"\r\n").ok_or(UNSAYABLE)?;
        let (name, value) = split_once(line, b":").ok_or(UNSAYABLE)?;
        let name = HeaderName::from_bytes(name).map_err(|_| UNSAYABLE)?;
        fields.append(name, HeaderValue::from_bytes(value.trim_ascii()).map_err(|_| UNSAYABLE)?);
        lines = rest;
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::http::head::FieldTable;
    use crate::http::parse::{HeadEnd, HeadLimits, parse_request};
    use proptest::prelude::*;

    const PLAIN: Carriage = Carriage { over_tls: false, has_extended_connect: true };

    fn out(text: &str) -> Outbound {
        let (outbound, used) = take(text.as_bytes(), PLAIN).unwrap().unwrap();
        assert_eq!(used, text.find("\r\n\r\n").unwrap() + 4);
        outbound
    }

    fn fields(outbound: &Outbound) -> Vec<String> {
        let headers = outbound.request.headers();
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    }

    #[test]
    fn a_head_becomes_pseudo_fields_and_what_is_about_the_connection_ends() {
        let got =
            out("GET /a?b=c HTTP/1.1\r\nHost: a.test:81\r\nConnection: TE, close\r\nKeep-Alive: 5\r\nTE: trailers\r\n\
             Proxy-Connection: x\r\nX-A: 1\r\nx-a: 2\r\nEmpty: \r\n\r\nrest");
        assert_eq!(got.request.uri(), "http://a.test:81/a?b=c");
        assert_eq!((got.request.method(), got.request.version()), (&Method::GET, Version::HTTP_2));
        assert_eq!(fields(&got), ["x-a: 1", "x-a: 2", "empty: ", "te: trailers"]);
        assert!(matches!(got.content, Content::Body(Source::Done)) && !got.is_head);
    }

    #[test]
    fn the_framing_of_a_body_is_known() {
        let got = out("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
        assert!(matches!(got.content, Content::Body(Source::Length(5))));
        assert_eq!(fields(&got), ["content-length: 5"]);
        let got = out(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc+proto\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        assert!(matches!(got.content, Content::Body(Source::Chunked(_))));
        assert_eq!(fields(&got), ["content-type: application/grpc+proto", "te: trailers"]);
    }

    #[test]
    fn what_is_not_whole_is_waited_for() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for len in 0..text.len() {
            assert!(take(&text.as_bytes()[..len], PLAIN).unwrap().is_none());
        }
    }

    #[test]
    fn a_websocket_is_an_extended_connect() {
        let text = "GET /ws HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n\
                    Content-Length: 0\r\nExpect: 100-continue\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n";
        let got = out(text);
        assert_eq!((got.request.method(), got.request.uri().path()), (&Method::CONNECT, "/ws"));
        assert_eq!(fields(&got), ["sec-websocket-version: 13"]);
        assert_eq!(got.request.extensions().get::<Protocol>().map(Protocol::as_str), Some("websocket"));
        assert!(matches!(got.content, Content::Tunnel { key } if key == b"k"));
        let refused = take(text.as_bytes(), Carriage { has_extended_connect: false, ..PLAIN });
        assert_eq!(refused.unwrap_err().reason, Reason::UpgradeUnsupported);
    }

    #[test]
    fn targets_and_hosts_of_every_kind_can_be_said() {
        let uri =
            |target: &str| out(&format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\n\r\n")).request.into_parts().0.uri;
        assert_eq!(uri("*").path(), "*");
        assert_eq!(uri("/a<b>`?\"x").path_and_query().unwrap(), "/a%3Cb%3E%60?%22x");
        let got = out("GET / HTTP/1.1\r\nHost: \r\n\r\n");
        assert_eq!((got.request.version(), fields(&got)), (Version::HTTP_11, vec!["host: ".to_owned()]));
        let odd = b"GET / HTTP/1.1\r\nHost: caf%C3%A9.test\r\n\r\n";
        assert_eq!(out(std::str::from_utf8(odd).unwrap()).request.headers()["host"], "caf%C3%A9.test");
        let refused = take(odd, Carriage { over_tls: true, ..PLAIN });
        assert_eq!(refused.unwrap_err().reason, Reason::BadRequest);
        let got = out("GET /x HTTP/1.1\r\nHost: a_b.test\r\n\r\n");
        assert_eq!(got.request.uri().authority().unwrap(), "a_b.test");
    }

    proptest! {
        #[test]
        fn whatever_the_parser_takes_can_be_said(
            method in "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}",
            target in "/[!-~]{0,40}",
            host in "[!-~]{0,20}",
            name in "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}",
            value in proptest::collection::vec(prop_oneof![Just(b'\t'), 0x20u8..0x7f, 0x80u8..], 0..20),
        ) {
            let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{name}: ").into_bytes();
            text.extend_from_slice(value.trim_ascii());
            text.extend_from_slice(b"\r\n\r\n");
            let mut table = FieldTable::default();
            let parsed = parse_request(&text, &mut HeadEnd::default(), &HeadLimits::RESPONSE, &mut table);
            if let Ok(Some((head, _))) = parsed
                && head.upgrade().is_none()
            {
                let (outbound, used) = take(&text, PLAIN).unwrap().unwrap();
                prop_assert_eq!(used, text.len());
                prop_assert_eq!(outbound.request.method().as_str(), method);
                prop_assert!(outbound.request.uri().path().starts_with('/'));
            }
        }
    }
}
