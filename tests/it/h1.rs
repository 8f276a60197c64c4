//! HTTP/1.1 through the proxy: framing, persistence, interim answers, what is added and what is removed.
//!
//! Never looks at routing or balancing; one route to one origin is enough here.

use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::origin::{self, Next, Origin};
use crate::proxy::{Proxy, sections};
use crate::wire::{self, Framing};

fn pair() -> (Origin, Proxy) {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::before(&origin);
    (origin, proxy)
}

#[test]
fn a_request_is_relayed_with_what_backends_need_to_know() {
    let (origin, proxy) = pair();
    let answer = proxy.client().request("GET", "/x?q=1", &[("X-Own", "kept")], b"");
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    assert_eq!(answer.fields.all("date").len(), 1);
    let request = origin.only_request().request;
    assert_eq!((request.target.as_str(), request.version.as_str()), ("/x?q=1", "HTTP/1.1"));
    let field = |name| request.fields.one(name);
    assert_eq!(field("host").as_deref(), Some("a.test"));
    assert_eq!(field("x-own").as_deref(), Some("kept"));
    assert_eq!(field("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(field("x-forwarded-proto").as_deref(), Some("http"));
    assert_eq!(field("x-forwarded-host").as_deref(), Some("a.test"));
    assert_eq!(field("x-real-ip").as_deref(), Some("127.0.0.1"));
    assert!(field("x-request-id").is_some_and(|id| id.len() >= 16), "{request:?}");
    assert!(field("via").is_some_and(|via| via.starts_with("1.1 ")), "{request:?}");
    assert_eq!(field("connection"), None);
}

#[test]
fn what_an_untrusted_client_says_of_itself_is_replaced() {
    let (origin, proxy) = pair();
    let lies = [
        ("X-Forwarded-For", "10.9.9.9"),
        ("X_Forwarded_For", "10.9.9.9"),
        ("X-Real-IP", "10.9.9.9"),
        ("Forwarded", "for=10.9.9.9"),
        ("X-Forwarded-Host", "evil.test"),
        ("X-Forwarded-Proto", "https"),
        ("X-Request-ID", "10.9.9.9"),
    ];
    proxy.client().request("GET", "/", &lies, b"");
    let request = origin.only_request().request;
    let raw = String::from_utf8_lossy(&request.raw).into_owned();
    assert!(!raw.contains("10.9.9.9") && !raw.contains("evil.test") && !raw.contains("https"), "{raw}");
}

#[test]
fn fields_of_one_hop_stay_on_it() {
    let origin = Origin::start(|exchange| {
        exchange.body()?;
        exchange.finish(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
              X-End: 1\r\n\r\nok",
        )
    });
    let proxy = Proxy::before(&origin);
    let hop = [("Connection", "x-hop, x-forwarded-for"), ("X-Hop", "1"), ("Proxy-Connection", "keep-alive")];
    let answer =
        proxy.client().request("GET", "/", &[&hop[..], &[("Keep-Alive", "300"), ("X-End", "1")]].concat(), b"");
    assert_eq!(answer.fields.one("x-end").as_deref(), Some("1"));
    let request = origin.only_request().request;
    assert_eq!(request.fields.one("x-end").as_deref(), Some("1"));
    assert_eq!(request.fields.all("x-forwarded-for"), ["127.0.0.1"]);
    for gone in ["x-hop", "keep-alive", "proxy-connection"] {
        assert_eq!(request.fields.one(gone), None, "{gone} went to the backend");
        assert_eq!(answer.fields.one(gone), None, "{gone} went to the client");
    }
}

#[test]
fn connections_of_both_sides_are_used_again() {
    let (origin, proxy) = pair();
    let mut client = proxy.client();
    (0..5).for_each(|_| assert_eq!(client.get("/").status, 200));
    assert_eq!(origin.requests().len(), 5);
    assert_eq!(origin.connections().len(), 1);
}

#[test]
fn a_connection_that_its_backend_gives_up_is_not_used_again() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"[..],
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        // Neither the rest of these nor what may be on its way is the next answer.
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more",
        b"HTTP/1.1 204 None\r\nContent-Length: 2\r\n\r\n",
    ] {
        // It stays open, so that nothing but the answer tells.
        let origin = Origin::start(move |exchange| exchange.finish(answer));
        let proxy = Proxy::before(&origin);
        let mut client = proxy.client();
        for _ in 0..2 {
            let got = client.get("/");
            assert_eq!((got.version.as_str(), got.status / 100), ("HTTP/1.1", 2), "{}", answer.escape_ascii());
        }
        assert_eq!(origin.connections().len(), 2, "{}", answer.escape_ascii());
    }
}

#[test]
fn content_of_every_size_arrives_whole_both_ways() {
    let (_origin, proxy) = pair();
    let mut client = proxy.client();
    for size in [0, 1, 100, 16 * 1024, 64 * 1024 + 1, 3_000_000] {
        let body = origin::pattern(size);
        assert_eq!(client.request("POST", "/echo", &[], &body).body, body, "{size} bytes with a length");
        client.send(b"POST /echo HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send(wire::chunks(&body, 10_007));
        assert_eq!(client.response().body, body, "{size} bytes in chunks");
    }
}

#[test]
fn a_request_byte_by_byte_is_one_request() {
    let (origin, proxy) = pair();
    let mut client = proxy.client();
    let head = b"POST /echo HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send_in_pieces(&[&head[..], b"3;x=\"y\"\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n"].concat(), 1);
    assert_eq!(client.response().text(), "abcde");
    assert_eq!(origin.only_request().body, b"abcde");
}

#[test]
fn answers_without_content_do_not_shift_the_next() {
    let (_origin, proxy) = pair();
    let mut client = proxy.client();
    let head = client.request("HEAD", "/size/1000", &[], b"");
    assert_eq!((head.framing, head.fields.one("content-length").as_deref()), (Framing::None, Some("1000")));
    assert_eq!(client.get("/size/3").body, origin::pattern(3));
    let origin = Origin::start(|exchange| {
        let status = exchange.path().trim_start_matches('/').to_owned();
        exchange.finish(format!("HTTP/1.1 {status} None\r\nETag: \"1\"\r\n\r\n").as_bytes())
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    for status in [204, 304, 204] {
        assert_eq!(client.get(&format!("/{status}")).status, status);
    }
}

#[test]
fn interim_answers_go_to_those_who_know_them() {
    let (_origin, proxy) = pair();
    let answer = proxy.client().get("/interim");
    assert_eq!(answer.interim.iter().map(|i| i.status).collect::<Vec<_>>(), [103]);
    assert!(answer.interim[0].fields.one("link").is_some());
    let mut old = proxy.client();
    old.send(b"GET /interim HTTP/1.0\r\nHost: a.test\r\n\r\n");
    let answer = old.response();
    assert_eq!((answer.status, answer.interim.len()), (200, 0));
    old.expect_end();
}

#[test]
fn an_old_client_gets_no_chunks() {
    let (_origin, proxy) = pair();
    let mut old = proxy.client();
    old.send(b"GET /chunked/3 HTTP/1.0\r\n\r\n");
    let answer = old.response();
    assert_eq!((answer.framing, answer.text().as_str()), (Framing::Close, "chunkchunkchunk"));
}

#[test]
fn an_old_client_that_asks_for_it_is_kept_but_where_only_the_end_tells() {
    let (_origin, proxy) = pair();
    let mut old = proxy.client();
    old.send(b"GET /size/3 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert!(old.response().fields.lists("connection", "keep-alive"));
    old.send(b"GET /chunked/3 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let answer = old.response();
    assert_eq!((answer.framing, answer.text().as_str()), (Framing::Close, "chunkchunkchunk"));
    assert!(answer.fields.lists("connection", "close"), "{answer:?}");
}

#[test]
fn interim_answers_without_end_are_no_answer() {
    let origin = Origin::start(|exchange| exchange.finish(&b"HTTP/1.1 103 Early\r\n\r\n".repeat(33)));
    let proxy = Proxy::before(&origin);
    let answer = proxy.client().get("/");
    assert_eq!((answer.status, answer.interim.len()), (502, 32));
}

#[test]
fn an_answer_that_ends_with_its_connection_is_delimited_for_the_client() {
    let (_origin, proxy) = pair();
    let mut client = proxy.client();
    assert_eq!(client.get("/until-close").text(), "until close");
    assert_eq!(client.get("/").text(), "ok");
}

#[test]
fn all_forms_of_targets_arrive_in_the_backends_form() {
    let (origin, proxy) = pair();
    let mut client = proxy.client();
    client.send(b"GET http://b.test/abs?q HTTP/1.1\r\nHost: b.test\r\n\r\n");
    client.response();
    client.send(b"OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n");
    client.response();
    client.get("/a/./b/../%7Euser/%2f//x?a=/../b");
    let targets: Vec<String> = origin.requests().into_iter().map(|seen| seen.request.target).collect();
    assert_eq!(targets, ["/abs?q", "*", "/a/~user/%2f//x?a=/../b"]);
    assert_eq!(origin.requests()[0].request.fields.one("host").as_deref(), Some("b.test"));
}

#[test]
fn the_end_of_a_client_ends_its_exchange_at_the_backend() {
    let (origin, proxy) = pair();
    let mut client = proxy.client();
    client.send_get("/never");
    origin.wait_for_in_flight(1);
    client.reset();
    origin.wait_for_in_flight(0);
}

#[test]
fn events_are_passed_on_when_they_come() {
    let (send, receive) = mpsc::channel::<Vec<u8>>();
    let receive = Mutex::new(receive);
    let origin = Origin::start(move |exchange| {
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")?;
        for event in receive.lock().map_err(|_| std::io::ErrorKind::Other)?.iter() {
            exchange.send(&event)?;
        }
        Ok(Next::Close)
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.send(b"GET / HTTP/1.1\r\nHost: a.test\r\nAccept: text/event-stream\r\n\r\n");
    assert_eq!(client.head().framing, Framing::Chunked);
    let mut round = || {
        let mut delays: Vec<Duration> = (0..EVENTS_COUNT).map(|n| event(&mut client, &send, n)).collect();
        delays.sort_unstable();
        delays[EVENTS_COUNT * 99 / 100]
    };
    // One round of ten: a machine that is busy for a while is no fault, an event that waits for another is in all.
    let p99s: Vec<Duration> = (0..10).map(|_| round()).take_while(|p99| *p99 >= Duration::from_millis(5)).collect();
    assert!(p99s.len() < 10, "p99 of an event's way: {p99s:?}");
}

const EVENTS_COUNT: usize = 500;

/// Has one event sent and reads it; how long that took.
fn event(client: &mut Client, send: &mpsc::Sender<Vec<u8>>, n: usize) -> Duration {
    let event = format!("data: {n:05}\n\n").into_bytes();
    let sent = Instant::now();
    send.send(event.clone()).expect("the origin listens");
    let mut got = Vec::new();
    while got.len() < event.len() {
        got.extend(client.wire.chunk().expect("a chunk").expect("not the last"));
    }
    assert_eq!(got, event);
    sent.elapsed()
}

#[test]
fn a_refusal_reaches_a_client_that_is_still_sending() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&[("max_body_bytes", "1KiB")], &sections(&origin, "", ""));
    let mut client = proxy.client();
    client.send(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 200000\r\n\r\n");
    client.send(origin::pattern(200_000));
    assert_eq!(client.response().status, 413);
    client.expect_end();
}
