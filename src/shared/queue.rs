//! The queue of one upstream: requests of all workers that wait for a slot of any of its backends, first come first
//! served.
//!
//! Owns who waits, who was granted what, and which backends belong to the upstream. Never keeps time: a waiter that
//! waited too long is dropped by its owner.
//!
//! # Why nobody is stranded
//! All of this happens under one lock, which no request takes while nobody has to wait. While anybody waits, a bit
//! stands in the word of every member. It goes up before the first waiter is looked after and down after the last one
//! is gone, both under the lock, and with the bit up the word changes under the lock only: new requests are turned away
//! and slots are given back through here. All changes of one word have one order, so a slot given back is either seen
//! free by the waiter that put the bit up, or sees the bit. Whenever the lock is let go, there is no waiter for whom a
//! member of the best standing has a free slot, and none at all when no member is usable. Time alone can break this,
//! when an ejection ends: see [`UpstreamState::offer`].

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use super::backend::{BackendState, Slot, Standing};
use super::sync::{AtomicUsize, Mutex, MutexGuard, Ordering};
use crate::error::Reason;

/// The queue has no place left, or the upstream has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull {
    /// `queue.size`, in requests.
    pub size: usize,
}

impl QueueFull {
    /// What to answer with.
    pub fn reason(self) -> Reason {
        if self.size == 0 { Reason::BackendsFull } else { Reason::QueueFull }
    }
}

impl fmt::Display for QueueFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "all {} places of the queue are taken", self.size)
    }
}

impl std::error::Error for QueueFull {}

/// No member of the upstream is usable any more: waiting on makes no sense ([`Reason::NoBackend`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoBackend;

impl fmt::Display for NoBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no backend of the upstream is usable")
    }
}

impl std::error::Error for NoBackend {}

/// What the workers share of one upstream; survives reloads by its name.
#[derive(Debug)]
pub struct UpstreamState {
    /// Beside the lock, so that an upstream without a queue refuses without taking it.
    size: AtomicUsize,
    queue: Mutex<Queue>,
}

impl UpstreamState {
    /// An upstream without members whose queue has `size` places; 0 = no queue.
    pub fn new(size: usize) -> Arc<Self> {
        Arc::new(UpstreamState { size: AtomicUsize::new(size), queue: Mutex::new(Queue::default()) })
    }

    /// Changes how many may wait; those who wait already stay.
    pub fn set_size(&self, size: usize) {
        self.size.store(size, Ordering::Relaxed);
    }

    /// Makes `members` the upstream's backends. Those that are no longer named drain: what is in flight goes on, and
    /// their slots are handed to nobody. Where fewer members leave more than half of them ejected, ejections end early.
    pub fn set_members(&self, members: Vec<Arc<BackendState>>, now_ms: u64) {
        self.change(now_ms, |queue| queue.set_members(members, now_ms));
    }

    /// How many wait now.
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Gets in line for a slot of any member of the best [`Standing`]. To be called after
    /// [`BackendState::try_acquire`] failed at all of them; a slot that came free since is granted at once.
    ///
    /// # Errors
    /// [`QueueFull`] when `size` requests wait already.
    pub fn join(self: &Arc<Self>, now_ms: u64) -> Result<Waiter, QueueFull> {
        let size = self.size.load(Ordering::Relaxed);
        if size == 0 {
            return Err(QueueFull { size });
        }
        let mut queue = self.lock();
        if queue.waiting.len() >= size {
            return Err(QueueFull { size });
        }
        let ticket = queue.enter();
        // Behind others there is nothing to get, unless time alone has changed the standing of a backend.
        let woken = if queue.waiting.len() == 1 || queue.is_due(now_ms) { queue.settle(now_ms) } else { Vec::new() };
        drop(queue);
        wake(woken);
        Ok(Waiter { upstream: Arc::clone(self), ticket: Some(ticket) })
    }

    /// Looks again at who could get what. Needed only as time passes, when an ejection ends with no request coming by:
    /// control calls it about once a second for each upstream. Everything else that frees slots looks after the waiters
    /// itself.
    pub fn offer(&self, now_ms: u64) {
        self.change(now_ms, |_| ());
    }

    /// Makes a change to the queue or to a member and looks after the waiters, in one step.
    pub(super) fn change<R>(&self, now_ms: u64, change: impl FnOnce(&mut Queue) -> R) -> R {
        let mut queue = self.lock();
        let result = change(&mut queue);
        let woken = queue.settle(now_ms);
        drop(queue);
        wake(woken);
        result
    }

    /// Takes a slot of `backend` back while requests wait (or did a moment ago).
    pub(super) fn take_back(&self, backend: &BackendState) {
        let heir = self.lock().pass_on(backend);
        wake(heir);
    }

    /// Ejects `backend` unless it is no member, ejected already, or half of the members are. Returns until when.
    pub(super) fn eject(&self, backend: &BackendState, now_ms: u64) -> Option<u64> {
        self.change(now_ms, |queue| queue.may_eject(backend, now_ms).then(|| backend.eject(now_ms)))
    }

    fn poll(&self, ticket: u64, waker: &Waker) -> Poll<Result<Arc<BackendState>, NoBackend>> {
        let mut queue = self.lock();
        let Some(place) = queue.waiting.get_mut(&ticket) else {
            // Neither waiting nor granted: let go because no backend is left.
            return Poll::Ready(queue.granted.remove(&ticket).ok_or(NoBackend));
        };
        let outdated = match place {
            Some(known) if known.will_wake(waker) => None,
            _ => place.replace(waker.clone()),
        };
        drop(queue);
        // A waker may own the task and with it a waiter, whose end takes the lock: none is dropped under it.
        drop(outdated);
        Poll::Pending
    }

    /// Gives up a place, or passes on what was granted but not collected.
    fn leave(&self, ticket: u64) {
        let mut queue = self.lock();
        let own = queue.give_up(ticket);
        let heir = queue.granted.remove(&ticket).and_then(|backend| queue.pass_on(&backend));
        drop(queue);
        drop(own);
        wake(heir);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing under the lock panics half-way; and a queue that goes on beats one that takes every worker down.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Never under the lock: a waker runs code of the executor.
fn wake(wakers: impl IntoIterator<Item = Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}

/// What the lock of an [`UpstreamState`] guards.
#[derive(Debug)]
pub(super) struct Queue {
    members: Vec<Arc<BackendState>>,
    /// In the order of arrival; the waker is there from the first poll on.
    waiting: BTreeMap<u64, Option<Waker>>,
    /// Slots that are a waiter's own but not collected yet.
    granted: BTreeMap<u64, Arc<BackendState>>,
    next_ticket: u64,
    /// Whether the waiters' bit stands in the members' words.
    raised: bool,
    /// The best standing of a member at the last [`settle`](Queue::settle).
    best: Standing,
    /// The latest time that was handed in, in milliseconds.
    now_ms: u64,
    /// When the first of the present ejections ends.
    due_ms: u64,
}

impl Default for Queue {
    fn default() -> Self {
        Queue {
            members: Vec::new(),
            waiting: BTreeMap::new(),
            granted: BTreeMap::new(),
            next_ticket: 0,
            raised: false,
            best: Standing::Out,
            now_ms: 0,
            due_ms: u64::MAX,
        }
    }
}

impl Queue {
    /// A place at the end of the line, with everybody else kept out from now on.
    fn enter(&mut self) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting.insert(ticket, None);
        self.raise(true);
        ticket
    }

    /// Leaves the line; returns the waker that stood there, to be dropped without the lock.
    fn give_up(&mut self, ticket: u64) -> Option<Waker> {
        let waker = self.waiting.remove(&ticket)?;
        self.raise(!self.waiting.is_empty());
        waker
    }

    fn set_members(&mut self, members: Vec<Arc<BackendState>>, now_ms: u64) {
        let named: HashSet<_> = members.iter().map(Arc::as_ptr).collect();
        for member in &members {
            // The bit first: once it is a member, requests may try it.
            member.set_waiters(self.raised);
            member.set_member(true);
        }
        // Those that stay are not touched in between: no request may find them gone or overtake a waiter.
        for gone in mem::replace(&mut self.members, members).iter().filter(|old| !named.contains(&Arc::as_ptr(old))) {
            gone.set_member(false);
            gone.set_waiters(false);
        }
        self.pardon_excess(now_ms);
    }

    /// Ends ejections, the earliest to end first, until no more than half of the members are ejected.
    fn pardon_excess(&self, now_ms: u64) {
        let mut ejected: Vec<_> = self.members.iter().filter(|member| member.is_ejected(now_ms)).collect();
        ejected.sort_by_key(|member| member.ejected_until_ms());
        let excess = ejected.len().saturating_sub(self.ejected_max());
        ejected[..excess].iter().for_each(|member| member.pardon(now_ms));
    }

    /// How many members may be ejected at once; never the only one.
    fn ejected_max(&self) -> usize {
        self.members.len() / 2
    }

    fn raise(&mut self, raised: bool) {
        if self.raised != raised {
            self.raised = raised;
            self.members.iter().for_each(|member| member.set_waiters(raised));
        }
    }

    /// Whether the mere passing of time until `now_ms` may have changed a standing.
    fn is_due(&self, now_ms: u64) -> bool {
        now_ms >= self.due_ms
    }

    fn may_eject(&self, backend: &BackendState, now_ms: u64) -> bool {
        let ejected = self.members.iter().filter(|member| member.is_ejected(now_ms)).count();
        let is_member = self.members.iter().any(|member| std::ptr::eq(&**member, backend));
        is_member && !backend.is_ejected(now_ms) && ejected < self.ejected_max()
    }

    /// Gives free slots to those who wait, oldest first, and lets everybody go when there is nothing to wait for.
    /// Returns whom to wake once the lock is let go.
    fn settle(&mut self, now_ms: u64) -> Vec<Waker> {
        self.now_ms = self.now_ms.max(now_ms);
        self.best = Standing::best(self.members.iter().map(|member| &**member), self.now_ms);
        self.due_ms = self.first_ejection_end();
        let woken = if self.best == Standing::Out { self.let_all_go() } else { self.grant_all() };
        self.raise(!self.waiting.is_empty());
        woken
    }

    fn first_ejection_end(&self) -> u64 {
        self.members
            .iter()
            .map(|member| member.ejected_until_ms())
            .filter(|&ms| ms > self.now_ms)
            .min()
            .unwrap_or(u64::MAX)
    }

    fn let_all_go(&mut self) -> Vec<Waker> {
        mem::take(&mut self.waiting).into_values().flatten().collect()
    }

    fn grant_all(&mut self) -> Vec<Waker> {
        let mut woken = Vec::new();
        while let Some(head) = self.waiting.first_entry() {
            let Some(backend) = roomiest(&self.members, self.best, self.now_ms) else { break };
            if backend.acquire_for_waiter().is_err() {
                break;
            }
            let (ticket, waker) = head.remove_entry();
            self.granted.insert(ticket, Arc::clone(backend));
            woken.extend(waker);
        }
        woken
    }

    /// Hands a slot that is given back to the head of the line, the count unmoved; returns whom to wake. Without an
    /// heir, or when the backend is not one to be used now, the slot is just free.
    fn pass_on(&mut self, backend: &BackendState) -> Option<Waker> {
        let usable = backend.standing(self.now_ms) == self.best;
        let heir = self.waiting.first_entry().filter(|_| usable).and_then(|head| Some((head, backend.inherit()?)));
        let Some((head, backend)) = heir else {
            backend.vacate();
            return None;
        };
        let (ticket, waker) = head.remove_entry();
        self.granted.insert(ticket, backend);
        self.raise(!self.waiting.is_empty());
        waker
    }
}

/// The member of that standing with the most free slots, if any has one.
fn roomiest(members: &[Arc<BackendState>], standing: Standing, now_ms: u64) -> Option<&Arc<BackendState>> {
    members
        .iter()
        .filter(|member| member.standing(now_ms) == standing)
        .max_by_key(|member| member.occupancy().free())
        .filter(|member| member.occupancy().free() > 0)
}

/// A place in the queue; resolves to a slot that is the request's own, or to [`NoBackend`] when none is left to wait
/// for. The slot may be of a backend that joined the upstream meanwhile, or that has failed a check since the grant.
///
/// Dropping it at any moment loses no slot: before the grant the place is given up, after it the slot is passed on.
#[derive(Debug)]
#[must_use = "dropping it leaves the queue"]
pub struct Waiter {
    upstream: Arc<UpstreamState>,
    /// `None` once resolved.
    ticket: Option<u64>,
}

impl Future for Waiter {
    type Output = Result<Slot<Arc<BackendState>>, NoBackend>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(ticket) = self.ticket else { return Poll::Ready(Err(NoBackend)) };
        let outcome = self.upstream.poll(ticket, cx.waker());
        if outcome.is_ready() {
            self.ticket = None;
        }
        outcome.map_ok(Slot::adopt)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.upstream.leave(ticket);
        }
    }
}
