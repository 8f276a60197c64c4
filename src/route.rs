//! Which route takes a request: host first, then path.
//!
//! Owns the table that [`find`](RouteTable::find) looks in, and [`AccessList`]. Never reads a request and never
//! normalises a path: it is handed the host as sent and the path that will be forwarded.
//!
//! # The order of routes
//!
//! Of all routes that match a request the one with the most exact host takes it: an exact one before wildcards, the
//! longer wildcard before the shorter, any wildcard before a route for all hosts. Among those with the same host it is
//! the one with the longest path. So a host whose paths all fail to match falls through to the next less exact
//! one: adding a rule for `example.com/api` doesn't take `example.com/` away from a rule for all hosts. (nginx and Envoy
//! settle the host first and answer 404 then; there, routes are written inside of a host, here each stands for itself.)
//! Who wants the 404 adds a rule with that host, path `/` and `respond`.

mod access;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use crate::balance::key;
use crate::config::plan::{Route, RouteId};

pub use access::AccessList;

/// Longest host that is looked up, in bytes; no name in the DNS is longer (RFC 1035, section 2.3.4).
const HOST_BYTES_MAX: usize = 255;
/// No path rule.
const NONE: u32 = u32::MAX;

/// All routes of a plan, arranged for looking up in time that grows with the logarithm of their number, without
/// allocation.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    exact: HostMap,
    /// By what follows the `*.`.
    wildcard: HostMap,
    /// Which lengths the keys of `wildcard` have, a bit each: a host of a hundred labels costs no hundred look-ups.
    wildcard_lengths: Lengths,
    any: PathTable,
}

/// What kind of host a route was found by; ordered from most to least exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostMatch {
    /// The host itself.
    Exact,
    /// A host that begins with `*.`.
    Wildcard,
    /// The route is for all hosts.
    Any,
}

impl RouteTable {
    /// The table for `routes`, whose indices become the [`RouteId`]s. Of two that would match the same requests, which
    /// the checks of the configuration refuse, the first counts.
    pub fn build(routes: &[Arc<Route>]) -> Self {
        let mut draft = Draft::default();
        for (id, route) in (0..).map(RouteId).zip(routes) {
            draft.add(id, route);
        }
        RouteTable {
            wildcard_lengths: draft.wildcard.keys().map(|suffix| suffix.len()).collect(),
            exact: arranged(draft.exact),
            wildcard: arranged(draft.wildcard),
            any: PathTable::arrange(draft.any),
        }
    }

    /// The route for a request to `host` (in any case, a port and one trailing dot are passed over, IPv6 literals in
    /// brackets; compared as text) and `path` (canonical, without the query). A path that doesn't begin with `/`, as
    /// the `*` of `OPTIONS *`, is looked up as `/`.
    pub fn find(&self, host: &[u8], path: &[u8]) -> Option<RouteId> {
        let path = rooted(path);
        let mut space = [0; HOST_BYTES_MAX];
        self.groups(self.host_key(host, &mut space)).find_map(|(_, paths)| paths.matching(path).next())
    }

    /// Every route that matches, the one that [`find`](Self::find) gives first, in the order of preference.
    pub fn explain(&self, host: &[u8], path: &[u8]) -> Vec<(RouteId, HostMatch)> {
        let path = rooted(path);
        let mut space = [0; HOST_BYTES_MAX];
        self.groups(self.host_key(host, &mut space))
            .flat_map(|(kind, paths)| paths.matching(path).map(move |id| (id, kind)))
            .collect()
    }

    /// `host` in the form of the tables' keys; `None` when only the routes for all hosts can match.
    fn host_key<'a>(&self, host: &[u8], space: &'a mut [u8; HOST_BYTES_MAX]) -> Option<&'a [u8]> {
        if self.exact.is_empty() && self.wildcard.is_empty() {
            return None;
        }
        let bare = bare_host(host);
        let key = space.get_mut(..bare.len())?;
        key.copy_from_slice(bare);
        key.make_ascii_lowercase();
        Some(key)
    }

    /// The path tables of all hosts that match, most exact first.
    fn groups<'a>(&'a self, host: Option<&'a [u8]>) -> impl Iterator<Item = (HostMatch, &'a PathTable)> {
        let exact = host.and_then(|host| self.exact.get(host)).map(|paths| (HostMatch::Exact, paths));
        let wildcards = host.into_iter().flat_map(|host| self.wildcards(host)).map(|p| (HostMatch::Wildcard, p));
        exact.into_iter().chain(wildcards).chain([(HostMatch::Any, &self.any)])
    }

    /// The path tables of the wildcards that match `host`, longest first.
    fn wildcards<'a>(&'a self, host: &'a [u8]) -> impl Iterator<Item = &'a PathTable> {
        let dots = memchr::memchr_iter(b'.', if self.wildcard.is_empty() { &[] } else { host });
        dots.filter(|&dot| dot > 0 && self.wildcard_lengths.has(host.len() - dot - 1))
            .filter_map(|dot| self.wildcard.get(&host[dot + 1..]))
    }
}

type HostMap = HashMap<Box<[u8]>, PathTable, BuildHasherDefault<KeyHasher>>;
type Paths = Vec<(Box<[u8]>, RouteId)>;

/// Routes sorted into hosts, not yet arranged.
#[derive(Default)]
struct Draft {
    exact: HashMap<Box<[u8]>, Paths>,
    wildcard: HashMap<Box<[u8]>, Paths>,
    any: Paths,
}

impl Draft {
    fn add(&mut self, id: RouteId, route: &Route) {
        let rule = || (Box::from(route.path.as_bytes()), id);
        if route.hosts.is_empty() {
            self.any.push(rule());
        }
        for host in &route.hosts {
            let (map, host) = match host.strip_prefix("*.") {
                Some(suffix) => (&mut self.wildcard, suffix),
                None => (&mut self.exact, host.as_str()),
            };
            let key = bare_host(host.as_bytes()).to_ascii_lowercase();
            map.entry(key.into()).or_default().push(rule());
        }
    }
}

fn arranged(hosts: HashMap<Box<[u8]>, Paths>) -> HostMap {
    hosts.into_iter().map(|(host, paths)| (host, PathTable::arrange(paths))).collect()
}

/// A set of lengths up to [`HOST_BYTES_MAX`].
#[derive(Clone, Copy, Debug, Default)]
struct Lengths([u64; HOST_BYTES_MAX / 64 + 1]);

impl Lengths {
    fn has(self, length: usize) -> bool {
        self.0.get(length / 64).is_some_and(|word| word >> (length % 64) & 1 == 1)
    }
}

impl FromIterator<usize> for Lengths {
    /// A length beyond the largest is left out: no host that is looked up can have it.
    fn from_iter<I: IntoIterator<Item = usize>>(lengths: I) -> Self {
        let mut set = Lengths::default();
        for length in lengths {
            if let Some(word) = set.0.get_mut(length / 64) {
                *word |= 1 << (length % 64);
            }
        }
        set
    }
}

/// The paths of one host, sorted by their bytes.
///
/// The greatest path that isn't greater than the one looked for begins with every path that is a prefix of it, so
/// all matches are on its chain of ever shorter prefixes, longest first.
#[derive(Clone, Debug, Default)]
struct PathTable {
    rules: Box<[PathRule]>,
}

#[derive(Clone, Debug)]
struct PathRule {
    path: Box<[u8]>,
    route: RouteId,
    /// The longest other rule whose path this one begins with (by bytes, not by segments), or [`NONE`].
    prefix: u32,
}

impl PathTable {
    fn arrange(mut paths: Paths) -> Self {
        paths.sort();
        paths.dedup_by(|later, first| later.0 == first.0);
        let mut rules: Vec<PathRule> = Vec::with_capacity(paths.len());
        for (path, route) in paths {
            let before = (rules.len() as u32).wrapping_sub(1);
            let prefix = chain(&rules, before).find(|(_, rule)| path.starts_with(&rule.path)).map_or(NONE, |(i, _)| i);
            rules.push(PathRule { path, route, prefix });
        }
        PathTable { rules: rules.into() }
    }

    /// The routes whose path is `path` or a prefix of it on whole segments, longest first.
    fn matching(&self, path: &[u8]) -> impl Iterator<Item = RouteId> {
        let not_greater = self.rules.partition_point(|rule| *rule.path <= *path) as u32;
        // All on the chain are prefixes of the first, so what it has in common with `path` settles them all.
        let shared = move |first: &PathRule| first.path.iter().zip(path).take_while(|(a, b)| a == b).count();
        let mut chain = chain(&self.rules, not_greater.wrapping_sub(1)).peekable();
        let common = chain.peek().map_or(0, |(_, rule)| shared(rule));
        chain
            .filter(move |(_, rule)| rule.path.len() <= common && ends_a_segment(path, rule.path.len()))
            .map(|(_, rule)| rule.route)
    }
}

/// Rule `first` and its ever shorter prefixes, with their indices; nothing for [`NONE`].
fn chain(rules: &[PathRule], first: u32) -> impl Iterator<Item = (u32, &PathRule)> {
    let at = |i: u32| rules.get(i as usize).map(|rule| (i, rule));
    std::iter::successors(at(first), move |(_, rule)| at(rule.prefix))
}

/// Whether the first `length` bytes of `path` (at least 1) are whole segments.
fn ends_a_segment(path: &[u8], length: usize) -> bool {
    length == path.len() || path[length] == b'/' || path[length - 1] == b'/'
}

fn rooted(path: &[u8]) -> &[u8] {
    if path.first() == Some(&b'/') { path } else { b"/" }
}

/// `host` without port, brackets and one trailing dot.
fn bare_host(host: &[u8]) -> &[u8] {
    if let [b'[', literal @ ..] = host {
        let end = memchr::memchr(b']', literal).unwrap_or(literal.len());
        return &literal[..end];
    }
    let mut colons = memchr::memchr_iter(b':', host);
    let name = match (colons.next(), colons.next()) {
        (Some(port), None) => &host[..port],
        // None, or an IPv6 address that a rule names without brackets.
        _ => host,
    };
    name.strip_suffix(b".").unwrap_or(name)
}

/// [`key::of_bytes`] as the hash of a table. Its keys are the operator's, so nobody can fill a bucket on purpose.
#[derive(Clone, Copy, Debug, Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 ^= key::of_bytes(bytes);
    }

    /// The length that stands before a slice: already part of its key.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests;
