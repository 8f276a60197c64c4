//! Calls of gRPC between a client and a backend that both speak HTTP/2, frame by frame: what comes through, how long either
//! side may be silent, and what our own errors are called.
//!
//! Both ends are the h2 crate's; a generated client's view is `grpc`'s.

use bytes::Bytes;
use http::{HeaderMap, Request};

use crate::h2_origin::H2Origin;
use crate::peer2::{Peer, of};
use crate::proxy::Proxy;

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
