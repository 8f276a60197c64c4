//! `speedmimi demo`: the proxy with three backends of its own, to look at without a file or another program.
//!
//! Owns the demo's configuration and its backends. Never used by `run`.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{ExitStatus, run};
use crate::config::document::Document;
use crate::logging;
use crate::server::Start;
use crate::service::Service;

/// Name, weight and time to answer of each backend.
const BACKENDS: [(&str, u32, Duration); 3] = [
    ("fast", 300, Duration::from_millis(2)),
    ("steady", 200, Duration::from_millis(10)),
    ("slow", 100, Duration::from_millis(40)),
];

/// Starts the demo on `port`, with management on `management`, and serves until a signal ends it.
///
/// # Errors
/// Those of writing to `out`.
pub fn run(port: u16, management: u16, out: &mut impl Write) -> io::Result<ExitStatus> {
    let listeners = BACKENDS.iter().map(|_| TcpListener::bind("127.0.0.1:0")).collect::<io::Result<Vec<_>>>()?;
    let ports = listeners.iter().map(|l| Ok(l.local_addr()?.port())).collect::<io::Result<Vec<u16>>>()?;
    let text = configuration(port, management, &ports);
    let document = match Document::from_text(&text, "demo", |_| None) {
        Ok(document) => document,
        Err(faults) => {
            super::check::print_faults(&faults, out)?;
            return Ok(ExitStatus::Failed);
        }
    };
    logging::start(&document.plan().log);
    run::serve(Start::from(document), Service::default(), |handle| {
        // After the proxy has started: what they open stays out of the workers' descriptor tables.
        for (listener, backend) in listeners.into_iter().zip(BACKENDS) {
            std::thread::Builder::new().name(format!("demo-{}", backend.0)).spawn(move || serve(&listener, backend))?;
        }
        // As asked for, or as the system chose.
        let port = handle.addr(0).map_or(port, |addr| addr.port());
        tell(port, handle.management().map_or(management, |addr| addr.port()), &ports, out)
    })
}

fn configuration(port: u16, management: u16, ports: &[u16]) -> String {
    let mut text = format!("server:\n  host: 127.0.0.1\n  port: {port}\ngrpc:\n  port: {management}\n");
    text.push_str("backends:\n  demo:\n");
    for ((name, weight, _), port) in BACKENDS.iter().zip(ports) {
        text.push_str(&format!("    - {{id: {name}, host: 127.0.0.1, port: {port}, weight: {weight}, "));
        text.push_str("health_check: {type: http, path: /health, interval: 5s}}\n");
    }
    text.push_str("routing:\n  everything: {path: /, upstream: demo}\n");
    text.push_str("  hello: {path: /hello, respond: {status: 200, body: \"Hello from the proxy itself\\n\"}}\n");
    text
}

fn tell(port: u16, management: u16, ports: &[u16], out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "\nSpeedMimi demo\n")?;
    writeln!(out, "  proxy     http://127.0.0.1:{port}/")?;
    writeln!(out, "  dashboard http://127.0.0.1:{management}/")?;
    for ((name, weight, delay), port) in BACKENDS.iter().zip(ports) {
        let delay = delay.as_millis();
        writeln!(out, "  backend   {name:<7} weight {weight}, answers after {delay} ms (127.0.0.1:{port})")?;
    }
    writeln!(out, "\nThree things to try:\n")?;
    writeln!(out, "  curl -i http://127.0.0.1:{port}/           # who answered? ask again: the weights decide")?;
    writeln!(out, "  curl -s http://127.0.0.1:{port}/headers    # what a backend sees of your request")?;
    writeln!(out, "  curl -N http://127.0.0.1:{port}/events     # an event stream, passed on as it comes")?;
    writeln!(out, "\nCtrl-C stops it.\n")?;
    out.flush()
}

fn serve(listener: &TcpListener, (name, _, delay): (&'static str, u32, Duration)) {
    let served = Arc::new(AtomicU64::new(0));
    for stream in listener.incoming().flatten() {
        let served = served.clone();
        // A demo: a thread a connection is plain to read, and the proxy keeps few.
        let _ = std::thread::Builder::new().spawn(move || {
            let _ = converse(stream, name, delay, &served);
        });
    }
}

fn converse(stream: TcpStream, name: &str, delay: Duration, served: &AtomicU64) -> io::Result<()> {
    let mut out = stream.try_clone()?;
    let mut lines = BufReader::new(stream).lines();
    while let Some(request) = lines.next() {
        let request = request?;
        let mut head = format!("{request}\n");
        let mut length = 0;
        for line in lines.by_ref() {
            let line = line?;
            if line.is_empty() {
                break;
            }
            if let Some((key, value)) = line.split_once(':')
                && key.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or(0);
            }
            head.push_str(&line);
            head.push('\n');
        }
        let path = request.split(' ').nth(1).unwrap_or("/");
        if length > 0 || path == "/events" {
            return last(&mut out, name, path);
        }
        if path != "/health" {
            std::thread::sleep(delay);
        }
        let count = served.fetch_add(1, Ordering::Relaxed) + 1;
        let body = match path {
            "/headers" => head,
            _ => format!("Hello from backend {name}, its answer number {count}\n"),
        };
        let len = body.len();
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len}\r\nServer: {name}\r\n\r\n");
        // In one piece: in several, the last would wait 40 ms for the acknowledgement of the first.
        out.write_all((head + &body).as_bytes())?;
    }
    Ok(())
}

/// Answers that end the connection: event streams, and requests with a body, which is not read.
fn last(out: &mut TcpStream, name: &str, path: &str) -> io::Result<()> {
    if path != "/events" {
        let body = format!("Backend {name} does not read bodies in this demo\n");
        let len = body.len();
        return write!(out, "HTTP/1.1 200 OK\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}");
    }
    write!(out, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")?;
    for n in 1..=60 {
        write!(out, "data: event {n} from {name}\n\n")?;
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}
