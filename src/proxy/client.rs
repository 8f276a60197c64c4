//! A client's connection between requests: read a head, hand it on, park when idle, close with care.
//!
//! Owns the connection's task and what came in unread. Never looks into a request beyond finding where its head ends,
//! and never talks to a backend.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::exchange::{self, After, Exchange};
use super::intake::{self, Intake};
use super::local::{Local, Seat};
use super::turns::Wait;
use super::{http2, reply, secure, tunnel};
use crate::error::{Fault, Reason};
use crate::http::parse::HeadEnd;
use crate::http::proxy_header;
use crate::limits::{LINGER_BYTES_MAX, LINGER_MS_MAX};
use crate::listen;
use crate::park::{Parked, Waiting};
use crate::stream::{SessionFacts, Stream};
use crate::wheel::{Deadline, ticks};

/// What is taken in of further requests while one is served, in bytes; one read may go beyond.
const PIPELINED_BYTES_MAX: usize = 16 * 1024;

/// Bytes that came and were not used yet.
#[derive(Debug, Default)]
pub struct Input {
    bytes: Vec<u8>,
    start: usize,
}

impl Input {
    /// What is there.
    pub fn unread(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }

    /// How much is there, in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Marks the first `n` bytes as used.
    pub fn consume(&mut self, n: usize, local: &Local) {
        self.start += n;
        if self.is_empty() {
            self.start = 0;
            if self.bytes.capacity() > 0 {
                local.give_buffer(std::mem::take(&mut self.bytes));
            }
        }
    }

    /// Adds bytes.
    pub fn append(&mut self, bytes: &[u8], local: &Local) {
        if bytes.is_empty() {
            return;
        }
        if self.bytes.capacity() == 0 {
            self.bytes = local.take_buffer();
        }
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        local.extend_buffer(&mut self.bytes, bytes);
    }

    /// Forgets what is there.
    pub fn clear(&mut self, local: &Local) {
        self.consume(self.len(), local);
    }
}

/// A client's connection while it has a task.
#[derive(Debug)]
pub struct Client {
    /// The socket.
    pub stream: Stream,
    /// Who is at the other end, as accepted or as a PROXY header told.
    pub peer: SocketAddr,
    /// Index of the listener it came in by.
    pub listener: u16,
    /// Whether it came over TLS.
    pub tls: bool,
    /// Of its TLS session, once there is one.
    pub session: Option<Rc<SessionFacts>>,
    /// The one deadline of whatever it does now.
    pub deadline: Deadline,
    /// Whether it is a request stream of an HTTP/2 connection.
    pub is_http2: bool,
    /// When what is asked for has to be over, as the client said, in ticks; `u32::MAX`: never.
    pub ends_at: u32,
    /// Read and not used yet.
    pub input: Input,
    /// The worker's belongings.
    pub local: Rc<Local>,
    /// Its place in the worker's count.
    pub seat: Seat,
    waiting: Waiting,
    since: u32,
    /// Whether a PROXY header has to come first.
    wants_proxy_header: bool,
    /// Whether bytes are known to wait: it was just taken out of the lot.
    is_woken: bool,
    /// Its place among those that wait for another turn.
    turn: Wait,
    /// Whether a TLS handshake has to come first (after a PROXY header).
    wants_handshake: bool,
}

/// What the request streams of one HTTP/2 connection have in common.
#[derive(Debug)]
pub struct Facts {
    /// Who is at the other end.
    pub peer: SocketAddr,
    /// Index of the listener it came in by.
    pub listener: u16,
    /// Whether it came over TLS.
    pub tls: bool,
    /// The worker's belongings.
    pub local: Rc<Local>,
    /// Of its TLS session, where it came over TLS.
    pub session: Option<Rc<SessionFacts>>,
}

/// What the preface of HTTP/2 begins with, and no request does.
const HTTP2_START: &[u8] = b"PRI ";

fn is_preface(bytes: &[u8]) -> bool {
    bytes.len() >= http2::PREFACE.len()
}

/// How a connection's life between two requests ends.
enum Next {
    Request(Box<Exchange>),
    Refused(Fault),
    /// A TLS handshake begins.
    Handshake,
    /// HTTP/2 begins.
    Http2,
    Park,
    Close,
}

/// What a PROXY header, or what came in its place, leads to.
enum Step {
    GoOn,
    Wait,
    Close,
}

impl Client {
    /// A connection that was just accepted, or taken out of the lot.
    ///
    /// # Errors
    /// When the event loop can't take it; it is closed then.
    pub fn new(parked: Parked, is_woken: bool, seat: Seat, local: &Rc<Local>) -> std::io::Result<Client> {
        let wants_proxy_header = parked.waiting == Waiting::First && local.view().server.proxy_protocol;
        let stream = Stream::from_parts(parked.fd, parked.session)?;
        let session = stream.session();
        let tls = listen::is_secure(parked.listener);
        Ok(Client {
            stream,
            peer: parked.peer,
            listener: parked.listener,
            tls,
            wants_handshake: tls && session.is_none(),
            session,
            deadline: Deadline::new(&local.wheel),
            input: Input::default(),
            local: local.clone(),
            seat,
            waiting: parked.waiting,
            since: parked.since,
            wants_proxy_header,
            is_woken,
            turn: Wait::default(),
            is_http2: false,
            ends_at: u32::MAX,
        })
    }

    /// One request stream of an HTTP/2 connection, which has the place in the worker's count.
    pub fn of_stream(stream: Stream, facts: &Rc<Facts>) -> Client {
        let local = facts.local.clone();
        Client {
            stream,
            peer: facts.peer,
            listener: facts.listener,
            tls: facts.tls,
            session: facts.session.clone(),
            wants_handshake: false,
            deadline: Deadline::new(&local.wheel),
            input: Input::default(),
            seat: local.no_seat(),
            waiting: Waiting::First,
            since: local.wheel.now(),
            wants_proxy_header: false,
            is_woken: false,
            turn: Wait::default(),
            is_http2: true,
            ends_at: u32::MAX,
            local,
        }
    }

    /// What an HTTP/2 connection goes on with.
    pub fn into_parts(self) -> (Rc<Facts>, Seat, Stream, Input, Deadline) {
        let Client { stream, peer, listener, tls, session, deadline, input, local, seat, .. } = self;
        (Rc::new(Facts { peer, listener, tls, local, session }), seat, stream, input, deadline)
    }

    /// Serves the connection, as a task of its own, until it is parked, closed or became a tunnel.
    pub fn spawn(self) {
        let local = self.local.clone();
        let serving = self.serve();
        local.sizes.connection.set(size_of_val(&serving));
        tokio::task::spawn_local(serving);
    }

    async fn serve(mut self) {
        loop {
            match self.next().await {
                Next::Request(mut exchange) => {
                    let after = exchange::run(&mut self, &mut exchange).await;
                    self.local.give_exchange(exchange);
                    match after {
                        After::KeepAlive => {
                            self.begin_waiting();
                            // Requests that are answered without a wait, one behind the other, leave others their turn.
                            tokio::task::coop::consume_budget().await;
                        }
                        After::Close => return self.close_gently().await,
                        After::Abort => return self.close(),
                        After::Tunnel(tunnel) => return tunnel::spawn(self, *tunnel),
                    }
                }
                Next::Refused(fault) => {
                    reply::refuse(&mut self, reply::Refused::default(), fault).await;
                    return self.close_gently().await;
                }
                Next::Handshake => {
                    self.wants_handshake = false;
                    let local = self.local.clone();
                    let read = self.input.unread().to_vec();
                    self.input.clear(&local);
                    match secure::begin(self.stream, read, &local) {
                        Some(stream) => self.stream = stream,
                        None => return,
                    }
                    if !secure::finish(&mut self).await {
                        return self.close();
                    }
                    if self.session.as_ref().is_some_and(|session| session.is_http2) {
                        return http2::spawn(self);
                    }
                }
                Next::Http2 => return http2::spawn(self),
                Next::Park => return self.park(),
                Next::Close => return self.close(),
            }
        }
    }

    /// Closes at once.
    pub fn close(mut self) {
        let local = self.local.clone();
        self.stream.say_end();
        self.input.clear(&local);
    }

    /// The tick until which its first request's head has to be there, the handshake before it included.
    pub fn head_due(&self) -> u32 {
        self.since.saturating_add(ticks(self.local.view().server.read_timeout) + 1)
    }

    fn begin_waiting(&mut self) {
        self.waiting = Waiting::Next;
        self.since = self.local.wheel.now();
    }

    fn park(self) {
        let Client { stream, peer, listener, waiting, since, local, mut seat, .. } = self;
        let Some((fd, session)) = stream.into_parts() else { return };
        let parked = Parked { fd, peer, listener, waiting, since, session, berth: seat.take_berth() };
        if local.lot.borrow_mut().park(parked).is_ok() {
            seat.keep_in_lot();
        }
    }

    /// Ready once the client is gone ([`Reason::ClientClosed`]: it ended its side or reset the connection), or has to go
    /// ([`Reason::Shutdown`]). What it sends meanwhile, the rest of its request or the next one, is taken in up to a
    /// bound.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        let local = self.local.clone();
        if local.ending.get() {
            return Poll::Ready(Reason::Shutdown);
        }
        while self.input.len() < PIPELINED_BYTES_MAX {
            let mut scratch = local.scratch.borrow_mut();
            match ready!(self.stream.poll_recv(cx, &mut scratch)) {
                Ok(n @ 1..) => self.input.append(&scratch[..n], &local),
                _ => return Poll::Ready(Reason::ClientClosed),
            }
        }
        self.stream.poll_cut(cx).map(|()| Reason::ClientClosed)
    }

    /// The deadline comes after `patience`, or when the client gives up.
    pub fn set_deadline_after(&self, patience: Duration) {
        let at = self.local.wheel.now().saturating_add(ticks(patience)).saturating_add(1);
        self.deadline.set(at.min(self.ends_at));
    }

    /// What has happened when that deadline has come, by whose patience it was.
    pub fn overdue(&self, reason: Reason) -> Fault {
        if self.ends_at <= self.local.wheel.now() { Reason::DeadlineExceeded.into() } else { reason.into() }
    }

    /// Waits for a request's whole head.
    async fn next(&mut self) -> Next {
        let mut head = HeadEnd::default();
        let mut started = self.local.wheel.now();
        poll_fn(|cx| self.poll_next(cx, &mut head, &mut started)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, head: &mut HeadEnd, started: &mut u32) -> Poll<Next> {
        let was_empty = self.input.is_empty();
        loop {
            if !self.input.is_empty()
                && let Some(next) = self.parse_input(head)
            {
                return Poll::Ready(next);
            }
            match self.poll_more(cx, head) {
                Poll::Ready(Some(next)) => return Poll::Ready(next),
                Poll::Ready(None) => {}
                Poll::Pending => break,
            }
        }
        if self.turn.is_waiting() {
            // Its bytes wait in the socket: it is neither idle nor slow, and must not be parked.
            return Poll::Pending;
        }
        let view = self.local.view();
        let server = &view.server;
        if !self.input.is_empty() {
            // A head has begun: from its first byte, or for the first request from accept.
            if was_empty {
                *started = self.local.wheel.now();
            }
            let from = if self.waiting == Waiting::Next { *started } else { self.since };
            self.deadline.set(from.saturating_add(ticks(server.read_timeout) + 1));
            ready!(self.deadline.poll_expired(cx));
            return Poll::Ready(Next::Refused(Reason::HeadTimeout.into()));
        }
        if self.local.closing_idle.get() && self.waiting == Waiting::Next {
            return Poll::Ready(Next::Close);
        }
        let patience = if self.waiting == Waiting::Next { server.idle_timeout } else { server.read_timeout };
        // Where the lot takes sockets that need no descriptor, waiting awake costs others theirs.
        let is_tight = self.local.lot.borrow().has_shelf() && self.local.open.is_half_full(self.local.in_table());
        let awake = if is_tight { Duration::ZERO } else { server.park_after.min(patience) };
        let park_at = self.since.saturating_add(ticks(awake) + 1);
        self.deadline.set(park_at);
        ready!(self.deadline.poll_expired(cx));
        // A connection whose PROXY header is still to come parks too: it waits for its first bytes all the same.
        Poll::Ready(Next::Park)
    }

    /// Reads once. `None`: look again at what there is.
    fn poll_more(&mut self, cx: &mut Context<'_>, head: &mut HeadEnd) -> Poll<Option<Next>> {
        if !self.is_woken {
            ready!(self.stream.poll_readable(cx)).ok();
        }
        if self.wants_handshake && !self.wants_proxy_header {
            return Poll::Ready(Some(Next::Handshake));
        }
        let local = self.local.clone();
        ready!(local.turns.poll_take(cx, &mut self.turn));
        let mut scratch = local.scratch.borrow_mut();
        let read = if std::mem::take(&mut self.is_woken) {
            match self.stream.recv(&mut scratch) {
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Poll::Ready(None),
                read => read,
            }
        } else {
            ready!(self.stream.poll_recv(cx, &mut scratch))
        };
        let Ok(n @ 1..) = read else { return Poll::Ready(Some(Next::Close)) };
        if !self.input.is_empty() || self.wants_proxy_header {
            self.input.append(&scratch[..n], &local);
            return Poll::Ready(None);
        }
        Poll::Ready(self.parse_fresh(&mut scratch[..n], head))
    }

    /// The usual case: a read that begins with a head.
    fn parse_fresh(&mut self, bytes: &mut [u8], head: &mut HeadEnd) -> Option<Next> {
        if bytes.starts_with(HTTP2_START) && self.may_be_http2(bytes) {
            let local = self.local.clone();
            self.input.append(bytes, &local);
            return is_preface(bytes).then_some(Next::Http2);
        }
        match intake::take(self, bytes, head) {
            Intake::Request(exchange, used) => {
                let local = self.local.clone();
                self.input.append(&bytes[used..], &local);
                Some(Next::Request(exchange))
            }
            Intake::Partial => {
                let local = self.local.clone();
                self.input.append(bytes, &local);
                None
            }
            Intake::Refused(fault) => Some(Next::Refused(fault)),
        }
    }

    /// A head in several reads, or one that came behind another request.
    fn parse_input(&mut self, head: &mut HeadEnd) -> Option<Next> {
        if self.wants_proxy_header {
            match self.parse_proxy_header() {
                Step::GoOn if self.wants_handshake => return Some(Next::Handshake),
                Step::GoOn if self.input.is_empty() => return None,
                Step::GoOn => {}
                Step::Wait => return None,
                Step::Close => return Some(Next::Close),
            }
        }
        let mut input = std::mem::take(&mut self.input);
        if input.unread().starts_with(HTTP2_START) && self.may_be_http2(input.unread()) {
            self.input = input;
            return is_preface(self.input.unread()).then_some(Next::Http2);
        }
        let taken = intake::take(self, input.unread(), head);
        self.input = input;
        match taken {
            Intake::Request(exchange, used) => {
                let local = self.local.clone();
                self.input.consume(used, &local);
                Some(Next::Request(exchange))
            }
            Intake::Partial => None,
            Intake::Refused(fault) => Some(Next::Refused(fault)),
        }
    }

    /// Whether this is the beginning of HTTP/2 with prior knowledge (RFC 9113, section 3.3), as far as it came. Only a
    /// connection's first bytes can be.
    #[cold]
    fn may_be_http2(&self, bytes: &[u8]) -> bool {
        let known = bytes.len().min(http2::PREFACE.len());
        self.waiting != Waiting::Next && bytes[..known] == http2::PREFACE[..known] && self.local.view().server.http2
    }

    fn parse_proxy_header(&mut self) -> Step {
        let view = self.local.view();
        if !view.server.trusted_proxies.iter().any(|net| net.contains(&self.peer.ip())) {
            // A header from anybody else would let a client choose its address: it is read as the garbage it is.
            self.wants_proxy_header = false;
            return Step::GoOn;
        }
        match proxy_header::parse(self.input.unread()) {
            Ok(None) => Step::Wait,
            Ok(Some((header, used))) => {
                self.wants_proxy_header = false;
                if let Some(source) = header.source {
                    self.peer = SocketAddr::new(source.ip().to_canonical(), source.port());
                }
                // Parked before its first request it comes back without asking for another header.
                self.waiting = Waiting::Announced;
                let local = self.local.clone();
                self.input.consume(used, &local);
                Step::GoOn
            }
            Err(_) => Step::Close,
        }
    }

    /// Closes so that the last answer is not lost to a reset: our side is shut, and what the client still sends is read
    /// and dropped for a while (RFC 9112, section 9.6).
    async fn close_gently(mut self) {
        self.stream.shutdown_write();
        let patience = Duration::from_millis(LINGER_MS_MAX);
        self.deadline.set_after(ticks(patience));
        let local = self.local.clone();
        let mut left = LINGER_BYTES_MAX;
        poll_fn(|cx| {
            let mut scratch = local.scratch.borrow_mut();
            while left > 0 {
                match self.stream.poll_recv(cx, &mut scratch) {
                    Poll::Ready(Ok(n @ 1..)) => left = left.saturating_sub(n),
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return self.deadline.poll_expired(cx),
                }
            }
            Poll::Ready(())
        })
        .await;
        self.input.clear(&local);
    }
}
