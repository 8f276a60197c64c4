//! A kept-alive exchange allocates nothing in steady state: counted over the whole process.
//!
//! Owns the process (one test, its own binary): the counting allocator sees client, proxy and backend alike, so both
//! ends here work in buffers of fixed size.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use speedmimi::{config, server};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

const REQUESTS: usize = 5_000;
/// What the clock's second, a tick's log line or a table that grows once may allocate meanwhile.
const ALLOCATIONS_MAX: usize = 50;
const REQUEST: &[u8] =
    b"GET /some/path?with=query HTTP/1.1\r\nHost: example.com\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n";

#[test]
fn a_kept_alive_exchange_allocates_nothing() {
    let backend = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = backend.local_addr().expect("its address").port();
    std::thread::spawn(move || {
        for stream in backend.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    let text = format!(
        "server: {{host: 127.0.0.1, port: 0, workers: 1, fd_tables: shared}}\n\
         backends: {{default: [{{id: b, host: 127.0.0.1, port: {port}}}]}}\n\
         routing: {{default: {{path: /, upstream: default}}}}\n"
    );
    let plan = config::file::read(&text, "test.yaml", |_| None).expect("a sound configuration");
    let proxy = server::start(plan).expect("a started proxy");
    let mut client = TcpStream::connect(proxy.addr(0).expect("an address")).expect("a connection");
    client.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    ask(&mut client, 500);
    let region = Region::new(ALLOCATOR);
    let began = Instant::now();
    ask(&mut client, REQUESTS);
    let taken = began.elapsed();
    let change = region.change();
    let counted = change.allocations + change.reallocations;
    assert!(
        counted <= ALLOCATIONS_MAX,
        "{counted} allocations in {REQUESTS} exchanges ({taken:?}): {change:?}; at most {ALLOCATIONS_MAX} are no part of them"
    );
    drop(client);
    proxy.stop();
}

fn ask(client: &mut TcpStream, times: usize) {
    let mut buffer = [0u8; 4096];
    for _ in 0..times {
        client.write_all(REQUEST).expect("sent");
        let mut len = 0;
        while !buffer[..len].ends_with(b"0123456789") {
            len += client.read(&mut buffer[len..]).expect("an answer");
            assert!(buffer[..len].starts_with(b"HTTP/1.1 200 "), "not the backend's answer");
        }
    }
}

fn answer(mut stream: TcpStream) {
    let mut buffer = [0u8; 4096];
    let mut len = 0;
    while let Ok(n @ 1..) = stream.read(&mut buffer[len..]) {
        len += n;
        if buffer[..len].ends_with(b"\r\n\r\n") {
            len = 0;
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nServer: test\r\n\r\n0123456789";
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    }
}
