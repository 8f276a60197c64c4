//! HTTP/2 to backends: HTTP/1.1 clients in front of an `h2c` origin. What goes over, on how many connections, and what
//! becomes of requests that the backend does not want.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use h2::Reason as Code;
use speedmimi::error::Reason;
use speedmimi::health::budget::RETRIES_ALWAYS;
use speedmimi::limits::TRUNKS_COUNT_MAX;

use crate::client::Client;
use crate::h2_origin::H2Origin;
use crate::origin::{self, Origin, pattern};
use crate::proxy::{Proxy, sections};
use crate::wait;
use crate::websocket;
use crate::wire::{Framing, Trouble, chunks};

fn before(origin: &H2Origin) -> Proxy {
    Proxy::start(&[], &origin.sections("", ""))
}

/// Waits for the count of answers with this reason.
#[track_caller]
fn counted(proxy: &Proxy, reason: Reason, count: u64) {
    wait::until(&format!("{count} {reason}"), || proxy.stats().reasons.of(reason) == count);
}

fn with_proxy() -> (H2Origin, Proxy) {
    let origin = H2Origin::start();
    let proxy = before(&origin);
    (origin, proxy)
}

/// What comes over.

#[test]
fn a_request_goes_to_an_http2_backend_and_its_answer_comes_back() {
    let (origin, proxy) = with_proxy();
    let mut client = proxy.client();
    let answer = client.get("/a?b=c");
    assert_eq!((answer.status, answer.text().as_str()), (200, "/a"));
    assert_eq!(answer.fields.one("x-a").as_deref(), Some("1"));
    let seen = origin.only();
    assert_eq!((seen.method.as_str(), seen.uri.as_str()), ("GET", "http://a.test/a?b=c"));
    assert_eq!(seen.headers["x-forwarded-host"], "a.test");
    for gone in ["connection", "host", "te", "transfer-encoding"] {
        assert!(!seen.headers.contains_key(gone), "{gone}");
    }
    assert_eq!(client.get("/again").text(), "/again");
    assert_eq!(origin.connections(), 1);
}

#[test]
fn answers_of_every_framing_come_whole() {
    let (_origin, proxy) = with_proxy();
    let mut client = proxy.client();
    for size in [0, 1, 16_384, 65_536, 1_000_000] {
        let answer = client.get(&format!("/size/{size}"));
        assert_eq!(answer.framing, Framing::Length(size as u64));
        assert!(answer.body == pattern(size), "{size}");
    }
    assert_eq!(client.get("/pieces/3").text(), "chunkchunkchunk");
    assert_eq!(client.get("/late-end").text(), "hello");
    assert_eq!(client.request("HEAD", "/size/9", &[], b"").fields.one("content-length").as_deref(), Some("9"));
    for status in [204, 304, 404, 599] {
        assert_eq!(client.get(&format!("/status/{status}")).status, status);
    }
    let interim = client.get("/interim");
    assert_eq!((interim.status, interim.interim[0].status), (200, 103));
    assert_eq!(interim.interim[0].fields.one("link").as_deref(), Some("</a>"));
}

#[test]
fn trailers_come_behind_the_answer_and_instead_of_one() {
    let (_origin, proxy) = with_proxy();
    let mut client = proxy.client();
    let answer = client.get("/trailers");
    assert_eq!((answer.text().as_str(), answer.trailers.one("x-sum").as_deref()), ("hello", Some("42")));
    assert_eq!(answer.trailers.one("grpc-status").as_deref(), Some("0"));
    let only = client.get("/trailers-only");
    assert_eq!((only.fields.one("grpc-status").as_deref(), only.body.len()), (Some("5"), 0));
}

#[test]
fn bodies_and_their_trailers_go_up() {
    let (origin, proxy) = with_proxy();
    let mut client = proxy.client();
    let body = pattern(300_000);
    assert!(client.request("POST", "/echo", &[], &body).body == body);
    let mut request =
        b"PUT /echo HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n".to_vec();
    let framed = chunks(&body, 1000);
    request.extend_from_slice(&framed[..framed.len() - 2]);
    request.extend_from_slice(b"X-Sum: 42\r\n\r\n");
    // The answer to the first began before its body was whole, so that its connection closed.
    let mut client = proxy.client();
    client.send(request);
    let answer = client.response();
    assert!(answer.body == body);
    assert_eq!(answer.trailers.one("x-sum").as_deref(), Some("42"));
    let bodies = origin.bodies();
    assert!(bodies.iter().all(|(came, _)| *came == body) && bodies.len() == 2);
    assert_eq!(bodies[1].1.as_ref().map(|trailers| &trailers["x-sum"]).unwrap(), "42");
    let seen = origin.seen();
    assert_eq!(seen[0].headers["content-length"], "300000");
    assert!(!seen[1].headers.contains_key("content-length"));
}

#[test]
fn grpc_is_said_to_take_trailers() {
    let (origin, proxy) = with_proxy();
    proxy.client().request("POST", "/echo", &[("Content-Type", "application/grpc")], b"hello");
    assert_eq!(origin.only().headers["te"], "trailers");
}

#[test]
fn small_windows_pass_everything_and_an_end_needs_none() {
    let origin = H2Origin::with(|builder| {
        builder.initial_window_size(5);
    });
    let proxy = before(&origin);
    let mut client = proxy.client();
    assert_eq!(client.request("POST", "/echo", &[], &pattern(2_000)).body, pattern(2_000));
    client.send("POST /echo HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    wait::until("the request", || origin.seen().len() == 2);
    client.send("0\r\n\r\n");
    assert_eq!(client.response().text(), "hello");
}

#[test]
fn an_early_answer_comes_whole_while_the_body_is_on_its_way() {
    let origin = H2Origin::with(|builder| {
        builder.initial_window_size(1_000);
    });
    let proxy = before(&origin);
    let mut client = proxy.client();
    client.send("POST /early HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000\r\n\r\n");
    client.send(pattern(100_000));
    let answer = client.response();
    assert_eq!((answer.status, answer.text().as_str()), (413, "early"));
    assert_eq!(proxy.client().get("/").status, 200);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_client_that_waits_for_leave_to_send_gets_it_from_the_backend() {
    let (origin, proxy) = with_proxy();
    let mut client = proxy.client();
    client.send("POST /continue HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(client.head().status, 100);
    client.send("hello");
    assert_eq!(client.response().text(), "hello");
    assert_eq!(origin.only().headers["expect"], "100-continue");
}

#[test]
fn a_cut_answer_is_not_taken_for_a_whole_one() {
    let (_origin, proxy) = with_proxy();
    for (path, count) in [("/short", 1), ("/short-end", 2)] {
        assert!(matches!(proxy.client().try_get(path), Err(Trouble::Ended { .. })), "{path}");
        counted(&proxy, Reason::BackendTruncated, count);
    }
}

#[test]
fn an_answer_that_breaks_the_rules_costs_its_client_alone() {
    let (origin, proxy) = with_proxy();
    let mut stays = proxy.client();
    stays.send_get("/gate");
    wait::until("the request", || origin.in_flight() == 1);
    for path in ["/too-long", "/big-head"] {
        match proxy.client().try_get(path) {
            Ok(answer) => assert_eq!(answer.status, 502, "{path}"),
            Err(trouble) => assert!(matches!(trouble, Trouble::Ended { .. }), "{path}: {trouble}"),
        }
    }
    origin.open_gate();
    assert_eq!(stays.response().status, 200);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn requests_share_a_connection_and_bodies_flow_beside_a_reader_who_stopped() {
    let (origin, proxy) = with_proxy();
    let mut stopped = proxy.client();
    stopped.send_get("/size/100000000");
    stopped.head();
    let mut clients: Vec<Client> = (0..20).map(|_| proxy.client()).collect();
    clients.iter_mut().for_each(|client| client.send_get("/gate"));
    wait::until("all at once", || origin.in_flight() == 21);
    let mut other = proxy.client();
    for _ in 0..20 {
        assert!(other.get("/size/300000").body == pattern(300_000));
    }
    origin.open_gate();
    clients.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_backend_that_takes_one_stream_at_once_gets_a_connection_for_each() {
    let origin = H2Origin::with(|builder| {
        builder.max_concurrent_streams(1);
    });
    let proxy = before(&origin);
    let mut clients: Vec<Client> = (0..5).map(|_| proxy.client()).collect();
    clients.iter_mut().for_each(|client| client.send_get("/gate"));
    wait::until("all at once", || origin.in_flight() == 5);
    assert_eq!(origin.connections(), 5);
    origin.open_gate();
    clients.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
    (0..20).for_each(|_| assert_eq!(clients[0].get("/").status, 200));
    assert_eq!(origin.connections(), 5);
}

#[test]
fn who_finds_all_connections_full_waits_for_a_stream() {
    let origin = H2Origin::with(|builder| {
        builder.max_concurrent_streams(1);
    });
    let proxy = Proxy::start(&[], &origin.sections("", "connect_timeout: 60s"));
    let (all, full) = (TRUNKS_COUNT_MAX + 20, TRUNKS_COUNT_MAX);
    let mut clients: Vec<Client> = (0..all).map(|_| proxy.client()).collect();
    clients.iter_mut().for_each(|client| client.send_get("/gate"));
    wait::until("as many as there may be", || origin.in_flight() == full);
    // Some of those who wait leave: the others get the room all the same.
    clients.drain(full..full + 10);
    proxy.wait_for_open(all as u64 - 10);
    wait::until("all of them", || {
        origin.open_gate();
        origin.seen().len() >= all - 10 && origin.in_flight() == 0
    });
    clients.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
    assert_eq!(origin.connections(), full);
}

#[test]
fn who_waits_in_vain_for_a_stream_blames_nobody() {
    let origin = H2Origin::with(|builder| {
        builder.max_concurrent_streams(1);
    });
    let proxy = Proxy::start(&[], &origin.sections("", "connect_timeout: 2s"));
    let mut clients: Vec<Client> = (0..TRUNKS_COUNT_MAX).map(|_| proxy.client()).collect();
    clients.iter_mut().for_each(|client| client.send_get("/gate"));
    wait::until("as many as there may be", || origin.in_flight() == TRUNKS_COUNT_MAX);
    assert_eq!(proxy.client().get("/").status, 503);
    counted(&proxy, Reason::BackendsFull, 1);
    origin.open_gate();
    clients.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
}

#[test]
fn a_refused_request_is_asked_again_on_no_connection_that_was_open_before() {
    let origin = H2Origin::with(|builder| {
        builder.max_concurrent_streams(1);
    });
    let proxy = before(&origin);
    let mut clients = [proxy.client(), proxy.client()];
    clients.iter_mut().for_each(|client| client.send_get("/gate"));
    wait::until("both", || origin.in_flight() == 2);
    origin.open_gate();
    clients.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
    assert_eq!(clients[0].get("/refuse-first").status, 200);
    assert_eq!(origin.seen().last().map(|seen| seen.connection), Some(2));
}

#[test]
fn max_conn_counts_exchanges_whatever_carries_them() {
    let origin = H2Origin::start();
    let proxy = Proxy::start(&[], &origin.sections("max_conn: 3", ""));
    let mut clients: Vec<Client> = (0..3).map(|_| proxy.client()).collect();
    clients.iter_mut().for_each(|client| client.send_get("/gate"));
    wait::until("three", || origin.in_flight() == 3);
    assert_eq!(proxy.client().get("/").status, 503);
    origin.open_gate();
    clients.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
    assert_eq!(proxy.client().get("/").status, 200);
    assert_eq!(origin.in_flight_max(), 3);
}

#[test]
fn idle_connections_close() {
    for keys in ["keepalive_timeout: 200ms", "keepalive: 0"] {
        let origin = H2Origin::start();
        let proxy = Proxy::start(&[], &origin.sections("", keys));
        assert_eq!(proxy.client().get("/").status, 200);
        wait::until("the connection's end", || origin.connections_open() == 0);
        assert_eq!(proxy.client().get("/").status, 200);
        assert_eq!(origin.connections(), 2, "{keys}");
    }
}

#[test]
fn a_backend_that_goes_with_a_reload_ends_what_it_began() {
    let (origin, other) = (H2Origin::start(), H2Origin::start());
    let mut proxy = before(&origin);
    let mut client = proxy.client();
    client.send_get("/gate");
    wait::until("the request", || origin.in_flight() == 1);
    proxy.reload(&[], &other.sections("", ""));
    assert_eq!(proxy.client().get("/").status, 200);
    assert_eq!((origin.connections_open(), other.connections()), (1, 1));
    origin.open_gate();
    assert_eq!(client.response().status, 200);
    wait::until("the connection's end", || origin.connections_open() == 0);
}

/// What the backend does not want.

#[test]
fn a_refused_request_is_asked_again_whatever_its_method() {
    let (origin, proxy) = with_proxy();
    let answer = proxy.client().request("POST", "/refuse-first", &[], b"content");
    assert_eq!((answer.status, answer.text().as_str()), (200, "/refuse-first"));
    let seen = origin.seen();
    assert_eq!(seen.len(), 2);
    assert_ne!(seen[0].connection, seen[1].connection, "the connection that refused its only request");
    assert_eq!(proxy.stats().reasons.of(Reason::BackendRefused), 0);
}

#[test]
fn a_request_that_is_always_refused_gets_a_502() {
    let origin = H2Origin::start();
    let proxy = Proxy::start(&[], &origin.sections("", "retries: 0"));
    let answer = proxy.client().request("POST", "/refuse", &[], b"");
    assert_eq!(answer.status, 502);
    assert!(answer.fields.one("proxy-status").is_some_and(|text| text.contains("refused the request unseen")));
    counted(&proxy, Reason::BackendRefused, 1);
    assert_eq!(origin.seen().len(), 2);
}

#[test]
fn a_backend_that_refuses_everything_is_not_asked_twice_as_much() {
    let origin = H2Origin::start();
    let proxy = Proxy::start(&[], &origin.sections("", "retries: 0"));
    let (mut client, requests) = (proxy.client(), 2 * RETRIES_ALWAYS as usize);
    for _ in 0..requests {
        assert_eq!(client.request("POST", "/refuse", &[], b"").status, 502);
    }
    let asked = origin.seen().len();
    assert!((requests..2 * requests).contains(&asked), "{asked} times for {requests} requests");
}

#[test]
fn a_reset_request_is_asked_again_only_if_it_may_be() {
    let origin = H2Origin::start();
    let proxy = Proxy::start(&[], &origin.sections("", "retries: 1"));
    assert_eq!(proxy.client().request("POST", "/reset", &[], b"content").status, 502);
    assert_eq!(origin.seen().len(), 1);
    // By the rules of retries alone: the connection is as good as before.
    assert_eq!(proxy.client().get("/reset").status, 502);
    assert_eq!(origin.seen().len(), 3);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn no_request_is_lost_when_connections_go_away() {
    let (origin, proxy) = with_proxy();
    let (is_over, addr) = (Arc::new(AtomicBool::new(false)), proxy.addr());
    let load: Vec<_> = (0..8)
        .map(|_| {
            let is_over = is_over.clone();
            thread::spawn(move || {
                let mut client = Client::connect(addr);
                let mut requests = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let answer = client.request("POST", "/echo", &[], b"content");
                    assert_eq!((answer.status, answer.text().as_str()), (200, "content"));
                    requests += 1;
                }
                requests
            })
        })
        .collect();
    for round in 1..=20 {
        wait::until("another connection", || {
            origin.go_away();
            origin.connections() > round
        });
    }
    is_over.store(true, Ordering::Relaxed);
    let requests: usize = load.into_iter().map(|thread| thread.join().expect("no request lost")).sum();
    assert!(requests > 20 && origin.seen().len() == requests, "{requests} requests");
}

/// A frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Takes frames until the head of a request.
fn head_of_a_request(stream: &mut TcpStream) {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).expect("a preface");
    stream.write_all(&frame(4, 0, 0, &[])).expect("settings sent");
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).expect("a frame");
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).expect("a whole frame");
        match (head[3], head[4]) {
            (1, _) => return,
            (4, 0) => stream.write_all(&frame(4, 1, 0, &[])).expect("settings taken"),
            _ => {}
        }
    }
}

/// Carries the next connection to an origin that answers, up to its end.
fn carry(listener: &TcpListener, origin: &H2Origin) {
    let (mut from, _) = listener.accept().expect("another connection");
    let mut to = TcpStream::connect((Ipv4Addr::LOCALHOST, origin.port())).expect("the origin");
    let (mut back_from, mut back_to) = (to.try_clone().unwrap(), from.try_clone().unwrap());
    thread::spawn(move || std::io::copy(&mut back_from, &mut back_to));
    let _ = std::io::copy(&mut from, &mut to);
}

#[test]
fn a_request_that_a_goaway_leaves_out_is_asked_again_even_if_it_was_sent() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (origin, keys) = (H2Origin::start(), "scheme: h2c");
    let proxy = Proxy::start(
        &[],
        &format!(
            "backends: {{default: [{{id: a, host: 127.0.0.1, port: {port}, {keys}}}]}}\n\
             routing: {{default: {{upstream: default}}}}\n"
        ),
    );
    let relay = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the first connection");
        head_of_a_request(&mut stream);
        // The last stream that it cares for is none.
        stream.write_all(&frame(7, 0, 0, &[0; 8])).expect("a GOAWAY");
        carry(&listener, &origin);
        (stream, origin)
    });
    let answer = proxy.client().request("POST", "/echo", &[], b"content");
    assert_eq!((answer.status, answer.text().as_str()), (200, "content"));
    assert_eq!(proxy.stats().reasons.of(Reason::BackendRefused), 0);
    proxy.shutdown();
    let (_, origin) = relay.join().expect("the relay's end");
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn a_connection_that_takes_no_more_streams_ends_what_it_has() {
    // SETTINGS_MAX_CONCURRENT_STREAMS of 0; and a GOAWAY behind the first stream that says that something is wrong.
    let (none, fault) = ([0, 3, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0, 0, 2]);
    for said in [frame(4, 0, 0, &none), frame(7, 0, 0, &fault)] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let origin = H2Origin::start();
        let sections = origin.sections("", "").replace(&origin.port().to_string(), &port.to_string());
        let proxy = Proxy::start(&[], &sections);
        let relay = thread::spawn(move || {
            let (mut first, _) = listener.accept().expect("the first connection");
            head_of_a_request(&mut first);
            let answer = frame(1, 5, 1, &[0x89]);
            first.write_all(&[said, answer].concat()).expect("an answer without content");
            carry(&listener, &origin);
            (first, origin)
        });
        let mut client = proxy.client();
        assert_eq!(client.get("/").status, 204);
        assert_eq!(client.request("POST", "/echo", &[], b"content").text(), "content");
        assert_eq!(proxy.stats().retries, 0, "it was not asked");
        proxy.shutdown();
        relay.join().expect("the relay's end");
    }
}

#[test]
fn a_connection_that_went_silent_gets_no_other_request() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let origin = H2Origin::start();
    let sections = origin.sections("", "response_timeout: 1500ms, retries: 0");
    let port = listener.local_addr().expect("an address").port();
    let proxy = Proxy::start(&[], &sections.replace(&origin.port().to_string(), &port.to_string()));
    let relay = thread::spawn(move || {
        let (mut silent, _) = listener.accept().expect("the first connection");
        head_of_a_request(&mut silent);
        silent.write_all(&frame(1, 5, 1, &[0x89])).expect("an answer without content");
        carry(&listener, &origin);
        (silent, origin)
    });
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 204);
    assert_eq!(client.get("/").status, 504);
    assert_eq!(client.get("/").status, 200);
    proxy.shutdown();
    relay.join().expect("the relay's end");
}

#[test]
fn answers_that_are_malformed_are_none() {
    let (status_204, status_304) = (frame(1, 4, 1, &[0x89]), frame(1, 4, 1, &[0x8b]));
    let no_status = frame(1, 5, 1, &[0, 1, b'x', 1, b'1']);
    let data = frame(0, 1, 1, b"x");
    for answer in [[status_204, data.clone()].concat(), [status_304, data].concat(), no_status] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let proxy = Proxy::start(
            &[],
            &format!(
                "backends: {{default: [{{host: 127.0.0.1, port: {port}, scheme: h2c}}]}}\n\
                 upstreams: {{default: {{retries: 0}}}}\nrouting: {{default: {{upstream: default}}}}\n"
            ),
        );
        let backend = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            head_of_a_request(&mut stream);
            stream.write_all(&answer).expect("an answer sent");
            stream
        });
        assert_eq!(proxy.client().get("/").status, 502);
        drop(backend.join().expect("the backend's end"));
    }
}

#[test]
fn frames_that_say_nothing_cost_nobody_an_answer() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let proxy = Proxy::start(
        &[],
        &format!(
            "backends: {{default: [{{host: 127.0.0.1, port: {port}, scheme: h2c}}]}}\n\
             routing: {{default: {{upstream: default}}}}\n"
        ),
    );
    let backend = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        head_of_a_request(&mut stream);
        let mut answer = frame(1, 4, 1, &[0x88]);
        (0..300).for_each(|_| answer.extend(frame(0, 0, 1, b"")));
        answer.extend(frame(0, 1, 1, b"hello"));
        stream.write_all(&answer).expect("an answer sent");
        stream
    });
    let answer = proxy.client().get("/");
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    drop(backend.join().expect("the backend's end"));
}

#[test]
fn a_client_that_leaves_cancels_its_stream_alone() {
    let (origin, proxy) = with_proxy();
    let mut stays = proxy.client();
    stays.send_get("/gate");
    for path in ["/hang", "/hang-after-head"] {
        let before = origin.resets().len();
        let mut leaves = proxy.client();
        leaves.send_get(path);
        wait::until("the request", || origin.in_flight() == 2);
        if path == "/hang-after-head" {
            leaves.head();
        }
        let left = Instant::now();
        drop(leaves);
        wait::until("the reset", || origin.resets().len() > before);
        let reset = origin.resets()[before].clone();
        assert_eq!(reset.code, Some(Code::CANCEL), "{path}");
        let took = reset.at.duration_since(left);
        // No judgement of speed, which `cancel` makes: one that is found out by chance is found out later.
        assert!(took < Duration::from_secs(3), "{path}: {took:?}");
        wait::until("the script's end", || origin.in_flight() == 1);
    }
    origin.open_gate();
    assert_eq!(stays.response().status, 200);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn who_does_not_speak_http2_is_told_from_who_says_nothing() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&[], &sections(&origin, "scheme: h2c", "retries: 0"));
    assert_eq!(proxy.client().get("/").status, 502);
    counted(&proxy, Reason::BackendProtocol, 1);

    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = silent.local_addr().expect("an address").port();
    let silent_sections = format!(
        "backends: {{default: [{{host: 127.0.0.1, port: {port}, scheme: h2c}}]}}\n\
         upstreams: {{default: {{connect_timeout: 100ms, retries: 0}}}}\nrouting: {{default: {{upstream: default}}}}\n"
    );
    let proxy = Proxy::start(&[], &silent_sections);
    assert_eq!(proxy.client().get("/").status, 504);
    counted(&proxy, Reason::ConnectTimeout, 1);
}

/// Tunnels.

#[test]
fn a_websocket_is_carried_by_extended_connect() {
    let origin = H2Origin::with(|builder| {
        builder.enable_connect_protocol();
    });
    let proxy = before(&origin);
    let mut client = proxy.client();
    client.upgrade("/ws");
    for length in [0, 1, 126, 65_536, 300_000] {
        let payload = pattern(length);
        client.send_frame(websocket::BINARY, &payload);
        // The origin sends back what it got, mask and all; `read_frame` takes it off.
        assert!(client.read_frame() == websocket::Frame { opcode: websocket::BINARY, payload }, "{length}");
    }
    let seen = origin.only();
    assert_eq!((seen.method.as_str(), seen.protocol.as_deref()), ("CONNECT", Some("websocket")));
    assert_eq!(seen.headers["sec-websocket-version"], "13");
    assert!(!seen.headers.contains_key("sec-websocket-key") && !seen.headers.contains_key("upgrade"));
    // That its request has no body is no matter of the tunnel.
    let mut other = proxy.client();
    let handshake = String::from_utf8(websocket::request("/ws")).expect("a text");
    other.send(handshake.replacen("\r\n", "\r\nContent-Length: 0\r\n", 1));
    assert_eq!(other.head().status, 101);
    other.send_frame(websocket::BINARY, b"hello");
    assert_eq!(other.read_frame().payload, b"hello");
    drop(other);
    wait::until("the other tunnel's end", || origin.in_flight() == 1);
    // Either side's end is passed on.
    client.finish_sending();
    client.expect_end();
    wait::until("the tunnel's end", || origin.in_flight() == 0);
    assert_eq!(proxy.client().get("/").status, 200);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_backend_without_extended_connect_is_not_blamed_for_it() {
    let (origin, proxy) = with_proxy();
    for _ in 0..10 {
        let mut client = proxy.client();
        client.send(websocket::request("/ws"));
        let answer = client.response();
        assert_eq!(answer.status, 502);
        assert!(answer.fields.one("proxy-status").is_some_and(|text| text.contains("no WebSocket over HTTP/2")));
    }
    counted(&proxy, Reason::UpgradeUnsupported, 10);
    assert_eq!(proxy.client().get("/").status, 200);
    assert_eq!(origin.seen().len(), 1);
}

/// Checks.

#[test]
fn health_is_checked_over_http2() {
    let origin = H2Origin::start();
    origin.set_health(200);
    let check = "health_check: {interval: 50ms, failures: 1, successes: 1}";
    let proxy = Proxy::start(&[], &origin.sections(check, ""));
    let status = || proxy.client().get("/").status;
    wait::until("a check", || origin.seen().iter().any(|seen| seen.uri.ends_with("/health")));
    assert_eq!(status(), 200);
    origin.set_health(500);
    wait::until("down", || status() == 503);
    origin.set_health(204);
    wait::until("up", || status() == 200);
}

#[test]
fn health_is_asked_by_the_protocol_of_grpc() {
    let origin = H2Origin::start();
    origin.set_health(1);
    let check = "health_check: {type: grpc, service: a.B, interval: 50ms, failures: 1, successes: 1}";
    let proxy = Proxy::start(&[], &origin.sections(check, ""));
    let status = || proxy.client().get("/").status;
    wait::until("a check", || origin.service() == "a.B");
    assert_eq!(status(), 200);
    for unfit in [2, 0] {
        origin.set_health(unfit);
        wait::until("down", || status() == 503);
        origin.set_health(1);
        wait::until("up", || status() == 200);
    }
    let seen = origin.seen().into_iter().find(|seen| seen.uri.ends_with("/Check")).expect("a check");
    assert_eq!((seen.method.as_str(), &seen.headers["content-type"]), ("POST", &"application/grpc".parse().unwrap()));
}
