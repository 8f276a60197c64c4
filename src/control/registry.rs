//! The live state behind a plan: which upstream and backend states exist, and how a new plan takes them over.
//!
//! Owns the states by identity, so that a reload keeps counts, health and queues of what did not change. Never talks to
//! a worker: the caller publishes what [`Registry::apply`] returns.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::config::plan::{self, BackendAddr, Plan, Scheme};
use crate::route::RouteTable;
use crate::shared::backend::BackendState;
use crate::shared::budget::SharedBudget;
use crate::shared::command::{Published, PublishedUpstream, WorkersStats};
use crate::shared::queue::UpstreamState;
use crate::tls::Loaded;

/// What makes a backend the same through reloads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Name of its upstream.
    pub upstream: String,
    /// Its id there.
    pub id: String,
    /// Where it listens.
    pub addr: BackendAddr,
    /// How it is spoken to.
    pub scheme: Scheme,
}

impl Identity {
    /// The identity of `backend` of the upstream of that name.
    pub fn new(upstream: &str, backend: &plan::Backend) -> Self {
        Identity {
            upstream: upstream.to_owned(),
            id: backend.id.clone(),
            addr: backend.addr.clone(),
            scheme: backend.scheme,
        }
    }
}

/// States by identity.
#[derive(Debug)]
pub struct Registry {
    workers: usize,
    upstreams: HashMap<String, Arc<UpstreamState>>,
    budgets: HashMap<String, Arc<SharedBudget>>,
    backends: HashMap<Identity, Known>,
    changes: Vec<Change>,
    leaving: Vec<Leaving>,
}

/// A backend that no plan names any more, while something still runs with it.
#[derive(Clone, Debug)]
pub struct Leaving {
    /// What it was.
    pub identity: Identity,
    /// Counts what is left.
    pub state: Arc<BackendState>,
    /// What it has counted.
    pub stats: WorkersStats,
    /// Its upstream's queue: should both come back, they are the same.
    upstream: Arc<UpstreamState>,
}

impl Leaving {
    fn upstream_is_gone_but_served(&self, known: &HashMap<String, Arc<UpstreamState>>) -> bool {
        !known.contains_key(&self.identity.upstream) && self.upstream.waiting() > 0
    }
}

/// What is kept of one backend.
#[derive(Clone, Debug)]
struct Known {
    state: Arc<BackendState>,
    stats: WorkersStats,
}

/// What a plan makes of the members of an upstream.
#[derive(Debug)]
struct Change {
    upstream: Arc<UpstreamState>,
    members: Vec<Arc<BackendState>>,
    /// What the last plan named and this one doesn't.
    gone: Vec<Arc<BackendState>>,
}

impl Registry {
    /// Nothing known yet; `workers` will count.
    pub fn new(workers: usize) -> Self {
        Registry {
            workers,
            upstreams: HashMap::new(),
            budgets: HashMap::new(),
            backends: HashMap::new(),
            changes: Vec::new(),
            leaving: Vec::new(),
        }
    }

    /// Takes a plan over with the `tls` of its files: what it shares with the last one keeps its state, what is new begins
    /// empty. Who is a member of an upstream follows in two steps, [`Registry::enlist`] and [`Registry::retire`].
    pub fn apply(&mut self, plan: &Arc<Plan>, tls: &Loaded, now_ms: u64) -> Published {
        let old_upstreams = std::mem::take(&mut self.upstreams);
        let old_backends = std::mem::take(&mut self.backends);
        let mut before: HashMap<&str, Vec<&Arc<BackendState>>> = HashMap::new();
        for (identity, known) in &old_backends {
            before.entry(&identity.upstream).or_default().push(&known.state);
        }
        let upstreams = plan
            .upstreams
            .iter()
            .map(|conf| {
                let size = conf.queue.size;
                let leaving = || self.leaving.iter().find(|l| l.identity.upstream == conf.name).map(|l| &l.upstream);
                let state = old_upstreams.get(&conf.name).or_else(leaving).cloned();
                let state = state.unwrap_or_else(|| UpstreamState::new(size));
                state.set_size(size);
                let backends = conf.backends.iter().map(|b| self.backend(&old_backends, conf, b, &state, now_ms));
                let (backends, stats): (Vec<_>, Vec<_>) = backends.map(|known| (known.state, known.stats)).unzip();
                let stay: HashSet<_> = backends.iter().map(Arc::as_ptr).collect();
                let gone = before.get(conf.name.as_str()).into_iter().flatten();
                let gone =
                    gone.filter(|state| !stay.contains(&Arc::as_ptr(state))).map(|state| (*state).clone()).collect();
                // It went and its queue was still served: now it stays, and what its going left to be done is void.
                self.changes.retain(|change| !Arc::ptr_eq(&change.upstream, &state));
                self.changes.push(Change { upstream: state.clone(), members: backends.clone(), gone });
                self.upstreams.insert(conf.name.clone(), state.clone());
                let budget = self.budgets.entry(conf.name.clone()).or_default().clone();
                let connector = tls.connector(&conf.name).cloned();
                PublishedUpstream { conf: conf.clone(), connector, state, budget, backends, stats }
            })
            .collect();
        for (name, gone) in &old_upstreams {
            if !self.upstreams.contains_key(name) {
                let of = before.remove(name.as_str()).unwrap_or_default().into_iter().cloned().collect();
                self.changes.push(Change { upstream: gone.clone(), members: Vec::new(), gone: of });
            }
        }
        self.budgets.retain(|name, _| self.upstreams.contains_key(name));
        for (identity, known) in old_backends.into_iter().filter(|(id, _)| !self.backends.contains_key(id)) {
            if let Some(upstream) = old_upstreams.get(&identity.upstream).cloned() {
                self.leaving.push(Leaving { identity, state: known.state, stats: known.stats, upstream });
            }
        }
        let table = Arc::new(RouteTable::build(&plan.routes));
        Published { plan: plan.clone(), table, upstreams, tls: tls.acceptor.clone() }
    }

    /// Takes in what is new, right before the workers are told. What is gone stays in use until [`Registry::retire`]:
    /// until every worker has the new plan, some know nothing else.
    pub fn enlist(&self, now_ms: u64) {
        for change in &self.changes {
            let all = change.members.iter().chain(&change.gone).cloned().collect();
            change.upstream.set_members(all, now_ms);
        }
    }

    /// Lets what the last plan dropped drain: no new request goes there, and what runs ends by itself. An upstream that
    /// is gone as a whole keeps its backends while requests wait in its queue, for nobody else will serve those; so this
    /// is to be called again, about once a second.
    pub fn retire(&mut self, now_ms: u64) {
        for change in std::mem::take(&mut self.changes) {
            if change.members.is_empty() && change.upstream.waiting() > 0 {
                change.upstream.offer(now_ms);
                self.changes.push(change);
            } else {
                change.upstream.set_members(change.members, now_ms);
            }
        }
        self.forget();
    }

    /// Forgets the removed backends with which nothing runs any more, nor will: who waits in the queue of an upstream
    /// that is gone may still get any of them. To be called about once a second.
    pub fn forget(&mut self) {
        let known = &self.backends;
        let is_needed = |l: &Leaving| l.state.in_flight() > 0 || l.upstream_is_gone_but_served(&self.upstreams);
        self.leaving.retain(|l| is_needed(l) && !known.contains_key(&l.identity));
    }

    /// Removed backends with which something still runs.
    pub fn leaving(&self) -> &[Leaving] {
        &self.leaving
    }

    fn backend(
        &mut self,
        old: &HashMap<Identity, Known>,
        upstream: &plan::Upstream,
        conf: &plan::Backend,
        state: &Arc<UpstreamState>,
        now_ms: u64,
    ) -> Known {
        let identity = Identity::new(&upstream.name, conf);
        // One that comes back while something of its first life still runs is the same: its limit holds for both.
        let leaving = |l: &Leaving| Known { state: l.state.clone(), stats: l.stats.clone() };
        let leaving = || self.leaving.iter().find(|l| l.identity == identity).map(leaving);
        let backend = match old.get(&identity).cloned().or_else(leaving) {
            Some(kept) => {
                kept.state.apply(conf, now_ms);
                kept
            }
            None => Known {
                state: BackendState::new(state, conf),
                stats: (0..self.workers).map(|_| Arc::default()).collect(),
            },
        };
        self.backends.insert(identity, backend.clone());
        backend
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file;
    use crate::shared::backend::{Mark, Slot};

    fn plan(backends: &str) -> Arc<Plan> {
        let queue = if backends.contains("u: ") { "upstreams: {u: {queue: {size: 9}}}" } else { "" };
        let text = format!("backends: {{{backends}}}\n{queue}\nrouting: {{r: {{respond: {{status: 200}}}}}}\n");
        Arc::new(file::read(&text, "test.yaml", |_| None).unwrap_or_else(|faults| panic!("{faults:?}")))
    }

    fn publish(registry: &mut Registry, backends: &str) -> Published {
        let published = registry.apply(&plan(backends), &Loaded::default(), 0);
        registry.enlist(0);
        registry.retire(0);
        published
    }

    const U: &str = "u: [{id: a, host: 127.0.0.1, port: 81, max_conn: 1}]";
    const OTHER: &str = "v: [{id: a, host: 127.0.0.1, port: 82}]";

    #[test]
    fn an_upstream_that_comes_back_while_requests_wait_in_its_queue_is_the_same_for_good() {
        let mut registry = Registry::new(1);
        let first = publish(&mut registry, U);
        let running = Slot::try_acquire(first.upstreams[0].backends[0].clone()).unwrap();
        let waiter = first.upstreams[0].state.join(0).unwrap();
        publish(&mut registry, OTHER);
        let again = publish(&mut registry, U);
        let (before, after) = (&first.upstreams[0], &again.upstreams[0]);
        assert!(Arc::ptr_eq(&before.state, &after.state) && Arc::ptr_eq(&before.backends[0], &after.backends[0]));
        drop(waiter);
        drop(running);
        registry.retire(1000);
        registry.retire(2000);
        assert!(!after.backends[0].is(Mark::Draining), "its going was taken back");
        assert_eq!(registry.leaving().len(), 0);
    }

    #[test]
    fn backends_of_a_queue_that_is_still_served_are_not_forgotten() {
        let mut registry = Registry::new(1);
        let two =
            "u: [{id: a, host: 127.0.0.1, port: 81, max_conn: 1}, {id: b, host: 127.0.0.1, port: 83, max_conn: 1}]";
        let first = publish(&mut registry, two);
        let [a, b] = [0, 1].map(|at| first.upstreams[0].backends[at].clone());
        let _running = Slot::try_acquire(a).unwrap();
        b.set_mark(Mark::CheckDown, true, 0);
        let _waiter = first.upstreams[0].state.join(0).unwrap();
        publish(&mut registry, OTHER);
        // It may be given to who waits as soon as its check is passed.
        let again = publish(&mut registry, two);
        assert!(Arc::ptr_eq(&again.upstreams[0].backends[1], &b));
    }
}
