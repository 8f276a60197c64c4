//! Getting a slot at a backend: the sticky one, the one the rule picks, or the one the queue grants.
//!
//! Owns the order of these and the wait. Never opens a connection.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use super::client::Client;
use super::exchange::Exchange;
use super::local::Local;
use crate::balance::load::Load;
use crate::balance::policy;
use crate::balance::score::Score;
use crate::error::{Fault, Reason};
use crate::health::verdict::ramp;
use crate::shared::backend::{BackendState, Mark, Slot, Standing};
use crate::upstream::view::{BackendView, UpstreamView};

/// A backend with one of its slots.
#[derive(Debug)]
pub struct Admitted {
    /// Given back on drop.
    pub slot: Slot<Rc<BackendView>>,
    /// Its place in the upstream.
    pub index: usize,
}

impl Admitted {
    /// The try failed by the backend's fault.
    pub fn failed(&self, now_ms: u64) {
        let backend = self.slot.backend();
        backend.stats.failures.inc();
        if let Some(until_ms) = backend.state.record_failure(now_ms) {
            let seconds = until_ms.saturating_sub(now_ms) / 1000;
            tracing::warn!(backend = %backend.conf.id, seconds, "ejected after failures in a row");
        }
    }
}

/// What looking at the backends came to.
enum Found {
    Slot(Admitted),
    /// Some are fit for use, but none has room.
    Full,
    /// None is fit for use.
    None,
}

/// Gets a slot for the request. Backends in `tried` are asked only when no other is left.
///
/// # Errors
/// [`Reason::NoBackend`], [`Reason::BackendsFull`], [`Reason::QueueFull`], [`Reason::QueueTimeout`], or
/// what [`Client::poll_gone`] says when the client left the queue.
pub async fn admit(
    client: &mut Client,
    exchange: &mut Exchange,
    upstream: &Rc<UpstreamView>,
    tried: &[usize],
) -> Result<Admitted, Fault> {
    let now = client.local.now_ms();
    let (mut upstream, mut tried) = (upstream.clone(), tried);
    loop {
        match find(client, exchange, &upstream, tried, now) {
            Found::Slot(admitted) => return Ok(admitted),
            Found::Full if upstream.conf.queue.size == 0 => return Err(Reason::BackendsFull.into()),
            Found::Full => match queue(client, &upstream, now).await? {
                Some(admitted) => {
                    exchange.record.begin_try();
                    return Ok(admitted);
                }
                None => upstream = newer(&client.local, &upstream).unwrap_or(upstream),
            },
            // All of them may have gone with a reload since the request was routed: it goes where requests go now.
            Found::None => (upstream, tried) = (newer(&client.local, &upstream).ok_or(Reason::NoBackend)?, &[]),
        }
    }
}

/// What the plan of now makes of the same upstream, if that is another view.
fn newer(local: &Local, upstream: &Rc<UpstreamView>) -> Option<Rc<UpstreamView>> {
    let view = local.view();
    let same = view.upstreams.iter().find(|u| Arc::ptr_eq(&u.state, &upstream.state))?;
    (!Rc::ptr_eq(same, upstream)).then(|| same.clone())
}

fn find(client: &Client, exchange: &Exchange, upstream: &UpstreamView, tried: &[usize], now: u64) -> Found {
    if let Some(admitted) = exchange.sticky.and_then(|hash| sticky(upstream, hash, tried, now)) {
        return Found::Slot(admitted);
    }
    let backends = &upstream.backends;
    for avoid in [tried, &[]] {
        let left = backends.iter().enumerate().filter(|(i, _)| !avoid.contains(i)).map(|(_, b)| &*b.state);
        let best = Standing::best(left, now);
        if best == Standing::Out {
            continue;
        }
        // Losing a race for the last slot of a backend, the rule is asked again; each loss means somebody else won.
        for _ in 0..=backends.len() {
            let Some(index) = pick(client, exchange, upstream, avoid, best, now) else { break };
            if let Ok(slot) = Slot::try_acquire(backends[index].clone()) {
                return Found::Slot(Admitted { slot, index });
            }
        }
        return Found::Full;
    }
    Found::None
}

fn sticky(upstream: &UpstreamView, hash: u64, tried: &[usize], now: u64) -> Option<Admitted> {
    let index = upstream.backends.iter().position(|b| b.hash == hash)?;
    let backend = &upstream.backends[index];
    let is_eligible = backend.state.standing(now) < Standing::Ejected && !tried.contains(&index);
    let slot = if is_eligible { Slot::try_acquire(backend.clone()).ok()? } else { return None };
    Some(Admitted { slot, index })
}

fn pick(
    client: &Client,
    exchange: &Exchange,
    upstream: &UpstreamView,
    avoid: &[usize],
    best: Standing,
    now: u64,
) -> Option<usize> {
    let load = |i: usize| {
        let state: &BackendState = &upstream.backends[i].state;
        if state.standing(now) != best || avoid.contains(&i) { None } else { load_of(state, now) }
    };
    policy::pick(
        exchange.algorithm(),
        &upstream.roster,
        &mut upstream.rotation.borrow_mut(),
        exchange.key,
        &mut client.local.rng.borrow_mut(),
        load,
    )
}

/// What the balancing rules look at; `None` when it has no room.
pub fn load_of(state: &BackendState, now_ms: u64) -> Option<Load> {
    let occupancy = state.occupancy();
    occupancy.check().ok()?;
    let ramp = state.ramp_start_ms().map_or(1.0, |since| ramp(now_ms, since));
    let headroom = state.load().map_or(1.0, |report| Score::from(report).headroom(now_ms));
    Some(Load { in_flight: occupancy.in_flight(), ramp, headroom })
}

/// Waits in line. `None` when a reload took away what was granted: then it has to be asked for again.
async fn queue(client: &mut Client, upstream: &Rc<UpstreamView>, now: u64) -> Result<Option<Admitted>, Fault> {
    let local = client.local.clone();
    let mut waiter = pin!(upstream.state.join(now).map_err(|_| Fault::from(Reason::QueueFull))?);
    local.stats.queue_waits.inc();
    local.stats.queue_waiting.inc();
    client.set_deadline_after(upstream.conf.queue.timeout);
    let granted = poll_fn(|cx| {
        if let Poll::Ready(granted) = waiter.as_mut().poll(cx) {
            return Poll::Ready(granted.map_err(|_| Fault::from(Reason::NoBackend)));
        }
        // Also while its body is still to come: what it sends meanwhile is kept, up to a bound.
        if let Poll::Ready(reason) = client.poll_gone(cx) {
            return Poll::Ready(Err(reason.into()));
        }
        client.deadline.poll_expired(cx).map(|()| Err(client.overdue(Reason::QueueTimeout)))
    })
    .await;
    local.stats.queue_waiting.dec();
    let slot = granted?;
    let Some((index, backend)) = known(&local, upstream, slot.state()).await else { return Ok(None) };
    match slot.rebind(backend) {
        Ok(slot) => Ok(Some(Admitted { slot, index })),
        Err(_) => Err(Reason::NoBackend.into()),
    }
}

/// This worker's view of a backend that the queue granted. A reload may have brought it while the request waited with an
/// older view, and the newer one may be on its way still; `None` when yet another reload took it away.
async fn known(local: &Local, upstream: &Rc<UpstreamView>, state: &BackendState) -> Option<(usize, Rc<BackendView>)> {
    loop {
        for view in [Some(upstream.clone()), newer(local, upstream)].into_iter().flatten() {
            if let Some(index) = view.backends.iter().position(|b| std::ptr::eq(&*b.state, state)) {
                return Some((index, view.backends[index].clone()));
            }
        }
        if state.is(Mark::Draining) {
            return None;
        }
        local.pause(1).await;
    }
}
