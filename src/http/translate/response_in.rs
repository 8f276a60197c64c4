//! The answer of an HTTP/2 backend, turned into the bytes of an HTTP/1.1 answer (RFC 9113, section 8.3.2).
//!
//! Owns how a body is framed that had none, and what of its length has to come true. Never decides what a client gets: the
//! bytes made here are judged as those of any HTTP/1.1 backend are.

use ::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, TRAILER};
use ::http::response::Parts;

use crate::error::{Fault, Reason};
use crate::http::head::FieldKind;
use crate::http::status;

/// What the answer's form depends on.
#[derive(Clone, Copy, Debug)]
pub enum Asked<'a> {
    /// An ordinary request.
    Answer {
        /// It was a `HEAD`.
        is_head: bool,
    },
    /// An extended CONNECT, for a client who asked to switch protocols and gets `accept` as proof (RFC 6455, section 4.2.2).
    Tunnel {
        /// The value of `Sec-WebSocket-Accept`.
        accept: &'a str,
    },
}

/// What follows an answer's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// So many bytes, none when 0.
    Length(u64),
    /// Chunks.
    Chunked,
    /// Whatever the backend says, until it ends its side.
    Tunnel,
}

/// Writes the head of the final answer. `is_end`: nothing follows it.
///
/// An answer without a length gets chunks, so that its end can be told; so does one whose trailers could not be passed on
/// otherwise.
///
/// # Errors
/// [`Reason::BackendProtocol`] when the answer is malformed (RFC 9113, section 8.1.1).
pub fn write_head(out: &mut Vec<u8>, answer: &Parts, asked: Asked<'_>, is_end: bool) -> Result<Body, Fault> {
    let code = answer.status.as_u16();
    if let (Asked::Tunnel { accept }, true) = (asked, answer.status.is_success()) {
        write_switching(out, answer, accept);
        return Ok(Body::Tunnel);
    }
    let has_none = matches!(asked, Asked::Answer { is_head: true }) || matches!(code, 204 | 304);
    let has_trailers = !has_none && !is_end && may_have_trailers(&answer.headers);
    let length = announced(&answer.headers)?;
    write_status(out, code);
    for (name, value) in &answer.headers {
        if !(ends_here(name.as_str()) || has_trailers && name == CONTENT_LENGTH) {
            write_line(out, name.as_str(), value.as_bytes());
        }
    }
    let body = match length {
        _ if has_none => Body::Length(0),
        Some(length) if is_end && length > 0 => return Err(SHORT),
        Some(length) if !has_trailers => Body::Length(length),
        None if is_end && !is_grpc(&answer.headers) => {
            write_line(out, "content-length", b"0");
            Body::Length(0)
        }
        _ => {
            write_line(out, "transfer-encoding", b"chunked");
            Body::Chunked
        }
    };
    out.extend_from_slice(b"\r\n");
    Ok(body)
}

/// An answer whose body ended before its announced length did.
pub const SHORT: Fault = Fault::new(Reason::BackendProtocol, "the answer is shorter than its length (RFC 9113 8.1.1)");
/// An answer with more than it announced.
pub const LONG: Fault = Fault::new(Reason::BackendProtocol, "the answer is longer than its length (RFC 9113 8.1.1)");
const LENGTHS: Fault = Fault::new(Reason::BackendProtocol, "the answer's length is malformed (RFC 9110 8.6)");

/// Writes the head of an interim answer.
///
/// # Errors
/// [`Reason::BackendProtocol`] for a 101, which HTTP/2 doesn't have (RFC 9113, section 8.6).
pub fn write_interim(out: &mut Vec<u8>, answer: &Parts) -> Result<(), Fault> {
    if answer.status.as_u16() == 101 {
        return Err(Fault::new(Reason::BackendProtocol, "a 101 over HTTP/2 (RFC 9113 8.6)"));
    }
    write_status(out, answer.status.as_u16());
    write_fields(out, &answer.headers);
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Writes the trailers behind the last chunk, as field lines.
pub fn write_trailers(out: &mut Vec<u8>, trailers: &HeaderMap) {
    write_fields(out, trailers);
}

fn write_switching(out: &mut Vec<u8>, answer: &Parts, accept: &str) {
    write_status(out, 101);
    for (name, value) in &answer.headers {
        if !ends_here(name.as_str()) && name != CONTENT_LENGTH {
            write_line(out, name.as_str(), value.as_bytes());
        }
    }
    write_line(out, "connection", b"Upgrade");
    write_line(out, "upgrade", b"websocket");
    write_line(out, "sec-websocket-accept", accept.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn write_status(out: &mut Vec<u8>, code: u16) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(code).as_bytes());
    out.push(b' ');
    out.extend_from_slice(status::phrase(code).as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn write_fields(out: &mut Vec<u8>, fields: &HeaderMap) {
    for (name, value) in fields {
        if !ends_here(name.as_str()) {
            write_line(out, name.as_str(), value.as_bytes());
        }
    }
}

fn write_line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Fields about the connection have no place in HTTP/2 (RFC 9113, section 8.2.2), and would frame the body anew here.
fn ends_here(name: &str) -> bool {
    matches!(
        FieldKind::of(name.as_bytes()),
        FieldKind::Connection
            | FieldKind::KeepAlive
            | FieldKind::ProxyConnection
            | FieldKind::TransferEncoding
            | FieldKind::Upgrade
    ) || name == "sec-websocket-accept"
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    value.get(..16).is_some_and(|start| start.eq_ignore_ascii_case(b"application/grpc"))
}

/// Whether trailers are to be reckoned with, which a body of announced length has no room for in HTTP/1.1.
fn may_have_trailers(headers: &HeaderMap) -> bool {
    headers.contains_key(TRAILER) || is_grpc(headers)
}

/// The length of the body, where one is announced.
fn announced(headers: &HeaderMap) -> Result<Option<u64>, Fault> {
    let mut announced = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        let is_number = !value.is_empty() && value.as_bytes().iter().all(u8::is_ascii_digit);
        let length = value.to_str().ok().filter(|_| is_number).and_then(|digits| digits.parse().ok());
        let length: u64 = length.ok_or(LENGTHS)?;
        if announced.replace(length).is_some_and(|other| other != length) {
            return Err(LENGTHS);
        }
    }
    Ok(announced)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::Response;

    const ANSWER: Asked<'static> = Asked::Answer { is_head: false };

    fn parts(status: u16, fields: &[(&str, &str)]) -> Parts {
        let mut answer = Response::builder().status(status);
        for (name, value) in fields {
            answer = answer.header(*name, *value);
        }
        answer.body(()).unwrap().into_parts().0
    }

    fn head(status: u16, fields: &[(&str, &str)], asked: Asked<'_>, is_end: bool) -> Result<(String, Body), Fault> {
        let mut out = Vec::new();
        let body = write_head(&mut out, &parts(status, fields), asked, is_end)?;
        Ok((String::from_utf8(out).unwrap(), body))
    }

    #[test]
    fn a_body_is_framed_so_that_its_end_can_be_told() {
        let (text, body) = head(200, &[("x-a", "1"), ("set-cookie", "b"), ("set-cookie", "c")], ANSWER, false).unwrap();
        assert_eq!(
            text,
            "HTTP/1.1 200 OK\r\nx-a: 1\r\nset-cookie: b\r\nset-cookie: c\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        assert_eq!(body, Body::Chunked);
        let (text, body) = head(200, &[("content-length", "7")], ANSWER, false).unwrap();
        assert_eq!((text.as_str(), body), ("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n", Body::Length(7)));
        let (text, body) = head(404, &[], ANSWER, true).unwrap();
        assert_eq!((text.as_str(), body), ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", Body::Length(0)));
    }

    #[test]
    fn answers_without_a_body_say_nothing_of_one() {
        for (status, asked) in [(204, ANSWER), (304, ANSWER), (200, Asked::Answer { is_head: true })] {
            let (text, body) = head(status, &[], asked, true).unwrap();
            assert_eq!((text.lines().count(), body), (2, Body::Length(0)), "{text}");
        }
        let (text, body) = head(200, &[("content-length", "9")], Asked::Answer { is_head: true }, true).unwrap();
        assert!(text.contains("content-length: 9") && body == Body::Length(0));
    }

    #[test]
    fn trailers_have_room() {
        let grpc = ("content-type", "application/grpc");
        let trailers_only = head(200, &[grpc, ("grpc-status", "5")], ANSWER, true).unwrap();
        assert_eq!(trailers_only.1, Body::Chunked);
        for fields in [[grpc, ("content-length", "7")], [("trailer", "x-sum"), ("content-length", "7")]] {
            let (text, body) = head(200, &fields, ANSWER, false).unwrap();
            assert!(body == Body::Chunked && !text.contains("content-length"), "{text}");
        }
    }

    #[test]
    fn fields_of_connections_end_here() {
        let fields = [("connection", "close"), ("keep-alive", "1"), ("transfer-encoding", "gzip"), ("upgrade", "x")];
        let (text, _) = head(200, &fields, ANSWER, false).unwrap();
        assert_eq!(text, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    }

    #[test]
    fn lengths_have_to_make_sense() {
        for lengths in [["1", "2"], ["x", "x"], ["", ""], ["+1", "1"], ["18446744073709551616", "1"]] {
            let fields = lengths.map(|length| ("content-length", length));
            assert_eq!(head(200, &fields, ANSWER, false).unwrap_err(), LENGTHS, "{lengths:?}");
        }
        assert_eq!(head(200, &[("content-length", "1")], ANSWER, true).unwrap_err(), SHORT);
    }

    #[test]
    fn a_tunnel_is_a_101_with_its_proof() {
        let asked = Asked::Tunnel { accept: "proof" };
        let (text, body) = head(200, &[("sec-websocket-protocol", "chat")], asked, false).unwrap();
        assert_eq!(
            text,
            "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-protocol: chat\r\nconnection: Upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-accept: proof\r\n\r\n"
        );
        assert_eq!(body, Body::Tunnel);
        let (text, body) = head(403, &[("content-length", "2")], asked, false).unwrap();
        assert!(text.starts_with("HTTP/1.1 403 ") && body == Body::Length(2));
        assert!(write_interim(&mut Vec::new(), &parts(101, &[])).is_err());
    }
}
