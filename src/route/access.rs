//! Who may use a route: `allow` and `deny`.
//!
//! Owns the lists, flattened into ranges. Never finds the client's address.

use std::net::IpAddr;

use ipnet::IpNet;

/// `allow` and `deny` of a route, ready for looking up: the longest network that holds an address decides, of equals
/// `deny`. An address in no network is refused when there is an `allow` list, else allowed.
#[derive(Clone, Debug, Default)]
pub struct AccessList {
    v4: Vec<Range>,
    v6: Vec<Range>,
    otherwise: Verdict,
}

/// From `first` to the next range's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: u128,
    verdict: Verdict,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    #[default]
    Allow,
    Deny,
}

impl AccessList {
    /// The lists of one route. An IPv4-mapped network (`::ffff:10.0.0.0/104`) is the IPv4 network.
    pub fn new(allow: &[IpNet], deny: &[IpNet]) -> Self {
        let otherwise = if allow.is_empty() { Verdict::Allow } else { Verdict::Deny };
        let allow = allow.iter().map(|net| Span::new(*net, Verdict::Allow));
        let deny = deny.iter().map(|net| Span::new(*net, Verdict::Deny));
        let (v4, v6): (Vec<Span>, Vec<Span>) = allow.chain(deny).partition(|span| span.is_v4);
        AccessList { v4: flatten(v4, otherwise), v6: flatten(v6, otherwise), otherwise }
    }

    /// Whether the client at `ip` may use the route. An IPv4-mapped address is the IPv4 address.
    pub fn allows(&self, ip: IpAddr) -> bool {
        let (ranges, address) = match ip.to_canonical() {
            IpAddr::V4(v4) => (&self.v4, u128::from(v4.to_bits())),
            IpAddr::V6(v6) => (&self.v6, v6.to_bits()),
        };
        let behind = ranges.partition_point(|range| range.first <= address);
        let range = behind.checked_sub(1).and_then(|i| ranges.get(i));
        range.map_or(self.otherwise, |range| range.verdict) == Verdict::Allow
    }
}

/// A network as numbers, both ends within it.
#[derive(Clone, Copy)]
struct Span {
    is_v4: bool,
    first: u128,
    last: u128,
    verdict: Verdict,
}

impl Span {
    fn new(net: IpNet, verdict: Verdict) -> Self {
        match (net.network().to_canonical(), net.broadcast().to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                Span { is_v4: true, first: first.to_bits().into(), last: last.to_bits().into(), verdict }
            }
            // Also one that reaches beyond the mapped addresses on one side.
            _ => Span { is_v4: false, first: v6_bits(net.network()), last: v6_bits(net.broadcast()), verdict },
        }
    }
}

fn v6_bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Networks either hold one another or have nothing in common, so the sorted spans are walked with a stack of those
/// that are open: a range begins where one opens, and where one closes the one around it goes on.
fn flatten(mut spans: Vec<Span>, otherwise: Verdict) -> Vec<Range> {
    // Wider first; of equals the one that denies comes last and so is innermost.
    spans.sort_by_key(|span| (span.first, std::cmp::Reverse(span.last), span.verdict));
    let mut ranges = Vec::new();
    let mut open: Vec<Span> = Vec::new();
    for span in spans {
        close_before(Some(span.first), &mut open, &mut ranges, otherwise);
        begin(&mut ranges, span.first, span.verdict);
        open.push(span);
    }
    close_before(None, &mut open, &mut ranges, otherwise);
    ranges
}

/// Closes the open spans that end before `next` (all for `None`).
fn close_before(next: Option<u128>, open: &mut Vec<Span>, ranges: &mut Vec<Range>, otherwise: Verdict) {
    while let Some(span) = open.pop_if(|span| next.is_none_or(|next| span.last < next)) {
        let around = open.last().map_or(otherwise, |span| span.verdict);
        if let Some(behind) = span.last.checked_add(1) {
            begin(ranges, behind, around);
        }
    }
}

/// Begins a range; one that would be empty gives way, one that goes on as before isn't needed.
fn begin(ranges: &mut Vec<Range>, first: u128, verdict: Verdict) {
    ranges.pop_if(|last| last.first == first);
    if ranges.last().is_none_or(|last| last.verdict != verdict) {
        ranges.push(Range { first, verdict });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|net| net.parse().unwrap()).collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_network_decides() {
        let list = AccessList::new(&nets(&["10.0.0.0/8", "10.1.2.3/32", "2001:db8::/32"]), &nets(&["10.1.0.0/16"]));
        for (address, allowed) in [
            ("10.0.0.1", true),
            ("10.1.0.1", false),
            ("10.1.2.3", true),
            ("10.2.0.0", true),
            ("11.0.0.1", false),
            ("2001:db8::1", true),
            ("2001:db9::1", false),
            ("::ffff:10.1.2.3", true),
            ("::ffff:10.1.2.4", false),
        ] {
            assert_eq!(list.allows(ip(address)), allowed, "{address}");
        }
    }

    #[test]
    fn without_allow_all_but_the_denied_may() {
        let list = AccessList::new(&[], &nets(&["0.0.0.0/0", "::1/128"]));
        assert!(!list.allows(ip("255.255.255.255")));
        assert!(!list.allows(ip("::1")));
        assert!(list.allows(ip("::2")));
        assert!(AccessList::default().allows(ip("192.0.2.1")));
    }

    #[test]
    fn of_equal_networks_the_denied_counts() {
        let list = AccessList::new(&nets(&["10.0.0.0/8"]), &nets(&["10.0.0.0/8"]));
        assert!(!list.allows(ip("10.0.0.1")));
    }

    #[test]
    fn mapped_networks_are_ipv4() {
        let list = AccessList::new(&nets(&["::ffff:10.0.0.0/104"]), &[]);
        assert!(list.allows(ip("10.9.9.9")));
        assert!(!list.allows(ip("11.0.0.0")));
        let wider = AccessList::new(&nets(&["::fffe:0:0/95"]), &[]);
        assert!(wider.allows(ip("::fffe:0:1")));
        assert!(!wider.allows(ip("::1")));
    }

    fn naive(allow: &[IpNet], deny: &[IpNet], ip: IpAddr) -> bool {
        let longest = |nets: &[IpNet]| nets.iter().filter(|net| net.contains(&ip)).map(IpNet::prefix_len).max();
        match (longest(allow), longest(deny)) {
            (None, None) => allow.is_empty(),
            (allow, deny) => allow > deny,
        }
    }

    /// Networks and addresses from a corner small enough for them to meet.
    fn v4() -> impl Strategy<Value = IpAddr> {
        prop_oneof![0u32..64, (u32::MAX - 64)..=u32::MAX].prop_map(|bits| IpAddr::V4(bits.into()))
    }

    fn nets_of_v4() -> impl Strategy<Value = Vec<IpNet>> {
        let net = (v4(), prop_oneof![26u8..=32, 0u8..=32]).prop_map(|(ip, length)| IpNet::new(ip, length).unwrap());
        prop::collection::vec(net, 0..8)
    }

    proptest! {
        #[test]
        fn ranges_say_what_the_lists_say(allow in nets_of_v4(), deny in nets_of_v4(), ips in prop::collection::vec(v4(), 32)) {
            let list = AccessList::new(&allow, &deny);
            for ip in ips {
                prop_assert_eq!(list.allows(ip), naive(&allow, &deny, ip), "{}", ip);
            }
        }
    }
}
