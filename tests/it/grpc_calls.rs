//! Calls of gRPC between a client and a backend that both speak HTTP/2, frame by frame: what comes through, how long either
//! side may be silent, and what our own errors are called.
//!
//! Both ends are the h2 crate's; a generated client's view is `grpc`'s.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};

use crate::h2_origin::H2Origin;
use crate::peer2::{Peer, of};
use crate::proxy::Proxy;
use crate::wait;

const GRPC: [(&str, &str); 2] = [("content-type", "application/grpc"), ("te", "trailers")];
/// A message of no bytes.
const EMPTY: &[u8] = &[0; 5];

fn call(path: &str) -> Request<()> {
    of("POST", path, &GRPC)
}

fn fields(fields: &[(&'static str, &str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value"))).collect()
}

#[test]
fn metadata_behind_a_call_passes_both_ways() {
    let origin = H2Origin::start();
    let proxy = Proxy::start(&[], &origin.sections("", ""));
    let mut peer = Peer::connect(proxy.addr());
    let metadata = fields(&[
        ("grpc-status", "0"),
        ("user_id", "1"),
        ("x-request-id", "2"),
        ("date", "3"),
        ("content-encoding", "4"),
        ("accept-language", "5"),
        ("retry-after", "6"),
        ("cookie", "7"),
    ]);
    let mut sent = metadata.clone();
    sent.insert("x_forwarded_for", "10.0.0.1".parse().unwrap());
    let (answer, mut stream) = peer.open(call("/echo"), false);
    stream.send_data(Bytes::from_static(EMPTY), false).unwrap();
    stream.send_trailers(sent).unwrap();
    let answer = peer.read(answer).unwrap();
    assert_eq!(answer.body, EMPTY);
    assert_eq!(answer.trailers.as_ref(), Some(&metadata));
    assert_eq!(origin.bodies()[0].1.as_ref(), Some(&metadata));
}

/// Lets time go by, far more than the timeouts of these tests.
fn pass_time(peer: &Peer) {
    peer.wait("time", tokio::time::sleep(Duration::from_millis(900)));
}

#[test]
fn who_sends_while_the_answer_waits_is_not_cut() {
    let origin = H2Origin::start();
    let proxy = Proxy::start(&[], &origin.sections("", "read_timeout: 300ms"));
    let mut peer = Peer::connect(proxy.addr());
    let (answer, mut stream) = peer.open(of("POST", "/collect", &[]), false);
    let head = peer.head(answer).unwrap();
    for _ in 0..10 {
        stream.send_data(Bytes::from_static(b"piece"), false).unwrap();
        peer.wait("a moment", tokio::time::sleep(Duration::from_millis(100)));
    }
    stream.send_data(Bytes::new(), true).unwrap();
    let mut body = head.into_body();
    assert_eq!(peer.wait("the answer's body", body.data()).unwrap().unwrap(), "50");
}

#[test]
fn a_call_may_be_silent_on_both_sides() {
    let origin = H2Origin::start();
    let proxy = Proxy::start(&[("read_timeout", "300ms")], &origin.sections("", "read_timeout: 300ms"));
    let mut peer = Peer::connect(proxy.addr());
    // Before the answer's head, and after it.
    for path in ["/gate", "/silent-call"] {
        let (answer, mut stream) = peer.open(call(path), false);
        stream.send_data(Bytes::from_static(EMPTY), false).unwrap();
        wait::until("the call", || origin.in_flight() == 1);
        pass_time(&peer);
        origin.open_gate();
        let answer = peer.read(answer).unwrap();
        assert_eq!((answer.status(), answer.one("grpc-status")), (200, None), "{path}");
        wait::until("the call's end", || origin.in_flight() == 0);
    }
    // Where the client has said its last, too.
    let (answer, _) = peer.open(call("/silent-call"), true);
    wait::until("the call", || origin.in_flight() == 1);
    pass_time(&peer);
    origin.open_gate();
    assert_eq!(peer.read(answer).unwrap().trailers.unwrap()["grpc-status"], "0");
}

#[test]
fn a_silent_call_ends_as_a_silent_tunnel_does() {
    let origin = H2Origin::start();
    let proxy = Proxy::start(&[("tunnel_timeout", "300ms")], &origin.sections("", ""));
    let mut peer = Peer::connect(proxy.addr());
    let (answer, mut stream) = peer.open(call("/gate"), false);
    stream.send_data(Bytes::from_static(EMPTY), false).unwrap();
    assert_eq!(peer.read(answer).unwrap().one("grpc-status"), Some("14"));
    let (answer, _) = peer.open(call("/silent-call"), true);
    assert_eq!(peer.read(answer).unwrap_err().reason(), Some(h2::Reason::INTERNAL_ERROR));
}

#[test]
fn trailers_are_whole_or_none() {
    let origin = H2Origin::start();
    let proxy = Proxy::start(&[("max_header_bytes", "4KiB")], &origin.sections("", ""));
    let mut peer = Peer::connect(proxy.addr());
    let (answer, _) = peer.open(call("/details/60000"), true);
    let answer = peer.read(answer).unwrap();
    assert_eq!(answer.trailers.unwrap()["grpc-status-details-bin"].len(), 60_000);
    for size in [70_000, 90_000] {
        let (answer, _) = peer.open(call(&format!("/details/{size}")), true);
        assert!(peer.read(answer).is_err(), "{size}");
    }
    for size in [4_096, 10_000, 15_000] {
        let (answer, mut stream) = peer.open(call("/echo"), false);
        stream.send_trailers(fields(&[("x", &"x".repeat(size))])).unwrap();
        assert_eq!(peer.read(answer).unwrap_err().reason(), Some(h2::Reason::ENHANCE_YOUR_CALM), "{size}");
    }
    assert!(origin.bodies().is_empty());
    assert_eq!(peer.get("/").status(), 200, "the connection goes on");
}
