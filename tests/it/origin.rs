//! A scripted origin: the server behind the proxy in a test.
//!
//! Owns a listener on a port of its own that can be killed and brought back, one thread a connection, a record of every
//! byte it was sent, and counts. What it answers is a closure over [`Exchange`], or [`by_path`] for the usual needs.
//! Never judges what it got: tests do, from [`Origin::connections`] and [`Origin::requests`].

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::websocket;
use crate::wire::{Framing, Request, Sock, Tls, Trouble, Wire, lock};

/// How long a test waits for anything before it fails.
pub const WATCHDOG: Duration = Duration::from_secs(30);
/// Stack of a connection's thread, in bytes; small, so that a thousand are no burden. Buffers of debug builds and a handler
/// for each of four signals, one within the other, overflowed a quarter of it once in a storm of signals.
const STACK_BYTES: usize = 1024 * 1024;

/// What happens to the connection after a script's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Reads the next request.
    KeepAlive,
    /// Closes in order at once.
    Close,
    /// Closes with a reset.
    Reset,
    /// Ends the sending half and records what still comes, until the peer ends its half.
    Listen,
}

type Script = dyn Fn(&mut Exchange) -> io::Result<Next> + Send + Sync;

/// What one connection brought.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Every byte received.
    pub bytes: Vec<u8>,
    /// Whether it is over.
    pub ended: bool,
}

/// A request with its content, as far as the script read it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Index of its connection, in the order of accepting.
    pub connection: usize,
    pub request: Request,
    pub body: Vec<u8>,
}

struct Record {
    tap: Arc<Mutex<Vec<u8>>>,
    ended: bool,
    sock: Option<Sock>,
    peer: Option<SocketAddr>,
}

#[derive(Default)]
struct State {
    connections: Vec<Record>,
    seen: Vec<Seen>,
    in_flight: usize,
    in_flight_max: usize,
    down: bool,
    gates: HashMap<String, Gate>,
}

/// What the listener, its connections and the test share.
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    script: Box<Script>,
    /// The answer to bytes that are no request.
    to_garbage: &'static [u8],
    /// Spoken where it is set.
    tls: Option<Arc<rustls::ServerConfig>>,
}

const REFUSAL: &[u8] = b"HTTP/1.1 400 Garbage\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const PERMISSION: &[u8] = b"HTTP/1.1 200 Garbage\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

impl Shared {
    fn change<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        let out = f(&mut lock(&self.state));
        self.changed.notify_all();
        out
    }
}

/// A door that a test opens when it is time.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// Lets everyone through, now and later.
    pub fn open(&self) {
        *lock(&self.0.0) = true;
        self.0.1.notify_all();
    }

    /// Waits until it is open; an error after [`WATCHDOG`].
    pub fn pass(&self) -> io::Result<()> {
        let shut = lock(&self.0.0);
        let (open, _) = self.0.1.wait_timeout_while(shut, WATCHDOG, |open| !*open).map_err(|_| io::ErrorKind::Other)?;
        if *open { Ok(()) } else { Err(io::Error::new(io::ErrorKind::TimedOut, "a gate that no test opened")) }
    }
}

enum Listener {
    /// Bound by number, so that it keeps its port while it does not listen.
    Tcp(Arc<Socket>, SocketAddr),
    Unix(PathBuf),
}

/// The server; dropping it ends everything it started.
pub struct Origin {
    shared: Arc<Shared>,
    listener: Listener,
}

impl Origin {
    /// Listens on a free port of 127.0.0.1.
    pub fn start(script: impl Fn(&mut Exchange) -> io::Result<Next> + Send + Sync + 'static) -> Origin {
        Origin::listen(Origin::share(script, REFUSAL))
    }

    /// As [`Origin::start`], but what is no request is answered with 200 as well: all refusing is left to the proxy.
    pub fn start_permissive(script: impl Fn(&mut Exchange) -> io::Result<Next> + Send + Sync + 'static) -> Origin {
        Origin::listen(Origin::share(script, PERMISSION))
    }

    /// As [`Origin::start`], over TLS.
    pub fn start_tls(
        config: Arc<rustls::ServerConfig>,
        script: impl Fn(&mut Exchange) -> io::Result<Next> + Send + Sync + 'static,
    ) -> Origin {
        let mut shared = Origin::share(script, REFUSAL);
        Arc::get_mut(&mut shared).expect("nobody else has it yet").tls = Some(config);
        Origin::listen(shared)
    }

    fn listen(shared: Arc<Shared>) -> Origin {
        let (socket, addr) = bind_by_number().expect("an origin needs a port");
        let origin = Origin { shared, listener: Listener::Tcp(Arc::new(socket), addr) };
        origin.revive();
        origin
    }

    /// Listens on a Unix socket; the path must not exist.
    pub fn start_unix(
        path: &Path,
        script: impl Fn(&mut Exchange) -> io::Result<Next> + Send + Sync + 'static,
    ) -> Origin {
        let listener = UnixListener::bind(path).expect("an origin needs its path");
        let shared = Origin::share(script, REFUSAL);
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if lock(&accepting.state).down {
                    return;
                }
                Origin::serve(&accepting, Sock::Unix(stream));
            }
        });
        Origin { shared, listener: Listener::Unix(path.to_owned()) }
    }

    fn share(
        script: impl Fn(&mut Exchange) -> io::Result<Next> + Send + Sync + 'static,
        to_garbage: &'static [u8],
    ) -> Arc<Shared> {
        Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            script: Box::new(script),
            to_garbage,
            tls: None,
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        match &self.listener {
            Listener::Tcp(_, addr) => *addr,
            Listener::Unix(path) => panic!("{} is a Unix socket", path.display()),
        }
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.addr().port()
    }

    /// Stops listening and cuts every connection. Connecting is refused until [`Origin::revive`]; the port stays ours.
    pub fn kill(&self) {
        self.shared.change(|state| {
            state.down = true;
            for record in &mut state.connections {
                if let Some(sock) = record.sock.take() {
                    // It may have ended by itself.
                    let _ = sock.shutdown(Shutdown::Both);
                }
            }
        });
        match &self.listener {
            // On Linux this ends listening but not the binding.
            Listener::Tcp(socket, _) => drop(socket.shutdown(Shutdown::Both)),
            // Accepts the wake and sees `down`.
            Listener::Unix(path) => {
                drop(Sock::unix(path));
                drop(std::fs::remove_file(path));
            }
        }
    }

    /// Listens again on the same port (TCP only).
    pub fn revive(&self) {
        let Listener::Tcp(socket, addr) = &self.listener else { panic!("only TCP origins come back") };
        self.shared.change(|state| state.down = false);
        socket.listen(4096).unwrap_or_else(|e| panic!("listening on {addr}: {e}"));
        let (socket, accepting) = (Arc::clone(socket), Arc::clone(&self.shared));
        thread::spawn(move || {
            while let Ok((stream, _)) = socket.accept() {
                let stream = std::net::TcpStream::from(stream);
                // A connection that is gone already shows itself at the first read.
                let _ = stream.set_nodelay(true);
                let sock = match accepting.tls.clone() {
                    None => Ok(Sock::Tcp(stream)),
                    Some(config) => Sock::tls_server(stream, config),
                };
                sock.into_iter().for_each(|sock| Origin::serve(&accepting, sock));
            }
        });
    }

    fn serve(shared: &Arc<Shared>, sock: Sock) {
        let Ok(handle) = sock.again() else { return };
        let peer = match &sock {
            Sock::Tcp(s) | Sock::Tls(Tls { bare: s, .. }) => s.peer_addr().ok(),
            Sock::Unix(_) => None,
        };
        let tap = Arc::new(Mutex::new(Vec::new()));
        let index = shared.change(|state| {
            state.connections.push(Record { tap: Arc::clone(&tap), ended: false, sock: Some(handle), peer });
            state.connections.len() - 1
        });
        let theirs = Arc::clone(shared);
        let work = move || {
            if let Ok(wire) = Wire::new(sock, WATCHDOG) {
                // Trouble ends the connection; what came is on record.
                let _ = Exchange::run(&theirs, index, wire.tapped(tap));
            }
            theirs.change(|state| {
                state.connections[index].ended = true;
                state.connections[index].sock = None;
            });
        };
        thread::Builder::new().stack_size(STACK_BYTES).spawn(work).expect("a thread for a connection");
    }

    /// The gate of that name, made at first use; [`Exchange::gate`] gives scripts the same one.
    pub fn gate(&self, name: &str) -> Gate {
        lock(&self.shared.state).gates.entry(name.to_owned()).or_default().clone()
    }

    /// What came, by connection, in the order of accepting.
    pub fn connections(&self) -> Vec<Connection> {
        let state = lock(&self.shared.state);
        state.connections.iter().map(|r| Connection { bytes: lock(&r.tap).clone(), ended: r.ended }).collect()
    }

    /// The requests so far. A request is listed once its head is read; its body as far as the script read it.
    pub fn requests(&self) -> Vec<Seen> {
        lock(&self.shared.state).seen.clone()
    }

    /// The only request so far.
    pub fn only_request(&self) -> Seen {
        let mut seen = self.requests();
        assert_eq!(seen.len(), 1, "requests at the origin: {seen:#?}");
        seen.remove(0)
    }

    /// Requests being answered now.
    pub fn in_flight(&self) -> usize {
        lock(&self.shared.state).in_flight
    }

    /// Most requests that were ever being answered at once. A request stops counting before its last byte is sent.
    pub fn in_flight_max(&self) -> usize {
        lock(&self.shared.state).in_flight_max
    }

    /// Waits until so many requests have come in all.
    pub fn wait_for_requests(&self, n: usize) {
        self.wait("requests", |state| state.seen.len() >= n);
    }

    /// Waits until so many requests are being answered at once.
    pub fn wait_for_in_flight(&self, n: usize) {
        self.wait("requests in flight", |state| state.in_flight == n);
    }

    /// Waits until so many connections were accepted in all.
    pub fn wait_for_connections(&self, n: usize) {
        self.wait("connections", |state| state.connections.len() >= n);
    }

    /// Waits until every connection is over.
    pub fn wait_for_silence(&self) {
        self.wait("the end of all connections", |state| state.connections.iter().all(|r| r.ended));
    }

    fn wait(&self, what: &str, done: impl Fn(&State) -> bool) {
        let state = lock(&self.shared.state);
        let waited = self.shared.changed.wait_timeout_while(state, WATCHDOG, |state| !done(state));
        let (state, late) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
        let (requests, connections, in_flight) = (state.seen.len(), state.connections.len(), state.in_flight);
        drop(state);
        let had = format!("{requests} requests, {connections} connections, {in_flight} in flight");
        assert!(!late.timed_out(), "the origin waited {WATCHDOG:?} for {what}; it had {had}");
    }

    /// What came since the last call, once it is all over. Meant for when the client is done: a connection of our own,
    /// which the listener accepts last, shows that none is still on its way. Connections without a byte are left out.
    pub fn settle(&self) -> Vec<Connection> {
        let before = lock(&self.shared.state).connections.len();
        let last = Sock::tcp(self.addr()).expect("an origin that listens");
        let ours = match &last {
            Sock::Tcp(s) => s.local_addr().expect("an address"),
            _ => unreachable!("TCP was asked for"),
        };
        self.wait("its own connection", |state| state.connections[before..].iter().any(|r| r.peer == Some(ours)));
        drop(last);
        self.wait_for_silence();
        let all = self.connections();
        self.shared.change(|state| {
            state.connections.clear();
            state.seen.clear();
        });
        all.into_iter().filter(|c| !c.bytes.is_empty()).collect()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        for gate in lock(&self.shared.state).gates.values() {
            gate.open();
        }
        self.kill();
    }
}

/// A socket bound to a free port by its number: such a binding outlives the end of listening.
fn bind_by_number() -> io::Result<(Socket, SocketAddr)> {
    let bind = |addr: SocketAddr| -> io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&addr.into())?;
        Ok(socket)
    };
    let finder = bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let addr = finder.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    // Neither listens, so both may hold it for the moment.
    Ok((bind(addr)?, addr))
}

/// One request and the way to its answer, in a script's hands.
pub struct Exchange {
    pub request: Request,
    /// Index of its connection.
    pub connection: usize,
    wire: Wire,
    shared: Arc<Shared>,
    seen_at: usize,
    unread: Framing,
    counted: bool,
}

impl Exchange {
    fn run(shared: &Arc<Shared>, connection: usize, mut wire: Wire) -> Result<(), Trouble> {
        loop {
            let request = match wire.request() {
                Ok(request) => request,
                Err(Trouble::Garbage { .. }) => return refuse(wire, shared.to_garbage),
                Err(Trouble::Quiet { partial }) if partial.is_empty() => continue,
                Err(other) => return Err(other),
            };
            let mut exchange = Exchange::enter(shared, connection, wire, request);
            let next = (shared.script)(&mut exchange);
            exchange.leave();
            wire = match next {
                Ok(Next::KeepAlive) => {
                    exchange.body()?;
                    exchange.wire
                }
                Ok(Next::Close) | Err(_) => return Ok(()),
                Ok(Next::Reset) => return exchange.wire.sock.reset_on_close().map_err(Trouble::Socket),
                Ok(Next::Listen) => return listen(exchange.wire),
            };
        }
    }

    fn enter(shared: &Arc<Shared>, connection: usize, wire: Wire, request: Request) -> Exchange {
        let seen = Seen { connection, request: request.clone(), body: Vec::new() };
        let seen_at = shared.change(|state| {
            state.seen.push(seen);
            state.in_flight += 1;
            state.in_flight_max = state.in_flight_max.max(state.in_flight);
            state.seen.len() - 1
        });
        let (shared, unread) = (Arc::clone(shared), request.framing);
        Exchange { request, connection, wire, shared, seen_at, unread, counted: true }
    }

    /// Stops counting as in flight; before the last byte of an answer, so that the count never runs behind the proxy's.
    fn leave(&mut self) {
        if std::mem::take(&mut self.counted) {
            self.shared.change(|state| state.in_flight -= 1);
        }
    }

    /// The path without the query.
    pub fn path(&self) -> &str {
        self.request.target.split('?').next().unwrap_or_default()
    }

    /// Reads the content of the request to its end; the second time there is none left.
    pub fn body(&mut self) -> Result<Vec<u8>, Trouble> {
        let (body, _) = self.wire.body(std::mem::replace(&mut self.unread, Framing::None))?;
        let at = self.seen_at;
        self.shared.change(|state| {
            if let Some(seen) = state.seen.get_mut(at) {
                seen.body.extend_from_slice(&body);
            }
        });
        Ok(body)
    }

    /// Reads some bytes of what follows the head as they come, framing and all; empty = the peer's end.
    /// After this the content can't be read as content.
    pub fn read_raw(&mut self) -> io::Result<Vec<u8>> {
        self.unread = Framing::None;
        Ok(self.wire.take_some()?)
    }

    /// The next chunk of a chunked request; `None` at its end, whose trailers are dropped.
    pub fn read_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let chunk = self.wire.chunk()?;
        if chunk.is_none() {
            self.unread = Framing::None;
            self.wire.take(2)?;
        }
        Ok(chunk)
    }

    /// Sends bytes as part of an answer.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.sock.write_all(bytes)
    }

    /// Sends the last bytes of an answer.
    pub fn finish(&mut self, bytes: &[u8]) -> io::Result<Next> {
        self.leave();
        self.send(bytes)?;
        Ok(Next::KeepAlive)
    }

    /// Reads the request's content, then answers with a length.
    pub fn answer(&mut self, status: u16, body: &[u8]) -> io::Result<Next> {
        self.body()?;
        let head = format!("HTTP/1.1 {status} Scripted\r\nContent-Length: {}\r\n\r\n", body.len());
        let body = if self.request.method == "HEAD" { &[] } else { body };
        self.finish(&[head.as_bytes(), body].concat())
    }

    /// Ends the sending half.
    pub fn finish_sending(&self) -> io::Result<()> {
        self.wire.sock.shutdown(Shutdown::Write)
    }

    /// Never answers: returns when the peer ends the connection.
    pub fn hold(&mut self) -> io::Result<Next> {
        while !self.read_raw()?.is_empty() {}
        Ok(Next::Close)
    }

    /// The gate of that name; see [`Origin::gate`].
    pub fn gate(&self, name: &str) -> Gate {
        lock(&self.shared.state).gates.entry(name.to_owned()).or_default().clone()
    }

    /// Switches to WebSocket and sends every message back until the peer closes.
    pub fn websocket_echo(&mut self) -> io::Result<Next> {
        self.send(websocket::ACCEPTED)?;
        self.echo_frames()
    }

    /// Sends every WebSocket frame back, after a 101 of the script's own.
    pub fn echo_frames(&mut self) -> io::Result<Next> {
        loop {
            let frame = websocket::read(&mut self.wire)?;
            self.send(&websocket::frame(frame.opcode, &frame.payload, None))?;
            if frame.opcode == websocket::CLOSE {
                return Ok(Next::Close);
            }
        }
    }
}

/// Answers what is no request, and keeps on recording what follows.
fn refuse(mut wire: Wire, answer: &[u8]) -> Result<(), Trouble> {
    wire.sock.write_all(answer).map_err(Trouble::Socket)?;
    listen(wire)
}

fn listen(mut wire: Wire) -> Result<(), Trouble> {
    wire.sock.shutdown(Shutdown::Write).map_err(Trouble::Socket)?;
    let since = Instant::now();
    while since.elapsed() < WATCHDOG {
        if wire.take_some()?.is_empty() {
            return Ok(());
        }
    }
    Ok(())
}

/// The usual needs, by path; anything else is 200 `ok`.
///
/// | path | answer |
/// |---|---|
/// | `/status/N` | that status, no content |
/// | `/size/N` | N bytes of [`pattern`] |
/// | `/chunked/N`, `/trailers` | N chunks of `chunk` · a chunked answer with a trailer |
/// | `/echo` | the request's content |
/// | `/gate/NAME` | `ok`, once the test opens that gate |
/// | `/interim` | 103, then `ok` |
/// | `/early` | `early`, before the content is read |
/// | `/until-close`, `/bye` | ended by the connection's end · with `Connection: close` |
/// | `/close`, `/reset`, `/half` | the connection's end or reset before a byte · half of what was announced |
/// | `/garbage`, `/never` | no HTTP · nothing |
/// | `/ws` | a WebSocket that echoes |
pub fn by_path(exchange: &mut Exchange) -> io::Result<Next> {
    let path = exchange.path().to_owned();
    let mut words = path.split('/').skip(1);
    let (name, argument) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let number = argument.parse::<usize>().unwrap_or(0);
    match name {
        "status" => exchange.answer(u16::try_from(number).unwrap_or(500), b""),
        "size" => exchange.answer(200, &pattern(number)),
        "chunked" => {
            exchange.body()?;
            exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            for _ in 0..number {
                exchange.send(b"5\r\nchunk\r\n")?;
            }
            exchange.finish(b"0\r\n\r\n")
        }
        "trailers" => {
            exchange.body()?;
            exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n")?;
            exchange.finish(b"0\r\nX-Sum: 42\r\n\r\n")
        }
        "echo" => {
            let body = exchange.body()?;
            exchange.answer(200, &body)
        }
        "gate" => {
            exchange.body()?;
            exchange.gate(argument).pass()?;
            exchange.answer(200, b"ok")
        }
        "interim" => {
            exchange.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")?;
            exchange.answer(200, b"ok")
        }
        "close" => Ok(Next::Close),
        "reset" => Ok(Next::Reset),
        "half" => {
            exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")?;
            Ok(Next::Close)
        }
        "garbage" => exchange.finish(b"\x16\x03\x01 this is no HTTP\r\n\r\n"),
        "never" => exchange.hold(),
        "early" => exchange.finish(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly"),
        "ws" => exchange.websocket_echo(),
        "until-close" => {
            exchange.body()?;
            exchange.finish(b"HTTP/1.1 200 OK\r\n\r\nuntil close")?;
            Ok(Next::Close)
        }
        "bye" => {
            exchange.body()?;
            exchange.finish(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbye")?;
            Ok(Next::Close)
        }
        _ => exchange.answer(200, b"ok"),
    }
}

/// Bytes that show where they are from, to tell a shifted body from a whole one.
pub fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| b'a' + u8::try_from((i / 7 + i / 1021) % 26).unwrap_or(0)).collect()
}
