//! A scripted client: raw bytes out, strictly read answers in.
//!
//! Owns the client's end of a connection in a test. Never repairs, retries or follows anything; every wait has a bound,
//! after which the test fails with what had come by then.

use std::io::{self, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::origin::WATCHDOG;
use crate::websocket::{self, Frame};
use crate::wire::{Response, Sock, Trouble, Wire, show};

/// One connection to the proxy.
pub struct Client {
    pub wire: Wire,
}

/// Where a proxy can be reached.
#[derive(Clone, Debug)]
pub enum Door {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Client {
    /// Connects to either kind.
    pub fn open(door: &Door) -> Client {
        match door {
            Door::Tcp(addr) => Client::connect(*addr),
            Door::Unix(path) => Client::connect_unix(path),
        }
    }

    /// Connects, with [`WATCHDOG`] as the bound of every wait.
    pub fn connect(addr: SocketAddr) -> Client {
        Client::over(Sock::tcp(addr).unwrap_or_else(|e| panic!("connecting to {addr}: {e}")))
    }

    /// Connects from a given loopback address, e.g. 127.0.0.7, to be somebody else to `ip_hash` and access lists.
    pub fn connect_from(source: Ipv4Addr, addr: SocketAddr) -> Client {
        let connect = || -> io::Result<Sock> {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&SocketAddr::from((source, 0)).into())?;
            socket.connect(&addr.into())?;
            socket.set_tcp_nodelay(true)?;
            Ok(Sock::Tcp(TcpStream::from(socket)))
        };
        Client::over(connect().unwrap_or_else(|e| panic!("connecting from {source} to {addr}: {e}")))
    }

    /// Connects to a Unix socket.
    pub fn connect_unix(path: &Path) -> Client {
        Client::over(Sock::unix(path).unwrap_or_else(|e| panic!("connecting to {}: {e}", path.display())))
    }

    fn over(sock: Sock) -> Client {
        Client { wire: Wire::new(sock, WATCHDOG).expect("a bound for the client's waits") }
    }

    /// Changes the bound of every following wait.
    pub fn bound(&self, wait: Duration) {
        self.wire.sock.bound(wait).expect("a bound for the client's waits");
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap_or_else(|e| panic!("sending: {e}; had: {}", show(self.wire.pending())));
    }

    /// As [`Client::send`] where the peer may have closed.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.sock.write_all(bytes.as_ref())
    }

    /// Sends in pieces of `n` bytes, each with a write of its own.
    pub fn send_in_pieces(&mut self, bytes: &[u8], n: usize) {
        bytes.chunks(n).for_each(|piece| self.send(piece));
    }

    /// Sends a GET with `Host: a.test`.
    pub fn send_get(&mut self, target: &str) {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
    }

    /// Sends a GET and reads its answer.
    pub fn get(&mut self, target: &str) -> Response {
        self.send_get(target);
        self.response()
    }

    /// As [`Client::get`], for loads in which failing is counted.
    pub fn try_get(&mut self, target: &str) -> Result<Response, Trouble> {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        self.try_send(request).map_err(Trouble::Socket)?;
        self.wire.response("GET")
    }

    /// Sends a request with fields (without `Host`, which is `a.test`) and content of a known length; reads its answer.
    pub fn request(&mut self, method: &str, target: &str, fields: &[(&str, &str)], body: &[u8]) -> Response {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: a.test\r\n");
        for (name, value) in fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        self.send([head.as_bytes(), body].concat());
        self.response_to(method)
    }

    /// Reads the next final answer, to anything but HEAD.
    pub fn response(&mut self) -> Response {
        self.response_to("GET")
    }

    /// Reads the next final answer; the method decides whether it has content.
    pub fn response_to(&mut self, method: &str) -> Response {
        self.wire.response(method).unwrap_or_else(|trouble| panic!("reading an answer to {method}: {trouble}"))
    }

    /// Reads the next head only, interim ones too; [`Client::read`] then gives the bytes behind it.
    pub fn head(&mut self) -> Response {
        self.wire.response_head("GET").unwrap_or_else(|trouble| panic!("reading a head: {trouble}"))
    }

    /// Reads exactly `n` bytes.
    pub fn read(&mut self, n: usize) -> Vec<u8> {
        self.wire.take(n).unwrap_or_else(|trouble| panic!("reading {n} bytes: {trouble}"))
    }

    /// Reads everything until the peer's end.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        self.wire.take_to_end().unwrap_or_else(|trouble| panic!("reading to the end: {trouble}"))
    }

    /// The proxy must close in order without another byte.
    pub fn expect_end(&mut self) {
        let rest = self.read_to_end();
        assert!(rest.is_empty(), "bytes before the end: {}", show(&rest));
    }

    /// Ends the sending half.
    pub fn finish_sending(&self) {
        self.wire.sock.shutdown(Shutdown::Write).expect("ending the sending half");
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        self.wire.sock.reset_on_close().expect("asking for a reset");
    }

    /// Does the WebSocket handshake.
    pub fn upgrade(&mut self, path: &str) {
        self.send(websocket::request(path));
        let answer = self.head();
        assert_eq!(answer.status, 101, "the handshake's answer: {answer:?}");
        assert_eq!(answer.fields.one("sec-websocket-accept").as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    }

    /// Sends a masked frame.
    pub fn send_frame(&mut self, opcode: u8, payload: &[u8]) {
        self.send(websocket::frame(opcode, payload, Some([0x37, 0xfa, 0x21, 0x3d])));
    }

    /// Reads a frame.
    pub fn read_frame(&mut self) -> Frame {
        websocket::read(&mut self.wire).unwrap_or_else(|trouble| panic!("reading a frame: {trouble}"))
    }
}
