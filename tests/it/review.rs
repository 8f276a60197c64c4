//! Regressions that a review found, each named after what went wrong.
//!
//! Never tests what another module tests already.

use crate::origin::{self, Origin};
use crate::proxy::{Proxy, sections};

const TRUSTING: [(&str, &str); 3] =
    [("proxy_protocol", "accept"), ("trusted_proxies", "[127.0.0.0/8, 203.0.113.0/24]"), ("park_after", "100ms")];

fn real_ip(origin: &Origin) -> Option<String> {
    origin.only_request().request.fields.one("x-real-ip")
}

/// Waits until the connection is in the parking lot.
fn wait_for_parked(proxy: &Proxy) {
    proxy.wait_until("a parked connection", |totals| totals.connections_parked == 1);
}

#[test]
fn a_proxy_header_is_taken_once_however_long_the_request_takes_to_come() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&TRUSTING, &sections(&origin, "", ""));
    let mut client = proxy.client();
    // The address it names is trusted itself: another header from there would be believed.
    client.send(b"PROXY TCP4 203.0.113.7 192.0.2.1 4000 80\r\n");
    wait_for_parked(&proxy);
    assert_eq!(client.get("/").status, 200);
    assert_eq!(real_ip(&origin).as_deref(), Some("203.0.113.7"));
}

#[test]
fn a_request_of_somebody_else_than_the_trusted_proxy_is_answered_at_once() {
    let origin = Origin::start(origin::by_path);
    let server = [("proxy_protocol", "accept"), ("trusted_proxies", "[192.0.2.0/24]")];
    let proxy = Proxy::start(&server, &sections(&origin, "", ""));
    assert_eq!(proxy.client().get("/").status, 200);
}

#[test]
fn the_time_for_a_head_begins_with_its_first_byte() {
    let origin = Origin::start(origin::by_path);
    let server = [("read_timeout", "400ms"), ("park_after", "30s")];
    let proxy = Proxy::start(&server, &sections(&origin, "", ""));
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 200);
    // Idle for longer than a head may take; nothing to wait for but time.
    std::thread::sleep(std::time::Duration::from_millis(900));
    client.send(b"GET / HT");
    std::thread::sleep(std::time::Duration::from_millis(50));
    client.send(b"TP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(client.response().status, 200);
}
