//! Sockets of parked connections that have no descriptor: one table holds `RLIMIT_NOFILE` of them, and idle connections are many.
//!
//! Owns the rings whose tables of files these are in, and which of their places are taken. Never knows whose a socket is.

use std::io;
use std::os::fd::OwnedFd;

use crate::sys::ring::Ring;

/// Where a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u32);

/// How much a shelf holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Sockets in one ring; no more than `RLIMIT_NOFILE`.
    pub places: u32,
    /// Rings, each of which takes one descriptor.
    pub rings: u32,
}

impl Size {
    /// No shelf.
    pub const NONE: Size = Size { places: 0, rings: 0 };

    /// Sockets in all.
    pub fn sockets(self) -> u64 {
        u64::from(self.places) * u64::from(self.rings)
    }
}

/// A worker's shelf. Dropping it closes what is on it.
#[derive(Debug)]
pub struct Shelf {
    size: Size,
    rings: Vec<Ring>,
    /// Given back and not taken again.
    free: Vec<u32>,
    /// The first that was never taken.
    next: u32,
    /// No ring could be made a moment ago.
    is_refused: bool,
}

impl Shelf {
    /// An empty one, which grows ring by ring.
    pub fn new(size: Size) -> Shelf {
        Shelf { size, rings: Vec::new(), free: Vec::new(), next: 0, is_refused: false }
    }

    /// How much it holds.
    pub fn size(&self) -> Size {
        self.size
    }

    /// Takes a socket in, beside its descriptor, which the caller may close.
    ///
    /// # Errors
    /// When all places are taken, or there is no descriptor or memory for another ring.
    pub fn put(&mut self, socket: &OwnedFd) -> io::Result<Slot> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => self.another()?,
        };
        let put = self.ring(Slot(slot)).and_then(|(ring, place)| ring.put(place, socket));
        put.inspect_err(|_| self.free.push(slot))?;
        Ok(Slot(slot))
    }

    fn another(&mut self) -> io::Result<u32> {
        if self.is_refused || u64::from(self.next) >= self.size.sockets() {
            return Err(io::Error::from(io::ErrorKind::QuotaExceeded));
        }
        if (self.next / self.size.places) as usize >= self.rings.len() {
            self.rings.push(Ring::new(self.size.places).inspect_err(|_| self.is_refused = true)?);
        }
        self.next += 1;
        Ok(self.next - 1)
    }

    /// Another ring may be asked for again, where one was refused.
    pub fn try_again(&mut self) {
        self.is_refused = false;
    }

    /// A new descriptor of a socket, which stays on the shelf.
    ///
    /// # Errors
    /// When the descriptor table is full.
    pub fn open(&mut self, slot: Slot) -> io::Result<OwnedFd> {
        self.ring(slot).and_then(|(ring, place)| ring.open(place))
    }

    /// Lets a socket go: it is closed when it has no descriptor either.
    pub fn clear(&mut self, slot: Slot) {
        if let Err(error) = self.ring(slot).and_then(|(ring, place)| ring.clear(place)) {
            tracing::error!(%error, "a connection's socket stays open");
            return;
        }
        self.free.push(slot.0);
        // One ring stays: making it takes longer than a shelf is empty that one connection comes to and goes from.
        if self.free.len() == self.next as usize {
            self.rings.truncate(1);
            self.free = Vec::new();
            self.next = 0;
        }
    }

    fn ring(&mut self, slot: Slot) -> io::Result<(&mut Ring, u32)> {
        let Size { places, .. } = self.size;
        let ring = slot.0.checked_div(places).and_then(|at| self.rings.get_mut(at as usize));
        ring.map(|ring| (ring, slot.0 % places)).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// Memory it takes in this process, in bytes.
    pub fn bytes(&self) -> usize {
        self.free.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn places_are_taken_again_and_no_socket_is_mistaken_for_another() {
        if !Ring::is_available() {
            eprintln!("SKIPPED: no io_uring here");
            return;
        }
        let mut shelf = Shelf::new(Size { places: 3, rings: 2 });
        let mut held = Vec::new();
        for round in 0..50u8 {
            while held.len() < 6 {
                let (near, far) = UnixStream::pair().unwrap();
                let near = OwnedFd::from(near);
                held.push((shelf.put(&near).unwrap(), far));
            }
            let (another, _end) = UnixStream::pair().unwrap();
            assert!(shelf.put(&another.into()).is_err(), "all six places are taken");
            for (at, (slot, far)) in held.iter_mut().enumerate() {
                let mut near = UnixStream::from(shelf.open(*slot).unwrap());
                near.write_all(&[round, at as u8]).unwrap();
                let mut got = [0; 2];
                far.read_exact(&mut got).unwrap();
                assert_eq!(got, [round, at as u8]);
            }
            for at in [usize::from(round) % 6, usize::from(round) % 5] {
                let (slot, mut far) = held.swap_remove(at);
                shelf.clear(slot);
                assert_eq!(far.read(&mut [0]).unwrap(), 0, "the socket is closed");
            }
        }
        held.drain(..).for_each(|(slot, _far)| shelf.clear(slot));
        assert_eq!((shelf.rings.len(), shelf.next), (1, 0));
    }
}
