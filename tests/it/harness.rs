//! The two ends of a test against each other: what they promise the other tests, without a proxy between them.

use std::sync::Mutex;
use std::sync::mpsc;

use crate::client::Client;
use crate::origin::{self, Next, Origin};
use crate::websocket;
use crate::wire::{Framing, Sock, Trouble};

#[test]
fn every_byte_is_on_record() {
    let origin = Origin::start(origin::by_path);
    let sent = b"POST /echo?q=1 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello\
        GET /bye HTTP/1.1\r\nHost: b\r\n\r\n";
    let mut client = Client::connect(origin.addr());
    client.send_in_pieces(sent, 1);
    assert_eq!(client.response().text(), "hello");
    assert_eq!(client.response().text(), "bye");
    client.expect_end();
    let connections = origin.settle();
    assert_eq!(connections.len(), 1);
    assert_eq!(connections[0].bytes, sent);
    assert!(origin.connections().is_empty());
}

#[test]
fn requests_are_listed_with_their_content() {
    let origin = Origin::start(origin::by_path);
    Client::connect(origin.addr()).request("POST", "/echo", &[("X-A", "1")], b"body");
    let seen = origin.only_request();
    assert_eq!((seen.request.method.as_str(), seen.request.target.as_str()), ("POST", "/echo"));
    assert_eq!(seen.request.fields.one("x-a").as_deref(), Some("1"));
    assert_eq!(seen.body, b"body");
}

#[test]
fn a_killed_origin_refuses_and_comes_back_on_its_port() {
    let origin = Origin::start(origin::by_path);
    let mut held = Client::connect(origin.addr());
    assert_eq!(held.get("/").status, 200);
    origin.kill();
    held.expect_end();
    let refused = Sock::tcp(origin.addr()).expect_err("nobody listens");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    origin.revive();
    assert_eq!(Client::connect(origin.addr()).get("/").status, 200);
}

#[test]
fn counts_what_is_in_flight_at_once() {
    let origin = Origin::start(origin::by_path);
    let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(origin.addr())).collect();
    clients.iter_mut().for_each(|c| c.send_get("/gate/go"));
    origin.wait_for_in_flight(20);
    origin.gate("go").open();
    clients.iter_mut().for_each(|c| assert_eq!(c.response().text(), "ok"));
    origin.wait_for_in_flight(0);
    assert_eq!(origin.in_flight_max(), 20);
}

#[test]
fn answers_of_every_framing_are_read() {
    let origin = Origin::start(origin::by_path);
    let mut client = Client::connect(origin.addr());
    assert_eq!(client.get("/size/100000").body, origin::pattern(100_000));
    assert_eq!(client.get("/chunked/3").text(), "chunkchunkchunk");
    let trailers = client.get("/trailers");
    assert_eq!((trailers.text().as_str(), trailers.trailers.one("x-sum").as_deref()), ("hello", Some("42")));
    let interim = client.get("/interim");
    assert_eq!((interim.status, interim.interim[0].status), (200, 103));
    assert_eq!(client.request("HEAD", "/size/9", &[], b"").framing, Framing::None);
    assert_eq!(client.get("/status/404").status, 404);
    assert_eq!(client.get("/until-close").text(), "until close");
}

#[test]
fn broken_answers_are_told_apart() {
    let origin = Origin::start(origin::by_path);
    let try_get = |path| Client::connect(origin.addr()).try_get(path);
    assert!(matches!(try_get("/close"), Err(trouble) if trouble.is_clean_end()));
    assert!(matches!(try_get("/half"), Err(Trouble::Ended { partial }) if partial == b"hello"));
    assert!(matches!(try_get("/garbage"), Err(Trouble::Garbage { .. })));
    assert!(matches!(try_get("/reset"), Err(Trouble::Socket(_))));
}

#[test]
fn events_leave_on_command() {
    let (commands, events) = mpsc::channel::<&[u8]>();
    let events = Mutex::new(events);
    let origin = Origin::start(move |exchange| {
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")?;
        for event in events.lock().map_err(|_| std::io::ErrorKind::Other)?.iter() {
            exchange.send(event)?;
        }
        Ok(Next::Close)
    });
    let mut client = Client::connect(origin.addr());
    client.send_get("/");
    assert_eq!(client.head().framing, Framing::Close);
    for event in [b"data: 1\n\n", b"data: 2\n\n"] {
        commands.send(event).expect("the origin listens");
        assert_eq!(client.read(event.len()), event);
    }
    drop(commands);
    client.expect_end();
}

#[test]
fn frames_of_every_length_come_back() {
    let origin = Origin::start(origin::by_path);
    let mut client = Client::connect(origin.addr());
    client.upgrade("/ws");
    for length in [0, 1, 125, 126, 65_535, 65_536] {
        let payload = origin::pattern(length);
        client.send_frame(websocket::BINARY, &payload);
        assert_eq!(client.read_frame(), websocket::Frame { opcode: websocket::BINARY, payload });
    }
    client.send_frame(websocket::CLOSE, &1000u16.to_be_bytes());
    assert_eq!(client.read_frame().opcode, websocket::CLOSE);
    client.expect_end();
}
