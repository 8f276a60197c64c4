//! Which certificate is for which name.
//!
//! Owns the rules of matching names (RFC 9525, section 6.3). Never reads a certificate.

use std::collections::HashMap;
use std::net::IpAddr;

/// Places of certificates by the names that they are for. Of several for one name the first comes first.
#[derive(Debug, Default)]
pub(super) struct Names {
    exact: HashMap<Box<str>, Vec<u32>>,
    /// `*.example.com` under `example.com`.
    wildcard: HashMap<Box<str>, Vec<u32>>,
}

impl Names {
    /// The certificate at `place` is for `name`, which is [`canonical`].
    pub fn insert(&mut self, name: &str, place: u32) {
        let (map, name) = match name.strip_prefix("*.") {
            Some(parent) => (&mut self.wildcard, parent),
            None => (&mut self.exact, name),
        };
        let places = map.entry(name.into()).or_default();
        // A certificate may say the same name twice.
        if places.last() != Some(&place) {
            places.push(place);
        }
    }

    /// Those for a name: the ones with that very name, else the ones with a wildcard for it.
    pub fn find(&self, name: &str) -> &[u32] {
        let canonical = canonical(name);
        let wildcard = || self.wildcard.get(canonical.split_once('.')?.1);
        self.exact.get(&*canonical).or_else(wildcard).map_or(&[], Vec::as_slice)
    }
}

/// A name as it is compared: in lower case, without the dot at its end.
pub(super) fn canonical(name: &str) -> Box<str> {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase().into()
}

/// Whether a name in a certificate is for a host: the very one, or, with a wildcard, one with exactly one label in its
/// place. Both [`canonical`]. Wildcards are never for addresses.
pub(super) fn is_for(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(parent) => host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
        None => name == host,
    }
}

/// The host in a `Host` field or an authority: without port and brackets, [`canonical`].
pub(super) fn host_of(authority: &str) -> Box<str> {
    if let Some((address, _)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address.parse::<IpAddr>().map_or_else(|_| canonical(address), |ip| ip.to_string().into());
    }
    match authority.split_once(':') {
        Some((host, port)) if !port.contains(':') => canonical(host),
        _ => canonical(authority),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(all: &[&str]) -> Names {
        let mut names = Names::default();
        all.iter().enumerate().for_each(|(place, name)| names.insert(&canonical(name), place as u32));
        names
    }

    #[test]
    fn the_very_name_comes_before_a_wildcard_and_a_wildcard_is_for_one_label() {
        let names = names(&["*.a.test", "x.a.test", "a.test", "*.x.a.test", "127.0.0.1", "*.a.test"]);
        for (asked, places) in [
            ("y.a.test", &[0, 5][..]),
            ("Y.A.Test.", &[0, 5]),
            ("x.a.test", &[1]),
            ("a.test", &[2]),
            ("z.x.a.test", &[3]),
            ("z.y.a.test", &[]),
            ("test", &[]),
            ("", &[]),
            (".", &[]),
            ("127.0.0.1", &[4]),
        ] {
            assert_eq!(names.find(asked), places, "{asked}");
        }
    }

    #[test]
    fn a_host_is_taken_out_of_an_authority() {
        for (authority, host) in [
            ("A.test", "a.test"),
            ("a.test.:443", "a.test"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[0::1]:443", "::1"),
            ("[::1]", "::1"),
            ("[x", "[x"),
            ("", ""),
        ] {
            assert_eq!(&*host_of(authority), host, "{authority}");
        }
    }

    fn name() -> impl Strategy<Value = String> {
        let label = prop_oneof!["a", "b", "c"];
        let labels = proptest::collection::vec(label, 1..4);
        (any::<bool>(), labels)
            .prop_map(|(wild, labels)| format!("{}{}.t", if wild { "*." } else { "" }, labels.join(".")))
    }

    proptest! {
        /// The index says what the rule says of one name after the other.
        #[test]
        fn what_is_found_is_for_the_name(all in proptest::collection::vec(name(), 0..8), asked in name()) {
            let asked = asked.trim_start_matches("*.");
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            let exact: Vec<u32> = (0..).zip(&all).filter(|(_, name)| **name == asked).map(|(at, _)| at).collect();
            let any: Vec<u32> = (0..).zip(&all).filter(|(_, name)| is_for(name, asked)).map(|(at, _)| at).collect();
            let found = names(&all);
            prop_assert_eq!(found.find(asked), if exact.is_empty() { &any[..] } else { &exact[..] });
            let upper = format!("{}.", asked.to_uppercase());
            prop_assert_eq!(found.find(&upper), found.find(asked));
        }
    }
}
