//! A running proxy: listeners, workers and control put together.
//!
//! Owns the order in which they start and end. Never reads a file or a signal: that is the command line's.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::admin;
use crate::clock;
use crate::config::document::Document;
use crate::config::plan::{CpuAffinity, FdTables, Listen, ListenAddr, Plan, Server, Workers};
use crate::control::board::Board;
use crate::control::change::ChangeError;
use crate::control::entrance;
use crate::control::registry::Registry;
use crate::control::thread::{Beginning, Control, Done, Limits, Listening, Order};
use crate::control::verb::{Refusal, RefusalKind};
use crate::handover::Doors;
use crate::listen::given::{Given, GivenFault, Share};
use crate::listen::{self, BindError, Bound};
use crate::park::shelf::Size;
use crate::shared::command::{Command, Published};
use crate::shared::open::OpenCount;
use crate::shared::stats::{Totals, WorkerStats};
use crate::tls::{Loaded, Reading};
use crate::worker::{self, Setup, Table};
use crate::{limits, sys};

/// Part of a descriptor table that is kept for backends, logs and management: one in so many.
const RESERVE_SHARE: u64 = 4;
/// What is kept at least and at most, in descriptors.
const RESERVE_MIN: u64 = 64;
const RESERVE_MAX: u64 = 65_536;
/// Of the reserve the shelf may take one in so many, a descriptor a ring, and no more than that many rings.
const RINGS_SHARE: u64 = 4;
const RINGS_MAX: u64 = 1024;
/// Sockets in a ring at most: its table is there as soon as the first is, 8 bytes for each.
const RING_PLACES_MAX: u64 = 32_768;

/// Why the proxy could not start. Nothing is left running then.
#[derive(Debug)]
pub enum StartError {
    /// An address can't be listened on.
    Bind(BindError),
    /// What control needs for the configuration can't be had.
    Change(ChangeError),
    /// The service manager gave sockets that the configuration has no use for.
    Given(Vec<GivenFault>),
    /// The system refused a thread, an event loop, a file.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Bind(error) => error.fmt(f),
            StartError::Change(error) => error.fmt(f),
            StartError::Given(faults) => {
                let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
                f.write_str(&faults.join("; "))
            }
            StartError::System(error) => write!(f, "cannot start: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        StartError::System(error)
    }
}

/// How the descriptors are used, as computed at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// `RLIMIT_NOFILE`, after raising.
    pub limit: u64,
    /// Whether each worker has a table of its own.
    pub is_private: bool,
    /// Client connections a table may hold; the rest is the reserve.
    pub clients_per_table: u64,
    /// Parked ones that each worker may have beside its table.
    pub shelf: Size,
    /// Client connections that all tables and shelves hold.
    pub clients_of_tables: u64,
    /// Client connections in all: `max_conn`, or what the tables hold if that is less.
    pub clients_max: u64,
}

impl Descriptors {
    /// Shares `limit` descriptors a table out. `has_rings`: the system has io_uring, and parked connections need no descriptor.
    pub fn new(limit: u64, server: &Server, workers: usize, has_rings: bool) -> Self {
        let reserve = (limit / RESERVE_SHARE).clamp(RESERVE_MIN, RESERVE_MAX).min(limit / 2);
        let clients_per_table = limit - reserve;
        let is_private = match server.fd_tables {
            FdTables::Auto => clients_per_table < server.max_conn,
            FdTables::Shared => false,
            FdTables::Private => true,
        };
        let tables = if is_private { workers as u64 } else { 1 };
        let shelf = if is_private && has_rings { shelf_size(limit, reserve) } else { Size::NONE };
        let clients_of_tables = clients_per_table.saturating_add(shelf.sockets()).saturating_mul(tables);
        let clients_max = server.max_conn.min(clients_of_tables);
        Descriptors { limit, is_private, clients_per_table, shelf, clients_of_tables, clients_max }
    }
}

fn shelf_size(limit: u64, reserve: u64) -> Size {
    Size { places: limit.min(RING_PLACES_MAX) as u32, rings: (reserve / RINGS_SHARE).min(RINGS_MAX) as u32 }
}

/// What a proxy starts with.
#[derive(Debug)]
pub struct Start {
    /// The configuration.
    pub document: Document,
    /// The file it was read from, with its text; `None`: changes are kept nowhere.
    pub file: Option<(PathBuf, String)>,
    /// Listening sockets that a service manager gave.
    pub given: Given,
}

impl From<Document> for Start {
    fn from(document: Document) -> Self {
        Start { document, file: None, given: Given::default() }
    }
}

/// A running proxy. Dropping it ends it at once.
#[derive(Debug)]
pub struct Handle {
    descriptors: Descriptors,
    board: Arc<Board>,
    management: Option<SocketAddr>,
    orders: Option<UnboundedSender<Order>>,
    workers: Vec<JoinHandle<()>>,
    /// Control and management.
    beside: Vec<JoinHandle<()>>,
}

/// Starts a proxy; returns once it accepts connections.
///
/// With private descriptor tables, what this process has open at the call stays open in every worker's table: open
/// nothing that has to be seen closing before it, and everything else after it.
///
/// # Errors
/// [`StartError`]; nothing is left running.
pub fn start(start: impl Into<Start>) -> Result<Handle, StartError> {
    let Start { document, file, given } = start.into();
    let plan = document.plan();
    let cpus = sys::allowed_cpus();
    let workers = match plan.server.workers {
        Workers::Auto => cpus.len().clamp(1, limits::WORKERS_COUNT_MAX),
        Workers::Count(n) => n.clamp(1, limits::WORKERS_COUNT_MAX),
    };
    let unmatched = given.unmatched(&plan.server.listen);
    if !unmatched.is_empty() {
        return Err(StartError::Given(unmatched));
    }
    let descriptors = Descriptors::new(sys::descriptor_limit(), &plan.server, workers, sys::ring::Ring::is_available());
    let runtimes = (0..workers).map(|_| runtime()).collect::<io::Result<Vec<_>>>()?;
    let (control_runtime, management_runtime) = (runtime()?, runtime()?);
    let stats: Vec<Arc<WorkerStats>> = (0..workers).map(|_| Arc::default()).collect();
    let (doors, insides) = Doors::new(&stats)?;
    // Everything up to here stays in every table under the same number; of the listeners each worker keeps its own.
    let kept: Arc<[RawFd]> = sys::open_descriptors()?.into();
    let tls = Loaded::load(plan, &Loaded::default(), Reading::All);
    let tls = tls.map_err(|faults| StartError::Change(ChangeError::Tls(faults)))?;
    let mut bound = listen::bind_all(&plan.server, workers, &given).map_err(StartError::Bind)?;
    given.tune(&plan.server)?;
    let shares = given.shares(workers)?;
    let opening = entrance::prepare(plan.management.as_ref(), None);
    let opening = opening.map_err(|error| StartError::Change(ChangeError::Management(error)))?.opening;
    let listening = listening(plan, &mut bound);
    let mut registry = Registry::new(workers);
    let published = Arc::new(registry.apply(&Arc::new(plan.clone()), &tls, clock::now_ms()));
    registry.retire(clock::now_ms());
    let open = Arc::new(OpenCount::new(descriptors.clients_max, descriptors.clients_per_table));
    crate::upstream::sticky::prepare();

    let (senders, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| unbounded_channel()).unzip();
    let base = Base {
        workers,
        cpus,
        descriptors,
        kept,
        published: published.clone(),
        open: open.clone(),
        stats: stats.clone(),
        doors,
    };
    let sockets = Sockets { bound, shares };
    let threads = base.spawn(sockets, runtimes, receivers, insides)?;
    let beginning = Beginning { document: Arc::new(document), file, published, registry, listening, given };
    let limits =
        Limits { clients_of_tables: descriptors.clients_of_tables, tables_are_private: descriptors.is_private };
    let (orders, receiver) = unbounded_channel();
    let (entrances, openings) = unbounded_channel();
    let mut control = Control::new(beginning, limits, senders, open, stats, (orders.downgrade(), entrances));
    let management = control.set_entrance(opening);
    let board = control.board.clone();
    let serving = admin::serve(board.clone(), orders.clone(), openings);
    let serving = spawn_management(management_runtime, serving)?;
    let beside = spawn_control(control, tls, control_runtime, receiver, serving)?;
    Ok(Handle { descriptors, board, management, orders: Some(orders), workers: threads, beside: beside.into() })
}

/// The listeners in the order of the plan; their slots are their places.
fn listening(plan: &Plan, bound: &mut [Bound]) -> Vec<Listening> {
    let all = plan.server.listen.iter().zip(bound).enumerate();
    let listening = |(index, (asked, bound)): (usize, (&Listen, &mut Bound))| Listening {
        slot: listen::slot(index as u16, asked.secure),
        asked: asked.clone(),
        actual: bound.addr.clone(),
        file: bound.file.take().map(Arc::new),
    };
    all.map(listening).collect()
}

/// A runtime whose descriptors exist before any table is unshared.
fn runtime() -> io::Result<Runtime> {
    // Blocking threads are control's only; the name shows whose they are.
    Builder::new_current_thread().enable_all().thread_name("control-blocking").build()
}

/// What the workers listen on.
struct Sockets {
    /// In the order of the plan.
    bound: Vec<Bound>,
    /// Of what was given, by worker.
    shares: Vec<Vec<Share>>,
}

impl Sockets {
    /// Those of each worker, with their slots.
    fn by_worker(self, listen: &[Listen]) -> impl Iterator<Item = (Vec<(u16, OwnedFd)>, Vec<Share>)> {
        let slots = listen.iter().enumerate().map(|(at, listen)| listen::slot(at as u16, listen.secure));
        let mut bound: Vec<_> = slots.zip(self.bound.into_iter().map(|b| b.sockets.into_iter())).collect();
        self.shares.into_iter().map(move |shares| {
            let next = |(slot, sockets): &mut (u16, std::vec::IntoIter<OwnedFd>)| Some((*slot, sockets.next()?));
            (bound.iter_mut().filter_map(next).collect(), shares)
        })
    }
}

/// What all workers are made of.
struct Base {
    workers: usize,
    cpus: Vec<usize>,
    descriptors: Descriptors,
    kept: Arc<[RawFd]>,
    published: Arc<Published>,
    open: Arc<OpenCount>,
    stats: Vec<Arc<WorkerStats>>,
    doors: Arc<Doors>,
}

impl Base {
    fn spawn(
        self,
        sockets: Sockets,
        runtimes: Vec<Runtime>,
        receivers: Vec<UnboundedReceiver<Command>>,
        insides: Vec<OwnedFd>,
    ) -> io::Result<Vec<JoinHandle<()>>> {
        let published = self.published.clone();
        let sockets = sockets.by_worker(&published.plan.server.listen);
        let barrier = Arc::new(Barrier::new(self.workers));
        let (ready, readies) = std::sync::mpsc::channel();
        let mut threads = Vec::with_capacity(self.workers);
        let parts = runtimes.into_iter().zip(receivers).zip(insides).zip(sockets);
        for (id, (((runtime, commands), inside), (listeners, given))) in parts.enumerate() {
            let setup = Setup {
                id,
                workers: self.workers,
                cpu: self.cpu_of(id),
                table: match self.descriptors.is_private {
                    true => Table::Private { kept: self.kept.clone() },
                    false => Table::Shared,
                },
                listeners,
                given,
                published: self.published.clone(),
                stats: self.stats[id].clone(),
                open: self.open.clone(),
                shelf: self.descriptors.shelf,
                doors: self.doors.clone(),
                inside,
                commands,
                barrier: barrier.clone(),
            };
            let ready = ready.clone();
            let thread = std::thread::Builder::new().name(format!("worker-{id}"));
            threads.push(thread.spawn(move || worker::run(setup, runtime, &ready))?);
        }
        drop(ready);
        for _ in 0..self.workers {
            readies.recv().map_err(|_| io::Error::other("a worker ended at its start"))??;
        }
        Ok(threads)
    }

    fn cpu_of(&self, id: usize) -> Option<usize> {
        match &self.published.plan.server.cpu_affinity {
            CpuAffinity::Off => None,
            CpuAffinity::Auto => self.cpus.get(id.checked_rem(self.cpus.len())?).copied(),
            CpuAffinity::List(list) => list.get(id.checked_rem(list.len())?).copied(),
        }
    }
}

/// The thread of management; it ends once control has.
fn spawn_management(
    runtime: Runtime,
    serving: impl Future<Output = ()> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name("management".into());
    thread.spawn(move || {
        runtime.block_on(serving);
        runtime.shutdown_background();
    })
}

/// The thread of control, and that of management, which is handed in, in the order in which they end.
fn spawn_control(
    control: Control,
    tls: Loaded,
    runtime: Runtime,
    orders: UnboundedReceiver<Order>,
    serving: JoinHandle<()>,
) -> Result<[JoinHandle<()>; 2], StartError> {
    let (started, ready) = sync_channel(1);
    let thread = std::thread::Builder::new().name("control".into());
    let thread = thread.spawn(move || {
        control.run(&runtime, tls, orders, &started);
        // Dropped, it would wait for a look-up of a name that hangs.
        runtime.shutdown_background();
    })?;
    let begun = ready.recv().map_err(|_| io::Error::other("control ended at its start"))?;
    if let Err(error) = begun {
        // What it holds, such as the files of Unix sockets, goes with it.
        let _ = thread.join();
        let _ = serving.join();
        return Err(StartError::Change(error));
    }
    Ok([thread, serving])
}

impl Handle {
    /// The addresses listened on, with real ports, in the order of the plan.
    pub fn addresses(&self) -> Arc<Vec<ListenAddr>> {
        self.board.listening()
    }

    /// The `index`-th TCP address listened on.
    pub fn addr(&self, index: usize) -> Option<SocketAddr> {
        let addresses = self.addresses();
        let mut tcp = addresses.iter().filter_map(|addr| match addr {
            ListenAddr::Tcp(addr) => Some(*addr),
            ListenAddr::Unix(_) => None,
        });
        tcp.nth(index)
    }

    /// Where management was served at the start; `None` when it is off.
    pub fn management(&self) -> Option<SocketAddr> {
        self.management
    }

    /// What everybody may look at.
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// How the descriptors are used.
    pub fn descriptors(&self) -> Descriptors {
        self.descriptors
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.board.workers.len()
    }

    /// What all workers have counted.
    pub fn stats(&self) -> Totals {
        Totals::sum(&self.board.workers)
    }

    /// What each worker has counted, by index.
    pub fn worker_stats(&self) -> &[Arc<WorkerStats>] {
        &self.board.workers
    }

    /// Client connections open now.
    pub fn open(&self) -> u64 {
        self.board.open.open()
    }

    /// `server.shutdown_delay` of the configuration in use.
    pub fn shutdown_delay(&self) -> Duration {
        self.board.shown().published.plan.server.shutdown_delay
    }

    /// Runs by `document` from now on; returns once every worker does.
    ///
    /// # Errors
    /// When an address, the access log or management can't be had; nothing was changed then.
    pub fn reload(&self, document: Document) -> Result<Done, Refusal> {
        let (done, result) = sync_channel(1);
        self.order(Order::Run(Box::new(document), done));
        let ended = |_| Refusal::new(RefusalKind::Failed, "control has ended");
        result.recv().map_err(ended)?
    }

    /// Reads the configuration's file again; what comes of it is told in the log.
    pub fn reload_file(&self) {
        // One that waits reads what is there when its turn comes: a storm of signals is one reload.
        if self.board.ask_to_reload() {
            self.order(Order::Reload);
        }
    }

    /// Tells whoever asks that new requests are not welcome any more; serves them all the same.
    pub fn retire(&self) {
        self.order(Order::Retire);
    }

    /// Opens the access log again.
    pub fn reopen_logs(&self) {
        self.order(Order::ReopenLogs);
    }

    /// Stops accepting and lets what runs finish, for `server.shutdown_timeout` at most.
    pub fn drain(&self) {
        self.order(Order::Drain);
    }

    /// A number that moves while it goes on, for control and then for each worker; `None` for a worker that has ended on
    /// the way out.
    pub fn pulses(&self) -> Vec<Option<u64>> {
        let may_end = !self.board.is_ready();
        let workers = self.workers.iter().zip(&self.board.workers);
        let worker = |(thread, stats): (&JoinHandle<()>, &Arc<WorkerStats>)| {
            (!(may_end && thread.is_finished())).then(|| stats.pulse.get())
        };
        std::iter::once(Some(self.board.pulse())).chain(workers.map(worker)).collect()
    }

    /// Whether all workers have ended.
    pub fn is_finished(&self) -> bool {
        self.workers.iter().all(JoinHandle::is_finished)
    }

    /// Ends at once what still runs, and waits for the threads. Returns what was counted to the very end; what was cut
    /// is under [`Reason::Shutdown`](crate::error::Reason::Shutdown).
    pub fn stop(mut self) -> Totals {
        self.end();
        self.stats()
    }

    /// Drains, waits until all is finished, and ends.
    pub fn shutdown(mut self) {
        self.drain();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
        self.end();
    }

    /// Waits for the workers for at most `patience`; true when all have ended.
    pub fn wait(&self, patience: Duration) -> bool {
        let began = std::time::Instant::now();
        while !self.is_finished() {
            if began.elapsed() >= patience {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            let _ = orders.send(order);
        }
    }

    fn end(&mut self) {
        self.order(Order::Stop);
        self.orders = None;
        for thread in self.workers.drain(..).chain(self.beside.drain(..)) {
            let _ = thread.join();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.end();
    }
}
