//! A kept-alive exchange as shipped takes four data system calls, `epoll_wait` apart: counted by strace on the built
//! program.
//!
//! Owns the processes it starts. Says what to install where strace is missing; `.ci/run` installs it.

mod ends;

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use ends::Exchange;

const REQUESTS: usize = 10_000;
/// Data calls an exchange may take on average: four, and little for connecting and the odd read that came early.
const CALLS_MAX: f64 = 4.02;
/// By what the client knows the end of an answer.
const END: &str = "the end";

/// A child that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_exchange_takes_four_data_calls() {
    let exchange = Arc::new(Exchange {
        request: b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n".to_vec(),
        request_end: b"\r\n\r\n",
        answer: format!("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{:.>100}", END).into_bytes(),
        answer_end: END.as_bytes(),
    });
    let backend_port = ends::backend(&exchange);
    let own = |end: &str| Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("syscalls-{}.{end}", std::process::id()));
    let (file, counts) = (own("yaml"), own("txt"));
    let text = format!(
        "grpc: {{enabled: false}}\n\
         server: {{host: 127.0.0.1, port: 0, workers: 1}}\n\
         backends: {{default: [{{id: b, host: 127.0.0.1, port: {backend_port}}}]}}\n\
         routing: {{default: {{path: /, upstream: default}}}}\n"
    );
    std::fs::write(&file, text).expect("a file under target");
    let mut proxy = Command::new(env!("CARGO_BIN_EXE_speedmimi"));
    proxy.arg("run").arg("--config").arg(&file).stderr(Stdio::piped());
    let mut proxy = Killed(proxy.spawn().expect("the proxy"));
    let mut client = ends::connect(listens_at(&mut proxy.0));
    ends::ask(&mut client, &exchange, 100);
    let tracer = Command::new("strace")
        .args(["-f", "-c", "-p", &proxy.0.id().to_string(), "-o"])
        .arg(&counts)
        .stderr(Stdio::piped())
        .spawn();
    let mut tracer = Killed(tracer.expect("strace is needed: apt-get install strace"));
    wait_for_attach(&mut tracer.0);
    ends::ask(&mut client, &exchange, REQUESTS);
    rustix::process::kill_process(pid(&tracer.0), rustix::process::Signal::INT).expect("strace runs");
    tracer.0.wait().expect("strace ends");
    let table = std::fs::read_to_string(&counts).expect("what strace counted");
    for file in [file, counts] {
        std::fs::remove_file(file).expect("a file of this test");
    }
    let calls: u64 =
        ["recvfrom", "sendto", "sendmsg", "recvmsg", "readv", "writev"].iter().map(|c| calls(&table, c)).sum();
    let each = calls as f64 / REQUESTS as f64;
    assert!((3.9..=CALLS_MAX).contains(&each), "{each} data calls an exchange:\n{table}");
}

fn pid(child: &Child) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(child.id() as i32).expect("a child has a pid")
}

/// The program says so once it runs; what it says later goes unread, and is little.
fn listens_at(proxy: &mut Child) -> SocketAddr {
    let mut lines = BufReader::new(proxy.stderr.as_mut().expect("piped")).lines().map_while(Result::ok);
    let line = lines.find(|line| line.contains("is running")).expect("the proxy runs");
    let addr = line.split_once("listen=\"").and_then(|(_, rest)| rest.split(['"', ' ']).next()).expect("its address");
    addr.parse().unwrap_or_else(|e| panic!("{e}: {line}"))
}

/// strace says so on standard error once it has hold of all threads.
fn wait_for_attach(tracer: &mut Child) {
    let mut said = Vec::new();
    let err = tracer.stderr.as_mut().expect("piped");
    let mut byte = [0u8];
    while !String::from_utf8_lossy(&said).contains("attached") || byte != *b"\n" {
        assert_eq!(err.read(&mut byte).expect("strace speaks"), 1, "{}", String::from_utf8_lossy(&said));
        said.extend_from_slice(&byte);
    }
}

/// The column "calls" of a row of strace's table.
fn calls(table: &str, name: &str) -> u64 {
    let row = table.lines().find(|line| line.split_whitespace().last() == Some(name));
    row.and_then(|line| line.split_whitespace().nth(3)).and_then(|count| count.parse().ok()).unwrap_or(0)
}
