//! The load generator against the origin over TLS and HTTP/2: every request is answered, every failure is counted as what
//! it is, and neither end takes for granted what the other sends.

use speedmimi_bench::cert::Pair;
use speedmimi_bench::h2::client::{Client, Job};
use speedmimi_bench::h2::frame::{self, flag, kind};
use speedmimi_bench::h2::hpack;
use speedmimi_bench::h2::server::{Answer, Event, Server};
use speedmimi_bench::load::{self, Counts, Report};
use speedmimi_bench::net::Received;
use speedmimi_bench::origin::{Options, Origin, Spoil};
use speedmimi_bench::tls;
use speedmimi_bench::traffic::Traffic;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

const REQUESTS: u64 = 1_000;

fn origin(change: impl FnOnce(&mut Options)) -> Origin {
    let mut options = Options { http2: true, ..Options::default() };
    change(&mut options);
    Origin::start(&options).unwrap()
}

fn load_with(origin: &Origin, change: impl FnOnce(&mut load::Options)) -> Report {
    let tls = tls::Options { insecure: true, ..tls::Options::default() };
    let mut options = load::Options::new(origin.url().parse().unwrap());
    (options.connections, options.requests) = (8, Some(REQUESTS));
    options.traffic = Traffic { body: 1000, timeout: Some(Duration::from_secs(30)), ..Traffic::default() };
    options.traffic.speech.tls = tls;
    change(&mut options);
    load::run(&options).unwrap()
}

fn all_good(requests: u64) -> Counts {
    Counts { ok: requests, ..Counts::default() }
}

#[test]
fn kept_connections_shake_hands_once() {
    let origin = origin(|o| o.tls = true);
    for (tls12, http2, streams) in [(false, false, 1), (true, false, 1), (false, true, 16), (true, true, 16)] {
        let report = load_with(&origin, |o| {
            (o.traffic.speech.tls.tls12, o.traffic.speech.http2, o.traffic.streams) = (tls12, http2, streams);
        });
        assert_eq!(report.total, all_good(REQUESTS), "TLS 1.2 {tls12}, HTTP/2 {http2}");
        let shaken = (report.handshakes, report.resumed, report.certificates);
        assert_eq!(shaken, (8, 0, 1), "TLS 1.2 {tls12}, HTTP/2 {http2}");
    }
    assert_eq!((origin.stats().requests, origin.stats().violations()), (4 * REQUESTS, 0));
}

#[test]
fn new_connections_shake_hands_each_and_resume_when_told() {
    let origin = origin(|o| o.tls = true);
    let full = load_with(&origin, |o| (o.traffic.new_connections, o.requests) = (true, Some(200)));
    assert_eq!((full.total.clone(), full.handshakes, full.resumed), (all_good(200), 200, 0));
    assert_eq!(origin.stats().connections, 200);
    for tls12 in [false, true] {
        let resumed = load_with(&origin, |o| {
            (o.traffic.new_connections, o.requests, o.connections) = (true, Some(200), 20);
            (o.traffic.speech.tls.resume, o.traffic.speech.tls.tls12) = (true, tls12);
        });
        assert_eq!(resumed.total, all_good(200));
        // Of each connection only the first is opened without a session, if that.
        assert!((180..200).contains(&resumed.resumed), "TLS 1.2 {tls12}: {}", resumed.resumed);
    }
}

#[test]
fn large_bodies_come_whole_on_all_ways() {
    for (tls, http2, streams) in [(true, false, 1), (true, true, 5), (false, true, 5)] {
        let origin = origin(|o| o.tls = tls);
        let report = load_with(&origin, |o| {
            (o.traffic.body, o.requests, o.threads) = (3 << 20, Some(40), 2);
            (o.traffic.speech.http2, o.traffic.streams) = (http2, streams);
        });
        assert_eq!(report.total, all_good(40), "TLS {tls}, HTTP/2 {http2}");
    }
}

#[test]
fn calls_get_their_message_back() {
    for tls in [false, true] {
        let origin = origin(|o| o.tls = tls);
        for (body, requests) in [(0, 100), (100, REQUESTS), (1 << 20, 40)] {
            let report = load_with(&origin, |o| {
                (o.traffic.speech.http2, o.traffic.grpc, o.traffic.streams) = (true, true, 4);
                (o.traffic.body, o.requests) = (body, Some(requests));
            });
            assert_eq!(report.total, all_good(requests), "TLS {tls}, {body} bytes");
        }
        assert_eq!(origin.stats().violations(), 0);
    }
}

#[test]
fn every_kind_of_failure_is_counted_exactly() {
    let spoilt = REQUESTS / 10;
    let mixed = Counts { ok: REQUESTS - spoilt, failed: spoilt, ..Counts::default() };
    for (spoil, expected) in [
        (Spoil::Status, Counts { status: spoilt, ..mixed.clone() }),
        (Spoil::Body, Counts { body: spoilt, ..mixed.clone() }),
        (Spoil::Close, Counts { closed: spoilt, ..mixed.clone() }),
    ] {
        let origin = origin(|o| (o.fail_every, o.fail_with) = (10, spoil));
        let report = load_with(&origin, |o| (o.traffic.speech.http2, o.traffic.streams) = (true, 4));
        assert_eq!(report.total, expected, "{spoil:?}");
    }
}

#[test]
fn an_answer_that_comes_too_late_is_a_timeout_and_is_given_up() {
    let origin = origin(|_| ());
    let report = load_with(&origin, |o| {
        o.target = format!("{}/1000?delay=60s", origin.url()).parse().unwrap();
        (o.connections, o.requests, o.traffic.timeout) = (1, Some(3), Some(Duration::from_millis(100)));
        (o.traffic.speech.http2, o.traffic.streams) = (true, 3);
    });
    assert_eq!(report.total, Counts { failed: 3, timeout: 3, ..Counts::default() });
    let stats = origin.stats();
    assert_eq!((stats.in_flight_max, stats.in_flight + stats.abandoned), (3, 3));
}

#[test]
fn streams_above_the_limit_wait() {
    let origin = origin(|o| (o.max_streams, o.delay) = (5, Duration::from_millis(5)));
    let report = load_with(&origin, |o| {
        (o.connections, o.traffic.streams, o.requests) = (1, 20, Some(200));
        o.traffic.speech.http2 = true;
    });
    // Until its settings came, the client can't know; those are refused and asked again.
    assert_eq!(report.total.ok + report.total.refused, 200);
    assert!(report.total.refused <= 15, "{}", report.total.refused);
    assert_eq!(origin.stats().in_flight_max, 5);
}

#[test]
fn certificates_are_verified() {
    let dir = std::env::temp_dir().join(format!("speedmimi-bench-test-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    Pair::generate().unwrap().write(&dir).unwrap();
    let file = |name: &str| Some(dir.join(name));
    let trusted = origin(|o| (o.tls, o.cert, o.key) = (true, file("cert.pem"), file("key.pem")));
    let unknown = origin(|o| o.tls = true);
    let verifying = |o: &mut load::Options| {
        (o.traffic.speech.tls, o.requests) =
            (tls::Options { ca: file("cert.pem"), ..tls::Options::default() }, Some(20));
    };
    assert_eq!(load_with(&trusted, verifying).total, all_good(20));
    let refused = load_with(&unknown, verifying);
    assert_eq!(refused.total, Counts { failed: 20, connect: 20, ..Counts::default() });
    assert!(refused.handshake_failure.unwrap().contains("certificate"));
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_server_that_speaks_no_tls_or_no_http2_is_counted() {
    let plain = origin(|o| o.http2 = false);
    let target = format!("https://{}", plain.address()).parse().unwrap();
    let report = load_with(&plain, |o| {
        // It waits for the end of what it takes for a head.
        (o.target, o.requests, o.traffic.timeout) = (target, Some(8), Some(Duration::from_millis(100)));
    });
    assert_eq!((report.total.ok, report.total.connect), (0, 8));
    let http1 = origin(|o| (o.tls, o.http2) = (true, false));
    let report = load_with(&http1, |o| (o.traffic.speech.http2, o.requests) = (true, Some(20)));
    assert_eq!((report.total.ok, report.total.connect), (0, 20));
}

/// What the origin counts as malformed after these frames, which it answers to a ping behind them, or by closing.
fn malformed_after(frames: &[u8]) -> u64 {
    let origin = origin(|_| ());
    let mut stream = TcpStream::connect(origin.address()).unwrap();
    let mut bytes = frame::PREFACE.to_vec();
    frame::put_settings(&mut bytes, &[]);
    bytes.extend_from_slice(frames);
    frame::put(&mut bytes, kind::PING, 0, 0, b"the-end!");
    stream.write_all(&bytes).unwrap();
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    while !answer.windows(8).any(|w| w == b"the-end!") {
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => break,
            Ok(len) => answer.extend_from_slice(&piece[..len]),
        }
    }
    origin.stats().malformed
}

fn request(fields: &[(&str, &str)]) -> Vec<u8> {
    let (mut block, mut frames) = (Vec::new(), Vec::new());
    fields.iter().for_each(|(name, value)| hpack::put_field(&mut block, name, value));
    frame::put(&mut frames, kind::HEADERS, flag::END_STREAM | flag::END_HEADERS, 1, &block);
    frames
}

#[test]
fn the_origin_counts_what_no_proxy_may_send() {
    let good = [(":method", "GET"), (":scheme", "http"), (":path", "/1"), (":authority", "a")];
    assert_eq!(malformed_after(&request(&good)), 0);
    for wrong in [
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("te", "gzip"),
        ("Upper", "case"),
        ("content-length", "5"),
        (":path", "/2"),
        ("x-line", "a\r\nb"),
    ] {
        assert_eq!(malformed_after(&request(&[&good[..], &[wrong]].concat())), 1, "{wrong:?}");
    }
    assert_eq!(malformed_after(&request(&good[..3])), 1, "no authority");
    assert_eq!(malformed_after(&[0, 0, 0, kind::CONTINUATION, 4, 0, 0, 0, 1]), 1);
}

/// Answers on each connection as many requests as it is told, then says GOAWAY, and ends it when those are answered.
fn serve_and_go(listener: &TcpListener, per_connection: usize, end: GoingEnd) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        std::thread::spawn(move || serve_until_gone(&mut stream, per_connection, end));
    }
}

/// What a server does that has said GOAWAY.
#[derive(Clone, Copy, PartialEq)]
enum GoingEnd {
    /// It has answered what it cared for, and ends.
    Ends,
    /// It cares for everything that was asked, and never says a word again.
    Mute,
}

fn serve_until_gone(stream: &mut TcpStream, requests: usize, end: GoingEnd) -> std::io::Result<()> {
    let (mut server, mut piece, mut answered, mut last) = (Server::new(100), [0; 4096], 0, 0u32);
    loop {
        stream.write_all(server.out())?;
        server.out().clear();
        if answered == requests {
            // What the client asked meanwhile is not looked at; reading it keeps the answers from a reset.
            last = if end == GoingEnd::Mute { u32::MAX >> 1 } else { last };
            frame::put(server.out(), kind::GOAWAY, 0, 0, &[&last.to_be_bytes()[..], &[0; 4]].concat());
            stream.write_all(server.out())?;
            if end == GoingEnd::Ends {
                stream.shutdown(std::net::Shutdown::Write)?;
            }
            while stream.read(&mut piece)? > 0 {}
            return Ok(());
        }
        let len = stream.read(&mut piece)?;
        let mut events = Vec::new();
        if len == 0 || server.feed(&piece[..len], &mut events).is_err() {
            return Ok(());
        }
        for event in events {
            let Event::Asked(asked, ..) = event else { continue };
            if answered < requests {
                let mut head = Vec::new();
                hpack::put_field(&mut head, ":status", "200");
                server.answer(asked, Answer { head: Rc::new(head), body: Rc::new(b"abc".to_vec()), trailers: None });
                (answered, last) = (answered + 1, asked);
            }
        }
    }
}

#[test]
fn a_server_that_goes_away_is_followed_by_a_new_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    std::thread::spawn(move || serve_and_go(&listener, 10, GoingEnd::Ends));
    let any = origin(|_| ());
    let report = load_with(&any, |o| {
        (o.target, o.traffic.body, o.connections, o.traffic.streams, o.requests) = (target, 3, 2, 4, Some(300));
        o.traffic.speech.http2 = true;
    });
    // What was asked after the last that the server cared for is lost, at most one on each other stream a connection.
    let Counts { ok, failed, refused, .. } = report.total;
    assert_eq!((ok + failed, failed), (300, refused));
    assert!(ok >= 200, "{ok}");
}

#[test]
fn a_server_that_goes_away_without_a_word_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    std::thread::spawn(move || serve_and_go(&listener, 1, GoingEnd::Mute));
    let any = origin(|_| ());
    let report = load_with(&any, |o| {
        (o.target, o.traffic.body, o.connections, o.traffic.streams, o.requests) = (target, 3, 1, 2, Some(8));
        (o.traffic.speech.http2, o.traffic.timeout) = (true, Some(Duration::from_millis(200)));
    });
    // It ends, which is what matters. Of each connection one is answered, where the machine is not too busy for that.
    let Counts { ok, failed, timeout, .. } = report.total;
    assert_eq!((ok + failed, failed), (8, timeout), "{:?}", report.total);
    assert!(ok > 0 && timeout > 0, "{:?}", report.total);
}

#[test]
fn what_is_answered_before_it_is_sent_is_given_up() {
    let fields = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
    let blocks = hpack::Blocks::new(&fields.map(|(name, value)| (name.to_owned(), value.to_owned())));
    // More than a window that nobody opens further.
    let jobs = [Job { blocks, body: vec![0; 100_000], status: 413, expect: None, grpc: false }];
    let (mut client, mut done) = (Client::default(), Vec::new());
    client.ask(7, 0, &jobs);
    let (mut block, mut answer, mut reset) = (Vec::new(), Vec::new(), Vec::new());
    hpack::put_field(&mut block, ":status", "413");
    frame::put(&mut answer, kind::HEADERS, flag::END_STREAM | flag::END_HEADERS, 1, &block);
    client.feed(&answer, &jobs, &mut done).unwrap();
    assert_eq!(done.iter().map(|done| (done.key, done.verdict)).collect::<Vec<_>>(), [(7, Ok(()))]);
    frame::put_reset(&mut reset, 1, frame::code::CANCEL);
    assert!(client.out().ends_with(&reset));
}

#[test]
fn a_body_that_is_cut_off_within_tls_is_not_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("https://{}/", listener.local_addr().unwrap()).parse().unwrap();
    std::thread::spawn(move || {
        let side = tls::ServerSide::new(&Pair::generate().unwrap(), &["http/1.1"]).unwrap();
        for stream in listener.incoming().flatten() {
            stream.set_nonblocking(true).unwrap();
            let (mut wire, mut buffer) = (side.accept(stream.into()).unwrap(), vec![0; 256 * 1024]);
            while !matches!(wire.receive(&mut buffer), Ok(Received::Bytes(_)) | Err(_)) {
                std::thread::yield_now();
            }
            // Then it is closed, without a word that this was all.
            let _ = wire.send(b"HTTP/1.1 200 OK\r\n\r\nabc");
        }
    });
    let report = load_with(&origin(|_| ()), |o| {
        (o.target, o.traffic.body, o.connections, o.requests) = (target, 3, 1, Some(3));
    });
    assert_eq!(report.total, Counts { failed: 3, closed: 3, ..Counts::default() });
}
