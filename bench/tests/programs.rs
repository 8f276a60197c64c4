//! The program as a user runs it: exit status, the relay, and the memory of idle connections through it.

use speedmimi_bench::{idle, load};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_speedmimi-bench");

/// A child that is ended, by its own id, when dropped.
struct Serving(Child, SocketAddr);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts one on a port that it chooses itself, so that nobody else can have it meanwhile, and that it tells.
fn serve(arguments: &[String]) -> Serving {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).arg("--listen=127.0.0.1:0").stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut said).unwrap();
    let address = said.trim().strip_prefix("listening on http://").and_then(|address| address.parse().ok());
    Serving(child, address.unwrap_or_else(|| panic!("{arguments:?} said {said:?}")))
}

fn run(arguments: &[String]) -> Output {
    Command::new(PROGRAM).args(arguments).output().unwrap()
}

fn strings(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|a| (*a).to_owned()).collect()
}

#[test]
fn the_relay_passes_every_byte_in_both_modes() {
    let origin = serve(&strings(&["origin"]));
    for mode in ["copy", "splice"] {
        let relay = serve(&["relay".into(), format!("--to={}", origin.1), format!("--mode={mode}")]);
        let target = format!("--target=http://{}", relay.1);
        let output = run(&["load".into(), target, "--body=1MiB".into(), "-n50".into(), "-c10".into()]);
        let report: load::Report = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((report.total.ok, report.total.failed), (50, 0), "{mode}");
    }
}

#[test]
fn idle_connections_are_all_busy_once_then_asked_again() {
    let origin = serve(&strings(&["origin"]));
    let relay = serve(&["relay".into(), format!("--to={}", origin.1)]);
    for (kind, busy) in [("--busy=2s", true), ("--websocket", false)] {
        let output = run(&[
            "idle".into(),
            format!("--target=http://{}", relay.1),
            format!("--pid={}", relay.0.id()),
            "--connections=50".into(),
            "--settle=10ms".into(),
            kind.into(),
        ]);
        let report: idle::Report = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((report.answered, report.answered_again, report.all_busy_at_once), (50, 50, busy), "{kind}");
    }
}

#[test]
fn a_target_elsewhere_is_wrong_usage() {
    let output = run(&strings(&["load", "--target=http://192.0.2.1:80"]));
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("only loopback"), "{output:?}");
}

#[test]
fn a_missing_program_is_named_with_its_cure() {
    let output = run(&strings(&["compare", "--only=speedmimi", "--speedmimi=/nowhere/speedmimi"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("SpeedMimi is missing"), "{output:?}");
}
