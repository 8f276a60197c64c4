//! Regressions that a review found, each named after what went wrong.
//!
//! Never tests what another module tests already.

use crate::dir::Dir;
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
    let server = [("read_timeout", "1500ms"), ("park_after", "30s")];
    let proxy = Proxy::start(&server, &sections(&origin, "", ""));
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 200);
    // Idle for longer than a head may take; nothing to wait for but time.
    std::thread::sleep(std::time::Duration::from_millis(2000));
    client.send(b"GET / HT");
    std::thread::sleep(std::time::Duration::from_millis(50));
    client.send(b"TP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(client.response().status, 200);
}

/// The head of a POST with these lines.
fn post(target: &str, fields: &str) -> Vec<u8> {
    format!("POST {target} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n").into_bytes()
}

#[test]
fn after_a_body_that_grew_too_large_nothing_is_taken_for_a_request() {
    let origin = Origin::start(origin::by_path);
    let sections = format!(
        "backends: {{default: [{{host: 127.0.0.1, port: {}}}]}}\n\
         routing: {{default: {{upstream: default, max_body_bytes: 10}}}}\n",
        origin.port()
    );
    let proxy = Proxy::start(&[], &sections);
    let mut client = proxy.client();
    let body = b"14\r\nxxxxxxxxxxxxxxxxxxxx\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";
    client.send([&post("/echo", "Transfer-Encoding: chunked\r\n")[..], body].concat());
    assert_eq!(client.response_to("POST").status, 413);
    client.expect_end();
    assert!(origin.requests().iter().all(|seen| seen.request.target != "/smuggled"));
}

#[test]
fn a_broken_body_is_told_while_its_head_is_unsent() {
    let origin =
        Origin::start(|exchange| exchange.finish(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n"));
    let proxy = Proxy::before(&origin);
    let answer = proxy.client().get("/");
    assert_eq!(answer.status, 502, "{answer:?}");
    assert!(answer.fields.one("proxy-status").is_some_and(|text| text.contains("http_protocol_error")));
}

#[test]
fn a_fixed_answer_has_each_field_as_its_route_says() {
    let proxy = Proxy::start(
        &[],
        "routing: {r: {path: /, respond: {status: 200, body: \"{}\"}, response_headers: {\
         set: {Content-Type: application/json, X-Request-ID: none}, add: {X-A: \"1\"}, remove: [Date]}}}\n",
    );
    let answer = proxy.client().get("/");
    assert_eq!(answer.fields.all("content-type"), ["application/json"]);
    assert_eq!(answer.fields.all("x-request-id"), ["none"]);
    assert_eq!((answer.fields.all("x-a").len(), answer.fields.all("date").len()), (1, 0));
    assert_eq!(answer.text(), "{}");
}

#[test]
fn a_path_of_two_slashes_names_no_other_host() {
    let proxy = Proxy::start(&[], "routing: {r: {path: /, redirect: {status: 302, location: \"${path}/\"}}}\n");
    let answer = proxy.client().get("//evil.test");
    assert_eq!(answer.fields.one("location").as_deref(), Some("/evil.test/"));
}

#[test]
fn a_reader_of_the_access_log_that_sleeps_does_not_keep_the_proxy_from_ending() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let dir = Dir::new("review");
    let path = dir.path("access.log");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe with a name");
    let reader = std::fs::File::options().read(true).write(true).open(&path).expect("its reader");
    let text = format!(
        "routing: {{r: {{path: /, respond: {{status: 204, body: \"\"}}}}}}\nlog: {{access: {}}}\n",
        path.display()
    );
    let proxy = Proxy::start(&[], &text);
    let mut client = proxy.client();
    for _ in 0..400 {
        assert_eq!(client.get("/a-path-that-fills-the-pipe-soon").status, 204);
    }
    drop(client);
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        proxy.shutdown();
        done.send(())
    });
    let result = ended.recv_timeout(crate::origin::WATCHDOG);
    drop(reader);
    result.expect("an end");
}
