//! Private descriptor tables under a million wakes across threads and a million signals.
//!
//! Owns its process (one test, its own binary): what else were open at the start would be open in every worker's table.
//! `e2e` has a smaller storm over the program as it is shipped.

#[allow(dead_code)]
#[path = "it/client.rs"]
mod client;
#[allow(dead_code)]
#[path = "it/origin.rs"]
mod origin;
#[path = "it/signals.rs"]
mod signals;
#[path = "it/traffic.rs"]
mod traffic;
#[allow(dead_code)]
#[path = "it/websocket.rs"]
mod websocket;
#[allow(dead_code)]
#[path = "it/wire.rs"]
mod wire;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid};
use speedmimi::config::document::Document;
use speedmimi::server;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{self, SignalKind};

use crate::client::Client;
use crate::origin::Origin;
use crate::signals::Signals;

/// Wakes, and signals.
const EACH: u64 = 1_000_000;
const WORKERS: u64 = 8;
/// Each of them leaves and comes again; there are fewer slots.
const LOADS: usize = 4;
const SLOTS: usize = 2;
/// No judgement of speed: an end for a storm that does not get on.
const STORM_TIME_MAX: Duration = Duration::from_secs(600);

const SIGNALS: [Signal; 4] = [Signal::HUP, Signal::USR1, Signal::USR2, Signal::WINCH];
const KINDS: [SignalKind; 4] =
    [SignalKind::hangup(), SignalKind::user_defined1(), SignalKind::user_defined2(), SignalKind::window_change()];

/// Both are counted strictly:
///
/// - A wake is a reload that a worker was told of and confirmed: control's message wakes it by a write to the number that
///   the waker of its event loop has in every table. On top, and not counted, are the confirmations and the slots that one
///   worker's request hands to another's.
/// - A signal is one that the kernel delivered by itself; its handler writes to the number of the signal pipe.
///
/// Last counted, on two busy cores: 1,000,000 wakes, 1,000,003 signals and 367,541 exchanges, of which 305,579 waited for a
/// slot, in 48 s.
#[test]
fn private_tables_keep_every_byte_to_its_connection_under_a_million_wakes_and_a_million_signals() {
    // Before the tables are apart, as `run` does it.
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let streams = handle_signals(&runtime);
    let (origin, echo) = (Origin::start(origin::by_path), traffic::echo());
    let text = format!(
        "grpc: {{enabled: false}}\n\
         server: {{host: 127.0.0.1, port: 0, workers: {WORKERS}, fd_tables: private, park_after: 100ms, \
         read_timeout: 1h, idle_timeout: 1h}}\n\
         backends: {{default: [{{host: 127.0.0.1, port: {}}}], \
         echo: [{{host: 127.0.0.1, port: {echo}, max_conn: {SLOTS}}}]}}\n\
         upstreams: {{echo: {{queue: {{size: 100, timeout: 30s}}}}}}\n\
         routing: {{default: {{upstream: default}}, echo: {{path: /echo, upstream: echo}}}}\n",
        origin.port()
    );
    let document = Document::from_text(&text, "storm.yaml", |_| None).expect("a sound configuration");
    let proxy = server::start(document.clone()).expect("a started proxy");
    assert!(proxy.descriptors().is_private);
    let addr = proxy.addr(0).expect("an address");

    // Who says nothing must hear nothing: a stray wake would be a byte here.
    let mut silent: Vec<Client> = (0..100).map(|_| Client::connect(addr)).collect();
    for client in silent.iter_mut().skip(50) {
        assert_eq!(client.get("/").status, 200);
    }
    let mut tunnel = Client::connect(addr);
    tunnel.upgrade("/ws");

    let (stop, exchanges, sent) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let (began, mut wakes) = (Instant::now(), 0);
    thread::scope(|scope| {
        // Ends with its runtime, when the signals do.
        scope.spawn(|| runtime.block_on(take_signals(streams, &stop)));
        let loads: Vec<_> = (0..LOADS)
            .map(|who| {
                let (stop, exchanges) = (&stop, &exchanges);
                scope.spawn(move || traffic::checked(addr, who, stop, exchanges))
            })
            .collect();
        scope.spawn(|| {
            let mut signals = Signals::to(getpid());
            while signals.sent < EACH && !stop.load(Ordering::Relaxed) {
                signals.send(&SIGNALS);
                sent.store(signals.sent, Ordering::Relaxed);
            }
        });
        let is_over = |wakes| {
            let is_done = wakes >= EACH && sent.load(Ordering::Relaxed) >= EACH;
            is_done || began.elapsed() > STORM_TIME_MAX || loads.iter().any(thread::ScopedJoinHandle::is_finished)
        };
        while !is_over(wakes) {
            for _ in 0..100 {
                assert!(proxy.reload(document.clone()).expect("a reload").restart_required.is_empty());
                wakes += WORKERS;
            }
            tunnel.send_frame(websocket::TEXT, b"in the midst of it");
            assert_eq!(tunnel.read_frame().payload, b"in the midst of it");
        }
        stop.store(true, Ordering::Relaxed);
        loads.into_iter().for_each(|load| load.join().expect("traffic without a stray or missing byte"));
    });
    let (exchanges, sent, handed) = (exchanges.into_inner(), sent.into_inner(), proxy.stats().queue_waits);
    let told = format!(
        "{wakes} wakes, {sent} signals, {exchanges} exchanges of which {handed} waited for a slot, in {:?}",
        began.elapsed()
    );
    println!("{told}");
    assert!(wakes >= EACH && sent >= EACH, "{told}");

    for client in &mut silent {
        client.send_get("/size/5");
        assert_eq!(client.response().body, origin::pattern(5));
        client.finish_sending();
        client.expect_end();
    }
    drop(tunnel);
    proxy.shutdown();
}

fn handle_signals(runtime: &Runtime) -> Vec<unix::Signal> {
    let _inside = runtime.enter();
    KINDS.into_iter().map(|kind| unix::signal(kind).expect("a handler")).collect()
}

/// Takes signals in until told to stop, as what handles them in the program would.
async fn take_signals(streams: Vec<unix::Signal>, stop: &AtomicBool) {
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    let mut streams = streams;
    let [hangup, user1, user2, window] = &mut streams[..] else { unreachable!("as many as kinds") };
    while !stop.load(Ordering::Relaxed) {
        tokio::select! {
            _ = hangup.recv() => {}
            _ = user1.recv() => {}
            _ = user2.recv() => {}
            _ = window.recv() => {}
            _ = tick.tick() => {}
        }
    }
}
