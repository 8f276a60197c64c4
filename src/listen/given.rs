//! Listening sockets that a service manager holds and hands down (`sd_listen_fds(3)`): socket activation.
//!
//! Owns the sockets as they were given, for as long as the process lives, and whose share of them each worker has. The
//! service manager holds them too, and so their accept queues outlive this process: they are never shut down and never
//! emptied on the way out, only not accepted from any more.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::net::{SocketAddrAny, SocketType, sockopt};
use socket2::SockRef;

use super::backlog;
use crate::config::plan::{Listen, ListenAddr, Server};

/// All sockets that were given.
#[derive(Debug, Default)]
pub struct Given(Vec<GivenSocket>);

/// One of them.
#[derive(Debug)]
struct GivenSocket {
    addr: ListenAddr,
    /// As the service manager calls it; may be empty.
    name: String,
    socket: OwnedFd,
}

/// What a worker has of them: a socket of its own descriptor, whose queue others may share.
#[derive(Debug)]
pub struct Share {
    /// Where it listens.
    pub addr: ListenAddr,
    /// The worker's own copy.
    pub socket: OwnedFd,
}

/// A given socket that is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenFault(String);

impl fmt::Display for GivenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for GivenFault {}

impl Given {
    /// Looks at what was given; `names` as in `LISTEN_FDNAMES`, parted by colons.
    ///
    /// # Errors
    /// One that is no listening stream socket of an address or a path.
    pub fn new(sockets: Vec<OwnedFd>, names: &str) -> Result<Given, GivenFault> {
        let names = names.split(':').chain(std::iter::repeat(""));
        let given = sockets.into_iter().zip(names).enumerate().map(|(at, (socket, name))| {
            let addr = address(&socket)
                .map_err(|wrong| GivenFault(format!("socket {at} of LISTEN_FDS{}: {wrong}", in_brackets(name))))?;
            Ok(GivenSocket { addr, name: name.to_owned(), socket })
        });
        given.collect::<Result<_, _>>().map(Given)
    }

    /// Whether there is one for `addr`.
    pub fn has(&self, addr: &ListenAddr) -> bool {
        self.0.iter().any(|given| given.addr == *addr)
    }

    /// Those that no listener is for, each with what can be done about it.
    pub fn unmatched(&self, listen: &[Listen]) -> Vec<GivenFault> {
        let left = self.0.iter().filter(|given| !listen.iter().any(|listen| listen.addr == given.addr));
        let fault = |given: &GivenSocket| {
            let listens: Vec<String> = listen.iter().map(ToString::to_string).collect();
            GivenFault(format!(
                "the service manager gave a socket that listens on {}{}, and the configuration listens on {}: name that \
                 address in server.host, server.port or server.listen, or take it out of the socket unit{}",
                given.addr,
                in_brackets(&given.name),
                listens.join(", "),
                hint(&given.addr, listen)
            ))
        };
        left.map(fault).collect()
    }

    /// Takes backlog and congestion control from `server`, as those have that are bound here.
    ///
    /// # Errors
    /// What the system says.
    pub fn tune(&self, server: &Server) -> io::Result<()> {
        for given in &self.0 {
            let socket = SockRef::from(&given.socket);
            socket.set_nonblocking(true)?;
            socket.listen(backlog(server))?;
            if let ListenAddr::Tcp(_) = given.addr {
                // Accepted sockets inherit both.
                socket.set_tcp_nodelay(true)?;
                if let Some(name) = &server.congestion_control {
                    socket.set_tcp_congestion(name.as_bytes())?;
                }
            }
        }
        Ok(())
    }

    /// What each of `workers` accepts from. Of one socket for an address everybody has a copy; of several, as `ReusePort=yes`
    /// gives them, each worker has as few as there can be, and nobody is left without.
    ///
    /// # Errors
    /// When descriptors have run out.
    pub fn shares(&self, workers: usize) -> io::Result<Vec<Vec<Share>>> {
        let mut shares: Vec<Vec<Share>> = (0..workers).map(|_| Vec::new()).collect();
        let mut known: Vec<&ListenAddr> = self.0.iter().map(|given| &given.addr).collect();
        known.sort();
        known.dedup();
        for addr in known {
            let sockets: Vec<&OwnedFd> = self.0.iter().filter(|g| g.addr == *addr).map(|g| &g.socket).collect();
            for at in 0..sockets.len().max(workers) {
                let socket = sockets[at % sockets.len()].try_clone()?;
                shares[at % workers].push(Share { addr: addr.clone(), socket });
            }
        }
        Ok(shares)
    }
}

fn in_brackets(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" ({name})") }
}

/// Where a listening stream socket listens.
fn address(socket: &OwnedFd) -> Result<ListenAddr, String> {
    let told = |error: rustix::io::Errno| io::Error::from(error).to_string();
    let kind = sockopt::socket_type(socket).map_err(|_| "this is no socket".to_owned())?;
    if kind != SocketType::STREAM || !sockopt::socket_acceptconn(socket).map_err(told)? {
        return Err("this is no listening stream socket (ListenStream= with Accept=no)".to_owned());
    }
    let addr = rustix::net::getsockname(socket.as_fd()).map_err(told)?;
    named(addr).ok_or_else(|| "it has neither an IP address nor a path".to_owned())
}

fn named(addr: SocketAddrAny) -> Option<ListenAddr> {
    if let Ok(addr) = SocketAddr::try_from(addr.clone()) {
        return Some(ListenAddr::Tcp(addr));
    }
    let addr = rustix::net::SocketAddrUnix::try_from(addr).ok()?;
    let path = addr.path()?.to_str().ok()?.to_owned();
    Some(ListenAddr::Unix(PathBuf::from(path)))
}

/// The commonest trap: `ListenStream=8080` means `[::]:8080`, which takes in IPv4 as well.
fn hint(addr: &ListenAddr, listen: &[Listen]) -> String {
    let ListenAddr::Tcp(given) = addr else { return String::new() };
    let is_alike = |listen: &Listen| match listen.addr {
        ListenAddr::Tcp(addr) => addr.port() == given.port() && addr.ip().is_unspecified(),
        ListenAddr::Unix(_) => false,
    };
    if given.is_ipv6() && given.ip().is_unspecified() && listen.iter().any(is_alike) {
        let port = given.port();
        return format!(" (a bare port there means every address of IPv6: write ListenStream=0.0.0.0:{port})");
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::UnixListener;

    use super::*;

    fn listen(addr: &str) -> Listen {
        Listen { addr: ListenAddr::Tcp(addr.parse().unwrap()), secure: false }
    }

    fn tcp(addr: &str) -> (OwnedFd, SocketAddr) {
        let socket = TcpListener::bind(addr).unwrap();
        let addr = socket.local_addr().unwrap();
        (socket.into(), addr)
    }

    #[test]
    fn each_is_known_by_its_address_or_path() {
        let path = std::env::temp_dir().join(format!("speedmimi-given-{}", std::process::id()));
        // Of a process that was killed and had the same number.
        let _ = std::fs::remove_file(&path);
        let unix = UnixListener::bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let ((four, addr), (six, other)) = (tcp("127.0.0.1:0"), tcp("[::1]:0"));
        let given = Given::new(vec![four, unix.into(), six], "web::six").unwrap();
        assert!(given.has(&ListenAddr::Tcp(addr)) && given.has(&ListenAddr::Tcp(other)));
        assert!(given.has(&ListenAddr::Unix(path)) && !given.has(&listen("127.0.0.1:1").addr));
        let faults = given.unmatched(&[listen(&addr.to_string())]);
        assert_eq!(faults.len(), 2);
        assert!(faults[1].0.contains("(six)") && faults[1].0.contains(&format!("configuration listens on {addr}")));
    }

    #[test]
    fn what_is_no_listening_stream_socket_is_a_fault() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let (bound, _) = tcp("127.0.0.1:0");
        let unbound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        for (wrong, of) in [(udp.into(), "stream"), (file.into(), "no socket"), (unbound.into(), "listening")] {
            let fault = Given::new(vec![bound.try_clone().unwrap(), wrong], "a:b").unwrap_err();
            assert!(fault.0.starts_with("socket 1 of LISTEN_FDS (b): ") && fault.0.contains(of), "{fault}");
        }
    }

    #[test]
    fn a_bare_port_of_the_socket_unit_is_explained() {
        let hint = |given: &str, listens: &str| hint(&listen(given).addr, &[listen(listens)]);
        assert!(hint("[::]:8080", "0.0.0.0:8080").contains("ListenStream=0.0.0.0:8080"));
        for (given, listens) in [("[::]:8080", "0.0.0.0:80"), ("0.0.0.0:80", "[::]:80"), ("[::]:80", "127.0.0.1:80")] {
            assert_eq!(hint(given, listens), "");
        }
    }

    #[test]
    fn every_worker_accepts_and_every_socket_is_accepted_from() {
        let places = |sockets: usize, workers: usize| {
            let given = Given::new((0..sockets).map(|_| tcp("127.0.0.1:0").0).collect(), "").unwrap();
            // As those of one group are: all at one address.
            let one = given.0[0].addr.clone();
            let given = Given(given.0.into_iter().map(|g| GivenSocket { addr: one.clone(), ..g }).collect());
            given.shares(workers).unwrap().iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(places(1, 3), [1, 1, 1]);
        assert_eq!(places(2, 3), [1, 1, 1]);
        assert_eq!(places(3, 3), [1, 1, 1]);
        assert_eq!(places(5, 3), [2, 2, 1]);
        assert_eq!(places(1, 1), [1]);
        let none = Given::default().shares(2).unwrap();
        assert!(none.len() == 2 && none.iter().all(Vec::is_empty));
    }
}
