//! What is true of one backend for the whole process: exchanges in flight, limit, standing, load, addresses.
//!
//! Owns the word that keeps `max_conn` exact and the guard that gives a slot back. The word is the only thing written
//! on a request's way; the rest stands on other cache lines and is written when something changes. Never chooses a
//! backend, never reads a clock; who waits for a slot is [`super::queue`]'s.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;

use super::queue::UpstreamState;
use super::sync::{AtomicU32, AtomicU64, Ordering};
use crate::balance::score::Score;
use crate::config::plan;

/// Failures in a row that eject a backend.
const EJECT_FAILURES_COUNT: u32 = 5;
/// First ejection, in milliseconds; each further one is twice as long.
const EJECT_MS_MIN: u64 = 10_000;
/// Longest ejection, in milliseconds.
const EJECT_MS_MAX: u64 = 300_000;
/// Doublings until the longest is reached.
const EJECT_DOUBLINGS_MAX: u32 = 5;
/// Time in service that takes one doubling back, in milliseconds.
const FORGIVE_MS: u64 = 60_000;

const _: () = assert!(EJECT_MS_MIN << EJECT_DOUBLINGS_MAX >= EJECT_MS_MAX);

/// A value on cache lines of its own: 128 bytes, because x86 fetches lines in pairs and other machines have wider ones.
#[derive(Debug)]
#[repr(align(128))]
struct Padded<T>(T);

/// Why a backend gives no slot now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// As many exchanges are in flight as the limit allows.
    Full,
    /// Requests wait in the upstream's queue: join it, never overtake it.
    Waiters,
}

/// The shared word, read at one moment: exchanges in flight (low 31 bits), whether requests wait (one bit), limit (high
/// 32 bits). Being one word, a slot is taken by one compare-and-swap that has seen all three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupancy(u64);

impl Occupancy {
    const WAITERS: u64 = 1 << 31;
    const IN_FLIGHT: u64 = Self::WAITERS - 1;
    const LIMIT_SHIFT: u32 = 32;

    fn empty(limit: u32) -> Self {
        Occupancy(0).with_limit(limit)
    }

    fn with_limit(self, limit: u32) -> Self {
        Occupancy(self.0 & (Self::WAITERS | Self::IN_FLIGHT) | u64::from(limit) << Self::LIMIT_SHIFT)
    }

    fn without_waiters(self) -> Self {
        Occupancy(self.0 & !Self::WAITERS)
    }

    /// Exchanges and tunnels in flight.
    pub fn in_flight(self) -> u32 {
        (self.0 & Self::IN_FLIGHT) as u32
    }

    /// How many may be in flight; 0 = no limit.
    pub fn limit(self) -> u32 {
        (self.0 >> Self::LIMIT_SHIFT) as u32
    }

    /// Whether requests wait for a slot of the upstream.
    pub fn has_waiters(self) -> bool {
        self.0 & Self::WAITERS != 0
    }

    /// Slots that are left; 0 also when a limit was lowered to below what is in flight.
    pub fn free(self) -> u32 {
        self.ceiling().saturating_sub(self.in_flight())
    }

    /// Whether a new request would get a slot, and if not, why.
    ///
    /// # Errors
    /// [`Busy::Waiters`] before [`Busy::Full`]: who finds others waiting has to queue in either case.
    pub fn check(self) -> Result<(), Busy> {
        if self.has_waiters() {
            Err(Busy::Waiters)
        } else if self.free() == 0 {
            Err(Busy::Full)
        } else {
            Ok(())
        }
    }

    /// More is in flight than a lowered limit allows: a slot given back now is gone.
    fn is_over_limit(self) -> bool {
        self.in_flight() > self.ceiling()
    }

    /// The limit, or without one as many as the word can count, so that the count never runs into the bit above it.
    fn ceiling(self) -> u32 {
        match self.limit() {
            0 => Self::IN_FLIGHT as u32,
            limit => limit.min(Self::IN_FLIGHT as u32),
        }
    }
}

/// A lasting property of a backend that bears on whether it is used; set by control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Mark {
    /// `active: false`.
    Inactive = 1,
    /// `backup: true`: used only when no other is active and healthy.
    Backup = 1 << 1,
    /// Its active check failed.
    CheckDown = 1 << 2,
    /// An operator disconnected it.
    Disconnected = 1 << 3,
    /// No member of its upstream: not yet, or gone with a reload and finishing what is in flight. Follows
    /// [`UpstreamState::set_members`] alone.
    Draining = 1 << 4,
    /// What still runs with it is to end now. Set beside a mark that keeps new requests away.
    Cut = 1 << 5,
}

impl Mark {
    /// Any of these keeps requests away.
    const OUT: u32 = Mark::Inactive as u32 | Mark::CheckDown as u32 | Mark::Disconnected as u32 | Mark::Draining as u32;
}

/// How willingly a backend is used, best first. Only the best standing that an upstream's members have is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Active and healthy.
    Primary,
    /// Active and healthy, for when no primary is.
    Backup,
    /// Ejected after failures in a row; still better than none.
    Ejected,
    /// Inactive, down by its check, disconnected or draining: never used.
    Out,
}

impl Standing {
    /// The best standing among `backends`; [`Standing::Out`] when there are none. Requests go to members that have it.
    pub fn best<'a>(backends: impl IntoIterator<Item = &'a BackendState>, now_ms: u64) -> Standing {
        backends.into_iter().map(|b| b.standing(now_ms)).min().unwrap_or(Standing::Out)
    }
}

/// The utilisation that a backend's reports add up to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadReport {
    /// Smoothed, 0.0..=1.0; kept in 24 bits.
    pub utilisation: f32,
    /// When the last report came, in milliseconds of the process clock; kept in 40 bits (34 years).
    pub at_ms: u64,
}

impl From<LoadReport> for Score {
    fn from(report: LoadReport) -> Score {
        Score { utilisation: report.utilisation, reported_ms: report.at_ms }
    }
}

impl From<Score> for LoadReport {
    fn from(score: Score) -> LoadReport {
        LoadReport { utilisation: score.utilisation, at_ms: score.reported_ms }
    }
}

impl LoadReport {
    const UTILISATION_BITS: u32 = 24;
    const UTILISATION_ONE: u64 = (1 << Self::UTILISATION_BITS) - 1;

    /// Never 0, which stands for "no report".
    fn pack(self) -> u64 {
        let utilisation = (f64::from(self.utilisation.clamp(0.0, 1.0)) * Self::UTILISATION_ONE as f64).round() as u64;
        self.at_ms.max(1) << Self::UTILISATION_BITS | utilisation
    }

    fn unpack(packed: u64) -> Option<Self> {
        let utilisation = ((packed & Self::UTILISATION_ONE) as f64 / Self::UTILISATION_ONE as f64) as f32;
        (packed != 0).then_some(LoadReport { utilisation, at_ms: packed >> Self::UTILISATION_BITS })
    }
}

/// The state of one backend identity (upstream, id, address, scheme), shared by all workers and surviving reloads.
#[derive(Debug)]
pub struct BackendState {
    occupancy: Padded<AtomicU64>,
    marks: AtomicU32,
    /// 0 = never ejected; in the past = was.
    ejected_until_ms: AtomicU64,
    /// How often the next ejection is doubled, before time in service is taken off. Only under the queue's lock.
    ejection_doublings: AtomicU32,
    failures_in_a_row: AtomicU32,
    failures: AtomicU64,
    ejections: AtomicU64,
    /// 0 = no ramp.
    ramp_start_ms: AtomicU64,
    /// See [`LoadReport::pack`].
    load: AtomicU64,
    addresses: ArcSwap<Vec<SocketAddr>>,
    upstream: Weak<UpstreamState>,
    /// Itself, to hand to a waiter along with a slot.
    itself: Weak<BackendState>,
}

impl AsRef<BackendState> for BackendState {
    fn as_ref(&self) -> &BackendState {
        self
    }
}

impl BackendState {
    /// The state of `backend` of `upstream`, empty, up and not ramped. It is [`Mark::Draining`] until it is named in
    /// [`UpstreamState::set_members`].
    pub fn new(upstream: &Arc<UpstreamState>, backend: &plan::Backend) -> Arc<Self> {
        let addresses = match backend.addr {
            plan::BackendAddr::Ip(addr) => vec![addr],
            plan::BackendAddr::Name(..) | plan::BackendAddr::Unix(_) => Vec::new(),
        };
        Arc::new_cyclic(|itself| BackendState {
            occupancy: Padded(AtomicU64::new(Occupancy::empty(backend.max_conn).0)),
            marks: AtomicU32::new(Mark::Draining as u32 | planned_marks(backend)),
            ejected_until_ms: AtomicU64::new(0),
            ejection_doublings: AtomicU32::new(0),
            failures_in_a_row: AtomicU32::new(0),
            failures: AtomicU64::new(0),
            ejections: AtomicU64::new(0),
            ramp_start_ms: AtomicU64::new(0),
            load: AtomicU64::new(0),
            addresses: ArcSwap::from_pointee(addresses),
            upstream: Arc::downgrade(upstream),
            itself: itself.clone(),
        })
    }

    /// Takes over what a reload or a management verb may change: `max_conn`, `active`, `backup`.
    pub fn apply(&self, backend: &plan::Backend, now_ms: u64) {
        let mask = Mark::Inactive as u32 | Mark::Backup as u32;
        // Nobody else writes these. Settling looks at every member: for each of thousands that stay as they are, it
        // would take control seconds.
        if self.occupancy().limit() == backend.max_conn
            && self.marks.load(Ordering::Relaxed) & mask == planned_marks(backend)
        {
            return;
        }
        self.settled(now_ms, || {
            self.store_limit(backend.max_conn);
            self.store_marks(mask, planned_marks(backend), now_ms);
        });
    }

    // Slots.

    /// In flight, limit and waiters at one moment.
    pub fn occupancy(&self) -> Occupancy {
        Occupancy(self.occupancy.0.load(Ordering::Relaxed))
    }

    /// Exchanges and tunnels in flight in the whole process.
    pub fn in_flight(&self) -> u32 {
        self.occupancy().in_flight()
    }

    /// Takes a slot; whoever gets one owes a [`release`](Self::release) (see [`Slot`]). Looks at limit and waiters
    /// only: choosing a backend of the right [`Standing`] is the caller's.
    ///
    /// # Errors
    /// [`Busy`], when there is none free or others were first.
    pub fn try_acquire(&self) -> Result<(), Busy> {
        self.take_if(Occupancy::check)
    }

    /// Takes a slot in the name of the queue's head. Only under the queue's lock.
    pub(super) fn acquire_for_waiter(&self) -> Result<(), Busy> {
        self.take_if(|occupancy| occupancy.without_waiters().check())
    }

    fn take_if(&self, check: impl Fn(Occupancy) -> Result<(), Busy>) -> Result<(), Busy> {
        let word = &self.occupancy.0;
        let mut seen = word.load(Ordering::Relaxed);
        loop {
            check(Occupancy(seen))?;
            match word.compare_exchange_weak(seen, seen + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(newer) => seen = newer,
            }
        }
    }

    /// Gives a slot back: to the head of the queue when requests wait, else to whoever comes.
    pub fn release(&self) {
        let word = &self.occupancy.0;
        let mut seen = word.load(Ordering::Relaxed);
        // Seeing no waiters and giving back have to be one step: were they two, a request that joined in between would
        // have seen the backend full and nobody would come by to wake it.
        while !Occupancy(seen).has_waiters() {
            debug_assert!(Occupancy(seen).in_flight() > 0, "a slot was given back twice");
            match word.compare_exchange_weak(seen, seen - 1, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(newer) => seen = newer,
            }
        }
        self.release_to_waiters();
    }

    #[cold]
    fn release_to_waiters(&self) {
        match self.upstream.upgrade() {
            Some(upstream) => upstream.take_back(self),
            None => self.vacate(),
        }
    }

    /// Counts one less in flight, whoever waits.
    pub(super) fn vacate(&self) {
        let before = self.occupancy.0.fetch_sub(1, Ordering::Release);
        debug_assert!(Occupancy(before).in_flight() > 0, "a slot was given back twice");
    }

    /// This backend for the head of the queue together with a slot that is just given back; `None` when a lowered limit
    /// has no room for the slot any more. Only under the queue's lock and with the waiters' bit up, so that nobody else
    /// changes the word.
    pub(super) fn inherit(&self) -> Option<Arc<BackendState>> {
        if self.occupancy().is_over_limit() { None } else { self.itself.upgrade() }
    }

    /// Turns requests that come by away to the queue, or lets them in again. Only under the queue's lock.
    pub(super) fn set_waiters(&self, waiting: bool) {
        if waiting {
            self.occupancy.0.fetch_or(Occupancy::WAITERS, Ordering::AcqRel);
        } else {
            self.occupancy.0.fetch_and(!Occupancy::WAITERS, Ordering::AcqRel);
        }
    }

    /// Changes how many may be in flight; 0 = no limit. What is in flight above it goes on, and nothing new comes until
    /// enough of it has ended.
    pub fn set_limit(&self, limit: u32, now_ms: u64) {
        self.settled(now_ms, || self.store_limit(limit));
    }

    fn store_limit(&self, limit: u32) {
        let word = &self.occupancy.0;
        let mut seen = word.load(Ordering::Relaxed);
        while let Err(newer) =
            word.compare_exchange_weak(seen, Occupancy(seen).with_limit(limit).0, Ordering::AcqRel, Ordering::Relaxed)
        {
            seen = newer;
        }
    }

    // Standing.

    /// Whether the backend has this mark.
    pub fn is(&self, mark: Mark) -> bool {
        self.marks.load(Ordering::Relaxed) & mark as u32 != 0
    }

    /// Sets or clears a mark and tells the waiters; a backend that comes back by it is ramped from now on.
    pub fn set_mark(&self, mark: Mark, on: bool, now_ms: u64) {
        debug_assert_ne!(mark, Mark::Draining, "follows set_members alone");
        self.settled(now_ms, || self.store_marks(mark as u32, if on { mark as u32 } else { 0 }, now_ms));
    }

    /// Whether the backend is a member of its upstream; a new member isn't ramped, it never went away.
    pub(super) fn set_member(&self, member: bool) {
        if member {
            self.marks.fetch_and(!(Mark::Draining as u32 | Mark::Cut as u32), Ordering::AcqRel);
        } else {
            self.marks.fetch_or(Mark::Draining as u32, Ordering::AcqRel);
        }
    }

    /// Only under the queue's lock, so that the two steps are one to everybody who writes.
    fn store_marks(&self, mask: u32, marks: u32, now_ms: u64) {
        let before = self.marks.load(Ordering::Relaxed);
        let mut after = before & !mask | marks & mask;
        if after & Mark::OUT == 0 {
            after &= !(Mark::Cut as u32);
        }
        if before & Mark::OUT != 0 && after & Mark::OUT == 0 {
            self.ramp_start_ms.store(now_ms.max(1), Ordering::Relaxed);
        }
        self.marks.store(after, Ordering::Release);
    }

    /// Makes a change that the upstream's waiters may have waited for, or that ends their hope, and lets them know.
    fn settled<R>(&self, now_ms: u64, change: impl FnOnce() -> R) -> R {
        match self.upstream.upgrade() {
            Some(upstream) => upstream.change(now_ms, |_| change()),
            None => change(),
        }
    }

    /// How willingly the backend is used at `now_ms`. Being full has no part in it.
    pub fn standing(&self, now_ms: u64) -> Standing {
        let marks = self.marks.load(Ordering::Acquire);
        if marks & Mark::OUT != 0 {
            Standing::Out
        } else if self.is_ejected(now_ms) {
            Standing::Ejected
        } else if marks & Mark::Backup as u32 != 0 {
            Standing::Backup
        } else {
            Standing::Primary
        }
    }

    /// When the backend came back to service (its ejection's end, if it was ejected last), in milliseconds; `None` for
    /// one that was never away. May be in the future while it is ejected.
    pub fn ramp_start_ms(&self) -> Option<u64> {
        Some(self.ramp_start_ms.load(Ordering::Relaxed)).filter(|&ms| ms != 0)
    }

    // Passive failures.

    /// An exchange reached the backend and got an answer's head, whatever its status. Writes only after failures.
    pub fn record_success(&self) {
        if self.failures_in_a_row.load(Ordering::Relaxed) != 0 {
            self.failures_in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// An exchange failed by the backend's fault (refused, connect timeout, TLS failure, reset or close before a whole
    /// head, response timeout). Returns until when the backend is ejected, if it is now.
    ///
    /// Five in a row eject it for 10 s, doubling to 5 min and halved again for each minute in service, unless half of
    /// its upstream is ejected already; then each five further ones try again.
    pub fn record_failure(&self, now_ms: u64) -> Option<u64> {
        self.failures.fetch_add(1, Ordering::Relaxed);
        // What was under way at the ejection fails late; that is no new evidence.
        if self.is_ejected(now_ms) {
            return None;
        }
        let in_a_row = self.failures_in_a_row.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if !in_a_row.is_multiple_of(EJECT_FAILURES_COUNT) {
            return None;
        }
        self.upstream.upgrade()?.eject(self, now_ms)
    }

    /// Ejects without asking; the bound is the caller's. Only under the queue's lock.
    pub(super) fn eject(&self, now_ms: u64) -> u64 {
        let doublings = self.doublings_left(now_ms);
        let until_ms = now_ms.saturating_add((EJECT_MS_MIN << doublings).min(EJECT_MS_MAX));
        self.ejection_doublings.store((doublings + 1).min(EJECT_DOUBLINGS_MAX), Ordering::Relaxed);
        self.ejections.fetch_add(1, Ordering::Relaxed);
        self.failures_in_a_row.store(0, Ordering::Relaxed);
        self.ramp_start_ms.store(until_ms, Ordering::Relaxed);
        self.ejected_until_ms.store(until_ms, Ordering::Release);
        until_ms
    }

    /// The doublings that time in service has not yet taken back.
    fn doublings_left(&self, now_ms: u64) -> u32 {
        let forgiven = now_ms.saturating_sub(self.ejected_until_ms()) / FORGIVE_MS;
        self.ejection_doublings.load(Ordering::Relaxed).saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
    }

    /// Ends an ejection before its time; the backend is ramped from now on. Only under the queue's lock.
    pub(super) fn pardon(&self, now_ms: u64) {
        self.ramp_start_ms.store(now_ms.max(1), Ordering::Relaxed);
        self.ejected_until_ms.store(now_ms, Ordering::Release);
    }

    /// Whether the backend is ejected at `now_ms`.
    pub fn is_ejected(&self, now_ms: u64) -> bool {
        now_ms < self.ejected_until_ms()
    }

    /// When the last ejection ends or ended, in milliseconds; 0 if there was none.
    pub fn ejected_until_ms(&self) -> u64 {
        self.ejected_until_ms.load(Ordering::Acquire)
    }

    /// Passive failures since the start.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Passive failures since the last success or ejection.
    pub fn failures_in_a_row(&self) -> u32 {
        self.failures_in_a_row.load(Ordering::Relaxed)
    }

    /// Ejections since the start.
    pub fn ejections(&self) -> u64 {
        self.ejections.load(Ordering::Relaxed)
    }

    // Load and addresses.

    /// What the backend last reported; `None` before its first report.
    pub fn load(&self) -> Option<LoadReport> {
        LoadReport::unpack(self.load.load(Ordering::Relaxed))
    }

    /// Takes a report in: `smooth` gets what was known and makes the new. It may be called again when two reports meet.
    pub fn update_load(&self, smooth: impl Fn(Option<LoadReport>) -> LoadReport) {
        let mut seen = self.load.load(Ordering::Relaxed);
        loop {
            let next = smooth(LoadReport::unpack(seen)).pack();
            match self.load.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(newer) => seen = newer,
            }
        }
    }

    /// Where to connect to over TCP, to be used in rotation. Empty for Unix sockets and for names not yet resolved.
    pub fn addresses(&self) -> impl Deref<Target = Arc<Vec<SocketAddr>>> {
        self.addresses.load()
    }

    /// Replaces the addresses after a name was resolved anew; an empty answer keeps the last ones. So does one with the same
    /// addresses in another order, as name servers turn it with every answer.
    pub fn set_addresses(&self, addresses: Vec<SocketAddr>) {
        if !addresses.is_empty() && !has_same(&self.addresses.load(), &addresses) {
            self.addresses.store(Arc::new(addresses));
        }
    }
}

fn has_same(some: &[SocketAddr], others: &[SocketAddr]) -> bool {
    some.iter().all(|one| others.contains(one)) && others.iter().all(|other| some.contains(other))
}

fn planned_marks(backend: &plan::Backend) -> u32 {
    let inactive = if backend.active { 0 } else { Mark::Inactive as u32 };
    let backup = if backend.backup { Mark::Backup as u32 } else { 0 };
    inactive | backup
}

/// A slot of a backend, given back on drop.
///
/// `B` is how the owner holds the backend: a worker its `Rc` of a view (with `impl AsRef<BackendState>` for the view),
/// so that no shared count moves, or an `Arc<BackendState>` where one is at hand.
#[derive(Debug)]
pub struct Slot<B>
where
    B: Deref<Target: AsRef<BackendState>>,
{
    backend: B,
    /// Whether the slot has to be given back; not after [`rebind`](Self::rebind).
    owed: bool,
}

impl<B> Slot<B>
where
    B: Deref<Target: AsRef<BackendState>>,
{
    /// Takes a slot of `backend`.
    ///
    /// # Errors
    /// As [`BackendState::try_acquire`].
    pub fn try_acquire(backend: B) -> Result<Self, Busy> {
        backend.deref().as_ref().try_acquire()?;
        Ok(Self::adopt(backend))
    }

    /// Guards a slot that was taken already, by [`BackendState::try_acquire`] or by the queue.
    pub(super) fn adopt(backend: B) -> Self {
        Slot { backend, owed: true }
    }

    /// The same slot, its backend held in another way: what the queue grants comes as an `Arc`, and a worker goes on
    /// with its own `Rc`.
    ///
    /// # Errors
    /// The slot unchanged, when `holder` is of another backend.
    pub fn rebind<C>(mut self, holder: C) -> Result<Slot<C>, Self>
    where
        C: Deref<Target: AsRef<BackendState>>,
    {
        if !std::ptr::eq(holder.deref().as_ref(), self.state()) {
            return Err(self);
        }
        self.owed = false;
        Ok(Slot::adopt(holder))
    }

    /// Whose slot it is.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The shared state of [`backend`](Self::backend).
    pub fn state(&self) -> &BackendState {
        self.backend.deref().as_ref()
    }
}

impl<B> Drop for Slot<B>
where
    B: Deref<Target: AsRef<BackendState>>,
{
    fn drop(&mut self) {
        if self.owed {
            self.state().release();
        }
    }
}
