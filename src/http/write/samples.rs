//! What the tests of both writers share.
//!
//! Owns random field lines and the reading of what was written. Never holds a test itself.

use proptest::prelude::*;

/// The lines of a written head that stands behind `before`.
pub fn lines(out: &[u8], before: &str) -> Vec<String> {
    let text = std::str::from_utf8(out).unwrap();
    let text = text.strip_prefix(before).unwrap().strip_suffix("\r\n\r\n").unwrap();
    text.split("\r\n").map(str::to_owned).collect()
}

/// A field line: mostly of a name that the proxy knows, mostly well-formed.
pub fn any_line() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        2 => "[A-Za-z_-]{1,8}",
        3 => prop::sample::select(vec![
            "Connection", "Content-Length", "Transfer-Encoding", "TE", "Upgrade", "X-Forwarded-For", "X_Forwarded_For", "Via", "Forwarded",
            "Content-Length ", "Keep-Alive", "Expect", "Trailer", "X-Real-IP", "Cookie", "Host",
        ]).prop_map(str::to_owned),
    ];
    let value = prop_oneof![
        "[ -~\t]{0,12}",
        "[\u{0}-\u{ff}]{0,4}",
        prop::sample::select(vec![
            "chunked",
            "5",
            "5, 5",
            "close, host",
            "x-a, via",
            "upgrade",
            "websocket",
            "trailers",
            "1.1.1.1",
            "a\r\nB: c",
            "a\nB: c"
        ])
        .prop_map(str::to_owned),
    ];
    (name, prop_oneof![Just(":"), Just(": "), Just(":\t ")], value)
        .prop_map(|(name, colon, value)| format!("{name}{colon}{value}\r\n"))
}
