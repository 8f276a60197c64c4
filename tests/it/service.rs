//! The program under a service manager: what it tells, that a worker that stands still is noticed, and the sockets that
//! it is handed.
//!
//! Owns the manager's side: a datagram socket that notes what comes. Never needs systemd.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};

use crate::client::Client;
use crate::dir::Dir;
use crate::file;
use crate::origin::{self, Origin};
use crate::program::{Program, command, run};
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
    // Time enough for the way out, however busy the machine is.
    let patient = |server: &str| file(&origin, server, "", "").replace("3s", "60s");
    let path = dir.write("f.yaml", patient(""));
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
    dir.write("f.yaml", patient("prot: 1"));
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

/// The program as systemd starts it with one socket, or two: from descriptor 3 on, and told so by its own process id.
fn activated(sockets: &[&OwnedFd], arguments: &[&str]) -> Command {
    let copy = |at: usize| sockets.get(at).map(|socket| Stdio::from(socket.try_clone().expect("a descriptor")));
    let script = "exec 3<&0 4<&1 0</dev/null 1>/dev/null && export LISTEN_PID=$$ && exec \"$@\"";
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh", env!("CARGO_BIN_EXE_speedmimi")]).args(arguments);
    shell.env("LISTEN_FDS", sockets.len().to_string()).env("LISTEN_FDNAMES", "first:second");
    shell.stdin(copy(0).expect("a socket")).stdout(copy(1).unwrap_or_else(Stdio::null)).stderr(Stdio::piped());
    shell
}

/// A listening socket that the test holds as systemd would, and its port.
fn held_socket() -> (OwnedFd, u16) {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = socket.local_addr().expect("an address").port();
    (socket.into(), port)
}

/// As [`file`], listening on `port`.
fn file_on(port: u16, origin: &Origin, server: &str) -> String {
    file(origin, server, "", "").replacen("host: 127.0.0.1, port: 0", &format!("host: 127.0.0.1, port: {port}"), 1)
}

#[test]
fn nobody_is_refused_or_lost_while_one_process_follows_another_on_a_socket_that_stays() {
    for tables in ["shared", "private"] {
        let dir = Dir::new(&format!("activation-{tables}"));
        let origin = Origin::start(origin::by_path);
        let (socket, port) = held_socket();
        let path = dir.write("f.yaml", file_on(port, &origin, &format!("fd_tables: {tables}")).replace("3s", "60s"));
        let mut before = Program::spawn(&mut activated(&[&socket], &["run", "--config", &path]));
        let addr = before.addr();
        assert_eq!(addr.port(), port);

        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let visitors: Vec<_> = (0..4)
            .map(|_| {
                let (stop, served) = (stop.clone(), served.clone());
                thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        // Each on a connection of its own; any failure ends the thread.
                        assert_eq!(Client::connect(addr).get("/").status, 200);
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let served_more = |what: &str| {
            let so_far = served.load(Ordering::Relaxed);
            wait::until(what, || served.load(Ordering::Relaxed) >= so_far + 20);
        };
        served_more("visitors before");
        let mut running = before.client();
        running.send_get("/gate/go");
        wait::until("the last request", || origin.requests().iter().any(|seen| seen.request.target == "/gate/go"));
        before.signal(Signal::TERM);
        before.wait_for("stopping", 1);
        // Somebody waits, look after look: the old process takes nobody in any more, and who comes now waits for the next one.
        let mut looks = 0;
        wait::until("nobody to be taken in", || {
            looks = if has_waiting(&socket) { looks + 1 } else { 0 };
            looks >= 50
        });
        let mut early = Client::connect(addr);
        early.send_get("/size/7");
        origin.gate("go").open();
        assert_eq!(running.response().text(), "ok");
        drop(running);
        assert_eq!(before.end().code(), Some(0));

        let mut after = Program::spawn(&mut activated(&[&socket], &["run", "--config", &path]));
        assert_eq!(early.response().body, origin::pattern(7));
        served_more("visitors after");
        stop.store(true, Ordering::Relaxed);
        for visitor in visitors {
            visitor.join().expect("no visitor was refused or cut");
        }
        drop(early);
        after.signal(Signal::TERM);
        assert_eq!(after.end().code(), Some(0));
    }
}

/// Whether somebody is in the accept queue.
fn has_waiting(socket: &OwnedFd) -> bool {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut sockets = [PollFd::new(socket, PollFlags::IN)];
    poll(&mut sockets, Some(&at_once)).expect("a socket") > 0
}

#[test]
fn a_given_socket_that_no_listener_is_for_is_a_fault_that_says_so() {
    let dir = Dir::new("unmatched");
    let origin = Origin::start(origin::by_path);
    let ((one, port), (other, unknown)) = (held_socket(), held_socket());
    let path = dir.write("f.yaml", file_on(port, &origin, ""));
    let mut program = Program::spawn(&mut activated(&[&one, &other], &["run", "--config", &path]));
    assert_eq!(program.end().code(), Some(78));
    let told = format!("gave a socket that listens on 127.0.0.1:{unknown} (second)");
    program.wait_for(&told, 1);
    assert!(program.said().contains(&format!("the configuration listens on 127.0.0.1:{port}")), "{}", program.said());
}

#[test]
fn a_given_socket_is_left_and_taken_up_again_by_reloads() {
    for tables in ["shared", "private"] {
        let dir = Dir::new(&format!("regiven-{tables}"));
        let origin = Origin::start(origin::by_path);
        let (socket, port) = held_socket();
        let unix = dir.path("s.sock");
        let unix_socket = UnixListener::bind(&unix).expect("a socket");
        let server = format!("fd_tables: {tables}, listen: [\"unix:{}\"]", unix.display());
        let path = dir.write("f.yaml", file_on(port, &origin, &server));
        let sockets = [&socket, &OwnedFd::from(unix_socket)];
        let mut program = Program::spawn(&mut activated(&sockets, &["run", "--config", &path]));
        let addr = program.addr();
        assert_eq!(Client::connect(addr).get("/").status, 200);
        let mut local = UnixStream::connect(&unix).expect("a listener");
        local.write_all(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n").expect("a reader");
        let mut answer = String::new();
        local.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        drop(local);

        let text = std::fs::read_to_string(&path).expect("a file");
        dir.write("f.yaml", text.replace(&format!("port: {port}, workers"), "port: 0, workers"));
        program.signal(Signal::HUP);
        program.wait_for(" reloaded", 1);
        program.wait_for("no longer accepted from", 1);
        // The queue is the service manager's; who comes now waits for whoever accepts next.
        let mut patient = Client::connect(addr);
        patient.send_get("/size/5");
        dir.write("f.yaml", text);
        program.signal(Signal::HUP);
        program.wait_for(" reloaded", 2);
        assert_eq!(patient.response().body, origin::pattern(5));
        drop(patient);
        program.signal(Signal::TERM);
        assert_eq!(program.end().code(), Some(0));
        assert!(unix.exists(), "the file of a given socket is its owner's");
    }
}

#[test]
fn a_healthcheck_ends_with_0_while_new_requests_are_welcome() {
    let dir = Dir::new("healthcheck");
    let origin = Origin::start(origin::by_path);
    let path = dir.write("f.yaml", file(&origin, "", "", "").replace("3s", "60s"));
    let mut program = Program::start(&["run", "--config", &path], None);
    let mut client = program.client();
    let said = program.said();
    let (_, after) = said.split_once("management=\"").expect("where management is");
    let url = after.split('"').next().unwrap_or_default();
    assert_eq!(run(&["healthcheck", "--url", url]), (Some(0), "ready\n".to_owned(), String::new()));
    client.send_get("/gate/go");
    origin.wait_for_in_flight(1);
    program.signal(Signal::TERM);
    program.wait_for("stopping", 1);
    wait::until("it is not ready", || run(&["healthcheck", "--url", url]).0 == Some(1));
    let (_, told, _) = run(&["healthcheck", "--url", url]);
    assert!(told.contains("answered 503"), "{told}");
    origin.gate("go").open();
    assert_eq!(client.response().text(), "ok");
    drop(client);
    assert_eq!(program.end().code(), Some(0));
    let (status, told, _) = run(&["healthcheck", "--url", url]);
    assert!(status == Some(1) && told.starts_with("not ready: 127.0.0.1:"), "{status:?} {told}");
    assert_eq!(run(&["healthcheck", "--url", "127.0.0.1"]).0, Some(2));
    assert_eq!(run(&["healthcheck", "--config", &path]).0, Some(1), "nobody knows where port 0 is");
    let off = dir.write("off.yaml", "grpc: {enabled: false}\nrouting: {a: {respond: {status: 204}}}\n");
    assert_eq!(run(&["healthcheck", "--config", &off]).0, Some(1));
    assert_eq!(run(&["healthcheck", "--config", &dir.write("bad.yaml", "sever: {}\n")]).0, Some(78));
}
