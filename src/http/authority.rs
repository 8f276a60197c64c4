//! The authority of a request: `uri-host [ ":" port ]` (RFC 9110, section 7.2; RFC 3986, section 3.2).
//!
//! Owns the check of `Host` and of the authority in an absolute-form target. Never resolves a name, never folds case.

use std::net::Ipv6Addr;

/// A checked authority, still as the client wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'b> {
    text: &'b [u8],
    host_len: usize,
}

impl<'b> Authority<'b> {
    /// Checks `text` and finds where the host ends; what is wrong with it otherwise.
    ///
    /// Stricter than RFC 3986 in two points: a registered name holds no comma (two names folded into one field) and a
    /// port is at most 65535. An empty host is refused, as RFC 9110, section 4.2.1 demands for `http` and `https`.
    pub fn parse(text: &'b [u8]) -> Result<Authority<'b>, &'static str> {
        let host_len = match text.first() {
            None => return Err("the host is empty (RFC 9110 4.2.1)"),
            Some(b'[') => literal_len(text)?,
            Some(_) => name_len(text)?,
        };
        match text.get(host_len..) {
            None | Some([]) => {}
            Some([b':', port @ ..]) if is_port(port) => {}
            Some(_) => return Err("the host is not uri-host [ \":\" port ] (RFC 9110 7.2)"),
        }
        Ok(Authority { text, host_len })
    }

    /// Host and port as written.
    pub fn as_bytes(&self) -> &'b [u8] {
        self.text
    }

    /// The host alone, with the brackets of an IPv6 literal.
    pub fn host(&self) -> &'b [u8] {
        &self.text[..self.host_len]
    }

    /// The port, when one is written.
    pub fn port(&self) -> Option<u16> {
        let digits = self.text.get(self.host_len + 1..)?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }
}

/// `true` for `unreserved` and `sub-delims` less the comma.
static NAME_BYTE: [bool; 256] = {
    let mut table = [false; 256];
    let allowed = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+;=";
    let mut i = 0;
    while i < allowed.len() {
        table[allowed[i] as usize] = true;
        i += 1;
    }
    table
};

/// How long the registered name (or IPv4 address) at the start is; at least one byte.
fn name_len(text: &[u8]) -> Result<usize, &'static str> {
    let mut at = 0;
    loop {
        at += text[at..].iter().position(|&byte| !NAME_BYTE[byte as usize]).unwrap_or(text.len() - at);
        match &text[at..] {
            escape @ [b'%', ..] if is_escape(escape) => at += 3,
            _ if at == 0 => return Err("the host is empty (RFC 9110 4.2.1)"),
            _ => return Ok(at),
        }
    }
}

fn is_escape(text: &[u8]) -> bool {
    matches!(text, [b'%', a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit())
}

/// How long the `[IPv6]` at the start is. Zones and the never-assigned `IPvFuture` are refused.
fn literal_len(text: &[u8]) -> Result<usize, &'static str> {
    const WRONG: &str = "the host is not an IPv6 literal (RFC 3986 3.2.2)";
    let end = memchr::memchr(b']', text).ok_or(WRONG)?;
    let inside = std::str::from_utf8(&text[1..end]).map_err(|_| WRONG)?;
    inside.parse::<Ipv6Addr>().map_err(|_| WRONG)?;
    Ok(end + 1)
}

/// RFC 3986 lets a port be empty.
fn is_port(digits: &[u8]) -> bool {
    let mut number = 0u32;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return false;
        }
        number = (number * 10 + u32::from(digit - b'0')).min(70_000);
    }
    number <= u32::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_a_host_is_taken_apart() {
        let cases: [(&str, &str, Option<u16>); 9] = [
            ("example.com", "example.com", None),
            ("example.com:8080", "example.com", Some(8080)),
            ("example.com:", "example.com", None),
            ("EXAMPLE.com.", "EXAMPLE.com.", None),
            ("my_host", "my_host", None),
            ("127.0.0.1:80", "127.0.0.1", Some(80)),
            ("[::1]", "[::1]", None),
            ("[2001:db8::1]:443", "[2001:db8::1]", Some(443)),
            ("caf%C3%A9.example", "caf%C3%A9.example", None),
        ];
        for (text, host, port) in cases {
            let authority = Authority::parse(text.as_bytes()).unwrap();
            assert_eq!((authority.host(), authority.port()), (host.as_bytes(), port), "{text}");
        }
    }

    #[test]
    fn what_does_not_is_refused() {
        for text in [
            "",
            ":80",
            "a b",
            "a,b",
            "a/b",
            "a?b",
            "a#b",
            "user@a",
            "a:b",
            "a:80:80",
            "a:65536",
            "a:-1",
            "a:+1",
            "[::1",
            "[::1]x",
            "[]",
            "[fe80::1%25eth0]",
            "[v1.x]",
            "::1",
            "a%",
            "a%2",
            "a%zz",
            "a\\b",
            "a\"b",
            "a<b",
            "h\u{e9}",
            "a\t",
        ] {
            assert!(Authority::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
