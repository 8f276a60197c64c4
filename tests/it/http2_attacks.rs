//! What one HTTP/2 client can make the proxy and a backend do: each attack is bounded, and ends its connection.

use std::time::{Duration, Instant};

use crate::frames::{self, *};
use crate::origin::{self, Origin};
use crate::proxy::{Proxy, sections};

fn started() -> (Origin, Proxy) {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::before(&origin);
    (origin, proxy)
}

/// Sends until the other side has had enough; its last word.
fn flood(raw: &mut Raw, rounds: usize, mut bytes: impl FnMut(usize) -> Vec<u8>) -> Verdict {
    for round in 0..rounds {
        if raw.try_send(bytes(round)).is_err() {
            break;
        }
    }
    let last = raw.last_word();
    assert_ne!(last, Verdict::Ended, "it says why");
    last
}

fn id(round: usize) -> u32 {
    u32::try_from(2 * round + 1).expect("a stream")
}

#[test]
fn streams_reset_at_the_backend_are_still_counted() {
    let (origin, proxy) = started();
    let mut raw = Raw::connect(proxy.addr());
    let since = Instant::now();
    // In steps, so that each gets to the backend before it is reset.
    let last = flood(&mut raw, 40, |round| {
        let ids = (0..50).map(|i| id(50 * round + i));
        let opened: Vec<u8> = ids.clone().flat_map(|id| frames::open(id, true, "GET", "/never", &[])).collect();
        let mut all = opened;
        all.extend(frame(PING, 0, 0, b"12345678"));
        std::thread::park_timeout(Duration::from_millis(5));
        all.extend(ids.flat_map(|id| reset(id, CANCEL)).collect::<Vec<u8>>());
        all
    });
    assert_eq!(last, Verdict::GoAway(ENHANCE_YOUR_CALM));
    let seconds = usize::try_from(since.elapsed().as_secs()).expect("a short test") + 1;
    assert!(origin.in_flight_max() <= 110 * seconds, "{} in flight at the backend", origin.in_flight_max());
    origin.wait_for_in_flight(0);
    assert_eq!(proxy.client().get("/").status, 200);
}

#[test]
fn resets_that_we_are_made_to_send_are_counted_too() {
    let (origin, proxy) = started();
    let mut raw = Raw::connect(proxy.addr());
    let last = flood(&mut raw, 3000, |round| {
        let mut all = frames::open(id(round), false, "POST", "/never", &[]);
        all.extend(window_update(id(round), 0x7fff_ffff));
        all
    });
    assert!(matches!(last, Verdict::GoAway(ENHANCE_YOUR_CALM)), "{last:?}");
    assert!(origin.in_flight_max() <= 110, "{} in flight at the backend", origin.in_flight_max());
}

#[test]
fn frames_that_bring_nothing_are_borne_up_to_a_bound() {
    let (_origin, proxy) = started();
    let settings = frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]);
    let floods: [(&str, Vec<u8>); 6] = [
        ("pings", frame(PING, 0, 0, b"12345678")),
        ("settings", settings),
        ("empty DATA", frame(DATA, 0, 1, b"")),
        ("window updates", window_update(0, 1)),
        ("priorities", frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 1])),
        ("unknown frames", frame(77, 0, 0, &[0; 1000])),
    ];
    for (what, bytes) in floods {
        let mut raw = Raw::connect(proxy.addr());
        raw.send(frames::open(1, false, "POST", "/never", &[]));
        let last = flood(&mut raw, 200, |_| bytes.repeat(50));
        assert_eq!(last, Verdict::GoAway(ENHANCE_YOUR_CALM), "{what}");
    }
    assert_eq!(proxy.client().get("/").status, 200);
}

#[test]
fn a_head_without_end_is_cut_off() {
    let (_origin, proxy) = started();
    let mut raw = Raw::connect(proxy.addr());
    raw.send(frame(HEADERS, END_STREAM, 1, &request("GET", "/", &[])));
    let crumb = block(&[("cookie", "a")]).repeat(100);
    let last = flood(&mut raw, 10_000, |_| frame(CONTINUATION, 0, 1, &crumb));
    assert!(matches!(last, Verdict::GoAway(ENHANCE_YOUR_CALM | PROTOCOL_ERROR | COMPRESSION_ERROR)), "{last:?}");
}

#[test]
fn a_head_of_tiny_references_is_too_large() {
    let (origin, proxy) = started();
    let mut raw = Raw::connect(proxy.addr());
    let value = "v".repeat(4000);
    // One entry of the table, and then references of one byte each: 16 MB of fields in 4 KB.
    let mut bomb = request("GET", "/", &[]);
    bomb.extend([0x40, 1, b'x']);
    bomb.extend(&block(&[("x", &value)])[3..]);
    bomb.extend([0xbe; 4000]);
    raw.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb));
    let verdict = raw.verdict();
    assert!(!matches!(verdict, Verdict::Answered(_, 200)), "{verdict:?}");
    let mut raw = Raw::connect(proxy.addr());
    raw.send(frames::open(1, true, "GET", "/", &[("cookie", "a"); 101]));
    assert_eq!(raw.verdict(), Verdict::Answered(1, 431), "crumbs are fields");
    assert!(origin.requests().is_empty());
}

#[test]
fn a_stream_on_a_window_of_drips_is_reaped() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&[("write_timeout", "1s")], &sections(&origin, "", ""));
    let mut raw = Raw::with(proxy.addr(), &[(4, 0)]);
    raw.send(frames::open(1, true, "GET", "/size/1000000", &[]));
    raw.wait_for(HEADERS);
    let since = Instant::now();
    let end = loop {
        // A byte more with each that comes: progress of a sort.
        raw.send(window_update(1, 1));
        let frame = raw.next().expect("a connection that goes on");
        if frame.kind == RST_STREAM {
            break frame;
        }
        assert!(since.elapsed() < Duration::from_secs(8), "it is never reaped");
        std::thread::park_timeout(Duration::from_millis(20));
    };
    assert_eq!((end.stream, &end.payload[..]), (1, &CANCEL.to_be_bytes()[..]));
    assert!(raw.is_alive());
    origin.wait_for_in_flight(0);
}

#[test]
fn more_streams_than_allowed_are_refused() {
    let (origin, proxy) = started();
    let mut raw = Raw::connect(proxy.addr());
    let opened: Vec<u8> = (0..101).flat_map(|i| frames::open(id(i), true, "GET", "/gate/go", &[])).collect();
    raw.send(opened);
    assert_eq!(raw.verdict(), Verdict::Reset(201, REFUSED_STREAM));
    origin.wait_for_in_flight(100);
    origin.gate("go").open();
    for _ in 0..100 {
        assert!(matches!(raw.verdict(), Verdict::Answered(_, 200)));
    }
}

#[test]
fn who_never_finishes_the_handshake_is_let_go() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&[("read_timeout", "300ms")], &sections(&origin, "", ""));
    for begun in [&PREFACE[..10], PREFACE] {
        let mut raw = Raw::silent(proxy.addr());
        raw.send(begun);
        raw.last_word();
    }
    let mut raw = Raw::connect(proxy.addr());
    assert_eq!(raw.last_word(), Verdict::GoAway(NO_ERROR), "nor who then never asks");
    proxy.wait_for_open(0);
}

#[test]
fn what_a_client_never_takes_is_dropped() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&[("write_timeout", "300ms")], &sections(&origin, "", ""));
    let mut raw = Raw::with(proxy.addr(), &[(4, 0x7fff_ffff)]);
    raw.send(window_update(0, 0x7fff_0000 - 65_535));
    raw.send(frames::open(1, true, "GET", "/size/20000000", &[]));
    origin.wait_for_requests(1);
    proxy.wait_for_open(0);
    // An end that the kernel would tell behind all of it is none.
    assert!(raw.is_reset());
}
