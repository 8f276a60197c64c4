//! The load generator against the origin: every request is answered, and every failure is counted as what it is.

use speedmimi_bench::clients::Speech;
use speedmimi_bench::load::{self, Counts, Report};
use speedmimi_bench::origin::{Options, Origin, Spoil};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const REQUESTS: u64 = 2_000;

fn origin(fail_every: u64, fail_with: Spoil) -> Origin {
    let options = Options { threads: 2, fail_every, fail_with, ..Options::default() };
    Origin::start(&options).unwrap()
}

fn load_with(origin: &Origin, change: impl FnOnce(&mut load::Options)) -> Report {
    let mut options = load::Options {
        target: origin.url().parse().unwrap(),
        connections: 20,
        body: 1000,
        duration: Duration::from_secs(1),
        warmup: Duration::ZERO,
        requests: Some(REQUESTS),
        threads: 1,
        timeout: Duration::from_secs(30),
        sources: 0,
        pid: None,
        new_connections: false,
        streams: 1,
        grpc: false,
        speech: Speech::default(),
    };
    change(&mut options);
    load::run(&options).unwrap()
}

#[test]
fn every_request_is_answered() {
    let origin = origin(0, Spoil::Status);
    let report = load_with(&origin, |_| ());
    assert_eq!(report.total, Counts { ok: REQUESTS, ..Counts::default() });
    assert_eq!((report.answered_connections, report.answered_percent), (20, 100.0));
    assert_eq!(report.statuses.into_iter().collect::<Vec<_>>(), [(200, REQUESTS)]);
    assert_eq!((origin.stats().requests, origin.stats().violations()), (REQUESTS, 0));
}

#[test]
fn large_bodies_come_whole_over_threads_and_source_addresses() {
    let origin = origin(0, Spoil::Status);
    let report = load_with(&origin, |o| {
        (o.body, o.requests, o.threads, o.sources) = (1 << 20, Some(60), 3, 4);
    });
    assert_eq!(report.total, Counts { ok: 60, ..Counts::default() });
}

#[test]
fn every_kind_of_failure_is_counted_exactly() {
    let spoilt = REQUESTS / 10;
    let mixed = Counts { ok: REQUESTS - spoilt, failed: spoilt, ..Counts::default() };
    for (spoil, expected) in [
        (Spoil::Status, Counts { status: spoilt, ..mixed.clone() }),
        (Spoil::Body, Counts { body: spoilt, ..mixed.clone() }),
        (Spoil::Close, Counts { closed: spoilt, ..mixed.clone() }),
        (Spoil::Garbage, Counts { malformed: spoilt, ..mixed.clone() }),
    ] {
        let report = load_with(&origin(10, spoil), |_| ());
        assert_eq!(report.total, expected, "{spoil:?}");
    }
}

#[test]
fn nobody_listening_is_counted_and_ends() {
    // Both at once, so that the second one can't have the first one's port.
    let (gone, other) = (origin(0, Spoil::Status), origin(0, Spoil::Status));
    let target = format!("http://{}", gone.address()).parse().unwrap();
    drop(gone);
    let report = load_with(&other, |o| (o.target, o.requests) = (target, Some(50)));
    assert_eq!(report.total, Counts { failed: 50, connect: 50, ..Counts::default() });
}

#[test]
fn an_answer_that_comes_too_late_is_a_timeout() {
    let origin = origin(0, Spoil::Status);
    let report = load_with(&origin, |o| {
        o.target.path = Some("/1000?delay=60s".into());
        (o.connections, o.requests, o.timeout) = (3, Some(3), Duration::from_millis(100));
    });
    assert_eq!(report.total, Counts { failed: 3, timeout: 3, ..Counts::default() });
}

#[test]
fn a_window_has_requests_and_latencies() {
    let origin = origin(0, Spoil::Status);
    let report = load_with(&origin, |o| (o.requests, o.duration) = (None, Duration::from_millis(300)));
    assert_eq!(report.total.failed, 0);
    assert!(report.window.ok > 0 && report.window.ok <= report.total.ok);
    assert!(report.latency_us.p50 > 0.0 && report.latency_us.p50 <= report.latency_us.max);
}

/// What the origin says to these bytes before it closes.
fn say(origin: &Origin, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(origin.address()).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn pipelined_requests_with_bodies_are_answered_in_order() {
    let origin = origin(0, Spoil::Status);
    let answer = say(
        &origin,
        b"POST /1?delay=20ms HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
          POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n\
          HEAD /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    );
    let lengths: Vec<_> = answer.lines().filter_map(|line| line.strip_prefix("Content-Length: ")).collect();
    assert_eq!(lengths, ["1", "2", "3"], "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[test]
fn what_a_proxy_must_not_send_is_counted() {
    let options = Options { expect_forwarded: true, ..Options::default() };
    let origin = Origin::start(&options).unwrap();
    say(&origin, b"GET /1 HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 127.0.0.1\r\nConnection: close\r\n\r\n");
    let refused = say(&origin, b"GET /1 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
    let stats = origin.stats();
    assert_eq!((stats.no_forwarded_for, stats.no_forwarded_proto, stats.malformed), (0, 1, 1));
}
