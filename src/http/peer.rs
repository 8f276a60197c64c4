//! Whose request it is: the client's address behind trusted proxies.
//!
//! Owns the walk over forwarding fields as a pure function. Never trusts anything but the given networks.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::http::head::{FieldKind, Fields};

/// Who sent a request, as far as we believe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The client's address; never an IPv4-mapped IPv6 one.
    pub address: IpAddr,
    /// Whether the connection's peer is one of the trusted proxies, so that its forwarding fields are believed.
    pub peer_is_trusted: bool,
}

/// The client of a request that came with `fields` from `peer` (from the PROXY header where that is accepted).
///
/// From a trusted peer the right-most address of all `X-Forwarded-For` fields that is not trusted itself; the peer when
/// there is none. An element that is no address ends the walk at the last good one: what stands left of it was written
/// by somebody we know nothing of. With `client_ip_header` the one valid address of the one field of that name and
/// nothing else. Elements may have a port, IPv6 ones brackets.
pub fn client_address(peer: IpAddr, fields: Fields<'_>, trusted: &[IpNet], client_ip_header: Option<&str>) -> Client {
    let peer = peer.to_canonical();
    if !is_trusted(peer, trusted) {
        return Client { address: peer, peer_is_trusted: false };
    }
    let address = match client_ip_header {
        Some(name) => the_one_address(fields, name).unwrap_or(peer),
        None => walk(peer, fields, trusted),
    };
    Client { address, peer_is_trusted: true }
}

/// Whether the address is in one of the networks; IPv4-mapped ones count as IPv4.
pub fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    !trusted.is_empty() && {
        let address = address.to_canonical();
        trusted.iter().any(|net| net.contains(&address))
    }
}

fn the_one_address(fields: Fields<'_>, name: &str) -> Option<IpAddr> {
    let mut values = fields.all(name);
    let address = parse_address(values.next()?)?;
    values.next().is_none().then_some(address)
}

fn walk(peer: IpAddr, fields: Fields<'_>, trusted: &[IpNet]) -> IpAddr {
    let mut last_good = peer;
    for element in fields.of_kind(FieldKind::XForwardedFor).rev().flat_map(|value| value.rsplit(|&b| b == b',')) {
        match parse_address(element) {
            Some(address) if is_trusted(address, trusted) => last_good = address,
            Some(address) => return address,
            None => return last_good,
        }
    }
    peer
}

/// `1.2.3.4`, `1.2.3.4:567`, `::1`, `[::1]` or `[::1]:567`, with whitespace around it.
fn parse_address(element: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(element).ok()?.trim_matches([' ', '\t']);
    let bare = text.strip_prefix('[').and_then(|inside| inside.strip_suffix(']')).filter(|inside| inside.contains(':'));
    let address = match bare.unwrap_or(text).parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => text.parse::<SocketAddr>().ok()?.ip(),
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::FieldTable;
    use crate::http::parse::{HeadEnd, HeadLimits, parse_request};

    fn client(peer: &str, lines: &str, header: Option<&str>) -> (String, bool) {
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8"].iter().map(|net| net.parse().unwrap()).collect();
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let mut table = FieldTable::default();
        let (head, _) = parse_request(text.as_bytes(), &mut HeadEnd::default(), &HeadLimits::RESPONSE, &mut table)
            .unwrap()
            .unwrap();
        let client = client_address(peer.parse().unwrap(), head.fields(), &trusted, header);
        (client.address.to_string(), client.peer_is_trusted)
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_sends() {
        assert_eq!(client("9.9.9.9", "X-Forwarded-For: 1.1.1.1\r\n", None), ("9.9.9.9".into(), false));
        assert_eq!(client("9.9.9.9", "C: 1.1.1.1\r\n", Some("c")), ("9.9.9.9".into(), false));
    }

    #[test]
    fn the_rightmost_untrusted_address_is_the_client() {
        let cases = [
            ("", "10.0.0.1"),
            ("X-Forwarded-For: 1.1.1.1\r\n", "1.1.1.1"),
            ("X-Forwarded-For: 6.6.6.6, 1.1.1.1, 10.0.0.2\r\n", "1.1.1.1"),
            ("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 1.1.1.1,10.0.0.2\r\n", "1.1.1.1"),
            ("X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 10.0.0.2\r\n", "1.1.1.1"),
            ("X-Forwarded-For: 10.0.0.3, 10.0.0.2\r\n", "10.0.0.1"),
            ("X-Forwarded-For: 1.1.1.1, junk, 10.0.0.2\r\n", "10.0.0.2"),
            ("X-Forwarded-For: 1.1.1.1, junk\r\n", "10.0.0.1"),
            ("X-Forwarded-For: \r\n", "10.0.0.1"),
            ("X-Forwarded-For: 1.1.1.1:80\r\n", "1.1.1.1"),
            ("X-Forwarded-For: [2001:db8::1]:80, fd00::1\r\n", "2001:db8::1"),
            ("X-Forwarded-For: [2001:db8::1]\r\n", "2001:db8::1"),
            ("X-Forwarded-For: 2001:db8::1, ::ffff:10.0.0.9\r\n", "2001:db8::1"),
            ("X-Forwarded-For: ::ffff:1.1.1.1\r\n", "1.1.1.1"),
            ("X-Forwarded-For: [1.1.1.1]\r\n", "10.0.0.1"),
        ];
        for (lines, expected) in cases {
            assert_eq!(client("10.0.0.1", lines, None), (expected.into(), true), "{lines}");
        }
        assert_eq!(client("::ffff:10.0.0.1", "", None), ("10.0.0.1".into(), true));
    }

    #[test]
    fn a_named_header_is_believed_alone() {
        let cases = [
            ("CF: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\n", "1.1.1.1"),
            ("X-Forwarded-For: 2.2.2.2\r\n", "10.0.0.1"),
            ("cf: 1.1.1.1, 3.3.3.3\r\n", "10.0.0.1"),
            ("CF: 1.1.1.1\r\nCF: 1.1.1.1\r\n", "10.0.0.1"),
            ("CF: junk\r\n", "10.0.0.1"),
        ];
        for (lines, expected) in cases {
            assert_eq!(client("10.0.0.1", lines, Some("CF")), (expected.into(), true), "{lines}");
        }
    }
}
