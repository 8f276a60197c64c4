//! WebSocket tunnels through the proxy.
//!
//! Never checks what is in the frames beyond that they come back as they were sent.

use crate::origin::{self, Next, Origin};
use crate::proxy::Proxy;
use crate::websocket;

#[test]
fn ten_thousand_frames_come_back() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.upgrade("/ws");
    for n in 0..10_000_usize {
        let payload = origin::pattern(n % 300);
        client.send_frame(websocket::BINARY, &payload);
        assert_eq!(client.read_frame().payload, payload, "frame {n}");
    }
    client.send_frame(websocket::CLOSE, &1000u16.to_be_bytes());
    assert_eq!(client.read_frame().opcode, websocket::CLOSE);
    client.expect_end();
}

#[test]
fn bytes_sent_along_with_the_handshake_are_not_lost() {
    let origin = Origin::start(|exchange| {
        exchange.send(&[websocket::ACCEPTED, b"hello from the start"].concat())?;
        let first = exchange.read_raw()?;
        exchange.finish(&first)?;
        Ok(Next::Close)
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.send([websocket::request("/"), b"and from here".to_vec()].concat());
    assert_eq!(client.head().status, 101);
    assert_eq!(client.read_to_end(), b"hello from the startand from here");
}

#[test]
fn another_answer_than_101_is_relayed_as_usual() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.send(websocket::request("/status/403"));
    assert_eq!(client.response().status, 403);
    assert_eq!(client.get("/").text(), "ok");
}

#[test]
fn one_sides_end_is_passed_on_and_the_other_may_finish() {
    let origin = Origin::start(|exchange| {
        exchange.send(websocket::ACCEPTED)?;
        while !exchange.read_raw()?.is_empty() {}
        exchange.finish(b"last words")?;
        Ok(Next::Close)
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.upgrade("/");
    client.finish_sending();
    assert_eq!(client.read_to_end(), b"last words");
}

#[test]
fn a_101_nobody_asked_for_is_a_502() {
    let origin = Origin::start(|exchange| exchange.finish(websocket::ACCEPTED));
    let proxy = Proxy::before(&origin);
    assert_eq!(proxy.client().get("/").status, 502);
}
