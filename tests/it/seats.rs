//! Connections to management: who keeps others out, and how long a token or a port that is no more still serves.
//!
//! Owns what operators rely on when others misbehave. What is said on a connection is for `admin`.

use serde_json::json;

use crate::api::Api;
use crate::client::Client;
use crate::origin::{self, Origin};
use crate::proxy::{Proxy, balanced};
use crate::wait;

/// As many as management serves at once.
const SEATS: usize = 256;

fn start(origin: &Origin, management: &str) -> (Proxy, Api) {
    let proxy = Proxy::start(&[], &(balanced(&[(origin, "")], "", "") + management));
    let api = Api::of(&proxy);
    (proxy, api)
}

fn get(path: &str, token: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n")
}

/// A stream of figures, begun.
fn streaming(proxy: &Proxy, token: &str) -> Client {
    let mut client = Client::connect(proxy.management());
    client.send(get("/api/v1/stats/stream", token));
    assert_eq!(client.head().status, 200);
    client
}

/// Reads what is on its way still; the end has to come before thirty more pieces have.
fn expect_end_of(mut streaming: Client) {
    let events = (0..30).take_while(|_| streaming.wire.take_some().is_ok_and(|some| !some.is_empty())).count();
    assert!(events < 30, "the stream goes on");
}

#[test]
fn silent_connections_keep_nobody_out() {
    let origin = Origin::start(origin::by_path);
    let (proxy, api) = start(&origin, "grpc: {port: 0}\n");
    let mut silent: Vec<Client> = (0..SEATS).map(|_| Client::connect(proxy.management())).collect();
    // Some say nothing, some begin like HTTP/2 and then say nothing.
    silent.iter_mut().step_by(2).for_each(|client| client.send("PRI * HT"));
    assert_eq!(api.send("GET", "/healthz", b"").status, 200);
    api.get("/api/v1/config");
}

#[test]
fn a_token_that_is_no_more_serves_no_connection() {
    let origin = Origin::start(origin::by_path);
    let (proxy, api) = start(&origin, "grpc: {port: 0, token: everything, read_token: only-reading}\n");
    let mut idle = Client::connect(proxy.management());
    idle.send(get("/api/v1/log/level", "only-reading"));
    assert_eq!(idle.response().status, 200);
    let streaming = streaming(&proxy, "only-reading");
    let patch = json!({"grpc": {"read_token": "another-reader"}});
    assert_eq!(api.token("everything").tell("PATCH", "/api/v1/config", &patch).0, 200);
    idle.expect_end();
    expect_end_of(streaming);
    // Other changes disturb nobody.
    let mut kept = Client::connect(proxy.management());
    for _ in 0..2 {
        kept.send(get("/api/v1/log/level", "another-reader"));
        assert_eq!(kept.response().status, 200);
        let patch = json!({"log": {"level": "error"}});
        assert_eq!(api.token("everything").tell("PATCH", "/api/v1/config", &patch).0, 200);
    }
}

#[test]
fn a_port_that_is_no_more_serves_no_connection() {
    let origin = Origin::start(origin::by_path);
    let (proxy, api) = start(&origin, "grpc: {port: 0}\n");
    let mut idle = Client::connect(proxy.management());
    idle.send(get("/readyz", ""));
    assert_eq!(idle.response().status, 200);
    let streaming = streaming(&proxy, "");
    let (status, done) = api.tell("PATCH", "/api/v1/config", &json!({"grpc": {"enabled": false}}));
    assert_eq!(status, 200, "{done}");
    idle.expect_end();
    expect_end_of(streaming);
}

#[test]
fn management_moves_to_another_address_of_its_port_and_back() {
    let origin = Origin::start(origin::by_path);
    let (proxy, api) = start(&origin, "grpc: {port: 0, token: everything}\n");
    let port = proxy.management().port();
    let elsewhere = std::net::SocketAddr::from(([127, 0, 0, 2], port));
    let api = api.token("everything");
    for (host, is_open) in [("0.0.0.0", true), ("127.0.0.1", false)] {
        let (status, done) = api.tell("PATCH", "/api/v1/config", &json!({"grpc": {"host": host, "port": port}}));
        assert_eq!(status, 200, "{done}");
        wait::until("the other address", || crate::wire::Sock::tcp(elsewhere).is_ok() == is_open);
        wait::until("management", || std::panic::catch_unwind(|| api.send("GET", "/healthz", b"").status).is_ok());
    }
}
