//! Traffic of which every byte is checked, for as long as a test wants.
//!
//! Owns both ends of it. Keeps no record: it is meant for more exchanges than could be kept.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::client::Client;
use crate::origin::WATCHDOG;
use crate::wire::{self, Sock, Trouble, Wire};

/// An origin that sends content back; its port.
pub fn echo() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(Sock::Tcp(stream)));
        }
    });
    port
}

fn serve(sock: Sock) -> Result<(), Trouble> {
    let mut wire = Wire::new(sock, WATCHDOG).map_err(Trouble::Socket)?;
    loop {
        let framing = wire.request()?.framing;
        let (body, _) = wire.body(framing)?;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        wire.sock.write_all(&[head.as_bytes(), &body].concat()).map_err(Trouble::Socket)?;
    }
}

/// Sends bodies of a pattern of its own to `/echo` and compares what comes back, until told to stop; counts what came back
/// in `count`.
pub fn checked(addr: SocketAddr, who: usize, stop: &AtomicBool, count: &AtomicU64) {
    let mut client = Client::connect(addr);
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        if n % 50 == 0 {
            // In order, to the last byte and no further; then a new one, so that descriptors are used again.
            client.finish_sending();
            client.expect_end();
            client = Client::connect(addr);
        }
        let body: Vec<u8> = format!("{who}:{n};").into_bytes().repeat(1 + (n * 13 + who * 101) % 900);
        let answer = client.request("POST", "/echo", &[], &body);
        assert_eq!(answer.status, 200, "request {n} of {who}: {answer:?}");
        assert!(answer.body == body, "request {n} of {who} got other bytes: {}", wire::show(&answer.body));
        assert!(client.wire.pending().is_empty(), "stray bytes: {}", wire::show(client.wire.pending()));
        count.fetch_add(1, Ordering::Relaxed);
    }
}
