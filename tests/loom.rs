//! The slots of a backend and the queue of its upstream, run through every interleaving that loom can tell apart.
//!
//! Compiles `src/shared/{backend,queue}.rs` once more with loom's lock and atomics in the place of `std`'s; each model
//! is small, because what loom visits grows with the power of its steps. A request that is stranded in the queue shows
//! as a deadlock. Never tests what one thread can show: that is `src/shared/tests.rs`.

use std::rc::Rc;
use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::future::block_on;
use loom::model::Builder;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
// What the two files name of the library; its own `shared` gives way to the one below.
use speedmimi::*;

use self::shared::backend::{BackendState, Busy, Mark, Slot};
use self::shared::queue::{NoBackend, UpstreamState, Waiter};
use crate::config::plan;

#[path = "../src/shared"]
#[allow(dead_code, reason = "the models need only a part")]
mod shared {
    pub mod backend;
    pub mod queue;

    /// Stands in for `src/shared/sync.rs`.
    mod sync {
        pub(super) use loom::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
        pub(super) use loom::sync::{Mutex, MutexGuard};
    }
}

/// How often a thread may be interrupted where it could have gone on, unless `LOOM_MAX_PREEMPTIONS` says otherwise.
const PREEMPTIONS_MAX: usize = 3;

type Granted = Slot<Arc<BackendState>>;

fn model(test: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(PREEMPTIONS_MAX));
    builder.check(test);
}

/// Runs `test` with one backend of one slot, which is taken: an upstream, that backend and the slot. All is given back at
/// the end.
fn model_taken(test: impl Fn(&Arc<UpstreamState>, &Arc<BackendState>, Granted) + Sync + Send + 'static) {
    model(move || {
        let (upstream, [backend]) = upstream([1]);
        let slot = take(&backend);
        test(&upstream, &backend, slot);
        assert_idle(&backend);
    });
}

fn upstream<const N: usize>(limits: [u32; N]) -> (Arc<UpstreamState>, [Arc<BackendState>; N]) {
    let upstream = UpstreamState::new(8);
    let members = limits.map(|max_conn| BackendState::new(&upstream, &planned(max_conn)));
    upstream.set_members(members.to_vec(), 0);
    (upstream, members)
}

fn planned(max_conn: u32) -> plan::Backend {
    plan::Backend {
        id: "b".into(),
        name: "b".into(),
        addr: plan::BackendAddr::Name("backend.test".into(), 80),
        weight: 100,
        scheme: plan::Scheme::Http,
        active: true,
        backup: false,
        max_conn,
        health_check: None,
    }
}

fn take(backend: &Arc<BackendState>) -> Granted {
    Slot::try_acquire(Arc::clone(backend)).expect("a free slot")
}

fn join(upstream: &Arc<UpstreamState>) -> Waiter {
    upstream.join(0).expect("a place in the queue")
}

/// What a request does: try, then wait.
fn request(upstream: &Arc<UpstreamState>, backend: &Arc<BackendState>) -> Result<Granted, NoBackend> {
    match Slot::try_acquire(Arc::clone(backend)) {
        Ok(slot) => Ok(slot),
        Err(_) => block_on(join(upstream)),
    }
}

#[track_caller]
fn assert_idle(backend: &BackendState) {
    let occupancy = backend.occupancy();
    assert_eq!((occupancy.in_flight(), occupancy.has_waiters()), (0, false));
}

/// Something that only the holder of the one slot may touch; loom tells when two do, or when one does not see what the
/// other did. An `Rc` can carry it, for loom's threads take turns on one.
struct Exclusive(UnsafeCell<()>);

impl Exclusive {
    fn new() -> Rc<Self> {
        Rc::new(Exclusive(UnsafeCell::new(())))
    }

    fn touch(&self) {
        self.0.with_mut(|_| ());
    }
}

#[test]
fn one_slot_is_one_holder() {
    model(|| {
        let (_upstream, [backend]) = upstream([1]);
        let inside = Exclusive::new();
        let other = {
            let (backend, inside) = (Arc::clone(&backend), Rc::clone(&inside));
            thread::spawn(move || {
                if let Ok(_slot) = Slot::try_acquire(backend) {
                    inside.touch();
                }
            })
        };
        match Slot::try_acquire(Arc::clone(&backend)) {
            Ok(_slot) => inside.touch(),
            Err(busy) => assert_eq!(busy, Busy::Full),
        }
        other.join().expect("the other thread");
        assert_idle(&backend);
    });
}

/// So many requests come as the slot is released; each holds it in turn.
fn queue_behind<const N: usize>() {
    model_taken(|upstream, backend, slot| {
        let inside = Exclusive::new();
        let waiters = [(); N].map(|()| {
            let (upstream, backend, inside) = (Arc::clone(upstream), Arc::clone(backend), Rc::clone(&inside));
            thread::spawn(move || {
                let _slot = request(&upstream, &backend).expect("a backend");
                inside.touch();
            })
        });
        inside.touch();
        drop(slot);
        waiters.into_iter().for_each(|waiter| waiter.join().expect("a waiter"));
    });
}

#[test]
fn a_request_that_queues_as_the_slot_is_released_gets_it() {
    queue_behind::<1>();
}

#[test]
fn two_that_queue_share_one_slot_in_turn() {
    queue_behind::<2>();
}

#[test]
fn the_first_in_line_is_served_first() {
    model_taken(|upstream, _, slot| {
        let first = join(upstream);
        let second = join(upstream);
        let first_served = Arc::new(AtomicBool::new(false));
        let releaser = thread::spawn(move || drop(slot));
        let last = {
            let first_served = Arc::clone(&first_served);
            thread::spawn(move || {
                let _slot = block_on(second).expect("a backend");
                assert!(first_served.load(Ordering::Relaxed), "the second was served first");
            })
        };
        let slot = block_on(first).expect("a backend");
        first_served.store(true, Ordering::Relaxed);
        drop(slot);
        releaser.join().expect("the releaser");
        last.join().expect("the second");
    });
}

#[test]
fn nobody_overtakes_a_waiter() {
    model_taken(|upstream, backend, slot| {
        let waiter = join(upstream);
        let releaser = thread::spawn(move || drop(slot));
        // Before the release there is a waiter, after it the slot is the waiter's: never one to take in between.
        assert!(backend.try_acquire().is_err());
        drop(block_on(waiter).expect("a backend"));
        releaser.join().expect("the releaser");
    });
}

#[test]
fn a_waiter_that_leaves_as_it_is_served_passes_the_slot_on() {
    model_taken(|upstream, _, slot| {
        let leaving = join(upstream);
        let staying = join(upstream);
        let releaser = thread::spawn(move || drop(slot));
        let leaver = thread::spawn(move || drop(leaving));
        drop(block_on(staying).expect("a backend"));
        releaser.join().expect("the releaser");
        leaver.join().expect("the leaver");
    });
}

#[test]
fn the_last_waiter_to_leave_lets_requests_in_again() {
    model_taken(|upstream, backend, slot| {
        let leaving = join(upstream);
        let leaver = thread::spawn(move || drop(leaving));
        drop(slot);
        leaver.join().expect("the leaver");
        assert_idle(backend);
        drop(take(backend));
    });
}

#[test]
fn a_slot_free_on_either_backend_is_found() {
    model(|| {
        let (upstream, members) = upstream([1, 1]);
        let [first, second] = members.each_ref().map(take);
        let releasers = [thread::spawn(move || drop(first)), thread::spawn(move || drop(second))];
        drop(request(&upstream, &members[0]).expect("a backend"));
        releasers.into_iter().for_each(|releaser| releaser.join().expect("a releaser"));
        members.iter().for_each(|member| assert_idle(member));
    });
}

#[test]
fn a_limit_raised_while_a_request_queues_serves_it() {
    model_taken(|upstream, backend, slot| {
        let raiser = {
            let backend = Arc::clone(backend);
            thread::spawn(move || backend.set_limit(2, 0))
        };
        // The first slot is still out: only the raised limit can serve this.
        drop(request(upstream, backend).expect("a backend"));
        drop(slot);
        raiser.join().expect("the raiser");
    });
}

#[test]
fn a_limit_changed_as_slots_are_released_counts_right() {
    model(|| {
        let (upstream, [backend]) = upstream([2]);
        let (first, second) = (take(&backend), take(&backend));
        let waiter = join(&upstream);
        let changer = {
            let backend = Arc::clone(&backend);
            thread::spawn(move || backend.set_limit(1, 0))
        };
        let releaser = thread::spawn(move || {
            drop(first);
            drop(second);
        });
        let slot = block_on(waiter).expect("a backend");
        changer.join().expect("the changer");
        releaser.join().expect("the releaser");
        assert_eq!(backend.in_flight(), 1);
        assert_eq!(backend.occupancy().check(), Err(Busy::Full));
        drop(slot);
        assert_idle(&backend);
    });
}

#[test]
fn a_backend_that_fails_its_check_lets_its_waiters_go() {
    model_taken(|upstream, backend, slot| {
        let checker = {
            let backend = Arc::clone(backend);
            thread::spawn(move || backend.set_mark(Mark::CheckDown, true, 0))
        };
        assert!(matches!(request(upstream, backend), Err(NoBackend)));
        checker.join().expect("the checker");
        drop(slot);
    });
}

#[test]
fn a_backend_down_and_up_again_is_offered_to_who_waits() {
    model(|| {
        let (upstream, members) = upstream([1, 1]);
        let slots = members.each_ref().map(take);
        members[0].set_mark(Mark::CheckDown, true, 0);
        let [first, second] = slots;
        let checker = {
            let member = Arc::clone(&members[0]);
            thread::spawn(move || member.set_mark(Mark::CheckDown, false, 0))
        };
        let releaser = thread::spawn(move || drop(first));
        // The other slot is still out: only the backend that is back can serve this.
        let waiter = join(&upstream);
        drop(block_on(waiter).expect("a backend"));
        drop(second);
        checker.join().expect("the checker");
        releaser.join().expect("the releaser");
        members.iter().for_each(|member| assert_idle(member));
    });
}

#[test]
fn a_backend_that_leaves_with_a_reload_takes_no_waiter_along() {
    model(|| {
        let (upstream, [old]) = upstream([1]);
        let new = BackendState::new(&upstream, &planned(1));
        let slot = take(&old);
        let reload = {
            let (upstream, new) = (Arc::clone(&upstream), Arc::clone(&new));
            thread::spawn(move || upstream.set_members(vec![new], 0))
        };
        let releaser = thread::spawn(move || drop(slot));
        drop(block_on(join(&upstream)).expect("a backend"));
        reload.join().expect("the reload");
        releaser.join().expect("the releaser");
        assert_idle(&old);
        assert_idle(&new);
    });
}
