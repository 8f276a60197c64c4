//! Where and how long a program runs: on one CPU, and never longer than who started it.
//!
//! Owns affinity, idle priority and the tie to the parent. Never starts another process: `speedmimi-bench pin` becomes
//! the program.

use crate::error::{Error, Result, Trying};
use crate::sys;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// A spinner ends by itself after so long.
pub const SPIN_TIME_MAX: Duration = Duration::from_secs(4 * 3600);

/// A program to become, and where.
#[derive(Clone, Debug, clap::Args)]
pub struct PinOptions {
    /// The CPU to run on; any without it
    #[arg(long)]
    pub cpu: Option<usize>,
    /// End when this process, the parent, does
    #[arg(long)]
    pub parent: u32,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

/// A CPU to keep awake.
#[derive(Clone, Debug, clap::Args)]
pub struct SpinOptions {
    /// The CPU to keep awake
    #[arg(long)]
    pub cpu: usize,
    /// End when this process, the parent, does
    #[arg(long)]
    pub parent: u32,
}

/// The CPUs that this process may run on, in order.
///
/// # Errors
/// What `sched_getaffinity(2)` says.
pub fn allowed_cpus() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None).trying(|| "sched_getaffinity".into())?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

/// Keeps the calling thread on one CPU.
///
/// # Errors
/// When this process may not run there.
pub fn stay_on(cpu: usize) -> Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(Error::Usage(format!("CPU {cpu}: outside 0..{}", CpuSet::MAX_CPU)));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).trying(|| format!("running on CPU {cpu}"))
}

/// Asks for SIGTERM when the parent ends; the tie lasts through `exec`.
///
/// # Errors
/// When the parent has ended already.
pub fn end_with(parent: u32) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM)).trying(|| "prctl".into())?;
    // It may have ended before the signal was asked for.
    if getppid().map(Pid::as_raw_pid) == i32::try_from(parent).ok() {
        Ok(())
    } else {
        Err(Error::Failed("the process that started this one has ended".into()))
    }
}

/// Becomes another program, on one CPU when it is given.
///
/// # Errors
/// When it can't be started.
pub fn become_program(options: &PinOptions) -> Result<Infallible> {
    end_with(options.parent)?;
    options.cpu.map_or(Ok(()), stay_on)?;
    let (program, arguments) =
        options.command.split_first().ok_or_else(|| Error::Usage("no program to become".into()))?;
    let error = Command::new(program).args(arguments).exec();
    Err(Error::Io { what: format!("starting {program}"), source: error })
}

/// Keeps a CPU from halting, at a priority that takes time from nobody.
///
/// A virtual CPU that halts wakes up late, and timings then measure the host.
///
/// # Errors
/// When affinity or priority can't be had.
pub fn spin(options: &SpinOptions) -> Result<()> {
    end_with(options.parent)?;
    stay_on(options.cpu)?;
    sys::become_idle_priority().trying(|| "sched_setscheduler(SCHED_IDLE)".into())?;
    let end = Instant::now() + SPIN_TIME_MAX;
    while Instant::now() < end {
        for _ in 0..10_000 {
            std::hint::spin_loop();
        }
    }
    Ok(())
}
