//! The operating system where no safe library reaches: descriptor tables, limits, CPU placement.
//!
//! Owns every `unsafe` block of the proxy, each with its proof. Never holds state and never decides policy.

pub mod ring;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Dir, Mode, OFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::CpuSet;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Descriptors one table may hold: raises the soft `RLIMIT_NOFILE` to the hard one first. Never fails: where raising is
/// refused the soft limit is what counts.
pub fn descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    table_size()
}

/// Descriptors one table may hold now: the soft `RLIMIT_NOFILE`.
pub fn table_size() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(1 << 20)
}

/// The CPUs this thread may run on, ascending.
pub fn allowed_cpus() -> Vec<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect(),
        Err(_) => vec![0],
    }
}

/// Runs this thread on `cpu` only.
///
/// # Errors
/// `EINVAL` when the machine or its cpuset has no such CPU.
pub fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).map_err(io::Error::from)
}

/// The numbers of the descriptors open in this thread's table, ascending.
///
/// # Errors
/// When `/proc` is not there.
pub fn open_descriptors() -> io::Result<Vec<RawFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut directory = Dir::new(rustix::fs::open("/proc/thread-self/fd", flags, Mode::empty())?)?;
    let own = directory.fd()?.as_raw_fd();
    let mut numbers = Vec::new();
    while let Some(entry) = directory.read() {
        let number = entry?.file_name().to_str().ok().and_then(|name| name.parse().ok());
        numbers.extend(number.filter(|&number: &RawFd| number != own));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Takes the `count` descriptors that whoever started the program has left open from 3 on (`sd_listen_fds(3)`); no
/// program started later gets them. Only the first call gets any, and it has to come before anything else is opened.
///
/// # Errors
/// `EBADF` when one of them is not open: somebody else's count. None is taken then.
pub fn take_inherited(count: u16) -> io::Result<Vec<OwnedFd>> {
    /// Descriptors are given from here on.
    const FIRST: RawFd = 3;
    static IS_TAKEN: AtomicBool = AtomicBool::new(false);
    let count = if IS_TAKEN.swap(true, Ordering::Relaxed) { 0 } else { RawFd::from(count) };
    let numbers = FIRST..FIRST + count;
    for number in numbers.clone() {
        // SAFETY: fcntl(F_SETFD) touches no memory, and an open number is one that was left to us.
        if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: all are open, no value owns them as nothing was opened yet, and nobody takes them a second time.
    Ok(numbers.map(|number| unsafe { OwnedFd::from_raw_fd(number) }).collect())
}

/// Removes variables from the environment, so that no process started later takes them for its own. Does nothing, and
/// returns `false`, once there is a second thread: it might read the environment at the same moment.
pub fn forget_variables(names: &[&str]) -> bool {
    let is_alone = std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1);
    for name in names.iter().filter(|_| is_alone) {
        // SAFETY: this thread is the only one of the process, and starts none meanwhile.
        unsafe { std::env::remove_var(name) };
    }
    is_alone
}

/// Gives the calling thread a descriptor table of its own, in which only the descriptors numbered in `kept` and those
/// in `own` are open, each under the number it had.
///
/// To be called first thing on a new thread that was handed nothing with a descriptor but what `kept` and `own` name.
/// New threads started by this thread would share its table.
///
/// # Errors
/// `ENOMEM`, `EMFILE`; `ENOSYS` on kernels before 5.9.
pub fn take_own_table(kept: &[RawFd], own: &[BorrowedFd<'_>]) -> io::Result<()> {
    // SAFETY: unshare(CLONE_FILES) changes no memory. Descriptors held by values of this thread keep their numbers and
    // stay open in the copy; the tables of other threads are as before.
    if unsafe { libc::unshare(libc::CLONE_FILES) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut stay: Vec<RawFd> = kept.iter().copied().chain(own.iter().map(AsRawFd::as_raw_fd)).collect();
    stay.sort_unstable();
    stay.dedup();
    let mut first = 0;
    for fd in stay {
        if fd > first {
            close_range(first as u32, (fd - 1) as u32)?;
        }
        first = fd + 1;
    }
    close_range(first as u32, u32::MAX)
}

/// Only for [`take_own_table`].
fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: close_range(2) touches no memory. The table is this thread's own, and `take_own_table` leaves out every
    // descriptor that a value of this thread owns.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0u32) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether two threads, of whatever process, have the same descriptor table (kcmp(2)). One that has ended has none.
///
/// # Errors
/// `EPERM` for processes of others, `ENOSYS` for a kernel that was built without it.
pub fn have_one_descriptor_table(a: u32, b: u32) -> io::Result<bool> {
    const KCMP_FILES: libc::c_int = 2;
    // SAFETY: kcmp touches no memory.
    match unsafe { libc::syscall(libc::SYS_kcmp, a, b, KCMP_FILES, 0usize, 0usize) } {
        -1 => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
            error => Err(error),
        },
        order => Ok(order == 0),
    }
}

/// Blocks every signal that is sent to the process on the calling thread, so that control's thread alone takes them: with private
/// tables the signal handler's write to a pipe *number* must not run on a worker.
pub fn block_signals_on_this_thread() {
    // SAFETY: both calls only read and write the local `set`, which sigfillset initialises.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut set);
        // Faults of the thread itself must still end the process where they happen.
        for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT, libc::SIGPROF] {
            libc::sigdelset(&mut set, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
    }
}

/// Puts a descriptor on the current runtime's event loop, for reading and writing.
///
/// # Errors
/// What `epoll_ctl` says: `ENOMEM`, `ENOSPC`.
pub fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open descriptor for as long as it lives, and the `AsyncFd` owns it.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

/// Like [`register`], for reading only: listeners and epoll descriptors.
///
/// # Errors
/// What `epoll_ctl` says: `ENOMEM`, `ENOSPC`.
pub fn register_for_reading(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: as in `register`.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// Leaves the choice of the local port to the connect (`IP_BIND_ADDRESS_NO_PORT`, ip(7)), where the four addresses
/// together have to be unique and not the local pair alone.
///
/// # Errors
/// `ENOPROTOOPT` on kernels before 4.2.
pub fn bind_without_port(socket: &impl AsRawFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    let (value, len) = ((&raw const on).cast::<libc::c_void>(), size_of_val(&on) as libc::socklen_t);
    // SAFETY: the pointer and length name the live local `on`, which the kernel only reads.
    let done =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, value, len) };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives memory that this thread freed back to the system. Costs about a millisecond per few thousand freed pages, so
/// call it after a burst and not as a habit. Does nothing where another allocator is in use.
pub fn release_freed_memory() {
    // SAFETY: mi_collect works on the calling thread's own heap and touches no live allocation.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

/// Microseconds of `CLOCK_MONOTONIC`, without a system call where the machine's clock source allows it.
#[inline]
pub fn monotonic_us() -> u64 {
    clock_us(libc::CLOCK_MONOTONIC)
}

/// CPU time that all threads of the process have used, in microseconds.
pub fn process_cpu_us() -> u64 {
    clock_us(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// 0 for a clock that the kernel does not have; those above it always has.
#[inline]
fn clock_us(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer names the live local `time`, which the kernel only writes.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}

/// Milliseconds of `CLOCK_MONOTONIC_COARSE`: a few nanoseconds a call, a few milliseconds coarse.
pub fn coarse_ms() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    t.tv_sec as u64 * 1000 + t.tv_nsec as u64 / 1_000_000
}
