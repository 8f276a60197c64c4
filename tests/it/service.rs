//! The program under a service manager: what it tells, that a worker that stands still is noticed, and the sockets that
//! it is handed.
//!
//! Owns the manager's side: a datagram socket that notes what comes. Never needs systemd.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::dir::Dir;
use crate::file;
use crate::origin::{self, Origin};
use crate::program::{Program, command};
use crate::wait;
use crate::wire::lock;

/// What a service manager has heard, with when.
struct Manager {
    name: String,
    heard: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Manager {
    /// Listens under an abstract name.
    fn listen(test: &str) -> Manager {
        let name = format!("speedmimi-{test}-{}", std::process::id());
        let addr = SocketAddr::from_abstract_name(&name).expect("a name");
        let socket = UnixDatagram::bind_addr(&addr).expect("a socket");
        Manager::over(socket, format!("@{name}"))
    }

    /// Listens at a path.
    fn listen_at(dir: &Dir) -> Manager {
        let path = dir.path("notify");
        Manager::over(UnixDatagram::bind(&path).expect("a socket"), path.display().to_string())
    }

    fn over(socket: UnixDatagram, name: String) -> Manager {
        let heard: Arc<Mutex<Vec<(Instant, String)>>> = Arc::default();
        let notes = heard.clone();
        thread::spawn(move || {
            let mut text = [0; 2048];
            while let Ok(len) = socket.recv(&mut text) {
                let text = String::from_utf8_lossy(&text[..len]).into_owned();
                lock(&notes).push((Instant::now(), text));
            }
        });
        Manager { name, heard }
    }

    /// Waits for a datagram that has `word` in it, after the first `skip` of all; its place and text.
    #[track_caller]
    fn wait_for(&self, word: &str, skip: usize) -> (usize, String) {
        let mut found = None;
        wait::until(&format!("{word:?}"), || {
            let heard = lock(&self.heard);
            let at = heard.iter().skip(skip).position(|(_, text)| text.contains(word));
            found = at.map(|at| (skip + at, heard[skip + at].1.clone()));
            found.is_some()
        });
        found.expect("it was waited for")
    }

    fn count(&self, word: &str) -> usize {
        lock(&self.heard).iter().filter(|(_, text)| text.contains(word)).count()
    }

    fn since_last(&self, word: &str) -> Duration {
        let heard = lock(&self.heard);
        heard.iter().rev().find(|(_, text)| text.contains(word)).map_or(Duration::MAX, |(at, _)| at.elapsed())
    }
}

#[test]
fn the_service_manager_hears_of_start_reload_and_end() {
    let dir = Dir::new("notify");
    let manager = Manager::listen_at(&dir);
    let origin = Origin::start(origin::by_path);
    let path = dir.write("f.yaml", file(&origin, "", "", ""));
    let mut program = Program::spawn(command(&["run", "--config", &path]).env("NOTIFY_SOCKET", &manager.name));
    let (at, text) = manager.wait_for("READY=1", 0);
    assert_eq!((at, text.as_str()), (0, "READY=1\nSTATUS=0 connections (0 parked), 1 of 1 backends active\n"));
    // Who is told that it is ready connects at once.
    let mut client = program.client();
    assert_eq!(client.get("/").status, 200);

    let before_us = monotonic_us();
    program.signal(Signal::HUP);
    let (at, text) = manager.wait_for("RELOADING=1", 1);
    let told_us = text.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).expect("when").parse::<u64>();
    assert!(told_us.as_ref().is_ok_and(|told_us| (before_us..=monotonic_us()).contains(told_us)), "{text}");
    let (at, text) = manager.wait_for("READY=1", at);
    assert!(text.contains("1 connections"), "{text}");
    dir.write("f.yaml", file(&origin, "prot: 1", "", ""));
    program.signal(Signal::HUP);
    let (at, _) = manager.wait_for("RELOADING=1", at);
    let (at, text) = manager.wait_for("READY=1", at);
    assert!(text.contains("configuration file refused"), "{text}");

    client.send_get("/gate/go");
    origin.wait_for_in_flight(1);
    program.signal(Signal::TERM);
    manager.wait_for("STOPPING=1", at);
    let (_, text) = manager.wait_for("EXTEND_TIMEOUT_USEC=", at);
    assert!(text.contains("STATUS=stopping: 1 connections, 1 requests under way"), "{text}");
    origin.gate("go").open();
    assert_eq!(client.response().text(), "ok");
    drop(client);
    assert_eq!(program.end().code(), Some(0));
    assert_eq!(manager.count("WATCHDOG=1"), 0, "nobody asked for it");
}

/// As the program reads it.
fn monotonic_us() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}

/// A thread that stands still at its next system call: its tracer doesn't let it go on.
struct Held(Child);

impl Held {
    fn hold(program: &Program, thread: &str) -> Held {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", program.pid().as_raw_nonzero())).expect("threads");
        let is_it = |task: &std::path::PathBuf| {
            std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim_end() == thread)
        };
        let task = tasks.flatten().map(|task| task.path()).find(is_it).expect("the thread");
        let id = task.file_name().and_then(|id| id.to_str()).expect("its number");
        let mut tracer = Command::new("strace");
        tracer.args(["-o", "/dev/null", "-p", id]).stderr(Stdio::null());
        let tracer = tracer.spawn().expect("strace is needed: apt-get install strace");
        let held = Held(tracer);
        let status = task.join("status");
        let traced = || {
            let status = std::fs::read_to_string(&status).unwrap_or_default();
            status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|pid| pid.trim() != "0"))
        };
        wait::until("the tracer", traced);
        held.signal(Signal::STOP);
        held
    }

    fn let_go(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("a tracer that runs");
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_worker_that_stands_still_ends_the_signs_of_life() {
    const WATCHDOG: Duration = Duration::from_secs(1);
    let dir = Dir::new("watchdog");
    let manager = Manager::listen("watchdog");
    let origin = Origin::start(origin::by_path);
    let path = dir.write("f.yaml", file(&origin, "", "", ""));
    let mut program = Program::spawn(
        command(&["run", "--config", &path])
            .env("NOTIFY_SOCKET", &manager.name)
            .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string()),
    );
    wait::until("signs of life", || manager.count("WATCHDOG=1") >= 2);
    let held = Held::hold(&program, "worker-1");
    program.wait_for("stuck: no sign of life is given for them threads=\"worker-1\"", 1);
    let given = manager.count("WATCHDOG=1");
    // As a service manager waits before it ends the process.
    wait::until("the watchdog's time", || manager.since_last("WATCHDOG=1") > WATCHDOG);
    assert_eq!(manager.count("WATCHDOG=1"), given);
    held.let_go();
    program.wait_for("every thread goes on again", 1);
    wait::until("signs of life", || manager.count("WATCHDOG=1") > given);
    drop(held);
    program.signal(Signal::TERM);
    assert_eq!(program.end().code(), Some(0));
}
