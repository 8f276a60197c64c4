//! Change while running: reload and drain, without losing a request.
//!
//! Never sends signals; those are the command line's.

use crate::origin::{self, Origin};
use crate::proxy::{Proxy, sections};
use crate::wire::Sock;

#[test]
fn a_reload_keeps_connections_and_takes_effect() {
    let (old, new) = (Origin::start(origin::by_path), Origin::start(origin::by_path));
    let mut proxy = Proxy::before(&old);
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 200);
    let mut running = proxy.client();
    running.send_get("/gate/go");
    old.wait_for_in_flight(1);
    assert!(proxy.reload(&[], &sections(&new, "", "")).is_empty());
    assert_eq!(client.get("/").status, 200);
    assert_eq!((old.requests().len(), new.requests().len()), (2, 1));
    old.gate("go").open();
    assert_eq!(running.response().text(), "ok");
}

#[test]
fn draining_finishes_what_runs_and_accepts_no_more() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&[("shutdown_timeout", "10s")], &sections(&origin, "", ""));
    let addr = proxy.addr();
    let mut client = proxy.client();
    client.send_get("/gate/go");
    origin.wait_for_in_flight(1);
    let ending = std::thread::spawn(move || proxy.shutdown());
    while Sock::tcp(addr).is_ok() {
        std::thread::yield_now();
    }
    origin.gate("go").open();
    let answer = client.response();
    assert_eq!(answer.text(), "ok");
    assert!(answer.fields.lists("connection", "close"), "{answer:?}");
    client.expect_end();
    ending.join().expect("an orderly end");
}
