//! The two ends of the tests that count what an exchange costs: a client and a backend over kept connections, which
//! allocate nothing and call the system as little as can be while they exchange.
//!
//! Owns no judgement. Never parses: what is whole is known by its last bytes, which nothing before them repeats.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// How long either end waits for anything before the test fails.
const WATCHDOG: Duration = Duration::from_secs(20);
/// What the last bytes of a message are looked for in, in bytes.
const BUFFER_BYTES: usize = 16 * 1024;

/// One exchange, the same each time.
pub struct Exchange {
    /// What the client sends.
    pub request: Vec<u8>,
    /// By what the backend knows that it has all of it.
    pub request_end: &'static [u8],
    /// What the backend sends then.
    pub answer: Vec<u8>,
    /// By what the client knows that it has all of it.
    pub answer_end: &'static [u8],
}

/// A backend that answers so, a thread a connection, for as long as the process lives; its port.
pub fn backend(exchange: &Arc<Exchange>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    let exchange = Arc::clone(exchange);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let exchange = Arc::clone(&exchange);
            thread::spawn(move || answer(stream, &exchange));
        }
    });
    port
}

fn answer(mut stream: TcpStream, exchange: &Exchange) {
    while reads_to(&mut stream, exchange.request_end) && stream.write_all(&exchange.answer).is_ok() {}
}

/// A connection to the proxy, as soon as it listens.
pub fn connect(addr: SocketAddr) -> TcpStream {
    let deadline = Instant::now() + WATCHDOG;
    loop {
        match TcpStream::connect(addr) {
            Ok(client) => {
                client.set_read_timeout(Some(WATCHDOG)).expect("a bound");
                return client;
            }
            Err(error) => assert!(Instant::now() < deadline, "the proxy did not listen: {error}"),
        }
        thread::yield_now();
    }
}

/// So many exchanges, one after the other.
pub fn ask(client: &mut TcpStream, exchange: &Exchange, times: usize) {
    for n in 0..times {
        client.write_all(&exchange.request).expect("sent");
        assert!(reads_to(client, exchange.answer_end), "no answer to request {n}");
    }
}

/// Reads until `end` was the last that came; false when the stream ends or fails before.
fn reads_to(stream: &mut TcpStream, end: &[u8]) -> bool {
    let mut buffer = [0u8; BUFFER_BYTES];
    let mut len = 0;
    while !buffer[..len].ends_with(end) {
        // Room for more; an end that has come in part stays.
        if len > end.len() {
            buffer.copy_within(len - end.len()..len, 0);
            len = end.len();
        }
        match stream.read(&mut buffer[len..]) {
            Ok(n @ 1..) => len += n,
            _ => return false,
        }
    }
    true
}
