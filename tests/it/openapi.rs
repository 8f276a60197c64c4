//! The served description against what is served: every route is there, and every answer is as its schema says.
//!
//! Owns the small part of JSON Schema that the description's answers are written in. Made-up requests are for
//! schemathesis: `tests/openapi/run.sh`.

use serde_json::{Value as Json, json};
use speedmimi::admin::rest::ROUTES;

use crate::api::Api;
use crate::client::Client;
use crate::origin::{self, Origin};
use crate::proxy::{Proxy, balanced};

const MANAGEMENT: &str = "grpc: {port: 0}\n";

fn before(origin: &Origin) -> Proxy {
    Proxy::start(&[], &format!("{MANAGEMENT}{}", balanced(&[(origin, "")], "", "load_balancer: round_robin")))
}

#[test]
fn every_route_answers_by_its_method() {
    let origin = Origin::start(origin::by_path);
    let proxy = before(&origin);
    for (method, path) in ROUTES {
        let mut client = Client::connect(proxy.management());
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"));
        let status = client.head().status;
        assert!(![404, 405].contains(&status), "{method} {path}: {status}");
    }
}

#[test]
fn the_description_is_told_apart_by_its_tag_and_by_whether_a_token_is_needed() {
    let origin = Origin::start(origin::by_path);
    let open = before(&origin);
    let path = "/api/v1/openapi.json";
    let told = Api::of(&open).send("GET", path, b"");
    assert_eq!(told.fields.one("cache-control").as_deref(), Some("no-store"));
    let tag = told.fields.one("etag").expect("a tag");
    for known in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
        assert_eq!(Api::of(&open).with("If-None-Match", &known).send("GET", path, b"").status, 304, "{known}");
    }
    assert_eq!(Api::of(&open).get(path)["security"], json!([]));
    let backends = balanced(&[(&origin, "")], "", "load_balancer: round_robin");
    let closed = Proxy::start(&[], &format!("grpc: {{port: 0, token: everything-goes}}\n{backends}"));
    assert_eq!(Api::of(&closed).ask("GET", path).0, 401);
    let api = Api::of(&closed).token("everything-goes");
    assert_eq!(api.get(path)["security"], json!([{"bearer": []}]));
    assert_eq!(api.with("If-None-Match", &tag).send("GET", path, b"").status, 200);
}

#[test]
fn every_answer_is_as_described() {
    let origin = Origin::start(origin::by_path);
    let proxy = before(&origin);
    let api = Api::of(&proxy);
    let described = Description(api.get("/api/v1/openapi.json"));
    assert_eq!(proxy.client().get("/").status, 200);
    assert_eq!(proxy.client().request("GET", "/", &[("Host", "twice")], b"").status, 400);
    let report = json!({"upstream": "default", "backend_id": "b0", "performance": {"cpu_usage": 50}});
    assert_eq!(api.tell("POST", "/api/v1/report", &report).0, 202);
    for (method, target, body, status) in [
        ("GET", "/api/v1/config", Json::Null, 200),
        ("PATCH", "/api/v1/config", json!({"log": {"level": "warn"}}), 200),
        ("PATCH", "/api/v1/config", json!({"log": {"level": "loud", "format": "odd"}}), 400),
        ("POST", "/api/v1/config/reload", Json::Null, 409),
        ("POST", "/api/v1/config/reload-ssl", Json::Null, 409),
        ("GET", "/api/v1/certificates", Json::Null, 200),
        ("GET", "/api/v1/upstreams", Json::Null, 200),
        ("GET", "/api/v1/backends", Json::Null, 200),
        ("GET", "/api/v1/stats/server", Json::Null, 200),
        ("GET", "/api/v1/stats/backend?upstream=default&backend_id=b0", Json::Null, 200),
        ("GET", "/api/v1/stats/backend?upstream=default&backend_id=b9", Json::Null, 404),
        ("POST", "/api/v1/report", report, 202),
        ("GET", "/api/v1/explain?host=a", Json::Null, 200),
        ("GET", "/api/v1/errors", Json::Null, 200),
        ("GET", "/api/v1/changes", Json::Null, 200),
        ("GET", "/api/v1/log/level", Json::Null, 200),
        ("PUT", "/api/v1/log/level", json!({"level": "error"}), 200),
        ("DELETE", "/api/v1/backends/remove?upstream=default&backend_id=b0", Json::Null, 409),
    ] {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let response = api.send(method, target, body.as_bytes());
        let text = response.text();
        assert_eq!(response.status, status, "{method} {target}: {text}");
        let told: Json = serde_json::from_str(&text).expect("JSON");
        let path = target.split('?').next().unwrap_or(target);
        described.holds(described.answer(method, path, status), &told, &format!("{method} {target}"));
    }
    let mut client = Client::connect(proxy.management());
    client.send("GET /api/v1/stats/stream HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.head().status, 200);
    let mut event = Vec::new();
    while !event.ends_with(b"\n\n") {
        event.extend(client.wire.chunk().expect("a chunk").expect("more of the stream"));
    }
    let told: Json = serde_json::from_slice(event.strip_prefix(b"data: ").expect("an event")).expect("JSON");
    described.holds(&described.0["paths"]["/api/v1/stats/stream"]["get"]["x-event-schema"], &told, "an event");
}

/// The served document.
struct Description(Json);

impl Description {
    /// The schema of an answer.
    fn answer(&self, method: &str, path: &str, status: u16) -> &Json {
        let answers = &self.0["paths"][path][method.to_lowercase()]["responses"];
        let answer = self.meant(&answers[status.to_string()]);
        &answer["content"]["application/json"]["schema"]
    }

    /// What a reference leads to.
    fn meant<'s>(&'s self, value: &'s Json) -> &'s Json {
        match value.get("$ref").and_then(Json::as_str) {
            Some(to) => self.meant(self.0.pointer(&to[1..]).expect("a reference that leads somewhere")),
            None => value,
        }
    }

    /// Checks a value: types, keys that are required and keys that nothing describes.
    #[track_caller]
    fn holds(&self, schema: &Json, value: &Json, at: &str) {
        let schema = self.meant(schema);
        assert!(schema.is_object(), "{at}: nothing describes it");
        let is_one = |name: &Json| match name.as_str() {
            Some("object") => value.is_object(),
            Some("array") => value.is_array(),
            Some("string") => value.is_string(),
            Some("integer") => value.is_u64() || value.is_i64(),
            Some("number") => value.is_number(),
            Some("boolean") => value.is_boolean(),
            Some("null") => value.is_null(),
            _ => false,
        };
        match &schema["type"] {
            Json::Null => {}
            Json::Array(names) => assert!(names.iter().any(is_one), "{at}: {value} is none of {names:?}"),
            name => assert!(is_one(name), "{at}: {value} is no {name}"),
        }
        if let Json::Array(items) = value {
            items.iter().enumerate().for_each(|(n, item)| self.holds(&schema["items"], item, &format!("{at}[{n}]")));
        }
        let Json::Object(map) = value else { return };
        let required = schema["required"].as_array().map_or(&[][..], Vec::as_slice);
        for name in required.iter().filter_map(Json::as_str) {
            assert!(map.contains_key(name), "{at}: {name} is missing");
        }
        for (name, value) in map {
            let at = format!("{at}.{name}");
            match (schema["properties"].get(name), &schema["additionalProperties"]) {
                (Some(schema), _) => self.holds(schema, value, &at),
                (None, below @ Json::Object(_)) => self.holds(below, value, &at),
                (None, closed) => assert!(closed.is_null(), "{at}: nothing describes it"),
            }
        }
    }
}
