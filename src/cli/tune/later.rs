//! Files of sysctl.d(5) that are read after the one that is written for the next boot, and set the same keys to something
//! else: at the next boot theirs holds.
//!
//! Owns their order and their form. Changes nothing.

use std::collections::BTreeMap;
use std::path::Path;

use super::apply::Entry;
use crate::cli::snapshot::files::Files;
use crate::cli::snapshot::words;

/// Where they are, the place that counts first: a name that is in several of them is read from the first.
const DIRECTORIES: [&str; 5] =
    ["etc/sysctl.d", "run/sysctl.d", "usr/local/lib/sysctl.d", "usr/lib/sysctl.d", "lib/sysctl.d"];
/// What `sysctl --system` reads last of all; systemd does where a link of sysctl.d leads there.
const LAST: &str = "etc/sysctl.conf";

/// Each key that is set to something else later, with the file and its value.
pub fn overridden<'a>(files: &Files, ours: &Path, entries: &[&'a Entry]) -> Vec<(&'a str, String, String)> {
    let ours = ours.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let mut by_name: BTreeMap<String, String> = BTreeMap::new();
    for directory in DIRECTORIES {
        for name in files.names(directory) {
            if name.ends_with(".conf") && name.as_str() > ours {
                by_name.entry(name.clone()).or_insert_with(|| format!("{directory}/{name}"));
            }
        }
    }
    let mut found: BTreeMap<&str, (String, String)> = BTreeMap::new();
    for path in by_name.into_values().chain([LAST.to_owned()]) {
        for (key, value) in settings(&files.text(&path)) {
            if let Some(entry) = entries.iter().find(|entry| entry.key == key) {
                found.insert(&entry.key, (format!("/{path}"), value));
            }
        }
    }
    let differs = |key: &str, value: &str| entries.iter().any(|entry| entry.key == key && entry.after != value);
    let found = found.into_iter().filter(|(key, (_, value))| differs(key, value));
    found.map(|(key, (path, value))| (key, path, value)).collect()
}

/// Keys and values, in their order. A key may be written with slashes, and with a `-` before it.
fn settings(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
    let setting = |line: &str| {
        let (key, value) = line.split_once('=')?;
        Some((key.trim().trim_start_matches('-').trim().replace('/', "."), words(value)))
    };
    lines.filter_map(setting).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_written_in_several_ways() {
        let text = "# a comment = 1\n; b = 2\nnet.core.somaxconn=128\n-net/ipv4/tcp_sack = 0\nnet.ipv4.tcp_mem = 1\t2  3\nnothing\n";
        let expected = [("net.core.somaxconn", "128"), ("net.ipv4.tcp_sack", "0"), ("net.ipv4.tcp_mem", "1 2 3")];
        let expected: Vec<_> = expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        assert_eq!(settings(text), expected);
    }
}
