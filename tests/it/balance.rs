//! Balancing over real sockets: that the configured rule is the one that decides, and by what.
//!
//! Never checks distributions closely; the rules are pure and held to their weights where they are.

use std::net::Ipv4Addr;

use crate::client::Client;
use crate::origin::{self, Origin};
use crate::proxy::{Proxy, balanced};

fn origins(n: usize) -> Vec<Origin> {
    (0..n).map(|_| Origin::start(origin::by_path)).collect()
}

/// How many requests each has got.
fn counts(origins: &[Origin]) -> Vec<usize> {
    origins.iter().map(|origin| origin.requests().len()).collect()
}

/// Which of them got one more since.
fn grown(origins: &[Origin], before: &[usize]) -> usize {
    let after = counts(origins);
    after.iter().zip(before).position(|(after, before)| after > before).expect("one of them was asked")
}

/// The backend that a client at that address is sent to.
fn chosen(proxy: &Proxy, origins: &[Origin], client: u8) -> usize {
    let before = counts(origins);
    assert_eq!(Client::connect_from(Ipv4Addr::new(127, 0, 1, client), proxy.addr()).get("/").status, 200);
    grown(origins, &before)
}

#[test]
fn weights_are_kept_exactly() {
    let origins = origins(3);
    let backends = [(&origins[0], "weight: 5"), (&origins[1], "weight: 3"), (&origins[2], "weight: 2")];
    let proxy = Proxy::start(&[], &balanced(&backends, "", "load_balancer: weight"));
    let mut client = proxy.client();
    (0..100).for_each(|_| assert_eq!(client.get("/").status, 200));
    assert_eq!(counts(&origins), [50, 30, 20]);
}

#[test]
fn the_least_busy_backend_is_chosen() {
    let origins = origins(2);
    let backends = [(&origins[0], ""), (&origins[1], "")];
    let proxy = Proxy::start(&[], &balanced(&backends, "", "load_balancer: least_connections"));
    let mut held = proxy.client();
    held.send_get("/gate/go");
    let busy = (0..).find(|n| origins[n % 2].in_flight() == 1).expect("one of them") % 2;
    (0..10).for_each(|_| assert_eq!(proxy.client().get("/").status, 200));
    assert_eq!((origins[busy].requests().len(), origins[1 - busy].requests().len()), (1, 10));
    origins[busy].gate("go").open();
    assert_eq!(held.response().status, 200);
}

#[test]
fn only_the_gone_backends_clients_move_under_ip_hash() {
    let origins = origins(4);
    let backends = |gone: &'static str| -> Vec<(&Origin, &str)> {
        origins.iter().enumerate().map(|(at, origin)| (origin, if at == 2 { gone } else { "" })).collect()
    };
    let route = "load_balancer: ip_hash";
    let mut proxy = Proxy::start(&[], &balanced(&backends(""), "", route));
    let before: Vec<usize> = (1..=60).map(|client| chosen(&proxy, &origins, client)).collect();
    assert!((0..4).all(|at| before.contains(&at)), "sixty clients leave no backend out: {before:?}");
    proxy.reload(&[], &balanced(&backends("active: false"), "", route));
    for (client, was) in (1..=60).zip(before) {
        let is = chosen(&proxy, &origins, client);
        assert!(if was == 2 { is != 2 } else { is == was }, "client {client} went from {was} to {is}");
    }
}

#[test]
fn protocols_have_rules_of_their_own() {
    let origins = origins(3);
    let backends: Vec<(&Origin, &str)> = origins.iter().map(|origin| (origin, "")).collect();
    let route = "load_balancer: round_robin, protocols: {websocket: ip_hash}";
    let proxy = Proxy::start(&[], &balanced(&backends, "", route));
    let upgrade = || {
        let before = counts(&origins);
        proxy.client().upgrade("/ws");
        grown(&origins, &before)
    };
    let first = upgrade();
    assert!((0..5).all(|_| upgrade() == first));
    let before = counts(&origins);
    (0..3).for_each(|_| assert_eq!(proxy.client().get("/").status, 200));
    assert!(counts(&origins).iter().zip(before).all(|(after, before)| *after == before + 1));
}

#[test]
fn the_sticky_cookie_names_the_backend_and_no_other() {
    let origins = origins(3);
    let backends: Vec<(&Origin, &str)> = origins.iter().map(|origin| (origin, "")).collect();
    let proxy = Proxy::start(&[], &balanced(&backends, "sticky: {cookie: lb}", "load_balancer: round_robin"));
    let before = counts(&origins);
    let answer = proxy.client().get("/");
    let first = grown(&origins, &before);
    let cookie = answer.fields.one("set-cookie").expect("a cookie");
    let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
    assert!(cookie.starts_with("lb="), "{cookie}");
    for _ in 0..6 {
        let before = counts(&origins);
        proxy.client().request("GET", "/", &[("Cookie", &cookie)], b"");
        assert_eq!(grown(&origins, &before), first);
    }
    // A forged one is nobody's: the rule decides, so three requests reach three backends.
    let before = counts(&origins);
    let forged = format!("{}x", &cookie[..cookie.len() - 1]);
    (0..3).for_each(|_| drop(proxy.client().request("GET", "/", &[("Cookie", &forged)], b"")));
    assert!(counts(&origins).iter().zip(before).all(|(after, before)| *after == before + 1));
}
