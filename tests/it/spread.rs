//! New connections are spread over the workers, or steered to the one on their CPU.

use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::thread;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::client::Client;
use crate::dir::Dir;
use crate::origin::{self, Origin};
use crate::proxy::{self, Proxy};

/// On a Unix socket all workers share one queue, and without handing over the quickest takes nearly all.
#[test]
fn no_worker_takes_far_more_than_its_part() {
    const CLIENTS: u64 = 400;
    let origin = Origin::start(origin::by_path);
    let dir = Dir::new("spread");
    let path = dir.path("proxy.sock");
    let listen = format!("[\"unix:{}\"]", path.display());
    let proxy = Proxy::start(&[("workers", "4"), ("listen", &listen)], &proxy::sections(&origin, "", ""));
    let clients: Vec<UnixStream> =
        (0..CLIENTS).map(|_| UnixStream::connect(&path).expect("the proxy listens")).collect();
    proxy.wait_until("all are accepted", |totals| totals.connections_active == CLIENTS);
    let counts = proxy.connections_by_worker();
    // A quarter over the mean, and what was on its way while it was counted.
    assert!(counts.iter().all(|&n| n <= CLIENTS / 4 * 5 / 4 + 64), "{counts:?}");
    // Wherever they went, they are served.
    drop(clients);
    for _ in 0..50 {
        assert_eq!(Client::connect_unix(&path).get("/").status, 200);
    }
}

/// On a loopback a connection comes in on the CPU of who connects.
#[test]
fn a_steered_connection_goes_to_the_worker_on_its_cpu() {
    const CLIENTS: usize = 60;
    if !kernel_steers() {
        eprintln!("SKIPPED: the kernel keeps to it since 6.2");
        return;
    }
    let allowed = sched_getaffinity(None).expect("an affinity");
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).take(2).collect();
    let [first, second] = cpus[..] else {
        eprintln!("SKIPPED: one CPU alone has nothing to steer between");
        return;
    };
    // Three workers, so that one CPU has two: they share.
    let affinity = format!("[{first}, {second}, {second}]");
    let keys = |steering| [("workers", "3"), ("cpu_affinity", affinity.as_str()), ("steering", steering)];
    let connect_on = |cpu: usize, to| {
        thread::spawn(move || {
            let mut set = CpuSet::new();
            set.set(cpu);
            sched_setaffinity(None, &set).expect("the test may run there");
            (0..CLIENTS).map(|_| TcpStream::connect(to).expect("the proxy listens")).collect::<Vec<_>>()
        })
    };
    let origin = Origin::start(origin::by_path);
    let counts_of = |steering| {
        let proxy = Proxy::start(&keys(steering), &proxy::sections(&origin, "", ""));
        let ends = [(first, proxy.addr()), (second, proxy.addr())].map(|(cpu, to)| connect_on(cpu, to));
        let _ends = ends.map(|end| end.join().expect("connections"));
        proxy.wait_until("all are accepted", |totals| totals.connections_active == 2 * CLIENTS as u64);
        // Wherever they went, they are served.
        assert_eq!(Client::connect(proxy.addr()).get("/").status, 200);
        let counts = proxy.connections_by_worker();
        [counts[0], counts[1], counts[2]]
    };
    let [alone, one, other] = counts_of("cpu");
    // A softirq that was put off may have run elsewhere.
    let all = CLIENTS as u64;
    assert!((all - 6..=all + 6).contains(&alone), "{alone}, {one}, {other}");
    // The kernel goes on from the socket that the hash named to the next on this CPU: one in three comes to the other.
    assert!(one > all / 20 && other > all / 20, "{one} and {other} share a CPU");
    let spread = counts_of("hash");
    assert!(spread.iter().all(|&n| n < all - 6), "without steering: {spread:?}");
}

fn kernel_steers() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next(), parts.next()) >= (Some(6), Some(2))
}
