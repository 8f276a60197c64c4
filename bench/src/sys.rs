//! The few system calls that no safe crate offers.
//!
//! Owns all unsafe code of the package, each block with its proof. Never keeps state.

#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

/// Makes the calling thread run only when its CPU has nothing else to do (`SCHED_IDLE`).
///
/// # Errors
/// What `sched_setscheduler(2)` says.
pub fn become_idle_priority() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: pid 0 is the calling thread, `parameters` outlives the call, which only reads it.
    let status = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives the calling thread a descriptor table of its own, a copy of the process's, so that `RLIMIT_NOFILE` counts for
/// it alone. Descriptors that are open now stay open in both; what is opened later exists in one only.
///
/// # Errors
/// What `unshare(2)` says.
pub fn private_descriptor_table() -> io::Result<()> {
    // SAFETY: an owned descriptor has to stay valid where its owner uses it. Those opened before are in both tables
    // under the same number, so a value that crosses threads still names its file (closed on one side it stays open on
    // the other: a leak until the thread ends, not a dangling number). Those opened after live and die within the one
    // function that calls this, or that is called next, on this thread: `load::Work::run`, `idle::work`,
    // `hold::trickle::work` and `origin::worker::run`; none of them returns or sends one.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FILES) }.map_err(io::Error::from)
}

/// Leaves the choice of the local port to `connect`, which then needs it to be unique per peer only.
///
/// # Errors
/// What `setsockopt(2)` says.
pub fn choose_port_at_connect(socket: impl AsFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is borrowed for the call; the option is an int and its length is given.
    let status = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// CPU time of a process so far, in ns: of all its threads, those that have ended included.
///
/// # Errors
/// What `clock_gettime(2)` says: there is no such process.
pub fn process_cpu_ns(pid: u32) -> io::Result<u64> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput)?;
    let (mut clock, mut time) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
    // SAFETY: the call writes one clock's id to where it is told, which outlives it.
    let error = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    // SAFETY: the call writes one `timespec` to where it is told, which outlives it.
    let status = unsafe { libc::clock_gettime(clock, &raw mut time) };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs())
}

/// Moves the calling thread, and what it starts from now on, into a network namespace of its own, without any interface
/// but a loopback one that is down.
///
/// # Errors
/// What `unshare(2)` says: it needs `CAP_SYS_ADMIN`.
pub fn private_network() -> io::Result<()> {
    // SAFETY: no descriptor changes its meaning; sockets that are open stay in the namespace they were made in.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.map_err(io::Error::from)
}

/// Brings the loopback interface of the calling thread's network namespace up.
///
/// # Errors
/// What `ioctl(2)` says: it needs `CAP_NET_ADMIN`.
pub fn loopback_up() -> io::Result<()> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    // SAFETY: all zeroes is a valid value of this plain struct.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the descriptor is open for the call, and SIOCSIFFLAGS reads one `ifreq`, which outlives it.
    let status = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
