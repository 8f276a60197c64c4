//! Random files, written in random ways, under random changes: refused, or every line that has nothing to do with the
//! change is still there, byte for byte and in order.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::super::document::{Document, merge_patch};
use super::super::json::{self, View};
use super::super::place;
use super::super::tests::{FULL, piece};
use super::{CannotEdit, rewrite};

/// A sound configuration; the few names make that two of them share much.
fn configuration(rng: &mut Rng) -> Json {
    let upstreams: Vec<&str> = ["api", "web", "x:y"].into_iter().filter(|_| rng.u8(..3) > 0).collect();
    let upstreams = if upstreams.is_empty() { vec!["api"] } else { upstreams };
    let mut routing = Map::new();
    for (i, name) in upstreams.iter().enumerate() {
        let mut rule = json!({"path": format!("/{i}"), "upstream": name});
        some(rng, &mut rule, "hosts", |rng| list(rng, &["a.com", "b.com", "*.c.com", "d.com"]));
        some(rng, &mut rule, "load_balancer", |rng| pick(rng, &["hash", "weight"]));
        some(rng, &mut rule, "protocols", |rng| json!({"sse": pick(rng, &["hash", "ip_hash"])}));
        some(rng, &mut rule, "request_headers", |rng| {
            let mut headers = json!({});
            some(rng, &mut headers, "set", |rng| json!({"X-A": pick(rng, &["1", "a b", "it's \"x\" # y", "~"])}));
            some(rng, &mut headers, "remove", |rng| list(rng, &["X-B", "X-C"]));
            headers
        });
        routing.insert(format!("to-{name}"), rule);
    }
    if rng.bool() {
        let body = pick(rng, &["", "one\n", "one\n\n  two # no comment\n", "three\nfour", "\ttab: \u{1f600}\n\n"]);
        routing.insert("hello".to_owned(), json!({"path": "/hello", "respond": {"body": body}}));
    }
    if rng.bool() {
        let location = pick(rng, &["https://${host}/a", "/b"]);
        routing.insert("old".to_owned(), json!({"path": "/old", "redirect": {"location": location}}));
    }
    let mut root = json!({});
    some(rng, &mut root, "server", server);
    root["backends"] = upstreams.iter().map(|name| ((*name).to_owned(), backends(rng))).collect();
    some(rng, &mut root, "upstreams", |rng| {
        let mut named = json!({});
        upstreams.iter().for_each(|name| some(rng, &mut named, name, upstream));
        named
    });
    root["routing"] = Json::Object(routing);
    some(rng, &mut root, "log", |rng| json!({"level": pick(rng, &["warn", "info"])}));
    root
}

fn server(rng: &mut Rng) -> Json {
    let mut server = json!({});
    some(rng, &mut server, "port", |rng| json!(rng.u16(1..4)));
    some(rng, &mut server, "read_timeout", |rng| pick(rng, &["1s", "90s", "1m"]));
    some(rng, &mut server, "normalize", |rng| json!(rng.bool()));
    some(rng, &mut server, "max_body_bytes", |rng| pick(rng, &["0", "1MiB", "1000"]));
    some(rng, &mut server, "trusted_proxies", |rng| list(rng, &["10.0.0.0/8", "::1", "1.2.3.4", "fd00::/8"]));
    some(rng, &mut server, "cpu_affinity", |rng| {
        [json!("auto"), json!([0, 1, 2]), json!([0, 2]), json!([1])][rng.usize(..4)].clone()
    });
    server
}

fn backends(rng: &mut Rng) -> Json {
    let mut all = Vec::new();
    for port in 1..5 {
        if rng.u8(..3) == 0 && !(port == 4 && all.is_empty()) {
            continue;
        }
        let mut backend = json!({});
        some(rng, &mut backend, "id", |_| json!(format!("b{port}")));
        backend["host"] = pick(rng, &["127.0.0.1", "::1", "h", "unix:/b.sock"]);
        if backend["host"] == "unix:/b.sock" {
            backend["id"] = json!(format!("b{port}"));
        } else {
            backend["port"] = json!(port);
        }
        some(rng, &mut backend, "name", |rng| pick(rng, &["One", "a 'b' \"c\"", "é: ü", "123", "true"]));
        some(rng, &mut backend, "weight", |rng| json!(rng.u8(1..4)));
        some(rng, &mut backend, "health_check", |rng| {
            let mut check = json!({});
            some(rng, &mut check, "type", |rng| pick(rng, &["tcp", "http"]));
            some(rng, &mut check, "interval", |rng| pick(rng, &["1s", "2s"]));
            check
        });
        all.push(backend);
    }
    Json::Array(all)
}

fn upstream(rng: &mut Rng) -> Json {
    let mut upstream = json!({});
    some(rng, &mut upstream, "retries", |rng| json!(rng.u8(0..3)));
    some(rng, &mut upstream, "queue", |rng| json!({"size": rng.u8(0..3)}));
    some(
        rng,
        &mut upstream,
        "sticky",
        |rng| json!({"cookie": "c", "secret": pick(rng, &["0123456789abcdef", "fedcba9876543210"])}),
    );
    upstream
}

fn some(rng: &mut Rng, map: &mut Json, name: &str, value: impl FnOnce(&mut Rng) -> Json) {
    if rng.bool() {
        map[name] = value(rng);
    }
}

fn pick(rng: &mut Rng, texts: &[&str]) -> Json {
    json!(texts[rng.usize(..texts.len())])
}

fn list(rng: &mut Rng, texts: &[&str]) -> Json {
    texts.iter().filter(|_| rng.bool()).map(|text| json!(text)).collect()
}

/// A line of a file and what it belongs to.
struct Line {
    text: String,
    /// Paths of which a change may change the line.
    of: Vec<String>,
}

/// Writes configurations in random ways.
struct Writer<'r> {
    rng: &'r mut Rng,
    lines: Vec<Line>,
    comments: usize,
    /// What has to be on a line before its value.
    odd: bool,
}

impl Writer<'_> {
    fn comment(&mut self) -> String {
        self.comments += 1;
        format!("# c{}{}", self.comments, ["", " {", ": 'x", " - y"][self.rng.usize(..4)])
    }

    fn push(&mut self, indent: usize, text: &str, of: Vec<String>) {
        let mut text = format!("{}{text}", " ".repeat(indent));
        if self.rng.u8(..4) == 0 {
            text = format!("{text}  {}", self.comment());
        }
        self.lines.push(Line { text, of });
    }

    /// A comment or a blank line inside `path`.
    fn between(&mut self, indent: usize, path: &str) {
        if self.rng.u8(..4) == 0 {
            let text =
                if self.rng.bool() { String::new() } else { format!("{}{}", " ".repeat(indent), self.comment()) };
            self.lines.push(Line { text, of: vec![path.to_owned()] });
        }
    }

    /// The pairs of a map; `front` stands before the first key.
    fn map(&mut self, map: &Map<String, Json>, indent: usize, front: &str, path: &str) {
        for (i, (name, value)) in map.iter().enumerate() {
            let below = join(path, name);
            if front.is_empty() || i > 0 {
                self.between(indent, path);
            }
            let (column, front) = if i == 0 { (indent - front.len(), front) } else { (indent, "") };
            let key = if name.contains(':') { format!("\"{name}\"") } else { name.clone() };
            let mut of = vec![below.clone()];
            if indent > 0 && i < 2 {
                // A first pair that goes leaves its dash to the second.
                of.push(join(path, map.keys().next().map_or("", String::as_str)));
            }
            self.value(value, column, indent, &format!("{front}{key}:"), &below, of);
        }
    }

    /// `column` is where the line begins, `indent` that of the key.
    fn value(&mut self, value: &Json, column: usize, indent: usize, front: &str, path: &str, mut of: Vec<String>) {
        match value {
            Json::Object(map) if !map.is_empty() && (self.rng.u8(..3) > 0 || !is_small(value)) => {
                self.push(column, front, of);
                let step = self.rng.usize(1..4);
                self.map(map, indent + step, "", path);
            }
            Json::Array(items) if !items.is_empty() && (self.rng.u8(..3) > 0 || !is_small(value)) => {
                self.push(column, front, of);
                let step = self.rng.usize(..3);
                self.items(items, indent + step, path);
            }
            Json::String(text)
                if text.ends_with('\n') && text.starts_with(|c: char| c.is_alphabetic()) && self.rng.bool() =>
            {
                self.lines.push(Line { text: format!("{}{front} |", " ".repeat(column)), of: of.clone() });
                for line in text.lines() {
                    let text =
                        if line.is_empty() { String::new() } else { format!("{}{line}", " ".repeat(indent + 2)) };
                    self.lines.push(Line { text, of: of.clone() });
                }
            }
            Json::Object(_) | Json::Array(_) => {
                of.push(format!("{path}.."));
                let anchor =
                    if self.odd && self.rng.u8(..12) == 0 { format!("&a{} ", self.rng.u32(..)) } else { String::new() };
                let flow = self.flow(value);
                self.push(column, &format!("{front} {anchor}{flow}"), of);
            }
            _ => {
                let scalar = self.scalar(value, false);
                self.push(column, &format!("{front} {scalar}"), of);
            }
        }
    }

    fn items(&mut self, items: &[Json], indent: usize, path: &str) {
        for item in items {
            let below = format!("{path}[{}]", name_of(path, item));
            self.between(indent, path);
            match item {
                Json::Object(map) if self.rng.bool() => {
                    let front = ["- ", "-   "][self.rng.usize(..2)];
                    self.map(map, indent + front.len(), front, &below);
                }
                _ => {
                    let mut of = vec![below.clone()];
                    of.push(format!("{below}.."));
                    let flow = self.flow(item);
                    self.push(indent, &format!("- {flow}"), of);
                }
            }
        }
    }

    fn flow(&mut self, value: &Json) -> String {
        match value {
            Json::Object(map) => {
                let mut parts = Vec::new();
                for (name, value) in map {
                    let key = if name.contains(':') { format!("\"{name}\"") } else { name.clone() };
                    parts.push(format!("{key}: {}", self.flow(value)));
                }
                self.brackets("{", &parts, "}")
            }
            Json::Array(items) => {
                let parts: Vec<_> = items.iter().map(|item| self.flow(item)).collect();
                self.brackets("[", &parts, "]")
            }
            scalar => self.scalar(scalar, true),
        }
    }

    fn brackets(&mut self, open: &str, parts: &[String], close: &str) -> String {
        let comma = if !parts.is_empty() && self.rng.u8(..4) == 0 { "," } else { "" };
        let blank = if self.rng.u8(..4) == 0 { " " } else { "" };
        format!("{open}{blank}{}{comma}{blank}{close}", parts.join([", ", ",  "][self.rng.usize(..2)]))
    }

    fn scalar(&mut self, value: &Json, in_flow: bool) -> String {
        let text = match value {
            Json::String(text) => text.replace("${", if text.contains("${host}") { "${" } else { "$${" }),
            other => other.to_string(),
        };
        if self.odd && self.rng.u8(..12) == 0 && !text.contains(['}', '"', '\n', '\t']) {
            return format!("\"${{V{}:-{text}}}\"", self.rng.u8(..));
        }
        let odd = |c: char| !(c.is_ascii_alphanumeric() || "/-_.".contains(c) || (c == ' ' && !in_flow));
        let plain = !text.is_empty() && text != "~" && !text.contains(odd);
        match self.rng.u8(..4) {
            0 if !text.contains(['\n', '\t']) => format!("'{}'", text.replace('\'', "''")),
            1 | 2 if plain => text,
            _ => Json::String(text).to_string(),
        }
    }
}

fn is_small(value: &Json) -> bool {
    !value.to_string().contains("\\n") && value.to_string().len() < 300
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// What an item of a list is known by.
fn name_of(path: &str, item: &Json) -> String {
    let Json::Object(map) = item else { return item.as_str().map_or_else(|| item.to_string(), str::to_owned) };
    let text = |name: &str| map.get(name).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    let upstream = path.rsplit('.').next().unwrap_or_default();
    text("id").unwrap_or_else(|| {
        format!("{upstream}-{}-{}", text("host").unwrap_or_default(), text("port").unwrap_or_default())
    })
}

/// Every value below by its path.
fn leaves(value: &Json, path: &str, all: &mut BTreeMap<String, Json>) {
    match value {
        Json::Object(map) => map.iter().for_each(|(name, value)| leaves(value, &join(path, name), all)),
        Json::Array(items) => {
            items.iter().for_each(|item| leaves(item, &format!("{path}[{}]", name_of(path, item)), all));
        }
        value => drop(all.insert(path.to_owned(), value.clone())),
    }
    let below = match value {
        Json::Object(map) => json!(map.is_empty()),
        Json::Array(items) => items.iter().map(|item| json!(name_of(path, item))).collect(),
        _ => return,
    };
    all.insert(path.to_owned(), below);
}

/// Takes something of another configuration over, or takes something out.
fn mutate(rng: &mut Rng, value: &mut Json, donor: Option<&Json>, depth: usize) {
    let stop = depth > 0 && rng.u8(..3) == 0;
    match (value, donor) {
        (Json::Object(map), donor) if !stop => {
            let names: Vec<String> = match donor {
                Some(Json::Object(donor)) => donor.keys().cloned().collect(),
                _ => map.keys().cloned().collect(),
            };
            if names.is_empty() {
                return;
            }
            let name = &names[rng.usize(..names.len())];
            match (map.get_mut(name), donor.and_then(|donor| donor.get(name))) {
                (None, Some(new)) => drop(map.insert(name.clone(), new.clone())),
                (Some(_), None) if depth > 1 && rng.bool() => drop(map.shift_remove(name)),
                (Some(old), donor) => mutate(rng, old, donor, depth + 1),
                (None, None) => {}
            }
        }
        (Json::Array(items), donor) if !stop && !items.is_empty() => {
            let at = rng.usize(..items.len());
            let new =
                donor.and_then(Json::as_array).filter(|new| !new.is_empty()).map(|new| &new[rng.usize(..new.len())]);
            match (rng.u8(..8), new) {
                (0..3, _) => drop(items.remove(at)),
                (3..5, Some(new)) if !items.contains(new) => items.insert(at, new.clone()),
                (5, _) => items.reverse(),
                (_, new) => {
                    if items[at].is_object() {
                        mutate(rng, &mut items[at], new, depth + 1);
                    }
                }
            }
        }
        (value, Some(new)) => value.clone_from(new),
        (value, None) if value.is_object() => *value = json!({}),
        _ => {}
    }
}

fn whole(document: &Document, view: View) -> BTreeMap<String, Json> {
    let mut all = BTreeMap::new();
    leaves(&json::section("", document.root(), view), "", &mut all);
    all
}

/// Paths that are not written as they were: values, and sections that came or went.
fn touched(old: &Document, new: &Document) -> BTreeSet<String> {
    let (before, after) = (whole(old, View::Written), whole(new, View::Written));
    let mut touched = BTreeSet::new();
    for path in before.keys().chain(after.keys()) {
        match (before.get(path), after.get(path)) {
            (Some(Json::Array(old)), Some(Json::Array(new))) => {
                let both = |one: &[Json], other: &[Json]| -> Vec<Json> {
                    one.iter().filter(|name| other.contains(name)).cloned().collect()
                };
                if old.is_empty() != new.is_empty() {
                    touched.insert(path.clone());
                } else if both(old, new) != both(new, old) {
                    // Another order writes all of a list anew.
                    touched.extend(before.keys().filter(|below| below.starts_with(path.as_str())).cloned());
                }
            }
            (old, new) if old != new => drop(touched.insert(path.clone())),
            _ => {}
        }
    }
    // A map of which nothing stays is `{}` where what comes instead is its default.
    for (path, _) in before.iter().filter(|(_, value)| **value == json!(false)) {
        let front = format!("{path}.");
        if before.keys().filter(|below| below.starts_with(&front)).all(|below| touched.contains(below)) {
            touched.insert(path.clone());
        }
    }
    touched
}

/// What one random file under one random change comes to.
enum Ran {
    /// The change is no sound configuration, or none at all.
    Skipped,
    Refused(CannotEdit),
    Rewritten,
}

fn run(seed: u64, odd: bool) -> Ran {
    let rng = &mut Rng::with_seed(seed);
    let env = |_: &str| None;
    let configuration_before = configuration(rng);
    let mut writer = Writer { rng, lines: Vec::new(), comments: 0, odd };
    let Json::Object(map) = &configuration_before else { unreachable!() };
    writer.map(map, 0, "", "");
    writer.between(0, "");
    let mut lines = writer.lines;
    while lines.last().is_some_and(|line| line.text.is_empty()) {
        lines.pop();
    }
    let newline = if rng.u8(..4) == 0 { "\r\n" } else { "\n" };
    let mut text: String = lines.iter().map(|line| format!("{}{newline}", line.text)).collect();
    if rng.u8(..4) == 0 {
        text.truncate(text.len() - newline.len());
    }
    let old = Document::from_text(&text, "f", env).unwrap_or_else(|faults| panic!("{seed}: {faults:#?}\n{text}"));
    let mut value = json::section("", old.root(), View::Written);
    for _ in 0..rng.usize(1..4) {
        let donor = configuration(rng);
        let donor = if rng.u8(..4) == 0 { None } else { Some(&donor) };
        mutate(rng, &mut value, donor, 0);
    }
    let Ok(new) = Document::from_value(&value, &old, env) else { return Ran::Skipped };
    if new.means_the_same(&old) {
        assert_eq!(rewrite(&text, &new, env).as_deref(), Ok(text.as_str()), "{seed}");
        return Ran::Skipped;
    }
    let changed = match rewrite(&text, &new, env) {
        Ok(changed) => changed,
        Err(error) => return Ran::Refused(error),
    };
    let back =
        Document::from_text(&changed, "f", env).unwrap_or_else(|faults| panic!("{seed}: {faults:#?}\n{changed}"));
    assert!(back.means_the_same(&new), "{seed}\n{text}\n{changed}");
    let touched = touched(&old, &new);
    let is_touched = |of: &String| match of.strip_suffix("..") {
        Some(above) => touched.iter().any(|path| path.starts_with(above)),
        None => touched.contains(of),
    };
    let mut left = changed.lines();
    for line in lines.iter().filter(|line| !line.of.iter().any(is_touched)) {
        assert!(
            left.any(|left| left == line.text),
            "{seed}: lost or moved: {:?} of {:?}\ntouched {touched:#?}\n--- before\n{text}\n--- after\n{changed}",
            line.text,
            line.of,
        );
    }
    if newline == "\r\n" {
        assert!(
            changed.matches('\n').count() == changed.matches("\r\n").count(),
            "{seed}: mixed line breaks\n{changed}"
        );
    }
    Ran::Rewritten
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn lines_that_have_nothing_to_do_with_the_change_stay(seed: u64, odd: bool) {
        run(seed, odd);
    }
}

proptest! {
    /// Whatever stands in the file by now: an answer.
    #[test]
    fn no_text_makes_it_panic(pieces in proptest::collection::vec(piece(), 0..60)) {
        let text = pieces.concat();
        let _ = place::parse(&text);
        let _ = rewrite(&text, &wanted(), |_| None);
    }

    #[test]
    fn no_change_of_a_sound_file_makes_it_panic(
        cuts in proptest::collection::vec((0..FULL.len(), 0..40_usize, piece()), 0..4),
    ) {
        let mut text: Vec<char> = FULL.chars().collect();
        for (from, length, piece) in cuts {
            let from = from.min(text.len());
            text.splice(from..(from + length).min(text.len()), piece.chars());
        }
        let text: String = text.into_iter().collect();
        let env = |_: &str| Some("0123456789012345".to_owned());
        let _ = place::parse(&text);
        let _ = rewrite(&text, &wanted(), env);
        if let Ok(present) = Document::from_text(&text, "f", env) {
            let mut value = present.shown();
            merge_patch(&mut value, &json!({"server": {"backlog": 7, "listen": []}, "backends": {"b": [{"host": "new", "port": 7}]}}));
            if let Ok(wanted) = Document::from_value(&value, &present, env) {
                let _ = rewrite(&text, &wanted, env);
            }
        }
    }
}

fn wanted() -> Document {
    let text = "server: {port: 7}\nbackends: {u: [{host: a, port: 1}]}\nrouting: {r: {upstream: u}, s: {path: /s, respond: {}}}";
    Document::from_text(text, "f", |_| None).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

/// What is refused stays the exception in files without variables, anchors and the like.
#[test]
fn most_changes_of_usual_files_can_be_made() {
    let (mut refused, mut rewritten) = (BTreeMap::new(), 0);
    for seed in 0..500 {
        match run(seed, false) {
            Ran::Skipped => {}
            Ran::Refused(error) => *refused.entry(error.why).or_insert(0) += 1,
            Ran::Rewritten => rewritten += 1,
        }
    }
    let refused_count: u32 = refused.values().sum();
    assert!(rewritten > 150 && refused_count * 10 < rewritten, "{rewritten} of them, but not {refused:#?}");
}
