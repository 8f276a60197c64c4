//! Telling the service manager how it stands: datagrams to the socket that it named (`sd_notify(3)`).
//!
//! Owns the socket and the words. Never waits long for whoever should read them, and never fails because nobody does.

use std::fmt::{self, Write as _};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// How long a datagram may wait for room in the service manager's queue.
const PATIENCE: Duration = Duration::from_secs(1);
/// Of a status line, in bytes; systemd cuts longer ones.
const STATUS_BYTES_MAX: usize = 512;

/// One thing to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word<'a> {
    /// It serves; also that a reload is over.
    Ready,
    /// A reload has begun, at this time of `CLOCK_MONOTONIC` in microseconds.
    Reloading(u64),
    /// It is on its way out.
    Stopping,
    /// All is well: for the watchdog.
    Alive,
    /// What is under way may take this much longer than was planned, from now on.
    Extend(Duration),
    /// A line for people.
    Status(&'a str),
}

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Word::Ready => f.write_str("READY=1"),
            Word::Reloading(monotonic_us) => write!(f, "RELOADING=1\nMONOTONIC_USEC={monotonic_us}"),
            Word::Stopping => f.write_str("STOPPING=1"),
            Word::Alive => f.write_str("WATCHDOG=1"),
            Word::Extend(time) => write!(f, "EXTEND_TIMEOUT_USEC={}", time.as_micros()),
            Word::Status(line) => {
                // A line is what ends a word.
                let line = line.lines().next().unwrap_or_default();
                let end = (0..=STATUS_BYTES_MAX.min(line.len())).rev().find(|end| line.is_char_boundary(*end));
                write!(f, "STATUS={}", &line[..end.unwrap_or(0)])
            }
        }
    }
}

/// The socket of the service manager.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    to: SocketAddr,
}

impl Notifier {
    /// By the value of `NOTIFY_SOCKET`: a path, or `@` and an abstract name.
    ///
    /// # Errors
    /// When it is neither, or there is no socket to be had.
    pub fn new(name: &str) -> io::Result<Notifier> {
        let to = match name.as_bytes() {
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            [b'@', rest @ ..] if !rest.is_empty() => SocketAddr::from_abstract_name(rest)?,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a path nor an abstract name")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Notifier { socket, to })
    }

    /// Tells all of `words` at once. Who can't be reached is told of in the log.
    pub fn tell(&self, words: &[Word<'_>]) {
        let mut text = String::new();
        for word in words {
            let _ = writeln!(text, "{word}");
        }
        if let Err(error) = self.socket.send_to_addr(text.as_bytes(), &self.to) {
            let first = text.lines().next().unwrap_or_default();
            tracing::warn!(%error, word = first, "the service manager could not be told");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_lines_as_sd_notify_has_them() {
        for (word, text) in [
            (Word::Ready, "READY=1"),
            (Word::Reloading(12), "RELOADING=1\nMONOTONIC_USEC=12"),
            (Word::Stopping, "STOPPING=1"),
            (Word::Alive, "WATCHDOG=1"),
            (Word::Extend(Duration::from_millis(1500)), "EXTEND_TIMEOUT_USEC=1500000"),
            (Word::Status("3 connections\nREADY=1"), "STATUS=3 connections"),
            (Word::Status(""), "STATUS="),
        ] {
            assert_eq!(word.to_string(), text);
        }
        let long = "é".repeat(STATUS_BYTES_MAX);
        assert_eq!(Word::Status(&long).to_string().len(), "STATUS=".len() + STATUS_BYTES_MAX);
    }

    #[test]
    fn a_socket_is_a_path_or_an_abstract_name() {
        let name = format!("speedmimi-notify-{}", std::process::id());
        let listens = SocketAddr::from_abstract_name(&name).and_then(|addr| UnixDatagram::bind_addr(&addr)).unwrap();
        let notifier = Notifier::new(&format!("@{name}")).unwrap();
        notifier.tell(&[Word::Ready, Word::Status("here")]);
        let mut text = [0; 64];
        let len = listens.recv(&mut text).unwrap();
        assert_eq!(&text[..len], b"READY=1\nSTATUS=here\n");
        drop(listens);
        // Nobody there: nothing comes of it.
        notifier.tell(&[Word::Alive]);
        assert!(Notifier::new("/run/nobody").is_ok());
        for wrong in ["", "@", "relative", "vsock:2:1"] {
            assert!(Notifier::new(wrong).is_err(), "{wrong:?}");
        }
    }
}
