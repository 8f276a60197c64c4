//! Change while running: reload and drain, without losing a request.
//!
//! Never sends signals; those are the command line's.

use crate::origin::{self, Origin};
use crate::proxy::{Proxy, balanced, sections};
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
fn a_reload_under_load_loses_nothing() {
    let origins = [Origin::start(origin::by_path), Origin::start(origin::by_path)];
    let plan = |at: usize| balanced(&[(&origins[at], "")], "", "");
    let mut proxy = Proxy::start(&[("workers", "2")], &plan(0));
    let addr = proxy.addr();
    std::thread::scope(|scope| {
        let load = || {
            let mut client = crate::client::Client::connect(addr);
            for n in 0..400 {
                let answer = client.get("/size/1000");
                assert_eq!(answer.status, 200, "request {n}: {answer:?}");
            }
        };
        let loads: Vec<_> = (0..4).map(|_| scope.spawn(load)).collect();
        let mut at = 0;
        while !loads.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            at = 1 - at;
            proxy.reload(&[], &plan(at));
        }
    });
    assert_eq!(origins.iter().map(|o| o.requests().len()).sum::<usize>(), 1600);
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
