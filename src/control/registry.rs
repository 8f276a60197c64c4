//! The live state behind a plan: which upstream and backend states exist, and how a new plan takes them over.
//!
//! Owns the states by identity, so that a reload keeps counts, health and queues of what did not change. Never talks to
//! a worker: the caller publishes what [`Registry::apply`] returns.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::plan::{self, BackendAddr, Plan, Scheme};
use crate::route::RouteTable;
use crate::shared::backend::{BackendState, Mark};
use crate::shared::budget::SharedBudget;
use crate::shared::command::{Published, PublishedUpstream, WorkersStats};
use crate::shared::queue::UpstreamState;

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
        }
    }

    /// Takes a plan over: what it shares with the last one keeps its state, what is new begins empty. Who is a member of
    /// an upstream follows in two steps, [`Registry::enlist`] and [`Registry::retire`].
    pub fn apply(&mut self, plan: &Arc<Plan>, now_ms: u64) -> Published {
        let old_upstreams = std::mem::take(&mut self.upstreams);
        let old_backends = std::mem::take(&mut self.backends);
        let upstreams = plan
            .upstreams
            .iter()
            .map(|conf| {
                let size = conf.queue.size;
                let state = old_upstreams.get(&conf.name).cloned().unwrap_or_else(|| UpstreamState::new(size));
                state.set_size(size);
                let backends = conf.backends.iter().map(|b| self.backend(&old_backends, conf, b, &state, now_ms));
                let (backends, stats): (Vec<_>, Vec<_>) = backends.map(|known| (known.state, known.stats)).unzip();
                let gone =
                    old_backends.iter().filter(|(id, b)| id.upstream == conf.name && !is_in(&backends, &b.state));
                let gone = gone.map(|(_, b)| b.state.clone()).collect();
                self.changes.push(Change { upstream: state.clone(), members: backends.clone(), gone });
                self.upstreams.insert(conf.name.clone(), state.clone());
                let budget = self.budgets.entry(conf.name.clone()).or_default().clone();
                PublishedUpstream { conf: conf.clone(), state, budget, backends, stats }
            })
            .collect();
        let of = |name: &str| {
            old_backends.iter().filter(|(id, _)| id.upstream == name).map(|(_, b)| b.state.clone()).collect()
        };
        for (name, gone) in old_upstreams {
            if !self.upstreams.contains_key(&name) {
                self.changes.push(Change { upstream: gone, members: Vec::new(), gone: of(&name) });
            }
        }
        self.budgets.retain(|name, _| self.upstreams.contains_key(name));
        Published { plan: plan.clone(), table: Arc::new(RouteTable::build(&plan.routes)), upstreams }
    }

    /// Takes in what is new, right before the workers are told. What is gone stays in use until [`Registry::retire`]:
    /// until every worker has the new plan, some know nothing else.
    pub fn enlist(&self, now_ms: u64) {
        for change in &self.changes {
            let all = change.members.iter().chain(&change.gone).cloned().collect();
            change.upstream.set_members(all, now_ms);
        }
    }

    /// Lets what the last plan dropped drain: no new request goes there, and what runs ends by itself.
    pub fn retire(&mut self, now_ms: u64) {
        for change in self.changes.drain(..) {
            change.upstream.set_members(change.members, now_ms);
        }
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
        let backend = match old.get(&identity) {
            Some(kept) => {
                kept.state.apply(conf, now_ms);
                if conf.health_check.is_none() {
                    // Nobody would ever lift it.
                    kept.state.set_mark(Mark::CheckDown, false, now_ms);
                }
                kept.clone()
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

fn is_in(backends: &[Arc<BackendState>], backend: &Arc<BackendState>) -> bool {
    backends.iter().any(|b| Arc::ptr_eq(b, backend))
}
