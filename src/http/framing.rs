//! Where a body ends (RFC 9112, section 6), as functions over the framing fields of a head.
//!
//! Owns the decision and the refusal of everything ambiguous. Never reads a body.

use crate::error::{Fault, Reason};
use crate::http::head::Version;

/// Which side sent what is being read; says who is to blame for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    Client,
    Backend,
}

impl Sender {
    /// The fault of a message that is malformed or ambiguous.
    #[cold]
    pub const fn malformed(self, detail: &'static str) -> Fault {
        match self {
            Sender::Client => Fault::new(Reason::BadRequest, detail),
            Sender::Backend => Fault::new(Reason::BackendProtocol, detail),
        }
    }

    /// The fault of a head that is larger than allowed.
    #[cold]
    pub const fn too_large(self, detail: &'static str) -> Fault {
        match self {
            Sender::Client => Fault::new(Reason::HeadTooLarge, detail),
            Sender::Backend => Fault::new(Reason::BackendProtocol, detail),
        }
    }
}

/// How the body of a request is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// There is none, and the head says nothing about it.
    None,
    /// So many bytes; `Content-Length: 0` was said when it is 0.
    Length(u64),
    Chunked,
}

/// How the body of a response is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseFraming {
    /// There is none, whatever the fields say (an answer to `HEAD`, 1xx, 204, 304).
    None,
    /// So many bytes.
    Length(u64),
    Chunked,
    /// The end of the connection ends it.
    UntilClose,
}

/// The values of the framing fields of one head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FramingFields<'b> {
    content_length: Option<&'b [u8]>,
    transfer_encoding: Option<&'b [u8]>,
    doubled: bool,
}

impl<'b> FramingFields<'b> {
    /// Takes note of a `Content-Length` field.
    pub fn add_content_length(&mut self, value: &'b [u8]) {
        self.doubled |= self.content_length.replace(value).is_some();
    }

    /// Takes note of a `Transfer-Encoding` field.
    pub fn add_transfer_encoding(&mut self, value: &'b [u8]) {
        self.doubled |= self.transfer_encoding.replace(value).is_some();
    }

    /// Whether the length is not written in its shortest form.
    pub fn has_leading_zeros(&self) -> bool {
        matches!(self.content_length, Some([b'0', _, ..]))
    }

    /// Whether the fields say that there is a body with something in it.
    pub fn declare_a_body(&self) -> bool {
        self.transfer_encoding.is_some()
            || self.content_length.is_some_and(|len| len.iter().any(|&digit| digit != b'0'))
    }

    /// What the fields say when they say one thing; the refusals that both directions share.
    fn declared(&self, version: Version, sender: Sender) -> Result<Declared, Fault> {
        if self.doubled {
            return Err(sender.malformed("a framing field comes twice (RFC 9112 6.3)"));
        }
        match (self.content_length, self.transfer_encoding) {
            (None, None) => Ok(Declared::Nothing),
            (Some(_), Some(_)) => Err(sender.malformed("both Content-Length and Transfer-Encoding (RFC 9112 6.1)")),
            (Some(value), None) => decimal(value)
                .map(Declared::Length)
                .ok_or_else(|| sender.malformed("Content-Length is not one decimal number (RFC 9110 8.6)")),
            (None, Some(_)) if version == Version::Http10 => {
                Err(sender.malformed("Transfer-Encoding in an HTTP/1.0 message (RFC 9112 6.1)"))
            }
            (None, Some(value)) if value.eq_ignore_ascii_case(b"chunked") => Ok(Declared::Chunked),
            (None, Some(_)) => Err(sender.malformed("a Transfer-Encoding other than chunked alone (RFC 9112 6.1)")),
        }
    }
}

enum Declared {
    Nothing,
    Length(u64),
    Chunked,
}

/// How the body of a request ends (RFC 9112, section 6.3).
///
/// Refused with 400: both framing fields, either of them twice (equal values and lists of equal ones too), a length that
/// isn't 1*DIGIT or has leading zeros (some parsers read those as octal), a coding that isn't `chunked` alone, and any
/// coding in HTTP/1.0.
pub fn request_framing(version: Version, fields: &FramingFields<'_>) -> Result<BodyFraming, Fault> {
    if fields.has_leading_zeros() {
        return Err(Sender::Client.malformed("Content-Length has leading zeros (RFC 9110 8.6)"));
    }
    Ok(match fields.declared(version, Sender::Client)? {
        Declared::Nothing => BodyFraming::None,
        Declared::Length(n) => BodyFraming::Length(n),
        Declared::Chunked => BodyFraming::Chunked,
    })
}

/// How the body of a response ends (RFC 9112, section 6.3); `to_head` when it answers a `HEAD` request.
///
/// The same refusals as for requests, but leading zeros are read as decimal: old servers pad a length that they fill
/// in later.
pub fn response_framing(
    version: Version,
    status: u16,
    to_head: bool,
    fields: &FramingFields<'_>,
) -> Result<ResponseFraming, Fault> {
    let declared = fields.declared(version, Sender::Backend)?;
    if to_head || status < 200 || status == 204 || status == 304 {
        return Ok(ResponseFraming::None);
    }
    Ok(match declared {
        Declared::Nothing => ResponseFraming::UntilClose,
        Declared::Length(n) => ResponseFraming::Length(n),
        Declared::Chunked => ResponseFraming::Chunked,
    })
}

/// 1*DIGIT that fits 63 bits, as `Content-Length` has it (RFC 9110, section 8.6); sums of two cannot overflow.
pub fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    let mut number = 0u64;
    for byte in value {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    (number <= i64::MAX as u64).then_some(number)
}

/// What the `Connection` fields of a head ask for (RFC 9110, section 7.6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionOptions {
    pub close: bool,
    pub keep_alive: bool,
    pub upgrade: bool,
    /// Other options than those and `TE` are there: names of fields that end here.
    pub names_fields: bool,
}

impl ConnectionOptions {
    /// Takes note of one `Connection` field.
    pub fn add(&mut self, value: &[u8]) {
        if !self.add_known(value) {
            for option in list_members(value) {
                self.names_fields |= !self.add_known(option);
            }
        }
    }

    /// Takes note of one option; whether it is known.
    fn add_known(&mut self, option: &[u8]) -> bool {
        match option.len() {
            10 if option.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
            5 if option.eq_ignore_ascii_case(b"close") => self.close = true,
            7 if option.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
            2 if option.eq_ignore_ascii_case(b"te") => {}
            _ => return false,
        }
        true
    }

    /// Whether the connection may carry another message after this one (RFC 9112, section 9.3).
    pub fn persists(&self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep_alive)
    }
}

/// The non-empty members of a comma-separated list without quoted strings (RFC 9110, section 5.6.1).
pub fn list_members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim).filter(|member| !member.is_empty())
}

/// Without optional whitespace (RFC 9110, section 5.6.3) on both sides.
pub fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields<'b>(lengths: &[&'b str], codings: &[&'b str]) -> FramingFields<'b> {
        let mut fields = FramingFields::default();
        lengths.iter().for_each(|v| fields.add_content_length(v.as_bytes()));
        codings.iter().for_each(|v| fields.add_transfer_encoding(v.as_bytes()));
        fields
    }

    #[test]
    fn one_unambiguous_framing_is_taken() {
        let request = |f: &FramingFields<'_>| request_framing(Version::Http11, f).unwrap();
        assert_eq!(request(&fields(&[], &[])), BodyFraming::None);
        assert_eq!(request(&fields(&["0"], &[])), BodyFraming::Length(0));
        assert_eq!(request(&fields(&["9223372036854775807"], &[])), BodyFraming::Length(i64::MAX as u64));
        assert_eq!(request(&fields(&[], &["Chunked"])), BodyFraming::Chunked);
    }

    #[test]
    fn ambiguous_framing_is_refused_from_both_sides() {
        let cases: [(&[&str], &[&str]); 20] = [
            (&["5"], &["chunked"]),
            (&["5", "5"], &[]),
            (&["5", "6"], &[]),
            (&["5, 5"], &[]),
            (&["+5"], &[]),
            (&["-0"], &[]),
            (&["0x5"], &[]),
            (&["1_0"], &[]),
            (&["5 5"], &[]),
            (&[""], &[]),
            (&["9223372036854775808"], &[]),
            (&["99999999999999999999"], &[]),
            (&[], &["chunked", "chunked"]),
            (&[], &["chunked, chunked"]),
            (&[], &["gzip, chunked"]),
            (&[], &["identity"]),
            (&[], &[", chunked"]),
            (&[], &["chunked,"]),
            (&[], &["chunked;a=b"]),
            (&[], &[""]),
        ];
        for (lengths, codings) in cases {
            let fields = fields(lengths, codings);
            let request = request_framing(Version::Http11, &fields).unwrap_err();
            assert_eq!(request.reason, Reason::BadRequest, "{lengths:?} {codings:?}");
            let response = response_framing(Version::Http11, 200, false, &fields).unwrap_err();
            assert_eq!(response.reason, Reason::BackendProtocol, "{lengths:?} {codings:?}");
        }
        assert!(request_framing(Version::Http10, &fields(&[], &["chunked"])).is_err());
        assert!(response_framing(Version::Http10, 200, false, &fields(&[], &["chunked"])).is_err());
    }

    #[test]
    fn leading_zeros_are_for_responses_only() {
        assert!(request_framing(Version::Http11, &fields(&["0200"], &[])).is_err());
        assert_eq!(
            response_framing(Version::Http11, 200, false, &fields(&["0200"], &[])),
            Ok(ResponseFraming::Length(200))
        );
    }

    #[test]
    fn some_responses_have_no_body_whatever_they_say() {
        for (status, to_head) in [(200, true), (100, false), (103, false), (204, false), (304, false)] {
            let framing = response_framing(Version::Http11, status, to_head, &fields(&["5"], &[]));
            assert_eq!(framing, Ok(ResponseFraming::None), "{status}");
        }
        assert_eq!(response_framing(Version::Http11, 200, false, &fields(&[], &[])), Ok(ResponseFraming::UntilClose));
    }

    #[test]
    fn connection_options_are_a_list_over_all_fields() {
        let mut options = ConnectionOptions::default();
        options.add(b" , Keep-Alive ,\tUPGRADE,");
        assert_eq!(options, ConnectionOptions { keep_alive: true, upgrade: true, ..Default::default() });
        assert!(options.persists(Version::Http10));
        options.add(b"close, x-secret");
        assert!(options.close && options.names_fields && !options.persists(Version::Http11));
        assert!(!ConnectionOptions::default().persists(Version::Http10));
    }
}
