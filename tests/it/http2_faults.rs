//! What HTTP/2 forbids its clients (RFC 9113, sections 3 to 8), each rule against the frame and the code it is answered with.
//!
//! The h2 crate answers some faults in another way than the RFC asks for; nothing of what was wrong goes on all the same:
//!
//! | section | the RFC | the crate |
//! |---|---|---|
//! | 4.3 | COMPRESSION_ERROR for a field block that can't be decoded | PROTOCOL_ERROR |
//! | 5.1 | STREAM_CLOSED behind a stream's end or reset | PROTOCOL_ERROR, of the connection; STREAM_CLOSED on a skipped stream |
//! | 6.3 | a stream error for a PRIORITY of another size than five | a connection error; we give it its code |
//! | 6.5.2 | FLOW_CONTROL_ERROR for a window above its maximum | PROTOCOL_ERROR |
//! | 6.9 | a stream error for a WINDOW_UPDATE by 0 on a stream | a connection error |
//! | 8.1 | trailers with pseudo-header fields are malformed | they are left out, the rest goes on |
//! | 8.2.1, 8.3 | a malformed name, value or method is a stream error | a connection error |
//!
//! What else binds a server can't be seen from outside, or is tested elsewhere: padding counts against windows (6.1, by
//! `windows_are_kept_to` only for data), a client's field table size (4.3.1, by its first sign), its limits on streams and
//! pushes (nothing is pushed), refused streams, floods and resets (5.1.2, 10.5: `http2_attacks`), TLS (9.2: `tls`).

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
        case("4.1: the reserved bit is ignored", frames::open(0x8000_0001, true, "GET", "/", &[]), Status(200)),
        case(
            "4.2: HEADERS above SETTINGS_MAX_FRAME_SIZE",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &big),
            Connection(FRAME_SIZE_ERROR),
        ),
        case(
            "4.2: padded DATA without a length",
            then(opened(), frame(DATA, PADDED, 1, b"")),
            Connection(FRAME_SIZE_ERROR),
        ),
        case(
            "4.2: padded HEADERS without a length",
            frame(HEADERS, END_HEADERS | PADDED, 1, b""),
            Connection(FRAME_SIZE_ERROR),
        ),
        case(
            "4.2: HEADERS too short for their priority",
            frame(HEADERS, END_HEADERS | PRIORITIZED, 1, &[0; 4]),
            Connection(FRAME_SIZE_ERROR),
        ),
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
        case(
            "4.3: a table larger than was allowed",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[&[0x3f, 0xe2, 0x1f][..], &request("GET", "/", &[])].concat()),
            Connection(PROTOCOL_ERROR),
        ),
        case(
            "4.3: a field block that ends within a field",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[&request("GET", "/", &[])[..], &[0, 5, b'x']].concat()),
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
            "5.1: DATA behind the request's end",
            then(frames::open(1, true, "GET", "/never", &[]), frame(DATA, 0, 1, b"x")),
            Connection(PROTOCOL_ERROR),
        ),
        case(
            "5.1: what may come behind the request's end",
            [frames::open(1, true, "GET", "/", &[]), window_update(1, 9), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])]
                .concat(),
            Status(200),
        ),
        case(
            "5.1: what was on its way when the stream was reset",
            [opened(), reset(1, CANCEL), window_update(1, 9), reset(1, CANCEL)].concat(),
            Nothing,
        ),
        case(
            "5.1: HEADERS on a stream that the client reset",
            [opened(), reset(1, CANCEL), frames::open(1, true, "GET", "/", &[])].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        case(
            "5.1.1: a request on a stream that was skipped",
            then(frames::open(3, true, "GET", "/never", &[]), frame(DATA, 0, 1, b"x")),
            Stream(STREAM_CLOSED),
        ),
        case("7: an unknown error code is one like others", then(opened(), reset(1, 0xbad)), Nothing),
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
        case("6.1: as much padding as DATA", then(opened(), frame(DATA, PADDED, 1, &[1])), Connection(PROTOCOL_ERROR)),
        case(
            "6.1: DATA of padding alone",
            then(opened(), frame(DATA, PADDED | END_STREAM, 1, &[2, 0, 0])),
            Status(200),
        ),
        case(
            "6.2: HEADERS with padding and a priority",
            frame(
                HEADERS,
                END_HEADERS | END_STREAM | PADDED | PRIORITIZED,
                1,
                &[&[3, 0, 0, 0, 0, 9][..], &request("GET", "/", &[]), &[0; 3]].concat(),
            ),
            Status(200),
        ),
        case(
            "6.3: PRIORITY of four bytes",
            then(opened(), frame(PRIORITY, 0, 1, &[0; 4])),
            Connection(FRAME_SIZE_ERROR),
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
        case(
            "6.2: an unknown frame in front of CONTINUATION",
            then(frame(HEADERS, END_STREAM, 1, &request("GET", "/", &[])), frame(99, 0, 0, b"")),
            Connection(PROTOCOL_ERROR),
        ),
        case(
            "6.2: another stream's HEADERS in front of CONTINUATION",
            then(frame(HEADERS, END_STREAM, 1, &request("GET", "/", &[])), frames::open(3, true, "GET", "/", &[])),
            Connection(PROTOCOL_ERROR),
        ),
        case(
            "6.10: another stream's CONTINUATION",
            then(frame(HEADERS, END_STREAM, 1, &request("GET", "/", &[])), frame(CONTINUATION, END_HEADERS, 3, b"")),
            Connection(PROTOCOL_ERROR),
        ),
        case(
            "6.10: CONTINUATION on stream 0",
            then(frame(HEADERS, END_STREAM, 1, &request("GET", "/", &[])), frame(CONTINUATION, END_HEADERS, 0, b"")),
            Connection(PROTOCOL_ERROR),
        ),
        case("6.10: a field block in pieces", in_pieces(), Status(200)),
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
        case(
            "6.5.2: a frame size above its maximum",
            frame(SETTINGS, 0, 0, &[0, 5, 1, 0, 0, 0]),
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
        case("6.7: an answer to no PING of ours is ignored", frame(PING, ACK, 0, b"12345678"), Nothing),
        case("6.8: GOAWAY of seven bytes", frame(GOAWAY, 0, 0, &[0; 7]), Connection(FRAME_SIZE_ERROR)),
        case("6.9: WINDOW_UPDATE by 0 on a stream", then(opened(), window_update(1, 0)), Connection(PROTOCOL_ERROR)),
        case(
            "6.9.2: settings that make a stream's window too large",
            [opened(), window_update(1, 0x7fff_ffff - 65_535), frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])].concat(),
            Connection(FLOW_CONTROL_ERROR),
        ),
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
        case("8.2.1: a value with a carriage return", fields(&[("x", "a\rb")]), Connection(PROTOCOL_ERROR)),
        case("8.2.1: a name with a colon", fields(&[("x:a", "b")]), Connection(PROTOCOL_ERROR)),
        case("8.2.1: an empty name", fields(&[("", "b")]), Connection(PROTOCOL_ERROR)),
        case("8.2.1: a tab behind a value", fields(&[("x", "a\t")]), Status(400)),
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
        case(
            "8.3.1: a :method that is no token",
            all(&[(":method", "G T"), (":scheme", "http"), (":path", "/"), (":authority", "a")]),
            Connection(PROTOCOL_ERROR),
        ),
        case(
            "8.3.1: a :path that does not begin with a slash",
            frames::open(1, true, "GET", "a", &[]),
            Stream(PROTOCOL_ERROR),
        ),
        case("8.3.1: * is for OPTIONS", frames::open(1, true, "GET", "*", &[]), Status(400)),
        case("8.3.1: OPTIONS of the server itself", frames::open(1, true, "OPTIONS", "*", &[]), Status(200)),
        case(
            "8.3.1: a :scheme that we don't serve",
            all(&[(":method", "GET"), (":scheme", "ftp"), (":path", "/"), (":authority", "a")]),
            Status(400),
        ),
        case(
            "8.3.1: an :authority that is none",
            all(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a b")]),
            Stream(PROTOCOL_ERROR),
        ),
        case("8.5: CONNECT without an :authority", all(&[(":method", "CONNECT")]), Status(405)),
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

/// A request whose fields come in three frames, one of them empty.
fn in_pieces() -> Vec<u8> {
    let block = request("GET", "/", &[("x", "y")]);
    let (first, rest) = block.split_at(7);
    [frame(HEADERS, END_STREAM, 1, first), frame(CONTINUATION, 0, 1, b""), frame(CONTINUATION, END_HEADERS, 1, rest)]
        .concat()
}

#[test]
fn settings_and_pings_are_acknowledged() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::before(&origin);
    let mut raw = Raw::connect(proxy.addr());
    // RFC 9113, section 6.5.3: each, in order, with nothing in it.
    raw.send(frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]));
    for _ in 0..2 {
        let ack = raw.find("an ACK", |frame| frame.kind == SETTINGS && frame.flags & ACK != 0);
        assert_eq!((ack.stream, ack.payload.len()), (0, 0));
    }
    // Section 6.7: with what was in it.
    raw.send(frame(PING, 0, 0, b"whatever"));
    let pong = raw.wait_for(PING);
    assert_eq!((pong.flags, pong.stream, &pong.payload[..]), (ACK, 0, &b"whatever"[..]));
    // Section 4.3.1: a table that was made smaller is said to be so before it is used.
    raw.send(frames::open(1, true, "GET", "/", &[]));
    assert_eq!(raw.wait_for(HEADERS).payload[0], 0x20);
}

#[test]
fn a_client_that_says_goodbye_gets_what_it_asked_for() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::before(&origin);
    let mut raw = Raw::connect(proxy.addr());
    raw.send(frames::open(1, true, "GET", "/gate/go", &[]));
    origin.wait_for_in_flight(1);
    // RFC 9113, section 6.8; an error code that nobody knows (section 7) changes nothing.
    raw.send(frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0, b'b', b'y', b'e']));
    origin.gate("go").open();
    assert_eq!(raw.verdict(), Verdict::Answered(1, 200));
}

#[test]
fn the_last_stream_that_is_served_is_told() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::before(&origin);
    let mut raw = Raw::connect(proxy.addr());
    raw.send(frames::open(5, true, "GET", "/gate/go", &[]));
    origin.wait_for_in_flight(1);
    proxy.drain();
    // RFC 9113, section 6.8: first that there are to be no more, then behind which one nothing was looked at.
    let last = |frame: Frame| u32::from_be_bytes(frame.payload[..4].try_into().expect("four"));
    assert_eq!(last(raw.wait_for(GOAWAY)), 0x7fff_ffff);
    let ping = raw.wait_for(PING);
    raw.send(frame(PING, ACK, 0, &ping.payload));
    assert_eq!(last(raw.wait_for(GOAWAY)), 5);
    raw.send(frames::open(7, true, "GET", "/", &[]));
    origin.gate("go").open();
    assert_eq!(raw.verdict(), Verdict::Answered(5, 200));
    assert_eq!(origin.requests().len(), 1, "what came behind is not served");
}

#[test]
fn a_preface_that_is_none_is_no_http2() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    // RFC 9113, section 3.4: what begins like one is taken for HTTP/1 of a version that is not served.
    client.send("PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n");
    assert_eq!(client.response().status, 505);
    client.expect_end();
}

#[test]
fn no_frame_is_larger_than_the_client_takes() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::before(&origin);
    let mut raw = Raw::with(proxy.addr(), &[(4, 1 << 20)]);
    raw.send(window_update(0, 1 << 20));
    raw.send(frames::open(1, true, "GET", "/size/500000", &[]));
    raw.find("the end", |frame| {
        // RFC 9113, section 4.2: what a client has not allowed to be more.
        assert!(frame.payload.len() <= 16_384, "{} bytes", frame.payload.len());
        frame.kind == DATA && frame.flags & END_STREAM != 0
    });
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
