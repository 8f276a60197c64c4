//! Figures of a running proxy: what is counted while it lasts, and what is told of it after.
//!
//! Never looks at how long anything took, only at what was timed at all.

use std::sync::{Mutex, mpsc};

use speedmimi::control::figures::{BackendFigures, ServerFigures};

use crate::origin::{self, Next, Origin};
use crate::proxy::{Proxy, sections};
use crate::websocket;

/// Both, after a look.
fn figures(proxy: &Proxy) -> (ServerFigures, BackendFigures) {
    proxy.watch().look();
    let backend = proxy.watch().backends(None).pop().expect("a backend");
    (proxy.watch().server(), backend)
}

#[test]
fn an_exchange_counts_while_it_runs_and_is_timed_when_it_ends() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.send_get("/gate/go");
    origin.wait_for_in_flight(1);
    proxy.wait_until("an exchange", |totals| totals.exchanges_active == 1);
    let (server, backend) = figures(&proxy);
    assert_eq!((server.proxy.requests.in_flight, backend.in_flight), (1, 1));
    assert_eq!((server.proxy.latency.since_start.count, backend.first_byte.since_start.count), (0, 0));
    origin.gate("go").open();
    assert_eq!(client.response().text(), "ok");
    assert_eq!(client.get("/status/503").status, 503);
    proxy.wait_until("its end", |totals| totals.exchanges_active == 0);
    let (server, backend) = figures(&proxy);
    let (proxy_latency, first_byte, total) = (server.proxy.latency, backend.first_byte, backend.latency);
    assert_eq!((proxy_latency.since_start.count, proxy_latency.last_10s.count), (2, 2));
    assert_eq!((first_byte.since_start.count, total.since_start.count), (2, 2));
    assert!(first_byte.since_start.mean_ms <= total.since_start.mean_ms, "{first_byte:?} {total:?}");
    assert_eq!((backend.responses["2xx"], backend.responses["5xx"]), (1, 1));
    assert!(backend.bytes_in > 0 && backend.bytes_out > 0, "{backend:?}");
    let sent = "GET /gate/go HTTP/1.1\r\nHost: a.test\r\n\r\n".len()
        + "GET /status/503 HTTP/1.1\r\nHost: a.test\r\n\r\n".len();
    assert_eq!(server.proxy.bytes.client_in, sent as u64);
}

#[test]
fn answers_of_the_proxy_are_timed_and_those_that_nobody_got_are_not() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&[], &sections(&origin, "max_conn: 1", "queue: {size: 0}"));
    let mut held = proxy.client();
    held.send_get("/gate/never");
    origin.wait_for_in_flight(1);
    assert_eq!(proxy.client().get("/").status, 503);
    drop(held);
    proxy.wait_until("both ends", |totals| totals.exchanges_active == 0);
    let (server, backend) = figures(&proxy);
    assert_eq!(server.proxy.latency.since_start.count, 1);
    assert_eq!((backend.latency.since_start.count, backend.first_byte.since_start.count), (0, 0));
    assert_eq!((server.proxy.reasons["backends_full"], server.proxy.reasons["client_closed"]), (1, 1));
}

#[test]
fn what_lasts_as_long_as_its_client_likes_is_no_latency() {
    let (end, ends) = mpsc::channel::<()>();
    let ends = Mutex::new(ends);
    let origin = Origin::start(move |exchange| {
        if exchange.request.target != "/events" {
            return origin::by_path(exchange);
        }
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")?;
        let _ = ends.lock().map_err(|_| std::io::ErrorKind::Other)?.recv();
        Ok(Next::Close)
    });
    let proxy = Proxy::before(&origin);
    let mut events = proxy.client();
    events.send_get("/events");
    events.head();
    proxy.wait_until("an event stream", |totals| totals.event_streams_active == 1);
    let mut tunnel = proxy.client();
    tunnel.upgrade("/ws");
    proxy.wait_until("a tunnel", |totals| totals.tunnels_active == 1 && totals.exchanges_active == 1);
    end.send(()).expect("the origin waits");
    proxy.wait_until("the stream's end", |totals| totals.event_streams_active == 0);
    tunnel.send_frame(websocket::CLOSE, &1000u16.to_be_bytes());
    assert_eq!(tunnel.read_frame().opcode, websocket::CLOSE);
    drop(tunnel);
    proxy.wait_until("the tunnel's end", |totals| totals.tunnels_active == 0);
    let (server, backend) = figures(&proxy);
    assert_eq!(server.proxy.latency.since_start.count, 0);
    assert_eq!((backend.latency.since_start.count, backend.first_byte.since_start.count), (0, 2));
}

#[test]
fn buffers_of_those_who_left_are_not_in_use() {
    const CLIENTS: usize = 300;
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::before(&origin);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| proxy.client()).collect();
    let half = format!("GET /{} HTTP/1.1\r\nHost: a", "x".repeat(6000));
    clients.iter_mut().for_each(|client| client.send(half.as_bytes()));
    let all = (CLIENTS * half.len()) as u64;
    proxy.wait_until("half heads in memory", |totals| totals.memory_buffers >= all);
    assert!(figures(&proxy).0.proxy.memory.connections > 0);
    drop(clients);
    // The scratch of 128 KiB and a few spare ones stay.
    proxy.wait_until("no more than spare buffers", |totals| totals.memory_buffers < all / 4);
}
