//! The manual of keys, `docs/configuration.md`, written from the table.
//!
//! Owns the words around the table. Never says what the table does not: a test holds the file to it.

use std::fmt::Write;

use super::file::SEARCHED;
use super::keys::{self, Default, KEYS, Key, Kind};
use super::tree::{ALIASED_NODES_COUNT_MAX, CONFIG_BYTES_MAX, DEPTH_LEVELS_MAX};
use super::values::show_size;

/// The manual as Markdown.
pub fn manual() -> String {
    let mut out = String::new();
    out.push_str(&introduction());
    out.push_str(&bounds());
    for section in keys::below("") {
        heading(&mut out, section);
        let below = format!("{}.", section.path);
        for key in KEYS.iter().filter(|key| key.path.starts_with(&below)) {
            entry(&mut out, key);
        }
    }
    out
}

const INTRODUCTION: &str = "\
# Configuration

<!-- Written from src/config/keys.rs. Change it there, then: SPEEDMIMI_BLESS=1 cargo test --test manual -->

SpeedMimi reads one YAML file: the one named with `speedmimi run --config FILE`, else the first that is there of
`SEARCHED`. `speedmimi init` writes one to start from, `speedmimi check --config FILE` prints
every fault in one and ends with status 78 if there is any, `kill -HUP PID` makes a running proxy read it again.

The smallest file that does something:

```yaml
backends:
  app: [{host: 127.0.0.1, port: 8081}]
routing:
  all: {upstream: app}
```

## How values are written

| type | written as |
|---|---|
| duration | `250ms`, `30s`, `5m`, `1h`, `1h30m`; the units are `h`, `m`, `s` and `ms`, largest first |
| size | plain bytes; in steps of 1024 `64KiB`, `10MiB`, `1GiB`, `1TiB`, in steps of 1000 `64KB`, `10MB`, `1GB` |
| whole number | `1000`; also `1_000` |
| true or false | `true`, `on`, `yes`, `false`, `off`, `no` |
| address | `127.0.0.1`, `::1`; to listen on: `127.0.0.1:8080`, `\"[::]:8080\"`, `\"unix:/path\"` |
| CIDR | `10.0.0.0/8`, `fd00::/8`; a plain address stands for itself alone; no bits behind the prefix |
| host | `example.com`, or `\"*.example.com\"` for one label or more in front; without a port |
| path | begins with `/`, canonical; a slash at the end makes no difference |

Quotes make no difference to what a value means, except that YAML wants them around `*`, `[`, `{` and the like.

In values, `${NAME}` stands for an environment variable and `${NAME:-default}` for the variable or, when it is not set
or empty, the default. A variable that is not set and has no default is a fault. `$${` is a plain `${`. Inside `[ ]` and
`{ }` a value with `${NAME}` has to stand in quotes. What a variable holds is always one value, never YAML.

Anchors and aliases (`&name`, `*name`) work for whole values. Merge keys (`<<`), tags and several documents in a file do
not.

## Faults

Every fault in a file is told at once: where, which key, what is wrong, what is allowed, and what to do.

```text
config.yaml:12:14: upstreams.api.retries: -1 is outside 0..=10 (set 0 to switch retries off)
config.yaml:14:5: upstreams.api.retry_bufer: unknown key (did you mean retry_buffer?)
```

Unknown keys and keys given twice are faults, as are values that this version could not do anything with. What is valid
and yet probably not meant is told as a notice.
";

fn bounds() -> String {
    format!(
        "\nA file may have {}, {DEPTH_LEVELS_MAX} levels, and {ALIASED_NODES_COUNT_MAX} values repeated by aliases.\n",
        show_size(CONFIG_BYTES_MAX as u64)
    )
}

/// A section at the top.
fn heading(out: &mut String, key: &Key) {
    // Writing to a String does not fail.
    let _ = write!(out, "\n## {}\n\n{}\n", key.path, key.doc);
}

fn entry(out: &mut String, key: &Key) {
    let _ = write!(out, "\n### `{}`\n\n{}", key.path, facts(key));
    let _ = write!(out, "\n\n{}\n", key.doc);
}

/// Type, range and default in a line.
fn facts(key: &Key) -> String {
    let mut facts = vec![kind(&key.kind)];
    match (key.kind, key.default) {
        (Kind::Section, _) => {}
        (_, Default::Is("")) => facts.push("default empty".to_owned()),
        (_, Default::Is(text)) => facts.push(format!("default `{text}`")),
        (_, Default::Unset(meaning)) => facts.push(format!("unset: {meaning}")),
        (_, Default::Required) => facts.push("required".to_owned()),
    }
    facts.join(" · ")
}

fn kind(kind: &Kind) -> String {
    match kind {
        Kind::Choice(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
            words.join(", ")
        }
        kind => kind.allowed(),
    }
}

/// The introduction with the places where a file is looked for.
fn introduction() -> String {
    let searched: Vec<String> = SEARCHED.iter().map(|path| format!("`{path}`")).collect();
    INTRODUCTION.replace("`SEARCHED`", &searched.join(" and "))
}
