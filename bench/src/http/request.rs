//! Reads requests as a suspicious backend does: strict syntax, and what a forwarding proxy has to have added.
//!
//! Owns the list of violations. Never answers.

use super::{Malformed, fields};
use crate::body::BODY_BYTES_MAX;
use crate::h2::fields::Fields;
use crate::h2::link::is_allowed;
use std::net::IpAddr;
use std::time::Duration;

/// Longest delay that a request may ask for.
pub const DELAY_MAX: Duration = Duration::from_secs(60);

/// Distance of the events of a stream, unless the request says another.
const EVENTS_EVERY: Duration = Duration::from_millis(10);
/// The shortest distance that it may ask for.
const EVENTS_EVERY_MIN: Duration = Duration::from_millis(1);

/// How the body of a request is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes; 0 when there is none.
    Length(u64),
    /// Chunked; over HTTP/2: until the stream's end.
    Chunked,
}

/// What a path asks of the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// `/N`: a body of so many bytes.
    Body(usize),
    /// `/stats`: what was counted so far, as JSON.
    Stats,
    /// `/stats/anew`: the same, and the most in flight is counted anew from now on.
    StatsAnew,
    /// `Upgrade: websocket` on any path: an echo. The key as sent.
    WebSocket([u8; 24]),
    /// `/events?every=10ms&count=N`: an event stream; without a count, for ever.
    Events {
        /// The distance of events.
        every: Duration,
        /// How many there are.
        count: u64,
    },
    /// A gRPC call of any method, over HTTP/2: its message comes back.
    Grpc,
    /// Any other path: 404.
    Unknown,
}

/// A checked request head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What it wants.
    pub ask: Ask,
    /// `?delay=2s`: answer so much later, at most [`DELAY_MAX`].
    pub delay: Duration,
    /// How its body is framed.
    pub framing: Framing,
    /// Whether the answer has a body: not to `HEAD`.
    pub wants_body: bool,
    /// Whether the connection goes on.
    pub keep: bool,
    /// What a proxy should have added.
    pub forwarded: Forwarded,
}

/// Which forwarding fields are present once and well-formed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// `X-Forwarded-For`: addresses separated by commas.
    pub client: bool,
    /// `X-Forwarded-Proto`: `http` or `https`.
    pub proto: bool,
}

/// Parses a whole head, its empty line included.
///
/// # Errors
/// When anything breaks RFC 9112 or is ambiguous; the connection can't go on then.
pub fn parse(head: &[u8]) -> Result<Request, Malformed> {
    let mut rest = &head[..head.len() - 2];
    let (method, target, minor) = request_line(fields::line(&mut rest)?)?;
    let mut seen = Seen::default();
    while !rest.is_empty() {
        let (name, value) = fields::field(fields::line(&mut rest)?)?;
        seen.field(name, value)?;
    }
    if seen.hosts != 1 {
        return Err(Malformed("not exactly one Host"));
    }
    let framing = match (seen.chunked, seen.length) {
        (true, Some(_)) => return Err(Malformed("both Content-Length and Transfer-Encoding")),
        (true, None) => Framing::Chunked,
        (false, length) => Framing::Length(length.unwrap_or(0)),
    };
    let (path, query) = split_target(target);
    let ask = match seen.websocket_key {
        Some(key) if seen.upgrade => Ask::WebSocket(key),
        _ => path_ask(path, query),
    };
    let keep = if minor == 1 { !seen.close } else { seen.keep_alive };
    Ok(Request {
        ask,
        delay: query_delay(query),
        framing,
        wants_body: method != b"HEAD",
        keep,
        forwarded: Forwarded { client: seen.forwarded_for == 1, proto: seen.forwarded_proto == 1 },
    })
}

/// Checks the fields of a request of HTTP/2 (RFC 9113, section 8.3.1).
///
/// # Errors
/// When they make no request, or hold what HTTP/2 does not know.
pub fn from_fields(all: &Fields) -> Result<Request, Malformed> {
    let (mut pseudo, mut seen, mut regular) = (Pseudo::default(), Seen::default(), false);
    for (name, value) in all.iter() {
        if name.first() == Some(&b':') {
            if regular {
                return Err(Malformed("a pseudo-field after others"));
            }
            pseudo.field(name, value)?;
            continue;
        }
        regular = true;
        if !is_allowed(name, value) {
            return Err(Malformed("a field that HTTP/2 does not know"));
        }
        seen.field(name, value)?;
    }
    let (Some(method), Some(path), Some(_)) = (pseudo.method, pseudo.path, pseudo.scheme) else {
        return Err(Malformed("a request without method, path or scheme"));
    };
    if path.is_empty() || !path.iter().all(u8::is_ascii_graphic) || pseudo.authority.is_none() && seen.hosts != 1 {
        return Err(Malformed("a request without a path or an authority"));
    }
    let (path, query) = split_target(path);
    Ok(Request {
        ask: if seen.grpc { Ask::Grpc } else { path_ask(path, query) },
        delay: query_delay(query),
        framing: seen.length.map_or(Framing::Chunked, Framing::Length),
        wants_body: method != b"HEAD",
        keep: true,
        forwarded: Forwarded { client: seen.forwarded_for == 1, proto: seen.forwarded_proto == 1 },
    })
}

/// What the pseudo-fields said so far.
#[derive(Default)]
struct Pseudo<'a> {
    method: Option<&'a [u8]>,
    path: Option<&'a [u8]>,
    scheme: Option<&'a [u8]>,
    authority: Option<&'a [u8]>,
}

impl<'a> Pseudo<'a> {
    fn field(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), Malformed> {
        let place = match name {
            b":method" => &mut self.method,
            b":path" => &mut self.path,
            b":scheme" => &mut self.scheme,
            b":authority" => &mut self.authority,
            _ => return Err(Malformed("a pseudo-field that is not known")),
        };
        match place.replace(value) {
            None => Ok(()),
            Some(_) => Err(Malformed("a pseudo-field twice")),
        }
    }
}

/// What the fields said so far.
#[derive(Default)]
struct Seen {
    hosts: u32,
    forwarded_for: u32,
    forwarded_proto: u32,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    websocket_key: Option<[u8; 24]>,
    grpc: bool,
}

impl Seen {
    fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Malformed> {
        // Only names of the same length are compared: a lean origin leaves its CPU to the load.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.hosts += u32::from(!value.is_empty()),
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade = value.eq_ignore_ascii_case(b"websocket"),
            10 if name.eq_ignore_ascii_case(b"connection") => {
                self.close |= fields::lists(value, b"close");
                self.keep_alive |= fields::lists(value, b"keep-alive");
            }
            12 if name.eq_ignore_ascii_case(b"content-type") => self.grpc = value.starts_with(b"application/grpc"),
            14 if name.eq_ignore_ascii_case(b"content-length") => fields::only_length(&mut self.length, value)?,
            15 if name.eq_ignore_ascii_case(b"x-forwarded-for") => {
                // A wrong value counts like a missing one; a second field makes it ambiguous.
                self.forwarded_for += if is_address_list(value) { 1 } else { 2 };
            }
            17 if name.eq_ignore_ascii_case(b"x-forwarded-proto") => {
                self.forwarded_proto += if matches!(value, b"http" | b"https") { 1 } else { 2 };
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Malformed("a Transfer-Encoding other than chunked"));
                }
                self.chunked = true;
            }
            17 if name.eq_ignore_ascii_case(b"sec-websocket-key") => self.websocket_key = value.try_into().ok(),
            _ => {}
        }
        Ok(())
    }
}

fn request_line(line: &[u8]) -> Result<(&[u8], &[u8], u8), Malformed> {
    const WRONG: Malformed = Malformed("a request line that is none");
    let mut parts = line.split(|&b| b == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(WRONG);
    };
    let minor = match version {
        b"HTTP/1.1" => 1,
        b"HTTP/1.0" => 0,
        _ => return Err(WRONG),
    };
    if !fields::is_token(method) || target.is_empty() || !target.iter().all(|b| b.is_ascii_graphic()) {
        return Err(WRONG);
    }
    Ok((method, target, minor))
}

fn split_target(target: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'?', target) {
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (target, b""),
    }
}

fn path_ask(path: &[u8], query: &[u8]) -> Ask {
    match path {
        b"/events" => Ask::Events {
            every: query_duration(query, b"every=").unwrap_or(EVENTS_EVERY).max(EVENTS_EVERY_MIN),
            count: query_value(query, b"count=").and_then(|text| text.parse().ok()).unwrap_or(u64::MAX),
        },
        b"/stats" => Ask::Stats,
        b"/stats/anew" => Ask::StatsAnew,
        b"/" | b"/health" => Ask::Body(0),
        [b'/', digits @ ..] => match fields::content_length(digits) {
            Ok(bytes) if bytes <= BODY_BYTES_MAX as u64 => Ask::Body(bytes as usize),
            _ => Ask::Unknown,
        },
        _ => Ask::Unknown,
    }
}

fn query_delay(query: &[u8]) -> Duration {
    query_duration(query, b"delay=").unwrap_or(Duration::ZERO).min(DELAY_MAX)
}

fn query_duration(query: &[u8], key: &[u8]) -> Option<Duration> {
    crate::amount::duration(query_value(query, key)?).ok()
}

fn query_value<'a>(query: &'a [u8], key: &[u8]) -> Option<&'a str> {
    let value = query.split(|&b| b == b'&').find_map(|pair| pair.strip_prefix(key))?;
    std::str::from_utf8(value).ok()
}

fn is_address_list(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok_and(|text| text.split(',').all(|item| item.trim().parse::<IpAddr>().is_ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(fields: &str) -> Result<Request, Malformed> {
        parse(format!("GET /100?x=1&delay=2s HTTP/1.1\r\n{fields}\r\n").as_bytes())
    }

    #[test]
    fn a_forwarded_request_is_understood() {
        let request = get("Host: a\r\nX-Forwarded-For: 10.0.0.1, ::1\r\nX-Forwarded-Proto: http\r\n").unwrap();
        assert_eq!((request.ask, request.delay), (Ask::Body(100), Duration::from_secs(2)));
        assert_eq!(request.forwarded, Forwarded { client: true, proto: true });
        assert!(request.keep && request.wants_body);
    }

    #[test]
    fn forwarding_fields_are_checked_not_just_found() {
        for (fields, client, proto) in [
            ("", false, false),
            ("X-Forwarded-For: unknown\r\nX-Forwarded-Proto: ftp\r\n", false, false),
            ("X-Forwarded-For: ::1\r\nX-Forwarded-For: ::1\r\nX-Forwarded-Proto: https\r\n", false, true),
        ] {
            let request = get(&format!("Host: a\r\n{fields}")).unwrap();
            assert_eq!(request.forwarded, Forwarded { client, proto }, "{fields}");
        }
    }

    #[test]
    fn ambiguous_requests_are_malformed() {
        for fields in [
            "",
            "Host: a\r\nHost: a\r\n",
            "Host: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Host: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n",
            "Host: a\r\nA : b\r\n",
            "Host: a\r\n folded\r\n",
        ] {
            assert!(get(fields).is_err(), "{fields:?}");
        }
        assert!(parse(b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n").is_err());
        assert!(parse(b"GET / HTTP/2.0\r\nHost: a\r\n\r\n").is_err());
    }

    #[test]
    fn bodies_are_bounded() {
        let ask = |path: &str| parse(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap().ask;
        assert_eq!(ask("/65536"), Ask::Body(65536));
        assert_eq!(ask("/99999999999"), Ask::Unknown);
        assert_eq!(ask("/100x"), Ask::Unknown);
    }
}
