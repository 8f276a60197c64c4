//! A response's head, as the client gets it.
//!
//! Owns what is said of the connection to the client. Never decides whether it persists: that comes in with [`Answer`].

use super::copy::{Named, copy_fields};
use super::kinds::{HOP_BY_HOP, Kinds};
use super::{Edits, GROWTH_BYTES, write_line, write_number, write_via};
use crate::http::head::{FieldKind, ResponseHead};

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

/// Fields that no answer takes to the client; `X-Backend-Load` is between the backend and us.
const ENDS: Kinds = HOP_BY_HOP.with_if(true, FieldKind::XBackendLoad);

/// Fields about a body: gone where there is none, and not to be lost by being named somewhere where there is one.
const FRAMING: Kinds = Kinds::of(&[FieldKind::ContentLength, FieldKind::Trailer]);

/// Appends the head of a final answer as the client gets it; the version is 1.1, the reason phrase the backend's.
pub fn write_response(out: &mut Vec<u8>, head: &ResponseHead<'_>, answer: &Answer<'_>) {
    let keeps_length = match answer.framing {
        AnswerFraming::None => head.status != 204,
        AnswerFraming::Length(len) => head.plain_length == Some(len),
        AnswerFraming::Chunked | AnswerFraming::Close => false,
    };
    let ends = ENDS
        .with_if(!keeps_length, FieldKind::ContentLength)
        .with_if(answer.framing != AnswerFraming::Chunked, FieldKind::Trailer);
    write_answer(out, head, answer, ends);
    match answer.framing {
        AnswerFraming::None | AnswerFraming::Close => {}
        AnswerFraming::Length(_) if keeps_length => {}
        AnswerFraming::Length(len) => write_number(out, b"Content-Length", len),
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
    write_answer(out, head, answer, ENDS.and(FRAMING));
    out.extend_from_slice(b"Connection: Upgrade\r\n");
    write_line(out, b"Upgrade", head.upgrade.unwrap_or(b""));
    out.extend_from_slice(b"\r\n");
}

/// Appends the head of an interim answer (1xx but 101): its status and its end-to-end fields.
pub fn write_interim(out: &mut Vec<u8>, head: &ResponseHead<'_>) {
    write_kept(out, head, ENDS.and(FRAMING), Edits::default());
    out.extend_from_slice(b"\r\n");
}

/// Status line and all fields but those that frame this answer and those of its connection.
fn write_answer(out: &mut Vec<u8>, head: &ResponseHead<'_>, answer: &Answer<'_>, ends: Kinds) {
    let edits = answer.edits;
    write_kept(out, head, ends, edits);
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

/// Status line and the fields that go on as they came.
fn write_kept(out: &mut Vec<u8>, head: &ResponseHead<'_>, ends: Kinds, edits: Edits<'_>) {
    out.reserve(head.fields.head.len() + GROWTH_BYTES);
    write_status_line(out, head);
    copy_fields(out, head.fields, ends, Named::by([None; 2], head.connection, &edits, FRAMING));
}

fn write_status_line(out: &mut Vec<u8>, head: &ResponseHead<'_>) {
    let [a, b, c] = [head.status / 100, head.status / 10 % 10, head.status % 10].map(|digit| b'0' + digit as u8);
    out.extend_from_slice(&[b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1', b' ', a, b, c, b' ']);
    out.extend_from_slice(head.reason);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::super::samples::{any_line, lines};
    use super::*;
    use crate::http::framing::ResponseFraming;
    use crate::http::head::FieldTable;
    use crate::http::parse::{Asked, HeadEnd, HeadLimits, parse_response};
    use proptest::prelude::*;

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
    fn edits_replace_what_would_be_added() {
        let text = "HTTP/1.1 200 OK\r\nServer: x\r\nX_Frame: evil\r\nA: 1\r\nContent-Length: 0\r\n\r\n";
        let [set, add] = [("X-Frame", "DENY"), ("A", "2")].map(|(name, value)| [(name.to_owned(), value.to_owned())]);
        let remove = ["server", "via", "date", "content-length"].map(str::to_owned);
        let edits = Edits { set: &set, add: &add, remove: &remove };
        let got = answered(text, |out, head| {
            write_response(out, head, &Answer { edits, ..answer(AnswerFraming::Length(0)) });
        });
        assert_eq!(got, ["HTTP/1.1 200 OK", "A: 1", "Content-Length: 0", "X-Frame: DENY", "A: 2"]);
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

    proptest! {
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
