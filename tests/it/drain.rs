//! The way out: who is there is served, who idles is sent away in time, who is slow is cut at last.
//!
//! Never sends a signal; `e2e` does.

use std::thread;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::origin::{self, Origin};
use crate::proxy::{Proxy, sections};
use crate::wait;
use crate::wire::Sock;

fn start(timeout: &str) -> (Origin, Proxy) {
    let origin = Origin::start(origin::by_path);
    let server = [("shutdown_timeout", timeout), ("workers", "2"), ("park_after", "100ms")];
    let proxy = Proxy::start(&server, &sections(&origin, "", ""));
    (origin, proxy)
}

#[test]
fn who_waits_in_the_accept_queue_is_served() {
    let (origin, proxy) = start("10s");
    let mut clients: Vec<Client> = (0..300).map(|_| proxy.client()).collect();
    clients.iter_mut().for_each(|client| client.send_get("/size/77"));
    proxy.drain();
    for client in &mut clients {
        let answer = client.response();
        assert_eq!(answer.body, origin::pattern(77));
        client.expect_end();
    }
    assert_eq!(origin.requests().len(), 300);
    let addr = proxy.addr();
    wait::until("refusal", || Sock::tcp(addr).is_err());
}

#[test]
fn the_next_answer_on_a_kept_connection_says_close() {
    let (origin, proxy) = start("10s");
    let (mut idle, mut running) = (proxy.client(), proxy.client());
    assert!(!idle.get("/").fields.lists("connection", "close"));
    running.send_get("/gate/go");
    origin.wait_for_in_flight(1);
    let addr = proxy.addr();
    proxy.drain();
    wait::until("refusal", || Sock::tcp(addr).is_err());
    let answer = idle.get("/");
    assert_eq!((answer.status, answer.fields.lists("connection", "close")), (200, true));
    idle.expect_end();
    origin.gate("go").open();
    let answer = running.response();
    assert_eq!((answer.text().as_str(), answer.fields.lists("connection", "close")), ("ok", true));
    running.expect_end();
    let since = Instant::now();
    drop((idle, running));
    proxy.shutdown();
    assert!(since.elapsed() < Duration::from_secs(5), "nobody was left to wait for");
}

#[test]
fn idle_connections_go_after_half_of_the_time_parked_or_not() {
    let (_origin, proxy) = start("3s");
    let (mut parked, mut silent) = (proxy.client(), proxy.client());
    assert_eq!(parked.get("/").status, 200);
    proxy.wait_until("both in the lot", |totals| totals.connections_parked == 2);
    let mut fresh = proxy.client();
    assert_eq!(fresh.get("/").status, 200);
    let since = Instant::now();
    proxy.drain();
    thread::scope(|scope| {
        for client in [&mut parked, &mut silent, &mut fresh] {
            scope.spawn(move || {
                client.expect_end();
                let took = since.elapsed();
                assert!(took >= Duration::from_millis(1400) && took < Duration::from_millis(3500), "it took {took:?}");
            });
        }
    });
    proxy.shutdown();
    assert!(since.elapsed() < Duration::from_secs(5));
}

#[test]
fn who_never_finishes_is_cut_when_the_time_is_over() {
    let (origin, proxy) = start("1s");
    let mut client = proxy.client();
    client.send_get("/never");
    origin.wait_for_in_flight(1);
    let since = Instant::now();
    proxy.shutdown();
    let took = since.elapsed();
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(5), "it took {took:?}");
    // Cut without an answer: none would be true.
    assert!(client.wire.take_to_end().unwrap_or_default().is_empty());
    origin.wait_for_silence();
}

#[test]
fn a_body_under_way_arrives_whole() {
    let (origin, proxy) = start("10s");
    let mut client = proxy.client();
    let body = origin::pattern(300_000);
    client.send(format!("POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n", body.len()));
    client.send(&body[..100_000]);
    origin.wait_for_requests(1);
    let addr = proxy.addr();
    proxy.drain();
    wait::until("refusal", || Sock::tcp(addr).is_err());
    client.send(&body[100_000..]);
    assert!(client.response().body == body);
    client.expect_end();
}

#[test]
fn what_is_cut_is_logged_and_not_passed_off_as_whole() {
    let origin = Origin::start(|exchange| {
        if exchange.path() == "/ws" {
            return origin::by_path(exchange);
        }
        exchange.send(b"HTTP/1.0 200 OK\r\n\r\nthe beginning")?;
        exchange.hold()
    });
    let log = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cut-{}.log", std::process::id()));
    let text = format!("{}log: {{access: \"{}\"}}\n", sections(&origin, "", ""), log.display());
    let proxy = Proxy::start(&[("shutdown_timeout", "1s"), ("workers", "2")], &text);
    let (mut answered, mut tunnel) = (proxy.client(), proxy.client());
    answered.send(b"GET /until-close HTTP/1.0\r\n\r\n");
    answered.head();
    tunnel.upgrade("/ws");
    proxy.shutdown();
    // An answer that ends with its connection must not end in order.
    assert!(answered.wire.take_to_end().is_err());
    let lines = std::fs::read_to_string(&log).unwrap_or_default();
    let _ = std::fs::remove_file(&log);
    assert_eq!(lines.matches("\"reason\":\"shutdown\"").count(), 2, "{lines}");
}
