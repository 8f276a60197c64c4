//! A connection of HTTP/2 without manners: frames are sent as they were written, and only counted when they come.
//!
//! Owns one socket. Never keeps the protocol for who uses it, but for acknowledging settings.

use crate::conns::READ_BYTES;
use crate::error::{Error, Result};
use crate::h2::frame::{self, Frames, PREFACE, flag, kind};
use crate::http::Malformed;
use crate::net::{self, Interest, Poller, Received};
use crate::target::Target;
use crate::tls::{ClientSide, Wire};
use std::time::{Duration, Instant};

/// How long opening may take.
const OPEN_TIME_MAX: Duration = Duration::from_secs(5);
/// A connection that takes nothing for so long is given up.
const STUCK_TIME_MAX: Duration = Duration::from_secs(5);

/// What came back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Streams that the server reset.
    pub resets: u64,
    /// Streams that it ended with an answer.
    pub answers: u64,
    /// GOAWAY.
    pub goaway: bool,
    /// SETTINGS: it speaks HTTP/2.
    pub settings: bool,
}

/// One connection.
pub struct Raw {
    wire: Wire,
    poller: Poller,
    frames: Frames,
    scratch: Vec<u8>,
    /// To be sent.
    pub out: Vec<u8>,
    /// What came back so far.
    pub seen: Seen,
    deaf: bool,
    writing: bool,
    progress: Instant,
}

impl Raw {
    /// Opens one, handshake and both sides' settings included; nothing when it was refused, or speaks no HTTP/2.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn open(target: &Target, side: Option<&ClientSide>, deaf: bool) -> Result<Option<Raw>> {
        let mut poller = Poller::new()?;
        let Ok((fd, _)) = net::connect(target.address, None) else { return Ok(None) };
        poller.add(&fd, 0, Interest::Write)?;
        let end = Instant::now() + OPEN_TIME_MAX;
        while poller.wait(Some(Duration::from_millis(50)))? == 0 {
            if Instant::now() > end {
                return Ok(None);
            }
        }
        if net::connected(&fd).is_err() {
            return Ok(None);
        }
        poller.modify(&fd, 0, Interest::Read)?;
        let wire = match side {
            None => Wire::Plain(fd),
            Some(side) => side.begin(fd).map_err(|e| Error::Failed(format!("TLS: {e}")))?,
        };
        let mut raw = Raw {
            wire,
            poller,
            frames: Frames::default(),
            scratch: vec![0; READ_BYTES],
            out: Vec::new(),
            seen: Seen::default(),
            deaf: false,
            writing: false,
            progress: Instant::now(),
        };
        if raw.wire.flush().is_err() {
            return Ok(None);
        }
        while raw.wire.is_handshaking() {
            if Instant::now() > end || !raw.turn(Duration::from_millis(50))? {
                return Ok(None);
            }
        }
        raw.out.extend_from_slice(PREFACE);
        frame::put_settings(&mut raw.out, &[]);
        while !raw.seen.settings {
            if Instant::now() > end || !raw.turn(Duration::from_millis(50))? {
                return Ok(None);
            }
        }
        raw.deaf = deaf;
        Ok(Some(raw))
    }

    /// Sends what fits and reads what is there, after waiting at most so long; false when the connection is over.
    ///
    /// # Errors
    /// When waiting fails.
    pub fn turn(&mut self, wait: Duration) -> Result<bool> {
        if !self.wire.is_handshaking() && !self.push()? {
            return Ok(false);
        }
        let count = self.poller.wait(Some(wait))?;
        let readable = (0..count).any(|index| self.poller.ready(index).readable);
        if !readable || self.deaf {
            return Ok(self.progress.elapsed() < STUCK_TIME_MAX || self.out.is_empty());
        }
        match self.wire.receive(&mut self.scratch) {
            Ok(Received::Later) => Ok(true),
            Ok(Received::Bytes(len)) => Ok(self.count(len).is_ok() && !self.seen.goaway),
            Ok(Received::End) | Err(_) => Ok(false),
        }
    }

    fn push(&mut self) -> Result<bool> {
        let Ok(sent) = self.wire.send(&self.out) else { return Ok(false) };
        if sent > 0 {
            self.progress = Instant::now();
            self.out.drain(..sent);
        }
        let writing = !self.out.is_empty() || self.wire.has_unsent();
        if writing != self.writing || self.deaf {
            self.writing = writing;
            let interest = match (writing, self.deaf) {
                (true, true) => Interest::Write,
                (false, true) => Interest::Nothing,
                (true, false) => Interest::Both,
                (false, false) => Interest::Read,
            };
            self.poller.modify(&self.wire, 0, interest)?;
        }
        Ok(true)
    }

    fn count(&mut self, len: usize) -> std::result::Result<(), Malformed> {
        let (seen, out) = (&mut self.seen, &mut self.out);
        self.frames.feed(&self.scratch[..len], |head, _| {
            match head.kind {
                kind::SETTINGS if !head.has(flag::ACK) => {
                    seen.settings = true;
                    frame::put(out, kind::SETTINGS, flag::ACK, 0, b"");
                }
                kind::RST_STREAM => seen.resets += 1,
                kind::GOAWAY => seen.goaway = true,
                kind::HEADERS | kind::DATA if head.has(flag::END_STREAM) => seen.answers += 1,
                _ => {}
            }
            Ok(())
        })
    }
}
