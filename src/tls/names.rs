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
