//! TLS over a socket (RFC 8446, RFC 5246): what is sent is sealed into records, what comes is opened.
//!
//! Owns one session, and the ciphertext that is neither whole enough to be opened nor taken by the socket yet. An idle
//! connection holds no buffer: records pass through the worker's [`Room`]. Never decides which certificate is shown and
//! never sets a deadline.

use std::cell::{Cell, RefCell, RefMut};
use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::net::SendFlags;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::CertificateDer;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus};

use super::Socket;
use crate::limits::SCRATCH_BYTES;
use crate::tls::{self, Hello};

/// Plaintext of one record at most, in bytes (RFC 8446, section 5.1).
const RECORD_BYTES_MAX: usize = 16 * 1024;
/// What sealing adds to a record at most, in bytes: header, content type, tag, and the nonce of TLS 1.2.
const SEALING_BYTES_MAX: usize = 64;
/// A record that is not whole, or a short message in several, in bytes.
const PARTIAL_BYTES_MAX: usize = RECORD_BYTES_MAX + 4 * 1024;
/// A client's hello that is not whole, in bytes: anybody may send one, and let it stay so until the handshake is overdue.
const HELLO_BYTES_MAX: usize = 16 * 1024;
/// A flight of a handshake that is not whole and may have a chain of certificates in it, in bytes: some have many kilobytes.
const CHAIN_BYTES_MAX: usize = 64 * 1024;
/// Room for what rustls sends along by itself: tickets, a key update, an alert.
const CONTROL_BYTES: usize = 4 * 1024;

/// The buffers that all secured connections of a worker share; borrowed for one synchronous step.
#[derive(Debug, Default)]
pub struct Room {
    /// Ciphertext as it came.
    inbound: RefCell<Vec<u8>>,
    /// A record's worth of plaintext, put together from parts.
    staging: RefCell<Vec<u8>>,
    /// Ciphertext to go.
    outbound: RefCell<Vec<u8>>,
    sessions: Cell<usize>,
    /// Bytes in the buffers that sessions hold of their own.
    held: Cell<usize>,
}

impl Room {
    /// Sessions that are open, parked ones included.
    pub fn sessions(&self) -> usize {
        self.sessions.get()
    }

    /// Memory of the sessions, of what they hold and of the buffers that they share, in bytes; what rustls holds beside a
    /// session is not in it.
    pub fn bytes(&self) -> usize {
        let shared = self.inbound.borrow().len() + self.staging.borrow().capacity() + self.outbound.borrow().len();
        shared + self.held.get() + self.sessions.get() * size_of::<RefCell<Inner>>()
    }
}

/// A secured connection.
#[derive(Debug)]
pub struct Secured {
    socket: Socket,
    inner: Box<RefCell<Inner>>,
}

/// A secured connection without its socket: what is kept of it while it is parked.
#[derive(Debug)]
pub struct Idle(Box<RefCell<Inner>>);

impl Idle {
    /// Tells the peer that no more comes, as far as the socket takes that at once.
    pub fn say_end(self, fd: &OwnedFd) {
        let mut inner = self.0.borrow_mut();
        if inner.queue_end().is_ok() {
            let _ = rustix::net::send(fd, &inner.unsent[inner.sent..], SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        }
    }
}

enum Session {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

struct Inner {
    session: Session,
    room: Rc<Room>,
    /// Ciphertext that was read and not used: the beginning of a record, or all that came behind a handshake.
    partial: Vec<u8>,
    /// Whether `partial` may hold a whole record.
    is_partial_fresh: bool,
    /// What came in one flight with the end of a handshake, opened.
    opened: Vec<u8>,
    /// Ciphertext that the socket did not take yet.
    unsent: Vec<u8>,
    sent: usize,
    /// The peer said that it sends no more.
    has_ended: bool,
    has_said_end: bool,
    /// rustls gave it up: it may not be asked about anything any more.
    is_broken: bool,
    /// What the client asked for; taken when the facts are noted.
    hello: Option<Hello>,
    facts: Option<Rc<SessionFacts>>,
    /// Whether the peer may show a chain of certificates.
    expects_chain: bool,
    /// What of `partial`, `opened` and `unsent` is counted in the room, in bytes.
    counted: usize,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("partial", &self.partial.len()).field("has_ended", &self.has_ended).finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.room.sessions.set(self.room.sessions.get() - 1);
        self.room.held.set(self.room.held.get() - self.counted);
    }
}

/// A session while something is done with it; what it holds then is counted after.
struct Held<'a>(RefMut<'a, Inner>);

impl Deref for Held<'_> {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.0
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.count();
    }
}

/// What a handshake came to.
#[derive(Debug)]
pub struct Shaken<'a> {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// What was agreed by ALPN.
    pub protocol: Option<&'a [u8]>,
    /// What the peer showed, its own certificate first; in the session's first handshake if this one took it up again.
    pub peer_certificates: &'a [CertificateDer<'static>],
    /// Whether an earlier session was resumed.
    pub is_resumed: bool,
}

/// What requests over a session have to know of it. Noted once after the handshake.
#[derive(Debug)]
pub struct SessionFacts {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// Whether HTTP/2 was agreed by ALPN.
    pub is_http2: bool,
    /// The client's certificate as a byte sequence of a structured field (RFC 9440, section 2.2).
    pub client_certificate: Option<Box<[u8]>>,
    /// What the client asked for.
    pub hello: Option<Hello>,
}

impl Secured {
    /// The server's side of a handshake that begins now. `read` is what of the client's first flight came already, and
    /// `asks` whether the configuration asks for a certificate.
    ///
    /// # Errors
    /// When rustls has no randomness or finds the configuration wanting.
    pub fn accept(
        socket: Socket,
        config: Arc<rustls::ServerConfig>,
        asks: bool,
        room: &Rc<Room>,
        read: Vec<u8>,
    ) -> io::Result<Self> {
        let session = UnbufferedServerConnection::new(config).map_err(invalid)?;
        let secured = Secured::new(socket, Session::Server(session), room, read);
        secured.held().expects_chain = asks;
        Ok(secured)
    }

    /// The client's side of a handshake that begins now.
    ///
    /// # Errors
    /// When rustls has no randomness or finds the configuration wanting.
    pub fn connect(
        socket: Socket,
        config: Arc<rustls::ClientConfig>,
        name: rustls::pki_types::ServerName<'static>,
        room: &Rc<Room>,
    ) -> io::Result<Self> {
        let session = UnbufferedClientConnection::new(config, name).map_err(invalid)?;
        let secured = Secured::new(socket, Session::Client(session), room, Vec::new());
        secured.held().advance(&mut [])?;
        Ok(secured)
    }

    fn new(socket: Socket, session: Session, room: &Rc<Room>, read: Vec<u8>) -> Self {
        room.sessions.set(room.sessions.get() + 1);
        let inner = Inner {
            session,
            room: room.clone(),
            is_partial_fresh: !read.is_empty(),
            partial: read,
            opened: Vec::new(),
            unsent: Vec::new(),
            sent: 0,
            has_ended: false,
            has_said_end: false,
            is_broken: false,
            hello: None,
            facts: None,
            expects_chain: true,
            counted: 0,
        };
        Secured { socket, inner: Box::new(RefCell::new(inner)) }
    }

    fn held(&self) -> Held<'_> {
        Held(self.inner.borrow_mut())
    }

    /// Takes it apart for the parking lot.
    pub fn into_parts(self) -> (OwnedFd, Idle) {
        self.held().shrink();
        (self.socket.into_fd(), Idle(self.inner))
    }

    /// Puts it together again.
    pub fn resume(socket: Socket, idle: Idle) -> Self {
        Secured { socket, inner: idle.0 }
    }

    /// Does the next steps of the handshake. `poll_turn` is asked before each step that costs real work.
    ///
    /// # Errors
    /// What the peer got wrong (it has been sent an alert), or what the socket says.
    pub fn poll_handshake(
        &self,
        cx: &mut Context<'_>,
        mut poll_turn: impl FnMut(&mut Context<'_>) -> Poll<()>,
    ) -> Poll<io::Result<()>> {
        let inner = &mut *self.held();
        let room = inner.room.clone();
        loop {
            // Not waited for before reading: the peer may be waiting to be read itself.
            let flushed = inner.poll_flush(cx, &self.socket)?;
            if !inner.session.is_handshaking() {
                return flushed.map(Ok);
            }
            if !inner.is_partial_fresh {
                ready!(self.socket.poll_readable(cx))?;
            }
            ready!(poll_turn(cx));
            let mut inbound = inner.take_inbound(&room);
            let held = inner.partial.len();
            let n = if std::mem::take(&mut inner.is_partial_fresh) {
                0
            } else {
                match ready!(self.socket.poll_recv(cx, &mut inbound[held..]))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                    n => n,
                }
            };
            let advanced = inner.advance(&mut inbound[..held + n]);
            // In the same breath: it is this thread's last hello.
            inner.hello = tls::take_hello().or(inner.hello.take());
            if let Err(error) = advanced {
                // The alert that tells the peer why.
                let _ = inner.flush(&self.socket);
                return Poll::Ready(Err(error));
            }
        }
    }

    /// Looks at what the handshake came to.
    pub fn with_shaken<T>(&self, look: impl FnOnce(Shaken<'_>) -> T) -> T {
        look(self.inner.borrow().session.shaken())
    }

    /// Notes what requests have to know of the session.
    pub fn note(&self, facts: Rc<SessionFacts>) {
        self.inner.borrow_mut().facts = Some(facts);
    }

    /// What the client asked for; once.
    pub fn take_hello(&self) -> Option<Hello> {
        self.inner.borrow_mut().hello.take()
    }

    /// What was noted.
    pub fn facts(&self) -> Option<Rc<SessionFacts>> {
        self.inner.borrow().facts.clone()
    }

    /// See [`super::Stream::recv`].
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        let inner = &mut *self.held();
        match inner.poll_open(buf, |bytes| Poll::Ready(self.socket.recv(bytes))) {
            Poll::Ready(read) => read,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// See [`super::Stream::poll_recv`].
    pub fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let inner = &mut *self.held();
        inner.poll_open(buf, |bytes| self.socket.poll_recv(cx, bytes))
    }

    /// See [`super::Stream::poll_readable`].
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.inner.borrow().has_more() { Poll::Ready(Ok(())) } else { self.socket.poll_readable(cx) }
    }

    /// See [`super::Stream::peer`].
    pub fn peer(&self) -> Option<SocketAddr> {
        self.socket.peer()
    }

    /// See [`super::Stream::poll_writable`].
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_writable(cx)
    }

    /// See [`super::Stream::is_quiet`]. What the peer sent may be a ticket only.
    pub fn is_quiet(&self) -> bool {
        let inner = &mut *self.held();
        // With a part of a record its peer is not done either: the rest would be taken for an answer's beginning.
        if inner.has_more() || !inner.partial.is_empty() {
            return false;
        }
        if self.socket.is_quiet() {
            return true;
        }
        let room = inner.room.clone();
        let mut inbound = inner.take_inbound(&room);
        let held = inner.partial.len();
        match self.socket.recv(&mut inbound[held..]) {
            Ok(n @ 1..) => {
                inner.advance(&mut inbound[..held + n]).is_ok() && !inner.has_more() && inner.partial.is_empty()
            }
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
            Ok(_) => false,
        }
    }

    /// See [`super::Stream::send`]. Takes all or nothing; what the socket has no room for waits, sealed.
    pub fn send(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let inner = &mut *self.held();
        inner.flush(&self.socket)?;
        inner.seal(bufs, &self.socket)
    }

    /// See [`super::Stream::poll_send`].
    pub fn poll_send(&self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let inner = &mut *self.held();
        ready!(inner.poll_flush(cx, &self.socket))?;
        Poll::Ready(inner.seal(bufs, &self.socket))
    }

    /// See [`super::Stream::unsent`].
    pub fn unsent(&self) -> usize {
        let inner = self.inner.borrow();
        inner.unsent.len() - inner.sent
    }

    /// See [`super::Stream::poll_flush`].
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.held().poll_flush(cx, &self.socket)
    }

    /// Tells the peer that no more comes (`close_notify`); it may send on.
    pub fn say_end(&self) {
        let inner = &mut *self.held();
        if !std::mem::replace(&mut inner.has_said_end, true) {
            // An alert that waits goes out even where nothing can be said any more.
            let _ = inner.queue_end();
            let _ = inner.flush(&self.socket);
        }
    }

    /// See [`super::Stream::shutdown_write`].
    pub fn shutdown_write(&self) {
        self.say_end();
        self.socket.shutdown_write();
    }

    /// See [`super::Stream::reset_on_close`].
    pub fn reset_on_close(&self) {
        // Nor may it be told that this was all.
        self.inner.borrow_mut().has_said_end = true;
        self.socket.reset_on_close();
    }
}

impl Inner {
    /// Holds no more memory than what is kept needs: of a record that is not whole, its beginning.
    fn shrink(&mut self) {
        [&mut self.partial, &mut self.opened, &mut self.unsent].into_iter().for_each(Vec::shrink_to_fit);
    }

    /// Brings the room's count up to date.
    fn count(&mut self) {
        let holds = self.partial.capacity() + self.opened.capacity() + self.unsent.capacity();
        let before = std::mem::replace(&mut self.counted, holds);
        self.room.held.set(self.room.held.get() + holds - before);
    }

    /// How much of what came may wait for its rest, in bytes.
    fn partial_bytes_max(&self) -> usize {
        match &self.session {
            session if !session.is_handshaking() => PARTIAL_BYTES_MAX,
            Session::Server(_) if self.hello.is_none() => HELLO_BYTES_MAX,
            _ if self.expects_chain => CHAIN_BYTES_MAX,
            _ => PARTIAL_BYTES_MAX,
        }
    }

    /// Whether there is something to be read without asking the socket.
    fn has_more(&self) -> bool {
        self.is_partial_fresh || self.has_ended || self.is_broken || !self.opened.is_empty()
    }

    /// The room for ciphertext, with what is held of it in front.
    fn take_inbound<'r>(&self, room: &'r Room) -> std::cell::RefMut<'r, Vec<u8>> {
        let mut inbound = room.inbound.borrow_mut();
        inbound.resize(SCRATCH_BYTES, 0);
        let held = self.partial.len().min(SCRATCH_BYTES);
        inbound[..held].copy_from_slice(&self.partial[..held]);
        inbound
    }

    /// Reads until something is opened; 0 is the peer's orderly end.
    fn poll_open(
        &mut self,
        buf: &mut [u8],
        mut read: impl FnMut(&mut [u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let room = self.room.clone();
        loop {
            if !self.opened.is_empty() {
                return Poll::Ready(Ok(self.take_opened(buf)));
            }
            if self.is_broken {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            if self.has_ended {
                return Poll::Ready(Ok(0));
            }
            let mut inbound = self.take_inbound(&room);
            let held = self.partial.len();
            // Where little is wanted, no more records are opened than are needed for one to be whole.
            let most = inbound.len().min(held + buf.len().max(PARTIAL_BYTES_MAX));
            let n = if std::mem::take(&mut self.is_partial_fresh) {
                0
            } else {
                match ready!(read(&mut inbound[held..most]))? {
                    // Without a word: what ends with the connection could have been cut by anybody.
                    0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                    n => n,
                }
            };
            let filled = self.open(&mut inbound[..held + n], buf)?;
            if filled > 0 {
                return Poll::Ready(Ok(filled));
            }
        }
    }

    fn take_opened(&mut self, buf: &mut [u8]) -> usize {
        let n = self.opened.len().min(buf.len());
        buf[..n].copy_from_slice(&self.opened[..n]);
        self.opened.drain(..n);
        if self.opened.is_empty() {
            self.opened = Vec::new();
        }
        n
    }

    /// Opens the records in `bytes` into `buf`; what does not fit is kept opened.
    fn open(&mut self, bytes: &mut [u8], buf: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        let mut more = std::mem::take(&mut self.opened);
        let opened = self.process(bytes, &mut |piece| {
            let n = piece.len().min(buf.len() - filled);
            buf[filled..filled + n].copy_from_slice(&piece[..n]);
            filled += n;
            more.extend_from_slice(&piece[n..]);
        });
        self.opened = more;
        // What was whole before the break is the peer's all the same.
        if filled > 0 { Ok(filled) } else { opened.map(|()| 0) }
    }

    /// Takes in ciphertext of which no plaintext is expected; what comes is kept opened.
    fn advance(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        let mut opened = std::mem::take(&mut self.opened);
        let done = self.process(bytes, &mut |piece| opened.extend_from_slice(piece));
        self.opened = opened;
        done
    }

    /// Takes in ciphertext as far as it is whole; what is left of it is kept.
    fn process(&mut self, bytes: &mut [u8], take: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let mut used = 0;
        let done = loop {
            let (discard, step) = self.session.step(&mut bytes[used..], &mut self.unsent, take, Wanted::Nothing);
            used += discard;
            match step {
                Ok(Step::Again) => {}
                Ok(Step::Waits) => break Ok(()),
                Ok(Step::Ended) => {
                    self.has_ended = true;
                    used = bytes.len();
                    break Ok(());
                }
                Err(error) => {
                    // The alert is taken along before the error is told; it may stand behind other messages. No further
                    // than that: rustls may not be asked about the bytes themselves again.
                    while self.session.wants_write() {
                        let _ = self.session.step(&mut [], &mut self.unsent, take, Wanted::Nothing);
                    }
                    break Err(error);
                }
            }
        };
        let rest = bytes.len() - used.min(bytes.len());
        self.is_broken = done.is_err() || rest > self.partial_bytes_max();
        self.keep(if self.is_broken { &[] } else { &bytes[bytes.len() - rest..] });
        if self.is_broken { done.and(Err(io::ErrorKind::InvalidData.into())) } else { done }
    }

    /// Keeps this, in no more room than that takes.
    fn keep(&mut self, rest: &[u8]) {
        let capacity = self.partial.capacity();
        if capacity < rest.len() || capacity / 2 > rest.len() {
            self.partial = rest.to_vec();
        } else {
            self.partial.clear();
            self.partial.extend_from_slice(rest);
        }
    }

    /// Seals `bufs`, and sends what the socket takes.
    fn seal(&mut self, bufs: &[IoSlice<'_>], socket: &Socket) -> io::Result<usize> {
        let total = bufs.iter().map(|buf| buf.len()).sum();
        let room = self.room.clone();
        let (mut staging, mut outbound) = (room.staging.borrow_mut(), room.outbound.borrow_mut());
        let mut sealer = Sealer { outbound: &mut outbound, used: 0 };
        staging.clear();
        for buf in bufs {
            let mut rest: &[u8] = buf;
            if staging.is_empty() && rest.len() >= RECORD_BYTES_MAX {
                let whole = rest.len() - rest.len() % RECORD_BYTES_MAX;
                self.seal_one(&rest[..whole], &mut sealer)?;
                rest = &rest[whole..];
            }
            while !rest.is_empty() {
                let n = rest.len().min(RECORD_BYTES_MAX - staging.len());
                staging.extend_from_slice(&rest[..n]);
                rest = &rest[n..];
                if staging.len() == RECORD_BYTES_MAX {
                    self.seal_one(&staging, &mut sealer)?;
                    staging.clear();
                }
            }
        }
        if !staging.is_empty() {
            self.seal_one(&staging, &mut sealer)?;
        }
        let sealed = &sealer.outbound[..sealer.used];
        // What rustls had to say first goes first.
        if self.unsent.is_empty() {
            let sent = match socket.send(&[IoSlice::new(sealed)]) {
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            self.unsent.extend_from_slice(&sealed[sent..]);
        } else {
            self.unsent.extend_from_slice(sealed);
            match self.flush(socket) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
        Ok(total)
    }

    /// Seals `plain` behind what `sealer` has.
    fn seal_one(&mut self, plain: &[u8], sealer: &mut Sealer<'_>) -> io::Result<()> {
        if self.is_broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        loop {
            // What is held goes along: rustls may be in the middle of a message that it has not all of.
            let mut opened = std::mem::take(&mut self.opened);
            let wanted = Wanted::Seal(plain, sealer);
            let (discard, done) =
                self.session.step(&mut self.partial, &mut self.unsent, &mut |p| opened.extend_from_slice(p), wanted);
            self.opened = opened;
            self.partial.drain(..discard.min(self.partial.len()));
            match done? {
                Step::Again => {}
                Step::Waits => return Ok(()),
                Step::Ended => self.has_ended = true,
            }
        }
    }

    fn queue_end(&mut self) -> io::Result<()> {
        if self.is_broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        loop {
            let (discard, done) = self.session.step(&mut self.partial, &mut self.unsent, &mut |_| (), Wanted::End);
            self.partial.drain(..discard.min(self.partial.len()));
            if let Step::Waits = done? {
                return Ok(());
            }
        }
    }

    /// One attempt to send what waits.
    fn flush(&mut self, socket: &Socket) -> io::Result<()> {
        while self.sent < self.unsent.len() {
            self.sent += socket.send(&[IoSlice::new(&self.unsent[self.sent..])])?;
        }
        self.all_sent();
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, socket: &Socket) -> Poll<io::Result<()>> {
        while self.sent < self.unsent.len() {
            self.sent += ready!(socket.poll_send(cx, &[IoSlice::new(&self.unsent[self.sent..])]))?;
        }
        self.all_sent();
        Poll::Ready(Ok(()))
    }

    fn all_sent(&mut self) {
        if self.unsent.capacity() > 0 {
            self.unsent = Vec::new();
        }
        self.sent = 0;
    }
}

/// Where sealed records go.
struct Sealer<'a> {
    outbound: &'a mut Vec<u8>,
    used: usize,
}

impl Sealer<'_> {
    /// Hands room for so many bytes of plaintext to `write`, and more as long as that is not enough.
    fn write(
        &mut self,
        plain: usize,
        mut write: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
    ) -> io::Result<()> {
        let records = plain.div_ceil(RECORD_BYTES_MAX);
        let mut room = plain + records * SEALING_BYTES_MAX + CONTROL_BYTES;
        loop {
            if self.outbound.len() < self.used + room {
                self.outbound.resize(self.used + room, 0);
            }
            match write(&mut self.outbound[self.used..]) {
                Ok(n) => {
                    self.used += n;
                    return Ok(());
                }
                Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size }))
                    if required_size > room =>
                {
                    room = required_size;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}

/// What a step is for, beside taking in what came.
enum Wanted<'w, 's> {
    Nothing,
    /// Seal this.
    Seal(&'w [u8], &'w mut Sealer<'s>),
    /// Tell the peer that no more comes.
    End,
}

/// What one step came to.
enum Step {
    /// There may be more to be done with what is there.
    Again,
    /// Done with what is there, and with what was wanted.
    Waits,
    /// The peer sends no more.
    Ended,
}

impl Session {
    fn is_handshaking(&self) -> bool {
        self.common().is_handshaking()
    }

    fn common(&self) -> &rustls::CommonState {
        match self {
            Session::Server(session) => session,
            Session::Client(session) => session,
        }
    }

    /// Whether rustls has messages of its own to be encoded.
    fn wants_write(&self) -> bool {
        self.common().wants_write()
    }

    fn shaken(&self) -> Shaken<'_> {
        let common = self.common();
        Shaken {
            version: match common.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "TLSv1.3",
            },
            protocol: common.alpn_protocol(),
            peer_certificates: common.peer_certificates().unwrap_or_default(),
            is_resumed: common.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
        }
    }

    /// One step with `bytes`; returns how many at their front are used up. What is opened goes to `take`, and what rustls
    /// has to say by itself behind `unsent`.
    fn step(
        &mut self,
        bytes: &mut [u8],
        unsent: &mut Vec<u8>,
        take: &mut dyn FnMut(&[u8]),
        wanted: Wanted<'_, '_>,
    ) -> (usize, io::Result<Step>) {
        match self {
            Session::Server(session) => step(session.process_tls_records(bytes), unsent, take, wanted),
            Session::Client(session) => step(session.process_tls_records(bytes), unsent, take, wanted),
        }
    }
}

fn step<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    unsent: &mut Vec<u8>,
    take: &mut dyn FnMut(&[u8]),
    wanted: Wanted<'_, '_>,
) -> (usize, io::Result<Step>) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Err(error) => Err(invalid(error)),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            let mut done = Ok(Step::Again);
            while let Some(record) = traffic.next_record() {
                match record {
                    Ok(record) => {
                        discard += record.discard;
                        take(record.payload);
                    }
                    Err(error) => done = Err(invalid(error)),
                }
            }
            done
        }
        // Early data is never offered, so none is to be had.
        Ok(ConnectionState::ReadEarlyData(_)) => Err(io::ErrorKind::InvalidData.into()),
        Ok(ConnectionState::EncodeTlsData(mut data)) => encode(unsent, |room| data.encode(room)).map(|()| Step::Again),
        Ok(ConnectionState::TransmitTlsData(transmit)) => {
            transmit.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::WriteTraffic(mut traffic)) => match wanted {
            Wanted::Nothing => Ok(Step::Waits),
            Wanted::Seal(plain, sealer) => {
                sealer.write(plain.len(), |room| traffic.encrypt(plain, room)).map(|()| Step::Waits)
            }
            Wanted::End => {
                let mut sealer = Sealer { outbound: &mut Vec::new(), used: 0 };
                sealer.write(0, |room| traffic.queue_close_notify(room)).map(|()| {
                    unsent.extend_from_slice(&sealer.outbound[..sealer.used]);
                    Step::Waits
                })
            }
        },
        Ok(ConnectionState::PeerClosed) => Ok(Step::Ended),
        Ok(ConnectionState::Closed) if matches!(wanted, Wanted::Nothing) => Ok(Step::Ended),
        Ok(_) if matches!(wanted, Wanted::Nothing) => Ok(Step::Waits),
        Ok(_) => Err(io::ErrorKind::NotConnected.into()),
    };
    (discard, step)
}

/// Adds a record that rustls made by itself.
fn encode(out: &mut Vec<u8>, mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>) -> io::Result<()> {
    let before = out.len();
    let mut room = CONTROL_BYTES;
    loop {
        out.resize(before + room, 0);
        match encode(&mut out[before..]) {
            Ok(n) => {
                out.truncate(before + n);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) if required_size > room => {
                room = required_size;
            }
            Err(error) => {
                out.truncate(before);
                return Err(io::Error::other(error));
            }
        }
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests;
