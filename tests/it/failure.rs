//! Backends that fail: what is retried, what never is, and who pays for it.
//!
//! Never checks the rules of ejection themselves; those are pure and tested where they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::origin::{self, Next, Origin};
use crate::proxy::{Proxy, balanced, sections};

#[test]
fn a_backend_killed_under_load_costs_no_idempotent_request() {
    const CLIENTS: usize = 8;
    const REQUESTS: usize = 150;
    let (stays, dies) = (Origin::start(origin::by_path), Origin::start(origin::by_path));
    let sections = balanced(&[(&stays, ""), (&dies, "")], "", "load_balancer: round_robin");
    let proxy = Proxy::start(&[("workers", "2")], &sections);
    let answered = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = proxy.client();
                for n in 0..REQUESTS {
                    let answer = client.get("/size/100");
                    assert_eq!(answer.status, 200, "request {n}: {answer:?}");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        dies.wait_for_requests(CLIENTS * REQUESTS / 8);
        dies.kill();
    });
    assert_eq!(answered.into_inner(), CLIENTS * REQUESTS);
}

#[test]
fn what_was_never_sent_is_retried_whatever_it_is() {
    let (dead, alive) = (Origin::start(origin::by_path), Origin::start(origin::by_path));
    dead.kill();
    let proxy = Proxy::start(&[], &balanced(&[(&dead, ""), (&alive, "")], "", "load_balancer: round_robin"));
    for _ in 0..6 {
        let answer = proxy.client().request("POST", "/echo", &[], b"once");
        assert_eq!((answer.status, answer.text().as_str()), (200, "once"));
    }
    assert_eq!(alive.requests().len(), 6);
}

#[test]
fn what_is_not_idempotent_is_sent_once() {
    let origins = [Origin::start(origin::by_path), Origin::start(origin::by_path)];
    let proxy = Proxy::start(&[], &balanced(&[(&origins[0], ""), (&origins[1], "")], "", ""));
    let answer = proxy.client().request("POST", "/close", &[], b"once");
    assert_eq!(answer.status, 502);
    assert_eq!(origins.iter().map(|o| o.requests().len()).sum::<usize>(), 1);
}

#[test]
fn what_is_idempotent_is_sent_again_to_another_backend() {
    let closes = Origin::start(|exchange| {
        exchange.body()?;
        Ok(Next::Close)
    });
    let answers = Origin::start(origin::by_path);
    let proxy = Proxy::start(&[], &balanced(&[(&closes, ""), (&answers, "")], "", "load_balancer: round_robin"));
    for _ in 0..4 {
        let answer = proxy.client().request("PUT", "/echo", &[], b"again");
        assert_eq!((answer.status, answer.text().as_str()), (200, "again"));
    }
    assert!(!closes.requests().is_empty(), "the failing backend was never tried");
}

#[test]
fn a_body_that_does_not_fit_the_buffer_is_not_sent_again() {
    let closes = || Origin::start(|_| Ok(Next::Close));
    let origins = [closes(), closes()];
    let sections = balanced(&[(&origins[0], ""), (&origins[1], "")], "retry_buffer: 1KiB", "");
    let proxy = Proxy::start(&[], &sections);
    let answer = proxy.client().request("PUT", "/", &[], &origin::pattern(100_000));
    assert_eq!(answer.status, 502);
    assert_eq!(origins.iter().map(|o| o.requests().len()).sum::<usize>(), 1);
}

#[test]
fn a_stale_connection_is_no_failure() {
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    let origin = Origin::start(move |exchange| {
        count.fetch_add(1, Ordering::Relaxed);
        exchange.answer(200, b"ok")?;
        // Closes what it just said it would keep.
        Ok(Next::Close)
    });
    let proxy = Proxy::start(&[], &sections(&origin, "", "retries: 0"));
    let mut client = proxy.client();
    for _ in 0..30 {
        assert_eq!(client.get("/").status, 200);
    }
    assert_eq!(served.load(Ordering::Relaxed), 30);
}

#[test]
fn a_backend_that_comes_back_is_used_again() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&[], &sections(&origin, "", "retries: 0"));
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 200);
    origin.kill();
    assert_eq!(client.get("/").status, 502);
    origin.revive();
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn backups_are_used_only_when_no_other_is_left() {
    let (usual, backup) = (Origin::start(origin::by_path), Origin::start(origin::by_path));
    let proxy = Proxy::start(&[], &balanced(&[(&usual, ""), (&backup, "backup: true")], "", ""));
    (0..10).for_each(|_| assert_eq!(proxy.client().get("/").status, 200));
    assert!(backup.requests().is_empty());
    usual.kill();
    (0..10).for_each(|_| assert_eq!(proxy.client().get("/").status, 200));
    assert_eq!(backup.requests().len(), 10);
}
