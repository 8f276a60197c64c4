//! Addresses as text.
//!
//! Owns the quick way for IPv4. Never knows which field an address goes into.

use std::net::IpAddr;

/// Writes an address as text, an IPv4-mapped one as IPv4.
pub fn write_address(out: &mut Vec<u8>, address: IpAddr) {
    use std::io::Write;
    match address.to_canonical() {
        IpAddr::V4(v4) => write_v4(out, v4.octets()),
        // Writing to a vector cannot fail.
        IpAddr::V6(v6) => drop(write!(out, "{v6}")),
    }
}

/// From a table, because the formatter of the standard library costs several times as much, twice a request.
fn write_v4(out: &mut Vec<u8>, octets: [u8; 4]) {
    let mut text = [0u8; 16];
    let mut len = 0;
    for octet in octets {
        let Octet { digits, width } = OCTETS[usize::from(octet)];
        text[len..len + 4].copy_from_slice(&digits);
        len += usize::from(width);
    }
    out.extend_from_slice(&text[..len - 1]);
}

/// An octet in decimal with a dot behind it.
#[derive(Clone, Copy)]
struct Octet {
    digits: [u8; 4],
    /// Bytes of `digits` that count, the dot among them.
    width: u8,
}

static OCTETS: [Octet; 256] = {
    let mut table = [Octet { digits: [0; 4], width: 0 }; 256];
    let mut n = 0;
    while n < 256 {
        let (a, b, c) = (b'0' + (n / 100) as u8, b'0' + (n / 10 % 10) as u8, b'0' + (n % 10) as u8);
        table[n] = match n {
            0..10 => Octet { digits: [c, b'.', 0, 0], width: 2 },
            10..100 => Octet { digits: [b, c, b'.', 0], width: 3 },
            _ => Octet { digits: [a, b, c, b'.'], width: 4 },
        };
        n += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_in_their_usual_form() {
        for (address, text) in [
            ("0.0.0.0", "0.0.0.0"),
            ("255.10.0.9", "255.10.0.9"),
            ("::ffff:1.2.3.4", "1.2.3.4"),
            ("2001:DB8::1", "2001:db8::1"),
        ] {
            let mut out = Vec::new();
            write_address(&mut out, address.parse().unwrap());
            assert_eq!(out, text.as_bytes());
        }
    }
}
