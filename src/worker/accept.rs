//! A worker's listeners: opened and closed while it runs, accepted from, and what other workers hand over.
//!
//! Owns the listening sockets and the room that a new connection needs. Never reads from a connection.

use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use tokio::task::AbortHandle;

use crate::config::plan::{ListenAddr, Steering};
use crate::handover::{Doors, Handed, Inside};
use crate::listen::given::Share;
use crate::listen::{self, Listener};
use crate::park::{Parked, Waiting};
use crate::proxy::client::Client;
use crate::proxy::local::Local;
use crate::shared::command::Opening;
use crate::shared::open::OpenCount;

/// Connections accepted in one go; then other tasks get their turn.
const ACCEPT_BATCH: usize = 64;
/// Idle connections closed at once to make room when descriptors or memory have run out.
const ROOM_BATCH: usize = 16;
/// Of its table a worker keeps one in so many for parked connections that have something to read, while there are some that wait.
const KEPT_DIVISOR: u64 = 16;
/// Of its parked connections a worker closes one in so many, and no more than [`ROOM_BATCH`], for another worker's clients.
const YIELD_DIVISOR: usize = 64;

/// The listeners of one worker.
pub(super) struct Listeners {
    local: Rc<Local>,
    /// Where the worker runs, if it has a CPU of its own.
    cpu: Option<usize>,
    doors: Arc<Doors>,
    open: Arc<OpenCount>,
    given: Vec<Share>,
    listening: Vec<Listening>,
}

/// Whose a listening socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// The proxy's: it ends with its listening.
    Proxy,
    /// A service manager's: who waits in its queue is somebody else's then.
    Manager,
}

struct Listening {
    slot: u16,
    owner: Owner,
    listener: Rc<Listener>,
    task: AbortHandle,
}

impl Listeners {
    /// None yet; `given` is what can be listened on beside what is opened.
    pub fn new(
        local: Rc<Local>,
        cpu: Option<usize>,
        (doors, open): (Arc<Doors>, Arc<OpenCount>),
        given: Vec<Share>,
    ) -> Self {
        Listeners { local, cpu, doors, open, given, listening: Vec::new() }
    }

    /// Whose they are.
    pub fn local(&self) -> &Rc<Local> {
        &self.local
    }

    /// Accepts from the socket that a command is about. It comes into this thread's descriptor table.
    ///
    /// # Errors
    /// When it can't be had, or the event loop can't take it.
    pub fn listen(&mut self, slot: u16, opening: &Opening) -> io::Result<()> {
        match opening {
            Opening::Tcp(addr, server) => self.open(slot, listen::open_tcp(*addr, server)?),
            Opening::Shared(socket) => self.open(slot, socket.try_clone()?),
            Opening::Given(addr) => self.open_given(slot, addr),
        }
    }

    /// Accepts from a listening socket of the proxy's own from now on.
    ///
    /// # Errors
    /// When the event loop can't take it.
    pub fn open(&mut self, slot: u16, fd: OwnedFd) -> io::Result<()> {
        self.accept_from(slot, fd, Owner::Proxy)
    }

    /// Accepts from what was given for `addr`; it can be closed and opened again.
    ///
    /// # Errors
    /// When descriptors have run out, or the event loop can't take it.
    pub fn open_given(&mut self, slot: u16, addr: &ListenAddr) -> io::Result<()> {
        let shares = self.given.iter().filter(|share| share.addr == *addr);
        let sockets = shares.map(|share| share.socket.try_clone()).collect::<io::Result<Vec<_>>>()?;
        sockets.into_iter().try_for_each(|fd| self.accept_from(slot, fd, Owner::Manager))
    }

    fn accept_from(&mut self, slot: u16, fd: OwnedFd, owner: Owner) -> io::Result<()> {
        let listener = Rc::new(Listener::new(fd)?);
        self.steer(owner, &listener);
        let door = (self.doors.clone(), self.open.clone());
        let task = tokio::task::spawn_local(accept(self.local.clone(), listener.clone(), slot, door)).abort_handle();
        self.listening.push(Listening { slot, owner, listener, task });
        Ok(())
    }

    /// Ends listening there, after taking in who waits in the accept queue: the end of listening would reset them. A socket
    /// that was given goes on listening, and its queue waits for whoever accepts next.
    pub fn close(&mut self, slot: u16) {
        for closed in self.listening.extract_if(.., |listening| listening.slot == slot) {
            closed.end(&self.local);
        }
    }

    /// Ends all listening.
    pub fn close_all(&mut self) {
        for closed in self.listening.drain(..) {
            closed.end(&self.local);
        }
    }

    /// A listener that can't be steered is given connections of any CPU, which is no reason not to listen. What a service
    /// manager gave, all workers may share: it belongs to no CPU.
    fn steer(&self, owner: Owner, listener: &Listener) {
        if owner == Owner::Manager {
            return;
        }
        let is_steered = self.local.view().server.steering == Steering::Cpu;
        if let Err(error) = listener.steer(self.cpu.filter(|_| is_steered)) {
            tracing::warn!(worker = self.local.id, %error, "a listener is not steered; see server.steering");
        }
    }

    /// Gives the sockets what the plan says now of backlog, congestion control and steering.
    pub fn retune(&self) {
        let view = self.local.view();
        for listening in &self.listening {
            if let Err(error) = listening.listener.retune(&view.server) {
                tracing::warn!(worker = self.local.id, %error, "a listener keeps its backlog or congestion control");
            }
            self.steer(listening.owner, &listening.listener);
        }
    }
}

impl Listening {
    fn end(self, local: &Rc<Local>) {
        if self.owner == Owner::Manager {
            self.task.abort();
            return;
        }
        while let Ok((fd, peer)) = self.listener.accept() {
            admit(local, Handed { fd, peer, listener: self.slot });
        }
        self.listener.end();
        self.task.abort();
    }
}

async fn accept(local: Rc<Local>, listener: Rc<Listener>, slot: u16, (doors, open): (Arc<Doors>, Arc<OpenCount>)) {
    loop {
        for _ in 0..ACCEPT_BATCH {
            make_room(&local, &listener, &doors, &open).await;
            match poll_fn(|cx| listener.poll_accept(cx)).await {
                Ok((fd, peer)) => {
                    let handed = Handed { fd, peer, listener: slot };
                    // Refused, it stays: the other worker has not taken in the last ones yet.
                    let kept = match better(&local, &doors, &open) {
                        Some(to) => hand(&doors, &open, to, handed).err(),
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
                    let is_of_system = error.raw_os_error() != Some(rustix::io::Errno::MFILE.raw_os_error());
                    let has_won = local.make_room(ROOM_BATCH) || is_of_system && local.close_parked(ROOM_BATCH);
                    if !has_won {
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

/// Hands a connection over. On its way it is one of those that are open, or more than are allowed would be taken in at once.
fn hand(doors: &Doors, open: &OpenCount, to: usize, handed: Handed) -> Result<(), Handed> {
    open.add();
    doors.hand(to, handed).inspect_err(|_| open.sub(1))
}

/// The worker that should have the next connection, if it is another one. What is steered here stays, unless this table
/// fills up.
fn better(local: &Local, doors: &Doors, open: &OpenCount) -> Option<usize> {
    if local.draining.get() {
        return None;
    }
    if open.is_nearly_full(local.in_table()) {
        return doors.emptier_than(local.id, open.max_per_worker());
    }
    let is_steered = local.view().server.steering == Steering::Cpu;
    if is_steered { None } else { doors.better_than(local.id, open.open()) }
}

/// Waits until one more client connection is allowed. For each that knocks, the one that has been parked longest goes;
/// while nobody does, as many as are allowed may stay.
async fn make_room(local: &Rc<Local>, listener: &Listener, doors: &Doors, open: &OpenCount) {
    while !has_room(local, open) {
        let knocked = poll_fn(|cx| listener.poll_waiting(cx)).await;
        // A listener that failed says so when it is accepted from.
        if knocked.is_err() || local.draining.get() || has_room(local, open) {
            return;
        }
        if free_a_place(local, open) {
            continue;
        }
        // Its table is full, and another worker's is not: that one gets whoever comes.
        if !open.is_full() && doors.emptier_than(local.id, open.max_per_worker()).is_some() {
            return;
        }
        if !local.idlers.is_leaving() && local.idlers.ask(1) == 0 {
            open.want_room();
        }
        local.pause(1).await;
    }
}

/// Whether there is room for one who is new. Who is parked and has something to read has come before.
fn has_room(local: &Local, open: &OpenCount) -> bool {
    let kept = if local.lot.borrow().has_due() { open.max_per_worker() / KEPT_DIVISOR } else { 0 };
    open.has_room(local.in_table() + kept)
}

/// Takes the place of who has been parked longest; where it is descriptors alone that are short, only that, if possible.
fn free_a_place(local: &Local, open: &OpenCount) -> bool {
    if open.is_full() {
        return local.close_parked(1);
    }
    let mut lot = local.lot.borrow_mut();
    if lot.shelve(ROOM_BATCH) > 0 {
        return true;
    }
    let evicted = lot.evict_open(1);
    drop(lot);
    local.uncount(evicted);
    evicted > 0
}

/// Closes a few idle connections for another worker's client: the kernel may have sent it to where nobody is idle.
pub(super) fn make_room_for_others(local: &Local) {
    let parked = local.lot.borrow().len();
    if parked + local.idlers.len() > 0 && local.open.take_want() {
        let evicted = local.lot.borrow_mut().evict(parked.div_ceil(YIELD_DIVISOR).min(ROOM_BATCH));
        local.uncount(evicted);
        if evicted == 0 && !local.idlers.is_leaving() {
            local.idlers.ask(1);
        }
    }
}

/// Takes in what other workers hand over.
pub(super) async fn take_in(local: Rc<Local>, inside: Inside, doors: Arc<Doors>) {
    loop {
        while local.open.room_in_table(local.in_table()) == 0 {
            let shelved = local.lot.borrow_mut().shelve(ROOM_BATCH);
            if shelved == 0 {
                local.pause(1).await;
            }
        }
        match poll_fn(|cx| inside.poll_take(cx)).await {
            Ok(handed) => {
                admit(&local, handed);
                local.open.sub(1);
                doors.taken_in(local.id);
            }
            // This table is full; the connection waits at the door.
            Err(error) if error.kind() == io::ErrorKind::Other => {
                if !local.make_room(ROOM_BATCH) {
                    tracing::warn!(worker = local.id, %error, "taking over from other workers pauses");
                    local.pause(1).await;
                }
            }
            Err(error) => {
                tracing::error!(worker = local.id, %error, "nothing can be taken over from other workers any more");
                return;
            }
        }
    }
}

fn admit(local: &Rc<Local>, Handed { fd, peer, listener }: Handed) {
    local.stats.connections_accepted.inc();
    let seat = local.seat();
    let parked =
        Parked { fd, peer, listener, waiting: Waiting::First, since: local.wheel.now(), session: None, berth: None };
    if let Ok(client) = Client::new(parked, false, seat, local) {
        client.spawn();
    }
}
