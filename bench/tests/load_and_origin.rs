//! The load generator against the origin: every request is answered, and every failure is counted as what it is.

use socket2::{Domain, Socket, Type};
use speedmimi_bench::load::{self, Counts, Phase, Report, Watch};
use speedmimi_bench::origin::{Options, Origin, Spoil};
use speedmimi_bench::traffic::Traffic;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

const REQUESTS: u64 = 2_000;

fn origin(fail_every: u64, fail_with: Spoil) -> Origin {
    let options = Options { threads: 2, fail_every, fail_with, ..Options::default() };
    Origin::start(&options).unwrap()
}

fn load_with(origin: &Origin, change: impl FnOnce(&mut load::Options)) -> Report {
    let mut options = load::Options::new(origin.url().parse().unwrap());
    (options.connections, options.requests) = (20, Some(REQUESTS));
    options.traffic = Traffic { body: 1000, timeout: Some(Duration::from_secs(30)), ..Traffic::default() };
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
        (o.traffic.body, o.requests, o.threads, o.traffic.sources) = (1 << 20, Some(60), 3, 4);
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
    // Bound, so that nobody else is there either; not listened on.
    let nobody = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    nobody.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let target = format!("http://{}", nobody.local_addr().unwrap().as_socket().unwrap()).parse().unwrap();
    let report = load_with(&origin(0, Spoil::Status), |o| (o.target, o.requests) = (target, Some(50)));
    assert_eq!(report.total, Counts { failed: 50, connect: 50, ..Counts::default() });
}

#[test]
fn an_answer_that_comes_too_late_is_a_timeout() {
    let origin = origin(0, Spoil::Status);
    let report = load_with(&origin, |o| {
        o.target = format!("{}/1000?delay=60s", origin.url()).parse().unwrap();
        (o.connections, o.requests, o.traffic.timeout) = (3, Some(3), Some(Duration::from_millis(100)));
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

#[test]
fn websockets_are_upgraded_once_and_echo_frames_of_any_length() {
    let origin = origin(0, Spoil::Status);
    for bytes in [16, 125, 126, 5_000] {
        let report = load_with(&origin, |o| {
            o.requests = Some(200);
            (o.traffic.websocket, o.traffic.body) = (true, bytes);
        });
        assert_eq!(report.total, Counts { ok: 200, ..Counts::default() }, "frames of {bytes}");
    }
    assert_eq!(origin.stats().upgrades, 4 * 20);
}

#[test]
fn a_refused_upgrade_is_a_failure() {
    let origin = Origin::start(&Options { http2: true, ..Options::default() }).unwrap();
    let refusing = load_with(&origin, |o| {
        // What is no key is no upgrade.
        o.traffic.headers = vec!["Sec-WebSocket-Key: short".parse().unwrap()];
        (o.traffic.websocket, o.requests) = (true, Some(50));
        o.target = format!("{}/100", origin.url()).parse().unwrap();
    });
    assert_eq!(refusing.total.ok, 0);
    assert_eq!(refusing.total.failed, 50);
}

#[test]
fn events_come_at_their_pace_and_ended_streams_are_opened_again() {
    let origin = origin(0, Spoil::Status);
    for (query, ended) in [("every=20ms", false), ("every=5ms&count=3", true)] {
        let report = load_with(&origin, |o| {
            o.target = format!("{}/events?{query}", origin.url()).parse().unwrap();
            (o.requests, o.duration, o.traffic.events) = (None, Duration::from_secs(1), true);
        });
        assert_eq!(report.total.failed, 0, "{query}: {:?}", report.total);
        assert!(report.window.ok > 200 && report.latency_us.p50 > 0.0, "{query}: {:?}", report.window);
        assert_eq!(report.answered_connections, 20);
        assert_eq!(origin.stats().requests > 20, ended, "{query}");
    }
}

#[test]
fn requests_are_sent_as_told() {
    use std::io::BufRead;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("http://{}/x?y=1", listener.local_addr().unwrap()).parse().unwrap();
    let server = std::thread::spawn(move || {
        let mut stream = std::io::BufReader::new(listener.accept().unwrap().0);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_until(b'\n', &mut head).unwrap();
        }
        let mut body = [0; 10];
        stream.read_exact(&mut body).unwrap();
        stream.get_mut().write_all(b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno").unwrap();
        (String::from_utf8(head).unwrap(), body)
    });
    let mut options = load::Options::new(target);
    (options.connections, options.requests) = (1, Some(1));
    options.traffic.headers = ["host: other", "X-A: 1", "x-a: 2"].map(|field| field.parse().unwrap()).into();
    (options.traffic.method, options.traffic.send, options.traffic.expect_status) = ("PATCH".into(), Some(10), 404);
    let report = load::run(&options).unwrap();
    assert_eq!(report.total, Counts { ok: 1, ..Counts::default() });
    let (head, body) = server.join().unwrap();
    let expected = "PATCH /x?y=1 HTTP/1.1\r\nUser-Agent: speedmimi-bench\r\nAccept: */*\r\nhost: other\r\nX-A: 1\r\n\
                    x-a: 2\r\nContent-Length: 10\r\n\r\n";
    assert_eq!((head.as_str(), &body[..]), (expected, &speedmimi_bench::body::pattern(10)[..]));
}

#[test]
fn many_fields_over_http2_arrive_each_time() {
    let origin = Origin::start(&Options { http2: true, ..Options::default() }).unwrap();
    let report = load_with(&origin, |o| {
        o.traffic.speech.http2 = true;
        (o.requests, o.traffic.send) = (Some(100), Some(3));
        // More than the table of HPACK holds.
        o.traffic.headers = (0..100).map(|i| format!("X-{i}: {}", "v".repeat(50)).parse().unwrap()).collect();
    });
    assert_eq!(report.total, Counts { ok: 100, ..Counts::default() });
    assert_eq!((origin.stats().requests, origin.stats().violations()), (100, 0));
}

/// Serves each connection in a thread of its own; tells its address.
fn serving(serve: fn(&mut TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || serve(&mut stream.unwrap()));
        }
    });
    address
}

/// Reads a head, answers it, and keeps the connection for ever, without reading on.
fn answer_and_stay(stream: &mut TcpStream, answer: &str) -> ! {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|len| len > 0) {
        head.extend_from_slice(&byte);
    }
    let _ = stream.write_all(answer.as_bytes());
    loop {
        std::thread::park();
    }
}

#[test]
fn a_request_that_is_answered_before_it_is_sent_is_not_followed_by_another() {
    let address = serving(|stream| answer_and_stay(stream, "HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n"));
    let report = load_with(&origin(0, Spoil::Status), |o| {
        o.target = format!("http://{address}/").parse().unwrap();
        (o.connections, o.requests) = (1, Some(3));
        // More than the sockets' buffers hold.
        (o.traffic.send, o.traffic.expect_status) = (Some(60 << 20), 413);
    });
    assert_eq!(report.total, Counts { ok: 3, ..Counts::default() });
}

#[test]
fn a_server_that_says_close_and_stays_is_left() {
    let answer = |stream: &mut TcpStream| {
        answer_and_stay(stream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let address = serving(answer);
    for rate in [None, Some(100)] {
        let report = load_with(&origin(0, Spoil::Status), |o| {
            o.target = format!("http://{address}/").parse().unwrap();
            (o.connections, o.requests) = (2, Some(4));
            (o.traffic.body, o.traffic.new_connections) = (0, true);
            o.traffic.timeout = Some(Duration::from_millis(300));
            if rate.is_some() {
                (o.requests, o.duration, o.traffic.rate) = (None, Duration::from_secs(1), rate);
            }
        });
        // Two connections that are given up after 300 ms each.
        assert!(report.total.ok >= 4, "{rate:?}: {:?}", report.total);
    }
}

#[test]
fn a_process_that_ends_while_it_is_loaded_is_no_error() {
    let origin = origin(0, Spoil::Status);
    let mut measured = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let mut options = load::Options::new(origin.url().parse().unwrap());
    (options.connections, options.duration) = (2, Duration::from_millis(600));
    options.traffic.pid = Some(measured.id());
    let mut end = |glimpse: &load::Glimpse| {
        if glimpse.phase == Phase::Window && measured.try_wait().unwrap().is_none() {
            measured.kill().unwrap();
            measured.wait().unwrap();
        }
    };
    let stop = AtomicBool::new(false);
    let report = load::measure(&options, &mut Watch { stop: &stop, glimpse: &mut end }).unwrap().report;
    assert!(report.window.ok > 0 && report.process.is_none());
    // Before it is loaded it has to be there.
    assert!(load::run(&options).is_err());
}
