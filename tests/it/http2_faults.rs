//! What HTTP/2 forbids its clients (RFC 9113, sections 3 to 8), each rule against the frame and the code it is answered with.
//!
//! The h2 crate calls some faults a PROTOCOL_ERROR of the connection for which the RFC has a code of their own
//! (COMPRESSION_ERROR, STREAM_CLOSED, FLOW_CONTROL_ERROR of a setting) or wants no more than the stream ended (names and
//! values that are none); either way nothing of them goes on.

use crate::frames::{self, *};
use crate::origin::{self, Origin};
use crate::proxy::Proxy;

/// What is accepted as an answer to a fault.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    /// A stream error, which leaves the connection alone; or an answer that says so.
    Stream(u32),
    /// An answer with that status, and a connection that goes on.
    Status(u16),
    /// A connection error.
    Connection(u32),
    /// None at all: it is to be ignored.
    Nothing,
}
use Wanted::{Connection, Nothing, Status, Stream};

struct Case {
    rule: &'static str,
    bytes: Vec<u8>,
    wanted: Wanted,
}

fn case(rule: &'static str, bytes: impl Into<Vec<u8>>, wanted: Wanted) -> Case {
    Case { rule, bytes: bytes.into(), wanted }
}

fn check(cases: Vec<Case>) {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::before(&origin);
    let mut wrong = String::new();
    for Case { rule, bytes, wanted } in cases {
        let mut raw = Raw::connect(proxy.addr());
        raw.wait_for(SETTINGS);
        let sent = raw.try_send(&bytes);
        let got = match wanted {
            Nothing => None,
            _ => Some(raw.verdict()),
        };
        let fits = match (wanted, got) {
            (Nothing, _) => sent.is_ok() && raw.is_alive(),
            (Stream(code), Some(Verdict::Reset(1, got))) => got == code && raw.is_alive(),
            (Status(status), Some(Verdict::Answered(1, got))) => got == status && raw.is_alive(),
            (Connection(code), Some(Verdict::GoAway(got))) => got == code,
            _ => false,
        };
        if !fits {
            wrong.push_str(&format!("{rule}: wanted {wanted:?}, got {got:?}\n"));
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(origin.requests().is_empty() || wrong.is_empty());
}

/// A head that is fine but for these fields.
fn fields(more: &[(&str, &str)]) -> Vec<u8> {
    frames::open(1, true, "GET", "/", more)
}

fn raw_fields(all: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(all))
}

/// A stream that is open, with its request not ended: no answer comes before more is said.
fn opened() -> Vec<u8> {
    frames::open(1, false, "POST", "/echo", &[])
}

fn then(first: Vec<u8>, more: Vec<u8>) -> Vec<u8> {
    [first, more].concat()
}

#[test]
fn frames_that_are_none() {
    let big = vec![0; 16_385];
    check(vec![
        case(
            "4.2: a frame above SETTINGS_MAX_FRAME_SIZE",
            then(opened(), frame(DATA, 0, 1, &big)),
            Connection(FRAME_SIZE_ERROR),
        ),
        case("4.1: an unknown type is ignored", frame(99, 255, 0, b"what?"), Nothing),
        case("4.1: unknown flags are ignored", frame(PING, 0xfe, 0, b"12345678"), Nothing),
        case(
            "4.3: a field block that can't be decoded",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x80]),
            Connection(PROTOCOL_ERROR),
        ),
        case(
            "4.3: an index beyond the table",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff, 0x80, 0x01]),
            Connection(PROTOCOL_ERROR),
        ),
    ]);
}

#[test]
fn streams_in_the_wrong_state() {
    let idle = |kind, payload: &[u8]| frame(kind, 0, 5, payload);
    check(vec![
        case("5.1: DATA on an idle stream", idle(DATA, b"x"), Connection(PROTOCOL_ERROR)),
        case("5.1: RST_STREAM on an idle stream", idle(RST_STREAM, &[0; 4]), Connection(PROTOCOL_ERROR)),
        case("5.1: WINDOW_UPDATE on an idle stream", idle(WINDOW_UPDATE, &[0, 0, 0, 1]), Connection(PROTOCOL_ERROR)),
        case("5.1: CONTINUATION on an idle stream", idle(CONTINUATION, b""), Connection(PROTOCOL_ERROR)),
        case("5.1: PRIORITY on an idle stream is fine", idle(PRIORITY, &[0, 0, 0, 0, 1]), Nothing),
        case(
            "5.1: HEADERS behind the request's end, on a stream that waits",
            then(frames::open(1, true, "GET", "/never", &[]), frames::open(1, true, "GET", "/", &[])),
            Connection(PROTOCOL_ERROR),
        ),
        case("5.1.1: an even stream id", frames::open(2, true, "GET", "/", &[]), Connection(PROTOCOL_ERROR)),
        case(
            "5.1.1: stream ids that do not grow",
            then(frames::open(5, true, "GET", "/never", &[]), frames::open(3, true, "GET", "/", &[])),
            Connection(PROTOCOL_ERROR),
        ),
        case(
            "8.1: trailers that do not end the stream",
            then(opened(), frame(HEADERS, END_HEADERS, 1, &block(&[("x", "y")]))),
            Stream(PROTOCOL_ERROR),
        ),
    ]);
}

#[test]
fn frames_that_break_their_own_rules() {
    check(vec![
        case("6.1: DATA on stream 0", frame(DATA, 0, 0, b"x"), Connection(PROTOCOL_ERROR)),
        case(
            "6.1: more padding than DATA",
            then(opened(), frame(DATA, PADDED, 1, &[9, 1])),
            Connection(PROTOCOL_ERROR),
        ),
        case(
            "6.2: HEADERS on stream 0",
            frame(HEADERS, END_HEADERS | END_STREAM, 0, &request("GET", "/", &[])),
            Connection(PROTOCOL_ERROR),
        ),
        case(
            "6.2: more padding than HEADERS",
            frame(HEADERS, END_HEADERS | PADDED, 1, &[200, 1]),
            Connection(PROTOCOL_ERROR),
        ),
        case(
            "6.2: another frame in front of CONTINUATION",
            then(frame(HEADERS, END_STREAM, 1, &request("GET", "/", &[])), frame(PING, 0, 0, b"12345678")),
            Connection(PROTOCOL_ERROR),
        ),
        case("6.3: PRIORITY on stream 0", frame(PRIORITY, 0, 0, &[0, 0, 0, 0, 1]), Connection(PROTOCOL_ERROR)),
        case("6.4: RST_STREAM on stream 0", frame(RST_STREAM, 0, 0, &[0; 4]), Connection(PROTOCOL_ERROR)),
        case(
            "6.4: RST_STREAM of three bytes",
            then(opened(), frame(RST_STREAM, 0, 1, &[0; 3])),
            Connection(FRAME_SIZE_ERROR),
        ),
        case("6.5: SETTINGS on a stream", frame(SETTINGS, 0, 1, &[]), Connection(PROTOCOL_ERROR)),
        case("6.5: SETTINGS of five bytes", frame(SETTINGS, 0, 0, &[0; 5]), Connection(FRAME_SIZE_ERROR)),
        case("6.5: an ACK with a payload", frame(SETTINGS, ACK, 0, &[0; 6]), Connection(FRAME_SIZE_ERROR)),
        case("6.5.2: ENABLE_PUSH of 2", frame(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2]), Connection(PROTOCOL_ERROR)),
        case(
            "6.5.2: a window above its maximum",
            frame(SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]),
            Connection(PROTOCOL_ERROR),
        ),
        case(
            "6.5.2: a frame size below its minimum",
            frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0x3f, 0xff]),
            Connection(PROTOCOL_ERROR),
        ),
        case("6.5.2: an unknown setting is ignored", frame(SETTINGS, 0, 0, &[0, 99, 0, 0, 0, 2]), Nothing),
        case(
            "6.6: PUSH_PROMISE from a client",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]),
            Connection(PROTOCOL_ERROR),
        ),
        case("6.7: PING on a stream", frame(PING, 0, 1, b"12345678"), Connection(PROTOCOL_ERROR)),
        case("6.7: PING of six bytes", frame(PING, 0, 0, b"123456"), Connection(FRAME_SIZE_ERROR)),
        case("6.8: GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8]), Connection(PROTOCOL_ERROR)),
        case("6.9: WINDOW_UPDATE by 0 on a connection", window_update(0, 0), Connection(PROTOCOL_ERROR)),
        case("6.9: WINDOW_UPDATE of three bytes", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1]), Connection(FRAME_SIZE_ERROR)),
        case(
            "6.9.1: a connection's window beyond its maximum",
            window_update(0, 0x7fff_ffff),
            Connection(FLOW_CONTROL_ERROR),
        ),
        case(
            "6.9.1: a stream's window beyond its maximum",
            then(opened(), window_update(1, 0x7fff_ffff)),
            Stream(FLOW_CONTROL_ERROR),
        ),
        case(
            "6.10: CONTINUATION behind END_HEADERS",
            then(opened(), frame(CONTINUATION, END_HEADERS, 1, b"")),
            Connection(PROTOCOL_ERROR),
        ),
    ]);
}

#[test]
fn requests_that_are_malformed() {
    let all = |first: &[(&'static str, &'static str)]| raw_fields(first);
    check(vec![
        case("8.2.1: a name in capitals", fields(&[("X-A", "b")]), Connection(PROTOCOL_ERROR)),
        case("8.2.1: a name with a space", fields(&[("x a", "b")]), Connection(PROTOCOL_ERROR)),
        case("8.2.1: a value with a line feed", fields(&[("x", "a\nb")]), Connection(PROTOCOL_ERROR)),
        case("8.2.1: a value with a NUL", fields(&[("x", "a\0b")]), Connection(PROTOCOL_ERROR)),
        case("8.2.1: whitespace around a value", fields(&[("x", " a")]), Status(400)),
        case("8.2.2: Connection", fields(&[("connection", "close")]), Stream(PROTOCOL_ERROR)),
        case("8.2.2: Keep-Alive", fields(&[("keep-alive", "5")]), Stream(PROTOCOL_ERROR)),
        case("8.2.2: Proxy-Connection", fields(&[("proxy-connection", "close")]), Stream(PROTOCOL_ERROR)),
        case("8.2.2: Transfer-Encoding", fields(&[("transfer-encoding", "chunked")]), Stream(PROTOCOL_ERROR)),
        case("8.2.2: Upgrade", fields(&[("upgrade", "h2c")]), Stream(PROTOCOL_ERROR)),
        case("8.2.2: TE other than trailers", fields(&[("te", "gzip")]), Stream(PROTOCOL_ERROR)),
        case("8.3: an unknown pseudo-header field", fields(&[(":x", "y")]), Connection(PROTOCOL_ERROR)),
        case(
            "8.3: :status in a request",
            all(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a"), (":status", "200")]),
            Stream(PROTOCOL_ERROR),
        ),
        case(
            "8.3: a pseudo-header field behind others",
            all(&[(":method", "GET"), (":scheme", "http"), (":authority", "a"), ("x", "y"), (":path", "/")]),
            Stream(PROTOCOL_ERROR),
        ),
        case(
            "8.3: a pseudo-header field twice",
            all(&[(":method", "GET"), (":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")]),
            Stream(PROTOCOL_ERROR),
        ),
        case(
            "8.3.1: no :method",
            all(&[(":scheme", "http"), (":path", "/"), (":authority", "a")]),
            Stream(PROTOCOL_ERROR),
        ),
        case(
            "8.3.1: no :scheme",
            all(&[(":method", "GET"), (":path", "/"), (":authority", "a")]),
            Stream(PROTOCOL_ERROR),
        ),
        case(
            "8.3.1: no :path",
            all(&[(":method", "GET"), (":scheme", "http"), (":authority", "a")]),
            Stream(PROTOCOL_ERROR),
        ),
        case(
            "8.3.1: an empty :path",
            all(&[(":method", "GET"), (":scheme", "http"), (":path", ""), (":authority", "a")]),
            Stream(PROTOCOL_ERROR),
        ),
        case("8.3.1: a :path in absolute form", frames::open(1, true, "GET", "http://b/", &[]), Stream(PROTOCOL_ERROR)),
        case(
            "8.3.1: user information in :authority",
            all(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "u@a")]),
            Status(400),
        ),
        case("8.3.1: Host and :authority that differ", fields(&[("host", "b.test")]), Status(400)),
        case(
            "8.3.1: neither Host nor :authority",
            all(&[(":method", "GET"), (":scheme", "http"), (":path", "/")]),
            Status(400),
        ),
        case("8.3.1: a path that climbs", frames::open(1, true, "GET", "/../a", &[]), Status(400)),
        case("8.5: CONNECT is not served", all(&[(":method", "CONNECT"), (":authority", "a:443")]), Status(405)),
        case(
            "8.5: CONNECT with a :path",
            all(&[(":method", "CONNECT"), (":authority", "a:443"), (":path", "/")]),
            Stream(PROTOCOL_ERROR),
        ),
        case(
            "8.1.1: END_STREAM and a Content-Length above zero",
            fields(&[("content-length", "5")]),
            Stream(PROTOCOL_ERROR),
        ),
        case(
            "8.1.1: less than Content-Length",
            then(
                frames::open(1, false, "POST", "/never", &[("content-length", "5")]),
                frame(DATA, END_STREAM, 1, b"1234"),
            ),
            Stream(PROTOCOL_ERROR),
        ),
        case(
            "8.1.1: more than Content-Length",
            then(frames::open(1, false, "POST", "/never", &[("content-length", "5")]), frame(DATA, 0, 1, b"123456")),
            Stream(PROTOCOL_ERROR),
        ),
        case("8.1.1: a malformed Content-Length", fields(&[("content-length", "+0")]), Stream(PROTOCOL_ERROR)),
        case(
            "8.1: a pseudo-header field in trailers (the codec drops it: nothing of it goes on)",
            then(opened(), frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[(":path", "/")]))),
            Status(200),
        ),
    ]);
}

#[test]
fn a_connection_opens_with_settings() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::before(&origin);
    let mut raw = Raw::silent(proxy.addr());
    raw.send(PREFACE);
    raw.send(frame(PING, 0, 0, b"12345678"));
    // RFC 9113, section 3.4: any other first frame is a connection error.
    let verdict = raw.verdict();
    assert_eq!(verdict, Verdict::GoAway(PROTOCOL_ERROR));
}

#[test]
fn windows_are_kept_to() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::before(&origin);
    // RFC 9113, section 6.9.2: a window that settings make negative holds everything back.
    let mut raw = Raw::with(proxy.addr(), &[(4, 10)]);
    raw.send(frames::open(1, true, "GET", "/size/100", &[]));
    let mut got = 0;
    raw.find("ten bytes", |frame| {
        got += if frame.kind == DATA { frame.payload.len() } else { 0 };
        got == 10
    });
    assert!(raw.is_alive(), "and not one more");
    raw.send(window_update(1, 90));
    let last = raw.find("the end", |frame| frame.kind == DATA && frame.flags & END_STREAM != 0);
    assert_eq!(last.stream, 1);
    // Section 6.9.1: a sender that goes beyond our window.
    let mut raw = Raw::connect(proxy.addr());
    raw.send(frames::open(1, false, "POST", "/never", &[]));
    let piece = frame(DATA, 0, 1, &[0; 16_384]);
    // What the backend's socket takes moves the window on; a request held at its head takes nothing in.
    let mut sent = Ok(());
    for _ in 0..4096 {
        sent = raw.try_send(&piece);
        if sent.is_err() {
            break;
        }
    }
    drop(sent);
    let verdict = raw.verdict();
    assert!(
        matches!(verdict, Verdict::Reset(1, FLOW_CONTROL_ERROR) | Verdict::GoAway(FLOW_CONTROL_ERROR)),
        "{verdict:?}"
    );
}
