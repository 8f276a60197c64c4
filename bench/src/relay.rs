//! `speedmimi-bench relay`: passes bytes between a client and a backend without looking at them, one to one.
//!
//! Owns the floor that proxies are compared with: what accepting, two sockets and epoll cost on this machine. Never
//! parses HTTP, keeps no pool, and is no proxy to use: one thread, no timeouts.

use crate::error::{Error, Result, Trying};
use crate::net::{self, ACCEPT_REST, Acceptor, Interest, Poller, Received};
use crate::slab::Slab;
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

/// Bytes moved at once.
const MOVE_BYTES: usize = 64 * 1024;
const LISTENER: u64 = u64::MAX;
/// Connections accepted before the others are served again.
const ACCEPT_COUNT_MAX: usize = 64;
/// Empty pipes kept for later, at most.
const PIPES_COUNT_MAX: usize = 64;

/// From where to where.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Address to listen on; port 0 lets the system choose
    #[arg(long, default_value = "127.0.0.1:8082")]
    pub listen: SocketAddr,
    /// Where the bytes go
    #[arg(long)]
    pub to: SocketAddr,
    /// How the bytes are moved
    #[arg(long, value_enum, default_value_t = Mode::Copy)]
    pub mode: Mode,
}

/// How bytes are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// recv(2) and send(2) through a buffer.
    Copy,
    /// splice(2) through a pipe: the bytes stay in the kernel.
    Splice,
}

/// Relays until it is ended.
///
/// # Errors
/// When it can't listen or wait; what happens to one pair ends that pair only.
pub fn run(options: &Options) -> Result<()> {
    if !options.listen.ip().is_loopback() || !options.to.ip().is_loopback() {
        return Err(Error::Usage("the relay is for measuring on this machine: loopback addresses only".into()));
    }
    net::descriptors_max();
    let listener = net::listen(options.listen, false)?;
    eprintln!("listening on http://{}", net::local_address(&listener)?);
    let poller = Poller::new()?;
    let acceptor = Acceptor::new(listener, LISTENER, &poller)?;
    let mover = Mover { mode: options.mode, scratch: vec![0; MOVE_BYTES], pipes: Vec::new() };
    let mut relay = Relay { to: options.to, acceptor, poller, pairs: Slab::default(), mover };
    loop {
        relay.turn()?;
    }
}

/// One direction's bytes that were read and could not be written.
#[derive(Default)]
enum Left {
    #[default]
    None,
    Bytes(Vec<u8>, usize),
    Piped(Pipe, usize),
}

struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
}

/// One end of a pair and what it still has to take.
struct End {
    fd: OwnedFd,
    /// From the other end, for this one.
    left: Left,
    /// The other end sent its end, which this one was told.
    shut: bool,
    interest: Interest,
}

struct Pair {
    ends: [End; 2],
}

struct Relay {
    to: SocketAddr,
    acceptor: Acceptor,
    poller: Poller,
    pairs: Slab<Pair>,
    mover: Mover,
}

impl Relay {
    fn turn(&mut self) -> Result<()> {
        let count = self.poller.wait(self.acceptor.is_resting().then_some(ACCEPT_REST))?;
        self.acceptor.turn(&self.poller)?;
        for index in 0..count {
            let ready = self.poller.ready(index);
            if ready.token == LISTENER {
                self.accept()?;
                continue;
            }
            // The lowest bit of a token is the side.
            let (at, side) = (ready.token >> 1, (ready.token & 1) as usize);
            let Some(pair) = self.pairs.get_mut(at) else { continue };
            let served = serve(pair, side, ready.readable, ready.writable, &mut self.mover)
                .and_then(|over| watch(&self.poller, pair, at).map(|()| over));
            if !matches!(served, Ok(false)) {
                self.pairs.remove(at);
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<()> {
        for _ in 0..ACCEPT_COUNT_MAX {
            let Some(client) = self.acceptor.accept(&self.poller)? else { break };
            // Without a backend the client just sees its end.
            let _ = self.join(client);
        }
        Ok(())
    }

    fn join(&mut self, client: OwnedFd) -> Result<()> {
        let (backend, done) = net::connect(self.to, None).trying(|| format!("connecting to {}", self.to))?;
        let at = self.pairs.next_token() << 1;
        let backend_interest = if done { Interest::Read } else { Interest::Both };
        self.poller.add(&client, at, Interest::Read)?;
        self.poller.add(&backend, at | 1, backend_interest)?;
        let end = |fd, interest| End { fd, left: Left::None, shut: false, interest };
        self.pairs.insert(Pair { ends: [end(client, Interest::Read), end(backend, backend_interest)] });
        Ok(())
    }
}

/// Moves what can be moved; true when the pair is over.
fn serve(pair: &mut Pair, side: usize, readable: bool, writable: bool, mover: &mut Mover) -> io::Result<bool> {
    let [client, backend] = &mut pair.ends;
    let (from, to) = if side == 0 { (client, backend) } else { (backend, client) };
    if writable {
        mover.write_left(from)?;
    }
    if readable && matches!(to.left, Left::None) && !to.shut && mover.pass(from, to)? {
        rustix::net::shutdown(&to.fd, rustix::net::Shutdown::Write)?;
        to.shut = true;
    }
    Ok(pair.ends.iter().all(|end| end.shut))
}

/// Watches each end for what can be done with it now.
fn watch(poller: &Poller, pair: &mut Pair, at: u64) -> io::Result<()> {
    for side in 0..2 {
        // An end is read while the other one has room and was not told of this one's end.
        let other = &pair.ends[1 - side];
        let reads = matches!(other.left, Left::None) && !other.shut;
        let writes = !matches!(pair.ends[side].left, Left::None);
        let wanted = match (reads, writes) {
            (true, true) => Interest::Both,
            (true, false) => Interest::Read,
            (false, true) => Interest::Write,
            (false, false) => Interest::Nothing,
        };
        let end = &mut pair.ends[side];
        if end.interest != wanted {
            end.interest = wanted;
            poller.modify(&end.fd, at << 1 | side as u64, wanted).map_err(io::Error::other)?;
        }
    }
    Ok(())
}

/// Moves bytes in one of the two ways.
struct Mover {
    mode: Mode,
    scratch: Vec<u8>,
    /// Empty ones.
    pipes: Vec<Pipe>,
}

impl Mover {
    /// Moves once; true when `from` sent its end.
    fn pass(&mut self, from: &End, to: &mut End) -> io::Result<bool> {
        match self.mode {
            Mode::Copy => self.copy(from, to),
            Mode::Splice => self.splice(from, to),
        }
    }

    fn copy(&mut self, from: &End, to: &mut End) -> io::Result<bool> {
        let len = match net::receive(&from.fd, &mut self.scratch)? {
            Received::Bytes(len) => len,
            Received::End => return Ok(true),
            Received::Later => return Ok(false),
        };
        let sent = send_or_wait(&to.fd, &self.scratch[..len])?;
        if sent < len {
            to.left = Left::Bytes(self.scratch[sent..len].to_vec(), 0);
        }
        Ok(false)
    }

    fn splice(&mut self, from: &End, to: &mut End) -> io::Result<bool> {
        let pipe = match self.pipes.pop() {
            Some(pipe) => pipe,
            None => {
                let (out, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
                Pipe { out, into }
            }
        };
        let len = match move_spliced(&from.fd, &pipe.into, MOVE_BYTES)? {
            Received::Bytes(len) => len,
            other => {
                self.pipes.push(pipe);
                return Ok(other == Received::End);
            }
        };
        let sent = match move_spliced(&pipe.out, &to.fd, len)? {
            Received::Bytes(sent) => sent,
            _ => 0,
        };
        if sent < len {
            to.left = Left::Piped(pipe, len - sent);
        } else {
            self.keep(pipe);
        }
        Ok(false)
    }

    fn write_left(&mut self, end: &mut End) -> io::Result<()> {
        match &mut end.left {
            Left::None => {}
            Left::Bytes(bytes, sent) => {
                *sent += send_or_wait(&end.fd, &bytes[*sent..])?;
                if *sent == bytes.len() {
                    end.left = Left::None;
                }
            }
            Left::Piped(pipe, left) => {
                if let Received::Bytes(len) = move_spliced(&pipe.out, &end.fd, *left)? {
                    *left -= len;
                }
                if *left == 0
                    && let Left::Piped(pipe, _) = std::mem::take(&mut end.left)
                {
                    self.keep(pipe);
                }
            }
        }
        Ok(())
    }

    fn keep(&mut self, pipe: Pipe) {
        if self.pipes.len() < PIPES_COUNT_MAX {
            self.pipes.push(pipe);
        }
    }
}

/// A backend that is still being connected to takes nothing yet.
fn send_or_wait(fd: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    match net::send(fd, bytes) {
        Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(0),
        other => other,
    }
}

fn move_spliced(from: impl AsFd, to: impl AsFd, len: usize) -> io::Result<Received> {
    use rustix::io::Errno;
    match splice(from, None, to, None, len, SpliceFlags::MOVE | SpliceFlags::NONBLOCK) {
        Ok(0) => Ok(Received::End),
        Ok(len) => Ok(Received::Bytes(len)),
        Err(Errno::AGAIN | Errno::INTR | Errno::NOTCONN) => Ok(Received::Later),
        Err(e) => Err(e.into()),
    }
}
