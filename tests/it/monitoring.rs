//! The monitoring kit: every metric, label and value that the rules and the dashboard of `dist/monitoring` ask for is one
//! that a running proxy serves.
//!
//! Owns a reader of queries that is just strict enough for that. Never computes one: that the alerts fire is what
//! `promtool test rules` tells.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use serde_json::Value as Json;

use crate::api::Api;
use crate::origin::{self, Origin};
use crate::pki::Pki;
use crate::proxy::{Proxy, sections};

/// Labels that Prometheus adds, and that of a histogram's buckets in sums.
const LABELS_OF_SCRAPES: [&str; 2] = ["job", "instance"];
/// Words with brackets behind them that name labels.
const GROUPING: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
/// What a query may call.
const FUNCTIONS: [&str; 11] =
    ["sum", "min", "max", "count", "rate", "increase", "changes", "histogram_quantile", "absent", "time", "avg"];
/// Words that stand between values.
const OPERATORS: [&str; 4] = ["and", "or", "unless", "bool"];

/// The series of each metric, by their labels.
type Served = HashMap<String, Vec<BTreeMap<String, String>>>;

fn kit(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/monitoring").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What a proxy serves that has all of it: a certificate, a queue, a backend.
fn served() -> Served {
    let pki = Pki::new("monitoring");
    let server = pki.issue(&["a.test"]);
    let origin = Origin::start(origin::by_path);
    let rest = format!(
        "{}ssl: {{enabled: true, cert_file: \"{}\", key_file: \"{}\"}}\ngrpc: {{port: 0}}\n",
        sections(&origin, "max_conn: 10", "queue: {size: 10}"),
        server.cert_file.display(),
        server.key_file.display()
    );
    let proxy = Proxy::start(&[], &rest);
    let page = Api::of(&proxy).send("GET", "/metrics", b"").text();
    let mut served = Served::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels = labels.trim_end_matches('}').split("\",").filter_map(|label| {
            let (name, value) = label.split_once("=\"")?;
            Some((name.to_owned(), value.trim_end_matches('"').to_owned()))
        });
        served.entry(name.to_owned()).or_default().push(labels.collect());
    }
    served
}

/// A query and where it stands.
struct Query {
    place: String,
    text: String,
}

/// Those of the rules, and the names that they record. Knows the two forms that the file uses: on the line, and below it.
fn queries_of_rules(text: &str) -> (Vec<Query>, HashSet<String>) {
    let (mut queries, mut recorded): (Vec<Query>, HashSet<String>) = Default::default();
    let mut place = String::new();
    let mut below = None;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let trimmed = line.trim();
        if below.is_some_and(|at| indent > at) {
            queries.last_mut().expect("a query").text.push_str(&format!(" {trimmed}"));
            continue;
        }
        below = None;
        if let Some(name) = trimmed.strip_prefix("- record: ").or_else(|| trimmed.strip_prefix("- alert: ")) {
            place = name.to_owned();
            recorded.extend(trimmed.starts_with("- record").then(|| name.to_owned()));
        } else if let Some(text) = trimmed.strip_prefix("expr: ") {
            below = (text == "|").then_some(indent);
            let text = if text == "|" { String::new() } else { text.to_owned() };
            queries.push(Query { place: place.clone(), text });
        }
    }
    (queries, recorded)
}

/// Those of the dashboard: of panels, annotations and variables.
fn queries_of_dashboard(value: &Json, title: &str, queries: &mut Vec<Query>) {
    match value {
        Json::Object(fields) => {
            let title = fields.get("title").or(fields.get("name")).and_then(Json::as_str).unwrap_or(title);
            for (key, value) in fields {
                match value.as_str().filter(|_| key == "expr" || key == "definition") {
                    Some(text) => queries.push(Query { place: title.to_owned(), text: text.to_owned() }),
                    None => queries_of_dashboard(value, title, queries),
                }
            }
        }
        Json::Array(items) => items.iter().for_each(|item| queries_of_dashboard(item, title, queries)),
        _ => {}
    }
}

/// What a query asks for that nobody serves.
struct Check<'a> {
    served: &'a Served,
    recorded: &'a HashSet<String>,
    faults: Vec<String>,
}

impl Check<'_> {
    fn query(&mut self, query: &Query) {
        let text = query.text.trim();
        let before = self.faults.len();
        match text.strip_prefix("label_values(").and_then(|text| text.strip_suffix(')')?.rsplit_once(", ")) {
            Some((metric, label)) => {
                self.text(metric);
                self.label(label);
            }
            None => self.text(text),
        }
        self.faults[before..].iter_mut().for_each(|fault| *fault = format!("{}: {fault}, in: {text}", query.place));
    }

    fn text(&mut self, text: &str) {
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '$' | '.');
            let end = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
            let (word, behind) = rest.split_at(end);
            rest = match first {
                '"' => after(&rest[1..], '"'),
                '[' => after(rest, ']'),
                _ if word.is_empty() => &rest[first.len_utf8()..],
                '0'..='9' => behind,
                _ => self.word(word, behind.trim_start()),
            };
        }
    }

    /// What is left behind it.
    fn word<'t>(&mut self, word: &str, behind: &'t str) -> &'t str {
        if FUNCTIONS.contains(&word) || OPERATORS.contains(&word) {
            return behind;
        }
        if let Some(inside) = behind.strip_prefix('(') {
            if GROUPING.contains(&word) {
                let (labels, rest) = inside.split_once(')').unwrap_or((inside, ""));
                labels.split(',').for_each(|label| self.label(label.trim()));
                return rest;
            }
            self.faults.push(format!("unknown function {word}"));
            return inside;
        }
        let (matchers, rest) = match behind.strip_prefix('{') {
            Some(inside) => inside.split_once('}').unwrap_or((inside, "")),
            None => ("", behind),
        };
        self.metric(word, matchers);
        rest
    }

    fn label(&mut self, label: &str) {
        let mut all = self.served.values().flatten();
        if !LABELS_OF_SCRAPES.contains(&label) && !all.any(|series| series.contains_key(label)) {
            self.faults.push(format!("nothing has the label {label}"));
        }
    }

    fn metric(&mut self, name: &str, matchers: &str) {
        let of_prometheus = name == "up" || self.recorded.contains(name);
        let none = Vec::new();
        let series = self.served.get(name).unwrap_or(&none);
        if series.is_empty() && !of_prometheus {
            return self.faults.push(format!("nobody serves {name}"));
        }
        for matcher in matchers.split("\",").filter(|matcher| !matcher.is_empty()) {
            let end = matcher.find(['=', '!']).unwrap_or(matcher.len());
            let label = matcher[..end].trim();
            if LABELS_OF_SCRAPES.contains(&label) {
                continue;
            }
            let values = matcher[end..].trim_start_matches(['=', '!', '~']).trim_matches('"');
            // A variable of the dashboard stands for what there is.
            for value in values.split('|').filter(|value| !value.contains('$')) {
                if !series.iter().any(|labels| labels.get(label).is_some_and(|served| served == value)) {
                    self.faults.push(format!("no {name} has {label}=\"{value}\""));
                }
            }
            if !series.iter().any(|labels| labels.contains_key(label)) {
                self.faults.push(format!("no {name} has the label {label}"));
            }
        }
    }
}

fn after(text: &str, end: char) -> &str {
    text.split_once(end).map_or("", |(_, rest)| rest)
}

#[test]
fn rules_and_dashboard_ask_for_what_is_served() {
    let served = served();
    let (mut queries, recorded) = queries_of_rules(&kit("rules.yml"));
    let dashboard = serde_json::from_str(&kit("grafana-dashboard.json")).expect("JSON");
    let of_rules = queries.len();
    queries_of_dashboard(&dashboard, "", &mut queries);
    assert!(of_rules > 30 && queries.len() > of_rules + 40, "the queries were not found");
    let mut check = Check { served: &served, recorded: &recorded, faults: Vec::new() };
    queries.iter().for_each(|query| check.query(query));
    assert!(check.faults.is_empty(), "\n{}\n", check.faults.join("\n"));
}

#[test]
fn what_nobody_serves_is_found() {
    let labels = |of: &[(&str, &str)]| of.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let served = Served::from([("a".to_owned(), vec![labels(&[("class", "2xx")]), labels(&[("class", "5xx")])])]);
    let recorded = HashSet::from(["x:y".to_owned()]);
    let faults = |text: &str| {
        let mut check = Check { served: &served, recorded: &recorded, faults: Vec::new() };
        check.query(&Query { place: "here".to_owned(), text: text.to_owned() });
        check.faults.len()
    };
    for sound in [
        "sum by (job, class) (rate(a{class=~\"2xx|5xx\",job=~\"$job\"}[5m])) / (x:y > 0.5) and up{job=\"p\"} == 0",
        "a - time() < 14 * 86400",
        "a{class!=\"2xx\"}",
        "label_values(a{job=~\"$job\"}, class)",
    ] {
        assert_eq!(faults(sound), 0, "{sound}");
    }
    for wrong in [
        "b",
        "sum(a) / b{}",
        "a{class=\"6xx\"}",
        "a{class=~\"2xx|6xx\"}",
        "a{kind=~\"$kind\"}",
        "sum by (kind) (a)",
        "median(a)",
        "label_values(a, kind)",
        "label_values(b, class)",
    ] {
        assert!(faults(wrong) > 0, "{wrong}");
    }
}
