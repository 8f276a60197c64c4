//! Programs that run as children of this one, and never longer: started, waited for, ended by their own id.
//!
//! Owns processes. Never knows what they are for.

use crate::dir::Dir;
use crate::error::{Error, Result, Trying};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a program may take until it accepts connections.
const START_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a program may take to end by itself after SIGTERM.
const STOP_TIME_MAX: Duration = Duration::from_secs(3);
const TICK: Duration = Duration::from_millis(10);

/// What a program says of itself when it is asked so.
pub fn version(path: &Path, flag: &str) -> String {
    let Ok(output) = Command::new(path).arg(flag).stdin(Stdio::null()).output() else { return "unknown".into() };
    let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&said).lines().next().unwrap_or("unknown").trim().to_owned()
}

/// The SpeedMimi that was named, or the one beside this program.
///
/// # Errors
/// When there is none, with the cure.
pub fn speedmimi(named: Option<&Path>) -> Result<PathBuf> {
    let own = std::env::current_exe().trying(|| "finding this program".into())?;
    let program = named.map_or_else(|| own.with_file_name("speedmimi"), Path::to_owned);
    if !program.is_file() {
        let name = program.display();
        let cure = "build it with `cargo build --release`, or give --speedmimi PATH";
        return Err(Error::Failed(format!("{name} is missing: {cure}")));
    }
    Ok(program)
}

/// Starts a command on one CPU, tied to this process; what it says goes to `log`.
///
/// # Errors
/// When it can't be started.
pub fn spawn_pinned(cpu: usize, command: impl IntoIterator<Item = String>, log: &Path) -> Result<Child> {
    spawn(Some(cpu), command, log)
}

/// Starts a command on any CPU, tied to this process, and waits until it accepts connections; what it says goes to a log in
/// `dir`.
///
/// # Errors
/// When it can't be started, or does not listen; with what it said.
pub fn start(command: impl IntoIterator<Item = String>, address: SocketAddr, name: &str, dir: &Dir) -> Result<Ended> {
    let log = dir.file(&format!("{name}.log"));
    let mut child = Ended(spawn(None, command, &log)?);
    wait_until_accepting(&mut child, address, name, &log)?;
    Ok(child)
}

fn spawn(cpu: Option<usize>, command: impl IntoIterator<Item = String>, log: &Path) -> Result<Child> {
    let log = File::create(log).trying(|| format!("writing {}", log.display()))?;
    let second = log.try_clone().trying(|| "dup".into())?;
    let mut command = tied(cpu, command)?;
    command.stdin(Stdio::null()).stdout(log).stderr(second);
    command.spawn().trying(|| "starting a program".into())
}

/// A command that runs on one CPU and ends with this process.
///
/// # Errors
/// When this program can't find itself.
pub fn pinned(cpu: usize, command: impl IntoIterator<Item = String>) -> Result<Command> {
    tied(Some(cpu), command)
}

fn tied(cpu: Option<usize>, command: impl IntoIterator<Item = String>) -> Result<Command> {
    let own = std::env::current_exe().trying(|| "finding this program".into())?;
    let mut tied = Command::new(own);
    tied.args(["pin", "--parent", &std::process::id().to_string()]);
    tied.args(cpu.map(|cpu| format!("--cpu={cpu}"))).arg("--").args(command);
    // A Ctrl-C is for this program, which ends them in its order.
    tied.process_group(0);
    Ok(tied)
}

/// Waits until a child accepts connections.
///
/// # Errors
/// When it ends instead, or takes too long; with what it said.
pub fn wait_until_accepting(child: &mut Ended, address: SocketAddr, name: &str, log: &Path) -> Result<()> {
    let end = Instant::now() + START_TIME_MAX;
    while TcpStream::connect(address).is_err() {
        let ended = child.0.try_wait().ok().flatten();
        if ended.is_some() || Instant::now() > end {
            let said = fs::read_to_string(log).unwrap_or_default();
            let how = if ended.is_some() { "ended at once" } else { "did not listen" };
            return Err(Error::Failed(format!("{name} {how}; it said:\n{}", said.trim_end())));
        }
        thread::sleep(TICK);
    }
    Ok(())
}

/// An address that is free now.
///
/// # Errors
/// When none is.
pub fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).trying(|| "looking for a free port".into())?;
    listener.local_addr().trying(|| "getsockname".into())
}

/// A child that is ended, by its id alone, when this is dropped.
pub struct Ended(pub Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Until it is waited for, the id can't be another process's.
        if let Ok(None) = self.0.try_wait()
            && let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw)
        {
            let _ = kill_process(pid, Signal::TERM);
        }
        let end = Instant::now() + STOP_TIME_MAX;
        while let Ok(None) = self.0.try_wait() {
            if Instant::now() > end {
                let _ = self.0.kill();
                let _ = self.0.wait();
                return;
            }
            thread::sleep(TICK);
        }
    }
}
