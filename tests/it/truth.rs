//! What the proxy tells of itself, held against what it did: `explain`, and the counters beside the access log.
//!
//! Owns the comparison, over configurations and requests drawn from a seed that a failure names. Never knows what is
//! right: the two have to agree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread;

use fastrand::Rng;
use serde_json::Value as Json;
use speedmimi::error::Reason;

use crate::api::Api;
use crate::client::Client;
use crate::dir::Dir;
use crate::fleet::Fleet;
use crate::origin::{self, Origin};
use crate::proxy::{Proxy, balanced};

const HOSTS: [&str; 5] = ["a.test", "b.a.test", "c.b.a.test", "A.Test:80", "other.test"];
const PATTERNS: [&str; 4] = ["", "a.test", "\"*.a.test\"", "b.a.test"];
const PREFIXES: [&str; 5] = ["/", "/api", "/api/v1", "/api/v1/x", "/%C3%A9"];
const PATHS: [&str; 9] =
    ["/", "/api", "/api/", "/apix", "/api/v1?q=/api", "/x/../api/v1/x/y", "/%61pi/./v1", "/api/..", "/%c3%a9/z"];
const ALGORITHMS: [&str; 8] = [
    "ip_hash",
    "least_connections",
    "weight",
    "least_connections_weight",
    "performance_least_connections_weight",
    "round_robin",
    "random_two",
    "hash",
];
const MEMBERS: [&str; 6] = ["u0-a", "u0-b", "u0-c", "u1-a", "u1-b", "u1-c"];

fn one_of<'a>(rng: &mut Rng, all: &[&'a str]) -> &'a str {
    all[rng.usize(..all.len())]
}

/// Backends, upstreams and rules. Every rule has its own pair of host and path, and says its name in its answers.
fn configuration(rng: &mut Rng, fleet: &Fleet) -> String {
    let mut text = String::from("grpc: {port: 0}\nbackends:\n");
    for upstream in ["u0", "u1"] {
        text += &format!("  {upstream}:\n");
        for id in MEMBERS.iter().filter(|id| id.starts_with(upstream)) {
            let (port, weight, is_active) = (fleet.origin(id).port(), rng.u16(1..=1000), rng.u8(..4) > 0);
            let is_backup = rng.u8(..5) == 0;
            text +=
                &format!("    - {{id: {id}, host: 127.0.0.1, port: {port}, weight: {weight}, active: {is_active}, ");
            text += &format!("backup: {is_backup}}}\n");
        }
    }
    text += "upstreams: {u0: {hash_on: \"header:X-Key\"}, u1: {hash_on: uri}}\nrouting:\n";
    for (host, pattern) in PATTERNS.iter().enumerate() {
        for (path, prefix) in PREFIXES.iter().enumerate() {
            if rng.bool() && (host, path) != (1, 0) {
                continue;
            }
            let target = match rng.u8(..8) {
                0 => format!("redirect: {{status: 307, location: \"/to/r{host}{path}\"}}"),
                1 => format!("respond: {{status: 299, body: r{host}{path}}}"),
                _ => {
                    let rules = [(); 3].map(|()| one_of(rng, &ALGORITHMS));
                    format!(
                        "upstream: u{}, load_balancer: {}, protocols: {{sse: {}, grpc: {}}}",
                        rng.u8(..2),
                        rules[0],
                        rules[1],
                        rules[2]
                    )
                }
            };
            let deny = if rng.u8(..3) == 0 { "deny: [192.0.2.0/24], " } else { "" };
            let name = format!("response_headers: {{set: {{X-Route: r{host}{path}}}}}");
            text += &format!("  r{host}{path}: {{hosts: [{pattern}], path: \"{prefix}\", {deny}{name}, {target}}}\n");
        }
    }
    text
}

/// A request as `explain` and the proxy are told it.
struct Asked {
    method: &'static str,
    host: &'static str,
    path: &'static str,
    fields: Vec<String>,
}

impl Asked {
    fn draw(rng: &mut Rng) -> Asked {
        let client = format!("{}.{}", one_of(rng, &["192.0.2", "198.51.100", "203.0.113"]), rng.u8(..));
        let mut fields = vec![format!("X-Forwarded-For: {client}"), format!("X-Key: {}", rng.u16(..))];
        let more = ["", "Accept: text/event-stream", "Content-Type: application/grpc", "Max-Forwards: 0"];
        fields.extend(Some(one_of(rng, &more)).filter(|field| !field.is_empty()).map(str::to_owned));
        let method = one_of(rng, &["GET", "GET", "DELETE", "OPTIONS", "CONNECT"]);
        Asked { method, host: one_of(rng, &HOSTS), path: one_of(rng, &PATHS), fields }
    }

    fn explained(&self, api: &Api) -> Json {
        let plain = |byte: u8| byte.is_ascii_alphanumeric();
        let encoded = |text: &str| -> String {
            let byte = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
            text.bytes().map(byte).collect()
        };
        let mut query = format!("method={}&host={}&path={}", self.method, encoded(self.host), encoded(self.path));
        self.fields.iter().for_each(|field| query += &format!("&header={}", encoded(field)));
        api.get(&format!("/api/v1/explain?{query}"))
    }

    fn text(&self) -> String {
        let fields: String = self.fields.iter().map(|field| format!("{field}\r\n")).collect();
        format!("{} {} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", self.method, self.path, self.host)
    }
}

/// Sends it `n` times; who answered.
fn answerers(asked: &Asked, told: &Json, proxy: &Proxy, n: usize) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for _ in 0..n {
        let mut client = proxy.client();
        client.send(asked.text());
        let answer = client.response_to(asked.method);
        if let Some(own) = told.get("answer") {
            assert_eq!(own["status"], answer.status, "{told:#}\n{}", asked.text());
            if let Some(location) = own.get("location") {
                assert_eq!(location.as_str(), answer.fields.one("location").as_deref(), "{told:#}");
            }
        } else {
            assert_eq!(
                (answer.status, told["route"].as_str()),
                (200, answer.fields.one("x-route").as_deref()),
                "{told:#}"
            );
            seen.insert(answer.text());
        }
    }
    seen
}

#[test]
fn explain_says_what_is_done() {
    for seed in 0..12 {
        println!("seed {seed}");
        let mut rng = Rng::with_seed(seed);
        let fleet = Fleet::scripted(&MEMBERS, |id, exchange| exchange.answer(200, id.as_bytes()));
        let text = configuration(&mut rng, &fleet);
        let proxy = Proxy::start(&[("trusted_proxies", "[127.0.0.0/8]")], &text);
        let api = Api::of(&proxy);
        for _ in 0..40 {
            let asked = Asked::draw(&mut rng);
            // What was sent before is over: what it took is free again, and told so.
            proxy.wait_until("idleness", |totals| totals.exchanges_active == 0);
            let told = asked.explained(&api);
            let has_all = told["algorithm"] == "round_robin";
            let seen = answerers(&asked, &told, &proxy, if has_all { 6 } else { 2 });
            let candidates = told["candidates"].as_array().into_iter().flatten();
            let candidates: BTreeSet<String> = candidates.filter_map(Json::as_str).map(str::to_owned).collect();
            let agree = if has_all { seen == candidates } else { seen.is_subset(&candidates) };
            assert!(agree, "{seen:?} answered\n{told:#}\n{}\n{text}", asked.text());
        }
    }
}

/// A connection's requests: good ones, those that the proxy answers itself, those that break at the backend. Whether it
/// breaks off then, within a body.
fn conversation(rng: &mut Rng) -> (String, bool) {
    let mut text = String::new();
    for _ in 0..rng.usize(..4) {
        let path = ["/", "/status/404", "/status/500", "/size/70000", "/chunked/3", "/trailers", "/interim", "/denied"];
        text += &format!("{} {} HTTP/1.1\r\nHost: a\r\n\r\n", one_of(rng, &["GET", "HEAD"]), one_of(rng, &path));
        if rng.bool() {
            text += "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        }
    }
    let last = rng.usize(..9);
    text += [
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nshort",
        "GET /close HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /half HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /garbage HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /reset HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "not http\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n",
        "GET /bye HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ][last];
    (text, last == 0)
}

#[test]
fn counters_and_access_log_tell_the_same() {
    let (dir, origins) = (Dir::new("truth"), [Origin::start(origin::by_path), Origin::start(origin::by_path)]);
    let path = dir.path("access.log");
    let backends = balanced(&[(&origins[0], ""), (&origins[1], "")], "", "max_body_bytes: 1MiB");
    let denied = "routing: {denied: {path: /denied, upstream: default, deny: [0.0.0.0/0]}, ";
    let sections = format!("log: {{access: \"{}\"}}\n{}", path.display(), backends.replace("routing: {", denied));
    let proxy = Proxy::start(&[("workers", "2")], &sections);
    thread::scope(|scope| {
        for seed in 0..4 {
            let proxy = &proxy;
            scope.spawn(move || {
                let mut rng = Rng::with_seed(seed);
                for _ in 0..100 {
                    let mut client: Client = proxy.client();
                    let (text, breaks_off) = conversation(&mut rng);
                    let _ = client.try_send(text);
                    if breaks_off {
                        client.finish_sending();
                    }
                    let _ = client.wire.take_to_end();
                }
            });
        }
    });
    proxy.wait_until("the end of all", |totals| totals.exchanges_active == 0 && totals.connections_active == 0);
    let totals = proxy.stats();
    let lines = || fs::read_to_string(&path).unwrap_or_default();
    // Its writer ends with the proxy, when everything is written.
    proxy.shutdown();
    let lines: Vec<Json> = lines().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let sum = |key: &str| lines.iter().filter_map(|line| line[key].as_u64()).sum::<u64>();
    // What is no request has a line too, without a method.
    assert_eq!(lines.iter().filter(|line| line["method"] != "").count() as u64, totals.requests);
    assert_eq!(sum("bytes_out"), totals.client_bytes_out);
    // Lines have those too that a stale connection made necessary, which no budget counts.
    assert!((1..=sum("retries")).contains(&totals.retries), "{} of {}", totals.retries, sum("retries"));
    // Lines tell of bodies alone, the counter of heads too; those above have 27 to 70 bytes.
    let heads = totals.client_bytes_in - sum("bytes_in");
    assert!(sum("bytes_in") > 0 && (27 * totals.requests..=70 * totals.requests).contains(&heads), "{heads}");
    let mut classes = [0u64; 5];
    let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
    for line in &lines {
        // Who left got no answer; its line says 499.
        if let Some(status) = line["status"].as_u64().filter(|status| ![0, 499].contains(status)) {
            classes[status as usize / 100 - 1] += 1;
        }
        if let Some(reason) = line["reason"].as_str().filter(|reason| !reason.is_empty()) {
            *reasons.entry(reason).or_default() += 1;
        }
    }
    assert_eq!(classes, totals.statuses.0);
    let counted = Reason::ALL.iter().map(|&reason| (reason.code(), totals.reasons.of(reason)));
    assert_eq!(reasons, counted.filter(|(_, count)| *count > 0).collect());
    assert!(reasons.len() >= 6, "{reasons:?}");
}
