//! gRPC as Python sees it: management by a client whose code is made of `proto/` (`tests/grpc/walk.py`), and calls
//! through the proxy (`tests/grpc/relay.py`).
//!
//! Owns finding its interpreter, making its code and running it. Without Python, or where its packages can't be
//! fetched, the test says so and passes. Never decides what is right: that is for the client.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::dir::Dir;
use crate::origin::{self, Origin};
use crate::persist;
use crate::proxy::{Proxy, balanced};

/// Names an interpreter that has what `tests/grpc/requirements.txt` asks for.
const INTERPRETER: &str = "SPEEDMIMI_GRPC_PYTHON";
/// The services; what they import comes along.
const PROTOS: [&str; 5] = ["backend", "change", "config", "monitor", "stats"];

#[test]
fn a_generated_client_walks_through_all_of_it() {
    let python = match python() {
        Ok(python) => python,
        Err(why) => return eprintln!("skipped, as a Python client can't be had: {why}"),
    };
    let stubs = stubs(&python);
    let origin = Origin::start(origin::by_path);
    let management = "grpc: {port: 0, token: everything, read_token: only-reading, report_token: only-reporting}\n";
    let proxy = Proxy::start(&[], &(balanced(&[(&origin, "")], "", "") + management));
    walk(&python, &stubs, &proxy, None);
    let dir = Dir::new("grpc-file");
    dir.write("f.yaml", persist::text(&origin, ""));
    let file = dir.path("f.yaml");
    walk(&python, &stubs, &Proxy::from_file(&file), Some(&file));
}

fn walk(python: &Path, stubs: &Path, proxy: &Proxy, file: Option<&Path>) {
    let walk = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/grpc/walk.py");
    let mut client = Command::new(python)
        .arg(walk)
        .arg(proxy.management().to_string())
        .args(file)
        .env("PYTHONPATH", stubs)
        // A proxy that the environment names is for the rest of the world.
        .env("no_proxy", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("an interpreter that was just there");
    drain_when_told(&mut client, proxy);
    let status = client.wait().expect("a child of ours");
    assert!(status.success(), "the walk failed; it says above where");
}

#[test]
fn calls_of_every_kind_pass_through_the_proxy() {
    let python = match python() {
        Ok(python) => python,
        Err(why) => return eprintln!("skipped, as a Python client can't be had: {why}"),
    };
    let relay = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/grpc/relay.py");
    let mut child = Command::new(python)
        .arg(relay)
        .env("no_proxy", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("an interpreter that was just there");
    let mut port = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut port).expect("the server's port");
    let sections = format!(
        "backends: {{default: [{{host: 127.0.0.1, port: {}, scheme: h2c, health_check: {{type: grpc, service: relay, \
         interval: 50ms, failures: 1, successes: 1}}}}]}}\nrouting: {{default: {{upstream: default}}}}\n",
        port.trim()
    );
    let proxy = Proxy::start(&[], &sections);
    writeln!(child.stdin.take().expect("piped"), "{}", proxy.addr()).expect("a child that listens");
    let status = child.wait().expect("a child of ours");
    assert!(status.success(), "the calls failed; it says above where");
}

fn drain_when_told(client: &mut Child, proxy: &Proxy) {
    let (output, input) = (client.stdout.take(), client.stdin.take());
    let (mut output, mut input) = (BufReader::new(output.expect("piped")), input.expect("piped"));
    let mut line = String::new();
    while output.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
        if line.trim() == "drain" {
            proxy.drain();
            proxy.wait_until("the end of readiness", |_| !proxy.board().is_ready());
            let _ = input.write_all(b"\n");
        }
        line.clear();
    }
}

/// The interpreter of the environment under `target`, which is made when it is missing.
pub fn python() -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os(INTERPRETER) {
        return Ok(named.into());
    }
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../grpc-client");
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    run(Command::new(tests.join("python.sh")).arg(&home).arg(tests.join("grpc/requirements.txt")))?;
    Ok(home.join("bin/python"))
}

/// The client's code, made of `proto/`; the folder it is in.
fn stubs(python: &Path) -> PathBuf {
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let stubs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("grpc-stubs");
    fs::create_dir_all(&stubs).unwrap_or_else(|e| panic!("{}: {e}", stubs.display()));
    let mut make = Command::new(python);
    make.args(["-m", "grpc_tools.protoc", "-I"]).arg(&protos);
    for form in ["--python_out", "--grpc_python_out"] {
        make.arg(format!("{form}={}", stubs.display()));
    }
    make.args(PROTOS.map(|name| format!("speedmimi/v1/{name}.proto")));
    // The files are ours: when they can't be read, that is no reason to skip.
    run(&mut make).unwrap_or_else(|why| panic!("{why}"));
    stubs
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{command:?} failed:\n{said}")) }
}
