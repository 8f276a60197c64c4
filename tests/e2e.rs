//! The program as it is shipped: its command line, its signals, and private descriptor tables, which need a process of
//! their own.
//!
//! Owns processes and their ends. Never repeats what `it` tests in-process.

#[allow(dead_code)]
#[path = "it/client.rs"]
mod client;
#[path = "it/dir.rs"]
mod dir;
#[allow(dead_code)]
#[path = "it/origin.rs"]
mod origin;
#[allow(dead_code)]
#[path = "it/pki.rs"]
mod pki;
#[path = "it/service.rs"]
mod service;
#[path = "it/signals.rs"]
mod signals;
#[path = "it/traffic.rs"]
mod traffic;
#[allow(dead_code)]
#[path = "it/wait.rs"]
mod wait;
#[allow(dead_code)]
#[path = "it/websocket.rs"]
mod websocket;
#[allow(dead_code)]
#[path = "it/wire.rs"]
mod wire;

mod program {
    //! A running `speedmimi`: started with a file, talked to by signals, killed at the latest when its test ends.

    use std::io::{BufRead, BufReader};
    use std::net::SocketAddr;
    use std::process::{Child, Command, ExitStatus, Stdio};
    use std::sync::{Arc, Mutex};
    use std::thread;

    use rustix::process::{Pid, Signal, kill_process};

    use crate::client::Client;
    use crate::wait;
    use crate::wire::lock;

    /// The program with arguments; nothing of this process's environment matters to it.
    pub fn command(arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_speedmimi"));
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it to its end: status, standard output, standard error.
    pub fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
        let done = command(arguments).output().expect("the program");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (done.status.code(), text(done.stdout), text(done.stderr))
    }

    /// A process and what it has said on standard error.
    pub struct Program {
        child: Child,
        said: Arc<Mutex<String>>,
    }

    impl Program {
        /// Starts it; with `descriptors` under that `RLIMIT_NOFILE`.
        pub fn start(arguments: &[&str], descriptors: Option<u32>) -> Program {
            let mut command = match descriptors {
                None => command(arguments),
                Some(n) => {
                    let mut shell = Command::new("sh");
                    let script = format!("ulimit -n {n} && exec \"$@\"");
                    shell.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_speedmimi")]).args(arguments);
                    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
                    shell
                }
            };
            Program::spawn(&mut command)
        }

        /// Starts it by a command that has its standard error piped.
        pub fn spawn(command: &mut Command) -> Program {
            let mut child = command.spawn().expect("the program");
            let said = Arc::new(Mutex::new(String::new()));
            let (text, stderr) = (said.clone(), child.stderr.take().expect("a pipe"));
            thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    lock(&text).push_str(&(line + "\n"));
                }
            });
            Program { child, said }
        }

        pub fn said(&self) -> String {
            lock(&self.said).clone()
        }

        /// How often it has said `text`.
        pub fn count(&self, text: &str) -> usize {
            lock(&self.said).matches(text).count()
        }

        /// Waits until it has said `text` so many times.
        #[track_caller]
        pub fn wait_for(&self, text: &str, times: usize) {
            wait::until(&format!("{text:?} in {:?}", self.said()), || self.count(text) >= times);
        }

        /// Where it listens, once it says so.
        #[track_caller]
        pub fn addr(&self) -> SocketAddr {
            self.wait_for("is running", 1);
            let said = self.said();
            let (_, after) = said.split_once("listen=\"").expect("listen addresses");
            let first = after.split(['"', ' ']).next().unwrap_or_default();
            first.parse().unwrap_or_else(|e| panic!("{e}: {first:?} in {said}"))
        }

        /// A figure of `/metrics`, summed over its labels.
        #[track_caller]
        pub fn metric(&self, name: &str) -> u64 {
            let said = self.said();
            let (_, after) = said.split_once("management=\"http://").expect("management's address");
            let to = after.split('/').next().and_then(|addr| addr.parse().ok()).expect("an address");
            let mut management = Client::connect(to);
            management.send(format!("GET /metrics HTTP/1.1\r\nHost: {to}\r\n\r\n"));
            let page = management.response().text();
            let lines = page.lines().filter_map(|line| line.strip_prefix(name));
            let numbers = lines.filter(|rest| rest.starts_with(['{', ' '])).filter_map(|rest| rest.rsplit(' ').next());
            numbers.map(|number| number.parse::<u64>().unwrap_or_else(|e| panic!("{e}: {number}"))).sum()
        }

        pub fn client(&self) -> Client {
            Client::connect(self.addr())
        }

        pub fn signal(&self, signal: Signal) {
            kill_process(self.pid(), signal).expect("a process that runs");
        }

        pub fn pid(&self) -> Pid {
            Pid::from_child(&self.child)
        }

        /// Waits for its end.
        #[track_caller]
        pub fn end(&mut self) -> ExitStatus {
            let mut status = None;
            wait::until_within(20, "the end of the program", || {
                status = self.child.try_wait().expect("a child");
                status.is_some()
            });
            status.expect("a status")
        }
    }

    impl Drop for Program {
        fn drop(&mut self) {
            if self.child.try_wait().is_ok_and(|status| status.is_none()) {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
            if thread::panicking() {
                eprintln!("the program said:\n{}", self.said());
            }
        }
    }
}

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::Client;
use crate::dir::Dir;
use crate::origin::{Next, Origin};
use crate::pki::Pki;
use crate::program::{Program, command, run};
use crate::signals::Signals;
use crate::wire::{Sock, Trouble};

/// A file for a proxy in front of `origin`; `server` is further keys of that section, `rest` further sections.
fn file(origin: &Origin, server: &str, backend: &str, rest: &str) -> String {
    format!(
        "grpc: {{port: 0}}\n\
         server: {{host: 127.0.0.1, port: 0, workers: 2, max_conn: 4096, shutdown_timeout: 3s, {server}}}\n\
         backends: {{default: [{{host: 127.0.0.1, port: {}, {backend}}}]}}\n\
         routing: {{default: {{upstream: default}}}}\n{rest}",
        origin.port()
    )
}

#[test]
fn every_command_ends_with_the_status_of_its_outcome() {
    let dir = Dir::new("status");
    let good = dir.write("good.yaml", "routing: {a: {respond: {status: 204}}}\n");
    let bad = dir.write("bad.yaml", "routing: {a: {respond: {status: 204}}}\nsever: {}\n");
    let new = dir.path("new.yaml").display().to_string();
    let none = dir.path("none.yaml").display().to_string();

    assert_eq!(run(&["check", "--config", &good]).0, Some(0));
    let (status, told, _) = run(&["check", "--config", &bad]);
    assert_eq!(status, Some(78));
    assert!(told.contains("bad.yaml:2:1: sever: unknown key (did you mean server?)"), "{told}");
    for spelling in
        [&["run", "--config", &bad][..], &["--config", &bad], &["-config", &bad], &["run", "--config", &none]]
    {
        let (status, _, said) = run(spelling);
        assert_eq!(status, Some(78), "{spelling:?}: {said}");
        assert!(said.contains(".yaml"), "{said}");
    }
    let tls =
        dir.write("tls.yaml", "ssl: {enabled: on, cert_file: none.crt}\nrouting: {a: {respond: {status: 204}}}\n");
    let (status, _, said) = run(&["run", "--config", &tls]);
    assert!(status == Some(78) && said.contains("ssl.cert_file: none.crt: cannot be read"), "{status:?} {said}");
    assert_eq!(run(&["init", &new]).0, Some(0));
    assert_eq!(run(&["check", "--config", &new]).0, Some(0));
    assert_eq!(run(&["init", &new]).0, Some(1), "it never overwrites");
    let (status, told, _) = run(&["--version"]);
    assert_eq!(status, Some(0));
    assert!(told.contains(env!("CARGO_PKG_VERSION")) && told.contains("commit:"), "{told}");
    for usage in [&["--no-such-flag"][..], &["no-such-command"], &["run", "extra"], &["demo", "--port", "many"]] {
        assert_eq!(run(usage).0, Some(2), "{usage:?}");
    }
}

#[test]
fn an_address_in_use_is_said_and_ends_with_1() {
    let dir = Dir::new("in-use");
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let path = dir.write(
        "f.yaml",
        format!(
            "grpc: {{enabled: false}}\nserver: {{host: 127.0.0.1, port: {port}}}\nrouting: {{a: {{respond: {{}}}}}}\n"
        ),
    );
    let (status, _, said) = run(&["run", "--config", &path]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{said}");
}

#[test]
fn the_demo_answers_and_stops_on_sigint() {
    let mut child = command(&["demo", "--port", "0", "--management", "0"]).spawn().expect("the program");
    let mut told = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let line = told.find_map(|line| line.ok().filter(|line| line.contains("proxy "))).expect("the proxy's address");
    let addr = line.split("http://").nth(1).and_then(|rest| rest.trim_end_matches('/').parse().ok());
    let mut client = Client::connect(addr.unwrap_or_else(|| panic!("no address in {line}")));
    let answer = client.get("/");
    assert!(answer.text().starts_with("Hello from backend "), "{answer:?}");
    assert!(client.get("/headers").text().contains("X-Forwarded-For: 127.0.0.1"));
    assert!(client.get("/hello").text().starts_with("Hello from the proxy itself"));
    drop(client);
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::INT).expect("a process that runs");
    // Read on, so that it does not stop for a full pipe.
    assert!(told.all(|line| line.is_ok()));
    assert_eq!(child.wait().expect("a child").code(), Some(0));
}

#[test]
fn sighup_reads_the_file_again_and_a_bad_one_changes_nothing() {
    let dir = Dir::new("reload");
    let (old, new) = (Origin::start(origin::by_path), Origin::start(origin::by_path));
    let path = dir.write("f.yaml", file(&old, "", "", ""));
    let mut program = Program::start(&["-config", &path], None);
    let mut client = program.client();
    assert_eq!(client.get("/").status, 200);
    dir.write("f.yaml", file(&new, "prot: 1", "", ""));
    program.signal(Signal::HUP);
    program.wait_for("not reloaded", 1);
    assert!(program.said().contains("did you mean port?"), "{}", program.said());
    assert_eq!(client.get("/").status, 200);
    assert_eq!((old.requests().len(), new.requests().len()), (2, 0));
    dir.write("f.yaml", file(&new, "cpu_affinity: [0], idle_timeout: 1h", "", ""));
    program.signal(Signal::HUP);
    program.wait_for("but for keys that need a restart", 1);
    assert!(program.said().contains("restart_required=\"server.cpu_affinity\""), "{}", program.said());
    assert_eq!(client.get("/").status, 200);
    assert_eq!(new.requests().len(), 1);
    drop(client);
    program.signal(Signal::TERM);
    assert_eq!(program.end().code(), Some(0));
}

/// New files alone are taken as well, a second later: here it is the signal that does it.
#[test]
fn sighup_takes_new_certificates() {
    let (pki, origin) = (Pki::new("hup-tls"), Origin::start(origin::by_path));
    let old = pki.issue(&["a.test"]);
    let (cert, key) = (old.cert_file.display(), old.key_file.display());
    let text = file(&origin, "", "", &format!("ssl: {{enabled: true, cert_file: {cert}, key_file: {key}}}\n"));
    let program = Program::start(&["run", "--config", &pki.dir.write("f.yaml", text)], None);
    let shown = |who: &str| {
        let name = rustls::pki_types::ServerName::try_from("a.test").expect("a name");
        let mut session = rustls::ClientConnection::new(pki.client(&[]), name).expect("a client");
        let mut socket = TcpStream::connect(program.addr()).expect(who);
        while session.is_handshaking() {
            session.complete_io(&mut socket).expect(who);
        }
        session.peer_certificates().expect("a chain").to_vec()
    };
    assert_eq!(shown("the first"), old.chain);
    let new = pki.issue(&["a.test"]);
    program.signal(Signal::HUP);
    program.wait_for(" reloaded", 1);
    assert_eq!(shown("who comes once it is reloaded"), new.chain);
    let said = program.said();
    let (before, _) = said.split_once(" reloaded").expect("a line");
    assert!(before.contains("in use for TLS") && !said.contains("stays"), "{said}");
}

#[test]
fn sigusr1_opens_the_access_log_again() {
    let dir = Dir::new("usr1");
    let origin = Origin::start(origin::by_path);
    let log = dir.path("access.log");
    let section = format!("log: {{access: \"{}\"}}\n", log.display());
    let path = dir.write("f.yaml", file(&origin, "", "", &section));
    let program = Program::start(&["run", "--config", &path], None);
    let mut client = program.client();
    let lines = |path: &std::path::Path| fs::read_to_string(path).unwrap_or_default().lines().count();
    assert_eq!(client.get("/").status, 200);
    wait::until("a line", || lines(&log) == 1);
    let moved = dir.path("access.log.1");
    fs::rename(&log, &moved).expect("a log");
    program.signal(Signal::USR1);
    // When the signal was seen nobody tells; lines go to either file, and none is lost.
    let mut asked = 1;
    wait::until("a line in the new file", || {
        assert_eq!(client.get("/").status, 200);
        asked += 1;
        lines(&log) > 0
    });
    wait::until("all lines", || lines(&log) + lines(&moved) == asked);
}

#[test]
fn sigterm_lets_what_runs_finish_and_a_second_one_does_not() {
    let dir = Dir::new("term");
    let origin = Origin::start(origin::by_path);
    let path = dir.write("f.yaml", file(&origin, "", "", "").replace("3s", "60s"));
    for twice in [false, true] {
        let gate = format!("go-{twice}");
        let mut program = Program::start(&["--config", &path], None);
        let mut running = program.client();
        let addr = program.addr();
        running.send_get(&format!("/gate/{gate}"));
        origin.wait_for_in_flight(1);
        program.signal(Signal::TERM);
        wait::until("refusal", || Sock::tcp(addr).is_err());
        let since = Instant::now();
        if twice {
            program.signal(Signal::TERM);
            assert_eq!(program.end().code(), Some(0));
            assert!(matches!(running.try_get("/"), Err(Trouble::Ended { .. } | Trouble::Socket(_))));
            origin.gate(&gate).open();
        } else {
            origin.gate(&gate).open();
            let answer = running.response();
            assert_eq!((answer.text().as_str(), answer.fields.lists("connection", "close")), ("ok", true));
            drop(running);
            assert_eq!(program.end().code(), Some(0));
        }
        assert!(since.elapsed() < Duration::from_secs(10), "it took {:?}", since.elapsed());
        origin.wait_for_in_flight(0);
    }
}

/// Descriptors of a thread as `/proc` names what they lead to, e.g. `socket:[4711]`.
fn table_of(task: &Path) -> Vec<String> {
    let entries = fs::read_dir(task.join("fd")).into_iter().flatten().flatten();
    entries.filter_map(|fd| Some(fs::read_link(fd.path()).ok()?.display().to_string())).collect()
}

/// What the sockets that listen on that port are called in `/proc`.
fn listeners(port: u16) -> Vec<String> {
    let table = fs::read_to_string("/proc/net/tcp").expect("/proc/net/tcp");
    let local = format!(":{port:04X}");
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // Local address, state 0A = listening, inode.
    let listens = fields.filter(|f| f.get(1).is_some_and(|addr| addr.ends_with(&local)) && f.get(3) == Some(&"0A"));
    listens.filter_map(|f| Some(format!("socket:[{}]", f.get(9)?))).collect()
}

#[test]
fn private_tables_hold_their_workers_listener_and_no_other() {
    let dir = Dir::new("tables");
    let origin = Origin::start(origin::by_path);
    let path = dir.write("f.yaml", file(&origin, "fd_tables: private", "", "").replace("workers: 2", "workers: 3"));
    // With a descriptor inherited above all that it opens itself, as service managers and shells hand down.
    let null = fs::File::open("/dev/null").expect("a file");
    let inherited = rustix::io::fcntl_dupfd_cloexec(&null, 300).expect("a high number");
    rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty()).expect("an inheritable descriptor");
    let program = Program::start(&["run", "--config", &path], None);
    let listeners = listeners(program.addr().port());
    assert_eq!(listeners.len(), 3);
    let tasks = fs::read_dir(format!("/proc/{}/task", program.pid().as_raw_nonzero())).expect("threads").flatten();
    let name = |task: &fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    let workers: Vec<Vec<String>> =
        tasks.filter(|task| name(task).starts_with("worker-")).map(|task| table_of(&task.path())).collect();
    assert_eq!(workers.len(), 3);
    for listener in &listeners {
        let holders = workers.iter().filter(|table| table.contains(listener)).count();
        assert_eq!(holders, 1, "{listener} is in the tables of {holders} workers: {workers:#?}");
    }
}

/// Wakes and signals as `storm` counts them, of which there are a million: here it is the program itself that takes the
/// signals and reads its file.
#[test]
fn private_tables_keep_every_byte_to_its_connection_under_a_storm_of_wakes_and_signals() {
    const EACH: u64 = 50_000;
    const WORKERS: u64 = 8;
    /// No judgement of speed: an end for a storm that does not get on.
    const STORM_TIME_MAX: Duration = Duration::from_secs(300);
    let dir = Dir::new("private");
    let (origin, echo) = (Origin::start(origin::by_path), traffic::echo());
    let log = format!("log: {{access: \"{}\"}}\n", dir.path("access.log").display());
    let text = |origin: &Origin| {
        format!(
            "grpc: {{port: 0}}\n\
             server: {{host: 127.0.0.1, port: 0, workers: {WORKERS}, max_conn: 4096, shutdown_timeout: 3s, \
             fd_tables: private, park_after: 100ms, read_timeout: 1h, idle_timeout: 1h}}\n\
             backends: {{default: [{{host: 127.0.0.1, port: {}}}], echo: [{{host: 127.0.0.1, port: {echo}, max_conn: 2}}]}}\n\
             upstreams: {{echo: {{queue: {{size: 1000, timeout: 30s}}}}}}\n\
             routing: {{default: {{upstream: default}}, echo: {{path: /echo, upstream: echo}}}}\n{log}",
            origin.port()
        )
    };
    let path = dir.write("f.yaml", text(&origin));
    let mut program = Program::start(&["run", "--config", &path], None);
    let addr = program.addr();
    assert!(program.said().contains("one table a worker"), "{}", program.said());
    // Who says nothing must hear nothing: a stray wake would be a byte here.
    let mut silent: Vec<Client> = (0..100).map(|_| Client::connect(addr)).collect();
    for client in silent.iter_mut().skip(50) {
        assert_eq!(client.get("/").status, 200);
    }
    let mut tunnel = Client::connect(addr);
    tunnel.upgrade("/ws");
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut signals = Signals::to(program.pid());
    let wakes = || program.count(" reloaded") as u64 * WORKERS;
    let since = Instant::now();
    thread::scope(|scope| {
        let loads: Vec<_> = (0..4)
            .map(|who| {
                let (stop, count) = (&stop, &count);
                scope.spawn(move || traffic::checked(addr, who, stop, count))
            })
            .collect();
        while signals.sent < EACH || wakes() < EACH {
            // Once there were enough signals, those that do not ask for a reload would only delay it.
            let kinds: &[Signal] = if signals.sent < EACH { &[Signal::HUP, Signal::USR1] } else { &[Signal::HUP] };
            (0..1000).for_each(|_| signals.send(kinds));
            tunnel.send_frame(websocket::TEXT, b"in the midst of it");
            assert_eq!(tunnel.read_frame().payload, b"in the midst of it");
            let is_late = since.elapsed() > STORM_TIME_MAX;
            if is_late || loads.iter().any(thread::ScopedJoinHandle::is_finished) {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        loads.into_iter().for_each(|load| load.join().expect("traffic without a stray or missing byte"));
    });
    let told = format!(
        "{} wakes of workers, {} signals and {} exchanges in {:?}",
        wakes(),
        signals.sent,
        count.load(Ordering::Relaxed),
        since.elapsed()
    );
    println!("{told}");
    assert!(wakes() >= EACH && signals.sent >= EACH, "{told}");
    for client in &mut silent {
        client.send_get("/size/5");
        assert_eq!(client.response().body, origin::pattern(5));
        client.finish_sending();
        client.expect_end();
    }
    // The end of the backend's side reaches the client: no copy of a socket is left open in another table.
    let last_words = Origin::start(|exchange| {
        exchange.send(websocket::ACCEPTED)?;
        Ok(Next::Close)
    });
    dir.write("f.yaml", text(&last_words));
    program.signal(Signal::HUP);
    // What it says may still be of the storm; a 101 that nobody asked for is of the new file.
    wait::until("the last reload", || Client::connect(addr).get("/").status == 502);
    let mut ended = Client::connect(addr);
    ended.upgrade("/");
    ended.expect_end();
    drop(ended);
    program.signal(Signal::TERM);
    // With a tunnel open that the proxy waits for: it is the end of listening that refuses, not that of the process.
    wait::until("refusal by all workers", || (0..8).all(|_| Sock::tcp(addr).is_err()));
    tunnel.send_frame(websocket::TEXT, b"to the last");
    assert_eq!(tunnel.read_frame().payload, b"to the last");
    drop(tunnel);
    assert_eq!(program.end().code(), Some(0));
}

#[test]
fn private_tables_hold_more_connections_than_one_table_could() {
    const LIMIT: u32 = 256;
    const CLIENTS: usize = 500;
    let dir = Dir::new("many");
    let origin = Origin::start(origin::by_path);
    let text = file(&origin, "fd_tables: auto, park_after: 100ms", "max_conn: 8", "")
        .replace("workers: 2", "workers: 4")
        + "upstreams: {default: {queue: {size: 1000, timeout: 30s}}}\n";
    let path = dir.write("f.yaml", text);
    let mut program = Program::start(&["run", "--config", &path], Some(LIMIT));
    let addr = program.addr();
    let said = program.said();
    assert!(said.contains("one table a worker") && said.contains(&format!("descriptors={LIMIT}")), "{said}");
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(addr)).collect();
    for round in 0..2 {
        clients.iter_mut().for_each(|client| client.send_get(&format!("/size/{}", 10 + round)));
        clients.iter_mut().for_each(|client| assert_eq!(client.response().body, origin::pattern(10 + round)));
    }
    drop(clients);
    program.signal(Signal::TERM);
    assert_eq!(program.end().code(), Some(0));
}

/// Who has no descriptor has none to give.
#[test]
fn a_full_table_costs_no_parked_connection_its_life() {
    const LIMIT: u32 = 256;
    let dir = Dir::new("full");
    let origin = Origin::start(origin::by_path);
    let text = file(&origin, "park_after: 100ms, idle_timeout: 1h, read_timeout: 1h", "", "");
    let path = dir.write("f.yaml", text.replace("workers: 2", "workers: 1"));
    let program = Program::start(&["run", "--config", &path], Some(LIMIT));
    let addr = program.addr();
    if !program.said().contains("idle connections beside it") {
        eprintln!("SKIPPED: no io_uring here, or not for everybody");
        return;
    }
    let mut idle: Vec<Client> = (0..300).map(|_| Client::connect(addr)).collect();
    idle.iter_mut().for_each(|client| assert_eq!(client.get("/size/3").status, 200));
    wait::until("all in the lot", || program.metric("speedmimi_connections_parked") == 300);
    // Two descriptors each: more than there are.
    let mut busy: Vec<Client> = (0..150).map(|_| Client::connect(addr)).collect();
    busy.iter_mut().for_each(|client| client.send_get("/gate/go"));
    wait::until("some that could not be passed on", || program.metric("speedmimi_proxy_answers_total") > 0);
    origin.gate("go").open();
    let answers: Vec<u16> = busy.iter_mut().map(|client| client.response().status).collect();
    assert!(answers.contains(&200) && answers.iter().all(|status| [200, 503].contains(status)), "{answers:?}");
    drop(busy);
    idle.iter_mut().for_each(|client| client.send_get("/size/7"));
    for (n, client) in idle.iter_mut().enumerate() {
        assert_eq!(client.response().body, origin::pattern(7), "client {n}");
    }
}

/// Five times as many as the tables hold, and all of them at once.
#[test]
fn parked_connections_need_no_descriptor() {
    const LIMIT: u32 = 256;
    const CLIENTS: usize = 2000;
    let dir = Dir::new("shelved");
    let origin = Origin::start(origin::by_path);
    let text = file(&origin, "park_after: 100ms, idle_timeout: 1h, read_timeout: 1h", "max_conn: 20", "")
        + "upstreams: {default: {queue: {size: 10000, timeout: 60s}}}\n";
    let path = dir.write("f.yaml", text);
    let mut program = Program::start(&["run", "--config", &path], Some(LIMIT));
    let addr = program.addr();
    if !program.said().contains("idle connections beside it") {
        eprintln!("SKIPPED: no io_uring here, or not for everybody");
        return;
    }
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(addr)).collect();
    // Everybody at once, three times, each with a question of its own: whoever got another's answer would see it.
    for round in 0..3 {
        for (n, client) in clients.iter_mut().enumerate() {
            client.send_get(&format!("/size/{}", n + round));
        }
        for (n, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.response().body, origin::pattern(n + round), "client {n} in round {round}");
        }
        let held = |name| program.metric(name) as usize;
        wait::until("all in the lot", || held("speedmimi_connections_parked") == CLIENTS);
        assert!(held("speedmimi_connections_shelved") > CLIENTS - LIMIT as usize, "most have no descriptor");
    }
    // Who leaves is let go of, and who stays is there.
    let mut stay = clients.split_off(CLIENTS / 3);
    drop(clients);
    wait::until("the end of those", || program.metric("speedmimi_connections_active") as usize == stay.len());
    stay.iter_mut().for_each(|client| client.send_get("/size/7"));
    stay.iter_mut().for_each(|client| assert_eq!(client.response().body, origin::pattern(7)));
    // One that was woken and ends while it is served is let go of too: its socket is on the shelf still.
    let mut last = stay.pop().expect("a client");
    last.send("GET /size/7 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(last.response().body, origin::pattern(7));
    last.expect_end();
    program.signal(Signal::TERM);
    stay.iter_mut().for_each(Client::expect_end);
    assert_eq!(program.end().code(), Some(0));
}

#[test]
fn when_descriptors_run_out_the_longest_parked_make_room_and_backends_stay_reachable() {
    const LIMIT: u32 = 200;
    let dir = Dir::new("emfile");
    let origin = Origin::start(origin::by_path);
    let path = dir.write("f.yaml", file(&origin, "fd_tables: shared, park_after: 100ms", "", ""));
    let mut program = Program::start(&["run", "--config", &path], Some(LIMIT));
    let addr = program.addr();
    // The first parks before all others.
    let mut first = Client::connect(addr);
    assert_eq!(first.get("/").status, 200);
    let mut busy: Vec<Client> = Vec::new();
    for n in 0..30 {
        let mut client = Client::connect(addr);
        client.send_get("/gate/go");
        busy.push(client);
        origin.wait_for_in_flight(n + 1);
    }
    // Far more than the table holds, one after the other: each is served, as older idle ones go.
    let mut later: Vec<Client> = Vec::new();
    for n in 0..400 {
        let mut client = Client::connect(addr);
        assert_eq!(client.get("/size/9").body, origin::pattern(9), "client {n}");
        later.push(client);
    }
    // Who has been parked longest has gone; who came last is there.
    first.expect_end();
    later[0].expect_end();
    assert_eq!(later.last_mut().expect("the last").get("/").status, 200);
    origin.gate("go").open();
    busy.iter_mut().for_each(|client| assert_eq!(client.response().text(), "ok"));
    drop((busy, later));
    program.signal(Signal::TERM);
    assert_eq!(program.end().code(), Some(0));
}

#[test]
fn a_log_in_json_is_json_to_its_last_line() {
    let dir = Dir::new("json");
    let origin = Origin::start(origin::by_path);
    let path = dir.write("f.yaml", file(&origin, "", "", "log: {format: json}\n"));
    let mut child = command(&["run", "--config", &path]).spawn().expect("the program");
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    stderr.read_line(&mut line).expect("a line");
    let value: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
    assert_eq!(value["level"], "INFO", "{line}");
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).expect("a process that runs");
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).expect("the rest");
    assert!(rest.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{rest}");
    assert_eq!(child.wait().expect("a child").code(), Some(0));
}
