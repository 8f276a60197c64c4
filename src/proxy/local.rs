//! What one worker thread has at hand: its view of the plan, the shared scratch, spare buffers, the wheel, the lot, its
//! counters and its luck.
//!
//! Owns them; nothing in here is shared with another thread but the counters, which others only read. Never moves a
//! byte of a request itself. Scratch and tables are borrowed for one synchronous step, never over an await.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use super::exchange::Exchange;
use super::http2::idle::Idlers;
use super::log::Sink;
use super::turns::Turns;
use crate::balance::rng::Rng;
use crate::http::head::FieldTable;
use crate::limits::SCRATCH_BYTES;
use crate::park::shelf::Size;
use crate::park::{Berth, Lot};
use crate::shared::open::OpenCount;
use crate::shared::stats::WorkerStats;
use crate::stream::Room;
use crate::upstream::view::View;
use crate::wheel::{Deadline, Wheel};

/// A spare buffer that grew beyond this is not kept, in bytes: it holds a usual head and the default `retry_buffer`.
const SPARE_BYTES_MAX: usize = 20 * 1024;
/// Tasks and kept connections at once that make a burst: about a megabyte of memory.
const BURST_COUNT: usize = 512;
/// Of the descriptors for clients, parked ones keep one in so many where there is a shelf: the others are for who has a task.
const OPEN_DIVISOR: usize = 4;
/// What a new buffer starts with, in bytes: a usual head.
const SPARE_BYTES_MIN: usize = 1024;

/// One worker's belongings.
#[derive(Debug)]
pub struct Local {
    /// Index of the worker.
    pub id: usize,
    /// How many workers there are.
    pub workers: usize,
    /// Deadlines of this worker's tasks.
    pub wheel: Rc<Wheel>,
    /// Idle client connections.
    pub lot: RefCell<Lot>,
    /// Idle client connections that speak HTTP/2.
    pub idlers: Rc<Idlers>,
    /// What is read lands here first: one hot buffer for all connections.
    pub scratch: RefCell<Box<[u8]>>,
    /// Heads are written here before they are sent.
    pub head: RefCell<Vec<u8>>,
    /// Where the parser puts the fields of a head.
    pub fields: RefCell<FieldTable>,
    /// Who begins a request when.
    pub turns: Turns,
    /// Who takes a step of a TLS handshake with a client when.
    pub handshakes: Turns,
    /// Bytes of answers that wait in HTTP/2 streams for their clients.
    pub waiting_bytes: Rc<Cell<usize>>,
    /// The same with backends: clients' requests wait for these, and a flood of new clients is not to hold them up.
    pub backend_handshakes: Turns,
    /// Buffers of all secured connections.
    pub room: Rc<Room>,
    /// Counters that others read.
    pub stats: Arc<WorkerStats>,
    /// Luck.
    pub rng: RefCell<Rng>,
    /// Whether this worker is on its way out: answers carry `Connection: close`.
    pub draining: Cell<bool>,
    /// Whether connections without a request are closed now.
    pub closing_idle: Cell<bool>,
    /// Whether a backend was cut off a moment ago: exchanges look whether it is theirs.
    pub is_cutting: Cell<bool>,
    /// Until which tick they look.
    pub cutting_until: Cell<u32>,
    /// Whether the worker ends now: whatever runs is cut.
    pub ending: Cell<bool>,
    /// Client connections of the whole process.
    pub open: Arc<OpenCount>,
    clients: Cell<usize>,
    // Boxed, as they are handed out: what a task holds is a pointer.
    #[allow(clippy::vec_box)]
    exchanges: RefCell<Vec<Box<Exchange>>>,
    /// Room for a canonical path.
    pub path: RefCell<Vec<u8>>,
    /// The access log, if one is written.
    pub access: RefCell<Option<Sink>>,
    now_ms: Cell<u64>,
    view: RefCell<Rc<View>>,
    spare: RefCell<Spare>,
    /// Bytes of buffers that are in use.
    lent_bytes: Cell<usize>,
    /// Of the tasks of connections.
    pub sizes: Sizes,
    /// Tasks and kept backend connections: the most since memory was given back last, and at the last look.
    held_most: Cell<usize>,
    held_before: Cell<usize>,
    date: RefCell<Date>,
    request_id: Cell<(u64, u64)>,
}

/// How large tasks are, in bytes; 0 until there was one.
#[derive(Debug, Default)]
pub struct Sizes {
    /// That of a client's connection.
    pub connection: Cell<usize>,
    /// That of a tunnel.
    pub tunnel: Cell<usize>,
}

#[derive(Debug, Default)]
struct Spare {
    buffers: Vec<Vec<u8>>,
    /// Fewest spare ones since the last trim: what was never needed.
    unused: usize,
}

#[derive(Debug)]
struct Date {
    text: [u8; 29],
    second: u64,
}

impl Local {
    /// A worker's belongings; call on its own thread, inside its runtime.
    ///
    /// # Errors
    /// When the parking lot can't be made.
    pub fn new(
        id: usize,
        workers: usize,
        view: View,
        stats: Arc<WorkerStats>,
        open: Arc<OpenCount>,
        shelf: Size,
        mut rng: Rng,
    ) -> std::io::Result<Self> {
        let prefix = rng.next_u64();
        let local = Local {
            id,
            workers,
            wheel: Wheel::new(),
            lot: RefCell::new(Lot::new(open.max_per_worker() as usize / OPEN_DIVISOR, shelf)?),
            idlers: Rc::default(),
            scratch: RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice()),
            head: RefCell::new(Vec::with_capacity(4096)),
            fields: RefCell::default(),
            turns: Turns::of_requests(),
            handshakes: Turns::of_handshakes(),
            waiting_bytes: Rc::default(),
            backend_handshakes: Turns::of_handshakes(),
            room: Rc::default(),
            stats,
            rng: RefCell::new(rng),
            draining: Cell::new(false),
            closing_idle: Cell::new(false),
            is_cutting: Cell::new(false),
            cutting_until: Cell::new(0),
            ending: Cell::new(false),
            open,
            clients: Cell::new(0),
            exchanges: RefCell::default(),
            path: RefCell::default(),
            access: RefCell::new(None),
            now_ms: Cell::new(crate::clock::now_ms()),
            view: RefCell::new(Rc::new(view)),
            spare: RefCell::default(),
            lent_bytes: Cell::new(0),
            sizes: Sizes::default(),
            held_most: Cell::new(0),
            held_before: Cell::new(0),
            date: RefCell::new(Date { text: [b' '; 29], second: 0 }),
            request_id: Cell::new((prefix, 0)),
        };
        local.tick();
        Ok(local)
    }

    /// The view that requests are routed by now.
    pub fn view(&self) -> Rc<View> {
        self.view.borrow().clone()
    }

    /// Routes by another view from now on. Exchanges under way keep what they hold of the old one.
    pub fn set_view(&self, view: View) {
        *self.view.borrow_mut() = Rc::new(view);
    }

    /// An empty buffer, used before if possible.
    pub fn take_buffer(&self) -> Vec<u8> {
        let mut spare = self.spare.borrow_mut();
        let buffer = spare.buffers.pop();
        spare.unused = spare.unused.min(spare.buffers.len());
        let buffer = buffer.unwrap_or_else(|| Vec::with_capacity(SPARE_BYTES_MIN));
        self.lent_bytes.set(self.lent_bytes.get() + buffer.capacity());
        buffer
    }

    /// Adds `bytes` to a buffer that was taken here.
    pub fn extend_buffer(&self, buffer: &mut Vec<u8>, bytes: &[u8]) {
        let before = buffer.capacity();
        buffer.extend_from_slice(bytes);
        self.buffer_grew(before, buffer);
    }

    /// Takes note that a buffer that was taken here may be larger than `before`.
    pub fn buffer_grew(&self, before: usize, buffer: &Vec<u8>) {
        if buffer.capacity() != before {
            self.lent_bytes.set(self.lent_bytes.get() + buffer.capacity() - before);
        }
    }

    /// Takes a buffer back.
    pub fn give_buffer(&self, mut buffer: Vec<u8>) {
        // One that is dropped elsewhere would be counted for ever; one that was made elsewhere never was.
        debug_assert!(self.lent_bytes.get() >= buffer.capacity(), "a buffer from elsewhere");
        self.lent_bytes.set(self.lent_bytes.get().saturating_sub(buffer.capacity()));
        if (1..=SPARE_BYTES_MAX).contains(&buffer.capacity()) {
            buffer.clear();
            self.spare.borrow_mut().buffers.push(buffer);
        }
    }

    /// Room for an exchange, used before if possible.
    pub fn take_exchange(&self) -> Box<Exchange> {
        self.exchanges.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes room for an exchange back; what the exchange held is let go.
    pub fn give_exchange(&self, mut exchange: Box<Exchange>) {
        exchange.clear(self);
        self.exchanges.borrow_mut().push(exchange);
    }

    /// Client connections, parked ones included.
    pub fn clients(&self) -> usize {
        self.clients.get()
    }

    /// Client connections that have a descriptor.
    pub fn in_table(&self) -> u64 {
        (self.clients() - self.lot.borrow().shelved()) as u64
    }

    /// Counts a client connection that is accepted.
    pub fn seat(self: &Rc<Self>) -> Seat {
        self.clients.set(self.clients.get() + 1);
        self.open.add();
        self.stats.connections_active.inc();
        Seat { local: self.clone(), is_kept: false, berth: None }
    }

    /// The seat that a connection taken out of the lot had all along.
    pub fn resume_seat(self: &Rc<Self>, berth: Option<Berth>) -> Seat {
        Seat { local: self.clone(), is_kept: false, berth }
    }

    /// The seat of what is no connection of its own: it is not counted.
    pub fn no_seat(self: &Rc<Self>) -> Seat {
        Seat { local: self.clone(), is_kept: true, berth: None }
    }

    /// Counts connections out that ended.
    pub fn uncount(&self, count: usize) {
        self.clients.set(self.clients.get() - count);
        self.open.sub(count);
        self.stats.connections_active.add((count as u64).wrapping_neg());
    }

    /// Ready after so many ticks.
    pub async fn pause(&self, ticks: u32) {
        let deadline = Deadline::new(&self.wheel);
        deadline.set_after(ticks);
        poll_fn(|cx| deadline.poll_expired(cx)).await;
    }

    /// Frees what nobody needed since the last call: spare buffers, and what a burst left behind once it is over, that is
    /// when half of what was held at its peak is gone and no more goes. Called about once a second.
    pub fn trim(&self) {
        self.trim_spare();
        let pooled: usize = self.view().backends().map(|(_, backend)| backend.pool.len() + backend.trunks.len()).sum();
        let held = self.wheel.len() + pooled;
        let before = self.held_before.replace(held);
        let most = self.held_most.get().max(held);
        let is_over = most >= BURST_COUNT && held <= most / 2 && held >= before;
        self.held_most.set(if is_over { held } else { most });
        if is_over {
            crate::sys::release_freed_memory();
        }
    }

    fn trim_spare(&self) {
        let mut exchanges = self.exchanges.borrow_mut();
        if exchanges.len() > 8 {
            let keep = exchanges.len() / 2;
            exchanges.truncate(keep);
            exchanges.shrink_to_fit();
        }
        let mut spare = self.spare.borrow_mut();
        let keep = spare.buffers.len() - spare.unused;
        spare.buffers.truncate(keep.max(8));
        if spare.buffers.capacity() > 4 * spare.buffers.len() + 64 {
            spare.buffers.shrink_to_fit();
        }
        spare.unused = spare.buffers.len();
    }

    /// Tells how much memory is used for what; called about once a second.
    pub fn measure(&self) {
        let (stats, exchange) = (&self.stats, size_of::<Exchange>());
        let parked = self.lot.borrow().len();
        let [tunnels, waiting] = [&stats.tunnels_active, &stats.queue_waiting].map(|count| count.get() as usize);
        let under_way = stats.exchanges_active.get() as usize;
        let awake = self.clients().saturating_sub(parked + tunnels + waiting);
        let kept = self.exchanges.borrow().len();
        let (connection, tunnel) = (self.sizes.connection.get(), self.sizes.tunnel.get());
        stats.memory_buffers.set(self.buffers_bytes() as u64);
        stats.memory_exchanges.set(((under_way.saturating_sub(waiting) + kept) * exchange) as u64);
        stats.memory_connections.set((awake * connection) as u64);
        stats.memory_parked.set(self.lot.borrow().bytes() as u64);
        stats.memory_tunnels.set((tunnels * tunnel) as u64);
        stats.memory_queues.set((waiting * (connection + exchange)) as u64);
        stats.tls_sessions.set(self.room.sessions() as u64);
        stats.memory_tls.set(self.room.bytes() as u64);
    }

    /// Of buffers in use and spare, of those that all connections share, and of answers that wait.
    fn buffers_bytes(&self) -> usize {
        let spare: usize = self.spare.borrow().buffers.iter().map(Vec::capacity).sum();
        let own = self.scratch.borrow().len() + self.head.borrow().capacity();
        own + self.lent_bytes.get() + self.waiting_bytes.get() + spare
    }

    /// The date of this second in the form of RFC 9110, section 5.6.7.
    pub fn date(&self) -> [u8; 29] {
        self.date.borrow().text
    }

    /// Milliseconds of the process clock, as of the last tick: for what may be a tenth of a second late.
    pub fn now_ms(&self) -> u64 {
        self.now_ms.get()
    }

    /// Brings clock and date up to now and hands the access log over; called every tick.
    pub fn tick(&self) {
        self.now_ms.set(crate::clock::now_ms());
        if let Some(sink) = self.access.borrow_mut().as_mut() {
            sink.flush(self);
        }
        let now = SystemTime::now();
        let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let mut date = self.date.borrow_mut();
        if date.second != second {
            date.second = second;
            let text = httpdate::fmt_http_date(now);
            if text.len() == date.text.len() {
                date.text.copy_from_slice(text.as_bytes());
            }
        }
    }

    /// A new request id: 32 hex digits, unique over workers and, by luck, processes.
    pub fn new_request_id(&self) -> [u8; 32] {
        let (prefix, count) = self.request_id.get();
        self.request_id.set((prefix, count + 1));
        let mut id = [0u8; 32];
        // An odd multiplier permutes the counter, so that ids of one worker do not look alike.
        let count = count.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ prefix.rotate_left(29);
        for (half, value) in id.chunks_exact_mut(16).zip([prefix, count]) {
            hex(half, value);
        }
        id
    }

    /// Closes the longest-parked clients, also those without a descriptor: where it is the system that has no files or memory
    /// left. Returns whether any went.
    pub fn close_parked(&self, count: usize) -> bool {
        let evicted = self.lot.borrow_mut().evict(count);
        self.uncount(evicted);
        evicted > 0
    }

    /// Makes room for `count` more descriptors in this worker's table. Parked clients that need none lose theirs; then idle
    /// connections are closed: to backends first (oldest), then the longest-parked clients that have a descriptor, at last those
    /// that speak HTTP/2, which go a moment later. Returns whether there is any.
    pub fn make_room(&self, count: usize) -> bool {
        let view = self.view();
        let mut freed = self.lot.borrow_mut().shelve(count);
        for (_, backend) in view.backends() {
            if freed < count {
                freed += backend.pool.evict(count - freed);
                freed += backend.trunks.evict(count - freed);
            }
        }
        if freed < count {
            let evicted = self.lot.borrow_mut().evict_open(count - freed);
            self.uncount(evicted);
            freed += evicted;
        }
        if freed < count {
            freed += self.idlers.ask(count - freed);
        }
        freed > 0
    }
}

/// A client connection's place in the worker's count, from accept to close.
#[derive(Debug)]
pub struct Seat {
    local: Rc<Local>,
    is_kept: bool,
    berth: Option<Berth>,
}

impl Seat {
    /// Its place in the lot, if it has one, to go back to.
    pub fn take_berth(&mut self) -> Option<Berth> {
        self.berth.take()
    }

    /// The connection goes to the lot, and stays counted.
    pub fn keep_in_lot(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(berth) = self.berth.take() {
            self.local.lot.borrow_mut().leave(berth);
        }
        if !self.is_kept {
            self.local.uncount(1);
        }
    }
}

fn hex(out: &mut [u8], value: u64) {
    for (i, digit) in out.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(value >> (60 - 4 * i) & 15) as usize];
    }
}
