//! The corpus and the cases against SpeedMimi.
//!
//! Owns what is expected of it and the list of cases in which it differs on purpose. Never softens a verdict.

use super::corpus::MARK;
use super::{LANES_COUNT, Lane, cases, corpus};
use crate::client::Door;
use crate::origin::Origin;
use crate::proxy::Proxy;

/// Cases at MUST level that fail on purpose, each with the sentence of the RFC that allows what we do.
const EXCUSED: &[(&str, &str)] = &[];

/// Scored cases that pass, of 177; raise it with every one gained.
const PASSES_MIN: usize = 163;

/// Payloads that every parser reads alike and that are refused all the same, by reason.
const REFUSED: &[(&str, &[&str])] = &[
    (
        "CONNECT and TRACE are not served",
        &[
            "llhttp:method:2",
            "llhttp:method:2+host",
            "llhttp:uri:8",
            "llhttp:uri:8+host",
            "COMP-METHOD-CONNECT",
            "COMP-METHOD-TRACE",
            "COMP-TRACE-WITH-BODY",
            "COMP-TRACE-SENSITIVE",
        ],
    ),
    (
        "lengths with leading zeros are read as octal by some",
        &[
            "llhttp:content-length:0+host",
            "llhttp:content-length:1+host",
            "SMUG-CL-LEADING-ZEROS",
            "SMUG-CL-DOUBLE-ZERO",
            "SMUG-CL-LEADING-ZEROS-OCTAL",
        ],
    ),
    (
        "an underscore makes a framing field's look-alike",
        &["NORM-UNDERSCORE-CL", "NORM-UNDERSCORE-TE", "SMUG-TRANSFER_ENCODING"],
    ),
    (
        "a backslash, a NUL or a password in the target",
        &["MAL-URL-BACKSLASH", "MAL-URL-PERCENT-NULL", "llhttp:uri:9+host"],
    ),
    ("an empty Host", &["COMP-HOST-EMPTY-VALUE"]),
];

/// A proxy for each lane. The proxies come first, so that they end before their origins do.
fn lanes(origin: fn() -> Origin, server: &[(&str, &str)]) -> (Vec<Proxy>, Vec<Lane>) {
    let start = |_| {
        let (origin, (name, value)) = (origin(), MARK.split_once(": ").expect("a field"));
        let sections = format!(
            "backends: {{default: [{{host: 127.0.0.1, port: {}}}]}}\n\
             routing: {{default: {{upstream: default, request_headers: {{set: {{{name}: \"{value}\"}}}}}}}}\n",
            origin.port()
        );
        let proxy = Proxy::start(server, &sections);
        let door = Door::Tcp(proxy.addr());
        (proxy, Lane { door, origin })
    };
    (0..LANES_COUNT).map(start).unzip()
}

/// A payload is over when the proxy closes: short deadlines make that soon, also where it waits for more.
#[test]
fn nothing_ambiguous_reaches_the_backend() {
    let server = [("read_timeout", "1s"), ("idle_timeout", "500ms")];
    let (_proxies, lanes) = lanes(corpus::capturing_origin, &server);
    corpus::assert_clean(&corpus::run("speedmimi", &lanes), REFUSED);
}

/// Long deadlines: where a case is about silence, it is the client that ends it.
#[test]
fn every_case_at_must_level_passes() {
    let (_proxies, lanes) = lanes(cases::permissive_origin, &[("read_timeout", "30s")]);
    cases::assert_musts(&cases::run(&lanes), EXCUSED, PASSES_MIN);
}
