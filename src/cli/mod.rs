//! The commands of the program: what each prints, and the status it ends with.
//!
//! Owns words for people at a terminal. Never parses arguments (that is the root's) and never runs on a worker.

pub mod check;
pub mod init;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitStatus {
    /// All went well.
    Fine = 0,
    /// It failed while running.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// The configuration has faults (`EX_CONFIG` of sysexits).
    BadConfig = 78,
}

impl ExitStatus {
    /// The number that the system sees.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<ExitStatus> for std::process::ExitCode {
    fn from(status: ExitStatus) -> Self {
        std::process::ExitCode::from(status.code())
    }
}
