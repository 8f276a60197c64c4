//! The rows of the table: upstreams and their backends, in the order that was asked for.
//!
//! Owns the order. Never formats.

use std::cmp::Ordering;

use super::figures::{Backend, Figures, Removed};

/// How the rows are ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// As in the configuration, each upstream with a row of its own above its backends.
    #[default]
    Plan,
    /// What needs somebody first.
    State,
    /// Most requests of the last ten seconds first.
    Requests,
    /// Most exchanges and tunnels under way first.
    InFlight,
    /// The slowest of the last ten seconds first.
    P99,
    /// Most failures since the start first.
    Failures,
    /// By upstream and id.
    Name,
}

impl Order {
    /// All, in the order in which the key goes through them.
    pub const ALL: [Order; 7] =
        [Order::Plan, Order::State, Order::Requests, Order::InFlight, Order::P99, Order::Failures, Order::Name];

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Order::Plan => "as configured",
            Order::State => "state",
            Order::Requests => "requests",
            Order::InFlight => "in flight",
            Order::P99 => "p99",
            Order::Failures => "failures",
            Order::Name => "name",
        }
    }

    /// The next one, around.
    #[must_use]
    pub fn next(self) -> Order {
        self.step(1)
    }

    /// The one before, around.
    #[must_use]
    pub fn previous(self) -> Order {
        self.step(Order::ALL.len() - 1)
    }

    fn step(self, by: usize) -> Order {
        let at = Order::ALL.iter().position(|&order| order == self).unwrap_or(0);
        Order::ALL[(at + by) % Order::ALL.len()]
    }

    fn compare(self, a: &Member<'_>, b: &Member<'_>) -> Ordering {
        let names = || (a.upstream(), a.id()).cmp(&(b.upstream(), b.id()));
        let by = match self {
            Order::Plan => Ordering::Equal,
            Order::State => rank(a.state()).cmp(&rank(b.state())).then_with(names),
            Order::Requests => b.per_second().total_cmp(&a.per_second()),
            Order::InFlight => b.in_flight().cmp(&a.in_flight()),
            Order::P99 => b.p99_ms().total_cmp(&a.p99_ms()),
            Order::Failures => b.failures().cmp(&a.failures()),
            Order::Name => names(),
        };
        // The order of the configuration breaks ties: the sort is stable.
        by
    }
}

/// What needs somebody comes first; a state that is not known here may.
fn rank(state: &str) -> usize {
    let known = ["down", "ejected", "draining", REMOVED, "disconnected", "", "active"];
    known.iter().position(|&name| name == state).unwrap_or(5)
}

/// What stands for the state of a backend that is gone.
pub const REMOVED: &str = "removed";

/// A row of the table.
#[derive(Clone, Debug, PartialEq)]
pub enum Row<'f> {
    /// An upstream, above its backends.
    Upstream(Upstream<'f>),
    /// A backend under its upstream.
    Below(Member<'f>),
    /// A backend among those of all upstreams.
    Among(Member<'f>),
}

/// An upstream as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream<'f> {
    pub name: &'f str,
    /// Backends that get new requests.
    pub active: usize,
    /// Backends in the configuration.
    pub all: usize,
    /// Requests a second, over the last ten.
    pub per_second: f64,
    pub in_flight: u64,
    /// Requests in its queue.
    pub waiting: u64,
    pub failures: u64,
}

/// A backend, or what is left of one.
#[derive(Clone, Debug, PartialEq)]
pub enum Member<'f> {
    /// One of the configuration, with its part of its upstream's requests of the last ten seconds, percent; `None` when
    /// there were none.
    Backend(&'f Backend, Option<f64>),
    /// One that is gone and still has something under way.
    Removed(&'f Removed),
}

impl<'f> Member<'f> {
    pub fn upstream(&self) -> &'f str {
        match self {
            Member::Backend(backend, _) => &backend.upstream,
            Member::Removed(removed) => &removed.upstream,
        }
    }

    pub fn id(&self) -> &'f str {
        match self {
            Member::Backend(backend, _) => &backend.backend_id,
            Member::Removed(removed) => &removed.backend_id,
        }
    }

    pub fn state(&self) -> &'f str {
        match self {
            Member::Backend(backend, _) => &backend.state,
            Member::Removed(_) => REMOVED,
        }
    }

    pub fn in_flight(&self) -> u64 {
        match self {
            Member::Backend(backend, _) => backend.in_flight,
            Member::Removed(removed) => removed.in_flight,
        }
    }

    fn backend(&self) -> Option<&'f Backend> {
        match self {
            Member::Backend(backend, _) => Some(backend),
            Member::Removed(_) => None,
        }
    }

    fn per_second(&self) -> f64 {
        self.backend().map_or(-1.0, |backend| backend.requests.per_second_10s)
    }

    fn p99_ms(&self) -> f64 {
        self.backend().and_then(|backend| backend.latency.last_10s.p99_ms).unwrap_or(-1.0)
    }

    fn failures(&self) -> u64 {
        self.backend().map_or(0, |backend| backend.failures)
    }
}

/// The rows of these figures.
pub fn rows(figures: &Figures, order: Order) -> Vec<Row<'_>> {
    let groups = groups(figures);
    if order == Order::Plan {
        let with_head = groups.into_iter().flat_map(|(upstream, members)| {
            std::iter::once(Row::Upstream(upstream)).chain(members.into_iter().map(Row::Below))
        });
        return with_head.collect();
    }
    let mut members: Vec<Member<'_>> = groups.into_iter().flat_map(|(_, members)| members).collect();
    members.sort_by(|a, b| order.compare(a, b));
    members.into_iter().map(Row::Among).collect()
}

/// Upstreams in the order of the configuration, then those of which only removed backends are left.
fn groups(figures: &Figures) -> Vec<(Upstream<'_>, Vec<Member<'_>>)> {
    let mut groups: Vec<(Upstream<'_>, Vec<Member<'_>>)> = Vec::new();
    let mut places = std::collections::HashMap::new();
    let backends = figures.backends.iter().map(|backend| Member::Backend(backend, None));
    for member in backends.chain(figures.removed.iter().map(Member::Removed)) {
        let at = *places.entry(member.upstream()).or_insert_with(|| {
            groups.push((Upstream::new(member.upstream()), Vec::new()));
            groups.len() - 1
        });
        let (upstream, members) = &mut groups[at];
        upstream.count(&member);
        members.push(member);
    }
    for (upstream, members) in &mut groups {
        for member in members {
            if let Member::Backend(backend, share) = member {
                let part = backend.requests.per_second_10s / upstream.per_second;
                *share = (upstream.per_second > 0.0).then_some(part * 100.0);
            }
        }
    }
    groups
}

impl<'f> Upstream<'f> {
    fn new(name: &'f str) -> Self {
        Upstream { name, active: 0, all: 0, per_second: 0.0, in_flight: 0, waiting: 0, failures: 0 }
    }

    fn count(&mut self, member: &Member<'_>) {
        self.in_flight = self.in_flight.saturating_add(member.in_flight());
        if let Some(backend) = member.backend() {
            self.all += 1;
            self.active += usize::from(backend.state == "active");
            self.per_second += backend.requests.per_second_10s;
            self.waiting = backend.waiting;
            self.failures = self.failures.saturating_add(backend.failures);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::figures::Requests;

    fn backend(upstream: &str, id: &str, state: &str, per_second_10s: f64) -> Backend {
        let requests = Requests { per_second_10s, ..Requests::default() };
        let (upstream, backend_id, state) = (upstream.into(), id.into(), state.into());
        Backend { upstream, backend_id, state, requests, in_flight: 2, ..Backend::default() }
    }

    fn figures() -> Figures {
        let mut backends = vec![
            backend("z", "a", "active", 30.0),
            backend("z", "b", "ejected", 10.0),
            backend("a", "c", "active", 0.0),
            backend("a", "d", "down", 0.0),
            backend("a", "e", "unheard_of", 0.0),
        ];
        backends[2].failures = 9;
        backends[3].latency.last_10s.p99_ms = Some(7.0);
        backends[4].in_flight = 5;
        let removed = vec![Removed { upstream: "z".into(), backend_id: "old".into(), in_flight: 3 }];
        Figures { backends, removed, ready: true, ..Figures::default() }
    }

    fn ids(order: Order) -> String {
        let figures = figures();
        let ids = rows(&figures, order).into_iter().map(|row| match row {
            Row::Upstream(upstream) => upstream.name.to_uppercase(),
            Row::Below(member) | Row::Among(member) => member.id().to_owned(),
        });
        ids.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_order_puts_first_what_it_is_about() {
        let ordered: Vec<_> = Order::ALL.into_iter().map(|order| (order.name(), ids(order))).collect();
        let expected = [
            ("as configured", "Z a b old A c d e"),
            ("state", "d b old e c a"),
            ("requests", "a b c d e old"),
            ("in flight", "e old a b c d"),
            ("p99", "d a b old c e"),
            ("failures", "c a b old d e"),
            ("name", "c d e a b old"),
        ];
        assert_eq!(ordered, expected.map(|(name, ids)| (name, ids.to_owned())));
    }

    #[test]
    fn an_upstream_is_the_sum_of_its_backends() {
        let figures = figures();
        let rows = rows(&figures, Order::Plan);
        let Row::Upstream(z) = &rows[0] else { panic!() };
        assert_eq!((z.active, z.all, z.per_second, z.in_flight), (1, 2, 40.0, 7));
        assert!(matches!(rows[1], Row::Below(Member::Backend(_, Some(75.0)))));
        assert!(matches!(rows[5], Row::Below(Member::Backend(_, None))), "nothing has no part of nothing");
    }

    #[test]
    fn orders_go_around() {
        for order in Order::ALL {
            assert_eq!(order.next().previous(), order);
        }
        assert_eq!((Order::Name.next(), Order::Plan.previous()), (Order::Plan, Order::Name));
    }
}
