//! The first line of a message (RFC 9112, sections 3 and 4).
//!
//! Owns its grammar: method, target, version, status, reason phrase. Never looks at a field.

use crate::error::{Fault, Reason};
use crate::http::fields::{BARE_CR, BARE_LF, is_token};
use crate::http::framing::Sender;
use crate::http::head::{Method, Version};
use crate::limits;

/// Empty lines in front of a request line that are skipped (RFC 9112, section 2.2), in lines.
pub const EMPTY_LINES_MAX: usize = 4;
/// Longest method, in bytes.
pub const METHOD_BYTES_MAX: usize = 32;

const VERSION_LEN: usize = 8;

/// Longest request line whose target may still be short enough, without its CRLF, in bytes.
pub(super) const REQUEST_LINE_BYTES_MAX: usize = METHOD_BYTES_MAX + limits::TARGET_BYTES_MAX + VERSION_LEN + 2;

pub(super) const TARGET_TOO_LONG: Fault =
    Fault::new(Reason::TargetTooLong, "the request target is too long (RFC 9110 15.5.15)");

/// Where the request line begins.
pub(super) fn skip_empty_lines(window: &[u8]) -> Result<usize, Fault> {
    let mut start = 0;
    while let Some([b'\r', b'\n']) = window.get(start..start + 2) {
        start += 2;
        if start > 2 * EMPTY_LINES_MAX {
            return Err(Sender::Client.malformed("too many empty lines before the request line (RFC 9112 2.2)"));
        }
    }
    Ok(start)
}

pub(super) struct RequestLine<'b> {
    pub method: Method,
    pub method_name: &'b [u8],
    pub target: &'b [u8],
    /// Offset of the first question mark in the target, or its length.
    pub query_at: usize,
    /// Before the query is a `%`, or a `.` behind a `/`.
    pub path_is_suspect: bool,
    pub version: Version,
    /// Offset behind its CRLF.
    pub end: usize,
}

const MALFORMED_VERSION: Fault = Fault::new(Reason::BadRequest, "the version is malformed (RFC 9112 2.3)");
pub(super) const NO_METHOD: &str = "the request does not begin with a method (RFC 9112 3)";

/// `method SP request-target SP HTTP-version CRLF` (RFC 9112, section 3); `None` while its end is missing.
pub(super) fn request_line(window: &[u8], start: usize) -> Result<Option<RequestLine<'_>>, Fault> {
    let Some(method_len) = method_len(&window[start..])? else { return Ok(None) };
    let method_name = &window[start..start + method_len];
    let target_start = start + method_len + 1;
    let Some(extent) = target_extent(&window[target_start..])? else { return Ok(None) };
    let TargetExtent { len: target_len, query_at, path_is_suspect } = extent;
    if target_len > limits::TARGET_BYTES_MAX {
        return Err(TARGET_TOO_LONG);
    }
    let target = &window[target_start..target_start + target_len];
    let after_target = &window[target_start + target_len + 1..];
    let Some((version, rest)) = after_target.split_first_chunk::<VERSION_LEN>() else {
        let may_follow = |(at, byte): (usize, &u8)| b"HTTP/".get(at).map_or(*byte >= b'.', |expected| byte == expected);
        return if after_target.iter().enumerate().all(may_follow) { Ok(None) } else { Err(MALFORMED_VERSION) };
    };
    let version = version_of(version).map_err(|wrong| match wrong {
        WrongVersion::Malformed => MALFORMED_VERSION,
        WrongVersion::NotServed => Fault::new(Reason::VersionNotServed, "only HTTP/1 is served here (RFC 9110 15.6.6)"),
    })?;
    match rest {
        [b'\r', b'\n', ..] => {}
        [] | [b'\r'] => return Ok(None),
        [b'\n', ..] => return Err(Sender::Client.malformed(BARE_LF)),
        [b'\r', ..] => return Err(Sender::Client.malformed(BARE_CR)),
        _ => return Err(Sender::Client.malformed("the request line goes on after the version (RFC 9112 3)")),
    }
    let method = match method_name {
        b"GET" => Method::Get,
        b"HEAD" => Method::Head,
        b"POST" => Method::Post,
        b"PUT" => Method::Put,
        b"DELETE" => Method::Delete,
        b"OPTIONS" => Method::Options,
        b"PATCH" => Method::Patch,
        b"CONNECT" => return Err(Fault::new(Reason::MethodNotServed, "CONNECT is not served (RFC 9110 9.3.6)")),
        b"TRACE" => return Err(Fault::new(Reason::MethodNotServed, "TRACE is not served (RFC 9110 9.3.8)")),
        _ => Method::Other,
    };
    let end = window.len() - rest.len() + 2;
    Ok(Some(RequestLine { method, method_name, target, query_at, path_is_suspect, version, end }))
}

fn method_len(line: &[u8]) -> Result<Option<usize>, Fault> {
    if line.starts_with(b"GET ") {
        return Ok(Some(3));
    }
    let wrong = || Sender::Client.malformed(NO_METHOD);
    match line.iter().take(METHOD_BYTES_MAX + 1).position(|&byte| !is_token(byte)) {
        Some(0) if line == b"\r" => Ok(None),
        Some(0) => Err(wrong()),
        Some(len) if line[len] == b' ' => Ok(Some(len)),
        Some(_) => Err(wrong()),
        None if line.len() > METHOD_BYTES_MAX => Err(wrong()),
        None => Ok(None),
    }
}

struct TargetExtent {
    len: usize,
    query_at: usize,
    path_is_suspect: bool,
}

/// How far the target goes: up to the space behind it. `None` while that is missing.
fn target_extent(line: &[u8]) -> Result<Option<TargetExtent>, Fault> {
    let mut at = 0;
    let mut query_at = None;
    let mut path_is_suspect = false;
    loop {
        let Some(plain) = line[at..].iter().position(|&byte| !TARGET_BYTE[byte as usize]) else {
            return if line.len() > limits::TARGET_BYTES_MAX { Err(TARGET_TOO_LONG) } else { Ok(None) };
        };
        at += plain;
        match line[at] {
            b' ' if at > 0 => {
                return Ok(Some(TargetExtent { len: at, query_at: query_at.unwrap_or(at), path_is_suspect }));
            }
            b'%' | b'.' | b'?' | b'\\' if query_at.is_some() => {}
            b'?' => query_at = Some(at),
            b'%' => path_is_suspect = true,
            b'.' => path_is_suspect |= at > 0 && line[at - 1] == b'/',
            byte => return Err(Sender::Client.malformed(not_in_a_target(byte))),
        }
        at += 1;
    }
}

/// Why this byte can't stand where it does in a target.
#[cold]
fn not_in_a_target(byte: u8) -> &'static str {
    match byte {
        b' ' => "the request target is empty (RFC 9112 3.2)",
        b'\\' => "a backslash in the path (RFC 3986 3.3)",
        b'#' => "a fragment in the request target (RFC 9112 3.2)",
        b'\r' | b'\n' => "the request line has no version (RFC 9112 3)",
        0x80.. => "a byte beyond ASCII in the request target (RFC 3986 2)",
        _ => "a control character in the request target (RFC 9112 3.2)",
    }
}

/// `true` for visible ASCII that needs no further look in a target.
static TARGET_BYTE: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        table[byte] = !matches!(byte as u8, b'#' | b'?' | b'\\' | b'%' | b'.');
        byte += 1;
    }
    table
};

enum WrongVersion {
    Malformed,
    NotServed,
}

/// `HTTP/` DIGIT `.` DIGIT, case-sensitive (RFC 9112, section 2.3).
fn version_of(text: &[u8; VERSION_LEN]) -> Result<Version, WrongVersion> {
    match text {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9'] => Ok(Version::Http11),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Err(WrongVersion::NotServed),
        _ => Err(WrongVersion::Malformed),
    }
}

pub(super) struct StatusLine<'b> {
    pub version: Version,
    pub status: u16,
    pub reason: &'b [u8],
    /// Offset behind its CRLF.
    pub end: usize,
}

/// `HTTP-version SP status-code [ SP reason-phrase ] CRLF` (RFC 9112, section 4; the second space is often forgotten).
pub(super) fn status_line(window: &[u8]) -> Result<Option<StatusLine<'_>>, Fault> {
    let wrong = |detail| Err(Sender::Backend.malformed(detail));
    let known = window.len().min(VERSION_LEN - 3);
    if window[..known] != b"HTTP/"[..known] {
        return wrong("the answer does not begin with HTTP/ (RFC 9112 4)");
    }
    let Some(lf) = memchr::memchr(b'\n', window) else { return Ok(None) };
    let Some((line, b'\r')) = window[..lf].split_last().map(|(last, line)| (line, *last)) else {
        return wrong(BARE_LF);
    };
    let Some((version, rest)) = line.split_first_chunk::<VERSION_LEN>() else {
        return wrong("the status line is malformed (RFC 9112 4)");
    };
    let Ok(version) = version_of(version) else {
        return wrong("the answer's version is not HTTP/1 (RFC 9112 2.3)");
    };
    let (digits, reason) = match rest {
        [b' ', a, b, c] => ([*a, *b, *c], &[] as &[u8]),
        [b' ', a, b, c, b' ', reason @ ..] => ([*a, *b, *c], reason),
        _ => return wrong("the status line is malformed (RFC 9112 4)"),
    };
    if !reason.iter().all(|&byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..)) {
        return wrong("a control character in the reason phrase (RFC 9112 4)");
    }
    let [b'1'..=b'5', b'0'..=b'9', b'0'..=b'9'] = digits else {
        return wrong("the status is outside 100 to 599 (RFC 9110 15)");
    };
    let status = digits.iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
    Ok(Some(StatusLine { version, status, reason, end: lf + 1 }))
}
