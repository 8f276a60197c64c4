//! HTTP/2 from clients, with prior knowledge: what comes through, in both directions.
//!
//! The other end is the h2 crate or curl; protocol errors are `http2_faults`'s.

use crate::origin::{self, Origin};
use crate::peer2::{Peer, get, of};
use crate::proxy::Proxy;

fn started() -> (Origin, Proxy) {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::before(&origin);
    (origin, proxy)
}

#[test]
fn a_get_goes_through() {
    let (origin, proxy) = started();
    let mut peer = Peer::connect(proxy.addr());
    let answer = peer.get("/hello?x=1");
    assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"));
    assert!(answer.one("date").is_some() && answer.one("via").is_some());
    let seen = origin.only_request().request;
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/hello?x=1"));
    assert_eq!(seen.fields.one("host").as_deref(), Some("a.test"));
    assert_eq!(seen.fields.one("x-forwarded-proto").as_deref(), Some("http"));
}

#[test]
fn many_streams_share_a_connection() {
    let (origin, proxy) = started();
    let mut peer = Peer::connect(proxy.addr());
    let gated: Vec<_> = (0..20).map(|_| peer.open(get("/gate/go"), true).0).collect();
    assert_eq!(peer.get("/").text(), "ok", "others are not held up");
    origin.wait_for_in_flight(20);
    origin.gate("go").open();
    for answer in gated {
        assert_eq!(peer.read(answer).unwrap().text(), "ok");
    }
    assert_eq!(proxy.stats().connections_accepted, 1);
}

#[test]
fn bodies_go_both_ways() {
    let (origin, proxy) = started();
    let mut peer = Peer::connect(proxy.addr());
    let answer = peer.request(of("POST", "/echo", &[]), b"without a length");
    assert_eq!(answer.text(), "without a length");
    let answer = peer.request(of("POST", "/echo", &[("content-length", "4")]), b"with");
    assert_eq!(answer.text(), "with");
    let seen = origin.requests();
    assert_eq!(seen[0].request.fields.one("transfer-encoding").as_deref(), Some("chunked"));
    assert_eq!(seen[1].request.fields.one("content-length").as_deref(), Some("4"));
    assert_eq!(peer.get("/size/3000000").body, origin::pattern(3_000_000));
    assert_eq!(peer.get("/chunked/3").text(), "chunkchunkchunk");
    let answer = peer.get("/trailers");
    assert_eq!((answer.text().as_str(), answer.trailers.unwrap()["x-sum"].to_str().unwrap()), ("hello", "42"));
    assert_eq!(peer.request(of("HEAD", "/size/9", &[]), b"").one("content-length"), Some("9"));
}
