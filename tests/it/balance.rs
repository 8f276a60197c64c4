//! Which backend a request goes to: the rule that the route names for the request's protocol, the cookie before it, and
//! backups after all others.
//!
//! Owns no statistics: how exactly a rule follows weights is tested where the rules are pure. One worker, so that what a
//! rule remembers is in one place.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::client::Client;
use crate::fleet::{Fleet, count, wait_for_a_slot, who, who_all};
use crate::proxy::Proxy;
use crate::wait;
use crate::wire::Response;

/// A proxy with one upstream and one route by that rule.
fn start(fleet: &Fleet, rule: &str, keys: impl Fn(&str) -> &'static str) -> Proxy {
    Proxy::start(&[], &fleet.sections(keys, "", &format!("load_balancer: {rule}")))
}

/// `a` has three times the weight of `b`.
fn three_to_one(id: &str) -> &'static str {
    if id == "a" { "weight: 300" } else { "weight: 100" }
}

fn plain(_: &str) -> &'static str {
    ""
}

/// Requests that stay at their backends until their gate opens.
fn hold(proxy: &Proxy, fleet: &Fleet, n: usize) -> Vec<Client> {
    let before = fleet.requests_in_all();
    let clients = (1..=n).map(|i| {
        let mut client = proxy.client();
        client.send_get("/gate/go");
        wait::until("the request to arrive", || fleet.requests_in_all() == before + i);
        client
    });
    clients.collect()
}

fn open_gates(fleet: &Fleet, ids: &[&str]) {
    ids.iter().for_each(|id| fleet.origin(id).gate("go").open());
}

// Rules.

#[test]
fn round_robin_takes_turns_whatever_the_weights() {
    let fleet = Fleet::of(&["a", "b", "c"]);
    let proxy = start(&fleet, "round_robin", |id| if id == "a" { "weight: 1000" } else { "weight: 1" });
    let answers = who_all(&mut proxy.client(), 30);
    for turn in answers.chunks(3) {
        assert_eq!(turn.iter().collect::<BTreeSet<_>>().len(), 3, "{turn:?}");
    }
    assert_eq!(answers[..3], answers[3..6], "in the same order");
}

#[test]
fn weight_follows_the_weights_smoothly() {
    let fleet = Fleet::of(&["a", "b"]);
    let proxy = start(&fleet, "weight", three_to_one);
    let answers = who_all(&mut proxy.client(), 40);
    assert_eq!((count(&answers, "a"), count(&answers, "b")), (30, 10));
    for turn in answers.chunks(4) {
        assert_eq!(count(turn, "b"), 1, "smooth: {turn:?}");
    }
}

#[test]
fn least_connections_evens_out_what_is_in_flight() {
    let fleet = Fleet::of(&["a", "b", "c"]);
    let proxy = start(&fleet, "least_connections", three_to_one);
    let held = hold(&proxy, &fleet, 12);
    assert_eq!(fleet.requests(), [4, 4, 4]);
    // Only one of them has less to do afterwards, and gets everything.
    open_gates(&fleet, &["b"]);
    fleet.origin("b").wait_for_in_flight(0);
    wait::until("the slots to be given back", || who(&proxy) == "b");
    assert_eq!(count(&who_all(&mut proxy.client(), 20), "b"), 20);
    open_gates(&fleet, &["a", "c"]);
    drop(held);
}

#[test]
fn least_connections_with_nothing_in_flight_rotates() {
    let fleet = Fleet::of(&["a", "b", "c"]);
    let proxy = start(&fleet, "least_connections", plain);
    let answers = who_all(&mut proxy.client(), 30);
    assert!(["a", "b", "c"].iter().all(|id| count(&answers, id) == 10), "{answers:?}");
}

#[test]
fn the_default_rule_is_least_connections_by_weight() {
    for route in ["", "load_balancer: least_connections_weight"] {
        let fleet = Fleet::of(&["a", "b"]);
        let proxy = Proxy::start(&[], &fleet.sections(three_to_one, "", route));
        let held = hold(&proxy, &fleet, 16);
        assert_eq!(fleet.requests(), [12, 4], "{route}");
        open_gates(&fleet, &["a", "b"]);
        drop(held);
    }
}

#[test]
fn performance_goes_where_there_is_headroom_and_the_client_never_sees_the_report() {
    let fleet = Fleet::scripted(&["a", "b"], |id, exchange| {
        if exchange.path() == "/gate/go" {
            exchange.gate("go").pass()?;
        }
        let load = if id == "a" { "cpu=0.9,mem=0.9,load=0.9" } else { "cpu=0.1,mem=0.1,load=0.1" };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX-Backend-Load: {load}\r\n\r\n{id}");
        exchange.finish(head.as_bytes())
    });
    let proxy = start(&fleet, "performance_least_connections_weight", plain);
    let mut client = proxy.client();
    // Until both have told: idle, the one with more headroom gets nearly all.
    wait::until("both reports", || fleet.requests().iter().all(|&n| n > 0) || client.get("/who").status != 200);
    let answers: Vec<Response> = (0..40).map(|_| client.get("/who")).collect();
    assert!(answers.iter().all(|answer| answer.fields.one("x-backend-load").is_none()));
    let names: Vec<String> = answers.iter().map(Response::text).collect();
    assert!(count(&names, "b") >= 36, "{names:?}");
    // With many in flight they settle by weight x headroom: 0.1 to 0.9.
    let before = fleet.requests();
    let held = hold(&proxy, &fleet, 40);
    let at_a = fleet.requests()[0] - before[0];
    assert!((2..=7).contains(&at_a), "{at_a} of 40 where a tenth is due");
    open_gates(&fleet, &["a", "b"]);
    drop(held);
}

#[test]
fn random_two_uses_all_and_prefers_the_one_with_less_to_do() {
    let fleet = Fleet::of(&["a", "b"]);
    let proxy = start(&fleet, "random_two", plain);
    let held = hold(&proxy, &fleet, 40);
    let at_a = fleet.requests()[0];
    assert!((15..=25).contains(&at_a), "{at_a} of 40: two drawn, the better taken, evens out");
    open_gates(&fleet, &["a", "b"]);
    drop(held);
}

/// Who answers a request from each of 64 loopback addresses.
fn by_address(proxy: &Proxy) -> Vec<String> {
    let from = |i| Client::connect_from(Ipv4Addr::new(127, 0, 1, i), proxy.addr()).get("/who").text();
    (1..=64).map(from).collect()
}

#[test]
fn ip_hash_keeps_an_address_where_it_is_and_only_moves_those_of_one_that_goes() {
    let fleet = Fleet::of(&["a", "b", "c", "d"]);
    let mut proxy = start(&fleet, "ip_hash", plain);
    let before = by_address(&proxy);
    assert_eq!(by_address(&proxy), before);
    assert!(["a", "b", "c", "d"].iter().all(|id| count(&before, id) >= 4), "{before:?}");
    let without_c = |id: &str| if id == "c" { "active: false" } else { "" };
    proxy.reload(&[], &fleet.sections(without_c, "", "load_balancer: ip_hash"));
    let after = by_address(&proxy);
    for (was, is) in before.iter().zip(&after) {
        assert!(if was == "c" { is != "c" } else { is == was }, "{was} became {is}");
    }
}

#[test]
fn ip_hash_goes_by_the_client_behind_a_trusted_proxy() {
    let fleet = Fleet::of(&["a", "b", "c", "d"]);
    let sections = fleet.sections(plain, "", "load_balancer: ip_hash");
    let proxy = Proxy::start(&[("trusted_proxies", "[127.0.0.9/32]")], &sections);
    let through = |hop: u8, client: u8| {
        let mut connection = Client::connect_from(Ipv4Addr::new(127, 0, 0, hop), proxy.addr());
        connection.request("GET", "/who", &[("X-Forwarded-For", &format!("192.0.2.{client}"))], b"").text()
    };
    let trusted: Vec<String> = (0..64).map(|client| through(9, client)).collect();
    assert_eq!((0..64).map(|client| through(9, client)).collect::<Vec<_>>(), trusted);
    assert_eq!(trusted.iter().collect::<BTreeSet<_>>().len(), 4, "told apart by what the trusted proxy says");
    let untrusted: BTreeSet<String> = (0..64).map(|client| through(8, client)).collect();
    assert_eq!(untrusted.len(), 1, "one peer, whatever it says");
}

/// Who answers 32 requests with different values, twice each; the same value goes to the same backend, and not all
/// values to one.
#[track_caller]
fn assert_hashed(hash_on: &str, request: impl Fn(usize) -> String) {
    let fleet = Fleet::scripted(&["a", "b", "c"], |id, exchange| exchange.answer(200, id.as_bytes()));
    let proxy = Proxy::start(&[], &fleet.sections(plain, &format!("hash_on: {hash_on}"), "load_balancer: hash"));
    let mut client = proxy.client();
    let mut ask = |n| {
        client.send(request(n));
        client.response().text()
    };
    let first: Vec<String> = (0..32).map(&mut ask).collect();
    assert_eq!((0..32).map(&mut ask).collect::<Vec<_>>(), first, "{hash_on}");
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 3, "{hash_on}: {first:?}");
}

#[test]
fn hash_goes_by_header_cookie_or_uri() {
    let with = |field: String| format!("GET / HTTP/1.1\r\nHost: a.test\r\n{field}\r\n\r\n");
    assert_hashed("\"header:X-Tenant\"", |n| with(format!("x-tenant: t{n}")));
    assert_hashed("\"cookie:session\"", |n| with(format!("Cookie: other=1; session=s{n}; more={n}{n}")));
    assert_hashed("uri", |n| format!("GET /page?id={n} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
}

#[test]
fn hash_looks_at_nothing_else() {
    let fleet = Fleet::of(&["a", "b", "c"]);
    let sections = fleet.sections(plain, "hash_on: \"cookie:session\"", "load_balancer: hash");
    let proxy = Proxy::start(&[], &sections);
    let mut client = proxy.client();
    let answers: Vec<String> = (0..32)
        .map(|n| client.request("GET", "/who", &[("Cookie", &format!("session=same; n={n}"))], b"").text())
        .collect();
    assert_eq!(answers.iter().collect::<BTreeSet<_>>().len(), 1, "{answers:?}");
}

#[test]
fn hash_of_the_client_address_is_the_default() {
    let fleet = Fleet::of(&["a", "b", "c", "d"]);
    let proxy = start(&fleet, "hash", plain);
    let before = by_address(&proxy);
    assert_eq!(by_address(&proxy), before);
    assert!(before.iter().collect::<BTreeSet<_>>().len() == 4, "{before:?}");
}

#[test]
fn each_route_has_its_own_rule() {
    let fleet = Fleet::scripted(&["a", "b"], |id, exchange| exchange.answer(200, id.as_bytes()));
    let backends = fleet.backends(plain);
    let proxy = Proxy::start(
        &[],
        &format!(
            "{backends}routing: {{turns: {{upstream: default, load_balancer: round_robin}}, \
             sticks: {{path: /sticks, upstream: default, load_balancer: ip_hash}}}}\n"
        ),
    );
    let mut client = proxy.client();
    let mut ask = |path: &str| (0..10).map(|_| client.get(path).text()).collect::<Vec<_>>();
    assert_eq!(count(&ask("/turns"), "a"), 5);
    assert!(matches!(count(&ask("/sticks"), "a"), 0 | 10));
}

#[test]
fn the_protocol_decides_before_the_route() {
    let fleet = Fleet::scripted(&["a", "b"], |id, exchange| exchange.answer(200, id.as_bytes()));
    let route = "load_balancer: round_robin, \
                 protocols: {websocket: ip_hash, sse: ip_hash, grpc: ip_hash, http: round_robin, https: ip_hash}";
    let proxy = Proxy::start(&[], &fleet.sections(plain, "", route));
    let mut client = proxy.client();
    let mut ask = |fields: &[(&str, &str)]| {
        count(&(0..10).map(|_| client.request("GET", "/", fields, b"").text()).collect::<Vec<_>>(), "a")
    };
    let upgrade = [
        ("Connection", "upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
    ];
    assert_eq!(ask(&[]), 5, "http");
    assert_eq!(ask(&[("Accept", "text/html")]), 5, "http");
    assert!(matches!(ask(&upgrade), 0 | 10), "websocket");
    assert!(matches!(ask(&[("Accept", "text/html, text/event-stream;q=0.9")]), 0 | 10), "sse");
    assert!(matches!(ask(&[("Content-Type", "application/grpc+proto")]), 0 | 10), "grpc");
    assert_eq!(ask(&[]), 5, "http again, where it left off");
}

#[test]
fn a_full_backend_is_passed_over_by_every_rule() {
    for rule in ["ip_hash", "hash", "round_robin", "weight", "least_connections", "random_two"] {
        let fleet = Fleet::of(&["a", "b"]);
        let proxy = start(&fleet, rule, |_| "max_conn: 1");
        let held = hold(&proxy, &fleet, 1);
        let other = if fleet.requests() == [1, 0] { "b" } else { "a" };
        let mut client = proxy.client();
        for _ in 0..5 {
            wait::until(rule, || client.get("/who").text() == other);
        }
        open_gates(&fleet, &["a", "b"]);
        drop(held);
    }
}

// Backups.

#[test]
fn backups_serve_only_when_no_primary_is_left() {
    let fleet = Fleet::of(&["a", "b", "c"]);
    let keys = |down: &'static [&'static str]| {
        move |id: &str| match (id, down.contains(&id)) {
            ("c", _) => "backup: true",
            (_, true) => "active: false",
            (_, false) => "",
        }
    };
    let mut proxy = Proxy::start(&[], &fleet.sections(keys(&[]), "", ""));
    let mut client = proxy.client();
    assert_eq!(count(&who_all(&mut client, 20), "c"), 0);
    proxy.reload(&[], &fleet.sections(keys(&["a"]), "", ""));
    assert_eq!(count(&who_all(&mut client, 20), "b"), 20);
    proxy.reload(&[], &fleet.sections(keys(&["a", "b"]), "", ""));
    assert_eq!(count(&who_all(&mut client, 20), "c"), 20);
    proxy.reload(&[], &fleet.sections(keys(&["b"]), "", ""));
    assert_eq!(count(&who_all(&mut client, 20), "a"), 20);
}

#[test]
fn a_backup_is_not_for_when_primaries_are_full() {
    let fleet = Fleet::of(&["a", "b"]);
    let keys = |id: &str| if id == "b" { "backup: true" } else { "max_conn: 1" };
    let proxy = Proxy::start(&[], &fleet.sections(keys, "", ""));
    let held = hold(&proxy, &fleet, 1);
    assert_eq!(proxy.client().get("/who").status, 503, "being full is no illness");
    open_gates(&fleet, &["a"]);
    drop(held);
    wait_for_a_slot(&proxy);
}

// Sticky cookies.

const STICKY: &str = "sticky: {cookie: route, secret: sixteen-or-more-bytes}";
/// With a secret that the process makes itself.
const STICKY_BY_ITSELF: &str = "sticky: {cookie: route}";

/// `name=value` of the cookie that an answer sets.
fn cookie(answer: &Response) -> Option<String> {
    let line = answer.fields.one("set-cookie")?;
    Some(line.split(';').next().unwrap_or_default().to_owned())
}

fn get_with(client: &mut Client, cookie: &str) -> Response {
    client.request("GET", "/who", &[("Cookie", cookie)], b"")
}

#[test]
fn a_sticky_cookie_is_set_once_and_kept() {
    for sticky in [STICKY, STICKY_BY_ITSELF] {
        let fleet = Fleet::of(&["a", "b", "c"]);
        let proxy = Proxy::start(&[], &fleet.sections(plain, sticky, "load_balancer: round_robin"));
        let mut client = proxy.client();
        for _ in 0..3 {
            let first = client.get("/who");
            let line = first.fields.one("set-cookie").unwrap_or_default();
            assert!(line.starts_with("route=") && line.contains("; Path=/") && line.contains("; HttpOnly"), "{line}");
            assert!(!line.contains("Max-Age"), "no ttl: until the session ends; {line}");
            let own = cookie(&first).expect("a cookie");
            for _ in 0..6 {
                let answer = get_with(&mut client, &format!("x=1; {own}; y=2"));
                assert_eq!(answer.text(), first.text());
                assert!(answer.fields.one("set-cookie").is_none(), "it has one already");
            }
        }
    }
}

#[test]
fn a_forged_cookie_is_as_good_as_none() {
    let fleet = Fleet::of(&["a", "b"]);
    let proxy = Proxy::start(&[], &fleet.sections(plain, STICKY, "load_balancer: round_robin"));
    let mut client = proxy.client();
    let real = cookie(&client.get("/who")).expect("a cookie");
    let flipped = match real.strip_suffix('0') {
        Some(start) => format!("{start}1"),
        None => format!("{}0", &real[..real.len() - 1]),
    };
    for forged in [flipped.as_str(), "route=", "route=a", "route=0000000000000000.000000000000000000000000"] {
        let answers: Vec<Response> = (0..4).map(|_| get_with(&mut client, forged)).collect();
        assert!(answers.iter().all(|answer| cookie(answer).is_some()), "a real one instead of {forged}");
        let names: Vec<String> = answers.iter().map(Response::text).collect();
        assert_eq!(count(&names, "a"), 2, "{forged} binds to nobody");
    }
}

#[test]
fn a_cookie_for_a_backend_that_is_gone_is_replaced() {
    let fleet = Fleet::of(&["a", "b", "c"]);
    let route = "load_balancer: round_robin";
    let mut proxy = Proxy::start(&[], &fleet.sections(plain, STICKY, route));
    let mut client = proxy.client();
    let first = client.get("/who");
    let (own, old) = (first.text(), cookie(&first).expect("a cookie"));
    let without = |id: &str| if *id == own { "active: false" } else { "" };
    proxy.reload(&[], &fleet.sections(without, STICKY, route));
    let answer = get_with(&mut client, &old);
    let (other, new) = (answer.text(), cookie(&answer).expect("a new cookie"));
    assert_ne!(other, own);
    for _ in 0..6 {
        assert_eq!(get_with(&mut client, &new).text(), other);
    }
    proxy.reload(&[], &fleet.sections(plain, STICKY, route));
    assert_eq!(get_with(&mut client, &new).text(), other, "it stays, though the first is back");
    assert_eq!(get_with(&mut client, &old).text(), own, "the old cookie still means the first");
}

#[test]
fn a_cookie_for_a_backend_that_refuses_is_no_dead_end() {
    let fleet = Fleet::of(&["a", "b"]);
    let proxy = Proxy::start(&[], &fleet.sections(plain, STICKY, ""));
    let mut client = proxy.client();
    let first = client.get("/who");
    let own = cookie(&first).expect("a cookie");
    fleet.origin(&first.text()).kill();
    let answer = get_with(&mut client, &own);
    assert_eq!(answer.status, 200);
    assert_ne!(answer.text(), first.text());
    let moved = cookie(&answer).expect("a cookie that names who served it");
    assert_eq!(get_with(&mut client, &moved).text(), answer.text());
}

#[test]
fn a_cookies_life_is_its_ttl() {
    let fleet = Fleet::of(&["a"]);
    let upstream = "sticky: {cookie: route, ttl: 1h, secret: sixteen-or-more-bytes}";
    let proxy = Proxy::start(&[], &fleet.sections(plain, upstream, ""));
    let line = proxy.client().get("/who").fields.one("set-cookie").unwrap_or_default();
    assert!(line.contains("; Max-Age=3600"), "{line}");
}

// Counts.

#[test]
fn counts_survive_a_reload() {
    let fleet = Fleet::of(&["a", "b"]);
    let mut proxy = start(&fleet, "least_connections", |_| "max_conn: 2");
    let held = hold(&proxy, &fleet, 3);
    proxy.reload(&[], &fleet.sections(|_| "max_conn: 2", "", "load_balancer: round_robin"));
    let fourth = hold(&proxy, &fleet, 1);
    assert_eq!(fleet.requests(), [2, 2]);
    assert_eq!(proxy.client().get("/who").status, 503, "all four places are taken, as they were before");
    open_gates(&fleet, &["a", "b"]);
    for mut client in held.into_iter().chain(fourth) {
        assert_eq!(client.response().text(), "ok");
    }
    wait_for_a_slot(&proxy);
}
