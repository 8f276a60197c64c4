//! Lines and fields of a head (RFC 9112, sections 2 and 5; RFC 9110, section 5).
//!
//! Owns their syntax. Never knows what a field means, `Content-Length` apart, whose digits both readers need.

use super::Malformed;
use memchr::{memchr, memmem};

/// Where the head ends: the index after its empty line. Looks from `from` on, less the three bytes that an end may have
/// left before it.
pub fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    let start = from.saturating_sub(3);
    memmem::find(&bytes[start..], b"\r\n\r\n").map(|at| start + at + 4)
}

/// Cuts off the first line of a head, without its CRLF.
///
/// # Errors
/// When a line does not end in CRLF, or has a bare CR.
pub fn line<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let end = memchr(b'\n', rest).ok_or(Malformed("a line without an end"))?;
    let line = rest[..end].strip_suffix(b"\r").ok_or(Malformed("a bare LF"))?;
    *rest = &rest[end + 1..];
    if memchr(b'\r', line).is_some() { Err(Malformed("a bare CR")) } else { Ok(line) }
}

/// Name and trimmed value of a field line.
///
/// # Errors
/// When the name is no token, no colon follows it at once, or the value has a control character.
pub fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let colon = memchr(b':', line).ok_or(Malformed("a field line without a colon"))?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    if !is_token(name) {
        return Err(Malformed("a field name that is no token"));
    }
    if value.iter().any(|&b| (b < b' ' && b != b'\t') || b == 0x7f) {
        return Err(Malformed("a control character in a field value"));
    }
    Ok((name, value))
}

/// Whether these bytes are a token (RFC 9110, section 5.6.2).
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&b| TOKEN[usize::from(b)])
}

/// The value of a `Content-Length`.
///
/// # Errors
/// When it is anything but digits, or overflows.
pub fn content_length(value: &[u8]) -> Result<u64, Malformed> {
    const WRONG: Malformed = Malformed("a Content-Length that is no number");
    if value.is_empty() {
        return Err(WRONG);
    }
    value.iter().try_fold(0u64, |sum, &b| {
        let digit = if b.is_ascii_digit() { u64::from(b - b'0') } else { return Err(WRONG) };
        sum.checked_mul(10).and_then(|s| s.checked_add(digit)).ok_or(WRONG)
    })
}

/// Takes a `Content-Length` into `length`.
///
/// # Errors
/// When it is no number, or the second one, even if both are the same.
pub fn only_length(length: &mut Option<u64>, value: &[u8]) -> Result<(), Malformed> {
    match length.replace(content_length(value)?) {
        None => Ok(()),
        Some(_) => Err(Malformed("two Content-Lengths")),
    }
}

/// Whether a comma-separated list names `option`, without regard to case.
pub fn lists(value: &[u8], option: &[u8]) -> bool {
    value.split(|&b| b == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(option))
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        table[i] = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_strict() {
        assert_eq!(field(b"Host:  a \t"), Ok((&b"Host"[..], &b"a"[..])));
        for wrong in [&b"Host : a"[..], b": a", b" folded", b"A: \x01", b"A\x00: b", b"no colon"] {
            assert!(field(wrong).is_err(), "{:?}", wrong.escape_ascii().to_string());
        }
    }

    #[test]
    fn lines_end_in_crlf_only() {
        let mut rest = &b"a\r\nb\n"[..];
        assert_eq!(line(&mut rest), Ok(&b"a"[..]));
        assert!(line(&mut rest).is_err());
        assert!(line(&mut &b"a\rb\r\n"[..]).is_err());
    }

    #[test]
    fn an_end_cut_in_two_is_found() {
        assert_eq!(head_end(b"GET\r\n\r\nx", 5), Some(7));
        assert_eq!(head_end(b"GET\r\n\r", 0), None);
    }

    #[test]
    fn lengths_are_digits_that_fit() {
        assert_eq!(content_length(b"100"), Ok(100));
        for wrong in [&b""[..], b"+1", b"1, 1", b"0x1", b"99999999999999999999"] {
            assert!(content_length(wrong).is_err());
        }
    }
}
