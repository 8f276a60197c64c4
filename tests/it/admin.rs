//! Management over REST: every verb with good, bad and concurrent input, who may come in, what lasts.
//!
//! Owns what users of the API rely on. The figures' arithmetic is for the unit tests.

use std::thread;

use serde_json::{Value as Json, json};
use speedmimi::error::Reason;

use crate::api::Api;
use crate::client::Client;
use crate::origin::{self, Origin};
use crate::proxy::{Proxy, balanced};
use crate::wait;

const MANAGEMENT: &str = "grpc: {port: 0}\n";

/// Two backends `b0` and `b1`, and management.
fn start(origins: [&Origin; 2]) -> (Proxy, Api) {
    let backends = balanced(&[(origins[0], ""), (origins[1], "")], "", "load_balancer: round_robin");
    let proxy = Proxy::start(&[], &format!("{MANAGEMENT}{backends}"));
    let api = Api::of(&proxy);
    (proxy, api)
}

fn origins() -> [Origin; 2] {
    [Origin::start(origin::by_path), Origin::start(origin::by_path)]
}

/// How many requests of `n` each origin gets.
fn shares(proxy: &Proxy, origins: [&Origin; 2], n: usize) -> [usize; 2] {
    let before = origins.map(|origin| origin.requests().len());
    let mut client = proxy.client();
    (0..n).for_each(|_| assert_eq!(client.get("/").status, 200));
    let after = origins.map(|origin| origin.requests().len());
    [after[0] - before[0], after[1] - before[1]]
}

fn state(api: &Api, id: &str) -> String {
    let backends = api.get("/api/v1/backends?upstream=default");
    let all =
        backends["backends"].as_array().expect("a list").iter().chain(backends["removed"].as_array().expect("a list"));
    let found = all.clone().find(|backend| backend["backend_id"] == id);
    found.map_or("gone", |backend| backend["state"].as_str().expect("a state")).to_owned()
}

#[test]
fn what_is_shown_can_be_sent_back_and_changes_nothing() {
    let [a, b] = origins();
    let (_proxy, api) = start([&a, &b]);
    let shown = api.get("/api/v1/config");
    assert_eq!(shown["config"]["routing"]["default"]["load_balancer"], "round_robin");
    let (status, done) = api.tell("PUT", "/api/v1/config", &shown);
    assert_eq!((status, &done["changed"]), (200, &json!([])), "{done}");
    assert_eq!(api.get("/api/v1/config"), shown);
    assert_eq!(done["persisted"], false, "there is no file");
}

#[test]
fn a_patch_changes_what_it_names_at_once() {
    let [a, b] = origins();
    let (proxy, api) = start([&a, &b]);
    assert_eq!(shares(&proxy, [&a, &b], 10), [5, 5]);
    let patch = json!({"routing": {"default": {"load_balancer": "weight"}}});
    for body in [patch.clone(), json!({ "config": patch })] {
        assert_eq!(api.tell("PATCH", "/api/v1/config", &body).0, 200);
    }
    let weight = json!({"upstream": "default", "backend": {"id": "b0", "weight": 900}});
    let (status, done) = api.tell("PUT", "/api/v1/backends/update", &weight);
    assert_eq!((status, &done["changed"]), (200, &json!(["backends.default[0].weight"])), "{done}");
    assert_eq!(shares(&proxy, [&a, &b], 10), [9, 1]);
    // The older form.
    let older = json!({"upstream_id": "default", "backend_id": "b1", "weight": 900});
    assert_eq!(api.tell("PUT", "/api/v1/backends/update", &older).0, 200);
    assert_eq!(shares(&proxy, [&a, &b], 10), [5, 5]);
}

#[test]
fn faults_are_told_all_at_once_and_change_nothing() {
    let [a, b] = origins();
    let (_proxy, api) = start([&a, &b]);
    let before = api.get("/api/v1/config");
    let patch = json!({"server": {"max_headers": 0, "prot": 1}, "log": {"level": "loud"}});
    let (status, refused) = api.tell("PATCH", "/api/v1/config", &patch);
    let faults = refused["faults"].as_array().expect("faults");
    assert_eq!((status, faults.len()), (400, 3), "{refused}");
    let error = refused["error"].as_str().expect("words");
    assert!(error.contains("server.max_headers: 0 is outside 1..=") && error.contains("did you mean port?"), "{error}");
    for (method, path, body, status, words) in [
        ("PUT", "/api/v1/config", "{", 400, "not JSON"),
        ("PUT", "/api/v1/config", "[]", 400, "no object"),
        ("PUT", "/api/v1/config", "{}", 400, "config: missing"),
        ("PUT", "/api/v1/config", "{\"config\": 1}", 400, "a map of keys"),
        ("PUT", "/api/v1/config", "{\"config\": {}, \"x\": 1}", 400, "unknown key"),
        ("PUT", "/api/v1/config?persits=1", "{}", 400, "unknown parameter; allowed: persist"),
        ("PATCH", "/api/v1/config?persist=maybe", "{}", 400, "neither true nor false"),
        ("POST", "/api/v1/backends/add", "{\"upstream\": \"default\"}", 400, "backend: missing"),
        ("POST", "/api/v1/backends/add", "{\"upstream\": \"no\", \"backend\": {}}", 404, "there are: default"),
        ("POST", "/api/v1/backends/add", "{\"upstream\": \"default\", \"backend\": {\"id\": \"b0\"}}", 409, "already"),
        (
            "POST",
            "/api/v1/backends/add",
            "{\"upstream\": \"default\", \"backend\": {\"port\": 1}}",
            400,
            "host: missing",
        ),
        ("DELETE", "/api/v1/backends/remove?upstream=default", "", 400, "backend_id: missing"),
        ("DELETE", "/api/v1/backends/remove?upstream=default&backend_id=zz", "", 404, "it has: b0, b1"),
        ("POST", "/api/v1/backends/disconnect?upstream=default&backend_id=b0&force=1&timeout=x", "", 400, "timeout"),
        (
            "POST",
            "/api/v1/backends/connect?upstream=default&backend_id=b0",
            "{\"upstream\": \"x\"}",
            400,
            "given in the body",
        ),
        (
            "PUT",
            "/api/v1/backends/update",
            "{\"upstream\": \"default\", \"backend\": {\"id\": \"b0\"}}",
            400,
            "nothing to change",
        ),
        (
            "PUT",
            "/api/v1/backends/update",
            "{\"upstream\":\"default\",\"backend\":{\"id\":\"b0\",\"weight\":0}}",
            400,
            "0 is outside 1..=1000",
        ),
        ("PUT", "/api/v1/log/level", "{\"level\": 3}", 400, "level"),
        ("POST", "/api/v1/report", "{\"upstream\":\"default\",\"backend_id\":\"b0\"}", 400, "performance: missing"),
        (
            "POST",
            "/api/v1/report",
            "{\"upstream\":\"default\",\"backend_id\":\"b0\",\"performance\":{\"cpu_usage\":101}}",
            400,
            "outside 0..=100",
        ),
        (
            "POST",
            "/api/v1/report",
            "{\"upstream\":\"default\",\"backend_id\":\"zz\",\"performance\":{\"cpu_usage\":1}}",
            404,
            "it has: b0, b1",
        ),
        ("GET", "/api/v1/stats/backend?upstream=default&backend_id=zz", "", 404, "it has: b0, b1"),
        ("GET", "/api/v1/explain?host=a&client=me", "", 400, "no IP address"),
        ("GET", "/api/v1/errors?limit=0", "", 400, "outside 1..=1000"),
        ("POST", "/api/v1/config/reload", "", 409, "without a configuration file"),
        ("DELETE", "/api/v1/config", "", 405, "allowed: GET, HEAD, PUT, PATCH"),
        ("GET", "/api/v1/nope", "", 404, "nothing here"),
        ("GET", "/nope", "", 404, "nothing here"),
    ] {
        let response = api.send(method, path, body.as_bytes());
        let (got, told) = (response.status, response.text());
        assert_eq!(got, status, "{method} {path} {body}: {told}");
        let error: Json = serde_json::from_str(&told).expect("JSON");
        assert!(error["error"].as_str().is_some_and(|e| e.contains(words)), "{method} {path} {body}: {told}");
    }
    assert_eq!(api.get("/api/v1/config"), before);
    assert_eq!(api.send("DELETE", "/api/v1/config", b"").fields.one("allow").as_deref(), Some("GET, HEAD, PUT, PATCH"));
}

#[test]
fn of_two_writers_with_the_same_tag_one_is_too_late() {
    let [a, b] = origins();
    let (_proxy, api) = start([&a, &b]);
    for round in 0..20 {
        let tagged = api.with("If-Match", &api.etag());
        let write = |level: &'static str| {
            let tagged = &tagged;
            move || {
                tagged
                    .tell(
                        "PATCH",
                        "/api/v1/config",
                        &json!({"server": {"max_headers": if level == "a" { 50 + round } else { 80 + round }}}),
                    )
                    .0
            }
        };
        let mut statuses = thread::scope(|scope| {
            [scope.spawn(write("a")), scope.spawn(write("b"))].map(|writer| writer.join().expect("an answer"))
        });
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 412]);
    }
    let known = api.with("If-None-Match", &api.etag());
    assert_eq!(known.send("GET", "/api/v1/config", b"").status, 304);
    assert_eq!(api.with("If-Match", "*").tell("PUT", "/api/v1/log/level", &json!({"level": "warn"})).0, 200);
}

#[test]
fn backends_come_and_go_while_requests_run() {
    let [a, b] = origins();
    let c = Origin::start(origin::by_path);
    let (proxy, api) = start([&a, &b]);
    let backend = json!({"id": "b2", "host": "127.0.0.1", "port": c.port()});
    let (status, _) = api.tell("POST", "/api/v1/backends/add", &json!({"upstream": "default", "backend": backend}));
    assert_eq!(status, 201);
    assert_eq!(shares(&proxy, [&a, &c], 9), [3, 3]);

    let mut held = proxy.client();
    held.send_get("/gate/go");
    wait::until("a request at a gate", || [&a, &b, &c].iter().any(|o| o.in_flight() > 0));
    let (at, id) =
        [(&a, "b0"), (&b, "b1"), (&c, "b2")].into_iter().find(|(o, _)| o.in_flight() > 0).expect("one of them");
    let path = format!("/api/v1/backends/disconnect?upstream=default&backend_id={id}");
    assert_eq!(api.ask("POST", &path).0, 200);
    assert_eq!(state(&api, id), "draining");
    let before = at.requests().len();
    let mut client = proxy.client();
    (0..10).for_each(|_| assert_eq!(client.get("/").status, 200));
    assert_eq!(at.requests().len(), before, "no new request goes there");
    let path = format!("/api/v1/backends/remove?upstream=default&backend_id={id}");
    assert_eq!(api.ask("DELETE", &path).0, 200);
    assert_eq!(state(&api, id), "draining");
    at.gate("go").open();
    assert_eq!(held.response().text(), "ok", "what ran was left to end");
    wait::until("the end of a removed backend", || state(&api, id) == "gone");
}

#[test]
fn a_backend_is_taken_back_with_a_ramp() {
    let [a, b] = origins();
    let (proxy, api) = start([&a, &b]);
    let verb = |verb: &str| {
        api.tell("POST", &format!("/api/v1/backends/{verb}"), &json!({"upstream": "default", "backend_id": "b1"}))
    };
    assert_eq!(verb("disconnect").0, 200);
    assert_eq!(state(&api, "b1"), "disconnected");
    assert_eq!(shares(&proxy, [&a, &b], 6), [6, 0]);
    assert_eq!(verb("connect").0, 200);
    assert_eq!(state(&api, "b1"), "active");
    let back = api.get("/api/v1/stats/backend?upstream=default&backend_id=b1");
    assert!(back["ramp"].as_f64().is_some_and(|ramp| ramp < 1.0), "{back}");
    // Plain rotation doesn't look at the ramp.
    assert_eq!(shares(&proxy, [&a, &b], 6), [3, 3]);
}

#[test]
fn force_cuts_what_does_not_end_by_itself() {
    let [a, b] = origins();
    let (proxy, api) = start([&a, &b]);
    let b1 = |path: &str| format!("/api/v1/backends/{path}&upstream=default&backend_id=b1");
    assert_eq!(api.ask("POST", &b1("disconnect?timeout=1s")).0, 200, "without force it means nothing");
    assert_eq!(api.ask("POST", "/api/v1/backends/connect?upstream=default&backend_id=b1").0, 200);
    assert_eq!(api.ask("POST", "/api/v1/backends/disconnect?upstream=default&backend_id=b0").0, 200);
    let mut waiting = proxy.client();
    waiting.send_get("/gate/never");
    let mut tunnel = proxy.client();
    tunnel.upgrade("/ws");
    let mut streaming = proxy.client();
    streaming.send_get("/never");
    b.wait_for_in_flight(3);
    assert_eq!(api.ask("POST", "/api/v1/backends/connect?upstream=default&backend_id=b0").0, 200);
    assert_eq!(api.ask("POST", &b1("disconnect?force=true&timeout=0s")).0, 200);
    let answer = waiting.response();
    assert_eq!(
        (answer.status, answer.fields.one("proxy-status").unwrap_or_default().contains("destination_unavailable")),
        (503, true)
    );
    tunnel.expect_end();
    wait::until("all of it to be cut", || proxy.stats().reasons.of(Reason::BackendCut) == 3);
    assert_eq!(state(&api, "b1"), "disconnected");
    // Nothing of it is held against who comes back.
    assert_eq!(api.ask("POST", "/api/v1/backends/connect?upstream=default&backend_id=b1").0, 200);
    assert_eq!(shares(&proxy, [&a, &b], 6), [3, 3]);
}

#[test]
fn the_last_force_alone_decides_when_it_is_cut() {
    let [a, b] = origins();
    let (proxy, api) = start([&a, &b]);
    let b1 = |path: &str| {
        let (status, done) = api.ask("POST", &format!("/api/v1/backends/{path}upstream=default&backend_id=b1"));
        assert_eq!(status, 200, "{done}");
    };
    assert_eq!(api.ask("POST", "/api/v1/backends/disconnect?upstream=default&backend_id=b0").0, 200);
    let mut running = proxy.client();
    running.send_get("/gate/go");
    b.wait_for_in_flight(1);
    assert_eq!(api.ask("POST", "/api/v1/backends/connect?upstream=default&backend_id=b0").0, 200);
    b1("disconnect?force=true&timeout=500ms&");
    b1("connect?");
    b1("disconnect?");
    b1("disconnect?force=true&timeout=600ms&");
    b1("disconnect?force=true&timeout=1h&");
    let looks = || api.get("/api/v1/stats/server")["timestamp"].as_u64().unwrap_or(0);
    let since = looks();
    wait::until("more time than the first two gave", || looks() > since + 1500);
    assert_eq!(state(&api, "b1"), "draining");
    b.gate("go").open();
    assert_eq!(running.response().text(), "ok");
    assert_eq!(proxy.stats().reasons.of(Reason::BackendCut), 0);
}

#[test]
fn listeners_open_and_close_while_others_go_on() {
    let [a, b] = origins();
    let (proxy, api) = start([&a, &b]);
    let mut kept = proxy.client();
    assert_eq!(kept.get("/").status, 200);
    let dir = crate::dir::Dir::new("live-listener");
    let socket = dir.path("s.sock");
    let unix = format!("unix:{}", socket.display());
    let (status, done) = api.tell("PATCH", "/api/v1/config", &json!({"server": {"listen": ["127.0.0.1:0", unix]}}));
    assert_eq!(status, 200, "{done}");
    let board = proxy.board().listening();
    assert_eq!(board.len(), 3, "{board:?}");
    let second = match &board[1] {
        speedmimi::config::plan::ListenAddr::Tcp(addr) => *addr,
        other => panic!("{other}"),
    };
    assert_eq!(Client::connect(second).get("/").status, 200);
    assert_eq!(Client::connect_unix(&socket).get("/").status, 200);
    // An address that can't be had changes nothing.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken_addr = taken.local_addr().expect("an address").to_string();
    let patch = json!({"server": {"listen": ["127.0.0.1:0", taken_addr]}, "log": {"level": "error"}});
    let (status, refused) = api.tell("PATCH", "/api/v1/config", &patch);
    assert!(status == 409 && refused["error"].as_str().is_some_and(|e| e.contains(&taken_addr)), "{refused}");
    assert_eq!(proxy.board().listening(), board);
    assert_eq!(Client::connect(second).get("/").status, 200);
    assert_eq!(api.tell("PATCH", "/api/v1/config", &json!({"server": {"listen": null}})).0, 200);
    wait::until("the end of listening", || {
        crate::wire::Sock::tcp(second).is_err() && crate::wire::Sock::unix(&socket).is_err()
    });
    assert!(!socket.exists());
    assert_eq!(kept.get("/").status, 200);
}

#[test]
fn a_key_that_needs_a_restart_is_refused() {
    let [a, b] = origins();
    let (_proxy, api) = start([&a, &b]);
    let (status, refused) = api.tell("PATCH", "/api/v1/config", &json!({"server": {"workers": 3, "max_headers": 7}}));
    assert!(status == 409 && refused["error"].as_str().is_some_and(|e| e.starts_with("server.workers")), "{refused}");
    assert_eq!(api.get("/api/v1/config")["config"]["server"]["max_headers"], 100);
}

#[test]
fn each_token_opens_its_door_and_no_secret_is_shown() {
    let [a, b] = origins();
    let backends = balanced(&[(&a, ""), (&b, "")], "sticky: {cookie: s, secret: very-secret-cookie-key}", "");
    let tokens = "grpc: {port: 0, token: everything-goes, read_token: only-looking, report_token: only-telling}\n";
    let proxy = Proxy::start(&[], &format!("{tokens}{backends}"));
    let nobody = Api::of(&proxy);
    let (full, read, report) =
        (nobody.token("everything-goes"), nobody.token("only-looking"), nobody.token("only-telling"));
    let denied = nobody.send("GET", "/api/v1/config", b"");
    assert_eq!(
        (denied.status, denied.fields.one("www-authenticate").as_deref()),
        (401, Some("Bearer realm=\"speedmimi\""))
    );
    assert_eq!(nobody.token("everything-goe").ask("GET", "/api/v1/config").0, 401);
    let performance = json!({"upstream": "default", "backend_id": "b0", "performance": {"cpu_usage": 50}});
    for (api, get, put, tell) in [(&full, 200, 200, 202), (&read, 200, 403, 403), (&report, 403, 403, 202)] {
        assert_eq!(api.ask("GET", "/api/v1/config").0, get);
        assert_eq!(api.tell("PUT", "/api/v1/log/level", &json!({"level": "warn"})).0, put);
        assert_eq!(api.tell("POST", "/api/v1/report", &performance).0, tell);
    }
    assert_eq!(nobody.send("GET", "/healthz", b"").status, 200);
    assert_eq!(nobody.send("GET", "/readyz", b"").status, 200);
    assert_eq!(full.with("Origin", "http://evil.test").ask("GET", "/api/v1/config").0, 403);
    let shown = full.get("/api/v1/config");
    let text = shown.to_string();
    for secret in ["everything-goes", "only-looking", "only-telling", "very-secret-cookie-key"] {
        assert!(!text.contains(secret), "{text}");
    }
    // Masks sent back stand for what they hide.
    assert_eq!(full.tell("PUT", "/api/v1/config", &shown).0, 200);
    assert_eq!(full.ask("GET", "/api/v1/config").0, 200);
    // A new token counts from the next request on.
    assert_eq!(full.tell("PATCH", "/api/v1/config", &json!({"grpc": {"token": "another-token"}})).0, 200);
    assert_eq!(
        (full.ask("GET", "/api/v1/config").0, nobody.token("another-token").ask("GET", "/api/v1/config").0),
        (401, 200)
    );
    assert!(!full.token("another-token").send("GET", "/api/v1/changes", b"").text().contains("another-token"));
}

#[test]
fn a_change_of_a_secret_is_told_without_it() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&[], &(balanced(&[(&origin, "")], "", "") + "grpc: {port: 0, token: everything}\n"));
    let api = Api::of(&proxy);
    let (status, done) =
        api.token("everything").tell("PATCH", "/api/v1/config", &json!({"grpc": {"token": "another-one"}}));
    assert_eq!((status, &done["changed"]), (200, &json!(["grpc.token"])), "{done}");
    let changes = api.token("another-one").get("/api/v1/changes");
    assert_eq!(changes["changes"][0]["changed"], json!(["grpc.token"]));
    assert!(!changes.to_string().contains("another-one"), "{changes}");
}

#[test]
fn the_host_has_to_be_ours() {
    let [a, b] = origins();
    let (proxy, _api) = start([&a, &b]);
    let ask = |host: &str| {
        let mut client = Client::connect(proxy.management());
        client.send(format!("GET /api/v1/config HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        client.response().status
    };
    assert_eq!(
        [ask("localhost"), ask("127.0.0.1:1"), ask("evil.test"), ask("127.0.0.1.evil.test")],
        [200, 200, 403, 403]
    );
}

#[test]
fn errors_tell_what_the_proxy_answered_and_why() {
    let [a, b] = origins();
    let backends = balanced(&[(&a, ""), (&b, "")], "response_timeout: 100ms, retries: 0", "path: /gate");
    let proxy = Proxy::start(&[], &format!("{MANAGEMENT}{backends}"));
    let api = Api::of(&proxy);
    let mut client = proxy.client();
    assert_eq!(client.get("/elsewhere?secret=1").status, 404);
    let late = client.get("/gate/never");
    assert_eq!(late.status, 504);
    wait::until("both to be told", || api.get("/api/v1/errors")["errors"].as_array().is_some_and(|all| all.len() == 2));
    let errors = api.get("/api/v1/errors?limit=1");
    let error = &errors["errors"][0];
    let one = |name: &str| error[name].as_str().unwrap_or("none").to_owned();
    assert_eq!(
        (one("reason"), one("route"), one("upstream"), one("timer")),
        ("response_timeout".into(), "default".into(), "default".into(), "upstreams.default.response_timeout".into())
    );
    assert_eq!(Some(one("request_id")), late.fields.one("x-request-id"));
    assert!(one("backend").starts_with('b') && one("client") == "127.0.0.1", "{error}");
    assert_eq!(api.get("/api/v1/errors")["errors"][1]["reason"], "no_route");
}

#[test]
fn explain_says_what_would_happen_and_takes_nothing() {
    let [a, b] = origins();
    let text = format!(
        "{MANAGEMENT}backends: {{u: [{{id: a, host: 127.0.0.1, port: {}, weight: 300, max_conn: 1}}, \
         {{id: b, host: 127.0.0.1, port: {}}}, {{id: off, host: 127.0.0.1, port: 1, active: false}}]}}\n\
         routing:\n  all: {{upstream: u, protocols: {{websocket: ip_hash}}}}\n  \
         exact: {{hosts: [x.test], path: /api, upstream: u, deny: [10.0.0.0/8]}}\n  \
         moved: {{hosts: [\"*.old.test\"], redirect: {{status: 301, location: \"https://new.test/\"}}}}\n",
        a.port(),
        b.port()
    );
    let proxy = Proxy::start(&[], &text);
    let api = Api::of(&proxy);
    let told = api.get("/api/v1/explain?host=x.test&path=/a%2570i/../api/x?q=1&client=192.0.2.1");
    assert_eq!(
        (&told["route"], &told["path"], &told["algorithm"]),
        (&json!("exact"), &json!("/api/x"), &json!("least_connections_weight")),
        "{told}"
    );
    assert_eq!(told["candidates"], json!(["a"]), "{told}");
    assert_eq!(told["matches"][1]["route"], "all");
    let off = &told["backends"][2];
    assert!(off["eligible"] == false && off["why"].as_str().is_some_and(|why| why.contains("active: false")), "{off}");
    let denied = api.get("/api/v1/explain?host=x.test&path=/api&client=10.1.1.1");
    assert_eq!(denied["answer"]["reason"], "denied", "{denied}");
    let moved = api.get("/api/v1/explain?host=a.old.test");
    assert_eq!((&moved["route"], &moved["answer"]["status"]), (&json!("moved"), &json!(301)));
    let bad = api.get("/api/v1/explain?host=x.test&method=CONNECT");
    assert_eq!(bad["answer"]["reason"], "method_not_served", "{bad}");
    let socket =
        api.get("/api/v1/explain?host=y&client=192.0.2.7&header=Upgrade:%20websocket&header=Connection:%20upgrade");
    assert_eq!((&socket["protocol"], &socket["algorithm"]), (&json!("websocket"), &json!("ip_hash")), "{socket}");
    assert_eq!(socket["candidates"].as_array().map(Vec::len), Some(1));
    assert_eq!(api.ask("GET", "/api/v1/explain?host=x%0d%0a%0d%0aGET%20/&path=/").0, 400);
    // Full, it says so.
    let mut held = proxy.client();
    held.send_get("/gate/go");
    a.wait_for_in_flight(1);
    let told = api.get("/api/v1/explain?host=z");
    assert!(told["backends"][0]["why"].as_str().is_some_and(|why| why.contains("max_conn")), "{told}");
    assert_eq!(told["candidates"], json!(["b"]));
    a.gate("go").open();
    assert_eq!(held.response().status, 200);
    // RFC 9110, section 7.6.2: the last one to get it is the proxy.
    let told = api.get("/api/v1/explain?method=OPTIONS&host=x&header=Max-Forwards:%200");
    assert_eq!((&told["answer"]["status"], &told["candidates"]), (&json!(204), &Json::Null), "{told}");
    assert_eq!(proxy.stats().requests, 1, "asking is no request");
}

#[test]
fn reports_move_the_balance() {
    let [a, b] = origins();
    let rule = "load_balancer: performance_least_connections_weight";
    let proxy = Proxy::start(&[], &format!("{MANAGEMENT}{}", balanced(&[(&a, ""), (&b, "")], "", rule)));
    let api = Api::of(&proxy);
    let report = json!({"upstream": "default", "backend_id": "b0",
        "performance": {"cpu_usage": 90, "memory_usage": 80, "load_avg_1": 4, "cpus": 8, "agent": "any"}});
    assert_eq!(api.tell("POST", "/api/v1/report", &report).0, 202);
    let told = api.get("/api/v1/stats/backend?upstream=default&backend_id=b0");
    let utilisation = told["performance"]["utilisation"].as_f64().expect("a number");
    assert!((utilisation - (0.4 * 0.9 + 0.4 * 0.8 + 0.2 * 0.5)).abs() < 1e-3, "{told}");
    let [loaded, free] = shares(&proxy, [&a, &b], 40);
    assert!(loaded < free, "{loaded} of 40 went to the loaded one");
}

#[test]
fn the_stream_tells_once_a_second() {
    let [a, b] = origins();
    let (proxy, _api) = start([&a, &b]);
    let mut client = Client::connect(proxy.management());
    client.send("GET /api/v1/stats/stream HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let head = client.head();
    assert_eq!((head.status, head.fields.one("content-type").as_deref()), (200, Some("text/event-stream")));
    for _ in 0..2 {
        let json = next_event(&mut client);
        assert_eq!(json["ready"], true);
        assert_eq!(json["backends"].as_array().map(Vec::len), Some(2));
        assert!(json["server"]["proxy"]["connections"]["active"].is_u64(), "{json}");
    }
}

fn next_event(client: &mut Client) -> Json {
    let mut event = Vec::new();
    while !event.ends_with(b"\n\n") {
        event.extend(client.wire.chunk().expect("a chunk").expect("more of the stream"));
    }
    let text = String::from_utf8(event).expect("text");
    serde_json::from_str(text.trim().strip_prefix("data: ").expect("an event")).expect("JSON")
}

#[test]
fn all_who_listen_are_told_the_same() {
    let [a, b] = origins();
    let (proxy, _api) = start([&a, &b]);
    let mut listeners: Vec<Client> = (0..3).map(|_| Client::connect(proxy.management())).collect();
    for listener in &mut listeners {
        listener.send("GET /api/v1/stats/stream HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(listener.head().status, 200);
    }
    let told = |listener: &mut Client| [(); 4].map(|()| next_event(listener)["server"]["timestamp"].as_u64());
    let told: Vec<_> = listeners.iter_mut().map(told).collect();
    // One of them may have come just before the second's end.
    let shared = told[0].iter().filter(|at| told.iter().all(|other| other.contains(at))).count();
    assert!(shared >= 3, "{told:?}");
}

#[test]
fn a_draining_proxy_is_not_ready_and_still_tells() {
    let [a, b] = origins();
    let (proxy, api) = start([&a, &b]);
    let mut held = proxy.client();
    held.send_get("/gate/go");
    wait::until("a request under way", || a.in_flight() + b.in_flight() == 1);
    assert_eq!(api.send("GET", "/readyz", b"").text(), "ready\n");
    proxy.drain();
    wait::until("not ready", || api.send("GET", "/readyz", b"").status == 503);
    assert_eq!(api.send("GET", "/healthz", b"").status, 200);
    // Nobody would ever accept there.
    let (status, refused) = api.tell("PATCH", "/api/v1/config", &json!({"server": {"listen": ["127.0.0.1:0"]}}));
    assert!(status == 409 && refused["error"].as_str().is_some_and(|e| e.contains("shutting down")), "{refused}");
    a.gate("go").open();
    b.gate("go").open();
    assert_eq!(held.response().status, 200);
}

#[test]
fn every_counter_is_in_the_metrics() {
    let [a, b] = origins();
    let (proxy, api) = start([&a, &b]);
    assert_eq!(proxy.client().get("/").status, 200);
    let page = api.send("GET", "/metrics", b"");
    assert_eq!(page.fields.one("content-type").as_deref(), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = page.text();
    assert!(text.contains("speedmimi_ready 1\n") && text.contains("speedmimi_config_file_refused 0\n"), "{text}");
    let open = api.with("Accept", "application/openmetrics-text").send("GET", "/metrics", b"").text();
    assert!(open.ends_with("# EOF\n"), "{open}");
}
