//! Who is up: active checks and their thresholds, passive ejection and the way back, names and sockets as addresses.
//!
//! Owns no time: intervals are short in the configuration, and an ejection's ten seconds are waited for in one test only.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use speedmimi::error::Reason;

use crate::dir::Dir;
use crate::fleet::{Fleet, count, says_its_name, wait_for_a_slot, who, who_all};
use crate::origin::{self, Exchange, Next, Origin};
use crate::proxy::{Proxy, sections};
use crate::wait;

/// A script whose `/health` answers what the test last said, or nothing for 0.
fn with_health(health: &Arc<AtomicU16>) -> impl Fn(&mut Exchange) -> io::Result<Next> + Send + Sync + 'static {
    let health = health.clone();
    move |exchange| match (exchange.path(), health.load(Ordering::SeqCst)) {
        ("/health", 0) => exchange.hold(),
        ("/health", status) => exchange.answer(status, b""),
        _ => origin::by_path(exchange),
    }
}

/// An origin whose health the test decides.
fn patient(status: u16) -> (Arc<AtomicU16>, Origin) {
    let health = Arc::new(AtomicU16::new(status));
    let origin = Origin::start(with_health(&health));
    (health, origin)
}

fn checks(origin: &Origin) -> usize {
    origin.requests().iter().filter(|seen| seen.request.target == "/health").count()
}

fn status(proxy: &Proxy) -> u16 {
    proxy.client().get("/").status
}

#[test]
fn a_check_takes_down_after_failures_in_a_row_and_up_after_successes() {
    let (health, origin) = patient(200);
    let check = "health_check: {interval: 50ms, timeout: 1s, failures: 3, successes: 4}";
    let proxy = Proxy::start(&[], &sections(&origin, check, ""));
    wait::until("a good check", || checks(&origin) >= 2);
    assert_eq!(status(&proxy), 200);

    let good = checks(&origin);
    health.store(500, Ordering::SeqCst);
    wait::until("down", || status(&proxy) == 503);
    // One may have been on its way when the answer changed.
    assert!(checks(&origin) >= good + 3, "three in a row");

    let bad = checks(&origin);
    health.store(200, Ordering::SeqCst);
    wait::until("up", || status(&proxy) == 200);
    assert!(checks(&origin) >= bad + 4, "four in a row");
}

#[test]
fn failures_that_are_not_in_a_row_take_nothing_down() {
    let turn = AtomicU16::new(0);
    let origin = Origin::start(move |exchange| match exchange.path() {
        // Two bad ones, then a good one.
        "/health" => {
            let turn = turn.fetch_add(1, Ordering::SeqCst) % 3;
            exchange.answer(if turn == 0 { 200 } else { 503 }, b"")
        }
        _ => origin::by_path(exchange),
    });
    let check = "health_check: {interval: 20ms, failures: 3, successes: 1}";
    let proxy = Proxy::start(&[], &sections(&origin, check, ""));
    wait::until("twelve checks", || {
        assert_eq!(status(&proxy), 200);
        checks(&origin) >= 12
    });
}

#[test]
fn a_backend_that_fails_its_first_check_is_down_and_gets_no_request() {
    let (health, origin) = patient(500);
    let proxy = Proxy::start(&[], &sections(&origin, "health_check: {interval: 50ms, successes: 1}", ""));
    wait::until("down", || status(&proxy) == 503);
    let answer = proxy.client().get("/");
    assert!(answer.fields.one("proxy-status").is_some_and(|v| v.contains("destination_unavailable")), "{answer:?}");
    health.store(204, Ordering::SeqCst);
    wait::until("up", || status(&proxy) == 200);
}

#[test]
fn a_check_that_gets_no_answer_in_time_is_a_failure() {
    let (health, origin) = patient(0);
    let check = "health_check: {interval: 50ms, timeout: 50ms, failures: 1, successes: 1}";
    let proxy = Proxy::start(&[], &sections(&origin, check, ""));
    wait::until("down", || status(&proxy) == 503);
    health.store(200, Ordering::SeqCst);
    wait::until("up", || status(&proxy) == 200);
}

#[test]
fn a_check_asks_as_configured() {
    let (_health, origin) = patient(200);
    let other = Origin::start(|exchange| exchange.answer(418, b""));
    let check = format!(
        "health_check: {{path: \"/deep?x=1\", host: health.test, expect: 418-418, port: {}, interval: 50ms, failures: 1}}",
        other.port()
    );
    let proxy = Proxy::start(&[], &sections(&origin, &check, ""));
    other.wait_for_requests(3);
    assert_eq!(status(&proxy), 200, "418 is what is expected");
    let seen = other.requests().remove(0).request;
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/deep?x=1"));
    assert_eq!(seen.fields.one("host").as_deref(), Some("health.test"));
    assert_eq!(checks(&origin), 0, "another port was asked for");
}

#[test]
fn a_status_outside_expect_is_a_failure() {
    for (expect, answer, is_up) in [("200-299", 301, false), ("200-399", 301, true), ("204-204", 200, false)] {
        let (_health, origin) = patient(answer);
        let check = format!("health_check: {{interval: 20ms, failures: 1, expect: {expect}}}");
        let proxy = Proxy::start(&[], &sections(&origin, &check, ""));
        wait::until("checks", || checks(&origin) >= 3);
        wait::until(&format!("{answer} against {expect}"), || (status(&proxy) == 200) == is_up);
    }
}

#[test]
fn a_tcp_check_connects_and_says_nothing() {
    for kind in ["type: tcp", "path: \"\""] {
        let origin = Origin::start(origin::by_path);
        let check = format!("health_check: {{{kind}, interval: 50ms, failures: 1, successes: 1}}");
        let proxy = Proxy::start(&[], &sections(&origin, &check, ""));
        origin.wait_for_connections(3);
        assert!(origin.requests().is_empty(), "{kind}");
        assert_eq!(status(&proxy), 200, "{kind}");
        origin.kill();
        wait::until("down", || status(&proxy) == 503);
        origin.revive();
        wait::until("up", || status(&proxy) == 200);
    }
}

#[test]
fn who_is_down_by_its_check_is_left_out() {
    let fleet = Fleet::scripted(&["a", "b", "c"], |id, exchange| match (id, exchange.path()) {
        ("b", "/health") => exchange.answer(500, b""),
        _ => says_its_name(id, exchange),
    });
    let keys = |_: &str| "health_check: {interval: 50ms, failures: 1}";
    let proxy = Proxy::start(&[], &fleet.sections(keys, "", "load_balancer: round_robin"));
    let mut client = proxy.client();
    wait::until("b to be left out", || count(&who_all(&mut client, 6), "b") == 0);
    let answers = who_all(&mut client, 30);
    assert_eq!((count(&answers, "a"), count(&answers, "b"), count(&answers, "c")), (15, 0, 15));
}

#[test]
fn one_that_comes_back_is_ramped_and_one_that_was_never_away_is_not() {
    let health = Arc::new(AtomicU16::new(200));
    let theirs = health.clone();
    let fleet = Fleet::scripted(&["a", "b"], move |id, exchange| match (id, exchange.path()) {
        ("b", "/health") => exchange.answer(theirs.load(Ordering::SeqCst), b""),
        _ => says_its_name(id, exchange),
    });
    let keys = |_: &str| "health_check: {interval: 50ms, failures: 1, successes: 1}";
    let proxy = Proxy::start(&[], &fleet.sections(keys, "", "load_balancer: weight"));
    let mut client = proxy.client();
    assert_eq!(count(&who_all(&mut client, 40), "b"), 20, "at the start of the proxy nobody is ramped");
    health.store(500, Ordering::SeqCst);
    wait::until("b to be left out", || count(&who_all(&mut client, 4), "b") == 0);
    health.store(200, Ordering::SeqCst);
    wait::until("b to be back", || count(&who_all(&mut client, 4), "b") > 0);
    let share = count(&who_all(&mut client, 60), "b");
    assert!((1..=20).contains(&share), "{share} of 60, where 30 would be all of its weight");
}

#[test]
fn a_check_that_is_taken_out_of_the_configuration_lifts_its_verdict() {
    let (_health, origin) = patient(500);
    let mut proxy = Proxy::start(&[], &sections(&origin, "health_check: {interval: 50ms}", ""));
    wait::until("down", || status(&proxy) == 503);
    proxy.reload(&[], &sections(&origin, "", ""));
    assert_eq!(status(&proxy), 200);
    proxy.reload(&[], &sections(&origin, "health_check: {interval: 50ms}", ""));
    wait::until("down again", || status(&proxy) == 503);
    // What is down stays so through a reload that changes something else.
    proxy.reload(&[], &sections(&origin, "weight: 7, health_check: {interval: 50ms}", ""));
    assert_eq!(status(&proxy), 503);
}

// Passive.

/// Two backends in turn of which `a` is refused; requests that were tried at `a` first show in the retries.
fn broken(extra: &str) -> (Fleet, Proxy) {
    let fleet = Fleet::of(&["a", "b"]);
    let proxy = Proxy::start(&[], &fleet.sections(|_| "", extra, "load_balancer: round_robin"));
    (fleet, proxy)
}

#[test]
fn five_failures_in_a_row_eject_and_ten_seconds_later_it_is_back() {
    let (fleet, proxy) = broken("");
    let mut client = proxy.client();
    fleet.origin("a").kill();
    assert_eq!(count(&who_all(&mut client, 20), "b"), 20);
    assert_eq!(proxy.stats().retries, 5, "after five failures nobody asks it any more");
    fleet.origin("a").revive();
    assert_eq!(count(&who_all(&mut client, 20), "b"), 20, "not yet, though it is well");
    wait::until_within(15, "the end of the ejection", || count(&who_all(&mut client, 2), "a") > 0);
    assert_eq!(proxy.stats().retries, 5);
}

#[test]
fn closes_resets_and_timeouts_count_as_failures_and_answers_do_not() {
    for (path, failing) in [("/close", true), ("/reset", true), ("/never", true), ("/status/500", false)] {
        // A POST is sent once, so that each request is one failure at one backend.
        let fleet = Fleet::scripted(&["a", "b"], |id, exchange| match id {
            "a" => origin::by_path(exchange),
            _ => exchange.answer(200, b"b"),
        });
        let upstream = "response_timeout: 400ms, retries: 0";
        let proxy = Proxy::start(&[], &fleet.sections(|_| "", upstream, "load_balancer: round_robin"));
        for _ in 0..20 {
            proxy.client().request("POST", path, &[], b"x");
        }
        let at_a = fleet.requests()[0];
        assert_eq!(at_a, if failing { 5 } else { 10 }, "{path}");
    }
}

#[test]
fn a_success_in_between_begins_the_row_anew() {
    let fleet = Fleet::scripted(&["a", "b"], |id, exchange| match id {
        "a" => origin::by_path(exchange),
        _ => exchange.answer(200, b"b"),
    });
    let proxy = Proxy::start(&[], &fleet.sections(|_| "", "retries: 0", "load_balancer: round_robin"));
    for n in 0..40 {
        // Of those at `a`, every fourth is answered.
        let path = if n / 2 % 4 == 3 { "/" } else { "/close" };
        proxy.client().request("POST", path, &[], b"x");
    }
    assert_eq!(fleet.requests(), [20, 20]);
}

#[test]
fn at_most_half_are_ejected() {
    let fleet = Fleet::of(&["a", "b", "c"]);
    let proxy = Proxy::start(&[], &fleet.sections(|_| "", "retries: 0", "load_balancer: round_robin"));
    for id in ["a", "b", "c"] {
        fleet.origin(id).kill();
    }
    for _ in 0..60 {
        assert_eq!(status(&proxy), 502, "one of three is ejected, the others are asked");
    }
    for id in ["a", "b", "c"] {
        fleet.origin(id).revive();
    }
    let answers: BTreeSet<String> = who_all(&mut proxy.client(), 12).into_iter().collect();
    assert_eq!(answers.len(), 2, "{answers:?}");
}

#[test]
fn an_ejected_backend_is_used_when_no_other_is_left() {
    let (fleet, mut proxy) = broken("");
    fleet.origin("a").kill();
    assert_eq!(count(&who_all(&mut proxy.client(), 20), "b"), 20);
    fleet.origin("a").revive();
    assert_eq!(who(&proxy), "b");
    let without_b = |id: &str| if id == "b" { "active: false" } else { "" };
    proxy.reload(&[], &fleet.sections(without_b, "", "load_balancer: round_robin"));
    assert_eq!(who(&proxy), "a");
}

#[test]
fn being_full_brings_no_ejected_backend_back() {
    let fleet = Fleet::of(&["a", "b"]);
    let keys = |id: &str| if id == "b" { "max_conn: 1" } else { "" };
    let proxy = Proxy::start(&[], &fleet.sections(keys, "", "load_balancer: round_robin"));
    fleet.origin("a").kill();
    assert_eq!(count(&who_all(&mut proxy.client(), 20), "b"), 20);
    fleet.origin("a").revive();
    let mut holder = proxy.client();
    holder.send_get("/gate/go");
    fleet.origin("b").wait_for_in_flight(1);
    let answer = proxy.client().get("/who");
    assert_eq!(answer.status, 503, "{answer:?}");
    wait::until("the count", || proxy.stats().reasons.of(Reason::BackendsFull) == 1);
    fleet.origin("b").gate("go").open();
    assert_eq!(holder.response().text(), "ok");
    wait_for_a_slot(&proxy);
}

#[test]
fn failures_of_a_backend_that_is_alone_never_eject_it() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&[], &sections(&origin, "", "retries: 0"));
    origin.kill();
    (0..12).for_each(|_| assert_eq!(status(&proxy), 502));
    origin.revive();
    assert_eq!(status(&proxy), 200);
}

// Addresses.

#[test]
fn a_name_is_resolved_and_its_addresses_used() {
    let origin = Origin::start(origin::by_path);
    let named = |keys: &str| {
        format!(
            "backends: {{default: [{{host: localhost, port: {}, {keys}}}]}}\n\
             upstreams: {{default: {{keepalive: 0}}}}\nrouting: {{default: {{upstream: default}}}}\n",
            origin.port()
        )
    };
    let mut proxy = Proxy::start(&[], &named(""));
    // `localhost` may have ::1 as well, where nobody listens: the next address is tried.
    (0..6).for_each(|_| assert_eq!(status(&proxy), 200));
    assert_eq!(proxy.stats().retries, 0, "which is no failure");
    proxy.reload(&[], &named("weight: 5"));
    assert_eq!(status(&proxy), 200);
    proxy.reload(&[], &named("health_check: {interval: 20ms, failures: 1}"));
    origin.wait_for_requests(12);
    assert_eq!(status(&proxy), 200, "a check goes by the name's addresses too");
}

#[test]
fn a_name_that_comes_with_a_reload_is_resolved_before_its_first_request() {
    let origin = Origin::start(origin::by_path);
    let mut proxy = Proxy::before(&origin);
    assert_eq!(status(&proxy), 200);
    let port = origin.port();
    proxy.reload(
        &[],
        &format!(
            "backends: {{default: [{{host: localhost, port: {port}}}]}}\nrouting: {{default: {{upstream: default}}}}\n"
        ),
    );
    assert_eq!(status(&proxy), 200);
}

#[test]
fn a_unix_socket_serves_and_is_checked() {
    let dir = Dir::new("health");
    let path = dir.path("backend.sock");
    let health = Arc::new(AtomicU16::new(200));
    let origin = Origin::start_unix(&path, with_health(&health));
    let backend = format!(
        "backends: {{default: [{{host: \"unix:{}\", health_check: {{interval: 50ms, failures: 1, successes: 1}}}}]}}\n",
        path.display()
    );
    let proxy = Proxy::start(&[], &format!("{backend}routing: {{default: {{upstream: default}}}}\n"));
    let mut client = proxy.client();
    assert_eq!(client.request("POST", "/echo", &[], b"over a file").text(), "over a file");
    assert_eq!(client.get("/size/200000").body, origin::pattern(200_000));
    let served = origin.connections().iter().filter(|c| c.bytes.starts_with(b"POST")).count();
    assert_eq!(served, 1, "kept alive as any other");
    health.store(500, Ordering::SeqCst);
    wait::until("down", || status(&proxy) == 503);
    health.store(200, Ordering::SeqCst);
    wait::until("up", || status(&proxy) == 200);
}

#[test]
fn a_check_finds_the_final_answer_behind_an_interim_one() {
    let origin = Origin::start(|exchange| {
        if exchange.path() != "/health" {
            return exchange.answer(200, b"ok");
        }
        // Short, so that one read brings both.
        exchange.send(b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 503 Later\r\n\r\n")?;
        exchange.hold()
    });
    let check = "health_check: {path: /health, interval: 100ms, timeout: 100s, failures: 1}";
    let proxy = Proxy::start(&[], &sections(&origin, check, ""));
    wait::until("a verdict", || proxy.client().get("/").status == 503);
}
