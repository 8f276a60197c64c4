//! The table against rules worked out by hand, and against a reading of the rules without any table.

use super::*;
use crate::balance::Algorithm;
use crate::config::plan::{HeaderEdits, Target, UpstreamId};
use crate::http::class::Protocol;
use proptest::prelude::*;

fn route(hosts: &[&str], path: &str) -> Arc<Route> {
    Arc::new(Route {
        name: format!("{hosts:?}{path}"),
        hosts: hosts.iter().map(|host| host.to_string()).collect(),
        path: path.into(),
        target: Target::Upstream(UpstreamId(0)),
        algorithms: [Algorithm::RoundRobin; Protocol::COUNT],
        strip_prefix: false,
        response_timeout: None,
        max_body_bytes: 0,
        allow: vec![],
        deny: vec![],
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
    })
}

fn table(rules: &[(&[&str], &str)]) -> RouteTable {
    let routes: Vec<_> = rules.iter().map(|(hosts, path)| route(hosts, path)).collect();
    RouteTable::build(&routes)
}

fn find(table: &RouteTable, host: &str, path: &str) -> Option<u32> {
    table.find(host.as_bytes(), path.as_bytes()).map(|id| id.0)
}

#[test]
fn the_most_exact_host_comes_first() {
    let table = table(&[
        (&[], "/"),
        (&["*.example.com"], "/"),
        (&["*.b.example.com"], "/"),
        (&["a.b.example.com", "other.test"], "/"),
    ]);
    for (host, expected) in [
        ("a.b.example.com", 3),
        ("c.b.example.com", 2),
        ("d.c.b.example.com", 2),
        ("b.example.com", 1),
        ("example.com", 0),
        (".example.com", 0),
        ("notexample.com", 0),
        ("OTHER.test.:8080", 3),
        ("", 0),
    ] {
        assert_eq!(find(&table, host, "/x"), Some(expected), "{host}");
    }
}

#[test]
fn ports_dots_case_and_brackets_are_passed_over() {
    let table = table(&[(&["example.com"], "/"), (&["[2001:db8::a]"], "/"), (&["::1"], "/"), (&["10.0.0.1"], "/")]);
    for (host, expected) in [
        ("example.com", Some(0)),
        ("EXAMPLE.com:443", Some(0)),
        ("example.com.", Some(0)),
        ("example.com..", None),
        ("[2001:DB8::A]", Some(1)),
        ("[2001:db8::a]:8080", Some(1)),
        ("[::1]:80", Some(2)),
        ("10.0.0.1:80", Some(3)),
        ("10.0.0.2:80", None),
    ] {
        assert_eq!(find(&table, host, "/"), expected, "{host}");
    }
}

#[test]
fn the_longest_path_on_whole_segments_wins() {
    // Bytes before '/' ('-') and after it ('x') stand between a path and what is under it.
    let table = table(&[(&[], "/api"), (&[], "/api-x"), (&[], "/api/v1"), (&[], "/api/v1-x"), (&[], "/apix")]);
    for (path, expected) in [
        ("/api", Some(0)),
        ("/api/", Some(0)),
        ("/api/v", Some(0)),
        ("/api/v1", Some(2)),
        ("/api/v1/x", Some(2)),
        ("/api/v1-", Some(0)),
        ("/api/v1-x/", Some(3)),
        ("/api/v2", Some(0)),
        ("/api-x", Some(1)),
        ("/api-", None),
        ("/apix/y", Some(4)),
        ("/apixy", None),
        ("/", None),
        ("*", None),
    ] {
        assert_eq!(find(&table, "h", path), expected, "{path}");
    }
}

#[test]
fn a_host_without_a_fitting_path_falls_through() {
    let table = table(&[(&["a.test"], "/api"), (&["*.test"], "/static"), (&[], "/")]);
    assert_eq!(find(&table, "a.test", "/api/x"), Some(0));
    assert_eq!(find(&table, "a.test", "/static/x"), Some(1));
    assert_eq!(find(&table, "a.test", "/"), Some(2));
    assert_eq!(find(&table, "a.test", "*"), Some(2));
}

#[test]
fn a_host_longer_than_any_name_finds_the_routes_for_all() {
    let table = table(&[(&["*.test"], "/"), (&[], "/")]);
    let longest = format!("{}.test", "a".repeat(HOST_BYTES_MAX - 5));
    assert_eq!(find(&table, &longest, "/"), Some(0));
    assert_eq!(find(&table, &format!("a{longest}"), "/"), Some(1));
    assert_eq!(find(&table, &".".repeat(HOST_BYTES_MAX), "/"), Some(1));
}

#[test]
fn explain_tells_all_that_match_in_order() {
    let table =
        table(&[(&[], "/"), (&["*.test"], "/a"), (&["a.test"], "/a/b"), (&["a.test"], "/a"), (&["a.test"], "/b")]);
    let told: Vec<_> = table.explain(b"a.test", b"/a/b/c").into_iter().map(|(id, kind)| (id.0, kind)).collect();
    assert_eq!(told, [(2, HostMatch::Exact), (3, HostMatch::Exact), (1, HostMatch::Wildcard), (0, HostMatch::Any)]);
}

#[test]
fn ten_thousand_routes_are_found() {
    let names: Vec<String> = (0..100).map(|i| format!("h{i}.example.com")).collect();
    let mut routes = Vec::new();
    for name in &names {
        routes.extend((0..100).map(|i| route(&[name], &format!("/service/{i}"))));
    }
    let table = RouteTable::build(&routes);
    for (i, route) in routes.iter().enumerate() {
        assert_eq!(find(&table, &route.hosts[0], &format!("{}/x", route.path)), Some(i as u32));
    }
}

/// How well `rule` fits, or `None`; a greater answer is preferred. What SPEC says, word by word.
fn fit(rule: &Route, host: &str, path: &str) -> Option<(u8, usize, usize)> {
    let under = rule.path == "/" || path == rule.path || path.starts_with(&format!("{}/", rule.path));
    let host_fit = |pattern: &String| match pattern.strip_prefix('*') {
        Some(suffix) => (host.len() > suffix.len() && host.ends_with(suffix)).then_some((1, suffix.len())),
        None => (host == pattern).then_some((2, 0)),
    };
    let host = if rule.hosts.is_empty() { Some((0, 0)) } else { rule.hosts.iter().filter_map(host_fit).max() };
    under.then_some(())?;
    host.map(|(kind, length)| (kind, length, rule.path.len()))
}

fn host() -> impl Strategy<Value = String> {
    prop::collection::vec("[ab]", 1..4).prop_map(|labels| labels.join("."))
}

fn rule() -> impl Strategy<Value = Arc<Route>> {
    let pattern = prop_oneof![host(), host().prop_map(|host| format!("*.{host}"))];
    (prop::collection::vec(pattern, 0..3), path()).prop_map(|(hosts, path)| {
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        route(&hosts, &path)
    })
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec("[a-]{1,2}", 0..4).prop_map(|segments| format!("/{}", segments.join("/")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn the_table_finds_what_reading_all_rules_finds(
        rules in prop::collection::vec(rule(), 0..24),
        requests in prop::collection::vec((host(), path()), 16),
    ) {
        let table = RouteTable::build(&rules);
        for (host, path) in requests {
            let fits = rules.iter().filter_map(|rule| fit(rule, &host, &path));
            let found = table.find(host.as_bytes(), path.as_bytes());
            let found_fit = found.and_then(|id| fit(&rules[id.0 as usize], &host, &path));
            prop_assert_eq!(found_fit, fits.max(), "{} {}", host, path);
            prop_assert_eq!(found, table.explain(host.as_bytes(), path.as_bytes()).first().map(|first| first.0));
        }
    }
}
