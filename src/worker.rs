//! A worker: one thread, one runtime, its listeners, its connections.
//!
//! Owns the thread's loops: waking parked connections, ticking, obeying control; accepting is `accept`'s. Never
//! touches a request.

mod accept;

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::LocalSet;

use crate::balance::rng::Rng;
use crate::handover::{Doors, Inside};
use crate::listen::given::Share;
use crate::park::shelf::Size;
use crate::park::{WAKE_BATCH, Waiting};
use crate::proxy::client::Client;
use crate::proxy::local::Local;
use crate::proxy::log::Sink;
use crate::shared::command::{Command, Published};
use crate::shared::open::OpenCount;
use crate::shared::stats::WorkerStats;
use crate::upstream::view::View;
use crate::wheel::{TICK, ticks};
use accept::Listeners;

/// Parked connections closed for age in one tick, so that a million that age together do not stall the others.
const EXPIRE_BATCH: usize = 8192;
/// Ticks between two sweeps of idle backend connections and spare buffers.
const SWEEP_TICKS: u32 = 10;
/// Tasks that surely run in one pass of the loop.
const CUT_BATCH: usize = 16;
/// How long a draining worker stays at least, in ticks: another may have handed it a connection a moment before.
const HANDED_TICKS: u32 = 2;
/// How long exchanges with a backend that is cut off are looked for, in ticks; control says it again if that was too short.
const CUT_TICKS: u32 = 20;

/// Whose descriptor table a worker uses.
#[derive(Debug)]
pub enum Table {
    /// The process's.
    Shared,
    /// One of its own: what main had opened under the numbers in `kept` stays, and this worker's listeners.
    Private { kept: Arc<[RawFd]> },
}

/// What a worker is made of; put together by `server`.
#[derive(Debug)]
pub struct Setup {
    /// Its index.
    pub id: usize,
    /// How many workers there are.
    pub workers: usize,
    /// Where it runs.
    pub cpu: Option<usize>,
    /// Its descriptor table.
    pub table: Table,
    /// Its own listening sockets, each with its slot.
    pub listeners: Vec<(u16, OwnedFd)>,
    /// What it has of the sockets that a service manager gave.
    pub given: Vec<Share>,
    /// What it routes by at first.
    pub published: Arc<Published>,
    /// Its counters.
    pub stats: Arc<WorkerStats>,
    /// Client connections of the whole process.
    pub open: Arc<OpenCount>,
    /// How many parked connections may be without a descriptor.
    pub shelf: Size,
    /// The doors of all workers, and the inside of its own.
    pub doors: Arc<Doors>,
    /// See `doors`.
    pub inside: OwnedFd,
    /// What it is told.
    pub commands: UnboundedReceiver<Command>,
    /// Passed once all workers have their tables.
    pub barrier: Arc<Barrier>,
}

/// Runs a worker until it was told to end. The body of its thread.
///
/// # Errors
/// When its table or its event loop cannot be set up; nothing was accepted then.
pub fn run(setup: Setup, runtime: Runtime, ready: &std::sync::mpsc::Sender<io::Result<()>>) {
    crate::sys::block_signals_on_this_thread();
    if let Some(cpu) = setup.cpu
        && let Err(error) = crate::sys::pin_to_cpu(cpu)
    {
        tracing::warn!(worker = setup.id, cpu, %error, "cannot run on this CPU; see server.cpu_affinity");
    }
    let taken = match &setup.table {
        Table::Shared => Ok(()),
        Table::Private { kept } => {
            let listeners = setup.listeners.iter().map(|(_, socket)| socket.as_fd());
            let own: Vec<_> = listeners.chain(setup.given.iter().map(|share| share.socket.as_fd())).collect();
            crate::sys::take_own_table(kept, &own)
        }
    };
    // Nobody opens anything before all tables are apart: what is opened now would be copied into others.
    setup.barrier.wait();
    if let Err(error) = taken {
        let _ = ready.send(Err(error));
        return;
    }
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, serve(setup, ready));
    // Before the runtime: what is still open closes now.
    drop(tasks);
}

async fn serve(setup: Setup, ready: &std::sync::mpsc::Sender<io::Result<()>>) {
    let Setup {
        id, workers, cpu, published, stats, open, shelf, mut commands, listeners, given, doors, inside, ..
    } = setup;
    let mut rng = Rng::new(fastrand::u64(..));
    let view = View::new(&published, id, workers, None, &mut rng);
    let addrs = published.plan.server.listen.iter().enumerate();
    let of_given = addrs.filter(|(_, listen)| given.iter().any(|share| share.addr == listen.addr));
    let of_given: Vec<_> =
        of_given.map(|(at, listen)| (crate::listen::slot(at as u16, listen.secure), listen.addr.clone())).collect();
    // Held on to, the first plan would live as long as the worker.
    drop(published);
    let started = Local::new(id, workers, view, stats, open.clone(), shelf, rng).and_then(|local| {
        let mut open = Listeners::new(Rc::new(local), cpu, (doors.clone(), open), given);
        for (slot, fd) in listeners {
            open.open(slot, fd)?;
        }
        for (slot, addr) in of_given {
            open.open_given(slot, &addr)?;
        }
        Ok((open, Inside::new(inside)?))
    });
    let (mut listeners, inside) = match started {
        Ok(started) => started,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    let local = listeners.local().clone();
    tokio::task::spawn_local(accept::take_in(local.clone(), inside, doors));
    tokio::task::spawn_local(wake_parked(local.clone()));
    let turns = local.clone();
    tokio::task::spawn_local(async move {
        tokio::join!(turns.turns.deal(), turns.handshakes.deal(), turns.backend_handshakes.deal())
    });
    let _ = ready.send(Ok(()));
    let mut clock = tokio::time::interval(TICK);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut drain: Option<Drain> = None;
    let began = Instant::now();
    loop {
        tokio::select! {
            biased;
            command = commands.recv() => match command {
                Some(Command::Publish(published, _done)) => {
                    publish(&local, &published);
                    listeners.retune();
                }
                Some(Command::Listen { done, .. }) if drain.is_some() => {
                    let _ = done.send(Err(io::Error::other("the proxy is shutting down and accepts nobody new")));
                }
                Some(Command::Listen { slot, opening, done }) => {
                    let _ = done.send(listeners.listen(slot, &opening));
                }
                Some(Command::EndListening(slot)) => listeners.close(slot),
                Some(Command::Cut) => cut_off(&local),
                Some(Command::Access(sink)) => {
                    let before = std::mem::replace(&mut *local.access.borrow_mut(), sink.map(Sink::new));
                    before.into_iter().for_each(|mut before| before.flush(&local));
                }
                Some(Command::Drain) if drain.is_none() => {
                    listeners.close_all();
                    drain = Some(Drain::begin(&local));
                },
                Some(Command::Drain) => {}
                Some(Command::Stop) | None => break,
            },
            _ = clock.tick() => {
                tick(&local, (began.elapsed().as_millis() / TICK.as_millis()) as u32);
                if drain.as_mut().is_some_and(|drain| drain.step(&local)) {
                    break;
                }
            }
        }
    }
    cut(&local).await;
    if let Some(sink) = local.access.borrow_mut().as_mut() {
        sink.flush(&local);
    }
}

/// Lets whatever still runs notice that it is cut, so that it is counted and logged as such and no cut answer ends as a
/// whole one would. As many passes of the loop as that takes at most; who is not through then ends unsaid.
async fn cut(local: &Local) {
    local.draining.set(true);
    local.ending.set(true);
    local.wheel.wake_all();
    let tasks = local.clients() - local.lot.borrow().len();
    for _ in 0..tasks.div_ceil(CUT_BATCH) + CUT_BATCH {
        if local.clients() <= local.lot.borrow().len() {
            break;
        }
        tokio::task::yield_now().await;
    }
}

fn publish(local: &Local, published: &Published) {
    let before = local.view();
    let view = View::new(published, local.id, local.workers, Some(&before), &mut local.rng.borrow_mut());
    view.close_pools_of_gone(&before);
    local.set_view(view);
}

/// Lets every exchange and tunnel see whether its backend has been cut off.
fn cut_off(local: &Local) {
    local.is_cutting.set(true);
    local.cutting_until.set(local.wheel.now().saturating_add(CUT_TICKS));
    local.wheel.wake_all();
}

fn tick(local: &Rc<Local>, now: u32) {
    local.stats.pulse.inc();
    local.wheel.advance_to(now);
    local.tick();
    let view = local.view();
    let server = &view.server;
    let before = |patience: Duration| now.saturating_sub(ticks(patience));
    let mut lot = local.lot.borrow_mut();
    let mut left = lot.expire(Waiting::Next, before(server.idle_timeout), EXPIRE_BATCH);
    for waiting in [Waiting::First, Waiting::Announced] {
        left += lot.expire(waiting, before(server.read_timeout), EXPIRE_BATCH);
    }
    let in_table = (local.clients() - lot.shelved()) as u64;
    let is_short = lot.has_due() && local.open.room_in_table(in_table) == 0;
    if is_short && lot.shelve(WAKE_BATCH) == 0 && !local.idlers.is_leaving() {
        local.idlers.ask(1);
    }
    lot.rouse();
    local.stats.connections_parked.set(lot.len() as u64);
    local.stats.connections_shelved.set(lot.shelved() as u64);
    drop(lot);
    local.uncount(left);
    accept::make_room_for_others(local);
    if now >= local.cutting_until.get() {
        local.is_cutting.set(false);
    }
    if now.is_multiple_of(SWEEP_TICKS) {
        local.trim();
        local.measure();
        view.upstreams.iter().for_each(|upstream| upstream.hand_in_requests(local.now_ms()));
        for (upstream, backend) in view.backends() {
            let since = before(upstream.conf.keepalive_timeout);
            backend.follow_addresses(now);
            backend.pool.sweep(since);
            backend.trunks.sweep(if upstream.keepalive > 0 { since } else { u32::MAX });
        }
    }
}

async fn wake_parked(local: Rc<Local>) {
    let mut woken = Vec::new();
    loop {
        let room = |local: &Local| local.open.room_in_table(local.in_table()) as usize;
        let ended = match poll_fn(|cx| {
            let room = room(&local);
            local.lot.borrow_mut().poll_wake(cx, room, &mut woken)
        })
        .await
        {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!(worker = local.id, %error, "the parking lot failed");
                return;
            }
        };
        local.uncount(ended);
        for mut parked in woken.drain(..) {
            let seat = local.resume_seat(parked.berth.take());
            if let Ok(client) = Client::new(parked, true, seat, &local) {
                client.spawn();
            }
        }
        tokio::task::yield_now().await;
    }
}

/// The way out.
struct Drain {
    earliest: u32,
    idle_at: u32,
    end_at: u32,
}

impl Drain {
    /// After listening has ended.
    fn begin(local: &Rc<Local>) -> Drain {
        local.draining.set(true);
        // Who speaks HTTP/2 is told at once.
        local.wheel.wake_all();
        let timeout = local.view().server.shutdown_timeout;
        let now = local.wheel.now();
        let end_at = now + ticks(timeout);
        Drain { earliest: end_at.min(now + HANDED_TICKS), idle_at: now + ticks(timeout / 2), end_at }
    }

    /// One tick of it; true when all is done.
    fn step(&mut self, local: &Rc<Local>) -> bool {
        let now = local.wheel.now();
        if now >= self.idle_at {
            if !local.closing_idle.replace(true) {
                local.wheel.wake_all();
            }
            // Paced, so that the clients of a million connections do not all come back in one moment.
            let ticks_left = self.end_at.saturating_sub(now).max(2) / 2;
            let share = local.lot.borrow().len().div_ceil(ticks_left.max(1) as usize);
            let evicted = local.lot.borrow_mut().evict(share);
            local.uncount(evicted);
        }
        (local.clients() == 0 && now >= self.earliest) || now >= self.end_at
    }
}
