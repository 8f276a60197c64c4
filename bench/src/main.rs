//! `speedmimi-bench`: measures HTTP proxies from the outside.
//!
//! Owns the command line and the exit status: 0 fine, 1 it failed, 2 wrong usage. Never does the work.

#![forbid(unsafe_code)]

use clap::{CommandFactory, Parser, Subcommand};
use speedmimi_bench::error::{Result, Trying};
use speedmimi_bench::report::file;
use speedmimi_bench::{
    attack, calibrate, cert, compare, hold, idle, interrupt, load, million, origin, pin, relay, stages,
};
use std::io::Write;
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "speedmimi-bench",
    version,
    about = "Measures HTTP proxies from the outside: without a command, in stages of more and more connections",
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    stages: stages::Options,
}

#[derive(Subcommand)]
enum Command {
    /// A lean backend: /N answers N bytes, /stats what was counted; checks what it gets
    Origin(origin::Options),
    /// One measurement, in a closed or an open loop; prints a JSON report
    Load(load::Options),
    /// A bare byte relay without HTTP: the floor that proxies are compared with
    Relay(relay::Options),
    /// What an idle connection costs the proxy that holds it; prints a JSON report
    Idle(idle::Options),
    /// So many connections at once, with a trickle of requests over them; prints a JSON report
    Hold(hold::Options),
    /// A million connections to one SpeedMimi process on this machine, with 20,000 requests a second over them (root)
    Million(million::Options),
    /// SpeedMimi, nginx, HAProxy and a bare relay side by side; prints a Markdown table
    Compare(compare::Options),
    /// What a request, a connection and a byte cost SpeedMimi on this machine: constants for `speedmimi plan`, as JSON
    Calibrate(calibrate::Options),
    /// An abusive client of a proxy on this machine, and what it costs everybody else; prints a line an attack
    Attack(attack::Options),
    /// Makes a certificate for this machine: cert.pem, key.pem and both.pem
    Cert(cert::Options),
    /// Becomes another program, on one CPU if one is given, for as long as its parent lives
    #[command(hide = true)]
    Pin(pin::PinOptions),
    /// Keeps a CPU awake at idle priority, for as long as its parent lives
    #[command(hide = true)]
    Spin(pin::SpinOptions),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Some(command) => run(command),
        None if cli.stages.is_empty() => {
            eprintln!("{}", Cli::command().render_help());
            return ExitCode::from(2);
        }
        None => run_stages(&cli.stages),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("speedmimi-bench: {error}");
            error.exit_code()
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Origin(options) => {
            let origin = origin::Origin::start(&options)?;
            eprintln!("listening on {}", origin.url());
            origin.serve()
        }
        Command::Load(options) => {
            let stop = interrupt::flag()?;
            print_json(&load::measure(&options, &mut load::Watch { stop: &stop, glimpse: &mut |_| () })?.report)
        }
        Command::Idle(options) => print_json(&idle::run(&options)?),
        Command::Hold(options) => {
            let stop = interrupt::flag()?;
            print_json(&hold::run(&options, &stop)?)
        }
        Command::Million(options) => million::run(&options),
        Command::Compare(options) => compare::run(&options),
        Command::Calibrate(options) => calibrate::run(&options),
        Command::Attack(options) => attack::run(&options),
        Command::Cert(options) => cert::run(&options),
        Command::Relay(options) => relay::run(&options),
        Command::Pin(options) => match pin::become_program(&options)? {},
        Command::Spin(options) => pin::spin(&options),
    }
}

fn run_stages(options: &stages::Options) -> Result<()> {
    let (table, failed) = stages::run(options, std::env::args().collect())?;
    print(&table)?;
    failed.map_or(Ok(()), Err)
}

fn print_json(report: &impl serde::Serialize) -> Result<()> {
    print(&file::json(report)?)
}

fn print(text: &str) -> Result<()> {
    std::io::stdout().write_all(text.as_bytes()).trying(|| "writing the report".into())
}
