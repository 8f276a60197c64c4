//! `hold`: every connection and every request is counted as what it was.
//!
//! Owns runs against an origin of this process. What memory it tells is not judged here: nobody else's is that exact.

use socket2::{Domain, Socket, Type};
use speedmimi_bench::hold::{self, Options, Report};
use speedmimi_bench::network;
use speedmimi_bench::origin::{self, Origin, Spoil};
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

const CONNECTIONS: u64 = 200;

fn run(options: &Options) -> Report {
    hold::run(options, &AtomicBool::new(false)).unwrap()
}

fn hold(origin: &Origin, change: impl FnOnce(&mut Options)) -> Report {
    let mut options = Options {
        target: origin.url().parse().unwrap(),
        connections: CONNECTIONS,
        rate: vec![1000],
        duration: vec![Duration::from_millis(500)],
        settle: Duration::ZERO,
        timeout: Duration::from_secs(20),
        ..Options::default()
    };
    change(&mut options);
    run(&options)
}

#[test]
fn all_are_opened_and_each_is_asked_in_its_turn() {
    let origin = Origin::start(&origin::Options::default()).unwrap();
    let report = hold(&origin, |options| {
        options.rate = vec![400, 2000];
        options.threads = 2;
    });
    assert!(report.is_whole(), "{report:?}");
    assert_eq!((report.opened, report.threads), (CONNECTIONS, 2));
    let [few, many] = &report.trickles[..] else { panic!("two rates: {report:?}") };
    // On the schedule, whatever the machine does: what is late is asked all the same.
    assert_eq!((few.ok, many.ok), (200, 1000), "{report:?}");
    let stats = origin.stats();
    assert_eq!(stats.requests, CONNECTIONS + few.ok + many.ok);
    assert_eq!((stats.connections, stats.violations()), (CONNECTIONS, 0));
}

#[test]
fn websockets_are_upgraded_once_and_echo_each_time() {
    let origin = Origin::start(&origin::Options::default()).unwrap();
    let report = hold(&origin, |options| (options.websocket, options.pid) = (true, Some(std::process::id())));
    assert!(report.is_whole(), "{report:?}");
    let grown = report.idle.user as f64 - report.before.user as f64;
    assert!((report.user_bytes_each * CONNECTIONS as f64 - grown).abs() < 1.0, "{report:?}");
    assert!(report.trickles[0].ok > 0);
    assert_eq!(origin.stats().upgrades, CONNECTIONS);
}

#[test]
fn what_fails_is_neither_hidden_nor_tried_again() {
    let spoilt = |fail_with| {
        let origin = Origin::start(&origin::Options { fail_every: 300, fail_with, ..origin::Options::default() });
        let origin = origin.unwrap();
        let report = hold(&origin, |_| {});
        assert_eq!((report.opened, report.is_whole()), (CONNECTIONS, false), "{report:?}");
        assert_eq!(origin.stats().connections, CONNECTIONS);
        // The 300th of 700 answers, and the 600th.
        assert_eq!(report.trickles[0].failures.sum(), 2, "{report:?}");
        report.trickles[0].failures.clone()
    };
    assert_eq!(spoilt(Spoil::Status).answer, 2);
    assert_eq!(spoilt(Spoil::Close).closed, 2);
}

#[test]
fn an_interrupt_ends_it() {
    let origin = Origin::start(&origin::Options::default()).unwrap();
    let target = origin.url().parse().unwrap();
    let options = Options { target, duration: vec![Duration::from_secs(3600)], ..Options::default() };
    let error = hold::run(&options, &AtomicBool::new(true)).unwrap_err();
    assert!(error.to_string().contains("interrupted"), "{error}");
}

#[test]
fn a_target_that_is_not_there_is_so_many_failures() {
    // Bound, so that nobody else is there either; not listened on.
    let nobody = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    nobody.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = nobody.local_addr().unwrap().as_socket().unwrap();
    let options = Options {
        target: format!("http://{address}").parse().unwrap(),
        connections: 50,
        duration: vec![Duration::from_millis(10)],
        settle: Duration::ZERO,
        ..Options::default()
    };
    let report = run(&options);
    assert_eq!((report.opened, report.open_failures.connect), (0, 50));
    // Nobody can be asked, and that is told as well.
    assert_eq!(report.trickles[0].failures.sum(), 10);
}

/// What the whole machine sees is as it was before, and what is set is set inside.
#[test]
fn a_network_of_its_own_leaves_the_machine_as_it_was() {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap();
    let names = ["ipv4/tcp_child_ehash_entries", "ipv4/ip_local_port_range", "core/somaxconn"];
    let before = names.map(read);
    let inside = std::thread::spawn(move || {
        let space = network::enter(1000);
        // A thread's own view: it is the thread alone that moved.
        let range = std::fs::read_to_string("/proc/thread-self/net/sockstat");
        (space.map(|space| space.settings.len()), range.is_ok())
    });
    match inside.join().unwrap() {
        (Ok(settings), seen) => assert!(settings >= 4 && seen),
        (Err(error), _) => eprintln!("SKIPPED: {error}"),
    }
    assert_eq!(names.map(read), before);
}
