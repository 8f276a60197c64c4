//! Bodies on their way through: large ones, slow ones, both ways at once, and ones that break off.
//!
//! Owns what a body must look like at the other end. Never looks at fields; `h1` does.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::origin::{self, Next, Origin};
use crate::proxy::{Proxy, sections};
use crate::wire::{self, Framing, Trouble};

const LARGE: usize = 12 << 20;
/// What kernels may hold of one stream on its way: two connections' buffers of both ends at their largest.
const KERNEL_BYTES_MAX: usize = 32 << 20;
const OK_CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Waits until `value` has not changed for a while, and returns it.
fn until_still(value: &AtomicUsize) -> usize {
    const QUIET: Duration = Duration::from_millis(300);
    let (mut last, mut since) = (value.load(Ordering::Relaxed), Instant::now());
    while since.elapsed() < QUIET {
        thread::park_timeout(Duration::from_millis(2));
        let now = value.load(Ordering::Relaxed);
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

/// Fails at the first byte that differs, without printing megabytes.
#[track_caller]
fn assert_same(got: &[u8], expected: &[u8]) {
    assert_eq!(got.len(), expected.len(), "the length");
    let differs = got.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!(differs, None, "where the first byte differs");
}

/// Answers with the pattern, framed as the path says.
fn large(exchange: &mut origin::Exchange) -> io::Result<Next> {
    exchange.body()?;
    let body = origin::pattern(LARGE);
    match exchange.path() {
        "/length" => exchange.answer(200, &body),
        "/chunked" => {
            exchange.send(OK_CHUNKED)?;
            exchange.finish(&wire::chunks(&body, 70_001))
        }
        _ => {
            exchange.send(b"HTTP/1.1 200 OK\r\n\r\n")?;
            exchange.finish(&body)?;
            Ok(Next::Close)
        }
    }
}

#[test]
fn large_answers_arrive_byte_for_byte_in_every_framing() {
    let origin = Origin::start(large);
    let proxy = Proxy::before(&origin);
    let expected = origin::pattern(LARGE);
    let mut client = proxy.client();
    for (path, framing) in
        [("/length", Framing::Length(LARGE as u64)), ("/chunked", Framing::Chunked), ("/close", Framing::Chunked)]
    {
        let answer = client.get(path);
        assert_eq!((answer.status, answer.framing), (200, framing), "{path}");
        assert_same(&answer.body, &expected);
    }
    for path in ["/length", "/chunked", "/close"] {
        let mut old = proxy.client();
        old.send(format!("GET {path} HTTP/1.0\r\nHost: a.test\r\n\r\n"));
        let answer = old.response();
        assert_ne!(answer.framing, Framing::Chunked, "{path}");
        assert_same(&answer.body, &expected);
        old.expect_end();
    }
}

#[test]
fn large_requests_arrive_byte_for_byte_in_every_framing() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::before(&origin);
    let body = origin::pattern(LARGE);
    let mut client = proxy.client();
    assert_eq!(client.request("POST", "/", &[], &body).status, 200);
    client.send(b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(wire::chunks(&body, 70_001));
    assert_eq!(client.response().status, 200);
    let mut old = proxy.client();
    old.send(format!("POST / HTTP/1.0\r\nHost: a.test\r\nContent-Length: {LARGE}\r\n\r\n"));
    old.send(&body);
    assert_eq!(old.response().status, 200);
    let seen = origin.requests();
    let framings: Vec<Framing> = seen.iter().map(|s| s.request.framing).collect();
    assert_eq!(framings, [Framing::Length(LARGE as u64), Framing::Chunked, Framing::Length(LARGE as u64)]);
    seen.iter().for_each(|s| assert_same(&s.body, &body));
}

#[test]
fn trailers_of_a_request_reach_the_backend() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.send(b"POST /echo HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n");
    client.send(b"5\r\nhello\r\n0\r\nX-Sum: 42\r\nX-Other: 7\r\n\r\n");
    assert_eq!(client.response().text(), "hello");
    let text = String::from_utf8_lossy(&origin.connections()[0].bytes).into_owned();
    let (_, after) = text.split_once("\r\n0\r\n").expect("a last chunk");
    assert!(after.contains("X-Sum: 42\r\n") && after.ends_with("\r\n\r\n"), "{text}");
}

#[test]
fn a_client_that_does_not_read_stops_the_backend() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = sent.clone();
    let total = 3 * KERNEL_BYTES_MAX;
    let origin = Origin::start(move |exchange| {
        exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n").as_bytes())?;
        for piece in origin::pattern(total).chunks(64 * 1024) {
            exchange.send(piece)?;
            counter.fetch_add(piece.len(), Ordering::Relaxed);
        }
        Ok(Next::KeepAlive)
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.send_get("/");
    assert_eq!(client.head().status, 200);
    let held = until_still(&sent);
    assert!(held < KERNEL_BYTES_MAX, "{held} bytes went out to a client that reads nothing");
    assert_same(&client.read(total), &origin::pattern(total));
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn a_backend_that_does_not_read_stops_the_client() {
    let origin = Origin::start(|exchange| {
        exchange.gate("read").pass()?;
        let body = exchange.body()?;
        exchange.answer(200, format!("{}", body.len()).as_bytes())
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    let body = origin::pattern(3 * KERNEL_BYTES_MAX);
    client.send(format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n", body.len()));
    client.bound(Duration::from_millis(500));
    let mut sent = 0;
    while let Ok(n) = client.wire.sock.write(&body[sent..]) {
        sent += n;
    }
    assert!(sent < KERNEL_BYTES_MAX, "{sent} bytes were taken for a backend that reads nothing");
    client.bound(origin::WATCHDOG);
    origin.gate("read").open();
    client.send(&body[sent..]);
    assert_eq!(client.response().text(), body.len().to_string());
    assert_same(&origin.only_request().body, &body);
}

#[test]
fn request_and_answer_run_at_the_same_time() {
    let origin = Origin::start(|exchange| {
        exchange.send(OK_CHUNKED)?;
        while let Some(data) = exchange.read_chunk()? {
            exchange.send(&wire::chunk(&data))?;
        }
        exchange.finish(b"0\r\n\r\n")
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.send(b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(client.head().framing, Framing::Chunked);
    for n in 1..200 {
        let said = origin::pattern(n * 37);
        client.send(wire::chunk(&said));
        let mut heard = Vec::new();
        while heard.len() < said.len() {
            heard.extend(client.wire.chunk().expect("a chunk").expect("more to come"));
        }
        assert_same(&heard, &said);
    }
    client.send(b"0\r\n\r\n");
    assert_eq!(client.wire.chunk().expect("the last chunk"), None);
}

#[test]
fn nobody_but_the_backend_says_continue() {
    let origin = Origin::start(|exchange| {
        exchange.gate("continue").pass()?;
        exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        let body = exchange.body()?;
        exchange.answer(200, &body)
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.send(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    origin.wait_for_requests(1);
    assert!(origin.only_request().request.fields.lists("expect", "100-continue"));
    client.bound(Duration::from_millis(200));
    let early = client.wire.response_head("POST");
    assert!(matches!(early, Err(Trouble::Quiet { .. })), "before the backend spoke: {early:?}");
    client.bound(origin::WATCHDOG);
    origin.gate("continue").open();
    assert_eq!(client.head().status, 100);
    client.send(b"hello");
    assert_eq!(client.response().text(), "hello");
    assert_eq!(proxy.stats().reasons.0.iter().sum::<u64>(), 0);
}

#[test]
fn a_final_answer_to_an_expectation_stops_the_upload() {
    let origin = Origin::start(|exchange| {
        exchange.send(b"HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\nno")?;
        exchange.hold()
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.send(b"PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 500000\r\nExpect: 100-continue\r\n\r\n");
    let answer = client.response();
    assert_eq!((answer.status, answer.text().as_str(), answer.interim.len()), (417, "no", 0));
    assert!(answer.fields.lists("connection", "close"), "{answer:?}");
    client.expect_end();
    origin.wait_for_silence();
    assert!(origin.requests()[0].body.is_empty());
}

#[test]
fn a_hundred_pipelined_requests_are_answered_in_order() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    let mut sent = Vec::new();
    for n in 0..100 {
        let body = format!("request {n}");
        match n % 3 {
            0 => sent.extend(format!("GET /size/{n} HTTP/1.1\r\nHost: a.test\r\n\r\n").bytes()),
            1 => {
                let head = "POST /echo HTTP/1.1\r\nHost: a.test\r\n";
                sent.extend(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).bytes());
            }
            _ => {
                sent.extend(b"POST /echo HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n");
                sent.extend(wire::chunks(body.as_bytes(), 4));
            }
        }
    }
    client.send(sent);
    for n in 0..100 {
        let expected = if n % 3 == 0 { origin::pattern(n) } else { format!("request {n}").into_bytes() };
        assert_eq!(client.response().body, expected, "answer {n}");
    }
    assert_eq!(origin.connections().len(), 1);
}

#[test]
fn an_answer_byte_by_byte_is_the_same_answer() {
    let whole = [
        &b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"[..],
        b"HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\n\r\n5;e=\"x\"\r\nhello\r\n6\r\n world\r\n0\r\nX-T: 2\r\n\r\n",
    ]
    .concat();
    let origin = Origin::start(move |exchange| {
        for byte in &whole {
            exchange.send(&[*byte])?;
        }
        Ok(Next::KeepAlive)
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    for _ in 0..3 {
        client.send(b"GET / HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\nConnection: TE\r\n\r\n");
        let answer = client.response();
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello world"));
        assert_eq!((answer.interim.len(), answer.fields.one("x-a").as_deref()), (1, Some("1")));
        assert_eq!(answer.trailers.one("x-t").as_deref(), Some("2"));
    }
    assert_eq!(origin.connections().len(), 1);
}

/// What a client reads of an answer that its backend breaks off: everything behind the head, and how it ended.
fn broken_off(head: &'static [u8], next: Next, version: &str) -> (Vec<u8>, Option<io::ErrorKind>) {
    let origin = Origin::start(move |exchange| {
        exchange.send(head)?;
        exchange.gate("break").pass()?;
        Ok(next)
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    // A whole answer ends its connection too, so that there is an end to wait for.
    client.send(format!("GET / {version}\r\nHost: a.test\r\nConnection: close\r\n\r\n"));
    assert_eq!(client.head().status, 200);
    // The break comes after what is there was read, as a reset may overtake it.
    let mut seen = client.read(5);
    origin.gate("break").open();
    let mut rest = Vec::new();
    let end = client.wire.sock.read_to_end(&mut rest).err().map(|e| e.kind());
    seen.extend_from_slice(client.wire.pending());
    seen.extend(rest);
    (seen, end)
}

#[test]
fn a_client_can_tell_a_broken_answer_from_a_whole_one() {
    let length = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello";
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let close = b"HTTP/1.1 200 OK\r\n\r\nhello";
    for next in [Next::Close, Next::Reset] {
        assert_eq!(broken_off(length, next, "HTTP/1.1").0, b"hello", "fewer bytes than announced");
        assert_eq!(broken_off(chunked, next, "HTTP/1.1").0, b"5\r\nhello\r\n", "no last chunk");
        // Without chunks only a reset tells.
        let (seen, end) = broken_off(chunked, next, "HTTP/1.0");
        assert_eq!((seen.as_slice(), end), (&b"hello"[..], Some(io::ErrorKind::ConnectionReset)));
    }
    // The end of the connection is the end of such an answer, a reset is not.
    assert_eq!(broken_off(close, Next::Close, "HTTP/1.1").0, b"5\r\nhello\r\n0\r\n\r\n");
    assert_eq!(broken_off(close, Next::Close, "HTTP/1.0"), (b"hello".to_vec(), None));
    assert_eq!(broken_off(close, Next::Reset, "HTTP/1.1").0, b"5\r\nhello\r\n");
    assert_eq!(broken_off(close, Next::Reset, "HTTP/1.0").1, Some(io::ErrorKind::ConnectionReset));
}

#[test]
fn an_early_answer_is_not_lost_while_the_client_goes_on_sending() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    let body = origin::pattern(200_000);
    client.send(b"POST /early HTTP/1.1\r\nHost: a.test\r\nContent-Length: 200000\r\n\r\n");
    client.send(&body[..1000]);
    let head = client.head();
    assert_eq!((head.status, head.framing), (200, Framing::Length(5)));
    // Every further write finds a peer that still takes it: there is no reset that could overtake the answer.
    body[1000..].chunks(10_000).for_each(|piece| client.send(piece));
    assert_eq!(client.read(5), b"early");
    client.finish_sending();
    client.expect_end();
}

#[test]
fn an_early_answer_outlasts_the_deadlines_of_the_upload() {
    let origin = Origin::start(|exchange| {
        exchange.send(b"HTTP/1.1 413 Large\r\nContent-Length: 10\r\n\r\n")?;
        for byte in b"012345678" {
            thread::park_timeout(Duration::from_millis(100));
            exchange.send(&[*byte])?;
        }
        exchange.finish(b"9")?;
        Ok(Next::Close)
    });
    let proxy = Proxy::start(&[("read_timeout", "300ms"), ("write_timeout", "300ms")], &sections(&origin, "", ""));
    // One client stops sending when it sees the answer, one goes on to a backend that doesn't read.
    for goes_on in [false, true] {
        let mut client = proxy.client();
        client.send(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 90000000\r\n\r\nstart");
        assert_eq!(client.head().status, 413);
        let mut sender = client.wire.sock.again().expect("a second handle");
        let feeding = thread::spawn(move || while goes_on && sender.write_all(&[b'x'; 65_536]).is_ok() {});
        assert_eq!(client.read(10), b"0123456789", "goes on sending: {goes_on}");
        drop(client.wire.sock.shutdown(std::net::Shutdown::Both));
        feeding.join().expect("the feeding thread");
    }
}

#[test]
fn an_answer_after_a_broken_upload_says_that_the_connection_closes() {
    let origin = Origin::start(|exchange| {
        exchange.gate("full").pass()?;
        exchange.finish(b"HTTP/1.1 413 Large\r\nContent-Length: 3\r\n\r\nbig")?;
        Ok(Next::Reset)
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.send(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 90000000\r\n\r\n");
    // Until the backend takes no more, so that the reset is what the upload meets next.
    client.bound(Duration::from_millis(500));
    while client.wire.sock.write(&[b'x'; 65_536]).is_ok() {}
    client.bound(origin::WATCHDOG);
    origin.gate("full").open();
    let answer = client.response();
    assert_eq!((answer.status, answer.text().as_str()), (413, "big"));
    assert!(answer.fields.lists("connection", "close"), "{answer:?}");
}

#[test]
fn the_end_is_told_at_once_and_little_is_read_after_it() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.send(b"POST /early HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000000\r\n\r\n");
    assert_eq!(client.response().text(), "early");
    // Half of the time that lingering may take: that is not what ends it.
    client.bound(Duration::from_secs(1));
    client.expect_end();
    client.bound(origin::WATCHDOG);
    let mut sent = 0;
    while sent < KERNEL_BYTES_MAX && client.try_send([b'x'; 65_536]).is_ok() {
        sent += 65_536;
    }
    assert!(sent < KERNEL_BYTES_MAX, "{sent} bytes were read after the end");
}

#[test]
fn a_client_that_never_ends_is_let_go_after_lingering() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::before(&origin);
    let mut client: Client = proxy.client();
    client.send(b"POST /early HTTP/1.1\r\nHost: a.test\r\nContent-Length: 200000\r\n\r\n");
    assert_eq!(client.response().text(), "early");
    proxy.wait_for_open(0);
}
