//! Idle connections in the parking lot: served when they wake, ended in time, forgotten when they go.
//!
//! Owns what a client sees of parking, which is nothing. Never measures memory; the benchmark does.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::origin::{self, Origin};
use crate::proxy::{Proxy, sections};

const SOON: (&str, &str) = ("park_after", "100ms");

fn start(server: &[(&str, &str)]) -> (Origin, Proxy) {
    let origin = Origin::start(origin::by_path);
    let soon: &[(&str, &str)] = if server.iter().any(|(key, _)| *key == SOON.0) { &[] } else { &[SOON] };
    let proxy = Proxy::start(&[soon, server].concat(), &sections(&origin, "", ""));
    (origin, proxy)
}

fn wait_for_parked(proxy: &Proxy, n: u64) {
    proxy.wait_until(&format!("{n} parked connections"), |totals| totals.connections_parked == n);
}

#[test]
fn a_parked_connection_is_served_again_and_again() {
    let (origin, proxy) = start(&[]);
    let mut client = proxy.client();
    wait_for_parked(&proxy, 1);
    for n in 0..5 {
        let body = format!("round {n}");
        assert_eq!(client.request("POST", "/echo", &[], body.as_bytes()).text(), body);
        wait_for_parked(&proxy, 1);
    }
    // A head in two parts, of which the first wakes.
    client.send("GET /size/10 HT");
    wait_for_parked(&proxy, 0);
    client.send("TP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(client.response().body, origin::pattern(10));
    assert_eq!((origin.requests().len(), proxy.stats().connections_accepted), (6, 1));
}

#[test]
fn an_idle_connection_ends_in_time_parked_or_not() {
    for (timeout, asks, park_after) in
        [("idle_timeout", true, "100ms"), ("idle_timeout", true, "10s"), ("read_timeout", false, "100ms")]
    {
        let (_origin, proxy) = start(&[(timeout, "900ms"), ("park_after", park_after)]);
        let since = Instant::now();
        let mut client = proxy.client();
        if asks {
            assert_eq!(client.get("/").status, 200);
        }
        if park_after == SOON.1 {
            wait_for_parked(&proxy, 1);
        }
        client.expect_end();
        let took = since.elapsed();
        assert!(
            (Duration::from_millis(800)..Duration::from_secs(5)).contains(&took),
            "{timeout}, parked after {park_after}: it took {took:?}"
        );
        proxy.wait_for_open(0);
    }
}

#[test]
fn a_head_that_takes_too_long_is_408_after_parking_too() {
    let (_origin, proxy) = start(&[("read_timeout", "600ms")]);
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 200);
    wait_for_parked(&proxy, 1);
    // Parked for as long as the whole head may take, so that the time is seen to begin with its first byte.
    let parked = Instant::now();
    while parked.elapsed() < Duration::from_millis(700) {
        thread::park_timeout(Duration::from_millis(700));
    }
    let since = Instant::now();
    client.send("GET / HTTP/1.1\r\nHo");
    assert_eq!(client.response().status, 408);
    assert!(since.elapsed() >= Duration::from_millis(500), "it took {:?}", since.elapsed());
    client.expect_end();

    // The first request's time begins with the connection, parked or not.
    let since = Instant::now();
    let mut client = proxy.client();
    wait_for_parked(&proxy, 1);
    client.send("GET / HTTP/1.1\r\nHo");
    assert_eq!(client.response().status, 408);
    let took = since.elapsed();
    assert!(took >= Duration::from_millis(500) && took < Duration::from_secs(5), "it took {took:?}");
}

#[test]
fn parked_connections_that_clients_end_are_forgotten() {
    let (_origin, proxy) = start(&[]);
    let mut clients: Vec<Client> = (0..60).map(|_| proxy.client()).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.get("/").status, 200));
    wait_for_parked(&proxy, 60);
    clients.drain(..20).for_each(drop);
    wait_for_parked(&proxy, 40);
    clients.drain(..20).for_each(Client::reset);
    wait_for_parked(&proxy, 20);
    // With the last words of a request in front of the end: answered, not forgotten.
    for client in &mut clients {
        client.send_get("/size/3");
    }
    clients.iter_mut().for_each(|client| assert_eq!(client.response().body, origin::pattern(3)));
    drop(clients);
    wait_for_parked(&proxy, 0);
    proxy.wait_for_open(0);
}

#[test]
fn two_thousand_wake_at_once_and_each_gets_its_own_answer() {
    const CLIENTS: usize = 2000;
    let origin = Origin::start(origin::by_path);
    let backend = "max_conn: 64";
    let queue = "queue: {size: 4000, timeout: 30s}";
    let server = [SOON, ("workers", "2"), ("max_conn", "3000")];
    let proxy = Proxy::start(&server, &sections(&origin, backend, queue));
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| proxy.client()).collect();
    let body = |n: usize, round: usize| format!("{round}:{n}:{}", "x".repeat(n % 700));
    for round in 0..2 {
        wait_for_parked(&proxy, CLIENTS as u64);
        for (n, client) in clients.iter_mut().enumerate() {
            let body = body(n, round);
            let head = format!("POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n", body.len());
            client.wire.sock.write_all(&[head.as_bytes(), body.as_bytes()].concat()).expect("a proxy that reads");
        }
        for (n, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.response().text(), body(n, round));
        }
    }
    wait_for_parked(&proxy, CLIENTS as u64);
    drop(clients);
    proxy.wait_for_open(0);
}
