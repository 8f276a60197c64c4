//! The canonical path of a target: what routes match and backends see with `normalize: on`.
//!
//! Owns the resolution of dot segments and of needless escapes (RFC 3986, section 6.2.2). Never touches the query.
//!
//! Done: `.` and `..` segments resolved, also when written with `%2e`; escapes of unreserved characters decoded.
//! Left byte for byte: every other escape (so `%2F` stays, in its own case), doubled slashes, everything else. Refused
//! with 400: `..` above the root (backends disagree on what it means), malformed escapes, and `%00`.

use crate::error::{Fault, Reason};

/// The canonical form of `path`, which begins with `/` or is `*`; canonical already: `path` itself, without a copy.
/// Otherwise `room` is cleared and holds the result.
pub fn canonical_path<'a>(path: &'a [u8], room: &'a mut Vec<u8>) -> Result<&'a [u8], Fault> {
    match first_suspect(path) {
        None => Ok(path),
        Some(at) => rewrite(path, at, room),
    }
}

/// The first byte that may make `path` not canonical: a `%`, or a `.` at the start of a segment.
fn first_suspect(path: &[u8]) -> Option<usize> {
    memchr::memchr2_iter(b'%', b'.', path).find(|&at| path[at] == b'%' || (at > 0 && path[at - 1] == b'/'))
}

/// Copies the segments before `from` and resolves those after; `room` always ends inside or behind a segment.
fn rewrite<'a>(path: &[u8], from: usize, room: &'a mut Vec<u8>) -> Result<&'a [u8], Fault> {
    room.clear();
    let segment_start = path[..from].iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    room.extend_from_slice(&path[..segment_start]);
    let mut segments = path[segment_start..].split(|&byte| byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let start = room.len();
        decode_segment(segment, room)?;
        let is_last = segments.peek().is_none();
        match &room[start..] {
            b"." => room.truncate(start),
            b".." => {
                room.truncate(start);
                drop_last_segment(room)?;
            }
            _ if is_last => {}
            _ => room.push(b'/'),
        }
    }
    Ok(room)
}

/// Takes `name/` off the end of `/…/name/`.
fn drop_last_segment(room: &mut Vec<u8>) -> Result<(), Fault> {
    const ABOVE_ROOT: Fault = Fault::new(Reason::BadRequest, "the path leads above the root (RFC 3986 5.2.4)");
    let without_slash = room.len().saturating_sub(1);
    let slash = room[..without_slash].iter().rposition(|&byte| byte == b'/').ok_or(ABOVE_ROOT)?;
    room.truncate(slash + 1);
    Ok(())
}

fn decode_segment(segment: &[u8], room: &mut Vec<u8>) -> Result<(), Fault> {
    let mut rest = segment;
    while let Some(at) = memchr::memchr(b'%', rest) {
        room.extend_from_slice(&rest[..at]);
        let (escape, behind) = rest[at..].split_first_chunk::<3>().ok_or(MALFORMED_ESCAPE)?;
        match (hex(escape[1])? << 4) | hex(escape[2])? {
            0 => return Err(Fault::new(Reason::BadRequest, "an escaped NUL in the path (RFC 3986 7.3)")),
            byte if is_unreserved(byte) => room.push(byte),
            _ => room.extend_from_slice(escape),
        }
        rest = behind;
    }
    room.extend_from_slice(rest);
    Ok(())
}

const MALFORMED_ESCAPE: Fault = Fault::new(Reason::BadRequest, "a malformed escape in the path (RFC 3986 2.1)");

fn hex(digit: u8) -> Result<u8, Fault> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(MALFORMED_ESCAPE),
    }
}

/// RFC 3986, section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(path: &str) -> Option<String> {
        let mut room = b"left over".to_vec();
        let bytes = canonical_path(path.as_bytes(), &mut room).ok()?;
        Some(String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[test]
    fn paths_get_one_form() {
        let cases = [
            ("/", "/"),
            ("*", "*"),
            ("/a/b.c/.d/..e/f.", "/a/b.c/.d/..e/f."),
            ("/a//b///", "/a//b///"),
            ("/.", "/"),
            ("/./", "/"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/a/../", "/"),
            ("/a/b/../c", "/a/c"),
            ("/a//../b", "/a/b"),
            ("/a/./b/./c", "/a/b/c"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a/%2e/b", "/a/b"),
            ("/%61%7E%2d", "/a~-"),
            ("/a%2Fb%2f..%2Fc", "/a%2Fb%2f..%2Fc"),
            ("/%252e%252e/", "/%252e%252e/"),
            ("/a%20b%c3%A9", "/a%20b%c3%A9"),
            ("/a/...", "/a/..."),
            ("/a/..;/b", "/a/..;/b"),
        ];
        for (path, expected) in cases {
            assert_eq!(canonical(path).as_deref(), Some(expected), "{path}");
        }
    }

    #[test]
    fn what_has_no_safe_form_is_refused() {
        for path in
            ["/..", "/../a", "/a/../..", "/%2e%2e/", "/a/../../b", "/%", "/%2", "/%zz", "/a%2", "/%00", "/a%g0/b"]
        {
            assert_eq!(canonical(path), None, "{path}");
        }
    }

    #[test]
    fn a_canonical_path_is_not_copied() {
        let path = b"/static/app.min.js";
        let mut room = Vec::new();
        assert_eq!(canonical_path(path, &mut room).unwrap().as_ptr(), path.as_ptr());
    }

    proptest! {
        #[test]
        fn normalizing_twice_changes_nothing(tail in "([a./]|%2[eEfF]|%61|%25|%){0,24}") {
            if let Some(once) = canonical(&format!("/{tail}")) {
                prop_assert!(once.starts_with('/'));
                prop_assert!(!once.split('/').any(|segment| segment == "." || segment == ".."));
                prop_assert_eq!(canonical(&once), Some(once));
            }
        }
    }
}
