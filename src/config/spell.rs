//! Values as YAML text.
//!
//! Owns quoting and layout of what is written into a file. Never decides where it goes.

use saphyr_parser::ScalarStyle;
use serde_json::Value as Json;

/// Widest line that a map or a list is put on, in characters.
const FLOW_CHARS_MAX: usize = 100;
/// Columns that a level is indented by.
const STEP: usize = 2;

/// A value on one line.
pub(super) fn flow(value: &Json) -> String {
    match value {
        Json::Array(items) => format!("[{}]", joined(items.iter().map(flow))),
        Json::Object(map) => {
            format!("{{{}}}", joined(map.iter().map(|(name, value)| format!("{}: {}", key(name), flow(value)))))
        }
        Json::String(text) => scalar(text, ScalarStyle::Plain),
        Json::Null => "~".to_owned(),
        Json::Bool(_) | Json::Number(_) => value.to_string(),
    }
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

/// A key of a map.
pub(super) fn key(name: &str) -> String {
    scalar(name, ScalarStyle::Plain)
}

/// What follows a colon whose key stands in column `indent`: the value behind a space, or on lines of its own.
pub(super) fn behind_colon(value: &Json, indent: usize, newline: &str) -> String {
    let flow = flow(value);
    if depth(value) <= 1 && indent + flow.chars().count() <= FLOW_CHARS_MAX {
        return format!(" {flow}");
    }
    format!("{newline}{}", block(value, indent + STEP, newline))
}

/// What follows a dash in column `indent`.
pub(super) fn behind_dash(value: &Json, indent: usize, newline: &str, one_line: bool) -> String {
    let flow = flow(value);
    let fits = depth(value) <= 2 && indent + flow.chars().count() <= FLOW_CHARS_MAX;
    if !value.is_object() || value.as_object().is_some_and(serde_json::Map::is_empty) || (one_line && fits) {
        return format!(" {flow}");
    }
    format!(" {}", block(value, indent + STEP, newline).trim_start())
}

/// Lines without the last line break.
fn block(value: &Json, indent: usize, newline: &str) -> String {
    let front = " ".repeat(indent);
    let lines: Vec<String> = match value {
        Json::Object(map) if !map.is_empty() => map
            .iter()
            .map(|(name, value)| format!("{front}{}:{}", key(name), behind_colon(value, indent, newline)))
            .collect(),
        Json::Array(items) if !items.is_empty() => {
            items.iter().map(|item| format!("{front}-{}", behind_dash(item, indent, newline, true))).collect()
        }
        other => vec![format!("{front}{}", flow(other))],
    };
    lines.join(newline)
}

fn depth(value: &Json) -> usize {
    match value {
        Json::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Json::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// A single value in the style that the one before it has, where it can be.
pub(super) fn like(value: &Json, old: &str, style: ScalarStyle, indent: usize, newline: &str) -> String {
    let text = match value {
        Json::Bool(value) => word_like(*value, old).to_owned(),
        Json::String(text) => text.clone(),
        Json::Number(number) => number.to_string(),
        other => return flow(other),
    };
    match style {
        ScalarStyle::Plain if !value.is_string() => text,
        ScalarStyle::Literal | ScalarStyle::Folded => {
            literal(&text, indent + STEP, newline).unwrap_or_else(|| scalar(&text, ScalarStyle::DoubleQuoted))
        }
        style => scalar(&text, style),
    }
}

/// Who writes `on` goes on with `off`.
fn word_like(value: bool, old: &str) -> &'static str {
    match (old.to_ascii_lowercase().as_str(), value) {
        ("on" | "off", true) => "on",
        ("on" | "off", false) => "off",
        ("yes" | "no", true) => "yes",
        ("yes" | "no", false) => "no",
        (_, true) => "true",
        (_, false) => "false",
    }
}

fn scalar(text: &str, style: ScalarStyle) -> String {
    let printable = !text.chars().any(needs_escape);
    match style {
        ScalarStyle::SingleQuoted if printable => format!("'{}'", text.replace('\'', "''")),
        ScalarStyle::Plain if is_plain(text) => text.to_owned(),
        _ => double_quoted(text),
    }
}

fn double_quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if needs_escape(c) && u32::from(c) <= 0xffff => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c if needs_escape(c) => out.push_str(&format!("\\U{:08x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn needs_escape(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// Whether it can stand without quotes, in brackets too, and no reader of YAML takes it for anything but a text.
fn is_plain(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    if matches!(lower.as_str(), "" | "true" | "false" | "null" | "..." | "---") || looks_like_a_number(&lower) {
        return false;
    }
    let sound = |(at, c): (usize, char)| match c {
        ':' => text[at + 1..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/'),
        ' ' => text[at + 1..].starts_with(|c: char| c.is_alphanumeric()),
        c => c.is_alphanumeric() || "-_./+%=@~^$()".contains(c),
    };
    text.starts_with(|c: char| c.is_alphanumeric() || "/_.".contains(c)) && text.char_indices().all(sound)
}

fn looks_like_a_number(text: &str) -> bool {
    let digits = text.replace('_', "");
    digits.parse::<f64>().is_ok() || digits.starts_with("0x") || digits.starts_with("0o") || digits.starts_with(".inf")
}

/// A text of several lines as a block; `None` where a block can't hold it exactly.
fn literal(text: &str, indent: usize, newline: &str) -> Option<String> {
    let sound = |c: char| c == '\n' || c == '\t' || !needs_escape(c);
    let lines = text.strip_suffix('\n').unwrap_or(text);
    if lines.is_empty()
        || lines.starts_with([' ', '\t', '\n'])
        || lines.ends_with(['\n', ' '])
        || !text.chars().all(sound)
    {
        return None;
    }
    let front = " ".repeat(indent);
    let mut out = if text.ends_with('\n') { "|".to_owned() } else { "|-".to_owned() };
    for line in lines.split('\n') {
        out.push_str(newline);
        if !line.is_empty() {
            out.push_str(&front);
            out.push_str(line);
        }
    }
    Some(out)
}
