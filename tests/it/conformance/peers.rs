//! nginx and HAProxy in the proxy's place, to see that the harness finds in them what is known of them.
//!
//! Owns their configuration and processes. Never run by default: it says nothing about SpeedMimi and needs both.
//! `cargo test --test it peers -- --ignored --nocapture`

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

use super::corpus::MARK;
use super::{LANES_COUNT, Lane, cases, corpus};
use crate::client::Door;
use crate::origin::{Origin, WATCHDOG};

/// A proxy's process with its directory; both go when it is dropped.
struct Peer {
    process: Child,
    dir: PathBuf,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Deadlines of a peer, in seconds.
struct Deadlines {
    read: u32,
    idle: u32,
}

/// For the corpus: every payload is over soon.
const SHORT: Deadlines = Deadlines { read: 1, idle: 1 };
/// For the cases: silence is the client's to end.
const LONG: Deadlines = Deadlines { read: 30, idle: 30 };

fn doors(dir: &Path) -> Vec<PathBuf> {
    (0..LANES_COUNT).map(|at| dir.join(format!("{at}.sock"))).collect()
}

fn start(
    name: &str,
    origin: fn() -> Origin,
    command: impl Fn(&Path, &[PathBuf], &[u16]) -> Command,
) -> (Peer, Vec<Lane>) {
    // Short: a Unix socket's path has at most 107 bytes.
    let dir = std::env::temp_dir().join(format!("peer-{name}-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a directory for the peer");
    let origins: Vec<Origin> = (0..LANES_COUNT).map(|_| origin()).collect();
    let ports: Vec<u16> = origins.iter().map(Origin::port).collect();
    let doors = doors(&dir);
    let process =
        command(&dir, &doors, &ports).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let peer = Peer { process: process.unwrap_or_else(|e| panic!("starting {name}: {e}")), dir };
    let since = Instant::now();
    while !doors.iter().all(|door| UnixStream::connect(door).is_ok()) {
        assert!(since.elapsed() < WATCHDOG, "{name} does not listen");
        thread::yield_now();
    }
    let lanes = doors.into_iter().map(Door::Unix).zip(origins).map(|(door, origin)| Lane { door, origin }).collect();
    (peer, lanes)
}

fn nginx(dir: &Path, doors: &[PathBuf], ports: &[u16], deadlines: &Deadlines) -> Command {
    let (name, value) = MARK.split_once(": ").expect("a field");
    let Deadlines { read, idle } = deadlines;
    let mut text = format!(
        "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log error.log crit;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\naccess_log off;\nclient_body_temp_path body;\nproxy_temp_path proxy;\nfastcgi_temp_path f;\n\
         uwsgi_temp_path u;\nscgi_temp_path s;\nclient_header_timeout {read}s;\nclient_body_timeout {read}s;\n\
         keepalive_timeout {idle}s;\nproxy_http_version 1.1;\nproxy_set_header Connection \"\";\n\
         proxy_set_header Host $host;\nproxy_set_header {name} {value};\n"
    );
    for (door, port) in doors.iter().zip(ports) {
        let door = door.display();
        text += &format!("server {{ listen unix:{door}; location / {{ proxy_pass http://127.0.0.1:{port}; }} }}\n");
    }
    fs::write(dir.join("nginx.conf"), text + "}\n").expect("a configuration for nginx");
    let mut command = Command::new("nginx");
    command.arg("-p").arg(dir).args(["-e", "error.log", "-c", "nginx.conf"]);
    command
}

fn haproxy(dir: &Path, doors: &[PathBuf], ports: &[u16], deadlines: &Deadlines) -> Command {
    let (name, value) = MARK.split_once(": ").expect("a field");
    let Deadlines { read, idle } = deadlines;
    let mut text = format!(
        "defaults\n mode http\n timeout connect 3s\n timeout client {read}s\n timeout server 30s\n \
         timeout http-request {read}s\n timeout http-keep-alive {idle}s\n"
    );
    for (at, (door, port)) in doors.iter().zip(ports).enumerate() {
        let door = door.display();
        text += &format!(
            "listen l{at}\n bind unix@{door}\n http-request set-header {name} {value}\n server s 127.0.0.1:{port}\n"
        );
    }
    let file = dir.join("haproxy.cfg");
    fs::write(&file, text).expect("a configuration for HAProxy");
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(file);
    command
}

fn report(name: &str, corpus: &corpus::Outcome, cases: &[cases::Result]) {
    println!("{name}: {}\n{name}: {}", corpus.summary(), cases::summary(cases));
    println!("  plain but not relayed: {:?}", corpus.withheld);
    for j in corpus.judgements.iter().filter(|j| !j.why.is_empty()) {
        println!("  {:?} {}: {}", j.verdict, j.id, j.why);
    }
    for r in cases.iter().filter(|r| r.scored && r.verdict != cases::Verdict::Pass) {
        println!("{}", r.line());
    }
}

#[test]
#[ignore = "calibrates the harness; needs nginx"]
fn nginx_is_found_as_known() {
    let (_peer, lanes) = start("nginx", corpus::capturing_origin, |d, s, p| nginx(d, s, p, &SHORT));
    let corpus = corpus::run("nginx", &lanes);
    let (_peer, lanes) = start("nginx-c", cases::permissive_origin, |d, s, p| nginx(d, s, p, &LONG));
    report("nginx", &corpus, &cases::run(&lanes));
}

#[test]
#[ignore = "calibrates the harness; needs HAProxy"]
fn haproxy_is_found_as_known() {
    let (_peer, lanes) = start("haproxy", corpus::capturing_origin, |d, s, p| haproxy(d, s, p, &SHORT));
    let corpus = corpus::run("haproxy", &lanes);
    let (_peer, lanes) = start("haproxy-c", cases::permissive_origin, |d, s, p| haproxy(d, s, p, &LONG));
    report("haproxy", &corpus, &cases::run(&lanes));
}
