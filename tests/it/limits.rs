//! Limits under load: `max_conn` is exact, the queue is fair, idle connections are parked and still served.
//!
//! Never measures speed.

use crate::client::Client;
use crate::origin::{self, Origin};
use crate::proxy::{Proxy, sections};

#[test]
fn max_conn_is_never_exceeded_under_a_thousand_requests_at_once() {
    const LIMIT: usize = 8;
    let origin = Origin::start(origin::by_path);
    let queue = "queue: {size: 2000, timeout: 30s}";
    let proxy = Proxy::start(&[("workers", "4")], &sections(&origin, &format!("max_conn: {LIMIT}"), queue));
    let mut clients: Vec<Client> = (0..1000).map(|_| proxy.client()).collect();
    clients.iter_mut().for_each(|client| client.send_get("/gate/go"));
    origin.wait_for_in_flight(LIMIT);
    proxy.wait_until("the others in the queue", |totals| totals.queue_waits as usize == 1000 - LIMIT);
    origin.gate("go").open();
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    assert_eq!((origin.in_flight_max(), origin.requests().len()), (LIMIT, 1000));
}

#[test]
fn the_queue_is_first_come_first_served_over_workers() {
    let origin = Origin::start(origin::by_path);
    let upstream = "queue: {size: 100, timeout: 30s}";
    let proxy = Proxy::start(&[("workers", "3")], &sections(&origin, "max_conn: 1", upstream));
    let mut first = proxy.client();
    first.send_get("/gate/go");
    origin.wait_for_in_flight(1);
    let mut waiting: Vec<Client> = Vec::new();
    for n in 0..30 {
        let mut client = proxy.client();
        client.send_get(&format!("/{n}"));
        waiting.push(client);
        proxy.wait_until("its place in the queue", |totals| totals.queue_waits == n + 1);
    }
    origin.gate("go").open();
    waiting.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
    let order: Vec<String> = origin.requests().into_iter().skip(1).map(|seen| seen.request.target).collect();
    assert_eq!(order, (0..30).map(|n| format!("/{n}")).collect::<Vec<_>>());
    assert_eq!(origin.in_flight_max(), 1);
}

#[test]
fn who_leaves_the_queue_gives_up_the_place() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&[], &sections(&origin, "max_conn: 1", "queue: {size: 10, timeout: 30s}"));
    let mut first = proxy.client();
    first.send_get("/gate/go");
    origin.wait_for_in_flight(1);
    let (mut leaves, mut stays) = (proxy.client(), proxy.client());
    leaves.send_get("/leaves");
    proxy.wait_until("a place in the queue", |totals| totals.queue_waits == 1);
    stays.send_get("/stays");
    proxy.wait_until("a place in the queue", |totals| totals.queue_waits == 2);
    leaves.reset();
    proxy.wait_for_open(2);
    origin.gate("go").open();
    assert_eq!(stays.response().status, 200);
    assert!(origin.requests().iter().all(|seen| seen.request.target != "/leaves"));
}

#[test]
fn parked_connections_are_served_again_and_their_ends_noticed() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&[("park_after", "100ms")], &sections(&origin, "", ""));
    let mut clients: Vec<Client> = (0..100).map(|_| proxy.client()).collect();
    for _ in 0..3 {
        clients.iter_mut().for_each(|client| assert_eq!(client.get("/").status, 200));
        proxy.wait_until("all in the parking lot", |totals| totals.connections_parked == 100);
    }
    clients.truncate(40);
    proxy.wait_for_open(40);
    clients.iter_mut().for_each(|client| assert_eq!(client.get("/").status, 200));
}

#[test]
fn an_idle_connection_ends_after_idle_timeout_parked_or_not() {
    let origin = Origin::start(origin::by_path);
    for park_after in ["100ms", "10s"] {
        let server = [("park_after", park_after), ("idle_timeout", "400ms")];
        let proxy = Proxy::start(&server, &sections(&origin, "", ""));
        let mut client = proxy.client();
        assert_eq!(client.get("/").status, 200);
        client.expect_end();
    }
}
