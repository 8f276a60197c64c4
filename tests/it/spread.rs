//! New connections are spread over the workers.

use std::os::unix::net::UnixStream;

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
