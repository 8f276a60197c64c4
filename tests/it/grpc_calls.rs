//! Calls of gRPC between a client and a backend that both speak HTTP/2, frame by frame: what comes through, how long either
//! side may be silent, what our own errors are called, and what else only
//! two ends of HTTP/2 can say.
//!
//! Both ends are the h2 crate's; a generated client's view is `grpc`'s.

use std::net::{Ipv4Addr, TcpListener};
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

/// Lets time go by, and the connection be driven.
fn let_pass(peer: &Peer, time: Duration) {
    peer.wait("time", async { tokio::time::sleep(time).await });
}

/// Lets far more time go by than the timeouts of these tests.
fn pass_time(peer: &Peer) {
    let_pass(peer, Duration::from_millis(900));
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
        let_pass(&peer, Duration::from_millis(100));
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

#[test]
fn our_refusals_have_codes() {
    let origin = H2Origin::start();
    let sections = origin.sections("", "").replace(
        "routing: {default: {upstream: default}}",
        "routing: {a: {path: /closed, upstream: default, deny: [127.0.0.0/8]}, \
         b: {path: /hang, upstream: default, max_body_bytes: 4}, c: {path: /echo, upstream: default}}",
    );
    let proxy = Proxy::start(&[], &sections);
    let mut peer = Peer::connect(proxy.addr());
    for (path, code) in [("/closed", "7"), ("/hang", "8"), ("/nowhere", "12"), ("/%zz", "13")] {
        let answer = peer.request(call(path), EMPTY);
        assert_eq!((answer.status(), answer.one("grpc-status")), (200, Some(code)), "{path}");
    }
}

fn timed(path: &str, timeout: &str) -> Request<()> {
    let mut request = call(path);
    request.headers_mut().insert("grpc-timeout", timeout.parse().expect("a value"));
    request
}

#[test]
fn the_clients_deadline_holds_wherever_a_call_is() {
    let origin = H2Origin::start();
    let sections = origin.sections("max_conn: 1", "queue: {size: 5, timeout: 60s}, connect_timeout: 60s");
    let proxy = Proxy::start(&[], &sections);
    let mut peer = Peer::connect(proxy.addr());
    let (answer, _) = peer.open(timed("/silent-call", "300m"), true);
    let error = peer.read(answer).unwrap_err();
    assert!(error.is_reset(), "behind the answer's head: {error}");
    wait::until("the call's end", || origin.in_flight() == 0);
    let (first, _) = peer.open(call("/gate"), true);
    wait::until("a call", || origin.in_flight() == 1);
    let answer = peer.request(timed("/echo", "300m"), EMPTY);
    assert_eq!(answer.one("grpc-status"), Some("4"), "in the queue");
    origin.open_gate();
    assert_eq!(peer.read(first).unwrap().status(), 200);

    // Accepts nothing, and so says nothing either.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = silent.local_addr().expect("an address").port().to_string();
    let proxy = Proxy::start(&[], &sections.replace(&origin.port().to_string(), &port));
    let answer = Peer::connect(proxy.addr()).request(timed("/echo", "300m"), EMPTY);
    assert_eq!(answer.one("grpc-status"), Some("4"), "before the connection's settings");
}

#[test]
fn a_backend_ends_calls_as_it_likes() {
    let origin = H2Origin::start();
    let proxy = Proxy::start(&[], &origin.sections("", ""));
    let mut peer = Peer::connect(proxy.addr());
    // Before its client has said its last.
    let (answer, _stream) = peer.open(call("/trailers-only"), false);
    assert_eq!(peer.read(answer).unwrap().one("grpc-status"), Some("5"));
    // In the midst of an answer: cut, not whole.
    let (answer, _) = peer.open(call("/short"), true);
    assert_eq!(peer.read(answer).unwrap_err().reason(), Some(h2::Reason::INTERNAL_ERROR));
    assert_eq!(peer.get("/").status(), 200, "the connection goes on");
}

#[test]
fn a_client_that_waits_for_leave_to_send_gets_it() {
    let origin = H2Origin::start();
    let proxy = Proxy::start(&[], &origin.sections("", ""));
    let mut peer = Peer::connect(proxy.addr());
    let (mut answer, mut stream) = peer.open(of("POST", "/continue", &[("expect", "100-continue")]), false);
    let interim = peer.wait("a 100", std::future::poll_fn(|cx| answer.poll_informational(cx))).unwrap().unwrap();
    assert_eq!(interim.status(), 100);
    stream.send_data(Bytes::from_static(b"hello"), true).unwrap();
    assert_eq!(peer.read(answer).unwrap().text(), "hello");
}

#[test]
fn a_websocket_is_an_extended_connect_on_both_sides() {
    let origin = H2Origin::with(|builder| {
        builder.enable_connect_protocol();
    });
    let proxy = Proxy::start(&[], &origin.sections("", ""));
    let mut peer = Peer::connect(proxy.addr());
    assert_eq!(peer.get("/").status(), 200, "settings have come");
    let websocket = |path: &str| {
        let mut request = of("CONNECT", path, &[("sec-websocket-version", "13"), ("cookie", "a=b"), ("cookie", "c=d")]);
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        request
    };
    let (answer, mut stream) = peer.open(websocket("/ws"), false);
    let head = peer.head(answer).unwrap();
    assert_eq!(head.status(), 200);
    let mut body = head.into_body();
    stream.send_data(Bytes::from_static(b"frame"), false).unwrap();
    assert_eq!(peer.wait("a frame", body.data()).unwrap().unwrap(), "frame");
    let seen = origin.seen().pop().unwrap();
    assert_eq!((seen.protocol.as_deref(), &seen.headers["cookie"]), (Some("websocket"), &"a=b; c=d".parse().unwrap()));
    drop((stream, body));
    // What the backend refuses is passed on as usual.
    let (answer, _stream) = peer.open(websocket("/status/403"), false);
    assert_eq!(peer.head(answer).unwrap().status(), 403);
}
