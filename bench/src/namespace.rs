//! Whether an address belongs to this machine alone: one of its own, in a network namespace that somebody made for a test.
//!
//! Owns that judgement; when it can't be made, the answer is no. Never changes a namespace.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether this process is in another network namespace than the machine's first process, or in one that nothing can
/// leave, and the address is one of the interfaces there.
pub fn is_private_address(ip: IpAddr) -> bool {
    let devices = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    (is_elsewhere() || has_loopback_alone(&devices)) && is_own(ip)
}

/// Whether there is no interface but `lo`.
fn has_loopback_alone(devices: &str) -> bool {
    // Two lines of heads, then one for each interface.
    let mut names = devices.lines().skip(2).filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    names.next() == Some("lo") && names.next().is_none()
}

/// Whether this network namespace is not the one of process 1. In a container they are the same; without the right to
/// look at process 1 nobody can tell.
fn is_elsewhere() -> bool {
    let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
    matches!((of("1"), of("self")), (Some(first), Some(own)) if first != own)
}

fn is_own(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_listed_v4(&fs::read_to_string("/proc/net/fib_trie").unwrap_or_default(), ip),
        IpAddr::V6(ip) => is_listed_v6(&fs::read_to_string("/proc/net/if_inet6").unwrap_or_default(), ip),
    }
}

/// In the trie an address of an interface is a leaf with `/32 host LOCAL` under it.
fn is_listed_v4(trie: &str, ip: Ipv4Addr) -> bool {
    let leaf = format!("|-- {ip}");
    let mut lines = trie.lines();
    while let Some(line) = lines.next() {
        if line.trim() == leaf && lines.clone().next().is_some_and(|next| next.trim() == "/32 host LOCAL") {
            return true;
        }
    }
    false
}

fn is_listed_v6(list: &str, ip: Ipv6Addr) -> bool {
    let digits = format!("{:032x}", u128::from(ip));
    list.lines().any(|line| line.split(' ').next() == Some(&digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_interfaces_are_told_from_routes() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     +-- 10.9.0.0/24 2 0 2\n\
                    \x20       |-- 10.9.0.0\n           /24 link UNICAST\n        |-- 10.9.0.1\n           /32 host LOCAL\n\
                    \x20       |-- 10.9.0.255\n           /32 link BROADCAST\n";
        let listed = |ip: [u8; 4]| is_listed_v4(trie, ip.into());
        assert!(listed([10, 9, 0, 1]));
        assert!(!listed([10, 9, 0, 0]) && !listed([10, 9, 0, 255]) && !listed([0, 0, 0, 0]) && !listed([10, 9, 0, 2]));
        let list = "fd000000000000000000000000000001 02 40 00 80     eth0\n";
        assert!(is_listed_v6(list, "fd00::1".parse().unwrap()) && !is_listed_v6(list, "fd00::2".parse().unwrap()));
    }

    #[test]
    fn one_more_interface_leads_somewhere() {
        let heads = "Inter-|   Receive\n face |bytes\n";
        assert!(has_loopback_alone(&format!("{heads}    lo:   0 0\n")));
        assert!(!has_loopback_alone(&format!("{heads}    lo:   0 0\n  eth0: 0 0\n")));
        assert!(!has_loopback_alone(&format!("{heads}  eth0: 0 0\n")) && !has_loopback_alone(""));
    }

    #[test]
    fn an_address_of_documentation_is_nobodys() {
        assert!(!is_private_address("192.0.2.1".parse().unwrap()));
    }
}
