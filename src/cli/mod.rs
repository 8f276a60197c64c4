//! The commands of the program: what each prints, and the status it ends with.
//!
//! Owns the command line and the words for people at a terminal. Never runs on a worker.

pub mod amount;
pub mod check;
pub mod demo;
pub mod doctor;
pub mod healthcheck;
pub mod init;
pub mod report;
pub mod run;
pub mod sizing;
pub mod snapshot;
pub mod top;
pub mod tune;
pub mod wanted;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The version as people see it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Version, commit, target and features, for `--version`.
const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("SPEEDMIMI_COMMIT"),
    "\ntarget: ",
    env!("SPEEDMIMI_TARGET"),
    "\nfeatures: http1 http2 grpc tls websocket sse proxy-protocol private-fd-tables"
);

/// An HTTP reverse proxy and load balancer for very many concurrent connections.
#[derive(Debug, Parser)]
#[command(name = "speedmimi", version = LONG_VERSION, about, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Verb>,
    #[command(flatten)]
    file: ConfigArgument,
}

#[derive(Debug, clap::Args)]
struct ConfigArgument {
    /// Configuration file; without it configs/config.yaml, then /etc/speedmimi/config.yaml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the proxy (also without this word)
    Run(ConfigArgument),
    /// Run the proxy with three backends of its own, to look at
    Demo {
        /// Port of the proxy; 0 = one that is free
        #[arg(long, default_value_t = 8080)]
        port: u16,
        /// Port of management and its dashboard; 0 = one that is free
        #[arg(long, default_value_t = 9091)]
        management: u16,
    },
    /// Write a commented configuration to start from
    Init {
        /// Where to; an existing file stays as it is
        #[arg(default_value = init::FILE)]
        file: PathBuf,
    },
    /// Read and check a configuration, and print every fault in it
    Check(ConfigArgument),
    /// Ask a running proxy whether it is ready, and tell by the exit status
    Healthcheck(healthcheck::Options),
    /// Show the figures of a running proxy in this terminal, live
    Top(top::Options),
    /// Tell what of this machine is in the way of so many connections, what it costs, and the cure
    Doctor(doctor::Options),
    /// Make this machine ready for so many connections, or put back what was; prints only, unless told to
    Tune(tune::Options),
    /// Tell how many machines of which size a load takes, with each term of the sum
    Plan(sizing::Options),
}

/// Does what the command line says. The body of the program's `main`.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments.into_iter().map(old_spelling)) {
        Ok(arguments) => arguments,
        Err(told) => {
            // Help and version come this way too, and are no error.
            let _ = told.print();
            return if told.use_stderr() { ExitStatus::Usage } else { ExitStatus::Fine }.into();
        }
    };
    let mut out = io::stdout();
    let done = match arguments.command.unwrap_or(Verb::Run(arguments.file)) {
        Verb::Run(file) => run::run(file.config.as_deref(), &mut io::stderr()),
        Verb::Demo { port, management } => demo::run(port, management, &mut out),
        Verb::Init { file } => init::run(Some(&file), &mut out),
        Verb::Check(file) => check::run(file.config.as_deref(), &mut out),
        Verb::Healthcheck(options) => healthcheck::run(&options, &mut out),
        Verb::Top(options) => top::run(&options, &mut out),
        Verb::Doctor(options) => doctor::run(&options, &mut out),
        Verb::Tune(options) => tune::run(&options, &mut out),
        Verb::Plan(options) => sizing::run(&options, &mut out),
    };
    crate::logging::finish();
    match done {
        Ok(status) => status.into(),
        Err(error) => {
            let _ = writeln!(io::stderr(), "speedmimi: {error}");
            ExitStatus::Failed.into()
        }
    }
}

/// Existing service files say `-config`.
fn old_spelling(argument: OsString) -> OsString {
    match argument.to_str() {
        Some("-config") => "--config".into(),
        Some(text) if text.starts_with("-config=") => format!("-{text}").into(),
        _ => argument,
    }
}

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
