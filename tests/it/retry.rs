//! Trying again: what may be sent twice and what must not, with which backend, and how often at most.
//!
//! Never looks at which rule chose the first backend: the rules here are those that make the first choice certain.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::faults::FullListener;
use crate::fleet::{Fleet, count, says_its_name, who, who_all};
use crate::origin::{self, Next, Origin};
use crate::proxy::{Proxy, sections};
use crate::{wait, wire};

/// Plain rotation: of two requests in a row each backend gets one.
const IN_TURN: &str = "load_balancer: round_robin";

/// An origin that closes the connection at the first `n` requests to `/` and echoes from then on.
fn closes_first(n: usize) -> Origin {
    let seen = AtomicUsize::new(0);
    Origin::start(move |exchange| {
        let body = exchange.body()?;
        if seen.fetch_add(1, Ordering::Relaxed) < n {
            return Ok(Next::Close);
        }
        exchange.answer(200, &body)
    })
}

/// The bodies with which requests came to an origin.
fn bodies(origin: &Origin) -> Vec<Vec<u8>> {
    origin.requests().into_iter().map(|seen| seen.body).collect()
}

#[test]
fn a_backend_killed_under_load_costs_no_idempotent_request() {
    let fleet = Fleet::of(&["a", "b"]);
    let proxy = Proxy::start(&[("workers", "2")], &fleet.sections(|_| "", "", ""));
    let (clients, rounds) = (16, 120);
    let (before, after) = (Arc::new(Barrier::new(clients + 1)), Arc::new(Barrier::new(clients + 1)));
    let addr = proxy.addr();
    let load: Vec<_> = (0..clients)
        .map(|i| {
            let (before, after) = (before.clone(), after.clone());
            thread::spawn(move || {
                let mut client = Client::connect(addr);
                let method = ["GET", "PUT", "DELETE", "OPTIONS"][i % 4];
                let mut one = || {
                    let answer = client.request(method, "/who", &[], if method == "PUT" { b"content" } else { b"" });
                    assert_eq!(answer.status, 200, "{method}: {answer:?}");
                    answer.text()
                };
                (0..rounds / 4).for_each(|_| drop(one()));
                before.wait();
                // Meanwhile one of them goes.
                (0..rounds / 2).for_each(|_| drop(one()));
                after.wait();
                // What is answered now is answered by the other.
                (0..rounds / 4).for_each(|_| assert_eq!(one(), "b"));
            })
        })
        .collect();
    before.wait();
    fleet.origin("a").kill();
    after.wait();
    load.into_iter().for_each(|client| client.join().expect("a client"));
    assert!(proxy.stats().retries <= 100, "{} retries", proxy.stats().retries);
}

#[test]
fn a_refused_connect_is_tried_elsewhere_whatever_the_method() {
    let fleet = Fleet::of(&["a", "b"]);
    let proxy = Proxy::start(&[], &fleet.sections(|_| "", "", IN_TURN));
    fleet.origin("a").kill();
    let mut client = proxy.client();
    for method in ["POST", "PATCH", "GET", "POST"] {
        let answer = client.request(method, "/who", &[], b"content");
        assert_eq!((answer.status, answer.text().as_str()), (200, "b"), "{method}");
    }
    assert!(bodies(fleet.origin("b")).iter().all(|body| body == b"content"));
    assert!(proxy.stats().retries >= 2, "in turn, it was the first choice of at least every other one");
}

#[test]
fn a_connect_that_takes_too_long_is_tried_elsewhere() {
    let full = FullListener::new();
    let fleet = Fleet::of(&["b"]);
    let slow = format!("default: [{{id: a, host: 127.0.0.1, port: {}}}, ", full.port);
    let sections = fleet.sections(|_| "", "connect_timeout: 100ms", IN_TURN).replacen("default: [", &slow, 1);
    let proxy = Proxy::start(&[], &sections);
    let mut client = proxy.client();
    (0..4).for_each(|_| assert_eq!(client.request("POST", "/who", &[], b"x").text(), "b"));
    assert!(proxy.stats().retries >= 2);
}

#[test]
fn a_post_that_was_sent_is_not_sent_again() {
    for method in ["POST", "PATCH"] {
        let origin = closes_first(1);
        let proxy = Proxy::before(&origin);
        let answer = proxy.client().request(method, "/", &[], b"once");
        assert_eq!(answer.status, 502, "{answer:?}");
        assert_eq!(bodies(&origin), [b"once"]);
        assert_eq!(proxy.stats().retries, 0);
    }
}

#[test]
fn a_post_over_a_kept_connection_that_closes_is_not_sent_again() {
    let origin = Origin::start(|exchange| match exchange.path() {
        "/kept" => exchange.answer(200, b"kept"),
        _ => {
            exchange.body()?;
            Ok(Next::Close)
        }
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    assert_eq!(client.get("/kept").status, 200);
    assert_eq!(client.request("POST", "/", &[], b"once").status, 502);
    assert_eq!(bodies(&origin), [&b""[..], b"once"]);
}

#[test]
fn methods_that_may_be_repeated_are() {
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
        let origin = closes_first(2);
        let proxy = Proxy::before(&origin);
        assert_eq!(proxy.client().request(method, "/", &[], b"").status, 200, "{method}");
        assert_eq!((origin.requests().len(), proxy.stats().retries), (3, 2), "{method}");
    }
}

#[test]
fn no_more_often_than_configured() {
    for retries in [0, 1, 3] {
        let origin = closes_first(usize::MAX);
        let proxy = Proxy::start(&[], &sections(&origin, "", &format!("retries: {retries}")));
        assert_eq!(proxy.client().get("/").status, 502);
        assert_eq!(origin.requests().len(), retries + 1);
    }
}

#[test]
fn a_buffered_body_is_sent_again_byte_for_byte() {
    let whole = origin::pattern(16 * 1024);
    for (n, fields) in
        [(5, ""), (16 * 1024, ""), (5, "Transfer-Encoding: chunked\r\n"), (9000, "Transfer-Encoding: chunked\r\n")]
    {
        let body = &whole[..n];
        let origin = closes_first(1);
        let proxy = Proxy::before(&origin);
        let mut client = proxy.client();
        match fields {
            "" => client.send(
                [format!("PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {n}\r\n\r\n").as_bytes(), body].concat(),
            ),
            chunked => {
                client.send(format!("PUT / HTTP/1.1\r\nHost: a.test\r\n{chunked}\r\n"));
                for piece in body.chunks(4096) {
                    client.send(wire::chunk(piece));
                }
                client.send(b"0\r\n\r\n");
            }
        }
        let answer = client.response();
        assert_eq!((answer.status, answer.body == body), (200, true), "{n} bytes {fields}");
        assert!(bodies(&origin).iter().all(|seen| seen == body), "{n} bytes {fields}");
    }
}

#[test]
fn a_body_that_is_under_way_when_the_backend_closes_goes_on_to_the_next() {
    for fields in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let origin = Origin::start(|exchange| match exchange.connection {
            0 => Ok(Next::Close),
            _ => {
                let body = exchange.body()?;
                exchange.answer(200, &body)
            }
        });
        let proxy = Proxy::before(&origin);
        let mut client = proxy.client();
        client.send(format!("PUT / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n\r\n"));
        let parts: [&[u8]; 2] = match fields.starts_with('C') {
            true => [b"hello", b"world"],
            false => [b"5\r\nhello\r\n", b"5\r\nworld\r\n0\r\n\r\n"],
        };
        client.send(parts[0]);
        // The first has closed, and the second knows of the request.
        origin.wait_for_requests(2);
        client.send(parts[1]);
        assert_eq!(client.response().text(), "helloworld", "{fields}");
    }
}

#[test]
fn a_body_beyond_the_buffer_is_not() {
    for (n, upstream) in [(20_000, ""), (2_000, "retry_buffer: 1KiB")] {
        let body = origin::pattern(n);
        let chunked = [wire::chunk(&body), b"0\r\n\r\n".to_vec()].concat();
        let length = format!("Content-Length: {n}");
        for (fields, framed) in [(length.as_str(), &body), ("Transfer-Encoding: chunked", &chunked)] {
            let origin = closes_first(1);
            let proxy = Proxy::start(&[], &sections(&origin, "", upstream));
            let mut client = proxy.client();
            client.send([format!("PUT / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n\r\n").as_bytes(), framed].concat());
            assert_eq!(client.response().status, 502, "{fields}");
            assert_eq!(bodies(&origin), std::slice::from_ref(&body), "{fields}");
        }
    }
}

#[test]
fn a_stale_kept_connection_costs_nothing() {
    let origin = Origin::start(|exchange| match exchange.path() {
        // Closes right behind an answer that promised to stay: the next request meets the end on its way.
        "/leaves" => {
            exchange.answer(200, b"bye")?;
            exchange.gate("leave").pass()?;
            Ok(Next::Close)
        }
        _ => exchange.answer(200, b"ok"),
    });
    let proxy = Proxy::start(&[], &sections(&origin, "", "retries: 0"));
    let mut client = proxy.client();
    assert_eq!(client.get("/leaves").text(), "bye");
    origin.gate("leave").open();
    assert_eq!(client.get("/").text(), "ok");
    assert_eq!(client.get("/").text(), "ok");
    assert_eq!(proxy.stats().retries, 0, "not one of the retries that are counted against the budget");
}

#[test]
fn a_backend_that_never_keeps_what_it_promised_to_keep_costs_nothing() {
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
fn kept_connections_that_all_went_stale_cost_nothing() {
    let origin = Origin::start(|exchange| {
        let (connection, mut first) = (exchange.connection, exchange.request.target == "/gate/a");
        if first {
            exchange.gate("a").pass()?;
        }
        first &= connection < 8;
        exchange.answer(200, b"ok")?;
        if first {
            exchange.gate("restart").pass()?;
            return Ok(Next::Close);
        }
        Ok(Next::KeepAlive)
    });
    let proxy = Proxy::before(&origin);
    let mut clients: Vec<Client> = (0..8).map(|_| proxy.client()).collect();
    clients.iter_mut().for_each(|client| client.send_get("/gate/a"));
    origin.wait_for_in_flight(8);
    origin.gate("a").open();
    clients.iter_mut().for_each(|client| assert_eq!(client.response().text(), "ok"));
    // Eight connections are kept; all of them end at once, as when a backend is restarted.
    origin.gate("restart").open();
    for client in &mut clients {
        assert_eq!(client.get("/").text(), "ok");
    }
    // A POST can't be sent twice: it must not have been sent into one of those ends.
    assert_eq!(proxy.client().request("POST", "/", &[], b"x").status, 200);
}

#[test]
fn retries_go_to_another_backend() {
    let fleet = Fleet::scripted(&["a", "b", "c"], |id, exchange| match id {
        "c" => says_its_name(id, exchange),
        _ => Ok(Next::Close),
    });
    let proxy = Proxy::start(&[], &fleet.sections(|_| "", "", IN_TURN));
    let mut client = proxy.client();
    // Two bad ones and two retries: every request reaches the third.
    assert_eq!(count(&who_all(&mut client, 9), "c"), 9);
    let requests = fleet.requests();
    assert!(requests[0] <= 9 && requests[1] <= 9, "{requests:?}");
}

#[test]
fn a_backup_is_another_backend_too() {
    let fleet = Fleet::of(&["a", "b"]);
    let backup = |id: &str| if id == "b" { "backup: true" } else { "" };
    let proxy = Proxy::start(&[], &fleet.sections(backup, "", ""));
    assert_eq!(who(&proxy), "a");
    fleet.origin("a").kill();
    assert_eq!(count(&who_all(&mut proxy.client(), 10), "b"), 10, "the only primary refuses, and is not ejected");
}

#[test]
fn an_answer_that_takes_too_long_is_not_asked_for_again() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&[], &sections(&origin, "", "response_timeout: 200ms"));
    assert_eq!(proxy.client().get("/never").status, 504);
    assert_eq!(origin.requests().len(), 1, "it was sent, and the backend did not close");
}

#[test]
fn a_client_that_leaves_during_a_connect_is_no_failure_of_the_backend() {
    let full = FullListener::new();
    let fleet = Fleet::of(&["b"]);
    let backends = fleet.backends(|_| "backup: true");
    let backends =
        backends.replace("default: [", &format!("default: [{{id: a, host: 127.0.0.1, port: {}}}, ", full.port));
    let proxy = Proxy::start(&[], &format!("{backends}routing: {{default: {{upstream: default}}}}\n"));
    for n in 1..=6 {
        let mut client = proxy.client();
        client.send_get("/who");
        wait::until("the connection to be accepted", || proxy.stats().connections_accepted >= n);
        drop(client);
        wait::until("the client's leaving to be noticed", || {
            proxy.stats().reasons.of(speedmimi::error::Reason::ClientClosed) >= n
        });
    }
    assert_eq!((proxy.stats().retries, fleet.requests_in_all()), (0, 0), "nobody was left to try again for");
}

#[test]
fn the_budget_bounds_retries() {
    // One connection is one worker's: what is allowed is the upstream's, wherever it is needed.
    for workers in ["1", "4"] {
        let origin = closes_first(usize::MAX);
        let proxy = Proxy::start(&[("workers", workers)], &sections(&origin, "", "retries: 10"));
        let mut client = proxy.client();
        for _ in 0..40 {
            assert_eq!(client.get("/").status, 502);
        }
        assert_eq!(proxy.stats().retries, 100, "a fifth of forty is less than what is always allowed");
        assert_eq!(origin.requests().len(), 140, "{workers} workers");
    }
}

#[test]
fn the_budget_grows_with_the_requests() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&[], &sections(&origin, "", "retries: 1"));
    let mut client = proxy.client();
    (0..1000).for_each(|_| assert_eq!(client.get("/").status, 200));
    (0..400).for_each(|_| assert_eq!(client.get("/close").status, 502));
    let retries = proxy.stats().retries;
    // A fifth of the thousand, and of those that came before the budget was used up.
    assert!((200..=280).contains(&retries), "{retries}");
    // The first of them met its end on a kept connection, which costs nothing.
    assert_eq!(origin.requests().len() as u64, 1400 + retries + 1);
}

#[test]
fn a_body_of_any_size_goes_elsewhere_when_nothing_was_sent() {
    let fleet = Fleet::of(&["a", "b"]);
    let proxy = Proxy::start(&[], &fleet.sections(|_| "", "", IN_TURN));
    fleet.origin("a").kill();
    let body = origin::pattern(300_000);
    let mut client = proxy.client();
    for _ in 0..4 {
        let answer = client.request("POST", "/echo", &[], &body);
        assert!(answer.status == 200 && answer.body == body, "{}", answer.status);
    }
    assert!(proxy.stats().retries >= 2);
}

#[test]
fn a_post_keeps_away_from_a_connection_that_may_be_about_to_close_and_leaves_it_to_others() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&[], &sections(&origin, "", "keepalive_timeout: 5s"));
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 200);
    let kept = Instant::now();
    wait::until("half of keepalive_timeout", || kept.elapsed() > Duration::from_millis(2700));
    assert_eq!(client.request("POST", "/echo", &[], b"x").status, 200);
    let by = |seen: usize| origin.requests()[seen].connection;
    assert_ne!(by(0), by(1), "a connection of its own");
    assert!(!origin.connections()[by(0)].ended, "the other one is good for whatever may be sent again");
}

#[test]
fn a_stale_kept_connection_is_replaced_at_once_though_others_wait() {
    let origin = Origin::start(|exchange| match exchange.path() {
        "/stale" if exchange.connection == 0 => {
            exchange.gate("queued").pass()?;
            Ok(Next::Close)
        }
        _ => exchange.answer(200, b"ok"),
    });
    let proxy = Proxy::start(&[], &sections(&origin, "max_conn: 1", "queue: {size: 10, timeout: 20s}"));
    let mut first = proxy.client();
    assert_eq!(first.get("/").status, 200);
    first.send_get("/stale");
    origin.wait_for_requests(2);
    let mut second = proxy.client();
    second.send_get("/waits");
    proxy.wait_until("a place in the queue", |totals| totals.queue_waits == 1);
    origin.gate("queued").open();
    assert_eq!((first.response().status, second.response().status), (200, 200));
    let targets: Vec<String> = origin.requests().into_iter().map(|seen| seen.request.target).collect();
    assert_eq!(targets, ["/", "/stale", "/stale", "/waits"]);
}
