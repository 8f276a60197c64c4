//! Tests of slots, standing and queue on real threads and real atomics; `tests/loom.rs` explores the interleavings.

use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::backend::{BackendState, Busy, LoadReport, Mark, Slot, Standing};
use super::queue::{NoBackend, QueueFull, UpstreamState, Waiter};
use super::stats::{BackendStats, BackendTotals, Totals, WorkerStats};
use crate::config::plan;
use crate::error::Reason;

type Granted = Slot<Arc<BackendState>>;

fn planned(id: usize, max_conn: u32) -> plan::Backend {
    plan::Backend {
        id: format!("b{id}"),
        name: format!("b{id}"),
        addr: plan::BackendAddr::Name("backend.test".into(), 80),
        weight: 100,
        scheme: plan::Scheme::Http,
        active: true,
        backup: false,
        max_conn,
        health_check: None,
    }
}

/// An upstream whose members have these limits.
fn upstream(size: usize, limits: &[u32]) -> (Arc<UpstreamState>, Vec<Arc<BackendState>>) {
    let upstream = UpstreamState::new(size);
    let members: Vec<_> =
        limits.iter().enumerate().map(|(i, &limit)| BackendState::new(&upstream, &planned(i, limit))).collect();
    upstream.set_members(members.clone(), 0);
    (upstream, members)
}

/// Counts how often it was woken.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll_with(waiter: &mut Waiter, bell: &Arc<Bell>) -> Poll<Result<Granted, NoBackend>> {
    let waker = Waker::from(Arc::clone(bell));
    Pin::new(waiter).poll(&mut Context::from_waker(&waker))
}

fn poll(waiter: &mut Waiter) -> Poll<Result<Granted, NoBackend>> {
    Pin::new(waiter).poll(&mut Context::from_waker(Waker::noop()))
}

#[track_caller]
fn granted(waiter: &mut Waiter) -> Granted {
    match poll(waiter) {
        Poll::Ready(Ok(slot)) => slot,
        other => panic!("no slot: {other:?}"),
    }
}

#[track_caller]
fn take(backend: &Arc<BackendState>) -> Granted {
    Slot::try_acquire(Arc::clone(backend)).expect("a free slot")
}

fn is_idle(backend: &BackendState) -> bool {
    backend.in_flight() == 0 && !backend.occupancy().has_waiters()
}

#[test]
fn slots_end_at_the_limit_and_zero_means_none() {
    let (_upstream, members) = upstream(0, &[2, 0]);
    let slots = [take(&members[0]), take(&members[0])];
    assert_eq!(members[0].try_acquire(), Err(Busy::Full));
    drop(slots);
    assert!(is_idle(&members[0]));
    let many: Vec<_> = (0..10_000).map(|_| take(&members[1])).collect();
    assert_eq!(members[1].in_flight(), 10_000);
    drop(many);
    assert!(is_idle(&members[1]));
}

#[test]
fn a_limit_lowered_below_what_is_in_flight_lets_it_drain_first() {
    let (_upstream, members) = upstream(0, &[3]);
    let mut slots = vec![take(&members[0]), take(&members[0]), take(&members[0])];
    members[0].set_limit(1, 0);
    slots.truncate(1);
    assert_eq!(members[0].try_acquire(), Err(Busy::Full));
    slots.clear();
    assert_eq!(members[0].try_acquire(), Ok(()));
    assert_eq!(members[0].try_acquire(), Err(Busy::Full));
    members[0].release();
}

#[test]
fn a_slot_can_go_on_with_a_workers_own_view() {
    #[derive(Debug)]
    struct View(Arc<BackendState>);
    impl AsRef<BackendState> for View {
        fn as_ref(&self) -> &BackendState {
            &self.0
        }
    }
    let (_upstream, members) = upstream(0, &[1, 1]);
    let other = Rc::new(View(Arc::clone(&members[1])));
    let own = Rc::new(View(Arc::clone(&members[0])));
    let slot = take(&members[0]).rebind(other).expect_err("another backend");
    let slot = slot.rebind(Rc::clone(&own)).expect("the same backend");
    assert_eq!(members[0].in_flight(), 1);
    drop(slot);
    assert!(is_idle(&members[0]));
    drop(Slot::try_acquire(own).expect("a free slot"));
    assert!(is_idle(&members[0]));
}

#[test]
fn without_a_queue_nobody_waits() {
    let (upstream, members) = upstream(0, &[1]);
    let _slot = take(&members[0]);
    let refused = upstream.join(0).expect_err("no queue");
    assert_eq!(refused.reason(), Reason::BackendsFull);
    assert_eq!(members[0].try_acquire(), Err(Busy::Full));
}

#[test]
fn the_queue_has_an_end() {
    let (upstream, members) = upstream(1, &[1]);
    let _slot = take(&members[0]);
    let _waiter = upstream.join(0).expect("a place");
    let refused = upstream.join(0).expect_err("one place only");
    assert_eq!(refused, QueueFull { size: 1 });
    assert_eq!(refused.reason(), Reason::QueueFull);
}

#[test]
fn waiters_are_served_in_order_and_never_overtaken() {
    let (upstream, members) = upstream(10, &[1, 1]);
    let first_slot = take(&members[0]);
    let second_slot = take(&members[1]);
    let mut first = upstream.join(0).expect("a place");
    let mut second = upstream.join(0).expect("a place");
    let bell = Arc::new(Bell::default());
    assert!(poll_with(&mut first, &bell).is_pending());
    assert!(poll(&mut second).is_pending());

    drop(second_slot);
    assert_eq!(bell.0.load(Ordering::SeqCst), 1);
    assert_eq!(members[1].in_flight(), 1, "the slot moved, it never was free");
    assert_eq!(members[0].try_acquire(), Err(Busy::Waiters));
    assert_eq!(members[1].try_acquire(), Err(Busy::Waiters));
    assert!(poll(&mut second).is_pending());
    let slot = granted(&mut first);
    assert!(Arc::ptr_eq(slot.backend(), &members[1]));

    drop(first_slot);
    drop(slot);
    assert!(Arc::ptr_eq(granted(&mut second).backend(), &members[0]));
    assert!(members.iter().all(|member| is_idle(member)));
}

#[test]
fn a_slot_that_came_free_before_joining_is_granted_at_once() {
    let (upstream, members) = upstream(10, &[1]);
    drop(take(&members[0]));
    let mut waiter = upstream.join(0).expect("a place");
    let slot = granted(&mut waiter);
    assert_eq!(slot.state().try_acquire(), Err(Busy::Full));
}

#[test]
fn who_leaves_the_queue_loses_no_slot() {
    let (upstream, members) = upstream(10, &[1]);
    let slot = take(&members[0]);
    let mut waiters: Vec<_> = (0..4).map(|_| upstream.join(0).expect("a place")).collect();
    waiters.iter_mut().for_each(|waiter| assert!(poll(waiter).is_pending()));
    drop(waiters.remove(1));
    drop(slot);
    // The head has the slot now, collected or not; it passes on to the next that is left.
    drop(waiters.remove(0));
    let slot = granted(&mut waiters[0]);
    drop(waiters.pop());
    assert_eq!(upstream.waiting(), 0);
    drop(slot);
    assert_eq!(members[0].try_acquire(), Ok(()));
}

#[test]
fn a_waiter_that_moved_to_another_task_wakes_that_one() {
    let (upstream, members) = upstream(10, &[1]);
    let slot = take(&members[0]);
    let mut waiter = upstream.join(0).expect("a place");
    let bells = [Arc::new(Bell::default()), Arc::new(Bell::default())];
    bells.iter().for_each(|bell| assert!(poll_with(&mut waiter, bell).is_pending()));
    drop(slot);
    assert_eq!(bells.map(|bell| bell.0.load(Ordering::SeqCst)), [0, 1]);
}

#[test]
fn a_raised_limit_serves_the_waiters() {
    let (upstream, members) = upstream(10, &[1]);
    let _slot = take(&members[0]);
    let mut waiters: Vec<_> = (0..3).map(|_| upstream.join(0).expect("a place")).collect();
    members[0].set_limit(3, 0);
    let _slots = [granted(&mut waiters[0]), granted(&mut waiters[1])];
    assert!(poll(&mut waiters[2]).is_pending());
    assert_eq!(members[0].in_flight(), 3);
    members[0].set_limit(0, 0);
    granted(&mut waiters[2]);
}

#[test]
fn a_lowered_limit_swallows_slots_instead_of_handing_them_on() {
    let (upstream, members) = upstream(10, &[2]);
    let slots = [take(&members[0]), take(&members[0])];
    let mut waiter = upstream.join(0).expect("a place");
    members[0].set_limit(1, 0);
    let [first, second] = slots;
    drop(first);
    assert!(poll(&mut waiter).is_pending());
    assert_eq!(members[0].in_flight(), 1);
    drop(second);
    granted(&mut waiter);
}

#[test]
fn a_backend_that_is_down_is_handed_to_nobody_until_it_is_back() {
    let (upstream, members) = upstream(10, &[1, 1]);
    let first_slot = take(&members[0]);
    let _second_slot = take(&members[1]);
    let mut waiter = upstream.join(0).expect("a place");
    members[0].set_mark(Mark::CheckDown, true, 1);
    drop(first_slot);
    assert!(poll(&mut waiter).is_pending());
    assert_eq!(members[0].in_flight(), 0);
    assert_eq!(members[0].ramp_start_ms(), None);
    members[0].set_mark(Mark::CheckDown, false, 2);
    assert!(Arc::ptr_eq(granted(&mut waiter).backend(), &members[0]));
    assert_eq!(members[0].ramp_start_ms(), Some(2));
}

#[test]
fn without_any_backend_the_waiters_are_let_go() {
    let (upstream, members) = upstream(10, &[1]);
    let slot = take(&members[0]);
    let mut waiter = upstream.join(0).expect("a place");
    let bell = Arc::new(Bell::default());
    assert!(poll_with(&mut waiter, &bell).is_pending());
    members[0].set_mark(Mark::Disconnected, true, 1);
    assert_eq!(bell.0.load(Ordering::SeqCst), 1);
    assert!(matches!(poll(&mut waiter), Poll::Ready(Err(NoBackend))));
    // And who comes now need not wait either.
    let mut late = upstream.join(2).expect("a place");
    assert!(matches!(poll(&mut late), Poll::Ready(Err(NoBackend))));
    drop(slot);
    assert!(is_idle(&members[0]));
}

#[test]
fn a_backup_serves_waiters_only_once_no_primary_does() {
    let (upstream, members) = upstream(10, &[1, 1]);
    members[1].apply(&plan::Backend { backup: true, ..planned(1, 1) }, 0);
    let _slot = take(&members[0]);
    let mut waiter = upstream.join(0).expect("a place");
    assert!(poll(&mut waiter).is_pending());
    members[0].set_mark(Mark::CheckDown, true, 1);
    assert!(Arc::ptr_eq(granted(&mut waiter).backend(), &members[1]));
}

#[test]
fn a_reload_moves_the_waiters_to_the_new_members() {
    let (upstream, members) = upstream(10, &[1]);
    let old_slot = take(&members[0]);
    let mut waiters = [upstream.join(0).expect("a place"), upstream.join(0).expect("a place")];
    let added = BackendState::new(&upstream, &planned(1, 1));
    upstream.set_members(vec![Arc::clone(&added)], 1);
    assert_eq!(members[0].standing(1), Standing::Out);
    let slot = granted(&mut waiters[0]);
    assert!(Arc::ptr_eq(slot.backend(), &added));
    drop(old_slot);
    assert!(is_idle(&members[0]), "a drained backend keeps no trace of the queue");
    assert!(poll(&mut waiters[1]).is_pending());
    assert_eq!(added.try_acquire(), Err(Busy::Waiters));
    upstream.set_members(Vec::new(), 2);
    assert!(matches!(poll(&mut waiters[1]), Poll::Ready(Err(NoBackend))));
}

fn fail(backend: &BackendState, times: usize, now_ms: u64) -> Option<u64> {
    (0..times).filter_map(|_| backend.record_failure(now_ms)).last()
}

#[test]
fn five_failures_in_a_row_eject_for_longer_each_time() {
    let (_upstream, members) = upstream(0, &[0, 0]);
    assert_eq!(fail(&members[0], 4, 0), None);
    members[0].record_success();
    assert_eq!(fail(&members[0], 4, 0), None);
    let mut now = 1_000;
    for seconds in [10, 20, 40, 80, 160, 300, 300] {
        let until = fail(&members[0], 5, now);
        assert_eq!(until, Some(now + seconds * 1_000));
        assert_eq!(members[0].standing(now), Standing::Ejected);
        assert_eq!(fail(&members[0], 20, now), None, "late failures prove nothing new");
        now += seconds * 1_000;
        assert_eq!(members[0].standing(now), Standing::Primary);
        assert_eq!(members[0].ramp_start_ms(), Some(now));
    }
    now += 2 * 60_000;
    assert_eq!(fail(&members[0], 5, now), Some(now + 80_000), "two minutes in service take two doublings back");
    now += 80_000 + 10 * 60_000;
    assert_eq!(fail(&members[0], 5, now), Some(now + 10_000));
}

#[test]
fn at_most_half_of_an_upstream_is_ejected() {
    let (_upstream, members) = upstream(0, &[0; 5]);
    let ejected: Vec<_> = members.iter().map(|member| fail(member, 5, 0).is_some()).collect();
    assert_eq!(ejected, [true, true, false, false, false]);
    // The bound is asked again as long as it goes on failing.
    assert_eq!(fail(&members[2], 4, 10_000), None);
    assert_eq!(fail(&members[2], 1, 10_000), Some(20_000));
    let (_upstream, alone) = upstream(0, &[0]);
    assert_eq!(fail(&alone[0], 100, 0), None);
}

#[test]
fn a_reload_keeps_the_bound_on_ejections() {
    let (upstream, members) = upstream(0, &[0; 4]);
    assert_eq!(fail(&members[1], 5, 1_000), Some(11_000));
    assert_eq!(fail(&members[0], 5, 2_000), Some(12_000));
    upstream.set_members(members[..2].to_vec(), 3_000);
    assert_eq!([&members[0], &members[1]].map(|member| member.is_ejected(3_000)), [true, false]);
    assert_eq!(members[1].ramp_start_ms(), Some(3_000));
}

#[test]
fn an_ejections_end_is_noticed_by_time_alone() {
    let (upstream, members) = upstream(10, &[1, 1]);
    assert_eq!(fail(&members[0], 5, 0), Some(10_000));
    let _slot = take(&members[1]);
    let mut waiter = upstream.join(1).expect("a place");
    upstream.offer(9_999);
    assert!(poll(&mut waiter).is_pending());
    upstream.offer(10_000);
    let first = granted(&mut waiter);
    assert!(Arc::ptr_eq(first.backend(), &members[0]));
}

#[test]
fn reports_keep_their_value_and_time() {
    let (_upstream, members) = upstream(0, &[0]);
    assert_eq!(members[0].load(), None);
    let at_ms = 30 * 365 * 86_400_000;
    members[0].update_load(|known| {
        assert_eq!(known, None);
        LoadReport { utilisation: 0.375, at_ms }
    });
    members[0].update_load(|known| {
        let known = known.expect("the first report");
        assert_eq!(known.at_ms, at_ms);
        assert!((known.utilisation - 0.375).abs() < 1e-6);
        LoadReport { utilisation: 1.5, at_ms: 0 }
    });
    assert_eq!(members[0].load(), Some(LoadReport { utilisation: 1.0, at_ms: 1 }));
}

#[test]
fn a_failed_resolution_keeps_the_last_addresses() {
    let (_upstream, members) = upstream(0, &[0]);
    assert!(members[0].addresses().is_empty());
    let addresses = vec!["192.0.2.1:80".parse().expect("an address")];
    members[0].set_addresses(addresses.clone());
    members[0].set_addresses(Vec::new());
    assert_eq!(**members[0].addresses(), addresses);
}

#[test]
fn totals_sum_what_workers_count() {
    let workers = [Arc::new(WorkerStats::default()), Arc::new(WorkerStats::default())];
    workers[0].requests.add(3);
    workers[1].requests.inc();
    // Begun at one worker, ended at the other.
    workers[0].connections_active.inc();
    workers[1].connections_active.dec();
    for status in [200, 204, 304, 503, 99, 600] {
        workers[0].statuses.count(status);
    }
    workers[1].statuses.count(100);
    workers[1].reasons.count(Reason::QueueFull);
    let totals = Totals::sum(&workers);
    assert_eq!((totals.requests, totals.connections_active), (4, 0));
    assert_eq!(totals.statuses.0, [1, 2, 1, 0, 1]);
    assert_eq!(totals.reasons.of(Reason::QueueFull), 1);
    assert_eq!(totals.reasons.0.iter().sum::<u64>(), 1);
    let one = Arc::new(BackendStats::default());
    one.bytes_in.add(7);
    assert_eq!(BackendTotals::sum(&[one]).bytes_in, 7);
}

/// What one client of [`Sim`] has.
enum Client {
    Waiting(usize, Waiter),
    Served(#[expect(dead_code, reason = "held for its drop")] Granted),
}

#[derive(Clone, Debug)]
enum Step {
    Arrive,
    Poll(usize),
    Leave(usize),
    Limit(usize, u32),
    Mark(usize, Mark, bool),
    Fail(usize),
    Members(u8),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let mark = prop_oneof![Just(Mark::Inactive), Just(Mark::Backup), Just(Mark::CheckDown), Just(Mark::Disconnected)];
    let step = prop_oneof![
        8 => Just(Step::Arrive),
        6 => any::<usize>().prop_map(Step::Poll),
        6 => any::<usize>().prop_map(Step::Leave),
        2 => (0..3usize, 1..4u32).prop_map(|(i, limit)| Step::Limit(i, limit)),
        2 => (0..3usize, mark, any::<bool>()).prop_map(|(i, mark, on)| Step::Mark(i, mark, on)),
        1 => (0..3usize).prop_map(Step::Fail),
        1 => (0..8u8).prop_map(Step::Members),
        1 => (0..15_000u64).prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 1..120)
}

/// One thread plays all parts, so that after each step the queue's promise can be checked to the letter.
struct Sim {
    upstream: Arc<UpstreamState>,
    backends: Vec<Arc<BackendState>>,
    members: u8,
    clients: Vec<Client>,
    arrivals: usize,
    now_ms: u64,
}

impl Sim {
    fn new() -> Self {
        let (upstream, backends) = upstream(6, &[1, 2, 1]);
        Sim { upstream, backends, members: 0b111, clients: Vec::new(), arrivals: 0, now_ms: 0 }
    }

    fn members(&self) -> Vec<Arc<BackendState>> {
        (0..3).filter(|i| self.members >> i & 1 == 1).map(|i| Arc::clone(&self.backends[i])).collect()
    }

    fn in_flight(&self) -> Vec<u32> {
        self.backends.iter().map(|backend| backend.in_flight()).collect()
    }

    fn step(&mut self, step: Step) {
        let before = self.in_flight();
        match step {
            Step::Arrive => self.arrive(),
            Step::Poll(i) if !self.clients.is_empty() => self.poll(i % self.clients.len()),
            Step::Leave(i) if !self.clients.is_empty() => drop(self.clients.remove(i % self.clients.len())),
            Step::Poll(_) | Step::Leave(_) => {}
            Step::Limit(i, limit) => self.backends[i].set_limit(limit, self.now_ms),
            Step::Mark(i, mark, on) => self.backends[i].set_mark(mark, on, self.now_ms),
            Step::Fail(i) => drop(fail(&self.backends[i], 5, self.now_ms)),
            Step::Members(members) => {
                self.members = members;
                self.upstream.set_members(self.members(), self.now_ms);
            }
            Step::Pass(ms) => {
                self.now_ms += ms;
                self.upstream.offer(self.now_ms);
            }
        }
        self.check();
        for (backend, before) in self.backends.iter().zip(before) {
            let occupancy = backend.occupancy();
            assert!(occupancy.in_flight() <= before.max(occupancy.limit()), "above the limit: {occupancy:?}");
        }
    }

    fn arrive(&mut self) {
        let members = self.members();
        let best = Standing::best(members.iter().map(|member| &**member), self.now_ms);
        let usable = members.iter().filter(|member| member.standing(self.now_ms) == best);
        let client = usable.clone().find_map(|member| Slot::try_acquire(Arc::clone(member)).ok()).map(Client::Served);
        let client = client.or_else(|| {
            let waiter = self.upstream.join(self.now_ms).ok()?;
            self.arrivals += 1;
            Some(Client::Waiting(self.arrivals, waiter))
        });
        self.clients.extend(client);
    }

    fn poll(&mut self, i: usize) {
        let Client::Waiting(arrival, waiter) = &mut self.clients[i] else { return };
        let arrival = *arrival;
        match poll(waiter) {
            Poll::Pending => {}
            Poll::Ready(Err(NoBackend)) => drop(self.clients.remove(i)),
            Poll::Ready(Ok(slot)) => {
                self.clients[i] = Client::Served(slot);
                self.check_order(arrival);
            }
        }
    }

    /// Whoever came before a served one was served, too.
    fn check_order(&mut self, arrival: usize) {
        for client in &mut self.clients {
            if let Client::Waiting(earlier, waiter) = client
                && *earlier < arrival
            {
                let outcome = poll(waiter);
                assert!(outcome.is_ready(), "{earlier} was overtaken by {arrival}");
                if let Poll::Ready(Ok(slot)) = outcome {
                    *client = Client::Served(slot);
                }
            }
        }
    }

    fn check(&self) {
        let members = self.members();
        let waiting = self.upstream.waiting();
        let best = Standing::best(members.iter().map(|member| &**member), self.now_ms);
        assert!(waiting == 0 || best != Standing::Out, "waiting for nothing");
        for member in &members {
            let occupancy = member.occupancy();
            assert_eq!(occupancy.has_waiters(), waiting > 0);
            let stranded = waiting > 0 && member.standing(self.now_ms) == best && occupancy.free() > 0;
            assert!(!stranded, "a free slot and a waiter");
        }
        let ejected = members.iter().filter(|member| member.is_ejected(self.now_ms)).count();
        assert!(ejected <= members.len() / 2, "{ejected} ejected of {}", members.len());
        let served = self.clients.iter().filter(|client| matches!(client, Client::Served(_))).count();
        let in_flight = self.in_flight().into_iter().sum::<u32>() as usize;
        assert!(served <= in_flight && in_flight <= self.clients.len(), "{served} {in_flight}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_step_strands_a_waiter_or_loses_a_slot(steps in steps()) {
        let mut sim = Sim::new();
        steps.into_iter().for_each(|step| sim.step(step));
        sim.clients.clear();
        prop_assert!(sim.backends.iter().all(|backend| is_idle(backend)));
    }
}

/// Wakes a thread.
struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for `waiter` on this thread; who is stranded fails loudly instead of hanging the run.
fn block_on(waiter: Waiter) -> Result<Granted, NoBackend> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut waiter = pin!(waiter);
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Poll::Ready(outcome) = waiter.as_mut().poll(&mut Context::from_waker(&waker)) {
            return outcome;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "stranded in the queue");
        thread::park_timeout(left);
    }
}

/// One request of a stress worker: a slot at once or by waiting, or sometimes a change of mind.
fn request(upstream: &Arc<UpstreamState>, members: &[Arc<BackendState>], rng: &mut fastrand::Rng) -> Option<Granted> {
    if let Some(slot) = members.iter().find_map(|member| Slot::try_acquire(Arc::clone(member)).ok()) {
        return Some(slot);
    }
    let mut waiter = upstream.join(0).ok()?;
    if rng.u8(..4) == 0 {
        let _ = poll(&mut waiter);
        return None;
    }
    block_on(waiter).ok()
}

const STRESS_THREADS: usize = 4;
const STRESS_REQUESTS: usize = 20_000;

#[test]
fn under_contention_the_limit_holds_and_nobody_is_stranded() {
    const LIMITS: [u32; 2] = [1, 2];
    let (upstream, members) = upstream(STRESS_THREADS, &LIMITS);
    let inside: [AtomicU32; 2] = Default::default();
    thread::scope(|scope| {
        for seed in 0..STRESS_THREADS as u64 {
            let (upstream, members, inside) = (&upstream, &members, &inside);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(seed);
                for _ in 0..STRESS_REQUESTS {
                    let Some(slot) = request(upstream, members, &mut rng) else { continue };
                    let i = members.iter().position(|member| Arc::ptr_eq(member, slot.backend())).expect("a member");
                    let now_inside = inside[i].fetch_add(1, Ordering::SeqCst) + 1;
                    assert!(now_inside <= LIMITS[i], "{now_inside} inside of {}", LIMITS[i]);
                    if rng.u8(..8) == 0 {
                        thread::yield_now();
                    }
                    inside[i].fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert!(members.iter().all(|member| is_idle(member)));
    assert_eq!(upstream.waiting(), 0);
}

#[test]
fn changes_under_contention_strand_nobody() {
    let (upstream, members) = upstream(STRESS_THREADS, &[1, 1]);
    let running = AtomicBool::new(true);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..STRESS_THREADS as u64)
            .map(|seed| {
                let (upstream, members) = (&upstream, &members);
                scope.spawn(move || {
                    let mut rng = fastrand::Rng::with_seed(seed);
                    (0..STRESS_REQUESTS).for_each(|_| drop(request(upstream, members, &mut rng)));
                })
            })
            .collect();
        scope.spawn(|| {
            let mut rng = fastrand::Rng::with_seed(99);
            while running.load(Ordering::Relaxed) {
                let member = &members[rng.usize(..2)];
                match rng.u8(..4) {
                    0 => member.set_limit(rng.u32(1..3), 0),
                    1 => member.set_mark(Mark::CheckDown, rng.bool(), 0),
                    2 => upstream.set_members(members[rng.usize(..3)..].to_vec(), 0),
                    _ => thread::yield_now(),
                }
            }
        });
        let outcomes: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        running.store(false, Ordering::Relaxed);
        assert!(outcomes.iter().all(Result::is_ok), "a worker failed");
    });
    assert!(members.iter().all(|member| is_idle(member)));
}
