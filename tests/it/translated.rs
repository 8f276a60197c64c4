//! Messages of likely, unlikely and malformed pieces, translated between HTTP/2 and HTTP/1.1: the fuzz target's checks, on
//! every run of the suite.

use proptest::prelude::*;

#[path = "../../fuzz/checks/translate.rs"]
mod checks;

/// Lines of messages of HTTP/2, as the checks read them.
const LINES: &[&str] = &[
    "GET http://a.test/b?c=d",
    "POST https://a/",
    "HEAD /",
    "OPTIONS *",
    "CONNECT http://a/ws",
    "CONNECT a:443",
    "GET ftp://a/",
    "200",
    "101",
    "103",
    "204",
    "304",
    "404",
    "host:a.test",
    "host:b",
    "cookie:a=b",
    "cookie:",
    "content-length:5",
    "content-length:0",
    "content-length:+5",
    "content-length:5, 5",
    "transfer-encoding:chunked",
    "connection:close",
    "connection:upgrade",
    "upgrade:websocket",
    "keep-alive:5",
    "proxy-connection:close",
    "te:trailers",
    "te:gzip",
    "trailer:x",
    "content-type:application/grpc",
    "sec-websocket-key:k",
    "sec-websocket-accept:k",
    "expect:100-continue",
    "max-forwards:7",
    "x: padded ",
    "x:\t",
    "x:",
    "x-forwarded-for:6",
    "http2-settings:a",
];

/// The same in HTTP/1.1.
const HEADS: &[&str] = &[
    "GET /a?b HTTP/1.1\r\nHost: a.test\r\n",
    "POST http://b/ HTTP/1.1\r\nHost: b\r\n",
    "HEAD / HTTP/1.0\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a:1\r\n",
    "GET /{}|\\^ HTTP/1.1\r\nHost: a_b\r\n",
    "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n",
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 103 Early Hints\r\n",
    "HTTP/1.0 404 \r\n",
    "HTTP/1.1 304 Not Modified\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n",
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Connection: close, x\r\n",
    "TE: trailers, gzip\r\n",
    "X: y\r\n",
    "Trailer: x\r\n",
    "Content-Type: application/grpc\r\n",
    "Cookie: a=b\r\n",
    "Keep-Alive: 1\r\n",
];

fn pieces(of: &'static [&'static str], behind: &'static str, first: usize) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        9 => prop::sample::select(of).prop_map(move |text| format!("{text}{behind}").into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    let start = prop::sample::select(&of[..first]).prop_map(move |text| format!("{text}{behind}").into_bytes());
    (start, prop::collection::vec(piece, 0..6)).prop_map(|(start, more)| [start, more.concat()].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn what_comes_out_is_one_message_or_none(
        control in any::<u8>(),
        lines in pieces(LINES, "\n", 13),
        head in pieces(HEADS, "", 11),
    ) {
        checks::any(&[&[control & !2][..], &lines].concat());
        checks::any(&[&[control | 2][..], &head, b"\r\n"].concat());
    }
}
