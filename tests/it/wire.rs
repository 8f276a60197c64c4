//! A strict HTTP/1.1 reader of the harness's own, shared by the scripted client and the scripted origin.
//!
//! Owns how bytes of a connection become heads and bodies in a test. Never uses code of the proxy: a reader that shares
//! the codec under test hides its bugs. Reads block, with a bound on each wait.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Longest head the harness reads, in bytes.
const HEAD_BYTES_MAX: usize = 1 << 20;

/// Locks whatever a panicking test left behind.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Any kind of connection.
#[derive(Debug)]
pub enum Sock {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Tls),
}

impl Sock {
    /// Connects over TCP, with Nagle's algorithm off.
    pub fn tcp(addr: SocketAddr) -> io::Result<Sock> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        Ok(Sock::Tcp(stream))
    }

    /// Connects to a Unix socket.
    pub fn unix(path: &Path) -> io::Result<Sock> {
        UnixStream::connect(path).map(Sock::Unix)
    }

    /// A second handle to the same socket.
    pub fn again(&self) -> io::Result<Sock> {
        match self {
            Sock::Tcp(s) => s.try_clone().map(Sock::Tcp),
            Sock::Unix(s) => s.try_clone().map(Sock::Unix),
            // The bare socket: it can be ended by that, but not read.
            Sock::Tls(s) => s.bare.try_clone().map(Sock::Tcp),
        }
    }

    /// Ends one or both directions.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Sock::Tcp(s) => s.shutdown(how),
            Sock::Unix(s) => s.shutdown(how),
            Sock::Tls(s) => {
                if how != Shutdown::Read {
                    lock(&s.session).say_end()?;
                }
                s.bare.shutdown(how)
            }
        }
    }

    /// Bounds every following read and write.
    pub fn bound(&self, wait: Duration) -> io::Result<()> {
        match self {
            Sock::Tcp(s) | Sock::Tls(Tls { bare: s, .. }) => {
                s.set_read_timeout(Some(wait)).and_then(|()| s.set_write_timeout(Some(wait)))
            }
            Sock::Unix(s) => s.set_read_timeout(Some(wait)).and_then(|()| s.set_write_timeout(Some(wait))),
        }
    }

    /// Makes the next close a reset (TCP only).
    pub fn reset_on_close(&self) -> io::Result<()> {
        match self {
            Sock::Tcp(s) | Sock::Tls(Tls { bare: s, .. }) => socket2::SockRef::from(s).set_linger(Some(Duration::ZERO)),
            Sock::Unix(_) => Ok(()),
        }
    }
}

/// TLS over TCP, by rustls as its users have it.
pub struct Tls {
    pub session: Mutex<Box<dyn Session>>,
    pub bare: TcpStream,
}

/// Either side of a session.
pub trait Session: Read + Write + Send {
    /// Sends `close_notify`.
    fn say_end(&mut self) -> io::Result<()>;
    /// What the handshake came to.
    fn handshake(&mut self) -> Option<rustls::HandshakeKind>;
}

impl Session for rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
    fn say_end(&mut self) -> io::Result<()> {
        self.conn.send_close_notify();
        self.flush()
    }

    fn handshake(&mut self) -> Option<rustls::HandshakeKind> {
        self.conn.handshake_kind()
    }
}

impl Session for rustls::StreamOwned<rustls::ServerConnection, TcpStream> {
    fn say_end(&mut self) -> io::Result<()> {
        self.conn.send_close_notify();
        self.flush()
    }

    fn handshake(&mut self) -> Option<rustls::HandshakeKind> {
        self.conn.handshake_kind()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bare.fmt(f)
    }
}

impl Sock {
    /// The client's side of a session, its handshake done.
    pub fn tls(bare: TcpStream, config: Arc<rustls::ClientConfig>, name: &str) -> io::Result<Sock> {
        let name = rustls::pki_types::ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let mut session = rustls::ClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut socket = bare.try_clone()?;
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        let session: Box<dyn Session> = Box::new(rustls::StreamOwned::new(session, socket));
        Ok(Sock::Tls(Tls { session: Mutex::new(session), bare }))
    }

    /// The server's side of a session; the handshake comes with the first read.
    pub fn tls_server(bare: TcpStream, config: Arc<rustls::ServerConfig>) -> io::Result<Sock> {
        let session = rustls::ServerConnection::new(config).map_err(io::Error::other)?;
        let session: Box<dyn Session> = Box::new(rustls::StreamOwned::new(session, bare.try_clone()?));
        Ok(Sock::Tls(Tls { session: Mutex::new(session), bare }))
    }
}

impl Read for Sock {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Sock::Tcp(s) => s.read(buf),
            Sock::Unix(s) => s.read(buf),
            Sock::Tls(s) => lock(&s.session).read(buf),
        }
    }
}

impl Write for Sock {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Sock::Tcp(s) => s.write(buf),
            Sock::Unix(s) => s.write(buf),
            Sock::Tls(s) => lock(&s.session).write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Sock::Tcp(_) | Sock::Unix(_) => Ok(()),
            Sock::Tls(s) => lock(&s.session).flush(),
        }
    }
}

/// Why nothing more could be read.
#[derive(Debug)]
pub enum Trouble {
    /// The peer ended the connection in order, with this much of a message (or nothing) read.
    Ended { partial: Vec<u8> },
    /// The bound of the wait passed.
    Quiet { partial: Vec<u8> },
    /// The bytes are not HTTP/1.
    Garbage { what: &'static str, seen: Vec<u8> },
    /// The socket failed, most often with a reset.
    Socket(io::Error),
}

impl Trouble {
    /// Whether the connection ended in order between two messages.
    pub fn is_clean_end(&self) -> bool {
        matches!(self, Trouble::Ended { partial } if partial.is_empty())
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Ended { partial } => write!(f, "the peer closed; unfinished: {}", show(partial)),
            Trouble::Quiet { partial } => write!(f, "nothing came in time; unfinished: {}", show(partial)),
            Trouble::Garbage { what, seen } => write!(f, "{what}: {}", show(seen)),
            Trouble::Socket(error) => write!(f, "socket: {error}"),
        }
    }
}

impl From<Trouble> for io::Error {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Socket(error) => error,
            other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
        }
    }
}

/// Bytes as readable text, cut to what a failure message can bear.
pub fn show(bytes: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 2000;
    let cut = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
    let more = if bytes.len() > cut.len() { format!(" … {} bytes in all", bytes.len()) } else { String::new() };
    format!("\"{}\"{more}", cut.escape_ascii())
}

/// Field lines in order, names as sent.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<(String, Vec<u8>)>);

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, value)| format!("{name}: {}", value.escape_ascii()))).finish()
    }
}

impl Fields {
    /// All values of a field, any case of its name.
    pub fn all(&self, name: &str) -> Vec<String> {
        let same = |(n, _): &&(String, Vec<u8>)| n.eq_ignore_ascii_case(name);
        self.0.iter().filter(same).map(|(_, v)| String::from_utf8_lossy(v).into_owned()).collect()
    }

    /// The value of a field that occurs at most once; more than one line fails the test.
    pub fn one(&self, name: &str) -> Option<String> {
        let mut all = self.all(name);
        assert!(all.len() <= 1, "{name} occurs {} times: {all:?}", all.len());
        all.pop()
    }

    /// Whether a comma-separated field has this member, any case.
    pub fn lists(&self, name: &str, member: &str) -> bool {
        self.all(name).iter().flat_map(|v| v.split(',')).any(|m| m.trim().eq_ignore_ascii_case(member))
    }
}

/// A start line and its fields.
#[derive(Clone, Debug)]
pub struct Head {
    /// The start line without its CRLF.
    pub start: String,
    pub fields: Fields,
    /// Every byte of the head with the empty line that ends it.
    pub raw: Vec<u8>,
}

impl Head {
    fn parse(raw: Vec<u8>) -> Result<Head, Trouble> {
        match Head::lines(&raw) {
            Ok((start, fields)) => Ok(Head { start, fields, raw }),
            Err(what) => Err(Trouble::Garbage { what, seen: raw }),
        }
    }

    fn lines(raw: &[u8]) -> Result<(String, Fields), &'static str> {
        let text = raw.strip_suffix(b"\r\n\r\n").ok_or("a head that does not end in an empty line")?;
        let mut lines = split_crlf(text).into_iter();
        let start = lines.next().ok_or("no start line")?;
        if start.iter().any(|b| b.is_ascii_control()) {
            return Err("a control character in the start line");
        }
        let fields = lines.map(field).collect::<Result<_, _>>()?;
        Ok((String::from_utf8_lossy(start).into_owned(), Fields(fields)))
    }

    /// How the content after this head ends, by its fields alone.
    fn framing(&self) -> Result<Framing, &'static str> {
        let te = self.fields.all("transfer-encoding");
        let lengths = self.fields.all("content-length");
        match (te.as_slice(), lengths.as_slice()) {
            ([], []) => Ok(Framing::None),
            ([], [one]) if !one.is_empty() && one.bytes().all(|b| b.is_ascii_digit()) => {
                one.parse().map(Framing::Length).map_err(|_| "Content-Length overflows")
            }
            ([coding], []) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
            ([], _) => Err("a malformed or repeated Content-Length"),
            (_, []) => Err("a transfer coding other than chunked"),
            _ => Err("both Content-Length and Transfer-Encoding"),
        }
    }
}

fn split_crlf(text: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = find(rest, b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.push(rest);
    lines
}

fn field(line: &[u8]) -> Result<(String, Vec<u8>), &'static str> {
    let colon = line.iter().position(|&b| b == b':').ok_or("a field line without a colon")?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    if name.is_empty() || !name.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b)) {
        return Err("a field name that is no token");
    }
    if value.iter().any(|b| b.is_ascii_control() && *b != b'\t') {
        return Err("a control character in a field value");
    }
    Ok((String::from_utf8_lossy(name).into_owned(), value.to_vec()))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(haystack, needle)
}

/// One chunk of content.
pub fn chunk(data: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}

/// All of `content` in chunks of `size` bytes, with the last one that ends it.
pub fn chunks(content: &[u8], size: usize) -> Vec<u8> {
    content.chunks(size).flat_map(chunk).chain(*b"0\r\n\r\n").collect()
}

/// How the content of a message ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No content.
    None,
    Length(u64),
    Chunked,
    /// At the end of the connection (answers only).
    Close,
}

/// A request as a backend got it.
#[derive(Clone)]
pub struct Request {
    pub method: String,
    pub target: String,
    /// `HTTP/1.1` or what else was sent.
    pub version: String,
    pub fields: Fields,
    pub framing: Framing,
    /// The head's bytes as they came.
    pub raw: Vec<u8>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show(&self.raw))
    }
}

/// An answer as a client got it.
#[derive(Clone)]
pub struct Response {
    pub version: String,
    pub status: u16,
    pub fields: Fields,
    pub framing: Framing,
    pub body: Vec<u8>,
    pub trailers: Fields,
    /// Interim answers that came before it, in order.
    pub interim: Vec<Response>,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Response { version, status, fields, framing, body, trailers, interim } = self;
        write!(f, "{version} {status} {fields:?} {framing:?} {}", show(body))?;
        write!(f, " trailers {trailers:?} after {interim:?}")
    }
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A socket with what was read from it and not used yet.
pub struct Wire {
    pub sock: Sock,
    buf: Vec<u8>,
    /// Every byte ever read is appended here as well.
    tap: Option<Arc<Mutex<Vec<u8>>>>,
}

impl Wire {
    /// Takes a socket; each wait on it is bounded by `wait`.
    pub fn new(sock: Sock, wait: Duration) -> io::Result<Wire> {
        sock.bound(wait)?;
        Ok(Wire { sock, buf: Vec::new(), tap: None })
    }

    /// Records every byte read from now on.
    pub fn tapped(mut self, tap: Arc<Mutex<Vec<u8>>>) -> Wire {
        self.tap = Some(tap);
        self
    }

    /// Bytes read and not used yet.
    pub fn pending(&self) -> &[u8] {
        &self.buf
    }

    /// Reads what there is; waits for the first byte. 0 = the peer's end.
    fn fill(&mut self) -> Result<usize, Trouble> {
        let mut chunk = [0; 16 * 1024];
        match self.sock.read(&mut chunk) {
            Ok(n) => {
                if let Some(tap) = &self.tap {
                    lock(tap).extend_from_slice(&chunk[..n]);
                }
                self.buf.extend_from_slice(&chunk[..n]);
                Ok(n)
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Err(Trouble::Quiet { partial: self.buf.clone() })
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => self.fill(),
            Err(e) => Err(Trouble::Socket(e)),
        }
    }

    /// As [`Wire::fill`], with the peer's end as trouble.
    fn fill_more(&mut self) -> Result<(), Trouble> {
        match self.fill()? {
            0 => Err(Trouble::Ended { partial: self.buf.clone() }),
            _ => Ok(()),
        }
    }

    /// Takes exactly `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<Vec<u8>, Trouble> {
        while self.buf.len() < n {
            self.fill_more()?;
        }
        Ok(self.buf.drain(..n).collect())
    }

    /// Takes whatever is there, at least a byte; empty = the peer's end.
    pub fn take_some(&mut self) -> Result<Vec<u8>, Trouble> {
        if self.buf.is_empty() {
            self.fill()?;
        }
        Ok(std::mem::take(&mut self.buf))
    }

    /// Takes everything up to and with `mark`.
    fn take_through(&mut self, mark: &[u8]) -> Result<Vec<u8>, Trouble> {
        loop {
            if let Some(at) = find(&self.buf, mark) {
                return self.take(at + mark.len());
            }
            if self.buf.len() > HEAD_BYTES_MAX {
                return Err(Trouble::Garbage { what: "a head or line without an end", seen: self.buf.clone() });
            }
            self.fill_more()?;
        }
    }

    /// Takes everything until the peer's end.
    pub fn take_to_end(&mut self) -> Result<Vec<u8>, Trouble> {
        while self.fill()? > 0 {}
        Ok(std::mem::take(&mut self.buf))
    }

    /// Reads a request head.
    pub fn request(&mut self) -> Result<Request, Trouble> {
        let head = Head::parse(self.take_through(b"\r\n\r\n")?)?;
        let garbage = |what| Trouble::Garbage { what, seen: head.raw.clone() };
        let parts: Vec<&str> = head.start.split(' ').collect();
        let [method, target, version] = parts[..] else { return Err(garbage("not three words in the request line")) };
        if !matches!(version, "HTTP/1.0" | "HTTP/1.1") {
            return Err(garbage("not a version that is known"));
        }
        let framing = head.framing().map_err(garbage)?;
        let (method, target, version) = (method.to_owned(), target.to_owned(), version.to_owned());
        Ok(Request { method, target, version, fields: head.fields, framing, raw: head.raw })
    }

    /// Reads a response head; an interim one counts. The body is not read.
    pub fn response_head(&mut self, method: &str) -> Result<Response, Trouble> {
        let head = Head::parse(self.take_through(b"\r\n\r\n")?)?;
        let garbage = |what| Trouble::Garbage { what, seen: head.raw.clone() };
        let (version, rest) = head.start.split_once(' ').ok_or_else(|| garbage("no status"))?;
        if !matches!(version, "HTTP/1.0" | "HTTP/1.1") {
            return Err(garbage("not an HTTP/1 status line"));
        }
        let digits = rest.split(' ').next().filter(|d| d.len() == 3 && rest.len() > 3);
        let status: u16 =
            digits.and_then(|d| d.parse().ok()).ok_or_else(|| garbage("no three-digit status and space"))?;
        let framing = answer_framing(&head, method, status).map_err(garbage)?;
        let (version, fields) = (version.to_owned(), head.fields);
        Ok(Response { version, status, fields, framing, body: vec![], trailers: Fields::default(), interim: vec![] })
    }

    /// Reads an answer in whole, with the interim ones before it.
    pub fn response(&mut self, method: &str) -> Result<Response, Trouble> {
        let mut interim = Vec::new();
        let mut answer = self.response_head(method)?;
        while answer.status < 200 && answer.status != 101 {
            interim.push(answer);
            answer = self.response_head(method)?;
        }
        (answer.body, answer.trailers) = self.body(answer.framing)?;
        answer.interim = interim;
        Ok(answer)
    }

    /// Reads content and trailers.
    pub fn body(&mut self, framing: Framing) -> Result<(Vec<u8>, Fields), Trouble> {
        match framing {
            Framing::None => Ok((Vec::new(), Fields::default())),
            Framing::Length(n) => {
                let n = usize::try_from(n)
                    .map_err(|_| Trouble::Garbage { what: "a length beyond memory", seen: vec![] })?;
                Ok((self.take(n)?, Fields::default()))
            }
            Framing::Close => Ok((self.take_to_end()?, Fields::default())),
            Framing::Chunked => self.chunks(),
        }
    }

    fn chunks(&mut self) -> Result<(Vec<u8>, Fields), Trouble> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk()? {
            body.extend_from_slice(&chunk);
        }
        Ok((body, self.trailers()?))
    }

    /// Reads one chunk; `None` for the last one, whose trailers are still to come.
    pub fn chunk(&mut self) -> Result<Option<Vec<u8>>, Trouble> {
        let line = self.take_through(b"\r\n")?;
        let garbage = |what| Trouble::Garbage { what, seen: line.clone() };
        let digits = line[..line.len() - 2].split(|&b| b == b';').next().unwrap_or_default();
        if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(garbage("a malformed chunk size"));
        }
        let text = String::from_utf8_lossy(digits);
        let size = usize::from_str_radix(&text, 16).map_err(|_| garbage("a malformed chunk size"))?;
        if size == 0 {
            return Ok(None);
        }
        let mut chunk = self.take(size + 2)?;
        if chunk.split_off(size) != b"\r\n" {
            return Err(garbage("a chunk that does not end where its size says"));
        }
        Ok(Some(chunk))
    }

    fn trailers(&mut self) -> Result<Fields, Trouble> {
        let mut fields = Vec::new();
        loop {
            let line = self.take_through(b"\r\n")?;
            match &line[..line.len() - 2] {
                [] => return Ok(Fields(fields)),
                text => fields.push(field(text).map_err(|what| Trouble::Garbage { what, seen: line.clone() })?),
            }
        }
    }
}

/// RFC 9112 section 6.3, for answers.
fn answer_framing(head: &Head, method: &str, status: u16) -> Result<Framing, &'static str> {
    let by_fields = head.framing()?;
    if status < 200 || status == 204 {
        // RFC 9110 section 8.6 and RFC 9112 section 6.1: neither may announce content.
        return if by_fields == Framing::None { Ok(Framing::None) } else { Err("content announced by a 1xx or 204") };
    }
    if method == "HEAD" || status == 304 {
        return Ok(Framing::None);
    }
    Ok(if by_fields == Framing::None { Framing::Close } else { by_fields })
}
