//! Every row of the table of answers that the proxy makes itself: status, `Proxy-Status`, and whether it closes.
//!
//! Owns no wait of its own: deadlines are short in the configuration, not in the test.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

use crate::client::Client;
use crate::origin::{self, Origin};
use crate::proxy::{Proxy, sections};
use crate::wire::Response;

/// The answer is the proxy's own, with this status and this RFC 9209 error type.
#[track_caller]
fn assert_reason(answer: &Response, status: u16, error: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let proxy_status = answer.fields.one("proxy-status").unwrap_or_default();
    assert!(proxy_status.contains(&format!("error={error}")), "{error} is not in {proxy_status:?}");
    assert!(!answer.body.is_empty(), "an answer of our own has a short body");
}

/// Starts a proxy in front of `by_path`, with keys of the server, the backend and the upstream.
fn start(server: &[(&str, &str)], backend: &str, upstream: &str) -> (Origin, Proxy) {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(server, &sections(&origin, backend, upstream));
    (origin, proxy)
}

/// Sends bytes and reads what they are answered.
fn ask(proxy: &Proxy, bytes: &[u8]) -> (Client, Response) {
    let mut client = proxy.client();
    client.send(bytes);
    let answer = client.response();
    (client, answer)
}

#[test]
fn a_malformed_request_is_400_and_the_connection_closes() {
    let (origin, proxy) = start(&[], "", "");
    for bad in [
        &b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    ] {
        let (mut client, answer) = ask(&proxy, bad);
        assert_reason(&answer, 400, "http_request_error");
        client.expect_end();
    }
    assert!(origin.requests().is_empty());
}

#[test]
fn a_malformed_chunk_is_400_and_ends_the_upload() {
    let (origin, proxy) = start(&[], "", "");
    let head = b"POST /echo HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (mut client, answer) = ask(&proxy, &[&head[..], b"5\r\nhello\r\nxyz\r\n"].concat());
    assert_reason(&answer, 400, "http_request_error");
    client.expect_end();
    origin.wait_for_silence();
}

#[test]
fn addresses_that_are_denied_get_403() {
    let origin = Origin::start(origin::by_path);
    let sections = format!(
        "backends: {{default: [{{host: 127.0.0.1, port: {}}}]}}\n\
         routing: {{default: {{upstream: default, deny: [127.0.0.0/8], allow: [127.0.0.7/32]}}}}\n",
        origin.port()
    );
    let proxy = Proxy::start(&[], &sections);
    assert_reason(&proxy.client().get("/"), 403, "http_request_denied");
    assert_eq!(Client::connect_from(Ipv4Addr::new(127, 0, 0, 7), proxy.addr()).get("/").status, 200);
}

#[test]
fn a_head_that_takes_too_long_is_408() {
    let (_origin, proxy) = start(&[("read_timeout", "200ms")], "", "");
    let (mut client, answer) = ask(&proxy, b"GET / HTTP/1.1\r\nHost: a.te");
    assert_reason(&answer, 408, "http_request_error");
    client.expect_end();
}

#[test]
fn a_body_that_stalls_is_408() {
    let (origin, proxy) = start(&[("read_timeout", "200ms")], "", "");
    let head = b"POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nhel";
    let (mut client, answer) = ask(&proxy, head);
    assert_reason(&answer, 408, "http_request_error");
    client.expect_end();
    origin.wait_for_silence();
}

#[test]
fn what_no_route_matches_is_404() {
    let origin = Origin::start(origin::by_path);
    let sections = format!(
        "backends: {{default: [{{host: 127.0.0.1, port: {}}}]}}\nrouting: {{api: {{path: /api, upstream: default}}}}\n",
        origin.port()
    );
    let proxy = Proxy::start(&[], &sections);
    let mut client = proxy.client();
    assert_reason(&client.get("/apix"), 404, "destination_not_found");
    assert_eq!(client.get("/api/x").status, 200);
}

#[test]
fn what_is_too_large_is_413_414_or_431() {
    let (_origin, proxy) = start(&[("max_body_bytes", "10"), ("max_header_bytes", "4KiB")], "", "");
    let long = |n: usize| "x".repeat(n);
    let head = "POST / HTTP/1.1\r\nHost: a.test\r\n";
    let (_, answer) = ask(&proxy, format!("{head}Content-Length: 11\r\n\r\n").as_bytes());
    assert_reason(&answer, 413, "http_request_error");
    let chunks = format!("{head}Transfer-Encoding: chunked\r\n\r\nb\r\n{}\r\n0\r\n\r\n", long(11));
    assert_reason(&ask(&proxy, chunks.as_bytes()).1, 413, "http_request_error");
    let target = format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n", long(9000));
    assert_reason(&ask(&proxy, target.as_bytes()).1, 414, "http_request_error");
    let field = format!("{head}X: {}\r\n\r\n", long(5000));
    assert_reason(&ask(&proxy, field.as_bytes()).1, 431, "http_request_error");
    let fields = format!("{head}{}\r\n", "X: y\r\n".repeat(101));
    assert_reason(&ask(&proxy, fields.as_bytes()).1, 431, "http_request_error");
}

#[test]
fn a_method_or_version_that_is_not_served_is_405_or_505() {
    let (_origin, proxy) = start(&[], "", "");
    let (_, answer) = ask(&proxy, b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n");
    assert_reason(&answer, 405, "http_request_error");
    assert!(answer.fields.one("allow").is_some(), "RFC 9110 section 15.5.6: a 405 lists what is allowed");
    let (_, answer) = ask(&proxy, b"GET / HTTP/3.0\r\nHost: a.test\r\n\r\n");
    assert_reason(&answer, 505, "http_request_error");
}

#[test]
fn what_a_backend_breaks_is_502() {
    let (origin, proxy) = start(&[], "", "retries: 0");
    let mut client = proxy.client();
    assert_reason(&client.get("/close"), 502, "connection_terminated");
    assert_reason(&proxy.client().get("/reset"), 502, "connection_terminated");
    assert_reason(&proxy.client().get("/garbage"), 502, "http_protocol_error");
    origin.kill();
    assert_reason(&proxy.client().get("/"), 502, "connection_refused");
}

#[test]
fn no_backend_to_use_is_503() {
    let (_origin, proxy) = start(&[], "active: false", "");
    assert_reason(&proxy.client().get("/"), 503, "destination_unavailable");
}

#[test]
fn backends_at_their_limit_are_503_in_words() {
    let (origin, proxy) = start(&[], "max_conn: 1", "");
    let mut first = proxy.client();
    first.send_get("/gate/go");
    origin.wait_for_in_flight(1);
    let answer = proxy.client().get("/");
    assert_reason(&answer, 503, "connection_limit_reached");
    assert!(answer.text().contains("Service Unavailable (All backends at connection limit)"), "{}", answer.text());
    origin.gate("go").open();
    assert_eq!(first.response().text(), "ok");
    assert_eq!(proxy.client().get("/").status, 200);
}

#[test]
fn a_full_queue_is_503_and_so_is_waiting_too_long() {
    let (origin, proxy) = start(&[], "max_conn: 1", "queue: {size: 1, timeout: 300ms}");
    let mut first = proxy.client();
    first.send_get("/gate/go");
    origin.wait_for_in_flight(1);
    let (mut second, mut third) = (proxy.client(), proxy.client());
    second.send_get("/");
    third.send_get("/");
    for answer in [second.response(), third.response()] {
        assert_reason(&answer, 503, "connection_limit_reached");
        assert!(answer.fields.one("retry-after").is_some(), "{answer:?}");
    }
    origin.gate("go").open();
    assert_eq!(first.response().text(), "ok");
}

#[test]
fn a_backend_that_takes_too_long_is_504() {
    let (_origin, proxy) = start(&[], "", "response_timeout: 200ms, retries: 0");
    assert_reason(&proxy.client().get("/never"), 504, "http_response_timeout");
}

#[test]
fn a_backend_that_takes_too_long_to_connect_is_504() {
    let full = FullListener::new();
    let sections = format!(
        "backends: {{default: [{{host: 127.0.0.1, port: {}}}]}}\n\
         upstreams: {{default: {{connect_timeout: 200ms, retries: 0}}}}\nrouting: {{default: {{upstream: default}}}}\n",
        full.addr.port()
    );
    let proxy = Proxy::start(&[], &sections);
    assert_reason(&proxy.client().get("/"), 504, "connection_timeout");
}

/// A listener that takes no further connection: its queue is full, so handshakes get no answer.
struct FullListener {
    addr: SocketAddr,
    _held: Vec<Socket>,
}

impl FullListener {
    fn new() -> FullListener {
        let new = || Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let listener = new();
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a port");
        listener.listen(1).expect("listening");
        let addr = listener.local_addr().expect("an address");
        let mut held = vec![listener];
        for _ in 0..8 {
            let socket = new();
            socket.set_nonblocking(true).expect("a non-blocking socket");
            // In progress, or lost: what matters is that the queue is full.
            let _ = socket.connect(&addr);
            held.push(socket);
        }
        FullListener { addr: addr.as_socket().expect("an IP address"), _held: held }
    }
}
