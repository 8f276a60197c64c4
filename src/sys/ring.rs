//! Open files beside the descriptor table: the registered files of an io_uring.
//!
//! Owns the unsafe half of it. No operation is ever left under way in such a ring, and nothing is waited for: it is a table
//! that `RLIMIT_NOFILE` bounds by itself, and not together with the descriptors (io_uring_register(2)). Never decides what
//! goes in.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use io_uring::types::Fixed;
use io_uring::{IoUring, Probe, opcode};

/// One operation at a time is all that is asked of it.
const ENTRIES: u32 = 1;
/// Signals come between at most so often.
const TRIES: usize = 16;

/// A table of open files that belongs to one thread.
pub struct Ring {
    ring: IoUring,
    /// Number of the last operation.
    asked: u64,
}

impl Ring {
    /// An empty one with places from 0 to `places` - 1.
    ///
    /// # Errors
    /// `ENOSYS` and `EPERM` where io_uring is not there or off (`kernel.io_uring_disabled`, seccomp); `EMFILE` for more places
    /// than `RLIMIT_NOFILE`, or when no descriptor is left for the ring itself; `ENOMEM`.
    pub fn new(places: u32) -> io::Result<Ring> {
        let ring = IoUring::builder().setup_single_issuer().build(ENTRIES)?;
        ring.submitter().register_files_sparse(places)?;
        Ok(Ring { ring, asked: 0 })
    }

    /// Whether this system has such tables and gives descriptors back from them (`IORING_OP_FIXED_FD_INSTALL`, Linux 6.8).
    pub fn is_available() -> bool {
        // A ring's end interrupts its thread once more, a moment later: one that waits for a socket with a timeout sees EINTR.
        std::thread::scope(|scope| scope.spawn(Ring::probe).join().unwrap_or(false))
    }

    fn probe() -> bool {
        let Ok(Ring { ring, .. }) = Ring::new(1) else { return false };
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe).is_ok() && probe.is_supported(opcode::FixedFdInstall::CODE)
    }

    /// Puts the file behind `fd` at `place`, beside its descriptor: it stays open until both are gone.
    ///
    /// # Errors
    /// `EINVAL` for a place that is not there; `ENOMEM`.
    pub fn put(&self, place: u32, fd: &impl AsFd) -> io::Result<()> {
        self.set(place, fd.as_fd().as_raw_fd())
    }

    /// Lets the file at `place` go.
    ///
    /// # Errors
    /// `EINVAL` for a place that is not there.
    pub fn clear(&self, place: u32) -> io::Result<()> {
        self.set(place, -1)
    }

    fn set(&self, place: u32, fd: RawFd) -> io::Result<()> {
        self.ring.submitter().register_files_update(place, &[fd]).map(drop)
    }

    /// A new descriptor, in this thread's table, of the file at `place`, which stays there too.
    ///
    /// # Errors
    /// `EBADF` when there is none, `EMFILE` when the descriptor table is full.
    pub fn open(&mut self, place: u32) -> io::Result<OwnedFd> {
        self.asked = self.asked.wrapping_add(1);
        let operation = opcode::FixedFdInstall::new(Fixed(place), 0).build().user_data(self.asked);
        // One that could not be submitted the last time is first in line still; its outcome is thrown away below.
        if self.ring.submission().is_full() {
            self.ring.submit()?;
        }
        // SAFETY: the operation names no memory, and only the place of a file.
        unsafe { self.ring.submission().push(&operation) }.map_err(io::Error::other)?;
        for _ in 0..TRIES {
            match self.ring.submit_and_wait(1) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            while let Some(done) = self.ring.completion().next() {
                // SAFETY: the kernel has made this descriptor for one call of this function alone, and nobody else owns it.
                let fd = (done.result() >= 0).then(|| unsafe { OwnedFd::from_raw_fd(done.result()) });
                if done.user_data() == self.asked {
                    return fd.ok_or_else(|| io::Error::from_raw_os_error(-done.result()));
                }
            }
        }
        Err(io::Error::from(io::ErrorKind::TimedOut))
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("fd", &self.ring.as_raw_fd()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_file_outlives_its_descriptor_and_ends_with_its_place() {
        if !Ring::is_available() {
            eprintln!("SKIPPED: no io_uring here");
            return;
        }
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut ring = Ring::new(4).unwrap();
        ring.put(3, &near).unwrap();
        drop(near);
        far.write_all(b"x").unwrap();
        for _ in 0..3 {
            let again = ring.open(3).unwrap();
            let mut byte = [0];
            let (_, got) = rustix::net::recv(&again, &mut byte, rustix::net::RecvFlags::PEEK).unwrap();
            assert_eq!((got, byte), (1, *b"x"));
        }
        assert_eq!(ring.open(2).unwrap_err().raw_os_error(), Some(libc::EBADF));
        assert!(ring.put(4, &far).is_err());
        ring.clear(3).unwrap();
        // An error for the reader's end being gone: no other descriptor of it was left open.
        assert_eq!(far.write_all(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
