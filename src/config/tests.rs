//! Whole files: what they become, and what is said of them when they are wrong.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::file::{Checked, examine, read};
use super::keys::{self, Default, KEYS, Key, Kind};
use super::plan::*;
use super::tree;
use crate::balance::Algorithm;
use crate::config::fault::Faults;
use crate::http::class::Protocol;

fn env(name: &str) -> Option<String> {
    match name {
        "PORT" => Some("8081".to_owned()),
        "TOKEN" => Some("0123456789abcdef".to_owned()),
        "INJECT" => Some("1\n    backup: true".to_owned()),
        _ => None,
    }
}

/// The faults as they are shown.
fn faults(text: &str) -> Vec<String> {
    read(text, "f.yaml", env).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

fn checked(text: &str) -> Checked {
    examine(text, "f.yaml", env).unwrap_or_else(|faults| panic!("{faults:#?}\n{text}"))
}

fn plan(text: &str) -> Plan {
    checked(text).plan
}

/// A file with an upstream `u` and a route to it, and further lines.
fn with(lines: &str) -> String {
    format!("{lines}\nbackends: {{u: [{{host: 127.0.0.1, port: 8081}}]}}\nrouting: {{r: {{upstream: u}}}}\n")
}

fn plain(addr: &str) -> Listen {
    Listen { addr: ListenAddr::Tcp(addr.parse().unwrap()), secure: false }
}

#[test]
fn the_smallest_file_has_all_defaults() {
    let plan = plan(&with(""));
    let server = &plan.server;
    assert_eq!(server.listen, [plain("0.0.0.0:8080")]);
    assert_eq!((server.max_conn, server.backlog, server.max_headers), (10_000_000, 65_535, 100));
    assert_eq!((server.workers, &server.cpu_affinity), (Workers::Auto, &CpuAffinity::Off));
    assert!(server.normalize && !server.proxy_protocol);
    assert_eq!(server.client_ip_header, None);
    let upstream = plan.upstream("u").unwrap();
    assert_eq!((upstream.retries, upstream.retry_buffer, upstream.keepalive), (2, 16 * 1024, 1024));
    assert_eq!((upstream.sticky.as_ref(), &upstream.hash_on), (None, &HashOn::ClientIp));
    let backend = &upstream.backends[0];
    assert_eq!((backend.id.as_str(), backend.name.as_str()), ("u-127.0.0.1-8081", "u-127.0.0.1-8081"));
    assert_eq!((backend.weight, backend.max_conn, backend.health_check.as_ref()), (100, 0, None));
    let route = &plan.routes[0];
    assert_eq!((route.path.as_str(), &route.target), ("/", &Target::Upstream(UpstreamId(0))));
    assert_eq!(route.algorithms, [Algorithm::LeastConnectionsWeight; Protocol::COUNT]);
    assert_eq!((route.response_timeout, route.max_body_bytes), (None, 0));
}

/// A sound file with much in it.
pub(super) const FULL: &str = r#"
server:
  host: "::1"
  port: 0
  listen: ["127.0.0.1:8090", "unix:/run/s.sock"]
  max_body_bytes: 10MiB
  client_ip_header: CF-Connecting-IP
  trusted_proxies: [10.0.0.0/8, "::1"]
  workers: 4
  cpu_affinity: [0, 2]
  fd_tables: private
  normalize: off
  congestion_control: bbr
  proxy_protocol: accept
  shutdown_delay: 5s
backends:
  b:
    - {id: one, name: Backend One, host: db.example.com, port: "${PORT}", weight: 7, backup: yes, max_conn: 5,
       health_check: {path: /ok, interval: 1s, expect: 204, host: "h.example.com:81", port: 82}}
    - {host: unix:/run/b.sock, active: false, max_conn: -1, health_check: {type: tcp}}
  a:
    - {host: "[::1]", port: 1, health_check: {path: ""}}
upstreams:
  b:
    retries: 0
    queue: {size: 10, timeout: 1s}
    hash_on: header:X-User
    sticky: {cookie: sid, ttl: 1h, secret: "${TOKEN}"}
    local_addresses: [127.0.0.2]
routing:
  z: {hosts: [Example.com, "*.Example.com"], path: /api/, upstream: b, load_balancer: hash,
      protocols: {websocket: ip_hash, grpc: round_robin}, strip_prefix: true, response_timeout: 2s,
      max_body_bytes: 1KiB, allow: [10.0.0.0/8], deny: [10.0.0.1],
      request_headers: {set: {Host: h, X-N: 1}, add: {X-A: "a b"}, remove: [X-R]}}
  r: {path: /old, redirect: {status: 308, location: "https://${host}${path}?${query}&p=${PORT}"}}
  s: {path: /robots.txt, respond: {body: "a\nb\n"}}
log: {level: debug, format: json, access: /var/log/a.log, access_format: combined}
"#;

#[test]
fn every_value_arrives_in_the_plan() {
    let plan = plan(FULL);
    let server = &plan.server;
    assert_eq!(server.listen.len(), 3);
    assert_eq!(server.client_ip_header.as_deref(), Some("CF-Connecting-IP"));
    assert_eq!(server.trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8", "::1/128"]);
    assert_eq!((server.workers, &server.cpu_affinity), (Workers::Count(4), &CpuAffinity::List(vec![0, 2])));
    assert_eq!((server.fd_tables, server.normalize, server.proxy_protocol), (FdTables::Private, false, true));
    assert_eq!((server.congestion_control.as_deref(), server.shutdown_delay), (Some("bbr"), Duration::from_secs(5)));

    assert_eq!(plan.upstreams.iter().map(|u| u.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let [one, two] = plan.upstreams[1].backends.as_slice() else { panic!() };
    assert_eq!((one.name.as_str(), &one.addr), ("Backend One", &BackendAddr::Name("db.example.com".to_owned(), 8081)));
    assert_eq!((one.weight, one.backup, one.max_conn), (7, true, 5));
    let check = one.health_check.as_ref().unwrap();
    let (path, host) = ("/ok".to_owned(), "h.example.com:81".to_owned());
    assert_eq!(check.kind, HealthCheckKind::Http { path, host, expect: (204, 204) });
    assert_eq!((check.interval, check.timeout), (Duration::from_secs(1), Duration::from_secs(5)));
    assert_eq!((check.failures, check.successes, check.port), (3, 2, 82));
    assert_eq!((two.id.as_str(), two.active, two.max_conn), ("b-unix:/run/b.sock", false, 0));
    assert_eq!(two.health_check.as_ref().map(|check| &check.kind), Some(&HealthCheckKind::Tcp));
    assert_eq!(plan.upstreams[0].backends[0].health_check.as_ref().map(|c| &c.kind), Some(&HealthCheckKind::Tcp));
    assert_eq!(plan.upstreams[0].backends[0].id, "a-::1-1");

    let b = &plan.upstreams[1];
    assert_eq!((b.retries, b.queue), (0, Queue { size: 10, timeout: Duration::from_secs(1) }));
    assert_eq!(b.hash_on, HashOn::Header("x-user".to_owned()));
    let secret = b.sticky.as_ref().and_then(|sticky| sticky.secret.as_ref()).map(super::plan::Secret::reveal);
    assert_eq!(secret, Some("0123456789abcdef"));

    let [r, s, z] = plan.routes.as_slice() else { panic!() };
    let location = "https://${host}${path}?${query}&p=8081".to_owned();
    assert_eq!(r.target, Target::Redirect { status: 308, location });
    assert_eq!(s.target, Target::Respond { status: 200, body: "a\nb\n".to_owned() });
    assert_eq!((&z.hosts[..], z.path.as_str()), (&["example.com".to_owned(), "*.example.com".to_owned()][..], "/api"));
    assert_eq!(z.target, Target::Upstream(UpstreamId(1)));
    assert_eq!(z.algorithms[Protocol::Websocket as usize], Algorithm::IpHash);
    assert_eq!(z.algorithms[Protocol::Grpc as usize], Algorithm::RoundRobin);
    assert_eq!(z.algorithms[Protocol::Http as usize], Algorithm::Hash);
    assert_eq!((z.max_body_bytes, s.max_body_bytes), (1024, 10 << 20));
    assert_eq!(z.request_headers.set, [("Host".to_owned(), "h".to_owned()), ("X-N".to_owned(), "1".to_owned())]);
    assert_eq!((&z.request_headers.remove[..], z.response_headers.is_empty()), (&["x-r".to_owned()][..], true));
    assert_eq!(plan.log.access, AccessLog::File("/var/log/a.log".into()));
    assert_eq!((plan.log.level, plan.log.access_format), (LogLevel::Debug, AccessFormat::Combined));
}

/// Cases of `faults.txt`: what they are about, their file, the faults that are expected.
fn cases(text: &str) -> Vec<(&str, String, Vec<&str>)> {
    text.split("\n### ")
        .skip(1)
        .map(|block| {
            let (title, rest) = block.split_once('\n').unwrap_or((block, ""));
            let expected: Vec<&str> = rest.lines().filter_map(|line| line.strip_prefix("> ")).collect();
            let yaml: Vec<&str> = rest.lines().filter(|line| !line.starts_with("> ") && !line.is_empty()).collect();
            (title, yaml.join("\n").replace("<TAB>", "\t"), expected)
        })
        .collect()
}

/// The file of a case is filled up, so that only what the case is about is wrong with it.
fn filled(yaml: &str) -> String {
    let mut text = format!("{yaml}\n");
    if !yaml.contains("backends:") {
        text.push_str("backends: {u: [{host: 127.0.0.1, port: 8081}]}\n");
    }
    if !yaml.contains("routing:") {
        text.push_str("routing: {r: {upstream: u}}\n");
    }
    text
}

#[test]
fn faults_are_told_as_a_tired_person_needs_them() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/faults.txt");
    let text = std::fs::read_to_string(path).unwrap();
    let mut blessed = text.split("\n### ").next().unwrap_or_default().to_owned();
    let mut wrong = String::new();
    for (title, yaml, expected) in cases(&text) {
        let told = faults(&filled(&yaml));
        if told != expected {
            wrong.push_str(&format!("{title}:\n  told     {told:#?}\n  expected {expected:#?}\n"));
        }
        let told: String = told.iter().map(|fault| format!("> {fault}\n")).collect();
        blessed.push_str(&format!("\n### {title}\n{}\n{told}", yaml.replace('\t', "<TAB>")));
    }
    if std::env::var_os("SPEEDMIMI_BLESS").is_some() {
        std::fs::write(path, blessed).unwrap();
    } else {
        assert!(wrong.is_empty(), "{wrong}");
    }
}

#[test]
fn notices_are_told_and_the_file_is_used() {
    let told = |text: &str| checked(text).notices.iter().map(ToString::to_string).collect::<Vec<_>>();
    for (lines, notice) in [
        (
            "ssl: {enabled: on, redirect: on}",
            "ssl.redirect: has no effect without ssl.port: there is no plain request to redirect",
        ),
        (
            "ssl: {enabled: on, client_ca_file: ca.crt}",
            "ssl.client_ca_file: has no effect while ssl.client_auth is off: no client is asked for a certificate",
        ),
        (
            "upstreams: {u: {tls: {server_name: a.test}}}",
            "upstreams.u.tls.server_name: has no effect: no backend of the upstream has scheme: https or h2",
        ),
        (
            "server: {park_after: 2m}",
            "server.park_after: no connection is ever parked: idle ones end after server.idle_timeout, 1m15s",
        ),
        (
            "upstreams: {u: {sticky: {ttl: 1h}}}",
            "upstreams.u.sticky.ttl: has no effect without the name of a cookie in sticky.cookie",
        ),
        (
            "server: {client_ip_header: X-A}",
            "has no effect while server.trusted_proxies is empty: the header is believed from nobody",
        ),
    ] {
        let all = told(&with(lines));
        assert_eq!(all.len(), 1, "{all:?}");
        assert!(all[0].ends_with(notice), "{all:?}");
    }
    let text = "backends: {a: [{host: a, port: 1, active: false}], b: [{host: unix:/b}]}\n\
                routing: {r: {upstream: a}, s: {path: /s, respond: {}, strip_prefix: true}}";
    assert_eq!(
        told(text),
        [
            "f.yaml:1:12: backends.a: no backend is active: every request to this upstream gets 503",
            "f.yaml:1:52: backends.b: no rule in routing leads here",
            "f.yaml:2:70: routing.s.strip_prefix: has no effect together with respond",
        ]
    );
    assert_eq!(told(&with("")), Vec::<String>::new());
}

#[test]
fn a_variable_is_a_value_and_never_yaml() {
    let text = "backends: {u: [{host: a, port: 1, name: \"${INJECT}\"}]}\nrouting: {r: {upstream: u}}";
    assert!(faults(text)[0].contains("has a line break"));
}

#[test]
fn aliases_repeat_values() {
    let text = "backends:\n  a: &two [{host: a, port: 1}, {host: b, port: 1}]\n  b: *two\n\
                routing: {a: {upstream: a}, b: {path: /b, upstream: b}}";
    assert_eq!(plan(text).backends().len(), 4);
}

#[test]
fn files_of_other_editors_are_read() {
    let plan = plan("\u{feff}%YAML 1.2\r\n---\r\nserver:\r\n  port: 81\r\nrouting: {a: {respond: {}}}\r\n...\r\n");
    assert_eq!(plan.server.listen, [plain("0.0.0.0:81")]);
    assert_eq!(faults("\u{feff}server:\r\n  prot: 81\r\nrouting: {a: {respond: {}}}\r\n").len(), 1);
}

#[test]
fn alias_bombs_deep_nesting_and_large_files_are_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    let mut chain = "a0: &a0 [x]\n".to_owned();
    for i in 1..60 {
        let inner = vec![format!("*a{}", i - 1); 9].join(", ");
        bomb.push_str(&format!("a{i}: &a{i} [{inner}]\n"));
        chain.push_str(&format!("a{i}: &a{i} [*a{}]\n", i - 1));
    }
    let block: String = (0..100).map(|i| format!("{}k:\n", " ".repeat(i))).collect();
    for (text, fault) in [
        (bomb, "aliases repeat more than 100000 values"),
        (chain, "nested deeper than 32 levels"),
        (block, "nested deeper than 32 levels"),
        ("[".repeat(10_000), "recursion limit"),
        ("#".repeat(tree::CONFIG_BYTES_MAX + 1), "more than 16777216"),
    ] {
        let told = faults(&text);
        assert!(told.iter().any(|told| told.contains(fault)), "{told:?}");
    }
}

/// The value of a key written alone into an otherwise sound file, and whether the file is then sound.
fn is_sound(key: &Key, value: &str) -> bool {
    let mut steps: Vec<&str> = key.path.split('.').collect();
    let leaf = steps.pop().unwrap_or_default();
    let mut text = format!("{leaf}: {value}");
    for step in steps.iter().rev() {
        text = match step.strip_suffix("[]") {
            Some("NAME") => {
                format!("u: [{{host: a{}, {text}}}]", if key.path == "backends.NAME[].port" { "" } else { ", port: 1" })
            }
            Some(list) => format!("{list}: [{{{text}}}]"),
            None if *step == "NAME" => format!("u: {{{text}}}"),
            None => format!("{step}: {{{text}}}"),
        };
    }
    // A route needs a target, and a redirect its location.
    text = text.replace("redirect: {status", "redirect: {location: /, status");
    if key.path.starts_with("routing.") && !text.contains("redirect:") && !text.contains("respond:") {
        text = text.replace("u: {", "u: {upstream: u, ");
    }
    text = text.replace("host: a, host:", "host:");
    if key.parent() == "grpc" && key.name() != "enabled" {
        // The rules between its keys are not what is tried here.
        text = text.replace("grpc: {", "grpc: {enabled: false, ");
    }
    faults(&filled(&text)).is_empty()
}

#[test]
fn every_key_is_held_to_its_bounds() {
    for key in KEYS {
        let (good, bad): (Vec<String>, Vec<String>) = match key.kind {
            Kind::Integer(min, max) => {
                (vec![min.to_string(), max.to_string()], vec![(min - 1).to_string(), (max + 1).to_string()])
            }
            Kind::Duration(min, max) => {
                let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap();
                let below = ms(min).checked_sub(1).map_or("-1ms".to_owned(), |below| format!("{below}ms"));
                (vec![format!("{}ms", ms(min)), format!("{}ms", ms(max))], vec![below, format!("{}ms", ms(max) + 1)])
            }
            Kind::Size(min, max) => {
                let below = min.checked_sub(1).map_or("-1".to_owned(), |below| below.to_string());
                (vec![min.to_string(), max.to_string()], vec![below, (u128::from(max) + 1).to_string()])
            }
            Kind::Choice(words) => {
                (words.iter().map(|word| format!("\"{word}\"")).collect(), vec!["nonsense".to_owned()])
            }
            Kind::Bool => (vec!["on".to_owned(), "no".to_owned()], vec!["2".to_owned(), "[]".to_owned()]),
            Kind::Section | Kind::OptionalSection | Kind::Named | Kind::NamedLists | Kind::Fields => {
                (vec![], vec!["x".to_owned(), "1".to_owned()])
            }
            Kind::List(_) | Kind::Sections => (vec![], vec!["x".to_owned(), "{a: 1}".to_owned(), "[[1]]".to_owned()]),
            Kind::Text(_) => (vec![], vec!["[x]".to_owned(), "{x: 1}".to_owned(), "\"a\\nb\\x01\"".to_owned()]),
            Kind::Workers => {
                (vec!["auto".to_owned(), "1".to_owned(), "1024".to_owned()], vec!["0".to_owned(), "1025".to_owned()])
            }
            Kind::CpuAffinity => (
                vec!["auto".to_owned(), "off".to_owned(), "[0, 1023]".to_owned()],
                vec!["[1024]".to_owned(), "[-1]".to_owned(), "on".to_owned()],
            ),
        };
        // These need more than themselves to be sound.
        let alone =
            !["server.proxy_protocol", "server.steering", "ssl.client_auth", "backends.NAME[].health_check.type"]
                .contains(&key.path);
        for value in good.iter().filter(|_| alone) {
            assert!(is_sound(key, value), "{}: {value}", key.path);
        }
        let block = matches!(key.kind, Kind::Text(keys::Form::Block));
        for value in bad.iter().filter(|value| !(block && value.starts_with('"'))) {
            assert!(!is_sound(key, value), "{}: {value}", key.path);
        }
    }
}

/// The defaults that the project promises (contract, section 2), as a file.
const PROMISED: &str = include_str!("promised.yaml");

#[test]
fn every_promised_default_is_the_one_of_the_table() {
    let mut wrong = Faults::new("promised.yaml");
    let root = tree::parse(PROMISED, &mut wrong).unwrap();
    let mut promised = BTreeSet::new();
    collect(&root, "", &mut promised);
    for (path, value) in &promised {
        let key = keys::find(path).unwrap_or_else(|| panic!("{path} is not in the table"));
        assert_eq!(default_of(key), Some(value.as_str()), "{path}");
    }
    // The other way round: a default that nobody promised is one that nobody reviewed.
    for key in KEYS.iter().filter(|key| matches!(key.default, Default::Is(_)) && !is_map(key.kind)) {
        assert!(promised.iter().any(|(path, _)| path == key.path), "{} is not in promised.yaml", key.path);
    }
}

fn is_map(kind: Kind) -> bool {
    matches!(kind, Kind::Section | Kind::OptionalSection | Kind::Named | Kind::NamedLists)
}

/// The leaves of a tree as (path, value); an empty list or map is a leaf.
fn collect(node: &tree::Node, path: &str, leaves: &mut BTreeSet<(String, String)>) {
    match &node.kind {
        tree::NodeKind::Scalar { text, .. } => drop(leaves.insert((path.to_owned(), text.clone()))),
        tree::NodeKind::List(items) if items.is_empty() => drop(leaves.insert((path.to_owned(), "[]".to_owned()))),
        tree::NodeKind::List(items) => items.iter().for_each(|item| collect(item, &format!("{path}[]"), leaves)),
        tree::NodeKind::Map(entries) if entries.is_empty() => drop(leaves.insert((path.to_owned(), "{}".to_owned()))),
        tree::NodeKind::Map(entries) => {
            for (name, value) in entries {
                let below = if path.is_empty() { name.text.clone() } else { format!("{path}.{}", name.text) };
                collect(value, &below, leaves);
            }
        }
    }
}

/// Pieces from which files are put together that come near to being valid.
pub(super) fn piece() -> impl Strategy<Value = String> {
    let names: Vec<String> = KEYS.iter().map(|key| format!("{}: ", key.name())).collect();
    let defaults: Vec<&str> = KEYS.iter().filter_map(default_of).collect();
    let structure = ["\n", "\n  ", "\n    ", "\n      ", "- ", "{", "}", "[", "]", ", ", ": ", "\"", "'"];
    let oddities = [
        "&a ", "*a", "!t ", "|", ">", "---", "...", "%YAML", "<<", "? ", "#", "\t", "${", "${A:-", "\r", "\0",
        "\u{feff}",
    ];
    prop_oneof![
        4 => proptest::sample::select(names),
        2 => proptest::sample::select(defaults).prop_map(str::to_owned),
        4 => proptest::sample::select(structure.to_vec()).prop_map(str::to_owned),
        2 => proptest::sample::select(oddities.to_vec()).prop_map(str::to_owned),
        1 => ".{0,8}",
        1 => any::<i64>().prop_map(|number| number.to_string()),
    ]
}

fn default_of(key: &Key) -> Option<&'static str> {
    match key.default {
        Default::Is(text) => Some(text),
        Default::Unset(_) | Default::Required => None,
    }
}

/// Everything that a plan refers to is there.
fn hold_together(plan: &Plan) {
    assert!(!plan.routes.is_empty());
    assert!(plan.upstreams.iter().all(|upstream| !upstream.backends.is_empty()));
    for route in &plan.routes {
        match &route.target {
            Target::Upstream(id) => assert!((id.0 as usize) < plan.upstreams.len()),
            Target::Redirect { location, .. } => assert!(!location.is_empty()),
            Target::Respond { status, .. } => assert!((200..=599).contains(status)),
        }
    }
}

proptest! {
    /// Whatever the text: an answer, and one fault at least when it is no.
    #[test]
    fn no_text_makes_it_panic(pieces in proptest::collection::vec(piece(), 0..60)) {
        if let Err(faults) = read(&pieces.concat(), "f", env) {
            prop_assert!(!faults.is_empty());
            for fault in faults {
                prop_assert!(!fault.to_string().contains('\n'));
            }
        }
    }

    /// A sound file with something cut out and something put in comes deeper than a made-up one.
    #[test]
    fn no_change_of_a_sound_file_makes_it_panic(
        cuts in proptest::collection::vec((0..FULL.len(), 0..40_usize, piece()), 0..4),
    ) {
        let mut text: Vec<char> = FULL.chars().collect();
        for (from, length, piece) in cuts {
            let from = from.min(text.len());
            text.splice(from..(from + length).min(text.len()), piece.chars());
        }
        match read(&text.into_iter().collect::<String>(), "f", env) {
            Ok(plan) => hold_together(&plan),
            Err(faults) => prop_assert!(!faults.is_empty()),
        }
    }

    #[test]
    fn no_value_makes_it_panic(at in 0..KEYS.len(), value in "[^\"\\\\]{0,20}") {
        is_sound(&KEYS[at], &format!("\"{value}\""));
    }
}
