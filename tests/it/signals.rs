//! Signals to a process, counted strictly.
//!
//! Owns no process. Never counts what the kernel merged: of signals of one kind that are pending it keeps one.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::process::{Pid, Signal, kill_process};

/// Sends signals, the next of a kind when the last one was delivered.
pub struct Signals {
    pid: Pid,
    status: File,
    /// How many were sent, each of which is delivered by itself.
    pub sent: u64,
}

impl Signals {
    pub fn to(pid: Pid) -> Signals {
        let status = File::open(format!("/proc/{}/status", pid.as_raw_nonzero())).expect("a process that runs");
        Signals { pid, status, sent: 0 }
    }

    /// Sends those that are not pending.
    pub fn send(&mut self, signals: &[Signal]) {
        let pending = self.pending();
        for &signal in signals.iter().filter(|signal| pending >> (signal.as_raw() - 1) & 1 == 0) {
            kill_process(self.pid, signal).expect("a process that runs");
            self.sent += 1;
        }
    }

    /// Signals to the process that no thread has taken yet, a bit each (proc_pid_status(5)).
    fn pending(&self) -> u64 {
        const KEY: &[u8] = b"\nShdPnd:\t";
        let mut text = [0; 4096];
        let len = self.status.read_at(&mut text, 0).expect("a status");
        let at = memchr::memmem::find(&text[..len], KEY).expect("the pending signals") + KEY.len();
        let digits = text[at..].split(|byte| *byte == b'\n').next().unwrap_or_default();
        u64::from_str_radix(&String::from_utf8_lossy(digits), 16).expect("a set of signals")
    }
}
