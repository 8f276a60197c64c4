//! `speedmimi healthcheck`: whether a running proxy wants new requests, as an exit status; for containers and scripts, so
//! that an image needs no other program.
//!
//! Owns one request for `/readyz` and its deadline. Needs no token and changes nothing.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::top::target::Target;
use super::{ExitStatus, check};
use crate::config::load;

/// Of an answer, as much as is looked at.
const ANSWER_BYTES_MAX: usize = 4096;

/// Its part of the command line.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Configuration whose management is asked; without it and --url, the one that `run` would find
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    config: Option<PathBuf>,
    /// Where management listens
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// How long to wait for an answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=3600))]
    timeout: u16,
}

/// Asks, and tells the outcome on a line.
///
/// Ends with [`ExitStatus::Fine`] when the proxy is ready, with [`ExitStatus::Failed`] when it isn't or can't be asked, with
/// [`ExitStatus::Usage`] for a URL that makes no sense and [`ExitStatus::BadConfig`] for a configuration with faults.
///
/// # Errors
/// Those of writing to `out`.
pub fn run(options: &Options, out: &mut impl Write) -> io::Result<ExitStatus> {
    let target = match &options.url {
        Some(url) => Target::from_url(url).map_err(|told| (ExitStatus::Usage, told)),
        None => configured(options.config.as_deref()),
    };
    let target = match target {
        Ok(target) => target,
        Err((status, told)) => return writeln!(out, "{}", told.trim_end()).map(|()| status),
    };
    let told = ask(&target, Duration::from_secs(options.timeout.into()));
    let (status, told) = match told {
        Ok(200) => (ExitStatus::Fine, "ready".to_owned()),
        Ok(status) => (ExitStatus::Failed, format!("not ready: {target} answered {status}")),
        Err(error) => (ExitStatus::Failed, format!("not ready: {target}: {error}")),
    };
    writeln!(out, "{told}").map(|()| status)
}

fn configured(path: Option<&Path>) -> Result<Target, (ExitStatus, String)> {
    let found = load::find(path).and_then(|path| load::load(&path));
    let (_, document) = found.map_err(|faults| {
        let mut told = Vec::new();
        // Writing to memory doesn't fail.
        let _ = check::print_faults(&faults, &mut told);
        (ExitStatus::BadConfig, String::from_utf8_lossy(&told).into_owned())
    })?;
    let failed = |told: String| (ExitStatus::Failed, told);
    let conf = document.plan().management.as_ref();
    let conf = conf.ok_or_else(|| failed("grpc.enabled is false: there is nothing to ask".to_owned()))?;
    Target::from_configuration(conf).map_err(failed)
}

/// The status of `/readyz`.
fn ask(target: &Target, patience: Duration) -> io::Result<u16> {
    let deadline = Instant::now() + patience;
    let late = || io::Error::from(io::ErrorKind::TimedOut);
    let left = || deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()).ok_or_else(late);
    let mut refused = io::Error::from(io::ErrorKind::NotFound);
    for addr in (target.host(), target.port()).to_socket_addrs()? {
        match TcpStream::connect_timeout(&addr, left()?) {
            Ok(mut stream) => {
                stream.set_write_timeout(Some(left()?))?;
                write!(stream, "GET /readyz HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n")?;
                return status(stream, left);
            }
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// Reads until the first line is there.
fn status(mut stream: TcpStream, left: impl Fn() -> io::Result<Duration>) -> io::Result<u16> {
    let mut answer = Vec::new();
    while !answer.contains(&b'\n') && answer.len() < ANSWER_BYTES_MAX {
        stream.set_read_timeout(Some(left()?))?;
        let mut part = [0; 256];
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(len) => answer.extend_from_slice(&part[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    status_of(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}

/// Of a status line (RFC 9112, section 4).
fn status_of(answer: &[u8]) -> Option<u16> {
    let rest = answer.strip_prefix(b"HTTP/1.1 ").or_else(|| answer.strip_prefix(b"HTTP/1.0 "))?;
    let (digits, after) = rest.split_at_checked(3)?;
    let is_whole = after.first().is_some_and(|byte| matches!(byte, b' ' | b'\r' | b'\n'));
    std::str::from_utf8(digits).ok().filter(|_| is_whole)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_has_a_status() {
        assert_eq!(status_of(b"HTTP/1.1 200 OK\r\n"), Some(200));
        assert_eq!(status_of(b"HTTP/1.0 503\r\n"), Some(503));
        for wrong in [
            &b""[..],
            b"HTTP/1.1 20",
            b"HTTP/1.1 2000 OK\r\n",
            b"HTTP/2 200\r\n",
            b"SSH-2.0-x\r\n",
            b"HTTP/1.1 abc \r\n",
        ] {
            assert_eq!(status_of(wrong), None);
        }
    }
}
