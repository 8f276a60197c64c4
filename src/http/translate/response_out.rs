//! The bytes of an answer as we wrote it for an HTTP/1.1 client, as HTTP/2 has it (RFC 9113, section 8.3.2).
//!
//! Owns which fields are left behind. Never decides how an answer is framed beyond what its head says, and never holds
//! a byte of a body.

use ::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ::http::{Response, StatusCode};

use crate::error::{Fault, Reason};
use crate::http::body::Source;
use crate::http::framing::{ResponseFraming, Sender};
use crate::http::head::{FieldKind, FieldTable, ResponseHead};
use crate::http::parse::{Asked, HeadEnd, HeadLimits, parse_response};
use crate::http::trailers::Passing;

/// A head of an answer.
#[derive(Debug)]
pub enum Answer {
    /// Another head follows.
    Interim(Response<()>),
    /// The answer, and how its body follows.
    Final(Response<()>, Source),
    /// What an extended CONNECT is answered with: what follows is the tunnel's (RFC 8441, section 5).
    Switched(Response<()>),
}

/// Reads one head off the start of `bytes`: it, and how many bytes it took. `None` while it is not whole.
///
/// # Errors
/// When it is none of ours: what we wrote can be read.
pub fn response_head(bytes: &[u8], asked: Asked, table: &mut FieldTable) -> Result<Option<(Answer, usize)>, Fault> {
    let parsed = parse_response(bytes, &mut HeadEnd::default(), asked, &HeadLimits::OURS, table)?;
    let Some((head, used)) = parsed else { return Ok(None) };
    let answer = match head.status() {
        101 => switched(response(&head)?),
        _ if head.is_interim() => Answer::Interim(response(&head)?),
        _ => Answer::Final(response(&head)?, source(&head)),
    };
    Ok(Some((answer, used)))
}

fn source(head: &ResponseHead<'_>) -> Source {
    match head.framing() {
        ResponseFraming::None | ResponseFraming::Length(0) => Source::Done,
        ResponseFraming::Length(n) => Source::Length(n),
        ResponseFraming::Chunked => Source::chunked(Sender::Backend, Passing::Ours),
        ResponseFraming::UntilClose => Source::UntilClose,
    }
}

fn response(head: &ResponseHead<'_>) -> Result<Response<()>, Fault> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status()).map_err(|_| unreadable())?;
    let fields = response.headers_mut();
    fields.reserve(head.fields().len());
    for field in head.fields().iter() {
        if !is_of_connection(field.kind) {
            let (name, value) = (HeaderName::from_bytes(field.name), HeaderValue::from_bytes(field.value));
            fields.append(name.map_err(|_| unreadable())?, value.map_err(|_| unreadable())?);
        }
    }
    Ok(response)
}

/// A 101 is a 200 here, without the field that HTTP/2 has no use for (RFC 8441, section 5.1).
fn switched(mut response: Response<()>) -> Answer {
    response.headers_mut().remove(header::SEC_WEBSOCKET_ACCEPT);
    *response.status_mut() = StatusCode::OK;
    Answer::Switched(response)
}

/// What an HTTP/1.1 neighbour is told of its connection (RFC 9113, section 8.2.2).
fn is_of_connection(kind: FieldKind) -> bool {
    matches!(
        kind,
        FieldKind::Connection
            | FieldKind::Http2Settings
            | FieldKind::KeepAlive
            | FieldKind::ProxyConnection
            | FieldKind::Te
            | FieldKind::TransferEncoding
            | FieldKind::Upgrade
    )
}

const fn unreadable() -> Fault {
    Fault::new(Reason::BackendProtocol, "an answer that HTTP/2 can't carry (RFC 9113 8.2.1)")
}

/// Trailer lines as the chunk decoder hands them out.
///
/// # Errors
/// When a line is none.
pub fn read_trailers(lines: &[u8]) -> Result<HeaderMap, Fault> {
    let mut trailers = HeaderMap::new();
    for line in lines.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let colon = memchr::memchr(b':', line).ok_or(unreadable())?;
        let (name, value) = (HeaderName::from_bytes(&line[..colon]), line[colon + 1..].trim_ascii());
        let value = HeaderValue::from_bytes(value).map_err(|_| unreadable())?;
        trailers.append(name.map_err(|_| unreadable())?, value);
    }
    Ok(trailers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, is_head: bool) -> (Answer, usize) {
        let asked = Asked { head: is_head, upgrade: false };
        response_head(text.as_bytes(), asked, &mut FieldTable::default()).unwrap().unwrap()
    }

    #[test]
    fn an_answer_leaves_the_connection_behind() {
        let text = "HTTP/1.1 200 Fine\r\nServer: x\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nConnection: close\r\n\
                    Transfer-Encoding: chunked\r\nTrailer: X\r\nProxy-Status: a\r\n\r\n";
        let (Answer::Final(response, Source::Chunked(_)), used) = read(text, false) else { panic!("an answer") };
        assert_eq!(used, text.len());
        assert_eq!(response.status(), 200);
        let names: Vec<_> = response.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["server", "set-cookie", "trailer", "proxy-status"]);
        assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
    }

    #[test]
    fn what_has_no_body_ends_with_its_head() {
        for (text, is_head) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", true),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", false),
            ("HTTP/1.1 204 No Content\r\n\r\n", false),
        ] {
            assert!(matches!(read(text, is_head).0, Answer::Final(_, Source::Done)), "{text}");
        }
        assert!(matches!(read("HTTP/1.1 103 Early\r\nLink: a\r\n\r\n", false).0, Answer::Interim(_)));
    }

    #[test]
    fn a_switch_is_a_200() {
        let text = "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Accept: proven\r\nSec-WebSocket-Protocol: p\r\n\r\n";
        let asked = Asked { head: false, upgrade: true };
        let read = response_head(text.as_bytes(), asked, &mut FieldTable::default());
        let Ok(Some((Answer::Switched(response), _))) = read else { panic!("a switch") };
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers().len(), 1);
    }

    #[test]
    fn trailers_are_lines() {
        let trailers = read_trailers(b"grpc-status: 0\r\nX-B:  c \r\n").unwrap();
        assert_eq!((&trailers["grpc-status"], &trailers["x-b"]), (&"0".parse().unwrap(), &"c".parse().unwrap()));
        assert!(read_trailers(b"").unwrap().is_empty());
    }
}
