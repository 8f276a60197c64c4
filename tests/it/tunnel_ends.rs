//! How tunnels live long and how they end: silence, either side's end, a reset, the proxy's own end.
//!
//! Never checks what passes through a quiet tunnel; `tunnel` does.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::origin::{self, Next, Origin};
use crate::proxy::{Proxy, sections};
use crate::wait;
use crate::websocket;
use crate::wire::Sock;

/// How long the other side may go on after one side ended.
const HALF_CLOSED: Duration = Duration::from_secs(30);

fn echo_frame(client: &mut Client, text: &[u8]) {
    client.send_frame(websocket::TEXT, text);
    assert_eq!(client.read_frame().payload, text);
}

#[test]
fn megabytes_pass_both_ways_at_once() {
    const TOTAL: usize = 8 << 20;
    let origin = Origin::start(|exchange| {
        exchange.send(websocket::ACCEPTED)?;
        loop {
            match exchange.read_raw()? {
                bytes if bytes.is_empty() => return Ok(Next::Close),
                bytes => exchange.send(&bytes)?,
            }
        }
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.upgrade("/");
    let sent = origin::pattern(TOTAL);
    let mut out = client.wire.sock.again().expect("a second handle");
    let heard = thread::scope(|scope| {
        scope.spawn(|| sent.chunks(100_003).for_each(|piece| out.write_all(piece).expect("a tunnel that takes bytes")));
        client.read(TOTAL)
    });
    assert!(heard == sent, "what came back is not what was sent");
    client.finish_sending();
    client.expect_end();
    proxy.wait_until("the tunnel's end", |totals| totals.tunnels_active == 0);
    assert_eq!((proxy.stats().tunnels, proxy.stats().requests), (1, 1));
    // Both ends closed in order: nobody is to blame.
    assert_eq!(proxy.stats().reasons.0.iter().sum::<u64>(), 0);
}

#[test]
fn a_backends_end_is_passed_on_and_the_client_may_finish() {
    let origin = Origin::start(|exchange| {
        exchange.finish(&[websocket::ACCEPTED, b"that is all"].concat())?;
        Ok(Next::Listen)
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.upgrade("/");
    assert_eq!(client.read_to_end(), b"that is all");
    client.send(b"but I have more to say");
    client.finish_sending();
    origin.wait_for_silence();
    assert!(origin.connections()[0].bytes.ends_with(b"but I have more to say"));
    proxy.wait_for_open(0);
}

/// Opens a tunnel whose one side ends and whose other side never does, though it goes on talking; how long until the
/// proxy ends it.
fn half_closed_for(client_ends: bool) -> Duration {
    let origin = Origin::start(move |exchange| {
        exchange.send(websocket::ACCEPTED)?;
        if !client_ends {
            exchange.finish_sending()?;
            while !exchange.read_raw()?.is_empty() {}
            return Ok(Next::Close);
        }
        while !exchange.read_raw()?.is_empty() {}
        // The client has ended; now this side talks for as long as anybody listens.
        while exchange.send(b"and another thing. ").is_ok() {
            thread::park_timeout(Duration::from_millis(250));
        }
        Ok(Next::Close)
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.bound(HALF_CLOSED * 2);
    client.upgrade("/");
    let since = Instant::now();
    if client_ends {
        client.finish_sending();
        // Ends in order or by a reset.
        while since.elapsed() < HALF_CLOSED * 2 && client.wire.take_some().is_ok_and(|bytes| !bytes.is_empty()) {}
    } else {
        client.expect_end();
        while client.try_send(b"and another thing. ").is_ok() && since.elapsed() < HALF_CLOSED * 2 {
            thread::park_timeout(Duration::from_millis(250));
        }
    }
    since.elapsed()
}

#[test]
fn half_a_tunnel_has_thirty_seconds() {
    thread::scope(|scope| {
        let ends = [true, false].map(|client_ends| scope.spawn(move || half_closed_for(client_ends)));
        for end in ends {
            let took = end.join().expect("a half-closed tunnel");
            assert!(took >= HALF_CLOSED && took < HALF_CLOSED + Duration::from_secs(5), "it took {took:?}");
        }
    });
}

#[test]
fn a_silent_tunnel_ends_after_tunnel_timeout_and_a_busy_one_does_not() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&[("tunnel_timeout", "700ms")], &sections(&origin, "", ""));
    let mut client = proxy.client();
    client.upgrade("/ws");
    let since = Instant::now();
    // From before the last frame: this thread may be kept waiting between that and the next look at the time.
    let mut silent = since;
    while since.elapsed() < Duration::from_millis(1500) {
        silent = Instant::now();
        echo_frame(&mut client, b"still here");
    }
    client.expect_end();
    let took = silent.elapsed();
    assert!(took >= Duration::from_millis(600) && took < Duration::from_secs(5), "it took {took:?}");
    origin.wait_for_silence();
    let reason = speedmimi::error::Reason::TunnelIdle;
    proxy.wait_until("the reason", |totals| totals.reasons.of(reason) == 1 && totals.tunnels_active == 0);
}

#[test]
fn a_silent_tunnel_outlives_every_other_timeout() {
    let origin = Origin::start(origin::by_path);
    let short =
        [("read_timeout", "200ms"), ("write_timeout", "200ms"), ("idle_timeout", "200ms"), ("park_after", "100ms")];
    let proxy = Proxy::start(&short, &sections(&origin, "", "read_timeout: 200ms, response_timeout: 200ms"));
    let mut client = proxy.client();
    client.upgrade("/ws");
    client.bound(Duration::from_millis(1000));
    assert!(matches!(client.wire.take(1), Err(crate::wire::Trouble::Quiet { .. })));
    client.bound(origin::WATCHDOG);
    echo_frame(&mut client, b"awake");
}

#[test]
fn a_reset_ends_both_sides_at_once() {
    let origin = Origin::start(|exchange| {
        exchange.send(websocket::ACCEPTED)?;
        if exchange.path() == "/reset" {
            exchange.gate("reset").pass()?;
            return Ok(Next::Reset);
        }
        exchange.hold()
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.upgrade("/");
    let since = Instant::now();
    client.reset();
    origin.wait_for_silence();
    let mut client = proxy.client();
    client.upgrade("/reset");
    origin.gate("reset").open();
    // Whether by a reset or in order: at once, as nothing more can come.
    let _ = client.wire.take_to_end();
    assert!(since.elapsed() < Duration::from_secs(5));
    proxy.wait_for_open(0);
}

#[test]
fn a_refused_upgrade_is_an_answer_like_any_other() {
    let origin = Origin::start(|exchange| match exchange.path() {
        "/426" => exchange.finish(
            b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Version: 13\r\nContent-Length: 5\r\n\r\nnever",
        ),
        _ => origin::by_path(exchange),
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.send(websocket::request("/426"));
    let answer = client.response();
    assert_eq!((answer.status, answer.text().as_str()), (426, "never"));
    // RFC 9110, section 15.5.22: a 426 names what to upgrade to, in `Upgrade`.
    assert_eq!(answer.fields.one("upgrade").as_deref(), Some("websocket"));
    client.send(websocket::request("/size/100000"));
    assert_eq!(client.response().body, origin::pattern(100_000));
    client.upgrade("/ws");
    echo_frame(&mut client, b"third time lucky");
    assert_eq!(origin.connections().len(), 1);
}

#[test]
fn a_tunnel_may_finish_while_the_proxy_drains() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&[("shutdown_timeout", "20s")], &sections(&origin, "", ""));
    let mut client = proxy.client();
    client.upgrade("/ws");
    let addr = proxy.addr();
    proxy.drain();
    wait::until("refusal of new connections", || Sock::tcp(addr).is_err());
    for n in 0..50 {
        echo_frame(&mut client, format!("frame {n}").as_bytes());
    }
    client.send_frame(websocket::CLOSE, &1000u16.to_be_bytes());
    assert_eq!(client.read_frame().opcode, websocket::CLOSE);
    client.expect_end();
    drop(client);
    let since = Instant::now();
    proxy.shutdown();
    assert!(since.elapsed() < Duration::from_secs(10), "draining waited for nothing");
}
