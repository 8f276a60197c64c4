//! Field lines: bytes to a [`FieldTable`] (RFC 9112, section 5).
//!
//! Owns the scan of names and values, also of trailer sections, and the refusal of every malformed line. Never knows
//! what a field means.

use crate::error::Fault;
use crate::http::framing::Sender;
use crate::http::head::{Entry, FieldKind, FieldTable};

pub(super) const BARE_LF: &str = "a line of the head ends in a bare LF (RFC 9112 2.2)";
pub(super) const BARE_CR: &str = "a bare CR in the head (RFC 9112 2.2)";

/// `true` for `tchar` (RFC 9110, section 5.6.2).
static TOKEN_BYTE: [bool; 256] = {
    let mut table = [false; 256];
    let allowed = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~";
    let mut i = 0;
    while i < allowed.len() {
        table[allowed[i] as usize] = true;
        i += 1;
    }
    table
};

/// Whether this is a `tchar` (RFC 9110, section 5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    TOKEN_BYTE[byte as usize]
}

/// Reads field lines from `start` to the empty line that ends them; the offset behind it, `None` while it is missing.
///
/// `head` is shorter than 4 GiB, so that offsets and lengths fit an [`Entry`]; a name of 64 KiB or more is refused.
pub(super) fn parse_fields(
    head: &[u8],
    start: usize,
    fields_max: usize,
    sender: Sender,
    table: &mut FieldTable,
) -> Result<Option<usize>, Fault> {
    debug_assert!(u32::try_from(head.len()).is_ok(), "offsets in a head have to fit its table");
    table.entries.clear();
    let mut at = start;
    loop {
        match field_line(head, at).map_err(|detail| sender.malformed(detail))? {
            Line::Field(entry, next) if table.entries.len() < fields_max => {
                table.entries.push(entry);
                at = next;
            }
            Line::Field(..) => return Err(sender.too_large("more fields than max_headers (RFC 6585 5)")),
            Line::Empty => return Ok(Some(at + 2)),
            Line::Partial => return Ok(None),
        }
    }
}

enum Line {
    /// A field, and the offset behind its line.
    Field(Entry, usize),
    Empty,
    /// The buffer ends before the line does.
    Partial,
}

/// Reads `field-name ":" OWS field-value OWS CRLF` or the empty line at `start` (RFC 9112, section 5).
#[inline]
fn field_line(head: &[u8], start: usize) -> Result<Line, &'static str> {
    let line = &head[start..];
    let Some(name_len) = token_len(line) else { return Ok(Line::Partial) };
    if line[name_len] != b':' || name_len == 0 {
        return not_a_field(line, name_len);
    }
    let Ok(short_name_len) = u16::try_from(name_len) else { return Err("a field name is too long (RFC 9110 5.1)") };
    let mut value_start = name_len + 1;
    while let Some(b' ' | b'\t') = line.get(value_start) {
        value_start += 1;
    }
    let Some(line_end) = value_len(&line[value_start..])?.map(|len| value_start + len) else {
        return Ok(Line::Partial);
    };
    let value_end = value_start + trim_end(&line[value_start..line_end]).len();
    let entry = Entry {
        name_start: start as u32,
        value_start: (start + value_start) as u32,
        value_len: (value_end - value_start) as u32,
        name_len: short_name_len,
        kind: FieldKind::of(&line[..name_len]),
        is_canonical: value_start == name_len + 2 && line[name_len + 1] == b' ' && value_end == line_end,
    };
    Ok(Line::Field(entry, start + line_end + 2))
}

/// The empty line, or what is wrong with a line whose token of `token_len` bytes no colon follows.
#[cold]
fn not_a_field(line: &[u8], token_len: usize) -> Result<Line, &'static str> {
    match (token_len, &line[token_len..]) {
        (0, [b'\r', b'\n', ..]) => Ok(Line::Empty),
        (_, [b'\r']) => Ok(Line::Partial),
        (_, [b'\r', b'\n', ..]) => Err("a field line without a colon (RFC 9112 5)"),
        (_, [b'\r', ..]) => Err(BARE_CR),
        (_, [b'\n', ..]) => Err(BARE_LF),
        (0, [b' ' | b'\t', ..]) => Err("a field line begins with whitespace (obsolete folding, RFC 9112 5.2)"),
        (_, [b' ' | b'\t', ..]) => Err("whitespace between a field name and its colon (RFC 9112 5.1)"),
        (0, [b':', ..]) => Err("a field name is empty (RFC 9110 5.1)"),
        _ => Err("a field name is not a token (RFC 9110 5.1)"),
    }
}

#[inline]
fn trim_end(mut text: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = ONES * 0x80;

/// How many bytes of a token come first; `None` when nothing else follows. Eight bytes at a time while they are the
/// letters and dashes that most names are made of.
#[inline]
fn token_len(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(word) = text.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let others = !letters_and_dashes(u64::from_le_bytes(*word)) & HIGHS;
        at += others.trailing_zeros() as usize / 8;
        if others != 0 {
            if !is_token(text[at]) {
                return Some(at);
            }
            at += 1;
        }
    }
    text[at..].iter().position(|&byte| !is_token(byte)).map(|rest| at + rest)
}

/// The high bit of each byte that is a letter or a dash; other bits have no meaning.
#[inline]
fn letters_and_dashes(word: u64) -> u64 {
    let low = word & !HIGHS;
    let lower = low | (ONES * 0x20);
    // No sum here reaches beyond its byte: 0x7f and 0x7f at the most.
    let from_a = lower + ONES * (0x80 - b'a' as u64);
    let beyond_z = lower + ONES * (0x7f - b'z' as u64);
    let not_dash = (low ^ (ONES * b'-' as u64)) + ONES * 0x7f;
    ((from_a & !beyond_z) | !not_dash) & !word
}

/// How many bytes come before the CRLF that ends a field value; `None` while it is missing.
#[inline]
fn value_len(text: &[u8]) -> Result<Option<usize>, &'static str> {
    let mut at = 0;
    loop {
        let Some(plain) = first_control(&text[at..]) else { return Ok(None) };
        at += plain;
        match text[at..] {
            [b'\r', b'\n', ..] => return Ok(Some(at)),
            [b'\t', ..] => at += 1,
            [b'\r'] => return Ok(None),
            [b'\r', ..] => return Err(BARE_CR),
            [b'\n', ..] => return Err(BARE_LF),
            _ => return Err("a control character in a field value (RFC 9110 5.5)"),
        }
    }
}

/// The offset of the first control character (0x00..=0x1f, 0x7f), eight bytes at a time.
#[inline]
fn first_control(text: &[u8]) -> Option<usize> {
    let (words, tail) = text.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let del = word ^ (ONES * 0x7f);
        // The high bit of each byte that is below 0x20, or is 0x7f. A borrow can only set bits above the lowest hit.
        let hits = ((word.wrapping_sub(ONES * 0x20) & !word) | (del.wrapping_sub(ONES) & !del)) & HIGHS;
        if hits != 0 {
            return Some(i * 8 + hits.trailing_zeros() as usize / 8);
        }
    }
    tail.iter().position(u8::is_ascii_control).map(|at| text.len() - tail.len() + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bytes_at_a_time_say_what_one_does() {
        for byte in 0..=255u8 {
            for at in 0..8 {
                let mut word = *b"Ab-zXyZa";
                word[at] = byte;
                let expected = byte.is_ascii_alphabetic() || byte == b'-';
                let high = letters_and_dashes(u64::from_le_bytes(word)) >> (at * 8 + 7) & 1;
                assert_eq!(high == 1, expected, "{byte:#x} at {at}");
                let text = [&word[..], b"\0"].concat();
                let control = text.iter().position(u8::is_ascii_control);
                assert_eq!(first_control(&text), control, "{byte:#x} at {at}");
                let token = text.iter().position(|&byte| !is_token(byte));
                assert_eq!(token_len(&text), token, "{byte:#x} at {at}");
            }
        }
    }
}
