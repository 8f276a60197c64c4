//! Environment variables in values.
//!
//! Owns the grammar of `${NAME}`. Never reads the environment: that is handed in; and never looks at YAML, so what a
//! variable holds is always one value.

use super::fault::{Wrong, shown};

/// What a location may leave to the request.
const PLACEHOLDERS: [&str; 3] = ["host", "path", "query"];

/// Puts the environment in the places of `${NAME}` and `${NAME:-default}`; `$${` is a plain `${`. With `placeholders`,
/// `${host}`, `${path}` and `${query}` stay as they are.
pub(super) fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>, placeholders: bool) -> Result<String, Wrong> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let Some(end) = rest[at..].find('}').map(|end| at + end) else {
            return Err(Wrong::new("${ without its }").cure("write $${ for a plain ${"));
        };
        let inner = &rest[at + 2..end];
        if placeholders && PLACEHOLDERS.contains(&inner) {
            out.push_str(&rest[at..=end]);
        } else {
            let value = variable(inner, env);
            let allowed = "${host}, ${path}, ${query} and variables of the environment";
            out.push_str(&value.map_err(|wrong| if placeholders { wrong.allowed(allowed) } else { wrong })?);
        }
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// The text that [`expand`] makes `text` of; with `placeholders`, those stay as they are.
pub(super) fn escape(text: &str, placeholders: bool) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        out.push_str(&rest[..at]);
        // Behind a dollar sign it would read as an escape itself.
        let stays = placeholders && !out.ends_with('$') && is_placeholder(&rest[at..]);
        out.push_str(if stays { "${" } else { "$${" });
        rest = &rest[at + 2..];
    }
    out.push_str(rest);
    out
}

/// Whether a variable of the environment stands in it.
pub(super) fn has_variable(text: &str, placeholders: bool) -> bool {
    text.match_indices("${")
        .any(|(at, _)| !(text[..at].ends_with('$') || (placeholders && is_placeholder(&text[at..]))))
}

fn is_placeholder(text: &str) -> bool {
    let inner = text.strip_prefix("${").and_then(|rest| rest.split_once('}'));
    inner.is_some_and(|(inner, _)| PLACEHOLDERS.contains(&inner))
}

/// What `NAME` or `NAME:-default` stands for. As in the shell, the default also stands for an empty value.
fn variable(inner: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, Wrong> {
    let (name, default) = inner.split_once(":-").map_or((inner, None), |(name, default)| (name, Some(default)));
    let letter = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    let sound = name.bytes().next().is_some_and(letter) && name.bytes().all(|b| letter(b) || b.is_ascii_digit());
    if !sound {
        let problem = format!("{} is not the name of an environment variable", shown(name));
        return Err(Wrong::new(problem).allowed("${NAME} or ${NAME:-default}").cure("write $${ for a plain ${"));
    }
    match (env(name), default) {
        (Some(value), _) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (Some(value), None) => Ok(value),
        (None, None) => {
            let problem = format!("the environment variable {name} is not set");
            Err(Wrong::new(problem).cure(format!("set it, or write ${{{name}:-default}}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<String, String> {
        let env = |name: &str| match name {
            "PORT" => Some("8081".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        expand(text, &env, false).map_err(|wrong| wrong.problem)
    }

    #[test]
    fn variables_are_put_in() {
        for (text, value) in [
            ("a${PORT}b${PORT}", "a8081b8081"),
            ("${NONE:-x}", "x"),
            ("${NONE:-}", ""),
            ("${EMPTY:-x}", "x"),
            ("${EMPTY}", ""),
            ("$PORT $", "$PORT $"),
            ("$${PORT}", "${PORT}"),
            ("$$${PORT}", "$${PORT}"),
            ("é${PORT}é", "é8081é"),
        ] {
            assert_eq!(expanded(text), Ok(value.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_escaped_is_no_variable() {
        for text in ["", "$", "a${PORT}", "$${PORT}", "$$${PORT}", "${", "${host}${path}", "$${host}", "${${host}"] {
            let escaped = escape(text, false);
            assert_eq!((expanded(&escaped), has_variable(&escaped, false)), (Ok(text.to_owned()), false), "{escaped}");
            let escaped = escape(text, true);
            assert_eq!(expand(&escaped, &|_| None, true).ok().as_deref(), Some(text), "{escaped}");
            assert!(!has_variable(&escaped, true));
        }
        assert_eq!(escape("https://${host}/${x}", true), "https://${host}/$${x}");
        assert!(has_variable("a${B}", true) && has_variable("${host}", false));
    }

    #[test]
    fn variables_that_cannot_be_put_in_are_faults() {
        assert_eq!(expanded("${NONE}"), Err("the environment variable NONE is not set".to_owned()));
        assert_eq!(expanded("${PORT"), Err("${ without its }".to_owned()));
        for text in ["${}", "${1A}", "${A-B}", "${a b}", "${:-x}"] {
            assert!(expanded(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_location_keeps_what_stands_for_the_request() {
        let expanded = |text| expand(text, &|_| None, true).map_err(|wrong| wrong.allowed);
        assert_eq!(expanded("https://${host}${path}${query}"), Ok("https://${host}${path}${query}".to_owned()));
        assert!(expanded("${hots}").unwrap_err().contains("${host}"));
    }
}
