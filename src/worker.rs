//! A worker: one thread, one runtime, its listeners, its connections.
//!
//! Owns the thread's loops: accepting, waking parked connections, ticking, obeying control. Never touches a request.

use std::future::poll_fn;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::LocalSet;

use crate::balance::rng::Rng;
use crate::handover::{Doors, Handed, Inside};
use crate::listen::Listener;
use crate::park::{Parked, Waiting};
use crate::proxy::client::Client;
use crate::proxy::local::Local;
use crate::proxy::log::Sink;
use crate::shared::command::{Command, Published};
use crate::shared::open::OpenCount;
use crate::shared::stats::WorkerStats;
use crate::upstream::view::View;
use crate::wheel::{TICK, ticks};

/// Connections accepted in one go; then other tasks get their turn.
const ACCEPT_BATCH: usize = 64;
/// Parked connections closed for age in one tick, so that a million that age together do not stall the others.
const EXPIRE_BATCH: usize = 8192;
/// Ticks between two sweeps of idle backend connections and spare buffers.
const SWEEP_TICKS: u32 = 10;
/// How long a draining worker stays at least, in ticks: another may have handed it a connection a moment before.
const HANDED_TICKS: u32 = 2;
/// Idle connections closed at once to make room when descriptors or memory have run out.
const ROOM_BATCH: usize = 16;
/// Of its parked connections a worker closes one in so many, and no more than [`ROOM_BATCH`], for another worker's clients.
const YIELD_DIVISOR: usize = 64;

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
    /// By index of the listen address.
    pub listeners: Vec<OwnedFd>,
    /// What it routes by at first.
    pub published: Arc<Published>,
    /// Its counters.
    pub stats: Arc<WorkerStats>,
    /// Client connections of the whole process.
    pub open: Arc<OpenCount>,
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
        Table::Private { kept } => crate::sys::take_own_table(kept, &setup.listeners),
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
    let Setup { id, workers, published, stats, open, mut commands, listeners, doors, inside, .. } = setup;
    let mut rng = Rng::new(fastrand::u64(..));
    let view = View::new(&published, id, workers, None, &mut rng);
    // Held on to, the first plan would live as long as the worker.
    drop(published);
    let started = Local::new(id, workers, view, stats, open.clone(), rng).and_then(|local| {
        let listeners =
            listeners.into_iter().map(|fd| Listener::new(fd).map(Rc::new)).collect::<io::Result<Vec<_>>>()?;
        Ok((Rc::new(local), listeners, Inside::new(inside)?))
    });
    let (local, listeners, inside) = match started {
        Ok(started) => started,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    for (index, listener) in listeners.iter().enumerate() {
        let door = (doors.clone(), open.clone());
        tokio::task::spawn_local(accept(local.clone(), listener.clone(), index as u16, door));
    }
    tokio::task::spawn_local(take_in(local.clone(), inside, doors));
    tokio::task::spawn_local(wake_parked(local.clone()));
    let turns = local.clone();
    tokio::task::spawn_local(async move { turns.turns.deal().await });
    let _ = ready.send(Ok(()));
    let mut clock = tokio::time::interval(TICK);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut drain: Option<Drain> = None;
    let began = Instant::now();
    loop {
        tokio::select! {
            biased;
            command = commands.recv() => match command {
                Some(Command::Publish(published, _done)) => publish(&local, &published),
                Some(Command::Access(sink)) => {
                    let before = std::mem::replace(&mut *local.access.borrow_mut(), sink.map(Sink::new));
                    before.into_iter().for_each(|mut before| before.flush(&local));
                }
                Some(Command::Drain) if drain.is_none() => drain = Some(Drain::begin(&local, &listeners)),
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
    if let Some(sink) = local.access.borrow_mut().as_mut() {
        sink.flush(&local);
    }
}

fn publish(local: &Local, published: &Published) {
    let before = local.view();
    let view = View::new(published, local.id, local.workers, Some(&before), &mut local.rng.borrow_mut());
    view.close_pools_of_gone(&before);
    local.set_view(view);
}

fn tick(local: &Rc<Local>, now: u32) {
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
    local.stats.connections_parked.set(lot.len() as u64);
    drop(lot);
    local.uncount(left);
    make_room_for_others(local);
    if now.is_multiple_of(SWEEP_TICKS) {
        local.trim();
        local.measure();
        view.upstreams.iter().for_each(|upstream| upstream.hand_in_requests(local.now_ms()));
        for (upstream, backend) in view.backends() {
            backend.pool.sweep(before(upstream.conf.keepalive_timeout));
        }
    }
}

async fn accept(
    local: Rc<Local>,
    listener: Rc<Listener>,
    listener_index: u16,
    (doors, open): (Arc<Doors>, Arc<OpenCount>),
) {
    loop {
        for _ in 0..ACCEPT_BATCH {
            make_room(&local, &listener, &open).await;
            match poll_fn(|cx| listener.poll_accept(cx)).await {
                Ok((fd, peer)) => {
                    let handed = Handed { fd, peer, listener: listener_index };
                    // Refused, it stays: the other worker has not taken in the last ones yet.
                    let kept = match doors.better_than(local.id).filter(|_| !local.draining.get()) {
                        Some(to) => doors.hand(to, handed).err(),
                        None => Some(handed),
                    };
                    kept.into_iter().for_each(|handed| admit(&local, handed));
                }
                Err(error) if local.draining.get() => {
                    tracing::debug!(%error, "listener ended");
                    return;
                }
                // Of a Unix socket that all workers share, another has ended the listening already.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return,
                Err(error) => {
                    // No descriptor or memory: idle connections make room, else somebody has to leave first.
                    if !local.make_room(ROOM_BATCH) {
                        tracing::warn!(worker = local.id, %error, "accepting pauses");
                        local.pause(2).await;
                    }
                }
            }
            if local.draining.get() {
                return;
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Waits until one more client connection is allowed. For each that knocks, the one that has been parked longest goes;
/// while nobody does, as many as are allowed may stay.
async fn make_room(local: &Rc<Local>, listener: &Listener, open: &OpenCount) {
    while !open.has_room(local.clients() as u64) {
        let knocked = poll_fn(|cx| listener.poll_waiting(cx)).await;
        // A listener that failed says so when it is accepted from.
        if knocked.is_err() || local.draining.get() {
            return;
        }
        if open.has_room(local.clients() as u64) {
            return;
        }
        let evicted = local.lot.borrow_mut().evict(1);
        local.uncount(evicted);
        if evicted == 0 {
            open.want_room(local.clients() as u64);
            local.pause(1).await;
        }
    }
}

/// Closes a few idle connections for another worker's client: the kernel may have sent it to where nobody is idle.
fn make_room_for_others(local: &Local) {
    let parked = local.lot.borrow().len();
    if parked > 0 && local.open.take_want() {
        let evicted = local.lot.borrow_mut().evict(parked.div_ceil(YIELD_DIVISOR).min(ROOM_BATCH));
        local.uncount(evicted);
    }
}

/// Takes in what other workers hand over.
async fn take_in(local: Rc<Local>, inside: Inside, doors: Arc<Doors>) {
    loop {
        match poll_fn(|cx| inside.poll_take(cx)).await {
            Ok(handed) => admit(&local, handed),
            // A message without its descriptor: this table is full.
            Err(error) if error.kind() == io::ErrorKind::Other => {
                tracing::warn!(worker = local.id, %error, "a connection from another worker was lost");
                local.pause(1).await;
            }
            Err(error) => {
                tracing::error!(worker = local.id, %error, "nothing can be taken over from other workers any more");
                return;
            }
        }
        doors.taken_in(local.id);
    }
}

fn admit(local: &Rc<Local>, Handed { fd, peer, listener }: Handed) {
    local.stats.connections_accepted.inc();
    let seat = local.seat();
    let parked = Parked { fd, peer, listener, waiting: Waiting::First, since: local.wheel.now() };
    if let Ok(client) = Client::new(parked, false, seat, local) {
        client.spawn();
    }
}

async fn wake_parked(local: Rc<Local>) {
    let mut woken = Vec::new();
    loop {
        let ended = match poll_fn(|cx| local.lot.borrow_mut().poll_wake(cx, &mut woken)).await {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!(worker = local.id, %error, "the parking lot failed");
                return;
            }
        };
        local.uncount(ended);
        for parked in woken.drain(..) {
            let seat = local.resume_seat();
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
    /// Takes in who waits in the accept queues, then ends listening.
    fn begin(local: &Rc<Local>, listeners: &[Rc<Listener>]) -> Drain {
        for (index, listener) in listeners.iter().enumerate() {
            while let Ok((fd, peer)) = listener.accept() {
                admit(local, Handed { fd, peer, listener: index as u16 });
            }
            listener.end();
        }
        local.draining.set(true);
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
