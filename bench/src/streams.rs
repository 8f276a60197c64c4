//! Many streams of HTTP/2 on one thread, each a closed loop of its own: opening connections, asking, telling a script.
//!
//! Owns sockets and which stream is on which connection. Never decides what to ask next: that is the [`Script`], for
//! which a slot is a stream here, so many of them to a connection.

use crate::conns::{Event, Failure, Handshakes, Next, READ_BYTES, Script};
use crate::error::Result;
use crate::h2::client::{Client, Done, Job};
use crate::net::{self, Interest, Poller, Received};
use crate::tls::{ClientSide, Wire};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// What is sent at once, at most, before the rest waits for room.
const SEND_BYTES: usize = 256 * 1024;

/// One connection with its streams.
#[derive(Default)]
struct Conn {
    wire: Option<Wire>,
    client: Client,
    /// Connecting or handshaking, since when.
    opening: Option<Instant>,
    /// Slots to be told when it is open.
    expecting: Vec<usize>,
    /// Watched for room to write.
    writing: bool,
    /// Told apart from the one that had this place before.
    generation: u32,
    source: Option<IpAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Closed,
    Opening,
    Idle,
    Asked(Instant),
}

/// The connections and streams of one thread.
pub struct Streams {
    poller: Poller,
    conns: Vec<Conn>,
    slots: Vec<Slot>,
    per_conn: usize,
    jobs: Vec<Job>,
    scratch: Vec<u8>,
    target: SocketAddr,
    tls: Option<ClientSide>,
    timeout: Duration,
    handshakes: Handshakes,
    /// Connections with something to send.
    dirty: Vec<usize>,
}

impl Streams {
    /// `conns` closed connections to `target` with `per_conn` streams each.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn new(
        target: SocketAddr,
        tls: Option<ClientSide>,
        (conns, per_conn): (usize, usize),
        jobs: Vec<Job>,
        timeout: Duration,
    ) -> Result<Streams> {
        Ok(Streams {
            poller: Poller::new()?,
            conns: (0..conns).map(|_| Conn::default()).collect(),
            slots: vec![Slot::Closed; conns * per_conn],
            per_conn,
            jobs,
            scratch: vec![0; READ_BYTES],
            target,
            tls,
            timeout,
            handshakes: Handshakes::default(),
            dirty: Vec::new(),
        })
    }

    /// The handshakes so far.
    pub fn handshakes(&self) -> Handshakes {
        self.handshakes.clone()
    }

    /// Makes a closed slot ready to ask, on its connection, which is opened when it has to be.
    pub fn open<S: Script>(&mut self, slot: usize, source: Option<IpAddr>, script: &mut S) {
        let at = slot / self.per_conn;
        let conn = &mut self.conns[at];
        conn.source = source;
        self.slots[slot] = Slot::Opening;
        if conn.wire.is_some() && conn.opening.is_none() && !conn.client.is_going() {
            return self.connected(slot, script);
        }
        conn.expecting.push(slot);
        if conn.wire.is_none() {
            self.connect(at, script);
        }
    }

    /// Asks on an open slot that has no request under way.
    pub fn ask(&mut self, slot: usize, job: usize) {
        let at = slot / self.per_conn;
        self.slots[slot] = Slot::Asked(Instant::now());
        self.conns[at].client.ask(slot, job, &self.jobs);
        self.mark(at);
    }

    /// Waits for events, at most so long, and tells the script.
    ///
    /// # Errors
    /// When waiting fails; what happens to one connection is an [`Event`].
    pub fn poll<S: Script>(&mut self, wait: Duration, script: &mut S) -> Result<()> {
        self.flush(script);
        let count = self.poller.wait(Some(wait))?;
        for index in 0..count {
            let ready = self.poller.ready(index);
            let at = ready.token as u32 as usize;
            let conn = &mut self.conns[at];
            let Some(wire) = &conn.wire else { continue };
            if conn.generation != (ready.token >> 32) as u32 {
                continue;
            }
            if conn.opening.is_some() && matches!(wire, Wire::Plain(_)) {
                self.finish_connecting(at, script);
                continue;
            }
            if ready.writable && conn.writing {
                self.mark(at);
            }
            if ready.readable {
                self.pull(at, script);
            }
        }
        self.flush(script);
        Ok(())
    }

    /// Ends what has been under way for longer than the timeout.
    pub fn expire<S: Script>(&mut self, now: Instant, script: &mut S) {
        let late = |since: Instant| now.saturating_duration_since(since) > self.timeout;
        let conns: Vec<usize> = (0..self.conns.len()).filter(|&at| self.conns[at].opening.is_some_and(late)).collect();
        let is_late = |slot: &usize| matches!(self.slots[*slot], Slot::Asked(since) if late(since));
        let slots: Vec<usize> = (0..self.slots.len()).filter(is_late).collect();
        for at in conns {
            self.lose(at, Failure::Connect, script);
        }
        for slot in slots {
            let at = slot / self.per_conn;
            self.conns[at].client.cancel(slot);
            self.mark(at);
            self.slots[slot] = Slot::Closed;
            script.next(slot, Event::Lost { failure: Failure::Timeout, asked: true });
            // Whose peer takes nothing new and says nothing any more will not be read from again.
            self.replace_if_gone(at, script);
        }
        self.flush(script);
    }

    fn connect<S: Script>(&mut self, at: usize, script: &mut S) {
        let conn = &mut self.conns[at];
        conn.generation = conn.generation.wrapping_add(1);
        conn.client = Client::default();
        conn.writing = false;
        let token = token(at, conn.generation);
        let opened = net::connect(self.target, conn.source).and_then(|(fd, _)| {
            self.poller.add(&fd, token, Interest::Write).map(|()| fd).map_err(std::io::Error::other)
        });
        match opened {
            Ok(fd) => {
                conn.wire = Some(Wire::Plain(fd));
                conn.opening = Some(Instant::now());
            }
            Err(_) => self.lose(at, Failure::Connect, script),
        }
    }

    fn finish_connecting<S: Script>(&mut self, at: usize, script: &mut S) {
        let conn = &mut self.conns[at];
        let token = token(at, conn.generation);
        let Some(Wire::Plain(fd)) = conn.wire.take() else { return };
        if net::connected(&fd).is_err() || self.poller.modify(&fd, token, Interest::Read).is_err() {
            return self.lose(at, Failure::Connect, script);
        }
        let Some(tls) = &self.tls else {
            conn.wire = Some(Wire::Plain(fd));
            return self.opened(at, script);
        };
        // The first flight always fits.
        let begun = tls.begin(fd).and_then(|mut wire| wire.flush().map(|()| wire));
        match begun {
            Ok(wire) => conn.wire = Some(wire),
            Err(_) => self.lose(at, Failure::Connect, script),
        }
    }

    /// The connection can be used: everybody who waited for it is told.
    fn opened<S: Script>(&mut self, at: usize, script: &mut S) {
        self.conns[at].opening = None;
        self.mark(at);
        for slot in std::mem::take(&mut self.conns[at].expecting) {
            self.connected(slot, script);
        }
    }

    fn connected<S: Script>(&mut self, slot: usize, script: &mut S) {
        self.slots[slot] = Slot::Idle;
        self.tell(slot, Event::Connected, script);
    }

    fn tell<S: Script>(&mut self, slot: usize, event: Event, script: &mut S) {
        match script.next(slot, event) {
            Next::Send(job) => self.ask(slot, job),
            Next::Hold => {}
            Next::Close => self.slots[slot] = Slot::Closed,
        }
    }

    /// Reads once and follows what it means.
    fn pull<S: Script>(&mut self, at: usize, script: &mut S) {
        let conn = &mut self.conns[at];
        let Some(wire) = &mut conn.wire else { return };
        let received = wire.receive(&mut self.scratch);
        if conn.opening.is_some() {
            match &received {
                Err(error) => {
                    self.handshakes.fail(|| error.to_string());
                    return self.lose(at, Failure::Connect, script);
                }
                Ok(Received::End) => {
                    self.handshakes.fail(|| "the connection ended within the handshake".to_owned());
                    return self.lose(at, Failure::Connect, script);
                }
                Ok(_) if wire.is_handshaking() => return,
                Ok(_) if wire.protocol() != Some(b"h2") => {
                    self.handshakes.fail(|| "the server did not choose HTTP/2 by ALPN".to_owned());
                    return self.lose(at, Failure::Connect, script);
                }
                Ok(_) => {
                    self.handshakes.count(wire);
                    self.opened(at, script);
                }
            }
        }
        match received {
            Ok(Received::Later) => {}
            Ok(Received::Bytes(len)) => self.take(at, len, script),
            Ok(Received::End) | Err(_) => self.lose(at, Failure::Closed, script),
        }
    }

    fn take<S: Script>(&mut self, at: usize, len: usize, script: &mut S) {
        let mut done = Vec::new();
        let fed = self.conns[at].client.feed(&self.scratch[..len], &self.jobs, &mut done);
        self.mark(at);
        for one in done {
            self.finished(at, one, script);
        }
        if fed.is_err() {
            return self.lose(at, Failure::Malformed, script);
        }
        if self.conns[at].client.is_going() {
            self.release(at, script);
        }
        self.replace_if_gone(at, script);
    }

    /// Nothing can be asked on this connection any more: who waits to ask has to ask on the next one.
    fn release<S: Script>(&mut self, at: usize, script: &mut S) {
        for slot in at * self.per_conn..(at + 1) * self.per_conn {
            if self.slots[slot] == Slot::Idle {
                self.slots[slot] = Slot::Closed;
                script.next(slot, Event::Lost { failure: Failure::Closed, asked: false });
            }
        }
    }

    fn finished<S: Script>(&mut self, at: usize, done: Done, script: &mut S) {
        let slot = done.key;
        let Slot::Asked(since) = self.slots[slot] else { return };
        self.slots[slot] = Slot::Idle;
        match (done.status, done.verdict) {
            (None, Err(failure)) => {
                self.slots[slot] = Slot::Closed;
                script.next(slot, Event::Lost { failure, asked: true });
            }
            (status, verdict) => {
                let (status, keep) = (status.unwrap_or(0), !self.conns[at].client.is_going());
                self.tell(slot, Event::Answered { latency: since.elapsed(), status, verdict, keep }, script);
            }
        }
    }

    /// Opens a connection in place of one that takes no streams any more, once nobody uses that.
    fn replace_if_gone<S: Script>(&mut self, at: usize, script: &mut S) {
        let conn = &self.conns[at];
        let mine = at * self.per_conn..(at + 1) * self.per_conn;
        let busy = self.slots[mine].iter().any(|slot| matches!(slot, Slot::Asked(_)));
        if conn.wire.is_none() || !conn.client.is_going() || busy {
            return;
        }
        let expecting = std::mem::take(&mut self.conns[at].expecting);
        self.lose(at, Failure::Closed, script);
        if !expecting.is_empty() {
            self.conns[at].expecting = expecting;
            self.connect(at, script);
        }
    }

    /// The connection is gone, and all that was under way on it.
    fn lose<S: Script>(&mut self, at: usize, failure: Failure, script: &mut S) {
        let conn = &mut self.conns[at];
        (conn.wire, conn.opening, conn.writing) = (None, None, false);
        let expecting = std::mem::take(&mut conn.expecting);
        for slot in expecting {
            self.slots[slot] = Slot::Closed;
            script.next(slot, Event::Lost { failure: Failure::Connect, asked: false });
        }
        for slot in at * self.per_conn..(at + 1) * self.per_conn {
            let asked = match self.slots[slot] {
                Slot::Asked(_) => true,
                Slot::Idle => false,
                Slot::Closed | Slot::Opening => continue,
            };
            self.slots[slot] = Slot::Closed;
            script.next(slot, Event::Lost { failure, asked });
        }
    }

    fn mark(&mut self, at: usize) {
        if self.dirty.last() != Some(&at) {
            self.dirty.push(at);
        }
    }

    /// Sends what there is to send: all that was asked in one turn goes out at once.
    fn flush<S: Script>(&mut self, script: &mut S) {
        while let Some(at) = self.dirty.pop() {
            if self.push(at).is_err() {
                self.lose(at, Failure::Closed, script);
            }
        }
    }

    fn push(&mut self, at: usize) -> std::io::Result<()> {
        let conn = &mut self.conns[at];
        let Some(wire) = conn.wire.as_mut().filter(|_| conn.opening.is_none()) else { return Ok(()) };
        let out = conn.client.out();
        let mut sent = 0;
        while sent < out.len() {
            let len = wire.send(&out[sent..out.len().min(sent + SEND_BYTES)])?;
            if len == 0 {
                break;
            }
            sent += len;
        }
        out.drain(..sent);
        wire.flush()?;
        let writing = !out.is_empty() || wire.has_unsent();
        if writing != conn.writing {
            conn.writing = writing;
            let interest = if writing { Interest::Both } else { Interest::Read };
            self.poller.modify(&*wire, token(at, conn.generation), interest).map_err(std::io::Error::other)?;
        }
        Ok(())
    }
}

fn token(at: usize, generation: u32) -> u64 {
    u64::from(generation) << 32 | at as u64
}
