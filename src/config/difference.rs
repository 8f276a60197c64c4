//! The difference of two texts of a configuration, short and without its secrets.
//!
//! Owns what a person is shown of a file that somebody else changed. Never tells the value of a secret, even of one in
//! a text that is no YAML any more.

use std::ops::Range;

use super::json::is_credential;
use super::keys::{KEYS, Key};
use super::place::{self, Place, Shape};

/// Unchanged lines around what differs.
const AROUND_LINES_COUNT: usize = 3;
/// Lines that are shown of each side at most.
const SHOWN_LINES_COUNT_MAX: usize = 20;
/// Characters that are shown of a line.
const SHOWN_CHARS_MAX: usize = 160;

/// From the first line that differs to the last one, as one hunk of a unified diff; empty when only secrets differ or
/// nothing does.
pub fn short_difference(old: &str, new: &str) -> String {
    let (old, new) = (masked(old), masked(new));
    let same = |(one, other): &(&String, &String)| one == other;
    let front = old.iter().zip(&new).take_while(same).count();
    let rest = old.len().min(new.len()) - front;
    let back = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(same).count();
    if front == old.len() && front == new.len() {
        return String::new();
    }
    let start = front.saturating_sub(AROUND_LINES_COUNT);
    let after = back.min(AROUND_LINES_COUNT);
    let (old_end, new_end) = (old.len() - back, new.len() - back);
    let range = |end: usize| format!("{},{}", start + usize::from(end + after > start), end + after - start);
    let mut out = format!("@@ -{} +{} @@\n", range(old_end), range(new_end));
    push(&mut out, ' ', &old[start..front]);
    push(&mut out, '-', &old[front..old_end]);
    push(&mut out, '+', &new[front..new_end]);
    push(&mut out, ' ', &old[old_end..old_end + after]);
    out
}

fn push(out: &mut String, mark: char, lines: &[String]) {
    for line in lines.iter().take(SHOWN_LINES_COUNT_MAX) {
        out.push(mark);
        out.extend(line.chars().take(SHOWN_CHARS_MAX).map(|c| if c.is_control() && c != '\t' { ' ' } else { c }));
        out.push('\n');
    }
    if lines.len() > SHOWN_LINES_COUNT_MAX {
        out.push_str(&format!("{mark}… {} more lines\n", lines.len() - SHOWN_LINES_COUNT_MAX));
    }
}

/// The lines without what stands behind the key of a secret, on its line and on deeper ones that follow; of a sound
/// text also where only a parser finds it.
fn masked(text: &str) -> Vec<String> {
    let mut hidden = Vec::new();
    place::parse(text).iter().for_each(|root| secrets_below(root, &mut hidden));
    let mut lines = Vec::new();
    let mut below: Option<Below> = None;
    let mut start = 0;
    for piece in text.split_inclusive('\n') {
        let line = piece.trim_end_matches(['\n', '\r']);
        let parsed = hidden.iter().filter(|range| range.start < start + line.len() && range.end > start);
        let parsed = parsed.map(|range| range.start.saturating_sub(start)).min();
        start += piece.len();
        let indent = line.len() - line.trim_start().len();
        if parsed == Some(0) || below.as_ref().is_some_and(|key| key.has(line, indent)) {
            lines.push(format!("{}…", &line[..indent]));
            continue;
        }
        let secret = behind_secret(line).into_iter().chain(parsed).min();
        let is_value_apart = secret.is_none() && ends_with_secret(line);
        below = (secret.is_some() || is_value_apart).then_some(Below { indent, is_value_apart });
        lines.push(secret.map_or_else(|| line.to_owned(), |at| format!("{} …", &line[..at])));
    }
    lines
}

/// The key of a secret whose value may stand on the lines below it.
struct Below {
    indent: usize,
    /// Behind a colon that begins a line of its own, as that of `? token` does.
    is_value_apart: bool,
}

impl Below {
    fn has(&self, line: &str, indent: usize) -> bool {
        let is_value = self.is_value_apart && line.trim_start().starts_with(':');
        line.trim().is_empty() || indent > self.indent || is_value
    }
}

/// Behind the colon of the first key of a secret in a line.
fn behind_secret(line: &str) -> Option<usize> {
    let colons = line.match_indices(':').map(|(at, _)| at);
    colons.into_iter().find(|&at| ends_with_secret(&line[..at])).map(|at| at + 1)
}

/// Whether the last word of a text, its comment left out, is the key of a secret.
fn ends_with_secret(text: &str) -> bool {
    let text = text.split(" #").next().unwrap_or_default();
    let text = text.trim_end_matches(['"', '\'', ' ', '\t']);
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    is_secret(&text[text.trim_end_matches(is_of_name).len()..])
}

/// Whether a key of this name may have a secret: one of the table, or a header field that lets somebody in.
fn is_secret(name: &str) -> bool {
    let is_other = |key: &Key| key.name() == name && name.contains('_') && !key.is_secret();
    KEYS.iter().any(|key| key.is_secret() && key.name() == name) || (is_credential(name) && !KEYS.iter().any(is_other))
}

/// The bytes behind each key of a secret, to its value's end.
fn secrets_below(place: &Place, found: &mut Vec<Range<usize>>) {
    match &place.shape {
        Shape::FlowMap(pairs) | Shape::BlockMap(pairs) => {
            for pair in pairs {
                match is_secret(&pair.name) {
                    true => found.push(pair.key_end..pair.end()),
                    false => secrets_below(&pair.value, found),
                }
            }
        }
        Shape::FlowList(items) => items.iter().for_each(|item| secrets_below(item, found)),
        Shape::BlockList(items) => items.iter().for_each(|item| secrets_below(&item.value, found)),
        Shape::Nothing | Shape::Scalar { .. } => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_is_one_hunk() {
        let old = "a\nb\nc\nd\ne\nf\ng\nh\n";
        assert_eq!(short_difference(old, old), "");
        let new = "a\nb\nc\nd\nE\nE\nf\ng\nh\n";
        assert_eq!(short_difference(old, new), "@@ -2,7 +2,8 @@\n b\n c\n d\n-e\n+E\n+E\n f\n g\n h\n");
        assert_eq!(short_difference("", "a\n"), "@@ -0,0 +1,1 @@\n+a\n");
        assert_eq!(short_difference("a\n", ""), "@@ -1,1 +0,0 @@\n-a\n");
        assert_eq!(short_difference("a\na\n", "a\n"), "@@ -1,2 +1,1 @@\n a\n-a\n");
        let long = "x\n".repeat(1000);
        assert!(short_difference(&long, "").ends_with("-x\n-… 980 more lines\n"));
    }

    #[test]
    fn secrets_are_not_told() {
        for old in [
            "grpc: {port: 1, token: hunter22, host: hunter22}",
            "grpc:\n  token: hunter22",
            "grpc:\n  \"token\" : hunter22",
            "grpc:\n  token: |\n    hunter22\n\n    hunter22\n  port: 1",
            "    secret:\n      hunter22",
            "# report_token: hunter22",
            "grpc: {read_token: \"hunter22",
            "grpc:\n  ? token\n  : hunter22\n  ? port\n  : 1",
            "grpc:\n  ? token # ours\n\n  : hunter22\n    hunter22\n  port: [",
            "grpc: {\n  ? token\n  : hunter22}",
            "grpc: {? \"token\" : hunter22}",
            "grpc:\n  \"t\\u006fken\": hunter22",
            "grpc:\n  ? \"t\\u006fken\"\n  : |\n    hunter22\n  port: 1",
            "grpc: {port: 1,\n  \"t\\u006fken\":\n\n    hunter22, host: a}",
            "routing: {r: {request_headers: {set: {X-A: b, Authorization: Bearer hunter22}}}}",
            "        add:\n          x-api-key: >\n            hunter22",
            "        set:\n          Cookie: a=hunter22",
        ] {
            let told = short_difference(old, "x");
            assert!(!told.contains("hunter22") && told.contains('…'), "{told}");
        }
        assert_eq!(short_difference("token: a\n", "token: b\n"), "");
        assert_eq!(short_difference("Set-Cookie: a\n", "Set-Cookie: b\n"), "");
        let told = short_difference("token_file: a\nkey_file: b\nhost: token\n", "");
        assert_eq!(told, "@@ -1,3 +0,0 @@\n-token_file: a\n-key_file: b\n-host: token\n");
    }
}
