//! What a request sends, read strictly: its body within its bound, JSON without doubles, parameters without broken
//! escapes.
//!
//! Owns the way from bytes to values, and the answers to bytes that are none. Never knows what a value means.

use std::fmt;

use axum::body::HttpBody;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value as Json, json};
use tokio_stream::StreamExt;

use super::rest::told;
use crate::config::values::show_size;

/// The whole body, of `BYTES_MAX` at most. Unlike axum's own extractors it refuses in JSON, as everything else here does,
/// and what says that it is larger before it has come.
pub(super) struct Sent<const BYTES_MAX: usize>(pub Vec<u8>);

impl<S: Send + Sync, const BYTES_MAX: usize> FromRequest<S> for Sent<BYTES_MAX> {
    type Rejection = Response;

    async fn from_request(request: Request, _: &S) -> Result<Self, Response> {
        let body = request.into_body();
        let large = || {
            let error = format!("the body is too large; allowed: {}", show_size(BYTES_MAX as u64));
            told(StatusCode::PAYLOAD_TOO_LARGE, &json!({ "error": error }))
        };
        if body.size_hint().lower() > BYTES_MAX as u64 {
            return Err(large());
        }
        let mut bytes = Vec::new();
        let mut pieces = body.into_data_stream();
        while let Some(piece) = pieces.next().await {
            let broken = |_| told(StatusCode::BAD_REQUEST, &json!({"error": "the body broke off"}));
            bytes.extend_from_slice(&piece.map_err(broken)?);
            if bytes.len() > BYTES_MAX {
                return Err(large());
            }
        }
        Ok(Sent(bytes))
    }
}

/// One JSON value (RFC 8259). A key that stands twice in one object is refused: which of the two counts is up to
/// whoever reads it, so that a check and what comes after it might see different ones.
///
/// # Errors
/// Where it is not that, with the place.
pub(super) fn json(text: &[u8]) -> Result<Json, serde_json::Error> {
    serde_json::from_slice::<Strict>(text).map(|strict| strict.0)
}

struct Strict(Json);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Json, E> {
        Number::from_f64(value).map(Json::Number).ok_or_else(|| E::custom("a number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key {} stands twice", quoted(&key))));
            }
            let Strict(value) = entries.next_value()?;
            map.insert(key, value);
        }
        Ok(Json::Object(map))
    }
}

/// How much of a text is repeated in a message, in characters.
const REPEATED_CHARS_MAX: usize = 60;

/// A text that somebody sent, for a message: escaped, and not longer than people read.
pub(super) fn quoted(text: &str) -> String {
    let short = shortened(text);
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("{short:?}{more}")
}

/// The beginning of a text that needs no escapes, where it is long.
pub(super) fn shortened(text: &str) -> &str {
    text.char_indices().nth(REPEATED_CHARS_MAX).map_or(text, |(end, _)| &text[..end])
}

/// The names and values of a URI's query, as forms encode them.
///
/// # Errors
/// The part that is no such thing: a `%` without two hexadecimal digits behind it, or bytes that are not UTF-8. What
/// somebody meant by those can only be guessed.
pub(super) fn pairs(query: &str) -> Result<Vec<(String, String)>, String> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    let pair = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        Some((unescaped(name)?, unescaped(value)?))
    };
    parts.map(|part| pair(part).ok_or_else(|| part.to_owned())).collect()
}

fn unescaped(text: &str) -> Option<String> {
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16).map(|digit| digit as u8);
    let mut bytes = text.bytes();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'+' => b' ',
            b'%' => digit(bytes.next())? << 4 | digit(bytes.next())?,
            other => other,
        });
    }
    String::from_utf8(plain).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_what_it_says_once() {
        let text = r#"{"a": [1, -2, 1.5, null, true, "\u0000é"], "b": {"a": 18446744073709551615}}"#;
        assert_eq!(json(text.as_bytes()).unwrap(), serde_json::from_str::<Json>(text).unwrap());
        let long = format!(r#"{{"{0}": 1, "{0}": 2}}"#, "x".repeat(1000));
        for (wrong, words) in [
            (r#"{"a": 1, "a": 1}"#, "the key \"a\" stands twice at line 1"),
            (r#"[{"b": {"a": 1, "\u0061": 2}}]"#, "the key \"a\" stands twice"),
            (&long, "xxx\"… stands twice"),
            ("1e999", "out of range"),
            ("{} {}", "trailing"),
            ("\u{feff}{}", "expected value"),
            ("\"\\ud800\"", "hex escape"),
            (&"[".repeat(1000), "recursion limit"),
        ] {
            let error = json(wrong.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(words) && error.len() < 200, "{error}");
        }
        assert!(json(b"\"\xff\"").is_err());
    }

    #[test]
    fn escapes_are_sound_or_refused() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(pairs("").unwrap(), []);
        assert_eq!(
            pairs("a=b%20c+d&&e&%66=%3d=&g=%C3%a9").unwrap(),
            [pair("a", "b c d"), pair("e", ""), pair("f", "=="), pair("g", "é")]
        );
        for wrong in ["a=%", "a=%4", "a=%zz", "a=%+1", "%ff=1", "a=%c3", "a=%ed%a0%80"] {
            assert_eq!(pairs(&format!("x=1&{wrong}")), Err(wrong.to_owned()));
        }
    }
}
