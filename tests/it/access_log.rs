//! The access log: a line an exchange, true and whole, whatever clients send and however slow its reader is.
//!
//! Never looks at how soon a line is there, only that it comes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::dir::Dir;
use crate::origin::{self, Origin};
use crate::peer2::{Peer, get, of};
use crate::proxy::{Proxy, balanced};
use crate::wait;
use crate::websocket;

/// As the manual lists them.
const FIELDS: [&str; 19] = [
    "time",
    "request_id",
    "client",
    "method",
    "host",
    "path",
    "protocol",
    "route",
    "upstream",
    "backend",
    "status",
    "reason",
    "bytes_in",
    "bytes_out",
    "connect_ms",
    "first_byte_ms",
    "total_ms",
    "retries",
    "tls",
];

/// An access log of its own for a test.
struct Log(Dir);

impl Log {
    fn new(test: &str) -> Log {
        Log(Dir::new(&format!("access-{test}")))
    }

    fn path(&self) -> PathBuf {
        self.0.path("access.log")
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path()).unwrap_or_default();
        // A line without its end is still being written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(str::to_owned).collect()
    }

    fn wait_for_lines(&self, n: usize) -> Vec<String> {
        wait::until(&format!("{n} lines"), || self.lines().len() >= n);
        let lines = self.lines();
        assert_eq!(lines.len(), n, "{lines:#?}");
        lines
    }
}

fn start(log: &Log, origin: &Origin, format: &str) -> Proxy {
    let section = format!("log: {{access: \"{}\", access_format: {format}}}\n", log.path().display());
    let backends = balanced(&[(origin, "")], "retries: 0", "path: /");
    Proxy::start(&[("trusted_proxies", "[127.0.0.1/32]")], &format!("{section}{backends}"))
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))
}

#[test]
fn json_lines_have_the_fields_of_the_manual_in_its_order() {
    let log = Log::new("fields");
    let origin = Origin::start(origin::by_path);
    let proxy = start(&log, &origin, "json");
    let mut client = proxy.client();
    let said = [("X-Forwarded-For", "203.0.113.7"), ("X-Request-ID", "edge-1"), ("Accept", "text/event-stream")];
    assert_eq!(client.request("POST", "/echo?q=1", &said, b"hello").text(), "hello");
    assert_eq!(client.get("/close").status, 502);
    let lines = log.wait_for_lines(2);
    for line in &lines {
        let places: Vec<usize> = FIELDS.iter().map(|f| line.find(&format!("\"{f}\":")).expect(f)).collect();
        assert!(places.is_sorted(), "{line}");
        assert_eq!(parse(line).as_object().map(serde_json::Map::len), Some(FIELDS.len()), "{line}");
    }
    let line = parse(&lines[0]);
    let expected = [
        ("request_id", "edge-1"),
        ("client", "203.0.113.7"),
        ("method", "POST"),
        ("host", "a.test"),
        ("path", "/echo?q=1"),
        ("protocol", "sse"),
        ("route", "default"),
        ("upstream", "default"),
        ("backend", "b0"),
        ("reason", ""),
    ];
    for (key, value) in expected {
        assert_eq!(line[key], value, "{key} of {line}");
    }
    let number = |line: &Value, key: &str| line[key].as_f64().unwrap_or_else(|| panic!("{key} of {line}"));
    assert_eq!((number(&line, "status"), number(&line, "bytes_in"), number(&line, "retries")), (200.0, 5.0, 0.0));
    assert!(number(&line, "bytes_out") > 5.0 && number(&line, "connect_ms") >= 0.0);
    assert!(number(&line, "first_byte_ms") <= number(&line, "total_ms"));
    assert_eq!(line["tls"], "");
    let time = line["time"].as_str().expect("a time");
    assert!(time.len() == 24 && time.starts_with("20") && time.ends_with('Z'), "{time}");
    let line = parse(&lines[1]);
    assert_eq!((number(&line, "status"), line["reason"].as_str()), (502.0, Some("backend_closed")));
    assert!(line["request_id"].as_str().is_some_and(|id| id.len() == 32), "{line}");
}

#[test]
fn a_tunnel_has_one_line_with_what_passed_through_it() {
    let log = Log::new("tunnel");
    let origin = Origin::start(origin::by_path);
    let proxy = start(&log, &origin, "json");
    let mut client = proxy.client();
    client.upgrade("/ws");
    client.send_frame(websocket::TEXT, &[b'x'; 100]);
    client.read_frame();
    client.send_frame(websocket::CLOSE, b"");
    client.read_frame();
    client.expect_end();
    drop(client);
    let line = parse(&log.wait_for_lines(1)[0]);
    assert_eq!((line["status"].as_u64(), line["protocol"].as_str()), (Some(101), Some("websocket")));
    assert_eq!((line["path"].as_str(), line["reason"].as_str()), (Some("/ws"), Some("")));
    // Masked frames up: 106 + 6 bytes; the 101 and plain frames down: 102 + 2 bytes and the head.
    assert_eq!(line["bytes_in"].as_u64(), Some(112));
    assert!(line["bytes_out"].as_u64().is_some_and(|n| n > 104 + 50), "{line}");
}

#[test]
fn combined_lines_are_what_other_tools_read() {
    let log = Log::new("combined");
    let origin = Origin::start(origin::by_path);
    let proxy = start(&log, &origin, "combined");
    let said = [("Referer", "http://r.test/"), ("User-Agent", "a \"quoted\" agent")];
    assert_eq!(proxy.client().request("GET", "/size/10?x", &said, b"").status, 200);
    assert_eq!(proxy.client().get("/").status, 200);
    let lines = log.wait_for_lines(2);
    let (start, rest) = lines[0].split_once(" [").expect("a time");
    let (time, rest) = rest.split_once("] ").expect("the time's end");
    assert_eq!(start, "127.0.0.1 - -");
    assert!(time.len() == 26 && time.ends_with(" +0000") && time.matches(':').count() == 3, "{time}");
    let (request, rest) = rest.split_once("\" 200 ").expect("a status");
    assert_eq!(request, "\"GET /size/10?x HTTP/1.1");
    let (bytes, agents) = rest.split_once(' ').expect("the bytes");
    assert!(bytes.parse::<u64>().is_ok_and(|n| n > 10), "{bytes}");
    assert_eq!(agents, r#""http://r.test/" "a \"quoted\" agent""#);
    assert!(lines[1].ends_with(r#" "-" "-""#), "{}", lines[1]);
}

#[test]
fn no_client_can_break_a_line() {
    let log = Log::new("hostile");
    let origin = Origin::start(origin::by_path);
    let proxy = start(&log, &origin, "json");
    let paths = ["/\"},{\"status\":1", "/\\u0000\\n", "/%0a%0d%00", "/\u{e9}\u{2028}", "/'<>`{}"];
    for path in paths {
        let mut client = proxy.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\nUser-Agent: \"\\\t{path}\r\n\r\n"));
        assert!(matches!(client.response().status, 200 | 400));
    }
    let mut client = proxy.client();
    client.send(b"GET /raw HTTP/1.1\r\nHost: a.test\r\nUser-Agent: \xff\xfe\x80\r\n\r\n");
    assert_eq!(client.response().status, 200);
    drop(client);
    proxy.shutdown();
    let lines = log.lines();
    assert_eq!(lines.len(), paths.len() + 1, "{lines:#?}");
    for line in &lines {
        let line = parse(line);
        assert_eq!(line.as_object().map(serde_json::Map::len), Some(FIELDS.len()), "{line}");
        // Of what is no request at all the line tells the reason alone.
        let path = line["path"].as_str().unwrap_or_default();
        assert_eq!(path.starts_with('/'), line["reason"] != "bad_request" || !path.is_empty(), "{line}");
    }
}

#[test]
fn a_reload_loses_no_line_and_the_new_file_gets_the_new_ones() {
    let (first, second) = (Log::new("first"), Log::new("second"));
    let origin = Origin::start(origin::by_path);
    let mut proxy = start(&first, &origin, "json");
    let mut client = proxy.client();
    let section = |log: &Log| {
        format!("log: {{access: \"{}\"}}\n{}", log.path().display(), balanced(&[(&origin, "")], "", "path: /"))
    };
    for _ in 0..10 {
        (0..5).for_each(|_| assert_eq!(client.get("/").status, 200));
        proxy.reload(&[], &section(&first));
    }
    first.wait_for_lines(50);
    proxy.reload(&[], &section(&second));
    assert_eq!(client.get("/").status, 200);
    second.wait_for_lines(1);
    assert_eq!(first.lines().len(), 50);
    // What waited for the next tick is written before the end.
    assert_eq!(client.get("/").status, 200);
    drop(client);
    proxy.shutdown();
    assert_eq!(second.lines().len(), 2);
}

#[test]
fn lines_are_dropped_and_counted_while_nobody_takes_them() {
    const O_NONBLOCK: i32 = 0o4000;
    let log = Log::new("stalled");
    let made = Command::new("mkfifo").arg(log.path()).status().expect("mkfifo");
    assert!(made.success());
    // A reader that is there and never reads.
    let reader = fs::OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(log.path()).expect("a reader");
    let section = format!("log: {{access: \"{}\"}}\n", log.path().display());
    let proxy = Proxy::start(&[], &format!("{section}routing: {{all: {{respond: {{status: 204}}}}}}\n"));
    let path = format!("/{}", "x".repeat(2000));
    let mut client = proxy.client();
    let mut asked = 0;
    while proxy.stats().log_lines_dropped == 0 {
        assert_eq!(client.get(&path).status, 204, "a stalled log stops no request");
        asked += 1;
        assert!(asked < 50_000, "no line was ever dropped");
    }
    proxy.wait_until("every line's fate", |t| t.log_lines_written + t.log_lines_dropped == asked);
    // Nor does it keep the proxy from ending.
    let since = std::time::Instant::now();
    drop(client);
    proxy.shutdown();
    assert!(since.elapsed() < origin::WATCHDOG, "it took {:?}", since.elapsed());
    drop(reader);
}

#[test]
fn a_pipe_that_nobody_reads_holds_nothing_up() {
    let dir = Dir::new("unread");
    let made = Command::new("mkfifo").arg(dir.path("access.log")).status().expect("mkfifo");
    assert!(made.success());
    let text = format!(
        "log: {{access: \"{}\"}}\nrouting: {{all: {{respond: {{status: 204}}}}}}\n",
        dir.path("access.log").display()
    );
    let (started, proxy) = std::sync::mpsc::channel();
    std::thread::spawn(move || drop(started.send(Proxy::start(&[], &text))));
    let proxy = proxy.recv_timeout(origin::WATCHDOG).expect("a proxy that starts");
    assert_eq!(proxy.client().get("/early").status, 204);
    // A reader that comes later gets what waited in the pipe.
    let mut line = String::new();
    BufReader::new(fs::File::open(dir.path("access.log")).expect("a reader")).read_line(&mut line).expect("a line");
    assert!(line.contains("/early"), "{line}");
}

#[test]
fn lines_that_cannot_be_written_are_counted_as_lost() {
    let origin = Origin::start(origin::by_path);
    let backends = balanced(&[(&origin, "")], "", "");
    // Every write to it fails as on a full disk (full(4)).
    let proxy = Proxy::start(&[], &format!("log: {{access: /dev/full}}\n{backends}"));
    let mut client = proxy.client();
    (0..5).for_each(|_| assert_eq!(client.get("/").status, 200));
    wait::until("the loss", || proxy.watch().server().proxy.access_log.dropped == 5);
    assert_eq!(proxy.watch().server().proxy.access_log.written, 0);
}

#[test]
fn a_stream_of_http2_has_a_line_like_any_request() {
    let (json, combined) = (Log::new("h2-json"), Log::new("h2-combined"));
    let origin = Origin::start(origin::by_path);
    for (log, format) in [(&json, "json"), (&combined, "combined")] {
        let proxy = start(log, &origin, format);
        let mut peer = Peer::connect(proxy.addr());
        assert_eq!(
            peer.request(of("POST", "/echo?q=1", &[("content-type", "application/grpc")]), b"hello").text(),
            "hello"
        );
        assert_eq!(peer.get("/%zz").status(), 400);
        assert_eq!(peer.request(of("PUT", "/close", &[]), b"bye").status(), 502);
        let (answer, mut stream) = peer.open(get("/never"), true);
        origin.wait_for_in_flight(1);
        drop(answer);
        stream.send_reset(h2::Reason::CANCEL);
        log.wait_for_lines(4);
    }
    let lines: Vec<Value> = json.lines().iter().map(|line| parse(line)).collect();
    let told = ["protocol", "method", "path", "status", "reason", "bytes_in"];
    let told: Vec<Vec<&Value>> = lines.iter().map(|line| told.iter().map(|key| &line[key]).collect()).collect();
    assert_eq!(
        serde_json::json!(told),
        serde_json::json!([
            ["grpc", "POST", "/echo?q=1", 200, "", 5],
            ["http", "GET", "/%zz", 400, "bad_request", 0],
            ["http", "PUT", "/close", 502, "backend_closed", 3],
            ["http", "GET", "/never", 499, "client_closed", 0],
        ])
    );
    assert!(lines[0]["bytes_out"].as_u64().is_some_and(|n| n > 5), "{}", lines[0]);
    let lines = combined.lines();
    for (line, request) in lines.iter().zip(["POST /echo?q=1", "GET /%zz", "PUT /close", "GET /never"]) {
        assert!(line.contains(&format!("\"{request} HTTP/2.0\" ")), "{line}");
    }
}
