//! The PROXY protocol's header, versions 1 and 2, in front of a connection.
//!
//! Owns reading it. Never decides who may send one; that is `server.trusted_proxies`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::error::{Fault, Reason};

/// Longest header of version 1, CRLF included, in bytes.
pub const V1_BYTES_MAX: usize = 107;
/// Longest header of version 2 (addresses and TLVs behind its fixed 16 bytes), in bytes.
pub const V2_BYTES_MAX: usize = 4096;

const V1_SIGNATURE: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED_LEN: usize = 16;

/// What a PROXY header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The client's address; `None` for `UNKNOWN`, `LOCAL` and addresses that aren't IP: the connection's own peer then.
    pub source: Option<SocketAddr>,
    /// The address that the client connected to.
    pub destination: Option<SocketAddr>,
}

impl ProxyHeader {
    const UNKNOWN: ProxyHeader = ProxyHeader { source: None, destination: None };
}

/// Reads a PROXY header at the start of `buf`: what it says and the bytes it took, or `None` while it is not whole.
///
/// Refused as soon as it is sure: anything that is not such a header, longer than [`V1_BYTES_MAX`] or
/// [`V2_BYTES_MAX`], or malformed. TLVs of version 2 are checked for their bounds and skipped.
pub fn parse(buf: &[u8]) -> Result<Option<(ProxyHeader, usize)>, Fault> {
    if begins_like(buf, V2_SIGNATURE) {
        parse_v2(buf)
    } else if begins_like(buf, V1_SIGNATURE) {
        parse_v1(buf)
    } else {
        Err(refused("the connection does not begin with a PROXY header"))
    }
}

/// Whether `buf` begins with `signature` as far as both go.
fn begins_like(buf: &[u8], signature: &[u8]) -> bool {
    buf.iter().zip(signature).all(|(a, b)| a == b)
}

#[cold]
const fn refused(detail: &'static str) -> Fault {
    Fault::new(Reason::BadRequest, detail)
}

fn parse_v1(buf: &[u8]) -> Result<Option<(ProxyHeader, usize)>, Fault> {
    let window = &buf[..buf.len().min(V1_BYTES_MAX)];
    let Some(lf) = memchr::memchr(b'\n', window) else {
        if window.len() == V1_BYTES_MAX {
            return Err(refused("the PROXY header is too long"));
        }
        return Ok(None);
    };
    let line = window[..lf].strip_suffix(b"\r").ok_or(refused("the PROXY header does not end in CRLF"))?;
    let header = std::str::from_utf8(line).ok().and_then(v1_addresses);
    header.map(|header| Some((header, lf + 1))).ok_or(refused("the PROXY header is malformed"))
}

/// `PROXY TCP4|TCP6 source destination source-port destination-port`, or `PROXY UNKNOWN` and anything.
fn v1_addresses(line: &str) -> Option<ProxyHeader> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        return line.bytes().all(|byte| matches!(byte, b' '..=b'~')).then_some(ProxyHeader::UNKNOWN);
    }
    let (source, destination): (IpAddr, IpAddr) = match family {
        "TCP4" => (words.next()?.parse::<Ipv4Addr>().ok()?.into(), words.next()?.parse::<Ipv4Addr>().ok()?.into()),
        "TCP6" => (words.next()?.parse::<Ipv6Addr>().ok()?.into(), words.next()?.parse::<Ipv6Addr>().ok()?.into()),
        _ => return None,
    };
    let (source_port, destination_port) = (v1_port(words.next()?)?, v1_port(words.next()?)?);
    words.next().is_none().then_some(ProxyHeader {
        source: Some(SocketAddr::new(source, source_port)),
        destination: Some(SocketAddr::new(destination, destination_port)),
    })
}

/// Decimal without sign or leading zeros.
fn v1_port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    is_plain.then(|| text.parse().ok())?
}

fn parse_v2(buf: &[u8]) -> Result<Option<(ProxyHeader, usize)>, Fault> {
    let Some((fixed, rest)) = buf.split_first_chunk::<V2_FIXED_LEN>() else { return Ok(None) };
    let [.., version_and_command, family, high, low] = *fixed;
    let is_local = match version_and_command {
        0x20 => true,
        0x21 => false,
        _ => return Err(refused("the PROXY header has an unknown version or command")),
    };
    let len = usize::from(u16::from_be_bytes([high, low]));
    if len > V2_BYTES_MAX {
        return Err(refused("the PROXY header is too long"));
    }
    let Some(body) = rest.get(..len) else { return Ok(None) };
    let header = v2_addresses(family, is_local, body).ok_or(refused("the PROXY header is malformed"))?;
    Ok(Some((header, V2_FIXED_LEN + len)))
}

fn v2_addresses(family: u8, is_local: bool, body: &[u8]) -> Option<ProxyHeader> {
    let (header, tlvs) = match family {
        // The receiver has to accept LOCAL with any family and to ignore its addresses.
        _ if is_local => return Some(ProxyHeader::UNKNOWN),
        0x00 => return Some(ProxyHeader::UNKNOWN),
        0x11 | 0x12 => v2_pair(body, |bytes: [u8; 4]| IpAddr::from(bytes))?,
        0x21 | 0x22 => v2_pair(body, |bytes: [u8; 16]| IpAddr::from(bytes))?,
        0x31 | 0x32 => (ProxyHeader::UNKNOWN, body.get(216..)?),
        _ => return None,
    };
    tlvs_are_whole(tlvs).then_some(header)
}

fn v2_pair<const N: usize>(body: &[u8], address: impl Fn([u8; N]) -> IpAddr) -> Option<(ProxyHeader, &[u8])> {
    let (source, rest) = body.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let ([a, b, c, d], tlvs) = rest.split_first_chunk::<4>()?;
    let source = SocketAddr::new(address(*source), u16::from_be_bytes([*a, *b]));
    let destination = SocketAddr::new(address(*destination), u16::from_be_bytes([*c, *d]));
    Some((ProxyHeader { source: Some(source), destination: Some(destination) }, tlvs))
}

/// Whether type, length and value follow each other up to the end.
fn tlvs_are_whole(mut tlvs: &[u8]) -> bool {
    while let [_, high, low, rest @ ..] = tlvs {
        match rest.get(usize::from(u16::from_be_bytes([*high, *low]))..) {
            Some(behind) => tlvs = behind,
            None => return false,
        }
    }
    tlvs.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut header = V2_SIGNATURE.to_vec();
        header.extend_from_slice(&[command, family]);
        header.extend_from_slice(&(body.len() as u16).to_be_bytes());
        header.extend_from_slice(body);
        header
    }

    fn whole(source: &str, destination: &str, len: usize) -> Option<(ProxyHeader, usize)> {
        let address = |text: &str| Some(text.parse().unwrap());
        Some((ProxyHeader { source: address(source), destination: address(destination) }, len))
    }

    const BODY4: [u8; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 0, 80, 1, 0];

    #[test]
    fn version_1_names_both_ends() {
        let line = b"PROXY TCP4 1.2.3.4 5.6.7.8 80 256\r\nGET";
        assert_eq!(parse(line).unwrap(), whole("1.2.3.4:80", "5.6.7.8:256", 35));
        let line = b"PROXY TCP6 2001:db8::1 ::1 65535 0\r\n";
        assert_eq!(parse(line).unwrap(), whole("[2001:db8::1]:65535", "[::1]:0", line.len()));
        for line in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff::1 x 1 2\r\n"] {
            assert_eq!(parse(line.as_bytes()).unwrap(), Some((ProxyHeader::UNKNOWN, line.len())));
        }
    }

    #[test]
    fn version_2_names_both_ends() {
        assert_eq!(parse(&v2(0x21, 0x11, &BODY4)).unwrap(), whole("1.2.3.4:80", "5.6.7.8:256", 28));
        let with_tlvs = [&BODY4[..], &[4, 0, 2, 9, 9, 4, 0, 0]].concat();
        assert_eq!(parse(&v2(0x21, 0x11, &with_tlvs)).unwrap(), whole("1.2.3.4:80", "5.6.7.8:256", 36));
        let mut body6 = [0; 36];
        (body6[15], body6[31], body6[33], body6[35]) = (1, 2, 80, 81);
        assert_eq!(parse(&v2(0x21, 0x21, &body6)).unwrap(), whole("[::1]:80", "[::2]:81", 52));
        for (command, family, body) in
            [(0x20, 0x00, &[][..]), (0x20, 0x11, &BODY4), (0x21, 0x31, &[0; 216]), (0x21, 0, &[])]
        {
            let header = v2(command, family, body);
            assert_eq!(parse(&header).unwrap(), Some((ProxyHeader::UNKNOWN, header.len())));
        }
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_BYTES_MAX));
        for line in [
            "GET / HTTP/1.1\r\n",
            "PROXX",
            "\r\n\r\nA",
            "PROXY TCP4 1.2.3.4 5.6.7.8 80 256\n",
            "PROXY TCP4 1.2.3.4 ::1 80 256\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 80\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 80 256 \r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 080 256\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 65536 1\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 +1 1\r\n",
            "PROXY TCP4  1.2.3.4 5.6.7.8 1 1\r\n",
            "PROXY UDP4 1.2.3.4 5.6.7.8 80 256\r\n",
            "PROXY \r\n",
            &long,
        ] {
            assert!(parse(line.as_bytes()).is_err(), "{line:?}");
        }
        for (command, family, body) in [
            (0x22, 0x11, &BODY4[..]),
            (0x11, 0x11, &BODY4),
            (0x21, 0x41, &BODY4),
            (0x21, 0x11, &BODY4[..11]),
            (0x21, 0x11, &[0; 13]),
            (0x21, 0x21, &[0; 35]),
            (0x21, 0x11, &[0; V2_BYTES_MAX + 1]),
        ] {
            assert!(parse(&v2(command, family, body)).is_err(), "{command:x} {family:x} {}", body.len());
        }
        let tlv_over_the_end = [&BODY4[..], &[4, 0, 3, 9, 9]].concat();
        assert!(parse(&v2(0x21, 0x11, &tlv_over_the_end)).is_err());
    }

    proptest! {
        #[test]
        fn a_beginning_is_never_refused_and_never_whole(v1 in any::<bool>(), cut in 0usize..35) {
            let header = if v1 { b"PROXY TCP4 1.2.3.4 5.6.7.8 80 256\r\n".to_vec() } else { v2(0x21, 0x11, &BODY4) };
            prop_assert_eq!(parse(&header[..cut.min(header.len() - 1)]).unwrap(), None);
        }

        #[test]
        fn bytes_behind_the_header_change_nothing(behind in prop::collection::vec(any::<u8>(), 0..32)) {
            for header in [b"PROXY TCP4 1.2.3.4 5.6.7.8 80 256\r\n".to_vec(), v2(0x21, 0x11, &BODY4)] {
                let longer = [&header[..], &behind].concat();
                prop_assert_eq!(parse(&longer).unwrap(), parse(&header).unwrap());
            }
        }
    }
}
