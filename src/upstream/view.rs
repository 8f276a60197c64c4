//! What one worker sees of routes, upstreams and backends: `Rc` views on the shared state, with the worker's own part of
//! it (idle connections, rotations, requests not yet counted) beside.
//!
//! Owns how a published plan becomes a view, and which views live on through a reload. Never chooses a backend.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use crate::balance::rng::Rng;
use crate::balance::roster::Roster;
use crate::balance::rotation::Rotation;
use crate::config::plan::{self, BackendAddr, Target};
use crate::route::{AccessList, RouteTable};
use crate::shared::backend::BackendState;
use crate::shared::budget::SharedBudget;
use crate::shared::command::{Published, PublishedUpstream};
use crate::shared::queue::UpstreamState;
use crate::shared::stats::BackendStats;
use crate::tls::{Acceptor, Connector};
use crate::upstream::pool::Pool;
use crate::upstream::sticky::Signer;
use crate::upstream::trunks::Trunks;

/// One worker's view of a backend.
#[derive(Debug)]
pub struct BackendView {
    /// Its part of the plan.
    pub conf: Arc<plan::Backend>,
    /// What all workers share of it.
    pub state: Arc<BackendState>,
    /// This worker's idle connections to it; moves on to the next view of the same backend.
    pub pool: Rc<Pool>,
    /// This worker's HTTP/2 connections to it; move on as well.
    pub trunks: Rc<Trunks>,
    /// This worker's counters of it; the same through reloads.
    pub stats: Arc<BackendStats>,
    /// Its stable key for the hash rules.
    pub hash: u64,
    /// Rotates over the addresses of its name, from another one with each worker.
    pub next_address: Cell<usize>,
    /// Those that it had when its kept connections were looked at.
    addresses: RefCell<Arc<Vec<SocketAddr>>>,
}

impl AsRef<BackendState> for BackendView {
    fn as_ref(&self) -> &BackendState {
        &self.state
    }
}

/// One worker's view of an upstream.
#[derive(Debug)]
pub struct UpstreamView {
    /// Its part of the plan.
    pub conf: Arc<plan::Upstream>,
    /// How TLS is spoken to its backends; `None` when it is to none.
    pub connector: Option<Arc<Connector>>,
    /// Its queue.
    pub state: Arc<UpstreamState>,
    /// In the order of the file.
    pub backends: Vec<Rc<BackendView>>,
    /// Keys and weights of the backends, for the balancing rules.
    pub roster: Roster,
    /// Where this worker's rotations stand.
    pub rotation: RefCell<Rotation>,
    budget: Arc<SharedBudget>,
    /// Requests that the budget does not know of yet.
    uncounted: Cell<u32>,
    /// Signs and reads the sticky cookie.
    pub sticky: Option<Signer>,
    /// Rotates over `local_addresses`.
    pub next_local: Cell<usize>,
    /// Idle connections this worker may keep to one backend.
    pub keepalive: usize,
    /// What `Host` says for a request that came without one (HTTP/1.0): the first backend's address.
    pub default_host: String,
}

/// One worker's view of a route.
#[derive(Debug)]
pub struct RouteView {
    /// Its part of the plan.
    pub conf: Arc<plan::Route>,
    /// `allow` and `deny`, ready to be searched; `None` when neither says anything.
    pub access: Option<AccessList>,
    /// Where it leads; `None` when it answers by itself.
    pub upstream: Option<Rc<UpstreamView>>,
}

/// What a worker routes by until the next plan comes.
#[derive(Debug)]
pub struct View {
    /// The server section.
    pub server: Arc<plan::Server>,
    /// Finds routes.
    pub table: Arc<RouteTable>,
    /// By [`plan::RouteId`].
    pub routes: Vec<Rc<RouteView>>,
    /// By [`plan::UpstreamId`].
    pub upstreams: Vec<Rc<UpstreamView>>,
    /// How TLS is spoken to clients; `None` when no listener is one of TLS.
    pub tls: Option<Arc<Acceptor>>,
}

impl View {
    /// A view of `published` for one of `workers` workers, the one at index `worker`. Backends that `before` knows keep
    /// their idle connections.
    pub fn new(published: &Published, worker: usize, workers: usize, before: Option<&View>, rng: &mut Rng) -> View {
        let upstreams = published.upstreams.iter();
        let upstreams: Vec<Rc<UpstreamView>> =
            upstreams.map(|u| Rc::new(UpstreamView::new(u, worker, workers, before, rng))).collect();
        let routes = published
            .plan
            .routes
            .iter()
            .map(|conf| {
                let upstream = match conf.target {
                    Target::Upstream(id) => upstreams.get(id.0 as usize).cloned(),
                    Target::Redirect { .. } | Target::Respond { .. } => None,
                };
                let access = AccessList::new(&conf.allow, &conf.deny);
                let access = (!conf.allow.is_empty() || !conf.deny.is_empty()).then_some(access);
                Rc::new(RouteView { conf: conf.clone(), access, upstream })
            })
            .collect();
        let (server, table, tls) = (published.plan.server.clone(), published.table.clone(), published.tls.clone());
        View { server, table, routes, upstreams, tls }
    }

    /// Closes the idle connections of `before` to backends that this view does not know any more. Exchanges and tunnels
    /// hold on to their backend, and nobody would sweep its pool.
    pub fn close_pools_of_gone(&self, before: &View) {
        let known: HashSet<_> = self.backends().map(|(_, backend)| Rc::as_ptr(&backend.pool)).collect();
        let gone = before.backends().filter(|(_, backend)| !known.contains(&Rc::as_ptr(&backend.pool)));
        gone.for_each(|(_, backend)| {
            backend.pool.close();
            backend.trunks.close();
        });
    }

    /// Every backend of every upstream.
    pub fn backends(&self) -> impl Iterator<Item = (&Rc<UpstreamView>, &Rc<BackendView>)> {
        self.upstreams.iter().flat_map(|u| u.backends.iter().map(move |b| (u, b)))
    }
}

impl UpstreamView {
    fn new(
        published: &PublishedUpstream,
        worker: usize,
        workers: usize,
        before: Option<&View>,
        rng: &mut Rng,
    ) -> UpstreamView {
        let old = before.and_then(|view| view.upstreams.iter().find(|u| Arc::ptr_eq(&u.state, &published.state)));
        let kept: HashMap<_, &BackendView> =
            old.iter().flat_map(|u| &u.backends).map(|b| (Arc::as_ptr(&b.state), &**b)).collect();
        // Connections that were opened by other rules are not for requests after them.
        let is_same_tls = old.is_none_or(|u| same(u.connector.as_ref(), published.connector.as_ref()));
        let backends = published
            .conf
            .backends
            .iter()
            .zip(published.backends.iter().zip(&published.stats))
            .map(|(conf, (state, stats))| {
                let kept = kept.get(&Arc::as_ptr(state)).copied();
                let has_fit = is_same_tls || !conf.scheme.is_secure();
                Rc::new(BackendView::new(conf, state, &stats[worker], kept.filter(|_| has_fit), rng))
            })
            .collect();
        let conf = published.conf.clone();
        let roster = Roster::new(conf.backends.iter().map(|b| (b.id.as_str(), b.weight)));
        UpstreamView {
            sticky: conf.sticky.as_ref().map(|sticky| Signer::new(&conf.name, sticky)),
            keepalive: conf.keepalive.div_ceil(workers),
            default_host: conf.backends.first().map_or_else(String::new, |b| b.addr.authority()),
            connector: published.connector.clone(),
            state: published.state.clone(),
            backends,
            rotation: RefCell::new(Rotation::new(&roster, rng)),
            roster,
            budget: published.budget.clone(),
            uncounted: Cell::new(0),
            next_local: Cell::new(rng.next_u64() as usize),
            conf,
        }
    }

    /// Counts a request (its first try) towards the retry budget.
    pub fn count_request(&self) {
        self.uncounted.set(self.uncounted.get().saturating_add(1));
    }

    /// Tells the budget of the requests counted so far; called about once a second.
    pub fn hand_in_requests(&self, now_ms: u64) {
        match self.uncounted.take() {
            0 => {}
            requests => self.budget.add_requests(now_ms, requests),
        }
    }

    /// Takes a retry from the upstream's budget; `false` when it is used up.
    pub fn try_retry(&self, now_ms: u64) -> bool {
        self.budget.try_retry(now_ms, self.uncounted.take())
    }

    /// The next of `local_addresses`, in rotation.
    pub fn local_address(&self) -> Option<std::net::IpAddr> {
        let locals = &self.conf.local_addresses;
        let next = self.next_local.get();
        self.next_local.set(next.wrapping_add(1));
        locals.get(next.checked_rem(locals.len())?).copied()
    }
}

fn same<T>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
    one.map(Arc::as_ptr) == other.map(Arc::as_ptr)
}

impl BackendView {
    fn new(
        conf: &Arc<plan::Backend>,
        state: &Arc<BackendState>,
        stats: &Arc<BackendStats>,
        kept: Option<&BackendView>,
        rng: &mut Rng,
    ) -> BackendView {
        BackendView {
            hash: crate::balance::key::of_bytes(conf.id.as_bytes()),
            conf: conf.clone(),
            state: state.clone(),
            pool: kept.map_or_else(Rc::default, |b| b.pool.clone()),
            trunks: kept.map_or_else(Rc::default, |b| b.trunks.clone()),
            stats: stats.clone(),
            next_address: Cell::new(kept.map_or_else(|| rng.next_u64() as usize, |b| b.next_address.get())),
            addresses: kept.map_or_else(|| RefCell::new(Arc::clone(&state.addresses())), |b| b.addresses.clone()),
        }
    }

    /// Lets go of kept connections to addresses that its name no longer has. Called about once a second, at tick `now`.
    pub fn follow_addresses(&self, now: u32) {
        if !matches!(self.conf.addr, BackendAddr::Name(..)) {
            return;
        }
        let addresses = Arc::clone(&self.state.addresses());
        // Each time: one that was being opened meanwhile may lead to an old address.
        self.trunks.keep_to(&addresses);
        let before = self.addresses.replace(addresses.clone());
        if !before.is_empty() && !Arc::ptr_eq(&before, &addresses) {
            self.pool.keep_to(&addresses, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::plan::Scheme;
    use crate::stream::{Stream, Trunk};
    use crate::wheel::Wheel;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("an address");
        (listener, addr)
    }

    /// A connection to `listener`, and its other end, which has sent its settings of HTTP/2.
    fn connection(listener: &TcpListener) -> (Stream, TcpStream) {
        let near = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        near.set_nonblocking(true).expect("a socket that does not block");
        let (mut far, _) = listener.accept().expect("the other end");
        far.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).expect("settings sent");
        (Stream::new(near.into()).expect("a stream"), far)
    }

    async fn with_trunk(view: &BackendView, stream: Stream) {
        let trunk = Trunk::open(stream, &Wheel::new(), view.trunks.waiters()).await.expect("HTTP/2");
        drop(view.trunks.opening().expect("leave").done(trunk));
    }

    #[tokio::test]
    async fn kept_connections_follow_their_name() {
        let conf = Arc::new(plan::Backend {
            id: "b".into(),
            name: "b".into(),
            addr: BackendAddr::Name("backend.test".into(), 80),
            weight: 100,
            scheme: Scheme::H2c,
            active: true,
            backup: false,
            max_conn: 0,
            health_check: None,
        });
        let upstream = UpstreamState::new(0);
        let state = BackendState::new(&upstream, &conf);
        let ((goes, old), (stays, new)) = (listener(), listener());
        state.set_addresses(vec![old, new]);
        let view = BackendView::new(&conf, &state, &Arc::default(), None, &mut Rng::new(1));
        tokio::task::LocalSet::new()
            .run_until(async {
                let mut far = Vec::new();
                for listener in [&goes, &stays] {
                    let ((shared, one), (kept, other)) = (connection(listener), connection(listener));
                    with_trunk(&view, shared).await;
                    view.pool.put(kept, 1, 1, 9);
                    far.extend([one, other]);
                }
                view.follow_addresses(2);
                assert_eq!((view.pool.len(), view.trunks.len()), (2, 2), "nothing changed");
                let before = Arc::clone(&state.addresses());
                state.set_addresses(vec![new, old]);
                assert!(Arc::ptr_eq(&before, &state.addresses()), "only their order did");
                // The change is seen by the view of after a reload, too.
                state.set_addresses(vec![new]);
                let view = BackendView::new(&conf, &state, &Arc::default(), Some(&view), &mut Rng::new(1));
                view.follow_addresses(3);
                assert_eq!((view.pool.len(), view.trunks.len()), (1, 1));
            })
            .await;
    }
}
