//! What becomes of files when values in them change: cases, and random files under random changes.

use serde_json::{Value as Json, json};

use super::super::document::{Document, merge_patch};
use super::*;

fn env(name: &str) -> Option<String> {
    (name == "PORT").then(|| "8081".to_owned())
}

fn read(text: &str) -> Document {
    Document::from_text(text, "f", env).unwrap_or_else(|faults| panic!("{faults:#?}\n{text}"))
}

/// The file after a merge patch of what is shown.
fn patched(text: &str, patch: &Json) -> Result<String, CannotEdit> {
    let present = read(text);
    let mut value = present.shown();
    merge_patch(&mut value, patch);
    let wanted = Document::from_value(&value, &present, env).unwrap_or_else(|faults| panic!("{faults:#?}\n{patch}"));
    let changed = rewrite(text, &wanted, env)?;
    assert!(read(&changed).means_the_same(&wanted));
    Ok(changed)
}

/// A sound file with the lines in front.
fn with(lines: &str) -> String {
    format!("{lines}backends: {{u: [{{host: a, port: 1}}]}}\nrouting: {{r: {{upstream: u}}}}\n")
}

/// Each: lines of a file, a patch, the lines after it.
#[test]
fn only_what_changes_is_rewritten() {
    for (before, patch, after) in [
        // Scalars keep their quotes and what stands beside them.
        (
            "server:\n  port: 81   # why\n  host: '::1'\n",
            json!({"server": {"port": 82}}),
            "server:\n  port: 82   # why\n  host: '::1'\n",
        ),
        (
            "server: {host: '::1', port: \"81\"} # c\n",
            json!({"server": {"port": 82, "host": "::2"}}),
            "server: {host: '::2', port: \"82\"} # c\n",
        ),
        ("server:\r\n  port: 81 # é\r\n", json!({"server": {"port": 82}}), "server:\r\n  port: 82 # é\r\n"),
        (
            "server: {normalize: on, watch: no}\n",
            json!({"server": {"normalize": false}}),
            "server: {normalize: off, watch: no}\n",
        ),
        (
            "log:\n  # é\n  access: /ü\n  level: info\n",
            json!({"log": {"level": "warn"}}),
            "log:\n  # é\n  access: /ü\n  level: warn\n",
        ),
        // What is sent as it holds already changes nothing, written or not.
        (
            "server: {port: 81}\n",
            json!({"server": {"port": 81, "backlog": 65535}, "log": {"level": "info"}}),
            "server: {port: 81}\n",
        ),
        // New keys.
        (
            "server:\n  port: 81 # c\n  # d\n\n",
            json!({"server": {"backlog": 5}}),
            "server:\n  port: 81 # c\n  backlog: 5\n  # d\n\n",
        ),
        (
            "server:\r\n    port: 81\r\n",
            json!({"server": {"backlog": 5}}),
            "server:\r\n    port: 81\r\n    backlog: 5\r\n",
        ),
        (
            "server: {port: 81, # c\n  host: '::1', # d\n}\n",
            json!({"server": {"backlog": 5}}),
            "server: {port: 81, # c\n  host: '::1', backlog: 5, # d\n}\n",
        ),
        ("server:   # c\n  # d\n", json!({"server": {"backlog": 5}}), "server: {backlog: 5}   # c\n  # d\n"),
        ("server: ~ # c\n", json!({"server": {"backlog": 5}}), "server: {backlog: 5} # c\n"),
        ("server: {}\n", json!({"server": {"backlog": 5}}), "server: {backlog: 5}\n"),
        // Keys that go.
        (
            "server:\n  # a\n  port: 81 # b\n  # c\n  backlog: 5\n",
            json!({"server": {"port": null}}),
            "server:\n  # a\n  # c\n  backlog: 5\n",
        ),
        ("server:\n  port: 81\n  # c\n", json!({"server": {"port": null}}), "server: {}\n  # c\n"),
        ("server: {port: 81, backlog: 5}\n", json!({"server": {"port": null}}), "server: {backlog: 5}\n"),
        ("server: {port: 81, backlog: 5, }\n", json!({"server": {"backlog": null}}), "server: {port: 81, }\n"),
        ("server: {port: 81, backlog: 5, }\n", json!({"server": {"backlog": null, "port": null}}), "server: {}\n"),
        ("server:\n  port: 81\nlog:\n  level: warn\n", json!({"server": null}), "log:\n  level: warn\n"),
        // Lists.
        (
            "server:\n  trusted_proxies:\n  - 10.0.0.0/8 # a\n  # b\n  - ::1 # c\n",
            json!({"server": {"trusted_proxies": ["::1", "::2"]}}),
            "server:\n  trusted_proxies:\n  # b\n  - ::1 # c\n  - \"::2\"\n",
        ),
        (
            "server:\n  trusted_proxies: [10.0.0.0/8,\n    # b\n    ::1] # c\n",
            json!({"server": {"trusted_proxies": ["1.1.1.1", "10.0.0.0/8", "::1"]}}),
            "server:\n  trusted_proxies: [1.1.1.1, 10.0.0.0/8,\n    # b\n    ::1] # c\n",
        ),
        (
            "server:\n  trusted_proxies:\n    - ::1 # c\n  # d\n",
            json!({"server": {"trusted_proxies": []}}),
            "server:\n  trusted_proxies: []\n  # d\n",
        ),
        (
            "server:\n  trusted_proxies: # c\n    - ::1\n    - ::2\n",
            json!({"server": {"trusted_proxies": ["::2", "::1"]}}),
            "server:\n  trusted_proxies: [\"::2\", \"::1\"] # c\n",
        ),
        (
            "server:\n  cpu_affinity: [0, 2]\n",
            json!({"server": {"cpu_affinity": "auto"}}),
            "server:\n  cpu_affinity: auto\n",
        ),
        (
            "server:\n  cpu_affinity:\n    - 0\n  port: 81\n",
            json!({"server": {"cpu_affinity": [0, 3]}}),
            "server:\n  cpu_affinity:\n    - 0\n    - 3\n  port: 81\n",
        ),
        // Whole sections.
        ("", json!({"log": {"level": "warn"}}), ""),
    ] {
        let (text, mut expected) = (with(before), with(after));
        if before.is_empty() {
            expected.push_str("log: {level: warn}\n");
        }
        assert_eq!(patched(&text, &patch).map_err(|error| error.to_string()), Ok(expected), "{before}{patch}");
    }
}

const FILE: &str = "\
# The file.
backends:
  api:          # the API
    # the first
    - name: One # one
      id: a
      host: 127.0.0.1
      port: \"${PORT}\"
      weight: 5 # five
      # health_check: {}

    - {id: b, host: 127.0.0.1, port: 82}   # two
    # the last
    -   # three
      host: ${HOST:-h}
      port: 83
      health_check:
        type: tcp   # only connects
upstreams:
  api: &api
    retries: 1
routing:
  all: {upstream: api, respond: ~}
  hello:
    path: /hello
    respond:
      body: |
        Hello,

        world.
      # not the body
  old: {path: /old, redirect: {location: 'https://${host}/x'}}
";

/// [`FILE`] without what is wrong with it on purpose for other tests.
fn file() -> String {
    FILE.replace(", respond: ~", "")
}

#[test]
fn backends_are_found_by_id() {
    let file = file();
    let shown = read(&file).shown();
    let change = |change: &dyn Fn(&mut Vec<Json>)| {
        let mut list = shown["backends"]["api"].as_array().cloned().unwrap();
        change(&mut list);
        patched(&file, &json!({"backends": {"api": list}})).map_err(|error| error.to_string())
    };
    let weight = |at: usize| change(&move |list| list[at]["weight"] = json!(7));
    assert_eq!(weight(0), Ok(file.replace("weight: 5 ", "weight: 7 ")));
    assert_eq!(weight(1), Ok(file.replace("port: 82}", "port: 82, weight: 7}")));
    assert_eq!(weight(2), Ok(file.replace("# only connects\n", "# only connects\n      weight: 7\n")));
    assert_eq!(
        change(&|list| list[2]["port"] = json!(84)),
        Ok(file.replace("port: 83", "port: 84").replace("# only connects\n", "# only connects\n      id: api-h-83\n"))
    );
    let check = "      health_check:\n        type: tcp   # only connects\n";
    assert_eq!(
        change(&|list| drop(list[2].as_object_mut().unwrap().shift_remove("health_check"))),
        Ok(file.replace(check, ""))
    );
    assert_eq!(
        change(&|list| drop(list.remove(1))),
        Ok(file.replace("    - {id: b, host: 127.0.0.1, port: 82}   # two\n", ""))
    );
    let third = &file[file.find("    -   # three").unwrap()..file.find("upstreams:").unwrap()];
    assert_eq!(change(&|list| drop(list.remove(2))), Ok(file.replace(third, "")));
    let new = json!({"id": "c", "host": "d", "port": 1, "health_check": {"path": "/ok"}});
    assert_eq!(
        change(&|list| list.insert(2, new.clone())),
        Ok(file
            .replace("# two\n", "# two\n    - id: c\n      host: d\n      port: 1\n      health_check: {path: /ok}\n"))
    );
    assert_eq!(
        change(&|list| drop(list[0].as_object_mut().unwrap().shift_remove("name"))),
        Ok(file.replace("- name: One # one\n      id", "- id"))
    );
    assert_eq!(
        change(&|list| list.swap(0, 1)),
        Err("backends.api cannot be changed in the file (line 8): it is written with a variable of the environment"
            .to_owned())
    );
    assert_eq!(
        change(&|list| list[0]["port"] = json!(1)),
        Err("backends.api[0].port cannot be changed in the file (line 8): it is written with a variable of the environment".to_owned())
    );
}

#[test]
fn names_come_and_go() {
    let file = file();
    let patched = |patch: Json| patched(&file, &patch).map_err(|error| error.to_string());
    let hello = &file[file.find("  hello:").unwrap()..file.find("      # not the body").unwrap()];
    assert_eq!(patched(json!({"routing": {"hello": null}})), Ok(file.replace(hello, "")));
    assert_eq!(
        patched(
            json!({"routing": {"x:y": {"path": "/x", "upstream": "web"}}, "backends": {"web": [{"host": "w", "port": 80}]}})
        ),
        Ok(file.replace("upstreams:\n", "  web:\n    - {host: w, port: 80}\nupstreams:\n")
            + "  x:y: {path: /x, upstream: web}\n")
    );
    assert_eq!(
        patched(json!({"routing": {"hello": {"respond": {"body": "a\n b\n"}}}})),
        Ok(file.replace("Hello,\n\n        world.", "a\n         b"))
    );
    assert_eq!(
        patched(json!({"routing": {"old": {"redirect": {"location": "https://${host}/y"}}}})),
        Ok(file.replace("${host}/x", "${host}/y"))
    );
    assert_eq!(
        patched(json!({"upstreams": {"api": {"retries": 2}}})),
        Err("upstreams.api cannot be changed in the file (line 21): it has an anchor or a tag".to_owned())
    );
}

#[test]
fn files_without_a_last_line_break_are_continued() {
    let text = "routing:\n  r:\n    respond: {}\nbackends: {}\nlog:\n  level: info";
    assert_eq!(
        patched(text, &json!({"log": {"level": "warn", "format": "json"}, "server": {"port": 1}})),
        Ok("routing:\n  r:\n    respond: {}\nbackends: {}\nlog:\n  level: warn\n  format: json\nserver: {port: 1}"
            .to_owned())
    );
}

#[test]
fn shared_and_odd_nodes_are_left_alone() {
    for (lines, patch, path) in [
        ("server: &s {port: 81}\n", json!({"server": {"port": 82}}), "server"),
        ("server: {port: !!int 81}\n", json!({"server": {"port": 82}}), "server.port"),
        ("server: {host: &h '::1'}\nssl: {cert_file: *h}\n", json!({"ssl": {"cert_file": "x"}}), "ssl.cert_file"),
        ("server:\n  ? port\n  : 81\n", json!({"server": {"port": 82}}), "server"),
        (
            "server:\n  trusted_proxies:\n    - ::1 # a\n    - ::2\n",
            json!({"server": {"trusted_proxies": ["::2", "::1"]}}),
            "server.trusted_proxies",
        ),
        (
            "server:\n  trusted_proxies: [::1, # a\n    ::2, # b\n    ::3]\n",
            json!({"server": {"trusted_proxies": ["::1", "::3"]}}),
            "server.trusted_proxies",
        ),
    ] {
        let told = patched(&with(lines), &patch).map_err(|error| error.path);
        assert_eq!(told, Err(path.to_owned()), "{lines}");
    }
}

#[test]
fn a_file_that_is_wrong_now_is_not_touched() {
    let wanted = read(&with(""));
    let error = rewrite("sever: {}\n", &wanted, env).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the configuration cannot be changed in the file (line 1): it has a fault now: sever: unknown key (did you mean server?)"
    );
}
