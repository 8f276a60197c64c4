//! What management does with requests that are broken, ambiguous or meant ill.
//!
//! Owns the wire's side of it; what a verb refuses is in `admin`.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::api::Api;
use crate::client::Client;
use crate::origin::{self, Origin};
use crate::proxy::{Proxy, balanced};
use crate::wire::Response;

fn start(grpc: &str) -> (Origin, Proxy, Api) {
    let origin = Origin::start(origin::by_path);
    let backends = balanced(&[(&origin, "")], "", "load_balancer: round_robin");
    let proxy = Proxy::start(&[], &format!("grpc: {{port: 0{grpc}}}\n{backends}"));
    let api = Api::of(&proxy);
    (origin, proxy, api)
}

/// The words of a refusal, which is JSON and nothing that may be kept.
#[track_caller]
fn refused(response: &Response, status: u16) -> String {
    let text = response.text();
    assert_eq!(response.status, status, "{text}");
    assert_eq!(response.fields.one("content-type").as_deref(), Some("application/json"), "{text}");
    assert_eq!(response.fields.one("cache-control").as_deref(), Some("no-store"), "{text}");
    assert_eq!(response.fields.one("x-content-type-options").as_deref(), Some("nosniff"), "{text}");
    let told: Json = serde_json::from_str(&text).expect("JSON");
    told["error"].as_str().expect("words").to_owned()
}

#[test]
fn every_refusal_is_json() {
    let (_origin, proxy, api) = start("");
    let big = vec![b' '; 64 * 1024 + 1];
    for (method, path) in [("POST", "/api/v1/report"), ("PUT", "/api/v1/log/level"), ("POST", "/api/v1/backends/add")] {
        let words = refused(&api.send(method, path, &big), 413);
        assert!(words.contains("64KiB"), "{words}");
    }
    // A configuration may be larger.
    assert!(refused(&api.send("PATCH", "/api/v1/config", &big), 400).contains("not JSON"));
    let mut client = Client::connect(proxy.management());
    client.send("PUT /api/v1/config HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16777217\r\n\r\n");
    refused(&client.response(), 413);
    let mut client = Client::connect(proxy.management());
    client.send("POST /api/v1/report HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n");
    refused(&client.response(), 400);
    let (_origin, _proxy, closed) = start(", token: everything-goes");
    refused(&closed.send("GET", "/api/v1/config", b""), 401);
    refused(&closed.with("Origin", "http://evil.example").send("GET", "/api/v1/config", b""), 403);
}

#[test]
fn what_is_sent_has_one_meaning() {
    let (_origin, _proxy, api) = start("");
    let before = api.get("/api/v1/config");
    for (method, path, body, status, words) in [
        ("PATCH", "/api/v1/config", r#"{"log": {"level": "warn"}, "log": {}}"#, 400, "stands twice"),
        ("PUT", "/api/v1/log/level", r#"{"level": "warn", "level": "info"}"#, 400, "stands twice"),
        ("PUT", "/api/v1/log/level", r#"{"level": "wa\u0000rn"}"#, 400, "not known here"),
        ("PUT", "/api/v1/log/level", r#"{"level": 1e999}"#, 400, "out of range"),
        ("PATCH", "/api/v1/config", r#"{"server": {"max_headers": 99999999999999999999999}}"#, 400, "whole number"),
        ("PATCH", "/api/v1/config", r#"{"ser\u0000ver": {}}"#, 400, "\\0"),
        ("POST", "/api/v1/backends/connect?upstream=default&backend_id=%ff", "", 400, "UTF-8"),
        ("POST", "/api/v1/backends/connect?upstream=default&backend_id=b%zz", "", 400, "%25"),
        ("POST", "/api/v1/backends/connect?upstream=default&backend_id=b0%00", "", 404, "\\0"),
        ("GET", "/api/v1/backends?upstream=%22%3E%3Cx%0d%0a", "", 404, "there are: default"),
        ("GET", "/api/v1/backends?upstream=default&upstream=default", "", 400, "given twice"),
        ("GET", "/api/v1/stats/server?verbose", "", 400, "unknown parameter; allowed: none"),
        ("GET", "/api/v1/explain?host=a%0aX-Forwarded-For:%20b", "", 400, "line break"),
        ("GET", "/api/v1/explain?host=a&method=", "", 400, "method: missing"),
        ("GET", "/api/v1/%63onfig", "", 404, "nothing here"),
        ("GET", "/api/v1/../v1/config", "", 404, "nothing here"),
        ("GET", "//api/v1/config", "", 404, "nothing here"),
        ("OPTIONS", "/api/v1/config", "", 405, "allowed: GET, HEAD, PUT, PATCH"),
        ("TRACE", "/metrics", "", 405, "allowed: GET, HEAD"),
        ("OPTIONS", "*", "", 404, "nothing here"),
        ("PUT", "/api/v1/config", &"[".repeat(100_000), 400, "recursion limit"),
    ] {
        let told = refused(&api.send(method, path, body.as_bytes()), status);
        assert!(told.contains(words), "{method} {path} {}: {told}", &body[..body.len().min(80)]);
    }
    assert_eq!(api.get("/api/v1/config"), before);
    // What a body is called doesn't matter; what it is does.
    let told = api.with("Content-Type", "text/xml").tell("PUT", "/api/v1/log/level", &json!({"level": "warn"}));
    assert_eq!(told.0, 200);
}

#[test]
fn long_names_are_not_repeated_at_length() {
    let (_origin, _proxy, api) = start("");
    let long = "x".repeat(10_000);
    let key = json!({ &*long: 1 }).to_string();
    let name = json!({"upstream": &long, "backend_id": "b0"}).to_string();
    for (method, path, body) in [
        ("GET", format!("/api/v1/backends?upstream={long}"), ""),
        ("GET", format!("/api/v1/stats/server?{long}=1"), ""),
        ("GET", format!("/api/v1/errors?limit={long}"), ""),
        ("GET", format!("/api/v1/explain?host=a&client={long}"), ""),
        ("GET", format!("/api/v1/{long}"), ""),
        ("POST", format!("/api/v1/backends/connect?upstream=default&backend_id={long}"), ""),
        ("POST", "/api/v1/backends/connect".to_owned(), &name),
        ("POST", "/api/v1/report".to_owned(), &key),
        ("PATCH", "/api/v1/config".to_owned(), &key),
    ] {
        let response = api.send(method, &path, body.as_bytes());
        assert!([400, 404].contains(&response.status), "{method} {}", &path[..40.min(path.len())]);
        let text = response.text();
        assert!(text.len() < 1000, "{} bytes for {method} {}", text.len(), &path[..40.min(path.len())]);
    }
    // A thousand faults are told to who made them, and remembered as what they begin with.
    let many: Json = (0..1000).map(|n| (format!("key{n}"), Json::from(n))).collect::<serde_json::Map<_, _>>().into();
    assert_eq!(api.tell("PATCH", "/api/v1/config", &many).1["faults"].as_array().map(Vec::len), Some(1000));
    assert!(api.get("/api/v1/changes").to_string().len() < 5000);
    // Beyond what a head may have, hyper answers itself.
    assert_eq!(api.send("GET", &format!("/api/v1/backends?upstream={}", "x".repeat(20_000)), b"").status, 431);
}

#[test]
fn a_head_is_a_get_without_its_body() {
    let (_origin, proxy, api) = start("");
    for path in ["/api/v1/config", "/api/v1/stats/server", "/api/v1/stats/stream", "/metrics", "/healthz", "/readyz"] {
        let response = api.send("HEAD", path, b"");
        assert_eq!((response.status, response.text().as_str()), (200, ""), "{path}");
    }
    let mut client = Client::connect(proxy.management());
    client.send("HEAD /nope HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.response_to("HEAD").status, 404);
    assert_eq!(client.response().text(), "ok\n");
}

#[test]
fn of_two_hosts_none_is_right() {
    let (_origin, proxy, _api) = start("");
    for (fields, status) in [("", 200), ("Host: localhost\r\n", 403), ("Host: evil.example\r\n", 403)] {
        let mut client = Client::connect(proxy.management());
        client.send(format!("GET /api/v1/log/level HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"));
        assert_eq!(client.response().status, status, "{fields}");
    }
}

#[test]
fn one_of_several_tags_is_enough() {
    let (_origin, _proxy, api) = start("");
    let level = json!({"level": "info"});
    let (etag, naked) = (api.etag(), api.etag().replace('"', ""));
    for (tags, status) in [
        (&*etag, 200),
        (&*format!("\"x\", {etag}"), 200),
        (&*format!("\"x\" ,{etag} , \"y\""), 200),
        ("*", 200),
        ("\"x\", \"y\"", 412),
        (&*format!("W/{etag}"), 412),
        (&*naked, 412),
        ("", 412),
    ] {
        // It is the level that is set already: the tag stays.
        assert_eq!(api.with("If-Match", tags).tell("PUT", "/api/v1/log/level", &level).0, status, "{tags}");
    }
    let lines = api.with("If-Match", "\"x\"").with("If-Match", &etag);
    assert_eq!(lines.tell("PUT", "/api/v1/log/level", &level).0, 200);
}

#[test]
fn http_2_is_served_on_the_same_port() {
    let (_origin, proxy, _api) = start("");
    let mut client = Client::connect(proxy.management());
    // RFC 9113, section 3.4: the preface, empty SETTINGS, and HEADERS that end stream 1.
    let mut block = vec![0x82, 0x86, 0x04, 0x08];
    block.extend(b"/healthz");
    block.extend([0x01, 0x09]);
    block.extend(b"localhost");
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    bytes.extend([0, 0, block.len() as u8, 1, 5, 0, 0, 0, 1]);
    bytes.extend(block);
    client.send(bytes);
    loop {
        let head = client.read(9);
        let length = usize::from(head[1]) << 8 | usize::from(head[2]);
        let payload = client.read(length);
        if head[3] == 1 {
            assert_eq!((head[8], payload.first()), (1, Some(&0x88)), "`:status: 200` of stream 1");
            return;
        }
    }
}

#[test]
fn who_says_nothing_loses_the_seat() {
    let (_origin, proxy, api) = start("");
    let mut silent = ["", "PRI * HT"].map(|first| {
        let mut client = Client::connect(proxy.management());
        client.bound(Duration::from_secs(30));
        client.send(first);
        client
    });
    silent.iter_mut().for_each(Client::expect_end);
    assert_eq!(api.send("GET", "/healthz", b"").status, 200);
}
