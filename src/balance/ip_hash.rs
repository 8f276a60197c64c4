//! The key of a client for `ip_hash`: its address, of IPv6 the /64.
//!
//! Owns what counts as one client. Never finds the client's address (that is `http::peer`) and never picks (that is
//! [`super::hash`]).

use std::net::IpAddr;

use super::key::mix;

/// Keeps IPv6 networks apart from IPv4 addresses.
const V6: u64 = 0x6a09_e667_f3bc_c908;

/// The key of the client at `ip`. A household or host is given a /64 and its devices change addresses within it, so
/// the lower half of an IPv6 address doesn't count. An IPv4-mapped address is the IPv4 address.
pub fn client_key(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(v4) => mix(u64::from(v4.to_bits())),
        IpAddr::V6(v6) => mix((v6.to_bits() >> 64) as u64 ^ V6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(ip: &str) -> u64 {
        client_key(ip.parse().unwrap())
    }

    #[test]
    fn keys_never_change() {
        assert_eq!(key("192.0.2.1"), 0xe345_f7b1_d459_776e);
        assert_eq!(key("2001:db8:0:1::5"), 0x74a4_3dfd_f8ca_f062);
    }

    #[test]
    fn a_client_is_an_ipv4_address_or_an_ipv6_network() {
        assert_eq!(key("2001:db8:0:1::5"), key("2001:db8:0:1:ffff::1"));
        assert_ne!(key("2001:db8:0:1::5"), key("2001:db8:0:2::5"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    }
}
