//! The Huffman code of header compression (RFC 7541, appendix B), read only: what is sent here goes uncompressed.
//!
//! Owns the code. Never knows what the octets mean.

use crate::http::Malformed;
use std::sync::LazyLock;

/// How many bits each octet's code has; the last one is the end of a string, which never occurs. The code is canonical:
/// within a length the codes follow each other in the order of the octets.
const BITS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26, 30,
];
/// Length of the longest code in bits.
const BITS_MAX: usize = 30;
const END_OF_STRING: u16 = 256;

/// The code sorted for reading.
struct Table {
    /// Octets in the order of their codes.
    octets: Vec<u16>,
    /// For each length: the first code, and where it stands in `octets`; how many there are.
    lengths: [(u32, usize, u32); BITS_MAX + 1],
    /// For each byte that may begin a code of at most 8 bits: its octet and length; length 0 for the longer ones.
    short: Vec<(u8, u8)>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut octets = Vec::with_capacity(BITS.len());
    let mut lengths = [(0, 0, 0); BITS_MAX + 1];
    let mut short = vec![(0, 0); 256];
    let mut code = 0u32;
    for (bits, entry) in lengths.iter_mut().enumerate().skip(1) {
        code <<= 1;
        *entry = (code, octets.len(), 0);
        for octet in (0..=END_OF_STRING).filter(|&octet| usize::from(BITS[usize::from(octet)]) == bits) {
            if bits <= 8 {
                let first = (code as usize) << (8 - bits);
                short[first..first + (1 << (8 - bits))].fill((octet as u8, bits as u8));
            }
            octets.push(octet);
            entry.2 += 1;
            code += 1;
        }
    }
    Table { octets, lengths, short }
});

/// Appends what a coded string says.
///
/// # Errors
/// When it holds the end of a string, or is padded with anything but up to 7 bits of 1.
pub fn decode(coded: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let table = &*TABLE;
    // Bits not used yet stand at the low end.
    let (mut bits, mut count) = (0u64, 0usize);
    for &byte in coded {
        bits = bits << 8 | u64::from(byte);
        count += 8;
        while let Some((octet, used)) = next(table, bits, count)? {
            out.push(octet);
            count -= used;
        }
        bits &= (1 << count) - 1;
    }
    if count > 7 || bits != (1 << count) - 1 {
        return Err(Malformed("a string whose padding is none"));
    }
    Ok(())
}

/// The octet whose code stands at the top of `count` bits, and its length.
fn next(table: &Table, bits: u64, count: usize) -> Result<Option<(u8, usize)>, Malformed> {
    if count >= 8 {
        let (octet, used) = table.short[(bits >> (count - 8)) as usize & 0xff];
        if used > 0 {
            return Ok(Some((octet, used.into())));
        }
    }
    for length in 5..=count.min(BITS_MAX) {
        let code = (bits >> (count - length)) as u32 & ((1 << length) - 1);
        let (first, at, many) = table.lengths[length];
        if code >= first && code - first < many {
            let octet = table.octets[at + (code - first) as usize];
            let octet = u8::try_from(octet).map_err(|_| Malformed("the end of a string within it"))?;
            return Ok(Some((octet, length)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(coded: &[u8]) -> Result<String, Malformed> {
        let mut out = Vec::new();
        decode(coded, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_examples_of_the_standard_read() {
        // RFC 7541, C.4.1, C.4.2 and C.6.1.
        let host = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(read(&host).unwrap(), "www.example.com");
        assert_eq!(read(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]).unwrap(), "no-cache");
        let date = [
            0xd0, 0x7a, 0xbe, 0x94, 0x10, 0x54, 0xd4, 0x44, 0xa8, 0x20, 0x05, 0x95, 0x04, 0x0b, 0x81, 0x66, 0xe0, 0x82,
            0xa6, 0x2d, 0x1b, 0xff,
        ];
        assert_eq!(read(&date).unwrap(), "Mon, 21 Oct 2013 20:13:21 GMT");
    }

    #[test]
    fn wrong_padding_and_the_end_of_a_string_are_refused() {
        for coded in [&[0x00][..], &[0xff], &[0xff, 0xff, 0xff, 0xff]] {
            assert!(read(coded).is_err(), "{coded:x?}");
        }
    }
}
