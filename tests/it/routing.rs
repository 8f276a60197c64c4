//! What a route does to the requests it takes: which path it is held against and which is forwarded, fields of both
//! directions, answers without a backend.
//!
//! Never repeats the tables of hosts, paths and edits; those are pure and tested where they are. Here it is seen that
//! each is asked, and for the right request.

use crate::origin::{self, Origin};
use crate::proxy::Proxy;

/// Before `origin`, with these lines of `server` and these routes (YAML's flow form) of upstream `default`.
fn start(origin: &Origin, server: &[(&str, &str)], routes: &str) -> Proxy {
    let port = origin.port();
    Proxy::start(
        server,
        &format!("backends: {{default: [{{host: 127.0.0.1, port: {port}}}]}}\nrouting: {{{routes}}}\n"),
    )
}

/// The targets that reached the origin.
fn targets(origin: &Origin) -> Vec<String> {
    origin.requests().into_iter().map(|seen| seen.request.target).collect()
}

#[test]
fn a_rule_is_not_got_round_by_writing_its_path_in_another_way() {
    const ROUTES: &str = "all: {upstream: default}, admin: {path: /admin, upstream: default, deny: [127.0.0.0/8]}";
    for normalize in ["on", "off"] {
        let origin = Origin::start(origin::by_path);
        let proxy = start(&origin, &[("normalize", normalize)], ROUTES);
        let mut client = proxy.client();
        for path in ["/admin", "/%61dmin/x", "/x/../admin", "/x/%2e%2E/admin", "/./admin?q", "/admin/y/.."] {
            assert_eq!(client.get(path).status, 403, "{path}, normalize {normalize}");
        }
        client.send(b"GET http://a.test/%61dmin HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert_eq!(client.response().status, 403);
        assert_eq!(client.get("/administrator").status, 200);
        assert_eq!(targets(&origin), ["/administrator"], "normalize {normalize}");
    }
}

#[test]
fn what_was_matched_is_forwarded_unless_it_is_to_stay_as_it_came() {
    for (normalize, expected) in [("on", "/b/~c?d=/../%7E"), ("off", "/a/../b/%7Ec?d=/../%7E")] {
        let origin = Origin::start(origin::by_path);
        let proxy = start(&origin, &[("normalize", normalize)], "all: {upstream: default}");
        assert_eq!(proxy.client().get("/a/../b/%7Ec?d=/../%7E").status, 200);
        assert_eq!(targets(&origin), [expected]);
    }
}

#[test]
fn a_stripped_prefix_is_not_forwarded() {
    let origin = Origin::start(origin::by_path);
    let proxy = start(&origin, &[], "api: {path: /api, upstream: default, strip_prefix: true}");
    let mut client = proxy.client();
    for path in ["/api", "/api?q", "/api/", "/api/x/y?q", "/a/../api/x", "/%61pi/x"] {
        assert_eq!(client.get(path).status, 200, "{path}");
    }
    assert_eq!(targets(&origin), ["/", "/?q", "/", "/x/y?q", "/x", "/x"]);
}

#[test]
fn fields_of_both_directions_are_as_the_route_says() {
    let origin = Origin::start(|exchange| {
        exchange.body()?;
        exchange.finish(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nServer: x\r\nX-Old: 1\r\nX-Kept: 1\r\n\r\nok")
    });
    let proxy = start(
        &origin,
        &[],
        "all: {upstream: default, \
         request_headers: {set: {Host: b.test, X-User: us}, add: {X-Kept: more}, remove: [X-Gone]}, \
         response_headers: {set: {Server: us}, add: {X-Kept: more}, remove: [X-Old]}}",
    );
    let sent = [("X-User", "me"), ("X_User", "me"), ("X-Kept", "1"), ("X-Gone", "1"), ("x_gone", "1")];
    let answer = proxy.client().request("GET", "/", &sent, b"");
    let request = origin.only_request().request;
    assert_eq!(request.fields.one("host").as_deref(), Some("b.test"));
    assert_eq!(
        (request.fields.all("x-user").join(","), request.fields.all("x-kept").join(",")),
        ("us".into(), "1,more".into())
    );
    assert_eq!(answer.fields.one("server").as_deref(), Some("us"));
    assert_eq!((answer.fields.all("x-old").len(), answer.fields.all("x-kept").join(",")), (0, "1,more".into()));
    let raw = String::from_utf8_lossy(&request.raw).to_ascii_lowercase();
    assert!(!raw.contains("gone") && !raw.contains("x_user"), "{raw}");
}

#[test]
fn the_field_that_tells_the_address_can_be_chosen_and_not_forged() {
    let origin = Origin::start(origin::by_path);
    let proxy = start(&origin, &[("real_ip_header", "True-Client-IP")], "all: {upstream: default}");
    let lies = [("True-Client-IP", "10.9.9.9"), ("True_Client_IP", "10.9.9.9"), ("X-Real-IP", "10.9.9.9")];
    assert_eq!(proxy.client().request("GET", "/", &lies, b"").status, 200);
    let request = origin.only_request().request;
    assert_eq!(request.fields.one("true-client-ip").as_deref(), Some("127.0.0.1"));
    let raw = String::from_utf8_lossy(&request.raw).into_owned();
    assert!(!raw.contains("10.9.9.9"), "{raw}");
}

#[test]
fn a_redirect_names_what_was_asked_for() {
    let origin = Origin::start(origin::by_path);
    let location = "\"https://new.${host}${path}${query}\"";
    let routes = format!("old: {{redirect: {{status: 308, location: {location}}}}}");
    let proxy = start(&origin, &[], &routes);
    let answer = proxy.client().get("/a/./b?c=d");
    assert_eq!((answer.status, answer.body.len()), (308, 0));
    assert_eq!(answer.fields.one("location").as_deref(), Some("https://new.a.test/a/b?c=d"));
}

#[test]
fn options_that_may_go_no_further_end_here() {
    let origin = Origin::start(origin::by_path);
    let proxy = start(&origin, &[], "all: {upstream: default}");
    let mut client = proxy.client();
    assert_eq!(client.request("OPTIONS", "*", &[("Max-Forwards", "0")], b"").status, 204);
    assert_eq!(client.request("OPTIONS", "*", &[("Max-Forwards", "1")], b"").status, 200);
    assert_eq!(client.request("GET", "/", &[("Max-Forwards", "0")], b"").status, 200);
    let forwards = |seen: &origin::Seen| seen.request.fields.one("max-forwards");
    assert_eq!(origin.requests().iter().map(forwards).collect::<Vec<_>>(), [Some("0".into()), Some("0".into())]);
}
